"""Frames per second end to end against the networks' pure forward pass, on a GPU.

    python -m benchmarks.gpu CLIP [CLIP ...] [--device cuda] [--batch-sizes 16 32 64 128]

All clips are evaluated cold, together, for FAD, CSIM and LSE-D, in float32 and float16 and for each
batch size. Every call of a network is counted on the way, and afterwards made again with its
input already on the device, nothing around it (as :mod:`benchmarks.forward_share` does): frames by
that time is the pure forward throughput. Then the packages run on the same clips and device, one
after another (see :mod:`benchmarks.official_chain`).

What cannot run here is printed with its reason: no such device, an extractor without half
precision, an onnxruntime without CUDA. --device cpu tries the script. ncnn's detector (profile
``light``) and hsemotion-onnx know the processor only.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import common
from benchmarks.forward_share import Calls
from benchmarks.official_chain import (
    EVERYTHING,
    Theirs,
    frames,
    ours,
    prepare,
    reachable_ffmpeg,
    timed,
)
from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import SpfemBenchError

OF_FORWARD, TIMES_THEIRS = 0.70, 15.0
"""What is aimed at on a GPU: end to end by pure forward, and ours by theirs."""


def wait(device: str) -> None:
    """Let the device finish what it was given."""
    import torch

    if device != "cpu":
        getattr(torch, device.partition(":")[0]).synchronize()


def forward(calls: Calls, device: str) -> float:
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


def end_to_end(clips: list[Clip], folder: Path, repeats: int, **how: Any) -> tuple[float, float]:
    """Return the seconds of a cold evaluation, and those of its networks alone."""
    profile = how.pop("profile")
    side = ours(profile, folder, EVERYTHING, **how)
    side.cold(*clips)
    calls = Calls()
    with calls.watching():
        side.cold(*clips)
    whole = median(side.cold(*clips)[1].wall for _ in range(repeats))
    return whole, median(forward(calls, how["device"]) for _ in range(repeats))


def why_not(device: str) -> str:
    """Say why torch cannot use a device; empty when it can."""
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        return str(error).splitlines()[0]
    return ""


def main() -> None:
    """Print the table, and what could not run."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", nargs="+", type=Clip.parse, metavar="CLIP")
    parser.add_argument("--device", default="cuda")
    parser.add_argument(
        "--profiles", nargs="+", choices=["light", "official"], default=["light", "official"]
    )
    parser.add_argument("--precisions", nargs="+", default=["float32", "float16"])
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[16, 32, 64, 128])
    parser.add_argument("--seconds", type=float, default=100.0, help="cut each clip to")
    parser.add_argument("--copies", type=int, default=1, help="of each clip, all with own bytes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, help="of every library; all cores by default")
    given = parser.parse_args()
    if reason := why_not(given.device):
        print(f"Not run, '{given.device}' is not available here: {reason}")
        return
    threads = common.use_threads(given.threads)
    rows, missing = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = prepare(given.clips, folder, given.seconds, seed=0)
        clips = []
        for k, clip in enumerate(bench.short):
            clips += common.copies(clip.path, folder / f"copies-{k}", given.copies)
        count = given.copies * sum(len(bench.tracks[c.path].faces) for c in bench.short)
        best = 0.0
        for profile in given.profiles:
            for precision in given.precisions:
                how: dict[str, Any] = {} if precision == "float32" else {"precision": precision}
                if how and not common.can("precision"):
                    missing.append(
                        f"{profile} in {precision}: the extractor has no such option yet"
                    )
                    continue
                for size in given.batch_sizes:
                    try:
                        whole, pure = end_to_end(
                            clips,
                            folder,
                            given.repeats,
                            profile=f"{profile}-random",
                            device=given.device,
                            batch_size=size,
                            **how,
                        )
                    except (SpfemBenchError, RuntimeError) as error:
                        missing.append(f"{profile}, {precision}, batches of {size}: {error}")
                        continue
                    best = max(best, count / whole)
                    rows.append(
                        [
                            f"{profile}, {precision}",
                            str(size),
                            f"{count / whole:.1f}",
                            f"{count / pure:.1f}",
                            f"**{pure / whole:.0%}**",
                        ]
                    )
        with reachable_ffmpeg(folder):
            try:
                with common.quiet():
                    theirs = Theirs(bench.files, bench.tracks, given.device, faces=True)
                using = theirs.app.det_model.session.get_providers()[0]
                if given.device != "cpu" and using == "CPUExecutionProvider":
                    missing.append("insightface on the device: this onnxruntime has no CUDA")
                clip = bench.short[0]
                few = sum(1 for _ in frames(clip.path))
                timed(lambda: theirs.all_three(clip, folder / "warm"))
                _, spent = timed(lambda: theirs.all_three(clip, folder / "theirs"))
                rows.append(
                    [
                        "the three packages, one after another",
                        "",
                        f"{few / spent.wall:.1f}",
                        "",
                        f"best of ours: {best * spent.wall / few:.1f} times",
                    ]
                )
            except (ImportError, RuntimeError, ValueError) as error:
                missing.append(f"the packages: {error}")
    import torch

    if given.device.startswith("cuda"):
        print(torch.cuda.get_device_name(given.device))
    print(f"{len(clips)} clips, {count} frames, all three metrics")
    print(common.machine(threads))
    headers = ["", "batch", "frames/s end to end", "frames/s pure forward", "of pure forward"]
    common.print_table(rows, headers)
    for reason in missing:
        print(f"\nNot run: {reason}")


if __name__ == "__main__":
    main()
