"""Face detectors: SCRFD in ncnn's format, and in insightface's own (ONNX)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spfem_bench.definitions.networks import DetectorSettings, FrameInput, NetworkCard
from spfem_bench.errors import CardError, WeightsError
from spfem_bench.extras import extra
from spfem_bench.faces.track import Array, Face
from spfem_bench.media.video import Frame
from spfem_bench.networks.weights import WeightsStore, remedy
from spfem_bench.texts import visible


@dataclass(frozen=True)
class Detector:
    """Finds faces.

    Attributes:
        many: from pictures, each uint8 (height, width, 3) RGB, to the faces of each, best
            score first.
        batched: several pictures go through the network at once.
    """

    many: Callable[[Sequence[Frame]], list[list[Face]]]
    batched: bool = False

    def __call__(self, frame: Frame) -> list[Face]:
        """Return the faces in one picture."""
        return self.many([frame])[0]


def libraries(card: NetworkCard) -> frozenset[str]:
    """Return the modules that find faces: the detector's runtime, and OpenCV, which resizes."""
    return frozenset({"cv2", "ncnn" if card.architecture == "scrfd-ncnn" else "onnxruntime"})


def load_detector(card: NetworkCard, weights: WeightsStore, device: str = "cpu") -> Detector:
    """Load the detector that a card describes.

    Args:
        card: architecture ``scrfd-ncnn`` or ``scrfd-onnx``.
        weights: where its files are looked for.
        device: where ``scrfd-onnx`` runs; ncnn uses the processor.

    Raises:
        WeightsError: weights missing, not the pinned ones, or not a detector's.
    """
    if card.detector is None or not isinstance(card.input, FrameInput):
        raise CardError(f"{card.path}: a detector's card needs [detector] and crop = 'frame'")
    if card.architecture == "scrfd-ncnn":
        return _scrfd_ncnn(card, card.input, card.detector, weights)
    if card.architecture == "scrfd-onnx":
        return _scrfd_onnx(card, card.input, card.detector, weights, device)
    raise CardError(f"{card.path}: '{card.architecture}' is no detector")


def _scrfd_ncnn(
    card: NetworkCard,
    frame_input: FrameInput,
    settings: DetectorSettings,
    weights: WeightsStore,
) -> Detector:
    import cv2

    with extra("networks", "a network in ncnn's format"):
        import ncnn

    if len(card.files) != 2:
        raise CardError(f"{card.path}: ncnn needs two files, .param first, then .bin")
    net = ncnn_network(card, *weights.read(card))

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

    return Detector(lambda frames: [detect(frame) for frame in frames])


def ncnn_network(card: NetworkCard, param: bytes, binary: bytes) -> Any:
    """Return an ``ncnn.Net`` made of the content of its two files.

    Raises:
        WeightsError: ncnn cannot read the first, a text.
    """
    with extra("networks", "a network in ncnn's format"):
        import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1  # more would fight with torch's threads over the same processors
    for option in (
        "use_fp16_packed",
        "use_fp16_storage",
        "use_fp16_arithmetic",
        "use_bf16_storage",
    ):
        setattr(net.opt, option, False)  # float32 throughout: the same boxes on every processor
    try:
        text = param.decode().replace("\r\n", "\n")
    except ValueError:  # not in UTF-8
        text = ""
    # ncnn prints names that it does not know as they are.
    readable = visible(text) == text and net.load_param_mem(text) == 0
    if not readable:
        raise WeightsError(f"ncnn cannot read the network of '{card.name}'", remedy(card))
    net.load_model_mem(binary)
    return net


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


def _scrfd_onnx(
    card: NetworkCard,
    frame_input: FrameInput,
    settings: DetectorSettings,
    weights: WeightsStore,
    device: str,
) -> Detector:
    """Load a SCRFD detector in insightface's ONNX format (its ``model_zoo/scrfd.py``)."""
    import cv2

    from spfem_bench.networks import onnx_files

    model = onnx_files.read(weights.read(card)[0], card)
    if len(model.graph.output) != 3 * len(STRIDES):
        raise WeightsError(
            f"'{card.name}' is not a SCRFD detector with five points: "
            f"{len(model.graph.output)} outputs, not 9",
            remedy(card),
        )
    run, batched = onnx_files.start(model, card, device)
    side = frame_input.long_side

    def letterbox(frame: Frame) -> tuple[Frame, float]:
        """Scale a picture into the top left corner of a black square."""
        height, width = frame.shape[:2]
        ratio = height / width
        new = (int(side / ratio), side) if ratio > 1 else (side, int(side * ratio))
        square = np.zeros((side, side, 3), np.uint8)
        square[: new[1], : new[0]] = cv2.resize(frame, new)
        return square, new[1] / height

    def detect(frames: Sequence[Frame]) -> list[list[Face]]:
        squares, scales = zip(*(letterbox(frame) for frame in frames), strict=True)
        pictures = onnx_files.scaled(np.stack(squares), frame_input.mean, frame_input.std)
        outputs = run(pictures)
        return [
            _faces([output[i] for output in outputs], side, scale, settings)
            for i, scale in enumerate(scales)
        ]

    return Detector(detect, batched)


STRIDES = (8, 16, 32)


def _faces(
    outputs: Sequence[Array], side: int, scale: float, settings: DetectorSettings
) -> list[Face]:
    """Turn one picture's scores (N, 1), boxes (N, 4) and points (N, 10) into faces.

    Rows go by row, column and anchor (two each); boxes are distances from the anchor's centre
    to the four sides, points are offsets, both in strides.
    """
    scores, boxes, points = [], [], []
    for i, stride in enumerate(STRIDES):
        score, box, five = (outputs[i + j * len(STRIDES)] for j in range(3))
        y, x = np.mgrid[: side // stride, : side // stride].astype(np.float32) * stride
        centres = np.stack([x, y], axis=-1).reshape(-1, 1, 2).repeat(2, axis=1).reshape(-1, 2)
        sure = np.flatnonzero(score[:, 0] >= settings.threshold)
        centre, reach = centres[sure], box[sure] * stride
        scores.append(score[sure, 0])
        boxes.append(np.concatenate([centre - reach[:, :2], centre + reach[:, 2:]], axis=1))
        points.append(five[sure].reshape(-1, 5, 2) * stride + centre[:, None])
    sureness = np.concatenate(scores)
    order = np.argsort(-sureness, kind="stable")
    found = [
        Face(box.astype(np.float32), five.astype(np.float32), float(score))
        for box, five, score in zip(
            np.concatenate(boxes)[order] / scale,
            np.concatenate(points)[order] / scale,
            sureness[order],
            strict=True,
        )
    ]
    return suppress_inclusive(found, settings.overlap)


def suppress_inclusive(faces: list[Face], overlap: float) -> list[Face]:
    """Keep, of overlapping faces, the one with the best score, as insightface measures overlap.

    A box from pixel a to pixel b is taken to be b - a + 1 wide, and IoU *at most* the limit is
    kept, unlike in :func:`suppress`.

    Args:
        faces: best score first.
        overlap: the largest IoU that two faces may have.
    """
    if not faces:
        return []
    boxes = np.stack([face.box for face in faces])
    low, high = boxes[:, :2], boxes[:, 2:]
    areas = (high - low + 1).prod(axis=1)
    kept, rest = [], np.arange(len(faces))
    while len(rest):
        best, rest = rest[0], rest[1:]
        kept.append(faces[best])
        sides = np.minimum(high[best], high[rest]) - np.maximum(low[best], low[rest]) + 1
        both = np.maximum(0.0, sides).prod(axis=1)
        rest = rest[both / (areas[best] + areas[rest] - both) <= overlap]
    return kept
