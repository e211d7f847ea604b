"""The probe of a loss as tables, CSV and JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from spfem_bench.analysis.probe import NOTHING, ProbeResult
from spfem_bench.statistics.intervals import Resampled
from spfem_bench.texts import csv_text

SIMILARITIES = ("_positive", "_negative")

#: Changes that a loss should see, each alone and on an emotional face.
_SEEN = {"words": "emotion, words", "frozen": "emotion, frozen"}

#: Conditions of which the emotion's cost is a share.
_COMPARED = ("words", "frozen", "later", "another face")

#: Conditions that every method should cost less than.
_WORSE = ("later", "wrong time", "other speaker")


class ProbeRow(NamedTuple):
    """One number.

    ``quantity`` is ``mean``; ``above nothing``, in units of the cost of nothing; ``share``, of
    the cost (or the similarity lost) of *other* beyond nothing; ``kept``, what the condition adds
    on an emotional face as a share of its cost on a neutral one; or ``less``, how much less than
    *other* it costs, in units of the loss.
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
        if {"emotion", "words"} <= set(result.conditions):
            for other in (c for c in result.conditions if c in _COMPARED):
                share = result.ratio("emotion", other, part)
                yield _row(name, result, part, "share", "emotion", other, share)
        if _is_likeness(part):
            continue
        for condition in result.conditions:
            if condition != NOTHING:
                excess = result.excess(condition, part)
                yield _row(name, result, part, "above nothing", condition, "", excess)
        if {"emotion", "words"} <= set(result.conditions):
            for alone, both in _SEEN.items():
                kept = result.kept(both, "emotion", alone, part)
                yield _row(name, result, part, "kept", alone, "emotion", kept)
        for method, other in _ranked(result, methods):
            gap = result.gap(method, other, part)
            yield _row(name, result, part, "less", method, other, gap)


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


def condition_table(result: ProbeResult, style: str = "simple", *, relative: bool = True) -> str:
    """Return costs above nothing of each condition, in total and by term, and similarities.

    Costs are in units of that of nothing when *relative*, else of the loss. Similarities are the
    means of what corresponds and of what does not.
    """
    above = result.excess if relative else partial(result.gap, NOTHING)
    terms = [part for part in result.parts if "_stage" not in part and not _is_likeness(part)]
    alike = [part for part in terms if part + SIMILARITIES[0] in result.parts]
    lines = []
    for condition in result.conditions:
        costs = [
            f"= {result.mean(condition, part).value:.3f}"
            if condition == NOTHING
            else _with_interval(above(condition, part))
            for part in terms
        ]
        cosines = [
            " / ".join(f"{result.mean(condition, part + sign).value:.2f}" for sign in SIMILARITIES)
            for part in alike
        ]
        lines.append([condition, *costs, *cosines, str(result.count(condition))])
    heads = ["", *map(_title, terms), *(_title(part + SIMILARITIES[0]) for part in alike), "n"]
    return _printed(lines, heads, style)


def share_table(result: ProbeResult, style: str = "simple") -> str:
    """Return emotion as a share of words, and what is kept of changes on an emotional face."""
    parts = [part for part in result.parts if not _is_likeness(part)]
    shown: dict[str, Callable[[str], Resampled]] = {
        "emotion / words": lambda part: result.ratio("emotion", "words", part),
    }
    for alone, both in _SEEN.items():
        shown[f"{alone} kept"] = partial(result.kept, both, "emotion", alone)
    if "another face" in result.conditions:
        shown["emotion / another face"] = partial(result.ratio, "emotion", "another face")
    lines = []
    for title, share in shown.items():
        stages = [f"{share(part).value:.2f}" for part in parts[1:]]
        lines.append([title, _with_interval(share(parts[0])), *stages])
    likenesses = [f"{part}{SIMILARITIES[0]}" for part in parts]
    lost = [
        f"{result.ratio('emotion', 'words', part).value:.2f}" if part in result.parts else "–"
        for part in likenesses
    ]
    lines.insert(1, ["emotion / words, similarity lost", *lost])
    return _printed(lines, ["", *map(_title, parts)], style)


def rank_table(result: ProbeResult, methods: Sequence[str], style: str = "simple") -> str:
    """Return in how many clips each method costs less, and is more alike, than others.

    Beside it stand the mean difference, in units of the loss or as a cosine, and the least.
    """
    parts = [part for part in result.parts if "_stage" not in part and not _is_likeness(part)]
    alike = [part + SIMILARITIES[0] for part in parts if part + SIMILARITIES[0] in result.parts]
    lines = []
    for method, other in _ranked(result, methods):
        cells = []
        for part in (*parts, *alike):
            # Where costs are lower, similarities are higher.
            pair = (other, method) if _is_likeness(part) else (method, other)
            gaps = result.gaps(*pair, part)
            least = f", least {gaps.min():+.2f}" if len(gaps) else ""
            mean = _with_interval(result.gap(*pair, part))
            cells.append(f"{(gaps > 0).sum()} of {len(gaps)} by {mean}{least}")
        lines.append([method, other, *cells])
    return _printed(lines, ["better:", "than", *map(_title, (*parts, *alike))], style)


def _ranked(result: ProbeResult, methods: Sequence[str]) -> list[tuple[str, str]]:
    """Return each method beside those after it, and beside what should cost more."""
    own = [method for method in methods if method in result.conditions]
    worse = [condition for condition in _WORSE if condition in result.conditions]
    return [(a, b) for i, a in enumerate(own) for b in (*own[i + 1 :], *worse)]


def _title(part: str) -> str:
    """Return a part's name for a column: ``scc_stage1`` is ``space 1``."""
    if _is_likeness(part):
        return f"alike, {_title(part.removesuffix(SIMILARITIES[0]))}"
    term, _, stage = part.partition("_stage")
    name = {"loss": "total", "scc": "space", "tcc": "time", "sct": "content"}.get(term, term)
    return f"{name} {stage}".strip()


def signature_line(signature: Mapping[str, Any]) -> str:
    """Return what was measured in one line: the probe, its clips, and each loss by its hashes."""
    of_clips = [f"{k} {v}" for k, v in signature.items() if k != "losses"]
    of_losses = [
        f"{name}: {one['backbone']['network']} {one['backbone']['sha256'][0][:8]}"
        + (f", heads {one['heads'][:8]}" if one["heads"] else "")
        for name, one in signature["losses"].items()
    ]
    return "; ".join([", ".join(of_clips), *of_losses])


def _is_likeness(part: str) -> bool:
    return part.endswith(SIMILARITIES)


def _with_interval(value: Resampled) -> str:
    low, high = value.interval
    if value.value != value.value:
        return "–"
    shown = f"{value.value:.2f}"
    return shown if low is None or high is None else f"{shown} [{low:.2f}, {high:.2f}]"


def _printed(lines: Sequence[Sequence[str]], heads: Sequence[str], style: str) -> str:
    from tabulate import tabulate

    return tabulate(lines, heads, tablefmt=style, disable_numparse=True)
