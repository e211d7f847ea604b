"""Figures: their look, places in inches, and equal files for equal data."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spfem_bench.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpec

INK, GREY, FAINT, RULE = "#222222", "#555555", "#9A9A9A", "#E6E6E6"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": FAINT,
    **dict.fromkeys(("xtick.color", "ytick.color"), FAINT),
    **dict.fromkeys(("xtick.labelcolor", "ytick.labelcolor", "text.color"), INK),
    **dict.fromkeys(("xtick.major.size", "ytick.major.size"), 2),
    **dict.fromkeys(("xtick.major.width", "ytick.major.width"), 0.6),
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "spfem-bench",
    "svg.fonttype": "path",
    "text.parse_math": False,  # names of files may hold '$'
}


def panel_grid(
    size: tuple[float, float],
    shape: tuple[int, int],
    margins: tuple[float, float, float, float],
    **spacing: Any,
) -> tuple[Figure, GridSpec]:
    """Return an empty figure with a grid for its panels.

    Args:
        size: width and height of the figure in inches.
        shape: rows and columns of the grid.
        margins: left, right, top and bottom of the grid in inches.
        spacing: further arguments of matplotlib's GridSpec.
    """
    from matplotlib.figure import Figure

    (width, height), (left, right, top, bottom) = size, margins
    drawing = Figure(figsize=size, facecolor="white")
    sides: dict[str, Any] = {"left": left / width, "right": 1 - right / width}
    sides |= {"top": 1 - top / height, "bottom": bottom / height}
    return drawing, drawing.add_gridspec(shape[0], shape[1], **sides, **spacing)


def write_text(drawing: Figure, place: tuple[float, float], text: str, **style: Any) -> None:
    """Write text at x and y in inches, from the right or the top where they are negative."""
    x, y = (
        1 + at / size if at < 0 else at / size
        for at, size in zip(place, drawing.get_size_inches(), strict=True)
    )
    drawing.text(x, y, text, **style)


def open_frame(axes: Axes) -> None:
    """Remove the upper and the right line of a panel."""
    axes.spines[["top", "right"]].set_visible(False)


def save_drawing(draw: Callable[[], Figure], path: Path, *, dpi: int = 150) -> None:
    """Draw a figure into a PNG, PDF or SVG, by the path's suffix.

    Raises StorageError when the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text

    kind = path.suffix[1:].lower()
    drawn = io.BytesIO()
    with rc_context(STYLE):
        # Without a date, the same data give the same bytes.
        dateless = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(kind)
        figure = draw()
        for text in figure.findobj(Text):  # names of files need not be UTF-8, drawn text must be
            text.set_text(text.get_text().encode(errors="backslashreplace").decode())
        figure.savefig(drawn, format=kind, dpi=dpi, metadata=dateless)
    write_atomically(path, drawn.getvalue())
