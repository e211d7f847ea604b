"""A validation drawn as small multiples: metrics down, graded controls across."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spfem_bench.evaluation.claims import ClaimTest
from spfem_bench.evaluation.grading import FAILED, HARDLY
from spfem_bench.reporting import drawing
from spfem_bench.reporting.tables import ARROWS
from spfem_bench.reporting.validation import cells_of, change_words, verdict_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours for any kind of colour vision; claims are also told by markers,
# verdicts by signs and words.
COLOURS = {"measures": "#0072B2", "ignores": "#D55E00", "none": "#8A8A8A"}
MARKERS = {"measures": "o", "ignores": "s", "none": "."}
CLAIMS = {"measures": "must feel", "ignores": "should ignore", "none": "no claim"}
TINTS = {"measures": "#E8F1F8", "ignores": "#FBEFE6"}
LIGHT, DIM = "#E4E4E4", "#666666"

# A claimed move this many times smaller than its row's range is drawn on a scale of its own.
ZOOM = 6.0
WIDTH, HEIGHT = 1.72, 1.32  # of a panel with its margins, inches
LEFT, RIGHT, TOP, BOTTOM = 1.35, 0.12, 0.92, 1.08  # around all panels, inches


def save_figure(record: Mapping[str, Any], path: Path) -> None:
    """Draw a validation's record into a PNG, PDF or SVG, by the path's suffix.

    Raises StorageError when the file cannot be written.
    """
    drawing.save_drawing(lambda: figure(record), path, dpi=200)


def figure(record: Mapping[str, Any]) -> Figure:
    """Draw a validation's record: value against level, one panel for each metric and control."""
    cells = {(c.metric, c.control): c for c in cells_of(record)}
    metrics = dict.fromkeys(metric for (metric, _), cell in cells.items() if cell.points)
    controls = record["controls"]
    n_rows, n_columns = max(1, len(metrics)), len(controls)
    width = max(LEFT + n_columns * WIDTH + RIGHT, 6.4)
    height = TOP + n_rows * HEIGHT + BOTTOM
    shape, margins = (n_rows, n_columns), (LEFT, width - LEFT - n_columns * WIDTH, TOP, BOTTOM)
    plot, grid = drawing.panel_grid((width, height), shape, margins, wspace=0.2, hspace=0.3)
    for row, metric in enumerate(metrics):
        own = [cells[metric, c["name"]] for c in controls]
        limits = _limits(own)
        for column, (control, cell) in enumerate(zip(controls, own, strict=True)):
            axes = plot.add_subplot(grid[row, column])
            _panel(axes, cell, limits, first=column == 0)
            if row == 0:
                axes.set_title(control["name"], fontsize=9, fontweight="bold", pad=7)
            axes.set_xticks(range(len(control["levels"])))
            if row < n_rows - 1:
                axes.set_xticklabels([])
                continue
            axes.set_xticklabels([f"{v:g}" for v in control["levels"]], fontsize=6.5)
            unit = textwrap.fill(control["unit"], 22)
            axes.set_xlabel(unit, fontsize=6.5, color=drawing.GREY, labelpad=3)
        place = grid[row, 0].get_position(plot)
        _row_head(plot, (place.y0 + place.y1) / 2 * height, own[0])
    _head(plot, record)
    return plot


def _reach(cell: ClaimTest) -> tuple[float, float]:
    """Return the lowest and highest number that a panel shows."""
    base = cell.points[0].value
    shown = [point.value for point in cell.points]
    for point in cell.points:
        shown += [base + e for e in (point.change_low, point.change_high) if e is not None]
    return min(shown), max(shown)


def _limits(cells: Sequence[ClaimTest]) -> tuple[float, float]:
    """Return one range for all of a metric's panels, so that moves can be compared."""
    lows, highs = zip(*(_reach(c) for c in cells if c.points), strict=True)
    return _padded(min(lows), max(highs))


def _padded(low: float, high: float) -> tuple[float, float]:
    room = (high - low) or max(abs(high), 1.0) * 0.1
    return low - 0.08 * room, high + 0.34 * room  # the verdict stands above the line


def _panel(axes: Axes, cell: ClaimTest, limits: tuple[float, float], *, first: bool) -> None:
    drawing.open_frame(axes)
    axes.tick_params(labelsize=6.5, pad=1.5)
    if cell.verdict in FAILED:
        axes.set_facecolor(TINTS[cell.claim])
        axes.spines[:].set_visible(True)
        axes.spines[:].set(color=drawing.INK, linewidth=1.3)
    if not cell.points:
        axes.set_ylim(*limits)
        axes.set_xlim(-0.35, 0.35)
        axes.set_yticks([])
        _note(axes, (0.5, 0.5), "no value", ha="center", va="center", color=drawing.FAINT)
        return
    low, high = _reach(cell)
    zoomed = cell.claim == "measures" and 0 < (high - low) * ZOOM < limits[1] - limits[0]
    axes.set_ylim(*(_padded(low, high) if zoomed else limits))
    axes.locator_params(axis="y", nbins=4)
    if not first and not zoomed:
        axes.set_yticklabels([])
    _curve(axes, cell)
    if zoomed:
        colour = COLOURS[cell.claim]
        axes.tick_params(axis="y", labelcolor=colour, color=colour)
        bottom, top = axes.get_ylim()
        words = f"scale ×{(limits[1] - limits[0]) / (top - bottom):.0f}"
        _note(axes, (0.985, 0.03), words, ha="right", va="bottom", fontsize=6, color=colour)
    _verdict(axes, cell)


def _curve(axes: Axes, cell: ClaimTest) -> None:
    """Draw a cell's values with their band, and the range or line that it is judged by."""
    colour, points = COLOURS[cell.claim], cell.points
    at = range(len(points))
    base = points[0].value
    axes.set_xlim(-0.35, len(points) - 0.65)
    if cell.claim == "ignores" and cell.scale:
        room = HARDLY * cell.scale
        axes.axhspan(base - room, base + room, color=LIGHT, lw=0, zorder=0)
    axes.axhline(base, color=drawing.FAINT, lw=0.6, ls=(0, (4, 3)), zorder=1)
    if cell.direction == "zero" and cell.claim == "measures":
        axes.plot(at, [p.level for p in points], color=drawing.INK, lw=0.7, ls=":", zorder=2)
    if all(p.change_low is not None for p in points):
        lower = [base + (p.change_low or 0.0) for p in points]
        upper = [base + (p.change_high or 0.0) for p in points]
        axes.fill_between(at, lower, upper, color=colour, alpha=0.24, lw=0, zorder=3)
    style = _line_style(cell.claim) | {"ms": 3.4, "zorder": 4, "clip_on": False}
    axes.plot(at, [p.value for p in points], **style)


def _line_style(claim: str) -> dict[str, Any]:
    colour, marker = COLOURS[claim], MARKERS[claim]
    return {"color": colour, "lw": 1.4, "marker": marker, "mec": "white", "mew": 0.5}


def _note(axes: Axes, place: tuple[float, float], words: str, **style: Any) -> None:
    """Write words at a place in shares of a panel."""
    axes.text(*place, words, transform=axes.transAxes, **style)


def _verdict(axes: Axes, cell: ClaimTest) -> None:
    """Write the verdict and the change at the strongest level above the line."""
    failed = cell.verdict in FAILED
    if words := verdict_words(cell):
        box = {"boxstyle": "round,pad=0.22,rounding_size=0.25", "lw": 0}
        box |= {"fc": drawing.INK, "alpha": 1.0} if failed else {"fc": "white", "alpha": 0.75}
        weight, colour = ("bold", "white") if failed else ("normal", drawing.INK)
        style = {"fontsize": 7, "fontweight": weight, "color": colour, "bbox": box}
        _note(axes, (0.03, 0.965), words, ha="left", va="top", zorder=6, **style)
    change = change_words(cell).replace("-", "−")
    colour = DIM if cell.claim == "none" else COLOURS[cell.claim]
    style = {"fontsize": 6.5, "color": colour}
    _note(axes, (0.985, 0.965), change, ha="right", va="top", zorder=6, **style)


def _row_head(plot: Figure, y: float, cell: ClaimTest) -> None:
    """Write metric, direction and network to the left of a row, whose middle is at *y* inches."""
    name = f"{cell.label}{ARROWS[cell.direction]}"
    drawing.write_text(plot, (0.12, y + 0.13), name, fontsize=9.5, fontweight="bold", va="center")
    better = {"lower": "lower is better", "higher": "higher is better", "zero": "0 is in step"}
    below = f"{better[cell.direction]}\n{cell.network}"
    style = {"fontsize": 6, "color": DIM, "linespacing": 1.45}
    drawing.write_text(plot, (0.12, y - 0.1), below, va="center", **style)


def _head(plot: Figure, record: Mapping[str, Any]) -> None:
    """Write title, key and small print."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    width, height = plot.get_size_inches()
    title = "What each metric feels, and what it claims"
    drawing.write_text(plot, (0.12, -0.2), title, fontsize=12, fontweight="bold", va="center")
    protocol = record["protocol"]
    below = (
        f"{protocol['name']} ({protocol['setting']}), profile {record['profile']}: "
        "real clips, spoilt step by step"
    )
    drawing.write_text(plot, (0.12, -0.43), below, fontsize=8, color=drawing.GREY, va="center")
    keys: list[Any] = [
        Line2D([], [], ms=4, label=words, **_line_style(claim)) for claim, words in CLAIMS.items()
    ]
    share = f"±{100 * HARDLY:.0f} % of the largest claimed move"
    keys.append(Patch(fc=LIGHT, lw=0, label=share))
    look: dict[str, Any] = {"ncols": 4, "frameon": False, "fontsize": 7, "borderpad": 0}
    look |= {"handlelength": 1.8, "columnspacing": 1.4}
    anchor = (1 - 0.1 / width, 1 - 0.06 / height)
    plot.legend(handles=keys, loc="upper right", bbox_to_anchor=anchor, **look)
    small = (
        "Line: value (mean over emotions). Band: 95 % interval of the change from undamaged, "
        "paired over clips. Number: change at the strongest level; ▾ worse, ▴ better, beyond "
        "noise. Dotted: the level itself. Rows share one scale unless a panel says otherwise. "
        "Framed, on a tint: the claim does not hold. Signatures are in the record."
    )
    filled = textwrap.fill(small, int(width * 17.5))
    style = {"fontsize": 6.5, "color": DIM, "linespacing": 1.4}
    drawing.write_text(plot, (0.12, 0.1), filled, va="bottom", **style)
