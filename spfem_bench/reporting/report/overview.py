"""The parts of a section that are tables: overview, differences, failures, provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.evaluation.record import Score, unverified
from spfem_bench.reporting.report import words
from spfem_bench.reporting.report.model import ReportRun, ReportSection
from spfem_bench.reporting.report.words import clips_text, number_text, settings_lines
from spfem_bench.reporting.tables import LEGEND, MARKS, TableColumn
from spfem_bench.texts import count_text

_LEGEND = LEGEND | {
    "published": "† published, not computed here: other networks, clips and decoding; never "
    "compared with the rows above"
}


@dataclass(frozen=True)
class OverviewCell:
    """One number of the overview; ``note`` is the number of a note below."""

    text: str = ""
    best: bool = False
    mark: str = ""
    note: int | None = None
    interval: str = ""
    count: str = ""


@dataclass(frozen=True)
class OverviewRow:
    """One method of the overview; ``run`` is None of a published one."""

    run: ReportRun | None
    label: str
    cells: tuple[OverviewCell, ...]
    mark: str = ""
    count: str = ""


@dataclass
class Overview:
    """Headline scores of a section: groups of rows with titles, and notes with their numbers."""

    section: ReportSection
    notes: dict[str, int] = field(default_factory=dict)
    groups: list[tuple[str, list[OverviewRow]]] = field(init=False)

    def __post_init__(self) -> None:
        rows = [self._row(run) for run in self.section.runs]
        self.groups = [
            ("Methods", [r for r in rows if r.run and not r.run.is_control]),
            ("Controls, whose answer is known", [r for r in rows if r.run and r.run.is_control]),
            ("Published, same recipe", self._published("recipe")),
            ("Published, on other clips", self._published("published", "second-hand")),
        ]

    def _row(self, run: ReportRun) -> OverviewRow:
        averages = [run.scores.get((m.name, AVERAGE)) for m in self.section.metrics]
        counts = {clips_text(s) for s in averages if s is not None and s.value is not None}
        differ = len(counts) > 1
        cells = tuple(self._cell(run, s, counted=differ) for s in averages)
        mark, count = MARKS["control"] if run.is_control else "", next(iter(counts), "")
        return OverviewRow(run, run.label, cells, mark, "" if differ else count)

    def _cell(self, run: ReportRun, score: Score | None, *, counted: bool) -> OverviewCell:
        if score is None:
            return OverviewCell()
        note = self.notes.setdefault(score.note, len(self.notes) + 1) if score.note else None
        if score.value is None:
            return OverviewCell(note=note)
        table = self.section.table
        block = next(block for block, emotion in table.rows if emotion == AVERAGE)
        ranks = table.ranks(block, AVERAGE, score.metric)
        best = any(rank == 1 and column.method == run.name for column, rank in ranks.items())
        mark, interval = "*" if score.partial else "", words.interval_text(score.low, score.high)
        count = clips_text(score) if counted else ""
        return OverviewCell(number_text(score.value), best, mark, note, interval, count)

    def _published(self, *kinds: str) -> list[OverviewRow]:
        def cell(column: TableColumn, metric: str) -> OverviewCell:
            for key, one in self.section.table.cells.items():
                if key[1:] == (AVERAGE, column, metric) and one.value is not None:
                    return OverviewCell(one.printed, mark=one.mark)
            return OverviewCell()

        names = [metric.name for metric in self.section.metrics]
        return [
            OverviewRow(None, column.label, tuple(cell(column, name) for name in names))
            for column in self.section.table.columns
            if column.kind in kinds
        ]

    @property
    def legend(self) -> list[str]:
        """What the marks stand for, and which metrics have no number."""
        section = self.section
        present = {column.kind for column in section.table.columns}
        marks = {cell.mark for _, rows in self.groups for row in rows for cell in row.cells}
        present |= {kind for kind, mark in (("partial", "*"), ("doubt", "?")) if mark in marks}
        every = dict.fromkeys(metric for run in section.runs for metric, _ in run.scores)
        none = [c.label for c in map(metric_card, every) if c not in section.metrics]
        lines = [text for kind, text in _LEGEND.items() if kind in present]
        missing = f"No number at all: {', '.join(none)}; why is said under Missing and refused"
        return [*lines, *([missing] if none else [])]


def facts(section: ReportSection) -> str:
    """Return what a section's runs were made on, in one line."""
    protocols = [run.record.protocol for run in section.runs]
    versions = sorted({str(p.version) for p in protocols})
    speakers = {item.speaker for item in section.items.values()}
    emotions = [e for e in section.emotions if e != AVERAGE]
    parts = ((section.items, "clip"), (speakers, "speaker"), (emotions, "emotion"))
    counts = ", ".join(count_text(len(part), noun) for part, noun in parts)
    version = f"version {' and '.join(versions)}"
    first = f"{protocols[0].setting}, {version}, profile {section.profile}: {counts}"
    return "; ".join([first, *unverified(run.record for run in section.runs)])


def signatures(section: ReportSection) -> list[tuple[str, str, str]]:
    """Return metric, signature and methods of each headline score, equal ones together."""
    labels: dict[tuple[str, str], list[str]] = {}
    for metric in section.metrics:
        for run in section.runs:
            score = run.scores.get((metric.name, AVERAGE))
            if score is not None and score.signature:
                labels.setdefault((metric.label, score.signature), []).append(run.label)
    return [(metric, signature, ", ".join(of)) for (metric, signature), of in labels.items()]


def differences(section: ReportSection, baseline: str) -> dict[str, Any]:
    """Return the methods beside the baseline, each with its rows; empty for a single run."""
    comparison, refused = section.differences(baseline)
    if comparison is None:
        content: dict[str, Any] = {"baseline": None, "others": [], "notes": (), "refused": refused}
        return content if refused else {}
    runs = {run.name: run for run in section.runs}
    rows = [(metric_card(row.metric), row) for row in comparison.rows]
    return {
        "baseline": runs[comparison.baseline],
        "others": [(runs[n], [r for r in rows if r[1].b == n]) for n in comparison.others],
        "notes": comparison.notes,
        "refused": refused,
    }


def failures(section: ReportSection) -> list[dict[str, str]]:
    """Return what has no score, why, and what to do about it."""

    def row(method: str, item: str, metrics: Sequence[str], reason: str, remedy: str) -> None:
        labels = ", ".join(metric_card(metric).label for metric in metrics)
        place = {"method": method, "item": item, "metrics": labels}
        rows.append(place | {"reason": reason, "remedy": remedy})

    rows: list[dict[str, str]] = []
    for run in section.runs:
        unscored: dict[str, list[str]] = {}
        for score in run.scores.values():
            if score.emotion == AVERAGE and score.value is None:
                unscored.setdefault(score.note, []).append(score.metric)
        for reason, metrics in unscored.items():
            row(run.label, "all", metrics, reason, "")
        for r in run.record.refused:
            row(run.label, f"{r.item}: {r.clip}", r.metrics, f"{r.kind}: {r.reason}", r.remedy)
        for name in run.record.extra:
            row(run.label, name, (), "extra: no item expects it", "Rename it, or take it away")
    return rows


def provenance(run: ReportRun) -> dict[str, Any]:
    """Return where a run's numbers come from: facts, weights, settings."""
    record = run.record
    software = {k: v for s in record.settings.values() for k, v in s.software.items()}
    weights: dict[tuple[str, str], list[str]] = {}
    for metric, settings in record.settings.items():
        for network in filter(None, (settings.network, settings.faces.detector)):
            hashes = " ".join(file.sha256 for file in network.files)
            weights.setdefault((network.name, hashes), []).append(metric_card(metric).label)
    control = record.method.control
    return {
        "facts": [
            ("Method", f"{run.name}, {record.method.kind}"),
            *([("Control", _pairs(dict(settings_lines(control))))] if control else []),
            ("Protocol", f"{record.protocol.name}, version {record.protocol.version}"),
            ("List, SHA-256", record.protocol.list_sha256),
            ("Complete", "yes" if record.complete else "no"),
            ("Begun", record.timings.started),
            ("Environment", _pairs(record.environment.plain())),
            ("Versions", _pairs(software)),
        ],
        "weights": [(name, ", ".join(m), hashes) for (name, hashes), m in weights.items()],
        "settings": [
            (metric_card(metric).label, settings_lines(settings.plain()))
            for metric, settings in record.settings.items()
        ],
    }


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {v}" for k, v in values.items() if v is not None)
