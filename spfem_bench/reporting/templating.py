"""Templates in ``templates/``, filled in by Jinja."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def fill_template(name: str, values: Mapping[str, Any], **filters: Callable[..., str]) -> str:
    """Return a template as text; blocks on lines of their own leave no line behind.

    Nothing is escaped but what the template gives to a filter that escapes.

    Args:
        name: of the file in ``templates/``.
        values: by their names in the template.
        filters: by their names in the template.
    """
    environment = Environment(  # noqa: S701  (also Markdown: filters escape)
        loader=PackageLoader("spfem_bench.reporting"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= filters
    return environment.get_template(name).render(values)
