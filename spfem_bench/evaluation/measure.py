"""From a plan to its items' parts: the features that it needs, and what metrics make of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import ClipRole, MetricCard
from spfem_bench.errors import ClipError
from spfem_bench.evaluation.item_clips import PlannedItem, Refusal
from spfem_bench.evaluation.plan import Plan
from spfem_bench.evaluation.signature import metric_settings
from spfem_bench.features.extract import Extractor
from spfem_bench.features.features import Features
from spfem_bench.features.requests import Failures, Request, load_features
from spfem_bench.media.video import content_id
from spfem_bench.statistics.base import kind_of

HELD = 1 << 29
"""Bytes of large parts that stay in memory while a metric is scored; more are computed again."""


@dataclass(frozen=True)
class MeasuredItem:
    """One item in one metric, and what the run record keeps of it.

    ``held`` is the item's part, or None where ``again`` computes it, and its features.
    """

    item: str
    emotion: str
    held: Any
    n_frames: int
    n_frames_refused: int
    n_frames_interpolated: int
    kept: Mapping[str, Any]
    again: Callable[[], tuple[Any, Features]] | None = None


class Parts(Sequence[Any]):
    """The parts of items, in their order; ``memo`` keeps what a kind has computed of all."""

    def __init__(self, items: Sequence[MeasuredItem]) -> None:
        self._items = items
        self.memo: dict[str, Any] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Parts(self._items[place])
        one = self._items[place]
        return one.again()[0] if one.again else one.held


def parts_of(items: Sequence[MeasuredItem], emotions: Sequence[str]) -> dict[str, Parts]:
    """Return the parts of each emotion that has items, in the order of *emotions*."""
    by_emotion: dict[str, list[MeasuredItem]] = {}
    for one in items:
        by_emotion.setdefault(one.emotion, []).append(one)
    return {e: Parts(by_emotion[e]) for e in emotions if e in by_emotion}


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
    measured, refused, held = [], [], 0
    for planned in plan.items:
        if not plan.scorable(planned, metric):
            continue
        compute = partial(_part, metric, planned, extractor, failures)
        try:
            part, output = compute()
        except _UnusableError as error:
            address, why = planned.addresses[error.role], (error.why.problem, error.why.remedy)
            refused.append(Refusal(planned.item.id, address, (metric.name,), "refused", *why))
            continue
        item, n_frames, kept = planned.item, part.n_frames, kind.kept(part)
        frames = (n_frames, output.n_frames - n_frames, output.n_interpolated)
        held += kind.held_bytes(part)
        again = None if held <= HELD else compute
        part = None if again else part
        measured.append(MeasuredItem(item.id, item.emotion, part, *frames, kept, again))
    return measured, refused


class _UnusableError(Exception):
    """An item cannot be measured because of the clip of one role."""

    def __init__(self, role: ClipRole, why: ClipError) -> None:
        self.role, self.why = role, why


def _part(
    metric: MetricCard, planned: PlannedItem, extractor: Extractor, failures: Failures
) -> tuple[Any, Features]:
    """Return an item's part from stored features, and the features of its output."""
    kind = kind_of(metric)
    role: ClipRole = "output"
    features = {}
    try:
        for role, wanted in item_requests(planned, metric).items():
            features[role] = [load_features(extractor, *one, failures) for one in wanted]
        role = "output"
        part = kind.part(metric, planned.clips["output"], features)
        return kind.of_item(part, planned.item), features["output"][0]
    except ClipError as error:
        raise _UnusableError(role, error) from None


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
    if plan.protocol.dataset.pinned:
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
