"""The world of puppets: its speakers, their sentences, and every take of it.

A version, raised whenever any take would change, and a seed decide everything. It mirrors MEAD:
six test speakers, a cross-ID map, thirty sentences, three of them in every emotion.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Literal, TypeVar

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.errors import CardError, unknown_name
from spfem_bench.media.audio import SAMPLES_PER_FRAME
from spfem_bench.media.video import FRAME_RATE, Frame
from spfem_bench.puppets import face, speech
from spfem_bench.puppets.draw import OVERSAMPLING, Painter
from spfem_bench.puppets.voice import Voice, synthesise

VERSIONS = (1,)
Split = Literal["train", "validation", "test"]
_SPLITS: tuple[tuple[Split, int], ...] = (("test", 6), ("validation", 6), ("train", 240))
_REACH = 1.64  # half of a frame, in half face widths


@dataclass(frozen=True)
class Speaker:
    """One puppet; ``liveliness`` of the head and ``rate`` of the speech are 1 on average."""

    name: str
    split: Split
    look: face.Look
    voice: Voice
    liveliness: float
    rate: float


@dataclass(frozen=True)
class World:
    """All puppets of a version and seed, frames of *size* pixels; raises CardError if refused."""

    version: int = 1
    seed: int = 8
    size: int = 128

    def __post_init__(self) -> None:
        if self.version not in VERSIONS:
            raise unknown_name("world version", str(self.version), map(str, VERSIONS))
        if type(self.seed) is not int or not 0 <= self.seed < 2**32:
            problem = f"the world's seed is {self.seed!r}"
            raise CardError(problem, "Give a whole number from 0 to 4294967295")
        if type(self.size) is not int or not 64 <= self.size <= 1024 or self.size % 2:
            problem = f"the size of a frame is {self.size!r} pixels"
            raise CardError(problem, "Give an even number from 64 to 1024")

    @property
    def name(self) -> str:
        """The folder's name: version, seed and size."""
        return f"puppets-v{self.version}-seed{self.seed}-{self.size}px"

    @property
    def sentences(self) -> tuple[speech.Sentence, ...]:
        """The thirty sentences."""
        return speech.SENTENCES

    @cached_property
    def speakers(self) -> tuple[Speaker, ...]:
        """All puppets: test, then validation, then training."""
        speakers: list[Speaker] = []
        for split, count in _SPLITS:
            for _ in range(count):
                name = f"P{len(speakers) + 1:03d}"
                rng = self._rng("speaker", name)
                look = face.draw_look(rng)
                voice = _draw_voice(rng, feminine=look.jaw < 1)
                liveliness, rate = float(rng.uniform(0.7, 1.4)), float(rng.uniform(0.92, 1.1))
                speakers.append(Speaker(name, split, look, voice, liveliness, rate))
        return tuple(speakers)

    def speaker(self, name: str) -> Speaker:
        """Return a puppet by name; raises UnknownNameError."""
        return _named("speaker", name, self.speakers)

    def sentence(self, name: str) -> speech.Sentence:
        """Return a sentence by its number, such as ``"007"``; raises UnknownNameError."""
        return _named("sentence", name, self.sentences)

    def recordings(self, split: Split) -> Iterator[tuple[str, str, str]]:
        """Yield the recordings of a split's speakers: speaker, emotion, sentence.

        As in MEAD, training speakers speak three sentences in every emotion, each other in one and
        neutrally; the others speak the test sentences, in every emotion.
        """
        for number, speaker in enumerate(s for s in self.speakers if s.split == split):
            for index, sentence in enumerate(self.sentences):
                if (sentence.split == "test") != (split != "train"):
                    continue
                alone = EMOTIONS[1 + (number + index) % (len(EMOTIONS) - 1)]
                everywhere = sentence.paired or sentence.split == "test"
                for emotion in EMOTIONS if everywhere else ("neutral", alone):
                    yield speaker.name, emotion, sentence.name

    def take(self, speaker: str, emotion: str, sentence: str, intensity: float = 1.0) -> Take:
        """Return one performance, intensity 0 to 1; raises UnknownNameError or CardError."""
        if emotion not in face.EXPRESSIONS:
            raise unknown_name("emotion", emotion, face.EXPRESSIONS)
        if not 0 <= intensity <= 1:
            raise CardError(f"the intensity is {intensity}", "Give a number from 0 to 1")
        return Take(self, self.speaker(speaker), emotion, self.sentence(sentence), float(intensity))

    def _rng(self, *parts: str) -> np.random.Generator:
        words = [zlib.crc32(part.encode()) for part in parts]
        return np.random.default_rng([self.version, self.seed, *words])


_Named = TypeVar("_Named", Speaker, speech.Sentence)


def _named(kind: str, name: str, things: Sequence[_Named]) -> _Named:
    by_name = {thing.name: thing for thing in things}
    if name not in by_name:
        raise unknown_name(kind, name, by_name)
    return by_name[name]


def _draw_voice(rng: np.random.Generator, *, feminine: bool) -> Voice:
    middle, scale = (195.0, 1.12) if feminine else (112.0, 0.97)
    return Voice(
        pitch=float(middle * np.exp(np.clip(rng.normal(), -2, 2) * 0.12)),
        formant_scale=float(scale * np.exp(np.clip(rng.normal(), -2, 2) * 0.035)),
        breathiness=float(rng.uniform(0.04, 0.22)),
        tilt=float(rng.uniform(2, 7)),
        jitter=float(rng.uniform(0.004, 0.016)),
    )


def cross_id(world: World) -> dict[str, str]:
    """Return the speaker whose emotion each test speaker takes: a ring, as SSERD's cross-ID."""
    names = [s.name for s in world.speakers if s.split == "test"]
    return {name: names[k - 1] for k, name in enumerate(names)}


def items(world: World, setting: Literal["inter-id", "cross-id"]) -> Iterator[dict[str, str]]:
    """Yield the rows of a demo protocol's list: six test speakers x seven emotions.

    The test sentences take turns, the reference has another one; :func:`cross_id` is its speaker.
    """
    sentences = [s.name for s in world.sentences if s.split == "test"]
    others = cross_id(world)
    for i, speaker in enumerate(others):
        for j, emotion in enumerate(EMOTIONS):
            spoken, other = (sentences[(i + j + k) % len(sentences)] for k in (0, 1))
            yield {
                "id": f"{speaker}_{emotion}_{spoken}",
                "speaker": speaker,
                "emotion": emotion,
                "sentence": spoken,
                "reference_speaker": speaker if setting == "inter-id" else others[speaker],
                "reference_sentence": other,
            }


@dataclass(frozen=True)
class Take:
    """One performance with its exact truth; chance is the same for every intensity.

    With ``performance``, everything except the face's emotion comes from that take.
    """

    world: World
    speaker: Speaker
    emotion: str
    sentence: speech.Sentence
    intensity: float
    performance: Take | None = None

    def with_face(self, emotion: str, intensity: float = 1.0) -> Take:
        """Return this performance with another emotion on the face; else only grain differs."""
        other = self.world.take(self.speaker.name, emotion, self.sentence.name, intensity)
        return replace(other, performance=self.performance or self)

    @cached_property
    def manner(self) -> speech.Manner:
        """The change of the speech by the emotion."""
        spoken = self.performance or self
        return speech.manner(spoken.emotion, spoken.intensity)

    @cached_property
    def phones(self) -> tuple[speech.Phone, ...]:
        """The reading; phone k is the same in every reading of a sentence."""
        rng = self._rng("timing")
        return speech.time_phones(self.sentence, self.manner, self.speaker.rate, rng)

    @cached_property
    def n_frames(self) -> int:
        """Frames, at 25 a second."""
        return round(self.phones[-1].end * FRAME_RATE)

    def sound(self) -> npt.NDArray[np.int16]:
        """Return the voice: int16 (n_frames * 640,), 16 kHz; sample 640 t belongs to frame t."""
        count = self.n_frames * SAMPLES_PER_FRAME
        return synthesise(self.phones, self.speaker.voice, self.manner, count, self._rng("voice"))

    def frame(self, index: int) -> Frame:
        """Draw one frame: uint8 (size, size, 3), RGB."""
        grain = np.random.default_rng([int(self._rng("grain").integers(1 << 32)), index])
        flicker = 1 + 0.012 * np.sin(index / 7 + self._light[3])
        return self._painter.paint(self.geometry(index), self._light[2] * flicker, grain)

    def frames(self) -> Iterator[Frame]:
        """Draw all frames."""
        return map(self.frame, range(self.n_frames))

    def geometry(self, index: int) -> face.Geometry:
        """Lay out one frame, in pixels of the oversampled picture."""
        x, y, yaw, pitch, roll = map(float, self._head[index])
        side = self.world.size * OVERSAMPLING
        centre = side / 2 - 0.5, side * 0.515
        pose = face.Pose(yaw, pitch, roll, (x, y), side / 2 / _REACH, centre)
        return face.geometry(self.speaker.look, self.state(index), pose)

    def state(self, index: int) -> face.FaceState:
        """Return what the face does in one frame."""
        expression = face.EXPRESSIONS[self.emotion].scaled(float(self.emotion_track[index]))
        x, y, blink = map(float, self.eyes[index])
        mouth = face.Mouth(*map(float, self.mouth[index]))
        return face.FaceState(expression, mouth, blink, (x, y))

    @cached_property
    def landmarks(self) -> npt.NDArray[np.float64]:
        """Return :data:`LANDMARKS` in pixels of the frame: float64 (n_frames, 25, 2), x and y."""
        return self.landmarks_at(range(self.n_frames))

    def landmarks_at(self, frames: Iterable[int]) -> npt.NDArray[np.float64]:
        """Return the landmarks of some frames: float64 (frames, 25, 2), as :attr:`landmarks`."""
        drawn = [self.geometry(int(i)).contours["landmarks"] for i in frames]
        return (np.stack(drawn) + 0.5) / OVERSAMPLING - 0.5

    @cached_property
    def mouth(self) -> npt.NDArray[np.float64]:
        """The mouth's movements in speech: float64 (n_frames, 6), columns as in ``VISEMES``."""
        return speech.visemes(self.phones, self.n_frames, FRAME_RATE, self.manner.jaw)

    @cached_property
    def emotion_track(self) -> npt.NDArray[np.float64]:
        """The emotion's strength in each frame: float64 (n_frames,), 0 to the intensity."""
        t = np.arange(self.n_frames) / FRAME_RATE
        phase = self._rng("feeling").uniform(0, 2 * np.pi)
        swell = 0.8 + 0.2 * np.clip(t / 0.5, 0, 1)
        return np.asarray(self.intensity * swell * (0.96 + 0.04 * np.sin(2.1 * t + phase)))

    @cached_property
    def _head(self) -> npt.NDArray[np.float64]:
        """Shift x, y, yaw, pitch, roll of the head in each frame: slow waves and nods."""
        rng = self._rng("head")
        t = np.arange(self.n_frames)[:, None] / FRAME_RATE
        speeds = rng.uniform(0.25, 1.3, (3, 1, 5)) * 2 * np.pi
        phases = rng.uniform(0, 2 * np.pi, (3, 1, 5))
        waves = np.sin(speeds * t + phases).sum(0) / 3
        waves = waves * np.array([0.03, 0.02, 0.10, 0.05, 0.035]) * self.speaker.liveliness
        rest = rng.normal(0, 1, 5) * np.array([0.015, 0.015, 0.06, 0.03, 0.02])
        nod = self.mouth[:, 0] - self.mouth[:, 0].mean()
        smooth = np.convolve(np.pad(nod, 3, mode="edge"), np.ones(7) / 7, mode="valid")
        waves[:, 3] += 0.06 * smooth
        return np.asarray(waves + rest)

    @cached_property
    def eyes(self) -> npt.NDArray[np.float64]:
        """Gaze x, y (iris radii) and blink (0 to 1) in each frame."""
        rng = self._rng("eyes")
        eyes = np.zeros((self.n_frames, 3))
        frame = 0
        while frame < self.n_frames:  # a glance lasts 0.4 to 1.6 s
            length = int(rng.integers(10, 40))
            eyes[frame : frame + length, :2] = rng.normal(0, [0.22, 0.12])
            frame += length
        frame = int(rng.integers(5, 50))
        while frame < self.n_frames - 4:
            eyes[frame : frame + 4, 2] = (0.55, 1.0, 0.8, 0.3)
            frame += int(rng.integers(35, 120))
        return eyes

    @cached_property
    def _light(self) -> tuple[float, float, float, float]:
        rng = self._rng("light")
        angle = rng.uniform(-2.5, -0.6)  # from above, from either side
        brightness, phase = float(rng.uniform(0.93, 1.06)), float(rng.uniform(0, 6))
        return float(np.cos(angle)), float(np.sin(angle)), brightness, phase

    @cached_property
    def _painter(self) -> Painter:
        rng = self._rng("lamp")
        contrast, warmth = float(rng.uniform(0.05, 0.14)), float(np.clip(rng.normal(), -2, 2) * 0.6)
        return _painter(self.speaker.look, self.world.size, self._light[:2], contrast, warmth)

    def _rng(self, purpose: str) -> np.random.Generator:
        source = None if purpose in ("grain", "feeling") else self.performance
        emotion = (source or self).emotion
        return self.world._rng(purpose, self.speaker.name, emotion, self.sentence.name)


_painter = lru_cache(maxsize=8)(Painter)
