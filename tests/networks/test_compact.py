"""The compact networks: shapes, files, loading, and a profile that has no detector."""

from __future__ import annotations

import hashlib
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import save

from spfem_bench import pinned
from spfem_bench.cli.main import main
from spfem_bench.definitions import cards
from spfem_bench.definitions.networks import NetworkCard, network_card, profile_card
from spfem_bench.definitions.pins import PinnedFile
from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.errors import CardError, WeightsError
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.networks.compact import (
    CompactExpression,
    CompactIdentity,
    CompactLandmarks,
    CompactSync,
)
from spfem_bench.networks.load import load_module, load_network
from spfem_bench.networks.weights import WeightsStore

NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "compact-identity": CompactIdentity,
    "compact-expression": CompactExpression,
    "compact-landmarks": CompactLandmarks,
    "compact-sync": CompactSync,
}


def seeded(name: str) -> torch.nn.Module:
    """A network in eval mode whose statistics are not those of a fresh one."""
    torch.manual_seed(5)
    module = NETWORKS[name]()
    for key, value in module.state_dict().items():
        if key.endswith("running_var"):
            value.uniform_(0.5, 2.0)
        elif key.endswith("running_mean"):
            value.normal_(0, 0.1)
    return module.eval()


# --- architecture ---------------------------------------------------------------------


def test_the_identity_network_gives_an_embedding_and_four_stages() -> None:
    network = seeded("compact-identity")
    x = torch.randn(2, 3, 112, 112)
    assert network(x)["embedding"].shape == (2, 64)
    stages = network.stages(x)
    assert [tuple(s.shape[1:]) for s in stages] == [
        (24, 56, 56),
        (56, 28, 28),
        (112, 14, 14),
        (192, 7, 7),
    ]
    assert all((s >= 0).all() and s.std() > 0 for s in stages)


def test_the_expression_network_gives_features_and_probabilities() -> None:
    out = seeded("compact-expression")(torch.randn(3, 3, 64, 64))
    assert out["features"].shape == (3, 64)
    assert out["probabilities"].shape == (3, len(EMOTIONS))
    torch.testing.assert_close(out["probabilities"].sum(1), torch.ones(3))


def test_a_run_of_frames_gives_what_its_windows_give() -> None:
    network = seeded("compact-sync")
    frames = torch.randint(0, 256, (2, 3, 12, 64, 64)).float()
    run = network.visual(frames)
    assert run.shape == (2, 8, 64)
    for start in range(8):
        window = network.visual(frames[:, :, start : start + 5])
        torch.testing.assert_close(window[:, 0], run[:, start], rtol=1e-4, atol=1e-5)
    assert (run[:, 0] - run[:, 4]).abs().max() > 1e-4


def test_the_sync_vectors_have_length_one() -> None:
    network = seeded("compact-sync")
    seen = network.visual(torch.randint(0, 256, (1, 3, 9, 64, 64)).float())
    heard = network.audio(torch.randn(4, 1, 13, 20) * 20)
    assert heard.shape == (4, 64)
    for vectors in (seen[0], heard):
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(len(vectors)))
    silence = network.audio(torch.full((1, 1, 13, 20), -36.0))
    assert silence.isfinite().all()


def test_they_are_small_and_the_cards_say_how_small() -> None:
    total = 0
    for name, make in NETWORKS.items():
        size = len(save(make().state_dict()))
        assert network_card(name).files[0].bytes == size
        total += size
    assert total < 5e6


# --- files ------------------------------------------------------------------------------


@pytest.fixture
def own_card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., NetworkCard]:
    """A user's card that ships the given bytes in ``weights/`` beside it."""

    def make(name: str, content: bytes, written: bytes | None = None) -> NetworkCard:
        text = network_card(name).path.read_text(encoding="utf-8").partition("[[files]]")[0]
        text += '[[files]]\nname = "mine.safetensors"\n'
        text += f'sha256 = "{hashlib.sha256(content).hexdigest()}"\n'
        folder = tmp_path / "own" / "metrics" / "networks"
        (folder / "weights").mkdir(parents=True)
        (folder / "mine.toml").write_text(text, encoding="utf-8")
        (folder / "weights" / "mine.safetensors").write_bytes(written or content)
        monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "own"))
        cards._paths.cache_clear()
        return network_card("mine")

    return make


@pytest.mark.parametrize("name", NETWORKS)
def test_shipped_weights_are_found_beside_their_card_and_loaded(
    own_card: Callable[..., NetworkCard], name: str
) -> None:
    network = seeded(name)
    card = own_card(name, save(network.state_dict()))
    assert WeightsStore().check(card).state == "verified"
    functions = load_network(card, WeightsStore())
    rng = np.random.default_rng(1)
    outputs: dict[str, Any] = {}
    if name == "compact-sync":
        frames = rng.integers(0, 256, (1, 9, 64, 64, 3), np.uint8)
        steps = rng.normal(size=(2, 1, 13, 20)).astype(np.float32)
        outputs = {**functions["frames"](frames), **functions["sound"](steps)}
        bgr = torch.from_numpy(frames[..., ::-1].transpose(0, 4, 1, 2, 3).astype(np.float32))
        wanted = {"visual": network.visual(bgr), "audio": network.audio(torch.from_numpy(steps))}
    else:
        size = 112 if name == "compact-identity" else 64
        crops = rng.integers(0, 256, (2, size, size, 3), np.uint8)
        outputs = dict(functions["crops"](crops))
        pictures = torch.from_numpy(crops.transpose(0, 3, 1, 2).astype(np.float32))
        wanted = network((pictures - 127.5) / 127.5)
    assert outputs.keys() == wanted.keys() == card.outputs.keys()
    for key, values in outputs.items():
        np.testing.assert_allclose(values, wanted[key].detach().numpy(), rtol=1e-4, atol=1e-5)
        assert values.shape[-1] == card.outputs[key]


def test_a_loaded_module_learns_no_more_and_still_has_its_stages(
    own_card: Callable[..., NetworkCard],
) -> None:
    card = own_card("compact-identity", save(seeded("compact-identity").state_dict()))
    module = load_module(card, WeightsStore())
    assert isinstance(module, CompactIdentity)
    assert not module.training and not any(p.requires_grad for p in module.parameters())
    assert len(module.stages(torch.zeros(1, 3, 112, 112))) == 4


def hostile() -> dict[str, bytes]:
    good = save(seeded("compact-expression").state_dict())
    pickled = io.BytesIO()
    pickle.dump({"classifier.weight": [1]}, pickled)
    return {
        "other network": save(seeded("compact-identity").state_dict()),
        "cut": good[: len(good) // 2],
        "huge header": b"\xff" * 8 + good[8:],
        "text": b"<!DOCTYPE html><html>404</html>\n",
        "pickle": pickled.getvalue(),
        "empty": b"",
    }


@pytest.mark.parametrize("kind", hostile())
def test_a_file_that_holds_no_such_network_is_refused_in_one_line(
    own_card: Callable[..., NetworkCard], kind: str
) -> None:
    card = own_card("compact-expression", hostile()[kind])
    with pytest.raises(WeightsError, match="the weights of 'mine'") as caught:
        load_network(card, WeightsStore())
    assert len(str(caught.value).splitlines()) == 1


def test_shipped_weights_that_were_changed_are_refused(
    own_card: Callable[..., NetworkCard],
) -> None:
    content = save(seeded("compact-expression").state_dict())
    card = own_card("compact-expression", content, written=content[:-1] + b"\x01")
    assert WeightsStore().check(card).state == "wrong hash"
    with pytest.raises(WeightsError, match="is shipped in"):
        load_network(card, WeightsStore())


def test_a_users_folder_goes_before_the_shipped_weights(
    own_card: Callable[..., NetworkCard], tmp_path: Path
) -> None:
    content = save(seeded("compact-expression").state_dict())
    card = own_card("compact-expression", content)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "renamed.bin").write_bytes(content)
    found = WeightsStore(tmp_path / "elsewhere").paths(card)
    assert found == [tmp_path / "elsewhere" / "renamed.bin"]


def test_shipped_networks_are_listed_and_verified_and_never_fetched(
    own_card: Callable[..., NetworkCard],
) -> None:
    content = save(seeded("compact-expression").state_dict())
    card = own_card("compact-expression", content)
    run = CliRunner().invoke
    row = next(r for r in run(main, ["networks", "list"]).output.splitlines() if "mine" in r)
    assert "verified, shipped" in row
    assert "there and verified" in run(main, ["networks", "fetch", "mine"]).output
    assert run(main, ["networks", "verify", "mine"]).exit_code == 0
    (card.path.parent / "weights" / "mine.safetensors").unlink()
    for command in ("fetch", "verify"):
        done = run(main, ["networks", command, "mine"])
        assert done.exit_code == 1
        assert "are missing" in done.output and "install spfem-bench again" in done.output
        assert "networks fetch" not in done.output


def test_a_file_without_an_address_is_not_fetched(tmp_path: Path) -> None:
    file = PinnedFile(name="a.safetensors", sha256="0" * 64)
    with pytest.raises(WeightsError, match="cannot be fetched"):
        pinned.fetch(file, tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []


# --- a profile without a detector -------------------------------------------------------


def extractor(tmp_path: Path, **changes: Any) -> Extractor:
    store = FeatureStore(tmp_path / "store")
    return Extractor(profile_card("compact"), WeightsStore(), store, **changes)


def test_the_compact_profile_has_no_detector_and_says_what_to_type(tmp_path: Path) -> None:
    profile = profile_card("compact")
    assert profile.roles == ("identity", "expression", "sync", "landmarks")
    assert extractor(tmp_path, faces="aligned").face_settings() == {"faces": "aligned"}
    for ask in (
        lambda: profile.network("detector"),
        profile.follow,
        extractor(tmp_path).face_settings,
    ):
        with pytest.raises(CardError, match="profile 'compact' has no detector") as caught:
            ask()
        message = str(caught.value)
        assert len(message.splitlines()) == 1
        assert "Name one that has a detector with --profile: light, official" in message


def test_a_protocol_that_needs_faces_found_refuses_the_compact_profile() -> None:
    asked = ["eval", "--method", "source", "--protocol", "stccl-page-ned", "--profile", "compact"]
    done = CliRunner().invoke(main, asked)
    assert done.exit_code == 1
    assert "profile 'compact' has no detector" in done.output
    assert "--profile: light" in done.output


@pytest.mark.parametrize("lacking", ["detector", "faces"])
def test_detector_and_following_go_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    text = profile_card("light").path.read_text(encoding="utf-8")
    if lacking == "detector":
        text = text.replace('detector = "scrfd-500m"\n', "")
    else:
        text = text.partition("[faces]")[0]
    folder = tmp_path / "own" / "metrics" / "profiles"
    folder.mkdir(parents=True)
    (folder / "half.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "own"))
    with pytest.raises(CardError, match="go together"):
        profile_card("half")
