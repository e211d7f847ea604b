"""What is wrong, or remarkable, in printed tables: a pure function of their numbers.

All arithmetic is exact, on the digits as printed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Literal, NamedTuple

from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.errors import CardError, UnknownNameError
from spfem_bench.reporting.grids import markdown_escape, one_line
from spfem_bench.reporting.published import Printed, PrintedNumber
from spfem_bench.texts import csv_text

NEAR_CORRELATION = 0.99
NEAR_SHARE = 0.15
"""Two variants are near-duplicates when their gains over the baseline correlate by more than the
first, and they differ by less than the second of their distance to it, on average."""

SIGNIFICANT = 4
"""Equal numbers within one row or table are reported from this many digits on; with fewer,
chance alone makes many."""


EXACT = Fraction(1, 10**12)
"""The relative error that numbers at full precision may have."""


class Series(NamedTuple):
    """One line of numbers: all emotions of a method in a metric."""

    paper: str
    table: str
    dataset: str
    setting: str
    method: str
    metric: str

    def __str__(self) -> str:
        place = f"{self.paper} table {self.table}" if self.table else self.paper
        return " ".join(filter(None, [place, *self[2:]]))


Cells = dict[str, PrintedNumber]


@dataclass(frozen=True)
class Average:
    """A printed average that is not the mean of its row.

    Attributes:
        mean: of the printed emotions.
        possible: whether rounding of every cell could still explain it.
        by_one: whether one cell misprinted by exactly 1 would explain it.
    """

    series: Series
    printed: Decimal
    mean: float
    possible: bool
    by_one: bool

    @property
    def explained(self) -> str:
        """What would explain it; empty where nothing here does."""
        if self.possible:
            return "rounding of its cells"
        return "one cell off by exactly 1" if self.by_one else ""

    @property
    def off(self) -> float:
        """Printed average minus mean."""
        return float(self.printed) - self.mean


@dataclass(frozen=True)
class Disagreement:
    """One cell printed with two values.

    Attributes:
        other: where the second value stands.
        fits: which of the two gives the printed averages: first, second, both or neither;
            empty where no average tells.
    """

    series: Series
    emotion: str
    value: Decimal
    other: Series
    other_value: Decimal
    fits: str

    @property
    def off(self) -> Decimal:
        """Second minus first."""
        return self.other_value - self.value


@dataclass(frozen=True)
class Repeat:
    """Numbers that stand twice.

    Attributes:
        kind: ``series`` (a whole row is another method's), ``column`` (two emotions of one
            method are equal in all metrics), ``methods`` (the same cell of two methods on
            one backbone), ``row`` (two emotions of one row) or ``scattered`` (different
            cells of different methods of one table).
        first: where it stands.
        second: where it stands again.
        values: as printed.
    """

    kind: Literal["series", "column", "methods", "row", "scattered"]
    first: str
    second: str
    values: str


@dataclass(frozen=True)
class Loss:
    """A row of a proposed method with cells that are worse than its own baseline's.

    Attributes:
        emotions: the cells that are worse.
        cells: how many could be compared.
    """

    series: Series
    baseline: str
    emotions: tuple[str, ...]
    cells: int


@dataclass(frozen=True)
class Near:
    """Two variants of one backbone that follow each other.

    Attributes:
        distance: mean absolute difference between the two over the emotions.
        largest: the largest of them.
        gains: mean absolute differences of each from the baseline; of one that is printed
            twice, from the print whose average follows.
        correlation: Pearson's, between the two differences from the baseline.
    """

    first: Series
    second: Series
    distance: float
    largest: float
    gains: tuple[float, float]
    correlation: float

    @property
    def flagged(self) -> bool:
        """Whether they are near-duplicates."""
        near = all(self.distance < NEAR_SHARE * gain for gain in self.gains)
        return near and self.correlation > NEAR_CORRELATION


@dataclass(frozen=True)
class Audit:
    """All that was found in some tables.

    Attributes:
        tables: name and count of numbers of each.
        averages: those that do not follow; of how many, ``n_averages``.
        disagreements: of ``n_shared`` cells that two tables print.
        other_decimals: shared cells of equal value printed with other decimals.
        losses: every compared row, also those without a worse cell.
        nears: every compared pair.
        not_hundred: pairs of preferences whose sum is not 100 percent.
    """

    tables: tuple[tuple[str, int], ...]
    n_averages: int
    averages: tuple[Average, ...]
    n_shared: int
    disagreements: tuple[Disagreement, ...]
    other_decimals: tuple[str, ...]
    repeats: tuple[Repeat, ...]
    losses: tuple[Loss, ...]
    nears: tuple[Near, ...]
    not_hundred: tuple[str, ...]

    @property
    def contradictions(self) -> int:
        """How many findings no correct table has.

        Averages that rounding cannot explain, cells printed with two values, sums that are
        not 100, whole rows or columns that stand twice.
        """
        repeated = sum(r.kind in ("series", "column") for r in self.repeats)
        averages = sum(not a.possible for a in self.averages)
        return averages + len(self.disagreements) + len(self.not_hundred) + repeated


def audit(tables: Sequence[Printed]) -> Audit:
    """Audit printed tables, each by itself and against each other.

    Raises:
        CardError: one table is given twice.
    """
    rows = [row for table in tables for row in table.rows]
    series = _series(rows)
    backbones = {_place(row): row.backbone for row in rows}
    pairs = list(_same_cells(series))
    different = [(a, b, e) for a, b, e in pairs if series[a][e].number != series[b][e].number]
    decimals = [
        f"{a} {e}: {series[a][e].value}; {b}: {series[b][e].value}"
        for a, b, e in pairs
        if series[a][e].number == series[b][e].number and series[a][e].value != series[b][e].value
    ]
    return Audit(
        tuple((table.name, len(table.rows)) for table in tables),
        sum(_follows(cells) is not None for cells in series.values()),
        tuple(found for s, cells in series.items() if (found := _average(s, cells))),
        len(pairs),
        tuple(_disagreement(series, a, b, e) for a, b, e in different),
        tuple(decimals),
        tuple(_repeats(series, backbones)),
        tuple(_losses(series, backbones)),
        tuple(_nears(series, backbones)),
        tuple(_sums([row for table in tables if table.percent for row in table.rows])),
    )


def _place(row: PrintedNumber) -> Series:
    return Series(row.paper, row.table, row.dataset, row.setting, row.method, row.metric)


def _series(rows: Iterable[PrintedNumber]) -> dict[Series, Cells]:
    found: dict[Series, Cells] = {}
    for row in rows:
        place = _place(row)
        if row.emotion in found.setdefault(place, {}):
            raise CardError(
                f"two files print {place} {row.emotion} of one paper and table",
                "Give each table once, or say in the columns 'paper' and 'table' which is which",
            )
        found[place][row.emotion] = row
    return found


def _emotions(cells: Cells) -> list[str]:
    return [e for e in cells if e != AVERAGE]


# ---- averages ------------------------------------------------------------------------------


def _unit(row: PrintedNumber) -> Fraction:
    """Return half a unit of the last printed decimal: what rounding can have moved."""
    exponent = row.number.as_tuple().exponent
    return Fraction(10) ** int(exponent) / 2


def _mean(cells: Cells) -> Fraction:
    values = [Fraction(cells[e].number) for e in _emotions(cells)]
    return sum(values, Fraction(0)) / len(values)


def _follows(cells: Cells) -> bool | None:
    """Say whether the average is the rounded mean of its row; None where none can be checked."""
    if AVERAGE not in cells or len(cells) < 3:
        return None
    return abs(Fraction(cells[AVERAGE].number) - _mean(cells)) <= _slack(cells)


def _slack(cells: Cells) -> Fraction:
    """Return what may lie between a mean and its print.

    Half a unit of the last decimal; of a number at full precision the float's own error.
    """
    printed = Fraction(cells[AVERAGE].number)
    return max(_unit(cells[AVERAGE]), abs(printed) * EXACT)


def _average(series: Series, cells: Cells) -> Average | None:
    if _follows(cells) is not False:
        return None
    mean = _mean(cells)
    rounding = sum((_unit(cells[e]) for e in _emotions(cells)), Fraction(0)) / (len(cells) - 1)
    off = abs(Fraction(cells[AVERAGE].number) - mean)
    slack, count = _slack(cells), len(cells) - 1
    return Average(
        series,
        cells[AVERAGE].number,
        float(mean),
        off <= slack + rounding,
        abs(off * count - 1) <= slack * count,
    )


# ---- two prints of one cell ----------------------------------------------------------------


def _same_cells(series: Mapping[Series, Cells]) -> Iterator[tuple[Series, Series, str]]:
    """Yield each cell that stands in two tables: the first print of it, and a later one."""
    first: dict[tuple[str, ...], list[Series]] = {}
    for here, cells in series.items():
        for there in first.setdefault(here[2:], []):
            yield from ((there, here, e) for e in cells if e in series[there])
        first[here[2:]].append(here)


def _disagreement(
    series: Mapping[Series, Cells], a: Series, b: Series, emotion: str
) -> Disagreement:
    one, two = series[a], series[b]
    works = (_follows(one), _follows(two))
    fits = ""
    if emotion != AVERAGE and None not in works and one[AVERAGE].number == two[AVERAGE].number:
        fits = {(True, False): "first", (False, True): "second", (True, True): "both"}.get(
            (bool(works[0]), bool(works[1])), "neither"
        )
    return Disagreement(a, emotion, one[emotion].number, b, two[emotion].number, fits)


# ---- repeats -------------------------------------------------------------------------------


def _digits(row: PrintedNumber) -> int:
    return len(row.number.as_tuple().digits)


def _repeats(series: Mapping[Series, Cells], backbones: Mapping[Series, str]) -> Iterator[Repeat]:
    yield from _repeated_series(series)
    yield from _repeated_columns(series)
    yield from _repeated_methods(series, backbones)
    for here, cells in series.items():
        for a, b in combinations(cells, 2):
            if cells[a].number == cells[b].number and _digits(cells[a]) >= SIGNIFICANT:
                yield Repeat("row", f"{here} {a}", f"{here} {b}", cells[a].value)
    yield from _scattered(series)


def _repeated_series(series: Mapping[Series, Cells]) -> Iterator[Repeat]:
    for (a, one), (b, two) in combinations(series.items(), 2):
        shared = [e for e in _emotions(one) if e in two]
        if a.method == b.method or a.metric != b.metric or len(shared) < 3:
            continue
        if all(one[e].number == two[e].number for e in shared):
            yield Repeat("series", str(a), str(b), " ".join(one[e].value for e in shared))


def _repeated_columns(series: Mapping[Series, Cells]) -> Iterator[Repeat]:
    groups: dict[Series, list[Cells]] = {}
    for here, cells in series.items():
        groups.setdefault(here._replace(metric=""), []).append(cells)
    for here, metrics in groups.items():
        emotions = [e for e in metrics[0] if all(e in cells for cells in metrics)]
        for a, b in combinations(emotions, 2):
            if len(metrics) > 1 and all(c[a].number == c[b].number for c in metrics):
                values = " / ".join(c[a].value for c in metrics)
                yield Repeat("column", f"{here} {a}", f"{here} {b}", values)


def _repeated_methods(
    series: Mapping[Series, Cells], backbones: Mapping[Series, str]
) -> Iterator[Repeat]:
    pooled: dict[tuple[str, ...], dict[str, Cells]] = {}
    for here, cells in series.items():
        if backbone := backbones[here]:
            key = (here.dataset, here.setting, here.metric, backbone)
            for e, row in cells.items():  # of a cell printed twice, the first
                pooled.setdefault(key, {}).setdefault(here.method, {}).setdefault(e, row)
    for (dataset, setting, metric, _), methods in pooled.items():
        for (a, one), (b, two) in combinations(methods.items(), 2):
            for e in one:
                if e in two and one[e].number == two[e].number:
                    where = f"{dataset} {setting} {metric} {e}"
                    yield Repeat("methods", f"{where} {a}", f"{where} {b}", one[e].value)


def _scattered(series: Mapping[Series, Cells]) -> Iterator[Repeat]:
    found: dict[tuple[str, str, str, str, Decimal], list[tuple[Series, str]]] = {}
    for here, cells in series.items():
        for e, row in cells.items():
            if _digits(row) >= SIGNIFICANT:
                key = (here.paper, here.table, here.dataset, here.metric, row.number)
                found.setdefault(key, []).append((here, e))
    for (*_, number), places in found.items():
        for (a, e), (b, f) in combinations(places, 2):
            if a.method != b.method and (a.setting, e) != (b.setting, f):
                yield Repeat("scattered", f"{a} {e}", f"{b} {f}", str(number))


# ---- proposals and their baselines ---------------------------------------------------------


def _with_baselines(
    series: Mapping[Series, Cells], backbones: Mapping[Series, str]
) -> Iterator[tuple[Series, Series]]:
    for here in series:
        baseline = here._replace(method=backbones[here])
        if backbones[here] not in ("", here.method) and baseline in series:
            yield here, baseline


def _losses(series: Mapping[Series, Cells], backbones: Mapping[Series, str]) -> Iterator[Loss]:
    for here, baseline in _with_baselines(series, backbones):
        try:
            card = metric_card(here.metric)
        except UnknownNameError:
            continue  # nobody says which way is better
        own, old = series[here], series[baseline]
        shared = [e for e in own if e in old]
        lost = tuple(e for e in shared if card.badness(own[e].number) > card.badness(old[e].number))
        yield Loss(here, baseline.method, lost, len(shared))


def _nears(series: Mapping[Series, Cells], backbones: Mapping[Series, str]) -> Iterator[Near]:
    prints: dict[tuple[str, ...], list[Cells]] = {}
    for here, cells in series.items():
        if len(_emotions(cells)) > 2:
            prints.setdefault(here[2:], []).append(cells)
    groups: dict[tuple[str, ...], list[Series]] = {}
    for here, baseline in _with_baselines(series, backbones):
        if len(_emotions(series[here])) > 2 and baseline[2:] in prints:
            groups.setdefault(baseline[2:], []).append(here)
    for key, variants in groups.items():
        found = prints[key]
        base = next((cells for cells in found if _follows(cells) is not False), found[0])
        for a, b in combinations(variants, 2):
            shared = [e for e in _emotions(base) if e in series[a] and e in series[b]]
            if a.method == b.method or len(shared) < 3:
                continue
            between = [abs(float(series[a][e].number - series[b][e].number)) for e in shared]
            gains = [[float(series[s][e].number - base[e].number) for e in shared] for s in (a, b)]
            means = [sum(map(abs, gain)) / len(shared) for gain in gains]
            yield Near(
                a,
                b,
                sum(between) / len(shared),
                max(between),
                (means[0], means[1]),
                _correlation(gains[0], gains[1]),
            )


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Pearson's correlation; 0 where one of the two does not vary."""
    mean_a, mean_b = math.fsum(a) / len(a), math.fsum(b) / len(b)
    products = math.fsum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    squares = math.fsum((x - mean_a) ** 2 for x in a) * math.fsum((y - mean_b) ** 2 for y in b)
    return products / math.sqrt(squares) if squares else 0.0


def _sums(rows: Iterable[PrintedNumber]) -> Iterator[str]:
    """Yield what of a user study's percentages does not make 100, within rounding."""
    cells: dict[tuple[str, ...], list[PrintedNumber]] = {}
    for row in rows:
        place = (row.paper, row.table, row.dataset, row.setting, row.metric, row.emotion)
        cells.setdefault(place, []).append(row)
    for where, found in cells.items():
        total = sum(row.number for row in found)
        if abs(Fraction(total) - 100) > sum(map(_unit, found)) + EXACT * 100:
            yield f"{' '.join(filter(None, where))}: {' + '.join(r.value for r in found)} = {total}"


# ---- printing ------------------------------------------------------------------------------


class Finding(NamedTuple):
    """One line of the CSV."""

    check: str
    where: str
    beside: str
    printed: str
    other: str
    note: str


def findings(found: Audit) -> Iterator[Finding]:
    """Yield every finding as one line."""
    for a in found.averages:
        note = f"off by {a.off:+.4f}" + (f"; {a.explained} may explain it" if a.explained else "")
        yield Finding("average", str(a.series), "", str(a.printed), f"{a.mean:.4f}", note)
    for d in found.disagreements:
        yield Finding(
            "disagreement",
            f"{d.series} {d.emotion}",
            f"{d.other} {d.emotion}",
            str(d.value),
            str(d.other_value),
            _said(d),
        )
    for text in found.not_hundred:
        yield Finding("sum", text, "", "", "100", "")
    for r in found.repeats:
        yield Finding(f"repeat-{r.kind}", r.first, r.second, r.values, r.values, "")
    for loss in found.losses:
        if loss.emotions:
            yield Finding(
                "loss",
                str(loss.series),
                loss.baseline,
                str(len(loss.emotions)),
                str(loss.cells),
                " ".join(loss.emotions),
            )
    for near in found.nears:
        if near.flagged:
            yield Finding(
                "near-duplicate",
                str(near.first),
                str(near.second),
                f"{near.distance:.4f}",
                " ".join(f"{g:.4f}" for g in near.gains),
                f"r {near.correlation:.3f}",
            )


def _said(d: Disagreement) -> str:
    exactly = ", exactly" if abs(d.off) == 1 else ""
    fits = {
        "first": "the averages follow from the first",
        "second": "the averages follow from the second",
        "both": "the averages follow from both",
        "neither": "the averages follow from neither",
    }
    return f"off by {d.off:+}{exactly}" + (f"; {fits[d.fits]}" if d.fits else "")


def audit_csv(found: Audit) -> str:
    """Return one finding a line: check, where, beside, printed, other, note."""
    return csv_text([Finding._fields, *findings(found)])


_TITLE = """# Audit of printed tables

Made by `spfem-bench audit --format markdown`, on the digits as printed."""


class Section(NamedTuple):
    """One part of the printed audit: what was asked, the answer, and its lines."""

    title: str
    answer: str
    heads: tuple[str, ...] = ()
    lines: tuple[tuple[str, ...], ...] = ()


def audit_text(found: Audit, *, markdown: bool = False) -> str:
    """Return the whole audit for readers."""
    from tabulate import tabulate

    parts = [_TITLE] if markdown else []
    for section in sections(found):
        title = f"## {section.title}" if markdown else section.title.upper()
        lines = [title, "", section.answer]
        if section.lines:
            style = "github" if markdown else "simple"
            body = [
                list(map(markdown_escape, x)) if markdown else list(map(one_line, x))
                for x in section.lines
            ]
            lines += ["", tabulate(body, section.heads, tablefmt=style, disable_numparse=True)]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def sections(found: Audit) -> list[Section]:
    """Return the audit part by part, contradictions first."""
    n_numbers = sum(n for _, n in found.tables)
    cells = [loss for loss in found.losses if loss.cells > 1]
    alone = [loss for loss in found.losses if loss.cells == 1]
    lost, of = sum(len(x.emotions) for x in cells), sum(x.cells for x in cells)
    averages = sum(AVERAGE in x.emotions for x in cells)
    repeats = {
        kind: [r for r in found.repeats if r.kind == kind]
        for kind in ("series", "column", "methods", "row", "scattered")
    }
    flagged = [near for near in found.nears if near.flagged]
    said = [
        Section(
            "Tables",
            f"{n_numbers} numbers; {found.contradictions} contradictions.",
            ("table", "numbers"),
            tuple((name, str(n)) for name, n in found.tables),
        ),
        Section(
            "Averages that do not follow from their rows",
            f"Of {found.n_averages} averages {found.n_averages - len(found.averages)} are the mean "
            "of their row, rounded to the printed decimals.",
            ("row", "printed", "mean", "printed - mean", "may be explained by"),
            tuple(
                (
                    str(a.series),
                    str(a.printed),
                    f"{a.mean:.4f}",
                    f"{a.off:+.4f}",
                    a.explained or "–",
                )
                for a in found.averages
            ),
        ),
        Section(
            "Cells that disagree between tables",
            f"{found.n_shared} pairs of equal cells; {len(found.disagreements)} disagree, "
            f"{len(found.other_decimals)} are equal but printed with other decimals.",
            ("cell", "first", "second", "in", "what"),
            tuple(
                (
                    f"{d.series} {d.emotion}",
                    str(d.value),
                    str(d.other_value),
                    str(d.other),
                    _said(d),
                )
                for d in found.disagreements
            ),
        ),
    ]
    if found.other_decimals:
        said.append(
            Section("Equal, with other decimals", "\n".join(f"- {x}" for x in found.other_decimals))
        )
    if found.not_hundred:
        said.append(
            Section(
                "Preferences that do not sum to 100", "\n".join(f"- {x}" for x in found.not_hundred)
            )
        )
    answers = {
        "series": ("Rows equal to another method's", "Whole rows of one metric."),
        "column": (
            "Emotions equal in all metrics",
            "Two columns of one method, such as an emotion copied from the average.",
        ),
        "methods": (
            "Cells equal between two methods on one backbone",
            "Tables pooled; a few are expected among numbers that lie close.",
        ),
        "row": (
            "Equal numbers within one row",
            f"With at least {SIGNIFICANT} digits, the average included.",
        ),
        "scattered": (
            "Equal numbers in other places of one table",
            f"Different methods, with at least {SIGNIFICANT} digits; chance alone makes some.",
        ),
    }
    for kind, (title, answer) in answers.items():
        counted = f"{answer} {len(repeats[kind]) or 'None'} found."
        lines = tuple((r.first, r.second, r.values) for r in repeats[kind])
        said.append(Section(title, counted, ("cell", "cell", "value"), lines))
    only = f" Of rows with an average alone: {sum(len(x.emotions) for x in alone)} of {len(alone)}."
    said.append(
        Section(
            "Where the proposal is worse than its own baseline",
            f"{lost} of {of} cells in rows that print emotions; {averages} of them are averages."
            + (only if alone else "")
            + " The baseline is the same table's.",
            ("row", "baseline", "worse", "of", "emotions"),
            tuple(
                (
                    str(x.series),
                    x.baseline,
                    str(len(x.emotions)),
                    str(x.cells),
                    ", ".join(x.emotions),
                )
                for x in found.losses
                if x.emotions
            ),
        )
    )
    said.append(
        Section(
            "Near-duplicate rows",
            f"{len(flagged)} of {len(found.nears)} pairs of variants of one backbone: their gains "
            f"over the baseline correlate by more than {NEAR_CORRELATION}, and they differ by less "
            f"than {NEAR_SHARE:.0%} of both gains (means of absolute differences over emotions).",
            ("row", "row", "difference", "largest", "gains", "r"),
            tuple(
                (
                    str(n.first),
                    str(n.second),
                    f"{n.distance:.4f}",
                    f"{n.largest:.3f}",
                    f"{n.gains[0]:.4f}, {n.gains[1]:.4f}",
                    f"{n.correlation:.3f}",
                )
                for n in flagged
            ),
        )
    )
    return said
