"""Scores of single clips as text, and heat-maps of the regions where the correlation breaks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from spfem_bench.media.video import FRAME_RATE
from spfem_bench.reporting import drawing
from spfem_bench.statistics.coherence import (
    NAMES,
    CoherencePart,
    CoherenceSpace,
    ComparedAs,
    coherence_part,
)
from spfem_bench.texts import csv_text, text_table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_Arrays: TypeAlias = "Mapping[str, npt.NDArray[np.generic]]"
_Floats: TypeAlias = "npt.NDArray[np.float64]"
_Pictures: TypeAlias = "npt.NDArray[np.uint8]"

SIZE = 112  # side of the crops in pixels


@dataclass(frozen=True)
class _Look:
    label: str
    words: str
    colour: str
    line: str
    shift: float  # of the curve, in frames: a disparity in time lies between two frames
    border: int  # regions at each side without a value


_LOOKS: dict[CoherenceSpace, _Look] = {
    "spatial": _Look("SCC", "in space", "#0072B2", "-", 0.0, 1),
    "temporal": _Look("TCC", "in time", "#D55E00", "--", 0.5, 0),
}


@dataclass(frozen=True)
class Scored:
    """One clip compared with its source: arrays as ``coherence_part`` takes them, stages from 1."""

    name: str
    arrays: _Arrays
    stages: tuple[int, ...]

    def parts(self, space: ComparedAs) -> CoherencePart | None:
        """Return the clip's components; None where there are too few frames, or none compared."""
        try:
            return coherence_part(self.arrays, space, self.stages)
        except ValueError:
            return None

    def curve(self, space: CoherenceSpace) -> _Floats:
        """Return the coherence of each frame (in time, of each pair): the mean over stages."""
        rows = [_array(self.arrays, space, stage, "frames")[:, 0] for stage in self.stages]
        return np.asarray(np.mean(rows, axis=0))


def _array(arrays: _Arrays, space: CoherenceSpace, stage: int, kind: str) -> _Floats:
    """Return a stored array of one stage: ``positive``, ``size`` or ``frames``."""
    return np.asarray(arrays[f"{NAMES[space]}{stage}.{kind}"], np.float64)


# ---- text ---------------------------------------------------------------------------------


def clip_rows(scored: Sequence[Scored]) -> Iterator[dict[str, Any]]:
    """Yield for each clip and space a row with its mean, then one for each stage."""
    for one in scored:
        for space, name in NAMES.items():
            if (part := one.parts(space)) is None:
                continue
            clip = {"clip": one.name, "metric": name, "lag": part.lag, "frames": part.n_frames}
            near = ("" if value is None else value for value in part.near)
            numbers: list[tuple[object, ...]] = [
                ("mean", part.value, float(np.mean(part.elsewhere)), ""),
                *zip(one.stages, part.positive, part.elsewhere, near, strict=True),
            ]
            for row in numbers:
                heads = ("stage", "positive", "elsewhere", "near")
                yield clip | dict(zip(heads, row, strict=True))


def region_rows(scored: Sequence[Scored]) -> Iterator[dict[str, Any]]:
    """Yield a row for each region: centre in pixels, coherence, and length of the disparity."""
    for one in scored:
        for space in _LOOKS:
            name = NAMES[space]
            for stage in one.stages:
                if f"{name}{stage}.positive" not in one.arrays:
                    continue
                positive = _array(one.arrays, space, stage, "positive")
                size = _array(one.arrays, space, stage, "size")
                border = _LOOKS[space].border
                height, width = (side + 2 * border for side in positive.shape)
                stage_of = {"clip": one.name, "metric": name, "stage": stage}
                for (row, column), cosine in np.ndenumerate(positive):
                    x = round((column + border + 0.5) * SIZE / width, 2)
                    y = round((row + border + 0.5) * SIZE / height, 2)
                    place = {"row": row, "column": column, "x": x, "y": y}
                    numbers = {"positive": float(cosine), "size": float(size[row, column])}
                    yield stage_of | place | numbers


def to_csv(rows: Iterator[dict[str, Any]]) -> str:
    """Return rows as CSV with a header; empty when there are none."""
    listed = list(rows)
    return csv_text([[*listed[0]], *([*row.values()] for row in listed)]) if listed else ""


def table(scored: Sequence[Scored]) -> str:
    """Return one line for each clip, and their mean."""
    lines: list[list[str]] = []
    every: dict[ComparedAs, list[float]] = {space: [] for space in NAMES}
    for one in scored:
        parts = {space: one.parts(space) for space in NAMES}
        for space, part in parts.items():
            every[space] += [part.value] if part else []
        numbers = ["–" if part is None else f"{part.value:.3f}" for part in parts.values()]
        counts = [f"{int(np.asarray(one.arrays['lag'])):+d}", str(len(one.arrays["rows"]))]
        lines.append([one.name, *numbers, *counts])
    if len(lines) > 1:
        means = [f"{np.mean(v):.3f}" if v else "–" for v in every.values()]
        lines.append([f"mean of {len(scored)}", *means, "", ""])
    heads = ["Clip", "SCC↑", "TCC↑", "SCT↑", "Lag", "Frames"]
    return text_table(lines, heads, "lrrrrr")


# ---- heat-maps ----------------------------------------------------------------------------


def breaks(arrays: _Arrays, space: CoherenceSpace, stages: Sequence[int]) -> _Floats:
    """Return where the correlation breaks, over the crop: float64 (112, 112), 0 to 2.

    The mean over stages of ``1 - cosine`` of each region, weighted by the length of the source's
    disparity (over its 95 % quantile, at most 1): a flat background would seem worst without.
    """
    from spfem_bench.faces.crop import opencv

    cv2 = opencv()
    total = np.zeros((SIZE, SIZE))
    for stage in stages:
        positive, size = (_array(arrays, space, stage, kind) for kind in ("positive", "size"))
        scale = np.quantile(size, 0.95)
        weight = np.clip(size / scale, 0, 1) if scale > 0 else np.zeros_like(size)
        whole = np.pad(weight * (1 - positive), _LOOKS[space].border)
        total += np.asarray(cv2.resize(whole, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR))
    return total / len(stages)


def save_heatmap(scored: Scored, source: _Pictures, generated: _Pictures, path: Path) -> None:
    """Draw one clip's breaks over its face, and its coherence over time, as PNG.

    *source* and *generated* are crops in step, uint8 (N, 112, 112, 3). Raises StorageError when the
    file cannot be written.
    """
    drawing.save_drawing(lambda: figure(scored, source, generated), path, dpi=130)


def figure(scored: Scored, source: _Pictures, generated: _Pictures) -> Figure:
    """Draw the source, the output, the breaks in space and in time, and both over time."""
    spaces = [space for space in _LOOKS if scored.parts(space) is not None]
    row = int(scored.curve(spaces[-1]).argmin())  # the frame least like its source
    columns, height = 2 + len(spaces), 3.5
    size, margins = (0.2 + 1.75 * columns + 0.5, height), (0.38, 0.62, 0.18 * height, 0.12 * height)
    spacing = {"height_ratios": (1.65, 0.8), "wspace": 0.06, "hspace": 0.16}
    plot, grid = drawing.panel_grid(size, (2, columns), margins, **spacing)
    frame = int(np.asarray(scored.arrays["frames"])[row]) if "frames" in scored.arrays else row
    _face(plot.add_subplot(grid[0, 0]), source[row], f"source, frame {frame}")
    _face(plot.add_subplot(grid[0, 1]), generated[row], "output, same moment")
    grey = generated[row].astype(np.float64).mean(axis=2).astype(np.uint8)
    for column, space in enumerate(spaces, start=2):
        _heat(plot.add_subplot(grid[0, column]), scored, space, grey)
    _colour_bar(plot, plot.axes[-1])
    _over_time(plot.add_subplot(grid[1, :]), scored, spaces, row, len(source))
    y = 0.955 * height
    style = {"va": "center", "fontweight": "bold", "color": drawing.INK}
    drawing.write_text(plot, (0.38, y), scored.name, fontsize=9, **style)
    counts = f"lag {int(np.asarray(scored.arrays['lag'])):+d} frames, {len(source)} frames"
    style = {"va": "center", "ha": "right", "color": drawing.GREY}
    drawing.write_text(plot, (-0.62, y), counts, fontsize=7, **style)
    return plot


def _face(axes: Axes, picture: _Pictures, title: str) -> None:
    if picture.ndim == 2:
        picture = np.repeat(picture[:, :, None], 3, axis=2)
    axes.imshow(picture, interpolation="bilinear")
    axes.set_title(title, fontsize=7, pad=3)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _heat(axes: Axes, scored: Scored, space: CoherenceSpace, grey: _Pictures) -> None:
    from matplotlib import colormaps

    look, part = _LOOKS[space], scored.parts(space)
    mean = part.value if part else float("nan")
    _face(axes, grey, f"breaks {look.words}: {look.label} {mean:.3f}")
    heat = np.clip(breaks(scored.arrays, space, scored.stages), 0, 1)
    extent, alpha = (-0.5, SIZE - 0.5, SIZE - 0.5, -0.5), np.clip(heat * 2.2, 0, 0.9)
    colours = colormaps["inferno"](heat)
    axes.imshow(colours, alpha=alpha, interpolation="bilinear", extent=extent)


def _colour_bar(plot: Figure, beside: Axes) -> None:
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    place = beside.get_position()
    bar = plot.add_axes((place.x1 + 0.01, place.y0, 0.012, place.height))
    plot.colorbar(ScalarMappable(Normalize(0, 1), colormaps["inferno"]), cax=bar)
    bar.tick_params(labelsize=6)


def _over_time(
    axes: Axes, scored: Scored, spaces: Sequence[CoherenceSpace], row: int, n_frames: int
) -> None:
    for space in spaces:
        look, curve = _LOOKS[space], scored.curve(space)
        seconds = (np.arange(len(curve)) + look.shift) / FRAME_RATE
        style: dict[str, Any] = {"color": look.colour, "linestyle": look.line, "label": look.label}
        axes.plot(seconds, curve, linewidth=1.1, **style)
    axes.axvline(row / FRAME_RATE, color=drawing.FAINT, linewidth=0.7)
    axes.axhline(0, color=drawing.INK, linewidth=0.5)
    axes.set_ylim(min(-0.05, axes.get_ylim()[0]), 1.03)
    axes.set_xlim(0, max(n_frames / FRAME_RATE, 0.04))
    axes.set_xlabel("seconds", fontsize=6.5, labelpad=1)
    axes.tick_params(labelsize=6)
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7)
    drawing.open_frame(axes)
