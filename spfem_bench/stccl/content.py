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
from spfem_bench.stccl import contrast
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.contrast import Head
from spfem_bench.stccl.losses import Terms
from spfem_bench.stccl.settings import ContentSettings

REGION_NUMBERS = 8
"""Numbers to which a head maps each region."""


def pooled_regions(maps: Tensor, grid: int) -> Tensor:
    """Return the regions ``(B, T, R, C)`` of maps ``(B, T, C, H, W)``, R at most *grid* squared.

    Each is the mean over a part of the map; a smaller map keeps its own positions.

    Raises:
        StcclError: the maps are no sequence, or a value is not finite.
    """
    maps = rep.checked_sequence(maps)
    pooled = pool_map(maps.flatten(0, 1), grid)
    return rep.feature_rows(torch.unflatten(pooled, 0, maps.shape[:2]))


def pool_map(maps: Tensor, grid: int) -> Tensor:
    """Return maps ``(B, C, H, W)`` pooled to at most *grid* by *grid* positions."""
    height, width = maps.shape[-2:]
    return F.adaptive_avg_pool2d(maps, (min(grid, height), min(grid, width)))


def moments(regions: Tensor, head: Head | None = None) -> Tensor:
    """Return a vector of length 1 for each moment, ``(B, T, D)``, of regions ``(B, T, R, C)``.

    Regions less their mean over time, joined; a head, if there is one, maps them to ``(B, T, D)``,
    and its output's mean over time is subtracted too.
    """
    with torch.autocast(regions.device.type, enabled=False):
        moving = _centred(regions)
    if head is not None:
        moving = head(moving)
    with torch.autocast(regions.device.type, enabled=False):
        return rep.unit(_centred(moving).flatten(2))


def _centred(values: Tensor) -> Tensor:
    values = rep.widened(values)
    return values - values.mean(1, keepdim=True)


def content_terms(
    source: Tensor,
    generated: Tensor,
    settings: ContentSettings,
    *,
    head: Head | None = None,
) -> Terms:
    """Compare one stage of two batches of sequences ``(B, T, C, H, W)``, moment by moment.

    T are moments: every ``settings.every``-th frame. With ``z`` the `moments` of both, ``s = cos``,
    and the moments u that are ``apart`` frames or more from t::

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
    count = source.shape[1]
    time = torch.arange(count, device=source.device) * settings.every
    near = (time[:, None] - time).abs() < settings.apart
    if bool(near.all(1).any()):
        raise StcclError(
            f"{count} moments, of which some have no other {settings.apart} frames away",
            f"Give at least {settings.fewest} consecutive frames; about a second is best",
        )
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


def identity_cost(source: Tensor, generated: Tensor, grid: int) -> Tensor:
    """Return ``1 - cos`` of what stays in one stage of two sequences ``(B, T, C, H, W)``, 0 to 2.

    What stays is the regions' mean over time less its mean over regions, which faces share.
    """
    x, y = (pooled_regions(maps, grid) for maps in (source.detach(), generated))
    with torch.autocast(x.device.type, enabled=False):
        stays = [rep.widened(regions).mean(1) for regions in (x, y)]
        x, y = (rep.unit((each - each.mean(1, keepdim=True)).flatten(1)) for each in stays)
        return (1 - (x * y).sum(-1)).mean()


def content_parts(
    source: Sequence[Tensor],
    generated: Sequence[Tensor],
    settings: ContentSettings,
    heads: ContentHeads | None = None,
) -> dict[str, Tensor]:
    """Return `contrast.parts` of the `content_terms` of all stages, first to last.

    Where ``settings.identity`` is above 0, ``identity`` is the mean `identity_cost` of the stages,
    ``identity_stage1`` that of the first; and ``loss = sct + settings.identity * identity``.
    """
    own = heads.stages if heads else [None] * len(source)
    stages = list(zip(source, generated, own, strict=True))
    named = contrast.parts(
        content=[content_terms(x, y, settings, head=head) for x, y, head in stages]
    )
    if settings.identity:
        costs = [identity_cost(x, y, settings.grid) for x, y, _ in stages]
        named["identity"] = torch.stack(costs).mean()
        named |= {f"identity_stage{k}": cost for k, cost in enumerate(costs, start=1)}
        named["loss"] = named["loss"] + settings.identity * named["identity"]
    return named


class ContentHead(nn.Module):
    """A mapping of one stage's moving regions ``(..., R, C)`` to 16 numbers a moment ``(..., D)``.

    Each region alone first, to 8 numbers; then all together. All regions together can follow a
    mouth that moves with the head, which a mapping of single regions cannot.
    """

    def __init__(self, channels: int, regions: int) -> None:
        super().__init__()
        self.region = nn.Linear(channels, REGION_NUMBERS)
        self.moment = nn.Sequential(
            nn.Linear(REGION_NUMBERS * regions, 16), nn.ReLU(), nn.Linear(16, 16)
        )

    def forward(self, moving: Tensor) -> Tensor:
        """Return the mapped moments."""
        mapped: Tensor = self.moment(self.region(moving).relu().flatten(-2))
        return mapped


class ContentHeads(nn.Module):
    """A `ContentHead` for each stage, of its channels and its number of regions."""

    def __init__(self, channels: Sequence[int], regions: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)
        pairs = zip(channels, regions, strict=True)
        self.stages: Sequence[ContentHead] = nn.ModuleList(  # type: ignore[assignment]
            ContentHead(c, r) for c, r in pairs
        )
