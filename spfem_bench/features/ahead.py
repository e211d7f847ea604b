"""Work done ahead of those who wait for it: in threads, and with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from threading import Condition, Thread
from typing import Protocol, TypeVar

Thing = TypeVar("Thing")

ROOM = 1 << 26
"""Bytes that wait for one reader: a second of full HD, or two pictures of 4K and a half."""


class Ahead(Iterator[Thing]):
    """What an iterator yields, made in a thread of its own while its reader is busy.

    What the iterator raises is raised to the reader, after all that came before.

    Args:
        things: run in the thread from its first step to its last.
        weigh: bytes of one thing.
        room: bytes that wait for the reader at most; a single thing may weigh more.

    >>> list(Ahead(iter("abc")))
    ['a', 'b', 'c']
    """

    def __init__(
        self,
        things: Iterable[Thing],
        weigh: Callable[[Thing], int] = lambda thing: 1,
        room: int = ROOM,
    ) -> None:
        self._weigh, self._room = weigh, room
        self._waiting: deque[Thing] = deque()
        self._weight = 0
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._change = Condition()
        Thread(target=self._run, args=(things,), daemon=True).start()

    def _run(self, things: Iterable[Thing]) -> None:
        error: BaseException | None = None
        try:
            for thing in things:
                if not self._put(thing):
                    break
        except BaseException as raised:  # whatever it is, it is the reader's
            error = raised
        finally:
            if close := getattr(things, "close", None):  # a program that it reads from ends now
                close()
        with self._change:
            self._ended, self._error = True, None if self._closed else error
            self._change.notify_all()

    def _put(self, thing: Thing) -> bool:
        weight = self._weigh(thing)
        with self._change:
            while self._waiting and self._weight + weight > self._room and not self._closed:
                self._change.wait()
            if not self._closed:
                self._waiting.append(thing)
                self._weight += weight
                self._change.notify_all()
            return not self._closed

    def __next__(self) -> Thing:
        with self._change:
            while not self._waiting and not self._ended:
                self._change.wait()
            if self._waiting:
                thing = self._waiting.popleft()
                self._weight -= self._weigh(thing)
                self._change.notify_all()
                return thing
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Want no more: the thread ends with its next thing."""
        with self._change:
            self._closed = self._ended = True
            self._waiting.clear()
            self._weight, self._error = 0, None
            self._change.notify_all()


class Closable(Protocol):
    """What has something going on that can be ended."""

    def close(self) -> None:
        """End it."""


Work = TypeVar("Work", bound=Closable)


def begun(works: Iterable[Work], count: int) -> Generator[Work, None, None]:
    """Yield works, each when *count* more behind it have been begun.

    Those that were begun for nothing are closed, when the reader stops early.
    """
    waiting: deque[Work] = deque()
    try:
        for work in works:
            waiting.append(work)
            if len(waiting) > count:
                yield waiting.popleft()
        while waiting:
            yield waiting.popleft()
    finally:
        for work in waiting:
            work.close()
