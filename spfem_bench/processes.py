"""Work spread over processes, its results in order."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from typing import TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


@contextmanager
def spread(
    work: Callable[[Job], Result],
    jobs: Sequence[Job],
    workers: int,
    *,
    begin: Callable[[], object] | None = None,
    ahead: int | None = None,
) -> Iterator[Iterator[Result]]:
    """Give the results of all jobs, in the jobs' order, one by one.

    When the block is left early, by Ctrl-C or an error, what is queued is dropped.

    Args:
        work: done for each job; with several processes, it and the jobs are pickled.
        jobs: what is worked on.
        workers: processes; with one, or one job, all is done in this process.
        begin: called first in each process other than this one.
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
    # spawn: a fork of a process that has started torch's threads may hang.
    with ProcessPoolExecutor(
        workers, get_context("spawn"), initializer=_begin, initargs=(begin,)
    ) as pool:
        try:
            yield _in_order(pool, work, jobs, ahead or len(jobs))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _in_order(
    pool: ProcessPoolExecutor, work: Callable[[Job], Result], jobs: Sequence[Job], ahead: int
) -> Iterator[Result]:
    running: deque[Future[Result]] = deque()
    for job in jobs:
        if len(running) == ahead:
            yield running.popleft().result()
        running.append(pool.submit(work, job))
    while running:
        yield running.popleft().result()


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
