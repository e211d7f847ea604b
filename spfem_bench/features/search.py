"""The faces of the next clips, found while networks are busy with those before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import groupby, islice
from typing import NamedTuple

from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import ClipError
from spfem_bench.faces.detect import Detector
from spfem_bench.faces.track import Face
from spfem_bench.features.ahead import Ahead, begun, frame_bytes
from spfem_bench.media.video import Frame, Unchanged, changed

SHARE = 4
"""A detector's batches have a quarter of the frames: it takes whole frames, not crops."""


class _Searched(NamedTuple):
    clip: Clip
    frame: Frame | ClipError
    faces: list[Face]


class Search:
    """Finds the faces of clips, one clip after the other, in batches of one size.

    Where a clip ends within a batch, the first frames of the next ones fill it up. Clips have no
    edits and come in the order in which they are read; *detector* is called once there is one.
    """

    def __init__(
        self,
        clips: Iterable[Clip],
        read: Callable[[Clip], Iterator[Frame]],
        detector: Callable[[], Detector],
        batch_size: int,
    ) -> None:
        self._clips = dict.fromkeys(clips)
        self._states: dict[Clip, Unchanged] = {}
        self._read, self._detector, self._batch_size = read, detector, batch_size
        self._ahead = Ahead(self._all(list(self._clips)), lambda one: frame_bytes(one.frame))
        self._groups = groupby(self._ahead, key=lambda one: one.clip)

    def of(self, clip: Clip) -> Iterator[tuple[Frame, list[Face]]] | None:
        """Return a clip's frames with faces, once; None unless it is searched. Raises ClipError."""
        if clip not in self._clips:
            return None
        for owner, searched in self._groups:
            del self._clips[owner]
            if owner == clip:
                if unchanged := self._states.get(owner):
                    unchanged.check()
                return self._frames(searched)
        return None  # a clip without a frame

    def close(self) -> None:
        """Search no further."""
        self._ahead.close()

    @staticmethod
    def _frames(searched: Iterator[_Searched]) -> Iterator[tuple[Frame, list[Face]]]:
        for _, frame, faces in searched:
            if isinstance(frame, ClipError):
                raise frame
            yield frame, faces

    def _all(self, clips: list[Clip]) -> Iterator[_Searched]:
        if not clips:
            return
        detector = self._detector()
        size = max(1, self._batch_size // SHARE) if detector.batched else 1
        for side, source in groupby(self._sized(clips, detector), key=lambda one: one[0]):
            while batch := [(clip, frame) for _, clip, frame in islice(source, size)]:
                frames = [frame for _, frame in batch if not isinstance(frame, ClipError)]
                filled = frames + frames[-1:] * (size - len(frames))
                faces = iter(detector.many(filled, side) if filled else ())
                for clip, frame in batch:
                    found = [] if isinstance(frame, ClipError) else next(faces)
                    yield _Searched(clip, frame, found)

    def _sized(
        self, clips: list[Clip], detector: Detector
    ) -> Iterator[tuple[int, Clip, Frame | ClipError]]:
        """Yield the clips' frames, each with the size at which its clip is searched."""
        side = 0
        for clip, frames in groupby(self._pictures(clips), key=lambda one: one[0]):
            for place, (_, frame) in enumerate(frames):
                if place == 0 and not isinstance(frame, ClipError):
                    side = detector.clip_side(frame)
                yield side, clip, frame

    def _pictures(self, clips: list[Clip]) -> Iterator[tuple[Clip, Frame | ClipError]]:
        """Yield the clips' frames; the next clip is decoded already."""
        with closing(begun(map(self._begin, clips), 1)) as readers:
            for clip, frames in zip(clips, readers, strict=True):
                with closing(frames):
                    for frame in frames:
                        yield clip, frame

    def _begin(self, clip: Clip) -> Ahead[Frame | ClipError]:
        def frames() -> Iterator[Frame | ClipError]:
            """Yield a clip's error as its last item, so that it is raised in the clip's turn."""
            try:
                if clip not in self._states:
                    Unchanged.since(clip)  # raises what it raised before
                    raise changed(clip)
                yield from self._read(clip)
            except ClipError as error:
                yield error

        with suppress(ClipError):  # raised in the clip's turn
            self._states[clip] = Unchanged.since(clip)
        return Ahead(frames(), frame_bytes)
