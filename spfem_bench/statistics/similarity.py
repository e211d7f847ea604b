"""Cosine similarity between two clips (CSIM, id-sim)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from spfem_bench.features.features import Features


@dataclass(frozen=True)
class SimilarityComponents:
    """One item's similarity.

    Attributes:
        total: sum of cosines (of one cosine, when clip means are compared).
        count: number of cosines summed.
        n_frames: frames of the output that count.
    """

    total: float
    count: int
    n_frames: int


def cosine(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Return cosines between vectors along the last axis, in float64.

    >>> float(cosine(np.array([3.0, 4.0]), np.array([4.0, 3.0])))
    0.96
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    lengths = np.linalg.norm(x, axis=-1) * np.linalg.norm(y, axis=-1)
    return np.asarray((x * y).sum(axis=-1) / lengths)


def components(
    output: Features, other: Features, name: str, *, pooling: Literal["mean", "frames"]
) -> SimilarityComponents:
    """Compare two clips.

    Args:
        output: features of the method's clip.
        other: features of the clip it is compared with.
        name: which of the network's outputs.
        pooling: ``mean`` for the cosine of the clips' mean vectors, ``frames``
            for the mean cosine of frames that both have, in step.

    Raises:
        ValueError: with ``frames``, the clips have no frame in common.
    """
    a, b = output.outputs[name], other.outputs[name]
    if pooling == "mean":
        mean = cosine(a.mean(axis=0, dtype=np.float64), b.mean(axis=0, dtype=np.float64))
        return SimilarityComponents(float(mean), 1, len(a))
    _, in_a, in_b = np.intersect1d(output.frames, other.frames, return_indices=True)
    if len(in_a) == 0:
        raise ValueError("the two clips have no frame with a face in common")
    return SimilarityComponents(float(cosine(a[in_a], b[in_b]).sum()), len(in_a), len(in_a))


def value(part: SimilarityComponents) -> float:
    """Return one item's mean cosine."""
    return part.total / part.count


def score(parts: Sequence[SimilarityComponents]) -> float:
    """Return the mean over items of each item's mean cosine: items weigh the same.

    >>> score([SimilarityComponents(0.5, 1, 9), SimilarityComponents(6.0, 8, 8)])
    0.625

    Raises:
        ValueError: no items.
    """
    if not parts:
        raise ValueError("a mean of no items")
    return float(np.mean([value(p) for p in parts]))
