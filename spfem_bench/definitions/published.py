"""Tables printed in papers, and any table in the same tidy format (``docs/tables.md``)."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from spfem_bench.definitions.cards import Card, Kind, load, names
from spfem_bench.definitions.lists import LARGEST_LIST
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.errors import CardError, near_names, unknown_name
from spfem_bench.files import inside
from spfem_bench.stored import read_bounded
from spfem_bench.texts import cell_text

if TYPE_CHECKING:
    import pandas as pd


class PublishedCard(Card):
    """Provenance of one table of published numbers."""

    # `published` when read from the paper, `second-hand` when quoted elsewhere
    kind: Literal["published", "second-hand"]
    paper: str
    table: str
    read: str
    values: str  # the CSV file beside the card
    # what is wrong with cells that contradict the paper itself, by their names
    # `dataset/setting/method/metric/emotion`
    doubts: dict[str, str] = {}  # noqa: RUF012  (pydantic copies it)
    citation: str

    @property
    def values_path(self) -> Path:
        """Path of the CSV file with the numbers."""
        return inside(self.path.parent, self.values)


@dataclass(frozen=True)
class PrintedNumber:
    """One line of a tidy table."""

    paper: str  # the file's name where the table has no such column
    table: str
    dataset: str
    setting: str
    method: str
    backbone: str  # the baseline that the method builds on; the method itself for a baseline
    emotion: str  # an emotion, or `avg`
    metric: str  # the metric, or the question of a user study
    value: str  # digit by digit as printed
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
    """A table in the tidy format; *percent*: its numbers are preferences of a user study."""

    name: str
    title: str
    rows: tuple[PrintedNumber, ...]
    percent: bool = False
    kind: Literal["published", "second-hand"] = "published"
    origin: str = ""
    doubts: Mapping[str, str] = field(default_factory=dict)


_NEEDED = ("method", "emotion", "metric", "value")
_OPTIONAL = ("paper", "table", "dataset", "setting", "backbone")
_EXAMPLE = "paper,dataset,setting,backbone,method,emotion,metric,value"
_ALIASES = {"question": "metric", "preference_percent": "value", "source": "paper"}
"""Columns of user studies and of this project's own tables, and their names here."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d{1,2})?", re.ASCII | re.IGNORECASE)


def published_names() -> list[str]:
    """Return the names of all published tables, sorted."""
    return names(Kind.PUBLISHED)


def published_cards() -> list[PublishedCard]:
    """Return the cards of all published tables, by name."""
    return [load(PublishedCard, Kind.PUBLISHED, name) for name in published_names()]


def printed_table(source: str) -> Printed:
    """Read a table by the name of its card, or from a CSV file in the tidy format.

    Raises UnknownNameError when it is neither, CardError when the file is unreadable or wrong.
    """
    cards = {card.name: card for card in published_cards()}
    card = cards.get(source)
    if card is None:
        path = Path(source)
        if path.suffix.lower() != ".csv":
            raise unknown_name(f"{Kind.PUBLISHED.label} (or CSV file)", source, cards)
        card = next((c for c in cards.values() if c.values_path == path.resolve()), None)
        if card is None:
            rows, percent = read_tidy(path)
            return Printed(path.stem, path.stem, rows, percent, origin=path.name)
    rows, percent = read_tidy(card.values_path)
    origin = f"{card.citation}, table {card.table}; {card.read}"
    return Printed(card.name, card.title, rows, percent, card.kind, origin, card.doubts)


def read_lines(path: Path, example: str) -> list[tuple[int, dict[str, str]]]:
    """Read a CSV file with a head: each line's number and stripped cells by column.

    *example* is a valid head, for messages. Raises CardError when the file cannot be read, is
    empty, or a line has too many or too few cells.
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
        problem = f"{path}: columns are separated by {'tabs' if sign == chr(9) else repr(sign)}"
        raise CardError(problem, f"Separate them by commas, as in: {example}")
    if twice := [name for name, times in Counter(head).items() if times > 1]:
        raise CardError(f"{path} has the column '{twice[0]}' twice", "Remove one of them")
    if not lines:
        raise CardError(f"{path} has no lines under its head", f"The head is like: {example}")
    rows = []
    for number, cells in lines:
        if len(cells) != len(head):
            problem = f"{path}, line {number}: {len(cells)} cells under a head of {len(head)}"
            raise CardError(problem, f"The head is: {','.join(head)}")
        texts = (cell_text(cell.strip()) for cell in cells)
        rows.append((number, dict(zip(head, texts, strict=True))))
    return rows


def check_columns(path: Path, columns: Mapping[str, str], needed: tuple[str, ...]) -> None:
    """Raise CardError for the first missing column, with one that may have been meant."""
    for name in needed:
        if name not in columns:
            raise CardError(f"{path} has no column '{name}'", near_names(name, columns))


def read_tidy(path: Path) -> tuple[tuple[PrintedNumber, ...], bool]:
    """Read a table with one number a line, and whether the numbers are preferences in percent.

    Raises CardError as :func:`read_lines`, and for a missing column, an empty name, a value that is
    no finite number, or a cell given twice.
    """
    lines = read_lines(path, _EXAMPLE)
    rows: list[PrintedNumber] = []
    lines_of_cells: dict[tuple[str, ...], int] = {}
    for number, columns in lines:
        line = {k if _ALIASES.get(k, k) in columns else _ALIASES[k]: columns[k] for k in columns}
        check_columns(path, line, _NEEDED)
        if not line["value"]:
            continue
        for name in _NEEDED:
            if not line[name]:
                raise CardError(f"{path}, line {number}: no {name}", "Fill it in")
        if not _NUMBER.fullmatch(line["value"]):
            remedy = "Give digits with a point, or nothing where there is no number"
            raise CardError(f"{path}, line {number}: '{line['value']}' is no number", remedy)
        if line["emotion"].lower().rstrip(".") in ("avg", "average", "mean"):
            line["emotion"] = AVERAGE
        values = {name: line.get(name, "") for name in (*_NEEDED, *_OPTIONAL)}
        row = PrintedNumber(**values | {"paper": values["paper"] or path.stem}, line=number)
        cell = (row.paper, row.table, row.address)
        if first := lines_of_cells.get(cell):
            problem = f"{path}, line {number}: the cell of line {first} again ({row.address})"
            raise CardError(problem, "Remove one of them")
        lines_of_cells[cell] = number
        rows.append(row)
    if not rows:
        raise CardError(f"{path} holds no numbers", "Fill in the column 'value'")
    return tuple(rows), "preference_percent" in lines[0][1]


def published_rows(dataset: str, setting: str) -> pd.DataFrame:
    """Return published numbers of whole result tables for one data set and setting.

    Where papers reprint a baseline, the row of the first (by card name) is kept. Columns: method,
    emotion, metric, value (float), printed (as in the paper), kind, paper, doubt.
    """
    import pandas as pd

    numbers = [
        {**asdict(row), "printed": row.value, "kind": card.kind, "paper": card.paper}
        | {"doubt": card.doubts.get(row.address, "")}
        for card, row in _scores()
        if (row.dataset, row.setting) == (dataset, setting)
    ]
    columns = ["method", "emotion", "metric", "value", "printed", "kind", "paper", "doubt"]
    table = pd.DataFrame(numbers, columns=columns).drop_duplicates(columns[:3])
    return table.astype({"value": float})


def published_counts() -> Counter[str]:
    """Return how many numbers of each method papers print in whole result tables."""
    return Counter(row.method for _, row in _scores())


def _scores() -> list[tuple[PublishedCard, PrintedNumber]]:
    """Return all published numbers that are scores, not preferences, with their cards."""
    tables = ((card, *read_tidy(card.values_path)) for card in published_cards())
    return [(card, row) for card, rows, percent in tables if not percent for row in rows]
