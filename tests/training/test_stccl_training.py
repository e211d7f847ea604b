"""Learning the metric: exact resume, several processes, what is refused before it begins."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner

from spfem_bench.cli.main import main
from spfem_bench.datasets import pair_lists
from spfem_bench.datasets.pairs import EmotionPair
from spfem_bench.errors import CardError, SpfemBenchError, StcclError, StorageError
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import Progress
from spfem_bench.puppets.pairs import drawn_pairs
from spfem_bench.puppets.world import World
from spfem_bench.reporting.training import figure
from spfem_bench.stccl import contrast
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.backbone import backbone
from spfem_bench.stccl.metric import read_checkpoint
from spfem_bench.stccl.settings import ContentSettings
from spfem_bench.stored import UnverifiedWarning, read_checked, write_checked
from spfem_bench.training import learner, train, windows
from spfem_bench.training.config import (
    BackboneSettings,
    PuppetData,
    TrainConfig,
    default_config,
    read_train_config,
)
from spfem_bench.training.kit import LARGEST_CHECKPOINT, batch_of, seeded_generator
from spfem_bench.training.learner import form_centres, measure_heads, sample_parts
from spfem_bench.training.train import (
    CHECKPOINT,
    TrainingPairs,
    check_settings,
    find_data,
    train_metric,
)
from spfem_bench.training.windows import Windows, choose_windows
from tests.conftest import ROOT

# The drawn blobs of these tests are a list, and quick with a puppets' network.
pytestmark = pytest.mark.filterwarnings("ignore:.*knows drawn puppets only")

CONFIG = """
seed = 5
steps = {steps}
batch = 4
validate_every = {every}
save_every = 1
[backbone]
network = "compact-identity"
size = 64
[data]
kind = "list"
list = "pairs.json"
frames = "frames"
held_out = ["W021"]
checked = ["M004"]
windows = 2
[forms.vd]
spatial_centres = [8, 6, 4, 2]
temporal_centres = [8, 6, 4, 2]
[forms.vd.contrast]
spatial_negatives = "positions"
temporal_negatives = "positions"
[forms.cm]
spatial_centres = [8, 6, 4, 4]
temporal_centres = [8, 6, 4, 4]
[forms.cm.contrast]
form = "cm"
"""

CONTENT = (
    CONFIG.partition("[forms.vd]")[0].replace("batch = 4", "batch = 4\nrate = 5e-3")
    + """
[forms.ct]
form = "ct"
apart = 2
every = 1
learning_temperature = 1.0
"""
)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with frames of four invented speakers, a list of pairs, and a configuration.

    Bright blobs move alike in both emotions; the second is a little brighter.
    """
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(0)
    listed = []
    grid = np.stack(np.meshgrid(np.arange(64), np.arange(64)), -1)
    for speaker in ("M001", "M002", "M004", "W021"):
        places, paths = rng.uniform(8, 56, (6, 2)), rng.uniform(-2, 2, (6, 2))
        colours = rng.uniform(-90, 90, (6, 3))
        for emotion, more in (("neutral", 0), ("happy", 12)):
            target = folder / "frames" / speaker / emotion / "001"
            target.mkdir(parents=True)
            for t in range(8):
                picture = np.full((64, 64, 3), 110.0 + more)
                for place, path, colour in zip(places, paths, colours, strict=True):
                    far = ((grid - place - t * path) ** 2).sum(-1)
                    picture += np.exp(-far / 40)[..., None] * colour
                picture += rng.normal(0, 2, picture.shape)
                file = target / f"{t:06d}.png"
                cv2.imwrite(str(file), np.clip(picture, 0, 255).astype(np.uint8))
        numbers = np.stack([np.arange(8)] * 2, 1)
        listed.append(pair_lists.ListedPair(speaker, "happy", ("001", "001"), numbers))
    pair_lists.write_pair_list(folder / "pairs.json", listed)
    return folder


def configured(world: Path, steps: int = 6, every: int = 3, **changes: Any) -> TrainConfig:
    path = world / f"config-{steps}-{every}.toml"
    path.write_text(CONFIG.format(steps=steps, every=every))
    return TrainConfig.model_validate(read_train_config(path).model_dump() | changes)


def configured_content(world: Path, steps: int, every: int) -> TrainConfig:
    path = world / f"content-{steps}-{every}.toml"
    path.write_text(CONTENT.format(steps=steps, every=every))
    return read_train_config(path)


def learn(world: Path, output: Path, config: TrainConfig, **options: Any) -> dict[str, Any]:
    return train_metric(config, output, folder=world, device="cpu", **options).record


# ---- what is learnt ------------------------------------------------------------------------


def test_learning_lowers_the_loss_and_is_recorded(world: Path, tmp_path: Path) -> None:
    config = configured(world, 40, 20)
    record = learn(world, tmp_path, config)
    losses = [look["training_loss"] for look in record["training"]["validation"]]
    first = learn(world, tmp_path / "short", configured(world, 1, 1))
    assert losses[-1] < 0.7 * first["training"]["validation"][0]["training_loss"]
    for form in ("vd", "cm"):
        trained = record["held_out"]["trained"][form]
        for term in ("scc", "tcc"):
            assert set(trained[term]) == {"positive", "negative", "stages"}
            assert trained[term]["positive"] > trained[term]["negative"]
    data = record["training"]["data"]
    speakers = [data[part]["speakers"] for part in ("train", "held_out", "checked")]
    assert speakers == [["M001", "M002"], ["W021"], ["M004"]]
    assert TrainConfig.model_validate(record["training"]["config"]) == config
    # Written at last, the record pins the heads, and the metric loads.
    heads, again = read_checkpoint(tmp_path)
    assert again.model_dump(mode="json") == record
    assert set(heads) == {"vd", "cm"}


def test_content_is_learnt_and_goes_on_where_it_was_interrupted(
    world: Path, tmp_path: Path
) -> None:
    config = configured_content(world, 20, 10)
    whole = learn(world, tmp_path / "whole", config)
    before, after = (
        whole["held_out"][key]["ct"]["sct"]["positive"] for key in ("untrained", "trained")
    )
    assert after > before
    assert whole["forms"]["ct"]["temperature"] == 0.1  # in use

    class Stops(Progress):
        taken = 0

        def advance(self, phase: str, parts: int = 1, **figures: float) -> None:
            self.taken += phase == "learn"
            if self.taken == 13:
                raise KeyboardInterrupt

    output = tmp_path / "stopped"
    with pytest.raises(KeyboardInterrupt):
        learn(world, output, config, progress=Stops())
    assert not (output / "metric.json").exists()
    resumed = learn(world, output, config)
    assert resumed["sha256"] == whole["sha256"] and resumed["held_out"] == whole["held_out"]


CONDITIONS = ("nothing", "emotion", "words", "frozen", "emotion, frozen")


def test_heads_are_probed_by_what_changes_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = dict(zip(CONDITIONS, (2.0, 3.0, 12.0, 7.0, 7.5), strict=True))
    seen: list[str] = []

    class Few:
        emotions = (*CONDITIONS, "emotion")

        def sample(self, chosen: torch.Tensor, *_: Any) -> dict[str, Any]:
            seen.extend(self.emotions[k] for k in chosen)
            return {"ct": {"loss": torch.tensor(costs[self.emotions[chosen[0]]])}}

    monkeypatch.setattr(learner, "sample_parts", lambda sample, settings, heads: sample)
    probe = learner.probe_heads(Few(), ContentSettings(), None)  # type: ignore[arg-type]
    # Emotion 3 - 2 of words 12 - 2; a mouth at rest 7.5 - 3 with the emotion, 7 - 2 without.
    assert probe == {"emotion / words": 0.1, "frozen kept": 0.9}
    assert seen == ["nothing", "emotion", "emotion", "words", "frozen", "emotion, frozen"]


@pytest.mark.parametrize("kept", [True, False])
def test_heads_with_the_least_emotion_are_kept(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept: bool
) -> None:
    probes = [(0.2, 0.95), (0.1, 0.89), (0.15, 0.9), (0.16, 0.99)]
    script = iter([(share, still if kept else 0.5) for share, still in probes])
    names = "emotion / words", "frozen kept"
    monkeypatch.setattr(
        learner, "probe_heads", lambda *_: dict(zip(names, next(script), strict=True))
    )

    def found(*arguments: Any) -> TrainingPairs:
        data = find_data(*arguments)
        return data._replace(probed=[replace(data.held_out[0], emotion=c) for c in CONDITIONS])

    monkeypatch.setattr(train, "find_data", found)
    record = learn(world, tmp_path, configured_content(world, 4, 1))["training"]
    losses = [entry["ct"]["loss"] for entry in record["validation"]]
    assert [entry["probe"]["emotion / words"] for entry in record["validation"]] == [
        share for share, _ in probes
    ]
    # None that keeps enough has a smaller share; where none does, the smallest loss decides.
    assert record["best_step"]["ct"] == (3 if kept else 1 + losses.index(min(losses)))
    assert record["data"]["probed"]["windows"] == 2 * len(CONDITIONS)


def test_validation_speakers_and_sentences_are_not_trained_on() -> None:
    config = read_train_config(default_config())
    assert isinstance(config.data, PuppetData)
    found = find_data(config, Path(), WeightsStore(), drawn_pairs)
    speakers = [{p.speaker for p in part} for part in found]
    assert not (speakers[0] & speakers[1] or speakers[0] & speakers[2] or speakers[1] & speakers[2])
    sentences = [{p.neutral.name.split("/")[-1] for p in part} for part in found]
    assert not sentences[2] & (sentences[0] | sentences[1])
    tested = {s.name for s in World().speakers if s.split == "test"}
    assert not tested & set.union(*speakers)


def test_a_shipped_name_has_its_own_configuration() -> None:
    assert read_train_config(default_config("puppets-ct")).content is not None
    assert default_config("mine") == default_config() == default_config("../stccl/puppets")


def test_pairs_of_speech_share_the_mouth_alone() -> None:
    data = PuppetData(kind="puppets", speakers=2, held_out=1, checked=1, second="speech")
    train, held_out, checked, probed = drawn_pairs(data)
    assert [len(part) for part in (train, held_out, checked, probed)] == [4, 2, 2, 7]
    assert {pair.speaker for pair in probed} == {pair.speaker for pair in held_out}
    assert set(CONDITIONS) == {pair.emotion for pair in probed}
    for pair in probed:
        source, made = pair.neutral.take, pair.emotional.take  # type: ignore[attr-defined]
        np.testing.assert_array_equal(made._head, source._head)
        assert (made.emotion != "neutral") == ("emotion" in pair.emotion)
        still = (made.mouth == source.mouth[:1]).all()
        assert still == ("frozen" in pair.emotion)
        same = np.array_equal(made.mouth, source.mouth)
        assert same == (pair.emotion in ("nothing", "emotion"))
    one = train[0]
    spoken, dubbed = one.neutral.take, one.emotional.take  # type: ignore[attr-defined]
    assert one.emotion == dubbed.emotion != "neutral"
    plain = World().take(dubbed.speaker.name, dubbed.emotion, dubbed.sentence.name)
    count = len(one)
    np.testing.assert_array_equal(dubbed.mouth[:count], spoken.mouth[:count])
    np.testing.assert_array_equal(dubbed._head, plain._head)
    np.testing.assert_array_equal(dubbed.eyes, plain.eyes)
    assert not np.array_equal(dubbed.eyes[:count], spoken.eyes[:count])
    assert one.numbers.tolist() == [[t, t] for t in range(count)]
    # Frames are compared where they are drawn: no landmark moves one head onto the other's.
    x, y = one.pictures(3, 112)
    small = cv2.resize(dubbed.frame(3), (112, 112), interpolation=cv2.INTER_AREA)
    assert np.abs(y.astype(int) - small).max() <= 1 and x.shape == y.shape


def test_every_window_is_used_once_before_any_is_again() -> None:
    seen = torch.cat([batch_of(k, 4, 10, seed=3) for k in range(5)])
    for epoch in (seen[:10], seen[10:]):
        assert sorted(epoch.tolist()) == list(range(10))
    assert seen[:10].tolist() != seen[10:].tolist()


def test_windows_lie_evenly_and_time_passes_in_them(world: Path) -> None:
    found = pair_lists.listed_pairs(world / "pairs.json", world / "frames")
    assert [w.start for w in choose_windows(found[:1], 5, 2)] == [1, 3]
    assert len(choose_windows(found, 5, 9)) == 4 * 4  # all there are
    still = found[0]
    numbers = still.numbers.copy()
    numbers[4:] = numbers[4]
    frozen = EmotionPair(still.speaker, still.emotion, still.neutral, still.emotional, numbers)
    with pytest.raises(CardError, match="no pair has 6 consecutive entries"):
        choose_windows([frozen], 6, 2)


@pytest.mark.parametrize("cache", ["maps", "pictures"])
def test_regions_from_the_cache_are_those_of_the_maps(world: Path, cache: str) -> None:
    config = configured(world)
    network = backbone("compact-identity", WeightsStore(), size=64)
    found = pair_lists.listed_pairs(world / "pairs.json", world / "frames")
    chosen = choose_windows(found, 5, 1)
    held = Windows(found, chosen, 5, network, cache=cache)
    centres = form_centres(held.sizes, config.forms, "sampled", seeded_generator(0, "test"))
    few = torch.tensor([2, 0])
    samples = held.sample(few, dict(config.forms), centres)
    drawn = np.stack(
        [windows.window_pictures(found[chosen[k].pair], [chosen[k].start], 5, 64)[0] for k in few]
    )
    with torch.no_grad():
        maps = network.stages(torch.from_numpy(drawn).flatten(0, 2).float() / 127.5 - 1)
    maps = [torch.unflatten(m, 0, (2, 2, 5)).transpose(0, 1) for m in maps]
    for form, settings in config.forms.items():
        parts = sample_parts(samples[form], settings)
        spatial, temporal = [], []
        for k, (x, y) in enumerate(maps):
            where = [c[k] for c in centres[form]]
            spatial.append(
                contrast.spatial_terms(
                    x.flatten(0, 1), y.flatten(0, 1), settings.contrast, where[0]
                )
            )
            temporal.append(contrast.temporal_terms(x, y, settings.contrast, where[1]))
        for key, value in contrast.parts(spatial, temporal).items():
            near = 2e-3 if cache == "maps" else 1e-5  # half precision
            assert parts[key].item() == pytest.approx(value.item(), abs=near, rel=near), key
    how = ContentSettings(every=2, grid=5)
    held = Windows(found, chosen, 5, network, cache=cache, moments=how)
    sample = held.sample(few, {"ct": how}, {})["ct"]
    assert isinstance(sample, windows.StepMoments)
    for stage, whole in zip(sample.stages, maps, strict=True):
        side = min(5, whole.shape[-1])
        pooled = torch.nn.functional.adaptive_avg_pool2d(whole[:, :, ::2].flatten(0, 2), side)
        expected = pooled.flatten(2).transpose(1, 2).view(stage.shape)
        torch.testing.assert_close(stage, expected, atol=5e-3, rtol=5e-3)


def test_temporal_negatives_at_all_other_positions() -> None:
    settings = contrast.ContrastSettings(temporal_negatives="positions", window=3)
    x, y = torch.randn(2, 2, 3, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    terms = contrast.temporal_terms(x, y, settings)
    changes = [rep.temporal_disparity(maps) for maps in (x, y)]  # (B, P, R, C)
    alike = torch.nn.functional.cosine_similarity(
        changes[0][:, :, :, None], changes[1][:, :, None], dim=-1
    )
    same = torch.eye(9, dtype=torch.bool)
    assert terms.positive.item() == pytest.approx(alike[:, :, same].mean().item(), abs=1e-6)
    assert terms.negative.item() == pytest.approx(alike[:, :, ~same].mean().item(), abs=1e-6)
    torch.testing.assert_close(terms.per_region.flatten(2), alike.diagonal(dim1=2, dim2=3))
    with pytest.raises(StcclError, match="no others to differ from"):
        contrast.temporal_terms(x, y, settings, torch.tensor([[1, 1]]))


# ---- interrupted, resumed, shared ----------------------------------------------------------


def arguments(config: Path, output: Path) -> list[str]:
    return [
        "train",
        "--config",
        str(config),
        "--output",
        str(output),
        "--device",
        "cpu",
        "--quiet",
    ]


def command(config: Path, output: Path) -> list[str]:
    return [sys.executable, "-m", "spfem_bench", *arguments(config, output)]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **more}


def test_a_killed_training_resumes_to_the_same_bytes(world: Path, tmp_path: Path) -> None:
    steps, every = 50, 20
    whole = learn(world, tmp_path / "whole", configured(world, steps, every))
    output = tmp_path / "killed"
    process = subprocess.Popen(
        command(world / f"config-{steps}-{every}.toml", output), env=environment()
    )
    try:
        deadline = time.monotonic() + 60
        while not (output / CHECKPOINT).exists() and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(0.2)
        assert process.poll() is None, "it ended before it could be killed"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    content, verified = read_checked(output / CHECKPOINT, LARGEST_CHECKPOINT)
    step = torch.load(io.BytesIO(content), weights_only=True)["step"]
    assert verified
    assert 0 < step < steps
    resumed = learn(world, output, configured(world, steps, every))
    assert resumed["sha256"] == whole["sha256"]
    for key in ("validation", "best_step", "data"):
        assert resumed["training"][key] == whole["training"][key], key
    assert resumed["held_out"] == whole["held_out"]
    # The killed process left no files, and a third run takes no step.
    assert sorted(p.name for p in output.iterdir() if p.name[0] != ".") == [
        "metric.json",
        "metric.safetensors",
        CHECKPOINT,
    ]
    assert learn(world, output, configured(world, steps, every))["sha256"] == whole["sha256"]


def test_two_processes_train_as_one(world: Path, tmp_path: Path) -> None:
    steps, every = 5, 1
    one = learn(world, tmp_path / "one", configured(world, steps, every))
    one_ct = learn(world, tmp_path / "one-ct", configured_content(world, steps, every))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    # Both trainings in one start of the processes, which takes longer than they do.
    both = [
        arguments(world / f"{kind}-{steps}-{every}.toml", tmp_path / name)
        for kind, name in (("config", "two"), ("content", "two-ct"))
    ]
    script = "from spfem_bench.cli.main import main\n"
    script += "".join(f"main({each!r}, standalone_mode=False)\n" for each in both)
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script],
            env=environment(
                WORLD_SIZE="2",
                RANK=rank,
                LOCAL_RANK=rank,
                MASTER_PORT=port,
                MASTER_ADDR="127.0.0.1",
                ACCELERATE_USE_CPU="true",
            ),
            stdout=subprocess.DEVNULL,
        )
        for rank in ("0", "1")
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for name, record, forms in (("", one, ("vd", "cm")), ("-ct", one_ct, ("ct",))):
        two = json.loads((tmp_path / f"two{name}" / "metric.json").read_text())
        assert two["training"]["processes"] == 2 and record["training"]["processes"] == 1
        for mine, theirs in zip(
            record["training"]["validation"], two["training"]["validation"], strict=True
        ):
            for form in forms:
                assert theirs[form]["loss"] == pytest.approx(mine[form]["loss"], rel=1e-4)
            assert theirs["training_loss"] == pytest.approx(mine["training_loss"], rel=1e-4)
        a, b = (read_checkpoint(tmp_path / f"{count}{name}").heads for count in ("one", "two"))
        for form in a:
            mine, theirs = a[form].state_dict(), b[form].state_dict()
            for key, value in mine.items():
                # The mean over time takes a content head's last bias out: rounding moves it.
                if "moment.2.bias" not in key:
                    torch.testing.assert_close(value, theirs[key], rtol=1e-3, atol=1e-4)


def test_a_folder_of_another_training_is_left_alone(world: Path, tmp_path: Path) -> None:
    learn(world, tmp_path, configured(world, 1, 1))
    with pytest.raises(CardError, match=r"another configuration\.rate"):
        learn(world, tmp_path, configured(world, 1, 1, rate=0.002))
    learn(world, tmp_path, configured(world, 1, 1, rate=0.002), fresh=True)


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_no_flipped_bit_of_a_checkpoint_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT
    write_checked(path, b"PK of a training")
    content = path.read_bytes()
    for bit in range(8 * len(content)):
        path.write_bytes(flipped(content, bit))
        try:
            read, verified = read_checked(path, 1000)
        except ValueError:
            continue
        # A head that is none: no file of an earlier version begins so, none is a checkpoint.
        assert not verified and not read.startswith(b"PK"), bit


def test_a_damaged_checkpoint_trains_no_other_metric(world: Path, tmp_path: Path) -> None:
    whole = learn(world, tmp_path, configured(world, 1, 1))
    path = tmp_path / CHECKPOINT
    content = path.read_bytes()
    places = [8 * (len(content) * k // 9) + k % 8 for k in range(1, 9)]
    foreign = io.BytesIO()
    torch.save({"identity": 7}, foreign)
    wrong = [
        *(flipped(content, bit) for bit in places),
        content[: len(content) // 2],
        b"",
        b"a note",
        foreign.getvalue(),
    ]
    for spoilt in wrong:
        path.write_bytes(spoilt)
        with pytest.raises(CardError, match=r"is no checkpoint of a training: .*--fresh") as caught:
            learn(world, tmp_path, configured(world, 1, 1))
        assert len(str(caught.value).splitlines()) == 1
    assert learn(world, tmp_path, configured(world, 1, 1), fresh=True)["sha256"] == whole["sha256"]


def test_a_checkpoint_of_an_earlier_version_is_used_and_marked(world: Path, tmp_path: Path) -> None:
    whole = learn(world, tmp_path, configured(world, 1, 1))
    path = tmp_path / CHECKPOINT
    old = path.read_bytes().partition(b"\n")[2]
    path.write_bytes(old)
    with pytest.warns(UnverifiedWarning, match="has no checksum"):
        again = learn(world, tmp_path, configured(world, 1, 1))
    assert again["sha256"] == whole["sha256"]
    path.write_bytes(flipped(old, 4 * len(old)))  # in its tensors, which zip has sums of
    with pytest.raises(CardError, match="is no checkpoint"):
        learn(world, tmp_path, configured(world, 1, 1))


# ---- refused before it begins --------------------------------------------------------------


WRONG: list[tuple[str, str, str]] = [
    ("[8, 6, 4, 2]", "[8, 6, 4, 50]", "forms.vd: 50 centres were asked of a map"),
    ("[8, 6, 4, 4]", "[8, 6, 4, 2]", "forms.cm: a correlation matrix of 2 regions"),
    ('"W021"', '"W022"', "unknown speaker to hold out 'W022'"),
    ('"pairs.json"', '"none.json"', "none.json: No such file"),
    ('"frames"', '"elsewhere"', "elsewhere is no folder"),
    ("windows = 2", "windows = 2\nfirst = 1", "4 of 64 frames|8 of 64 frames"),
    ('form = "cm"', 'form = "vd"', "forms.cm has the form 'vd'"),
    ("seed = 5", "seed = 5\nframes = 4", "compares 5 frames, windows have 4"),
    ('form = "cm"', 'form = "cm"\n[forms.ct]\nform = "ct"', "forms.ct .* train it alone"),
    ("seed = 5", "seed = 5\nsede = 4", "unknown key 'sede'. Did you mean 'seed'"),
    ('"compact-identity"', '"compact-sync"', "has no four stages"),
]


@pytest.mark.parametrize(("old", "new", "words"), WRONG)
def test_refused_with_one_line(world: Path, tmp_path: Path, old: str, new: str, words: str) -> None:
    path = world / f"wrong-{abs(hash(new))}.toml"
    path.write_text(CONFIG.format(steps=1, every=1).replace(old, new))
    with pytest.raises(SpfemBenchError, match=words):
        train_metric(read_train_config(path), tmp_path / "out", folder=world, device="cpu")
    assert not (tmp_path / "out" / CHECKPOINT).exists()


def test_mismatched_lists_and_shares(world: Path, tmp_path: Path) -> None:
    with pytest.raises(CardError, match="a batch of 4 windows cannot be shared among 3"):
        check_settings(configured(world), [(32, 32), (16, 16), (8, 8), (4, 4)], 3)
    (world / "odd.json").write_text('{"M001": {"happy": {"001_001": [[0, 1, 2], [0, 1]]}}}')
    config = configured(world)
    odd = config.data.model_copy(update={"list": Path("odd.json")})
    with pytest.raises(CardError, match="3 neutral frames but 2 emotional ones"):
        train_metric(config.model_copy(update={"data": odd}), tmp_path, folder=world, device="cpu")


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(StorageError, match=r"needs 1000000\.0 GB of memory"):
        windows.check_memory(10**15, "maps")


def test_tensorboard_gets_logs(world: Path, tmp_path: Path) -> None:
    learn(world, tmp_path, configured(world, 1, 1), tensorboard=True)
    (events,) = (tmp_path / "logs").iterdir()
    assert events.stat().st_size > 0


@pytest.mark.parametrize("package", ["tensorboard", "accelerate"])
def test_training_without_a_package_says_what_to_type(
    package: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(SpfemBenchError, match=rf'{package}.*pip install "spfem-bench\[train\]"'):
        learn(world, tmp_path, configured(world), tensorboard=True)


def test_command_prints_the_numbers(world: Path, tmp_path: Path) -> None:
    configured(world, 1, 1)
    arguments = [
        "train",
        "--config",
        str(world / "config-1-1.toml"),
        "--output",
        str(tmp_path),
        "--device",
        "cpu",
        "--name",
        "mine",
        "--quiet",
    ]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "mine.safetensors: 1.08 MB" in done.output
    for words in ("scc-vd", "tcc-cm", "untrained", "positive, last stage"):
        assert words in done.output
    record = json.loads((tmp_path / "mine.json").read_text())
    assert set(record["held_out"]) == {"trained", "untrained"}
    # Its curves: two signs of four stages, and the final numbers twice each, in every panel.
    assert (tmp_path / "mine.png").read_bytes().startswith(b"\x89PNG")
    panels = figure(record).axes
    assert [p.get_title() for p in panels][:2] == [
        "SCC (space), visual disparity",
        "SCC (space), correlation matrix",
    ]
    last = record["training"]["validation"][-1]["cm"]["tcc"]["stages"]["negative"][3]
    final = record["held_out"]["trained"]["cm"]["tcc"]["stages"]["negative"][3]
    lines = [[float(v) for v in line.get_ydata()] for line in panels[3].get_lines()]
    assert [last] in lines and [final] in lines


def test_the_page_s_configuration_learns_from_real_frames(
    samples: Path,
    weights_folder: Path,
    tmp_path: Path,
    run_ffmpeg: Callable[..., None],
    recwarn: pytest.WarningsRecorder,
) -> None:
    """The configuration as printed, on columns of strips: one stands for the emotional clip."""
    page = (ROOT / "docs" / "stccl.md").read_text(encoding="utf-8")
    (printed,) = (
        block for block in re.findall(r"```toml\n(.*?)```", page, re.S) if "list" in block
    )
    (tmp_path / "people.toml").write_text(textwrap.dedent(printed))
    numbers = np.stack([np.arange(6)] * 2, 1)
    listed = []
    for speaker, strip in (("M005", "M003_source_sad_033"), ("W021", "W015_source_sad_028")):
        for emotion, left in (("neutral", 0), ("sad", 512)):
            target = tmp_path / "frames" / speaker / emotion / "001"
            target.mkdir(parents=True)
            crop = f"crop=256:256:{left}:0"
            video = samples / "stccl-page" / "video_result" / f"{strip}.mp4"
            cut = ("-vf", crop, "-r", "25", "-frames:v", "6")
            run_ffmpeg("-ss", "1", "-i", video, *cut, target / "%06d.png")
        listed.append(pair_lists.ListedPair(speaker, "sad", ("001", "001"), numbers))
    listed.append(listed[-1]._replace(speaker="M019"))
    shutil.copytree(tmp_path / "frames" / "W021", tmp_path / "frames" / "M019")
    pair_lists.write_pair_list(tmp_path / "pairs.json", listed)
    arguments = ["train", "--config", str(tmp_path / "people.toml"), "--steps", "1", "--quiet"]
    arguments += ["--output", str(tmp_path / "out"), "--weights-dir", str(weights_folder)]
    done = CliRunner().invoke(main, [*arguments, "--device", "cpu"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    heads, record = read_checkpoint(tmp_path / "out")
    assert set(heads) == {"vd"} and record.backbone.network == "mobilefacenet"
    assert record.training["data"]["train"]["speakers"] == ["M005"]
    assert not [w for w in recwarn if "puppets" in str(w.message)]


def test_the_backbone_fits_who_is_shown(world: Path) -> None:
    config = configured(world)
    people = config.model_copy(update={"backbone": BackboneSettings()})
    assert people.network == "mobilefacenet"
    official = people.model_copy(update={"backbone": BackboneSettings(profile="official")})
    assert official.network == "arcface-r50-ms1mv3"
    assert read_train_config(default_config()).network == "compact-identity"
    with pytest.warns(UserWarning, match="knows drawn puppets only.*leave 'network' out"):
        train_metric(configured(world, 1, 1), world / "warned", folder=world, device="cpu")


def test_numbers_do_not_depend_on_the_number_of_windows_measured_together(world: Path) -> None:
    config = configured(world)
    network = backbone("compact-identity", WeightsStore(), size=64)
    found = pair_lists.listed_pairs(world / "pairs.json", world / "frames")
    every = Windows(found, choose_windows(found, 5, 2), 5, network)
    one = [Windows(found, [w], 5, network) for w in every.windows]
    whole = measure_heads(every, config.forms, None)["vd"]["scc"]["positive"]
    each = [measure_heads(w, config.forms, None)["vd"]["scc"]["positive"] for w in one]
    assert whole == pytest.approx(sum(each) / len(each), abs=2e-5)
