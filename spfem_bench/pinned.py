"""Files known by their hash: found in a folder, fetched, verified. Weights and clips alike."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

from spfem_bench.definitions.clips import inside
from spfem_bench.definitions.metrics import PinnedFile
from spfem_bench.errors import StorageError, WeightsError


def cache_folder() -> Path:
    """Return the folder for fetched files and features (``SPFEM_BENCH_CACHE``)."""
    import platformdirs

    own = os.environ.get("SPFEM_BENCH_CACHE")
    return Path(own) if own else Path(platformdirs.user_cache_dir("spfem-bench"))


def named_folder(given: Path | None, variable: str) -> Path | None:
    """Return the folder given, else the one an environment variable names, else None.

    Raises:
        StorageError: the folder does not exist.
    """
    named = os.environ.get(variable)
    folder = given or (Path(named) if named else None)
    if folder is not None and not folder.is_dir():
        where = "" if given else f", named by {variable},"
        raise StorageError(f"{folder}{where} is no folder", "Check its name")
    return folder


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def find(file: PinnedFile, by_name: Iterable[Path], by_hash: Iterable[Path] = ()) -> Path | None:
    """Return where a pinned file lies.

    A file of the right name is returned even when its bytes are wrong, so that
    the caller can say so; a right one elsewhere goes before it.

    Args:
        file: what is looked for.
        by_name: folders in which it has its own name.
        by_hash: folders searched before those, whatever their files are called.
    """
    wrong = None
    for folder in by_hash:
        for path in (inside(folder, file.name), *sorted(folder.rglob("*"))):
            if path.is_file() and _is(file, path):
                return path
    for folder in (*by_hash, *by_name):
        path = inside(folder, file.name)
        if path.is_file():
            if _is(file, path):
                return path
            wrong = wrong or path
    return wrong


def _is(file: PinnedFile, path: Path) -> bool:
    same_size = file.bytes is None or file.bytes == path.stat().st_size
    return same_size and sha256_of(path) == file.sha256


def read_verified(path: Path, file: PinnedFile, remedy: str) -> bytes:
    """Return a file's bytes after checking them; what was hashed is what is used.

    Raises:
        WeightsError: the bytes are not those of the card.
    """
    content = path.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != file.sha256:
        raise WeightsError(mismatch(path, file, found), remedy)
    return content


def mismatch(path: Path, file: PinnedFile, found: str) -> str:
    """Say that a file is not the pinned one."""
    expected = file.sha256
    return f"{path} is not the pinned file: SHA-256 {found[:16]}…, expected {expected[:16]}…"


def fetch(file: PinnedFile, folder: Path, *, progress: bool) -> Path:
    """Download a pinned file into *folder* and verify it; nothing is kept if it is wrong.

    Raises:
        WeightsError: no connection, no address to fetch it from, or what came is not
            what the card says.
        StorageError: the folder cannot be written.
    """
    import pooch
    import requests

    if file.url is None:
        raise WeightsError(
            f"{file.name} is shipped with its card and cannot be fetched",
            "Install spfem-bench again",
        )
    target = inside(folder, file.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        pooch.retrieve(
            file.url,
            known_hash=f"sha256:{file.sha256}",
            fname=target.name,
            path=target.parent,
            downloader=pooch.HTTPDownloader(progressbar=progress, timeout=30),
        )
    except requests.RequestException as error:
        raise WeightsError(
            f"cannot download {file.url}: {type(error).__name__}",
            f"Without a connection, fetch it elsewhere and copy it to {target}",
        ) from error
    except ValueError as error:  # pooch: the hash differs
        raise WeightsError(
            f"{file.url} no longer holds the pinned file {file.name} (SHA-256 {file.sha256[:16]}…)",
            f"Copy a right one to {target}",
        ) from error
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    return target
