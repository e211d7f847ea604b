"""What ``spfem-bench eval`` prints beside the scores."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from spfem_bench.datasets.layouts import PlacedOutput
from spfem_bench.errors import ClipError
from spfem_bench.evaluation.plan import Plan
from spfem_bench.evaluation.preflight import LISTED, plan_summary
from spfem_bench.evaluation.record import RunRecord
from spfem_bench.reporting.headlines import headline_table, score_lines
from spfem_bench.texts import text_table

SCREEN = 24
"""Lines of a preflight's summary of many methods."""


def preflight_lines(plans: Sequence[Plan], *, verbose: bool = False) -> list[str]:
    """Return the preflight's findings, of all plans together; empty when there are none.

    Methods with the same findings on a protocol share them. Without *verbose*, few files of each
    kind are named, and all fit on one screen.
    """
    groups: dict[tuple[str, ...], list[Plan]] = {}
    few = LISTED if verbose else max(2, 10 // max(1, len(plans)))
    for plan in plans:
        if findings := plan_summary(plan, LISTED if verbose else few):
            groups.setdefault((plan.protocol.name, *findings), []).append(plan)
    lines = []
    for (protocol, *findings), alike in groups.items():
        labels = ", ".join(plan.method.label for plan in alike)
        lines.append(f"{labels} on {protocol}, before any network runs:")
        lines += [f"  {line}" for line in findings]
    if not lines or verbose:
        return lines
    if len(lines) > SCREEN:
        lines = [*lines[: SCREEN - 2], f"  and {len(lines) - SCREEN + 2} more lines"]
    shortened = any(re.match(r" *and \d+ more", line) for line in lines)
    return [*lines, "The whole list: --verbose"] if shortened else lines


def refusal_lines(plan: Plan, record: RunRecord) -> list[str]:
    """Return the clips that were refused while they were scored, one line each."""
    known = {(r.item, r.reason) for r in plan.refusals}
    return [
        f"refused for {', '.join(r.metrics)}: {r.reason}. {r.remedy}"
        for r in record.refused
        if r.kind == "refused" and (r.item, r.reason) not in known
    ]


def run_text(plan: Plan, record: RunRecord) -> str:
    """Return one run's scores and signatures under a heading."""
    protocol = plan.protocol
    heading = f"{plan.method.label} on {protocol.name} ({protocol.card.setting})"
    lines = [f"\n{heading}, profile {plan.profile.name}", score_lines(record)]
    return "\n".join([*lines, *_signatures([record])])


def runs_text(records: Sequence[RunRecord]) -> str:
    """Return the scores of one protocol's runs side by side, with their signatures."""
    heading = f"\n{records[0].protocol.name}, profile {records[0].profile}"
    return "\n".join([heading, headline_table(records), *_signatures(records)])


def _signatures(records: Iterable[RunRecord]) -> list[str]:
    return [*dict.fromkeys(s.signature for r in records for s in r.scores if s.signature)]


def mapping_json(
    protocol: str, placed: Sequence[PlacedOutput], extra: Sequence[str]
) -> dict[str, Any]:
    """Return which file is taken for which item, as plain values; no item takes *extra* names."""
    items = [
        {"item": p.item, "state": p.state, "places": p.places, "sound": p.sound}
        | ({"reason": str(p.clip)} if isinstance(p.clip, ClipError) else {})
        for p in placed
    ]
    counts = _counts(placed, extra)
    return {"protocol": protocol, "counts": counts, "items": items, "extra": extra}


def mapping_text(placed: Sequence[PlacedOutput], extra: Sequence[str]) -> str:
    """Return which file is taken for which item, as a table with the counts below it."""
    rows = []
    for p in placed:
        pictures = None if isinstance(p.clip, ClipError) else p.clip.pictures
        part = f", frames {pictures[0]} to {pictures[1] - 1}" if pictures else ""
        rows.append([p.item, p.state, " and ".join(p.places) + part, p.sound])
    rows += [["", "extra", name, ""] for name in extra]
    counts = ", ".join(f"{n} {state}" for state, n in _counts(placed, extra).items() if n)
    table = text_table(rows, ["Item", "", "Output", "Sound"])
    return f"{table}\n{counts}"


def mapping_problems(placed: Sequence[PlacedOutput]) -> list[str]:
    """Return why outputs are ambiguous or absent, and what to do, each line once."""
    lines: list[str] = []
    for state in ("ambiguous", "absent"):
        errors = [p.clip for p in placed if p.state == state and isinstance(p.clip, ClipError)]
        lines += [e.problem for e in errors if state == "ambiguous"] + [e.remedy for e in errors]
    return [*dict.fromkeys(filter(None, lines))]


def _counts(placed: Sequence[PlacedOutput], extra: Sequence[str]) -> dict[str, int]:
    states = Counter(p.state for p in placed)
    return {s: states[s] for s in ("found", "absent", "ambiguous")} | {"extra": len(extra)}
