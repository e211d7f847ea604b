"""Training of the compact networks: takes, changes, losses, quality and files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.fft import dctn, idctn

from spfem_bench.cli.main import main
from spfem_bench.definitions.networks import network_card
from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.errors import StorageError
from spfem_bench.faces import crop, exact
from spfem_bench.networks.load import load_module
from spfem_bench.networks.weights import WeightsStore, shipped_folder
from spfem_bench.progress import Progress
from spfem_bench.puppets.compact import changes, learn, quality, recipes, takes
from spfem_bench.puppets.compact import train as compact_train
from spfem_bench.puppets.compact.recipes import NAMES, RECIPES, Changes, NetworkName, Recipe
from spfem_bench.puppets.compact.takes import training_takes
from spfem_bench.puppets.compact.train import card_lines, train_compact
from spfem_bench.puppets.shots import Shot, draw_shots, shots_sha256
from spfem_bench.puppets.world import Speaker, World
from spfem_bench.statistics import sync
from spfem_bench.training.kit import Trained

STILL = Changes(**dict.fromkeys(Changes.__dataclass_fields__, 0.0))


class SmallWorld(World):
    """The same world with three speakers to train on and two to be measured on."""

    @cached_property
    def speakers(self) -> tuple[Speaker, ...]:
        every = World(self.version, self.seed, self.size).speakers
        kept = {"train": 3, "validation": 1, "test": 1}
        return tuple(
            s for split, n in kept.items() for s in [p for p in every if p.split == split][:n]
        )


class Counted(Progress):
    """Counts the parts that are done."""

    parts = 0

    def advance(self, phase: str, parts: int = 1, **figures: float) -> None:
        self.parts += parts


# --- takes -----------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_no_test_speaker_or_sentence_is_trained_on(name: NetworkName) -> None:
    world = World()
    split = {s.name: s.split for s in (*world.speakers, *world.sentences)}
    seen = training_takes(world, name, RECIPES[name])
    held = quality.held_out_takes(world, name)
    assert {split[s.speaker] for s in seen} == {split[s.sentence] for s in seen} == {"train"}
    assert {split[s.speaker] for s in held} == {"validation", "test"}
    assert {split[s.sentence] for s in held} == {"test"}
    assert not {s.speaker for s in seen} & {s.speaker for s in held}
    assert not {s.sentence for s in seen} & {s.sentence for s in held}


@pytest.mark.parametrize("name", NAMES)
def test_training_takes_are_even_and_always_the_same(name: NetworkName) -> None:
    world, recipe = World(), RECIPES[name]
    seen = training_takes(world, name, recipe)
    assert seen == training_takes(World(), name, recipe)
    assert shots_sha256(seen) == shots_sha256(list(seen))
    assert seen != training_takes(world, name, replace(recipe, seed=2))
    trained = [s for s in world.speakers if s.split == "train"]
    assert len(seen) == recipe.takes * len(trained)
    assert {s.speaker for s in seen} == {s.name for s in trained}
    counts = [sum(s.emotion == e for s in seen) for e in EMOTIONS]
    # A speaker goes through all emotions before one comes again: few takes leave more to chance.
    uneven = 0.1 if recipe.takes >= len(EMOTIONS) else 5 / np.mean(counts) ** 0.5
    assert max(counts) - min(counts) < uneven * np.mean(counts)
    levels = np.array([s.intensity for s in seen])
    assert 0 <= levels.min() < 0.02 and 0.98 < levels.max() <= 1 and abs(levels.mean() - 0.5) < 0.04


def test_crops_are_those_of_the_evaluation() -> None:
    world = World()
    shot = Shot("P001", "happy", "003", 0.5)
    for name in NAMES:
        drawn = takes.draw_take((4, shot), world, name, RECIPES[name], frames=2)
        take = world.take(*shot)
        contract = network_card(f"compact-{name}").input
        assert drawn.crops.dtype == np.uint8 and len(drawn.crops) == 2
        for index, cut in zip(drawn.indices, drawn.crops, strict=True):
            frame = take.frame(int(index))
            if name == "identity":
                wanted = crop.arcface(frame, None, contract)
            elif name == "expression":
                wanted = crop.expression(frame, None, contract)
            elif name == "landmarks":
                wanted = exact.shrink(frame, contract.size)
            else:
                wanted = exact.resize(frame, contract.size)
            np.testing.assert_array_equal(cut, wanted)


def test_landmarks_are_the_true_ones_of_the_frames_drawn() -> None:
    world, shot = World(size=64), Shot("P003", "angry", "005", 1.0)
    drawn = takes.draw_take((1, shot), world, "landmarks", RECIPES["landmarks"], frames=3)
    truth = world.take(*shot).landmarks[drawn.indices]
    np.testing.assert_allclose(drawn.points * 64, truth, atol=1e-4)


def test_points_go_where_the_picture_goes() -> None:
    """A bright spot is found by its light after shift, zoom, turn and mirror."""
    moving = replace(STILL, shift=0.08, zoom=0.1, turn=10.0, flip=0.5, quantisation=1.0)
    pictures = torch.zeros(16, 3, 64, 64)
    pictures[:, :, 20:23, 40:43] = 255
    spot = torch.tensor([[[41.5 / 64, 21.5 / 64]]]).repeat(16, 1, 1)
    rng = torch.Generator().manual_seed(3)
    moved, points = changes.change_with_points(pictures, spot, moving, rng)
    light, grid = moved[:, 0], torch.arange(64) + 0.5
    x, y = ((light.sum(d) * grid).sum(1) / light.sum((1, 2)) for d in (1, 2))
    assert torch.stack([x, y], 1).sub(points[:, 0] * 64).abs().max() < 0.1
    assert (points[:, 0] * 64 - torch.tensor([41.5, 21.5])).abs().amax(1).min() > 0.5


def test_placement_is_in_eye_distances_and_by_landmark() -> None:
    """All found one pixel of 64 to the right of the truth, whose eye distance is 20 pixels."""
    from spfem_bench.puppets.face import LANDMARKS

    rng = np.random.default_rng(0)
    truth = rng.uniform(10, 50, (6, 25, 2)).astype(np.float32)
    eyes = [LANDMARKS.index(f"eye_{side}_outer") for side in ("right", "left")]
    truth[:, eyes] = [[20, 20], [40, 20]]

    class Shifted(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"points": torch.from_numpy((truth + np.array([1, 0])) / 64).float().flatten(1)}

    crops = np.zeros((6, 64, 64, 3), np.uint8)
    measured = quality.placement(Shifted(), [crops], [truth / 64])
    assert measured["mean_error"] == pytest.approx(1 / 20, rel=1e-4)
    assert measured["mean_error_by_landmark"]["chin"] == pytest.approx(1 / 20, rel=1e-4)
    assert measured["opening_r"] == pytest.approx(1, abs=1e-4)


def test_sound_comes_clean_first_and_then_with_noise() -> None:
    shot, recipe = Shot("P002", "sad", "004", 1.0), replace(RECIPES["sync"], frames=1)
    drawn = takes.draw_take((0, shot), World(size=64), "sync", recipe)
    clean, *noisy = drawn.steps
    assert clean.shape[1] == 13 and len(noisy) == 2
    for version in noisy:
        # The louder half of the steps keeps its energy; the rest is filled with noise.
        loud = clean[:, 0] > np.median(clean[:, 0])
        assert np.abs(version[loud, 0] - clean[loud, 0]).max() < 1
        assert np.abs(version - clean).max() > 0.5


def test_the_number_of_processes_changes_no_pixel() -> None:
    world, recipe = World(size=64), RECIPES["expression"]
    shots = training_takes(world, "expression", recipe)[:3]
    draw = partial(takes.draw_take, world=world, name="expression", recipe=recipe)
    progress = Counted()
    one = draw_shots(draw, shots)
    two = draw_shots(draw, shots, workers=2, progress=progress)
    assert progress.parts == 3
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.crops, b.crops)
        np.testing.assert_array_equal(a.indices, b.indices)


# --- changes ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    shot = Shot("P003", "happy", "005", 1.0)
    drawn = takes.draw_take((0, shot), World(), "expression", RECIPES["expression"], frames=6)
    return torch.from_numpy(drawn.crops).permute(0, 3, 1, 2).float()


def generator(seed: int = 3) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_no_change_changes_nothing(pictures: torch.Tensor) -> None:
    same = changes.change(pictures, STILL, generator())
    torch.testing.assert_close(same, pictures, atol=0.01, rtol=0)


def test_changes_are_mild_and_the_same_for_the_same_seed(pictures: torch.Tensor) -> None:
    before = pictures.clone()
    once = changes.change(pictures, Changes(), generator())
    assert once.shape == pictures.shape
    assert once.min() >= 0 and once.max() <= 255
    torch.testing.assert_close(once, changes.change(pictures, Changes(), generator()))
    torch.testing.assert_close(pictures, before)  # the stock of crops stays as it is
    in_place = replace(Changes(), shift=0.0, zoom=0.0, turn=0.0)
    error = (changes.change(pictures, in_place, generator()) - pictures).pow(2).mean((1, 2, 3))
    # Seen, and above 20 dB (peak signal to noise).
    assert error.min() > 1 and float(error.max()) < 255**2 / 100


def test_a_run_is_changed_as_one(pictures: torch.Tensor) -> None:
    still = pictures[:1].repeat(6, 1, 1, 1)
    quiet = replace(Changes(flip=0.5), noise=0.0)
    out = changes.change(still, quiet, generator(), run=3)
    for first in (0, 3):
        for k in (1, 2):
            torch.testing.assert_close(out[first], out[first + k])
    assert (out[0] - out[3]).abs().max() > 5


def test_mirrored_pictures_are_mirrored(pictures: torch.Tensor) -> None:
    out = changes.change(pictures, replace(STILL, flip=1.0), generator())
    torch.testing.assert_close(out, pictures.flip(3), atol=0.01, rtol=0)


@pytest.mark.parametrize("size", [(16, 24), (12, 20)])
def test_quantisation_is_that_of_scipys_cosine_transform(size: tuple[int, int]) -> None:
    x = torch.randn(2, 1, *size, generator=generator()) * 60
    step = torch.tensor([5.0, 11.0]).reshape(2, 1, 1, 1)
    found = changes._blocks_rounded(x, step)
    padded = np.pad(x.numpy(), ((0, 0), (0, 0), (0, -size[0] % 8), (0, -size[1] % 8)), mode="edge")
    steps = 1 + 0.25 * np.add.outer(np.arange(8), np.arange(8))
    for i in range(2):
        for top in range(0, size[0], 8):
            for left in range(0, size[1], 8):
                block = padded[i, 0, top : top + 8, left : left + 8]
                s = steps * float(step[i])
                back = idctn(np.round(dctn(block, norm="ortho") / s) * s, norm="ortho")
                cut = found[i, 0, top : top + 8, left : left + 8].numpy()
                np.testing.assert_allclose(cut, back[: cut.shape[0], : cut.shape[1]], atol=1e-2)


# --- losses -----------------------------------------------------------------------------


def test_arcface_adds_its_margin_to_the_right_angle() -> None:
    head = learn.ArcFace(3, scale=8.0)
    embedding, labels = torch.randn(5, 64, generator=generator()), torch.tensor([0, 2, 1, 1, 0])
    unit = lambda v: v / np.linalg.norm(v, axis=1, keepdims=True)  # noqa: E731
    angle = np.arccos(unit(embedding.numpy()) @ unit(head.centres.detach().numpy()).T)
    angle[np.arange(5), labels] += 0.4
    logits = 8 * np.cos(angle)
    wanted = np.mean(np.log(np.exp(logits).sum(1)) - logits[np.arange(5), labels])
    np.testing.assert_allclose(head(embedding, labels, 0.4).item(), wanted, rtol=1e-5)
    # The opposite of the right centre: the loss goes on falling towards it.
    far = -head.centres.detach()[:1] + 0.01 * torch.randn(1, 64, generator=generator())
    far.requires_grad_(True)
    loss = head(far, torch.tensor([0]), 0.4)
    assert loss.isfinite() and torch.autograd.grad(loss, far)[0].isfinite().all()


def test_targets_are_parts_of_the_emotion_and_of_neutral() -> None:
    shots = [Shot("a", "happy", "1", 0.3), Shot("a", "neutral", "1", 0.6)]
    happy, neutral = learn.soft_targets(shots).tolist()
    assert happy[EMOTIONS.index("happy")] == pytest.approx(0.3)
    assert happy[EMOTIONS.index("neutral")] == pytest.approx(0.7)
    assert neutral[EMOTIONS.index("neutral")] == pytest.approx(1.0)


def test_sync_loss_is_low_when_windows_match() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(3, 6, 64, generator=generator()), dim=2)
    right = learn.sync_loss(vectors, vectors, 0.07)
    late = learn.sync_loss(vectors, vectors.roll(1, 1), 0.07)
    other = learn.sync_loss(vectors, vectors.roll(1, 0), 0.07)
    assert right < 0.1 and late > 3 and other > 3
    # Two windows of one run by hand: within and among are then the same sums.
    a, b = torch.eye(2, 64), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    audio = torch.cat([b, torch.zeros(2, 62)], 1)
    to_sound = np.log(np.exp([[0.6, 0.0], [0.8, 1.0]]).sum(1)) - [0.6, 1.0]
    to_mouth = np.log(np.exp([[0.6, 0.8], [0.0, 1.0]]).sum(1)) - [0.6, 1.0]
    wanted = np.mean([to_sound.mean(), to_mouth.mean()])
    assert float(learn.sync_loss(a[None], audio[None], 1.0)) == pytest.approx(wanted, rel=1e-5)


# --- quality ----------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [-8, -3, 0, 1, 8])
def test_the_metric_reports_the_offset_of_shifted_sound(offset: int) -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(60, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    v, a = quality.shift_audio(vectors, vectors, offset)
    part = sync.sync_part(v, a, np.arange(len(v)), max_shift=15)
    assert len(v) == len(a) == 60 - abs(offset)
    assert part.value("offset") == offset


def test_verification_is_perfect_chance_or_between() -> None:
    truth = np.arange(2000) < 1000
    rng = np.random.default_rng(1)
    assert quality.verification_accuracy(truth + 0.0, truth) == 1
    assert quality.equal_error_rate(truth + 0.0, truth) == 0
    noise = rng.normal(size=2000)
    assert abs(quality.verification_accuracy(noise, truth) - 0.5) < 0.05
    assert abs(quality.equal_error_rate(noise, truth) - 0.5) < 0.05
    # Two normal distributions two apart: Phi(-1) of each is on the wrong side.
    apart = noise + 2 * truth
    assert abs(quality.equal_error_rate(apart, truth) - 0.1587) < 0.02
    assert abs(quality.verification_accuracy(apart, truth) - 0.8413) < 0.02


def test_pairs_differ_in_emotion_and_are_balanced() -> None:
    shots = quality.held_out_takes(World(), "identity")
    same, different = quality.balanced_pairs(shots, 200)
    assert len(same) == len(different) == 200
    for kind, equal in ((same, True), (different, False)):
        for a, b in kind:
            assert (shots[a].speaker == shots[b].speaker) is equal
            assert shots[a].emotion != shots[b].emotion


# --- files ------------------------------------------------------------------------------


def tiny(name: NetworkName) -> Recipe:
    if name == "landmarks":
        return replace(RECIPES[name], steps=24, rate=2e-3, batch=16, takes=2)
    more = {"batch": 3, "takes": 2} if name == "sync" else {"batch": 16, "takes": 7}
    return replace(RECIPES[name], steps=24, rate=2e-3, **more)


def train_tiny(name: NetworkName, folder: Path, **changed: Any) -> Trained:
    recipe = replace(tiny(name), **changed)
    return train_compact(name, recipe, SmallWorld(size=64), folder)


@pytest.mark.parametrize("name", NAMES)
def test_a_training_lowers_its_loss_and_leaves_weights_and_a_record(
    name: NetworkName, tmp_path: Path
) -> None:
    trained = train_tiny(name, tmp_path)
    record = json.loads((tmp_path / f"compact-{name}.json").read_text(encoding="utf-8"))
    content = (tmp_path / f"compact-{name}.safetensors").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        f"compact-{name}.json",
        f"compact-{name}.safetensors",
    ]
    assert record.pop("checksum")
    assert record == trained.record
    assert record["loss"]["last"] < record["loss"]["first"]
    assert record["sha256"] == hashlib.sha256(content).hexdigest()
    assert record["bytes"] == len(content) == network_card(f"compact-{name}").files[0].bytes
    assert card_lines(trained.record).startswith(f'sha256 = "{record["sha256"]}"\n')
    assert record["recipe"]["steps"] == 24
    assert record["world"] == {"version": 1, "seed": World().seed, "size": 64}
    assert len(record["speakers"]) == 3 and not set(record["speakers"]) & set(
        record["held_out"]["speakers"]
    )
    assert record["software"]["torch"] != "absent"
    card = network_card(f"compact-{name}")
    pinned = card.model_copy(
        update={"files": (card.files[0].model_copy(update={"sha256": record["sha256"]}),)}
    )
    assert not load_module(pinned, WeightsStore(tmp_path)).training


def test_the_same_command_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quality, "held_out_quality", lambda *a, **k: {})
    records = [train_tiny("expression", tmp_path / k, steps=4).record for k in ("one", "two")]
    assert records[0]["sha256"] == records[1]["sha256"]
    other = train_tiny("expression", tmp_path / "three", steps=4, seed=2).record
    assert other["sha256"] != records[0]["sha256"]


def test_a_training_that_breaks_off_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(quality, "held_out_quality", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_tiny("expression", tmp_path / "new", steps=2)
    assert list((tmp_path / "new").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def late(*_: object, **__: object) -> None:
        raise AssertionError("drew first")

    monkeypatch.setattr(compact_train, "draw_shots", late)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        train_tiny("identity", tmp_path / "file" / "folder")


def test_the_command_trains_and_prints_what_to_pin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("spfem_bench.puppets.world.World", lambda: SmallWorld(size=64))
    monkeypatch.setattr(quality, "held_out_quality", lambda *a, **k: {"accuracy": 0.5})
    monkeypatch.setitem(recipes.RECIPES, "expression", tiny("expression"))
    arguments = ["demo", "train", "expression", "--output", str(tmp_path / "out"), "--steps", "2"]
    done = CliRunner().invoke(main, [*arguments, "--workers", "1"])
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "compact-expression.json").read_text())
    assert record["recipe"]["steps"] == 2
    assert "accuracy 0.500" in done.output and record["sha256"] in done.output
    assert "metrics/networks/compact-expression.toml" in done.output


def test_the_command_s_help_lists_its_recipes() -> None:
    shown = " ".join(CliRunner().invoke(main, ["demo", "train", "--help"]).output.split())
    for words in ("identity: takes", "margin 0.4", "temperature 0.07", "expression, changes:"):
        assert words in shown


# --- shipped weights --------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_shipped_weights_were_trained_on_what_their_record_says(name: NetworkName) -> None:
    card = network_card(f"compact-{name}")
    path = shipped_folder(card) / f"{card.name}.json"
    if not path.is_file():
        pytest.skip("these weights have not been trained yet")
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["sha256"] == card.files[0].sha256 and record["bytes"] == card.files[0].bytes
    assert WeightsStore().check(card).state == "verified"
    values = dict(record["recipe"])
    make: Callable[..., Recipe] = type(RECIPES[name])
    recipe = make(**{**values, "changes": Changes(**values["changes"])})
    world = World(**record["world"])
    seen = training_takes(world, name, recipe)
    assert record["takes"] == {"count": len(seen), "sha256": shots_sha256(seen)}
    assert record["speakers"] == sorted({s.speaker for s in seen})
    assert record["sentences"] == sorted({s.sentence for s in seen})
    held = record["held_out"]
    assert not set(record["speakers"]) & set(held["speakers"])
    assert not set(record["sentences"]) & set(held["sentences"])
