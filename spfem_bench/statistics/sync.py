"""Lip sync from SyncNet's vectors: LSE-D, LSE-C and the offset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

EPSILON = 1e-6
"""Added to every difference by torch's pairwise_distance, which the field's script uses."""


@dataclass(frozen=True)
class SyncComponents:
    """One item's distances.

    Attributes:
        totals: float64 (2 max_shift + 1,), summed distances; shift 0 in the middle.
        windows: windows summed.
        refused: windows without a face in all of their frames.
    """

    totals: npt.NDArray[np.float64]
    windows: int
    refused: int

    @property
    def n_frames(self) -> int:
        """Frames that count: one per window."""
        return self.windows


def components(
    visual: npt.NDArray[np.float32],
    audio: npt.NDArray[np.float32],
    frames: npt.NDArray[np.int64],
    *,
    max_shift: int,
) -> SyncComponents:
    """Sum distances between mouth and sound at every shift.

    As in syncnet_python's ``evaluate``: the sound before the first and after
    the last window is a vector of zeros.

    Args:
        visual: (V, D) vectors of windows that begin with ``frames``.
        audio: (A, D) vectors of all windows from frame 0 on.
        frames: (V,) int, increasing, below A.
        max_shift: shifts run from minus to plus this.
    """
    totals = np.zeros(2 * max_shift + 1)
    shifts = np.arange(-max_shift, max_shift + 1)
    for begin in range(0, len(frames), 1024):  # bounded memory for long clips
        v, at = visual[begin : begin + 1024], frames[begin : begin + 1024]
        totals += _all_distances(v, audio, at, shifts).sum(axis=0)
    return SyncComponents(totals, len(frames), len(audio) - len(frames))


def _all_distances(
    visual: npt.NDArray[np.float32],
    audio: npt.NDArray[np.float32],
    frames: npt.NDArray[np.int64],
    shifts: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Return :func:`distances` at all shifts at once, float64 (V, shifts), in a tenth of the time.

    ``|v - s|^2 = |v|^2 + |s|^2 - 2 v s`` takes the products of all pairs from one matrix product.
    Where little is left of the difference, so would be of its digits: such pairs are measured
    one by one.
    """
    heard = frames[:, None] + shifts
    exists = (heard >= 0) & (heard < len(audio))
    first, last = max(0, int(heard.min())), min(len(audio), int(heard.max()) + 1)
    # One row more, of zeros: what is heard before the beginning and after the end.
    sound = np.empty((last - first + 1, audio.shape[1]))
    sound[:-1], sound[-1] = audio[first:last], 0.0
    at = np.where(exists, heard - first, last - first)
    v = visual.astype(np.float64)
    v += EPSILON
    of_v, of_sound = (np.einsum("ij,ij->i", x, x) for x in (v, sound))
    lengths = of_v[:, None] + of_sound[at]
    squares = lengths - 2 * np.take_along_axis(v @ sound.T, at, axis=1)
    for i, j in zip(*np.nonzero(squares < 1e-4 * lengths), strict=True):
        squares[i, j] = ((v[i] - sound[at[i, j]]) ** 2).sum()
    return np.asarray(np.sqrt(squares))


def distances(
    visual: npt.NDArray[np.float32],
    audio: npt.NDArray[np.float32],
    frames: npt.NDArray[np.int64],
    shift: int,
) -> npt.NDArray[np.float64]:
    """Return each window's distance between mouth and sound at one shift: float64 (V,).

    Args:
        visual: (V, D) vectors of windows that begin with ``frames``.
        audio: (A, D) vectors of all windows from frame 0 on; zeros before and after.
        frames: (V,) int, below A.
        shift: frames by which the sound that is heard lies later.
    """
    heard = frames + shift
    exists = (heard >= 0) & (heard < len(audio))
    sound = np.where(exists[:, None], audio[np.clip(heard, 0, len(audio) - 1)], 0.0)
    apart = visual.astype(np.float64) - sound + EPSILON
    return np.asarray(np.sqrt((apart**2).sum(axis=1)))


def value(part: SyncComponents, report: Literal["distance", "confidence", "offset"]) -> float:
    """Return one clip's smallest mean distance, its confidence, or its offset in frames.

    The offset is positive when the sound comes earlier than the mouth.

    >>> part = SyncComponents(np.array([9.0, 8.0, 4.0]), windows=2, refused=0)
    >>> value(part, "distance"), value(part, "confidence"), value(part, "offset")
    (2.0, 2.0, -1.0)
    """
    means = part.totals / part.windows
    if report == "distance":
        return float(means.min())
    if report == "confidence":
        return float(np.median(means) - means.min())
    return float(len(means) // 2 - means.argmin())


def score(
    parts: Sequence[SyncComponents], report: Literal["distance", "confidence", "offset"]
) -> float:
    """Return the mean over clips of each clip's value: clips weigh the same.

    Raises:
        ValueError: no items.
    """
    if not parts:
        raise ValueError("a mean of no items")
    return float(np.mean([value(p, report) for p in parts]))
