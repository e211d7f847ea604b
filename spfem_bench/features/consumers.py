"""From frames with faces to a network's samples: one crop, or a run of SyncNet's crops."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from spfem_bench.definitions.networks import (
    InnerInput,
    LandmarksInput,
    NetworkCard,
    Role,
    SyncInput,
)
from spfem_bench.faces import crop, exact, landmarks
from spfem_bench.faces.track import Face
from spfem_bench.features.batches import Batcher, BatchOutputs, Outputs, Taker
from spfem_bench.features.tracking import RUN, ClipNetworks
from spfem_bench.media.chain import CropVideo
from spfem_bench.media.mfcc import WINDOW
from spfem_bench.media.video import Frame


def consumer(
    x: ClipNetworks, role: Role, outputs: Outputs, folder: Path | None
) -> _FaceConsumer | _InnerConsumer | _LandmarksConsumer | _SyncConsumer:
    """Return the consumer of frames with a face for a network; *outputs* receive the rows."""
    card = x.profile.network(role)
    if isinstance(card.input, SyncInput):
        return _SyncConsumer(x.batcher("sync", "frames"), card.input, outputs, folder)
    if isinstance(card.input, InnerInput):
        return _InnerConsumer(x.batcher("sync", "frames"), card.input, outputs)
    if isinstance(card.input, LandmarksInput):
        return _LandmarksConsumer(x.batcher("landmarks", "crops"), card.input, outputs)
    return _FaceConsumer(x.batcher(role, "crops"), card, outputs)


class _FaceConsumer:
    """One crop per frame: identity and expression networks."""

    def __init__(self, batcher: Batcher, card: NetworkCard, outputs: Outputs) -> None:
        self.batcher, self.card, self.outputs = batcher, card, outputs

    def push(self, index: int, picture: Frame, face: Face | None) -> None:
        sample = crop.cut(picture, face, self.card.input)
        self.batcher.add(sample, self.outputs.expect([index]))

    def finish(self) -> None:
        """Nothing is held back."""


class _Runs:
    """Runs of consecutive crops for SyncNet's video encoder: some windows in one sample."""

    def __init__(self, batcher: Batcher, outputs: Outputs) -> None:
        self.batcher, self.outputs = batcher, outputs
        self.run: list[tuple[int, Frame]] = []

    def _take(self, index: int, cut: Frame) -> None:
        if self.run and index != self.run[-1][0] + 1:
            self._send()
            self.run.clear()
        self.run.append((index, cut))
        if len(self.run) == RUN + WINDOW - 1:
            self._send()
            self.run = self.run[RUN:]

    def _send(self) -> None:
        windows = [index for index, _ in self.run[: 1 - WINDOW]]
        if windows:
            cuts = [cut for _, cut in self.run]
            cuts += cuts[-1:] * (RUN + WINDOW - 1 - len(cuts))
            self.batcher.add(np.stack(cuts), self.outputs.expect(windows))

    def finish(self) -> None:
        """End a run of crops."""
        self._send()
        self.run.clear()


class _InnerConsumer(_Runs):
    """Aligned faces less their margin."""

    def __init__(self, batcher: Batcher, settings: InnerInput, outputs: Outputs) -> None:
        super().__init__(batcher, outputs)
        self.settings = settings

    def push(self, index: int, picture: Frame, face: Face | None) -> None:
        self._take(index, crop.inner(picture, self.settings))


class _LandmarksConsumer:
    """One square crop per frame; the network's points are stored in pixels of the frame."""

    def __init__(self, batcher: Batcher, settings: LandmarksInput, outputs: Outputs) -> None:
        self.batcher, self.settings, self.outputs = batcher, settings, outputs
        self.cropper = crop.LandmarksCropper(settings)
        self.scores: dict[int, float] = {}

    def push(self, index: int, picture: Frame, face: Face | None) -> None:
        if face is None:  # aligned input: the frame is the crop
            whole = crop.Region(0.0, 0.0, picture.shape[1], picture.shape[0])
            cut = exact.shrink(picture, self.settings.size)
            self._add(index, picture, cut, whole, 1.0)
            return
        self.scores[index] = face.score
        self._add_all(self.cropper.push(index, picture, face))

    def _add_all(self, crops: Iterable[tuple[int, Frame, Frame, crop.Region]]) -> None:
        for index, picture, cut, square in crops:
            self._add(index, picture, cut, square, self.scores.pop(index))

    def _add(
        self, index: int, picture: Frame, cut: Frame, square: crop.Region, score: float
    ) -> None:
        take = self.outputs.expect([index])
        self.batcher.add(cut, _placed(take, square, cut, picture.shape[:2], score))

    def finish(self) -> None:
        """End a track: add the crops that the smoothing held back."""
        self._add_all(self.cropper.finish())


def _placed(
    take: Taker, region: crop.Region, cut: Frame, shape: tuple[int, ...], score: float
) -> Taker:
    """Return a taker that passes points on in pixels of the frame, and what tells bad ones apart.

    ``frame``: width and height. ``score``: the detector's, 1 without one. ``contrast``: how grey
    varies around the mouth and around the eyes (:func:`spfem_bench.faces.landmarks.contrast`).
    """
    height, width = shape

    def place(outputs: BatchOutputs) -> None:
        points = outputs["points"].astype(np.float64).reshape(1, -1, 2)
        take(
            {
                "points": region.in_frame(outputs["points"])[None],
                "frame": np.array([[width, height]], np.float32),
                "score": np.array([[score]], np.float32),
                "contrast": landmarks.contrast(points * len(cut), cut).astype(np.float32)[None],
            }
        )

    return place


class _SyncConsumer(_Runs):
    """Crops around smoothed boxes, behind the round trips of a chain."""

    def __init__(
        self, batcher: Batcher, settings: SyncInput, outputs: Outputs, folder: Path | None
    ) -> None:
        super().__init__(batcher, outputs)
        self.folder = folder
        self.crops = settings.chain.crops if settings.chain else "as-cut"
        self.cropper = crop.SyncCropper(settings)
        self.size = settings.size
        self.video: CropVideo | None = None

    def push(self, index: int, picture: Frame, face: Face | None) -> None:
        if face is None:  # aligned input: the frame is the crop
            self._encode(index, exact.resize(picture, self.size))
            return
        for number, cut in self.cropper.push(index, picture, face):
            self._encode(number, cut)

    def _encode(self, index: int, cut: Frame) -> None:
        if self.crops == "as-cut" or self.folder is None:
            self._take(index, cut)
            return
        if self.video and index != self.video.indices[-1] + 1:
            self._decode()
        if self.video is None:
            self.video = CropVideo(self.folder, self.crops, index, self.size)
        self.video.add(index, cut)

    def _decode(self) -> None:
        if self.video:
            for number, cut in self.video.read():
                self._take(number, cut)
        self.video = None

    def finish(self) -> None:
        """End a track: add the crops that the smoothing held back."""
        for number, cut in self.cropper.finish():
            self._encode(number, cut)
        self._decode()
        super().finish()
