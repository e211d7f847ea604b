"""Picture arithmetic in whole numbers, against fractions worked out pixel by pixel."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from spfem_bench.faces import exact


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (9, 12, 3), dtype=np.uint8)


def rounded(value: Fraction) -> int:
    return floor(value + Fraction(1, 2))


def covered(length: int, size: int) -> list[dict[int, Fraction]]:
    """Which input pixels each output pixel covers, by how much of itself."""
    step, rows = Fraction(length, size), []
    for out in range(size):
        low, high = out * step, (out + 1) * step
        parts = {i: min(high, i + 1) - max(low, i) for i in range(length)}
        rows.append({i: part / step for i, part in parts.items() if part > 0})
    return rows


def between(length: int, size: int) -> list[dict[int, Fraction]]:
    """Which two input pixels lie beside each output pixel's centre, edges repeated."""
    rows = []
    for out in range(size):
        at = (out + Fraction(1, 2)) * Fraction(length, size) - Fraction(1, 2)
        low, share = floor(at), at - floor(at)
        row: dict[int, Fraction] = {}
        for index, part in ((low, 1 - share), (low + 1, share)):
            index = min(max(index, 0), length - 1)
            row[index] = row.get(index, Fraction(0)) + part
        rows.append(row)
    return rows


@pytest.mark.parametrize(("resized", "weights"), [(exact.shrink, covered), (exact.resize, between)])
@pytest.mark.parametrize("size", [1, 3, 5, 9, 12, 17])
def test_resizing_is_the_rounded_fraction(picture, resized, weights, size) -> None:  # type: ignore[no-untyped-def]
    got = resized(picture, size)
    assert got.shape == (size, size, 3) and got.dtype == np.uint8
    for y, rows in enumerate(weights(9, size)):
        for x, columns in enumerate(weights(12, size)):
            for channel in range(3):
                mean = sum(
                    a * b * int(picture[i, j, channel])
                    for i, a in rows.items()
                    for j, b in columns.items()
                )
                assert got[y, x, channel] == rounded(Fraction(mean))
    one = resized(picture[:, :, 1], size)
    np.testing.assert_array_equal(one, got[:, :, 1])


def test_halves_are_rounded_up() -> None:
    assert exact.shrink(np.uint8([[0, 1], [0, 1]]), 1).item() == 1
    assert exact.shrink(np.uint8([[0, 1], [0, 0]]), 1).item() == 0
    assert exact.resize(np.uint8([[254, 255], [254, 255]]), 1).item() == 255


def test_sums_of_large_pictures_do_not_overflow() -> None:
    for size in (1000, 1100, 2100):
        assert (exact.resize(np.full((2, 2), 255, np.uint8), size) == 255).all()


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.5, 7.0])
def test_a_blurred_dot_is_a_gaussian(sigma: float) -> None:
    dot = np.zeros((61, 61), np.uint8)
    dot[30, 30] = 255
    got = exact.blur(dot, sigma).astype(float)
    x = np.arange(-30, 31)
    line = np.exp(-(x**2) / (2 * sigma**2))
    line /= line.sum()
    assert np.abs(got - 255 * np.outer(line, line)).max() < 0.8  # rounding, and the tails cut off
    assert got[30, 30] == pytest.approx(255 * line[30] ** 2, abs=0.8)
    assert got[0, 0] == 0


def test_blur_keeps_what_is_even_and_mirrors_at_the_edge() -> None:
    assert (exact.blur(np.full((7, 5, 3), 200, np.uint8), 3.0) == 200).all()
    ramp = np.tile(np.arange(0, 200, 10, dtype=np.uint8), (20, 1))
    mirrored = np.pad(ramp, 12, mode="reflect")
    np.testing.assert_array_equal(exact.blur(ramp, 2.0), exact.blur(mirrored, 2.0)[12:-12, 12:-12])


def test_grey_is_the_luma_of_bt_601() -> None:
    colours = np.uint8([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [10, 20, 30]]])
    assert exact.grey(colours).tolist() == [[76, 150, 29, 255, 18]]


def test_it_is_opencv_s_arithmetic_to_one_level(picture: np.ndarray) -> None:
    """What OpenCV rounds otherwise differs by one level; anything else would be another method."""
    import cv2

    large = cv2.resize(picture, (128, 128), interpolation=cv2.INTER_CUBIC)
    for size in (28, 64, 112):
        pairs = [
            (
                exact.shrink(large, size),
                cv2.resize(large, (size, size), interpolation=cv2.INTER_AREA),
            ),
            (exact.resize(large, size), cv2.resize(large, (size, size))),
        ]
        for ours, theirs in pairs:
            assert np.abs(ours.astype(int) - theirs).max() <= 1
    theirs = cv2.GaussianBlur(large, (0, 0), 2.5)
    assert np.abs(exact.blur(large, 2.5).astype(int) - theirs).max() <= 1
