"""The audit of printed tables, against an independent one and against cases worked by hand."""

from __future__ import annotations

import csv
import io
from decimal import Decimal
from pathlib import Path

import pytest
from click.testing import CliRunner

from spfem_bench.cli.main import main
from spfem_bench.reporting.audit import Audit, audit, audit_text
from spfem_bench.reporting.published import printed_table, published_names
from tests.conftest import ROOT

PUBLISHED = ROOT / "reference_results/published"
FOUR = ("asccl-mead", "asccl-ravdess", "stccl-mead", "stccl-ravdess")


@pytest.fixture(scope="module")
def four() -> Audit:
    """The papers' result tables, emotion by emotion."""
    return audit([printed_table(name) for name in FOUR])


def test_the_shipped_audit_is_what_the_command_prints() -> None:
    found = audit([printed_table(name) for name in published_names()])
    assert (PUBLISHED / "AUDIT.md").read_text() == audit_text(found, markdown=True), (
        "spfem-bench audit --format markdown > reference_results/published/AUDIT.md"
    )


# What follows was found before, by another script with other code, and read by eye.


def test_averages_as_audited_independently(four: Audit) -> None:
    one = "one cell off by exactly 1"  # both baselines' cells are: 5.567 for 6.567, 10.226
    assert four.n_averages == 120
    assert [
        (str(a.series), str(a.printed), round(a.mean, 4), round(a.off, 4), a.explained)
        for a in four.averages
    ] == [
        ("asccl table 2 ravdess cross-id asccl-icface fad", "8.903", 9.0863, -0.1833, ""),
        ("asccl table 2 ravdess cross-id asccl-icface lse-d", "10.313", 10.0536, 0.2594, ""),
        ("asccl table 2 ravdess cross-id asccl-icface csim", "0.677", 0.6829, -0.0059, ""),
        ("stccl table 1 mead inter-id icface fad", "6.795", 6.6521, 0.1429, one),
        ("stccl table 1 mead cross-id icface lse-d", "11.238", 11.0954, 0.1426, one),
    ]


def test_disagreements_as_audited_independently(four: Audit) -> None:
    assert four.n_shared == 192
    found = [
        (str(d.series), d.emotion, str(d.value), str(d.other_value), d.fits)
        for d in four.disagreements
    ]
    assert found == [
        ("asccl table 1 mead inter-id icface fad", "surprised", "6.567", "5.567", "first"),
        ("asccl table 1 mead cross-id icface lse-d", "neutral", "11.226", "10.226", "first"),
    ]
    assert {d.off for d in four.disagreements} == {Decimal("-1.000")}
    assert "off by -1.000, exactly" in audit_text(four)
    assert len(four.other_decimals) == 2
    assert "2.98" in four.other_decimals[0] and "7.56" in four.other_decimals[1]


def test_repeats_as_audited_independently(four: Audit) -> None:
    count = {
        kind: [r for r in four.repeats if r.kind == kind]
        for kind in ("series", "column", "methods", "row", "scattered")
    }
    assert {kind: len(found) for kind, found in count.items()} == {
        "series": 0,
        "column": 1,
        "methods": 14,
        "row": 6,
        "scattered": 12,
    }
    column = count["column"][0]
    assert column.values == "8.903 / 10.313 / 0.677"
    assert column.first.endswith("asccl-icface surprised") and column.second.endswith("avg")
    by_metric = [
        sum(f" {m} " in r.first for r in count["methods"]) for m in ("fad", "lse-d", "csim")
    ]
    assert by_metric == [3, 4, 7]
    assert sorted(r.values for r in count["row"]) == [
        "10.313",
        "6.567",
        "8.413",
        "8.413",
        "8.903",
        "9.239",
    ]


def test_losses_as_audited_independently(four: Audit) -> None:
    assert sum(x.cells for x in four.losses) == 576
    assert sum(len(x.emotions) for x in four.losses) == 91
    assert not any("avg" in x.emotions for x in four.losses)
    lost = {str(x.series): x.emotions for x in four.losses if x.emotions}
    assert len(lost) == 43
    assert lost["asccl table 1 mead inter-id asccl-icface fad"] == ("neutral", "fear", "surprised")
    assert lost["stccl table 1 mead inter-id stccl-vd-ned lse-d"] == (
        "angry",
        "disgusted",
        "happy",
        "sad",
    )
    assert lost["stccl table 2 ravdess cross-id stccl-cm-ned csim"] == ("angry", "disgusted")


def test_near_duplicates_as_audited_independently(four: Audit) -> None:
    assert len(four.nears) == 72
    flagged = {(str(n.first)[6:], n.second.method): n for n in four.nears if n.flagged}
    assert len(flagged) == 26
    near = flagged["table 1 mead inter-id asccl-icface lse-d", "stccl-vd-icface"]
    assert round(near.distance, 4) == 0.0200 and round(near.largest, 3) == 0.050
    assert [round(g, 4) for g in near.gains] == [0.6520, 0.6720]
    assert round(near.correlation, 3) == 0.998


def test_the_user_study_as_audited_independently() -> None:
    found = audit([printed_table("asccl-user-study")])
    assert found.not_hundred == ()
    assert [(a.series.method, str(a.printed), round(a.mean, 3)) for a in found.averages] == [
        ("ned", "27", 27.571),
        ("asccl-ned", "73", 72.429),
    ]
    # Cells of 24.6 may be printed as 25: the averages could still be right.
    assert all(a.possible for a in found.averages) and found.contradictions == 0


# ---- worked by hand ------------------------------------------------------------------------


def table(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "table.csv"
    path.write_text("\n".join(["paper,method,backbone,emotion,metric,value", *lines, ""]))
    return path


def run(*arguments: str, code: int) -> str:
    result = CliRunner().invoke(main, ["audit", *arguments])
    assert result.exit_code == code, result.output
    return result.output


def test_printed_decimals_say_what_an_average_may_be(tmp_path: Path) -> None:
    # (1.0 + 1.1) / 2 = 1.05 lies half a unit from 1.0 and from 1.1: both are its rounding.
    # 1.10 is 0.05 away: rounding of the cells (0.05) and of itself (0.005) may explain it.
    # 1.12 is 0.07 away, more than 0.055; 1.2 is 0.15 away, more than 0.05 and 0.05.
    of = {"1.0": None, "1.1": None, "1.05": None, "1.10": True, "1.12": False, "1.2": False}
    for average, expected in of.items():
        path = table(
            tmp_path, "p,a,a,sad,fad,1.0", "p,a,a,fear,fad,1.1", f"p,a,a,avg,fad,{average}"
        )
        found = audit([printed_table(str(path))])
        assert found.n_averages == 1
        assert [a.possible for a in found.averages] == ([] if expected is None else [expected])


def test_a_table_without_faults_passes_and_others_fail(tmp_path: Path) -> None:
    good = ("p,ned,ned,sad,fad,2.00", "p,ned,ned,fear,fad,4.00", "p,ned,ned,avg,fad,3.00")
    assert "0 contradictions" in run(str(table(tmp_path, *good)), code=0)
    bad = (*good[:2], "p,ned,ned,Avg.,fad,4.00")  # as tables print it
    assert "1 contradictions" in run(str(table(tmp_path, *bad)), code=1)
    # Losing is no contradiction: 2.50 is worse than 2.00.
    lost = (*good, "p,mine,ned,sad,fad,2.50", "p,mine,ned,fear,fad,3.00")
    text = run(str(table(tmp_path, *lost)), "--format", "csv", code=0)
    assert list(csv.DictReader(io.StringIO(text))) == [
        {
            "check": "loss",
            "where": "p mine fad",
            "beside": "ned",
            "printed": "1",
            "other": "2",
            "note": "sad",
        },
    ]
    wrong = (*good, "q,ned,ned,sad,fad,3.00")
    assert "off by +1.00, exactly" in run(str(table(tmp_path, *wrong)), code=1)


def test_higher_is_better_for_csim_and_unknown_metrics_are_left_alone(tmp_path: Path) -> None:
    lines = []
    for metric in ("csim", "fvd"):
        lines += [f"p,ned,ned,sad,{metric},0.5", f"p,mine,ned,sad,{metric},0.4"]
    found = audit([printed_table(str(table(tmp_path, *lines)))])
    assert [(x.series.metric, x.emotions) for x in found.losses] == [("csim", ("sad",))]


def test_a_row_copied_from_another_method_is_found(tmp_path: Path) -> None:
    lines = [f"p,{m},,{e},csim,0.{i}" for m in "ab" for i, e in enumerate(["sad", "fear", "happy"])]
    found = audit([printed_table(str(table(tmp_path, *lines)))])
    assert [(r.kind, r.values) for r in found.repeats] == [("series", "0.0 0.1 0.2")]
    assert found.contradictions == 1


def test_percentages_that_do_not_make_100_are_found(tmp_path: Path) -> None:
    path = tmp_path / "study.csv"
    head = "emotion,question,method,preference_percent"
    path.write_text(
        f"{head}\nsad,realism,a,30\nsad,realism,b,60\nfear,realism,a,30\nfear,realism,b,70\n"
    )
    found = audit([printed_table(str(path))])
    assert found.not_hundred == ("study realism sad: 30 + 60 = 90",)


def test_tables_of_this_project_are_audited_too(tmp_path: Path) -> None:
    from spfem_bench.reporting.table_layouts import render_table
    from spfem_bench.reporting.tables import make_table
    from tests.reporting.test_tables import record

    values = {("fad", "sad"): 1 / 3, ("fad", "fear"): 2 / 7, ("fad", "avg"): (1 / 3 + 2 / 7) / 2}
    path = tmp_path / "own.csv"
    path.write_text(render_table(make_table([record("ned", "NED", values, published=True)]), "csv"))
    found = audit([printed_table(str(path))])
    assert found.n_averages == 2 and found.averages == ()


def test_a_table_given_twice_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / "copy.csv"
    copy.write_text((PUBLISHED / "asccl-mead.csv").read_text())
    text = run("asccl-mead", str(copy), code=1)
    assert "two files print asccl table 1 mead inter-id icface fad neutral" in text
    assert text.count("\n") == 1
    # Two papers of one's own that do not say who they are go by their files' names.
    a, b = tmp_path / "a.csv", tmp_path / "b.csv"
    for path, value in ((a, "1.0"), (b, "1.1")):
        path.write_text(f"method,emotion,metric,value\nned,sad,fad,{value}\n")
    assert "off by +0.1" in run(str(a), str(b), code=1)


def test_hostile_names_stay_in_their_cells(tmp_path: Path) -> None:
    bad = "a|b<script>"
    path = table(tmp_path, *(f"p,{bad},,{e},fad,1.000" for e in ("sad", "fear")))
    text = run(str(path), "--format", "markdown", code=0)
    assert r"a\|b\<script\>" in text and "<script" not in text.replace(r"\<", "")
