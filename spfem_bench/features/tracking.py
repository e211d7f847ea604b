"""Networks that are loaded when first needed, and frames with the subject's face."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from spfem_bench.definitions.clips import Clip, Edit
from spfem_bench.definitions.networks import Role
from spfem_bench.faces import edits
from spfem_bench.faces.detect import Detector, load_detector
from spfem_bench.faces.track import Face, FaceTrack, follow
from spfem_bench.features.batches import FRAMES, Batcher
from spfem_bench.features.keys import FeatureKeys
from spfem_bench.features.search import Search
from spfem_bench.features.sound import sync_sound
from spfem_bench.media import video
from spfem_bench.media.audio import Samples
from spfem_bench.media.video import Frame, Unchanged, changed
from spfem_bench.networks.load import load_network

RUN = 4
"""Windows of frames per sample of a sync network: at most three of a clip's last are padding."""


@dataclass(frozen=True)
class Reading:
    """How a clip is read; *key* is of its unedited face track, *unchanged* was noted before it.

    *started* are the unedited frames, and *search* finds their faces, where these have begun.
    """

    key: Mapping[str, Any]
    unchanged: Unchanged
    started: Iterator[Frame] | None = None
    search: Search | None = None


class ClipNetworks(FeatureKeys):
    """The networks of one profile, and clips' frames with faces."""

    @cached_property
    def _detector(self) -> Detector:
        return load_detector(self.profile.network("detector"), self.weights, self.device)

    @cached_property
    def _batchers(self) -> dict[tuple[Role, str], Batcher]:
        return {}

    @cached_property
    def _runner(self) -> Executor:
        return ThreadPoolExecutor(1, "networks")

    def batcher(self, role: Role, function: str) -> Batcher:
        """Return the batches of one of a network's functions; the network is loaded first."""
        if (role, function) not in self._batchers:
            card = self.profile.network(role)
            network = load_network(card, self.weights, self.device, self.precision)
            report = partial(self.progress.advance, "networks")
            for name, run in network.items():
                each = RUN if name == "frames" else 1
                size = max(1, self.batch_size // each) if self.batch_size else None
                batcher = Batcher(run, size, self._runner, report, self.device, each)
                self._batchers[role, name] = batcher
        return self._batchers[role, function]

    def search(self, clips: Iterable[Clip]) -> Search:
        """Return the search for faces in clips, which begins now."""
        return Search(clips, self.frames, lambda: self._detector, self.batch_size or FRAMES)

    def frames(self, clip: Clip) -> Iterator[Frame]:
        """Yield a clip's frames, see :func:`spfem_bench.media.video.frames`."""
        return video.frames(clip, self.hwaccel, own=self.profile.frame_rate == "own")

    def sound(self, clip: Clip, source: Clip) -> Samples:
        """Return a clip's sound; see :func:`spfem_bench.features.sound.sync_sound`."""
        return sync_sound(clip, source, self.profile.network("sync"))

    def tracked_frames(
        self, clip: Clip, track: FaceTrack, reading: Reading | None = None
    ) -> Iterator[tuple[Frame, Face | None]]:
        """Yield a clip's frames with the subject's face, and fill *track*, which is empty.

        A stored track is used again; a new one, the unedited clip's, is stored when the clip ends.
        Raises ClipError where it is unreadable, changed meanwhile, or without a face to follow.
        """
        if reading is None:
            unchanged = Unchanged.since(clip)  # before the key is made
            reading = Reading(self.key(clip, None), unchanged)
        if clip.edit is not None:
            yield from self._edited(clip, clip.edit, track, reading)
        elif self.faces == "aligned":
            for picture in reading.started or self.frames(clip):
                track.faces.append(None)
                yield picture, None
        elif (stored := self.store.get(reading.key)) is not None:
            track.fill(stored)
            track.check(clip, self.profile.follow())  # before any frame is decoded again
            yield from zip(reading.started or self.frames(clip), track.faces, strict=True)
        else:
            yield from self._followed(clip, track, reading.search)
            reading.unchanged.check()
            self.store.put(reading.key, track.to_arrays())

    def _followed(
        self, clip: Clip, track: FaceTrack, search: Search | None
    ) -> Iterator[tuple[Frame, Face | None]]:
        if search and (detected := search.of(clip)):
            yield from follow(detected, self.profile.follow(), track)
            return
        with closing(self.search([clip])) as search:
            if not (detected := search.of(clip)):
                raise changed(clip)
            yield from follow(detected, self.profile.follow(), track)

    def _edited(
        self, clip: Clip, edit: Edit, track: FaceTrack, reading: Reading
    ) -> Iterator[tuple[Frame, Face | None]]:
        bare, n_frames = replace(clip, edit=None), 0
        if edit.kind == "frozen-mouth":  # a share of the frames: they are counted first
            stored = self.store.get(reading.key) if self.faces == "detect" else None
            if stored is not None:
                n_frames = len(stored["detected"])
            else:
                n_frames = sum(1 for _ in self.tracked_frames(bare, FaceTrack(), reading))
                reading = replace(reading, started=None)
        pairs = self.tracked_frames(bare, track, reading)
        yield from edits.edited_frames(pairs, edit, n_frames, aligned=self.faces == "aligned")
        if edit.kind == "time-shuffled":
            block = int(edit.level)
            track.faces = list(edits.shuffled(track.faces, block))
            track.detected = list(edits.shuffled(track.detected, block))
