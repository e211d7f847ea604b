"""The plots of a section, each with the table of its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from spfem_bench.definitions.metrics import MetricCard
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.reporting.report import charts
from spfem_bench.reporting.report.model import ReportSection
from spfem_bench.reporting.report.words import clips_text, interval_text, number_text
from spfem_bench.texts import count_text

MOST_SPEAKERS = 24  # that a plot has room for; all of them are in its table


def by_emotion(section: ReportSection) -> list[tuple[Any, ...]]:
    """Return, for each metric, its plot of scores by emotion; see :func:`_plot`."""
    plots = []
    for metric in section.metrics:
        groups: dict[str, dict[int, charts.Value]] = {}
        for emotion in section.emotions:
            name = "mean" if emotion == AVERAGE else emotion
            for run in section.runs:
                s = run.scores.get((metric.name, emotion))
                if s is not None and s.value is not None:
                    text = f"{name}: {number_text(s.value)} on {clips_text(s)} clips"
                    value = charts.Value(s.value, s.low, s.high, text)
                    groups.setdefault(name, {})[run.number] = value
        if groups:
            plots.append(_plot(section, metric, groups, len(groups)))
    return plots


def by_speaker(section: ReportSection) -> list[tuple[Any, ...]]:
    """Return, for each metric of single items, its plot of means by speaker."""
    plots = []
    for metric in section.by_item:
        groups: dict[str, dict[int, charts.Value]] = {}
        for name, means in section.speakers(metric.name).items():
            for number, (mean, count) in means.items():
                text = f"{name}: {number_text(mean)}, mean of {count_text(count, 'clip')}"
                groups.setdefault(name, {})[number] = charts.Value(mean, text=text)
        plots.append(_plot(section, metric, groups, MOST_SPEAKERS))
    return plots


def _plot(
    section: ReportSection,
    metric: MetricCard,
    groups: Mapping[str, Mapping[int, charts.Value]],
    most: int,
) -> tuple[MetricCard, charts.Dots, list[str], list[tuple[str, list[tuple[str, str]]]]]:
    """Return metric, plot of at most *most* groups, all groups, and the table by run."""

    def cell(value: charts.Value | None) -> tuple[str, str]:
        if value is None:
            return "–", ""
        return number_text(value.value), interval_text(value.low, value.high)

    plotted = dict(list(groups.items())[:most])
    table = [
        (run.label, [cell(values.get(run.number)) for values in groups.values()])
        for run in section.runs
    ]
    return metric, charts.dots(plotted, len(section.runs)), list(groups), table


@dataclass(frozen=True)
class StripsPlot:
    """The items' values of one metric; the table has each run's count and quartiles."""

    metric: MetricCard
    plot: charts.Strips
    table: list[tuple[str, list[str]]]
    values: list[list[float | None]]


def strips(section: ReportSection) -> list[StripsPlot]:
    """Return, for each metric of single items, the distribution of its values."""
    plots = []
    for metric in section.by_item:
        of_runs = [run.values.get(metric.name, {}) for run in section.runs]
        rows = [[of.get(id_) for id_ in section.drawn] for of in of_runs]
        points = {n: [v for v in row if v is not None] for n, row in enumerate(rows)}
        values = {n: list(of.values()) for n, of in enumerate(of_runs) if of}
        table = []
        for n, own in values.items():
            quartiles = np.percentile(own, range(0, 101, 25)).tolist()
            label = section.runs[n].label
            table.append((label, [str(len(own)), *map(number_text, quartiles)]))
        short = [[None if v is None else float(f"{v:.5g}") for v in row] for row in rows]
        plots.append(StripsPlot(metric, charts.strips(values, points), table, short))
    return plots
