"""Networks made to compute the same in less time."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from spfem_bench.definitions.computing import Precision
from spfem_bench.networks.toom_cook import pooled_windows

FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}


class Tower(nn.Module):
    """One method of a network, from one tensor to one, as a network of its own."""

    def __init__(self, module: nn.Module, name: str) -> None:
        super().__init__()
        self.module, self.name = module, name

    def forward(self, x: Tensor) -> Tensor:
        """Return the method's output."""
        output: Tensor = getattr(self.module, self.name)(x)
        return output


class Dense(nn.Module):
    """A convolution that is a linear layer, which is faster, where its kernel fills its input."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of (B, C, T, H, W)."""
        layer = self.convolution
        if (1, *x.shape[3:]) != layer.kernel_size:
            whole: Tensor = layer(x)
            return whole
        rows, weight = (y.permute(0, 2, 3, 4, 1).flatten(2) for y in (x, layer.weight))
        return F.linear(rows, weight[:, 0], layer.bias).movedim(2, 1)[..., None, None]


def quickened(module: nn.Module, precision: Precision = "float32") -> nn.Module:
    """Return a faster network that computes the same, to rounding.

    BatchNorms are folded into convolutions, channels lie last in memory, and half precision is
    rounded now. On a processor SyncNet's first layers become
    :func:`~spfem_bench.networks.toom_cook.pooled_windows`, and its last :class:`Dense`.
    """
    quick = deepcopy(module)
    sequences = [part for part in quick.modules() if isinstance(part, nn.Sequential)]
    for part in sequences:
        for i, (before, after) in enumerate(pairwise(list(part))):
            if isinstance(before, (nn.Conv2d, nn.Conv3d)) and isinstance(
                after, (nn.BatchNorm2d, nn.BatchNorm3d)
            ):
                part[i], part[i + 1] = fuse_conv_bn_eval(before, after), nn.Identity()
    kind = getattr(torch, precision)
    if all(weight.device.type == "cpu" for weight in quick.parameters()):
        for part in sequences:
            layers = [i for i, x in enumerate(part) if not isinstance(x, nn.Identity)]
            for three in zip(layers, layers[1:], layers[2:], strict=False):
                pooled = pooled_windows([part[i] for i in three], kind)
                if pooled:
                    part[three[0]], part[three[1]] = pooled, nn.Identity()
                    part[three[2]] = nn.Identity()
            for i, layer in enumerate(part):
                if isinstance(layer, nn.Conv3d) and layer.padding == (0, 0, 0):
                    part[i] = Dense(layer)
    for layer in quick.modules():
        if isinstance(layer, (nn.Conv2d, nn.Conv3d, nn.Linear)):
            layer.to(kind)
    for weight in quick.parameters():
        if weight.dim() in FORMATS:
            weight.data = weight.data.contiguous(memory_format=FORMATS[weight.dim()])
    return quick.requires_grad_(False)
