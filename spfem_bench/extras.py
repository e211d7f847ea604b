"""Imports of packages that only some commands need (``optional-dependencies``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from spfem_bench.errors import SpfemBenchError

Extra = Literal["networks", "ray", "train"]


@contextmanager
def extra(name: Extra, feature: str) -> Iterator[None]:
    """Turn a missing package into an error with the pip command that installs it.

    Args:
        name: the extra in ``pyproject.toml`` with the packages imported in the block.
        feature: an option or a noun phrase: the subject of "needs" in the error.

    Raises:
        SpfemBenchError: a package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        raise SpfemBenchError(
            f"{feature} needs {package}, which is not installed",
            f'Type: pip install "spfem-bench[{name}]"',
        ) from error
