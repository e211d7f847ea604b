"""Picture files: one is read with limits, and a folder of them is a clip's frames."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import ClipError
from spfem_bench.media import ffmpeg
from spfem_bench.media.headers import check_size

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")

MOST_BYTES = 8 * ffmpeg.LARGEST + (1 << 20)
"""Bytes of a picture's file: four channels of 16 bits for each pixel, and a header."""

MOST_SCANS = 200
"""Scans of a JPEG: encoders write ten. Each one may cover the whole picture with few bytes."""

JPEG = b"\xff\xd8"
"""The marker that every JPEG begins with."""

_AFTER_SCAN = re.compile(rb"\xff(?![\x00\xd0-\xd7\xff])")
"""A marker that ends coded data: neither a stuffed byte, nor a restart, nor fill."""

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"

_Frame = npt.NDArray[np.uint8]


def picture_libraries(clip: Clip) -> frozenset[str]:
    """Return the modules beside ffmpeg that pixels depend on: OpenCV, where it reads JPEGs."""
    folder = clip.path.iterdir() if clip.path.is_dir() else ()
    lossy = any(_is_jpeg(path) for path in folder if path.suffix.lower() in PICTURES)
    return frozenset({"cv2"}) if lossy else frozenset()


def _is_jpeg(path: Path) -> bool:
    """Return whether a file's content is a JPEG's, whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(2) == JPEG
    except OSError:  # raised when it is decoded
        return False


def read_picture(path: Path) -> _Frame:
    """Return a picture file's pixels: uint8 (height, width, 3), BGR, alpha dropped.

    Raises ClipError unless it is a whole PNG, JPEG or BMP of an allowed size.
    """
    import cv2

    picture = None
    try:
        if header := _claimed(path):
            check_size(path, header.size)
            if path.stat().st_size > MOST_BYTES:
                problem = f"{path}: more than {MOST_BYTES / 1e6:.0f} MB for one picture"
                raise ffmpeg.CostError(problem, "Write it again")
            content = path.read_bytes()
            # OpenCV fills up a JPEG that was cut.
            if not content.startswith(JPEG) or _jpeg_is_whole(content):
                picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, OSError) as error:  # no permission
        reason = str(error).strip().splitlines()[0]
        raise ClipError(f"{path}: not a readable picture: {reason}", "Write it again") from error
    if picture is None:
        raise ClipError(f"{path}: not a readable picture, or cut short", "Write the frame again")
    return np.asarray(picture)


def _jpeg_is_whole(content: bytes) -> bool:
    """Return whether a JPEG has its end-of-image marker, within :data:`MOST_SCANS` scans.

    Markers are followed from the first on (ITU-T T.81, B.1.1): a thumbnail has an end of its own.
    """
    at, scans = len(JPEG), 0
    while content[at : at + 1] == b"\xff":
        kind = content[at + 1 : at + 2]
        if kind == b"\xff":  # a fill byte
            at += 1
        elif kind == b"\xd9":
            return True
        else:
            at += 2 + int.from_bytes(content[at + 2 : at + 4], "big")
            if kind == b"\xda":  # start of scan: coded data up to the next marker
                marker, scans = _AFTER_SCAN.search(content, at), scans + 1
                if marker is None or scans > MOST_SCANS:
                    return False
                at = marker.start()
    return False


@dataclass(frozen=True)
class PictureHeader:
    """What a picture's head says: (width, height) in pixels, and its colours, such as ``RGBA``."""

    size: tuple[int, int]
    colours: str


def picture_header(path: Path) -> PictureHeader:
    """Return what a picture's head says; raise ClipError where it is none, or a PNG has no end."""
    try:
        header = _claimed(path)
        with path.open("rb") as file:
            begin = file.read(len(_PNG))
            file.seek(max(path.stat().st_size - len(_PNG_END), 0))
            whole = begin != _PNG or file.read() == _PNG_END
    except OSError as error:
        raise ClipError(f"{path}: {error.strerror}", "Write it again") from error
    if header is None or not whole:
        raise ClipError(f"{path}: not a readable picture, or cut short", "Write the frame again")
    return header


def _claimed(path: Path) -> PictureHeader | None:
    """Return a picture's header, whose size OpenCV allocates; None for another format."""
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG", "BMP")) as picture:
            return PictureHeader(picture.size, picture.mode)
    except Image.DecompressionBombError as error:  # far above our limit
        raise ffmpeg.too_large(path, "more than a hundred million") from error
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        if isinstance(error, OSError) and error.errno is not None:  # no permission
            raise
        return None


def raw_pictures(paths: list[Path], shape: tuple[int, int]) -> Iterator[bytes]:
    """Yield the BGR bytes of picture files; raise ClipError for one of another (height, width)."""
    for path in paths:
        picture = read_picture(path)
        if picture.shape[:2] != shape:
            actual, first = (f"{width} x {height}" for height, width in (picture.shape[:2], shape))
            problem = f"{path}: {actual} pixels, the first frame has {first}"
            raise ClipError(problem, "Write all frames in one size")
        yield picture.tobytes()


def no_frame_rate(folder: Path) -> ClipError:
    """Return the error for a folder of frames whose address has no ``fps=``."""
    advice = "Write for example FOLDER#fps=30, or --frame-rate 30 with --videos"
    return ClipError(f"{folder}: a folder of frames needs its frame rate", advice)


def numbered_pictures(clip: Clip) -> list[Path]:
    """Return the paths of a folder's pictures by their numbers; raise ClipError for a gap."""
    folder = clip.path
    if clip.frame_rate is None:
        raise no_frame_rate(folder)
    paths = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES and p.name[0] != "."]
    if not paths:
        raise ClipError(f"{folder}: holds no pictures", f"Allowed: {', '.join(PICTURES)}")
    numbered: dict[int, Path] = {}
    for path in paths:
        match = re.search(r"(\d+)$", path.stem)
        if not match or int(match[1]) in numbered:
            problem = f"{path}: not a frame number of its own"
            raise ClipError(problem, "Name frames 000000.png, 000001.png, …")
        numbered[int(match[1])] = path
    order = sorted(numbered)
    if order[-1] - order[0] + 1 != len(order):
        gap = next(n for n in range(order[0], order[-1]) if n not in numbered)
        raise ClipError(f"{folder}: frame {gap} is missing", "Write the frames again, without gaps")
    first, last = clip.pictures or (0, len(order))
    if last > len(order):
        problem = f"{clip}: the folder holds {len(order)} pictures"
        raise ClipError(problem, "Correct its frames=FROM,UPTO")
    return [numbered[n] for n in order[first:last]]
