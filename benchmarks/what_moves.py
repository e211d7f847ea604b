"""What keeps the changes of two faces from being alike: the table in docs/stccl.md.

    python benchmarks/what_moves.py

One neutral take of each of three validation puppets against itself with another face, happy or
neutral again, with the camera's grain and without: the mean cosine of changes between adjacent
frames and between frames four apart, at each stage of compact-identity, untrained.
"""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import torch
from tabulate import tabulate

from spfem_bench.datasets.pairs import EmotionPair
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets.draw import Painter
from spfem_bench.puppets.pairs import Puppet
from spfem_bench.puppets.world import World
from spfem_bench.stccl.backbone import Backbone, backbone
from spfem_bench.training.windows import window_pictures

STARTS, FRAMES, SPEAKERS = (8, 20, 30), 5, 3
paint = Painter.paint


class Still:
    """Draws no grain."""

    def standard_normal(self, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        """Return zeros."""
        return np.zeros(shape, dtype)


def still(self: Painter, geometry: object, brightness: float, _: object) -> np.ndarray:
    """Paint without grain."""
    return paint(self, geometry, brightness, Still())  # type: ignore[arg-type]


@torch.no_grad()
def alike(network: Backbone, world: World, intensity: float) -> list[str]:
    """Return both similarities of each stage."""
    found = []
    spoken = dict(reversed([(s, line) for s, _, line in world.recordings("validation")]))
    for speaker in sorted(spoken)[:SPEAKERS]:
        take = world.take(speaker, "neutral", spoken[speaker])
        face = take.with_face("happy", intensity)
        numbers = np.repeat(np.arange(take.n_frames)[:, None], 2, axis=1)
        pair = EmotionPair(speaker, "happy", Puppet(take), Puppet(face), numbers)
        for window in window_pictures(pair, STARTS, FRAMES, network.size):
            scaled = torch.from_numpy(window).flatten(0, 1).float() / 127.5 - 1
            row = []
            for maps in (m.unflatten(0, (2, FRAMES)) for m in network.stages(scaled)):
                for changes in (maps[:, 1:] - maps[:, :-1], maps[:, 4:] - maps[:, :1]):
                    row.append(torch.cosine_similarity(*changes, dim=1).mean().item())
            found.append(row)
    mean = np.mean(found, axis=0).reshape(-1, 2)
    return [f"{near:.2f} / {far:.2f}" for near, far in mean]


def main() -> None:
    """Print the table."""
    network, world, rows = backbone("compact-identity", WeightsStore.locate()), World(), []
    for name, intensity in (("happy", 1.0), ("neutral again", 0.0)):
        rows.append([f"{name}, as drawn", *alike(network, world, intensity)])
        with patch.object(Painter, "paint", still):
            rows.append([f"{name}, without grain", *alike(network, world, intensity)])
    print(tabulate(rows, ["second face", *(f"stage {k}" for k in (1, 2, 3, 4))], "github"))


if __name__ == "__main__":
    main()
