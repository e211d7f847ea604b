"""What all trainings share: seeded chance, gradient descent, checkpoints, and the record.

All chance of a step follows from the seed and the step's number, so that an interrupted training
ends with the same bytes, on the CPU with as many threads.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import ZipFile

import numpy as np
import torch
from torch import Tensor, nn

from spfem_bench import provenance
from spfem_bench.errors import CardError, SpfemBenchError
from spfem_bench.progress import SILENT, Progress
from spfem_bench.stored import read_checked, warn_unverified, write_checked

LARGEST_CHECKPOINT = 1_000_000_000
"""Bytes; the heads of all forms of the metric, with their averages, take tens of megabytes."""

LARGEST_GRADIENT = 5.0
"""Norm to which :class:`Descent` clips gradients."""


class Trained(NamedTuple):
    """The results of a training: the file of weights, and the record written beside it."""

    weights: Path
    record: dict[str, Any]


def seed_torch(seed: int) -> None:
    """Seed torch's own generator, and allow deterministic algorithms of cuDNN only."""
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    torch.manual_seed(seed)


def seeded_generator(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """Return a generator on the CPU, another one for each purpose and number."""
    # Hashed, since torch's generator on the CPU takes 32 bits of its seed.
    digest = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def batch_of(step: int, batch: int, count: int, seed: int) -> Tensor:
    """Return the samples of a step, counted from 0: int64 ``(batch,)``, none again before all."""
    places = range(step * batch, (step + 1) * batch)
    orders = {
        epoch: torch.randperm(count, generator=seeded_generator(seed, "order", epoch))
        for epoch in range(places[0] // count, places[-1] // count + 1)
    }
    return torch.stack([orders[p // count][p % count] for p in places])


Schedule = Callable[[int, int], float]
"""From a step and the number of steps to the share of the learning rate."""


def constant(step: int, steps: int) -> float:
    """Return 1."""
    return 1.0


def falling_cosine(step: int, steps: int) -> float:
    """Return a share that falls from 1 to 0.01 along half a cosine."""
    return 0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2


def warm_cosine(step: int, steps: int) -> float:
    """Return a share that rises over the first twentieth, then falls to 0.01 as a cosine.

    >>> [round(warm_cosine(k, 101), 2) for k in (0, 4, 5, 53, 101)]
    [0.2, 1.0, 1.0, 0.51, 0.01]
    """
    rise = max(1, steps // 20)
    if step < rise:
        return (step + 1) / rise
    done = min(1.0, (step - rise) / max(1, steps - rise))
    return 0.01 + 0.99 * (1 + math.cos(math.pi * done)) / 2


class Descent:
    """Gradient descent over a known number of steps, which can be interrupted after each.

    The optimiser's learning rates are the largest of the schedule. Gradients of the parameters
    *clip* are clipped to the norm :data:`LARGEST_GRADIENT`. An ``accelerate.Accelerator`` is one
    that prepared the optimiser; the loss is then averaged over its processes.
    """

    def __init__(
        self,
        optimiser: torch.optim.Optimizer,
        steps: int,
        schedule: Schedule = warm_cosine,
        *,
        clip: Iterable[nn.Parameter] = (),
        accelerator: Any = None,
    ) -> None:
        self.optimiser, self.steps, self.schedule = optimiser, steps, schedule
        self.clip, self.accelerator = list(clip), accelerator
        self.step = 0
        self._rates = [group["lr"] for group in optimiser.param_groups]

    def run(
        self,
        loss: Callable[[int], Tensor],
        until: int | None = None,
        *,
        progress: Progress = SILENT,
        phase: str = "learn",
    ) -> Iterator[float]:
        """Take steps and yield the loss of each; nothing happens unless the caller iterates.

        *loss* returns a step's loss by its number, a scalar with gradients. The step *until*, by
        default none, is not taken.

        Raises:
            SpfemBenchError: a loss is not finite; the step is not taken.
        """
        progress.begin(phase, self.steps, "step", self.step)
        while self.step < (self.steps if until is None else until):
            value = self.take(loss(self.step))
            progress.advance(phase, loss=value)
            yield value
        progress.end(phase)

    def take(self, loss: Tensor) -> float:
        """Take one step; return the loss, averaged over processes."""
        detached = loss.detach()
        if self.accelerator is not None:
            detached = self.accelerator.reduce(detached, "mean")
        value = float(detached)
        if not math.isfinite(value):
            raise SpfemBenchError(
                f"the loss of step {self.step} is {value}",
                "Give a smaller learning rate, or train in float32",
            )
        for group, rate in zip(self.optimiser.param_groups, self._rates, strict=True):
            group["lr"] = rate * self.schedule(self.step, self.steps)
        self.optimiser.zero_grad()
        if self.accelerator is not None:
            self.accelerator.backward(loss)
        else:
            loss.backward()  # type: ignore[no-untyped-call]
        if self.clip:
            nn.utils.clip_grad_norm_(self.clip, LARGEST_GRADIENT)
        self.optimiser.step()
        self.step += 1
        return value

    def state(self) -> dict[str, Any]:
        """Return what the next step needs besides the weights, not copied."""
        return {"step": self.step, "optimiser": self.optimiser.state_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        self.optimiser.load_state_dict(state["optimiser"])
        self.step = state["step"]


def first_and_last(losses: Sequence[float]) -> dict[str, float]:
    """Return the mean loss over the first and the last twentieth of the steps."""
    part = max(1, len(losses) // 20)
    return {"first": float(np.mean(losses[:part])), "last": float(np.mean(losses[-part:]))}


class Checkpoint:
    """The file from which an interrupted training continues.

    *identity* is everything that affects the result; a file of another training is refused.
    *remedy* is what to do about a file that is.
    """

    def __init__(
        self,
        path: Path,
        identity: Mapping[str, Any],
        remedy: str = "Name another folder, or begin anew with --fresh",
    ) -> None:
        self.path, self.identity = path, json.dumps(identity, sort_keys=True)
        self.remedy = remedy

    def write(self, state: Mapping[str, Any]) -> None:
        """Write a state, whole or not at all."""
        content = io.BytesIO()
        torch.save({"identity": self.identity, **state}, content)
        write_checked(self.path, content.getvalue())

    def read(self, restore: Callable[[dict[str, Any]], None]) -> None:
        """Read the state, on the CPU, if the file exists, and give it to *restore*.

        Raises:
            CardError: the file is damaged, *restore* fails, or it belongs to another training.
        """
        if not self.path.exists():
            return
        try:
            content, verified = read_checked(self.path, LARGEST_CHECKPOINT)
            if not verified and ZipFile(io.BytesIO(content)).testzip() is not None:
                raise ValueError("it was damaged")
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            differing = _differences(json.loads(state["identity"]), json.loads(self.identity))
            if not differing:
                restore(state)
        except Exception as error:  # torch raises a dozen kinds for foreign bytes
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise CardError(
                f"{self.path} is no checkpoint of a training: {reason[:120]}", self.remedy
            ) from error
        if differing:
            shown = f"{', '.join(differing[:3])}{', …' if len(differing) > 3 else ''}"
            raise CardError(f"{self.path} belongs to a training with another {shown}", self.remedy)
        if not verified:
            warn_unverified(self.path, "Begin anew with --fresh, or go on if you trust it")


def _differences(old: Any, new: Any) -> list[str]:
    """Return the names of the settings in which two trainings differ."""

    def flat(value: Any, name: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {name: value}
        inner = (flat(v, f"{name}.{key}" if name else key) for key, v in value.items())
        return {key: v for part in inner for key, v in part.items()}

    was, now = flat(old), flat(new)
    return [key for key in {**was, **now} if was.get(key) != now.get(key)]


def circumstances(device: str, packages: Iterable[str], *code: str) -> dict[str, Any]:
    """Return ``device``, ``threads``, ``software``, ``commit``, ``code`` of a training's record.

    *code* are patterns of the package's files. Call it before the work: files may have changed
    when that ends.
    """
    return {
        "device": provenance.device_name(device),
        "threads": torch.get_num_threads(),
        "software": {"python": platform.python_version(), **provenance.versions(packages)},
        "commit": provenance.commit(),
        "code": provenance.code_digest(*code),
    }
