"""The request for a comparison of two clips."""

from __future__ import annotations

from dataclasses import dataclass

from spfem_bench.definitions.clips import Clip


@dataclass(frozen=True)
class PairRequest:
    """A comparison of a clip with its source, *other*, at a lag of up to *max_lag* frames.

    *learned* names a learnt metric whose backbone and heads are used; when it is empty, the
    extractor's identity network and no heads. Without *windows*, regions are compared (SCC, TCC).
    With them, the moments of windows of so many frames, which begin so many frames apart (SCT).
    """

    other: Clip
    max_lag: int = 6
    learned: str = ""
    windows: tuple[int, int] | None = None
