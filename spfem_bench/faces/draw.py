"""A contact sheet of a clip's faces: what was found, and what the networks see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from spfem_bench.definitions.networks import ArcFaceInput, ExpressionInput, FaceBoxInput, SyncInput
from spfem_bench.faces import crop
from spfem_bench.faces.track import Face
from spfem_bench.media.video import Frame

CropInput = ArcFaceInput | ExpressionInput | FaceBoxInput | SyncInput

HEIGHT = 224
DETECTED, INTERPOLATED, TEXT = (40, 220, 60), (255, 170, 0), (255, 255, 255)


def contact_sheet(
    rows: Sequence[tuple[int, Frame, Face | None, bool]],
    inputs: Sequence[CropInput],
) -> Frame:
    """Draw frames with the subject's box and points, and beside each its crops.

    Green boxes were detected, orange ones interpolated. SyncNet's crop is drawn
    without smoothing over time.

    Args:
        rows: frame index, picture, face, whether it was detected.
        inputs: the networks' input contracts, one crop each.

    Returns:
        uint8 (rows * 224, width, 3), RGB.
    """
    import cv2

    lines = []
    for index, picture, face, detected in rows:
        scale = HEIGHT / picture.shape[0]
        size = (round(picture.shape[1] * scale), HEIGHT)
        drawn: Any = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        cells = [drawn]
        if face is not None:
            colour = DETECTED if detected else INTERPOLATED
            left, top, right, bottom = (round(float(v) * scale) for v in face.box)
            cv2.rectangle(drawn, (left, top), (right, bottom), colour, 1, cv2.LINE_AA)
            for x, y in face.points * scale:
                cv2.circle(drawn, (round(float(x)), round(float(y))), 2, colour, -1, cv2.LINE_AA)
        words = f"{index}: {face.score:.2f}" if face else f"{index}: no face"
        where = (4, HEIGHT - 6)
        cv2.putText(drawn, words, where, cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(drawn, words, where, cv2.FONT_HERSHEY_SIMPLEX, 0.45, TEXT, 1, cv2.LINE_AA)
        for contract in inputs:
            cells.append(_cell(picture, face, contract))
        lines.append(np.concatenate(cells, axis=1))
    return np.concatenate(lines)


def _cell(picture: Frame, face: Face | None, contract: CropInput) -> Frame:
    import cv2

    if face is None:
        return np.zeros((HEIGHT, HEIGHT, 3), np.uint8)
    if isinstance(contract, ArcFaceInput):
        cut = crop.arcface(picture, face, contract)
    elif isinstance(contract, ExpressionInput):
        cut = crop.expression(picture, face, contract)
    elif isinstance(contract, FaceBoxInput):
        cut = crop.box(picture, face, contract)
    else:
        left, top, right, bottom = (float(v) for v in face.box)
        half = max(bottom - top, right - left) / 2
        cut = crop.sync_crop(picture, (left + right) / 2, (top + bottom) / 2, half, contract)
    if cut.shape[2] == 1:
        cut = np.repeat(cut, 3, axis=2)
    canvas = np.zeros((HEIGHT, HEIGHT, 3), np.uint8)
    scale = HEIGHT / cut.shape[0]
    big = cv2.resize(cut, (round(cut.shape[1] * scale), HEIGHT), interpolation=cv2.INTER_NEAREST)
    canvas[:, : big.shape[1]] = big
    return canvas
