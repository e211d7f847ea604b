"""What STCCL learns from: four-stage backbones, pairs of frames, the aligner that makes them."""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from click.testing import CliRunner
from scipy.io import wavfile
from skimage.transform import SimilarityTransform

from spfem_bench.cli.main import main
from spfem_bench.datasets import alignment as aligner
from spfem_bench.datasets import pair_lists as lists
from spfem_bench.datasets import pose
from spfem_bench.datasets.pairs import EmotionPair, pairs_digest
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import network_card
from spfem_bench.errors import CardError, ClipError, UnknownNameError, WeightsError
from spfem_bench.faces.crop import ARCFACE_TEMPLATE
from spfem_bench.faces.track import Face
from spfem_bench.networks.iresnet import IResNet50
from spfem_bench.networks.load import load_module, load_network
from spfem_bench.networks.mobilefacenet import MobileFaceNet
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets import pairs as puppets
from spfem_bench.puppets.pairs import Puppet, puppet_pairs, true_frames
from spfem_bench.puppets.speech import correspondence
from spfem_bench.puppets.world import FRAME_RATE, World
from spfem_bench.stccl.backbone import STAGES, Backbone, backbone
from tests.conftest import SHARED

PUPPETS = World()
THE_LIST = SHARED / "protocol_data" / "aligned_path36.json"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


# ---- IResNet-50 in the official format -----------------------------------------------------

BATCH_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def official_keys() -> dict[str, tuple[int, ...]]:
    """Names and shapes of an arcface_torch r50 ``backbone.pth``, in its order."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        for key in BATCH_NORM:
            shapes[f"{name}.{key}"] = () if key == "num_batches_tracked" else (channels,)

    shapes["conv1.weight"] = (64, 3, 3, 3)
    norm("bn1", 64)
    shapes["prelu.weight"] = (64,)
    inputs = 64
    for layer, (blocks, outputs) in enumerate(((3, 64), (4, 128), (14, 256), (3, 512)), 1):
        for block in range(blocks):
            name = f"layer{layer}.{block}"
            norm(f"{name}.bn1", inputs)
            shapes[f"{name}.conv1.weight"] = (outputs, inputs, 3, 3)
            norm(f"{name}.bn2", outputs)
            shapes[f"{name}.prelu.weight"] = (outputs,)
            shapes[f"{name}.conv2.weight"] = (outputs, outputs, 3, 3)
            norm(f"{name}.bn3", outputs)
            if block == 0:
                shapes[f"{name}.downsample.0.weight"] = (outputs, inputs, 1, 1)
                norm(f"{name}.downsample.1", outputs)
            inputs = outputs
    norm("bn2", 512)
    shapes["fc.weight"], shapes["fc.bias"] = (512, 25088), (512,)
    norm("features", 512)
    return shapes


def random_state(seed: int = 3) -> dict[str, torch.Tensor]:
    """Weights of the official shapes, none of them at its default."""
    draw = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in official_keys().items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(7)
        elif name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            state[name] = torch.rand(shape, generator=draw) * 0.5 + 0.5
        else:
            fan = max(1, int(np.prod(shape[1:])))
            state[name] = torch.randn(shape, generator=draw) / fan**0.5
    return state


def by_the_letter(state: dict[str, torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    """Four stages, then the embedding, step by step from the published architecture."""

    def norm(name: str, x: torch.Tensor) -> torch.Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{key}"] for key in ("running_mean", "running_var", "weight", "bias")
        )
        shape = (1, -1, 1, 1) if x.ndim == 4 else (1, -1)
        y = (x - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
        return y * weight.view(shape) + bias.view(shape)

    def prelu(name: str, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x > 0, x, x * state[f"{name}.weight"].view(1, -1, 1, 1))

    x = prelu("prelu", norm("bn1", F.conv2d(x, state["conv1.weight"], padding=1)))
    found = []
    for layer, blocks in enumerate((3, 4, 14, 3), 1):
        for block in range(blocks):
            name, stride = f"layer{layer}.{block}", 2 if block == 0 else 1
            y = F.conv2d(norm(f"{name}.bn1", x), state[f"{name}.conv1.weight"], padding=1)
            y = prelu(f"{name}.prelu", norm(f"{name}.bn2", y))
            y = norm(f"{name}.bn3", F.conv2d(y, state[f"{name}.conv2.weight"], None, stride, 1))
            if block == 0:
                x = F.conv2d(x, state[f"{name}.downsample.0.weight"], None, stride)
                x = norm(f"{name}.downsample.1", x)
            x = x + y
        found.append(x)
    flat = norm("bn2", x).flatten(1)
    found.append(norm("features", flat @ state["fc.weight"].T + state["fc.bias"]))
    return found


@pytest.fixture(scope="module")
def r50(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, torch.Tensor]]:
    """A user's card of an IResNet-50 with random weights, and those weights."""
    top = tmp_path_factory.mktemp("r50")
    state = random_state()
    (top / "weights").mkdir()
    torch.save(state, top / "weights" / "backbone.pth")
    folder = top / "cards" / "metrics" / "networks"
    folder.mkdir(parents=True)
    digest = hashlib.sha256((top / "weights" / "backbone.pth").read_bytes()).hexdigest()
    card = f"""
title = "Mine"
role = "identity"
architecture = "iresnet50"
source = "these tests"
licence = "none"
citation = "none"
[outputs]
embedding = 512
[input]
crop = "arcface"
width = 112
mean = 127.5
std = 127.5
[[files]]
name = "backbone.pth"
sha256 = "{digest}"
url = "https://example.org/backbone.pth"
"""
    (folder / "my-r50.toml").write_text(card)
    # The same file as another architecture's.
    (folder / "no-r50.toml").write_text(card.replace("iresnet50", "mobilefacenet"))
    return top, state


@pytest.fixture
def own_r50(r50: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> WeightsStore:
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(r50[0] / "cards"))
    return WeightsStore(r50[0] / "weights")


def test_iresnet50_has_the_official_names_and_shapes() -> None:
    mine = {name: tuple(value.shape) for name, value in IResNet50().state_dict().items()}
    assert mine == official_keys()
    assert len(mine) == 475
    assert sum(p.numel() for p in IResNet50().parameters()) == 43_590_848


def test_iresnet50_computes_the_published_architecture(
    r50: tuple[Path, dict[str, torch.Tensor]], own_r50: WeightsStore
) -> None:
    state = r50[1]
    crops = np.random.default_rng(1).integers(0, 256, (2, 112, 112, 3), np.uint8)
    x = (torch.from_numpy(crops).permute(0, 3, 1, 2).float() - 127.5) / 127.5
    *maps, embedding = by_the_letter(state, x)
    found = load_network(network_card("my-r50"), own_r50)["crops"](crops)["embedding"]
    assert found.shape == (2, 512)
    # The largest values are about 150 here: float32 leaves 1e-5 of that after fifty layers.
    np.testing.assert_allclose(found, embedding, atol=3e-3)
    stages = backbone("my-r50", own_r50).stages(x)
    assert [tuple(m.shape) for m in stages] == [
        (2, 64, 56, 56),
        (2, 128, 28, 28),
        (2, 256, 14, 14),
        (2, 512, 7, 7),
    ]
    for mine, expected in zip(stages, maps, strict=True):
        torch.testing.assert_close(mine, expected, atol=2e-5 * float(expected.max()), rtol=0)


def test_iresnet50_as_the_released_code_feeds_it(own_r50: WeightsStore) -> None:
    """224 x 224, BGR: stages of twice the size."""
    released = backbone("my-r50", own_r50, size=224, colour="bgr")
    pictures = torch.rand(1, 3, 224, 224) * 2 - 1
    maps = released.stages(pictures)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (64, 112, 112),
        (128, 56, 56),
        (256, 28, 28),
        (512, 14, 14),
    ]
    network = load_module(network_card("my-r50"), own_r50)
    torch.testing.assert_close(maps, network.stages(pictures[:, [2, 1, 0]]))  # type: ignore[operator]


def test_weights_of_an_iresnet_are_not_a_mobilefacenets(own_r50: WeightsStore) -> None:
    with pytest.raises(WeightsError, match="are not a mobilefacenet's"):
        backbone("no-r50", own_r50)


# ---- backbones -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compact() -> Backbone:
    return backbone("compact-identity", WeightsStore())


def test_stages_of_the_networks_that_ship_or_are_small(weights_folder: Path) -> None:
    pictures = torch.rand(2, 3, 96, 130) * 2 - 1
    for name in ("compact-identity", "mobilefacenet"):
        net = backbone(name, WeightsStore(weights_folder))
        maps = net.stages(pictures)
        assert net.channels == STAGES[network_card(name).architecture]
        assert tuple(m.shape[1] for m in maps) == net.channels
        assert [m.shape[2] for m in maps] == [m.shape[3] for m in maps] == [56, 28, 14, 7]


def test_stages_of_mobilefacenet_lead_to_its_embedding() -> None:
    torch.manual_seed(1)
    network = MobileFaceNet().eval()
    x = torch.randn(2, 3, 112, 96)
    with torch.no_grad():
        maps = network.stages(x)
        assert [tuple(m.shape[2:]) for m in maps] == [(56, 48), (28, 24), (14, 12), (7, 6)]
        blocks = network.blocks(network.dw_conv1(network.conv1(x)))
        torch.testing.assert_close(maps[-1], blocks)
        end = network.linear1(network.linear7(network.conv2(maps[-1]))).flatten(1)
        torch.testing.assert_close(network(x)["embedding"], end)


def test_pictures_are_scaled_as_the_card_says(weights_folder: Path) -> None:
    """Pixels 0 to 255 through the card's mean and deviation: (x - 127.5) / 128."""
    store = WeightsStore(weights_folder)
    pixels = torch.randint(0, 256, (1, 3, 112, 112)).float()
    network = load_module(network_card("mobilefacenet"), store)
    expected = network.stages((pixels - 127.5) / 128)  # type: ignore[operator]
    found = backbone("mobilefacenet", store).stages(pixels / 127.5 - 1)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_the_backbone_is_frozen_and_passes_gradients_on(compact: Backbone) -> None:
    around = torch.nn.ModuleDict({"backbone": compact}).train()
    assert not any(module.training for module in around["backbone"].modules())
    assert not any(p.requires_grad for p in compact.parameters())
    exact = copy.deepcopy(compact).double()
    torch.manual_seed(2)
    pictures = (torch.rand(1, 3, 70, 70, dtype=torch.float64) * 1.6 - 0.8).requires_grad_()
    weights = [torch.randn_like(m) for m in exact.stages(pictures)]

    def value(x: torch.Tensor) -> torch.Tensor:
        return torch.stack(
            [(m * w).mean() for m, w in zip(exact.stages(x), weights, strict=True)]
        ).sum()

    (slope,) = torch.autograd.grad(value(pictures), pictures)
    assert slope.abs().max() > 0
    step = torch.randn_like(pictures)
    with torch.no_grad():
        h = 1e-8  # so small that hardly any ReLU turns within it
        measured = (value(pictures + h * step) - value(pictures - h * step)) / (2 * h)
    assert float((slope * step).sum()) == pytest.approx(float(measured), rel=1e-4)


def test_making_smaller_averages(compact: Backbone) -> None:
    """A board of single black and white pixels is grey from afar, not black or white."""
    board = (torch.arange(448)[:, None] + torch.arange(448)) % 2 * 2.0 - 1
    fine = compact.stages(board.expand(1, 3, 448, 448))
    grey = compact.stages(torch.zeros(1, 3, 112, 112))
    for a, b in zip(fine, grey, strict=True):  # the border sees half a filter
        torch.testing.assert_close(a[..., 3:-3, 3:-3], b[..., 3:-3, 3:-3], atol=0.03, rtol=0.03)


@pytest.mark.parametrize(
    ("pictures", "said"),
    [
        (torch.zeros(1, 3, 9, 9, dtype=torch.uint8), "whole numbers"),
        (torch.zeros(3, 9, 9), r"shape \(3, 9, 9\)"),
        (torch.zeros(1, 1, 9, 9), "shape"),
        (torch.zeros(0, 3, 9, 9), "shape"),
    ],
)
def test_pictures_of_another_kind_are_refused(
    compact: Backbone, pictures: torch.Tensor, said: str
) -> None:
    with pytest.raises(CardError, match=said):
        compact.stages(pictures)


def test_bad_backbones_are_refused() -> None:
    with pytest.raises(CardError, match="has no four stages"):
        backbone("compact-expression", WeightsStore())
    with pytest.raises(UnknownNameError, match="Did you mean 'compact-identity'"):
        backbone("compact-identitty", WeightsStore())
    with pytest.raises(CardError, match="Allowed: rgb, bgr"):
        backbone("compact-identity", WeightsStore(), colour="grb")
    with pytest.raises(CardError, match="from 32 to 1024"):
        backbone("compact-identity", WeightsStore(), size=8)


# ---- pose ----------------------------------------------------------------------------------


def test_similarity_by_hand() -> None:
    """A quarter turn, twice as large, then 3 to the right: (x, y) -> (3 - 2 y, 2 x)."""
    square = np.array([[0, 0], [1, 0], [1, 1], [0, 1.0]])
    target = np.array([[3, 0], [3, 2], [1, 2], [1, 0.0]])
    expected = [[0, -2, 3], [2, 0, 0]]
    np.testing.assert_allclose(pose.fit_similarity(square, target), expected, atol=1e-12)


def test_similarity_is_scikit_images_and_opencvs() -> None:
    rng = np.random.default_rng(3)
    for count in (2, 5, 25):
        points, noise = rng.uniform(0, 100, (count, 2)), rng.normal(0, 2, (count, 2))
        turn = np.array([[0.8, -0.3], [0.3, 0.8]])
        target = points @ turn.T + [5, -7] + noise
        found = pose.fit_similarity(points, target)
        # scikit-image renamed it in 0.26.
        if hasattr(SimilarityTransform, "from_estimate"):
            independent = SimilarityTransform.from_estimate(points, target)
        else:
            independent = SimilarityTransform()
            independent.estimate(points, target)
        np.testing.assert_allclose(found, independent.params[:2], atol=1e-8)
    exact = points @ turn.T + [5, -7]
    theirs, _ = cv2.estimateAffinePartial2D(points, exact)
    np.testing.assert_allclose(pose.fit_similarity(points, exact), theirs, atol=1e-3)


def test_bad_landmarks_are_refused() -> None:
    good = np.arange(10.0).reshape(5, 2)
    for points, target, said in (
        (good, good[:4], "shapes"),
        (good[:, :1], good[:, :1], "shapes"),
        (np.ones((5, 2)), good, "one point"),
        (np.full((5, 2), np.nan), good, "not a finite number"),
    ):
        with pytest.raises(CardError, match=said):
            pose.fit_similarity(points, target)


def test_a_moved_face_is_moved_back() -> None:
    """Turned by 9 degrees, 0.85 times as large and shifted, then aligned again."""
    recording = Puppet(PUPPETS.take("P020", "neutral", "001"))
    picture = recording.frame(30)
    points = recording.points(30, picture)
    assert points is not None
    a = 0.85 * np.exp(1j * np.deg2rad(9))
    away = np.array([[a.real, -a.imag, 20.0], [a.imag, a.real, -3.0]])
    turned = pose.warp_picture(picture, away, 128)
    again = pose.warp_picture(
        turned, pose.fit_similarity(pose.move_points(points, away), points), 128
    )
    inner = (slice(30, 100), slice(30, 100))  # what never left the picture
    off = np.abs(again[inner].astype(float) - picture[inner]).mean()
    before = np.abs(turned[inner].astype(float) - picture[inner]).mean()
    assert off < 5 and off < before / 5


def test_resizing_keeps_points_where_they_are() -> None:
    """A dot at (30, 50) of 128 pixels lies at (30.5 f - 0.5, 50.5 f - 0.5) of any size."""
    picture = np.zeros((128, 128, 3), np.uint8)
    cv2.circle(picture, (30, 50), 6, (255, 255, 255), -1)
    for size in (64, 112, 224):
        f = size / 128
        small = pose.warp_picture(picture, pose.fit_square(picture, size, "it"), size)[
            ..., 0
        ].astype(float)
        assert small.shape == (size, size)
        rows, columns = np.mgrid[:size, :size]
        centre = [(small * grid).sum() / small.sum() for grid in (columns, rows)]
        np.testing.assert_allclose(centre, [30.5 * f - 0.5, 50.5 * f - 0.5], atol=0.05)


# ---- puppets -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts() -> dict[str, list[EmotionPair]]:
    return {part: puppet_pairs(PUPPETS, part) for part in ("train", "held-out", "validation")}  # type: ignore[arg-type]


def test_parts_share_no_speaker_and_tests_are_in_none(parts: dict[str, list[EmotionPair]]) -> None:
    who = {part: {pair.speaker for pair in pairs} for part, pairs in parts.items()}
    said = {
        part: {pair.neutral.take.sentence.name for pair in pairs}  # type: ignore[union-attr]
        for part, pairs in parts.items()
    }
    assert {part: len(names) for part, names in who.items()} == {
        "train": 234,
        "held-out": 6,
        "validation": 6,
    }
    assert not who["train"] & who["held-out"] and not who["train"] & who["validation"]
    assert not who["held-out"] & who["validation"]
    test = {s.name for s in PUPPETS.speakers if s.split == "test"}
    assert not test & set.union(*who.values())
    # Learnt from, and looked at while learning: the paired sentences, none of the tests'.
    assert said["train"] == said["held-out"] == {s.name for s in PUPPETS.sentences if s.paired}
    assert said["validation"] == {s.name for s in PUPPETS.sentences if s.split == "test"}
    assert not said["train"] & said["validation"]
    assert {part: len(pairs) for part, pairs in parts.items()} == {
        "train": 234 * 3 * 6,
        "held-out": 6 * 3 * 6,
        "validation": 6 * 3 * 6,
    }


def test_puppets_pair_one_speaker_and_sentence_neutral_first(
    parts: dict[str, list[EmotionPair]],
) -> None:
    for pair in parts["held-out"]:
        a, b = pair.neutral.take, pair.emotional.take  # type: ignore[union-attr]
        assert a.speaker == b.speaker and a.sentence == b.sentence
        assert (a.emotion, b.emotion) == ("neutral", pair.emotion) and pair.emotion != "neutral"
        assert len(pair) == a.n_frames
        steps = np.diff(pair.numbers, axis=0)
        assert (steps[:, 0] == 1).all() and (steps[:, 1] >= 0).all()
        assert pair.numbers.min() >= 0 and pair.numbers[:, 1].max() < b.n_frames


def test_paired_frames_are_the_nearest_to_the_true_moment() -> None:
    a, b = (PUPPETS.take("P100", emotion, "002") for emotion in ("neutral", "sad"))
    for i, j in true_frames(a, b):
        moment = float(correspondence(a.phones, b.phones, (i + 0.5) / FRAME_RATE))
        shown = (np.arange(b.n_frames) + 0.5) / FRAME_RATE
        assert abs(shown[j] - moment) == pytest.approx(np.abs(shown - moment).min(), abs=1e-9)


def test_pictures_of_a_pair_are_in_one_pose(parts: dict[str, list[EmotionPair]]) -> None:
    """After alignment, the steady landmarks are closer than in the frames as they are."""
    for pair in parts["held-out"][2::36]:
        before, after = [], []
        for k in (5, len(pair) // 2):
            i, j = (int(n) for n in pair.numbers[k])
            size = 224
            x, y = pair.pictures(k, size)
            assert x.shape == y.shape == (size, size, 3) and x.dtype == y.dtype == np.uint8
            points = pair.neutral.points(i, x), pair.emotional.points(j, y)
            assert points[0] is not None and points[1] is not None
            move = pose.fit_similarity(points[1], points[0])
            before.append(np.abs(points[1] - points[0]).mean())
            after.append(np.abs(pose.move_points(points[1], move) - points[0]).mean())
        assert np.mean(after) < 0.5 * np.mean(before)
        assert np.mean(after) < 1.0  # pixels of 128


def test_the_emotional_face_lies_on_the_neutral_one() -> None:
    """Eyes of two moments of one take, between which the head moves, lie on each other."""
    recording = Puppet(PUPPETS.take("P020", "neutral", "001"))
    pair = EmotionPair("P020", "neutral", recording, recording, np.array([[10, 50], [50, 10]]))
    for k in range(2):
        x, y = pair.pictures(k, 128)
        eyes = (slice(45, 62), slice(35, 93))
        i, j = (int(n) for n in pair.numbers[k])
        loose = np.abs(x[eyes].astype(float) - recording.frame(j)[eyes]).mean()
        tight = np.abs(x[eyes].astype(float) - y[eyes]).mean()
        np.testing.assert_allclose(x, recording.frame(i), atol=1)
        assert tight < 0.7 * loose


def test_windows_by_hand() -> None:
    puppet = Puppet(PUPPETS.take("P020", "neutral", "001"))
    numbers = np.array([[0, 0], [1, 1], [2, 1], [3, 2], [4, 4], [5, 5]])
    pair = EmotionPair("P020", "sad", puppet, puppet, numbers)
    assert pair.windows(3).tolist() == [0, 1, 2, 3]
    # Between entries 1 and 2 the second recording stands still.
    assert pair.windows(3, moving=True).tolist() == [2, 3]
    assert pair.windows(6).tolist() == [0] and pair.windows(7).tolist() == []
    assert pair.windows(7, moving=True).tolist() == []
    assert pair.windows(1, moving=True).tolist() == list(range(6))


def test_the_digest_says_what_is_paired(parts: dict[str, list[EmotionPair]]) -> None:
    held = parts["held-out"]
    assert pairs_digest(held) == pairs_digest(puppet_pairs(PUPPETS, "held-out"))
    others = [held[1:], held[::-1], puppet_pairs(World(seed=9), "held-out")]
    assert len({pairs_digest(pairs) for pairs in [held, *others]}) == 4


def test_a_second_face_shares_everything_but_the_emotion() -> None:
    (pair,) = puppet_pairs(PUPPETS, "held-out", speakers=1, second="face")[5:6]
    assert isinstance(pair.neutral, Puppet) and isinstance(pair.emotional, Puppet)
    a, b = pair.neutral.take, pair.emotional.take
    assert pair.numbers.tolist() == [[t, t] for t in range(a.n_frames)]
    assert (a.mouth == b.mouth).all() and (a.eyes == b.eyes).all()
    assert (a.emotion, b.emotion) == ("neutral", "surprised")
    recorded = PUPPETS.take(a.speaker.name, "surprised", a.sentence.name)
    steady = list(puppets.STEADY)
    own, other = (
        np.abs(t.landmarks[:9] - a.landmarks[:9])[:, steady].mean() for t in (b, recorded)
    )
    assert own < 1e-9 and other > 1  # pixels of a frame 128 wide
    assert pairs_digest([pair]) != pairs_digest(puppet_pairs(PUPPETS, "held-out", speakers=1)[5:6])


def test_fewer_speakers_and_parts_that_are_not() -> None:
    few = puppet_pairs(PUPPETS, "train", speakers=2)
    assert [pair.speaker for pair in few[::18]] == ["P013", "P014"] and len(few) == 36
    for count in (0, 7):
        with pytest.raises(CardError, match="from 1 to 6"):
            puppet_pairs(PUPPETS, "held-out", speakers=count)
    with pytest.raises(UnknownNameError, match="Allowed: held-out, train, validation"):
        puppet_pairs(PUPPETS, "test")  # type: ignore[arg-type]


# ---- lists ---------------------------------------------------------------------------------


@pytest.mark.skipif(not THE_LIST.is_file(), reason="needs the authors' aligned_path36.json")
def test_the_authors_list_is_read_whole(tmp_path: Path) -> None:
    listed = lists.read_pair_list(THE_LIST)
    assert len({entry.speaker for entry in listed}) == 36
    assert len(listed) == 648
    assert sum(len(entry.numbers) for entry in listed) == 70_303
    assert not {entry.speaker for entry in listed} & set(lists.TEST_SPEAKERS)
    assert {entry.emotion for entry in listed} == {
        "angry",
        "disgusted",
        "fear",
        "happy",
        "sad",
        "surprised",
    }
    lists.write_pair_list(tmp_path / "again.json", listed)
    assert json.loads((tmp_path / "again.json").read_bytes()) == json.loads(THE_LIST.read_bytes())


@pytest.mark.skipif(not THE_LIST.is_file(), reason="needs the authors' aligned_path36.json")
def test_the_authors_list_without_frames_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(CardError, match=r"of \d+ frames are absent: M035/neutral/001/000000\.png"):
        lists.listed_pairs(THE_LIST, tmp_path)


def a_list(folder: Path, content: Any) -> Path:
    path = folder / "pairs.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


GOOD = {"M005": {"sad": {"001_030": [[0, 1, 2], [0, 0, 1]]}}}


def frames_of(root: Path, *names: str, size: tuple[int, int] = (40, 40)) -> None:
    for value, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        picture = np.full((*size, 3), 40 * value, np.uint8)
        picture[..., 0] = 255  # blue in OpenCV's order
        cv2.imwrite(str(root / name), picture)


def test_frames_are_looked_up_in_a_folder(tmp_path: Path) -> None:
    names = [
        f"M005/{n}.png"
        for n in (
            "neutral-1-001-1",
            "neutral-1-001-2",
            "neutral-1-001-3",
            "sad-3-030-1",
            "sad-3-030-2",
        )
    ]
    frames_of(tmp_path, *names)
    (pair,) = lists.listed_pairs(
        a_list(tmp_path, GOOD),
        tmp_path,
        template="{speaker}/{emotion}-{level}-{clip}-{frame}.png",
        first=1,
    )
    assert (pair.speaker, pair.emotion, len(pair)) == ("M005", "sad", 3)
    x, y = pair.pictures(2, 20)
    assert x.shape == (20, 20, 3)
    assert x[0, 0].tolist() == [80, 80, 255]  # RGB; the third frame of the neutral clip
    assert y[0, 0].tolist() == [160, 160, 255]


def test_faces_of_real_frames_are_put_on_the_template(tmp_path: Path) -> None:
    """Two frames of different sizes, each with five dots for its points."""
    spots = {
        "neutral/001": (ARCFACE_TEMPLATE * 2 + 30, 300),
        "sad/030": (ARCFACE_TEMPLATE * 1.3 + [50, 20], 260),
    }
    for name, (points, side) in spots.items():
        picture = np.zeros((side, side + 20, 3), np.uint8)
        for x, y in points:
            cv2.circle(picture, (round(x), round(y)), 5, (255, 255, 255), -1)
        for n in range(3):
            (tmp_path / f"M005/{name}").mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / f"M005/{name}/{n:06d}.png"), picture)

    def detect(picture: np.ndarray[Any, Any]) -> list[Face]:
        points = next(p for p, side in spots.values() if side == picture.shape[0])
        box = np.array([*points.min(0), *points.max(0)], np.float32)
        speck = Face(box / 10, points.astype(np.float32) / 10, 0.99)
        return [speck, Face(box, points.astype(np.float32), 0.8)]

    (pair,) = lists.listed_pairs(a_list(tmp_path, GOOD), tmp_path, find=lists.five_points(detect))
    for picture in pair.pictures(1, 224):
        for x, y in (ARCFACE_TEMPLATE + 0.5) * 2 - 0.5:
            assert picture[round(y), round(x), 0] > 150
        assert picture[112, 20, 0] < 30


def test_a_frame_without_a_face_is_named(tmp_path: Path) -> None:
    frames_of(
        tmp_path, *(f"M005/{c}/{n:06d}.png" for c in ("neutral/001", "sad/030") for n in range(3))
    )
    (pair,) = lists.listed_pairs(
        a_list(tmp_path, GOOD), tmp_path, find=lists.five_points(lambda picture: [])
    )
    with pytest.raises(ClipError, match=r"000001\.png: no face in this frame"):
        pair.pictures(1, 112)


def test_frames_that_are_no_squares_need_faces(tmp_path: Path) -> None:
    frames_of(
        tmp_path,
        *(f"M005/{c}/{n:06d}.png" for c in ("neutral/001", "sad/030") for n in range(3)),
        size=(40, 60),
    )
    (pair,) = lists.listed_pairs(a_list(tmp_path, GOOD), tmp_path)
    with pytest.raises(ClipError, match="M005/neutral/001: 60 x 40 pixels, which is no square"):
        pair.pictures(0, 112)


def test_absent_frames_are_named_and_counted(tmp_path: Path) -> None:
    frames_of(tmp_path, "M005/neutral/001/000000.png")
    with pytest.raises(CardError) as caught:
        lists.listed_pairs(a_list(tmp_path, GOOD), tmp_path)
    said = str(caught.value)
    assert "4 of 5 frames are absent: M005/neutral/001/000001.png, " in said
    assert said.count(".png") == 3 and "…" in said and "number of the first frame" in said
    with pytest.raises(CardError, match="is no folder"):
        lists.listed_pairs(a_list(tmp_path, GOOD), tmp_path / "nowhere")


def test_test_speakers_are_not_learnt_from(tmp_path: Path) -> None:
    path = a_list(tmp_path, {**GOOD, "W029": GOOD["M005"]})
    with pytest.raises(CardError, match="W029, on whom methods are tested"):
        lists.listed_pairs(path, tmp_path)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ([[0, 1, 2], [0, 1]], "3 neutral frames but 2 emotional ones"),
        ([[4], [4]], "only 1 of the 2 frames"),
        ([[], []], "only 0 of the 2 frames"),
        ([[0, 2, 1], [0, 1, 2]], "frame numbers go back"),
        ([[-1, 0], [0, 1]], "whole and at least 0"),
        ([[0, 1.5], [0, 1]], "whole and at least 0"),
        ([[0, True], [0, 1]], "whole and at least 0"),
        ([[0, 1]], "not two lists"),
        ("0, 1", "not two lists"),
    ],
)
def test_pairs_that_cannot_be_used_are_named(tmp_path: Path, columns: Any, said: str) -> None:
    content = {"M005": {"sad": {"001_001": [[0, 1], [0, 1]], "002_002": columns}}}
    with pytest.raises(CardError) as caught:
        lists.read_pair_list(a_list(tmp_path, content))
    assert "1 pairs cannot be used: M005/sad/002_002: " in str(caught.value)
    assert said in str(caught.value)


def test_many_wrong_pairs_are_counted(tmp_path: Path) -> None:
    clips = {f"{n:03d}_{n:03d}": [[0, 1, 2], [0, 1]] for n in range(9)}
    with pytest.raises(CardError, match="9 pairs cannot be used") as caught:
        lists.read_pair_list(a_list(tmp_path, {"M005": {"sad": clips}}))
    assert str(caught.value).count("neutral frames but") == 3


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[1, 2", "is not valid JSON"),
        ([1, 2], "no table of names"),
        ({"M005": [1]}, "M005: no table of names"),
        ({"M005": {"sad": 3}}, "M005/sad: no table of names"),
        ({}, "holds no pairs"),
        ({"M005": {"sad": {"001": [[0, 1], [0, 1]]}}}, "does not name two clips"),
        ({"M005": {"sad": {"a_b_c": [[0, 1], [0, 1]]}}}, "does not name two clips"),
    ],
)
def test_files_that_are_no_lists_are_refused(tmp_path: Path, content: Any, said: str) -> None:
    with pytest.raises(CardError, match=said):
        lists.read_pair_list(a_list(tmp_path, content))
    with pytest.raises(CardError, match="No such file"):
        lists.read_pair_list(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{speaker}/{clip}.png", "lacks {frame}"),
        ("{speeker}/{frame}.png", "unknown part of the template 'speeker'"),
        ("{speaker.__class__}/{frame}.png", "unknown part of the template"),
        ("{speaker}/{frame", "is wrong"),
        ("{speaker}/{frame:06q}.png", "is wrong"),
        ("../{frame}.png", "leaves its folder"),
    ],
)
def test_bad_templates_are_refused(tmp_path: Path, template: str, said: str) -> None:
    with pytest.raises((CardError, UnknownNameError), match=said):
        lists.listed_pairs(a_list(tmp_path, GOOD), tmp_path, template=template)


def test_names_in_a_list_do_not_leave_the_folder(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="leaves its folder"):
        lists.listed_pairs(a_list(tmp_path, {"../..": GOOD["M005"]}), tmp_path)
    odd = {"{frame}": {"sad": {"001_001": [[0, 1], [0, 1]]}}}
    with pytest.raises(CardError, match=r"absent: \{frame\}/neutral/001/000000\.png"):
        lists.listed_pairs(a_list(tmp_path, odd), tmp_path)


def test_speakers_are_held_out(parts: dict[str, list[EmotionPair]]) -> None:
    pairs = parts["held-out"]
    learn, held = lists.hold_out(pairs, ["P250", "P252"])
    assert {pair.speaker for pair in held} == {"P250", "P252"}
    assert {pair.speaker for pair in learn} == {"P247", "P248", "P249", "P251"}
    assert len(learn) + len(held) == len(pairs)
    with pytest.raises(UnknownNameError, match="speaker to hold out 'W021'"):
        lists.hold_out(pairs, ["W021"])
    with pytest.raises(CardError, match="all speakers are held out"):
        lists.hold_out(pairs, {pair.speaker for pair in pairs})


# ---- the aligner ---------------------------------------------------------------------------


def test_sound_finds_what_a_linear_stretch_cannot(parts: dict[str, list[EmotionPair]]) -> None:
    """Six emotions, speakers and sentences that nothing was chosen with."""
    off, stretched = [], []
    for pair in parts["validation"][::19]:
        a, b = pair.neutral.take, pair.emotional.take  # type: ignore[union-attr]
        times = (np.arange(a.n_frames) + 0.5) / FRAME_RATE
        truth = correspondence(a.phones, b.phones, times)
        found, distance = aligner.warp_times(a.sound(), b.sound(), times)
        assert (np.diff(found) >= 0).all()
        assert 0.3 < distance < 0.8
        off.append(np.abs(found - truth))
        stretched.append(np.abs(times * b.n_frames / a.n_frames - truth))
    errors, control = (1000 * np.concatenate(e) for e in (off, stretched))
    # Measured over all 108 pairs (benchmarks/aligner.py): 6 ms, 95 % within 18 ms, 99.5 %
    # within a frame; a linear stretch 47 ms, 111 ms, 50 %.
    assert errors.mean() < 10 and np.percentile(errors, 95) < 35
    assert (errors <= 40).mean() > 0.97
    assert control.mean() > 3 * errors.mean() and (control <= 40).mean() < 0.7


def test_frames_are_nearly_the_true_ones(parts: dict[str, list[EmotionPair]]) -> None:
    pair = parts["validation"][4]
    a, b = pair.neutral.take, pair.emotional.take  # type: ignore[union-attr]
    found = aligner.align(a.sound(), b.sound())
    assert found.numbers.shape == pair.numbers.shape
    assert (np.abs(found.numbers - pair.numbers) <= 1).mean() > 0.98
    # The other way round, and at another frame rate.
    double = aligner.align(a.sound(), b.sound(), 50.0).numbers
    assert (
        len(double) == 2 * len(pair) and (np.abs(double[::2, 1] / 2 - pair.numbers[:, 1]) < 3).all()
    )


def test_a_recording_corresponds_to_itself_and_to_itself_delayed() -> None:
    sound = PUPPETS.take("P100", "happy", "003").sound()
    found = aligner.align(sound, sound)
    assert (found.numbers[:, 0] == found.numbers[:, 1]).all() and found.distance == 0
    late = np.concatenate([sound[:400].repeat(16), sound])  # 0.4 s
    shifted = aligner.align(sound, late).numbers
    inner = shifted[15:-10]
    assert (np.abs(inner[:, 1] - inner[:, 0] - 10) <= 1).mean() > 0.95


def test_two_sentences_are_further_apart_than_one_twice() -> None:
    one, again, other = (
        PUPPETS.take("P100", emotion, sentence).sound()
        for emotion, sentence in (("neutral", "001"), ("sad", "001"), ("sad", "002"))
    )
    assert aligner.align(one, again).distance < 0.8 < 0.95 < aligner.align(one, other).distance


def test_the_path_is_the_cheapest() -> None:
    """The library against the recurrence written as loops, over squared distances.

    A step in one sequence alone costs the penalty's square beside its distance.
    """
    from dtaidistance import dtw

    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(14, 3)), rng.normal(size=(11, 3))
    penalty = 1.3
    cost = np.full((15, 12), np.inf)
    cost[0, 0] = 0
    for i in range(14):
        for j in range(11):
            here = ((x[i] - y[j]) ** 2).sum()
            alone = min(cost[i, j + 1], cost[i + 1, j]) + penalty**2
            cost[i + 1, j + 1] = here + min(cost[i, j], alone)
    path = dtw.warping_path_fast(x, y, penalty=penalty)
    spent = ((x[path[0][0]] - y[path[0][1]]) ** 2).sum()
    for (i, j), (k, m) in itertools.pairwise(path):
        assert (k - i, m - j) in {(1, 0), (0, 1), (1, 1)}
        spent += ((x[k] - y[m]) ** 2).sum() + (penalty**2 if (k == i or m == j) else 0)
    assert path[0] == (0, 0) and path[-1] == (13, 10)
    assert spent == pytest.approx(cost[-1, -1])


@pytest.mark.parametrize(
    ("sound", "said"),
    [
        (np.zeros(16_000, np.int16), "sound is silent"),
        (np.ones(100, np.int16), "0.01 s of sound"),
        (np.zeros(0, np.int16), "0.00 s of sound"),
        (np.ones(61 * 16_000, np.int16), "61.00 s of sound"),
    ],
)
def test_sounds_that_cannot_be_aligned(sound: aligner.Sound, said: str) -> None:
    good = PUPPETS.take("P100", "neutral", "001").sound()
    for both in ((sound, good), (good, sound)):
        with pytest.raises(ClipError, match=said):
            aligner.align(*both)


def test_bad_frame_rates_and_too_few_frames() -> None:
    good = PUPPETS.take("P100", "neutral", "001").sound()
    for rate in (0.0, -25.0, float("nan"), float("inf")):
        with pytest.raises(CardError, match="frame rate"):
            aligner.align(good, good, rate)
    with pytest.raises(ClipError, match="1 frames"):
        aligner.align(good, good, 25, (1, 40))


# ---- the command ---------------------------------------------------------------------------


def written(path: Path, emotion: str, sentence: str = "001") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, 16_000, PUPPETS.take("P100", emotion, sentence).sound())
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    monkeypatch.chdir(tmp_path)

    def align(*arguments: str | Path) -> Any:
        return CliRunner().invoke(main, ["align", *map(str, arguments)])

    return align


WHO = ("--speaker", "P100", "--emotion", "sad")


def test_two_recordings_become_a_list(tmp_path: Path, run: Callable[..., Any]) -> None:
    a, b = written(tmp_path / "001.wav", "neutral"), written(tmp_path / "031.wav", "sad")
    result = run(a, b, "-o", "out/pairs.json", *WHO)
    assert result.exit_code == 0, result.output
    assert "001_031: " in result.output and " apart" in result.output
    (entry,) = lists.read_pair_list(tmp_path / "out/pairs.json")
    assert (entry.speaker, entry.emotion, entry.clips) == ("P100", "sad", ("001", "031"))
    truth = true_frames(*(PUPPETS.take("P100", e, "001") for e in ("neutral", "sad")))
    assert (np.abs(entry.numbers - truth) <= 1).mean() > 0.97


def test_folders_are_paired_by_name_and_lists_merged(
    tmp_path: Path, run: Callable[..., Any]
) -> None:
    for sentence in ("001", "002"):
        written(tmp_path / f"neutral/{sentence}.wav", "neutral", sentence)
        written(tmp_path / f"sad/{sentence}.wav", "sad", sentence)
    written(tmp_path / "neutral/017.wav", "neutral", "017")
    (tmp_path / "neutral/notes.txt").write_text("no recording")
    result = run("neutral", "sad", *WHO, "--clip", "002")
    assert result.exit_code == 0, result.output
    assert "pairs.json: 1 pairs; 3 recordings are left over" in result.output
    result = run("neutral", "sad", "--speaker", "P100", "--emotion", "fear", "--merge", "-q")
    assert result.exit_code == 0 and "2 pairs beside 1" in result.output
    listed = lists.read_pair_list(tmp_path / "pairs.json")
    assert [(e.emotion, e.clips[0]) for e in listed] == [
        ("sad", "002"),
        ("fear", "001"),
        ("fear", "002"),
    ]
    (tmp_path / "sad/001.wav").rename(tmp_path / "sad/028.wav")
    result = run("neutral", "sad", *WHO, "--clip", "001=028")
    assert "001_028: " in result.output
    assert len(lists.read_pair_list(tmp_path / "pairs.json")) == 1  # without --merge: written anew


def test_frames_that_the_picture_lacks_are_not_named(
    tmp_path: Path, run_ffmpeg: Callable[..., None]
) -> None:
    sound = written(tmp_path / "001.wav", "neutral")
    short = tmp_path / "short.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "color=size=64x64:rate=25:duration=1", "-i", sound, short)
    found = aligner.align_clips(Clip(sound), Clip(short)).numbers
    assert found[-1, 0] > 24 and found[-1, 1] == 24
    assert aligner.align_clips(Clip(short), Clip(sound)).numbers[-1, 0] == 24


def test_what_cannot_be_aligned_is_said_in_one_line(
    tmp_path: Path, run: Callable[..., Any], run_ffmpeg: Callable[..., None]
) -> None:
    good = written(tmp_path / "a/001.wav", "neutral")
    wavfile.write(tmp_path / "silent.wav", 16_000, np.zeros(16_000, np.int16))
    run_ffmpeg("-f", "lavfi", "-i", "color=size=64x64:rate=25:duration=1", tmp_path / "mute.mp4")
    (tmp_path / "empty").mkdir()
    for arguments, said in (
        ((good, "silent.wav"), "silent.wav: its sound is silent"),
        ((good, "none.wav"), "none.wav: no such file"),
        ((good, "mute.mp4"), "mute.mp4: has no sound"),
        (("a", "empty"), "hold no recordings of one name"),
        (("a", "a", "--clip", "002"), "unknown recording in a '002'"),
        ((good, good, "--clip", "001"), "goes with two folders only"),
    ):
        result = run(*arguments, *WHO)
        assert result.exit_code != 0 and said in result.output, result.output
    written(tmp_path / "x_y.wav", "neutral")
    result = run("x_y.wav", good, *WHO)
    assert "would not tell where the first clip's name ends" in result.output
    assert not (tmp_path / "pairs.json").exists()
    (tmp_path / "a/001.mp3").write_bytes(b"")
    assert "holds 001.mp3 and 001.wav" in run("a", "a", *WHO).output


def test_keys_are_read_as_they_are_written() -> None:
    for clips in (("001", "030"), ("my_clip", "my_clip"), ("a", "a")):
        assert lists.split_key(lists.join_key(clips)) == clips
