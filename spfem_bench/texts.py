"""Text for terminals and spreadsheets, in which nothing is a command."""

from __future__ import annotations

import csv
import io
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, TextIO

_KEPT = frozenset("\n\t")
_BARS = re.compile(r"(?:\x1b\[A)+")
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?inf|[-+]?nan")
_RUN = re.compile(r"[=+\-@\t\r＝＋－＠]")


def fixed(value: float, decimals: int = 3) -> str:
    """Return a number with so many decimals, without a minus before zero.

    >>> fixed(-1e-12)
    '0.000'
    """
    return f"{round(value, decimals) + 0.0:.{decimals}f}"


def count_text(number: int, noun: str) -> str:
    """Return a number of things, the noun in the right number."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def few(names: Sequence[str]) -> str:
    """Return the first three names, with a mark where there are more."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")


def text_table(
    rows: Iterable[Sequence[object]],
    heads: Sequence[str],
    align: str = "",
    style: str = "simple",
    **more: Any,
) -> str:
    """Return texts as a table in tabulate's style; *align* has l or r for each column."""
    from tabulate import tabulate

    sides = [{"l": "left", "r": "right"}[side] for side in align] or None
    kept: dict[str, Any] = {"disable_numparse": True, "colalign": sides, **more}
    return tabulate([*rows], heads, tablefmt=style, **kept)


def visible(text: str) -> str:
    r"""Return text with escapes such as ``\u001b`` for characters that could drive a terminal."""
    if all(line.isprintable() for line in text.split("\n")):
        return text
    return "".join(c if c.isprintable() or c in _KEPT else _escape(c) for c in text)


def _escape(character: str) -> str:
    if unicodedata.category(character) == "Zs":  # a space, if no plain one
        return character
    code = ord(character)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


class VisibleStream:
    """A text stream that writes through :func:`visible`.

    tqdm's carriage returns at the beginning and moves of the cursor up are written as they are.
    """

    buffer = None  # or click writes to the stream's bytes, where these are ASCII

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; return how many characters it has."""
        start = "\r" if text.startswith("\r") else ""
        shown = text if _BARS.fullmatch(text) else start + visible(text[len(start) :])
        self._stream.write(shown)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def make_visible() -> None:
    """Replace standard output and error by :class:`VisibleStream`; print warnings as one line."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # Names of files need not be UTF-8, nor a terminal able to show them.
            stream.reconfigure(errors="backslashreplace")
        if stream is not None and not isinstance(stream, VisibleStream):
            setattr(sys, name, VisibleStream(stream))
    warnings.showwarning = _show_warning


def _show_warning(
    message: Warning | str, category: type[Warning], *_: object, **__: object
) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"{category.__name__}: {message}".replace("\n", " ") + "\n")


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as CSV; cells that a spreadsheet would run get an apostrophe before them.

    :func:`cell_text` removes it (OWASP, "CSV Injection"). None is an empty cell.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_cell(c) for c in row] for row in rows)
    return text.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    if _RUN.match(value) and not _NUMBER.fullmatch(value):
        value = f"'{value}"
    return visible(value).replace("\n", _escape("\n")).replace("\t", _escape("\t"))


def cell_text(cell: str) -> str:
    """Return the text that a cell of :func:`csv_text` was made of, but for control characters."""
    return cell[1:] if cell[:1] == "'" and _RUN.match(cell, 1) else cell
