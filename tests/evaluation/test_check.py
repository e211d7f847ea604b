"""``spfem-bench check``: what holds, what moved, why, and how references are rewritten."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.metrics import metric_card
from tests.conftest import Outcome, World

Run = Callable[..., Outcome]

CARD = """\
title = "Four strips"  # a person's remark
profile = "mini"
command = "spfem-bench check strips --update --reason TEXT"

[methods]
strips = ["source", "ned"]

[tolerance.fad]
absolute = 0.01
relative = 0.01
reason = "rounding of other batches, times a hundred"

[tolerance.my-sim]
absolute = 1e-5
reason = "rounding of other batches, times a hundred"
"""


@dataclass(frozen=True)
class Strips:
    """A user's folder of cards with a set of reference numbers, ``strips``."""

    run: Run
    cards: Path
    monkeypatch: pytest.MonkeyPatch

    @property
    def folder(self) -> Path:
        return self.cards / "reference_results" / "measured"

    def rows(self) -> list[dict[str, str]]:
        with (self.folder / "strips.csv").open() as file:
            return list(csv.DictReader(file))

    def write_rows(self, rows: list[dict[str, str]]) -> None:
        with (self.folder / "strips.csv").open("w") as file:
            writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    def change(self, method: str, metric: str, column: str, by: float) -> str:
        """Move one number of the reference; return what its row is called."""
        rows = self.rows()
        row = next(
            r for r in rows if (r["method"], r["metric"], r["emotion"]) == (method, metric, "sad")
        )
        row[column] = repr(float(row[column]) + by)
        self.write_rows(rows)
        return f"strips/{method}/{metric}/sad"

    def edited(self, file: str, old: str, new: str) -> Strips:
        """Return a copy in which one card says something else (cards are read once)."""
        folder = self.cards.with_name(self.cards.name + "-edited")
        shutil.copytree(self.cards, folder)
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))
        self.monkeypatch.setenv("SPFEM_BENCH_CARDS", str(folder))
        return Strips(self.run, folder, self.monkeypatch)

    def check(self, *arguments: str) -> Outcome:
        return self.run("check", "strips", "--cached", "-q", *arguments)

    def check_json(self) -> dict[str, Any]:
        (found,) = json.loads(self.check("--json").out)
        return dict(found)

    def update(self, reason: str = "the first numbers") -> Outcome:
        return self.check("--update", "--reason", reason)


@pytest.fixture
def strips(
    spfem_bench: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Strips:
    cards = tmp_path / "cards"
    shutil.copytree(world.cards, cards)
    protocol = (cards / "protocols/mini.toml").read_text().splitlines()
    protocol = [
        'metrics = ["fad", "my-sim"]' if li.startswith("metrics") else li for li in protocol
    ]
    (cards / "protocols/strips.toml").write_text("\n".join(protocol))
    metric = (builtin_folder() / "metrics/csim.toml").read_text()
    (cards / "metrics/my-sim.toml").write_text(metric)
    (cards / "reference_results/measured").mkdir(parents=True)
    (cards / "reference_results/measured/strips.toml").write_text(CARD)
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(cards))
    return Strips(spfem_bench, cards, monkeypatch)


@pytest.fixture(scope="session")
def first_numbers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first update's files are kept, so that other tests need not make them."""
    return tmp_path_factory.mktemp("first-numbers")


@pytest.fixture
def updated(strips: Strips, first_numbers: Path) -> Strips:
    if not list(first_numbers.iterdir()):
        done = strips.update()
        assert done.code == 0, done.err
        shutil.copytree(strips.folder, first_numbers, dirs_exist_ok=True)
    shutil.copytree(first_numbers, strips.folder, dirs_exist_ok=True)
    return strips


# ---- what holds ---------------------------------------------------------------------------


def test_numbers_hold_when_everything_is_computed_anew(updated: Strips, common_cache: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in common_cache.rglob("*")}
    done = updated.run("check", "strips", "-q", "--workers", "2")
    assert done.code == 0, done.out + done.err
    (line,) = done.out.splitlines()
    assert line.startswith("strips: 12 rows of 2 methods hold; the farthest, strips/")
    assert {p: p.stat().st_mtime_ns for p in common_cache.rglob("*")} == before
    rows = updated.rows()
    assert len(rows) == 2 * 2 * 3  # methods, metrics, two emotions and their mean
    assert {r["n_items"] for r in rows if r["emotion"] == "avg"} == {"4"}
    for row in rows:
        version = metric_card(row["metric"]).version
        assert row["signature"].startswith(f"{row['metric']}:{version}|strips:1|mini|")


def test_a_number_may_move_within_its_tolerance(updated: Strips) -> None:
    name = updated.change("ned", "my-sim", "value", 0.9e-5)
    done = updated.check()
    assert done.code == 0
    assert f"the farthest, {name}, is at 0.9 of its tolerance" in done.out
    # The larger of absolute and relative counts.
    fad = [r for r in updated.check_json()["rows"] if r["metric"] == "fad"]
    assert {r["tolerance"] for r in fad if r["method"] == "source"} == {0.01}
    for row in (r for r in fad if r["method"] == "ned"):
        assert row["reference"] > 1
        assert row["tolerance"] == pytest.approx(0.01 * row["reference"])


def test_other_programs_alone_are_no_error(updated: Strips) -> None:
    path = updated.folder / "strips.settings.json"
    settings = json.loads(path.read_text())
    here = settings["software"]["torch"]
    settings["software"]["torch"] = "2.4.0"
    settings["media"]["ffmpeg"] = "0.1"
    path.write_text(json.dumps(settings))
    done = updated.check()
    assert done.code == 0
    assert f"torch {here} (was 2.4.0)" in done.out and "(was 0.1)" in done.out
    assert "tolerances cover" in done.out
    updated.change("ned", "fad", "value", 1)
    moved = updated.check()
    assert moved.code == 1
    assert "The programs moved these numbers" in moved.out and "(was 2.4.0)" in moved.out


# ---- what does not --------------------------------------------------------------------------


@pytest.mark.parametrize("column", ["value", "low", "high"])
def test_a_number_that_moved_is_named(updated: Strips, column: str) -> None:
    name = updated.change("ned", "my-sim", column, 1.1e-5)
    done = updated.check()
    assert done.code == 1
    (row,) = [line for line in done.out.splitlines() if line.startswith(name)]
    assert row.split()[-1] == "moved" and "-1.1e-05" in row and " 1e-05 " in row
    assert f"({column})" in row or column == "value"
    assert "strips: 11 of 12 rows" in done.out
    assert "no setting differs" in done.out
    assert "spfem-bench check strips --update --reason" in done.out and "CHANGELOG" in done.out
    found = updated.check_json()
    assert found["holds"] is False and found["changes"] == []
    (moved,) = [r for r in found["rows"] if r["verdict"] != "within"]
    assert (moved["column"], moved["emotion"]) == (column, "sad")
    assert moved["difference"] == pytest.approx(-1.1e-5, rel=1e-2)


def test_the_farthest_rows_come_first_and_the_rest_is_counted(
    updated: Strips, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spfem_bench.reporting.check.SHOWN", 1)
    near = updated.change("source", "my-sim", "value", 2e-5)
    far = updated.change("ned", "my-sim", "value", 3e-5)
    lines = updated.check().out.splitlines()
    assert lines[2].startswith(far)
    assert lines[3].startswith("… and 1 more, less far out")
    assert not any(line.startswith(near) for line in lines)


def test_a_number_that_vanished_has_moved(updated: Strips) -> None:
    rows = updated.rows()
    rows[0]["value"] = ""
    updated.write_rows(rows)
    (moved,) = [r for r in updated.check_json()["rows"] if r["verdict"] != "within"]
    assert (moved["verdict"], moved["reference"]) == ("moved", None)
    assert updated.check().code == 1


@pytest.mark.parametrize("column", ["n_items", "n_frames"])
def test_other_counts_are_no_agreement(updated: Strips, column: str) -> None:
    updated.change("ned", "my-sim", column, 0)  # as a float's text
    rows = updated.rows()
    count = int(float(rows[0][column]))
    for row in rows:
        row[column] = str(int(float(row[column])))
    rows[0][column] = str(count + 1)
    updated.write_rows(rows)
    done = updated.check()
    assert done.code == 1
    assert f"other counts {column} {count + 1} -> {count}" in done.out


def test_new_and_missing_rows(updated: Strips) -> None:
    rows = updated.rows()
    gone = dict(rows[0], emotion="fear")
    updated.write_rows([gone, *rows[1:]])
    done = updated.check()
    assert done.code == 1
    lines = done.out.splitlines()
    first = "/".join(rows[0][k] for k in ("protocol", "method", "metric", "emotion"))
    assert any(li.startswith(f"{first} ") and "not in the reference" in li for li in lines)
    missing = first.rsplit("/", 1)[0] + "/fear"
    assert any(li.startswith(missing) and "only in the reference" in li for li in lines)


def test_a_changed_metric_is_named_even_when_no_number_moved(updated: Strips) -> None:
    edited = updated.edited("metrics/my-sim.toml", "version = 1", "version = 2")
    done = edited.check()
    assert done.code == 1
    assert "score-changing: metric my-sim: version 1 -> 2" in done.out
    assert "12 rows of 2 methods hold" in done.out
    assert "under its old version" not in done.out
    assert edited.update("my-sim 2").code == 0
    assert edited.check().code == 0


def test_a_change_under_the_old_version_is_told_so(updated: Strips) -> None:
    edited = updated.edited("metrics/my-sim.toml", 'pooling = "mean"', 'pooling = "frames"')
    done = edited.check()
    assert done.code == 1
    assert "score-changing: metric my-sim: statistic.pooling mean -> frames" in done.out
    assert "metric my-sim is changed under its old version: raise 'version'" in done.out


def test_changed_protocols_networks_and_methods_are_named(updated: Strips) -> None:
    path = updated.folder / "strips.settings.json"
    settings = json.loads(path.read_text())
    settings["protocol strips"]["list"] = "0" * 64
    settings["control source"]["clip"] = "real"
    settings["network old-net"] = settings["network mobilefacenet"]
    del settings["network mobilefacenet"]
    path.write_text(json.dumps(settings))
    done = updated.check()
    assert done.code == 1
    for words in (
        "protocol strips: list 00000000 -> ",
        "control source: clip real -> source",
        "network old-net is gone",
        "network mobilefacenet is new",
    ):
        assert f"score-changing: {words}" in done.out


def test_files_of_different_updates_are_told(updated: Strips) -> None:
    rows = updated.rows()
    rows[0]["signature"] = "fad:1|another"
    updated.write_rows(rows)
    done = updated.check()
    assert done.code == 1
    assert "score-changing: signature: fad fad:1|another -> fad:2|strips:1|" in done.out


# ---- rewriting ------------------------------------------------------------------------------


def test_an_update_keeps_the_history_and_what_a_person_wrote(updated: Strips) -> None:
    card = updated.folder / "strips.toml"
    first = card.read_text()
    assert first.startswith(CARD) and first.count("[[history]]") == 1
    before = updated.rows()
    updated.change("ned", "fad", "value", 1)
    assert updated.update('a second "reason"\n with — signs \\').code == 0
    assert updated.rows() == before
    assert card.read_text().startswith(first)
    # Cards are read once in a process: read it as another one would.
    copy = updated.edited("reference_results/measured/strips.toml", "Four strips", "Strips")
    from spfem_bench.definitions.measured import measured_card

    history = measured_card("strips").history
    assert [u.reason for u in history] == ["the first numbers", 'a second "reason" with — signs \\']
    assert all(u.version and u.machine for u in history)
    assert copy.check().code == 0


def test_a_killed_update_leaves_no_new_number_without_a_reason(
    updated: Strips, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = updated.rows()
    kept[0]["value"] = "1"
    updated.write_rows(kept)
    move = os.replace

    def killed(source: Path, target: Path) -> None:
        if Path(target).suffix in (".json", ".csv"):
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr("spfem_bench.files.os.replace", killed)
    assert updated.update("why").code == 130
    assert updated.rows() == kept
    assert "why" in (updated.folder / "strips.toml").read_text()
    assert not list(updated.cards.rglob(".new-*"))


def test_a_part_of_the_clips_is_no_reference(strips: Strips, world: World, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(world.data, data)
    next((data / "mini").glob("*.mkv")).unlink()
    strips.monkeypatch.setenv("SPFEM_BENCH_DATA", str(data))
    done = strips.update()
    assert done.code == 1
    assert "not rewritten: clips were refused" in done.err and "missing" in done.err
    assert not (strips.folder / "strips.csv").exists()


def test_clips_that_cannot_be_scored_are_told(
    updated: Strips, world: World, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(world.data, data)
    next((data / "mini").glob("*sad*.mkv")).unlink()
    updated.monkeypatch.setenv("SPFEM_BENCH_DATA", str(data))
    done = updated.check()
    assert done.code == 1
    assert "not scored: strips/ned: missing: mini/" in done.out
    assert "moved" in done.out and "--update" not in done.out


# ---- wrong input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--update"], 2, "--update needs --reason"),
        (["--update", "--reason", " \t "], 2, "--update needs --reason"),
        (["--update", "--reason", "bell \x07"], 2, "cannot be printed"),
        (["--reason", "because"], 2, "--reason belongs to --update"),
        (["stripes"], 1, "unknown reference numbers 'stripes'. Did you mean 'strips'?"),
        (["--workers", "0"], 2, "--workers"),
        ([], 1, "no reference numbers yet. Type 'spfem-bench check strips --update --reason"),
    ],
)
def test_wrong_options(strips: Strips, arguments: list[str], code: int, expected: str) -> None:
    done = strips.check(*arguments)
    assert done.code == code
    assert expected in done.err


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"ned"]', '"nedd"]', "unknown method 'nedd'. Did you mean 'ned'?"),
        ('"ned"]', '"eat"]', "has no clips of 'eat'"),
        ('"ned"]', '"stccl-ned"]', "'stccl-ned' is another name of 'stccl-vd-ned'"),
        ("strips = [", "stripes = [", "unknown protocol 'stripes'. Did you mean 'strips'?"),
        ('profile = "mini"', 'profile = "minni"', "Did you mean 'mini'?"),
        ("[tolerance.my-sim]", "[tolerance.csim]", "no tolerance for 'my-sim'"),
        ("[tolerance.my-sim]", "[tolerance.my-simm]", "Did you mean 'my-sim'?"),
        ("absolute = 1e-5", "absolute = 0", "tolerance.my-sim.absolute"),
        ("relative = 0.01", "relativ = 0.01", "unknown key 'tolerance.fad.relativ'"),
        ("command =", "history = []\ncommand =", "not valid TOML"),
    ],
)
def test_wrong_cards(strips: Strips, old: str, new: str, expected: str) -> None:
    done = strips.edited("reference_results/measured/strips.toml", old, new).update()
    assert done.code == 1
    assert expected in done.err
    assert "strips.toml" in done.err or "profile" in old
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda text: text.replace(",value,", ",valeu,", 1), "the column 'valeu'"),
        (lambda text: text + text.splitlines()[-1] + "\n", "is there twice"),
        (lambda text: text.replace(",4,", ",four,", 1), "n_items is 'four', not a number"),
        (lambda text: text[: text.rindex(",")], "the number of cells differs"),
    ],
)
def test_damaged_rows_name_file_and_line(
    updated: Strips, change: Callable[[str], str], expected: str
) -> None:
    path = updated.folder / "strips.csv"
    path.write_text(change(path.read_text()))
    done = updated.check()
    assert done.code == 1
    assert f"{path}, line " in done.err and expected in done.err


def test_infinite_numbers_are_none(updated: Strips) -> None:
    rows = updated.rows()
    rows[0]["value"] = "nan"
    updated.write_rows(rows)
    assert "value is 'nan', not a number" in updated.check().err


@pytest.mark.parametrize("content", [None, "{", "[]", '{"software": 3}'])
def test_damaged_settings(updated: Strips, content: str | None) -> None:
    path = updated.folder / "strips.settings.json"
    if content is None:
        path.unlink()
    else:
        path.write_text(content)
    done = updated.check()
    assert done.code == 1
    assert str(path) in done.err and "from one commit" in done.err


def test_a_folder_that_cannot_be_written_is_known_before_any_work(
    strips: Strips, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("work was done")

    monkeypatch.setattr("spfem_bench.files._create", refused)
    monkeypatch.setattr("spfem_bench.evaluation.check.recompute", forbidden)
    done = strips.update()
    assert done.code == 1
    assert "Permission denied" in done.err and "SPFEM_BENCH_CARDS" in done.err


def test_missing_weights_say_what_to_type(
    updated: Strips, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "none").mkdir()
    monkeypatch.setenv("SPFEM_BENCH_WEIGHTS", str(tmp_path / "none"))
    done = updated.check()
    assert done.code == 1
    assert "'strips' cannot be computed" in done.err and "spfem-bench networks fetch" in done.err
