"""benchmarks/stccl_effect.py: the parts of an error, and the picture of weights."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import stccl_effect


def test_an_error_is_divided_into_what_speech_moves_and_what_emotions_move() -> None:
    speech, emotion = stccl_effect._directions()
    swing = np.array([1.0, -1.0, 1.0, -1.0])[:, None]
    mouth, felt = stccl_effect.split_error(swing * speech[0] + emotion[0])
    assert mouth == pytest.approx(np.sqrt((speech[0] ** 2).mean()))
    assert felt == pytest.approx(np.sqrt((emotion[0] ** 2).mean()))


def test_the_picture_has_a_panel_for_each_measure_and_a_line_for_each_form() -> None:
    lines = [
        {"metric": metric, "model": model, "difference": value, "low": value - 1, "high": value + 2}
        for metric in stccl_effect.DRAWN
        for model, value in (("vd-0p4", 0.5), ("ct-1p2", 3.0), ("ct-0p4", 1.0))
    ]
    own = {"metric": "fad", "model": "none", "mean": 7.0}
    figure = stccl_effect.picture([own, *lines])
    assert [axes.get_title() for axes in figure.axes[:3]] == ["FAD↓", "CSIM↑", "LSE-D↓"]
    for axes in figure.axes:
        vd, ct = (bars[0] for bars in axes.containers)
        assert vd.get_ydata().tolist() == [0.5] and ct.get_ydata().tolist() == [1.0, 3.0]
        assert ct.get_xdata() == pytest.approx([0.4, 1.2], rel=0.1)
        assert {text.get_text() for text in axes.texts} == {"vd", "ct"}
