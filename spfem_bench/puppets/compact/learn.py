"""The losses of the four networks, and their training.

On the CPU of one machine, the same command and number of threads give the same bytes; elsewhere
weights differ by rounding, held-out quality by a few hundredths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.media.mfcc import MFCC_STEPS, STEPS_PER_FRAME, WINDOW
from spfem_bench.networks.compact import (
    DIMENSIONS,
    CompactExpression,
    CompactIdentity,
    CompactLandmarks,
    CompactSync,
)
from spfem_bench.progress import Progress
from spfem_bench.puppets.compact.changes import change, change_with_points
from spfem_bench.puppets.compact.recipes import IdentityRecipe, Recipe, SyncRecipe
from spfem_bench.puppets.compact.takes import TakeInputs
from spfem_bench.puppets.face import LANDMARKS
from spfem_bench.puppets.shots import Shot
from spfem_bench.training.kit import Descent, seed_torch

LIPS = 4.0
"""Weight of the middle of the inner lips in the loss of landmarks; others have 1."""

_Drawn = Sequence[TakeInputs]
# A network, all modules with weights to learn, and the loss of a step by its number.
_Made = tuple[nn.Module, list[nn.Module], Callable[[int], Tensor]]


def learn(
    name: str, recipe: Recipe, shots: Sequence[Shot], drawn: _Drawn, device: str, progress: Progress
) -> tuple[nn.Module, list[float]]:
    """Train one network; return it on the CPU in eval mode, and the loss of each step."""
    seed_torch(recipe.seed)
    makers = {"identity": _identity, "expression": _expression, "landmarks": _landmarks}
    make = {**makers, "sync": _sync}[name]
    network, modules, loss = make(recipe, shots, drawn, device)
    weights = [p for module in modules for p in module.parameters()]
    # Biases and scales do not decay.
    groups: list[dict[str, Any]] = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": recipe.decay},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    for module in modules:
        module.train()
    descent = Descent(torch.optim.AdamW(groups, lr=recipe.rate), recipe.steps, clip=weights)
    losses = list(descent.run(loss, progress=progress, phase=f"{name}: learn"))
    return network.eval().cpu(), losses


class _Pictures:
    """Batches of crops of all takes, drawn without repetition within an epoch."""

    def __init__(self, drawn: _Drawn, recipe: Recipe, device: str) -> None:
        self.crops = torch.from_numpy(np.concatenate([d.crops for d in drawn])).to(device)
        owner = np.repeat(np.arange(len(drawn)), [len(d.crops) for d in drawn])
        self.owner = torch.from_numpy(owner)
        self.recipe = recipe
        self.rng = torch.Generator().manual_seed(recipe.seed)
        self.rest = torch.zeros(0, dtype=torch.int64)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return changed pictures, (B, 3, H, W) as networks want them, and their takes, (B,)."""
        pictures, chosen = self.draw()
        pictures = change(pictures, self.recipe.changes, self.rng)
        return (pictures - 127.5) / 127.5, self.owner[chosen]

    def draw(self) -> tuple[Tensor, Tensor]:
        """Return pictures as they are, float32 (B, 3, H, W), and their numbers, (B,)."""
        while len(self.rest) < self.recipe.batch:
            fresh = torch.randperm(len(self.crops), generator=self.rng)
            self.rest = torch.cat([self.rest, fresh])
        size = self.recipe.batch
        chosen, self.rest = self.rest[:size], self.rest[size:]
        return self.crops[chosen.to(self.crops.device)].permute(0, 3, 1, 2).float(), chosen


class ArcFace(nn.Module):
    """Additive angular margin (Deng et al., CVPR 2019): cos(angle + margin) for the right class."""

    def __init__(self, classes: int, scale: float) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.randn(classes, DIMENSIONS))
        self.scale = scale

    def forward(self, embedding: Tensor, labels: Tensor, margin: float) -> Tensor:
        """Return the loss of embeddings (B, 64) with labels (B,)."""
        cosine = F.normalize(embedding) @ F.normalize(self.centres).T
        right = cosine.gather(1, labels[:, None]).clamp(-1 + 1e-6, 1 - 1e-6)
        moved = torch.cos(right.acos() + margin)
        # Beyond pi the cosine would rise again: from there it falls straight on.
        beyond = right - math.sin(margin) * margin
        moved = torch.where(right > math.cos(math.pi - margin), moved, beyond)
        return F.cross_entropy(self.scale * cosine.scatter(1, labels[:, None], moved), labels)


def _identity(recipe: Recipe, shots: Sequence[Shot], drawn: _Drawn, device: str) -> _Made:
    if not isinstance(recipe, IdentityRecipe):
        raise TypeError("the identity network is trained by an IdentityRecipe")
    names = sorted({s.speaker for s in shots})
    labels = torch.tensor([names.index(s.speaker) for s in shots])
    network = CompactIdentity().to(device)
    head = ArcFace(len(names), recipe.scale).to(device)
    pictures = _Pictures(drawn, recipe, device)

    def loss(number: int) -> Tensor:
        batch, takes = pictures.batch()
        margin = recipe.margin * min(1.0, 3 * number / recipe.steps)
        return torch.as_tensor(head(network(batch)["embedding"], labels[takes].to(device), margin))

    return network, [network, head], loss


def _expression(recipe: Recipe, shots: Sequence[Shot], drawn: _Drawn, device: str) -> _Made:
    targets = soft_targets(shots).to(device)
    network = CompactExpression().to(device)
    pictures = _Pictures(drawn, recipe, device)

    def loss(number: int) -> Tensor:
        batch, takes = pictures.batch()
        scores = network.scores(network.features(batch))
        return F.cross_entropy(scores, targets[takes.to(device)])

    return network, [network], loss


def _landmarks(recipe: Recipe, shots: Sequence[Shot], drawn: _Drawn, device: str) -> _Made:
    network = CompactLandmarks().to(device)
    pictures = _Pictures(drawn, recipe, device)
    points = torch.from_numpy(np.concatenate([d.points for d in drawn]))
    # The middle of the inner lips: its opening is a small difference of two places.
    weights = torch.ones(len(LANDMARKS), device=device)
    weights[[LANDMARKS.index(f"mouth_inner_{side}") for side in ("top", "bottom")]] = LIPS

    def loss(number: int) -> Tensor:
        crops, chosen = pictures.draw()
        crops, truth = change_with_points(crops, points[chosen], recipe.changes, pictures.rng)
        found = network((crops - 127.5) / 127.5)["points"].reshape(truth.shape)
        # In hundredths of the side; L1: a face that is hard to read must not rule the others.
        return torch.as_tensor((100 * (found - truth).abs().mean(2) * weights).mean())

    return network, [network], loss


def soft_targets(shots: Sequence[Shot]) -> Tensor:
    """Return intensity parts of the emotion and the rest neutral: float32 (takes, 7)."""
    targets = torch.zeros(len(shots), len(EMOTIONS))
    for row, shot in zip(targets, shots, strict=True):
        row[EMOTIONS.index(shot.emotion)] += shot.intensity
        row[EMOTIONS.index("neutral")] += 1 - shot.intensity
    return targets


def _sync(recipe: Recipe, shots: Sequence[Shot], drawn: _Drawn, device: str) -> _Made:
    if not isinstance(recipe, SyncRecipe):
        raise TypeError("the lip sync network is trained by a SyncRecipe")
    network = CompactSync().to(device)
    rng = torch.Generator().manual_seed(recipe.seed)
    # As in the evaluation, the last five frames' windows are left out: their sound ends early.
    lengths = np.array([len(d.crops) for d in drawn])
    run = int(min(recipe.run, lengths.min() - 1))
    windows = run - WINDOW + 1
    if windows < 2:
        raise ValueError(f"takes of {lengths.min()} frames are too short for lip sync")
    frames = torch.from_numpy(np.concatenate([d.crops for d in drawn])).to(device)
    first_frame = torch.from_numpy(np.cumsum(lengths) - lengths)
    versions = drawn[0].steps.shape[0]
    spoken = [d.steps.reshape(-1, 13) for d in drawn]
    sound = torch.from_numpy(np.concatenate(spoken)).to(device)
    n_steps = torch.tensor([d.steps.shape[1] for d in drawn])
    first_step = torch.cumsum(versions * n_steps, 0) - versions * n_steps
    after = torch.arange(windows)[:, None] * STEPS_PER_FRAME + torch.arange(MFCC_STEPS)[None]
    room = torch.from_numpy(lengths) - run

    def loss(number: int) -> Tensor:
        takes = torch.randperm(len(drawn), generator=rng)[: recipe.batch]
        start = (torch.rand(len(takes), generator=rng) * room[takes]).long()
        version = torch.randint(versions, (len(takes),), generator=rng)
        at = first_frame[takes] + start
        pictures = frames[(at[:, None] + torch.arange(run)).flatten().to(device)]
        changed = change(pictures.permute(0, 3, 1, 2).float(), recipe.changes, rng, run=run)
        runs = changed.flip(1).reshape(len(takes), run, 3, *changed.shape[2:]).transpose(1, 2)
        begin = first_step[takes] + version * n_steps[takes] + STEPS_PER_FRAME * start
        steps = sound[(begin[:, None, None] + after).to(device)].transpose(2, 3).clone()
        # A gain of the sound is a shift of the logarithm of its energy, and of nothing else.
        gain = (torch.rand(len(takes), generator=rng) * 2 - 1) * recipe.loudness
        steps[:, :, 0] += (gain * math.log(10) / 10).to(device)[:, None, None]
        video = network.visual(runs)
        audio = network.audio(steps.reshape(-1, 1, 13, MFCC_STEPS)).reshape(video.shape)
        return sync_loss(video, audio, recipe.temperature)

    return network, [network], loss


def sync_loss(video: Tensor, audio: Tensor, temperature: float) -> Tensor:
    """Return the InfoNCE loss of windows: (runs, W, D) of video and of audio, rows of length 1.

    The mean of four cross-entropies: mouth to sound and back, within each run and within the batch.
    """
    runs, windows, size = video.shape
    within = video @ audio.transpose(1, 2) / temperature
    among = video.reshape(-1, size) @ audio.reshape(-1, size).T / temperature
    own = torch.arange(windows, device=video.device).repeat(runs)
    every = torch.arange(runs * windows, device=video.device)
    runs_both = [x.reshape(-1, windows) for x in (within, within.transpose(1, 2))]
    losses = [F.cross_entropy(x, own) for x in runs_both]
    losses += [F.cross_entropy(x, every) for x in (among, among.T)]
    return torch.stack(losses).mean()


def embed(function: Callable[[Tensor], Any], samples: npt.NDArray[np.generic]) -> Any:
    """Return a function's outputs for samples, in batches of 64 and without gradients."""
    batches = torch.split(torch.from_numpy(np.ascontiguousarray(samples)), 64)
    with torch.inference_mode():
        parts = [function(batch) for batch in batches]
    if isinstance(parts[0], dict):
        return {k: torch.cat([p[k] for p in parts]).numpy() for k in parts[0]}
    return torch.cat(parts).numpy()
