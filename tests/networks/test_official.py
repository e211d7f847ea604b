"""The official networks' path gives what their own packages give, image by image.

Weights are random (seeded), in files with the official formats, names and shapes, and of few
layers: what is compared is everything around the graph, and that a batch is its pictures. SyncNet
against syncnet-python is in test_networks.py and test_statistics.py, IResNet-50 in
test_stccl_data.py.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import requests
from click.testing import CliRunner
from insightface.app import FaceAnalysis
from insightface.model_zoo.arcface_onnx import ArcFaceONNX
from onnx import TensorProto, helper, numpy_helper

from spfem_bench.cli.main import main
from spfem_bench.definitions import cards
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import NetworkCard, network_card, profile_card
from spfem_bench.errors import WeightsError
from spfem_bench.faces import crop, exact
from spfem_bench.faces.detect import load_detector
from spfem_bench.faces.track import Face, FaceTrack
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import video
from spfem_bench.media.write import write_clip
from spfem_bench.networks import onnx_files
from spfem_bench.networks.load import load_network
from spfem_bench.networks.weights import WeightsStore

Row = tuple[str, Sequence[str], Sequence[str], dict[str, Any]]


def graph(
    nodes: Sequence[Row],
    constants: dict[str, np.ndarray],
    given: tuple[str, list[Any]],
    outputs: Sequence[tuple[str, list[Any]]],
) -> bytes:
    """Write an ONNX file."""
    made = helper.make_graph(
        [helper.make_node(kind, i, o, **how) for kind, i, o, how in nodes],
        "random",
        [helper.make_tensor_value_info(given[0], TensorProto.FLOAT, given[1])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, shape) for n, shape in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


DET_10G = {
    8: ("448", "451", "454"),
    16: ("471", "474", "477"),
    32: ("494", "497", "500"),
}
"""Names of scores, boxes and points in det_10g.onnx, by stride."""


def det_10g(layout: str = "official", seed: int = 7) -> bytes:
    """Return a detector with det_10g.onnx's inputs and outputs.

    Args:
        layout: ``official`` puts rows in the order row, column, picture, anchor and says that a
            batch has one picture; ``dynamic`` is the later export, (picture, row, width);
            ``built-in`` has the number of rows of one picture in its graph.
        seed: of the weights.
    """
    rng = np.random.default_rng(seed)
    nodes: list[Row] = []
    constants, outputs = {}, {}
    for stride, names in DET_10G.items():
        rows = 2 * (640 // stride) ** 2
        for name, width, scale, bias in zip(
            names, (1, 4, 10), (8, 5, 10), (-4.0, 2.0, 0.0), strict=True
        ):
            kernel = rng.normal(0, scale / stride / np.sqrt(3), (2 * width, 3, stride, stride))
            if width == 1:  # blind to flat patches, as of the black border
                kernel -= kernel.mean(axis=(2, 3), keepdims=True)
            constants[f"{name}_w"] = kernel.astype(np.float32)
            constants[f"{name}_b"] = np.full(2 * width, bias, np.float32)
            shape = {"official": [-1, width], "dynamic": [0, -1, width]}.get(layout, [rows, width])
            constants[f"{name}_shape"] = np.array(shape, np.int64)
            perm = [0, 2, 3, 1] if layout == "dynamic" else [2, 3, 0, 1]
            last = {1: "Sigmoid", 4: "Relu", 10: "Identity"}[width]
            nodes += [
                (
                    "Conv",
                    ["input.1", f"{name}_w", f"{name}_b"],
                    [f"{name}_c"],
                    {"kernel_shape": [stride] * 2, "strides": [stride] * 2},
                ),
                ("Transpose", [f"{name}_c"], [f"{name}_t"], {"perm": perm}),
                ("Reshape", [f"{name}_t", f"{name}_shape"], [f"{name}_r"], {}),
                (last, [f"{name}_r"], [name], {}),
            ]
            outputs[name] = ["batch", rows, width] if layout == "dynamic" else [rows, width]
    first = "batch" if layout == "dynamic" else 1
    order = [names[i] for i in range(3) for names in DET_10G.values()]
    return graph(
        nodes, constants, ("input.1", [first, 3, "?", "?"]), [(n, outputs[n]) for n in order]
    )


def w600k_r50(*, first: int | str = "None", seed: int = 8) -> bytes:
    """Return an embedding network with w600k_r50.onnx's input and output."""
    rng = np.random.default_rng(seed)
    constants = {
        "w": rng.normal(0, 0.05, (8, 3, 16, 16)).astype(np.float32),
        "slope": np.full((8, 1, 1), 0.25, np.float32),
        "fc": rng.normal(0, 0.05, (512, 392)).astype(np.float32),
        "fc_b": rng.normal(0, 0.05, 512).astype(np.float32),
    }
    nodes: list[Row] = [
        ("Conv", ["input.1", "w"], ["c"], {"kernel_shape": [16, 16], "strides": [16, 16]}),
        ("PRelu", ["c", "slope"], ["p"], {}),
        ("Flatten", ["p"], ["f"], {}),
        ("Gemm", ["f", "fc", "fc_b"], ["683"], {"transB": 1}),
    ]
    return graph(nodes, constants, ("input.1", [first, 3, 112, 112]), [("683", [1, 512])])


def enet_b0_8(seed: int = 9) -> bytes:
    """Return an expression network with the input, output and last layers of HSEmotion's files."""
    rng = np.random.default_rng(seed)
    constants = {
        "w": rng.normal(0, 0.05, (1280, 3, 32, 32)).astype(np.float32),
        "classifier.weight": rng.normal(0, 0.2, (8, 1280)).astype(np.float32),
        "classifier.bias": rng.normal(0, 0.2, 8).astype(np.float32),
    }
    nodes: list[Row] = [
        ("Conv", ["input", "w"], ["c"], {"kernel_shape": [32, 32], "strides": [32, 32]}),
        ("Relu", ["c"], ["r"], {}),
        ("GlobalAveragePool", ["r"], ["g"], {}),
        ("Flatten", ["g"], ["f"], {}),
        ("Gemm", ["f", "classifier.weight", "classifier.bias"], ["output"], {"transB": 1}),
    ]
    shape = ["batch_size", 3, 224, 224]
    return graph(nodes, constants, ("input", shape), [("output", ["batch_size", 8])])


FILES = {
    "scrfd-10g": "det_10g.onnx",
    "arcface-r50": "w600k_r50.onnx",
    "hsemotion-vgaf": "enet_b0_8_best_vgaf.onnx",
}


class Bench:
    """A folder of weights in the official formats, and cards that pin them."""

    def __init__(self, folder: Path) -> None:
        self.cards, self.weights = folder / "cards", WeightsStore(folder / "weights")
        (self.cards / "metrics/networks").mkdir(parents=True)
        (self.cards / "metrics/profiles").mkdir()
        (folder / "weights").mkdir()

    def path(self, like: str) -> Path:
        assert self.weights.own
        return self.weights.own / FILES[like]

    def pin(self, like: str, content: bytes) -> NetworkCard:
        """Write weights and a card, modelled on one of the project's, that pins them."""
        original = network_card(like)
        text = original.path.read_text(encoding="utf-8").partition("[[files]]")[0]
        text += f'[[files]]\nname = "{FILES[like]}"\nurl = "https://example.org/{FILES[like]}"\n'
        text += f'sha256 = "{hashlib.sha256(content).hexdigest()}"\n'
        (self.cards / f"metrics/networks/random-{like}.toml").write_text(text, encoding="utf-8")
        self.path(like).write_bytes(content)
        cards._paths.cache_clear()
        cards._read.cache_clear()
        return network_card(f"random-{like}")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(made.cards))
    return made


def pictures(seed: int) -> list[np.ndarray]:
    """Return smooth noise of several sizes, as frames of several clips are."""
    rng = np.random.default_rng(seed)
    shapes = [(256, 256), (480, 270), (270, 480), (641, 640), (97, 211)]
    coarse = [rng.integers(0, 256, (h // 8, w // 8, 3), np.uint8) for h, w in shapes]
    return [cv2.resize(c, (w, h)) for c, (h, w) in zip(coarse, shapes, strict=True)]


def test_usage_data_is_off_before_onnxruntime_is_imported() -> None:
    script = (
        "import builtins, os\n"
        "original = builtins.__import__\n"
        "def spy(name, *arguments, **named):\n"
        "    if name == 'onnxruntime':\n"
        "        print(os.environ.get('ORT_DISABLE_TELEMETRY'))\n"
        "    return original(name, *arguments, **named)\n"
        "builtins.__import__ = spy\n"
        "import spfem_bench.networks.onnx_files\n"
    )
    env = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:1] == ["1"]


# ---- detection: insightface's SCRFD and FaceAnalysis -----------------------------------------


def insightface_faces(
    folder: Path, picture: np.ndarray, tasks: Sequence[str] = ("detection",), side: int = 640
) -> list[Any]:
    """Return what insightface's FaceAnalysis finds in an RGB picture with a folder's models."""
    app = FaceAnalysis(str(folder), allowed_modules=tasks, providers=["CPUExecutionProvider"])
    app.prepare(ctx_id=-1, det_thresh=0.5, det_size=(side, side))
    found: list[Any] = app.get(np.ascontiguousarray(picture[:, :, ::-1]))
    return found


@pytest.mark.parametrize(
    ("layout", "batched", "side"),
    [
        ("official", True, 640),
        ("official", True, 160),
        ("dynamic", True, 640),
        ("dynamic", True, 320),
        ("built-in", False, 640),
    ],
)
def test_a_batch_of_frames_gives_what_insightface_gives_frame_by_frame(
    layout: str, batched: bool, side: int, bench: Bench
) -> None:
    card = bench.pin("scrfd-10g", det_10g(layout))
    detector = load_detector(card, bench.weights)
    assert detector.batched is batched
    frames = pictures(1)
    found = detector.many(frames, side)
    counts = []
    for frame, faces in zip(frames, found, strict=True):
        expected = insightface_faces(bench.weights.own or Path(), frame, side=side)
        assert len(faces) == len(expected)
        counts.append(len(faces))
        for ours, theirs in zip(faces, expected, strict=True):
            np.testing.assert_array_equal(ours.box, theirs.bbox)
            np.testing.assert_array_equal(ours.points, theirs.kps)
            assert ours.score == theirs.det_score
    assert sum(counts) > 20
    assert len(set(counts)) > 1  # the frames of the batch are not taken for one another


def test_a_detector_of_one_size_is_refused_where_the_size_goes_by_the_face(bench: Bench) -> None:
    card = bench.pin("scrfd-10g", det_10g("built-in"))
    auto = card.model_copy(update={"input": network_card("scrfd-10g-auto").input})
    with pytest.raises(WeightsError, match="it takes pictures of one size"):
        load_detector(auto, bench.weights)


def test_a_graph_that_mixes_a_batch_in_an_unknown_way_runs_picture_by_picture(
    bench: Bench,
) -> None:
    """An embedding of the mean over the batch: right for one picture, wrong for two."""
    content = onnx.load_model_from_string(w600k_r50(first=1))
    content.graph.node[1].input[0] = "mixed"
    content.graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "zero"))
    content.graph.node.insert(1, helper.make_node("ReduceMean", ["c"], ["m"], axes=[0]))
    content.graph.node.insert(2, helper.make_node("Mul", ["c", "zero"], ["nothing"]))
    content.graph.node.insert(3, helper.make_node("Add", ["nothing", "m"], ["mixed"]))
    card = bench.pin("arcface-r50", content.SerializeToString())
    model = onnx_files.parse_model(content.SerializeToString(), card)
    run, batched = onnx_files.start(model, card)
    assert not batched
    noise = np.random.default_rng(3).uniform(-1, 1, (3, 3, 112, 112)).astype(np.float32)
    (together,) = run(noise)
    alone = [run(noise[i : i + 1])[0][0] for i in range(3)]
    np.testing.assert_array_equal(together, alone)
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_beside_apples_gpu_onnx_files_run_on_the_processor(bench: Bench) -> None:
    content = w600k_r50(first="None")
    card = bench.pin("arcface-r50", content)
    model = onnx_files.parse_model(content, card)
    noise = np.random.default_rng(3).uniform(-1, 1, (2, 3, 112, 112)).astype(np.float32)
    (plain,), (beside,) = (onnx_files.start(model, card, d)[0](noise) for d in ("cpu", "mps"))
    np.testing.assert_array_equal(beside, plain)


# ---- identity: insightface's ArcFaceONNX -------------------------------------------------------


@pytest.mark.parametrize("first", ["None", 1])
def test_embeddings_of_a_batch_are_arcface_onnx_one_by_one(first: Any, bench: Bench) -> None:
    card = bench.pin("arcface-r50", w600k_r50(first=first))
    run = load_network(card, bench.weights)["crops"]
    crops = np.random.default_rng(2).integers(0, 256, (7, 112, 112, 3), np.uint8)
    ours = run(crops)["embedding"]
    reference = ArcFaceONNX(model_file=str(bench.path("arcface-r50")))
    for picture, embedding in zip(crops, ours, strict=True):
        theirs = reference.get_feat(np.ascontiguousarray(picture[:, :, ::-1]))[0]
        assert np.abs(embedding - theirs).max() < 1e-5 * np.abs(theirs).max()
    assert np.abs(ours[0] - ours[1]).max() > 0.01


def test_a_graph_without_prelu_gives_what_onnxruntime_makes_of_the_file(bench: Bench) -> None:
    """Slopes of both signs, one for each channel; a file's PRelu is replaced on x86."""
    content = onnx.load_model_from_string(w600k_r50(first="None"))
    rng = np.random.default_rng(6)
    names = [node.input[1] for node in content.graph.node if node.op_type == "PRelu"]
    assert names
    for weights in content.graph.initializer:
        if weights.name in names:
            slope = rng.normal(0.1, 0.3, numpy_helper.to_array(weights).shape).astype(np.float32)
            weights.CopyFrom(numpy_helper.from_array(slope, weights.name))
    raw = content.SerializeToString()
    session = onnxruntime.InferenceSession(raw, providers=["CPUExecutionProvider"])
    card = bench.pin("arcface-r50", raw)
    run, _ = onnx_files.start(onnx_files.parse_model(raw, card), card)
    noise = rng.uniform(-1, 1, (3, 3, 112, 112)).astype(np.float32)
    (ours,), (theirs,) = run(noise), session.run(None, {session.get_inputs()[0].name: noise})
    assert np.abs(ours - theirs).max() <= 1e-6 * np.abs(theirs).max()
    assert np.abs(theirs[0] - theirs[1]).max() > 0.01


def test_face_analysis_and_we_embed_the_same_faces(bench: Bench) -> None:
    """From whole frames: detection, alignment, crop and embedding, in a batch of all faces."""
    detector = load_detector(bench.pin("scrfd-10g", det_10g()), bench.weights)
    card = bench.pin("arcface-r50", w600k_r50())
    run = load_network(card, bench.weights)["crops"]
    frames = pictures(4)[:3]
    tasks = ("detection", "recognition")
    faces = detector.many(frames, 640)
    found = [(f, face) for f, each in zip(frames, faces, strict=True) for face in each]
    ours = run(np.stack([crop.arcface(f, face, card.input) for f, face in found]))["embedding"]
    theirs = [f for p in frames for f in insightface_faces(bench.weights.own or Path(), p, tasks)]
    assert len(theirs) == len(ours) > 20
    for embedding, expected in zip(ours, theirs, strict=True):
        scale = np.abs(expected.embedding).max()
        assert np.abs(embedding - expected.embedding).max() < 1e-5 * scale


# ---- expression: hsemotion-onnx and EmotiEffLib -------------------------------------------------


@pytest.fixture
def faces() -> list[np.ndarray]:
    """Cuts of face boxes of any size and shape, RGB."""
    return [p[: 20 + 40 * i, : 50 + 30 * i] for i, p in enumerate(pictures(5))]


def box(cut: np.ndarray) -> Face:
    height, width = cut.shape[:2]
    return Face(np.float32([0, 0, width, height]), np.zeros((5, 2), np.float32), 1.0)


def test_logits_of_a_batch_are_hsemotions_one_by_one(
    bench: Bench, faces: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    facial_emotions = pytest.importorskip("hsemotion_onnx.facial_emotions")
    card = bench.pin("hsemotion-vgaf", enet_b0_8())
    monkeypatch.setattr(
        facial_emotions, "get_model_path", lambda _: str(bench.path("hsemotion-vgaf"))
    )
    theirs = facial_emotions.HSEmotionRecognizer("enet_b0_8_best_vgaf")
    batch = np.stack([crop.box(f, box(f), card.input) for f in faces])
    ours = load_network(card, bench.weights)["crops"](batch)["probabilities"]
    for face, row in zip(faces, ours, strict=True):
        _, expected = theirs.predict_emotions(face, logits=False)
        assert np.abs(row - expected).max() < 1e-5
    assert np.abs(ours[0] - ours[1]).max() > 1e-3


def test_features_of_a_batch_are_emotiefflibs_one_by_one(
    bench: Bench, faces: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its PyTorch engine is not needed, and torchvision may be absent or of another torch.
    monkeypatch.setitem(sys.modules, "torchvision", None)
    facial_analysis = pytest.importorskip("emotiefflib.facial_analysis")
    card = bench.pin("hsemotion-vgaf", enet_b0_8())
    monkeypatch.setattr(
        facial_analysis, "get_model_path_onnx", lambda _: str(bench.path("hsemotion-vgaf"))
    )
    theirs = facial_analysis.EmotiEffLibRecognizerOnnx("enet_b0_8_best_vgaf")
    batch = np.stack([crop.box(f, box(f), card.input) for f in faces])
    ours = load_network(card, bench.weights)["crops"](batch)["features"]
    assert ours.shape == (len(faces), 1280)
    for face, row in zip(faces, ours, strict=True):
        expected = theirs.extract_features(face)[0]
        assert np.abs(row - expected).max() < 1e-5 * np.abs(expected).max()
    assert np.abs(ours[0] - ours[1]).max() > 1e-3


def test_a_face_box_is_cut_at_whole_pixels_inside_the_picture() -> None:
    settings = network_card("hsemotion-vgaf").input
    picture = pictures(6)[0]
    five = np.zeros((5, 2), np.float32)
    inner = crop.box(picture, Face(np.float32([10.9, 20.9, 100.9, 90.9]), five, 1.0), settings)
    np.testing.assert_array_equal(inner, cv2.resize(picture[20:90, 10:100], (224, 224)))
    beyond = crop.box(picture, Face(np.float32([-9, -9, 300, 100]), five, 1.0), settings)
    np.testing.assert_array_equal(beyond, cv2.resize(picture[:100], (224, 224)))
    outside = crop.box(picture, Face(np.float32([400, 400, 500, 500]), five, 1.0), settings)
    assert outside.shape == (224, 224, 3)
    np.testing.assert_array_equal(crop.box(picture, None, settings), exact.resize(picture, 224))


# ---- the whole way: clips in, features out ----------------------------------------------------


@pytest.fixture
def extractor(bench: Bench, tmp_path: Path) -> Callable[[int], Extractor]:
    """Make extractors of a profile like ``official``, with random weights, for a batch size."""
    for name, content in (
        ("scrfd-10g", det_10g()),
        ("arcface-r50", w600k_r50()),
        ("hsemotion-vgaf", enet_b0_8()),
    ):
        bench.pin(name, content)
    text = profile_card("official").path.read_text(encoding="utf-8")
    for name in FILES:
        text = text.replace(f'"{name}"', f'"random-{name}"')
    # Noise has faces everywhere: follow one, whatever lies beside it.
    text = text.replace("rival = 0.5", "rival = 1e6").replace("coverage = 0.5", "coverage = 0.01")
    (bench.cards / "metrics/profiles/random.toml").write_text(text, encoding="utf-8")
    cards._paths.cache_clear()

    def make(batch_size: int) -> Extractor:
        store = FeatureStore(tmp_path / f"store-{batch_size}")
        return Extractor(profile_card("random"), bench.weights, store, batch_size=batch_size)

    return make


def moving_noise(folder: Path, shapes: Sequence[tuple[int, int]]) -> list[Clip]:
    """Write clips of 9, 10, ... frames, each of one picture that shifts now and then."""
    clips = []
    for number, shape in enumerate(shapes):
        rng = np.random.default_rng(number)
        still = cv2.resize(rng.integers(0, 256, (20, 20, 3), np.uint8), shape)
        frames = [np.roll(still, i // 3, 1) for i in range(9 + number)]
        clips.append(Clip(folder / f"{number}.mp4"))
        write_clip(clips[-1].path, frames, np.zeros(8000, np.int16))
    return clips


def test_clips_in_common_batches_give_what_the_packages_give_of_each_frame(
    extractor: Callable[[int], Extractor], bench: Bench, tmp_path: Path
) -> None:
    clips = moving_noise(tmp_path, [(256, 256), (240, 180)])
    x = extractor(32)  # detections in batches of 8, crops of both clips in one batch
    wants = {clip: frozenset({"identity", "expression"}) for clip in clips}
    assert x.ensure(wants) == {}
    theirs = ArcFaceONNX(model_file=str(bench.path("arcface-r50")))
    expression = load_network(x.profile.network("expression"), bench.weights)["crops"]
    for clip in clips:
        track = FaceTrack().fill(x.store.get(x.key(clip, None)) or {})
        identity, seen = x.load(clip, "identity"), x.load(clip, "expression")
        assert identity and seen
        assert len(identity.frames) > 5
        for index, picture in enumerate(video.frames(clip)):
            face = track.faces[index]
            if face is None:
                assert index not in identity.frames
                continue
            found = insightface_faces(bench.weights.own or Path(), picture)
            if track.detected[index]:
                assert any(np.array_equal(face.box, f.bbox) for f in found)
            row = int(np.flatnonzero(identity.frames == index)[0])
            bgr = np.ascontiguousarray(picture[:, :, ::-1])
            expected = theirs.get(bgr, type("F", (), {"kps": face.points})())
            embedding = identity.outputs["embedding"][row]
            assert np.abs(embedding - expected).max() < 1e-5 * np.abs(expected).max()
            cut = crop.box(picture, face, x.profile.network("expression").input)
            alone = expression(cut[None])["features"][0]
            features = seen.outputs["features"][row]
            assert np.abs(features - alone).max() < 1e-5 * np.abs(alone).max()


def test_faces_do_not_depend_on_the_clips_around_them(
    extractor: Callable[[int], Extractor], tmp_path: Path
) -> None:
    """With a broken clip among them, in batches that clips share, and each clip by itself."""
    first, last = moving_noise(tmp_path, [(160, 120), (120, 160)])
    broken = Clip(tmp_path / "broken.mp4")
    whole = first.path.read_bytes()
    broken.path.write_bytes(whole[: whole.index(b"mdat") + 2000])
    wants = {clip: frozenset({"expression"}) for clip in (first, broken, last)}
    together = extractor(28)  # 7 frames a batch: the first clip has 9, the last 10
    failures = together.ensure(wants)
    assert [clip for clip, _ in failures] == [broken]
    alone = extractor(4)
    for clip in (first, last):
        assert alone.ensure({clip: frozenset({"expression"})}) == {}
        ours, expected = (x.store.get(x.key(clip, None)) for x in (together, alone))
        assert ours and expected
        assert np.isfinite(expected["boxes"]).any()
        for name in expected:
            np.testing.assert_array_equal(ours[name], expected[name])


# ---- the command line ---------------------------------------------------------------------------


def run_command(*arguments: str | Path) -> Any:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_without_a_connection_fetch_says_what_to_download_for_each_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(requests, "get", offline)
    done = run_command("networks", "fetch", "--profile", "official-iresnet50")
    assert done.exit_code == 1
    cache = WeightsStore().cache
    *lines, last = done.stderr.splitlines()
    assert "SPFEM_BENCH_WEIGHTS" in last
    assert len(lines) == 5
    for line, words in zip(
        lines,
        [
            ("scrfd-10g", "v0.7/buffalo_l.zip", "take det_10g.onnx out of it", "det_10g.onnx"),
            ("arcface-r50-ms1mv3", "arcface_torch#model-zoo", "ms1mv3_arcface_r50_backbone.pth"),
            ("hsemotion-vgaf", "207ed49", "enet_b0_8_best_vgaf.onnx"),
            ("syncnet-v2", "https://www.robots.ox.ac.uk", "syncnet_v2.model"),
            ("pfld-ghostone", "7061b56", "PFLD_GhostOne_112_1_opt_sim.onnx"),
        ],
        strict=True,
    ):
        assert all(word in line for word in words), line
        assert str(cache / words[-1]) in line


def test_a_network_without_a_published_hash_is_pinned_by_fetch_and_by_nothing_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = bench.pin("hsemotion-vgaf", enet_b0_8())
    text = card.path.read_text(encoding="utf-8")
    published = card.files[0].sha256
    card.path.write_text(text.replace(published, "unpublished"), encoding="utf-8")
    cards._read.cache_clear()
    monkeypatch.setenv("SPFEM_BENCH_WEIGHTS", str(bench.weights.own))
    name = card.name
    with pytest.raises(WeightsError, match=f"not pinned yet.*networks fetch {name}"):
        load_network(network_card(name), bench.weights)
    assert "not pinned yet" in run_command("networks", "verify", name).output
    fetched = run_command("networks", "fetch", name)  # the file is there: nothing is downloaded
    assert fetched.exit_code == 0
    assert published in fetched.output
    assert run_command("networks", "verify", name).exit_code == 0
    # Signature and features are made of the hash itself, as if the card gave it.
    assert network_card(name).settings() == card.settings()
    bench.path("hsemotion-vgaf").write_bytes(enet_b0_8(seed=10))
    assert run_command("networks", "verify", name).exit_code == 1
    with pytest.raises(WeightsError, match="not the pinned file"):
        load_network(network_card(name), bench.weights)


@pytest.mark.usefixtures("extractor")
def test_eval_prints_a_score_with_networks_like_the_official_ones(
    world: Any, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in world.environment(tmp_path / "cache").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SPFEM_BENCH_CARDS", f"{world.cards}{os.pathsep}{bench.cards}")
    for file in world.weights.iterdir():
        (bench.weights.own or Path()).joinpath(file.name).symlink_to(file)
    monkeypatch.setenv("SPFEM_BENCH_WEIGHTS", str(bench.weights.own))
    profile = bench.cards / "metrics/profiles/random.toml"
    text = profile.read_text(encoding="utf-8").replace('"syncnet-v2"', '"syncnet-random"')
    # Whole faces are found by the small detector: a random one finds none that stays.
    text = text.replace('"random-scrfd-10g"', '"scrfd-500m"')
    profile.write_text(text, encoding="utf-8")
    cards._read.cache_clear()
    cards._paths.cache_clear()
    monkeypatch.chdir(tmp_path)
    done = run_command(
        "eval",
        "--protocol",
        "mini",
        "--profile",
        "random",
        "--method",
        "ned",
        "--metrics",
        "csim,id-sim",
        "--json",
    )
    assert done.exit_code == 0, done.output
    scores = {s["metric"]: s for s in json.loads(done.stdout)}
    assert -1 <= scores["id-sim"]["value"] <= 1
    assert 0 < scores["csim"]["value"] <= 1
    assert "random-hsemotion-vgaf@" in scores["csim"]["signature"]
    assert "random-arcface-r50@" in scores["id-sim"]["signature"]


# ---- files of something else --------------------------------------------------------------------


def external(content: bytes) -> bytes:
    """Return the same network with weights said to lie in another file."""
    model = onnx.load_model_from_string(content)
    weights = model.graph.initializer[0]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    entry = weights.external_data.add()
    entry.key, entry.value = "location", "../../../etc/passwd"
    made: bytes = model.SerializeToString()
    return made


@pytest.mark.parametrize(
    ("like", "content"),
    [
        ("arcface-r50", lambda: b"<html>404</html>"),
        ("arcface-r50", lambda: b""),
        ("arcface-r50", enet_b0_8),
        ("arcface-r50", det_10g),
        ("arcface-r50", lambda: w600k_r50()[:-99]),
        ("arcface-r50", lambda: external(w600k_r50())),
        ("hsemotion-vgaf", w600k_r50),
        ("hsemotion-vgaf", det_10g),
        ("scrfd-10g", w600k_r50),
        ("scrfd-10g", lambda: b"\x00" * 50),
    ],
)
def test_another_file_is_refused_in_one_line(
    like: str, content: Callable[[], bytes], bench: Bench
) -> None:
    card = bench.pin(like, content())
    with pytest.raises(WeightsError, match="random-") as caught:
        if like == "scrfd-10g":
            load_detector(card, bench.weights)
        else:
            load_network(card, bench.weights)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500
