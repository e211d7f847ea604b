"""Mouth shape on the authors' published clips: the tables and figures of docs/mouth_shape.md.

    python -m benchmarks.mouth_shape [--figures docs/pictures] [--csv FILE]

Scores every published clip at hand with profile ``light`` (``spfem-bench data fetch stccl-page
asccl-repo``, ``spfem-bench networks fetch --profile light``): each method, the controls source,
frozen-mouth, time-shuffled and other-speaker, and two more controls made of each group's first
method: its outputs half a clip late, and beside the source of another speaker's clip. Prints the
means over clips, and paired differences with 95 % intervals over clips and, where a speaker has
several, over speakers. A control that lacks for a clip is left out of that clip's pairs.
"""

from __future__ import annotations

import argparse
import csv
import io
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.common import print_table
from spfem_bench.analysis import resampling
from spfem_bench.analysis.resampling import TooFewClustersError
from spfem_bench.api import evaluate
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.methods import method_card
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.errors import ClipError
from spfem_bench.evaluation.record import RunRecord, item_values
from spfem_bench.features.extract import Extractor
from spfem_bench.features.features import Features
from spfem_bench.features.store import FeatureStore
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.reporting.drawing import FAINT, GREY, INK, STYLE, panel_grid
from spfem_bench.reporting.report.clips import Clips
from spfem_bench.reporting.report.model import ReportRun
from spfem_bench.statistics.base import kind_of

PROFILE = "light"
METRICS = ("lip-corr", "lip-dyn", "m-lmd", "f-lmd", "av-loudness")
PAIRED = METRICS[:-1]
CONTROLS = ("source", "frozen-mouth", "time-shuffled", "other-speaker")
LATE, ANOTHER = "half a clip late", "beside another speaker's source"
FIGURE_CLIPS = 3


class Group(NamedTuple):
    """Published clips of one model with and without additions; the first method is the baseline."""

    name: str
    title: str
    protocols: tuple[str, ...]
    methods: tuple[str, ...]


GROUPS = (
    Group(
        "ned",
        "NED, STCCL's page",
        ("stccl-page-ned",),
        ("ned", "stccl-vd-ned", "stccl-cm-ned"),
    ),
    Group(
        "asccl",
        "NED, ASCCL's repository",
        ("asccl-repo-inter-id", "asccl-repo-cross-id"),
        ("ned", "asccl-ned"),
    ),
    Group("eat", "EAT", ("stccl-page-eat",), ("eat", "stccl-vd-eat", "stccl-cm-eat")),
    Group(
        "dice",
        "DICE-Talk",
        ("stccl-page-dice-talk",),
        ("dice-talk", "stccl-vd-dice-talk", "stccl-cm-dice-talk"),
    ),
)

Values = dict[tuple[str, str], float]
"""Values of one row's clips, by protocol and item."""


class Scored:
    """A group's runs, and each row's values by metric."""

    def __init__(self, group: Group, folder: Path) -> None:
        self.group = group
        self.runs: dict[tuple[str, str], ReportRun] = {}
        self.speakers: dict[tuple[str, str], str] = {}
        self.values: dict[tuple[str, str], Values] = {}
        self.rows = [*group.methods, LATE, ANOTHER, *CONTROLS]
        for name in group.protocols:
            card = protocol(name).card
            metrics = [m for m in METRICS if m not in card.not_applicable]
            of_source = with_controls_of_source(name, folder)
            for number, method in enumerate((*group.methods, *CONTROLS)):
                options: dict[str, Any] = {"profile": PROFILE, "metrics": metrics, "partial": True}
                on = of_source if method in CONTROLS else name
                record = evaluate(method, on, **options).record
                self.runs[name, method] = ReportRun(record, number)
                self._keep(name, method, record)
            self._displaced(name)

    def _keep(self, name: str, method: str, record: RunRecord) -> None:
        for metric in record.metrics:
            for one in item_values(record, metric):
                self.speakers[name, one.item] = one.speaker
                self.values.setdefault((method, metric), {})[name, one.item] = one.value

    def _displaced(self, name: str) -> None:
        """Score the first method's outputs where they do not belong: another time or source."""
        run = self.runs[name, self.group.methods[0]]
        items = [i for i, item in run.items.items() if "lip-corr" in item.metrics]
        for at, item in enumerate(items):
            output, source = landmarks(run, item)
            pairs = {LATE: (rolled(output), source)}
            others = (*items[at + 1 :], *items[:at])
            speaker = run.items[item].speaker
            if other := next((o for o in others if run.items[o].speaker != speaker), None):
                pairs[ANOTHER] = (output, landmarks(run, other)[1])
            for row, (one, beside) in pairs.items():
                for metric in PAIRED:
                    try:
                        value = displaced_value(metric, item, one, beside)
                    except ClipError as error:
                        print(f"{row}, {item}, {metric}: {error}")
                        continue
                    self.values.setdefault((row, metric), {})[name, item] = value

    def label(self, row: str) -> str:
        """Return a row's name as printed; controls are marked."""
        if row in (LATE, ANOTHER):
            return f"{method_card(self.group.methods[0]).label}, {row}‡"
        card = method_card(row)
        return f"{card.label}{'‡' if card.control else ''}"

    def difference(self, b: str, a: str, metric: str) -> dict[str, Any] | None:
        """Return the mean of B less A over clips that both have, with its intervals; or None."""
        ours, theirs = (self.values.get((row, metric), {}) for row in (b, a))
        both = [key for key in ours if key in theirs]
        if len(both) < 2:
            return None
        return paired([ours[k] - theirs[k] for k in both], [self.speakers[k] for k in both])


def paired(apart: Sequence[float], speakers: Sequence[str]) -> dict[str, Any]:
    """Return the mean of clips' differences, with its intervals over clips and over speakers.

    There is none over speakers where all clips are of one, or none has two.
    """
    found: dict[str, Any] = {"n": len(apart), "difference": float(np.mean(apart))}
    found["clips"] = interval(apart, [str(number) for number in range(len(apart))])
    several = 1 < len(set(speakers)) < len(speakers)
    found["speakers"] = interval(apart, speakers) if several else None
    return found


def with_controls_of_source(name: str, folder: Path) -> str:
    """Return a protocol whose controls are made of the source: written to *folder* if need be.

    Controls are made of real clips. Where those are the references, they have other words.
    """
    card = protocol(name).card
    source = card.clips["source"]
    if card.clips["real"] == source:
        return name
    lines = card.path.read_text(encoding="utf-8").splitlines(keepends=True)
    changed = [f'real = "{source}"\n' if line.startswith("real = ") else line for line in lines]
    shutil.copy(card.items_path, folder)
    path = folder / f"{name}-of-source.toml"
    path.write_text("".join(changed), encoding="utf-8")
    if protocol(str(path)).card.clips["real"] != source:
        raise ValueError(f"{card.path}: no line of real clips")
    return str(path)


@cache
def clips_at_hand() -> Clips:
    """Return what finds a record's clips; it makes no copies here."""
    here = Path()
    places = (DataFolders.locate(), WeightsStore.locate(None), FeatureStore.locate(), {})
    return Clips(*places, kept=here, known={}, made=here)


def landmarks(run: ReportRun, item: str) -> tuple[Features, Features]:
    """Return the stored landmarks of an item's output and of its source."""
    card, clips = metric_card("lip-corr"), clips_at_hand()
    found = {role: (clips.find(run, item, role),) for role in card.compare}
    profile = profile_card(PROFILE)
    extractor = Extractor(profile, clips.weights, clips.store, faces=run.faces, device="cpu")
    pairs = [of[0] for of in kind_of(card).requests(card, found).values()]
    output, source = (extractor.load(clip, request) for clip, request in pairs)
    if output is None or source is None:
        raise ClipError(f"{item}: its landmarks are not stored", "Run it again")
    return output, source


def displaced_value(metric: str, item: str, output: Features, source: Features) -> float:
    """Return a metric of an output's landmarks beside a source's; raise ClipError."""
    card = metric_card(metric)
    kind = kind_of(card)
    pair = {"output": [output], "source": [source]}
    return float(kind.value(kind.part(card, Clip(Path(item)), pair)))


def rolled(features: Features) -> Features:
    """Return a clip that begins in its middle and goes on at its beginning."""
    half = len(features.frames) // 2
    outputs = {name: np.roll(values, half, axis=0) for name, values in features.outputs.items()}
    return replace(features, outputs=outputs)


def interval(values: Sequence[float], clusters: Sequence[str]) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean over clusters; None for one cluster."""
    try:
        estimate = resampling.estimate(values, ["all"] * len(values), clusters)
    except TooFewClustersError:
        return None
    low, high = resampling.intervals(resampling.draws(estimate))
    return float(low[0]), float(high[0])


def difference_text(found: dict[str, Any] | None) -> str:
    """Return a difference with its interval over clips, and over speakers after a stroke."""
    if found is None:
        return "–"
    ends = [found["clips"], found["speakers"]]
    texts = [f"[{low:+.2f}, {high:+.2f}]" for low, high in filter(None, ends)]
    return f"{found['difference']:+.2f} {' / '.join(texts)}".replace("-", "−")


def pairs_of(group: Group) -> Iterator[tuple[str, str]]:
    """Yield what is compared, B less A."""
    first, *others = group.methods
    yield from ((other, first) for other in others)
    yield from ((first, control) for control in (LATE, ANOTHER, "time-shuffled"))
    yield from ((method, "frozen-mouth") for method in group.methods)


def draw(scored: Scored, path: Path) -> None:
    """Draw the lips' opening of source and output over time: a row a method, a column a clip."""
    import matplotlib as mpl

    group, first = scored.group, scored.group.methods[0]
    values = scored.values[first, "lip-corr"]
    order = sorted(values, key=lambda key: values[key])
    places = np.linspace(0, len(order) - 1, FIGURE_CLIPS).round().astype(int)
    rows = (*group.methods, LATE, "frozen-mouth")
    with mpl.rc_context(STYLE):
        size = (7.6, 0.72 + 0.86 * len(rows))
        drawing, grid = panel_grid(
            size, (len(rows), FIGURE_CLIPS), (0.42, 0.08, 0.46, 0.36), hspace=0.42, wspace=0.1
        )
        heights = None
        for column, place in enumerate(places):
            key, times = order[place], None
            for line, row in enumerate(rows):
                axes = drawing.add_subplot(grid[line, column], sharey=heights, sharex=times)
                heights, times = heights or axes, times or axes
                frames, output, source = opening(scored, row, *key)
                axes.plot(frames / 25, source, color=FAINT, linewidth=2.2)
                colour = "#b3261e" if row in (LATE, "frozen-mouth") else "#1f5fa8"
                axes.plot(frames / 25, output, color=colour, linewidth=1.0)
                axes.spines[["top", "right"]].set_visible(False)
                r, distance = (scored.values[row, m][key] for m in ("lip-corr", "m-lmd"))
                head = (
                    f"{scored.label(row).replace('‡', '')}: lip-corr {r:.2f}, M-LMD {distance:.1f}"
                )
                head = f"{key[1]}\n\n{head}" if line == 0 else head
                axes.set_title(head.replace("-0", "−0"), fontsize=6.2, color=INK, loc="left", pad=2)
                axes.tick_params(labelbottom=line == len(rows) - 1, labelleft=column == 0)
                if line == len(rows) - 1:
                    axes.set_xlabel("seconds", color=GREY)
        path.parent.mkdir(parents=True, exist_ok=True)
        with io.BytesIO() as large:
            drawing.savefig(large, dpi=120, format="png")
            Image.open(large).convert("RGB").quantize(48).save(path, optimize=True)


def opening(scored: Scored, row: str, name: str, item: str) -> tuple[Any, Any, Any]:
    """Return frames and the lips' opening of a row's output and of the source, in step."""
    run = scored.runs[name, scored.group.methods[0] if row == LATE else row]
    output, source = landmarks(run, item)
    card = metric_card("lip-corr")
    kind = kind_of(card)
    if row == LATE:
        output = rolled(output)
        part = kind.part(card, Clip(Path(item)), {"output": [output], "source": [source]})
    else:
        part = kind.read(run.items[item].metrics["lip-corr"])
    (curves,) = kind.curves(part, output, source).values()
    return curves.frames, curves.output, curves.source


def report(scored: Scored, lines: list[dict[str, Any]]) -> None:
    """Print a group's two tables; keep their numbers in *lines*."""
    group = scored.group
    listed = sum(len(protocol(name).items) for name in group.protocols)
    at_hand = len(scored.values.get((group.methods[0], "lip-corr"), {}))
    speakers = len(set(scored.speakers.values()))
    print(f"\n## {group.title}: {at_hand} of {listed} clips, {speakers} speakers")
    metrics = [m for m in METRICS if (group.methods[0], m) in scored.values]
    table = []
    for row in scored.rows:
        cells = []
        for metric in metrics:
            own = list(scored.values.get((row, metric), {}).values())
            few = f" ({len(own)})" if 0 < len(own) < at_hand else ""
            cells.append(f"{np.mean(own):.2f}{few}".replace("-", "−") if own else "–")
            if own:
                line = {"group": group.name, "row": row, "metric": metric, "n": len(own)}
                lines.append(line | {"mean": float(np.mean(own))})
        table.append([scored.label(row), *cells])
    heads = [metric_card(m).label for m in metrics]
    print_table(table, ["mean over clips", *heads])
    table = []
    for b, a in pairs_of(group):
        found = [scored.difference(b, a, metric) for metric in PAIRED]
        count = next((str(f["n"]) for f in found if f), "0")
        name = f"{scored.label(b)} less {scored.label(a)}".replace("‡", "")
        table.append([name, count, *map(difference_text, found)])
        for metric, one in zip(PAIRED, found, strict=True):
            if one:
                lines.append({"group": group.name, "row": b, "less": a, "metric": metric} | one)
    print_table(table, ["difference", "clips", *(metric_card(m).label for m in PAIRED)])


def report_together(groups: Sequence[Scored], lines: list[dict[str, Any]]) -> None:
    """Print whether each metric tells all groups' first methods from controls, clip by clip."""
    table = []
    for control in (LATE, ANOTHER, "time-shuffled", "frozen-mouth"):
        cells = []
        for metric in PAIRED:
            sign = 1 if metric_card(metric).direction == "higher" else -1
            apart, speakers = [], []
            for scored in groups:
                ours, theirs = (
                    scored.values.get((row, metric), {})
                    for row in (scored.group.methods[0], control)
                )
                both = [key for key in ours if key in theirs]
                apart += [sign * (ours[key] - theirs[key]) for key in both]
                speakers += [scored.speakers[key] for key in both]
            if len(apart) > 1:
                found = paired(apart, speakers) | {"better": sum(a > 0 for a in apart)}
                lines.append({"group": "all", "less": control, "metric": metric} | found)
                cells.append(f"{found['better']} of {found['n']}, {difference_text(found)}")
            else:
                cells.append("–")
        table.append([control, *cells])
    people = len({speaker for scored in groups for speaker in scored.speakers.values()})
    print(f"\n## All groups: clips whose method is better than its control, {people} speakers")
    print("Mean difference, positive where the method is better [over clips] / [over speakers]")
    print_table(table, ["control", *(metric_card(m).label for m in PAIRED)])


def main() -> None:
    """Print the tables; write figures and numbers where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--figures", type=Path, help="folder for mouth_shape_GROUP.png")
    parser.add_argument("--csv", type=Path, help="file for the numbers")
    options = parser.parse_args()
    lines: list[dict[str, Any]] = []
    groups = []
    with TemporaryDirectory() as folder:
        for group in GROUPS:
            groups.append(scored := Scored(group, Path(folder)))
            report(scored, lines)
            if options.figures and (group.methods[0], "lip-corr") in scored.values:
                draw(scored, options.figures / f"mouth_shape_{group.name}.png")
    report_together(groups, lines)
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for r in lines for k in r)))
            writer.writeheader()
            writer.writerows(lines)


if __name__ == "__main__":
    main()
