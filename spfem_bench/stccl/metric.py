"""The learnt metric: mapping heads on a frozen backbone, as a loss in one line.

    loss = STCCL.load("puppets")(source, generated, value_range=(0, 1))

A metric is two files: ``NAME.safetensors``, the heads, and ``NAME.json``, the record of what
made them, which is the metric's card too. Without its record a checkpoint is refused: nobody
could say through which backbone it looks. Those of the project lie in ``metrics/stccl/``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import pydantic
import torch
from torch import Tensor, nn

from spfem_bench.definitions.cards import Strict, card_folders, validate
from spfem_bench.definitions.networks import network_card
from spfem_bench.errors import CardError, StcclError, WeightsError, unknown_name
from spfem_bench.networks import recorded
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.stccl import contrast
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.backbone import Backbone, backbone
from spfem_bench.stccl.contrast import ContrastSettings

Form = Literal["vd", "cm"]
Centres = Literal["sampled", "grid", "dense"]
ValueRange = tuple[float, float]

FORMS: tuple[Form, ...] = get_args(Form)
RANGES: tuple[ValueRange, ...] = ((0, 1), (-1, 1))
"""What pictures may be in; said by the caller, never guessed from their values."""

SLACK = 1e-3
"""How far a value may lie outside its range: resizing and half precision round that much."""

GRID = 7
"""Regions a side, at most, of the centres ``grid``."""

FOLDER = "metrics/stccl"
"""Where metrics lie among the cards."""


# ---- heads --------------------------------------------------------------------------------


class Heads(nn.Module):
    """One mapping ``f`` (equation 3) for each stage, in space and in time.

    Two fully connected layers with a ReLU between, from C to C to C / 4 numbers: the released
    code's 64-64-16 to 512-512-128, in proportion to the backbone's channels.

    Args:
        channels: of the backbone's stages.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.spatial = nn.ModuleList(_head(c) for c in channels)
        self.temporal = nn.ModuleList(_head(c) for c in channels)


def _head(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, channels // 4)
    )


# ---- the record ---------------------------------------------------------------------------


class BackboneRecord(Strict):
    """Through which network a metric looks.

    Attributes:
        network: its card's name.
        sha256: of the card's files of weights, in the card's order.
        size: side in pixels of the square that it is given.
        colour: order of channels that it is given.
    """

    network: str
    sha256: tuple[str, ...]
    size: int = 112
    colour: Literal["rgb", "bgr"] = "rgb"


class FormSettings(Strict):
    """How one form of the metric compares.

    Attributes:
        contrast: the arithmetic.
        spatial_centres: regions sampled at each stage for SCC.
        temporal_centres: regions sampled at each stage for TCC.
        learning_temperature: tau while heads are learnt, where it is another than in use.
    """

    contrast: ContrastSettings
    spatial_centres: tuple[int, int, int, int] = rep.CENTRES_PER_STAGE
    temporal_centres: tuple[int, int, int, int] = rep.CENTRES_PER_STAGE
    learning_temperature: float | None = pydantic.Field(default=None, gt=0, allow_inf_nan=False)

    def learning(self) -> FormSettings:
        """Return the settings that hold while heads are learnt."""
        if self.learning_temperature is None:
            return self
        warmer = self.contrast.model_copy(update={"temperature": self.learning_temperature})
        return self.model_copy(update={"contrast": warmer})


class MetricRecord(Strict):
    """What a metric is and what made it.

    Attributes:
        format: of this record.
        backbone: through which network it looks.
        forms: what it was trained for, ``vd``, ``cm`` or both.
        sha256: of the file of heads.
        bytes: its size.
        held_out: quality on speakers and sentences that nothing was learnt from.
        training: configuration, data, software, commit and so on.
    """

    format: Literal[1] = 1
    backbone: BackboneRecord
    forms: dict[Form, FormSettings] = pydantic.Field(min_length=1)
    sha256: str = pydantic.Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int
    held_out: dict[str, Any] = pydantic.Field(default_factory=dict)
    training: dict[str, Any] = pydantic.Field(default_factory=dict)


class Checkpoint(NamedTuple):
    """A metric's files, read and verified: heads by form, and the record."""

    heads: dict[Form, Heads]
    record: MetricRecord


def metric_names() -> list[str]:
    """Return the names of all metrics in the folders of cards, sorted."""
    return sorted(_shelf())


def _shelf() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in card_folders():
        for path in sorted((folder / FOLDER).glob("*.json")):
            if path.stem in found:
                raise CardError(
                    f"two STCCL metrics are named '{path.stem}': {found[path.stem]}, {path}",
                    "Rename yours",
                )
            found[path.stem] = path
    return found


def record_path(name: str | Path) -> Path:
    """Return where a metric's record lies.

    Args:
        name: of a metric in ``metrics/stccl/``; or a path: one of a metric's two files, or
            a folder that holds one metric.

    Raises:
        UnknownNameError: no metric has that name.
        WeightsError: the folder holds no metric or several, or a checkpoint lacks its record.
    """
    shelf, path = _shelf(), Path(name)
    if str(name) in shelf:
        path = shelf[str(name)]
    elif path.is_dir():
        files = sorted(path.glob("*.safetensors"))
        if len(files) != 1:
            raise WeightsError(
                f"{path} holds {len(files)} metrics", "Name a folder of one, or its .safetensors"
            )
        path = files[0]
    elif path.suffix not in (".json", ".safetensors"):
        raise unknown_name("STCCL metric", str(name), shelf)
    path = path.with_suffix(".json")
    if not path.is_file():
        raise WeightsError(
            f"{path} is absent: a metric without its record is not used",
            "Put the two files side by side as 'spfem-bench train' left them",
        )
    return path


def read_record(path: Path) -> MetricRecord:
    """Read a metric's record.

    Raises:
        CardError: it is not valid JSON, or lacks or misspells a key.
    """
    return recorded.load_record(path, MetricRecord, "a metric")


def read_checkpoint(name: str | Path) -> Checkpoint:
    """Read a metric's heads after checking their SHA-256.

    Args:
        name: see :func:`record_path`.

    Raises:
        UnknownNameError: no metric has that name.
        WeightsError: a file is absent, other than recorded, or of another shape.
        CardError: the record is not one.
    """
    path = record_path(name)
    record = read_record(path)
    file = path.with_suffix(".safetensors")
    again = "Take both files from one training, or train again with 'spfem-bench train'"
    content = recorded.read_weights(path, record.sha256, again)
    try:
        state = recorded.tensors(content)
        first = next(iter(record.forms))
        channels = [state[f"{first}.spatial.{k}.0.weight"].shape[1] for k in range(4)]
        every = nn.ModuleDict({form: Heads(channels) for form in record.forms})
        every.load_state_dict(state)
    except Exception as error:  # any bytes with the right hash may be here: several kinds
        reason = (str(error) or type(error).__name__).splitlines()[-1].strip()
        raise WeightsError(f"{file} holds no heads of a metric: {reason[:120]}", again) from error
    return Checkpoint({form: every[form] for form in record.forms}, record)  # type: ignore[misc]


def write_checkpoint(
    path: Path, heads: Mapping[Form, Heads], record: Mapping[str, Any]
) -> MetricRecord:
    """Write a metric's two files; the record comes last, so that with it both are whole.

    Args:
        path: of either; suffixes are put right.
        heads: by form.
        record: all of :class:`MetricRecord` but ``sha256`` and ``bytes``.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    every = nn.ModuleDict(dict(heads.items()))
    return recorded.save_network(path, every, MetricRecord, record)


def backbone_record(network: str, *, size: int = 112, colour: str = "rgb") -> BackboneRecord:
    """Describe a backbone by its card: name and hashes, without reading the weights.

    Raises:
        UnknownNameError: no such network.
    """
    files = tuple(file.sha256 for file in network_card(network).files)
    return validate(
        BackboneRecord,
        {"network": network, "sha256": files, "size": size, "colour": colour},
        f"the backbone '{network}'",
    )


def load_backbone(
    record: BackboneRecord, weights: WeightsStore, device: str | torch.device = "cpu"
) -> Backbone:
    """Load the very backbone that a metric was trained on.

    Raises:
        UnknownNameError: no such network.
        WeightsError: its card pins other weights now, or they are missing or wrong.
    """
    now = backbone_record(record.network)
    if now.sha256 != record.sha256:
        was, has = (",".join(h[:8] for h in r.sha256) for r in (record, now))
        raise WeightsError(
            f"this metric was trained on '{record.network}' with weights {was}…, "
            f"the card has {has}… now",
            "Train it again with 'spfem-bench train', or take a metric of these weights",
        )
    return backbone(record.network, weights, size=record.size, colour=record.colour, device=device)


# ---- comparison of feature maps -----------------------------------------------------------


def choose_centres(
    maps: Sequence[Tensor],
    how: Centres,
    counts: Sequence[int],
    generator: torch.Generator | None = None,
) -> list[Tensor | None]:
    """Return the regions that are compared at each stage.

    Args:
        maps: the stages' feature maps, of which the sizes count.
        how: ``sampled`` at random; ``grid``, at most 7 x 7 in even distances inside a border
            of 1, the same each time; ``dense`` for all.
        counts: how many are sampled at each stage.
        generator: chance on the CPU; without it torch's own.

    Returns:
        int64 ``(N, 2)`` for each stage, or None for all.

    Raises:
        StcclError: a map is too small, or another word for *how*.
    """
    if how not in get_args(Centres):
        raise StcclError(f"centres '{how}'", f"Allowed: {', '.join(get_args(Centres))}")
    found: list[Tensor | None] = []
    for stage, count in zip(maps, counts, strict=True):
        height, width = stage.shape[-2:]
        if how == "sampled":
            found.append(rep.sample_centres(height, width, count, generator))
        elif how == "grid":
            step = max(1, -(-(max(height, width) - 2) // GRID))
            found.append(rep.grid_centres(height, width, step))
        else:
            found.append(None)
    return found


def compare(
    source: Sequence[Tensor],
    generated: Sequence[Tensor],
    settings: FormSettings,
    heads: Heads | None = None,
    *,
    centres: Centres = "sampled",
    generator: torch.Generator | None = None,
) -> dict[str, Tensor]:
    """Compare the feature maps of all stages, in space and, where there are frames, in time.

    Args:
        source: maps of the stages, each ``(B, C, H, W)``, or ``(B, T, C, H, W)`` for time
            too; no gradient reaches them.
        generated: maps of the same shapes.
        settings: how.
        heads: the mappings; without them features are compared as they are.
        centres: which regions; see :func:`choose_centres`.
        generator: chance for ``sampled``.

    Returns:
        parts by name, as `contrast.parts`.

    Raises:
        StcclError: shapes differ, a value is not finite, too few frames or regions.
    """
    in_time = source[0].ndim == 5
    chosen = choose_centres(source, centres, settings.spatial_centres, generator)
    spatial = [
        contrast.spatial_terms(
            *((x.flatten(0, 1), y.flatten(0, 1)) if in_time else (x, y)),
            settings.contrast,
            c,
            head=heads.spatial[k] if heads else None,
            generator=generator,
        )
        for k, (x, y, c) in enumerate(zip(source, generated, chosen, strict=True))
    ]
    temporal = []
    if in_time:
        chosen = choose_centres(source, centres, settings.temporal_centres, generator)
        temporal = [
            contrast.temporal_terms(
                x,
                y,
                settings.contrast,
                c,
                head=heads.temporal[k] if heads else None,
                generator=generator,
            )
            for k, (x, y, c) in enumerate(zip(source, generated, chosen, strict=True))
        ]
    return contrast.parts(spatial, temporal)


# ---- the loss -----------------------------------------------------------------------------


class STCCL(nn.Module):
    """Spatial and temporal coherent correlation of two pictures or sequences, as a loss.

    Nothing in it is trained: backbone and heads have no gradients, nor has the source;
    gradients reach what is generated. A picture of a 3DMM and a photograph are the same to
    it: give renders of both, or pictures of both.

    Args:
        backbone: frozen.
        heads: mappings of one form; without them features are compared as they are.
        settings: how they are compared.
        value_range: of the pictures, ``(0, 1)`` or ``(-1, 1)``; or say it at each call.
        centres: which regions are compared: ``sampled`` anew at each call, as in training;
            ``grid``, the same each time; ``dense``, all.

    Attributes:
        backbone: pictures to feature maps.
        heads: mappings, or None.
        settings: how features are compared.
        record: what made it, or None for one that was not loaded.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Heads | None,
        settings: FormSettings,
        *,
        value_range: ValueRange | None = None,
        centres: Centres = "sampled",
        record: MetricRecord | None = None,
    ) -> None:
        super().__init__()
        if centres not in get_args(Centres):
            raise StcclError(f"centres '{centres}'", f"Allowed: {', '.join(get_args(Centres))}")
        if centres == "dense" and settings.contrast.spatial_negatives == "positions":
            raise StcclError(
                "negatives from all positions with dense regions compare all with all",
                "Use centres 'sampled' or 'grid'",
            )
        self.backbone = backbone
        self.heads = None if heads is None else heads.requires_grad_(False)
        self.settings, self.centres, self.record = settings, centres, record
        self.value_range = None if value_range is None else _range(value_range)

    @classmethod
    def load(
        cls,
        name: str | Path = "puppets",
        *,
        form: Form = "vd",
        value_range: ValueRange | None = None,
        centres: Centres = "sampled",
        weights: WeightsStore | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> STCCL:
        """Load a learnt metric; every hash is checked first.

        Args:
            name: of a metric in ``metrics/stccl/``, or a path (see :func:`record_path`).
            form: ``vd``, visual disparities, or ``cm``, correlation matrices.
            value_range: of the pictures, ``(0, 1)`` or ``(-1, 1)``; or say it at each call.
            centres: ``sampled``, ``grid`` or ``dense``.
            weights: where the backbone's weights are looked for, a folder or a store.
            device: a torch device.

        Raises:
            UnknownNameError: no metric has that name.
            WeightsError: files are missing, altered, without a record, or of another backbone.
            StcclError: the metric does not have that form.
        """
        heads, record = read_checkpoint(name)
        if form not in heads:
            raise StcclError(
                f"the metric '{name}' has no form '{form}'", f"Allowed: {', '.join(heads)}"
            )
        if not isinstance(weights, WeightsStore):
            weights = WeightsStore.locate(weights)
        eyes = load_backbone(record.backbone, weights, device)
        if [head[0].in_features for head in heads[form].spatial] != list(eyes.channels):  # type: ignore[index]
            raise WeightsError(
                f"the metric '{name}' has no heads for '{record.backbone.network}'",
                "Train it again with 'spfem-bench train'",
            )
        return cls(
            eyes,
            heads[form],
            record.forms[form],
            value_range=value_range,
            centres=centres,
            record=record,
        ).to(device)

    @classmethod
    def untrained(
        cls,
        network: str = "compact-identity",
        *,
        settings: FormSettings | None = None,
        value_range: ValueRange | None = None,
        centres: Centres = "sampled",
        weights: WeightsStore | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> STCCL:
        """Compare a backbone's features as they are, without mappings.

        Raises:
            UnknownNameError: no such network.
            CardError: a network without four stages.
            WeightsError: its weights are missing or wrong.
        """
        if not isinstance(weights, WeightsStore):
            weights = WeightsStore.locate(weights)
        return cls(
            backbone(network, weights, device=device),
            None,
            settings or FormSettings(contrast=ContrastSettings()),
            value_range=value_range,
            centres=centres,
        )

    def maps(self, pictures: Tensor, *, value_range: ValueRange | None = None) -> list[Tensor]:
        """Return the feature maps of all stages.

        Args:
            pictures: ``(B, 3, H, W)`` or ``(B, T, 3, H, W)``, RGB, any size.
            value_range: see :meth:`forward`.

        Returns:
            four maps ``(B, C, h, w)``, or ``(B, T, C, h, w)``.

        Raises:
            StcclError: another shape, whole numbers, or values that are not finite or
                outside the range.
        """
        pictures = self._checked(pictures, value_range, "pictures")
        return self._stages(pictures)

    def forward(
        self,
        source: Tensor,
        generated: Tensor,
        *,
        value_range: ValueRange | None = None,
        parts: bool = False,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Return how badly the generated keeps the source's local correlations.

        Args:
            source: RGB, floating point, ``(B, 3, H, W)`` for space alone, or
                ``(B, T, 3, H, W)``, T consecutive frames, for space and time. Faces in one
                pose, as large as ArcFace crops; any H and W, resized to the backbone's square.
            generated: the same of the generated; H and W may be others.
            value_range: ``(0, 1)`` or ``(-1, 1)``; needed here unless given when loading.
            parts: return all parts by name instead, as `contrast.parts`.
            generator: chance on the CPU for sampled regions; without it torch's own.

        Returns:
            a scalar of at least 0, or with *parts* scalars by name, of which ``loss`` is it.

        Raises:
            StcclError: shapes that do not go together, whole numbers, values that are not
                finite or outside the range, fewer frames than the settings' window, or a
                range that nobody said.
        """
        x = self._checked(source, value_range, "source")
        y = self._checked(generated, value_range, "generated")
        if x.shape[:-3] != y.shape[:-3]:
            raise StcclError(
                f"source {tuple(x.shape)} and generated {tuple(y.shape)} differ in length",
                "Give as many frames of both",
            )
        if x.device != y.device:
            raise StcclError(
                f"source is on {x.device}, generated on {y.device}", "Bring both to one device"
            )
        with torch.no_grad():
            source_maps = self._stages(x.detach())
        named = compare(
            source_maps,
            self._stages(y),
            self.settings,
            self.heads,
            centres=self.centres,
            generator=generator,
        )
        return named if parts else named["loss"]

    def _stages(self, pictures: Tensor) -> list[Tensor]:
        if pictures.ndim == 4:
            return self.backbone.stages(pictures)
        count = pictures.shape[:2]
        return [torch.unflatten(m, 0, count) for m in self.backbone.stages(pictures.flatten(0, 1))]

    def _checked(self, pictures: Tensor, value_range: ValueRange | None, what: str) -> Tensor:
        """Return pictures in -1 to 1, in the backbone's floating type."""
        if value_range is None and self.value_range is None:
            raise StcclError(
                "nobody said what range the pictures are in",
                "Give value_range=(0, 1) or value_range=(-1, 1)",
            )
        low, high = _range(value_range or self.value_range)  # type: ignore[arg-type]
        if not pictures.is_floating_point():
            raise StcclError(
                f"{what}: whole numbers ({pictures.dtype})",
                "Give floating point numbers: x / 255, with value_range=(0, 1)",
            )
        if pictures.ndim not in (4, 5) or pictures.shape[-3] != 3 or not pictures.numel():
            raise StcclError(
                f"{what} of shape {tuple(pictures.shape)}",
                "Give (B, 3, height, width), or (B, T, 3, height, width) for space and time",
            )
        least, most = (float(v) for v in pictures.detach().aminmax())
        if not (low - SLACK <= least and most <= high + SLACK):  # NaN fails too
            raise StcclError(
                f"{what}: values from {least:.4g} to {most:.4g}, outside {low:g} to {high:g}",
                "Look for values that are not finite, or say the right value_range: "
                "(0, 1) or (-1, 1)",
            )
        pictures = pictures.to(next(self.backbone.parameters()).dtype)
        return pictures if low == -1 else pictures * 2 - 1


def _range(given: ValueRange) -> ValueRange:
    if tuple(given) not in RANGES:
        raise StcclError(f"a value range of {given}", "Allowed: (0, 1), (-1, 1)")
    return given[0], given[1]
