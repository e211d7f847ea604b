"""What one evaluation will do, found out before any network runs."""

from __future__ import annotations

import glob
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache, cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.datasets.layouts import SOUNDS, Placed, State, place
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.layouts import LayoutCard
from spfem_bench.definitions.methods import MethodCard, method_card
from spfem_bench.definitions.metrics import STAGES, ClipRole, MetricCard, metric_card
from spfem_bench.definitions.networks import NetworkCard, ProfileCard
from spfem_bench.definitions.protocols import Item, Protocol
from spfem_bench.definitions.protocols import protocol as read
from spfem_bench.errors import (
    CardError,
    ClipError,
    MissingClipError,
    SpfemBenchError,
    StorageError,
    UnknownNameError,
    UnsuitedClipError,
    near_names,
    unknown_name,
)
from spfem_bench.evaluation.controls import at_level, control_outputs, controls, why_not
from spfem_bench.evaluation.record import VALIDATION
from spfem_bench.evaluation.signature import network_of
from spfem_bench.features.store import FeatureStore
from spfem_bench.files import Listing, inside
from spfem_bench.media import ffmpeg
from spfem_bench.media.video import VIDEO_SUFFIXES, Unchanged, file_sha256, numbered_pictures
from spfem_bench.networks.weights import WeightsStore, remedy
from spfem_bench.progress import SILENT, Progress

LISTED = 50
"""Missing files that the preflight names one by one."""


@dataclass(frozen=True)
class Refusal:
    """Why an item has no score in some metrics.

    Attributes:
        clip: the address of the clip at fault.
        kind: ``missing`` or ``unreadable`` (found before any network ran), or ``refused``.
    """

    item: str
    clip: str
    metrics: tuple[str, ...]
    kind: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class PlannedItem:
    """An item with its clips found on this machine.

    Attributes:
        clips: by role, with paths on this machine.
        addresses: by role, as recorded: relative to the data set or the videos' folder.
        more_real: the item's further real clips, where it has several.
    """

    item: Item
    clips: Mapping[ClipRole, Clip]
    addresses: Mapping[ClipRole, str]
    more_real: tuple[Clip, ...] = ()

    def seen_as(self, role: ClipRole) -> tuple[Clip, ...]:
        """Return the clips of one role: one, or several real ones."""
        return (self.clips[role], *(self.more_real if role == "real" else ()))


@dataclass(frozen=True)
class Plan:
    """One evaluation, resolved.

    Attributes:
        metrics: those that will be computed.
        unavailable: metrics that cannot be, with the reason and remedy.
        refusals: what the preflight found missing or unreadable.
        extra: files in the user's folder that no item expects.
        model: what decided clips that a model made on the spot; empty for other methods.
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

    def scorable(self, item: PlannedItem, metric: MetricCard) -> bool:
        """Whether the preflight has found all that a metric needs of an item."""
        refused = (r for r in self.refusals if r.item == item.item.id)
        return not any(metric.name in r.metrics for r in refused)

    @property
    def complete(self) -> bool:
        """Whether nothing is missing so far."""
        return not self.refusals and not self.unavailable


@dataclass(frozen=True)
class Videos:
    """A user's folder of outputs.

    Attributes:
        frame_rate: for outputs that are folders of frames.
        layout: how the system that wrote them names outputs; as the protocol expects when None.
    """

    folder: Path
    frame_rate: float | None = None
    layout: LayoutCard | None = None
    used: set[str] = field(default_factory=set)

    @cached_property
    def _listing(self) -> Listing:
        return Listing(self.folder)

    def clip(self, item: Item) -> Clip:
        """Return the output of an item: its expected name, or that stem as another kind.

        Raises:
            ClipError: it is not there, or there twice; says the exact name expected.
        """
        stem = PurePosixPath(item.output_name).with_suffix("").as_posix()
        inside(self.folder, item.output_name)
        names = dict.fromkeys([item.output_name, *(stem + s for s in VIDEO_SUFFIXES)])
        found = [n for name in names for n in self._find(name) if (self.folder / n).is_file()]
        found += [n for n in self._find(stem) if (self.folder / n).is_dir()]
        if not found:
            raise MissingClipError(
                f"{self.folder / item.output_name}: missing",
                "Names must be exactly these; .avi, .mov, .mkv, .webm, or a folder of frames will "
                "do in the place of .mp4",
            )
        if len(found) > 1:
            raise ClipError(f"{self.folder}: {' and '.join(found)} for one item", "Keep one")
        self.used.add(found[0])
        clip = Clip(self.folder / found[0])
        if not clip.path.is_dir():
            return clip
        sounds = [n for name in SOUNDS for n in self._find(name.format(folder=found[0]))]
        if len(sounds) > 1:
            raise ClipError(f"{self.folder}: {' and '.join(sounds)} for one item", "Keep one")
        self.used.update(sounds)
        audio = self.folder / sounds[0] if sounds else None
        return replace(clip, frame_rate=self.frame_rate, audio=audio)

    def _find(self, name: str) -> list[str]:
        return self._listing.find(glob.escape(name))

    def extra(self) -> tuple[str, ...]:
        """Return the names in the folder that no item took."""
        top = {Path(n).parts[0] for n in self.used}
        names = (p.name for p in self.folder.iterdir() if p.name[0] != ".")
        return tuple(sorted(n for n in names if n not in top))


def place_outputs(
    videos: Videos, protocol: Protocol, data: DataFolders
) -> tuple[list[Placed], tuple[str, ...]]:
    """Find every item's output in a user's folder, and what is no item's; nothing is written.

    Raises:
        CardError: the layout does not fit the protocol.
        ClipError: the folder does not exist.
    """
    if not videos.folder.is_dir():
        raise ClipError(f"{videos.folder}: no such folder", "Give the folder of your outputs")
    if videos.layout:
        dataset = dataset_card(protocol.card.dataset)
        if dataset.world:
            raise CardError(
                f"layouts are for recordings; the items of '{protocol.name}' are drawn",
                "Name outputs after the items, ID.mp4, and leave out --layout",
            )

        def source_of(item: Item, heard: bool) -> Clip:
            clip = replace(item.clips["source"], audio=None)
            if heard and (sound := item.clips["source"].audio):
                clip = replace(clip, audio=data.verified(dataset, sound.as_posix()))
            return replace(clip, path=data.verified(dataset, clip.path.as_posix()))

        return place(videos.layout, videos.folder, protocol, source_of, videos.frame_rate)
    placed = []
    for item in protocol.items:
        try:
            clip = videos.clip(item)
            name = clip.path.relative_to(videos.folder).as_posix()
            heard = clip.audio or (not clip.path.is_dir() and ffmpeg.probe(clip.path).has_audio)
            placed.append(Placed(item.id, "found", (name,), clip, "own" if heard else "none"))
        except ClipError as error:
            state: State = "absent" if isinstance(error, MissingClipError) else "ambiguous"
            placed.append(Placed(item.id, state, (item.output_name,), error))
    return placed, videos.extra()


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

    Args:
        method: a registered method or control, or any name with *videos*.
        protocol: the items to score.
        profile: the networks to use.
        data: where data sets are looked for.
        weights: where weights are looked for.
        metrics: those wanted; all of the protocol's when empty.
        videos: the user's own outputs.
        level: how much a graded control does, in the place of its card's own level.
        progress: has the phase ``render`` when clips of a world are rendered first.

    Raises:
        UnknownNameError: no such method in this protocol, or no such metric.
        CardError: a level that the method does not have.
    """
    card = _method(method, protocol, videos)
    if level is not None:
        card = at_level(card, level)
    outputs: Mapping[str, Clip | ClipError | Videos | Placed]
    extra: tuple[str, ...] = ()
    model: Mapping[str, Any] = {}
    if videos and videos.layout:
        placed, extra = place_outputs(videos, protocol, data)
        outputs = {p.item: p for p in placed}
    elif card.control:
        outputs = control_outputs(card, protocol)
    elif videos is None and card.name in made_here(protocol):
        from spfem_bench.puppets.mini_ned.model import identity, model_path

        outputs = {i.id: i.made_by(card.name) for i in protocol.items}
        model = identity(model_path(card.name))
    else:
        outputs = {i.id: videos or i.outputs[card.name] for i in protocol.items}
    wanted = _metrics(metrics, protocol)
    unavailable = dict(_missing_weights(wanted, protocol, profile, weights))
    usable = tuple(m for m in wanted if m.name not in unavailable)
    dataset = dataset_card(protocol.card.dataset)
    if not usable and dataset.world:  # drawn for nobody to look at
        return Plan(card, protocol, profile, (), unavailable, (), (), extra)
    _render(protocol, usable, outputs, data, progress)
    items: list[PlannedItem] = []
    refusals: list[Refusal] = []
    # Each of a data set's files is looked at once for this plan, however many items it is in.
    find = cache(partial(data.verified, dataset))
    check = None if dataset.world else cache(_check_readable)
    for item in protocol.items:
        planned, refused = _find_clips(item, outputs[item.id], wanted, find, check, videos)
        items.append(planned)
        refusals += refused
    return Plan(
        card,
        protocol,
        profile,
        usable,
        unavailable,
        tuple(items),
        tuple(refusals),
        videos.extra() if videos and not videos.layout else extra,
        model,
    )


def made_here(protocol: Protocol) -> list[str]:
    """Return the models that make a protocol's clips on the spot."""
    if not protocol.card.generated:
        return []
    from spfem_bench.puppets.mini_ned.config import models

    return [name for name in models() if name not in protocol.card.outputs]


def _method(name: str, protocol: Protocol, videos: Videos | None) -> MethodCard:
    if videos is not None:
        if not videos.folder.is_dir():
            raise ClipError(f"{videos.folder}: no such folder", "Give the folder of your outputs")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
            raise UnknownNameError(
                f"'{name}' is no name for a method",
                "Use letters, digits, '.', '_' and '-': the run record is named after it",
            )
        if name == VALIDATION:
            raise UnknownNameError(
                f"'{name}' is what a validation's record is named after", "Give yours another name"
            )
        try:
            card = method_card(name)
        except UnknownNameError:
            return MethodCard(name=name, title=name, label=name, path=Path(name))
        if card.kind == "control" or card.name in (*protocol.card.outputs, *made_here(protocol)):
            raise UnknownNameError(
                f"'{name}' already has clips in '{protocol.name}', which yours would be taken for",
                f"Give yours another name, for example --method my-{card.name}",
            )
        return card
    made = made_here(protocol)
    here = ", ".join([*protocol.card.outputs, *made, *(c.name for c in controls(protocol))])
    try:
        card = method_card(name)
    except UnknownNameError as error:
        if name in made:
            return MethodCard(name=name, title=name, label=name, path=Path(name))
        raise UnknownNameError(
            error.problem,
            f"{error.remedy}. To score your own clips, add --videos DIR",
        ) from None
    if card.control is None and card.name not in (*protocol.card.outputs, *made):
        elsewhere = [n for n in names(Kind.PROTOCOL) if card.name in read(n).card.outputs]
        clips = f"The authors' are in --protocol {elsewhere[0]}. " if elsewhere else ""
        raise UnknownNameError(
            f"the protocol '{protocol.name}' has no clips of '{card.name}'",
            f"It has: {here}. {clips}To score your own, add --videos DIR",
        )
    if card.control is not None and (reason := why_not(card, protocol)):
        raise UnknownNameError(f"no control '{card.name}' here: {reason}", f"It has: {here}")
    return card


def _metrics(names: Sequence[str], protocol: Protocol) -> list[MetricCard]:
    allowed = (*protocol.card.metrics, *protocol.card.on_request)
    for name in names:
        metric_card(name)
        if name in protocol.card.not_applicable:
            raise UnknownNameError(
                f"the metric '{name}' is not applicable to '{protocol.name}': "
                f"{protocol.card.not_applicable[name]}",
                f"Allowed: {', '.join(allowed)}",
            )
        if name not in allowed:
            raise unknown_name(f"metric of '{protocol.name}'", name, allowed)
    return [metric_card(n) for n in dict.fromkeys(names or protocol.card.metrics)]


def _missing_weights(
    metrics: Sequence[MetricCard],
    protocol: Protocol,
    profile: ProfileCard,
    weights: WeightsStore,
) -> Mapping[str, str]:
    problems: dict[str, str] = {}

    def lacking(card: NetworkCard) -> str:
        if card.name not in problems:
            problems[card.name] = weights.check(card).problem
        return f"{problems[card.name]}. {remedy(card)}" if problems[card.name] else ""

    found = {}
    for metric in metrics:
        cards = [network_of(metric, profile)]
        if metric.output == STAGES:
            from spfem_bench.stccl.backbone import check_stages

            check_stages(cards[0])
        elif metric.output not in cards[0].outputs:
            raise CardError(
                f"{metric.path}: '{cards[0].name}' has no output '{metric.output}'",
                near_names(metric.output, cards[0].outputs),
            )
        if protocol.card.faces == "detect":
            cards.append(profile.network("detector"))
        reason = next(filter(None, map(lacking, cards)), "")
        if reason:
            found[metric.name] = reason
    return found


def _render(
    protocol: Protocol,
    metrics: Sequence[MetricCard],
    outputs: Mapping[str, Clip | ClipError | Videos | Placed],
    data: DataFolders,
    progress: Progress,
) -> None:
    """Render the clips that the metrics compare, where the data set is a world."""
    dataset = dataset_card(protocol.card.dataset)
    roles = {role for metric in metrics for role in metric.compare}
    clips = [outputs[i.id] if r == "output" else i.clips[r] for i in protocol.items for r in roles]
    clips += [clip for i in protocol.items if "real" in roles for clip in i.more_real]
    paths = [clip.path.as_posix() for clip in clips if isinstance(clip, Clip)]
    if lacking := data.lacking(dataset, paths):
        progress.begin("render", len(lacking), "clip")
        data.render(dataset, lacking, partial(progress.advance, "render"))
        progress.end("render")


def _find_clips(
    item: Item,
    output: Clip | ClipError | Videos | Placed,
    metrics: Sequence[MetricCard],
    find: Callable[[str], Path],
    check: Callable[[Clip], None] | None,
    videos: Videos | None,
) -> tuple[PlannedItem, list[Refusal]]:
    """Find an item's clips; what is missing or unreadable is refused for the metrics it hits.

    Args:
        item: one of the protocol's.
        output: the listed clip, why there is none, the user's folder, or what lies in it.
        metrics: those wanted.
        find: gives a data set's file on this machine, or raises.
        check: looks whether a data set's clip can be read; None for one that was drawn here.
        videos: the user's own outputs.
    """
    addresses: dict[ClipRole, str] = {role: str(clip) for role, clip in item.clips.items()}
    clips: dict[ClipRole, Clip] = {}
    more_real: list[Clip] = []
    refusals = []

    def refuse(role: ClipRole, error: ClipError, hit: tuple[str, ...]) -> None:
        kind = "missing" if isinstance(error, MissingClipError) else "unreadable"
        if isinstance(error, UnsuitedClipError):
            kind = "refused"
        addresses.setdefault(role, item.output_name)
        refusals.append(Refusal(item.id, addresses[role], hit, kind, error.problem, error.remedy))

    def local(role: ClipRole, listed: Clip) -> Clip:
        """Return a data set's clip with its paths on this machine."""
        clip = replace(listed, path=find(listed.path.as_posix()))
        if clip.audio is not None:
            try:
                clip = replace(clip, audio=find(clip.audio.as_posix()))
            except ClipError as error:
                deaf = (m.name for m in metrics if role in m.compare and m.role == "sync")
                if hit := tuple(deaf):
                    refuse(role, error, hit)
                clip = replace(clip, audio=None)  # the other metrics look at the pictures
        if check:
            check(clip)
        return clip

    needed: list[ClipRole] = list(dict.fromkeys(r for m in metrics for r in m.compare))
    for role in needed:
        try:
            listed = output if role == "output" else item.clips[role]
            if isinstance(listed, ClipError):
                raise listed
            if isinstance(listed, (Videos, Placed)) and videos:
                clip = _output(listed, item)
                addresses[role] = _told(clip, videos.folder, item)
                _check_readable(clip)
            elif isinstance(listed, Clip):
                addresses[role] = str(listed)
                clip = local(role, listed)
            if role == "real":
                more_real += [local(role, more) for more in item.more_real]
            clips[role] = clip
        except ClipError as error:
            refuse(role, error, tuple(m.name for m in metrics if role in m.compare))
    return PlannedItem(item, clips, addresses, tuple(more_real)), refusals


def _output(listed: Videos | Placed, item: Item) -> Clip:
    """Return an item's output in the user's folder.

    Raises:
        ClipError: why there is none.
    """
    found = listed.clip if isinstance(listed, Placed) else listed.clip(item)
    if isinstance(found, ClipError):
        raise found
    return found


def _told(clip: Clip, folder: Path, item: Item) -> str:
    """Return an output's address: below the user's folder, its sound perhaps the data set's."""
    sound = clip.audio
    if sound is not None:
        source = item.clips.get("source")
        own = sound.is_relative_to(folder)
        sound = sound.relative_to(folder) if own or source is None else source.audio or source.path
    return str(replace(clip, path=clip.path.relative_to(folder), audio=sound))


def _check_readable(clip: Clip) -> None:
    if clip.path.is_dir():
        numbered_pictures(clip)
        return
    unchanged = Unchanged.since(Clip(clip.path))
    if not _has_pictures(file_sha256(clip.path), unchanged):
        raise ClipError(f"{clip.path}: has no video stream", "Give a video, not a sound file")


@cache
def _has_pictures(sha256: str, unchanged: Unchanged) -> bool:
    """Look into a file once, however often it is planned: what was found is stored."""
    store, header = FeatureStore.locate(), {"pictures": sha256, "ffmpeg": ffmpeg.version()}
    if store.has(header):
        return True
    if ffmpeg.probe(unchanged.clip.path).size is None:
        return False
    unchanged.check()
    with suppress(StorageError):  # said when features are to be stored
        store.put(header, {})
    return True


def plan_summary(plan: Plan) -> list[str]:
    """Return the preflight's findings, one line each."""
    lines = [f"{name}: {reason}" for name, reason in _grouped(plan.unavailable).items()]
    absent: dict[str, dict[str, set[str]]] = {}  # by remedy: what is missing, for which items
    for r in plan.refusals:
        if r.kind == "missing":
            name = r.reason.removesuffix(": missing")
            absent.setdefault(r.remedy, {}).setdefault(name, set()).add(r.item)
    for remedy_, files in absent.items():
        n_items = len(set().union(*files.values()))
        lines.append(f"missing, for {n_items} of {len(plan.items)} items:")
        lines += [f"  {name}" for name in list(files)[:LISTED]]
        if len(files) > LISTED:
            lines.append(f"  and {len(files) - LISTED} more")
        lines.append(f"  {remedy_}")
    lines += dict.fromkeys(
        str(SpfemBenchError(f"{r.kind}: {r.reason}", r.remedy))
        for r in plan.refusals
        if r.kind != "missing"
    )
    expected = {Path(p.item.output_name).stem.lower(): p.item.output_name for p in plan.items}
    for name in plan.extra:
        close = get_close_matches(Path(name).stem.lower(), expected, n=1)
        hint = f"; meant for {expected[close[0]]}?" if close else ""
        lines.append(f"extra, expected by no item: {name}{hint}")
    return lines


def _grouped(unavailable: Mapping[str, str]) -> dict[str, str]:
    """Join the metrics that lack the same thing."""
    by_reason: dict[str, list[str]] = {}
    for name, reason in unavailable.items():
        by_reason.setdefault(reason, []).append(name)
    return {", ".join(names): f"not available: {reason}" for reason, names in by_reason.items()}
