"""Which frames of two recordings of one sentence say the same: by their sound.

MFCCs and their slopes, freed of each recording's own level and spread, are laid over each
other by dynamic time warping (Sakoe and Chiba, 1978; the package dtaidistance). A speaker's
emotion changes pitch, loudness and pace, but hardly the order of his sounds.

On puppets, whose correspondence is known, ``benchmarks/aligner.py`` measures the error: over
108 pairs of readings by speakers and of sentences that nothing was chosen with, 5.9 ms on
average, 18 ms at the 95th percentile, 99.1 % of frames at most one frame (40 ms) off, against
47 ms, 112 ms and 49 % of a linear stretch. Puppets pronounce evenly: people will be harder.
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
from spfem_bench.files import same_name
from spfem_bench.media import audio, headers, video
from spfem_bench.media.mfcc import mfcc

Sound = npt.NDArray[np.int16]
"""Samples of one channel, int16 (N,), 16 kHz."""

Floats = npt.NDArray[np.float64]

PENALTY = 4.0
"""Price of a step in one recording alone, in standard deviations of the features.

Without it a path wanders within long sounds, where all steps are alike. From 2 to 6 the error
on the puppets that it was chosen with (training speakers and sentences) is about the same.
"""

STEP, MIDDLE = 0.010, 0.0125
"""Seconds between MFCC steps, and from a step's begin to its middle."""

AUDIBLE = Audible()
"""Which sound is silent: the rule of lip sync."""

SPEAK = "Give recordings in which somebody speaks"

SHORTEST, LONGEST = 0.2, 60.0
"""Seconds of sound that can be aligned; the memory needed grows with the square."""

SOUNDS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4a", ".wav", ".mp3", ".flac", ".ogg", ".aac")
"""Recordings in a folder."""


class Alignment(NamedTuple):
    """Frames that say the same.

    Attributes:
        numbers: int64 (N, 2), frame numbers from 0: each frame of the first recording, and
            the frame of the second that belongs to it. Neither column ever decreases.
        distance: mean distance of the sounds laid over each other, in standard deviations of
            the features: 0 for a recording and itself, about 0.6 for one sentence twice and
            1.1 for two sentences, on puppets.
    """

    numbers: npt.NDArray[np.int64]
    distance: float


def check(sound: Sound) -> None:
    """Refuse sound that cannot be aligned.

    Raises:
        ClipError: less than 0.2 s or more than a minute, or silence.
    """
    seconds = len(sound) / audio.SAMPLE_RATE
    if not SHORTEST <= seconds <= LONGEST:
        raise ClipError(
            f"{seconds:.2f} s of sound cannot be aligned",
            f"Give recordings of one sentence, {SHORTEST:g} to {LONGEST:g} s long",
        )
    if audio.level(sound) < AUDIBLE.silence:
        raise ClipError("its sound is silent", SPEAK)


def features(sound: Sound) -> Floats:
    """Return what is compared: 13 MFCCs and their slopes, each of mean 0 and deviation 1.

    Args:
        sound: int16 (N,), 16 kHz.

    Returns:
        float64 (steps, 26), one row every 10 ms.

    Raises:
        ClipError: less than 0.2 s or more than a minute, or silence.
    """
    from python_speech_features import delta

    check(sound)
    steps = mfcc(sound).astype(np.float64)
    both = np.concatenate([steps, delta(steps, 2)], axis=1)
    spread = both.std(axis=0)
    return np.ascontiguousarray((both - both.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def warp(a: Sound, b: Sound, times: npt.ArrayLike) -> tuple[Floats, float]:
    """Return when *b* says what *a* says at the given times, and how well the two agree.

    Args:
        a: int16 (N,), 16 kHz.
        b: int16 (M,), 16 kHz: the same sentence.
        times: seconds in *a*, any shape.

    Returns:
        Seconds in *b*, float64 of the shape of *times*, never decreasing with them; and the
        distance of :class:`Alignment`.

    Raises:
        ClipError: a sound is too short, too long, or silent.
    """
    with extra("train", "alignment by sound"):
        from dtaidistance import dtw

    x, y = features(a), features(b)
    # The plain recurrence of the three steps, on squared Euclidean distances.
    path = np.array(dtw.warping_path_fast(x, y, penalty=PENALTY))
    distance = float(np.sqrt(((x[path[:, 0]] - y[path[:, 1]]) ** 2).mean(axis=1)).mean())
    # A step of a that is laid over several of b belongs to their middle.
    middle = np.bincount(path[:, 0], path[:, 1]) / np.bincount(path[:, 0])
    own = np.arange(len(x)) * STEP + MIDDLE
    found = np.interp(np.asarray(times, np.float64), own, middle * STEP + MIDDLE)
    return np.asarray(found), distance


def align(
    a: Sound, b: Sound, frame_rate: float = 25.0, frames: tuple[int, int] | None = None
) -> Alignment:
    """Return which frames of two recordings of one sentence say the same.

    Args:
        a: int16 (N,), 16 kHz; sample 0 belongs to the begin of frame 0.
        b: int16 (M,), 16 kHz.
        frame_rate: frames a second; frame i shows the time ``(i + 0.5) / frame_rate``.
        frames: how many there are of each; as many as the sounds last when None.

    Raises:
        ClipError: a sound is too short, too long, or silent, or there are no frames.
        CardError: the frame rate is not a positive number.
    """
    if not (np.isfinite(frame_rate) and frame_rate > 0):
        raise CardError(f"the frame rate is {frame_rate}", "Give a positive number, such as 25")
    for sound in (a, b):
        check(sound)
    heard = [int(len(sound) / audio.SAMPLE_RATE * frame_rate + 1e-6) for sound in (a, b)]
    counts = [min(pair) for pair in zip(heard, frames or heard, strict=True)]
    if min(counts) < 2:
        raise ClipError(
            f"{min(counts)} frames of sound and picture cannot be aligned", "Give a whole sentence"
        )
    numbers = np.arange(counts[0])
    times, distance = warp(a, b, (numbers + 0.5) / frame_rate)
    shown = np.clip(np.floor(times * frame_rate), 0, counts[1] - 1)
    return Alignment(np.stack([numbers, shown], 1).astype(np.int64), distance)


def align_clips(a: Clip, b: Clip, frame_rate: float = 25.0) -> Alignment:
    """Return which frames of two recorded clips say the same.

    Where a recording has a picture, frames that it does not have are not named.

    Args:
        a: the first recording: a video, a sound file, or a folder of frames with sound.
        b: the second, of the same sentence.
        frame_rate: at which frames are numbered.

    Raises:
        ClipError: unreadable, without sound, too short, too long, or silent; names the clip.
        CardError: the frame rate is not a positive number.
    """
    sounds = [audio.samples(clip) for clip in (a, b)]
    for clip, sound in zip((a, b), sounds, strict=True):
        try:
            audio.check_audible(clip, sound, AUDIBLE)
        except ClipError as error:
            raise ClipError(error.problem, SPEAK) from error
        try:
            check(sound)
        except ClipError as error:
            raise ClipError(f"{clip}: {error.problem}", error.remedy) from error
    frames = [_frames(clip, frame_rate) for clip in (a, b)]
    try:
        return align(sounds[0], sounds[1], frame_rate, (frames[0], frames[1]))
    except ClipError as error:
        raise ClipError(f"{a} and {b}: {error.problem}", error.remedy) from error


def _frames(clip: Clip, frame_rate: float) -> int:
    if not clip.path.is_dir() and headers.probe(clip.path).size is None:
        return 2**31  # sound alone
    return int(sum(1 for _ in video.frames(clip)) / video.FRAME_RATE * frame_rate + 1e-6)


def matched_names(
    a: Path, b: Path, only: Sequence[str] = ()
) -> tuple[list[tuple[Path, Path]], int]:
    """Return which recordings of two folders say the same, by their names.

    Args:
        a: a folder of videos or sound files.
        b: another; suffixes may differ.
        only: those wanted: names without suffix, or ``001=028`` where the names differ; all
            of one name when empty.

    Returns:
        The files of both, in order; and how many recordings are left over, of both.

    Raises:
        UnknownNameError: a recording that is asked for is not there.
        ClipError: no folder, two recordings of one name in one, or no name in both.
    """
    found = [_recordings(folder) for folder in (a, b)]
    names = [(name, name) for name in sorted(found[0]) if name in found[1]]
    if only:
        asked = (same_name(name).partition("=") for name in only)
        names = list(dict.fromkeys((first, second or first) for first, _, second in asked))
    for chosen in names:
        for folder, name, files in zip((a, b), chosen, found, strict=True):
            if name not in files:
                raise unknown_name(f"recording in {folder}", name, files)
    if not names:
        raise ClipError(
            f"{a} and {b} hold no recordings of one name",
            f"Name recordings of one sentence alike; allowed: {', '.join(SOUNDS)}",
        )
    used = [len({chosen[side] for chosen in names}) for side in (0, 1)]
    left = sum(len(files) - count for files, count in zip(found, used, strict=True))
    return [(found[0][first], found[1][second]) for first, second in names], left


def _recordings(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ClipError(f"{folder} is no folder", "Give two folders, or two recordings")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SOUNDS or path.name[0] == ".":
            continue
        name = same_name(path.stem)
        if name in found:
            raise ClipError(
                f"{folder} holds {found[name].name} and {path.name}", "Keep one of them"
            )
        found[name] = path
    return found
