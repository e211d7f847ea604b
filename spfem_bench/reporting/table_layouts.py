"""Tables arranged for a printer: in the papers' two layouts, or one number a line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from decimal import Decimal
from typing import Literal

from spfem_bench.errors import CardError
from spfem_bench.reporting import tables
from spfem_bench.reporting.grids import Entry, Grid, Label, emotion_label, print_grid
from spfem_bench.reporting.tables import CellKey, Table, TableBlock, TableColumn
from spfem_bench.texts import csv_text, fixed

TableLayout = Literal["asccl", "stccl"]
TableStyle = Literal["text", "markdown", "csv", "csv-wide", "latex", "tabular", "html"]

FOLD = 12
"""Columns of numbers side by side; wider tables are printed in parts below each other."""


def render_table(
    table: Table,
    style: TableStyle,
    *,
    layout: TableLayout = "asccl",
    intervals: bool = False,
    standalone: bool = False,
    caption: str | None = None,
    label: str = "",
    digits: int | None = None,
    notes: bool = True,
    fold: int = FOLD,
) -> str:
    """Return a table as text, with notes and signatures below it; CardError without a number.

    Args:
        table: what to print.
        style: ``csv`` is tidy, one number a line; ``csv-wide`` has the layout's rows; ``tabular``
            is LaTeX's tabular alone, for a table of one's own.
        layout: ``asccl`` has emotions down, methods and metrics across; ``stccl`` has metrics and
            methods down, emotions across.
        intervals: print 95 % intervals.
        standalone: with LaTeX, a document that compiles.
        caption: in the place of the table's own; none when empty.
        label: what a reference in LaTeX names the table by.
        digits: behind the point; 3 when None. Printed numbers are only ever rounded.
        notes: whether notes and signatures stand below.
        fold: columns of numbers side by side, but in CSV and HTML; 0 for all.
    """
    if table.lacking:
        remedy = "Run the evaluation again, with what is missing or with --partial"
        raise CardError(f"no number to print: {table.lacking}", remedy)
    if style == "csv":
        return tidy_csv(table)
    if not notes:
        table = replace(table, notes=())
    shown = _Numbers(intervals, digits, marked=notes and style != "tabular")
    grid = {"asccl": _emotions_down, "stccl": _emotions_across}[layout](table, shown)
    grid = replace(grid, label=label, title=grid.title if caption is None else caption)
    if not notes:
        grid = replace(grid, signatures=())
    printed = "csv" if style == "csv-wide" else style
    return print_grid(grid, printed, standalone=standalone, fold=fold)


def tidy_csv(table: Table) -> str:
    """Return one number a line, at full precision, in the columns of ``docs/tables.md``."""
    numbers = ("value", "low", "high", "doubt", "signature", *tables.COUNTS)
    rows = [["setting", "emotion", "method", "kind", "source", "metric", *numbers]]
    for (block, emotion, column, metric), cell in table.cells.items():
        content = asdict(cell) | {"doubt": cell.mark, "value": cell.printed or cell.value}
        source = f"{block.origin}, {column.source}" if column.kind in tables.OWN else column.source
        names = [block.setting, emotion, column.method, column.kind, source, metric]
        rows.append([*names, *(content[name] for name in numbers)])
    return csv_text(rows)


def _method_label(table: Table, column: TableColumn, marks: str = "") -> Label:
    alone = [c.method for c in table.columns].count(column.method) == 1
    name = column.method if alone else f"{column.method} ({column.source})"
    return Label(column.label, name, marks)


def _block_label(table: Table, block: TableBlock) -> Label:
    blocks = {block for block, _ in table.rows}
    settings_differ = len({block.setting for block in blocks}) == len(blocks)
    return Label(block.label, block.setting if settings_differ else block.origin)


@dataclass(frozen=True)
class _Numbers:
    """How numbers are printed, and whether letters beside heads name their signatures."""

    intervals: bool
    digits: int | None
    marked: bool

    def text(self, value: float) -> str:
        return fixed(value, 3 if self.digits is None else self.digits)

    def printed(self, text: str) -> str:
        """Return a number as a paper prints it, rounded where it has more digits than asked for."""
        number = Decimal(text)
        exponent = number.as_tuple().exponent
        if self.digits is None or not isinstance(exponent, int) or -exponent <= self.digits:
            return text
        return str(number.quantize(Decimal(1).scaleb(-self.digits)))


def _entry(table: Table, key: CellKey, shown: _Numbers) -> Entry:
    cell = table.cell(key)
    if cell is None:
        return Entry()
    block, emotion, column, metric = key
    interval, bounds = "", ("", "")
    if shown.intervals and cell.low is not None and cell.high is not None:
        interval = f"[{shown.text(cell.low)}, {shown.text(cell.high)}]"
        bounds = (repr(cell.low), repr(cell.high))
    text = shown.printed(cell.printed) if cell.printed else shown.text(cell.value or 0.0)
    value = cell.printed or repr(cell.value)
    rank = table.ranks(block, emotion, metric).get(column, 0)
    return Entry(text, value, rank, interval, bounds, cell.mark, cell.signature)


def _letters(table: Table, shown: _Numbers) -> dict[str, str]:
    """Return a letter for each signature, empty where a signature's metric tells which it is."""
    signatures: dict[str, set[str]] = {}
    for (_, _, _, metric), cell in table.cells.items():
        if cell.signature and cell.value is not None:
            signatures.setdefault(metric, set()).add(cell.signature)
    if not shown.marked or all(len(own) == 1 for own in signatures.values()):
        return dict.fromkeys(table.signatures, "")
    return {sign: _letter(i) for i, sign in enumerate(table.signatures)}


def _letter(number: int) -> str:
    """Return a, b, ..., z, aa, ab, ..."""
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _marks(letters: Mapping[str, str], cells: Iterable[tables.TableCell | None]) -> str:
    signs = dict.fromkeys(c.signature for c in cells if c is not None and c.signature)
    return ",".join(filter(None, (letters[s] for s in signs)))


def _emotions_down(table: Table, shown: _Numbers) -> Grid:
    """Arrange as ASCCL does: settings and emotions down, methods and metrics across."""
    letters = _letters(table, shown)
    heads, keys = [], []
    for column in table.columns:
        for metric in table.metrics:
            cells = [table.cell((b, e, column, metric)) for b, e in table.rows]
            if any(cells):
                label = Label(tables.metric_heading(metric), metric, _marks(letters, cells))
                heads.append((_method_label(table, column), label))
                keys.append((column, metric))
    rows = []
    for block, emotion in table.rows:
        labels = (_block_label(table, block), Label(emotion_label(emotion), emotion))
        entries = (_entry(table, (block, emotion, *key), shown) for key in keys)
        rows.append((labels, tuple(entries)))
    stubs = (Label("Setting", "setting"), Label("Emotion", "emotion"))
    signatures = tuple((letter, sign) for sign, letter in letters.items())
    return Grid(stubs, tuple(heads), tuple(rows), table.notes, signatures, table.title)


def _emotions_across(table: Table, shown: _Numbers) -> Grid:
    """Arrange as STCCL does: settings, metrics and methods down, emotions across."""
    letters = _letters(table, shown)
    emotions = table.emotions
    rows = []
    for block in dict.fromkeys(block for block, _ in table.rows):
        for metric in table.metrics:
            marks = {}
            for column in table.columns:
                if any(cells := [table.cell((block, e, column, metric)) for e in emotions]):
                    marks[column] = _marks(letters, cells)
            shared = set(filter(None, marks.values()))
            common = next(iter(shared)) if len(shared) == 1 else ""
            label = Label(tables.metric_heading(metric), metric, common)
            for column, own in marks.items():
                method = _method_label(table, column, "" if common else own)
                labels = (_block_label(table, block), label, method)
                entries = (_entry(table, (block, e, column, metric), shown) for e in emotions)
                rows.append((labels, tuple(entries)))
    stubs = (Label("Setting", "setting"), Label("Metric", "metric"), Label("Method", "method"))
    heads = tuple((Label(emotion_label(e), e),) for e in emotions)
    signatures = tuple((letter, sign) for sign, letter in letters.items())
    return Grid(stubs, heads, tuple(rows), table.notes, signatures, table.title)
