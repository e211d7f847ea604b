"""Trainings from takes to files."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from spfem_bench import provenance
from spfem_bench.errors import SpfemBenchError
from spfem_bench.files import check_writable
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets.mini_ned import learn
from spfem_bench.puppets.mini_ned.config import SHARED, MiniNedConfig, Supervision
from spfem_bench.puppets.mini_ned.data import Drawn, draw_all, training_takes
from spfem_bench.puppets.mini_ned.model import ModelRecord, read, read_record, write
from spfem_bench.puppets.mini_ned.morphable import Morphable, training_faces
from spfem_bench.puppets.mini_ned.networks import Estimator
from spfem_bench.puppets.training.run import SOFTWARE, Watcher
from spfem_bench.puppets.training.takes import digest
from spfem_bench.puppets.world import World


class Trained(NamedTuple):
    """What a training left: the file of weights, and the record beside it."""

    weights: Path
    record: ModelRecord


def train(
    chosen: Mapping[str, MiniNedConfig],
    folder: Path,
    *,
    weights: WeightsStore,
    device: str = "cpu",
    workers: int = 1,
    watcher: Watcher | None = None,
) -> Iterator[Trained]:
    """Train models one after the other, and what all share unless the folder holds it already.

    What two of them have in common, takes and a renderer's learning before it is supervised, is
    done once when one follows the other; alone, each becomes the same.

    Args:
        chosen: how, by the names of the models' files.
        folder: where the files go; what lies there as ``face`` is used when it was learnt as
            they ask for.
        weights: where STCCL's backbone is looked for.
        device: a torch device.
        workers: processes that draw; their number changes nothing.
        watcher: told how it goes on.

    Yields:
        each model once its files are written.

    Raises:
        StorageError: the folder cannot be written.
        SpfemBenchError: STCCL's metric, or the weights it stands on, are missing or wrong.
    """
    watcher = watcher or Watcher()
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    check_writable(folder)
    for config in chosen.values():  # what is wrong is said before any work
        _check_shared(folder, config)
        learn.supervisor(config.stccl, weights, device)
    seen: _Seen | None = None
    begun: tuple[object, learn.Begun] | None = None
    for name, config in chosen.items():
        if seen is None or seen.asked != _asked(config):
            _check_shared(folder, config)
            seen = _see(config, folder, device, workers, watcher)
        same = config.model_dump(exclude={"stccl": set(Supervision.model_fields) - {"begin"}})
        loss = learn.supervisor(config.stccl, weights, device)
        losses: dict[str, list[float]] = {}
        seconds = {"drawing and estimating": seen.seconds}

        def heard(phase: str, steps: int, losses: dict[str, list[float]] = losses) -> learn.Told:
            watcher.begin(phase, steps)
            losses[phase] = kept = []

            def told(value: float) -> None:
                kept.append(value)
                watcher.part(value)

            return told

        clock = time.monotonic()
        manipulator = learn.learn_manipulator(
            config,
            seen.morphable,
            seen.material,
            loss,
            told=heard("manipulator", config.manipulator.steps),
        )
        seconds["manipulator"] = round(time.monotonic() - clock, 1)
        clock = time.monotonic()
        shared = begun[1] if begun and begun[0] == same else None
        renderer, start = learn.learn_renderer(
            config,
            seen.morphable,
            seen.estimator,
            seen.material,
            manipulator,
            loss,
            begun=shared,
            told=heard("renderer", config.renderer.steps),
        )
        begun = same, start
        what = "renderer, after a shared start" if shared else "renderer"
        seconds[what] = round(time.monotonic() - clock, 1)
        record = {
            "face": seen.face,
            "config": config.model_dump(mode="json"),
            "training": {
                **seen.common,
                "stccl": None if loss is None or loss.record is None else loss.record.sha256,
                "loss": {phase: _ends(kept) for phase, kept in losses.items()},
                "seconds": seconds,
            },
        }
        path = folder / f"{name}.safetensors"
        networks = {"manipulator": manipulator, "renderer": renderer}
        yield Trained(path, write(path, networks, record))


class _Seen(NamedTuple):
    """What models of one data set share.

    Attributes:
        asked: what decided it.
        morphable: the morphable model.
        estimator: in eval mode.
        face: SHA-256 of the file that holds both.
        material: what is learnt from.
        common: what all records say of it.
        seconds: that it took.
    """

    asked: dict[str, Any]
    morphable: Morphable
    estimator: Estimator
    face: str
    material: learn.Material
    common: dict[str, Any]
    seconds: float


def _see(config: MiniNedConfig, folder: Path, device: str, workers: int, watcher: Watcher) -> _Seen:
    """Draw all takes, and look at them with the estimator; learn it first where it is missing."""
    world = World(config.data.version, config.data.seed)
    shots = training_takes(world, config.data.speakers, config.data.takes, config.data.choice)
    clock = time.monotonic()
    watcher.begin("draw", len(shots))
    drawn = draw_all(
        world,
        shots,
        frames=config.data.frames,
        seed=config.data.choice,
        workers=workers,
        done=lambda: watcher.part(None),
    )
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
    seconds = round(time.monotonic() - clock, 1)
    return _Seen(_asked(config), morphable, estimator, face, material, common, seconds)


def _check_shared(folder: Path, config: MiniNedConfig) -> None:
    shared = folder / f"{SHARED}.json"
    if shared.is_file() and read_record(shared).config != _asked(config):
        raise SpfemBenchError(
            f"{shared} was learnt from other data, or otherwise, than this configuration asks",
            "Name another folder with --output",
        )


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
        path,
        {"morphable": morphable, "estimator": estimator},
        {"config": _asked(config), "training": {**common, "seconds": seconds}},
    )
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
