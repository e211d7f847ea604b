"""The round trips of the field's scripts, against those scripts' own code and commands.

The package syncnet-python is run from end to end, from a video file to its three numbers; only
its face detector is replaced, by one that gives the boxes of our track. Weights are random
(seeded), in the official file format.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from scipy.io import wavfile
from syncnet_python.syncnet_pipeline import SyncNetPipeline

from benchmarks.common import lse, profiles
from benchmarks.compat_chain import STEPS
from spfem_bench.definitions.clips import Clip, Crop, Span
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.networks import SyncChain, SyncInput, network_card, profile_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.evaluation.signature import metric_settings, signature
from spfem_bench.faces.track import FaceTrack
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import audio, chain, ffmpeg, video
from spfem_bench.networks.weights import WeightsStore
from tests.statistics.test_statistics import seeded_syncnet

ALL: dict[str, str] = network_card("syncnet-v2-compat").settings()["input"]["chain"]

Run = Callable[..., None]


@contextmanager
def one_core() -> Iterator[None]:
    """Let programs that are started within see one processor core."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("ffmpeg encodes with a thread for each core, and only Linux can hide cores")
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@pytest.fixture
def extractor(
    weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Extractor]:
    """Return extractors with the small networks and a SyncNet of random weights, by name."""
    stream = io.BytesIO()
    torch.save(seeded_syncnet().state_dict(), stream, _use_new_zipfile_serialization=False)
    (tmp_path / "random.model").write_bytes(stream.getvalue())
    chains: dict[str, Mapping[str, str]] = {
        "plain": {},
        "joonson": ALL,
        "package": {**ALL, "sound": "clip"},
    }
    cards = profiles(tmp_path, stream.getvalue(), chains)
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(cards))

    def make(name: str) -> Extractor:
        store = FeatureStore(tmp_path / f"store-{name}")
        return Extractor(profile_card(name), WeightsStore(weights_folder), store, batch_size=4)

    return make


def official_sound(clip: Path, folder: Path, run_ffmpeg: Run) -> Path:
    """Run joonson's commands (run_pipeline.py) from a clip to its sound, as they stand there."""
    run_ffmpeg("-y", "-i", clip, "-qscale:v", "2", "-async", "1", "-r", "25", folder / "v.avi")
    run_ffmpeg(
        "-y -i", folder / "v.avi", "-ac 1 -vn -acodec pcm_s16le -ar 16000", folder / "audio.wav"
    )
    return folder / "audio.wav"


def by_the_package(
    track: FaceTrack, clip: Path, sound: Path | None, folder: Path
) -> tuple[float, float, float]:
    """Return LSE-D, LSE-C and offset by syncnet-python's pipeline, with the boxes of our track."""
    boxes = iter([np.append(f.box, 1.0)[None] if f else np.zeros((0, 5)) for f in track.faces])

    class Pipeline(SyncNetPipeline):  # type: ignore[misc]
        def _load_s3fd(self, path: str) -> Any:
            return self

        def detect_faces(self, image: Any, conf_th: float, scales: list[float]) -> Any:
            # Beyond our track: a picture that its search for scenes will leave out.
            return next(boxes, np.zeros((0, 5)))

    pipeline = Pipeline(
        syncnet_weights=str(folder / "random.model"), min_track=20, min_face_size=50, device="cpu"
    )
    offsets, confidences, distances, *_ = pipeline.inference(
        str(clip), sound and str(sound), cache_dir=str(folder / "work")
    )
    (offset,), (confidence,), (distance,) = offsets, confidences, distances
    return distance, confidence, offset


CASES = [
    ("joonson", "video_result/M003_source_sad_033.mp4", 0),  # 30 fps
    ("package", "video_result/M012_source_angry_029.mp4", 1024),  # 30 fps, the NED column
    ("joonson", "neutral_036_1.mp4", 532),  # 25 fps, an EAT strip
]


@pytest.mark.parametrize(("which", "name", "left"), CASES, ids=["sad", "angry", "eat"])
def test_lse_of_a_video_file_is_the_packages(
    which: str,
    name: str,
    left: int,
    samples: Path,
    extractor: Callable[[str], Extractor],
    run_ffmpeg: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = Clip(tmp_path / "clip.mp4")
    run_ffmpeg(
        "-i",
        samples / "stccl-page" / name,
        f"-t 1.24 -vf crop=256:256:{left}:0:exact=1 -c:v libx264 -qp 0 -c:a flac",
        "-strict -2",
        clip.path,
    )
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "ffmpeg").symlink_to(ffmpeg.program())
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    x = extractor(which)
    *ours, windows = lse(x, clip)
    assert windows >= 24
    chained = x.profile.network("sync").input
    assert isinstance(chained, SyncInput) and chained.chain
    track_key = {**x.key(clip, None), "chain": chained.chain.frame_settings()}
    track = FaceTrack().fill(x.store.get(track_key) or {})
    with one_core():
        # The package takes the sound from the clip; joonson's scripts, from the AVI.
        sound = official_sound(clip.path, tmp_path, run_ffmpeg) if which == "joonson" else None
        theirs = by_the_package(track, clip.path, sound, tmp_path)
    # Measured: 1e-6.
    assert ours[:2] == pytest.approx(theirs[:2], abs=2e-5)
    assert ours[2] == theirs[2]


@pytest.mark.parametrize("rate", ["24", "30000/1001", "50"])
def test_frames_and_sound_are_those_of_the_commands(
    rate: str, run_ffmpeg: Run, tmp_path: Path
) -> None:
    clip = Clip(tmp_path / "clip.mp4")
    run_ffmpeg(
        f"-f lavfi -i testsrc2=size=128x96:rate={rate}:duration=1.3",
        "-f lavfi -i aevalsrc=sin(900*t*t):s=44100:d=1.3 -pix_fmt yuv420p -c:v libx264 -c:a aac",
        clip.path,
    )
    (tmp_path / "frames").mkdir()
    with one_core():
        sound = official_sound(clip.path, tmp_path, run_ffmpeg)
        run_ffmpeg(
            "-y -i",
            tmp_path / "v.avi",
            "-qscale:v 2 -threads 1 -f image2",
            tmp_path / "frames" / "%06d.jpg",
        )
    expected = [p.read_bytes() for p in sorted((tmp_path / "frames").iterdir())]
    scene = 0  # what the scripts' search for scenes counts
    capture = cv2.VideoCapture(str(tmp_path / "v.avi"))
    while capture.read()[0]:
        scene += 1
    with chain.carried(clip, SyncChain(**ALL)) as outcome:
        seen = [p.read_bytes() for p in video.numbered_pictures(outcome.frames)]
        assert seen == expected[:scene]
        np.testing.assert_array_equal(audio.samples(outcome.sound), wavfile.read(sound)[1])


def test_a_column_and_a_span_are_cut_before_the_chain(samples: Path) -> None:
    strip = samples / "stccl-page" / "video_result" / "M003_source_sad_033.mp4"
    clip = Clip(strip, Crop(256, 0, 256, 256), span=Span(0.4, 1.6))
    chosen = SyncChain(frames="jpeg")
    with chain.carried(clip, chosen) as outcome:
        pictures = list(video.frames(outcome.frames))
        assert outcome.sound == clip
    plain = list(video.frames(clip))
    assert len(pictures) == len(plain) == 30
    # The same moments: JPEG moves pixels by little, another frame of this speaker by more.
    apart = [[np.abs(a.astype(int) - b).mean() for b in plain] for a in pictures]
    assert max(np.diag(apart)) < 2
    with chain.carried(clip, SyncChain(**ALL)) as outcome:
        # ffmpeg's -r 25 drops a frame only when it comes too early by more than half a frame.
        assert len(list(video.frames(outcome.frames))) == pytest.approx(30, abs=2)
        assert len(audio.samples(outcome.sound)) == pytest.approx(1.2 * 16_000, abs=1_200)


@pytest.mark.parametrize("damage", ["no sound", "truncated"])
def test_nothing_is_left_behind_after_an_error(
    damage: str,
    samples: Path,
    run_ffmpeg: Run,
    extractor: Callable[[str], Extractor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = Clip(tmp_path / "clip.mkv")
    source = samples / "stccl-page" / "neutral_036_1.mp4"
    run_ffmpeg("-i", source, "-t", "1", "-c", "copy", *["-an"] * (damage == "no sound"), clip.path)
    if damage == "truncated":
        clip.path.write_bytes(clip.path.read_bytes()[:-20_000])
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    failures = extractor("joonson").ensure({clip: frozenset({"sync"})})
    assert "clip.mkv" in str(failures[clip, "sync"])
    assert "temporary" not in str(failures[clip, "sync"])
    assert not list((tmp_path / "temporary").iterdir())


def test_a_clip_replaced_before_its_round_trip_leaves_nothing_in_the_store(
    samples: Path,
    run_ffmpeg: Run,
    extractor: Callable[[str], Extractor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip, other = Clip(tmp_path / "clip.mp4"), tmp_path / "other.mp4"
    for path, name in ((clip.path, "neutral_036_1.mp4"), (other, "neutral_033_1.mp4")):
        run_ffmpeg("-i", samples / "stccl-page" / name, "-t", "1", "-c", "copy", path)

    @contextmanager
    def late(*given: Any) -> Iterator[Any]:
        other.replace(clip.path)
        with chain.carried(*given) as outcome:
            yield outcome

    x = extractor("joonson")
    monkeypatch.setattr("spfem_bench.features.reading.carried", late)
    (failure,) = x.ensure({clip: frozenset({"sync"})}).values()
    assert str(failure).startswith(f"{clip}: changed while it was read")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_clip_without_a_face_is_refused_by_its_own_name(
    extractor: Callable[[str], Extractor], run_ffmpeg: Run, tmp_path: Path
) -> None:
    clip = Clip(tmp_path / "nobody.mp4")
    run_ffmpeg(
        "-f lavfi -i testsrc2=size=128x96:rate=25:duration=0.5 -f lavfi -i sine=d=0.5",
        "-pix_fmt yuv420p",
        clip.path,
    )
    x = extractor("joonson")
    for _ in range(2):  # then from the stored track
        (failure,) = x.ensure({clip: frozenset({"sync"})}).values()
        assert str(failure).startswith(f"{clip}: no face in any of its")


def test_other_networks_see_the_clip_itself(
    samples: Path, extractor: Callable[[str], Extractor], run_ffmpeg: Run, tmp_path: Path
) -> None:
    clip = Clip(tmp_path / "clip.mkv")
    run_ffmpeg(
        "-i",
        samples / "stccl-page" / "neutral_036_1.mp4",
        "-t 0.5 -vf crop=256:256:532:0 -c:v ffv1 -c:a flac",
        clip.path,
    )
    found = {}
    for name in ("plain", "joonson"):
        x = extractor(name)
        assert x.ensure({clip: frozenset({"identity", "sync"})}) == {}
        assert x.ensure({clip: frozenset({"identity", "sync"})}) == {}
        found[name] = [x.load(clip, role) for role in ("identity", "sync")]
    plain, chained = found["plain"], found["joonson"]
    assert plain[0] and chained[0] and plain[1] and chained[1]
    np.testing.assert_array_equal(plain[0].outputs["embedding"], chained[0].outputs["embedding"])
    assert not np.allclose(plain[1].outputs["visual"][:5], chained[1].outputs["visual"][:5])


# ---- what is in the signature -----------------------------------------------------------------


def test_without_a_chain_settings_are_what_they_were() -> None:
    assert network_card("syncnet-v2").settings()["input"] == {
        "crop": "syncnet",
        "size": 224,
        "scale": 0.4,
        "smoothing": 13,
        "padding": 110,
        "audible": {"silence": -90.0, "cancelled": 10.0},
    }
    official, compat = (network_card(n).settings() for n in ("syncnet-v2", "syncnet-v2-compat"))
    assert compat["input"].pop("chain") == ALL
    assert {**compat, "name": ""} == {**official, "name": ""}


def test_every_step_moves_the_signature() -> None:
    x = Extractor(profile_card("light"), WeightsStore(), FeatureStore(Path("nowhere")))
    frozen = metric_settings(metric_card("lse-d"), protocol("stccl-page-ned"), x)
    seen = {signature(frozen, "light", ["a"], 1)}
    taken: dict[str, str] = {}
    for _, more in STEPS[1:]:
        taken |= more
        frozen["network"]["input"]["chain"] = SyncChain(**taken).settings()
        seen.add(signature(frozen, "light", ["a"], 1))
    assert len(seen) == len(STEPS)
    assert taken == ALL, "the benchmark's last step is the card"


def test_sound_of_no_avi_is_refused() -> None:
    with pytest.raises(ValueError, match="'avi' is 'none'"):
        SyncChain(sound="avi")
