"""Two Ray workers of one thread each against one process on one thread, in one run.

    python benchmarks/ray_workers.py [--items 24] [--seconds 1.2] [--rounds 3] [--workers 2]
                                     [--profile compact] [--detect] [--folder DIR]

Parts of the demo's clips are evaluated cold by one process whose networks have one thread, first
held to one core ("work that is not already using both"), then free, when ffmpeg decodes on another;
and by workers on Ray with one thread each. The order is turned round from round to round. Rendering
is not counted: the clips lie there before. What Ray and its workers take until they can begin (a
new process that imports torch, for each) is measured apart, in the same runs, for it does not grow
with the work; nor are scores counted, which one process makes from stored features in any case.
All records must be equal in all but their timings.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.computing import Computing
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.evaluation.measure import plan_requests
from spfem_bench.evaluation.plan import Plan, make_plan
from spfem_bench.evaluation.session import evaluate
from spfem_bench.execution.cluster import RayWorkers
from spfem_bench.execution.processes import ThisProcess
from spfem_bench.execution.workers import Workers, workers_for
from spfem_bench.features.extract import Extractor, Faces
from spfem_bench.features.store import FeatureStore
from spfem_bench.networks.weights import WeightsStore


def write_protocol(cards: Path, items: int, seconds: float, faces: str) -> None:
    """Write a protocol of many short spans of six of the demo's clips."""
    builtin = builtin_folder() / "protocols"
    (cards / "protocols").mkdir(parents=True)
    card = (builtin / "demo-inter-id.toml").read_text()
    card = card.replace('"demo-inter-id.csv"', '"spans.csv"')
    card = re.sub(r"(?m)^emotions = .*$", 'emotions = ["angry", "happy"]', card)
    card = re.sub(r"(?m)^metrics = .*$", 'metrics = ["fad", "csim", "lse-d"]', card)
    card = re.sub(r"(?m)^faces = .*$", f'faces = "{faces}"', card)
    span = "#t={begin},{end}"
    card = re.sub(r'(?m)^((?:source|reference|real) = ".*\.mp4)"', rf'\1{span}"', card)
    (cards / "protocols/spans.toml").write_text(card)
    head, *rows = (builtin / "demo-inter-id.csv").read_text().splitlines()
    lines = [f"{head},begin,end"]
    for emotion in ("angry", "happy"):
        name, _, rest = next(r for r in rows if f",{emotion}," in r).partition(",")
        for i in range(items // 2):
            begin = i / 100  # other frames each, and other features
            lines.append(f"{name}_{i:03d},{rest},{begin:.2f},{begin + seconds:.2f}")
    (cards / "protocols/spans.csv").write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class Measured:
    """One cold evaluation.

    Attributes:
        features: seconds for the features of all clips.
        record: without its timings.
        start: seconds until all workers could begin; 0 for one process.
    """

    features: float
    record: dict[str, Any]
    start: float = 0.0


HERE = ThisProcess()


def measure(plan: Plan, faces: Faces, workers: Workers = HERE, start: float = 0.0) -> Measured:
    """Evaluate with an empty store."""
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore(Path(folder))
        x = Extractor(plan.profile, WeightsStore.locate(), store, faces=faces)
        record = evaluate(plan, x, workers=workers, partial=False).plain()
    features = record.pop("timings")["features_s"]
    return Measured(features, record, start)


def on_one_core(plan: Plan, faces: Faces) -> Measured:
    """Evaluate in this process, it and the ffmpeg that it starts held to one core."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        return measure(plan, faces)
    finally:
        os.sched_setaffinity(0, allowed)


def on_ray(plan: Plan, faces: Faces, count: int) -> Measured:
    """Evaluate with workers that are there before the clock starts."""
    with ready(count) as (team, start):
        return measure(plan, faces, team, start)


@contextmanager
def ready(count: int) -> Iterator[tuple[RayWorkers, float]]:
    """Give workers that can begin, and the seconds that took."""
    began = time.perf_counter()
    with workers_for(Computing(workers=count, ray="local")) as team:
        assert isinstance(team, RayWorkers)
        team.start_all()
        yield team, time.perf_counter() - began


def main() -> None:
    """Measure in pairs, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--items", type=int, default=24, help="three clips each")
    parser.add_argument("--seconds", type=float, default=1.2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--profile", default="compact")
    parser.add_argument("--detect", action="store_true", help="find faces, too")
    parser.add_argument("--folder", type=Path, help="where the demo's clips are kept")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        top = Path(temporary)
        os.environ["SPFEM_BENCH_CACHE"] = str(given.folder or top / "cache")
        os.environ["SPFEM_BENCH_CARDS"] = str(top / "cards")
        faces: Faces = "detect" if given.detect else "aligned"
        write_protocol(top / "cards", given.items, given.seconds, faces)
        plan = make_plan(
            "source",
            protocol("spans"),
            profile_card(given.profile),
            data=DataFolders.locate(),
            weights=WeightsStore.locate(),
        )
        if plan.unavailable:
            raise SystemExit(str(plan.unavailable))
        clips = plan_requests(plan)
        measure(plan, faces)  # networks and files are warm for all
        ways: list[Callable[[], Measured]] = [
            partial(on_one_core, plan, faces),
            partial(measure, plan, faces),
            partial(on_ray, plan, faces, given.workers),
        ]
        rounds: list[list[Measured]] = []
        for number in range(given.rounds):
            turned = number % 2 == 1
            found = [way() for way in (reversed(ways) if turned else ways)]
            rounds.append(found[::-1] if turned else found)
    rows: list[list[Any]] = [
        [
            number,
            one.features,
            free.features,
            ray.features,
            one.features / ray.features,
            free.features / ray.features,
            "yes" if one.record == free.record == ray.record else "NO",
            ray.start,
        ]
        for number, (one, free, ray) in enumerate(rounds, 1)
    ]
    middle = [statistics.median(row[i] for row in rows) for i in (1, 2, 3, 4, 5, 7)]
    alike = "yes" if all(row[6] == "yes" for row in rows) else "NO"
    rows.append(["median", *middle[:5], alike, middle[5]])
    print(
        f"{len(clips)} clips of {given.seconds:g} s, profile {given.profile}, faces: {faces}; "
        f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; seconds"
    )
    print(
        tabulate(
            rows,
            [
                "round",
                "one core",
                "one process",
                f"{given.workers} Ray workers",
                "ratio to one core",
                "to one process",
                "same record",
                "start, apart",
            ],
            floatfmt=".2f",
        )
    )
    if alike == "NO":
        raise SystemExit("records differ")


if __name__ == "__main__":
    main()
