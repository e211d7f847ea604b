"""Two records of one method on one protocol: which settings and numbers differ, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.measured import Tolerance, measured_card
from spfem_bench.errors import CardError, unknown_name
from spfem_bench.evaluation.check import (
    MACHINE,
    Comparison,
    Measured,
    compare,
    rows_of,
    settings_by_part,
)
from spfem_bench.reporting.check import (
    VERDICTS,
    change_text,
    comparison_json,
    differences_table,
    summary,
)

Record = Mapping[str, Any]

PRINTED = Tolerance(absolute=5e-4, reason="half of the last decimal that tables print")
"""Where no reference card has measured how far a number moves between machines."""

SHOWN = 6
"""Clips that one line names at most."""


@dataclass(frozen=True)
class Diff:
    """Two records side by side.

    Attributes:
        comparison: settings and numbers, the first record as the reference.
        clips: of clips whose bytes differ, the item and the role, such as ``P001_sad_033 output``.
        tolerances: by metric.
    """

    comparison: Comparison
    clips: tuple[str, ...]
    tolerances: Mapping[str, Tolerance]


def diff_records(a: Record, b: Record, tolerances: Mapping[str, float] | None = None) -> Diff:
    """Lay two records of one method on one protocol side by side.

    Tolerances are those given; else those of the reference card (``reference_results/measured``)
    for the protocol and profile; else :data:`PRINTED`.

    Args:
        a: the record that the other is compared with.
        b: the other.
        tolerances: absolute ones by metric; of ``""``, for all other metrics.

    Raises:
        CardError: the records are of two methods or protocols, or damaged.
        UnknownNameError: a tolerance for a metric that neither record has.
    """
    for part in ("method", "protocol"):
        first, second = a[part]["name"], b[part]["name"]
        if first != second:
            raise CardError(
                f"the records are of two {part}s, '{first}' and '{second}'",
                "Give two records of one method on one protocol; 'spfem-bench compare' compares "
                "methods",
            )
    rows = rows_of(a), rows_of(b)
    try:
        settings = [settings_by_part(r) | {MACHINE: dict(r["environment"])} for r in (a, b)]
    except (KeyError, TypeError, AttributeError, ValueError):
        raise CardError(
            f"a run record of '{a['method']['name']}' is damaged: its settings are incomplete",
            "Run the evaluation again",
        ) from None
    metrics = list(dict.fromkeys(row.metric for side in rows for row in side.values()))
    allowed = _tolerances(a, metrics, tolerances or {})
    name = f"{a['method']['name']} on {a['protocol']['name']}"
    comparison = compare(name, allowed, rows[0], settings[0], Measured(rows[1], settings[1]))
    return Diff(comparison, _other_clips(a, b), allowed)


def _tolerances(
    record: Record, metrics: Sequence[str], given: Mapping[str, float]
) -> dict[str, Tolerance]:
    for metric in given.keys() - {"", *metrics}:
        raise unknown_name("metric of these records", metric, metrics)
    measured: dict[str, Tolerance] = {}
    for card in map(measured_card, names(Kind.MEASURED)):
        if card.profile == record["profile"] and record["protocol"]["name"] in card.methods:
            measured = {
                metric: one.model_copy(update={"reason": f"reference card '{card.name}'"})
                for metric, one in card.tolerance.items()
            }
            break
    found = {}
    for metric in metrics:
        own = given.get(metric, given.get(""))
        found[metric] = (
            measured.get(metric, PRINTED)
            if own is None
            else Tolerance(absolute=own, reason="as given")
        )
    return found


def _other_clips(a: Record, b: Record) -> tuple[str, ...]:
    """Return the clips of both records that have other bytes in the second."""
    contents = [
        {
            (item["id"], role): clip.get("content")
            for item in record.get("items", ())
            for role, clip in item["clips"].items()
        }
        for record in (a, b)
    ]
    first, second = contents
    return tuple(
        f"{item} {role}"
        for (item, role), content in first.items()
        if (item, role) in second and second[item, role] != content
    )


# ---- printing ------------------------------------------------------------------------------


def diff_text(diff: Diff) -> str:
    """Return what differs, and in the last line the verdict."""
    found = diff.comparison
    lines = []
    if found.failing:
        words = {**VERDICTS, "new": "only in B", "missing": "only in A"}
        lines += [differences_table(found.failing, ("A", "B"), words), ""]
    if found.differences:
        lines.append(summary(found.differences))
    if diff.clips:
        rest = len(diff.clips) - SHOWN
        more = f" and {rest} more" if rest > 0 else ""
        lines.append(f"clips with other bytes: {', '.join(diff.clips[:SHOWN])}{more}")
    for title, allowed in (
        ("versions and machine, which tolerances cover", True),
        ("settings that differ", False),
    ):
        changes = [change_text(c) for c in found.changes if c.allowed is allowed]
        if changes:
            lines.append(f"{title}: {'; '.join(changes)}")
    by_reason: dict[str, list[str]] = {}
    for metric, tolerance in diff.tolerances.items():
        by_reason.setdefault(tolerance.reason, []).append(f"{metric} {tolerance.absolute:g}")
    lines += [f"tolerance ({reason}): {', '.join(of)}" for reason, of in by_reason.items()]
    return "\n".join([*lines, _verdict(found)])


def _verdict(found: Comparison) -> str:
    if not found.differences:
        return "Differs: the records have no number to compare."
    if found.holds:
        return f"Within tolerance: all {len(found.differences)} numbers of {found.name}."
    reasons = []
    if found.failing:
        reasons.append(f"{len(found.failing)} of {len(found.differences)} numbers")
    if changed := sum(not c.allowed for c in found.changes):
        reasons.append(f"{changed} setting{'' if changed == 1 else 's'}")
    return f"Differs: {' and '.join(reasons)} of {found.name}."


def holds(diff: Diff) -> bool:
    """Return whether all numbers are within tolerance and no setting differs but versions."""
    return bool(diff.comparison.differences) and diff.comparison.holds


def diff_json(diff: Diff) -> dict[str, Any]:
    """Return everything that was found as plain JSON values."""
    return {
        **comparison_json(diff.comparison),
        "holds": holds(diff),
        "clips": list(diff.clips),
        "tolerances": {metric: one.settings() for metric, one in diff.tolerances.items()},
    }
