"""Fixtures: real clips and weights where they are, small videos made by the real ffmpeg."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import pytest
from hypothesis import settings

from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.hashes import sha256_of
from spfem_bench.media import ffmpeg

# As the command line does, before torch is imported: waiting threads must not spin.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# A time limit on each example would fail on a busy machine.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

ROOT = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SPFEM_BENCH_TEST_MATERIAL", ROOT.parent / "shared"))

SLOW = ROOT / "tests" / "slow.txt"
"""Slow tests and files: seconds and name, slowest first. `make quick` leaves them out."""

WHY_NOT = (
    "needs the authors' clips and the small networks, which this repository does not contain; "
    "name their folder with SPFEM_BENCH_TEST_MATERIAL"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--quick", action="store_true", help="leave out the tests in tests/slow.txt")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the files that take longest first, so that no process ends alone with one of them."""
    lines = SLOW.read_text(encoding="utf-8").splitlines()
    seconds = {name: float(number) for number, _, name in (li.partition(" ") for li in lines)}
    if config.getoption("quick"):
        slow = [i for i in items if {i.nodeid, i.nodeid.partition("::")[0]} & seconds.keys()]
        config.hook.pytest_deselected(items=slow)
        items[:] = [i for i in items if i not in set(slow)]
        return
    of_file: dict[str, float] = {}
    for name, number in seconds.items():
        file = name.partition("::")[0]
        of_file[file] = of_file.get(file, 0.0) + number
    items.sort(key=lambda item: -of_file.get(item.nodeid.partition("::")[0], 0.0))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or fills the user's cache, or sees the user's folders."""
    monkeypatch.setenv("SPFEM_BENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
    for name in ("SPFEM_BENCH_WEIGHTS", "SPFEM_BENCH_DATA", "SPFEM_BENCH_CARDS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def samples() -> Path:
    """The folder of the authors' clips: ``stccl-page/`` and ``asccl-repo/``."""
    if not (SHARED / "samples").is_dir():
        pytest.skip(WHY_NOT)
    return SHARED / "samples"


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """The folder of small real networks."""
    if not (SHARED / "weights").is_dir():
        pytest.skip(WHY_NOT)
    return SHARED / "weights"


@pytest.fixture(scope="session")
def run_ffmpeg() -> Callable[..., None]:
    """Run the same ffmpeg that the product uses; texts are split at spaces, paths are not."""

    def run(*arguments: object) -> None:
        words = [one.split() if isinstance(one, str) else [str(one)] for one in arguments]
        command = [ffmpeg.program(), "-v", "error", "-y", "-nostdin", *chain(*words)]
        subprocess.run(command, check=True)

    return run


@dataclass(frozen=True)
class World:
    """A small benchmark of real strips: four clips of 1.6 s, two emotions, every metric.

    SyncNet's weights are random (seeded) in the official file format, because the
    trained ones cannot be had everywhere: only equality is tested with them.
    """

    cards: Path
    data: Path
    weights: Path

    def environment(self, cache: Path) -> dict[str, str]:
        return {
            "SPFEM_BENCH_CARDS": str(self.cards),
            "SPFEM_BENCH_DATA": str(self.data),
            "SPFEM_BENCH_WEIGHTS": str(self.weights),
            "SPFEM_BENCH_CACHE": str(cache),
        }


STRIPS = (
    "M003_source_sad_033",
    "W015_source_sad_028",
    "W015_source_happy_037",
    "M012_source_happy_037",
)


@pytest.fixture(scope="session")
def world(
    samples: Path,
    weights_folder: Path,
    run_ffmpeg: Callable[..., None],
    tmp_path_factory: pytest.TempPathFactory,
) -> World:
    """Build the small benchmark as a user would: cards and lists in a folder of his own."""
    import torch

    from spfem_bench.networks.syncnet import SyncNet

    top = tmp_path_factory.mktemp("world")
    cards, data, weights = top / "cards", top / "data", top / "weights"
    for folder in ("metrics/networks", "metrics/profiles", "protocols/datasets"):
        (cards / folder).mkdir(parents=True)
    (data / "mini").mkdir(parents=True)
    weights.mkdir()
    for file in weights_folder.iterdir():
        (weights / file.name).symlink_to(file)

    # Networks: the light profile with a SyncNet of random weights.
    torch.manual_seed(7)
    torch.save(
        SyncNet().state_dict(), weights / "random.model", _use_new_zipfile_serialization=False
    )
    builtin = builtin_folder()
    card = (builtin / "metrics/networks/syncnet-v2.toml").read_text()
    card = re.sub(r'sha256 = ".*"', f'sha256 = "{sha256_of(weights / "random.model")}"', card)
    card = re.sub(r"(?m)^bytes = .*\n", "", card)
    (cards / "metrics/networks/syncnet-random.toml").write_text(card)
    profile = (builtin / "metrics/profiles/light.toml").read_text()
    profile = profile.replace('sync = "syncnet-v2"', 'sync = "syncnet-random"')
    (cards / "metrics/profiles/mini.toml").write_text(profile)

    # Clips: the first 1.6 s (40 frames) of four strips, pixels and sound unchanged.
    files, items = ["path,sha256,bytes"], ["id,speaker,emotion,file"]
    for name in STRIPS:
        target = data / "mini" / f"{name}.mkv"
        run_ffmpeg(
            "-i",
            samples / f"stccl-page/video_result/{name}.mp4",
            "-t 1.6 -c:v ffv1 -c:a pcm_s16le",
            target,
        )
        files.append(f"{target.name},{sha256_of(target)},{target.stat().st_size}")
        speaker, _, emotion, _ = name.split("_")
        items.append(f"{name},{speaker},{emotion},{target.name}")
    (cards / "protocols/datasets/mini.csv").write_text("\n".join(files) + "\n")
    (cards / "protocols/mini.csv").write_text("\n".join(items) + "\n")
    dataset = (builtin / "protocols/datasets/stccl-page.toml").read_text()
    dataset = dataset.replace("stccl-page.csv", "mini.csv")
    (cards / "protocols/datasets/mini.toml").write_text(dataset)
    protocol = (builtin / "protocols/stccl-page-ned.toml").read_text()
    protocol = protocol.replace("stccl-page-ned.csv", "mini.csv")
    protocol = protocol.replace('dataset = "stccl-page"', 'dataset = "mini"')
    protocol = re.sub(r"&t=0,\{\w+\}", "", protocol)  # no column ends within these 1.6 s
    protocol = re.sub(r"(?m)^emotions = .*$", 'emotions = ["happy", "sad"]', protocol)
    (cards / "protocols/mini.toml").write_text(protocol)
    return World(cards, data, weights)


@pytest.fixture
def own(samples: Path, tmp_path: Path, run_ffmpeg: Callable[..., None], world: World) -> Path:
    """A folder of a user's outputs: the STCCL-VD columns of the strips, cut out losslessly."""
    folder = tmp_path / "own videos"
    folder.mkdir()
    for name in STRIPS:
        run_ffmpeg(
            "-i",
            world.data / "mini" / f"{name}.mkv",
            "-vf crop=256:256:512:0 -c:v ffv1 -c:a copy",
            folder / f"{name}.mkv",
        )
    return folder


@dataclass(frozen=True)
class Outcome:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def common_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the tests that only look at results: each feature is computed once."""
    return tmp_path_factory.mktemp("common-cache")


@pytest.fixture(scope="session")
def demo_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the tests on the whole demo: each clip is rendered and seen once.

    Processes of one test run share it, as two evaluations at once may.
    """
    if os.environ.get("PYTEST_XDIST_WORKER"):
        folder = tmp_path_factory.getbasetemp().parent / "demo-cache"
        folder.mkdir(exist_ok=True)
        return folder
    return tmp_path_factory.mktemp("demo-cache")


@pytest.fixture(scope="session")
def mead_tree(
    demo_cache: Path, run_ffmpeg: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A MEAD of two speakers and two emotions, in the official layout, acted by puppets."""
    from tests import trees

    acted = trees.puppets(demo_cache, trees.MEAD.values(), trees.EMOTIONS)
    return trees.mead(tmp_path_factory.mktemp("mead"), acted, run_ffmpeg)


@pytest.fixture(scope="session")
def ravdess_tree(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A RAVDESS of two actors and two emotions, in the official layout, acted by puppets."""
    from tests import trees

    acted = trees.puppets(demo_cache, trees.RAVDESS.values(), trees.EMOTIONS)
    return trees.ravdess(tmp_path_factory.mktemp("ravdess"), acted)


def _run(*arguments: str | Path) -> Outcome:
    """Run the command line in this process."""
    from click.testing import CliRunner

    from spfem_bench.cli.main import main

    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Outcome(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def run() -> Callable[..., Outcome]:
    """Run the command line in this process, with this test's own cache."""
    return _run


@pytest.fixture
def bench(
    tmp_path: Path, demo_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Run the command line in this process, in an empty folder with data sets of its own."""
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("SPFEM_BENCH_CACHE", str(demo_cache))
    monkeypatch.setenv("SPFEM_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)

    return _run


@pytest.fixture
def spfem_bench(
    world: World, tmp_path: Path, common_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Outcome]:
    """Run the command line in this process, in the small benchmark, in an empty folder."""
    for name, value in world.environment(common_cache).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    return _run
