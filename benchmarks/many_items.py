"""How time and memory grow with the items of a protocol, up to 100,000: no network is run.

    python -m benchmarks.many_items [--items 1000 3000 10000 30000 100000] [--methods 1]
    python -m benchmarks.many_items --profile official --metrics fad

Each size is one process after the list, files of a few bytes and random features in the shapes of
the profile's networks were written. That process does what ``eval --videos``, ``table``,
``compare`` and ``report --no-videos`` do: plan, scores with their bootstrap, record, reading,
tables. CPU seconds, largest resident memory, and the exponent of each part are printed; the last
is fitted on logarithms (see :mod:`benchmarks.growth`). With ``--methods`` the items are shared out.

One recording in ten items is the source, reference or real clip of ten items. The disk needs
12 kB an item (``compact``), files removed in the end.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from benchmarks import common
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.computing import Computing
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import EMOTIONS, protocol
from spfem_bench.evaluation.outputs import Videos
from spfem_bench.evaluation.plan import Plan, make_plan
from spfem_bench.features.store import CHECKSUM, Arrays, arrays_digest
from spfem_bench.networks.weights import WeightsStore

_Result = TypeVar("_Result")

SIZES = (1_000, 3_000, 10_000, 30_000, 100_000)
SPEAKERS = 100
METRICS = ("fad", "csim", "lse-d", "lse-c", "av-offset", "id-sim")
SHARED = 10
"""Items that one recording serves."""


# ---- a world of files and features --------------------------------------------------------------


def write_world(folder: Path, items: int, methods: int, profile: str) -> str:
    """Write a protocol, its clips and outputs, each a file of a few bytes; return its card."""
    cards = folder / "protocols"
    (cards / "datasets").mkdir(parents=True)
    recordings, outputs = folder / "recordings", folder / "outputs"
    recordings.mkdir()
    made = max(SPEAKERS * len(EMOTIONS), items // SHARED)
    for number in range(made):
        (recordings / f"{number}.mp4").write_text(f"recording {number}")
    rows = ["id,speaker,emotion,source,reference,real"]
    for n in range(items):
        other, real = (n * 7 + 1) % made, (n // SHARED) % made
        speaker, emotion = f"S{n % SPEAKERS}", EMOTIONS[n % 7]
        rows.append(f"{n},{speaker},{emotion},{n % made},{other},{real}")
    for method in range(methods):
        (outputs / str(method)).mkdir(parents=True)
        for n in range(items):
            (outputs / str(method) / f"{n}.mp4").write_text(f"output {method} {n}")
    (cards / "many.csv").write_text("\n".join(rows) + "\n")
    (cards / "datasets" / "many-clips.toml").write_text(
        'title = "Many"\nlicence = "none"\ncitation = "none"\n'
        f"[folders]\nclips = {json.dumps(str(recordings))}\n"
    )
    card = cards / "many.toml"
    card.write_text(
        'title = "Many items"\nversion = 1\nsetting = "inter-id"\ndataset = "many-clips"\n'
        f'items = "many.csv"\nemotions = {json.dumps(EMOTIONS)}\nmetrics = {json.dumps(METRICS)}\n'
        f'faces = "aligned"\nprofile = "{profile}"\n[clips]\n'
        + "".join(f'{r} = "clips/{{{r}}}.mp4"\n' for r in ("source", "reference", "real"))
    )
    return str(card)


def plans_of(card: str, folder: Path, methods: int, profile: str, metrics: list[str]) -> list[Plan]:
    """Resolve every method, as ``spfem-bench eval --videos`` does."""
    return [
        make_plan(
            f"method-{n}",
            protocol(card),
            profile_card(profile),
            data=DataFolders.locate(),
            weights=WeightsStore.locate(),
            metrics=metrics,
            videos=Videos(folder / "outputs" / str(n)),
        )
        for n in range(methods)
    ]


def fill(
    folder: Path, card: str, methods: int, profile: str, metrics: list[str], frames: int
) -> int:
    """Store random features and headers; return the store's files."""
    from benchmarks.warm import noise
    from spfem_bench.evaluation.measure import plan_requests
    from spfem_bench.evaluation.session import make_extractor
    from spfem_bench.features.store import FeatureStore
    from spfem_bench.hashes import known_sha256
    from spfem_bench.media import ffmpeg

    store, rng = FeatureStore.locate(), np.random.default_rng(0)
    for number in range(256):
        (store.folder / f"{number:02x}").mkdir(parents=True)
    for path in folder.rglob("*.mp4"):
        write(store.path({"pictures": known_sha256(path), "ffmpeg": ffmpeg.version()}), {})
    count = 0
    for plan in plans_of(card, folder, methods, profile, metrics):
        x = make_extractor(plan, WeightsStore.locate(), Computing(batch_size=32))
        for clip, roles in plan_requests(plan).items():
            for role in roles:
                assert isinstance(role, str)
                path = store.path(x.key(clip, role))
                if not path.exists():
                    write(path, noise(plan, role, frames, rng))
                    count += 1
    return count


def write(path: Path, arrays: Arrays) -> None:
    """Write what the store's ``put`` would write, without its care for the disk."""
    import safetensors.numpy

    checksum = {CHECKSUM: arrays_digest(arrays, path.stem)}
    path.write_bytes(safetensors.numpy.save(arrays, metadata=checksum))


# ---- in a process of its own --------------------------------------------------------------------


def measured(
    folder: Path, card: str, methods: int, profile: str, metrics: list[str], workers: int
) -> dict[str, Any]:
    """Return the seconds of each part, and the largest memory after it in MB."""
    from spfem_bench.analysis.comparing import compare_runs
    from spfem_bench.evaluation import record as records
    from spfem_bench.evaluation.session import carry_out
    from spfem_bench.execution.workers import workers_for
    from spfem_bench.reporting.report.build import build
    from spfem_bench.reporting.table_layouts import render_table
    from spfem_bench.reporting.tables import make_table

    seconds: dict[str, float] = {}
    peaks: dict[str, float] = {}
    began = time.perf_counter()

    def part(name: str, work: Callable[[], _Result]) -> _Result:
        with common.clock() as spent:
            result = work()
        seconds[name] = spent.cpu
        used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        peaks[name] = max(u.ru_maxrss for u in used) / 1024
        return result

    computing = Computing(batch_size=32, workers=workers)
    paths = [folder / "results" / f"{n}.json" for n in range(methods)]
    plans = part("plan", lambda: plans_of(card, folder, methods, profile, metrics))
    assert all(p.complete for p in plans), (plans[0].refusals[:1], plans[0].unavailable)

    def score(plans: list[Plan]) -> None:
        with workers_for(computing) as team:
            carried = carry_out(
                plans, WeightsStore.locate(), computing, workers=team, partial=False
            )
            for path, record in zip(paths, carried, strict=True):
                records.save(record, path)

    part("scores, record", lambda: score(plans))
    found = part("read", lambda: records.load_all(paths))
    text = part("table", lambda: render_table(make_table(found), "text", layout="asccl"))
    assert "method-0" in text
    if methods == 1:  # another with the same numbers, to compare it with
        other = found[0].method.model_copy(update={"name": "other", "label": "other"})
        scores = [s.model_copy(update={"method": "other"}) for s in found[0].scores]
        found.append(found[0].model_copy(update={"method": other, "scores": tuple(scores)}))
    part("compare", lambda: compare_runs(found))
    pages = part("report", lambda: build(found, items=3, clips=None))
    return {
        "seconds": seconds,
        "wall": time.perf_counter() - began,
        "peaks": peaks,
        "record MB": paths[0].stat().st_size / 1e6,
        "report MB": len(pages["index.html"]) / 1e6,
    }


def main() -> None:
    """Measure each size, print the parts and their exponents."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--items", type=int, nargs="+", default=list(SIZES), metavar="N")
    parser.add_argument("--methods", type=int, default=1, help="that share the items")
    parser.add_argument("--profile", choices=["compact", "official"], default="compact")
    parser.add_argument("--metrics", nargs="+", default=list(METRICS), metavar="METRIC")
    parser.add_argument("--frames", type=int, default=25, help="of each clip")
    parser.add_argument("--workers", type=int, default=1, help="processes that score methods")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    given = parser.parse_args()
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if given.measure:
        print(json.dumps(measured(Path(given.measure.pop("folder")), **given.measure)))
        return
    results: dict[int, dict[str, Any]] = {}
    for size in given.items:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            os.environ["SPFEM_BENCH_CACHE"] = str(folder / "cache")
            profile = given.profile
            if profile == "official":
                from spfem_bench.faces.track import Face

                face = Face(np.float32([60, 60, 190, 220]), np.full((5, 2), 128, np.float32), 1.0)
                common.random_profiles(folder, common.random_syncnet((), 0), face, 256)
                profile = common.OFFICIAL
            card = write_world(folder, size // given.methods, given.methods, profile)
            how: dict[str, Any] = {
                "card": card,
                "methods": given.methods,
                "profile": profile,
                "metrics": given.metrics,
            }
            files = fill(folder, frames=given.frames, **how)
            how |= {"folder": str(folder), "workers": given.workers}
            # Not -m: workers load their parent's main module again, which here loads torch.
            start = "from benchmarks import many_items; many_items.main()"
            command = [sys.executable, "-c", start, "--measure", json.dumps(how)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            results[size] = json.loads(done.stdout.splitlines()[-1]) | {"files": files}
            print(size, json.dumps(results[size]), file=sys.stderr, flush=True)
    print(common.machine(len(os.sched_getaffinity(0))))
    print(f"Profile {given.profile}, {', '.join(given.metrics)}, {given.methods} methods")
    common.print_table(*table(results))


def table(results: dict[int, dict[str, Any]]) -> tuple[list[list[str]], list[str]]:
    """Return the rows and headings: a part a row, a size a column, and the exponent."""
    sizes, rows = list(results), []

    def row(name: str, values: Sequence[float], shape: str) -> None:
        fitted = ""
        if len(sizes) > 1 and min(values) > 0:
            b, half = common.exponent(sizes, values)
            fitted = f"{b:.2f} ± {half:.2f}"
        rows.append([name, *(f"{v:{shape}}" for v in values), fitted])

    each = list(results.values())
    for name in each[0]["seconds"]:
        row(f"{name}, CPU s", [r["seconds"][name] for r in each], ".2f")
    row("**together, CPU s**", [sum(r["seconds"].values()) for r in each], ".1f")
    row("by the clock, s", [r["wall"] for r in each], ".1f")
    row("largest memory, MB", [max(r["peaks"].values()) for r in each], ".0f")
    row("record, MB", [r["record MB"] for r in each], ".1f")
    row("report, MB", [r["report MB"] for r in each], ".1f")
    row("files of features", [r["files"] for r in each], ".0f")
    row("of them in a folder", [r["files"] / 256 for r in each], ".0f")
    return rows, ["items", *(f"{size:,}" for size in sizes), "exponent"]


if __name__ == "__main__":
    main()
