"""Every picture of a clip, at the clip's own rate, and its sound as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import ClipError
from spfem_bench.media import ffmpeg, ffmpeg_process
from spfem_bench.media.ffmpeg import SCALER
from spfem_bench.media.headers import no_sound, pixels, probe, sized
from spfem_bench.media.video import Frame, cropped_stream, read_ppm

COUNTED = 30
"""Pictures a second that ffmpeg is told; pictures are counted, so any number gives the same."""


def every_picture(clip: Clip) -> Iterator[Frame]:
    """Yield each picture of a clip once, uint8 (height, width, 3), RGB, whatever its time.

    Raises ClipError where it cannot be read, or its address names a part of the time.
    """
    if clip.span is not None:
        raise ClipError(f"{clip}: every picture is read", "Leave out t=, or cut the clip")
    stream, stdin = cropped_stream(clip)
    stream = stream.filter("settb", f"1/{COUNTED}").filter("setpts", "N")
    stream = stream.filter("fps", COUNTED).filter("scale", flags=SCALER)
    output = stream.output("pipe:", format="image2pipe", vcodec="ppm", pix_fmt="rgb24")
    count = 0
    with ffmpeg_process.decoding(output, clip.path, stdin, pixels=pixels(clip.path)) as pipe:
        while (picture := read_ppm(pipe)) is not None:
            count += 1
            yield picture
    if count == 0:
        raise ClipError(f"{clip}: holds no frame", "Write the clip again")


def own_rate(clip: Clip) -> float:
    """Return a clip's pictures a second, as its address or its file's header says; else 0."""
    if clip.path.is_dir():
        return clip.frame_rate or 0.0
    header = ffmpeg_process.header_text(clip.path)
    match = re.search(r"(?m)^.*?Stream #0:.*?Video:.*?, (\d+(?:\.\d+)?) fps", header)
    return float(match[1]) if match else 0.0


def write_sound(source: Path, target: Path) -> None:
    """Write a file's sound as WAV of 16 bits, its rate and channels kept; ClipError without any.

    It begins where the file's sound begins; the file's own times are not applied.
    """
    info = probe(source)
    if not info.has_audio:
        raise no_sound(source)
    with sized(source) as file:
        stream = ffmpeg.local_input(file, threads=1)[str(info.chosen("audio"))]
        exact = {"map_metadata": -1, "fflags": "+bitexact", "flags:a": "+bitexact"}
        node = stream.output(f"file:{target}", format="wav", acodec="pcm_s16le", **exact)
        node = node.overwrite_output()
        with ffmpeg_process.decoding(node, source, pixels=0) as pipe:
            pipe.read()
