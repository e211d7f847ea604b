"""Pairs for metric learning: one speaker, one sentence, two emotions, frame by frame."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from spfem_bench.datasets import pose
from spfem_bench.errors import ClipError
from spfem_bench.faces.crop import ARCFACE_TEMPLATE
from spfem_bench.files import inside
from spfem_bench.media.pictures import read_picture
from spfem_bench.media.video import Frame

FindPoints = Callable[[Frame], pose.Landmarks]
"""From a picture to its five points: eyes, nose, mouth corners. Raises ClipError without a face."""


class FrameSource(Protocol):
    """A recording of which single frames are read or drawn.

    Attributes:
        whole: whether a frame is a face crop, to be used whole.
        world: the world that frames are drawn from, in any process; empty for real clips.
    """

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def whole(self) -> bool: ...  # noqa: D102
    @property
    def world(self) -> str: ...  # noqa: D102

    def frame(self, index: int) -> Frame:
        """Return uint8 (height, width, 3), RGB; raise ClipError if unreadable or without a face."""

    def points(self, index: int, picture: Frame) -> pose.Landmarks | None:
        """Return a frame's landmarks, None to take the pose as it is; ClipError without a face."""


@dataclass(frozen=True)
class Pictures:
    """A recording as numbered picture files."""

    name: str
    root: Path
    template: str  # a file's name below the root, with `{frame}` still to be filled in
    first: int = 0  # number in the name of the file of frame 0
    find: FindPoints | None = None  # None for square face crops in one pose
    world = ""

    @property
    def whole(self) -> bool:
        """Whether a frame is a face crop."""
        return self.find is None

    def path(self, index: int) -> Path:
        """Return the file of one frame."""
        return inside(self.root, self.template.format(frame=index + self.first))

    def frame(self, index: int) -> Frame:
        """Read one frame."""
        return np.ascontiguousarray(read_picture(self.path(index))[:, :, ::-1])

    def points(self, index: int, picture: Frame) -> pose.Landmarks | None:
        """Return a face's five points, (5, 2)."""
        if self.find is None:
            return None
        try:
            return self.find(picture)
        except ClipError as error:
            raise ClipError(f"{self.path(index)}: {error.problem}", error.remedy) from error


@dataclass(frozen=True, eq=False)
class Held:
    """A recording whose face crops, all in one pose, are in memory."""

    name: str
    pictures: npt.NDArray[np.uint8]  # uint8 (N, size, size, 3), RGB
    frames: npt.NDArray[np.int64]  # int64 (N,), the frame number of each, increasing
    whole = True
    world = ""

    def frame(self, index: int) -> Frame:
        """Return the crop of one frame."""
        row = int(np.searchsorted(self.frames, index))
        if row == len(self.frames) or self.frames[row] != index:
            raise ClipError(f"{self.name}: frame {index} shows no face", "Leave the frame out")
        return np.asarray(self.pictures[row])

    def points(self, index: int, picture: Frame) -> pose.Landmarks | None:
        """Return None."""
        return None


@dataclass(frozen=True)
class EmotionPair:
    """Two recordings of one sentence by one speaker."""

    speaker: str
    emotion: str  # of the second recording; the first is neutral
    neutral: FrameSource  # the first recording, x in the papers; `emotional` is y
    emotional: FrameSource
    # int64 (N, 2), the frames of the first and the second at which the same is spoken; neither
    # column ever decreases
    numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def pictures(self, index: int, size: int) -> tuple[Frame, Frame]:
        """Return both frames of one entry in one pose: each uint8 (size, size, 3), RGB.

        A neutral face crop is resized whole; in other neutral frames the five points are put on the
        ArcFace template. The emotional face is moved onto the neutral one. Raises ClipError for an
        absent or unreadable frame, or one that shows no face.
        """
        i, j = (int(n) for n in self.numbers[index])
        x, y = self.neutral.frame(i), self.emotional.frame(j)
        points, own = self.neutral.points(i, x), self.emotional.points(j, y)
        if self.neutral.whole or points is None:
            placed = pose.fit_square(x, size, self.neutral.name)
        else:
            placed = pose.fit_similarity(points, (ARCFACE_TEMPLATE + 0.5) * size / 112 - 0.5)
        if points is None or own is None:
            onto = pose.fit_square(y, size, self.emotional.name)
        else:
            onto = pose.fit_similarity(own, pose.move_points(points, placed))
        return pose.warp_picture(x, placed, size), pose.warp_picture(y, onto, size)

    def windows(self, length: int, *, moving: bool = False) -> npt.NDArray[np.int64]:
        """Return the first entries of all windows of *length* consecutive entries: int64.

        With *moving*, only windows in which no frame of either recording follows itself.
        """
        starts = np.arange(max(0, len(self) - length + 1))
        if not moving or length < 2 or not len(starts):
            return starts
        passes = (np.diff(self.numbers, axis=0) > 0).all(axis=1)
        runs = np.lib.stride_tricks.sliding_window_view(passes, length - 1)
        return starts[runs.all(axis=1)]


def pairs_digest(pairs: Sequence[EmotionPair]) -> str:
    """Return the SHA-256 of names and frame numbers, not of pixels: 64 hexadecimal digits."""
    total = hashlib.sha256()
    for pair in pairs:
        a, b = pair.neutral, pair.emotional
        names = [a.world, pair.speaker, pair.emotion, a.name, b.name]
        total.update(json.dumps([*names, pair.numbers.tolist()]).encode())
    return total.hexdigest()
