"""Cards as pages of the documentation: the templates in ``templates/`` filled in."""

from __future__ import annotations

import html
import inspect
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pydantic

from spfem_bench.definitions import published
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.datasets import DatasetCard, dataset_card, dataset_files
from spfem_bench.definitions.described import keys
from spfem_bench.definitions.layouts import LayoutCard, layout_card
from spfem_bench.definitions.methods import MethodCard, method_card
from spfem_bench.definitions.metrics import METRIC_KINDS, MetricCard
from spfem_bench.definitions.networks import (
    NetworkCard,
    ProfileCard,
    network_card,
    profile_card,
)
from spfem_bench.definitions.protocols import ProtocolCard, load_protocol, protocol
from spfem_bench.definitions.published import PublishedCard, published_cards
from spfem_bench.evaluation.controls import methods_with_clips
from spfem_bench.networks.weights import is_shipped
from spfem_bench.reporting.templating import fill_template


def protocols() -> dict[str, str]:
    """Return a page in Markdown for each protocol, by its name."""
    return {name: protocol_page(load_protocol(name)) for name in names(Kind.PROTOCOL)}


def registry() -> dict[str, str]:
    """Return the pages in Markdown that list all other cards, by the page's name."""
    networks = map(network_card, names(Kind.NETWORK))
    profiles = map(profile_card, names(Kind.PROFILE))
    return {
        "networks": _page("networks", networks=networks, profiles=profiles, is_shipped=is_shipped),
        "methods": _methods(),
        "datasets": _datasets(),
        "layouts": _page("layouts", layouts=map(layout_card, names(Kind.LAYOUT))),
        "published": _page("published", published=published_cards(), numbers=_numbers),
    }


def cards() -> str:
    """Return the page in Markdown that tells what each kind of card holds, from the models."""
    kinds: dict[str, type[pydantic.BaseModel]] = {
        "metrics": MetricCard,
        "metrics/networks": NetworkCard,
        "metrics/profiles": ProfileCard,
        "protocols": ProtocolCard,
        "protocols/datasets": DatasetCard,
        "protocols/layouts": LayoutCard,
        "reference_results/methods": MethodCard,
    }
    statistics = {kind: METRIC_KINDS.get(kind) for kind in METRIC_KINDS.kinds()}
    return _page("cards", kinds=kinds, statistics=statistics, keys=keys, summary=_summary)


def _summary(model: type[pydantic.BaseModel]) -> str:
    return (inspect.getdoc(model) or "").partition("\n")[0]


def protocol_page(card: ProtocolCard) -> str:
    """Return one protocol's page in Markdown: its card, and counts of its list.

    A list that is solved from each user's own clips is not counted.
    """
    items = () if card.solve else protocol(card.name).items
    emotions = Counter(item.emotion for item in items)
    profile = profile_card(card.profile)
    clips = {str(role): address for role, address in card.clips.items()}
    real = clips.get("real")
    return _page(
        "protocol",
        card=card,
        items=items,
        emotions={emotion: emotions[emotion] for emotion in card.emotions},
        speakers=dict(sorted(Counter(item.speaker for item in items).items())),
        dataset=dataset_card(card.dataset),
        methods=[*card.outputs, "source"],
        clips=clips,
        same=next((r for r in ("source", "reference") if real and clips.get(r) == real), ""),
        shipped=all(is_shipped(profile.network(role)) for role in profile.roles),
    )


def _methods() -> str:
    protocols_of: dict[str, list[str]] = {}
    for listed in (
        protocol(c.name) for c in map(load_protocol, names(Kind.PROTOCOL)) if not c.solve
    ):
        for method in methods_with_clips(listed):
            protocols_of.setdefault(method, []).append(listed.name)
    return _page(
        "methods",
        methods=[method_card(name) for name in names(Kind.METHOD)],
        published={number.method for card in published_cards() for number in _numbers(card)},
        protocols_of=protocols_of,
        page=lambda card: Path(card.link).stem,
    )


def _datasets() -> str:
    protocols_of: dict[str, list[str]] = {}
    for name in names(Kind.PROTOCOL):
        protocols_of.setdefault(load_protocol(name).dataset, []).append(name)
    return _page(
        "datasets",
        datasets=map(dataset_card, names(Kind.DATASET)),
        protocols_of=protocols_of,
        files=dataset_files,
        megabytes=_megabytes,
    )


def _numbers(card: PublishedCard) -> tuple[published.PrintedNumber, ...]:
    return published.read_tidy(card.values_path)[0]


def _megabytes(card: DatasetCard) -> str:
    return f"{sum(file.bytes or 0 for file in dataset_files(card).values()) / 1e6:.0f}"


def _page(template: str, **values: Any) -> str:
    text = fill_template(f"{template}.md", values, words=_words, each=_each, filled=_filled)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _words(text: str) -> str:
    """Return a card's text on one line, without markup."""
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _each(values: Mapping[str, object] | Iterable[object] | str, form: str, by: str = ", ") -> str:
    """Return values, or pairs of a mapping, each in a format, joined by a separator."""
    if isinstance(values, Mapping):
        return by.join(form.format(*pair) for pair in values.items())
    listed = values if isinstance(values, (list, tuple)) else [values]
    return by.join(form.format(value) for value in listed)


def _filled(lines: str) -> str:
    """Return lines without blank ones, and without rows whose last cell is empty."""
    kept = (line for line in lines.splitlines() if line.strip() and not line.endswith("|  |"))
    return "\n".join(kept)
