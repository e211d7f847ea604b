"""The crops that networks want, all from one detection.

A frame that is an aligned face already is resized by :mod:`spfem_bench.faces.exact`, so that
no library's version moves the demo's numbers; OpenCV cuts faces out of larger pictures.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.networks import ArcFaceInput, ExpressionInput, FaceBoxInput, SyncInput
from spfem_bench.faces import exact
from spfem_bench.faces.track import Face
from spfem_bench.media.video import Frame

LIBRARIES = frozenset({"cv2"})
"""Modules that cut a face out of a frame. A frame that is an aligned face needs none."""

ARCFACE_TEMPLATE = np.array(
    [
        [38.2946, 51.6963],
        [73.5318, 51.5014],
        [56.0252, 71.7366],
        [41.5493, 92.3655],
        [70.7299, 92.2041],
    ]
)
"""The five points in a crop of 112 x 112 pixels (insightface's ``arcface_dst``)."""


@cache
def opencv() -> Any:
    """Return OpenCV, held to one thread."""
    import cv2

    # One thread: the pictures are small, and results must not depend on threads.
    cv2.setNumThreads(1)
    return cv2


def arcface_transform(points: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the similarity transform from a face's five points to :data:`ARCFACE_TEMPLATE`.

    Shift, rotation and one scale, no mirror, by least squares. The arithmetic is in the
    precision of the points: insightface's crops are reproduced to the last bit with float32.
    Source: Umeyama (1991), IEEE TPAMI 13 (4), equations 38 to 43; insightface's
    ``estimate_norm`` calls scikit-image for the same.

    Args:
        points: (5, 2), pixels: right eye, left eye, nose, right and left mouth corner.

    Returns:
        (2, 3), from pixels of the picture to pixels of the crop; NaN when all points are equal.
    """
    template = ARCFACE_TEMPLATE.astype(np.float32)
    source, target = points.mean(axis=0), template.mean(axis=0)
    spread = points - source
    u, singular, v = np.linalg.svd((template - target).T @ spread / len(points))
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u @ np.diag(signs) @ v
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1.0 / spread.var(axis=0).sum() * (singular @ signs)
        shift = target - scale * (rotation @ source)
        return np.column_stack([scale * rotation, shift])


def arcface(frame: Frame, face: Face | None, settings: ArcFaceInput) -> Frame:
    """Align a face by its five points to the ArcFace template (insightface's ``norm_crop``).

    Args:
        frame: uint8 (height, width, 3).
        face: the subject, or None when the frame is itself an aligned face.
        settings: the network's input contract.

    Returns:
        uint8 (112, settings.width, 3).
    """
    if face is None:
        aligned = exact.shrink(frame, 112)
    else:
        aligned = opencv().warpAffine(frame, arcface_transform(face.points), (112, 112))
    side = (112 - settings.width) // 2
    return np.ascontiguousarray(aligned[:, side : side + settings.width])


def expression(frame: Frame, face: Face | None, settings: ExpressionInput) -> Frame:
    """Cut a square around the face box, with a margin, and resize it.

    Beyond the picture's edge the edge's pixels are repeated.

    Returns:
        uint8 (size, size, 3), or (size, size, 1) for grey.
    """
    if face is None:
        resized = exact.shrink(frame, settings.size)
    else:
        cv2 = opencv()
        left, top, right, bottom = (float(v) for v in face.box)
        half = max(right - left, bottom - top) / 2 * (1 + 2 * settings.margin)
        x, y = (left + right) / 2, (top + bottom) / 2
        cut = _cut(frame, round(x - half), round(y - half), round(2 * half))
        resized = cv2.resize(cut, (settings.size, settings.size), interpolation=cv2.INTER_AREA)
    return exact.grey(resized)[:, :, None] if settings.colour == "grey" else np.asarray(resized)


def box(frame: Frame, face: Face | None, settings: FaceBoxInput) -> Frame:
    """Cut the face box out, off at the picture's edge, and stretch it to a square.

    As in HSEmotion's examples, which cut ``frame[y1:y2, x1:x2]`` at whole pixels and leave
    the resizing (bilinear) to the recogniser.

    Returns:
        uint8 (size, size, 3).
    """
    if face is None:
        return exact.resize(frame, settings.size)
    height, width = frame.shape[:2]
    left, top, right, bottom = (int(v) for v in face.box)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    cut = frame[top : max(bottom, top + 1), left : max(right, left + 1)]
    return np.asarray(opencv().resize(cut, (settings.size, settings.size)))


def _cut(frame: Frame, left: int, top: int, side: int) -> Frame:
    cv2 = opencv()
    height, width = frame.shape[:2]
    beyond = max(0, -left, -top, left + side - width, top + side - height)
    if beyond:
        frame = cv2.copyMakeBorder(frame, *(beyond,) * 4, cv2.BORDER_REPLICATE)
        left, top = left + beyond, top + beyond
    return frame[top : top + side, left : left + side]


class SyncCropper:
    """SyncNet's crops of one clip, frame by frame.

    The official recipe (syncnet_python, ``run_pipeline.py``): box centre and
    half side go through a median filter that sees zeros beyond the track's
    ends; the crop reaches ``1 + scale`` half sides to the left and right, one
    up and ``1 + 2 scale`` down; beyond the picture lies grey. Frames without a
    face end a track.
    """

    def __init__(self, settings: SyncInput) -> None:
        self.settings = settings
        self.reach = settings.smoothing // 2
        self._boxes: deque[npt.NDArray[np.float64]] = deque(maxlen=settings.smoothing)
        self._frames: deque[tuple[int, Frame]] = deque()
        self._reset()

    def _reset(self) -> None:
        self._frames.clear()
        self._boxes.extend([np.zeros(3)] * self.settings.smoothing)

    def push(self, index: int, frame: Frame, face: Face) -> Iterator[tuple[int, Frame]]:
        """Take the next frame with a face; yield the crops that are ready, with their indices."""
        if self._frames and index != self._frames[-1][0] + 1:
            yield from self.finish()
        left, top, right, bottom = (float(v) for v in face.box)
        half = max(bottom - top, right - left) / 2
        self._boxes.append(np.array([(left + right) / 2, (top + bottom) / 2, half]))
        self._frames.append((index, frame))
        if len(self._frames) > self.reach:
            yield from self._crop()

    def finish(self) -> Iterator[tuple[int, Frame]]:
        """End the track; yield the crops still held back."""
        after = len(self._frames) - 1  # boxes in the window after the oldest held frame
        while self._frames:
            self._boxes.append(np.zeros(3))
            after += 1
            if after == self.reach:
                yield from self._crop()
                after -= 1
        self._reset()

    def _crop(self) -> Iterator[tuple[int, Frame]]:
        index, frame = self._frames.popleft()
        x, y, half = np.median(np.stack(self._boxes), axis=0)
        if half >= 1:  # zero in tracks shorter than half the filter: nothing to cut
            yield index, sync_crop(frame, x, y, half, self.settings)


def sync_crop(frame: Frame, x: float, y: float, half: float, settings: SyncInput) -> Frame:
    """Cut SyncNet's crop around a smoothed box.

    Args:
        frame: uint8 (height, width, 3), RGB.
        x: box centre, pixels.
        y: box centre, pixels.
        half: half the box's longer side, pixels.
        settings: crop scale, size and padding.

    Returns:
        uint8 (size, size, 3), RGB.
    """
    cv2 = opencv()
    pad = int(half * (1 + 2 * settings.scale))
    grey = (settings.padding,) * 3
    padded = cv2.copyMakeBorder(frame, *(pad,) * 4, cv2.BORDER_CONSTANT, value=grey)
    x, y = x + pad, y + pad
    top, bottom = int(y - half), int(y + half * (1 + 2 * settings.scale))
    left, right = int(x - half * (1 + settings.scale)), int(x + half * (1 + settings.scale))
    cut = padded[max(top, 0) : bottom, max(left, 0) : right]
    return np.asarray(cv2.resize(cut, (settings.size, settings.size)))
