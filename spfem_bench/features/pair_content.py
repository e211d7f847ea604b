"""Moments of two sequences of network maps, window by window in bounded memory (the form ct)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from spfem_bench.features.store import Arrays
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.content import ContentHeads, moment_terms, moments, pool_map
from spfem_bench.stccl.settings import ContentSettings


@dataclass
class ContentMaps:
    """Compares two clips' maps as they come, in windows of *length* frames, *stride* apart.

    Windows begin with the first of consecutive frames; a shorter rest at their end is left out.
    """

    settings: ContentSettings
    length: int
    stride: int
    heads: ContentHeads | None = None
    _held: dict[int, Tensor] = field(default_factory=dict)  # (2, T, R, C), source first
    _rows: dict[int, list[tuple[float, float, float]]] = field(default_factory=dict)

    def add(self, source: Sequence[Tensor], generated: Sequence[Tensor], *, first: bool) -> None:
        """Add maps of each stage, as `pair_maps.PairMaps.add` has them."""
        new, grid = 0 if first else 1, self.settings.grid
        for stage, pair in enumerate(zip(source, generated, strict=True), start=1):
            rows = self._rows.setdefault(stage, [])
            if len(pair[0]) == new:
                continue
            pooled = [pool_map(rep.checked_maps(m[new:]), grid) for m in pair]
            both = rep.feature_rows(torch.stack(pooled))
            if not first:
                both = torch.cat([self._held[stage], both], 1)
            while both.shape[1] >= self.length:
                window = both[:, : self.length : self.settings.every]
                head = None if self.heads is None else self.heads.stages[stage - 1]
                x, y = moments(window, head)[:, None]
                terms = moment_terms(x, y, self.settings)
                rows.append((float(terms.positive), float(terms.negative), float("nan")))
                both = both[:, self.stride :]
            self._held[stage] = both

    def arrays(self) -> Arrays:
        """Return for each stage S from 1 ``sctS.frames``, float32 (windows, 3).

        Of each window the mean cosine of a moment of the generated with the source's same moment,
        with its other moments, and NaN.
        """
        return {
            f"sct{stage}.frames": np.array(rows, np.float32).reshape(-1, 3)
            for stage, rows in self._rows.items()
        }
