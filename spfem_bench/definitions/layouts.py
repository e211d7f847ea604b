"""How the field's systems name their outputs, so that their folders can be scored as they are."""

from __future__ import annotations

from typing import Annotated

import pydantic

from spfem_bench.definitions.cards import Card, Kind, load

_Cells = dict[str, dict[str, str]]


class LayoutCard(Card):
    """Where a system's output for an item lies below the folder that it wrote."""

    # templates, likely ones first, of a video or a folder of frames: `{column}` is one of the
    # list's columns, or `{setting}` (`cross-id`, `inter-id`, or `self` where every source is its
    # item's real clip); `*` is anything within one name. A template with a column that the list
    # lacks is passed over.
    places: Annotated[tuple[str, ...], pydantic.Field(min_length=1)]
    names: _Cells = pydantic.Field(default_factory=dict)  # by column, the system's own words
    frame_rate: float = pydantic.Field(default=25.0, gt=0)  # of folders of frames
    # folders hold the outputs of all of an actor's sources of one emotion, in the order of the
    # sources' file names
    joined: bool = False
    lead: int = pydantic.Field(default=0, ge=0)  # of joined frames, so many first may be missing
    silent: bool = False  # outputs without sound are scored with the source's
    source: str  # where the names are documented
    must: str = ""  # what a user has to do where the system's names do not identify the item

    @pydantic.field_validator("places")
    @classmethod
    def _stars_stay_within_a_name(cls, places: tuple[str, ...]) -> tuple[str, ...]:
        if any("**" in p for p in places):
            raise ValueError("'*' stands for anything within one name; '**' is not allowed")
        return places


def layout_card(name: str) -> LayoutCard:
    """Read a layout's card by name."""
    return load(LayoutCard, Kind.LAYOUT, name)
