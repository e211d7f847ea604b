"""Controls: clips with a known answer in the place of a method's outputs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import pydantic

from spfem_bench.definitions.cards import Strict
from spfem_bench.definitions.clips import Edit, EditKind
from spfem_bench.errors import CardError


class ClipControl(Strict):
    """One of the item's own clips, as it is."""

    kind: Literal["clip"]
    clip: Literal["source", "reference", "real"]


class PerfectControl(Strict):
    """The source's own performance with the target's emotion on the face."""

    kind: Literal["perfect"]


class GradedControl(Strict):
    """A control with levels; metric cards claim which metrics respond to it.

    ``level`` is used unless another is given; ``levels`` go from the one that changes nothing to
    the strongest.
    """

    _UNIT: ClassVar[str] = ""
    level: float
    levels: tuple[float, ...] = pydantic.Field(min_length=2)

    @property
    def unit(self) -> str:
        """What the level counts."""
        return self._UNIT

    @pydantic.model_validator(mode="after")
    def _levels_are_possible_and_begin_with_nothing(self) -> GradedControl:
        for level in (self.level, *self.levels):
            self._check(level)
        if not self._changes_nothing(self.levels[0]):
            raise ValueError("levels must begin with the one that changes nothing")
        return self

    def _check(self, level: float) -> None:
        if not 0 <= level <= 1:
            raise ValueError(f"no level {level:g}: allowed are numbers from 0 to 1")

    def _changes_nothing(self, level: float) -> bool:
        return level == 0


class EditControl(GradedControl):
    """The real clip, degraded while it is read (see ``spfem_bench.faces.edits``)."""

    kind: Literal["edit"]
    edit: EditKind

    def _check(self, level: float) -> None:
        try:
            Edit(self.edit, level)
        except CardError as error:
            raise ValueError(str(error)) from None

    def _changes_nothing(self, level: float) -> bool:
        return Edit(self.edit, level).changes_nothing

    @property
    def unit(self) -> str:
        """What the level counts."""
        return Edit(self.edit, self.level).unit


class OtherSpeakerControl(GradedControl):
    """Another speaker's real clip of the same emotion; the level is the share of items."""

    _UNIT = "share of the clips"
    kind: Literal["other-speaker"]


class FadedControl(GradedControl):
    """The real performance with less emotion; the level is the intensity, 1 is all of it."""

    _UNIT = "intensity of the emotion"
    kind: Literal["faded"]

    def _changes_nothing(self, level: float) -> bool:
        return level == 1


Control = Annotated[
    ClipControl | PerfectControl | EditControl | OtherSpeakerControl | FadedControl,
    pydantic.Field(discriminator="kind"),
]
