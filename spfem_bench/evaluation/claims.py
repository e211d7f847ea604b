"""A metric's claims under graded controls: verdicts, and their reasons in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from spfem_bench.definitions.metrics import MetricCard
from spfem_bench.evaluation import grading
from spfem_bench.evaluation.grading import Graded, Verdict
from spfem_bench.statistics.intervals import Resampled

Claim = Literal["measures", "ignores", "none"]


@dataclass(frozen=True)
class LevelScore:
    """One level of a control: the mean over emotions, with its 95 % interval over clips.

    ``change`` is from the level that changes nothing, ``step`` from the level before; both have
    paired intervals.
    """

    level: float
    value: float
    low: float | None
    high: float | None
    change: float
    change_low: float | None
    change_high: float | None
    step: float
    step_low: float | None
    step_high: float | None


@dataclass(frozen=True)
class ClaimTest:
    """One metric under one control; without a claim or a value, ``verdict`` is empty.

    Attributes:
        said: the reason for the verdict, in words.
        scale: the metric's largest move under a control that it claims to measure.
        share: for a control to be ignored: its largest move as a share of ``scale``.
        monotonicity: rank correlation of level and harm.
        n_items: clips that are scored at all levels.
        n_frames: frames (for lip sync: windows) of them at the strongest level.
        n_same: clips left out because no level changes them.
        n_refused: clips that are missing or were refused at some level.
    """

    protocol: str
    profile: str
    metric: str
    label: str
    direction: str
    network: str
    control: str
    claim: Claim
    n_items: int
    n_frames: int
    n_same: int
    n_refused: int
    emotions: tuple[str, ...]
    signature: str
    verdict: Verdict = ""
    said: str = ""
    scale: float | None = None
    share: float | None = None
    monotonicity: float | None = None
    points: tuple[LevelScore, ...] = ()


@dataclass(frozen=True)
class ScoredControl:
    """A metric's scores over a control's levels, before they are judged."""

    test: ClaimTest
    levels: tuple[float, ...]
    scores: tuple[Resampled, ...]

    def graded(self, sign: int, floor: float) -> Graded:
        """Return the values and draws of all levels."""
        values = np.array([x.value for x in self.scores])
        draws = np.stack([x.draws for x in self.scores])
        return Graded(values, draws, all(x.varies for x in self.scores), sign, floor)


def judge(scored: Sequence[ScoredControl], metrics: Sequence[MetricCard]) -> list[ClaimTest]:
    """Return all tests with their verdicts: what is measured sets the scale of what is ignored."""
    tests: dict[tuple[str, str], ClaimTest] = {}
    for metric in metrics:
        own = {s.test.control: s for s in scored if s.test.metric == metric.name}
        largest_value = max((abs(x.value) for s in own.values() for x in s.scores), default=0.0)
        sign, floor = -1 if metric.direction == "higher" else 1, grading.ROUNDING * largest_value
        graded = {name: s.graded(sign, floor) for name, s in own.items() if s.scores}
        claimed = [name for name in graded if own[name].test.claim == "measures"]
        scales = {name: grading.scale(graded[name]) for name in claimed}
        yardstick = max(scales, key=lambda name: scales[name], default="")
        largest = scales.get(yardstick, 0.0)
        for name, one in own.items():
            test = one.test
            if name in graded:
                values = graded[name]
                points, rank = _points(one, values), values.monotonicity
                test = replace(test, points=points, monotonicity=rank, scale=largest or None)
                if test.claim == "measures":
                    test = _judge_measured(test, values, one.levels)
                elif test.claim == "ignores":
                    test = _judge_ignored(test, values, yardstick, largest)
            tests[metric.name, name] = test
    controls = list(dict.fromkeys(s.test.control for s in scored))
    return [tests[m.name, c] for m in metrics for c in controls]


def _points(scored: ScoredControl, graded: Graded) -> tuple[LevelScore, ...]:
    points = []
    for i, (level, score) in enumerate(zip(scored.levels, scored.scores, strict=True)):
        before = max(0, i - 1)
        change, ends = graded.change(i), graded.change_interval(i)
        step, step_ends = graded.change(i, before), graded.change_interval(i, before)
        points.append(
            LevelScore(level, score.value, *score.interval, change, *ends, step, *step_ends)
        )
    return tuple(points)


def _judge_measured(test: ClaimTest, graded: Graded, levels: Sequence[float]) -> ClaimTest:
    last = test.points[-1]
    moved = f"{number(last.change)}{_within(last.change_low, last.change_high)}"
    at = f"at level {last.level:g}"
    if test.direction == "zero":
        verdict = grading.reads(graded, levels)
        worst = grading.misread(graded, levels)
        if worst is None:
            reason = f"reads every level within {grading.READING:g}"
        else:
            reason = f"at level {levels[worst]:g} it reads {test.points[worst].value:.2f}"
        return replace(test, verdict=verdict, said=reason)
    verdict = grading.measures(graded)
    reason = {
        "yes": f"{moved} {at}",
        "wrong way": f"{moved} {at}, which is better",
        "no answer": f"{moved} {at}, which may be nothing",
        "too few": f"{moved} {at}, on one clip per emotion: nothing to judge noise by",
    }.get(verdict, "")
    if verdict == "not monotone":
        rank = graded.monotonicity or 0.0
        reason = f"{moved} {at}, but not step by step: rank correlation {rank:.1f}"
        if backs := graded.steps_back():
            before, back = test.points[backs[0] - 1], test.points[backs[0]]
            reason = (
                f"from level {before.level:g} to {back.level:g} it gets better, by "
                f"{number(back.step)}{_within(back.step_low, back.step_high)}"
            )
    return replace(test, verdict=verdict, said=reason)


def _judge_ignored(test: ClaimTest, graded: Graded, yardstick: str, largest: float) -> ClaimTest:
    verdict, share = grading.ignores(graded, largest)
    if share is None:
        reason = "nothing that it claims to measure moves it, so there is no scale"
        if not yardstick:
            reason = "nothing that it claims to measure was run, so there is no scale"
    else:
        level, size = graded.largest_move()
        point = test.points[level]
        reason = "no change at any level"
        if size:
            reason = (
                f"{number(point.change)}{_within(point.change_low, point.change_high)} at level "
                f"{point.level:g}, {percent(share)} of what {yardstick} does"
            )
    return replace(test, verdict=verdict, said=reason, share=share)


def failure(test: ClaimTest) -> str:
    """Return a sentence: which claim a metric does not keep, with which network, and why."""
    does = "measure" if test.claim == "measures" else "ignore"
    return f"{test.label} with {test.network} does not {does} {test.control}: {test.said}"


def number(value: float) -> str:
    """Return a change with its sign.

    >>> number(-0.01234), number(25.546), number(0.0)
    ('-0.012', '+25.55', '0')
    """
    if abs(value) < 5e-4:
        return "0"
    return f"{value:+.3f}" if abs(value) < 10 else f"{value:+.2f}"


def percent(share: float) -> str:
    """Return a share in percent, with a decimal where rounding would hide a verdict's bound.

    >>> percent(0.12), percent(0.0992), percent(0.003)
    ('12 %', '9.9 %', 'under 1 %')
    """
    if 0 < share < 0.005:
        return "under 1 %"
    near = any(abs(share - bound) < 0.005 for bound in (grading.HARDLY, grading.SOMEWHAT))
    return f"{100 * share:.{1 if near else 0}f} %"


def _within(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" [{number(low)}, {number(high)}]"
