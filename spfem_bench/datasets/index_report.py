"""What is missing or odd about a user's own recordings."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from itertools import combinations
from pathlib import Path, PurePosixPath
from statistics import median
from typing import Any

from spfem_bench.datasets.recordings_index import RecordingsIndex
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.datasets import DatasetCard, recordings
from spfem_bench.definitions.protocols import load_protocol, protocol
from spfem_bench.definitions.recordings import Recording, RecordingsSettings, candidates
from spfem_bench.files import inside
from spfem_bench.media.packets import Stretch
from spfem_bench.media.video import file_sha256

_Cells = Mapping[str, Mapping[str, Sequence[Recording]]]  # recordings by speaker and emotion


@dataclass(frozen=True)
class IndexFinding:
    """Something missing or odd; ``kind`` is a word for it that is the same in every report."""

    kind: str
    says: str
    count: int
    examples: tuple[str, ...]
    remedy: str = ""


_Findings = Iterator[IndexFinding | None]


@dataclass(frozen=True)
class IndexReport:
    """What an index holds of a data set."""

    dataset: str
    root: str
    recordings: int
    found: int
    # by speaker and emotion: recordings that the data set has, that have a readable picture here,
    # and that have readable sound here
    cells: Mapping[str, Mapping[str, tuple[int, int, int]]]
    findings: tuple[IndexFinding, ...]
    whole: Mapping[str, tuple[int, int]]  # by protocol: its items, and those whose clips are here

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


def index_report(card: DatasetCard, index: RecordingsIndex) -> IndexReport:
    """Return what is here, what is missing and what is odd."""
    settings, expected = card.recordings, recordings(card)
    if settings is None:
        raise ValueError(f"{card.name} has no recordings")
    by_cell: dict[str, dict[str, list[Recording]]] = {}
    for r in expected:
        by_cell.setdefault(r.speaker, {}).setdefault(r.emotion, []).append(r)
    with_picture = {r.video for r in expected if index.stretch(r.video, "video")}
    files = list(relative_files(index.root))
    findings = [
        *_missing(by_cell, {r.video for r in expected} - index.files.keys()),
        swapped_folders(card, index, files),
        *_unreadable(expected, index),
        *_odd(expected, index, settings),
        *_swapped_sound(by_cell, index, settings.apart),
        _same_bytes(index),
        *_unused(settings, index, files),
    ]
    whole = {}
    for name in names(Kind.PROTOCOL):
        listed = load_protocol(name)
        if listed.dataset == card.name and listed.is_ready:
            items = protocol(name).items
            clips = [{c.path.as_posix() for c in (*i.clips.values(), *i.more_real)} for i in items]
            whole[name] = (len(items), sum(paths <= with_picture for paths in clips))
    counts = {
        speaker: {emotion: _counts(cell, index) for emotion, cell in cells.items()}
        for speaker, cells in by_cell.items()
    }
    root, n_expected, n_found = str(index.root), len(expected), len(with_picture)
    odd = tuple(finding for finding in findings if finding)
    return IndexReport(card.name, root, n_expected, n_found, counts, odd, whole)


def _counts(cell: Sequence[Recording], index: RecordingsIndex) -> tuple[int, int, int]:
    """Return the recordings of a cell, those with a picture, and those with sound."""
    pictures = sum(index.stretch(r.video, "video") is not None for r in cell)
    sounds = sum(index.stretch(r.sound or r.video, "audio") is not None for r in cell)
    return len(cell), pictures, sounds


def _finding(kind: str, says: str, files: Iterable[str], remedy: str = "") -> IndexFinding | None:
    listed = sorted(files)
    return IndexFinding(kind, says, len(listed), tuple(listed[:3]), remedy) if listed else None


def relative_files(root: Path) -> Iterator[str]:
    """Yield the paths of all files below a folder, relative to it."""
    for folder, inner, files in os.walk(root):
        inner.sort()
        below = PurePosixPath(Path(folder).relative_to(root).as_posix())
        yield from ((below / name).as_posix() for name in sorted(files) if name[0] != ".")


def _missing(by_cell: _Cells, lacking: set[str]) -> _Findings:
    remedy = "Items that need them are left out; score the others with 'eval --partial'"
    for speaker, emotions in by_cell.items():
        videos = [r.video for cell in emotions.values() for r in cell]
        if lacking.issuperset(videos):
            yield _finding("missing speaker", f"speaker {speaker} is missing", videos, remedy)
            continue
        absent = {e: sum(r.video in lacking for r in cell) for e, cell in emotions.items()}
        says = ", ".join(f"{e} {n} of {len(emotions[e])}" for e, n in absent.items() if n)
        files = [video for video in videos if video in lacking]
        yield _finding("missing", f"{speaker} lacks {says}", files, remedy)


def swapped_folders(
    card: DatasetCard, index: RecordingsIndex, files: Sequence[str]
) -> IndexFinding | None:
    """Find files in exchanged folders, among all files below the root, relative to it."""
    if card.recordings is None:
        return None
    used = {file.file for file in index.files.values()}
    exchanged = {"video": "audio", "audio": "video"}

    def words(path: str) -> tuple[str, ...]:
        return tuple(sorted(PurePosixPath(path).parts))

    spare = {words(path): path for path in files if path not in used}
    pairs = []
    for r in recordings(card):
        videos, sounds = candidates(card.recordings, r.row, index.mapping)
        for name, paths in ((r.video, videos), (r.sound, sounds)):
            if name and name not in index.files:
                expected = [words(path) for path in paths]
                expected += [tuple(sorted(exchanged.get(w, w) for w in e)) for e in expected]
                pairs += [f"{spare[e]} for {name}" for e in expected if e in spare]
    remedy = "Rename the folders, or say with --mapping FILE.toml how your copy is named"
    return _finding("swapped folders", "files lie in other folders than published", pairs, remedy)


def _unreadable(expected: Sequence[Recording], index: RecordingsIndex) -> _Findings:
    files = index.files
    broken = [f"{f.file}: {f.problem}" for f in files.values() if f.problem]
    no_picture, no_sound = [], []
    for r in expected:
        video, sound = files.get(r.video), files.get(r.sound or r.video)
        if video and not video.problem and not video.stretch("video"):
            no_picture.append(r.video)
        if video and not (sound and (sound.problem or sound.stretch("audio"))):
            no_sound.append(r.sound or r.video)
    yield _finding("unreadable", "files that cannot be read", broken, "Fetch them again")
    says = "files of sound only in the place of a video"
    yield _finding("no picture", says, no_picture, "Fetch the videos")
    remedy = "Metrics of lip sync cannot use them as clips; the others can"
    yield _finding("no sound", "recordings whose sound is missing", no_sound, remedy)


def _odd(
    expected: Sequence[Recording], index: RecordingsIndex, settings: RecordingsSettings
) -> _Findings:
    shortest, longest = settings.seconds
    lengths, apart = [], []
    for r in expected:
        picture = index.stretch(r.video, "video")
        sound = index.stretch(r.sound or r.video, "audio")
        if picture and not shortest <= picture.seconds <= longest:
            lengths.append(f"{r.video}: {picture.seconds:.2f} s")
        if picture and sound and (difference := _apart(picture, sound)) > settings.apart:
            apart.append(f"{r.video}: {difference:.2f} s")
    says = f"recordings shorter than {shortest:g} s or longer than {longest:g} s"
    yield _finding("odd length", says, lengths, "Look whether they are cut")
    says = f"sound and picture begin or end more than {settings.apart:g} s apart"
    yield _finding("sound and picture apart", says, apart, "Look whether they belong together")


def _apart(picture: Stretch, sound: Stretch) -> float:
    """Return by how many seconds two streams begin or end apart, whichever is more."""
    return max(abs(picture.start - sound.start), abs(picture.end - sound.end))


def _swapped_sound(by_cell: _Cells, index: RecordingsIndex, allowed: float) -> _Findings:
    """Find two emotions of a speaker whose sounds fit each other's pictures, not their own."""

    def difference(pictures: Sequence[Recording], sounds: Sequence[Recording]) -> float:
        """Return the median of how far pictures are from sounds, 0 when fewer than two compare."""
        both = []
        for a, b in zip(
            (r for r in pictures if r.sound), (r for r in sounds if r.sound), strict=False
        ):
            picture, sound = index.stretch(a.video, "video"), index.stretch(b.sound, "audio")
            if picture and sound:
                both.append(_apart(picture, sound))
        return median(both) if len(both) > 1 else 0.0

    for speaker, emotions in by_cell.items():
        wrong = [e for e, cell in emotions.items() if difference(cell, cell) > allowed]
        for a, b in combinations(wrong, 2):
            x, y = emotions[a], emotions[b]
            if 0 < max(difference(x, y), difference(y, x)) <= allowed:
                files = [r.sound for r in (*x, *y)]
                says = f"{speaker}: the sounds of {a} and {b} fit each other's pictures"
                yield _finding("swapped sound", says, files, "Exchange the folders")


def _same_bytes(index: RecordingsIndex) -> IndexFinding | None:
    """Find files of the same bytes; only those of one size are read."""
    by_size: dict[int, list[str]] = defaultdict(list)
    for file in index.files.values():
        by_size[file.bytes].append(file.file)
    by_hash: dict[str, list[str]] = defaultdict(list)
    for files in by_size.values():
        for name in files if len(files) > 1 else ():
            path = inside(index.root, name)
            if path.is_file():
                by_hash[file_sha256(path)].append(name)
    copies = [" = ".join(files) for files in by_hash.values() if len(files) > 1]
    remedy = "One of them is a copy in the wrong place"
    return _finding("same bytes", "files with the bytes of another", copies, remedy)


def _unused(
    settings: RecordingsSettings, index: RecordingsIndex, files: Sequence[str]
) -> _Findings:
    used = {file.file for file in index.files.values()}
    unused: dict[str, list[str]] = {b.says: [] for b in settings.beside}
    others: list[str] = []
    for path in files:
        if path not in used:
            says = next((b.says for b in settings.beside if fnmatchcase(path, b.pattern)), None)
            (others if says is None else unused[says]).append(path)
    for says, paths in unused.items():
        yield _finding("not used", says, paths)
    yield _finding("not used", "other files", others)
