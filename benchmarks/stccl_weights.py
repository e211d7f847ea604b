"""Which weight gives STCCL a stated share of a network's gradient: docs/plug_and_play.md.

    python benchmarks/stccl_weights.py FOLDER --config more-stccl-ct-ned --share 0.4 --share 1.2
    python benchmarks/stccl_weights.py FOLDER --config ablations --where renders --share 0.4

Losses of different forms have no common scale. The rule for all of them: a share is the norm of
the loss's gradient, times its weight, over the norm of the gradient of all else that the network
learns by. Both are means over 16 batches, in the weights with which supervision begins: those of
the parent's renderer, or of the manipulator or animator after three fifths of the steps. FOLDER
holds face.*, or gets it, as in 'spfem-bench demo train-ned'.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate
from torch import Tensor, nn

from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import SILENT
from spfem_bench.puppets.mini_ned import learn, train
from spfem_bench.puppets.mini_ned.config import MiniNedConfig, read_ned_configs
from spfem_bench.puppets.mini_ned.model import MiniNed, model_path
from spfem_bench.puppets.mini_ned.networks import Shift

BATCHES = 16
LARGE = 1e4  # a weight at which the reconstruction's gradient is nothing


class Norms:
    """Takes the place of gradient descent: measures gradients and takes no step."""

    def __init__(self, network: nn.Module, steps: int, rate: float) -> None:
        self.weights, self.last = list(network.parameters()), steps - 1
        self.found: list[float] = []

    def restore(self, state: dict[str, Any]) -> None:
        """Leave the optimiser of a start unused."""

    def run(self, loss: Callable[[int], Tensor], *_: Any, **__: Any) -> Iterator[float]:
        """Measure the gradients of some batches."""
        while len(self.found) < BATCHES:
            value = loss(self.last)
            found = torch.autograd.grad(value, self.weights)
            self.found.append(float(torch.stack([g.norm() for g in found]).norm()))
            yield float(value.detach())


def gradient(config: MiniNedConfig, where: str, work: train._Work, data: train._Data) -> float:
    """Return the mean norm of the gradient of a configuration's loss on renders or frames."""
    measured: list[Norms] = []

    def measuring(network: nn.Module, steps: int, rate: float) -> Any:
        measured.append(Norms(network, steps, rate))
        return measured[0]

    stccl = learn.supervisor(config.stccl, WeightsStore.locate(None))
    material = work.with_sources(data, config)
    stage = "manipulator" if where == "renders" else "animator"
    start = work.start(stage, config, data)

    def train_part() -> None:
        if where == "renders":
            learn.learn_manipulator(config, material, stccl, start, SILENT)
        elif config.animator:
            learn.learn_renderer(config, material, Shift(), stccl, start, SILENT)
        else:
            parent = MiniNed.load(model_path(config.parent))
            model = parent.manipulator, stccl, None, SILENT, parent.renderer
            learn.learn_renderer(config, material, *model)

    if (where == "renders" or config.animator) and not start.path.exists():
        train_part()
    descent, learn._descent = learn._descent, measuring
    try:
        train_part()
    finally:
        learn._descent = descent
    return float(np.mean(measured[0].found))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", action="append", required=True)
    parser.add_argument("--where", choices=["renders", "frames"], default="frames")
    parser.add_argument("--share", action="append", type=float, required=True)
    told = parser.parse_args()
    torch.set_num_threads(1)
    work = train._Work(told.folder, "cpu", 1, SILENT)
    configs = {k: how for name in told.config for k, how in read_ned_configs(name).items()}
    first = next(iter(configs.values()))
    data = work.prepare(first)

    def norm(config: MiniNedConfig, **stccl: Any) -> float:
        changed = config.model_copy(update={"stccl": config.stccl.model_copy(update=stccl)})
        return gradient(changed, told.where, work, data)

    plain, lines = norm(first, form="none"), []
    for name, config in configs.items():
        if config.stccl.on(told.where):
            own = norm(config, **{told.where: LARGE}) / LARGE
            lines.append(
                [name, f"{own:.4g}", *(f"{share * plain / own:.3g}" for share in told.share)]
            )
    print(f"Gradient without STCCL: {plain:.4g}")
    print(tabulate(lines, ["Configuration", "Gradient at weight 1", *map(str, told.share)]))


if __name__ == "__main__":
    main()
