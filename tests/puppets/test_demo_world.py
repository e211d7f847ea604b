"""The puppets: what is drawn lies where the truth says, and everything follows from the seed."""

from __future__ import annotations

import csv
import hashlib
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from benchmarks.demo_clips import names
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.datasets import dataset_card, dataset_files
from spfem_bench.definitions.protocols import EMOTIONS, protocol
from spfem_bench.errors import CardError, ClipError, UnknownNameError
from spfem_bench.media import audio, video
from spfem_bench.media.write import write_clip
from spfem_bench.progress import Progress
from spfem_bench.puppets.clips import clip_name, render_all, render_take, rendered, shipped, take_of
from spfem_bench.puppets.face import LANDMARKS
from spfem_bench.puppets.provider import demo_puppets
from spfem_bench.puppets.sheet import puppet_sheet
from spfem_bench.puppets.world import World, cross_id, items

TEST = ("P001", "P002", "P003", "P004", "P005", "P006")
CHIN = LANDMARKS.index("chin")


@pytest.fixture(scope="module")
def puppets() -> World:
    return World()


# ---- who there is ---------------------------------------------------------------------------


def test_the_cast_and_its_splits(puppets: World) -> None:
    counts = {
        split: [s.name for s in puppets.speakers if s.split == split]
        for split in ("train", "validation", "test")
    }
    assert [len(v) for v in counts.values()] == [240, 6, 6]
    assert tuple(counts["test"]) == TEST
    assert len({s.look for s in puppets.speakers}) == 252  # nobody twice
    assert len(puppets.sentences) == 30
    assert sum(s.paired for s in puppets.sentences) == 3


def test_recordings_mirror_mead(puppets: World) -> None:
    train = list(puppets.recordings("train"))
    test = list(puppets.recordings("test"))
    assert len(set(train)) == len(train)
    assert {s for *_, s in test} == {"028", "029", "030"}
    assert not {s for *_, s in train} & {s for *_, s in test}
    assert not {p for p, *_ in train} & {p for p, *_ in test}
    paired = {s.name for s in puppets.sentences if s.paired}
    one = [(e, s) for p, e, s in train if p == "P013"]
    for sentence in paired:
        assert [e for e, s in one if s == sentence] == list(EMOTIONS)
    for sentence in {s for _, s in one} - paired:
        assert len([e for e, s in one if s == sentence]) == 2  # neutral and one emotion


def test_the_cross_id_map_is_a_ring_without_fixed_points(puppets: World) -> None:
    taken = cross_id(puppets)
    assert sorted(taken) == sorted(taken.values()) == list(TEST)
    seen, name = set(), TEST[0]
    while name not in seen:
        seen.add(name)
        name = taken[name]
    assert seen == set(TEST)


@pytest.mark.parametrize("setting", ["inter-id", "cross-id"])
def test_the_lists_in_the_repository_are_the_ones_that_are_drawn(
    puppets: World, setting: str
) -> None:
    path = builtin_folder() / f"protocols/demo-{setting}.csv"
    assert list(csv.DictReader(path.open(newline=""))) == list(items(puppets, setting))  # type: ignore[arg-type]
    demo = protocol(f"demo-{setting}")
    assert len(demo.items) == 6 * 7
    for row in items(puppets, setting):  # type: ignore[arg-type]
        assert row["reference_sentence"] != row["sentence"]
        assert (row["reference_speaker"] == row["speaker"]) == (setting == "inter-id")


def test_the_demo_s_world_is_the_one_that_networks_are_trained_in(puppets: World) -> None:
    card = dataset_card("puppets")
    assert card.world is not None
    assert World(card.world.version, card.world.seed, card.world.size) == puppets


# ---- truth ------------------------------------------------------------------------------------


def test_landmarks_lie_where_the_picture_has_them(puppets: World) -> None:
    """The pupil is the darkest part of an eye: its centre of mass, against the truth's.

    The irises look away by up to half a radius, so the eyes are made to look ahead.
    """
    errors = []
    for speaker in ("P014", "P040", "P001", "P002", "P005"):
        take = World(size=256).take(speaker, "surprised", "028")
        take.eyes[:] = 0  # looking ahead, no blink
        for index in (5, 20, 35):
            picture = take.frame(index).astype(float).sum(2)
            points = take.landmarks[index]
            for first in (0, 4):  # an eye has four landmarks
                left, right = sorted((points[first, 0], points[first + 2, 0]))
                top, bottom = points[first + 1, 1] + 3, points[first + 3, 1]
                x0, y0 = int(left + 5), int(top)
                patch = picture[y0 : int(bottom), x0 : int(right - 5)]
                dark = np.argwhere(patch < 120)
                if len(dark) < 8:
                    continue
                x = dark.mean(0)[1]
                errors.append((x + x0) - (left + right) / 2)
    assert len(errors) > 15
    assert abs(np.mean(errors)) < 2.5  # of eyes about 36 pixels wide
    assert np.std(errors) < 3


def test_a_chin_s_landmark_is_the_edge_between_face_and_neck(puppets: World) -> None:
    """Below the chin's landmark the picture darkens: the shadow on the neck."""
    for speaker in ("P001", "P005"):
        take = World(size=256).take(speaker, "neutral", "028")
        for index in (4, 30):
            x, y = take.landmarks[index, CHIN]
            column = take.frame(index)[:, int(x) - 4 : int(x) + 5].astype(float).mean((1, 2))
            above, below = column[int(y) - 7 : int(y) - 3].mean(), column[int(y) + 4 : int(y) + 8]
            assert below.mean() < above - 15


def test_the_mouth_opens_as_the_truth_says(puppets: World) -> None:
    """Dark or toothy pixels between the lips grow with the distance of the inner lips."""
    take = World(size=192).take("P005", "neutral", "029")
    top, bottom = LANDMARKS.index("mouth_inner_top"), LANDMARKS.index("mouth_inner_bottom")
    gap = take.landmarks[:, bottom, 1] - take.landmarks[:, top, 1]
    middle = (take.landmarks[:, bottom] + take.landmarks[:, top]) / 2
    seen = []
    for index in range(take.n_frames):
        x, y = middle[index].round().astype(int)
        strip = take.frame(index)[y - 14 : y + 15, x - 3 : x + 4].astype(float).mean(1)
        red = strip[:, 0] - strip[:, 1:].mean(1)
        seen.append((red < 25).sum())  # neither skin nor lips
    assert np.corrcoef(gap, seen)[0, 1] > 0.8


def test_closed_lips_are_drawn_closed(puppets: World) -> None:
    take = puppets.take("P002", "neutral", "028")
    top, bottom = LANDMARKS.index("mouth_inner_top"), LANDMARKS.index("mouth_inner_bottom")
    gap = take.landmarks[:, bottom, 1] - take.landmarks[:, top, 1]
    pressed = take.mouth[:, 3] > 0.99
    assert pressed.sum() >= 4
    assert gap[pressed].max() < 0.4
    assert gap.max() > 3


def test_intensity_is_continuous_and_leaves_the_rest_of_a_take_alone(puppets: World) -> None:
    levels = np.linspace(0, 1, 11)
    frames = [puppets.take("P003", "happy", "028", v).landmarks[12] for v in levels]
    steps = [np.abs(b - a).max() for a, b in pairwise(frames)]
    assert max(steps) < 4  # no jump, in pixels of 128
    corner = LANDMARKS.index("mouth_left")
    lifted = [f[LANDMARKS.index("nose_tip"), 1] - f[corner, 1] for f in frames]
    assert lifted[-1] > lifted[0] + 2
    takes = [puppets.take("P003", "happy", "028", v) for v in (0.0, 1.0)]
    assert takes[0]._light == takes[1]._light
    assert takes[0].emotion_track.max() == 0
    assert 0.9 < takes[1].emotion_track.max() <= 1


def test_a_take_follows_from_version_and_seed(puppets: World) -> None:
    one, two = (World().take("P001", "sad", "030") for _ in range(2))
    assert np.array_equal(one.frame(7), two.frame(7))
    assert np.array_equal(one.sound(), two.sound())
    other = World(seed=1).take("P001", "sad", "030")
    assert not np.array_equal(one.frame(7), other.frame(7))
    elsewhere = subprocess.run(
        [
            sys.executable,
            "-c",
            "from spfem_bench.puppets.world import World; import hashlib\n"
            "t = World().take('P001', 'sad', '030')\n"
            "print(hashlib.sha256(t.frame(7).tobytes() + t.sound().tobytes()).hexdigest())",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    here = hashlib.sha256(one.frame(7).tobytes() + one.sound().tobytes()).hexdigest()
    assert elsewhere.stdout.strip() == here


def test_sound_and_picture_are_equally_long(puppets: World) -> None:
    for speaker, emotion in (("P001", "neutral"), ("P006", "sad")):
        take = puppets.take(speaker, emotion, "028")
        assert len(take.sound()) == take.n_frames * 640
        assert abs(take.phones[-1].end - take.n_frames / 25) <= 0.5 / 25


# ---- shipped clips ----------------------------------------------------------------------------

DECODED = {
    "P001/neutral/1.00/028.mp4": "569d09b1cd47e68aca10ed2fc3ccb860c1185857ed1a7615b188a73fce37f187",
    "P003/happy/1.00/028.mp4": "ee8213e653f51d25777315d371c01d326b5bc52bbd772b2c7463c658b49e8807",
    "P006/sad/0.50/029.mp4": "2107b8d12a86ef312c38b5085eb949b0d0987ccf00fffdf206e9c3d3912e0b77",
    "P002/neutral/1.00/030/as/angry/1.00.mp4": (
        "92420dc8ca3549e612ad5eea332bce80409d9e65cddeefd6e2a591562ec72d03"
    ),
}
"""SHA-256 of frames and samples as ffmpeg 4.2.2, 5.1.9, 7.0.2 and 9.0.2 decode them, all alike."""


def test_the_demo_s_clips_are_shipped_and_nothing_else_is() -> None:
    card = dataset_card("puppets")
    folder = card.path.with_suffix("")
    files = dataset_files(card)
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*.*4")} == files.keys()
    assert sorted(files) == names()
    assert {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in files} == {
        n: f.sha256 for n, f in files.items()
    }


@pytest.mark.parametrize("name", DECODED)
def test_shipped_clips_give_the_same_pixels_and_samples_everywhere(name: str) -> None:
    clip = Clip(dataset_card("puppets").path.with_suffix("") / name)
    found = hashlib.sha256()
    for frame in video.frames(clip):
        found.update(frame.tobytes())
    found.update(audio.samples(clip).tobytes())
    assert found.hexdigest() == DECODED[name]


def test_a_shipped_clip_is_the_take_of_its_name(puppets: World) -> None:
    for name in DECODED:
        clip = Clip(dataset_card("puppets").path.with_suffix("") / name)
        take = take_of(puppets, name)
        read = list(video.frames(clip))
        assert len(read) == take.n_frames
        for index in (0, take.n_frames // 2):
            assert np.abs(read[index] - take.frame(index).astype(float)).mean() < 4
        assert np.abs(audio.samples(clip) - take.sound().astype(int)).max() <= 16


def test_opencv_cannot_move_the_demo_s_numbers(tmp_path: Path) -> None:
    """Every network and every edit of pictures, in a process that has no OpenCV."""
    script = f"""
import sys
sys.modules["cv2"] = None  # importing it raises
from dataclasses import replace
from pathlib import Path
from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.clips import Clip, Edit
from spfem_bench.definitions.networks import profile_card
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.networks.weights import WeightsStore

clip = Clip(builtin_folder() / "protocols/datasets/puppets/P001/neutral/1.00/028.mp4")
edits = Edit("blurred", 2.0), Edit("frozen-mouth", 1.0), Edit("time-shuffled", 5.0)
wants = dict.fromkeys([clip, *(replace(clip, edit=edit) for edit in edits)],
                      frozenset(["identity", "expression", "sync"]))
extractor = Extractor(profile_card("compact"), WeightsStore.locate(),
                      FeatureStore(Path({str(tmp_path)!r})), faces="aligned")
failures = extractor.ensure(wants)
print(failures, sum(extractor.load(c, r) is not None for c in wants for r in wants[c]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "{} 12", done.stderr


def test_nothing_is_drawn_for_the_demo(tmp_path: Path) -> None:
    files = dataset_files(dataset_card("puppets"))
    assert demo_puppets(DataFolders(renders=tmp_path)).lacking(files) == []
    assert not list(tmp_path.iterdir())


def test_a_damaged_shipped_clip_is_refused(
    puppets: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "P001/neutral/1.00/028.mp4"
    folder = dataset_card("puppets").path.with_suffix("")
    assert shipped(puppets, name) == folder / name
    assert shipped(World(size=64), name) is None
    assert shipped(puppets, "P007/neutral/1.00/028.mp4") is None
    copy = tmp_path / "puppets.toml"
    monkeypatch.setattr(
        "spfem_bench.puppets.clips.dataset_card",
        lambda _: dataset_card("puppets").model_copy(update={"path": copy}),
    )
    monkeypatch.setattr(
        "spfem_bench.puppets.clips.dataset_files", lambda _: dataset_files(dataset_card("puppets"))
    )
    with pytest.raises(ClipError, match="Install the package again"):
        shipped(puppets, name)
    (tmp_path / "puppets" / name).parent.mkdir(parents=True)
    (tmp_path / "puppets" / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(ClipError, match="absent or damaged"):
        shipped(puppets, name)


def test_rendering_a_shipped_take_copies_it(puppets: World, tmp_path: Path) -> None:
    name = "P001/neutral/1.00/028.mp4"
    path = render_take(puppets, tmp_path, name)
    source = shipped(puppets, name)
    assert source and path.read_bytes() == source.read_bytes()
    assert rendered(puppets, tmp_path, name) == path


# ---- files ------------------------------------------------------------------------------------


def test_a_rendered_clip_is_read_back_in_step(tmp_path: Path) -> None:
    small = World(size=64)
    path = render_take(small, tmp_path, "P001/happy/1.00/028.mp4")
    take = small.take("P001", "happy", "028")
    read = list(video.frames(Clip(path)))
    assert len(read) == take.n_frames
    assert np.array_equal(audio.samples(Clip(path)), take.sound())
    for index in (0, 17, take.n_frames - 1):
        drawn = take.frame(index).astype(float)
        assert np.abs(read[index] - drawn).mean() < 4  # H.264 with halved chroma
        others = [np.abs(read[k] - drawn).mean() for k in (index - 5, index - 12)]
        assert min(others) > np.abs(read[index] - drawn).mean()


def test_names_and_takes_belong_together(puppets: World) -> None:
    name = "P001/angry/0.25/029.mp4"
    assert clip_name(take_of(puppets, name)) == name
    for wrong in ("P001/angry/029.mp4", "P001/angry/1/029.mp4", "../P001/angry/1.00/029.mp4"):
        with pytest.raises(CardError, match="names no take"):
            take_of(puppets, wrong)
    with pytest.raises(UnknownNameError, match="P015"):
        take_of(puppets, "P15/angry/1.00/029.mp4")
    with pytest.raises(CardError, match="from 0 to 1"):
        take_of(puppets, "P001/angry/1.50/029.mp4")


def test_a_rendering_that_was_cut_is_not_taken_for_finished(tmp_path: Path) -> None:
    small, name = World(size=64), "P001/neutral/1.00/028.mp4"
    path = render_take(small, tmp_path, name)
    whole = path.read_bytes()
    assert rendered(World(size=64), tmp_path, name) == path
    path.write_bytes(whole[:-1])  # a file cut short
    assert rendered(World(size=64), tmp_path, name) is None
    assert render_take(small, tmp_path, name).read_bytes() == whole
    assert rendered(World(size=128), tmp_path, name) is None  # another world's clip
    path.with_suffix(".sha256").unlink()  # killed between the clip and its mark
    assert rendered(World(size=64), tmp_path, name) is None
    assert render_take(small, tmp_path, name).read_bytes() == whole


def test_a_clip_is_read_once_however_often_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, name = World(size=64), "P001/neutral/1.00/028.mp4"
    path = render_take(small, tmp_path, name)
    read: list[Path] = []
    monkeypatch.setattr("spfem_bench.hashes.sha256_of", lambda file: read.append(file) or "")
    assert rendered(small, tmp_path, name) == path and not read  # read when it was marked
    path.write_bytes(path.read_bytes()[:-1])
    assert rendered(small, tmp_path, name) is None and read == [path]
    path.unlink()
    assert rendered(small, tmp_path, name) is None  # its mark alone is nothing


def test_kill_9_half_way_leaves_only_whole_clips(tmp_path: Path) -> None:
    names = [f"P001/{e}/1.00/028.mp4" for e in EMOTIONS]
    script = tmp_path / "go.py"
    script.write_text(
        "import sys; from pathlib import Path\n"
        "from spfem_bench.puppets.clips import render_all\n"
        "from spfem_bench.puppets.world import World\n"
        f"render_all(World(size=64), Path({str(tmp_path)!r}), {names!r}, workers=1)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)])
    deadline = time.monotonic() + 60
    while not rendered(World(size=64), tmp_path, names[1]) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = [n for n in names if rendered(World(size=64), tmp_path, n)]
    assert 2 <= len(finished) < len(names)
    for name in finished:
        list(video.frames(Clip(tmp_path / name)))  # decodes to its end
    render_all(World(size=64), tmp_path, names, workers=1)
    assert all(rendered(World(size=64), tmp_path, n) for n in names)


def test_several_processes_render_the_same_bytes(tmp_path: Path) -> None:
    names = [f"P002/{e}/1.00/029.mp4" for e in EMOTIONS[:3]]
    advanced: list[str] = []

    class Counted(Progress):
        def advance(self, phase: str, parts: int = 1, **figures: float) -> None:
            advanced.append(phase)

    render_all(World(size=64), tmp_path / "a", names, workers=2, progress=Counted())
    render_all(World(size=64), tmp_path / "b", names, workers=1)
    assert advanced == ["render"] * 3
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_wrong_name_is_known_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        render_all(World(size=64), tmp_path, ["P001/sad/1.00/028.mp4", "P001/glad/1.00/028.mp4"])
    assert not list(tmp_path.rglob("*.mp4"))


def test_writing_refuses_frames_of_two_sizes_and_none(tmp_path: Path) -> None:
    sound = np.zeros(1280, np.int16)
    with pytest.raises(ClipError, match="no frame"):
        write_clip(tmp_path / "a.mp4", [], sound)
    frames = [np.zeros((64, 64, 3), np.uint8), np.zeros((32, 64, 3), np.uint8)]
    with pytest.raises(ClipError, match="two sizes"):
        write_clip(tmp_path / "a.mp4", frames, sound)
    assert not list(tmp_path.iterdir())


# ---- bad input --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"version": 7}, "unknown world version '7'"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": "abc"}, "seed is 'abc'"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"size": -128}, "-128 pixels"),
        ({"size": 129}, "even number"),
        ({"size": 32}, "from 64"),
    ],
)
def test_a_world_that_cannot_be_is_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises((CardError, UnknownNameError), match=words):
        World(**given)  # type: ignore[arg-type]


def test_unknown_people_words_and_feelings(puppets: World) -> None:
    for given in (("P999", "sad", "028"), ("P001", "glad", "028"), ("P001", "sad", "031")):
        with pytest.raises(UnknownNameError):
            puppets.take(*given)
    for intensity in (-0.1, 1.1, float("nan")):
        with pytest.raises(CardError, match="from 0 to 1"):
            puppets.take("P001", "sad", "028", intensity)


# ---- pictures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["cast", "intensity", "speech"])
def test_sheets_are_pictures(what: str) -> None:
    import cv2

    content = puppet_sheet(World(size=64), what)
    picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    assert picture.std() > 20


def test_another_face_on_the_same_performance(puppets: World) -> None:
    sad = puppets.take("P014", "sad", "028")
    glad = sad.with_face("happy")
    assert glad.phones == sad.phones and (glad.sound() == sad.sound()).all()
    assert glad.phones != puppets.take("P014", "happy", "028").phones
    pictures = [take.frame(20).astype(int) for take in (sad, glad, glad.with_face("sad"))]
    changed = np.abs(pictures[1] - pictures[0])
    # A face, not a place: where no face is, only the grain differs.
    assert changed.mean() > 2 * changed[:, :12].mean() > 0
    assert (pictures[2] == pictures[0]).all()
    assert glad.with_face("angry").performance is sad
