"""What a plan found missing, unreadable or extra, as lines of text."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from spfem_bench.errors import SpfemBenchError
from spfem_bench.evaluation.plan import Plan

LISTED = 50
"""Missing files that are named one by one."""


def unavailable_lines(plan: Plan) -> list[str]:
    """Return which metrics cannot be computed here, one line for each reason."""
    metrics_by_reason: dict[str, list[str]] = {}
    for name, reason in plan.unavailable.items():
        metrics_by_reason.setdefault(reason, []).append(name)
    return [f"{', '.join(m)}: not available: {why}" for why, m in metrics_by_reason.items()]


def plan_summary(plan: Plan, listed: int = LISTED) -> list[str]:
    """Return the preflight's findings, one line each; of each kind so many that are *listed*."""
    lines = unavailable_lines(plan)
    items_by_file: dict[str, dict[str, set[str]]] = {}  # by remedy, then by missing file
    for r in plan.refusals:
        if r.kind == "missing":
            name = r.reason.removesuffix(": missing")
            items_by_file.setdefault(r.remedy, {}).setdefault(name, set()).add(r.item)
    for remedy, files in items_by_file.items():
        n_items = len(set().union(*files.values()))
        lines.append(f"missing, for {n_items} of {len(plan.items)} items:")
        lines += [f"  {name}" for name in list(files)[:listed]]
        if len(files) > listed:
            lines.append(f"  and {len(files) - listed} more")
        lines.append(f"  {remedy}")
    refused = dict.fromkeys(
        str(SpfemBenchError(f"{r.kind}: {r.reason}", r.remedy))
        for r in plan.refusals
        if r.kind != "missing"
    )
    lines += [*refused][:listed]
    if len(refused) > listed:
        lines.append(f"and {len(refused) - listed} more that are refused")
    expected = {Path(p.item.output_name).stem.lower(): p.item.output_name for p in plan.items}
    for name in plan.extra[:listed]:
        close = get_close_matches(Path(name).stem.lower(), expected, n=1)
        hint = f"; meant for {expected[close[0]]}?" if close else ""
        lines.append(f"extra, expected by no item: {name}{hint}")
    if len(plan.extra) > listed:
        lines.append(f"and {len(plan.extra) - listed} more that no item expects")
    return lines
