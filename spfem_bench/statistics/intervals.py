"""Confidence intervals over items."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

RESAMPLES = 1000
SEED = 0


def bootstrap(
    items: int, statistic: Callable[[Sequence[int]], float]
) -> tuple[float | None, float | None]:
    """Return the 95 % percentile bootstrap interval of a statistic of items.

    Items (clips) are drawn with replacement; frames of one clip stay together,
    because they are no independent observations.

    Args:
        items: number of items.
        statistic: from sorted indices of drawn items to the value; may raise
            ValueError for a draw that it cannot score (left out).

    Returns:
        Lower and upper bound, or None twice with fewer than two items: one clip
        says nothing about the spread between clips.
    """
    if items < 2:
        return None, None
    generator = np.random.default_rng(SEED)
    values = []
    for _ in range(RESAMPLES):
        try:
            values.append(statistic(sorted(generator.integers(0, items, items).tolist())))
        except ValueError:
            continue
    if not values:
        return None, None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
