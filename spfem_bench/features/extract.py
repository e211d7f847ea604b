"""Features of many clips in one pass: decode once, find the face once, crop for each network.

Crops of different clips share batches. Every batch has the same size (the last
is filled up), so that a clip's features do not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from spfem_bench import provenance
from spfem_bench.definitions.clips import Clip, Edit
from spfem_bench.definitions.metrics import (
    ArcFaceInput,
    ExpressionInput,
    FaceBoxInput,
    NetworkCard,
    ProfileCard,
    Role,
    SyncChain,
    SyncInput,
)
from spfem_bench.errors import ClipError
from spfem_bench.faces import crop, edits
from spfem_bench.faces.detect import Detector, load_detector
from spfem_bench.faces.track import Face, FaceTrack, follow
from spfem_bench.features.features import Features
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import audio, ffmpeg, video
from spfem_bench.media.chain import CropVideo, carried
from spfem_bench.media.video import Frame
from spfem_bench.networks import syncnet
from spfem_bench.networks.load import BatchFunction, load_network
from spfem_bench.networks.weights import WeightsStore

SOFTWARE = (
    "spfem-bench", "torch", "numpy", "scipy", "opencv-python", "scikit-image", "insightface",
    "onnxruntime", "ncnn", "python-speech-features", "syncnet-python",
)  # fmt: skip
"""Packages whose arithmetic is in the numbers."""


@cache
def software() -> Mapping[str, str]:
    """Return the versions of the packages whose arithmetic is in the numbers."""
    found = provenance.versions(SOFTWARE)
    if found["onnxruntime"] == "absent":  # another package brings the same module
        (gpu,) = provenance.versions(["onnxruntime-gpu"]).values()
        found["onnxruntime"] = f"{gpu} (gpu)"
    return found


Faces = Literal["detect", "aligned"]
Wants = Mapping[Clip, frozenset[Role]]
"""Which networks have to see which clips."""


class Progress:
    """Told how the work goes on; this one keeps silent."""

    def decoded(self, frames: int) -> None:
        """Hear that so many more frames were decoded and searched for faces."""

    def embedded(self, samples: int) -> None:
        """Hear that networks have seen so many more crops or windows."""

    def finished(self, clips: int) -> None:
        """Hear that so many more clips are done."""

    def close(self) -> None:
        """Hear that all is over."""


@dataclass
class Batcher:
    """Collects samples of many clips and runs a function on batches of one fixed size."""

    function: BatchFunction
    size: int
    progress: Progress
    _samples: list[npt.NDArray[np.generic]] = field(default_factory=list)
    _takers: list[Callable[[Mapping[str, npt.NDArray[np.float32]]], None]] = field(
        default_factory=list
    )

    def add(
        self,
        sample: npt.NDArray[np.generic],
        taker: Callable[[Mapping[str, npt.NDArray[np.float32]]], None],
    ) -> None:
        """Add one sample; *taker* gets its outputs once its batch has run."""
        self._samples.append(sample)
        self._takers.append(taker)
        if len(self._samples) == self.size:
            self.flush()

    def flush(self) -> None:
        """Run what is waiting, filled up to the batch size with its last sample."""
        if not self._samples:
            return
        missing = self.size - len(self._samples)
        batch = np.stack(self._samples + self._samples[-1:] * missing)
        outputs = self.function(batch)
        for i, taker in enumerate(self._takers):
            taker({name: rows[i] for name, rows in outputs.items()})
        self.progress.embedded(len(self._samples))
        self._samples.clear()
        self._takers.clear()


@dataclass(frozen=True)
class Extractor:
    """Computes features with the networks of one profile and keeps them in the store.

    Attributes:
        faces: ``detect``, or ``aligned`` for clips that are face crops already.
        batch_size: frames in a batch; moves no score beyond rounding.
    """

    profile: ProfileCard
    weights: WeightsStore
    store: FeatureStore
    faces: Faces = "detect"
    batch_size: int = 32
    device: str = "cpu"
    progress: Progress = field(default_factory=Progress)

    # ---- keys -----------------------------------------------------------------------

    def face_settings(self) -> dict[str, Any]:
        """Return all that decides where the subject is."""
        if self.faces == "aligned":
            return {"faces": "aligned"}
        detector = self.profile.network("detector")
        return {
            "faces": "detect",
            "detector": detector.settings(),
            "follow": self.profile.follow().settings(),
        }

    @staticmethod
    def media_settings() -> dict[str, Any]:
        """Return all that decides what frames and sound come out of a file."""
        return {
            "frame_rate": video.FRAME_RATE,
            "sample_rate": audio.SAMPLE_RATE,
            "scaler": video.SCALER,
            "ffmpeg": ffmpeg.version(),
        }

    def key(self, clip: Clip, role: Role | None) -> dict[str, Any]:
        """Return what a clip's features (or with None, its face track) are made of."""
        unheard = clip.edit is not None and clip.edit.kind == "shifted-audio" and role != "sync"
        if role is None or unheard:  # made without the edit
            clip = replace(clip, edit=None)
        if role != "sync" and clip.audio is not None and not clip.path.is_dir():
            # A video's pictures are the same without its sound file, which may be absent.
            clip = replace(clip, audio=None)
        return {
            "clip": video.content_id(clip),
            "media": self.media_settings(),
            "faces": self.face_settings(),
            "network": self.profile.network(role).settings() if role else None,
            "software": dict(software()),
            "device": self.device.partition(":")[0],
        }

    @cached_property
    def chain(self) -> SyncChain | None:
        """The round trips between a clip and the sync network; None when there are none."""
        contract = self.profile.network("sync").input
        return contract.chain if isinstance(contract, SyncInput) else None

    def load(self, clip: Clip, role: Role) -> Features | None:
        """Return stored features, or None."""
        arrays = self.store.get(self.key(clip, role))
        return None if arrays is None else Features.from_arrays(arrays)

    # ---- networks, loaded when first needed -------------------------------------------

    @cached_property
    def _detector(self) -> Detector:
        card = self.profile.network("detector")
        return load_detector(card, self.weights, self.device)

    @cached_property
    def _ahead(self) -> list[_Ahead]:
        return []

    def _unseen(self, wants: Wants) -> Iterator[Clip]:
        """Yield the clips, without their edits, whose faces are not known yet."""
        for clip, roles in wants.items():
            bare = replace(clip, edit=None)
            try:
                needed = any(
                    not self.store.has(self.key(clip, role))
                    for role in roles
                    if role != "sync" or self.chain is None  # its faces are another video's
                )
                if needed and not self.store.has(self.key(bare, None)):
                    yield bare
            except ClipError:
                continue  # said when it is its turn

    @cached_property
    def _batchers(self) -> dict[tuple[Role, str], Batcher]:
        return {}

    def batcher(self, role: Role, function: str) -> Batcher:
        """Return the batches of one of a network's functions; the network is loaded first."""
        if (role, function) not in self._batchers:
            network = load_network(self.profile.network(role), self.weights, self.device)
            for name, run in network.items():
                size = max(1, self.batch_size // RUN) if name == "frames" else self.batch_size
                self._batchers[role, name] = Batcher(run, size, self.progress)
        return self._batchers[role, function]

    # ---- the pass over clips ------------------------------------------------------------

    def ensure(self, wants: Wants) -> dict[tuple[Clip, Role], ClipError]:
        """Compute and store all wanted features that are not in the store yet.

        Returns:
            The reason for each clip and role that cannot be had.

        Raises:
            WeightsError: a network's weights are missing or wrong.
            StorageError: the store cannot be written.
        """
        failures: dict[tuple[Clip, Role], ClipError] = {}
        open_clips: list[_OpenClip] = []
        self._ahead[:] = [_Ahead(self._unseen(wants), self)] if self.faces == "detect" else []
        for clip, roles in wants.items():
            missing: set[Role] = set()
            for role in sorted(roles):
                try:
                    if self.load(clip, role) is None:
                        missing.add(role)
                except ClipError as error:
                    failures[clip, role] = error
            if missing:
                work = _OpenClip(self, clip, missing, failures)
                work.read()
                open_clips.append(work)
                open_clips = [c for c in open_clips if not c.close()]
            self.progress.finished(1)
        for batcher in self._batchers.values():
            batcher.flush()
        for work in open_clips:
            work.close()
        self._ahead.clear()
        return failures

    def tracked_frames(
        self, clip: Clip, track: FaceTrack, key: Mapping[str, Any] | None = None
    ) -> Iterator[tuple[Frame, Face | None]]:
        """Yield a clip's frames with the subject's face, and fill *track* on the way.

        A stored track is used again; a new one is stored when the clip ends. An edit
        acts on frames whose face is known; the track and *key* are the unedited clip's.
        """
        if clip.edit is not None:
            yield from self._edited(clip, clip.edit, track, key)
            return
        if self.faces == "aligned":
            for picture in video.frames(clip):
                track.faces.append(None)
                yield picture, None
            return
        key = key or self.key(clip, None)
        known = self.store.get(key)
        if known is not None:
            pictures = video.frames(clip)
            found = FaceTrack.from_arrays(known)
            track.faces, track.detected, track.rivals = found.faces, found.detected, found.rivals
            track.check(clip, self.profile.follow())  # before any frame is decoded again
            yield from zip(pictures, track.faces, strict=True)
            return
        ahead = self._ahead[0] if self._ahead else _Ahead([], self)
        seen = ahead.of(clip) or _Ahead([clip], self).of(clip) or iter(())
        yield from follow(seen, self.profile.follow(), track)
        self.store.put(key, track.to_arrays())

    def _edited(
        self, clip: Clip, edit: Edit, track: FaceTrack, key: Mapping[str, Any] | None
    ) -> Iterator[tuple[Frame, Face | None]]:
        bare = replace(clip, edit=None)
        n_frames = 0
        if edit.kind == "frozen-mouth":  # a share of the frames: they are counted first
            n_frames = sum(1 for _ in self.tracked_frames(bare, FaceTrack(), key))
        pairs = self.tracked_frames(bare, track, key)
        yield from edits.frames(pairs, edit, n_frames, aligned=self.faces == "aligned")
        if edit.kind == "time-shuffled":
            block = int(edit.level)
            track.faces = list(edits.shuffled(track.faces, block))
            track.detected = list(edits.shuffled(track.detected, block))


class _Ahead:
    """Finds the faces of clips, one clip after the other, in batches of one size.

    Where a clip ends within a batch, the next clips fill it up: their first frames wait here
    with their faces until those clips are asked for.

    Args:
        clips: without edits, in the order in which they will be asked for.
        x: says which detector, and how large a batch is.
    """

    def __init__(self, clips: Iterable[Clip], x: Extractor) -> None:
        self._clips = dict.fromkeys(clips)
        self._found = groupby(self._detected(list(self._clips), x), key=lambda found: found[0])

    def of(self, clip: Clip) -> Iterator[tuple[Frame, list[Face]]] | None:
        """Return a clip's frames with their faces, once; None when it was not announced."""
        if clip not in self._clips:
            return None
        for owner, found in self._found:
            del self._clips[owner]
            if owner == clip:
                return self._frames(found)
        return None  # a clip without a frame

    @staticmethod
    def _frames(found: Iterator[_Found]) -> Iterator[tuple[Frame, list[Face]]]:
        for _, frame, faces in found:
            if isinstance(frame, ClipError):
                raise frame
            yield frame, faces

    @staticmethod
    def _detected(clips: list[Clip], x: Extractor) -> Iterator[_Found]:
        source = ((clip, frame) for clip in clips for frame in _frames_or_error(clip))
        detector = x._detector
        size = max(1, x.batch_size // DETECTED) if detector.batched else 1
        while batch := list(islice(source, size)):
            frames = [frame for _, frame in batch if not isinstance(frame, ClipError)]
            filled = frames + frames[-1:] * (size - len(frames))
            faces = iter(detector.many(filled) if filled else ())
            for clip, frame in batch:
                yield clip, frame, [] if isinstance(frame, ClipError) else next(faces)


_Found = tuple[Clip, "Frame | ClipError", list[Face]]

DETECTED = 4
"""A detector's batches have a quarter of the frames: it sees them whole, not crops."""


def _frames_or_error(clip: Clip) -> Iterator[Frame | ClipError]:
    """Yield a clip's frames, and in the end what is wrong with it: it may not be its turn yet."""
    try:
        yield from video.frames(clip)
    except ClipError as error:
        yield error


RUN = 16
"""Windows per sample of SyncNet's lip tower: runs of 20 frames, five per window."""


class _Outputs:
    """Rows that come back from batches, in the order of their frames."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.rows: dict[str, list[npt.NDArray[np.float32]]] = {}
        self.waiting = 0

    def expect(self, frames: list[int]) -> Callable[[Mapping[str, npt.NDArray[np.float32]]], None]:
        """Return the taker for a sample whose outputs have one row for each of *frames*."""
        self.frames += frames
        self.waiting += 1
        count = len(frames)

        def take(outputs: Mapping[str, npt.NDArray[np.float32]]) -> None:
            self.waiting -= 1
            for name, rows in outputs.items():
                self.rows.setdefault(name, []).append(
                    rows.reshape(-1, rows.shape[-1])[:count].copy()
                )

        return take

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Join the rows, which are given up one output at a time to save memory."""
        return {name: np.concatenate(self.rows.pop(name)) for name in list(self.rows)}


class _OpenClip:
    """One clip on its way through the networks."""

    def __init__(
        self,
        extractor: Extractor,
        clip: Clip,
        roles: set[Role],
        failures: dict[tuple[Clip, Role], ClipError],
    ) -> None:
        self.extractor, self.clip, self.failures = extractor, clip, failures
        # Now: should the file change while it is read, nothing is stored under the new bytes.
        self.keys = {role: extractor.key(clip, role) for role in roles}
        self.track_key = extractor.key(clip, None)
        self.roles = roles
        self.outputs: dict[Role, _Outputs] = {}
        self.sound = _Outputs()
        self.tracks: dict[Role, FaceTrack] = {}

    def read(self) -> None:
        """Send the clip's frames and sound through the networks; note what fails."""
        chain = self.extractor.chain
        if "sync" not in self.roles or chain is None:
            self._read(self.roles, self.clip, self.clip, self.track_key)
            return
        self._read(self.roles - {"sync"}, self.clip, self.clip, self.track_key)
        steps = chain.frame_settings()
        key = {**self.track_key, **({"chain": steps} if steps else {})}
        try:
            with carried(replace(self.clip, edit=None), chain) as way:
                seen = replace(way.seen, edit=self.clip.edit)
                self._read({"sync"}, seen, way.heard, key, way.folder)
        except ClipError as error:
            self._fail("sync", error)

    def _read(
        self,
        roles: set[Role],
        seen: Clip,
        heard: Clip,
        track_key: Mapping[str, Any],
        folder: Path | None = None,
    ) -> None:
        """Send frames and sound through networks that see and hear the same."""
        x = self.extractor
        consumers: dict[Role, _Consumer] = {}
        track, samples = FaceTrack(), None
        if "sync" in roles:
            try:
                samples = edits.sound(audio.samples(replace(heard, edit=None)), self.clip)
            except ClipError as error:
                self.failures[self.clip, "sync"] = error
                roles = roles - {"sync"}
        if not roles:
            return
        self.tracks |= dict.fromkeys(roles, track)
        try:
            for role in sorted(roles):
                outputs = self.outputs.setdefault(role, _Outputs())
                consumers[role] = _consumer(x, role, outputs, folder)
            for index, (picture, face) in enumerate(x.tracked_frames(seen, track, track_key)):
                if face is not None or x.faces == "aligned":
                    for consumer in consumers.values():
                        consumer.push(index, picture, face)
                x.progress.decoded(1)
            for consumer in consumers.values():
                consumer.finish()
            if x.faces == "detect":
                track.check(self.clip, x.profile.follow())
            if samples is not None:
                self._read_sound(samples, len(track.faces))
        except (ClipError, ValueError) as error:
            # ValueError: frames and stored track differ in number, the file has just changed.
            problem = error if isinstance(error, ClipError) else ClipError(f"{self.clip}: {error}")
            if seen.path != self.clip.path:  # the user knows the clip, not what became of it
                said = problem.problem.replace(str(seen), str(self.clip))
                problem = ClipError(said, problem.remedy)
            for role in roles:
                self._fail(role, problem)

    def _fail(self, role: Role, error: ClipError) -> None:
        self.failures[self.clip, role] = error
        self.outputs.pop(role, None)

    def _read_sound(self, samples: npt.NDArray[np.int16], n_frames: int) -> None:
        seconds = len(samples) / audio.SAMPLE_RATE
        count = min(n_frames, len(samples) // audio.SAMPLES_PER_FRAME) - syncnet.WINDOW
        problem = ""
        if count < 1:
            problem = f"too short for lip sync: {n_frames} frames and {seconds:.2f} s of sound"
        elif not self.outputs["sync"].frames:
            problem = f"no {syncnet.WINDOW} frames in a row with a face, in {n_frames}"
        if problem:
            self._fail("sync", ClipError(f"{self.clip}: {problem}", "Give at least one second"))
            return
        batcher = self.extractor.batcher("sync", "sound")
        windows = syncnet.sound_windows(syncnet.mfcc(samples), count)
        for start, window in enumerate(windows):
            batcher.add(window, self.sound.expect([start]))

    def close(self) -> bool:
        """Store what is complete; say whether nothing is left to wait for."""
        for role, outputs in list(self.outputs.items()):
            if outputs.waiting or (role == "sync" and self.sound.waiting):
                continue
            track = self.tracks[role]
            arrays, frames = outputs.arrays(), np.array(outputs.frames, np.int64)
            if role == "sync":
                spoken = self.sound.arrays()
                kept = int(np.searchsorted(frames, len(self.sound.frames)))  # the last lack sound
                arrays = {**{k: v[:kept] for k, v in arrays.items()}, **spoken}
                frames = frames[:kept]
            between = sum(f is not None for f in track.faces) - sum(track.detected)
            features = Features(arrays, frames, len(track.faces), between)
            self.extractor.store.put(self.keys[role], features.to_arrays())
            del self.outputs[role]
        return not self.outputs


class _Consumer(Protocol):
    def push(self, index: int, picture: Frame, face: Face | None) -> None: ...

    def finish(self) -> None: ...


def _consumer(x: Extractor, role: Role, outputs: _Outputs, folder: Path | None) -> _Consumer:
    card = x.profile.network(role)
    if isinstance(card.input, SyncInput):
        return _SyncConsumer(x, card.input, outputs, folder)
    return _FaceConsumer(x.batcher(role, "crops"), card, outputs)


class _FaceConsumer:
    """One crop per frame: identity and expression networks."""

    def __init__(self, batcher: Batcher, card: NetworkCard, outputs: _Outputs) -> None:
        self.batcher, self.card, self.outputs = batcher, card, outputs

    def push(self, index: int, picture: Frame, face: Face | None) -> None:
        if isinstance(self.card.input, ArcFaceInput):
            sample = crop.arcface(picture, face, self.card.input)
        elif isinstance(self.card.input, ExpressionInput):
            sample = crop.expression(picture, face, self.card.input)
        elif isinstance(self.card.input, FaceBoxInput):
            sample = crop.box(picture, face, self.card.input)
        else:
            raise TypeError(f"{self.card.path}: no such crop for frames")
        self.batcher.add(sample, self.outputs.expect([index]))

    def finish(self) -> None:
        """Nothing is held back."""


class _SyncConsumer:
    """Runs of frames for SyncNet's lip tower.

    Args:
        folder: for the crops' video, where the card has a chain.
    """

    def __init__(
        self, x: Extractor, settings: SyncInput, outputs: _Outputs, folder: Path | None
    ) -> None:
        self.folder = folder
        self.crops = settings.chain.crops if settings.chain else "as-cut"
        self.video: CropVideo | None = None
        self.batcher = x.batcher("sync", "frames")
        self.cropper = crop.SyncCropper(settings)
        self.size = settings.size
        self.outputs = outputs
        self.run: list[tuple[int, Frame]] = []

    def push(self, index: int, picture: Frame, face: Face | None) -> None:
        if face is None:  # aligned input: the frame is the crop
            self._film(index, crop.resize(picture, self.size))
            return
        for number, cut in self.cropper.push(index, picture, face):
            self._film(number, cut)

    def _film(self, index: int, cut: Frame) -> None:
        if self.crops == "as-cut" or self.folder is None:
            self._take(index, cut)
            return
        if self.video and index != self.video.indices[-1] + 1:
            self._develop()
        if self.video is None:
            self.video = CropVideo(self.folder, self.crops, index, self.size)
        self.video.add(index, cut)

    def _develop(self) -> None:
        if self.video:
            for number, cut in self.video.read():
                self._take(number, cut)
        self.video = None

    def _take(self, index: int, cut: Frame) -> None:
        if self.run and index != self.run[-1][0] + 1:
            self._send()
            self.run.clear()
        self.run.append((index, cut))
        if len(self.run) == RUN + syncnet.WINDOW - 1:
            self._send()
            self.run = self.run[RUN:]

    def _send(self) -> None:
        windows = [index for index, _ in self.run[: 1 - syncnet.WINDOW]]
        if windows:
            cuts = [cut for _, cut in self.run]
            cuts += cuts[-1:] * (RUN + syncnet.WINDOW - 1 - len(cuts))
            self.batcher.add(np.stack(cuts), self.outputs.expect(windows))

    def finish(self) -> None:
        """End a track: the crops held back by the smoothing come out."""
        for number, cut in self.cropper.finish():
            self._film(number, cut)
        self._develop()
        self._send()
        self.run.clear()
