"""ResNet-18 for grey faces, with parameters named as by ronghuaiyang's ``arcface-pytorch``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spfem_bench.definitions.architectures import ARCHITECTURES
from spfem_bench.networks.weights import checkpoint_state

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Channels of each stage, and the stride of its first block."""

BLOCKS = 2
EMBEDDING = 512


class _Block(nn.Module):
    """BatchNorm, 3 x 3, BatchNorm, PReLU, 3 x 3 with the stride, BatchNorm, shortcut, PReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.prelu = nn.PReLU()  # the one number is used at both places
        self.conv2 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.prelu(self.bn1(self.conv1(self.bn0(x))))
        sum_: Tensor = self.prelu(self.bn2(self.conv2(y)) + self.downsample(x))
        return sum_


@ARCHITECTURES.register("resnet-face18")
class ResNetFace18(nn.Module):
    """Face embedding network, without squeeze and excitation.

    Input float32 (B, 1, 128, 128), grey, in [-1, 1]; ``embedding`` (B, 512), not normalised.
    """

    read_state = staticmethod(checkpoint_state)

    def __init__(self) -> None:
        super().__init__()
        inputs = STAGES[0][0]
        self.conv1 = nn.Conv2d(1, inputs, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.prelu = nn.PReLU()
        self.maxpool = nn.MaxPool2d(2)
        for number, (outputs, stride) in enumerate(STAGES, 1):
            rest = (_Block(outputs, outputs, 1) for _ in range(BLOCKS - 1))
            self.add_module(f"layer{number}", nn.Sequential(_Block(inputs, outputs, stride), *rest))
            inputs = outputs
        self.bn4 = nn.BatchNorm2d(inputs)
        self.fc5 = nn.Linear(inputs * 8 * 8, EMBEDDING)
        self.bn5 = nn.BatchNorm1d(EMBEDDING)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``embedding`` (B, 512)."""
        x = self.maxpool(self.prelu(self.bn1(self.conv1(x))))
        for number in range(1, len(STAGES) + 1):
            x = self.get_submodule(f"layer{number}")(x)
        return {"embedding": self.bn5(self.fc5(torch.flatten(self.bn4(x), 1)))}
