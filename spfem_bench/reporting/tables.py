"""The papers' tables, from run records and from what is printed: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.methods import method_card
from spfem_bench.definitions.metrics import MetricCard, known_metric, metric_card
from spfem_bench.definitions.protocols import AVERAGE, NEAREST, in_order, load_protocol
from spfem_bench.definitions.published import Printed, published_rows
from spfem_bench.errors import CardError, UnknownNameError
from spfem_bench.evaluation.record import RunRecord, unverified
from spfem_bench.reporting.grids import emotion_label
from spfem_bench.reporting.real_clips import real_clip_notes
from spfem_bench.reporting.table_choice import ALL, Choice, choose_printed, choose_records
from spfem_bench.texts import count_text, fixed

if TYPE_CHECKING:
    import pandas as pd

ARROWS = {"lower": "↓", "higher": "↑", "zero": "→0"}
MARKS = {"published": "†", "second-hand": "††", "control": "‡", "reproduced": "", "recipe": "§"}
LEGEND = {
    "recipe": "§ published, same recipe: networks, statistics, test clips and input are those of "
    "the papers' scripts; not computed here, and without a signature",
    "published": "† published, not computed here: other networks, clips and decoding; never "
    "compared with numbers without it",
    "second-hand": "†† published, quoted second-hand",
    "control": "‡ control: no manipulation model",
    "partial": "* partial: clips are missing or refused",
    "doubt": "? contradicts its own paper, see reference_results/published/",
}
SETTINGS = {"inter-id": "Inter-ID", "cross-id": "Cross-ID"}

OWN = ("reproduced", "control")  # columns whose numbers were computed here
COUNTS = ("n_items", "n_frames", "n_refused", "n_frames_refused")


def heading(metric: MetricCard) -> str:
    """Return a metric as the head of a column: its name, and which way is better."""
    return f"{metric.label}{ARROWS[metric.direction]}"


def metric_heading(name: str) -> str:
    """Return :func:`heading` of a metric by name; the name of one that has no card."""
    card = known_metric(name)
    return heading(card) if card else name


def method_label(name: str) -> str:
    """Return a method as printed; the name of one that has no card."""
    try:
        return method_card(name).label
    except UnknownNameError:
        return name


@dataclass(frozen=True)
class TableColumn:
    """One method's numbers: its kind is a key of ``MARKS``, its source a profile or a paper."""

    method: str
    label: str
    kind: str
    source: str


@dataclass(frozen=True)
class TableBlock:
    """Rows that belong together: one protocol, or one setting of a printed table's data set."""

    setting: str
    origin: str
    label: str


@dataclass(frozen=True)
class TableCell:
    """One number (None where there is no score); as a paper prints it if it is not one's own."""

    value: float | None
    low: float | None = None
    high: float | None = None
    mark: str = ""
    signature: str = ""
    n_items: int | None = None
    n_frames: int | None = None
    n_refused: int | None = None
    n_frames_refused: int | None = None
    printed: str = ""


CellKey = tuple[TableBlock, str, TableColumn, str]  # the second is an emotion, the last a metric


@dataclass(frozen=True)
class Table:
    """Everything a printed table needs.

    Attributes:
        signatures: in the order of their first numbers.
        lacking: why it has no number of its own at all; empty where it has one.
        order: emotions in the order that a user chose; empty for the papers' order.
    """

    columns: tuple[TableColumn, ...]
    metrics: tuple[str, ...]
    rows: tuple[tuple[TableBlock, str], ...]
    cells: Mapping[CellKey, TableCell]
    notes: tuple[str, ...]
    signatures: tuple[str, ...]
    title: str = ""
    lacking: str = ""
    order: tuple[str, ...] = ()

    @property
    def emotions(self) -> list[str]:
        """The emotions of the rows: as chosen, else in the papers' order."""
        own = {e for _, e in self.rows}
        return [e for e in self.order if e in own] if self.order else in_order(own)

    def cell(self, key: CellKey) -> TableCell | None:
        """Return a cell that holds a number, else None."""
        cell = self.cells.get(key)
        return None if cell is None or cell.value is None else cell

    def ranks(self, block: TableBlock, emotion: str, metric: str) -> dict[TableColumn, int]:
        """Return which columns are best (1) and second best (2) of those that may be compared.

        That is, reproduced numbers, where all of the row have one signature. With fewer than two
        nothing is best, with two nothing is second best. Equal numbers share a place.
        """
        cells = {
            column: cell
            for column in self.columns
            if column.kind == "reproduced" and (cell := self.cell((block, emotion, column, metric)))
        }
        if len(cells) < 2 or len({c.signature for c in cells.values()}) > 1:
            return {}
        card = metric_card(metric)
        badness = {column: card.badness(cell.value or 0.0) for column, cell in cells.items()}
        places = sorted(set(badness.values()))[: 1 if len(cells) == 2 else 2]
        return {column: places.index(bad) + 1 for column, bad in badness.items() if bad in places}


# ---- of run records ------------------------------------------------------------------------


def make_table(
    records: Sequence[RunRecord], *, published: bool | None = None, choice: Choice = ALL
) -> Table:
    """Arrange run records as the papers do: a block of rows for each protocol.

    *published* shows the papers' rows of the same methods beside them; when None, for all protocols
    but those on drawn clips. *choice* names methods, metrics and emotions, in order. Raises
    CardError for no records, or one given twice, and UnknownNameError when a chosen method, metric
    or emotion is in none of them.
    """
    if not records:
        remedy = "Give files that 'spfem-bench eval' wrote"
        raise CardError("there is no run record to print", remedy)
    records, choice = choose_records(records, choice)
    cells: dict[CellKey, TableCell] = {}
    columns: dict[TableColumn, None] = {}
    seen: set[tuple[TableBlock, TableColumn]] = set()
    metrics = dict.fromkeys(choice.metrics or [s.metric for r in records for s in r.scores])
    blocks, profiles = _blocks(records), {r.profile for r in records}
    partial = {  # a method is marked as partial when it is so anywhere
        (r.method.name, r.profile)
        for r in records
        for s in r.scores
        if s.partial and s.emotion == AVERAGE and s.value is not None
    }
    papers = cache(published_rows)  # the methods of a block have the same beside them
    column_of: list[TableColumn] = []
    for record in records:
        block, kind = blocks[record.protocol.name], "control" if record.is_control else "reproduced"
        label = record.method.label + MARKS[kind]
        label += "*" if (record.method.name, record.profile) in partial else ""
        label += f" ({record.profile})" if len(profiles) > 1 else ""
        column = TableColumn(record.method.name, label, kind, record.profile)
        if (block, column) in seen:
            problem = f"two records of '{column.method}' on {block.origin}, {record.profile}"
            raise CardError(problem, "Give each method's record once")
        seen.add((block, column))
        column_of.append(column)
        for s in record.scores:
            counts = {name: getattr(s, name) for name in COUNTS}
            cell = TableCell(s.value, s.low, s.high, "", s.signature, **counts)
            cells[block, s.emotion, column, s.metric] = cell
        beside = dict(published_cells(record, block, metrics, papers, published))
        beside = {k: c for k, c in beside.items() if not choice.emotions or k[1] in choice.emotions}
        cells |= beside
        columns |= dict.fromkeys([column, *(key[2] for key in beside)])
    filled = {key[:2] for key in cells if key[2].kind in OWN}
    solved = {r.protocol.name: r.protocol for r in records if r.protocol.determined}.values()
    rows = _rows(blocks.values(), filled, choice.emotions)
    kinds = {c.kind for c in columns} | ({"partial"} if partial else set())
    kinds |= {"doubt"} if any(cell.mark for cell in cells.values()) else set()
    notes = (
        *filter(None, (_basis(c, rows, metrics, cells) for c in dict.fromkeys(column_of))),
        *_reasons(records, column_of),
        *(f"Test clips of {p.name}: {p.determined}" for p in solved),
        *real_clip_notes(records),
        *(LEGEND[k] for k in LEGEND if k in kinds),
        *unverified(records),
    )
    signed = (c.signature for c in cells.values() if c.value is not None)
    signatures = tuple(dict.fromkeys(filter(None, signed)))
    title = f"{', '.join(blocks)}; profile {', '.join(sorted(profiles))}"
    lacking = _lacking(records)
    heads = tuple(columns), tuple(metrics), rows
    return Table(*heads, cells, notes, signatures, title, lacking, choice.emotions)


def _blocks(records: Iterable[RunRecord]) -> dict[str, TableBlock]:
    """Return the block of each protocol, named by its setting where that tells them apart."""
    settings = {r.protocol.name: r.protocol.setting for r in records}
    blocks = {}
    for name, setting in settings.items():
        label = SETTINGS.get(setting, setting)
        alone = list(settings.values()).count(setting) == 1
        blocks[name] = TableBlock(setting, name, label if alone else f"{label} ({name})")
    return blocks


def _rows(
    blocks: Iterable[TableBlock], filled: set[tuple[TableBlock, str]], chosen: Sequence[str] = ()
) -> tuple[tuple[TableBlock, str], ...]:
    order = chosen or in_order(e for _, e in filled)
    return tuple((block, e) for block in blocks for e in order if (block, e) in filled)


def _basis(
    column: TableColumn,
    rows: Iterable[tuple[TableBlock, str]],
    metrics: Iterable[str],
    cells: Mapping[CellKey, TableCell],
) -> str:
    """Return what a method's averages stand on, with their intervals; empty without a number."""
    parts = []
    blocks = list(dict.fromkeys(block for block, e in rows if e == AVERAGE))
    for block in blocks:
        place = f"{block.label} " if len(blocks) > 1 else ""
        for metric in metrics:
            cell = cells.get((block, AVERAGE, column, metric))
            if cell is None or cell.value is None:
                continue
            ends = () if cell.low is None or cell.high is None else (cell.low, cell.high)
            interval = f" [{', '.join(map(fixed, ends))}]" if ends else ""
            refused = f", {cell.n_refused} refused" if cell.n_refused else ""
            parts.append(
                f"{place}{metric_card(metric).label} {fixed(cell.value)}{interval} on "
                f"{count_text(cell.n_items or 0, 'clip')}{refused}, {cell.n_frames} frames"
            )
    return f"{column.label}, Avg. with 95 % interval: {'; '.join(parts)}" if parts else ""


def _reasons(records: Sequence[RunRecord], columns: Sequence[TableColumn]) -> list[str]:
    """Return, for each reason, which metrics (and methods, if not all) have no number."""
    lacking: dict[str, dict[str, set[str]]] = {}
    for record, column in zip(records, columns, strict=True):
        for s in record.scores:
            if s.value is None and s.emotion == AVERAGE:
                metrics = lacking.setdefault(s.note, {})
                metrics.setdefault(metric_card(s.metric).label, set()).add(column.label)
    lines = []
    for reason, metrics in lacking.items():
        methods = set.union(*metrics.values())
        of = f" of {', '.join(sorted(methods))}" if methods < {c.label for c in columns} else ""
        lines.append(f"No {', '.join(metrics)}{of}: {reason}")
    return lines


def _lacking(records: Sequence[RunRecord]) -> str:
    if any(r.metrics for r in records):
        return ""
    notes = (s.note for r in records for s in r.scores if s.emotion == AVERAGE)
    reason = next(notes, "it has no scores")
    return f"'{records[0].method.name}' on {records[0].protocol.name}: {reason}"


def published_cells(
    record: RunRecord,
    block: TableBlock,
    metrics: Iterable[str],
    papers: Callable[[str, str], pd.DataFrame],
    published: bool | None = None,
) -> Iterator[tuple[CellKey, TableCell]]:
    """Yield what papers print of a record's method.

    *papers* returns all that papers print on a data set in a setting. *published* says whether
    to; when None, unless the protocol's clips are drawn.
    """
    beside = record.protocol.published
    if not beside or record.is_control or published is False:
        return
    if published is None and _is_drawn(record.protocol.name):
        return
    own = (s.metric for s in record.scores)  # of two variants in a table, the record's
    names = {_published_metric(metric): metric for metric in (*metrics, *own)}
    name, label_of_method = record.method.name, record.method.label
    with suppress(UnknownNameError):
        if real := method_card(name).stands_for:  # papers print rows of the real system
            name, label_of_method = real, method_card(real).label
    rows = papers(beside.dataset, beside.setting)
    for row in rows[rows["method"] == name].to_dict("records"):
        metric = names.get(row["metric"])
        if metric is not None:
            source, kind = f"{row['paper']}, {beside.dataset.upper()}", row["kind"]
            if kind == "published" and _same_recipe(record, metric):
                source, kind = f"{source}, same recipe", "recipe"
            label = f"{label_of_method}{MARKS[kind]} ({source})"
            column = TableColumn(row["method"], label, kind, source)
            doubt = "?" if row["doubt"] else ""
            cell = TableCell(float(row["value"]), mark=doubt, printed=row["printed"])
            yield (block, row["emotion"], column, metric), cell


def _published_metric(name: str) -> str:
    """Return the metric that papers print a metric's numbers under; the name without a card."""
    card = known_metric(name)
    return card.printed_as if card else name


def _same_recipe(record: RunRecord, metric: str) -> bool:
    """Whether a record's numbers in a metric are made as the papers' rows beside it were.

    That is through the profile that the protocol's card names for it, in the papers' variant of
    the metric and whole precision, on all items, and with test clips of which none had to be taken
    by the nearest sum.
    """
    protocol, settings = record.protocol, record.settings.get(metric)
    return (
        protocol.published is not None
        and protocol.published.recipe == record.profile
        and _published_metric(metric) != metric
        and NEAREST not in protocol.determined
        and not (settings and "precision" in (settings.model_extra or {}))
        and not any(s.partial for s in record.scores if s.metric == metric)
    )


def _is_drawn(protocol: str) -> bool:
    """Whether a protocol's clips are drawings; False for one that is not registered here."""
    with suppress(UnknownNameError):
        return dataset_card(load_protocol(protocol).dataset).world is not None
    return False


# ---- of printed tables ---------------------------------------------------------------------


def make_printed_table(tables: Sequence[Printed], *, choice: Choice = ALL) -> Table:
    """Arrange printed tables again, digit by digit: a block of rows for each setting.

    Raises CardError when two numbers are given for one cell, and UnknownNameError when a chosen
    method, metric or emotion is in none of them.
    """
    tables, choice = choose_printed(tables, choice)
    cells: dict[CellKey, TableCell] = {}
    datasets = {row.dataset for table in tables for row in table.rows}
    papers = {row.paper for table in tables for row in table.rows}
    doubts: dict[tuple[str, str], list[str]] = {}
    for table in tables:
        several = len({row.table for row in table.rows}) > 1
        for row in table.rows:
            place = row.dataset.upper() if len(datasets) > 1 else ""
            label = f"{place} {SETTINGS.get(row.setting, row.setting)}".strip()
            block = TableBlock(row.setting, row.dataset, label)
            paper = row.paper.upper() if len(papers) > 1 else ""
            source = ", ".join(filter(None, (paper, f"table {row.table}" if several else "")))
            name = method_label(row.method) + (f" ({source})" if source else "")
            column = TableColumn(row.method, name, table.kind, source)
            doubt = table.doubts.get(row.address, "")
            key = (block, row.emotion, column, row.metric)
            if key in cells:
                raise CardError(f"{table.name}: {row.address} is given twice", "Remove one of them")
            cells[key] = TableCell(float(row.value), mark="?" if doubt else "", printed=row.value)
            if doubt:
                where = f"{label}, {emotion_label(row.emotion)}, {name}"
                doubts.setdefault((where, doubt), []).append(metric_heading(row.metric))
    notes = [table.origin for table in tables]
    notes += [f"? {where}, {', '.join(of)}: {doubt}" for (where, doubt), of in doubts.items()]
    columns = tuple(dict.fromkeys(key[2] for key in cells))
    if choice.methods:
        columns = tuple(sorted(columns, key=lambda c: choice.methods.index(c.method)))
    metrics = choice.metrics or tuple(dict.fromkeys(key[3] for key in cells))
    blocks = dict.fromkeys(key[0] for key in cells)
    rows = _rows(blocks, {key[:2] for key in cells}, choice.emotions)
    title = "; ".join(table.title for table in tables)
    return Table(columns, metrics, rows, cells, tuple(notes), (), title, "", choice.emotions)
