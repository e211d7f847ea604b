"""Metrics, the networks they look through, and profiles that choose between networks."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, ClassVar, Literal, TypeVar

import pydantic

from spfem_bench.definitions.cards import Card, Kind, Strict, load
from spfem_bench.definitions.networks import Role

ClipRole = Literal["output", "source", "reference", "real"]
Number = TypeVar("Number", float, Decimal)

STAGES = "stages"
"""Output of an identity network that coherence looks at: its feature maps, which are not kept."""


class FrechetSettings(Strict):
    """Frechet distance between two sets of frame embeddings.

    Attributes:
        normalise: scale each embedding to length 1 first.
    """

    kind: Literal["frechet"]
    normalise: bool = False


class SimilaritySettings(Strict):
    """Cosine similarity between two clips.

    Attributes:
        pooling: ``mean`` compares the clips' mean features; ``frames`` compares
            frame t with frame t and averages, for clips that run in step.
    """

    kind: Literal["similarity"]
    pooling: Literal["mean", "frames"]


class SyncSettings(Strict):
    """SyncNet distances between mouth and sound at a range of shifts.

    Attributes:
        report: the smallest mean distance (LSE-D), the median minus the
            smallest (LSE-C), or the shift of the smallest (offset, frames).
        max_shift: shifts run from minus to plus this many frames.
        min_windows: a clip with fewer five-frame windows is refused.
    """

    kind: Literal["sync"]
    report: Literal["distance", "confidence", "offset"]
    max_shift: int = pydantic.Field(gt=0)
    min_windows: int = pydantic.Field(gt=0)


class CoherenceSettings(Strict):
    """Coherent correlation with the source, in space or in time (ASCCL, STCCL).

    Attributes:
        space: ``spatial`` compares disparities of adjacent regions in each frame, ``temporal``
            what changes at each region between adjacent frames.
        stages: of the network, from 1: those that are averaged.
        max_lag: frames by which an output may be out of step with its source; the lag of
            the best correlated motion is taken and recorded.
        learned: a learnt metric (``metrics/stccl``), whose backbone and heads take the place of
            the profile's identity network; none when empty.
    """

    kind: Literal["coherence"]
    space: Literal["spatial", "temporal"]
    stages: tuple[Annotated[int, pydantic.Field(ge=1, le=4)], ...] = pydantic.Field(
        default=(1, 2, 3, 4), min_length=1
    )
    max_lag: int = pydantic.Field(default=6, ge=0, le=25)
    learned: str = ""


StatisticSettings = Annotated[
    FrechetSettings | SimilaritySettings | SyncSettings | CoherenceSettings,
    pydantic.Field(discriminator="kind"),
]


class Claims(Strict):
    """What a metric claims to feel and not to feel; 'spfem-bench validate' puts it to the test.

    Attributes:
        measures: graded controls with which it must get worse, step by step; a metric whose
            best value is zero must read the control's level off.
        ignores: graded controls that it should hardly feel.
    """

    measures: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()

    @pydantic.model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Claims:
        both = set(self.measures) & set(self.ignores)
        if both:
            raise ValueError(f"'{min(both)}' cannot be measured and ignored")
        return self


class MetricCard(Card):
    """What one metric measures.

    Attributes:
        version: raised whenever any score can move.
        direction: which way is better; ``zero`` for signed quantities.
        range: smallest and largest possible value (None: unbounded).
        role: the network role whose features are compared.
        output: which output of that network.
        compare: the clips compared, the method's own first.
        resamples: draws of the bootstrap behind the interval.
        hides: what the number cannot show.
        claims: what it must and must not feel.
    """

    score_neutral: ClassVar[frozenset[str]] = Card.score_neutral | {
        "label",
        "direction",
        "range",
        "unit",
        "hides",
        "citation",
        "claims",
    }
    version: int = pydantic.Field(gt=0)
    label: str
    direction: Literal["lower", "higher", "zero"]
    range: tuple[float | None, float | None]
    unit: str
    role: Role
    output: str
    compare: tuple[ClipRole, ...] = pydantic.Field(min_length=1, max_length=2)
    statistic: StatisticSettings
    resamples: int = pydantic.Field(default=1000, ge=100)
    hides: str
    citation: str
    claims: Claims = Claims()

    def badness(self, value: Number) -> Number:
        """Return a number that is larger for a worse value.

        Args:
            value: of this metric; a float, or digits as printed.
        """
        return {"lower": value, "higher": -value, "zero": abs(value)}[self.direction]

    @pydantic.model_validator(mode="after")
    def _compares_what_its_statistic_can(self) -> MetricCard:
        wanted = 1 if self.statistic.kind == "sync" else 2
        if len(self.compare) != wanted or self.compare[0] != "output":
            other = "" if wanted == 1 else " and one other clip"
            raise ValueError(f"'{self.statistic.kind}' compares the output{other}")
        if self.statistic.kind == "coherence" and (self.role, self.output) != ("identity", STAGES):
            raise ValueError(f"'coherence' looks at the output '{STAGES}' of an identity network")
        return self


def metric_card(name: str) -> MetricCard:
    """Read a metric's card by name."""
    return load(MetricCard, Kind.METRIC, name)
