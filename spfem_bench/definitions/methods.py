"""Methods: systems and controls that clips come from."""

from __future__ import annotations

from typing import Literal

from spfem_bench.definitions.cards import Card, Kind, load, names
from spfem_bench.definitions.controls import Control
from spfem_bench.errors import CardError, unknown_name


class MethodCard(Card):
    """A system of the field, a toy copy of one, or a control."""

    label: str  # what tables print
    aliases: tuple[str, ...] = ()  # other names that `--method` takes
    control: Control | None = None  # which clips take the outputs' place
    # the system that a toy is a small copy of; that system's name selects the toy where a data set
    # has only the toy
    stands_for: str = ""
    paper: str = ""  # where it was published
    link: str = ""  # its code, or its paper

    @property
    def kind(self) -> Literal["system", "control"]:
        """Whether it is a system of the field, or a control."""
        return "control" if self.control else "system"


def method_card(name: str) -> MethodCard:
    """Read a method's card by its name or an alias; raise UnknownNameError if neither exists."""
    cards = [load(MethodCard, Kind.METHOD, n) for n in names(Kind.METHOD)]
    known: dict[str, MethodCard] = {}
    for card in cards:
        for key in (card.name, *card.aliases):
            if key in known:
                raise CardError(f"two methods are named '{key}': {known[key].path}, {card.path}")
            known[key] = card
    if name not in known:
        raise unknown_name("method", name, known)
    return known[name]
