"""One training from takes to files."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from spfem_bench import provenance
from spfem_bench.demo.training.run import SOFTWARE, Watcher
from spfem_bench.demo.training.takes import digest
from spfem_bench.demo.world import World
from spfem_bench.errors import SpfemBenchError
from spfem_bench.files import check_writable
from spfem_bench.mini_ned import learn
from spfem_bench.mini_ned.config import SHARED, MiniNedConfig
from spfem_bench.mini_ned.data import Drawn, draw_all, training_takes
from spfem_bench.mini_ned.model import ModelRecord, read, read_record, write
from spfem_bench.mini_ned.morphable import Morphable, training_faces
from spfem_bench.mini_ned.networks import Estimator
from spfem_bench.networks.weights import WeightsStore


class Trained(NamedTuple):
    """What a training left: the file of weights, and the record beside it."""

    weights: Path
    record: ModelRecord


def train(
    config: MiniNedConfig,
    folder: Path,
    name: str,
    *,
    weights: WeightsStore,
    device: str = "cpu",
    workers: int = 1,
    watcher: Watcher | None = None,
) -> Trained:
    """Train one model, and what all models share unless the folder holds it already.

    Args:
        config: how.
        folder: where the files go; what lies there as ``face`` is used when it was learnt as
            *config* asks for.
        name: of the model's files.
        weights: where STCCL's backbone is looked for.
        device: a torch device.
        workers: processes that draw; their number changes nothing.
        watcher: told how it goes on.

    Raises:
        StorageError: the folder cannot be written.
        SpfemBenchError: STCCL's metric, or the weights it stands on, are missing or wrong.
    """
    watcher = watcher or Watcher()
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    check_writable(folder)
    shared = folder / f"{SHARED}.json"
    if shared.is_file() and read_record(shared).config != _asked(config):
        raise SpfemBenchError(
            f"{shared} was learnt from other data, or otherwise, than this configuration asks",
            "Name another folder with --output",
        )
    loss = learn.supervisor(config.stccl, weights, device)
    world = World(config.data.version, config.data.seed)
    shots = training_takes(world, config.data.speakers, config.data.takes, config.data.choice)
    began = time.monotonic()
    watcher.begin("draw", len(shots))
    drawn = draw_all(
        world, shots, frames=config.data.frames, seed=config.data.choice, workers=workers,
        done=lambda: watcher.part(None),
    )  # fmt: skip
    common: dict[str, Any] = {
        "takes": {"count": len(shots), "sha256": digest(shots)},
        "speakers": sorted({s.speaker for s in shots}),
        "sentences": sorted({s.sentence for s in shots}),
        "device": provenance.device_name(device),
        "threads": torch.get_num_threads(),
        "software": {"python": platform.python_version(), **provenance.versions(SOFTWARE)},
        "commit": provenance.commit(),
        "code": provenance.code_digest("demo/*.py", "mini_ned/*.py", "stccl/*.py"),
    }
    morphable, estimator, face = _face(config, folder, drawn, world, common, device, watcher)
    material = learn.gather(estimator, shots, drawn, device)
    seconds = {"drawing and estimating": round(time.monotonic() - began, 1)}
    losses: dict[str, list[float]] = {}

    def heard(phase: str, steps: int) -> Callable[[float], None]:
        watcher.begin(phase, steps)
        losses[phase] = kept = []

        def told(loss: float) -> None:
            kept.append(loss)
            watcher.part(loss)

        return told

    began = time.monotonic()
    manipulator = learn.learn_manipulator(
        config, morphable, material, loss, told=heard("manipulator", config.manipulator.steps)
    )
    seconds["manipulator"] = round(time.monotonic() - began, 1)
    began = time.monotonic()
    renderer = learn.learn_renderer(
        config, morphable, estimator, material, manipulator, loss,
        told=heard("renderer", config.renderer.steps),
    )  # fmt: skip
    seconds["renderer"] = round(time.monotonic() - began, 1)
    record = {
        "face": face,
        "config": config.model_dump(mode="json"),
        "training": {
            **common,
            "stccl": None if loss is None or loss.record is None else loss.record.sha256,
            "loss": {phase: _ends(kept) for phase, kept in losses.items()},
            "seconds": seconds,
        },
    }
    path = folder / f"{name}.safetensors"
    return Trained(path, write(path, {"manipulator": manipulator, "renderer": renderer}, record))


def _face(
    config: MiniNedConfig,
    folder: Path,
    drawn: list[Drawn],
    world: World,
    common: dict[str, Any],
    device: str,
    watcher: Watcher,
) -> tuple[Morphable, Estimator, str]:
    """Return what all models share, and its hash: read, or learnt and written."""
    path = folder / f"{SHARED}.safetensors"
    if path.with_suffix(".json").is_file():
        return _read_face(path, device)
    began = time.monotonic()
    morphable = Morphable.fit(training_faces(world, config.data.faces, config.data.choice))
    watcher.begin("estimator", config.estimator.steps)
    estimator = learn.learn_estimator(config, morphable, drawn, device=device, told=watcher.part)
    seconds = round(time.monotonic() - began, 1)
    write(
        path, {"morphable": morphable, "estimator": estimator},
        {"config": _asked(config), "training": {**common, "seconds": seconds}},
    )  # fmt: skip
    return _read_face(path, device)  # as files hold it, whatever device it was learnt on


def _read_face(path: Path, device: str) -> tuple[Morphable, Estimator, str]:
    morphable, estimator = Morphable(), Estimator()
    record = read(path, {"morphable": morphable, "estimator": estimator})
    return morphable.to(device), estimator.to(device), record.sha256


def _asked(config: MiniNedConfig) -> dict[str, Any]:
    """Return what decides the shared file."""
    return config.model_dump(mode="json", include={"data", "estimator"})


def _ends(losses: list[float]) -> dict[str, float]:
    """Return the mean loss over the first and the last twentieth of the steps."""
    part = max(1, len(losses) // 20)
    return {"first": float(np.mean(losses[:part])), "last": float(np.mean(losses[-part:]))}
