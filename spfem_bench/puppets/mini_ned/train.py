"""Trainings of mini-NED from takes to files."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from spfem_bench.errors import SpfemBenchError
from spfem_bench.files import check_writable
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import SILENT, Progress
from spfem_bench.puppets.compact.train import SOFTWARE
from spfem_bench.puppets.mini_ned import learn
from spfem_bench.puppets.mini_ned.config import SHARED, MiniNedConfig
from spfem_bench.puppets.mini_ned.data import FrameRun, draw_run, unpaired_takes
from spfem_bench.puppets.mini_ned.model import (
    MiniNed,
    identity,
    model_path,
    read_model_record,
    read_networks,
    write_networks,
)
from spfem_bench.puppets.mini_ned.morphable import Coefficients, Morphable, training_faces
from spfem_bench.puppets.mini_ned.networks import Estimator, Manipulator, Renderer, Shift
from spfem_bench.puppets.shots import describe_shots, draw_shots
from spfem_bench.puppets.world import World
from spfem_bench.training.kit import Checkpoint, Trained, circumstances, first_and_last

_FILES = "puppets/*.py puppets/tables/*.csv puppets/mini_ned/*.py stccl/*.py training/kit.py"
_START = 2  # raised when the same settings give another start


def train_mini_ned(
    configs: Mapping[str, MiniNedConfig],
    folder: Path,
    *,
    weights: WeightsStore,
    device: str = "cpu",
    workers: int = 1,
    progress: Progress = SILENT,
) -> Iterator[Trained]:
    """Yield models, by the names of their files, once each is written to the folder.

    ``face`` is trained first unless the folder holds it. What models share is done once: takes by
    successive models, and the steps before supervision begins, whose end is kept in the folder as
    ``start-*.checkpoint``. Each model is the same as when trained alone. The progress has the
    phases ``draw``, ``estimator``, ``manipulator`` and ``renderer``.

    Raises:
        StorageError: the folder cannot be written.
        SpfemBenchError: STCCL's metric, or its backbone's weights, are missing or wrong.
    """
    check_writable(folder)
    for config in configs.values():  # errors are raised before any work
        _check_shared(folder, config)
        learn.supervisor(config.stccl, weights, device)
    work = _Work(folder, device, workers, progress)
    data: _Data | None = None
    manipulators: dict[str, tuple[Manipulator, list[float]]] = {}
    for name, config in configs.items():
        if data is None or data.config != _shared_config(config):
            _check_shared(folder, config)
            data = work.prepare(config)
        stccl = learn.supervisor(config.stccl, weights, device)
        material = work.with_sources(data, config)
        drawing = "animator" if config.animator else "renderer"
        kept = config.animator or (config.parent and not config.own_manipulator)
        stages = () if kept else ("manipulator",)
        clocks, losses = [time.monotonic()], {}
        starts = {stage: work.start(stage, config, data) for stage in (*stages, drawing)}
        shared = [stage for stage, start in starts.items() if start.path.exists()]
        parent = MiniNed.load(model_path(config.parent)) if config.parent else None
        if parent is not None and not isinstance(parent.renderer, Renderer):
            problem = f"the parent '{config.parent}' is a one-stage model, without a renderer"
            raise SpfemBenchError(problem, "Give another, such as 'ned'")
        manipulator: Manipulator | Shift
        if config.animator:
            manipulator = Shift()
        elif parent is not None and kept:
            manipulator = parent.manipulator.to(device)
        else:
            key = _manipulator_key(config)
            if key not in manipulators:
                manipulators[key] = learn.learn_manipulator(
                    config, material, stccl, starts["manipulator"], progress
                )
            manipulator, losses["manipulator"] = manipulators[key]
            clocks.append(time.monotonic())
        renderer, losses[drawing] = learn.learn_renderer(
            config,
            material,
            manipulator,
            stccl,
            starts[drawing],
            progress,
            parent and parent.renderer,
        )
        clocks.append(time.monotonic())
        seconds = dict(zip(starts, np.diff(clocks).round(1).tolist(), strict=True))
        training = {
            **data.common,
            "stccl": None if stccl is None or stccl.record is None else stccl.record.sha256,
            "loss": {stage: first_and_last(every) for stage, every in losses.items()},
            "parent": parent and identity(model_path(config.parent)),
            "seconds": {
                "drawing and estimating": data.seconds,
                **{f"{k}{', after a shared start' * (k in shared)}": v for k, v in seconds.items()},
            },
        }
        about = {"face": data.face, "config": config.model_dump(mode="json"), "training": training}
        networks = {"manipulator": manipulator, "renderer": renderer}
        path = folder / f"{name}.safetensors"
        yield Trained(path, write_networks(path, networks, about).model_dump(mode="json"))


class _Data(NamedTuple):
    """What models of one data set share: settings, SHA-256 of their networks, material, record."""

    config: dict[str, Any]
    face: str
    material: learn.Material
    common: dict[str, Any]
    seconds: float
    sources: dict[int, tuple[Tensor, Coefficients]]  # longer runs of neutral takes, by length


@dataclass(frozen=True)
class _Work:
    """Where and how data are prepared."""

    folder: Path
    device: str
    workers: int
    progress: Progress

    def prepare(self, config: MiniNedConfig) -> _Data:
        """Draw all takes and estimate their coefficients; train the estimator if it is missing."""
        clock, settings = time.monotonic(), config.data
        common = circumstances(self.device, SOFTWARE, *_FILES.split())
        world = World(settings.version, settings.seed)
        shots = unpaired_takes(world, settings.speakers, settings.takes, settings.choice)
        draw = partial(draw_run, world=world, frames=settings.frames, seed=settings.choice)
        drawn = draw_shots(draw, shots, self.workers, self.progress)
        common |= describe_shots(shots)
        morphable, estimator, face = self._face(config, drawn, world, common)
        material = learn.gather(morphable, estimator, shots, drawn)
        seconds = round(time.monotonic() - clock, 1)
        return _Data(_shared_config(config), face, material, common, seconds, {})

    def with_sources(self, data: _Data, config: MiniNedConfig) -> learn.Material:
        """Return the material, with longer runs of the neutral takes where windows need them."""
        how, settings = config.stccl, config.data
        if how.form == "none" or how.span <= settings.frames:
            return data.material
        if how.span not in data.sources:
            world = World(settings.version, settings.seed)
            takes = unpaired_takes(world, settings.speakers, settings.takes, settings.choice)
            shots = [shot for shot in takes if shot.emotion == "neutral"]
            draw = partial(draw_run, world=world, frames=how.span, seed=settings.choice)
            drawn = draw_shots(draw, shots, self.workers, self.progress)
            estimator = data.material.estimator
            runs = learn.estimate_runs(estimator, drawn, data.material.frames.device)
            data.sources[how.span] = runs
        return data.material._replace(sources=data.sources[how.span])

    def start(self, stage: str, config: MiniNedConfig, data: _Data) -> Checkpoint:
        """Return the file of a stage's state where supervision begins: the same in all forms."""
        how: dict[str, Any] = config.model_dump(
            mode="json", include={"seed": True, "data": True, stage: True, "stccl": {"begin"}}
        )
        how["parent"] = "" if stage == "manipulator" else config.parent  # it begins anew
        same = {key: data.common[key] for key in ("device", "threads", "software")}
        unique = {"start": _START, "face": data.face, **how, **same}
        digest = hashlib.sha256(json.dumps(unique, sort_keys=True).encode()).hexdigest()
        path = self.folder / f"start-{stage}-{digest[:12]}.checkpoint"
        return Checkpoint(path, unique, "Delete it: it is made again")

    def _face(
        self, config: MiniNedConfig, drawn: list[FrameRun], world: World, common: dict[str, Any]
    ) -> tuple[Morphable, Estimator, str]:
        """Return the shared networks and their file's hash: read, or trained and written."""
        path = self.folder / f"{SHARED}.safetensors"
        if not path.with_suffix(".json").is_file():
            clock = time.monotonic()
            morphable = Morphable.fit(training_faces(world, config.data.faces, config.data.choice))
            how, device = config.estimator, self.device
            estimator = learn.learn_estimator(how, morphable, drawn, device, self.progress)
            training = {**common, "seconds": round(time.monotonic() - clock, 1)}
            about = {"config": _shared_config(config), "training": training}
            write_networks(path, {"morphable": morphable, "estimator": estimator}, about)
        # As the file holds them, whatever device they were trained on.
        morphable, estimator = Morphable(), Estimator()
        record = read_networks(path, {"morphable": morphable, "estimator": estimator})
        return morphable.to(self.device), estimator.to(self.device), record.sha256


def _manipulator_key(config: MiniNedConfig) -> str:
    """Return all that decides a manipulator beside the material, which models may share."""
    how = config.model_dump_json(include={"seed": True, "data": True, "manipulator": True})
    of_frames = {"where", "frames", "own_identity"}
    return how + config.stccl.model_dump_json(exclude=of_frames) * config.stccl.on("renders")


def _check_shared(folder: Path, config: MiniNedConfig) -> None:
    shared = folder / f"{SHARED}.json"
    if shared.is_file() and read_model_record(shared).config != _shared_config(config):
        problem = f"{shared} was trained with other data or settings than this configuration's"
        raise SpfemBenchError(problem, "Name another folder with --output")


def _shared_config(config: MiniNedConfig) -> dict[str, Any]:
    """Return the settings that decide the shared file."""
    return config.model_dump(mode="json", include={"data", "estimator"})
