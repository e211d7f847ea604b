"""What verifying records found, as text and as JSON."""

from __future__ import annotations

from typing import Any

from spfem_bench.evaluation.verify import Verification

_KINDS = {
    "value": "values",
    "interval": "ends of intervals",
    "count": "counts and flags",
    "signature": "signatures",
    "list": "facts of the list",
}
SHOWN = 12  # lines that one record prints at most


def verification_text(name: str, found: Verification) -> str:
    """Return a verdict on one record, and below it what does not follow from its clips."""
    counts = ", ".join(f"{found.counts[k]} {text}" for k, text in _KINDS.items() if found.counts[k])
    if found.holds:
        lines = [f"{name}: holds. Computed again: {counts}"]
    else:
        several = f"{len(found.mismatches)} of {sum(found.counts.values())} recorded values"
        lines = [f"{name}: FAILS: {several} do not follow from the rest"]
        for place, recorded, recomputed in found.mismatches[:SHOWN]:
            lines.append(f"  {place}: {_text(recorded)} is recorded, computed: {_text(recomputed)}")
        if (rest := len(found.mismatches) - SHOWN) > 0:
            lines.append(f"  and {rest} more")
    lines += [f"  Not checked: {line}" for line in found.unchecked]
    return "\n".join(lines)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def verification_json(name: str, found: Verification) -> dict[str, Any]:
    """Return a verdict on one record as plain JSON values."""
    mismatches = [one._asdict() for one in found.mismatches]
    checked = {"counts": dict(found.counts), "unchecked": list(found.unchecked)}
    return {"record": name, "holds": found.holds, "mismatches": mismatches} | checked
