"""A metric's training as a figure: the record's validation, step by step."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spfem_bench.reporting.drawing import INK, RULE, open_frame, save_drawing

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#9DC3E6", "#5B9BD5", "#2E75B6", "#1F3864")  # of the four stages, first to last
NAMES = {"scc": "SCC (space)", "tcc": "TCC (time)", "sct": "SCT (moments)"}
NAMES |= {"vd": "visual disparity", "cm": "correlation matrix", "ct": "content"}


def save_figure(record: Mapping[str, Any], path: Path) -> None:
    """Draw a metric's training into a PNG, PDF or SVG, by the path's suffix.

    Raises StorageError when the file cannot be written.
    """
    save_drawing(lambda: figure(record), path)


def figure(record: Mapping[str, Any]) -> Figure:
    """Draw the similarity of corresponding and of other regions against the step.

    Lines are the early validation on held-out speakers, a colour for each stage; points at the
    right the final numbers, on speakers and sentences used once: hollow before training.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    forms = list(record["forms"])
    terms = ("sct",) if "ct" in forms else ("scc", "tcc")
    size = 1 + 3.1 * max(2, len(forms)), 1.2 + 2 * len(terms)  # the legend needs two panels
    drawing = Figure(figsize=size, facecolor="white")
    grid = drawing.subplots(len(terms), len(forms), sharex=True, sharey=True, squeeze=False)
    for row, term in zip(grid, terms, strict=True):
        for axes, form in zip(row, forms, strict=True):
            _panel(axes, record, form, term)
            axes.set_title(f"{NAMES[term]}, {NAMES[form]}", fontsize=8.5, fontweight="bold")
    for axes in grid[:, 0]:
        axes.set_ylabel("cosine similarity")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    keys = [Line2D([], [], color=c, label=f"stage {k}") for k, c in enumerate(COLOURS, start=1)]
    point: dict[str, Any] = {"color": INK, "linestyle": "", "marker": "o"}
    keys.append(Line2D([], [], color=INK, label="corresponding"))
    keys.append(Line2D([], [], color=INK, linestyle=":", label="other regions or moments"))
    keys.append(Line2D([], [], **point, label="final, trained"))
    keys.append(Line2D([], [], **point, markerfacecolor="white", label="final, untrained"))
    drawing.legend(handles=keys, loc="lower center", ncols=4, frameon=False, fontsize=7.5)
    drawing.tight_layout(rect=(0, 0.09, 1, 1))
    return drawing


def _panel(axes: Axes, record: Mapping[str, Any], form: str, term: str) -> None:
    history = record["training"]["validation"]
    steps = [entry["step"] for entry in history]
    for sign, style in (("positive", "-"), ("negative", ":")):
        for stage, colour in enumerate(COLOURS):
            values = [entry[form][term]["stages"][sign][stage] for entry in history]
            axes.plot(steps, values, style, color=colour, linewidth=1.3)
            for state, fill in (("untrained", "white"), ("trained", colour)):
                final = record["held_out"][state][form][term]["stages"][sign][stage]
                x = steps[-1] * 1.06
                axes.plot(x, final, "o", color=colour, markerfacecolor=fill, markersize=4)
    # Moments whose sum is 0 are on average a little opposite.
    axes.set_ylim(-0.2 if term == "sct" else -0.05, 1.02)
    axes.grid(axis="y", color=RULE, linewidth=0.5)
    axes.axhline(0, color=INK, linewidth=0.6)
    open_frame(axes)
