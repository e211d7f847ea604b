"""What a check of reference numbers found, for readers and for scripts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from spfem_bench.evaluation.check import Change, Comparison, Difference

SHOWN = 40
"""Rows printed at most; all of them are in the JSON."""

VERDICTS = {
    "moved": "moved",
    "counts": "other counts",
    "new": "new: not in the reference",
    "missing": "missing: only in the reference",
}


def comparison_text(comparison: Comparison) -> str:
    """Return what was found: what does not hold, or the largest deviations when all holds."""
    lines = []
    if comparison.failing:
        lines += [differences_table(comparison.failing), ""]
    for protocol in dict.fromkeys(d.protocol for d in comparison.differences):
        lines.append(summary([d for d in comparison.differences if d.protocol == protocol]))
    lines += [f"not scored: {reason}" for reason in comparison.refused]
    lines += _explained(comparison)
    return "\n".join(lines)


def comparison_json(comparison: Comparison) -> dict[str, Any]:
    """Return everything that was found as plain JSON values."""
    rows = [{**asdict(d), "difference": d.by} for d in comparison.differences]
    return {
        "name": comparison.name,
        "holds": comparison.holds,
        "rows": rows,
        "changes": [asdict(c) for c in comparison.changes],
        "unversioned": list(comparison.unversioned),
        "refused": list(comparison.refused),
    }


def differences_table(
    failing: Sequence[Difference],
    sides: tuple[str, str] = ("Reference", "Here"),
    verdicts: Mapping[str, str] = VERDICTS,
) -> str:
    """Return a table of numbers that are not within their tolerance, the farthest first.

    Args:
        failing: the numbers.
        sides: headings of the two columns of numbers.
        verdicts: words for each verdict.
    """
    from tabulate import tabulate

    worst = sorted(failing, key=lambda d: -d.share)[:SHOWN]
    shown = tabulate(
        [
            [
                _name(d),
                _number(d.reference),
                _number(d.here),
                "–" if d.by is None else f"{d.by:+.2g}",
                f"{d.tolerance:.2g}",
                f"{verdicts[d.verdict]} {d.note}".rstrip(),
            ]
            for d in worst
        ],
        ["Row", *sides, "Difference", "Tolerance", "Verdict"],
        disable_numparse=True,
        colalign=("left", "right", "right", "right", "right", "left"),
    )
    rest = len(failing) - len(worst)
    return shown + (f"\n… and {rest} more, less far out (--json prints all)" if rest else "")


def _name(d: Difference) -> str:
    column = "" if d.column == "value" else f" ({d.column})"
    return f"{d.protocol}/{d.method}/{d.metric}/{d.emotion}{column}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"


def summary(rows: Sequence[Difference]) -> str:
    """Return how many rows of a protocol hold, and which lies farthest out."""
    methods = len({d.method for d in rows})
    within = [d for d in rows if d.verdict == "within"]
    counted = f"{len(rows)}" if len(within) == len(rows) else f"{len(within)} of {len(rows)}"
    line = f"{rows[0].protocol}: {counted} rows of {methods} methods hold"
    if not within:
        return line
    farthest = max(within, key=lambda d: d.share)
    share = math.ceil(farthest.share * 1000) / 1000
    return f"{line}; the farthest, {_name(farthest)}, is at {share:g} of its tolerance"


def _explained(comparison: Comparison) -> list[str]:
    """Say which settings differ, and what is to be done."""
    lines = []
    allowed = [c for c in comparison.changes if c.allowed]
    changed = [c for c in comparison.changes if not c.allowed]
    if allowed:
        what = ", ".join(f"{c.key} {_short(c.here)} (was {_short(c.reference)})" for c in allowed)
        lines.append(f"other programs than the reference's, which tolerances cover: {what}")
    lines += [f"score-changing: {change_text(c)}" for c in changed]
    for part in comparison.unversioned:
        lines.append(f"{part} is changed under its old version: raise 'version' in its card")
    if comparison.refused:
        return lines  # first the clips
    if comparison.failing and not changed:
        seen = "programs" if allowed else "code (no setting differs)"
        lines.append(f"The {seen} moved these numbers, or this kind of machine did.")
    if not comparison.holds:
        lines.append(
            "If that is meant: type 'spfem-bench check "
            f'{comparison.name} --update --reason "..."\', and note it under Score-changing in '
            "CHANGELOG.md."
        )
    return lines


def change_text(c: Change) -> str:
    """Return one setting's change in words."""
    if not c.key:
        return f"{c.part} is {'new' if c.reference is None else 'gone'}"
    return f"{c.part}: {c.key} {_short(c.reference)} -> {_short(c.here)}"


def _short(value: Any) -> str:
    """Shorten hashes and lists."""
    text = "absent" if value is None else str(value)
    if len(text) == 64 and set(text) <= set("0123456789abcdef"):
        return text[:8]
    return text if len(text) <= 160 else text[:159] + "…"
