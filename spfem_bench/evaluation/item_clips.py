"""An item's clips on this machine, and why one of them cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import ClipRole, MetricCard
from spfem_bench.definitions.protocols import Item
from spfem_bench.errors import ClipError, MissingClipError, StorageError, UnsuitedClipError
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import ffmpeg, headers
from spfem_bench.media.pictures import numbered_pictures
from spfem_bench.media.video import Unchanged, file_sha256
from spfem_bench.statistics.base import kind_of


@dataclass(frozen=True)
class Refusal:
    """Why an item has no score in some metrics; ``clip`` is the address of the one at fault.

    ``kind`` is ``missing`` or ``unreadable`` (found before any network ran), or ``refused``.
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

    ``addresses`` are as recorded: relative to the data set or the videos' folder.
    """

    item: Item
    clips: Mapping[ClipRole, Clip]
    addresses: Mapping[ClipRole, str]
    more_real: tuple[Clip, ...] = ()

    def seen_as(self, role: ClipRole) -> tuple[Clip, ...]:
        """Return the clips of one role: one, or several real ones, or none that is real."""
        if role == "real" and role not in self.item.clips:
            return ()
        return (self.clips[role], *(self.more_real if role == "real" else ()))


def find_clips(
    item: Item,
    output: Clip | ClipError,
    metrics: Sequence[MetricCard],
    verified: Callable[[str], Path],
    *,
    check_readable: bool,
    videos: Path | None,
) -> tuple[PlannedItem, list[Refusal]]:
    """Find an item's clips; what is missing or unreadable is refused for the metrics it concerns.

    *output* is the method's clip, or why there is none; *videos* is its folder, None where that is
    the data set's. *verified* returns the path of a data set's file, or raises a ClipError.
    *check_readable* reads the headers of the data set's clips.
    """
    addresses: dict[ClipRole, str] = {role: str(clip) for role, clip in item.clips.items()}
    clips: dict[ClipRole, Clip] = {}
    more_real: list[Clip] = []
    refusals = []

    def refuse(role: ClipRole, error: ClipError, concerned: tuple[str, ...]) -> None:
        kind = "missing" if isinstance(error, MissingClipError) else "unreadable"
        if isinstance(error, UnsuitedClipError):
            kind = "refused"
        addresses.setdefault(role, item.output_name)
        address = addresses[role]
        refusals.append(Refusal(item.id, address, concerned, kind, error.problem, error.remedy))

    def local(role: ClipRole, listed: Clip) -> Clip:
        """Return a data set's clip with its paths on this machine."""
        clip = replace(listed, path=verified(listed.path.as_posix()))
        if clip.audio is not None:
            try:
                clip = replace(clip, audio=verified(clip.audio.as_posix()))
            except ClipError as error:
                in_sync = [m.name for m in metrics if role in m.compare and m.role == "sync"]
                if in_sync:
                    refuse(role, error, tuple(in_sync))
                clip = replace(clip, audio=None)  # the other metrics only use the pictures
        if check_readable:
            _check_readable(clip)
        return clip

    for role in dict.fromkeys(role for metric in metrics for role in metric.compare):
        if role == "real" and role not in item.clips:  # where frames are pooled, it brings none
            alone = (m for m in metrics if role in m.compare and not kind_of(m).pools_frames)
            if concerned := tuple(m.name for m in alone):
                refuse(role, UnsuitedClipError(f"{item.id} has no real clip"), concerned)
            continue
        try:
            listed = output if role == "output" else item.clips[role]
            if isinstance(listed, ClipError):
                raise listed
            if role == "output" and videos:
                addresses[role] = _output_address(listed, videos, item)
                _check_readable(listed)
                clip = listed
            else:
                addresses[role] = str(listed)
                clip = local(role, listed)
            if role == "real":
                more_real += [local(role, more) for more in item.more_real]
            clips[role] = clip
        except ClipError as error:
            refuse(role, error, tuple(m.name for m in metrics if role in m.compare))
    return PlannedItem(item, clips, addresses, tuple(more_real)), refusals


def _output_address(clip: Clip, folder: Path, item: Item) -> str:
    """Return an output's address below the user's folder; its sound may be the data set's."""
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
    """Read a file's header once; the answer is stored beside the features."""
    store, header = FeatureStore.locate(), {"pictures": sha256, "ffmpeg": ffmpeg.version()}
    if store.has(header):
        return True
    if headers.probe(unchanged.clip.path).size is None:
        return False
    unchanged.check()
    with suppress(StorageError):  # reported when features are stored
        store.put(header, {})
    return True
