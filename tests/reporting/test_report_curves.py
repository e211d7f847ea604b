"""Curves over time in the report: those that were correlated, in step, and as text only."""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
import pytest

from spfem_bench.definitions.metrics import metric_card
from spfem_bench.errors import ClipError
from spfem_bench.evaluation import record as records
from spfem_bench.reporting.report.build import build
from spfem_bench.reporting.report.charts import (
    LEFT,
    RIGHT,
    WIDTH,
    Curve,
    CurvesPlot,
    TimePlot,
    time_plot,
)
from spfem_bench.reporting.report.clips import Clips
from spfem_bench.statistics.base import Curves, kind_of
from tests.statistics.test_landmarks import SPEECH, face, features, part
from tests.synthetic import items, record

HOSTILE = "<script>alert(1)</script> \"'"


def test_curves_are_those_that_the_record_has_r_of() -> None:
    """The output shows what its source showed three frames before; its mouth opens half as far."""
    noise = np.random.default_rng(1).normal(0, 1, 80)
    output, source = features(face(np.roll(0.5 * SPEECH + noise, 3))), features(face(SPEECH))
    found = part("lip-corr", output, source)
    assert found.lag == -3
    (curves,) = kind_of(metric_card("lip-corr")).curves(found, output, source).values()
    assert curves.frames.tolist() == list(range(3, 80)) and curves.lag == -3
    assert curves.source == pytest.approx(SPEECH[:77] / 100, abs=1e-4)
    assert curves.output == pytest.approx((0.5 * SPEECH + noise)[:77] / 100, abs=1e-4)
    assert np.corrcoef(curves.output, curves.source)[0, 1] == pytest.approx(found.r[0], abs=1e-6)


def test_other_features_than_the_runs_are_not_drawn() -> None:
    output, source = features(face(SPEECH)), features(face(SPEECH))
    for metric in ("lip-corr", "lip-dyn"):
        found = part(metric, output, source)
        with pytest.raises(ClipError, match="not those of the run"):
            kind_of(metric_card(metric)).curves(found, features(face(SPEECH[:60])), source)


def test_a_pose_has_a_curve_for_each_turn() -> None:
    pose = features(face(SPEECH, 6 * np.sin(np.arange(80) / 5)))
    curves = kind_of(metric_card("pose-corr")).curves(part("pose-corr", pose, pose), pose, pose)
    assert [name.split(",")[0] for name in curves] == ["Turn", "Nod", "Tilt"]
    assert curves["Turn, in eye distances"].output == pytest.approx(
        6 * np.sin(np.arange(80) / 5) / 100, abs=1e-4
    )


class OfRuns(Clips):
    """Clips of which curves alone are at hand, by method."""

    def __init__(self, of: dict[str, Curves]) -> None:
        self.of = of

    def _in_step(self, run: Any, item: str, metric: str) -> dict[str, Curves]:
        return {"Opening": self.of[run.name]}

    def _over_sound(self, run: Any, item: str, curves: dict[str, Curve]) -> TimePlot:
        self.drawn = curves
        return time_plot(curves, np.zeros(0), 0, 25)


def test_the_output_keeps_its_time_and_the_others_lie_in_step_with_it() -> None:
    """The output is 2 frames late, the rival 1 early: it is drawn 3 later, the source 2 later."""
    (one, other) = (records.parse_record(with_lips(name, 0.5)) for name in ("mine", "rival"))
    moment = np.arange(30.0)
    clips = OfRuns(
        {
            "mine": Curves(np.arange(2, 30), moment[:28] + 100, moment[:28], -2),
            "rival": Curves(np.arange(29), moment[1:] + 200, moment[1:], 1),
        }
    )
    runs = [type("Run", (), {"name": run.method.name}) for run in (one, other)]
    (found,) = clips.curves(*runs, items(1)[0]["id"], "lip-corr")  # type: ignore[arg-type]
    at = {
        kind: dict(zip(curve.frames.tolist(), curve.values.tolist(), strict=True))
        for kind, curve in clips.drawn.items()
    }
    assert (found.lag, found.other) == (-2, "source")
    assert [at[kind][10] for kind in ("own", "source", "rival")] == [108.0, 8.0, 208.0]
    # By hand: the rival ends with frame 31, and a frame is drawn at its middle.
    step = (WIDTH - LEFT - RIGHT) / 32
    own = next(line for line in found.plot.lines if line.kind == "own")
    assert own.path.startswith(f"M{LEFT + 2.5 * step:.1f} ") and own.path.count("M") == 1


def with_lips(method: str, r: float) -> dict[str, Any]:
    run = record(method, of=items(1), metrics=("csim",))
    kept = {"n_frames": 50, "n_frames_refused": 0, "n_frames_interpolated": 0}
    kept |= {"r": [r], "lag": -2, "motion": 0.9, "spread_output": [0.05], "spread_source": [0.06]}
    kept |= {"n_outside": 0, "n_turned": 0, "n_covered": 0}
    run["items"][0]["metrics"] = {"lip-corr": kept}
    text = json.dumps(run).replace('"csim"', '"lip-corr"').replace("csim:1", "lip-corr:1")
    run = json.loads(text)
    run["settings"]["lip-corr"]["metric"] = metric_card("lip-corr").settings()
    for score in run["scores"]:
        score["value"] = r
    return dict(run)


class Drawn:
    """Clips of which curves alone are at hand, with a hostile name."""

    def find(self, *_: object) -> None:
        return None

    def copy(self, *_: object) -> str:
        return f"media/{'0' * 32}.mp4"

    def curves(self, *_: object) -> list[CurvesPlot]:
        of = {k: Curve(np.arange(50), np.linspace(0, 0.2, 50), 1) for k in ("own", "source")}
        return [CurvesPlot(HOSTILE, HOSTILE, -2, time_plot(of, np.zeros(0), 0, 25))]


def test_curves_are_on_the_page_as_text_and_svg() -> None:
    run = records.parse_record(with_lips("model", 0.5))
    page = build([run], items=1, clips=Drawn())["index.html"].decode()  # type: ignore[arg-type]
    figure = page[page.index('<figure class="over">') :]
    figure = figure[: figure.index("</figure>")]
    assert "<script" not in figure and "&lt;script&gt;" in figure
    assert 'aria-label="&lt;script&gt;' in figure and "a lag of −2 frames" in figure
    assert len(re.findall(r'class="curve (own|source)" d="M\d', figure)) == 4  # two in the legend
    assert 'class="playhead"' in figure and "http" not in figure and "src=" not in figure
