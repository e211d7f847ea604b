"""Folders of the user: the cache, and those that variables of the environment name."""

from __future__ import annotations

import os
from pathlib import Path

from spfem_bench.errors import StorageError


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
