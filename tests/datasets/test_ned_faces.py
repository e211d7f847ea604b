"""``prepare ned-faces``: a tree of NED's aligned faces from real clips, and from bad ones."""

from __future__ import annotations

import json
import shutil
import wave
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner
from scipy import ndimage

from spfem_bench.cli.main import main
from spfem_bench.datasets.ned_faces import NedFaces, Outcome, prepare_ned_faces
from spfem_bench.datasets.ned_inputs import ned_inputs
from spfem_bench.datasets.ned_record import RECORD, prepared_tree
from spfem_bench.definitions.networks import profile_card
from spfem_bench.errors import ClipError, SpfemBenchError, StorageError
from spfem_bench.networks.weights import WeightsStore

LENGTH = 26
"""Frames of a test's clip."""


@pytest.fixture(scope="module")
def faces(weights_folder: Path) -> NedFaces:
    return NedFaces(profile_card("light"), WeightsStore.locate(weights_folder))


@pytest.fixture(scope="module")
def source(
    samples: Path, run_ffmpeg: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A speaker's clip of 26 frames at 30 a second, with sound of 44.1 kHz."""
    path = tmp_path_factory.mktemp("source") / "M003_sad_033.mkv"
    strip = samples / "stccl-page/video_result/M003_source_sad_033.mp4"
    cut = ("-vf", "crop=256:256:0:0", "-frames:v", LENGTH, "-t", LENGTH / 30, "-c:v", "ffv1")
    run_ffmpeg("-ss", "1", "-i", strip, *map(str, cut), "-c:a", "pcm_s16le", "-ar", "44100", path)
    return path


@pytest.fixture
def tree(source: Path, tmp_path: Path) -> Path:
    """A tree of NED's layout with two clips of one cell; its folder's name is odd."""
    videos = tmp_path / "render test #1" / "M003" / "sad" / "videos"
    videos.mkdir(parents=True)
    for name in ("028.mkv", "033.mkv"):
        shutil.copy(source, videos / name)
    return videos.parents[2]


def pictures(folder: Path) -> list[np.ndarray]:
    return [np.asarray(cv2.imread(str(p))) for p in sorted(folder.glob("*.png"))]


def still_parts(faces: list[np.ndarray]) -> np.ndarray:
    """Return how far nose bridge and eye corners move from frame to frame, in pixels."""
    grey = [cv2.cvtColor(face, cv2.COLOR_BGR2GRAY) for face in faces]
    where = np.zeros((256, 256), np.uint8)
    where[95:150, 90:166] = 255
    moves = []
    for before, after in pairwise(grey):
        points = cv2.goodFeaturesToTrack(before, 60, 0.01, 3, mask=where)
        moved, found, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None)
        moves.append(np.median((moved - points)[found[:, 0] == 1].reshape(-1, 2), axis=0))
    return np.hypot(*np.transpose(moves))


def test_faces_of_a_real_clip(source: Path, faces: NedFaces, tmp_path: Path) -> None:
    outcome = prepare_ned_faces(ned_inputs([str(source)]), tmp_path / "out", faces)
    assert outcome == Outcome(clips=1, frames=LENGTH, complete=0, guessed=0)
    cell = tmp_path / "out" / "M003" / "sad"
    made = pictures(cell / "faces_aligned")
    assert [p.name for p in sorted((cell / "faces_aligned").iterdir())][-1] == "000025.png"
    assert len(made) == LENGTH and {p.shape for p in made} == {(256, 256, 3)}
    for picture in made:
        # Dark pixels in the face (a pupil, a mouth) are no holes: those have a hundred and more.
        lit = ndimage.binary_closing(picture.any(axis=2), iterations=2)
        assert ndimage.label(lit)[1] == 1
        assert (ndimage.binary_fill_holes(lit) & ~lit).sum() == 0
        assert 0.2 < lit.mean() < 0.4
        assert not picture[0].any() and not picture[-1].any()
        eyes, mouth = picture[95:125, 75:175], picture[155:195, 95:160]
        assert eyes.any(axis=2).all() and mouth.any(axis=2).mean() > 0.99
    moves = still_parts(made)
    assert moves.max() < 1 and np.sqrt((moves**2).mean()) < 0.5
    with wave.open(str(cell / "videos" / "033.wav")) as sound:
        assert (sound.getframerate(), sound.getsampwidth()) == (44100, 2)
        assert sound.getnframes() / 44100 == pytest.approx(LENGTH / 30, abs=0.03)
    assert (cell / "videos" / "033.txt").read_text() == "033 30 fps 26 frames\n"
    listed = (tmp_path / "out" / "clips.csv").read_text().splitlines()
    assert listed == ["speaker,emotion,clip,frames", "M003,sad,033,26"]
    record = prepared_tree(tmp_path / "out")
    assert record is not None and record.settings == json.loads(json.dumps(faces.settings))
    (clip,) = record.of_cell("M003/sad")
    assert (clip.clip, clip.first, clip.frames, clip.rate, clip.sound) == ("033", 0, 26, 30.0, True)


def test_a_tree_in_place_is_resumed(tree: Path, faces: NedFaces) -> None:
    inputs = ned_inputs([str(tree)])
    (tree / "clips.csv").write_text("mine")
    assert [(i.cell, i.name) for i in inputs] == [("M003/sad", "028"), ("M003/sad", "033")]
    assert prepare_ned_faces(inputs, tree, faces).clips == 2
    folder = tree / "M003/sad/faces_aligned"
    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    assert len(before) == 2 * LENGTH
    record = prepared_tree(tree)
    assert record is not None and [c.first for c in record.of_cell("M003/sad")] == [0, LENGTH]
    assert prepare_ned_faces(inputs, tree, faces) == Outcome(0, 0, 2, 0)
    assert (tree / "clips.csv").read_text() == "mine"
    (folder / f"{LENGTH + 3:06d}.png").unlink()  # of the second clip: it alone is made again
    assert prepare_ned_faces(inputs, tree, faces) == Outcome(1, LENGTH, 1, 0)
    after = {p.name: p.stat().st_mtime_ns for p in folder.iterdir()}
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {f"{n:06d}.png" for n in range(LENGTH, 2 * LENGTH)}
    with pytest.raises(ClipError, match=r"holds clips that are not given: 033"):
        prepare_ned_faces(inputs[:1], tree, faces)
    other = NedFaces.__new__(NedFaces)
    other.settings = faces.settings | {"mask": None}
    with pytest.raises(StorageError, match=r"other settings \(mask\)\. Name another folder with"):
        prepare_ned_faces(inputs, tree, other)


def test_pictures_of_others_are_not_touched(tree: Path, faces: NedFaces) -> None:
    own = tree / "M003/sad/faces_aligned/000000.png"
    own.parent.mkdir()
    own.write_bytes(b"NED's")
    with pytest.raises(StorageError, match="has not written"):
        prepare_ned_faces(ned_inputs([str(tree)]), tree, faces)
    assert own.read_bytes() == b"NED's" and not (tree / RECORD).exists()


def test_clips_without_one_clear_face_are_refused_and_others_go_on(
    source: Path, faces: NedFaces, run_ffmpeg: Callable[..., None], tmp_path: Path
) -> None:
    both = "split[a][b];[a][b]hstack"
    run_ffmpeg("-i", source, "-filter_complex", both, "-c:v", "ffv1", tmp_path / "M1_sad_two.mkv")
    noise = "testsrc2=size=128x128:rate=30:duration=0.5"
    run_ffmpeg("-f", "lavfi", "-i", noise, "-c:v", "ffv1", tmp_path / "M2_sad_none.mkv")
    run_ffmpeg("-i", source, "-vf", "scale=16:16", "-c:v", "ffv1", tmp_path / "M3_sad_tiny.mkv")
    shutil.copy(source, tmp_path / "W1_sad_good.mkv")
    said: list[str] = []
    inputs = ned_inputs([str(tmp_path)])
    with pytest.raises(
        ClipError, match=r"3 of 4 cells are not complete \(M1/sad, M2/sad, M3/sad\)"
    ):
        prepare_ned_faces(inputs, tmp_path / "out", faces, remark=said.append)
    texts = "\n".join(said)
    assert "two faces of similar size in 26 of 26 frames. Cut out the subject with" in texts
    assert "M2_sad_none.mkv: no face in any of its 15 frames" in texts
    assert "M3_sad_tiny.mkv: the face is 1" in texts
    assert len(pictures(tmp_path / "out/W1/sad/faces_aligned")) == LENGTH


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("clip.mp4", (), "its speaker and emotion cannot be read"),
        ("clip.mp4", ("me",), "its emotion cannot be read"),
        ("clip.mp4", ("me", "joyful"), "unknown emotion 'joyful'"),
        ("clip.mp4", ("../me", "sad"), "leaves its folder"),
        ("clip.mp4", ("a/b", "sad"), "cannot be a folder's name"),
        ("clip.mp4#t=0,1", ("me", "sad"), "every picture is prepared"),
        ("nothing.mp4", ("me", "sad"), "no such file"),
    ],
)
def test_names_that_say_too_little(
    name: str, options: tuple[str, ...], message: str, source: Path, tmp_path: Path
) -> None:
    shutil.copy(source, tmp_path / "clip.mp4")
    with pytest.raises(SpfemBenchError, match=message):
        ned_inputs([str(tmp_path / name)], *options)


def test_names_and_two_of_one_name(source: Path, tmp_path: Path) -> None:
    for name in ("W015_source_happy_037.mkv", "my_friend_Fear_take 1#x.mkv"):
        shutil.copy(source, tmp_path / name)
    found = [(i.speaker, i.emotion, i.name) for i in ned_inputs([str(tmp_path)])]
    assert found == [("W015", "happy", "037"), ("my_friend", "fear", "take 1#x")]
    twice = [f"{tmp_path}/W015_source_happy_037.mkv"] * 2
    with pytest.raises(ClipError, match="are both clip '037' of W015/happy"):
        ned_inputs(twice)
    with pytest.raises(ClipError, match="holds no videos"):
        (tmp_path / "empty").mkdir()
        ned_inputs([str(tmp_path / "empty")])


def test_a_damaged_record_is_refused(tmp_path: Path) -> None:
    assert prepared_tree(tmp_path) is None
    for content in (
        "{",
        '{"settings": 1, "cells": [], "clips": []}',
        '{"clips": [{"first": "x"}]}',
    ):
        (tmp_path / RECORD).write_text(content)
        with pytest.raises(StorageError, match="not readable"):
            prepared_tree(tmp_path)


def test_the_command_and_its_sheet(source: Path, weights_folder: Path, tmp_path: Path) -> None:
    sheet = tmp_path / "sheet.png"
    words = ["prepare", "ned-faces", str(source), "-o", str(tmp_path / "out")]
    words += ["--weights-dir", str(weights_folder)]
    done = CliRunner().invoke(main, [*words, "--no-mask", "--sheet", str(sheet)])
    assert done.exit_code == 0, done.output
    assert f"out: 1 clips, {LENGTH} faces" in done.output
    assert cv2.imread(str(sheet)).shape == (256, 6 * 256, 3)
    unmasked = pictures(tmp_path / "out/M003/sad/faces_aligned")[0]
    assert unmasked.any(axis=2).mean() > 0.6  # hair and neck stay
    again = CliRunner().invoke(main, words)
    assert again.exit_code == 1
    assert "was prepared with other settings (mask). Name another folder with -o" in again.output
