"""The three trainings: the estimator, the manipulator (stage 1), the renderer (stage 2).

STCCL compares features of ``compact-identity``, which also computes FAD and id-sim in the profile
``compact``, as ArcFace does in the papers: a gain in FAD may partly come from that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import Progress
from spfem_bench.puppets.mini_ned.config import Learning, MiniNedConfig, Supervision
from spfem_bench.puppets.mini_ned.data import FrameRun
from spfem_bench.puppets.mini_ned.morphable import Coefficients, Morphable
from spfem_bench.puppets.mini_ned.networks import (
    Animator,
    Critic,
    Estimator,
    Manipulator,
    Renderer,
    Shift,
    motion,
    relight,
    warp,
)
from spfem_bench.puppets.shots import Shot
from spfem_bench.stccl.metric import STCCL
from spfem_bench.stccl.settings import ContentSettings
from spfem_bench.training.kit import Checkpoint, Descent, seed_torch


class Material(NamedTuple):
    """What manipulator and renderer learn from: pixels, and the estimator's coefficients."""

    morphable: Morphable
    estimator: Estimator
    frames: Tensor  # uint8 (takes, T, 3, 128, 128), RGB
    face: Coefficients  # (takes, T, ...); the shape is the same in all frames of a take
    speaker: Tensor  # int64 (takes,)
    emotion: Tensor  # int64 (takes,), as in ``EMOTIONS``
    # Longer runs of the neutral takes, for windows that do not fit: frames and coefficients.
    sources: tuple[Tensor, Coefficients] | None = None


def scale_pixels(frames: Tensor) -> Tensor:
    """Return pixels as networks take them: uint8 to float32, 0 to 1."""
    return frames.float() / 255


def _stack_frames(drawn: Sequence[FrameRun]) -> Tensor:
    """Return the frames of takes of one length: uint8 (takes, T, 3, H, W)."""
    return torch.from_numpy(np.stack([d.frames for d in drawn])).permute(0, 1, 4, 2, 3)


def _descent(network: nn.Module, steps: int, rate: float) -> Descent:
    weights = list(network.parameters())
    return Descent(torch.optim.AdamW(weights, rate, betas=(0.9, 0.99)), steps, clip=weights)


# ---- the estimator --------------------------------------------------------------------------


def true_coefficients(morphable: Morphable, drawn: Sequence[FrameRun]) -> Coefficients:
    """Return the coefficients of drawn frames, from their geometry: (frames, ...)."""

    def project(rows: npt.NDArray[np.float64], basis: Tensor) -> Tensor:
        across = basis.double().cpu().numpy()  # its rows are orthogonal
        return torch.from_numpy(rows @ across.T / (across**2).sum(1)).float()

    mean = morphable.mean.double().cpu().numpy()
    rest = np.concatenate([np.repeat(d.rest[None], len(d.faces), 0) for d in drawn])
    faces = np.concatenate([d.faces for d in drawn])
    poses = torch.from_numpy(np.concatenate([d.poses for d in drawn])).float()
    shape, expression = project(rest - mean, morphable.shapes), faces - rest
    return Coefficients(shape, project(expression, morphable.expressions), poses)


def learn_estimator(
    how: Learning, morphable: Morphable, drawn: Sequence[FrameRun], device: str, progress: Progress
) -> Estimator:
    """Train the estimator, on true coefficients of training puppets."""
    seed_torch(0)
    network, morphable = Estimator().to(device).train(), morphable.to(device)
    frames = _stack_frames(drawn).flatten(0, 1).to(device)
    truth = Coefficients(*(x.to(device) for x in true_coefficients(morphable, drawn)))
    chance = torch.Generator().manual_seed(0)
    scale = torch.tensor(Estimator.POSE_SCALE, device=device)

    def loss(_: int) -> Tensor:
        chosen = torch.randint(len(frames), (how.batch,), generator=chance).to(device)
        face = network(scale_pixels(frames[chosen]))
        right = Coefficients(*(x[chosen] for x in truth))
        (points, looks), (places, depths) = morphable.points(face), morphable.points(right)
        return (
            200 * (points - places).abs().mean()
            + (looks - depths).abs().mean()
            + 0.5 * F.smooth_l1_loss(face.expression, right.expression)
            + 0.5 * F.smooth_l1_loss(face.shape, right.shape)
            + F.smooth_l1_loss(face.pose / scale, right.pose / scale)
        )

    descent = _descent(network, how.steps, how.rate)
    list(descent.run(loss, progress=progress, phase="estimator"))
    return network.eval()


@torch.no_grad()
def estimate_clip(estimator: Estimator, frames: Tensor) -> Coefficients:
    """Return the coefficients of frames, uint8 (T, 3, 128, 128); all have the mean shape."""
    parts = [estimator(scale_pixels(part)) for part in torch.split(frames, 64)]
    shape, expression, pose = (torch.cat(values) for values in zip(*parts, strict=True))
    return Coefficients(shape.mean(0, keepdim=True).expand_as(shape), expression, pose)


def estimate_runs(
    estimator: Estimator, drawn: Sequence[FrameRun], device: torch.device
) -> tuple[Tensor, Coefficients]:
    """Return the frames of takes, uint8 (takes, T, 3, H, W), and their coefficients."""
    frames = _stack_frames(drawn).to(device)
    faces = [estimate_clip(estimator, run) for run in frames]
    return frames, Coefficients(*(torch.stack(values) for values in zip(*faces, strict=True)))


def gather(
    morphable: Morphable, estimator: Estimator, shots: Sequence[Shot], drawn: Sequence[FrameRun]
) -> Material:
    """Return all takes with their estimated coefficients; their truth is not used from here on."""
    names = sorted({s.speaker for s in shots})
    return Material(
        morphable,
        estimator,
        *estimate_runs(estimator, drawn, morphable.mean.device),
        torch.tensor([names.index(s.speaker) for s in shots]),
        torch.tensor([EMOTIONS.index(s.emotion) for s in shots]),
    )


# ---- supervision ----------------------------------------------------------------------------


def supervisor(how: Supervision, weights: WeightsStore, device: str = "cpu") -> STCCL | None:
    """Return STCCL as configured, or None; raises UnknownNameError or WeightsError."""
    if how.form == "none":
        return None
    if how.form == "ct" and not how.trained:
        loss = STCCL.untrained(form="ct", value_range=(0, 1), weights=weights, device=device)
    else:
        loss = STCCL.load(
            how.metric, form=how.form, value_range=(0, 1), weights=weights, device=device
        )
    if isinstance(loss.settings, ContentSettings):
        if how.own_identity:
            loss.settings = loss.settings.model_copy(update={"identity": how.own_identity})
        if how.stride > 1:  # all frames that it is given are moments, this many frames apart
            moments = {"every": 1, "apart": -(-loss.settings.apart // how.stride)}
            loss.settings = loss.settings.model_copy(update=moments)
        return loss
    contrast = loss.settings.contrast.model_copy(update={"adaptive": how.adaptive})
    loss.settings = loss.settings.model_copy(update={"contrast": contrast})
    if not how.trained:
        loss.heads = None
    return loss


class _Windows:
    """Windows to supervise: neutral sources and references of any emotion, unpaired."""

    def __init__(self, material: Material, config: MiniNedConfig) -> None:
        self.how, self.references = config.stccl, len(material.emotion)
        self.frames, self.face = material.frames, material.face
        self.takes = (material.emotion == 0).nonzero()[:, 0]
        if self.how.span > self.frames.shape[1]:
            if material.sources is None:
                raise ValueError(f"no runs of {self.how.span} frames were drawn")
            self.frames, self.face = material.sources
            self.takes = torch.arange(len(self.frames))
        # A generator of its own, so that all else is drawn as without supervision.
        self.chance = torch.Generator().manual_seed(config.seed + 1)
        self.regions = torch.Generator().manual_seed(config.seed)

    def draw(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return takes (B, 1), their frames (B, span) and reference takes (B,)."""
        starts = self.frames.shape[1] - self.how.span + 1
        counts, size = (len(self.takes), starts, self.references), (self.how.batch,)
        source, first, other = (torch.randint(n, size, generator=self.chance) for n in counts)
        return self.takes[source, None], first[:, None] + torch.arange(self.how.span), other


def _run(values: Tensor, takes: Tensor, first: Tensor, length: int) -> Tensor:
    """Return runs of consecutive frames: (B, length, ...) of (takes, T, ...)."""
    return values[takes[:, None], first[:, None] + torch.arange(length)]


def _learn(
    descent: Descent,
    loss: Callable[[int], Tensor],
    until: int,
    start: Checkpoint | None,
    parts: Mapping[str, Any],
    chance: torch.Generator,
    progress: Progress,
    phase: str,
) -> list[float]:
    """Take all steps; return their losses.

    The state before the step *until*, where supervision begins, is read from *start* or written
    there. *parts* are networks and optimisers besides the descent's.
    """
    losses: list[float] = []

    def restore(state: dict[str, Any]) -> None:
        for name, part in parts.items():
            part.load_state_dict(state[name])
        descent.restore(state["descent"])
        chance.set_state(state["chance"])
        losses.extend(state["losses"])

    if start is not None:
        start.read(restore)
    if not losses and until:
        losses.extend(descent.run(loss, until, progress=progress, phase=phase))
        if start is not None:
            state = {name: part.state_dict() for name, part in parts.items()}
            state |= {"descent": descent.state(), "chance": chance.get_state(), "losses": losses}
            start.write(state)
    return losses + list(descent.run(loss, progress=progress, phase=phase))


# ---- stage 1 --------------------------------------------------------------------------------


def learn_manipulator(
    config: MiniNedConfig,
    material: Material,
    stccl: STCCL | None,
    start: Checkpoint | None,
    progress: Progress,
) -> tuple[Manipulator, list[float]]:
    """Train the manipulator without pairs; return it in eval mode, and the loss of each step.

    As in NED (section 3.2): a critic for each emotion, the reference's style, a cycle, and the
    correlation over time of the lips' opening. *stccl* compares renders of source and target.
    *start*, of a training that differs in *stccl* only, is continued and gives the same weights.
    """
    how, device = config.manipulator, str(material.frames.device)
    seed_torch(config.seed)
    network, critic = Manipulator().to(device), Critic().to(device)
    chance = torch.Generator().manual_seed(config.seed)
    windows = _Windows(material, config)
    judge = torch.optim.AdamW(critic.parameters(), how.rate, betas=(0.5, 0.99))
    morphable, face, takes = material.morphable, material.face, len(material.emotion)
    room = material.frames.shape[1] - how.window + 1
    unsupervised = int(config.stccl.begin * how.steps)

    def loss(number: int) -> Tensor:
        one, other = torch.randint(takes, (2, how.batch), generator=chance)
        first, again = torch.randint(room, (2, how.batch), generator=chance)
        source = _run(face.expression, one, first, how.window)
        real = _run(face.expression, other, again, how.window)
        emotion = material.emotion[other].to(device)
        style = network.style(face.expression[other])
        target = network(source, style)

        # Least squares: a critic of this size learns steadily by them.
        right, scores = critic(real)
        wrong, _ = critic(target.detach())
        own = emotion[:, None]
        verdict = ((right.gather(1, own) - 1) ** 2).mean() + (wrong.gather(1, own) ** 2).mean()
        verdict = verdict + F.cross_entropy(scores, emotion)
        judge.zero_grad(set_to_none=True)
        verdict.backward()
        judge.step()

        shape = _run(face.shape, one, first, how.window)
        back = network(target, network.style(face.expression[one]))
        realism, scores = critic(target)
        total = how.adversarial * ((realism.gather(1, own) - 1) ** 2).mean()
        total = total + how.emotion * F.cross_entropy(scores, emotion)
        total = total + how.style * (network.style(target) - style).abs().mean()
        total = total + how.cycle * (back - source).abs().mean()
        opening = [morphable.gap(Coefficients(shape, e, shape)) for e in (source, target)]
        total = total + how.speech * (1 - correlation(*opening).mean())
        if stccl is not None and config.stccl.on("renders") and number >= unsupervised:
            total = total + config.stccl.renders * supervised(stccl)
        return torch.as_tensor(total)

    def supervised(stccl: STCCL) -> Tensor:
        one, at, other = windows.draw()
        shape, source = (v[one, at] for v in windows.face[:2])
        target = network(source, network.style(face.expression[other]))
        still = torch.zeros(*shape.shape[:2], face.pose.shape[-1], device=device)
        some = slice(None, None, windows.how.stride)
        faces = [Coefficients(*(v[:, some] for v in (shape, e, still))) for e in (source, target)]
        before, after = (morphable.render(face) for face in faces)
        return cost_of_renders(stccl, before, after, windows.regions)

    descent = _descent(network, how.steps, how.rate)
    parts = {"network": network, "critic": critic, "judge": judge}
    phase = "manipulator"
    losses = _learn(descent, loss, unsupervised, start, parts, chance, progress, phase)
    return network.eval(), losses


def cost_of_renders(
    stccl: STCCL, source: Tensor, target: Tensor, generator: torch.Generator
) -> Tensor:
    """Return the loss of renders (B, T, 3, H, W), of ``ct`` without its term for identity.

    Both have the face's shape, so that what stays in them and differs is the emotion alone.
    """
    parts = stccl(source, target, generator=generator, parts=True)
    return torch.as_tensor(parts.get("sct", parts["loss"]))


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return Pearson's correlation over the last axis; 0 where nothing moves."""
    a, b = (x - x.mean(-1, keepdim=True) for x in (a, b))
    return (a * b).mean(-1) / ((a**2).mean(-1) * (b**2).mean(-1) + 1e-10).sqrt()


# ---- stage 2 --------------------------------------------------------------------------------


def learn_renderer(
    config: MiniNedConfig,
    material: Material,
    manipulator: Manipulator | Shift,
    stccl: STCCL | None,
    start: Checkpoint | None,
    progress: Progress,
    parent: Renderer | Animator | None = None,
) -> tuple[Renderer | Animator, list[float]]:
    """Train the renderer; return it in eval mode, and the loss of each step.

    The other frame is half of the time from another take, so that the expression cannot be copied;
    an animator's is from any take of the puppet.
    *stccl* compares neutral frames with what the manipulator makes of them. *start*, of a training
    that differs in *stccl* only, is continued and gives the same weights. The first weights are
    those of *parent*, if given. A configuration with an animator trains that instead.
    """
    how, device = config.animator or config.renderer, str(material.frames.device)
    seed_torch(config.seed)
    morphable = material.morphable
    network = (Animator() if config.animator else Renderer()).to(device)
    if parent is not None:
        network.load_state_dict(parent.state_dict())
    chance = torch.Generator().manual_seed(config.seed)
    windows = _Windows(material, config)
    takes, run = material.frames.shape[:2]
    mates = [(material.speaker == s).nonzero()[:, 0] for s in material.speaker]
    unsupervised = 0 if parent else int(config.stccl.begin * how.steps)

    def some(count: int) -> Tensor:
        return torch.randint(count, (how.batch,), generator=chance)

    def loss(number: int) -> Tensor:
        one, at, other_at, same = some(takes), some(run), some(run), some(2)
        random = torch.rand(how.batch, generator=chance)
        some_mates = [mates[k][int(r * len(mates[k]))] for k, r in zip(one, random, strict=True)]
        other = torch.stack(some_mates)
        if not config.animator:
            other = torch.where(same == 1, one, other)
        right = scale_pixels(material.frames[one, at])
        face = Coefficients(*(v[one, at] for v in material.face))
        before = Coefficients(*(v[other, other_at] for v in material.face))
        # Both source and target are hidden; here the source has another puppet's expression.
        source = face._replace(expression=face.expression.roll(1, 0))
        reference = scale_pixels(material.frames[other, other_at])
        mouths = morphable.details(face, 128)[:, None]
        if isinstance(network, Animator):
            drawn = network(morphable, face, reference, before)
            # A frame does not say what light and backdrop another take has: they are its own.
            head = morphable.mask(face, 128)[:, None]
            moved = warp(reference, motion(morphable, face, before))
            right = moved + head * (relight(right, moved, head * (1 - mouths)) - moved)
        else:
            render, hidden = morphable.render(before), cover(morphable, face, source)
            drawn = network(morphable, right, face, reference, before, render, hidden)
        weight = 1 + how.details * mouths
        away = drawn - right
        total = ((10 * away.abs() + 10 * how.squares * away**2) * weight).mean()
        edges = sum((drawn.diff(dim=d) - right.diff(dim=d)).abs().mean() for d in (2, 3))
        total = total + 10 * how.edges * edges
        maps = [material.estimator.maps(p) for p in (drawn, right)]
        apart = sum((x - y).abs().mean() for x, y in list(zip(*maps, strict=True))[:3])
        total = total + how.features * apart
        if config.animator:
            found = material.estimator.coefficients(maps[0][-1]).expression
            total = total + config.animator.units * F.smooth_l1_loss(found, face.expression)
        if stccl is not None and config.stccl.on("frames") and number >= unsupervised:
            total = total + config.stccl.frames * supervised(stccl)
        return torch.as_tensor(total)

    def supervised(stccl: STCCL) -> Tensor:
        one, at, other = windows.draw()
        source = Coefficients(*(v[one, at] for v in windows.face))
        with torch.no_grad():
            style = manipulator.style(material.face.expression[other])
            target = source._replace(expression=manipulator(source.expression, style))
        some, count = at[:, :: windows.how.stride], windows.how.window
        frames = scale_pixels(windows.frames[one, some])
        face, target = (
            Coefficients(*(v[:, :: windows.how.stride].flatten(0, 1) for v in x))
            for x in (source, target)
        )
        first = one[:, 0], torch.zeros(len(one), dtype=torch.int64)
        reference = scale_pixels(windows.frames[first]).repeat_interleave(count, 0)
        before = Coefficients(*(v[first] for v in windows.face))
        render = morphable.render(before).repeat_interleave(count, 0)
        before = Coefficients(*(v.repeat_interleave(count, 0) for v in before))

        def compared(target: Coefficients) -> dict[str, Tensor]:
            if isinstance(network, Animator):
                made = network(morphable, target, frames.flatten(0, 1), face)
            else:
                background, hidden = frames.flatten(0, 1), cover(morphable, target, face)
                made = network(morphable, background, target, reference, before, render, hidden)
            made = made.reshape(frames.shape)
            return dict(stccl(frames, made, generator=windows.regions, parts=True))

        parts = compared(target)
        if windows.how.own_identity:
            return parts["sct"] + windows.how.own_identity * compared(face)["identity"]
        return parts["loss"]

    descent = _descent(network, how.steps, how.rate)
    parts = {"network": network}
    losses = _learn(descent, loss, unsupervised, start, parts, chance, progress, "renderer")
    return network.eval(), losses


def cover(morphable: Morphable, target: Coefficients, source: Coefficients) -> Tensor:
    """Return what either of two faces covers: (B, 128, 128), 0 to 1."""
    return torch.maximum(morphable.mask(target, 128), morphable.mask(source, 128))
