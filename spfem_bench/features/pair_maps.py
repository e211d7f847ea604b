"""Coherence of two sequences of network maps, chunk by chunk in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from spfem_bench.features.store import Arrays
from spfem_bench.stccl import dense
from spfem_bench.stccl.contrast import Head
from spfem_bench.stccl.metric import Heads

CHUNK = 8 * (dense.WINDOW - 1) + 1
"""Frames compared at once: whole windows, each chunk beginning with the last frame of another."""


@dataclass
class _Sums:
    positive: Any = 0.0
    size: Any = 0.0
    rows: list[Tensor] = field(default_factory=list)

    def add(self, coherence: dense.StageCoherence) -> None:
        self.positive = self.positive + coherence.positive.double().sum(0)
        self.size = self.size + coherence.size.double().sum(0)
        means = [coherence.positive.mean((1, 2)), coherence.elsewhere, coherence.near]
        self.rows.append(torch.stack(means, dim=1))

    def arrays(self, name: str) -> Arrays:
        if not self.rows:
            return {}
        rows = torch.cat(self.rows)
        n = len(rows)
        kept = {"positive": self.positive / n, "size": self.size / n, "frames": rows}
        return {f"{name}.{k}": v.float().cpu().numpy() for k, v in kept.items()}


@dataclass
class PairMaps:
    """Compares two clips' maps as they come, in bounded memory, with heads of a learnt metric."""

    heads: Heads | None = None
    _spatial: dict[int, _Sums] = field(default_factory=dict)
    _temporal: dict[int, _Sums] = field(default_factory=dict)

    def add(self, source: Sequence[Tensor], generated: Sequence[Tensor], *, first: bool) -> None:
        """Add maps of each stage, (T, C, H, W); raise StcclError for unequal or infinite ones.

        Unless *first*, frame 0 is the last one that was added before.
        """
        for stage, (x, y) in enumerate(zip(source, generated, strict=True), start=1):
            new = 0 if first else 1
            if len(x) > new:
                head = self._head("spatial", stage)
                self._spatial.setdefault(stage, _Sums()).add(dense.spatial(x[new:], y[new:], head))
            if len(x) > 1:
                head = self._head("temporal", stage)
                self._temporal.setdefault(stage, _Sums()).add(dense.temporal(x, y, head))

    def _head(self, space: str, stage: int) -> Head | None:
        return None if self.heads is None else getattr(self.heads, space)[stage - 1]

    def arrays(self) -> Arrays:
        """Return the means by name, for each stage S from 1 and each of ``scc`` and ``tcc``.

        ``sccS.positive`` and ``sccS.size``, float32 (h, w), are means over time (see
        `dense.StageCoherence`); ``sccS.frames``, float32 (N, 3), has for each frame (``tcc``: for
        each two adjacent frames) the mean over regions of positive, elsewhere and near.
        """
        named: Arrays = {}
        for name, stages in (("scc", self._spatial), ("tcc", self._temporal)):
            for stage, sums in stages.items():
                named |= sums.arrays(f"{name}{stage}")
        return named
