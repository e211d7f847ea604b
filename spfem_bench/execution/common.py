"""What all kinds of workers have in common."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import SpfemBenchError
from spfem_bench.features.extract import Extractor
from spfem_bench.features.requests import Failures, PairRequest, Requests, ensure, pair_extractor
from spfem_bench.progress import Progress

if TYPE_CHECKING:
    from spfem_bench.features.pair_extract import PairExtractor

LARGEST_PORTION = 8
"""Clips that a worker gets at once, at most: they share batches, and are done again if it dies."""

_Requested = TypeVar("_Requested")


def portions(requests: Mapping[Clip, _Requested], workers: int) -> list[dict[Clip, _Requested]]:
    """Cut requests into portions for workers, in order; at least two a worker where there are."""
    clips = list(requests)
    size = max(1, min(LARGEST_PORTION, len(clips) // (2 * workers)))
    return [
        {clip: requests[clip] for clip in clips[start : start + size]}
        for start in range(0, len(clips), size)
    ]


class KeptNetworks:
    """A process's networks, kept from one job to the next while their settings stay equal."""

    def __init__(self) -> None:
        self._extractor: Extractor | None = None
        self._pairs: PairExtractor | None = None

    def keep(self, extractor: Extractor) -> Extractor:
        """Return the extractor kept, where it equals the new one; else keep the new one."""
        if self._extractor is None or extractor != self._extractor:
            self._extractor, self._pairs = extractor, None
        return self._extractor

    def ensure(self, extractor: Extractor, requests: Requests) -> Failures:
        """Fill the store; see :func:`spfem_bench.features.requests.ensure`."""
        kept = self.keep(extractor)
        compared = (isinstance(one, PairRequest) for wanted in requests.values() for one in wanted)
        if self._pairs is None and any(compared):
            self._pairs = pair_extractor(kept)
        return ensure(kept, requests, self._pairs)


@contextmanager
def feature_phases(progress: Progress, clips: int) -> Iterator[None]:
    """Begin the phases of computing features, and end them with the block."""
    phases = {"clips": "clip", "decode": "frame", "networks": "crop"}
    for phase, unit in phases.items():
        progress.begin(phase, clips if phase == "clips" else None, unit)
    try:
        yield
    finally:
        for phase in reversed(phases):
            progress.end(phase)


def check_device(device: str) -> None:
    """Refuse a device that torch does not have on this machine.

    Raises SpfemBenchError with torch's reason.
    """
    if device == "cpu":
        return
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SpfemBenchError(f"'{device}' is not available here: {reason}", "Use cpu") from None
