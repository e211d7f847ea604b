"""``spfem-bench validate``: the rules on numbers made by hand, then the command."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.metrics import Claims, metric_card
from spfem_bench.evaluation.grading import Graded, ignores, measures, misread, reads, scale
from spfem_bench.evaluation.measure import MeasuredItem, parts_of
from spfem_bench.evaluation.score import score_groups, score_parts
from spfem_bench.evaluation.validate import graded_controls
from spfem_bench.statistics.base import kind_of
from spfem_bench.statistics.coherence import CoherencePart
from spfem_bench.statistics.frechet import FrechetKind, frechet_part
from spfem_bench.statistics.intervals import Resampled
from spfem_bench.statistics.similarity import SimilarityPart
from spfem_bench.statistics.sync import SyncPart
from tests.conftest import Outcome, World

Run = Callable[..., Outcome]
VALIDATE = ("validate", "--protocol", "mini", "--profile", "mini", "-q")


def graded(values: list[float], noise: float = 0.0, *, sign: int = 1, **more: Any) -> Graded:
    """Levels whose draws lie around their values, each level's in an order of its own."""
    spread = np.linspace(-1, 1, 101)
    rng = np.random.default_rng(0)
    draws = [v + noise * (rng.permutation(spread) if v else 0 * spread) for v in values]
    return Graded(np.array(values), np.stack(draws), more.pop("varies", True), sign, **more)


# ---- rules ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "noise", "verdict"),
    [
        ([0, 1, 2, 3, 4], 0.1, "yes"),
        ([0, 1, 0.95, 3, 4], 0.1, "yes"),  # a step back within noise
        ([0, 1, 0.5, 3, 4], 0.1, "not monotone"),  # and beyond it
        ([0, 1, 4, 3.9, 4], 0.0, "yes"),  # beyond noise, but no more than saturation
        ([0, 2, 2, 2, 2], 0.0, "not monotone"),  # ties: what the first step does is no grade
        ([0, 0, 0, 3, 4], 0.1, "yes"),  # the first levels are too weak to be felt
        ([0, 9, 7, 5, 3], 5.0, "not monotone"),  # no single step is beyond noise; the order is
        ([0, -1, -2, -3, -4], 0.1, "wrong way"),
        ([0, 0.1, 0.2, 0.1, 0.2], 5.0, "no answer"),
        ([0, 3, 4, 2, 0.1], 0.5, "not monotone"),  # it answers, but not at the end
        ([0, 0, 0, 0, 0], 0.0, "no answer"),
        ([0, 1], 0.1, "yes"),  # the fewest levels there can be
    ],
)
def test_must_feel(values: list[float], noise: float, verdict: str) -> None:
    assert measures(graded(values, noise)) == verdict
    mirrored = [-v for v in values]
    assert measures(graded(mirrored, noise, sign=-1)) == verdict


def test_one_clip_per_emotion_gives_no_verdict_and_rounding_is_no_move() -> None:
    assert measures(graded([0, 1, 2], varies=False)) == "too few"
    assert measures(graded([0, 1e-9, 2e-9])) == "yes"
    assert measures(graded([0, 1e-9, 2e-9], floor=1e-6)) == "no answer"


def test_monotonicity_is_spearmans_with_ties() -> None:
    from scipy.stats import spearmanr

    for values in ([0, 1, 2, 3, 4], [0, 4, 3, 2, 1], [0, 1, 1, 2, 2], [3.0, 1, 4, 1, 5]):
        expected = spearmanr(range(5), values).statistic
        assert graded(values).monotonicity == pytest.approx(expected)
        assert graded(values, sign=-1).monotonicity == pytest.approx(-expected)
    assert graded([2, 2, 2]).monotonicity is None
    near = [0, 1, 1 + 1e-9, 1 - 1e-9, 2]
    assert graded(near, floor=1e-6).monotonicity == pytest.approx(
        spearmanr(range(5), [0, 1, 1, 1, 2]).statistic
    )


def test_a_lag_is_read_off_within_one_frame() -> None:
    levels = [0, 1, 2, 4, 8]
    assert reads(graded([0.4, 1.2, 2.9, 3.1, 8]), levels) == "yes"
    assert reads(graded([0.4, 1.2, 2.9, 3.1, 6.5]), levels) == "misreads"
    assert misread(graded([0.4, 1.2, 2.9, 3.1, 6.5]), levels) == 4
    assert reads(graded([0, 0, 0, 0, 0]), levels) == "no answer"
    assert reads(graded([0, -1, -2, -4, -8]), levels) == "wrong way"
    assert reads(graded([3, 4, 5, 7, 11]), levels) == "misreads"  # the steps right, the zero not


def test_shares_are_of_the_largest_move_in_the_right_direction() -> None:
    assert scale(graded([0, 5, 4], 0.1)) == 5
    assert scale(graded([0, -5, -4], 0.1)) == 0  # felt, the wrong way
    assert scale(graded([0, 5, 4], 50.0)) == 0  # not felt
    # The largest move counts, not the last, and whichever way it goes.
    assert ignores(graded([1, 0.1, 1]), 10) == ("hardly", pytest.approx(0.09))
    assert ignores(graded([0, 1, 0]), 10) == ("somewhat", pytest.approx(0.1))
    assert ignores(graded([0, 1, 0]), 3) == ("moves", pytest.approx(1 / 3))
    assert ignores(graded([0, 1, 0]), 0) == ("no scale", None)
    assert ignores(graded([5, 5, 5]), 0) == ("hardly", 0)  # nothing to scale


def test_changes_are_drawn_in_pairs() -> None:
    """Two clips, cosines 0.9 and 0.5; spoilt, 0.7 and 0.4. Worked by hand.

    A draw is both clips, or one of them twice: changes are -0.15, -0.2 and -0.1, whatever the
    clips' own scatter of 0.4, which unpaired would hide them.
    """

    def results(*cosines: float) -> list[MeasuredItem]:
        return [
            MeasuredItem(str(i), "sad", SimilarityPart(c, 1, 10), 10, 0, 0, {})
            for i, c in enumerate(cosines)
        ]

    def resampled(*cosines: float) -> Resampled:
        return score_groups(metric_card("csim"), results(*cosines), ("happy", "sad"))["sad"][1]

    before, after = resampled(0.9, 0.5), resampled(0.7, 0.4)
    change = after - before
    assert change.value == pytest.approx(-0.15)
    assert sorted(set(np.round(change.draws, 9))) == [-0.2, -0.15, -0.1]
    assert change.interval == (pytest.approx(-0.2), pytest.approx(-0.1))
    assert before.interval == (pytest.approx(0.5), pytest.approx(0.9))
    # Both emotions together: their draws are independent, their mean keeps both.
    both = Resampled.average([change, change])
    assert both.value == pytest.approx(-0.15) and both.varies
    lone = resampled(0.9)
    assert not lone.varies and lone.interval == (None, None)


@pytest.mark.parametrize("count", [3, 18, 40])
@pytest.mark.parametrize("name", ["csim", "lse-c", "scc"])
def test_a_draw_is_the_score_of_the_clips_drawn(name: str, count: int) -> None:
    """All draws at once are what clip after clip gives."""
    generator = np.random.default_rng(count)

    def part() -> Any:
        if name == "csim":
            return SimilarityPart(float(generator.normal()), int(generator.integers(1, 9)), 9)
        if name == "lse-c":
            return SyncPart(generator.uniform(400, 900, 31), 71, 0)
        positive = tuple(generator.normal(0, 1e3, 4).tolist())
        return CoherencePart(positive, (0.0,) * 4, (None,) * 4, 9, 0)

    card, parts = metric_card(name), [part() for _ in range(count)]
    results = [MeasuredItem(str(i), "sad", p, 9, 0, 0, {}) for i, p in enumerate(parts)]
    score = kind_of(card).score
    _, found = score_groups(card, results, ("happy", "sad"))["sad"]
    rng = np.random.default_rng([0, 1])  # the seed, and the emotion's place
    rows = np.sort(rng.integers(0, count, (card.resamples, count)), axis=1)
    expected = [score([parts[i] for i in row]).value for row in rows]
    np.testing.assert_array_equal(found.draws, expected)
    assert found.value == score(parts).value
    assert len(set(expected)) > 5


def test_fads_draws_lie_around_its_value() -> None:
    """Clips drawn again are fewer different ones, whose pooled FAD lies too high."""
    generator = np.random.default_rng(0)
    parts = [frechet_part(*generator.normal(0, 1, (2, 12, 8)), normalise=False) for _ in range(9)]
    results = [MeasuredItem(str(i), "sad", p, 12, 0, 0, {}) for i, p in enumerate(parts)]
    score, found = score_groups(metric_card("fad"), results, ("sad",))["sad"]

    def pooled(some: list[Any]) -> float:
        return FrechetKind(kind="frechet").score(some).value

    without = [kept["without"] for kept in score.kept]
    assert found.value == pooled(parts)
    assert without == pytest.approx(
        [pooled(parts[:i] + parts[i + 1 :]) for i in range(9)], rel=1e-9
    )
    spread = float(np.std(found.draws))
    # Pseudo-values spread (n - 1) times as far as what is left, their mean of n by sqrt(n) less.
    left = np.array(without, float)
    assert spread == pytest.approx(8 * left.std() / 3, rel=0.1)
    assert float(found.draws.mean()) == pytest.approx(found.value, abs=4 * spread / 1000**0.5)
    again = [pooled([parts[i] for i in row]) for row in generator.integers(0, 9, (50, 9)).tolist()]
    assert np.mean(again) > found.value + spread
    ((_, lone),) = score_groups(metric_card("fad"), results[:1], ("sad",)).values()
    assert (lone.interval, set(lone.draws)) == ((None, None), {lone.value})


def test_parts_that_are_computed_again_give_the_same_fad_and_twice_is_enough() -> None:
    generator, card = np.random.default_rng(1), metric_card("fad")
    parts = [frechet_part(*generator.normal(0, 1, (2, 12, 8)), normalise=False) for _ in range(9)]
    used: Counter[int] = Counter()

    def again(number: int) -> tuple[Any, Any]:
        used[number] += 1
        return parts[number], None

    held = [MeasuredItem(str(i), "sad", p, 12, 0, 0, {}) for i, p in enumerate(parts)]
    dropped = [replace(one, held=None, again=partial(again, i)) for i, one in enumerate(held)]
    mixed = parts_of([*held[:2], *dropped[2:]], ("happy", "sad"))
    kind = kind_of(card)
    score, resampled = score_parts(card, mixed, ("happy", "sad"))["sad"]
    expected, draws = score_groups(card, held, ("happy", "sad"))["sad"]
    assert (score.value, score.kept) == (expected.value, expected.kept)
    np.testing.assert_array_equal(resampled.draws, draws.draws)
    assert kind.note([*mixed.values()], same_clips=False) == kind.note([parts], same_clips=False)
    assert used == dict.fromkeys(range(2, 9), 2)


# ---- claims --------------------------------------------------------------------------------


def test_every_claim_names_a_graded_control_and_every_metric_claims_something() -> None:
    known = graded_controls()
    assert {"blurred", "other-speaker", "emotion-faded"} <= known.keys()
    for name in names(Kind.METRIC):
        claims = metric_card(name).claims
        assert claims.measures or claims.ignores, name
        assert {*claims.measures, *claims.ignores} <= known.keys(), name
        assert "claims" not in metric_card(name).settings()
    felt = {c for name in names(Kind.METRIC) for c in metric_card(name).claims.measures}
    assert felt == known.keys(), "each control is felt by some metric, or it teaches nothing"


def test_a_claim_cannot_contradict_itself() -> None:
    with pytest.raises(ValueError, match="'blurred' cannot be measured and ignored"):
        Claims(measures=("blurred",), ignores=("other-speaker", "blurred"))


# ---- the command ---------------------------------------------------------------------------


def cells_of(folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    record = json.loads((folder / "results/mini/validate.mini.json").read_text())
    return {(c["metric"], c["control"]): c for c in record["cells"]}


def test_from_the_command_line_to_record_figure_and_table(
    spfem_bench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = ("--metrics", "fad,id-sim", "--controls", "shifted-audio,other-speaker,blurred")
    done = spfem_bench(*VALIDATE, *some, "-o", "drawn/validate.png")
    assert (tmp_path / "drawn/validate.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    cells = cells_of(tmp_path)
    # Controls stand in the order in which the metrics claim to feel them.
    assert list(dict.fromkeys(c for _, c in cells)) == ["blurred", "other-speaker", "shifted-audio"]

    blur = cells["fad", "blurred"]
    assert (blur["claim"], blur["verdict"]) == ("measures", "yes")
    assert blur["monotonicity"] == pytest.approx(1)
    assert [p["level"] for p in blur["points"]] == [0, 0.5, 1, 2, 4]
    values = [p["value"] for p in blur["points"]]
    assert values == sorted(values) and values[0] == pytest.approx(0, abs=1e-6)
    for point in blur["points"]:
        assert point["change"] == pytest.approx(point["value"] - values[0])
    assert (blur["n_items"], blur["n_same"], blur["n_refused"]) == (4, 0, 0)
    assert (cells["id-sim", "blurred"]["claim"], cells["id-sim", "blurred"]["verdict"]) == (
        "none",
        "",
    )
    # No face network hears the sound.
    for metric in ("fad", "id-sim"):
        cell = cells[metric, "shifted-audio"]
        assert (cell["claim"], cell["verdict"], cell["share"]) == ("ignores", "hardly", 0)
    assert cells["id-sim", "other-speaker"]["verdict"] == "yes"
    # Each emotion of 'mini' has two speakers: exchanged, they are the same frames to FAD.
    assert cells["fad", "other-speaker"]["points"][-1]["change"] == pytest.approx(0, abs=1e-5)
    assert cells["fad", "other-speaker"]["verdict"] == "no answer"
    assert done.code == 1
    assert "FAD with mobilefacenet does not measure other-speaker: " in done.out

    # Undamaged values carry the same signature as an ordinary evaluation's.
    assert spfem_bench("eval", "--method", "real", *VALIDATE[1:], "--metrics", "fad").code == 0
    run = json.loads((tmp_path / "results/mini/real.mini.json").read_text())
    assert {s["signature"] for s in run["scores"]} == {blur["signature"]}
    headline = next(s for s in run["scores"] if s["emotion"] == "avg")
    assert headline["value"] == values[0]
    # 'table' passes over the validation that lies beside the runs.
    assert spfem_bench("table", "results").code == 0
    alone = spfem_bench("table", "results/mini/validate.mini.json")
    assert alone.code == 1 and "no run record" in alone.err

    # A second run computes no network, and ends with the same record and figure.
    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr("spfem_bench.features.tracking.load_network", forbidden)
    monkeypatch.setattr("spfem_bench.features.tracking.load_detector", forbidden)
    first = (tmp_path / "drawn/validate.png").read_bytes()
    again = spfem_bench(*VALIDATE, *some, "-o", "drawn/validate.png")
    assert again == done
    assert cells_of(tmp_path) == cells
    assert (tmp_path / "drawn/validate.png").read_bytes() == first

    rows = list(csv.DictReader(io.StringIO(spfem_bench(*VALIDATE, *some, "--format", "csv").out)))
    assert len(rows) == 6 * 5
    assert {r["signature"] for r in rows if r["metric"] == "fad"} == {blur["signature"]}
    printed = json.loads(spfem_bench(*VALIDATE, *some, "--json").out)
    assert {(c["metric"], c["control"]) for c in printed} == cells.keys()
    markdown = spfem_bench(*VALIDATE, *some, "--format", "markdown").out
    assert "| Metric" in markdown and "✓ yes" in markdown


def test_the_networks_are_those_that_fit_the_protocol_unless_others_are_named(
    spfem_bench: Run, tmp_path: Path
) -> None:
    some = ("--protocol", "mini", "--metrics", "id-sim", "--controls", "other-speaker", "-q")
    assert spfem_bench("validate", *some).code == 0
    written = tmp_path / "results/mini/validate.light.json"  # the profile in the protocol's card
    cells = json.loads(written.read_text())["cells"]
    assert [(c["profile"], c["network"]) for c in cells] == [("light", "mobilefacenet")]
    assert spfem_bench("validate", *some, "--profile", "mini").code == 0
    assert cells_of(tmp_path)["id-sim", "other-speaker"]["profile"] == "mini"


def test_what_the_protocol_lacks_is_said(
    spfem_bench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = spfem_bench(*VALIDATE, "--controls", "emotion-faded")
    assert asked.code == 2
    assert (
        "no control 'emotion-faded' here: the protocol 'mini' has no clips in graded" in asked.err
    )
    monkeypatch.setenv("SPFEM_BENCH_DATA", str(tmp_path))  # nothing there: the preflight only
    done = spfem_bench(*VALIDATE, "--metrics", "csim")
    assert done.code == 2
    assert "left out: emotion-faded: the protocol 'mini' has no clips" in done.err
    assert done.err.count("M003_source_sad_033.mkv") == 1, "said once, not for every level"


def test_missing_weights_need_partial(
    spfem_bench: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = tmp_path / "weights"
    some.mkdir()
    for file in world.weights.iterdir():
        if file.name != "random.model":
            (some / file.name).symlink_to(file)
    monkeypatch.setenv("SPFEM_BENCH_WEIGHTS", str(some))
    arguments = (*VALIDATE, "--metrics", "fad,lse-d", "--controls", "blurred")
    done = spfem_bench(*arguments)
    assert done.code == 2 and "add --partial" in done.err
    assert "weights of 'syncnet-random' are missing" in done.err
    assert not (tmp_path / "results").exists()
    done = spfem_bench(*arguments, "--partial")
    assert done.code == 0
    assert {metric for metric, _ in cells_of(tmp_path)} == {"fad"}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--controls", "blured"), "unknown graded control 'blured'. Did you mean 'blurred'?"),
        (("--controls", "source"), "unknown graded control 'source'"),
        (("--metrics", "fadd"), "Did you mean 'fad'?"),
        (("--protocol", "mini", "--protocol", "mni"), "Did you mean 'mini'?"),
        (("--profile", "lihgt"), "Did you mean 'light'?"),
        (("-o", "drawn.gif"), "'drawn.gif' must end in .png, .pdf, .svg"),
        (("--format", "latex"), "'latex' is not one of"),
    ],
)
def test_wrong_options_end_with_2(
    spfem_bench: Run, arguments: tuple[str, ...], expected: str
) -> None:
    done = spfem_bench(*VALIDATE, *arguments)
    assert done.code == 2
    assert expected in " ".join(done.err.split())


def test_a_claim_on_no_control_is_found(
    spfem_bench: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = metric_card("fad").model_copy(update={"claims": Claims(measures=("blured",))})
    monkeypatch.setattr("spfem_bench.evaluation.plan.metric_card", lambda name: card)
    done = spfem_bench(*VALIDATE, "--metrics", "fad", "--controls", "blurred")
    assert done.code == 1
    assert "fad.toml: unknown graded control 'blured'. Did you mean 'blurred'?" in done.err


def test_no_method_may_be_named_like_a_validation(spfem_bench: Run, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    done = spfem_bench("eval", "--method", "validate", "--videos", "mine", *VALIDATE[1:])
    assert done.code == 1 and "Give yours another name" in done.err
