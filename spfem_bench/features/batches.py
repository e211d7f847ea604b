"""Batches of one fixed size, filled with samples of many clips, and their outputs by clip."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

_Sample = npt.NDArray[np.generic]

BatchOutputs = Mapping[str, Any]
"""Arrays (or torch's tensors) by name, one row per sample."""

Taker = Callable[[BatchOutputs], None]
"""A callback that gets the outputs of one sample."""

FRAMES = 32
"""Frames in a batch on a processor, at most; more make nothing faster there."""

BYTES = 5 << 20
"""Bytes of a batch on a processor, at most: four runs of SyncNet's frames."""

MOST = 512
"""Frames in a batch on a GPU."""

UNDER_WAY = 2
"""Batches of one kind that run or wait to run, while the next is filled."""


@dataclass
class Batcher:
    """Collects samples of many clips; a network computes them in batches of one fixed size.

    Batches run in order in another thread; takers are called in the thread that adds samples. The
    last batch is filled up: a sample's outputs do not depend on its neighbours. When *size* is
    None, see :func:`fitting`; *report* gets how many samples are done; *each* is the frames in one.
    """

    function: Callable[[_Sample], BatchOutputs]
    size: int | None
    runner: Executor
    report: Callable[[int], object]
    device: str = "cpu"
    each: int = 1
    _samples: list[_Sample] = field(default_factory=list)
    _takers: list[Taker] = field(default_factory=list)
    _running: deque[tuple[Future[BatchOutputs], list[Taker]]] = field(default_factory=deque)

    def add(self, sample: _Sample, taker: Taker) -> None:
        """Add one sample; *taker* gets its outputs some time after its batch has run."""
        if self.size is None:
            self.size = fitting(self.function, sample, self.device, self.each)
        self._samples.append(sample)
        self._takers.append(taker)
        if len(self._samples) == self.size:
            self._send()

    def _send(self) -> None:
        self._running.append((self.runner.submit(self._run, self._samples), self._takers))
        self._samples, self._takers = [], []
        while len(self._running) > UNDER_WAY:
            self._take()

    def _run(self, samples: list[_Sample]) -> BatchOutputs:
        missing = (self.size or 0) - len(samples)
        return self.function(np.stack(samples + samples[-1:] * missing))

    def _take(self) -> None:
        future, takers = self._running.popleft()
        outputs = future.result()
        for i, taker in enumerate(takers):
            taker({name: rows[i] for name, rows in outputs.items()})
        self.report(len(takers))

    def flush(self) -> None:
        """Run all samples, and wait for all outputs."""
        if self._samples:
            self._send()
        while self._running:
            self._take()

    def drop(self) -> None:
        """Forget all that is waiting or running."""
        for future, _ in self._running:
            future.cancel()
        self._running.clear()
        self._samples, self._takers = [], []


def fitting(
    function: Callable[[_Sample], BatchOutputs], sample: _Sample, device: str, each: int = 1
) -> int:
    """Return how many samples a batch should have.

    On a processor those of :data:`FRAMES`, or of :data:`BYTES` where samples are large. On a GPU
    the size is doubled up to :data:`MOST` while the network takes at most half of the free memory.
    """
    size, most = max(1, FRAMES // each), max(1, MOST // each)
    if not device.startswith("cuda"):
        return max(1, min(size, BYTES // sample.nbytes))
    free = free_memory(device)
    while size < most:
        function(np.stack([sample] * size))
        taken = free - free_memory(device)
        if 2 * taken > free / 2:  # twice as many would take twice as much
            break
        size *= 2
    return size


def free_memory(device: str) -> int:
    """Return the bytes that are free on a GPU."""
    import torch

    free: int = torch.cuda.mem_get_info(torch.device(device).index)[0]  # None: the current one
    return free


class Outputs:
    """The outputs of one clip, in the order of their frames."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.rows: dict[str, list[npt.NDArray[np.float32]]] = {}
        self.waiting = 0

    def expect(self, frames: list[int]) -> Taker:
        """Return the taker for a sample whose outputs have one row for each of *frames*."""
        self.frames += frames
        self.waiting += 1
        count = len(frames)

        def take(outputs: BatchOutputs) -> None:
            self.waiting -= 1
            for name, rows in outputs.items():
                kept = rows.reshape(-1, rows.shape[-1])[:count].copy()
                self.rows.setdefault(name, []).append(kept)

        return take

    def arrays(self) -> dict[str, npt.NDArray[np.float32]]:
        """Return the joined rows by name; they are dropped one by one to save memory."""
        return {name: np.concatenate(self.rows.pop(name)) for name in list(self.rows)}
