"""Cards as pages of the documentation: what a card says stands in it alone."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from spfem_bench.definitions.cards import Card, Kind, load, names
from spfem_bench.definitions.datasets import DatasetCard, dataset_card, dataset_files
from spfem_bench.definitions.layouts import layout_card
from spfem_bench.definitions.methods import MethodCard, method_card
from spfem_bench.definitions.networks import NetworkCard, network_card, profile_card
from spfem_bench.definitions.protocols import Protocol, ProtocolCard, protocol
from spfem_bench.evaluation.controls import methods_with_clips
from spfem_bench.files import inside
from spfem_bench.networks.weights import is_shipped
from spfem_bench.reporting.published import PublishedCard


def protocols() -> dict[str, str]:
    """Return a page in Markdown for each protocol, by its name."""
    return {name: protocol_page(protocol(name)) for name in names(Kind.PROTOCOL)}


def registry() -> dict[str, str]:
    """Return the pages in Markdown that list all other cards, by the page's name."""
    return {
        "networks": _networks(),
        "methods": _methods(),
        "datasets": _datasets(),
        "layouts": _layouts(),
        "published": _published(),
    }


def protocol_page(found: Protocol) -> str:
    """Return one protocol's page in Markdown: its card in words, and what its list holds."""
    card = found.card
    dataset = dataset_card(card.dataset)
    emotions = Counter(item.emotion for item in found.items)
    speakers = Counter(item.speaker for item in found.items)
    facts = {
        "Name, version": f"`{card.name}`, {card.version}",
        "Setting": card.setting,
        "Items": str(len(found.items)),
        "Emotions": _counts({e: emotions[e] for e in card.emotions}),
        "Speakers": _counts(dict(sorted(speakers.items()))),
        "Data set": f"[`{dataset.name}`](../registry/datasets.md#{dataset.name}): "
        f"{_words(dataset.title)}",
        "Source clip": _clip(card, "source"),
        "Reference clip": _clip(card, "reference"),
        "Real clips, for FAD": _real(card),
        "Faces": "found and followed" if card.faces == "detect" else "crops already",
        "Profile, unless another is named": f"`{card.profile}`",
        "Metrics": _metric_links(card.metrics),
        "Metrics on request": _metric_links(card.on_request),
        "Outputs there": ", ".join(f"`{m}`" for m in card.outputs) or "none: score your own",
        "Output expected of your own": f"`{card.output_name}`",
        "Published rows beside it": _rows_beside(card),
        "Citation": _words(card.citation),
    }
    parts = [
        f"# {_words(card.title)}",
        _words(card.description),
        _table(["", ""], facts.items()),
        "## What may be concluded",
        _words(card.shows),
        "## What may not",
        _words(card.hides),
        *_notes(card),
    ]
    if card.not_applicable:
        parts += [
            "## Metrics it cannot have",
            _table(
                ["metric", "why"],
                ([f"`{name}`", _words(reason)] for name, reason in card.not_applicable.items()),
            ),
        ]
    fetch = [f"spfem-bench data fetch {dataset.name}"] if dataset.url else []
    profile = profile_card(card.profile)
    if not all(is_shipped(profile.network(role)) for role in profile.roles):
        fetch.append(f"spfem-bench networks fetch --profile {profile.name}")
    methods = " ".join(f"--method {m}" for m in (*card.outputs, "source"))
    parts += [
        "## Example",
        _code(
            *fetch,
            f"spfem-bench eval --protocol {card.name} {methods}",
            f"spfem-bench table results/{card.name}",
        ),
    ]
    return _page(parts)


def _networks() -> str:
    parts = [
        "# Networks and profiles",
        "The pretrained networks that metrics look through, and the profiles that choose among "
        "them. Weights are known by their SHA-256, which is checked before each load.",
        "## Profiles",
    ]
    for profile in map(profile_card, names(Kind.PROFILE)):
        roles = {role: f"`{profile.network(role).name}`" for role in profile.roles}
        parts += [
            f"### {profile.name}",
            _about(profile),
            _table(["role", "network"], roles.items()),
            _code(f"spfem-bench networks fetch --profile {profile.name}"),
        ]
    parts.append("## Networks")
    for name in names(Kind.NETWORK):
        parts += _network(network_card(name))
    return _page(parts)


def _network(card: NetworkCard) -> list[str]:
    facts = {
        "Role": card.role,
        "Architecture": f"`{card.architecture}`",
        "Outputs": ", ".join(f"{key} ({size})" for key, size in card.outputs.items()) or "faces",
        "Input": ", ".join(f"{key} {value}" for key, value in card.input.settings().items()),
        "Source": _words(card.source),
        "Licence": _words(card.licence),
        "Citation": _words(card.citation),
    }
    files = ([f"`{f.name}`", f"`{f.sha256}`"] for f in card.files)
    what = "verify" if is_shipped(card) else "fetch"
    return [
        f"### {card.name}",
        _about(card),
        _table(["", ""], facts.items()),
        _table(["file", "SHA-256"], files),
        *_notes(card),
        _code(f"spfem-bench networks {what} {card.name}"),
    ]


def _methods() -> str:
    tables = [_values(load(PublishedCard, Kind.PUBLISHED, n)) for n in names(Kind.PUBLISHED)]
    published = set(pd.concat(tables)["method"])
    here: dict[str, list[str]] = {}
    for found in map(protocol, names(Kind.PROTOCOL)):
        for method in methods_with_clips(found):
            here.setdefault(method, []).append(found.name)
    cards = [method_card(name) for name in names(Kind.METHOD)]
    parts = [
        "# Methods",
        "Who made the clips: systems of the field, and controls whose answer is known.",
        "## Systems",
    ]
    for card in (c for c in cards if c.kind == "system"):
        facts = {
            "Paper": _words(card.paper),
            "Code": f"<{card.link}>" if card.link else "none published",
            "Published rows": "yes" if {card.name, *card.aliases} & published else "none here",
        }
        if card.stands_for:
            page = f"[{Path(card.link).stem}](../{Path(card.link).name})"
            facts = {"Small copy of": f"`{card.stands_for}`", "Explained in": page}
        parts += _method(card, facts, here)
    parts.append("## Controls")
    for card in (c for c in cards if c.control):
        control = card.control.settings() if card.control else {}
        parts += _method(card, {k: _plain(v) for k, v in control.items()}, here)
    return _page(parts)


def _method(
    card: MethodCard, facts: Mapping[str, str], here: Mapping[str, Sequence[str]]
) -> list[str]:
    rows = {
        "Printed as": _words(card.label),
        "Also": ", ".join(f"`{alias}`" for alias in card.aliases),
        **facts,
        "Clips in": ", ".join(f"[{p}](../protocols/{p}.md)" for p in here.get(card.name, ())),
    }
    found = here.get(card.name, ())
    with_clips = f"--protocol {found[0]}" if found else "--videos outputs/"
    return [
        f"### {card.name}",
        _about(card),
        _table(["", ""], rows.items()),
        _code(f"spfem-bench eval --method {card.name} {with_clips}"),
    ]


def _datasets() -> str:
    parts = ["# Data sets", "The clips that protocols stand on."]
    for card in map(dataset_card, names(Kind.DATASET)):
        used = [n for n in names(Kind.PROTOCOL) if protocol(n).card.dataset == card.name]
        facts = {
            **_contents(card),
            "Licence": _words(card.licence),
            "Citation": _words(card.citation),
            "Protocols": ", ".join(f"[{name}](../protocols/{name}.md)" for name in used),
        }
        parts += [f"## {card.name}", _about(card), _table(["", ""], facts.items()), *_notes(card)]
        fetch = [f"spfem-bench data fetch {card.name}"] if card.url else []
        if card.recordings:
            fetch = [f"spfem-bench data index {card.name} ROOT"]
        evaluate = [f"spfem-bench eval --protocol {used[0]} --method controls"] if used else []
        parts.append(_code(*fetch, *evaluate))
    return _page(parts)


def _contents(card: DatasetCard) -> dict[str, str]:
    if card.world:
        shipped = dataset_files(card).values()
        size = sum(file.bytes or 0 for file in shipped) / 1e6
        return {
            "World": ", ".join(f"{k} {v}" for k, v in card.world.settings().items()),
            "Shipped": f"{len(shipped)} clips, {size:.0f} MB, each known by its SHA-256",
        }
    if card.recordings:
        return {"From": f"<{card.recordings.get}>, to be asked for there; indexed where they lie"}
    if not card.files:
        return {}
    size = sum(file.bytes or 0 for file in dataset_files(card).values()) / 1e6
    return {
        "Files": f"{len(dataset_files(card))}, {size:.0f} MB, each known by its SHA-256",
        "From": f"<{card.repository}>, commit `{card.commit[:7]}`",
    }


def _layouts() -> str:
    parts = [
        "# Layouts",
        "How systems name what they write "
        "([more](../mead_ravdess.md#outputs-as-systems-name-them)).",
    ]
    for card in map(layout_card, names(Kind.LAYOUT)):
        facts = {
            "Taken for an item": ", ".join(f"`{place}`" for place in card.places),
            "You have to": _words(card.must),
            "Read in": _words(card.source),
        }
        parts += [f"## {card.name}", _about(card), _table(["", ""], facts.items()), *_notes(card)]
        parts.append(
            _code(
                "spfem-bench eval --method my-model --protocol mead-cross-id --videos outputs/ "
                f"--layout {card.name} --dry-run"
            )
        )
    return _page(parts)


def _published() -> str:
    parts = [
        "# Published numbers",
        "What is read from the papers, how, and which cells contradict their own paper. "
        "[What may be compared with them](../comparing.md).",
    ]
    for name in names(Kind.PUBLISHED):
        card = load(PublishedCard, Kind.PUBLISHED, name)
        facts = {
            "Paper, table": _words(f"{card.paper}, {card.table}"),
            "Numbers": str(len(_values(card))),
            "Kind": card.kind,
            "Read": _words(card.read),
            "Citation": _words(card.citation),
        }
        parts += [f"## {name}", _words(card.title), _table(["", ""], facts.items()), *_notes(card)]
        if card.doubts:
            doubts = ([f"`{cell}`", _words(why)] for cell, why in card.doubts.items())
            parts.append(_table(["doubted cell", "why"], doubts))
    return _page(parts)


def _values(card: PublishedCard) -> pd.DataFrame:
    return pd.read_csv(inside(card.path.parent, card.values))


def _clip(card: ProtocolCard, role: str) -> str:
    address = {str(key): value for key, value in card.clips.items()}.get(role)
    return f"`{address}`" if address else "none"


def _real(card: ProtocolCard) -> str:
    real = card.clips.get("real")
    if real is None:
        return "none"
    if not isinstance(real, str):
        return ", ".join(f"`{address}`" for address in real)
    same = next((role for role in ("source", "reference") if card.clips.get(role) == real), "")
    return f"the {same} clip" if same else f"`{real}`"


def _rows_beside(card: ProtocolCard) -> str:
    if card.published is None:
        return "none"
    return f"{card.published.dataset}, {card.published.setting}: other clips, never compared"


def _metric_links(metrics: Iterable[str]) -> str:
    return ", ".join(f"[{name}](../metrics/{name}.md)" for name in metrics)


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.items())


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _words(text: str) -> str:
    """Return a card's text on one line, with what would be read as markup escaped."""
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _about(card: Card) -> str:
    return _words(f"{card.title}. {card.description}")


def _notes(card: Card) -> list[str]:
    return [_list(card.notes)] if card.notes else []


def _list(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_words(line)}" for line in lines)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; rows whose last cell is empty are left out."""
    lines = [heads, ["---"] * len(heads), *(row for row in rows if row[-1])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _code(*lines: str) -> str:
    return "\n".join(["```sh", *lines, "```"])


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part.strip()) + "\n"
