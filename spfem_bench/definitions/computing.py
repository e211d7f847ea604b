"""How networks are run: one object for what eight options of the command line say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Computing:
    """How features are computed; only ``precision`` and ``hwaccel`` can move a score.

    Attributes:
        device: cpu, cuda, cuda:1, mps.
        batch_size: frames in a batch; chosen by device and memory when None.
        hwaccel: a hardware decoder that ``ffmpeg -hwaccels`` lists; none when None.
        workers: processes; one when None, on Ray as many as there are GPUs or processors.
        ray: ``local``, ``auto`` or ``HOST:PORT``; no Ray when None.
    """

    device: str = "cpu"
    precision: Precision = "float32"
    batch_size: int | None = None
    hwaccel: str | None = None
    workers: int | None = None
    ray: str | None = None
