"""Tables are pure functions of run records: checked against text written by hand."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from spfem_bench.definitions.published import printed_table, published_rows
from spfem_bench.errors import CardError, UnknownNameError
from spfem_bench.evaluation.record import RunRecord, load_run, parse_record, save
from spfem_bench.reporting.headlines import headline_table, score_lines
from spfem_bench.reporting.table_choice import Choice
from spfem_bench.reporting.table_layouts import render_table
from spfem_bench.reporting.tables import Table, make_printed_table, make_table
from tests.conftest import ROOT
from tests.synthetic import score, whole


def content(
    method: str,
    label: str,
    values: Mapping[tuple[str, str], float | None],
    *,
    kind: str = "system",
    sign: str = "s",
    partial: bool = False,
    published: bool = False,
    protocol: str = "p",
    setting: str = "cross-id",
    profile: str = "light",
) -> dict[str, Any]:
    """A run record's content without items and settings, which tables do not need."""
    scores = []
    for (metric, emotion), value in values.items():
        own: dict[str, Any] = {"n_items": 0, "note": "no clips"}
        if value is not None:
            own = {"low": value - 1, "high": value + 1, "n_items": 2}
            own["signature"] = f"{metric}|{sign}"
        scores.append(score(metric, emotion, value, n_frames=9, partial=partial, **own))
    listed = {"name": protocol, "setting": setting, "emotions": ["sad"]}
    beside = {"dataset": "mead", "setting": "cross-id"} if published else None
    options = {"profile": profile, "complete": False, "partial": partial}
    about = {"label": label, "kind": kind}
    return whole(method, scores, listed | {"published": beside}, **about, **options)


def record(*arguments: Any, **options: Any) -> RunRecord:
    return parse_record(content(*arguments, **options))


NED = {("fad", "sad"): 4.0, ("fad", "avg"): 5.0, ("csim", "sad"): 0.7, ("csim", "avg"): 0.72}
VD = {("fad", "sad"): 4.5, ("fad", "avg"): 3.0, ("csim", "sad"): 0.8, ("csim", "avg"): 0.81}


def test_markdown_is_as_written_by_hand() -> None:
    table = make_table([record("ned", "NED", NED), record("vd", "VD", VD)])
    assert render_table(table, "markdown") == (
        "| Setting   | Emotion   |   NED FAD↓ |   NED CSIM↑ |   VD FAD↓ |   VD CSIM↑ |\n"
        "|-----------|-----------|------------|-------------|-----------|------------|\n"
        "| Cross-ID  | Sad       |  **4.000** |       0.700 |     4.500 |  **0.800** |\n"
        "| Cross-ID  | Avg.      |      5.000 |       0.720 | **3.000** |  **0.810** |\n"
        "\n"
        "- NED, Avg. with 95 % interval: FAD 5.000 [4.000, 6.000] on 2 clips, 9 frames; "
        "CSIM 0.720 [-0.280, 1.720] on 2 clips, 9 frames\n"
        "- VD, Avg. with 95 % interval: FAD 3.000 [2.000, 4.000] on 2 clips, 9 frames; "
        "CSIM 0.810 [-0.190, 1.810] on 2 clips, 9 frames\n"
        "- `fad|s`\n"
        "- `csim|s`\n"
    )


def test_only_equal_signatures_are_compared() -> None:
    other = record("vd", "NED + VD", VD, sign="another network")
    assert "**" not in render_table(make_table([record("ned", "NED", NED), other]), "markdown")


def test_controls_are_marked_and_never_best() -> None:
    control = record("source", "source", {("fad", "avg"): 0.0}, kind="control")
    systems = [record("ned", "NED", NED), record("vd", "NED + VD", VD)]
    text = render_table(make_table([*systems, control]), "markdown")
    assert "source‡ FAD↓" in text and "**0.000**" not in text
    assert "**3.000**" in text
    assert "‡ control" in text


def test_partial_and_absent_numbers_say_so() -> None:
    values = {**NED, ("lse-d", "avg"): None}
    text = render_table(make_table([record("ned", "NED", values, partial=True)]), "markdown")
    assert r"NED\* FAD↓" in text and r"\* partial" in text
    assert "- No LSE-D: no clips" in text


def test_published_rows_stand_beside_marked_and_are_not_compared() -> None:
    table = make_table([record("ned", "NED", NED, published=True)])
    text = render_table(table, "markdown")
    assert "NED† (ASCCL, MEAD) FAD↓" in text
    assert "4.448" in text  # NED's cross-ID average in table 1 of both papers
    assert "† published, not computed here" in text
    assert "**" not in text
    assert "4.448" not in render_table(
        make_table([record("ned", "NED", NED, published=True)], published=False), "markdown"
    )


@pytest.fixture
def variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a metric that is a variant of FAD, by its card."""
    folder = tmp_path / "cards/metrics"
    folder.mkdir(parents=True)
    text = (ROOT / "metrics/fad.toml").read_text().replace("version = 2", "version = 1")
    own = text.replace('label = "FAD"', 'label = "FAD (own)"\nvariant_of = "fad"')
    (folder / "fad-own.toml").write_text(own)
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "cards"))
    return "fad-own"


def recipe(
    method: str, values: Mapping[tuple[str, str], float | None], determined: str, **options: Any
) -> RunRecord:
    """Return a record on a protocol whose numbers through the profile 'papers' are the papers'."""
    made = content(method, "NED", values, published=True, **options)
    made["protocol"]["published"]["recipe"] = "papers"
    made["protocol"]["determined"] = determined
    return parse_record(made)


SURE = "determined for 12 of 12 items"


def test_same_recipe_is_printed_where_profile_protocol_and_metric_are_the_papers(
    variant: str,
) -> None:
    values = {(variant, "sad"): 4.0, (variant, "avg"): 5.0}
    same = recipe("ned", values, SURE, profile="papers")
    table = make_table([same])
    text = render_table(table, "markdown")
    assert "NED§ (ASCCL, MEAD, same recipe) FAD (own)↓" in text
    assert "4.448" in text and "§ published, same recipe" in text and "†" not in text
    assert f"Test clips of p: {SURE}" in text
    assert "**" not in text  # still never compared
    latex = render_table(table, "latex")
    assert r"NED\textsection{} (ASCCL, MEAD, same recipe)" in latex and "4.448" in latex
    assert "NED§ (ASCCL, MEAD, same recipe)" in headline_table([same])
    rows = list(csv.DictReader(io.StringIO(render_table(table, "csv"))))
    assert {row["kind"] for row in rows} == {"reproduced", "recipe"}


def test_two_recipes_in_one_table_have_the_papers_rows_each_in_its_own_metric(
    variant: str,
) -> None:
    ours = recipe("ned", {("fad", "avg"): 7.0}, SURE, profile="official")
    same = recipe("ned", {(variant, "avg"): 5.0}, SURE, profile="papers")
    for order in ([ours, same], [same, ours]):
        table = make_table(order)
        kinds = {
            (column.kind, metric)
            for (_, emotion, column, metric), cell in table.cells.items()
            if emotion == "avg" and cell.printed == "4.448"
        }
        assert kinds == {("published", "fad"), ("recipe", variant)}


@pytest.mark.parametrize(
    "changed",
    [
        {"profile": "official"},
        {"profile": "papers", "partial": True},
        {"profile": "papers", "determined": "determined for 9 of 12 items, the nearest sum for 3"},
        {"profile": "papers", "metric": "fad"},
    ],
    ids=["another profile", "partial", "clips by the nearest sum", "another metric"],
)
def test_whatever_else_keeps_its_mark(variant: str, changed: dict[str, Any]) -> None:
    options = {"determined": SURE, "metric": variant, **changed}
    metric = options.pop("metric")
    text = render_table(make_table([recipe("ned", {(metric, "avg"): 5.0}, **options)]), "markdown")
    assert "NED† (ASCCL, MEAD)" in text and "4.448" in text
    assert "same recipe" not in text and "§" not in text


def test_csv_keeps_full_precision_and_signatures() -> None:
    table = make_table([record("ned", "NED", {("fad", "avg"): 1 / 3})])
    rows = list(csv.DictReader(io.StringIO(render_table(table, "csv"))))
    assert float(rows[0]["value"]) == 1 / 3
    assert rows[0]["signature"] == "fad|s"
    assert rows[0]["kind"] == "reproduced"


def test_headline_text_gives_interval_and_counts() -> None:
    text = score_lines(record("ned", "NED", NED))
    assert "FAD↓" in text and "[4.000, 6.000]" in text and "2/2" in text


def test_published_rows_keep_the_doubts() -> None:
    rows = published_rows("ravdess", "cross-id")
    doubtful = rows[(rows["method"] == "asccl-icface") & (rows["doubt"] != "")]
    assert set(doubtful["emotion"]) == {"surprised", "avg"}
    second = published_rows("mead", "cross-id")
    assert set(second[second["kind"] == "second-hand"]["method"]) == {
        "eat",
        "stccl-vd-eat",
        "dice-talk",
        "stccl-unstated-dice-talk",
    }


def test_records_survive_the_disk_and_others_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "ned.json"
    save(record("ned", "NED", NED), path)
    assert load_run(path) == record("ned", "NED", NED)
    for text, expected in (("[]", "not a run record"), ("{", "not a run record")):
        path.write_text(text)
        with pytest.raises(CardError, match=expected):
            load_run(path)
    path.write_text(json.dumps({"schema": 99}))
    with pytest.raises(CardError, match="schema 99"):
        load_run(path)


def test_a_method_given_twice_is_refused() -> None:
    with pytest.raises(CardError, match="two records of 'ned'"):
        make_table([record("ned", "NED", NED), record("ned", "NED", VD)])


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    broken = content("ned", "NED", NED)
    del broken["scores"][0]["n_items"]
    with pytest.raises(CardError, match=r"damaged: 'scores\.0\.n_items': Field required"):
        parse_record(broken)


def test_a_comparison_has_the_papers_rows_below_marked() -> None:
    source = record("source", "source", {("fad", "avg"): 0.5}, kind="control")
    lines = headline_table([record("ned", "NED", NED, published=True), source]).splitlines()
    names = [line.split("  ")[0] for line in lines[2:5]]
    assert names == ["NED", "source‡", "NED† (ASCCL, MEAD)"]
    assert "4.448" in lines[4]  # MEAD, cross-ID, FAD of NED on average: both papers print it
    assert lines[-1].startswith("† published, not computed here")
    assert "†" not in headline_table([record("vd", "VD", VD), source])


# ---- tables to order ------------------------------------------------------------------------


def ordered(**choice: Any) -> Table:
    values = {
        (m, e): n + k / 10
        for n, m in enumerate(("fad", "csim"))
        for k, e in enumerate(("happy", "sad_B", "avg"))
    }
    records = [parse_record(content(name, name.upper(), values)) for name in ("one", "two")]
    return make_table(records, published=False, choice=Choice(**choice))


def test_a_table_has_what_is_chosen_in_the_order_given() -> None:
    made = ordered(methods=("TWO", "one"), metrics=("CSIM", "fad"), emotions=("avg", "SAD_b"))
    lines = list(csv.reader(io.StringIO(render_table(made, "csv-wide"))))
    assert lines[0][2:6] == ["two csim", "two fad", "one csim", "one fad"]
    assert [(line[1], *line[2:6]) for line in lines[1:]] == [
        ("avg", "1.2", "0.2", "1.2", "0.2"),
        ("sad_B", "1.1", "0.1", "1.1", "0.1"),
    ]
    across = render_table(made, "text", layout="stccl").splitlines()
    assert across[0].split() == ["Setting", "Metric", "Method", "Avg.", "sad_B"]
    with pytest.raises(UnknownNameError, match=r"unknown emotion in these tables 'fear'.*happy"):
        ordered(emotions=("fear",))


def test_latex_has_the_users_caption_label_and_digits_and_no_commands() -> None:
    made = replace(
        ordered(emotions=("happy",)),
        notes=(
            "No FAD: incomplete: no headline score without --partial",
            "No x. Type: pip install y",
        ),
    )
    text = render_table(made, "latex", caption="50 % more", label="tab:x", digits=1)
    assert "\\caption{50 \\% more}\n\\label{tab:x}\n" in text
    assert "{0.0}" in text and "{1.0}" in text and "0.00" not in text
    assert "--" not in text and "Type" not in text and "no headline score\\par" in text
    bare = render_table(made, "tabular", digits=0)
    assert bare.startswith("\\begin{tabular}") and bare.endswith("\\end{tabular}\n")
    assert "textsuperscript" not in bare and "headline" not in bare
    assert "headline" not in render_table(made, "latex", notes=False)


def test_papers_numbers_are_rounded_and_get_no_digits() -> None:
    printed = make_printed_table([printed_table("stccl-mead")], choice=Choice(metrics=("csim",)))
    number = next(cell.printed for cell in printed.cells.values())
    assert len(number.partition(".")[2]) == 3
    assert number in render_table(printed, "text", digits=5)
    assert number not in render_table(printed, "text", digits=2)


def test_a_wide_table_folds_with_a_methods_columns_together() -> None:
    text = render_table(ordered(), "text", fold=3)
    heads = [line.split() for line in text.splitlines() if "Emotion" in line]
    assert heads == [["Setting", "Emotion", "ONE", "ONE"], ["Setting", "Emotion", "TWO", "TWO"]]
    assert text.count("ONE, Avg.") == 1  # the notes stand below the last part
    latex = render_table(ordered(), "latex", fold=3)
    assert latex.count("\\begin{tabular}") == 2 and latex.count("\\begin{table*}") == 1
    narrow = render_table(ordered(), "markdown", fold=1)
    assert sum("| Setting" in line for line in narrow.splitlines()) == 4
