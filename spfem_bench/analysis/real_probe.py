"""Real clips for the probe of a loss: what methods made of a source, beside controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from spfem_bench.analysis.probe import NOTHING, Frames, ProbeClip
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.datasets.pairs import EmotionPair
from spfem_bench.definitions.protocols import Protocol
from spfem_bench.errors import CardError, ClipError
from spfem_bench.evaluation.pairing import protocol_pairs
from spfem_bench.faces.crop import opencv
from spfem_bench.features.crops import SIZE
from spfem_bench.features.pair_extract import PairExtractor
from spfem_bench.progress import SILENT, Progress

GRAIN, QUALITY, LATER = 1.6, 50, 12

REAL_CONDITIONS = {
    NOTHING: f"the source with grain of {GRAIN} grey levels",
    "compressed": f"the source as JPEG of quality {QUALITY}, frame by frame",
    "frozen": "the first frame of the window, held",
    "later": "the source half a second later",
    "wrong time": "the source half the clip away, at least a window",
    "other speaker": "another speaker's source",
}
"""What each condition shows; the others are the protocol's methods."""


@dataclass(frozen=True)
class RealClips:
    """Sources with what methods made of them, aligned frame by frame, and what lacks."""

    items: dict[str, dict[str, EmotionPair]]  # by the item's name, then the method's
    left_out: tuple[str, ...]


def pair_methods(
    protocol: Protocol,
    extractor: PairExtractor,
    data: DataFolders,
    methods: Sequence[str] = (),
    progress: Progress = SILENT,
) -> RealClips:
    """Align sources with the outputs of *methods*, by default all that the protocol has.

    ``real``, the real clip in the target emotion, is aligned by its sound: name it only where it
    says the same.

    Raises:
        UnknownNameError: no such method in this protocol.
        CardError: nothing can be paired.
    """
    items: dict[str, dict[str, EmotionPair]] = {}
    left: list[str] = []
    for method in methods or tuple(protocol.card.outputs) or ("real",):
        try:
            paired = protocol_pairs(method, protocol, extractor, data, progress=progress)
        except CardError as error:
            left.append(error.problem)
            continue
        left += paired.left_out
        for pair in paired.pairs:
            name = f"{pair.speaker} {pair.emotion} {pair.neutral.name}"
            items.setdefault(name, {})[method] = pair
    if not items:
        raise CardError(left[0])
    return RealClips(items, tuple(dict.fromkeys(left)))


def real_clips(clips: RealClips, frames: int = 25, windows: int = 3) -> Iterator[ProbeClip]:
    """Yield windows of *frames* frames at 25 a second, evenly over each source: ArcFace crops.

    Conditions are those of `REAL_CONDITIONS` and the methods'. One that a window lacks is left
    out. The unit is the item.

    Raises:
        ClipError: no source has a window of that length.
    """
    sources = {name: _Source(pairs) for name, pairs in clips.items.items()}
    found = False
    for number, (name, source) in enumerate(sources.items()):
        starts = source.starts(frames)
        chosen = np.unique(((np.arange(windows) + 0.5) * len(starts) / windows).astype(int))
        others = [s for s in sources.values() if s.speaker != source.speaker]
        for k, at in enumerate(chosen if starts else ()):
            found = True
            start = starts[at]
            shown = source.run(start, frames)
            rng = np.random.default_rng([number, k])
            made: dict[str, Frames | None] = {
                NOTHING: _grainy(shown, rng),
                "compressed": np.stack([_compressed(frame) for frame in shown]),
                "frozen": np.repeat(shown[:1], frames, 0),
                "later": source.run(start + LATER, frames) if start + LATER in starts else None,
            }
            far = (start - starts[0] + len(starts) // 2) % len(starts)
            if abs(starts[far] - start) >= frames:
                made["wrong time"] = source.run(starts[far], frames)
            for other in others[number % max(1, len(others)) :][:1]:
                if there := other.starts(frames):
                    made["other speaker"] = other.run(there[len(there) * k // windows], frames)
            for method, pair in clips.items[name].items():
                made[method] = _output(pair, start, frames)
            for condition, pictures in made.items():
                if pictures is not None:
                    yield ProbeClip(name, condition, shown, pictures)
    if not found:
        raise ClipError(
            f"no source shows a face in {frames} frames in a row", "Give fewer frames, or others"
        )


class _Source:
    """The frames of a source that some output goes with."""

    def __init__(self, pairs: dict[str, EmotionPair]) -> None:
        pair = next(iter(pairs.values()))
        self.speaker = pair.speaker
        self._pair = pair
        self._entry = {int(frame): entry for entry, frame in enumerate(pair.numbers[:, 0])}

    def starts(self, frames: int) -> list[int]:
        """Return the first frames of all windows."""
        return [s for s in self._entry if all(s + t in self._entry for t in range(frames))]

    def run(self, start: int, frames: int) -> Frames:
        """Return a window's pictures: uint8 (frames, 112, 112, 3)."""
        entries = (self._entry[start + t] for t in range(frames))
        return np.stack([self._pair.pictures(entry, SIZE)[0] for entry in entries])


def _output(pair: EmotionPair, start: int, frames: int) -> Frames | None:
    """Return what was made of a window of the source, or None where frames lack."""
    first = np.flatnonzero(pair.numbers[:, 0] == start)
    if not len(first):
        return None
    entries = range(int(first[0]), int(first[0]) + frames)
    if entries[-1] >= len(pair) or pair.numbers[entries[-1], 0] != start + frames - 1:
        return None
    return np.stack([pair.pictures(entry, SIZE)[1] for entry in entries])


def _grainy(frames: Frames, rng: np.random.Generator) -> Frames:
    noisy = frames + GRAIN * rng.standard_normal(frames.shape) + 0.5
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)


def _compressed(frame: Frames) -> Frames:
    cv2 = opencv()
    _, packed = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
