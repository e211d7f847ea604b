"""Run records to a folder that a browser opens from the disk."""

from __future__ import annotations

import base64
import hashlib
import re
import shlex
import unicodedata
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import DictLoader, Environment, StrictUndefined
from markupsafe import Markup

from spfem_bench.definitions.metrics import MetricCard, metric_card
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.errors import SpfemBenchError
from spfem_bench.evaluation.record import Score, sync_components, unverified
from spfem_bench.evaluation.signature import flat
from spfem_bench.progress import SILENT, Progress
from spfem_bench.reporting.compare import p_text
from spfem_bench.reporting.report import charts
from spfem_bench.reporting.report.model import Example, Run, Section, commands, sections, undamaged
from spfem_bench.reporting.tables import ARROWS, LEGEND, MARKS, Column, make_table, tidy
from spfem_bench.version import __version__

if TYPE_CHECKING:
    from spfem_bench.reporting.report.clips import Clips

BETTER = {
    "lower": "lower is better",
    "higher": "higher is better",
    "zero": "nearer to 0 is better",
}
PARTS = (
    ("overview", "Overview"),
    ("differences", "Differences"),
    ("emotions", "By emotion"),
    ("speakers", "By speaker"),
    ("strips", "Clip by clip"),
    ("examples", "Worst and best clips"),
    ("failures", "Missing and refused"),
    ("provenance", "Provenance"),
)
ROLES = {
    "source": "Source",
    "reference": "Reference",
    "output": "Output",
    "rival": "Best other",
}
_LEGEND = LEGEND | {
    "published": "† published, not computed here: other networks, clips and decoding; never "
    "compared with the rows above"
}
_NOTHING: dict[str, Any] = {
    "text": "",
    "best": False,
    "mark": "",
    "note": None,
    "interval": "",
    "count": "",
}
MOST_SPEAKERS = 24
"""Speakers that a plot has room for; all of them are in its table."""


def build(
    records: Sequence[Mapping[str, Any]],
    *,
    items: int,
    clips: Clips | None,
    baseline: str = "",
    progress: Progress = SILENT,
) -> dict[str, bytes]:
    """Return a report's own files by name; copies of clips are made by *clips* on the way.

    A pure function: the same records, in the same order, with the same clips at hand, give the
    same bytes.

    Args:
        records: as `spfem_bench.evaluation.record.load` gives them.
        items: worst, and best, clips to show for each method and metric.
        clips: finds clips; None shows none.
        baseline: the method that others are compared with; a section's first when empty, or
            where it has no run of it.
        progress: has the phase ``clips``.

    Raises:
        CardError: no records, a damaged one, or two of one method.
        StorageError: a copy cannot be written.
    """
    found = sections(records)
    shown = [
        (section, run, metric, section.examples(run, metric, items))
        for section in found
        for run in section.shown
        for metric in section.by_item
    ]
    count = sum(len(worst) + len(best) for *_, (worst, best) in shown)
    progress.begin("clips", count, "clip")
    with undamaged():
        views = [
            _View(section, n, items, clips, baseline, progress).all()
            for n, section in enumerate(found)
        ]
    progress.end("clips")
    environment = Environment(
        loader=DictLoader({n: _template(n) for n in ("report.html", "plots.html")}),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    style, script = _template("report.css"), _template("report.js")
    # No script but ours runs, whatever a name holds; nothing is loaded but files beside the page
    # ("file:" is what 'self' means to some browsers on a disk).
    policy = (
        f"default-src 'none'; script-src '{_csp_hash(script)}'; style-src '{_csp_hash(style)}'; "
        "img-src 'self' file:; media-src 'self' file:; base-uri 'none'; form-action 'none'"
    )
    names = list(dict.fromkeys(section.protocol for section in found))
    with undamaged():
        page = environment.get_template("report.html").render(
            views=views,
            title=" · ".join(names),
            version=__version__,
            policy=policy,
            style=Markup(style),  # noqa: S704  (ours)
            script=Markup(script),  # noqa: S704  (ours)
            data=[view["data"] for view in views],
            parts=PARTS,
            arrows=ARROWS,
            better=BETTER,
            shapes=charts.MARKS,
            width=charts.WIDTH,
            left=charts.LEFT,
            right=charts.RIGHT,
            top=charts.TOP,
            bottom=charts.BOTTOM,
            number=_number,
            p_value=p_text,
            commands=commands,
            web=lambda link: re.match(r"https?://", str(link)) is not None,
            videos=clips is not None,
            command=shlex.join(
                ["spfem-bench", "report", "--items", str(items)]
                + (["--baseline", baseline] if baseline else [])
                + (["--no-videos"] if clips is None else [])
            ),
        )
    return {
        # Half a character, which JSON may hold, cannot be written otherwise.
        "index.html": page.encode(errors="backslashreplace"),
        "scores.csv": tidy(make_table(records)).encode(errors="backslashreplace"),
    }


class _View:
    """One section as its template wants it."""

    def __init__(
        self,
        section: Section,
        number: int,
        items: int,
        clips: Clips | None,
        baseline: str,
        progress: Progress,
    ) -> None:
        self.section, self.number, self.id = section, number, f"p{number + 1}"
        self.items, self.clips, self.baseline, self.progress = items, clips, baseline, progress
        self.notes: dict[str, int] = {}
        self.entries = 0

    def all(self) -> dict[str, Any]:
        section = self.section
        overview = self._overview()
        strips = self._strips()
        without = [m.label for m in section.metrics if m not in section.by_item]
        return {
            "section": section,
            "number": self.number,
            "id": self.id,
            "n_runs": len(section.runs),
            "facts": self._facts(),
            "overview": overview,
            "legend": self._legend(overview),
            "notes": list(self.notes),
            "signatures": self._signatures(),
            "differences": self._differences(),
            "emotions": self._emotions(),
            "speakers": self._speakers(),
            "sets_only": f"{', '.join(without)}: none, a distance of whole sets of clips."
            if without
            else "",
            "strips": strips,
            "examples": self._examples() if self.items else [],
            "examples_said": self._examples_said(),
            "failures": self._failures(),
            "provenance": [_provenance(run) for run in section.runs],
            "data": {
                "items": list(section.items),
                "plots": [
                    [
                        [_short(run.values.get(metric.name, {}).get(i)) for i in section.items]
                        for run in section.runs
                    ]
                    for metric, *_ in strips
                ],
            },
        }

    def _facts(self) -> str:
        protocol = self.section.runs[0].record["protocol"]
        speakers = {speaker for speaker, _ in self.section.items.values()}
        versions = sorted({str(r.record["protocol"]["version"]) for r in self.section.runs})
        return (
            f"{protocol['setting']}, version {' and '.join(versions)}, profile "
            f"{self.section.profile}: {_count(len(self.section.items), 'clip')}, "
            f"{_count(len(speakers), 'speaker')}, "
            f"{_count(len([e for e in self.section.emotions if e != AVERAGE]), 'emotion')}"
            + "".join(f"; {note}" for note in unverified(r.record for r in self.section.runs))
        )

    # ---- tables ----------------------------------------------------------------------------

    def _overview(self) -> list[tuple[str, list[dict[str, Any]]]]:
        section, table = self.section, self.section.table
        best = {
            (column.method, metric.name)
            for metric in section.metrics
            for block in {b for b, e in table.rows if e == AVERAGE}
            for column, rank in table.ranks(block, AVERAGE, metric.name).items()
            if rank == 1
        }
        methods: list[dict[str, Any]] = []
        controls: list[dict[str, Any]] = []
        for run in section.runs:
            averages = [run.scores.get((m.name, AVERAGE)) for m in section.metrics]
            counts = {_clips(s) for s in averages if s is not None and s.value is not None}
            differ = len(counts) > 1
            row = {
                "run": run,
                "label": run.label,
                "mark": MARKS["control"] if run.is_control else "",
                "count": "" if differ else next(iter(counts), ""),
                "cells": [
                    self._cell(s, (run.name, m.name) in best, counted=differ)
                    for m, s in zip(section.metrics, averages, strict=True)
                ],
            }
            (controls if run.is_control else methods).append(row)
        published = [
            {
                "run": None,
                "label": column.label,
                "count": "",
                "mark": "",
                "cells": [self._printed(column, metric.name) for metric in section.metrics],
            }
            for column in table.columns
            if column.kind in ("published", "second-hand")
        ]
        return [
            ("Methods", methods),
            ("Controls, whose answer is known", controls),
            ("Published, on other clips", published),
        ]

    def _printed(self, column: Column, metric: str) -> dict[str, Any]:
        """Return a number out of a paper."""
        cells = self.section.table.cells
        found = (cells[k] for k in cells if k[1:] == (AVERAGE, column, metric))
        cell = next(found, None)
        if cell is None or cell.value is None:
            return _NOTHING
        return _NOTHING | {"text": cell.printed, "mark": cell.mark}

    def _cell(self, score: Score | None, best: bool, *, counted: bool) -> dict[str, Any]:
        if score is None:
            return _NOTHING
        note = self.notes.setdefault(score.note, len(self.notes) + 1) if score.note else None
        if score.value is None:
            return _NOTHING | {"note": note}
        interval = ""
        if score.low is not None and score.high is not None:
            interval = f"{_number(score.low)} to {_number(score.high)}"
        return {
            "text": _number(score.value),
            "best": best,
            "mark": "*" if score.partial else "",
            "note": note,
            "interval": interval,
            "count": _clips(score) if counted else "",
        }

    def _legend(self, overview: Sequence[tuple[str, Sequence[Any]]]) -> list[str]:
        runs = self.section.runs
        kinds = {column.kind for column in self.section.table.columns}
        marks = {cell.get("mark") for _, rows in overview for row in rows for cell in row["cells"]}
        present = {
            "published": "published" in kinds,
            "second-hand": "second-hand" in kinds,
            "control": any(run.is_control for run in runs),
            "partial": "*" in marks,
            "doubt": "?" in marks,
        }
        every = dict.fromkeys(metric for run in runs for metric, _ in run.scores)
        none = [c.label for c in map(metric_card, every) if c not in self.section.metrics]
        lines = [_LEGEND[kind] for kind, here in present.items() if here]
        return lines + (
            [f"No number at all: {', '.join(none)}; why is said under Missing and refused"]
            if none
            else []
        )

    def _signatures(self) -> list[tuple[str, str, str]]:
        found: dict[tuple[str, str], list[str]] = {}
        for metric in self.section.metrics:
            for run in self.section.runs:
                score = run.scores.get((metric.name, AVERAGE))
                if score is not None and score.signature:
                    found.setdefault((metric.label, score.signature), []).append(run.label)
        return [(metric, signature, ", ".join(who)) for (metric, signature), who in found.items()]

    def _differences(self) -> dict[str, Any]:
        """Return the methods beside the baseline, each with its rows; empty for a single run."""
        found, refused = self.section.differences(self.baseline)
        if found is None and not refused:
            return {}
        runs = {run.name: run for run in self.section.runs}
        rows = found.rows if found else ()
        return {
            "baseline": runs[found.baseline] if found else None,
            "others": [
                (runs[name], [(metric_card(r.metric), r) for r in rows if r.b == name])
                for name in (found.others if found else ())
            ],
            "notes": found.notes if found else (),
            "refused": refused,
        }

    def _failures(self) -> list[dict[str, str]]:
        rows: list[dict[str, str]] = []
        for run in self.section.runs:
            unscored: dict[str, list[str]] = {}
            for score in run.scores.values():
                if score.emotion == AVERAGE and score.value is None:
                    unscored.setdefault(score.note, []).append(metric_card(score.metric).label)
            rows += [
                {
                    "method": run.label,
                    "item": "all",
                    "metrics": ", ".join(metrics),
                    "reason": reason,
                    "remedy": "",
                }
                for reason, metrics in unscored.items()
            ]
            rows += [
                {
                    "method": run.label,
                    "item": f"{r['item']}: {r['clip']}",
                    "metrics": ", ".join(metric_card(m).label for m in r["metrics"]),
                    "reason": f"{r['kind']}: {r['reason']}",
                    "remedy": r["remedy"],
                }
                for r in run.record["refused"]
            ]
            rows += [
                {
                    "method": run.label,
                    "item": name,
                    "metrics": "",
                    "reason": "extra: no item expects it",
                    "remedy": "Rename it, or take it away",
                }
                for name in run.record["extra"]
            ]
        return rows

    # ---- plots -----------------------------------------------------------------------------

    def _numbers(
        self, metric: MetricCard, groups: Mapping[str, Mapping[int, charts.Value]], most: int
    ) -> tuple[Any, ...]:
        plotted = dict(list(groups.items())[:most])
        cells = [
            (
                run.label,
                [_cell_text(of.get(run.number)) for of in groups.values()],
            )
            for run in self.section.runs
        ]
        return metric, charts.dots(plotted, len(self.section.runs)), list(groups), cells

    def _emotions(self) -> list[tuple[Any, ...]]:
        found = []
        for metric in self.section.metrics:
            groups: dict[str, dict[int, charts.Value]] = {}
            for emotion in self.section.emotions:
                name = "mean" if emotion == AVERAGE else emotion
                for run in self.section.runs:
                    s = run.scores.get((metric.name, emotion))
                    if s is None or s.value is None:
                        continue
                    said = f"{name}: {_number(s.value)} on {_clips(s)} clips"
                    value = charts.Value(s.value, s.low, s.high, said)
                    groups.setdefault(name, {})[run.number] = value
            if groups:
                found.append(self._numbers(metric, groups, len(groups)))
        return found

    def _speakers(self) -> list[tuple[Any, ...]]:
        found = []
        for metric in self.section.by_item:
            groups = {
                name: {
                    n: charts.Value(
                        mean, text=f"{name}: {_number(mean)}, mean of {_count(count, 'clip')}"
                    )
                    for n, (mean, count) in of.items()
                }
                for name, of in self.section.speakers(metric.name).items()
            }
            found.append(self._numbers(metric, groups, MOST_SPEAKERS))
        return found

    def _strips(self) -> list[tuple[Any, ...]]:
        found = []
        for metric in self.section.by_item:
            values = {
                run.number: [of[id_] for id_ in self.section.items if id_ in of]
                for run in self.section.runs
                if (of := run.values.get(metric.name))
            }
            table = [
                (
                    self.section.runs[n].label,
                    [
                        str(len(of)),
                        *(_number(float(q)) for q in np.percentile(of, range(0, 101, 25))),
                    ],
                )
                for n, of in values.items()
            ]
            found.append((metric, charts.strips(values), table))
        return found

    # ---- examples --------------------------------------------------------------------------

    def _examples_said(self) -> str:
        whom = "" if any(not r.is_control for r in self.section.runs) else " of the controls"
        number = "" if self.items == 1 else f" {self.items}"
        clips = "clip" if self.items == 1 else "clips"
        said = f"For each metric the{number} worst and the{number} best {clips}{whom}. "
        return said + ("This report was made without videos." if self.clips is None else "")

    def _examples(self) -> list[tuple[Run, list[tuple[MetricCard, list[dict[str, Any]]]]]]:
        found = []
        for run in self.section.shown:
            metrics = []
            for metric in self.section.by_item:
                worst, best = self.section.examples(run, metric, self.items)
                entries = [
                    self._entry(metric, example, kind)
                    for kind, of in (("Worst", worst), ("Best", best))
                    for example in of
                ]
                if entries:
                    metrics.append((metric, entries))
            if metrics:
                found.append((run, metrics))
        return found

    def _entry(self, metric: MetricCard, example: Example, kind: str) -> dict[str, Any]:
        self.entries += 1
        run, rival, item = example.run, example.rival, example.item
        speaker, emotion = self.section.items[item]
        entry: dict[str, Any] = {
            "id": f"{self.id}-e{self.entries}",
            "example": example,
            "place": kind if example.rank == 1 else f"{kind} {example.rank}",
            "speaker": speaker,
            "emotion": emotion,
            "rival_value": rival.values[metric.name][item] if rival else None,
            "players": [],
            "lead": 0,
            "sync": None,
            "shift": None,
            "heatmap": None,
            "lacking": [],
        }
        statistic = run.settings(metric.name)["metric"]["statistic"]["kind"]
        if statistic == "sync":
            parts = sync_components(run.items[item]["metrics"][metric.name])
            entry["shift"] = charts.shift_plot(parts.totals / parts.windows)
        if self.clips is not None:
            self._look(entry, self.clips, metric.name, statistic)
        self.progress.advance("clips")
        return entry

    def _look(self, entry: dict[str, Any], clips: Clips, metric: str, statistic: str) -> None:
        """Add what needs an item's clips: players, distances over time, heat-map."""
        example: Example = entry["example"]
        run, rival, item = example.run, example.rival, example.item

        def lacks(what: str, error: SpfemBenchError) -> None:
            entry["lacking"].append(f"{what}: not available. {_sentence(error)}")

        wanted = [
            ("source", run, "source"),
            ("reference", run, "reference"),
            ("output", run, "output"),
        ]
        if rival is not None:
            wanted.append(("rival", rival, "output"))
        for role, of, which in wanted:
            if which not in of.items[item]["clips"]:
                continue
            try:
                file = clips.copy(of, clips.find(of, item, which))
            except SpfemBenchError as error:
                lacks(f"Video, {ROLES[role].lower()}", error)
                continue
            if role == "output":
                entry["lead"] = len(entry["players"])
            label = of.label if which == "output" else ""
            entry["players"].append({"file": file, "role": ROLES[role], "label": label})
        if statistic == "sync":
            try:
                entry["sync"] = clips.sync(run, rival, item, metric)
            except SpfemBenchError as error:
                lacks("Distance over time", error)
        if statistic == "coherence":
            try:
                entry["heatmap"] = clips.heatmap(run, item, metric)
            except SpfemBenchError as error:
                lacks("Heat-map", error)


def _provenance(run: Run) -> dict[str, Any]:
    record = run.record
    environment = ", ".join(f"{k} {v}" for k, v in record["environment"].items() if v is not None)
    software = {k: v for s in record["settings"].values() for k, v in s["software"].items()}
    weights: dict[tuple[str, str], list[str]] = {}
    for metric, settings in record["settings"].items():
        networks = [settings["network"]]
        if "detector" in settings["faces"]:
            networks.append(settings["faces"]["detector"])
        for network in networks:
            hashes = " ".join(str(f["sha256"]) for f in network["files"])
            weights.setdefault((network["name"], hashes), []).append(metric_card(metric).label)
    control = record["method"]["control"]
    facts = [
        ("Method", f"{run.name}, {record['method']['kind']}"),
        *([("Control", ", ".join(f"{k} {v}" for k, v in _settings(control)))] if control else []),
        ("Protocol", f"{record['protocol']['name']}, version {record['protocol']['version']}"),
        ("List, SHA-256", record["protocol"]["list_sha256"]),
        ("Complete", "yes" if record["complete"] else "no"),
        ("Begun", record["timings"]["started"]),
        ("Environment", environment),
        ("Versions", ", ".join(f"{k} {v}" for k, v in software.items())),
    ]
    return {
        "facts": facts,
        "weights": [(name, ", ".join(m), hashes) for (name, hashes), m in weights.items()],
        "settings": [
            (metric_card(metric).label, _settings(settings))
            for metric, settings in record["settings"].items()
        ],
    }


def _settings(of: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return nested settings as dotted keys with their values as text."""

    def said(value: Any) -> str:
        if isinstance(value, list):
            return ", ".join(map(str, value))
        return "–" if value is None else str(value)

    return [(key, said(value)) for key, value in flat(of)]


def _template(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text(encoding="utf-8")


def _csp_hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _visible(value: Any) -> Any:
    """Return what is printed for a value: control and direction characters by their numbers.

    A name may hold characters that turn the text after it around.
    """
    if value is None:
        return ""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return "".join(
        f"⟨U+{ord(c):04X}⟩" if unicodedata.category(c) in ("Cc", "Cf", "Cs") and c != "\n" else c
        for c in value
    )


def _number(value: float | None, decimals: int = 3, *, sign: bool = False) -> str:
    if value is None:
        return "–"
    value = round(value, decimals) + 0.0  # no minus before zero
    return f"{value:{'+' if sign and value else ''}.{decimals}f}".replace("-", "−")


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def _cell_text(value: charts.Value | None) -> tuple[str, str]:
    if value is None:
        return "–", ""
    if value.low is None or value.high is None:
        return _number(value.value), ""
    return _number(value.value), f"{_number(value.low)} to {_number(value.high)}"


def _clips(score: Score) -> str:
    return f"{score.n_items}/{score.n_items + score.n_refused}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _sentence(error: SpfemBenchError) -> str:
    said = str(error)
    return said[:1].upper() + said[1:] + ("" if said.endswith(".") else ".")
