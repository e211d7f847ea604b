"""The three losses, and the loop that they share.

On one machine with the same number of threads, the same command gives the same
bytes on the CPU. Another processor, torch or number of threads rounds otherwise,
and over hundreds of steps roundings grow: weights then differ, while held-out
quality agrees to a few hundredths.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.media.mfcc import MFCC_STEPS, STEPS_PER_FRAME, WINDOW
from spfem_bench.networks.compact import DIMENSIONS, CompactExpression, CompactIdentity, CompactSync
from spfem_bench.puppets.training.changes import change
from spfem_bench.puppets.training.recipes import IdentityRecipe, Recipe, SyncRecipe
from spfem_bench.puppets.training.takes import Drawn, Shot

Step = Callable[[int], Tensor]
"""From a step's number to its loss."""

Told = Callable[[float], None]
"""Hears the loss of each step."""


class Learnt(NamedTuple):
    """A trained network, in eval mode, and its mean loss over the first and last twentieth."""

    network: nn.Module
    first_loss: float
    last_loss: float


def silent(loss: float) -> None:
    """Hear nothing."""


def learn(
    recipe: Recipe,
    shots: Sequence[Shot],
    drawn: Sequence[Drawn],
    *,
    name: str,
    device: str = "cpu",
    told: Told = silent,
) -> Learnt:
    """Train one of the three networks.

    Args:
        recipe: its numbers.
        shots: the takes.
        drawn: what the network sees of each.
        name: identity, expression or sync.
        device: a torch device.
        told: hears each step's loss.
    """
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.manual_seed(recipe.seed)
    make = {"identity": _identity, "expression": _expression, "sync": _sync}[name]
    network, modules, step = make(recipe, shots, drawn, device)
    weights = [p for module in modules for p in module.parameters()]
    # Biases and scales do not decay.
    groups: list[dict[str, Any]] = [
        {"params": [p for p in weights if p.ndim > 1], "weight_decay": recipe.decay},
        {"params": [p for p in weights if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=recipe.rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda k: pace(k, recipe.steps))
    losses = []
    for module in modules:
        module.train()
    for number in range(recipe.steps):
        loss = step(number)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(weights, 5.0)
        optimiser.step()
        schedule.step()
        losses.append(float(loss.detach()))
        told(losses[-1])
    part = max(1, recipe.steps // 20)
    first, last = float(np.mean(losses[:part])), float(np.mean(losses[-part:]))
    return Learnt(network.eval().cpu(), first, last)


def pace(step: int, steps: int) -> float:
    """Return a step's share of the largest learning rate.

    >>> [round(pace(k, 101), 2) for k in (0, 4, 5, 53, 101)]
    [0.2, 1.0, 1.0, 0.51, 0.01]
    """
    rise = max(1, steps // 20)
    if step < rise:
        return (step + 1) / rise
    done = min(1.0, (step - rise) / max(1, steps - rise))
    return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2


class _Pictures:
    """Crops of all takes, from which batches are drawn without repetition within an epoch."""

    def __init__(self, drawn: Sequence[Drawn], recipe: Recipe, device: str) -> None:
        self.crops = torch.from_numpy(np.concatenate([d.crops for d in drawn])).to(device)
        self.owner = torch.from_numpy(
            np.repeat(np.arange(len(drawn)), [len(d.crops) for d in drawn])
        )
        self.recipe = recipe
        self.rng = torch.Generator().manual_seed(recipe.seed)
        self.waiting = torch.zeros(0, dtype=torch.int64)

    def batch(self) -> tuple[Tensor, Tensor]:
        """Return changed pictures, (B, 3, H, W) as networks want them, and their takes, (B,)."""
        while len(self.waiting) < self.recipe.batch:
            fresh = torch.randperm(len(self.crops), generator=self.rng)
            self.waiting = torch.cat([self.waiting, fresh])
        size = self.recipe.batch
        chosen, self.waiting = self.waiting[:size], self.waiting[size:]
        pictures = self.crops[chosen.to(self.crops.device)].permute(0, 3, 1, 2).float()
        pictures = change(pictures, self.recipe.changes, self.rng)
        return (pictures - 127.5) / 127.5, self.owner[chosen]


Made = tuple[nn.Module, list[nn.Module], Step]


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


def _identity(recipe: Recipe, shots: Sequence[Shot], drawn: Sequence[Drawn], device: str) -> Made:
    if not isinstance(recipe, IdentityRecipe):
        raise TypeError("the identity network is trained by an IdentityRecipe")
    names = sorted({s.speaker for s in shots})
    labels = torch.tensor([names.index(s.speaker) for s in shots])
    network = CompactIdentity().to(device)
    head = ArcFace(len(names), recipe.scale).to(device)
    pictures = _Pictures(drawn, recipe, device)

    def step(number: int) -> Tensor:
        batch, takes = pictures.batch()
        margin = recipe.margin * min(1.0, 3 * number / recipe.steps)
        loss: Tensor = head(network(batch)["embedding"], labels[takes].to(device), margin)
        return loss

    return network, [network, head], step


def _expression(recipe: Recipe, shots: Sequence[Shot], drawn: Sequence[Drawn], device: str) -> Made:
    targets = soft_targets(shots).to(device)
    network = CompactExpression().to(device)
    pictures = _Pictures(drawn, recipe, device)

    def step(number: int) -> Tensor:
        batch, takes = pictures.batch()
        scores = network.scores(network.features(batch))
        return F.cross_entropy(scores, targets[takes.to(device)])

    return network, [network], step


def soft_targets(shots: Sequence[Shot]) -> Tensor:
    """Return intensity parts of the emotion and the rest neutral: float32 (takes, 7)."""
    targets = torch.zeros(len(shots), len(EMOTIONS))
    for row, shot in zip(targets, shots, strict=True):
        row[EMOTIONS.index(shot.emotion)] += shot.intensity
        row[EMOTIONS.index("neutral")] += 1 - shot.intensity
    return targets


def _sync(recipe: Recipe, shots: Sequence[Shot], drawn: Sequence[Drawn], device: str) -> Made:
    if not isinstance(recipe, SyncRecipe):
        raise TypeError("the lip sync network is trained by a SyncRecipe")
    network = CompactSync().to(device)
    rng = torch.Generator().manual_seed(recipe.seed)
    # As in the evaluation, the last five frames' windows are left out: their sound ends early.
    lengths = np.array([len(d.crops) for d in drawn])
    run = int(min(recipe.run, lengths.min() - 1))
    windows = run - WINDOW + 1
    if windows < 2:
        raise ValueError(f"takes of {lengths.min()} frames are too short to learn lip sync from")
    frames = torch.from_numpy(np.concatenate([d.crops for d in drawn])).to(device)
    first_frame = torch.from_numpy(np.cumsum(lengths) - lengths)
    versions = drawn[0].steps.shape[0]
    spoken = [d.steps.reshape(-1, 13) for d in drawn]
    sound = torch.from_numpy(np.concatenate(spoken)).to(device)
    n_steps = torch.tensor([d.steps.shape[1] for d in drawn])
    first_step = torch.cumsum(versions * n_steps, 0) - versions * n_steps
    after = torch.arange(windows)[:, None] * STEPS_PER_FRAME + torch.arange(MFCC_STEPS)[None]
    room = torch.from_numpy(lengths) - run

    def step(number: int) -> Tensor:
        takes = torch.randperm(len(drawn), generator=rng)[: recipe.batch]
        start = (torch.rand(len(takes), generator=rng) * room[takes]).long()
        version = torch.randint(versions, (len(takes),), generator=rng)
        at = first_frame[takes] + start
        pictures = frames[(at[:, None] + torch.arange(run)).flatten().to(device)]
        changed = change(pictures.permute(0, 3, 1, 2).float(), recipe.changes, rng, run=run)
        runs = changed.flip(1).reshape(len(takes), run, 3, *changed.shape[2:]).transpose(1, 2)
        heard_at = first_step[takes] + version * n_steps[takes] + STEPS_PER_FRAME * start
        heard = sound[(heard_at[:, None, None] + after).to(device)].transpose(2, 3)
        # A gain of the sound is a shift of the logarithm of its energy, and of nothing else.
        gain = (torch.rand(len(takes), generator=rng) * 2 - 1) * recipe.loudness
        heard = heard.clone()
        heard[:, :, 0] += (gain * math.log(10) / 10).to(device)[:, None, None]
        seen = network.visual(runs)
        spoken = network.audio(heard.reshape(-1, 1, 13, MFCC_STEPS)).reshape(seen.shape)
        return contrast(seen, spoken, recipe.temperature)

    return network, [network], step


def contrast(seen: Tensor, heard: Tensor, temperature: float) -> Tensor:
    """Return how badly windows find their partners, among their run's and among all.

    Args:
        seen: (runs, W, D), rows of length 1.
        heard: the same, window by window.
        temperature: that cosines are divided by.

    Returns:
        The mean of four cross-entropies: mouth to sound and sound to mouth, within each
        run (other times of the same take) and within the batch.
    """
    runs, windows, size = seen.shape
    within = seen @ heard.transpose(1, 2) / temperature
    among = seen.reshape(-1, size) @ heard.reshape(-1, size).T / temperature
    own = torch.arange(windows, device=seen.device).repeat(runs)
    every = torch.arange(runs * windows, device=seen.device)
    losses = [
        F.cross_entropy(within.reshape(-1, windows), own),
        F.cross_entropy(within.transpose(1, 2).reshape(-1, windows), own),
        F.cross_entropy(among, every),
        F.cross_entropy(among.T, every),
    ]
    return torch.stack(losses).mean()


def embed(
    function: Callable[[Tensor], Any], samples: npt.NDArray[np.generic], size: int = 64
) -> Any:
    """Run a function on samples in batches, without gradients; join what it returns."""
    with torch.inference_mode():
        parts = [
            function(torch.from_numpy(np.ascontiguousarray(samples[i : i + size])))
            for i in range(0, len(samples), size)
        ]
    if isinstance(parts[0], dict):
        return {k: torch.cat([p[k] for p in parts]).numpy() for k in parts[0]}
    return torch.cat(parts).numpy()
