"""Lists of items, files and recordings, in CSV."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from spfem_bench.errors import CardError
from spfem_bench.stored import read_bounded

LARGEST_LIST = 16_000_000  # bytes; a list of forty thousand items takes a tenth of them
MOST_ROWS, MOST_COLUMNS = 100_000, 64


def read_list(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Read a CSV list: each row, after the words that name its place in messages.

    Raises CardError when the file is absent, or a row has too few or too many cells.
    """
    try:
        text = read_bounded(path, LARGEST_LIST).decode("utf-8-sig")
    except OSError as error:
        raise CardError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CardError(f"{path} is not in UTF-8: {error}") from None
    if "\0" in text:  # Python 3.10's reader stops at it, later ones let it pass
        line = text[: text.index("\0")].count("\n") + 1
        raise CardError(f"{path}, line {line}: a NUL character", "Write the list as plain text")
    rows: list[tuple[str, dict[str, str]]] = []
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise CardError(f"{where}: the number of cells differs from the header's")
            if len(rows) == MOST_ROWS or len(row) > MOST_COLUMNS:
                problem = f"{where}: the list is too large"
                raise CardError(problem, f"Allowed: {MOST_ROWS} rows of {MOST_COLUMNS} columns")
            rows.append((where, dict(row)))
    except csv.Error as error:  # a cell without end: a quotation mark that is not closed
        raise CardError(f"{path}, line {reader.line_num}: {error}") from None
    return rows
