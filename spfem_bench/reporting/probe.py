"""The probe of a loss as tables, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from spfem_bench.analysis.probe import NOTHING, ProbeResult
from spfem_bench.statistics.intervals import Resampled
from spfem_bench.texts import csv_text

SIMILARITIES = ("_positive", "_negative")

#: Columns of the first table: titles of parts.
_TERMS = {"loss": "total", "scc": "space", "tcc": "time"}

#: Changes that a loss should see, each alone and on an emotional face.
_SEEN = {"words": "emotion, words", "frozen": "emotion, frozen"}


class ProbeRow(NamedTuple):
    """One number.

    ``quantity`` is ``mean``; ``above nothing``, in units of the cost of nothing; ``share``, of
    the cost of *other* above nothing; ``kept``, what the condition adds on an emotional face as a
    share of its cost on a neutral one; or ``lower``, in how many of the units it costs less than
    *other*.
    """

    loss: str
    part: str
    quantity: str
    condition: str
    other: str
    value: float
    low: float | None
    high: float | None
    units: int


def probe_rows(results: Mapping[str, ProbeResult], methods: Sequence[str] = ()) -> list[ProbeRow]:
    """Return all numbers; *methods* are conditions that are ranked among all others."""
    return [row for name, result in results.items() for row in _rows(name, result, methods)]


def _rows(name: str, result: ProbeResult, methods: Sequence[str]) -> Iterator[ProbeRow]:
    for part in result.parts:
        for condition in result.conditions:
            yield _row(name, result, part, "mean", condition, "", result.mean(condition, part))
        if part.endswith(SIMILARITIES):
            continue
        for condition in result.conditions:
            if condition != NOTHING:
                excess = result.excess(condition, part)
                yield _row(name, result, part, "above nothing", condition, "", excess)
        if {"emotion", "words"} <= set(result.conditions):
            for other in ("words", "frozen", "later"):
                share = result.ratio("emotion", other, part)
                yield _row(name, result, part, "share", "emotion", other, share)
            for alone, both in _SEEN.items():
                kept = result.kept(both, "emotion", alone, part)
                yield _row(name, result, part, "kept", alone, "emotion", kept)
        for method in methods:
            for other in result.conditions:
                if other not in (NOTHING, method):
                    less, count = result.below(method, other, part)
                    gap = result.gap(method, other, part)
                    yield ProbeRow(name, part, "lower", method, other, less, None, None, count)
                    yield _row(name, result, part, "gap", method, other, gap)


def _row(
    name: str,
    result: ProbeResult,
    part: str,
    quantity: str,
    condition: str,
    other: str,
    value: Resampled,
) -> ProbeRow:
    low, high = value.interval
    units = result.count(condition, part)
    return ProbeRow(name, part, quantity, condition, other, value.value, low, high, units)


def to_csv(rows: Sequence[ProbeRow]) -> str:
    """Return all numbers as CSV, with a header."""
    return csv_text([ProbeRow._fields, *rows])


def to_json(rows: Sequence[ProbeRow], signature: Mapping[str, Any]) -> str:
    """Return all numbers and what was measured as JSON."""
    content = {"signature": signature, "numbers": [row._asdict() for row in rows]}
    return json.dumps(content, indent=1) + "\n"


def condition_table(result: ProbeResult, style: str = "simple") -> str:
    """Return costs above nothing of each condition, in total, in space and in time.

    Beside them stand the mean similarities of what corresponds and of what does not.
    """
    terms = {part: title for part, title in _TERMS.items() if part in result.parts}
    terms |= {p: p for p in result.parts if _is_own_term(p)}
    likenesses = [part for part in terms if part + SIMILARITIES[0] in result.parts]
    lines = []
    for condition in result.conditions:
        costs = [
            f"= {_text(result.mean(condition, part))}"
            if condition == NOTHING
            else _with_interval(result.excess(condition, part))
            for part in terms
        ]
        alike = [
            " / ".join(f"{result.mean(condition, part + sign).value:.2f}" for sign in SIMILARITIES)
            for part in likenesses
        ]
        lines.append([condition, *costs, *alike, str(result.count(condition, "loss"))])
    heads = ["", *terms.values(), *(f"alike, {terms[part]}" for part in likenesses), "n"]
    return _printed(lines, heads, style)


def share_table(results: Mapping[str, ProbeResult], style: str = "simple") -> str:
    """Return emotion / words of each loss, in total and by term and stage, and what is kept."""
    lines = []
    for name, result in results.items():
        for part in result.parts:
            if part.endswith(SIMILARITIES):
                continue
            kept = [result.kept(both, "emotion", alone, part) for alone, both in _SEEN.items()]
            shares = [result.ratio("emotion", other, part) for other in ("words", "frozen")]
            cells = [_with_interval(value) for value in (*shares, *kept)]
            lines.append([name, part, *cells])
    heads = ["", "", "emotion / words", "emotion / frozen mouth"]
    heads += ["words kept", "frozen mouth kept"]
    return _printed(lines, heads, style)


def rank_table(
    results: Mapping[str, ProbeResult], methods: Sequence[str], style: str = "simple"
) -> str:
    """Return in how many clips each method costs less than the others, and by how much."""
    lines = []
    for name, result in results.items():
        parts = [part for part in _TERMS if part in result.parts]
        for method in methods:
            for other in result.conditions:
                if other in (NOTHING, method):
                    continue
                cells = []
                for part in parts:
                    less, count = result.below(method, other, part)
                    cells.append(
                        f"{less} of {count}, {_with_interval(result.gap(method, other, part))}"
                    )
                lines.append([name, method, other, *cells])
    return _printed(lines, ["", "costs less:", "than", *_TERMS.values()], style)


def signature_line(signature: Mapping[str, Any]) -> str:
    """Return what was measured in one line: the probe, its clips, and each loss by its hashes."""
    of_clips = [f"{k} {v}" for k, v in signature.items() if k != "losses"]
    of_losses = [
        f"{name}: {one['backbone']['network']} {one['backbone']['sha256'][0][:8]}"
        + (f", heads {one['heads'][:8]}" if one["heads"] else "")
        for name, one in signature["losses"].items()
    ]
    return "; ".join([", ".join(of_clips), *of_losses])


def _is_own_term(part: str) -> bool:
    return part not in _TERMS and "_stage" not in part and not part.endswith(SIMILARITIES)


def _text(value: Resampled) -> str:
    return f"{value.value:.3f}"


def _with_interval(value: Resampled) -> str:
    low, high = value.interval
    if value.value != value.value:
        return "–"
    shown = f"{value.value:.2f}"
    return shown if low is None or high is None else f"{shown} [{low:.2f}, {high:.2f}]"


def _printed(lines: Sequence[Sequence[str]], heads: Sequence[str], style: str) -> str:
    from tabulate import tabulate

    return tabulate(lines, heads, tablefmt=style, disable_numparse=True)
