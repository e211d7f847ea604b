"""A validation as a table: metrics down, graded controls across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from spfem_bench.evaluation.claims import ClaimTest, LevelScore, number, percent
from spfem_bench.evaluation.grading import FAILED, HARDLY, SOMEWHAT
from spfem_bench.reporting.tables import ARROWS
from spfem_bench.texts import csv_text, text_table

Format = Literal["text", "markdown", "csv"]

LEGEND = (
    "Change from the real clip to the strongest level; ▾ worse, ▴ better, beyond noise (paired "
    "95 % interval over clips).",
    "Must feel: ✓ yes, or ✗ and what goes wrong. Must ignore: ✓ hardly (its largest move is below "
    f"{100 * HARDLY:.0f} % of the metric's largest claimed move), ~ somewhat (below "
    f"{100 * SOMEWHAT:.0f} %), "
    "✗ moves. In brackets: no claim.",
)


def cells_of(record: Mapping[str, Any]) -> list[ClaimTest]:
    """Return the cells of a validation's record."""
    cells = []
    for cell in record["cells"]:
        points = tuple(LevelScore(**point) for point in cell["points"])
        cells.append(ClaimTest(**{**cell, "points": points, "emotions": tuple(cell["emotions"])}))
    return cells


def verdict_words(cell: ClaimTest) -> str:
    """Return a cell's sign and verdict, with the share of a control that should be ignored."""
    signs = {"yes": "✓", "hardly": "✓", "somewhat": "~", "": ""}
    sign = "✗" if cell.verdict in FAILED else signs.get(cell.verdict, "?")
    share = "" if cell.share is None else percent(cell.share)
    return " ".join(filter(None, [sign, cell.verdict, share]))


def change_words(cell: ClaimTest) -> str:
    """Return the change at the strongest level, with an arrow when it is beyond noise."""
    if not cell.points:
        return "–"
    last = cell.points[-1]
    low, high = last.change_low, last.change_high
    arrow = ""
    if number(last.change) != "0" and low is not None and high is not None and low * high > 0:
        worse = (last.change > 0) == (cell.direction == "lower")
        arrow = "" if cell.direction == "zero" else " ▾" if worse else " ▴"
    return number(last.change) + arrow


def table(cells: Sequence[ClaimTest], style: Format = "text") -> str:
    """Lay out cells of one protocol and profile: metrics down; as CSV, of any, a line a level."""
    if style == "csv":
        return _csv(cells)
    controls = list(dict.fromkeys(c.control for c in cells))
    rows: dict[str, list[str]] = {}
    for cell in cells:
        row = rows.setdefault(cell.metric, [f"{cell.label}{ARROWS[cell.direction]}"])
        change = change_words(cell)
        if cell.claim == "none":
            row.append(f"({change})" if cell.points else change)
        else:
            row.append(f"{change}{' ' if style == 'markdown' else chr(10)}{verdict_words(cell)}")
    look = "github" if style == "markdown" else "simple"
    return text_table(rows.values(), ["Metric", *controls], "l" + "r" * len(controls), look)


def printed(record: Mapping[str, Any], style: Format = "text") -> str:
    """Return a validation as a table with its head, its legend and its signatures."""
    cells = cells_of(record)
    bullet, code = ("- ", "`") if style == "markdown" else ("", "")
    protocol = record["protocol"]
    head = f"{protocol['name']} ({protocol['setting']}), profile {record['profile']}"
    signatures = dict.fromkeys(c.signature for c in cells if c.points)
    below = [*LEGEND, *_counts(cells), *(f"{code}{s}{code}" for s in signatures)]
    return "\n".join([head, "", table(cells, style), "", *(f"{bullet}{line}" for line in below)])


def _counts(cells: Sequence[ClaimTest]) -> list[str]:
    """Return the clips behind the changes, once for all controls with the same counts."""
    controls: dict[str, dict[str, None]] = {}
    order = list(dict.fromkeys(c.control for c in cells))
    for cell in sorted((c for c in cells if c.points), key=lambda c: order.index(c.control)):
        words = f"{cell.n_items} clips in {len(cell.emotions)} emotions"
        if cell.n_same:
            words += f", {cell.n_same} left out that it cannot change"
        if cell.n_refused:
            words += f", {cell.n_refused} missing or refused"
        controls.setdefault(words, {})[cell.control] = None
    return [f"{', '.join(names)}: {words}." for words, names in controls.items()]


def _csv(cells: Sequence[ClaimTest]) -> str:
    rows: list[dict[str, Any]] = []
    for cell in cells:
        whole = asdict(cell) | {"emotions": " ".join(cell.emotions)}
        signature, emotions = whole.pop("signature"), whole.pop("emotions")
        levels = whole.pop("points")
        for level in levels or [{}]:
            rows.append({**whole, "emotions": emotions, **level, "signature": signature})
    heads = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text([heads, *([row.get(name) for name in heads] for row in rows)])
