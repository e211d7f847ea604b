"""How far reference numbers move with things that should not matter.

    python benchmarks/stability.py [NAME] [--protocols ...] [--methods ...] [--speakers N]

Threads, processes, batch sizes and the processor's instruction sets are varied,
each in a process of its own with clips rendered and features computed anew. The
tables show how far each metric's numbers (values and ends of intervals) lie from
those of the first variant, and what each variable did to the libraries: one that
changed nothing measures nothing, and is marked so. The tolerances it proposes
are ten times the largest deviation.

An older processor is imitated by what the libraries may use of this one. That
is not another make of processor. Other versions of programs are measured when
they are named: of ffmpeg with --ffmpeg, of Python packages with --packages, in
folders that 'pip install --target FOLDER' has filled.

With --speakers only the first speakers of each list are evaluated, which is
quicker. Numbers that stand on fewer clips move farther: the tolerances are on
the safe side.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tabulate import tabulate

FACTOR = 10
"""A proposed tolerance is so many times the largest deviation seen."""

FLOOR = 1e-6
"""No tolerance is smaller: the references are written with eight digits."""

OLD = {
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Nehalem",
    "OPENCV_CPU_DISABLE": "AVX512-SKX,AVX2,FP16,AVX,SSE4.2,SSE4.1",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL",
}
"""Every variable by which a library can be told not to use new instructions."""


@dataclass(frozen=True)
class Variant:
    """One way to compute the same numbers.

    Attributes:
        ffmpeg: program and options in ffmpeg's place; empty for the one always used.
    """

    name: str
    threads: int = 1
    workers: int = 1
    batch_size: int = 32
    environment: dict[str, str] = field(default_factory=dict)
    ffmpeg: tuple[str, ...] = ()


def variants(programs: list[str], packages: list[str]) -> list[Variant]:
    """Return all variants, the one the others are compared with first."""
    from spfem_bench.media import ffmpeg

    def only(**environment: str) -> dict[str, str]:
        return environment

    return [
        Variant("1 thread, 1 worker, batch 32"),
        Variant("2 threads", threads=2),
        Variant("2 workers", workers=2),
        Variant("batch 1", batch_size=1),
        Variant("batch 7", batch_size=7),
        Variant("torch avx2", environment=only(ATEN_CPU_CAPABILITY="avx2")),
        Variant("torch default", environment=only(ATEN_CPU_CAPABILITY="default")),
        Variant("oneDNN AVX2", environment=only(ONEDNN_MAX_CPU_ISA="AVX2")),
        Variant("oneDNN SSE41", environment=only(ONEDNN_MAX_CPU_ISA="SSE41")),
        Variant("MKL SSE4_2", environment=only(MKL_ENABLE_INSTRUCTIONS="SSE4_2")),
        Variant("MKL compatible", environment=only(MKL_CBWR="COMPATIBLE")),
        *(
            Variant(f"{library} old", environment={variable: OLD[variable]})
            for library, variable in (
                ("OpenBLAS", "OPENBLAS_CORETYPE"),
                ("OpenCV", "OPENCV_CPU_DISABLE"),
                ("numpy", "NPY_DISABLE_CPU_FEATURES"),
            )
        ),
        Variant("ffmpeg plain C", ffmpeg=(ffmpeg.program(), "-cpuflags", "0")),
        Variant("all old", 2, 2, 7, OLD, (ffmpeg.program(), "-cpuflags", "0")),
        *(Variant(f"ffmpeg, no. {n}", ffmpeg=(path,)) for n, path in enumerate(programs, 1)),
        *(
            Variant(
                f"packages, no. {n}",
                environment=only(
                    PYTHONPATH=os.pathsep.join(filter(None, [path, os.environ.get("PYTHONPATH")]))
                ),
            )
            for n, path in enumerate(packages, 1)
        ),
    ]


def state() -> dict[str, str]:
    """Return what the libraries of this process say that they use."""
    import ctypes

    import cv2
    import numpy as np
    import torch
    from numpy._core._multiarray_umath import __cpu_dispatch__, __cpu_features__

    from spfem_bench import provenance
    from spfem_bench.features.software import EVERY
    from spfem_bench.media import ffmpeg

    # OpenCV puts a star before what it could use and a question mark after what is forbidden.
    opencv = [w[1:] for w in cv2.getCPUFeaturesLine().split() if w[0] == "*" and w[-1] != "?"]
    numpy = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
    found = {
        **{f"module {name}": version for name, version in provenance.versions(EVERY).items()},
        "torch": torch.backends.cpu.get_cpu_capability(),
        "torch's threads": str(torch.get_num_threads()),
        "OpenCV": (opencv or ["baseline"])[-1],
        "numpy": (numpy or ["baseline"])[-1],
        "ffmpeg": ffmpeg.version().split("-")[0],
    }
    for library in (Path(np.__file__).parent.parent / "numpy.libs").glob("*openblas*"):
        name = ctypes.CDLL(str(library)).scipy_openblas_get_corename64_
        name.restype = ctypes.c_char_p
        found["OpenBLAS"] = name().decode()
    return found


def told(environment: dict[str, str]) -> dict[str, str]:
    """Return what oneDNN and MKL say of themselves, which they do when asked to be verbose."""
    probe = (
        "import torch; torch.nn.functional.conv2d(torch.ones(32,8,32,32), torch.ones(8,8,3,3)); "
        "torch.ones(64, 64) @ torch.ones(64, 64)"
    )
    said = subprocess.run(
        [sys.executable, "-c", probe],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment, "ONEDNN_VERBOSE": "1", "MKL_VERBOSE": "1"},
    ).stdout
    found = {}
    if isa := re.search(r",isa:(?:Intel )?([^\n,]*?)(?: with [^\n]*)?\n", said):
        found["oneDNN"] = isa[1]
    if mode := re.search(r"SGEMM.* CNR:(\S+)", said):
        found["MKL"] = f"CNR {mode[1]}"  # whose instructions it names for Intel's processors only
    return found


def first_speakers(name: str, count: int, cards: Path) -> str:
    """Write a set of reference numbers on the first speakers of another's lists.

    Returns:
        Its name; its cards lie in *cards*.
    """
    from spfem_bench.definitions.measured import measured_card
    from spfem_bench.definitions.protocols import protocol

    card = measured_card(name)
    text = card.path.read_text(encoding="utf-8").split("\n[[history]]")[0]
    for folder in ("protocols", "reference_results/measured"):
        (cards / folder).mkdir(parents=True)
    for old in card.methods:
        full = protocol(old).card
        new = f"{old}-first-{count}"
        head, *rows = (full.path.parent / full.items).read_text(encoding="utf-8").splitlines()
        speaker = head.split(",").index("speaker")
        kept = list(dict.fromkeys(row.split(",")[speaker] for row in rows))[:count]
        rows = [row for row in rows if row.split(",")[speaker] in kept]
        (cards / "protocols" / f"{new}.csv").write_text("\n".join([head, *rows, ""]))
        content = full.path.read_text(encoding="utf-8").replace(full.items, f"{new}.csv")
        (cards / "protocols" / f"{new}.toml").write_text(content)
        text = text.replace(f"{old} =", f"{new} =")
    (cards / "reference_results/measured" / f"{name}-first-{count}.toml").write_text(text)
    return f"{name}-first-{count}"


def measure(given: argparse.Namespace) -> None:
    """Compute the numbers in this process and write them to a file."""
    import torch

    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.definitions.computing import Computing
    from spfem_bench.definitions.measured import measured_card
    from spfem_bench.evaluation.check import recompute
    from spfem_bench.execution.workers import workers_for
    from spfem_bench.features.store import FeatureStore
    from spfem_bench.networks.weights import WeightsStore

    torch.set_num_threads(given.threads)
    card = measured_card(given.name)
    computing = Computing(batch_size=given.batch_size, workers=given.workers)
    methods = {
        protocol: tuple(m for m in methods if m in (given.methods or methods))
        for protocol, methods in card.methods.items()
        if protocol in (given.protocols or card.methods)
    }
    with (
        tempfile.TemporaryDirectory() as fresh,
        workers_for(computing) as team,
    ):
        here = recompute(
            card.model_copy(update={"methods": methods}),
            weights=WeightsStore.locate(),
            data=DataFolders.locate(renders=Path(fresh)),
            store=FeatureStore(Path(fresh) / "features"),
            workers=team,
            computing=computing,
        )
    assert not here.refused, here.refused[0]
    rows = {"/".join(key): [r.value, r.low, r.high] for key, r in here.rows.items()}
    given.measure.write_text(json.dumps({"rows": rows, "state": state()}))


def run(variant: Variant, arguments: list[str]) -> dict[str, dict[str, list[float]]]:
    """Compute the numbers as a variant asks, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(variant.threads),
            **variant.environment,
        }
        if variant.ffmpeg:
            program = Path(folder) / "ffmpeg"
            program.write_text(f'#!/bin/sh\nexec {shlex.join(variant.ffmpeg)} "$@"\n')
            program.chmod(0o755)
            environment["PATH"] = f"{folder}{os.pathsep}{environment['PATH']}"
        out = Path(folder) / "measured.json"
        subprocess.run(
            [
                sys.executable,
                __file__,
                *arguments,
                "--measure",
                str(out),
                "--threads",
                str(variant.threads),
                "--workers",
                str(variant.workers),
                "--batch-size",
                str(variant.batch_size),
            ],
            check=True,
            env=environment,
        )
        found: dict[str, dict[str, list[float]]] = json.loads(out.read_text())
        found["state"] |= told(variant.environment)
        return found


def deviations(
    rows: dict[str, list[float]], first: dict[str, list[float]]
) -> dict[str, tuple[float, str]]:
    """Return each metric's largest deviation, and the row that has it."""
    assert rows.keys() == first.keys()
    largest: dict[str, tuple[float, str]] = {}
    for key, numbers in rows.items():
        metric = key.split("/")[2]
        for number, other in zip(numbers, first[key], strict=True):
            assert (number is None) == (other is None), key
            by = abs(number - other) if number is not None else 0.0
            largest[metric] = max(largest.get(metric, (0.0, "")), (by, key))
    return largest


def tolerance(deviation: float) -> float:
    """Return ten times a deviation, rounded up to one digit, and never below the floor.

    >>> tolerance(0.00123), tolerance(0)
    (0.02, 1e-06)
    """
    wanted = max(FACTOR * deviation, FLOOR)
    digit = 10.0 ** math.floor(math.log10(wanted))
    return float(f"{math.ceil(wanted / digit - 1e-9) * digit:.0e}")


def main() -> None:
    """Run every variant and print how far its numbers lie from the first one's."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="demo")
    parser.add_argument("--protocols", nargs="+")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--speakers", type=int, help="only the first of each list")
    parser.add_argument("--only", nargs="+", help="variants beside the first")
    parser.add_argument("--ffmpeg", nargs="+", default=[], help="other ffmpeg programs")
    parser.add_argument("--packages", nargs="+", default=[], help="folders of other packages")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--batch-size", type=int, default=32, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given)
        return
    folder = tempfile.TemporaryDirectory()
    if given.speakers:
        given.name = first_speakers(given.name, given.speakers, Path(folder.name))
        own = filter(None, [os.environ.get("SPFEM_BENCH_CARDS"), folder.name])
        os.environ["SPFEM_BENCH_CARDS"] = os.pathsep.join(own)
        if given.protocols:
            given.protocols = [f"{p}-first-{given.speakers}" for p in given.protocols]
    arguments = [given.name]
    for option in ("protocols", "methods"):
        if getattr(given, option):
            arguments += [f"--{option}", *getattr(given, option)]
    baseline, *rest = variants(given.ffmpeg, given.packages)
    if given.only:
        rest = [v for v in rest if v.name in given.only]
    first = run(baseline, arguments)
    for library, says in first["state"].items():
        print(f"{library}: {says}", flush=True)
    largest = dict.fromkeys((key.split("/")[2] for key in first["rows"]), (0.0, "", ""))
    table = []
    for variant in rest:
        began = time.perf_counter()
        try:
            found = run(variant, arguments)
        except subprocess.CalledProcessError:  # its own words are on standard error
            table.append([variant.name, "–", *("–" for _ in largest), "failed"])
            continue
        seen = deviations(found["rows"], first["rows"])
        moved = sum(found["rows"][k] != first["rows"][k] for k in first["rows"])
        changed = {k: v for k, v in found["state"].items() if v != first["state"].get(k)}
        effect = ", ".join(f"{k} {v}" for k, v in changed.items())
        if (variant.environment or variant.threads > 1) and not effect:
            effect = "none that a library tells of"
        table.append([variant.name, moved, *(f"{seen[m][0]:.1e}" for m in largest), effect])
        print(f"{table[-1]} {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
        for metric, (by, row) in seen.items():
            largest[metric] = max(largest[metric], (by, row, variant.name))
    print(f"\nLargest deviation from '{baseline.name}' over {len(first['rows'])} rows:\n")
    print(tabulate(table, ["Variant", "Rows moved", *largest, "Effect"], disable_numparse=True))
    print(f"\nTolerances: {FACTOR} times the largest, at least {FLOOR:g}:\n")
    chosen = [
        [metric, f"{by:.1e}", name, row, f"{tolerance(by):g}"]
        for metric, (by, row, name) in largest.items()
    ]
    heads = ["Metric", "Largest", "Variant", "Row", "Tolerance"]
    print(tabulate(chosen, heads, disable_numparse=True))


if __name__ == "__main__":
    main()
