"""IResNet-50 (Duta et al., 2020), with parameters named as by insightface's ``arcface_torch``."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spfem_bench.definitions.architectures import ARCHITECTURES
from spfem_bench.networks.weights import torch_state

BLOCKS = (3, 4, 14, 3)
CHANNELS = (64, 128, 256, 512)
EMBEDDING = 512


class _Block(nn.Module):
    """BatchNorm, 3 x 3, BatchNorm, PReLU, 3 x 3 with the stride, BatchNorm; and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.prelu = nn.PReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x)))))
        sum_: Tensor = self.bn3(y) + self.downsample(x)
        return sum_


@ARCHITECTURES.register("iresnet50")
class IResNet50(nn.Module):
    """Face embedding network.

    Input float32 (B, 3, 112, 112), RGB, in [-1, 1]; ``embedding`` (B, 512), not normalised.
    """

    read_state = staticmethod(torch_state)

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, CHANNELS[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(CHANNELS[0])
        self.prelu = nn.PReLU(CHANNELS[0])
        inputs = CHANNELS[0]
        for number, (blocks, outputs) in enumerate(zip(BLOCKS, CHANNELS, strict=True), 1):
            first = _Block(inputs, outputs, 2)
            rest = (_Block(outputs, outputs, 1) for _ in range(blocks - 1))
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
            inputs = outputs
        self.bn2 = nn.BatchNorm2d(inputs)
        self.fc = nn.Linear(inputs * 7 * 7, EMBEDDING)
        self.features = nn.BatchNorm1d(EMBEDDING)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return the maps of four stages: (B, 64, H/2, W/2) to (B, 512, H/16, W/16), rounded up."""
        x = self.prelu(self.bn1(self.conv1(x)))
        maps = []
        for number in range(1, 5):
            x = self.get_submodule(f"layer{number}")(x)
            maps.append(x)
        return maps

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``embedding`` (B, 512)."""
        x = torch.flatten(self.bn2(self.stages(x)[-1]), 1)
        return {"embedding": self.features(self.fc(x))}
