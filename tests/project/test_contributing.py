"""A newcomer adds the metric kind that CONTRIBUTING.md describes, from that page alone."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from spfem_bench.definitions.protocols import protocol
from tests.conftest import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def block(start: str) -> str:
    """Return the first block of code that begins so."""
    found = re.search(rf"```\w+\n({re.escape(start)}.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_page_s_metric_kind_is_scored_and_compared(tmp_path: Path, demo_cache: Path) -> None:
    """Values are lengths of two clips, read from their files by hand."""
    (tmp_path / "my_kind.py").write_text(block('"""Number of frames'))
    (tmp_path / "my-cards/metrics").mkdir(parents=True)
    (tmp_path / "my-cards/metrics/length.toml").write_text(block('title = "Number of frames"'))
    exports = dict(re.findall(r"(\w+)=(\S+)", block("export SPFEM_BENCH_PLUGINS")))

    def run(*arguments: str) -> str:
        environment = os.environ | exports | {"SPFEM_BENCH_CACHE": str(demo_cache)}
        command = [sys.executable, "-m", "spfem_bench", *arguments]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    run("protocol", "export", "demo-inter-id", "my-cards/protocols")
    card = tmp_path / "my-cards/protocols/my-demo-inter-id.toml"
    card.write_text(re.sub(r"metrics = \[.*\]", 'metrics = ["length"]', card.read_text()))
    for method in ("source", "real"):
        run("eval", "--method", method, "--protocol", str(card))
    # All clips of source and real, by the frames that ffmpeg counts in them.
    from spfem_bench.media import video

    folder = protocol("demo-inter-id").card.path.parent / "datasets/puppets"
    mean = {}
    for role in ("source", "real"):
        of_emotion: dict[str, list[int]] = {}
        for item in protocol("demo-inter-id").items:
            clip = item.clips[role].within(folder)
            of_emotion.setdefault(item.emotion, []).append(sum(1 for _ in video.frames(clip)))
        means = [sum(counts) / len(counts) for counts in of_emotion.values()]
        mean[role] = sum(means) / len(means)
    printed = run("compare", "results/my-demo-inter-id", "--baseline", "source")
    assert re.search(rf"Length.*{mean['source']:.3f} +{mean['real']:.3f}", printed)
    assert "Length" in run("table", "results/my-demo-inter-id")
