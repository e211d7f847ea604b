"""The ffmpeg program: which one, and how it is started.

It is only ever given local files, in the container formats below: no playlist
or script format that could name other files or addresses. On Linux the memory and the processor
time of each process are limited by the kernel; other systems have no such limits here.
"""

from __future__ import annotations

import io
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any, Literal

import numpy as np

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

SCALER = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp+bitexact"
"""How YUV becomes RGB: the exact path, the same on every processor."""

LONGEST = 3600
"""Seconds of a clip: an hour, where those of the data sets last some seconds. One packet with a
late time stamp makes years of a file, filled up with pictures and silence."""

STILL = 30.0
"""Seconds for which one picture may be shown: in its place there are 25 frames a second. A flipped
bit in the duration of a frame makes hours of it."""

MOST_PACKETS = 2_000_000
"""Packets of a file: an hour of sound in the shortest packets (Opus, 2.5 ms) has 1,440,000. A list
of edits can repeat a stream any number of times."""

ROOM = 1 << 30
"""Bytes of memory for ffmpeg's program, queues and index of a file; :data:`THREAD` and
:data:`PIXEL` come on top. A clip of 1280 x 720 pixels takes 0.15 GB in all."""

THREAD = 64 << 20
"""Bytes of memory for each processor core: ffmpeg starts several threads for one."""

PIXEL = 96
"""Bytes of memory for each pixel of a picture, in all frames that decoders hold at a time: H.264
takes 70 with 16 threads, HEVC with 10 bits and full chroma 88."""

READING = 15
"""Seconds of processor time for headers and packets, and as many more for each GB of a file."""

DECODING = 20_000
"""Seconds of processor time for decoding one clip: an hour of full HD takes some 2,000."""


CHANGES = {
    "Invalid too big or non positive size": "size of a rotated picture",
    "Changing audio frame properties on the fly": "channel layout, format or rate of the sound",
}
"""What changes in a stream, by ffmpeg's message when it cannot follow."""


NO_MEMORY = ("Cannot allocate memory", "ut of memory", "Resource temporarily unavailable")
"""ffmpeg's messages when it gets no memory; the last one, for a thread's stack."""


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


def local_input(path: Path, **options: Any) -> Any:
    """Return an ffmpeg-python input node for a local file.

    Args:
        path: the file.
        options: more of ffmpeg's options for this input.
    """
    import ffmpeg

    # A leap of more than an hour is an error in the time stamp: ffmpeg would queue in memory
    # all the frames that fill it, up to 30 hours and 1.5 GB.
    return ffmpeg.input(
        _Name(f"file:{path}"),
        protocol_whitelist="file",
        format_whitelist=FORMATS,
        max_pixels=LARGEST,
        dts_error_threshold=LONGEST,
        **options,
    )


def pictures(path: Path, hwaccel: str | None = None) -> Any:
    """Return an ffmpeg-python stream of a file's upright pictures, all of the first one's size.

    Args:
        path: the file.
        hwaccel: a hardware decoder, as in :func:`check_hardware`.

    Raises:
        ClipError: as :func:`probe`, or it is ambiguous which video stream to take.
    """
    info = probe(path)
    options: dict[str, Any] = {"hwaccel": hwaccel} if hwaccel else {}
    if info.turned:
        # ffmpeg's own filters turn the picture first, and they cannot follow a change of size.
        # A width of 0 is an error: it ends ffmpeg when its graph is built again for another size.
        width, height = info.size or (0, 0)
        same = f"if(eq(iw,{width})*eq(ih,{height}),iw,0)"
        stream = local_input(path, **options)[str(info.chosen("video"))]
        return stream.filter("crop", same, "ih", exact=1)
    # When the size, the pixel format or the colours change, ffmpeg builds its graph again, and
    # filters that count time start again. Without that, the scaler follows the change.
    options |= {"noautorotate": None, "reinit_filter:v": 0}
    stream = local_input(path, **options)[str(info.chosen("video"))]
    return stream.filter("scale", flags=SCALER)


@dataclass(frozen=True)
class MediaInfo:
    """What a file holds.

    Attributes:
        size: width and height in pixels of the upright picture (rotation applied);
            None without a video stream.
        seconds: its duration by its header; None when the header has none.
        video: indices of the video streams that may be meant: those marked default, or all
            where none is marked. Cover pictures do not count.
        audio: the same of the audio streams.
        turned: whether metadata rotate or mirror the picture.
        edits: whether the container may have an edit list.
        path: the file.
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
        """Return the index of the stream to decode.

        Raises:
            ClipError: there is none, or there are several and not one alone is marked default.
        """
        found = self.video if kind == "video" else self.audio
        if len(found) == 1:
            return found[0]
        if found:
            maps = "-map 0:a" if kind == "video" else "-map 0:v"
            raise ClipError(
                f"{self.path}: {len(found)} {kind} streams ({', '.join(map(str, found))}), and not "
                "one alone is marked default",
                f"Keep one: ffmpeg -i {self.path.name} -map 0:{found[0]} {maps} -c copy CLIP",
            )
        raise no_sound(self.path) if kind == "audio" else no_pictures(self.path)


def no_pictures(path: Path) -> ClipError:
    """Return the error for a file without a video stream."""
    return ClipError(f"{path}: has no video stream", "Give a video, not a sound file")


def no_sound(path: Path) -> ClipError:
    """Return the error for a file without an audio stream."""
    return ClipError(
        f"{path}: has no sound",
        "Add the source's sound: "
        f"ffmpeg -i {path.name} -i SOURCE -map 0:v -map 1:a -c copy WITH_SOUND.mp4",
    )


def probe(path: Path) -> MediaInfo:
    """Read a file's header.

    The text that ffmpeg prints is read, because imageio-ffmpeg ships no ffprobe.

    Raises:
        ClipError: the file is absent, empty, not a video or sound file, or it goes beyond
            :data:`LARGEST` or :data:`FASTEST`.
    """
    if not path.is_file():
        raise ClipError(f"{path}: no such file", "Check the name and the folder")
    identity = _identity(path)
    if identity[0] == 0:
        raise ClipError(f"{path}: the file is empty (0 bytes)", "Write the clip again")
    return _probe(path, *identity)


@lru_cache(maxsize=1000)  # a clip's pictures and its sound ask in turn, and so do its edits
def _probe(path: Path, *identity: int) -> MediaInfo:
    del identity  # a part of the cache's key
    said = _header(path)
    if "\nInput #0" not in f"\n{said}":
        raise ClipError(
            f"{path}: not a readable video: {_reason(said, path)}",
            "Write it again as mp4, mov, mkv, webm or avi; a truncated download must be repeated",
        )
    _refuse_cut_mp4(path)
    # Anchored to ffmpeg's indents: a title of the file's own may imitate its words.
    # Before version 5 they are four spaces, since then two.
    streams = re.split(r"\n(?:  ){1,2}Stream #0:(?=\d)", said)[1:]
    found: dict[str, list[tuple[int, bool, str]]] = {"Video": [], "Audio": []}
    for text in streams:
        line = re.match(r"(\d+)[^\n]*?: (Video|Audio): ([^\n]*)", text)
        # A cover picture is a video stream of one frame, marked so.
        if line and "(attached pic)" not in line[3]:
            found[line[2]].append((int(line[1]), "(default)" in line[3], text))
    video, audio = ([s for s in kind if s[1]] or kind for kind in (found["Video"], found["Audio"]))
    size, turned = None, False
    if video:
        text = video[0][2]
        pixels = re.search(r", (\d+)x(\d+)", text.split("\n")[0])
        size = (int(pixels[1]), int(pixels[2])) if pixels else None
        turn = re.search(r"(?im)^      display ?matrix: rotation of ([^ ]+) degrees", text)
        turned = turn is not None
        if size and turn and re.fullmatch(r"-?(90|270)\.\d+", turn[1]):
            size = size[::-1]
    if size:
        check_size(path, size)
    for _, _, text in audio:
        rate = re.search(r", (\d+) Hz", text.split("\n")[0])
        if rate and int(rate[1]) > FASTEST:
            raise ClipError(
                f"{path}: sound of {rate[1]} samples a second",
                f"Allowed: {FASTEST}; a damaged header says such things: write the clip again",
            )
    lasts = re.search(r"(?m)^  Duration: (\d+):(\d\d):(\d\d\.\d+)", said)
    seconds = None
    if lasts:
        seconds = 3600 * int(lasts[1]) + 60 * int(lasts[2]) + float(lasts[3])
    indices = tuple(s[0] for s in video) if size else (), tuple(s[0] for s in audio)
    edits = re.search(r"(?m)^Input #0, mov,", said) is not None
    return MediaInfo(size, seconds, *indices, turned, edits, path)


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
    return CostError(
        f"{clip}: lasts longer than {LONGEST} s",
        "Cut it, or name a part of it with #t=start,end in seconds, for example #t=0,3.6",
    )


def _reading(path: Path, *options: str) -> list[str]:
    """Return the beginning of a command that reads a file, with options before its name."""
    return [
        *(program(), "-hide_banner", "-nostdin", "-protocol_whitelist", "file"),
        *("-format_whitelist", FORMATS, "-max_pixels", str(LARGEST)),
        *(*options, "-i", f"file:{path}"),
    ]


def _header(path: Path) -> str:
    """Return what ffmpeg prints about a file.

    Raises:
        ClipError: it took too long or too much.
    """
    with tempfile.TemporaryFile() as errors:
        with _started(_reading(path), _Limits.reading(path), errors) as process:
            try:
                ended = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                raise _stalled(path, PATIENCE) from None
        text = _text(errors)
    if error := _beyond(path, text, ended, _Limits.reading(path)):
        raise error
    return text


def _text(errors: IO[bytes]) -> str:
    """Return the beginning of what ffmpeg has printed."""
    errors.seek(0)
    return errors.read(1 << 22).decode(errors="replace")


@dataclass(frozen=True)
class _Limits:
    """What one process of ffmpeg may take: bytes of memory, seconds of processor time."""

    memory: int
    seconds: int

    @classmethod
    def reading(cls, path: Path) -> _Limits:
        """Return the limits for a file's header and packets."""
        return cls(_memory(0), math.ceil(READING * (1 + path.stat().st_size / 1e9)))


def _memory(pixels: int) -> int:
    return ROOM + THREAD * (os.cpu_count() or 1) + PIXEL * pixels


@contextmanager
def _started(
    command: list[str],
    limits: _Limits,
    stderr: IO[bytes],
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process with limits, and end it when the block is left."""
    process = subprocess.Popen(command, stdin=stdin, stdout=stdout, stderr=stderr)
    try:
        # Set from outside: code between fork and exec is unsafe where threads run.
        if sys.platform == "linux" and "-hwaccel" not in command:  # a driver maps a lot of memory
            import resource

            for kind, most in (
                (resource.RLIMIT_DATA, limits.memory),
                (resource.RLIMIT_CPU, limits.seconds),
            ):
                with suppress(ProcessLookupError):  # it has ended
                    held = (n for n in resource.prlimit(process.pid, kind) if n >= 0)
                    lowest = min([most, *held])
                    resource.prlimit(process.pid, kind, (lowest, lowest))
        yield process
    finally:
        process.kill()
        process.wait()


def _beyond(path: Path, said: str, ended: int, limits: _Limits) -> CostError | None:
    """Return the error for a process that has reached one of its limits; None when it has not."""
    if ended == -9:
        return CostError(
            f"{path}: ffmpeg was killed: it took more than {limits.seconds:,} s of processor "
            "time, or the machine has no memory left",
            "Cut the clip, or write it again",
        )
    # Where an allocation fails unchecked, the process dies of a signal (SIGSEGV, SIGABRT).
    if ended in (-6, -11) or any(message in said for message in NO_MEMORY):
        return CostError(
            f"{path}: ffmpeg failed for want of memory: it may take {limits.memory / 1e9:.1f} GB",
            "Write the clip again: ffmpeg -i CLIP -r 25 NEW.mp4",
        )
    return None


def _stalled(path: Path, patience: float) -> CostError:
    return CostError(
        f"{path}: ffmpeg hung: nothing came for {patience:g} s, and it was ended",
        "Write the clip again; where a disk or a file server is that slow, copy it nearer",
    )


ROUNDING = 0.0021
"""Seconds by which the intervals of time stamps in whole milliseconds may differ."""

NO_TIME = str(-(2**63))
"""How ffmpeg writes the time stamp of a packet that has none."""

BOXES = {
    b"ftyp",
    b"styp",
    b"moov",
    b"moof",
    b"mdat",
    b"free",
    b"skip",
    b"wide",
    b"uuid",
    b"meta",
    b"meco",
    b"udta",
    b"pdin",
    b"sidx",
    b"ssix",
    b"mfra",
    b"emsg",
    b"prft",
    b"pnot",
    b"PICT",
    b"idat",
    b"imda",
    b"bloc",
    b"junk",
}
"""What an mp4 or mov is made of, at its top level."""


def _refuse_cut_mp4(path: Path) -> None:
    """Refuse an mp4 or mov whose last box ends beyond the end of the file.

    One that was cut exactly between two packets decodes without a complaint. What follows the
    last box, such as a tag, is not looked at.
    """
    end = path.stat().st_size
    with path.open("rb") as file:
        at = 0
        while at + 8 <= end:
            file.seek(at)
            head = file.read(16)
            if head[4:8] not in BOXES:
                return  # another container, or what is appended
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
    """Return when a file's ``video`` and ``audio`` stream begin and end.

    Time stamps of all packets are read, nothing is decoded.

    Raises:
        ClipError: as :func:`probe`, the file breaks off, or it is ambiguous which stream to take.
    """
    info = probe(path)
    kinds: list[Literal["video", "audio"]] = []
    kinds += ["video"] if info.video else []
    kinds += ["audio"] if info.audio else []
    streams: dict[str, Stretch] = {}
    if not kinds:
        return streams
    with sized(path) as file:
        for packet in _packets(file, [info.chosen(kind) for kind in kinds], path):
            kind = kinds[packet.stream]
            before = streams.get(kind, Stretch(packet.start, packet.end, 0))
            streams[kind] = Stretch(
                min(before.start, packet.start), max(before.end, packet.end), before.packets + 1
            )
    return streams


@dataclass(frozen=True, slots=True)
class _Packet:
    """A packet: when it is shown in seconds, and its bytes' number and checksum.

    Attributes:
        stream: its place among the streams that are read.
        time: when it is shown; None where the container has times of decoding only.
        start: the same, or else when it is decoded.
        end: *start* and its duration.
        content: the number of its bytes, and their checksum.
    """

    stream: int
    time: float | None
    start: float
    end: float
    content: str


def _packets(
    file: Path, streams: Sequence[int], path: Path, *, edits: bool = True
) -> Generator[_Packet, None, None]:
    """Yield the packets of a file's streams as they come, with the times in the file.

    Args:
        file: that is read.
        streams: indices of streams.
        path: the clip, for messages.
        edits: whether an mp4's edit list is followed in full; else, it only moves the start.

    Raises:
        ClipError: the file breaks off.
        CostError: it has more than :data:`MOST_PACKETS`, or takes too long.
    """
    simply = [] if edits else ["-advanced_editlist", "0"]
    command = _reading(file, "-v", "error", "-xerror", "-copyts", *simply)
    for stream in streams:
        command += ["-map", f"0:{stream}"]
    command += ["-c", "copy", "-f", "framecrc", "-"]
    units: dict[int, float] = {}
    count = 0
    with _running(command, path, _Limits.reading(file)) as pipe:
        # Lines: "#tb STREAM: 1/12800", then "STREAM, dts, pts, duration, bytes, checksum".
        for line in pipe:
            text = line.decode(errors="replace")
            if unit := re.match(r"#tb (\d): (\d+)/(\d+)", text):
                units[int(unit[1])] = int(unit[2]) / int(unit[3])
            elif row := re.match(r"(\d), *(-?\d+), *(-?\d+), *(\d+), *(\d+, *\w+)", text):
                count += 1
                if count > MOST_PACKETS:
                    raise CostError(
                        f"{path}: more than {MOST_PACKETS:,} packets",
                        "Write the clip again without its edit list: ffmpeg -i CLIP NEW.mp4",
                    )
                unit_s = units[int(row[1])]
                time = None if row[3] == NO_TIME else int(row[3]) * unit_s
                start = int(row[2]) * unit_s if time is None else time
                yield _Packet(int(row[1]), time, start, start + int(row[4]) * unit_s, row[5])


@dataclass(frozen=True)
class _Pictures:
    """What the packets of a video stream say.

    Attributes:
        first: the first of them; None where there is none.
        seconds: from the first picture to the end of the last one.
        still: for how many seconds one picture is shown at most.
    """

    first: _Packet | None
    seconds: float
    still: float


@lru_cache(maxsize=2000)  # pictures and sound both ask
def _pictures(path: Path, *identity: int) -> _Pictures:
    """Read the packets of a file's video stream, up to where it is damaged.

    Raises:
        ClipError: it is ambiguous which video stream to take.
        CostError: as :func:`_packets`.
    """
    del identity  # a part of the cache's key
    starts, first, longest = array("d"), None, 0.0
    packets = _packets(path, [probe(path).chosen("video")], path)
    try:
        for packet in packets:
            first = first or packet
            starts.append(packet.start)
            longest = max(longest, packet.end - packet.start)
    except CostError:
        raise
    except ClipError:  # what is asked for may come before the damage; decoding finds out
        pass
    if first is None:
        return _Pictures(None, 0.0, 0.0)
    # A leap that no packet's duration explains is an error to ffmpeg, see local_input().
    steps = [step for step in np.diff(np.sort(starts)).tolist() if step <= LONGEST]
    return _Pictures(first, sum(steps) + longest, max(longest, *steps, 0.0))


def check_pictures(path: Path, *, whole: bool) -> float:
    """Return for how many seconds a file shows one picture at most.

    It is found by the time stamps of all packets, whatever the header says.

    Args:
        path: a video.
        whole: whether all of it is wanted.

    Raises:
        ClipError: as :func:`probe`, or it is ambiguous which video stream to take.
        CostError: one picture is shown longer than :data:`STILL`, or the whole lasts longer
            than :data:`LONGEST`.
    """
    shown = _pictures(path, *_identity(path))
    if shown.still > STILL:
        raise CostError(
            f"{path}: one picture is shown for {shown.still:,.0f} s",
            f"Allowed: {STILL:g} s; a damaged header causes this: write the clip again",
        )
    if whole and shown.seconds > LONGEST:
        raise too_long(path)
    return shown.still


@contextmanager
def sized(path: Path) -> Iterator[Path]:
    """Yield a file that ffmpeg can read to its end.

    A WAV that was written to a pipe has no sizes in its header: 0 or FFFFFFFF stand there. ffmpeg
    takes its last packet, which is shorter, for a damaged one. Of such a file a copy with sizes
    is yielded, in a temporary folder; of all others, the file itself.
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


def first_picture(path: Path) -> float:
    """Return when a file's first picture is shown, in seconds, as ffmpeg's decoder gives it.

    ffmpeg counts from where the file starts, the first of its streams.
    Where only the first picture is shown for longer than the others, and not for a whole number of
    frames, its time is counted back from the second: so is a fragmented mp4 written whose pictures
    begin later than its sound.

    Raises:
        ClipError: as :func:`probe`, the file is damaged, or it is ambiguous which video stream to
            take.
    """
    return _first_picture(path, *_identity(path))


@lru_cache(maxsize=2000)  # pictures and sound both begin there
def _first_picture(path: Path, *identity: int) -> float:
    del identity  # a part of the cache's key
    # Decoded, because packets before it may be there only to be decoded with.
    times = _first_times(path, 4)
    if len(times) < 4:
        return times[0] if times else 0.0
    long, short, third = (b - a for a, b in pairwise(times))
    odd = long > short and abs(long / short - round(long / short)) * short > ROUNDING
    return times[1] - short if odd and abs(short - third) < ROUNDING else times[0]


def picture_zero(path: Path) -> float:
    """Return when a file's first picture is shown by its own time stamps, in seconds.

    It is later than :func:`first_picture` where an edit list begins within a picture, as a cut
    without decoding does: ffmpeg moves the next picture to where the cut is, and no sound.

    Raises:
        ClipError: as :func:`first_picture`, or an AVI holds B-frames. It has no times of display,
            and programs differ in whether they make up for the delay of one or two frames.
    """
    return _picture_zero(path, *_identity(path))


@lru_cache(maxsize=2000)  # a clip's levels and its sound ask in turn
def _picture_zero(path: Path, *identity: int) -> float:
    first, packet = first_picture(path), _pictures(path, *identity).first
    if packet is None:
        raise ClipError(f"{path}: holds no picture", "Write the clip again")
    if packet.time is None:
        raise ClipError(
            f"{path}: pictures in another order than they are shown (B-frames) without times of "
            "display, as in any AVI of such: how early or late the sound is cannot be known",
            "Write it as mp4 from the material it was made of, or without B-frames (-bf 0)",
        )
    if not probe(path).edits:
        return first
    packets = _packets(path, [probe(path).chosen("video")], path, edits=False)
    with closing(packets):
        for plain in packets:
            if plain.content == packet.content and plain.time is not None:
                return first + max(0.0, plain.time - packet.time)
    return first


def _identity(path: Path) -> tuple[int, int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _first_times(path: Path, count: int) -> list[float]:
    """Return when a file's first pictures are shown, in seconds from the file's start.

    Raises:
        ClipError: the file is damaged, or holds no picture.
    """
    # ffmpeg would cut off negative times of pictures, and round them to whole frames.
    decode = ["-vf", f"setpts=PTS+{LONGEST}/TB", "-enc_time_base", "1/1000000"]
    command = [*_reading(path, "-v", "error", "-xerror"), "-map"]
    command += [
        f"0:{probe(path).chosen('video')}",
        *decode,
        "-frames:v",
        str(count),
        "-f",
        "framecrc",
        "-",
    ]
    with _running(command, path, _Limits(_memory(pixels(path)), DECODING)) as pipe:
        lines = pipe.read().decode(errors="replace")
    unit = re.search(r"(?m)^#tb 0: (\d+)/(\d+)", lines)
    times = re.findall(r"(?m)^0, *-?\d+, *(-?\d+), *\d+, *\d+, *\w+", lines)
    if not unit or not times:
        raise ClipError(f"{path}: holds no picture", "Write the clip again")
    second = int(unit[2]) / int(unit[1])
    return [int(time) / second - LONGEST for time in times if time != NO_TIME]


def pixels(path: Path) -> int:
    """Return how many pixels a file's pictures have; the most that are allowed for a folder.

    Raises:
        ClipError: as :func:`probe`.
    """
    if path.is_dir():
        return LARGEST
    size = probe(path).size
    return size[0] * size[1] if size else 0


@contextmanager
def decoding(
    node: Any,
    path: Path,
    stdin: Iterator[bytes] | None = None,
    *,
    patience: float | None = None,
    pixels: int = LARGEST,
) -> Iterator[IO[bytes]]:
    """Start ffmpeg on a compiled graph and yield its output, bytes as they come.

    Args:
        node: an ffmpeg-python output node that writes to ``pipe:``.
        path: the clip, for messages.
        stdin: blocks to feed to ``pipe:0``.
        patience: seconds after which ffmpeg is ended: without a byte while one is waited for,
            or without its end when no more is; :data:`PATIENCE` when None.
        pixels: of a picture, by which its memory is limited.

    Raises:
        ClipError: on leaving the block, when ffmpeg found damage in the file.
        CostError: on leaving the block, when ffmpeg hung, or reached a limit.
    """
    # -xerror: a damaged stream ends with an error instead of patched-up frames.
    command = [*node.compile(cmd=program()), "-hide_banner", "-v", "error", "-xerror"]
    limits = _Limits(_memory(pixels), DECODING)
    with _running(command, path, limits, stdin, patience) as pipe:
        yield pipe


@contextmanager
def _running(
    command: list[str],
    path: Path,
    limits: _Limits,
    stdin: Iterator[bytes] | None = None,
    patience: float | None = None,
) -> Iterator[IO[bytes]]:
    """Start ffmpeg and yield its output, see :func:`decoding`."""
    feed = subprocess.DEVNULL if stdin is None else subprocess.PIPE
    problems: list[ClipError] = []
    patience = PATIENCE if patience is None else patience
    with tempfile.TemporaryFile() as errors:
        with _started(command, limits, errors, feed, subprocess.PIPE) as process:
            if process.stdout is None:
                raise RuntimeError("a pipe was asked for")
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
        if problems:
            raise problems[0]
        said = _text(errors)
        # A file cut in the middle of a packet ends "well", with one of these messages only.
        if ended != 0 or "partial file" in said or "ended prematurely" in said:
            raise _beyond(path, said, ended, limits) or _damaged(path, said)


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


def _damaged(path: Path, said: str) -> ClipError:
    """Return the error for a file with which ffmpeg ended, by its messages."""
    if claimed := re.search(r"Picture size (\d+)x(\d+)", said):
        return too_large(path, f"{claimed[1]} x {claimed[2]}")
    for message, change in CHANGES.items():
        if message in said:
            return ClipError(
                f"{path}: the {change} changes in the stream",
                f"Write it again with one: ffmpeg -i {path.name} CLIP.mp4",
            )
    return ClipError(
        f"{path}: damaged or truncated: {_reason(said, path)}",
        "Write the clip again; a truncated download must be repeated",
    )


def _reason(said: str, path: Path) -> str:
    """Pick the line of ffmpeg's messages that tells the cause."""
    lines = [re.sub(r"^(\[[^]]*\]\s*)+", "", line).strip() for line in said.splitlines()]
    lines = [
        line
        for line in lines
        if line and not line.startswith("Error opening input") and "low score" not in line
    ]
    return lines[0].replace(f"file:{path}", path.name)[:160] if lines else "no reason given"
