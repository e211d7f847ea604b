"""A contact sheet of prepared faces: the picture, landmarks and mask in it, the aligned face."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from spfem_bench.datasets.ned_faces import NedFaces, Prepared
from spfem_bench.datasets.ned_inputs import NedInput
from spfem_bench.faces.ned import IBUG
from spfem_bench.media.video import Frame
from spfem_bench.progress import SILENT, Progress

CLIPS, EACH = 12, 3
"""The most clips of a sheet, and pictures of each."""

USED, OTHER, OUTLINE = (60, 230, 60), (235, 80, 60), (255, 220, 0)


def prepared_sheet(
    faces: NedFaces, inputs: Sequence[NedInput], progress: Progress = SILENT
) -> bytes:
    """Return a PNG with a row for each of up to 12 clips, evenly chosen: three pictures of each.

    Points that align the face are green, the others red; the mask's outline is yellow.
    """
    chosen = [inputs[i * len(inputs) // CLIPS] for i in range(CLIPS)]
    rows = []
    for one in chosen if len(inputs) > CLIPS else inputs:
        track = faces.track(one)
        n = len(track.faces)
        shown = [(2 * k + 1) * n // (2 * EACH) for k in range(EACH)]
        progress.begin("sheet", n, "frame")
        cells: dict[int, Frame] = {}
        for i, prepared in enumerate(faces.pictures(one, track)):
            progress.advance("sheet")
            if i in shown:
                cells[i] = _cell(prepared, f"{one.cell} {one.name}: {i}")
        progress.end("sheet")
        rows.append(np.concatenate([cells[i] for i in shown], axis=1))
    sheet = np.concatenate(rows)
    return bytes(cv2.imencode(".png", np.ascontiguousarray(sheet[:, :, ::-1]))[1].tobytes())


def _cell(prepared: Prepared, text: str) -> Frame:
    drawn: Any = prepared.picture.copy()
    if prepared.mask is not None:
        contours, _ = cv2.findContours(prepared.mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(drawn, contours, -1, OUTLINE, 1)
    for k, (x, y) in enumerate(prepared.points):
        cv2.circle(drawn, (round(x), round(y)), 1, USED if k in IBUG else OTHER, -1)
    style = (cv2.FONT_HERSHEY_SIMPLEX, 0.35, (255, 255, 255), 1, cv2.LINE_AA)
    cv2.putText(drawn, text, (3, 251), *style)
    return np.concatenate([drawn, prepared.face], axis=1)
