"""Outputs as the field's systems name them: which file or folder is which item's."""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Literal

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.layouts import LayoutCard
from spfem_bench.definitions.protocols import Item, Protocol
from spfem_bench.definitions.recordings import fill
from spfem_bench.errors import CardError, ClipError, MissingClipError, UnknownNameError
from spfem_bench.files import Listing, inside
from spfem_bench.media import headers, packets
from spfem_bench.media.pictures import numbered_pictures
from spfem_bench.media.video import VIDEO_SUFFIXES

OutputState = Literal["found", "absent", "ambiguous"]
SOUNDS = ("{folder}.wav", "{folder}/audio.wav")
"""Where the sound of a folder of frames may lie."""

SourceOf = Callable[[Item, bool], Clip]


@dataclass(frozen=True)
class PlacedOutput:
    """Where an item's output lies.

    Attributes:
        places: where it was found, below the folder; where it was looked for when absent.
        clip: to be read; why there is none when it was not found.
        sound: whose is heard with it: ``own``, ``source`` or ``none``.
    """

    item: str
    state: OutputState
    places: tuple[str, ...]
    clip: Clip | ClipError
    sound: str = "none"


def place(
    layout: LayoutCard,
    folder: Path,
    protocol: Protocol,
    source_of: SourceOf,
    frame_rate: float | None = None,
) -> tuple[list[PlacedOutput], tuple[str, ...]]:
    """Find every item's output below a folder; nothing is written.

    Args:
        layout: how the system names what it writes.
        folder: what it wrote.
        protocol: whose items.
        source_of: gives an item's source clip on this machine, with its sound when that is
            to be heard, or raises a ClipError.
        frame_rate: of folders of frames, in the place of the layout's.

    Returns:
        One for each item, and what looks like an output and is no item's.

    Raises:
        CardError: no template of the layout fits the protocol's list.
    """
    listing = Listing(folder)
    found: dict[str, list[str]] = {}
    looked: dict[str, list[str]] = {}
    takers: dict[str, list[Item]] = defaultdict(list)
    for item in protocol.items:
        looked[item.id] = _patterns(layout, item, protocol)
        matches = (m for pattern in looked[item.id] for m in listing.find(pattern))
        found[item.id] = list(dict.fromkeys(matches))
        for name in found[item.id]:
            takers[name].append(item)
    rate = frame_rate or layout.frame_rate
    parts: dict[str, Mapping[str, tuple[int, int]] | ClipError] = {}
    placed = []
    for item in protocol.items:
        names = tuple(found[item.id])
        if not names:
            error: ClipError = MissingClipError(
                f"{folder / looked[item.id][0]}: missing",
                layout.must or f"Look into protocols/layouts/{layout.name}.toml",
            )
            placed.append(PlacedOutput(item.id, "absent", tuple(looked[item.id][:1]), error))
            continue
        try:
            if len(names) > 1:
                raise ClipError(f"{folder}: {' and '.join(names)} for one item", "Keep one")
            clip = Clip(inside(folder, names[0]))
            if clip.path.is_dir():
                clip = replace(clip, frame_rate=rate)
            sharing = takers[names[0]]
            if len(sharing) > 1 or (
                layout.joined
                and not any(names[0] in listing.find(p) for p in _named(layout, item, protocol))
            ):
                if names[0] not in parts:
                    parts[names[0]] = _parts(layout, clip, sharing, source_of)
                part = parts[names[0]]
                if isinstance(part, ClipError):
                    raise part
                clip = replace(clip, pictures=part[item.id])
            clip, sound = _with_sound(layout, listing, clip, item, source_of)
            placed.append(PlacedOutput(item.id, "found", names, clip, sound))
        except CardError as odd:  # a name that no clip can have, such as one with a backslash
            renamed = ClipError(odd.problem, "Rename it")
            placed.append(PlacedOutput(item.id, "ambiguous", names, renamed))
        except ClipError as unclear:
            placed.append(PlacedOutput(item.id, "ambiguous", names, unclear))
    return placed, _extra(layout, listing, protocol, set(takers))


def _named(layout: LayoutCard, item: Item, protocol: Protocol) -> list[str]:
    """Return where an item's output may lie under a name of its own, with the item's id."""
    own = tuple(template for template in layout.places if "{id}" in template)
    if not own:
        return []
    return _patterns(layout.model_copy(update={"places": own}), item, protocol)


def _patterns(layout: LayoutCard, item: Item, protocol: Protocol) -> list[str]:
    """Return where an item's output may lie: names in which ``*`` is the only wildcard."""
    row = {**item.row, "setting": _setting(protocol)}
    row = {k: layout.names.get(k, {}).get(v, v) for k, v in row.items()}
    found = []
    for template in layout.places:
        try:
            filled = "*".join(glob.escape(fill(part, row)) for part in template.split("*"))
            inside(Path(), filled.replace("*", "x"))
        except UnknownNameError:
            continue  # a column that this list does not have
        stem, _, suffix = filled.rpartition(".")
        same = [stem + s for s in VIDEO_SUFFIXES] if f".{suffix}" in VIDEO_SUFFIXES else [filled]
        found += [filled, *(s for s in same if s != filled)]
    if not found:
        raise CardError(
            f"{layout.path}: none of its places can be filled in with the list of "
            f"'{protocol.name}'",
            f"The list has: {', '.join(item.row)}",
        )
    return found


def _setting(protocol: Protocol) -> str:
    """Return ``cross-id``, ``inter-id``, or ``self`` where every source is its item's real clip."""
    clips = [i.clips for i in protocol.items]
    alike = all("real" in c and c.get("source") == c["real"] for c in clips)
    return "self" if alike else protocol.card.setting


def _parts(
    layout: LayoutCard,
    clip: Clip,
    sharing: Sequence[Item],
    source_of: SourceOf,
) -> Mapping[str, tuple[int, int]] | ClipError:
    """Return which frames of a folder are which item's, source after source.

    Returns an error when the layout does not join outputs, a source is not here, or the
    sources' frames do not add up to the folder's.
    """
    if not layout.joined or not clip.path.is_dir():
        return ClipError(
            f"{clip.path} would be the output of {' and of '.join(i.id for i in sharing)}",
            layout.must or "Give each item a name of its own",
        )
    order = sorted(sharing, key=lambda i: i.clips["source"].path.as_posix())
    try:
        lengths = [_frames(source_of(i, False)) for i in order]
        pictures = len(numbered_pictures(clip))
    except ClipError as error:
        return error
    if sum(lengths) != pictures:
        said = " + ".join(map(str, lengths))
        return ClipError(
            f"{clip.path} holds {pictures} frames, its {len(order)} sources have {said}",
            f"Where one ends cannot be told: give each item a folder of its own. {layout.must}",
        )
    ends = list(accumulate(lengths))
    return {i.id: (end - length, end) for i, end, length in zip(order, ends, lengths, strict=True)}


def _frames(source: Clip) -> int:
    """Return the frames of a source video, at its own rate."""
    streams = packets.stream_times(source.path)
    if "video" not in streams:
        raise ClipError(f"{source.path}: has no video stream", "Give a video, not a sound file")
    return streams["video"].packets


def _with_sound(
    layout: LayoutCard, listing: Listing, clip: Clip, item: Item, source_of: SourceOf
) -> tuple[Clip, str]:
    if not clip.path.is_dir():
        try:
            if headers.probe(clip.path).has_audio:
                return clip, "own"
        except ClipError:  # unreadable: the preflight says so
            return clip, "none"
    elif clip.pictures is None:  # a sound beside joined frames begins with the first output's
        name = glob.escape(clip.path.relative_to(listing.folder).as_posix())
        own = [n for sound in SOUNDS for n in listing.find(sound.format(folder=name))]
        if len(own) > 1:
            raise ClipError(f"{listing.folder}: {' and '.join(own)} for one item", "Keep one")
        if own:
            return replace(clip, audio=listing.folder / own[0]), "own"
    if layout.silent and "source" in item.clips:
        try:
            source = source_of(item, True)
        except ClipError:
            return clip, "none"
        return replace(clip, audio=source.audio or source.path), "source"
    return clip, "none"


def _extra(
    layout: LayoutCard, listing: Listing, protocol: Protocol, taken: set[str]
) -> tuple[str, ...]:
    """Return what has the shape of an output and is no item's."""
    columns: Mapping[str, str] = protocol.items[0].row
    found: set[str] = set()
    for template in layout.places:
        shape = re.sub(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", "*", template)
        known = all(c in columns or c == "setting" for c in re.findall(r"\{(\w+)\}", template))
        if known and shape.strip("*") not in ("", "/"):
            found.update(listing.find(shape))
    return tuple(sorted(n for n in found if n not in taken))
