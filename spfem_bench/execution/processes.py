"""Workers on this machine: this process alone, or several."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from spfem_bench.execution.common import KeptNetworks, feature_phases, portions
from spfem_bench.execution.workers import Workers
from spfem_bench.features.extract import Extractor
from spfem_bench.features.keys import one_of_each
from spfem_bench.features.requests import Failures, Requests, ensure, missing
from spfem_bench.machine import processors
from spfem_bench.processes import Pool
from spfem_bench.progress import SILENT

_Job = TypeVar("_Job")
_Outcome = TypeVar("_Outcome")


class ThisProcess(Workers):
    """Computes and scores in this process, which needs neither beginning nor end."""

    def compute(self, extractor: Extractor, requests: Requests, *, whole: bool = True) -> Failures:
        """Compute what is missing."""
        with feature_phases(extractor.progress, len(requests)):
            return ensure(extractor, requests)


class Processes(Workers):
    """Processes of this machine."""

    spreads_jobs = True

    def __init__(self, count: int) -> None:
        self.count = count
        self._pool: Pool | None = None

    def begin(self) -> None:
        """Start all processes, and do not wait for them."""
        self._started().start()

    def end(self) -> None:
        """End all processes at once."""
        if self._pool is not None:
            self._pool.end()
        self._pool = None

    def _started(self) -> Pool:
        if self._pool is None:
            self._pool = Pool(self.count, partial(_share_processors, self.count))
        return self._pool

    def each(
        self, work: Callable[[_Job], _Outcome], jobs: Iterable[_Job], *, store: Path | None = None
    ) -> Iterator[_Outcome]:
        """Yield the results of all jobs in order; each process works on one at a time."""
        return self._started().in_order(work, jobs, ahead=2 * self.count)

    def compute(self, extractor: Extractor, requests: Requests, *, whole: bool = True) -> Failures:
        """Compute what is missing: in this process where that is one clip, else in the others."""
        with feature_phases(extractor.progress, len(requests)):
            keys, failures = missing(extractor, requests, whole=whole)
            if keys:
                extractor.store.check_writable()
            wanted = {clip: frozenset(by_request) for clip, by_request in keys.items()}
            extractor.progress.advance("clips", len(requests) - len(wanted))
            lacking, same = one_of_each(wanted)
            if len(lacking) <= 1:
                return failures | ensure(extractor, wanted)
            parts = portions(lacking, self.count)
            jobs = ((replace(extractor, progress=SILENT), part) for part in parts)
            for part, failed in zip(parts, self.each(_compute, jobs), strict=True):
                failures |= failed
                extractor.progress.advance("clips", len(part))
            return failures | (ensure(extractor, same) if same else {})


kept_networks = KeptNetworks()
"""Of this process, where it works for another."""


def _share_processors(count: int) -> None:
    threads = max(1, processors() // count)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # torch reads it when it is imported
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)


def _compute(job: tuple[Extractor, Requests]) -> Failures:
    return kept_networks.ensure(*job)
