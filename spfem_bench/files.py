"""Files that appear under their name whole or not at all."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from spfem_bench.errors import StorageError


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name whole or not at all.

    Raises:
        StorageError: says whether the folder cannot be written or the disk is full.
    """
    # Not tempfile's: a store may be shared, so files get the permissions of the umask.
    temporary = path.with_name(f".new-{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
            # Or the name may outlive the bytes where the machine itself dies.
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105  (atomic on every system)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if not isinstance(error, OSError):
            raise
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            f"cannot write {path}: {error.strerror}",
            "Free some space, or name another folder; what is done so far is kept"
            if full
            else "Name a folder you may write to",
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a small file so that it is there whole or not at all.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    with atomic_file(path) as file:
        file.write(content)


def check_writable(folder: Path) -> None:
    """Find out now, not after an hour's work, whether files can be written to a folder.

    Raises:
        StorageError: the folder cannot be made or written.
    """
    probe = folder / f".writable-{uuid.uuid4().hex}"
    try:
        write_atomically(probe, b"")
    except StorageError as error:
        raise StorageError(error.problem.replace(str(probe), str(folder)), error.remedy) from None
    probe.unlink(missing_ok=True)
