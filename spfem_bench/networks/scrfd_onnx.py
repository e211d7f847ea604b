"""SCRFD, a face detector (Guo et al., ICLR 2022), in insightface's ONNX format."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.architectures import ARCHITECTURES
from spfem_bench.definitions.networks import DetectorSettings, FrameInput, NetworkCard
from spfem_bench.errors import CardError, WeightsError
from spfem_bench.networks import onnx_files
from spfem_bench.networks.load import Detections, DetectorNetwork
from spfem_bench.networks.weights import remedy, wrong_weights

STRIDES = (8, 16, 32)

_Array = npt.NDArray[np.float32]
_Frame = npt.NDArray[np.uint8]


@ARCHITECTURES.register("scrfd-onnx", runtime="onnxruntime")
def scrfd_onnx(card: NetworkCard, contents: Sequence[bytes], device: str) -> DetectorNetwork:
    """Load a detector (insightface's ``model_zoo/scrfd.py``)."""
    frame_input, settings = card.input, card.detector
    if settings is None or not isinstance(frame_input, FrameInput):
        raise CardError(f"{card.path}: a detector's card needs [detector] and crop = 'frame'")
    model = onnx_files.parse_model(contents[0], card)
    if len(model.graph.output) != 3 * len(STRIDES):
        problem = f"'{card.name}' is not a SCRFD detector with five points"
        outputs = f"{len(model.graph.output)} outputs, not 9"
        raise WeightsError(f"{problem}: {outputs}", remedy(card))
    run, batched = onnx_files.start(model, card, device)
    normalisation = frame_input.mean, frame_input.std
    if frame_input.face is not None:
        try:
            run(np.zeros((1, 3, STRIDES[-1], STRIDES[-1]), np.float32))
        except Exception as error:  # onnxruntime's errors have no common kind
            reason = "it takes pictures of one size, and the card's 'face' asks for any"
            raise wrong_weights(card, ValueError(reason)) from error

    def letterbox(frame: _Frame, side: int) -> tuple[_Frame, float]:
        """Scale a picture into the top left corner of a black square."""
        height, width = frame.shape[:2]
        ratio = height / width
        new = (int(side / ratio), side) if ratio > 1 else (side, int(side * ratio))
        square = np.zeros((side, side, 3), np.uint8)
        square[: new[1], : new[0]] = cv2.resize(frame, new)
        return square, new[1] / height

    def detect(frames: Sequence[_Frame], side: int) -> list[Detections]:
        squares, scales = zip(*(letterbox(frame, side) for frame in frames), strict=True)
        rows = zip(*run(onnx_files.scaled(np.stack(squares), *normalisation)), strict=True)
        return [_detections(r, side, s, settings) for r, s in zip(rows, scales, strict=True)]

    return DetectorNetwork(detect, batched)


def _detections(
    outputs: Sequence[_Array], side: int, scale: float, settings: DetectorSettings
) -> Detections:
    """Turn one picture's scores (N, 1), boxes (N, 4) and points (N, 10) into faces.

    Rows go by row, column and anchor (two each); distances from its centre are in strides.
    """
    parts = []
    for i, stride in enumerate(STRIDES):
        score, box, five = (outputs[i + j * len(STRIDES)] for j in range(3))
        y, x = np.mgrid[: side // stride, : side // stride].astype(np.float32) * stride
        centres = np.stack([x, y], axis=-1).reshape(-1, 1, 2).repeat(2, axis=1).reshape(-1, 2)
        sure = np.flatnonzero(score[:, 0] >= settings.threshold)
        centre, reach = centres[sure], box[sure] * stride
        corners = np.concatenate([centre - reach[:, :2], centre + reach[:, 2:]], axis=1)
        points = five[sure].reshape(-1, 5, 2) * stride + centre[:, None]
        parts.append((corners, points, score[sure, 0]))
    boxes, points, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(-scores, kind="stable")
    boxes, points = ((p[order] / scale).astype(np.float32) for p in (boxes, points))
    kept = _suppress(boxes, settings.overlap)
    return Detections(boxes[kept], points[kept], scores[order][kept])


def _suppress(boxes: _Array, overlap: float) -> list[int]:
    """Return which boxes (N, 4), best first, are kept: one from pixel a to b is b - a + 1 wide."""
    low, high = boxes[:, :2], boxes[:, 2:]
    areas = (high - low + 1).prod(axis=1)
    kept, rest = [], np.arange(len(boxes))
    while len(rest):
        best, rest = int(rest[0]), rest[1:]
        kept.append(best)
        sides = np.minimum(high[best], high[rest]) - np.maximum(low[best], low[rest]) + 1
        both = np.maximum(0.0, sides).prod(axis=1)
        rest = rest[both / (areas[best] + areas[rest] - both) <= overlap]
    return kept
