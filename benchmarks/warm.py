"""Ten methods scored again from a warm store and tabled: seconds, part by part.

    python -m benchmarks.warm [--methods 10] [--profile light] [--items 126] [--frames 75]

Both MEAD protocols, 126 items each, so 252 for each method, are laid out as files (videos of usual
sizes, every one with bytes of its own) and as features in a store under their right keys. The
features are noise: what they cost to read and score does not depend on what they say. Then a fresh
process does what ``spfem-bench eval --method A --videos A=DIR ...`` and ``spfem-bench table`` do:
preflight, features from the store, components, scores with their bootstraps, records, and one table
of all. No network runs. One process does it all, and in turns with it several (``--workers``),
whose start and imports count; those of the first process do not.

All files are removed in the end; the default needs 3 GB for a while.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import common
from spfem_bench.datasets import recordings_index
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.computing import Computing
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import EMOTIONS, Protocol, protocol
from spfem_bench.evaluation.measure import plan_requests
from spfem_bench.evaluation.outputs import Videos
from spfem_bench.evaluation.plan import Plan, make_plan
from spfem_bench.evaluation.session import make_extractor
from spfem_bench.faces.track import Face
from spfem_bench.features.extract import Extractor
from spfem_bench.features.features import Features
from spfem_bench.features.store import Arrays
from spfem_bench.media import ffmpeg
from spfem_bench.networks.weights import WeightsStore

PROTOCOLS = ("mead-inter-id", "mead-cross-id")
ITEMS = 126
"""Of each."""

OUTPUT, RECORDING = 200_000, 1_500_000
"""Bytes of a generated clip of 256 x 256 pixels, and of a recording of MEAD, about."""

TARGET = 10.0
"""Seconds that ten methods of 252 items may take."""


# ---- a world of files and features --------------------------------------------------------------


def cut_protocols(cards: Path, items: int) -> list[str]:
    """Write both protocols with fewer items, evenly chosen; return their names."""
    builtin, made = builtin_folder() / "protocols", cards / "protocols"
    made.mkdir(parents=True, exist_ok=True)
    for name in PROTOCOLS:
        head, *rows = (builtin / f"{name}.csv").read_text().splitlines()
        chosen = rows[:: max(1, len(rows) // items)][:items]
        (made / f"few-{name}.csv").write_text("\n".join([head, *chosen]) + "\n")
        card = (builtin / f"{name}.toml").read_text().replace(f"{name}.csv", f"few-{name}.csv")
        shown = {row.split(",")[head.split(",").index("emotion")] for row in chosen}
        kept = json.dumps([e for e in EMOTIONS if e in shown])
        card = re.sub(r"(?m)^emotions = .*$", f"emotions = {kept}", card)
        (made / f"few-{name}.toml").write_text(card)
    return [f"few-{name}" for name in PROTOCOLS]


def write_videos(folder: Path, methods: int, listed: list[Protocol]) -> None:
    """Write recordings as indexed, and the methods' outputs: one video, all with own bytes."""
    command = [
        ffmpeg.program(),
        "-v",
        "error",
        "-f",
        "lavfi",
        "-i",
        "testsrc=s=32x32:r=25:d=0.2",
        "-f",
        "lavfi",
        "-i",
        "sine=d=0.2",
        "-c:v",
        "libx264",
        "-c:a",
        "aac",
        folder / "one.mp4",
    ]
    subprocess.run([str(part) for part in command], check=True)
    one, count = (folder / "one.mp4").read_bytes(), 0

    def write(path: Path, size: int) -> None:
        nonlocal count
        count += 1
        path.parent.mkdir(parents=True, exist_ok=True)
        rest = max(16, size - len(one))
        head = rest.to_bytes(4, "big") + b"free" + count.to_bytes(8, "big")
        path.write_bytes(one + head + bytes(rest - len(head)))

    card = dataset_card("mead")
    files = {}
    for item in (i for p in listed for i in p.items):
        for clip in item.clips.values():
            for name in filter(None, (clip.path, clip.audio)):
                if name.as_posix() not in files:
                    write(folder / "mead" / name, RECORDING)
                    path = name.as_posix()
                    files[path] = recordings_index.IndexedFile(path, 0, 0, {}, "")
    index = recordings_index.RecordingsIndex(folder / "mead", files)
    (folder / "data" / "mead").mkdir(parents=True)
    recordings_index.save_index(folder / "data" / card.name / "index.json", card, index)
    for number in range(methods):
        for listing in listed:
            for item in listing.items:
                write(outputs(folder, listing.name, number) / item.output_name, OUTPUT)


def outputs(folder: Path, name: str, number: int) -> Path:
    """Return where a method's outputs for a protocol lie: both protocols have the same names."""
    return folder / "outputs" / name / f"method-{number}"


def noise(plan: Plan, role: str, frames: int, rng: np.random.Generator) -> Arrays:
    """Return made-up features in the shapes of a role's network."""
    widths = plan.profile.network(role).outputs  # type: ignore[arg-type]
    rows = frames - 5 if role == "sync" else frames
    outputs = {n: rng.normal(0, 1, (rows, w)).astype(np.float32) for n, w in widths.items()}
    for each in outputs.values():
        each += rng.normal(0, 1, each.shape[1]).astype(np.float32)
    return Features(outputs, np.arange(rows), frames).to_arrays()


def fill(plans: list[Plan], frames: int) -> int:
    """Put all features that plans ask for into the store; return how many clips have some."""
    rng, clips = np.random.default_rng(0), set()
    with mock.patch.object(os, "fsync", lambda number: None):  # thrown away in the end
        for plan in plans:
            x = make_extractor(plan, WeightsStore.locate(), Computing(batch_size=32))
            for clip, roles in plan_requests(plan).items():
                clips.add(clip)
                for role in roles:
                    assert isinstance(role, str)
                    key = x.key(clip, role)
                    if not x.store.has(key):
                        x.store.put(key, noise(plan, role, frames, rng))
    return len(clips)


def plans_of(folder: Path, profile: str, methods: int, names: Sequence[str]) -> list[Plan]:
    """Resolve every method on both protocols, as ``spfem-bench eval --videos`` does."""
    data, weights = DataFolders.locate(folder / "data"), WeightsStore.locate()
    return [
        make_plan(
            f"method-{n}",
            protocol(name),
            profile_card(profile),
            data=data,
            weights=weights,
            videos=Videos(outputs(folder, name, n)),
        )
        for n in range(methods)
        for name in names
    ]


# ---- the measurement ----------------------------------------------------------------------------


class Parts:
    """Adds up the seconds of functions, each without those that it calls; of the main thread.

    Attributes:
        seconds: by part, by the clock.
        cpu: of the processors, in all threads.
        calls: by part.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self.cpu: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner = [np.zeros(2)]

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function that is measured under a name."""

        def now() -> Any:
            return np.array([time.perf_counter(), common.cpu_seconds()])

        def measured(*given: Any, **named: Any) -> Any:
            self._inner.append(np.zeros(2))
            began = now()
            try:
                return function(*given, **named)
            finally:
                took = now() - began
                own = took - self._inner.pop()
                self.seconds[name] += float(own[0])
                self.cpu[name] += float(own[1])
                self.calls[name] += 1
                self._inner[-1] += took

        return measured


def watched() -> list[tuple[Any, str, str]]:
    """Return the functions that are measured: where they are, and what they do."""
    from spfem_bench.evaluation import item_clips, record, score
    from spfem_bench.statistics.frechet import FrechetKind

    return [
        (item_clips.headers, "probe", "preflight: headers of videos"),
        (Extractor, "ensure", "store: read and verify"),
        (score, "measure", "components"),
        (score, "score_groups", "scores and bootstraps"),
        (FrechetKind, "score", "of them, FAD"),
        (score, "frozen_settings", "settings and signatures"),
        (record, "save", "records: write"),
    ]


def rescore(
    folder: Path, profile: str, methods: int, names: Sequence[str], workers: int
) -> dict[str, Any]:
    """Score all methods; return seconds, and what this process did, by part."""
    from spfem_bench.evaluation import record as records
    from spfem_bench.evaluation.session import carry_out
    from spfem_bench.execution.workers import workers_for
    from spfem_bench.reporting.table_layouts import render_table
    from spfem_bench.reporting.tables import make_table

    parts = Parts()
    with ExitStack() as stack:
        for owner, name, title in watched():
            measured = parts.timed(title, getattr(owner, name))
            stack.enter_context(mock.patch.object(owner, name, measured))
        began, used = time.perf_counter(), common.cpu_seconds()
        found = []
        computing = Computing(batch_size=32, workers=workers)
        with workers_for(computing) as team:
            team.begin()
            plans = parts.timed("preflight: the rest", plans_of)(folder, profile, methods, names)
            assert all(p.complete for p in plans), plans[0].refusals[:1] or plans[0].unavailable
            carried = carry_out(
                plans,
                WeightsStore.locate(),
                computing,
                workers=team,
                partial=False,
            )
            carry = parts.timed("the rest of an evaluation", lambda: next(carried))
            for plan in plans:
                path = records.record_path(
                    folder / "results", plan.protocol.name, plan.method.name, profile
                )
                records.save(carry(), path)
                found.append(path)
        text = parts.timed(
            "records: read; the table",
            lambda: render_table(
                make_table(records.load_all(found)), "text", layout="asccl", intervals=True
            ),
        )()
        whole, cpu = time.perf_counter() - began, common.cpu_seconds() - used
    assert "method-0" in text
    return {
        "parts": parts.seconds,
        "part_cpu": parts.cpu,
        "calls": parts.calls,
        "whole": whole,
        "cpu": cpu,
    }


def main() -> None:
    """Lay everything out, measure in fresh processes, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--methods", type=int, default=10)
    parser.add_argument("--items", type=int, default=ITEMS, help="of each of two protocols")
    parser.add_argument("--runs", type=int, default=3, help="of each kind, in turns")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that score")
    parser.add_argument("--frames", type=int, default=75, help="of each clip; MEAD's have some 75")
    parser.add_argument("--profile", choices=["light", "official"], default="light")
    parser.add_argument("--threads", type=int, help="of every library; all cores by default")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    threads = common.use_threads(given.threads)
    profile = f"{given.profile}-random"
    if given.measure:
        names = PROTOCOLS if given.items == ITEMS else [f"few-{name}" for name in PROTOCOLS]
        print(json.dumps(rescore(given.measure, profile, given.methods, names, given.workers)))
        return
    # As the command line sets them.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SPFEM_BENCH_CACHE"] = str(folder / "cache")
        weights = common.random_syncnet((), 0)
        if given.profile == "light":
            common.use_cards(common.profiles(folder, weights, {common.LIGHT: {}}))
        else:
            face = Face(np.float32([60, 60, 190, 220]), np.full((5, 2), 128, np.float32), 1.0)
            common.random_profiles(folder, weights, face, 256)
        names = PROTOCOLS
        if given.items != ITEMS:
            names = tuple(cut_protocols(Path(os.environ["SPFEM_BENCH_CARDS"]), given.items))
        write_videos(folder, given.methods, [protocol(p) for p in names])
        clips = fill(plans_of(folder, profile, given.methods, names), given.frames)
        found: dict[int, list[dict[str, Any]]] = {1: [], given.workers: []}
        for _ in range(given.runs):
            for workers, measured in found.items():
                # Not -m: processes that are started load their parent's main module again, and
                # this one loads torch, which the command line does not.
                command = [
                    sys.executable,
                    "-c",
                    "from benchmarks import warm; warm.main()",
                    "--measure",
                    folder,
                    "--methods",
                    given.methods,
                    "--items",
                    given.items,
                    "--profile",
                    given.profile,
                    "--threads",
                    threads,
                    "--workers",
                    workers,
                ]
                done = subprocess.run(
                    [str(c) for c in command], stdout=subprocess.PIPE, text=True, check=True
                )
                measured.append(json.loads(done.stdout.splitlines()[-1]))
        items = sum(len(protocol(p).items) for p in names)
    print(f"{given.methods} methods x {items} items, {clips} clips of {given.frames} frames")
    print(f"Profile {given.profile}, with random networks where they are not shipped.")
    print(common.machine(threads))
    rows = [
        [str(workers), *(common.spread([run[what] for run in runs]) for what in ("whole", "cpu"))]
        for workers, runs in found.items()
    ]
    common.print_table(rows, ["processes", f"s ({TARGET:.0f} wanted)", "CPU s"])
    first = found[1][0]
    rows = [
        [part, str(first["calls"][part]), f"{seconds:.2f}", f"{first['part_cpu'][part]:.2f}"]
        for part, seconds in sorted(first["parts"].items(), key=lambda one: -one[1])
    ]
    print("The first run of one process:")
    common.print_table(rows, ["part", "calls", "s", "CPU s"])


if __name__ == "__main__":
    main()
