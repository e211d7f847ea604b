"""Random changes of batches of pictures, on any device, drawn on the CPU."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor

from spfem_bench.puppets.compact.recipes import Changes

# ITU-R BT.601, full range, as JPEG uses it.
_YCC = torch.tensor(
    [[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]]
)
_RGB = torch.linalg.inv(_YCC)


def _cosines() -> Tensor:
    """Return the orthonormal 8-point DCT-II, (8, 8), a row for each frequency."""
    k, n = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    basis = torch.cos(math.pi * (n + 0.5) * k / 8) / 2
    basis[0] /= math.sqrt(2)
    return basis


_BASIS = (_cosines()[:, None, :, None] * _cosines()[None, :, None, :]).reshape(64, 1, 8, 8)
_COARSER = 1 + 0.25 * (torch.arange(8.0)[:, None] + torch.arange(8.0)[None])
"""Quantisation steps grow with frequency, about as in JPEG's tables."""


def change_with_points(
    pictures: Tensor, points: Tensor, how: Changes, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return pictures changed at random, as :func:`change` does, and where their points are then.

    Points are float32 (B, K, 2), x and y in sides of the picture, from its upper left corner.
    """
    places: list[Tensor] = []
    changed = change(pictures, how, rng, places=places)
    # A picture's place is taken from where the matrix sends it: points go the other way.
    matrix, shift = places[0][:, :, :2], places[0][:, :, 2]
    inner = (2 * points.to(pictures.device) - 1 - shift[:, None]) @ torch.linalg.inv(
        matrix
    ).transpose(1, 2)
    return changed, (inner + 1) / 2


def change(
    pictures: Tensor,
    how: Changes,
    rng: torch.Generator,
    *,
    run: int = 1,
    places: list[Tensor] | None = None,
) -> Tensor:
    """Return pictures changed at random, float32; runs of *run* alike, except for noise.

    Pictures are float32 (runs * run, 3, H, W), RGB, 0 to 255; H and W multiples of 16. *rng* is on
    the CPU, so that every device draws the same changes. *places* receives the matrices (B, 2, 3)
    that pictures are moved by, in half sides.
    """
    runs = len(pictures) // run

    def even(low: float, high: float, *more: int) -> Tensor:
        drawn = torch.rand(runs, *more, generator=rng) * (high - low) + low
        return drawn.repeat_interleave(run, 0).to(pictures.device)

    def share(part: float) -> Tensor:
        return even(0, 1) < part

    zoom, turn = even(-how.zoom, how.zoom), even(-how.turn, how.turn) * math.pi / 180
    shift, mirror = even(-how.shift, how.shift, 2) * 2, 1 - 2 * share(how.flip).float()
    matrix = _matrix(zoom, turn, shift, mirror)
    if places is not None:
        places.append(matrix)
    x = _move(pictures, matrix)
    part, chosen = even(0, how.blur, 1, 1, 1), share(how.blurred)
    if chosen.any():
        x[chosen] = torch.lerp(x[chosen], _blurred(x[chosen]), part[chosen])
    mean = x.mean((1, 2, 3), keepdim=True)
    x = mean + (x - mean) * (1 + even(-how.contrast, how.contrast, 1, 1, 1))
    x = x * (1 + even(-how.colour, how.colour, 3, 1, 1))
    x = x + even(-how.brightness, how.brightness, 1, 1, 1)
    step, chosen = even(1, how.quantisation, 1, 1, 1), share(how.quantised)
    if chosen.any():
        x[chosen] = _quantised(x[chosen], step[chosen])
    noise = torch.randn(x.shape, generator=rng).to(x.device)
    return (x + noise * even(0, how.noise, 1, 1, 1)).clamp(0, 255)


def _matrix(zoom: Tensor, turn: Tensor, shift: Tensor, mirror: Tensor) -> Tensor:
    sine, cosine = turn.sin(), turn.cos()
    across = torch.stack([cosine * mirror, -sine, shift[:, 0]], 1)
    down = torch.stack([sine * mirror, cosine, shift[:, 1]], 1)
    scale = torch.stack([1 + zoom, 1 + zoom, torch.ones_like(zoom)], 1).unsqueeze(1)
    return torch.stack([across, down], 1) * scale


def _move(x: Tensor, matrix: Tensor) -> Tensor:
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, padding_mode="border", align_corners=False)


def _blurred(x: Tensor) -> Tensor:
    x = F.pad(x, (1, 1, 1, 1), mode="replicate")
    x = (x[..., :-2] + 2 * x[..., 1:-1] + x[..., 2:]) / 4
    return (x[..., :-2, :] + 2 * x[..., 1:-1, :] + x[..., 2:, :]) / 4


def _mixed(x: Tensor, matrix: Tensor) -> Tensor:
    """Return pictures whose colours are mixed by a matrix."""
    return (matrix.to(x.device) @ x.flatten(2)).reshape(x.shape)


def _quantised(x: Tensor, step: Tensor) -> Tensor:
    """Round the coefficients of 8 x 8 blocks; chroma at half size, in steps twice as coarse."""
    ycc = _mixed(x - 128, _YCC)
    luma = _blocks_rounded(ycc[:, :1], step)
    chroma = _blocks_rounded(F.avg_pool2d(ycc[:, 1:], 2), 2 * step)
    both = torch.cat([luma, F.interpolate(chroma, scale_factor=2, mode="bilinear")], 1)
    return _mixed(both, _RGB) + 128


def _blocks_rounded(x: Tensor, step: Tensor) -> Tensor:
    basis, coarser = _BASIS.to(x.device), _COARSER.to(x.device)
    batch, channels, height, width = x.shape
    # Blocks may be cut at the lower and right edge: the last pixels are repeated.
    x = F.pad(x, (0, -width % 8, 0, -height % 8), mode="replicate")
    coefficients = F.conv2d(x.reshape(batch * channels, 1, *x.shape[2:]), basis, stride=8)
    steps = step.repeat_interleave(channels, 0) * coarser.reshape(1, 64, 1, 1)
    rounded = (coefficients / steps).round() * steps
    back = F.conv_transpose2d(rounded, basis, stride=8).reshape(batch, channels, *x.shape[2:])
    return back[..., :height, :width]
