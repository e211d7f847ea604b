"""Which takes mini-NED learns from, and their frames in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.processes import spread
from spfem_bench.puppets.face import Expression, Mouth
from spfem_bench.puppets.mini_ned.morphable import Array, measured, measured_frame, pose_of
from spfem_bench.puppets.training.takes import Shot
from spfem_bench.puppets.world import World


@dataclass(frozen=True)
class Drawn:
    """A run of consecutive frames of one take, and its truth, for the estimator.

    Attributes:
        frames: uint8 (T, size, size, 3), RGB.
        rest: float64 (D,), the puppet at rest (:func:`.morphable.measured`).
        faces: float64 (T, D), each frame.
        poses: float64 (T, 5).
    """

    frames: npt.NDArray[np.uint8]
    rest: Array
    faces: Array
    poses: Array


def training_takes(world: World, speakers: int, takes: int, seed: int) -> tuple[Shot, ...]:
    """Return all takes that anything is learnt from: training speakers and sentences only.

    Each speaker has one neutral take and others in emotions of their own, every one with a
    sentence of its own, so that no two takes say the same in two emotions.

    Args:
        world: the puppets.
        speakers: how many, at random.
        takes: of each, from 2 to 7.
        seed: of the choice.
    """
    rng = np.random.default_rng([seed, 1])
    everyone = [s.name for s in world.speakers if s.split == "train"]
    sentences = [s.name for s in world.sentences if s.split == "train"]
    shots = []
    for name in sorted(rng.choice(everyone, speakers, replace=False)):
        emotions = ["neutral", *rng.permutation(EMOTIONS[1:])[: takes - 1]]
        spoken = rng.choice(sentences, takes, replace=False)
        shots += [
            Shot(str(name), str(e), str(s), 1.0) for e, s in zip(emotions, spoken, strict=True)
        ]
    return tuple(shots)


def draw(job: tuple[int, Shot], world: World, frames: int, seed: int) -> Drawn:
    """Draw a run of frames of one take.

    Args:
        job: the take, and its number, which decides where the run begins.
        world: whose take it is.
        frames: of the run.
        seed: of the beginnings.
    """
    number, shot = job
    take = world.take(*shot)
    start = int(np.random.default_rng([seed, 2, number]).integers(take.n_frames - frames + 1))
    indices = range(start, start + frames)
    return Drawn(
        np.stack([take.frame(i) for i in indices]),
        measured(take.speaker.look, Expression(), Mouth()),
        np.stack([measured_frame(take, i) for i in indices]),
        np.stack([pose_of(take, i) for i in indices]),
    )


def draw_all(
    world: World,
    shots: Sequence[Shot],
    *,
    frames: int,
    seed: int,
    workers: int = 1,
    done: Callable[[], None] = lambda: None,
) -> list[Drawn]:
    """Draw all takes into memory, in several processes; their number changes no pixel."""
    one = partial(draw, world=world, frames=frames, seed=seed)
    found = []
    with spread(one, list(enumerate(shots)), workers) as takes:
        for drawn in takes:
            found.append(drawn)
            done()
    return found
