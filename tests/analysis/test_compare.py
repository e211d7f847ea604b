"""``spfem-bench compare``: from records to verdicts, and every record it must refuse."""

from __future__ import annotations

import copy
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats

from spfem_bench.analysis.comparing import Comparison, compare_runs, speaker_intervals
from spfem_bench.errors import CardError
from spfem_bench.evaluation.record import SCHEMA, item_values, parse_record
from spfem_bench.reporting.compare import render_comparison
from tests.conftest import Outcome
from tests.synthetic import score, whole

Record = dict[str, Any]
Clips = Sequence[tuple[str, str]]

STATISTICS = {
    "csim": {"kind": "similarity", "pooling": "mean"},
    "lse-d": {"kind": "sync", "report": "distance", "max_shift": 1, "min_windows": 1},
    "av-offset": {"kind": "sync", "report": "offset", "max_shift": 2, "min_windows": 1},
    "fad": {"kind": "frechet", "normalise": False},
    "scc": {"kind": "coherence", "space": "spatial", "stages": [1, 2], "max_lag": 6},
}

TWELVE: Clips = [(e, f"S{s}") for e in ("sad", "happy") for s in range(6)]


def part(metric: str, value: float) -> dict[str, Any]:
    """Return what a record keeps of a clip with the given value."""
    if metric == "csim":
        return {"n_frames": 2, "total": 2 * value, "count": 2}
    if metric == "lse-d":
        return {"totals": [40 * value, 20 * value, 40 * value], "windows": 20, "windows_refused": 0}
    if metric == "av-offset":  # of shifts -2 to 2; the earliest stands for +2
        totals = [9.0] * 5
        totals[2 - int(value)] = 1.0
        return {"totals": totals, "windows": 1, "windows_refused": 0}
    if metric == "fad":
        return {"without": value}
    return {
        "positive": [value - 0.1, value + 0.1],
        "elsewhere": [0.0, 0.0],
        "near": [None, None],
        "n_frames": 9,
        "lag": 0,
    }


def run(
    method: str, values: Mapping[str, Sequence[float]], clips: Clips = TWELVE, **fads: float
) -> Record:
    """Return a record whose clips have the given values; FAD's are those without each clip."""
    emotions = list(dict.fromkeys(e for e, _ in clips))
    items = [
        {
            "id": f"{speaker}_{emotion}_{i:03d}",
            "speaker": speaker,
            "emotion": emotion,
            "clips": {"output": {"address": f"{i}.mp4", "content": f"{method}{i}"}},
            "metrics": {m: part(m, v[i]) for m, v in values.items() if not math.isnan(v[i])},
        }
        for i, (emotion, speaker) in enumerate(clips)
    ]
    scores = []
    for metric, v in values.items():
        means = {}
        for emotion in emotions:
            own = [x for x, (e, _) in zip(v, clips, strict=True) if e == emotion]
            own = [x for x in own if not math.isnan(x)]
            if own:
                means[emotion] = fads.get(emotion, float(np.mean(own)))
        missing = int(np.isnan(v).sum())
        for emotion in (*emotions, "avg"):
            value = means.get(emotion) if emotion != "avg" else float(np.mean(list(means.values())))
            mean = None if emotion == "avg" and missing else value
            counts = {"n_items": len(clips) - missing, "n_refused": missing, "n_frames": 9}
            sign = f"{metric}:1|mini:1|light|#0"
            scores.append(
                score(metric, emotion, mean, partial=bool(missing), signature=sign, **counts)
            )
    settings = {
        m: {
            "metric": {"name": m, "version": 1, "statistic": STATISTICS[m]},
            "protocol": {"name": "mini", "dataset": "puppets"},
            "network": {"name": "net", "files": [{"sha256": "a" * 64}]},
            "faces": {"faces": "aligned"},
            "media": {"frame_rate": 25, "ffmpeg": "7.1"},
            "software": {},
        }
        for m in values
    }
    listed = {"emotions": emotions, "n_items": len(clips)}
    return whole(method, scores, listed, kind="method", items=items, settings=settings)


def compare(records: Sequence[Record], **options: Any) -> Comparison:
    return compare_runs([parse_record(record) for record in records], **options)


RANDOM = np.random.default_rng(1).normal(0.7, 0.05, size=12)
BETTER = RANDOM + 0.1 + np.random.default_rng(2).normal(0, 0.01, size=12)


# ---- what is compared -----------------------------------------------------------------------


def test_a_difference_is_the_t_test_of_speakers() -> None:
    done = compare([run("a", {"csim": RANDOM}), run("b", {"csim": BETTER})])
    (row,) = done.rows
    speakers = (BETTER - RANDOM).reshape(2, 6).mean(axis=0)
    reference = scipy.stats.ttest_1samp(speakers, 0)
    assert row.difference == pytest.approx(speakers.mean(), rel=1e-12)
    assert row.effect == pytest.approx(speakers.mean() / speakers.std(ddof=1), rel=1e-9)
    ends = reference.confidence_interval()
    assert (row.low, row.high) == pytest.approx((ends.low, ends.high), rel=0.05)
    assert (row.clips, row.clusters, row.drawn) == (12, 6, "speakers")
    assert row.p == pytest.approx(2 / 10_001, abs=1e-3) and row.verdict == "b better"


@pytest.mark.parametrize(("metric", "better"), [("csim", "b"), ("scc", "b"), ("lse-d", "a")])
def test_which_is_better_depends_on_the_direction(metric: str, better: str) -> None:
    done = compare([run("a", {metric: RANDOM}), run("b", {metric: BETTER})])
    assert done.rows[0].verdict == f"{better} better"
    assert done.rows[0].a_value == pytest.approx(RANDOM.mean(), rel=1e-9)


def test_offsets_are_compared_by_their_distance_from_zero() -> None:
    a = [-1, -1, -2, -1, -1, -2, -1, -1, -2, -1, -1, -2]
    b = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    done = compare([run("a", {"av-offset": a}), run("b", {"av-offset": b})])
    (row,) = done.rows
    assert (row.a_value, row.b_value) == pytest.approx((-4 / 3, 1 / 12))
    assert row.difference == pytest.approx(1 / 12 - 4 / 3)
    assert row.verdict == "b better"
    assert any("the difference is that of the distances from 0" in note for note in done.notes)


def test_fad_is_compared_by_what_each_clip_does_to_it() -> None:
    without = np.random.default_rng(3).normal(5, 0.02, size=12)
    first = run("a", {"fad": without}, sad=5.0, happy=6.0)
    second = run("b", {"fad": without[::-1]}, sad=4.0, happy=5.0)
    (row,) = compare([first, second]).rows
    assert (row.a_value, row.b_value) == pytest.approx((5.5, 4.5))
    values = {i.item: i.value for i in item_values(parse_record(first), "fad")}
    assert values["S0_sad_000"] == pytest.approx(5.0 + 5 * (without[:6].mean() - without[0]))
    assert row.verdict == "b better"


def test_the_same_outputs_under_two_names_have_no_difference() -> None:
    (row,) = compare([run("a", {"csim": RANDOM}), run("b", {"csim": RANDOM})]).rows
    assert (row.difference, row.low, row.high, row.p, row.needed) == (0, 0, 0, 1, None)
    assert row.verdict == "no difference"


def test_too_few_clips_say_how_many_it_would_take() -> None:
    noisy = RANDOM + np.random.default_rng(4).normal(0.02, 0.1, size=12)
    done = compare([run("a", {"csim": RANDOM}), run("b", {"csim": noisy})])
    (row,) = done.rows
    assert row.p is not None and row.p > 0.05
    assert row.needed is not None and row.needed > 12 and row.needed % 2 == 0  # two clips each
    assert row.verdict == f"cannot tell: about {row.needed} clips would be needed"


def test_all_that_is_shown_is_corrected_for() -> None:
    records = [run("a", {"csim": RANDOM, "lse-d": RANDOM})]
    for k in range(3):
        other = RANDOM + np.random.default_rng(10 + k).normal(0.012 * k, 0.02, size=12)
        records.append(run(f"b{k}", {"csim": other, "lse-d": other}))
    done = compare(records, by_emotion=True)
    assert done.others == ("b0", "b1", "b2")
    assert len(done.rows) == 3 * 2 * 3
    assert [r.p_holm for r in done.rows] == pytest.approx(holm_by_steps([r.p for r in done.rows]))
    assert "18 comparisons" in " ".join(done.notes)
    alone = compare(records, by_emotion=False)
    assert [r.p for r in alone.rows] == [r.p for r in done.rows if r.emotion == "avg"]


def test_too_few_draws_for_so_many_comparisons_are_said() -> None:
    records = [
        run("a", {"csim": RANDOM, "lse-d": RANDOM}),
        run("b", {"csim": BETTER, "lse-d": BETTER}),
    ]
    few = compare(records, resamples=39)  # p is 2 / 40 at least
    assert not any(row.told_apart for row in few.rows)
    (said,) = (note for note in few.notes if "so many" in note)
    assert "39 draws tell nothing apart: p is 0.05 at least. Take more (--resamples 100)" in said
    more = compare(records, resamples=1000)
    assert all(row.told_apart for row in more.rows)
    assert not any("so many" in note for note in more.notes)


def holm_by_steps(p: Sequence[float | None]) -> list[float]:
    """Return, for each, the level at which Holm's stepping down would reject it."""
    values = [x for x in p if x is not None]
    ordered = sorted(values)
    steps = [min(1.0, (len(values) - i) * x) for i, x in enumerate(ordered)]
    return [max(steps[: ordered.index(x) + 1]) for x in values]


def test_the_baseline_may_be_named() -> None:
    records = [run("a", {"csim": RANDOM}), run("b", {"csim": BETTER})]
    done = compare(records, baseline="b")
    assert (done.baseline, done.others) == ("b", ("a",))
    assert done.rows[0].difference < 0 and done.rows[0].verdict == "b better"
    with pytest.raises(CardError, match=r"no run of 'aa' among those given.*Did you mean 'a'"):
        compare(records, baseline="aa")


def test_two_runs_of_one_method_are_told_apart() -> None:
    done = compare([run("a", {"csim": RANDOM}), run("a", {"csim": BETTER})])
    assert (done.baseline, done.others) == ("a", ("a (2)",))
    assert done.rows[0].verdict == "a (2) better"


def as_control(of: Record) -> Record:
    return {**of, "method": {**of["method"], "kind": "control"}}


def test_controls_count_in_the_correction_only_when_asked() -> None:
    records = [run("a", {"csim": RANDOM})]
    for k, name in enumerate(("b", "c", "x", "y", "z")):
        other = RANDOM + np.random.default_rng(20 + k).normal(0.02, 0.02, size=12)
        made = run(name, {"csim": other})
        records.append(as_control(made) if name in "xyz" else made)
    rows = {row.b: row for row in compare(records).rows}
    for family in ("bc", "xyz"):
        assert [rows[b].p_holm for b in family] == pytest.approx(
            holm_by_steps([rows[b].p for b in family])
        )
    notes = " ".join(compare(records).notes)
    assert "corrected for 2 comparisons, controls apart for 3 (--count-controls" in notes
    together = compare(records, count_controls=True)
    assert [r.p_holm for r in together.rows] == pytest.approx(
        holm_by_steps([r.p for r in together.rows])
    )
    assert "corrected for 5 comparisons (Holm)" in " ".join(together.notes)


def test_what_the_correction_alone_leaves_open_says_how_many_clips() -> None:
    records = [run("a", {"csim": RANDOM})]
    for k in range(12):
        other = RANDOM + np.random.default_rng(40 + k).normal(0.015, 0.02, size=12)
        records.append(run(f"b{k}", {"csim": other}))
    rows = [r for r in compare(records).rows if "(alone: p =" in r.verdict]
    assert rows
    for row in rows:
        assert row.needed is not None
        number = int(row.verdict.partition("about ")[2].split()[0])
        assert row.verdict.endswith("clips would be needed") and number > row.needed


def test_an_emotion_of_one_speaker_gets_an_interval_over_clips_marked() -> None:
    clips = [*TWELVE, ("fear", "S0"), ("fear", "S0"), ("fear", "S0")]
    a, b = [*RANDOM, 0.5, 0.4, 0.6], [*BETTER, 0.9, 0.7, 0.95]
    done = compare([run("a", {"csim": a}, clips), run("b", {"csim": b}, clips)])
    (row,) = done.rows
    assert row.low is not None and row.high is not None and row.low < row.difference < row.high
    assert (row.drawn, row.clusters, row.p, row.p_holm) == ("clips", 15, None, None)
    assert row.verdict == ("cannot tell: fear stands on clips of one speaker; interval over clips")
    # Clips as clusters: the standard error is that of means of independent clips.
    differences = np.array(b) - np.array(a)
    groups = [differences[:6], differences[6:12], differences[12:]]
    error = np.sqrt(sum(g.var(ddof=1) / len(g) for g in groups)) / 3
    assert (row.high - row.low) / 2 == pytest.approx(2.2 * error, rel=0.12)
    text = render_comparison(done, "text")
    assert "] (clips)" in text and "Remedy: evaluate clips of two speakers" in text


# ---- what cannot be told --------------------------------------------------------------------


def one_more(subject: str) -> str:
    return f"cannot tell: {subject} on one clip; 1 more at least (in fear) would be needed"


def test_an_emotion_of_one_clip_hides_nothing() -> None:
    clips = [*TWELVE, ("fear", "S0")]
    a, b = [*RANDOM, 0.5], [*BETTER, 0.9]
    done = compare([run("a", {"csim": a}, clips), run("b", {"csim": b}, clips)], by_emotion=True)
    rows = {row.emotion: row for row in done.rows}
    assert rows["fear"].verdict == one_more("it stands")
    assert rows["avg"].verdict == one_more("fear stands")
    assert rows["avg"].p is None and rows["avg"].low is None
    assert rows["avg"].difference == pytest.approx(
        np.mean([0.4, (BETTER - RANDOM)[:6].mean(), (BETTER - RANDOM)[6:].mean()])
    )
    assert rows["sad"].verdict == "b better"
    assert "2 comparisons" in " ".join(done.notes)  # those that were tested


def test_clips_of_a_single_speaker_are_drawn_one_by_one() -> None:
    clips = [(e, "S0") for e, _ in TWELVE]
    done = compare([run("a", {"csim": RANDOM}, clips), run("b", {"csim": BETTER}, clips)])
    assert (done.rows[0].drawn, done.rows[0].clusters) == ("clips", 12)
    assert "or of clips where all are of one" in done.notes[0]


def test_few_speakers_are_said() -> None:
    clips = [(e, f"S{i % 3}") for i, (e, _) in enumerate(TWELVE)]
    done = compare([run("a", {"csim": RANDOM}, clips), run("b", {"csim": BETTER}, clips)])
    assert any(note.startswith("As few as 3") for note in done.notes)


def test_a_metric_of_one_run_alone_is_said() -> None:
    done = compare([run("a", {"csim": RANDOM, "scc": RANDOM}), run("b", {"csim": BETTER})])
    assert {row.metric for row in done.rows} == {"csim"}
    assert "No SCC: only 'a' has it" in done.notes
    with pytest.raises(CardError, match="no scc in the run of 'b'"):
        compare(
            [run("a", {"csim": RANDOM, "scc": RANDOM}), run("b", {"csim": BETTER})],
            metrics=["scc"],
        )


def test_fad_of_an_earlier_version_is_left_out_and_said() -> None:
    records = [run(m, {"csim": v, "fad": v}) for m, v in (("a", RANDOM), ("b", BETTER))]
    for item in records[1]["items"]:
        del item["metrics"]["fad"]["without"]
    done = compare(records)
    assert {row.metric for row in done.rows} == {"csim"}
    assert any("'b' is of an earlier version" in note for note in done.notes)
    with pytest.raises(CardError, match=r"'b' is of an earlier version.*Run the evaluation again"):
        compare(records, metrics=["fad"])


def missing(values: np.ndarray, *at: int) -> np.ndarray:
    left = values.copy()
    left[list(at)] = math.nan
    return left


def test_runs_on_different_clips_are_compared_only_when_asked() -> None:
    records = [
        run("a", {"csim": RANDOM, "fad": RANDOM}),
        run("b", {"csim": missing(BETTER, 0, 3), "fad": missing(BETTER, 0, 3)}),
    ]
    with pytest.raises(CardError) as refused:
        compare(records)
    assert str(refused.value) == (
        "CSIM stands on different clips: only 'a' has S0_sad_000, S3_sad_003. "
        "Complete them, or compare on the 10 clips of both: --common"
    )
    done = compare(records, common=True, by_emotion=True)
    rows = {(row.metric, row.emotion): row for row in done.rows}
    kept = [1, 2, 4, 5]
    assert rows["csim", "sad"].a_value == pytest.approx(RANDOM[kept].mean())
    assert rows["csim", "sad"].clips == 4 and rows["csim", "avg"].clips == 10
    # FAD pools frames: only emotions whose clips are the same can be compared.
    assert {e for m, e in rows if m == "fad"} == {"happy"}
    assert "CSIM of a and b: on the 10 clips of both" in done.notes
    assert any(n.startswith("No FAD of a and b in sad: it pools") for n in done.notes)


def test_clips_that_both_lack_leave_no_mean_unless_asked() -> None:
    records = [
        run("a", {"csim": missing(RANDOM, 0)}),
        run("b", {"csim": missing(BETTER, 0)}),
    ]
    done = compare(records, by_emotion=True)
    assert {row.emotion for row in done.rows} == {"sad", "happy"}
    assert any("clips are missing (--common" in note for note in done.notes)
    assert "avg" in {row.emotion for row in compare(records, common=True).rows}


# ---- what is refused ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda r: r["settings"]["csim"]["network"].update(name="other"),
            "network.name net against other",
        ),
        (
            lambda r: r["settings"]["csim"]["network"]["files"][0].update(sha256="b" * 64),
            "network.files.0.sha256 aaaaaaaa against bbbbbbbb",
        ),
        (
            lambda r: r["settings"]["csim"]["media"].pop("frame_rate"),
            "media.frame_rate 25 against absent",
        ),
        (lambda r: r.update(profile="compact"), "profile light against compact"),
    ],
)
def test_runs_made_in_different_ways_are_refused_by_field(
    change: Callable[[Record], None], said: str
) -> None:
    other = run("b", {"csim": BETTER})
    change(other)
    with pytest.raises(CardError) as refused:
        compare([run("a", {"csim": RANDOM}), other])
    assert str(refused.value) == (
        f"'a' and 'b' were not made alike: {said}. Evaluate 'b' again as 'a' was: "
        "spfem-bench eval --method b --protocol mini --profile light"
    )


def test_what_was_made_alike_is_offered() -> None:
    other = run("b", {"csim": BETTER, "lse-d": BETTER})
    other["settings"]["lse-d"]["media"]["frame_rate"] = 30
    records = [run("a", {"csim": RANDOM, "lse-d": RANDOM}), other]
    with pytest.raises(
        CardError,
        match=r"media.frame_rate 25 against 30 \(lse-d\).*"
        r"--metrics csim$",
    ):
        compare(records)
    assert {row.metric for row in compare(records, metrics=["csim"]).rows} == {"csim"}


def with_software(of: Record, **versions: Mapping[str, str]) -> Record:
    """Return a run whose settings name the libraries that each metric uses."""
    for metric, used in versions.items():
        of["settings"][metric]["software"] = dict(used)
    return of


def test_a_version_that_a_metric_does_not_use_hinders_no_comparison() -> None:
    here, there = (
        with_software(
            run(name, {"csim": values, "scc": values}),
            csim={"numpy": "2"},
            scc={"numpy": "2", "torch": torch},
        )
        for name, values, torch in (("a", RANDOM, "2.9"), ("b", BETTER, "2.13"))
    )
    assert compare([here, there], metrics=["csim"]).rows
    with pytest.raises(
        CardError,
        match=r"software.torch 2.9 against 2.13 \(scc\).*"
        r"--metrics csim; or .*: --allow-versions$",
    ):
        compare([here, there])


def test_other_versions_are_compared_when_asked_and_marked() -> None:
    here = with_software(run("a", {"csim": RANDOM}), csim={"cv2": "5.0.0"})
    there = with_software(run("b", {"csim": BETTER}), csim={"cv2": "5.1.0"})
    there["settings"]["csim"]["media"]["ffmpeg"] = "8.0"
    found = compare([here, there], allow_versions=True)
    note = (
        "Not made alike: versions of 'a' and 'b' differ: media.ffmpeg 7.1 against 8.0; "
        "software.cv2 5.0.0 against 5.1.0."
    )
    assert found.rows and note in found.notes
    assert note in render_comparison(found, "text")
    there["settings"]["csim"]["media"]["frame_rate"] = 30  # no version
    for allowed in (False, True):
        with pytest.raises(CardError, match=r"media\.frame_rate 25 against 30") as refused:
            compare([here, there], allow_versions=allowed)
        assert "--allow-versions" not in str(refused.value)


def test_records_that_list_every_library_are_compared_when_asked() -> None:
    """As earlier versions wrote them, from packages' metadata and under packages' names."""
    earlier = {"numpy": "2", "opencv-python": "5.0.0.93", "insightface": "2.1"}
    here = with_software(run("a", {"csim": RANDOM}), csim=earlier)
    there = with_software(run("b", {"csim": BETTER}), csim={"numpy": "2", "cv2": "5.1.0"})
    with pytest.raises(CardError, match="--allow-versions"):
        compare([here, there])
    (note, *_) = compare([here, there], allow_versions=True).notes
    assert "software.insightface 2.1 against absent" in note


def test_runs_on_different_protocols_are_refused() -> None:
    other = run("b", {"csim": BETTER})
    other["protocol"]["name"] = "demo-cross-id"
    with pytest.raises(CardError) as refused:
        compare([run("a", {"csim": RANDOM}), other])
    assert str(refused.value) == (
        "'a' was evaluated on mini, 'b' on demo-cross-id. Compare runs on one protocol: "
        "spfem-bench eval --method b --protocol mini"
    )
    own = run("a", {"csim": RANDOM})
    for record in (own, other):
        record["items"][0]["clips"]["output"]["address"] = "generated/0.mp4"
    with pytest.raises(CardError, match="--generated a=DIR --generated b=DIR --source DIR"):
        compare([own, other])


def damaged(change: Callable[[Record], None]) -> list[Record]:
    other = run("b", {"csim": BETTER, "lse-d": BETTER})
    change(other)
    return [run("a", {"csim": RANDOM, "lse-d": RANDOM}), other]


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([run("a", {"csim": RANDOM})], "one run has nothing to be compared with"),
        ([], "no runs to compare"),
        ([run("a", {"csim": RANDOM})] * 2, "the run of 'a' is given twice"),
        (
            damaged(lambda r: [s.update(value=None, note="no clip") for s in r["scores"]]),
            "the run of 'b' is empty: no clip",
        ),
        (damaged(lambda r: r.update(scores=[])), "the run of 'b' is empty"),
        (
            damaged(lambda r: r["items"][0]["metrics"]["csim"].pop("total")),
            "the run of 'b' is damaged: csim of 'sad': no 'total'",
        ),
        (
            damaged(lambda r: r["items"][0]["metrics"]["csim"].update(count=0)),
            "the run of 'b' is damaged: csim of 'sad' is ",
        ),
        (
            damaged(lambda r: r["items"][0]["metrics"]["csim"].update(total=math.nan)),
            "the run of 'b' is damaged: csim of 'sad' is .*, and nan by its clips",
        ),
        (
            damaged(lambda r: r["items"][0]["metrics"]["csim"].update(total=9.0)),
            "the run of 'b' is damaged: csim of 'sad' is .*, and .* by its clips",
        ),
        (
            damaged(lambda r: r["items"][0]["metrics"]["lse-d"].update(totals="x")),
            "the run of 'b' is damaged: lse-d of 'sad': could not convert",
        ),
        (damaged(lambda r: r.pop("items")), "a run record is damaged: 'items': Field required"),
        (damaged(lambda r: r["settings"].pop("csim")), "'b' is damaged: no settings of csim"),
        (damaged(lambda r: r.pop("method")), "a run record is damaged: 'method': Field required"),
    ],
)
def test_what_cannot_be_compared_is_one_line(records: list[Record], said: str) -> None:
    with pytest.raises(CardError, match=f"{said}.*\\. \\w") as refused:
        compare(copy.deepcopy(records))
    assert "\n" not in str(refused.value)


# ---- the views ------------------------------------------------------------------------------


def test_the_views_are_pure_functions_of_the_records() -> None:
    records = [run("a", {"csim": RANDOM, "fad": RANDOM}), run("b", {"csim": BETTER, "fad": BETTER})]
    before = copy.deepcopy(records)
    for style in ("text", "markdown", "csv"):
        one = render_comparison(compare(records), style)  # type: ignore[arg-type]
        again = render_comparison(compare(json.loads(json.dumps(records))), style)  # type: ignore[arg-type]
        assert one == again
    assert records == before


def test_hostile_names_stay_in_their_lines() -> None:
    name = "b|`c`*\n\x1b[31m<b>"
    done = compare([run("a", {"csim": RANDOM}), run(name, {"csim": BETTER})])
    assert name in done.rows[0].verdict
    for style in ("text", "markdown"):
        text = render_comparison(done, style)  # type: ignore[arg-type]
        assert "\x1b" not in text and "\n\x1b" not in text and "\n<b>" not in text
    lines = text.splitlines()
    assert lines[0] == r"### A: a, B: b\|\`c\`\*  [31m\<b\>"
    assert len({line.replace("\\|", "").count("|") for line in lines if line.startswith("|")}) == 1


def test_the_csv_can_be_read_back() -> None:
    done = compare([run("a", {"csim": RANDOM}), run("b", {"csim": BETTER})], by_emotion=True)
    frame = pd.read_csv(io.StringIO(render_comparison(done, "csv")))
    assert list(frame["emotion"]) == ["happy", "sad", "avg"]
    assert frame["difference"].to_numpy() == pytest.approx([r.difference for r in done.rows])
    assert set(frame["a_signature"]) == {"csim:1|mini:1|light|#0"} == set(frame["b_signature"])


def test_a_scores_interval_over_speakers() -> None:
    record = run("a", {"csim": RANDOM})
    found = speaker_intervals(parse_record(record))
    speakers = RANDOM.reshape(2, 6).mean(axis=0)
    ends = scipy.stats.ttest_1samp(speakers, 0).confidence_interval()
    assert found["csim", "avg"] == pytest.approx((ends.low, ends.high), rel=0.01)
    assert set(found) == {("csim", "sad"), ("csim", "happy"), ("csim", "avg")}


# ---- the command ----------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, values in (("a", RANDOM), ("b", BETTER)):
        (tmp_path / f"{name}.json").write_text(json.dumps(run(name, {"csim": values})))
    return tmp_path


def test_the_command_prints_what_was_found(files: Path, bench: Callable[..., Outcome]) -> None:
    done = bench("compare", files / "b.json", files / "a.json", "--baseline", "a")
    assert done.code == 0, done.err
    assert done.out.startswith("A: a, B: b\n")
    assert "b better" in done.out and "csim:1|mini:1|light|#0" in done.out
    folder = bench("compare", files)
    assert folder.out == done.out


def test_the_command_compares_other_versions_when_asked(
    files: Path, bench: Callable[..., Outcome]
) -> None:
    other = json.loads((files / "b.json").read_text())
    other["settings"]["csim"]["media"]["ffmpeg"] = "8.0"
    (files / "b.json").write_text(json.dumps(other))
    refused = bench("compare", files)
    assert refused.code == 1 and "--allow-versions" in refused.err
    done = bench("compare", files, "--allow-versions")
    assert done.code == 0 and "media.ffmpeg 7.1 against 8.0" in done.out


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps({"schema": SCHEMA + 1}), "has schema 2; this version reads 1. Upgrade"),
        (
            json.dumps(run("b", {"csim": RANDOM})).replace('"low": null', '"low": NaN'),
            "is damaged: it holds NaN. Give files that 'spfem-bench eval' wrote, or run",
        ),
        ("{", "is not a run record"),
        ("[]", "is not a run record"),
    ],
)
def test_files_that_are_no_records_are_one_line(
    content: str, said: str, files: Path, bench: Callable[..., Outcome]
) -> None:
    (files / "b.json").write_text(content)
    done = bench("compare", files / "a.json", files / "b.json")
    assert done.code == 1
    assert said in done.err and "b.json" in done.err and done.err.count("\n") == 1


def test_a_folder_without_records_is_said(files: Path, bench: Callable[..., Outcome]) -> None:
    (files / "empty").mkdir()
    done = bench("compare", files / "a.json", files / "empty")
    assert done.code == 1 and "no run record in" in done.err


def test_real_runs_are_compared_from_their_records_alone(
    spfem_bench: Callable[..., Outcome], tmp_path: Path
) -> None:
    asked = ("--protocol", "mini", "--profile", "mini", "-q", "--metrics", "fad,csim")
    done = spfem_bench("eval", "--method", "ned", "--method", "stccl-ned", *asked)
    assert done.code == 0, done.err
    folder = tmp_path / "results" / "mini"
    compared = spfem_bench("compare", folder, "--by-emotion", "--format", "csv")
    assert compared.code == 0, compared.err
    frame = pd.read_csv(io.StringIO(compared.out))
    assert set(frame["metric"]) == {"fad", "csim"}
    scores = {
        (s["metric"], s["emotion"]): s["value"]
        for s in json.loads((folder / "ned.mini.json").read_text())["scores"]
    }
    for row in frame.to_dict("records"):
        assert row["a"] == "ned" and row["clips"] == (4 if row["emotion"] == "avg" else 2)
        assert row["a_value"] == pytest.approx(scores[row["metric"], row["emotion"]], rel=1e-9)
        assert row["low"] <= row["difference"] <= row["high"]
