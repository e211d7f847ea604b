"""A contact sheet of a clip's faces and of the networks' crops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from spfem_bench.definitions.networks import NetworkInput, SyncInput
from spfem_bench.faces import crop
from spfem_bench.faces.track import Face
from spfem_bench.media.video import Frame

HEIGHT = 224
DETECTED, INTERPOLATED, TEXT = (40, 220, 60), (255, 170, 0), (255, 255, 255)


def contact_sheet(
    rows: Sequence[tuple[int, Frame, Face | None, bool]], inputs: Sequence[NetworkInput]
) -> Frame:
    """Draw rows of frames with box and points, 224 pixels high, and the networks' crops beside.

    Rows are frame index, picture, face, and whether it was detected (green) or not (orange).
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
        text = f"{index}: {face.score:.2f}" if face else f"{index}: no face"
        for text_colour, thickness in (((0, 0, 0), 3), (TEXT, 1)):
            style = (cv2.FONT_HERSHEY_SIMPLEX, 0.45, text_colour, thickness, cv2.LINE_AA)
            cv2.putText(drawn, text, (4, HEIGHT - 6), *style)
        cells = [drawn, *(_cell(picture, face, contract) for contract in inputs)]
        lines.append(np.concatenate(cells, axis=1))
    return np.concatenate(lines)


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
