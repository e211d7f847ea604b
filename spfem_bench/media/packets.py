"""Time stamps of packets: when streams begin and end, and when a clip's first picture is shown."""

from __future__ import annotations

import re
from array import array
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from spfem_bench.errors import ClipError
from spfem_bench.media import ffmpeg, ffmpeg_process
from spfem_bench.media.ffmpeg import CostError, reading
from spfem_bench.media.ffmpeg_process import Limits
from spfem_bench.media.headers import kept_by_file, pixels, probe, sized

STILL = 30.0
"""Seconds for which one picture may be shown; a flipped bit in a duration makes hours of it."""

MOST_PACKETS = 2_000_000
"""Packets of a file: an hour of sound in the shortest packets (Opus, 2.5 ms) has 1,440,000."""

ROUNDING = 0.0021
"""Seconds by which the intervals of time stamps in whole milliseconds may differ."""

NO_TIME = str(-(2**63))
"""The time stamp of a packet that has none, as ffmpeg writes it."""


@dataclass(frozen=True)
class Stretch:
    """When one stream of a file begins and ends, in seconds, and its packets (frames)."""

    start: float
    end: float
    packets: int

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start


def stream_times(path: Path) -> dict[str, Stretch]:
    """Return when a file's streams begin and end, without decoding; raise ClipError as probe."""
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
            start, end = min(before.start, packet.start), max(before.end, packet.end)
            streams[kind] = Stretch(start, end, before.packets + 1)
    return streams


@dataclass(frozen=True, slots=True)
class _Packet:
    """A packet at *start* seconds; *time* is None where it has no time of display."""

    stream: int
    time: float | None
    start: float
    end: float
    content: str


def _packets(
    file: Path, streams: Sequence[int], path: Path, *, edits: bool = True
) -> Generator[_Packet, None, None]:
    """Yield the packets of a file's streams in the file's order."""
    options = [] if edits else ["-advanced_editlist", "0"]
    command = reading(file, "-v", "error", "-xerror", "-copyts", *options)
    for stream in streams:
        command += ["-map", f"0:{stream}"]
    command += ["-c", "copy", "-f", "framecrc", "-"]
    units: dict[int, float] = {}
    count = 0
    with ffmpeg_process.command_output(command, path, Limits.reading(file)) as pipe:
        # Lines: "#tb STREAM: 1/12800", then "STREAM, dts, pts, duration, bytes, checksum".
        for line in pipe:
            text = line.decode(errors="replace")
            if unit := re.match(r"#tb (\d): (\d+)/(\d+)", text):
                units[int(unit[1])] = int(unit[2]) / int(unit[3])
            elif row := re.match(r"(\d), *(-?\d+), *(-?\d+), *(\d+), *(\d+, *\w+)", text):
                count += 1
                if count > MOST_PACKETS:
                    advice = "Write the clip again without its edit list: ffmpeg -i CLIP NEW.mp4"
                    raise CostError(f"{path}: more than {MOST_PACKETS:,} packets", advice)
                unit_s = units[int(row[1])]
                time = None if row[3] == NO_TIME else int(row[3]) * unit_s
                start = int(row[2]) * unit_s if time is None else time
                yield _Packet(int(row[1]), time, start, start + int(row[4]) * unit_s, row[5])


@dataclass(frozen=True)
class _Pictures:
    """The packets of a video stream: *still* is how many seconds one picture is shown at most."""

    first: _Packet | None
    seconds: float
    still: float


@kept_by_file
def _pictures(path: Path) -> _Pictures:
    """Read the packets of a file's video stream, up to where it is damaged."""
    starts, first, longest = array("d"), None, 0.0
    packets = _packets(path, [probe(path).chosen("video")], path)
    try:
        for packet in packets:
            first = first or packet
            starts.append(packet.start)
            longest = max(longest, packet.end - packet.start)
    except CostError:
        raise
    except ClipError:  # the span may end before the damage; decoding finds out
        pass
    if first is None:
        return _Pictures(None, 0.0, 0.0)
    # A step that no packet's duration explains is an error to ffmpeg, see local_input().
    steps = [step for step in np.diff(np.sort(starts)).tolist() if step <= ffmpeg.LONGEST]
    return _Pictures(first, sum(steps) + longest, max(longest, *steps, 0.0))


def check_pictures(path: Path, *, whole: bool) -> float:
    """Return for how many seconds a file shows one picture at most, by its time stamps.

    Raises CostError when that is longer than :data:`STILL`, or the *whole* too long, else as probe.
    """
    shown = _pictures(path)
    if shown.still > STILL:
        advice = f"Allowed: {STILL:g} s; a damaged header causes this: write the clip again"
        raise CostError(f"{path}: one picture is shown for {shown.still:,.0f} s", advice)
    if whole and shown.seconds > ffmpeg.LONGEST:
        raise ffmpeg.too_long(path)
    return shown.still


@kept_by_file
def first_picture(path: Path) -> float:
    """Return when a file's first picture is shown, in seconds, as ffmpeg's decoder gives it.

    ffmpeg counts from the start of the file's first stream. In a fragmented mp4 whose pictures
    begin later than its sound, only the first picture lasts longer than the others, and not for a
    whole number of frames: then its time is counted back from the second.
    """
    # Decoded, because earlier packets may be there only as references for decoding.
    times = _first_times(path, 4)
    if len(times) < 4:
        return times[0] if times else 0.0
    long, short, third = (b - a for a, b in pairwise(times))
    odd = long > short and abs(long / short - round(long / short)) * short > ROUNDING
    return times[1] - short if odd and abs(short - third) < ROUNDING else times[0]


@kept_by_file
def picture_zero(path: Path) -> float:
    """Return when a file's first picture is shown by its own time stamps, in seconds.

    It is later than :func:`first_picture` where an edit list begins within a picture: ffmpeg moves
    the next picture to the cut, and not the sound. Raises ClipError for an AVI with B-frames.
    """
    first, packet = first_picture(path), _pictures(path).first
    if packet is None:
        raise _no_picture(path)
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


def _first_times(path: Path, count: int) -> list[float]:
    """Return when a file's first pictures are shown, in seconds from the file's start."""
    stream = probe(path).chosen("video")
    command = [*reading(path, "-v", "error", "-xerror"), "-map", f"0:{stream}"]
    # ffmpeg would cut off negative times of pictures, and round them to whole frames.
    command += ["-vf", f"setpts=PTS+{ffmpeg.LONGEST}/TB", "-enc_time_base", "1/1000000"]
    command += ["-frames:v", str(count), "-f", "framecrc", "-"]
    with ffmpeg_process.command_output(command, path, Limits.decoding(pixels(path))) as pipe:
        lines = pipe.read().decode(errors="replace")
    unit = re.search(r"(?m)^#tb 0: (\d+)/(\d+)", lines)
    times = re.findall(r"(?m)^0, *-?\d+, *(-?\d+), *\d+, *\d+, *\w+", lines)
    if not unit or not times:
        raise _no_picture(path)
    second = int(unit[2]) / int(unit[1])
    return [int(time) / second - ffmpeg.LONGEST for time in times if time != NO_TIME]


def _no_picture(path: Path) -> ClipError:
    return ClipError(f"{path}: holds no picture", "Write the clip again")
