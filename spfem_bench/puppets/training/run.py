"""One training from takes to files: weights, and a record of all that made them."""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from spfem_bench import provenance
from spfem_bench.files import check_writable, write_atomically
from spfem_bench.puppets.training.recipes import NetworkName, Recipe
from spfem_bench.puppets.training.takes import card, digest, draw_all, training_takes
from spfem_bench.puppets.world import World
from spfem_bench.stored import write_json

SOFTWARE = ("torch", "numpy", "scipy", "cv2", "python_speech_features")


@dataclass(frozen=True)
class Watcher:
    """Told how a training goes on; this one keeps silent.

    Attributes:
        begin: hears a phase's name and how many parts it has.
        part: hears that one more part is done, with the loss where there is one.
    """

    begin: Callable[[str, int], None] = lambda phase, parts: None
    part: Callable[[float | None], None] = lambda loss: None


@dataclass(frozen=True)
class Trained:
    """What a training left.

    Attributes:
        weights: the file of weights.
        record: what was written beside it.
    """

    weights: Path
    record: dict[str, Any]

    def card_lines(self) -> str:
        """Return the lines that pin these weights in the network's card."""
        return f'sha256 = "{self.record["sha256"]}"\nbytes = {self.record["bytes"]}'


def train(
    name: NetworkName,
    recipe: Recipe,
    world: World,
    folder: Path,
    *,
    device: str = "cpu",
    workers: int = 1,
    watcher: Watcher | None = None,
) -> Trained:
    """Train one network and write ``compact-NAME.safetensors`` and ``.json``.

    Nothing is written before all is done; the record comes last, so that weights with a
    record are whole.

    Args:
        name: which network.
        recipe: how.
        world: the puppets; only its training speakers and training sentences are seen.
        folder: where the files go.
        device: a torch device.
        workers: processes that draw; their number changes nothing.
        watcher: told how it goes on.

    Raises:
        StorageError: the folder cannot be written.
    """
    import torch
    from safetensors.torch import save

    from spfem_bench.puppets.training.learn import learn
    from spfem_bench.puppets.training.quality import held_out_takes, quality

    watcher = watcher or Watcher()
    check_writable(folder)
    shots = training_takes(world, name, recipe)
    began = time.monotonic()
    watcher.begin(f"{name}: draw", len(shots))
    drawn = draw_all(world, name, shots, recipe, workers=workers, done=lambda: watcher.part(None))
    drawn_after = time.monotonic()
    watcher.begin(f"{name}: learn", recipe.steps)
    learnt = learn(recipe, shots, drawn, name=name, device=device, told=watcher.part)
    learnt_after = time.monotonic()
    watcher.begin(f"{name}: check", len(held_out_takes(world, name)))
    found = quality(
        world, name, learnt.network, recipe, workers=workers, done=lambda: watcher.part(None)
    )
    state = {k: v.contiguous() for k, v in learnt.network.state_dict().items()}
    content = save(state)
    record = {
        "network": card(name).name,
        "recipe": recipe.described(),
        "world": {"version": world.version, "seed": world.seed, "size": world.size},
        "takes": {"count": len(shots), "sha256": digest(shots)},
        "samples": sum(len(d.crops) for d in drawn),
        "speakers": sorted({s.speaker for s in shots}),
        "sentences": sorted({s.sentence for s in shots}),
        "loss": {"first": learnt.first_loss, "last": learnt.last_loss},
        "held_out": found,
        "seconds": {
            "drawing": round(drawn_after - began, 1),
            "learning": round(learnt_after - drawn_after, 1),
            "checking": round(time.monotonic() - learnt_after, 1),
        },
        "device": provenance.device_name(device),
        "threads": torch.get_num_threads(),
        "workers": workers,
        "software": {"python": platform.python_version(), **provenance.versions(SOFTWARE)},
        "commit": provenance.commit(),
        "code": code_digest(),
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
    }
    weights = folder / card(name).files[0].name
    weights.with_suffix(".json").unlink(missing_ok=True)  # it speaks of other weights
    write_atomically(weights, content)
    write_json(weights.with_suffix(".json"), record)
    return Trained(weights, record)


def code_digest() -> str:
    """Return a hash of the code that makes the weights: puppets, training, networks, crops."""
    return provenance.code_digest(
        "demo/**/*.py",
        "networks/compact.py",
        "networks/syncnet.py",
        "faces/crop.py",
        "media/mfcc.py",
    )
