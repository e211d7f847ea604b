"""What a loss costs for changes whose cause is known, in units of its cost for no change.

`probe` accepts any loss and any clips: ``spfem_bench.puppets.probe`` draws puppets whose head,
mouth and emotion move separately, ``spfem_bench.analysis.strips`` takes real clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spfem_bench.errors import StcclError
from spfem_bench.progress import SILENT, Progress
from spfem_bench.statistics.intervals import Resampled, drawn

NOTHING = "nothing"
"""The condition whose cost is the unit: the same performance, recorded by a second camera."""

RESAMPLES = 1000

Loss = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""Returns scalars by name, as ``STCCL(..., parts=True)``, of two sequences (1, T, 3, H, W), 0 to 1.

Names that end in ``_positive`` and ``_negative`` are similarities; all others are costs.
"""

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3), RGB


class ProbeClip(NamedTuple):
    """Source and made frames of one condition; *unit* is the puppet or clip, for intervals."""

    unit: str
    condition: str
    source: Frames
    made: Frames


@dataclass(frozen=True)
class ProbeResult:
    """Means of a loss's parts for each unit and condition.

    Attributes:
        units: names of puppets or clips.
        values: float64 (units,) by condition and part; NaN where a unit lacks the condition.
    """

    units: tuple[str, ...]
    values: Mapping[tuple[str, str], npt.NDArray[np.float64]]

    @property
    def conditions(self) -> list[str]:
        """The conditions, in the order of the clips."""
        return list(dict.fromkeys(condition for condition, _ in self.values))

    @property
    def parts(self) -> list[str]:
        """The loss's parts, in its order."""
        return list(dict.fromkeys(part for _, part in self.values))

    def mean(self, condition: str, part: str = "loss") -> Resampled:
        """Return the mean of a part over units."""
        return self._estimate([(condition, part)], lambda value: value)

    def excess(self, condition: str, part: str = "loss") -> Resampled:
        """Return cost minus the cost of nothing, in units of the cost of nothing."""
        cells = [(condition, part), (NOTHING, part)]
        return self._estimate(cells, lambda cost, nothing: (cost - nothing) / nothing)

    def ratio(self, condition: str, other: str, part: str = "loss") -> Resampled:
        """Return the cost of one condition as a share of another's, both above nothing."""
        cells = [(condition, part), (other, part), (NOTHING, part)]
        return self._estimate(cells, lambda a, b, nothing: (a - nothing) / (b - nothing))

    def kept(self, both: str, emotion: str, alone: str, part: str = "loss") -> Resampled:
        """Return what a change adds on an emotional face, as a share of its cost on a neutral one.

        *both* is the change with the emotion: ``(both - emotion) / (alone - nothing)``.
        """
        cells = [(both, part), (emotion, part), (alone, part), (NOTHING, part)]
        return self._estimate(cells, lambda b, e, a, nothing: (b - e) / (a - nothing))

    def _estimate(
        self, cells: list[tuple[str, str]], formula: Callable[..., npt.NDArray[np.float64]]
    ) -> Resampled:
        """Return a formula of means over the units that have all cells, and its bootstrap."""
        columns = np.stack([self.values[cell] for cell in cells])
        columns = columns[:, np.isfinite(columns).all(0)]
        count = columns.shape[1]
        if not count:
            return Resampled(float("nan"), np.full(RESAMPLES, np.nan), False)
        means = columns[:, drawn(count, RESAMPLES)].mean(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            value, draws = formula(*columns.mean(-1)), formula(*means)
        return Resampled(float(value), draws, count > 1)


@torch.no_grad()
def probe(
    loss: Loss, clips: Iterable[ProbeClip], *, total: int | None = None, progress: Progress = SILENT
) -> ProbeResult:
    """Return a loss's parts for clips: the mean over the clips of each unit and condition.

    *total* is the number of clips, for the progress.

    Raises:
        StcclError: there are no clips, or no unit has the condition `NOTHING`.
    """
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    units: dict[str, None] = {}
    progress.begin("probe", total, "clip")
    for clip in clips:
        units[clip.unit] = None
        source, made = (_pictures(frames) for frames in (clip.source, clip.made))
        for part, value in loss(source, made).items():
            cell = found.setdefault((clip.condition, part), {})
            cell.setdefault(clip.unit, []).append(float(value))
        progress.advance("probe")
    progress.end("probe")
    if not any(condition == NOTHING for condition, _ in found):
        raise StcclError("no clip to compare shows 'nothing'", "Give clips with that condition")
    order = tuple(units)
    return ProbeResult(
        order,
        {
            cell: np.array([np.mean(by_unit.get(unit, [np.nan])) for unit in order])
            for cell, by_unit in found.items()
        },
    )


def _pictures(frames: Frames) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 255
