"""SCRFD, a face detector (Guo et al., ICLR 2022), in ncnn's format: one picture at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.architectures import ARCHITECTURES
from spfem_bench.definitions.networks import FrameInput, NetworkCard
from spfem_bench.errors import CardError, WeightsError
from spfem_bench.extras import extra
from spfem_bench.networks.load import Detections, DetectorNetwork
from spfem_bench.networks.weights import remedy
from spfem_bench.texts import visible

with extra("networks", "a network in ncnn's format"):
    import ncnn

OUTPUTS = ("score", "bbox", "kps")

_Array = npt.NDArray[np.float32]


@ARCHITECTURES.register("scrfd-ncnn", runtime="ncnn")
def scrfd_ncnn(card: NetworkCard, contents: Sequence[bytes], device: str) -> DetectorNetwork:
    """Load a detector from two files; it runs on the processor, whatever the device."""
    import cv2

    frame_input, settings = card.input, card.detector
    if len(contents) != 2 or settings is None or not isinstance(frame_input, FrameInput):
        raise CardError(f"{card.path}: ncnn needs two files, .param first, then .bin")
    net = ncnn_network(card, *contents)

    def detect(frame: npt.NDArray[np.uint8], side: int) -> Detections:
        height, width = frame.shape[:2]
        scale = side / max(height, width)
        small = cv2.resize(frame, (round(width * scale), round(height * scale)))
        # Strides reach 32: pad below and to the right up to a multiple.
        sides = [math.ceil(side / 32) * 32 for side in small.shape[:2]]
        padded = np.zeros((*sides, 3), np.uint8)
        padded[: small.shape[0], : small.shape[1]] = small
        picture = (padded.astype(np.float32) - frame_input.mean) / frame_input.std
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1))  # ncnn.Mat copies nothing
        extractor = net.create_extractor()
        extractor.input("input.1", ncnn.Mat(planes))
        parts = []
        for stride in (8, 16, 32):
            outputs = [extractor.extract(f"{name}_{stride}")[1] for name in OUTPUTS]
            score, box, five = (np.array(output, np.float32) for output in outputs)
            parts.append(_decode(score, box, five, stride, settings.threshold))
        boxes, points, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
        boxes, points = ((part / scale).astype(np.float32) for part in (boxes, points))
        order = suppress(boxes, scores, settings.overlap)
        return Detections(boxes[order], points[order], scores[order])

    return DetectorNetwork(lambda frames, side: [detect(frame, side) for frame in frames])


def ncnn_network(card: NetworkCard, param: bytes, binary: bytes) -> Any:
    """Return an ``ncnn.Net`` of the content of its two files; raise WeightsError for others."""
    net = ncnn.Net()
    net.opt.num_threads = 1  # more would compete with torch's threads for the same processors
    # float32 throughout: the same boxes on every processor
    for option in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage"):
        setattr(net.opt, f"use_{option}", False)
    try:
        text = param.decode().replace("\r\n", "\n")
    except ValueError:  # not in UTF-8
        text = ""
    # ncnn prints names that it does not know as they are.
    if visible(text) != text or net.load_param_mem(text) != 0:
        raise WeightsError(f"ncnn cannot read the network of '{card.name}'", remedy(card))
    net.load_model_mem(binary)
    return net


def _decode(
    scores: _Array, boxes: _Array, points: _Array, stride: int, threshold: float
) -> tuple[_Array, _Array, _Array]:
    """Return one stride's boxes, points and scores; outputs are distances from anchor centres."""
    anchors, rows, columns = np.nonzero(scores >= threshold)
    parts = (part.reshape(len(scores), -1, *scores.shape[1:]) for part in (boxes, points))
    boxes, points = (part[anchors, :, rows, columns] * stride for part in parts)
    centres = np.stack([columns, rows], axis=1).astype(np.float32) * stride
    corners = np.concatenate([centres - boxes[:, :2], centres + boxes[:, 2:]], axis=1)
    fives = points.reshape(-1, 5, 2) + centres[:, None]
    return corners, fives, scores[anchors, rows, columns]


def suppress(
    boxes: _Array, scores: npt.NDArray[np.floating], overlap: float
) -> npt.NDArray[np.int64]:
    """Return which boxes (N, 4) are kept, best first: no IoU of two is above *overlap*."""
    import cv2

    if not len(boxes):
        return np.empty(0, np.int64)
    corners = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = np.ravel(cv2.dnn.NMSBoxes(corners.tolist(), scores.tolist(), 0.0, overlap)).astype(int)
    return kept[np.argsort(-scores[kept], kind="stable")]
