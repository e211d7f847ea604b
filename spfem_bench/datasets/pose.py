"""One pose for two faces (ASCCL, CVPR 2024, section 4.1).

A transform is a float (2, 3) matrix ``m`` that moves points ``p`` (K, 2) to
``p @ m[:, :2].T + m[:, 2]``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spfem_bench.errors import CardError, ClipError
from spfem_bench.faces.crop import opencv, similarity_transform
from spfem_bench.media.video import Frame

Landmarks = npt.NDArray[np.float64]
"""(K, 2): x and y in pixels; the middle of the first pixel is 0. Also a transform, (2, 3)."""


def fit_similarity(points: Landmarks, target: Landmarks) -> Landmarks:
    """Return the similarity transform, float64 (2, 3), that moves points closest to their targets.

    Least squares with a shift, a rotation and one scale, no mirror. Raises CardError when shapes
    differ, a value is not finite, or all points are equal.
    """
    points, target = np.asarray(points, np.float64), np.asarray(target, np.float64)
    if points.shape != target.shape or points.ndim != 2 or points.shape[1:] != (2,):
        problem = f"landmarks of the shapes {points.shape} and {target.shape} cannot be aligned"
        raise CardError(problem, "Give the same landmarks twice, each (K, 2)")
    if not (np.isfinite(points).all() and np.isfinite(target).all()):
        raise CardError("a landmark is not a finite number", "Leave out frames without a face")
    if not np.ptp(points, axis=0).any():
        raise CardError("all landmarks lie in one point", "Give at least two that differ")
    return similarity_transform(points, target)


def move_points(points: Landmarks, transform: Landmarks) -> Landmarks:
    """Return points after a transform: float64 (K, 2)."""
    moved: Landmarks = np.asarray(points, np.float64) @ transform[:, :2].T + transform[:, 2]
    return moved


def fit_square(picture: Frame, size: int, name: str) -> Landmarks:
    """Return the transform that resizes a picture to a square; raise ClipError if it is none."""
    height, width = picture.shape[:2]
    if height != width:
        problem = f"{name}: {width} x {height} pixels, which is no square face crop"
        raise ClipError(problem, "Let faces be found in the frames, or give square crops")
    f = size / width
    return np.array([[f, 0, f / 2 - 0.5], [0, f, f / 2 - 0.5]])


def warp_picture(picture: Frame, transform: Landmarks, size: int) -> Frame:
    """Move a picture by a similarity transform into a square: uint8 (size, size, 3).

    A picture that becomes smaller is averaged first; outside of it, its edge is repeated.
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
    moved = cv2.warpAffine(picture, transform, (size, size), borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved)
