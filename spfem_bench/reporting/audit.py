"""An audit of printed tables as text, Markdown or CSV."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from spfem_bench.analysis import auditing
from spfem_bench.analysis.auditing import SIGNIFICANT, Audit, Disagreement
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.reporting.grids import markdown_escape, one_line
from spfem_bench.texts import csv_text, text_table

_TITLE = """# Audit of printed tables

Made by `spfem-bench audit --format markdown`, on the digits as printed."""

_DIGITS = f"at least {SIGNIFICANT} digits"
_REPEATS = {
    "series": ("Rows equal to another method's", "Whole rows of one metric."),
    "column": (
        "Emotions equal in all metrics",
        "Two columns of one method, such as an emotion copied from the average.",
    ),
    "methods": (
        "Cells equal between two methods on one backbone",
        "Tables pooled; a few are expected among numbers that lie close.",
    ),
    "row": ("Equal numbers within one row", f"With {_DIGITS}, the average included."),
    "scattered": (
        "Equal numbers in other places of one table",
        f"Different methods, with {_DIGITS}; chance alone makes some.",
    ),
}


def audit_csv(audit: Audit) -> str:
    """Return one finding a line: check, where, beside, printed, other, note."""
    return csv_text([("check", "where", "beside", "printed", "other", "note"), *_findings(audit)])


def _findings(audit: Audit) -> Iterator[tuple[str, ...]]:
    for a in audit.averages:
        note = f"off by {a.off:+.4f}" + (f"; {a.explained} may explain it" if a.explained else "")
        yield "average", str(a.series), "", str(a.printed), f"{a.mean:.4f}", note
    for d in audit.disagreements:
        cells = f"{d.series} {d.emotion}", f"{d.other} {d.emotion}"
        yield "disagreement", *cells, str(d.value), str(d.other_value), _difference(d)
    for text in audit.wrong_sums:
        yield "sum", text, "", "", "100", ""
    for r in audit.repeats:
        yield f"repeat-{r.kind}", r.first, r.second, r.values, r.values, ""
    for x in audit.losses:
        if x.emotions:
            counts = str(len(x.emotions)), str(x.cells)
            yield "loss", str(x.series), x.baseline, *counts, " ".join(x.emotions)
    for v in audit.variants:
        if v.near_duplicate:
            gains = " ".join(f"{g:.4f}" for g in v.gains)
            numbers = f"{v.distance:.4f}", gains, f"r {v.correlation:.3f}"
            yield "near-duplicate", str(v.first), str(v.second), *numbers


def _difference(d: Disagreement) -> str:
    exactly = ", exactly" if abs(d.off) == 1 else ""
    which = d.fits if d.fits in ("", "both", "neither") else f"the {d.fits}"
    return f"off by {d.off:+}{exactly}" + (f"; the averages follow from {which}" if which else "")


class _Section(NamedTuple):
    title: str
    answer: str
    heads: tuple[str, ...] = ()
    lines: Sequence[tuple[str, ...]] = ()


def audit_text(audit: Audit, *, markdown: bool = False) -> str:
    """Return the whole audit as text or Markdown, contradictions first."""
    parts = [_TITLE] if markdown else []
    escape = markdown_escape if markdown else one_line
    for section in _sections(audit):
        title = f"## {section.title}" if markdown else section.title.upper()
        lines = [title, "", section.answer]
        if section.lines:
            style = "github" if markdown else "simple"
            body = [list(map(escape, line)) for line in section.lines]
            lines += ["", text_table(body, section.heads, style=style)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _sections(audit: Audit) -> Iterator[_Section]:
    n_numbers = sum(n for _, n in audit.tables)
    yield _Section(
        "Tables",
        f"{n_numbers} numbers; {audit.contradictions} contradictions.",
        ("table", "numbers"),
        [(name, str(n)) for name, n in audit.tables],
    )
    n_right = audit.n_averages - len(audit.averages)
    yield _Section(
        "Averages that do not follow from their rows",
        f"Of {audit.n_averages} averages {n_right} are the mean of their row, rounded to the "
        "printed decimals.",
        ("row", "printed", "mean", "printed - mean", "may be explained by"),
        [
            (str(a.series), str(a.printed), f"{a.mean:.4f}", f"{a.off:+.4f}", a.explained or "–")
            for a in audit.averages
        ],
    )
    disagreements = [
        (f"{d.series} {d.emotion}", f"{d.value}", f"{d.other_value}", f"{d.other}", _difference(d))
        for d in audit.disagreements
    ]
    yield _Section(
        "Cells that disagree between tables",
        f"{audit.n_shared} pairs of equal cells; {len(audit.disagreements)} disagree, "
        f"{len(audit.other_decimals)} are equal but printed with other decimals.",
        ("cell", "first", "second", "in", "what"),
        disagreements,
    )
    equal, sums = "Equal, with other decimals", "Preferences that do not sum to 100"
    for title, items in ((equal, audit.other_decimals), (sums, audit.wrong_sums)):
        if items:
            yield _Section(title, "\n".join(f"- {item}" for item in items))
    for kind, (title, answer) in _REPEATS.items():
        lines = [(r.first, r.second, r.values) for r in audit.repeats if r.kind == kind]
        counted = f"{answer} {len(lines) or 'None'} found."
        yield _Section(title, counted, ("cell", "cell", "value"), lines)
    yield _losses(audit)
    near = [v for v in audit.variants if v.near_duplicate]
    rows = []
    for v in near:
        gains = f"{v.gains[0]:.4f}, {v.gains[1]:.4f}"
        numbers = (f"{v.distance:.4f}", f"{v.largest:.3f}", gains, f"{v.correlation:.3f}")
        rows.append((str(v.first), str(v.second), *numbers))
    yield _Section(
        "Near-duplicate rows",
        f"{len(near)} of {len(audit.variants)} pairs of variants of one backbone: their gains "
        f"over the baseline correlate by more than {auditing.NEAR_CORRELATION}, and they differ by "
        f"less than {auditing.NEAR_SHARE:.0%} of both gains (means of absolute differences over "
        "emotions).",
        ("row", "row", "difference", "largest", "gains", "r"),
        rows,
    )


def _losses(audit: Audit) -> _Section:
    rows = [loss for loss in audit.losses if loss.cells > 1]
    alone = [loss for loss in audit.losses if loss.cells == 1]
    worse, cells = sum(len(x.emotions) for x in rows), sum(x.cells for x in rows)
    averages = sum(AVERAGE in x.emotions for x in rows)
    n_alone = sum(len(x.emotions) for x in alone)
    return _Section(
        "Where the proposal is worse than its own baseline",
        f"{worse} of {cells} cells in rows that print emotions; {averages} of them are averages."
        + (f" Of rows with an average alone: {n_alone} of {len(alone)}." if alone else "")
        + " The baseline is the same table's.",
        ("row", "baseline", "worse", "of", "emotions"),
        tuple(
            (str(x.series), x.baseline, f"{len(x.emotions)}", f"{x.cells}", ", ".join(x.emotions))
            for x in audit.losses
            if x.emotions
        ),
    )
