"""The user's folders: the cache, and those that environment variables name."""

from __future__ import annotations

import os
from pathlib import Path

from spfem_bench.errors import StorageError


def cache_folder() -> Path:
    """Return the folder for fetched files and features (``SPFEM_BENCH_CACHE``)."""
    import platformdirs

    own = os.environ.get("SPFEM_BENCH_CACHE")
    return Path(own) if own else Path(platformdirs.user_cache_dir("spfem-bench"))


def named_folder(folder: Path | None, variable: str) -> Path | None:
    """Return *folder*, else the one of a variable, else None; raise StorageError if absent."""
    named, where = os.environ.get(variable), ""
    if folder is None and named:
        folder, where = Path(named), f", named by {variable},"
    if folder is not None and not folder.is_dir():
        raise StorageError(f"{folder}{where} is no folder", "Check its name")
    return folder
