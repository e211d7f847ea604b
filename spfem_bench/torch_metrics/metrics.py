"""Metrics of the command line as torchmetrics modules."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import ClipRole, MetricCard
from spfem_bench.errors import SpfemBenchError
from spfem_bench.features.features import Features
from spfem_bench.statistics.coherence import SourceKind
from spfem_bench.statistics.frechet import FrechetKind, frechet_part
from spfem_bench.statistics.landmarks import PairedLandmarksKind
from spfem_bench.statistics.similarity import SimilarityKind
from spfem_bench.statistics.sync import SyncKind
from spfem_bench.torch_metrics.base import ClipMetric, Given, ItemRequests
from spfem_bench.torch_metrics.tensors import TensorExtractor, Tensors, clips_of


class FrechetArcFaceDistance(ClipMetric):
    """FAD: the Frechet distance between the frames of generated and of real clips, pooled.

    Both sides may have any number of clips. See :class:`ClipMetric`.
    """

    default = "fad"
    takes = FrechetKind

    output: list[Tensor]
    real: list[Tensor]
    rows: list[Tensor]

    def update(self, generated: Tensors, real: Tensors) -> None:
        """Take up clips: (T, 3, H, W), a batch of them, or a list.

        Raises:
            ClipError: a clip cannot be scored, and not *partial*.
            SpfemBenchError: tensors of another shape or type.
        """
        sides: list[tuple[ClipRole, list[Given]]]
        sides = [("output", _given(generated, "generated")), ("real", _given(real, "real"))]
        self._measure([{role: one} for role, several in sides for one in several])

    def _add_lists(self) -> None:
        vectors = torch.zeros(0, self._network.outputs[self.card.output])
        self._add_list("output", vectors)
        self._add_list("real", vectors)
        self._add_list("rows", torch.zeros(0, 2, dtype=torch.int64))  # of real: clip and frame

    def _requests(self, clips: Mapping[ClipRole, Clip]) -> ItemRequests:
        return {role: [(clip, self.card.role)] for role, clip in clips.items()}

    def _take(
        self,
        x: TensorExtractor,
        clips: Mapping[ClipRole, Clip],
        features: Mapping[ClipRole, list[Features]],
    ) -> None:
        for role, clip in clips.items():
            [one] = features[role]
            vectors = torch.from_numpy(one.outputs[self.card.output].copy())
            getattr(self, role).append(vectors.to(self.device))
            if role == "real":
                code = torch.full((len(vectors),), int(x.clips[clip].digest[:14], 16))
                rows = torch.stack([code, torch.arange(len(vectors))], dim=1)
                self.rows.append(rows.to(self.device))

    def _score(self) -> tuple[float, list[str]]:
        kind, real = cast("FrechetKind", self._kind), self._joined("real")
        if kind.shared_real == "once":
            real = real[np.unique(self._joined("rows"), axis=0, return_index=True)[1]]
        part = frechet_part(self._joined("output"), real, normalise=kind.normalise)
        scored = kind.score([part])
        if math.isnan(scored.value):
            return math.nan, [scored.reason or "too few frames"]
        return scored.value, [kind.note([[part]], same_clips=False)]


class ExpressionSimilarity(ClipMetric):
    """CSIM: the cosine of generated clips' expression with their references', clip by clip.

    See :class:`ClipMetric`.
    """

    default = "csim"
    takes = SimilarityKind

    def update(self, generated: Tensors, reference: Tensors) -> None:
        """Take up as many references as generated clips; see `FrechetArcFaceDistance.update`."""
        self._measure(_pairs(self.card, generated, reference, "reference"))


class _SourceMetric(ClipMetric):
    def update(self, generated: Tensors, source: Tensors) -> None:
        """Take up as many sources as generated clips; see `FrechetArcFaceDistance.update`."""
        self._measure(_pairs(self.card, generated, source, "source"))


class LipCorrelation(_SourceMetric):
    """lip-corr: the correlation of the lips' opening with the sources', clip by clip.

    See :class:`ClipMetric`.
    """

    default = "lip-corr"
    takes = PairedLandmarksKind


class SpatialCoherence(_SourceMetric):
    """SCC: the coherence of neighbouring regions with the sources', clip by clip (or TCC, SCT).

    See :class:`ClipMetric`.
    """

    default = "scc"
    takes = SourceKind


class LipSyncError(ClipMetric):
    """LSE-D: SyncNet's distance between mouth and sound, clip by clip. See :class:`ClipMetric`."""

    default = "lse-d"
    takes = SyncKind

    def update(self, generated: Tensors, sound: Tensors) -> None:
        """Take up clips and the sound of each, (N,) at 16 kHz: int16, or floats from -1 to 1.

        Sound begins with the first frame. Raises as `FrechetArcFaceDistance.update`.
        """
        clips = _given(generated, "generated")
        heard = clips_of(sound, "sound", 1, "(N,) at 16 kHz")
        _check_equal(clips, heard, "sounds")
        together = zip(clips, heard, strict=True)
        self._measure([{"output": one._replace(sound=its)} for one, its in together])


def _given(tensors: Tensors, name: str) -> list[Given]:
    clips = clips_of(tensors, name, 4, "(T, 3, H, W)")
    return [Given(f"{name}[{i}]", clip) for i, clip in enumerate(clips)]


def _check_equal(generated: Sequence[object], others: Sequence[object], noun: str) -> None:
    if len(generated) != len(others):
        problem = f"{len(generated)} generated clips and {len(others)} {noun}"
        raise SpfemBenchError(problem, "Give one for each generated clip, in their order")


def _pairs(
    card: MetricCard, generated: Tensors, others: Tensors, noun: str
) -> list[dict[ClipRole, Given]]:
    """Return items of a generated clip and the one that it is compared with."""
    ours, theirs = _given(generated, "generated"), _given(others, noun)
    _check_equal(ours, theirs, f"{noun}s")
    role = card.compare[1]
    return [{"output": a, role: b} for a, b in zip(ours, theirs, strict=True)]
