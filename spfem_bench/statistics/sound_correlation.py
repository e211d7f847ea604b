"""Whether the mouth opens with the sound's loudness (av-loudness)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import METRIC_KINDS, MetricCard
from spfem_bench.definitions.networks import Audible
from spfem_bench.errors import ClipError
from spfem_bench.faces.edits import edited_sound
from spfem_bench.media import audio
from spfem_bench.statistics.base import ItemFeatures
from spfem_bench.statistics.landmarks import LandmarksKind, clip_landmarks, pearson

_Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SoundPart:
    """One item's correlation.

    Attributes:
        r: between opening and loudness of the same frames.
        best: frames by which the sound must be taken later for the largest r, and *best_r*.
        spread_output: standard deviation of the opening, in eye distances.
    """

    r: float
    best: int
    best_r: float
    spread_output: float
    n_frames: int


@METRIC_KINDS.register("sound-correlation")
class SoundCorrelationKind(LandmarksKind[SoundPart]):
    """Pearson's r over frames between the lips' opening and the sound's loudness.

    Attributes:
        depth: levels of this many dB below the loudest frame, and lower ones, count as equal.
        smoothing: frames over which the sound's power is averaged (odd).
        max_shift: shifts that are searched for the largest r, for the record only.
        audible: clips whose sound is silent are refused.
    """

    part_type: ClassVar[type[Any]] = SoundPart
    n_clips: ClassVar[int] = 1

    kind: Literal["sound-correlation"]
    depth: float = pydantic.Field(default=40.0, gt=0)
    smoothing: int = pydantic.Field(default=3, gt=0)
    max_shift: int = pydantic.Field(default=8, ge=0)
    audible: Audible = Audible()

    @pydantic.field_validator("smoothing")
    @classmethod
    def _odd(cls, smoothing: int) -> int:
        if smoothing % 2 == 0:
            raise ValueError("must be odd")
        return smoothing

    def part(self, card: MetricCard, clip: Clip, features: ItemFeatures) -> SoundPart:
        """Correlate the output's mouth with its sound."""
        landmarks = clip_landmarks(features["output"][0], self.usable, clip)
        bare = replace(clip, edit=None)
        samples = audio.samples(bare)
        audio.check_audible(bare, samples, self.audible)
        heard = np.asarray(edited_sound(samples, clip), np.int16)
        level = loudness(heard, self.depth, self.smoothing)
        opening = landmarks.curve("opening")

        def at(shift: int) -> tuple[float, int]:
            moments = landmarks.frames + shift
            there = (moments >= 0) & (moments < len(level))
            return pearson(opening[there], level[moments[there]]), int(there.sum())

        r, count = at(0)
        if count < self.usable.frames:
            raise ClipError(
                f"{clip}: {count} frames have landmarks and sound",
                f"{self.usable.frames} are needed: give at least as much sound",
            )
        shifts = sorted(range(-self.max_shift, self.max_shift + 1), key=abs)
        best = max(shifts, key=lambda shift: at(shift)[0])
        return SoundPart(r, best, at(best)[0], float(opening.std()), count)

    def value(self, part: SoundPart) -> float:
        """Return one clip's r."""
        return part.r


def loudness(samples: npt.NDArray[np.int16], depth: float, smoothing: int) -> _Floats:
    """Return the level of a sound in each frame at 25 a second, in dB: float64 (frames,).

    The power is averaged over *smoothing* frames, fewer at the ends. Levels are at most *depth*
    below the loudest frame's.
    """
    count = len(samples) // audio.SAMPLES_PER_FRAME
    whole = samples[: count * audio.SAMPLES_PER_FRAME].astype(np.float64)
    power = (whole.reshape(count, audio.SAMPLES_PER_FRAME) ** 2).mean(axis=1)
    window = np.ones(min(smoothing, max(count, 1)))
    mean = np.convolve(power, window, "same") / np.convolve(np.ones(count), window, "same")
    level = 10 * np.log10(np.maximum(mean, 1e-9))
    return np.asarray(np.maximum(level, level.max(initial=-90.0) - depth))
