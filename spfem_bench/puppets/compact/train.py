"""One training from takes to files: weights, and their record."""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from spfem_bench.files import check_writable, write_atomically
from spfem_bench.progress import SILENT, Progress
from spfem_bench.puppets.compact.recipes import NetworkName, Recipe
from spfem_bench.puppets.compact.takes import compact_card, draw_take, training_takes
from spfem_bench.puppets.shots import describe_shots, draw_shots
from spfem_bench.puppets.world import World
from spfem_bench.stored import write_json
from spfem_bench.training.kit import Trained, circumstances, first_and_last

SOFTWARE = ("torch", "numpy", "scipy", "cv2", "python_speech_features")  # versions are recorded

_FILES = """puppets/*.py puppets/tables/*.csv puppets/compact/*.py networks/compact.py
networks/syncnet.py faces/crop.py media/mfcc.py training/kit.py"""


def train_compact(
    name: NetworkName,
    recipe: Recipe,
    world: World,
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    progress: Progress = SILENT,
) -> Trained:
    """Train one network and write ``compact-NAME.safetensors``, then its record ``.json``.

    Phases: ``NAME: draw``, ``NAME: learn`` and ``NAME: check``. Raises StorageError.
    """
    from safetensors.torch import save

    from spfem_bench.puppets.compact import quality
    from spfem_bench.puppets.compact.learn import learn

    check_writable(folder)
    environment = circumstances(device, SOFTWARE, *_FILES.split())
    shots = training_takes(world, name, recipe)
    times = [time.monotonic()]
    draw = partial(draw_take, world=world, name=name, recipe=recipe)
    drawn = draw_shots(draw, shots, workers, progress, f"{name}: draw")
    times.append(time.monotonic())
    network, losses = learn(name, recipe, shots, drawn, device, progress)
    times.append(time.monotonic())
    held_out = quality.held_out_quality(world, name, network, recipe, workers, progress)
    times.append(time.monotonic())
    content = save({k: v.contiguous() for k, v in network.state_dict().items()})
    seconds = [round(end - start, 1) for start, end in pairwise(times)]
    record = {
        "network": compact_card(name).name,
        "recipe": asdict(recipe),
        "world": {"version": world.version, "seed": world.seed, "size": world.size},
        **describe_shots(shots),
        "samples": sum(len(d.crops) for d in drawn),
        "loss": first_and_last(losses),
        "held_out": held_out,
        "seconds": dict(zip(("drawing", "learning", "checking"), seconds, strict=True)),
        **environment,
        "workers": workers,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    weights = folder / compact_card(name).files[0].name
    weights.with_suffix(".json").unlink(missing_ok=True)  # it belongs to other weights
    write_atomically(weights, content)
    write_json(weights.with_suffix(".json"), record)
    return Trained(weights, record)


def card_lines(record: dict[str, Any]) -> str:
    """Return the lines that pin a training's weights in the network's card."""
    return f'sha256 = "{record["sha256"]}"\nbytes = {record["bytes"]}'
