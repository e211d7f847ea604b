"""How time and memory grow with frames, clips, methods and workers, and the exponents.

    python -m benchmarks.growth [--axes frames clips methods workers] [--large]
    python -m benchmarks.growth --clip CLIP --profile light --axes frames

Cold evaluations by the profile ``compact``, or another one, each size in a process of its own whose
networks a first clip has warmed up. ``frames``: one clip, longer and longer. ``clips``: more and
more of one second, every one with bytes of its own; --large goes on to 2,000. ``methods``: whole
evaluations of a protocol of two items, the features of its real and reference clips being there.
``workers``: the same 48 clips by one and two processes, each with one thread, and their start-up
counted.

The exponent b of cost = a size^b is fitted by least squares on logarithms; its 95 % interval is
Student's. Sizes take turns (``--rounds``); their medians are printed, and all points are fitted.
Memory is the process's largest resident size.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import common
from benchmarks.faults import PROTOCOL, write_protocol
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import profile_card
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import ffmpeg
from spfem_bench.networks.weights import WeightsStore

SIZES: dict[str, Sequence[int]] = {
    "frames": (250, 500, 1000, 2000, 4000),
    "clips": (25, 50, 100, 200),
    "methods": (2, 4, 8, 16),
    "workers": (1, 2),
}
LARGE = (500, 1000, 2000)
WARM = 260
"""Frames of the clip that comes before the measurement; one of the sizes would be stored then."""

MIXED = 48
"""Clips that workers share."""


# ---- in a process of its own --------------------------------------------------------------------


def extractor(how: dict[str, Any], store: Path) -> Extractor:
    """Return the extractor that all sizes of an axis use."""
    profile = profile_card(how["profile"])
    aligned = profile.name == "compact"
    return Extractor(
        profile,
        WeightsStore.locate(),
        FeatureStore(store),
        faces="aligned" if aligned else "detect",
    )


def features(how: dict[str, Any], size: int, folder: Path) -> common.Spent:
    """See the clips of one size."""
    roles = frozenset(how["roles"].split(","))
    x = extractor(how, folder / "store")
    warm, one = Path(how["warm"]), Path(how["clip"])
    if how["axis"] == "frames":
        clips = [Clip(one.with_name(f"frames-{size}.mp4"))]
    else:
        clips = common.copies(one, folder / "copies", MIXED if how["axis"] == "workers" else size)
    wants: Any = dict.fromkeys(clips, roles)
    if how["axis"] == "workers":
        from spfem_bench.definitions.computing import Computing
        from spfem_bench.execution.workers import workers_for

        with common.clock() as spent, workers_for(Computing(workers=size)) as team:
            failures: Any = team.compute(x, wants)
    else:
        assert not x.ensure({Clip(warm): roles})
        with common.clock() as spent:
            failures = x.ensure(wants)
    assert not failures, failures
    return spent


def methods(how: dict[str, Any], size: int, folder: Path) -> common.Spent:
    """Evaluate methods, after one whose features of other clips the rest share."""
    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.definitions.computing import Computing
    from spfem_bench.definitions.protocols import protocol
    from spfem_bench.evaluation.outputs import Videos
    from spfem_bench.evaluation.plan import make_plan
    from spfem_bench.evaluation.session import carry_out
    from spfem_bench.execution.processes import ThisProcess

    listed, weights = protocol(PROTOCOL), WeightsStore.locate()
    outputs = common.copies(Path(how["clip"]), folder / "copies", len(listed.items) * (size + 1))
    os.environ["SPFEM_BENCH_CACHE"] = str(folder / "cache")
    data = DataFolders.locate(renders=Path(how["renders"]))

    def evaluate(number: int) -> None:
        own = folder / f"method-{number}"
        own.mkdir()
        for item in listed.items:
            shutil.move(outputs.pop().path, own / item.output_name)
        plan = make_plan(
            f"method-{number}",
            listed,
            profile_card("compact"),
            data=data,
            weights=weights,
            metrics=["fad", "csim", "lse-d"],
            videos=Videos(own),
        )
        [record] = carry_out(
            [plan], weights, Computing(batch_size=32), workers=ThisProcess(), partial=False
        )
        assert record.complete

    evaluate(0)
    with common.clock() as spent:
        for number in range(size):
            evaluate(number + 1)
    return spent


# ---- the table ----------------------------------------------------------------------------------


def looped(source: Clip, path: Path, frames: int) -> Path:
    """Write a clip of exactly so many frames by repeating another."""
    command = [
        ffmpeg.program(),
        "-v",
        "error",
        "-y",
        "-stream_loop",
        "-1",
        "-i",
        source.path,
        "-frames:v",
        frames,
        "-t",
        frames / 25 + 0.04,
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
        path,
    ]
    subprocess.run([str(part) for part in command], check=True)
    return path


def measured(how: dict[str, Any], size: int, threads: int) -> dict[str, float]:
    """Measure one size in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.growth",
        "--measure",
        json.dumps(how),
        "--size",
        str(size),
        "--threads",
        str(threads),
    ]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    """Measure each size, print the costs, then the exponents."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--axes", nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--large", action="store_true", help="clips: on to 2,000")
    parser.add_argument("--sizes", type=int, nargs="+", help="in the place of each axis's own")
    parser.add_argument("--rounds", type=int, default=3, help="turns of all sizes")
    parser.add_argument("--clip", type=Clip.parse, help="a clip to repeat; the demo's by default")
    parser.add_argument("--profile", default="compact")
    parser.add_argument("--roles", default="identity,expression,sync")
    parser.add_argument("--threads", type=int, help="of every library; all cores by default")
    parser.add_argument("--measure", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    threads = common.use_threads(given.threads)
    if given.measure:
        with tempfile.TemporaryDirectory() as name:
            work = methods if given.measure["axis"] == "methods" else features
            spent = work(given.measure, given.size, Path(name))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({"wall": spent.wall, "cpu": spent.cpu, "peak": peak}))
        return
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    rows, fits = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_protocol(folder / "cards")
        common.use_cards(folder / "cards")
        source = given.clip or common.puppets(folder, 1, 1.0)[0]
        if given.clip:
            source = common.cut(given.clip, folder / "cut.mp4")
        for axis in given.axes:
            sizes = given.sizes or (
                *SIZES[axis],
                *(LARGE if given.large and axis == "clips" else ()),
            )
            how = {
                "axis": axis,
                "profile": given.profile,
                "roles": given.roles,
                "warm": str(looped(source, folder / "warm.mp4", WARM)),
                "clip": str(looped(source, folder / "second.mp4", 25)),
                "renders": str(folder / "renders"),
            }
            if axis == "frames":
                for size in sizes:
                    looped(source, folder / f"frames-{size}.mp4", size)
            found: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
            for _ in range(given.rounds):
                for size, turns in found.items():
                    turns.append(measured(how, size, 1 if axis == "workers" else threads))
            middle = {
                size: {kind: statistics.median(t[kind] for t in turns) for kind in turns[0]}
                for size, turns in found.items()
            }
            for size, each in middle.items():
                rows.append(
                    [
                        axis,
                        str(size),
                        f"{each['wall']:.2f}",
                        f"{each['cpu']:.2f}",
                        "" if axis == "workers" else f"{1000 * each['cpu'] / size:.1f}",
                        f"{each['peak']:.0f}",
                    ]
                )
            first, last = middle[sizes[0]], middle[sizes[-1]]
            if axis == "workers":
                ratio = first["wall"] / last["wall"]
                fits.append([axis, f"{ratio:.2f} times as fast with {sizes[-1]}", "", ""])
                continue
            cells = []
            for kind in ("wall", "cpu"):
                points = [(size, turn[kind]) for size, turns in found.items() for turn in turns]
                b, half = common.exponent(*zip(*points, strict=True))
                cells.append(f"{b:.3f} ± {half:.3f}")
            grown = last["peak"] - first["peak"]
            cells.append(f"{grown:+.0f} MB for {sizes[-1] / sizes[0]:g} times as many")
            fits.append([axis, *cells])
    print(common.machine(threads))
    common.print_table(rows, ["what grows", "size", "s", "CPU s", "CPU ms for one", "peak MB"])
    common.print_table(fits, ["what grows", "exponent of time", "exponent of CPU time", "memory"])


if __name__ == "__main__":
    main()
