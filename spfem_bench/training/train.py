"""The training of the metric's mapping heads (ASCCL, CVPR 2024, section 4.1; STCCL)."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from spfem_bench.datasets.pair_lists import five_points, hold_out, listed_pairs
from spfem_bench.datasets.pairs import EmotionPair, pairs_digest
from spfem_bench.definitions.networks import network_card
from spfem_bench.errors import CardError, StcclError
from spfem_bench.extras import extra
from spfem_bench.files import check_writable
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import SILENT, Progress
from spfem_bench.stccl import contrast
from spfem_bench.stccl.checkpoint import backbone_record, load_backbone, write_checkpoint
from spfem_bench.stccl.content import ContentHeads
from spfem_bench.stccl.settings import ContentSettings, FormSettings
from spfem_bench.stored import read_json
from spfem_bench.training import kit, learner
from spfem_bench.training.config import PEOPLE, PuppetData, TrainConfig
from spfem_bench.training.windows import Windows, choose_windows, map_sizes, needs_neighbours

CHECKPOINT = "training.pt"
"""The file in the training's folder from which an interrupted training continues."""

SOFTWARE = ("torch", "numpy", "accelerate", "safetensors", "cv2")

CODE = (
    "stccl/*.py",
    "training/*.py",
    "puppets/*.py",
    "networks/*.py",
    "faces/crop.py",
    "datasets/pair*.py",
    "datasets/pose.py",
)
"""The code that makes a metric."""

MixedPrecision = Literal["no", "bf16", "fp16"]


KEPT = 0.9
"""What the heads of ``ct`` should keep of a mouth at rest on an emotional face, to be chosen."""


class TrainingPairs(NamedTuple):
    """Pairs to learn from, of speakers held out, and for the final numbers.

    ``probed`` are of speakers held out; each pair's ``emotion`` is a condition of
    `learner.probe_heads`.
    """

    train: list[EmotionPair]
    held_out: list[EmotionPair]
    checked: list[EmotionPair]
    probed: Sequence[EmotionPair] = ()


DrawPairs = Callable[[PuppetData], tuple[list[EmotionPair], ...]]
"""Returns the lists of :class:`TrainingPairs` from a drawn world."""


def find_data(
    config: TrainConfig, folder: Path, weights: WeightsStore, drawn: DrawPairs | None = None
) -> TrainingPairs:
    """Return the pairs of a configuration, after a check that every file of a list exists.

    Paths are relative to *folder*; *drawn* is needed by configurations of drawn pairs.

    Raises:
        CardError: a wrong list, absent files, unknown speakers, no source of drawn pairs.
        WeightsError: the detector's weights are missing.
    """
    data = config.data
    if isinstance(data, PuppetData):
        if drawn is None:
            raise CardError(
                "the configuration uses drawn pairs, but no source of them was given",
                "Give drawn=spfem_bench.puppets.pairs.drawn_pairs, or data of the kind 'list'",
            )
        return TrainingPairs(*drawn(data))
    find = None
    if data.detector is not None:
        from spfem_bench.faces.detect import load_detector

        find = five_points(load_detector(network_card(data.detector), weights))
    paths = folder / data.list, folder / data.frames
    pairs = listed_pairs(*paths, template=data.template, first=data.first, find=find)
    rest, held_out = hold_out(pairs, data.held_out)
    if not data.checked:
        return TrainingPairs(rest, held_out, held_out)
    rest, checked = hold_out(rest, data.checked)
    return TrainingPairs(rest, held_out, checked)


def check_settings(config: TrainConfig, sizes: Sequence[tuple[int, int]], processes: int) -> None:
    """Refuse settings that would fail only during the training; *sizes* are those of the maps.

    Raises:
        StcclError: too many regions, or too few for a contrast.
        CardError: the batch cannot be shared among the processes.
    """
    if config.batch % processes:
        raise CardError(
            f"a batch of {config.batch} windows cannot be shared among {processes} processes",
            "Give a multiple of their number",
        )
    for form, settings in config.forms.items():
        generator = kit.seeded_generator(0, "check")
        try:
            for how in ("sampled", "grid"):
                if isinstance(settings, ContentSettings):
                    continue
                chosen = learner.form_centres(sizes, {form: settings}, how, generator)[form]
                _compare_empty_maps(settings, chosen, config.frames)
        except StcclError as error:
            raise StcclError(f"forms.{form}: {error.problem}", error.remedy) from error


def _compare_empty_maps(
    settings: FormSettings, chosen: tuple[list[Tensor], list[Tensor]], frames: int
) -> None:
    """Compare empty maps, so that the arithmetic itself raises its errors."""
    patched = needs_neighbours(settings.contrast)
    for in_time, stages, patches in zip((False, True), chosen, patched, strict=True):
        for where in stages:
            shape, middles = (1, len(where)), None
            if patches:
                shape = (3, 3 * len(where))
                middles = torch.tensor([(1, 3 * k + 1) for k in range(len(where))])
            maps = torch.zeros(1, frames, 1, *shape)
            if in_time:
                contrast.temporal_terms(maps, maps, settings.contrast, middles)
            else:
                contrast.spatial_terms(maps[:, 0], maps[:, 0], settings.contrast, middles)


def _described(data: TrainingPairs, chosen: Mapping[str, Sequence[Any]]) -> dict[str, Any]:
    """Return the data as the record has it."""
    described: dict[str, Any] = {}
    for part, windows in chosen.items():
        pairs = getattr(data, part)
        described[part] = {
            "speakers": sorted({pair.speaker for pair in pairs}),
            "pairs": len(pairs),
            "windows": len(windows),
            "pairs_sha256": pairs_digest(pairs),
            "windows_sha256": hashlib.sha256(json.dumps(windows).encode()).hexdigest(),
        }
    return described


def train_metric(
    config: TrainConfig,
    output: Path,
    *,
    name: str = "metric",
    folder: Path | None = None,
    drawn: DrawPairs | None = None,
    weights: WeightsStore | None = None,
    device: str | None = None,
    precision: MixedPrecision = "no",
    workers: int = 1,
    tensorboard: bool = False,
    fresh: bool = False,
    progress: Progress = SILENT,
) -> kit.Trained:
    """Train a metric, or continue an interrupted training; keep the heads of the best validation.

    In several processes (``accelerate launch``), each holds all windows and computes its share of
    every batch; gradients are averaged. *config* is everything that affects the result; its paths
    are relative to *folder*, by default the working folder. *output* receives the metric's two
    files, the checkpoint and, with *tensorboard*, ``logs``. *drawn* is a source of drawn pairs,
    such as ``spfem_bench.puppets.pairs.drawn_pairs``. *device* is ``cpu``, ``cuda`` or None for
    accelerate's choice. *precision* is that of the heads; comparisons are float32 always. *workers*
    processes draw frames. With *fresh* an earlier checkpoint is ignored.

    Raises:
        CardError: data that cannot be used, or the folder holds another training.
        StcclError: settings that do not fit the backbone.
        SpfemBenchError: the extra ``train`` is not installed, or a loss is not finite.
        StorageError: the folder cannot be written, or memory is too small for the cache.
        WeightsError: the backbone's weights are missing or wrong.
    """
    with extra("train", "training"):
        from accelerate import Accelerator

    weights = weights or WeightsStore.locate()
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
    if not accelerator.is_main_process:
        progress = SILENT
    check_writable(output)
    circumstances = kit.circumstances(str(accelerator.device), SOFTWARE, *CODE)
    record = backbone_record(
        config.network, size=config.backbone.size, colour=config.backbone.colour
    )
    drawn_only = network_card(config.network).architecture.startswith("compact-")
    if drawn_only and config.data.kind == "list" and accelerator.is_main_process:
        warnings.warn(
            f"'{config.network}' knows drawn puppets only, and a list has pictures of people: "
            f"leave 'network' out for '{PEOPLE['light']}'",
            stacklevel=2,
        )
    backbone = load_backbone(record, weights, accelerator.device)
    sizes = map_sizes(backbone, config.content)
    check_settings(config, sizes, accelerator.num_processes)
    data = find_data(config, folder or Path(), weights, drawn)
    chosen = {
        name: choose_windows(pairs, config.frames, config.data.windows)
        for name, pairs in data._asdict().items()
        if pairs
    }
    described = _described(data, chosen)
    writer: Any = None
    if tensorboard and accelerator.is_main_process:
        with extra("train", "--tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
        writer = SummaryWriter(str(output / "logs"))
    identity = {
        "configuration": config.model_dump(mode="json", exclude={"save_every"}),
        "data": described,
        "backbone": record.sha256,
        "precision": precision,
    }
    keep = kit.Checkpoint(output / CHECKPOINT, identity)
    run = _Training(config, backbone.channels, sizes, accelerator, keep)
    run.resume(fresh=fresh)

    in_memory = partial(Windows, frames=config.frames, backbone=backbone, cache=config.cache)
    draw = partial(in_memory, moments=config.content, workers=workers, progress=progress)
    if run.descent.step < config.steps:
        held_out = draw(data.held_out, chosen["held_out"], phase="draw held-out")
        probed = None
        if data.probed:
            probed = draw(data.probed, chosen["probed"], phase="draw probe")
        windows = draw(data.train, chosen["train"], phase="draw training")
        run.learn(windows, held_out, probed, writer, progress)
    quality = run.quality(draw(data.checked, chosen["checked"], phase="draw check"))
    path = output / f"{name}.safetensors"
    if accelerator.is_main_process:
        content = {
            "backbone": record.model_dump(mode="json"),
            "forms": {form: s.model_dump(mode="json") for form, s in config.forms.items()},
            "held_out": quality,
            "training": {
                "config": config.model_dump(mode="json"),
                "data": described,
                "best_step": run.best_steps,
                "validation": run.history,
                "seconds": round(run.seconds, 1),
                "processes": accelerator.num_processes,
                "precision": precision,
                **circumstances,
            },
        }
        write_checkpoint(path, run.best_heads(), content)
    if writer is not None:
        writer.close()
    accelerator.wait_for_everyone()
    return kit.Trained(path, read_json(path.with_suffix(".json"))[0])


class _Training:
    """The state of a training: heads, optimiser, step, and the best heads so far."""

    def __init__(
        self,
        config: TrainConfig,
        channels: Sequence[int],
        sizes: Sequence[tuple[int, int]],
        accelerator: Any,
        checkpoint: kit.Checkpoint,
    ) -> None:
        self.config, self.accelerator, self.checkpoint = config, accelerator, checkpoint
        self.sizes = sizes
        kit.seed_torch(config.seed)
        self.learner = learner.Learner(channels, config.forms, sizes)
        adam = torch.optim.Adam(self.learner.parameters(), lr=config.rate)
        self.prepared, optimiser = accelerator.prepare(self.learner, adam)
        schedule = kit.falling_cosine if config.schedule == "cosine" else kit.constant
        self.descent = kit.Descent(optimiser, config.steps, schedule, accelerator=accelerator)
        self.began = time.monotonic()
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, dict[str, Tensor]] = {}
        self.best_steps: dict[str, int] = {}
        self.best_ranks: dict[str, tuple[bool, float]] = {}

    @property
    def seconds(self) -> float:
        """Seconds of training, before and after interruptions."""
        return time.monotonic() - self.began

    def resume(self, *, fresh: bool) -> None:
        """Continue from the folder's checkpoint, if there is one."""
        self.accelerator.wait_for_everyone()
        if not fresh:
            self.checkpoint.read(self._restore)

    def _restore(self, state: Mapping[str, Any]) -> None:
        self.learner.load_state_dict(state["learner"])
        self.descent.restore(state)
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.began = time.monotonic() - state["seconds"]
        self.history, self.best = state["history"], state["best"]
        self.best_steps, self.best_ranks = state["best_steps"], state["best_ranks"]

    def save(self) -> None:
        """Write the checkpoint, in the main process."""
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {"learner": self.learner.state_dict(), **self.descent.state()}
        state["scaler"] = {} if scaler is None else scaler.state_dict()
        state |= {"seconds": self.seconds, "history": self.history, "best": self.best}
        state |= {"best_steps": self.best_steps, "best_ranks": self.best_ranks}
        self.checkpoint.write(state)

    def learn(
        self,
        windows: Windows,
        held_out: Windows,
        probed: Windows | None,
        writer: Any,
        progress: Progress,
    ) -> None:
        """Take all steps that are left; validate and save between them."""
        config = self.config
        if self.descent.step == 0:
            learner.standardise(self.learner, windows, config.seed)
        for loss in self.descent.run(lambda step: self._loss(windows, step), progress=progress):
            step = self.descent.step
            last = step == config.steps
            if writer is not None:
                writer.add_scalar("training/loss", loss, step)
                rate = self.descent.optimiser.param_groups[0]["lr"]
                writer.add_scalar("training/rate", rate, step)
            if step % config.validate_every == 0 or last:
                self._validate(held_out, probed, writer, loss)
            if step % config.save_every == 0 or last:
                self.save()

    def _loss(self, windows: Windows, step: int) -> Tensor:
        config, accelerator = self.config, self.accelerator
        batch = kit.batch_of(step, config.batch, len(windows), config.seed)
        own = batch[accelerator.process_index :: accelerator.num_processes]
        generator = kit.seeded_generator(config.seed, "centres", step)
        centres = learner.form_centres(self.sizes, config.forms, "sampled", generator)
        with accelerator.autocast():
            parts = self.prepared(windows.sample(own, config.forms, centres))
            return torch.stack([named["loss"] for named in parts.values()]).sum()

    def _validate(
        self, held_out: Windows, probed: Windows | None, writer: Any, loss: float
    ) -> None:
        """Compare the held-out speakers, and keep the heads that do best there.

        Heads of ``ct`` with a probe do best that take the emotion for the least share of words,
        among those that keep `KEPT` of a mouth at rest on an emotional face; others, and all where
        none does, by their loss.
        """
        step, config, heads = self.descent.step, self.config, self.learner.heads
        quality = learner.measure_heads(held_out, config.forms, heads)
        entry: dict[str, Any] = {"step": step, "training_loss": round(loss, 6), **quality}
        ranks = {form: (True, parts["loss"]) for form, parts in quality.items()}
        if probed is not None and config.content is not None:
            probe = learner.probe_heads(probed, config.content, heads["ct"])
            entry["probe"] = probe
            if probe["frozen kept"] >= KEPT:
                ranks["ct"] = False, probe["emotion / words"]
        self.history.append(entry)
        for form, parts in quality.items():
            if ranks[form] < self.best_ranks.get(form, (True, math.inf)):
                self.best_ranks[form], self.best_steps[form] = ranks[form], step
                state = heads[form].state_dict()
                self.best[form] = {k: v.detach().cpu().clone() for k, v in state.items()}
            if writer is not None:
                writer.add_scalar(f"held-out/{form}/loss", parts["loss"], step)
                for term, sign in product(set(learner.TERMS) & set(parts), learner.SIGNS):
                    writer.add_scalar(f"held-out/{form}/{term}_{sign}", parts[term][sign], step)

    def best_heads(self) -> dict[Any, Any]:
        """Return each form's heads that did best on the held-out speakers, on the CPU.

        Those of ``ct`` are in half precision, as their file: no figure changes by it.
        """
        best = {}
        for form, state in self.best.items():
            best[form] = copy.deepcopy(self.learner.heads[form]).cpu()
            best[form].load_state_dict(state)
            if isinstance(best[form], ContentHeads):
                best[form].half()
        return best

    def quality(self, checked: Windows) -> dict[str, Any]:
        """Return the final numbers, and those of features without heads."""
        best = nn.ModuleDict(self.best_heads()).to(self.accelerator.device, torch.float32)
        heads = {"trained": best, "untrained": None}
        forms = self.config.forms
        return {name: learner.measure_heads(checked, forms, own) for name, own in heads.items()}
