"""The keys of cards in words, and cards that ``new`` commands begin."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pydantic
import pytest

from spfem_bench.definitions.cards import Kind, Strict, names, parse
from spfem_bench.definitions.described import commented, keys
from spfem_bench.definitions.metrics import MetricCard, metric_card
from spfem_bench.definitions.networks import NetworkCard, network_card
from spfem_bench.reporting import pages
from tests.conftest import Outcome

Bench = Callable[..., Outcome]


class Inner(Strict):
    """A table."""

    size: int = pydantic.Field(gt=0)


class Toy(Strict):
    """A card.

    Attributes:
        word: from the docstring,
            over two lines.
    """

    word: str
    number: float = 0.5  # beside it
    # above it,
    # in two lines
    many: tuple[Literal["a", "b"], ...] = ()
    inner: Inner | None = None
    pair: tuple[int, int] = (1, 2)


def test_a_key_tells_its_kind_its_default_and_its_comment() -> None:
    found = {k.name: (k.holds, k.default, k.about) for k in keys(Toy)}
    assert found == {
        "word": ("text", "required", "from the docstring, over two lines"),
        "number": ("number", "0.5", "beside it"),
        "many": ('list of "a" or "b"', "", "above it, in two lines"),
        "inner": ("table", "", ""),
        "pair": ("list of 2 times whole number", "[1, 2]", ""),
    }
    (inner,) = (k.tables for k in keys(Toy) if k.name == "inner")
    assert inner == (Inner,)


def kept(card: str) -> Iterator[str]:
    return (line for line in card.splitlines() if line.strip() and not line.startswith("#"))


@pytest.mark.parametrize("name", names(Kind.METRIC) + names(Kind.NETWORK))
def test_a_commented_card_says_what_the_card_says(name: str) -> None:
    metric = name in names(Kind.METRIC)
    card = metric_card(name) if metric else network_card(name)
    text = card.path.read_text()
    more = commented(MetricCard if metric else NetworkCard, text)
    assert parse(more.encode(), card.path) == parse(text.encode(), card.path)
    assert list(kept(more)) == list(kept(text))
    assert "# text; one line, for lists\ntitle" in more


def test_the_page_on_cards_has_every_key_of_every_model() -> None:
    page = pages.cards()
    for word in ("`resamples`", "`long_side`", "`pooling`", "`min_overlap`", "`not_applicable`"):
        assert f"| {word} |" in page
    assert '| `direction` | "lower" or "higher" or "zero" | *required* | what is better' in page
    for model in (MetricCard, NetworkCard):
        assert all(key.about for key in keys(model)), model


def test_new_cards_load_and_are_never_written_over(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = bench("metric", "new", "cards", "--name", "mine", "--like", "csim")
    assert (made.code, made.out) == (0, "cards/metrics/mine.toml\n")
    assert bench("networks", "new", "cards", "--like", "mobilefacenet").code == 0
    monkeypatch.setenv("SPFEM_BENCH_CARDS", "cards")
    assert metric_card("mine").label == "My CSIM"
    assert metric_card("mine").statistic == metric_card("csim").statistic
    assert network_card("my-network").files == network_card("mobilefacenet").files
    for line in made.err.splitlines()[1:]:
        assert line in (
            "export SPFEM_BENCH_CARDS=cards",
            "spfem-bench eval --method source --metrics mine",
        )
    again = bench("metric", "new", "cards", "--name", "mine")
    assert again.code == 1 and "exists already" in again.err
    wrong = bench("metric", "new", "cards", "--name", "Mine!")
    assert wrong.code == 2 and "small letters" in wrong.err
    unknown = bench("networks", "new", "cards", "--name", "x", "--like", "scrfd")
    assert unknown.code == 1 and "Did you mean" in unknown.err
    assert not Path("cards/metrics/networks/x.toml").exists()
