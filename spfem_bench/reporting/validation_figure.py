"""A validation drawn as small multiples: metrics down, graded controls across."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spfem_bench.evaluation.claims import ClaimTest
from spfem_bench.evaluation.grading import FAILED, HARDLY
from spfem_bench.reporting.drawing import FAINT, INK, save_drawing
from spfem_bench.reporting.tables import ARROWS
from spfem_bench.reporting.validation import cells_of, change_words, mark, verdict_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any kind of colour vision; claims are also told by
# markers, verdicts by signs and words.
COLOURS = {"measures": "#0072B2", "ignores": "#D55E00", "none": "#8A8A8A"}
MARKERS = {"measures": "o", "ignores": "s", "none": "."}
CLAIMS = {"measures": "must feel", "ignores": "should ignore", "none": "no claim"}

ZOOM = 6.0
"""A claimed move this many times smaller than its row's range is drawn on a scale of its own."""

WIDTH, HEIGHT = 1.72, 1.32  # of a panel with its margins, inches
LEFT, RIGHT, TOP, BOTTOM = 1.35, 0.12, 0.92, 1.08  # around all panels, inches


def save_figure(record: Mapping[str, Any], path: Path) -> None:
    """Draw a validation's record into a PNG, PDF or SVG, by the path's suffix.

    Raises:
        StorageError: the file cannot be written.
    """
    save_drawing(lambda: figure(record), path, dpi=200)


def figure(record: Mapping[str, Any]) -> Figure:
    """Draw a validation's record: value against level, one panel for each metric and control."""
    from matplotlib.figure import Figure

    cells = {(c.metric, c.control): c for c in cells_of(record)}
    metrics = [m for m in dict.fromkeys(m for m, _ in cells) if _drawable(cells.values(), m)]
    controls = record["controls"]
    n_rows, n_columns = max(1, len(metrics)), len(controls)
    width = max(LEFT + n_columns * WIDTH + RIGHT, 6.4)
    height = TOP + n_rows * HEIGHT + BOTTOM
    drawing = Figure(figsize=(width, height), facecolor="white")
    grid = drawing.add_gridspec(
        n_rows,
        n_columns,
        wspace=0.2,
        hspace=0.3,
        left=LEFT / width,
        right=(LEFT + n_columns * WIDTH) / width,
        top=1 - TOP / height,
        bottom=BOTTOM / height,
    )
    for row, metric in enumerate(metrics):
        own = [cells[metric, c["name"]] for c in controls]
        limits = _limits(own)
        for column, (control, cell) in enumerate(zip(controls, own, strict=True)):
            axes = drawing.add_subplot(grid[row, column])
            _panel(axes, cell, limits, first=column == 0)
            if row == 0:
                axes.set_title(control["name"], fontsize=9, fontweight="bold", pad=7)
            axes.set_xticks(range(len(control["levels"])))
            if row == n_rows - 1:
                axes.set_xticklabels([f"{v:g}" for v in control["levels"]], fontsize=6.5)
                axes.set_xlabel(
                    textwrap.fill(control["unit"], 22), fontsize=6.5, color="#555555", labelpad=3
                )
            else:
                axes.set_xticklabels([])
        _row_head(drawing, grid[row, 0].get_position(drawing), own[0])
    _head(drawing, record, width, height)
    return drawing


def _drawable(cells: Any, metric: str) -> bool:
    return any(c.points for c in cells if c.metric == metric)


def _reach(cell: ClaimTest) -> tuple[float, float]:
    """Return the lowest and highest number that a panel shows."""
    base = cell.points[0].value
    shown = [base]
    for point in cell.points:
        shown.append(point.value)
        shown += [base + e for e in (point.change_low, point.change_high) if e is not None]
    return min(shown), max(shown)


def _limits(cells: Sequence[ClaimTest]) -> tuple[float, float]:
    """Return one range for all of a metric's panels, so that moves can be compared."""
    reaches = [_reach(c) for c in cells if c.points]
    low, high = min(r[0] for r in reaches), max(r[1] for r in reaches)
    return _padded(low, high)


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) or max(abs(high), 1.0) * 0.1
    return low - 0.08 * room, high + 0.34 * room  # the verdict stands above the line


def _panel(axes: Axes, cell: ClaimTest, limits: tuple[float, float], *, first: bool) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=6.5, pad=1.5)
    colour = COLOURS[cell.claim]
    failed = cell.verdict in FAILED
    if failed:
        axes.set_facecolor("#FBEFE6" if cell.claim == "ignores" else "#E8F1F8")
        axes.spines[:].set_visible(True)
        axes.spines[:].set(color=INK, linewidth=1.3)
    if not cell.points:
        axes.set_ylim(*limits)
        axes.set_xlim(-0.35, 0.35)
        axes.set_yticks([])
        axes.text(
            0.5, 0.5, "no value", transform=axes.transAxes, ha="center", va="center", color=FAINT
        )
        return
    low, high = _reach(cell)
    zoomed = cell.claim == "measures" and (high - low) * ZOOM < limits[1] - limits[0]
    zoomed = zoomed and high > low
    axes.set_ylim(*(_padded(low, high) if zoomed else limits))
    axes.locator_params(axis="y", nbins=4)
    if not first and not zoomed:
        axes.set_yticklabels([])
    at = list(range(len(cell.points)))
    values = [p.value for p in cell.points]
    base = values[0]
    axes.set_xlim(-0.35, len(at) - 0.65)
    if cell.claim == "ignores" and cell.scale:
        axes.axhspan(
            base - HARDLY * cell.scale, base + HARDLY * cell.scale, color="#E4E4E4", lw=0, zorder=0
        )
    axes.axhline(base, color=FAINT, lw=0.6, ls=(0, (4, 3)), zorder=1)
    if cell.direction == "zero" and cell.claim == "measures":
        axes.plot(at, [p.level for p in cell.points], color=INK, lw=0.7, ls=":", zorder=2)
    if all(p.change_low is not None for p in cell.points):
        axes.fill_between(
            at,
            [base + (p.change_low or 0.0) for p in cell.points],
            [base + (p.change_high or 0.0) for p in cell.points],
            color=colour,
            alpha=0.24,
            lw=0,
            zorder=3,
        )
    axes.plot(
        at,
        values,
        color=colour,
        lw=1.4,
        marker=MARKERS[cell.claim],
        ms=3.4,
        mec="white",
        mew=0.5,
        zorder=4,
        clip_on=False,
    )
    if zoomed:
        axes.tick_params(axis="y", labelcolor=colour, color=colour)
        times = (limits[1] - limits[0]) / (axes.get_ylim()[1] - axes.get_ylim()[0])
        axes.text(
            0.985,
            0.03,
            f"scale ×{times:.0f}",
            transform=axes.transAxes,
            ha="right",
            va="bottom",
            fontsize=6,
            color=colour,
        )
    _verdict(axes, cell, failed=failed)


def _verdict(axes: Axes, cell: ClaimTest, *, failed: bool) -> None:
    """Write the verdict and the change at the strongest level above the line."""
    words = f"{mark(cell)} {verdict_words(cell)}".strip()
    if words:
        axes.text(
            0.03,
            0.965,
            words,
            transform=axes.transAxes,
            ha="left",
            va="top",
            fontsize=7,
            fontweight="bold" if failed else "normal",
            color="white" if failed else INK,
            zorder=6,
            bbox={
                "boxstyle": "round,pad=0.22,rounding_size=0.25",
                "lw": 0,
                "fc": INK if failed else "white",
                "alpha": 1.0 if failed else 0.75,
            },
        )
    change = change_words(cell).replace("-", "−")
    axes.text(
        0.985,
        0.965,
        change,
        transform=axes.transAxes,
        ha="right",
        va="top",
        fontsize=6.5,
        color=COLOURS[cell.claim] if cell.claim != "none" else "#666666",
        zorder=6,
    )


def _row_head(drawing: Figure, where: Any, cell: ClaimTest) -> None:
    """Write metric, direction and network to the left of a row."""
    width, height = drawing.get_size_inches()
    x, y = 0.12 / width, (where.y0 + where.y1) / 2
    drawing.text(
        x,
        y + 0.13 / height,
        f"{cell.label}{ARROWS[cell.direction]}",
        fontsize=9.5,
        fontweight="bold",
        va="center",
    )
    better = {"lower": "lower is better", "higher": "higher is better", "zero": "0 is in step"}
    below = f"{better[cell.direction]}\n{cell.network}"
    drawing.text(
        x, y - 0.1 / height, below, fontsize=6, color="#666666", va="center", linespacing=1.45
    )


def _head(drawing: Figure, record: Mapping[str, Any], width: float, height: float) -> None:
    """Write title, key and small print."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    protocol, x = record["protocol"], 0.12 / width
    drawing.text(
        x,
        1 - 0.2 / height,
        "What each metric feels, and what it claims",
        fontsize=12,
        fontweight="bold",
        va="center",
    )
    drawing.text(
        x,
        1 - 0.43 / height,
        f"{protocol['name']} ({protocol['setting']}), profile {record['profile']}: "
        "real clips, spoilt step by step",
        fontsize=8,
        color="#555555",
        va="center",
    )
    keys: list[Any] = [
        Line2D(
            [],
            [],
            color=COLOURS[c],
            marker=MARKERS[c],
            ms=4,
            mec="white",
            mew=0.5,
            lw=1.4,
            label=CLAIMS[c],
        )
        for c in ("measures", "ignores", "none")
    ]
    share = f"±{100 * HARDLY:.0f} % of the largest claimed move"
    keys.append(Patch(fc="#E4E4E4", lw=0, label=share))
    drawing.legend(
        handles=keys,
        loc="upper right",
        ncols=4,
        frameon=False,
        fontsize=7,
        handlelength=1.8,
        columnspacing=1.4,
        bbox_to_anchor=(1 - 0.1 / width, 1 - 0.06 / height),
        borderpad=0,
    )
    small = (
        "Line: value (mean over emotions). Band: 95 % interval of the change from undamaged, "
        "paired over clips. Number: change at the strongest level; ▾ worse, ▴ better, beyond "
        "noise. Dotted: the level itself. Rows share one scale unless a panel says otherwise. "
        "Framed, on a tint: the claim does not hold. Signatures are in the record."
    )
    drawing.text(
        x,
        0.1 / height,
        textwrap.fill(small, int(width * 17.5)),
        fontsize=6.5,
        color="#666666",
        va="bottom",
        linespacing=1.4,
    )
