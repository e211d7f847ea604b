"""The interface of a metric kind.

A kind is one class in one file: of this package, of an installed package, or of a file that the
environment variable ``SPFEM_BENCH_PLUGINS`` names. A metric is a card that names the kind in its
table ``[statistic]``. The smallest kind scores each clip by itself::

    @dataclass(frozen=True)
    class Length:
        frames: int
        n_frames: int


    @METRIC_KINDS.register("length")
    class LengthKind(MetricKind[Length]):
        part_type: ClassVar[type] = Length
        n_clips: ClassVar[int] = 1

        kind: Literal["length"]

        def part(self, card, clip, features):
            output = features["output"][0]
            return Length(output.n_frames, len(output.frames))

        def value(self, part):
            return float(part.frames)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    NamedTuple,
    Protocol,
    TypeAlias,
    TypeVar,
)

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import ClipRole, MetricCard, Statistic, read_statistic
from spfem_bench.definitions.networks import NetworkCard, ProfileCard
from spfem_bench.definitions.protocols import Item
from spfem_bench.errors import CardError
from spfem_bench.features.features import Features

if TYPE_CHECKING:
    from spfem_bench.features.requests import Request

_Float64 = npt.NDArray[np.float64]

ItemFeatures: TypeAlias = Mapping[ClipRole, Sequence[Features]]
"""Features of an item's clips by role, in the order of their requests."""

Picture = Literal["", "shifts", "heatmap", "curves"]
"""What the HTML report draws of one clip: nothing; the distance at each shift of the sound and,
at the best one, over time; where a stored comparison with the source breaks; or what is compared
over time, of the output and of the other clip."""


class Curves(NamedTuple):
    """A part of the face over time in an output and in the clip that it is compared with.

    *frames* are the output's, int64 (N,), at 25 a second; *output* and *source* are float64 (N,),
    or (N, 3) for the pose. Frame t of the output goes with frame ``t + lag`` of the source.
    """

    frames: npt.NDArray[np.int64]
    output: _Float64
    source: _Float64
    lag: int


class NoPartsError(CardError):
    """A record that lacks what the error of a score is computed from."""


class ItemPart(Protocol):
    """What a kind computes from one item: sums and counts."""

    @property
    def n_frames(self) -> int:
        """Frames (for lip sync: windows) of the output that count."""


PartType = TypeVar("PartType", bound=ItemPart)


@dataclass(frozen=True)
class GroupScore:
    """The score of a group of items, such as an emotion's.

    Attributes:
        value: NaN when there are too few frames.
        of_clips: float64 (items,), numbers whose mean is the score, in the items' order: clips'
            values, or pseudo-values where frames are pooled; NaN where they cannot be computed.
        kept: for each item, what its record keeps of the whole group's score; or empty.
        reason: why the value is NaN; too few frames when empty.
    """

    value: float
    of_clips: _Float64
    kept: tuple[Mapping[str, Any], ...] = ()
    reason: str = ""


class MetricKind(Statistic, Generic[PartType]):
    """A metric kind: its settings are the fields, read from a card's table ``[statistic]``.

    Where each clip has a value, a kind defines :meth:`part` and :meth:`value`; where frames are
    pooled, :meth:`part`, :meth:`kept`, :meth:`score` and :meth:`values`.

    Attributes:
        part_type: the dataclass of a part, where records keep all of its fields.
        n_clips: clips compared: 1 for the output alone, 2 for the output and another clip.
        pools_frames: whether the frames of all clips are pooled, so that clips have no value.
        reports: settings that do not change parts: metrics that differ in these alone share them.
        picture: what the HTML report draws of one clip; see :meth:`by_shift`, :meth:`over_time`,
            :meth:`curves`.
    """

    part_type: ClassVar[type[Any]]
    n_clips: ClassVar[int] = 2
    pools_frames: ClassVar[bool] = False
    reports: ClassVar[frozenset[str]] = frozenset()
    picture: ClassVar[Picture] = ""

    # ---- the card -------------------------------------------------------------------

    def check(self, card: MetricCard) -> None:
        """Refuse a card that compares other clips than the kind can.

        Raises:
            ValueError: says which clips it compares.
        """
        if len(card.compare) != self.n_clips or card.compare[0] != "output":
            other = "" if self.n_clips == 1 else " and one other clip"
            raise ValueError(f"'{self.kind}' compares the output{other}")

    def network(self, card: MetricCard, profile: ProfileCard) -> NetworkCard:
        """Return the network whose features are used.

        Raises:
            UnknownNameError: the settings name something that does not exist.
            CardError: a card or record is wrong.
        """
        return profile.network(card.role)

    def weights_settings(self) -> dict[str, str]:
        """Return hashes of weights beside the network's, for the signature."""
        return {}

    def libraries(self) -> frozenset[str]:
        """Return the modules that scores are computed with beside NumPy, for the signature."""
        return frozenset()

    def parts_key(self, card: MetricCard) -> str:
        """Return a text that is equal for metrics that have the same parts."""
        settings = self.model_dump(mode="json", exclude=set(self.reports))
        return json.dumps([card.role, card.output, card.compare, settings])

    # ---- one item -------------------------------------------------------------------

    def requests(
        self, card: MetricCard, clips: Mapping[ClipRole, Sequence[Clip]]
    ) -> dict[ClipRole, list[tuple[Clip, Request]]]:
        """Return the features that an item's part is computed from.

        Args:
            card: the metric.
            clips: those of the item that the card compares, by role; several real ones.

        Returns:
            Clips and what is requested of them, by the role to blame for a failure. ``output``
            comes first, with one request.
        """
        return {role: [(clip, card.role) for clip in clips[role]] for role in card.compare}

    def part(self, card: MetricCard, clip: Clip, features: ItemFeatures) -> PartType:
        """Compute an item's part.

        Args:
            card: the metric.
            clip: the output, for messages.
            features: as :meth:`requests` names them, in its order.

        Raises:
            ClipError: they cannot be compared; says why, and what to do.
        """
        raise NotImplementedError

    def held_bytes(self, part: PartType) -> int:
        """Return a part's bytes, where they are many: most parts of a large list are dropped then.

        :meth:`score` and :meth:`note` get sequences that compute these again at every use.
        """
        return 0

    def of_item(self, part: PartType, item: Item) -> PartType:
        """Return a part with what the kind needs to know of its item, such as the speaker."""
        return part

    def value(self, part: PartType) -> float:
        """Return one clip's value."""
        raise NotImplementedError

    def kept(self, part: PartType) -> dict[str, Any]:
        """Return what a record keeps of an item beside ``n_frames``, as plain JSON values."""
        values = {f.name: getattr(part, f.name) for f in fields(self.part_type)}
        values.pop("n_frames", None)
        return {k: np.asarray(v).tolist() if np.ndim(v) else v for k, v in values.items()}

    def read(self, kept: Mapping[str, Any]) -> PartType:
        """Return an item's part, from what a record keeps of it."""
        part: PartType = self.part_type(**{f.name: kept[f.name] for f in fields(self.part_type)})
        return part

    # ---- many items -----------------------------------------------------------------

    def score(self, parts: Sequence[PartType]) -> GroupScore:
        """Return the mean of the clips' values: clips weigh the same.

        Raises:
            ValueError: no parts.
        """
        if not parts:
            raise ValueError("a mean of no items")
        values = np.array([self.value(part) for part in parts])
        return GroupScore(float(values.mean()), values)

    def read_value(self, kept: Mapping[str, Any]) -> float | None:
        """Return one clip's value from what a record keeps of it; None where frames are pooled.

        Raises:
            CardError: something is missing, or is no number.
        """
        if self.pools_frames:
            return None
        try:
            return self.value(self.read(kept))
        except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
            raise CardError(f"no {error}" if isinstance(error, KeyError) else str(error)) from None

    def values(self, score: float, kept: Sequence[Mapping[str, Any]]) -> list[float]:
        """Return numbers of a group's clips whose mean is the score, from a record alone.

        Args:
            score: the group's.
            kept: what the record keeps of each of its items.

        Raises:
            NoPartsError: the record lacks what they are computed from; ``{metric}`` in its text
                stands for the metric.
            CardError: something is missing, or is no number.
        """
        return [value for one in kept if (value := self.read_value(one)) is not None]

    def note(self, groups: Sequence[Sequence[PartType]], *, same_clips: bool) -> str:
        """Return what a reader of a score must know; empty for nothing.

        Args:
            groups: the parts that it stands on, by emotion.
            same_clips: whether each output is itself one of the clips that it is compared with.
        """
        return ""

    # ---- the HTML report ------------------------------------------------------------

    def by_shift(self, part: PartType) -> _Float64:
        """Return the mean distance at each shift, 0 in the middle, for the picture ``shifts``."""
        raise NotImplementedError

    def over_time(self, part: PartType, features: Features) -> _Float64:
        """Return the distance at the best shift for each row of features, for ``shifts``.

        Raises:
            ClipError: the part is not made of these features.
        """
        raise NotImplementedError

    def curves(self, part: PartType, output: Features, other: Features) -> Mapping[str, Curves]:
        """Return what is compared over time, by a name to print, for the picture ``curves``.

        Each has one value a frame. *other* are the features of the clip that the output is
        compared with.

        Raises:
            ClipError: the part is not made of these features.
        """
        raise NotImplementedError


def kind_of(card: MetricCard) -> MetricKind[Any]:
    """Return the kind of a card's metric, with its settings.

    Raises:
        CardError: its class is no :class:`MetricKind`.
    """
    return _typed(card.statistic)


def read_kind(settings: Mapping[str, Any]) -> MetricKind[Any]:
    """Return a metric's kind from its settings in a record.

    Raises:
        CardError: the kind is unknown (its plugin is not installed), or a setting is wrong.
    """
    return _typed(read_statistic(settings, "a metric's settings in a record"))


def _typed(statistic: Statistic) -> MetricKind[Any]:
    if not isinstance(statistic, MetricKind):
        raise CardError(
            f"the class of the metric kind '{statistic.kind}' is no MetricKind",
            "Derive it from spfem_bench.statistics.base.MetricKind",
        )
    return statistic
