"""Run records to a folder that a browser opens from the disk."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

from spfem_bench.analysis.comparing import p_text
from spfem_bench.definitions.references import bibtex
from spfem_bench.evaluation.record import RunRecord
from spfem_bench.progress import SILENT, Progress
from spfem_bench.reporting.report import charts, overview, plots
from spfem_bench.reporting.report.clips import Clips
from spfem_bench.reporting.report.examples import example_entries, introduction
from spfem_bench.reporting.report.model import ReportSection, sections
from spfem_bench.reporting.report.page import fill_page
from spfem_bench.reporting.report.words import number_text
from spfem_bench.reporting.table_layouts import tidy_csv
from spfem_bench.reporting.tables import make_table


def build(
    records: Sequence[RunRecord],
    *,
    items: int,
    clips: Clips | None,
    baseline: str = "",
    progress: Progress = SILENT,
) -> dict[str, bytes]:
    """Return a report's own files by name; copies of clips are made by *clips* on the way.

    The same records, in the same order, with the same clips at hand, give the same bytes. *items*
    are the worst, and best, clips shown for each method and metric. A section without a run of the
    baseline takes its first. Phase ``clips`` of *progress* advances by examples. Raises CardError
    for no records, a damaged one, or two of one method, and StorageError when a copy cannot be
    written.
    """
    made = sections(records)
    shown = [(s, run, metric) for s in made for run in s.shown for metric in s.by_item]
    sides = (side for s, run, metric in shown for side in s.examples(run, metric, items))
    progress.begin("clips", sum(map(len, sides)), "clip")
    views = [_view(section, n, items, clips, baseline, progress) for n, section in enumerate(made)]
    progress.end("clips")
    page = fill_page(
        "report.html",
        "report.js",
        views=views,
        bibtex=bibtex({metric: None for s in made for run in s.runs for metric, _ in run.scores}),
        title=" · ".join(dict.fromkeys(section.protocol for section in made)),
        charts=charts,
        number=number_text,
        p_value=p_text,
        videos=clips is not None,
        command=_command(items, baseline, videos=clips is not None),
    )
    csv = tidy_csv(make_table(records))
    return {"index.html": page, "scores.csv": csv.encode(errors="backslashreplace")}


def _view(
    section: ReportSection,
    number: int,
    items: int,
    clips: Clips | None,
    baseline: str,
    progress: Progress,
) -> dict[str, Any]:
    """Return one section as its template needs it."""
    id_ = f"p{number + 1}"
    strips = plots.strips(section)
    return {
        "section": section,
        "number": number,
        "id": id_,
        "facts": overview.facts(section),
        "overview": overview.Overview(section),
        "signatures": overview.signatures(section),
        "differences": overview.differences(section, baseline),
        "emotions": plots.by_emotion(section),
        "speakers": plots.by_speaker(section),
        "of_sets": ", ".join(m.label for m in section.metrics if m not in section.by_item),
        "strips": strips,
        "examples": example_entries(section, id_, items, clips, progress) if items else [],
        "examples_said": introduction(section, items, videos=clips is not None),
        "failures": overview.failures(section),
        "provenance": [overview.provenance(run) for run in section.runs],
        "data": {"items": section.drawn, "plots": [plot.values for plot in strips]},
    }


def _command(items: int, baseline: str, *, videos: bool) -> str:
    words = ["spfem-bench", "report", "--items", str(items)]
    words += ["--baseline", baseline] if baseline else []
    return shlex.join(words + ([] if videos else ["--no-videos"]))
