"""How networks are run: one object for what eight options of the command line say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Computing:
    """How features are computed; only ``precision`` and ``hwaccel`` can move a score."""

    device: str = "cpu"  # cpu, cuda, cuda:1, mps
    precision: Precision = "float32"
    batch_size: int | None = None  # frames in a batch; chosen by device and memory when None
    hwaccel: str | None = None  # a hardware decoder that `ffmpeg -hwaccels` lists; none when None
    workers: int | None = None  # processes; when None one, on Ray one for each GPU or processor
    ray: str | None = None  # `local`, `auto` or `HOST:PORT`; no Ray when None
