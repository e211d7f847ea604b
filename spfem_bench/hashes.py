"""SHA-256 of files, remembered while a file does not change."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Container
from pathlib import Path

BLOCK = 1 << 20
MOST_HASHES = 1_000_000  # 400 bytes each; files beyond are read again and again


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def known_sha256(path: Path) -> str | None:
    """Return a file's SHA-256; it is read again when its size, its number or a time changes.

    None for anything but a regular file: reading a pipe might never end.
    """
    status = os.stat(path)  # noqa: PTH116  (often called, and faster)
    if not stat.S_ISREG(status.st_mode):
        return None
    identity = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    known = _hashes.get(path)
    if known is None or known[0] != identity:
        trust({path: (known := (identity, sha256_of(path)))})
    return known[1]


Hashes = dict[Path, tuple[tuple[int, ...], str]]  # sizes, times and numbers, with SHA-256


_hashes: Hashes = {}


def hashes_known(of: Container[Path | None]) -> Hashes:
    """Return the known hashes of files, or of files in folders, for another process to trust."""
    return {p: known for p, known in list(_hashes.items()) if p in of or p.parent in of}


def trust(hashes: Hashes) -> None:
    """Take over the hashes of files that another process has read, while these stay unchanged."""
    _hashes.update(hashes)
    while len(_hashes) > MOST_HASHES:
        _hashes.pop(next(iter(_hashes)), None)
