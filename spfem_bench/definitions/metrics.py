"""Metric cards, and the registry of metric kinds."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import pydantic

from spfem_bench.definitions.cards import Card, Kind, Strict, load, names, validate
from spfem_bench.definitions.networks import Role
from spfem_bench.errors import CardError, UnknownNameError
from spfem_bench.plugins import Registry

ClipRole = Literal["output", "source", "reference", "real"]
Number = TypeVar("Number", float, Decimal)

STAGES = "stages"
"""Output of an identity network: the feature maps of its stages, which are not stored."""


class Statistic(Strict):
    """The settings of a metric kind, registered under ``kind`` in :data:`METRIC_KINDS`."""

    kind: str

    def check(self, card: MetricCard) -> None:
        """Raise ValueError, with the reason, for a card that the kind cannot compute."""

    def __reduce__(self) -> tuple[Any, ...]:  # another process may not have imported a plugin
        return read_statistic, (self.model_dump(),)


METRIC_KINDS: Registry[type[Statistic]] = Registry("spfem_bench.statistics", "metric kind")


def read_statistic(content: Mapping[str, Any], where: str = "a metric") -> Statistic:
    """Build a metric kind's settings from plain values; *where* names the card in messages.

    Raises CardError for no kind, an unknown one, or a wrong, unknown or missing setting.
    """
    kind = content.get("kind")
    if not isinstance(kind, str):
        allowed = ", ".join(METRIC_KINDS.kinds())
        raise CardError(f"{where}: 'statistic' must have a kind", f"Allowed: {allowed}")
    try:
        settings = METRIC_KINDS.get(kind)
    except UnknownNameError as error:
        raise CardError(f"{where}: 'statistic': {error.problem}", error.remedy) from None
    return validate(settings, content, where)


def _statistic(value: Any, info: pydantic.ValidationInfo) -> Any:
    if not isinstance(value, Mapping):
        return value
    return read_statistic(value, str(info.data.get("path", "a card")))


class Claims(Strict):
    """What a metric claims to measure and to ignore; 'spfem-bench validate' tests it."""

    # graded controls with which it must get worse, step by step; a metric whose best value is zero
    # must read the control's level off
    measures: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()  # graded controls that should hardly move it

    @pydantic.model_validator(mode="after")
    def _does_not_contradict_itself(self) -> Claims:
        both = set(self.measures) & set(self.ignores)
        if both:
            raise ValueError(f"'{min(both)}' cannot be measured and ignored")
        return self


class MetricCard(Card):
    """What one metric measures."""

    score_neutral: ClassVar[frozenset[str]] = Card.score_neutral.union(
        ("label", "direction", "range", "unit", "hides", "citation", "references")
    ) | {"claims", "variant_of"}
    version: int = pydantic.Field(gt=0)  # raised whenever any score can move
    label: str  # what tables print; no other metric may have it
    direction: Literal["lower", "higher", "zero"]  # what is better; `zero` for signed quantities
    range: tuple[float | None, float | None]  # smallest and largest value (None: unbounded)
    unit: str  # in words, such as `cosine`
    role: Role  # the network role whose features are compared
    output: str  # which output of that network
    # the clips compared, the method's own first
    compare: tuple[ClipRole, ...] = pydantic.Field(min_length=1, max_length=2)
    # the table of the metric kind, named by its key `kind`: how features become a number
    statistic: Annotated[pydantic.SerializeAsAny[Statistic], pydantic.BeforeValidator(_statistic)]
    resamples: int = pydantic.Field(default=1000, ge=100)  # draws of the bootstrap for intervals
    hides: str  # what the number cannot show
    citation: str  # the paper and its equation
    references: tuple[str, ...] = ()  # keys in metrics/references.bib
    claims: Claims = Claims()  # what `spfem-bench validate` tests it by
    # the metric that it computes by another recipe: tables put it beside that one's printed numbers
    variant_of: str | None = None

    @property
    def printed_as(self) -> str:
        """The metric that papers print such numbers under: the one it is a variant of, or its own.

        >>> metric_card("fad").printed_as
        'fad'
        """
        return self.variant_of or self.name

    def badness(self, value: Number) -> Number:
        """Return a number that is larger for a worse value, given as float or Decimal."""
        return {"lower": value, "higher": -value, "zero": abs(value)}[self.direction]

    @pydantic.model_validator(mode="after")
    def _fits_its_kind(self) -> MetricCard:
        self.statistic.check(self)
        return self


def metric_card(name: str) -> MetricCard:
    """Read a metric's card by name."""
    return load(MetricCard, Kind.METRIC, name)


def known_metric(name: str) -> MetricCard | None:
    """Read a metric's card; None where there is none, as of an old record or a printed table."""
    return metric_card(name) if name in names(Kind.METRIC) else None
