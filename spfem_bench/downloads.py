"""One file from a web server that may be slow, broken or hostile."""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

if TYPE_CHECKING:
    import requests

BLOCK = 1 << 16
LARGEST = 2 << 30  # bytes that a download of unknown size may have
SILENCE = 30.0  # seconds without a byte after which a connection is given up
WINDOW = 60.0  # seconds over which a server's rate is measured
RATE = 10_000  # bytes a second that must come in each window, so that downloads end
REDIRECTS = 5
PRIVATE = re.compile("local(host|domain)?|internal|intranet|lan|home|corp|arpa|test|onion")
"""Last labels of names that are not public."""

_Head = tuple[int, str]  # status and Content-Length of an answer
_Item = _Head | bytes | Exception | None  # head, block, error or end of an answer


class DownloadError(Exception):
    """The reason why a download failed, for all errors of servers and networks."""


def receive(url: str, part: Path, size: int | None, *, progress: bool) -> None:
    """Download a file behind the bytes that *part* has; keep them after an error.

    At most one block beyond *size*, bytes of the whole where known, is written. Only one process
    may write to *part*.

    Raises:
        DownloadError: no connection, or the server refuses, breaks off, is too slow, redirects to
            an address that is not public, or sends more than :data:`LARGEST` bytes without a size.
        OSError: the file cannot be written.
    """
    have = part.stat().st_size if part.exists() else 0
    items: Queue[_Item] = Queue(16)
    left = Event()
    # In a thread: no timeout of a socket ends a server that sends one byte every 29 s.
    Thread(target=_receive, args=(url, have, items, left), daemon=True).start()
    try:
        _append(part, have, size, _timely(items), progress=progress)
    finally:
        left.set()


def _receive(url: str, first: int, items: Queue[_Item], left: Event) -> None:
    """Put an answer's head, its blocks and None into a queue, or the error that ended it."""

    def put(item: _Item) -> None:
        while not left.is_set():
            with suppress(Full):
                items.put(item, timeout=1)
                return

    try:
        with _answer(url, first) as answer:
            put((answer.status_code, answer.headers.get("Content-Length", "")))
            for block in answer.iter_content(BLOCK):
                put(block)
                if left.is_set():
                    return
        put(None)
    except Exception as error:  # requests, urllib3, idna, ssl and socket raise twenty kinds
        put(error)


def _answer(url: str, first: int) -> requests.Response:
    """Return the answer to a request for a file from its byte *first* on; follow redirects."""
    import requests

    # identity: bytes counted here are bytes of the file.
    headers = {"Accept-Encoding": "identity"}
    if first:
        headers["Range"] = f"bytes={first}-"
    for _ in range(REDIRECTS + 1):
        answer = requests.get(
            url, headers=headers, stream=True, timeout=SILENCE, allow_redirects=False
        )
        place = answer.headers.get("Location")
        if answer.status_code not in (301, 302, 303, 307, 308) or not place:
            return answer
        answer.close()
        # requests reads headers as Latin-1, servers send UTF-8.
        url = urljoin(url, place.encode("latin-1", "replace").decode("utf-8", "replace"))
        if not is_public(url):
            raise DownloadError(f"it redirects to {url[:200]}, which is no public https address")
    raise DownloadError(f"it redirects more than {REDIRECTS} times")


def is_public(url: str) -> bool:
    """Return whether an address is https, and its host a public name or number."""
    try:
        parts = urlsplit(url)
        host, _ = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return False
    if parts.scheme != "https":
        return False
    try:
        address = ipaddress.ip_address(host)
        return (getattr(address, "ipv4_mapped", None) or address).is_global
    except ValueError:
        pass
    labels = host.split(".")
    # A name whose last label begins with a digit is a number, such as 127.1 or 0x7f.1.
    if len(labels) == 1 or labels[-1][:1].isdigit() or PRIVATE.fullmatch(labels[-1]):
        return False
    return all(re.fullmatch(r"[^\W_]([\w-]{0,61}[^\W_])?", label) for label in labels)


def _timely(items: Queue[_Item]) -> Iterator[_Head | bytes]:
    """Yield a queue's items until None; raise DownloadError for an error or a low rate."""
    ends, count = time.monotonic() + WINDOW, 0
    while True:
        item: _Item = b""
        with suppress(Empty):
            item = items.get(timeout=max(0.0, ends - time.monotonic()))
        if item is None:
            return
        if isinstance(item, DownloadError):
            raise item
        if isinstance(item, Exception):
            raise DownloadError(_reason(item)) from item
        if isinstance(item, bytes):
            count += len(item)
        if item:
            yield item
        if time.monotonic() >= ends:
            if count < RATE * WINDOW:
                few = f"only {count} bytes came within {WINDOW:g} s"
                raise DownloadError(f"{few}; at least {RATE} a second must")
            ends, count = time.monotonic() + WINDOW, 0


def _reason(error: Exception) -> str:
    text = re.sub(r"\s+", " ", str(error))
    inner = re.findall(r"\[Errno -?\d+\] ([^'\"()]+)", text)
    return f"{type(error).__name__}: {(inner[-1] if inner else text)[:150]}".rstrip(": ")


def _append(
    part: Path, have: int, size: int | None, items: Iterator[_Head | bytes], *, progress: bool
) -> None:
    """Write an answer's blocks behind the bytes that are there."""
    from tqdm import tqdm

    head = next(items, None)
    if not isinstance(head, tuple):
        raise DownloadError("the connection was closed")
    status, length = head
    if have and status == 416:
        return  # it was whole already
    if status not in ((200, 206) if have else (200,)):
        raise DownloadError(f"the server responded with status {status}")
    if status == 200:
        have = 0  # the server sends it from the start
    stated = int(length) if re.fullmatch(r"[0-9]{1,15}", length) else None
    total, hidden = size if stated is None else have + stated, None if progress else True
    unit: dict[str, Any] = {"unit": "B", "unit_scale": True}
    bar = tqdm(desc=part.stem, total=total, initial=have, leave=False, disable=hidden, **unit)
    with bar, part.open("ab" if have else "wb") as file:
        for block in items:
            if not isinstance(block, bytes):
                continue
            file.write(block)
            bar.update(len(block))
            have += len(block)
            if have > (LARGEST if size is None else size):
                break
    if size is None and have > LARGEST:  # with a size, the check of it or of the hash refuses more
        part.unlink()
        raise DownloadError(f"it sends more than {LARGEST / 1e9:.1f} GB, and no end is in sight")
