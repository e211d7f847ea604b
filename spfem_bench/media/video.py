"""Frames of a clip: RGB pictures at 25 a second, one after the other."""

from __future__ import annotations

import hashlib
import math
import re
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip, Span
from spfem_bench.errors import ClipError
from spfem_bench.hashes import known_sha256
from spfem_bench.media import ffmpeg
from spfem_bench.media.ffmpeg import SCALER

FRAME_RATE = 25
"""Frames a second of every decoded clip; SyncNet's, and the field's."""

FEW = 0.2
"""Seconds for which one picture is shown without much in ffmpeg's queue: five frames."""

Frame = npt.NDArray[np.uint8]
"""One picture, shape (height, width, 3), RGB."""

PICTURES = (".png", ".jpg", ".jpeg", ".bmp")

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")


def frames(clip: Clip, hwaccel: str | None = None) -> Iterator[Frame]:
    """Yield a clip's frames as RGB pictures at 25 frames a second.

    Frames are chosen by their time stamps (ffmpeg's ``fps`` filter, rounding to
    the nearest), so a variable frame rate is handled; rotation metadata is
    applied; deeper colour is brought to 8 bits. Memory is bounded: one frame at
    a time.

    Args:
        clip: without an edit.
        hwaccel: a hardware decoder (:func:`spfem_bench.media.ffmpeg.check_hardware`).

    Yields:
        uint8 arrays of shape (height, width, 3).

    Raises:
        ClipError: unreadable, damaged, without video, or the crop does not fit.
        ValueError: the clip has an edit, which acts only after faces are found.
    """
    stream, stdin = cropped(clip, hwaccel)
    if not clip.path.is_dir() and ffmpeg.check_pictures(clip.path, whole=not clip.span) > FEW:
        # ffmpeg queues all frames that fill a gap: converted before, they share one picture.
        stream = stream.filter("scale", flags=SCALER).filter("format", "rgb24")
    stream = timed(stream, clip)
    stream = stream.filter("scale", flags=SCALER)
    # Every PPM picture carries its own size: no need to know it beforehand.
    output = stream.output("pipe:", format="image2pipe", vcodec="ppm", pix_fmt="rgb24")
    count = 0
    pixels = ffmpeg.pixels(clip.path)
    with ffmpeg.decoding(output, clip.path, stdin, pixels=pixels) as pipe:
        while (picture := _read_ppm(pipe)) is not None:
            count += 1
            if count > ffmpeg.LONGEST * FRAME_RATE:
                raise ffmpeg.too_long(clip)
            yield picture
    if count == 0:
        raise ClipError(f"{clip}: holds no frame", "Write the clip again, or mend its t=start,end")


def cropped(clip: Clip, hwaccel: str | None = None) -> tuple[Any, Iterator[bytes] | None]:
    """Return an ffmpeg-python stream of a clip's pictures, cropped, at the rate they have.

    Returns:
        the stream, and what has to be fed to it if it reads ``pipe:0``.

    Raises:
        ClipError: unreadable, without video, or the crop does not fit.
        ValueError: the clip has an edit.
    """
    import ffmpeg as graph

    if clip.edit is not None:
        raise ValueError(f"{clip}: frames are read without the edit, which is applied to them")
    files = _files(clip)
    if clip.path.is_dir():
        height, width = read_picture(files[0]).shape[:2]
        _check_crop(clip, (width, height))
        stream = graph.input(
            "pipe:0",
            format="rawvideo",
            pix_fmt="bgr24",
            video_size=(width, height),
            framerate=repr(clip.frame_rate),
        )
        stdin: Iterator[bytes] | None = _raw_pictures(files, (height, width))
    else:
        info = ffmpeg.probe(clip.path)
        if info.size is None:
            raise ffmpeg.no_pictures(clip.path)
        check_length(clip, info.seconds)
        ffmpeg.check_pictures(clip.path, whole=not clip.span)
        _check_crop(clip, info.size)
        stream, stdin = ffmpeg.pictures(clip.path, hwaccel), None
    if clip.crop and (clip.crop.x % 2 or clip.crop.y % 2):
        # Odd corners lie between chroma samples: to RGB first.
        stream = stream.filter("scale", flags=SCALER).filter("format", "rgb24")
    if clip.crop:
        c = clip.crop
        stream = stream.filter("crop", c.width, c.height, c.x, c.y, exact=1)
    return stream, stdin


def timed(stream: Any, clip: Clip) -> Any:
    """Choose 25 frames a second by their time stamps, and of them those in the clip's span.

    Frame k is what is shown k / 25 s after the first picture.
    """
    first = 0.0 if clip.path.is_dir() else ffmpeg.first_picture(clip.path)
    stream = stream.filter("fps", FRAME_RATE, start_time=repr(first))
    if clip.span:
        first_frame, last = span_frames(clip.span)
        stream = stream.filter("trim", start_frame=first_frame, end_frame=last)
    return stream.filter("setpts", "PTS-STARTPTS")


def span_frames(span: Span) -> tuple[int, int]:
    """Return the first frame whose time lies in a span, and the first after it.

    >>> span_frames(Span(0.2, 0.61))
    (5, 16)
    """
    return math.ceil(span.start * FRAME_RATE - 1e-9), math.ceil(span.end * FRAME_RATE - 1e-9)


def check_length(clip: Clip, seconds: float | None) -> None:
    """Refuse a clip that lasts longer than an hour by its span, or without one by its file.

    Raises:
        ClipError: it does.
    """
    asked = clip.span.end - clip.span.start if clip.span else seconds
    if asked is not None and asked > ffmpeg.LONGEST:
        raise ffmpeg.too_long(clip)


def _check_crop(clip: Clip, size: tuple[int, int]) -> None:
    crop = clip.crop
    if crop and (crop.x + crop.width > size[0] or crop.y + crop.height > size[1]):
        raise ClipError(
            f"{clip}: the crop rectangle leaves the picture of {size[0]} x {size[1]} pixels",
            "Write #xywh=x,y,width,height within it",
        )


def libraries(clip: Clip) -> frozenset[str]:
    """Return the modules beside ffmpeg that a clip's pixels depend on.

    OpenCV reads a folder's pictures. How a JPEG is decoded depends on its version; PNG and BMP
    lose nothing, so that their pixels are the same with any reader.
    """
    folder = clip.path.iterdir() if clip.path.is_dir() else ()
    lossy = any(_is_jpeg(path) for path in folder if path.suffix.lower() in PICTURES)
    return frozenset({"cv2"}) if lossy else frozenset()


def _is_jpeg(path: Path) -> bool:
    """Return whether a file's content is a JPEG's, whatever its name."""
    try:
        with path.open("rb") as file:
            return file.read(2) == b"\xff\xd8"
    except OSError:  # it is refused when it is decoded
        return False


def read_picture(path: Path) -> Frame:
    """Read a picture file.

    Returns:
        uint8 (height, width, 3), BGR, alpha dropped.

    Raises:
        ClipError: absent, unreadable, cut short, of another format than PNG, JPEG and BMP, or
            larger than :data:`~spfem_bench.media.ffmpeg.LARGEST`.
    """
    import cv2

    picture = None
    try:
        if size := _claimed_size(path):
            ffmpeg.check_size(path, size)
            if path.stat().st_size > MOST_BYTES:
                raise ffmpeg.CostError(
                    f"{path}: more than {MOST_BYTES / 1e6:.0f} MB for one picture", "Write it again"
                )
            content = path.read_bytes()
            # OpenCV fills up a JPEG that was cut.
            if not (content.startswith(JPEG) and not _jpeg_is_whole(content)):
                picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, OSError) as error:  # no permission
        reason = str(error).strip().splitlines()[0]
        raise ClipError(f"{path}: not a readable picture: {reason}", "Write it again") from error
    if picture is None:
        raise ClipError(f"{path}: not a readable picture, or cut short", "Write the frame again")
    return np.asarray(picture)


MOST_BYTES = 8 * ffmpeg.LARGEST + (1 << 20)
"""Bytes of a picture's file: four channels of 16 bits for each pixel, and a header."""

MOST_SCANS = 200
"""Scans of a JPEG: encoders write ten. Each one may cover the whole picture with few bytes."""

JPEG = b"\xff\xd8"
"""The marker that every JPEG begins with."""


def _jpeg_is_whole(content: bytes) -> bool:
    """Return whether a JPEG has its end-of-image marker; anything may follow it.

    One of more than :data:`MOST_SCANS` counts as cut short. The markers are followed from the
    first on (ITU-T T.81, B.1.1): a thumbnail in a segment has an end marker of its own.
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


_AFTER_SCAN = re.compile(rb"\xff(?![\x00\xd0-\xd7\xff])")
"""A marker that ends coded data: neither a stuffed byte, nor a restart, nor fill."""


def _claimed_size(path: Path) -> tuple[int, int] | None:
    """Return the size that a picture's header claims; None when it is not in a known format.

    OpenCV goes by content and not by name, knows a score of formats, and allocates what a
    header claims.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=("PNG", "JPEG", "BMP")) as picture:
            return picture.size
    except Image.DecompressionBombError as error:  # far above our limit
        raise ffmpeg.too_large(path, "more than a hundred million") from error
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        if isinstance(error, OSError) and error.errno is not None:  # no permission
            raise
        return None


def _raw_pictures(paths: list[Path], shape: tuple[int, int]) -> Iterator[bytes]:
    for path in paths:
        picture = read_picture(path)
        if picture.shape[:2] != shape:
            raise ClipError(
                f"{path}: {picture.shape[1]} x {picture.shape[0]} pixels, the first frame has "
                f"{shape[1]} x {shape[0]}",
                "Write all frames in one size",
            )
        yield picture.tobytes()


def _read_ppm(pipe: IO[bytes]) -> Frame | None:
    if pipe.readline() != b"P6\n":
        return None
    width, height = (int(part) for part in pipe.readline().split())
    pipe.readline()  # the largest value, 255
    content = pipe.read(width * height * 3)
    if len(content) < width * height * 3:
        return None
    return np.frombuffer(content, np.uint8).reshape(height, width, 3)


def numbered_pictures(clip: Clip) -> list[Path]:
    """Return a folder's pictures in order of their numbers, those that the clip uses.

    Raises:
        ClipError: no frame rate, no pictures, one without a number, a gap, or fewer pictures
            than the clip asks for.
    """
    folder = clip.path
    if clip.frame_rate is None:
        raise ClipError(
            f"{folder}: a folder of frames needs its frame rate",
            "Write for example FOLDER#fps=30, or --frame-rate 30 with --videos",
        )
    found = [p for p in folder.iterdir() if p.suffix.lower() in PICTURES and p.name[0] != "."]
    if not found:
        raise ClipError(f"{folder}: holds no pictures", f"Allowed: {', '.join(PICTURES)}")
    numbered: dict[int, Path] = {}
    for path in found:
        match = re.search(r"(\d+)$", path.stem)
        if not match or int(match[1]) in numbered:
            raise ClipError(
                f"{path}: not a frame number of its own", "Name frames 000000.png, 000001.png, …"
            )
        numbered[int(match[1])] = path
    order = sorted(numbered)
    if order[-1] - order[0] + 1 != len(order):
        gap = next(n for n in range(order[0], order[-1]) if n not in numbered)
        raise ClipError(f"{folder}: frame {gap} is missing", "Write the frames again, without gaps")
    first, last = clip.pictures or (0, len(order))
    if last > len(order):
        raise ClipError(
            f"{clip}: the folder holds {len(order)} pictures", "Mend its frames=FROM,UPTO"
        )
    return [numbered[n] for n in order[first:last]]


def _files(clip: Clip) -> list[Path]:
    """Return a clip's picture files in order, or its video file.

    Raises:
        ClipError: as :func:`numbered_pictures`, or what is for folders is given with a file.
    """
    if clip.path.is_dir():
        return numbered_pictures(clip)
    if clip.frame_rate is not None or clip.pictures is not None:
        raise ClipError(f"{clip}: fps= and frames= are for folders of frames", "Leave them out")
    return [clip.path]


def content_id(clip: Clip) -> str:
    """Return a hash of all that a clip is made of: bytes, crop, span, rate, sound and edit.

    Raises:
        ClipError: a file is absent.
    """
    parts = [str(clip.crop), str(clip.span), str(clip.frame_rate)]
    parts += [file_sha256(path) for path in _files(clip)]
    if clip.audio is not None:
        parts.append(file_sha256(clip.audio))
    if clip.edit is not None:
        parts.append(f"edit={clip.edit}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


State = tuple[tuple[int, ...], ...]


def _state(clip: Clip) -> State:
    """Return the identities of all files that a clip is read from; none of a file that is absent.

    Raises:
        ClipError: as :func:`numbered_pictures`.
    """
    paths = [*_files(clip), *([clip.audio] if clip.audio is not None else [])]
    found: list[tuple[int, ...]] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            found.append((0,))
            continue
        found.append((status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino))
    return tuple(found)


@dataclass(frozen=True)
class Unchanged:
    """A clip's files as they were before they were hashed.

    What is kept under a hash of a clip must have been read from the same bytes. No program can
    set the time of a file's last change (ctime), so that equal states mean that nothing was
    written or replaced in between.
    """

    clip: Clip
    state: State

    @classmethod
    def since(cls, clip: Clip) -> Unchanged:
        """Note the state of a clip's files, before they are hashed.

        Raises:
            ClipError: as :func:`numbered_pictures`.
        """
        return cls(clip, _state(clip))

    def check(self) -> None:
        """Refuse a clip whose files have changed since, after they were read.

        Raises:
            ClipError: one has changed, is gone, or was replaced.
        """
        try:
            same = _state(self.clip) == self.state
        except ClipError:
            same = False
        if not same:
            raise changed(self.clip)

    def frames(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """Yield the clip's frames, and check it after the last one."""
        yield from frames
        self.check()


def changed(clip: Clip) -> ClipError:
    """Return the error for a clip that was replaced or written to while it was read."""
    return ClipError(f"{clip}: changed while it was read", "Run the command again")


def file_sha256(path: Path) -> str:
    """Return a file's SHA-256; it is read again only when its size or time stamp changes.

    Raises:
        ClipError: the file cannot be read.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe would be waited for, for ever
            raise ClipError(f"{path}: not a file", "Give a video, a sound or picture file")
        return known_sha256(path)
    except OSError as error:
        raise ClipError(f"{path}: {error.strerror}", "Check the name and the folder") from None
