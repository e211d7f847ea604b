"""Coherent correlation at every position of a map: deterministic, without sampling.

The mean cosine of N vectors with N others is the product of their summed directions. A cosine of
disparities is Pearson's correlation when maps are `centred` first.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.contrast import Head

#: Steps to half of the neighbours; the others are the reverse.
HALF = ((0, 1), (1, -1), (1, 0), (1, 1))

#: Numbers of a map that are processed at once, for the processor's cache.
PIECE = 300_000

#: Frames among which the other moments of a region are.
WINDOW = 5


class StageCoherence(NamedTuple):
    """The similarity of one stage of two clips, cosines in [-1, 1].

    Attributes:
        positive: of corresponding disparities, float32: spatial ``(T, H - 2, W - 2)``, the mean
            over a region's eight neighbours; temporal ``(T - 1, H, W)``.
        size: length of the source's disparities (root mean square over channels), of that shape.
        elsewhere: ``(T,)`` or ``(T - 1,)``, mean with the disparities of all other pairs of
            regions in the frame, or of all other regions between the same two frames.
        near: like ``elsewhere``, mean with the other neighbours of the same region (equations 1
            and 4 of ASCCL), or with its other moments within the window; NaN without any.
    """

    positive: Tensor
    size: Tensor
    elsewhere: Tensor
    near: Tensor


def spatial(source: Tensor, generated: Tensor, head: Head | None = None) -> StageCoherence:
    """Compare the visual disparities of two clips, frame by frame (equations 1 and 3).

    Feature maps are ``(T, C, H, W)``, H and W at least 3. Without the mapping of equation 3
    features are compared as they are.

    Raises:
        StcclError: other shapes, or a value is not finite.
    """
    x, y = _checked(source, generated)
    rep.check_neighbours(x)
    with torch.autocast(x.device.type, enabled=False):
        if head:
            return _mapped_spatial(x, y, head)
        step = max(1, PIECE // x[0].numel())
        parts = [_plain_spatial(x[i : i + step], y[i : i + step]) for i in range(0, len(x), step)]
    return StageCoherence(*(torch.cat(each) for each in zip(*parts, strict=True)))


def temporal(source: Tensor, generated: Tensor, head: Head | None = None) -> StageCoherence:
    """Compare the changes of each region between adjacent frames of maps ``(T, C, H, W)``.

    T is at least 2. Other moments (``near``) are those in the same block of `WINDOW` frames: blocks
    begin with frames 0, 4, 8, ...

    Raises:
        StcclError: other shapes, or a value is not finite.
    """
    x, y = _checked(source, generated)
    rep.frame_windows(len(x))
    with torch.autocast(x.device.type, enabled=False):
        dx, dy = ((maps[:-1] - maps[1:]).flatten(2).transpose(1, 2) for maps in (x, y))
        size = dx.square().mean(-1).sqrt()
        if head:
            dx, dy = rep.widened(head(dx)), rep.widened(head(dy))
        ux, uy = rep.unit(dx), rep.unit(dy)
        same = (ux * uy).sum(-1)
        elsewhere = _others(ux.sum(1), uy.sum(1), same.sum(1), same.shape[1])
        near = torch.full_like(elsewhere, torch.nan)
        for start in range(0, len(ux), WINDOW - 1):
            block = slice(start, start + WINDOW - 1)
            count = len(ux[block])
            if count > 1:
                others = _others(ux[block].sum(0), uy[block].sum(0), same[block].sum(0), count)
                near[block] = others.mean()
    same, size = (torch.unflatten(values, 1, x.shape[-2:]) for values in (same, size))
    return StageCoherence(same, size, elsewhere, near)


def centred(maps: Tensor) -> Tensor:
    """Return maps ``(T, C, H, W)`` less their mean over channels, for Pearson's correlations."""
    return maps - maps.mean(1, keepdim=True)


def _plain_spatial(x: Tensor, y: Tensor) -> StageCoherence:
    height, width = x.shape[-2:]
    same = x.new_zeros(len(x), height, width)
    size = torch.zeros_like(same)
    sx, sy = torch.zeros_like(x), torch.zeros_like(y)
    for down, right in HALF:
        # Both ends of all pairs of neighbours in one direction.
        begin = _part(0, height - down, max(0, -right), width - max(0, right))
        end = _part(down, height, max(0, right), width + min(0, right))
        dx, dy = x[begin] - x[end], y[begin] - y[end]
        length_x, length_y = (d.square().sum(1).sqrt() for d in (dx, dy))
        ux, uy = dx * _inverse(length_x)[:, None], dy * _inverse(length_y)[:, None]
        cosine, square = (ux * uy).sum(1), length_x.square()
        for place, sign in ((begin, 1), (end, -1)):
            same[place[1:]] += cosine
            size[place[1:]] += square
            sx[place].add_(ux, alpha=sign)
            sy[place].add_(uy, alpha=sign)
    inner = _part(1, height - 1, 1, width - 1)
    same, size = same[inner[1:]], (size[inner[1:]] / (8 * x.shape[1])).sqrt()
    sx, sy = sx[inner], sy[inner]
    return _spatial(same, size, (sx * sy).sum(1), sx.sum((2, 3)), sy.sum((2, 3)))


def _mapped_spatial(x: Tensor, y: Tensor, head: Head) -> StageCoherence:
    layout = x.shape[-2] - 2, x.shape[-1] - 2
    parts = []
    for i in range(len(x)):  # all neighbours of one frame at a time: they are nine maps
        dx, dy = (rep.spatial_disparity(maps[i : i + 1])[0] for maps in (x, y))
        size = dx.square().mean((-2, -1)).sqrt()
        ux, uy = (rep.unit(rep.widened(head(d))) for d in (dx, dy))
        sx, sy = ux.sum(1), uy.sum(1)
        same = (ux * uy).sum((1, 2))
        parts.append((same, size, (sx * sy).sum(-1), sx.sum(0), sy.sum(0)))
    same, size, around, sx, sy = (torch.stack(each) for each in zip(*parts, strict=True))
    same, size, around = (torch.unflatten(v, 1, layout) for v in (same, size, around))
    return _spatial(same, size, around, sx, sy)


def _spatial(same: Tensor, size: Tensor, around: Tensor, sx: Tensor, sy: Tensor) -> StageCoherence:
    """Join sums over neighbours: of cosines, of summed directions, of all directions."""
    elsewhere = _others(sx, sy, same.sum((1, 2)), 8 * same[0].numel())
    return StageCoherence(same / 8, size, elsewhere, ((around - same) / 56).mean((1, 2)))


def _part(top: int, bottom: int, left: int, right: int) -> tuple[slice, ...]:
    """Return the index of a rectangle of maps; less its first entry, of maps without channels."""
    return slice(None), slice(None), slice(top, bottom), slice(left, right)


def _inverse(length: Tensor) -> Tensor:
    """Return 1 / length, and 0 where there is no direction (see `representations.unit`)."""
    return torch.where(length > 1e-6, length, torch.inf).reciprocal()


def _others(sx: Tensor, sy: Tensor, same: Tensor, count: int) -> Tensor:
    """Return the mean cosine of each of *count* directions with the others, from their sums."""
    if count < 2:
        return torch.full_like(same, torch.nan)
    return ((sx * sy).sum(-1) - same) / (count * (count - 1))


def _checked(source: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    rep.check_same_shape(source, generated)
    return rep.checked_maps(source.detach()), rep.checked_maps(generated.detach())
