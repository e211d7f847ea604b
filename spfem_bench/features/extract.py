"""Features of many clips in one pass: decode once, find the face once, crop for each network.

Crops of different clips share batches. Every batch has the same size (the last
is filled up), so that a clip's features do not depend on its neighbours.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
import numpy.typing as npt

from spfem_bench import provenance
from spfem_bench.definitions.clips import Clip, Edit
from spfem_bench.definitions.networks import (
    ArcFaceInput,
    ExpressionInput,
    FaceBoxInput,
    NetworkCard,
    ProfileCard,
    Role,
    SyncChain,
    SyncInput,
)
from spfem_bench.errors import CardError, ClipError
from spfem_bench.faces import crop, edits, exact
from spfem_bench.faces.detect import Detector, load_detector
from spfem_bench.faces.track import Face, FaceTrack, follow
from spfem_bench.features.ahead import Ahead, begun
from spfem_bench.features.batches import FRAMES, Batcher, Outputs
from spfem_bench.features.features import Features
from spfem_bench.features.search import Search
from spfem_bench.features.software import libraries
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import audio, ffmpeg, video
from spfem_bench.media.chain import CropVideo, carried
from spfem_bench.media.mfcc import WINDOW, mfcc, sound_windows
from spfem_bench.media.video import Frame, Unchanged
from spfem_bench.networks.load import Precision, load_network, precision_of
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import SILENT, Progress

Faces = Literal["detect", "aligned"]
Wants = Mapping[Clip, frozenset[Role]]
"""Which networks have to see which clips."""


@dataclass(frozen=True)
class Extractor:
    """Computes features with the networks of one profile and keeps them in the store.

    Attributes:
        faces: ``detect``, or ``aligned`` for clips that are face crops already.
        batch_size: frames in a batch; moves no score beyond rounding. When None, 32 on a
            processor, and on a GPU what fits well.
        precision: what torch's networks compute in.
        hwaccel: the hardware decoder, if one is wanted.
        progress: receives the phases ``clips``, ``decode`` and ``networks``.

    Raises:
        CardError: no such precision, or float16 is asked of a processor.
    """

    profile: ProfileCard
    weights: WeightsStore
    store: FeatureStore
    faces: Faces = "detect"
    batch_size: int | None = None
    device: str = "cpu"
    precision: Precision = "float32"
    hwaccel: str | None = None
    progress: Progress = field(default=SILENT, compare=False)

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            allowed = ", ".join(get_args(Precision))
            raise CardError(f"no precision '{self.precision}'", f"Allowed: {allowed}")
        if self.precision == "float16" and self.device == "cpu":
            raise CardError("float16 is not for the processor", "Allowed there: float32, bfloat16")

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

    def precision_settings(self, network: NetworkCard) -> dict[str, Any]:
        """Return what a network's features are computed in; nothing when in full."""
        precision = precision_of(network, self.precision)
        return {"precision": precision} if precision != "float32" else {}

    def media_settings(self) -> dict[str, Any]:
        """Return all that decides what frames and sound come out of a file."""
        return {
            "frame_rate": video.FRAME_RATE,
            "sample_rate": audio.SAMPLE_RATE,
            "scaler": ffmpeg.SCALER,
            "ffmpeg": ffmpeg.version(),
            **({"hwaccel": self.hwaccel} if self.hwaccel else {}),
        }

    def software(self, network: NetworkCard | None, clips: Iterable[Clip] = ()) -> dict[str, str]:
        """Return the versions of what a network's features are computed with, beside ffmpeg.

        Args:
            network: None for the face track alone.
            clips: those whose own format needs a library.
        """
        detector = self.profile.network("detector") if self.faces == "detect" else None
        return provenance.versions(libraries(network, detector).union(*map(video.libraries, clips)))

    def key(self, clip: Clip, role: Role | None) -> dict[str, Any]:
        """Return what a clip's features (or with None, its face track) are made of."""
        unheard = clip.edit is not None and clip.edit.kind == "shifted-audio" and role != "sync"
        if role is None or unheard:  # made without the edit
            clip = replace(clip, edit=None)
        if role != "sync" and clip.audio is not None and not clip.path.is_dir():
            # A video's pictures are the same without its sound file, which may be absent.
            clip = replace(clip, audio=None)
        key: dict[str, Any] = {"clip": video.content_id(clip), "made_by": self._made_by(role)}
        if used := video.libraries(clip):
            key["read_by"] = provenance.versions(used)
        return key

    def _made_by(self, role: Role | None) -> str:
        """Return a hash of all but the clip that features are made of: the same for all clips."""
        if role not in self._made:
            network = self.profile.network(role) if role else None
            everything = {
                "media": self.media_settings(),
                "faces": self.face_settings(),
                "network": network and network.settings(),
                **(self.precision_settings(network) if network else {}),
                "software": self.software(network),
                "device": self.device.partition(":")[0],
            }
            text = json.dumps(everything, sort_keys=True)
            self._made[role] = hashlib.sha256(text.encode()).hexdigest()
        return self._made[role]

    @cached_property
    def _made(self) -> dict[Role | None, str]:
        return {}

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

    def _unseen(self, lacking: Mapping[Clip, set[Role]]) -> Iterator[Clip]:
        """Yield the clips, without their edits, whose faces are not known yet."""
        for clip, roles in lacking.items():
            if roles == {"sync"} and self.chain is not None:
                continue  # its faces are another video's
            bare = replace(clip, edit=None)
            try:
                if not self.store.has(self.key(bare, None)):
                    yield bare
            except ClipError:
                continue  # said when it is its turn

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
            for name, run in network.items():
                each = RUN if name == "frames" else 1
                size = max(1, self.batch_size // each) if self.batch_size else None
                self._batchers[role, name] = Batcher(
                    run,
                    size,
                    self._runner,
                    partial(self.progress.advance, "networks"),
                    self.device,
                    each,
                )
        return self._batchers[role, function]

    # ---- the pass over clips ------------------------------------------------------------

    def ensure(self, wants: Wants) -> dict[tuple[Clip, Role], ClipError]:
        """Compute and store all wanted features that are not in the store yet.

        While networks see one clip, the next ones are decoded and searched for faces.

        Returns:
            The reason for each clip and role that cannot be had.

        Raises:
            WeightsError: a network's weights are missing or wrong.
            StorageError: the store cannot be written.
        """
        failures: dict[tuple[Clip, Role], ClipError] = {}
        lacking = self._lacking(wants, failures)
        if lacking:
            self.store.check_writable()
        search = self._search(self._unseen(lacking) if self.faces == "detect" else ())
        waiting: list[_OpenClip] = []
        try:
            with closing(begun(self._opened(lacking, search, failures), AHEAD)) as opened:
                for work in opened:
                    with closing(work):
                        work.read()
                    waiting.append(work)
                    waiting = [c for c in waiting if not c.store()]
                    self.progress.advance("clips")
            for batcher in self._batchers.values():
                batcher.flush()
            for work in waiting:
                work.store()
        finally:  # after an error too: nothing goes on, and nothing is left for the next call
            search.close()
            for batcher in self._batchers.values():
                batcher.drop()
        return failures

    def _search(self, clips: Iterable[Clip]) -> Search:
        return Search(clips, self.frames, lambda: self._detector, self.batch_size or FRAMES)

    def _lacking(
        self, wants: Wants, failures: dict[tuple[Clip, Role], ClipError]
    ) -> dict[Clip, set[Role]]:
        """Return what is not in the store, whole; note where that cannot be known."""
        lacking: dict[Clip, set[Role]] = {}
        # One by one: threads would spend on Python's lock what they save in hashing.
        for clip, role in ((clip, role) for clip, roles in wants.items() for role in sorted(roles)):
            try:
                if self.store.get(self.key(clip, role)) is None:
                    lacking.setdefault(clip, set()).add(role)
            except ClipError as error:
                failures[clip, role] = error
        self.progress.advance("clips", len(wants) - len(lacking))
        return lacking

    def _opened(
        self,
        lacking: Mapping[Clip, set[Role]],
        search: Search,
        failures: dict[tuple[Clip, Role], ClipError],
    ) -> Iterator[_OpenClip]:
        """Yield the clips that lack features; reading them has begun."""
        for clip, roles in lacking.items():
            try:
                # Meanwhile another clip's may have been stored, which are this one's too.
                missing = {r for r in roles if not self.store.has(self.key(clip, r))}
                if missing:
                    yield _OpenClip(self, clip, missing, search, failures)
                    continue
            except ClipError as error:  # its file is gone since
                failures |= {(clip, role): error for role in roles}
            self.progress.advance("clips")

    def frames(self, clip: Clip) -> Iterator[Frame]:
        """Yield a clip's frames, see :func:`spfem_bench.media.video.frames`."""
        return video.frames(clip, self.hwaccel)

    def tracked_frames(
        self,
        clip: Clip,
        track: FaceTrack,
        key: Mapping[str, Any] | None = None,
        unchanged: Unchanged | None = None,
        *,
        begun: Iterator[Frame] | None = None,
        search: Search | None = None,
    ) -> Iterator[tuple[Frame, Face | None]]:
        """Yield a clip's frames with the subject's face, and fill *track* on the way.

        A stored track is used again; a new one is stored when the clip ends. An edit
        acts on frames whose face is known; the track and *key* are the unedited clip's.

        Args:
            clip: edited or not.
            track: empty.
            key: of the track, when it is known.
            unchanged: the clip's files, noted before the key was made.
            begun: the unedited clip's frames, when they are being read already.
            search: that finds the unedited clip's faces already.
        """
        unchanged = unchanged or Unchanged.since(clip)
        key = key or self.key(clip, None)
        if clip.edit is not None:
            yield from self._edited(clip, clip.edit, track, key, unchanged, begun, search)
            return
        if self.faces == "aligned":
            for picture in begun or self.frames(clip):
                track.faces.append(None)
                yield picture, None
            return
        known = self.store.get(key)
        if known is not None:
            found = FaceTrack.from_arrays(known)
            track.faces, track.detected, track.rivals = found.faces, found.detected, found.rivals
            track.check(clip, self.profile.follow())  # before any frame is decoded again
            yield from zip(begun or self.frames(clip), track.faces, strict=True)
            return
        own = None
        seen = search and search.of(clip)
        try:
            if not seen:
                own = self._search([clip])
                seen = own.of(clip)
            if not seen:
                raise ClipError(f"{clip}: changed while it was read", "Run the command again")
            yield from follow(seen, self.profile.follow(), track)
        finally:
            if own:
                own.close()
        unchanged.check()
        self.store.put(key, track.to_arrays())

    def _edited(
        self,
        clip: Clip,
        edit: Edit,
        track: FaceTrack,
        key: Mapping[str, Any],
        unchanged: Unchanged,
        begun: Iterator[Frame] | None,
        search: Search | None,
    ) -> Iterator[tuple[Frame, Face | None]]:
        bare = replace(clip, edit=None)
        n_frames = 0
        if edit.kind == "frozen-mouth":  # a share of the frames: they are counted first
            known = self.store.get(key) if self.faces == "detect" else None
            if known is not None:
                n_frames = len(known["detected"])
            else:
                frames = self.tracked_frames(
                    bare, FaceTrack(), key, unchanged, begun=begun, search=search
                )
                n_frames, begun = sum(1 for _ in frames), None
        pairs = self.tracked_frames(bare, track, key, unchanged, begun=begun, search=search)
        yield from edits.frames(pairs, edit, n_frames, aligned=self.faces == "aligned")
        if edit.kind == "time-shuffled":
            block = int(edit.level)
            track.faces = list(edits.shuffled(track.faces, block))
            track.detected = list(edits.shuffled(track.detected, block))


AHEAD = 2
"""Clips that are being read while the networks see another one."""

RUN = 4
"""Windows per sample of a lip tower, in eight frames: of a clip's last run three are made in vain
at most."""


class _OpenClip:
    """One clip on its way through the networks."""

    def __init__(
        self,
        extractor: Extractor,
        clip: Clip,
        roles: set[Role],
        search: Search,
        failures: dict[tuple[Clip, Role], ClipError],
    ) -> None:
        self.extractor, self.clip, self.search, self.failures = extractor, clip, search, failures
        # In this order: hashed and decoded are the same bytes if the state is the same at the end.
        self.unchanged = Unchanged.since(clip)
        self.keys = {role: extractor.key(clip, role) for role in roles}
        self.track_key = extractor.key(clip, None)
        self.roles = roles
        self.outputs: dict[Role, Outputs] = {}
        self.sound = Outputs()
        self.tracks: dict[Role, FaceTrack] = {}
        # Sound, and frames in which no face has to be searched for, begin to be read now.
        bare, roundabout = replace(clip, edit=None), "sync" in roles and extractor.chain is not None
        self.samples = Ahead(self._sound(bare)) if "sync" in roles and not roundabout else None
        seen = roles - {"sync"} if roundabout else roles
        known = extractor.faces == "aligned" or extractor.store.has(self.track_key)
        self.pictures = Ahead(extractor.frames(bare), _weight) if seen and known else None

    def read(self) -> None:
        """Send the clip's frames and sound through the networks; note what fails."""
        chain, roles, own = self.extractor.chain, self.roles, self.clip
        if "sync" not in roles or chain is None:
            self._read(roles, own, self.track_key, self.samples, self.pictures)
            return
        self._read(roles - {"sync"}, own, self.track_key, None, self.pictures)
        steps = chain.frame_settings()
        key = {**self.track_key, **({"chain": steps} if steps else {})}
        try:
            with carried(replace(own, edit=None), chain) as way:
                seen, samples = replace(way.seen, edit=own.edit), self._sound(way.heard)
                self._read({"sync"}, seen, key, samples, None, way.folder)
        except ClipError as error:
            self._fail("sync", error)

    def _read(
        self,
        roles: set[Role],
        seen: Clip,
        track_key: Mapping[str, Any],
        samples: Iterator[Samples] | None,
        pictures: Iterator[Frame] | None,
        folder: Path | None = None,
    ) -> None:
        """Send frames and sound through networks that see and hear the same."""
        x = self.extractor
        consumers: dict[Role, _Consumer] = {}
        track, sound = FaceTrack(), None
        if samples is not None:
            try:
                sound = edits.sound(next(samples), self.clip)
            except ClipError as error:
                self.failures[self.clip, "sync"] = error
                roles = roles - {"sync"}
        if not roles:
            return
        self.tracks |= dict.fromkeys(roles, track)
        try:
            for role in sorted(roles):
                outputs = self.outputs.setdefault(role, Outputs())
                consumers[role] = _consumer(x, role, outputs, folder)
            pairs = x.tracked_frames(
                seen, track, track_key, self.unchanged, begun=pictures, search=self.search
            )
            for index, (picture, face) in enumerate(pairs):
                if face is not None or x.faces == "aligned":
                    for consumer in consumers.values():
                        consumer.push(index, picture, face)
                x.progress.advance("decode")
            for consumer in consumers.values():
                consumer.finish()
            if x.faces == "detect":
                track.check(self.clip, x.profile.follow())
            if sound is not None:
                self._read_sound(sound, len(track.faces))
            self.unchanged.check()
        except (ClipError, ValueError) as error:
            # ValueError: frames and stored track differ in number, the file has just changed.
            problem = error if isinstance(error, ClipError) else ClipError(f"{self.clip}: {error}")
            if seen.path != self.clip.path:  # the user knows the clip, not what became of it
                said = problem.problem.replace(str(seen), str(self.clip))
                problem = ClipError(said, problem.remedy)
            for role in roles:
                self._fail(role, problem)

    def _sound(self, heard: Clip) -> Iterator[Samples]:
        """Yield a clip's sound, once; *heard* may be the AVI that it was written to.

        The sound is judged as it is in the clip: an AVI's encoder rounds, and an edit such as
        shifted-audio adds silence on purpose.
        """
        bare, contract = replace(self.clip, edit=None), self.extractor.profile.network("sync").input
        sound = audio.samples(bare)
        if isinstance(contract, SyncInput):
            audio.check_audible(bare, sound, contract.audible)
        yield sound if heard == bare else audio.samples(heard)

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
        count = min(n_frames, len(samples) // audio.SAMPLES_PER_FRAME) - WINDOW
        problem = ""
        if count < 1:
            problem = f"too short for lip sync: {n_frames} frames and {seconds:.2f} s of sound"
        elif not self.outputs["sync"].frames:
            problem = f"no {WINDOW} frames in a row with a face, in {n_frames}"
        if problem:
            self._fail("sync", ClipError(f"{self.clip}: {problem}", "Give at least one second"))
            return
        batcher = self.extractor.batcher("sync", "sound")
        windows = sound_windows(mfcc(samples), count)
        for start, window in enumerate(windows):
            batcher.add(window, self.sound.expect([start]))

    def store(self) -> bool:
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


Samples = npt.NDArray[np.int16]


def _weight(frame: Frame) -> int:
    return frame.nbytes


class _Consumer(Protocol):
    def push(self, index: int, picture: Frame, face: Face | None) -> None: ...

    def finish(self) -> None: ...


def _consumer(x: Extractor, role: Role, outputs: Outputs, folder: Path | None) -> _Consumer:
    card = x.profile.network(role)
    if isinstance(card.input, SyncInput):
        return _SyncConsumer(x, card.input, outputs, folder)
    return _FaceConsumer(x.batcher(role, "crops"), card, outputs)


class _FaceConsumer:
    """One crop per frame: identity and expression networks."""

    def __init__(self, batcher: Batcher, card: NetworkCard, outputs: Outputs) -> None:
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
        self, x: Extractor, settings: SyncInput, outputs: Outputs, folder: Path | None
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
            self._film(index, exact.resize(picture, self.size))
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
        """End a track: the crops held back by the smoothing come out."""
        for number, cut in self.cropper.finish():
            self._film(number, cut)
        self._develop()
        self._send()
        self.run.clear()
