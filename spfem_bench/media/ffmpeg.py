"""The ffmpeg program, its commands, and a clip's limits; it reads no other files or addresses."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from spfem_bench.errors import ClipError

FORMATS = "mov,matroska,avi,flv,ogg,wav,mp3,flac,aac"

LARGEST = 1 << 25
"""Pixels of a picture that is decoded: 8192 x 4096. A damaged header can claim any size."""

SCALER = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
"""How YUV becomes RGB: the exact path, the same on every processor."""

LONGEST = 3600
"""Seconds of a clip. A packet with a late time stamp would be filled up with years of pictures."""


class CostError(ClipError):
    """A clip that needs more memory, time, frames or packets than one clip may."""


@cache
def program() -> str:
    """Return the system's ffmpeg, or the one that imageio-ffmpeg ships."""
    import imageio_ffmpeg

    return shutil.which("ffmpeg") or imageio_ffmpeg.get_ffmpeg_exe()


@cache
def version() -> str:
    """Return the version of the ffmpeg in use, such as ``7.1`` (it decides pixels)."""
    done = subprocess.run([program(), "-version"], capture_output=True, text=True, check=True)
    match = re.search(r"ffmpeg version n?(\S+)", done.stdout)
    return match[1] if match else "unknown"


@cache
def has_soxr() -> bool:
    """Return whether the ffmpeg in use resamples sound with soxr."""
    command = [program(), "-hide_banner", "-buildconf"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return "--enable-libsoxr" in done.stdout


def check_hardware(name: str) -> None:
    """Raise ClipError for a hardware decoder that ffmpeg does not have, or cannot start here."""
    command = [program(), "-hide_banner", "-v", "error"]
    listed = subprocess.run([*command, "-hwaccels"], capture_output=True, text=True, check=True)
    known = [line for line in listed.stdout.split("\n")[1:] if line]
    if name not in known:
        allowed = ", ".join(known) or "none"
        raise ClipError(f"ffmpeg has no hardware decoder '{name}'", f"Allowed: {allowed}")
    nothing = ["-f", "lavfi", "-i", "nullsrc=s=16x16", "-frames:v", "1", "-f", "null", "-"]
    command += ["-init_hw_device", name, *nothing]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        problem = f"ffmpeg cannot start '{name}' here: {reason_of(tried.stderr, Path())}"
        raise ClipError(problem, "Leave out --hwaccel, or repair the driver")


class _Name(str):
    """A file's name, which may be no UTF-8: ffmpeg-python hashes the result of ``str``."""

    __slots__ = ()

    def __str__(self) -> str:
        return ascii(super().__str__())


def local_input(path: Path, **options: Any) -> Any:
    """Return an ffmpeg-python input node for a local file, with more of ffmpeg's options."""
    import ffmpeg

    # A step of more than an hour is an error in the time stamp: ffmpeg would queue in memory
    # all the frames that fill it, up to 30 hours and 1.5 GB.
    options |= {"dts_error_threshold": LONGEST, "max_pixels": LARGEST}
    options |= {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    return ffmpeg.input(_Name(f"file:{path}"), **options)


def raw_input(pix_fmt: str, size: tuple[int, int], frame_rate: object) -> Any:
    """Return an ffmpeg-python input node for raw pictures of (width, height) in ``pipe:0``."""
    import ffmpeg

    raw = {"format": "rawvideo", "pix_fmt": pix_fmt, "video_size": size}
    return ffmpeg.input("pipe:0", framerate=frame_rate, **raw)


def reading(path: Path, *options: str) -> list[str]:
    """Return the beginning of a command that reads a file, with options before its name."""
    limits = ["-protocol_whitelist", "file", "-format_whitelist", FORMATS]
    limits += ["-max_pixels", str(LARGEST)]
    return [program(), "-hide_banner", "-nostdin", *limits, *options, "-i", f"file:{path}"]


def too_large(path: Path, pixels: str) -> ClipError:
    """Return the error for a picture that has more pixels than :data:`LARGEST`."""
    problem = f"{path}: pictures of {pixels} pixels"
    return ClipError(problem, f"Allowed: {LARGEST:,}, such as 8192 x 4096; write them smaller")


def too_long(clip: object) -> ClipError:
    """Return the error for a clip, or a span of it, that is longer than :data:`LONGEST`."""
    advice = "Cut it, or name a part of it with #t=start,end in seconds, for example #t=0,3.6"
    return CostError(f"{clip}: lasts longer than {LONGEST} s", advice)


def reason_of(messages: str, path: Path) -> str:
    """Return the line of ffmpeg's messages that names the cause."""
    for line in messages.splitlines():
        text = re.sub(r"^(\[[^]]*\]\s*)+", "", line).strip()
        if text and not text.startswith("Error opening input") and "low score" not in text:
            return text.replace(f"file:{path}", path.name)[:160]
    return "no reason given"
