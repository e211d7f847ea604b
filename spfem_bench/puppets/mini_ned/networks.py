"""The networks: estimator, manipulator, critic and renderer."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor, nn

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.puppets.mini_ned.morphable import EXPRESSION, SIZES, Coefficients, Morphable

_STYLE = 16  # numbers in the style of a reference clip's emotion


def _conv(inputs: int, outputs: int, stride: int, norm: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), norm, nn.ReLU())


class Estimator(nn.Module):
    """From frames to coefficients, as NED's DECA."""

    WIDTHS = (16, 32, 64, 96, 96)
    POSE_SCALE = (0.05, 0.05, 0.15, 0.1, 0.06)  # about one deviation: x, y, yaw, pitch, roll

    def __init__(self) -> None:
        super().__init__()
        sizes = (3, *self.WIDTHS)
        self.stages = nn.ModuleList(_conv(a, b, 2, nn.BatchNorm2d(b)) for a, b in pairwise(sizes))
        self.linear = nn.Linear(self.WIDTHS[-1] * 16, 128)
        self.out = nn.Linear(128, sum(SIZES))

    def maps(self, frames: Tensor) -> list[Tensor]:
        """Return the maps of all stages for frames (B, 3, 128, 128), RGB, 0 to 1."""
        maps = [frames * 2 - 1]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps[1:]

    def forward(self, frames: Tensor) -> Coefficients:
        """Return the coefficients of frames (B, 3, 128, 128), RGB, 0 to 1."""
        return self.coefficients(self.maps(frames)[-1])

    def coefficients(self, last: Tensor) -> Coefficients:
        """Return the coefficients from the maps of the last stage."""
        x = F.relu(self.linear(last.flatten(1)))
        shape, expression, pose = self.out(x).split(SIZES, 1)
        return Coefficients(shape, expression, pose * pose.new_tensor(self.POSE_SCALE))


def _line(inputs: int, outputs: int, width: int = 5) -> nn.Conv1d:
    return nn.Conv1d(inputs, outputs, width, padding=width // 2, padding_mode="replicate")


def _lines(width: int) -> nn.Sequential:
    leak = nn.LeakyReLU(0.2)
    return nn.Sequential(_line(EXPRESSION, 64), leak, _line(64, width), leak)


class StyleEncoder(nn.Module):
    """From expression coefficients (B, T, 24) of any length to a style (B, 16)."""

    def __init__(self) -> None:
        super().__init__()
        self.body = _lines(64)
        self.out = nn.Linear(64, _STYLE)

    def forward(self, expression: Tensor) -> Tensor:
        """Return the style."""
        return torch.as_tensor(self.out(self.body(expression.transpose(1, 2)).mean(2)))


class Manipulator(nn.Module):
    """From source coefficients (B, T, 24) and a style (B, 16) to target coefficients (B, T, 24)."""

    def __init__(self, width: int = 96) -> None:
        super().__init__()
        self.style = StyleEncoder()
        self.begin = _line(EXPRESSION, width)
        self.middle = nn.ModuleList(_line(width, width) for _ in range(2))
        self.scales = nn.ModuleList(nn.Linear(_STYLE, 2 * width) for _ in range(3))
        self.out = _line(width, EXPRESSION, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]  # it has a bias

    def forward(self, expression: Tensor, style: Tensor) -> Tensor:
        """Return the target's coefficients; a network not yet trained changes nothing."""
        x = self._styled(self.begin(expression.transpose(1, 2)), style, 0)
        for k, layer in enumerate(self.middle):
            x = x + self._styled(layer(x), style, k + 1)
        return torch.as_tensor(expression + self.out(x).transpose(1, 2))

    def _styled(self, x: Tensor, style: Tensor, k: int) -> Tensor:
        scale, shift = self.scales[k](style)[..., None].chunk(2, 1)
        return F.leaky_relu(x * (1 + scale) + shift, 0.2)


class Shift(nn.Module):
    """In a manipulator's place: speech moves and emotion stays, so the mean is the emotion."""

    def style(self, expression: Tensor) -> Tensor:
        """Return the mean (B, 24) of coefficients (B, T, 24)."""
        return expression.mean(1)

    def forward(self, expression: Tensor, style: Tensor) -> Tensor:
        """Return coefficients (B, T, 24) moved to another mean."""
        return expression + (style - expression.mean(1))[:, None]


class Critic(nn.Module):
    """From coefficients (B, T, 24) to a score of realism for each emotion, and the emotion's.

    One head an emotion, as in StarGAN v2 and NED; a classifier, as in AC-GAN (Odena et al., 2017).
    """

    def __init__(self) -> None:
        super().__init__()
        self.body = _lines(96)
        self.real = nn.Linear(96, len(EMOTIONS))
        self.emotion = nn.Linear(96, len(EMOTIONS))

    def forward(self, expression: Tensor) -> tuple[Tensor, Tensor]:
        """Return the realism as each emotion, near 1 or 0, and the emotions' scores."""
        x = self.body(expression.transpose(1, 2)).mean(2)
        return self.real(x), self.emotion(x)


def _soft(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    # Without norms: batches mix windows of one clip with others, and a norm would remove the
    # brightness of skin and lips, which has to be drawn.
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.1))


class _Corrections(nn.Module):
    """From what is known of a frame at half its size to what drawing needs, as a U-Net."""

    WIDTHS = (24, 40, 64, 80)

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.begin = _soft(inputs, self.WIDTHS[0])
        sizes = list(pairwise(self.WIDTHS))
        self.down = nn.ModuleList(_soft(a, b, 2) for a, b in sizes)
        self.deep = _soft(self.WIDTHS[-1], self.WIDTHS[-1])
        self.narrow = nn.ModuleList(nn.Conv2d(b, a, 1) for a, b in sizes)
        self.up = nn.ModuleList(_soft(a, a) for a, _ in sizes)
        self.out = nn.Conv2d(self.WIDTHS[0], outputs, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # without norms, only this keeps the scale
                nn.init.kaiming_normal_(module.weight, 0.1)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # all of them have one
        nn.init.zeros_(self.out.weight)

    def _corrections(self, x: Tensor) -> Tensor:
        """Return the convolutions' output: float32 (B, outputs, 64, 64) for (B, inputs, 64, 64)."""
        # Half precision in training only: scored frames have one precision everywhere.
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.training):
            x = self.begin(x.contiguous(memory_format=torch.channels_last))  # twice as fast
            maps = []
            for layer in self.down:
                maps.append(x)
                x = layer(x)
            x = x + self.deep(x)
            levels = list(zip(self.narrow, self.up, maps, strict=True))
            for narrow, up, skip in reversed(levels):
                x = F.interpolate(narrow(x), scale_factor=2.0, mode="bilinear") + skip
                x = x + up(x)
            corrections: Tensor = self.out(x)
        return corrections.float()


def motion(morphable: Morphable, target: Coefficients, face: Coefficients) -> Tensor:
    """Return where a frame of *face* has each pixel of *target*: (B, 128, 128, 2), as a grid."""
    flow = morphable.flow(target, face, 64).permute(0, 3, 1, 2)
    return F.interpolate(flow, scale_factor=2, mode="bilinear").permute(0, 2, 3, 1)


def warp(frames: Tensor, grid: Tensor) -> Tensor:
    """Return frames (B, 3, 128, 128) sampled at a grid (B, 128, 128, 2)."""
    return F.grid_sample(frames, grid, padding_mode="border", align_corners=False)


def relight(frames: Tensor, like: Tensor, weight: Tensor) -> Tensor:
    """Return frames (B, 3, H, W) in the light of others, by least squares of a weight (B, 1, H, W).

    Each colour is multiplied by a plane over the frame, since a lamp shines from one side.
    """
    rows, columns = (torch.linspace(-1, 1, n, device=frames.device) for n in frames.shape[2:])
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    planes = frames[:, :, None] * torch.stack([torch.ones_like(x), x, y])
    square = torch.einsum("bcihw,bcjhw,bkhw->bcij", planes, planes, weight)
    side = torch.einsum("bcihw,bchw,bkhw->bci", planes, like, weight)
    gains = torch.linalg.solve(square + 0.01 * torch.eye(3, device=frames.device), side)
    return torch.einsum("bcihw,bci->bchw", planes, gains).clamp(0, 1)


class Renderer(_Corrections):
    """From a hidden face, another frame of the same puppet, and renders, to the frame.

    The other frame is warped and corrected; where it shows nothing to warp, the render is mixed in.
    """

    def __init__(self) -> None:
        # Pixels of 128 become four channels of 64.
        super().__init__(4 * (3 + 1 + 3 + 3) + 3, 4 * (3 + 1))

    def forward(
        self,
        morphable: Morphable,
        background: Tensor,
        target: Coefficients,
        reference: Tensor,
        reference_face: Coefficients,
        reference_render: Tensor,
        hidden: Tensor,
    ) -> Tensor:
        """Return drawn frames (B, 3, 128, 128), RGB, 0 to 1.

        So are *background*, whose face *hidden* (B, 128, 128) covers, and *reference*, another
        frame of the puppet; *reference_render* is (B, 3, 64, 64).
        """
        moved = warp(reference, motion(morphable, target, reference_face))
        render = morphable.render(target, 128)
        hidden = hidden[:, None]
        visible = background * (1 - hidden)
        pixels = F.pixel_unshuffle(torch.cat([visible, hidden, moved, render], 1), 2)
        x = self._corrections(4 * torch.cat([pixels, reference_render], 1) - 2)
        # A tenth, so that steps of the optimiser are small against a pixel's range.
        drawn = F.pixel_shuffle(0.1 * x, 2)
        correction, share = drawn[:, :3], (10 * drawn[:, 3:] - 2).sigmoid()
        face = moved + share * (render - moved) + correction
        return torch.as_tensor(visible + face.clamp(0, 1) * hidden)


class Animator(_Corrections):
    """From a frame, its units and those asked for, to the frame: one stage, without renders.

    After ICface (Tripathy, Kannala and Rahtu, WACV 2020): units, here of expression and pose, are
    channels beside the frame's. The frame is warped by the motion of the face's points, which the
    network corrects as it does colours (as in Siarohin et al., First Order Motion Model, 2019).
    """

    def __init__(self) -> None:
        super().__init__(4 * (3 + 3) + 2 * sum(SIZES[1:]), 4 * (2 + 3))

    def forward(
        self, morphable: Morphable, target: Coefficients, frame: Tensor, face: Coefficients
    ) -> Tensor:
        """Return drawn frames for frames (B, 3, 128, 128), RGB, 0 to 1, whose *face* is known."""
        scale = frame.new_tensor(Estimator.POSE_SCALE)
        old, new = (torch.cat([f.expression, f.pose / scale], 1) for f in (face, target))
        units = torch.cat([old, new - old], 1)[..., None, None]
        grid = motion(morphable, target, face)
        pixels = F.pixel_unshuffle(4 * torch.cat([frame, warp(frame, grid)], 1) - 2, 2)
        planes = units.expand(-1, -1, *pixels.shape[2:])
        drawn = 0.1 * F.pixel_shuffle(self._corrections(torch.cat([pixels, planes], 1)), 2)
        moved = warp(frame, grid + drawn[:, :2].permute(0, 2, 3, 1))
        return torch.as_tensor((moved + drawn[:, 2:]).clamp(0, 1))
