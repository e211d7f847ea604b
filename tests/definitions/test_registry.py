"""One audit of everything that is registered; a new card is taken up by itself.

It asks of every card what a reader of its numbers must know: direction, unit and range,
where it comes from and under which licence, the page that explains it, and an example that
can be typed.
"""

from __future__ import annotations

import html
import json
import math
import re
from collections.abc import Iterator
from functools import cache

import pytest

from spfem_bench.definitions.cards import Card, Kind, load, names
from spfem_bench.definitions.datasets import DatasetCard
from spfem_bench.definitions.layouts import LayoutCard
from spfem_bench.definitions.measured import MeasuredCard
from spfem_bench.definitions.methods import MethodCard
from spfem_bench.definitions.metrics import MetricCard
from spfem_bench.definitions.networks import NetworkCard, ProfileCard
from spfem_bench.definitions.protocols import ProtocolCard, load_protocol
from spfem_bench.definitions.published import PublishedCard
from spfem_bench.reporting import pages
from tests.command_lines import code_blocks, commands_of, parse
from tests.conftest import ROOT
from tests.definitions.test_definitions import MODELS

DOCS = ROOT / "docs"


def registered() -> Iterator[tuple[Kind, str]]:
    for kind in Kind:
        for name in names(kind):
            yield kind, name


def section(page: str, name: str) -> str:
    """Return what a page of the registry says under a card's heading."""
    lines = page.splitlines()
    start = next(i for i, line in enumerate(lines) if line.lstrip("#") == f" {name}")
    depth = lines[start].split()[0]
    after = lines[start + 1 :]
    end = next(
        (i for i, li in enumerate(after) if li.startswith("#") and li.split()[0] <= depth),
        len(after),
    )
    return "\n".join(after[:end])


protocol_pages = cache(pages.protocols)
registry_pages = cache(pages.registry)


def page_of(kind: Kind, name: str) -> str:
    """Return the part of the documentation that explains a card."""
    if kind is Kind.METRIC:
        return (DOCS / f"metrics/{name}.md").read_text()
    if kind is Kind.MEASURED:
        return (DOCS / "reference_numbers.md").read_text()
    if kind is Kind.PROTOCOL:
        return protocol_pages()[name]
    listed = {
        Kind.NETWORK: "networks",
        Kind.PROFILE: "networks",
        Kind.METHOD: "methods",
        Kind.DATASET: "datasets",
        Kind.LAYOUT: "layouts",
        Kind.PUBLISHED: "published",
    }
    return section(registry_pages()[listed[kind]], name)


def words(card: Card) -> dict[str, str]:
    """Return what must be said of a card, by what it is."""
    match card:
        case MetricCard():
            return {
                "citation": card.citation,
                "unit": card.unit,
                "limits": card.hides,
                "meaning": card.description,
                "printed name": card.label,
            }
        case NetworkCard():
            return {"citation": card.citation, "licence": card.licence, "source": card.source}
        case DatasetCard():
            return {"citation": card.citation, "licence": card.licence, "what": card.description}
        case ProtocolCard():
            return {
                "citation": card.citation,
                "what it shows": card.shows,
                "limits": card.hides,
                "meaning": card.description,
            }
        case MethodCard() if card.stands_for:
            return {"meaning": card.description, "link": card.link}
        case MethodCard() if card.kind == "system":
            return {"citation": card.paper, "link": card.link}
        case PublishedCard():
            return {"citation": card.citation, "how it was read": card.read}
        case LayoutCard():
            return {"meaning": card.description, "source": card.source, "what to do": card.must}
        case ProfileCard() | MethodCard() | MeasuredCard():
            return {"meaning": card.description}
    raise AssertionError(f"no rule for {type(card).__name__}")


@pytest.mark.parametrize(("kind", "name"), list(registered()), ids=lambda x: getattr(x, "label", x))
def test_every_card_says_what_a_reader_of_its_numbers_must_know(kind: Kind, name: str) -> None:
    card = load(MODELS[kind], kind, name)
    said = words(card)
    empty = [what for what, text in said.items() if not text.strip()]
    assert not empty, f"{card.path}: nothing is said of: {', '.join(empty)}"
    page = page_of(kind, name)
    unsaid = {
        what for what in ("citation", "licence") if flat(said.get(what, "")) not in flat(page)
    }
    assert not unsaid, f"the page of '{name}' does not say its {', '.join(unsaid)}"
    examples = [parse(line) for block in code_blocks(page) for line in commands_of(block)]
    named = {name, *standing_on(name)} if kind is Kind.DATASET else {name}
    if kind is not Kind.PUBLISHED:  # numbers to be read: nothing can be typed with them
        assert any(line.uses(one) for line in examples for one in named), (
            f"the page of '{name}' has no example that names it"
        )


def standing_on(dataset: str) -> set[str]:
    """Return the protocols whose clips are of a data set."""
    return {n for n in names(Kind.PROTOCOL) if load_protocol(n).dataset == dataset}


def flat(markdown: str) -> str:
    """Return text as it is read: on one line, without escapes."""
    return html.unescape(re.sub(r"\\(.)", r"\1", " ".join(markdown.split())))


@pytest.mark.parametrize("name", names(Kind.METRIC))
def test_metrics_say_direction_range_and_unit_and_their_pages_agree(name: str) -> None:
    card = load(MetricCard, Kind.METRIC, name)
    low, high = (math.nan if end is None else end for end in card.range)
    assert low < high, "the card must say both ends (inf where there is none)"
    assert low < 0 < high if card.direction == "zero" else math.isfinite(low)
    missing = [row for row in facts(card) if row not in page_of(Kind.METRIC, name).splitlines()]
    assert not missing, "the metric's page needs these rows:\n" + "\n".join(missing)
    heads = ["What it hides", "How the field computes it", "Exactly, here", "How it is proven"]
    lines = page_of(Kind.METRIC, name).splitlines()
    assert [h for h in heads if f"## {h}" not in lines] == []


def facts(card: MetricCard) -> list[str]:
    """Return the rows of the table on a metric's page: its card."""
    better = {"lower": "lower is better", "higher": "higher is better", "zero": "0 is best"}
    ends = [
        "−∞" if end == -math.inf else "∞" if end == math.inf else f"{end:g}".replace("-", "−")
        for end in map(float, card.range)
    ]
    settings = ", ".join(
        f"`{key} = {json.dumps(value)}`" for key, value in card.statistic.settings().items()
    )
    rows = {
        "card": f"`metrics/{card.name}.toml`, version {card.version}",
        "direction": better[card.direction],
        "unit": card.unit,
        "range": " to ".join(ends),
        "network": f"{card.role}, output `{card.output}`",
        "compares": " with ".join(card.compare),
        "settings": settings,
        "interval": f"{card.resamples} draws of clips",
        "citation": card.citation,
    }
    return [f"| {key} | {value} |" for key, value in rows.items()]
