"""Finding real and generated faces in a tree of NED's folders, and the clips that they are of."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from spfem_bench.datasets.joined import cut_joined
from spfem_bench.datasets.ned_index import (
    Cell,
    FaceClip,
    FaceFolder,
    NedIndex,
    TreeLayout,
    TreeSettings,
)
from spfem_bench.datasets.ned_inputs import is_video
from spfem_bench.datasets.ned_pictures import look_at_faces
from spfem_bench.definitions.cards import located
from spfem_bench.definitions.lists import read_list
from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.definitions.recordings import fill
from spfem_bench.errors import CardError, ClipError
from spfem_bench.files import Listing, inside
from spfem_bench.media import packets
from spfem_bench.media.pictures import PICTURES
from spfem_bench.progress import SILENT, Progress

FACES = "faces_aligned"
REAL = "real"
CLIPS = "clips.csv"
"""The list of clips that is found by itself where it lies in the root."""

SOUND_SUFFIXES = (".wav", ".m4a", ".mp3", ".flac", ".ogg", ".aac")
NAMELESS = "generated"
"""The method of an experiment whose name is an emotion and nothing else."""

_Place = tuple[str, str, str, str, str]  # path, speaker, emotion, target, method


def read_tree(
    root: Path,
    settings: TreeSettings,
    *,
    clips: Path | None = None,
    as_published: bool = False,
    progress: Progress = SILENT,
) -> NedIndex:
    """Return what a tree holds, after reading the head of each picture and some pictures whole.

    Args:
        root: the tree; links in it are followed.
        settings: of the data set's card.
        clips: a CSV of speaker, emotion, clip and frames, in the place of source videos and of the
            list that lies in the root.
        as_published: whether generated folders are to be cut as the papers' scripts do.
        progress: has the phase ``folders``.

    Raises:
        ClipError: there is no such folder, or it is none of such a tree.
        CardError: the list of clips has a bad row.
    """
    root = root.resolve()
    if not root.is_dir():
        raise ClipError(f"{root}: no such folder", "Give the folder that holds the tree")
    layout = _layout(root)
    places = sorted(_actors(root) if layout == "actors" else _sides(root))
    real = {(speaker, emotion) for _, speaker, emotion, _, method in places if not method}
    listed = clips or (root / CLIPS if (root / CLIPS).is_file() else None)
    files = Listing(root)
    if listed:
        found = list(_listed_clips(files, listed, real, settings))
    else:
        found = [clip for cell in sorted(real) for clip in _filmed_clips(files, cell, settings)]
    progress.begin("folders", len(places), "folder")
    folders = []
    for place in places:
        folders.append(_look(root, place, settings))
        progress.advance("folders")
    progress.end("folders")
    index = NedIndex(root, layout, as_published, str(listed or ""), tuple(folders), tuple(found))
    return _checked(index)


def _checked(index: NedIndex) -> NedIndex:
    """Refuse real folders whose pictures are not those of their clips."""
    folders = []
    for folder in index.folders:
        cell = (folder.speaker, folder.emotion)
        if not folder.method and not folder.problem:
            lengths = index.lengths(cell)
            if lengths and cut_joined(lengths, folder.pictures) is None:
                folder = replace(folder, problem=index.counts_text(folder, [cell]))
        folders.append(folder)
    return replace(index, folders=tuple(folders))


# ---- which layout, and which folders -------------------------------------------------------------


def _layout(root: Path) -> TreeLayout:
    """Return a tree's layout; raise ClipError, with the folder to name, where it has none."""
    if layout := _layout_of(root):
        return layout
    for folder in _folders(root):
        if _layout_of(folder):
            raise ClipError(f"{root} is a level too high", f"Name {folder}")
    for levels, folder in enumerate(root.parents[:3], 1):
        if _layout_of(folder):
            word = "a level" if levels == 1 else f"{levels} levels"
            raise ClipError(f"{root} is {word} too low", f"Name {folder}")
    if any(_has_pictures(speaker) for side in _folders(root) for _, speaker in _two_levels(side)):
        raise ClipError(f"{root} holds no side '{REAL}'", f"Name the folder of real faces '{REAL}'")
    raise ClipError(
        f"{root} holds no faces",
        f"Allowed: SPEAKER/EMOTION/{FACES}/*.png with SPEAKER/EMOTION/EXPERIMENT/{FACES}/*.png, or "
        f"SIDE/EMOTION/SPEAKER/*.png with a side '{REAL}'",
    )


def _layout_of(root: Path) -> TreeLayout | None:
    pairs = _two_levels(root)
    # A speaker's own folder has faces a level higher, beside its experiments.
    is_speaker = any((emotion / FACES).is_dir() for emotion in _folders(root))
    if not is_speaker and any((emotion / FACES).is_dir() for _, emotion in pairs):
        return "actors"
    if any(_has_pictures(speaker) for _, speaker in _two_levels(root / REAL)):
        return "sides"
    return None


def _folders(parent: Path) -> list[Path]:
    try:
        paths = sorted(parent.iterdir())
    except OSError:
        return []
    return [path for path in paths if path.name[0] != "." and path.is_dir()]


def _two_levels(root: Path) -> Iterator[tuple[Path, Path]]:
    return ((outer, inner) for outer in _folders(root) for inner in _folders(outer))


def _has_pictures(folder: Path) -> bool:
    try:
        return any(path.suffix.lower() in PICTURES for path in folder.iterdir())
    except OSError:
        return False


def _actors(root: Path) -> Iterator[_Place]:
    """Yield the places of NED's own layout."""
    pairs = list(_two_levels(root))
    emotions = {*EMOTIONS, *(emotion.name for _, emotion in pairs if (emotion / FACES).is_dir())}
    for speaker, emotion in pairs:
        below = f"{speaker.name}/{emotion.name}"
        if (emotion / FACES).is_dir():
            yield f"{below}/{FACES}", speaker.name, emotion.name, emotion.name, ""
        for experiment in _folders(emotion):
            if (experiment / FACES).is_dir():
                path = f"{below}/{experiment.name}/{FACES}"
                target, method = experiment_names(experiment.name, emotion.name, emotions)
                yield path, speaker.name, emotion.name, target, method


def experiment_names(name: str, emotion: str, emotions: Iterable[str]) -> tuple[str, str]:
    """Return target emotion and method of an experiment in the folder of an emotion.

    An emotion at either end of the name is the target, as in ``happy_cross_id``; the target of
    others is the folder's.

    >>> experiment_names("happy_cross_id", "neutral", ["happy", "neutral"])
    ('happy', 'cross_id')
    >>> experiment_names("ned", "sad", ["happy", "sad"])
    ('sad', 'ned')
    """
    for target in sorted(emotions, key=len, reverse=True):
        if name == target:
            return target, NAMELESS
        if match := re.fullmatch(
            rf"{re.escape(target)}[_.-]+(.+)|(.+?)[_.-]+{re.escape(target)}", name
        ):
            return target, match[1] or match[2]
    return emotion, name


def _sides(root: Path) -> Iterator[_Place]:
    """Yield the places of the layout that the papers' scripts score."""
    for side in _folders(root):
        for emotion, speaker in _two_levels(side):
            if _has_pictures(speaker):
                path = f"{side.name}/{emotion.name}/{speaker.name}"
                method = "" if side.name == REAL else side.name
                yield path, speaker.name, emotion.name, emotion.name, method


def _look(root: Path, place: _Place, settings: TreeSettings) -> FaceFolder:
    path, speaker, emotion, target, method = place
    seen = look_at_faces(inside(root, path), settings.size)
    counts = (seen.pictures, seen.bytes, seen.problem, seen.looked_at, seen.unmasked)
    return FaceFolder(path, speaker, emotion, target, method, *counts, seen.odd_colours)


# ---- clips and their sound -----------------------------------------------------------------------


def _filmed_clips(files: Listing, cell: Cell, settings: TreeSettings) -> Iterator[FaceClip]:
    """Yield the clips of a cell's source videos, from the first of their folders that is there."""
    row = dict(zip(("speaker", "emotion"), cell, strict=True))
    for template in settings.videos:
        folder = fill(template, row)
        inside(files.folder, folder)
        names = [n for n in files.find(f"{glob.escape(folder)}/*") if is_video(files.folder / n)]
        for name in names:
            streams = packets.stream_times(files.folder / name)
            if pictures := streams.get("video"):
                rate = pictures.packets / pictures.seconds if pictures.seconds > 0 else 0.0
                length = (pictures.packets, name, round(rate, 3))
                yield _with_sound(files, cell, Path(name).stem, *length, settings)
        if names:
            return


def _listed_clips(
    files: Listing, path: Path, real: set[Cell], settings: TreeSettings
) -> Iterator[FaceClip]:
    """Yield the clips of a list whose cells the tree has."""
    seen = set()
    for where, row in read_list(path):
        with located(where):
            if lacking := {"speaker", "emotion", "clip", "frames"} - row.keys():
                raise CardError(
                    f"the list lacks the column '{min(lacking)}'",
                    "Give speaker, emotion, clip and frames, as 'protocol solve --clips' does",
                )
            if not re.fullmatch(r"[1-9][0-9]{0,5}", row["frames"]):
                raise CardError("'frames' must be a whole number from 1 to 999999")
            cell, clip = (row["speaker"], row["emotion"]), row["clip"]
            if (cell, clip) in seen:
                raise CardError(f"the clip '{' '.join(cell)} {clip}' is there twice")
            seen.add((cell, clip))
            if cell in real:
                yield _with_sound(files, cell, clip, int(row["frames"]), "", 0.0, settings)


def _with_sound(
    files: Listing,
    cell: Cell,
    clip: str,
    frames: int,
    video: str,
    rate: float,
    settings: TreeSettings,
) -> FaceClip:
    """Return a clip with the first sound that is found for it, last that of its video."""
    row = {"speaker": cell[0], "emotion": cell[1], "clip": clip}
    names = [fill(template, row) for template in settings.sounds]
    for name in names:
        inside(files.folder, name)
    found = [f for n in names for s in SOUND_SUFFIXES for f in files.find(glob.escape(n + s))]
    problem = ""
    for name in [*found, *([video] if video else [])]:
        try:
            sound = packets.stream_times(files.folder / name).get("audio")
        except ClipError as error:
            problem = problem or error.problem
            continue
        if sound:
            return FaceClip(*cell, clip, frames, video, rate, name, round(sound.seconds, 4), "")
        if name != video:
            problem = problem or f"{files.folder / name}: has no sound"
    return FaceClip(*cell, clip, frames, video, rate, "", 0.0, problem)


def usable_cells(index: NedIndex) -> Mapping[Cell, tuple[FaceClip, ...]]:
    """Return the clips of each cell whose real faces can be used."""
    usable = (cell for cell, folder in index.real.items() if not folder.problem)
    return {cell: index.cells[cell] for cell in usable if cell in index.cells}
