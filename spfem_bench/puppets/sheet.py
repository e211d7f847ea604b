"""Contact sheets: puppets, and what models make of them, as pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.media.audio import SAMPLE_RATE
from spfem_bench.media.video import FRAME_RATE, Frame
from spfem_bench.puppets.world import World, items

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def puppet_sheet(
    world: World, kind: str, speaker: str = "", sentence: str = "", form: str = "png"
) -> bytes:
    """Return a contact sheet as a picture file: png, jpg, webp, svg or pdf.

    *kind* is ``cast`` (test speakers in every emotion), ``intensity`` (a speaker's emotions by
    strength), or ``speech`` (one take with landmarks, phones, mouth and sound). An empty speaker or
    sentence is the first of the tests; raises UnknownNameError.
    """
    cast = [s.name for s in world.speakers if s.split == "test"]
    speaker = speaker or cast[0]
    sentence = sentence or next(s.name for s in world.sentences if s.split == "test")
    if kind == "cast":
        frames = [[_middle(world, name, e, sentence, 1.0) for e in EMOTIONS] for name in cast]
        return _picture(_grid(frames, cast, EMOTIONS), form)
    if kind == "intensity":
        levels = (0.0, 0.25, 0.5, 0.75, 1.0)
        frames = [[_middle(world, speaker, e, sentence, v) for v in levels] for e in EMOTIONS[1:]]
        return _picture(_grid(frames, EMOTIONS[1:], [f"{v:.2f}" for v in levels]), form)
    return _picture(_speech(world, speaker, sentence), form)


def model_sheet(names: Sequence[str] = (), form: str = "png", n_frames: int = 40) -> bytes:
    """Return a sheet of test puppets: source, inter-ID reference, each model, and the truth.

    *names* are of the models, all when empty; *n_frames* of each clip are given to them. Raises
    UnknownNameError or WeightsError.
    """
    from spfem_bench.puppets.mini_ned.config import models
    from spfem_bench.puppets.mini_ned.model import SIDE, MiniNed, model_path

    world, names = World(size=SIDE), names or tuple(models())
    loaded = [MiniNed.load(model_path(name)) for name in names]
    inter_id = list(items(world, "inter-id"))
    rows, labels = [], []
    for k in range(6):  # the k-th puppet in its k-th emotion
        item = inter_id[k * len(EMOTIONS) + 1 + k]
        emotion = item["emotion"]
        source = world.take(item["speaker"], "neutral", item["sentence"])
        reference = world.take(item["reference_speaker"], emotion, item["reference_sentence"])
        frames, others = (np.stack([*islice(t.frames(), n_frames)]) for t in (source, reference))
        # The widest mouth among open eyes: it has most to keep.
        openness = source.mouth[10:n_frames, 0] - 9 * source.eyes[10:n_frames, 2]
        shown = int(np.argmax(openness)) + 10
        made = [model.manipulate(frames, others)[shown] for model in loaded]
        truth = source.with_face(emotion).frame(shown)
        rows.append([frames[shown], others[n_frames // 2], *made, truth])
        labels.append(f"{item['speaker']}\n{emotion}")
    return _picture(_grid(rows, labels, ["source", "reference", *names, "truth"]), form)


def _picture(figure: Figure, form: str) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, format=form, dpi=100)
    return content.getvalue()


def _middle(world: World, speaker: str, emotion: str, sentence: str, level: float) -> Frame:
    """Return the first frame with open eyes after a third of a take."""
    take = world.take(speaker, emotion, sentence, level)
    start = take.n_frames // 3
    open_eyes = np.flatnonzero(take.eyes[start:, 2] == 0)
    return take.frame(start + int(open_eyes[0]) if len(open_eyes) else take.n_frames // 2)


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _grid(frames: Sequence[Sequence[Frame]], rows: Sequence[str], columns: Sequence[str]) -> Figure:
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
    """Draw one take neutrally and happily: frames with landmarks, mouth, sound and phones."""
    figure = _figure(14, 9)
    for half, emotion in enumerate(("neutral", "happy")):
        take = world.take(speaker, emotion, sentence)
        bottom, length = 0.5 * (1 - half), take.n_frames / FRAME_RATE
        for k, index in enumerate(np.linspace(4, take.n_frames - 5, 10).round().astype(int)):
            axes = figure.add_axes((0.05 + 0.093 * k, bottom + 0.29, 0.09, 0.17))
            axes.imshow(take.frame(int(index)))
            axes.plot(*take.landmarks[index].T, ".", color="white", ms=2.2, alpha=0.8)
            axes.set_title(f"{index / FRAME_RATE:.2f} s", size=8, pad=2)
            axes.set_axis_off()
        mouth = figure.add_axes((0.05, bottom + 0.16, 0.93, 0.115), xlim=(0, length), xticks=[])
        moments = (np.arange(take.n_frames) + 0.5) / FRAME_RATE
        for column, name in ((0, "jaw"), (2, "rounding"), (3, "closure")):
            mouth.plot(moments, take.mouth[:, column], label=name, lw=1.4)
        mouth.legend(loc="upper right", fontsize=7, ncols=3, frameon=False)
        mouth.set_ylabel("mouth", size=8)
        place = (0.05, bottom + 0.05, 0.93, 0.105)
        sound = figure.add_axes(place, xlim=(0, length), ylim=(-1, 1))
        samples = take.sound()
        sound.plot(np.arange(len(samples)) / SAMPLE_RATE, samples / 32768, lw=0.4, color="#555")
        sound.set_ylabel(emotion, size=8)
        sound.tick_params(labelsize=7)
        for phone in take.phones:
            if phone.length > 0:
                sound.axvline(phone.start, color="#bbb", lw=0.5)
                sound.text((phone.start + phone.end) / 2, 0.8, phone.symbol, ha="center", size=7)
    title = f"{speaker}: “{world.sentence(sentence).text}”"
    figure.text(0.5, 0.985, title, ha="center", va="top", size=11)
    return figure
