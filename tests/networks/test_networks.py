"""Every architecture written here computes what its reference computes."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import python_speech_features
import torch

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import NetworkCard, network_card
from spfem_bench.errors import WeightsError
from spfem_bench.faces import crop
from spfem_bench.faces.detect import load_detector
from spfem_bench.media import video
from spfem_bench.media.mfcc import mfcc, sound_windows
from spfem_bench.networks.load import BatchFunction, load_network
from spfem_bench.networks.syncnet import SyncNet
from spfem_bench.networks.weights import WeightsStore

COLUMNS = (0, 256, 512, 768, 1024)
"""Left edges of source, reference, STCCL-VD, STCCL-CM and NED in protocols/stccl-page-ned.toml."""

REFERENCES = {
    "M003_source_sad_033": "W015",
    "M012_source_angry_029": "M012",
    "M012_source_happy_037": "W029",
    "M030_source_angry_037": "M012",
    "M030_source_disgusted_030": "M030",
    "W015_source_happy_037": "M030",
    "W015_source_sad_028": "W015",
    "W015_source_sad_030": "W015",
}
"""Who is in the reference column (reference_speaker in protocols/stccl-page-ned.csv); the other
columns show the speaker in the name."""

Pin = Callable[[str, bytes], NetworkCard]


@pytest.fixture(scope="module")
def weights(weights_folder: Path) -> WeightsStore:
    return WeightsStore(weights_folder)


@pytest.fixture
def pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pin:
    """Write weights and a user's card that pins them, modelled on one of the project's cards."""
    (tmp_path / "own" / "metrics" / "networks").mkdir(parents=True)
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "own"))

    def write(like: str, content: bytes) -> NetworkCard:
        original = network_card(like)
        text = original.path.read_text(encoding="utf-8").partition("[[files]]")[0]
        text += '[[files]]\nname = "pinned.bin"\nurl = "https://example.org/pinned.bin"\n'
        text += f'sha256 = "{hashlib.sha256(content).hexdigest()}"\n'
        (tmp_path / "own" / "metrics" / "networks" / "mine.toml").write_text(text, encoding="utf-8")
        (tmp_path / "weights" / "pinned.bin").write_bytes(content)
        from spfem_bench.definitions import cards

        cards._paths.cache_clear()  # the card is younger than the first look into its folder
        return network_card("mine")

    return write


@pytest.fixture
def own_weights(tmp_path: Path) -> WeightsStore:
    return WeightsStore(tmp_path / "weights")


@pytest.fixture(scope="module")
def strips(samples: Path, weights: WeightsStore) -> Mapping[tuple[str, int], Any]:
    """Faces of five columns of eight strips: pictures and detections of three frames each."""
    detect = load_detector(network_card("scrfd-500m"), weights)
    found: dict[tuple[str, int], Any] = {}
    for name in REFERENCES:
        clip = Clip(samples / "stccl-page" / "video_result" / f"{name}.mp4")
        for frame in itertools.islice(video.frames(clip), 0, 31, 15):
            for left in COLUMNS:
                picture = np.ascontiguousarray(frame[:, left : left + 256])
                found.setdefault((name, left), []).append((picture, detect(picture)[0]))
    return found


# ---- mini-Xception: the HDF5 file's own layer graph, walked in numpy ----------------------


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Keras' rule for padding='same': ceil(size / stride) outputs, the odd pixel at the end."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def windows(
    x: np.ndarray, kernel: list[int], strides: list[int], padding: str, fill: float
) -> np.ndarray:
    """All windows of (B, height, width, channels) as (B, rows, columns, channels, kh, kw)."""
    if padding == "same":
        pads = [
            same_padding(size, k, s)
            for size, k, s in zip(x.shape[1:3], kernel, strides, strict=True)
        ]
        x = np.pad(x, ((0, 0), *pads, (0, 0)), constant_values=fill)
    views = np.lib.stride_tricks.sliding_window_view(x, tuple(kernel), axis=(1, 2))
    return views[:, :: strides[0], :: strides[1]]


def keras_layer(
    kind: str,
    config: Mapping[str, Any],
    weights: Mapping[str, np.ndarray],
    inputs: list[np.ndarray],
) -> np.ndarray:
    x = inputs[0]
    if kind in ("Conv2D", "SeparableConv2D"):
        assert config["dilation_rate"] == [1, 1]
        assert config["activation"] == "linear"
        assert config["data_format"] == "channels_last"
        view = windows(x, config["kernel_size"], config["strides"], config["padding"], 0.0)
        if kind == "Conv2D":
            y = np.einsum("bijchw,hwco->bijo", view, weights["kernel"], optimize=True)
        else:
            assert config["depth_multiplier"] == 1
            deep = np.einsum("bijchw,hwc->bijc", view, weights["depthwise_kernel"][..., 0])
            y = deep @ weights["pointwise_kernel"][0, 0]
        return y + weights["bias"] if config["use_bias"] else y
    if kind == "BatchNormalization":
        normal = (x - weights["moving_mean"]) / np.sqrt(
            weights["moving_variance"] + config["epsilon"]
        )
        return normal * weights["gamma"] + weights["beta"]
    if kind == "Activation" and config["activation"] == "relu":
        return np.maximum(x, 0)
    if kind == "Activation" and config["activation"] == "softmax":
        powers = np.exp(x - x.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)
    if kind == "MaxPooling2D":
        view = windows(x, config["pool_size"], config["strides"], config["padding"], -np.inf)
        return view.max(axis=(-2, -1))
    if kind == "Add":
        return sum(inputs[1:], start=x)
    if kind == "GlobalAveragePooling2D":
        return x.mean(axis=(1, 2))
    raise ValueError(f"a layer that this walker does not know: {kind}")


def walk_keras(path: Path, x: np.ndarray) -> dict[str, np.ndarray]:
    """Run a Keras HDF5 file on a batch; return every layer's output by the layer's name."""
    done: dict[str, np.ndarray] = {}
    with h5py.File(path, "r") as file:
        for layer in json.loads(file.attrs["model_config"])["config"]["layers"]:
            name, kind = layer["name"], layer["class_name"]
            if kind == "InputLayer":
                done[name] = x.astype(np.float64)
                continue
            group = file["model_weights"][name]
            weights = {
                key.decode().split("/")[-1].removesuffix(":0"): np.asarray(group[key], np.float64)
                for key in group.attrs["weight_names"]
            }
            inputs = [done[node[0]] for node in layer["inbound_nodes"][0]]
            done[name] = keras_layer(kind, layer["config"], weights, inputs)
    return done


def assert_same_as_keras_graph(weights_folder: Path, run: BatchFunction, crops: np.ndarray) -> None:
    path = weights_folder / "fer2013_mini_XCEPTION.102-0.66.hdf5"
    layers = walk_keras(path, crops / 127.5 - 1)  # the file's contract: grey in [-1, 1]
    ours = run(crops)
    assert np.abs(ours["probabilities"] - layers["predictions"]).max() < 1e-4
    features = layers["add_4"].mean(axis=(1, 2))  # the last Add, before the classifier
    assert np.abs(ours["features"] - features).max() < 1e-4
    assert features.std() > 0.01  # not all the same number


def test_mini_xception_is_the_graph_in_its_file_on_random_pictures(
    weights_folder: Path, weights: WeightsStore
) -> None:
    run = load_network(network_card("mini-xception"), weights)["crops"]
    crops = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 1), np.uint8)
    crops[4:] = [[[[0]]], [[[255]]]]
    assert_same_as_keras_graph(weights_folder, run, crops)


def test_mini_xception_is_the_graph_in_its_file_on_real_faces(
    weights_folder: Path, weights: WeightsStore, strips: Mapping[tuple[str, int], Any]
) -> None:
    card = network_card("mini-xception")
    crops = np.stack([crop.expression(*seen[0], card.input) for seen in strips.values()])
    assert_same_as_keras_graph(weights_folder, load_network(card, weights)["crops"], crops)


def test_mini_xception_sees_the_emotion_of_a_happy_face(
    weights: WeightsStore, strips: Mapping[tuple[str, int], Any]
) -> None:
    # A check of the classes' order and of the crop: on the clips of happy speakers,
    # class 3 (happy) must be more probable than on those of sad ones.
    card = network_card("mini-xception")
    run = load_network(card, weights)["crops"]

    def happy(part: str) -> float:
        seen = [s for (name, left), s in strips.items() if part in name and left == 256]
        crops = [crop.expression(*frame, card.input) for frames in seen for frame in frames]
        return float(run(np.stack(crops))["probabilities"][:, 3].mean())

    assert happy("happy") > 2 * happy("sad")


# ---- MobileFaceNet ------------------------------------------------------------------------


def numpy_conv(x: np.ndarray, kernel: np.ndarray, stride: int, padding: int) -> np.ndarray:
    """Convolve (B, C, H, W) with a PyTorch kernel; one of (C, 1, h, w) is depthwise."""
    x = np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    view = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
    view = view[:, :, ::stride, ::stride]
    if kernel.shape[1] == 1 and x.shape[1] > 1:
        return np.einsum("bcijhw,chw->bcij", view, kernel[:, 0])
    return np.einsum("bcijhw,ochw->boij", view, kernel, optimize=True)


class Checkpoint:
    """Layers of a PyTorch checkpoint in float64 numpy, by the checkpoint's own names."""

    def __init__(self, path: Path) -> None:
        state = torch.load(path, map_location="cpu", weights_only=True)["net_state_dict"]
        self.state = {key: value.double().numpy() for key, value in state.items()}

    def conv(self, name: str, x: np.ndarray, stride: int = 1, padding: int = 0) -> np.ndarray:
        return numpy_conv(x, self.state[f"{name}.weight"], stride, padding)

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        mean, var, gain, bias = (
            self.state[f"{name}.{part}"][:, None, None]
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / np.sqrt(var + 1e-5) * gain + bias

    def prelu(self, name: str, x: np.ndarray) -> np.ndarray:
        return np.where(x > 0, x, x * self.state[f"{name}.weight"][:, None, None])

    def unit(self, name: str, x: np.ndarray, **where: int) -> np.ndarray:
        return self.norm(f"{name}.bn", self.conv(f"{name}.conv", x, **where))

    def bottleneck(self, name: str, x: np.ndarray, stride: int) -> np.ndarray:
        y = self.prelu(f"{name}.2", self.norm(f"{name}.1", self.conv(f"{name}.0", x)))
        y = self.conv(f"{name}.3", y, stride=stride, padding=1)
        y = self.prelu(f"{name}.5", self.norm(f"{name}.4", y))
        y = self.norm(f"{name}.7", self.conv(f"{name}.6", y))
        return x + y if x.shape == y.shape else y


def test_mobilefacenet_is_the_network_of_the_paper_layer_by_layer(
    weights_folder: Path, weights: WeightsStore
) -> None:
    crops = np.random.default_rng(1).integers(0, 256, (2, 112, 96, 3), np.uint8)
    c = Checkpoint(weights_folder / "068.ckpt")
    x = (crops.transpose(0, 3, 1, 2) - 127.5) / 128
    x = c.prelu("conv1.prelu", c.unit("conv1", x, stride=2, padding=1))
    x = c.prelu("dw_conv1.prelu", c.unit("dw_conv1", x, padding=1))
    # Table 1 of the paper: 5 + 1 + 6 + 1 + 2 bottlenecks, the first, sixth and
    # thirteenth with stride 2.
    for i in range(15):
        x = c.bottleneck(f"blocks.{i}.conv", x, stride=2 if i in (0, 5, 12) else 1)
    x = c.prelu("conv2.prelu", c.unit("conv2", x))
    x = c.unit("linear1", c.unit("linear7", x))
    assert x.shape == (2, 128, 1, 1)
    ours = load_network(network_card("mobilefacenet"), weights)["crops"](crops)["embedding"]
    assert np.abs(ours - x[:, :, 0, 0]).max() < 1e-4 * np.abs(x).max()


def test_one_person_in_two_columns_is_more_alike_than_two_people(
    weights: WeightsStore, strips: Mapping[tuple[str, int], Any]
) -> None:
    card = network_card("mobilefacenet")
    run = load_network(card, weights)["crops"]
    embeddings = {}
    for (name, left), seen in strips.items():
        mean = run(np.stack([crop.arcface(*s, card.input) for s in seen]))["embedding"].mean(axis=0)
        who = REFERENCES[name] if left == 256 else name.split("_")[0]
        embeddings[who, name, left] = mean / np.linalg.norm(mean)
    same, different = [], []
    for (a, x), (b, y) in itertools.combinations(embeddings.items(), 2):
        (same if a[0] == b[0] else different).append(float(x @ y))
    assert len(embeddings) == 40
    assert len({who for who, _, _ in embeddings}) == 5
    assert min(same) > max(different)


# ---- SyncNet ------------------------------------------------------------------------------


SYNCNET_LAYERS = {
    "netcnnaud.0": (64, 1, 3, 3),
    "netcnnaud.1": (64,),
    "netcnnaud.4": (192, 64, 3, 3),
    "netcnnaud.5": (192,),
    "netcnnaud.8": (384, 192, 3, 3),
    "netcnnaud.9": (384,),
    "netcnnaud.11": (256, 384, 3, 3),
    "netcnnaud.12": (256,),
    "netcnnaud.14": (256, 256, 3, 3),
    "netcnnaud.15": (256,),
    "netcnnaud.18": (512, 256, 5, 4),
    "netcnnaud.19": (512,),
    "netfcaud.0": (512, 512),
    "netfcaud.1": (512,),
    "netfcaud.3": (1024, 512),
    "netfclip.0": (512, 512),
    "netfclip.1": (512,),
    "netfclip.3": (1024, 512),
    "netcnnlip.0": (96, 3, 5, 7, 7),
    "netcnnlip.1": (96,),
    "netcnnlip.4": (256, 96, 1, 5, 5),
    "netcnnlip.5": (256,),
    "netcnnlip.8": (256, 256, 1, 3, 3),
    "netcnnlip.9": (256,),
    "netcnnlip.11": (256, 256, 1, 3, 3),
    "netcnnlip.12": (256,),
    "netcnnlip.14": (256, 256, 1, 3, 3),
    "netcnnlip.15": (256,),
    "netcnnlip.18": (512, 256, 1, 6, 6),
    "netcnnlip.19": (512,),
}
"""Names and weight shapes of syncnet_v2.model, written down from the package's class."""

NORMALISATION = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def test_syncnet_has_the_names_and_shapes_of_the_official_file() -> None:
    expected: dict[str, tuple[int, ...]] = {}
    for name, shape in SYNCNET_LAYERS.items():
        for part in NORMALISATION if len(shape) == 1 else NORMALISATION[:2]:
            expected[f"{name}.{part}"] = () if part == NORMALISATION[-1] else shape[:1]
        expected[f"{name}.weight"] = shape
    assert {k: tuple(v.shape) for k, v in SyncNet().state_dict().items()} == expected


def test_syncnet_gives_the_numbers_of_the_package_on_fixed_weights() -> None:
    """Numbers written down from the package's class: strides, padding and order of layers."""
    rng = np.random.default_rng(0)
    net, state = SyncNet(), {}
    for name, tensor in net.state_dict().items():
        if tensor.ndim == 0:
            state[name] = tensor
            continue
        values = rng.uniform(-1, 1, tensor.shape)
        if name.endswith("running_var"):
            values = values**2 + 0.5
        elif tensor.ndim > 1:
            values = values * (3 / values[0].size) ** 0.5
        state[name] = torch.from_numpy(values.astype(np.float32))
    net.load_state_dict(state)
    rng = np.random.default_rng(1)
    frames = torch.from_numpy(rng.integers(0, 256, (1, 3, 6, 224, 224)).astype(np.float32))
    steps = torch.from_numpy(rng.normal(0, 8, (2, 1, 13, 20)).astype(np.float32))
    with torch.inference_mode():
        visual, audio = net.eval().visual(frames)[0, :, :4], net.audio(steps)[:, :4]
    np.testing.assert_allclose(
        visual,
        [[-0.376749, 3.944363, 4.242635, 0.954750], [-0.199369, 3.988599, 3.839582, 1.237896]],
        atol=1e-4,
    )
    np.testing.assert_allclose(
        audio,
        [[-1.520912, -0.086385, -0.999623, 0.375174], [-1.527548, -0.090715, -0.988753, 0.405414]],
        atol=1e-4,
    )


def test_syncnet_has_the_names_and_shapes_of_the_package() -> None:
    theirs = seeded_syncnet().state_dict()
    shapes = [(k, v.shape) for k, v in SyncNet().state_dict().items()]
    assert shapes == [(k, v.shape) for k, v in theirs.items()]


def seeded_syncnet(seed: int = 0) -> Any:
    """Return the package's own network with seeded weights that keep the signal alive."""
    from syncnet_python.SyncNetModel import S

    torch.manual_seed(seed)
    net = S(num_layers_in_fc_layers=1024)
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.1)
    return net.eval().requires_grad_(False)


def saved(state: object, *, zip_format: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream, _use_new_zipfile_serialization=zip_format)
    return stream.getvalue()


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_syncnet_lip_vectors_are_the_packages_window_by_window(
    zip_format: bool, pin: Pin, own_weights: WeightsStore
) -> None:
    net = seeded_syncnet()
    card = pin("syncnet-v2", saved(net.state_dict(), zip_format=zip_format))
    rgb = np.random.default_rng(2).integers(0, 256, (2, 7, 224, 224, 3), np.uint8)
    ours = load_network(card, own_weights)["frames"](rgb)["visual"]
    assert ours.shape == (2, 3, 1024)
    for run in range(2):
        for start in range(3):
            # As in SyncNetInstance.evaluate: BGR, 0 to 255, (1, 3, 5, 224, 224).
            bgr = rgb[run, start : start + 5, :, :, ::-1].transpose(3, 0, 1, 2)[None]
            expected = net.forward_lip(torch.from_numpy(bgr.astype(np.float32))).numpy()[0]
            assert np.abs(ours[run, start] - expected).max() < 1e-4 * np.abs(expected).max()
    # Neighbouring windows differ by far more than the tolerance.
    assert np.abs(ours[0, 0] - ours[0, 1]).max() > 1e-2 * np.abs(ours).max()


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_syncnet_sound_vectors_are_the_packages(
    zip_format: bool, pin: Pin, own_weights: WeightsStore
) -> None:
    net = seeded_syncnet()
    card = pin("syncnet-v2", saved(net.state_dict(), zip_format=zip_format))
    steps = np.random.default_rng(3).normal(0, 10, (9, 1, 13, 20)).astype(np.float32)
    ours = load_network(card, own_weights)["sound"](steps)["audio"]
    expected = net.forward_aud(torch.from_numpy(steps)).numpy()
    assert ours.shape == (9, 1024)
    assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()


def test_syncnet_loads_a_file_older_than_batch_counters(
    pin: Pin, own_weights: WeightsStore
) -> None:
    # The official file was written before PyTorch 0.4.1 added num_batches_tracked.
    net = seeded_syncnet()
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    card = pin("syncnet-v2", saved(state, zip_format=False))
    steps = np.random.default_rng(4).normal(0, 10, (1, 1, 13, 20)).astype(np.float32)
    ours = load_network(card, own_weights)["sound"](steps)["audio"]
    np.testing.assert_allclose(ours, net.forward_aud(torch.from_numpy(steps)), rtol=0, atol=1e-5)


MINUTE = 60 * 16_000
"""Long sound is worked on in pieces of one minute."""


@pytest.mark.parametrize(
    "length",
    [
        1,
        2,
        159,
        160,
        399,
        400,
        401,
        560,
        561,
        16_000,
        37_123,
        MINUTE - 1,
        MINUTE,
        MINUTE + 1,
        MINUTE + 239,
        MINUTE + 240,
        MINUTE + 241,
        MINUTE + 400,
        MINUTE + 401,
        2 * MINUTE + 240,
        2 * MINUTE + 241,
        2 * MINUTE + 7_777,
    ],
)
def test_mfcc_is_the_packages(length: int) -> None:
    loudness = np.random.default_rng(length).normal(0, 6_000, length)
    samples = np.clip(loudness, -32_768, 32_767).astype(np.int16)
    expected = python_speech_features.mfcc(samples, 16_000).astype(np.float32)
    ours = mfcc(samples)
    assert ours.dtype == np.float32
    assert ours.shape == expected.shape
    np.testing.assert_array_max_ulp(ours, expected, maxulp=1)  # BLAS may sum in other orders
    assert (ours == expected).mean() > 0.999


@pytest.mark.parametrize("length", [8_000, MINUTE + 4_000])
def test_mfcc_of_silence_and_of_full_loudness_is_the_packages(length: int) -> None:
    # Pre-emphasis must not wrap around at the ends of int16.
    for samples in (
        np.zeros(length, np.int16),
        np.tile(np.array([-32_768, 32_767], np.int16), length // 2),
    ):
        expected = python_speech_features.mfcc(samples, 16_000).astype(np.float32)
        np.testing.assert_array_max_ulp(mfcc(samples), expected, maxulp=2)


def test_sound_windows_are_the_slices_of_the_official_script() -> None:
    steps = np.random.default_rng(5).normal(size=(60, 13)).astype(np.float32)
    cct = steps.T[None, None]  # SyncNetInstance.evaluate: cct[:, :, :, 4 v : 4 v + 20]
    ours = sound_windows(steps, 11)
    assert ours.shape == (11, 1, 13, 20)
    for v in range(11):
        np.testing.assert_array_equal(ours[v], cct[0, :, :, 4 * v : 4 * v + 20])


# ---- weights of something else --------------------------------------------------------------


def hdf5(layers: Mapping[str, Mapping[str, tuple[int, ...]]]) -> bytes:
    """Write a Keras-like HDF5 file with arrays of zeros."""
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        for layer, arrays in layers.items():
            for name, shape in arrays.items():
                file[f"model_weights/{layer}/{layer}/{name}:0"] = np.zeros(shape, np.float32)
    return stream.getvalue()


def mini_xception_shapes() -> dict[str, dict[str, tuple[int, ...]]]:
    """Return layers with this network's names, all of one channel."""
    one = {"gamma": (1,), "beta": (1,), "moving_mean": (1,), "moving_variance": (1,)}
    kernel = {"kernel": (3, 3, 1, 1)}
    separable = {"depthwise_kernel": (3, 3, 1, 1), "pointwise_kernel": (1, 1, 1, 1)}
    layers: dict[str, dict[str, tuple[int, ...]]] = {}
    layers.update({f"conv2d_{i}": kernel for i in range(1, 7)})
    layers["conv2d_7"] = {**kernel, "bias": (1,)}
    layers.update({f"batch_normalization_{i}": one for i in range(1, 15)})
    layers.update({f"separable_conv2d_{i}": separable for i in range(1, 9)})
    return layers


def narrow_syncnet() -> dict[str, torch.Tensor]:
    """Return the weights of a network whose vectors have 512 numbers."""
    state = dict(SyncNet().state_dict())
    return state | {k: v[:512] for k, v in state.items() if k.partition(".")[2].startswith("3.")}


WRONG = {
    "syncnet-of-a-linear-layer": ("syncnet-v2", lambda: saved(torch.nn.Linear(2, 2).state_dict())),
    "syncnet-of-other-width": ("syncnet-v2", lambda: saved(narrow_syncnet())),
    "syncnet-lacking-a-layer": (
        "syncnet-v2",
        lambda: saved({k: v for k, v in SyncNet().state_dict().items() if "netfcaud.3" not in k}),
    ),
    "syncnet-of-numbers": ("syncnet-v2", lambda: saved({"netcnnaud.0.weight": 3.0})),
    "mobilefacenet-of-syncnet": ("mobilefacenet", lambda: saved(SyncNet().state_dict())),
    "mobilefacenet-of-nothing": ("mobilefacenet", lambda: saved({"net_state_dict": None})),
    "mobilefacenet-of-a-list": ("mobilefacenet", lambda: saved([torch.zeros(2)])),
    "mobilefacenet-of-a-whole-module": ("mobilefacenet", lambda: saved(torch.nn.Linear(2, 2))),
    "mobilefacenet-of-text": ("mobilefacenet", lambda: b"<!DOCTYPE html><html>404</html>\n"),
    "mobilefacenet-of-no-bytes": ("mobilefacenet", lambda: b""),
    "mini-xception-of-text": ("mini-xception", lambda: b"<!DOCTYPE html><html>404</html>\n"),
    "mini-xception-of-other-layers": (
        "mini-xception",
        lambda: hdf5({"dense_1": {"kernel": (4, 4)}}),
    ),
    "mini-xception-without-weights": ("mini-xception", lambda: hdf5({})),
    "mini-xception-of-other-width": ("mini-xception", lambda: hdf5(mini_xception_shapes())),
    "mini-xception-with-a-flat-kernel": (
        "mini-xception",
        lambda: hdf5({**mini_xception_shapes(), "conv2d_1": {"kernel": (4, 4)}}),
    ),
    "mini-xception-with-an-array-for-a-layer": (
        "mini-xception",
        lambda: array_for_a_layer(),
    ),
}


def array_for_a_layer() -> bytes:
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["model_weights/conv2d_1"] = np.zeros(3)
    return stream.getvalue()


def assert_one_line(error: BaseException) -> None:
    text = str(error)
    assert "'mine'" in text
    assert "\n" not in text
    assert len(text) < 500


@pytest.mark.parametrize(("like", "content"), WRONG.values(), ids=WRONG.keys())
def test_weights_of_something_else_are_refused_in_one_line(
    like: str, content: Callable[[], bytes], pin: Pin, own_weights: WeightsStore
) -> None:
    card = pin(like, content())
    with pytest.raises(WeightsError) as caught:
        load_network(card, own_weights)
    assert_one_line(caught.value)


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("part", [0.001, 0.01, 0.5, 0.999])
def test_a_checkpoint_cut_short_is_refused_in_one_line(
    part: float, zip_format: bool, pin: Pin, own_weights: WeightsStore
) -> None:
    # Pinned by the hash of its damaged bytes, so that the reader has to notice.
    whole = saved({"a": torch.zeros(50_000)}, zip_format=zip_format)
    card = pin("syncnet-v2", whole[: int(len(whole) * part)])
    with pytest.raises(WeightsError) as caught:
        load_network(card, own_weights)
    assert_one_line(caught.value)


class Bomb:
    """A pickle that would write a file when executed."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.write_text, (self.target, "executed")


@pytest.mark.parametrize("zip_format", [True, False], ids=["zip", "legacy"])
def test_a_checkpoint_that_carries_code_is_refused_and_not_executed(
    zip_format: bool, pin: Pin, own_weights: WeightsStore, tmp_path: Path
) -> None:
    card = pin("syncnet-v2", saved({"a": Bomb(tmp_path / "trace")}, zip_format=zip_format))
    with pytest.raises(WeightsError) as caught:
        load_network(card, own_weights)
    assert_one_line(caught.value)
    assert not (tmp_path / "trace").exists()
