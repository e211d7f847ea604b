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
        name: the extra in ``pyproject.toml`` that lists the packages imported in the block.
        feature: what needs them, for the error: an option, or a noun phrase.

    Raises:
        SpfemBenchError: a package is not installed.

    >>> with extra("networks", "the profile light"):
    ...     import no_such_package
    Traceback (most recent call last):
    ...
    spfem_bench.errors.SpfemBenchError: the profile light needs no_such_package, which is not \
installed. Type: pip install "spfem-bench[networks]"
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "a package").partition(".")[0]
        raise SpfemBenchError(
            f"{feature} needs {package}, which is not installed",
            f'Type: pip install "spfem-bench[{name}]"',
        ) from error
