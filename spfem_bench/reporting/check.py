"""Checks of reference numbers as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from spfem_bench.evaluation.check import ReferenceCheck, RowChange, SettingChange
from spfem_bench.texts import text_table

SHOWN = 40  # rows printed at most; all of them are in the JSON
VERDICTS = {
    "moved": "moved",
    "counts": "other counts",
    "new": "new: not in the reference",
    "missing": "missing: only in the reference",
}


def check_text(check: ReferenceCheck) -> str:
    """Return what does not hold, or the largest deviations when all holds."""
    lines = [rows_table(check.failing), ""] if check.failing else []
    for protocol in dict.fromkeys(d.protocol for d in check.rows):
        lines.append(summary([d for d in check.rows if d.protocol == protocol]))
    lines += [f"not scored: {reason}" for reason in check.refused]
    lines += _explained(check)
    return "\n".join(lines)


def check_json(check: ReferenceCheck) -> dict[str, Any]:
    """Return a check as plain JSON values."""
    rows = [{**asdict(d), "difference": d.by} for d in check.rows]
    changes = [asdict(c) for c in check.changes]
    content = {"name": check.name, "holds": check.holds, "rows": rows, "changes": changes}
    return {**content, "unversioned": [*check.unversioned], "refused": [*check.refused]}


def rows_table(
    failing: Sequence[RowChange],
    sides: tuple[str, str] = ("Reference", "Here"),
    verdicts: Mapping[str, str] = VERDICTS,
) -> str:
    """Return a table of numbers that are not within their tolerance, the farthest first."""
    worst = sorted(failing, key=lambda d: -d.share)[:SHOWN]
    lines = []
    for d in worst:
        by = "–" if d.by is None else f"{d.by:+.2g}"
        verdict = f"{verdicts[d.verdict]} {d.note}".rstrip()
        values = (_number(d.reference), _number(d.here))
        lines.append([_name(d), *values, by, f"{d.tolerance:.2g}", verdict])
    heads = ["Row", *sides, "Difference", "Tolerance", "Verdict"]
    shown = text_table(lines, heads, "lrrrrl")
    rest = len(failing) - len(worst)
    return shown + (f"\n… and {rest} more, less far out (--json prints all)" if rest else "")


def _name(d: RowChange) -> str:
    column = "" if d.column == "value" else f" ({d.column})"
    return f"{d.protocol}/{d.method}/{d.metric}/{d.emotion}{column}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.6g}"


def summary(rows: Sequence[RowChange]) -> str:
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


def _explained(check: ReferenceCheck) -> list[str]:
    """Return which settings differ, and what is to be done."""
    lines = []
    allowed = [c for c in check.changes if c.allowed]
    changed = [c for c in check.changes if not c.allowed]
    if allowed:
        programs = [f"{c.key} {_short(c.here)} (was {_short(c.reference)})" for c in allowed]
        covered = "other programs than the reference's, which tolerances cover"
        lines.append(f"{covered}: {', '.join(programs)}")
    lines += [f"score-changing: {change_text(c)}" for c in changed]
    for part in check.unversioned:
        lines.append(f"{part} is changed under its old version: raise 'version' in its card")
    if check.refused:
        return lines  # first the clips
    if check.failing and not changed:
        cause = "programs" if allowed else "code (no setting differs)"
        lines.append(f"The {cause} moved these numbers, or this kind of machine did.")
    if not check.holds:
        update = f'spfem-bench check {check.name} --update --reason "..."'
        note = "and note it under Score-changing in CHANGELOG.md."
        lines.append(f"If that is meant: type '{update}', {note}")
    return lines


def change_text(c: SettingChange) -> str:
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
