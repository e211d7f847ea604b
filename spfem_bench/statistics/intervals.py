"""Confidence intervals over items."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

SEED = 0
"""Seed of every bootstrap: the same clips give the same interval."""


def drawn(items: int, resamples: int, stream: int = 0) -> npt.NDArray[np.int64]:
    """Draw items with replacement, for a bootstrap.

    Items (clips) are drawn whole: frames of one clip are no independent
    observations.

    Args:
        items: number of items, at least one.
        resamples: number of draws.
        stream: groups that are averaged need draws independent of each other: a
            number of its own for each.

    Returns:
        int64 (resamples, items): sorted indices of the items drawn.
    """
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
