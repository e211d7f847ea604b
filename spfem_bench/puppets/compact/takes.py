"""The takes that the networks are trained on, and their crops and sound in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions import networks
from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.faces import crop, exact
from spfem_bench.media.mfcc import mfcc
from spfem_bench.media.video import Frame
from spfem_bench.puppets.compact.recipes import NetworkName, Recipe, SyncRecipe
from spfem_bench.puppets.shots import NumberedShot, Shot
from spfem_bench.puppets.world import World


def training_takes(world: World, name: NetworkName, recipe: Recipe) -> tuple[Shot, ...]:
    """Return all takes that a network learns from: training speakers, training sentences.

    Emotions are about equally frequent, intensities even over 0 to 1, sentences without repetition.
    """
    rng = np.random.default_rng([recipe.seed, *name.encode()])
    sentences = [s.name for s in world.sentences if s.split == "train"]
    shots = []
    for speaker in (s.name for s in world.speakers if s.split == "train"):
        emotions, spoken = _in_turn(EMOTIONS, rng), _in_turn(sentences, rng)
        for _ in range(recipe.takes):
            emotion, sentence = next(emotions), next(spoken)
            shots.append(Shot(speaker, emotion, sentence, round(float(rng.uniform()), 3)))
    return tuple(shots)


def _in_turn(values: Sequence[str], rng: np.random.Generator) -> Iterator[str]:
    while True:
        yield from (values[i] for i in rng.permutation(len(values)))


@dataclass(frozen=True)
class TakeInputs:
    """A network's inputs from one take."""

    crops: npt.NDArray[np.uint8]  # (frames, side, side, 3), RGB
    indices: npt.NDArray[np.int64]  # (frames,), of the frames
    # (frames, 25, 2), in sides of the frame; for landmarks only
    points: npt.NDArray[np.float32]
    steps: npt.NDArray[np.float32]  # (versions, S, 13), MFCCs, clean and noisy; for lip sync only


def compact_card(name: NetworkName) -> networks.NetworkCard:
    """Return the card of the network that is trained; its input contract is kept."""
    return networks.network_card(f"compact-{name}")


def _crop(frame: Frame, card: networks.NetworkCard) -> Frame:
    """Crop a drawn frame as the evaluation crops a clip of aligned faces."""
    settings = card.input
    if isinstance(settings, networks.ArcFaceInput):
        return crop.arcface(frame, None, settings)
    if isinstance(settings, networks.ExpressionInput):
        return crop.expression(frame, None, settings)
    if isinstance(settings, networks.LandmarksInput):
        return exact.shrink(frame, settings.size)
    if isinstance(settings, networks.SyncInput):
        return exact.resize(frame, settings.size)
    raise TypeError(f"{card.path}: no such crop")


def draw_take(
    job: NumberedShot, world: World, name: NetworkName, recipe: Recipe, frames: int | None = None
) -> TakeInputs:
    """Draw one take's crops, and its sound's MFCCs for the lip sync network.

    The take's number in *job* and the recipe's seed decide frames and noises. *frames* replaces the
    recipe's number, 0 for all in order; the sound is then clean.
    """
    number, shot = job
    rng = np.random.default_rng([recipe.seed, number])
    take, card = world.take(*shot), compact_card(name)
    count = recipe.frames if frames is None else frames
    indices = np.arange(take.n_frames)
    if count:
        indices = np.sort(rng.choice(take.n_frames, min(count, take.n_frames), replace=False))
    crops = np.stack([_crop(take.frame(int(i)), card) for i in indices])
    points, steps = np.zeros((0, 25, 2), np.float32), np.zeros((0, 0, 13), np.float32)
    if name == "landmarks":
        points = (take.landmarks_at(indices) / world.size).astype(np.float32)
    if name == "sync":
        versions = [take.sound()]
        if isinstance(recipe, SyncRecipe) and frames is None:
            versions += [_noisy(versions[0], recipe.quietest, rng) for _ in range(recipe.noises)]
        steps = np.stack([mfcc(version) for version in versions])
    return TakeInputs(crops, indices.astype(np.int64), points, steps)


def _noisy(
    sound: npt.NDArray[np.int16], quietest: float, rng: np.random.Generator
) -> npt.NDArray[np.int16]:
    loudness = max(float(np.sqrt(np.mean(sound.astype(np.float64) ** 2))), 1.0)
    level = loudness * 10 ** (-rng.uniform(quietest, quietest + 20) / 20)
    mixed = sound + rng.normal(0, level, len(sound))
    return np.clip(np.rint(mixed), -32768, 32767).astype(np.int16)
