"""The two files of a learnt metric: mapping heads (``.safetensors``), and their record (``.json``).

The record is the metric's card too. A checkpoint without it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pydantic
import torch
from torch import Tensor, nn

from spfem_bench.definitions.cards import Strict, card_folders, validate
from spfem_bench.definitions.networks import network_card
from spfem_bench.errors import CardError, StcclError, WeightsError, unknown_name
from spfem_bench.networks import recorded
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.stccl.backbone import Backbone, backbone
from spfem_bench.stccl.content import REGION_NUMBERS, ContentHeads
from spfem_bench.stccl.settings import AnySettings, Form

FOLDER = "metrics/stccl"
"""The folder of metrics among the cards."""


class Heads(nn.Module):
    """A mapping ``f`` (equation 3) for each stage, in space and in time.

    Two fully connected layers with a ReLU between, from C to C to C / 4 numbers: the released
    code's 64-64-16 to 512-512-128, in proportion to the backbone's channels.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.spatial = nn.ModuleList(_mapping(c) for c in channels)
        self.temporal = nn.ModuleList(_mapping(c) for c in channels)


def _mapping(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels // 4)
    )


class BackboneRecord(Strict):
    """The network below a metric's heads: card, hashes, and the side in pixels of its input."""

    network: str
    sha256: tuple[str, ...]
    size: int = 112
    colour: Literal["rgb", "bgr"] = "rgb"


class MetricRecord(Strict):
    """The record of a metric.

    ``sha256`` and ``bytes`` are of the file of heads; ``held_out`` is the quality on speakers and
    sentences that were not used in training.
    """

    format: Literal[1] = 1
    backbone: BackboneRecord
    forms: dict[Form, AnySettings] = pydantic.Field(min_length=1)
    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int
    held_out: dict[str, Any] = pydantic.Field(default_factory=dict)
    training: dict[str, Any] = pydantic.Field(default_factory=dict)


class LearntMetric(NamedTuple):
    """A metric's files, read and verified: heads by form, and the record."""

    heads: dict[Form, Heads | ContentHeads]
    record: MetricRecord


def metric_paths() -> dict[str, Path]:
    """Return the paths of all metrics' records in the folders of cards, by name.

    Raises:
        CardError: two have one name.
    """
    paths: dict[str, Path] = {}
    for folder in card_folders():
        for path in sorted((folder / FOLDER).glob("*.json")):
            if path.stem in paths:
                raise CardError(
                    f"two STCCL metrics are named '{path.stem}': {paths[path.stem]}, {path}",
                    "Rename yours",
                )
            paths[path.stem] = path
    return paths


def metric_path(name: str | Path) -> Path:
    """Return the path of a metric's record.

    A name is of a metric in ``metrics/stccl/``; a path is of one of its two files, or of a folder
    that holds one metric.

    Raises:
        UnknownNameError: no metric has that name.
        WeightsError: the folder holds no metric or several, or a checkpoint lacks its record.
    """
    known, path = metric_paths(), Path(name)
    if str(name) in known:
        path = known[str(name)]
    elif path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            raise WeightsError(
                f"{path} holds {len(files)} metrics", "Name a folder of one, or its .safetensors"
            )
        path = files[0]
    elif path.suffix not in (".json", ".safetensors"):
        raise unknown_name("STCCL metric", str(name), known)
    path = path.with_suffix(".json")
    if not path.is_file():
        raise WeightsError(
            f"{path} is absent: a metric without its record is not used",
            "Put the two files side by side as 'spfem-bench train' left them",
        )
    return path


def read_checkpoint(name: str | Path) -> LearntMetric:
    """Read a metric, given as to :func:`metric_path`, after a check of its SHA-256.

    Raises:
        UnknownNameError: no metric has that name.
        WeightsError: a file is absent, other than recorded, or of another shape.
        CardError: the record is not valid.
    """
    path = metric_path(name)
    record = recorded.load_weights_record(path, MetricRecord, "a metric")
    remedy = "Take both files from one training, or train again with 'spfem-bench train'"
    content = recorded.read_weights(path, record.sha256, remedy)
    try:
        state = recorded.tensors(content)
        every = nn.ModuleDict({form: _shaped(form, state) for form in record.forms})
        every.load_state_dict(state)
    except Exception as error:  # several kinds: any bytes may have the right hash
        reason = (str(error) or type(error).__name__).splitlines()[-1].strip()
        file = path.with_suffix(".safetensors")
        raise WeightsError(f"{file} holds no heads of a metric: {reason[:120]}", remedy) from error
    return LearntMetric({form: every[form] for form in record.forms}, record)  # type: ignore[misc]


def read_form(name: str | Path, form: Form) -> LearntMetric:
    """Read a metric as `read_checkpoint` does; raise StcclError where it lacks a form."""
    metric = read_checkpoint(name)
    if form not in metric.heads:
        forms = ", ".join(metric.heads)
        raise StcclError(f"the metric '{name}' has no form '{form}'", f"Allowed: {forms}")
    return metric


def _shaped(form: Form, state: Mapping[str, Tensor]) -> Heads | ContentHeads:
    """Return heads of a form, shaped as those of a file."""

    def width(name: str) -> list[int]:
        return [state[f"{form}.{name.format(k)}.weight"].shape[1] for k in range(4)]

    if form == "ct":
        regions = [n // REGION_NUMBERS for n in width("stages.{}.moment.0")]
        return ContentHeads(width("stages.{}.region"), regions)
    return Heads(width("spatial.{}.0"))


def write_checkpoint(
    path: Path, heads: Mapping[Form, Heads | ContentHeads], record: Mapping[str, Any]
) -> MetricRecord:
    """Write a metric's two files at a path with either suffix, the record last.

    The record lacks only ``sha256`` and ``bytes`` of :class:`MetricRecord`.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    every = nn.ModuleDict(dict(heads.items()))
    return recorded.save_network(path, every, MetricRecord, record)


def backbone_record(network: str, *, size: int = 112, colour: str = "rgb") -> BackboneRecord:
    """Return the record of a backbone from its card, without reading the weights."""
    files = tuple(file.sha256 for file in network_card(network).files)
    content = {"network": network, "sha256": files, "size": size, "colour": colour}
    return validate(BackboneRecord, content, f"the backbone '{network}'")


def load_backbone(
    record: BackboneRecord, weights: WeightsStore, device: str | torch.device = "cpu"
) -> Backbone:
    """Load the backbone that a metric was trained on.

    Raises:
        UnknownNameError: no such network.
        WeightsError: its card pins other weights now, or they are missing or wrong.
    """
    now = backbone_record(record.network)
    if now.sha256 != record.sha256:
        trained, pinned = (",".join(h[:8] for h in r.sha256) for r in (record, now))
        raise WeightsError(
            f"this metric was trained on '{record.network}' with weights {trained}…, "
            f"the card has {pinned}… now",
            "Train it again with 'spfem-bench train', or take a metric of these weights",
        )
    return backbone(record.network, weights, size=record.size, colour=record.colour, device=device)
