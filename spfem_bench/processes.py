"""Work spread over processes, its results in order."""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process
from typing import TYPE_CHECKING, TypeVar

from spfem_bench.errors import SpfemBenchError
from spfem_bench.texts import make_visible

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

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

    When the block is left early, by Ctrl-C or an error, what goes on is ended and what is queued
    is dropped.

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
    pool = Pool(workers)
    try:
        yield pool.in_order(work, jobs, ahead or len(jobs))
    finally:
        pool.end()


class Pool:
    """Processes of which each starts when it is first needed.

    They receive no Ctrl-C, SIGTERM or SIGHUP: this process does, and ends them.

    Args:
        workers: processes at most.
        begin: called first in each.
    """

    def __init__(self, workers: int, begin: Callable[[], object] | None = None) -> None:
        self._workers = workers
        # Who reads in this pipe sees its end when it is closed here.
        self._ended, self._open = connection.Pipe(duplex=False)
        # spawn: a fork of a process that has started torch's threads may hang.
        self._pool = ProcessPoolExecutor(
            workers, get_context("spawn"), initializer=_begin, initargs=(self._ended, begin)
        )

    def start(self) -> None:
        """Start all processes now, and do not wait for them."""
        for _ in range(self._workers):
            self._submit(abs, 0)

    def in_order(
        self, work: Callable[[Job], Result], jobs: Iterable[Job], ahead: int
    ) -> Iterator[Result]:
        """Yield the results of all jobs, in the jobs' order.

        Args:
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
                running.append(self._submit(work, job))
            while running:
                yield running.popleft().result()
        except BrokenProcessPool:
            raise SpfemBenchError(
                "a process that worked for this one was killed; perhaps there was no memory left",
                "Type the command again, with fewer --workers: it goes on from what is stored",
            ) from None

    def _submit(self, work: Callable[[Job], Result], job: Job) -> Future[Result]:
        with _uninterrupted():  # a process may be started, which takes over what is blocked
            return self._pool.submit(work, job)

    def end(self) -> None:
        """End all processes at once, whatever they are doing."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._open.close()
        self._pool.shutdown()
        self._ended.close()


_ended_by: int = signal.SIGINT
ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def terminated_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at the first SIGTERM or SIGHUP; ignore later ones.

    A signal that is ignored or handled already (nohup, another program) is left as it is, and so
    are all in another thread than the main one.
    """

    def end(number: int, _: object) -> None:
        global _ended_by
        for other in ours:
            signal.signal(other, signal.SIG_IGN)  # what is cleaned up now is not interrupted
        _ended_by = number
        raise KeyboardInterrupt

    global _ended_by
    _ended_by = signal.SIGINT
    main = threading.current_thread() is threading.main_thread()
    ours = [n for n in ENDING if main and signal.getsignal(n) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def ended_by() -> int:
    """Return the signal that a KeyboardInterrupt stands for.

    It is no attribute of the exception: Ray raises another one in its place.
    """
    return _ended_by


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Block Ctrl-C and the signals that end a command."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *ENDING})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(ended: Connection, begin: Callable[[], object] | None) -> None:
    threading.Thread(target=_end_with_parent, args=(ended,), daemon=True).start()
    make_visible()
    if begin is not None:
        begin()


def _end_with_parent(ended: Connection) -> None:
    """End a process whose parent wants it to, or was killed; it would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel, ended])
        os._exit(1)
