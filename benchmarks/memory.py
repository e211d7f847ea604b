"""Peak memory of feature extraction for a short and a long clip, side by side.

    python benchmarks/memory.py CLIP [--seconds 10 600] [--profile light] [--roles identity]

Each length runs in a process of its own: CLIP is repeated without re-encoding
until it is long enough. Prints one line per length, and the difference.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import profile_card
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import ffmpeg
from spfem_bench.networks.weights import WeightsStore


def measure(clip: Path, profile: str, roles: str, store: Path) -> None:
    """Extract features in this process and print its peak resident memory in MB."""
    extractor = Extractor(profile_card(profile), WeightsStore.locate(), FeatureStore(store))
    failures = extractor.ensure({Clip(clip): frozenset(roles.split(","))})  # type: ignore[arg-type]
    assert not failures, failures
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)


def main() -> None:
    """Repeat the clip to each length and measure each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip", type=Path)
    parser.add_argument("--seconds", type=int, nargs="+", default=[10, 600])
    parser.add_argument("--profile", default="light")
    parser.add_argument("--roles", default="identity,expression")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        measure(given.clip, given.profile, given.roles, given.measure)
        return
    peaks = []
    with tempfile.TemporaryDirectory() as folder:
        for seconds in given.seconds:
            long = Path(folder) / f"{seconds}.mp4"
            command = [ffmpeg.program(), "-v", "error", "-stream_loop", "-1", "-i", given.clip,
                       "-t", str(seconds), "-c", "copy", long]  # fmt: skip
            subprocess.run(command, check=True)
            done = subprocess.run(
                [sys.executable, __file__, long, "--profile", given.profile, "--roles",
                 given.roles, "--measure", Path(folder) / "store"],
                check=True, stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            peaks.append(int(done.stdout.split()[-1]))
            print(f"{seconds} s: {peaks[-1]} MB")
    print(f"difference: {max(peaks) - min(peaks)} MB")


if __name__ == "__main__":
    main()
