"""No name runs in a spreadsheet, and none drives a terminal."""

from __future__ import annotations

import csv
import io
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from click.testing import CliRunner

from spfem_bench.analysis.comparing import compare_runs
from spfem_bench.cli import main as cli
from spfem_bench.definitions.published import printed_table
from spfem_bench.evaluation.record import load_run, parse_record, save
from spfem_bench.reporting import heatmaps
from spfem_bench.reporting.compare import render_comparison
from spfem_bench.reporting.table_layouts import render_table
from spfem_bench.reporting.tables import make_table
from spfem_bench.texts import VisibleStream, cell_text, csv_text, visible
from tests.conftest import ROOT
from tests.synthetic import items, record

FORMULAS = ["=1+1", "+A1", "-A1+2", "@SUM(A1)", "\t=1", "\r=1", "=cmd|' /C calc'!A0", "＝1+1"]
ESCAPE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e\r"


def cells(text: str) -> list[str]:
    return [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]


def is_run(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return cell[:1] in tuple("=+-@\t\r＝＋－＠")
    return False


@pytest.mark.parametrize("name", FORMULAS)
def test_no_cell_of_any_csv_is_run(name: str) -> None:
    contents = [
        record(name, of=items(14), metrics=("csim",)),
        record("b", of=items(14), metrics=("csim",), seed=1),
    ]
    contents[0]["items"][0]["emotion"] = contents[0]["scores"][0]["emotion"]
    runs = [parse_record(content) for content in contents]
    for text in (
        render_table(make_table(runs), "csv"),
        render_table(make_table(runs), "csv-wide"),
        render_comparison(compare_runs(runs, resamples=10), "csv"),
        heatmaps.to_csv(iter([{"clip": name, "value": -0.5}])),
    ):
        assert visible(name.strip()) in text.replace("\\u000d", "").replace("\\u0009", "")
        assert not [c for c in cells(text) if is_run(c)]


def test_numbers_stay_numbers_and_names_are_read_back(tmp_path: Path) -> None:
    numbers = ["-1.5", "+2", "-1e-07", -3, 0.25, None, "-inf", ""]
    assert cells(csv_text([numbers])) == ["-1.5", "+2", "-1e-07", "-3", "0.25", "", "-inf", ""]
    for name in (n for n in FORMULAS if n.isprintable()):
        (cell,) = cells(csv_text([[name]]))
        assert cell == f"'{name}" and cell_text(cell) == name
    path = tmp_path / "table.csv"
    path.write_text(
        "paper,dataset,setting,backbone,method,emotion,metric,value\n"
        + csv_text([["mine", "mead", "inter-id", "ned", "=1+1", "avg", "fad", "1.5"]])
    )
    assert {row.method for row in printed_table(str(path)).rows} == {"=1+1"}


@pytest.mark.parametrize("style", ["csv", "csv-wide", "markdown", "text", "html", "latex"])
def test_no_table_drives_a_terminal(tmp_path: Path, style: str) -> None:
    path = tmp_path / "run.json"
    save(record(ESCAPE, label=ESCAPE, of=items(1), metrics=("csim",)), path)
    assert load_run(path).method.name == ESCAPE
    printed = CliRunner().invoke(cli.main, ["table", "--format", style, str(path)], color=True)
    assert printed.exit_code == 0
    assert printed.output.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    "arguments",
    [
        ["table", f"{ESCAPE}.json"],
        ["nothing" + ESCAPE],
        ["table", "--format", ESCAPE, "x"],
        ["faces", f"{ESCAPE}.mp4"],
        ["data", "index", "mead", ESCAPE],
        ["list", ESCAPE],
        ["eval", "--protocol", ESCAPE],
    ],
)
def test_no_error_drives_a_terminal(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli.main, arguments, color=True)
    assert result.exit_code in (1, 2)
    assert result.output.replace("\n", "").isprintable(), result.output


def test_no_warning_drives_a_terminal(tmp_path: Path) -> None:
    script = (
        "import sys, warnings; from spfem_bench.texts import make_visible; make_visible()\n"
        f"warnings.warn({ESCAPE!r} + 'a\\nb'); print({ESCAPE!r}); sys.stderr.write({ESCAPE!r})\n"
        f"raise ValueError({ESCAPE!r})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    text = (done.stdout + done.stderr).decode()
    assert "UserWarning" in text and "ValueError" in text
    assert text.replace("\n", "").isprintable(), text


def test_processes_that_are_started_drive_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    from spfem_bench.processes import Pool

    pool = Pool(1)
    try:
        assert list(pool.in_order(warnings.warn, [ESCAPE], 1)) == [None]
    finally:
        pool.end()
    assert "UserWarning" in (text := capfd.readouterr().err)
    assert re.sub(r"\n", "", text).isprintable()


def test_bars_still_move() -> None:
    from tqdm import tqdm

    plain, kept = io.StringIO(), io.StringIO()
    for stream in (plain, VisibleStream(kept)):
        for position in (0, 1):
            for _ in tqdm(
                range(3),
                file=stream,
                position=position,
                mininterval=0,
                ascii=True,
                bar_format="{desc}{n}/{total}",
            ):  # type: ignore[arg-type]
                pass
    assert plain.getvalue() == kept.getvalue() and "\x1b[A" in kept.getvalue()
