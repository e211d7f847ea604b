"""How long work is shown on standard error: as bars on a terminal, else as lines."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from spfem_bench.progress import Progress

if TYPE_CHECKING:
    from tqdm import tqdm

INTERVAL = 30.0
"""Seconds between lines where there is no terminal."""


class Bars(Progress):
    """Shows each phase as a bar, with its figures behind it."""

    def __init__(self) -> None:
        self._bars: dict[str, tqdm[Any]] = {}

    def begin(self, phase: str, total: int | None = None, unit: str = "", done: int = 0) -> None:
        """Add a bar; it replaces one of the same phase."""
        from tqdm import tqdm

        if phase in self._bars:
            self.end(phase)
        self._bars[phase] = tqdm(
            total=total, initial=done, desc=f"{phase:8}", unit=unit or "part", leave=False
        )

    def advance(self, phase: str, parts: int = 1, **figures: float) -> None:
        """Move a bar on."""
        if phase not in self._bars:
            self.begin(phase)
        if figures:
            texts = {name: f"{value:.3f}" for name, value in figures.items()}
            self._bars[phase].set_postfix(texts, refresh=False)
        self._bars[phase].update(parts)

    def end(self, phase: str = "") -> None:
        """Remove a bar, or all."""
        for name in [phase] if phase else reversed([*self._bars]):
            if name in self._bars:
                self._bars.pop(name).close()


@dataclass
class _Phase:
    total: int | None
    unit: str
    done: int
    figures: dict[str, float]

    def text(self, name: str) -> str:
        """Return what is done, such as ``clips: 12 of 40``."""
        unit = f" {self.unit}s" if self.unit and f"{self.unit}s" != name else ""
        of = "" if self.total is None else f" of {self.total}"
        figures = "".join(f", {key} {value:.3f}" for key, value in self.figures.items())
        return f"{name}: {self.done}{of}{unit}{figures}"


class Lines(Progress):
    """Prints a line for all phases every 30 seconds: for logs, which bars would fill.

    A thread prints it also while nothing advances, such as when a large network is loaded.
    """

    def __init__(self) -> None:
        self._phases: dict[str, _Phase] = {}
        self._began = self._printed = time.monotonic()
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def _keep_printing(self) -> None:
        while not self._ended.wait(1.0):
            self._print_when_due()

    def _print_when_due(self) -> None:
        with self._lock:
            now = time.monotonic()
            if now - self._printed < INTERVAL or not self._phases:
                return
            self._printed = now
            minutes, seconds = divmod(round(now - self._began), 60)
            texts = [counted.text(name) for name, counted in self._phases.items()]
            click.echo(f"{minutes}:{seconds:02} min  {'; '.join(texts)}", err=True)

    def begin(self, phase: str, total: int | None = None, unit: str = "", done: int = 0) -> None:
        """Begin to count a phase."""
        with self._lock:
            self._phases[phase] = _Phase(total, unit, done, {})
        if self._thread is None:
            self._thread = threading.Thread(target=self._keep_printing, daemon=True)
            self._thread.start()

    def advance(self, phase: str, parts: int = 1, **figures: float) -> None:
        """Count parts, and print a line when it is time."""
        with self._lock:
            counted = self._phases.setdefault(phase, _Phase(None, "", 0, {}))
            counted.done += parts
            counted.figures = figures
        self._print_when_due()

    def end(self, phase: str = "") -> None:
        """Forget a phase, or all."""
        with self._lock:
            for name in [phase] if phase else [*self._phases]:
                self._phases.pop(name, None)
        if not phase:
            self._ended.set()
