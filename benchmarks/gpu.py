"""All speeds on one device in one run of at most eight minutes: one table and one JSON file.

    python -m benchmarks.gpu CLIP [CLIP ...] [--device cuda] [--minutes 8] [--json gpu.json]

Parts, each of which ends when its share of the time is over:

1. ``decode``: frames a second of ffmpeg, one clip at a time and as many at once as there are cores.
2. ``forward``: each network alone, input on the device, by precision, order of channels in memory
   and frames in a batch; the best of each precision is marked. ONNX files take their input from
   the processor and stay in float32, as in an evaluation.
3. ``together``: cold evaluations of all clips for FAD, CSIM and LSE-D, with the best batch size and
   with the automatic one, against the forward pass alone: every call of a network is counted on
   the way, and afterwards made again with nothing around it (as :mod:`benchmarks.forward_share`).
4. ``packages``: the three packages one after another on the same device
   (:mod:`benchmarks.official_chain`).
5. ``stccl``: training steps, the loss in use, pairs of frames scored a second
   (:mod:`benchmarks.stccl_training`).

The file is written after every row, so that a run which is stopped leaves what it has. What cannot
run here is in both with its reason. ``--device cpu --profiles compact --parts decode forward
together`` tries the script without any fetched network. ncnn's detector (profile ``light``) and
hsemotion-onnx know the processor only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from threading import Timer
from typing import Any
from unittest import mock

from benchmarks import common
from benchmarks.forward_share import Calls
from benchmarks.official_chain import (
    EVERYTHING,
    Bench,
    Theirs,
    frames,
    ours,
    prepare,
    reachable_ffmpeg,
    timed,
)
from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import SpfemBenchError
from spfem_bench.features.tracking import RUN
from spfem_bench.media import video
from spfem_bench.networks import quick

OF_FORWARD, TIMES_THEIRS = 0.70, 15.0
"""What is aimed at on a GPU: end to end by pure forward, and ours by theirs."""

SHARES = {"decode": 0.06, "forward": 0.3, "together": 0.3, "packages": 0.14, "stccl": 0.2}
"""Of the time that is left when the parts begin; what one leaves is the next ones'."""

SECONDS = 0.3
"""How long one network is run with one batch size."""


@dataclass
class Row:
    """One measurement: frames a second, unless *unit* says otherwise."""

    part: str
    what: str
    rate: float
    unit: str = "frames/s"
    batch: int | None = None
    note: str = ""
    share: float | None = None


@dataclass
class Report:
    """What a run has found so far; ``save`` writes all of it."""

    machine: str
    device: str
    path: Path
    rows: list[Row] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)

    def save(self) -> None:
        """Write the JSON file."""
        content = {"machine": self.machine, "device": self.device, "line": self.line()}
        content |= {"rows": [asdict(r) for r in self.rows], "missing": self.missing}
        self.path.write_text(json.dumps(content, indent=1) + "\n")

    def run(self, part: str, rows: Iterator[Row], seconds: float) -> None:
        """Take rows until the time is over."""
        until = time.monotonic() + seconds
        try:
            for row in rows:
                self.rows.append(row)
                self.save()
                if time.monotonic() > until:
                    self.missing.append(f"the rest of '{part}': its {seconds:.0f} s were over")
                    break
        except (SpfemBenchError, RuntimeError, ImportError, ValueError, OSError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            self.missing.append(f"the rest of '{part}': {reason}")
        self.save()

    def line(self) -> str:
        """Return one sentence for a README; empty before there is an evaluation."""
        whole = max((r for r in self.rows if r.part == "together"), key=_rate, default=None)
        if whole is None:
            return ""
        text = f"{self.device}: {whole.rate:.0f} frames a second of all three metrics"
        text += f" ({whole.what}), {whole.share:.0%} of the forward pass"
        theirs = next((r.rate for r in self.rows if r.part == "packages"), None)
        return text + (f", {whole.rate / theirs:.1f} times the packages" if theirs else "") + "."

    def print(self) -> None:
        """Print the line, the table and what is missing."""
        alone = sorted((r for r in self.rows if r.part == "forward"), key=_rate)
        marked = {id(r) for r in {r.what.rpartition(", ")[0]: r for r in alone}.values()}
        cells = [
            [
                row.part,
                row.what,
                str(row.batch or ""),
                f"**{row.rate:.1f}**" if id(row) in marked else f"{row.rate:.1f}",
                row.unit,
                "" if row.share is None else f"{row.share:.0%}",
                row.note,
            ]
            for row in self.rows
        ]
        print(self.machine)
        print(self.line())
        headers = ["part", "what", "batch", "rate", "unit", "of pure forward", "note"]
        common.print_table(cells, headers)
        for reason in self.missing:
            print(f"\nNot run: {reason}")

    def best_size(self) -> int | None:
        """Return the batch size with which all networks alone take least time for a frame."""
        fastest: dict[int, dict[str, float]] = {}
        for row in self.rows:
            if row.part == "forward" and row.batch and row.rate:
                own = fastest.setdefault(row.batch, {})
                name = row.what.partition(", ")[0]
                own[name] = max(own.get(name, 0.0), row.rate)
        most = max(map(len, fastest.values()), default=0)
        sums = {n: sum(1 / r for r in v.values()) for n, v in fastest.items() if len(v) == most}
        return min(sums, key=sums.__getitem__, default=None)


def _rate(row: Row) -> float:
    return row.rate


def wait(device: str) -> None:
    """Let the device finish what it was given."""
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device != "cpu":
        getattr(torch, device).synchronize()


def per_second(work: Callable[[], object], device: str, seconds: float = SECONDS) -> float:
    """Return calls per second: after one to warm up, as many as fit in the time, two at least."""
    work()
    wait(device)
    began, calls = time.perf_counter(), 0
    while calls < 2 or time.perf_counter() - began < seconds:
        work()
        wait(device)  # an evaluation takes each batch's outputs too
        calls += 1
    return calls / (time.perf_counter() - began)


# ---- the parts ----------------------------------------------------------------------------------


def decode(clips: Sequence[Clip], threads: int) -> Iterator[Row]:
    """Decode all clips, one by one and several at once."""

    def count(clip: Clip) -> int:
        return sum(1 for _ in video.frames(clip))

    for at_once in dict.fromkeys((1, 3, threads)):
        with common.clock() as spent, ThreadPoolExecutor(at_once) as pool:
            total = sum(pool.map(count, clips))
        yield Row("decode", f"{at_once} clips at once", total / spent.wall)


def forward(clip: Clip, how: dict[str, Any], sizes: Sequence[int], folder: Path) -> Iterator[Row]:
    """Run each network of a profile alone."""
    device, half = how["device"], ("float16", "bfloat16")
    seen = set()
    for precision in ("float32", *(half if device != "cpu" else half[1:])):
        for last in (True, False):
            formats = quick.FORMATS if last else {}
            calls = Calls()
            with mock.patch.object(quick, "FORMATS", formats):
                side = ours(folder=folder, roles=EVERYTHING, precision=precision, **how)
                with calls.watching():
                    side.cold(clip)
            for call in calls.found.values():
                if call.batch is None:
                    continue
                name, _, kind = call.name.rpartition(", ")
                order = f"channels {'last' if last else 'first'}"
                if name == "onnxruntime":  # input and output through the processor's memory
                    name, kind, order = f"ONNX {call.shape}", "float32", "with copies"
                each = RUN if name == "Tower visual" else 1
                for size in sizes:
                    what = f"{how['profile']} {name}, {kind}, {order}"
                    if (what, size) in seen:
                        continue
                    seen.add((what, size))
                    try:
                        work = call.batch(max(1, size // each), last)
                        rate = per_second(work, device) * max(1, size // each) * each
                    except Exception as error:  # no memory, or a graph for other batches
                        note = str(error).splitlines()[0][:60]
                        yield Row("forward", what, 0.0, batch=size, note=note)
                        break
                    yield Row("forward", what, rate, batch=size)


def together(
    clips: list[Clip], count: int, how: dict[str, Any], size: int | None, folder: Path
) -> Iterator[Row]:
    """Evaluate all clips, cold."""
    for precision in ("float32", "float16" if how["device"] != "cpu" else "bfloat16"):
        for batch in dict.fromkeys((size, None)):
            whole, pure = end_to_end(clips, folder, 2, batch_size=batch, precision=precision, **how)
            row = Row("together", f"{how['profile']}, {precision}", count / whole, batch=batch)
            row.share, row.note = pure / whole, f"{count / pure:.1f} frames/s pure forward"
            yield row


def end_to_end(clips: list[Clip], folder: Path, repeats: int, **how: Any) -> tuple[float, float]:
    """Return the seconds of a cold evaluation, and those of its networks alone."""
    side = ours(folder=folder, roles=EVERYTHING, **how)
    side.cold(*clips)
    calls = Calls()
    with calls.watching():
        side.cold(*clips)
    whole = median(side.cold(*clips)[1].wall for _ in range(repeats))
    return whole, median(replayed(calls, how["device"]) for _ in range(repeats))


def replayed(calls: Calls, device: str) -> float:
    """Return the seconds of all counted calls, made again one after another."""
    total = 0.0
    for call in calls.found.values():
        call.again()
        wait(device)
        with common.clock() as spent:
            for _ in range(call.count):
                call.again()
            wait(device)
        total += spent.wall
    return total


def packages(bench: Bench, device: str, folder: Path) -> Iterator[Row]:
    """Run the packages one after another on the first clip."""
    with reachable_ffmpeg(folder):
        with common.quiet():
            theirs = Theirs(bench.files, bench.tracks, device, faces=True)
        using = theirs.app.det_model.session.get_providers()[0]
        note = f"insightface on {using}" if device != "cpu" else ""
        clip = bench.short[0]
        few = sum(1 for _ in frames(clip.path))
        timed(lambda: theirs.all_three(clip, folder / "warm"))
        _, spent = timed(lambda: theirs.all_three(clip, folder / "theirs"))
        yield Row("packages", "the three, one after another", few / spent.wall, note=note)


def stccl(device: str, steps: int) -> Iterator[Row]:
    """Train, use as a loss, and score."""
    from benchmarks import stccl_training as bench

    for name in ("batched, maps in memory", "batched, backbone at each step"):
        found = bench.measure(name, steps, device)
        note = f"peak {found['peak']:.0f} MB"
        yield Row("stccl", f"training, {name}", found["rate"], "steps/s", note=note)
    for windows, both, alone, _ in bench.in_use("puppets", 5, device):
        note = f"{alone:.1f} ms of {both:.1f} are the backbone's"
        yield Row("stccl", f"loss, {windows}", 1000 / float(str(both)), "calls/s", note=note)
    for size, plain, learnt in bench.scored("puppets", 129, device):
        yield Row("stccl", "scoring", float(str(plain)), "pairs/s", int(str(size).split()[0]))
        yield Row("stccl", "scoring, learnt heads", float(str(learnt)), "pairs/s")


# ---- one run ------------------------------------------------------------------------------------


def why_not(device: str) -> str:
    """Say why torch cannot use a device; empty when it can."""
    from spfem_bench.execution.common import check_device

    try:
        check_device(device)
    except SpfemBenchError as error:
        return error.problem
    return ""


def main() -> None:
    """Run all parts, print the table, and what could not run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", nargs="+", type=Clip.parse, metavar="CLIP")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--minutes", type=float, default=8.0, help="that all of it may take")
    parser.add_argument("--json", type=Path, default=Path("gpu.json"), help="the file to write")
    parser.add_argument("--parts", nargs="+", choices=SHARES, default=list(SHARES))
    profiles = ["light", "official", "compact"]
    parser.add_argument("--profiles", nargs="+", choices=profiles, default=profiles[:2])
    sizes = [16, 32, 64, 128, 256]
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=sizes, metavar="N")
    parser.add_argument("--seconds", type=float, default=4.0, help="cut each clip to")
    parser.add_argument("--copies", type=int, default=8, help="of each clip, all with own bytes")
    parser.add_argument("--threads", type=int, help="of every library; all cores by default")
    given = parser.parse_args()
    began = time.monotonic()
    if reason := why_not(given.device):
        print(f"Not run: {reason}")
        return
    import torch

    device = given.device
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else device
    threads = common.use_threads(given.threads)
    report = Report(common.machine(threads), name, given.json)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        bench = None
        if given.profiles == ["compact"]:
            short = [
                common.cut(c, folder / f"short-{k}.mp4", given.seconds)
                for k, c in enumerate(given.clips)
            ]
        else:
            bench = prepare(given.clips, folder, given.seconds, seed=0)
            short = bench.short
        clips: list[Clip] = []
        for k, clip in enumerate(short):
            clips += common.copies(clip.path, folder / f"copies-{k}", given.copies)
        count = sum(sum(1 for _ in video.frames(clip)) for clip in short) * given.copies
        end = began + 60 * given.minutes

        def stop() -> None:
            report.missing.append(f"what was not done after {given.minutes:g} minutes")
            report.print()
            report.save()
            shutil.rmtree(folder, ignore_errors=True)
            os._exit(0)  # also in the middle of a package

        watchdog = Timer(max(0.0, end - time.monotonic()), stop)
        watchdog.daemon = True
        watchdog.start()
        weights = {part: SHARES[part] for part in given.parts}

        def run(part: str, rows: Iterator[Row], share: float = 1.0) -> None:
            left = 0.95 * (end - time.monotonic())
            report.run(part, rows, share * left * weights[part] / sum(weights.values()))

        hows = []
        for k, profile in enumerate(given.profiles):
            aligned = {"faces": "aligned"} if profile == "compact" else {}
            full = profile if aligned else f"{profile}-random"
            hows.append(
                ({"profile": full, "device": device, **aligned}, 1 / (len(given.profiles) - k))
            )
        for part in given.parts:
            if part == "decode":
                run(part, decode(clips, threads))
            for how, share in hows if part in ("forward", "together") else ():
                place = folder / f"{part}-{how['profile']}"
                place.mkdir()
                if part == "forward":
                    run(part, forward(clips[0], how, given.batch_sizes, place), share)
                else:
                    run(part, together(clips, count, how, report.best_size(), place), share)
            if part == "packages" and bench is not None:
                run(part, packages(bench, device, folder))
            if part == "stccl":
                run(part, stccl(device, 20 if device != "cpu" else 1))
            del weights[part]
        watchdog.cancel()
    report.print()
    print(f"\n{len(clips)} clips, {count} frames; {time.monotonic() - began:.0f} s; {given.json}")


if __name__ == "__main__":
    main()
