"""Confidence intervals over items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_Float64 = npt.NDArray[np.float64]

SEED = 0
"""Seed of every bootstrap: the same clips give the same interval."""


BYTES = 1 << 25
"""Of drawn items in memory at once."""


def drawn(items: int, resamples: int, stream: int = 0) -> npt.NDArray[np.int64]:
    """Draw items with replacement, for a bootstrap: sorted indices, int64 (resamples, items).

    Items (clips) are drawn whole, since frames of one clip are not independent. Each group that is
    averaged has a *stream* of its own, so that draws of groups are independent.
    """
    return _draw(np.random.default_rng([SEED, stream]), items, resamples)


def drawn_means(
    values: npt.NDArray[np.float64], resamples: int, stream: int = 0
) -> npt.NDArray[np.float64]:
    """Return the mean of drawn items in each resample, float64 (resamples,); see :func:`drawn`."""
    generator = np.random.default_rng([SEED, stream])
    rows = max(1, BYTES // max(1, values.nbytes))  # generators continue: parts give the same draws
    sizes = [min(rows, resamples - start) for start in range(0, resamples, rows)]
    return np.concatenate(
        [values[_draw(generator, len(values), size)].mean(axis=1) for size in sizes]
    )


def _draw(generator: np.random.Generator, items: int, resamples: int) -> npt.NDArray[np.int64]:
    return np.sort(generator.integers(0, items, (resamples, items)), axis=1)


def interval(values: npt.NDArray[np.float64]) -> tuple[float | None, float | None]:
    """Return the 95 % percentile interval, or None twice when no draw could be scored."""
    values = values[np.isfinite(values)]
    if len(values) == 0:
        return None, None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class Resampled:
    """A score, and its values when its clips are drawn again; ``varies`` with more than one clip.

    Attributes:
        value: NaN when there are too few frames.
        draws: float64 (resamples,); all NaN where clips' contributions cannot be computed.
    """

    value: float
    draws: _Float64
    varies: bool

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The 95 % interval over clips; None twice for a single clip."""
        return interval(self.draws) if self.varies else (None, None)

    def __sub__(self, other: Resampled) -> Resampled:
        """Return the change from another score of the same items, draw by draw."""
        return Resampled(
            self.value - other.value, self.draws - other.draws, self.varies and other.varies
        )

    @classmethod
    def average(cls, scores: Sequence[Resampled]) -> Resampled:
        """Return the plain mean; each draw keeps all groups, as clips are drawn within each."""
        value = sum(s.value for s in scores) / len(scores)
        draws = np.mean([s.draws for s in scores], axis=0)
        return cls(value, draws, any(s.varies for s in scores))


def pseudo_values(whole: float, without: npt.ArrayLike) -> _Float64:
    """Return numbers of the clips whose mean is a score that pools frames, float64 (n,).

    A score ``f`` of ``n`` clips and its values ``f_i`` with clip ``i`` left out (*without*) give
    ``f + (n - 1) (mean(f_i) - f_i)``: Tukey's pseudo-values, moved so that their mean is ``f``
    (tables print ``f``, without the jackknife's correction of bias). Of a mean of clips they are
    the clips' values.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 11.
    """
    left: _Float64 = np.asarray(without, np.float64)
    values: _Float64 = whole + (len(left) - 1) * (left.mean() - left)
    return values
