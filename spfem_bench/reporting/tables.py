"""The papers' table: settings and emotions down, methods and metrics across."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import pandas as pd

from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.errors import CardError
from spfem_bench.evaluation.record import scores
from spfem_bench.reporting.published import published_rows

ARROWS = {"lower": "↓", "higher": "↑", "zero": "→0"}
MARKS = {"published": "†", "second-hand": "††", "control": "‡", "reproduced": ""}
LEGEND = {
    "published": "† published, not computed here: other networks, clips and decoding; never "
    "compared with the columns without it",
    "second-hand": "†† published, quoted second-hand",
    "control": "‡ control: no manipulation model",
    "partial": "* partial: clips are missing or refused",
    "doubt": "? contradicts its own paper, see reference_results/published/",
}


@dataclass(frozen=True)
class Column:
    """One method's column group.

    Attributes:
        method: the method's name.
        label: the head printed over it, with its mark.
        kind: reproduced, control, published or second-hand.
        source: protocol and profile, or the paper.
    """

    method: str
    label: str
    kind: str
    source: str


@dataclass(frozen=True)
class Cell:
    """One printed number."""

    value: float | None
    low: float | None = None
    high: float | None = None
    mark: str = ""
    signature: str = ""
    n_items: int | None = None
    n_frames: int | None = None
    n_refused: int | None = None
    n_frames_refused: int | None = None


@dataclass(frozen=True)
class Table:
    """Everything a printed table needs.

    Attributes:
        cells: by (setting, emotion, column, metric).
    """

    columns: tuple[Column, ...]
    metrics: tuple[str, ...]
    rows: tuple[tuple[str, str], ...]
    cells: Mapping[tuple[str, str, Column, str], Cell]
    notes: tuple[str, ...]
    signatures: tuple[str, ...]

    def best(self, setting: str, emotion: str, metric: str) -> set[Column]:
        """Return the best columns among those that may be compared.

        Only numbers with one and the same signature are; with fewer than two
        methods (controls aside) nothing is best.
        """
        card = metric_card(metric)
        candidates = [
            (column, cell)
            for column in self.columns
            if column.kind == "reproduced"
            and (cell := self.cells.get((setting, emotion, column, metric))) is not None
            and cell.value is not None
        ]
        if len(candidates) < 2 or len({c.signature for _, c in candidates}) > 1:
            return set()

        def badness(cell: Cell) -> float:
            value = cell.value or 0.0
            return {"lower": value, "higher": -value, "zero": abs(value)}[card.direction]

        least = min(badness(c) for _, c in candidates)
        return {column for column, c in candidates if badness(c) == least}


def make_table(records: Sequence[Mapping[str, Any]], *, published: bool = True) -> Table:
    """Lay run records out as the papers do.

    Args:
        records: run records of any protocols and methods.
        published: show the papers' rows of the same methods beside them.
    """
    cells: dict[tuple[str, str, Column, str], Cell] = {}
    columns: dict[Column, None] = {}
    empty: dict[str, dict[str, set[str]]] = {}
    signatures: dict[str, None] = {}
    metrics: dict[str, None] = {}
    every = {s.metric for r in records for s in scores(r)}
    several = len({(r["protocol"]["name"], r["profile"]) for r in records}) > 1
    kinds: set[str] = set()
    for record in records:
        rows = scores(record)
        source = f"{record['protocol']['name']}, {record['profile']}"
        kind = "control" if record["method"]["kind"] == "control" else "reproduced"
        partial = any(s.partial and s.emotion == "avg" and s.value is not None for s in rows)
        mark = MARKS[kind] + ("*" if partial else "")
        label = record["method"]["label"] + mark + (f" ({source})" if several else "")
        column = Column(record["method"]["name"], label, kind, source)
        if column in columns:
            raise CardError(
                f"two records of '{column.method}' on {source}", "Give each method's record once"
            )
        columns[column] = None
        kinds |= {kind} | ({"partial"} if partial else set())
        for s in rows:
            metrics[s.metric] = None
            if s.signature and s.value is not None:
                signatures[s.signature] = None
            if s.value is None and s.emotion == "avg":
                metric = metric_card(s.metric).label
                empty.setdefault(s.note, {}).setdefault(metric, set()).add(label)
            key = (s.setting, s.emotion, column, s.metric)
            cells[key] = Cell(
                s.value, s.low, s.high, "", s.signature,
                s.n_items, s.n_frames, s.n_refused, s.n_frames_refused,
            )  # fmt: skip
        for printed, key, cell in _published(record, every) if published else ():
            columns[printed] = None
            kinds |= {printed.kind} | ({"doubt"} if cell.mark else set())
            cells[key] = cell
    settings = list(dict.fromkeys(k[0] for k in cells))
    listed = {(k[0], k[1]) for k in cells}
    order = [*EMOTIONS, *sorted({e for _, e in listed} - {*EMOTIONS, "avg"}), "avg"]
    own_kinds = ("reproduced", "control")
    own = {(k[0], k[1]) for k in cells if k[2].kind in own_kinds}
    rows_shown = tuple((s, e) for s in settings for e in order if (s, e) in own)
    legend = [LEGEND[k] for k in LEGEND if k in kinds]
    counts = [_counts(c, rows_shown, metrics, cells) for c in columns if c.kind in own_kinds]
    return Table(
        tuple(columns),
        tuple(metrics),
        rows_shown,
        cells,
        (
            *filter(None, counts),
            *_reasons(empty, {c.label for c in columns if c.kind in own_kinds}),
            *legend,
        ),
        tuple(signatures),
    )


def _counts(
    column: Column,
    rows: Iterable[tuple[str, str]],
    metrics: Iterable[str],
    cells: Mapping[tuple[str, str, Column, str], Cell],
) -> str:
    """Say what a method's averages stand on, with their intervals."""
    said = []
    for setting in dict.fromkeys(s for s, e in rows if e == "avg"):
        for metric in metrics:
            cell = cells.get((setting, "avg", column, metric))
            if cell is None or cell.value is None:
                continue
            interval = "" if cell.low is None else f" [{cell.low:.3f}, {cell.high:.3f}]"
            refused = f", {cell.n_refused} refused" if cell.n_refused else ""
            said.append(
                f"{metric_card(metric).label} {cell.value:.3f}{interval} on {cell.n_items} clips"
                f"{refused}, {cell.n_frames} frames"
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


def _published(
    record: Mapping[str, Any], metrics: set[str]
) -> Iterable[tuple[Column, tuple[str, str, Column, str], Cell]]:
    beside = record["protocol"]["published"]
    if not beside or record["method"]["kind"] == "control":
        return
    rows = published_rows(beside["dataset"], beside["setting"])
    rows = rows[rows["method"] == record["method"]["name"]]
    for row in rows.to_dict("records"):
        if row["metric"] not in metrics:
            continue
        source = f"{row['paper']}, {beside['dataset'].upper()}"
        label = f"{record['method']['label']}{MARKS[row['kind']]} ({source})"
        column = Column(row["method"], label, row["kind"], source)
        key = (record["protocol"]["setting"], row["emotion"], column, row["metric"])
        yield column, key, Cell(float(row["value"]), mark="?" if row["doubt"] else "")


# ---- printing ------------------------------------------------------------------------------

Format = Literal["text", "markdown", "csv", "latex"]


def render(table: Table, style: Format) -> str:
    """Return a table as text in one of the formats, with notes and signatures below it."""
    if style == "csv":
        return _csv(table)
    if style == "latex":
        return _latex(table)
    return _plain(table, "github" if style == "markdown" else "simple")


def _heads(table: Table) -> list[tuple[Column, str]]:
    """Return the printed columns: those that have at least one number."""
    return [
        (column, metric)
        for column in table.columns
        for metric in table.metrics
        if any(
            (cell := table.cells.get((s, e, column, metric))) is not None and cell.value is not None
            for s, e in table.rows
        )
    ]


def _head(metric: str) -> str:
    card = metric_card(metric)
    return f"{card.label}{ARROWS[card.direction]}"


def _number(cell: Cell | None) -> str:
    return "–" if cell is None or cell.value is None else f"{cell.value:.3f}{cell.mark}"


def _emotion(name: str) -> str:
    return "Avg." if name == "avg" else name.capitalize()


def _plain(table: Table, style: str) -> str:
    from tabulate import tabulate

    heads = _heads(table)
    bold = "**" if style == "github" else ""
    body = []
    for setting, emotion in table.rows:
        line = [setting, _emotion(emotion)]
        for column, metric in heads:
            text = _number(table.cells.get((setting, emotion, column, metric)))
            best = bold and column in table.best(setting, emotion, metric)
            line.append(f"{bold}{text}{bold}" if best else text)
        body.append(line)
    separator = " " if style == "github" else "\n"
    names = [f"{column.label}{separator}{_head(metric)}" for column, metric in heads]
    printed = tabulate(
        body, ["Setting", "Emotion", *names], tablefmt=style, disable_numparse=True,
        colalign=("left", "left", *("right" for _ in heads)),
    )  # fmt: skip
    bullet = "- " if style == "github" else ""
    code = "`" if style == "github" else ""
    below = [f"{bullet}{n}" for n in table.notes]
    below += [f"{bullet}{code}{s}{code}" for s in table.signatures]
    return printed + "\n\n" + "\n".join(below) + "\n"


def _csv(table: Table) -> str:
    rows = []
    for (setting, emotion, column, metric), cell in table.cells.items():
        rows.append(
            {
                "setting": setting,
                "emotion": emotion,
                "method": column.method,
                "kind": column.kind,
                "source": column.source,
                "metric": metric,
                **asdict(cell),
            }
        )
    frame = pd.DataFrame(rows).rename(columns={"mark": "doubt"})
    return str(frame.to_csv(index=False, lineterminator="\n"))


def _latex(table: Table) -> str:
    """Return a booktabs table; signatures and notes follow as comments, one a line."""
    heads = _heads(table)
    index = pd.MultiIndex.from_tuples([(s, _emotion(e)) for s, e in table.rows])
    frame = pd.DataFrame(index=index, dtype=object)
    for column, metric in heads:
        values = []
        for setting, emotion in table.rows:
            text = _escape(_number(table.cells.get((setting, emotion, column, metric))))
            best = column in table.best(setting, emotion, metric)
            values.append(rf"\textbf{{{text}}}" if best else text)
        frame[_escape(column.label), _escape(_head(metric))] = values
    frame.columns = (
        pd.MultiIndex.from_tuples(list(map(tuple, frame.columns))) if heads else frame.columns
    )
    body = frame.to_latex(
        escape=False,
        multicolumn=True,
        multicolumn_format="c",
        column_format="ll" + "r" * len(heads),
    )
    lines = (r"needs \usepackage{booktabs,multirow}", *table.notes, *table.signatures)
    body = re.sub(r"\\cline\{[^}]*\}\n(?=\\bottomrule)", "", body)
    return body + "\n".join(f"% {line}" for line in lines) + "\n"


def _escape(text: str) -> str:
    replacements = {
        "↓": r"$\downarrow$", "↑": r"$\uparrow$", "→0": r"$\rightarrow 0$", "†": r"\textdagger{}",
        "‡": r"\textdaggerdbl{}", "–": "--", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#",
    }  # fmt: skip
    for plain, latex in replacements.items():
        text = text.replace(plain, latex)
    return text


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
                f"{card.label}{ARROWS[card.direction]}",
                f"{s.value:.3f}" + ("*" if s.partial else "") if s.value is not None else "–",
                interval,
                f"{s.n_items}/{s.n_items + s.n_refused}",
                s.n_frames,
                note,
            ]
        )
    heads = ["Metric", "Avg.", "95 % interval", "Clips", "Frames", "Note"]
    return tabulate(
        lines, heads, disable_numparse=True, colalign=("left", "right", "left", "right", "right"),
        maxcolwidths=[None, None, None, None, None, 70],
    )  # fmt: skip


def comparison(records: Sequence[Mapping[str, Any]]) -> str:
    """Return several evaluations on one protocol as text: methods down, headlines across."""
    from tabulate import tabulate

    metrics = list(dict.fromkeys(s.metric for r in records for s in scores(r) if s.signature))
    heads = [f"{metric_card(m).label}{ARROWS[metric_card(m).direction]}" for m in metrics]
    lines: list[list[str]] = []
    for record in records:
        found = {s.metric: s for s in scores(record) if s.emotion == "avg"}
        cells = [found.get(m) for m in metrics]
        values = [
            "–" if s is None or s.value is None else f"{s.value:.3f}{'*' if s.partial else ''}"
            for s in cells
        ]
        counts = {f"{s.n_items}/{s.n_items + s.n_refused}" for s in cells if s}
        mark = MARKS["control"] if record["method"]["kind"] == "control" else ""
        lines.append([record["method"]["label"] + mark, *values, " ".join(sorted(counts))])
    align = ("left", *("right" for _ in metrics), "right")
    return tabulate(lines, ["Method", *heads, "Clips"], disable_numparse=True, colalign=align)
