"""A contact sheet of what models make, beside what they should."""

from __future__ import annotations

from itertools import islice

import numpy as np

from spfem_bench.puppets.mini_ned.config import models
from spfem_bench.puppets.mini_ned.model import SIDE, MiniNed, model_path
from spfem_bench.puppets.sheet import grid, picture
from spfem_bench.puppets.world import World, items

FRAMES = 40
"""So many of each clip are looked at; the shown one is among them."""


def sheet(names: tuple[str, ...] = (), form: str = "png") -> bytes:
    """Draw one frame of each test puppet in an emotion of its own, made by models.

    Columns are the source, a frame of the reference (the inter-ID one), each model, and the
    truth: the same performance with the emotion on the face.

    Args:
        names: of the models; all that there are when empty.
        form: png, jpg, webp, svg or pdf.

    Raises:
        UnknownNameError: no model has that name.
        WeightsError: its weights are missing or wrong.
    """
    world = World(size=SIDE)
    names = names or tuple(models())
    loaded = [MiniNed.load(model_path(name)) for name in names]
    rows, labels = [], []
    for k in range(6):  # the k-th puppet in its k-th emotion
        item = [*items(world, "inter-id")][k * 7 + 1 + k]
        source = world.take(item["speaker"], "neutral", item["sentence"])
        reference = world.take(
            item["reference_speaker"], item["emotion"], item["reference_sentence"]
        )
        given, wanted = (np.stack([*islice(t.frames(), FRAMES)]) for t in (source, reference))
        # The widest mouth among open eyes: there is most to keep.
        shown = int(np.argmax(source.mouth[10:FRAMES, 0] - 9 * source.eyes[10:FRAMES, 2])) + 10
        made = [model.manipulate(given, wanted)[shown] for model in loaded]
        truth = source.with_face(item["emotion"]).frame(shown)
        rows.append([given[shown], wanted[FRAMES // 2], *made, truth])
        labels.append(f"{item['speaker']}\n{item['emotion']}")
    return picture(grid(rows, labels, ["source", "reference", *names, "truth"]), form)
