"""Controls: what each puts in an output's place, and what metrics say of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.signal import correlate

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.clips import Clip, Edit
from spfem_bench.definitions.methods import method_card
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import Item, Protocol, protocol
from spfem_bench.errors import CardError, ClipError
from spfem_bench.evaluation.controls import at_level, control_outputs, controls, why_not
from spfem_bench.evaluation.plan import Plan, make_plan
from spfem_bench.evaluation.preflight import plan_summary
from spfem_bench.evaluation.validate import graded_controls
from spfem_bench.faces import edits
from spfem_bench.faces.crop import opencv, similarity_transform
from spfem_bench.faces.track import Face, FaceTrack
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import audio, video
from spfem_bench.networks.weights import WeightsStore
from tests.conftest import STRIPS, Outcome, World

Run = Callable[..., Outcome]
EVAL = ("eval", "--protocol", "mini", "--profile", "mini", "-q")
NOTHING = {"blurred": 0, "frozen-mouth": 0, "shifted-audio": 0, "time-shuffled": 1}
POINTS = np.float32([[40, 40], [80, 40], [60, 60], [45, 80], [75, 80]])
RNG = np.random.default_rng(3)


def face(points: np.ndarray = POINTS) -> Face:
    low, high = points.min(0), points.max(0)
    return Face(np.float32([*low, *high]), points.astype(np.float32), 0.9)


def noise(frames: int, height: int = 128, width: int = 128) -> list[np.ndarray]:
    return list(RNG.integers(0, 256, (frames, height, width, 3), dtype=np.uint8))


# ---- addresses ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "clip.mp4#edit=blurred:2",
        "strip.mp4#xywh=256,0,256,256&t=0.0,3.6&edit=frozen-mouth:0.25",
        "frames#fps=30.0&audio=sound.wav&edit=shifted-audio:-4",
        "a #1 clip.mp4#edit=time-shuffled:25",
    ],
)
def test_an_edit_is_part_of_an_address(address: str) -> None:
    clip = Clip.parse(address)
    assert str(clip) == address
    assert Clip.parse(str(clip)) == clip
    assert clip.edit is not None and replace(clip, edit=None) != clip
    assert clip.within(Path("data")).edit == clip.edit


def test_one_level_is_written_in_one_way() -> None:
    for text in ("blurred:0.5", "blurred:0.50", "blurred:0.5000000001"):
        assert str(Edit.parse(text)) == "blurred:0.5"
    assert str(Edit("shifted-audio", -0.0)) == "shifted-audio:0"
    assert str(Edit("blurred", 0.000001)) == "blurred:0.000001"
    assert str(Edit("time-shuffled", 100)) == "time-shuffled:100"


@pytest.mark.parametrize(
    ("edit", "expected"),
    [
        ("blured:2", "Did you mean 'blurred'?"),
        ("blurred", "edit=blurred:1"),
        ("blurred:-1", "numbers from 0 to 100"),
        ("blurred:x", "no level 'x'"),
        ("blurred:nan", "no level 'nan'"),
        ("blurred:1e3", "no level '1e3'"),
        ("frozen-mouth:1.1", "numbers from 0 to 1"),
        ("shifted-audio:0.5", "whole numbers from -250 to 250"),
        ("time-shuffled:0", "whole numbers from 1 to 250"),
        ("time-shuffled:2.5", "whole numbers"),
        ("", "unknown edit ''"),
    ],
)
def test_impossible_edits_are_refused_with_what_is_allowed(edit: str, expected: str) -> None:
    with pytest.raises(CardError) as error:
        Clip.parse(f"clip.mp4#edit={edit}")
    assert str(error.value).startswith(f"clip 'clip.mp4#edit={edit}': ")
    assert expected in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_not_a_number_is_no_level() -> None:
    with pytest.raises(CardError, match="no level nan"):
        Edit("blurred", float("nan"))


def test_nobody_reads_an_edited_clip_as_if_it_were_not(world: World) -> None:
    clip = Clip(world.data / "mini" / f"{STRIPS[0]}.mkv", edit=Edit("blurred", 2))
    with pytest.raises(ValueError, match="without the edit"):
        next(video.frames(clip))
    with pytest.raises(ValueError, match="without the edit"):
        audio.samples(clip)


def test_content_differs_with_the_edit_and_its_level(world: World) -> None:
    clip = Clip(world.data / "mini" / f"{STRIPS[0]}.mkv")
    variants = [None, Edit("blurred", 1), Edit("blurred", 2), Edit("shifted-audio", 1)]
    assert len({video.content_id(replace(clip, edit=e)) for e in variants}) == 4


def test_networks_that_cannot_hear_share_the_features_of_a_shifted_clip(world: World) -> None:
    clip = Clip(world.data / "mini" / f"{STRIPS[0]}.mkv")
    x = Extractor(profile_card("light"), WeightsStore(), FeatureStore(Path("nowhere")))
    shifted, blurred = (replace(clip, edit=Edit(k, 2)) for k in ("shifted-audio", "blurred"))
    assert x.key(shifted, "identity") == x.key(clip, "identity") != x.key(blurred, "identity")
    assert x.key(shifted, "sync") != x.key(clip, "sync")
    assert x.key(shifted, None) == x.key(clip, None) == x.key(blurred, None)  # the face track


# ---- pixels ------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "level"), NOTHING.items())
def test_a_level_of_nothing_changes_nothing(kind: Any, level: float) -> None:
    edit = Edit(kind, level)
    assert edit.changes_nothing
    pairs = [(f, face()) for f in noise(7)]
    after = list(edits.edited_frames(pairs, edit, 7))
    assert all(a[0] is b[0] and a[1] is b[1] for a, b in zip(pairs, after, strict=True))
    samples = RNG.integers(-9, 9, 7 * 640, dtype=np.int16)
    assert edits.edited_sound(samples, Clip(Path("a.mp4"), edit=edit)) is samples


def test_blur_is_the_gaussian_of_its_sigma() -> None:
    point = np.zeros((200, 100, 3), np.uint8)
    point[100, 50] = 255
    [(after, _)] = edits.edited_frames(
        [(point, None)], Edit("blurred", 1)
    )  # sigma: 2 of 200 pixels
    expected = gaussian_filter(point[:, :, 0].astype(float), 2)
    assert np.abs(after[:, :, 0] - expected).max() < 1  # fixed-point, in grey values
    assert after[100, 50, 0] == pytest.approx(255 / (2 * np.pi * 2**2), abs=1)
    picture = noise(1, 100, 100)[0]
    [(after, _)] = edits.edited_frames([(picture, None)], Edit("blurred", 3))
    expected = gaussian_filter(picture.astype(float), (3, 3, 0))
    assert np.abs(after - expected)[12:-12, 12:-12].max() < 2  # OpenCV's ends at 3 sigma


@pytest.mark.parametrize("block", [2, 3, 13, 25, 250])
def test_shuffled_frames_are_a_permutation_within_each_block(block: int) -> None:
    order = list(edits.shuffled(range(100), block))
    for start in range(0, 100, block):
        part = order[start : start + block]
        assert sorted(part) == list(range(start, min(start + block, 100)))
    assert order != list(range(100))
    assert order == list(edits.shuffled(range(100), block))


def test_shuffling_holds_one_block() -> None:
    taken = 0

    def endless() -> Iterator[int]:
        nonlocal taken
        for number in count(1):
            taken = number
            yield number

    list(islice(edits.shuffled(endless(), 25), 60))
    assert taken == 75


def test_frames_are_shuffled_with_their_faces() -> None:
    pairs = [(np.full((8, 8, 3), i, np.uint8), face(POINTS + i)) for i in range(10)]
    after = list(edits.edited_frames(pairs, Edit("time-shuffled", 5)))
    shown = [int(picture[0, 0, 0]) for picture, _ in after]
    assert sorted(shown) == list(range(10)) != shown
    for picture, found in after:
        assert found is not None and found.points[0, 0] == 40 + picture[0, 0, 0]


# ---- the frozen mouth --------------------------------------------------------------------


def face_coordinates(points: np.ndarray, height: int = 128, width: int = 128) -> np.ndarray:
    """Distance of each pixel from the middle of the mouth's ellipse, which ends at 1.

    For an upright face: eyes to mouth is 40 at scale 1, as in POINTS.
    """
    size = points[3:, 1].mean() - points[:2, 1].mean()
    x, y = points[3:].mean(0) + np.float32([0, 0.28 * size])
    across, down = np.meshgrid(np.arange(width) - x, np.arange(height) - y)
    return np.hypot(across, down) / (0.68 * size)


@pytest.mark.parametrize("move", [(0, 0), (5, -3), (-12, 7)])
def test_the_first_frames_mouth_moves_with_the_face(move: tuple[int, int]) -> None:
    first, second = noise(2)
    pairs = [(first, face()), (second, face(POINTS + np.float32(move)))]
    (same, _), (after, kept) = edits.edited_frames(pairs, Edit("frozen-mouth", 1), 2)
    assert same is first and kept is pairs[1][1]
    distance = face_coordinates(POINTS + np.float32(move))
    assert (after[distance > 1] == second[distance > 1]).all()  # outside: not a bit
    moved = np.roll(first, move[::-1], axis=(0, 1))
    core = distance < 0.74
    assert (after[core] == moved[core]).all()
    # On the edge, from three quarters to one: a mixture, half and half in the middle.
    edge = np.abs(distance - 0.875) < 0.01
    mixed = (moved[edge].astype(float) + second[edge]) / 2
    assert edge.sum() > 3 and np.abs(after[edge] - mixed).max() <= 0.04 * 255 + 1
    # Lips, and the chin below them, are in the core.
    x, y = (POINTS[3:].mean(0) + move).astype(int)
    assert core[y, x - 14] and core[y, x + 14] and core[y - 8, x] and core[y + 30, x]


def test_turn_and_scale_are_found_from_the_points() -> None:
    a, b = 1.1 * np.exp(0.3j), 4 - 7j
    z = a * (POINTS[:, 0] + 1j * POINTS[:, 1]) + b
    turned = np.stack([z.real, z.imag], axis=1)
    expected = [[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]]
    assert np.allclose(similarity_transform(POINTS.astype(float), turned), expected, atol=1e-4)


def test_a_turned_mouth_is_the_first_one_turned() -> None:
    y, x = np.mgrid[:128, :128]
    first = np.stack([x, y, x + y], axis=2).astype(np.uint8)  # smooth: says where it came from
    a, b = np.exp(0.3j), 40 - 5j
    z = a * (POINTS[:, 0] + 1j * POINTS[:, 1]) + b
    target = face(np.stack([z.real, z.imag], axis=1))
    pairs = [(first, face()), (np.zeros_like(first), target)]
    after = list(edits.edited_frames(pairs, Edit("frozen-mouth", 1), 2))[1][0]
    lips = a * (60 + 82j) + b  # two pixels below the lips of the first
    found = after[round(lips.imag), round(lips.real)]
    assert np.abs(found.astype(int) - [60, 82, 142]).max() <= 1


def test_the_share_counts_frames_from_the_start_and_faceless_frames_stay() -> None:
    pictures = noise(8)
    faces = [None, face(), face(), None, face(), face(), face(), face()]
    after = [
        p
        for p, _ in edits.edited_frames(
            zip(pictures, faces, strict=True), Edit("frozen-mouth", 0.75), 8
        )
    ]
    same = [a is b for a, b in zip(after, pictures, strict=True)]
    assert same == [True, True, False, True, False, False, True, True]
    core = face_coordinates(POINTS) < 0.74
    assert (after[4][core] == pictures[1][core]).all()  # the first face's mouth


def test_a_face_that_left_the_picture_is_no_error() -> None:
    first, second = noise(2)
    pairs = [(first, face()), (second, face(POINTS + np.float32([500, 0])))]
    assert (list(edits.edited_frames(pairs, Edit("frozen-mouth", 1), 2))[1][0] == second).all()


def test_aligned_pictures_have_the_mouth_at_its_place() -> None:
    pictures = noise(3, 100, 100)
    after = [
        p
        for p, _ in edits.edited_frames(
            [(p, None) for p in pictures], Edit("frozen-mouth", 1), 3, aligned=True
        )
    ]
    x, y = np.meshgrid(np.arange(100), np.arange(100))
    distance = np.hypot((x - 50) / 34, (y - 76) / 26)
    for picture, edited in zip(pictures[1:], after[1:], strict=True):
        assert (edited[distance > 1] == picture[distance > 1]).all()
        assert (edited[distance < 0.74] == pictures[0][distance < 0.74]).all()


@pytest.fixture
def light(weights_folder: Path, tmp_path: Path) -> Extractor:
    weights = WeightsStore.locate(weights_folder)
    return Extractor(profile_card("light"), weights, FeatureStore(tmp_path / "store"))


def strip(world: World, name: str = "M012_source_happy_037") -> Clip:
    return Clip.parse(f"{world.data}/mini/{name}.mkv#xywh=0,0,256,256")


def test_a_real_mouth_stands_still_in_face_coordinates(light: Extractor, world: World) -> None:
    clip = strip(world)
    before = list(light.tracked_frames(clip, FaceTrack()))
    frozen = replace(clip, edit=Edit("frozen-mouth", 1))
    after = list(light.tracked_frames(frozen, FaceTrack()))
    cv2 = opencv()

    def in_first(pairs: list[Any]) -> np.ndarray:
        stack = []
        for picture, found in pairs:
            matrix = similarity_transform(found.points.astype(float), pairs[0][1].points)
            stack.append(cv2.warpAffine(picture, matrix, picture.shape[1::-1]))
        return np.stack(stack).astype(float)

    first = after[0][1]
    assert first is not None
    inside = face_coordinates(first.points, 256, 256)  # nearly upright
    moving, still = (in_first(p).var(axis=0)[inside < 0.6].mean() for p in (before, after))
    assert moving > 50, "the speaker speaks"
    assert still < 0.1 * moving  # what is left is interpolation
    for (was, found), (now, same) in zip(before, after, strict=True):
        assert same is not None and (same.points == found.points).all()
        outside = face_coordinates(found.points, 256, 256) > 1.05
        assert (was[outside] == now[outside]).all()


def test_an_edited_clip_uses_the_stored_track(
    light: Extractor, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip, track = strip(world), FaceTrack()
    list(light.tracked_frames(clip, track))
    monkeypatch.setattr(
        "spfem_bench.features.tracking.load_detector", lambda *_: pytest.fail("detected again")
    )
    other = Extractor(light.profile, light.weights, light.store)
    for kind, level in (("blurred", 2), ("frozen-mouth", 0.5), ("time-shuffled", 13)):
        found = FaceTrack()
        edited = replace(clip, edit=Edit(kind, level))
        pairs = list(other.tracked_frames(edited, found))
        assert len(pairs) == len(track.faces) == 40
        for (_, given), noted in zip(pairs, found.faces, strict=True):
            assert given is not None and noted is not None
            assert (given.points == noted.points).all()
    assert not np.array_equal(found.faces[0].points, track.faces[0].points)  # shuffled too


def test_drawing_the_faces_of_an_edited_clip(
    spfem_bench: Run, world: World, tmp_path: Path
) -> None:
    import cv2

    drawn = {}
    for edit in ("blurred:2", "frozen-mouth:0.5", "time-shuffled:13", "blurred:0"):
        done = spfem_bench(
            "faces", f"{strip(world)}&edit={edit}", "-o", f"{edit}.png", "--count", "3"
        )
        assert done.code == 0, done.err
        assert f"edit={edit}: 40 frames, a face in 40" in done.out
        drawn[edit] = cv2.imread(str(tmp_path / f"{edit}.png")).astype(float)
    assert spfem_bench("faces", str(strip(world)), "-o", "plain.png", "--count", "3").code == 0
    plain = cv2.imread(str(tmp_path / "plain.png")).astype(float)
    assert (drawn.pop("blurred:0") == plain).all()
    edges = {k: np.abs(np.diff(p[:, 230:440], axis=1)).mean() for k, p in drawn.items()}
    assert edges["blurred:2"] < 0.7 * np.abs(np.diff(plain[:, 230:440], axis=1)).mean()
    bad = spfem_bench("faces", f"{strip(world)}&edit=blurred:-2")
    assert bad.code == 1 and "numbers from 0 to 100" in bad.err


# ---- sound -------------------------------------------------------------------------------


@pytest.mark.parametrize("early", [-8, -1, 1, 2, 8])
def test_shifted_sound_is_found_by_cross_correlation(world: World, early: int) -> None:
    clip = Clip(world.data / "mini" / f"{STRIPS[0]}.mkv")
    samples = audio.samples(clip)
    after = edits.edited_sound(samples, replace(clip, edit=Edit("shifted-audio", early)))
    assert len(after) == len(samples) and after.dtype == np.int16
    product = correlate(samples.astype(float), after.astype(float))
    assert product.argmax() - (len(samples) - 1) == early * 640  # 40 ms are 640 samples
    moved = abs(early) * 640
    if early > 0:
        assert (after[:-moved] == samples[moved:]).all() and not after[-moved:].any()
    else:
        assert (after[moved:] == samples[:-moved]).all() and not after[:moved].any()


def test_other_edits_leave_the_sound_alone() -> None:
    samples = RNG.integers(-9, 9, 6400, dtype=np.int16)
    for edit in (None, Edit("blurred", 2), Edit("time-shuffled", 25), Edit("frozen-mouth", 1)):
        assert edits.edited_sound(samples, Clip(Path("a.mp4"), edit=edit)) is samples


def test_sound_is_not_shifted_away() -> None:
    clip = Clip(Path("a.mp4"), edit=Edit("shifted-audio", 10))
    with pytest.raises(ClipError, match=r"0\.40 s long, all of which would be shifted away"):
        edits.edited_sound(np.ones(6400, np.int16), clip)


# ---- which clip stands in whose place ----------------------------------------------------


def listed(*rows: str) -> Protocol:
    """A protocol of items written as 'speaker emotion'."""
    items = []
    for n, row in enumerate(rows):
        speaker, emotion = row.split()
        clips = {role: Clip(Path(f"{role}/{n}-{speaker}.mp4")) for role in ("source", "real")}
        items.append(Item(f"{n}", speaker, emotion, clips, {}))
    card = protocol("stccl-page-ned").card
    emotions = tuple(dict.fromkeys(i.emotion for i in items))
    clips = {"source": "{file}", "real": "{file}"}
    return Protocol(
        card.model_copy(update={"emotions": emotions, "clips": clips}),
        tuple(items),
        "",
        protocol("stccl-page-ned").dataset,
    )


def stand_ins(of: Protocol, level: float) -> list[str]:
    outputs = control_outputs(at_level(method_card("other-speaker"), level), of)
    return [getattr(outputs[i.id], "path", Path("refused")).stem for i in of.items]


THREE = listed("W1 sad", "M2 sad", "W1 sad", "M3 sad", "M2 sad", "M2 happy", "W1 happy")


def test_all_are_replaced_by_the_first_speaker_and_that_one_by_the_second() -> None:
    # By name M2 is first and M3 second; M2's two clips are taken in turn.
    assert stand_ins(THREE, 1) == [
        "1-M2",
        "3-M3",
        "4-M2",
        "1-M2",
        "3-M3",  # sad
        "6-W1",
        "5-M2",  # happy: two speakers are exchanged
    ]
    assert stand_ins(THREE, 0) == [i.clips["real"].path.stem for i in THREE.items]


def test_replaced_items_stay_replaced_at_a_higher_level() -> None:
    many = listed(*(f"S{n % 6} sad" for n in range(42)), *(f"S{n % 3} fear" for n in range(9)))
    real = [i.clips["real"].path.stem for i in many.items]
    before: set[int] = set()
    for level in (0, 0.1, 0.25, 0.5, 0.75, 0.9, 1):
        replaced = {n for n, stem in enumerate(stand_ins(many, level)) if stem != real[n]}
        assert before <= replaced
        assert sum(n < 42 for n in replaced) == int(42 * level + 0.5)
        before = replaced
    half = {n for n, stem in enumerate(stand_ins(many, 0.5)) if stem != real[n]}
    per_speaker = [sum(n % 6 == s for n in half if n < 42) for s in range(6)]
    assert min(per_speaker) >= 3 and max(per_speaker) <= 4  # of 7 each: evenly spread


def test_nobody_stands_in_for_the_only_speaker_of_an_emotion() -> None:
    of = listed("A sad", "B sad", "A happy")
    assert stand_ins(of, 1) == ["1-B", "0-A", "refused"]
    assert stand_ins(of, 0) == ["0-A", "1-B", "refused"]  # the same items at every level
    outputs = control_outputs(method_card("other-speaker"), of)
    assert isinstance(outputs["2"], ClipError)
    assert "no other speaker than A has 'happy'" in str(outputs["2"])


def test_clips_that_are_edited_already_are_not_edited_again() -> None:
    of = listed("A sad")
    of.items[0].clips["real"] = Clip(Path("a.mp4"), edit=Edit("blurred", 1))  # type: ignore[index]
    [output] = control_outputs(method_card("blurred"), of).values()
    assert "edited already" in str(output)


# ---- which controls there are ------------------------------------------------------------

ALWAYS = {"source", "real", "blurred", "frozen-mouth", "time-shuffled", "other-speaker"}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("stccl-page-ned", {"reference", "shifted-audio"}),
        ("stccl-page-eat", {"shifted-audio"}),
        ("asccl-repo-inter-id", {"reference"}),
    ],
)
def test_a_protocol_has_the_controls_that_it_has_clips_for(name: str, more: set[str]) -> None:
    assert {c.name for c in controls(protocol(name))} == ALWAYS | more


def test_what_a_protocol_lacks_for_a_control_is_said() -> None:
    ned, silent = protocol("stccl-page-ned"), protocol("asccl-repo-inter-id")
    assert "graded intensities" in why_not(method_card("emotion-faded"), ned)
    assert "hears the sound" in why_not(method_card("shifted-audio"), silent)
    assert "no reference clips" in why_not(method_card("reference"), protocol("stccl-page-eat"))
    alone = listed("A sad", "A sad", "B happy")
    assert "no two speakers" in why_not(method_card("other-speaker"), alone)
    assert "is no control" in why_not(method_card("ned"), ned)


def test_shipped_controls_are_graded_from_nothing_to_the_strongest() -> None:
    graded = graded_controls()
    assert len(graded) == 6
    for name, control in graded.items():
        steps = np.diff(control.levels)
        assert (steps > 0).all() or (steps < 0).all(), name
        assert len(method_card(name).description) > 80


METHOD = """title = "Mine"
label = "mine"
[control]
kind = "edit"
edit = "blurred"
level = 1
levels = [0, 1]
"""


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[0, 1]", "[1, 2]", "must begin with the one that changes nothing"),
        ("level = 1", "level = -1", "numbers from 0 to 100"),
        ("[0, 1]", "[0, 200]", "numbers from 0 to 100"),
        ("level =", "lvel =", "unknown key 'control.edit.lvel'. Did you mean 'level'?"),
        ('edit = "blurred"', 'edit = "blured"', "'control.edit.edit'"),
        ('kind = "edit"\nedit = "blurred"', 'kind = "faded"', "must begin with the one"),
        ('kind = "edit"\nedit = "blurred"', 'kind = "clip"\nclip = "output"', "control"),
    ],
)
def test_a_bad_control_card_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, expected: str
) -> None:
    path = tmp_path / "reference_results/methods/mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text(METHOD.replace(old, new))
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path))
    with pytest.raises(CardError) as error:
        method_card("mine")
    assert str(path) in str(error.value) and expected in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_an_own_control_needs_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "reference_results/methods/mine.toml"
    path.parent.mkdir(parents=True)
    path.write_text(METHOD)
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path))
    assert "mine" in {c.name for c in controls(protocol("stccl-page-ned"))}


# ---- plans -------------------------------------------------------------------------------


@pytest.fixture
def plan(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(world.cards))

    def make(method: str, of: Protocol | None = None, **more: Any) -> Plan:
        return make_plan(
            method,
            of or protocol("mini"),
            profile_card("mini"),
            data=DataFolders.locate(world.data),
            weights=WeightsStore.locate(world.weights),
            **more,
        )

    return make


def test_a_level_may_be_given(plan: Callable[..., Plan]) -> None:
    assert {i.clips["output"].edit for i in plan("blurred").items} == {Edit("blurred", 2)}
    found = plan("blurred", level=0.5)
    assert {i.clips["output"].edit for i in found.items} == {Edit("blurred", 0.5)}
    assert all(i.addresses["output"].endswith("&edit=blurred:0.5") for i in found.items)
    control = found.method.control
    assert control is not None and control.settings()["level"] == 0.5
    assert plan("shifted-audio", level=-3).complete


@pytest.mark.parametrize("method", ["blurred", "shifted-audio", "frozen-mouth", "other-speaker"])
def test_at_a_level_of_nothing_the_output_is_the_real_clip(
    plan: Callable[..., Plan], method: str
) -> None:
    assert all(i.clips["output"] == i.clips["real"] for i in plan(method, level=0).items)


@pytest.mark.parametrize(
    ("method", "level", "expected"),
    [
        ("source", 1, "'source' has no levels"),
        ("ned", 1, "'ned' has no levels"),
        ("blurred", -1, "has no level -1. Its card names 0, 0.5, 1, 2, 4"),
        ("time-shuffled", 2.5, "has no level 2.5"),
        ("other-speaker", 1.5, "has no level 1.5"),
    ],
)
def test_levels_that_a_method_does_not_have(
    plan: Callable[..., Plan], method: str, level: float, expected: str
) -> None:
    with pytest.raises(CardError) as error:
        plan(method, level=level)
    assert expected in str(error.value)


def test_the_plan_refuses_items_without_another_speaker(plan: Callable[..., Plan]) -> None:
    whole = protocol("mini")
    fewer = replace(whole, items=tuple(i for i in whole.items if i.id != STRIPS[3]))
    found = plan("other-speaker", fewer)
    [refusal] = found.refusals
    assert (refusal.item, refusal.kind) == (STRIPS[2], "refused")
    assert set(refusal.metrics) == set(whole.card.metrics)
    assert "refused: no other speaker than W015 has 'happy'" in plan_summary(found)[0]


# ---- through the whole path --------------------------------------------------------------


def record_of(folder: Path, method: str) -> dict[str, Any]:
    return dict(json.loads((folder / "results" / "mini" / f"{method}.mini.json").read_text()))


def headline(record: dict[str, Any]) -> dict[str, Any]:
    return {s["metric"]: s for s in record["scores"] if s["emotion"] == "avg"}


def test_every_control_from_the_command_line_to_the_record(
    spfem_bench: Run, tmp_path: Path
) -> None:
    asked = {  # of each, what the lines below look at
        "real": "fad,csim,id-sim,lse-d",
        "source": "id-sim",
        "reference": "csim",
        "blurred": "fad,csim,id-sim",
        "other-speaker": "fad,csim,id-sim",
        "time-shuffled": "fad,csim,id-sim",
        "frozen-mouth": "csim,id-sim",
        "shifted-audio": "csim,id-sim,lse-d",
    }
    assert asked.keys() == {c.name for c in controls(protocol("mini"))}
    found, said = {}, {}
    for method, metrics in asked.items():
        done = spfem_bench(*EVAL, "--method", method, "--metrics", metrics)
        assert done.code == 0, done.err
        record = record_of(tmp_path, method)
        assert record["method"]["kind"] == "control"
        found[method], said[method] = headline(record), record
        assert {s["kind"] for s in record["scores"]} == {"control"}
    value = {m: {k: s["value"] for k, s in scores.items()} for m, scores in found.items()}
    real = value["real"]

    # The record says exactly what was scored.
    blurred = said["blurred"]
    assert blurred["method"]["control"] == {
        "kind": "edit",
        "edit": "blurred",
        "level": 2,
        "levels": [0, 0.5, 1, 2, 4],
    }
    assert all(
        i["clips"]["output"]["address"].endswith("edit=blurred:2")
        and i["clips"]["output"]["content"] != i["clips"]["real"]["content"]
        for i in blurred["items"]
    )
    # A method is no part of a number's signature: all may be compared.
    for metric in real:
        assert len({s[metric]["signature"] for s in found.values() if metric in s}) == 1
    # Only what is the real clip is called so.
    notes = {m: s["fad"]["note"] for m, s in found.items() if "fad" in s}
    same = {m for m, note in notes.items() if "the real clip itself" in note}
    assert same == {"real"}

    assert real["fad"] == pytest.approx(0, abs=1e-6)
    assert real["id-sim"] == value["source"]["id-sim"] == pytest.approx(1)  # the same clip here
    assert value["reference"]["csim"] == pytest.approx(1)
    assert value["blurred"]["fad"] > 5 and value["blurred"]["id-sim"] < 0.8
    # Networks of faces do not hear; the frames of a shuffled clip are the same frames.
    for metric in ("csim", "id-sim"):
        assert value["shifted-audio"][metric] == real[metric]
    assert value["shifted-audio"]["lse-d"] != real["lse-d"]
    assert value["time-shuffled"]["fad"] == pytest.approx(0, abs=1e-6)
    assert value["time-shuffled"]["csim"] == pytest.approx(real["csim"], abs=1e-5)
    assert value["time-shuffled"]["id-sim"] < 0.99  # frame by frame, its order tells
    assert 0.8 < value["frozen-mouth"]["id-sim"] < 1
    # Two speakers an emotion, who are exchanged: another identity, the same pool of frames.
    assert value["other-speaker"]["id-sim"] < 0.5
    assert value["other-speaker"]["fad"] == pytest.approx(0, abs=1e-6)


def test_a_second_run_of_an_edit_computes_no_network(
    spfem_bench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = (*EVAL, "--method", "blurred", "--metrics", "id-sim")
    assert spfem_bench(*arguments).code == 0
    first = record_of(tmp_path, "blurred")["scores"]
    monkeypatch.setattr(
        "spfem_bench.features.tracking.load_network", lambda *_: pytest.fail("a network was loaded")
    )
    assert spfem_bench(*arguments).code == 0
    assert record_of(tmp_path, "blurred")["scores"] == first


def test_a_control_that_a_protocol_lacks_is_one_line(spfem_bench: Run) -> None:
    done = spfem_bench(*EVAL, "--method", "emotion-faded")
    assert done.code == 1
    assert "no clips in graded intensities" in done.err
    assert "It has: stccl-vd-ned" in done.err and "time-shuffled" in done.err
    assert len(done.err.strip().splitlines()) == 1
