"""Where on the face the correlation with the source breaks, drawn over it; scores as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spfem_bench.reporting.drawing import INK, save_drawing
from spfem_bench.statistics.coherence import NAMES, CoherencePart, CoherenceSpace, coherence_part
from spfem_bench.texts import csv_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Arrays = Mapping[str, npt.NDArray[np.generic]]
Floats = npt.NDArray[np.float64]

SIZE = 112
"""Side in pixels of the crops."""

LABELS: dict[CoherenceSpace, str] = {"spatial": "SCC", "temporal": "TCC"}
COLOURS: dict[CoherenceSpace, str] = {"spatial": "#0072B2", "temporal": "#D55E00"}


@dataclass(frozen=True)
class Scored:
    """One clip compared with its source.

    Attributes:
        name: the clip's.
        arrays: as `spfem_bench.features.pair_extract.PairExtractor.load` returns them.
        stages: the network's, from 1.
    """

    name: str
    arrays: Arrays
    stages: tuple[int, ...]

    def parts(self, space: CoherenceSpace) -> CoherencePart | None:
        """Return the clip's components; None in time when there is a single frame."""
        try:
            return coherence_part(self.arrays, space, self.stages)
        except ValueError:
            return None


# ---- text ---------------------------------------------------------------------------------


def clip_rows(scored: Sequence[Scored]) -> Iterator[dict[str, Any]]:
    """Yield for each clip and space its mean, then each stage: what a CSV holds."""
    for one in scored:
        for space in NAMES:
            part = one.parts(space)
            if part is None:
                continue
            common = {
                "clip": one.name,
                "metric": NAMES[space],
                "lag": part.lag,
                "frames": part.n_frames,
            }
            yield {
                **common,
                "stage": "mean",
                "positive": part.value,
                "elsewhere": float(np.mean(part.elsewhere)),
                "near": "",
            }
            for i, stage in enumerate(one.stages):
                near = part.near[i]
                yield {
                    **common,
                    "stage": stage,
                    "positive": part.positive[i],
                    "elsewhere": part.elsewhere[i],
                    "near": "" if near is None else near,
                }


def region_rows(scored: Sequence[Scored]) -> Iterator[dict[str, Any]]:
    """Yield every region of every clip: where it is, its coherence, and how much there is."""
    for one in scored:
        for space, name in NAMES.items():
            for stage in one.stages:
                if f"{name}{stage}.positive" not in one.arrays:
                    continue
                positive, size = (
                    np.asarray(one.arrays[f"{name}{stage}.{what}"], np.float64)
                    for what in ("positive", "size")
                )
                border, height, width = _layout(space, positive)
                for (row, column), cosine in np.ndenumerate(positive):
                    yield {
                        "clip": one.name,
                        "metric": name,
                        "stage": stage,
                        "row": row,
                        "column": column,
                        "x": round((column + border + 0.5) * SIZE / width, 2),
                        "y": round((row + border + 0.5) * SIZE / height, 2),
                        "positive": float(cosine),
                        "size": float(size[row, column]),
                    }


def to_csv(rows: Iterator[dict[str, Any]]) -> str:
    """Return rows as CSV with a header; empty when there are none."""
    found = list(rows)
    return csv_text([list(found[0]), *([*row.values()] for row in found)]) if found else ""


def table(scored: Sequence[Scored]) -> str:
    """Return one line for each clip, and their mean."""
    from tabulate import tabulate

    lines: list[list[str]] = []
    every: dict[CoherenceSpace, list[float]] = {space: [] for space in NAMES}
    for one in scored:
        parts = {space: one.parts(space) for space in NAMES}
        line = [one.name]
        for space, part in parts.items():
            if part is not None:
                every[space].append(part.value)
            line.append("–" if part is None else f"{part.value:.3f}")
        spatial = parts["spatial"]
        line += [f"{spatial.lag:+d}", str(spatial.n_frames)] if spatial else ["–", "0"]
        lines.append(line)
    if len(lines) > 1:
        means = [f"{np.mean(v):.3f}" if v else "–" for v in every.values()]
        lines.append([f"mean of {len(scored)}", *means, "", ""])
    return tabulate(
        lines,
        ["Clip", "SCC↑", "TCC↑", "Lag", "Frames"],
        disable_numparse=True,
        colalign=("left", *("right",) * 4),
    )


# ---- heat-maps ----------------------------------------------------------------------------


def breaks(arrays: Arrays, space: CoherenceSpace, stages: Sequence[int]) -> Floats:
    """Return where the correlation breaks, over the crop: float64 (112, 112), 0 to 2.

    ``1 - cosine`` for each region, times how much there is to be correlated: the length of
    the source's disparity there, in parts of what all but 5 % of regions have, at most 1.
    Without that a flat background, in which nothing differs or moves, would seem worst. Stages
    are averaged.
    """
    total = np.zeros((SIZE, SIZE))
    for stage in stages:
        positive, size = (
            np.asarray(arrays[f"{NAMES[space]}{stage}.{what}"], np.float64)
            for what in ("positive", "size")
        )
        scale = np.quantile(size, 0.95)
        share = np.clip(size / scale, 0, 1) if scale > 0 else np.zeros_like(size)
        total += _spread(share * (1 - positive), _layout(space, positive))
    return total / len(stages)


def _layout(space: CoherenceSpace, positive: npt.NDArray[Any]) -> tuple[int, int, int]:
    """Return the border without values, and the whole map's height and width."""
    border = 1 if space == "spatial" else 0
    return border, positive.shape[0] + 2 * border, positive.shape[1] + 2 * border


def _spread(values: Floats, layout: tuple[int, int, int]) -> Floats:
    """Spread a map over the crop, smoothly; its border, of which nothing is known, is 0."""
    from spfem_bench.faces.crop import opencv

    cv2 = opencv()
    border = layout[0]
    whole = np.pad(values, border)
    return np.asarray(cv2.resize(whole, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR), np.float64)


def save_heatmap(
    scored: Scored,
    source: npt.NDArray[np.uint8],
    generated: npt.NDArray[np.uint8],
    path: Path,
) -> None:
    """Draw one clip's breaks over its face, and its coherence over time, as PNG.

    Args:
        scored: what was found.
        source: uint8 (N, 112, 112, 3), the source's crops in step.
        generated: the output's.
        path: of the picture.

    Raises:
        StorageError: the file cannot be written.
    """
    save_drawing(lambda: figure(scored, source, generated), path, dpi=130)


def worst_frame(scored: Scored) -> int:
    """Return the row that is least like its source: in time, else in space."""
    name = "tcc" if f"tcc{scored.stages[0]}.frames" in scored.arrays else "scc"
    return int(_over_time(scored, name).argmin())


def _over_time(scored: Scored, name: str) -> Floats:
    rows = [np.asarray(scored.arrays[f"{name}{s}.frames"], np.float64)[:, 0] for s in scored.stages]
    return np.asarray(np.mean(rows, axis=0))


def figure(
    scored: Scored, source: npt.NDArray[np.uint8], generated: npt.NDArray[np.uint8]
) -> Figure:
    """Draw the source, the output, the breaks in space and in time, and both over time."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    row = worst_frame(scored)
    spaces = [space for space in NAMES if scored.parts(space) is not None]
    columns = 2 + len(spaces)
    width = 0.2 + 1.75 * columns + 0.5
    drawing = Figure(figsize=(width, 3.5), facecolor="white")
    grid = drawing.add_gridspec(
        2,
        columns,
        height_ratios=(1.65, 0.8),
        left=0.38 / width,
        right=1 - 0.62 / width,
        top=0.82,
        bottom=0.12,
        wspace=0.06,
        hspace=0.16,
    )
    frame = int(np.asarray(scored.arrays["frames"])[row]) if "frames" in scored.arrays else row
    _face(drawing.add_subplot(grid[0, 0]), source[row], f"source, frame {frame}")
    _face(drawing.add_subplot(grid[0, 1]), generated[row], "output, same moment")
    colours = colormaps["inferno"]
    axes = None
    for column, space in enumerate(spaces, start=2):
        axes = drawing.add_subplot(grid[0, column])
        where = "in space" if space == "spatial" else "in time"
        part = scored.parts(space)
        mean = part.value if part else float("nan")
        _face(axes, generated[row], f"breaks {where}: {LABELS[space]} {mean:.3f}", grey=True)
        heat = np.clip(breaks(scored.arrays, space, scored.stages), 0, 1)
        axes.imshow(
            colours(heat),
            alpha=np.clip(heat * 2.2, 0, 0.9),
            interpolation="bilinear",
            extent=(-0.5, SIZE - 0.5, SIZE - 0.5, -0.5),
        )
    if axes is not None:
        place = axes.get_position()
        bar = drawing.add_axes((place.x1 + 0.01, place.y0, 0.012, place.height))
        drawing.colorbar(ScalarMappable(Normalize(0, 1), colours), cax=bar)
        bar.tick_params(labelsize=6)
    time = drawing.add_subplot(grid[1, :])
    for space in spaces:
        curve = _over_time(scored, NAMES[space])
        shift = 0.0 if space == "spatial" else 0.5  # between two frames
        time.plot(
            (np.arange(len(curve)) + shift) / 25,
            curve,
            color=COLOURS[space],
            linewidth=1.1,
            linestyle="-" if space == "spatial" else "--",
            label=LABELS[space],
        )
    time.axvline(row / 25, color="#9A9A9A", linewidth=0.7)
    time.axhline(0, color=INK, linewidth=0.5)
    time.set_ylim(min(-0.05, time.get_ylim()[0]), 1.03)
    time.set_xlim(0, max(len(source) / 25, 0.04))
    time.set_xlabel("seconds", fontsize=6.5, labelpad=1)
    time.tick_params(labelsize=6)
    time.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=7)
    for side in ("top", "right"):
        time.spines[side].set_visible(False)
    lag = int(np.asarray(scored.arrays["lag"]))
    drawing.text(
        0.38 / width, 0.955, scored.name, fontsize=9, fontweight="bold", va="center", color=INK
    )
    drawing.text(
        1 - 0.62 / width,
        0.955,
        f"lag {lag:+d} frames, {len(source)} frames",
        fontsize=7,
        va="center",
        ha="right",
        color="#555555",
    )
    return drawing


def _face(axes: Axes, picture: npt.NDArray[np.uint8], title: str, *, grey: bool = False) -> None:
    if grey:
        light = picture.astype(np.float64).mean(axis=2)
        picture = np.repeat(light[:, :, None], 3, axis=2).astype(np.uint8)
    axes.imshow(picture, interpolation="bilinear")
    axes.set_title(title, fontsize=7, pad=3)
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
