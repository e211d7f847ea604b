"""Files known by their hash: found in a folder, fetched, verified. Weights and clips alike."""

from __future__ import annotations

import hashlib
import json
import os
import re
import zipfile
import zlib
from collections.abc import Container, Iterable
from pathlib import Path

from spfem_bench.definitions.clips import inside
from spfem_bench.definitions.metrics import PinnedFile
from spfem_bench.errors import StorageError, WeightsError
from spfem_bench.files import atomic_file, write_atomically
from spfem_bench.stored import parse_json, read_bounded

BLOCK = 1 << 20


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
        while block := stream.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def known_sha256(path: Path) -> str:
    """Return a file's SHA-256; it is read again when its size, its number or a time change.

    The time of the last change (ctime) is the one that a program cannot set.
    """
    status = path.stat()
    identity = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    known = _hashes.get(path)
    if known is None or known[0] != identity:
        trust({path: (known := (identity, sha256_of(path)))})
    return known[1]


Hashes = dict[Path, tuple[tuple[int, ...], str]]
"""Files' sizes, times and numbers, with their SHA-256."""

_hashes: Hashes = {}


def hashes_known(of: Container[Path | None]) -> Hashes:
    """Return what is known of files, and of files in folders, for another process to trust."""
    return {p: known for p, known in list(_hashes.items()) if p in of or p.parent in of}


def trust(hashes: Hashes) -> None:
    """Take the hashes of files that another process has read, for as long as these stay so."""
    _hashes.update(hashes)
    while len(_hashes) > MOST_HASHES:
        _hashes.pop(next(iter(_hashes)), None)


MOST_HASHES = 100_000


def _git_blob(content: bytes) -> str:
    """Return the hash by which git knows bytes, as 40 hexadecimal digits."""
    whole = f"blob {len(content)}\0".encode() + content
    return hashlib.sha1(whole, usedforsecurity=False).hexdigest()


def is_published(path: Path, file: PinnedFile) -> bool:
    """Say whether a file may be the one that is published, by git's hash where that is known."""
    return file.git_blob is None or _git_blob(path.read_bytes()) == file.git_blob


def not_published(path: Path, file: PinnedFile) -> str:
    """Say that a file is not the one whose hash a git repository publishes."""
    found = _git_blob(path.read_bytes())
    return (
        f"{path} is not the published file: git blob {found[:16]}…, expected "
        f"{(file.git_blob or '')[:16]}…"
    )


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
    if file.bytes is not None and file.bytes != path.stat().st_size:
        return False
    if file.is_pinned:
        return known_sha256(path) == file.sha256
    if file.git_blob is not None:
        return is_published(path, file)
    return path.name == Path(file.name).name  # nothing else is known of it yet


# ---- hashes that nobody publishes: what came first is what counts --------------------------


def pins_path() -> Path:
    """Return the file that keeps the hashes of files pinned when they were first fetched."""
    return cache_folder() / "weights" / "pins.json"


def _pins() -> dict[str, str]:
    try:
        found = parse_json(read_bounded(pins_path()))
        if not all(re.fullmatch(r"[0-9a-f]{64}", str(pin)) for pin in found.values()):
            raise ValueError("a pin that is no SHA-256")
        return found
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{pins_path()} is damaged", "Remove it, then fetch those weights again"
        ) from error


def _key(owner: str, file: PinnedFile) -> str:
    """Return what a pin is kept under: a card that names another file needs another pin."""
    return f"{owner}/{file.name} of {file.git_blob or file.url or file.page}"


def with_pin(owner: str, file: PinnedFile) -> PinnedFile:
    """Return a file with the hash it was pinned to; unchanged when it has one or has no pin.

    Args:
        owner: the name of the network's card.
        file: one of its files.
    """
    known = None if file.is_pinned else _pins().get(_key(owner, file))
    return file.model_copy(update={"sha256": known}) if known else file


def pin(owner: str, file: PinnedFile, path: Path) -> str:
    """Pin a file without a published SHA-256 to the bytes at *path*, and return their hash.

    Raises:
        WeightsError: a hash of another kind is published, and the bytes are not those.
        StorageError: the file of pins cannot be written.
    """
    content = path.read_bytes()  # once: what was compared is what is pinned
    if file.git_blob is not None and _git_blob(content) != file.git_blob:
        raise WeightsError(not_published(path, file), "Remove it and fetch it again")
    digest = hashlib.sha256(content).hexdigest()
    pins = {**_pins(), _key(owner, file): digest}
    write_atomically(pins_path(), json.dumps(pins, indent=1, sort_keys=True).encode() + b"\n")
    return digest


# ---- checking and fetching -----------------------------------------------------------------


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
    """Download a pinned file into *folder* and verify it; nothing is kept under its name if wrong.

    What was downloaded before a connection broke is kept beside it (``.part``) and continued.
    An archive stays in ``archives`` for its other members (:func:`discard_archives`).

    Raises:
        WeightsError: no connection, no address to fetch it from, or what came is not
            what the card says.
        StorageError: the folder cannot be written.
    """
    import requests

    target = inside(folder, file.name)
    if file.url is None:
        raise WeightsError(
            f"{file.name} cannot be fetched: no address is known that a program could use",
            by_hand(file, target),
        )
    if target.is_file() and _is(file, target):
        return target
    try:
        if file.member is None:
            _download(file, file.url, target, progress=progress)
        else:
            archive = _archives(folder) / file.url.rpartition("/")[2]
            if not archive.is_file():
                _download(None, file.url, archive, progress=progress)
            _extract(file, archive, target)
    except requests.RequestException as error:
        raise WeightsError(
            f"cannot download {file.url}: {type(error).__name__}", by_hand(file, target)
        ) from error
    except OSError as error:
        raise StorageError(f"cannot write {target}: {error.strerror or error}") from error
    return target


def by_hand(file: PinnedFile, target: Path) -> str:
    """Say what a person without a connection here downloads, from where, and where it goes."""
    address = file.url or file.page
    member = f", take {file.member} out of it" if file.member else ""
    if address is None:
        return f"Copy it to {target}"
    alone = "Without a connection, download" if file.url else "Download"
    return f"{alone} {address} elsewhere{member}, and copy it to {target}"


def _archives(folder: Path) -> Path:
    return folder / "archives"


def discard_archives(folder: Path) -> None:
    """Remove the archives whose members have been taken out, and nothing else."""
    for archive in _archives(folder).glob("*"):
        if archive.suffix != PART:
            archive.unlink(missing_ok=True)


PART = ".part"
LARGEST = 2 << 30
"""Bytes that a download of unknown size may have."""


def _download(file: PinnedFile | None, url: str, target: Path, *, progress: bool) -> None:
    """Download to *target*, going on from what is there; checked against *file* when given.

    Raises:
        requests.RequestException: no connection, or the server refuses; what came is kept.
        WeightsError: other bytes than *file* says came, also on a second try from the start.
        OSError: the folder cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + PART)
    continued = part.exists()
    try:
        _receive(url, part, None if file is None else file.bytes, progress=progress)
    except OSError as error:
        import requests

        if not isinstance(error, requests.RequestException):  # those are OSErrors, too
            part.unlink(missing_ok=True)  # a full disk is not made fuller
        raise
    if file is None or _is_named(file, part):
        os.replace(part, target)  # noqa: PTH105  (atomic on every system)
        return
    part.unlink()
    if continued:  # perhaps the address gave other bytes then: once more, from the start
        _download(file, url, target, progress=progress)
        return
    raise _moved(file, url, target)


def _is_named(file: PinnedFile, part: Path) -> bool:
    """Say whether a file under a temporary name is the pinned one; anything is, without a hash."""
    return not (file.is_pinned or file.git_blob) or _is(file, part)


def _moved(file: PinnedFile, url: str, target: Path) -> WeightsError:
    known = f"SHA-256 {file.sha256[:16]}" if file.is_pinned else f"git blob {file.git_blob}"
    return WeightsError(
        f"{url} no longer holds the pinned file {file.name} ({known}…)",
        f"Copy a right one to {target}",
    )


def _receive(url: str, part: Path, size: int | None, *, progress: bool) -> None:
    import requests
    from tqdm import tqdm

    have = part.stat().st_size if part.exists() else 0
    # identity: bytes counted here are bytes of the file.
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
        if have and answer.status_code == requests.codes.requested_range_not_satisfiable:
            return  # it was whole already
        answer.raise_for_status()
        if answer.status_code != requests.codes.partial_content:
            have = 0  # the server sends it from the start
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else size
        bar = tqdm(
            total=total, initial=have, unit="B", unit_scale=True, desc=part.stem,
            disable=None if progress else True, leave=False,
        )  # fmt: skip
        with bar, part.open("ab" if have else "wb") as file:
            for block in answer.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
                have += len(block)
                if size is not None and have > size:
                    return  # more than the card says: its hash will not be right
                if have > LARGEST:
                    part.unlink()
                    raise WeightsError(
                        f"{url} sends more than {LARGEST / 1e9:.1f} GB, and no end is in sight",
                        "Look at the address with a browser",
                    )


def _extract(file: PinnedFile, archive: Path, target: Path) -> None:
    """Take one file out of a zip archive, by its name and no larger than the card says.

    Raises:
        WeightsError: the archive is damaged, or holds no such file; it is removed.
    """
    try:
        with zipfile.ZipFile(archive) as found, found.open(file.member or "") as member:
            content = member.read((file.bytes or 0) + 1)
    except (
        zipfile.BadZipFile,
        KeyError,
        NotImplementedError,
        RuntimeError,
        EOFError,
        zlib.error,
    ) as error:
        archive.unlink()
        raise WeightsError(
            f"{file.url} is no archive that holds {file.member}", by_hand(file, target)
        ) from error
    if hashlib.sha256(content).hexdigest() != file.sha256:
        archive.unlink()
        raise _moved(file, f"{file.url}, {file.member},", target)
    with atomic_file(target) as whole:
        whole.write(content)
