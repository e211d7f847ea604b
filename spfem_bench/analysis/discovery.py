"""The papers' discovery: similarity of corresponding local disparities across emotions.

Controls: another speaker's frames, and the same speaker's at a wrong time. ``elsewhere`` (the
papers' negative) has any other regions of the two frames; ``near`` (equation 1) other neighbours
of the same region, in time its other moments. Source: ASCCL, figure 2; STCCL, overview.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from spfem_bench.analysis import disparities
from spfem_bench.analysis.disparities import (
    SIZE,
    WINDOW,
    Definition,
    DisparitySpace,
    Lens,
    Measure,
    window_of,
)
from spfem_bench.datasets.pairs import EmotionPair
from spfem_bench.definitions.protocols import AVERAGE, EMOTIONS
from spfem_bench.errors import StcclError
from spfem_bench.progress import SILENT, Progress
from spfem_bench.statistics.intervals import SEED, Resampled, drawn
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.backbone import Backbone
from spfem_bench.stccl.metric import Form, grid_of_regions
from spfem_bench.stccl.settings import ContentSettings

RESAMPLES = 1000


@dataclass(frozen=True)
class DiscoveryRow:
    """One number of the figure.

    Attributes:
        network: ``untrained``, or the learnt metric's name.
        stage: of the network, from 1.
        kind: see the module; ``above ...`` is the positive less that control, pair by pair.
        emotion: of the second recording; ``avg`` for the plain mean over emotions.
        low: lower end of the 95 % bootstrap interval over pairs; None with a single pair.
        frames: of each side.
    """

    network: str
    space: DisparitySpace
    stage: int
    measure: Measure
    kind: disparities.DiscoveryKind
    emotion: str
    value: float
    low: float | None
    high: float | None
    pairs: int
    frames: int
    disparities: int


class _Compared(NamedTuple):
    emotion: str
    windows: int
    values: disparities.SubjectValues


class Refused(NamedTuple):
    """A pair that could not be compared, and why."""

    name: str
    reason: str


def discover(
    pairs: Sequence[EmotionPair],
    network: Backbone,
    lenses: Sequence[Lens] = (Lens(),),
    *,
    windows: int = 3,
    definition: Definition = "paper",
    size: int = SIZE,
    device: str = "cpu",
    progress: Progress = SILENT,
) -> tuple[list[DiscoveryRow], list[Refused]]:
    """Compare *windows* of consecutive frames of each pair, and average them by emotion.

    A window has five frames, of the released code nine, of ``ct`` 25; *size* is the side of the
    pictures.

    Raises:
        StcclError: no pairs, no window at all, or correlation matrices of the released code.
        ClipError: a frame is absent, unreadable or without a face.
    """
    if not pairs:
        raise StcclError("no pairs of recordings to compare", "Give at least one")
    if windows < 1:
        raise StcclError(f"{windows} windows for each pair", "Give at least 1")
    if definition != "paper" and any(lens.form != "vd" for lens in lenses):
        raise StcclError("the released code has visual disparities only", "Use the form vd")
    compared: list[_Compared] = []
    refused: list[Refused] = []
    window = window_of(definition, lenses[0].form)
    progress.begin("pairs", len(pairs), "pair")
    for index, pair in enumerate(pairs):
        subject = disparities.draw_subject(pairs, index, windows, window, size)
        if subject is None:
            name = f"{pair.neutral.name} and {pair.emotional.name}"
            refused.append(Refused(name, f"no {window} frames in a row in which both go on"))
        else:
            values = disparities.subject_values(
                subject, network, lenses, definition, SEED + index, device
            )
            compared.append(_Compared(pair.emotion, len(subject.source), values))
        progress.advance("pairs")
    progress.end("pairs")
    if not compared:
        raise StcclError(f"no pair can be compared: {refused[0].reason}", "Give longer recordings")
    with torch.inference_mode():
        maps = network.stages(torch.zeros(1, 3, size, size, device=device))
    forms = {lens.name: lens.form for lens in lenses}
    rows: list[DiscoveryRow] = []
    for key in dict.fromkeys(key for one in compared for key in one.values):
        name, space, stage, _, _ = key
        height, width = maps[stage - 1].shape[-2:]
        count = per_frame(space, (height, width), stage, definition, forms[name])
        rows += _rows(key, compared, count, window)
    return rows, refused


def per_frame(
    space: DisparitySpace, size: tuple[int, int], stage: int, definition: Definition, form: Form
) -> float:
    """Return the number of disparities (or rows of matrices) that are compared in each frame."""
    height, width = size
    if form == "ct":
        return 1 / ContentSettings().every
    if form == "cm":
        return float(len(grid_of_regions(height, width)))
    if definition != "paper":
        if space == "spatial":
            return rep.CENTRES_PER_STAGE[stage - 1] * 8.0
        return rep.RELEASED_POSITIONS[stage - 1] * (window_of(definition) - 1) / 2
    if space == "spatial":
        return 8.0 * (height - 2) * (width - 2)
    return height * width * (WINDOW - 1) / WINDOW


def _rows(
    key: disparities.ValueKey, compared: Sequence[_Compared], each: float, window: int = WINDOW
) -> Iterator[DiscoveryRow]:
    """Yield a key's row for each emotion and for their mean, with *each* disparities a frame."""
    scores = []
    there = dict.fromkeys(one.emotion for one in compared)
    order = [e for e in EMOTIONS if e in there] + [e for e in there if e not in EMOTIONS]
    for stream, emotion in enumerate(order):
        own = [one for one in compared if one.emotion == emotion and key in one.values]
        if own:
            numbers = np.array([one.values[key] for one in own])
            draws = numbers[drawn(len(own), RESAMPLES, stream)].mean(axis=1)
            scores.append(Resampled(float(numbers.mean()), draws, len(own) > 1))
            yield _row(key, emotion, own, scores[-1], each, window)
    own = [one for one in compared if key in one.values]
    yield _row(key, AVERAGE, own, Resampled.average(scores), each, window)


def _row(
    key: disparities.ValueKey,
    emotion: str,
    own: Sequence[_Compared],
    score: Resampled,
    each: float,
    window: int,
) -> DiscoveryRow:
    frames = window * sum(one.windows for one in own)
    count = round(frames * each)
    return DiscoveryRow(*key, emotion, score.value, *score.interval, len(own), frames, count)
