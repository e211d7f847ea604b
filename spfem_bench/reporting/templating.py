"""Templates in ``templates/``, filled in by Jinja."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def fill_template(name: str, values: Mapping[str, Any], **filters: Callable[..., str]) -> str:
    """Return a file of ``templates/`` filled in; only its own filters escape what they get."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # few commands need it

    environment = Environment(  # noqa: S701  (also Markdown: filters escape)
        loader=PackageLoader("spfem_bench.reporting"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    return environment.get_template(name).render(values)
