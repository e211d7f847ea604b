"""A clip that is replaced while it is read never changes a later run's number."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import FrameInput, profile_card
from spfem_bench.errors import ClipError
from spfem_bench.evaluation import item_clips
from spfem_bench.faces.detect import Detector
from spfem_bench.faces.track import Face
from spfem_bench.features import tracking
from spfem_bench.features.extract import Extractor, Faces
from spfem_bench.features.pair_extract import PairExtractor
from spfem_bench.features.requests import PairRequest
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import audio, headers, video
from spfem_bench.media.video import Unchanged
from spfem_bench.media.write import write_clip
from spfem_bench.networks.weights import WeightsStore

Run = Callable[..., None]


@pytest.fixture
def two(tmp_path: Path, run_ffmpeg: Run) -> tuple[Path, Path]:
    """Two clips of one second whose pictures and sounds differ."""
    for name, source, tone in (("a", "testsrc2", 300), ("b", "mandelbrot", 900)):
        run_ffmpeg(
            f"-f lavfi -i {source}=s=112x112:r=25 -f lavfi -i sine=f={tone} -t 1 -c:v libx264",
            "-c:a aac",
            tmp_path / f"{name}.mp4",
        )
    return tmp_path / "a.mp4", tmp_path / "b.mp4"


def extractor(store: Path, faces: Faces = "aligned") -> Extractor:
    profile, light = profile_card("compact"), profile_card("light")
    if faces == "detect":  # its detector is another one's
        profile = profile.model_copy(update={"detector": light.detector, "faces": light.faces})
    return Extractor(profile, WeightsStore(), FeatureStore(store), faces=faces)


class Swap:
    """Replaces a file by another one, once; :meth:`back` brings the first one back."""

    def __init__(self, path: Path, other: Path) -> None:
        self.path, self.other, self.done = path, other, False
        self.kept = path.with_name("kept" + path.suffix)
        shutil.copyfile(path, self.kept)

    def _put(self, content: Path) -> None:
        new = self.path.with_name("new" + self.path.suffix)
        shutil.copyfile(content, new)
        new.replace(self.path)

    def now(self) -> None:
        if not self.done:
            self._put(self.other)
        self.done = True

    def back(self) -> None:
        self._put(self.kept)


def swapping(real: Callable[..., Any], swap: Swap, when: str) -> Callable[..., Any]:
    """Return a decoder of pictures in whose run a file is replaced."""

    def frames(*given: Any, **options: Any) -> Iterator[Any]:
        first = not swap.done
        if when != "after the first frame":
            swap.now()
        for frame in real(*given, **options):
            yield frame
            swap.now()
        if first and when == "and brought back":
            swap.back()

    return frames


WHEN = ["before it is decoded", "after the first frame", "and brought back"]


@pytest.mark.parametrize("when", WHEN)
def test_features_of_a_clip_replaced_while_it_is_read_are_not_stored(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    clip, wants = Clip(two[0]), frozenset({"identity", "expression"})
    clean = extractor(tmp_path / "clean")
    assert clean.ensure({clip: wants}) == {}
    x, swap = extractor(tmp_path / "store"), Swap(*two)
    with monkeypatch.context() as patch:
        patch.setattr(video, "frames", swapping(video.frames, swap, when))
        failures = x.ensure({clip: wants})
    assert [str(e) for e in failures.values()] == [
        f"{clip}: changed while it was read. Run the command again"
    ] * 2
    swap.back()
    assert x.load(clip, "identity") is None and x.load(clip, "expression") is None
    assert x.ensure({clip: wants}) == {}
    for role in wants:
        ours, expected = x.load(clip, role), clean.load(clip, role)
        assert ours and expected
        for name, rows in expected.outputs.items():
            np.testing.assert_array_equal(ours.outputs[name], rows)


@pytest.mark.parametrize("beside", [False, True])
def test_sound_replaced_while_it_is_read_is_not_stored(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool
) -> None:
    path = two[0]
    if beside:
        path = tmp_path / "beside.mp4"
        shutil.copyfile(two[0], path)
    clip = Clip(two[0] if not beside else path, audio=two[0] if beside else None)
    x, swap = extractor(tmp_path / "store"), Swap(*two)
    real = audio.samples

    def samples(of: Clip) -> Any:
        swap.now()
        return real(of)

    with monkeypatch.context() as patch:
        patch.setattr(audio, "samples", samples)
        failures = x.ensure({clip: frozenset({"sync"})})
    assert "changed while it was read" in str(failures[clip, "sync"])
    swap.back()
    assert x.load(clip, "sync") is None


@pytest.mark.parametrize("when", WHEN)
def test_a_face_track_of_another_clip_is_not_stored(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    box, points = (
        np.float32([8, 8, 100, 100]),
        np.float32([[40, 40], [70, 40], [55, 60], [42, 80], [68, 80]]),
    )
    face = Face(box, points, 0.9)
    size = FrameInput(crop="frame", long_side=320, mean=0, std=1)
    detector = Detector(lambda frames, _: [[face] for _ in frames], size)
    monkeypatch.setattr(tracking, "load_detector", lambda *_: detector)
    clip, swap = Clip(two[0]), Swap(*two)
    x = extractor(tmp_path / "store", "detect")
    with monkeypatch.context() as patch:
        patch.setattr(video, "frames", swapping(video.frames, swap, when))
        failures = x.ensure({clip: frozenset({"identity"})})
    assert "changed while it was read" in str(failures[clip, "identity"])
    swap.back()
    assert x.store.get(x.key(clip, None)) is None
    assert x.ensure({clip: frozenset({"identity"})}) == {}
    assert x.store.get(x.key(clip, None)) is not None


def test_a_picture_of_a_folder_replaced_while_it_is_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    for n in range(3):
        cv2.imwrite(str(folder / f"{n}.png"), np.full((112, 112, 3), 40 * n, np.uint8))
    cv2.imwrite(str(tmp_path / "other.png"), np.full((112, 112, 3), 200, np.uint8))
    clip = Clip(folder, frame_rate=25.0)
    x, real = extractor(tmp_path / "store"), video.frames

    def frames(*given: Any, **options: Any) -> Iterator[Any]:
        shutil.copyfile(tmp_path / "other.png", folder / "1.png")
        yield from real(*given, **options)

    monkeypatch.setattr(video, "frames", frames)
    failures = x.ensure({clip: frozenset({"identity"})})
    assert "changed while it was read" in str(failures[clip, "identity"])
    assert not list((tmp_path / "store").rglob("*.safetensors"))


@pytest.mark.parametrize("which", [0, 1])
def test_a_comparison_with_a_replaced_clip_is_not_stored(
    two: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
) -> None:
    clip, source = (Clip(path) for path in two)
    scorer = PairExtractor(extractor(tmp_path / "store"))
    swap = Swap(two[which], two[1 - which])
    with monkeypatch.context() as patch:
        patch.setattr(video, "frames", swapping(video.frames, swap, WHEN[0]))
        failures = scorer.ensure([(clip, PairRequest(source))])
    assert "changed while it was read" in str(failures[clip, PairRequest(source)])
    swap.back()
    assert scorer.load(clip, PairRequest(source)) is None


def test_crops_of_a_clip_that_has_changed_since_are_not_used_again(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    scorer, swap = PairExtractor(extractor(tmp_path / "store")), Swap(*two)
    before = scorer.crops(Clip(two[0])).pictures
    swap.now()
    after = scorer.crops(Clip(two[0])).pictures
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, scorer.crops(Clip(two[1])).pictures)


def test_a_mark_that_a_file_has_pictures_is_of_the_file_that_was_looked_at(
    two: tuple[Path, Path], tmp_path: Path, run_ffmpeg: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPFEM_BENCH_CACHE", str(tmp_path / "cache"))
    sound = tmp_path / "sound.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=1", "-c:a", "aac", sound)
    swap, real = Swap(sound, two[0]), headers.probe

    def probe(path: Path) -> Any:
        swap.now()
        return real(path)

    with monkeypatch.context() as patch:
        patch.setattr(headers, "probe", probe)
        with pytest.raises(ClipError, match="changed while it was read"):
            item_clips._check_readable(Clip(sound))
    swap.back()
    with pytest.raises(ClipError, match="no video stream"):
        item_clips._check_readable(Clip(sound))


def test_a_clip_that_is_only_touched_between_runs_keeps_its_features(
    two: tuple[Path, Path], tmp_path: Path
) -> None:
    clip, x = Clip(two[0]), extractor(tmp_path / "store")
    assert x.ensure({clip: frozenset({"identity"})}) == {}
    two[0].touch()
    assert x.load(replace(clip), "identity") is not None


def test_a_reports_copy_of_a_replaced_clip_is_not_finished(two: tuple[Path, Path]) -> None:
    clip = Clip(two[0])
    unchanged, swap = Unchanged.since(clip), Swap(*two)
    frames = swapping(video.frames, swap, WHEN[1])(clip)
    with pytest.raises(ClipError, match="changed while it was read"):
        write_clip(two[0].with_name("copy.mp4"), unchanged.frames(frames), np.zeros(640, np.int16))
    assert not two[0].with_name("copy.mp4").exists()
