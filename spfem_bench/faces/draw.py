"""A contact sheet of a clip's faces and of the networks' crops."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.networks import NetworkInput, SyncInput
from spfem_bench.faces import crop
from spfem_bench.faces.track import Face
from spfem_bench.media.video import Frame

HEIGHT = 224
DETECTED, INTERPOLATED, TEXT = (40, 220, 60), (255, 170, 0), (255, 255, 255)
LANDMARK = (0, 255, 255)


def contact_sheet(
    rows: Sequence[tuple[int, Frame, Face | None, bool]],
    inputs: Sequence[NetworkInput],
    landmarks: Mapping[int, npt.NDArray[np.float32]] | None = None,
) -> Frame:
    """Draw rows of frames with box and points, 224 pixels high, and the networks' crops beside.

    Rows are frame index, picture, face, and whether it was detected (green) or not (orange).
    *landmarks* are each frame's, float32 (K, 2); where there are any, they have their own cell.
    """
    lines = []
    for index, picture, face, detected in rows:
        scale = HEIGHT / picture.shape[0]
        size = (round(picture.shape[1] * scale), HEIGHT)
        drawn: Any = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        if face is not None:
            colour = DETECTED if detected else INTERPOLATED
            left, top, right, bottom = (round(float(v) * scale) for v in face.box)
            cv2.rectangle(drawn, (left, top), (right, bottom), colour, 1, cv2.LINE_AA)
            for x, y in face.points * scale:
                cv2.circle(drawn, (round(float(x)), round(float(y))), 2, colour, -1, cv2.LINE_AA)
        cells = [drawn]
        if landmarks:
            cells.append(_landmarks_cell(picture, landmarks.get(index)))
        text = f"{index}: {face.score:.2f}" if face else f"{index}: no face"
        for text_colour, thickness in (((0, 0, 0), 3), (TEXT, 1)):
            style = (cv2.FONT_HERSHEY_SIMPLEX, 0.45, text_colour, thickness, cv2.LINE_AA)
            cv2.putText(drawn, text, (4, HEIGHT - 6), *style)
        cells += [_cell(picture, face, contract) for contract in inputs]
        lines.append(np.concatenate(cells, axis=1))
    return np.concatenate(lines)


def _landmarks_cell(picture: Frame, points: npt.NDArray[np.float32] | None) -> Frame:
    """Draw landmarks on the square around them, enlarged: small points must not hide the lips."""
    canvas = np.zeros((HEIGHT, HEIGHT, 3), np.uint8)
    if points is None:
        return canvas
    low, high = points.min(axis=0), points.max(axis=0)
    half = max(float((high - low).max()) / 2, 1.0) * 1.1
    scale = HEIGHT / (2 * half)
    corner = (low + high) / 2 - half
    place = np.column_stack([np.eye(2) * scale, -corner * scale])
    canvas = np.asarray(cv2.warpAffine(picture, place, (HEIGHT, HEIGHT)), np.uint8)
    for x, y in (points - corner) * scale:
        cv2.circle(canvas, (round(float(x)), round(float(y))), 1, LANDMARK, -1, cv2.LINE_AA)
    return canvas


def _cell(picture: Frame, face: Face | None, contract: NetworkInput) -> Frame:
    canvas = np.zeros((HEIGHT, HEIGHT, 3), np.uint8)
    if face is None:
        return canvas
    if isinstance(contract, SyncInput):
        cut = crop.sync_crop(picture, *crop.box_centre(face), contract)
    else:
        cut = crop.cut(picture, face, contract)
    if cut.shape[2] == 1:
        cut = np.repeat(cut, 3, axis=2)
    width = round(cut.shape[1] * HEIGHT / cut.shape[0])
    canvas[:, :width] = cv2.resize(cut, (width, HEIGHT), interpolation=cv2.INTER_NEAREST)
    return canvas
