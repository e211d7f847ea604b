"""Lip sync from SyncNet's vectors: LSE-D, LSE-C and the offset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import METRIC_KINDS, MetricCard
from spfem_bench.errors import ClipError
from spfem_bench.features.features import Features
from spfem_bench.statistics.base import ItemFeatures, MetricKind, Picture

_Float32 = npt.NDArray[np.float32]
_Float64 = npt.NDArray[np.float64]
_Int64 = npt.NDArray[np.int64]

SyncReport = Literal["distance", "confidence", "offset"]

EPSILON = 1e-6
"""Added to every difference by torch's pairwise_distance, which the field's script uses."""


@dataclass(frozen=True)
class SyncPart:
    """One item's distances; windows without a face in all of their frames are refused.

    Attributes:
        totals: float64 (2 max_shift + 1,), summed distances; shift 0 in the middle.
    """

    totals: _Float64
    windows: int
    windows_refused: int

    @property
    def n_frames(self) -> int:
        """Frames that count: one per window."""
        return self.windows

    @property
    def means(self) -> _Float64:
        """The mean distance at each shift."""
        return np.asarray(self.totals, np.float64) / self.windows

    def value(self, report: SyncReport) -> float:
        """Return the smallest mean distance, the confidence, or the offset in frames.

        The offset is positive when the sound comes earlier than the mouth.
        """
        if report == "distance":
            return float(self.means.min())
        if report == "confidence":
            return float(np.median(self.means) - self.means.min())
        return float(len(self.means) // 2 - self.means.argmin())


@METRIC_KINDS.register("sync")
class SyncKind(MetricKind[SyncPart]):
    """SyncNet distances between mouth and sound at a range of shifts.

    Attributes:
        report: the smallest mean distance (LSE-D), the median minus the
            smallest (LSE-C), or the shift of the smallest (offset, frames).
        max_shift: shifts run from minus to plus this many frames.
        min_windows: a clip with fewer five-frame windows is refused.
    """

    part_type: ClassVar[type[Any]] = SyncPart
    n_clips: ClassVar[int] = 1
    reports: ClassVar[frozenset[str]] = frozenset({"report"})
    picture: ClassVar[Picture] = "shifts"

    kind: Literal["sync"]
    report: SyncReport
    max_shift: int = pydantic.Field(gt=0)
    min_windows: int = pydantic.Field(gt=0)

    def part(self, card: MetricCard, clip: Clip, features: ItemFeatures) -> SyncPart:
        """Sum the distances at every shift."""
        (output,) = features["output"]
        windows = len(output.frames)
        if windows < self.min_windows:
            raise ClipError(
                f"{clip}: too short for {card.label}: {windows} windows of five frames with a face",
                f"The metric's card requires {self.min_windows}; give a longer clip",
            )
        visual, audio = output.outputs["visual"], output.outputs["audio"]
        return sync_part(visual, audio, output.frames, max_shift=self.max_shift)

    def value(self, part: SyncPart) -> float:
        """Return one clip's distance, confidence or offset."""
        return part.value(self.report)

    def by_shift(self, part: SyncPart) -> _Float64:
        """Return the mean distance at each shift."""
        return part.means

    def over_time(self, part: SyncPart, features: Features) -> _Float64:
        """Return each window's distance at the best shift."""
        best = int(part.means.argmin())
        visual, audio = features.outputs["visual"], features.outputs["audio"]
        apart = distances(visual, audio, features.frames, best - len(part.means) // 2)
        if len(apart) != part.windows or not np.isclose(apart.mean(), part.means[best]):
            raise ClipError("the stored features are not those of the run")
        return apart


def sync_part(visual: _Float32, audio: _Float32, frames: _Int64, *, max_shift: int) -> SyncPart:
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
    return SyncPart(totals, len(frames), len(audio) - len(frames))


def _all_distances(visual: _Float32, audio: _Float32, frames: _Int64, shifts: _Int64) -> _Float64:
    """Return :func:`distances` at all shifts, float64 (V, shifts), from one product of matrices.

    ``|v|^2 + |s|^2 - 2 v s`` loses the digits of small differences: those are computed one by one.
    """
    rows = frames[:, None] + shifts
    exists = (rows >= 0) & (rows < len(audio))
    first, last = max(0, int(rows.min())), min(len(audio), int(rows.max()) + 1)
    # One row more, of zeros, for the time before the beginning and after the end.
    sound = np.empty((last - first + 1, audio.shape[1]))
    sound[:-1], sound[-1] = audio[first:last], 0.0
    at = np.where(exists, rows - first, last - first)
    v = visual.astype(np.float64)
    v += EPSILON
    of_v, of_sound = (np.einsum("ij,ij->i", x, x) for x in (v, sound))
    lengths = of_v[:, None] + of_sound[at]
    squares = lengths - 2 * np.take_along_axis(v @ sound.T, at, axis=1)
    for i, j in zip(*np.nonzero(squares < 1e-4 * lengths), strict=True):
        squares[i, j] = ((v[i] - sound[at[i, j]]) ** 2).sum()
    return np.asarray(np.sqrt(squares))


def distances(visual: _Float32, audio: _Float32, frames: _Int64, shift: int) -> _Float64:
    """Return each window's distance between mouth and sound at one shift: float64 (V,).

    Shapes are those of :func:`sync_part`; the sound is taken from *shift* frames later.
    """
    rows = frames + shift
    exists = (rows >= 0) & (rows < len(audio))
    sound = np.where(exists[:, None], audio[np.clip(rows, 0, len(audio) - 1)], 0.0)
    apart = visual.astype(np.float64) - sound + EPSILON
    return np.asarray(np.sqrt((apart**2).sum(axis=1)))
