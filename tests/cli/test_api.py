"""The Python interface, on four clips of the demo, and its notebook cell by cell."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import spfem_bench
from spfem_bench.analysis.comparing import compare_runs
from spfem_bench.errors import CardError, ClipError, SpfemBenchError, UnknownNameError, WeightsError
from spfem_bench.evaluation.record import parse_record, save
from spfem_bench.reporting.compare import render_comparison
from tests.analysis.test_compare import run as of_clips
from tests.conftest import ROOT
from tests.reporting.test_table_files import HOSTILE, Tags, check_latex
from tests.reporting.test_tables import NED, VD, content, record

NOTEBOOKS = ROOT / "docs/notebooks"
SMALL = str(NOTEBOOKS / "small.toml")


@pytest.fixture
def demo(demo_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clips of the demo are drawn once for all tests."""
    monkeypatch.setenv("SPFEM_BENCH_CACHE", str(demo_cache))


@pytest.fixture
def notebook_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("small.toml", "small.csv"):
        shutil.copy(NOTEBOOKS / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("demo", "notebook_folder")
def test_the_notebook_runs_cell_by_cell() -> None:
    book = json.loads((NOTEBOOKS / "python.ipynb").read_text())
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    names: dict[str, Any] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in book["cells"]:
            if cell["cell_type"] == "code":
                assert cell["outputs"] == []
                exec("".join(cell["source"]), names)  # noqa: S102  (our own notebook)
    headline = names["headlines"].set_index("metric")["value"]
    assert headline["fad"] == pytest.approx(0, abs=1e-6)  # real against itself
    assert headline["csim"] > 0.9
    source = names["source"].scores.query("emotion == 'avg'").set_index("metric")["value"]
    assert source["fad"] > 1 and source["csim"] < headline["csim"]
    assert "source‡" in printed.getvalue() and r"\begin{document}" in printed.getvalue()
    check_latex(names["latex"])


@pytest.mark.usefixtures("demo")
def test_python_and_the_command_line_give_the_same_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from click.testing import CliRunner

    from spfem_bench.cli.main import main

    run = spfem_bench.evaluate("source", SMALL, metrics=["csim"])
    command = f"eval --method source --protocol {SMALL} --metrics csim -q --results {tmp_path}"
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.rglob("*.json")
    other = spfem_bench.load(path).record.plain()
    mine = json.loads(json.dumps(run.record.plain()))
    for each in (other, mine):
        each.pop("timings")
    assert other == mine
    assert capsys.readouterr() == ("", "")  # a library prints nothing


@pytest.mark.usefixtures("demo")
def test_what_cannot_be_scored_raises(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    with pytest.raises(ClipError, match=r"4 of 4 items of small cannot be scored; P001_angry"):
        spfem_bench.evaluate("mine", SMALL, videos=tmp_path / "videos")
    with pytest.raises(UnknownNameError, match="Did you mean 'source'"):
        spfem_bench.evaluate("sourc", SMALL)
    with pytest.raises(UnknownNameError, match="unknown metric"):
        spfem_bench.evaluate("source", SMALL, metrics=["fid"])
    with pytest.raises(SpfemBenchError, match=r"Give a list: \['fad'\]"):
        spfem_bench.evaluate("source", SMALL, metrics="fad")
    with pytest.raises(SpfemBenchError, match="about videos"):
        spfem_bench.evaluate("source", SMALL, layout="ned")
    with pytest.raises(SpfemBenchError, match="'nowhere' is not available here"):
        spfem_bench.evaluate("source", SMALL, device="nowhere")
    with pytest.raises(WeightsError, match="no fad: "):
        spfem_bench.evaluate("source", SMALL, profile="light")


def test_scores_are_typed() -> None:
    values = {**NED, ("lse-d", "avg"): None}
    scores = spfem_bench.api.Run(record("ned", "NED", values)).scores
    assert list(scores.columns[:7]) == [
        "method",
        "protocol",
        "setting",
        "profile",
        "metric",
        "emotion",
        "value",
    ]
    assert {str(t) for t in scores.dtypes[["value", "low", "high"]]} == {"float64"}
    assert {str(t) for t in scores.dtypes[["n_items", "n_frames"]]} == {"int64"}
    assert str(scores.dtypes["partial"]) == "bool"
    assert isinstance(scores.dtypes["metric"], pd.StringDtype)
    assert scores["value"].isna().sum() == 1 and scores["value"].max() == 5.0


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[list[spfem_bench.Run]]:
    paths = [tmp_path / "ned.json", tmp_path / "vd.json"]
    save(record("ned", HOSTILE, NED), paths[0])
    save(record("vd", "NED + VD", VD), paths[1])
    yield [spfem_bench.load(p) for p in paths]


def test_views_are_the_same_each_time_and_escaped(runs: list[spfem_bench.Run]) -> None:
    for style in ("text", "markdown", "csv", "csv-wide", "latex", "html"):
        text = spfem_bench.table(runs, style)
        assert text == spfem_bench.table(runs, style)
    parser = Tags()
    parser.feed(runs[0]._repr_html_())
    assert "script" not in parser.seen and "td" in parser.seen
    check_latex(runs[0].to_latex(standalone=True, intervals=True, layout="stccl"))
    assert "4.000" in repr(runs[0]) or "5.000" in repr(runs[0])


def test_runs_are_compared() -> None:
    values = np.random.default_rng(1).normal(0.7, 0.05, size=12)
    a, b = (
        spfem_bench.Run(parse_record(of_clips(n, {"csim": values + x})))
        for n, x in (("a", 0.0), ("b", 0.1))
    )
    found = spfem_bench.compare([a, b])
    assert repr(found) == render_comparison(compare_runs([a.record, b.record]), "text")
    assert found.table["difference"].tolist() == pytest.approx([0.1])
    assert found.table["verdict"].tolist() == ["b better"]
    assert spfem_bench.compare([a, b], baseline="b").baseline == "b"
    metric, emotion, *ends = a.speaker_intervals().iloc[-1]
    (row,) = found.rows
    assert (metric, emotion) == ("csim", "avg")
    assert ends == pytest.approx([row.a_low, row.a_high])
    with pytest.raises(CardError, match="one run has nothing to be compared with"):
        spfem_bench.compare([a])
    with pytest.raises(SpfemBenchError, match=r"Give a list: \['csim'\]"):
        spfem_bench.compare([a, b], metrics="csim")


def test_runs_are_saved_and_loaded(runs: list[spfem_bench.Run], tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    path = runs[1].save(folder)
    assert path == folder / "vd.light.json"
    assert spfem_bench.load(path).table() == runs[1].table()
    assert runs[1].save(tmp_path / "new" / "name.json").is_file()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('"schema": 1', '"schema": 2'), "has schema 2; this version reads 1. Upgrade"),
        (('"value": 4.0', '"value": NaN'), "it holds NaN"),
        (('"n_items"', '"n_item"'), "is damaged"),
        (("{", ""), "is not a run record"),
    ],
)
def test_bad_records_are_refused(change: tuple[str, str], said: str, tmp_path: Path) -> None:
    path = tmp_path / "ned.json"
    path.write_text(json.dumps(content("ned", "NED", NED)).replace(*change))
    with pytest.raises(CardError, match=re.escape(said)):
        spfem_bench.load(path)


def test_empty_runs_are_refused() -> None:
    with pytest.raises(CardError, match="no run record"):
        spfem_bench.table([])
    empty = spfem_bench.api.Run(record("ned", HOSTILE, {("fad", "avg"): None}))
    with pytest.raises(CardError, match="no number to print"):
        empty.table()
    assert "no clips" in empty._repr_html_() and "<script" not in empty._repr_html_()


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = (
        "import sys, spfem_bench\n"
        "heavy = {'torch', 'pandas', 'numpy', 'pydantic', 'spfem_bench.api'}\n"
        "print(sorted(heavy & {*sys.modules}))\n"
        "spfem_bench.load\n"
        "print('torch' in sys.modules, 'spfem_bench.api' in sys.modules)\n"
        "spfem_bench.nothing\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "False True"]
    assert "has no attribute 'nothing'" in done.stderr.splitlines()[-1]
