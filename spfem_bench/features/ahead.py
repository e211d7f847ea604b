"""Work done in threads before its result is needed, with bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from threading import Condition, Thread
from typing import Any, Protocol, TypeVar

import numpy.typing as npt

_Item = TypeVar("_Item")

ROOM = 1 << 26
"""Bytes that wait for one reader: a second of full HD, or two pictures of 4K and a half."""


def frame_bytes(item: npt.NDArray[Any] | Exception) -> int:
    """Return the bytes of a picture; 0 of an error in its place."""
    return 0 if isinstance(item, Exception) else item.nbytes


class Ahead(Iterator[_Item]):
    """Items of an iterator, made in a thread while their reader is busy; its error comes last."""

    def __init__(
        self, items: Iterable[_Item], weigh: Callable[[_Item], int] = lambda _: 1, room: int = ROOM
    ) -> None:
        self._weigh, self._room = weigh, room
        self._waiting: deque[_Item] = deque()
        self._weight = 0
        self._ended = self._closed = False
        self._error: BaseException | None = None
        self._change = Condition()
        Thread(target=self._run, args=(items,), daemon=True).start()

    def _run(self, items: Iterable[_Item]) -> None:
        error: BaseException | None = None
        try:
            for item in items:
                if not self._put(item):
                    break
        except BaseException as raised:  # raised again in the reader
            error = raised
        finally:
            if close := getattr(items, "close", None):  # ends a process that it reads from
                close()
        with self._change:
            self._ended, self._error = True, None if self._closed else error
            self._change.notify_all()

    def _put(self, item: _Item) -> bool:
        weight = self._weigh(item)
        with self._change:
            while self._waiting and self._weight + weight > self._room and not self._closed:
                self._change.wait()
            if not self._closed:
                self._waiting.append(item)
                self._weight += weight
                self._change.notify_all()
            return not self._closed

    def __next__(self) -> _Item:
        with self._change:
            while not self._waiting and not self._ended:
                self._change.wait()
            if self._waiting:
                item = self._waiting.popleft()
                self._weight -= self._weigh(item)
                self._change.notify_all()
                return item
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def close(self) -> None:
        """Drop what waits; the thread ends with its next item."""
        with self._change:
            self._closed = self._ended = True
            self._waiting.clear()
            self._weight, self._error = 0, None
            self._change.notify_all()


class _Closable(Protocol):
    def close(self) -> None: ...


_Work = TypeVar("_Work", bound=_Closable)


def begun(works: Iterable[_Work], count: int) -> Generator[_Work, None, None]:
    """Yield works, each when *count* more have begun; when stopped early, close all not yielded."""
    waiting: deque[_Work] = deque()
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
