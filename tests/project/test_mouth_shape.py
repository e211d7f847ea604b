"""benchmarks/mouth_shape.py: its displaced controls and intervals, by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks import mouth_shape
from tests.statistics.test_landmarks import SPEECH, face, features


def test_a_clip_half_late_begins_in_its_middle_and_loses_its_correlation() -> None:
    output, source = features(face(SPEECH)), features(face(SPEECH))
    late = mouth_shape.rolled(output)
    first = np.asarray(output.outputs["points"])[[40, 79, 0, 39]]
    assert np.array_equal(np.asarray(late.outputs["points"])[[0, 39, 40, 79]], first)
    assert late.frames.tolist() == list(range(80))
    assert mouth_shape.displaced_value("lip-corr", "a", output, source) == pytest.approx(1)
    assert mouth_shape.displaced_value("lip-corr", "a", late, source) < 0.9


def test_pairs_have_the_mean_of_differences_and_an_interval_like_students() -> None:
    apart = np.random.default_rng(3).normal(0.3, 0.2, 40).tolist()
    found = mouth_shape.paired(apart, ["M"] * 20 + ["W"] * 20)
    low, high = found["clips"]
    error = stats.sem(apart) * stats.t.ppf(0.975, 39)
    assert found["difference"] == pytest.approx(np.mean(apart)) and found["n"] == 40
    assert (low, high) == pytest.approx((np.mean(apart) - error, np.mean(apart) + error), abs=0.01)
    assert found["speakers"] is not None
    assert mouth_shape.paired(apart, ["M"] * 40)["speakers"] is None  # of one speaker
    assert mouth_shape.paired(apart, [str(n) for n in range(40)])["speakers"] is None  # one each


def test_a_missing_difference_is_a_dash() -> None:
    found = {"difference": -0.5, "clips": (-0.75, 0.25), "speakers": None}
    assert mouth_shape.difference_text(found) == "\u22120.50 [\u22120.75, +0.25]"
    assert mouth_shape.difference_text(None) == "\u2013"
