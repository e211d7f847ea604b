"""SyncNet (Chung and Zisserman, 2016), in the layout of the authors' ``syncnet_v2.model``.

The video encoder gives one vector for each window of five in a run of frames, in one pass.
"""

from __future__ import annotations

from torch import Tensor, nn

from spfem_bench.definitions.architectures import ARCHITECTURES
from spfem_bench.networks.weights import torch_state

WIDTH = 1024
"""Length of the vectors of both encoders."""


def _head() -> nn.Sequential:
    layers = (nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU(), nn.Linear(512, WIDTH))
    return nn.Sequential(*layers)


def _audio_block(
    inputs: int, outputs: int, kernel: tuple[int, int], padding: int = 1
) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=padding)
    return convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)


def _video_block(
    inputs: int, outputs: int, kernel: tuple[int, int, int], stride: int = 1, padding: int = 1
) -> tuple[nn.Module, ...]:
    convolution = nn.Conv3d(
        inputs, outputs, kernel, stride=(1, stride, stride), padding=(0, padding, padding)
    )
    return convolution, nn.BatchNorm3d(outputs), nn.ReLU(inplace=True)


def _video_pool(padding: int = 0) -> nn.MaxPool3d:
    return nn.MaxPool3d((1, 3, 3), stride=(1, 2, 2), padding=(0, padding, padding))


@ARCHITECTURES.register("syncnet")
class SyncNet(nn.Module):
    """Both encoders of SyncNet; the numbers in the checkpoint's names are places in a sequence."""

    read_state = staticmethod(torch_state)

    def __init__(self) -> None:
        super().__init__()
        self.netcnnaud = nn.Sequential(
            *_audio_block(1, 64, (3, 3)),
            nn.MaxPool2d(1),
            *_audio_block(64, 192, (3, 3)),
            nn.MaxPool2d(3, stride=(1, 2)),
            *_audio_block(192, 384, (3, 3)),
            *_audio_block(384, 256, (3, 3)),
            *_audio_block(256, 256, (3, 3)),
            nn.MaxPool2d(3, stride=2),
            *_audio_block(256, 512, (5, 4), padding=0),
        )
        self.netfcaud = _head()
        self.netfclip = _head()
        self.netcnnlip = nn.Sequential(
            *_video_block(3, 96, (5, 7, 7), stride=2, padding=0),
            _video_pool(),
            *_video_block(96, 256, (1, 5, 5), stride=2),
            _video_pool(padding=1),
            *_video_block(256, 256, (1, 3, 3)),
            *_video_block(256, 256, (1, 3, 3)),
            *_video_block(256, 256, (1, 3, 3)),
            _video_pool(),
            *_video_block(256, 512, (1, 6, 6), padding=0),
        )

    def visual(self, frames: Tensor) -> Tensor:
        """Embed windows of five: (B, T - 4, 1024) of (B, 3, T, 224, 224), float32 BGR to 255."""
        maps = self.netcnnlip(frames)  # (B, 512, T - 4, 1, 1)
        batch, channels, windows = maps.shape[:3]
        rows = maps.reshape(batch, channels, windows).transpose(1, 2).reshape(-1, channels)
        vectors: Tensor = self.netfclip(rows)
        return vectors.reshape(batch, windows, -1)

    def audio(self, steps: Tensor) -> Tensor:
        """Embed windows of sound: (B, 1024) of (B, 1, 13, 20), 13 MFCCs over 20 steps."""
        vectors: Tensor = self.netfcaud(self.netcnnaud(steps).flatten(1))
        return vectors
