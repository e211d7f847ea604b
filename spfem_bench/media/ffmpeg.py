"""The ffmpeg program: which one, and how it is started.

It is only ever given local files, in the container formats below: no playlist
or script format that could name other files or addresses.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from spfem_bench.errors import ClipError

FORMATS = "mov,matroska,avi,flv,ogg,wav,mp3,flac,aac"


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


def local_input(path: Path) -> Any:
    """Return an ffmpeg-python input node for a local file."""
    import ffmpeg

    return ffmpeg.input(f"file:{path}", protocol_whitelist="file", format_whitelist=FORMATS)


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds.

    Attributes:
        size: width and height in pixels of the upright picture (rotation applied);
            None without a video stream.
    """

    size: tuple[int, int] | None
    has_audio: bool


def probe(path: Path) -> MediaInfo:
    """Read a file's header.

    The text that ffmpeg prints is read, because imageio-ffmpeg ships no ffprobe.

    Raises:
        ClipError: the file is absent, empty, or not a video or sound file.
    """
    if not path.is_file():
        raise ClipError(f"{path}: no such file", "Check the name and the folder")
    if path.stat().st_size == 0:
        raise ClipError(f"{path}: the file is empty (0 bytes)", "Write the clip again")
    command = [program(), "-hide_banner", "-nostdin", "-protocol_whitelist", "file",
               "-format_whitelist", FORMATS, "-i", f"file:{path}"]  # fmt: skip
    said = subprocess.run(command, capture_output=True, check=False).stderr.decode(errors="replace")
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
    return MediaInfo(size, re.search(stream + "Audio: ", said) is not None)


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
            if size == 0:  # to the end of the file
                return
            at += max(size, 8)
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
    done = subprocess.run(command, capture_output=True, check=False)
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
def decoding(node: Any, path: Path, stdin: Iterator[bytes] | None = None) -> Iterator[IO[bytes]]:
    """Start ffmpeg on a compiled graph and yield its output, bytes as they come.

    Args:
        node: an ffmpeg-python output node that writes to ``pipe:``.
        path: the clip, for messages.
        stdin: blocks to feed to ``pipe:0``.

    Raises:
        ClipError: on leaving the block, when ffmpeg found damage in the file.
    """
    from threading import Thread

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
        if stdin is not None:
            Thread(target=_feed, args=(process, stdin, problems), daemon=True).start()
        try:
            yield process.stdout
            ended = process.wait()
        finally:  # also when the reader stops early
            process.stdout.close()
            process.kill()
            process.wait()
        if problems:
            raise problems[0]
        errors.seek(0)
        said = errors.read().decode(errors="replace")
        # A file cut in the middle of a packet ends "well", with one of these messages only.
        if ended != 0 or "partial file" in said or "ended prematurely" in said:
            raise ClipError(
                f"{path}: damaged or truncated: {_reason(said, path)}",
                "Write the clip again; a truncated download must be repeated",
            )


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
