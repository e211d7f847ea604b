"""Known degradations of a clip, made while it is read: controls of what metrics respond to.

They act on frames whose face is known: the detector's response to an edit does not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip, Edit
from spfem_bench.errors import ClipError
from spfem_bench.faces import exact
from spfem_bench.faces.crop import opencv, similarity_transform
from spfem_bench.faces.track import Face
from spfem_bench.media.audio import SAMPLE_RATE, SAMPLES_PER_FRAME, Samples
from spfem_bench.media.video import Frame

SEED = 0
"""Of the shuffle; every clip's blocks are shuffled alike."""

CORE = 0.75
"""Part of the mouth's ellipse, from its middle, that is replaced wholly; then it fades out."""

STILL = np.eye(2, 3)
"""The transform that moves nothing."""

_Pair = tuple[Frame, Face | None]
_Item = TypeVar("_Item")


def edited_frames(
    pairs: Iterable[_Pair], edit: Edit, n_frames: int = 0, *, aligned: bool = False
) -> Iterator[_Pair]:
    """Apply an edit to a clip's frames and faces; a frame that is not changed is the same object.

    Args:
        pairs: uint8 (height, width, 3) RGB frames, each with the subject's face.
        edit: its kind and level; edits of sound leave frames alone.
        n_frames: frames of the clip; needed by ``frozen-mouth`` only.
        aligned: the frames are face crops already and come without faces.
    """
    kind = None if edit.changes_nothing else edit.kind
    if kind == "blurred":
        for frame, face in pairs:
            yield blurred(frame, edit.level, aligned=aligned), face
    elif kind == "frozen-mouth":
        yield from _frozen(pairs, int(edit.level * n_frames + 0.5), aligned=aligned)
    elif kind == "time-shuffled":
        yield from shuffled(pairs, int(edit.level))
    else:
        yield from pairs


def edited_sound(samples: Samples, clip: Clip, per_frame: int = SAMPLES_PER_FRAME) -> Samples:
    """Apply a clip's edit to samples (N,); raise ClipError for a shift beyond the end.

    *per_frame* are the samples of one frame, by which levels are counted.
    """
    edit = clip.edit
    if edit is None or edit.kind != "shifted-audio" or edit.changes_nothing:
        return samples
    early = int(edit.level) * per_frame
    if abs(early) >= len(samples):
        length = f"the sound is {len(samples) / SAMPLE_RATE:.2f} s long"
        advice = f"Shift by fewer than {len(samples) / per_frame:.0f} frames"
        raise ClipError(f"{clip}: {length}, all of which would be shifted away", advice)
    silence = np.zeros(abs(early), samples.dtype)
    if early > 0:
        return np.concatenate([samples[early:], silence])
    return np.concatenate([silence, samples[:early]])


def blurred(frame: Frame, percent: float, *, aligned: bool = False) -> Frame:
    """Blur a frame with a sigma in percent of the picture's height; aligned faces exactly."""
    sigma = percent / 100 * frame.shape[0]
    if aligned:
        return exact.blur(frame, sigma)
    return np.asarray(opencv().GaussianBlur(frame, (0, 0), sigma))


def shuffled(items: Iterable[_Item], block: int) -> Iterator[_Item]:
    """Yield items in another order within consecutive blocks; the last may be shorter."""
    held: list[_Item] = []
    number = 0
    for item in items:
        held.append(item)
        if len(held) == block:
            yield from _permuted(held, number)
            held.clear()
            number += 1
    yield from _permuted(held, number)


def _permuted(held: list[_Item], number: int) -> list[_Item]:
    order = np.random.default_rng([SEED, number]).permutation(len(held))
    return [held[i] for i in order]


@dataclass(frozen=True)
class _Ellipse:
    """Mouth and chin in pixels, x + iy; *across* has length 1, half axes lie across, and down."""

    centre: complex
    across: complex
    half_axes: tuple[float, float]


def _mouth(frame: Frame, face: Face | None) -> _Ellipse:
    """Return where mouth and chin are; without a face, where an aligned picture has them."""
    if face is None:
        height, width = frame.shape[:2]
        return _Ellipse(complex(0.5 * width, 0.76 * height), 1, (0.34 * width, 0.26 * height))
    points = face.points.astype(np.float64) @ [1, 1j]
    lips = points[3:].mean()
    down = lips - points[:2].mean()  # as long as it is from the eyes to the mouth
    size = abs(down)
    return _Ellipse(lips + 0.28 * down, -1j * down / size, (0.68 * size, 0.68 * size))


def _with_mouth(
    frame: Frame, source: Frame, where: _Ellipse, transform: npt.NDArray[np.float64]
) -> Frame:
    """Return a frame with the mouth of another picture, *source*, moved by a transform (2, 3)."""
    a, b = (complex(*transform[:, column]) for column in (0, 2))
    height, width = frame.shape[:2]
    middle, reach = a * where.centre + b, abs(a) * max(where.half_axes)
    left, right = (round(min(max(middle.real + r, 0), width)) for r in (-reach - 1, reach + 2))
    top, bottom = (round(min(max(middle.imag + r, 0), height)) for r in (-reach - 1, reach + 2))
    if left >= right or top >= bottom:  # beyond the picture
        return frame
    if np.array_equal(transform, STILL):
        moved = source[top:bottom, left:right]
    else:
        cv2 = opencv()
        matrix = transform - [[0, 0, left], [0, 0, top]]
        size = (right - left, bottom - top)
        moved = cv2.warpAffine(source, matrix, size, borderMode=cv2.BORDER_REPLICATE)
    z = np.arange(left, right)[None, :] + 1j * np.arange(top, bottom)[:, None]
    z = ((z - b) / a - where.centre) / where.across
    distance = np.hypot(z.real / where.half_axes[0], z.imag / where.half_axes[1])
    share = np.clip((1 - distance) / (1 - CORE), 0, 1)[:, :, None]
    result = frame.copy()
    below = frame[top:bottom, left:right]
    result[top:bottom, left:right] = np.rint(below + share * (moved.astype(np.float64) - below))
    return result


def _frozen(pairs: Iterable[_Pair], count: int, *, aligned: bool) -> Iterator[_Pair]:
    """Give the first *count* frames with a face (all if aligned) the mouth of the first of them."""
    first: tuple[Frame, Face | None, _Ellipse] | None = None
    for index, (frame, face) in enumerate(pairs):
        if index >= count or (face is None and not aligned):
            yield frame, face
        elif first is None:
            first = frame, face, _mouth(frame, face)
            yield frame, face
        else:
            source, first_face, where = first
            transform = STILL
            if first_face and face and not np.array_equal(first_face.points, face.points):
                points = first_face.points.astype(np.float64)
                transform = similarity_transform(points, face.points)
            yield _with_mouth(frame, source, where, transform), face
