"""Bootstrap over speakers, paired between methods: intervals, p-values, clips needed.

Every score here is a mean over emotions of a mean over clips: of cosines, distances or
coherences as they are, of FAD in pseudo-values (:func:`pseudo_values`). What a speaker's clips
add to such a mean is one number, so that ten thousand draws of speakers of a whole table are one
product of matrices. Two methods are compared by the differences of their clips: the same draws
serve all methods.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from spfem_bench.statistics.intervals import SEED

Float64 = npt.NDArray[np.float64]

RESAMPLES = 10_000

LEVEL = 0.05
"""What a p-value must stay under, and one less the coverage of intervals."""

POWER = 0.80
"""How often the clips that are said to be needed would tell two methods apart."""


class TooFewClustersError(ValueError):
    """Clips of one speaker only: nothing shows how speakers differ."""


@dataclass(frozen=True)
class Estimate:
    """Scores of k columns (methods, metrics), and what each cluster adds to their errors.

    Attributes:
        value: float64 (k,).
        parts: float64 (clusters, k), of which a score's squared standard error is the sum of
            squares.
        freedom: degrees of freedom of that error.
    """

    value: Float64
    parts: Float64
    freedom: float

    @property
    def clusters(self) -> int:
        """Speakers (or clips) that are drawn."""
        return len(self.parts)

    @property
    def error(self) -> Float64:
        """The standard errors, (k,)."""
        total: Float64 = (self.parts**2).sum(axis=0)
        return np.sqrt(total)


def estimate(values: npt.ArrayLike, emotions: Sequence[str], clusters: Sequence[str]) -> Estimate:
    """Return the mean over emotions of the mean over clips, with its errors over clusters.

    A cluster (a speaker) is drawn with all of its clips, in all emotions. Its part of the error is
    the sum over emotions of its clips' deviations from the emotion's mean, each divided by the
    clips and the emotions and by ``sqrt(1 - h)``, where ``h`` is the cluster's share of the
    emotion's clips: a mean lies nearer to clips that it is made of. That is the cluster-robust
    variance CR2, with Bell and McCaffrey's degrees of freedom ``(sum l)^2 / sum l^2``, ``l`` the
    eigenvalues of the parts' covariance for clips alike. With as many clips of each of ``G``
    speakers in each emotion it is the textbook's: the variance of the speakers' means divided by
    ``G``, with ``G - 1`` degrees of freedom; with clips for clusters and one emotion,
    the t-test's.

    Args:
        values: (n,) or (n, k), one row for each clip.
        emotions: n, each clip's.
        clusters: n, each clip's speaker; or n different names, to draw clips.

    Raises:
        TooFewClustersError: an emotion has one cluster only; names it.

    Source: Bell and McCaffrey, Survey Methodology 28 (2002); Imbens and Kolesar, Review of
    Economics and Statistics 98 (2016).
    """
    table = np.asarray(values, np.float64)
    table = table[:, None] if table.ndim == 1 else table
    names, of_emotion = np.unique(np.asarray(emotions), return_inverse=True)
    speakers, of_cluster = np.unique(np.asarray(clusters), return_inverse=True)
    averaging = np.zeros(len(table))
    linear = np.zeros((len(speakers), len(table)))  # from the clips' values to the parts
    for e, name in enumerate(names):
        here = of_emotion == e
        averaging[here] = 1 / here.sum() / len(names)
        for g in np.unique(of_cluster[here]):
            own = here & (of_cluster == g)
            share = own.sum() / here.sum()
            if share == 1:
                raise TooFewClustersError(str(name))
            weight = 1 / here.sum() / len(names) / math.sqrt(1 - share)
            linear[g, own] += weight
            linear[g, here] -= weight * share
    spectrum = linear @ linear.T
    freedom = float(np.trace(spectrum) ** 2 / (spectrum**2).sum())
    # Rounded, for the last bits of a sum would make other draws.
    return Estimate(averaging @ table, linear @ table, round(freedom, 6))


def draws(found: Estimate, resamples: int = RESAMPLES) -> Float64:
    """Return the scores of drawn clusters, (resamples, k).

    Clusters are drawn with replacement, as many as there are; the deviation of each draw is divided
    by a draw of ``sqrt(chi^2 / freedom)``, for the standard error is itself an estimate. So
    percentiles of the draws are as wide as Student's t asks, where those of a plain bootstrap of
    six speakers hold the truth in 85 of 100 cases and not in 95. Where each speaker has as many
    clips as the others in each emotion, deviations are exactly those of the drawn clips' mean;
    elsewhere they are that to first order, so that a draw without a clip of some emotion has its
    value too.

    The draws depend on the number of clusters and the freedom alone: the same clips are drawn
    alike, whatever is measured of them.
    """
    times, scale = _draws(found.clusters, found.freedom, resamples)
    drawn: Float64 = found.value + scale[:, None] * (times @ found.parts)
    return drawn


@lru_cache(maxsize=8)
def _draws(clusters: int, freedom: float, resamples: int) -> tuple[Float64, Float64]:
    """Return how many times more than once each cluster is drawn, and each draw's scale."""
    generator = np.random.default_rng([SEED, clusters])
    drawn = generator.multinomial(clusters, np.full(clusters, 1 / clusters), size=resamples)
    times: Float64 = drawn.astype(np.float64) - 1
    scale: Float64 = np.sqrt(freedom / generator.chisquare(freedom, resamples))
    return times, scale


def intervals(drawn: Float64) -> tuple[Float64, Float64]:
    """Return the 95 % intervals of draws (resamples, k): lower and upper ends, (k,)."""
    low, high = np.quantile(drawn, [LEVEL / 2, 1 - LEVEL / 2], axis=0)
    return low, high


def p_values(drawn: Float64) -> Float64:
    """Return two-sided p-values of the hypothesis that a difference is zero, (k,).

    Twice the share of draws on the other side of zero, counting one more, so that it is never
    zero: below 0.05 where the interval does not hold zero.
    """
    least = np.minimum((drawn <= 0).sum(axis=0), (drawn >= 0).sum(axis=0))
    p: Float64 = np.minimum(1.0, 2 * (least + 1) / (len(drawn) + 1))
    return p


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, 1979).

    The smallest is multiplied by their number, the next by one less, and none falls below one
    before it: the chance of a single false difference among all stays below 5 %, however they
    hang together.

    >>> [round(x, 3) for x in holm([0.01, 0.04, 0.03])]
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p)), key=lambda i: p[i])
    corrected = [0.0] * len(p)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, p[i] * (len(p) - rank)))
        corrected[i] = largest
    return corrected


def clips_needed(
    difference: float, error: float, clusters: int, clips: int, most: int = 10**6
) -> int | None:
    """Return how many clips would tell two methods apart in 80 of 100 repetitions.

    The smallest number of clusters with which a two-sided paired t-test at 5 % has a power of
    80 %, if the difference is what it seems and the clusters vary as these do, times
    the clips of each: new clips come with new speakers, for more of the same speakers do not tell
    how speakers differ.

    Args:
        difference: of the means.
        error: its standard error.
        clusters: speakers (or clips) that it stands on.
        clips: clips that it stands on.
        most: clusters beyond which nobody would go.

    Returns:
        None for never: there is no difference, or more than *most* clusters would be needed.

    >>> clips_needed(0.5, 1 / 34**0.5, 34, 34)  # the textbook's: 34 pairs for half a deviation
    34
    """
    from scipy.special import nctdtr, ndtri, stdtrit

    if difference == 0 or not math.isfinite(difference) or not math.isfinite(error):
        return None
    count = 2
    if error > 0:
        effect = abs(difference) / (error * math.sqrt(clusters))
        # With the normal distribution; Student's t asks for a few more.
        least = (float(ndtri(1 - LEVEL / 2) + ndtri(POWER)) / effect) ** 2
        if least > most:
            return None
        count = max(count, math.floor(least))

        def power(count: int) -> float:
            bound = stdtrit(count - 1, 1 - LEVEL / 2)
            return 1 - float(nctdtr(count - 1, effect * math.sqrt(count), bound))

        while power(count) < POWER:
            count += 1
    return math.ceil(count * clips / clusters)
