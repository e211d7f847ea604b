"""Landmark distance between output and source, as the field computes it (M-LMD, F-LMD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import METRIC_KINDS, MetricCard
from spfem_bench.faces.landmarks import in_eye_frame, scheme_of
from spfem_bench.statistics.base import ItemFeatures
from spfem_bench.statistics.landmarks import ClipLandmarks, PairedLandmarksKind, lags_note

FRAME = 256
"""Height in pixels of the frames that distances in pixels are given for."""


@dataclass(frozen=True)
class DistancePart:
    """One item's mean distance, in the metric's unit, and the lag of the output in frames."""

    distance: float
    lag: int
    n_frames: int


@METRIC_KINDS.register("landmark-distance")
class LandmarkDistanceKind(PairedLandmarksKind[DistancePart]):
    """Mean distance of corresponding landmarks, after both means are shifted to one place.

    Attributes:
        points: those of the ``mouth``, or of the whole ``face``.
        unit: ``eye-distance``: percent of the distance of the outer eye corners, faces upright and
            of one size; ``pixels``: as they lie in frames of a height of 256 pixels.
    """

    part_type: ClassVar[type[Any]] = DistancePart

    kind: Literal["landmark-distance"]
    points: Literal["mouth", "face"]
    unit: Literal["eye-distance", "pixels"]

    def part(self, card: MetricCard, clip: Clip, features: ItemFeatures) -> DistancePart:
        """Compare the landmarks of both clips, in step."""
        pair = self.pair(card, clip, features)
        x, y = (self._centred(one) for one in (pair.source, pair.output))
        apart = np.linalg.norm(y - x, axis=2).mean()
        return DistancePart(float(apart), pair.lag, pair.n_frames)

    def _centred(self, clip: ClipLandmarks) -> Any:
        points = clip.points
        if self.unit == "eye-distance":
            placed = 100 * in_eye_frame(points)
        else:
            placed = points * FRAME / clip.height
        if self.points == "mouth":
            placed = placed[:, list(scheme_of(points).mouth)]
        return placed - placed.mean(axis=1, keepdims=True)

    def value(self, part: DistancePart) -> float:
        """Return one clip's mean distance."""
        return part.distance

    def note(self, groups: Sequence[Sequence[DistancePart]], *, same_clips: bool) -> str:
        """Return the lags that were taken, and what the distance of mouths cannot tell."""
        warning = "a frozen mouth can score as well as a speaking one: read lip-corr beside it"
        lags = lags_note([part.lag for parts in groups for part in parts])
        return "; ".join(text for text in (warning if self.points == "mouth" else "", lags) if text)
