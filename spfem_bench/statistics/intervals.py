"""Confidence intervals over items."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

SEED = 0
"""Seed of every bootstrap: the same clips give the same interval."""


def bootstrap(
    items: int, statistic: Callable[[Sequence[int]], float], resamples: int, stream: int = 0
) -> npt.NDArray[np.float64]:
    """Return a statistic of items drawn with replacement, once for each resample.

    Items (clips) are drawn whole: frames of one clip are no independent
    observations.

    Args:
        items: number of items, at least one.
        statistic: from sorted indices of drawn items to the value; NaN for a
            draw that it cannot score.
        resamples: number of draws.
        stream: groups that are averaged need draws independent of each other: a
            number of its own for each.

    Returns:
        float64 (resamples,).
    """
    return np.array([statistic(draw.tolist()) for draw in drawn(items, resamples, stream)])


def drawn(items: int, resamples: int, stream: int = 0) -> npt.NDArray[np.int64]:
    """Return what :func:`bootstrap` draws: sorted indices, int64 (resamples, items)."""
    generator = np.random.default_rng([SEED, stream])
    return np.sort(generator.integers(0, items, (resamples, items)), axis=1)


def interval(values: npt.NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Return the 95 % percentile interval, or None twice when no draw could be scored.

    >>> interval(np.arange(1001.0))
    (25.0, 975.0)
    """
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return None, None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
