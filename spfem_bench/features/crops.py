"""Face crops of whole clips, and the lag at which two clips are in step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from spfem_bench.faces import exact

SIZE = 112
"""Side of a crop in pixels."""

MOTION = 28
"""Side in pixels of the small grey pictures in which motion is compared."""

_Floats = npt.NDArray[np.float64]


class Crops(NamedTuple):
    """A clip's face crops, uint8 (N, 112, 112, 3), RGB, and the frames that they show, int64 (N,).

    *n_frames* are all frames; in *n_interpolated* the face was not detected but interpolated.
    """

    pictures: npt.NDArray[np.uint8]
    frames: npt.NDArray[np.int64]
    n_frames: int
    n_interpolated: int = 0


class ClipLag(NamedTuple):
    """The lag: frame t of the generated clip goes with frame ``t + lag`` of the source.

    *curve* is float64 (2 max_lag + 1,), the correlation of motion at each lag from -max_lag on; NaN
    where the two have no motion in common.
    """

    lag: int
    curve: _Floats


def find_lag(source: Crops, generated: Crops, max_lag: int) -> ClipLag:
    """Return the lag between two clips at which motion in their pixels correlates best.

    Motion is the difference of adjacent frames in small grey pictures; see :func:`best_lag`.
    """
    return best_lag(*_motion(source), *_motion(generated), max_lag)


def best_lag(
    moved_x: _Floats,
    at_x: npt.NDArray[np.int64],
    moved_y: _Floats,
    at_y: npt.NDArray[np.int64],
    max_lag: int,
) -> ClipLag:
    """Return the lag at which the motion of a source, x, and a generated clip, y, correlates best.

    Motion is float64 (N, D), between the frames int64 (N,) and the ones after them. Of equal
    correlations the lag nearest to 0 is taken; without motion it is 0.
    """
    lags = range(-max_lag, max_lag + 1)
    curve = np.full(len(lags), np.nan)
    for i, lag in enumerate(lags):
        _, in_x, in_y = np.intersect1d(at_x, at_y + lag, return_indices=True)
        u, v = moved_x[in_x], moved_y[in_y]
        energy = float((u * u).sum()) * float((v * v).sum())
        if energy > 0:
            curve[i] = float((u * v).sum()) / np.sqrt(energy)
    if np.isnan(curve).all():
        return ClipLag(0, curve)
    highest = np.nanmax(curve) - 1e-9  # rounding
    best = [lag for lag, v in zip(lags, curve, strict=True) if v >= highest]
    return ClipLag(min(best, key=abs), curve)


def _motion(crops: Crops) -> tuple[_Floats, npt.NDArray[np.int64]]:
    """Return the change between adjacent frames, (N, 28 * 28), and the first of each two."""
    if len(crops.pictures) < 2:
        return np.zeros((0, MOTION * MOTION)), np.zeros(0, np.int64)
    small = np.stack([exact.shrink(exact.grey(p), MOTION) for p in crops.pictures])
    grey = small.astype(np.float64)
    follows = np.flatnonzero(np.diff(crops.frames) == 1)
    moved = (grey[follows + 1] - grey[follows]).reshape(len(follows), -1)
    return moved, crops.frames[follows]


def in_step(source: Crops, generated: Crops, lag: int) -> npt.NDArray[np.int64]:
    """Return rows of both clips that show the same moment: int64 (N, 2), generated first."""
    moments = (source.frames, generated.frames + lag)
    _, of_source, of_generated = np.intersect1d(*moments, return_indices=True)
    return np.stack([of_generated, of_source], axis=1).astype(np.int64)
