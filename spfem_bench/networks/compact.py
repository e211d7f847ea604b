"""Four small networks of the profile ``compact``, trained on the project's own puppets.

All are stacks of residual depthwise-separable convolutions (Howard et al., MobileNets, 2017; He et
al., CVPR 2016), small enough for any processor.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from spfem_bench.definitions.architectures import ARCHITECTURES

DIMENSIONS = 64
"""Length of every feature vector here."""

EXPRESSIONS = 7
"""Outputs of the classifier, in the order of ``definitions.protocols.EMOTIONS``."""


def _conv(
    inputs: int, outputs: int, kernel: int = 1, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Return a convolution that keeps size / stride, and its BatchNorm."""
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


class _Block(nn.Module):
    """3 x 3 depthwise, 1 x 1, and a shortcut: averaged and projected where the size changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = _conv(inputs, inputs, 3, stride, groups=inputs)
        self.pointwise = _conv(inputs, outputs)
        self.pool = nn.AvgPool2d(stride, ceil_mode=True) if stride > 1 else nn.Identity()
        self.shortcut = nn.Identity() if inputs == outputs else _conv(inputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(F.relu(self.depthwise(x)))
        return F.relu(y + self.shortcut(self.pool(x)))


def _stage(inputs: int, outputs: int, blocks: int, stride: int = 2) -> nn.Sequential:
    """Return blocks of one size, the first of which changes size and channels."""
    rest = (_Block(outputs, outputs, 1) for _ in range(blocks - 1))
    return nn.Sequential(_Block(inputs, outputs, stride), *rest)


def _trunk(widths: Sequence[int], blocks: Sequence[int]) -> nn.ModuleList:
    """Return stages, each half the size of the one before; the first keeps the stem's size."""
    inputs = (widths[0], *widths)
    sizes = zip(inputs, widths, blocks, (1, 2, 2, 2), strict=False)
    return nn.ModuleList(_stage(*size) for size in sizes)


@ARCHITECTURES.register("compact-identity")
class CompactIdentity(nn.Module):
    """Face embedding network.

    Input float32 (B, 3, 112, 112), RGB, ``(x - 127.5) / 127.5``; output ``embedding`` (B, 64), not
    normalised. The last layers are MobileFaceNet's (Chen et al., CCBR 2018).
    """

    WIDTHS = (24, 56, 112, 192)

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, self.WIDTHS[0], 3, 2)
        self.trunk = _trunk(self.WIDTHS, (1, 2, 3, 2))
        self.wide = _conv(self.WIDTHS[-1], 384)
        self.positions = nn.Conv2d(384, 384, 7, groups=384, bias=False)
        self.positions_bn = nn.BatchNorm2d(384)
        self.linear = nn.Linear(384, DIMENSIONS, bias=False)
        self.linear_bn = nn.BatchNorm1d(DIMENSIONS)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the maps of four stages: (B, 24, 56, 56), (B, 56, 28, 28), …, (B, 192, 7, 7)."""
        maps = []
        x = F.relu(self.stem(x))
        for stage in self.trunk:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``embedding`` (B, 64)."""
        x = F.relu(self.wide(self.stages(x)[-1]))
        x = self.positions_bn(self.positions(x)).flatten(1)
        return {"embedding": self.linear_bn(self.linear(x))}


@ARCHITECTURES.register("compact-expression")
class CompactExpression(nn.Module):
    """Seven-expression network.

    Input float32 (B, 3, 64, 64), RGB, ``(x - 127.5) / 127.5``; outputs ``features`` (B, 64) and
    ``probabilities`` (B, 7) in the order of ``EMOTIONS``.
    """

    WIDTHS = (24, 48, 96, 160)
    SCALE = 12.0

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, self.WIDTHS[0], 3, 2)
        self.trunk = _trunk(self.WIDTHS, (2, 2, 3, 2))
        # Four by four positions are not averaged: a brow and a mouth differ in meaning.
        self.linear = nn.Linear(self.WIDTHS[-1] * 16, DIMENSIONS, bias=False)
        self.linear_bn = nn.BatchNorm1d(DIMENSIONS)
        self.prototypes = nn.Parameter(torch.randn(EXPRESSIONS, DIMENSIONS))

    def features(self, x: Tensor) -> Tensor:
        """Return ``features`` (B, 64)."""
        x = F.relu(self.stem(x))
        for stage in self.trunk:
            x = stage(x)
        vectors: Tensor = self.linear_bn(self.linear(x.flatten(1)))
        return vectors

    def scores(self, features: Tensor) -> Tensor:
        """Return logits: scaled cosines, (B, 7), of features (Wang et al., NormFace, 2017)."""
        return self.SCALE * F.linear(F.normalize(features), F.normalize(self.prototypes))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``features`` (B, 64) and ``probabilities`` (B, 7)."""
        features = self.features(x)
        return {"features": features, "probabilities": self.scores(features).softmax(1)}


@ARCHITECTURES.register("compact-landmarks")
class CompactLandmarks(nn.Module):
    """Landmark network.

    Input float32 (B, 3, 64, 64), RGB, ``(x - 127.5) / 127.5``; output ``points`` (B, 50): x and y
    of 25 landmarks in turn, in sides of the picture.
    """

    WIDTHS = (24, 48, 96, 128)
    POINTS = 25

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(3, self.WIDTHS[0], 3, 2)
        self.trunk = _trunk(self.WIDTHS, (2, 2, 3, 2))
        # As for expressions, four by four positions are not averaged.
        self.linear = nn.Linear(self.WIDTHS[-1] * 16, 2 * self.POINTS)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``points`` (B, 50)."""
        x = F.relu(self.stem(x))
        for stage in self.trunk:
            x = stage(x)
        return {"points": 0.5 + self.linear(x.flatten(1))}


@ARCHITECTURES.register("compact-sync")
class CompactSync(nn.Module):
    """Video and audio encoder with one space of unit vectors (Chung and Zisserman, 2016)."""

    WIDTHS = (32, 64, 96, 160)

    def __init__(self) -> None:
        super().__init__()
        self.time = nn.Conv3d(
            3, self.WIDTHS[0], (5, 5, 5), stride=(1, 2, 2), padding=(0, 2, 2), bias=False
        )
        self.time_bn = nn.BatchNorm2d(self.WIDTHS[0])
        sizes = zip(self.WIDTHS[:-1], self.WIDTHS[1:], (2, 3, 1), strict=True)
        self.lips = nn.Sequential(*(_stage(*size) for size in sizes))
        self.lips_linear = nn.Linear(self.WIDTHS[-1] * 16, DIMENSIONS, bias=False)
        self.lips_bn = nn.BatchNorm1d(DIMENSIONS)
        # Each coefficient has a scale of its own.
        self.scale = nn.BatchNorm1d(13)
        self.ears = nn.Sequential(_conv(1, 32, 3), nn.ReLU(), _stage(32, 64, 2), _stage(64, 96, 2))
        self.ears_linear = nn.Linear(96 * 4 * 5, DIMENSIONS, bias=False)
        self.ears_bn = nn.BatchNorm1d(DIMENSIONS)

    def visual(self, frames: Tensor) -> Tensor:
        """Embed windows of five: unit vectors (B, T - 4, 64) of (B, 3, T, 64, 64), float32 BGR."""
        x = self.time((frames - 127.5) / 127.5)
        batch, channels, windows, height, width = x.shape
        x = x.transpose(1, 2).reshape(batch * windows, channels, height, width)
        x = self.lips(F.relu(self.time_bn(x)))
        vectors = self.lips_bn(self.lips_linear(x.flatten(1)))
        return F.normalize(vectors, dim=1).reshape(batch, windows, -1)

    def audio(self, steps: Tensor) -> Tensor:
        """Embed windows of sound: unit vectors (B, 64) of (B, 1, 13, 20), 13 MFCCs a step."""
        x = self.ears(self.scale(steps[:, 0])[:, None])
        return F.normalize(self.ears_bn(self.ears_linear(x.flatten(1))), dim=1)
