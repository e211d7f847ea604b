"""Contact sheets: puppets as pictures to look at."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.media.video import FRAME_RATE
from spfem_bench.puppets.world import World

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from spfem_bench.media.video import Frame


def sheet(
    world: World, what: str, speaker: str = "", sentence: str = "", form: str = "png"
) -> bytes:
    """Draw a contact sheet as a picture file.

    Args:
        world: whose puppets.
        what: ``cast`` (the test speakers in every emotion), ``intensity`` (one speaker's
            emotions from nothing to all), or ``speech`` (one take frame by frame, with its
            landmarks, phones, mouth and sound).
        speaker: for the last two; the first test speaker when empty.
        sentence: the first test sentence when empty.
        form: png, jpg, webp, svg or pdf.

    Raises:
        UnknownNameError: no such speaker or sentence.
    """
    speaker = speaker or next(s.name for s in world.speakers if s.split == "test")
    sentence = sentence or next(s.name for s in world.sentences if s.split == "test")
    if what == "cast":
        rows = [s.name for s in world.speakers if s.split == "test"]
        frames = [[_middle(world, name, e, sentence, 1.0) for e in EMOTIONS] for name in rows]
        figure = grid(frames, rows, EMOTIONS)
    elif what == "intensity":
        levels = (0.0, 0.25, 0.5, 0.75, 1.0)
        frames = [[_middle(world, speaker, e, sentence, v) for v in levels] for e in EMOTIONS[1:]]
        figure = grid(frames, EMOTIONS[1:], [f"{v:.2f}" for v in levels])
    else:
        figure = _speech(world, speaker, sentence)
    return picture(figure, form)


def picture(figure: Figure, form: str) -> bytes:
    """Return a figure as a picture file."""
    content = io.BytesIO()
    figure.savefig(content, format=form, dpi=100)
    return content.getvalue()


def _middle(world: World, speaker: str, emotion: str, sentence: str, level: float) -> Frame:
    take = world.take(speaker, emotion, sentence, level)
    eyes = [take.eyes[i, 2] for i in range(take.n_frames)]
    opened = [i for i in range(take.n_frames // 3, take.n_frames) if eyes[i] == 0]
    return take.frame(opened[0] if opened else take.n_frames // 2)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def grid(frames: Sequence[Sequence[Frame]], rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Lay frames out with names beside rows and above columns; a name may have two lines."""
    side = 1.6
    width, height = len(columns) * side + 0.9, len(rows) * side + 0.4
    figure = _figure(width, height)
    for i, row in enumerate(frames):
        y = 1 - (0.4 + (i + 1) * side) / height
        figure.text(0.82 / width, y + side / height / 2, rows[i], ha="right", va="center", size=9)
        for j, frame in enumerate(row):
            x = (0.9 + j * side) / width
            axes = figure.add_axes((x, y, side / width * 0.985, side / height * 0.985))
            axes.imshow(frame, interpolation="lanczos")
            axes.set_axis_off()
            if i == 0:
                axes.set_title(columns[j], size=9, pad=3)
    return figure


def _speech(world: World, speaker: str, sentence: str) -> Figure:
    """One take neutrally and happily: frames with landmarks, mouth, sound and phones."""
    figure = _figure(14, 9)
    for half, emotion in enumerate(("neutral", "happy")):
        take = world.take(speaker, emotion, sentence)
        bottom, length = 0.5 * (1 - half), take.n_frames / FRAME_RATE
        shown = np.linspace(4, take.n_frames - 5, 10).round().astype(int)
        for k, index in enumerate(shown):
            axes = figure.add_axes((0.05 + 0.093 * k, bottom + 0.29, 0.09, 0.17))
            axes.imshow(take.frame(int(index)))
            axes.plot(*take.landmarks[index].T, ".", color="white", ms=2.2, alpha=0.8)
            axes.set_title(f"{index / FRAME_RATE:.2f} s", size=8, pad=2)
            axes.set_axis_off()
        mouth = figure.add_axes((0.05, bottom + 0.16, 0.93, 0.115))
        moments = (np.arange(take.n_frames) + 0.5) / FRAME_RATE
        for column, name in ((0, "jaw"), (2, "rounding"), (3, "closure")):
            mouth.plot(moments, take.mouth[:, column], label=name, lw=1.4)
        mouth.set_xlim(0, length)
        mouth.set_xticks([])
        mouth.legend(loc="upper right", fontsize=7, ncols=3, frameon=False)
        mouth.set_ylabel("mouth", size=8)
        sound = figure.add_axes((0.05, bottom + 0.05, 0.93, 0.105))
        samples = take.sound()
        sound.plot(np.arange(len(samples)) / 16_000, samples / 32768, lw=0.4, color="#555")
        sound.set_xlim(0, length)
        sound.set_ylim(-1, 1)
        sound.set_ylabel(emotion, size=8)
        sound.tick_params(labelsize=7)
        for phone in take.phones:
            if phone.end > phone.start:
                sound.axvline(phone.start, color="#bbb", lw=0.5)
                sound.text((phone.start + phone.end) / 2, 0.8, phone.symbol, ha="center", size=7)
    text = world.sentence(sentence).text
    figure.text(0.5, 0.985, f"{speaker}: “{text}”", ha="center", va="top", size=11)
    return figure
