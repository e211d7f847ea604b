"""Cosine similarity between two clips (CSIM, id-sim)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import METRIC_KINDS, MetricCard
from spfem_bench.errors import ClipError
from spfem_bench.statistics.base import ItemFeatures, MetricKind


@dataclass(frozen=True)
class SimilarityPart:
    """One item's similarity.

    Attributes:
        total: sum of cosines (of one cosine, when clip means are compared).
        n_frames: frames of the output that count.
    """

    total: float
    count: int
    n_frames: int

    @property
    def value(self) -> float:
        """The mean cosine."""
        return self.total / self.count


@METRIC_KINDS.register("similarity")
class SimilarityKind(MetricKind[SimilarityPart]):
    """Mean cosine similarity.

    Attributes:
        pooling: ``mean`` compares the clips' mean features; ``frames`` compares
            frame t with frame t and averages, for clips that run in step.
    """

    part_type: ClassVar[type[Any]] = SimilarityPart

    kind: Literal["similarity"]
    pooling: Literal["mean", "frames"]

    def part(self, card: MetricCard, clip: Clip, features: ItemFeatures) -> SimilarityPart:
        """Compare the output with the other clip."""
        output, other = (features[role][0] for role in card.compare)
        a, b = output.outputs[card.output], other.outputs[card.output]
        if self.pooling == "mean":
            mean = cosine(a.mean(axis=0, dtype=np.float64), b.mean(axis=0, dtype=np.float64))
            part = SimilarityPart(float(mean), 1, len(a))
        else:
            _, in_a, in_b = np.intersect1d(output.frames, other.frames, return_indices=True)
            if len(in_a) == 0:
                raise ClipError(f"{clip}: the two clips have no frame with a face in common")
            total = float(cosine(a[in_a], b[in_b]).sum())
            part = SimilarityPart(total, len(in_a), len(in_a))
        if not math.isfinite(part.total):
            raise ClipError(f"{clip}: a feature vector of zeros has no cosine")
        return part

    def value(self, part: SimilarityPart) -> float:
        """Return one clip's mean cosine."""
        return part.value


def cosine(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return cosines between vectors along the last axis, in float64."""
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return np.asarray((x * y).sum(axis=-1) / lengths)
