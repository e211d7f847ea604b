"""From a plan to its items' parts: the features that it needs, and what metrics make of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.metrics import ClipRole, MetricCard
from spfem_bench.errors import ClipError
from spfem_bench.evaluation.item_clips import PlannedItem, Refusal
from spfem_bench.evaluation.plan import Plan
from spfem_bench.evaluation.signature import metric_settings
from spfem_bench.features.extract import Extractor
from spfem_bench.features.requests import Failures, Request, load_features
from spfem_bench.media.video import content_id
from spfem_bench.statistics.base import kind_of


@dataclass(frozen=True)
class MeasuredItem:
    """One item in one metric: its part, computed by the kind, and what the run record keeps."""

    item: str
    emotion: str
    part: Any
    n_frames: int
    n_frames_refused: int
    n_frames_interpolated: int
    kept: Mapping[str, Any]


def compared_clips(planned: PlannedItem, metric: MetricCard) -> dict[ClipRole, tuple[Clip, ...]]:
    """Return the clips of an item that a metric compares, by role; those that are there.

    There are none of the role ``real`` where the item has no real clip of its own.
    """
    there = {*planned.clips, *({"real"} - planned.item.clips.keys())}
    return {role: planned.seen_as(role) for role in metric.compare if role in there}


def item_requests(
    planned: PlannedItem, metric: MetricCard
) -> dict[ClipRole, list[tuple[Clip, Request]]]:
    """Return the features that a metric needs of an item, by the role of the clip at fault."""
    return kind_of(metric).requests(metric, compared_clips(planned, metric))


def plan_requests(plan: Plan) -> dict[Clip, frozenset[Request]]:
    """Return the features that a plan's scores need."""
    requests: dict[Clip, set[Request]] = {}
    for planned in plan.items:
        for metric in plan.metrics:
            if plan.scorable(planned, metric):
                for wanted in item_requests(planned, metric).values():
                    for clip, request in wanted:
                        requests.setdefault(clip, set()).add(request)
    return {clip: frozenset(wanted) for clip, wanted in requests.items()}


def measure(
    plan: Plan, metric: MetricCard, extractor: Extractor, failures: Failures
) -> tuple[list[MeasuredItem], list[Refusal]]:
    """Return the items' parts in one metric, from stored features, and the items that have none.

    Items that the preflight refused are in neither. *failures* are requests that have no features.
    """
    kind = kind_of(metric)
    measured, refused = [], []
    for planned in plan.items:
        if not plan.scorable(planned, metric):
            continue
        role: ClipRole = "output"
        try:
            features = {}
            for role, wanted in item_requests(planned, metric).items():
                features[role] = [load_features(extractor, *one, failures) for one in wanted]
            role, output = "output", features["output"][0]
            part = kind.part(metric, planned.clips["output"], features)
            part = kind.of_item(part, planned.item)
            item, n_frames = planned.item, part.n_frames
            frames = (n_frames, output.n_frames - n_frames, output.n_interpolated)
            measured.append(MeasuredItem(item.id, item.emotion, part, *frames, kind.kept(part)))
        except ClipError as error:
            address, why = planned.addresses[role], (error.problem, error.remedy)
            refused.append(Refusal(planned.item.id, address, (metric.name,), "refused", *why))
    return measured, refused


def frozen_settings(plan: Plan, metric: MetricCard, extractor: Extractor) -> dict[str, Any]:
    """Return everything that can move a metric's numbers in a plan, as plain JSON values.

    Nobody publishes hashes of a user's own recordings, so their bytes go into the signature.
    Pinned files and drawn clips are in the list's hash already.
    """
    by_item = [(p.item.id, compared_clips(p, metric)) for p in plan.items]
    clips = {clip for _, roles in by_item for some in roles.values() for clip in some}
    frozen = metric_settings(metric, plan.protocol, extractor, clips)
    if plan.reading:
        frozen["reading"] = dict(plan.reading)
    if dataset_card(plan.protocol.card.dataset).pinned:
        return frozen
    lines = [
        f"{item} {role} {content_id(replace(clip, audio=None, skip=0))}"
        for item, roles in by_item
        for role in metric.compare[1:]
        for clip in roles.get(role, ())
    ]
    if lines:
        frozen["data"] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return frozen


def outputs_are_compared(plan: Plan, metric: MetricCard, items: Sequence[MeasuredItem]) -> bool:
    """Return whether each item's output is itself one of the clips that it is compared with."""
    ids = {one.item for one in items}
    return all(
        planned.clips["output"] in planned.seen_as(role)
        for planned in plan.items
        if planned.item.id in ids
        for role in metric.compare[1:]
    )
