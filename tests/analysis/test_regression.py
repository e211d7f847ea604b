"""``spfem-bench check RECORD --against RECORD``: has one's own model become worse?"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from tests import synthetic
from tests.conftest import Outcome

Record = dict[str, Any]
Check = Callable[..., Outcome]
Change = Callable[[Record], None]


def nothing(record: Record) -> None:
    """Change nothing."""


@pytest.fixture
def check(bench: Callable[..., Outcome]) -> Check:
    """Compare a changed record with the same record, changed or not, by the command."""

    def run(change: Change, *arguments: object, old: Change = nothing) -> Outcome:
        record = synthetic.record("mine", metrics=("fad", "csim", "lse-d", "av-offset"))
        for name, how in (("old", old), ("new", change)):
            changed = copy.deepcopy(record)
            how(changed)
            Path(f"{name}.json").write_text(json.dumps(changed))
        return bench("check", "new.json", "--against", "old.json", *arguments)

    return run


def average(record: Record, metric: str) -> Record:
    found: list[Record] = record["scores"]
    (score,) = (s for s in found if (s["metric"], s["emotion"]) == (metric, "avg"))
    return score


def moved(**by: float) -> Change:
    def change(record: Record) -> None:
        for metric, difference in by.items():
            average(record, metric.replace("_", "-"))["value"] += difference

    return change


def verdicts(outcome: Outcome) -> dict[str, str]:
    return {row["metric"]: row["verdict"] for row in json.loads(outcome.out)["rows"]}


@pytest.mark.parametrize(
    ("by", "code", "verdict"),
    [
        ({"fad": 0.6}, 1, "worse"),  # lower is better
        ({"fad": -0.6}, 0, "better"),
        ({"fad": 0.4}, 0, "within"),
        ({"csim": -0.6}, 1, "worse"),  # higher is better
        ({"csim": 0.6}, 0, "better"),
        ({"lse_d": 0.6}, 1, "worse"),
    ],
)
def test_only_what_became_worse_than_allowed_fails(
    check: Check, by: dict[str, float], code: int, verdict: str
) -> None:
    outcome = check(moved(**by), "--tolerance", "0.5", "--json")
    assert outcome.code == code
    (metric,) = by
    found = verdicts(outcome)
    assert found.pop(metric.replace("_", "-")) == verdict
    assert set(found.values()) == {"within"}


@pytest.mark.parametrize(("was", "now", "code"), [(0, -3, 1), (-3, 1, 0), (2, -2, 0), (-1, 4, 1)])
def test_an_offset_is_worse_when_it_is_farther_from_zero(
    check: Check, was: float, now: float, code: int
) -> None:
    def to(value: float) -> Change:
        return lambda record: average(record, "av-offset").update(value=value)

    assert check(to(now), "--tolerance", "1", old=to(was)).code == code


def test_tolerances_are_by_metric_and_equal_as_printed_without_any(check: Check) -> None:
    assert check(moved(fad=0.0004)).code == 0
    printed = check(moved(fad=0.02, csim=-0.02), "--tolerance", "fad=0.1")
    assert printed.code == 1
    row = next(line for line in printed.out.splitlines() if line.startswith("csim"))
    assert "-0.02" in row and row.rstrip().endswith("worse")
    assert printed.out.splitlines()[-1] == "Fails: csim of mine on demo-inter-id."
    unknown = check(moved(), "--tolerance", "fadd=1")
    assert unknown.code == 2 and "fadd" in unknown.err and "fad" in unknown.err


def test_other_clips_and_missing_numbers_fail(check: Check) -> None:
    def fewer(record: Record) -> None:
        average(record, "fad")["n_items"] -= 1
        average(record, "csim").update(value=None, note="no output had a face")

    outcome = check(fewer, "--tolerance", "9", "--json")
    assert outcome.code == 1
    found = verdicts(outcome)
    assert (found["fad"], found["csim"]) == ("other clips", "missing")


def test_records_that_cannot_be_compared_are_named_and_exit_2(
    check: Check, bench: Callable[..., Outcome]
) -> None:
    def other_card(record: Record) -> None:
        record["settings"]["fad"]["metric"]["version"] += 1

    outcome = check(other_card)
    assert outcome.code == 2 and "metric fad version" in outcome.err

    def other_method(record: Record) -> None:
        record["method"]["name"] = "yours"

    assert "two methods" in check(other_method).err
    for wrong in (
        ["new.json", "--against", "nowhere.json"],
        ["--against", "old.json"],
        ["new.json", "old.json", "--against", "old.json"],
        ["--junit", "x.xml"],
    ):
        assert bench("check", *wrong).code == 2, wrong


def test_junit_has_a_test_for_each_metric_and_a_failure_that_says_why(check: Check) -> None:
    outcome = check(moved(fad=1.0), "--junit", "out.xml", "--tolerance", "0.5")
    assert outcome.code == 1
    root = Xml.parse("out.xml").getroot()  # noqa: S314  (our own)
    assert root.tag == "testsuites" and root.get("failures") == "1"
    (suite,) = root
    cases = {case.get("name"): case for case in suite}
    assert suite.get("tests") == str(len(cases)) and {"fad", "csim"} <= cases.keys()
    (failure,) = cases["fad"].findall("failure")
    assert "worse: was " in str(failure.get("message")) and "allowed: 0.5" in str(failure.text)
    assert not cases["csim"].findall("failure")
