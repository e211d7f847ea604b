"""Sound of a clip: 16,000 samples a second, one channel."""

from __future__ import annotations

import math
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import Audible
from spfem_bench.errors import ClipError
from spfem_bench.media import ffmpeg
from spfem_bench.media.video import FRAME_RATE, check_length, span_frames

SAMPLE_RATE = 16_000
"""Samples a second of all decoded sound; SyncNet's."""

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE

LEVEL_SAMPLES = 5 * SAMPLES_PER_FRAME
"""Samples over which a level is taken: 0.2 s, one window of SyncNet."""

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


def level(samples: npt.NDArray[np.int16]) -> float:
    """Return how loud the loudest 0.2 s of a sound are, in dB of full scale.

    It is the standard deviation, so a constant offset counts as silence: -inf. White noise of
    one step of 16 bits has -90 dB.

    Args:
        samples: int16 (N,), 16 kHz. A remainder below 0.2 s is left out, where there is more.
    """
    if len(samples) == 0:
        return -math.inf
    whole = len(samples) // LEVEL_SAMPLES * LEVEL_SAMPLES or len(samples)
    parts = samples[:whole].reshape(-1, min(whole, LEVEL_SAMPLES))
    loudest = max(float(part.std(dtype=np.float64)) for part in parts)
    return 20 * math.log10(loudest / 32768) if loudest else -math.inf


def check_audible(clip: Clip, mixed: npt.NDArray[np.int16], rule: Audible) -> None:
    """Refuse a clip whose sound holds nothing that lips could belong to.

    Args:
        clip: without an edit.
        mixed: its :func:`samples`.
        rule: which sound is silent.

    Raises:
        ClipError: the sound holds numbers that are not finite, its channels cancel out in the
            mix, or it is silent.
    """
    if not len(mixed):
        return  # too short, which whatever needs some sound reports
    channels, path = stream(clip)
    # No 'ac': the channels as they are. Floating point, in which NaN stays NaN.
    output = channels.output("pipe:", format="wav", acodec="pcm_f32le", ar=SAMPLE_RATE)
    with ffmpeg.decoding(output, path) as pipe:
        powers, wrong = _channel_powers(pipe)
    problem = ""
    if wrong:
        problem = f"its sound holds {wrong:,} samples that are not numbers (NaN or infinite)"
    elif len(powers) > 1 and powers.any():
        power = float((mixed / 32768).var())
        below = 10 * math.log10(powers.mean() / power) if power else math.inf
        if below > rule.cancelled:
            problem = f"its sound is silent: the mix of its {len(powers)} channels cancels out"
            problem += f" (it is {below:.0f} dB below them)" if power else ""
    if not problem and level(mixed) < rule.silence:
        problem = f"its sound is silent: nothing in it is above {rule.silence:g} dB of full scale"
    if problem:
        raise ClipError(f"{clip}: {problem}", _mux_hint(path))


def _channel_powers(wav: IO[bytes]) -> tuple[npt.NDArray[np.float64], int]:
    """Return each channel's variance, and how many values are not finite, of ffmpeg's float WAV."""
    wav.read(12)  # RIFF, size, WAVE
    count = 1
    while len(head := wav.read(8)) == 8 and head[:4] != b"data":
        chunk = wav.read(int.from_bytes(head[4:], "little"))
        if head[:4] == b"fmt ":
            count = int.from_bytes(chunk[2:4], "little")
    total, squares = np.zeros(count), np.zeros(count)
    n, wrong = 0, 0
    row = 4 * count
    while content := wav.read(row << 16):
        block = np.frombuffer(content[: len(content) // row * row], "<f4").reshape(-1, count)
        finite = np.isfinite(block)
        wrong += int(block.size - finite.sum())
        wide = np.where(finite, block, 0).astype(np.float64)
        total += wide.sum(axis=0)
        squares += (wide**2).sum(axis=0)
        n += len(block)
    return np.maximum(0, squares / max(n, 1) - (total / max(n, 1)) ** 2), wrong
