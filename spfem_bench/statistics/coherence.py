"""Coherent correlation of a clip with its source (SCC, TCC), from what was kept of its maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

Space = Literal["spatial", "temporal"]

NAMES: dict[Space, str] = {"spatial": "scc", "temporal": "tcc"}


@dataclass(frozen=True)
class CoherenceComponents:
    """One item's coherence.

    Attributes:
        positive: of each stage, mean cosine of corresponding disparities.
        elsewhere: of each stage, mean cosine with the disparities of other regions.
        near: of each stage, mean cosine with the other neighbours of the same region, in time
            with its other moments; None where there are none.
        n_frames: frames of the output that count; in time, pairs of adjacent ones.
        lag: frames by which the output was found to be out of step.
    """

    positive: tuple[float, ...]
    elsewhere: tuple[float, ...]
    near: tuple[float | None, ...]
    n_frames: int
    lag: int


def components(
    arrays: Mapping[str, npt.NDArray[np.generic]], space: Space, stages: Sequence[int]
) -> CoherenceComponents:
    """Take one item's components out of a stored comparison.

    Args:
        arrays: as `spfem_bench.features.comparisons.Comparison.arrays` makes them, with ``lag``.
        space: ``spatial`` or ``temporal``.
        stages: those that count, from 1.

    Raises:
        ValueError: in time, no two adjacent frames; or no such stage.
    """
    name = NAMES[space]
    missing = [stage for stage in stages if f"scc{stage}.frames" not in arrays]
    if missing:
        raise ValueError(f"the network has no stage {missing[0]}")
    if f"{name}{stages[0]}.frames" not in arrays:
        raise ValueError("no two adjacent frames with a face: nothing to be seen in time")
    rows = [np.asarray(arrays[f"{name}{stage}.frames"], np.float64) for stage in stages]
    near = [r[np.isfinite(r[:, 2]), 2] for r in rows]
    return CoherenceComponents(
        positive=tuple(float(r[:, 0].mean()) for r in rows),
        elsewhere=tuple(float(r[:, 1].mean()) for r in rows),
        near=tuple(float(values.mean()) if len(values) else None for values in near),
        n_frames=len(rows[0]),
        lag=int(np.asarray(arrays["lag"])),
    )


def value(part: CoherenceComponents) -> float:
    """Return one item's mean over stages, as equation 7 of ASCCL has all layers alike."""
    return float(np.mean(part.positive))


def score(parts: Sequence[CoherenceComponents]) -> float:
    """Return the mean over items of each item's mean over stages: items weigh the same.

    >>> one = CoherenceComponents((0.25, 0.75), (0.0, 0.0), (None, None), 3, 0)
    >>> two = CoherenceComponents((1.0, 1.0), (0.0, 0.0), (0.5, 0.5), 9, 0)
    >>> score([one, two])
    0.75

    Raises:
        ValueError: no items.
    """
    if not parts:
        raise ValueError("a mean of no items")
    return float(np.mean([value(part) for part in parts]))
