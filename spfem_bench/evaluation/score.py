"""From a plan, its features and its failures to a run record."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from spfem_bench import provenance
from spfem_bench.definitions.metrics import MetricCard, metric_card
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.evaluation.item_clips import PlannedItem, Refusal
from spfem_bench.evaluation.measure import (
    MeasuredItem,
    Parts,
    frozen_settings,
    measure,
    outputs_are_compared,
    parts_of,
)
from spfem_bench.evaluation.plan import Plan
from spfem_bench.evaluation.record import SCHEMA, RunRecord, Score
from spfem_bench.evaluation.signature import signature
from spfem_bench.features.extract import Extractor
from spfem_bench.features.requests import Failures
from spfem_bench.media.video import content_id
from spfem_bench.statistics.base import GroupScore, kind_of
from spfem_bench.statistics.intervals import Resampled, drawn_means


def score_plan(
    plan: Plan,
    extractor: Extractor,
    failures: Failures,
    partial: bool,
    started: datetime,
    features_s: float,
) -> RunRecord:
    """Score a plan whose features are stored, and return its run record; no network is run.

    The store of *extractor* holds the features of
    :func:`~spfem_bench.evaluation.measure.plan_requests`, but those of *failures*. With *partial*,
    headline scores are given even when items are missing, marked so.
    """
    clock = time.perf_counter()
    refusals = list(plan.refusals)
    scores: list[Score] = []
    kept: dict[str, dict[str, Any]] = {}
    frozen = {}
    measured: dict[str, list[MeasuredItem]] = {}
    for metric in plan.metrics:
        same = kind_of(metric).parts_key(metric)
        if same in measured:
            items = measured[same]
        else:
            items, refused = measure(plan, metric, extractor, failures)
            refusals += refused
            if not refused:  # a refusal names its metric
                measured[same] = items
        frozen[metric.name] = frozen_settings(plan, metric, extractor)
        parts = parts_of(items, plan.protocol.card.emotions)
        groups = score_parts(metric, parts, plan.protocol.card.emotions)
        scores += _scores(plan, metric, items, parts, groups, frozen[metric.name], partial)
        of_groups = {emotion: iter(score.kept) for emotion, (score, _) in groups.items()}
        for one in items:
            kept.setdefault(one.item, {})[metric.name] = {
                "n_frames": one.n_frames,
                "n_frames_refused": one.n_frames_refused,
                "n_frames_interpolated": one.n_frames_interpolated,
                **one.kept,
                **next(of_groups[one.emotion], {}),
            }
    scores += _scores_without_value(plan)
    method, protocol = plan.method, plan.protocol
    content = {
        "schema": SCHEMA,
        "method": {
            "name": method.name,
            "label": method.label,
            "kind": method.kind,
            "control": method.control and method.control.settings(),
            "model": dict(plan.model) or None,
            "paper": method.paper,
            "link": method.link,
        },
        "protocol": {
            "name": protocol.name,
            "version": protocol.card.version,
            "setting": protocol.card.setting,
            "emotions": list(protocol.card.emotions),
            "n_items": len(plan.items),
            "list_sha256": protocol.list_sha256,
            "published": protocol.card.published and protocol.card.published.settings(),
            **({"determined": protocol.determined} if protocol.determined else {}),
        },
        "profile": plan.profile.name,
        "complete": not plan.unavailable
        and all(s.value is not None and not s.partial for s in scores if s.signature),
        "partial": partial,
        "scores": scores,
        "items": [_item(p, kept.get(p.item.id, {})) for p in plan.items],
        "refused": [asdict(r) for r in _merged(refusals)],
        "extra": list(plan.extra),
        "settings": frozen,
        "environment": provenance.environment(extractor.device),
        "timings": {
            "started": started.isoformat(timespec="seconds"),
            "features_s": round(features_s, 3),
            "scores_s": round(time.perf_counter() - clock, 3),
        },
    }
    return RunRecord.model_validate(content)


def score_groups(
    metric: MetricCard, items: Sequence[MeasuredItem], emotions: Sequence[str]
) -> dict[str, tuple[GroupScore, Resampled]]:
    """Score each emotion that has items; see :func:`score_parts`."""
    return score_parts(metric, parts_of(items, emotions), emotions)


def score_parts(
    metric: MetricCard, parts: Mapping[str, Parts], emotions: Sequence[str]
) -> dict[str, tuple[GroupScore, Resampled]]:
    """Score the parts of each emotion, with its bootstrap over clips.

    An emotion's draws depend on its place in the protocol and its number of clips alone: scores
    of the same items, in the same order, are drawn alike and may be subtracted draw by draw.
    """
    kind = kind_of(metric)
    groups = {}
    for emotion, own in parts.items():
        score = kind.score(own)
        groups[emotion] = score, resampled(score, metric.resamples, emotions.index(emotion))
    return groups


def resampled(score: GroupScore, resamples: int, stream: int) -> Resampled:
    """Return an emotion's score with its bootstrap; *stream* is its place in the protocol."""
    draws = drawn_means(score.of_clips, resamples, stream)
    return Resampled(score.value, draws, len(score.of_clips) > 1)


def headline(groups: Iterable[Resampled], whole: bool) -> Resampled | None:
    """Return the plain mean over the emotions that have clips; None where one has no score.

    *whole*: every item is scored, or partial scores were asked for; None without.
    """
    scored = list(groups)
    if not scored or not whole or any(math.isnan(score.value) for score in scored):
        return None
    return Resampled.average(scored)


def _scores(
    plan: Plan,
    metric: MetricCard,
    items: Sequence[MeasuredItem],
    parts: Mapping[str, Parts],
    groups: Mapping[str, tuple[GroupScore, Resampled]],
    frozen: Mapping[str, Any],
    partial: bool,
) -> list[Score]:
    """Return the score of each emotion and their plain mean."""
    sign = signature(frozen, plan.profile.name, [one.item for one in items], len(plan.items))
    emotions = plan.protocol.card.emotions
    rows: list[Score] = []
    for emotion in emotions:
        chosen = [one for one in items if one.emotion == emotion]
        scored, note = None, f"no clip of '{emotion}' could be scored"
        if chosen and math.isnan(groups[emotion][0].value):
            note = groups[emotion][0].reason or "too few frames"
        elif chosen:
            scored, note = groups[emotion][1], _note(plan, metric, chosen, [parts[emotion]])
        rows.append(_score(plan, metric.name, note, emotion, chosen, scored, sign))

    known = [scored for _, scored in groups.values() if not math.isnan(scored.value)]
    mean = headline((g for _, g in groups.values()), partial or len(items) == len(plan.items))
    note = "incomplete: no headline score without --partial"
    if not items:
        note = "no clip could be scored"
    elif len(known) < len(groups):
        reasons = [group.reason for group, _ in groups.values() if math.isnan(group.value)]
        note = f"{next(filter(None, reasons), 'too few frames')} in an emotion"
    elif mean:
        notes = [_note(plan, metric, items, [*parts.values()])]
        if len(known) < len(emotions):
            notes.append(f"over {len(known)} of {len(emotions)} emotions")
        if alone := sum(not scored.varies for scored in known):
            few = f"one clip in {alone} of {len(known)} emotions"
            notes.append(f"{few}, which the interval cannot see")
        note = "; ".join(filter(None, notes))
    return [*rows, _score(plan, metric.name, note, AVERAGE, items, mean, sign)]


def _scores_without_value(plan: Plan) -> list[Score]:
    """Return a headline for each metric that the plan cannot compute, or that does not apply."""
    card = plan.protocol.card
    scores = [_score(plan, name, reason) for name, reason in plan.unavailable.items()]
    variant = plan.profile.variant
    computed = {*(m.name for m in plan.metrics), *plan.unavailable, *plan.left_out}
    if computed == set(map(variant, card.metrics)):  # none was asked for by name
        for name, reason in card.not_applicable.items():
            score = _score(plan, variant(name), f"not applicable: {reason}")
            scores.append(score.model_copy(update={"n_refused": 0, "partial": False}))
    return scores


def _score(
    plan: Plan,
    metric: str,
    note: str,
    emotion: str = AVERAGE,
    items: Sequence[MeasuredItem] = (),
    scored: Resampled | None = None,
    sign: str = "",
) -> Score:
    expected = sum(emotion in (planned.item.emotion, AVERAGE) for planned in plan.items)
    low, high = within_range(metric_card(metric), scored.interval) if scored else (None, None)
    return Score(
        method=plan.method.name,
        protocol=plan.protocol.name,
        setting=plan.protocol.card.setting,
        profile=plan.profile.name,
        metric=metric,
        emotion=emotion,
        value=scored.value if scored else None,
        low=low,
        high=high,
        n_items=len(items),
        n_frames=sum(one.n_frames for one in items),
        n_refused=expected - len(items),
        n_frames_refused=sum(one.n_frames_refused for one in items),
        partial=len(items) < expected,
        kind="control" if plan.method.kind == "control" else "reproduced",
        note=note,
        signature=sign,
    )


def within_range(
    metric: MetricCard, ends: tuple[float | None, float | None]
) -> tuple[float | None, float | None]:
    """Cut an interval off at the metric's range: pseudo-values may lie beyond it."""
    least, most = metric.range
    low, high = ends
    if low is not None and least is not None:
        low = max(low, least)
    if high is not None and most is not None:
        high = min(high, most)
    return low, high


def _note(
    plan: Plan, metric: MetricCard, items: Sequence[MeasuredItem], parts: Sequence[Parts]
) -> str:
    """Return what a reader of the score of some items, of which these are the parts, must know."""
    same = outputs_are_compared(plan, metric, items)
    return kind_of(metric).note(parts, same_clips=same)


def _merged(refusals: Sequence[Refusal]) -> list[Refusal]:
    """Join refusals of one item for one reason over its metrics."""
    joined: dict[tuple[str, str], Refusal] = {}
    for r in refusals:
        before = joined.setdefault((r.item, r.reason), r)
        metrics = tuple(dict.fromkeys(before.metrics + r.metrics))
        joined[r.item, r.reason] = replace(before, metrics=metrics)
    return list(joined.values())


def _item(planned: PlannedItem, metrics: Mapping[str, Any]) -> dict[str, Any]:
    item = planned.item
    contents = {role: content_id(clip) for role, clip in planned.clips.items()}
    content: dict[str, Any] = {
        "id": item.id,
        "speaker": item.speaker,
        "emotion": item.emotion,
        "clips": {
            role: {"address": address, "content": contents.get(role)}
            for role, address in planned.addresses.items()
        },
        "metrics": dict(metrics),
    }
    if item.more_real:
        content["more_real"] = [str(clip) for clip in item.more_real]
    return content
