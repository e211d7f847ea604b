"""The request for a comparison of two clips."""

from __future__ import annotations

from dataclasses import dataclass

from spfem_bench.definitions.clips import Clip


@dataclass(frozen=True)
class PairRequest:
    """A comparison of a clip with another one, its source.

    Attributes:
        max_lag: frames by which the two may be out of step.
        learned: a learnt metric whose backbone and heads are used; the extractor's identity network
            and no heads when empty.
    """

    other: Clip
    max_lag: int = 6
    learned: str = ""
