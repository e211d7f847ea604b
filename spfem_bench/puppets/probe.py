"""Puppets whose head, mouth and emotion move separately, for the probe of a loss.

    from spfem_bench.puppets.probe import probe_clips, probe_loss

    result = probe_loss(lambda x, y: stccl(x, y, parts=True), probe_clips(frames=25))
    result.ratio("emotion", "words").value

The source is a neutral performance. What is made of it differs in what the condition names, and
in the camera's grain, which is drawn anew for each clip.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from spfem_bench.analysis.probe import NOTHING, Frames, ProbeClip
from spfem_bench.analysis.probe import probe_loss as probe_loss
from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.errors import CardError
from spfem_bench.processes import spread
from spfem_bench.puppets.face import Look
from spfem_bench.puppets.world import Take, World

VERSION = 1
"""Raised whenever any clip of the probe would change."""

SEED = 23
"""Of the probe's own world: none of its puppets is in a training, a validation or the demo."""

CLIPS = 23
"""Clips of a window."""

START, LATER, GRAIN = 7, 12, 3.0
LEVELS = (0.25, 0.5, 0.75)
AROUND = ("hair", "hair_style", "glasses", "shirt", "backdrop")

CONDITIONS = {
    NOTHING: "the same performance; only the grain is new",
    "grain": "the same with three times the camera's grain",
    "emotion 0.25": "an emotion on the face at a quarter of its strength",
    "emotion 0.5": "at half of it",
    "emotion 0.75": "at three quarters",
    "emotion": "at full strength, mean of all six: a perfect manipulation",
    "words": "the mouth says another sentence; head and eyes are the same",
    "frozen": "the mouth is at rest",
    "head": "the head moves as half a second later; mouth and eyes are the same",
    "later": "the same performance half a second later",
    "emotion, words": "emotion at full strength, and another sentence",
    "emotion, frozen": "emotion at full strength, and the mouth at rest",
    "another face": "the same performance on the next puppet's face, all around it unchanged",
}
"""What each condition changes."""


@dataclass(frozen=True)
class Performance(Take):
    """A performance with the mouth of another take, or at rest, and the head of another moment.

    ``head_later`` is in frames; ``camera`` numbers the grain, which is drawn anew for each.
    """

    mouth_of: Take | None = None
    frozen: bool = False
    head_later: int = 0
    camera: int = 0

    @cached_property
    def mouth(self) -> npt.NDArray[np.float64]:
        """The mouth's movements: float64 (frames, 6)."""
        track = (self.mouth_of or self.performance or self).mouth
        return np.broadcast_to(track[:1], track.shape) if self.frozen else track

    @cached_property
    def _head(self) -> npt.NDArray[np.float64]:
        head = self.performance._head if self.performance else super()._head
        return np.roll(head, -self.head_later, 0)

    def _rng(self, purpose: str) -> np.random.Generator:
        if purpose != "grain":
            return super()._rng(purpose)
        return self.world._rng(purpose, self.speaker.name, self.sentence.name, f"{self.camera}")


def probe_clips(
    frames: int = 25,
    puppets: int = 12,
    windows: int = 1,
    world: World | None = None,
    *,
    workers: int = 1,
) -> Iterator[ProbeClip]:
    """Yield windows of *frames* frames at 25 a second: 128 pixels a side, faces as ArcFace crops.

    Each puppet speaks one of the test sentences, in turns; *windows* lie evenly over it. A window
    has `CLIPS` clips. The default world is the probe's own (`SEED`). *workers* change no pixel.

    Raises:
        CardError: the sentences are too short for so many frames, or the world has too few puppets.
    """
    world = world or World(seed=SEED)
    if not 1 <= puppets <= len(world.speakers):
        problem = f"{puppets} puppets are asked for"
        raise CardError(problem, f"Give a number from 1 to {len(world.speakers)}")
    sentences = [s.name for s in world.sentences if s.split == "test"]
    jobs = []
    for number, speaker in enumerate(world.speakers[:puppets]):
        k = number % len(sentences)
        spoken, *others = (
            world.take(speaker.name, "neutral", name) for name in sentences[k:] + sentences[:k]
        )
        longest = min(take.n_frames for take in (spoken, *others)) - START - LATER
        if not 2 <= frames <= longest:
            problem = f"a window of {frames} frames; {speaker.name} speaks for {longest} of them"
            raise CardError(problem, f"Give a number from 2 to {longest}")
        for w in range(windows):
            start = START + (longest - frames) * (2 * w + 1) // (2 * windows)
            some = EMOTIONS[1 + (number * windows + w) % (len(EMOTIONS) - 1)]
            around = {name: getattr(speaker.look, name) for name in AROUND}
            another = replace(world.speakers[(number + 1) % len(world.speakers)].look, **around)
            jobs.append(_Window(spoken, tuple(others), some, start, frames, another))
    with spread(_draw, jobs, workers, ahead=2 * workers) as drawn:
        for clips in drawn:
            yield from clips


class _Window(NamedTuple):
    spoken: Take
    others: tuple[Take, ...]
    some: str  # the emotion that is shown at lower strength
    start: int
    frames: int
    another: Look


def _draw(window: _Window) -> list[ProbeClip]:
    """Draw all conditions of one window."""
    spoken, others, some, start, frames, another = window
    camera = 0

    def run(
        at: int = start,
        emotion: str = "neutral",
        level: float = 1.0,
        look: Look = spoken.speaker.look,
        **changed: Any,
    ) -> Frames:
        nonlocal camera
        camera += 1
        take = Performance(
            spoken.world,
            replace(spoken.speaker, look=look),
            emotion,
            spoken.sentence,
            level,
            spoken,
            camera=1000 * start + camera,
            **changed,
        )
        return np.stack([take.frame(i) for i in range(at, at + frames)])

    source = run()

    clips = []

    def add(condition: str, made: Frames) -> None:
        clips.append(ProbeClip(spoken.speaker.name, condition, source, made))

    add(NOTHING, run())
    more = np.random.default_rng([VERSION, start, frames]).standard_normal(source.shape)
    grainy = run() + 1.6 * np.sqrt(GRAIN**2 - 1) * more
    add("grain", np.clip(grainy + 0.5, 0, 255).astype(np.uint8))
    for level in LEVELS:
        add(f"emotion {level:g}", run(emotion=some, level=level))
    for emotion in EMOTIONS[1:]:
        add("emotion", run(emotion=emotion))
    for other in others:
        add("words", run(mouth_of=other))
    add("frozen", run(frozen=True))
    add("head", run(head_later=LATER))
    add("later", run(start + LATER))
    # Three emotions a window, in turns, keep the probe short.
    for k, emotion in enumerate(EMOTIONS[1 + EMOTIONS.index(some) % 2 :: 2]):
        add("emotion, words", run(emotion=emotion, mouth_of=others[k % len(others)]))
        add("emotion, frozen", run(emotion=emotion, frozen=True))
    add("another face", run(look=another))
    return clips
