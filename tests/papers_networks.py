"""The papers' networks with seeded weights, as official files and cards, for whole runs."""

from __future__ import annotations

import hashlib
import importlib.util
import json
from collections.abc import Mapping
from pathlib import Path

import torch

from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.networks.syncnet import SyncNet
from tests.conftest import SHARED

RECIPE = SHARED / "authors_recipe"
PROFILE = "seeded-papers"
SYNC = "seeded-syncnet"


def seeded_state(names: Mapping[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Return the seeded stand-in of a state dict, by the tool beside the expected numbers."""
    where = RECIPE / "tools/seeded_weights.py"
    spec = importlib.util.spec_from_file_location("seeded_weights", where)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {name: torch.from_numpy(v) for name, v in module.seeded_state(names).items()}


def write_weights(folder: Path) -> None:
    """Write the three official files, with seeded numbers in them."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = json.loads((RECIPE / "state_dict_names.json").read_text())
    official = {key: {k: tuple(v) for k, v in one.items()} for key, one in shapes.items()}
    face = {f"module.{k}": v for k, v in seeded_state(official["resnet_face18"]).items()}
    expression = seeded_state(official["efficientface"])
    torch.save(face, folder / "resnet18_110.pth")
    torch.save(
        {"epoch": 1, "state_dict": expression},
        folder / "EfficientFace_Trained_on_AffectNet7.pth.tar",
    )
    sync = seeded_state({name: tuple(v.shape) for name, v in SyncNet().state_dict().items()})
    torch.save(sync, folder / "syncnet_v2.model")


def write_cards(folder: Path, weights: Path) -> None:
    """Write the profile papers anew, whose sync network is pinned to the seeded file.

    The hashes of the two others are not published: ``networks fetch`` pins what lies there.
    """
    card = (builtin_folder() / "metrics/networks/syncnet-v2-ned.toml").read_text()
    head, _ = card.split("[[files]]")
    sha = hashlib.sha256((weights / "syncnet_v2.model").read_bytes()).hexdigest()
    file = f'name = "syncnet_v2.model"\nsha256 = "{sha}"\npage = "https://example.org"\n'
    profile = (builtin_folder() / "metrics/profiles/papers.toml").read_text()
    for name, text in {
        f"networks/{SYNC}": f"{head}[[files]]\n{file}",
        f"profiles/{PROFILE}": profile.replace("syncnet-v2-ned", SYNC),
    }.items():
        path = folder / f"metrics/{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
