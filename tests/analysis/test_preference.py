"""User studies: votes to percentages, intervals and agreement, against cases worked by hand."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from spfem_bench.analysis.auditing import audit
from spfem_bench.analysis.preference import agreement, read_study, vote_shares, wilson
from spfem_bench.cli.main import main
from spfem_bench.definitions.published import printed_table
from tests.reporting.test_table_files import check_latex

HEAD = "participant,item,emotion,question,method_a,method_b,choice"


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["preference", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def written(tmp_path: Path, *lines: str, head: str = HEAD) -> str:
    path = tmp_path / "votes.csv"
    path.write_text("\n".join([head, *lines, ""]))
    return str(path)


def study(tmp_path: Path) -> str:
    """Three people, two emotions with one clip each; sides of the screen change."""
    return written(
        tmp_path,
        "ann,1,sad,realism,ned,mine,b",
        "bob,1,sad,realism,mine,ned,a",
        "cyd,1,sad,realism,ned,mine,a",
        "ann,2,happy,realism,ned,mine,B",
        "bob,2,happy,realism,ned,mine,b",
        "cyd,2,happy,realism,mine,ned,a",
    )


def test_votes_become_percentages_as_counted_by_hand(tmp_path: Path) -> None:
    # Sad: ann and bob for mine, cyd for ned: 2 of 3. Happy: all three for mine.
    # Avg.: the mean of 66.7 and 100.
    rows = list(csv.DictReader(io.StringIO(run(study(tmp_path), "--format", "csv"))))
    found = {(r["emotion"], r["method"]): round(float(r["preference_percent"]), 3) for r in rows}
    assert found == {
        ("sad", "ned"): 33.333,
        ("sad", "mine"): 66.667,
        ("happy", "ned"): 0.0,
        ("happy", "mine"): 100.0,
        ("avg", "ned"): 16.667,
        ("avg", "mine"): 83.333,
    }
    assert {(r["emotion"], r["votes"], r["participants"]) for r in rows} == {
        ("sad", "3", "3"),
        ("happy", "3", "3"),
        ("avg", "6", "3"),
    }
    # One vote each: Wilson. 3 of 3: (1 + z2/6 - z sqrt(z2/36)) / (1 + z2/3) = 1 / (1 + z2/3).
    happy = next(r for r in rows if (r["emotion"], r["method"]) == ("happy", "mine"))
    assert float(happy["low"]) == pytest.approx(100 / (1 + 1.959964**2 / 3), abs=1e-4)
    assert float(happy["high"]) == pytest.approx(100)


def test_the_table_is_the_papers(tmp_path: Path) -> None:
    lines = [" ".join(line.split()) for line in run(study(tmp_path), "--no-intervals").splitlines()]
    assert lines[:6] == [
        "Emotion Realism Realism",
        "NED mine",
        "--------- --------- ---------",
        "Happy 0% 100%",
        "Sad 33% 67%",
        "Avg. 17% 83%",
    ]


def test_the_published_study_comes_out_as_printed() -> None:
    lines = [" ".join(line.split()) for line in run("asccl-user-study").splitlines()]
    assert lines[3] == "Neutral 28% 72% 24% 76% 31% 69%"
    assert lines[9] == "Surprised 30% 70% 27% 73% 24% 76%"
    assert lines[10] == "Avg. 30% 70% 31% 69% 27% 73%"
    assert "table 3" in lines[12]
    check_latex(run("asccl-user-study", "--format", "latex"))


def test_wilson_is_the_textbooks() -> None:
    # 0 of 10: upper end z2 / (n + z2) = 3.8415 / 13.8415.
    assert wilson(0, 10) == pytest.approx((0, 0.27753), abs=1e-5)
    # 81 of 263: Newcombe (1998), Statistics in Medicine 17, table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)


def test_alpha_is_worked_by_hand() -> None:
    # Two people, ten clips (Krippendorff, "Computing Krippendorff's Alpha-Reliability", 2011,
    # section A): 14 times 0, 6 times 1, 4 clips on which they differ:
    # alpha = 1 - (20 - 1) * 4 / (14 * 6) = 0.095.
    first = [0, 1, 0, 0, 0, 0, 0, 0, 1, 0]
    second = [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]
    assert agreement(np.array([first, second], float)) == pytest.approx(1 - 19 * 4 / (14 * 6))
    # A third who did not see most clips counts where there are votes: clip 1 has 0, 1, 1.
    third = [1.0] + [np.nan] * 9
    assert agreement(np.array([first, second, third], float)) != pytest.approx(0.095, abs=1e-3)
    assert agreement(np.array([[1.0, 1.0], [1.0, 1.0]])) is None
    assert agreement(np.array([[1.0, np.nan], [np.nan, 0.0]])) is None
    assert agreement(np.array([[1.0, 0.0], [1.0, 0.0]])) == 1.0


def test_one_persons_votes_are_not_counted_as_many_peoples() -> None:
    # Half of 20 people always prefer the method, half never: 10 clips tell as much as one.
    won = np.repeat([[10], [0]], 10, axis=0)
    votes = np.full_like(won, 10)
    (low, high), *_ = vote_shares(won, votes)[1]
    alone = wilson(10, 20)
    independent = wilson(100, 200)
    assert low is not None and high is not None
    assert high - low > 0.9 * (alone[1] - alone[0]) > 2 * (independent[1] - independent[0])
    # Each of 20 people prefers it on half of the clips: participants do not differ.
    (low, high), *_ = vote_shares(np.full_like(won, 5), votes)[1]
    assert low == high == 0.5


def test_intervals_hold_what_they_promise() -> None:
    # 300 studies of 15 people with tastes around 0.7, 3 emotions of 10 clips each.
    # Of 300 intervals at 95 %, 285 hold the truth, give or take 4: six of these are allowed.
    generator = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        taste = np.clip(generator.normal(0.7, 0.1, 15), 0, 1)
        won = generator.binomial(10, taste[:, None], (15, 3))
        low, high = vote_shares(won, np.full_like(won, 10))[1][-1]
        assert low is not None and high is not None
        held += low <= 0.7 <= high
    assert 0.92 <= held / 300 <= 0.98


def test_one_participant_gives_no_interval_and_studies_need_no_emotions(tmp_path: Path) -> None:
    head = HEAD.replace("emotion,", "")
    path = written(tmp_path, "ann,1,realism,ned,mine,a", "ann,2,realism,ned,mine,b", head=head)
    (row,) = [line for line in run(path).splitlines() if line.startswith("Avg.")]
    assert row.split() == ["Avg.", "50%", "50%"]
    assert "undefined on 2 clips" in run(path)


def test_several_pairs_stand_beside_each_other(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "ann,1,sad,realism,ned,mine,b",
        "bob,1,sad,realism,ned,mine,b",
        "ann,1,sad,realism,icface,mine,a",
        "bob,1,sad,realism,icface,mine,b",
    )
    text = run(path)
    assert "NED against mine" in text and "ICface against mine" in text
    for style in ("markdown", "latex", "html", "csv-wide"):
        text = run(path, "--format", style)
        assert text == run(path, "--format", style)
    check_latex(run(path, "--format", "latex", "--standalone"))


def test_percentages_can_be_audited(tmp_path: Path) -> None:
    path = tmp_path / "percent.csv"
    path.write_text(run(study(tmp_path), "--format", "csv"))
    assert audit([printed_table(str(path))]).contradictions == 0
    assert read_study(str(path)).shares  # and printed again


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([], "has no lines under its head"),
        (["ann,1,sad,realism,ned,mine"], "line 2: 6 cells under a head of 7"),
        (["ann,1,sad,realism,ned,mine,c"], "line 2: 'c' chooses neither method"),
        (["ann,1,sad,realism,ned,mine,nan"], "line 2: 'nan' chooses neither method"),
        (["ann,1,sad,realism,ned,mine,"], "line 2: no choice"),
        (["ann,1,,realism,ned,mine,a"], "line 2: no emotion"),
        ([",1,sad,realism,ned,mine,a"], "line 2: no participant"),
        (["ann,1,sad,realism,ned,ned,a"], "line 2: 'ned' against itself"),
        (["ann,1,avg,realism,ned,mine,a"], "'avg' is no emotion"),
        (
            ["ann,1,sad,realism,ned,mine,a", "ann,1,sad,realism,mine,ned,a"],
            "line 3: 'ann' votes again (line 2)",
        ),
    ],
)
def test_bad_votes_are_refused_in_one_line(lines: list[str], said: str, tmp_path: Path) -> None:
    output = run(written(tmp_path, *lines), code=1)
    assert said in output and output.count("\n") == 1


def test_other_bad_inputs_are_refused_in_one_line(tmp_path: Path) -> None:
    head = HEAD.replace("choice", "vote")
    for given, said in (
        (written(tmp_path, "a,1,sad,realism,x,y,a", head=head), "no column 'choice'"),
        (str(tmp_path / "none.csv"), "No such file"),
        ("asccl-mead", "'asccl-mead' is no user study. Print it with 'spfem-bench table'"),
        ("asccl-user", "Did you mean 'asccl-user-study'?"),
    ):
        output = run(given, code=1)
        assert said in output and output.count("\n") == 1, output
    assert "belongs to --format latex" in run("asccl-user-study", "--standalone", code=2)
