"""NED's aligned faces, approximated: 68 landmarks to a template, and a mask of the face.

Source of the steps and their numbers: foivospar/NED at 6f27034 (MIT), ``preprocessing/detect.py``,
``eye_landmarks.py``, ``segment_face.py`` and ``align.py``. Differences: landmarks are of another
network, smoothed over time, and the mask is drawn from them instead of segmented.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from spfem_bench.faces.crop import opencv, similarity_transform
from spfem_bench.media.video import Frame

FacePoints = npt.NDArray[np.float64]
"""FacePoints in a picture, (K, 2), x and y in pixels; 98 in the order of WFLW."""

SIZE = 256
"""Side of the pictures."""

MARGIN = 70
"""Pixels of a picture that lie outside the face box, in both directions together."""

_JAW_TO_NOSE = (*range(0, 33, 2), *range(33, 38), *range(42, 47), *range(51, 60))
_EYES = (60, 61, 63, 64, 65, 67, 68, 69, 71, 72, 73, 75)
IBUG = (*_JAW_TO_NOSE, *_EYES, *range(76, 96))
"""Which of WFLW's 98 points are iBUG's 68, in iBUG's order; eyelids have eight points in WFLW."""

_X = """
57 60 62 67 72 83 93 105 128 148 159 169 176 181 184 186 186 70 77 88 98 108 143 153 164 174 179
126 126 126 126 115 121 128 133 138 83 90 98 108 100 90 143 153 161 166 161 151 100 110 123 128
133 146 153 146 136 128 121 110 100 121 128 136 151 136 128 121
"""
_Y = """
113 133 149 166 182 197 204 215 220 215 204 197 182 164 146 131 111 93 85 85 85 88 88 85 85 85
93 111 126 138 149 154 156 159 156 154 111 106 106 111 113 113 111 106 106 108 113 113 174 171
169 169 169 169 174 179 184 184 184 182 174 174 174 174 174 176 176 176
"""
NED_TEMPLATE = np.column_stack([_X.split(), _Y.split()]).astype(np.float64)
"""Where the 68 points lie in an aligned face (NED's ``preprocessing/files/template.gz``)."""

FOREHEAD = 0.35
"""How far the mask reaches above the brows, as a part of the distance from brows to chin."""

ARCH = 2.5
"""Exponent of the superellipse that bounds the forehead; 2 is an ellipse."""

EROSION, KEPT = 21, 0.6
"""The soft erosion: side of the cone in pixels, and the part of it that must be face."""


def align_transform(points: FacePoints) -> npt.NDArray[np.float64]:
    """Return the similarity, float64 (2, 3), that takes 98 points closest to NED's template."""
    return similarity_transform(points[list(IBUG)], NED_TEMPLATE)


def face_mask(points: FacePoints, size: tuple[int, int] = (SIZE, SIZE)) -> npt.NDArray[np.uint8]:
    """Return the mask of a face with these 98 points: uint8 (height, width), 0 or 1.

    It is the convex hull of jaw, brows and an arch over the forehead, softly eroded: one part
    without holes. Hair that hangs into the forehead is in it; ears and neck are not.
    """
    cv2 = opencv()
    hull = cv2.convexHull(_outline(points).astype(np.float32)).reshape(-1, 2)
    mask = np.zeros(size, np.float32)
    shift = 4  # sixteenths of a pixel
    cv2.fillPoly(mask, [np.round(hull * (1 << shift)).astype(np.int32)], 1.0, cv2.LINE_8, shift)
    soft = cv2.filter2D(mask, -1, _cone(), borderType=cv2.BORDER_CONSTANT)
    return largest_part(np.asarray(soft >= KEPT, np.uint8))


def _outline(points: FacePoints) -> FacePoints:
    """Return the points whose hull is the face, before erosion."""
    jaw, brows = points[:33], points[33:51]
    across = (jaw[32] - jaw[0]) / 2
    up = np.array([across[1], -across[0]]) / max(float(np.linalg.norm(across)), 1e-9)
    middle = (jaw[0] + jaw[32]) / 2
    brow = float(((brows - middle) @ up).max())
    chin = float((points[16] - middle) @ up)
    top = brow + FOREHEAD * (brow - chin)
    turn = np.linspace(0, np.pi, 33)[:, None]
    part = np.sign(np.cos(turn)) * np.abs(np.cos(turn)) ** (2 / ARCH)
    arch = middle + across * part + up * top * np.sin(turn) ** (2 / ARCH)
    return np.concatenate([jaw, brows, arch])


@cache
def _cone() -> npt.NDArray[np.float32]:
    """Return the kernel of the soft erosion: a cone down to its corners, of sum 1."""
    step = np.arange(EROSION) - EROSION // 2
    distance = np.hypot(*np.meshgrid(step, step))
    cone = distance.max() - distance
    return np.asarray(cone / cone.sum(), np.float32)


def largest_part(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the largest connected part of a mask of 0 and 1; an empty mask as it is."""
    count, labels, stats, _ = opencv().connectedComponentsWithStats(mask, connectivity=8)
    if count <= 2:
        return mask
    return np.asarray(labels == 1 + int(stats[1:, 4].argmax()), np.uint8)


def aligned_face(
    picture: Frame, points: FacePoints, mask: npt.NDArray[np.uint8] | None
) -> tuple[Frame, npt.NDArray[np.uint8] | None]:
    """Return a picture with its face where NED's template has it, and the mask there.

    The picture is warped by Lanczos-4 and the mask by the nearest pixel; all outside is black.
    """
    cv2: Any = opencv()
    transform, size = align_transform(points), (SIZE, SIZE)
    if mask is None:
        return np.asarray(cv2.warpAffine(picture, transform, size, flags=cv2.INTER_LANCZOS4)), None
    bare = picture * mask[:, :, None]
    face = cv2.warpAffine(bare, transform, size, flags=cv2.INTER_LANCZOS4)
    warped = cv2.warpAffine(mask, transform, size, flags=cv2.INTER_NEAREST)
    return np.asarray(face * warped[:, :, None]), np.asarray(warped)
