"""Each script in benchmarks/ that docs/performance.md names still runs, on little material.

faults.py and fuzz.py have turns of their own (test_faults.py, test_fuzz.py). What they measure is
no matter here, but that they do: only what must not depend on the machine is compared.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from benchmarks import common, gpu, growth, many_items, must_hold, official_files
from benchmarks.faults import write_protocol
from benchmarks.forward_share import share
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import network_card
from spfem_bench.faces.track import Face
from tests.conftest import ROOT


def run(*command: object, **environment: str) -> str:
    """Run a script from the repository's folder; return what it prints."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    names = os.environ | threads | {"OMP_WAIT_POLICY": "passive"} | environment
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=names,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def table(text: str, first: str) -> list[list[str]]:
    """Return the rows of the Markdown table whose first heading is this."""
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE):
        rows = [[c.strip() for c in line.strip("|").split("|")] for line in block.splitlines()]
        if rows[0][0] == first:
            return rows[2:]
    raise AssertionError(f"no table '{first}' in: {text}")


FACE = Face(
    np.float32([60, 70, 200, 240]),
    np.float32([[100, 130], [160, 130], [130, 170], [105, 200], [155, 200]]),
    1.0,
)


@pytest.mark.parametrize(
    ("like", "content"),
    [
        ("arcface-r50", lambda: official_files.w600k_r50(0)),
        ("scrfd-10g", lambda: official_files.det_10g(FACE, 256, 0)),
    ],
    ids=["arcface-r50", "scrfd-10g"],
)
def test_random_files_are_as_large_as_the_official_ones(like: str, content) -> None:  # type: ignore[no-untyped-def]
    """Layers left out or too wide would make the comparison unfair."""
    published = network_card(like).files[0].bytes
    assert published
    assert len(content()) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("side", [640, 160])
def test_the_random_detector_says_the_one_face_it_is_told(side: int) -> None:
    session = onnxruntime.InferenceSession(
        official_files.det_10g(FACE, 256, 0), providers=["CPUExecutionProvider"]
    )
    picture = np.random.default_rng(0).normal(0, 1, (1, 3, side, side)).astype(np.float32)
    scores, _, _, boxes, *_ = session.run(None, {"input.1": picture})
    (sure,) = np.flatnonzero(scores[:, 0] > 0.5)
    row, column = divmod(sure // 2, side // 8)
    reach = boxes[sure] * 8
    box = np.array([8 * column, 8 * row] * 2) + reach * [-1, -1, 1, 1]
    assert box * 256 / side == pytest.approx(FACE.box, abs=0.01)


def test_turns_share_what_rows_have_in_common_and_end_in_time() -> None:
    calls: list[str] = []

    def side(name: str) -> must_hold.Side:
        def run() -> common.Spent:
            calls.append(name)
            return common.Spent(1.0, 2.0)

        return run

    package = side("package")
    sides = {"a": (package, side("a")), "b": (package, side("b"))}
    pairs = must_hold.turns(sides, math.inf, 2)
    assert {name: len(found) for name, found in pairs.items()} == {"a": 2, "b": 2}
    assert calls.count("package") == calls.count("a") == calls.count("b") == 3  # one warms up
    assert {len(found) for found in must_hold.turns(sides, 0.0, 5).values()} == {1}


def test_a_line_to_quote_names_figures_machine_and_versions() -> None:
    line = common.quotable({"all three": "**3.10** (3.00 to 3.20)"}, 2)
    assert line.strip().startswith("all three 3.10 (3.00 to 3.20). Measured on ")
    assert "numpy" in line and "2 threads" in line and "\n" not in line.strip()


def test_lip_sync_beside_the_package(weights_folder: Path, samples: Path) -> None:
    """Runs the package's own pipeline; the script itself compares LSE-D on identical frames."""
    clip = samples / "stccl-page/video_result/M003_source_sad_033.mp4"
    out = run(
        *("-m", "benchmarks.official_chain", f"{clip}#xywh=0,0,256,256&t=0,1.4"),
        *("--repeats", 1, "--stages", "lip", "score"),
        SPFEM_BENCH_WEIGHTS=str(weights_folder),
    )
    rows = {row[0]: row for row in table(out, "")}
    same = rows["the same JPEGs and WAV (theirs: evaluate alone)"]
    assert same[1] == "1" and float(same[-1]) <= 1e-3
    assert "lip sync, a file to LSE-D" in rows and "lip sync, crops to LSE-D" in rows


@pytest.fixture(scope="module")
def puppet(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    return common.puppets(tmp_path_factory.mktemp("puppet"), 1, 1.0)[0]


def test_forward_share_sees_every_network(puppet: Clip, tmp_path: Path) -> None:
    rows = share("compact", [puppet], tmp_path, "cpu", 1, faces="aligned")
    (forward,) = (row for row in rows if "forward, all networks" in row[1])
    assert float(forward[4]) > 0
    inputs = " ".join(row[2] for row in rows)
    for crop in ("3, 112, 112", "3, 64, 64", "1, 13, 20"):  # identity; expression; sound
        assert crop in inputs


def test_gpu_measures_all_parts_and_writes_them_down(
    puppet: Clip,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """On the processor: what the script does on a GPU, but for the packages and STCCL."""
    monkeypatch.setattr(gpu, "SECONDS", 0.0)
    monkeypatch.setattr(common, "use_threads", lambda count: 1)
    path = tmp_path / "gpu.json"
    told = "--device cpu --profiles compact --parts decode forward together --batch-sizes 8"
    told += " --copies 1 --seconds 0.4 --minutes 9"
    monkeypatch.setattr(sys, "argv", ["gpu", str(puppet), *told.split(), "--json", str(path)])
    gpu.main()
    found = json.loads(path.read_text())
    assert found["missing"] == [] and found["line"] in capsys.readouterr().out
    rows = found["rows"]
    assert all(row["rate"] > 0 for row in rows)
    alone = {(*row["what"].split(", "), row["batch"]) for row in rows if row["part"] == "forward"}
    for network in ("Tower visual", "Tower audio", "CompactIdentity", "CompactExpression"):
        for precision in ("float32", "bfloat16"):
            for order in ("channels last", "channels first"):
                assert (f"compact {network}", precision, order, 8) in alone
    whole = [row for row in rows if row["part"] == "together"]
    assert [row["what"] for row in whole[::2]] == ["compact, float32", "compact, bfloat16"]
    assert all(row["batch"] in (8, None) and 0 < row["share"] < 2 for row in whole)


def test_gpu_says_what_it_could_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if gpu.why_not("cuda") == "":
        pytest.skip("there is a GPU")
    monkeypatch.setattr(sys, "argv", ["gpu", "none.mp4"])
    gpu.main()
    assert capsys.readouterr().out.startswith("Not run: 'cuda' is not available")


def test_a_gpu_s_report_ends_in_time_and_takes_the_fastest_batches(tmp_path: Path) -> None:
    report = gpu.Report("", "G", tmp_path / "gpu.json")

    def rows() -> Iterator[gpu.Row]:
        for size, first, second in ((8, 100.0, 10.0), (16, 50.0, 20.0), (32, 900.0, 0.0)):
            yield gpu.Row("forward", "a, float32, channels last", first, batch=size)
            yield gpu.Row("forward", "b, float32, channels last", second, batch=size)

    report.run("forward", rows(), 60)
    assert report.best_size() == 16  # 1/50 + 1/20 s a frame; 1/100 + 1/10 with 8
    report.run("forward", rows(), -1)
    assert len(report.rows) == 7 and "-1 s were over" in report.missing[0]
    assert len(json.loads(report.path.read_text())["rows"]) == 7


def test_warm_scores_from_the_store_alone(weights_folder: Path) -> None:
    out = run(
        *("-m", "benchmarks.warm", "--methods", 1, "--items", 14, "--frames", 12),
        *("--runs", 1, "--workers", 2),
        SPFEM_BENCH_WEIGHTS=str(weights_folder),
    )
    assert "1 methods x 28 items" in out
    parts = {row[0]: row[1] for row in table(out, "part")}
    assert int(parts["components"]) > 0 and int(parts["of them, FAD"]) > 0
    assert [row[0] for row in table(out, "processes")] == ["1", "2"]


def test_many_items_go_all_the_way_without_a_network() -> None:
    out = run("-m", "benchmarks.many_items", "--items", 140, "--frames", 6)
    rows = {row[0]: row[1:] for row in table(out, "items")}
    assert all(float(rows[f"{part}, CPU s"][0]) > 0 for part in ("plan", "scores, record", "read"))
    # 140 outputs in three networks; 140 of 700 recordings as references and sources, 14 as real.
    assert int(rows["files of features"][0]) > 3 * 140
    assert float(rows["record, MB"][0]) > 0


def test_many_items_fit_exponents_to_each_part() -> None:
    found = {
        n: {"seconds": {"plan": n / 1e3, "read": n**2 / 1e6}, "peaks": {"plan": 50.0}, "wall": 1.0}
        | {"record MB": 1.0, "report MB": 1.0, "files": n}
        for n in (1000, 2000, 4000)
    }
    rows, headers = many_items.table(found)
    fitted = {row[0]: row[-1] for row in rows}
    assert headers == ["items", "1,000", "2,000", "4,000", "exponent"]
    assert fitted["plan, CPU s"].startswith("1.00") and fitted["read, CPU s"].startswith("2.00")
    assert fitted["largest memory, MB"].startswith("0.00")


def test_growth_fits_an_exponent() -> None:
    out = run("-m", "benchmarks.growth", "--axes", "frames", "--sizes", 25, 50, "--rounds", 1)
    sizes, (fit,) = (table(out, "what grows"), table(out.rpartition("|\n\n")[2], "what grows"))
    assert [row[:2] for row in sizes] == [["frames", "25"], ["frames", "50"]]
    assert fit[0] == "frames" and "± inf" in fit[1]  # two sizes: no interval


def test_growth_with_methods_evaluates_them(
    puppet: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_protocol(tmp_path / "cards")
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("SPFEM_BENCH_CACHE", "")  # set anew by what is tested, and put back
    how = {"clip": str(puppet.path), "renders": str(tmp_path / "renders")}
    assert growth.methods(how, 1, tmp_path).cpu > 0


def test_stccl_training_says_where_a_step_goes() -> None:
    out = run(
        *("benchmarks/stccl_training.py", "--steps", 1, "--frames", 5),
        *("--rows", "batched, maps in memory"),
    )
    ((row, *numbers),) = table(out, "training")
    assert row == "batched, maps in memory" and "%" in numbers[2]
    assert len(table(out, "frames in a batch")) == 5
