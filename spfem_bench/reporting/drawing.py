"""What the project's figures share: their look, and that equal data give equal files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spfem_bench.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, FAINT = "#222222", "#9A9A9A"

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.linewidth": 0.6,
    "axes.edgecolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "text.color": INK,
    "xtick.major.size": 2,
    "ytick.major.size": 2,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "hatch.linewidth": 0.5,
    "svg.hashsalt": "spfem-bench",
    "svg.fonttype": "path",
    "text.parse_math": False,  # names of files may hold '$'
}


def save_drawing(draw: Callable[[], Figure], path: Path, *, dpi: int = 150) -> None:
    """Draw a figure into a PNG, PDF or SVG, by the path's suffix.

    Raises:
        StorageError: the file cannot be written.
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
