"""The takes that mini-NED learns from, and their frames in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.puppets.face import FaceState
from spfem_bench.puppets.mini_ned.morphable import face_vector, frame_pose, frame_vector
from spfem_bench.puppets.shots import NumberedShot, Shot
from spfem_bench.puppets.world import World


@dataclass(frozen=True)
class FrameRun:
    """A run of consecutive frames of one take, and its truth, for the estimator."""

    frames: npt.NDArray[np.uint8]  # (T, size, size, 3), RGB
    rest: npt.NDArray[np.float64]  # (D,), :func:`.morphable.face_vector` of the puppet at rest
    faces: npt.NDArray[np.float64]  # (T, D), of each frame
    poses: npt.NDArray[np.float64]  # (T, 5)


def unpaired_takes(world: World, speakers: int, takes: int, seed: int) -> tuple[Shot, ...]:
    """Return the takes that mini-NED learns from: training speakers and sentences only.

    Each of *speakers* random ones has *takes*, 2 to 7: a neutral one and others in emotions and
    sentences of their own, so that no two takes differ in their emotion alone.
    """
    rng = np.random.default_rng([seed, 1])
    everyone = [s.name for s in world.speakers if s.split == "train"]
    sentences = [s.name for s in world.sentences if s.split == "train"]
    shots = []
    for name in sorted(rng.choice(everyone, speakers, replace=False)):
        emotions = ["neutral", *rng.permutation(EMOTIONS[1:])[: takes - 1]]
        spoken = rng.choice(sentences, takes, replace=False)
        for emotion, sentence in zip(emotions, spoken, strict=True):
            shots.append(Shot(str(name), str(emotion), str(sentence), 1.0))
    return tuple(shots)


def draw_run(job: NumberedShot, world: World, frames: int, seed: int) -> FrameRun:
    """Draw a run of frames of one take; its number and the seed decide the first frame."""
    number, shot = job
    take = world.take(*shot)
    start = int(np.random.default_rng([seed, 2, number]).integers(take.n_frames - frames + 1))
    indices = range(start, start + frames)
    return FrameRun(
        np.stack([take.frame(i) for i in indices]),
        face_vector(take.speaker.look, FaceState()),
        np.stack([frame_vector(take, i) for i in indices]),
        np.stack([frame_pose(take, i) for i in indices]),
    )
