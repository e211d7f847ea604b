"""How far the aligner is off, on puppets whose correspondence is known.

    python benchmarks/aligner.py [--part validation] [--count 36] [--noise DB ...]

Neutral readings are aligned with emotional ones by sound alone; so is their linear stretch,
as the control. Prints, over all neutral frames, the mean and the 95th percentile of the
error in ms, and the share of frames that are at most one frame (40 ms) off. With --noise,
white noise of that ratio of sound to noise is added to both, each its own.
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

from spfem_bench.datasets.alignment import Sound, warp_times
from spfem_bench.puppets.pairs import Puppet, puppet_pairs
from spfem_bench.puppets.speech import correspondence
from spfem_bench.puppets.world import FRAME_RATE, World

Floats = npt.NDArray[np.float64]


def with_noise(sound: Sound, ratio: float, rng: np.random.Generator) -> Sound:
    """Add white noise, *ratio* decibels below the sound."""
    level = np.sqrt(np.mean(sound.astype(np.float64) ** 2)) * 10 ** (-ratio / 20)
    noisy = np.rint(sound + rng.normal(0, level, len(sound)))
    return np.clip(noisy, -32768, 32767).astype(np.int16)


def line(name: str, errors: list[Floats]) -> str:
    """Say how large errors in seconds are."""
    off = np.abs(np.concatenate(errors)) * 1000
    within = (off <= 40).mean()
    return f"{name:>22}: {off.mean():6.1f} {np.percentile(off, 95):6.1f} {within:8.1%}"


def main() -> None:
    """Align, compare with the truth, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", default="validation", choices=["train", "held-out", "validation"])
    parser.add_argument("--count", type=int, default=36)
    parser.add_argument("--noise", type=float, nargs="*", default=[])
    given = parser.parse_args()
    rng = np.random.default_rng(5)
    pairs = puppet_pairs(World(), given.part)
    linear: list[Floats] = []
    by_sound: dict[str, list[Floats]] = {}
    distances = []
    for k in rng.choice(len(pairs), given.count, replace=False):
        x, y = pairs[k].neutral, pairs[k].emotional
        assert isinstance(x, Puppet) and isinstance(y, Puppet)
        a, b = x.take, y.take
        times = (np.arange(a.n_frames) + 0.5) / FRAME_RATE
        truth = correspondence(a.phones, b.phones, times)
        linear.append(times * b.n_frames / a.n_frames - truth)
        sounds = {"aligned": (a.sound(), b.sound())}
        for ratio in given.noise:
            sounds[f"with noise, {ratio:g} dB"] = tuple(
                with_noise(s, ratio, rng) for s in sounds["aligned"]
            )
        for name, both in sounds.items():
            found, distance = warp_times(*both, times)
            by_sound.setdefault(name, []).append(found - truth)
            if name == "aligned":
                distances.append(distance)
    print(f"{given.count} pairs of readings ({given.part}): mean ms, 95 % ms, within 40 ms")
    for name, errors in by_sound.items():
        print(line(name, errors))
    print(line("linear stretch", linear))
    print(f"distance of the sounds: {min(distances):.2f} to {max(distances):.2f}")


if __name__ == "__main__":
    main()
