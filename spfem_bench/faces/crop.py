"""The crops that networks take, all from one detection; frames that are faces need no OpenCV."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions import networks
from spfem_bench.errors import ClipError
from spfem_bench.faces import exact
from spfem_bench.faces.track import Face
from spfem_bench.media.video import Frame

LIBRARIES = frozenset({"cv2"})
"""Modules that cut a face out of a frame. A frame that is an aligned face needs none."""

WHOLE_LIBRARIES = frozenset({"PIL"})
"""Modules that make a :class:`~spfem_bench.definitions.networks.WholeInput` of any frame."""

_X = (38.2946, 73.5318, 56.0252, 41.5493, 70.7299)
_Y = (51.6963, 51.5014, 71.7366, 92.3655, 92.2041)
ARCFACE_TEMPLATE = np.column_stack([_X, _Y])
"""The five points in a crop of 112 x 112 pixels (insightface's ``arcface_dst``)."""


@cache
def opencv() -> Any:
    """Return OpenCV, held to one thread: pictures are small, and results must not vary."""
    import cv2

    cv2.setNumThreads(1)
    return cv2


def similarity_transform(
    points: npt.NDArray[np.floating], target: npt.NDArray[np.floating]
) -> npt.NDArray[np.float64]:
    """Return the shift, rotation and scale that takes points (K, 2) closest to their targets.

    The result m is (2, 3): ``target ~ points @ m[:, :2].T + m[:, 2]``, by least squares, without
    mirroring, in the precision of the points; NaN when all points are equal. Source: Umeyama
    (1991), IEEE TPAMI 13 (4), equations 38 to 43, as scikit-image's ``SimilarityTransform``.
    """
    target = target.astype(points.dtype)
    centre, target_centre = points.mean(axis=0), target.mean(axis=0)
    spread = points - centre
    u, singular, v = np.linalg.svd((target - target_centre).T @ spread / len(points))
    signs = np.array([1.0, np.sign(np.linalg.det(u) * np.linalg.det(v))])
    rotation = u @ np.diag(signs) @ v
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = 1.0 / spread.var(axis=0).sum() * (singular @ signs)
        shift = target_centre - scale * (rotation @ centre)
        return np.column_stack([scale * rotation, shift])


def cut(frame: Frame, face: Face | None, settings: networks.NetworkInput) -> Frame:
    """Return a network's crop of one frame, uint8 RGB; raise TypeError for SyncNet's."""
    if isinstance(settings, networks.ArcFaceInput):
        return arcface(frame, face, settings)
    if isinstance(settings, networks.ExpressionInput):
        return expression(frame, face, settings)
    if isinstance(settings, networks.FaceBoxInput):
        return box(frame, face, settings)
    if isinstance(settings, networks.WholeInput):
        return whole(frame, settings)
    raise TypeError(f"{settings.crop}: no crop of one frame")


def arcface(frame: Frame, face: Face | None, settings: networks.ArcFaceInput) -> Frame:
    """Align a face by its five points (insightface's ``norm_crop``): uint8 (112, width, 3)."""
    if face is None:
        aligned = exact.shrink(frame, 112)
    else:
        # In float32, which reproduces insightface's crops to the last bit.
        transform = similarity_transform(face.points, ARCFACE_TEMPLATE)
        aligned = opencv().warpAffine(frame, transform, (112, 112))
    side = (112 - settings.width) // 2
    return np.ascontiguousarray(aligned[:, side : side + settings.width])


def expression(frame: Frame, face: Face | None, settings: networks.ExpressionInput) -> Frame:
    """Cut a square around the face box, with a margin: uint8 (size, size, 3), or 1 for grey."""
    if face is None:
        resized = exact.shrink(frame, settings.size)
    else:
        cv2 = opencv()
        left, top, right, bottom = (float(v) for v in face.box)
        half = max(right - left, bottom - top) / 2 * (1 + 2 * settings.margin)
        x, y = (left + right) / 2, (top + bottom) / 2
        square = _square(frame, round(x - half), round(y - half), round(2 * half))
        resized = cv2.resize(square, (settings.size, settings.size), interpolation=cv2.INTER_AREA)
    return exact.grey(resized)[:, :, None] if settings.colour == "grey" else np.asarray(resized)


def box(frame: Frame, face: Face | None, settings: networks.FaceBoxInput) -> Frame:
    """Cut out the face box and stretch it, as HSEmotion's examples: uint8 (size, size, 3)."""
    if face is None:
        return exact.resize(frame, settings.size)
    height, width = frame.shape[:2]
    left, top, right, bottom = (int(v) for v in face.box)
    left, top = min(max(left, 0), width - 1), min(max(top, 0), height - 1)
    inner = frame[top : max(bottom, top + 1), left : max(right, left + 1)]
    return np.asarray(opencv().resize(inner, (settings.size, settings.size)))


def whole(frame: Frame, settings: networks.WholeInput) -> Frame:
    """Resize a whole picture and cut out its middle: uint8 (size, size, 3), or 1 for grey.

    The same bytes as torchvision's ``Resize`` and ``CenterCrop`` of PIL pictures: the longer side
    is rounded down, half a pixel at the crop's edge to the even number.
    """
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(frame))
    if settings.colour == "grey":
        picture = picture.convert("L")
    width, height = picture.size
    shorter = min(width, height)
    target = (settings.resize * width // shorter, settings.resize * height // shorter)
    picture = picture.resize(target, Image.Resampling.BILINEAR)
    left, top = (round((side - settings.size) / 2) for side in target)
    picture = picture.crop((left, top, left + settings.size, top + settings.size))
    return np.array(picture).reshape(settings.size, settings.size, -1)


def inner(frame: Frame, settings: networks.InnerInput) -> Frame:
    """Cut the margin off an aligned face and resize the rest: uint8 (size, size, 3), RGB.

    By OpenCV's default (``INTER_LINEAR``), whose rounding the papers' numbers contain. Raises
    ClipError for a picture that is no larger than the margins.
    """
    m, (height, width) = settings.margin, frame.shape[:2]
    if min(height, width) <= 2 * m:
        raise ClipError(
            f"pictures of {width} x {height} pixels: {m} are cut off at each side",
            "Give aligned faces as NED writes them, 256 x 256 pixels",
        )
    cut_out = frame[m : height - m, m : width - m]
    return np.asarray(opencv().resize(cut_out, (settings.size, settings.size)))


def _square(frame: Frame, left: int, top: int, side: int) -> Frame:
    cv2 = opencv()
    height, width = frame.shape[:2]
    beyond = max(0, -left, -top, left + side - width, top + side - height)
    if beyond:
        frame = cv2.copyMakeBorder(frame, *(beyond,) * 4, cv2.BORDER_REPLICATE)
        left, top = left + beyond, top + beyond
    return frame[top : top + side, left : left + side]


def box_centre(face: Face) -> tuple[float, float, float]:
    """Return a face box's centre (x, y) and half its longer side, in pixels."""
    left, top, right, bottom = (float(v) for v in face.box)
    return (left + right) / 2, (top + bottom) / 2, max(bottom - top, right - left) / 2


class SyncCropper:
    """SyncNet's crops of one clip, frame by frame (syncnet_python, ``run_pipeline.py``).

    Boxes go through a median filter with zeros beyond the track's ends; a missing face ends one.
    """

    def __init__(self, settings: networks.SyncInput) -> None:
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
        self._boxes.append(np.array(box_centre(face)))
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


def sync_crop(frame: Frame, x: float, y: float, half: float, settings: networks.SyncInput) -> Frame:
    """Return SyncNet's crop around a smoothed box: uint8 (size, size, 3), RGB.

    It reaches ``1 + scale`` half sides to the left and right, one up and ``1 + 2 scale`` down.
    """
    cv2 = opencv()
    pad = int(half * (1 + 2 * settings.scale))
    grey = (settings.padding,) * 3
    padded = cv2.copyMakeBorder(frame, *(pad,) * 4, cv2.BORDER_CONSTANT, value=grey)
    x, y = x + pad, y + pad
    top, bottom = int(y - half), int(y + half * (1 + 2 * settings.scale))
    left, right = int(x - half * (1 + settings.scale)), int(x + half * (1 + settings.scale))
    inner = padded[max(top, 0) : bottom, max(left, 0) : right]
    return np.asarray(cv2.resize(inner, (settings.size, settings.size)))


class Region(NamedTuple):
    """A part of a frame: *left* and *top* corner, *width* and *height*, in pixels."""

    left: float
    top: float
    width: float
    height: float

    def in_frame(self, points: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return points (2 K,), x and y in turn in sides of the region, in pixels of the frame."""
        corner, sides = np.array(self[:2]), np.array(self[2:])
        placed = points.astype(np.float64).reshape(-1, 2) * sides + corner
        return np.asarray(placed.reshape(-1), np.float32)


class LandmarksCropper:
    """Squares around the face, from boxes averaged over neighbouring frames of one track.

    Detectors place a box anew in each frame, and landmarks move with it: the average damps that.
    At the ends of a track fewer frames are averaged, as many before as after.
    """

    def __init__(self, settings: networks.LandmarksInput) -> None:
        self.settings = settings
        self.reach = settings.smoothing // 2
        self._boxes: deque[tuple[float, float, float]] = deque(maxlen=settings.smoothing)
        self._frames: deque[tuple[int, Frame]] = deque()

    def push(
        self, index: int, frame: Frame, face: Face
    ) -> Iterator[tuple[int, Frame, Frame, Region]]:
        """Take the next frame with a face; yield index, frame, crop and square of those ready."""
        if self._frames and index != self._frames[-1][0] + 1:
            yield from self.finish()
        self._boxes.append(box_centre(face))
        self._frames.append((index, frame))
        if len(self._frames) > self.reach:
            yield self._crop(after=self.reach)

    def finish(self) -> Iterator[tuple[int, Frame, Frame, Region]]:
        """End the track; yield the crops still held back."""
        while self._frames:
            yield self._crop(after=len(self._frames) - 1)
        self._boxes.clear()

    def _crop(self, after: int) -> tuple[int, Frame, Frame, Region]:
        """Crop the oldest held frame, which has *after* boxes after its own."""
        index, frame = self._frames.popleft()
        own = len(self._boxes) - 1 - after
        near = min(own, after, self.reach)
        window = list(self._boxes)[own - near : own + near + 1]
        x, y, half = (sum(values) / len(window) for values in zip(*window, strict=True))
        return index, frame, *landmarks_crop(frame, x, y, half, self.settings)


def landmarks_crop(
    frame: Frame, x: float, y: float, half: float, settings: networks.LandmarksInput
) -> tuple[Frame, Region]:
    """Return the square crop around a box, uint8 (size, size, 3), RGB, and where it was cut.

    It is cut between pixels, by linear interpolation, and shrunk by areas: a crop that jumps from
    pixel to pixel makes landmarks jump.
    """
    cv2 = opencv()
    side = max(round(2 * half * settings.scale), 1)
    height, width = frame.shape[:2]
    middle = (side - 1) / 2  # of a square's pixels, as getRectSubPix counts them
    square = Region(x - side / 2, y - side / 2, side, side)
    left, top = square.left, square.top
    pad = int(np.ceil(max(0, -left, -top, left + side - width, top + side - height)))
    if pad:
        grey = (settings.padding,) * 3
        frame = cv2.copyMakeBorder(frame, *(pad,) * 4, cv2.BORDER_CONSTANT, value=grey)
    inner = cv2.getRectSubPix(frame, (side, side), (left + pad + middle, top + pad + middle))
    size = (settings.size, settings.size)
    return np.asarray(cv2.resize(inner, size, interpolation=cv2.INTER_AREA)), square
