"""Whether a face moves as the source's does: correlation over time (lip-corr, pose-corr)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import METRIC_KINDS, MetricCard
from spfem_bench.errors import ClipError
from spfem_bench.features.features import Features
from spfem_bench.statistics.base import Curves, ItemFeatures, Picture
from spfem_bench.statistics.landmarks import (
    CURVES,
    PairedLandmarksKind,
    Part,
    lags_note,
    pearson,
)


@dataclass(frozen=True)
class CorrelationPart:
    """One item's correlation.

    Attributes:
        r: of each curve that the source moves; several for the pose.
        lag: frames by which the output is out of step.
        motion: the correlation of all landmarks' motion at that lag.
        spread_output: standard deviation of each of the output's curves; *spread_source* likewise.
        n_frames: frames compared.
        n_outside: frames of the output left out since landmarks lie beyond the picture; *n_turned*
            since the head is turned away; *n_covered* since the mouth is covered.
    """

    r: tuple[float, ...]
    lag: int
    motion: float
    spread_output: tuple[float, ...]
    spread_source: tuple[float, ...]
    n_frames: int
    n_outside: int
    n_turned: int
    n_covered: int


@METRIC_KINDS.register("landmark-correlation")
class LandmarkCorrelationKind(PairedLandmarksKind[CorrelationPart]):
    """Pearson's r over frames between a curve of the output and the source's.

    Attributes:
        part_of_face: ``opening`` of the inner lips, ``width`` of the mouth, ``roundness`` (one by
            the other), or ``pose``: the mean r of turn, nod and tilt.
        least: a curve of the source with a smaller standard deviation holds nothing to be
            preserved; without another one the clip is refused.
        still: an output's curve whose standard deviation is a smaller part of the source's counts
            as one that does not move: r is 0. Pearson's r has no scale, and a landmark network
            that reads the whole face moves a frozen mouth a little with the rest.
    """

    part_type: ClassVar[type[Any]] = CorrelationPart
    picture: ClassVar[Picture] = "curves"

    kind: Literal["landmark-correlation"]
    part_of_face: Part
    least: float = pydantic.Field(gt=0)
    still: float = pydantic.Field(default=0.33, ge=0, lt=1)

    def part(self, card: MetricCard, clip: Clip, features: ItemFeatures) -> CorrelationPart:
        """Correlate the curves of both clips, in step."""
        pair = self.pair(card, clip, features)
        curve = CURVES[self.part_of_face]
        x, y = (
            np.asarray(curve(one.points)).reshape(pair.n_frames, -1)
            for one in (pair.source, pair.output)
        )
        moving = [i for i, spread in enumerate(x.std(axis=0)) if spread >= self.least]
        if not moving:
            raise ClipError(
                f"{clip}: the {self.part_of_face} of the other clip hardly changes (standard "
                f"deviation {x.std(axis=0).max():.4f}, {self.least:g} is needed)",
                "It holds nothing to be preserved: take a clip of speech",
            )
        return CorrelationPart(
            r=tuple(self._r(y[:, i], x[:, i]) for i in moving),
            lag=pair.lag,
            motion=pair.motion,
            spread_output=tuple(float(s) for s in y[:, moving].std(axis=0)),
            spread_source=tuple(float(s) for s in x[:, moving].std(axis=0)),
            n_frames=pair.n_frames,
            n_outside=pair.output.n_outside,
            n_turned=pair.output.n_turned,
            n_covered=pair.output.n_covered,
        )

    def _r(self, output: npt.NDArray[np.float64], source: npt.NDArray[np.float64]) -> float:
        if output.std() < self.still * source.std():
            return 0.0
        return pearson(output, source)

    def value(self, part: CorrelationPart) -> float:
        """Return one clip's mean r."""
        return float(np.mean(part.r))

    def note(self, groups: Sequence[Sequence[CorrelationPart]], *, same_clips: bool) -> str:
        """Return the lags that were taken, and how many outputs do not move."""
        parts = [part for group in groups for part in group]
        still = sum(part.r == (0.0,) * len(part.r) for part in parts)
        texts = [f"{still} of {len(parts)} outputs hardly move: r is 0"] if still else []
        return "; ".join(filter(None, [*texts, lags_note([part.lag for part in parts])]))

    def curves(
        self, part: CorrelationPart, output: Features, other: Features
    ) -> Mapping[str, Curves]:
        """Return the part of the face in both clips at the recorded lag, by a name to print."""
        return self.drawn(self.part_of_face, part.lag, part.n_frames, output, other)
