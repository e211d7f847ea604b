"""MobileFaceNet (Chen et al., CCBR 2018) for 112 x 96 faces, named as Xiaoccer's checkpoint."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spfem_bench.definitions.architectures import ARCHITECTURES
from spfem_bench.definitions.networks import NetworkCard
from spfem_bench.networks.weights import torch_state

_Size = int | tuple[int, int]

# Table 1 of the paper: expansion, channels, repeats, stride of the first.
BOTTLENECKS = ((2, 64, 5, 2), (4, 128, 1, 2), (2, 128, 6, 1), (4, 128, 1, 2), (2, 128, 2, 1))


class _Conv(nn.Module):
    def __init__(
        self, inputs: int, outputs: int, kernel: _Size, *, linear: bool = False, **options: int
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, bias=False, **options)  # type: ignore[arg-type]
        self.bn = nn.BatchNorm2d(outputs)
        self.prelu = None if linear else nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x if self.prelu is None else self.prelu(x)


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.shortcut = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            nn.Conv2d(inputs, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.PReLU(wide),
            nn.Conv2d(wide, wide, 3, stride, 1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.PReLU(wide),
            nn.Conv2d(wide, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return x + y if self.shortcut else y


@ARCHITECTURES.register("mobilefacenet")
class MobileFaceNet(nn.Module):
    """Face embedding network.

    Input float32 (B, 3, 112, 96), RGB, ``(x - 127.5) / 128``; output (B, 128), not normalised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _Conv(3, 64, 3, stride=2, padding=1)
        self.dw_conv1 = _Conv(64, 64, 3, padding=1, groups=64)
        blocks, inputs = [], 64
        self.strides: list[int] = []
        for expansion, outputs, repeats, stride in BOTTLENECKS:
            for i in range(repeats):
                self.strides.append(stride if i == 0 else 1)
                blocks.append(_Bottleneck(inputs, outputs, self.strides[-1], expansion))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.conv2 = _Conv(128, 512, 1)
        self.linear7 = _Conv(512, 512, (7, 6), linear=True, groups=512)
        self.linear1 = _Conv(512, 128, 1, linear=True)

    @staticmethod
    def read_state(content: bytes, card: NetworkCard) -> object:
        """Return the tensors of the published checkpoint by name."""
        state = torch_state(content, card)
        return state.get("net_state_dict", state)

    def stages(self, x: Tensor) -> list[Tensor]:
        """Return four sizes' last maps: (B, 64, H/2, W/2) to (B, 128, H/16, W/16), rounded up."""
        maps = [self.dw_conv1(self.conv1(x))]
        for block, stride in zip(self.blocks, self.strides, strict=True):
            if stride == 2:
                maps.append(maps[-1])
            maps[-1] = block(maps[-1])
        return maps

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``embedding`` (B, 128)."""
        x = self.conv2(self.stages(x)[-1])
        return {"embedding": torch.flatten(self.linear1(self.linear7(x)), 1)}
