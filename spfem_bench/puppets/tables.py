"""The tables that define the puppets: the CSV files in the folder ``tables``."""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

TableRow = dict[str, str]  # cells of one line by column


@cache
def read_table(name: str) -> tuple[TableRow, ...]:
    """Return a table's rows, in the file's order."""
    path = Path(__file__).parent / "tables" / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))


def numbers(row: TableRow) -> dict[str, float]:
    """Return a row's cells as numbers, without the first column."""
    return {column: float(cell) for column, cell in list(row.items())[1:]}


def outline(name: str, width: float = 1.0, **levels: float) -> npt.NDArray[np.float64]:
    """Return the control points of a shape in ``outlines.csv``: float64 (N, 2), half face widths.

    *width* is the factor of the column ``x_times_width``; *levels* are the heights that ``y`` is
    relative to, by the names in the column ``level``.
    """
    points = _outlines()[name]
    return np.array([(x + wide * width, levels.get(lv, 0.0) + y) for x, wide, y, lv in points])


@cache
def _outlines() -> dict[str, list[tuple[float, float, float, str]]]:
    outlines: dict[str, list[tuple[float, float, float, str]]] = {}
    for row in read_table("outlines"):
        point = float(row["x"]), float(row["x_times_width"]), float(row["y"]), row["level"]
        outlines.setdefault(row["outline"], []).append(point)
    return outlines
