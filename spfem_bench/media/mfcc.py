"""SyncNet's sound: MFCCs, in windows that last as long as its frames. It does not import torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LIBRARIES = frozenset({"python_speech_features", "scipy"})
"""Modules that compute MFCCs; the second gives the first its cosine transform."""

WINDOW = 5
"""Frames that one vector stands on."""

MFCC_STEPS = 20
"""MFCC steps (of 10 ms) that one vector of sound stands on."""

STEPS_PER_FRAME = 4


def mfcc(
    samples: npt.NDArray[np.int16] | npt.NDArray[np.float32],
    sample_rate: int = 16_000,
    steps: float = 100,
) -> npt.NDArray[np.float32]:
    """Return python_speech_features' 13 MFCCs of samples, float32 (steps, 13).

    *steps* are a second's; ``winstep`` is its inverse, rounded to whole samples.
    """
    from python_speech_features import mfcc as reference
    from python_speech_features import sigproc

    length, step = sample_rate // 40, sigproc.round_half_up(sample_rate / steps)
    total = 1 if len(samples) <= length else 1 + -(-(len(samples) - length) // step)
    pieces = []
    for first in range(0, total, 6000):
        last = min(first + 6000, total)
        begin, end = first * step, min((last - 1) * step + length, len(samples))
        lead = min(begin, 1)  # pre-emphasis needs the sample before
        emphasised = sigproc.preemphasis(samples[begin - lead : end], 0.97)[lead:]
        computed = reference(emphasised, sample_rate, winstep=1 / steps, preemph=0.0)
        pieces.append(computed[: last - first])
    return np.concatenate(pieces).astype(np.float32)


def sound_windows(steps: npt.NDArray[np.float32], count: int) -> npt.NDArray[np.float32]:
    """Return windows of frames 0 to ``count - 1``, float32 (count, 1, 13, 20), of MFCC steps."""
    starts = np.arange(count)[:, None] * STEPS_PER_FRAME + np.arange(MFCC_STEPS)[None]
    return np.ascontiguousarray(steps[starts].transpose(0, 2, 1)[:, None])
