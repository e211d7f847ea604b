"""Drawn pairs for metric learning and the discovery: the correspondence of frames is exact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from spfem_bench.analysis.probe import NOTHING
from spfem_bench.datasets.pairs import EmotionPair
from spfem_bench.datasets.pose import Landmarks
from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.errors import CardError, unknown_name
from spfem_bench.media.video import FRAME_RATE, Frame
from spfem_bench.puppets.draw import OVERSAMPLING
from spfem_bench.puppets.face import LANDMARKS
from spfem_bench.puppets.probe import Performance
from spfem_bench.puppets.speech import correspondence
from spfem_bench.puppets.world import Take, World
from spfem_bench.training.config import HELD_OUT, PuppetData, Second

# Landmarks for the pose: neither speech nor expression moves them much.
_STEADY = "eye_right_outer eye_right_inner eye_left_inner eye_left_outer nose_bridge nose_tip"
STEADY = tuple(LANDMARKS.index(name) for name in _STEADY.split())
WorldPart = Literal["train", "held-out", "validation"]


@dataclass(frozen=True)
class Puppet:
    """A take as a source of frames: drawn on demand, landmarks exact, each frame a face crop."""

    take: Take
    posed: bool = True  # whether it is moved to the pose of a pair's first recording
    whole = True

    @property
    def name(self) -> str:
        """Speaker, emotion and sentence, and the emotion of the take that is performed."""
        own = f"{self.take.speaker.name}/{self.take.emotion}/{self.take.sentence.name}"
        if isinstance(self.take, Dubbed) and self.take.mouth_of:
            return f"{own}/mouth of {self.take.mouth_of.sentence.name}"
        return f"{own}/{self.take.performance.emotion}" if self.take.performance else own

    @property
    def world(self) -> str:
        """The world's name."""
        return self.take.world.name

    def frame(self, index: int) -> Frame:
        """Draw one frame: uint8 (size, size, 3), RGB."""
        return self.take.frame(index)

    def points(self, index: int, picture: Frame) -> Landmarks | None:
        """Return the landmarks of :data:`STEADY` in one frame, (6, 2); None if not posed."""
        if not self.posed:
            return None
        drawn = self.take.geometry(index).contours["landmarks"][list(STEADY)]
        return np.asarray((drawn + 0.5) / OVERSAMPLING - 0.5)


@dataclass(frozen=True)
class Dubbed(Take):
    """A take whose mouth alone is another's: head, eyes, light and emotion are its own."""

    mouth_of: Take | None = None

    @cached_property
    def mouth(self) -> npt.NDArray[np.float64]:
        """The other's mouth, at rest after its end: float64 (n_frames, 6)."""
        track = super().mouth if self.mouth_of is None else self.mouth_of.mouth
        return track[np.minimum(np.arange(self.n_frames), len(track) - 1)]

    @cached_property
    def _head(self) -> npt.NDArray[np.float64]:
        # Nods are of its own words.
        return self.world.take(self.speaker.name, self.emotion, self.sentence.name)._head


def _speech_pairs(world: World, speakers: Sequence[str], part: WorldPart) -> list[EmotionPair]:
    """Return pairs that share the mouth's movements alone: a neutral take, and one dubbed with it.

    Each speaker has two, in turns over sentences and emotions.
    """
    split = "test" if part == "validation" else "train"
    names = [s.name for s in world.sentences if s.split == split]
    pairs = []
    for number, speaker in enumerate(speakers):
        for turn in (2 * number, 2 * number + 1):
            emotion = EMOTIONS[1 + turn % (len(EMOTIONS) - 1)]
            spoken = world.take(speaker, "neutral", names[turn % len(names)])
            own = world.speaker(speaker), emotion, world.sentence(names[(turn + 1) % len(names)])
            dubbed = Dubbed(world, *own, 1.0, mouth_of=spoken)
            frames = np.arange(min(spoken.n_frames, dubbed.n_frames))
            numbers = np.stack([frames, frames], 1)
            pair = Puppet(spoken, posed=False), Puppet(dubbed, posed=False)
            pairs.append(EmotionPair(speaker, emotion, *pair, numbers))
    return pairs


def _probe_pairs(world: World, speakers: Sequence[str]) -> list[EmotionPair]:
    """Return neutral performances, each beside itself with one thing changed: the "emotion".

    Two emotions a speaker, in turns, are shown with the mouth's movements and without.
    """
    names = [s.name for s in world.sentences if s.split == "train"]
    pairs = []
    for number, speaker in enumerate(speakers):
        spoken, other = (world.take(speaker, "neutral", names[number + k]) for k in (0, 1))
        changes: list[tuple[str, str, dict[str, Any]]] = [
            (NOTHING, "neutral", {}),
            ("words", "neutral", {"mouth_of": other}),
            ("frozen", "neutral", {"frozen": True}),
        ]
        for turn in (2 * number, 2 * number + 1):
            emotion = EMOTIONS[1 + turn % (len(EMOTIONS) - 1)]
            changes += [("emotion", emotion, {}), ("emotion, frozen", emotion, {"frozen": True})]
        last = min(spoken.n_frames, other.n_frames)
        numbers = np.stack([np.arange(last)] * 2, 1)
        for camera, (condition, emotion, changed) in enumerate(changes, start=1):
            made = Performance(
                *(world, spoken.speaker, emotion, spoken.sentence, 1.0, spoken),
                camera=camera,
                **changed,
            )
            both = Puppet(spoken, posed=False), Puppet(made, posed=False)
            pairs.append(EmotionPair(speaker, condition, *both, numbers))
    return pairs


def drawn_pairs(data: PuppetData) -> tuple[list[EmotionPair], ...]:
    """Return the pairs to learn from, those held out, those for the final numbers, and a probe.

    The probe, for pairs of ``speech`` alone, is of the puppets that are held out.
    """
    world = World(data.version, data.seed, data.size)
    held_out = puppet_pairs(world, "held-out", data.held_out, data.second)
    probed = list(dict.fromkeys(p.speaker for p in held_out)) if data.second == "speech" else []
    return (
        puppet_pairs(world, "train", data.speakers, data.second),
        held_out,
        puppet_pairs(world, "validation", data.checked, data.second),
        _probe_pairs(world, probed),
    )


def puppet_pairs(
    world: World, part: WorldPart, speakers: int | None = None, second: Second = "recording"
) -> list[EmotionPair]:
    """Return a pair for each speaker, sentence and emotion, against neutral, in that order.

    ``train``: training speakers, sentences that they speak in every emotion. ``held-out``: the last
    :data:`~spfem_bench.training.config.HELD_OUT` of them, who are not in ``train``. ``validation``:
    validation speakers, sentences of their own. *speakers* is how many of them; *second* is
    ``recording``, a take of its own as in MEAD, ``face``, :meth:`Take.with_face` of the first, or
    ``speech``, :func:`_speech_pairs`.

    Raises:
        CardError: no such part, or not that many speakers.
    """
    if part not in get_args(WorldPart):
        raise unknown_name("part of the pairs", part, get_args(WorldPart))
    recorded = list(world.recordings("validation" if part == "validation" else "train"))
    everyone = list(dict.fromkeys(speaker for speaker, _, _ in recorded))
    if part != "validation":
        everyone = everyone[:-HELD_OUT] if part == "train" else everyone[-HELD_OUT:]
    if speakers is not None and not 1 <= speakers <= len(everyone):
        problem = f"{speakers} speakers are asked for, '{part}' has {len(everyone)}"
        raise CardError(problem, f"Give a number from 1 to {len(everyone)}")
    if second == "speech":
        return _speech_pairs(world, everyone[:speakers], part)
    chosen = set(everyone[:speakers])
    emotions: dict[tuple[str, str], set[str]] = {}
    for speaker, emotion, sentence in recorded:
        if speaker in chosen:
            emotions.setdefault((speaker, sentence), set()).add(emotion)
    pairs = []
    for (speaker, sentence), spoken in emotions.items():
        if not spoken.issuperset(EMOTIONS):
            continue
        for emotion in EMOTIONS[1:]:
            a = world.take(speaker, "neutral", sentence)
            face = second == "face"
            b = a.with_face(emotion) if face else world.take(speaker, emotion, sentence)
            pairs.append(EmotionPair(speaker, emotion, Puppet(a), Puppet(b), true_frames(a, b)))
    return pairs


def true_frames(a: Take, b: Take) -> npt.NDArray[np.int64]:
    """Return frames of the same moments, int64 (N, 2); CardError for different sentences."""
    frames = np.arange(a.n_frames)
    times = correspondence(a.phones, b.phones, (frames + 0.5) / FRAME_RATE)
    shown = np.clip(np.floor(times * FRAME_RATE), 0, b.n_frames - 1)
    return np.stack([frames, shown], 1).astype(np.int64)
