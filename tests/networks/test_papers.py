"""The papers' two networks, with seeded weights, give what the authors' scripts gave.

Files have the official form: names, ``module.`` prefixes, the key ``state_dict``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from spfem_bench.cli.main import main
from spfem_bench.definitions.architectures import ARCHITECTURES
from spfem_bench.definitions.networks import network_card
from spfem_bench.definitions.pins import pins_path
from spfem_bench.errors import WeightsError
from spfem_bench.faces import crop
from spfem_bench.networks.load import load_module, load_network
from spfem_bench.networks.quick import quickened
from spfem_bench.networks.weights import WeightsStore
from tests.conftest import SHARED, WHY_NOT

RECIPE = SHARED / "authors_recipe"
OFFICIAL = {"resnet-face18": "resnet_face18", "efficientface": "efficientface"}
FILES = {
    "resnet-face18": "resnet18_110.pth",
    "efficientface": "EfficientFace_Trained_on_AffectNet7.pth.tar",
}
State = dict[str, torch.Tensor]
Change = Callable[[State], Any]


@pytest.fixture(scope="module")
def states() -> dict[str, State]:
    """The seeded weights of both networks, by the official names."""
    if not RECIPE.is_dir():
        pytest.skip(WHY_NOT)
    spec = importlib.util.spec_from_file_location("seeded", RECIPE / "tools/seeded_weights.py")
    assert spec and spec.loader
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    shapes = json.loads((RECIPE / "state_dict_names.json").read_text())
    return {
        name: {k: torch.from_numpy(np.asarray(v)) for k, v in made.items()}
        for name, made in ((ours, tool.seeded_state(shapes[k])) for ours, k in OFFICIAL.items())
    }


def parallel(state: State) -> dict[str, Any]:
    """Return what a training script saves of a network in torch's ``DataParallel``."""
    named = {f"module.{k}": v for k, v in state.items()}
    optimizer = {"state": {0: {"momentum_buffer": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    return {"epoch": 7, "best_acc": torch.tensor(63.7), "state_dict": named, "optimizer": optimizer}


def plain(state: State) -> State:
    return state


def of_old_torch(state: State) -> State:
    """Return the state as torch saved it before it counted batches."""
    return {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}


def run_command(*arguments: str) -> Any:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPFEM_BENCH_WEIGHTS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("name", OFFICIAL)
@pytest.mark.parametrize(("form", "zipped"), [(parallel, True), (plain, False), (of_old_torch, 0)])
def test_official_files_are_pinned_and_give_the_authors_features(
    name: str, form: Change, zipped: bool, folder: Path, states: dict[str, State]
) -> None:
    torch.save(
        form(states[name]), folder / FILES[name], _use_new_zipfile_serialization=bool(zipped)
    )
    fetched = run_command("networks", "fetch", name)
    assert fetched.exit_code == 0 and "pinned: SHA-256" in fetched.stdout
    card = network_card(name)
    run = load_network(card, WeightsStore(folder))["crops"]
    expected = np.load(RECIPE / "features.npz")
    pictures = [k for k in expected.files if k.startswith(OFFICIAL[name]) and "#" not in k]
    assert len(pictures) == 3
    crops = []
    for key in pictures:
        frame = cv2.imread(str(RECIPE / "faces" / key.partition("/")[2]))[:, :, ::-1]
        crops.append(crop.cut(frame, None, card.input))
        mean, std = np.float64(card.input.mean), np.float64(card.input.std)
        total = ((crops[-1] - mean) / std).sum()
        np.testing.assert_allclose(total, expected[f"{key}#input_sum"], rtol=1e-6)
    (output,) = run(np.stack(crops)).values()
    for row, key in zip(output, pictures, strict=True):
        largest = np.abs(expected[key]).max()
        assert np.abs(row - expected[key]).max() < 1e-5 * largest
        assert np.linalg.norm(row - expected[key]) < 1e-5 * np.linalg.norm(expected[key])
    assert np.abs(output[0] - output[1]).max() > 0.01  # three pictures, not one


@pytest.mark.parametrize("name", OFFICIAL)
def test_quickened_networks_compute_the_same(name: str, states: dict[str, State]) -> None:
    """Also with BatchNorms whose numbers differ from channel to channel, and PReLUs."""
    network = ARCHITECTURES.get(network_card(name).architecture)()
    network.load_state_dict(states[name])
    for module in network.modules():
        if isinstance(module, torch.nn.PReLU):
            torch.nn.init.uniform_(module.weight, -0.5, 0.5)
    network.eval()
    size, channels = (128, 1) if name == "resnet-face18" else (224, 3)
    noise = torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        (slow,), (fast,) = network(noise).values(), quickened(network)(noise).values()
    assert (slow - fast).abs().max() < 1e-5 * slow.abs().max()
    folded = [m for m in quickened(network).modules() if isinstance(m, torch.nn.Identity)]
    assert len(folded) > 3


# ---- other files -----------------------------------------------------------------------------


def without(name: str) -> Change:
    return lambda state: {k: v for k, v in state.items() if k != name}


def eight_classes(state: State) -> State:
    return {**state, "fc.weight": torch.zeros(8, 1024), "fc.bias": torch.zeros(8)}


def with_attention(state: State) -> State:
    return {**state, "layer1.0.se.fc.0.weight": torch.zeros(4, 64)}


class Meter:
    """What training scripts keep beside the weights."""

    def __init__(self) -> None:
        self.epochs = 7


class Attack:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch attacked",)


WRONG: list[tuple[str, Change, str]] = [
    ("resnet-face18", without("bn4.weight"), r"there is no bn4\.weight \(512,\)"),
    ("resnet-face18", lambda state: {"conv1.weight": torch.zeros(64, 3, 7, 7)}, r"\(64, 3, 7, 7\)"),
    ("resnet-face18", with_attention, "it also holds layer1.0.se.fc.0.weight"),
    ("efficientface", eight_classes, r"fc\.weight has the shape \(8, 1024\), not \(7, 1024\)"),
    ("efficientface", lambda state: {"state_dict": 3}, "no dictionary of tensors"),
    ("efficientface", lambda state: {**parallel(state), "fc": Meter()}, "Meter, which only code"),
    ("efficientface", lambda state: {"state_dict": Attack()}, r"\.system, which only code"),
    ("efficientface", lambda state: {**state, "fc.bias": 1.5}, r"fc\.bias has the shape \(\)"),
    ("efficientface", lambda state: torch.zeros(3), "no dictionary"),
]


@pytest.mark.parametrize(("name", "change", "words"), WRONG)
def test_a_file_of_another_network_is_refused_and_not_pinned(
    name: str,
    change: Change,
    words: str,
    folder: Path,
    states: dict[str, State],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    path = folder / FILES[name]
    torch.save(change(states[name]), path)
    fetched = run_command("networks", "fetch", name)
    assert fetched.exit_code == 1 and not pins_path().exists()
    line = fetched.stderr.splitlines()[0]
    assert re.search(words, line) and str(path) in line and len(line) < 600
    assert ("torch.load(FILE" in line) is ("only code" in words)
    assert [p.name for p in folder.iterdir()] == [path.name]
    with pytest.raises(WeightsError, match="not pinned yet"):
        load_module(network_card(name), WeightsStore(folder))


def test_the_error_of_a_truncated_file_and_of_a_page_is_one_line(
    folder: Path, states: dict[str, State]
) -> None:
    path = folder / FILES["efficientface"]
    torch.save(parallel(states["efficientface"]), path)
    path.write_bytes(path.read_bytes()[:-1000])
    for content, words in ((path.read_bytes(), "no whole torch file"), (b"<html>", "HTML page")):
        path.write_bytes(content)
        fetched = run_command("networks", "fetch", "efficientface")
        assert fetched.exit_code == 1 and words in fetched.stderr.splitlines()[0]
        assert "drive.google.com" in fetched.stderr


@pytest.mark.parametrize("name", OFFICIAL)
def test_without_the_file_fetch_says_where_a_browser_finds_it(name: str, folder: Path) -> None:
    fetched = run_command("networks", "fetch", name)
    page = network_card(name).files[0].page
    assert fetched.exit_code == 1 and page and page in fetched.stderr
    assert FILES[name] in fetched.stderr
