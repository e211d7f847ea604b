"""Which takes are trained on, and their crops, sound and frames in memory."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.networks import (
    ArcFaceInput,
    ExpressionInput,
    NetworkCard,
    SyncInput,
    network_card,
)
from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.faces import crop, exact
from spfem_bench.media.mfcc import mfcc
from spfem_bench.media.video import Frame
from spfem_bench.processes import spread
from spfem_bench.puppets.training.recipes import NetworkName, Recipe, SyncRecipe
from spfem_bench.puppets.world import World

HELD_OUT = ("validation", "test")
"""Speakers on whom quality is measured; they speak the test sentences."""


class Shot(NamedTuple):
    """One take by its names, as in the record of a training."""

    speaker: str
    emotion: str
    sentence: str
    intensity: float


def training_takes(world: World, name: NetworkName, recipe: Recipe) -> tuple[Shot, ...]:
    """Return all takes that a network learns from: training speakers, training sentences.

    Each speaker shows all emotions about equally often; intensities are even over 0 to 1,
    sentences are drawn without repetition until all have been.
    """
    rng = np.random.default_rng([recipe.seed, *name.encode()])
    sentences = [s.name for s in world.sentences if s.split == "train"]
    shots = []
    for speaker in (s.name for s in world.speakers if s.split == "train"):
        emotions, spoken = _in_turn(EMOTIONS, rng), _in_turn(sentences, rng)
        shots += [
            Shot(speaker, next(emotions), next(spoken), round(float(rng.uniform()), 3))
            for _ in range(recipe.takes)
        ]
    return tuple(shots)


def _in_turn(values: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    while True:
        yield from (values[i] for i in rng.permutation(len(values)))


def digest(shots: Sequence[Shot]) -> str:
    """Return a hash of a list of takes, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps([list(s) for s in shots]).encode()).hexdigest()


# ---- drawing ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drawn:
    """What a network sees of one take.

    Attributes:
        crops: uint8 (frames, side, side, 3), RGB.
        indices: int64 (frames,), which frames they are.
        steps: float32 (versions, S, 13), the sound's MFCCs, clean and with noise; none
            for networks that hear nothing.
    """

    crops: npt.NDArray[np.uint8]
    indices: npt.NDArray[np.int64]
    steps: npt.NDArray[np.float32]


def card(name: NetworkName) -> NetworkCard:
    """Return the card of the network that is trained: its input contract is kept."""
    return network_card(f"compact-{name}")


def cropped(frame: Frame, contract: NetworkCard) -> Frame:
    """Crop a rendered frame as the evaluation crops a clip that is a face already."""
    settings = contract.input
    if isinstance(settings, ArcFaceInput):
        return crop.arcface(frame, None, settings)
    if isinstance(settings, ExpressionInput):
        return crop.expression(frame, None, settings)
    if isinstance(settings, SyncInput):
        return exact.resize(frame, settings.size)
    raise TypeError(f"{contract.path}: no such crop")


def draw(
    job: tuple[int, Shot],
    world: World,
    name: NetworkName,
    frames: int,
    seed: int,
    noises: int = 0,
    quietest: float = 0.0,
) -> Drawn:
    """Render one take's crops, and its sound's MFCCs for the lip sync network.

    Args:
        job: the take, and its number, which decides the frames and noises drawn.
        world: whose take it is.
        name: the network.
        frames: how many, at random and in order; 0 for all.
        seed: of frames and noises.
        noises: noisy versions of the sound.
        quietest: smallest ratio of sound to noise, decibels; the largest is 20 more.
    """
    number, shot = job
    rng = np.random.default_rng([seed, number])
    take, contract = world.take(*shot), card(name)
    indices = np.arange(take.n_frames)
    if frames:
        indices = np.sort(rng.choice(take.n_frames, min(frames, take.n_frames), replace=False))
    crops = np.stack([cropped(take.frame(int(i)), contract) for i in indices])
    steps = np.zeros((0, 0, 13), np.float32)
    if name == "sync":
        sound = take.sound()
        versions = [sound] + [_noisy(sound, quietest, rng) for _ in range(noises)]
        steps = np.stack([mfcc(v) for v in versions])
    return Drawn(crops, indices.astype(np.int64), steps)


def _noisy(
    sound: npt.NDArray[np.int16], quietest: float, rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    loudness = max(float(np.sqrt(np.mean(sound.astype(np.float64) ** 2))), 1.0)
    level = loudness * 10 ** (-rng.uniform(quietest, quietest + 20) / 20)
    mixed = sound + rng.normal(0, level, len(sound))
    return np.clip(np.rint(mixed), -32768, 32767).astype(np.int16)


def draw_all(
    world: World,
    name: NetworkName,
    shots: Sequence[Shot],
    recipe: Recipe,
    *,
    frames: int | None = None,
    workers: int = 1,
    done: Callable[[], None] = lambda: None,
) -> list[Drawn]:
    """Render takes into memory, in several processes; their number changes no pixel.

    Args:
        world: whose takes.
        name: the network that looks.
        shots: the takes.
        recipe: decides frames and noises.
        frames: instead of the recipe's.
        workers: processes.
        done: called after each take.
    """
    noisy = isinstance(recipe, SyncRecipe) and frames is None
    one = partial(
        draw,
        world=world,
        name=name,
        frames=recipe.frames if frames is None else frames,
        seed=recipe.seed,
        noises=recipe.noises if noisy and isinstance(recipe, SyncRecipe) else 0,
        quietest=recipe.quietest if isinstance(recipe, SyncRecipe) else 0.0,
    )
    found = []
    with spread(one, list(enumerate(shots)), workers) as takes:
        for drawn in takes:
            found.append(drawn)
            done()
    return found
