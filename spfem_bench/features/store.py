"""The feature store: arrays (safetensors) kept under a hash of all that made them.

Several processes may share a store. A file whose checksum is wrong counts as absent.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from spfem_bench import caches
from spfem_bench.errors import StorageError
from spfem_bench.files import atomic_file, check_writable, read_file

Arrays = dict[str, npt.NDArray[np.generic]]

FORMAT = 3
"""Raised when the same key would have to give other arrays than before."""


_encode = json.JSONEncoder(sort_keys=True).encode


@dataclass(frozen=True)
class FeatureStore:
    """A folder of arrays, addressed by what made them."""

    folder: Path

    @classmethod
    def locate(cls, folder: Path | None = None) -> FeatureStore:
        """Return the store in a folder, else in ``features`` of the cache folder."""
        return cls(folder or caches.cache_folder() / "features")

    def path(self, made_of: Mapping[str, Any]) -> Path:
        """Return the file for a key: a mapping of plain JSON values."""
        text = _encode({"format": FORMAT, **made_of})
        key = hashlib.sha256(text.encode()).hexdigest()
        return self.folder.joinpath(key[:2], f"{key}.safetensors")

    def has(self, made_of: Mapping[str, Any]) -> bool:
        """Return whether there are arrays under a key; they may be damaged."""
        return self.path(made_of).is_file()

    def get(self, made_of: Mapping[str, Any]) -> Arrays | None:
        """Return stored arrays, read-only; None when absent or damaged (then the file is removed).

        Raises StorageError for an unreadable entry.
        """
        path = self.path(made_of)
        try:
            status = os.stat(path)  # noqa: PTH116  (often called, and faster)
        except OSError:
            return self._read(path)  # raises the error
        identity = (path, status.st_ino, status.st_size, status.st_mtime_ns)
        arrays = _recent.get(identity)
        if arrays is None:
            arrays = self._read(path)
            if arrays is not None:
                _recent.put(identity, arrays)
        return arrays

    def _read(self, path: Path) -> Arrays | None:
        import safetensors.numpy

        try:
            content = read_file(path)
        except FileNotFoundError:
            return None
        except OSError as error:  # no damage: another user's file, or too many open ones
            problem = f"cannot read {path}: {error.strerror}"
            raise StorageError(problem, "Name a cache folder of your own") from error
        arrays: Arrays | None = None
        try:
            arrays = safetensors.numpy.load(content)
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            whole = header["__metadata__"][CHECKSUM] == arrays_digest(arrays, path.stem)
        except Exception:  # a damaged file raises many kinds
            whole = False
        if not whole or arrays is None:
            with suppress(OSError):  # a read-only store
                path.unlink()
            return None
        for array in arrays.values():
            array.flags.writeable = False
        return arrays

    def check_writable(self) -> None:
        """Raise StorageError now, not after hours, when the folder cannot be made or written."""
        check_writable(self.folder)

    def put(self, made_of: Mapping[str, Any], arrays: Arrays) -> None:
        """Store arrays; raise StorageError when they cannot be written."""
        import safetensors.numpy

        path = self.path(made_of)
        held = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        checksum = {CHECKSUM: arrays_digest(held, path.stem)}
        with atomic_file(path, self.folder) as file:
            file.write(safetensors.numpy.save(held, metadata=checksum))


class _Recent:
    """The arrays read last, up to :data:`RECENT` bytes."""

    def __init__(self) -> None:
        self._kept: dict[Hashable, Arrays] = {}
        self._bytes = 0
        self._lock = Lock()

    def get(self, identity: Hashable) -> Arrays | None:
        with self._lock:
            if identity not in self._kept:
                return None
            self._kept[identity] = self._kept.pop(identity)  # now the last used
            return dict(self._kept[identity])

    def put(self, identity: Hashable, arrays: Arrays) -> None:
        with self._lock:
            if identity in self._kept:
                return
            self._kept[identity] = dict(arrays)
            self._bytes += _size(arrays)
            while self._bytes > RECENT:
                self._bytes -= _size(self._kept.pop(next(iter(self._kept))))


def _size(arrays: Arrays) -> int:
    return sum(array.nbytes for array in arrays.values())


RECENT = 1 << 28
"""Bytes of arrays read last; 126 clips of three seconds take a third of it."""

_recent = _Recent()

CHECKSUM = "checksum"


def arrays_digest(arrays: Arrays, key: str = "") -> str:
    """Return the SHA-256 of a key and its arrays: names, shapes, types and bytes."""
    total = hashlib.sha256(key.encode())
    for name in sorted(arrays):
        array = np.asarray(arrays[name], order="C")
        total.update(f"{name}{array.shape}{array.dtype}".encode())
        total.update(array.reshape(-1).view(np.uint8).data)
    return total.hexdigest()
