"""Files that appear under their name whole or not at all, and names as file systems have them."""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import re
import unicodedata
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


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a small file so that it is there whole or not at all.

    Args:
        path: the file.
        content: bytes, or text, which is written as UTF-8. What UTF-8 cannot hold (bytes of a
            file's name that are none) is written as a backslash escape, which a JSON reader
            turns back.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
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


def same_name(name: str) -> str:
    """Return a file's name in the form by which names are compared.

    Unicode's NFC, and the suffix of a picture, sound or video in small letters: some systems
    write ``é`` as two characters, cameras write ``.MP4``.

    >>> same_name("cafe\u0301.MP4") == "caf\u00e9.mp4"
    True
    """
    name = unicodedata.normalize("NFC", name)
    return re.sub(rf"(?i)\.({'|'.join(_MEDIA)})$", lambda suffix: suffix[0].lower(), name)


_MEDIA = ("mp4", "avi", "mov", "mkv", "webm", "png", "jpe?g", "bmp",
          "wav", "m4a", "mp3", "flac", "ogg", "aac")  # fmt: skip


class Listing:
    """The names below a folder, each of its folders read once.

    Args:
        folder: that is listed; it may be absent.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, dict[str, list[str]]] = {}

    def find(self, pattern: str) -> list[str]:
        """Return what matches a pattern, relative to the folder, sorted.

        Names match as :func:`same_name` has them.

        Args:
            pattern: a relative path whose parts, separated by ``/``, are in the syntax of
                :mod:`fnmatch`; :func:`glob.escape` makes one of a plain name.
        """
        found = [""]
        for part in map(same_name, pattern.split("/")):
            found = [
                f"{parent}/{name}" if parent else name
                for parent in found
                for name in self._matching(parent, part)
            ]
        return sorted(found)

    def _matching(self, parent: str, part: str) -> list[str]:
        names = self._in(parent)
        if not glob.has_magic(part):  # or a search would take the square of the number of names
            return names.get(part, [])
        shape = re.compile(fnmatch.translate(part))
        return [name for key in names if shape.match(key) for name in names[key]]

    def _in(self, parent: str) -> dict[str, list[str]]:
        """Return the names in one folder by their :func:`same_name`; none when it is no folder."""
        if parent not in self._names:
            names: dict[str, list[str]] = {}
            with suppress(OSError):
                for path in (self.folder / parent).iterdir():
                    names.setdefault(same_name(path.name), []).append(path.name)
            self._names[parent] = names
        return self._names[parent]
