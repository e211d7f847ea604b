"""SyncNet (Chung and Zisserman, 2016): the network of the package syncnet-python.

The lip tower convolves over time in its first layer only, so a run of frames
goes through once and gives one vector for each five-frame window in it: the
same arithmetic as window by window, without computing frames five times.
"""

from __future__ import annotations

from torch import Tensor, nn


class SyncNet(nn.Module):
    """Both towers of SyncNet in the official checkpoint's names (``netcnnlip`` and so on)."""

    def __init__(self) -> None:
        super().__init__()
        from syncnet_python.SyncNetModel import S

        self.net = S(num_layers_in_fc_layers=1024)

    def visual(self, frames: Tensor) -> Tensor:
        """Embed every five-frame window of runs of frames.

        Args:
            frames: float32 (B, 3, T, 224, 224), BGR, 0 to 255, T at least 5.

        Returns:
            float32 (B, T - 4, 1024).
        """
        towers = self.net.netcnnlip(frames)  # (B, 512, T - 4, 1, 1)
        batch, channels, windows = towers.shape[:3]
        rows = towers.reshape(batch, channels, windows).transpose(1, 2).reshape(-1, channels)
        vectors: Tensor = self.net.netfclip(rows)
        return vectors.reshape(batch, windows, -1)

    def audio(self, steps: Tensor) -> Tensor:
        """Embed windows of sound.

        Args:
            steps: float32 (B, 1, 13, 20): 13 MFCCs over 20 steps.

        Returns:
            float32 (B, 1024).
        """
        vectors: Tensor = self.net.forward_aud(steps)
        return vectors
