"""EfficientFace (Zhao, Liu and Zhou, AAAI 2021), with parameters named as its authors' files."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from spfem_bench.definitions.architectures import ARCHITECTURES
from spfem_bench.networks.weights import checkpoint_state

STEM = 29
STAGES = ((2, 116, 4), (3, 232, 8), (4, 464, 4))
"""Number, channels and units of each stage, as in ShuffleNet V2."""

FEATURES = 1024
CLASSES = 7
REDUCTION = 16  # of channels inside the modulator
DILATION = 4  # of its 3 x 3 convolutions


def _depthwise(channels: int, outputs: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(channels, outputs, 3, stride, padding=1, groups=channels, bias=False)


def _pointwise(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


class _Unit(nn.Module):
    """A unit of ShuffleNet V2; with stride 2 both branches compute, with 1 one half passes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.branch1: nn.Module | None = None
        if stride > 1:
            depthwise = [_depthwise(inputs, inputs, stride), nn.BatchNorm2d(inputs)]
            self.branch1 = nn.Sequential(*depthwise, *_pointwise(inputs, half))
        self.branch2 = nn.Sequential(
            *_pointwise(inputs if stride > 1 else half, half),
            _depthwise(half, half, stride),
            nn.BatchNorm2d(half),
            *_pointwise(half, half),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.branch1 is None:
            kept, changed = x.chunk(2, dim=1)
            halves = (kept, self.branch2(changed))
        else:
            halves = (self.branch1(x), self.branch2(x))
        return torch.stack(halves, dim=2).flatten(1, 2)  # channels of both halves by turns


class _Local(nn.Module):
    """Two depthwise convolutions for each quarter of the map, with weights of its own."""

    QUARTERS = ((0, 0), (1, 0), (0, 1), (1, 1))  # (row, column) of the quarters 1 to 4

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        for number in range(1, len(self.QUARTERS) + 1):
            for step, channels, stride in ((1, inputs, 2), (2, outputs, 1)):
                convolution = _depthwise(channels, outputs, stride)
                self.add_module(f"conv{number}_{step}", convolution)
                self.add_module(f"bn{number}_{step}", nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        parts = [half.chunk(2, dim=3) for half in x.chunk(2, dim=2)]
        made = {}
        for number, (row, column) in enumerate(self.QUARTERS, 1):
            part = parts[row][column]
            for step in (1, 2):
                part = self.get_submodule(f"conv{number}_{step}")(part)
                part = F.relu(self.get_submodule(f"bn{number}_{step}")(part))
            made[row, column] = part
        rows = [torch.cat([made[row, 0], made[row, 1]], dim=3) for row in (0, 1)]
        return torch.cat(rows, dim=2)


class _ChannelGate(nn.Module):
    """One number for each channel, from the channels' means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // REDUCTION
        layers: list[tuple[str, nn.Module]] = [
            ("gate_c_fc_0", nn.Linear(channels, inner)),
            ("gate_c_bn_1", nn.BatchNorm1d(inner)),
            ("gate_c_relu_1", nn.ReLU()),
            ("gate_c_fc_final", nn.Linear(inner, channels)),
        ]
        self.gate_c = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.gate_c(x.mean((2, 3)))
        return gate[:, :, None, None]


class _SpatialGate(nn.Module):
    """One number for each position, by dilated convolutions."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // REDUCTION
        layers: list[tuple[str, nn.Module]] = [
            ("gate_s_conv_reduce0", nn.Conv2d(channels, inner, 1)),
            ("gate_s_bn_reduce0", nn.BatchNorm2d(inner)),
            ("gate_s_relu_reduce0", nn.ReLU()),
        ]
        for i in range(2):
            dilated = nn.Conv2d(inner, inner, 3, padding=DILATION, dilation=DILATION)
            layers.append((f"gate_s_conv_di_{i}", dilated))
            layers.append((f"gate_s_bn_di_{i}", nn.BatchNorm2d(inner)))
            layers.append((f"gate_s_relu_di_{i}", nn.ReLU()))
        layers.append(("gate_s_conv_final", nn.Conv2d(inner, 1, 1)))
        self.gate_s = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        gate: Tensor = self.gate_s(x)
        return gate


class _Modulator(nn.Module):
    """Weight a map by the sigmoid of its channel gate times its spatial gate."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channel_att = _ChannelGate(channels)
        self.spatial_att = _SpatialGate(channels)

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(self.channel_att(x) * self.spatial_att(x)) * x


@ARCHITECTURES.register("efficientface")
class EfficientFace(nn.Module):
    """Expression network of seven classes; its classifier is loaded and not used.

    Input float32 (B, 3, 224, 224), RGB, (x - mean) / std; ``features`` (B, 1024), the last map
    averaged over the picture.
    """

    read_state = staticmethod(checkpoint_state)

    def __init__(self) -> None:
        super().__init__()
        stem = nn.Conv2d(3, STEM, 3, stride=2, padding=1, bias=False)
        self.conv1 = nn.Sequential(stem, nn.BatchNorm2d(STEM), nn.ReLU())
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        inputs = STEM
        for number, outputs, units in STAGES:
            rest = (_Unit(outputs, outputs, 1) for _ in range(units - 1))
            self.add_module(f"stage{number}", nn.Sequential(_Unit(inputs, outputs, 2), *rest))
            inputs = outputs
        self.local = _Local(STEM, STAGES[0][1])
        self.modulator = _Modulator(STAGES[0][1])
        self.conv5 = nn.Sequential(*_pointwise(inputs, FEATURES))
        self.fc = nn.Linear(FEATURES, CLASSES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``features`` (B, 1024)."""
        x = self.maxpool(self.conv1(x))
        x = self.modulator(self.get_submodule("stage2")(x)) + self.local(x)
        x = self.get_submodule("stage4")(self.get_submodule("stage3")(x))
        return {"features": self.conv5(x).mean((2, 3))}
