"""The GitHub Action in action.yml, its shell steps run as a runner runs them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest

from tests.conftest import ROOT

TAKES = ROOT / "protocols/datasets/puppets"
yaml = pytest.importorskip("yaml", reason="needs PyYAML: pip install 'spfem-bench[dev]'")


def action() -> dict[str, Any]:
    loaded = yaml.safe_load((ROOT / "action.yml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def filled(text: str, values: dict[str, str]) -> str:
    """Put values in the place of GitHub's expressions."""
    return re.sub(r"\$\{\{ *([\w.]+) *\}\}", lambda found: values[found[1]], text)


def run_action(inputs: dict[str, str], folder: Path, cache: Path) -> tuple[int, str, str]:
    """Run all shell steps but the installation; return the exit code, output and summary."""
    found, output, summary = action(), folder / "output", folder / "summary"
    values = {f"inputs.{k}": str(v.get("default", "")) for k, v in found["inputs"].items()}
    values |= {f"inputs.{k}": v for k, v in inputs.items()}
    printed = ""
    for step in found["runs"]["steps"]:
        condition = re.fullmatch(r"([\w.]+) != ''", step.get("if", ""))
        if (
            "run" not in step
            or step["name"] == "Install"
            or (condition and not values[condition[1]])
        ):
            continue
        output.write_text("")
        environment = {
            **os.environ,
            **{k: filled(v, values) for k, v in step["env"].items()},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "SPFEM_BENCH_CACHE": str(cache),
            "GITHUB_OUTPUT": str(output),
            "GITHUB_STEP_SUMMARY": str(summary),
        }
        done = subprocess.run(
            ["/bin/bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        printed += done.stdout + done.stderr
        if done.returncode:
            return done.returncode, printed, summary.read_text() if summary.exists() else ""
        for line in output.read_text().splitlines():
            key, _, value = line.partition("=")
            values[f"steps.{step['id']}.outputs.{key}"] = value
    return 0, printed, summary.read_text() if summary.exists() else ""


def test_a_model_is_scored_and_a_worse_one_fails(tmp_path: Path, demo_cache: Path) -> None:
    takes = sorted(TAKES.glob("*/neutral/0.00/*.mp4"))[:3]  # three speakers
    for top in ("my sources", "out"):
        (tmp_path / top).mkdir()
        for n, take in enumerate(takes):
            shutil.copy(take, tmp_path / top / f"clip{n}.mp4")
    inputs = {
        "generated": "out",
        "source": "my sources",
        "profile": "compact",
        "method": "$(touch hacked)",
        "options": "--aligned\n--metrics\nfad,id-sim\n",
    }
    code, printed, _ = run_action(inputs, tmp_path, demo_cache)
    assert code and "$(touch hacked)" in printed, printed
    assert not (tmp_path / "hacked").exists()

    inputs["method"] = "model"
    code, printed, _ = run_action(inputs, tmp_path, demo_cache)
    assert code == 0, printed
    record = tmp_path / "spfem-bench-results/model/model.compact.json"
    shutil.copy(record, tmp_path / "baseline.json")

    against = {**inputs, "against": "baseline.json", "tolerance": "id-sim=0.01\nfad=0.5\n"}
    for n in range(3):  # each output is now another speaker
        shutil.copy(takes[(n + 1) % 3], tmp_path / "out" / f"clip{n}.mp4")
    code, printed, summary = run_action(against, tmp_path, demo_cache)
    assert code == 1, printed
    assert "Fails: id-sim of model on model." in summary
    root = Xml.parse(tmp_path / "spfem-bench-results/regression.xml").getroot()  # noqa: S314  (our own)
    failed = [
        case.get("name") for case in root.iter("testcase") if case.find("failure") is not None
    ]
    assert failed == ["id-sim"]


def test_inputs_never_become_a_part_of_a_shells_text() -> None:
    found = action()
    for step in found["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        if "uses" in step:  # pinned to a commit
            assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", step["uses"])
    named = set(re.findall(r"inputs\.(\w+)", (ROOT / "action.yml").read_text()))
    assert named == set(found["inputs"])
