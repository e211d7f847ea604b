"""Trees of NED's folders: what is found, how clips are cut, what is refused."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.datasets.joined import Cut, cut_as_published, cut_joined
from spfem_bench.datasets.ned_tree import experiment_names
from spfem_bench.datasets.providers.ned import NedFaces
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.protocols import Protocol, protocol
from spfem_bench.errors import ClipError, MissingClipError
from spfem_bench.stored import write_json
from tests.conftest import Outcome

Run = Callable[..., Outcome]

LENGTHS = {
    ("M003", "neutral"): {"001": 5, "002": 4, "003": 6},
    ("M003", "sad"): {"011": 4, "012": 7},
    ("W015", "neutral"): {"001": 5, "007": 3},
    ("W015", "sad"): {"028": 6, "030": 5},
}


def face(folder: Path, number: int, size: int = 256) -> None:
    """Write a grey disc on black, a little brighter with each number."""
    folder.mkdir(parents=True, exist_ok=True)
    picture = np.zeros((size, size, 3), np.uint8)
    picture[60:200, 70:190] = 60 + number
    Image.fromarray(picture).save(folder / f"{number:06d}.png", compress_level=1)


def faces(folder: Path, numbers: range) -> None:
    for number in numbers:
        face(folder, number)


def write_list(path: Path) -> Path:
    rows = [[*cell, clip, n] for cell, clips in LENGTHS.items() for clip, n in clips.items()]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["speaker", "emotion", "clip", "frames"], *rows])
    return path


def total(speaker: str, emotion: str) -> int:
    return sum(LENGTHS[speaker, emotion].values())


@pytest.fixture(scope="module")
def actors_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trees") / "render_test"
    for (speaker, emotion), clips in LENGTHS.items():
        n = total(speaker, emotion)
        faces(root / f"{speaker}/{emotion}/faces_aligned", range(n))
        faces(root / f"{speaker}/{emotion}/ned/faces_aligned", range(2, n))
        for clip in clips:
            sound = root / f"{speaker}/{emotion}/videos/{clip}.wav"
            sound.parent.mkdir(exist_ok=True)
            write_sound(sound, clips[clip] / 30)
    for speaker in ("M003", "W015"):
        n = total(speaker, "neutral")
        faces(root / f"{speaker}/neutral/sad_ned/faces_aligned", range(2, n))
    write_list(root / "clips.csv")
    return root


@pytest.fixture
def actors(actors_once: Path, tmp_path: Path) -> Path:
    """A tree in NED's layout: a method `ned` in both settings, without its first two frames."""
    return Path(shutil.copytree(actors_once, tmp_path / "render_test"))


@pytest.fixture(scope="module")
def sides_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("trees") / "cmp_inter"
    for (speaker, emotion), clips in LENGTHS.items():
        for side in ("real", "gen"):
            faces(root / f"{side}/{emotion}/{speaker}", range(total(speaker, emotion)))
        for clip, n in clips.items():
            write_sound(root / f"audio/{speaker}_source_{emotion}_{clip}.wav", n / 30)
    write_list(root / "clips.csv")
    return root


@pytest.fixture
def sides(sides_once: Path, tmp_path: Path) -> Path:
    """A tree as the scripts score it: `real` and `gen`, of which each folder is whole."""
    return Path(shutil.copytree(sides_once, tmp_path / "cmp_inter"))


def write_sound(path: Path, seconds: float) -> None:
    import wave

    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(16000)
        noise = np.random.default_rng(0).integers(-9000, 9000, round(seconds * 16000))
        file.writeframes(noise.astype("<i2").tobytes())


def provider() -> NedFaces:
    found = DataFolders.locate().provider(dataset_card("ned"))
    assert isinstance(found, NedFaces)
    return found


def listed(run: Run, folder: Path, setting: str) -> Protocol:
    """Return the protocol on all clips of the tree."""
    if not (folder / "all-inter-id.toml").exists():
        assert run("protocol", "new", folder, "--from", "ned", "--name", "all").code == 0
    return protocol(str(folder / f"all-{setting}.toml"))


def outputs(one: Protocol, method: str) -> dict[str, str]:
    there = provider()
    return {item.id: str(there.output(method, item)) for item in one.items}


# ---- where clips lie in a folder, by hand --------------------------------------------------------


def test_whole_folders_and_those_without_their_first_frames() -> None:
    assert cut_joined([5, 4, 6], 15, 2) == [Cut((0, 5)), Cut((5, 9)), Cut((9, 15))]
    assert cut_joined([5, 4, 6], 13, 2) == [Cut((0, 3), 2), Cut((3, 7)), Cut((7, 13))]
    assert cut_joined([5, 4, 6], 13) is None  # nothing may be missing
    for wrong in (14, 12, 16, 0):
        assert cut_joined([5, 4, 6], wrong, 2) is None
    assert cut_joined([2, 4], 4, 2) is None  # nothing is left of the first clip
    assert cut_joined([], 0) is None


def test_as_published_is_the_loop_of_the_scripts() -> None:
    """The scripts give line i of the source's list of frames to the i-th picture file."""
    lines = ["a"] * 5 + ["b"] * 4 + ["c"] * 6
    for crossed, pictures in ((False, 13), (True, 13), (False, 15), (True, 15)):
        taken: dict[str, list[int]] = {}
        for i, name in enumerate(lines[: -2 if crossed else None]):
            if i > pictures - 1:
                break
            taken.setdefault(name, []).append(i)
        cuts = cut_as_published([5, 4, 6], pictures, 2, crossed=crossed)
        assert [list(range(*cut.pictures)) for cut in cuts] == list(taken.values())
        assert {cut.skip for cut in cuts} == {2}


@pytest.mark.parametrize(
    ("name", "folder", "expected"),
    [
        ("happy_cross_id_scmcl", "neutral", ("happy", "cross_id_scmcl")),
        ("ned_happy", "neutral", ("happy", "ned")),
        ("happy", "neutral", ("happy", "generated")),  # as NED's README names experiments
        ("ned", "sad", ("sad", "ned")),
        ("sadness", "sad", ("sad", "sadness")),
    ],
)
def test_experiments_say_target_and_method(
    name: str, folder: str, expected: tuple[str, str]
) -> None:
    assert experiment_names(name, folder, ["neutral", "happy", "sad"]) == expected


# ---- both layouts --------------------------------------------------------------------------------


def test_the_layout_of_ned(run: Run, actors: Path, tmp_path: Path) -> None:
    done = run("data", "index", "ned", actors)
    assert done.code == 0, done.err
    assert "method ned: the pictures of 6 of 6 folders are those of their clips" in done.out
    assert "generated folders without their first 2 frames, as NED's renderer writes" in done.out
    clips = provider().source_clips()
    assert [(c.speaker, c.emotion, c.clip, c.frames) for c in clips] == [
        (*cell, clip, n) for cell, lengths in LENGTHS.items() for clip, n in lengths.items()
    ]
    assert clips[1].address == (
        "M003/neutral/faces_aligned#fps=30.0&frames=5,9&audio=M003/neutral/videos/002.wav"
    )
    # Inter-ID: of the emotion's own clips; the first lacks two pictures, the others are whole.
    own = outputs(listed(run, tmp_path / "lists", "inter-id"), "ned")
    assert own["M003_source_sad_011"] == (
        "M003/sad/ned/faces_aligned#fps=30.0&frames=0,2&audio=M003/sad/videos/011.wav&skip=2"
    )
    assert own["M003_source_sad_012"] == (
        "M003/sad/ned/faces_aligned#fps=30.0&frames=2,9&audio=M003/sad/videos/012.wav"
    )
    # Cross-ID: of the neutral clips, whose sound it has; three sources, of which two have a real.
    crossed = listed(run, tmp_path / "lists", "cross-id")
    made = outputs(crossed, "ned")
    assert made["M003_source_sad_002"] == (
        "M003/neutral/sad_ned/faces_aligned#fps=30.0&frames=3,7&audio=M003/neutral/videos/002.wav"
    )
    rows = {item.id: item for item in crossed.items}
    assert rows["M003_source_sad_002"].row["real_clip"] == "012"
    assert "real" not in rows["M003_source_sad_003"].clips
    assert rows["M003_source_sad_001"].row["reference_speaker"] == "W015"


def test_the_pictures_that_are_read_are_those_of_the_clip(
    run: Run, actors: Path, tmp_path: Path
) -> None:
    from spfem_bench.definitions.clips import Clip
    from spfem_bench.media.pictures import numbered_pictures

    run("data", "index", "ned", actors)
    own = outputs(listed(run, tmp_path / "lists", "inter-id"), "ned")
    numbers = {
        name: [int(path.stem) for path in numbered_pictures(Clip.parse(address).within(actors))]
        for name, address in own.items()
    }
    # Files are numbered as the source's frames: 2 is the third frame of the first clip.
    assert numbers["M003_source_neutral_001"] == [2, 3, 4]
    assert numbers["M003_source_neutral_002"] == [5, 6, 7, 8]
    assert numbers["M003_source_neutral_003"] == [9, 10, 11, 12, 13, 14]


def test_the_layout_that_is_scored(run: Run, sides: Path, tmp_path: Path) -> None:
    done = run("data", "index", "ned", sides, "--json")
    report = json.loads(done.out)
    assert report["layout"] == "sides" and report["findings"] == []
    assert report["methods"] == {"gen": [4, 4]}
    assert report["cells"]["W015"]["sad"] == [2, 2, 2]
    own = outputs(listed(run, tmp_path / "lists", "inter-id"), "gen")
    assert own["W015_source_sad_030"] == (
        "gen/sad/W015#fps=30.0&frames=6,11&audio=audio/W015_source_sad_030.wav"
    )


def test_in_cross_id_a_side_is_made_of_neutral_clips(run: Run, sides: Path, tmp_path: Path) -> None:
    for speaker in ("M003", "W015"):
        folder = sides / f"gen/sad/{speaker}"
        shutil.rmtree(folder)
        faces(folder, range(2, total(speaker, "neutral")))
    done = run("data", "index", "ned", sides)
    assert "gen: 2 folders" in done.out
    made = outputs(listed(run, tmp_path / "lists", "cross-id"), "gen")
    assert made["M003_source_sad_001"] == (
        "gen/sad/M003#fps=30.0&frames=0,3&audio=audio/M003_source_neutral_001.wav&skip=2"
    )
    item = next(i for i in listed(run, tmp_path / "lists", "inter-id").items if i.emotion == "sad")
    with pytest.raises(ClipError) as refused:
        provider().output("gen", item)
    assert "13 pictures; the 2 clips of M003 sad have 4 + 7 = 11 frames (011: 4, 012: 7)" in str(
        refused.value
    )


def test_clips_by_source_videos(run: Run, actors: Path, run_ffmpeg: Callable[..., None]) -> None:
    (actors / "clips.csv").unlink()
    for (speaker, emotion), clips in LENGTHS.items():
        for clip, n in clips.items():
            video = actors / f"{speaker}/{emotion}/videos/{clip}.mp4"
            rate = "25" if (emotion, clip) == ("neutral", "007") else "30"
            sound = video.with_suffix(".wav")
            source = f"testsrc=size=64x64:rate={rate}"
            run_ffmpeg("-f", "lavfi", "-i", source, "-i", sound, "-frames:v", str(n), video)
            if clip == "001":  # then the video's own sound is used
                sound.unlink()
    done = run("data", "index", "ned", actors)
    assert done.code == 0 and "clips by the source videos" in done.out
    assert "frame rate: source videos that have not 30 frames a second (1)" in done.out
    assert "W015/neutral/videos/007.mp4: 25" in done.out
    clips = provider().source_clips()
    assert [c.frames for c in clips[:3]] == [5, 4, 6]
    assert [c.sound for c in clips[:2]] == [
        "M003/neutral/videos/001.mp4",
        "M003/neutral/videos/002.wav",
    ]


def test_as_published_is_signed_and_said(run: Run, actors: Path, tmp_path: Path) -> None:
    run("data", "index", "ned", actors)
    one = listed(run, tmp_path / "lists", "inter-id")
    assert provider().reading("ned") == {}
    assert "the first clip's sound begins 2 frames before its pictures" in provider().remark("ned")
    done = run("data", "index", "ned", actors, "--as-published")
    assert "clips begin 2 frames late" in done.out
    assert "Generated folders are cut as published; signatures say so." in done.out
    own = outputs(one, "ned")
    assert own["M003_source_sad_011"].endswith("frames=0,4&audio=M003/sad/videos/011.wav&skip=2")
    assert own["M003_source_sad_012"].endswith("frames=4,9&audio=M003/sad/videos/012.wav&skip=2")
    assert provider().reading("ned") == {"as_published": True}
    assert provider().reading("source") == {}
    assert "cut as published" in provider().remark("ned")


# ---- what is refused, each in one line -----------------------------------------------------------


def spoil_size(root: Path) -> None:
    face(root / "M003/sad/faces_aligned", 3, size=250)


def spoil_masks(root: Path) -> None:
    for path in (root / "M003/sad/ned/faces_aligned").iterdir():
        mask = (np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255
        Image.fromarray(mask).save(path)


def spoil_gap(root: Path) -> None:
    (root / "M003/sad/faces_aligned/000005.png").unlink()


def spoil_end(root: Path) -> None:
    path = root / "M003/sad/faces_aligned/000005.png"
    path.write_bytes(path.read_bytes()[:-20])


def spoil_count(root: Path) -> None:
    face(root / "M003/sad/faces_aligned", total("M003", "sad"))


def spoil_generated(root: Path) -> None:
    face(root / "M003/sad/ned/faces_aligned", 1)


def spoil_corners(root: Path) -> None:
    for path in (root / "W015/sad/faces_aligned").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) + np.uint8(50)).save(path)


def spoil_alpha(root: Path) -> None:
    for path in (root / "W015/sad/faces_aligned").iterdir():
        Image.open(path).convert("RGBA").save(path)


def spoil_grey(root: Path) -> None:
    Image.open(path := root / "W015/sad/faces_aligned/000000.png").convert("L").save(path)


def spoil_sound(root: Path) -> None:
    (root / "M003/sad/videos/011.wav").unlink()
    (root / "M003/sad/videos/012.wav").write_bytes(b"RIFF")


def spoil_names(root: Path) -> None:
    (root / "M003/sad/ned").rename(root / "M003/sad/source")


@pytest.mark.parametrize(
    ("spoil", "lines"),
    [
        (spoil_size, ["000003.png has 250 x 250 pixels, aligned faces have 256 x 256"]),
        (spoil_masks, ["M003/sad/ned/faces_aligned: masks, not faces"]),
        (spoil_gap, ["M003/sad/faces_aligned: frame 5 is missing"]),
        (spoil_end, ["M003/sad/faces_aligned: 000005.png: not a readable picture, or cut short"]),
        (spoil_count, ["12 pictures; the 2 clips of M003 sad have 4 + 7 = 11 frames (011: 4, "]),
        (
            spoil_generated,
            ["counts: generated", "10 pictures; the 2 clips of M003 sad have 4 + 7 = 11 frames"],
        ),
        (spoil_corners, ["unmasked: faces whose corners are not black:", "W015/sad/faces_aligned"]),
        (spoil_alpha, ["colours: pictures that are not RGB", "W015/sad/faces_aligned: 11 RGBA"]),
        (spoil_grey, ["W015/sad/faces_aligned: 1 L"]),
        (spoil_sound, ["no sound: clips without sound (2)", "M003 sad 011", "M003 sad 012 ("]),
        (spoil_names, ["not used: experiments that cannot be methods", "a control is named so"]),
    ],
)
def test_what_is_odd_is_one_line(
    run: Run, actors: Path, spoil: Callable[[Path], None], lines: list[str]
) -> None:
    spoil(actors)
    done = run("data", "index", "ned", actors)
    assert done.code == 0
    for line in lines:
        assert line in done.out
    everything = {(c.speaker, c.emotion, c.clip) for c in provider().source_clips()}
    refused = spoil in (spoil_size, spoil_gap, spoil_end, spoil_count)
    assert (("M003", "sad", "011") in everything) != refused
    assert ("W015", "sad", "028") in everything


def test_a_wrong_root_is_told_from_the_right_one(run: Run, actors: Path, sides: Path) -> None:
    for root, right, words in (
        (actors.parent, actors, "a level too high"),
        (actors / "M003", actors, "a level too low"),
        (actors / "M003/sad", actors, "2 levels too low"),
        (sides / "real", sides, "a level too low"),
        (sides / "real/sad/M003", sides, "3 levels too low"),
    ):
        if root == actors.parent:
            shutil.move(sides, (aside := actors.parent / "other/deep/cmp_inter"))
        done = run("data", "index", "ned", root)
        assert done.code == 1
        assert f"{root} is {words}. Name {right}" in done.err
        if root == actors.parent:
            shutil.move(aside, sides)
            shutil.rmtree(actors.parent / "other")


def test_an_empty_tree_and_one_without_real_faces(run: Run, sides: Path, tmp_path: Path) -> None:
    (tmp_path / "empty/in/it").mkdir(parents=True)
    done = run("data", "index", "ned", tmp_path / "empty/in/it")
    assert done.code == 1
    assert "empty/in/it holds no faces. Allowed: SPEAKER/EMOTION/faces_aligned/*.png" in done.err
    (sides / "real").rename(sides / "truth")
    done = run("data", "index", "ned", sides)
    assert done.code == 1 and "holds no side 'real'. Name the folder of real faces" in done.err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speaker,emotion,clip\nM003,sad,011\n", "line 2: the list lacks the column 'frames'"),
        ("speaker,emotion,clip,frames\nM003,sad,011,x\n", "'frames' must be a whole number"),
        (
            "speaker,emotion,clip,frames\nM003,sad,1,4\nM003,sad,1,7\n",
            "'M003 sad 1' is there twice",
        ),
        ("speaker,emotion,clip,frames\nM003,sad,../1,4\n", "leaves its folder"),
    ],
)
def test_a_wrong_list_of_clips_is_refused(
    run: Run, actors: Path, tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "mine.csv"
    path.write_text(text)
    done = run("data", "index", "ned", actors, "--clips", path)
    assert done.code == 1 and words in done.err


def test_folders_of_unknown_clips_say_what_to_give(run: Run, actors: Path, tmp_path: Path) -> None:
    (actors / "clips.csv").unlink()
    done = run("data", "index", "ned", actors)
    assert "no clips: folders of which nothing says where a clip ends (4)" in done.out
    assert "or give a list: --clips FILE.csv with speaker, emotion, clip, frames." in done.out
    done = run("protocol", "new", tmp_path / "lists", "--from", "ned")
    assert done.code == 1 and "has no clips that can be used" in done.err


def test_what_is_not_there_or_has_changed(run: Run, actors: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingClipError, match="not been indexed"):
        provider().verified("M003/sad/faces_aligned")
    run("data", "index", "ned", actors)
    one = listed(run, tmp_path / "lists", "cross-id")
    item = next(i for i in one.items if i.emotion == "sad")
    shutil.rmtree(actors / "M003/neutral/sad_ned")
    shutil.rmtree(actors / "M003/sad/ned")
    run("data", "index", "ned", actors)
    with pytest.raises(MissingClipError, match="faces of 'ned' for M003 as sad, made of neutral"):
        provider().output("ned", item)
    face(actors / "M003/sad/faces_aligned", total("M003", "sad"))
    with pytest.raises(ClipError, match="12 pictures, 11 when it was indexed"):
        provider().verified("M003/sad/faces_aligned")
    with pytest.raises(MissingClipError, match="missing"):
        provider().verified("M003/sad/videos/099.wav")


def test_a_damaged_index_is_refused(run: Run, actors: Path) -> None:
    run("data", "index", "ned", actors)
    path = DataFolders.locate().places(dataset_card("ned")).searched[0] / "index.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in content.items() if k != "checksum"}))
    assert "it has no checksum" in run("data", "list").err
    for change in (
        {"layout": "other"},
        {"folders": [content["folders"][0] | {"path": "../../etc"}]},
        {"clips": [content["clips"][0] | {"frames": -1}]},
    ):
        write_json(path, {k: v for k, v in (content | change).items() if k != "checksum"})
        done = run("data", "list")
        assert done.code == 1 and "is no index of a tree of faces" in done.err
        assert "Type 'spfem-bench data index ned ROOT', which writes it anew" in done.err
    assert run("data", "index", "ned", actors).code == 0


def test_options_are_for_the_right_data_set(run: Run, actors: Path, tmp_path: Path) -> None:
    done = run("data", "index", "mead", actors, "--as-published")
    assert done.code == 2 and "are for ned" in done.err
    mapping = tmp_path / "mine.toml"
    mapping.write_text('video = ["x"]\n')
    done = run("data", "index", "ned", actors, "--mapping", mapping)
    assert done.code == 2 and "a tree of faces" in done.err
    done = run("protocol", "new", tmp_path / "lists", "--from", "mead")
    assert done.code == 1 and "no tree of faces" in done.err


# ---- outputs outside the tree --------------------------------------------------------------------


def test_faces_elsewhere_by_the_layout(run: Run, actors: Path, tmp_path: Path) -> None:
    run("data", "index", "ned", actors)
    listed(run, tmp_path / "lists", "inter-id")
    mine = tmp_path / "mine"
    for (speaker, emotion), _ in LENGTHS.items():
        faces(mine / f"{emotion}/{speaker}", range(2, total(speaker, emotion)))
    command = ("eval", "--method", "mine", "--videos", mine, "--layout", "ned-faces", "--dry-run")
    path = tmp_path / "lists/all-inter-id.toml"
    done = run(*command, "--protocol", path)
    assert done.code == 0, done.out + done.err
    assert "neutral/M003" in done.out and "source" in done.out
    done = run(*command, "--protocol", path, "--json")
    (mine / "sad/W015/000010.png").unlink()
    done = run(*command, "--protocol", path)
    assert done.code == 2
    assert "holds 8 frames, its 2 sources have 6 + 5 = 11" in done.out + done.err
    assert "Up to 2 first frames may be missing" in done.out + done.err
