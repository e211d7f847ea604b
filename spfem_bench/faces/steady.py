"""NED's 256-pixel pictures of one clip's face, and 98 landmarks in them, steady over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.networks import LandmarksInput
from spfem_bench.faces.crop import landmarks_crop
from spfem_bench.faces.ned import MARGIN, SIZE, FacePoints
from spfem_bench.faces.track import FaceTrack
from spfem_bench.media.video import Frame

BOX_WINDOW = 49
"""Frames of the median filter over boxes (NED's ``--window_length``)."""

SQUARE_WINDOW = 9
"""Frames over which the boxes that the landmark network looks at are averaged."""

SHIFTS = ((0, 0), (-5, -5), (-5, 5), (5, -5), (5, 5))
"""Pixels by which a picture is shifted; landmarks are the mean over all (NED's ``multisample``)."""

POINTS_WINDOW, POINTS_ORDER = 5, 2
"""Frames and order of the polynomials that landmarks follow (Savitzky and Golay, 1964)."""

LandmarkFunction = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]
"""From crops (B, size, size, 3) to points (B, 196), x and y in turn, in sides of the crop."""


class Place(NamedTuple):
    """Where a 256-pixel picture lies in its frame: the square's corner and side, in pixels."""

    left: float
    top: float
    side: float

    def to_frame(self, points: FacePoints) -> FacePoints:
        """Return points of the picture in pixels of the frame."""
        scaled: FacePoints = (points + 0.5) * (self.side / SIZE) - 0.5 + (self.left, self.top)
        return scaled

    def to_picture(self, points: FacePoints) -> FacePoints:
        """Return points of the frame in pixels of the picture."""
        scaled: FacePoints = (points - (self.left, self.top) + 0.5) * (SIZE / self.side) - 0.5
        return scaled


def filled_boxes(track: FaceTrack) -> npt.NDArray[np.float64]:
    """Return a box for each frame, (N, 4), that of the nearest frame where one has no face."""
    boxes = np.asarray(track.to_arrays()["boxes"], np.float64)
    known = np.flatnonzero(~np.isnan(boxes[:, 0]))
    nearest = np.abs(np.arange(len(boxes))[:, None] - known[None, :]).argmin(axis=1)
    return np.asarray(boxes[known[nearest]])


def places(boxes: npt.NDArray[np.float64]) -> list[Place]:
    """Return where each frame's picture lies: squares as high as the smoothed box, with a margin.

    Edges go through a median filter. Unlike NED's, a square that leaves the frame stays a square.
    """
    from scipy.ndimage import median_filter

    window = min(BOX_WINDOW, len(boxes) - 1 + len(boxes) % 2)
    smooth = median_filter(boxes, size=(window, 1), mode="reflect")
    sides = (smooth[:, 3] - smooth[:, 1]) * SIZE / (SIZE - MARGIN)
    x, y = (smooth[:, 0] + smooth[:, 2]) / 2, (smooth[:, 1] + smooth[:, 3]) / 2
    edges = zip(x - sides / 2, y - sides / 2, sides, strict=True)
    return [Place(float(left), float(top), float(side)) for left, top, side in edges]


def cut_picture(frame: Frame, place: Place) -> Frame:
    """Return the square of a frame, uint8 (256, 256, 3), by Pillow's bilinear; black beyond it."""
    from PIL import Image

    height, width = frame.shape[:2]
    right, bottom = place.left + place.side, place.top + place.side
    pad = int(np.ceil(max(0.0, -place.left, -place.top, right - width, bottom - height)))
    if pad:
        frame = np.pad(frame, ((pad, pad), (pad, pad), (0, 0)))
    box = (place.left + pad, place.top + pad, right + pad, bottom + pad)
    picture = Image.fromarray(frame).resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
    return np.asarray(picture, np.uint8)


def squares(boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return centre x, y and half side, (N, 3), of the squares that the network looks at."""
    width, height = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    half = np.maximum(width, height) / 2
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    values = np.column_stack([centres, half])
    sums = np.cumsum(np.concatenate([np.zeros((1, 3)), values]), axis=0)
    last = len(boxes) - 1
    reach = [min(SQUARE_WINDOW // 2, i, last - i) for i in range(len(boxes))]
    means = [(sums[i + r + 1] - sums[i - r]) / (2 * r + 1) for i, r in enumerate(reach)]
    return np.stack(means)


def find_points(
    picture: Frame,
    square: npt.NDArray[np.float64],
    settings: LandmarksInput,
    find: LandmarkFunction,
) -> FacePoints:
    """Return the landmarks in a 256-pixel picture, (98, 2), the mean over shifted squares.

    *square* is the centre x, y and half side, in pixels of the picture.
    """
    x, y, half = (float(v) for v in square)
    cuts = [landmarks_crop(picture, x + dx, y + dy, half, settings) for dx, dy in SHIFTS]
    rows = find(np.stack([crop for crop, _ in cuts]))
    placed = [s.in_frame(row).reshape(-1, 2) for (_, s), row in zip(cuts, rows, strict=True)]
    return np.asarray(np.mean(placed, axis=0, dtype=np.float64))


def smoothed(points: npt.NDArray[np.float64], known: Sequence[bool]) -> npt.NDArray[np.float64]:
    """Return landmarks in pixels of the frame, (N, 98, 2), smoothed over time.

    Where *known* is false they lie between those of the nearest known frames.
    """
    from scipy.signal import savgol_filter

    rows = points.reshape(len(points), -1)
    here = np.flatnonzero(known)
    steps = np.arange(len(rows))
    whole = np.column_stack([np.interp(steps, here, rows[here, k]) for k in range(rows.shape[1])])
    window = min(POINTS_WINDOW, len(rows) - 1 + len(rows) % 2)
    if window > POINTS_ORDER:
        whole = savgol_filter(whole, window, POINTS_ORDER, axis=0, mode="interp")
    return np.asarray(whole.reshape(points.shape), np.float64)


def all_points(
    pictures: Iterator[Frame],
    where: Sequence[Place],
    boxes: npt.NDArray[np.float64],
    known: Sequence[bool],
    settings: LandmarksInput,
    find: LandmarkFunction,
) -> list[FacePoints]:
    """Return each picture's 98 points, in pixels of the picture, steady over time."""
    found = np.zeros((len(where), 98, 2))
    steady = squares(boxes)
    for i, (picture, place) in enumerate(zip(pictures, where, strict=True)):
        if known[i]:
            centre, half = place.to_picture(steady[i, :2]), steady[i, 2] * SIZE / place.side
            square = np.array([*centre, half])
            found[i] = place.to_frame(find_points(picture, square, settings, find))
    steady_points = smoothed(found, known)
    return [place.to_picture(steady_points[i]) for i, place in enumerate(where)]
