"""Four-stage feature extractors (ASCCL, CVPR 2024, section 4.1): one feature map per stage."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from spfem_bench.definitions.networks import ArcFaceInput, NetworkCard, network_card
from spfem_bench.errors import CardError
from spfem_bench.networks.load import load_module
from spfem_bench.networks.weights import WeightsStore

STAGES = {
    "compact-identity": (24, 56, 112, 192),
    "mobilefacenet": (64, 64, 128, 128),
    "iresnet50": (64, 128, 256, 512),
}
"""Channels of the four stages, by architecture."""


class Backbone(nn.Module):
    """A frozen network in eval mode with its input contract; gradients pass to the pictures.

    The network has a method ``stages`` from (B, 3, size, size) to four maps of *channels*. Its
    input is ``(x - mean) / std`` of pixels of 0 to 255; the size is 32 to 1024 pixels, the colour
    ``rgb`` or ``bgr``.
    """

    def __init__(
        self,
        network: nn.Module,
        channels: tuple[int, ...],
        size: int,
        mean: float,
        std: float,
        colour: str,
    ) -> None:
        super().__init__()
        if colour not in ("rgb", "bgr"):
            raise CardError(f"the backbone's colour is {colour!r}", "Allowed: rgb, bgr")
        if not 32 <= size <= 1024:
            raise CardError(
                f"the backbone's input is {size} pixels wide",
                "Give a side from 32 to 1024; 112 is the one that networks are trained with",
            )
        self.network = network.eval().requires_grad_(False)
        self.channels, self.size, self.colour = channels, size, colour
        self.mean, self.std = mean, std

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode: the statistics of BatchNorm are frozen too."""
        return super().train(False)

    def stages(self, pictures: Tensor) -> list[Tensor]:
        """Return one feature map for each stage; see :meth:`forward`."""
        maps: list[Tensor] = self(pictures)
        return maps

    def forward(self, pictures: Tensor) -> list[Tensor]:
        """Return a map (B, C_s, H_s, W_s) for each stage, from fine to coarse.

        Pictures are floating point (B, 3, H, W), RGB, -1 to 1. Other sizes are resized (bilinear,
        antialiased); every step is differentiable.

        Raises:
            CardError: another shape, or whole numbers.
        """
        if pictures.ndim != 4 or pictures.shape[1] != 3 or not pictures.numel():
            raise CardError(
                f"pictures have the shape {tuple(pictures.shape)}", "Give (B, 3, height, width)"
            )
        if not pictures.is_floating_point():
            raise CardError(
                f"pictures are whole numbers ({pictures.dtype})",
                "Give floating point numbers from -1 to 1: x / 127.5 - 1",
            )
        if pictures.shape[2:] != (self.size, self.size):
            pictures = F.interpolate(
                pictures, (self.size, self.size), mode="bilinear", antialias=True
            )
        if self.colour == "bgr":
            pictures = pictures.flip(1)
        # (127.5 (p + 1) - mean) / std, which is p itself for most networks.
        scale, shift = 127.5 / self.std, (127.5 - self.mean) / self.std
        scaled = pictures * scale + shift if (scale, shift) != (1.0, 0.0) else pictures
        maps: list[Tensor] = self.network.stages(scaled)  # type: ignore[operator]
        return maps


def backbone(
    name: str,
    weights: WeightsStore,
    *,
    size: int = 112,
    colour: str = "rgb",
    device: str | torch.device = "cpu",
) -> Backbone:
    """Load the four stages of an identity network by its card's name, frozen.

    ArcFace networks are trained with 112 pixels a side, the cards' on RGB; STCCL's released code
    gives 224 and BGR.

    Raises:
        UnknownNameError: no such card.
        CardError: a network without four stages, or a bad size or colour.
        WeightsError: missing, not the pinned ones, or of another architecture.
    """
    card = network_card(name)
    contract = check_stages(card)
    network, channels = load_module(card, weights, str(device)), STAGES[card.architecture]
    return Backbone(network, channels, size, contract.mean, contract.std, colour)


def check_stages(card: NetworkCard) -> ArcFaceInput:
    """Return the input contract of a network with four stages; raise CardError for others."""
    if card.architecture not in STAGES or not isinstance(card.input, ArcFaceInput):
        raise CardError(
            f"'{card.name}' ({card.architecture}) has no four stages",
            f"Name an identity network; architectures that have them: {', '.join(sorted(STAGES))}",
        )
    return card.input
