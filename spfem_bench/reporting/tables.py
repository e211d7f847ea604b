"""The papers' tables, from run records and from what is printed: pure functions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.methods import method_card
from spfem_bench.definitions.metrics import MetricCard, metric_card
from spfem_bench.definitions.protocols import AVERAGE, in_order, load_protocol
from spfem_bench.errors import CardError, UnknownNameError
from spfem_bench.evaluation.record import scores, unverified
from spfem_bench.reporting.grids import Entry, Grid, Label, emotion_label, print_grid
from spfem_bench.reporting.published import Printed, published_rows
from spfem_bench.texts import csv_text

if TYPE_CHECKING:
    import pandas as pd

ARROWS = {"lower": "↓", "higher": "↑", "zero": "→0"}
MARKS = {"published": "†", "second-hand": "††", "control": "‡", "reproduced": ""}
LEGEND = {
    "published": "† published, not computed here: other networks, clips and decoding; never "
    "compared with numbers without it",
    "second-hand": "†† published, quoted second-hand",
    "control": "‡ control: no manipulation model",
    "partial": "* partial: clips are missing or refused",
    "doubt": "? contradicts its own paper, see reference_results/published/",
}


def heading(metric: MetricCard) -> str:
    """Return a metric as the head of a column: its name, and which way is better."""
    return f"{metric.label}{ARROWS[metric.direction]}"


SETTINGS = {"inter-id": "Inter-ID", "cross-id": "Cross-ID"}

Layout = Literal["asccl", "stccl"]
Format = Literal["text", "markdown", "csv", "csv-wide", "latex", "html"]


@dataclass(frozen=True)
class Column:
    """One method's numbers.

    Attributes:
        method: the method's name.
        label: what is printed for it, with its mark.
        kind: reproduced, control, published or second-hand.
        source: the profile, or the paper and data set.
    """

    method: str
    label: str
    kind: str
    source: str


@dataclass(frozen=True)
class Block:
    """Rows that belong together: one protocol, or one setting of a printed table.

    Attributes:
        setting: inter-id or cross-id.
        origin: the protocol, or the data set.
        label: what is printed for it.
    """

    setting: str
    origin: str
    label: str


@dataclass(frozen=True)
class Cell:
    """One number.

    Attributes:
        value: None where there is no score.
        printed: the number as a paper prints it; empty for one's own.
    """

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


Cells = Mapping[tuple[Block, str, Column, str], Cell]


@dataclass(frozen=True)
class Table:
    """Everything a printed table needs.

    Attributes:
        rows: blocks and emotions, in order.
        cells: by (block, emotion, column, metric).
        notes: lines printed below.
        signatures: in the order of their first numbers.
        title: one line.
        lacking: why it has no number of its own at all; empty where it has one.
    """

    columns: tuple[Column, ...]
    metrics: tuple[str, ...]
    rows: tuple[tuple[Block, str], ...]
    cells: Cells
    notes: tuple[str, ...]
    signatures: tuple[str, ...]
    title: str = ""
    lacking: str = ""

    def cell(self, block: Block, emotion: str, column: Column, metric: str) -> Cell | None:
        """Return a cell that holds a number, else None."""
        cell = self.cells.get((block, emotion, column, metric))
        return None if cell is None or cell.value is None else cell

    def ranks(self, block: Block, emotion: str, metric: str) -> dict[Column, int]:
        """Return which columns are best (1) and second best (2) of those that may be compared.

        Only numbers computed here with one and the same signature are. With fewer than
        two of them nothing is best, with two nothing is second best, and with a second
        signature in the row (a partial score has its own) nothing is either. Equal numbers
        share a place. Controls and printed numbers never take part.
        """
        found = {
            column: cell
            for column in self.columns
            if column.kind == "reproduced" and (cell := self.cell(block, emotion, column, metric))
        }
        if len(found) < 2 or len({c.signature for c in found.values()}) > 1:
            return {}
        card = metric_card(metric)
        badness = {column: card.badness(cell.value or 0.0) for column, cell in found.items()}
        places = sorted(set(badness.values()))[: 1 if len(found) == 2 else 2]
        return {column: places.index(bad) + 1 for column, bad in badness.items() if bad in places}


def make_table(records: Sequence[Mapping[str, Any]], *, published: bool | None = None) -> Table:
    """Lay run records out as the papers do: a block of rows for each protocol.

    Args:
        records: run records of any protocols and methods.
        published: show the papers' rows of the same methods beside them; when None, for all
            protocols but those on drawn clips.

    Raises:
        CardError: no records, a damaged one, or one given twice.
    """
    if not records:
        raise CardError(
            "there is no run record to print", "Give files that 'spfem-bench eval' wrote"
        )
    cells: dict[tuple[Block, str, Column, str], Cell] = {}
    columns: dict[Column, None] = {}
    empty: dict[str, dict[str, set[str]]] = {}
    signatures: dict[str, None] = {}
    metrics: dict[str, None] = {}
    every = {s.metric for r in records for s in scores(r)}
    blocks = _blocks(records)
    profiles = {r["profile"] for r in records}
    parts = {  # a method is marked as partial when it is so anywhere
        (r["method"]["name"], r["profile"])
        for r in records
        for s in scores(r)
        if s.partial and s.emotion == AVERAGE and s.value is not None
    }
    seen: set[tuple[Block, Column]] = set()
    kinds: set[str] = set()
    papers = cache(published_rows)  # the methods of a block have the same beside them
    for record in records:
        name, profile = record["method"]["name"], record["profile"]
        block = blocks[record["protocol"]["name"]]
        kind = "control" if record["method"]["kind"] == "control" else "reproduced"
        partial = (name, profile) in parts
        label = record["method"]["label"] + MARKS[kind] + ("*" if partial else "")
        column = Column(name, label + (f" ({profile})" if len(profiles) > 1 else ""), kind, profile)
        if (block, column) in seen:
            raise CardError(
                f"two records of '{name}' on {block.origin}, {profile}",
                "Give each method's record once",
            )
        seen.add((block, column))
        columns[column] = None
        kinds |= {kind} | ({"partial"} if partial else set())
        for s in scores(record):
            metrics[s.metric] = None
            if s.signature and s.value is not None:
                signatures[s.signature] = None
            if s.value is None and s.emotion == AVERAGE:
                metric = metric_card(s.metric).label
                empty.setdefault(s.note, {}).setdefault(metric, set()).add(column.label)
            cells[block, s.emotion, column, s.metric] = Cell(
                s.value,
                s.low,
                s.high,
                "",
                s.signature,
                s.n_items,
                s.n_frames,
                s.n_refused,
                s.n_frames_refused,
            )
        for key, cell in _beside(record, block, every, papers, published):
            columns[key[2]] = None
            kinds |= {key[2].kind} | ({"doubt"} if cell.mark else set())
            cells[key] = cell
    lacking = ""
    if all(cell.value is None for key, cell in cells.items() if key[2].kind in OWN):
        reason = next(iter(empty), "it has no scores")
        first = records[0]
        lacking = f"'{first['method']['name']}' on {first['protocol']['name']}: {reason}"
    own = {(k[0], k[1]) for k in cells if k[2].kind in OWN}
    rows = _rows(blocks.values(), own)
    labels = {c.label for c in columns if c.kind in OWN}
    counts = [_counts(c, rows, metrics, cells) for c in columns if c.kind in OWN]
    notes = [
        *filter(None, counts),
        *_reasons(empty, labels),
        *(LEGEND[k] for k in LEGEND if k in kinds),
        *unverified(records),
    ]
    title = f"{', '.join(blocks)}; profile {', '.join(sorted(profiles))}"
    return Table(
        tuple(columns),
        tuple(metrics),
        rows,
        cells,
        tuple(notes),
        tuple(signatures),
        title,
        lacking,
    )


OWN = ("reproduced", "control")


def _blocks(records: Iterable[Mapping[str, Any]]) -> dict[str, Block]:
    """Return the block of each protocol, named by its setting where that tells them apart."""
    settings = {r["protocol"]["name"]: r["protocol"]["setting"] for r in records}
    blocks = {}
    for name, setting in settings.items():
        label = SETTINGS.get(setting, setting)
        alone = list(settings.values()).count(setting) == 1
        blocks[name] = Block(setting, name, label if alone else f"{label} ({name})")
    return blocks


def _rows(blocks: Iterable[Block], filled: set[tuple[Block, str]]) -> tuple[tuple[Block, str], ...]:
    order = in_order(e for _, e in filled)
    return tuple((block, e) for block in blocks for e in order if (block, e) in filled)


def make_printed_table(tables: Sequence[Printed]) -> Table:
    """Lay printed tables out again, digit by digit: a block of rows for each setting.

    Args:
        tables: from :func:`~spfem_bench.reporting.published.printed_table`.

    Raises:
        CardError: two numbers are given for one cell.
    """
    cells: dict[tuple[Block, str, Column, str], Cell] = {}
    columns: dict[Column, None] = {}
    metrics: dict[str, None] = {}
    datasets = {row.dataset for table in tables for row in table.rows}
    papers = {row.paper for table in tables for row in table.rows}
    doubts: dict[tuple[str, str], list[str]] = {}
    for table in tables:
        several = len({row.table for row in table.rows}) > 1
        for row in table.rows:
            place = row.dataset.upper() if len(datasets) > 1 else ""
            label = f"{place} {SETTINGS.get(row.setting, row.setting)}".strip()
            block = Block(row.setting, row.dataset, label)
            said = (
                row.paper.upper() if len(papers) > 1 else "",
                f"table {row.table}" if several else "",
            )
            source = ", ".join(filter(None, said))
            name = _label_of(row.method) + (f" ({source})" if source else "")
            column = Column(row.method, name, table.kind, source)
            doubt = table.doubts.get(row.address, "")
            key = (block, row.emotion, column, row.metric)
            if key in cells:
                raise CardError(f"{table.name}: {row.address} is given twice", "Remove one of them")
            cells[key] = Cell(float(row.value), mark="?" if doubt else "", printed=row.value)
            columns[column] = None
            metrics[row.metric] = None
            if doubt:
                where = f"{label}, {emotion_label(row.emotion)}, {name}"
                doubts.setdefault((where, doubt), []).append(_metric(row.metric).text)
    notes = [table.origin for table in tables]
    notes += [f"? {where}, {', '.join(found)}: {doubt}" for (where, doubt), found in doubts.items()]
    blocks = dict.fromkeys(key[0] for key in cells)
    rows = _rows(blocks, {(k[0], k[1]) for k in cells})
    title = "; ".join(table.title for table in tables)
    return Table(tuple(columns), tuple(metrics), rows, cells, tuple(notes), (), title)


def _label_of(method: str) -> str:
    try:
        return method_card(method).label
    except UnknownNameError:
        return method


def _counts(
    column: Column,
    rows: Iterable[tuple[Block, str]],
    metrics: Iterable[str],
    cells: Cells,
) -> str:
    """Say what a method's averages stand on, with their intervals."""
    said = []
    blocks = list(dict.fromkeys(block for block, e in rows if e == AVERAGE))
    for block in blocks:
        place = f"{block.label} " if len(blocks) > 1 else ""
        for metric in metrics:
            cell = cells.get((block, AVERAGE, column, metric))
            if cell is None or cell.value is None:
                continue
            interval = "" if cell.low is None else f" [{cell.low:.3f}, {cell.high:.3f}]"
            refused = f", {cell.n_refused} refused" if cell.n_refused else ""
            said.append(
                f"{place}{metric_card(metric).label} {cell.value:.3f}{interval} on "
                f"{cell.n_items} clips{refused}, {cell.n_frames} frames"
            )
    return f"{column.label}, Avg. with 95 % interval: {'; '.join(said)}" if said else ""


def _reasons(empty: Mapping[str, Mapping[str, set[str]]], methods: set[str]) -> list[str]:
    """Say once, for each reason, which metrics (and methods, if not all) have no number."""
    lines = []
    for reason, metrics in empty.items():
        who = set.union(*metrics.values())
        of = f" of {', '.join(sorted(who))}" if who < methods else ""
        lines.append(f"No {', '.join(metrics)}{of}: {reason}")
    return lines


def _beside(
    record: Mapping[str, Any],
    block: Block,
    metrics: set[str],
    papers: Callable[[str, str], pd.DataFrame],
    published: bool | None = None,
) -> Iterable[tuple[tuple[Block, str, Column, str], Cell]]:
    """Return what papers print of a record's method, of all that *papers* gives for its data."""
    beside = record["protocol"]["published"]
    if not beside or record["method"]["kind"] == "control":
        return
    if published is False or (published is None and _is_drawn(record["protocol"]["name"])):
        return
    name, label_of_method = record["method"]["name"], record["method"]["label"]
    with suppress(UnknownNameError):
        if real := method_card(name).stands_for:  # the papers' rows are of the real system
            name, label_of_method = real, method_card(real).label
    rows = papers(beside["dataset"], beside["setting"])
    rows = rows[rows["method"] == name]
    for row in rows.to_dict("records"):
        if row["metric"] not in metrics:
            continue
        source = f"{row['paper']}, {beside['dataset'].upper()}"
        label = f"{label_of_method}{MARKS[row['kind']]} ({source})"
        column = Column(row["method"], label, row["kind"], source)
        cell = Cell(float(row["value"]), mark="?" if row["doubt"] else "", printed=row["printed"])
        yield (block, row["emotion"], column, row["metric"]), cell


def _is_drawn(protocol: str) -> bool:
    """Whether a protocol's clips are drawings; False for one that is not registered here."""
    with suppress(UnknownNameError):
        return dataset_card(load_protocol(protocol).dataset).world is not None
    return False


# ---- printing ------------------------------------------------------------------------------


def render(
    table: Table,
    style: Format,
    *,
    layout: Layout = "asccl",
    intervals: bool = False,
    standalone: bool = False,
) -> str:
    """Return a table as text in one of the formats, with notes and signatures below it.

    Args:
        table: from :func:`make_table` or :func:`make_printed_table`.
        style: ``csv`` is tidy, one number a line; ``csv-wide`` has the layout's rows.
        layout: ``asccl`` has emotions down, methods and metrics across; ``stccl`` has
            metrics and methods down, emotions across.
        intervals: print the 95 % interval beside each number that has one.
        standalone: with LaTeX, a document that compiles by itself.

    Raises:
        CardError: there is no number to print.
    """
    if table.lacking:
        raise CardError(
            f"no number to print: {table.lacking}",
            "Run the evaluation again, with what is missing or with --partial",
        )
    if style == "csv":
        return tidy(table)
    lay = {"asccl": _emotions_down, "stccl": _emotions_across}[layout]
    return print_grid(
        lay(table, intervals), "csv" if style == "csv-wide" else style, standalone=standalone
    )


def _metric(name: str, marks: str = "") -> Label:
    try:
        card = metric_card(name)
    except UnknownNameError:  # a printed table may have any
        return Label(name, name, marks)
    return Label(heading(card), name, marks)


def _method(table: Table, column: Column) -> Label:
    alone = [c.method for c in table.columns].count(column.method) == 1
    return Label(column.label, column.method if alone else f"{column.method} ({column.source})")


def _entry(table: Table, key: tuple[Block, str, Column, str], intervals: bool) -> Entry:
    cell = table.cell(*key)
    if cell is None:
        return Entry()
    block, emotion, column, metric = key
    interval, bounds = "", ("", "")
    if intervals and cell.low is not None and cell.high is not None:
        interval = f"[{cell.low:.3f}, {cell.high:.3f}]"
        bounds = (repr(cell.low), repr(cell.high))
    return Entry(
        cell.printed or f"{cell.value:.3f}",
        cell.printed or repr(cell.value),
        table.ranks(block, emotion, metric).get(column, 0),
        interval,
        bounds,
        cell.mark,
        cell.signature,
    )


def _letters(table: Table) -> dict[str, str]:
    """Return a letter for each signature, empty where a signature's metric tells which it is."""
    of: dict[str, set[str]] = {}
    for (_, _, _, metric), cell in table.cells.items():
        if cell.signature and cell.value is not None:
            of.setdefault(metric, set()).add(cell.signature)
    if all(len(signs) == 1 for signs in of.values()):
        return dict.fromkeys(table.signatures, "")
    return {sign: _letter(i) for i, sign in enumerate(table.signatures)}


def _letter(number: int) -> str:
    """Return a, b, ..., z, aa, ab, ...

    >>> [_letter(n) for n in (0, 25, 26)]
    ['a', 'z', 'aa']
    """
    return (_letter(number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)


def _marks(letters: Mapping[str, str], cells: Iterable[Cell | None]) -> str:
    signs = dict.fromkeys(c.signature for c in cells if c is not None and c.signature)
    return ",".join(filter(None, (letters[s] for s in signs)))


def _emotions_down(table: Table, intervals: bool) -> Grid:
    """Lay out as ASCCL does: settings and emotions down, methods and metrics across."""
    letters = _letters(table)
    heads, keys = [], []
    for column in table.columns:
        for metric in table.metrics:
            cells = [table.cell(b, e, column, metric) for b, e in table.rows]
            if any(cells):
                marks = _marks(letters, cells)
                heads.append((_method(table, column), _metric(metric, marks)))
                keys.append((column, metric))
    rows = tuple(
        (
            (
                Label(block.label, block.setting if _one(table) else block.origin),
                Label(emotion_label(emotion), emotion),
            ),
            tuple(_entry(table, (block, emotion, *key), intervals) for key in keys),
        )
        for block, emotion in table.rows
    )
    stubs = (Label("Setting", "setting"), Label("Emotion", "emotion"))
    return Grid(stubs, tuple(heads), rows, table.notes, _signed(letters), table.title)


def _emotions_across(table: Table, intervals: bool) -> Grid:
    """Lay out as STCCL does: settings, metrics and methods down, emotions across."""
    letters = _letters(table)
    blocks = dict.fromkeys(block for block, _ in table.rows)
    emotions = in_order(e for _, e in table.rows)
    rows = []
    for block in blocks:
        for metric in table.metrics:
            found = {
                column: cells
                for column in table.columns
                if any(cells := [table.cell(block, e, column, metric) for e in emotions])
            }
            marks = {column: _marks(letters, cells) for column, cells in found.items()}
            shared = set(filter(None, marks.values()))
            common = next(iter(shared)) if len(shared) == 1 else ""
            for column in found:
                method = _method(table, column)
                own = "" if common else marks[column]
                labels = (
                    Label(block.label, block.setting if _one(table) else block.origin),
                    _metric(metric, common),
                    Label(method.text, method.name, own),
                )
                entries = (_entry(table, (block, e, column, metric), intervals) for e in emotions)
                rows.append((labels, tuple(entries)))
    stubs = (Label("Setting", "setting"), Label("Metric", "metric"), Label("Method", "method"))
    heads = tuple((Label(emotion_label(e), e),) for e in emotions)
    return Grid(stubs, heads, tuple(rows), table.notes, _signed(letters), table.title)


def _one(table: Table) -> bool:
    """Whether settings tell the blocks apart."""
    blocks = {block for block, _ in table.rows}
    return len({block.setting for block in blocks}) == len(blocks)


def _signed(letters: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((letter, sign) for sign, letter in letters.items())


def tidy(table: Table) -> str:
    """Return one number a line, at full precision, in the columns of ``docs/tables.md``."""
    rows = [["setting", "emotion", "method", "kind", "source", "metric", *_CELL]]
    for (block, emotion, column, metric), cell in table.cells.items():
        said = asdict(cell) | {"doubt": cell.mark, "value": cell.printed or cell.value}
        own = column.kind in OWN
        source = f"{block.origin}, {column.source}" if own else column.source
        names = [block.setting, emotion, column.method, column.kind, source, metric]
        rows.append([*names, *(said[name] for name in _CELL)])
    return csv_text(rows)


_CELL = (
    "value",
    "low",
    "high",
    "doubt",
    "signature",
    "n_items",
    "n_frames",
    "n_refused",
    "n_frames_refused",
)


def score_lines(record: Mapping[str, Any]) -> str:
    """Return one evaluation as text: each metric's headline with interval and counts."""
    from tabulate import tabulate

    lines: list[list[object]] = []
    said: set[str] = set()
    for s in scores(record):
        if s.emotion != "avg":
            continue
        note = "as above" if s.value is None and s.note in said else s.note
        said.add(s.note)
        card = metric_card(s.metric)
        interval = (
            f"[{s.low:.3f}, {s.high:.3f}]" if s.low is not None and s.high is not None else ""
        )
        lines.append(
            [
                heading(card),
                f"{s.value:.3f}" + ("*" if s.partial else "") if s.value is not None else "–",
                interval,
                f"{s.n_items}/{s.n_items + s.n_refused}",
                s.n_frames,
                note,
            ]
        )
    heads = ["Metric", "Avg.", "95 % interval", "Clips", "Frames", "Note"]
    return tabulate(
        lines,
        heads,
        disable_numparse=True,
        colalign=("left", "right", "left", "right", "right"),
        maxcolwidths=[None, None, None, None, None, 70],
    )


def comparison(records: Sequence[Mapping[str, Any]]) -> str:
    """Return several evaluations on one protocol as text: methods down, headlines across.

    What papers print of the same methods follows, marked, with a line that says what it is.
    """
    from tabulate import tabulate

    metrics = list(dict.fromkeys(s.metric for r in records for s in scores(r) if s.signature))
    heads = [heading(metric_card(m)) for m in metrics]
    lines: list[list[str]] = []
    printed: dict[Column, dict[str, str]] = {}
    papers = cache(published_rows)
    for record in records:
        found = {s.metric: s for s in scores(record) if s.emotion == AVERAGE}
        cells = [found.get(m) for m in metrics]
        values = [
            "–" if s is None or s.value is None else f"{s.value:.3f}{'*' if s.partial else ''}"
            for s in cells
        ]
        counts = {f"{s.n_items}/{s.n_items + s.n_refused}" for s in cells if s}
        mark = MARKS["control"] if record["method"]["kind"] == "control" else ""
        lines.append([record["method"]["label"] + mark, *values, " ".join(sorted(counts))])
        block = Block(record["protocol"]["setting"], record["protocol"]["name"], "")
        beside = _beside(record, block, set(metrics), papers)
        for (_, emotion, column, metric), cell in beside:
            if emotion == AVERAGE:
                printed.setdefault(column, {})[metric] = cell.printed + cell.mark
    for column, numbers in printed.items():
        lines.append([column.label, *(numbers.get(m, "–") for m in metrics), ""])
    align = ("left", *("right" for _ in metrics), "right")
    table = tabulate(lines, ["Method", *heads, "Clips"], disable_numparse=True, colalign=align)
    return "\n".join([table, *(LEGEND[kind] for kind in dict.fromkeys(c.kind for c in printed))])
