"""Picture arithmetic in whole numbers: the same bytes with every version of every library.

Pictures are uint8 (height, width, ...); sums stay below 2^53, exact in float64 in any order.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import exp, floor, gcd
from typing import Any

import numpy as np
import numpy.typing as npt

from spfem_bench.media.video import Frame

Weights = npt.NDArray[np.float64]
"""Whole numbers (outputs, inputs); every row has the same sum."""

FEW = 4
"""Inputs of an output at most for which sums are faster than a product of matrices."""

_Taps = list[tuple[npt.NDArray[np.intp], npt.NDArray[np.int32]]]

LUMA = (9798, 19235, 3735)
"""BT.601's shares of red, green and blue in grey (0.299, 0.587, 0.114), times 2^15."""

REACH = 3.0
"""Standard deviations at which a Gaussian is cut off."""


def shrink(frame: Frame, size: int) -> Frame:
    """Resize a picture to a square by averaging the area that each new pixel covers."""
    return _resized(frame, _areas, size)


def resize(frame: Frame, size: int) -> Frame:
    """Resize a picture to a square by linear interpolation, as OpenCV's ``INTER_LINEAR`` does."""
    return _resized(frame, _lines, size)


def blur(frame: Frame, sigma: float) -> Frame:
    """Blur a picture with a Gaussian of *sigma* pixels; beyond its edges it is mirrored."""
    return _product(frame, *(_gaussian(sigma, length) for length in frame.shape[:2]))


def grey(frame: Frame) -> Frame:
    """Return the luma of a picture: uint8 (height, width) from uint8 (height, width, 3), RGB."""
    total = frame.astype(np.int32) @ np.array(LUMA, np.int32)
    return np.asarray((total + (1 << 14)) >> 15, np.uint8)


def _resized(frame: Frame, weights: Callable[[int, int], Weights], size: int) -> Frame:
    height, width = frame.shape[:2]
    down, across = weights(height, size), weights(width, size)
    whole = int(down[0].sum() * across[0].sum())
    rows, columns = _taps(weights, height, size), _taps(weights, width, size)
    if max(len(rows), len(columns)) > FEW or whole >= 1 << 22:  # twice a sum has 31 bits at most
        return _product(frame, down, across)
    total = _summed(_summed(frame, rows, 0), columns, 1)
    return np.asarray((2 * total + whole) // (2 * whole), np.uint8)


def _summed(picture: npt.NDArray[Any], taps: _Taps, axis: int) -> npt.NDArray[np.int32]:
    shape = [-1 if k == axis else 1 for k in range(picture.ndim)]
    return np.asarray(sum(picture.take(at, axis) * share.reshape(shape) for at, share in taps))


def _product(frame: Frame, down: Weights, across: Weights) -> Frame:
    rows = down @ frame.reshape(len(frame), -1).astype(np.float64)
    total = across @ rows.reshape(len(down), frame.shape[1], -1)
    whole = down[0].sum() * across[0].sum()
    # Whole numbers divided by a whole number: rounding cannot reach the next one.
    mean = np.floor((2 * total + whole) / (2 * whole))
    return np.asarray(mean, np.uint8).reshape(len(down), len(across), *frame.shape[2:])


@lru_cache(maxsize=64)
def _taps(weights: Callable[[int, int], Weights], inputs: int, outputs: int) -> _Taps:
    """Return each output's inputs, (outputs,) at a time, and their weights, some of them 0."""
    matrix = weights(inputs, outputs).astype(np.int32)
    order = np.argsort(matrix == 0, axis=1, kind="stable")
    return [
        (at, np.take_along_axis(matrix, at[:, None], 1)[:, 0])
        for at in order[:, : (matrix > 0).sum(1).max()].T.copy()
    ]


@lru_cache(maxsize=64)
def _areas(inputs: int, outputs: int) -> Weights:
    """Return how much of each input pixel every output pixel covers."""
    common = gcd(inputs, outputs)
    wide, step = inputs // common, outputs // common  # of an output and an input pixel
    out, into = np.arange(outputs)[:, None], np.arange(inputs)[None, :]
    overlap = np.minimum((out + 1) * wide, (into + 1) * step) - np.maximum(out * wide, into * step)
    return np.asarray(np.maximum(overlap, 0), np.float64)


@lru_cache(maxsize=64)
def _lines(inputs: int, outputs: int) -> Weights:
    """Return the shares of the two input pixels whose centres enclose an output pixel's."""
    out = np.arange(outputs)
    before, share = np.divmod((2 * out + 1) * inputs - outputs, 2 * outputs)
    weights = np.zeros((outputs, inputs))
    np.add.at(weights, (out, np.clip(before, 0, inputs - 1)), 2 * outputs - share)
    np.add.at(weights, (out, np.clip(before + 1, 0, inputs - 1)), share)
    return weights


@lru_cache(maxsize=64)
def _gaussian(sigma: float, length: int) -> Weights:
    """Return a Gaussian around each pixel, mirrored at the ends (the end itself once)."""
    reach = floor(REACH * sigma + 0.5)
    taps = [round(exp(-(x * x) / (2 * sigma * sigma)) * 4096) for x in range(-reach, reach + 1)]
    where = np.arange(length)[:, None] + np.arange(-reach, reach + 1)[None, :]
    period = max(2 * length - 2, 1)
    where = np.abs((where + length - 1) % period - (length - 1))
    weights = np.zeros((length, length))
    np.add.at(weights, (np.arange(length)[:, None], where), np.array(taps, np.float64))
    return weights
