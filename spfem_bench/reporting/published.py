"""Numbers printed in papers, and any table in the same tidy format."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Literal

import pandas as pd

from spfem_bench.definitions.cards import Card, Kind, load, names
from spfem_bench.definitions.lists import LARGEST_LIST
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.errors import CardError, near_names, unknown_name
from spfem_bench.files import inside
from spfem_bench.stored import read_bounded
from spfem_bench.texts import cell_text


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

    @property
    def values_path(self) -> Path:
        """Where the numbers lie."""
        return inside(self.path.parent, self.values)


@dataclass(frozen=True)
class PrintedNumber:
    """One line of a tidy table.

    Attributes:
        paper: who prints it; the file's name when it does not say.
        backbone: the baseline that the method builds on; the method itself for a baseline.
        emotion: an emotion, or ``avg``.
        metric: the metric, or the question of a user study.
        value: digit by digit as printed.
        line: where it stands in the file.
    """

    paper: str
    table: str
    dataset: str
    setting: str
    method: str
    backbone: str
    emotion: str
    metric: str
    value: str
    line: int = field(compare=False)

    @property
    def number(self) -> Decimal:
        """The value, exactly."""
        return Decimal(self.value)

    @property
    def address(self) -> str:
        """The cell's name in a card's doubts."""
        return "/".join([self.dataset, self.setting, self.method, self.metric, self.emotion])


@dataclass(frozen=True)
class Printed:
    """A table in the tidy format of ``docs/tables.md``.

    Attributes:
        percent: preferences of a user study, in percent, not scores.
        origin: where it comes from, one line.
    """

    name: str
    title: str
    rows: tuple[PrintedNumber, ...]
    percent: bool = False
    kind: Literal["published", "second-hand"] = "published"
    origin: str = ""
    doubts: Mapping[str, str] = field(default_factory=dict)


NEEDED = ("method", "emotion", "metric", "value")
SAME = {"question": "metric", "preference_percent": "value", "source": "paper"}
"""Columns of user studies and of this project's own tables, and what they are here."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)


def published_names() -> list[str]:
    """Return the names of all published tables, sorted."""
    return names(Kind.PUBLISHED)


def printed_table(given: str) -> Printed:
    """Read a table by the name of its card, or from a CSV file in the tidy format.

    Raises:
        UnknownNameError: neither a card's name nor a CSV file's.
        CardError: the file cannot be read, lacks a column, or a line is wrong.
    """
    cards = {n: load(PublishedCard, Kind.PUBLISHED, n) for n in names(Kind.PUBLISHED)}
    card = cards.get(given)
    if card is None:
        path = Path(given)
        if path.suffix.lower() != ".csv":
            raise unknown_name(f"{Kind.PUBLISHED.label} (or CSV file)", given, cards)
        card = next((c for c in cards.values() if c.values_path == path.resolve()), None)
        if card is None:
            rows, percent = read_tidy(path)
            return Printed(path.stem, path.stem, rows, percent, origin=path.name)
    rows, percent = read_tidy(card.values_path)
    origin = f"{card.citation}, table {card.table}; {card.read}"
    return Printed(card.name, card.title, rows, percent, card.kind, origin, card.doubts)


def read_lines(path: Path, example: str) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file with a head: each line's number and cells, spaces around them dropped.

    Args:
        path: the file.
        example: a good head, for who gave something else.

    Raises:
        CardError: the file cannot be read, is empty, or a line has too many or too few cells.
    """
    try:
        text = read_bounded(path, LARGEST_LIST).decode("utf-8-sig")
    except OSError as error:
        raise CardError(f"{path}: {error.strerror}", "Give a CSV file") from None
    except UnicodeDecodeError:
        raise CardError(f"{path} is not text in UTF-8", "Give a CSV file") from None
    reader = csv.reader(io.StringIO(text, newline=None))
    try:
        head = [name.strip() for name in next(reader, [])]
        lines = [(reader.line_num, cells) for cells in reader if any(map(str.strip, cells))]
    except csv.Error as error:
        raise CardError(f"{path}, line {reader.line_num}: {error}", "Give a CSV file") from None
    if len(head) == 1 and (sign := next((s for s in ";\t|" if s in head[0]), "")):
        raise CardError(
            f"{path}: columns are separated by {'tabs' if sign == chr(9) else repr(sign)}",
            f"Separate them by commas, as in: {example}",
        )
    if twice := [name for name, times in Counter(head).items() if times > 1]:
        raise CardError(f"{path} has the column '{twice[0]}' twice", "Remove one of them")
    if not lines:
        raise CardError(f"{path} has no lines under its head", f"The head is like: {example}")
    for number, cells in lines:
        if len(cells) != len(head):
            raise CardError(
                f"{path}, line {number}: {len(cells)} cells under a head of {len(head)}",
                f"The head is: {','.join(head)}",
            )
    return [
        (n, dict(zip(head, (cell_text(c.strip()) for c in cells), strict=True)))
        for n, cells in lines
    ]


def check_columns(path: Path, found: Mapping[str, str], needed: tuple[str, ...]) -> None:
    """Refuse a table that lacks a column.

    Raises:
        CardError: names the column, and one that may have been meant.
    """
    for name in needed:
        if name not in found:
            raise CardError(f"{path} has no column '{name}'", near_names(name, found))


def read_tidy(path: Path) -> tuple[tuple[PrintedNumber, ...], bool]:
    """Read a table with one number a line; lines whose value is empty are left out.

    Returns:
        The numbers, and whether they are preferences in percent.

    Raises:
        CardError: as :func:`read_lines`; or a column is missing, a value is no finite
            number, a name is empty, or a cell is given twice.
    """
    lines = read_lines(path, ",".join(["paper", "dataset", "setting", "backbone", *NEEDED]))
    percent = "preference_percent" in lines[0][1]
    known = {
        "paper",
        "table",
        "dataset",
        "setting",
        "method",
        "backbone",
        "emotion",
        "metric",
        "value",
    }
    rows: list[PrintedNumber] = []
    cells: dict[tuple[str, ...], int] = {}
    for number, line in lines:
        line = {SAME.get(k, k) if SAME.get(k) not in line else k: v for k, v in line.items()}
        check_columns(path, line, NEEDED)
        if not line["value"]:
            continue
        for name in NEEDED:
            if not line[name]:
                raise CardError(f"{path}, line {number}: no {name}", "Fill it in")
        if not _NUMBER.fullmatch(line["value"]):
            raise CardError(
                f"{path}, line {number}: '{line['value']}' is no number",
                "Give digits with a point, or nothing where there is no number",
            )
        if line["emotion"].lower().rstrip(".") in ("avg", "average", "mean"):
            line["emotion"] = AVERAGE
        said = {name: line.get(name, "") for name in known}
        said["paper"] = said["paper"] or path.stem
        row = PrintedNumber(**said, line=number)
        cell = (row.paper, row.table, row.address)
        if cell in cells:
            raise CardError(
                f"{path}, line {number}: the cell of line {cells[cell]} again ({row.address})",
                "Remove one of them",
            )
        cells[cell] = number
        rows.append(row)
    if not rows:
        raise CardError(f"{path} holds no numbers", "Fill in the column 'value'")
    return tuple(rows), percent


COLUMNS = ("dataset", "setting", "method", "emotion", "metric", "value")


def published_rows(dataset: str, setting: str) -> pd.DataFrame:
    """Return published numbers of whole result tables for one data set and setting.

    Where papers reprint a baseline, the row of the first (by card name) is kept.

    Returns:
        Columns: method, emotion, metric, value (float), printed (as in the paper), kind,
        paper, doubt.
    """
    tables = []
    for name in names(Kind.PUBLISHED):
        card = load(PublishedCard, Kind.PUBLISHED, name)
        table = pd.read_csv(card.values_path, dtype={"value": str})
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
    joined = joined.assign(printed=joined["value"], value=joined["value"].astype(float))
    return joined[["method", "emotion", "metric", "value", "printed", "kind", "paper", "doubt"]]


def published_counts() -> Counter[str]:
    """Return how many numbers of each method papers print in whole result tables."""
    counts: Counter[str] = Counter()
    for name in names(Kind.PUBLISHED):
        card = load(PublishedCard, Kind.PUBLISHED, name)
        table = pd.read_csv(card.values_path)
        if set(COLUMNS) <= set(table.columns):
            counts.update(table["method"])
    return counts
