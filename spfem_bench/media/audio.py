"""Sound of a clip: 16,000 samples a second, one channel."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

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

JITTER = SAMPLE_RATE // 400
"""Samples by which time stamps may differ from where the sound before them ends: 2.5 ms, Opus's
shortest packet. Beyond that, packets are missing, or there are two for one moment."""

AROUND = 3
"""Blocks before and after each one: the median of their time stamps decides its place."""


def samples(clip: Clip) -> npt.NDArray[np.int16]:
    """Return a clip's sound, mixed to one channel, at 16 kHz.

    Sample 0 belongs to the first picture of the file that holds the sound, or, where it holds
    no picture, to its first sample. All others stand where their time stamps put them: what is
    missing is silence, and what comes before the first picture is left out.

    Returns:
        int16 array of shape (samples,).

    Raises:
        ClipError: no sound, it is damaged, or it is ambiguous which stream is meant.
        ValueError: the clip has an edit, which is applied to what this returns.
    """
    import ffmpeg as graph

    if clip.edit is not None:
        raise ValueError(f"{clip}: sound is read without the edit, which is applied to it")
    path = source(clip)
    info = ffmpeg.probe(path)
    begin = ffmpeg.picture_zero(path) if info.video else None
    first, last = span_frames(clip.span) if clip.span else (0, None)
    with ffmpeg.sized(path) as file, tempfile.TemporaryDirectory() as folder:
        # One thread: with several, ffmpeg 9 loses the first packets of FLAC behind an edit.
        stream = ffmpeg.local_input(file, threads=1)[str(info.chosen("audio"))]
        if last is not None and begin is not None:
            # Nothing is decoded that comes more than a second after the span.
            stream = stream.filter("atrim", end=repr(begin + last / FRAME_RATE + 1))
        # When the channel layout changes, ffmpeg builds its graph again: no filter counts time.
        both = (
            stream.filter("aresample")
            .filter("aformat", sample_fmts="s16", sample_rates=SAMPLE_RATE, channel_layouts="mono")
            .filter_multi_output("asplit")
        )
        stamps = Path(folder) / "stamps"
        output = graph.merge_outputs(
            both[0].output("pipe:", format="s16le"),
            both[1].output(f"file:{stamps}", format="framecrc", acodec="pcm_s16le"),
        )
        with ffmpeg.decoding(output, path) as pipe:
            content = pipe.read(LARGEST + 1)
            if len(content) > LARGEST:
                raise ffmpeg.too_long(clip)
        line = r"(?m)^0, *-?\d+, *(-?\d+), *\d+, *(\d+),"  # also its bytes
        blocks = [
            (int(time) / SAMPLE_RATE, int(size) // 2)
            for time, size in re.findall(line, stamps.read_text())
        ]
    sound = np.frombuffer(content, np.int16)
    if begin is None:
        begin = blocks[0][0] if blocks else 0.0
    placed = [(round((time - begin) * SAMPLE_RATE), count) for time, count in blocks]
    if any(start + count > ffmpeg.LONGEST * SAMPLE_RATE for start, count in placed):
        raise ffmpeg.too_long(clip)
    return _placed(sound, placed)[
        first * SAMPLES_PER_FRAME : None if last is None else last * SAMPLES_PER_FRAME
    ]


def _placed(
    sound: npt.NDArray[np.int16], blocks: Sequence[tuple[int, int]]
) -> npt.NDArray[np.int16]:
    """Put blocks of sound where they belong.

    Args:
        sound: int16 (N,): the blocks, one behind the other.
        blocks: where each begins by its time stamp, and how many samples it has.

    Returns:
        int16 (M,): from 0 to the last block's end.
    """
    counts = np.array([count for _, count in blocks], int)
    reads = np.concatenate([[0], np.cumsum(counts)])
    # By how much each would have to be moved, if all followed without a gap.
    moves = np.array([start for start, _ in blocks], int) - reads[:-1]
    pieces: list[npt.NDArray[np.int16]] = []
    end, move = 0, int(moves[0]) if blocks else 0
    for n, count in enumerate(counts):
        agreed = np.median(moves[max(0, n - AROUND) : n + AROUND + 1])
        if abs(agreed - move) > JITTER:
            move = round(agreed)
        start = reads[n] + move
        if start > end:
            pieces.append(np.zeros(start - end, np.int16))
        pieces.append(sound[reads[n] + max(0, end - start) : reads[n + 1]])
        end = max(end, start + count)
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int16)


def source(clip: Clip) -> Path:
    """Return the file that a clip's sound is read from.

    Raises:
        ClipError: no sound, or the clip lasts too long.
    """
    path = clip.audio or (None if clip.path.is_dir() else clip.path)
    if path is None:
        raise ClipError(
            f"{clip.path}: a folder of frames without a sound file",
            "Put sound.wav beside it, named after the folder, or write FOLDER#fps=30&audio=FILE",
        )
    info = ffmpeg.probe(path)
    if not info.has_audio:
        raise ffmpeg.no_sound(path)
    check_length(clip, info.seconds)
    return path
