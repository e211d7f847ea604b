"""Frames of a clip: RGB pictures, at 25 a second or as they are; and a clip's identity."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip, Span
from spfem_bench.errors import ClipError
from spfem_bench.hashes import known_sha256
from spfem_bench.media import ffmpeg, ffmpeg_process
from spfem_bench.media.ffmpeg import SCALER
from spfem_bench.media.headers import file_identity, no_pictures, pixels, probe
from spfem_bench.media.packets import check_pictures, first_picture, stream_times
from spfem_bench.media.pictures import (
    no_frame_rate,
    numbered_pictures,
    raw_pictures,
    read_picture,
)

FRAME_RATE = 25
"""Frames a second of every decoded clip; SyncNet's, and the field's."""

FASTEST = 60
"""Pictures a second of the longest clip of which every picture is read."""

FEW = 0.2
"""Seconds for which one picture is shown without much in ffmpeg's queue: five frames."""

Frame = npt.NDArray[np.uint8]
"""One picture, shape (height, width, 3), RGB."""

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm")


def frames(clip: Clip, hwaccel: str | None = None, *, own: bool = False) -> Iterator[Frame]:
    """Yield a clip's frames, uint8 (height, width, 3), RGB, at 25 frames a second.

    Frames are chosen by their time stamps (ffmpeg's ``fps`` filter, rounding to the nearest), for
    any frame rate; with *own*, every picture is one frame. Rotation metadata is applied; deeper
    colour is brought to 8 bits. Raises ClipError where that fails, ValueError for a clip with an
    edit.
    """
    stream, stdin = cropped_stream(clip, hwaccel)
    if not clip.path.is_dir() and check_pictures(clip.path, whole=not clip.span) > FEW:
        # ffmpeg queues all frames that fill a gap: converted before, they share one picture.
        stream = _to_rgb(stream)
    stream = _own_stream(stream, clip) if own else timed_stream(stream, clip)
    stream = stream.filter("scale", flags=SCALER)
    # Every PPM picture carries its own size: no need to know it beforehand.
    options = {"fps_mode": "passthrough"} if own else {}
    output = stream.output("pipe:", format="image2pipe", vcodec="ppm", pix_fmt="rgb24", **options)
    count = 0
    with ffmpeg_process.decoding(output, clip.path, stdin, pixels=pixels(clip.path)) as pipe:
        while (picture := _read_ppm(pipe)) is not None:
            count += 1
            if count > ffmpeg.LONGEST * (FASTEST if own else FRAME_RATE):
                raise ffmpeg.too_long(clip)
            yield picture
    if count == 0:
        advice = "Write the clip again, or correct its t=start,end"
        raise ClipError(f"{clip}: holds no frame", advice)


def cropped_stream(clip: Clip, hwaccel: str | None = None) -> tuple[Any, Iterator[bytes] | None]:
    """Return an ffmpeg-python stream of a clip's cropped pictures, and blocks to feed to its pipe.

    Raises ClipError where it has none or the crop does not fit; ValueError for an edit.
    """
    if clip.edit is not None:
        raise ValueError(f"{clip}: frames are read without the edit, which is applied to them")
    files = _files(clip)
    stdin: Iterator[bytes] | None = None
    if clip.path.is_dir():
        height, width = read_picture(files[0]).shape[:2]
        _check_crop(clip, (width, height))
        stream = ffmpeg.raw_input("bgr24", (width, height), repr(clip.frame_rate))
        stdin = raw_pictures(files, (height, width))
    else:
        info = probe(clip.path)
        if info.size is None:
            raise no_pictures(clip.path)
        check_length(clip, info.seconds)
        check_pictures(clip.path, whole=not clip.span)
        _check_crop(clip, info.size)
        stream = upright_stream(clip.path, hwaccel)
    if clip.crop and (clip.crop.x % 2 or clip.crop.y % 2):
        stream = _to_rgb(stream)  # first: odd corners lie between chroma samples
    if clip.crop:
        c = clip.crop
        stream = stream.filter("crop", c.width, c.height, c.x, c.y, exact=1)
    return stream, stdin


def upright_stream(path: Path, hwaccel: str | None = None) -> Any:
    """Return an ffmpeg-python stream of a file's upright pictures, all of the first one's size."""
    info = probe(path)
    options: dict[str, Any] = {"hwaccel": hwaccel} if hwaccel else {}
    if info.turned:
        # ffmpeg's own filters turn the picture first, and they cannot follow a change of size.
        # A width of 0 is an error: it ends ffmpeg when its graph is built again for another size.
        width, height = info.size or (0, 0)
        same = f"if(eq(iw,{width})*eq(ih,{height}),iw,0)"
        stream = ffmpeg.local_input(path, **options)[str(info.chosen("video"))]
        return stream.filter("crop", same, "ih", exact=1)
    # When the size, the pixel format or the colours change, ffmpeg builds its graph again, and
    # filters that count time start again. Without that, the scaler follows the change.
    options |= {"noautorotate": None, "reinit_filter:v": 0}
    stream = ffmpeg.local_input(path, **options)[str(info.chosen("video"))]
    return stream.filter("scale", flags=SCALER)


def _to_rgb(stream: Any) -> Any:
    return stream.filter("scale", flags=SCALER).filter("format", "rgb24")


def timed_stream(stream: Any, clip: Clip) -> Any:
    """Return a stream of 25 frames a second by their time stamps, those in the clip's span."""
    first = 0.0 if clip.path.is_dir() else first_picture(clip.path)
    stream = stream.filter("fps", FRAME_RATE, start_time=repr(first))
    if clip.span:
        first_frame, last = span_frames(clip.span)
        stream = stream.filter("trim", start_frame=first_frame, end_frame=last)
    return stream.filter("setpts", "PTS-STARTPTS")


def _own_stream(stream: Any, clip: Clip) -> Any:
    """Return a stream of every picture, of those in the clip's span by their numbers."""
    if clip.span:
        first_frame, last = span_frames(clip.span, own_rate(clip))
        stream = stream.filter("trim", start_frame=first_frame, end_frame=last)
    return stream.filter("setpts", "PTS-STARTPTS")


def span_frames(span: Span, rate: float = FRAME_RATE) -> tuple[int, int]:
    """Return the first frame whose time lies in a span, and the first after it.

    >>> span_frames(Span(0.2, 0.61))
    (5, 16)
    """
    # A file's rate is a mean of rounded time stamps: a millionth of a frame is no frame.
    return math.ceil(span.start * rate - 1e-6), math.ceil(span.end * rate - 1e-6)


def check_length(clip: Clip, seconds: float | None) -> None:
    """Raise ClipError for a clip that lasts longer than an hour by its span, else by its file."""
    length = clip.span.end - clip.span.start if clip.span else seconds
    if length is not None and length > ffmpeg.LONGEST:
        raise ffmpeg.too_long(clip)


def own_rate(clip: Clip) -> float:
    """Return a clip's own pictures a second: as its address says, or the mean of a video file's.

    Raises ClipError for a folder without ``fps=``, or a file without a picture.
    """
    if clip.path.is_dir():
        if clip.frame_rate is None:
            raise no_frame_rate(clip.path)
        return clip.frame_rate
    shown = stream_times(clip.path).get("video")
    if shown is None or shown.seconds <= 0:
        raise no_pictures(clip.path)
    return shown.packets / shown.seconds


def _check_crop(clip: Clip, size: tuple[int, int]) -> None:
    crop = clip.crop
    if crop and (crop.x + crop.width > size[0] or crop.y + crop.height > size[1]):
        problem = f"{clip}: the crop rectangle leaves the picture of {size[0]} x {size[1]} pixels"
        raise ClipError(problem, "Write #xywh=x,y,width,height within it")


def _read_ppm(pipe: IO[bytes]) -> Frame | None:
    """Return the next of a pipe's PPM pictures, uint8 (height, width, 3); None at its end."""
    if pipe.readline() != b"P6\n":
        return None
    width, height = (int(part) for part in pipe.readline().split())
    pipe.readline()  # the largest value, 255
    content = pipe.read(width * height * 3)
    if len(content) < width * height * 3:
        return None
    return np.frombuffer(content, np.uint8).reshape(height, width, 3)


def _files(clip: Clip) -> list[Path]:
    """Return a clip's picture files in order, or its video file."""
    if clip.path.is_dir():
        return numbered_pictures(clip)
    if clip.frame_rate is not None or clip.pictures is not None:
        raise ClipError(f"{clip}: fps= and frames= are for folders of frames", "Leave them out")
    return [clip.path]


def content_id(clip: Clip) -> str:
    """Return a hash of a clip's bytes, crop, span, rate, sound, skipped sound and edit."""
    parts = [str(clip.crop), str(clip.span), str(clip.frame_rate)]
    parts += [file_sha256(path) for path in _files(clip)]
    if clip.audio is not None:
        parts.append(file_sha256(clip.audio))
    if clip.skip:
        parts.append(f"skip={clip.skip}")
    if clip.edit is not None:
        parts.append(f"edit={clip.edit}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


_State = tuple[tuple[int, ...], ...]


def _state(clip: Clip) -> _State:
    """Return the identities of all files that a clip is read from."""
    identities: list[tuple[int, ...]] = []
    for path in [*_files(clip), *([clip.audio] if clip.audio is not None else [])]:
        try:
            identities.append(file_identity(path))
        except OSError:
            identities.append((0,))
    return tuple(identities)


@dataclass(frozen=True)
class Unchanged:
    """A clip's files as they were before they were hashed; no program can set a file's ctime."""

    clip: Clip
    state: _State

    @classmethod
    def since(cls, clip: Clip) -> Unchanged:
        """Return the state of a clip's files now, before they are hashed."""
        return cls(clip, _state(clip))

    def check(self) -> None:
        """Raise ClipError when a file has changed since, is gone, or was replaced."""
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
    """Return the SHA-256 of a regular file; raise ClipError when it cannot be read."""
    try:
        sha256 = known_sha256(path)
    except OSError as error:
        raise ClipError(f"{path}: {error.strerror}", "Check the name and the folder") from None
    if sha256 is None:
        raise ClipError(f"{path}: not a file", "Give a video, a sound or picture file")
    return sha256
