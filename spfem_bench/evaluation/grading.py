"""Does a metric feel a graded degradation that it claims to feel, and leave the others alone?

The rules are pure functions of the metric's values at the levels of one control and of
paired bootstrap draws: at every level the same clips are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from spfem_bench.statistics.intervals import interval

_Float64 = npt.NDArray[np.float64]

HARDLY = 0.10
"""Moved by less than this share of its largest claimed move, a metric ignores a control. With
the usual four steps one step is a quarter of the move: this is less than half a step. Of a
control's own largest move, a smaller step back is saturation, not disorder."""

SOMEWHAT = 1 / 3
"""From this share on it does not: that is more than one step, so that what should be ignored
passes for a grade of what is measured."""

MONOTONE = 0.8
"""Least rank correlation of level and harm: of five levels, two pairs of neighbours may change
places. It catches a curve that rises and falls under noise too wide for any single step."""

READING = 1.0
"""How far a metric that reads a level off may be from it, in the level's unit."""

ROUNDING = 1e-6
"""Changes below this share of the largest value seen are rounding, not moves."""

Verdict = Literal[
    "yes",
    "not monotone",
    "no answer",
    "wrong way",
    "misreads",
    "hardly",
    "somewhat",
    "moves",
    "no scale",
    "too few",
    "",
]
FAILED: frozenset[Verdict] = frozenset(
    {"not monotone", "no answer", "wrong way", "misreads", "moves"}
)
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
        """Return the paired 95 % interval of a change; None twice when it cannot be told."""
        return interval(self.draws[level] - self.draws[since]) if self.varies else (None, None)

    def moved(self, level: int, since: int = 0) -> int:
        """Say whether a change is beyond noise: +1 for worse, -1 for better, 0 for neither."""
        low, high = self.change_interval(level, since)
        if low is not None and low > self.floor:
            return self.sign
        if high is not None and high < -self.floor:
            return -self.sign
        return 0

    @property
    def monotonicity(self) -> float | None:
        """Spearman's rank correlation of level and harm, 1 for worse at every step.

        None when no level differs from another. Values that differ by rounding tie.
        """
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
        least = HARDLY * self.largest_move()[1]
        return [
            i
            for i in range(1, len(self.values))
            if self.moved(i, i - 1) < 0 and abs(self.change(i, i - 1)) > least
        ]

    def largest_move(self) -> tuple[int, float]:
        """Return the level with the largest change, and that change, without its sign."""
        changes = np.abs(self.values - self.values[0])
        level = int(changes.argmax())
        size = float(changes[level])
        return level, size if size > self.floor else 0.0


def measures(graded: Graded) -> Verdict:
    """Judge a control that the metric must feel.

    ``yes``: at the strongest level it is worse than undamaged, the paired 95 %
    interval of the change without zero; no step goes back beyond noise, by more than
    saturation does; and level and harm agree in rank (see :data:`MONOTONE`). ``not monotone``: it
    gets worse, but not so. ``wrong way``: at the strongest level it is better, beyond
    noise. ``no answer``: no change beyond noise.

    >>> draws = np.array([[0.0, 0.0], [1.0, 1.2], [3.0, 2.8]])
    >>> measures(Graded(draws.mean(axis=1), draws, True, sign=1))
    'yes'
    >>> measures(Graded(draws.mean(axis=1), draws, True, sign=-1))
    'wrong way'
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
    """Judge a metric that claims to read a control's level off.

    ``yes``: at every level its value is that level within :data:`READING`. Else as
    for :func:`measures`, and ``misreads`` when it does follow the level.

    >>> values = np.array([0.0, 2.2, 7.1])
    >>> graded = Graded(values, np.stack([values, values], axis=1), True, sign=1)
    >>> reads(graded, [0, 2, 8]), reads(graded, [0, 2, 9])
    ('yes', 'misreads')
    """
    if misread(graded, levels) is None:
        return "yes"
    verdict = measures(graded)
    return "misreads" if verdict in ("yes", "too few") else verdict


def misread(graded: Graded, levels: Sequence[float]) -> int | None:
    """Return the number of the level that is read worst, if it is not read within bounds."""
    apart = np.abs(graded.values - np.asarray(levels, np.float64))
    worst = int(apart.argmax())
    return worst if apart[worst] > READING else None


def scale(graded: Graded) -> float:
    """Return the largest move, in the right direction and beyond noise, or 0."""
    levels = range(1, len(graded.values))
    moves = [abs(graded.change(i)) for i in levels if graded.moved(i) > 0]
    return max(moves, default=0.0)


def ignores(graded: Graded, largest: float) -> tuple[Verdict, float | None]:
    """Judge a control that the metric should hardly feel.

    Args:
        graded: the metric over the control's levels.
        largest: the metric's largest move under a control that it claims to measure.

    Returns:
        ``hardly``, ``somewhat`` or ``moves`` (see :data:`HARDLY`, :data:`SOMEWHAT`), and the
        share; ``no scale`` and None when it moves, but felt nothing of what it claims.

    >>> values = np.array([5.0, 5.2, 5.5])
    >>> graded = Graded(values, np.stack([values, values], axis=1), True, sign=1)
    >>> ignores(graded, 10.0), ignores(graded, 2.0), ignores(graded, 1.0)
    (('hardly', 0.05), ('somewhat', 0.25), ('moves', 0.5))
    """
    size = graded.largest_move()[1]
    if size > 0 >= largest:
        return "no scale", None
    share = size / largest if size else 0.0
    return "hardly" if share < HARDLY else "somewhat" if share < SOMEWHAT else "moves", share
