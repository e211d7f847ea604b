"""One clip on its way through the networks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import InnerInput, Role
from spfem_bench.errors import ClipError
from spfem_bench.faces import edits
from spfem_bench.faces.track import FaceTrack
from spfem_bench.features.ahead import Ahead, frame_bytes
from spfem_bench.features.batches import Outputs
from spfem_bench.features.consumers import consumer
from spfem_bench.features.features import Features
from spfem_bench.features.search import Search
from spfem_bench.features.tracking import ClipNetworks, Reading
from spfem_bench.media import audio
from spfem_bench.media.audio import Samples
from spfem_bench.media.chain import carried
from spfem_bench.media.mfcc import STEPS_PER_FRAME, WINDOW, mfcc, sound_windows
from spfem_bench.media.own_sound import samples_per_frame
from spfem_bench.media.video import Frame, Unchanged

ClipFailures = dict[tuple[Clip, Role], ClipError]
"""Why a network's features of a clip cannot be had."""


class ClipReader:
    """Reads one clip's frames and sound, and stores its features.

    Reading begins at once in threads: sound, and frames whose faces need no search. Raises
    ClipError where a file is absent.
    """

    def __init__(
        self, x: ClipNetworks, clip: Clip, roles: set[Role], search: Search, failures: ClipFailures
    ) -> None:
        self.networks, self.clip, self.search, self.failures = x, clip, search, failures
        # In this order: hashed and decoded are the same bytes if the state is the same at the end.
        self.unchanged = Unchanged.since(clip)
        self.keys = {role: x.key(clip, role) for role in roles}
        self.track_key = x.key(clip, None)
        self.roles = roles
        self.outputs: dict[Role, Outputs] = {}
        self.sound = Outputs()
        self.tracks: dict[Role, FaceTrack] = {}
        contract = x.profile.network("sync").input if "sync" in roles else None
        self.inner = contract if isinstance(contract, InnerInput) else None
        self.per_frame = audio.SAMPLES_PER_FRAME
        if self.inner:
            self.per_frame = samples_per_frame(self.inner.frame_rate)
        bare, chained = replace(clip, edit=None), "sync" in roles and x.chain is not None
        self.samples = Ahead(self._sound(bare)) if "sync" in roles and not chained else None
        direct = roles - {"sync"} if chained else roles
        known = x.faces == "aligned" or x.store.has(self.track_key)
        self.pictures = Ahead(x.frames(bare), frame_bytes) if direct and known else None

    def read(self) -> None:
        """Send the clip's frames and sound through the networks; note errors."""
        chain, roles, clip = self.networks.chain, self.roles, self.clip
        if "sync" not in roles or chain is None:
            self._read(roles, clip, self.track_key, self.samples, self.pictures)
            return
        self._read(roles - {"sync"}, clip, self.track_key, None, self.pictures)
        steps = chain.frame_settings()
        key = {**self.track_key, **({"chain": steps} if steps else {})}
        try:
            with carried(replace(clip, edit=None), chain) as outcome:
                frames = replace(outcome.frames, edit=clip.edit)
                self._read({"sync"}, frames, key, self._sound(outcome.sound), None, outcome.folder)
        except ClipError as error:
            self._fail("sync", error)

    def _read(
        self,
        roles: set[Role],
        frames: Clip,
        track_key: Mapping[str, Any],
        samples: Iterator[Samples] | None,
        pictures: Iterator[Frame] | None,
        folder: Path | None = None,
    ) -> None:
        """Send frames and sound through networks that take them from the same files."""
        x, track, sound = self.networks, FaceTrack(), None
        if samples is not None:
            try:
                sound = edits.edited_sound(next(samples), self.clip, self.per_frame)
            except ClipError as error:
                self.failures[self.clip, "sync"] = error
                roles = roles - {"sync"}
        if not roles:
            return
        self.tracks |= dict.fromkeys(roles, track)
        try:
            consumers = []
            for role in sorted(roles):
                outputs = self.outputs.setdefault(role, Outputs())
                consumers.append(consumer(x, role, outputs, folder))
            reading = Reading(track_key, self.unchanged, pictures, self.search)
            for index, (picture, face) in enumerate(x.tracked_frames(frames, track, reading)):
                if face is not None or x.faces == "aligned":
                    for one in consumers:
                        one.push(index, picture, face)
                x.progress.advance("decode")
            for one in consumers:
                one.finish()
            if x.faces == "detect":
                track.check(self.clip, x.profile.follow())
            if sound is not None:
                self._read_sound(sound, len(track.faces))
            self.unchanged.check()
        except (ClipError, ValueError) as error:
            # ValueError: frames and stored track differ in number, the file has just changed.
            problem = error if isinstance(error, ClipError) else ClipError(f"{self.clip}: {error}")
            if frames.path != self.clip.path:  # a temporary file's name means nothing to the user
                text = problem.problem.replace(str(frames), str(self.clip))
                problem = ClipError(text, problem.remedy)
            for role in roles:
                self._fail(role, problem)

    def _sound(self, source: Clip) -> Iterator[Samples]:
        """Yield the sound of *source*, a clip or its AVI; silence is judged in the clip itself."""
        yield self.networks.sound(replace(self.clip, edit=None), source)

    def close(self) -> None:
        """Read no further."""
        for reading in (self.samples, self.pictures):
            if reading is not None:
                reading.close()

    def _fail(self, role: Role, error: ClipError) -> None:
        self.failures[self.clip, role] = error
        self.outputs.pop(role, None)

    def _read_sound(self, samples: Samples, n_frames: int) -> None:
        seconds = len(samples) / audio.SAMPLE_RATE
        if self.inner and len(samples):
            steps = mfcc(samples, steps=self.inner.mfcc_rate)
            count = min(n_frames, len(steps) // STEPS_PER_FRAME) - WINDOW
        else:
            count = min(n_frames, len(samples) // audio.SAMPLES_PER_FRAME) - WINDOW
        problem = ""
        if count < 1:
            problem = f"too short for lip sync: {n_frames} frames and {seconds:.2f} s of sound"
        elif not self.outputs["sync"].frames:
            problem = f"no {WINDOW} frames in a row with a face, in {n_frames}"
        if problem:
            self._fail("sync", ClipError(f"{self.clip}: {problem}", "Give at least one second"))
            return
        if not self.inner:
            steps = mfcc(samples)
        batcher = self.networks.batcher("sync", "sound")
        for start, window in enumerate(sound_windows(steps, count)):
            batcher.add(window, self.sound.expect([start]))

    def store(self) -> bool:
        """Store what is complete; return whether nothing is left."""
        for role, outputs in list(self.outputs.items()):
            if outputs.waiting or (role == "sync" and self.sound.waiting):
                continue
            track = self.tracks[role]
            arrays, frames = outputs.arrays(), np.array(outputs.frames, np.int64)
            if role == "sync":
                kept = int(np.searchsorted(frames, len(self.sound.frames)))  # the last lack sound
                arrays = {**{k: v[:kept] for k, v in arrays.items()}, **self.sound.arrays()}
                frames = frames[:kept]
            between = sum(f is not None for f in track.faces) - sum(track.detected)
            features = Features(arrays, frames, len(track.faces), between)
            self.networks.store.put(self.keys[role], features.to_arrays())
            del self.outputs[role]
        return not self.outputs
