"""Work spread over processes, its results in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TypeVar

from spfem_bench.errors import SpfemBenchError

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextmanager
def spread(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    *,
    ahead: int | None = None,
) -> Iterator[Iterator[Result]]:
    """Give the results of all jobs, in the jobs' order, one by one.

    When the block is left early, by Ctrl-C or an error, what is queued is dropped.

    Args:
        work: done for each job; with several processes, it and the jobs are pickled.
        jobs: what is worked on.
        workers: processes; with one, or one job, all is done in this process.
        ahead: jobs begun before the first of their results is taken, at most; a bound on the
            results in memory. All when None.

    >>> with spread(abs, [3, -4, 5], 1) as found:
    ...     list(found)
    [3, 4, 5]
    """
    workers = min(workers, len(jobs))
    if workers <= 1:
        yield map(work, jobs)
        return
    with processes(workers) as pool:
        try:
            yield in_order(pool, work, jobs, ahead or len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def processes(workers: int, begin: Callable[[], object] | None = None) -> ProcessPoolExecutor:
    """Return processes of which each starts when it is first needed, and calls *begin* then."""
    # spawn: a fork of a process that has started torch's threads may hang.
    return ProcessPoolExecutor(workers, get_context("spawn"), initializer=_begin, initargs=(begin,))


def in_order(
    pool: ProcessPoolExecutor, work: Callable[[Job], Result], jobs: Iterable[Job], ahead: int
) -> Iterator[Result]:
    """Yield the results of all jobs, in the jobs' order.

    Args:
        pool: who does the work.
        work: done for each job; it and the jobs are pickled.
        jobs: taken one by one, while earlier ones are worked on.
        ahead: jobs begun before the first of their results is taken, at most.

    Raises:
        SpfemBenchError: one of the processes was killed.
    """
    running: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            while running and (len(running) == ahead or running[0].done()):
                yield running.popleft().result()
            running.append(pool.submit(work, job))
        while running:
            yield running.popleft().result()
    except BrokenProcessPool:
        raise SpfemBenchError(
            "a process that worked for this one was killed; perhaps there was no memory left",
            "Type the command again, with fewer --workers: it goes on from what is stored",
        ) from None


def _begin(begin: Callable[[], object] | None) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if begin is not None:
        begin()


def _end_with_parent() -> None:
    """End a process whose parent was killed; it would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
