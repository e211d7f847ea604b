"""The ffmpeg program: which one, and how it is started.

It is only ever given local files, in the container formats below: no playlist
or script format that could name other files or addresses.
"""

from __future__ import annotations

import io
import math
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any

from spfem_bench.errors import ClipError

FORMATS = "mov,matroska,avi,flv,ogg,wav,mp3,flac,aac"

PATIENCE = 60.0
"""Seconds without a byte after which ffmpeg is ended: an 8K frame takes it well under one, and a
sleeping disk or a busy file server some ten."""

LARGEST = 1 << 25
"""Pixels of a picture that is decoded: 8192 x 4096, in which 8K has room. A header of a few bytes
can claim any size, and every pixel costs three bytes several times over."""

FASTEST = 768_000
"""Samples a second of sound, the highest rate of recorders: a resampler's tables grow with it, to
1.5 GB and minutes for the 1.5 GHz of one flipped bit."""

LONGEST = 3600
"""Seconds of a clip: an hour, where those of the data sets last some seconds. One packet with a
late time stamp makes years of a file, filled up with pictures and silence."""


@cache
def program() -> str:
    """Return the system's ffmpeg, or the one that imageio-ffmpeg ships."""
    import imageio_ffmpeg

    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


@cache
def version() -> str:
    """Return the version of the ffmpeg in use, such as ``7.1`` (it decides pixels)."""
    said = subprocess.run([program(), "-version"], capture_output=True, text=True, check=True)
    match = re.search(r"ffmpeg version n?(\S+)", said.stdout)
    return match[1] if match else "unknown"


def check_hardware(name: str) -> None:
    """Refuse a hardware decoder that ffmpeg does not have, or cannot start here.

    Raises:
        ClipError: with ffmpeg's reason.
    """
    command = [program(), "-hide_banner", "-v", "error"]
    said = subprocess.run([*command, "-hwaccels"], capture_output=True, text=True, check=True)
    known = said.stdout.split("\n")[1:]
    if name not in filter(None, known):
        allowed = ", ".join(filter(None, known)) or "none"
        raise ClipError(f"ffmpeg has no hardware decoder '{name}'", f"Allowed: {allowed}")
    nothing = ["-f", "lavfi", "-i", "nullsrc=s=16x16", "-frames:v", "1", "-f", "null", "-"]
    tried = subprocess.run(
        [*command, "-init_hw_device", name, *nothing], capture_output=True, text=True, check=False
    )
    if tried.returncode != 0:
        raise ClipError(
            f"ffmpeg cannot start '{name}' here: {_reason(tried.stderr, Path())}",
            "Leave out --hwaccel, or mend the driver",
        )


class _Name(str):
    """A file's name, which may be no UTF-8: ffmpeg-python hashes what ``str`` makes of it."""

    __slots__ = ()

    def __str__(self) -> str:
        return ascii(super().__str__())


def local_input(path: Path, hwaccel: str | None = None) -> Any:
    """Return an ffmpeg-python input node for a local file.

    Args:
        path: the file.
        hwaccel: a hardware decoder, as in :func:`check_hardware`.
    """
    import ffmpeg

    # A leap of more than an hour is an error in the time stamp: ffmpeg would queue in memory
    # all the frames that fill it, up to 30 hours and 1.5 GB.
    return ffmpeg.input(
        _Name(f"file:{path}"), protocol_whitelist="file", format_whitelist=FORMATS,
        max_pixels=LARGEST, dts_error_threshold=LONGEST,
        **({"hwaccel": hwaccel} if hwaccel else {}),
    )  # fmt: skip


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds.

    Attributes:
        size: width and height in pixels of the upright picture (rotation applied);
            None without a video stream.
        seconds: how long it lasts by its own account; None when it does not say.
    """

    size: tuple[int, int] | None
    has_audio: bool
    seconds: float | None


def probe(path: Path) -> MediaInfo:
    """Read a file's header.

    The text that ffmpeg prints is read, because imageio-ffmpeg ships no ffprobe.

    Raises:
        ClipError: the file is absent, empty, not a video or sound file, or it goes beyond
            :data:`LARGEST` or :data:`FASTEST`.
    """
    if not path.is_file():
        raise ClipError(f"{path}: no such file", "Check the name and the folder")
    status = path.stat()
    if status.st_size == 0:
        raise ClipError(f"{path}: the file is empty (0 bytes)", "Write the clip again")
    return _probe(path, status.st_size, status.st_mtime_ns, status.st_ino)


@lru_cache(maxsize=1000)  # a clip's pictures and its sound ask in turn, and so do its edits
def _probe(path: Path, *identity: int) -> MediaInfo:
    del identity  # a part of the cache's key
    command = [program(), "-hide_banner", "-nostdin", "-protocol_whitelist", "file",
               "-format_whitelist", FORMATS, "-max_pixels", str(LARGEST),
               "-i", f"file:{path}"]  # fmt: skip
    said = _run(command, path, PATIENCE).stderr.decode(errors="replace")
    if "\nInput #0" not in f"\n{said}":
        raise ClipError(
            f"{path}: not a readable video: {_reason(said, path)}",
            "Write it again as mp4, mov, mkv, webm or avi; a truncated download must be repeated",
        )
    _refuse_cut_mp4(path)
    # Anchored to ffmpeg's indents: a title of the file's own may imitate its words.
    # A cover picture is a video stream of one frame, marked so.
    # Before version 5 they are four spaces, since then two.
    stream = r"(?m)^(?:  ){1,2}Stream #0:\d+[^\n]*?: "
    video = re.search(stream + r"Video: (?![^\n]*attached pic)[^\n]*?, (\d+)x(\d+)", said)
    size = (int(video[1]), int(video[2])) if video else None
    turned = r"(?im)^      display ?matrix: rotation of -?(90|270)\."
    own = re.split(r"\n(?:  ){1,2}Stream #0:", said[video.end() :])[0] if video else ""
    if size and re.search(turned, own):
        size = size[::-1]
    if size:
        check_size(path, size)
    heard = re.search(stream + r"Audio: (?:[^\n]*?, (\d+) Hz)?", said)
    if heard and heard[1] and int(heard[1]) > FASTEST:
        raise ClipError(
            f"{path}: sound of {heard[1]} samples a second",
            f"Allowed: {FASTEST}; a damaged header says such things: write the clip again",
        )
    lasts = re.search(r"(?m)^  Duration: (\d+):(\d\d):(\d\d\.\d+)", said)
    seconds = None
    if lasts:
        seconds = 3600 * int(lasts[1]) + 60 * int(lasts[2]) + float(lasts[3])
    return MediaInfo(size, heard is not None, seconds)


def check_size(path: Path, size: tuple[int, int]) -> None:
    """Refuse a picture of more pixels than :data:`LARGEST`.

    Raises:
        ClipError: it has more.
    """
    if size[0] * size[1] > LARGEST:
        raise too_large(path, f"{size[0]} x {size[1]}")


def too_large(path: Path, pixels: str) -> ClipError:
    """Say that a picture has more pixels than :data:`LARGEST`."""
    return ClipError(
        f"{path}: pictures of {pixels} pixels",
        f"Allowed: {LARGEST:,}, such as 8192 x 4096; write them smaller",
    )


def too_long(clip: object) -> ClipError:
    """Say that a clip, or the part of it that is asked for, is longer than :data:`LONGEST`."""
    return ClipError(
        f"{clip}: lasts longer than {LONGEST} s",
        "Cut it, or name a part of it with #t=start,end in seconds, for example #t=0,3.6",
    )


def _run(command: list[str], path: Path, patience: float) -> subprocess.CompletedProcess[bytes]:
    """Run ffmpeg on a file to its end.

    Raises:
        ClipError: it took longer than *patience*, in seconds.
    """
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=patience)
    except subprocess.TimeoutExpired:
        raise _stalled(path, patience) from None


def _stalled(path: Path, patience: float) -> ClipError:
    return ClipError(
        f"{path}: ffmpeg hung: nothing came for {patience:g} s, and it was ended",
        "Write the clip again; where a disk or a file server is that slow, copy it nearer",
    )


def _refuse_cut_mp4(path: Path) -> None:
    """Refuse an mp4 or mov whose last box ends beyond the end of the file.

    One that was cut exactly between two packets decodes without a complaint.
    """
    end = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + 8 <= end:
            file.seek(at)
            head = file.read(16)
            if at == 0 and head[4:8] not in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
                return  # another container
            size = int.from_bytes(head[:4], "big")
            if size == 1:
                size = int.from_bytes(head[8:16], "big")
            if size < 8:  # 0: to the end of the file; others are no size, as ffmpeg will say
                return
            at += size
    if at > end:
        raise ClipError(
            f"{path}: truncated: {at - end} bytes are missing at its end",
            "Write the clip again; a truncated download must be repeated",
        )


@dataclass(frozen=True)
class Stretch:
    """When one stream of a file begins and ends, in seconds, and its packets (frames)."""

    start: float
    end: float
    packets: int

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.end - self.start


def timing(path: Path) -> dict[str, Stretch]:
    """Return when a file's first ``video`` and ``audio`` stream begin and end.

    Time stamps of all packets are read, nothing is decoded.

    Raises:
        ClipError: as :func:`probe`, or the file breaks off.
    """
    info = probe(path)
    kinds = [k for k, has in (("video", info.size), ("audio", info.has_audio)) if has]
    command = [program(), "-hide_banner", "-nostdin", "-v", "error", "-xerror", "-copyts",
               "-protocol_whitelist", "file", "-format_whitelist", FORMATS, "-i", f"file:{path}",
               *(a for k in kinds for a in ("-map", f"0:{k[0]}:0")),
               "-c", "copy", "-f", "framecrc", "-"]  # fmt: skip
    found: dict[str, Stretch] = {}
    if not kinds:
        return found
    done = _run(command, path, LONGEST)  # it reads the whole file
    said = done.stderr.decode(errors="replace")
    if done.returncode != 0 or "partial file" in said or "ended prematurely" in said:
        raise ClipError(
            f"{path}: damaged or truncated: {_reason(said, path)}",
            "Write the clip again; a truncated download must be repeated",
        )
    units: dict[int, float] = {}
    # Lines: "#tb STREAM: 1/12800", then "STREAM, dts, pts, duration, bytes, checksum".
    for line in done.stdout.decode(errors="replace").splitlines():
        if unit := re.fullmatch(r"#tb (\d): (\d+)/(\d+)", line):
            units[int(unit[1])] = int(unit[2]) / int(unit[3])
        elif packet := re.match(r"(\d), *-?\d+, *(-?\d+), *(\d+),", line):
            stream, unit_s = kinds[int(packet[1])], units[int(packet[1])]
            start = int(packet[2]) * unit_s
            end = start + int(packet[3]) * unit_s
            before = found.get(stream, Stretch(start, end, 0))
            found[stream] = Stretch(
                min(before.start, start), max(before.end, end), before.packets + 1
            )
    return found


@contextmanager
def decoding(
    node: Any,
    path: Path,
    stdin: Iterator[bytes] | None = None,
    *,
    patience: float | None = None,
) -> Iterator[IO[bytes]]:
    """Start ffmpeg on a compiled graph and yield its output, bytes as they come.

    Args:
        node: an ffmpeg-python output node that writes to ``pipe:``.
        path: the clip, for messages.
        stdin: blocks to feed to ``pipe:0``.
        patience: seconds after which ffmpeg is ended: without a byte while one is waited for,
            or without its end when no more is; :data:`PATIENCE` when None.

    Raises:
        ClipError: on leaving the block, when ffmpeg found damage in the file, or hung.
    """
    # -xerror: a damaged stream ends with an error instead of patched-up frames.
    command = [*node.compile(cmd=program()), "-hide_banner", "-v", "error", "-xerror"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
        if process.stdout is None:
            raise RuntimeError("a pipe was asked for")
        problems: list[ClipError] = []
        patience = PATIENCE if patience is None else patience
        watched, over = _Watched(process.stdout), Event()
        if stdin is not None:
            Thread(target=_feed, args=(process, stdin, problems), daemon=True).start()
        if patience < math.inf:
            stall = (process, watched, path, patience, over, problems)
            Thread(target=_watch, args=stall, daemon=True).start()
        try:
            with io.BufferedReader(watched, 1 << 16) as pipe:
                yield pipe
                ended = process.wait(patience)
        except subprocess.TimeoutExpired:
            raise _stalled(path, patience) from None
        finally:  # also when the reader stops early
            over.set()
            process.stdout.close()
            process.kill()
            process.wait()
        if problems:
            raise problems[0]
        errors.seek(0)
        said = errors.read().decode(errors="replace")
        if ended != 0 and (claimed := re.search(r"Picture size (\d+)x(\d+)", said)):
            raise too_large(path, f"{claimed[1]} x {claimed[2]}")
        # A file cut in the middle of a packet ends "well", with one of these messages only.
        if ended != 0 or "partial file" in said or "ended prematurely" in said:
            raise ClipError(
                f"{path}: damaged or truncated: {_reason(said, path)}",
                "Write the clip again; a truncated download must be repeated",
            )


class _Watched(io.RawIOBase):
    """A pipe that says since when its reader has been waiting."""

    def __init__(self, pipe: Any) -> None:
        super().__init__()
        self._pipe = pipe.raw
        self.since: float | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self.since = time.monotonic()  # never set back, as the clock of the day may be
        try:
            found: int | None = self._pipe.readinto(buffer)
            return found
        finally:
            self.since = None


def _watch(
    process: subprocess.Popen[bytes],
    watched: _Watched,
    path: Path,
    patience: float,
    over: Event,
    problems: list[ClipError],
) -> None:
    """End a process for whose next byte its reader has been waiting too long."""
    while not over.wait(min(1.0, patience / 4)):
        since = watched.since
        if since is not None and time.monotonic() - since > patience:
            problems.append(_stalled(path, patience))
            process.kill()
            return


def _feed(
    process: subprocess.Popen[bytes], blocks: Iterator[bytes], problems: list[ClipError]
) -> None:
    if process.stdin is None:
        raise RuntimeError("a pipe was asked for")
    with suppress(BrokenPipeError, ValueError):  # ffmpeg has ended; its own words say why
        try:
            for block in blocks:
                process.stdin.write(block)
        except ClipError as error:
            problems.append(error)
        finally:  # or ffmpeg waits for ever
            process.stdin.close()


def _reason(said: str, path: Path) -> str:
    """Pick the line of ffmpeg's messages that tells the cause."""
    lines = [re.sub(r"^(\[[^]]*\]\s*)+", "", line).strip() for line in said.splitlines()]
    lines = [
        line
        for line in lines
        if line and not line.startswith("Error opening input") and "low score" not in line
    ]
    return lines[0].replace(f"file:{path}", path.name)[:160] if lines else "no reason given"
