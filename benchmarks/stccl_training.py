"""STCCL's training and scoring: steps and frames per second, and where a step's time goes.

    python benchmarks/stccl_training.py [--steps 20] [--device cpu] [--threads 1]

Training steps per second and peak memory stand beside a plain implementation of the same
arithmetic.

The plain one goes layer by layer, pair by pair, frame by frame and region by region, as the
authors' released code does, and runs the backbone for each pair of pictures. Both see the same
windows and regions with the same first heads: their losses are compared first. Each row runs in
a process of its own; drawing is not counted. Memory is the whole process's on the CPU, that of
tensors on a GPU. The share of the loss is that of its forward and backward pass in a step; what is
left is the backbone or the maps' way from memory, and the optimiser.

Then the metric in use, as a loss in a model: the time of one call on windows of pictures, forward
and backward to the generated pictures, and how much of it is the backbone's; and scoring (SCC and
TCC of a clip beside its source), in pairs of frames a second, by the frames in a batch.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from tabulate import tabulate
from torch import Tensor, nn

from spfem_bench.features.pair_maps import CHUNK, PairMaps
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets.pairs import drawn_pairs
from spfem_bench.stccl import dense
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.backbone import Backbone, backbone
from spfem_bench.stccl.contrast import ContrastSettings
from spfem_bench.stccl.metric import STCCL, Heads
from spfem_bench.training.config import TrainConfig, default_config, read_train_config
from spfem_bench.training.kit import batch_of, seeded_generator
from spfem_bench.training.learner import Learner, form_centres, standardise
from spfem_bench.training.train import find_data
from spfem_bench.training.windows import Windows, choose_windows, map_sizes

ROWS = {
    "batched, maps in memory": "maps",
    "batched, backbone at each step": "pictures",
    "plain, maps in memory": "maps",
    "plain, backbone at each step": "pictures",
}


def cosines(x: list[Tensor], y: list[Tensor], head: nn.Module) -> tuple[Tensor, Tensor]:
    """Return cosines of mapped vectors, (K, K), and the mapped vectors of x."""
    a, b = head(torch.stack(x)), head(torch.stack(y))
    unit_a, unit_b = (v / v.norm(dim=1, keepdim=True).clamp_min(1e-6) for v in (a, b))
    return unit_a @ unit_b.T, a


def info_nce(alike: Tensor, size: Tensor, settings: ContrastSettings) -> Tensor:
    """Return the weighted loss of each row of cosines, (K,)."""
    weight = settings.strength * size.detach().sigmoid() ** settings.power
    target = torch.arange(len(alike), device=alike.device)
    loss = nn.functional.cross_entropy(alike / settings.temperature, target, reduction="none")
    return weight * loss


def by_matrix(
    x: list[Tensor], y: list[Tensor], head: nn.Module, settings: ContrastSettings
) -> Tensor:
    """Return the losses of one correlation matrix's rows, (K,)."""
    grams = []
    for vectors in (x, y):
        mapped = head(torch.stack(vectors))
        mapped = mapped / mapped.norm(dim=1, keepdim=True).clamp_min(1e-6)
        grams.append(mapped @ mapped.T)
    size = torch.stack(
        [
            torch.stack([2 - 2 * grams[0][i, j] for j in range(len(x)) if j != i])
            .clamp_min(0)
            .mean()
            for i in range(len(x))
        ]
    ).sqrt()
    itself = torch.eye(len(x), dtype=torch.bool, device=size.device)
    rows = []
    for gram in grams:
        others = gram.masked_fill(itself, 0)
        mean = others.sum(1, keepdim=True) / (len(x) - 1)
        centred = (others - mean).masked_fill(itself, 0)
        rows.append(centred / centred.norm(dim=1, keepdim=True).clamp_min(1e-5))
    return info_nce(rows[0] @ rows[1].T, size, settings)


def plain(windows: Windows, learner: Learner, batch: Tensor, centres: dict) -> Tensor:  # type: ignore[type-arg]
    """Return the loss of one step, one thing after the other."""
    total: list[Tensor] = []
    maps: list[list[list[Tensor]]] = [[[] for _ in range(4)] for _ in batch]  # [b][stage][t]
    for b, number in enumerate(batch):
        for t in range(windows.frames):
            if windows.pictures is None:
                found = [rows[number, :, t].float() for rows in windows.rows]
            else:
                device = next(windows.backbone.parameters()).device
                pair = windows.pictures[number, :, t].to(device).float() / 127.5 - 1
                with torch.no_grad():
                    found = [rep.feature_rows(m) for m in windows.backbone.stages(pair)]
            for stage, rows in enumerate(found):
                height, width = windows.sizes[stage]
                device = next(windows.backbone.parameters()).device
                maps[b][stage].append(rows.to(device).reshape(2, height, width, -1))
    for form, settings in learner.forms.items():
        how, heads = settings.contrast, learner.heads[form]
        for stage in range(4):
            space, in_time = heads.spatial[stage], heads.temporal[stage]
            spatial: list[Tensor] = []
            temporal: list[Tensor] = []
            for sequence in (frames[stage] for frames in maps):
                for x, y in sequence:
                    where = centres[form][0][stage].tolist()
                    if form == "cm":
                        a, b = ([m[r, c] for r, c in where] for m in (x, y))
                        spatial.append(by_matrix(a, b, space, how))
                        continue
                    near = [(r, c, r + d, c + e) for r, c in where for d, e in rep.STEPS[8]]
                    a, b = ([m[r, c] - m[p, q] for r, c, p, q in near] for m in (x, y))
                    alike, mapped = cosines(a, b, space)
                    spatial.append(info_nce(alike, mapped.square().mean(1).sqrt(), how))
                where = centres[form][1][stage].tolist()
                if form == "cm":
                    for r, c in where:
                        a, b = ([m[side, r, c] for m in sequence] for side in (0, 1))
                        temporal.append(by_matrix(a, b, in_time, how))
                    continue
                for i, j in rep.frame_pairs(len(sequence), how.pairs).tolist():
                    before, after = sequence[i], sequence[j]
                    a, b = ([before[s, r, c] - after[s, r, c] for r, c in where] for s in (0, 1))
                    alike, mapped = cosines(a, b, in_time)
                    temporal.append(info_nce(alike, mapped.square().mean(1).sqrt(), how))
            total += [torch.cat(spatial).mean() / 4, torch.cat(temporal).mean() / 4]
    return torch.stack(total).sum()


def prepared(config: TrainConfig, cache: str, device: str) -> tuple[Backbone, Windows, Learner]:
    """Draw one speaker's windows and make the first heads."""
    eyes = backbone(config.network, WeightsStore(), device=device)
    found = find_data(config, Path(), WeightsStore(), drawn_pairs).train
    windows = Windows(
        found, choose_windows(found, config.frames, 1), config.frames, eyes, cache=cache
    )
    torch.manual_seed(config.seed)
    learner = Learner(eyes.channels, config.forms, map_sizes(eyes))
    standardise(learner.to(device), windows, config.seed)
    return eyes, windows, learner


def measure(row: str, steps: int, device: str) -> dict[str, float]:
    """Train in this process; return steps per second, peak memory in MB, and the first loss."""
    config = read_train_config(default_config())
    config = config.model_copy(
        update={"data": config.data.model_copy(update={"speakers": 1, "held_out": 1, "checked": 1})}
    )
    _, windows, learner = prepared(config, ROWS[row], device)
    optimiser = torch.optim.Adam(learner.parameters(), lr=config.rate)
    one = plain if row.startswith("plain") else None
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    first = began = in_loss = 0.0
    for step in range(steps + 2):
        if step == 2:  # two to warm up
            began, in_loss = now(device), 0.0
        centres = form_centres(
            windows.sizes, config.forms, "sampled", seeded_generator(config.seed, "centres", step)
        )
        batch = batch_of(step, config.batch, len(windows), config.seed)
        optimiser.zero_grad()
        if one is plain:
            loss = plain(windows, learner, batch, centres)
            loss.backward()  # type: ignore[no-untyped-call]
        else:
            sample = windows.sample(batch, learner.forms, centres)
            start = now(device)
            parts = learner(sample)
            loss = torch.stack([named["loss"] for named in parts.values()]).sum()
            loss.backward()
            in_loss += now(device) - start
        optimiser.step()
        first = first or float(loss.detach())
    took = now(device) - began
    rate = steps / took
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device != "cpu":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return {"rate": rate, "peak": peak, "loss": first, "share": in_loss / took}


def now(device: str) -> float:
    """Return the time once the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    return time.perf_counter()


def median_seconds(work: Callable[[], object], steps: int, device: str) -> float:
    """Return the median time of a call, after two to warm up."""
    took = []
    for _ in range(steps + 2):
        begin = now(device)
        work()
        took.append(now(device) - begin)
    return statistics.median(took[2:])


def in_use(metric: str, steps: int, device: str) -> list[tuple[object, ...]]:
    """Return the time of one call of the loss, for several windows of five frames."""
    loss = STCCL.load(metric, value_range=(0, 1), device=device)
    eyes, rows = loss.backbone, []
    for windows in (1, 4, 8):
        shape = (windows, 5, 3, 112, 112)
        source, generated = (torch.rand(shape, device=device) for _ in range(2))
        generated.requires_grad_()

        def whole(source: Tensor = source, generated: Tensor = generated) -> None:
            torch.autograd.grad(loss(source, generated), generated)

        def backbone_alone(source: Tensor = source, generated: Tensor = generated) -> None:
            with torch.no_grad():
                eyes.stages(source.flatten(0, 1) * 2 - 1)
            maps = eyes.stages(generated.flatten(0, 1) * 2 - 1)
            torch.autograd.grad(sum(m.sum() for m in maps), generated)

        both = [median_seconds(work, steps, device) for work in (whole, backbone_alone)]
        rows.append((f"{windows} x 5 frames", 1000 * both[0], 1000 * both[1], both[1] / both[0]))
    return rows


def scored(metric: str, frames: int, device: str) -> list[tuple[object, ...]]:
    """Return how many pairs of frames are compared a second, by the frames in a batch."""
    loss = STCCL.load(metric, value_range=(0, 1), device=device)
    source, generated = (torch.rand(frames, 3, 112, 112, device=device) * 2 - 1 for _ in range(2))
    rows = []
    for size in (n * (dense.WINDOW - 1) + 1 for n in (1, 2, 4, 8, 16)):
        rates = []
        for heads in (None, loss.heads):

            def work(heads: Heads | None = heads, size: int = size) -> None:
                maps = PairMaps(heads)
                with torch.inference_mode():
                    for begin in range(0, frames - 1, size - 1):
                        x, y = (v[begin : begin + size] for v in (source, generated))
                        stages = loss.backbone.stages
                        maps.add(stages(x), stages(y), first=begin == 0)

            rates.append(frames / median_seconds(work, 3, device))
        rows.append((f"{size}{' (the product)' * (size == CHUNK)}", *rates))
    return rows


def main() -> None:
    """Measure each row in a process of its own and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW")
    parser.add_argument("--metric", default="puppets", help="for use and scoring")
    parser.add_argument("--frames", type=int, default=48, help="scored in one clip")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    if given.row:
        print(json.dumps(measure(given.row, given.steps, given.device)))
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    found = {}
    for row in given.rows:
        arguments = [
            sys.executable,
            __file__,
            "--row",
            row,
            "--steps",
            str(given.steps),
            "--device",
            given.device,
            "--threads",
            str(given.threads),
        ]
        done = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True)
        found[row] = json.loads(done.stdout.splitlines()[-1])
    losses = [values["loss"] for values in found.values()]
    assert max(losses) - min(losses) < 5e-3 * losses[0], losses  # half precision moves it that much
    slowest = found[given.rows[-1]]["rate"]
    rows = [
        (row, v["rate"], v["rate"] / slowest, v["share"] or None, v["peak"], v["loss"])
        for row, v in found.items()
    ]
    headers = ("training", "steps/s", "times", "the loss's share", "peak MB", "first loss")
    style = {"tablefmt": "github", "missingval": ""}
    print(tabulate(rows, headers, floatfmt=("", ".2f", ".1f", ".0%", ".0f", ".4f"), **style))
    rows = in_use(given.metric, given.steps, given.device)
    headers = ("in use, forward and backward", "ms", "backbone alone, ms", "its share")
    print()
    print(tabulate(rows, headers, floatfmt=("", ".1f", ".1f", ".0%"), **style))
    rows = scored(given.metric, given.frames, given.device)
    headers = ("frames in a batch", "pairs/s", "pairs/s, learnt heads")
    print()
    print(tabulate(rows, headers, floatfmt=("", ".1f", ".1f"), **style))


if __name__ == "__main__":
    main()
