"""The discovery as a table, as CSV, and as the papers' figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spfem_bench.analysis.discovery import DiscoveryRow
from spfem_bench.analysis.disparities import SPACES, DiscoveryKind, Measure
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.reporting import drawing
from spfem_bench.texts import csv_text, fixed, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours for any kind of colour vision, and hatches for prints in grey.
BARS: dict[DiscoveryKind, tuple[str, str, str]] = {
    "positive": ("corresponding", "#0072B2", ""),
    "wrong time": ("control: same speaker, wrong time", "#56B4E9", "///"),
    "other speaker": ("control: another speaker", "#E69F00", "\\\\\\"),
    "elsewhere": ("non-corresponding regions", "#4D4D4D", ""),
}

TITLES = {"spatial": "in space (SCC)", "temporal": "in time (TCC)", "moments": "of moments"}

_NUMBERS: dict[DiscoveryKind, str] = {
    "positive": "Positive",
    "elsewhere": "Negative",
    "near": "Near",
    "other speaker": "Other speaker",
    "wrong time": "Wrong time",
}
_INTERVALS: dict[DiscoveryKind, str] = {
    "above other speaker": "Above other speaker",
    "above wrong time": "Above wrong time",
}


def to_csv(rows: Sequence[DiscoveryRow]) -> str:
    """Return all rows as CSV, with a header; numbers as they are, None as an empty cell."""
    return csv_text([[f.name for f in fields(DiscoveryRow)], *map(astuple, rows)])


def table(rows: Sequence[DiscoveryRow], measure: Measure = "cosine", style: str = "simple") -> str:
    """Return means over emotions, a line for each network, space and stage, in tabulate's style."""
    cells: dict[tuple[str, str, int], dict[str, DiscoveryRow]] = {}
    for row in rows:
        if row.measure == measure and row.emotion == AVERAGE:
            cells.setdefault((row.network, row.space, row.stage), {})[row.kind] = row
    networks = list(dict.fromkeys(network for network, _, _ in cells))
    order = sorted(cells, key=lambda k: (networks.index(k[0]), SPACES.index(k[1]), k[2]))
    lines = []
    for key in order:
        numbers = [_number(cells[key].get(kind)) for kind in _NUMBERS]
        intervals = [_interval(cells[key].get(kind)) for kind in _INTERVALS]
        lines.append([*map(str, key), *numbers, *intervals, str(cells[key]["positive"].pairs)])
    heads = ["Network", "Disparity", "Stage", *_NUMBERS.values(), *_INTERVALS.values(), "Pairs"]
    return text_table(lines, heads, "r" * len(heads), style)


def by_emotion(
    rows: Sequence[DiscoveryRow], measure: Measure = "cosine", style: str = "simple"
) -> str:
    """Return positive / negative of the last stage for each emotion, as in the papers' figure."""
    last = max(row.stage for row in rows)
    own = [r for r in rows if r.measure == measure and r.stage == last]
    emotions = list(dict.fromkeys(r.emotion for r in own))
    cells: dict[tuple[str, str], dict[tuple[str, str], DiscoveryRow]] = {}
    for row in own:
        cells.setdefault((row.network, row.space), {})[row.emotion, row.kind] = row
    lines = []
    for key, of in cells.items():
        pairs = [(of.get((e, "positive")), of.get((e, "elsewhere"))) for e in emotions]
        lines.append([*key, *(f"{_number(own)} / {_number(other)}" for own, other in pairs)])
    heads = ["Network", f"Stage {last}", *emotions]
    return text_table(lines, heads, "r" * len(heads), style)


def _number(row: DiscoveryRow | None) -> str:
    # Rounded values just below zero are printed without their sign.
    return "–" if row is None else fixed(row.value)


def _interval(row: DiscoveryRow | None) -> str:
    if row is None or row.low is None or row.high is None:
        return "–" if row is None else f"{row.value:+.3f}"
    return f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"


def save_figure(
    rows: Sequence[DiscoveryRow], path: Path, *, measure: Measure = "cosine", caption: str = ""
) -> None:
    """Draw the figure into a PNG, PDF or SVG, by the path's suffix.

    Raises StorageError when the file cannot be written.
    """
    drawing.save_drawing(lambda: figure(rows, measure, caption), path)


def figure(rows: Sequence[DiscoveryRow], measure: Measure = "cosine", caption: str = "") -> Figure:
    """Draw bars for each emotion: stages across; space and time, untrained and trained, down."""
    from matplotlib.patches import Patch

    own = [r for r in rows if r.measure == measure]
    stages = sorted({r.stage for r in own})
    lines = list(dict.fromkeys((r.network, r.space) for r in own))
    emotions = [e for e in dict.fromkeys(r.emotion for r in own) if e != AVERAGE]
    shown = [kind for kind in BARS if any(r.kind == kind for r in own)]
    width = 1.06 + len(stages) * max(1.6, 0.42 * (len(emotions) + 1))
    height = 1.15 + 1.75 * len(lines)
    shape, margins = (len(lines), len(stages)), (0.78, 0.08, 0.82, 0.66)
    plot, grid = drawing.panel_grid((width, height), shape, margins, wspace=0.09, hspace=0.3)
    for down, (network, space) in enumerate(lines):
        of = [r for r in own if (r.network, r.space) == (network, space) and r.kind in BARS]
        limits = _limits(of)
        for across, stage in enumerate(stages):
            axes = plot.add_subplot(grid[down, across])
            bars = {(r.kind, r.emotion): r for r in of if r.stage == stage}
            _panel(axes, bars, emotions, shown)
            axes.set_ylim(limits)
            if down == 0:
                axes.set_title(f"stage {stage}", fontsize=8.5, fontweight="bold", pad=4)
            if across == 0:
                axes.set_ylabel(f"{network}\n{TITLES[space]}", fontsize=7.5)
            else:
                axes.set_yticklabels([])
            if down < len(lines) - 1:
                axes.set_xticklabels([])
    handles = [
        Patch(facecolor=colour, hatch=hatch, edgecolor="white", label=label)
        for label, colour, hatch in (BARS[kind] for kind in shown)
    ]
    look: dict[str, Any] = {"ncols": len(shown), "frameon": False, "fontsize": 7.5}
    look |= {"handlelength": 1.4, "columnspacing": 1.2, "borderaxespad": 0}
    anchor = (0.66 / width, 1 - 0.3 / height)
    plot.legend(handles=handles, loc="upper left", bbox_to_anchor=anchor, **look)
    name = "Cosine similarity" if measure == "cosine" else "Pearson correlation"
    title = f"{name} of local disparities, by emotion"
    style = {"fontweight": "bold", "color": drawing.INK}
    drawing.write_text(plot, (0.78, -0.09), title, fontsize=9.5, va="top", **style)
    note = f"{caption} Lines: 95 % intervals over pairs.".strip()
    drawing.write_text(plot, (0.78, 0.08), note, fontsize=6.5, color=drawing.GREY)
    return plot


def _limits(rows: Sequence[DiscoveryRow]) -> tuple[float, float]:
    low = min([0.0, *(r.value if r.low is None else r.low for r in rows)])
    high = max([0.05, *(r.value if r.high is None else r.high for r in rows)])
    room = 0.06 * (high - low)
    return low - room, high + room


def _panel(
    axes: Axes,
    bars: Mapping[tuple[DiscoveryKind, str], DiscoveryRow],
    emotions: Sequence[str],
    shown: Sequence[DiscoveryKind],
) -> None:
    """Draw one stage: a group of bars for each emotion, and one for their mean."""
    wide = 0.84 / len(shown)
    axes.grid(axis="y", color=drawing.RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    drawing.open_frame(axes)
    axes.axhline(0, color=drawing.INK, linewidth=0.6)
    # The mean stands apart from the emotions.
    places = {**{e: float(i) for i, e in enumerate(emotions)}, AVERAGE: len(emotions) + 0.35}
    for number, kind in enumerate(shown):
        _, colour, hatch = BARS[kind]
        for emotion, place in places.items():
            if (row := bars.get((kind, emotion))) is None:
                continue
            x = place + (number - (len(shown) - 1) / 2) * wide
            style: dict[str, Any] = {"color": colour, "hatch": hatch, "edgecolor": "white"}
            axes.bar(x, row.value, wide * 0.94, linewidth=0, **style)
            if kind == "elsewhere":  # about 0, too small to see as a bar
                axes.plot([x], [row.value], "D", color=colour, markersize=1.8)
            if row.low is not None and row.high is not None:
                axes.plot([x, x], [row.low, row.high], color=drawing.INK, linewidth=0.7)
    axes.axvline(len(emotions) - 0.33, color="#CCCCCC", linewidth=0.6)
    names = ["mean" if e == AVERAGE else e for e in places]
    rotated: dict[str, Any] = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks([*places.values()], names, fontsize=6.5, **rotated)
    axes.tick_params(axis="x", length=0, pad=2)
    axes.tick_params(axis="y", labelsize=6.5)
