"""Which weight gives STCCL a stated share of the renderer's gradient: docs/plug_and_play.md.

    python benchmarks/stccl_weights.py FOLDER --config more-stccl-ct-ned --share 0.4 --share 1.2

Losses of different forms have no common scale. The rule for all of them: a share is the norm of
the loss's gradient, times its weight, over the norm of the reconstruction's gradient. Both are
taken in the weights of the finished renderer, as means over 16 batches. FOLDER holds face.*, or
gets it, as in 'spfem-bench demo train-ned'.
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
from spfem_bench.puppets.mini_ned.config import MiniNedConfig, read_ned_config
from spfem_bench.puppets.mini_ned.model import MiniNed, model_path

BATCHES = 16
LARGE = 1e4  # a weight at which the reconstruction's gradient is nothing


class Norms:
    """Takes the place of gradient descent: measures gradients and takes no step."""

    def __init__(self, network: nn.Module, steps: int, rate: float) -> None:
        self.weights = list(network.parameters())
        self.found: list[float] = []

    def run(self, loss: Callable[[int], Tensor], *_: Any, **__: Any) -> Iterator[float]:
        """Measure the gradients of some batches."""
        while len(self.found) < BATCHES:
            value = loss(len(self.found))
            found = torch.autograd.grad(value, self.weights)
            self.found.append(float(torch.stack([g.norm() for g in found]).norm()))
            yield float(value.detach())


def gradient(config: MiniNedConfig, material: learn.Material, weights: WeightsStore) -> float:
    """Return the mean norm of the gradient of a configuration's loss."""
    parent = MiniNed.load(model_path(config.parent))
    measured: list[Norms] = []

    def measuring(network: nn.Module, steps: int, rate: float) -> Any:
        measured.append(Norms(network, steps, rate))
        return measured[0]

    descent, learn._descent = learn._descent, measuring
    try:
        stccl = learn.supervisor(config.stccl, weights)
        model = parent.manipulator, stccl, None, SILENT, parent.renderer
        learn.learn_renderer(config, material, *model)
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
    parser.add_argument("--share", action="append", type=float, required=True)
    told = parser.parse_args()
    torch.set_num_threads(1)
    weights, work = WeightsStore.locate(None), train._Work(told.folder, "cpu", 1, SILENT)
    configs = {name: read_ned_config(name) for name in told.config}
    first = next(iter(configs.values()))
    data = work.prepare(first)
    silent = first.model_copy(update={"stccl": first.stccl.model_copy(update={"form": "none"})})
    plain, lines = gradient(silent, data.material, weights), []
    for name, config in configs.items():
        loud = config.stccl.model_copy(update={"frames": LARGE})
        config = config.model_copy(update={"stccl": loud})
        own = gradient(config, work.with_sources(data, config), weights) / LARGE
        lines.append([name, f"{own:.4g}", *(f"{share * plain / own:.3g}" for share in told.share)])
    print(f"Gradient of the reconstruction: {plain:.4g}")
    print(tabulate(lines, ["Configuration", "Gradient at weight 1", *map(str, told.share)]))


if __name__ == "__main__":
    main()
