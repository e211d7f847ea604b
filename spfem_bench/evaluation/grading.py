"""Rules that judge whether a metric responds to a graded control as it claims."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from spfem_bench.statistics.intervals import interval

_Float64 = npt.NDArray[np.float64]

HARDLY = 0.10
"""A metric ignores a control that moves it by less than this share of its largest claimed move."""

SOMEWHAT = 1 / 3
"""From this share on a metric does not ignore a control: it is more than one of four steps."""

MONOTONE = 0.8
"""Least rank correlation of level and harm: of five levels, two pairs may change places."""

READING = 1.0
"""How far a metric that reads a level off may be from it, in the level's unit."""

ROUNDING = 1e-6
"""Changes below this share of the largest value seen are rounding, not moves."""

_Failed = Literal["not monotone", "no answer", "wrong way", "misreads", "moves"]
Verdict = Literal[_Failed, "yes", "hardly", "somewhat", "no scale", "too few", ""]
FAILED: frozenset[Verdict] = frozenset(get_args(_Failed))
"""Verdicts that contradict a claim. 'no scale' and 'too few' say that none can be given."""


@dataclass(frozen=True)
class Graded:
    """A metric over the levels of one control, all on the same clips.

    Attributes:
        values: float64 (levels,), from the level that changes nothing to the strongest.
        draws: float64 (levels, resamples): the values when clips are drawn again, in each
            column the same clips at all levels.
        varies: whether there is more than one clip to draw from.
        sign: +1 when a larger value is worse (or is the level read off), -1 when a smaller is.
        floor: changes not above it are rounding.
    """

    values: _Float64
    draws: _Float64
    varies: bool
    sign: int
    floor: float = 0.0

    def change(self, level: int, since: int = 0) -> float:
        """Return how far the value moves from one level to another, both by number."""
        return float(self.values[level] - self.values[since])

    def change_interval(self, level: int, since: int = 0) -> tuple[float | None, float | None]:
        """Return the paired 95 % interval of a change; None twice for a single clip."""
        return interval(self.draws[level] - self.draws[since]) if self.varies else (None, None)

    def moved(self, level: int, since: int = 0) -> int:
        """Return whether a change is beyond noise: +1 for worse, -1 for better, 0 for neither."""
        low, high = self.change_interval(level, since)
        if low is not None and low > self.floor:
            return self.sign
        if high is not None and high < -self.floor:
            return -self.sign
        return 0

    @property
    def monotonicity(self) -> float | None:
        """Spearman's correlation of level and harm; None when no level differs from another."""
        from scipy.stats import rankdata

        values = self.sign * self.values
        order = np.argsort(values, kind="stable")
        apart = np.diff(values[order]) > self.floor
        ties = np.empty(len(values))
        ties[order] = np.concatenate([[0], np.cumsum(apart)])
        if not apart.any():
            return None
        levels, ranks = np.arange(len(values)), rankdata(ties)
        return float(np.corrcoef(levels, ranks)[0, 1])

    def steps_back(self) -> list[int]:
        """Return the levels that are better than the one before, beyond noise and saturation."""
        saturation = HARDLY * self.largest_move()[1]
        levels = range(1, len(self.values))
        back = [i for i in levels if self.moved(i, i - 1) < 0]
        return [i for i in back if abs(self.change(i, i - 1)) > saturation]

    def largest_move(self) -> tuple[int, float]:
        """Return the level with the largest change, and that change, without its sign."""
        changes = np.abs(self.values - self.values[0])
        level = int(changes.argmax())
        size = float(changes[level])
        return level, size if size > self.floor else 0.0


def measures(graded: Graded) -> Verdict:
    """Judge a control that the metric claims to measure.

    Returns:
        ``yes``: at the strongest level it is worse than undamaged, the paired 95 % interval of
        the change without zero; no step goes back beyond noise and saturation; and level and harm
        agree in rank (:data:`MONOTONE`). ``not monotone``: it gets worse, but not so. ``wrong
        way``: at the strongest level it is better, beyond noise. ``no answer``: no change beyond
        noise. ``too few``: one clip per emotion.
    """
    if not graded.varies:
        return "too few"
    last = len(graded.values) - 1
    total = graded.moved(last)
    if total > 0:
        ordered = (graded.monotonicity or 0.0) >= MONOTONE - 1e-9
        return "yes" if ordered and not graded.steps_back() else "not monotone"
    if total < 0:
        return "wrong way"
    return "not monotone" if any(graded.moved(i) > 0 for i in range(1, last)) else "no answer"


def reads(graded: Graded, levels: Sequence[float]) -> Verdict:
    """Judge a metric whose value should be the control's level.

    Returns:
        ``yes``: at every level its value is that level within :data:`READING`. Else as
        :func:`measures` returns, and ``misreads`` when it follows the level.
    """
    if misread(graded, levels) is None:
        return "yes"
    verdict = measures(graded)
    return "misreads" if verdict in ("yes", "too few") else verdict


def misread(graded: Graded, levels: Sequence[float]) -> int | None:
    """Return the number of the level whose reading is worst; None when all are within bounds."""
    apart = np.abs(graded.values - np.asarray(levels, np.float64))
    worst = int(apart.argmax())
    return worst if apart[worst] > READING else None


def scale(graded: Graded) -> float:
    """Return the largest move, in the right direction and beyond noise, or 0."""
    levels = range(1, len(graded.values))
    moves = [abs(graded.change(i)) for i in levels if graded.moved(i) > 0]
    return max(moves, default=0.0)


def ignores(graded: Graded, largest: float) -> tuple[Verdict, float | None]:
    """Judge a control that the metric should ignore, by its *largest* move under those it measures.

    Returns:
        ``hardly``, ``somewhat`` or ``moves`` (see :data:`HARDLY`, :data:`SOMEWHAT`), and the
        share; ``no scale`` and None when it moves, but nothing that it claims to measure moves it.
    """
    size = graded.largest_move()[1]
    if size > 0 >= largest:
        return "no scale", None
    share = size / largest if size else 0.0
    return "hardly" if share < HARDLY else "somewhat" if share < SOMEWHAT else "moves", share
