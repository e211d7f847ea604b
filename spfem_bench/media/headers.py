"""Headers of media files: their streams, size and length, and files with damaged ones."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, wraps
from pathlib import Path
from typing import Literal, TypeVar

from spfem_bench.errors import ClipError
from spfem_bench.media import ffmpeg, ffmpeg_process

_Result = TypeVar("_Result")

FASTEST = 768_000
"""Samples a second of sound: a resampler's tables grow with the rate, to gigabytes."""

BOXES = frozenset(
    b"ftyp styp moov moof mdat free skip wide uuid meta meco udta pdin sidx ssix mfra emsg prft "
    b"pnot PICT idat imda bloc junk".split()
)
"""The kinds of boxes at the top level of an mp4 or mov."""


@dataclass(frozen=True)
class MediaInfo:
    """The streams of a file.

    *size* is of the upright picture, in pixels. *video* and *audio* are indices of the streams that
    may be meant: those marked default, or else all. *turned*: metadata rotate or mirror the
    picture; *edits*: the container may have an edit list.
    """

    size: tuple[int, int] | None
    seconds: float | None
    video: tuple[int, ...]
    audio: tuple[int, ...]
    turned: bool
    edits: bool
    path: Path

    @property
    def has_audio(self) -> bool:
        """Whether there is any sound."""
        return bool(self.audio)

    def chosen(self, kind: Literal["video", "audio"]) -> int:
        """Return the index of the stream to decode; raise ClipError unless there is exactly one."""
        streams = self.video if kind == "video" else self.audio
        if len(streams) == 1:
            return streams[0]
        if streams:
            listed = f"{len(streams)} {kind} streams ({', '.join(map(str, streams))})"
            maps = f"-map 0:{streams[0]} {'-map 0:a' if kind == 'video' else '-map 0:v'}"
            advice = f"Keep one: ffmpeg -i {self.path.name} {maps} -c copy CLIP"
            raise ClipError(f"{self.path}: {listed}, and not one alone is marked default", advice)
        raise no_sound(self.path) if kind == "audio" else no_pictures(self.path)


def no_pictures(path: Path) -> ClipError:
    """Return the error for a file without a video stream."""
    return ClipError(f"{path}: has no video stream", "Give a video, not a sound file")


def no_sound(path: Path) -> ClipError:
    """Return the error for a file without an audio stream."""
    command = f"ffmpeg -i {path.name} -i SOURCE -map 0:v -map 1:a -c copy WITH_SOUND.mp4"
    return ClipError(f"{path}: has no sound", f"Add the source's sound: {command}")


def file_identity(path: Path) -> tuple[int, int, int, int]:
    """Return a file's size, times and number, which change when it does."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def kept_by_file(function: Callable[[Path], _Result]) -> Callable[[Path], _Result]:
    """Return a function whose results are kept while a file does not change."""
    kept = lru_cache(maxsize=2000)(lambda path, *identity: function(path))
    return wraps(function)(lambda path: kept(path, *file_identity(path)))


def probe(path: Path) -> MediaInfo:
    """Read a file's header, as ffmpeg prints it; raise ClipError where it is no clip's."""
    if not path.is_file():
        raise ClipError(f"{path}: no such file", "Check the name and the folder")
    if file_identity(path)[0] == 0:
        raise ClipError(f"{path}: the file is empty (0 bytes)", "Write the clip again")
    return _probe(path)


@kept_by_file
def _probe(path: Path) -> MediaInfo:
    header = ffmpeg_process.header_text(path)
    if "\nInput #0" not in f"\n{header}":
        raise ClipError(
            f"{path}: not a readable video: {ffmpeg.reason_of(header, path)}",
            "Write it again as mp4, mov, mkv, webm or avi; a truncated download must be repeated",
        )
    _refuse_cut_mp4(path)
    # Anchored to ffmpeg's indents: a title in the file may imitate its words.
    # Before version 5 they are four spaces, since then two.
    streams: dict[str, list[tuple[int, bool, str]]] = {"Video": [], "Audio": []}
    for text in re.split(r"\n(?:  ){1,2}Stream #0:(?=\d)", header)[1:]:
        line = re.match(r"(\d+)[^\n]*?: (Video|Audio): ([^\n]*)", text)
        # A cover picture is a video stream of one frame, marked so.
        if line and "(attached pic)" not in line[3]:
            streams[line[2]].append((int(line[1]), "(default)" in line[3], text))
    video, audio = ([s for s in kind if s[1]] or kind for kind in streams.values())
    size, turned = _upright_size(video[0][2]) if video else (None, False)
    if size:
        check_size(path, size)
    for _, _, text in audio:
        rate = re.search(r", (\d+) Hz", text.split("\n")[0])
        if rate and int(rate[1]) > FASTEST:
            advice = f"Allowed: {FASTEST}; the header may be damaged: write the clip again"
            raise ClipError(f"{path}: sound of {rate[1]} samples a second", advice)
    duration = re.search(r"(?m)^  Duration: (\d+):(\d\d):(\d\d\.\d+)", header)
    seconds = None
    if duration:
        seconds = 3600 * int(duration[1]) + 60 * int(duration[2]) + float(duration[3])
    indices = tuple(s[0] for s in video) if size else (), tuple(s[0] for s in audio)
    edits = re.search(r"(?m)^Input #0, mov,", header) is not None
    return MediaInfo(size, seconds, *indices, turned, edits, path)


def _upright_size(stream: str) -> tuple[tuple[int, int] | None, bool]:
    """Return a video stream's size with rotation applied, and whether metadata turn it."""
    pixels = re.search(r", (\d+)x(\d+)", stream.split("\n")[0])
    size = (int(pixels[1]), int(pixels[2])) if pixels else None
    turn = re.search(r"(?im)^      display ?matrix: rotation of ([^ ]+) degrees", stream)
    if size and turn and re.fullmatch(r"-?(90|270)\.\d+", turn[1]):
        size = size[::-1]
    return size, turn is not None


def check_size(path: Path, size: tuple[int, int]) -> None:
    """Raise ClipError for a picture of more pixels than ffmpeg.LARGEST."""
    if size[0] * size[1] > ffmpeg.LARGEST:
        raise ffmpeg.too_large(path, f"{size[0]} x {size[1]}")


def pixels(path: Path) -> int:
    """Return how many pixels a file's pictures have; for a folder, the most that are allowed."""
    if path.is_dir():
        return ffmpeg.LARGEST
    size = probe(path).size
    return size[0] * size[1] if size else 0


def _refuse_cut_mp4(path: Path) -> None:
    """Raise ClipError for an mp4 or mov cut between two packets, which ffmpeg decodes silently."""
    end = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + 8 <= end:
            file.seek(at)
            head = file.read(16)
            if head[4:8] not in BOXES:
                return  # another container, or appended bytes
            size = int.from_bytes(head[:4], "big")
            if size == 1:
                size = int.from_bytes(head[8:16], "big")
            if size < 8:  # 0: to the end of the file; others are no size: an error of ffmpeg's
                return
            at += size
    if at > end:
        problem = f"{path}: truncated: {at - end} bytes are missing at its end"
        raise ClipError(problem, "Write the clip again; a truncated download must be repeated")


@contextmanager
def sized(path: Path) -> Iterator[Path]:
    """Yield a file that ffmpeg can read to its end: *path*, or a repaired copy of a WAV.

    A WAV written to a pipe has the size 0 or FFFFFFFF: ffmpeg takes its short end for damaged.
    """
    with path.open("rb") as file:
        head = bytearray(file.read(1 << 16))
    unknown = (bytes(4), b"\xff" * 4)
    at = 12
    while head[:4] == b"RIFF" and head[8:12] == b"WAVE" and at + 8 <= len(head):
        if head[at : at + 4] == b"data":
            break
        at += 8 + (size := int.from_bytes(head[at + 4 : at + 8], "little")) + size % 2
    else:
        at = len(head)
    rest = path.stat().st_size - at - 8
    if head[at + 4 : at + 8] not in unknown or not 0 < rest < 1 << 32:
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "sound.wav"
        shutil.copyfile(path, copy)
        with copy.open("r+b") as file:
            for place, size in ((4, at + rest), (at + 4, rest)):
                file.seek(place)
                file.write(size.to_bytes(4, "little"))
        yield copy
