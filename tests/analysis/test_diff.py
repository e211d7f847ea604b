"""``spfem-bench diff``: two records of one method, what differs, and one verdict."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spfem_bench.analysis.record_diff import diff_records
from spfem_bench.definitions.measured import measured_card
from spfem_bench.evaluation.record import parse_record
from tests import synthetic
from tests.conftest import Outcome

Record = dict[str, Any]
Bench = Callable[..., Outcome]
Change = Callable[[Record], None]


def record() -> Record:
    """Return a run of the demo's 'source' through the shipped networks."""
    return synthetic.record("source", kind="control", metrics=("fad", "csim", "lse-d", "scc"))


def score(of: Record, metric: str, emotion: str = "sad") -> dict[str, Any]:
    (found,) = (s for s in of["scores"] if (s["metric"], s["emotion"]) == (metric, emotion))
    assert isinstance(found, dict)
    return found


@pytest.fixture
def diff(bench: Bench, tmp_path: Path) -> Callable[..., Outcome]:
    """Compare a record with itself after a change, by the command."""

    def run(change: Change = lambda r: None, *arguments: str) -> Outcome:
        a, b = record(), copy.deepcopy(record())
        change(b)
        for name, content in (("a", a), ("b", b)):
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return bench("diff", tmp_path / "a.json", tmp_path / "b.json", *arguments)

    return run


def moved(metric: str, by: float) -> Change:
    def change(r: Record) -> None:
        score(r, metric)["value"] += by

    return change


def software(**versions: str) -> Change:
    def change(r: Record) -> None:
        for settings in r["settings"].values():
            settings["software"] |= versions

    return change


def verdict(done: Outcome) -> str:
    return done.out.splitlines()[-1]


def test_a_record_and_its_copy_are_within_tolerance(diff: Callable[..., Outcome]) -> None:
    done = diff()
    assert (done.code, done.err) == (0, "")
    assert verdict(done) == "Within tolerance: all 32 numbers of source on demo-inter-id."


def test_the_reference_cards_tolerances_decide(diff: Callable[..., Outcome]) -> None:
    allowed = measured_card("demo").tolerance["csim"].absolute
    assert diff(moved("csim", 0.9 * allowed)).code == 0
    done = diff(moved("csim", 2 * allowed))
    assert done.code == 1
    assert verdict(done) == "Differs: 1 of 32 numbers of source on demo-inter-id."
    row = done.out.splitlines()[2]
    assert row.startswith("demo-inter-id/source/csim/sad ") and row.endswith(" moved")
    assert "tolerance (reference card 'demo'): fad 0.0004, csim 6e-06" in done.out


def test_other_metrics_and_profiles_may_differ_by_what_tables_do_not_print(
    diff: Callable[..., Outcome],
) -> None:
    assert diff(moved("scc", 0.0004)).code == 0
    assert diff(moved("scc", 0.0006)).code == 1
    assert "tolerance (half of the last decimal that tables print): scc 0.0005" in diff().out
    a, b = record(), record()
    a["profile"] = b["profile"] = "light"  # no reference numbers: the demo has no faces to find
    moved("csim", 0.0004)(b)
    assert diff_records(parse_record(a), parse_record(b)).holds


def test_a_tolerance_of_ones_own(diff: Callable[..., Outcome]) -> None:
    change = moved("csim", 0.05)
    assert diff(change).code == 1
    assert diff(change, "--tolerance", "0.1").code == 0
    assert diff(change, "--tolerance", "csim=0.1").code == 0
    assert diff(change, "--tolerance", "fad=0.1").code == 1
    assert diff(change, "--tolerance", "0.1", "--tolerance", "csim=0.01").code == 1


def test_versions_alone_are_named_and_within_tolerance(diff: Callable[..., Outcome]) -> None:
    def change(r: Record) -> None:
        software(torch="2.13")(r)
        r["environment"]["python"] = "3.12.1"
        for settings in r["settings"].values():
            settings["media"]["ffmpeg"] = "8.0"

    done = diff(change)
    assert done.code == 0
    (line,) = (li for li in done.out.splitlines() if li.startswith("versions and machine"))
    for part in ("torch 2.9 -> 2.13", "python 3.11.7 -> 3.12.1", "ffmpeg 7.1 -> 8.0"):
        assert part in line
    assert "settings that differ" not in done.out


def test_a_library_that_one_metric_alone_uses_is_named(diff: Callable[..., Outcome]) -> None:
    def change(r: Record) -> None:
        r["settings"]["lse-d"]["software"]["scipy"] = "1.17"

    assert "software: scipy absent -> 1.17" in diff(change).out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda r: r["settings"]["fad"]["metric"].update(version=3),
            "settings that differ: metric fad: version 2 -> 3",
        ),
        (
            lambda r: [s["network"].update(name="other") for s in r["settings"].values()],
            "network compact-identity is gone; network other is new",
        ),
        (
            lambda r: r["settings"]["fad"].update(data="ab" * 32),
            "settings that differ: data of fad is new",
        ),
    ],
)
def test_another_setting_is_a_difference_though_no_number_moved(
    change: Change, said: str, diff: Callable[..., Outcome]
) -> None:
    done = diff(change)
    assert done.code == 1
    assert said in done.out and verdict(done).startswith("Differs: ")


def test_other_clips_are_named(diff: Callable[..., Outcome]) -> None:
    def change(r: Record) -> None:
        for item in r["items"][:8]:
            item["clips"]["output"]["content"] = "f" * 64

    first = record()["items"][0]["id"]
    done = diff(change)
    assert done.code == 0, "the numbers decide"
    assert f"clips with other bytes: {first} output, " in done.out and " and 2 more" in done.out


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: score(r, "fad").update(n_frames=7), "other counts n_frames 100 -> 7"),
        (lambda r: r["scores"].remove(score(r, "fad")), "only in A"),
        (lambda r: score(r, "fad").update(value=None), "moved"),
    ],
)
def test_numbers_that_are_not_comparable_differ(
    change: Change, words: str, diff: Callable[..., Outcome]
) -> None:
    done = diff(change)
    assert done.code == 1
    assert done.out.splitlines()[2].endswith(words)


def test_a_signature_that_changed_without_a_setting_is_named(diff: Callable[..., Outcome]) -> None:
    def change(r: Record) -> None:
        r["environment"]["processors"] = 64  # no part of any signature
        for s in r["scores"]:
            s["signature"] += "x"

    done = diff(change)
    assert done.code == 1 and "settings that differ: signature" in done.out


def test_everything_is_in_the_json(diff: Callable[..., Outcome]) -> None:
    done = diff(moved("csim", 0.05), "--json")
    assert done.code == 1
    found = json.loads(done.out)
    (row,) = (r for r in found["rows"] if r["verdict"] != "within")
    assert (row["metric"], row["emotion"]) == ("csim", "sad")
    assert row["difference"] == pytest.approx(0.05)
    assert found["holds"] is False and len(found["rows"]) == 32
    assert found["tolerances"]["fad"]["absolute"] == 4e-4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda r: r["method"].update(name="real"),
            "the records are of two methods, 'source' and 'real'",
        ),
        (
            lambda r: r["protocol"].update(name="demo-cross-id"),
            "the records are of two protocols, 'demo-inter-id' and 'demo-cross-id'",
        ),
        (
            lambda r: r["settings"]["fad"].pop("protocol"),
            "is damaged: 'settings.fad.protocol': Field required",
        ),
        (lambda r: r.update(schema=9), "has schema 9"),
        (lambda r: r.update(scores=3), "is damaged: 'scores'"),
    ],
)
def test_records_that_cannot_be_laid_side_by_side_are_one_line(
    change: Change, said: str, diff: Callable[..., Outcome]
) -> None:
    done = diff(change)
    assert (done.code, done.out) == (2, "")
    assert said in done.err and done.err.count("\n") == 1


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"schema": 1, "kind": "validate"}'])
def test_files_that_are_no_records_are_one_line(
    content: str | None, diff: Callable[..., Outcome], bench: Bench, tmp_path: Path
) -> None:
    diff()
    (tmp_path / "b.json").unlink()
    if content is not None:
        (tmp_path / "b.json").write_text(content)
    done = bench("diff", tmp_path / "a.json", tmp_path / "b.json")
    assert (done.code, done.out) == (2, "")
    assert "b.json" in done.err and "'spfem-bench eval' wrote" in done.err
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "much", "fad=", "="])
def test_wrong_tolerances_are_refused(text: str, diff: Callable[..., Outcome]) -> None:
    done = diff(lambda r: None, "--tolerance", text)
    assert done.code == 2 and "write a number above 0, or METRIC=NUMBER" in done.err


def test_a_tolerance_for_no_metric_of_the_records_is_refused(diff: Callable[..., Outcome]) -> None:
    done = diff(lambda r: None, "--tolerance", "csmi=0.1")
    assert done.code == 2 and "csim" in done.err and done.err.count("\n") == 1


def test_records_without_a_number_do_not_agree(diff: Callable[..., Outcome]) -> None:
    done = diff(lambda r: None)
    assert done.code == 0
    a = record()
    a["scores"] = []
    assert not diff_records(parse_record(a), parse_record(a)).holds


def test_two_real_runs_of_one_method_agree(
    spfem_bench: Callable[..., Outcome], tmp_path: Path
) -> None:
    asked = ("--protocol", "mini", "--profile", "mini", "--metrics", "fad,csim", "-q")
    for method, results in (("ned", "here"), ("ned", "there"), ("source", "there")):
        done = spfem_bench("eval", "--method", method, *asked, "--results", results)
        assert done.code == 0, done.err
    here, there = (tmp_path / name / "mini" for name in ("here", "there"))
    done = spfem_bench("diff", here / "ned.mini.json", there / "ned.mini.json")
    assert done.code == 0, done.err
    assert verdict(done) == "Within tolerance: all 6 numbers of ned on mini."
    other = spfem_bench("diff", here / "ned.mini.json", there / "source.mini.json")
    assert other.code == 2 and "two methods, 'ned' and 'source'" in other.err
