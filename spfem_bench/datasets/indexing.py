"""Where a user's own recordings lie, and what is missing or odd about them; nothing is copied."""

from __future__ import annotations

import glob
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any, Literal

import pydantic

from spfem_bench.definitions.cards import Kind, Strict, Text, names, validate
from spfem_bench.definitions.datasets import DatasetCard, dataset_card, recordings
from spfem_bench.definitions.protocols import load_protocol, protocol
from spfem_bench.definitions.recordings import (
    LayoutMapping,
    Recording,
    RecordingsSettings,
    candidates,
)
from spfem_bench.errors import CardError, ClipError, unknown_name
from spfem_bench.files import Listing, check_name, inside
from spfem_bench.media import ffmpeg
from spfem_bench.media.ffmpeg import Stretch
from spfem_bench.media.video import file_sha256
from spfem_bench.progress import SILENT, Progress
from spfem_bench.stored import read_json, write_json

SCHEMA = 1
SAVE_EVERY = 50
"""Files looked at between two writings of the index, from which a stopped run goes on."""


@dataclass(frozen=True)
class Entry:
    """What was found of one file.

    Attributes:
        file: its path below the root.
        bytes: its size.
        changed: its time stamp, in nanoseconds; with the size it tells whether to look again.
        streams: by ``video`` and ``audio``: start and end in seconds, and packets.
        problem: why it cannot be read; empty when it can.
    """

    file: str
    bytes: int
    changed: int
    streams: Mapping[str, tuple[float, float, int]]
    problem: str

    def stretch(self, kind: str) -> Stretch | None:
        """Return when a stream begins and ends; None when the file has none."""
        return Stretch(*self.streams[kind]) if kind in self.streams else None


@dataclass(frozen=True)
class Index:
    """Where the files of a data set lie.

    Attributes:
        root: the folder that was indexed.
        files: by the name that protocols use.
        mapping: how the user's copy is named; None when as published.
        verified: whether it was read with a right checksum; earlier versions wrote none.
    """

    root: Path
    files: Mapping[str, Entry] = field(default_factory=dict)
    mapping: LayoutMapping | None = None
    verified: bool = True


@dataclass(frozen=True)
class Finding:
    """Something missing or odd.

    Attributes:
        kind: one word for it, the same in every report.
        says: what it is.
        count: of files concerned.
        examples: a few of them.
        remedy: what to do.
    """

    kind: str
    says: str
    count: int
    examples: tuple[str, ...]
    remedy: str = ""


@dataclass(frozen=True)
class Report:
    """What an index found.

    Attributes:
        cells: by speaker and emotion: recordings that there are, whose picture is readable, and
            whose sound is readable.
        whole: by protocol: its items, and those whose clips are all here.
    """

    dataset: str
    root: str
    recordings: int
    found: int
    cells: Mapping[str, Mapping[str, tuple[int, int, int]]]
    findings: tuple[Finding, ...]
    whole: Mapping[str, tuple[int, int]]

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


# ---- reading and writing ----------------------------------------------------------------------


def save(path: Path, card: DatasetCard, index: Index) -> None:
    """Write an index, whole or not at all.

    Raises:
        StorageError: the folder cannot be written.
    """
    content = {
        "schema": SCHEMA,
        "dataset": card.name,
        "root": str(index.root),
        "mapping": index.mapping and index.mapping.model_dump(),
        "files": {name: asdict(entry) for name, entry in index.files.items()},
    }
    write_json(path, content, indent=0)


def read(path: Path) -> Index:
    """Read an index.

    Raises:
        CardError: the file is damaged, or of another version.
    """
    try:
        content, verified = read_json(path)
        stored = validate(_Stored, content, "in it")
        files = {
            name: Entry(e.file, e.bytes, e.changed, e.streams, e.problem)
            for name, e in stored.files.items()
        }
        check_name(stored.root)
        for entry in files.values():
            inside(Path(), entry.file)
    except (OSError, ValueError, CardError) as error:
        reason = error.problem if isinstance(error, CardError) else error
        raise CardError(
            f"{path} is no index of recordings: {reason}",
            f"Type 'spfem-bench data index {path.parent.name} ROOT', which writes it anew",
        ) from None
    return Index(Path(stored.root), files, stored.mapping, verified)


class _StoredEntry(Strict):
    file: Text
    bytes: int
    changed: int
    streams: dict[Text, tuple[float, float, int]]
    problem: Text


class _Stored(Strict):
    """An index as its file holds it."""

    schema_: Literal[1] = pydantic.Field(alias="schema")
    dataset: Text
    root: Text
    mapping: LayoutMapping | None
    files: dict[Text, _StoredEntry]


# ---- looking ----------------------------------------------------------------------------------


def build(
    card: DatasetCard,
    root: Path,
    mapping: LayoutMapping | None,
    path: Path,
    *,
    progress: Progress = SILENT,
) -> Index:
    """Look for a data set's recordings below *root*, and write where they lie to *path*.

    Files that an index already there knows, of the same size and time stamp, are not opened
    again, so a stopped run goes on where it was.

    Args:
        card: with its recordings.
        root: the folder that holds them; only read.
        mapping: how this copy is named; None when as published.
        path: of the index.
        progress: has the phase ``files``.

    Raises:
        ClipError: the root is no folder, holds none of the recordings, or two files for one.
        StorageError: the index cannot be written.
    """
    settings = _settings(card)
    root = root.resolve()
    if not root.is_dir():
        raise ClipError(f"{root}: no such folder", f"Give the folder that holds {card.name}")
    _check_words(card, mapping)
    lie: dict[str, str] = {}
    listing = Listing(root)
    for recording in recordings(card):
        videos, sounds = candidates(settings, recording.row, mapping)
        for name, places in ((recording.video, videos), (recording.sound, sounds)):
            here = next(filter(None, (_file(listing, place) for place in places)), None)
            if name and here:
                lie[name] = here
    if not any(r.video in lie for r in recordings(card)):
        first = candidates(settings, recordings(card)[0].row, mapping)[0][0]
        swapped = _swapped(card, settings, mapping, {}, list(_walk(root)))
        hint = f"{swapped.says}, for example {swapped.examples[0]}. " if swapped else ""
        raise ClipError(
            f"{root} holds no recording of {card.name}: looked for {first} and others",
            f"{hint}Name the folder above it, or say with --mapping FILE.toml how your copy is "
            "named",
        )
    known = _known(path, root)
    # What is known stays in the index until it has been looked at again.
    files = {name: known[file] for name, file in lie.items() if file in known}
    progress.begin("files", len(lie), "file")
    try:
        for count, (name, file) in enumerate(lie.items(), 1):
            files[name] = _look(root, file, known.get(file))
            progress.advance("files")
            if count % SAVE_EVERY == 0:
                save(path, card, Index(root, files, mapping))
    finally:  # Ctrl-C too: what has been looked at is known next time
        progress.end("files")
        save(path, card, Index(root, files, mapping))
    return Index(root, files, mapping)


def _file(listing: Listing, place: str) -> str | None:
    """Return the file at a place, see :func:`spfem_bench.files.same_name`; None without one."""
    inside(listing.folder, place)
    files = [f for f in listing.find(glob.escape(place)) if (listing.folder / f).is_file()]
    if len(files) > 1:
        raise ClipError(f"{listing.folder}: {' and '.join(files)} for one recording", "Keep one")
    return files[0] if files else None


def _check_words(card: DatasetCard, mapping: LayoutMapping | None) -> None:
    """Refuse a mapping that gives another word for what the list does not have."""
    for column, words in mapping.names.items() if mapping else ():
        cells = {r.row[column] for r in recordings(card) if column in r.row}
        for cell in words if cells else ():  # an unknown column is refused where it is filled in
            if cell not in cells:
                raise unknown_name(f"{column} in [names.{column}]", cell, cells)


def _known(path: Path, root: Path) -> dict[str, Entry]:
    """Return what an index of the same root says of each file; nothing where it cannot be read."""
    try:
        found = read(path)
    except CardError:  # absent, damaged, or of an older version: this run makes a new one
        return {}
    same = found.verified and found.root == root
    return {e.file: e for e in found.files.values()} if same else {}


def _settings(card: DatasetCard) -> RecordingsSettings:
    if card.recordings is None:
        raise CardError(
            f"the data set '{card.name}' has no recordings of yours to index",
            "Allowed: " + ", ".join(n for n in names(Kind.DATASET) if dataset_card(n).recordings),
        )
    return card.recordings


def _look(root: Path, file: str, known: Entry | None) -> Entry:
    path = inside(root, file)
    status = path.stat()
    if known and (known.bytes, known.changed) == (status.st_size, status.st_mtime_ns):
        return known
    streams, problem = {}, ""
    try:
        found = ffmpeg.timing(path)
        streams = {k: (round(s.start, 4), round(s.end, 4), s.packets) for k, s in found.items()}
    except ClipError as error:
        problem = error.problem.removeprefix(f"{path}: ")
    return Entry(file, status.st_size, status.st_mtime_ns, streams, problem)


# ---- reporting --------------------------------------------------------------------------------


def report(card: DatasetCard, index: Index) -> Report:
    """Say what is there, what is missing and what is odd.

    Args:
        card: with its recordings.
        index: from :func:`build`.
    """
    settings, everything = _settings(card), recordings(card)
    by_cell: dict[str, dict[str, list[Recording]]] = {}
    for r in everything:
        by_cell.setdefault(r.speaker, {}).setdefault(r.emotion, []).append(r)
    picture = {r.video for r in everything if _stretch(index, r.video, "video")}
    cells = {
        speaker: {emotion: _counts(rs, index) for emotion, rs in emotions.items()}
        for speaker, emotions in by_cell.items()
    }
    walked = list(_walk(index.root))
    lacking = {r.video for r in everything} - index.files.keys()
    findings = [
        *_missing(by_cell, lacking),
        _swapped(card, settings, index.mapping, index.files, walked),
        *_unreadable(everything, index),
        *_odd(everything, index, settings),
        *_swapped_sound(by_cell, index, settings.apart),
        _twice(index),
        *_beside(settings, index, walked),
    ]
    whole = {}
    for name in names(Kind.PROTOCOL):
        if load_protocol(name).dataset == card.name:
            items = protocol(name).items
            n_whole = sum(
                all(c.path.as_posix() in picture for c in (*i.clips.values(), *i.more_real))
                for i in items
            )
            whole[name] = (len(items), n_whole)
    return Report(
        card.name,
        str(index.root),
        len(everything),
        len(picture),
        cells,
        tuple(f for f in findings if f),
        whole,
    )


def _counts(cell: Sequence[Recording], index: Index) -> tuple[int, int, int]:
    """Return the recordings of a cell, those with a picture, and those with sound."""
    pictures = sum(_stretch(index, r.video, "video") is not None for r in cell)
    sounds = sum(_stretch(index, r.sound or r.video, "audio") is not None for r in cell)
    return len(cell), pictures, sounds


def _stretch(index: Index, name: str, kind: str) -> Stretch | None:
    entry = index.files.get(name)
    return entry.stretch(kind) if entry and not entry.problem else None


def _finding(kind: str, says: str, files: Iterable[str], remedy: str = "") -> Finding | None:
    listed = sorted(files)
    return Finding(kind, says, len(listed), tuple(listed[:3]), remedy) if listed else None


def _walk(root: Path) -> Iterable[str]:
    """Yield the paths of all files below a folder, relative to it."""
    for folder, inner, files in os.walk(root):
        inner.sort()
        below = PurePosixPath(Path(folder).relative_to(root).as_posix())
        yield from ((below / name).as_posix() for name in sorted(files) if name[0] != ".")


def _missing(
    by_cell: Mapping[str, Mapping[str, Sequence[Recording]]], lacking: set[str]
) -> list[Finding | None]:
    found: list[Finding | None] = []
    remedy = "Items that need them are left out; score the others with 'eval --partial'"
    for speaker, emotions in by_cell.items():
        videos = [r.video for rs in emotions.values() for r in rs]
        if lacking.issuperset(videos):
            says = f"speaker {speaker} is missing"
            found.append(_finding("missing speaker", says, videos, remedy))
            continue
        absent = {e: sum(r.video in lacking for r in rs) for e, rs in emotions.items()}
        says = ", ".join(f"{e} {n} of {len(emotions[e])}" for e, n in absent.items() if n)
        files = [v for v in videos if v in lacking]
        found.append(_finding("missing", f"{speaker} lacks {says}", files, remedy))
    return found


def _swapped(
    card: DatasetCard,
    settings: RecordingsSettings,
    mapping: LayoutMapping | None,
    files: Mapping[str, Entry],
    walked: Sequence[str],
) -> Finding | None:
    """Find files that lie under their folders' names in another order, or under the other kind's.

    The words video and audio may also be exchanged.
    """
    used = {e.file for e in files.values()}
    exchanged = {"video": "audio", "audio": "video"}

    def words(path: str) -> tuple[str, ...]:
        return tuple(sorted(PurePosixPath(path).parts))

    spare = {words(p): p for p in walked if p not in used}
    pairs = []
    for r in recordings(card):
        for name, places in zip(
            (r.video, r.sound), candidates(settings, r.row, mapping), strict=True
        ):
            if name and name not in files:
                asked = [words(p) for p in places]
                asked += [tuple(sorted(exchanged.get(w, w) for w in a)) for a in asked]
                pairs += [f"{spare[a]} for {name}" for a in asked if a in spare]
    return _finding(
        "swapped folders",
        "files lie in other folders than published",
        pairs,
        "Rename the folders, or say with --mapping FILE.toml how your copy is named",
    )


def _unreadable(everything: Sequence[Recording], index: Index) -> list[Finding | None]:
    broken = [f"{e.file}: {e.problem}" for e in index.files.values() if e.problem]
    mute = [
        r.sound or r.video
        for r in everything
        if r.video in index.files
        and not _stretch(index, r.sound or r.video, "audio")
        and not (index.files.get(r.sound or r.video) or _NOTHING).problem
    ]
    blind = [
        r.video
        for r in everything
        if (entry := index.files.get(r.video)) and not entry.problem and not entry.stretch("video")
    ]
    return [
        _finding("unreadable", "files that cannot be read", broken, "Fetch them again"),
        _finding(
            "no picture", "files of sound only in the place of a video", blind, "Fetch the videos"
        ),
        _finding(
            "no sound",
            "recordings whose sound is missing",
            mute,
            "Metrics of lip sync cannot use them as clips; the others can",
        ),
    ]


_NOTHING = Entry("", 0, 0, {}, "")


def _odd(
    everything: Sequence[Recording], index: Index, settings: RecordingsSettings
) -> list[Finding | None]:
    shortest, longest = settings.seconds
    lengths, apart = [], []
    for r in everything:
        picture = _stretch(index, r.video, "video")
        sound = _stretch(index, r.sound or r.video, "audio")
        if picture and not shortest <= picture.seconds <= longest:
            lengths.append(f"{r.video}: {picture.seconds:.2f} s")
        if picture and sound and (difference := _apart(picture, sound)) > settings.apart:
            apart.append(f"{r.video}: {difference:.2f} s")
    says = f"recordings shorter than {shortest:g} s or longer than {longest:g} s"
    return [
        _finding("odd length", says, lengths, "Look whether they are cut"),
        _finding(
            "sound and picture apart",
            f"sound and picture begin or end more than {settings.apart:g} s apart",
            apart,
            "Look whether they belong together",
        ),
    ]


def _apart(picture: Stretch, sound: Stretch) -> float:
    """Return by how much two streams begin or end apart, whichever is more."""
    return max(abs(picture.start - sound.start), abs(picture.end - sound.end))


def _swapped_sound(
    by_cell: Mapping[str, Mapping[str, Sequence[Recording]]], index: Index, allowed: float
) -> list[Finding | None]:
    """Find two emotions of a speaker whose sounds fit each other's pictures, not their own."""
    found: list[Finding | None] = []
    for speaker, emotions in by_cell.items():
        streams = {
            emotion: [
                (_stretch(index, r.video, "video"), _stretch(index, r.sound, "audio"))
                for r in rs
                if r.sound
            ]
            for emotion, rs in emotions.items()
        }

        def differ(a: str, b: str, streams: Any = streams) -> float:
            """Return how far the pictures of one emotion are from the sounds of another."""
            both = [
                _apart(picture, sound)
                for (picture, _), (_, sound) in zip(streams[a], streams[b], strict=False)
                if picture and sound
            ]
            return median(both) if len(both) > 1 else 0.0

        wrong = [e for e in streams if differ(e, e) > allowed]
        for n, a in enumerate(wrong):
            for b in wrong[n + 1 :]:
                if 0 < max(differ(a, b), differ(b, a)) <= allowed:
                    files = [r.sound for e in (a, b) for r in emotions[e]]
                    says = f"{speaker}: the sounds of {a} and {b} fit each other's pictures"
                    found.append(_finding("swapped sound", says, files, "Exchange the folders"))
    return found


def _twice(index: Index) -> Finding | None:
    """Find files of the same bytes; only those of one size are read."""
    sizes: dict[int, list[Entry]] = defaultdict(list)
    for entry in index.files.values():
        sizes[entry.bytes].append(entry)
    same: dict[str, list[str]] = defaultdict(list)
    for entries in sizes.values():
        for entry in entries if len(entries) > 1 else ():
            if inside(index.root, entry.file).is_file():
                same[file_sha256(inside(index.root, entry.file))].append(entry.file)
    return _finding(
        "same bytes",
        "files with the bytes of another",
        [" = ".join(files) for files in same.values() if len(files) > 1],
        "One of them is a copy in the wrong place",
    )


def _beside(
    settings: RecordingsSettings, index: Index, walked: Sequence[str]
) -> list[Finding | None]:
    used = {e.file for e in index.files.values()}
    rest: dict[str, list[str]] = {b.says: [] for b in settings.beside}
    others: list[str] = []
    for path in walked:
        if path in used:
            continue
        says = next((b.says for b in settings.beside if fnmatchcase(path, b.pattern)), None)
        (others if says is None else rest[says]).append(path)
    found = [_finding("not used", says, files) for says, files in rest.items()]
    return [*found, _finding("not used", "other files", others)]
