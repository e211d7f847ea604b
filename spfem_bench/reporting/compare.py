"""Comparisons of methods as text, Markdown or CSV."""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import Literal

from spfem_bench.analysis.comparing import Comparison, Difference, p_text
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.reporting.grids import emotion_label, markdown_escape, one_line
from spfem_bench.reporting.tables import heading
from spfem_bench.texts import csv_text, text_table

_HEADS = ("Metric", "Emotion", "A", "B", "B − A", "95 % interval", "p (Holm)", "Effect", "Verdict")


class PrintedComparison(Comparison):
    """A comparison whose ``repr`` is its table."""

    def __repr__(self) -> str:
        return render_comparison(self, "text")


def render_comparison(comparison: Comparison, style: Literal["text", "markdown", "csv"]) -> str:
    """Return a comparison as text: one table for each method beside the baseline, then notes."""
    if style == "csv":
        return csv_text([[f.name for f in fields(Difference)], *map(astuple, comparison.rows)])
    markdown = style == "markdown"
    escape = markdown_escape if markdown else one_line
    blocks = []
    for other in comparison.others:
        lines = []
        for row in (r for r in comparison.rows if r.b == other):
            names = heading(metric_card(row.metric)), escape(emotion_label(row.emotion))
            values = f"{row.a_value:.3f}", f"{row.b_value:.3f}", f"{row.difference:+.3f}"
            interval = "–" if row.low is None else f"[{row.low:+.3f}, {row.high:+.3f}]"
            interval += " (clips)" if row.low is not None and row.drawn == "clips" else ""
            p_value = "–" if row.p_holm is None else p_text(row.p_holm)
            effect = "–" if row.effect is None else f"{row.effect:+.2f}"
            lines.append([*names, *values, interval, p_value, effect, escape(row.verdict)])
        look = "github" if markdown else "simple"
        printed = text_table(lines, _HEADS, "llrrrrrrl", look)
        title = escape(f"A: {comparison.baseline}, B: {other}")
        blocks.append(f"{'### ' if markdown else ''}{title}\n\n{printed}\n")
    bullet, code = ("- ", "`") if markdown else ("", "")
    below = [f"{bullet}{escape(note)}" for note in comparison.notes]
    below += [f"{bullet}{code}{one_line(s)}{code}" for s in comparison.signatures]
    return "\n".join([*blocks, *below]) + "\n"
