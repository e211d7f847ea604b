"""Takes to learn from, by their names, and drawing a network's inputs from each."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from spfem_bench.processes import spread
from spfem_bench.progress import SILENT, Progress

Drawn = TypeVar("Drawn")


class Shot(NamedTuple):
    """One take by its names, as in the record of a training."""

    speaker: str
    emotion: str
    sentence: str
    intensity: float


NumberedShot = tuple[int, Shot]


def shots_sha256(shots: Sequence[Shot]) -> str:
    """Return a hash of a list of takes, as 64 hexadecimal digits."""
    return hashlib.sha256(json.dumps([list(s) for s in shots]).encode()).hexdigest()


def speakers_and_sentences(shots: Sequence[Shot]) -> dict[str, list[str]]:
    """Return the names of all speakers and sentences in takes, for a record."""
    return {
        "speakers": sorted({s.speaker for s in shots}),
        "sentences": sorted({s.sentence for s in shots}),
    }


def describe_shots(shots: Sequence[Shot]) -> dict[str, Any]:
    """Return what a training's record states of its takes."""
    takes = {"count": len(shots), "sha256": shots_sha256(shots)}
    return {"takes": takes, **speakers_and_sentences(shots)}


def draw_shots(
    draw: Callable[[NumberedShot], Drawn],
    shots: Sequence[Shot],
    workers: int = 1,
    progress: Progress = SILENT,
    phase: str = "draw",
) -> list[Drawn]:
    """Return what *draw* makes of each take's number and names; *workers* change no pixel."""
    progress.begin(phase, len(shots), "take")
    drawn = []
    with spread(draw, list(enumerate(shots)), workers) as takes:
        for take in takes:
            drawn.append(take)
            progress.advance(phase)
    progress.end(phase)
    return drawn
