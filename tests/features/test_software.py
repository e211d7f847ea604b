"""A signature names the libraries that a metric's numbers are computed with, as imported.

What a metric uses stands here twice, and neither time is it the package's own declaration: in a
table written by hand, and in what an evaluation imports when all else is blocked.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from spfem_bench import provenance
from spfem_bench.definitions.cards import Kind, builtin_folder, names
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.networks import network_card, profile_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.evaluation.session import package_conflicts
from spfem_bench.evaluation.signature import metric_settings, signature
from spfem_bench.features.extract import Extractor, Faces
from spfem_bench.features.software import EVERY
from spfem_bench.features.store import FeatureStore
from spfem_bench.hashes import sha256_of
from spfem_bench.networks.weights import WeightsStore
from tests.conftest import Outcome, World

VARIED = ("fad", "csim", "lse-d", "lse-c", "av-offset")
ON_LANDMARKS = ("lip-corr", "lip-width-corr", "lip-round-corr", "lip-dyn", "pose-corr", "jitter")
ON_LANDMARKS += ("m-lmd", "m-lmd-px", "f-lmd", "f-lmd-px", "av-loudness", "blink-rate")
OF_ALL = (*VARIED, *(f"{name}-papers" for name in VARIED), "id-sim", "scc", "tcc", "sct")
METRICS = (*OF_ALL, *ON_LANDMARKS)


def metrics_of(profile: str) -> tuple[str, ...]:
    """Return the metrics that a profile has networks for."""
    return OF_ALL if profile == "papers" else METRICS


ROLES = {
    **{
        metric: {"csim": "expression", "lse": "sync", "av": "sync"}.get(
            metric.split("-")[0], "identity"
        )
        for metric in OF_ALL
    },
    **dict.fromkeys(ON_LANDMARKS, "landmarks"),
}
TORCH = {"identity": "torch", "expression": "torch", "sync": "torch", "landmarks": "torch"}
LANDMARKS = {"landmarks": "onnxruntime"}
ONNX = {"identity": "onnxruntime", "expression": "onnxruntime", "sync": "torch", **LANDMARKS}
RUNTIMES = {
    "compact": TORCH,
    "light": {**TORCH, **LANDMARKS},
    "official": ONNX,
    "official-afew": ONNX,
    "official-antelopev2": ONNX,
    "official-auto": ONNX,
    "official-compat": ONNX,
    "official-iresnet50": {**ONNX, "identity": "torch"},
    "papers": TORCH,
}
NO_DETECTOR = ("compact", "papers")
DETECTORS = {**dict.fromkeys(RUNTIMES, "onnxruntime"), "light": "ncnn"}
"""Of ``compact`` and ``papers`` none: they see aligned faces only."""

LIBRARIES = (
    "numpy",
    "scipy",
    "torch",
    "cv2",
    "onnxruntime",
    "ncnn",
    "python_speech_features",
    "skimage",
    "insightface",
    "syncnet_python",
    "torchvision",
    "hsemotion_onnx",
    "h5py",
    "onnx",
)


def used(metric: str, profile: str, faces: str) -> set[str]:
    """Return the libraries that a metric's numbers are computed with."""
    role = ROLES[metric]
    found = {"numpy", RUNTIMES[profile][role]}
    if role == "sync":
        found |= {"python_speech_features", "scipy"}  # MFCCs
        if profile == "official-compat":
            found |= {"cv2"}  # writes MPEG-4, reads JPEGs
        if profile == "papers":
            found |= {"cv2"}  # resizes what is left of a face without its margin
    elif profile == "papers":
        found |= {"PIL"}  # resizes whole pictures
    if faces == "detect":
        found |= {"cv2", DETECTORS[profile]}
    return found


CASES = [
    (profile, faces)
    for profile in RUNTIMES
    for faces in ("detect", "aligned")
    if faces == "aligned" or profile not in NO_DETECTOR
]


def extractor(profile: str, faces: str) -> Extractor:
    chosen: Faces = "detect" if faces == "detect" else "aligned"
    store = FeatureStore(Path("nowhere"))
    return Extractor(profile_card(profile), WeightsStore(), store, faces=chosen)


def frozen(metric: str, profile: str, faces: str) -> dict[str, Any]:
    return metric_settings(
        metric_card(metric), protocol("demo-inter-id"), extractor(profile, faces)
    )


def test_every_profile_is_in_the_table() -> None:
    assert RUNTIMES.keys() == set(names(Kind.PROFILE))
    assert set(METRICS) == set(names(Kind.METRIC))
    every = (
        used(metric, profile, faces) for profile, faces in CASES for metric in metrics_of(profile)
    )
    assert set.union(*every) == EVERY, "what all machines of a cluster must have alike"


@pytest.mark.parametrize(("profile", "faces"), CASES)
def test_a_libraries_version_moves_what_uses_it_and_nothing_else(
    profile: str, faces: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = Clip(tmp_path / "clip.mp4")
    clip.path.write_bytes(b"a clip")
    real = provenance.imported_version

    def made(changed: str) -> dict[str, tuple[str, str]]:
        """Return each metric's signature and feature key when a library has another version."""
        monkeypatch.setattr(
            provenance, "imported_version", lambda m: "0.0.0" if m == changed else real(m)
        )
        x = extractor(profile, faces)
        return {
            metric: (
                signature(frozen(metric, profile, faces), profile, ["a"], 1),
                json.dumps(x.key(clip, metric_card(metric).role)),
            )
            for metric in metrics_of(profile)
        }

    before = made("")
    for library in LIBRARIES:
        after = made(library)
        for metric in metrics_of(profile):
            moved = library in used(metric, profile, faces)
            sign, key = (a != b for a, b in zip(before[metric], after[metric], strict=True))
            # The matrix root comes after the features.
            root = (metric, library) == ("fad-papers", "scipy")
            assert (sign, key) == (moved or root, moved), (metric, library)


def test_clips_that_are_drawn_here_depend_on_opencv() -> None:
    demo = protocol("demo-inter-id")
    drawn = {**demo.items[0].clips, "real": Clip.parse("P007/happy/1.00/028.mp4")}
    own = replace(demo, items=(replace(demo.items[0], clips=drawn), *demo.items[1:]))
    x, metric = extractor("compact", "aligned"), metric_card("fad")
    assert "cv2" not in metric_settings(metric, demo, x)["software"]
    assert metric_settings(metric, own, x)["software"]["cv2"] == provenance.imported_version("cv2")


def test_the_face_track_depends_on_the_detector_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "imported_version", lambda m: m)
    assert extractor("light", "detect").software(None).keys() == {
        "spfem-bench",
        "numpy",
        "cv2",
        "ncnn",
    }


def test_a_learnt_metric_depends_on_its_own_backbones_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from spfem_bench.features.pair_extract import PairExtractor
    from spfem_bench.features.requests import PairRequest

    statistic = metric_card("scc").statistic.model_copy(update={"learned": "puppets"})
    learnt = metric_card("scc").model_copy(update={"statistic": statistic})
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(name.encode())
    a, b = Clip(tmp_path / "a.mp4"), Clip(tmp_path / "b.mp4")

    def made(torch: str) -> tuple[dict[str, str], str]:
        monkeypatch.setattr(
            provenance, "imported_version", lambda m: torch if m == "torch" else "1"
        )
        x = extractor("official", "aligned")  # whose identity network runs in onnxruntime
        key = PairExtractor(x).key(a, PairRequest(b, 6, "puppets"))
        return metric_settings(learnt, protocol("demo-inter-id"), x)["software"], json.dumps(key)

    (software, key), (_, other) = made("1"), made("2")
    assert software.keys() == {"spfem-bench", "numpy", "torch"}
    assert key != other


def test_jpegs_are_read_by_opencv_and_png_frames_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Content decides, whatever a file's name says."""
    clips = []
    for kind, suffix, content in (
        ("jpeg", "png", b"\xff\xd8\xff a frame"),
        ("png", "jpg", b"\x89PNG a frame"),
    ):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / f"000000.{suffix}").write_bytes(content)
        clips.append(Clip(tmp_path / kind, frame_rate=25))

    def made(opencv: str) -> list[tuple[str, str]]:
        monkeypatch.setattr(provenance, "imported_version", lambda m: opencv if m == "cv2" else "1")
        x, card = extractor("compact", "aligned"), metric_card("fad")
        return [
            (
                json.dumps(x.key(clip, "identity")),
                json.dumps(metric_settings(card, protocol("demo-inter-id"), x, [clip])),
            )
            for clip in clips
        ]

    (jpeg, png), (other_jpeg, other_png) = made("1"), made("2")
    assert png == other_png
    assert all(a != b for a, b in zip(jpeg, other_jpeg, strict=True))


# ---- versions as imported ------------------------------------------------------------------


def test_versions_are_those_of_what_would_be_imported(tmp_path: Path) -> None:
    """Before any metadata, and without importing torch or onnxruntime."""
    for module, file, text in (
        ("torch", "version.py", "__all__ = ['debug']\n__version__ = '0.9+mine'\n"),
        ("onnxruntime", "__init__.py", '"""Says things."""\n\n__version__ = "0.7.0"\n'),
        ("scipy", "version.py", 'version: str = "0.6"\nfull_version = version\n'),
        ("cv2", "__init__.py", '__version__ = "0.5.0"\n'),
        ("python_speech_features", "base.py", "def mfcc(): ..."),
    ):
        (tmp_path / module).mkdir()
        (tmp_path / module / "__init__.py").touch()
        (tmp_path / module / file).write_text(text)

    def reported() -> dict[str, str]:
        script = (
            "import json, sys\n"
            "from spfem_bench import provenance\n"
            "from spfem_bench.features.software import EVERY\n"
            "found = provenance.versions(EVERY)\n"
            "found['imported'] = str('torch' in sys.modules or 'onnxruntime' in sys.modules)\n"
            "print(json.dumps(found))\n"
        )
        path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        return dict(json.loads(done.stdout))

    first = reported()
    assert first["imported"] == "False"
    assert (first["torch"], first["onnxruntime"], first["cv2"]) == ("0.9+mine", "0.7.0", "0.5.0")
    assert first["scipy"] == "0.6"
    assert re.fullmatch("#[0-9a-f]{12}", first["python_speech_features"])
    (tmp_path / "python_speech_features" / "base.py").write_text("def mfcc(x): ...")
    second = reported()
    assert second.pop("python_speech_features") != first.pop("python_speech_features")
    assert second == first


@pytest.mark.parametrize("module", sorted({"torch", "onnxruntime", "scipy", "numpy", "cv2"}))
def test_a_version_is_the_same_before_and_after_the_import(module: str) -> None:
    """Or stored features would not be found again by the run that imports."""
    script = (
        "import importlib, sys\n"
        "from spfem_bench import provenance\n"
        "first = provenance.imported_version(sys.argv[1])\n"
        "importlib.import_module(sys.argv[1])\n"
        "provenance.imported_version.cache_clear()\n"
        "print(first, provenance.imported_version(sys.argv[1]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, module], capture_output=True, text=True, check=True
    )
    before, after = done.stdout.split()
    assert before == after != "absent"


def test_a_module_that_is_not_there_is_absent() -> None:
    assert provenance.imported_version("no_such_module") == "absent"


# ---- two packages that provide one module ----------------------------------------------------


@pytest.fixture
def second_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package that says it has installed onnxruntime and OpenCV."""
    for name in ("onnxruntime-gpu", "opencv-contrib-python-headless"):
        folder = tmp_path / f"{name.replace('-', '_')}-9.9.dist-info"
        folder.mkdir()
        text = f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n"
        (folder / "METADATA").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("second_onnxruntime")
def test_two_packages_of_one_module_are_named_with_what_to_type() -> None:
    (line,) = provenance.rival_packages(["onnxruntime", "torch", "numpy"])
    there = provenance.imported_version("onnxruntime")
    assert "2 packages install the module onnxruntime: onnxruntime " in line
    assert f"onnxruntime-gpu 9.9. Imported, and in the signature, is {there}. " in line
    assert line.endswith(
        "pip uninstall -y onnxruntime onnxruntime-gpu && pip install --force-reinstall --no-deps "
        f"onnxruntime=={version('onnxruntime')}"
    )
    assert "\n" not in line


@pytest.mark.usefixtures("second_onnxruntime")
@pytest.mark.parametrize(
    ("profile", "faces", "metric", "modules"),
    [
        ("compact", "aligned", "fad", []),
        ("light", "detect", "fad", ["cv2"]),
        ("official", "detect", "fad", ["cv2", "onnxruntime"]),
        ("official", "aligned", "lse-d", []),
    ],
)
def test_only_modules_that_a_run_uses_are_named(
    profile: str, faces: str, metric: str, modules: list[str]
) -> None:
    plan: Any = SimpleNamespace(
        protocol=SimpleNamespace(card=SimpleNamespace(faces=faces)),
        profile=profile_card(profile),
        metrics=(metric_card(metric),),
    )
    lines = package_conflicts([plan])
    assert [re.findall(r"the module (\w+):", line) for line in lines] == [[m] for m in modules]


EVAL = ("eval", "--protocol", "mini", "--profile", "mini", "--metrics", "csim", "--method", "ned")


@pytest.mark.usefixtures("second_onnxruntime")
def test_an_evaluation_names_them_unless_it_is_quiet(spfem_bench: Callable[..., Outcome]) -> None:
    done = spfem_bench(*EVAL)
    assert done.code == 0
    assert done.err.count("packages install the module cv2") == 1
    assert "onnxruntime" not in done.err
    assert "packages install" not in spfem_bench(*EVAL, "-q").err


# ---- what an evaluation imports ----------------------------------------------------------------

NEUTRAL = {
    "click": "the command line",
    "decorator": "wraps a function of python_speech_features",
    "ffmpeg": "writes ffmpeg's command lines",
    "h5py": "reads weights whose hash is known",
    "imageio_ffmpeg": "finds ffmpeg's program",
    "onnx": "reads weights whose hash is known",
    "pandas": "holds printed tables",
    "platformdirs": "names the cache folder",
    "psutil": "counts memory and processor cores",
    "pydantic": "reads cards",
    "requests": "fetches files",
    "safetensors": "reads and stores arrays as they are",
    "tabulate": "prints tables",
    "tomli": "reads cards",
    "tqdm": "shows progress",
}

WATCH = """
import builtins, json, sys
allowed, neutral, arguments = json.loads(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]
real, imported = builtins.__import__, set()
drawing = ("spfem_bench.puppets", "spfem_bench.puppets.mini_ned")  # make clips, whose bytes count
watched = ("spfem_bench.", "python_speech_features.")  # the second imports scipy for us

def watch(name, globals=None, locals=None, fromlist=(), level=0):
    top, by = name.partition(".")[0], (globals or {}).get("__name__") or ""
    own = top in sys.stdlib_module_names or top in neutral or top == by.partition(".")[0]
    own = own or (top, by) == ("PIL", "spfem_bench.media.pictures")  # reads a header's size
    if level == 0 and not own and by.startswith(watched) and not by.startswith(drawing):
        if top not in allowed:
            raise ModuleNotFoundError(f"{by} imports {top}, which nothing declares")
        imported.add(top)
    return real(name, globals, locals, fromlist, level)

builtins.__import__ = watch
"""
COMMAND = """
from spfem_bench.cli.main import main
main(arguments, standalone_mode=False)
"""
FEATURES = """
from pathlib import Path
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import profile_card
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.networks.weights import WeightsStore
profile, weights, store, role, faces, clip = arguments
x = Extractor(
    profile_card(profile), WeightsStore(Path(weights)), FeatureStore(Path(store)), faces=faces
)
failures = x.ensure({Clip(Path(clip)): frozenset({role})})
assert not failures, failures
assert len(x.load(Clip(Path(clip)), role).frames)
"""


def imports(
    script: str, allowed: Iterable[str], *arguments: object, **environment: str
) -> set[str]:
    """Run a script in a new process; return the libraries that the package has imported in it.

    Any other than those allowed cannot be imported by it.
    """
    given = [json.dumps(sorted(allowed)), json.dumps(sorted(NEUTRAL)), *map(str, arguments)]
    end = "\nprint(json.dumps(sorted(imported)))\n"
    done = subprocess.run(
        [sys.executable, "-c", WATCH + script + end, *given],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.fixture(scope="module")
def few(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two items of the demo, rendered: the environment in which they are evaluated."""
    cards = tmp_path_factory.mktemp("few")
    (cards / "protocols").mkdir()
    card = (builtin_folder() / "protocols/demo-inter-id.toml").read_text(encoding="utf-8")
    card = card.replace('"demo-inter-id.csv"', '"few.csv"')
    card = re.sub("(?m)^emotions = .*$", 'emotions = ["neutral", "angry"]', card)
    (cards / "protocols/few.toml").write_text(card, encoding="utf-8")
    items = (builtin_folder() / "protocols/demo-inter-id.csv").read_text().splitlines()
    (cards / "protocols/few.csv").write_text("\n".join(items[:3]) + "\n")
    environment = {"SPFEM_BENCH_CARDS": str(cards), "SPFEM_BENCH_CACHE": str(demo_cache)}
    command = [
        sys.executable,
        "-m",
        "spfem_bench",
        "eval",
        "--protocol",
        "few",
        "-q",
        "--method",
        "source",
        "--metrics",
        "csim,fad",
        "--results",
        str(cards / "out"),
    ]
    subprocess.run(command, env=os.environ | environment, check=True, capture_output=True)
    return environment


# Metrics that use the same, evaluated in one run.
GROUPS = (("fad", "id-sim"), ("csim",), ("lse-d", "lse-c", "av-offset"), ("scc", "tcc", "sct"))


@pytest.mark.parametrize("metrics", [*GROUPS, ("lip-corr", "av-loudness", "jitter")])
def test_the_demo_imports_what_its_signatures_name(
    metrics: tuple[str, ...], few: dict[str, str], tmp_path: Path
) -> None:
    """Also its controls, which are edited clips."""
    (tmp_path / "cache").mkdir()  # with the drawn clips, but no features
    drawn = Path(few["SPFEM_BENCH_CACHE"]) / "data"
    drawn.mkdir(exist_ok=True)
    (tmp_path / "cache" / "data").symlink_to(drawn)
    methods = [f"--method={m}" for m in ("source", "blurred", "frozen-mouth", "shifted-audio")]
    expected = used(metrics[0], "compact", "aligned")
    found = imports(
        COMMAND,
        expected,
        "eval",
        "--protocol",
        "few",
        *methods,
        "--metrics",
        ",".join(metrics),
        "-q",
        "--json",
        "--results",
        tmp_path,
        SPFEM_BENCH_CACHE=str(tmp_path / "cache"),
        SPFEM_BENCH_CARDS=few["SPFEM_BENCH_CARDS"],
    )
    assert found == expected
    check_records(sorted((tmp_path / "few").glob("*.json")), metrics, expected)


def check_records(paths: list[Path], metrics: tuple[str, ...], expected: set[str]) -> None:
    """Compare the libraries that records name with those expected."""
    for path in paths:
        record = json.loads(path.read_text())
        for metric in metrics:
            software = record["settings"][metric]["software"]
            assert software.keys() - {"spfem-bench"} == expected
            assert "absent" not in software.values()
            assert any(s["value"] is not None for s in record["scores"] if s["metric"] == metric)
    assert paths


@pytest.mark.parametrize("metrics", GROUPS)
def test_small_networks_import_what_their_signatures_name(
    metrics: tuple[str, ...], world: World, tmp_path: Path
) -> None:
    expected = used(metrics[0], "light", "detect")  # 'mini' is 'light' with a random SyncNet
    found = imports(
        COMMAND,
        expected,
        "eval",
        "--protocol",
        "mini",
        "--profile",
        "mini",
        "--method",
        "ned",
        "--metrics",
        ",".join(metrics),
        "-q",
        "--json",
        "--results",
        tmp_path,
        **world.environment(tmp_path / "cache"),
    )
    assert found == expected
    check_records(sorted((tmp_path / "mini").glob("*.json")), metrics, expected)


@pytest.mark.parametrize("faces", ["detect", "aligned"])
@pytest.mark.parametrize("role", ["identity", "expression"])
def test_networks_in_onnx_files_import_what_their_features_name(
    role: str, faces: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Networks of random weights, like those of the profile ``official``."""
    from tests.networks.test_official import (
        FILES,
        Bench,
        det_10g,
        enet_b0_8,
        moving_noise,
        w600k_r50,
    )

    bench = Bench(tmp_path)
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(bench.cards))
    for name, content in zip(FILES, (det_10g(), w600k_r50(), enet_b0_8()), strict=True):
        bench.pin(name, content)
    text = profile_card("official").path.read_text(encoding="utf-8")
    for name in FILES:
        text = text.replace(f'"{name}"', f'"random-{name}"')
    # Noise has faces everywhere: follow one, whatever lies beside it.
    text = text.replace("rival = 0.5", "rival = 1e6").replace("coverage = 0.5", "coverage = 0.01")
    (bench.cards / "metrics/profiles/random.toml").write_text(text, encoding="utf-8")
    [clip] = moving_noise(tmp_path, [(160, 120)])
    expected = used("fad" if role == "identity" else "csim", "official", faces)
    found = imports(
        FEATURES,
        expected,
        "random",
        bench.weights.own,
        tmp_path / "store",
        role,
        faces,
        clip.path,
        SPFEM_BENCH_CARDS=str(bench.cards),
    )
    assert found == expected


def test_networks_of_whole_pictures_import_pillow_and_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network of random weights, like those of the papers."""
    import torch

    from spfem_bench.definitions.architectures import ARCHITECTURES
    from tests.networks.test_official import moving_noise

    name = "efficientface"
    card = network_card(name)
    networks, profiles = (tmp_path / f"cards/metrics/{kind}" for kind in ("networks", "profiles"))
    networks.mkdir(parents=True)
    profiles.mkdir()
    torch.save(ARCHITECTURES.get(name)().state_dict(), tmp_path / card.files[0].name)
    digest = sha256_of(tmp_path / card.files[0].name)
    text = card.path.read_text(encoding="utf-8").replace('"unpublished"', f'"{digest}"')
    (networks / f"random-{name}.toml").write_text(text, encoding="utf-8")
    text = profile_card("compact").path.read_text(encoding="utf-8")
    text = text.replace(f'"compact-{card.role}"', f'"random-{name}"')
    (profiles / "random.toml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "cards"))
    [clip] = moving_noise(tmp_path, [(160, 120)])
    x = Extractor(profile_card("random"), WeightsStore(), FeatureStore(tmp_path), faces="aligned")
    named = x.software(network_card(f"random-{name}")).keys() - {"spfem-bench"}
    assert named == {"numpy", "torch", "PIL"}
    found = imports(
        FEATURES,
        named,
        "random",
        tmp_path,
        tmp_path / "store",
        card.role,
        "aligned",
        clip.path,
        SPFEM_BENCH_CARDS=str(tmp_path / "cards"),
    )
    assert found == named
