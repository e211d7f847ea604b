"""Numbers and settings of a report as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spfem_bench.evaluation.record import Score
from spfem_bench.evaluation.signature import flat


def number_text(value: float | None, decimals: int = 3, *, sign: bool = False) -> str:
    """Return a number as printed; a dash for None."""
    if value is None:
        return "–"
    value = round(value, decimals) + 0.0  # no minus before zero
    return f"{value:{'+' if sign and value else ''}.{decimals}f}".replace("-", "−")


def interval_text(low: float | None, high: float | None) -> str:
    """Return both ends of an interval as printed; nothing without one."""
    if low is None or high is None:
        return ""
    return f"{number_text(low)} to {number_text(high)}"


def clips_text(score: Score) -> str:
    """Return how many of the clips a score stands on."""
    return f"{score.n_items}/{score.n_items + score.n_refused}"


def settings_lines(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return nested settings as dotted keys with their values as text."""

    def text(value: Any) -> str:
        if isinstance(value, list):
            return ", ".join(map(str, value))
        return "–" if value is None else str(value)

    return [(key, text(value)) for key, value in flat(settings)]
