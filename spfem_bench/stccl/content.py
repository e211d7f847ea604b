"""The form ``ct``: what a mouth says, moment by moment, whatever the face feels (ours).

ASCCL and STCCL compare the regions of one moment, so that speech and emotion disturb them alike.
What tells the two apart is that an emotion stays: each region's features less their mean over the
clip hold what moves. All regions of a moment are one vector, in which a region weighs as much as
it moves. It is compared with the same moment of the source, against the source's other moments.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from spfem_bench.errors import StcclError
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.contrast import Head
from spfem_bench.stccl.losses import Terms
from spfem_bench.stccl.settings import ContentSettings


def pooled_regions(maps: Tensor, grid: int) -> Tensor:
    """Return the regions ``(B, T, R, C)`` of maps ``(B, T, C, H, W)``, R at most *grid* squared.

    Each is the mean over a part of the map; a smaller map keeps its own positions.

    Raises:
        StcclError: the maps are no sequence, or a value is not finite.
    """
    maps = rep.checked_sequence(maps)
    size = [min(grid, length) for length in maps.shape[-2:]]
    pooled = F.adaptive_avg_pool2d(maps.flatten(0, 1), size)
    return rep.feature_rows(torch.unflatten(pooled, 0, maps.shape[:2]))


def moments(regions: Tensor, head: Head | None = None) -> Tensor:
    """Return a vector of length 1 for each moment, ``(B, T, D)``, of regions ``(B, T, R, C)``.

    Regions less their mean over time; mapped by a head, if there is one; joined.
    """
    with torch.autocast(regions.device.type, enabled=False):
        moving = rep.widened(regions)
        moving = moving - moving.mean(1, keepdim=True)
    mapped = moving if head is None else head(moving)
    return rep.unit(rep.widened(mapped).flatten(2))


def content_terms(
    source: Tensor,
    generated: Tensor,
    settings: ContentSettings,
    *,
    head: Head | None = None,
) -> Terms:
    """Compare one stage of two batches of sequences ``(B, T, C, H, W)``, moment by moment.

    With ``z`` the `moments` of both, ``s = cos``, and the frames u at least ``apart`` from t::

        loss = mean over t of -log( e(s(x_t, y_t)) / (e(s(x_t, y_t)) + sum over u of e(s(x_u, y_t)))
        e(s) = exp(s / temperature)

    With ``negatives`` ``both``, the sum has the generated's own other moments ``s(y_u, y_t)`` too.
    Gradients reach the generated maps and the head. ``per_region`` ``(B, T)`` has ``s(x_t, y_t)``.

    Raises:
        StcclError: shapes differ, a value is not finite, or there are too few frames.
    """
    rep.check_same_shape(source, generated)
    x, y = (pooled_regions(maps, settings.grid) for maps in (source.detach(), generated))
    return moment_terms(moments(x, head), moments(y, head), settings)


def moment_terms(source: Tensor, generated: Tensor, settings: ContentSettings) -> Terms:
    """Contrast `moments` ``(B, T, D)`` of two sequences; see `content_terms`."""
    frames = source.shape[1]
    if frames <= 2 * settings.apart:
        raise StcclError(
            f"{frames} frames, of which some have no other moment {settings.apart} frames away",
            f"Give at least {2 * settings.apart + 1} frames; about a second is best",
        )
    time = torch.arange(frames, device=source.device)
    near = (time[:, None] - time).abs() < settings.apart
    with torch.autocast(source.device.type, enabled=False):
        same = (source * generated).sum(-1)
        # Rows are the generated's moments, the anchors.
        others = generated @ source.transpose(1, 2)
        candidates = [others.masked_fill(near, -torch.inf)]
        if settings.negatives == "both":
            own = generated @ generated.transpose(1, 2)
            candidates.append(own.masked_fill(near, -torch.inf))
        logits = torch.cat([same[..., None], *candidates], -1) / settings.temperature
        loss = (logits.logsumexp(-1) - logits[..., 0]).mean()
    same, others = same.detach(), others.detach()
    return Terms(loss, same.mean(), others[:, ~near].mean(), same)


def content_stages(
    source: Sequence[Tensor],
    generated: Sequence[Tensor],
    settings: ContentSettings,
    heads: nn.ModuleList | None,
) -> list[Terms]:
    """Return the `content_terms` of all stages, first to last."""
    stages = enumerate(zip(source, generated, strict=True))
    return [content_terms(x, y, settings, head=heads[k] if heads else None) for k, (x, y) in stages]
