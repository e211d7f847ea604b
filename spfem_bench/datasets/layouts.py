"""Outputs as the field's systems name them: which file or folder is which item's."""

from __future__ import annotations

import glob
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from spfem_bench.datasets.joined import Cut, cut_joined, lengths_text
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
SourceOf = Callable[[Item, bool], Clip]
_Parts = Mapping[str, Cut] | ClipError


@dataclass(frozen=True)
class PlacedOutput:
    """Where an item's output lies."""

    item: str
    state: OutputState
    places: tuple[str, ...]  # where it was found below the folder, or looked for when absent
    clip: Clip | ClipError  # to be read; why there is none when it was not found
    sound: str = "none"  # which sound is used with it: `own`, `source` or `none`


def place(
    layout: LayoutCard,
    folder: Path,
    protocol: Protocol,
    source_of: SourceOf,
    frame_rate: float | None = None,
) -> tuple[list[PlacedOutput], tuple[str, ...]]:
    """Find every item's output below a folder, and what looks like an output but is no item's.

    *source_of* returns an item's source clip on this machine, with its sound when the flag is set,
    or raises a ClipError. *frame_rate* is of folders of frames, in the place of the layout's.
    Raises CardError when no template of the layout fits the protocol's list.
    """
    listing = Listing(folder)
    patterns = {item.id: _patterns(layout, item, protocol) for item in protocol.items}
    names: dict[str, list[str]] = {}
    takers: dict[str, list[Item]] = defaultdict(list)
    for item in protocol.items:
        matches = (match for pattern in patterns[item.id] for match in listing.find(pattern))
        names[item.id] = list(dict.fromkeys(matches))
        for name in names[item.id]:
            takers[name].append(item)
    parts: dict[str, _Parts] = {}

    def find(item: Item) -> tuple[Clip, str]:
        first, *others = names[item.id]
        if others:
            raise ClipError(f"{folder}: {' and '.join(names[item.id])} for one item", "Keep one")
        clip = Clip(inside(folder, first))
        if clip.path.is_dir():
            clip = replace(clip, frame_rate=frame_rate or layout.frame_rate)
        own_name = any(first in listing.find(p) for p in _named(layout, item, protocol))
        if len(takers[first]) > 1 or (layout.joined and not own_name):
            if first not in parts:
                parts[first] = _parts(layout, clip, takers[first], source_of)
            part = parts[first]
            if isinstance(part, ClipError):
                raise part
            clip = replace(clip, pictures=part[item.id].pictures, skip=part[item.id].skip)
        return _with_sound(layout, listing, clip, item, source_of)

    placed = []
    for item in protocol.items:
        if not names[item.id]:
            missing = patterns[item.id][0]
            remedy = layout.must or f"Look into protocols/layouts/{layout.name}.toml"
            error = MissingClipError(f"{folder / missing}: missing", remedy)
            placed.append(PlacedOutput(item.id, "absent", (missing,), error))
            continue
        places = tuple(names[item.id])
        try:
            placed.append(PlacedOutput(item.id, "found", places, *find(item)))
        except (CardError, ClipError) as odd:
            # A CardError is about a name that no clip can have, such as one with a backslash.
            unclear = odd if isinstance(odd, ClipError) else ClipError(odd.problem, "Rename it")
            placed.append(PlacedOutput(item.id, "ambiguous", places, unclear))
    return placed, _extra(layout, listing, protocol, set(takers))


def folder_sound(listing: Listing, name: str) -> str | None:
    """Return a frame folder's sound, ``NAME.wav`` or ``NAME/audio.wav``; ClipError for both."""
    name = glob.escape(name)
    sounds = [n for pattern in (f"{name}.wav", f"{name}/audio.wav") for n in listing.find(pattern)]
    if len(sounds) > 1:
        raise ClipError(f"{listing.folder}: {' and '.join(sounds)} for one item", "Keep one")
    return sounds[0] if sounds else None


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


def _parts(layout: LayoutCard, clip: Clip, sharing: Sequence[Item], source_of: SourceOf) -> _Parts:
    """Return which frames of a folder are which item's, by the sources' lengths, or an error."""
    if not layout.joined or not clip.path.is_dir():
        items = " and of ".join(item.id for item in sharing)
        remedy = layout.must or "Give each item a name of its own"
        return ClipError(f"{clip.path} would be the output of {items}", remedy)
    # Clips that lie in one folder themselves are in the order of their pictures.
    order = sorted(
        sharing, key=lambda i: (i.clips["source"].path.as_posix(), i.clips["source"].pictures or ())
    )
    try:
        lengths = [_frames(source_of(i, False)) for i in order]
        pictures = len(numbered_pictures(clip))
    except ClipError as error:
        return error
    cuts = cut_joined(lengths, pictures, layout.lead)
    if cuts is None:
        allowed = f" Up to {layout.lead} first frames may be missing." if layout.lead else ""
        return ClipError(
            f"{clip.path} holds {pictures} frames, its {len(order)} sources have "
            f"{lengths_text(lengths)}",
            f"Where one ends cannot be told: give each item a folder of its own.{allowed} "
            f"{layout.must}",
        )
    return {item.id: cut for item, cut in zip(order, cuts, strict=True)}


def _frames(source: Clip) -> int:
    """Return the frames of a source, a video or a folder of frames, at its own rate."""
    if source.path.is_dir():
        return len(numbered_pictures(source))
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
    # A sound beside joined frames begins with the first output's.
    elif clip.pictures is None and (
        own := folder_sound(listing, clip.path.relative_to(listing.folder).as_posix())
    ):
        return replace(clip, audio=listing.folder / own), "own"
    if layout.silent and "source" in item.clips:
        try:
            source = source_of(item, True)
        except ClipError:
            return clip, "none"
        if source.audio is not None or not source.path.is_dir():
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
