"""What every command does alike: help in one line, Ctrl-C, completed names; and the cache."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from spfem_bench.cli.main import main
from spfem_bench.evaluation.merging import save_beside
from spfem_bench.evaluation.record import RunRecord, load_run, parse_record
from spfem_bench.reporting.evaluation import preflight_lines
from tests import synthetic
from tests.cli.test_cli import commands
from tests.conftest import Outcome

Bench = Callable[..., Outcome]


def leaf(names: list[str]) -> click.Command:
    command: click.Command = main
    for name in names:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    return command


@pytest.mark.parametrize("names", list(commands(main)), ids=" ".join)
def test_ctrl_c_in_any_command_is_one_line_and_exit_code_130(names: list[str]) -> None:
    """Workers, storage and interpreters that end are in tests/execution and tests/ground."""
    command = leaf(names)

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with (
        mock.patch.object(command, "callback", interrupted),
        mock.patch.object(command, "params", []),
    ):
        done = CliRunner().invoke(main, names)
    assert done.exit_code == 130
    assert done.stderr.splitlines() == ["Interrupted."]
    assert done.stdout == ""


def test_lists_of_commands_tell_each_in_one_whole_line() -> None:
    groups: list[tuple[str, click.Group]] = [("", main)]
    groups += [(n, c) for n, c in main.commands.items() if isinstance(c, click.Group)]
    for name, group in groups:
        done = CliRunner().invoke(main, [*name.split(), "--help"], terminal_width=80)
        listed = done.output.partition("Commands:\n")[2].splitlines()
        assert len(listed) == len(group.commands), name  # none goes on in a second line
        for line in listed:
            assert line.rstrip().endswith(".") and not line.rstrip().endswith("..."), line


@pytest.mark.parametrize(
    ("args", "typed", "expected"),
    [
        (["eval", "--protocol"], "DEMO-", {"demo-inter-id", "demo-cross-id"}),
        (["eval", "--metrics"], "fad,ls", {"fad,lse-c", "fad,lse-d"}),
        (["eval", "--profile"], "li", {"light"}),
        (["list"], "prof", {"profiles"}),
        (["metric", "new", "x", "--like"], "csim-", {"csim-papers"}),
    ],
)
def test_a_shell_completes_names(args: list[str], typed: str, expected: set[str]) -> None:
    shell = ShellComplete(main, {}, "spfem-bench", "_SPFEM_BENCH_COMPLETE")
    found = {item.value for item in shell.get_completions(args, typed)}
    assert expected <= found
    last = typed.rpartition(",")[2].casefold()
    assert all(value.rpartition(",")[2].casefold().startswith(last) for value in found)


def test_profiles_are_listed_with_their_networks_and_protocols() -> None:
    done = CliRunner().invoke(main, ["list", "profiles"])
    assert done.exit_code == 0
    for words in ("identity: mobilefacenet", "detector: scrfd-500m", "demo-inter-id", "papers"):
        assert words in done.output


def test_protocols_are_listed_in_lines_that_a_terminal_has() -> None:
    done = CliRunner().invoke(main, ["list", "protocols"])
    assert done.exit_code == 0 and "(lip-width-corr)" in done.output
    assert max(map(len, done.output.splitlines())) < 160


def test_the_cache_tells_its_parts_and_deletes_what_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("SPFEM_BENCH_CACHE", str(cache))

    def run(*words: str) -> str:
        done = CliRunner().invoke(main, ["cache", *words])
        assert done.exit_code == 0, done.stderr
        return done.stdout

    assert "not there yet" in run()
    files = {
        name: cache / name for name in ("features/a/x", "features/y", "data/z", "weights/pins.json")
    }
    for path in files.values():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(500_000))
    outside = tmp_path / "precious"
    outside.write_text("mine")
    (cache / "features/link").symlink_to(outside)
    old = time.time() - 40 * 86400
    os.utime(files["features/y"], (old, old))
    assert re.search(r"features +3 +1\.0 MB", run())
    assert "3 files, 1.0 MB would be deleted" in run("prune", "--dry-run")
    assert all(path.exists() for path in files.values())
    assert "1 files, 0.5 MB deleted" in run("prune", "--older-than", "30")
    assert not files["features/y"].exists() and files["features/a/x"].exists()
    run("prune")
    assert not (cache / "features").exists() and outside.read_text() == "mine"
    assert files["data/z"].exists() and files["weights/pins.json"].exists()
    run("prune", "data")
    assert not files["data/z"].exists() and files["weights/pins.json"].exists()


def test_a_results_folder_that_is_not_there_is_told_from_a_printed_table(bench: Bench) -> None:
    Path("results/demo-inter-id").mkdir(parents=True)
    for word in ("results/typo", "results/demo-inter-idd/"):
        done = bench("table", word)
        assert done.code == 1 and word.rstrip("/") in done.err
        assert "no file or folder, and no printed table" in done.err, done.err
        assert "demo-inter-id" in done.err
        assert len(done.err.splitlines()) <= 3


def written(record: RunRecord, path: Path) -> tuple[RunRecord, str]:
    path.parent.mkdir(exist_ok=True)
    return save_beside(record, path)


def test_a_run_with_fewer_metrics_keeps_the_fuller_records(tmp_path: Path) -> None:
    full = synthetic.record("mine", metrics=("fad", "csim"))
    part = synthetic.record("mine", metrics=("fad",))
    path = tmp_path / "mine.json"
    written(parse_record(full), path)
    _, said = written(parse_record(part), path)
    assert "keeps csim from before, of the same clips" in said
    assert set(load_run(path).metrics) == {"fad", "csim"}
    assert [p.name for p in tmp_path.iterdir()] == ["mine.json"]


def test_a_fuller_record_of_other_clips_is_kept_as_old(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    for expected in ("mine.json.old", "mine.json.old2"):
        full = synthetic.record("mine", metrics=("fad", "csim"))
        written(parse_record(full), path)
        part = synthetic.record("mine", metrics=("fad",))
        part["items"][0]["clips"]["output"]["content"] = "f" * 64
        _, said = written(parse_record(part), path)
        assert f"it is kept as {expected}" in said
        assert set(load_run(tmp_path / expected).metrics) == {"fad", "csim"}
        assert set(load_run(path).metrics) == {"fad"}
        path.unlink()


def test_nothing_missing_is_no_preflight_line() -> None:
    assert preflight_lines([]) == []
