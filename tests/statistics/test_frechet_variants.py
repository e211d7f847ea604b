"""The papers' Frechet distance: pytorch-fid's steps, and real clips that items share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import linalg

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import Item
from spfem_bench.features.features import Features
from spfem_bench.statistics.frechet import (
    FrechetKind,
    FrechetPart,
    Moments,
    frechet_distance,
    sqrtm_distance,
)

RNG = np.random.default_rng(5)


def test_sqrtm_and_the_exact_root_agree_where_frames_outnumber_dimensions() -> None:
    a, b = (Moments.of(RNG.normal(m, s, (200, 6))) for m, s in ((0, 1), (0.5, 2)))
    assert sqrtm_distance(a, b) == pytest.approx(frechet_distance(a, b), rel=1e-10)


def test_1e_6_is_added_to_both_diagonals_where_the_root_is_not_finite(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Variances 1 and 4 in one dimension: (1 - 2)^2 and what 1e-6 on both adds."""
    a, b = (Moments.of(np.array([[0.0], [1.0], [2.0]]) * scale) for scale in (1, 2))
    real, calls = linalg.sqrtm, []

    def root(matrix: Any) -> Any:
        calls.append(matrix)
        return np.full((1, 1), np.inf) if len(calls) == 1 else real(matrix)

    monkeypatch.setattr(linalg, "sqrtm", root)
    by_hand = (1 - 2) ** 2 + 1 + 4 - 2 * math.sqrt((1 + 1e-6) * (4 + 1e-6))
    assert sqrtm_distance(a, b) == pytest.approx(by_hand, rel=1e-12)


def test_an_imaginary_root_is_no_number_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linalg, "sqrtm", lambda m: np.full(m.shape, 1 + 0.1j))
    part = FrechetPart(*(Moments.of(RNG.normal(size=(9, 2))) for _ in range(2)))
    score = FrechetKind(kind="frechet", square_root="sqrtm").score([part, part])
    assert math.isnan(score.value)
    assert score.reason == "sqrtm's imaginary part is 0.1: pytorch-fid stops"


def test_a_real_clip_that_items_share_counts_once() -> None:
    card = metric_card("fad-papers")
    kind = FrechetKind(kind="frechet", shared_real="once")
    frames = {name: RNG.normal(size=(6, 3)).astype(np.float32) for name in "abcxy"}

    def features(name: str) -> Features:
        return Features({"embedding": frames[name]}, np.arange(6), 6, 0)

    def part(output: str, first: str, *more: str) -> FrechetPart:
        listed = [Clip(Path(name)) for name in (first, *more)]
        item = Item(output, "A", "sad", {"real": listed[0]}, {}, more_real=tuple(listed[1:]))
        given = {"output": [features(output)], "real": [features(n) for n in (first, *more)]}
        return kind.of_item(kind.part(card, Clip(Path(output)), given), item)

    parts = [part("a", "x", "y"), part("b", "y"), part("c", "x")]
    score = kind.score(parts)

    def distance(outputs: str, real: str) -> float:
        sides = (np.concatenate([frames[n] for n in names]) for names in (outputs, real))
        return frechet_distance(*map(Moments.of, sides))

    assert score.value == pytest.approx(distance("abc", "xy"))
    without = [one["without"] for one in score.kept]
    assert without == pytest.approx(
        [distance("bc", "xy"), distance("ac", "xy"), distance("ab", "xy")]
    )
    alone = kind.score([parts[0], parts[1]])  # x leaves with the only item that uses it
    assert alone.kept[0]["without"] == pytest.approx(distance("b", "y"))
