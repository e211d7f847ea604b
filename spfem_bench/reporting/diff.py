"""Differences between two records as text and as JSON."""

from __future__ import annotations

from typing import Any

from spfem_bench.analysis.record_diff import RecordDiff
from spfem_bench.evaluation.check import ReferenceCheck
from spfem_bench.reporting.check import VERDICTS, change_text, check_json, rows_table, summary

SHOWN = 6  # clips that one line names at most


def diff_text(diff: RecordDiff) -> str:
    """Return what differs, and in the last line the verdict."""
    check = diff.check
    lines = []
    if check.failing:
        words = {**VERDICTS, "new": "only in B", "missing": "only in A"}
        lines += [rows_table(check.failing, ("A", "B"), words), ""]
    if check.rows:
        lines.append(summary(check.rows))
    if diff.clips:
        rest = len(diff.clips) - SHOWN
        more = f" and {rest} more" if rest > 0 else ""
        lines.append(f"clips with other bytes: {', '.join(diff.clips[:SHOWN])}{more}")
    covered, other = "versions and machine, which tolerances cover", "settings that differ"
    for title, allowed in ((covered, True), (other, False)):
        if changes := [change_text(c) for c in check.changes if c.allowed is allowed]:
            lines.append(f"{title}: {'; '.join(changes)}")
    by_reason: dict[str, list[str]] = {}
    for metric, tolerance in diff.tolerances.items():
        by_reason.setdefault(tolerance.reason, []).append(f"{metric} {tolerance.absolute:g}")
    lines += [f"tolerance ({reason}): {', '.join(of)}" for reason, of in by_reason.items()]
    return "\n".join([*lines, _verdict(check)])


def _verdict(check: ReferenceCheck) -> str:
    if not check.rows:
        return "Differs: the records have no number to compare."
    if check.holds:
        return f"Within tolerance: all {len(check.rows)} numbers of {check.name}."
    reasons = []
    if check.failing:
        reasons.append(f"{len(check.failing)} of {len(check.rows)} numbers")
    if changed := sum(not c.allowed for c in check.changes):
        reasons.append(f"{changed} setting{'' if changed == 1 else 's'}")
    return f"Differs: {' and '.join(reasons)} of {check.name}."


def diff_json(diff: RecordDiff) -> dict[str, Any]:
    """Return a difference as plain JSON values."""
    tolerances = {metric: one.settings() for metric, one in diff.tolerances.items()}
    own = {"holds": diff.holds, "clips": list(diff.clips), "tolerances": tolerances}
    return check_json(diff.check) | own
