"""A template as one page for a browser, with its style and scripts inside and no others allowed."""

from __future__ import annotations

import base64
import hashlib
import re
import unicodedata
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from spfem_bench.reporting.tables import ARROWS
from spfem_bench.version import __version__

BETTER = {"lower": "lower is better", "higher": "higher is better", "zero": "nearer to 0 is better"}


def fill_page(template: str, *scripts: str, **values: Any) -> bytes:
    """Return a page of ``templates/`` filled in, every value escaped; *scripts* run after page.js.

    The page may load nothing from elsewhere: its policy names its own style and script alone.
    """
    style = _template("report.css")
    script = "\n".join(map(_template, ("page.js", *scripts)))
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        keep_trailing_newline=True,
    )
    page = environment.get_template(template).render(
        version=__version__,
        policy=_policy(style, script),
        style=Markup(style),  # noqa: S704  (ours)
        script=Markup(script),  # noqa: S704  (ours)
        arrows=ARROWS,
        better=BETTER,
        web=lambda link: re.fullmatch(r"https?://\S+", link) is not None,
        **values,
    )
    # Half a character, which JSON may hold, cannot be written otherwise.
    return page.encode(errors="backslashreplace")


def _template(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Return a content security policy: no script but ours runs, whatever a name holds."""
    # On a disk, ``file:`` is what ``'self'`` means to some browsers.
    return (
        f"default-src 'none'; script-src '{_csp_hash(script)}'; style-src '{_csp_hash(style)}'; "
        "img-src 'self' file:; media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _visible(value: Any) -> Any:
    """Return a value with control and direction characters, which hide text, by their numbers."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return "" if value is None else value
    return "".join(
        f"⟨U+{ord(c):04X}⟩" if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n" else c
        for c in value
    )
