"""Geometry of facial landmarks: schemes of points, the frame of the eye corners, the lips' opening.

Points are float64 (N, K, 2), x and y in pixels of the frame. "Left" and "right" are the picture's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from spfem_bench.faces import exact

_Floats = npt.NDArray[np.float64]


class Scheme(NamedTuple):
    """Which landmark is where on a face, by their numbers.

    Attributes:
        name: as papers and tables call it.
        eyes: the outer corners, left and right.
        inner_eyes: the inner corners, left and right.
        opening: upper and lower point of the inner lips, of one pair or several.
        corners: of the inner lips, left and right; of the outer ones where there are no others.
        mouth: all points of the lips.
        lids: upper and lower point of each pair, of the left and of the right eye.
        nose: its tip.
        nose_root: the uppermost point of its bridge.
    """

    name: str
    eyes: tuple[int, int]
    inner_eyes: tuple[int, int]
    opening: tuple[tuple[int, int], ...]
    corners: tuple[int, int]
    mouth: tuple[int, ...]
    lids: tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]
    nose: int
    nose_root: int


SCHEMES: Mapping[int, Scheme] = {
    98: Scheme(
        name="WFLW, 98 points",
        eyes=(60, 72),
        inner_eyes=(64, 68),
        opening=((89, 95), (90, 94), (91, 93)),
        corners=(88, 92),
        mouth=tuple(range(76, 96)),
        lids=(((61, 67), (62, 66), (63, 65)), ((69, 75), (70, 74), (71, 73))),
        nose=54,
        nose_root=51,
    ),
    68: Scheme(
        name="iBUG 300-W, 68 points",
        eyes=(36, 45),
        inner_eyes=(39, 42),
        opening=((61, 67), (62, 66), (63, 65)),
        corners=(60, 64),
        mouth=tuple(range(48, 68)),
        lids=(((37, 41), (38, 40)), ((43, 47), (44, 46))),
        nose=30,
        nose_root=27,
    ),
    # In spfem_bench/puppets/tables/landmarks.csv right and left are the puppet's own.
    25: Scheme(
        name="puppets, 25 points",
        eyes=(0, 6),
        inner_eyes=(2, 4),
        opening=((20, 21),),
        corners=(16, 18),
        mouth=tuple(range(16, 22)),
        lids=(((1, 3),), ((5, 7),)),
        nose=15,
        nose_root=14,
    ),
}
"""Schemes by their number of points."""


def scheme_of(points: _Floats) -> Scheme:
    """Return the scheme of points (N, K, 2); raise ValueError for an unknown number of points."""
    count = points.shape[-2]
    if count not in SCHEMES:
        known = ", ".join(str(number) for number in sorted(SCHEMES))
        raise ValueError(f"no scheme of {count} landmarks is known (known: {known})")
    return SCHEMES[count]


def eye_distance(points: _Floats) -> _Floats:
    """Return the distance of the outer eye corners in each frame, in pixels: (N,)."""
    left, right = scheme_of(points).eyes
    return np.asarray(np.linalg.norm(points[:, right] - points[:, left], axis=1))


def in_eye_frame(points: _Floats) -> _Floats:
    """Return points where the face is upright and of one size: (N, K, 2), in eye distances.

    The origin is midway between the outer eye corners, x points to the right one, y downwards.
    """
    left, right = (points[:, corner] for corner in scheme_of(points).eyes)
    across = right - left
    squared = (across**2).sum(axis=1)[:, None]
    moved = points - ((left + right) / 2)[:, None]
    x = (moved * across[:, None]).sum(axis=2) / squared
    down = np.stack([-across[:, 1], across[:, 0]], axis=1)
    y = (moved * down[:, None]).sum(axis=2) / squared
    return np.stack([x, y], axis=2)


def opening(points: _Floats) -> _Floats:
    """Return how far the inner lips are apart in each frame, in eye distances: (N,).

    The mean over pairs of points, measured downwards in the frame of the eye corners; below 0 where
    the network places the upper lip under the lower one.
    """
    down = in_eye_frame(points)[:, :, 1]
    pairs = scheme_of(points).opening
    return np.asarray(np.mean([down[:, low] - down[:, high] for high, low in pairs], axis=0))


def width(points: _Floats) -> _Floats:
    """Return the distance of the mouth's corners in each frame, in eye distances: (N,)."""
    left, right = scheme_of(points).corners
    framed = in_eye_frame(points)
    return np.asarray(np.linalg.norm(framed[:, right] - framed[:, left], axis=1))


def roundness(points: _Floats) -> _Floats:
    """Return the inner lips' opening as a part of their width in each frame: (N,)."""
    return opening(points) / width(points)


def pose(points: _Floats) -> _Floats:
    """Return what the head's turns move: (N, 3), turn, nod and tilt.

    Turn and nod are the nose tip's place beside and below the nose's root, in eye distances; tilt
    is the angle of the line of the eyes, in radians. A mouth that moves changes none of them.
    """
    scheme = scheme_of(points)
    framed = in_eye_frame(points)
    nose = framed[:, scheme.nose] - framed[:, scheme.nose_root]
    left, right = (points[:, corner] for corner in scheme.eyes)
    tilt = np.arctan2(*(right - left).T[::-1])
    return np.column_stack([nose, tilt])


def eye_opening(points: _Floats) -> _Floats:
    """Return the eyes' aspect ratio in each frame, the mean of both: (N,).

    Source: Soukupova and Cech, Real-Time Eye Blink Detection using Facial Landmarks, CVWW 2016.
    """
    scheme = scheme_of(points)
    ratios = []
    for pairs, outer, inner in zip(scheme.lids, scheme.eyes, scheme.inner_eyes, strict=True):
        along = np.linalg.norm(points[:, outer] - points[:, inner], axis=1)
        apart = [np.linalg.norm(points[:, low] - points[:, high], axis=1) for high, low in pairs]
        ratios.append(np.mean(apart, axis=0) / along)
    return np.asarray(np.mean(ratios, axis=0))


def contrast(points: _Floats, picture: npt.NDArray[np.uint8]) -> _Floats:
    """Return how far grey varies around the mouth and around the eyes: (2,), in grey levels.

    Without the darkest and brightest fifth of a box, so that the edges of what covers a mouth do
    not count.

    *points* are of one picture, (1, K, 2), in its pixels; *picture* is uint8 (height, width, 3),
    RGB. Boxes around the points of the mouth and of each eye are taken; the eyes' is the mean of
    both. An unknown scheme of points has NaN.
    """
    if points.shape[1] not in SCHEMES:
        return np.full(2, np.nan)
    scheme = scheme_of(points)
    corners = zip(scheme.eyes, scheme.inner_eyes, scheme.lids, strict=True)
    eyes = [[*ends, *np.ravel(lids).tolist()] for *ends, lids in corners]
    parts = (list(scheme.mouth), *eyes)
    mouth, left, right = (_spread(points[0, part], picture) for part in parts)
    return np.array([mouth, (left + right) / 2])


def _spread(points: _Floats, picture: npt.NDArray[np.uint8]) -> float:
    """Return the range of the middle three fifths of grey in the box around points."""
    height, width = picture.shape[:2]
    left, top = (int(v) for v in np.clip(np.floor(points.min(axis=0)) - 1, 0, [width, height]))
    right, bottom = (int(v) for v in np.clip(np.ceil(points.max(axis=0)) + 1, 0, [width, height]))
    box = picture[top:bottom, left:right]
    if not box.size:
        return 0.0
    low, high = np.percentile(exact.grey(box), [20, 80])
    return float(high - low)


def rigid(points: _Floats) -> _Floats:
    """Return the points that no expression moves far: eye corners, nose tip and root (N, 6, 2)."""
    scheme = scheme_of(points)
    return points[:, [*scheme.eyes, *scheme.inner_eyes, scheme.nose, scheme.nose_root]]
