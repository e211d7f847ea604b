"""Sound of a clip: 16,000 samples a second, one channel."""

from __future__ import annotations

import math
import re
import tempfile
from array import array
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import Audible
from spfem_bench.errors import ClipError
from spfem_bench.media import ffmpeg
from spfem_bench.media.ffmpeg_process import decoding
from spfem_bench.media.headers import no_sound, probe, sized
from spfem_bench.media.packets import picture_zero
from spfem_bench.media.video import FRAME_RATE, check_length, own_rate, span_frames

Samples = npt.NDArray[np.int16] | npt.NDArray[np.float32]
"""Mixed sound: whole numbers of 16 bits, or -1 to 1."""

_Sample = TypeVar("_Sample", np.int16, np.float32)

SAMPLE_RATE = 16_000
"""Samples a second of all decoded sound; SyncNet's."""

SAMPLES_PER_FRAME = SAMPLE_RATE // FRAME_RATE

LEVEL_SAMPLES = 5 * SAMPLES_PER_FRAME
"""Samples over which a level is taken: 0.2 s, one window of SyncNet."""

LARGEST = ffmpeg.LONGEST * SAMPLE_RATE * 2
"""Bytes of the longest sound."""

JITTER = SAMPLE_RATE // 400
"""Samples by which time stamps may differ from the end of the sound before: 2.5 ms."""

AROUND = 3
"""Blocks before and after each one: the median of their time stamps decides its place."""

FAR = 1 << 40
"""Samples: two years."""


def samples(clip: Clip) -> npt.NDArray[np.int16]:
    """Return a clip's sound, mixed to one channel, at 16 kHz: int16 (samples,).

    Sample 0 belongs to the first picture of the file, if any. The others are placed by their time
    stamps: missing sound is silence, and sound before the first picture is left out, as are the
    frames that ``skip=`` says the pictures lack. Raises ClipError where there is none, or it is
    damaged; ValueError for a clip with an edit.
    """
    import ffmpeg as graph

    if clip.edit is not None:
        raise ValueError(f"{clip}: sound is read without the edit, which is applied to it")
    path = sound_file(clip)
    info = probe(path)
    begin = picture_zero(path) if info.video else None
    first, last = span_frames(clip.span) if clip.span else (0, None)
    lead = clip.skip / own_rate(clip) if clip.skip else 0.0
    with sized(path) as file, tempfile.TemporaryDirectory() as folder:
        # One thread: with several, ffmpeg 9 loses the first packets of FLAC behind an edit.
        stream = ffmpeg.local_input(file, threads=1)[str(info.chosen("audio"))]
        if last is not None and begin is not None:
            # Decoding ends a second after the span.
            stream = stream.filter("atrim", end=repr(begin + lead + last / FRAME_RATE + 1))
        # No filter counts time: ffmpeg builds its graph again when the channel layout changes.
        mixed = {"sample_fmts": "s16", "sample_rates": SAMPLE_RATE, "channel_layouts": "mono"}
        both = stream.filter("aresample").filter("aformat", **mixed).filter_multi_output("asplit")
        stamps = Path(folder) / "stamps"
        times = both[1].output(f"file:{stamps}", format="framecrc", acodec="pcm_s16le")
        output = graph.merge_outputs(both[0].output("pipe:", format="s16le"), times)
        with decoding(output, path, pixels=0) as pipe:
            content = pipe.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise ffmpeg.too_long(clip)
        starts, counts = stamped_blocks(stamps, begin)
    sound = np.frombuffer(content, np.int16)
    if (starts + counts > ffmpeg.LONGEST * SAMPLE_RATE).any():
        raise ffmpeg.too_long(clip)
    placed = placed_blocks(sound, starts, counts)
    placed = placed[round(lead * SAMPLE_RATE) + first * SAMPLES_PER_FRAME :]
    return placed if last is None else placed[: (last - first) * SAMPLES_PER_FRAME]


def stamped_blocks(
    stamps: Path, begin: float | None, rate: int = SAMPLE_RATE, width: int = 2
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return where blocks of sound begin, and how many samples each has: int64 (blocks,) each.

    *stamps* is what ffmpeg's ``framecrc`` writes at *rate* samples a second of *width* bytes;
    *begin* is the time of sample 0 in seconds, that of the first block when None.
    """
    starts, counts = array("q"), array("q")
    with stamps.open() as lines:
        for line in lines:
            row = re.match(r"0, *-?\d+, *(-?\d+), *\d+, *(\d+),", line)
            if row is None:
                continue
            time = int(row[1]) / rate
            begin = time if begin is None else begin
            # A time stamp may be any number of 64 bits: it is clipped far beyond the limit.
            starts.append(max(-FAR, min(FAR, round((time - begin) * rate))))
            counts.append(int(row[2]) // width)
    return np.array(starts, np.int64), np.array(counts, np.int64)


def placed_blocks(
    sound: npt.NDArray[_Sample], starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[_Sample]:
    """Return sound, (M,), in which each block stands where its time stamp is."""
    reads = np.concatenate([[0], np.cumsum(counts)])
    # The distance of each block from its place without gaps.
    moves = starts - reads[:-1]
    pieces: list[npt.NDArray[_Sample]] = []
    end, move = 0, int(moves[0]) if len(moves) else 0
    for n, count in enumerate(counts):
        agreed = np.median(moves[max(0, n - AROUND) : n + AROUND + 1])
        if abs(agreed - move) > JITTER:
            move = round(agreed)
        start = reads[n] + move
        if start > end:
            pieces.append(np.zeros(start - end, sound.dtype))
        pieces.append(sound[reads[n] + max(0, end - start) : reads[n + 1]])
        end = max(end, start + count)
    return np.concatenate(pieces) if pieces else sound[:0]


def sound_file(clip: Clip) -> Path:
    """Return the file of a clip's sound; raise ClipError when it has none, or is too long."""
    path = clip.audio or (None if clip.path.is_dir() else clip.path)
    if path is None:
        raise ClipError(
            f"{clip.path}: a folder of frames without a sound file",
            "Put sound.wav beside it, named after the folder, or write FOLDER#fps=30&audio=FILE",
        )
    info = probe(path)
    if not info.has_audio:
        raise no_sound(path)
    check_length(clip, info.seconds)
    return path


def level(samples: Samples) -> float:
    """Return the standard deviation of the loudest 0.2 s of sound, in dB of full scale.

    Full scale is 32768 of int16 samples, 1 of float32 ones.
    """
    if len(samples) == 0:
        return -math.inf
    whole = len(samples) // LEVEL_SAMPLES * LEVEL_SAMPLES or len(samples)
    parts = samples[:whole].reshape(-1, min(whole, LEVEL_SAMPLES))
    loudest = max(float(part.std(dtype=np.float64)) for part in parts)
    return 20 * math.log10(loudest / _full_scale(samples)) if loudest else -math.inf


def _full_scale(samples: Samples) -> float:
    return 32768.0 if samples.dtype == np.int16 else 1.0


def check_audible(clip: Clip, mixed: Samples, rule: Audible) -> None:
    """Raise ClipError for a clip whose sound, *mixed*, is silent, cancels out or is not finite."""
    if not len(mixed):
        return  # too short: reported where sound is needed
    path = sound_file(clip)
    powers, wrong = np.zeros(0), 0
    with suppress(ClipError):  # channels that change in the stream: the mix alone is judged
        powers, wrong = _channel_powers(clip, path)
    problem = sound_problem(mixed, rule, powers, wrong)
    if problem:
        raise ClipError(f"{clip}: {problem}", no_sound(path).remedy)


def sound_problem(
    mixed: Samples, rule: Audible, powers: npt.NDArray[np.float64], wrong: int
) -> str:
    """Return why sound is none, or nothing: silent, not finite, or its channels cancel out.

    *powers* are the variances of its channels, and *wrong* is how many values are not finite.
    """
    if wrong:
        return f"its sound holds {wrong:,} samples that are not numbers (NaN or infinite)"
    if len(powers) > 1 and powers.any():
        power = float((mixed / _full_scale(mixed)).var())
        below = 10 * math.log10(powers.mean() / power) if power else math.inf
        if below > rule.cancelled:
            problem = f"its sound is silent: the mix of its {len(powers)} channels cancels out"
            return problem + (f" (it is {below:.0f} dB below them)" if power else "")
    if level(mixed) < rule.silence:
        return f"its sound is silent: nothing in it is above {rule.silence:g} dB of full scale"
    return ""


def _channel_powers(clip: Clip, path: Path) -> tuple[npt.NDArray[np.float64], int]:
    """Return the variance of each channel of a clip's sound, and how many values are not finite."""
    info = probe(path)
    with sized(path) as file:
        stream = ffmpeg.local_input(file, threads=1)[str(info.chosen("audio"))]
        if clip.span:
            begin = picture_zero(path) if info.video else 0.0
            start, end = (begin + n / FRAME_RATE for n in span_frames(clip.span))
            stream = stream.filter("atrim", start=repr(start), end=repr(end))
        # No 'ac': the channels as they are. Floating point, in which NaN stays NaN.
        output = stream.output("pipe:", format="wav", acodec="pcm_f32le", ar=SAMPLE_RATE)
        with decoding(output, path, pixels=0) as pipe:
            return _powers(pipe)


def _powers(wav: IO[bytes]) -> tuple[npt.NDArray[np.float64], int]:
    """Return the variance of each channel of a float WAV, and how many values are not finite."""
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
