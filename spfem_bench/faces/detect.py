"""Face detectors: SCRFD in ncnn's format, and any detector that insightface loads."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from spfem_bench.definitions.metrics import DetectorSettings, FrameInput, NetworkCard
from spfem_bench.errors import CardError, WeightsError
from spfem_bench.faces.track import Array, Face
from spfem_bench.media.video import Frame
from spfem_bench.networks.weights import WeightsStore, remedy

Detector = Callable[[Frame], list[Face]]
"""From a picture, uint8 (height, width, 3) RGB, to its faces, best score first."""


def load_detector(card: NetworkCard, weights: WeightsStore) -> Detector:
    """Load the detector that a card describes.

    Args:
        card: architecture ``scrfd-ncnn`` or ``insightface-detector``.
        weights: where its files are looked for.

    Raises:
        WeightsError: weights missing, not the pinned ones, or not a detector's.
    """
    if card.detector is None or not isinstance(card.input, FrameInput):
        raise CardError(f"{card.path}: a detector's card needs [detector] and crop = 'frame'")
    if card.architecture == "scrfd-ncnn":
        return _scrfd_ncnn(card, card.input, card.detector, weights)
    return _insightface(card, card.input, card.detector, weights)


def _scrfd_ncnn(
    card: NetworkCard,
    frame_input: FrameInput,
    settings: DetectorSettings,
    weights: WeightsStore,
) -> Detector:
    import cv2
    import ncnn

    if len(card.files) != 2:
        raise CardError(f"{card.path}: ncnn needs two files, .param first, then .bin")
    param, binary = weights.read(card)
    net = ncnn.Net()
    net.opt.num_threads = 1  # more would fight with torch's threads over the same processors
    for option in (
        "use_fp16_packed",
        "use_fp16_storage",
        "use_fp16_arithmetic",
        "use_bf16_storage",
    ):
        setattr(net.opt, option, False)  # float32 throughout: the same boxes on every processor
    if net.load_param_mem(param.decode()) != 0:
        raise WeightsError(f"ncnn cannot read the network of '{card.name}'", remedy(card))
    net.load_model_mem(binary)

    def detect(frame: Frame) -> list[Face]:
        height, width = frame.shape[:2]
        scale = frame_input.long_side / max(height, width)
        small = cv2.resize(frame, (round(width * scale), round(height * scale)))
        # Strides reach 32: pad below and to the right up to a multiple.
        padded = np.zeros(
            (math.ceil(small.shape[0] / 32) * 32, math.ceil(small.shape[1] / 32) * 32, 3), np.uint8
        )
        padded[: small.shape[0], : small.shape[1]] = small
        picture = (padded.astype(np.float32) - frame_input.mean) / frame_input.std
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1))  # ncnn.Mat copies nothing
        extractor = net.create_extractor()
        extractor.input("input.1", ncnn.Mat(planes))
        found: list[Face] = []
        for stride in (8, 16, 32):
            scores, boxes, points = (
                np.array(extractor.extract(f"{name}_{stride}")[1], np.float32)
                for name in ("score", "bbox", "kps")
            )
            found += _decode_scrfd(scores, boxes, points, stride, settings.threshold, scale)
        return suppress(found, settings.overlap)

    return detect


def _decode_scrfd(
    scores: Array, boxes: Array, points: Array, stride: int, threshold: float, scale: float
) -> list[Face]:
    """Turn one stride's outputs into faces (SCRFD: distances from anchor centres, in strides)."""
    faces = []
    for anchor, row, column in zip(*np.nonzero(scores >= threshold), strict=True):
        centre = np.array([column, row], np.float32) * stride
        left_top = centre - boxes[4 * anchor : 4 * anchor + 2, row, column] * stride
        right_bottom = centre + boxes[4 * anchor + 2 : 4 * anchor + 4, row, column] * stride
        five = points[10 * anchor : 10 * anchor + 10, row, column].reshape(5, 2) * stride + centre
        box = np.concatenate([left_top, right_bottom])
        faces.append(
            Face(
                (box / scale).astype(np.float32),
                (five / scale).astype(np.float32),
                float(scores[anchor, row, column]),
            )
        )
    return faces


def suppress(faces: list[Face], overlap: float) -> list[Face]:
    """Keep, of faces that overlap more than *overlap* (IoU), the one with the best score."""
    import cv2

    if not faces:
        return []
    corners = [(*f.box[:2].tolist(), *(f.box[2:] - f.box[:2]).tolist()) for f in faces]
    kept = cv2.dnn.NMSBoxes(corners, [f.score for f in faces], 0.0, overlap)
    return sorted((faces[i] for i in np.ravel(kept)), key=lambda f: -f.score)


def _insightface(
    card: NetworkCard,
    frame_input: FrameInput,
    settings: DetectorSettings,
    weights: WeightsStore,
) -> Detector:
    from insightface import model_zoo

    content = weights.read(card)[0]
    # insightface wants a path that ends in .onnx: a private one, with the bytes just verified.
    folder = tempfile.TemporaryDirectory(prefix="spfem-bench-")
    path = Path(folder.name) / "detector.onnx"
    path.write_bytes(content)
    try:
        model: Any = model_zoo.get_model(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common kind
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"the weights of '{card.name}' cannot be read: {reason[:120]}", remedy(card)
        ) from error
    if not hasattr(model, "detect") or not getattr(model, "use_kps", True):
        raise WeightsError(
            f"'{card.name}' is not a face detector with five points that insightface knows",
            remedy(card),
        )
    model.private_folder = folder  # it opens the file again for each new picture size
    model.input_mean, model.input_std = frame_input.mean, frame_input.std
    side = frame_input.long_side
    model.prepare(ctx_id=-1, input_size=(side, side), det_thresh=settings.threshold)
    model.nms_thresh = settings.overlap

    def detect(frame: Frame) -> list[Face]:
        boxes, points = model.detect(np.ascontiguousarray(frame[:, :, ::-1]))  # it wants BGR
        return [
            Face(box[:4].astype(np.float32), five.astype(np.float32), float(box[4]))
            for box, five in zip(boxes, points, strict=True)
        ]

    return detect
