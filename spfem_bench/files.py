"""Files that appear under their name whole or not at all, and names as file systems have them.

A process locks its temporary files; the next one removes those without a lock. Functions that
write raise StorageError when the folder cannot be written, or the disk is full.
"""

from __future__ import annotations

import errno
import fnmatch
import glob
import os
import re
import shutil
import stat
import sys
import tempfile
import time
import unicodedata
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO

from spfem_bench.errors import CardError, ClipError, StorageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


def _lock(file: IO[bytes]) -> bool | None:
    """Lock a file until it is closed: False if another process has it, None if it has no locks."""
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES, errno.EDEADLK) else None
    return True


def _is_removed(file: IO[bytes]) -> bool:
    return os.fstat(file.fileno()).st_nlink == 0


@contextmanager
def _storage_errors(path: Path) -> Iterator[None]:
    """Turn an OSError in the block into a StorageError with its remedy."""
    try:
        yield
    except OSError as error:
        remedy = "Name a folder you may write to"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "Free some space, or name another folder; what is done so far is kept"
        raise StorageError(f"cannot write {path}: {error.strerror}", remedy) from error


@contextmanager
def locked(path: Path, waiting: Callable[[], object] | None = None) -> Iterator[None]:
    """Let one process at a time into the block, by a lock file beside *path*.

    *waiting* is called once when another process is in its block.
    """
    lock = path.with_name(f"{NEW}{path.name}.lock")
    with _storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(path.parent)
        while True:
            file = lock.open("ab")
            state = _lock(file)
            # A lock on the removed file of the process before excludes no other process.
            if state and not _is_removed(file):
                break
            file.close()
            if state is None:
                problem = f"cannot lock {lock}: its file system has no locks"
                remedy = "Name a cache folder on another disk with SPFEM_BENCH_CACHE"
                raise StorageError(problem, remedy)
            if state is False:
                if waiting is not None:
                    waiting()
                    waiting = None
                time.sleep(0.1)
    try:
        yield
    finally:
        _close_and_remove(file, lock)


def _close_and_remove(file: IO[bytes], path: Path) -> None:
    """Close a locked file and remove it; a process that waits for it opens a new one."""
    with file, suppress(OSError):
        if sys.platform == "win32":  # an open file cannot be removed there, ours or another's
            file.close()
        path.unlink()


NEW = ".new-spfem-bench-"
FOLDER = "spfem-bench-"
OWNER = ".owner"
DAY = 86_400.0  # seconds after which a temporary file is removed where the file system has no locks
_cleaned: set[Path] = set()


def remove_stale(folder: Path) -> None:
    """Remove the temporary and lock files of dead processes from a folder, once a process."""
    if folder in _cleaned:
        return
    _cleaned.add(folder)
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            name = entry.name
            if name.startswith(NEW):
                _remove_if_stale(Path(entry.path), Path(entry.path))
            elif name.startswith(FOLDER) and entry.is_dir(follow_symlinks=False):
                _remove_if_stale(Path(entry.path) / OWNER, Path(entry.path))


def _remove_if_stale(owner: Path, path: Path) -> None:
    """Remove a file or folder when no process has locked *owner*, its file or the file in it."""
    with suppress(OSError):
        if not stat.S_ISREG(owner.lstat().st_mode):
            return
        with owner.open("r+b") as file:
            state = _lock(file)
            if state is None:
                state = time.time() - os.fstat(file.fileno()).st_mtime > DAY
            if not state:
                return
            if path == owner:
                _close_and_remove(file, path)
                return
            if sys.platform == "win32":
                file.close()
            shutil.rmtree(path, ignore_errors=True)


def _create(name: Callable[[], Path]) -> tuple[Path, IO[bytes]]:
    """Create a file, by a new name, that :func:`remove_stale` keeps until it is closed."""
    while True:
        path = name()
        file = path.open("xb")
        if _lock(file) is not False and not _is_removed(file):
            return path, file
        file.close()


@contextmanager
def temporary_folder(within: Path | None = None) -> Iterator[Path]:
    """Make a folder that is removed with the block, or by a later process if this one is killed.

    It lies in *within*, by default the system's folder for temporary files.
    """
    within = within or Path(tempfile.gettempdir())
    remove_stale(within)
    with _storage_errors(within):
        path, owner = _create(lambda: Path(tempfile.mkdtemp(prefix=FOLDER, dir=within)) / OWNER)
    try:
        with owner:
            yield path.parent
    finally:
        shutil.rmtree(path.parent, ignore_errors=True)


@contextmanager
def marker(folder: Path) -> Iterator[Path]:
    """Keep an empty file in a folder, which is made, until the block is left."""
    with _storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        path, file = _create(lambda: folder / f"{NEW}{uuid.uuid4().hex}")
    try:
        yield path
    finally:
        _close_and_remove(file, path)


@contextmanager
def atomic_file(path: Path, within: Path | None = None) -> Iterator[IO[bytes]]:
    """Open a file that appears under its name whole or not at all; its folder is made.

    *within* is a folder on the same disk for the temporary file; by default the file's own.
    """
    folder = within or path.parent
    with _storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(folder)
        # Not tempfile's: a store may be shared, so files get the permissions of the umask.
        temporary, file = _create(lambda: folder / f"{NEW}{uuid.uuid4().hex}")
        try:
            with file:
                yield file
                file.flush()  # or the name may outlive the bytes where the machine itself dies
                os.fsync(file.fileno())
                if sys.platform == "win32":  # an open file cannot be renamed there
                    file.close()
                os.replace(temporary, path)  # noqa: PTH105  (atomic on every system)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write a small file whole or not at all; text as UTF-8, halves of characters escaped."""
    if isinstance(content, str):
        content = content.encode(errors="backslashreplace")
    with atomic_file(path) as file:
        file.write(content)


def read_file(path: Path) -> bytes:
    """Return a file's bytes; raise StorageError for a FIFO, a socket or a device."""
    check_ends(path)
    return path.read_bytes()


def check_ends(path: Path) -> None:
    """Raise StorageError for a FIFO, a socket or a device, which may never end."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        problem = f"{path} is a FIFO, a socket or a device"
        raise StorageError(problem, "Give a regular file: copy its content")


def check_writable(folder: Path) -> None:
    """Raise StorageError when a folder cannot be made or written."""
    with marker(folder):
        pass


def same_name(name: str) -> str:
    """Return a file's name as names are compared: NFC, suffixes of media in small letters."""
    name = unicodedata.normalize("NFC", name)
    return _MEDIA.sub(lambda suffix: suffix[0].lower(), name)


def files_by_stem(folder: Path, suffixes: Collection[str], remedy: str) -> dict[str, Path]:
    """Return a folder's files with these suffixes by their stems, as names are compared.

    Raises ClipError for no folder, with the remedy, and for two files of one name.
    """
    if not folder.is_dir():
        raise ClipError(f"{folder} is no folder", remedy)
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name[0] == ".":
            continue
        first = files.setdefault(same_name(path.stem), path)
        if first != path:
            raise ClipError(f"{folder} holds {first.name} and {path.name}", "Keep one of them")
    return files


_MEDIA = re.compile(r"(?i)\.(mp4|avi|mov|mkv|webm|png|jpe?g|bmp|wav|m4a|mp3|flac|ogg|aac)$")


class Listing:
    """The names below a folder, each of its folders read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._names: dict[str, dict[str, list[str]]] = {}

    def find(self, pattern: str) -> list[str]:
        """Return the sorted relative paths that match a pattern (:mod:`fnmatch`) as same names."""
        paths = [""]
        for part in map(same_name, pattern.split("/")):
            matches = [(parent, name) for parent in paths for name in self._matching(parent, part)]
            paths = [f"{parent}/{name}" if parent else name for parent, name in matches]
        return sorted(paths)

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


def check_name(name: str) -> None:
    """Raise CardError for a path that no file system has: NUL, wrong encoding, too long."""
    try:
        encoded = os.fsencode(name)
    except UnicodeEncodeError:
        raise CardError(f"no file can have the name {name!r}", "Write it in UTF-8") from None
    if b"\0" in encoded:
        raise CardError(f"no file can have the name {name!r}", "Remove the NUL character")
    if len(encoded) > 4096 or max(map(len, encoded.split(b"/"))) > 255:
        remedy = "Allowed: parts of 255 bytes, 4096 altogether"
        raise CardError(f"the name {name!r} is too long", remedy)


def inside(folder: Path, name: str) -> Path:
    """Return ``folder/name``; links are followed.

    Raises:
        CardError: the name is empty, absolute, or has a ``..``, a backslash, a drive or a control
            character; or see :func:`check_name`.
    """
    check_name(name)
    pure = PurePosixPath(name)
    bad = not name or pure.is_absolute() or ".." in pure.parts
    if bad or re.search(r"^[A-Za-z]:|[\\\x00-\x1f]", name):
        raise CardError(f"the name {name!r} leaves its folder", "Use a relative path without '..'")
    return folder / pure
