"""One subject followed through a clip, in one pass and with bounded memory.

*Choice*: over the first ``settle`` frames with a face, linked by overlap, the largest sum of box
areas. *Following*: the detection with the largest IoU, at least ``min_overlap``. *Gaps*: up to
``max_gap`` frames are interpolated; after a longer gap the largest face is the subject.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.networks import FaceSettings
from spfem_bench.errors import ClipError
from spfem_bench.media.video import Frame

_Array = npt.NDArray[np.float32]
_Detected = tuple[Frame, list["Face"]]
_Followed = tuple[Frame, "Face | None"]


class Face(NamedTuple):
    """A face: box, float32 (4,), left, top, right, bottom; points, float32 (5, 2); score 0 to 1.

    The points are the left eye, right eye, nose, left and right corner of the mouth.
    """

    box: _Array
    points: _Array
    score: float

    @property
    def area(self) -> float:
        """The box's area in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


@dataclass
class FaceTrack:
    """Where the subject is in each frame, or None; whether it was detected, not interpolated.

    *rivals* counts the frames in which another face was nearly as large.
    """

    faces: list[Face | None] = field(default_factory=list)
    detected: list[bool] = field(default_factory=list)
    rivals: int = 0

    def to_arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """Return the track as arrays: boxes, points, scores (NaN without a face), detected."""
        n = len(self.faces)
        boxes = np.full((n, 4), np.nan, np.float32)
        points = np.full((n, 5, 2), np.nan, np.float32)
        scores = np.full(n, np.nan, np.float32)
        for i, face in enumerate(self.faces):
            if face is not None:
                boxes[i], points[i], scores[i] = face
        counts = {"detected": np.array(self.detected, np.uint8)}
        rivals = np.array([self.rivals], np.int64)
        return {"boxes": boxes, "points": points, "scores": scores, **counts, "rivals": rivals}

    def fill(self, arrays: Mapping[str, npt.NDArray[np.generic]]) -> FaceTrack:
        """Replace the content by that of :meth:`to_arrays`; return the track."""
        floats = (np.asarray(arrays[name], np.float32) for name in ("boxes", "points", "scores"))
        self.faces = [
            None if np.isnan(score) else Face(box, point, float(score))
            for box, point, score in zip(*floats, strict=True)
        ]
        self.detected = [bool(d) for d in np.asarray(arrays["detected"])]
        self.rivals = int(np.asarray(arrays["rivals"])[0])
        return self

    def check(self, clip: object, settings: FaceSettings) -> None:
        """Raise ClipError when the subject is absent, rarely detected, or not clearly one."""
        n, detected = len(self.faces), sum(self.detected)
        if detected == 0:
            advice = "Look with 'spfem-bench faces CLIP'; a face must be upright and not too small"
            raise ClipError(f"{clip}: no face in any of its {n} frames", advice)
        if detected < settings.min_coverage * n:
            advice = f"{settings.min_coverage:.0%} are needed; cut the clip to where the face is"
            raise ClipError(f"{clip}: a face in only {detected} of {n} frames", advice)
        if self.rivals > n / 2:
            problem = f"{clip}: two faces of similar size in {self.rivals} of {n} frames"
            raise ClipError(problem, "Cut out the subject with #xywh=x,y,width,height")


def overlap(a: _Array, b: _Array) -> float:
    """Return the intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = float(width * height)
    union = float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])) - both
    return both / union


def follow(
    frames: Iterable[_Detected], settings: FaceSettings, track: FaceTrack
) -> Iterator[_Followed]:
    """Follow one subject through frames with detections; hold ``settle + max_gap`` at most."""
    last: Face | None = None
    waiting: list[Frame] = []  # frames since the subject was last detected

    def passed(frame: Frame, face: Face | None, detected: bool = False) -> _Followed:
        track.faces.append(face)
        track.detected.append(detected)
        return frame, face

    for frame, faces in _settled(frames, settings):
        face = _continue(last, faces, settings, lost=len(waiting) > settings.max_gap)
        if face is None:
            waiting.append(frame)
            if last is None or len(waiting) > settings.max_gap + 1:
                yield passed(waiting.pop(0), None)  # the gap is too long to interpolate
            continue
        bridged = last is not None and len(waiting) <= settings.max_gap
        for i, held in enumerate(waiting, start=1):
            between = _between(last, face, i / (len(waiting) + 1)) if bridged and last else None
            yield passed(held, between)
        waiting.clear()
        if any(f.area >= settings.rival * face.area for f in faces if f is not face):
            track.rivals += 1
        last = face
        yield passed(frame, face, True)
    for held in waiting:
        yield passed(held, None)


def _settled(frames: Iterable[_Detected], settings: FaceSettings) -> Iterator[_Detected]:
    """Put the chosen subject first in the list of the first frame that shows it."""
    source = iter(frames)
    held: list[_Detected] = []
    for frame, faces in source:
        if not held and not faces:
            yield frame, faces
            continue
        held.append((frame, faces))
        if len(held) == settings.settle:
            break
    chains: list[list[tuple[int, Face]]] = []
    for index, (_, faces) in enumerate(held):
        for face in faces:
            near = [c for c in chains if c[-1][0] < index]
            best = max(near, key=lambda c: overlap(c[-1][1].box, face.box), default=None)
            if best and overlap(best[-1][1].box, face.box) >= settings.min_overlap:
                best.append((index, face))
            else:
                chains.append([(index, face)])
    subject = max(chains, key=lambda c: sum(f.area for _, f in c), default=[])
    start = subject[0][0] if subject else 0
    for index, (frame, faces) in enumerate(held):
        if index < start:
            yield frame, []  # others only, before the subject appears
        elif subject and index == start:
            first = subject[0][1]
            yield frame, [first, *(f for f in faces if f is not first)]
        else:
            yield frame, faces
    held.clear()  # releases the frames
    yield from source


def _continue(
    last: Face | None, faces: list[Face], settings: FaceSettings, *, lost: bool
) -> Face | None:
    if not faces:
        return None
    if last is None:
        return faces[0]
    if lost:
        return max(faces, key=lambda f: f.area)
    best = max(faces, key=lambda f: overlap(last.box, f.box))
    return best if overlap(last.box, best.box) >= settings.min_overlap else None


def _between(a: Face, b: Face, part: float) -> Face:
    def mix(x: _Array, y: _Array) -> _Array:
        return (x + (y - x) * np.float32(part)).astype(np.float32)

    return Face(mix(a.box, b.box), mix(a.points, b.points), a.score + (b.score - a.score) * part)
