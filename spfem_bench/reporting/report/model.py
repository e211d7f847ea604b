"""What a report shows, taken out of run records: plain values, no markup."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from spfem_bench.analysis.comparing import Comparison, compare_runs
from spfem_bench.definitions.metrics import MetricCard, metric_card
from spfem_bench.definitions.protocols import in_order
from spfem_bench.errors import CardError
from spfem_bench.evaluation.record import RecordedItem, RunRecord, Score
from spfem_bench.reporting.tables import Table, make_table
from spfem_bench.statistics.base import MetricKind

MOST_DRAWN = 2000
"""Points of each method that a plot of all clips has room for."""


@dataclass(frozen=True)
class ReportRun:
    """One run record; its number in its section, from 0, gives its points' colour and mark."""

    record: RunRecord
    number: int

    @property
    def name(self) -> str:
        """The method's name."""
        return self.record.method.name

    @property
    def label(self) -> str:
        """The method's name as printed."""
        return self.record.method.label

    @property
    def is_control(self) -> bool:
        """Whether it is a control, with a known answer."""
        return self.record.is_control

    @property
    def faces(self) -> Literal["detect", "aligned"]:
        """How faces were found: in all metrics alike."""
        return next((s.faces.faces for s in self.record.settings.values()), "detect")

    @cached_property
    def scores(self) -> Mapping[tuple[str, str], Score]:
        """Scores by metric and emotion."""
        return {(s.metric, s.emotion): s for s in self.record.scores}

    @cached_property
    def items(self) -> Mapping[str, RecordedItem]:
        """Items by id."""
        return {item.id: item for item in self.record.items}

    @cached_property
    def values(self) -> Mapping[str, Mapping[str, float]]:
        """By metric, the value of each scored item; none in metrics of whole sets.

        Raises CardError when the record is damaged: a value cannot be computed, or is not finite.
        """
        values: dict[str, dict[str, float]] = {}
        kinds: dict[str, MetricKind[Any]] = {}
        for item in self.record.items:
            for metric, kept in item.metrics.items():
                if metric not in kinds:
                    kinds[metric] = self.record.kind_of(metric)
                try:
                    value = kinds[metric].read_value(kept)
                    problem = "it is no finite number"
                except CardError as error:
                    value, problem = math.nan, error.problem
                if value is not None and not math.isfinite(value):
                    raise CardError(
                        f"a run record is damaged: {self.name} on {self.record.protocol.name}: "
                        f"{metric} of the item '{item.id}': {problem}",
                        "Run the evaluation again",
                    )
                if value is not None:
                    values.setdefault(metric, {})[item.id] = value
        return values

    def command(self) -> str:
        """Return what to type to make the run again; own clips' folder is left to the reader."""
        record = self.record
        words = ["spfem-bench", "eval", "--method", self.name]
        words += ["--protocol", record.protocol.name, "--profile", record.profile]
        words += ["--metrics", ",".join(record.settings)] if record.settings else []
        words += ["--partial"] if record.partial else []
        device = record.environment.device
        words += ["--device", device] if device != "cpu" else []
        return shlex.join(words)


@dataclass(frozen=True)
class Example:
    """An item that a method does worst or best (rank 1), and the best comparable other method."""

    run: ReportRun
    metric: str
    item: str
    value: float
    rank: int
    of: int
    rival: ReportRun | None


@dataclass(frozen=True)
class ReportSection:
    """The runs of one protocol through one profile."""

    protocol: str
    profile: str
    runs: tuple[ReportRun, ...]

    @cached_property
    def table(self) -> Table:
        """The section's numbers as a table, with published rows and what is best.

        Raises CardError for two records of one method.
        """
        return make_table([run.record for run in self.runs])

    @cached_property
    def metrics(self) -> tuple[MetricCard, ...]:
        """The metrics that have a number."""
        names = (metric for run in self.runs for metric in run.record.metrics)
        return tuple(metric_card(name) for name in dict.fromkeys(names))

    @cached_property
    def emotions(self) -> tuple[str, ...]:
        """The emotions that have scores, in the papers' order; the average last."""
        return tuple(in_order(e for run in self.runs for _, e in run.scores))

    @cached_property
    def items(self) -> Mapping[str, RecordedItem]:
        """Items by id, in the order of the lists."""
        return {id_: item for run in self.runs for id_, item in run.items.items()}

    @cached_property
    def drawn(self) -> tuple[str, ...]:
        """The items whose values are drawn as points: all, or some with each method's extremes."""
        ids = list(self.items)
        chosen = set(ids[:: max(1, -(-len(ids) // MOST_DRAWN))])
        for values in (values for run in self.runs for values in run.values.values()):
            chosen |= {min(values, key=values.__getitem__), max(values, key=values.__getitem__)}
        return tuple(id_ for id_ in ids if id_ in chosen)

    def listed(self, run: ReportRun) -> Mapping[str, RecordedItem]:
        """Return a run's items that are in tables: those that are drawn."""
        drawn = frozenset(self.drawn)
        return {id_: item for id_, item in run.items.items() if id_ in drawn}

    @cached_property
    def by_item(self) -> tuple[MetricCard, ...]:
        """The metrics of which single items have values."""
        return tuple(m for m in self.metrics if any(m.name in run.values for run in self.runs))

    def speakers(self, metric: str) -> Mapping[str, Mapping[int, tuple[float, int]]]:
        """Return, by speaker and run number, the mean over items and how many they are."""
        values: dict[str, dict[int, list[float]]] = {}
        for run in self.runs:
            for id_, value in run.values.get(metric, {}).items():
                of_speaker = values.setdefault(self.items[id_].speaker, {})
                of_speaker.setdefault(run.number, []).append(value)
        return {
            name: {n: (sum(v) / len(v), len(v)) for n, v in values[name].items()}
            for name in sorted(values)
        }

    @property
    def shown(self) -> tuple[ReportRun, ...]:
        """The methods whose items are looked at: controls only where there is nothing else."""
        return tuple(run for run in self.runs if not run.is_control) or self.runs

    def differences(self, baseline: str) -> tuple[Comparison | None, Mapping[str, str]]:
        """Compare methods clip by clip with the baseline, else the first; one alone, with controls.

        Returns differences of the runs that were made alike on the same clips, None where there
        are none; and why others cannot be compared, by label. Runs without a number take no part.
        """
        scored = [run for run in self.runs if run.record.metrics]
        runs = [run for run in scored if run in self.shown]
        runs = runs if len(runs) > 1 else scored
        if not runs:
            return None, {}
        first = next((run for run in scored if run.name == baseline), runs[0])
        kept, refused = [first.record], {}
        for other in runs:
            if other is first:
                continue
            try:
                compare_runs([first.record, other.record], resamples=1)
            except CardError as error:
                refused[other.label] = error.problem
            else:
                kept.append(other.record)
        return (compare_runs(kept) if len(kept) > 1 else None), refused

    def examples(self, run: ReportRun, metric: MetricCard, count: int) -> tuple[list[Example], ...]:
        """Return a method's worst and its best items, at most *count* of each, none twice."""
        values = run.values.get(metric.name, {})
        order = sorted(values, key=lambda id_: (metric.badness(values[id_]), id_))
        best = order[: min(count, (len(order) + 1) // 2)]
        worst = order[len(best) :][::-1][:count]

        def example(rank: int, id_: str) -> Example:
            rival = self._rival(run, metric, id_)
            return Example(run, metric.name, id_, values[id_], rank, len(order), rival)

        return tuple([example(r, i) for r, i in enumerate(ids, 1)] for ids in (worst, best))

    def _rival(self, run: ReportRun, metric: MetricCard, item: str) -> ReportRun | None:
        scored = [r for r in self.runs if r is not run and item in r.values.get(metric.name, {})]
        # Values may be compared where all that can move them is equal.
        settings = run.record.settings.get(metric.name)
        others = [r for r in scored if settings and r.record.settings.get(metric.name) == settings]
        return min(
            [other for other in others if not other.is_control] or others,
            key=lambda other: metric.badness(other.values[metric.name][item]),
            default=None,
        )


def sections(records: Sequence[RunRecord]) -> tuple[ReportSection, ...]:
    """Sort records into sections, in the order in which protocols and profiles first come.

    Raises CardError for no records, two of one method, or a damaged one.
    """
    if not records:
        raise CardError("no run record", "Give files that 'spfem-bench eval' wrote")
    groups: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        groups.setdefault((record.protocol.name, record.profile), []).append(record)
    made = tuple(
        ReportSection(*key, tuple(ReportRun(record, n) for n, record in enumerate(group)))
        for key, group in groups.items()
    )
    for section in made:  # damage is found before anything is written
        _ = section.table, section.by_item, [run.values for run in section.runs]
    return made
