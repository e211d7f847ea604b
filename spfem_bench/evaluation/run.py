"""From a plan to a run record: features, components, scores."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from functools import cache
from typing import Any

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import (
    FrechetSettings,
    MetricCard,
    Role,
    SimilaritySettings,
)
from spfem_bench.errors import ClipError
from spfem_bench.evaluation.plan import Plan, PlannedItem, Refusal
from spfem_bench.evaluation.record import Score
from spfem_bench.evaluation.signature import settings, signature
from spfem_bench.features.extract import Extractor, Features, Progress
from spfem_bench.features.store import digest
from spfem_bench.media.video import content_id
from spfem_bench.statistics import frechet, similarity, sync
from spfem_bench.statistics.intervals import bootstrap

AVERAGE = "avg"
"""The name of the mean over emotions, in the place of an emotion."""


@dataclass(frozen=True)
class ItemResult:
    """One item's components in one metric."""

    item: str
    emotion: str
    components: Any
    n_frames: int
    n_frames_refused: int
    described: Mapping[str, Any]


def evaluate(plan: Plan, extractor: Extractor, *, workers: int, partial: bool) -> dict[str, Any]:
    """Carry out a plan and return its run record (see ``docs/run_record.md``).

    Args:
        plan: from :func:`~spfem_bench.evaluation.plan.make_plan`.
        extractor: networks, store and settings.
        workers: processes; changes no score.
        partial: give headline scores even when items are missing, marked so.

    Raises:
        StorageError: features cannot be stored; a later run goes on from there.
    """
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    failures = compute_features(extractor, _wants(plan), workers)
    featured = time.perf_counter()
    refusals = list(plan.refusals)
    scores: list[Score] = []
    per_item: dict[str, dict[str, Any]] = {}
    frozen = {}
    for metric in plan.metrics:
        results, refused = _measure(plan, metric, extractor, failures)
        refusals += refused
        frozen[metric.name] = settings(metric, plan.protocol, extractor)
        scores += _score(plan, metric, results, frozen[metric.name], partial=partial)
        for result in results:
            per_item.setdefault(result.item, {})[metric.name] = {
                "n_frames": result.n_frames,
                "n_frames_refused": result.n_frames_refused,
                **result.described,
            }
    refusals = _merged(refusals)
    for name, reason in plan.unavailable.items():
        scores.append(_empty_score(plan, name, reason))
    for name, reason in plan.protocol.card.not_applicable.items():
        scores.append(_empty_score(plan, name, f"not applicable: {reason}"))
    ended = time.perf_counter()
    return {
        "schema": 1,
        "method": {
            "name": plan.method.name,
            "label": plan.method.label,
            "kind": plan.method.kind,
            "paper": plan.method.paper,
            "link": plan.method.link,
        },
        "protocol": {
            "name": plan.protocol.name,
            "version": plan.protocol.card.version,
            "setting": plan.protocol.card.setting,
            "emotions": list(plan.protocol.card.emotions),
            "n_items": len(plan.items),
            "list_sha256": plan.protocol.list_sha256,
            "published": plan.protocol.card.published and plan.protocol.card.published.settings(),
        },
        "profile": plan.profile.name,
        "complete": not refusals and not plan.unavailable,
        "partial": partial,
        "scores": [asdict(s) for s in scores],
        "items": [_item_record(p, per_item.get(p.item.id, {})) for p in plan.items],
        "refused": [asdict(r) for r in refusals],
        "extra": list(plan.extra),
        "settings": frozen,
        "environment": {
            "python": sys.version.split()[0],
            "platform": sys.platform,
            "device": extractor.device,
            "processors": os.cpu_count(),
        },
        "timings": {
            "started": started.isoformat(timespec="seconds"),
            "features_s": round(featured - clock, 3),
            "scores_s": round(ended - featured, 3),
        },
    }


# ---- features ------------------------------------------------------------------------------


def _wants(plan: Plan) -> dict[Clip, frozenset[Role]]:
    wants: dict[Clip, set[Role]] = {}
    for planned in plan.items:
        for metric in plan.metrics:
            if all(role in planned.clips for role in metric.compare):
                for role in metric.compare:
                    wants.setdefault(planned.clips[role], set()).add(metric.role)
    return {clip: frozenset(roles) for clip, roles in wants.items()}


def compute_features(
    extractor: Extractor, wants: Mapping[Clip, frozenset[Role]], workers: int
) -> dict[tuple[Clip, Role], ClipError]:
    """Fill the store with all wanted features, in this process or several.

    Returns:
        Why each clip and role that cannot be had failed.
    """
    if workers <= 1 or len(wants) <= 1:
        return extractor.ensure(wants)
    clips = list(wants)
    # A few clips at a time: enough to share batches, few enough to spread evenly.
    size = max(1, min(8, len(clips) // (2 * workers)))
    parts = [{c: wants[c] for c in clips[i : i + size]} for i in range(0, len(clips), size)]
    quiet = replace(extractor, progress=Progress())
    failures: dict[tuple[Clip, Role], ClipError] = {}
    from multiprocessing import get_context

    with ProcessPoolExecutor(
        workers,
        mp_context=get_context("spawn"),
        initializer=_start_worker,
        initargs=(quiet, workers),
    ) as pool:
        running = {pool.submit(_work, part): part for part in parts}
        for future in as_completed(running):
            failures.update(future.result())
            extractor.progress.finished(len(running[future]))
    return failures


_worker: list[Extractor] = []


def _start_worker(extractor: Extractor, workers: int) -> None:
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))
    _worker.append(extractor)


def _work(wants: Mapping[Clip, frozenset[Role]]) -> dict[tuple[Clip, Role], ClipError]:
    return _worker[0].ensure(wants)


# ---- components ----------------------------------------------------------------------------


def _measure(
    plan: Plan,
    metric: MetricCard,
    extractor: Extractor,
    failures: Mapping[tuple[Clip, Role], ClipError],
) -> tuple[list[ItemResult], list[Refusal]]:
    results, refused = [], []
    for planned in plan.items:
        if any(role not in planned.clips for role in metric.compare):
            continue  # refused by the preflight
        try:
            features = []
            for role in metric.compare:
                clip = planned.clips[role]
                if (clip, metric.role) in failures:
                    raise failures[clip, metric.role]
                loaded = extractor.load(clip, metric.role)
                if loaded is None:
                    raise ClipError(
                        f"{clip}: its features vanished from the store", "Run the command again"
                    )
                features.append(loaded)
            results.append(_components(planned, metric, features))
        except ClipError as error:
            address = planned.addresses[metric.compare[0]]
            refused.append(
                Refusal(
                    planned.item.id, address, (metric.name,), "refused", error.problem, error.remedy
                )
            )
    return results, refused


def _components(
    planned: PlannedItem, metric: MetricCard, features: Sequence[Features]
) -> ItemResult:
    """Turn an item's features into its components in one metric."""
    card, output, clip = metric.statistic, features[0], planned.clips["output"]

    def result(parts: Any, **described: Any) -> ItemResult:
        return ItemResult(
            item=planned.item.id,
            emotion=planned.item.emotion,
            components=parts,
            n_frames=parts.n_frames,
            n_frames_refused=output.n_frames - parts.n_frames,
            described=described,
        )

    if isinstance(card, FrechetSettings):
        own, real = output.outputs[metric.output], features[1].outputs[metric.output]
        moments = frechet.components(own, real, normalise=card.normalise)
        sums = {"output": moments.output.outer, "real": moments.real.outer}
        return result(moments, n_frames_real=moments.real.count, moments_sha256=digest({**sums}))
    if isinstance(card, SimilaritySettings):
        try:
            cosines = similarity.components(
                output, features[1], metric.output, pooling=card.pooling
            )
        except ValueError as error:
            raise ClipError(f"{clip}: {error}") from error
        return result(cosines, total=cosines.total, count=cosines.count)
    windows = len(output.frames)
    if windows < card.min_windows:
        raise ClipError(
            f"{clip}: too short for {metric.label}: {windows} windows of five frames with a face",
            f"The metric's card asks for {card.min_windows}; give a longer clip",
        )
    distances = sync.components(
        output.outputs["visual"], output.outputs["audio"], output.frames, max_shift=card.max_shift
    )
    return result(
        distances,
        totals=distances.totals.tolist(),
        windows=distances.windows,
        windows_refused=distances.refused,
    )


# ---- scores --------------------------------------------------------------------------------


def _aggregator(metric: MetricCard) -> Callable[[Sequence[Any]], float]:
    card = metric.statistic
    if isinstance(card, FrechetSettings):
        return frechet.score
    if isinstance(card, SimilaritySettings):
        return similarity.score
    report = card.report
    return lambda parts: sync.score(parts, report)


def average(results: Sequence[ItemResult], score: Callable[[Sequence[Any]], float]) -> float:
    """Return the plain mean over emotions of the score of each emotion's items."""
    by_emotion: dict[str, list[Any]] = {}
    for result in results:
        by_emotion.setdefault(result.emotion, []).append(result.components)
    values = [score(parts) for parts in by_emotion.values()]
    return sum(values) / len(values)


def _score(
    plan: Plan,
    metric: MetricCard,
    results: Sequence[ItemResult],
    frozen: Mapping[str, Any],
    *,
    partial: bool,
) -> list[Score]:
    plain = _aggregator(metric)

    # A bootstrap draws the same few clips of an emotion again and again.
    @cache
    def of_items(indices: tuple[int, ...]) -> float:
        return plain([results[i].components for i in indices])

    def mean_over_emotions(indices: Sequence[int]) -> float:
        groups: dict[str, list[int]] = {}
        for i in indices:
            groups.setdefault(results[i].emotion, []).append(i)
        values = [of_items(tuple(g)) for g in groups.values()]
        return sum(values) / len(values)

    sign = signature(frozen, plan.profile.name, [r.item for r in results], len(plan.items))
    expected = {
        e: [p for p in plan.items if p.item.emotion == e] for e in plan.protocol.card.emotions
    }

    def row(emotion: str, chosen: list[int], n_expected: int, value: float | None) -> Score:
        scorer = mean_over_emotions if emotion == AVERAGE else lambda d: of_items(tuple(d))
        low = high = None
        why = "incomplete: no headline score without --partial"
        if not chosen:
            why = (
                f"no clip of '{emotion}' could be scored"
                if emotion != AVERAGE
                else "no clip could be scored"
            )
        elif emotion != AVERAGE:
            why = "too few frames"
        if value is not None:
            low, high = bootstrap(len(chosen), lambda drawn: scorer([chosen[i] for i in drawn]))
        return Score(
            method=plan.method.name,
            protocol=plan.protocol.name,
            setting=plan.protocol.card.setting,
            profile=plan.profile.name,
            metric=metric.name,
            emotion=emotion,
            value=value,
            low=low,
            high=high,
            n_items=len(chosen),
            n_frames=sum(results[i].n_frames for i in chosen),
            n_refused=n_expected - len(chosen),
            n_frames_refused=sum(results[i].n_frames_refused for i in chosen),
            partial=len(chosen) < n_expected,
            kind="control" if plan.method.kind == "control" else "reproduced",
            note=_note(metric, [results[i] for i in chosen], plan) if value is not None else why,
            signature=sign,
        )

    rows = []
    for emotion, items in expected.items():
        chosen = [i for i, r in enumerate(results) if r.emotion == emotion]
        try:
            value = of_items(tuple(chosen)) if chosen else None
        except ValueError:
            value = None
        rows.append(row(emotion, chosen, len(items), value))
    everything = list(range(len(results)))
    whole = len(results) == len(plan.items)
    headline = None
    if results and (whole or partial):
        try:
            headline = mean_over_emotions(everything)
        except ValueError:
            headline = None
    rows.append(row(AVERAGE, everything, len(plan.items), headline))
    return rows


def _note(metric: MetricCard, results: Sequence[ItemResult], plan: Plan) -> str:
    """Say what a reader of this number must know."""
    notes = []
    if isinstance(metric.statistic, FrechetSettings):
        by_emotion: dict[str, list[Any]] = {}
        for r in results:
            by_emotion.setdefault(r.emotion, []).append(r.components)
        biased = [n for parts in by_emotion.values() if (n := frechet.note(parts))]
        if len(by_emotion) == 1:
            notes += biased
        elif biased:
            notes.append(f"biased upwards in {len(biased)} of {len(by_emotion)} emotions")
        scored = {r.item for r in results}
        chosen = [p for p in plan.items if p.item.id in scored]
        if all(p.clips["output"] == p.clips["real"] for p in chosen):
            notes.append("the output is the real clip itself")
    if len(results) == 1:
        notes.append("one clip: no interval")
    return "; ".join(notes)


def _empty_score(plan: Plan, metric: str, reason: str) -> Score:
    n_refused = 0 if reason.startswith("not applicable") else len(plan.items)
    return Score(
        method=plan.method.name,
        protocol=plan.protocol.name,
        setting=plan.protocol.card.setting,
        profile=plan.profile.name,
        metric=metric,
        emotion=AVERAGE,
        value=None,
        low=None,
        high=None,
        n_items=0,
        n_frames=0,
        n_refused=n_refused,
        n_frames_refused=0,
        partial=bool(n_refused),
        kind="control" if plan.method.kind == "control" else "reproduced",
        note=reason,
        signature="",
    )


def _merged(refusals: Sequence[Refusal]) -> list[Refusal]:
    """Join refusals of one item for one reason over its metrics."""
    joined: dict[tuple[str, str], Refusal] = {}
    for r in refusals:
        key = (r.item, r.reason)
        if key in joined:
            r = replace(joined[key], metrics=tuple(dict.fromkeys(joined[key].metrics + r.metrics)))
        joined[key] = r
    return list(joined.values())


def _item_record(planned: PlannedItem, metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": planned.item.id,
        "speaker": planned.item.speaker,
        "emotion": planned.item.emotion,
        "clips": {
            role: {
                "address": address,
                "content": content_id(planned.clips[role]) if role in planned.clips else None,
            }
            for role, address in planned.addresses.items()
        },
        "metrics": dict(metrics),
    }
