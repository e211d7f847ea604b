"""Faces in pictures, found by the network of a detector's card."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from spfem_bench.definitions.networks import FrameInput, NetworkCard
from spfem_bench.errors import CardError
from spfem_bench.faces.track import Face
from spfem_bench.media.video import Frame
from spfem_bench.networks.load import DetectorNetwork, load_by_function, network_libraries
from spfem_bench.networks.weights import WeightsStore


@dataclass(frozen=True)
class Detector:
    """Finds the faces of pictures, uint8 (height, width, 3) RGB, best first."""

    many: Callable[[Sequence[Frame]], list[list[Face]]]
    batched: bool = False

    def __call__(self, frame: Frame) -> list[Face]:
        """Return the faces in one picture."""
        return self.many([frame])[0]


def detector_libraries(card: NetworkCard) -> frozenset[str]:
    """Return the modules that find faces: the detector's runtime, and OpenCV, which resizes."""
    return network_libraries(card) | {"cv2"}


def load_detector(card: NetworkCard, weights: WeightsStore, device: str = "cpu") -> Detector:
    """Load the detector that a card describes; raise CardError or WeightsError for another."""
    if card.detector is None or not isinstance(card.input, FrameInput):
        raise CardError(f"{card.path}: a detector's card needs [detector] and crop = 'frame'")
    network = load_by_function(card, weights, device)
    if not isinstance(network, DetectorNetwork):
        raise CardError(f"{card.path}: '{card.architecture}' is no detector")

    def many(frames: Sequence[Frame]) -> list[list[Face]]:
        return [
            [Face(box, points, float(score)) for box, points, score in zip(*one, strict=True)]
            for one in network.run(frames)
        ]

    return Detector(many, network.batched)
