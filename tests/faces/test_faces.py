"""One subject per clip, found and cut out as the rules and recipes say."""

from __future__ import annotations

import hashlib
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import ncnn
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from insightface import model_zoo
from insightface.model_zoo.scrfd import SCRFD
from insightface.utils.face_align import estimate_norm, norm_crop
from onnx import TensorProto, helper, numpy_helper
from scipy import signal
from skimage.transform import SimilarityTransform

from spfem_bench.definitions import cards
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import (
    ArcFaceInput,
    ExpressionInput,
    FaceSettings,
    FrameInput,
    NetworkCard,
    SyncInput,
    network_card,
)
from spfem_bench.errors import ClipError, WeightsError
from spfem_bench.faces import crop
from spfem_bench.faces.detect import Detector, load_detector
from spfem_bench.faces.track import Face, FaceTrack, follow
from spfem_bench.media import video
from spfem_bench.networks.scrfd_ncnn import suppress
from spfem_bench.networks.weights import WeightsStore

# scipy's median filter says so when a track is shorter than the filter: the official recipe's case.
pytestmark = pytest.mark.filterwarnings("ignore:kernel_size exceeds volume extent")

RULE = FaceSettings(settle=5, min_overlap=0.3, max_gap=3, min_coverage=0.5, rival=0.5)


def face(x: float, y: float = 100, side: float = 40, score: float = 0.9) -> Face:
    """Return a square face centred at (x, y), with five points that move with it."""
    h = side / 2
    points = [(-0.4, -0.4), (0.4, -0.4), (0, 0), (-0.3, 0.5), (0.3, 0.5)]
    return Face(
        np.array([x - h, y - h, x + h, y + h], np.float32),
        np.array([(x + a * h, y + b * h) for a, b in points], np.float32),
        score,
    )


def centre(found: Face | None) -> float | None:
    return None if found is None else float(found.box[0] + found.box[2]) / 2


def run(
    detections: list[list[Face]], rule: FaceSettings = RULE
) -> tuple[list[Face | None], FaceTrack]:
    """Follow the subject; the picture of frame i is a single pixel of value i."""
    frames = [(np.full((1, 1, 3), i % 256, np.uint8), f) for i, f in enumerate(detections)]
    track = FaceTrack()
    out = list(follow(iter(frames), rule, track))
    # Whatever happens, every frame comes out once and in order, and the track agrees.
    assert len(out) == len(track.faces) == len(track.detected) == len(detections)
    assert all(a is b for (a, _), (b, _) in zip(out, frames, strict=True))
    assert all(a is b for (_, a), b in zip(out, track.faces, strict=True))
    return track.faces, track


# ---- the subject is chosen ------------------------------------------------------------------


def test_the_subject_is_the_face_with_the_largest_summed_area_while_settling() -> None:
    # In five frames: a small face in all (5 x 40^2 = 8000), a larger one in three
    # (3 x 50^2 = 7500). The steady face wins, although it is never the larger one.
    small, large = face(50, side=40), face(300, side=50)
    faces, _ = run([[small, large]] * 3 + [[small]] * 2)
    assert [centre(f) for f in faces] == [50] * 5
    # With one more frame of the larger face (4 x 2500 = 10000) it is the other way round.
    faces, _ = run([[small, large]] * 4 + [[small]])
    assert [centre(f) for f in faces] == [300] * 4 + [None]


def test_the_first_score_or_position_in_the_list_does_not_choose() -> None:
    small, large = face(50, side=40, score=0.99), face(300, side=60, score=0.6)
    for pair in ([small, large], [large, small]):
        faces, _ = run([pair] * 8)
        assert [centre(f) for f in faces] == [300] * 8


def test_what_comes_after_the_settling_frames_does_not_choose() -> None:
    subject, giant = face(50, side=40), face(300, side=200)
    faces, _ = run([[subject]] * 5 + [[giant, subject]] * 20)
    assert [centre(f) for f in faces] == [50] * 25


def test_settling_starts_with_the_first_frame_that_has_a_face() -> None:
    subject, other = face(50, side=40), face(300, side=30)
    # The other face is alone at first; after 10 empty frames five frames decide.
    faces, track = run([[]] * 10 + [[other]] * 2 + [[other, subject]] * 3 + [[subject]] * 4)
    # Sums of areas in those five: other 5 x 900 = 4500, subject 3 x 1600 = 4800.
    assert [centre(f) for f in faces] == [None] * 12 + [50] * 7
    assert track.detected == [False] * 12 + [True] * 7


def test_a_clip_shorter_than_the_settling_frames_has_its_subject_too() -> None:
    faces, _ = run([[face(50), face(300, side=60)]] * 2)
    assert [centre(f) for f in faces] == [300, 300]


def test_a_clip_without_frames_or_faces_gives_no_face() -> None:
    assert run([])[0] == []
    assert run([[]] * 30)[0] == [None] * 30


# ---- the subject is followed ----------------------------------------------------------------


def test_a_moving_face_is_followed() -> None:
    faces, track = run([[face(300, 300), face(50 + 10 * i)] for i in range(5)])
    assert {centre(f) for f in faces} == {300}  # equal sums of area: the first seen stays
    faces, track = run([[face(50 + 10 * i, side=44), face(300, 300)] for i in range(30)])
    assert [centre(f) for f in faces] == [50 + 10 * i for i in range(30)]
    assert all(track.detected)


def test_two_faces_that_cross_are_not_swapped() -> None:
    # One walks right, one left, 8 pixels a frame each; they pass 8 pixels apart in
    # height. The larger is the subject, and stays it, in whatever order they are listed.
    a = [face(60 + 8 * i, 100, side=48) for i in range(30)]
    b = [face(292 - 8 * i, 108, side=40) for i in range(30)]
    for order in (slice(None), slice(None, None, -1)):
        faces, _ = run([[x, y][order] for x, y in zip(a, b, strict=True)])
        assert [centre(f) for f in faces] == [centre(f) for f in a]


def test_a_detection_that_overlaps_too_little_does_not_continue_the_subject() -> None:
    # Squares of side 40 shifted by d overlap by (40 - d) / (40 + d): 0.333 for 20, 0.290 for 22.
    near, far = face(70), face(72)
    assert centre(run([[face(50)]] * 5 + [[near]])[0][5]) == 70
    assert centre(run([[face(50)]] * 5 + [[far]])[0][5]) is None


# ---- gaps -----------------------------------------------------------------------------------


def test_a_gap_of_max_gap_frames_is_interpolated_linearly() -> None:
    before, after = face(50, 100, 40, score=0.9), face(58, 92, 48, score=0.5)
    faces, track = run([[before]] * 6 + [[]] * 3 + [[after]] * 2)
    # Four steps from one to the other: centre + 2, side + 2, score - 0.1 each.
    for i, part in ((6, 1), (7, 2), (8, 3)):
        expected = face(50 + 2 * part, 100 - 2 * part, 40 + 2 * part)
        found = faces[i]
        assert found is not None
        np.testing.assert_allclose(found.box, expected.box, atol=1e-4)
        np.testing.assert_allclose(found.points, expected.points, atol=1e-4)
        assert found.score == pytest.approx(0.9 - 0.1 * part)
        assert found.box.dtype == found.points.dtype == np.float32
    assert track.detected == [True] * 6 + [False] * 3 + [True] * 2


def test_a_gap_one_frame_longer_stays_without_a_face() -> None:
    faces, track = run([[face(50)]] * 6 + [[]] * 4 + [[face(58)]] * 2)
    assert [centre(f) for f in faces] == [50] * 6 + [None] * 4 + [58] * 2
    assert track.detected == [True] * 6 + [False] * 4 + [True] * 2


def test_the_same_lengths_of_gap_inside_the_settling_frames() -> None:
    rule = RULE.model_copy(update={"settle": 20})
    assert None not in run([[face(50)]] + [[]] * 3 + [[face(50)]] * 3, rule)[0]
    assert run([[face(50)]] + [[]] * 4 + [[face(50)]] * 3, rule)[0].count(None) == 4


def test_a_gap_at_the_end_is_not_invented() -> None:
    faces, track = run([[face(50)]] * 6 + [[]] * 2)
    assert [centre(f) for f in faces] == [50] * 6 + [None] * 2
    assert track.detected == [True] * 6 + [False] * 2


def test_no_gap_is_interpolated_where_the_rule_says_zero() -> None:
    rule = RULE.model_copy(update={"max_gap": 0})
    faces, _ = run([[face(50)]] * 6 + [[]] + [[face(50)]], rule)
    assert [centre(f) for f in faces] == [50] * 6 + [None, 50]


def test_another_face_does_not_fill_a_gap() -> None:
    other = face(300, side=30)
    faces, track = run([[face(50), other]] * 6 + [[other]] * 3 + [[face(50), other]] * 2)
    assert [centre(f) for f in faces] == [50] * 11
    assert track.detected == [True] * 6 + [False] * 3 + [True] * 2


def test_after_a_longer_gap_the_largest_face_is_the_subject() -> None:
    # The subject left; of the two that come after the gap the larger is taken and followed.
    faces, _ = run([[face(50)]] * 6 + [[]] * 4 + [[face(200, side=30), face(300, side=35)]] * 6)
    assert [centre(f) for f in faces] == [50] * 6 + [None] * 4 + [300] * 6


def test_someone_else_is_taken_only_once_the_gap_is_too_long() -> None:
    # After three frames (max_gap) of somebody else it is not yet somebody else's clip.
    other = [face(300, side=60)]
    faces, _ = run([[face(50)]] * 6 + [other] * 8)
    assert [centre(f) for f in faces] == [50] * 6 + [None] * 4 + [300] * 4


# ---- rivals, coverage, messages -------------------------------------------------------------


def test_frames_with_a_rival_are_counted() -> None:
    # Rival: at least half of the subject's area (40^2 = 1600): 29^2 = 841 is, 28^2 = 784 is not.
    near, small = face(300, side=29), face(300, side=28)
    _, track = run([[face(50), near]] * 4 + [[face(50), small]] * 7)
    assert track.rivals == 4


def test_no_face_is_refused_with_the_count() -> None:
    _, track = run([[]] * 30)
    with pytest.raises(ClipError, match=r"clip\.mp4: no face in any of its 30 frames") as caught:
        track.check("clip.mp4", RULE)
    assert "\n" not in str(caught.value)


def test_a_face_in_a_third_of_the_frames_is_refused_with_the_counts() -> None:
    _, track = run([[face(50)]] * 10 + [[]] * 20)
    with pytest.raises(ClipError, match=r"clip\.mp4: a face in only 10 of 30 frames.*50%"):
        track.check("clip.mp4", RULE)


def test_a_face_in_half_of_the_frames_is_enough() -> None:
    _, track = run([[face(50)]] * 15 + [[]] * 15)
    track.check("clip.mp4", RULE)


def test_two_faces_are_refused_with_the_count() -> None:
    _, track = run([[face(50), face(300, side=38)]] * 16 + [[face(50)]] * 14)
    with pytest.raises(ClipError, match=r"two faces of similar size in 16 of 30.*#xywh="):
        track.check("clip.mp4", RULE)


def test_two_faces_in_half_of_the_frames_are_accepted() -> None:
    _, track = run([[face(50), face(300, side=38)]] * 15 + [[face(50)]] * 15)
    track.check("clip.mp4", RULE)


def test_a_track_survives_the_store() -> None:
    _, track = run([[]] * 2 + [[face(50), face(300)]] * 6 + [[]] * 2 + [[face(51)]] + [[]] * 9)
    again = FaceTrack().fill(track.to_arrays())
    assert again.detected == track.detected
    assert again.rivals == track.rivals == 6
    assert len(again.faces) == len(track.faces)
    for a, b in zip(again.faces, track.faces, strict=True):
        assert (a is None) == (b is None)
        if a is not None and b is not None:
            np.testing.assert_array_equal(a.box, b.box)
            np.testing.assert_array_equal(a.points, b.points)
            assert a.score == pytest.approx(b.score, abs=1e-6)


# ---- memory ---------------------------------------------------------------------------------

SCENES = st.lists(
    st.tuples(
        st.integers(1, 12),  # frames
        st.sampled_from(["nobody", "one", "other", "both"]),
    ),
    max_size=12,
)
WHO = {
    "nobody": [],
    "one": [face(50)],
    "other": [face(300, side=60)],
    "both": [face(50), face(300, side=60)],
}


@given(SCENES, st.integers(1, 8), st.integers(0, 6))
def test_few_frames_are_held_back_whatever_happens(
    scenes: list[tuple[int, str]], settle: int, max_gap: int
) -> None:
    rule = RULE.model_copy(update={"settle": settle, "max_gap": max_gap})
    read = 0

    def source() -> Iterator[tuple[np.ndarray, list[Face]]]:
        nonlocal read
        for length, who in scenes:
            for _ in range(length):
                read += 1
                yield np.full((1, 1, 3), read % 256, np.uint8), WHO[who]

    given_out = 0
    track = FaceTrack()
    for picture, _ in follow(source(), rule, track):
        # Held back at this moment: frames read, less those given out before this one and itself.
        given_out += 1
        assert picture[0, 0, 0] == given_out % 256
        assert read - given_out <= settle + max_gap
    assert given_out == read == len(track.faces) == len(track.detected)


def test_frames_given_out_are_let_go() -> None:
    alive: list[weakref.ref[np.ndarray]] = []
    most = 0

    def source() -> Iterator[tuple[np.ndarray, list[Face]]]:
        for i in range(200):
            picture = np.zeros((1, 1, 3), np.uint8)
            alive.append(weakref.ref(picture))
            yield picture, [] if i % 40 > 20 else [face(50)]

    for picture, _ in follow(source(), RULE, FaceTrack()):
        del picture
        most = max(most, sum(reference() is not None for reference in alive))
    # The frames held back, and the ones just being handed in and out.
    assert most <= RULE.settle + RULE.max_gap + 2


@given(SCENES)
def test_no_run_of_interpolated_frames_is_longer_than_allowed(
    scenes: list[tuple[int, str]],
) -> None:
    detections = [WHO[who] for length, who in scenes for _ in range(length)]
    faces, track = run(detections)
    filled = [f is not None and not seen for f, seen in zip(faces, track.detected, strict=True)]
    runs = [len(list(group)) for value, group in itertools.groupby(filled) if value]
    assert max(runs, default=0) <= RULE.max_gap
    for found, seen, offered in zip(faces, track.detected, detections, strict=True):
        assert not seen or any(found is f for f in offered)  # a seen face is one of the detected


# ---- crops ----------------------------------------------------------------------------------


def gradient(height: int, width: int) -> np.ndarray:
    """Red is twice the column, green twice the row, blue 7."""
    picture = np.full((height, width, 3), 7, np.uint8)
    picture[:, :, 0] = 2 * np.arange(width)
    picture[:, :, 1] = 2 * np.arange(height)[:, None]
    return picture


def noise(seed: int, height: int = 200, width: int = 260) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("x", [100, 5], ids=["inside", "at-the-edge"])
def test_arcface_crop_is_insightfaces(x: float) -> None:
    picture, subject = noise(0), face(x, 90, 70)
    turned = subject._replace(
        points=subject.points + np.float32([[1, 3], [0, -4], [2, 0], [0, 2], [-3, 1]])
    )
    whole = norm_crop(picture, turned.points, 112)
    wide = ArcFaceInput(crop="arcface", width=112, mean=127.5, std=127.5)
    narrow = ArcFaceInput(crop="arcface", width=96, mean=127.5, std=128)
    np.testing.assert_array_equal(crop.arcface(picture, turned, wide), whole)
    # MobileFaceNet's 112 x 96: eight columns less on either side.
    np.testing.assert_array_equal(crop.arcface(picture, turned, narrow), whole[:, 8:104])


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        (crop.ARCFACE_TEMPLATE, [[1, 0, 0], [0, 1, 0]]),
        (
            [[120, 80], [180, 95], [145, 130], [110, 160], [165, 172]],
            [[0.5137437, 0.0993564, -30.6109379], [-0.0993564, 0.5137437, 20.7571613]],
        ),
        (
            [[31, 60], [52, 58], [43, 73], [35, 85], [50, 84]],
            [[1.6450572, -0.0822415, -7.4738678], [0.0822415, 1.6450572, -50.0139255]],
        ),
    ],
    ids=["template", "large-turned", "small"],
)
def test_transform_to_the_template_is_the_one_written_down(points: Any, expected: Any) -> None:
    """The matrices are those of insightface 2.1's ``estimate_norm``."""
    found = crop.similarity_transform(np.float32(points), crop.ARCFACE_TEMPLATE)
    np.testing.assert_allclose(found[:, :2], np.array(expected)[:, :2], atol=1e-6)
    np.testing.assert_allclose(found[:, 2], np.array(expected)[:, 2], atol=1e-4)


def test_similarity_transform_is_scikit_images() -> None:
    rng = np.random.default_rng(3)
    for count in (2, 5, 25) * 20:
        points, noise = rng.uniform(0, 100, (count, 2)), rng.normal(0, 2, (count, 2))
        a = rng.uniform(0.2, 5) * np.exp(1j * rng.uniform(-np.pi, np.pi))
        target = points @ np.array([[a.real, a.imag], [-a.imag, a.real]]) + [5, -7] + noise
        if hasattr(SimilarityTransform, "from_estimate"):  # since scikit-image 0.26
            expected = SimilarityTransform.from_estimate(points, target).params[:2]
        else:
            transform = SimilarityTransform()
            transform.estimate(points, target)
            expected = transform.params[:2]
        found = crop.similarity_transform(points, target)
        assert np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


def test_transform_to_the_template_is_insightfaces_to_the_last_bit() -> None:
    rng = np.random.default_rng(4)
    for _ in range(300):
        a = rng.uniform(0.2, 5) * np.exp(1j * rng.normal(0, 0.6))
        turn = np.array([[a.real, -a.imag], [a.imag, a.real]])
        points = crop.ARCFACE_TEMPLATE @ turn.T + rng.uniform(0, 900, 2)
        points = np.float32(points + rng.normal(0, 3, (5, 2)))
        found = crop.similarity_transform(points, crop.ARCFACE_TEMPLATE)
        np.testing.assert_array_equal(found, estimate_norm(points))


def test_five_points_in_one_give_the_crop_of_insightface() -> None:
    subject = face(90, 90, 70)._replace(points=np.full((5, 2), 31, np.float32))
    wide = ArcFaceInput(crop="arcface", width=112, mean=127.5, std=127.5)
    np.testing.assert_array_equal(
        crop.arcface(noise(0), subject, wide), norm_crop(noise(0), subject.points, 112)
    )


def test_an_aligned_face_is_only_scaled() -> None:
    narrow = ArcFaceInput(crop="arcface", width=96, mean=127.5, std=128)
    np.testing.assert_array_equal(
        crop.arcface(gradient(112, 112), None, narrow)[0, :2, 0], [16, 18]
    )
    assert crop.arcface(noise(1, 224, 224), None, narrow).shape == (112, 96, 3)


def expression_input(size: int, margin: float, colour: str = "rgb") -> ExpressionInput:
    return ExpressionInput(
        crop="expression", size=size, margin=margin, colour=colour, mean=0, std=1
    )


def box(left: float, top: float, right: float, bottom: float) -> Face:
    return Face(np.array([left, top, right, bottom], np.float32), np.zeros((5, 2), np.float32), 0.9)


def test_expression_crop_without_margin() -> None:
    # Columns 20 to 39 and rows 30 to 49, two by two: 2 (20 + 21) / 2 = 41, then + 4 each.
    cut = crop.expression(gradient(100, 120), box(20, 30, 40, 50), expression_input(10, 0))
    assert cut.shape == (10, 10, 3)
    assert cut[0, :, 0].tolist() == [41, 45, 49, 53, 57, 61, 65, 69, 73, 77]
    assert cut[:, 0, 1].tolist() == [61, 65, 69, 73, 77, 81, 85, 89, 93, 97]
    assert (cut[:, :, 2] == 7).all()


def test_expression_crop_averages_all_pixels_that_fall_together() -> None:
    # Stripes 0, 0, 0, 200 and one pixel out of four: the mean of all four, no sample of some.
    picture = np.zeros((40, 40, 3), np.uint8)
    picture[:, 3::4] = 200
    cut = crop.expression(picture, box(0, 0, 40, 40), expression_input(10, 0))
    assert np.unique(cut).tolist() == [50]


def test_expression_crop_with_margin_is_a_square_on_the_longer_side() -> None:
    # Box 10 wide, 20 high, centre (30, 40). Side 20 (1 + 2 x 0.25) = 30, so columns 15 to 44
    # and rows 25 to 54, three by three: the middle ones are 16, 19, ... and 26, 29, ...
    cut = crop.expression(gradient(100, 120), box(25, 30, 35, 50), expression_input(10, 0.25))
    assert cut[0, :, 0].tolist() == [32, 38, 44, 50, 56, 62, 68, 74, 80, 86]
    assert cut[:, 0, 1].tolist() == [52, 58, 64, 70, 76, 82, 88, 94, 100, 106]


def test_expression_crop_repeats_the_pictures_edge() -> None:
    # Box 0..20 square with margin 0.5: side 40, columns and rows -10 to 29 (centre 10).
    # Two by two: five pairs beyond the edge repeat column 0, then 2 (0 + 1) / 2 = 1, 5, 9, ...
    cut = crop.expression(gradient(100, 120), box(0, 0, 20, 20), expression_input(20, 0.5))
    ramp = [0] * 5 + [1 + 4 * i for i in range(15)]
    assert cut[0, :, 0].tolist() == ramp
    assert cut[:, 0, 1].tolist() == ramp


def test_expression_crop_repeats_the_far_edge() -> None:
    # Picture 60 wide, 50 high; box 40..60 x 30..50, side 40: columns 30 to 69, rows 20 to 59.
    cut = crop.expression(gradient(50, 60), box(40, 30, 60, 50), expression_input(20, 0.5))
    assert cut[0, :, 0].tolist() == [61 + 4 * i for i in range(15)] + [118] * 5
    assert cut[:, 0, 1].tolist() == [41 + 4 * i for i in range(15)] + [98] * 5


def test_expression_crop_in_grey_weighs_red_green_and_blue() -> None:
    # ITU-R BT.601: 0.299 R + 0.587 G + 0.114 B.
    picture = np.zeros((40, 40, 3), np.uint8)
    for colour, expected in (((200, 0, 0), 60), ((0, 200, 0), 117), ((0, 0, 200), 23)):
        picture[:] = colour
        cut = crop.expression(picture, box(10, 10, 30, 30), expression_input(8, 0, "grey"))
        assert cut.shape == (8, 8, 1)
        assert np.unique(cut).tolist() == [expected]


def test_expression_crop_of_an_aligned_face_is_the_whole_picture() -> None:
    cut = crop.expression(gradient(20, 20), None, expression_input(10, 0.5))
    assert cut[0, :, 0].tolist() == [1 + 4 * i for i in range(10)]


# ---- SyncNet's crop -------------------------------------------------------------------------

SYNC = SyncInput(crop="syncnet", size=224, scale=0.4, smoothing=13, padding=110)


def official_crops(frames: list[np.ndarray], boxes: np.ndarray) -> list[np.ndarray]:
    """Crop as syncnet_python's run_pipeline.py (crop_video) says, written down from its text."""
    s = signal.medfilt([max(b[3] - b[1], b[2] - b[0]) / 2 for b in boxes], kernel_size=13)
    y = signal.medfilt([(b[1] + b[3]) / 2 for b in boxes], kernel_size=13)
    x = signal.medfilt([(b[0] + b[2]) / 2 for b in boxes], kernel_size=13)
    crops = []
    for i, image in enumerate(frames):
        cs = 0.4
        bs = s[i]
        bsi = int(bs * (1 + 2 * cs))
        padded = np.pad(image, ((bsi, bsi), (bsi, bsi), (0, 0)), constant_values=110)
        my, mx = y[i] + bsi, x[i] + bsi
        part = padded[
            int(my - bs) : int(my + bs * (1 + 2 * cs)),
            int(mx - bs * (1 + cs)) : int(mx + bs * (1 + cs)),
        ]
        crops.append(cv2.resize(part, (224, 224)))
    return crops


def walk(length: int, seed: int) -> tuple[list[np.ndarray], list[Face]]:
    """Return frames of noise with a face that trembles, grows and walks off the picture."""
    generator = np.random.default_rng(seed)
    frames = [noise(seed * 1000 + i, 120, 160) for i in range(length)]
    x = 40 + 2.3 * np.arange(length) + generator.normal(0, 4, length)
    y = 50 + 1.7 * np.arange(length) % 90 + generator.normal(0, 4, length)
    width = 30 + 0.4 * np.arange(length) + generator.normal(0, 3, length)
    height = 33 + generator.normal(0, 6, length)
    boxes = [
        box(a - w / 2, b - h / 2, a + w / 2, b + h / 2)
        for a, b, w, h in zip(x, y, width, height, strict=True)
    ]
    return frames, boxes


def sync_crops(
    cropper: crop.SyncCropper, pieces: list[tuple[int, list[np.ndarray], list[Face]]]
) -> list[tuple[int, np.ndarray]]:
    out: list[tuple[int, np.ndarray]] = []
    for start, frames, faces in pieces:
        for i, (frame, found) in enumerate(zip(frames, faces, strict=True), start=start):
            out += cropper.push(i, frame, found)
    return [*out, *cropper.finish()]


def assert_official(out: list[tuple[int, np.ndarray]], piece: tuple[int, Any, Any]) -> None:
    start, frames, faces = piece
    expected = official_crops(frames, np.array([f.box for f in faces], np.float64))
    assert [index for index, _ in out] == list(range(start, start + len(frames)))
    for (_, ours), theirs in zip(out, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("length", [7, 12, 13, 14, 50])
def test_sync_crops_are_the_official_recipes_for_whole_tracks(length: int) -> None:
    piece = (0, *walk(length, seed=length))
    assert_official(sync_crops(crop.SyncCropper(SYNC), [piece]), piece)


def test_sync_crops_after_a_gap_are_those_of_a_track_of_its_own() -> None:
    first, second, third = (0, *walk(20, 1)), (21, *walk(15, 2)), (60, *walk(8, 3))
    out = sync_crops(crop.SyncCropper(SYNC), [first, second, third])
    assert_official(out[:20], first)
    assert_official(out[20:35], second)
    assert_official(out[35:], third)


def test_a_track_too_short_for_the_median_filter_has_no_crops() -> None:
    # Six boxes in a window of thirteen: seven zeros, so the median is zero.
    short, good = (0, *walk(6, 4)), (10, *walk(9, 5))
    assert sync_crops(crop.SyncCropper(SYNC), [short]) == []
    assert_official(sync_crops(crop.SyncCropper(SYNC), [short, good]), good)


def test_few_frames_wait_for_the_median_filter() -> None:
    cropper = crop.SyncCropper(SYNC)
    given_out = 0
    for i, (frame, found) in enumerate(zip(*walk(40, 6), strict=True)):
        given_out += len(list(cropper.push(i, frame, found)))
        assert i + 1 - given_out <= 6


# ---- SCRFD on real frames -------------------------------------------------------------------

COLUMNS = (0, 256, 512, 768, 1024)


def test_scrfd_finds_the_one_face_in_every_column_of_every_strip(
    samples: Path, weights_folder: Path
) -> None:
    detect = load_detector(network_card("scrfd-500m"), WeightsStore(weights_folder))
    clips = sorted((samples / "stccl-page" / "video_result").glob("*_source_*.mp4"))
    assert len(clips) == 8
    for path in clips:
        for frame in itertools.islice(video.frames(Clip(path)), 0, 31, 30):
            for left in COLUMNS:
                where = f"{path.name}, column at {left}"
                found = detect(np.ascontiguousarray(frame[:, left : left + 256]))
                assert len(found) == 1, where
                assert_plausible(found[0], where)


def assert_plausible(found: Face, where: str) -> None:
    """The face of a 256 x 256 portrait: in the middle, upright, eyes above nose above mouth."""
    left, top, right, bottom = found.box
    assert 64 < (left + right) / 2 < 192, where
    assert 64 < (top + bottom) / 2 < 192, where
    assert 60 < right - left < 256, where
    assert 60 < bottom - top < 256, where
    assert 0.5 < found.score <= 1, where
    eyes, nose, mouth = found.points[:2], found.points[2], found.points[3:]
    assert eyes[:, 1].max() < nose[1] < mouth[:, 1].min(), where
    assert eyes[0, 0] < eyes[1, 0], where
    assert mouth[0, 0] < mouth[1, 0], where
    assert (found.points > [left, top]).all(), where
    assert (found.points < [right, bottom]).all(), where


class NcnnAsOnnx:
    """Lets insightface's own SCRFD code run on the ncnn network: same outputs, its layout."""

    def __init__(self, folder: Path) -> None:
        self.net = ncnn.Net()
        self.net.opt.use_fp16_packed = False
        self.net.opt.use_fp16_storage = False
        self.net.opt.use_fp16_arithmetic = False
        assert self.net.load_param(str(folder / "scrfd_500m_kps-opt2.param")) == 0
        assert self.net.load_model(str(folder / "scrfd_500m_kps-opt2.bin")) == 0

    def get_inputs(self) -> list[Any]:
        return [SimpleNamespace(name="input.1", shape=[1, 3, "?", "?"])]

    def get_outputs(self) -> list[Any]:
        return [
            SimpleNamespace(name=f"{kind}_{stride}", shape=["n", width])
            for kind, width in (("score", 1), ("bbox", 4), ("kps", 10))
            for stride in (8, 16, 32)
        ]

    def run(self, names: list[str], feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        extractor = self.net.create_extractor()
        planes = np.ascontiguousarray(feed["input.1"][0])
        extractor.input("input.1", ncnn.Mat(planes))
        widths = {output.name: output.shape[1] for output in self.get_outputs()}
        return [
            # (anchors x width, rows, columns) to (rows x columns x anchors, width)
            np.array(extractor.extract(n)[1]).transpose(1, 2, 0).reshape(-1, widths[n])
            for n in names
        ]


@pytest.mark.parametrize("side", [320, 160])
def test_scrfd_gives_what_insightfaces_code_makes_of_the_same_network(
    side: int, samples: Path, weights_folder: Path
) -> None:
    detect = load_detector(network_card("scrfd-500m"), WeightsStore(weights_folder))
    reference = SCRFD(session=NcnnAsOnnx(weights_folder))
    reference.prepare(0, input_size=(side, side), det_thresh=0.5, nms_thresh=0.45)
    clip = Clip(samples / "stccl-page" / "video_result" / "M012_source_angry_029.mp4")
    strip = next(iter(video.frames(clip)))
    # A wider picture is padded below with less black than insightface uses, which the
    # network sees: boxes move by less than a pixel.
    wide = [(256, 512, 1.0)] if side == 320 else []
    for left, width, near in [(0, 256, 0.01), (256, 256, 0.01), *wide]:
        rgb = np.ascontiguousarray(strip[:, left : left + width])
        boxes, points = reference.detect(np.ascontiguousarray(rgb[:, :, ::-1]))
        (found,) = detect.many([rgb], side)
        assert len(found) == len(boxes) == width // 256
        for ours, five_numbers, five_points in zip(found, boxes, points, strict=True):
            np.testing.assert_allclose(ours.box, five_numbers[:4], atol=near)
            np.testing.assert_allclose(ours.points, five_points, atol=near)
            assert ours.score == pytest.approx(five_numbers[4], abs=0.02)


def test_scrfd_boxes_follow_the_picture(samples: Path, weights_folder: Path) -> None:
    # The frame is scaled to the network's size and boxes come back in its own pixels:
    # a picture twice as large, or with a black border, has the face where it must be.
    detect = load_detector(network_card("scrfd-500m"), WeightsStore(weights_folder))
    clip = Clip(samples / "stccl-page" / "video_result" / "W015_source_sad_028.mp4")
    picture = np.ascontiguousarray(next(iter(video.frames(clip)))[:, :256])
    (small,) = detect(picture)
    (large,) = detect(cv2.resize(picture, (512, 512), interpolation=cv2.INTER_CUBIC))
    np.testing.assert_allclose(large.box, small.box * 2, atol=12)
    np.testing.assert_allclose(large.points, small.points * 2, atol=8)
    (moved,) = detect(np.pad(picture, ((40, 0), (100, 60), (0, 0))))  # 416 x 296: another scale
    np.testing.assert_allclose(moved.box, small.box + np.float32([100, 40, 100, 40]), atol=12)
    np.testing.assert_allclose(moved.points, small.points + np.float32([100, 40]), atol=8)


def test_scrfd_finds_nothing_in_a_black_picture(weights_folder: Path) -> None:
    detect = load_detector(network_card("scrfd-500m"), WeightsStore(weights_folder))
    assert detect(np.zeros((256, 256, 3), np.uint8)) == []


def test_of_overlapping_boxes_only_the_best_is_kept() -> None:
    # Squares of side 40 shifted by 10: IoU 30/50 = 0.6; by 20: 20/60 = 0.333.
    best, worse, apart = face(50, score=0.9), face(60, score=0.8), face(70, score=0.7)
    boxes = np.stack([f.box for f in (worse, apart, best)])
    scores = np.array([0.8, 0.7, 0.9])
    assert suppress(boxes, scores, 0.45).tolist() == [2, 1]
    assert suppress(boxes, scores, 0.65).tolist() == [2, 0, 1]
    assert len(suppress(boxes[:0], scores[:0], 0.45)) == 0


# ---- detectors that insightface loads -------------------------------------------------------

Pin = Callable[[bytes], NetworkCard]


def scrfd_like(seed: int, *, points: bool = True) -> bytes:
    """Return an ONNX detector with SCRFD's inputs and outputs and one layer per stride.

    Outputs as in insightface/model_zoo/scrfd.py: scores, then boxes, then points, each for
    the strides 8, 16 and 32, rows in the order of row, column, anchor (two anchors).
    """
    generator = np.random.default_rng(seed)
    nodes, constants, by_kind = [], [], {"score": [], "bbox": [], "kps": []}
    widths = {"score": 1, "bbox": 4, "kps": 10} if points else {"score": 1, "bbox": 4}
    for stride in (8, 16, 32):
        for kind, width in widths.items():
            name = f"{kind}_{stride}"
            scale = {"score": 60, "bbox": 5, "kps": 10}[kind] / stride
            kernel = generator.normal(0, scale / np.sqrt(3), (2 * width, 3, stride, stride))
            bias = np.full(2 * width, {"score": -1.5, "bbox": 2.0, "kps": 0.0}[kind])
            constants += [
                numpy_helper.from_array(kernel.astype(np.float32), f"{name}_w"),
                numpy_helper.from_array(bias.astype(np.float32), f"{name}_b"),
                numpy_helper.from_array(np.array([-1, width], np.int64), f"{name}_shape"),
            ]
            nodes += [
                helper.make_node(
                    "Conv",
                    ["input.1", f"{name}_w", f"{name}_b"],
                    [f"{name}_conv"],
                    kernel_shape=[stride, stride],
                    strides=[stride, stride],
                ),
                helper.make_node(
                    "Transpose", [f"{name}_conv"], [f"{name}_rows"], perm=[0, 2, 3, 1]
                ),
                helper.make_node("Reshape", [f"{name}_rows", f"{name}_shape"], [f"{name}_flat"]),
                # Scores lie between 0 and 1, distances are not negative, points go anywhere.
                helper.make_node(
                    {"score": "Sigmoid", "bbox": "Relu", "kps": "Identity"}[kind],
                    [f"{name}_flat"],
                    [name],
                ),
            ]
            by_kind[kind].append(
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"n_{stride}", width])
            )
    graph = helper.make_graph(
        nodes,
        "scrfd_like",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, [1, 3, "height", "width"])],
        [*by_kind["score"], *by_kind["bbox"], *by_kind["kps"]],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    content: bytes = model.SerializeToString()
    return content


CARD = """
title = "A detector with random weights"
role = "detector"
architecture = "scrfd-onnx"
source = "made by a test"
licence = "none"
citation = "none"

[input]
crop = "frame"
long_side = 192
mean = 127.5
std = 128.0

[detector]
threshold = 0.6
overlap = 0.3

[[files]]
name = "detector.onnx"
url = "https://example.org/detector.onnx"
"""


@pytest.fixture
def pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Pin:
    """Write a detector and a user's card that pins it."""
    folder = tmp_path / "own" / "metrics" / "networks"
    folder.mkdir(parents=True)
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "own"))

    def write(content: bytes) -> NetworkCard:
        text = f'{CARD}sha256 = "{hashlib.sha256(content).hexdigest()}"\n'
        (folder / "random-detector.toml").write_text(text, encoding="utf-8")
        (tmp_path / "weights" / "detector.onnx").write_bytes(content)
        cards._paths.cache_clear()
        return network_card("random-detector")

    return write


@pytest.mark.parametrize("shape", [(192, 192), (256, 256), (150, 210), (300, 200)])
def test_an_insightface_detector_gives_what_insightface_gives(
    shape: tuple[int, int], pin: Pin, tmp_path: Path
) -> None:
    detect = load_detector(pin(scrfd_like(7)), WeightsStore(tmp_path / "weights"))
    rgb = noise(8, *shape)
    reference = model_zoo.get_model(
        str(tmp_path / "weights" / "detector.onnx"), providers=["CPUExecutionProvider"]
    )
    reference.prepare(ctx_id=-1, input_size=(192, 192), det_thresh=0.6, nms_thresh=0.3)
    boxes, points = reference.detect(np.ascontiguousarray(rgb[:, :, ::-1]))
    assert len(boxes) > 3
    found = detect(rgb)
    assert len(found) == len(boxes)
    for ours, five_numbers, five_points in zip(found, boxes, points, strict=True):
        np.testing.assert_array_equal(ours.box, five_numbers[:4])
        np.testing.assert_array_equal(ours.points, five_points)
        assert ours.score == five_numbers[4]
        assert ours.box.dtype == ours.points.dtype == np.float32
    assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
    # And the order of colours matters: the same picture the other way round gives others.
    turned = detect(np.ascontiguousarray(rgb[:, :, ::-1]))
    assert [f.score for f in turned] != [f.score for f in found]


@pytest.mark.parametrize(
    ("shape", "found", "side"),
    [
        ((256, 256), [(150.0, 180.0)], 160),  # 256 * 112 / 180 = 159.3
        ((256, 256), [(150.0, 181.0), (30.0, 20.0)], 160),  # by the largest
        ((256, 256), [(112.0, 90.0)], 256),
        ((250, 200), [(112.0, 90.0)], 256),  # 250: sizes are multiples of 32
        ((256, 256), [(50.0, 40.0)], 576),  # a small face: 573.4
        ((256, 256), [(20.0, 20.0)], 640),  # not above the card's limit
        ((1080, 1920), [(500.0, 600.0)], 384),  # 1920 * 112 / 600 = 358.4
        ((1080, 1920), [], 640),  # no face: as without the rule
    ],
)
def test_a_clips_size_gives_its_largest_face_the_cards_pixels(
    shape: tuple[int, int], found: list[tuple[float, float]], side: int
) -> None:
    searched = []

    def many(frames: Sequence[np.ndarray], at: int) -> list[list[Face]]:
        searched.append(at)
        boxes = [np.float32([10, 20, 10 + w, 20 + h]) for w, h in found]
        return [[Face(box, np.zeros((5, 2), np.float32), 0.9) for box in boxes]] * len(frames)

    size = FrameInput(crop="frame", long_side=640, face=112, mean=127.5, std=128)
    first = np.zeros((*shape, 3), np.uint8)
    assert Detector(many, size).clip_side(first) == side
    assert searched == [min(640, -(-max(shape) // 32) * 32)]  # never larger than the clip itself
    bare = size.model_copy(update={"face": None})
    assert Detector(many, bare).clip_side(first) == 640
    assert len(searched) == 1


def test_a_detectors_size_is_in_its_settings_where_it_goes_by_the_face() -> None:
    always, auto = (network_card(n).settings() for n in ("scrfd-10g", "scrfd-10g-auto"))
    assert auto["input"] == {**always["input"], "face": 112}
    assert "face" not in always["input"]  # signatures of before hold


def test_an_insightface_detector_may_find_nothing(pin: Pin, tmp_path: Path) -> None:
    detect = load_detector(pin(scrfd_like(7)), WeightsStore(tmp_path / "weights"))
    # The middle of the range is zero after normalising: every score is sigmoid(-1.5) = 0.18.
    assert detect(np.full((192, 192, 3), 127, np.uint8)) == []


def not_a_detector() -> bytes:
    shape = [1, 3, 112, 112]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "identity",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    content: bytes = model.SerializeToString()
    return content


@pytest.mark.parametrize(
    "content",
    [not_a_detector(), b"<!DOCTYPE html><html>404</html>\n", b"", scrfd_like(7, points=False)],
    ids=["recognition", "text", "empty", "detector-without-points"],
)
def test_a_file_that_is_no_detector_with_five_points_is_refused_in_one_line(
    content: bytes, pin: Pin, tmp_path: Path
) -> None:
    card = pin(content)
    with pytest.raises(WeightsError) as caught:
        load_detector(card, WeightsStore(tmp_path / "weights"))(noise(9, 192, 192))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_an_ncnn_file_of_something_else_is_refused(pin: Pin, tmp_path: Path) -> None:
    card = pin(b"no ncnn network\n")
    twice = card.model_copy(update={"architecture": "scrfd-ncnn", "files": card.files * 2})
    with pytest.raises(WeightsError, match="random-detector"):
        load_detector(twice, WeightsStore(tmp_path / "weights"))
