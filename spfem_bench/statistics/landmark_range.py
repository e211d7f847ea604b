"""Whether the mouth opens as far as the source's (lip-dyn)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pydantic

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import METRIC_KINDS, MetricCard
from spfem_bench.features.features import Features
from spfem_bench.statistics.base import Curves, ItemFeatures, Picture
from spfem_bench.statistics.landmarks import PairedLandmarksKind, moving

STILL = 0.001
"""Least standard deviation of an opening, in eye distances: a constant one has no logarithm."""


@dataclass(frozen=True)
class RangePart:
    """Standard deviations of the lips' opening, in eye distances; the lag of the output."""

    spread_output: float
    spread_source: float
    lag: int
    n_frames: int

    @property
    def ratio(self) -> float:
        """The output's standard deviation as a multiple of the source's."""
        return max(self.spread_output, STILL) / max(self.spread_source, STILL)


@METRIC_KINDS.register("landmark-range")
class LandmarkRangeKind(PairedLandmarksKind[RangePart]):
    """How far the range of the lips' opening is from the source's: |log2| of the ratio.

    Attributes:
        least: a source whose opening has a smaller standard deviation is refused.
    """

    part_type: ClassVar[type[Any]] = RangePart
    picture: ClassVar[Picture] = "curves"

    kind: Literal["landmark-range"]
    least: float = pydantic.Field(gt=0)

    def part(self, card: MetricCard, clip: Clip, features: ItemFeatures) -> RangePart:
        """Measure the openings of both clips, in step."""
        pair = self.pair(card, clip, features)
        source = moving(pair.source.curve("opening"), self.least, clip, "opening")
        output = float(pair.output.curve("opening").std())
        return RangePart(output, source, pair.lag, pair.n_frames)

    def value(self, part: RangePart) -> float:
        """Return one clip's distance from an equal range, in halvings or doublings."""
        return abs(math.log2(part.ratio))

    def note(self, groups: Sequence[Sequence[RangePart]], *, same_clips: bool) -> str:
        """Return the mean ratio, which says whether ranges are too small or too large."""
        logs = [math.log2(part.ratio) for parts in groups for part in parts]
        ratio = 2 ** (sum(logs) / len(logs)) if logs else 1.0
        return f"mouths open {ratio:.2f} times as far as the source's (geometric mean)"

    def curves(self, part: RangePart, output: Features, other: Features) -> Mapping[str, Curves]:
        """Return the lips' opening in both clips at the recorded lag, by a name to print."""
        return self.drawn("opening", part.lag, part.n_frames, output, other)
