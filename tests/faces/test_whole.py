"""Whole pictures are resized and cut to the byte as by torchvision."""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import pydantic
import pytest

from spfem_bench.definitions.networks import WholeInput
from spfem_bench.faces import crop
from spfem_bench.faces.track import Face

# CRC-32 of ``CenterCrop(size)(Resize(resize)(picture))`` by torchvision 0.29.1 with Pillow 13.0.0,
# of ``picture`` below as a PIL picture; grey ones after ``convert("L")``. The bytes of ``ToTensor``
# times 255 were the same.
TORCHVISION = {
    (256, 256, 164, 128, "grey"): 0xE367769E,
    (256, 256, 256, 224, "rgb"): 0x347668DC,
    (300, 200, 164, 128, "grey"): 0x1CB542D4,
    (201, 333, 256, 224, "rgb"): 0x7F6AF114,
    (90, 61, 164, 128, "rgb"): 0x8EF067A6,
    (165, 164, 164, 128, "grey"): 0x89976BC0,
    (257, 512, 256, 224, "rgb"): 0xB9E5F1CF,
    (40, 31, 33, 32, "rgb"): 0xA78B763E,
    (31, 47, 32, 31, "rgb"): 0xDDF88DEF,
    (5, 3, 64, 63, "grey"): 0xAD9C7B0D,
    (1080, 720, 256, 224, "rgb"): 0xC340B302,
    (333, 200, 97, 97, "grey"): 0x62A1D081,
    (100, 150, 97, 64, "rgb"): 0x6A55F678,
    (3, 200, 9, 9, "rgb"): 0x1C25E701,
}


def picture(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height * 1000 + width)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


def whole(resize: int, size: int, colour: Any = "rgb", **more: Any) -> WholeInput:
    numbers = {"mean": 127.5, "std": 127.5} | more
    return WholeInput(crop="whole", resize=resize, size=size, colour=colour, **numbers)


@pytest.mark.parametrize("case", TORCHVISION, ids=lambda c: "-".join(map(str, c)))
def test_pictures_of_any_size_are_torchvisions(case: tuple[int, int, int, int, str]) -> None:
    height, width, resize, size, colour = case
    cut = crop.cut(picture(height, width), None, whole(resize, size, colour))
    assert cut.dtype == np.uint8 and cut.shape == (size, size, 1 if colour == "grey" else 3)
    assert zlib.crc32(cut.tobytes()) == TORCHVISION[case]


def test_a_face_in_the_picture_changes_nothing() -> None:
    face = Face(np.float32([3, 4, 50, 60]), np.zeros((5, 2), np.float32), 1.0)
    given = picture(90, 61)[:, ::-1]  # a view, whose rows are not contiguous
    cuts = [crop.cut(given, one, whole(33, 32)) for one in (None, face)]
    np.testing.assert_array_equal(*cuts)


def test_grey_is_bt_601_in_whole_numbers() -> None:
    """By hand: (19595 r + 38470 g + 7471 b + 2^15) >> 16 of one pixel; no resize is needed."""
    red, green, blue = 200, 100, 50
    pixel = np.full((4, 4, 3), (red, green, blue), np.uint8)
    expected = (19595 * red + 38470 * green + 7471 * blue + (1 << 15)) >> 16
    assert expected == 124
    cut = crop.cut(pixel, None, whole(4, 2, "grey"))
    assert cut.shape == (2, 2, 1) and (cut == expected).all()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"resize": 100, "size": 101}, "'size' is larger than 'resize'"),
        ({"colour": "grey", "mean": (1.0, 2.0, 3.0)}, "one number each"),
        ({"colour": "grey", "std": (1.0, 2.0, 3.0)}, "one number each"),
        ({"std": (1.0, 0.0, 3.0)}, "greater than 0"),
        ({"colour": "bgr"}, "'rgb' or 'grey'"),
        ({"mean": (1.0, 2.0)}, "Field required"),
    ],
)
def test_contracts_that_cannot_be_kept_are_refused(changed: dict[str, Any], words: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=words):
        whole(**{"resize": 164, "size": 128, "colour": "rgb"} | changed)
