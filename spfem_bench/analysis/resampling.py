"""Bootstrap over speakers, paired between methods: intervals, p-values, clips needed.

Every score here is a mean over emotions of a mean over clips; FAD is one in pseudo-values
(``spfem_bench.statistics.frechet.pseudo_values``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from spfem_bench.statistics.intervals import SEED

_Float64: TypeAlias = "npt.NDArray[np.float64]"

RESAMPLES = 10_000

LEVEL = 0.05
"""Significance level of p-values; the coverage of intervals is one less it."""

BYTES = 1 << 27
"""Of draws in memory at once, as floats; the counts of all stay, in two bytes each."""

POWER = 0.80
"""Share of repetitions in which the clips needed would tell two methods apart."""


class TooFewClustersError(ValueError):
    """Clips of one speaker only: the variation between speakers is unknown."""


@dataclass(frozen=True)
class Estimate:
    """Scores of k columns (methods, metrics), and each cluster's part of their errors.

    Attributes:
        value: float64 (k,).
        parts: float64 (clusters, k); a score's squared standard error is the sum of their squares.
        freedom: degrees of freedom of that error.
    """

    value: _Float64
    parts: _Float64
    freedom: float

    @property
    def clusters(self) -> int:
        """Number of speakers (or clips) that are drawn."""
        return len(self.parts)

    @property
    def error(self) -> _Float64:
        """The standard errors, (k,)."""
        total: _Float64 = (self.parts**2).sum(axis=0)
        return np.sqrt(total)


def estimate(values: npt.ArrayLike, emotions: Sequence[str], clusters: Sequence[str]) -> Estimate:
    """Return the mean over emotions of the mean over clips, with its errors over clusters.

    A cluster's part of the error is the sum over emotions of its clips' deviations from the
    emotion's mean, each divided by the clips, the emotions and ``sqrt(1 - h)``, where ``h`` is the
    cluster's share of the emotion's clips. This is the cluster-robust variance CR2, with Bell and
    McCaffrey's degrees of freedom ``(sum l)^2 / sum l^2``, ``l`` the eigenvalues of the parts'
    covariance for equal clips. *values* are (n,) or (n, k), one row for each clip; *clusters* name
    each clip's speaker, or are n different names, to draw clips.

    Raises:
        TooFewClustersError: an emotion has one cluster only; names it.

    Source: Bell and McCaffrey, Survey Methodology 28 (2002); Imbens and Kolesar, Review of
    Economics and Statistics 98 (2016).
    """
    table = np.asarray(values, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    names, of_emotion = np.unique(np.asarray(emotions), return_inverse=True)
    speakers, of_cluster = np.unique(np.asarray(clusters), return_inverse=True)
    shape = len(speakers), len(names)
    cell = of_cluster * shape[1] + of_emotion
    sums = np.stack([_per_cell(cell, column, shape) for column in table.T], axis=-1)
    counts = _per_cell(cell, np.ones(len(table)), shape)
    clips = counts.sum(axis=0)
    share = counts / clips
    if (lone := np.flatnonzero((share == 1).any(axis=0))).size:
        raise TooFewClustersError(str(names[lone[0]]))
    weight = (share > 0) / clips / len(names) / np.sqrt(1 - share)
    means = sums.sum(axis=0) / clips[:, None]
    parts = (weight[..., None] * (sums - counts[..., None] * means)).sum(axis=1)
    # The covariance of equal clips' parts is diag(own) - a a', which is not built: its trace and
    # its squares are summed up from the two.
    own = (weight**2 * counts).sum(axis=1)
    a = weight * share * np.sqrt(clips)
    shared = (a**2).sum(axis=1)
    squares = (own**2 - 2 * own * shared).sum() + ((a.T @ a) ** 2).sum()
    freedom = float((own - shared).sum() ** 2 / squares)
    # Rounded, because the last bits of a sum would change the draws.
    return Estimate(means.mean(axis=0), parts, round(freedom, 6))


def _per_cell(cell: npt.NDArray[np.intp], values: _Float64, shape: tuple[int, int]) -> _Float64:
    """Return the sum of clips' values by cluster and emotion."""
    return np.asarray(np.bincount(cell, values, shape[0] * shape[1]), np.float64).reshape(shape)


def draws(scores: Estimate, resamples: int = RESAMPLES) -> _Float64:
    """Return the scores of drawn clusters, (resamples, k).

    Clusters are drawn with replacement, as many as there are. The deviation of each draw is divided
    by a draw of ``sqrt(chi^2 / freedom)``, because the standard error is itself an estimate. The
    draws depend on the number of clusters and the freedom alone, not on the metric.
    """
    times, scale = _draws(scores.clusters, scores.freedom, resamples)
    rows = max(1, BYTES // max(1, times[0].size * 8))
    moved = [
        (times[at : at + rows].astype(np.float64) - 1) @ scores.parts
        for at in range(0, resamples, rows)
    ]
    drawn: _Float64 = scores.value + scale[:, None] * np.concatenate(moved)
    return drawn


@lru_cache(maxsize=8)
def _draws(clusters: int, freedom: float, resamples: int) -> tuple[npt.NDArray[Any], _Float64]:
    """Return how often each cluster is in each draw, and each draw's scale."""
    generator = np.random.default_rng([SEED, clusters])
    chances = np.full(clusters, 1 / clusters)
    rows = max(1, BYTES // (8 * clusters))  # generators continue: parts give the same draws
    times = np.concatenate(
        [
            generator.multinomial(clusters, chances, min(rows, resamples - at)).astype(np.int16)
            for at in range(0, resamples, rows)
        ]
    )
    scale: _Float64 = np.sqrt(freedom / generator.chisquare(freedom, resamples))
    return times, scale


def intervals(drawn: _Float64) -> tuple[_Float64, _Float64]:
    """Return the 95 % intervals of draws (resamples, k): lower and upper ends, (k,)."""
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    return low, high


def p_values(drawn: _Float64) -> _Float64:
    """Return two-sided p-values of the hypothesis that a difference is zero, (k,).

    Twice the share of draws on the other side of zero, counting one more, so that it is never
    zero: below 0.05 where the interval does not hold zero.
    """
    least = np.minimum((drawn <= 0).sum(axis=0), (drawn >= 0).sum(axis=0))
    p: _Float64 = np.minimum(1.0, 2 * (least + 1) / (len(drawn) + 1))
    return p


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number, at most 5 % chance of any false difference.

    Source: Holm (1979), Scandinavian Journal of Statistics 6, 65-70.
    """
    order = np.argsort(p, kind="stable")
    scaled = np.asarray(p, np.float64)[order] * np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(x) for x in corrected]


def clips_needed(
    difference: float,
    error: float,
    clusters: int,
    clips: int,
    most: int = 10**6,
    *,
    level: float = LEVEL,
) -> int | None:
    """Return the number of clips that tell two methods apart in 80 of 100 repetitions.

    The smallest number of clusters with which a two-sided paired t-test at *level* (5 %) has a
    power of 80 %, times the clips of each. *error* is the standard error of the difference of the
    means. None without a difference, or for more than *most* clusters.
    """
    from scipy.special import nctdtr, ndtri, stdtrit

    if difference == 0 or not math.isfinite(difference) or not math.isfinite(error):
        return None
    count = 2
    if error > 0:
        effect = abs(difference) / (error * math.sqrt(clusters))
        # With the normal distribution; Student's t needs a few more.
        least = (float(ndtri(1 - level / 2) + ndtri(POWER)) / effect) ** 2
        if least > most:
            return None
        count = max(count, math.floor(least))

        def power(count: int) -> float:
            bound = stdtrit(count - 1, 1 - level / 2)
            return 1 - float(nctdtr(count - 1, effect * math.sqrt(count), bound))

        while power(count) < POWER:
            count += 1
    return math.ceil(count * clips / clusters)
