"""A convolution over time with fewer multiplications (Toom-Cook; Winograd's minimal filtering).

Four overlapping windows of five frames need 20 products with a filter's five taps; eight are enough
(Winograd, Arithmetic Complexity of Computations, 1980; Lavin and Gray, CVPR 2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from numpy.polynomial.polynomial import polyfromroots
from torch import Tensor, nn

TAPS = 5
WINDOWS = 4
"""Windows that come from one set of products: more would cost digits."""

POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)
"""Where polynomials are multiplied; infinity is the eighth."""

PRODUCTS = len(POINTS) + 1

STRIP = 30 << 20
"""Bytes of products at once. Larger strips make glibc return memory after each call."""


def mixes() -> tuple[Tensor, Tensor]:
    """Return how frames and how taps are mixed, float64 (8, 8) and (8, 5).

    Windows y_j = sum_k d_(j+k) g_k of frames d and a filter g are, transposed, the product of two
    polynomials of degrees 3 and 4, which its values at eight points determine.
    """
    frames, taps = [], []
    for point in POINTS:
        others = [p for p in POINTS if p != point]
        frames.append([*polyfromroots(others), 0.0])
        taps.append(point ** np.arange(TAPS) / np.prod(point - np.array(others)))
    frames.append([*polyfromroots(POINTS)])
    taps.append(np.eye(TAPS)[-1])
    return torch.tensor(np.array(frames)), torch.tensor(np.array(taps))


def mix_windows(products: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Mix eight products, at 0, ±1, ±2, ±1/2 and infinity, into four windows, in place."""
    zero, one, minus_one, two, minus_two, half, minus_half, infinite = products
    for plus, minus in ((one, minus_one), (two, minus_two), (half, minus_half)):
        plus += minus  # even powers
        torch.sub(plus, minus, alpha=2, out=minus)  # odd powers
    zero.add_(one).add_(two).add_(half)
    infinite.add_(minus_one).add_(minus_two, alpha=8).add_(minus_half, alpha=1 / 8)
    minus_one.add_(minus_two, alpha=2).add_(minus_half, alpha=1 / 2)
    one.add_(two, alpha=4).add_(half, alpha=1 / 4)
    return zero, minus_one, one, infinite


def pooled_windows(layers: Sequence[nn.Module], precision: torch.dtype) -> nn.Module | None:
    """Return a module that computes three layers at once; None where it cannot.

    They are a convolution (float32) over five frames without stride in time, padding, dilation and
    groups; ReLU; max-pooling in space without padding; all as high as wide.
    """
    convolution, activation, pool = layers
    if not (
        isinstance(convolution, nn.Conv3d)
        and isinstance(activation, nn.ReLU)
        and isinstance(pool, nn.MaxPool3d)
    ):
        return None
    sizes = convolution.kernel_size, _triple(pool.kernel_size)
    strides = convolution.stride, _triple(pool.stride)
    if (
        [size[0] for size in sizes] == [TAPS, 1]
        and [stride[0] for stride in strides] == [1, 1]
        and all(height == width for _, height, width in (*sizes, *strides))
        and not any((*_triple(convolution.padding), *_triple(pool.padding)))
        and {*convolution.dilation, *_triple(pool.dilation), convolution.groups} == {1}
        and not pool.ceil_mode
    ):
        return PooledWindows(convolution, pool, precision)
    return None


def _triple(size: int | str | Sequence[int]) -> tuple[Any, ...]:
    return (size,) * 3 if isinstance(size, (int, str)) else tuple(size)


class PooledWindows(nn.Module):
    """A convolution over five frames, ReLU and max-pooling, for processors.

    Frames and taps are mixed in float32; *precision* is that of products and windows.
    """

    def __init__(self, convolution: nn.Conv3d, pool: nn.MaxPool3d, precision: torch.dtype) -> None:
        super().__init__()
        self.convolution, self.pool, self.precision = convolution, pool, precision
        frames, taps = mixes()
        self.frames = frames.float()
        mixed = torch.einsum("pt,ocths->pochs", taps, convolution.weight.double()).to(precision)
        self.filters = [f.contiguous(memory_format=torch.channels_last) for f in mixed]

    def forward(self, x: Tensor) -> Tensor:
        """Return pooled windows (B, K, T - 4, H', W'), channels last in memory.

        *x* is float32, or uint8 for values of 0 to 255, (B, C, T, H, W), T at least 5.
        """
        batch, _, length, *sizes = x.shape
        kernel, stride = self.convolution.kernel_size[1], self.convolution.stride[1]
        size, step = _triple(self.pool.kernel_size)[1], _triple(self.pool.stride)[1]
        convolved = [(s - kernel) // stride + 1 for s in sizes]
        height, width = ((s - size) // step + 1 for s in convolved)
        groups = -(-(length - TAPS + 1) // WINDOWS)
        row = PRODUCTS * batch * groups * self.convolution.out_channels * convolved[1]
        at_once = max(1, (STRIP // (row * self.precision.itemsize) - size) // step + 1)
        shape = (batch, groups * WINDOWS, height, width, self.convolution.out_channels)
        pooled = torch.empty(shape, dtype=self.precision).permute(0, 4, 1, 2, 3)
        for first in range(0, height, at_once):
            last = min(first + at_once, height)
            rows = slice(first * step * stride, ((last - 1) * step + size - 1) * stride + kernel)
            for j, every_fourth in enumerate(self._windows(x[:, :, :, rows], groups)):
                pooled[:, :, j::WINDOWS, first:last] = self.pool(every_fourth)
        return pooled[:, :, : length - TAPS + 1].relu_()

    def _windows(self, x: Tensor, groups: int) -> list[Tensor]:
        """Return the first window of each group, the second and so on: (B, K, groups, H, W)."""
        batch, channels, length, height, width = x.shape
        x = x.permute(0, 2, 3, 4, 1).float()
        missing = groups * WINDOWS + TAPS - 1 - length
        if missing:  # frames of windows that are dropped
            x = torch.cat([x, x[:, -1:].expand(-1, missing, -1, -1, -1)], 1)
        x = x.reshape(batch, length + missing, -1)
        mixed = x.new_empty(PRODUCTS, batch, groups, x.shape[2])
        for b in range(batch):
            for g in range(groups):
                torch.mm(self.frames, x[b, g * WINDOWS :][:PRODUCTS], out=mixed[:, b, g])
        mixed = mixed.to(self.precision).view(PRODUCTS, -1, height, width, channels)
        # Point 1 counts once in each window, so that it can bring the bias.
        bias = {1: self.convolution.bias}
        products = [
            F.conv2d(mixed[i].permute(0, 3, 1, 2), taps, bias.get(i), self.convolution.stride[1:])
            for i, taps in enumerate(self.filters)
        ]
        return [
            w.permute(0, 2, 3, 1).view(batch, groups, *w.shape[2:], -1).permute(0, 4, 1, 2, 3)
            for w in mix_windows(products)
        ]
