"""Whether the output blinks as often as the source (blink-rate)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import METRIC_KINDS, MetricCard
from spfem_bench.faces.landmarks import eye_opening
from spfem_bench.media.video import FRAME_RATE
from spfem_bench.statistics.base import ItemFeatures
from spfem_bench.statistics.landmarks import PairedLandmarksKind

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BlinkPart:
    """One item's blinks in the frames that show the same moments; *lag* of the output."""

    blinks_output: int
    blinks_source: int
    lag: int
    n_frames: int


@METRIC_KINDS.register("blink-rate")
class BlinkRateKind(PairedLandmarksKind[BlinkPart]):
    """How much the number of blinks differs from the source's, per minute.

    Attributes:
        closed: eyes are closed below this part of the clip's median opening.
        longest: frames of the longest blink; eyes that stay closed longer do not blink.
    """

    part_type: ClassVar[type[Any]] = BlinkPart

    kind: Literal["blink-rate"]
    closed: float = pydantic.Field(default=0.6, gt=0, lt=1)
    longest: int = pydantic.Field(default=12, gt=0)

    def part(self, card: MetricCard, clip: Clip, features: ItemFeatures) -> BlinkPart:
        """Count the blinks of both clips."""
        pair = self.pair(card, clip, features)
        output, source = (
            blinks(eye_opening(one.points), one.frames, self.closed, self.longest)
            for one in (pair.output, pair.source)
        )
        return BlinkPart(output, source, pair.lag, pair.n_frames)

    def value(self, part: BlinkPart) -> float:
        """Return the difference of blinks per minute, without its sign."""
        minutes = part.n_frames / FRAME_RATE / 60
        return abs(part.blinks_output - part.blinks_source) / minutes


def blinks(opening: _Floats, frames: npt.NDArray[np.int64], closed: float, longest: int) -> int:
    """Return how often eyes close and open again: runs of frames below a part of the median.

    Args:
        opening: (N,), the eyes' aspect ratio.
        frames: (N,), increasing; a gap ends a run, which then counts.
        closed: that part.
        longest: frames of the longest run that counts.
    """
    below = np.flatnonzero(opening < closed * np.median(opening))
    if not len(below):
        return 0
    breaks = np.flatnonzero(np.diff(frames[below]) != 1) + 1
    return sum(len(run) <= longest for run in np.split(below, breaks))
