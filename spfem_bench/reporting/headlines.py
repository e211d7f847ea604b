"""Headline scores as text: of one evaluation, and of several beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.definitions.published import published_rows
from spfem_bench.evaluation.record import RunRecord, Score
from spfem_bench.reporting import tables
from spfem_bench.reporting.report.words import clips_text
from spfem_bench.reporting.tables import TableBlock, TableColumn, heading
from spfem_bench.texts import fixed, text_table


def score_lines(record: RunRecord) -> str:
    """Return one evaluation as text: each metric's headline with interval and counts."""
    lines: list[list[object]] = []
    notes: set[str] = set()
    for s in record.scores:
        if s.emotion != AVERAGE:
            continue
        note = "as above" if s.value is None and s.note in notes else s.note
        notes.add(s.note)
        interval = "" if s.low is None or s.high is None else f"[{fixed(s.low)}, {fixed(s.high)}]"
        head = heading(metric_card(s.metric))
        lines.append([head, _value(s), interval, clips_text(s), s.n_frames, note])
    heads = ["Metric", "Avg.", "95 % interval", "Clips", "Frames", "Note"]
    return text_table(lines, heads, "lrlrr", maxcolwidths=[*[None] * 5, 70])


def headline_table(records: Sequence[RunRecord]) -> str:
    """Return evaluations on one protocol, methods down, headlines across, then papers' numbers."""
    metrics = list(dict.fromkeys(s.metric for r in records for s in r.scores if s.signature))
    lines: list[list[str]] = []
    printed: dict[TableColumn, dict[str, str]] = {}
    papers = cache(published_rows)
    for record in records:
        averages = {s.metric: s for s in record.scores if s.emotion == AVERAGE}
        scores = [averages.get(m) for m in metrics]
        counts = " ".join(sorted({clips_text(s) for s in scores if s}))
        label = record.method.label + (tables.MARKS["control"] if record.is_control else "")
        lines.append([label, *map(_value, scores), counts])
        block = TableBlock(record.protocol.setting, record.protocol.name, "")
        beside = tables.published_cells(record, block, metrics, papers)
        for (_, emotion, column, metric), cell in beside:
            if emotion == AVERAGE:
                printed.setdefault(column, {})[metric] = cell.printed + cell.mark
    for column, numbers in printed.items():
        lines.append([column.label, *(numbers.get(m, "–") for m in metrics), ""])
    heads = ["Method", *(heading(metric_card(m)) for m in metrics), "Clips"]
    table = text_table(lines, heads, "l" + "r" * (len(heads) - 1))
    return "\n".join(
        [table, *(tables.LEGEND[kind] for kind in dict.fromkeys(c.kind for c in printed))]
    )


def _value(score: Score | None) -> str:
    if score is None or score.value is None:
        return "–"
    return f"{fixed(score.value)}{'*' if score.partial else ''}"
