"""Sound of a clip as librosa loads it: float32 from -1 to 1, 16,000 samples a second."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import ClipError
from spfem_bench.media import ffmpeg
from spfem_bench.media.audio import SAMPLE_RATE, placed_blocks, sound_file, stamped_blocks
from spfem_bench.media.ffmpeg_process import decoding
from spfem_bench.media.headers import probe, sized
from spfem_bench.media.packets import picture_zero
from spfem_bench.media.video import own_rate, span_frames

_Floats = npt.NDArray[np.float32]

MOST = ffmpeg.LONGEST * 48_000
"""Samples of the longest sound, before it is resampled."""


def own_sound(clip: Clip) -> _Floats:
    """Return a clip's sound as ``librosa.load(sr=16000)`` does: float32 (samples,), -1 to 1.

    The mean of all channels at the file's rate, then soxr's ``HQ`` (20 bits), here by ffmpeg. Where
    the file has pictures too, sample 0 belongs to the first. ``skip=`` drops so many times
    ``16000 // rate`` whole samples, as the papers' script; a span is counted the same way. Raises
    ClipError where there is no sound or it is damaged, or ffmpeg lacks soxr.
    """
    if clip.edit is not None:
        raise ValueError(f"{clip}: sound is read without the edit, which is applied to it")
    mono, rate = _mono(clip)
    sound = mono if rate == SAMPLE_RATE else _resampled(mono, rate, sound_file(clip))
    if not (clip.skip or clip.span):
        return sound
    pictures = own_rate(clip)
    sound = sound[clip.skip * samples_per_frame(pictures) :]
    if clip.span:
        first, last = span_frames(clip.span, pictures)
        sound = sound[round(first / pictures * SAMPLE_RATE) : round(last / pictures * SAMPLE_RATE)]
    return sound


def samples_per_frame(rate: float) -> int:
    """Return the whole number of samples that the papers' script counts for one picture.

    >>> samples_per_frame(30)
    533
    """
    return int(SAMPLE_RATE / rate + 1e-6)


def _mono(clip: Clip) -> tuple[_Floats, int]:
    """Return the mean of a sound's channels, float32 (samples,), and its samples a second."""
    import ffmpeg as graph

    path = sound_file(clip)
    info = probe(path)
    begin = picture_zero(path) if info.video else None
    with sized(path) as file, tempfile.TemporaryDirectory() as folder:
        stream = ffmpeg.local_input(file, threads=1, **{"reinit_filter:a": 0})
        both = stream[str(info.chosen("audio"))].filter_multi_output("asplit")
        stamps = Path(folder) / "stamps"
        times = both[1].output(f"file:{stamps}", format="framecrc", acodec="pcm_f32le")
        wav = both[0].output("pipe:", format="wav", acodec="pcm_f32le")
        with decoding(graph.merge_outputs(wav, times), path, pixels=0) as pipe:
            channels, rate = _wav_header(pipe, path)
            pieces, total = [], 0
            for block in _wav_blocks(pipe, channels):
                pieces.append(block.mean(axis=1))
                total += len(block)
                if total > MOST:
                    raise ffmpeg.too_long(clip)
        starts, counts = stamped_blocks(stamps, begin, rate, 4 * channels)
    if (starts + counts > MOST).any():
        raise ffmpeg.too_long(clip)
    sound = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    return placed_blocks(sound, starts, counts), rate


def _wav_header(wav: IO[bytes], path: Path) -> tuple[int, int]:
    """Return the channels and the samples a second of a WAV, read up to its data."""
    wav.read(12)  # RIFF, size, WAVE
    channels = rate = 0
    while len(head := wav.read(8)) == 8 and head[:4] != b"data":
        chunk = wav.read(int.from_bytes(head[4:], "little"))
        if head[:4] == b"fmt ":
            channels = int.from_bytes(chunk[2:4], "little")
            rate = int.from_bytes(chunk[4:8], "little")
    if not (channels and rate):
        raise ClipError(f"{path}: its sound cannot be read", "Write it again")
    return channels, rate


def _wav_blocks(wav: IO[bytes], channels: int) -> Iterator[_Floats]:
    """Yield a WAV's samples, float32 (samples, channels)."""
    row = 4 * channels
    while content := wav.read(row << 16):
        whole = content[: len(content) // row * row]
        yield np.frombuffer(whole, "<f4").reshape(-1, channels)


def _resampled(sound: _Floats, rate: int, path: Path) -> _Floats:
    """Return sound at 16 kHz by soxr; with librosa's own it agrees to the last bit."""
    import ffmpeg as graph

    if not ffmpeg.has_soxr():
        raise ClipError(
            f"{path}: its {rate} samples a second need soxr, which the ffmpeg in use lacks",
            f"Write it at 16 kHz, or put another ffmpeg before {ffmpeg.program()} in PATH",
        )
    blocks = (sound[i : i + (1 << 18)].tobytes() for i in range(0, len(sound), 1 << 18))
    stream = graph.input("pipe:0", format="f32le", ar=rate, ac=1)
    stream = stream.filter("aresample", SAMPLE_RATE, resampler="soxr", precision=20)
    output = stream.output("pipe:", format="f32le", acodec="pcm_f32le")
    with decoding(output, path, blocks, pixels=0) as pipe:
        return np.frombuffer(pipe.read(), "<f4").astype(np.float32)
