"""Metrics on landmarks, by cases worked by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from spfem_bench.definitions.clips import Clip, Edit
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.errors import ClipError
from spfem_bench.faces import landmarks as geometry
from spfem_bench.features.features import Features
from spfem_bench.media.write import write_clip
from spfem_bench.statistics.base import kind_of
from spfem_bench.statistics.blinks import blinks
from spfem_bench.statistics.landmarks import curves_in_step
from spfem_bench.statistics.sound_correlation import loudness

Floats = npt.NDArray[np.float64]
CLIP = Clip(Path("made.mp4"))

# A face of 98 points with the outer eye corners 100 pixels apart, and what the metrics look at.
BASE = np.tile([150.0, 120.0], (98, 1))
BASE[[60, 72]] = [[100, 100], [200, 100]]
BASE[[64, 68]] = [[130, 100], [170, 100]]
BASE[[61, 62, 63, 69, 70, 71]] = [[115, 95]] * 3 + [[185, 95]] * 3
BASE[[67, 66, 65, 75, 74, 73]] = [[115, 105]] * 3 + [[185, 105]] * 3
BASE[[51, 54]] = [[150, 100], [150, 130]]
BASE[76:96] = [150, 160]
BASE[[88, 92]] = [[130, 160], [170, 160]]


def face(opening: Floats, turn: Floats | None = None) -> Floats:
    """Faces whose inner lips are so many pixels apart, and whose nose tip is so far aside."""
    points = np.tile(BASE, (len(opening), 1, 1))
    for high, low in ((89, 95), (90, 94), (91, 93)):
        points[:, high, 1] -= opening / 2
        points[:, low, 1] += opening / 2
    if turn is not None:
        points[:, 54, 0] += turn
    return points


def features(
    points: Floats, frames: Any = None, contrast: tuple[float, float] = (20, 20), size: int = 256
) -> Features:
    n = len(points)
    outputs = {
        "points": points.reshape(n, -1).astype(np.float32),
        "frame": np.full((n, 2), size, np.float32),
        "score": np.ones((n, 1), np.float32),
        "contrast": np.tile(np.array(contrast, np.float32), (n, 1)),
    }
    at = np.arange(n) if frames is None else np.asarray(frames)
    return Features(outputs, at.astype(np.int64), int(at.max()) + 1)


def part(name: str, output: Features, source: Features | None = None) -> Any:
    card = metric_card(name)
    given = {"output": [output]} if source is None else {"output": [output], "source": [source]}
    return kind_of(card).part(card, CLIP, given)


def value(name: str, output: Features, source: Features | None = None) -> float:
    return kind_of(metric_card(name)).value(part(name, output, source))


RNG = np.random.default_rng(0)
SPEECH = 5 + 4 * np.sin(np.arange(80) * 0.7) + RNG.uniform(0, 3, 80)


def turned(points: Floats, angle: float, scale: float, shift: tuple[float, float]) -> Floats:
    """Faces turned in the picture, larger, and elsewhere."""
    matrix = scale * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return np.asarray((points - 150) @ matrix + 150 + np.asarray(shift))


# --- geometry ----------------------------------------------------------------------


@pytest.mark.parametrize("angle", [0.0, 0.3, -0.5])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_an_opening_does_not_depend_on_place_size_and_tilt(angle: float, scale: float) -> None:
    points = turned(face(np.array([0.0, 10.0, -2.0])), angle, scale, (7, -3))
    assert geometry.opening(points) == pytest.approx([0, 0.1, -0.02])
    assert geometry.width(points) == pytest.approx([0.4] * 3)
    assert geometry.roundness(points) == pytest.approx([0, 0.25, -0.05])
    # Eyes: 10 high and 30 wide; the tilt is the angle, downwards to the right.
    assert geometry.eye_opening(points) == pytest.approx([1 / 3] * 3)
    assert geometry.pose(points)[1] == pytest.approx([0, 0.3, angle])


def test_schemes_name_points_that_exist_and_each_upper_lip_is_above() -> None:
    for count, scheme in geometry.SCHEMES.items():
        named = [*scheme.eyes, *scheme.inner_eyes, *scheme.corners, *scheme.mouth, scheme.nose]
        named += [*np.ravel(scheme.opening).tolist(), scheme.nose_root]
        named += [point for eye in scheme.lids for pair in eye for point in pair]
        assert max(named) < count and min(named) >= 0
        assert set(np.ravel(scheme.opening)) | set(scheme.corners) <= set(scheme.mouth)


def test_the_scheme_of_puppets_follows_their_table() -> None:
    from spfem_bench.puppets.face import LANDMARKS
    from spfem_bench.puppets.world import World

    scheme = geometry.SCHEMES[25]
    assert [LANDMARKS[i] for i in scheme.eyes] == ["eye_right_outer", "eye_left_outer"]
    assert [LANDMARKS[i] for i in scheme.opening[0]] == ["mouth_inner_top", "mouth_inner_bottom"]
    assert {LANDMARKS[i] for i in scheme.mouth} == {n for n in LANDMARKS if n[:5] == "mouth"}
    assert [LANDMARKS[i] for i in (scheme.nose_root, scheme.nose)] == ["nose_bridge", "nose_tip"]
    points = World().take("P001", "neutral", "029").landmarks_at([0, 5])
    assert (points[:, scheme.eyes[0], 0] < points[:, scheme.eyes[1], 0]).all()


def test_contrast_is_of_the_boxes_around_mouth_and_eyes() -> None:
    picture = np.full((256, 256, 3), 100, np.uint8)
    points = face(np.array([10.0]))
    assert geometry.contrast(points, picture) == pytest.approx([0, 0])
    picture[150:172:2] = 140  # stripes across the mouth
    assert geometry.contrast(points, picture) == pytest.approx([40, 0])
    picture[150:172] = 100
    picture[154:156] = 255  # the edge of something: two of the box's thirteen rows
    assert geometry.contrast(points, picture) == pytest.approx([0, 0])


# --- correlation -------------------------------------------------------------------


@pytest.mark.parametrize("lag", [-6, -3, 0, 2, 6])
def test_lip_corr_is_pearsons_r_at_the_lag_of_the_motion(lag: int) -> None:
    """Frame t of the output shows frame t + lag of the source, with noise in its mouth."""
    turn = np.cumsum(RNG.normal(0, 0.5, 80))
    source = face(SPEECH, turn)
    rows = np.arange(max(0, -lag), min(80, 80 - lag))
    own = 0.6 * SPEECH[rows + lag] + RNG.normal(0, 1, len(rows))
    output = features(face(own, turn[rows + lag]), frames=rows)
    found = part("lip-corr", output, features(source))
    assert (found.lag, found.n_frames) == (lag, len(rows))
    assert found.r[0] == pytest.approx(np.corrcoef(own, SPEECH[rows + lag])[0, 1], abs=1e-5)
    assert found.spread_source[0] == pytest.approx(SPEECH[rows + lag].std() / 100, rel=1e-4)
    curves = curves_in_step(output, features(source))
    assert curves.lag == lag and curves.frames.tolist() == rows.tolist()
    assert curves.output == pytest.approx(own / 100, abs=1e-6)
    assert curves.source == pytest.approx(SPEECH[rows + lag] / 100, abs=1e-6)


def test_a_mouth_that_hardly_moves_scores_nothing_though_it_follows() -> None:
    source = features(face(SPEECH))
    assert value("lip-corr", features(face(5 + 0.34 * SPEECH)), source) == pytest.approx(1)
    assert value("lip-corr", features(face(5 + 0.32 * SPEECH)), source) == 0
    assert value("lip-corr", features(face(np.full(80, 5.0))), source) == 0
    kind = kind_of(metric_card("lip-corr"))
    parts = [part("lip-corr", features(face(5 + s * SPEECH)), source) for s in (0.1, 1.0)]
    assert kind.note([parts], same_clips=False) == "1 of 2 outputs hardly move: r is 0"


def test_width_and_roundness_are_followed_too() -> None:
    def wide(by: Floats) -> Floats:
        points = face(np.full(80, 20.0))
        points += 20 * np.sin(np.arange(80) / 6)[:, None, None]  # the head keeps both in step
        points[:, 88, 0] -= by / 2
        points[:, 92, 0] += by / 2
        return points

    other = RNG.normal(0, 3, 80)
    a, b = features(wide(SPEECH)), features(wide(0.5 * SPEECH + other))
    r = np.corrcoef(SPEECH, 0.5 * SPEECH + other)[0, 1]
    assert value("lip-width-corr", b, a) == pytest.approx(r, abs=1e-4)
    round_r = np.corrcoef(1 / (40 + SPEECH), 1 / (40 + 0.5 * SPEECH + other))[0, 1]
    assert value("lip-round-corr", b, a) == pytest.approx(round_r, abs=1e-4)


def test_the_pose_is_the_mean_of_what_the_source_moves() -> None:
    """The source turns and does not nod or tilt."""
    source = features(face(SPEECH, 6 * np.sin(np.arange(80) / 5)))
    own = 6 * np.sin(np.arange(80) / 5) + RNG.normal(0, 2, 80)
    found = part("pose-corr", features(face(SPEECH, own)), source)
    assert len(found.r) == 1
    r = np.corrcoef(own, 6 * np.sin(np.arange(80) / 5))[0, 1]
    assert found.r[0] == pytest.approx(r, abs=1e-4)


@pytest.mark.parametrize("metric", ["lip-corr", "lip-dyn"])
def test_a_source_that_does_not_speak_is_refused(metric: str) -> None:
    with pytest.raises(ClipError, match="hardly changes"):
        value(metric, features(face(SPEECH)), features(face(np.full(80, 3.0))))


# --- distances and range -----------------------------------------------------------


def test_distances_are_means_over_points_after_means_are_shifted() -> None:
    """Ten of the twenty points of the mouth lie 4 pixels lower: each is 2 from its mean's place."""
    points = face(np.full(40, 6.0))
    other = points.copy()
    other[:, 76:86, 1] += 4
    moved = turned(other, 0.2, 0.5, (30, 20))
    assert value("m-lmd", features(moved), features(points)) == pytest.approx(2, abs=1e-4)
    assert value("m-lmd-px", features(other), features(points)) == pytest.approx(2, abs=1e-4)
    # The same in frames twice as high is half as many pixels of 256.
    large = (features(other, size=512), features(points, size=512))
    assert value("m-lmd-px", *large) == pytest.approx(1, abs=1e-4)
    # Of 98 points ten are moved: (10 (4 - 40/98) + 88 (40/98)) / 98.
    expected = (10 * (4 - 40 / 98) + 88 * 40 / 98) / 98
    assert value("f-lmd", features(other), features(points)) == pytest.approx(expected, abs=1e-4)
    assert value("f-lmd-px", features(other), features(points)) == pytest.approx(expected, abs=1e-4)


def test_a_frozen_mouth_beats_one_that_speaks_at_the_wrong_time() -> None:
    """Why tables say so: the mean of a curve is nearer to it than the curve at another time."""
    source, rng = features(face(SPEECH)), np.random.default_rng(1)
    frozen = features(face(np.full(80, SPEECH.mean())))
    shuffled = features(face(rng.permutation(SPEECH)))
    assert value("m-lmd", frozen, source) < value("m-lmd", shuffled, source)
    kind = kind_of(metric_card("m-lmd"))
    assert "frozen mouth" in kind.note([[part("m-lmd", frozen, source)]], same_clips=False)
    assert value("lip-corr", frozen, source) == 0


@pytest.mark.parametrize(("gain", "doublings"), [(1, 0), (0.5, 1), (4, 2), (0.25, 2)])
def test_lip_dyn_counts_halvings_and_doublings(gain: float, doublings: float) -> None:
    output, source = features(face(3 + gain * SPEECH)), features(face(SPEECH))
    assert value("lip-dyn", output, source) == pytest.approx(doublings, abs=1e-4)
    note = kind_of(metric_card("lip-dyn")).note(
        [[part("lip-dyn", output, source)]], same_clips=False
    )
    assert f"{gain:.2f} times" in note


# --- bad input ---------------------------------------------------------------------


def refusal(given: Features) -> str:
    with pytest.raises(ClipError) as caught:
        value("jitter", given)
    return caught.value.problem


def test_what_cannot_be_right_is_left_out_and_counted() -> None:
    points = face(SPEECH)
    points[:10] += 150  # beyond a frame of 256 pixels
    points[10:17, 54, 0] += 50  # the nose half an eye distance aside
    given = features(points)
    given.outputs["contrast"][17:20] = [1, 20]
    found = part("lip-corr", given, features(face(SPEECH)))
    assert (found.n_frames, found.n_outside, found.n_turned, found.n_covered) == (60, 10, 7, 3)
    assert found.r[0] == pytest.approx(1)


@pytest.mark.parametrize(
    ("points", "contrast", "why"),
    [
        (face(SPEECH) - [0, 170], (20, 20), "80 with landmarks beyond the picture"),
        (face(SPEECH, np.full(80, 60.0)), (20, 20), "80 with a head turned away"),
        (face(SPEECH), (1, 20), "80 with a covered mouth"),
        (face(SPEECH[:20]), (20, 20), "usable in 20 of 20 frames"),
    ],
    ids=["half a face", "profile", "covered", "short"],
)
def test_bad_clips_are_refused_and_never_scored_as_still(
    points: Floats, contrast: tuple[float, float], why: str
) -> None:
    assert why in refusal(features(points, contrast=contrast))


def test_landmarks_of_an_unknown_scheme_are_refused() -> None:
    assert "no scheme of 30 landmarks" in refusal(features(np.ones((40, 30, 2))))


# --- single clips ------------------------------------------------------------------


def test_jitter_is_the_second_difference_in_percent_of_the_eye_distance() -> None:
    """A face that jumps one pixel to and fro: |1 - 2 x 0 + 1| = 2 pixels of 100."""
    steady = face(SPEECH) + np.arange(80)[:, None, None] * [0.5, 0.2]
    assert value("jitter", features(steady)) == pytest.approx(0, abs=1e-3)
    restless = face(SPEECH)
    restless[::2, :, 0] += 1
    assert value("jitter", features(restless)) == pytest.approx(2, abs=1e-3)
    gaps = np.delete(np.arange(120), np.s_[::3])  # no three frames in a row
    assert "no three frames in a row" in refusal(features(restless, frames=gaps))


def test_blinks_are_short_runs_of_closed_eyes() -> None:
    opening = np.full(100, 0.3)
    opening[10:13] = 0.1  # one
    opening[30] = 0.17  # another: below 0.6 of the median
    opening[50:70] = 0.05  # asleep
    opening[80] = 0.2  # not closed
    opening[90:92] = 0.1  # two, since frames between them are missing
    frames = np.arange(100)
    assert blinks(opening, frames, 0.6, 12) == 3
    frames[91:] += 5
    assert blinks(opening, frames, 0.6, 12) == 4


def test_blink_rate_is_the_difference_a_minute() -> None:
    closed = face(SPEECH)
    for lids in geometry.SCHEMES[98].lids:
        for high, low in lids:
            closed[[20, 21, 50], high, 1] = closed[[20, 21, 50], low, 1]
    # Two blinks in 80 frames at 25 a second.
    found = value("blink-rate", features(closed), features(face(SPEECH)))
    assert found == pytest.approx(2 / (80 / 25 / 60))


def test_loudness_is_in_decibels_of_each_frame() -> None:
    """A tone of amplitude 1000 in frame 2 of 5: 20 log10(1000 / sqrt 2), else 40 dB less."""
    samples = np.zeros(5 * 640 + 100, np.int16)
    samples[2 * 640 : 3 * 640] = 1000 * np.tile([1, 0, -1, 0], 160)
    loudest = 20 * np.log10(1000) - 10 * np.log10(2)
    assert loudness(samples, 40, 1) == pytest.approx(
        [loudest - 40] * 2 + [loudest] + [loudest - 40] * 2
    )
    spread = loudness(samples, 40, 3)
    third = loudest - 10 * np.log10(3)
    assert spread == pytest.approx([third - 40, third, third, third, third - 40])


def test_a_mouth_that_opens_with_its_sound_follows_it_until_it_is_shifted(tmp_path: Path) -> None:
    """A tone whose level goes up and down, and lips that are as far apart as it is loud."""
    level = -20 + 15 * np.sin(np.arange(80) * 0.5)
    tone = np.sin(np.arange(80 * 640) * 2 * np.pi * 300 / 16000)
    gain = np.repeat(10 ** (level / 20), 640)
    path = tmp_path / "tone.mp4"
    pictures = [np.zeros((64, 64, 3), np.uint8)] * 80
    write_clip(path, pictures, (32767 * gain * tone).astype(np.int16))
    card, given = metric_card("av-loudness"), {"output": [features(face(40 + level))]}
    kind = kind_of(card)
    found = {
        shift: kind.part(
            card, Clip(path, edit=Edit("shifted-audio", shift) if shift else None), given
        )
        for shift in (0, 4)
    }
    assert found[0].r > 0.97 and found[0].best == 0 and found[0].n_frames == 80
    assert found[4].best == -4 and found[4].best_r > 0.97
    assert found[4].r == pytest.approx(np.cos(0.5 * 4), abs=0.1)
