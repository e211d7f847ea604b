"""Confidence intervals over items."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

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


def pseudo_values(whole: float, without: npt.ArrayLike) -> Float64:
    """Return one number for each clip, whose mean is a score that is no mean of clips.

    A score ``f`` of ``n`` clips and its values ``f_i`` with clip ``i`` left out give
    ``f + (n - 1) (mean(f_i) - f_i)``: Tukey's pseudo-values, moved so that their mean is ``f``
    itself (the jackknife's correction of bias is not wanted: tables print ``f``). Of a mean of
    clips they are the clips' values.

    Args:
        whole: the score of all clips.
        without: (n,) the score of all but one, for each.

    >>> pseudo_values(2.0, [2.5, 2.0, 1.5]).tolist()  # of the mean of 1, 2 and 3
    [1.0, 2.0, 3.0]

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 11.
    """
    left: Float64 = np.asarray(without, np.float64)
    values: Float64 = whole + (len(left) - 1) * (left.mean() - left)
    return values
