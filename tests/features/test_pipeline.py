"""Work done ahead: order, memory, ends; batches that find their size; quicker networks."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import FrameInput, profile_card
from spfem_bench.errors import ClipError, StorageError
from spfem_bench.faces.detect import Detector
from spfem_bench.faces.track import Face
from spfem_bench.features import batches
from spfem_bench.features.ahead import Ahead, begun
from spfem_bench.features.batches import Batcher
from spfem_bench.features.extract import Extractor
from spfem_bench.features.search import Search
from spfem_bench.features.store import FeatureStore
from spfem_bench.media.video import Frame, frames
from spfem_bench.networks import toom_cook
from spfem_bench.networks.compact import CompactExpression, CompactIdentity, CompactSync
from spfem_bench.networks.iresnet import IResNet50
from spfem_bench.networks.mini_xception import MiniXception
from spfem_bench.networks.mobilefacenet import MobileFaceNet
from spfem_bench.networks.quick import FORMATS, Tower, quickened
from spfem_bench.networks.syncnet import SyncNet
from spfem_bench.networks.toom_cook import PooledWindows, mix_windows, mixes, pooled_windows
from spfem_bench.networks.weights import WeightsStore


def threads() -> int:
    return threading.active_count()


def eventually(holds: object) -> None:
    deadline = time.monotonic() + 20
    while not holds():  # type: ignore[operator]
        assert time.monotonic() < deadline
        time.sleep(0.01)


# ---- ahead --------------------------------------------------------------------------------


def test_what_comes_before_an_error_comes_first() -> None:
    def things() -> Iterator[int]:
        yield 1
        yield 2
        raise ClipError("damaged")

    ahead = Ahead(things())
    assert [next(ahead), next(ahead)] == [1, 2]
    with pytest.raises(ClipError, match="damaged"):
        next(ahead)
    assert list(ahead) == []  # said once


def test_memory_ahead_is_bounded() -> None:
    made: list[int] = []

    def things() -> Iterator[int]:
        for weight in [4, 4, 4, 50, 1]:
            made.append(weight)
            yield weight

    ahead = Ahead(things(), lambda weight: weight, room=8)
    eventually(lambda: len(made) == 3)  # the third waits for room
    time.sleep(0.1)
    assert made == [4, 4, 4]
    assert list(ahead) == [4, 4, 4, 50, 1]  # what is larger than the room passes alone


def test_what_is_read_ends_when_nobody_wants_more() -> None:
    ended = threading.Event()

    def things() -> Iterator[int]:
        try:
            while True:
                yield 1
        finally:
            ended.set()

    before = threads()
    ahead = Ahead(things(), room=3)
    assert next(ahead) == 1
    ahead.close()
    assert ended.wait(20)
    assert list(ahead) == []
    eventually(lambda: threads() == before)


def test_works_begin_before_their_turn_and_are_closed_when_it_never_comes() -> None:
    class Work:
        closed = False

        def close(self) -> None:
            self.closed = True

    works = [Work() for _ in range(5)]
    started = []

    def start() -> Iterator[Work]:
        for work in works:
            started.append(work)
            yield work

    taken = begun(start(), 2)
    assert next(taken) is works[0]
    assert started == works[:3]
    taken.close()
    assert [w.closed for w in works] == [False, True, True, False, False]
    assert list(begun(iter(works), 2)) == works


# ---- faces ahead --------------------------------------------------------------------------


SIZE = FrameInput(crop="frame", long_side=320, mean=127.5, std=128)


def folder(path: Path, values: list[int]) -> Clip:
    path.mkdir(exist_ok=True)
    for number, value in enumerate(values):
        cv2.imwrite(str(path / f"{number:03}.png"), np.full((16, 16, 3), value, np.uint8))
    return Clip(path, frame_rate=25.0)


def test_clips_share_a_detectors_batches_and_keep_their_frames(tmp_path: Path) -> None:
    sizes: list[int] = []

    def many(frames: object, side: int) -> list[list[object]]:
        assert side == 320
        sizes.append(len(list(frames)))  # type: ignore[call-overload]
        return [[int(f.mean())] for f in frames]  # type: ignore[attr-defined]

    clips = [
        folder(tmp_path / name, values)
        for name, values in (("a", [10, 20, 30]), ("b", [40]), ("c", [50, 60]))
    ]
    absent = Clip(tmp_path / "absent.mp4")
    detector = Detector(many, SIZE, batched=True)  # type: ignore[arg-type]
    search = Search([clips[0], absent, *clips[1:]], frames, lambda: detector, batch_size=16)

    def found(clip: Clip) -> list[tuple[float, list[object]]]:
        seen = search.of(clip)
        assert seen is not None
        return [(float(frame.mean()), list(faces)) for frame, faces in seen]

    assert found(clips[0]) == [(10, [10]), (20, [20]), (30, [30])]
    assert found(clips[2]) == [(50, [50]), (60, [60])]  # one that nobody asked for is passed over
    assert search.of(clips[0]) is None  # once
    assert sizes == [4, 4]  # the error has its place, and the last batch is filled up
    search.close()


def test_each_clip_is_searched_at_the_size_that_its_own_first_frame_asks_for(
    tmp_path: Path,
) -> None:
    """A frame's brightness is the longer side of its face, of 16 pixels; 0: no face."""
    calls: list[tuple[list[int], int]] = []

    def many(frames: Sequence[Frame], side: int) -> list[list[Face]]:
        values = [int(frame.mean()) for frame in frames]
        calls.append((values, side))
        points = np.zeros((5, 2), np.float32)
        return [[Face(np.float32([0, 0, 1, v]), points, 0.9)] if v else [] for v in values]

    names = {"a": [8, 9], "b": [8], "c": [4, 8, 8], "d": [0, 8], "e": [1]}
    clips = [folder(tmp_path / name, values) for name, values in names.items()]
    size = FrameInput(crop="frame", long_side=320, face=32, mean=0, std=1)
    search = Search(clips, frames, lambda: Detector(many, size, batched=True), batch_size=16)
    for clip, values in zip(clips, names.values(), strict=True):
        assert [int(frame.mean()) for frame, _ in search.of(clip) or ()] == values
    # Each first frame at its own size, on the grid: 32. 16 * 32 / 8 = 64, 128 of 4, and 512 of 1.
    batches = {(tuple(values), side) for values, side in calls if len(values) == 4}
    expected = {((8, 9, 8, 8), 64), ((4, 8, 8, 8), 128), ((0, 8, 1, 1), 320)}
    assert batches == expected
    assert [(v, s) for v, s in calls if len(v) < 4] == [([x[0]], 32) for x in names.values()]
    search.close()


def test_a_clip_that_changes_after_it_was_read_is_not_taken(tmp_path: Path) -> None:
    clips = [folder(tmp_path / "a", [10]), folder(tmp_path / "b", [20, 30])]
    detector = Detector(lambda frames, _: [[] for _ in frames], SIZE)
    search = Search(clips, frames, lambda: detector, batch_size=4)
    assert len(list(search.of(clips[0]) or ())) == 1
    eventually(lambda: clips[1] in search._states)
    folder(tmp_path / "b", [21, 31])
    with pytest.raises(ClipError, match="changed while it was read"):
        search.of(clips[1])
    search.close()


def test_a_clip_that_vanishes_before_its_turn_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store is looked through for all clips before the first is read."""
    clips = [
        folder(tmp_path / name, [10, value]) for name, value in zip("abc", (1, 2, 3), strict=True)
    ]
    extractor = Extractor(
        profile_card("compact"), WeightsStore(), FeatureStore(tmp_path / "store"), faces="aligned"
    )
    look = Extractor._lacking

    def look_and_lose(self: Extractor, *given: Any) -> Any:
        lacking = look(self, *given)
        shutil.rmtree(clips[1].path)
        return lacking

    monkeypatch.setattr(Extractor, "_lacking", look_and_lose)
    failures = extractor.ensure({clip: {"identity"} for clip in clips})
    assert set(failures) == {(clips[1], "identity")}
    assert all(extractor.load(clips[i], "identity") for i in (0, 2))


# ---- batches ------------------------------------------------------------------------------


def test_an_error_of_a_network_reaches_whoever_waits() -> None:
    def broken(batch: np.ndarray) -> dict[str, np.ndarray]:
        raise StorageError("out of memory")

    with ThreadPoolExecutor(1) as runner:
        batcher = Batcher(broken, 2, runner, lambda n: None)
        for _ in range(3):
            batcher.add(np.zeros(1), lambda rows: None)
        with pytest.raises(StorageError, match="out of memory"):
            batcher.flush()
        batcher.drop()
        batcher.flush()  # nothing is left over for the next call


@pytest.mark.parametrize(
    ("free", "each", "expected"),
    [(1 << 40, 1, 512), (1 << 40, 16, 32), (8000, 1, 32), (14_000, 1, 64), (14_000, 16, 4)],
)
def test_batches_grow_while_the_network_fits(
    monkeypatch: pytest.MonkeyPatch, free: int, each: int, expected: int
) -> None:
    """A network that takes 100 bytes a frame, and keeps what it has taken, as torch does."""
    taken = [0]

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        taken[0] = max(taken[0], 100 * each * len(batch))
        return {}

    monkeypatch.setattr(batches, "free_memory", lambda device: free - taken[0])
    assert batches.fitting(run, np.zeros(1), "cuda:0", each) == expected
    assert taken[0] <= max(free / 2, 100 * 32)
    assert batches.fitting(run, np.zeros(1), "cpu", each) == 32 // each
    assert batches.fitting(run, np.zeros((8, 224, 224, 3), np.uint8), "cpu", 4) == 4  # runs


# ---- networks -----------------------------------------------------------------------------


def lively(net: torch.nn.Module) -> torch.nn.Module:
    """Give every BatchNorm statistics of its own."""
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            assert module.running_mean is not None and module.running_var is not None
            module.running_mean.uniform_(-0.2, 0.2)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval().requires_grad_(False)


def norms(net: torch.nn.Module) -> int:
    return sum(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in net.modules())


def test_a_network_runs_while_another_is_made_quick() -> None:
    """Networks are loaded when they are first needed, while others are at work."""
    torch.manual_seed(0)
    busy, x = quickened(lively(MobileFaceNet())), torch.randn(2, 3, 112, 96)
    with torch.inference_mode(), ThreadPoolExecutor(1) as runner:
        wanted = busy(x)["embedding"]
        running = [runner.submit(busy, x) for _ in range(20)]
        while not all(future.done() for future in running):
            quickened(lively(CompactIdentity()))
        assert all(torch.equal(future.result()["embedding"], wanted) for future in running)


def named(output: Any) -> dict[str, torch.Tensor]:
    return output if isinstance(output, dict) else {"": output}


NETWORKS = [
    (CompactIdentity, "", (2, 3, 112, 112)),
    (CompactExpression, "", (2, 3, 64, 64)),
    (CompactSync, "visual", (2, 3, 7, 64, 64)),
    (CompactSync, "audio", (2, 1, 13, 20)),
    (MobileFaceNet, "", (2, 3, 112, 96)),
    (MiniXception, "", (2, 1, 64, 64)),
    (SyncNet, "visual", (1, 3, 7, 224, 224)),
    (SyncNet, "audio", (2, 1, 13, 20)),
    (IResNet50, "", (1, 3, 112, 112)),
]


@pytest.mark.parametrize(("make", "name", "shape"), NETWORKS)
def test_quick_networks_compute_the_same(
    make: type[torch.nn.Module], name: str, shape: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    net = lively(make())
    net = Tower(net, name) if name else net
    quick = quickened(net)
    assert norms(quick) < norms(net) or make is MiniXception  # which has no such sequence
    x = torch.randn(shape)
    with torch.inference_mode():
        wanted = named(net(x))
        got = named(quick(x.contiguous(memory_format=FORMATS[x.dim()])))
    for key, value in wanted.items():
        assert float(value.std()) > 1e-4
        torch.testing.assert_close(got[key], value, rtol=1e-4, atol=1e-5 * float(value.abs().max()))


def test_windows_from_eight_products_are_those_of_twenty() -> None:
    generator = np.random.default_rng(0)
    run, taps = generator.normal(size=8), generator.normal(size=5)
    mixed_run, mixed_taps = (m.numpy() @ v for m, v in zip(mixes(), (run, taps), strict=True))
    products = [torch.tensor(v) for v in mixed_run * mixed_taps]
    np.testing.assert_allclose(mix_windows(products), np.correlate(run, taps, "valid"), rtol=1e-12)


@pytest.mark.parametrize(
    ("batch", "length", "size", "kernel"),
    [
        (1, 5, 40, 7),
        (2, 7, 71, 7),
        (3, 8, 33, 5),
        (2, 12, 180, 3),
        (1, 13, 91, 7),
    ],
)
@pytest.mark.parametrize(("precision", "worst"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_pooled_windows_are_those_of_the_layers(
    batch: int,
    length: int,
    size: int,
    kernel: int,
    precision: torch.dtype,
    worst: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against PyTorch in float64: any number of frames, strips, and what is left over of both."""
    torch.manual_seed(length)
    monkeypatch.setattr(toom_cook, "STRIP", 1 << 20)  # one strip, or many
    layers = [
        torch.nn.Conv3d(3, 16, (5, kernel, kernel), (1, 2, 2)),
        torch.nn.ReLU(),
        torch.nn.MaxPool3d((1, 3, 3), (1, 2, 2)),
    ]
    x = torch.randint(0, 256, (batch, length, size, size, 3)).permute(0, 4, 1, 2, 3).float()
    with torch.inference_mode():
        quick = pooled_windows(layers, precision)
        assert isinstance(quick, PooledWindows)
        quick.convolution.to(precision)  # as `quickened` does in the end
        got = quick(x)
        assert torch.equal(quick(x.byte()), got)
        wanted = torch.nn.Sequential(*layers).double()(x.double())
    assert got.dtype == precision and got.shape == wanted.shape
    assert float((got - wanted).abs().max() / wanted.abs().max()) < worst


@pytest.mark.parametrize(
    "change",
    [
        {"stride": (2, 2, 2)},
        {"padding": (0, 1, 1)},
        {"kernel_size": (3, 7, 7)},
        {"dilation": 2},
        {"groups": 3},
        {"kernel_size": (5, 7, 5)},
        {"stride": (1, 2, 1)},
    ],
)
def test_other_convolutions_stay_as_they_are(change: dict[str, object]) -> None:
    settings = {"kernel_size": (5, 7, 7), "stride": (1, 2, 2), **change}
    convolution = torch.nn.Conv3d(3, 6, **settings)  # type: ignore[arg-type]
    pool = torch.nn.MaxPool3d((1, 3, 3), (1, 2, 2))
    assert pooled_windows([convolution, torch.nn.ReLU(), pool], torch.float32) is None


@pytest.mark.parametrize(("make", "name", "shape"), NETWORKS)
def test_half_precision_is_that_of_autocast(
    make: type[torch.nn.Module], name: str, shape: tuple[int, ...]
) -> None:
    """Weights are rounded when a network is loaded, not at each call; no bit is another."""
    torch.manual_seed(0)
    net = lively(make())
    net = Tower(net, name) if name else net
    x = torch.randn(shape)
    with torch.inference_mode():
        full = named(net(x))
        with torch.autocast("cpu", torch.bfloat16):
            once, each = (named(quickened(net, kind)(x)) for kind in ("bfloat16", "float32"))
    for key, value in full.items():
        assert torch.equal(once[key], each[key])
        assert 0 < float((once[key] - value).abs().max() / value.abs().max()) < 0.05
