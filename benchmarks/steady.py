"""How steady our processor time is from Python, beside other work.

    python -m benchmarks.steady CLIP [--turns 5]

A fresh Python program imports torch, then us, and computes the features of ``light`` (SyncNet with
random weights) and an FAD of a clip's first seconds again and again, in turns: quiet, and beside
two programs that use a processor each. Once as the library does it, once with OpenMP's own way of
waiting, which is what a program got before. The ratio is of processor time, turn by turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from benchmarks import common
from spfem_bench.definitions.clips import Clip

WAYS = {"as the library does it": "", "OpenMP's own way of waiting": "plain"}
LIMIT = 1.2
"""Processor time beside other work, as a part of the quiet one."""

HEADERS = ["", "turns", "quiet, CPU s", "beside two busy programs, CPU s", "ratio"]


@contextmanager
def busy(programs: int) -> Iterator[None]:
    """Run programs that use a processor each, while the block lasts."""
    started = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(programs)
    ]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()


def program(clip: str, turns: int, way: str) -> None:
    """Print the processor time of each turn, quiet and busy; torch is imported before us."""
    import torch

    from benchmarks.official_chain import EVERYTHING, ours
    from spfem_bench import machine
    from spfem_bench.statistics.frechet import frechet_part, without

    if way == "plain":
        machine._park_team = lambda _: None  # type: ignore[assignment]
    rng = np.random.default_rng(0)
    sample = rng.normal(size=(2, 600, 512)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        side = ours(common.LIGHT, Path(folder), EVERYTHING)

        def turn() -> float:
            _, spent = side.cold(Clip.parse(clip))
            with common.clock() as more:
                without([frechet_part(*sample, normalise=False)] * 4)
            return spent.cpu + more.cpu

        turn()
        pairs = []
        for _ in range(turns):
            quiet = turn()
            with busy(2):
                pairs.append((quiet, turn()))
    json.dump({"threads": torch.get_num_threads(), "pairs": pairs}, sys.stdout)


def measured(clip: Clip, turns: int, way: str) -> list[tuple[float, float]]:
    """Return the pairs of one way of waiting, from a program of its own."""
    names = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "OPENBLAS_"))}
    code = f"from benchmarks.steady import program; program({str(clip)!r}, {turns}, {way!r})"
    command = [sys.executable, "-c", f"import torch; {code}"]
    done = subprocess.run(command, env=names, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    return [tuple(pair) for pair in json.loads(done.stdout)["pairs"]]


def row(way: str, pairs: Sequence[tuple[float, float]]) -> list[str]:
    """Return one way's row."""
    quiet, beside = zip(*pairs, strict=True)
    ratio = common.spread([b / q for q, b in pairs])
    return [way, str(len(pairs)), common.spread(quiet), common.spread(beside), f"**{ratio}**"]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clip", type=Clip.parse, metavar="CLIP")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of the clip")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = common.cut(given.clip, folder / "clip.mp4", given.seconds)
        weights = common.random_syncnet([clip], 0)
        common.use_cards(common.profiles(folder, weights, {common.LIGHT: {}}))
        rows = [row(way, measured(clip, given.turns, how)) for way, how in WAYS.items()]
    common.print_table(rows, HEADERS)
    print(common.quotable({f"busy by quiet, {r[0]}:": r[4] for r in rows}, os.cpu_count() or 1))


if __name__ == "__main__":
    main()
