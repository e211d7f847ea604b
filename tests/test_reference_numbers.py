"""The numbers that this repository says the demo gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from spfem_bench.cli.main import main


def test_the_demo_s_reference_numbers_hold(
    demo_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command; clips and features are shared with the demo's other tests."""
    monkeypatch.setenv("SPFEM_BENCH_CACHE", str(demo_cache))
    done = CliRunner().invoke(main, ["check", "demo", "--cached", "-q"])
    assert done.exit_code == 0, done.output
    assert "demo-inter-id: 480 rows of 10 methods hold" in done.output, done.output
    assert "demo-cross-id: 192 rows of 4 methods hold" in done.output, done.output
