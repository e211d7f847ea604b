"""Validation of metrics: graded controls with a known answer, and claims about them."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

from spfem_bench import provenance
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.controls import GradedControl
from spfem_bench.definitions.methods import MethodCard, method_card
from spfem_bench.definitions.metrics import MetricCard
from spfem_bench.definitions.networks import ProfileCard
from spfem_bench.definitions.protocols import Protocol
from spfem_bench.errors import CardError, UnknownNameError, unknown_name
from spfem_bench.evaluation import grading
from spfem_bench.evaluation.claims import Claim, ClaimTest, ScoredControl, failure, judge
from spfem_bench.evaluation.controls import why_not
from spfem_bench.evaluation.item_clips import Refusal
from spfem_bench.evaluation.measure import MeasuredItem, frozen_settings, measure, plan_requests
from spfem_bench.evaluation.plan import Plan, make_plan
from spfem_bench.evaluation.preflight import plan_summary
from spfem_bench.evaluation.record import VALIDATION
from spfem_bench.evaluation.score import score_groups
from spfem_bench.evaluation.signature import network_of, signature
from spfem_bench.execution.workers import Workers
from spfem_bench.features.extract import Extractor
from spfem_bench.features.requests import Request, request_key
from spfem_bench.media.video import content_id
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import SILENT, Progress
from spfem_bench.statistics.intervals import Resampled

SCHEMA = 1


@dataclass(frozen=True)
class ControlPlans:
    """One control at all of its levels, each a plan of its own."""

    method: MethodCard
    control: GradedControl
    plans: tuple[Plan, ...]


@dataclass(frozen=True)
class Validation:
    """A validation, resolved before any network runs.

    ``controls`` are in the order in which the metrics claim to measure them; ``left_out`` are those
    that the protocol cannot have, with the reason.
    """

    protocol: Protocol
    profile: ProfileCard
    controls: tuple[ControlPlans, ...]
    left_out: Mapping[str, str]

    @property
    def plans(self) -> list[Plan]:
        """The plans of all controls and levels."""
        return [plan for control in self.controls for plan in control.plans]

    @property
    def metrics(self) -> tuple[MetricCard, ...]:
        """The metrics that will be computed."""
        return self.plans[0].metrics if self.controls else ()

    @property
    def unavailable(self) -> Mapping[str, str]:
        """The metrics that cannot be computed, with the reason."""
        return self.plans[0].unavailable if self.controls else {}

    @property
    def complete(self) -> bool:
        """Whether nothing is missing; controls that cannot be made of a clip do not count."""
        refusals = [refusal for plan in self.plans for refusal in plan.refusals]
        return not self.unavailable and all(r.kind == "refused" for r in refusals)

    def summary(self) -> list[str]:
        """Return the preflight's findings, one line each, each once."""
        lines = [f"left out: {name}: {reason}" for name, reason in self.left_out.items()]
        if not self.controls:
            return lines
        refusals = {(r.item, r.reason): r for plan in self.plans for r in plan.refusals}
        return lines + plan_summary(replace(self.plans[0], refusals=tuple(refusals.values())))


def graded_controls() -> dict[str, GradedControl]:
    """Return all controls that have levels, by name."""
    controls = {name: method_card(name).control for name in names(Kind.METHOD)}
    return {name: one for name, one in controls.items() if isinstance(one, GradedControl)}


def plan_validation(
    protocol: Protocol,
    profile: ProfileCard,
    *,
    data: DataFolders,
    weights: WeightsStore,
    controls: Sequence[str] = (),
    metrics: Sequence[str] = (),
    progress: Progress = SILENT,
) -> Validation:
    """Plan every level of the protocol's graded controls.

    All *controls* and *metrics* that the protocol has are planned when none is named. Raises
    UnknownNameError for a control or metric that does not exist or that the protocol cannot have,
    and CardError when a metric's claim names no graded control.
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
    plan = partial(make_plan, data=data, weights=weights, metrics=metrics, progress=progress)
    planned = []
    for name in dict.fromkeys(controls or known):
        if lacking[name]:
            continue
        plans = tuple(plan(name, protocol, profile, level=level) for level in known[name].levels)
        planned.append(ControlPlans(method_card(name), known[name], plans))
    order: list[str] = []
    for metric in planned[0].plans[0].metrics if planned else ():
        for name in (*metric.claims.measures, *metric.claims.ignores):
            if name not in known:
                error = unknown_name("graded control", name, known)
                raise CardError(f"{metric.path}: {error.problem}", error.remedy)
        order += metric.claims.measures
    planned.sort(key=lambda c: order.index(c.method.name) if c.method.name in order else len(order))
    left_out = {} if controls else {name: why for name, why in lacking.items() if why}
    return Validation(protocol, profile, tuple(planned), left_out)


_Wanted = tuple[Clip, Request]


def _requests(
    validation: Validation, extractor: Extractor
) -> tuple[dict[Clip, frozenset[Request]], dict[_Wanted, _Wanted]]:
    """Return the requests of all levels, equal ones once, and which of them serves each request."""
    first: dict[str, _Wanted] = {}
    same: dict[_Wanted, _Wanted] = {}
    requests: dict[Clip, set[Request]] = {}
    for plan in validation.plans:
        for clip, wanted in plan_requests(plan).items():
            for request in sorted(wanted, key=str):
                if (clip, request) in same:
                    continue
                key = json.dumps(request_key(extractor, clip, request), sort_keys=True)
                same[clip, request] = first.setdefault(key, (clip, request))
                if same[clip, request] == (clip, request):
                    requests.setdefault(clip, set()).add(request)
    return {clip: frozenset(wanted) for clip, wanted in requests.items()}, same


def run_validation(
    validation: Validation, extractor: Extractor, *, workers: Workers, progress: Progress = SILENT
) -> dict[str, Any]:
    """Carry out a validation and return its record (see ``docs/validation.md``).

    Raises:
        StorageError: features cannot be stored; a later run goes on from there.
    """
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    requests, same = _requests(validation, extractor)
    failures = workers.compute(extractor, requests)
    failures = {key: failures[one] for key, one in same.items() if one in failures}
    featured = time.perf_counter()
    metrics = validation.metrics
    frozen = {m.name: frozen_settings(validation.plans[0], m, extractor) for m in metrics}
    known: dict[str, dict[str, Resampled]] = {}  # scores by the parts that they are made of
    progress.begin("levels", len(metrics) * len(validation.plans), "level")
    scored: list[ScoredControl] = []
    refusals: list[Refusal] = []
    for control in validation.controls:
        for metric in metrics:
            levels = [measure(plan, metric, extractor, failures) for plan in control.plans]
            items = [measured for measured, _ in levels]
            refusals += [one for _, refused in levels for one in refused]
            settings = frozen[metric.name]
            scored.append(_score_control(validation, control, metric, items, settings, known))
            progress.advance("levels", len(levels))
    progress.end("levels")
    tests = judge(scored, metrics)
    refusals += [refusal for plan in validation.plans for refusal in plan.refusals]
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
                "name": one.method.name,
                "title": one.method.title,
                "levels": list(one.control.levels),
                "unit": one.control.unit,
            }
            for one in validation.controls
        ],
        "rules": {
            "hardly_below": grading.HARDLY,
            "somewhat_below": grading.SOMEWHAT,
            "reading_within": grading.READING,
            "rounding_below": grading.ROUNDING,
            "monotone_from": grading.MONOTONE,
        },
        "complete": validation.complete,
        "cells": [asdict(test) for test in tests],
        "failed": [failure(test) for test in tests if test.verdict in grading.FAILED],
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


def _score_control(
    validation: Validation,
    control: ControlPlans,
    metric: MetricCard,
    by_level: Sequence[Sequence[MeasuredItem]],
    frozen: Mapping[str, Any],
    known: dict[str, dict[str, Resampled]],
) -> ScoredControl:
    """Score a metric at all levels of a control, on the clips that all levels have."""
    unchanged = _unchanged(control)
    common = set.intersection(*({one.item for one in items} for items in by_level))
    chosen = [[one for one in items if one.item in common - unchanged] for items in by_level]
    groups = []
    for items in chosen:
        # The undamaged level is the same for most controls, and sound for all face networks.
        key = json.dumps([metric.name, [(m.item, dict(m.kept)) for m in items]], sort_keys=True)
        if key not in known:
            scores = score_groups(metric, items, validation.protocol.card.emotions)
            known[key] = {emotion: resampled for emotion, (_, resampled) in scores.items()}
        groups.append(known[key])
    finite = [{e for e, score in one.items() if math.isfinite(score.value)} for one in groups]
    usable = tuple(e for e in groups[0] if all(e in one for one in finite))
    name = control.method.name
    claim: Claim = "ignores" if name in metric.claims.ignores else "none"
    if name in metric.claims.measures:
        claim = "measures"
    n_items = len(control.plans[0].items)
    ids = [one.item for one in chosen[0] if one.emotion in usable]
    test = ClaimTest(
        protocol=validation.protocol.name,
        profile=validation.profile.name,
        metric=metric.name,
        label=metric.label,
        direction=metric.direction,
        network=network_of(metric, validation.profile).name,
        control=name,
        claim=claim,
        said="" if usable else "no clip could be scored at all levels",
        n_items=len(ids),
        n_frames=sum(one.n_frames for one in chosen[-1] if one.emotion in usable),
        n_same=len(common & unchanged),
        n_refused=n_items - len(common),
        emotions=usable,
        signature=signature(frozen, validation.profile.name, ids, n_items),
    )
    means = [Resampled.average([one[e] for e in usable]) for one in groups] if usable else []
    return ScoredControl(test, control.control.levels, tuple(means))


def _unchanged(control: ControlPlans) -> set[str]:
    """Return the items whose clip is the same, byte for byte, at every level."""
    contents: dict[str, set[str]] = {}
    for plan in control.plans:
        for planned in plan.items:
            if "output" in planned.clips:
                content = content_id(planned.clips["output"])
                contents.setdefault(planned.item.id, set()).add(content)
    return {item for item, several in contents.items() if len(several) == 1}
