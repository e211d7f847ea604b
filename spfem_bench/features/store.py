"""The feature store: arrays kept under a hash of all that made them.

Files are written under a temporary name and renamed, so that several processes
may share a store and a killed one leaves nothing half-written. Each file
carries a checksum of its arrays; one that does not agree counts as absent.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spfem_bench import pinned
from spfem_bench.errors import StorageError

Arrays = dict[str, npt.NDArray[np.generic]]

FORMAT = 1
"""Raised when the same key would have to give other arrays than before."""


@dataclass(frozen=True)
class FeatureStore:
    """A folder of arrays, addressed by what made them."""

    folder: Path

    @classmethod
    def locate(cls, given: Path | None = None) -> FeatureStore:
        """Take the folder given, else ``features`` in the cache folder."""
        return cls(given or pinned.cache_folder() / "features")

    def path(self, made_of: Mapping[str, Any]) -> Path:
        """Return the file for a key: a mapping of plain JSON values."""
        text = json.dumps({"format": FORMAT, **made_of}, sort_keys=True)
        key = hashlib.sha256(text.encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.safetensors"

    def get(self, made_of: Mapping[str, Any]) -> Arrays | None:
        """Return stored arrays; None when absent or damaged (then the file is removed)."""
        from safetensors import SafetensorError, safe_open

        path = self.path(made_of)
        try:
            with safe_open(path, framework="numpy") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                checksum = (file.metadata() or {}).get("checksum")
        except FileNotFoundError:
            return None
        except (SafetensorError, OSError, ValueError):
            checksum, arrays = None, {}
        if checksum != digest(arrays):
            path.unlink(missing_ok=True)
            return None
        return arrays

    def put(self, made_of: Mapping[str, Any], arrays: Arrays) -> None:
        """Store arrays.

        Raises:
            StorageError: the folder cannot be written, or the disk is full.
        """
        from safetensors.numpy import save

        content = save(
            {name: np.ascontiguousarray(a) for name, a in arrays.items()},
            metadata={"checksum": digest(arrays), "made_of": json.dumps(made_of, sort_keys=True)},
        )
        write_atomically(self.path(made_of), content)


def digest(arrays: Arrays) -> str:
    """Return a checksum of arrays: names, shapes, types and bytes."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total.update(f"{name}{array.shape}{array.dtype}".encode())
        total.update(array.tobytes())
    return total.hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        StorageError: says whether the folder cannot be written or the disk is full.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".new-", delete=False) as file:
            temporary = file.name
            file.write(content)
        os.replace(temporary, path)  # noqa: PTH105  (atomic on every system)
    except OSError as error:
        if temporary:
            Path(temporary).unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            f"cannot write {path}: {error.strerror}",
            "Free some space, or name another folder; what is done so far is kept"
            if full
            else "Name a folder you may write to",
        ) from error
