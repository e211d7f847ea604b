"""What each round trip of the field's SyncNet scripts does to LSE-D, LSE-C and the AV offset.

    python -m benchmarks.compat_chain CLIP [CLIP ...] [--syncnet FILE]

The steps of ``metrics/networks/syncnet-v2-compat.toml`` are switched on one after the other, in
the order in which the scripts take them, and a Markdown table is printed. Faces are found by the
profile ``light``. Without --syncnet (the authors' ``syncnet_v2.model``) SyncNet has random,
seeded weights, its batch normalisation fitted to the clips so that it feels its input: then
only the sizes of the steps mean something.

A clip is written as everywhere, for example ``strip.mp4#xywh=0,0,256,256``.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

from tabulate import tabulate

from benchmarks.common import lse, profiles, random_syncnet
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import profile_card
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.networks.weights import WeightsStore

STEPS: tuple[tuple[str, dict[str, str]], ...] = (
    ("as decoded (`syncnet-v2`)", {}),
    ("25 fps by ffmpeg's `-r 25`, in an AVI with an MP3 track", {"avi": "lossless"}),
    ("the AVI's pictures as MPEG-4", {"avi": "mpeg4"}),
    ("its frames as JPEG", {"frames": "jpeg"}),
    ("crops as MPEG-4 (XVID)", {"crops": "xvid"}),
    ("the crops' frames as JPEG", {"crops": "xvid-jpeg"}),
    ("sound from the MP3 track (`syncnet-v2-compat`)", {"sound": "avi"}),
)
"""Each step, and the field of ``[input.chain]`` that it changes."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", nargs="+", type=Clip.parse, metavar="CLIP")
    parser.add_argument("--syncnet", type=Path, help="the authors' syncnet_v2.model")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    options = parser.parse_args()
    if options.syncnet:
        weights = options.syncnet.read_bytes()
    else:
        weights = random_syncnet(options.clips, options.seed)
    taken: dict[str, str] = {}
    chains = {f"steps-{n}": dict(taken := taken | more) for n, (_, more) in enumerate(STEPS)}
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SPFEM_BENCH_CARDS"] = str(profiles(folder, weights, chains))
        for chain, (title, _) in zip(chains, STEPS, strict=True):
            store = FeatureStore(folder / "store")
            x = Extractor(profile_card(chain), WeightsStore.locate(), store)
            cells = [title]
            for clip in options.clips:
                distance, confidence, offset, windows = lse(x, clip)
                cells.append(f"{distance:.3f} / {confidence:.3f} / {offset:+.0f} ({windows})")
            rows.append(cells)
    titles = [f"{c.path.stem}{f', x = {c.crop.x}' if c.crop else ''}" for c in options.clips]
    headers = ["steps so far: LSE-D / LSE-C / offset (windows)", *titles]
    print(tabulate(rows, headers, tablefmt="github"))


if __name__ == "__main__":
    main()
