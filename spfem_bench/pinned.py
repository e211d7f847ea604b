"""Files known by their hash, weights and clips: found in folders, fetched, verified."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

from spfem_bench import downloads, kinds
from spfem_bench.definitions.pins import PinnedFile, pin_key, pins_path, read_pins
from spfem_bench.errors import StorageError, WeightsError
from spfem_bench.files import atomic_file, inside, locked, read_file, write_atomically
from spfem_bench.hashes import known_sha256

_Report = Callable[[str], object]


def _git_blob(content: bytes) -> str:
    """Return the hash by which git knows bytes, as 40 hexadecimal digits."""
    whole = f"blob {len(content)}\0".encode() + content
    return hashlib.sha1(whole, usedforsecurity=False).hexdigest()


def file_problem(path: Path, file: PinnedFile, content: bytes | None = None) -> str | None:
    """Return why a file (or *content*, its bytes) is not a card's; None when it may be.

    Without a published hash its size, where the card states one, and its format are checked.
    """
    size = path.stat().st_size if content is None else len(content)
    if file.bytes not in (None, size):
        return f"it has {size} bytes, expected {file.bytes}"
    if file.is_pinned:
        actual = (
            (known_sha256(path) or "") if content is None else hashlib.sha256(content).hexdigest()
        )
        return None if actual == file.sha256 else _two("SHA-256", actual, file.sha256)
    content = read_file(path) if content is None else content
    if file.git_blob is not None:
        actual = _git_blob(content)
        return None if actual == file.git_blob else _two("git blob", actual, file.git_blob)
    return kinds.format_problem(file.name, content)


def _two(kind: str, actual: str, expected: str) -> str:
    return f"{kind} {actual[:16]}…, expected {expected[:16]}…"


def is_not(path: Path, file: PinnedFile, reason: str) -> str:
    """Return the sentence that a file is not the one of a card, with the reason."""
    return f"{path} is not the {'pinned' if file.is_pinned else 'published'} file: {reason}"


def find(file: PinnedFile, by_name: Iterable[Path], by_hash: Iterable[Path] = ()) -> Path | None:
    """Return where a pinned file lies, one with wrong bytes only when there is no right one.

    In the folders *by_hash*, searched first, files may have any name.
    """
    wrong = None
    for folder in by_hash:
        for path in (inside(folder, file.name), *sorted(folder.rglob("*"))):
            if path.is_file() and _is(file, path):
                return path
    for path in (inside(folder, file.name) for folder in (*by_hash, *by_name)):
        if path.is_file():
            if _is(file, path):
                return path
            wrong = wrong or path
    return wrong


def _is(file: PinnedFile, path: Path) -> bool:
    if not file.is_pinned and file.git_blob is None and path.name != Path(file.name).name:
        return False  # only its name is known
    return file_problem(path, file) is None


def pin(
    owner: str,
    file: PinnedFile,
    path: Path,
    check: Callable[[bytes], object] = lambda content: None,
) -> str:
    """Pin a file without a published SHA-256 to the bytes at *path*, and return their hash.

    *check* is called with the bytes first, and raises WeightsError for those of something else.
    Raises WeightsError for bytes that are not the card's or not those pinned, and StorageError.
    """
    content = read_file(path)  # once: the checked bytes are the pinned ones
    if problem := file_problem(path, file, content):
        again = "Remove it and fetch it again" if file.url else f"Remove it. {by_hand(file, path)}"
        raise WeightsError(is_not(path, file, problem), again)
    check(content)
    digest = hashlib.sha256(content).hexdigest()
    with locked(pins_path()):
        pins = read_pins()
        first = pins.setdefault(pin_key(owner, file), digest)
        if first != digest:
            known = file.model_copy(update={"sha256": first})
            reason = _two("SHA-256", digest, first)
            raise WeightsError(is_not(path, known, reason), "Remove it and fetch it again")
        write_atomically(pins_path(), json.dumps(pins, indent=1, sort_keys=True).encode() + b"\n")
    return digest


def read_verified(path: Path, file: PinnedFile, remedy: str) -> bytes:
    """Return a file's bytes; raise WeightsError when they are not those of the card."""
    content = read_file(path)
    actual = hashlib.sha256(content).hexdigest()
    if actual != file.sha256:
        raise WeightsError(is_not(path, file, _two("SHA-256", actual, file.sha256)), remedy)
    return content


def fetch(
    file: PinnedFile, folder: Path, *, progress: bool, report: _Report = lambda message: None
) -> Path:
    """Download a pinned file into *folder* and verify it; wrong bytes never get its name.

    One process at a time downloads a file; *report* is called with a line while another one does.
    A part (``.part``) is continued; archives stay in ``archives`` (:func:`discard_archives`).

    Raises:
        WeightsError: no connection, no address, or other bytes than the card's.
        StorageError: the folder cannot be written.
    """
    target = inside(folder, file.name)
    if file.url is None:
        problem = f"{file.name} cannot be fetched: no address is known that a program could use"
        raise WeightsError(problem, by_hand(file, target))
    if target.is_file() and _is(file, target):  # of a folder that need not be writable
        return target
    whole = target if file.member is None else folder / ARCHIVES / file.url.rpartition("/")[2]
    waiting = f"{whole.name}: another process is downloading it; waiting"
    try:
        with locked(whole, lambda: report(waiting)):
            if target.is_file() and _is(file, target):
                return target
            if file.member is None:
                _download(file, file.url, target, progress=progress)
            else:
                if not whole.is_file():
                    _download(None, file.url, whole, progress=progress)
                _extract(file, whole, target)
    except downloads.DownloadError as error:
        raise WeightsError(f"cannot download {file.url}: {error}", by_hand(file, target)) from error
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def by_hand(file: PinnedFile, target: Path) -> str:
    """Return the sentence on how to download a file elsewhere and copy it to *target*."""
    address = file.url or file.page
    member = f", take {file.member} out of it" if file.member else ""
    if address is None:
        return f"Copy it to {target}"
    alone = "Without a connection, download" if file.url else "Download"
    return f"{alone} {address} elsewhere{member}, and copy it to {target}"


def discard_archives(folder: Path) -> None:
    """Remove the archives whose members have been taken out, and nothing else."""
    for archive in (folder / ARCHIVES).glob("[!.]*"):
        if archive.suffix != PART:
            with locked(archive):  # another process may be reading it
                archive.unlink(missing_ok=True)


ARCHIVES, PART = "archives", ".part"
ZIP_ERRORS = (zipfile.BadZipFile, KeyError, NotImplementedError, RuntimeError, EOFError, zlib.error)


def _download(file: PinnedFile | None, url: str, target: Path, *, progress: bool) -> None:
    """Download to *target*, continued after its part, and check it against *file*."""
    part = target.with_name(target.name + PART)
    if file is not None and not (file.is_pinned or file.git_blob):
        part.unlink(missing_ok=True)  # no hash would notice parts of two versions
    continued = part.exists()
    try:
        downloads.receive(url, part, None if file is None else file.bytes, progress=progress)
    except OSError:
        part.unlink(missing_ok=True)  # a full disk is not made fuller
        raise
    if file is None or not (reason := file_problem(part, file)):
        os.replace(part, target)  # noqa: PTH105  (atomic on every system)
        return
    part.unlink()
    if continued:  # the part may be of another version: once more, from the start
        _download(file, url, target, progress=progress)
        return
    raise _moved(file, url, target, reason)


def _moved(file: PinnedFile, url: str, target: Path, reason: str) -> WeightsError:
    holds = "no longer holds the pinned" if file.is_pinned or file.git_blob else "does not hold the"
    return WeightsError(f"{url} {holds} file {file.name}: {reason}", by_hand(file, target))


def _extract(file: PinnedFile, archive: Path, target: Path) -> None:
    """Extract one file of a zip archive, by its name and no larger than the card states."""
    try:
        with zipfile.ZipFile(archive) as opened, opened.open(file.member or "") as member:
            content = member.read((file.bytes or 0) + 1)
    except ZIP_ERRORS as error:
        archive.unlink()
        problem = f"{file.url} is no archive that holds {file.member}"
        raise WeightsError(problem, by_hand(file, target)) from error
    if reason := file_problem(target, file, content):
        archive.unlink()
        raise _moved(file, f"{file.url}, {file.member},", target, reason)
    with atomic_file(target) as whole:
        whole.write(content)
