"""The worst and best clips of a section, with what is found in the clips themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count

from spfem_bench.definitions.metrics import MetricCard
from spfem_bench.errors import SpfemBenchError
from spfem_bench.progress import Progress
from spfem_bench.reporting.report import charts
from spfem_bench.reporting.report.clips import Clips
from spfem_bench.reporting.report.model import Example, ReportRun, ReportSection

ROLES = {"source": "Source", "reference": "Reference", "output": "Output", "rival": "Best other"}


@dataclass(frozen=True)
class Player:
    """A copied clip: its file, role and method as printed."""

    file: str
    role: str
    label: str


@dataclass
class ExampleEntry:
    """One example as its template needs it.

    Attributes:
        place: such as ``Worst 2``.
        rival_value: of the best other method on the same item.
        lead: the player whose sound is played.
        heatmap: file of a picture.
        lacking: why parts are not there.
    """

    id: str
    example: Example
    place: str
    speaker: str
    emotion: str
    rival_value: float | None
    players: list[Player] = field(default_factory=list)
    lead: int = 0
    sync: charts.TimePlot | None = None
    shift: charts.ShiftPlot | None = None
    curves: list[charts.CurvesPlot] = field(default_factory=list)
    heatmap: str | None = None
    lacking: list[str] = field(default_factory=list)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Note a part that is not available, with the reason."""
        try:
            yield
        except SpfemBenchError as error:
            text = str(error)
            text = text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
            self.lacking.append(f"{name}: not available. {text}")


def example_entries(
    section: ReportSection, id_: str, items: int, clips: Clips | None, progress: Progress
) -> list[tuple[ReportRun, list[tuple[MetricCard, list[ExampleEntry]]]]]:
    """Return *items* worst and best examples of each shown method and metric.

    *id_* is the section's in the page. Phase ``clips`` of *progress* advances by each example.
    """
    numbers = count(1)
    by_run = []
    for run in section.shown:
        by_metric = []
        for metric in section.by_item:
            entries, (worst, best) = [], section.examples(run, metric, items)
            for kind, examples in (("Worst", worst), ("Best", best)):
                for example in examples:
                    place = kind if example.rank == 1 else f"{kind} {example.rank}"
                    name = f"{id_}-e{next(numbers)}"
                    entries.append(_entry(section, example, name, place, clips))
                    progress.advance("clips")
            if entries:
                by_metric.append((metric, entries))
        if by_metric:
            by_run.append((run, by_metric))
    return by_run


def introduction(section: ReportSection, items: int, *, videos: bool) -> str:
    """Return what is shown of which methods."""
    controls = "" if any(not r.is_control for r in section.runs) else " of the controls"
    number, clips = ("", "clip") if items == 1 else (f" {items}", "clips")
    text = f"For each metric the{number} worst and the{number} best {clips}{controls}. "
    return text + ("" if videos else "This report was made without videos.")


def _entry(
    section: ReportSection, example: Example, id_: str, place: str, clips: Clips | None
) -> ExampleEntry:
    run, metric, rival = example.run, example.metric, example.rival
    item = section.items[example.item]
    rival_value = rival.values[metric][item.id] if rival else None
    entry = ExampleEntry(id_, example, place, item.speaker, item.emotion, rival_value)
    kind = run.record.kind_of(metric)
    shown = kind.picture
    if shown == "shifts":
        kept = run.items[item.id].metrics[metric]
        entry.shift = charts.shift_plot(kind.by_shift(kind.read(kept)))
    if clips is None:
        return entry
    players = [(role, run, role) for role in ("source", "reference", "output")]
    players += [("rival", rival, "output")] if rival else []
    for name, of, role in players:
        if role in of.items[item.id].clips:
            with entry.part(f"Video, {ROLES[name].lower()}"):
                file = clips.copy(of, clips.find(of, item.id, role))
                if name == "output":
                    entry.lead = len(entry.players)
                label = of.label if role == "output" else ""
                entry.players.append(Player(file, ROLES[name], label))
    if shown == "shifts":
        with entry.part("Distance over time"):
            entry.sync = clips.sync(run, rival, item.id, metric)
    if shown == "curves":
        with entry.part("Curves over time"):
            entry.curves = clips.curves(run, rival, item.id, metric)
    if shown == "heatmap":
        with entry.part("Heat-map"):
            entry.heatmap = clips.heatmap(run, item.id, metric)
    return entry
