"""NED's geometry: the template, the mask and what is steady, on cases worked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from spfem_bench.faces import ned, steady
from spfem_bench.faces.track import Face, FaceTrack

WFLW_OF_IBUG = {0: 0, 8: 16, 16: 32, 17: 33, 21: 37, 22: 42, 26: 46, 27: 51, 30: 54, 31: 55, 35: 59}
WFLW_OF_IBUG |= {36: 60, 39: 64, 42: 68, 45: 72, 48: 76, 54: 82, 60: 88, 64: 92, 67: 95}
"""Corners of jaw, brows, nose, eyes and mouth: by the figures of both annotations."""


def face_points(scale: float = 1.0) -> ned.FacePoints:
    """98 points of which 68 are the template; the others lie between their neighbours."""
    points = np.full((98, 2), np.nan)
    points[list(ned.IBUG)] = ned.NED_TEMPLATE
    points[1:32:2] = (points[0:31:2] + points[2:33:2]) / 2
    points[38:42], points[47:51] = points[33:37], points[43:47]
    points[[*range(38, 42), *range(47, 51)], 1] += 3
    for lid, beside in ((62, (61, 63)), (66, (65, 67)), (70, (69, 71)), (74, (73, 75))):
        points[lid] = points[list(beside)].mean(axis=0)
    points[96:] = (95, 110), (155, 110)
    assert not np.isnan(points).any()
    return points * scale


def test_the_68_points_are_those_of_the_figures() -> None:
    assert len(set(ned.IBUG)) == 68
    assert {k: ned.IBUG[k] for k in WFLW_OF_IBUG} == WFLW_OF_IBUG


def test_a_turned_and_enlarged_face_comes_back_to_the_template() -> None:
    turned = face_points() @ np.array([[0, 2], [-2, 0]]) + (700, -30)  # a quarter turn, twice
    transform = ned.align_transform(turned)
    back = turned[list(ned.IBUG)] @ transform[:, :2].T + transform[:, 2]
    assert np.allclose(back, ned.NED_TEMPLATE, atol=1e-9)
    assert np.allclose(np.hypot(*transform[:, 0]), 0.5)


def test_the_soft_erosion_keeps_what_the_cone_covers_to_six_tenths() -> None:
    """Against the sum, pixel by pixel, of the distances that the kernel is made of."""
    mask = ned.face_mask(face_points())
    edge = np.argwhere(mask != ndimage.binary_erosion(mask, iterations=2))
    plain = ned._outline(face_points()).astype(np.float32)
    assert len(edge) > 200
    # A long straight edge: columns below 100 are face. The cone's part beyond x is summed here.
    steps = np.arange(-10, 11)
    far = np.sqrt(200.0)
    cone = np.array([[far - np.hypot(x, y) for x in steps] for y in steps]) / sum(
        far - np.hypot(x, y) for x in steps for y in steps
    )
    covered = [cone[:, steps < 100 - x].sum() for x in range(90, 110)]
    kept = 90 + sum(c >= 0.6 for c in covered)
    half = np.zeros((64, 200), np.float32)
    half[:, :100] = 1
    soft = ndimage.correlate(half, ned._cone(), mode="nearest")[32]
    assert int((soft >= ned.KEPT).sum()) == kept
    rows, columns = np.nonzero(mask)
    assert columns.min() - plain[:, 0].min() == pytest.approx(100 - kept, abs=1.5)
    assert rows.max() < plain[:, 1].max()


@pytest.mark.parametrize("angle", [0, 20, -35])
def test_a_mask_is_one_part_without_holes_and_has_the_whole_face(angle: float) -> None:
    turn = np.deg2rad(angle)
    spin = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = (face_points() - 128) @ spin.T + 128
    mask = ned.face_mask(points)
    assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
    assert np.array_equal(ndimage.binary_fill_holes(mask), mask.astype(bool))
    inner = np.round(points[[*range(51, 96)]]).astype(int)
    assert mask[inner[:, 1], inner[:, 0]].all()
    assert not mask[0].any() and not mask[-1].any()


def test_only_the_largest_part_is_kept() -> None:
    mask = np.zeros((20, 20), np.uint8)
    mask[2:5, 2:5], mask[8:18, 8:18] = 1, 1
    kept = ned.largest_part(mask)
    assert kept.sum() == 100 and not kept[:6, :6].any()
    assert not ned.largest_part(np.zeros((5, 5), np.uint8)).any()


def test_all_outside_the_mask_is_black_and_the_inside_is_the_picture() -> None:
    picture = np.full((256, 256, 3), (180, 90, 40), np.uint8)
    face, mask = ned.aligned_face(picture, face_points(), ned.face_mask(face_points()))
    assert mask is not None and not face[mask == 0].any()
    inner = ndimage.binary_erosion(mask, iterations=4)  # Lanczos-4 reaches four pixels
    assert (face[inner] == (180, 90, 40)).all()
    bare, none = ned.aligned_face(picture, face_points(), None)
    assert none is None and (bare[8:-8, 8:-8] == (180, 90, 40)).all()


def test_a_picture_is_as_high_as_the_box_and_its_margin() -> None:
    place = steady.places(np.array([[100.0, 50.0, 220.0, 236.0]] * 7))[3]
    assert place == (160 - 128, 143 - 128, 256)
    corners = np.array([[0.0, 0.0], [255.0, 255.0]])
    wide = steady.Place(10, 20, 512)  # every pixel is two by two of the frame's
    assert np.allclose(wide.to_frame(corners), [[10.5, 20.5], [520.5, 530.5]])
    assert np.allclose(wide.to_picture(wide.to_frame(corners)), corners)


def test_one_wrong_box_does_not_move_the_picture() -> None:
    boxes = np.array([[100.0, 50.0, 220.0, 236.0]] * 60)
    boxes[20] = (0, 0, 400, 400)
    assert len(set(steady.places(boxes))) == 1


def test_what_lies_beyond_the_frame_is_black() -> None:
    frame = np.full((100, 200, 3), 200, np.uint8)
    picture = steady.cut_picture(frame, steady.Place(-28.0, 0.0, 256.0))
    assert not picture[:, :28].any() and not picture[100:].any()
    assert (picture[:100, 28:228] == 200).all()


def test_smoothing_keeps_even_acceleration_and_fills_gaps() -> None:
    time = np.arange(40.0)[:, None, None]
    points = np.zeros((40, 98, 2)) + 0.02 * time**2 - time
    assert np.allclose(steady.smoothed(points, [True] * 40), points)
    noise = np.random.default_rng(0).normal(0, 1, points.shape)
    rough = steady.smoothed(points + noise, [True] * 40) - points
    assert rough.std() < 0.75
    still = np.zeros((40, 98, 2))
    still[10:15] = 999  # not known
    assert not steady.smoothed(still, [not 10 <= k < 15 for k in range(40)]).any()


def test_frames_without_a_face_have_the_nearest_ones_box() -> None:
    def at(x: float) -> Face:
        return Face(np.float32([x, 0, x + 10, 10]), np.zeros((5, 2), np.float32), 0.9)

    track = FaceTrack([None, at(1), None, None, at(5), None], [False] * 6)
    assert steady.filled_boxes(track)[:, 0].tolist() == [1, 1, 1, 5, 5, 5]
