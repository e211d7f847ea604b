"""Contradictions and oddities in printed tables, in exact arithmetic on the printed digits."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from itertools import combinations
from typing import Literal, NamedTuple, TypeAlias

from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.definitions.published import Printed, PrintedNumber
from spfem_bench.errors import CardError, UnknownNameError

NEAR_CORRELATION = 0.99
"""The gains of near-duplicate variants over the baseline correlate by more than this."""

NEAR_SHARE = 0.15
"""Near-duplicate variants differ by less than this part of either's distance to the baseline."""

SIGNIFICANT = 4
"""Equal numbers within one row or table are reported from this many digits on."""

_FLOAT_ERROR = Fraction(1, 10**12)  # relative, of numbers at full precision


class Series(NamedTuple):
    """One row of numbers: all emotions of a method in a metric."""

    paper: str
    table: str
    dataset: str
    setting: str
    method: str
    metric: str

    def __str__(self) -> str:
        place = f"{self.paper} table {self.table}" if self.table else self.paper
        return " ".join(filter(None, [place, *self[2:]]))


_Cells: TypeAlias = "dict[str, PrintedNumber]"  # by emotion
_Table: TypeAlias = "Mapping[Series, _Cells]"
_Backbones: TypeAlias = "Mapping[Series, str]"


@dataclass(frozen=True)
class WrongAverage:
    """A printed average that is not the mean of its row.

    Attributes:
        possible: rounding of every cell could still explain it.
        by_one: one cell misprinted by exactly 1 would explain it.
    """

    series: Series
    printed: Decimal
    mean: float
    possible: bool
    by_one: bool

    @property
    def explained(self) -> str:
        """A possible explanation; empty without one."""
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
        fits: the value from which the printed averages follow: first, second, both or neither;
            empty where no average can be checked.
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
    """Numbers printed in two places.

    Attributes:
        kind: ``series`` (a whole row is another method's), ``column`` (two emotions of one
            method are equal in all metrics), ``methods`` (the same cell of two methods on
            one backbone), ``row`` (two emotions of one row) or ``scattered`` (different
            cells of different methods of one table).
    """

    kind: Literal["series", "column", "methods", "row", "scattered"]
    first: str
    second: str
    values: str


@dataclass(frozen=True)
class Loss:
    """A row of a proposed method compared with its own baseline's.

    Attributes:
        emotions: the cells that are worse, of ``cells`` that could be compared.
    """

    series: Series
    baseline: str
    emotions: tuple[str, ...]
    cells: int


@dataclass(frozen=True)
class VariantPair:
    """Two variants of one backbone.

    Attributes:
        distance: mean absolute difference between the two over the emotions, and the largest.
        gains: mean absolute differences of each from the baseline. Of a baseline printed twice,
            the print whose average follows counts.
        correlation: Pearson's, between the two differences from the baseline.
    """

    first: Series
    second: Series
    distance: float
    largest: float
    gains: tuple[float, float]
    correlation: float

    @property
    def near_duplicate(self) -> bool:
        """Whether the two are near-duplicates."""
        near = all(self.distance < NEAR_SHARE * gain for gain in self.gains)
        return near and self.correlation > NEAR_CORRELATION


@dataclass(frozen=True)
class Audit:
    """All findings in some tables.

    Attributes:
        tables: name and count of numbers of each.
        averages: those that do not follow from their rows, of ``n_averages`` checked.
        disagreements: cells with two values, of ``n_shared`` that two tables print.
        losses: every compared row, also those without a worse cell.
        wrong_sums: pairs of preferences whose sum is not 100 percent.
    """

    tables: tuple[tuple[str, int], ...]
    n_averages: int
    averages: tuple[WrongAverage, ...]
    n_shared: int
    disagreements: tuple[Disagreement, ...]
    other_decimals: tuple[str, ...]
    repeats: tuple[Repeat, ...]
    losses: tuple[Loss, ...]
    variants: tuple[VariantPair, ...]
    wrong_sums: tuple[str, ...]

    @property
    def contradictions(self) -> int:
        """Number of findings that no correct table has."""
        repeated = sum(r.kind in ("series", "column") for r in self.repeats)
        averages = sum(not a.possible for a in self.averages)
        return averages + len(self.disagreements) + len(self.wrong_sums) + repeated


def audit(tables: Sequence[Printed]) -> Audit:
    """Audit printed tables, each by itself and against each other.

    Raises:
        CardError: one table is given twice.
    """
    series, backbones = _rows(row for table in tables for row in table.rows)
    disagreements, other_decimals, shared = [], [], list(_shared_cells(series))
    for first, second, emotion in shared:
        one, two = series[first][emotion], series[second][emotion]
        if one.number != two.number:
            disagreements.append(_disagreement(series, first, second, emotion))
        elif one.value != two.value:
            other_decimals.append(f"{first} {emotion}: {one.value}; {second}: {two.value}")
    return Audit(
        tuple((table.name, len(table.rows)) for table in tables),
        sum(_follows(cells) is not None for cells in series.values()),
        tuple(_wrong_average(s, c) for s, c in series.items() if _follows(c) is False),
        len(shared),
        tuple(disagreements),
        tuple(other_decimals),
        tuple(_repeats(series, backbones)),
        tuple(_losses(series, backbones)),
        tuple(_variants(series, backbones)),
        tuple(_wrong_sums(row for table in tables if table.percent for row in table.rows)),
    )


def _rows(numbers: Iterable[PrintedNumber]) -> tuple[_Table, _Backbones]:
    table: dict[Series, _Cells] = {}
    backbones: dict[Series, str] = {}
    for n in numbers:
        row = Series(n.paper, n.table, n.dataset, n.setting, n.method, n.metric)
        if n.emotion in table.setdefault(row, {}):
            problem = f"two files print {row} {n.emotion} of one paper and table"
            remedy = "say in the columns 'paper' and 'table' which is which"
            raise CardError(problem, f"Give each table once, or {remedy}")
        table[row][n.emotion] = n
        backbones[row] = n.backbone
    return table, backbones


def _emotions(cells: _Cells) -> list[str]:
    return [e for e in cells if e != AVERAGE]


def _half_unit(number: PrintedNumber) -> Fraction:
    """Return half a unit of the last printed decimal: the largest error of rounding."""
    return Fraction(10) ** int(number.number.as_tuple().exponent) / 2


def _mean(cells: _Cells) -> Fraction:
    return statistics.mean(Fraction(cells[e].number) for e in _emotions(cells))


def _tolerance(cells: _Cells) -> Fraction:
    """Return the largest difference that rounding makes between a mean and its print."""
    printed = Fraction(cells[AVERAGE].number)
    return max(_half_unit(cells[AVERAGE]), abs(printed) * _FLOAT_ERROR)


def _follows(cells: _Cells) -> bool | None:
    """Return whether the average is the rounded mean of its row; None if it has too few cells."""
    if AVERAGE not in cells or len(cells) < 3:
        return None
    return abs(Fraction(cells[AVERAGE].number) - _mean(cells)) <= _tolerance(cells)


def _wrong_average(series: Series, cells: _Cells) -> WrongAverage:
    mean, tolerance, count = _mean(cells), _tolerance(cells), len(cells) - 1
    rounding = statistics.mean(_half_unit(cells[e]) for e in _emotions(cells))
    off = abs(Fraction(cells[AVERAGE].number) - mean)
    possible, by_one = off <= tolerance + rounding, abs(off * count - 1) <= tolerance * count
    return WrongAverage(series, cells[AVERAGE].number, float(mean), possible, by_one)


def _shared_cells(table: _Table) -> Iterator[tuple[Series, Series, str]]:
    """Yield each cell that two tables print: the rows of the earlier and the later print."""
    prints: dict[tuple[str, ...], list[Series]] = {}
    for row, cells in table.items():
        for earlier in prints.setdefault(row[2:], []):
            yield from ((earlier, row, e) for e in cells if e in table[earlier])
        prints[row[2:]].append(row)


def _disagreement(table: _Table, first: Series, second: Series, emotion: str) -> Disagreement:
    one, two = table[first], table[second]
    follows = (_follows(one), _follows(two))
    fits = ""
    if emotion != AVERAGE and None not in follows and one[AVERAGE].number == two[AVERAGE].number:
        words = {(True, False): "first", (False, True): "second", (True, True): "both"}
        fits = words.get((bool(follows[0]), bool(follows[1])), "neither")
    return Disagreement(first, emotion, one[emotion].number, second, two[emotion].number, fits)


def _is_significant(number: PrintedNumber) -> bool:
    return len(number.number.as_tuple().digits) >= SIGNIFICANT


def _repeats(table: _Table, backbones: _Backbones) -> Iterator[Repeat]:
    yield from _repeated_series(table)
    yield from _repeated_columns(table)
    yield from _repeated_methods(table, backbones)
    for row, cells in table.items():
        for a, b in combinations(cells, 2):
            if cells[a].number == cells[b].number and _is_significant(cells[a]):
                yield Repeat("row", f"{row} {a}", f"{row} {b}", cells[a].value)
    yield from _scattered_repeats(table)


def _repeated_series(table: _Table) -> Iterator[Repeat]:
    for (a, one), (b, two) in combinations(table.items(), 2):
        shared = [e for e in _emotions(one) if e in two]
        if a.method == b.method or a.metric != b.metric or len(shared) < 3:
            continue
        if all(one[e].number == two[e].number for e in shared):
            yield Repeat("series", str(a), str(b), " ".join(one[e].value for e in shared))


def _repeated_columns(table: _Table) -> Iterator[Repeat]:
    groups: dict[Series, list[_Cells]] = {}
    for row, cells in table.items():
        groups.setdefault(row._replace(metric=""), []).append(cells)
    for row, metrics in groups.items():
        emotions = [e for e in metrics[0] if all(e in cells for cells in metrics)]
        for a, b in combinations(emotions, 2):
            if len(metrics) > 1 and all(c[a].number == c[b].number for c in metrics):
                values = " / ".join(c[a].value for c in metrics)
                yield Repeat("column", f"{row} {a}", f"{row} {b}", values)


def _repeated_methods(table: _Table, backbones: _Backbones) -> Iterator[Repeat]:
    pooled: dict[tuple[str, ...], dict[str, _Cells]] = {}
    for row, cells in table.items():
        if backbone := backbones[row]:
            methods = pooled.setdefault((row.dataset, row.setting, row.metric, backbone), {})
            first = methods.setdefault(row.method, {})
            first.update({e: cell for e, cell in cells.items() if e not in first})
    for (dataset, setting, metric, _), methods in pooled.items():
        for (a, one), (b, two) in combinations(methods.items(), 2):
            for e in one:
                if e in two and one[e].number == two[e].number:
                    place = f"{dataset} {setting} {metric} {e}"
                    yield Repeat("methods", f"{place} {a}", f"{place} {b}", one[e].value)


def _scattered_repeats(table: _Table) -> Iterator[Repeat]:
    places: dict[tuple[str, str, str, str, Decimal], list[tuple[Series, str]]] = {}
    for row, cells in table.items():
        for e, cell in cells.items():
            if _is_significant(cell):
                key = (row.paper, row.table, row.dataset, row.metric, cell.number)
                places.setdefault(key, []).append((row, e))
    for (*_, number), equal in places.items():
        for (a, e), (b, f) in combinations(equal, 2):
            if a.method != b.method and (a.setting, e) != (b.setting, f):
                yield Repeat("scattered", f"{a} {e}", f"{b} {f}", str(number))


def _with_baselines(table: _Table, backbones: _Backbones) -> Iterator[tuple[Series, Series]]:
    for row in table:
        baseline = row._replace(method=backbones[row])
        if backbones[row] not in ("", row.method) and baseline in table:
            yield row, baseline


def _losses(table: _Table, backbones: _Backbones) -> Iterator[Loss]:
    for row, baseline in _with_baselines(table, backbones):
        try:
            badness = metric_card(row.metric).badness
        except UnknownNameError:
            continue  # no card says which way is better
        own, base = table[row], table[baseline]
        shared = [e for e in own if e in base]
        worse = tuple(e for e in shared if badness(own[e].number) > badness(base[e].number))
        yield Loss(row, baseline.method, worse, len(shared))


def _variants(table: _Table, backbones: _Backbones) -> Iterator[VariantPair]:
    prints: dict[tuple[str, ...], list[_Cells]] = {}
    for row, cells in table.items():
        if len(_emotions(cells)) > 2:
            prints.setdefault(row[2:], []).append(cells)
    variants: dict[tuple[str, ...], list[Series]] = {}
    for row, baseline in _with_baselines(table, backbones):
        if len(_emotions(table[row])) > 2 and baseline[2:] in prints:
            variants.setdefault(baseline[2:], []).append(row)
    for key, rows in variants.items():
        base = next((c for c in prints[key] if _follows(c) is not False), prints[key][0])
        for a, b in combinations(rows, 2):
            shared = [e for e in _emotions(base) if e in table[a] and e in table[b]]
            if a.method == b.method or len(shared) < 3:
                continue
            one, two = (
                [float(table[r][e].number - base[e].number) for e in shared] for r in (a, b)
            )
            between = [abs(float(table[a][e].number - table[b][e].number)) for e in shared]
            mean = sum(between) / len(shared)
            gains = (sum(map(abs, one)) / len(one), sum(map(abs, two)) / len(two))
            yield VariantPair(a, b, mean, max(between), gains, _correlation(one, two))


def _correlation(a: Sequence[float], b: Sequence[float]) -> float:
    """Return Pearson's correlation; 0 where one of the two does not vary."""
    try:
        return statistics.correlation(a, b)
    except statistics.StatisticsError:
        return 0.0


def _wrong_sums(numbers: Iterable[PrintedNumber]) -> Iterator[str]:
    """Yield the percentages of a user study whose sum is not 100, within rounding."""
    cells: dict[tuple[str, ...], list[PrintedNumber]] = {}
    for n in numbers:
        place = (n.paper, n.table, n.dataset, n.setting, n.metric, n.emotion)
        cells.setdefault(place, []).append(n)
    for where, shares in cells.items():
        total = sum(n.number for n in shares)
        if abs(Fraction(total) - 100) > sum(map(_half_unit, shares)) + _FLOAT_ERROR * 100:
            values = " + ".join(n.value for n in shares)
            yield f"{' '.join(filter(None, where))}: {values} = {total}"
