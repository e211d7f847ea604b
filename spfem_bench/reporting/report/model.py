"""What a report shows, taken out of run records: plain values, no markup."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from spfem_bench.definitions.metrics import MetricCard, metric_card
from spfem_bench.definitions.protocols import in_order
from spfem_bench.errors import CardError
from spfem_bench.evaluation.record import Score, item_value, scores
from spfem_bench.reporting.compare import Comparison, compare_runs
from spfem_bench.reporting.tables import Table, make_table

REQUIRED = {
    "": ("complete", "partial", "refused", "extra", "settings", "environment", "timings"),
    "method": ("name", "label", "kind", "control", "paper", "link"),
    "protocol": ("name", "version", "setting", "list_sha256"),
}
"""What a report prints of every run record, beside scores and items."""


@dataclass(frozen=True)
class Run:
    """One run record within its section.

    Attributes:
        record: as `spfem_bench.evaluation.record.load` gives it.
        number: its place in the section, from 0: the colour and mark of its points.
    """

    record: Mapping[str, Any]
    number: int

    @property
    def name(self) -> str:
        """The method's name."""
        return str(self.record["method"]["name"])

    @property
    def label(self) -> str:
        """The method's name as printed."""
        return str(self.record["method"]["label"])

    @property
    def is_control(self) -> bool:
        """Whether it is a control, with a known answer."""
        return bool(self.record["method"]["kind"] == "control")

    @property
    def faces(self) -> Literal["detect", "aligned"]:
        """How faces were found: in all metrics alike."""
        settings = next(iter(self.record["settings"].values()), {"faces": {"faces": "detect"}})
        return "aligned" if settings["faces"]["faces"] == "aligned" else "detect"

    @cached_property
    def scores(self) -> Mapping[tuple[str, str], Score]:
        """Scores by metric and emotion."""
        return {(s.metric, s.emotion): s for s in scores(self.record)}

    @cached_property
    def items(self) -> Mapping[str, Mapping[str, Any]]:
        """Items by id."""
        return {str(item["id"]): item for item in self.record["items"]}

    @cached_property
    def values(self) -> Mapping[str, Mapping[str, float]]:
        """By metric, the value of each scored item; none in metrics of whole sets."""
        found: dict[str, dict[str, float]] = {}
        for id_, item in self.items.items():
            for metric, components in item["metrics"].items():
                value = item_value(components, self.settings(metric)["metric"]["statistic"])
                if value is not None:
                    found.setdefault(metric, {})[id_] = value
        return found

    def settings(self, metric: str) -> Mapping[str, Any]:
        """Return all that can move a metric's number."""
        return dict(self.record["settings"][metric])

    def comparable(self, other: Run, metric: str) -> bool:
        """Whether items' values may be compared: everything that can move them is equal."""
        both = (self.record["settings"].get(metric), other.record["settings"].get(metric))
        return both[0] is not None and both[0] == both[1]


@dataclass(frozen=True)
class Example:
    """An item that a method does worst or best.

    Attributes:
        rank: from 1, worst or best first.
        of: items ranked.
        rival: the comparable method that does best on this item, another than the run.
    """

    run: Run
    metric: str
    item: str
    value: float
    rank: int
    of: int
    rival: Run | None


@dataclass(frozen=True)
class Section:
    """The runs of one protocol through one profile."""

    protocol: str
    profile: str
    runs: tuple[Run, ...]

    @property
    def title(self) -> str:
        """The section's name, for readers."""
        return f"{self.protocol}, profile {self.profile}"

    @cached_property
    def table(self) -> Table:
        """The section's numbers as a table, with published rows and what is best.

        Raises:
            CardError: two records of one method.
        """
        return make_table([run.record for run in self.runs])

    @cached_property
    def metrics(self) -> tuple[MetricCard, ...]:
        """The metrics that have a number."""
        found = (s.metric for r in self.runs for s in r.scores.values() if s.value is not None)
        return tuple(metric_card(name) for name in dict.fromkeys(found))

    @cached_property
    def emotions(self) -> tuple[str, ...]:
        """The emotions that have scores, in the papers' order; the average last."""
        return tuple(in_order(e for run in self.runs for _, e in run.scores))

    @cached_property
    def items(self) -> Mapping[str, tuple[str, str]]:
        """Speaker and emotion of each item, by id, in the order of the lists."""
        return {
            id_: (str(item["speaker"]), str(item["emotion"]))
            for run in self.runs
            for id_, item in run.items.items()
        }

    @cached_property
    def by_item(self) -> tuple[MetricCard, ...]:
        """The metrics of which single items have values."""
        return tuple(m for m in self.metrics if any(m.name in run.values for run in self.runs))

    def speakers(self, metric: str) -> Mapping[str, Mapping[int, tuple[float, int]]]:
        """Return, by speaker and run number, the mean over items and how many they are."""
        found: dict[str, dict[int, list[float]]] = {}
        for run in self.runs:
            for id_, value in run.values.get(metric, {}).items():
                of = found.setdefault(self.items[id_][0], {})
                of.setdefault(run.number, []).append(value)
        return {
            name: {n: (sum(v) / len(v), len(v)) for n, v in found[name].items()}
            for name in sorted(found)
        }

    @property
    def shown(self) -> tuple[Run, ...]:
        """The methods whose items are looked at: controls only where there is nothing else."""
        own = tuple(run for run in self.runs if not run.is_control)
        return own or self.runs

    def differences(self, baseline: str) -> tuple[Comparison | None, Mapping[str, str]]:
        """Compare methods clip by clip; with one method alone, it and the controls.

        Args:
            baseline: the method that the others are compared with; the first where it is not here.
                Runs without a number take no part.

        Returns:
            Differences of those that were made alike on the same clips, None where there are none;
            and why the others cannot be compared, by label.
        """
        scored = [r for r in self.runs if any(s.value is not None for s in r.scores.values())]
        runs = [run for run in scored if run in self.shown]
        runs = runs if len(runs) > 1 else scored
        if not runs:
            return None, {}
        first = next((run for run in scored if run.name == baseline), runs[0])
        others = [run for run in runs if run is not first]
        kept, refused = [first.record], {}
        for other in others:
            try:
                compare_runs([first.record, other.record], resamples=1)
            except CardError as error:
                refused[other.label] = error.problem
            else:
                kept.append(other.record)
        return (compare_runs(kept) if len(kept) > 1 else None), refused

    def examples(self, run: Run, metric: MetricCard, count: int) -> tuple[list[Example], ...]:
        """Return a method's worst and its best items, at most *count* of each, none twice."""
        values = run.values.get(metric.name, {})
        order = sorted(values, key=lambda id_: (metric.badness(values[id_]), id_))
        best = order[: min(count, (len(order) + 1) // 2)]
        worst = order[len(best) :][::-1][:count]

        def example(rank: int, id_: str) -> Example:
            rival = self._rival(run, metric, id_)
            return Example(run, metric.name, id_, values[id_], rank, len(order), rival)

        return tuple([example(r, i) for r, i in enumerate(ids, 1)] for ids in (worst, best))

    def _rival(self, run: Run, metric: MetricCard, item: str) -> Run | None:
        others = [
            other
            for other in self.runs
            if other is not run
            and item in other.values.get(metric.name, {})
            and run.comparable(other, metric.name)
        ]
        systems = [other for other in others if not other.is_control]
        return min(
            systems or others,
            key=lambda other: metric.badness(other.values[metric.name][item]),
            default=None,
        )


def sections(records: Sequence[Mapping[str, Any]]) -> tuple[Section, ...]:
    """Sort records into sections, in the order in which protocols and profiles first come.

    Raises:
        CardError: no records, two of one method, or a damaged one.
    """
    if not records:
        raise CardError("no run record", "Give files that 'spfem-bench eval' wrote")
    with undamaged():
        groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
        for record in records:
            groups.setdefault((record["protocol"]["name"], record["profile"]), []).append(record)
        found = tuple(
            Section(*key, tuple(Run(record, n) for n, record in enumerate(of)))
            for key, of in groups.items()
        )
        for section in found:
            _read(section)
    return found


@contextmanager
def undamaged() -> Iterator[None]:
    """Say that a run record is damaged, where something is missing or of another kind.

    Raises:
        CardError: so it is.
    """
    try:
        yield
    except (
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        ValueError,
        ZeroDivisionError,
    ) as error:
        raise CardError(
            f"a run record is damaged: {error!r}", "Run the evaluation again"
        ) from error


def _read(section: Section) -> None:
    """Take everything out of a section's records now, so that damage is found before writing."""
    table, metrics, items = section.table, section.metrics, section.items
    del table, metrics, items
    for run in section.runs:
        for part, names in REQUIRED.items():
            of = run.record[part] if part else run.record
            if missing := sorted(set(names) - set(of)):
                raise KeyError(f"{part}.{missing[0]}".lstrip("."))
        for score in run.scores.values():
            numbers = (score.value, score.low, score.high)
            if not all(n is None or math.isfinite(n) for n in numbers):
                raise CardError(
                    f"{run.name} on {section.protocol}: {score.metric} of '{score.emotion}' is no "
                    "finite number",
                    "Run the evaluation again",
                )
        for metric, values in run.values.items():
            bad = next((id_ for id_, v in values.items() if not math.isfinite(v)), None)
            if bad is not None:
                raise CardError(
                    f"{run.name} on {section.protocol}: {metric} of the item '{bad}' is no finite "
                    "number",
                    "Run the evaluation again",
                )


def commands(run: Run) -> list[str]:
    """Return what to type to make a run again; own clips' folder is left to the reader."""
    import shlex

    record = run.record
    metrics = ",".join(record["settings"])
    words = ["spfem-bench", "eval", "--method", run.name]
    words += ["--protocol", str(record["protocol"]["name"]), "--profile", str(record["profile"])]
    words += ["--metrics", metrics] if metrics else []
    words += ["--partial"] if record["partial"] else []
    device = str(record["environment"]["device"])
    words += ["--device", device] if device != "cpu" else []
    return [shlex.join(words)]
