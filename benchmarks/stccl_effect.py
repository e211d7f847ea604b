"""What STCCL does to mini-NED: the same trainings with and without it, over seeds.

    python benchmarks/stccl_effect.py RESULTS --config ned --config stccl-vd-ned --seed 1 --seed 2

Reads the records of the models NAME-seedK (trained by 'spfem-bench demo train-ned', evaluated by
'spfem-bench eval --results RESULTS'); the first configuration is what the others are compared with.
Prints for each protocol and metric the mean over the seeds, the difference from the first with a
95 % interval over speakers (docs/statistics.md; each clip's difference is the mean over the seeds),
and each seed's difference, which shows how much a training alone moves. --csv FILE keeps the
numbers.

The two last rows, of each protocol, are distances from the known truth. Mini-NED's estimator finds
expression coefficients of all frames; their error against the puppet's own is divided by least
squares into a part along what speech moves and one along what emotions move. The mouth's distance
is the first part less its mean over the clip, since speech moves; the emotion's is the mean of the
second, since an emotion stays: root mean squares, in deviations of the coefficients. The
estimator's own error is in both: compare with --anchor source (nothing changed) and --anchor
perfect (the truth, drawn).

--picture FILE draws the first protocol's differences, with their intervals, against the share of
the gradient (stccl_weights.py) that a configuration's name ends with, such as ct-0p4 for 0.4. With
SPFEM_BENCH_CARDS=benchmarks/validation-cards, --protocol stccl-validation has the four validation
puppets, on which weights are chosen.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tabulate import tabulate

from spfem_bench.analysis import resampling
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import protocol as protocol_card
from spfem_bench.evaluation.plan import make_plan
from spfem_bench.evaluation.record import item_values, load_run, record_path
from spfem_bench.media.video import frames as clip_frames
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets.face import EXPRESSIONS, FaceState, Look, Mouth
from spfem_bench.puppets.mini_ned import learn
from spfem_bench.puppets.mini_ned.data import FrameRun
from spfem_bench.puppets.mini_ned.model import MiniNed, model_path
from spfem_bench.puppets.mini_ned.morphable import face_vector, frame_vector
from spfem_bench.puppets.world import Take, World
from spfem_bench.reporting import drawing

METRICS = ["fad", "csim", "lse-d", "lse-c", "id-sim", "lip-corr"]
PARTS = ["mouth's truth", "emotion's truth"]
LOWER = {"fad", "lse-d", *PARTS}
PROTOCOLS = ["demo-inter-id", "demo-cross-id"]
DRAWN = ["fad", "csim", "lse-d", "lip-corr", *PARTS]
COLOURS = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#4D4D4D"]  # Okabe and Ito's

_Floats = npt.NDArray[np.float64]


@cache
def _model() -> MiniNed:
    """Return the shipped model, whose morphable model and estimator all models share."""
    return MiniNed.load(model_path("ned"))


def _truth(take: Take) -> _Floats:
    """Return the expression coefficients of a take's own geometry: (T, 24)."""
    every = range(take.n_frames)
    faces = np.stack([frame_vector(take, i) for i in every])
    rest = face_vector(take.speaker.look, FaceState())
    run = FrameRun(np.zeros((0, 0, 0, 3), np.uint8), rest, faces, np.zeros((take.n_frames, 5)))
    return learn.true_coefficients(_model().morphable, [run]).expression.double().numpy()


@cache
def _directions() -> tuple[_Floats, _Floats]:
    """Return what speech moves, (m, 24), and what emotions move, (7, 24), of the mean face."""
    rest = face_vector(Look(), FaceState())
    wide = [FaceState(mouth=Mouth(jaw=0.5, **{f.name: 1.0})) for f in fields(Mouth)[1:]]
    spoken = [FaceState(mouth=Mouth(jaw=1.0)), *wide]
    felt = [FaceState(expression=e) for name, e in EXPRESSIONS.items() if name != "neutral"]

    def moved(states: list[FaceState]) -> _Floats:
        faces = np.stack([face_vector(Look(), state) for state in states])
        run = FrameRun(np.zeros((0, 0, 0, 3), np.uint8), rest, faces, np.zeros((len(faces), 5)))
        found = learn.true_coefficients(_model().morphable, [run]).expression
        return found.double().numpy()

    return moved(spoken), moved(felt)


def split_error(error: _Floats) -> tuple[float, float]:
    """Return the root mean squares of an error's (T, 24) parts: of speech, and of emotion."""
    speech, emotion = _directions()
    both = np.concatenate([speech, emotion])

    def along(rows: _Floats, part: slice) -> float:
        weights = np.linalg.lstsq(both.T, rows.T, rcond=1e-6)[0].T
        return float(np.sqrt(((weights[:, part] @ both[part]) ** 2).mean()))

    stays = error.mean(0, keepdims=True)
    here = slice(0, len(speech)), slice(len(speech), None)
    return along(error - stays, here[0]), along(stays, here[1])


_truths: dict[tuple[str, ...], _Floats] = {}


def truth_rows(protocol: str, method: str) -> dict[str, list[float]]:
    """Return for each of :data:`PARTS` each clip's distance, in the order of the protocol."""
    plan = make_plan(
        method,
        protocol_card(protocol),
        profile_card("compact"),
        data=DataFolders.locate(),
        weights=WeightsStore.locate(),
        metrics=["csim"],
    )
    found: dict[str, list[float]] = {part: [] for part in PARTS}
    world = World()
    for planned in plan.items:
        key = (planned.item.speaker, planned.item.emotion, planned.item.id.rpartition("_")[2])
        if key not in _truths:
            _truths[key] = _truth(world.take(key[0], "neutral", key[2]).with_face(key[1]))
        pictures = np.stack(list(clip_frames(planned.clips["output"])))
        frames = torch.from_numpy(pictures).permute(0, 3, 1, 2)
        made = learn.estimate_clip(_model().estimator, frames).expression.double().numpy()
        for part, value in zip(PARTS, split_error(made - _truths[key]), strict=True):
            found[part].append(value)
    return found


def rows(results: Path, protocol: str, configs: list[str], seeds: list[int]) -> list[Any]:
    """Return one row for each metric and configuration."""
    names = {(name, seed): f"{name}-seed{seed}" for name in configs for seed in seeds}
    runs = {
        key: load_run(record_path(results, protocol, name, "compact"))
        for key, name in names.items()
    }
    truths = {key: truth_rows(protocol, name) for key, name in names.items()}
    lines = []
    for metric in (*METRICS, *PARTS):
        if metric in PARTS:
            planned = protocol_card(protocol).items
            emotions, speakers = [i.emotion for i in planned], [i.speaker for i in planned]
            values = {key: np.array(found[metric]) for key, found in truths.items()}
        else:
            found = {key: item_values(record, metric) for key, record in runs.items()}
            items = found[configs[0], seeds[0]]
            values = {key: np.array([i.value for i in every]) for key, every in found.items()}
            emotions, speakers = [i.emotion for i in items], [i.speaker for i in items]
        for name in configs:
            mean = np.mean([values[name, k] for k in seeds], axis=0)
            score = resampling.estimate(mean, emotions, speakers)
            line: dict[str, Any] = {
                "protocol": protocol,
                "metric": metric,
                "model": name,
                "seeds": len(seeds),
                "mean": score.value[0],
            }
            if name != configs[0]:
                apart = np.array([values[name, k] - values[configs[0], k] for k in seeds])
                both = resampling.estimate(apart.mean(axis=0), emotions, speakers)
                low, high = resampling.intervals(resampling.draws(both))
                single = resampling.estimate(apart.T, emotions, speakers).value
                line |= {
                    "difference": both.value[0],
                    "low": low[0],
                    "high": high[0],
                    "by_seed": " ".join(f"{d:+.4f}" for d in single),
                }
            lines.append(line)
    return lines


def anchors(protocol: str, methods: list[str]) -> list[Any]:
    """Return the rows of :data:`PARTS` for controls, which need no record."""
    items = protocol_card(protocol).items
    emotions, speakers = [i.emotion for i in items], [i.speaker for i in items]
    lines = []
    for method in methods:
        for part, values in truth_rows(protocol, method).items():
            mean = resampling.estimate(values, emotions, speakers).value[0]
            line = {"protocol": protocol, "metric": part, "model": method, "seeds": 1}
            lines.append({**line, "mean": mean})
    return lines


def picture(lines: list[Any]) -> Any:
    """Return a figure of differences against the share, a panel for each of :data:`DRAWN`."""
    forms: dict[str, list[Any]] = {}
    for line in lines:
        form, _, share = line["model"].rpartition("-")
        if "difference" in line and line["metric"] in DRAWN:
            forms.setdefault(form, []).append((float(share.replace("p", ".")), line))
    figure, grid = drawing.panel_grid(
        (9, 4.6), (2, 3), (0.75, 0.95, 0.35, 0.5), wspace=0.6, hspace=0.42
    )
    shares = sorted({share for every in forms.values() for share, _ in every})
    for k, metric in enumerate(DRAWN):
        axes = figure.add_subplot(grid[k // 3, k % 3])
        ends = []
        for at, (form, colour) in enumerate(zip(forms, COLOURS, strict=False)):
            own = sorted(
                (s, r["difference"], r["low"], r["high"])
                for s, r in forms[form]
                if r["metric"] == metric
            )
            x, y, low, high = map(np.array, zip(*own, strict=True))
            x = x * 1.06 ** (at - len(forms) / 2 + 0.5)  # beside each other
            axes.errorbar(
                x,
                y,
                (y - low, high - y),
                color=colour,
                linewidth=1.3,
                elinewidth=0.5,
                marker="o",
                markersize=3,
            )
            ends.append((y[-1], x[-1], form, colour))
        axes.axhline(0, color=drawing.INK, linewidth=0.6)
        if metric == "csim":
            axes.axhline(-0.005, color=drawing.GREY, linewidth=0.6, linestyle=":")
        axes.set_xscale("log")
        axes.set_xticks(shares, [f"{s:g}" for s in shares])
        axes.minorticks_off()
        axes.grid(axis="y", color=drawing.RULE, linewidth=0.5)
        drawing.open_frame(axes)
        low, high = axes.get_ylim()
        height, placed = 0.085 * (high - low), list[tuple[float, float]]()
        for y, x, form, colour in sorted(ends):  # a label that another covers is moved up
            for other, place in placed:
                if max(x, other) < 4 * min(x, other) and abs(y - place) < height:
                    y = place + height
            placed.append((x, y))
            paper = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.6}
            style: dict[str, Any] = {"color": colour, "fontsize": 6.5, "va": "center"}
            axes.annotate(form, (x * 1.2, y), annotation_clip=False, bbox=paper, **style)
        label = metric if metric in PARTS else metric_card(metric).label
        axes.set_title(label + ("↓" if metric in LOWER else "↑"), fontsize=8.5, fontweight="bold")
        if k >= 3:
            axes.set_xlabel("share of the gradient")
        if k % 3 == 0:
            axes.set_ylabel("difference")
    return figure


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", type=Path)
    parser.add_argument("--config", action="append", required=True)
    parser.add_argument("--seed", action="append", type=int, required=True)
    parser.add_argument("--protocol", action="append")
    parser.add_argument("--anchor", action="append", default=[], choices=["source", "perfect"])
    parser.add_argument("--csv", type=Path)
    parser.add_argument("--picture", type=Path)
    told = parser.parse_args()
    every = []
    for protocol in told.protocol or PROTOCOLS:
        found = rows(told.results, protocol, told.config, told.seed)
        found += anchors(protocol, told.anchor)
        every += found
        lines = []
        for r in found:
            apart = ""
            if "difference" in r:
                apart = f"{r['difference']:+.4f} [{r['low']:+.4f}, {r['high']:+.4f}]"
            arrow = "↓" if r["metric"] in LOWER else "↑"
            own = r["metric"] in PARTS
            label = (r["metric"] if own else metric_card(r["metric"]).label) + arrow
            lines.append([label, r["model"], f"{r['mean']:.4f}", apart, r.get("by_seed", "")])
        print(f"\n{protocol}, means over {len(told.seed)} seeds")
        heads = ["Metric", "Model", "Mean", f"Beside {told.config[0]}", "Each seed"]
        print(tabulate(lines, heads, disable_numparse=True))
    if told.picture:
        first = [r for r in every if r["protocol"] == every[0]["protocol"]]
        drawing.save_drawing(lambda: picture(first), told.picture)
    if told.csv:
        with told.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(dict.fromkeys(k for r in every for k in r)))
            writer.writeheader()
            writer.writerows(every)


if __name__ == "__main__":
    main()
