"""The learnt metric as a loss in one line.

loss = STCCL.load("puppets")(source, generated, value_range=(0, 1))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from spfem_bench.errors import StcclError, WeightsError
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.stccl import content, contrast
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.backbone import Backbone, backbone
from spfem_bench.stccl.checkpoint import (
    Heads,
    MetricRecord,
    load_backbone,
    read_checkpoint,
    read_form,
)
from spfem_bench.stccl.content import ContentHeads
from spfem_bench.stccl.settings import ContentSettings, ContrastSettings, Form, FormSettings

__all__ = ["STCCL", "Form", "FormSettings", "Heads", "load_backbone", "read_checkpoint"]

Centres = Literal["sampled", "grid", "dense"]
ValueRange = tuple[float, float]

SLACK = 1e-3
"""Distance outside the range that is accepted: resizing and half precision round that much."""


def grid_of_regions(height: int, width: int) -> Tensor:
    """Return at most 7 x 7 regions of a map in even distances, inside a border of 1: (N, 2)."""
    return rep.grid_centres(height, width, max(1, -(-(max(height, width) - 2) // 7)))


def choose_centres(
    maps: Sequence[Tensor],
    how: Centres,
    counts: Sequence[int],
    generator: torch.Generator | None = None,
    *,
    replaced: bool = False,
) -> list[Tensor | None]:
    """Return the regions that are compared at each stage: int64 ``(N, 2)``, or None for all.

    ``sampled`` draws *counts* at random on the CPU, with *replaced* from all positions with
    replacement; ``grid`` is :func:`grid_of_regions`; ``dense`` is all. Only the sizes of *maps*
    are used.

    Raises:
        StcclError: a map is too small, or another word for *how*.
    """
    _check_centres(how)
    centres: list[Tensor | None] = []
    for stage, count in zip(maps, counts, strict=True):
        height, width = stage.shape[-2:]
        if how == "sampled":
            sample = rep.sample_positions if replaced else rep.sample_centres
            centres.append(sample(height, width, count, generator))
        else:
            centres.append(grid_of_regions(height, width) if how == "grid" else None)
    return centres


class STCCL(nn.Module):
    """Spatial and temporal coherent correlation of two pictures or sequences, as a loss.

    Backbone, heads and source get no gradients. Give renders of both, or photographs of both.

    Args:
        heads: mappings of one form; without them features are compared as they are.
        value_range: of the pictures, ``(0, 1)`` or ``(-1, 1)``; or give it at each call.
        centres: regions that are compared: ``sampled`` anew at each call, as in training;
            ``grid``, the same each time; ``dense``, all.
        record: of a metric that was loaded.

    Raises:
        StcclError: another word for *centres*, another range, or all regions against all.
    """

    def __init__(
        self,
        backbone: Backbone,
        heads: Heads | ContentHeads | None,
        settings: FormSettings | ContentSettings,
        *,
        value_range: ValueRange | None = None,
        centres: Centres = "sampled",
        record: MetricRecord | None = None,
    ) -> None:
        super().__init__()
        _check_centres(centres)
        how = settings.contrast if isinstance(settings, FormSettings) else None
        if how and centres == "dense" and how.spatial_negatives == "positions":
            raise StcclError(
                "negatives from all positions with dense regions compare all with all",
                "Use centres 'sampled' or 'grid'",
            )
        self.backbone = backbone
        self.heads: Any = None if heads is None else heads.requires_grad_(False)
        self.settings, self.centres, self.record = settings, centres, record
        self.value_range = None if value_range is None else _checked_range(value_range)

    @classmethod
    def load(
        cls,
        name: str | Path = "puppets",
        *,
        form: Form | None = None,
        value_range: ValueRange | None = None,
        centres: Centres = "sampled",
        weights: WeightsStore | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> STCCL:
        """Load a learnt metric by name or path (`checkpoint.metric_path`) after a check of hashes.

        The form is ``vd``, visual disparities, ``cm``, correlation matrices, or ``ct``, content;
        by default the metric's first.

        Raises:
            UnknownNameError: no metric has that name.
            WeightsError: files are missing, altered, without a record, or of another backbone.
            StcclError: the metric does not have that form.
        """
        heads, record = read_form(name, form) if form else read_checkpoint(name)
        chosen: Form = form if form else next(iter(heads))
        network = load_backbone(record.backbone, _store(weights), device)
        if heads[chosen].channels != tuple(network.channels):
            raise WeightsError(
                f"the metric '{name}' has no heads for '{record.backbone.network}'",
                "Train it again with 'spfem-bench train'",
            )
        own, settings = heads[chosen], record.forms[chosen]
        loaded = cls(
            network, own, settings, value_range=value_range, centres=centres, record=record
        )
        return loaded.to(device)

    @classmethod
    def untrained(
        cls,
        network: str = "compact-identity",
        *,
        form: Form = "vd",
        settings: FormSettings | ContentSettings | None = None,
        value_range: ValueRange | None = None,
        centres: Centres = "sampled",
        weights: WeightsStore | Path | None = None,
        device: str | torch.device = "cpu",
    ) -> STCCL:
        """Return a loss on a backbone's features as they are, without mappings.

        *settings* are by default those of the form: ``vd`` and ``cm`` as in the papers, or ``ct``.
        """
        loaded = backbone(network, _store(weights), device=device)
        if settings is None:
            settings = ContentSettings()
            if form != "ct":
                settings = FormSettings(contrast=ContrastSettings(form=form))
        return cls(loaded, None, settings, value_range=value_range, centres=centres)

    def maps(self, pictures: Tensor, *, value_range: ValueRange | None = None) -> list[Tensor]:
        """Return four maps ``(B, C, h, w)`` or ``(B, T, C, h, w)`` of pictures as in `forward`."""
        return self._stages(self._checked(pictures, value_range, "pictures"))

    def forward(
        self,
        source: Tensor,
        generated: Tensor,
        *,
        value_range: ValueRange | None = None,
        parts: bool = False,
        generator: torch.Generator | None = None,
    ) -> Any:
        """Return the loss: low where the generated keeps the source's local correlations.

        Args:
            source: RGB, floating point, ``(B, 3, H, W)`` for space alone, or ``(B, T, 3, H, W)``, T
                consecutive frames, for space and time, or ``ct``. Faces in one pose, as large as
                ArcFace crops; any H and W, resized to the backbone's square.
            generated: the same of the generated; H and W may be others.
            value_range: ``(0, 1)`` or ``(-1, 1)``; needed here unless given when loading.
            parts: return `contrast.parts`, of ``ct`` `content.content_parts`, by name, not the
                scalar ``loss`` of at least 0.
            generator: for sampled regions, on the CPU; without it torch's own.

        Raises:
            StcclError: shapes that do not fit, whole numbers, values that are not finite or
                outside the range, fewer frames than the settings' window, or no range.
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
        how = self.settings
        if isinstance(how, ContentSettings):
            _check_sequence(x)
            x, y = x[:, :: how.every], y[:, :: how.every]
        with torch.no_grad():
            source_maps = self._stages(x.detach())
        if isinstance(how, ContentSettings):
            named = content.content_parts(source_maps, self._stages(y), how, self.heads)
        else:
            named = self.compare(source_maps, self._stages(y), generator)
        return named if parts else named["loss"]

    def compare(
        self, source: list[Tensor], generated: list[Tensor], generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """Return `contrast.parts` of maps ``(B, C, H, W)``, or ``(B, T, C, H, W)`` for time too."""
        in_time = source[0].ndim == 5
        if isinstance(self.settings, ContentSettings):
            _check_sequence(source[0])
            step = self.settings.every
            x, y = ([m[:, ::step] for m in maps] for maps in (source, generated))
            return content.content_parts(x, y, self.settings, self.heads)
        how = self.settings.contrast
        chosen = choose_centres(source, self.centres, self.settings.spatial_centres, generator)
        x, y = (
            [m.flatten(0, 1) for m in maps] if in_time else maps for maps in (source, generated)
        )
        stages = zip(x, y, chosen, strict=True)
        own = self.heads.spatial if self.heads else None
        spatial = contrast.stage_terms(contrast.spatial_terms, stages, how, own, generator)
        if not in_time:
            return contrast.parts(spatial)
        counts, released = self.settings.temporal_centres, how.definition == "released-code"
        chosen = choose_centres(source, self.centres, counts, generator, replaced=released)
        stages = zip(source, generated, chosen, strict=True)
        own = self.heads.temporal if self.heads else None
        temporal = contrast.stage_terms(contrast.temporal_terms, stages, how, own, generator)
        return contrast.parts(spatial, temporal)

    def _stages(self, pictures: Tensor) -> list[Tensor]:
        if pictures.ndim == 4:
            return self.backbone.stages(pictures)
        count = pictures.shape[:2]
        return [torch.unflatten(m, 0, count) for m in self.backbone.stages(pictures.flatten(0, 1))]

    def _checked(self, pictures: Tensor, value_range: ValueRange | None, what: str) -> Tensor:
        """Return pictures in -1 to 1, in the backbone's floating type."""
        value_range = value_range or self.value_range
        if value_range is None:
            raise StcclError(
                "the pictures' value range is not given",
                "Give value_range=(0, 1) or value_range=(-1, 1)",
            )
        low, high = _checked_range(value_range)
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
                "Look for values that are not finite, or give the right value_range: "
                "(0, 1) or (-1, 1)",
            )
        pictures = pictures.to(next(self.backbone.parameters()).dtype)
        return pictures if low == -1 else pictures * 2 - 1


def _store(weights: WeightsStore | Path | None) -> WeightsStore:
    return weights if isinstance(weights, WeightsStore) else WeightsStore.locate(weights)


def _check_sequence(frames: Tensor) -> None:
    if frames.ndim != 5:
        raise StcclError(
            "the form 'ct' compares moments, and single pictures were given",
            "Give sequences (B, T, 3, height, width) of about a second",
        )


def _check_centres(centres: str) -> None:
    if centres not in get_args(Centres):
        raise StcclError(f"centres '{centres}'", f"Allowed: {', '.join(get_args(Centres))}")


def _checked_range(value_range: ValueRange) -> ValueRange:
    if tuple(value_range) not in ((0, 1), (-1, 1)):
        raise StcclError(f"a value range of {value_range}", "Allowed: (0, 1), (-1, 1)")
    return value_range[0], value_range[1]
