"""What STCCL says of perfect manipulations: the table in docs/plug_and_play.md.

    python benchmarks/what_stccl_asks.py

Neutral takes of validation puppets are compared with the same performances with an emotion on the
face, from none to full: all that a model should change, and nothing else. A loss that kept to
speech would not move. Beside them: the frames half a second later, whose mouth says something
else, and the frames blurred. The loss is the mean over puppets, emotions and windows.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from tabulate import tabulate

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets.world import Take, World
from spfem_bench.stccl.metric import STCCL

SPEAKERS, STARTS, FRAMES, LATER = 4, (6, 18), 5, 12
INTENSITIES = (0.0, 0.25, 0.5, 0.75, 1.0)

Frames = npt.NDArray[np.uint8]


def run(take: Take, start: int) -> Frames:
    """Return consecutive frames of a take."""
    return np.stack([take.frame(i) for i in range(start, start + FRAMES)])


def blurred(frames: Frames) -> Frames:
    """Return frames blurred as the demo's control is at a middle level."""
    return np.stack([cv2.GaussianBlur(f, (0, 0), 1.5) for f in frames])


@torch.no_grad()
def loss(stccl: STCCL, source: Frames, made: Frames) -> float:
    """Return the loss, with the same sampled regions every time."""
    pictures = [torch.from_numpy(f).permute(0, 3, 1, 2)[None].float() / 255 for f in (source, made)]
    return float(stccl(*pictures, generator=torch.Generator().manual_seed(0)))


def main() -> None:
    """Print the table."""
    world, weights = World(), WeightsStore.locate(None)
    torch.set_num_threads(1)
    losses = {
        f"{form}{'' if heads else ', untrained'}": STCCL.load(
            "puppets", form=form, value_range=(0, 1), weights=weights
        )
        for form in ("vd", "cm")
        for heads in (True, False)
    }
    for name, stccl in losses.items():
        if name.endswith("untrained"):
            stccl.heads = None
    spoken = dict(reversed([(s, line) for s, _, line in world.recordings("validation")]))
    found: dict[tuple[str, str], list[float]] = {}

    def compare(what: str, source: Frames, made: Frames) -> None:
        for name, stccl in losses.items():
            found.setdefault((name, what), []).append(loss(stccl, source, made))

    for speaker in sorted(spoken)[:SPEAKERS]:
        take = world.take(speaker, "neutral", spoken[speaker])
        for start in STARTS:
            source = run(take, start)
            for intensity in INTENSITIES:
                for emotion in EMOTIONS[1:]:
                    made = run(take.with_face(emotion, intensity), start)
                    compare(f"emotion {intensity:g}", source, made)
            compare("half a second later", source, run(take, start + LATER))
            compare("blurred", source, blurred(source))
    heads = list(dict.fromkeys(what for _, what in found))
    rows = [[name, *(f"{np.mean(found[name, what]):.3f}" for what in heads)] for name in losses]
    print(tabulate(rows, ["", *heads], disable_numparse=True))


if __name__ == "__main__":
    main()
