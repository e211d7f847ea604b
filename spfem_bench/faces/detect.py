"""Faces in pictures, found by the network of a detector's card."""

from __future__ import annotations

import math
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
    """Finds the faces of pictures, uint8 (height, width, 3) RGB, best first.

    *many* also takes the longer side, in pixels, at which pictures are searched.
    """

    many: Callable[[Sequence[Frame], int], list[list[Face]]]
    size: FrameInput
    batched: bool = False

    def __call__(self, frame: Frame) -> list[Face]:
        """Return the faces in one picture, searched at the card's ``long_side``."""
        return self.many([frame], self.size.long_side)[0]

    def clip_side(self, first: Frame) -> int:
        """Return the longer side at which all pictures of a clip are searched, by its first.

        The first is searched at its own size, rounded up to :data:`GRID`, but not above
        ``long_side``. The clip's size is the smallest at which the largest face found there has a
        longer side of ``face`` pixels. It is ``long_side`` where no face is found.
        """
        largest, needed = self.size.long_side, self.size.face
        if needed is None:
            return largest
        longest = max(first.shape[:2])
        faces = self.many([first], min(largest, _on_grid(longest)))[0]
        if not faces:
            return largest
        side = max(float((face.box[2:] - face.box[:2]).max()) for face in faces)
        return min(largest, _on_grid(longest * needed / side))


GRID = 32
"""The coarsest stride of detectors: sizes are multiples of it."""


def _on_grid(side: float) -> int:
    return math.ceil(side / GRID) * GRID


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

    def many(frames: Sequence[Frame], side: int) -> list[list[Face]]:
        return [
            [Face(box, points, float(score)) for box, points, score in zip(*one, strict=True)]
            for one in network.run(frames, side)
        ]

    return Detector(many, card.input, network.batched)
