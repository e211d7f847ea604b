"""The discovery as a table, as CSV, and as the papers' figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spfem_bench.analysis.discovery import SPACES, Measure
from spfem_bench.analysis.discovery import DiscoveryKind as Kind
from spfem_bench.analysis.discovery import DiscoveryRow as Row
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.reporting.drawing import INK, save_drawing
from spfem_bench.texts import csv_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, told apart with any kind of colour vision; hatches tell them apart
# in grey as well.
BARS: dict[Kind, tuple[str, str, str]] = {
    "positive": ("corresponding", "#0072B2", ""),
    "wrong time": ("control: same speaker, wrong time", "#56B4E9", "///"),
    "other speaker": ("control: another speaker", "#E69F00", "\\\\\\"),
    "elsewhere": ("non-corresponding regions", "#4D4D4D", ""),
}

TITLES = {"spatial": "in space (SCC)", "temporal": "in time (TCC)"}


def to_csv(rows: Sequence[Row]) -> str:
    """Return all rows as CSV, with a header; numbers as they are, None as an empty cell."""
    return csv_text([[f.name for f in fields(Row)], *map(astuple, rows)])


def table(rows: Sequence[Row], measure: Measure = "cosine", style: str = "simple") -> str:
    """Return means over emotions: a line for each network, space and stage.

    Args:
        rows: from `spfem_bench.analysis.discovery.discover`.
        measure: ``cosine`` or ``pearson``.
        style: of the package tabulate, such as ``simple`` or ``github``.
    """
    from tabulate import tabulate

    cells: dict[tuple[Any, ...], dict[str, Row]] = {}
    for row in rows:
        if row.measure == measure and row.emotion == AVERAGE:
            cells.setdefault((row.network, row.space, row.stage), {})[row.kind] = row
    lines = []
    networks = list(dict.fromkeys(network for network, _, _ in cells))
    order = sorted(cells, key=lambda k: (networks.index(k[0]), SPACES.index(k[1]), k[2]))
    for network, space, stage in order:
        of = cells[network, space, stage]
        lines.append(
            [network, space, stage]
            + [_number(of.get(k)) for k in ("positive", "elsewhere", "near")]
            + [_number(of.get(k)) for k in ("other speaker", "wrong time")]
            + [_interval(of.get(k)) for k in ("above other speaker", "above wrong time")]
            + [of["positive"].pairs]
        )
    head = [
        "Network",
        "Disparity",
        "Stage",
        "Positive",
        "Negative",
        "Near",
        "Other speaker",
        "Wrong time",
        "Above other speaker",
        "Above wrong time",
        "Pairs",
    ]
    return tabulate(lines, head, tablefmt=style, disable_numparse=True, stralign="right")


def by_emotion(rows: Sequence[Row], measure: Measure = "cosine", style: str = "simple") -> str:
    """Return positive / negative of the last stage for each emotion, as in the papers' figure."""
    from tabulate import tabulate

    last = max(row.stage for row in rows)
    own = [r for r in rows if r.measure == measure and r.stage == last]
    emotions = list(dict.fromkeys(r.emotion for r in own))
    lines: dict[tuple[str, str], dict[str, dict[str, Row]]] = {}
    for row in own:
        lines.setdefault((row.network, row.space), {}).setdefault(row.emotion, {})[row.kind] = row
    return tabulate(
        [
            [network, space]
            + [
                f"{_number(of.get(e, {}).get('positive'))} / "
                f"{_number(of.get(e, {}).get('elsewhere'))}"
                for e in emotions
            ]
            for (network, space), of in lines.items()
        ],
        ["Network", f"Stage {last}", *emotions],
        tablefmt=style,
        disable_numparse=True,
        stralign="right",
    )


def _number(row: Row | None) -> str:
    # A minus zero is no news.
    return "–" if row is None else f"{row.value + 0.0:.3f}".replace("-0.000", "0.000")


def _interval(row: Row | None) -> str:
    if row is None or row.low is None or row.high is None:
        return "–" if row is None else f"{row.value:+.3f}"
    return f"{row.value:+.3f} [{row.low:+.3f}, {row.high:+.3f}]"


def save_figure(
    rows: Sequence[Row], path: Path, *, measure: Measure = "cosine", caption: str = ""
) -> None:
    """Draw the figure into a PNG, PDF or SVG, by the path's suffix.

    Raises:
        StorageError: the file cannot be written.
    """
    save_drawing(lambda: figure(rows, measure, caption), path)


def figure(rows: Sequence[Row], measure: Measure = "cosine", caption: str = "") -> Figure:
    """Draw bars for each emotion: stages across; space and time, untrained and trained, down."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    own = [r for r in rows if r.measure == measure]
    stages = sorted({r.stage for r in own})
    lines = list(dict.fromkeys((r.network, r.space) for r in own))
    emotions = [e for e in dict.fromkeys(r.emotion for r in own) if e != AVERAGE]
    width = 1.06 + len(stages) * max(1.6, 0.42 * (len(emotions) + 1))
    height = 1.15 + 1.75 * len(lines)
    drawing = Figure(figsize=(width, height), facecolor="white")
    grid = drawing.add_gridspec(
        len(lines),
        len(stages),
        wspace=0.09,
        hspace=0.3,
        left=0.78 / width,
        right=1 - 0.08 / width,
        top=1 - 0.82 / height,
        bottom=0.66 / height,
    )
    present = {r.kind for r in own}
    shown = [k for k in BARS if k in present]
    for down, (network, space) in enumerate(lines):
        of = [r for r in own if (r.network, r.space) == (network, space) and r.kind in BARS]
        limits = _limits(of)
        for across, stage in enumerate(stages):
            axes = drawing.add_subplot(grid[down, across])
            _panel(axes, [r for r in of if r.stage == stage], emotions, shown)
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
        Patch(facecolor=BARS[k][1], hatch=BARS[k][2], edgecolor="white", label=BARS[k][0])
        for k in shown
    ]
    drawing.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(0.66 / width, 1 - 0.3 / height),
        ncols=len(handles),
        frameon=False,
        fontsize=7.5,
        handlelength=1.4,
        columnspacing=1.2,
        borderaxespad=0,
    )
    what = "Cosine similarity" if measure == "cosine" else "Pearson correlation"
    drawing.text(
        0.78 / width,
        1 - 0.09 / height,
        f"{what} of local disparities, by emotion",
        fontsize=9.5,
        fontweight="bold",
        va="top",
        color=INK,
    )
    said = "Lines: 95 % intervals over pairs."
    drawing.text(
        0.78 / width, 0.08 / height, f"{caption} {said}".strip(), fontsize=6.5, color="#555555"
    )
    return drawing


def _limits(rows: Sequence[Row]) -> tuple[float, float]:
    low = min([0.0, *(r.value if r.low is None else r.low for r in rows)])
    high = max([0.05, *(r.value if r.high is None else r.high for r in rows)])
    room = 0.06 * (high - low)
    return low - room, high + room


def _panel(axes: Axes, rows: Sequence[Row], emotions: Sequence[str], shown: Sequence[Kind]) -> None:
    """Draw one stage: a group of bars for each emotion, and one for their mean."""
    wide = 0.84 / len(shown)
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.5)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.axhline(0, color=INK, linewidth=0.6)
    groups = [*emotions, AVERAGE]
    # The mean stands apart from what it is the mean of.
    places = [float(i) for i in range(len(emotions))] + [len(emotions) + 0.35]
    for number, kind in enumerate(shown):
        _, colour, hatch = BARS[kind]
        for place, emotion in zip(places, groups, strict=True):
            row = next((r for r in rows if r.kind == kind and r.emotion == emotion), None)
            if row is None:
                continue
            x = place + (number - (len(shown) - 1) / 2) * wide
            axes.bar(
                x, row.value, wide * 0.94, color=colour, hatch=hatch, edgecolor="white", linewidth=0
            )
            if kind == "elsewhere":  # about 0: a bar alone would not be seen
                axes.plot([x], [row.value], "D", color=colour, markersize=1.8)
            if row.low is not None and row.high is not None:
                axes.plot([x, x], [row.low, row.high], color=INK, linewidth=0.7)
    axes.axvline(len(emotions) - 0.33, color="#CCCCCC", linewidth=0.6)
    axes.set_xticks(places)
    names = {AVERAGE: "mean"}
    axes.set_xticklabels(
        [names.get(e, e) for e in groups],
        fontsize=6.5,
        rotation=40,
        ha="right",
        rotation_mode="anchor",
    )
    axes.tick_params(axis="x", length=0, pad=2)
    axes.tick_params(axis="y", labelsize=6.5)
