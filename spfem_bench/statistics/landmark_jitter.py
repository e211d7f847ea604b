"""How restless a face is from frame to frame (jitter)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import METRIC_KINDS, MetricCard
from spfem_bench.errors import ClipError
from spfem_bench.faces.landmarks import eye_distance, rigid
from spfem_bench.statistics.base import ItemFeatures
from spfem_bench.statistics.landmarks import LandmarksKind, clip_landmarks


@dataclass(frozen=True)
class JitterPart:
    """One item's mean second difference, in percent of the eye distance."""

    jitter: float
    n_frames: int


@METRIC_KINDS.register("landmark-jitter")
class LandmarkJitterKind(LandmarksKind[JitterPart]):
    """Mean length of the second difference in time of points that no expression moves far.

    A head that moves evenly has none: what counts is change of motion from one frame to the next.
    """

    part_type: ClassVar[type[Any]] = JitterPart
    n_clips: ClassVar[int] = 1

    kind: Literal["landmark-jitter"]

    def part(self, card: MetricCard, clip: Clip, features: ItemFeatures) -> JitterPart:
        """Measure the output."""
        landmarks = clip_landmarks(features["output"][0], self.usable, clip)
        points, frames = rigid(landmarks.points), landmarks.frames
        inner = np.flatnonzero((np.diff(frames)[:-1] == 1) & (np.diff(frames)[1:] == 1)) + 1
        if not len(inner):
            problem = f"{clip}: no three frames in a row with usable landmarks"
            raise ClipError(problem, "Give a longer clip of one face")
        change = points[inner - 1] - 2 * points[inner] + points[inner + 1]
        size = eye_distance(landmarks.points).mean()
        jitter = 100 * np.linalg.norm(change, axis=2).mean() / size
        return JitterPart(float(jitter), len(inner))

    def value(self, part: JitterPart) -> float:
        """Return one clip's jitter."""
        return part.jitter
