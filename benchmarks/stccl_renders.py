"""What STCCL costs on renders: of the truth, of wrong words and of what manipulators make.

    python benchmarks/stccl_renders.py --config ablations --model ned --model ablations-ct

For each clip of a protocol of puppets a window of the source's true coefficients is rendered, and
compared with itself (nothing), with the same puppet's in the target emotion (a perfect
manipulation), with those of the reference's sentence (wrong words), and with what the manipulators
of models make of it. Prints the loss, a mean over clips, for each configuration that supervises
renders; the last line is the cost of a perfect manipulation as a share of wrong words', both less
that of nothing.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from stccl_effect import _truth
from tabulate import tabulate
from torch import Tensor

from spfem_bench.definitions.protocols import protocol as protocol_card
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets.face import FaceState
from spfem_bench.puppets.mini_ned import learn
from spfem_bench.puppets.mini_ned.config import read_ned_configs
from spfem_bench.puppets.mini_ned.data import FrameRun
from spfem_bench.puppets.mini_ned.model import MiniNed, model_path
from spfem_bench.puppets.mini_ned.morphable import Coefficients, face_vector
from spfem_bench.puppets.world import Take, World

FIRST = 10  # frame of a take where its window begins


def _expression(take: Take) -> Tensor:
    return torch.from_numpy(_truth(take)).float()


def _shape(model: MiniNed, take: Take) -> Tensor:
    rest = face_vector(take.speaker.look, FaceState())
    run = FrameRun(np.zeros((0, 0, 0, 3), np.uint8), rest, rest[None], np.zeros((1, 5)))
    return learn.true_coefficients(model.morphable, [run]).shape


@torch.no_grad()
def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", action="append", required=True)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--protocol", default="demo-inter-id")
    told = parser.parse_args()
    configs = {k: how for name in told.config for k, how in read_ned_configs(name).items()}
    configs = {k: how for k, how in configs.items() if how.stccl.on("renders")}
    store, world = WeightsStore.locate(None), World()
    losses = {k: learn.supervisor(how.stccl, store) for k, how in configs.items()}
    models = {name: MiniNed.load(model_path(name)) for name in ("ned", *told.model)}
    morphable = models["ned"].morphable
    costs: dict[str, dict[str, list[float]]] = {}
    for number, item in enumerate(protocol_card(told.protocol).items):
        row = item.row
        take = world.take(item.speaker, "neutral", row["sentence"])
        other = world.take(item.speaker, "neutral", row["reference_sentence"])
        felt = world.take(row["reference_speaker"], item.emotion, row["reference_sentence"])
        source, shape, like = _expression(take), _shape(models["ned"], take), _expression(felt)
        made = {
            "nothing": source,
            "a perfect manipulation": _expression(take.with_face(item.emotion)),
            "wrong words": _expression(other),
        }
        for name in told.model:
            network = models[name].manipulator
            made[name] = network(source[None], network.style(like[None]))[0]
        for name, config in configs.items():
            some = slice(FIRST, FIRST + config.stccl.span, config.stccl.stride)

            def render(expression: Tensor, some: slice = some, shape: Tensor = shape) -> Tensor:
                few = expression[some]
                face = Coefficients(shape.expand(len(few), -1), few, torch.zeros(len(few), 5))
                return morphable.render(face)[None]

            loss = losses[name]
            assert loss is not None
            for what, expression in made.items():
                chance = torch.Generator().manual_seed(number)
                value = learn.cost_of_renders(loss, render(source), render(expression), chance)
                costs.setdefault(what, {}).setdefault(name, []).append(float(value))
    means = {what: {k: float(np.mean(v)) for k, v in each.items()} for what, each in costs.items()}
    lines = [[what, *(f"{each[k]:.3f}" for k in configs)] for what, each in means.items()]
    nothing, perfect, wrong = [*means.values()][:3]
    shares = [(perfect[k] - nothing[k]) / (wrong[k] - nothing[k]) for k in configs]
    lines.append(["perfect / wrong words", *(f"{share:.3f}" for share in shares)])
    print(tabulate(lines, ["", *configs], disable_numparse=True))


if __name__ == "__main__":
    main()
