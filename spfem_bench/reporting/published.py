"""Numbers printed in papers, with where each comes from."""

from __future__ import annotations

from collections import Counter
from typing import Literal

import pandas as pd

from spfem_bench.definitions.cards import Card, Kind, load, names
from spfem_bench.definitions.clips import inside


class PublishedCard(Card):
    """Provenance of one table of published numbers.

    Attributes:
        kind: ``published`` when read from the paper, ``second-hand`` when quoted elsewhere.
        values: the CSV file beside the card.
        doubts: cells that contradict the paper itself, as ``dataset/setting/method/metric/
            emotion``, each with what is wrong.
    """

    kind: Literal["published", "second-hand"]
    paper: str
    table: str
    read: str
    values: str
    doubts: dict[str, str] = {}  # noqa: RUF012  (pydantic copies it)
    citation: str


COLUMNS = ("dataset", "setting", "method", "emotion", "metric", "value")


def published_rows(dataset: str, setting: str) -> pd.DataFrame:
    """Return published numbers of whole result tables for one data set and setting.

    Where papers reprint a baseline, the row of the first (by card name) is kept.

    Returns:
        Columns: method, emotion, metric, value (float), kind, paper, doubt.
    """
    tables = []
    for name in names(Kind.PUBLISHED):
        card = load(PublishedCard, Kind.PUBLISHED, name)
        table = pd.read_csv(inside(card.path.parent, card.values))
        if not set(COLUMNS) <= set(table.columns):
            continue  # a user study has other columns
        table = table[(table["dataset"] == dataset) & (table["setting"] == setting)]
        cells = zip(
            *(table[c] for c in ("dataset", "setting", "method", "metric", "emotion")), strict=True
        )
        doubts = [card.doubts.get("/".join(cell), "") for cell in cells]
        tables.append(table.assign(kind=card.kind, paper=card.paper, doubt=doubts))
    joined = pd.concat(tables)
    joined = joined.drop_duplicates(["method", "emotion", "metric"])
    return joined[["method", "emotion", "metric", "value", "kind", "paper", "doubt"]]


def published_counts() -> Counter[str]:
    """Return how many numbers of each method papers print in whole result tables."""
    counts: Counter[str] = Counter()
    for name in names(Kind.PUBLISHED):
        card = load(PublishedCard, Kind.PUBLISHED, name)
        table = pd.read_csv(inside(card.path.parent, card.values))
        if set(COLUMNS) <= set(table.columns):
            counts.update(table["method"])
    return counts
