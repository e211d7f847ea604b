"""Draw the clips that the demo ships, and write their list.

    python benchmarks/demo_clips.py [--workers N]

Writes ``protocols/datasets/puppets/`` and ``puppets.csv``: all takes that the demo's protocols
compare, with those of the controls ``perfect`` and ``emotion-faded`` at all of its levels. The
shipped ones were drawn with OpenCV 5.0.0, NumPy 2.4.6 and ffmpeg 9.0.2; another version may draw
other pixels, so the clips are not drawn again without a new version of the protocols.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import io
import os
from functools import partial

import numpy as np

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.controls import FadedControl, PerfectControl
from spfem_bench.definitions.methods import method_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.files import write_atomically
from spfem_bench.media.write import write_clip
from spfem_bench.processes import spread
from spfem_bench.puppets.clips import DATASET, take_of
from spfem_bench.puppets.provider import demo_puppets
from spfem_bench.puppets.world import World

FOLDER = builtin_folder() / "protocols/datasets" / DATASET
QUALITY = 18
"""H.264's constant rate factor: 22 kB a clip; 10 takes 105 kB and moves FAD by 0.2 at most."""

STEP = 16
"""Samples are rounded to its multiples, 53 dB below a voice: FLAC then needs 30 kB, not 48."""


PERFECT = PerfectControl(kind="perfect")


def names() -> list[str]:
    """Return the file names of all takes that the demo's protocols compare."""
    puppets = demo_puppets(DataFolders())
    faded = method_card("emotion-faded").control
    assert isinstance(faded, FadedControl)
    controls = [faded.model_copy(update={"level": level}) for level in faded.levels]
    found: dict[str, None] = {}
    for card in ("demo-inter-id", "demo-cross-id"):
        for item in protocol(card).items:
            clips = [puppets.control_clip(control, item) for control in (PERFECT, *controls)]
            clips += item.clips.values()
            found |= dict.fromkeys(clip.path.as_posix() for clip in clips if clip)
    return sorted(found)


def write(name: str, world: World) -> tuple[str, str, int]:
    """Draw one take into its file; return its row of the list."""
    take = take_of(world, name)
    whole = np.round(take.sound() / STEP) * STEP
    sound = np.clip(whole, -(1 << 15), (1 << 15) - STEP).astype(np.int16)
    write_clip(FOLDER / name, take.frames(), sound, quality=QUALITY)
    content = (FOLDER / name).read_bytes()
    return name, hashlib.sha256(content).hexdigest(), len(content)


def main() -> None:
    """Draw all, then write the list."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    with spread(partial(write, world=World()), names(), parser.parse_args().workers) as done:
        rows = sorted(done)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerows([("path", "sha256", "bytes"), *rows])
    write_atomically(FOLDER.with_suffix(".csv"), text.getvalue().encode())
    print(f"{len(rows)} clips, {sum(size for *_, size in rows) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
