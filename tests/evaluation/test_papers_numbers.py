"""Every number of the papers' own scripts, on published clips with seeded weights.

`authors_recipe/expected.json` holds what the scripts behind the papers' tables printed (README
there); `authors_recipe/tools/seeded_weights.py` makes the weights that cannot be passed on.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from typing import Any

import pytest
import torch

from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import Item
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.networks.syncnet import SyncNet
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.statistics.base import kind_of
from spfem_bench.statistics.frechet import FrechetKind
from tests.conftest import WHY_NOT
from tests.papers_networks import RECIPE, seeded_state

CLIPS = {
    "M003_source_sad_033": ("M003", 0),
    "W015_source_sad_028": ("W015", 0),
    "W015_source_sad_030": ("W015", 40),
}
METHODS = ("ned", "stccl-vd", "real")

pytestmark = pytest.mark.skipif(not RECIPE.is_dir(), reason=WHY_NOT)


def states() -> Mapping[str, Any]:
    """Return what the official files hold, in their form: (network, content)."""
    shapes = json.loads((RECIPE / "state_dict_names.json").read_text())
    official = {key: {k: tuple(v) for k, v in one.items()} for key, one in shapes.items()}
    syncnet = {name: tuple(v.shape) for name, v in SyncNet().state_dict().items()}
    return {
        "resnet-face18": seeded_state(official["resnet_face18"]),
        "efficientface": {"epoch": 1, "state_dict": seeded_state(official["efficientface"])},
        "syncnet-v2-ned": seeded_state(syncnet),
    }


@pytest.fixture(scope="module")
def extractor(tmp_path_factory: pytest.TempPathFactory) -> Extractor:
    top = tmp_path_factory.mktemp("papers")
    networks, profiles, weights = (top / n for n in ("metrics/networks", "metrics/profiles", "w"))
    for folder in (networks, profiles, weights):
        folder.mkdir(parents=True)
    profile = (builtin_folder() / "metrics/profiles/papers.toml").read_text()
    for name, state in states().items():
        stream = io.BytesIO()
        torch.save(state, stream)
        card = (builtin_folder() / f"metrics/networks/{name}.toml").read_text()
        head, file = card.split("[[files]]")
        official = next(line for line in file.splitlines() if line.startswith("name"))
        content = stream.getvalue()
        (weights / official.split('"')[1]).write_bytes(content)
        sha = hashlib.sha256(content).hexdigest()
        file = f'{official}\nsha256 = "{sha}"\npage = "https://example.org"\n'
        (networks / f"seeded-{name}.toml").write_text(f"{head}[[files]]\n{file}")
        profile = profile.replace(f'"{name}"', f'"seeded-{name}"')
    (profiles / "seeded-papers.toml").write_text(profile)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPFEM_BENCH_CARDS", str(top))
        card = profile_card("seeded-papers")
        store = FeatureStore(top / "features")
        made = Extractor(card, WeightsStore(weights), store, faces="aligned")
        requests = {
            clip(m, c, s): frozenset(["sync"]) for m in METHODS for c in CLIPS for s in SKIPS
        }
        for method in METHODS:
            for name in CLIPS:
                requests[clip(method, name)] = frozenset(["identity", "expression", "sync"])
        assert made.ensure(requests) == {}
        yield made


SKIPS = (0, 2)


def clip(method: str, name: str, skip: int = 0) -> Clip:
    speaker, first = CLIPS[name]
    folder, sound = RECIPE / f"faces/{method}/sad/{speaker}", RECIPE / f"faces/audio/{name}.wav"
    return Clip(folder, None, 30.0, sound, pictures=(first, first + 40), skip=skip)


def parts(extractor: Extractor, metric: str, method: str, **settings: object) -> tuple[Any, list]:
    card = metric_card(metric)
    kind = kind_of(card).model_copy(update=settings)
    made = []
    # Not in the order of frames: the kind puts them in order.
    for name in sorted(CLIPS, reverse=True):
        pair = {"output": clip(method, name), "real": clip("real", name)}
        features = {role: [extractor.load(one, card.role)] for role, one in pair.items()}
        item = Item(name, name[:4], "sad", {"real": pair["real"]}, {})
        made.append(kind.of_item(kind.part(card, pair["output"], features), item))
    return kind, made


@pytest.fixture(scope="module")
def expected() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RECIPE / "expected.json").read_text())
    return found


@pytest.mark.parametrize("method", METHODS)
def test_fad_is_the_scripts(extractor: Extractor, expected: dict[str, Any], method: str) -> None:
    kind, made = parts(extractor, "fad-papers", method)
    value = kind.score(made).value
    assert value == pytest.approx(expected[f"fid/{method}"], rel=1e-5, abs=1e-3)
    exact = FrechetKind(kind="frechet").score(made).value
    assert exact == pytest.approx(expected[f"fid_exact/{method}"], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("key", "most"), [("csim", 100), ("csim20", 20)])
@pytest.mark.parametrize("method", METHODS)
def test_csim_is_the_scripts(
    extractor: Extractor, expected: dict[str, Any], method: str, key: str, most: int
) -> None:
    kind, made = parts(extractor, "csim-papers", method, most=most)
    assert kind.score(made).value == pytest.approx(expected[f"{key}/{method}"], abs=1e-6)


@pytest.mark.parametrize("skip", SKIPS)
@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize("method", METHODS)
def test_lip_sync_is_the_scripts(
    extractor: Extractor, expected: dict[str, Any], method: str, name: str, skip: int
) -> None:
    features = extractor.load(clip(method, name, skip), "sync")
    for metric, number in zip(
        ("lse-d-papers", "lse-c-papers"), expected[f"lse/{method}/{name}/skip{skip}"], strict=True
    ):
        card = metric_card(metric)
        kind = kind_of(card)
        part = kind.part(card, clip(method, name), {"output": [features]})
        assert kind.value(part) == pytest.approx(number, rel=1e-5, abs=1e-3)
