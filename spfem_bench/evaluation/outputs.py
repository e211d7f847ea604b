"""The outputs of a user's own method: which file or folder is which item's."""

from __future__ import annotations

import glob
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from spfem_bench.datasets.layouts import OutputState, PlacedOutput, folder_sound, place
from spfem_bench.datasets.provider import Provider
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.layouts import LayoutCard
from spfem_bench.definitions.protocols import Item, Protocol
from spfem_bench.errors import CardError, ClipError, MissingClipError
from spfem_bench.files import Listing, inside
from spfem_bench.media import headers
from spfem_bench.media.video import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Videos:
    """A user's folder of outputs.

    ``frame_rate`` (Hz) is that of folders of frames. ``layout`` says how the system that wrote them
    names outputs; as the protocol expects when None.
    """

    folder: Path
    frame_rate: float | None = None
    layout: LayoutCard | None = None

    def check(self) -> None:
        """Raise a ClipError unless the folder exists."""
        if not self.folder.is_dir():
            raise ClipError(f"{self.folder}: no such folder", "Give the folder of your outputs")


def find_outputs(
    videos: Videos, protocol: Protocol, provider: Provider
) -> tuple[list[PlacedOutput], tuple[str, ...]]:
    """Return each item's output in a user's folder, and the names there that no item expects.

    Raises CardError when the layout does not fit the protocol, and ClipError when the folder does
    not exist.
    """
    videos.check()
    if videos.layout is None:
        return _find_expected(videos, protocol.items)
    if provider.makes_clips:
        raise CardError(
            f"layouts are for recordings; the items of '{protocol.name}' are drawn",
            "Name outputs after the items, ID.mp4, and leave out --layout",
        )

    def source_of(item: Item, with_sound: bool) -> Clip:
        clip = replace(item.clips["source"], audio=None)
        if with_sound and (sound := item.clips["source"].audio):
            clip = replace(clip, audio=provider.verified(sound.as_posix()))
        return replace(clip, path=provider.verified(clip.path.as_posix()))

    return place(videos.layout, videos.folder, protocol, source_of, videos.frame_rate)


def place_outputs(
    videos: Videos, protocol: Protocol, provider: Provider
) -> tuple[list[PlacedOutput], tuple[str, ...]]:
    """Find every item's output as :func:`find_outputs`, and which of them have sound."""
    placed, extra = find_outputs(videos, protocol, provider)
    if videos.layout is None:
        placed = [_with_sound(one) for one in placed]
    return placed, extra


def _with_sound(one: PlacedOutput) -> PlacedOutput:
    if isinstance(one.clip, ClipError):
        return one
    try:
        own = one.clip.audio or (
            not one.clip.path.is_dir() and headers.probe(one.clip.path).has_audio
        )
    except ClipError as error:
        return replace(one, state="ambiguous", clip=error)
    return replace(one, sound="own" if own else "none")


def _find_expected(
    videos: Videos, items: Sequence[Item]
) -> tuple[list[PlacedOutput], tuple[str, ...]]:
    """Find outputs that are named as the protocol expects."""
    listing, placed, used = Listing(videos.folder), [], set[str]()
    for item in items:
        try:
            clip, files = _expected(videos, listing, item)
        except ClipError as error:
            state: OutputState = "absent" if isinstance(error, MissingClipError) else "ambiguous"
            placed.append(PlacedOutput(item.id, state, (item.output_name,), error))
            continue
        used.update(Path(name).parts[0] for name in files)
        placed.append(PlacedOutput(item.id, "found", (files[0],), clip))
    names = (path.name for path in videos.folder.iterdir() if path.name[0] != ".")
    return placed, tuple(sorted(name for name in names if name not in used))


def _expected(videos: Videos, listing: Listing, item: Item) -> tuple[Clip, list[str]]:
    """Return an item's output, by its expected name or that stem as another kind, and its files."""
    folder = videos.folder

    def find(name: str) -> list[str]:
        return listing.find(glob.escape(name))

    stem = PurePosixPath(item.output_name).with_suffix("").as_posix()
    inside(folder, item.output_name)
    names = dict.fromkeys([item.output_name, *(stem + suffix for suffix in VIDEO_SUFFIXES)])
    outputs = [n for name in names for n in find(name) if (folder / n).is_file()]
    outputs += [n for n in find(stem) if (folder / n).is_dir()]
    if not outputs:
        raise MissingClipError(
            f"{folder / item.output_name}: missing",
            "Names must be exactly these; .avi, .mov, .mkv, .webm, or a folder of frames will "
            "do in the place of .mp4",
        )
    if len(outputs) > 1:
        raise ClipError(f"{folder}: {' and '.join(outputs)} for one item", "Keep one")
    clip = Clip(folder / outputs[0])
    if not clip.path.is_dir():
        return clip, outputs
    sound = folder_sound(listing, outputs[0])
    clip = replace(clip, frame_rate=videos.frame_rate, audio=folder / sound if sound else None)
    return clip, [*outputs, sound] if sound else outputs
