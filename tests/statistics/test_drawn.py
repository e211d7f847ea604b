"""CSIM of the papers: all pairs of drawn frames, on vectors whose cosines are known by hand."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import Item
from spfem_bench.errors import ClipError
from spfem_bench.features.features import Features
from spfem_bench.statistics.drawn import DrawnPart, DrawnSimilarityKind

CARD = metric_card("csim-papers")


def kind(most: int = 100, actors: tuple[str, ...] = ()) -> DrawnSimilarityKind:
    return DrawnSimilarityKind(kind="drawn-similarity", most=most, seed=1, actors=actors)


def features(angles: list[float], length: float = 2.0) -> Features:
    rows = length * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    vectors = {"features": rows.astype(np.float32)}
    return Features(vectors, np.arange(len(angles)), len(angles), 0)


def part(
    speaker: str, output: list[float], real: list[float], first: int = 0, real_name: str = ""
) -> DrawnPart:
    made = Clip(Path("out"), None, 30.0, pictures=(first, first + len(output)))
    address = Clip(Path(f"real/{speaker}{real_name}"), None, 30.0, pictures=(first, first + 1))
    item = Item(f"{speaker}{first}", speaker, "sad", {"real": address}, {})
    one = kind().part(CARD, made, {"output": [features(output)], "real": [features(real)]})
    return kind().of_item(one, item)


def test_it_is_the_mean_of_all_pairs_and_then_over_actors() -> None:
    """Angles 0 and 90 degrees against 0: (1 + 0) / 2; one actor at 60 degrees: 0.5 and 1."""
    right, sixty = np.pi / 2, np.pi / 3
    parts = [part("a", [0, right], [0]), part("b", [sixty], [0, sixty])]
    score = kind().score(parts)
    assert score.value == pytest.approx((0.5 + 0.75) / 2)
    # One actor left out is the other's value; the mean of pseudo-values is the score.
    assert [one["without"] for one in score.kept] == pytest.approx([0.75, 0.5])
    assert score.of_clips.tolist() == pytest.approx([0.5, 0.75])
    assert kind().values(score.value, score.kept) == pytest.approx(score.of_clips.tolist())


def test_a_real_clip_that_two_items_share_is_there_once() -> None:
    right = np.pi / 2
    shared = [part("a", [0], [0], 0), part("a", [0], [0], 0), part("a", [0], [right], 5)]
    assert kind().score(shared).value == pytest.approx(0.5)  # not (1 + 1 + 0) / 3


def test_frames_are_drawn_as_by_the_script() -> None:
    """Seed once, actors in the card's order, real before generated, in the order of files."""
    rng = np.random.default_rng(0)
    frames = {
        (actor, side): rng.uniform(0, 3, 12) for actor in ("M009", "A") for side in ("real", "out")
    }
    parts = [
        part(actor, list(frames[actor, "out"][i:j]), list(frames[actor, "real"][i:j]), i)
        for actor in ("A", "M009")
        for i, j in ((7, 12), (0, 7))
    ]
    random.seed(1)
    values = []
    for actor in ("M009", "A"):
        real = random.sample(list(frames[actor, "real"]), 5)
        made = random.sample(list(frames[actor, "out"]), 5)
        values.append(np.cos(np.subtract.outer(made, real)).mean())
    assert kind(5, ("M009",)).score(parts).value == pytest.approx(np.mean(values), abs=1e-6)


def test_a_vector_of_zeros_is_refused() -> None:
    zeros = Features({"features": np.zeros((2, 2), np.float32)}, np.arange(2), 2, 0)
    with pytest.raises(ClipError, match="no cosine"):
        kind().part(CARD, Clip(Path("a.mp4")), {"output": [zeros], "real": [zeros]})
