"""From a plan to a run record: features, components, scores."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from spfem_bench import provenance
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.metrics import (
    ClipRole,
    CoherenceSettings,
    FrechetSettings,
    MetricCard,
    SimilaritySettings,
    SyncSettings,
)
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.errors import ClipError
from spfem_bench.evaluation.plan import Plan, PlannedItem, Refusal
from spfem_bench.evaluation.record import SCHEMA, Score
from spfem_bench.evaluation.signature import settings, signature
from spfem_bench.features.extract import Extractor
from spfem_bench.features.features import Features
from spfem_bench.features.requests import Failures, PairRequest, Request, load, without_failed
from spfem_bench.features.store import Arrays, arrays_digest
from spfem_bench.media.video import content_id
from spfem_bench.statistics import coherence, frechet, similarity, sync
from spfem_bench.statistics.intervals import drawn, interval, pseudo_values

if TYPE_CHECKING:
    from spfem_bench.execution.workers import Workers


@dataclass(frozen=True)
class ItemResult:
    """One item's components in one metric."""

    item: str
    emotion: str
    components: Any
    n_frames: int
    n_frames_refused: int
    n_frames_interpolated: int
    described: Mapping[str, Any]


def evaluate(
    plan: Plan,
    extractor: Extractor,
    *,
    workers: Workers,
    partial: bool,
    failures: Failures | None = None,
) -> dict[str, Any]:
    """Carry out a plan and return its run record (see ``docs/run_record.md``).

    Args:
        plan: from :func:`~spfem_bench.evaluation.plan.make_plan`.
        extractor: networks, store and settings.
        workers: who computes features; changes no score.
        partial: give headline scores even when items are missing, marked so.
        failures: what is known to fail already, and is not tried again.

    Raises:
        StorageError: features cannot be stored; a later run goes on from there.
    """
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    known = failures or {}
    failures = known | workers.compute(extractor, without_failed(wanted_features(plan), known))
    featured = time.perf_counter()
    refusals = list(plan.refusals)
    scores: list[Score] = []
    per_item: dict[str, dict[str, Any]] = {}
    frozen = {}
    measured: dict[str, list[ItemResult]] = {}
    for metric in plan.metrics:
        same = _measures(metric)
        if same in measured:
            results = measured[same]
        else:
            results, refused = measure(plan, metric, extractor, failures)
            refusals += refused
            if not refused:  # a refusal names its metric
                measured[same] = results
        frozen[metric.name] = frozen_settings(plan, metric, extractor)
        found = resample(metric, results, plan.protocol.card.emotions)
        scores += _score(plan, metric, results, found, frozen[metric.name], partial=partial)
        for result in _described(results, found):
            per_item.setdefault(result.item, {})[metric.name] = {
                "n_frames": result.n_frames,
                "n_frames_refused": result.n_frames_refused,
                "n_frames_interpolated": result.n_frames_interpolated,
                **result.described,
            }
    refusals = _merged(refusals)
    for name, reason in plan.unavailable.items():
        scores.append(_empty_score(plan, name, reason))
    asked = {m.name for m in plan.metrics} | plan.unavailable.keys()
    everything = asked == set(plan.protocol.card.metrics)
    for name, reason in plan.protocol.card.not_applicable.items() if everything else ():
        scores.append(_empty_score(plan, name, f"not applicable: {reason}"))
    ended = time.perf_counter()
    return {
        "schema": SCHEMA,
        "method": {
            "name": plan.method.name,
            "label": plan.method.label,
            "kind": plan.method.kind,
            "control": plan.method.control and plan.method.control.settings(),
            "model": dict(plan.model) or None,
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
        "complete": not plan.unavailable
        and all(s.value is not None and not s.partial for s in scores if s.signature),
        "partial": partial,
        "scores": [s.plain() for s in scores],
        "items": [_item_record(p, per_item.get(p.item.id, {})) for p in plan.items],
        "refused": [asdict(r) for r in refusals],
        "extra": list(plan.extra),
        "settings": frozen,
        "environment": provenance.environment(extractor.device),
        "timings": {
            "started": started.isoformat(timespec="seconds"),
            "features_s": round(featured - clock, 3),
            "scores_s": round(ended - featured, 3),
        },
    }


def frozen_settings(plan: Plan, metric: MetricCard, extractor: Extractor) -> dict[str, Any]:
    """Return everything that can move a metric's numbers in a plan, as plain JSON values."""
    clips = {
        clip
        for planned in plan.items
        for role in metric.compare
        if role in planned.clips
        for clip in planned.seen_as(role)
    }
    return settings(metric, plan.protocol, extractor, clips) | data(plan, metric)


def data(plan: Plan, metric: MetricCard) -> dict[str, str]:
    """Return the hash of a user's own recordings that a metric compares with.

    Nobody publishes hashes of them, so the bytes themselves go into the signature. Pinned
    files and worlds are in the list's hash already.
    """
    if dataset_card(plan.protocol.card.dataset).recordings is None:
        return {}
    found = [
        f"{planned.item.id} {role} {content_id(replace(clip, audio=None))}"
        for planned in plan.items
        for role in metric.compare[1:]
        if role in planned.clips
        for clip in planned.seen_as(role)
    ]
    return {"data": hashlib.sha256("\n".join(found).encode()).hexdigest()} if found else {}


# ---- features ------------------------------------------------------------------------------


def beside(planned: PlannedItem, metric: MetricCard) -> PairRequest | None:
    """Return the clip that a metric of coherence compares the output with, and how."""
    if not isinstance(metric.statistic, CoherenceSettings):
        return None
    settings = metric.statistic
    return PairRequest(planned.clips[metric.compare[1]], settings.max_lag, settings.learned)


def wanted_features(plan: Plan) -> dict[Clip, frozenset[Request]]:
    """Return what has to be seen of which clips before a plan can be scored."""
    wants: dict[Clip, set[Request]] = {}
    for planned in plan.items:
        for metric in plan.metrics:
            if plan.scorable(planned, metric):
                if pair := beside(planned, metric):
                    wants.setdefault(planned.clips["output"], set()).add(pair)
                    continue
                for role in metric.compare:
                    for clip in planned.seen_as(role):
                        wants.setdefault(clip, set()).add(metric.role)
    return {clip: frozenset(roles) for clip, roles in wants.items()}


# ---- components ----------------------------------------------------------------------------


def measure(
    plan: Plan,
    metric: MetricCard,
    extractor: Extractor,
    failures: Mapping[tuple[Clip, Request], ClipError],
) -> tuple[list[ItemResult], list[Refusal]]:
    """Turn stored features into one metric's components.

    Args:
        plan: whose items; those that the preflight refused are passed over.
        metric: one of the plan's.
        extractor: whose store holds the features.
        failures: from :func:`compute_features`.

    Returns:
        The results in the order of the plan's items, and what was refused.
    """
    results, refused = [], []
    for planned in plan.items:
        if not plan.scorable(planned, metric):
            continue  # refused by the preflight
        at_fault: ClipRole = metric.compare[0]
        try:
            if pair := beside(planned, metric):
                results.append(_coherence(planned, metric, pair, extractor, failures))
                continue
            features = []
            for role in metric.compare:
                at_fault = role
                clips = planned.seen_as(role)
                features.append([_loaded(clip, metric, extractor, failures) for clip in clips])
            at_fault = metric.compare[0]
            results.append(_components(planned, metric, features))
        except ClipError as error:
            address = planned.addresses[at_fault]
            reason, remedy = error.problem, error.remedy
            refused.append(
                Refusal(planned.item.id, address, (metric.name,), "refused", reason, remedy)
            )
    return results, refused


def _measures(metric: MetricCard) -> str:
    """Return what decides a metric's components: LSE-D, LSE-C and AV offset have the same."""
    statistic = metric.statistic.model_dump(mode="json", exclude={"report"})
    return json.dumps([metric.role, metric.output, metric.compare, statistic])


def _loaded(
    clip: Clip,
    metric: MetricCard,
    extractor: Extractor,
    failures: Mapping[tuple[Clip, Request], ClipError],
) -> Features:
    """Return what a metric's network has said of a clip.

    Raises:
        ClipError: it could not be asked, or its answer is no use.
    """
    if (clip, metric.role) in failures:
        raise failures[clip, metric.role]
    loaded = extractor.load(clip, metric.role)
    if loaded is None:
        raise ClipError(f"{clip}: its features vanished from the store", "Run the command again")
    if not all(np.isfinite(a).all() for a in loaded.outputs.values()):
        raise ClipError(
            f"{clip}: the {metric.role} network gave no finite numbers",
            "Look at the frames, and at the network's weights",
        )
    return loaded


def _coherence(
    planned: PlannedItem,
    metric: MetricCard,
    pair: PairRequest,
    extractor: Extractor,
    failures: Mapping[tuple[Clip, Request], ClipError],
) -> ItemResult:
    """Turn what was kept of an item's comparison into its components."""
    card, clip = metric.statistic, planned.clips["output"]
    if not isinstance(card, CoherenceSettings):
        raise TypeError(f"{metric.path}: no coherence")
    if (clip, pair) in failures:
        raise failures[clip, pair]
    arrays = load(extractor, clip, pair)
    if arrays is None:
        raise ClipError(f"{clip}: its comparison vanished from the store", "Run the command again")
    try:
        parts = coherence.components(arrays, card.space, card.stages)
    except ValueError as error:
        raise ClipError(f"{clip}: {error}", "Give a clip of several frames with a face") from error
    n_frames, n_interpolated, _ = (int(n) for n in np.asarray(arrays["counts"]))
    return ItemResult(
        item=planned.item.id,
        emotion=planned.item.emotion,
        components=parts,
        n_frames=parts.n_frames,
        n_frames_refused=n_frames - parts.n_frames,
        n_frames_interpolated=n_interpolated,
        described={
            "lag": parts.lag,
            "positive": list(parts.positive),
            "elsewhere": list(parts.elsewhere),
            "near": list(parts.near),
        },
    )


def _components(
    planned: PlannedItem, metric: MetricCard, features: Sequence[Sequence[Features]]
) -> ItemResult:
    """Turn an item's features, by role those of one or several clips, into its components."""
    card, output, clip = metric.statistic, features[0][0], planned.clips["output"]

    def result(parts: Any, **described: Any) -> ItemResult:
        return ItemResult(
            item=planned.item.id,
            emotion=planned.item.emotion,
            components=parts,
            n_frames=parts.n_frames,
            n_frames_refused=output.n_frames - parts.n_frames,
            n_frames_interpolated=output.n_interpolated,
            described=described,
        )

    if isinstance(card, FrechetSettings):
        own = output.outputs[metric.output]
        real = np.concatenate([f.outputs[metric.output] for f in features[1]])
        moments = frechet.components(own, real, normalise=card.normalise)
        sums: Arrays = {}
        for side, part in (("output", moments.output), ("real", moments.real)):
            sums |= {f"{side}.total": part.total, f"{side}.outer": part.outer}
        return result(moments, n_frames_real=moments.real.count, moments_sha256=arrays_digest(sums))
    if isinstance(card, SimilaritySettings):
        try:
            cosines = similarity.components(
                output, features[1][0], metric.output, pooling=card.pooling
            )
        except ValueError as error:
            raise ClipError(f"{clip}: {error}") from error
        if not math.isfinite(cosines.total):
            raise ClipError(f"{clip}: a feature vector of zeros has no cosine")
        return result(cosines, total=cosines.total, count=cosines.count)
    if not isinstance(card, SyncSettings):
        raise TypeError(f"{metric.path}: not made from features of single clips")
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


@dataclass(frozen=True)
class Resampled:
    """A score, and what it becomes when its clips are drawn again.

    Attributes:
        value: NaN when there are too few frames.
        draws: float64 (resamples,); all NaN where a clip's part cannot be told.
        varies: whether there is more than one clip to draw from.
        without: for pooled frames, the score with each clip left out, in the clips' order.
    """

    value: float
    draws: npt.NDArray[np.float64]
    varies: bool
    without: tuple[float | None, ...] = ()

    @property
    def interval(self) -> tuple[float | None, float | None]:
        """The 95 % interval over clips; None twice when a single clip cannot tell."""
        return interval(self.draws) if self.varies else (None, None)

    def __sub__(self, other: Resampled) -> Resampled:
        """Return the change from another score of the same items, draw by draw."""
        return Resampled(
            self.value - other.value, self.draws - other.draws, self.varies and other.varies
        )


def average(scores: Sequence[Resampled]) -> Resampled:
    """Return the plain mean; each draw keeps all emotions, as clips are drawn within each."""
    return Resampled(
        sum(s.value for s in scores) / len(scores),
        np.mean([s.draws for s in scores], axis=0),
        any(s.varies for s in scores),
    )


def resample(
    metric: MetricCard, results: Sequence[ItemResult], emotions: Sequence[str]
) -> dict[str, Resampled]:
    """Score each emotion that has results, with its bootstrap over clips.

    An emotion's draws depend on its place in the protocol and its number of
    clips alone: results on the same items, in the same order, are drawn alike
    and may be subtracted draw by draw.

    Args:
        metric: for its statistic and number of draws.
        results: of that metric.
        emotions: all of the protocol's, in its order.
    """
    of_one = _item_value(metric)
    found = {}
    for stream, emotion in enumerate(emotions):
        parts = [r.components for r in results if r.emotion == emotion]
        if not parts:
            continue
        value, values, without = _pooled(parts) if of_one is None else _mean(map(of_one, parts))
        draws = values[drawn(len(parts), metric.resamples, stream)].mean(axis=1)
        found[emotion] = Resampled(value, draws, len(parts) > 1, without)
    return found


_Parts: TypeAlias = "tuple[float, npt.NDArray[np.float64], tuple[float | None, ...]]"
"""A score, one number for each clip whose mean it is, and the score without each."""


def _mean(values: Iterable[float]) -> _Parts:
    of_each = np.array(list(values))
    return float(of_each.mean()), of_each, ()


def _pooled(parts: Sequence[frechet.FrechetComponents]) -> _Parts:
    """Score pooled frames; clips drawn again would lie too high (``docs/statistics.md``)."""
    try:
        value = frechet.score(parts)
    except ValueError:
        value = math.nan
    without = frechet.without(parts)
    if len(parts) == 1:  # drawn again and again
        return value, np.array([value]), tuple(without)
    if None in without:
        return value, np.full(len(parts), math.nan), tuple(without)
    return value, pseudo_values(value, np.array(without, np.float64)), tuple(without)


def _described(results: Sequence[ItemResult], found: Mapping[str, Resampled]) -> list[ItemResult]:
    """Add, to each item's part of a Frechet distance, its emotion's distance without it.

    With these numbers a record alone tells the errors of differences between methods; the
    matrices they come from are too large for it.
    """
    left = {emotion: iter(scored.without) for emotion, scored in found.items() if scored.without}
    return [
        replace(r, described={**r.described, "without": next(left[r.emotion])})
        if r.emotion in left
        else r
        for r in results
    ]


def _item_value(metric: MetricCard) -> Callable[[Any], float] | None:
    """Return what gives an item its own value, whose mean is the score; None for pooled frames."""
    card = metric.statistic
    if isinstance(card, FrechetSettings):
        return None
    if isinstance(card, SimilaritySettings):
        return similarity.value
    if isinstance(card, CoherenceSettings):
        return coherence.value
    report = card.report
    return lambda part: sync.value(part, report)


def _score(
    plan: Plan,
    metric: MetricCard,
    results: Sequence[ItemResult],
    found: Mapping[str, Resampled],
    frozen: Mapping[str, Any],
    *,
    partial: bool,
) -> list[Score]:
    """Score each emotion and their plain mean, each with its bootstrap over clips."""
    sign = signature(frozen, plan.profile.name, [r.item for r in results], len(plan.items))

    def row(emotion: str, chosen: Sequence[ItemResult], n_expected: int, **more: Any) -> Score:
        return Score(
            method=plan.method.name,
            protocol=plan.protocol.name,
            setting=plan.protocol.card.setting,
            profile=plan.profile.name,
            metric=metric.name,
            emotion=emotion,
            n_items=len(chosen),
            n_frames=sum(r.n_frames for r in chosen),
            n_refused=n_expected - len(chosen),
            n_frames_refused=sum(r.n_frames_refused for r in chosen),
            partial=len(chosen) < n_expected,
            kind="control" if plan.method.kind == "control" else "reproduced",
            signature=sign,
            **more,
        )

    rows: list[Score] = []
    for emotion in plan.protocol.card.emotions:
        n_expected = sum(p.item.emotion == emotion for p in plan.items)
        chosen = [r for r in results if r.emotion == emotion]
        if not chosen:
            note = f"no clip of '{emotion}' could be scored"
            rows.append(row(emotion, [], n_expected, value=None, low=None, high=None, note=note))
            continue
        value = None if math.isnan(found[emotion].value) else found[emotion].value
        low, high = _possible(metric, found[emotion].interval)
        note = "too few frames" if value is None else _note(metric, chosen, plan)
        rows.append(row(emotion, chosen, n_expected, value=value, low=low, high=high, note=note))

    whole = len(results) == len(plan.items)
    known = [s for s in found.values() if not math.isnan(s.value)]
    alone = sum(not s.varies for s in found.values())  # emotions that stand on one clip
    headline, low, high = None, None, None
    note = "incomplete: no headline score without --partial"
    if not results:
        note = "no clip could be scored"
    elif len(known) < len(found):
        note = "too few frames in an emotion"
    elif whole or partial:
        mean = average(known)
        headline, (low, high) = mean.value, _possible(metric, mean.interval)
        note = _note(metric, results, plan)
        if len(known) < len(plan.protocol.card.emotions):
            note += f"{'; ' if note else ''}over {len(known)} of "
            note += f"{len(plan.protocol.card.emotions)} emotions"
        if alone:
            note += (
                f"{'; ' if note else ''}one clip in {alone} of {len(known)} emotions, which the "
            )
            note += "interval cannot see"
    rows.append(
        row(AVERAGE, results, len(plan.items), value=headline, low=low, high=high, note=note)
    )
    return rows


def _possible(
    metric: MetricCard, ends: tuple[float | None, float | None]
) -> tuple[float | None, float | None]:
    """Cut an interval off where the metric ends: numbers for each clip may lie beyond."""
    least, most = metric.range
    low, high = ends
    if low is not None and least is not None:
        low = max(low, least)
    if high is not None and most is not None:
        high = min(high, most)
    return low, high


def _note(metric: MetricCard, results: Sequence[ItemResult], plan: Plan) -> str:
    """Say what a reader of this number must know."""
    if not isinstance(metric.statistic, FrechetSettings):
        return ""
    scored = {r.item for r in results}
    chosen = [p for p in plan.items if p.item.id in scored]
    if all(p.clips["output"] in p.seen_as("real") for p in chosen):
        return "the output is the real clip itself"
    by_emotion: dict[str, list[Any]] = {}
    for r in results:
        by_emotion.setdefault(r.emotion, []).append(r.components)
    return frechet.note(list(by_emotion.values())) or ""


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
        **({"more_real": [str(clip) for clip in more]} if (more := planned.item.more_real) else {}),
        "metrics": dict(metrics),
    }
