"""How far long work has come."""

from __future__ import annotations


class Progress:
    """Receives how far long work has come; this one ignores it.

    Work has phases, such as ``clips`` or ``epoch 3``, which may go on side by side. The command
    line shows each as a bar, or as lines where there is no terminal.
    """

    def begin(self, phase: str, total: int | None = None, unit: str = "", done: int = 0) -> None:
        """Begin a phase.

        Args:
            phase: its name, unique among those that go on.
            total: parts that it has; None when that is not known.
            unit: what a part is, in the singular.
            done: parts that were done before.
        """

    def advance(self, phase: str, parts: int = 1, **figures: float) -> None:
        """Report that more parts of a phase are done; a phase that is unknown begins.

        Args:
            phase: the phase.
            parts: how many more.
            figures: numbers to show beside it, such as ``loss``.
        """

    def end(self, phase: str = "") -> None:
        """End a phase; all phases when none is named."""


SILENT = Progress()
"""One for everything that is sent to other processes, so that equal objects compare equal."""
