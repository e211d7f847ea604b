"""Coherence of a clip with its source (SCC, TCC, SCT), from a stored comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import METRIC_KINDS, STAGES, ClipRole, MetricCard
from spfem_bench.definitions.networks import NetworkCard, ProfileCard, network_card
from spfem_bench.errors import ClipError
from spfem_bench.statistics.base import ItemFeatures, MetricKind, Picture

if TYPE_CHECKING:
    from spfem_bench.features.requests import Request
    from spfem_bench.stccl.settings import Form

CoherenceSpace = Literal["spatial", "temporal"]

ComparedAs = Literal["spatial", "temporal", "content"]

NAMES: dict[ComparedAs, str] = {"spatial": "scc", "temporal": "tcc", "content": "sct"}
"""Prefixes of a stored comparison's arrays."""

WINDOWS = (25, 12)
"""Frames of a window of the form ``ct``, and from the beginning of one to the next."""


@dataclass(frozen=True)
class CoherencePart:
    """One item's coherence.

    Attributes:
        positive: of each stage, mean cosine of corresponding disparities; of content, of moments.
        elsewhere: of each stage, mean cosine with the disparities of other regions; of content,
            with other moments of the source.
        near: of each stage, mean cosine with the other neighbours of the same region, in time
            with its other moments; None where there are none.
        n_frames: frames of the output that count; in time, pairs of adjacent ones; of content,
            windows.
        lag: frames by which the output is out of step.
    """

    positive: tuple[float, ...]
    elsewhere: tuple[float, ...]
    near: tuple[float | None, ...]
    n_frames: int
    lag: int

    @property
    def value(self) -> float:
        """The mean over stages: equation 7 of ASCCL weighs all layers alike."""
        return float(np.mean(self.positive))


class SourceKind(MetricKind[CoherencePart]):
    """A comparison with the source in the feature maps of an identity network.

    Attributes:
        stages: of the network, from 1: those that are averaged.
        max_lag: frames by which an output may be out of step with its source; the lag of
            the best correlated motion is taken and recorded.
        learned: a learnt metric (``metrics/stccl``), whose backbone and heads take the place of
            the profile's identity network; none when empty.
    """

    part_type: ClassVar[type[Any]] = CoherencePart
    form: ClassVar[Form]

    stages: tuple[Annotated[int, pydantic.Field(ge=1, le=4)], ...] = pydantic.Field(
        default=(1, 2, 3, 4), min_length=1
    )
    max_lag: int = pydantic.Field(default=6, ge=0, le=25)
    learned: str = ""

    def check(self, card: MetricCard) -> None:
        """Refuse other clips, or another output than feature maps."""
        super().check(card)
        if (card.role, card.output) != ("identity", STAGES):
            raise ValueError(f"'{self.kind}' compares the output '{STAGES}' of an identity network")

    def network(self, card: MetricCard, profile: ProfileCard) -> NetworkCard:
        """Return the learnt metric's backbone, else the profile's network."""
        if not self.learned:
            return super().network(card, profile)
        from spfem_bench.stccl.checkpoint import read_form

        return network_card(read_form(self.learned, self.form).record.backbone.network)

    def weights_settings(self) -> dict[str, str]:
        """Return the hash of the learnt metric's heads."""
        if not self.learned:
            return {}
        from spfem_bench.stccl.metric import read_checkpoint

        return {"heads": read_checkpoint(self.learned).record.sha256}

    def value(self, part: CoherencePart) -> float:
        """Return one clip's mean over stages."""
        return part.value


@METRIC_KINDS.register("coherence")
class CoherenceKind(SourceKind):
    """Coherent correlation with the source, in space or in time (ASCCL, STCCL).

    Attributes:
        space: ``spatial`` compares disparities of adjacent regions in each frame, ``temporal``
            what changes at each region between adjacent frames.
    """

    picture: ClassVar[Picture] = "heatmap"
    form: ClassVar[Form] = "vd"

    kind: Literal["coherence"]
    space: CoherenceSpace

    def requests(
        self, card: MetricCard, clips: Mapping[ClipRole, Sequence[Clip]]
    ) -> dict[ClipRole, list[tuple[Clip, Request]]]:
        """Return the comparison of the output with the other clip."""
        from spfem_bench.features.requests import PairRequest

        output, other = (clips[role][0] for role in card.compare)
        return {"output": [(output, PairRequest(other, self.max_lag, self.learned))]}

    def part(self, card: MetricCard, clip: Clip, features: ItemFeatures) -> CoherencePart:
        """Return the means of a comparison."""
        try:
            return coherence_part(features["output"][0].outputs, self.space, self.stages)
        except ValueError as error:
            remedy = "Give a clip of several frames with a face"
            raise ClipError(f"{clip}: {error}", remedy) from error


@METRIC_KINDS.register("content")
class ContentKind(SourceKind):
    """Similarity of each moment with the source's, in the form ``ct`` (`stccl.content`).

    Means over the moments of each window, less their mean over it; windows weigh the same.

    Attributes:
        window: frames of a window.
        stride: frames from the beginning of one to the next; a shorter rest is left out.
    """

    form: ClassVar[Form] = "ct"

    kind: Literal["content"]
    window: int = pydantic.Field(default=WINDOWS[0], ge=7)
    stride: int = pydantic.Field(default=WINDOWS[1], ge=1)

    def requests(
        self, card: MetricCard, clips: Mapping[ClipRole, Sequence[Clip]]
    ) -> dict[ClipRole, list[tuple[Clip, Request]]]:
        """Return the comparison of the output with the other clip."""
        from spfem_bench.features.requests import PairRequest

        output, other = (clips[role][0] for role in card.compare)
        windows = self.window, self.stride
        return {"output": [(output, PairRequest(other, self.max_lag, self.learned, windows))]}

    def part(self, card: MetricCard, clip: Clip, features: ItemFeatures) -> CoherencePart:
        """Return the means of a comparison."""
        try:
            return coherence_part(features["output"][0].outputs, "content", self.stages)
        except ValueError as error:
            remedy = f"Give a clip of {self.window} consecutive frames with a face"
            raise ClipError(f"{clip}: {error}", remedy) from error


def coherence_part(
    arrays: Mapping[str, npt.NDArray[np.generic]], space: ComparedAs, stages: Sequence[int]
) -> CoherencePart:
    """Return one item's part, from a stored comparison.

    *arrays* are as `features.pair_extract.PairExtractor.load` returns them; *stages* count from 1.

    Raises:
        ValueError: in time, no two adjacent frames; of content, no window; or no such stage.
    """
    name = NAMES[space]
    every = name if space == "content" else "scc"
    missing = [stage for stage in stages if f"{every}{stage}.frames" not in arrays]
    if missing:
        raise ValueError(f"the network has no stage {missing[0]}")
    if f"{name}{stages[0]}.frames" not in arrays:
        raise ValueError("no two adjacent frames with a face: nothing to compare in time")
    rows = [np.asarray(arrays[f"{name}{stage}.frames"], np.float64) for stage in stages]
    if not len(rows[0]):
        raise ValueError("no window of consecutive frames with a face is long enough")
    near = [r[np.isfinite(r[:, 2]), 2] for r in rows]
    return CoherencePart(
        positive=tuple(float(r[:, 0].mean()) for r in rows),
        elsewhere=tuple(float(r[:, 1].mean()) for r in rows),
        near=tuple(float(values.mean()) if len(values) else None for values in near),
        n_frames=len(rows[0]),
        lag=int(np.asarray(arrays["lag"])),
    )
