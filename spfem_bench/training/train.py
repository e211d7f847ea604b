"""Learn the mapping heads of the metric (ASCCL, CVPR 2024, section 4.1; STCCL).

All chance of a step follows from the seed and the step's number, so nothing random has to be
saved: a training that was killed goes on from its last checkpoint and ends with the same
bytes (on the CPU, with as many threads), and any number of processes draws the same windows
and regions.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple
from zipfile import ZipFile

import torch
from torch import Tensor, nn

from spfem_bench import provenance
from spfem_bench.datasets.pairs import (
    FindPoints,
    Pair,
    digest,
    five_points,
    hold_out,
    listed_pairs,
    puppet_pairs,
)
from spfem_bench.errors import CardError, StcclError
from spfem_bench.extras import extra
from spfem_bench.files import check_writable
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets.world import World
from spfem_bench.stccl import contrast
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.backbone import Backbone
from spfem_bench.stccl.metric import (
    Centres,
    FormSettings,
    Heads,
    backbone_record,
    choose_centres,
    load_backbone,
    write_checkpoint,
)
from spfem_bench.stored import read_checked, read_json, warn_unverified, write_checked
from spfem_bench.training.config import ListData, PuppetData, TrainConfig
from spfem_bench.training.windows import (
    Chosen,
    Sample,
    Window,
    Windows,
    choose_windows,
    map_sizes,
    needs_neighbours,
)

CHECKPOINT = "training.pt"
"""What an interrupted training goes on from, in its folder."""

LARGEST_CHECKPOINT = 1_000_000_000
"""Bytes of it; the heads of all forms, their averages and the best take some tens of megabytes."""

SOFTWARE = ("torch", "numpy", "accelerate", "safetensors", "cv2")
Precision = Literal["no", "bf16", "fp16"]
Quality = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Told:
    """Hears how a training goes on; this one keeps silent.

    Attributes:
        begin: hears a phase's name, how many parts it has and how many are done already.
        part: hears that one more part is done, with the loss where there is one.
        say: hears a sentence.
    """

    begin: Callable[[str, int, int], None] = lambda phase, parts, done: None
    part: Callable[[float | None], None] = lambda loss: None
    say: Callable[[str], None] = lambda words: None


class Learner(nn.Module):
    """All heads that are trained: one set for each form, which learn nothing from each other.

    Args:
        channels: of the backbone's stages.
        forms: what is trained.
    """

    def __init__(self, channels: Sequence[int], forms: Mapping[Any, FormSettings]) -> None:
        super().__init__()
        self.forms = {form: settings.learning() for form, settings in forms.items()}
        self.heads = nn.ModuleDict({form: Heads(channels) for form in forms})

    def forward(self, samples: dict[str, Sample]) -> dict[str, dict[str, Tensor]]:
        """Return the parts of each form's loss, as `contrast.parts`."""
        return {
            form: sample_parts(sample, self.forms[form], self.heads[form])
            for form, sample in samples.items()
        }


def sample_parts(
    sample: Sample, settings: FormSettings, heads: nn.Module | None = None
) -> dict[str, Tensor]:
    """Compare source and generated of one step, as `contrast.parts`.

    Args:
        sample: the regions.
        settings: how.
        heads: a :class:`~spfem_bench.stccl.metric.Heads`; without it features as they are.
    """

    def head(kind: str, stage: int) -> contrast.Head | None:
        return None if heads is None else getattr(heads, kind)[stage]

    spatial, temporal = [], []
    for k, (maps, centres) in enumerate(sample.spatial):
        source, generated = maps.flatten(1, 2)
        f = head("spatial", k)
        spatial.append(
            contrast.spatial_terms(source, generated, settings.contrast, centres, head=f)
        )
    for k, (maps, centres) in enumerate(sample.temporal):
        source, generated = maps
        f = head("temporal", k)
        temporal.append(
            contrast.temporal_terms(source, generated, settings.contrast, centres, head=f)
        )
    return contrast.parts(spatial, temporal)


# ---- chance -------------------------------------------------------------------------------


def chance(seed: int, purpose: str, number: int = 0) -> torch.Generator:
    """Return a generator of its own for each purpose and number."""
    # Hashed, since torch's generator on the CPU takes 32 bits of its seed.
    made = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(made[:4], "big"))


def batch_of(step: int, batch: int, count: int, seed: int) -> Tensor:
    """Return which windows a step sees: all are seen once before any is again.

    >>> seen = torch.cat([batch_of(k, 2, 6, seed=1) for k in range(3)])
    >>> sorted(seen.tolist())
    [0, 1, 2, 3, 4, 5]

    Args:
        step: its number, from 0.
        batch: windows in a step.
        count: windows there are.
        seed: of the order.

    Returns:
        int64 ``(batch,)``.
    """
    places = range(step * batch, (step + 1) * batch)
    orders = {
        epoch: torch.randperm(count, generator=chance(seed, "order", epoch))
        for epoch in range(places[0] // count, places[-1] // count + 1)
    }
    return torch.stack([orders[p // count][p % count] for p in places])


def centres_of(
    sizes: Sequence[tuple[int, int]],
    forms: Mapping[Any, FormSettings],
    how: Centres,
    generator: torch.Generator | None = None,
) -> dict[str, Chosen]:
    """Return each form's regions at each stage, in space and in time.

    Raises:
        StcclError: more regions than a map has.
    """
    maps = [torch.empty(1, 1, *size) for size in sizes]
    found: dict[str, Chosen] = {}
    for form, settings in forms.items():
        spatial, temporal = (
            [c for c in choose_centres(maps, how, counts, generator) if c is not None]
            for counts in (settings.spatial_centres, settings.temporal_centres)
        )
        found[form] = spatial, temporal
    return found


def rate_of(step: int, config: TrainConfig) -> float:
    """Return a step's learning rate."""
    if config.schedule == "constant":
        return config.rate
    return config.rate * (0.01 + 0.99 * (1 + math.cos(math.pi * step / config.steps)) / 2)


# ---- data ---------------------------------------------------------------------------------


class Data(NamedTuple):
    """Who is learnt from, who is held out, and who is looked at once, after training."""

    train: list[Pair]
    held_out: list[Pair]
    checked: list[Pair]
    counts: tuple[int, int, int]
    """Windows of each pair."""


def find_data(config: TrainConfig, folder: Path, weights: WeightsStore) -> Data:
    """Return the pairs of a configuration; every file of a list is looked for.

    Args:
        config: the configuration.
        folder: that paths in it are relative to.
        weights: where a face detector's weights are looked for.

    Raises:
        CardError: a wrong list, absent files, unknown speakers.
        UnknownNameError: no such detector or speaker.
        WeightsError: the detector's weights are missing.
    """
    data = config.data
    if isinstance(data, PuppetData):
        world = World(data.version, data.seed, data.size)
        return Data(
            puppet_pairs(world, "train", speakers=data.speakers, second=data.second),
            puppet_pairs(world, "held-out", speakers=data.held_out, second=data.second),
            puppet_pairs(world, "validation", speakers=data.checked, second=data.second),
            (data.windows, data.windows, data.windows),
        )
    pairs = listed_pairs(
        folder / data.list,
        folder / data.frames,
        template=data.template,
        first=data.first,
        find=_find(data, weights),
    )
    rest, held_out = hold_out(pairs, data.held_out)
    checked = held_out
    if data.checked:
        rest, checked = hold_out(rest, data.checked)
    return Data(rest, held_out, checked, (data.windows, data.windows, data.windows))


def _find(data: ListData, weights: WeightsStore) -> FindPoints | None:
    if data.detector is None:
        return None
    from spfem_bench.definitions.networks import network_card
    from spfem_bench.faces.detect import load_detector

    return five_points(load_detector(network_card(data.detector), weights))


def check_before(config: TrainConfig, sizes: Sequence[tuple[int, int]], processes: int) -> None:
    """Refuse what would fail only later: too many regions, too few for a contrast, odd shares.

    Raises:
        StcclError: names the form and the stage.
        CardError: the batch cannot be shared among the processes.
    """
    if config.batch % processes:
        raise CardError(
            f"a batch of {config.batch} windows cannot be shared among {processes} processes",
            "Give a multiple of their number",
        )
    for form, settings in config.forms.items():
        try:
            for how in ("sampled", "grid"):
                chosen = centres_of(sizes, {form: settings}, how, chance(0, "check"))[form]
                patched = needs_neighbours(settings.contrast)
                for kind, centres, patches in zip(
                    ("spatial", "temporal"), chosen, patched, strict=True
                ):
                    _try(settings, kind, centres, config.frames, patches)
        except StcclError as error:
            raise StcclError(f"forms.{form}: {error.problem}", error.remedy) from error


def _try(
    settings: FormSettings, kind: str, centres: Sequence[Tensor], frames: int, patches: bool
) -> None:
    """Compare empty maps: the arithmetic itself says what it cannot do."""
    for where in centres:
        shape = (3, 3 * len(where)) if patches else (1, len(where))
        middles = None
        if patches:
            middles = torch.tensor([(1, 3 * k + 1) for k in range(len(where))])
        maps = torch.zeros(1, frames, 1, *shape)
        if kind == "spatial":
            contrast.spatial_terms(maps[:, 0], maps[:, 0], settings.contrast, middles)
        else:
            contrast.temporal_terms(maps, maps, settings.contrast, middles)


# ---- training -----------------------------------------------------------------------------


class Trained(NamedTuple):
    """What a training left: the file of heads, and the record written beside it."""

    weights: Path
    record: dict[str, Any]


def train(
    config: TrainConfig,
    output: Path,
    *,
    name: str = "metric",
    folder: Path | None = None,
    weights: WeightsStore | None = None,
    device: str | None = None,
    precision: Precision = "no",
    workers: int = 1,
    tensorboard: bool = False,
    fresh: bool = False,
    told: Told | None = None,
) -> Trained:
    """Train a metric, or go on with one that was interrupted.

    Run in several processes (``accelerate launch``), each holds all windows and computes its
    share of every batch; gradients are averaged.

    Args:
        config: all that can move the result.
        output: its folder: the metric's two files, and what an interrupted training goes on from.
        name: of the metric.
        folder: that the configuration's paths are relative to; the working folder when None.
        weights: where weights are looked for.
        device: ``cpu``, ``cuda`` or None for what accelerate chooses.
        precision: of the heads' arithmetic; comparisons are float32 always.
        workers: processes that draw puppets; their number changes nothing.
        tensorboard: write logs to ``output/logs``.
        fresh: begin anew where an interrupted training is found.
        told: hears how it goes on.

    Returns:
        the metric of the step that did best on the held-out speakers.

    Raises:
        CardError: data that cannot be used, or the folder holds another training.
        StcclError: settings that do not go with the backbone, or a loss that is not finite.
        SpfemBenchError: packages of the extra ``train`` are not installed.
        StorageError: the folder cannot be written, or memory is too small for the cache.
        WeightsError: the backbone's weights are missing or wrong.
    """
    with extra("train", "training"):
        from accelerate import Accelerator

    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    told = told or Told()
    weights = weights or WeightsStore.locate()
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision=precision)
    if not accelerator.is_main_process:
        told = Told()
    check_writable(output)
    began = time.monotonic()
    # Now: files may have changed by the time that it ends.
    source = {"commit": provenance.commit(), "code": code_digest()}
    eyes = load_backbone(
        backbone_record(
            config.backbone.network, size=config.backbone.size, colour=config.backbone.colour
        ),
        weights,
        accelerator.device,
    )
    check_before(config, map_sizes(eyes), accelerator.num_processes)
    data = find_data(config, folder or Path(), weights)
    chosen = [
        choose_windows(part, config.frames, count)
        for part, count in zip(data[:3], data.counts, strict=True)
    ]
    described = _described(data, chosen)
    writer = _writer(output) if tensorboard and accelerator.is_main_process else None
    run = _Run(config, eyes, accelerator, _identity(config, described, precision), output)
    run.resume(fresh=fresh)
    if run.step:
        told.say(f"{output}: goes on after step {run.step} of {config.steps}")

    def load(what: str, pairs: list[Pair], windows: list[Window]) -> Windows:
        told.begin(f"draw {what}", len({w.pair for w in windows}), 0)
        return Windows(
            pairs,
            windows,
            config.frames,
            eyes,
            cache=config.cache,
            workers=workers,
            done=lambda: told.part(None),
        )

    held_out = load("held-out", data.held_out, chosen[1])
    if run.step < config.steps:
        windows = load("training", data.train, chosen[0])
        run.begin(windows)
        told.begin("learn", config.steps, run.step)
        while run.step < config.steps:
            loss = run.advance(windows)
            told.part(loss)
            run.look(held_out, writer, loss)
    checked = load("check", data.checked, chosen[2])
    quality = run.quality(checked)
    record = {
        "backbone": backbone_record(
            config.backbone.network, size=config.backbone.size, colour=config.backbone.colour
        ).model_dump(mode="json"),
        "forms": {form: s.model_dump(mode="json") for form, s in config.forms.items()},
        "held_out": quality,
        "training": {
            "config": config.model_dump(mode="json"),
            "data": described,
            "best_step": run.best_steps,
            "validation": run.history,
            "seconds": round(run.seconds + time.monotonic() - began, 1),
            "device": provenance.device_name(str(accelerator.device)),
            "processes": accelerator.num_processes,
            "precision": precision,
            "threads": torch.get_num_threads(),
            "software": {"python": platform.python_version(), **provenance.versions(SOFTWARE)},
            **source,
        },
    }
    path = output / f"{name}.safetensors"
    if accelerator.is_main_process:
        write_checkpoint(path, run.best_heads(), record)
    if writer is not None:
        writer.close()
    accelerator.wait_for_everyone()
    return Trained(path, read_json(path.with_suffix(".json"))[0])


class _Run:
    """A training's state: heads, optimiser, step, and the best heads so far."""

    def __init__(
        self, config: TrainConfig, eyes: Backbone, accelerator: Any, identity: str, output: Path
    ) -> None:
        self.config, self.accelerator, self.identity = config, accelerator, identity
        self.path = output / CHECKPOINT
        self.sizes = map_sizes(eyes)
        torch.manual_seed(config.seed)
        self.bare = Learner(eyes.channels, config.forms)
        self.learner, self.optimiser = accelerator.prepare(
            self.bare, torch.optim.Adam(self.bare.parameters(), lr=config.rate)
        )
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, dict[str, Tensor]] = {}
        self.best_steps: dict[str, int] = {}
        self.best_losses: dict[str, float] = {}

    # -- interrupted and resumed

    def resume(self, *, fresh: bool) -> None:
        """Go on from the folder's checkpoint, if there is one."""
        self.accelerator.wait_for_everyone()
        if fresh or not self.path.exists():
            return
        again = "Name another folder, or begin anew with --fresh"
        try:
            content, verified = read_checked(self.path, LARGEST_CHECKPOINT)
            if not verified and ZipFile(io.BytesIO(content)).testzip() is not None:
                raise ValueError("it was damaged")
            # To memory of the CPU first, whatever device it was written on.
            state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            other = _differences(state["identity"], self.identity)
            if not other:
                self.bare.load_state_dict(state["learner"])
                self.optimiser.load_state_dict(state["optimiser"])
                if self.accelerator.scaler is not None:
                    self.accelerator.scaler.load_state_dict(state["scaler"])
                for key in ("step", "seconds", "history", "best", "best_steps", "best_losses"):
                    setattr(self, key, state[key])
        except Exception as error:  # any bytes may be here: torch raises a dozen kinds
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise CardError(
                f"{self.path} is no checkpoint of a training: {reason[:120]}", again
            ) from error
        if other:
            raise CardError(f"{self.path} belongs to a training with {other}", again)
        if not verified:
            warn_unverified(self.path, "Begin anew with --fresh, or go on if you trust it")

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "identity": self.identity,
            "learner": self.bare.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "scaler": {} if scaler is None else scaler.state_dict(),
            **{
                key: getattr(self, key)
                for key in ("step", "seconds", "history", "best", "best_steps", "best_losses")
            },
        }
        content = io.BytesIO()
        torch.save(state, content)
        write_checked(self.path, content.getvalue())

    # -- learning

    def begin(self, windows: Windows) -> None:
        """Suit the first layers to the features, before the first step."""
        if self.step == 0:
            standardise(self.bare, windows, self.config.seed)

    def advance(self, windows: Windows) -> float:
        """Take one step; return the loss, over all processes."""
        config, accelerator = self.config, self.accelerator
        began = time.monotonic()
        batch = batch_of(self.step, config.batch, len(windows), config.seed)
        own = batch[accelerator.process_index :: accelerator.num_processes]
        centres = centres_of(
            self.sizes, config.forms, "sampled", chance(config.seed, "centres", self.step)
        )
        with accelerator.autocast():
            parts = self.learner(windows.sample(own, config.forms, centres))  # type: ignore[arg-type]
            loss = torch.stack([named["loss"] for named in parts.values()]).sum()
        found = float(accelerator.reduce(loss.detach(), "mean"))
        if not math.isfinite(found):
            raise StcclError(
                f"the loss of step {self.step} is {found}",
                "Give a smaller 'rate', or precision 'no'",
            )
        for group in self.optimiser.param_groups:
            group["lr"] = rate_of(self.step, config)
        self.optimiser.zero_grad()
        accelerator.backward(loss)
        self.optimiser.step()
        self.step += 1
        self.seconds += time.monotonic() - began
        return found

    def look(self, held_out: Windows, writer: Any, loss: float) -> None:
        """Every so many steps, look at the held-out speakers, and save."""
        config, last = self.config, self.step == self.config.steps
        if self.step % config.validate_every == 0 or last:
            found = evaluate(held_out, config.forms, self.bare.heads)
            self.history.append({"step": self.step, "training_loss": round(loss, 6), **found})
            for form, parts in found.items():
                if parts["loss"] < self.best_losses.get(form, math.inf):
                    self.best_losses[form], self.best_steps[form] = parts["loss"], self.step
                    state = self.bare.heads[form].state_dict()
                    self.best[form] = {k: v.detach().cpu().clone() for k, v in state.items()}
                if writer is not None:
                    for key in ("loss", *(f"{t}_{s}" for t in TERMS for s in SIGNS)):
                        writer.add_scalar(f"held-out/{form}/{key}", _flat(parts)[key], self.step)
        if writer is not None:
            writer.add_scalar("training/loss", loss, self.step)
            writer.add_scalar("training/rate", rate_of(self.step - 1, config), self.step)
        if self.step % config.save_every == 0 or last:
            self.save()

    def best_heads(self) -> dict[Any, Heads]:
        """Return each form's heads that did best on the held-out speakers, on the CPU."""
        found = {}
        for form, state in self.best.items():
            heads = Heads([len(state[f"spatial.{k}.0.bias"]) for k in range(4)])
            heads.load_state_dict(state)
            found[form] = heads
        return found

    def quality(self, checked: Windows) -> Quality:
        """Return the final numbers, beside those of features without heads."""
        device = self.accelerator.device
        best = nn.ModuleDict({k: v.to(device) for k, v in self.best_heads().items()})
        return {
            "trained": evaluate(checked, self.config.forms, best),
            "untrained": evaluate(checked, self.config.forms, None),
        }


TERMS, SIGNS = ("scc", "tcc"), ("positive", "negative")


@torch.no_grad()
def evaluate(
    windows: Windows, forms: Mapping[Any, FormSettings], heads: nn.ModuleDict | None
) -> Quality:
    """Return how alike corresponding and other regions are, on a fixed grid of regions.

    Args:
        windows: to be looked at.
        forms: how each form compares; the loss is the one that is learnt by.
        heads: of each form; without them features as they are.

    Returns:
        of each form ``loss`` and, for ``scc`` and ``tcc``, ``positive`` and ``negative``, the
        means over stages, and the same of ``stages``; all rounded to five digits. The loss is
        without adaptive weights: those grow with what heads return, whatever it is worth.
    """
    centres = centres_of(windows.sizes, forms, "grid")
    totals: dict[str, dict[str, float]] = {form: {} for form in forms}
    size = 4
    for at in range(0, len(windows), size):
        chosen = torch.arange(at, min(at + size, len(windows)))
        samples = windows.sample(chosen, dict(forms), centres)
        for form, sample in samples.items():
            own = heads[form] if heads is not None else None
            named = sample_parts(sample, _unweighted(forms[form].learning()), own)
            for key, value in named.items():
                share = len(chosen) / len(windows)
                totals[form][key] = totals[form].get(key, 0.0) + float(value) * share
    return {form: _nested(parts) for form, parts in totals.items()}


def _unweighted(settings: FormSettings) -> FormSettings:
    even = settings.contrast.model_copy(update={"adaptive": False})
    return settings.model_copy(update={"contrast": even})


def _nested(parts: Mapping[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {"loss": round(parts["loss"], 5)}
    for term in TERMS:
        found[term] = {sign: round(parts[f"{term}_{sign}"], 5) for sign in SIGNS} | {
            "stages": {
                sign: [round(parts[f"{term}_stage{k}_{sign}"], 5) for k in (1, 2, 3, 4)]
                for sign in SIGNS
            }
        }
    return found


def _flat(parts: Mapping[str, Any]) -> dict[str, float]:
    return {"loss": parts["loss"]} | {f"{t}_{s}": parts[t][s] for t in TERMS for s in SIGNS}


@torch.no_grad()
def standardise(learner: Learner, windows: Windows, seed: int) -> None:
    """Let heads begin with what they are given brought to one scale.

    Disparities of early stages are so small beside a layer's usual first biases that all
    would be mapped to one direction, and the features of regions share a large common part
    that hides what distinguishes them. So each channel is divided by its deviation and, for
    regions themselves (``cm``), its mean is taken away, and what a head returns has the mean 0:
    all within the weights and biases of both layers, whose form stays as it is.

    Args:
        learner: its heads are changed.
        windows: a few are looked at.
        seed: of the regions looked at.
    """
    few = torch.linspace(0, len(windows) - 1, min(16, len(windows))).long()
    centres = centres_of(windows.sizes, learner.forms, "grid", chance(seed, "start"))
    for form, sample in windows.sample(few, learner.forms, centres).items():
        settings = learner.forms[form].contrast
        for kind, regions in (("spatial", sample.spatial), ("temporal", sample.temporal)):
            for stage, (maps, where) in enumerate(regions):
                if settings.form == "cm":
                    rows = rep.region_rows(maps).flatten(0, -2)
                    mean = rows.mean(0)
                elif kind == "spatial":
                    rows = rep.spatial_disparity(maps.flatten(0, 2), where).flatten(0, -2)
                    mean = torch.zeros_like(rows[0])
                else:
                    rows = rep.temporal_disparity(maps.flatten(0, 1), "window").flatten(0, -2)
                    mean = torch.zeros_like(rows[0])
                deviation = (rows - mean).square().mean(0).sqrt()
                # A channel that is all but silent must not be made loud.
                deviation = deviation.clamp_min(0.1 * float(deviation.mean()) + 1e-8)
                first, _, last = getattr(learner.heads[form], kind)[stage]
                first.weight /= deviation
                first.bias.copy_(-(first.weight @ mean))
                last.bias.copy_(-(last.weight @ first(rows).relu().mean(0)))


# ---- the record ---------------------------------------------------------------------------


def _described(data: Data, chosen: Sequence[list[Window]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for part, pairs, windows in zip(
        ("train", "held_out", "checked"), data[:3], chosen, strict=True
    ):
        starts = hashlib.sha256(json.dumps([list(w) for w in windows]).encode()).hexdigest()
        found[part] = {
            "speakers": sorted({pair.speaker for pair in pairs}),
            "pairs": len(pairs),
            "windows": len(windows),
            "pairs_sha256": digest(pairs),
            "windows_sha256": starts,
        }
    return found


def _identity(config: TrainConfig, described: Mapping[str, Any], precision: str) -> str:
    """Say, as JSON, whose checkpoint it is: all that moves the result, but not how it is saved."""
    return json.dumps(
        {
            "configuration": config.model_dump(mode="json", exclude={"save_every"}),
            "data": described,
            "backbone": backbone_record(config.backbone.network).sha256,
            "precision": precision,
        },
        sort_keys=True,
    )


def _differences(old: str, new: str) -> str:
    """Name the first settings in which two trainings differ; empty where none does."""

    def flat(value: Any, name: str = "") -> dict[str, Any]:
        if not isinstance(value, dict):
            return {name: value}
        return {
            k: v
            for key, inner in value.items()
            for k, v in flat(inner, f"{name}.{key}" if name else key).items()
        }

    was, now = flat(json.loads(old)), flat(json.loads(new))
    names = [key for key in {**was, **now} if was.get(key) != now.get(key)]
    if not names:
        return ""
    return f"another {', '.join(names[:3])}{', …' if len(names) > 3 else ''}"


def code_digest() -> str:
    """Return a hash of the code that makes a metric: puppets, pairs, networks, STCCL."""
    names = (
        "backbone",
        "config",
        "contrast",
        "metric",
        "pairs",
        "representations",
        "train",
        "windows",
    )
    return provenance.code_digest(
        "demo/*.py", "networks/*.py", "faces/crop.py", *(f"stccl/{name}.py" for name in names)
    )


def _writer(output: Path) -> Any:
    with extra("train", "--tensorboard"):
        from torch.utils.tensorboard import SummaryWriter
    return SummaryWriter(str(output / "logs"))
