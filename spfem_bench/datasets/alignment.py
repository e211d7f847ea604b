"""Corresponding frames of two recordings of one sentence, found by their sound.

MFCCs and their slopes, normalised for each recording, are aligned by dynamic time warping (Sakoe
and Chiba, 1978). ``benchmarks/aligner.py`` measures the error on drawn speakers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import Audible
from spfem_bench.errors import CardError, ClipError, unknown_name
from spfem_bench.extras import extra
from spfem_bench.files import files_by_stem, same_name
from spfem_bench.media import audio, headers, video
from spfem_bench.media.mfcc import mfcc

_Floats = npt.NDArray[np.float64]
Sound = npt.NDArray[np.int16]  # samples of one channel, int16 (N,), 16 kHz
PENALTY = 4.0
"""Cost of a step in one recording alone, in standard deviations; 2 to 6 do about as well."""
STEP, MIDDLE = 0.010, 0.0125  # seconds between MFCC steps, and from a step's begin to its middle
AUDIBLE = Audible()  # the rule of lip sync for silent sound
SPEAK = "Give recordings in which somebody speaks"
SHORTEST, LONGEST = 0.2, 60.0  # seconds of sound; the memory needed grows with the square
SOUNDS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4a", ".wav", ".mp3", ".flac", ".ogg", ".aac")
"""Suffixes of recordings in a folder."""


class AlignedFrames(NamedTuple):
    """Corresponding frames of two recordings."""

    # int64 (N, 2), frame numbers from 0: each frame of the first recording, and the corresponding
    # frame of the second. Neither column ever decreases.
    numbers: npt.NDArray[np.int64]
    # mean distance of the aligned features, in standard deviations: on puppets about 0.6 for one
    # sentence twice and 1.1 for two sentences
    distance: float


def check_sound(sound: Sound) -> None:
    """Raise ClipError for sound that is silent, shorter than 0.2 s or longer than a minute."""
    seconds = len(sound) / audio.SAMPLE_RATE
    if not SHORTEST <= seconds <= LONGEST:
        remedy = f"Give recordings of one sentence, {SHORTEST:g} to {LONGEST:g} s long"
        raise ClipError(f"{seconds:.2f} s of sound cannot be aligned", remedy)
    if audio.level(sound) < AUDIBLE.silence:
        raise ClipError("its sound is silent", SPEAK)


def _features(sound: Sound) -> _Floats:
    """Return 13 MFCCs and their slopes, each of mean 0 and deviation 1: (steps, 26)."""
    from python_speech_features import delta

    check_sound(sound)
    steps = mfcc(sound).astype(np.float64)
    both = np.concatenate([steps, delta(steps, 2)], axis=1)
    spread = both.std(axis=0)
    return np.ascontiguousarray((both - both.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def warp_times(a: Sound, b: Sound, times: npt.ArrayLike) -> tuple[_Floats, float]:
    """Return the times in *b* that correspond to times in *a*, and the alignment's distance.

    Times are seconds, of any shape, which the result has too; it never decreases with them.
    Raises ClipError when a sound is too short, too long, or silent.
    """
    with extra("train", "alignment by sound"):
        from dtaidistance import dtw

    x, y = _features(a), _features(b)
    # The plain recurrence of the three steps, on squared Euclidean distances.
    path = np.array(dtw.warping_path_fast(x, y, penalty=PENALTY))
    distance = float(np.sqrt(((x[path[:, 0]] - y[path[:, 1]]) ** 2).mean(axis=1)).mean())
    # A step of a that is aligned with several of b corresponds to their middle.
    middle = np.bincount(path[:, 0], path[:, 1]) / np.bincount(path[:, 0])
    own = np.arange(len(x)) * STEP + MIDDLE
    warped = np.interp(np.asarray(times, np.float64), own, middle * STEP + MIDDLE)
    return np.asarray(warped), distance


def align(
    a: Sound, b: Sound, frame_rate: float = 25.0, frames: tuple[int, int] | None = None
) -> AlignedFrames:
    """Return the corresponding frames of two recordings of one sentence.

    Sample 0 belongs to the begin of frame 0; frame i shows the time ``(i + 0.5) / frame_rate``.
    *frames* are how many each has; as many as the sounds last when None. Raises ClipError for too
    short, too long or silent sounds or no frames, CardError for a wrong frame rate.
    """
    if not (np.isfinite(frame_rate) and frame_rate > 0):
        raise CardError(f"the frame rate is {frame_rate}", "Give a positive number, such as 25")
    for sound in (a, b):
        check_sound(sound)
    sounding = [int(len(sound) / audio.SAMPLE_RATE * frame_rate + 1e-6) for sound in (a, b)]
    counts = [min(pair) for pair in zip(sounding, frames or sounding, strict=True)]
    if min(counts) < 2:
        problem = f"{min(counts)} frames of sound and picture cannot be aligned"
        raise ClipError(problem, "Give a whole sentence")
    numbers = np.arange(counts[0])
    times, distance = warp_times(a, b, (numbers + 0.5) / frame_rate)
    shown = np.clip(np.floor(times * frame_rate), 0, counts[1] - 1)
    return AlignedFrames(np.stack([numbers, shown], 1).astype(np.int64), distance)


def align_clips(a: Clip, b: Clip, frame_rate: float = 25.0) -> AlignedFrames:
    """Return the corresponding frames of two clips: videos, sound files or folders with sound.

    Raises as :func:`align`, and ClipError when one is unreadable or without sound; names the clip.
    """
    sounds = [audio.samples(clip) for clip in (a, b)]
    for clip, sound in zip((a, b), sounds, strict=True):
        try:
            audio.check_audible(clip, sound, AUDIBLE)
        except ClipError as error:
            raise ClipError(error.problem, SPEAK) from error
        try:
            check_sound(sound)
        except ClipError as error:
            raise ClipError(f"{clip}: {error.problem}", error.remedy) from error
    counts = _frame_count(a, frame_rate), _frame_count(b, frame_rate)
    try:
        return align(sounds[0], sounds[1], frame_rate, counts)
    except ClipError as error:
        raise ClipError(f"{a} and {b}: {error.problem}", error.remedy) from error


def _frame_count(clip: Clip, frame_rate: float) -> int:
    if not clip.path.is_dir() and headers.probe(clip.path).size is None:
        return 2**31  # sound alone
    return int(sum(1 for _ in video.frames(clip)) / video.FRAME_RATE * frame_rate + 1e-6)


def matched_names(
    a: Path, b: Path, only: Sequence[str] = ()
) -> tuple[list[tuple[Path, Path]], int]:
    """Return the recordings of two folders that have one name, and how many are left over.

    *only* are names without suffix, or ``001=028`` where the names differ; all when empty. Raises
    UnknownNameError when one of them is not there, ClipError for no folder, two recordings of one
    name in one, or no name in both.
    """
    remedy = "Give two folders, or two recordings"
    first, second = (files_by_stem(folder, SOUNDS, remedy) for folder in (a, b))
    if only:
        parts = [same_name(name).partition("=") for name in only]
        names = list(dict.fromkeys((own, other or own) for own, _, other in parts))
    else:
        names = [(name, name) for name in sorted(first) if name in second]
    for pair in names:
        for folder, name, files in zip((a, b), pair, (first, second), strict=True):
            if name not in files:
                raise unknown_name(f"recording in {folder}", name, files)
    if not names:
        remedy = f"Name recordings of one sentence alike; allowed: {', '.join(SOUNDS)}"
        raise ClipError(f"{a} and {b} hold no recordings of one name", remedy)
    left = len(first) - len({x for x, _ in names}) + len(second) - len({y for _, y in names})
    return [(first[x], second[y]) for x, y in names], left
