"""What one evaluation will do, found out before any network runs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.datasets.provider import Provider
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.methods import MethodCard, method_card
from spfem_bench.definitions.metrics import STAGES, MetricCard, metric_card
from spfem_bench.definitions.networks import NetworkCard, ProfileCard, profile_card
from spfem_bench.definitions.protocols import Protocol, load_protocol
from spfem_bench.errors import CardError, ClipError, UnknownNameError, listed_name, near_names
from spfem_bench.evaluation.controls import at_level, control_outputs, controls, why_not
from spfem_bench.evaluation.item_clips import PlannedItem, Refusal, find_clips
from spfem_bench.evaluation.outputs import Videos, find_outputs
from spfem_bench.evaluation.record import VALIDATION
from spfem_bench.evaluation.signature import network_of
from spfem_bench.features.extract import Faces
from spfem_bench.networks.weights import WeightsStore, remedy
from spfem_bench.progress import SILENT, Progress


@dataclass(frozen=True)
class Plan:
    """One evaluation, resolved.

    Attributes:
        unavailable: metrics that cannot be, with the reason and remedy.
        extra: files in the user's folder that no item expects.
        model: what decided clips that a model made on the spot; empty for other methods.
        note: one line for the user where a toy took the place of the system that was named, or
            clips are read in a way that the user should know.
        reading: how the data set's clips are read, where that is not as usual.
        left_out: metrics that were not asked for by name and have no networks here.
    """

    method: MethodCard
    protocol: Protocol
    profile: ProfileCard
    metrics: tuple[MetricCard, ...]
    unavailable: Mapping[str, str]
    items: tuple[PlannedItem, ...]
    refusals: tuple[Refusal, ...]
    extra: tuple[str, ...] = ()
    model: Mapping[str, Any] = field(default_factory=dict)
    note: str = ""
    reading: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def without_unavailable(self) -> Plan:
        """Return the plan with its unavailable metrics left out, if others remain."""
        if not self.metrics:
            return self
        return replace(self, unavailable={}, left_out=tuple(self.unavailable))

    def scorable(self, item: PlannedItem, metric: MetricCard) -> bool:
        """Whether the preflight has found all that a metric needs of an item."""
        return (item.item.id, metric.name) not in self._refused

    @cached_property
    def _refused(self) -> frozenset[tuple[str, str]]:
        return frozenset((r.item, metric) for r in self.refusals for metric in r.metrics)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing so far."""
        return not self.refusals and not self.unavailable


def make_plan(
    method: str,
    protocol: Protocol,
    profile: ProfileCard,
    *,
    data: DataFolders,
    weights: WeightsStore,
    metrics: Sequence[str] = (),
    videos: Videos | None = None,
    level: float | None = None,
    progress: Progress = SILENT,
) -> Plan:
    """Resolve names, find clips, read their headers, look for weights.

    *method* is a registered method or control, or any name with *videos*, the user's own outputs.
    All *metrics* of the protocol are computed when none is named; each may be replaced by the
    profile's variant of it. *level* takes the place of the level on a graded control's card. Raises
    UnknownNameError when the protocol has no such method or metric, and CardError for a level that
    the method does not have.
    """
    provider = data.provider(protocol.dataset)
    if videos:
        videos.check()
        card = _own_method(method, protocol, provider)
    else:
        card = _listed_method(method, protocol, provider)
    if level is not None:
        card = at_level(card, level)
    note = ""
    if card.stands_for and method not in (card.name, *card.aliases):
        note = (
            f"'{method}' on '{provider.card.name}' is {card.label} ({card.name}), a small copy "
            f"for drawn clips: see {card.link}"
        )
    reading = provider.reading(card.name)
    note = note or provider.remark(card.name)
    outputs, extra, model = _outputs(card, protocol, provider, videos)
    wanted = _metrics(metrics, protocol, profile)
    unavailable = _missing_weights(wanted, protocol, profile, weights)
    usable = tuple(m for m in wanted if m.name not in unavailable)
    found: list[tuple[PlannedItem, list[Refusal]]] = []
    if usable or not provider.makes_clips:  # no clips are made that no metric compares
        _make_clips(protocol, usable, {} if videos else outputs, provider, progress)
        # Each file is checked once for this plan, however many items use it.
        verified = cache(provider.verified)
        folder, recorded = videos.folder if videos else None, not provider.makes_clips
        for item in (i for i in protocol.items if i.id in outputs):
            output = outputs[item.id]
            found.append(
                find_clips(item, output, wanted, verified, check_readable=recorded, videos=folder)
            )
    items = tuple(item for item, _ in found)
    refusals = tuple(refusal for _, refused in found for refusal in refused)
    own = (items, refusals, extra, model, note, reading)
    return Plan(card, protocol, profile, usable, unavailable, *own)


def check_method_name(name: str) -> None:
    """Raise UnknownNameError for a name of a user's method that no record can be named after."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise UnknownNameError(
            f"'{name}' is no name for a method",
            "Use letters, digits, '.', '_' and '-': the run record is named after it",
        )
    if name == VALIDATION:
        raise UnknownNameError(
            f"'{name}' is what a validation's record is named after", "Give yours another name"
        )


def _own_method(name: str, protocol: Protocol, provider: Provider) -> MethodCard:
    """Return the card of a user's method, which must not be taken for one that has clips."""
    check_method_name(name)
    made = provider.methods(protocol.items[0])
    taken = {*protocol.card.outputs, *made, *(card.stands_for for card in made.values())}
    try:
        card = method_card(name)
    except UnknownNameError:
        card = MethodCard(name=name, title=name, label=name, path=Path(name))
    if card.kind == "control" or card.name in taken:
        raise UnknownNameError(
            f"'{name}' already has clips in '{protocol.name}', which yours would be taken for",
            f"Give yours another name, for example --method my-{card.name}",
        )
    return card


def _listed_method(name: str, protocol: Protocol, provider: Provider) -> MethodCard:
    """Return the card of a method or control that the protocol has clips of."""
    made = provider.methods(protocol.items[0])
    available = [*dict.fromkeys([*protocol.card.outputs, *made])]
    here = ", ".join([*available, *(control.name for control in controls(protocol))])
    try:
        card = made[name] if name in made else method_card(name)
    except UnknownNameError as error:
        if name in protocol.card.outputs:  # a user's own, on a list of their own clips
            check_method_name(name)
            return MethodCard(name=name, title=name, label=name, path=Path(name))
        raise UnknownNameError(
            error.problem, f"{error.remedy}. To score your own clips, add --videos DIR"
        ) from None
    if card.control is not None:
        if reason := why_not(card, protocol):
            raise UnknownNameError(f"no control '{card.name}' here: {reason}", f"It has: {here}")
        return card
    if card.name in available:
        return card
    for toy in made.values():
        if toy.stands_for == card.name:
            return toy
    elsewhere = [n for n in names(Kind.PROTOCOL) if card.name in load_protocol(n).outputs]
    clips = f"The authors' are in --protocol {elsewhere[0]}. " if elsewhere else ""
    raise UnknownNameError(
        f"the protocol '{protocol.name}' has no clips of '{card.name}'",
        f"It has: {here}. {clips}To score your own, add --videos DIR",
    )


def _outputs(
    card: MethodCard, protocol: Protocol, provider: Provider, videos: Videos | None
) -> tuple[Mapping[str, Clip | ClipError], tuple[str, ...], Mapping[str, Any]]:
    """Return each item's output or why there is none, extra files, and what a model is.

    Items that a control cannot have are left out: those without a real clip.
    """
    if videos:
        placed, extra = find_outputs(videos, protocol, provider)
        return {one.item: one.clip for one in placed}, extra, {}
    if card.control:
        return control_outputs(card, protocol), (), {}
    if card.name in protocol.card.outputs:
        return {item.id: item.outputs[card.name] for item in protocol.items}, (), {}
    made: dict[str, Clip | ClipError] = {}
    for item in protocol.items:
        try:
            made[item.id] = provider.output(card.name, item)
        except ClipError as error:
            made[item.id] = error
    return made, (), provider.identity(card.name)


def _make_clips(
    protocol: Protocol,
    metrics: Sequence[MetricCard],
    outputs: Mapping[str, Clip | ClipError],
    provider: Provider,
    progress: Progress,
) -> None:
    """Make the clips that the metrics compare and the provider lacks."""
    roles = {role for metric in metrics for role in metric.compare}
    clips = [
        outputs.get(item.id) if role == "output" else item.clips.get(role)
        for item in protocol.items
        for role in roles
    ]
    clips += [clip for item in protocol.items if "real" in roles for clip in item.more_real]
    paths = [clip.path.as_posix() for clip in clips if isinstance(clip, Clip)]
    if lacking := provider.lacking(paths):
        provider.make(lacking, progress)


def _metrics(given: Sequence[str], protocol: Protocol, profile: ProfileCard) -> list[MetricCard]:
    """Return the metrics that are computed: the protocol's, or the profile's variants of them."""
    allowed = (*protocol.card.metrics, *protocol.card.on_request)
    published = {variant: name for name, variant in profile.variants.items()}
    wanted = []
    known = (*allowed, *protocol.card.not_applicable, *published)
    for asked in (listed_name(name, known) for name in given or protocol.card.metrics):
        name = published.get(asked, asked)
        if name in protocol.card.not_applicable:
            raise UnknownNameError(
                f"the metric '{name}' is not applicable to '{protocol.name}': "
                f"{protocol.card.not_applicable[name]}",
                f"Allowed: {', '.join(allowed)}",
            )
        card = metric_card(profile.variant(name))
        if name == asked and card.variant_of in allowed and asked not in allowed:
            able = [n for n in names(Kind.PROFILE) if asked in profile_card(n).variants.values()]
            raise UnknownNameError(
                f"the metric '{asked}' is not computed with the profile '{profile.name}'",
                f"Type {card.variant_of}, or name a profile that has it with --profile: "
                f"{', '.join(able)}",
            )
        if lacking := set(card.compare) - {"output", *protocol.card.clips}:
            raise UnknownNameError(
                f"the metric '{card.name}' compares with '{min(lacking)}', of which "
                f"'{protocol.name}' has no clips",
                f"Allowed: {', '.join(allowed)}",
            )
        wanted.append(card)
    return list(dict.fromkeys(wanted))


def _missing_weights(
    metrics: Sequence[MetricCard], protocol: Protocol, profile: ProfileCard, weights: WeightsStore
) -> dict[str, str]:
    """Return the metrics whose networks have no weights here, with reason and remedy."""
    check = cache(weights.check)
    unavailable: dict[str, str] = {}
    for metric in metrics:
        for card in metric_networks(metric, profile, protocol.card.faces):
            if problem := check(card).problem:
                unavailable.setdefault(metric.name, f"{problem}. {remedy(card)}")
    return unavailable


def metric_networks(metric: MetricCard, profile: ProfileCard, faces: Faces) -> list[NetworkCard]:
    """Return the networks that a metric needs: the one that it compares with, and a detector.

    Raises CardError when the first has no such output, or the profile lacks one.
    """
    network = network_of(metric, profile)
    if metric.output == STAGES:
        from spfem_bench.stccl.backbone import check_stages

        check_stages(network)
    elif metric.output not in network.outputs:
        raise CardError(
            f"{metric.path}: '{network.name}' has no output '{metric.output}'",
            near_names(metric.output, network.outputs),
        )
    return [network, *([profile.network("detector")] if faces == "detect" else [])]
