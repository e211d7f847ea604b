"""How far long work has come."""

from __future__ import annotations


class Progress:
    """Receives how far long work has come; this one ignores it.

    Phases, such as ``clips`` or ``epoch 3``, may go on side by side.
    """

    def begin(self, phase: str, total: int | None = None, unit: str = "", done: int = 0) -> None:
        """Begin a phase of *total* parts; *unit* is a part's name in the singular."""

    def advance(self, phase: str, parts: int = 1, **figures: float) -> None:
        """Report that more parts are done, and figures such as ``loss``; begin an unknown phase."""

    def end(self, phase: str = "") -> None:
        """End a phase; all phases when none is named."""


SILENT = Progress()  # one for all, so that objects sent to other processes stay equal
