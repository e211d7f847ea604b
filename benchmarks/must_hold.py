"""The speed that must hold on two quiet cores, in one table and at most eight minutes.

    python -m benchmarks.must_hold CLIP

Both sides of each row in one process, in turns, as ``official_chain`` and ``steady`` describe them:
medians of as many turns as fit, five at most. The clip is cut short; a face must be in it.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common, steady
from benchmarks.common import AUTO, LIGHT, OFFICIAL, Spent
from benchmarks.official_chain import (
    EVERYTHING,
    Bench,
    Theirs,
    ours,
    prepare,
    reachable_ffmpeg,
    timed,
)
from spfem_bench.definitions.clips import Clip

SYNC = frozenset({"sync"})
LEAST = {
    "lip sync, a file to LSE-D": 3.4,
    "lip sync, crops to LSE-D": 1.75,
    "all three metrics, `official-auto`": 3.0,
    "all three metrics, `official`: the packages' own size": 1.4,
    "all three metrics, `light`": 12.0,
}
"""How many times the packages' speed must hold, by row."""

Side = Callable[[], Spent]


Pairs = dict[str, list[tuple[Spent, Spent]]]


def turns(sides: Mapping[str, tuple[Side, Side]], deadline: float, most: int) -> Pairs:
    """Run theirs and ours of each row in turns until the deadline; the first turn warms up."""
    pairs: Pairs = {name: [] for name in sides}
    slowest = 0.0
    for turn in range(-1, most):
        began = time.monotonic()
        if turn > 0 and began + slowest > deadline:
            break
        spent: dict[int, Spent] = {}

        def once(side: Side, spent: dict[int, Spent] = spent) -> Spent:
            """Run what several rows have in common once a turn."""
            if id(side) not in spent:
                spent[id(side)] = side()
            return spent[id(side)]

        for name, (theirs, mine) in sides.items():
            a, b = common.alternate(lambda theirs=theirs: once(theirs), mine, turn)
            if turn >= 0:
                pairs[name].append((a, b))
        slowest = max(slowest, time.monotonic() - began)
    return pairs


def rows_of(bench: Bench, theirs: Theirs, folder: Path) -> dict[str, tuple[Side, Side]]:
    """Return the two sides of each row."""
    (clip,), (short,) = bench.clips, bench.short
    work = folder / "work"

    def cleared(run: Callable[[], Any]) -> Side:
        def side() -> Spent:
            shutil.rmtree(work, ignore_errors=True)
            return timed(run)[1]

        return side

    with common.quiet():
        theirs.lip_sync(clip, folder / "crops")
    (crops,) = (folder / "crops" / "cropped").glob("*.avi")

    def mine(profile: str, roles: frozenset[str], of: Clip, **how: Any) -> Side:
        one = ours(profile, folder, roles, **how)
        return lambda: one.cold(of)[1]

    whole = cleared(lambda: theirs.all_three(short, work))
    sides = [
        (cleared(lambda: theirs.lip_sync(clip, work)), mine(LIGHT, SYNC, clip)),
        (
            cleared(lambda: theirs.score(crops, work)),
            mine(LIGHT, SYNC, Clip(crops), faces="aligned"),
        ),
        *((whole, mine(profile, EVERYTHING, short)) for profile in (AUTO, OFFICIAL, LIGHT)),
    ]
    return dict(zip(LEAST, sides, strict=True))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clip", type=Clip.parse, metavar="CLIP")
    parser.add_argument("--turns", type=int, default=5, help="at most")
    parser.add_argument("--minutes", type=float, default=8.0, help="for everything")
    given = parser.parse_args()
    began = time.monotonic()
    threads = common.use_threads(None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = prepare([given.clip], folder, short=1.0, seed=0)
        with reachable_ffmpeg(folder):
            with common.quiet():
                theirs = Theirs(bench.files, bench.tracks, faces=True)
            sides = rows_of(bench, theirs, folder)
            # A minute is kept for the last row.
            pairs = turns(sides, began + 60 * (given.minutes - 1), given.turns)
        held = steady.measured(str(bench.short[0]), min(3, given.turns), "")
    rows = []
    for name, found in pairs.items():
        ratios = [a.wall / b.wall for a, b in found]
        rows.append(
            [
                name,
                str(len(found)),
                *(f"{np.median([pair[k].wall for pair in found]):.2f}" for k in (0, 1)),
                f"**{common.spread(ratios)}**",
                common.spread([a.cpu / b.cpu for a, b in found]),
                f"{LEAST[name]:g}" + ", *missed*" * bool(np.median(ratios) < LEAST[name]),
            ]
        )
    beside = [busy / quiet for quiet, busy in held]
    missed = ", *missed*" * bool(np.median(beside) > steady.LIMIT)
    cpu = (f"{np.median(column):.2f} CPU" for column in zip(*held, strict=True))
    last = f"at most {steady.LIMIT:g}{missed}"
    rows.append(
        ["beside two busy programs", str(len(held)), *cpu, "", f"**{common.spread(beside)}**", last]
    )
    print(common.machine(threads))
    heads = ["", "turns", "theirs, s", "ours, s", "ratio", "ratio of CPU", "must hold"]
    common.print_table(rows, heads)
    print(common.quotable({r[0]: r[4] or r[5] for r in rows}, threads))


if __name__ == "__main__":
    main()
