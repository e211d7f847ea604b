"""The interface of workers, and the choice among their kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from spfem_bench.definitions.computing import Computing
from spfem_bench.execution.common import check_device
from spfem_bench.features.extract import Extractor
from spfem_bench.features.requests import Failures, Requests
from spfem_bench.machine import warn_without_bfloat16

_Job = TypeVar("_Job")
_Outcome = TypeVar("_Outcome")


class Workers:
    """One or more processes that compute features; they change no number.

    They keep their networks from one call to the next. ``spreads_jobs`` says whether `each` runs
    jobs in other processes.
    """

    spreads_jobs = False

    def begin(self) -> None:
        """Start processes in the background, where they will be needed soon; does not block."""

    def compute(self, extractor: Extractor, requests: Requests, *, whole: bool = True) -> Failures:
        """Compute the requested features that the store lacks; return why requests cannot be met.

        The phases ``clips``, ``decode`` and ``networks`` of the extractor's progress begin and
        end here. With *whole*, stored features are read and verified; else `each` must do so.

        Raises:
            StorageError: features cannot be stored; a later run continues.
            WeightsError: a network's weights are missing or wrong.
            SpfemBenchError: a worker was killed, or cannot work.
        """
        raise NotImplementedError

    def each(
        self, work: Callable[[_Job], _Outcome], jobs: Iterable[_Job], *, store: Path | None = None
    ) -> Iterator[_Outcome]:
        """Yield the results of all jobs, in the jobs' order; other processes get them pickled.

        *store* is the folder that jobs read: machines without it get none. Here, this process does
        them one by one.
        """
        return map(work, jobs)

    def end(self) -> None:
        """End all processes; features that are not stored yet are lost."""


@contextmanager
def workers_for(computing: Computing) -> Iterator[Workers]:
    """Give the workers that settings ask for; they end with the block.

    Processes start with the first work. A cluster that runs is joined at once, so that a wrong
    address is reported before the preflight. Raises SpfemBenchError for no such device, no Ray, no
    cluster at the address, or no room in it.
    """
    if computing.ray in (None, "local"):  # a cluster's driver may lack the GPUs of its nodes
        check_device(computing.device)
        if (computing.device, computing.precision) == ("cpu", "bfloat16"):
            warn_without_bfloat16()
    if computing.ray is not None:
        from spfem_bench.execution.cluster import RayWorkers

        workers: Workers = RayWorkers(computing)
    else:
        from spfem_bench.execution.processes import Processes, ThisProcess

        count = computing.workers or 1
        workers = Processes(count) if count > 1 else ThisProcess()
    try:
        if computing.ray not in (None, "local"):
            workers.begin()
        yield workers
    finally:
        workers.end()
