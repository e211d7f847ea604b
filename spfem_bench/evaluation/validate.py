"""Graded degradations with a known answer: what each metric feels of them, and what it claims."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any, Literal

import numpy as np

from spfem_bench import progress as plain_progress
from spfem_bench import provenance
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.controls import GradedControl
from spfem_bench.definitions.methods import MethodCard, method_card
from spfem_bench.definitions.metrics import MetricCard
from spfem_bench.definitions.networks import ProfileCard
from spfem_bench.definitions.protocols import Protocol
from spfem_bench.errors import CardError, ClipError, UnknownNameError, unknown_name
from spfem_bench.evaluation import grading
from spfem_bench.evaluation.controls import why_not
from spfem_bench.evaluation.grading import FAILED, Graded, Verdict
from spfem_bench.evaluation.item_clips import Refusal
from spfem_bench.evaluation.plan import Plan, make_plan
from spfem_bench.evaluation.preflight import plan_summary
from spfem_bench.evaluation.record import VALIDATION
from spfem_bench.evaluation.run import (
    ItemResult,
    Resampled,
    Want,
    average,
    frozen_settings,
    made_of,
    measure,
    resample,
    wanted_features,
)
from spfem_bench.evaluation.signature import network_of, signature
from spfem_bench.execution.local import Workers
from spfem_bench.features.extract import Extractor
from spfem_bench.media.video import content_id
from spfem_bench.networks.weights import WeightsStore

SCHEMA = 1

Claim = Literal["measures", "ignores", "none"]


@dataclass(frozen=True)
class Point:
    """One level of a control.

    Attributes:
        value: the mean over emotions; ``low`` and ``high`` are its 95 % interval over clips.
        change: from the level that changes nothing, with its paired interval.
        step: from the level before, with its paired interval.
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
class Cell:
    """One metric under one control.

    Attributes:
        label: the metric as printed.
        network: the one that the metric looks through.
        claim: what the metric's card says of the control.
        verdict: see ``spfem_bench.evaluation.grading``; empty without a claim or a value.
        said: what is behind the verdict, in words.
        scale: the metric's largest move under a control that it claims to measure.
        share: for a control to be ignored: its largest move in the metric's largest claimed one.
        monotonicity: rank correlation of level and harm.
        points: by level, the one that changes nothing first; empty when there is no value.
        n_items: clips that all levels stand on.
        n_frames: frames (for lip sync: windows) of them at the strongest level.
        n_same: clips left out because no level changes them.
        n_refused: clips that are missing or were refused at some level.
        emotions: those that the mean is over.
        signature: how the values were made, at all levels alike.
    """

    protocol: str
    profile: str
    metric: str
    label: str
    direction: str
    network: str
    control: str
    claim: Claim
    verdict: Verdict
    said: str
    scale: float | None
    share: float | None
    monotonicity: float | None
    points: tuple[Point, ...]
    n_items: int
    n_frames: int
    n_same: int
    n_refused: int
    emotions: tuple[str, ...]
    signature: str


@dataclass(frozen=True)
class Trial:
    """One control at all of its levels, each a plan of its own."""

    method: MethodCard
    control: GradedControl
    plans: tuple[Plan, ...]


@dataclass(frozen=True)
class Validation:
    """What will be run, found out before any network runs.

    Attributes:
        trials: the controls, in the order in which the metrics claim to feel them.
        left_out: controls that the protocol cannot have, with the reason.
    """

    protocol: Protocol
    profile: ProfileCard
    trials: tuple[Trial, ...]
    left_out: Mapping[str, str]

    @property
    def metrics(self) -> tuple[MetricCard, ...]:
        """The metrics that will be computed."""
        return self.trials[0].plans[0].metrics if self.trials else ()

    @property
    def unavailable(self) -> Mapping[str, str]:
        """The metrics that cannot be, with the reason."""
        return self.trials[0].plans[0].unavailable if self.trials else {}

    @property
    def complete(self) -> bool:
        """Whether nothing is missing; what a control cannot be made of is not missing."""
        plans = [p for t in self.trials for p in t.plans]
        return not self.unavailable and all(r.kind == "refused" for p in plans for r in p.refusals)

    def summary(self) -> list[str]:
        """Return the preflight's findings, one line each, each once."""
        lines = [f"left out: {name}: {reason}" for name, reason in self.left_out.items()]
        plans = [p for trial in self.trials for p in trial.plans]
        if not plans:
            return lines
        refusals = {(r.item, r.reason): r for p in plans for r in p.refusals}
        return lines + plan_summary(replace(plans[0], refusals=tuple(refusals.values())))


# ---- planning ------------------------------------------------------------------------------


def graded_controls() -> dict[str, GradedControl]:
    """Return all controls that have levels, by name."""
    found = {name: method_card(name).control for name in names(Kind.METHOD)}
    return {name: control for name, control in found.items() if isinstance(control, GradedControl)}


def plan_validation(
    protocol: Protocol,
    profile: ProfileCard,
    *,
    data: DataFolders,
    weights: WeightsStore,
    controls: Sequence[str] = (),
    metrics: Sequence[str] = (),
    rendering: plain_progress.Progress = plain_progress.SILENT,
) -> Validation:
    """Plan every level of the protocol's graded controls.

    Args:
        protocol: on which clips.
        profile: the networks to use.
        data: where data sets are looked for.
        weights: where weights are looked for.
        controls: those wanted; all that the protocol has when empty.
        metrics: those wanted; all of the protocol's when empty.
        rendering: see :func:`~spfem_bench.evaluation.plan.make_plan`.

    Raises:
        UnknownNameError: no such control or metric, or the protocol cannot have it.
        CardError: a metric's claim names no graded control.
    """
    known = graded_controls()
    lacking = {name: why_not(method_card(name), protocol) for name in known}
    for name in controls:
        if name not in known:
            raise unknown_name("graded control", name, known)
        if lacking[name]:
            raise UnknownNameError(
                f"no control '{name}' here: {lacking[name]}",
                "It has: " + ", ".join(n for n, why in lacking.items() if not why),
            )
    chosen = [n for n in dict.fromkeys(controls or known) if not lacking[n]]
    trials = []
    for name in chosen:
        plans = tuple(
            make_plan(
                name,
                protocol,
                profile,
                data=data,
                weights=weights,
                metrics=metrics,
                level=level,
                progress=rendering,
            )
            for level in known[name].levels
        )
        trials.append(Trial(method_card(name), known[name], plans))
    felt: list[str] = []  # controls in the order of the metrics that claim to feel them
    for metric in (m for t in trials[:1] for m in t.plans[0].metrics):
        for name in (*metric.claims.measures, *metric.claims.ignores):
            if name not in known:
                error = unknown_name("graded control", name, known)
                raise CardError(f"{metric.path}: {error.problem}", error.remedy)
        felt += metric.claims.measures
    trials.sort(key=lambda t: felt.index(t.method.name) if t.method.name in felt else len(felt))
    left_out = {} if controls else {n: why for n, why in lacking.items() if why}
    return Validation(protocol, profile, tuple(trials), left_out)


def wanted(
    validation: Validation, extractor: Extractor
) -> tuple[dict[Clip, frozenset[Want]], dict[tuple[Clip, Want], tuple[Clip, Want]]]:
    """Return what networks have to see for all levels, what is the same to a network once.

    Returns:
        The clips with the networks' roles, and for each clip and role left out of them the
        one whose features it shares.
    """
    first: dict[str, tuple[Clip, Want]] = {}
    same: dict[tuple[Clip, Want], tuple[Clip, Want]] = {}
    wants: dict[Clip, set[Want]] = {}
    plans = [p for trial in validation.trials for p in trial.plans]
    for plan in plans:
        for clip, roles in wanted_features(plan).items():
            for role in sorted(roles, key=str):
                if (clip, role) in same:
                    continue
                key = json.dumps(made_of(extractor, clip, role), sort_keys=True)
                same[clip, role] = first.setdefault(key, (clip, role))
                if same[clip, role] == (clip, role):
                    wants.setdefault(clip, set()).add(role)
    return {clip: frozenset(roles) for clip, roles in wants.items()}, same


# ---- running -------------------------------------------------------------------------------


def validate(
    validation: Validation,
    extractor: Extractor,
    *,
    workers: Workers,
    graded: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Carry out a validation and return its record (see ``docs/validation.md``).

    Args:
        validation: from :func:`plan_validation`.
        extractor: networks, store and settings.
        workers: who computes features; changes no value.
        graded: called after each level of each control has been scored.

    Raises:
        StorageError: features cannot be stored; a later run goes on from there.
    """
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    wants, same = wanted(validation, extractor)
    failures = workers.compute(extractor, wants)
    failures = {key: failures[one] for key, one in same.items() if one in failures}
    featured = time.perf_counter()
    frozen = {
        m.name: frozen_settings(t.plans[0], m, extractor)
        for t in validation.trials[:1]
        for m in validation.metrics
    }
    known: dict[str, dict[str, Resampled]] = {}  # scores by what they were made of
    scored = [
        _score(validation, trial, frozen, extractor, failures, graded, known)
        for trial in validation.trials
    ]
    cells = _judged([cell for cells, _ in scored for cell in cells], validation.metrics)
    refusals = [r for _, refused in scored for r in refused]
    refusals += [r for t in validation.trials for p in t.plans for r in p.refusals]
    ended = time.perf_counter()
    return {
        "schema": SCHEMA,
        "kind": VALIDATION,
        "protocol": {
            "name": validation.protocol.name,
            "version": validation.protocol.card.version,
            "setting": validation.protocol.card.setting,
            "n_items": len(validation.protocol.items),
            "list_sha256": validation.protocol.list_sha256,
        },
        "profile": validation.profile.name,
        "controls": [
            {
                "name": trial.method.name,
                "title": trial.method.title,
                "levels": list(trial.control.levels),
                "unit": trial.control.unit,
            }
            for trial in validation.trials
        ],
        "rules": {
            "hardly_below": grading.HARDLY,
            "somewhat_below": grading.SOMEWHAT,
            "reading_within": grading.READING,
            "rounding_below": grading.ROUNDING,
            "monotone_from": grading.MONOTONE,
        },
        "complete": validation.complete,
        "cells": [asdict(cell) for cell in cells],
        "failed": [failure(cell) for cell in cells if cell.verdict in FAILED],
        "left_out": dict(validation.left_out),
        "unavailable": dict(validation.unavailable),
        "refused": [asdict(r) for r in dict.fromkeys(refusals)],
        "settings": frozen,
        "environment": provenance.environment(extractor.device),
        "timings": {
            "started": started.isoformat(timespec="seconds"),
            "features_s": round(featured - clock, 3),
            "scores_s": round(ended - featured, 3),
        },
    }


@dataclass(frozen=True)
class _Scored:
    """A metric over a control's levels, before it is judged."""

    cell: Cell
    levels: tuple[float, ...]
    scores: tuple[Resampled, ...]


def _score(
    validation: Validation,
    trial: Trial,
    frozen: Mapping[str, Mapping[str, Any]],
    extractor: Extractor,
    failures: Mapping[tuple[Clip, Want], ClipError],
    graded: Callable[[], object],
    known: dict[str, dict[str, Resampled]],
) -> tuple[list[_Scored], list[Refusal]]:
    """Score all metrics at all levels of one control, on the clips that all levels have."""
    emotions = validation.protocol.card.emotions
    unchanged = _unchanged(trial)
    scored: list[_Scored] = []
    refusals: list[Refusal] = []
    for metric in validation.metrics:
        by_level: list[list[ItemResult]] = []
        for plan in trial.plans:
            results, refused = measure(plan, metric, extractor, failures)
            by_level.append(results)
            refusals += refused
        common = set.intersection(*({r.item for r in results} for results in by_level))
        chosen = [[r for r in one if r.item in common - unchanged] for one in by_level]
        found = []
        for results in chosen:
            # The undamaged level is the same for most controls, sound for all face networks.
            made_of = [(r.item, dict(r.described)) for r in results]
            key = json.dumps([metric.name, made_of], sort_keys=True)
            if key not in known:
                known[key] = resample(metric, results, emotions)
            found.append(known[key])
            graded()
        usable = tuple(
            e for e in found[0] if all(e in one and math.isfinite(one[e].value) for one in found)
        )
        claim: Claim = "none"
        if trial.method.name in metric.claims.measures:
            claim = "measures"
        elif trial.method.name in metric.claims.ignores:
            claim = "ignores"
        n_items = len(validation.protocol.items)
        ids = [r.item for r in chosen[0] if r.emotion in usable]
        cell = Cell(
            protocol=validation.protocol.name,
            profile=validation.profile.name,
            metric=metric.name,
            label=metric.label,
            direction=metric.direction,
            network=network_of(metric, validation.profile).name,
            control=trial.method.name,
            claim=claim,
            verdict="",
            said="" if usable else "no clip could be scored at all levels",
            scale=None,
            share=None,
            monotonicity=None,
            points=(),
            n_items=len(ids),
            n_frames=sum(r.n_frames for r in chosen[-1] if r.emotion in usable),
            n_same=len(common & unchanged),
            n_refused=n_items - len(common),
            emotions=usable,
            signature=signature(frozen[metric.name], validation.profile.name, ids, n_items),
        )
        scores = tuple(average([one[e] for e in usable]) for one in found) if usable else ()
        scored.append(_Scored(cell, trial.control.levels, scores))
    return scored, refusals


def _unchanged(trial: Trial) -> set[str]:
    """Return the items whose clip is the same, byte for byte, at every level.

    A neutral performance has no emotion that could fade: it would only dilute the others.
    """
    seen: dict[str, set[str]] = {}
    for plan in trial.plans:
        for planned in plan.items:
            if "output" in planned.clips:
                seen.setdefault(planned.item.id, set()).add(content_id(planned.clips["output"]))
    return {item for item, contents in seen.items() if len(contents) == 1}


# ---- judging -------------------------------------------------------------------------------


def _judged(scored: Sequence[_Scored], metrics: Sequence[MetricCard]) -> list[Cell]:
    """Judge every cell: first what is measured, then by that scale what is ignored."""
    cells: dict[tuple[str, str], Cell] = {}
    for metric in metrics:
        own = [s for s in scored if s.cell.metric == metric.name]
        largest_value = max((abs(x.value) for s in own for x in s.scores), default=0.0)
        graded = {
            s.cell.control: Graded(
                np.array([x.value for x in s.scores]),
                np.stack([x.draws for x in s.scores]),
                all(x.varies for x in s.scores),
                -1 if metric.direction == "higher" else 1,
                grading.ROUNDING * largest_value,
            )
            for s in own
            if s.scores
        }
        scales = {
            s.cell.control: grading.scale(graded[s.cell.control])
            for s in own
            if s.scores and s.cell.claim == "measures"
        }
        yardstick = max(scales, key=lambda name: scales[name], default="")
        for s in own:
            cell = s.cell
            if s.scores:
                values = graded[cell.control]
                cell = replace(
                    cell,
                    points=_points(s, values),
                    monotonicity=values.monotonicity,
                    scale=scales.get(yardstick) or None,
                )
                if cell.claim == "measures":
                    cell = _judge_measured(cell, values, s.levels)
                elif cell.claim == "ignores":
                    cell = _judge_ignored(cell, values, yardstick, scales.get(yardstick, 0.0))
            cells[metric.name, cell.control] = cell
    controls = list(dict.fromkeys(s.cell.control for s in scored))
    return [cells[m.name, c] for m in metrics for c in controls]


def _points(scored: _Scored, graded: Graded) -> tuple[Point, ...]:
    points = []
    for i, (level, score) in enumerate(zip(scored.levels, scored.scores, strict=True)):
        before = max(0, i - 1)
        points.append(
            Point(
                level,
                score.value,
                *score.interval,
                graded.change(i),
                *graded.change_interval(i),
                graded.change(i, before),
                *graded.change_interval(i, before),
            )
        )
    return tuple(points)


def _judge_measured(cell: Cell, graded: Graded, levels: Sequence[float]) -> Cell:
    last = cell.points[-1]
    moved = f"{number(last.change)}{_within(last.change_low, last.change_high)}"
    at = f"at level {last.level:g}"
    if cell.direction == "zero":
        verdict = grading.reads(graded, levels)
        worst = grading.misread(graded, levels)
        if worst is None:
            said = f"reads every level within {grading.READING:g}"
        else:
            said = f"at level {levels[worst]:g} it reads {cell.points[worst].value:.2f}"
        return replace(cell, verdict=verdict, said=said)
    verdict = grading.measures(graded)
    said = {
        "yes": f"{moved} {at}",
        "wrong way": f"{moved} {at}, which is better",
        "no answer": f"{moved} {at}, which may be nothing",
        "too few": f"{moved} {at}, on one clip per emotion: nothing to judge noise by",
    }.get(verdict, "")
    if verdict == "not monotone":
        rank = graded.monotonicity or 0.0
        said = f"{moved} {at}, but not step by step: rank correlation {rank:.1f}"
        if backs := graded.steps_back():
            before, back = cell.points[backs[0] - 1], cell.points[backs[0]]
            said = (
                f"from level {before.level:g} to {back.level:g} it gets better, by "
                f"{number(back.step)}{_within(back.step_low, back.step_high)}"
            )
    return replace(cell, verdict=verdict, said=said)


def _judge_ignored(cell: Cell, graded: Graded, yardstick: str, largest: float) -> Cell:
    verdict, share = grading.ignores(graded, largest)
    if share is None:
        said = "it feels nothing of what it claims to measure, so there is no scale"
        if not yardstick:
            said = "nothing that it claims to measure was run, so there is no scale"
    else:
        level, size = graded.largest_move()
        point = cell.points[level]
        said = "no change at any level"
        if size:
            said = (
                f"{number(point.change)}{_within(point.change_low, point.change_high)} at level "
                f"{point.level:g}, {percent(share)} of what {yardstick} does"
            )
    return replace(cell, verdict=verdict, said=said, share=share)


def failure(cell: Cell) -> str:
    """Say in a sentence which claim a metric does not keep, through which network, and why."""
    does = "measure" if cell.claim == "measures" else "ignore"
    return f"{cell.label} with {cell.network} does not {does} {cell.control}: {cell.said}"


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
