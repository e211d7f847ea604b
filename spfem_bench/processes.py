"""Jobs spread over processes, with their results in order; signals that end a command."""

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
from typing import TypeVar

from spfem_bench.errors import SpfemBenchError
from spfem_bench.texts import make_visible

_Job = TypeVar("_Job")
_Outcome = TypeVar("_Outcome")


@contextmanager
def spread(
    work: Callable[[_Job], _Outcome], jobs: Sequence[_Job], workers: int, ahead: int | None = None
) -> Iterator[Iterator[_Outcome]]:
    """Give the results of all jobs, in the jobs' order, one by one.

    When the block is left early, by Ctrl-C or an error, running jobs are ended and queued ones
    are dropped. With one worker, or one job, all is done in this process; else *work* and the jobs
    are pickled. *ahead* jobs at most are begun before the first of their results is taken, which
    bounds the results in memory; all when None.

    >>> with spread(abs, [3, -4, 5], 1) as results:
    ...     list(results)
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
    """Processes, each of which starts when it is first needed, and calls *begin* first.

    They ignore Ctrl-C, SIGTERM and SIGHUP: this process receives them, and ends the others.
    """

    def __init__(self, workers: int, begin: Callable[[], object] | None = None) -> None:
        self._workers = workers
        # The children read from this pipe: they get its end when this process closes it.
        self._reader, self._writer = connection.Pipe(duplex=False)
        # spawn: a fork of a process that has started torch's threads may hang.
        self._pool = ProcessPoolExecutor(
            workers, get_context("spawn"), initializer=_begin, initargs=(self._reader, begin)
        )

    def start(self) -> None:
        """Start all processes now, and do not wait for them."""
        for _ in range(self._workers):
            self._submit(abs, 0)

    def in_order(
        self, work: Callable[[_Job], _Outcome], jobs: Iterable[_Job], ahead: int
    ) -> Iterator[_Outcome]:
        """Yield the results of all jobs, in the jobs' order; *work* and the jobs are pickled.

        Jobs are taken one by one, while earlier ones are running; *ahead* of them at most are begun
        before the first of their results is taken.

        Raises:
            SpfemBenchError: one of the processes was killed.
        """
        running: deque[Future[_Outcome]] = deque()
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

    def _submit(self, work: Callable[[_Job], _Outcome], job: _Job) -> Future[_Outcome]:
        with _signals_blocked():  # a process may start here; it inherits blocked signals
            return self._pool.submit(work, job)

    def end(self) -> None:
        """End all processes at once, also in the middle of a job."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._writer.close()
        self._pool.shutdown()
        self._reader.close()


def _begin(reader: connection.Connection, begin: Callable[[], object] | None) -> None:
    threading.Thread(target=_end_with_parent, args=(reader,), daemon=True).start()
    make_visible()
    if begin is not None:
        begin()


def _end_with_parent(reader: connection.Connection) -> None:
    """Exit when the parent closes the pipe or was killed; a worker would wait for jobs forever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel, reader])
        os._exit(1)


# ---- signals -------------------------------------------------------------------------------

ENDING = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_ended_by: int = signal.SIGINT


@contextmanager
def terminated_by_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block at the first SIGTERM or SIGHUP; ignore later ones.

    A signal that is ignored or handled already (nohup) keeps its handler, also in other threads.
    """

    def end(number: int, _: object) -> None:
        global _ended_by
        for other in handled:
            signal.signal(other, signal.SIG_IGN)  # clean-up is not interrupted
        _ended_by = number
        raise KeyboardInterrupt

    global _ended_by
    _ended_by = signal.SIGINT
    main = threading.current_thread() is threading.main_thread()
    handled = [n for n in ENDING if main and signal.getsignal(n) == signal.SIG_DFL]
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in handled:
            signal.signal(number, signal.SIG_DFL)


def ended_by() -> int:
    """Return the signal of the last KeyboardInterrupt; Ray may raise another error in its place."""
    return _ended_by


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block Ctrl-C and the signals that end a command."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *ENDING})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
