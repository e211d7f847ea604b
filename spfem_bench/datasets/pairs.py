"""Pairs for metric learning: one speaker, one sentence, two emotions, frame by frame.

A :class:`Pair` names two recordings and the frames of both in which the same is said. Its
pictures are read or drawn on demand, and put in one pose (ASCCL, CVPR 2024, section 4.1).
Pairs come from the puppets, whose correspondence is known exactly, and from lists in the
layout of the authors' ``aligned_path36.json``, which ``spfem-bench align`` writes too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Formatter
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.errors import CardError, ClipError, unknown_name
from spfem_bench.faces.crop import ARCFACE_TEMPLATE, opencv, similarity_transform
from spfem_bench.faces.detect import Detector
from spfem_bench.files import inside, write_atomically
from spfem_bench.media.pictures import read_picture
from spfem_bench.media.video import FRAME_RATE
from spfem_bench.puppets.draw import OVERSAMPLING
from spfem_bench.puppets.face import LANDMARKS
from spfem_bench.puppets.speech import correspondence
from spfem_bench.puppets.world import Take, World
from spfem_bench.stored import read_bounded

Frame = npt.NDArray[np.uint8]
"""One picture, shape (height, width, 3), RGB."""

Points = npt.NDArray[np.float64]
"""Landmarks, (K, 2): x and y in pixels; the middle of the first pixel is 0."""

FindPoints = Callable[[Frame], Points]
"""From a picture to its five points: eyes, nose, mouth corners, as a detector gives them.

It raises ClipError where it finds no face.
"""

STEADY = tuple(
    LANDMARKS.index(name)
    for name in (
        "eye_right_outer",
        "eye_right_inner",
        "eye_left_inner",
        "eye_left_outer",
        "nose_bridge",
        "nose_tip",
    )
)
"""Landmarks of a puppet that tell its pose: neither speech nor expression moves them much."""

Part = Literal["train", "held-out", "validation"]
Second = Literal["recording", "face"]

HELD_OUT = 6
"""Of the world's training speakers, the last so many are held out for early validation."""


# ---- pose ---------------------------------------------------------------------------------


def similarity(points: Points, target: Points) -> Points:
    """Return the similarity transform that takes points closest to their targets.

    Shift, turn and one scale, no mirror; least squares.

    Args:
        points: float (K, 2), at least two that differ.
        target: float (K, 2).

    Returns:
        float64 (2, 3): ``target ~ points @ m[:, :2].T + m[:, 2]``.

    Raises:
        CardError: shapes differ, a value is not finite, or all points are one.
    """
    points, target = np.asarray(points, np.float64), np.asarray(target, np.float64)
    if points.shape != target.shape or points.ndim != 2 or points.shape[1:] != (2,):
        raise CardError(
            f"landmarks of the shapes {points.shape} and {target.shape} cannot be aligned",
            "Give the same landmarks twice, each (K, 2)",
        )
    if not (np.isfinite(points).all() and np.isfinite(target).all()):
        raise CardError("a landmark is not a finite number", "Leave out frames without a face")
    if not np.ptp(points, axis=0).any():
        raise CardError("all landmarks lie in one point", "Give at least two that differ")
    return similarity_transform(points, target)


def moved(points: Points, transform: Points) -> Points:
    """Return points where a transform (2, 3) takes them: float64 (K, 2)."""
    found: Points = np.asarray(points, np.float64) @ transform[:, :2].T + transform[:, 2]
    return found


def warp(picture: Frame, transform: Points, size: int) -> Frame:
    """Move a picture by a similarity transform into a square.

    What is made smaller is averaged first, so that nothing is aliased; beyond the picture
    its edge is repeated.

    Args:
        picture: uint8 (height, width, 3).
        transform: float (2, 3), from pixels of the picture to pixels of the square.
        size: the square's side.

    Returns:
        uint8 (size, size, 3).
    """
    cv2 = opencv()
    scale = float(np.hypot(transform[0, 0], transform[1, 0]))
    if scale < 1:
        height, width = picture.shape[:2]
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = cv2.resize(picture, small, interpolation=cv2.INTER_AREA)
        # From pixels of the small picture to those of the large one: x = (s + 0.5) / f - 0.5.
        grow = np.array([width / small[0], height / small[1]])
        shift = transform[:, :2] @ (grow / 2 - 0.5) + transform[:, 2]
        transform = np.c_[transform[:, :2] * grow, shift]
    return np.asarray(
        cv2.warpAffine(
            picture,
            transform,
            (size, size),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
    )


def align_pose(picture: Frame, points: Points, target_points: Points, size: int) -> Frame:
    """Move a face so that its landmarks come to lie on given ones (section 4.1 of ASCCL).

    Corresponding regions of two faces then fall on the same cells of a feature map.

    Args:
        picture: uint8 (height, width, 3).
        points: float (K, 2), the picture's landmarks.
        target_points: float (K, 2), where they should lie in the square.
        size: the square's side in pixels.

    Returns:
        uint8 (size, size, 3).

    Raises:
        CardError: the landmarks do not go together (see :func:`similarity`).
    """
    return warp(picture, similarity(points, target_points), size)


def _scaling(picture: Frame, size: int, where: str) -> Points:
    """Return the transform that resizes a whole picture to a square."""
    height, width = picture.shape[:2]
    if height != width:
        raise ClipError(
            f"{where}: {width} x {height} pixels, which is no square face crop",
            "Let faces be found in the frames, or give square crops",
        )
    f = size / width
    return np.array([[f, 0, f / 2 - 0.5], [0, f, f / 2 - 0.5]])


# ---- recordings and pairs -----------------------------------------------------------------


@dataclass(frozen=True)
class Puppet:
    """A puppet's performance: frames drawn on demand, landmarks exact, each frame a face crop."""

    take: Take
    whole = True

    @property
    def name(self) -> str:
        """Speaker, emotion and sentence, and the emotion of another take that is performed."""
        own = f"{self.take.speaker.name}/{self.take.emotion}/{self.take.sentence.name}"
        return f"{own}/{self.take.performance.emotion}" if self.take.performance else own

    def frame(self, index: int) -> Frame:
        """Draw one frame: uint8 (size, size, 3), RGB."""
        return self.take.frame(index)

    def points(self, index: int, picture: Frame) -> Points | None:
        """Return the landmarks of :data:`STEADY` in one frame, (6, 2)."""
        del picture
        drawn = self.take.geometry(index).contours["landmarks"][list(STEADY)]
        return np.asarray((drawn + 0.5) / OVERSAMPLING - 0.5)


@dataclass(frozen=True)
class Pictures:
    """A recording as numbered picture files.

    Attributes:
        name: the recording's name.
        root: the user's folder.
        template: a file's name in it, with ``{frame}`` still to be filled in.
        first: number in the name of the file of frame 0.
        find: finds a face's five points; None for frames that are square face crops already,
            whose pose is then taken as it is.
    """

    name: str
    root: Path
    template: str
    first: int = 0
    find: FindPoints | None = None

    @property
    def whole(self) -> bool:
        """Whether a frame is a face crop already, to be used whole."""
        return self.find is None

    def path(self, index: int) -> Path:
        """Return the file of one frame."""
        return inside(self.root, self.template.format(frame=index + self.first))

    def frame(self, index: int) -> Frame:
        """Read one frame: uint8 (height, width, 3), RGB.

        Raises:
            ClipError: the file is absent, or no readable picture.
        """
        return np.ascontiguousarray(read_picture(self.path(index))[:, :, ::-1])

    def points(self, index: int, picture: Frame) -> Points | None:
        """Return a face's five points, (5, 2), or None when faces are not looked for.

        Raises:
            ClipError: there is no face; names the file.
        """
        if self.find is None:
            return None
        try:
            return self.find(picture)
        except ClipError as error:
            raise ClipError(f"{self.path(index)}: {error.problem}", error.remedy) from error


@dataclass(frozen=True, eq=False)
class Held:
    """A recording whose face crops, all in one pose, are in memory.

    Attributes:
        name: the recording's name.
        pictures: uint8 (N, size, size, 3), RGB.
        frames: int64 (N,), the number of the frame that each shows, increasing.
    """

    name: str
    pictures: npt.NDArray[np.uint8]
    frames: npt.NDArray[np.int64]
    whole = True

    def frame(self, index: int) -> Frame:
        """Return the crop of one frame.

        Raises:
            ClipError: no face was found in it.
        """
        row = int(np.searchsorted(self.frames, index))
        if row == len(self.frames) or self.frames[row] != index:
            raise ClipError(f"{self.name}: frame {index} shows no face", "Leave the frame out")
        return np.asarray(self.pictures[row])

    def points(self, index: int, picture: Frame) -> Points | None:
        """Return None: the crops are taken as they are."""
        del index, picture
        return None


Recording = Puppet | Pictures | Held


@dataclass(frozen=True)
class Pair:
    """Two recordings of one sentence by one speaker.

    Attributes:
        speaker: who speaks.
        emotion: of the second recording; the first is neutral.
        neutral: the first recording, x in the papers.
        emotional: the second, y.
        numbers: int64 (N, 2), the frames of the first and the second in which the same is
            said; neither column ever decreases.
    """

    speaker: str
    emotion: str
    neutral: Recording
    emotional: Recording
    numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def pictures(self, index: int, size: int) -> tuple[Frame, Frame]:
        """Return both frames of one entry in one pose.

        The neutral frame is resized whole when it is a face crop, else its five points are
        put on the ArcFace template; the emotional face is moved onto the neutral one.

        Args:
            index: of the entry, 0 to ``len(self) - 1``.
            size: side of the pictures in pixels.

        Returns:
            Neutral and emotional, each uint8 (size, size, 3), RGB.

        Raises:
            ClipError: a file is absent or unreadable, or shows no face.
        """
        i, j = (int(n) for n in self.numbers[index])
        x, y = self.neutral.frame(i), self.emotional.frame(j)
        points, own = self.neutral.points(i, x), self.emotional.points(j, y)
        if self.neutral.whole or points is None:
            placed = _scaling(x, size, self.neutral.name)
        else:
            placed = similarity(points, (ARCFACE_TEMPLATE + 0.5) * size / 112 - 0.5)
        if points is None or own is None:
            return warp(x, placed, size), warp(y, _scaling(y, size, self.emotional.name), size)
        return warp(x, placed, size), align_pose(y, own, moved(points, placed), size)

    def windows(self, length: int, *, moving: bool = False) -> npt.NDArray[np.int64]:
        """Return where windows of consecutive entries begin.

        Args:
            length: entries in a window, at least 1.
            moving: only windows in which no frame of either recording follows itself, so
                that time passes between any two entries on both sides.

        Returns:
            int64, indices of first entries, increasing; empty when the pair is too short.
        """
        starts = np.arange(max(0, len(self) - length + 1))
        if not moving or length < 2 or not len(starts):
            return starts
        passes = (np.diff(self.numbers, axis=0) > 0).all(axis=1)
        runs = np.lib.stride_tricks.sliding_window_view(passes, length - 1)
        return starts[runs.all(axis=1)]


def digest(pairs: Sequence[Pair]) -> str:
    """Return a hash of what is paired, as 64 hexadecimal digits: names and frame numbers.

    Pixels are not hashed: those of puppets follow from the world's name, which is, and files
    are the user's.
    """
    total = hashlib.sha256()
    for pair in pairs:
        world = pair.neutral.take.world.name if isinstance(pair.neutral, Puppet) else ""
        names = [world, pair.speaker, pair.emotion, pair.neutral.name, pair.emotional.name]
        total.update(json.dumps([*names, pair.numbers.tolist()]).encode())
    return total.hexdigest()


# ---- puppets ------------------------------------------------------------------------------


def puppet_pairs(
    world: World,
    part: Part = "train",
    *,
    speakers: int | None = None,
    second: Second = "recording",
) -> list[Pair]:
    """Return the pairs of puppets: neutral against each other emotion, corresponding exactly.

    ``train``: training speakers, the sentences they speak in every emotion. ``held-out``: the
    last :data:`HELD_OUT` training speakers, who are not in ``train``, with the same sentences,
    for early validation (the papers hold out one speaker of MEAD). ``validation``: the
    world's validation speakers and sentences that nobody in the other two speaks, to be looked
    at once, after training. Test speakers are in none.

    Args:
        world: whose takes.
        part: which speakers and sentences.
        speakers: only the first so many.
        second: ``recording``, a take of its own, as MEAD has them: the head, the eyes and the
            light of the two go their own ways; or ``face``, the neutral take with another
            emotion on the face (:meth:`spfem_bench.puppets.world.Take.with_face`), which only
            puppets have.

    Returns:
        One pair for each speaker, sentence and emotion, in that order; an entry for each
        frame of the neutral take.

    Raises:
        CardError: no such part, or not that many speakers.
    """
    if part not in get_args(Part):
        raise unknown_name("part of the pairs", part, get_args(Part))
    recorded = list(world.recordings("validation" if part == "validation" else "train"))
    everyone = list(dict.fromkeys(speaker for speaker, _, _ in recorded))
    if part != "validation":
        everyone = everyone[:-HELD_OUT] if part == "train" else everyone[-HELD_OUT:]
    if speakers is not None and not 1 <= speakers <= len(everyone):
        raise CardError(
            f"{speakers} speakers are asked for, '{part}' has {len(everyone)}",
            f"Give a number from 1 to {len(everyone)}",
        )
    chosen = set(everyone[:speakers])
    emotions: dict[tuple[str, str], set[str]] = {}
    for speaker, emotion, sentence in recorded:
        if speaker in chosen:
            emotions.setdefault((speaker, sentence), set()).add(emotion)
    return [
        _puppet_pair(world, speaker, sentence, emotion, second)
        for (speaker, sentence), spoken in emotions.items()
        if spoken.issuperset(EMOTIONS)
        for emotion in EMOTIONS[1:]
    ]


def _puppet_pair(world: World, speaker: str, sentence: str, emotion: str, second: Second) -> Pair:
    a = world.take(speaker, "neutral", sentence)
    b = a.with_face(emotion) if second == "face" else world.take(speaker, emotion, sentence)
    return Pair(speaker, emotion, Puppet(a), Puppet(b), true_frames(a, b))


def true_frames(a: Take, b: Take) -> npt.NDArray[np.int64]:
    """Return, for each frame of a take, the frame of another that shows the same moment.

    Returns:
        int64 (frames of a, 2).

    Raises:
        CardError: the takes say different sentences.
    """
    frames = np.arange(a.n_frames)
    times = correspondence(a.phones, b.phones, (frames + 0.5) / FRAME_RATE)
    shown = np.clip(np.floor(times * FRAME_RATE), 0, b.n_frames - 1)
    return np.stack([frames, shown], 1).astype(np.int64)


# ---- lists over frames of real recordings -------------------------------------------------

TEST_SPEAKERS = ("M003", "M009", "W029", "M012", "M030", "W015")
"""MEAD's speakers on whom the papers test; pairs of them must not be learnt from."""

TEMPLATE = "{speaker}/{emotion}/{clip}/{frame:06d}.png"
"""Where a frame lies by default."""


class Listed(NamedTuple):
    """One entry of a list of pairs: who, in what emotion, which clips, which frames."""

    speaker: str
    emotion: str
    clips: tuple[str, str]
    numbers: npt.NDArray[np.int64]


def read_list(path: Path, *, fewest: int = 2) -> list[Listed]:
    """Read and check a list of pairs in the layout of the authors' ``aligned_path36.json``.

    ``{speaker: {emotion: {"001_030": [[0, 1, 1], [0, 0, 1]]}}}``: frame numbers, from 0, of
    the neutral clip 001 and, as many, of the emotional clip 030.

    Args:
        path: the JSON file.
        fewest: entries that a pair must have at least.

    Returns:
        Every pair of clips, in the file's order.

    Raises:
        CardError: unreadable, or pairs that are not as above: the first few and their number.
    """
    content = _json(path)
    found: list[Listed] = []
    wrong: list[str] = []
    for speaker, emotions in _table(content, str(path)).items():
        for emotion, clips in _table(emotions, f"{path}: {speaker}").items():
            for key, columns in _table(clips, f"{path}: {speaker}/{emotion}").items():
                try:
                    listed = Listed(speaker, emotion, split_key(key), _numbers(columns, fewest))
                except CardError as error:
                    wrong.append(f"{speaker}/{emotion}/{key}: {error.problem}")
                else:
                    found.append(listed)
    if wrong:
        raise CardError(
            f"{path}: {len(wrong)} pairs cannot be used: {_few(wrong)}", "Align those again"
        )
    if not found:
        raise CardError(f"{path}: holds no pairs", "Make a list with 'spfem-bench align'")
    return found


def write_list(path: Path, listed: Sequence[Listed]) -> None:
    """Write pairs in the layout that :func:`read_list` reads.

    Raises:
        CardError: names of clips that their key would not tell apart.
        StorageError: the folder cannot be written, or the disk is full.
    """
    content: dict[str, dict[str, dict[str, list[list[int]]]]] = {}
    for entry in listed:
        clips = content.setdefault(entry.speaker, {}).setdefault(entry.emotion, {})
        clips[join_key(entry.clips)] = entry.numbers.T.tolist()
    write_atomically(path, json.dumps(content) + "\n")


def split_key(key: str) -> tuple[str, str]:
    """Return the names of the neutral and the emotional clip.

    >>> split_key("001_030"), split_key("my_clip_my_clip")
    (('001', '030'), ('my_clip', 'my_clip'))

    Raises:
        CardError: the key does not tell where the first name ends.
    """
    middle = len(key) // 2
    if key[:middle] == key[middle + 1 :] and key[middle : middle + 1] == "_" and middle:
        return key[:middle], key[:middle]
    first, _, second = key.partition("_")
    if not first or not second or "_" in second:
        raise CardError("the key does not name two clips", "Write it as 001_030")
    return first, second


def join_key(clips: tuple[str, str]) -> str:
    """Return the key of two clips, which :func:`split_key` reads.

    Raises:
        CardError: the key would not tell where the first name ends.
    """
    key = "_".join(clips)
    try:
        if split_key(key) == clips:
            return key
    except CardError:
        pass
    raise CardError(
        f"'{key}' would not tell where the first clip's name ends",
        "Rename the clips alike, or without '_'",
    )


def listed_pairs(
    path: Path,
    root: Path,
    *,
    template: str = TEMPLATE,
    first: int = 0,
    find: FindPoints | None = None,
    forbidden: Collection[str] = TEST_SPEAKERS,
) -> list[Pair]:
    """Return the pairs of a list over frames in a user's folder, all of whose files are there.

    Args:
        path: the list (see :func:`read_list`).
        root: the folder of the frames.
        template: a frame's name in it: ``{speaker}``, ``{emotion}``, ``{clip}``, ``{level}``
            (MEAD's intensity: 1 for neutral, else 3) and ``{frame}`` are filled in.
        first: number in the name of the file of frame 0; ffmpeg begins with 1.
        find: finds a face's five points (see :func:`five_points`); None when the frames are
            square face crops in one pose already.
        forbidden: speakers who must not be in the list.

    Raises:
        CardError: the list or the template is wrong, a speaker is forbidden, or files are
            absent: the first few and their number.
    """
    listed = read_list(path)
    barred = sorted({entry.speaker for entry in listed} & set(forbidden))
    if barred:
        raise CardError(
            f"{path}: holds pairs of {', '.join(barred)}, on whom methods are tested",
            "Leave those speakers out of the list",
        )
    pairs = []
    for entry in listed:
        neutral, emotional = (
            Pictures(
                f"{entry.speaker}/{emotion}/{clip}",
                root,
                _filled(template, entry.speaker, emotion, clip),
                first,
                find,
            )
            for emotion, clip in zip(("neutral", entry.emotion), entry.clips, strict=True)
        )
        pairs.append(Pair(entry.speaker, entry.emotion, neutral, emotional, entry.numbers))
    _check_files(pairs, root)
    return pairs


def hold_out(pairs: Sequence[Pair], speakers: Collection[str]) -> tuple[list[Pair], list[Pair]]:
    """Part pairs into those to learn from and those of speakers held out.

    Raises:
        CardError: a speaker has no pairs, or nobody is left to learn from.
    """
    everyone = {pair.speaker for pair in pairs}
    for speaker in speakers:
        if speaker not in everyone:
            raise unknown_name("speaker to hold out", speaker, everyone)
    if everyone <= set(speakers):
        raise CardError("all speakers are held out", "Leave some to learn from")
    return (
        [pair for pair in pairs if pair.speaker not in speakers],
        [pair for pair in pairs if pair.speaker in speakers],
    )


def five_points(detect: Detector) -> FindPoints:
    """Return what finds the five points of the largest face by a detector.

    The function raises ClipError where there is no face.
    """

    def find(picture: Frame) -> Points:
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


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CardError(
            f"{where}: no table of names", 'Write {speaker: {emotion: {"001_001": [[...], [...]]}}}'
        )
    return value


def _numbers(columns: Any, fewest: int) -> npt.NDArray[np.int64]:
    if not (
        isinstance(columns, list) and len(columns) == 2 and all(type(c) is list for c in columns)
    ):
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
    """Fill in all but the frame's number."""
    values = {
        "speaker": speaker,
        "emotion": emotion,
        "clip": clip,
        "level": 1 if emotion == "neutral" else 3,
    }
    parts = []
    try:
        for text, name, form, conversion in Formatter().parse(template):
            parts.append(text.replace("{", "{{").replace("}", "}}"))
            if name == "frame":
                parts.append(f"{{frame:{form}}}" if form else "{frame}")
            elif name is not None:
                if name not in values or conversion:
                    raise unknown_name("part of the template", name, [*values, "frame"])
                filled = format(values[name], form or "")
                parts.append(filled.replace("{", "{{").replace("}", "}}"))
        whole = "".join(parts)
        names = {whole.format(frame=n) for n in (0, 1)}
    except ValueError as error:
        raise CardError(f"the template '{template}' is wrong: {error}", _TEMPLATES) from error
    if len(names) < 2:
        raise CardError(f"the template '{template}' lacks {{frame}}", _TEMPLATES)
    inside(Path(), names.pop())
    return whole


_TEMPLATES = f"Write for example {TEMPLATE}"


def _check_files(pairs: Sequence[Pair], root: Path) -> None:
    if not root.is_dir():
        raise CardError(f"{root} is no folder", "Name the folder of the frames")
    needed: dict[Path, None] = {}
    for pair in pairs:
        for recording, column in zip((pair.neutral, pair.emotional), pair.numbers.T, strict=True):
            if isinstance(recording, Pictures):
                needed |= dict.fromkeys(recording.path(int(n)) for n in np.unique(column))
    absent = [path.relative_to(root).as_posix() for path in needed if not path.is_file()]
    if absent:
        raise CardError(
            f"{root}: {len(absent)} of {len(needed)} frames are absent: {_few(absent)}",
            "Check the folder, the template and the number of the first frame",
        )


def _few(names: Sequence[str]) -> str:
    """Name the first few."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
