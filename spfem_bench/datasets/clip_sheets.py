"""Sheets (CSV) that say of outputs whose they are and which other clips belong to them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from spfem_bench.definitions.lists import read_list
from spfem_bench.errors import CardError, near_names
from spfem_bench.media.video import VIDEO_SUFFIXES
from spfem_bench.texts import cell_text

_NAMED = ("generated", "name", "file")
_COLUMNS = ("speaker", "emotion", "source", "reference", "real")


@dataclass
class ClipSheet:
    """Rows by the output's name as written; ``matched`` are the outputs that rows were found for.

    Names are below the folders that were given, with or without ending.
    """

    path: Path
    rows: list[tuple[str, dict[str, str]]]
    matched: set[str] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> ClipSheet:
        """Read a sheet; raise CardError when a column is missing or unknown, or it is empty."""
        listed = read_list(path)
        if not listed:
            raise CardError(f"{path}: no rows", f"Write a header: generated,{','.join(_COLUMNS)}")
        columns = [column for column in listed[0][1] if column is not None]
        named = next((column for column in _NAMED if column in columns), None)
        if named is None:
            problem = f"{path}: no column names the outputs; it has {', '.join(columns)}"
            remedy = f"Call it {' or '.join(_NAMED)}"
            if len(columns) == 1 and re.search(r"[;\t]", columns[0]):
                remedy = "Separate cells by commas"
            raise CardError(problem, remedy)
        rest = [column for column in columns if column != named]
        for column in rest:
            if column not in _COLUMNS:
                raise CardError(f"{path}: unknown column '{column}'", near_names(column, _COLUMNS))
        if not rest:
            raise CardError(f"{path}: says nothing of its outputs", near_names("", _COLUMNS))
        rows = []
        for _, row in listed:
            cells = {key: cell_text(value).strip() for key, value in row.items()}
            rows.append((cells[named], {key: cells[key] for key in rest}))
        return cls(path, rows)

    @staticmethod
    def stem(written: str) -> str:
        """Return a name without the ending of a video."""
        path = PurePosixPath(written.replace("\\", "/"))
        return str(path.with_suffix("")) if path.suffix.lower() in VIDEO_SUFFIXES else str(path)
