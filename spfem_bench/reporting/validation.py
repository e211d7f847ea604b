"""A validation as a table and as a figure: metrics down, graded controls across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Literal

from spfem_bench.evaluation.claims import ClaimTest, LevelScore, number, percent
from spfem_bench.evaluation.grading import FAILED, HARDLY, SOMEWHAT
from spfem_bench.reporting.tables import ARROWS
from spfem_bench.texts import csv_text

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
    return [
        ClaimTest(
            **{
                **c,
                "points": tuple(LevelScore(**p) for p in c["points"]),
                "emotions": tuple(c["emotions"]),
            }
        )
        for c in record["cells"]
    ]


def mark(cell: ClaimTest) -> str:
    """Return a cell's verdict as one sign; empty without a claim."""
    if cell.verdict in FAILED:
        return "✗"
    return {"yes": "✓", "hardly": "✓", "somewhat": "~", "": ""}.get(cell.verdict, "?")


def verdict_words(cell: ClaimTest) -> str:
    """Return a cell's verdict, for a control to be ignored with its share."""
    return cell.verdict if cell.share is None else f"{cell.verdict} {percent(cell.share)}"


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
    """Lay cells out: rows metrics, columns controls; as CSV one row for each level.

    Args:
        cells: of one protocol and profile; for CSV of any.
        style: text, markdown or csv.
    """
    if style == "csv":
        return _csv(cells)
    from tabulate import tabulate

    controls = list(dict.fromkeys(c.control for c in cells))
    rows = []
    for metric in dict.fromkeys(c.metric for c in cells):
        row: list[str] = []
        for cell in (c for c in cells if c.metric == metric):
            row = row or [f"{cell.label}{ARROWS[cell.direction]}"]
            change = change_words(cell)
            if cell.claim == "none":
                row.append(f"({change})" if cell.points else change)
            elif style == "markdown":
                row.append(f"{change} {mark(cell)} {verdict_words(cell)}")
            else:
                row.append(f"{change}\n{mark(cell)} {verdict_words(cell)}")
        rows.append(row)
    return tabulate(
        rows,
        ["Metric", *controls],
        disable_numparse=True,
        tablefmt="github" if style == "markdown" else "simple",
        colalign=("left", *("right" for _ in controls)),
    )


def printed(record: Mapping[str, Any], style: Format = "text") -> str:
    """Return a validation as a table with its head, its legend and its signatures."""
    cells = cells_of(record)
    bullet, code = ("- ", "`") if style == "markdown" else ("", "")
    head = f"{record['protocol']['name']} ({record['protocol']['setting']}), profile "
    below = [f"{bullet}{line}" for line in LEGEND]
    below += [f"{bullet}{line}" for line in _counts(cells)]
    signatures = dict.fromkeys(c.signature for c in cells if c.points)
    below += [f"{bullet}{code}{s}{code}" for s in signatures]
    return "\n".join([f"{head}{record['profile']}", "", table(cells, style), "", *below])


def _counts(cells: Sequence[ClaimTest]) -> list[str]:
    """Say what the changes stand on, once for all controls that stand on the same."""
    said: dict[str, list[str]] = {}
    for control in dict.fromkeys(c.control for c in cells):
        own = [c for c in cells if c.control == control and c.points]
        for n_items, n_same, n_refused, emotions in dict.fromkeys(
            (c.n_items, c.n_same, c.n_refused, c.emotions) for c in own
        ):
            words = f"{n_items} clips in {len(emotions)} emotions"
            if n_same:
                words += f", {n_same} left out that it cannot change"
            if n_refused:
                words += f", {n_refused} missing or refused"
            said.setdefault(words, []).append(control)
    return [f"{', '.join(dict.fromkeys(who))}: {words}." for words, who in said.items()]


def _csv(cells: Sequence[ClaimTest]) -> str:
    rows: list[dict[str, Any]] = []
    for cell in cells:
        whole = {k: v for k, v in asdict(cell).items() if k not in ("points", "emotions")}
        whole["emotions"] = " ".join(cell.emotions)
        signature = whole.pop("signature")
        levels: list[dict[str, Any]] = [asdict(point) for point in cell.points]
        rows += [{**whole, **level, "signature": signature} for level in levels or [{}]]
    heads = list(dict.fromkeys(name for row in rows for name in row))
    return csv_text([heads, *([row.get(name) for name in heads] for row in rows)])
