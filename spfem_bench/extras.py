"""Imports of packages that only some commands need (``optional-dependencies``)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from spfem_bench.errors import SpfemBenchError

Extra = Literal["networks", "parquet", "ray", "torchmetrics", "train"]


@contextmanager
def extra(name: Extra, feature: str) -> Iterator[None]:
    """Raise SpfemBenchError with the pip command for packages that are not installed.

    *feature* is an option or a noun phrase: the subject of "needs" in the error.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        problem = f"{feature} needs {package}, which is not installed"
        raise SpfemBenchError(problem, f'Type: pip install "spfem-bench[{name}]"') from error
