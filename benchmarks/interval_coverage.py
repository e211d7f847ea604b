"""How often intervals hold the truth, by simulation; and what FAD's stand for.

    python benchmarks/interval_coverage.py components
    python benchmarks/interval_coverage.py fad [--dimensions D] [--clips N] [--frames N] ...
    python benchmarks/interval_coverage.py speed

'components' draws clips' values of speakers that differ, many tables of them, and counts how often
the 95 % interval of the mean over emotions holds what they were drawn around: ours, and the
plain percentile interval of the same draws of speakers.

'fad' draws embeddings of two methods' clips and of real ones, of six speakers, again and again. The
mean FAD over all of these experiments is what an interval must hold, its spread what a standard
error must say. Beside ours stands the exact bootstrap, which draws speakers and pools their frames
anew: that many eigen-decompositions, where ours needs one for each clip.

'speed' times a whole table. The numbers are in docs/statistics.md.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import numpy as np
from tabulate import tabulate

from spfem_bench.analysis import resampling
from spfem_bench.analysis.resampling import Estimate
from spfem_bench.statistics import frechet, intervals
from spfem_bench.statistics.frechet import FrechetKind, FrechetPart, Moments

Clips = Sequence[tuple[str, str]]
SPEAKERS = 6


def protocol(speakers: int, clips: int = 3) -> Clips:
    """Return emotion and speaker of each clip: seven emotions, as many clips of each speaker."""
    return [(f"e{e}", f"s{s:03d}") for e in range(7) for s in range(speakers) for _ in range(clips)]


def of(clips: Clips, values: np.ndarray) -> Estimate:
    """Return the mean over emotions of columns of values."""
    return resampling.estimate(values, [e for e, _ in clips], [s for _, s in clips])


# ---- components ----------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]

DISTRIBUTIONS: dict[str, Draw] = {
    "normal": lambda g, n: g.normal(size=n),
    "Student's t, 4": lambda g, n: g.standard_t(4, size=n),
    "two methods' cosines": lambda g, n: (
        g.beta(8, 2, size=n) - g.beta(8, 3, size=n) - (8 / 10 - 8 / 11)
    ),
    "two lognormal distances": lambda g, n: (
        np.exp(0.7 * g.normal(size=n)) - 0.6 * np.exp(0.7 * g.normal(size=n)) - 0.4 * np.exp(0.245)
    ),
    "one method's lognormal": lambda g, n: np.exp(0.7 * g.normal(size=n)) - np.exp(0.245),
}

STRIPS: Clips = [
    ("sad", "M003"),
    ("sad", "W015"),
    ("sad", "W015"),
    ("sad", "W015"),
    ("angry", "M012"),
    ("angry", "M030"),
    ("happy", "M012"),
    ("happy", "W015"),
    ("happy", "W015"),
    ("disgusted", "M012"),
    ("disgusted", "M030"),
    ("disgusted", "W015"),
]

DESIGNS: dict[str, Clips] = {
    "7 emotions x 3 speakers x 3 clips": protocol(3),
    "7 x 4 x 3": protocol(4),
    "7 x 6 x 1 (demo)": protocol(6, 1),
    "7 x 6 x 3 (MEAD)": protocol(6),
    "7 x 20 x 3": protocol(20),
    "MEAD, 30 % of clips missing": [
        c
        for c, kept in zip(protocol(6), np.random.default_rng(5).random(126) < 0.7, strict=True)
        if kept
    ],
    "stccl-page-ned without neutral": STRIPS,
    "one emotion, 6 speakers x 3": [c for c in protocol(6) if c[0] == "e0"],
    "one emotion, 6 clips": [("e0", f"{i}") for i in range(6)],
    "one emotion, 18 clips": [("e0", f"{i:02d}") for i in range(18)],
}


def components(tables: int) -> None:
    """Print the coverage of intervals of simulated components."""
    rows = []
    for design, clips in DESIGNS.items():
        row = [design]
        for name, draw in DISTRIBUTIONS.items():
            generator = np.random.default_rng([len(design), len(name)])
            speakers, of_speaker = np.unique([s for _, s in clips], return_inverse=True)
            values = draw(generator, (len(speakers), tables))[of_speaker]
            values = values + draw(generator, (len(clips), tables))
            estimate = of(clips, values)
            low, high = resampling.intervals(resampling.draws(estimate, 2000))
            ours = ((low <= 0) & (high >= 0)).mean()
            # The plain bootstrap: no uncertainty of the error, and the sample's own variance.
            sure = Estimate(
                estimate.value,
                estimate.parts * np.sqrt((estimate.clusters - 1) / estimate.clusters),
                1e15,
            )
            low, high = resampling.intervals(resampling.draws(sure, 2000))
            plain = ((low <= 0) & (high >= 0)).mean()
            row.append(f"{100 * ours:.1f} ({100 * plain:.1f})")
        rows.append(row)
    print(f"Coverage in percent, of {tables} tables each; in brackets the plain percentile's\n")
    print(tabulate(rows, ["clips", *DISTRIBUTIONS], tablefmt="github", disable_numparse=True))


# ---- FAD -----------------------------------------------------------------------------------


def experiment(
    generator: np.random.Generator,
    dimensions: int,
    clips: int,
    frames: int,
    shifts: Sequence[float],
) -> list[list[FrechetPart]]:
    """Draw two methods' clips of six speakers, as many of each, beside the same real clips.

    Speakers differ most, in few directions more than in others; each method moves faces by a
    constant, speakers by an own step, clips by a smaller one; frames of one clip are alike.
    """
    spread = np.arange(1, dimensions + 1) ** -0.5
    spread /= np.sqrt((spread**2).mean())
    directions = np.random.default_rng(99).normal(size=(2, dimensions)) * spread
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)

    def some(size: float, *shape: int) -> np.ndarray:
        return size * generator.normal(size=(*shape, dimensions)) * spread

    def moments(centre: np.ndarray) -> Moments:
        return Moments.of(centre + some(0.4, frames))

    found: list[list[FrechetPart]] = [[], []]
    for _ in range(SPEAKERS):
        speaker, common, own = some(1.0), some(0.3), some(0.2, 2)
        for _ in range(clips // SPEAKERS):
            real, source = moments(speaker + some(0.3)), some(0.3)
            for k, shift in enumerate(shifts):
                moved = np.sqrt(dimensions) * shift * directions[k]
                centre = speaker + common + own[k] + source + some(0.2) + moved
                found[k].append(FrechetPart(moments(centre), real))
    return found


def pooled(parts: Sequence[FrechetPart]) -> float:
    """Return the Frechet distance of pooled frames."""
    return FrechetKind(kind="frechet").score(parts).value


def fad(
    dimensions: int, clips: int, frames: int, repetitions: int, exact: int, shifts: Sequence[float]
) -> None:
    """Print what standard errors and intervals of FAD stand for."""
    begun = time.perf_counter()
    generator = np.random.default_rng(1)
    names = [("e0", f"s{i // (clips // SPEAKERS)}") for i in range(clips)]
    estimates: dict[str, list[Estimate]] = {"FAD": [], "difference": []}
    drawn: dict[str, list[np.ndarray]] = {"FAD": [], "difference": []}
    for _ in range(repetitions):
        methods = experiment(generator, dimensions, clips, frames, shifts)
        each = []
        for parts in methods:
            left = np.array(frechet.without(parts), np.float64)
            each.append(intervals.pseudo_values(pooled(parts), left))
        estimates["FAD"].append(of(names, each[0]))
        estimates["difference"].append(of(names, each[1] - each[0]))
        if exact:
            again = []
            for _ in range(exact):
                speakers = generator.integers(0, SPEAKERS, SPEAKERS)
                chosen = [i for s in speakers for i, (_, n) in enumerate(names) if n == f"s{s}"]
                again.append([pooled([parts[i] for i in chosen]) for parts in methods])
            table = np.array(again)
            drawn["FAD"].append(table[:, 0])
            drawn["difference"].append(table[:, 1] - table[:, 0])
    rows = []
    for what, found in estimates.items():
        values = np.array([e.value[0] for e in found])
        errors = np.array([e.error[0] for e in found])
        every = Estimate(values, np.concatenate([e.parts for e in found], axis=1), found[0].freedom)
        low, high = resampling.intervals(resampling.draws(every, 2000))
        truth = values.mean()
        row = [
            f"{what}, {dimensions} d, {clips} clips x {frames} frames",
            f"{truth:.2f}",
            f"{values.std(ddof=1):.2f}",
            f"{np.sqrt((errors**2).mean()):.2f}",
            f"{100 * ((low <= truth) & (truth <= high)).mean():.1f}",
        ]
        if exact:
            ends = np.array([np.percentile(d, [2.5, 97.5]) for d in drawn[what]])
            centres = np.array([d.mean() for d in drawn[what]])
            spreads = np.array([d.std() for d in drawn[what]])
            row += [
                f"{np.sqrt((spreads**2).mean() * SPEAKERS / (SPEAKERS - 1)):.2f}",
                f"{(centres - values).mean():+.2f}",
                f"{100 * ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean():.1f}",
            ]
        rows.append(row)
    heads = ["", "mean", "true spread", "our error", "our interval, %"]
    heads += ["exact bootstrap's error", "its shift", "its interval, %"] if exact else []
    print(tabulate(rows, heads, tablefmt="github", disable_numparse=True))
    print(f"\n{repetitions} experiments, {exact} exact draws, {time.perf_counter() - begun:.0f} s")


# ---- speed ---------------------------------------------------------------------------------


def speed() -> None:
    """Print how long 10,000 draws of ten methods, seven metrics and seven emotions take."""
    values = np.random.default_rng(0).normal(size=(126, 70))
    mead = protocol(SPEAKERS)
    alone = [(emotion, str(i)) for i, (emotion, _) in enumerate(mead)]
    for name, clips in (("speakers", mead), ("clips", alone)):
        begun = time.perf_counter()
        for emotion in dict.fromkeys(e for e, _ in clips):
            chosen = [i for i, (e, _) in enumerate(clips) if e == emotion]
            part = of([clips[i] for i in chosen], values[chosen])
            resampling.intervals(resampling.draws(part))
        resampling.intervals(resampling.draws(of(clips, values)))
        print(f"10,000 draws of {name}, 70 columns x 8: {time.perf_counter() - begun:.2f} s")
    for dimensions in (64, 128, 512):
        parts = experiment(np.random.default_rng(0), dimensions, 18, 75, (0.5, 0.6))[0]
        begun = time.perf_counter()
        frechet.without(parts)
        took = time.perf_counter() - begun
        print(f"FAD without each of 18 clips, {dimensions} dimensions: {took:.2f} s")


def main() -> None:
    """Run one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("what", choices=["components", "fad", "speed"])
    parser.add_argument("--tables", type=int, default=10_000)
    parser.add_argument("--dimensions", type=int, default=64)
    parser.add_argument("--clips", type=int, default=18)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--repetitions", type=int, default=400)
    parser.add_argument("--exact", type=int, default=0, help="draws of the exact bootstrap")
    parser.add_argument("--shifts", type=float, nargs=2, default=(0.5, 0.6))
    given = parser.parse_args()
    if given.what == "components":
        components(given.tables)
    elif given.what == "fad":
        fad(
            given.dimensions,
            given.clips,
            given.frames,
            given.repetitions,
            given.exact,
            given.shifts,
        )
    else:
        speed()


if __name__ == "__main__":
    main()
