"""mini-Xception (Arriaga et al., 2017), read from its Keras HDF5 file without Keras."""

from __future__ import annotations

import io

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from spfem_bench.definitions.architectures import ARCHITECTURES
from spfem_bench.definitions.networks import NetworkCard
from spfem_bench.extras import extra
from spfem_bench.networks.weights import wrong_weights

with extra("networks", "a network in Keras' format (HDF5)"):
    import h5py

EPSILON = 1e-3  # Keras' BatchNormalization, as in the file's model configuration
NORM = {"weight": "gamma", "bias": "beta"}
NORM |= {"running_mean": "moving_mean", "running_var": "moving_variance"}


def _bn(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=EPSILON)


class _Separable(nn.Module):
    """Keras' SeparableConv2D: a 3 x 3 depthwise convolution, then 1 x 1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.pointwise(self.depthwise(x))
        return y


def _pool_same(x: Tensor) -> Tensor:
    """Max-pool 3 x 3, stride 2, with Keras' ``same`` padding: the odd row goes below."""

    def pads(size: int) -> tuple[int, int]:
        total = max((-(-size // 2) - 1) * 2 + 3 - size, 0)
        return total // 2, total - total // 2

    return F.max_pool2d(F.pad(x, (*pads(x.shape[3]), *pads(x.shape[2])), value=-torch.inf), 3, 2)


class _Block(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=2, bias=False)
        self.shortcut_bn = _bn(outputs)
        self.first = _Separable(inputs, outputs)
        self.first_bn = _bn(outputs)
        self.second = _Separable(outputs, outputs)
        self.second_bn = _bn(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first_bn(self.first(x)))
        y = _pool_same(self.second_bn(self.second(y)))
        shortcut: Tensor = self.shortcut_bn(self.shortcut(x))
        return y + shortcut


@ARCHITECTURES.register("mini-xception")
class MiniXception(nn.Module):
    """Seven-expression network.

    Input float32 (B, 1, 64, 64), grey, in [-1, 1]; outputs ``features`` (B, 128), averaged over the
    picture, and ``probabilities`` (B, 7): angry, disgust, fear, happy, sad, surprise, neutral.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, bias=False)
        self.conv1_bn = _bn(8)
        self.conv2 = nn.Conv2d(8, 8, 3, bias=False)
        self.conv2_bn = _bn(8)
        self.blocks = nn.ModuleList(_Block(a, 2 * a) for a in (8, 16, 32, 64))
        self.classifier = nn.Conv2d(128, 7, 3, padding=1)

    @staticmethod
    def read_state(content: bytes, card: NetworkCard) -> dict[str, Tensor]:
        """Return the tensors of the published HDF5 file; raise WeightsError for other layers."""
        try:
            return _state_from_hdf5(content)
        except Exception as error:  # any HDF5 file may be here: h5py and permute raise many kinds
            raise wrong_weights(card, error) from error

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return ``features`` (B, 128) and ``probabilities`` (B, 7)."""
        x = F.relu(self.conv1_bn(self.conv1(x)))
        x = F.relu(self.conv2_bn(self.conv2(x)))
        for block in self.blocks:
            x = block(x)
        scores = self.classifier(x).mean((2, 3))
        return {"features": x.mean((2, 3)), "probabilities": scores.softmax(1)}


def _state_from_hdf5(content: bytes) -> dict[str, Tensor]:
    """Return the weights of a Keras HDF5 file by our names; raise KeyError for other layers."""
    state: dict[str, Tensor] = {}
    with h5py.File(io.BytesIO(content), "r") as file:
        groups = file["model_weights"]

        def array(layer: str, name: str) -> Tensor:
            keys: list[str] = []
            groups[layer].visit(keys.append)
            matching = [key for key in keys if key.endswith(f"/{name}:0")]
            if len(matching) != 1:
                raise KeyError(f"{layer}/{name}")
            return torch.from_numpy(np.asarray(groups[layer][matching[0]]))

        def conv(name: str, layer: str, kernel: str = "kernel") -> None:
            # Keras keeps (height, width, in, out), and (..., in, 1) for depthwise.
            order = (2, 3, 0, 1) if kernel == "depthwise_kernel" else (3, 2, 0, 1)
            state[f"{name}.weight"] = array(layer, kernel).permute(*order).contiguous()

        def norm(name: str, number: int) -> None:
            layer = f"batch_normalization_{number}"
            for ours, theirs in NORM.items():
                state[f"{name}.{ours}"] = array(layer, theirs)
            state[f"{name}.num_batches_tracked"] = torch.tensor(0)

        conv("conv1", "conv2d_1")
        norm("conv1_bn", 1)
        conv("conv2", "conv2d_2")
        norm("conv2_bn", 2)
        for i in range(4):
            conv(f"blocks.{i}.shortcut", f"conv2d_{3 + i}")
            norm(f"blocks.{i}.shortcut_bn", 3 + 3 * i)
            for j, part in enumerate(("first", "second")):
                layer = f"separable_conv2d_{1 + 2 * i + j}"
                conv(f"blocks.{i}.{part}.depthwise", layer, "depthwise_kernel")
                conv(f"blocks.{i}.{part}.pointwise", layer, "pointwise_kernel")
                norm(f"blocks.{i}.{part}_bn", 4 + 3 * i + j)
        conv("classifier", "conv2d_7")
        state["classifier.bias"] = array("conv2d_7", "bias")
    return state
