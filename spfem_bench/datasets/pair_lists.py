"""Lists of pairs over frames of real clips, in the layout of the authors' ``aligned_path36.json``.

``{speaker: {emotion: {"001_030": [[0, 1, 1], [0, 0, 1]]}}}``: frame numbers, from 0, of the
neutral clip 001 and, as many, of the emotional clip 030.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spfem_bench.datasets.pairs import EmotionPair, FindPoints, Pictures
from spfem_bench.datasets.pose import Landmarks
from spfem_bench.errors import CardError, ClipError, unknown_name
from spfem_bench.faces.detect import Detector
from spfem_bench.files import inside, write_atomically
from spfem_bench.media.video import Frame
from spfem_bench.stored import read_bounded
from spfem_bench.texts import few

TEST_SPEAKERS = ("M003", "M009", "W029", "M012", "M030", "W015")
"""MEAD's speakers on whom the papers test; they must not be in a training list."""
TEMPLATE = "{speaker}/{emotion}/{clip}/{frame:06d}.png"  # a frame's default name

_TEMPLATES = f"Write for example {TEMPLATE}"


class ListedPair(NamedTuple):
    """One entry of a list: speaker, emotion, both clips, and frame numbers int64 (N, 2)."""

    speaker: str
    emotion: str
    clips: tuple[str, str]
    numbers: npt.NDArray[np.int64]


def read_pair_list(path: Path, *, fewest: int = 2) -> list[ListedPair]:
    """Read and check a list of pairs, each of at least *fewest* frames, in the file's order.

    Raises CardError, which names the first few bad pairs and their number.
    """
    pairs: list[ListedPair] = []
    wrong: list[str] = []
    for speaker, emotions in _table(_json(path), str(path)).items():
        for emotion, clips in _table(emotions, f"{path}: {speaker}").items():
            for key, columns in _table(clips, f"{path}: {speaker}/{emotion}").items():
                try:
                    numbers = _numbers(columns, fewest)
                    pairs.append(ListedPair(speaker, emotion, split_key(key), numbers))
                except CardError as error:
                    wrong.append(f"{speaker}/{emotion}/{key}: {error.problem}")
    if wrong:
        problem = f"{path}: {len(wrong)} pairs cannot be used: {few(wrong)}"
        raise CardError(problem, "Align those again")
    if not pairs:
        raise CardError(f"{path}: holds no pairs", "Make a list with 'spfem-bench align'")
    return pairs


def write_pair_list(path: Path, pairs: Sequence[ListedPair]) -> None:
    """Write pairs for :func:`read_pair_list`; raise StorageError when the disk is full or locked.

    Raises CardError when a key would not separate the names of its clips.
    """
    content: dict[str, dict[str, dict[str, list[list[int]]]]] = {}
    for pair in pairs:
        clips = content.setdefault(pair.speaker, {}).setdefault(pair.emotion, {})
        clips[join_key(pair.clips)] = pair.numbers.T.tolist()
    write_atomically(path, json.dumps(content) + "\n")


def split_key(key: str) -> tuple[str, str]:
    """Return the clips' names in a key such as ``001_030``; raise CardError if they are unclear."""
    middle = len(key) // 2
    if key[:middle] == key[middle + 1 :] and key[middle : middle + 1] == "_" and middle:
        return key[:middle], key[:middle]
    first, _, second = key.partition("_")
    if not first or not second or "_" in second:
        raise CardError("the key does not name two clips", "Write it as 001_030")
    return first, second


def join_key(clips: tuple[str, str]) -> str:
    """Return the key of two clips, or raise CardError where :func:`split_key` could not read it."""
    key = "_".join(clips)
    with suppress(CardError):
        if split_key(key) == clips:
            return key
    problem = f"'{key}' would not tell where the first clip's name ends"
    raise CardError(problem, "Rename the clips alike, or without '_'")


def listed_pairs(
    path: Path,
    root: Path,
    *,
    template: str = TEMPLATE,
    first: int = 0,
    find: FindPoints | None = None,
    forbidden: Collection[str] = TEST_SPEAKERS,
) -> list[EmotionPair]:
    """Return the pairs of a list over frames in a folder, after a check that all files exist.

    In *template*, ``{speaker}``, ``{emotion}``, ``{clip}``, ``{level}`` (MEAD's intensity: 1 for
    neutral, else 3) and ``{frame}`` are filled in. *first* is the number in the name of frame 0's
    file; ffmpeg begins with 1. *find* is None when the frames are square face crops in one pose.
    Raises CardError when list or template are wrong, a speaker is forbidden, or files are absent.
    """
    listed = read_pair_list(path)
    barred = sorted({entry.speaker for entry in listed} & set(forbidden))
    if barred:
        problem = f"{path}: holds pairs of {', '.join(barred)}, on whom methods are tested"
        raise CardError(problem, "Leave those speakers out of the list")
    if not root.is_dir():
        raise CardError(f"{root} is no folder", "Name the folder of the frames")
    pairs = []
    files: dict[Path, None] = {}
    for speaker, emotion, clips, numbers in listed:
        recordings = []
        for own, clip, column in zip(("neutral", emotion), clips, numbers.T, strict=True):
            filled = _filled(template, speaker, own, clip)
            recording = Pictures(f"{speaker}/{own}/{clip}", root, filled, first, find)
            files |= dict.fromkeys(recording.path(int(n)) for n in np.unique(column))
            recordings.append(recording)
        neutral, emotional = recordings
        pairs.append(EmotionPair(speaker, emotion, neutral, emotional, numbers))
    absent = [file.relative_to(root).as_posix() for file in files if not file.is_file()]
    if absent:
        problem = f"{root}: {len(absent)} of {len(files)} frames are absent: {few(absent)}"
        raise CardError(problem, "Check the folder, the template and the number of the first frame")
    return pairs


def hold_out(
    pairs: Sequence[EmotionPair], speakers: Collection[str]
) -> tuple[list[EmotionPair], list[EmotionPair]]:
    """Split pairs into those to learn from and those of the speakers to hold out.

    Raises CardError when a speaker has no pairs, or none are left to learn from.
    """
    everyone = {pair.speaker for pair in pairs}
    for speaker in speakers:
        if speaker not in everyone:
            raise unknown_name("speaker to hold out", speaker, everyone)
    if everyone <= set(speakers):
        raise CardError("all speakers are held out", "Leave some to learn from")
    rest = [pair for pair in pairs if pair.speaker not in speakers]
    return rest, [pair for pair in pairs if pair.speaker in speakers]


def five_points(detect: Detector) -> FindPoints:
    """Return a function that finds the five points of the largest face with a detector."""

    def find(picture: Frame) -> Landmarks:
        faces = detect(picture)
        if not faces:
            raise ClipError("no face in this frame", "Leave the frame out of the list of pairs")
        return np.asarray(max(faces, key=lambda face: face.area).points, np.float64)

    return find


def _json(path: Path) -> Any:
    try:
        return json.loads(read_bounded(path))
    except OSError as error:
        raise CardError(f"{path}: {error.strerror}", "Name a list of pairs") from error
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0]
        raise CardError(f"{path} is not valid JSON: {reason[:120]}") from error


def _table(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        problem = f"{place}: no table of names"
        raise CardError(problem, 'Write {speaker: {emotion: {"001_001": [[...], [...]]}}}')
    return value


def _numbers(columns: Any, fewest: int) -> npt.NDArray[np.int64]:
    """Return the frame numbers of a pair: (N, 2)."""
    lists = isinstance(columns, list) and all(type(c) is list for c in columns)
    if not lists or len(columns) != 2:
        raise CardError("not two lists of frame numbers")
    if len(columns[0]) != len(columns[1]):
        raise CardError(f"{len(columns[0])} neutral frames but {len(columns[1])} emotional ones")
    if len(columns[0]) < fewest:
        raise CardError(f"only {len(columns[0])} of the {fewest} frames needed at least")
    if not all(type(n) is int and 0 <= n < 2**31 for column in columns for n in column):
        raise CardError("frame numbers must be whole and at least 0")
    numbers = np.array(columns, np.int64).T
    if (np.diff(numbers, axis=0) < 0).any():
        raise CardError("frame numbers go back")
    return numbers


def _filled(template: str, speaker: str, emotion: str, clip: str) -> str:
    """Fill in everything but the frame's number."""
    level = 1 if emotion == "neutral" else 3
    values = {"speaker": speaker, "emotion": emotion, "clip": clip, "level": level}

    def escape(text: str) -> str:
        return text.replace("{", "{{").replace("}", "}}")

    filled = ""
    try:
        for text, name, form, conversion in Formatter().parse(template):
            filled += escape(text)
            if name == "frame":
                filled += f"{{frame:{form}}}"
            elif name is not None:
                if name not in values or conversion:
                    raise unknown_name("part of the template", name, [*values, "frame"])
                filled += escape(format(values[name], form or ""))
        names = {filled.format(frame=n) for n in (0, 1)}
    except ValueError as error:
        raise CardError(f"the template '{template}' is wrong: {error}", _TEMPLATES) from error
    if len(names) < 2:
        raise CardError(f"the template '{template}' lacks {{frame}}", _TEMPLATES)
    inside(Path(), names.pop())
    return filled
