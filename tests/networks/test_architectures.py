"""An architecture is one file and a card: ours, and one of the user's."""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import spfem_bench.networks
from benchmarks.faults import METHOD, PROTOCOL, write_protocol
from spfem_bench.definitions import cards
from spfem_bench.definitions.architectures import ARCHITECTURES
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.networks import network_card, profile_card
from spfem_bench.errors import CardError
from spfem_bench.hashes import sha256_of
from tests.conftest import ROOT

TOY = '''
import torch

from spfem_bench.definitions.architectures import ARCHITECTURES


@ARCHITECTURES.register("toy-mean")
class ToyMean(torch.nn.Module):
    """The mean colour of 8 x 8 areas, times a weight."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        areas = torch.nn.functional.adaptive_avg_pool2d(x, 8).flatten(1)
        return {"embedding": areas * self.weight}
'''

CARD = """
title = "Mean colours"
role = "identity"
architecture = "{architecture}"
source = "a test"
licence = "MIT"
citation = "none"
outputs = {{ embedding = 192 }}
input = {{ crop = "arcface", width = 112, mean = 127.5, std = 127.5 }}

[[files]]
name = "toy.safetensors"
sha256 = "{sha256}"
"""


def test_decorators_read_as_text_are_those_that_register() -> None:
    for module in pkgutil.iter_modules(spfem_bench.networks.__path__):
        importlib.import_module(f"spfem_bench.networks.{module.name}")
    ours = {
        kind: (registered.__module__, ARCHITECTURES._runtimes[kind])
        for kind, registered in ARCHITECTURES._kinds.items()
        if registered.__module__.startswith("spfem_bench.networks")
    }
    assert ours == ARCHITECTURES._built_in and len(ours) == 15


def test_cards_are_read_without_torch() -> None:
    script = (
        "import sys\n"
        "from spfem_bench.definitions.cards import Kind, names\n"
        "from spfem_bench.definitions.networks import network_card\n"
        "for name in names(Kind.NETWORK): network_card(name).settings()\n"
        "heavy = {'torch', 'onnxruntime', 'ncnn', 'h5py', 'cv2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_our_own_architectures_add_nothing_to_settings() -> None:
    for name in names(Kind.NETWORK):
        assert "plugin" not in network_card(name).settings()


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A folder of cards with a toy network, its weights and a profile; and its source file."""
    networks = tmp_path / "cards" / "metrics" / "networks"
    (networks / "weights").mkdir(parents=True)
    weights = networks / "weights" / "toy.safetensors"
    save_file({"weight": torch.tensor([2.0])}, weights)
    text = CARD.format(architecture="toy-mean", sha256=sha256_of(weights))
    (networks / "toy.toml").write_text(text)
    profile = cards.builtin_folder() / "metrics" / "profiles" / "compact.toml"
    profiles = tmp_path / "cards" / "metrics" / "profiles"
    profiles.mkdir()
    (profiles / "toy.toml").write_text(profile.read_text().replace("compact-identity", "toy"))
    (tmp_path / "toy.py").write_text(TOY)
    return tmp_path


def test_an_unknown_architecture_is_refused_with_near_names(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = toy / "cards" / "metrics" / "networks" / "toy.toml"
    path.write_text(path.read_text().replace("toy-mean", "iresnet-50"))
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(toy / "cards"))
    with pytest.raises(CardError, match=r"unknown architecture 'iresnet-50'.*'iresnet50'"):
        network_card("toy")


def test_a_toy_network_is_evaluated_and_signed(toy: Path, demo_cache: Path) -> None:
    write_protocol(toy / "cards")
    (toy / "cache").mkdir()
    (toy / "cache" / "data").symlink_to(demo_cache / "data")

    def evaluate() -> dict[str, Any]:
        command = ["eval", "--protocol", PROTOCOL, "--method", METHOD, "--profile", "toy"]
        done = subprocess.run(
            [sys.executable, "-m", "spfem_bench", *command, "--metrics", "id-sim", "-q"],
            cwd=toy,
            env=os.environ
            | {
                "SPFEM_BENCH_CARDS": str(toy / "cards"),
                "SPFEM_BENCH_CACHE": str(toy / "cache"),
                "SPFEM_BENCH_PLUGINS": str(toy / "toy.py"),
                "PYTHONPATH": str(ROOT),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        record = json.loads((toy / "results" / PROTOCOL / f"{METHOD}.toy.json").read_text())
        return dict(record["scores"][-1])

    first = evaluate()
    assert -1 <= first["value"] <= 1 and "toy@" in first["signature"]
    (toy / "toy.py").write_text(TOY + "# another source\n")
    second = evaluate()
    assert second["signature"] != first["signature"] and second["value"] == first["value"]


def test_the_toy_profile_is_unknown_without_its_plugin(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(toy / "cards"))
    with pytest.raises(CardError, match="unknown architecture 'toy-mean'"):
        profile_card("toy").network("identity")
