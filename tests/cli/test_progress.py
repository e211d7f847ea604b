"""How long work is shown: bars on a terminal, lines elsewhere, nothing with --quiet."""

from __future__ import annotations

import io
import re
import sys

import click
import pytest
from click.testing import CliRunner

from spfem_bench.cli import options
from spfem_bench.cli import progress as shown
from spfem_bench.definitions.computing import Computing
from spfem_bench.progress import SILENT


def test_without_a_terminal_a_line_comes_every_half_minute(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [100.0]
    monkeypatch.setattr(shown.time, "monotonic", lambda: now[0])
    lines = shown.Lines()
    lines.begin("clips", 40, "clip", done=2)
    lines.advance("clips")
    lines.advance("decode", 25)
    assert capsys.readouterr().err == ""
    now[0] += 61
    lines.advance("clips", loss=0.25)
    lines.advance("clips")
    assert capsys.readouterr().err == "1:01 min  clips: 4 of 40, loss 0.250; decode: 25\n"
    lines.end("decode")
    now[0] += 31
    lines.advance("clips", 35)
    assert capsys.readouterr().err == "1:32 min  clips: 40 of 40\n"


def test_on_a_terminal_each_phase_is_a_bar_that_ends_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    bars = shown.Bars()
    bars.begin("clips", 2, "clip")
    bars.advance("networks", 7, loss=0.5)
    bars._bars["clips"].mininterval = 0  # draw at once
    bars.advance("clips", 2)
    bars.end()
    assert re.search(r"clips +: .*2/2", terminal.getvalue())
    assert "networks: 0part" in terminal.getvalue()
    assert not bars._bars


def test_quiet_commands_show_nothing() -> None:
    assert options.progress(quiet=True) is SILENT


def test_a_command_gets_its_options_of_computing_as_one_object() -> None:
    @click.command()
    @options.computing("workers", "device", "precision", half_on_gpu=True)
    def command(computing: Computing) -> None:
        click.echo(repr(computing))

    def given(*arguments: str) -> str:
        return CliRunner().invoke(command, arguments).output.strip()

    assert given() == repr(Computing())
    assert given("--device", "cuda", "--workers", "3") == repr(
        Computing("cuda", "bfloat16", workers=3)
    )
    assert given("--device", "cuda", "--precision", "float32") == repr(Computing("cuda"))
    assert "No such option" in given("--ray", "local")


def test_a_line_comes_also_while_nothing_advances(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shown, "INTERVAL", 0.5)
    lines = shown.Lines()
    lines.begin("clips", 40, "clip")
    lines._ended.wait(2.2)
    lines.end()
    assert "clips: 0 of 40\n" in capsys.readouterr().err
