"""Sound of a clip: 16,000 samples a second, one channel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import ClipError
from spfem_bench.media import ffmpeg
from spfem_bench.media.video import FRAME_RATE, check_length, span_frames

SAMPLE_RATE = 16_000
"""Samples a second of all decoded sound; SyncNet's."""

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE

LARGEST = ffmpeg.LONGEST * SAMPLE_RATE * 2
"""Bytes of the longest sound."""


def samples(clip: Clip) -> npt.NDArray[np.int16]:
    """Return a clip's sound, mixed to one channel, at 16 kHz.

    Sound that begins after the picture is padded with silence in front, so that
    sample 0 and frame 0 belong to the same moment.

    Returns:
        int16 array of shape (samples,).

    Raises:
        ClipError: no sound, or it is damaged.
        ValueError: the clip has an edit, which is applied to what this returns.
    """
    if clip.edit is not None:
        raise ValueError(f"{clip}: sound is read without the edit, which is applied to it")
    heard, path = stream(clip)
    output = heard.output("pipe:", format="s16le", ac=1, ar=SAMPLE_RATE)
    with ffmpeg.decoding(output, path) as pipe:
        content = pipe.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise ffmpeg.too_long(clip)
    return np.frombuffer(content[: len(content) // 2 * 2], np.int16)


def stream(clip: Clip) -> tuple[Any, Path]:
    """Return an ffmpeg-python stream of a clip's sound in its span, and the file it is read from.

    Raises:
        ClipError: no sound.
    """
    path = clip.audio or (None if clip.path.is_dir() else clip.path)
    if path is None:
        raise ClipError(
            f"{clip.path}: a folder of frames without a sound file",
            "Put sound.wav beside it, named after the folder, or write FOLDER#fps=30&audio=FILE",
        )
    info = ffmpeg.probe(path)
    if not info.has_audio:
        raise ClipError(f"{path}: has no sound", _mux_hint(path))
    check_length(clip, info.seconds)
    heard = ffmpeg.local_input(path).audio.filter("aresample", **{"async": 1, "first_pts": 0})
    if clip.span:
        first, last = (n / FRAME_RATE for n in span_frames(clip.span))  # as the picture is cut
        heard = heard.filter("atrim", start=first, end=last)
    return heard, path


def _mux_hint(path: Path) -> str:
    return (
        "Add the source's sound: "
        f"ffmpeg -i {path.name} -i SOURCE -map 0:v -map 1:a -c copy WITH_SOUND.mp4"
    )
