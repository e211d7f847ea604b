"""Intervals, p-values and clips needed: against scipy, general formulae, and simulation."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from spfem_bench.analysis import resampling
from spfem_bench.analysis.resampling import Estimate, TooFewClustersError
from spfem_bench.statistics import frechet, intervals

MEAD = [(f"e{e}", f"s{s}") for e in range(7) for s in range(6) for _ in range(3)]
"""Emotion and speaker of each clip in the papers' protocol: 7 x 6 x 3."""

STRIPS = [
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
"""The published strips but for the one neutral: few, and of other speakers in each emotion."""


def of(clips: list[tuple[str, str]], values: np.ndarray) -> Estimate:
    return resampling.estimate(values, [e for e, _ in clips], [s for _, s in clips])


# ---- estimates ------------------------------------------------------------------------------


def test_clips_of_one_emotion_give_the_paired_t_test() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.normal(size=18), generator.normal(0.4, size=18)
    clips = [("sad", f"clip {i}") for i in range(18)]
    change = of(clips, b - a)
    reference = scipy.stats.ttest_rel(b, a)
    assert change.value[0] / change.error[0] == pytest.approx(reference.statistic, rel=1e-12)
    assert change.freedom == pytest.approx(reference.df, abs=1e-6)
    drawn = resampling.draws(change, 200_000)
    ends = reference.confidence_interval()
    low, high = resampling.intervals(drawn)
    assert (low[0], high[0]) == pytest.approx((ends.low, ends.high), abs=0.06 * change.error[0])
    assert resampling.p_values(drawn)[0] == pytest.approx(reference.pvalue, rel=0.1)


def test_balanced_speakers_vary_as_their_means() -> None:
    values = np.random.default_rng(2).normal(size=len(MEAD))
    table = values.reshape(7, 6, 3)
    found = of(MEAD, values)
    assert found.value[0] == pytest.approx(table.mean(), rel=1e-12)
    means = table.mean(axis=(0, 2))  # one for each speaker
    assert found.error[0] == pytest.approx(means.std(ddof=1) / math.sqrt(6), rel=1e-12)
    assert found.freedom == pytest.approx(5, abs=1e-6)


def by_regression(clips: list[tuple[str, str]], values: np.ndarray) -> tuple[float, float, float]:
    """Return value, CR2 error and Bell and McCaffrey's freedom by the general matrix formulae.

    Least squares on one column for each emotion; the residuals of cluster g are multiplied by
    (I - H_gg)^(-1/2), H the projection on the columns; the freedom is that of the quadratic
    form, from the eigenvalues of G'G with columns G_g = (I - H)_g' A_g X_g (X'X)^-1 c.
    """
    emotions = sorted({e for e, _ in clips})
    x = np.array([[float(e == name) for name in emotions] for e, _ in clips])
    contrast = np.full(len(emotions), 1 / len(emotions))
    inner = np.linalg.inv(x.T @ x)
    projection = np.eye(len(x)) - x @ inner @ x.T
    coefficients = inner @ x.T @ values
    residuals = values - x @ coefficients
    variance, columns = 0.0, []
    for name in sorted({s for _, s in clips}):
        own = np.array([s == name for _, s in clips])
        block = projection[np.ix_(own, own)]
        adjust = scipy.linalg.inv(scipy.linalg.sqrtm(block).real)
        loading = adjust @ x[own] @ inner @ contrast
        variance += float(loading @ residuals[own]) ** 2
        columns.append(projection[:, own] @ loading)
    spectrum = np.linalg.eigvalsh(np.array(columns) @ np.array(columns).T)
    freedom = spectrum.sum() ** 2 / (spectrum**2).sum()
    return float(contrast @ coefficients), math.sqrt(variance), float(freedom)


@pytest.mark.parametrize("seed", range(4))
def test_unbalanced_speakers_are_the_general_formulae(seed: int) -> None:
    generator = np.random.default_rng(seed)
    kept = [clip for clip in MEAD if generator.random() < 0.6]
    for clips in (kept, STRIPS):
        values = generator.normal(size=len(clips))
        found = of(clips, values)
        value, error, freedom = by_regression(clips, values)
        assert found.value[0] == pytest.approx(value, rel=1e-10)
        assert found.error[0] == pytest.approx(error, rel=1e-10)
        assert found.freedom == pytest.approx(freedom, abs=1e-6)


def test_an_emotion_of_one_speaker_is_named() -> None:
    with pytest.raises(TooFewClustersError, match="neutral"):
        of([*STRIPS, ("neutral", "M012")], np.arange(13.0))


# ---- draws ----------------------------------------------------------------------------------


def test_draws_are_the_means_of_drawn_speakers_clips() -> None:
    """With an error known for certain nothing is widened but by sqrt(G / (G - 1))."""
    clips = [(e, s) for e in ("sad", "happy") for s in "abc"]
    values = np.array([1.0, 2.0, 6.0, 3.0, 3.0, 9.0])
    sure = of(clips, values)
    sure = Estimate(sure.value, sure.parts, 1e15)
    seen = {round(float(v), 4) for v in resampling.draws(sure, 2000)[:, 0]}
    possible = set()
    for drawn in itertools.product(range(3), repeat=3):  # speakers, with both of their clips
        mean = np.mean([values[[s, 3 + s]].mean() for s in drawn])
        possible.add(round(float(4.0 + math.sqrt(3 / 2) * (mean - 4.0)), 4))
    assert seen == possible


def test_draws_spread_as_scipys_paired_bootstrap_does() -> None:
    generator = np.random.default_rng(3)
    a, b = generator.gamma(2, size=18), generator.gamma(3, size=18)
    clips = [("sad", f"clip {i:02d}") for i in range(18)]
    change = of(clips, a - b)
    theirs = scipy.stats.bootstrap(
        (a, b),
        lambda x, y, axis: (x - y).mean(axis=axis),
        paired=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(4),
    )
    ours = resampling.draws(change, 20_000)[:, 0]
    widened = math.sqrt(18 / 17) * math.sqrt(17 / 15)  # the sample's; Student's t with 17
    assert ours.std() == pytest.approx(theirs.standard_error * widened, rel=0.03)


def test_methods_are_drawn_alike() -> None:
    values = np.random.default_rng(5).normal(size=(len(MEAD), 3))
    together = resampling.draws(of(MEAD, values), 500)
    for k in range(3):
        alone = resampling.draws(of(MEAD, values[:, k]), 500)[:, 0]
        np.testing.assert_allclose(together[:, k], alone, rtol=1e-12)
    paired = resampling.draws(of(MEAD, values[:, 0] - values[:, 1]), 500)[:, 0]
    np.testing.assert_allclose(paired, together[:, 0] - together[:, 1], rtol=0, atol=1e-12)


@given(st.lists(st.floats(-1, 1), min_size=6, max_size=6, unique=True), st.floats(-0.5, 0.5))
@settings(max_examples=50)
def test_an_interval_without_zero_and_a_small_p_are_one(values: list[float], by: float) -> None:
    drawn = resampling.draws(of([("sad", f"{i}") for i in range(6)], np.array(values) + by), 9999)
    low, high = resampling.intervals(drawn)
    p = resampling.p_values(drawn)[0]
    if abs(p - 0.05) > 0.002:  # at the border the two interpolate differently
        assert (p < 0.05) == (not low[0] <= 0 <= high[0])


def test_a_whole_table_is_drawn_in_seconds() -> None:
    """Ten methods, seven metrics, each emotion and the mean: 560 columns."""
    values = np.random.default_rng(6).normal(size=(len(MEAD), 70))
    begun = time.perf_counter()
    for e in range(7):
        of_emotion = [i for i, (name, _) in enumerate(MEAD) if name == f"e{e}"]
        part = of([MEAD[i] for i in of_emotion], values[of_emotion])
        resampling.intervals(resampling.draws(part))
    resampling.intervals(resampling.draws(of(MEAD, values)))
    assert time.perf_counter() - begun < 10  # measured: about 1 s


# ---- many comparisons, clips needed ---------------------------------------------------------


def test_holm_by_hand() -> None:
    # Sorted 0.005 x 4, 0.01 x 3, 0.03 x 2, and 0.04 x 1 no smaller than the one before it.
    assert resampling.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert resampling.holm([0.9, 0.8]) == [1.0, 1.0]
    assert resampling.holm([]) == []


@pytest.mark.parametrize("effect", [0.3, 0.8, 2.5])
def test_the_clips_that_are_needed_find_the_difference(effect: float) -> None:
    needed = resampling.clips_needed(effect, 1 / math.sqrt(10), 10, 10)
    assert needed is not None
    generator = np.random.default_rng(7)

    def found(count: int) -> float:
        samples = generator.normal(effect, size=(20_000, count))
        return float((scipy.stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05).mean())

    assert found(needed) > 0.79
    assert found(needed - 1) < 0.81


def test_clips_come_with_their_speakers_and_sometimes_never() -> None:
    clips = resampling.clips_needed(0.5, 1 / math.sqrt(34), 34, 34 * 21)
    assert clips == 34 * 21  # 34 speakers with 21 clips each
    assert resampling.clips_needed(0.0, 1.0, 6, 126) is None
    assert resampling.clips_needed(1e-9, 1.0, 6, 126) is None
    assert resampling.clips_needed(5.0, 0.0, 6, 126) == 2 * 21
    assert resampling.clips_needed(math.nan, 1.0, 6, 126) is None


def pooled(parts: list[frechet.FrechetPart]) -> float:
    return frechet.FrechetKind(kind="frechet").score(parts).value


@pytest.mark.parametrize("clusters", [2, 9, 120])
def test_errors_and_freedom_are_those_of_the_whole_matrix(clusters: int) -> None:
    """Bell and McCaffrey's formulas, with every clip's weight in every cluster's part."""
    generator = np.random.default_rng(clusters)
    values = generator.normal(size=(120, 2))
    emotions = np.array(["ab"[i % 2] + "c" for i in range(120)])
    of_cluster = np.arange(120) // 2 % clusters if clusters < 120 else np.arange(120)
    linear = np.zeros((clusters, 120))
    for emotion in ("ac", "bc"):
        here = emotions == emotion
        for g in range(clusters):
            own = here & (of_cluster == g)
            share = own.sum() / here.sum()
            weight = 1 / here.sum() / 2 / math.sqrt(1 - share)
            linear[g] += weight * own - weight * share * here * bool(own.any())
    spectrum = np.linalg.eigvalsh(linear @ linear.T)
    found = resampling.estimate(values, emotions.tolist(), [f"{g:03}" for g in of_cluster])
    assert found.parts == pytest.approx(linear @ values, abs=1e-14)
    assert found.freedom == pytest.approx(spectrum.sum() ** 2 / (spectrum**2).sum(), abs=1e-5)
    assert found.value == pytest.approx(
        np.mean([values[emotions == e].mean(0) for e in ("ac", "bc")], 0), abs=1e-14
    )


def test_draws_of_many_clusters_in_parts_are_those_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = np.random.default_rng(4)
    names = [str(i) for i in range(60)]
    scores = resampling.estimate(generator.normal(size=(60, 3)), ["a"] * 60, names)
    whole = resampling.draws(scores, 500)
    monkeypatch.setattr(resampling, "BYTES", 8 * 60 * 7)
    resampling._draws.cache_clear()
    assert resampling.draws(scores, 500) == pytest.approx(whole, abs=1e-15)
    resampling._draws.cache_clear()


# ---- pseudo-values of FAD -------------------------------------------------------------------


def test_what_each_clip_does_to_fad_is_the_textbook_distance_without_it() -> None:
    generator = np.random.default_rng(8)
    outputs = [generator.normal(size=(30, 6)) for _ in range(4)]
    reals = [generator.normal(0.3, size=(40, 6)) for _ in range(4)]
    parts = [
        frechet.frechet_part(o, r, normalise=False) for o, r in zip(outputs, reals, strict=True)
    ]
    found = frechet.without(parts)
    for i in range(4):
        a = np.concatenate(outputs[:i] + outputs[i + 1 :])
        b = np.concatenate(reals[:i] + reals[i + 1 :])
        cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
        apart = a.mean(axis=0) - b.mean(axis=0)
        root = scipy.linalg.sqrtm(cov_a @ cov_b).real
        by_hand = apart @ apart + np.trace(cov_a + cov_b - 2 * root)
        assert found[i] == pytest.approx(by_hand, rel=1e-8)
    values = intervals.pseudo_values(pooled(parts), found)
    assert values.mean() == pytest.approx(pooled(parts), rel=1e-12)


def test_a_single_clip_leaves_nothing_when_it_is_left_out() -> None:
    part = frechet.frechet_part(np.eye(3), np.eye(3) * 2, normalise=False)
    assert frechet.without([part]) == [None]


# ---- coverage -------------------------------------------------------------------------------

Draw = Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]


def normal(g: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return g.normal(size=shape)


def heavy(g: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return g.standard_t(4, size=shape)


def cosines(g: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Differences of two methods' cosines: each skewed, one better by 0.05."""
    return g.beta(8, 2, size=shape) - g.beta(8, 3, size=shape) - (8 / 10 - 8 / 11)


def coverage(clips: list[tuple[str, str]], draw: Draw, seed: int, tables: int = 2000) -> float:
    """Return how often the interval of the mean over emotions holds the truth, zero.

    Clips differ, and speakers differ as much again.
    """
    generator = np.random.default_rng(seed)
    speakers, of_speaker = np.unique([s for _, s in clips], return_inverse=True)
    values = draw(generator, (len(speakers), tables))[of_speaker]
    values = values + draw(generator, (len(clips), tables))
    low, high = resampling.intervals(resampling.draws(of(clips, values), 1000))
    return float(((low <= 0) & (high >= 0)).mean())


def speakers(count: int) -> list[tuple[str, str]]:
    return [(f"e{e}", f"s{s:02d}") for e in range(7) for s in range(count) for _ in range(3)]


@pytest.mark.parametrize("draw", [normal, heavy, cosines])
@pytest.mark.parametrize(
    "clips",
    [
        pytest.param(speakers(3), id="3 speakers"),
        pytest.param(speakers(6), id="6 speakers"),
        pytest.param(speakers(20), id="20 speakers"),
        pytest.param([c for i, c in enumerate(MEAD) if i % 7 not in (0, 4)], id="clips missing"),
        pytest.param([("sad", f"{i}") for i in range(6)], id="6 clips"),
        pytest.param([("sad", f"{i:02d}") for i in range(18)], id="18 clips"),
    ],
)
def test_95_percent_is_93_to_97(clips: list[tuple[str, str]], draw: Draw) -> None:
    assert 0.93 <= coverage(clips, draw, 9) <= 0.97


def test_a_plain_percentile_interval_of_six_speakers_would_not_hold() -> None:
    """Why draws are widened: the same tables, each speaker's mean drawn by scipy."""
    values = np.random.default_rng(10).normal(size=(1000, 6))
    found = scipy.stats.bootstrap(
        (values,),
        np.mean,
        axis=1,
        method="percentile",
        n_resamples=1000,
        rng=np.random.default_rng(11),
    ).confidence_interval
    assert ((found.low <= 0) & (found.high >= 0)).mean() < 0.88


def test_the_difference_of_two_fads_is_covered_too() -> None:
    """Six speakers with two clips each; the truth is the mean over many such experiments."""
    generator = np.random.default_rng(12)
    tables, dimensions, frames = 400, 8, 20
    names = [("sad", f"s{s}") for s in range(6) for _ in range(2)]
    kept: list[Estimate] = []
    for _ in range(tables):
        fads: list[np.ndarray] = []
        speaker = np.repeat(generator.normal(size=(6, dimensions)), 2, axis=0)
        reals = [
            frechet.Moments.of(s + 0.4 * generator.normal(size=(frames, dimensions)))
            for s in speaker
        ]
        for shift in (0.3, 0.6):
            own = np.repeat(0.3 * generator.normal(size=(6, dimensions)), 2, axis=0)
            clip = 0.3 * generator.normal(size=(12, dimensions))
            centres = speaker + own + clip + shift
            parts = [
                frechet.FrechetPart(
                    frechet.Moments.of(c + 0.4 * generator.normal(size=(frames, dimensions))), real
                )
                for c, real in zip(centres, reals, strict=True)
            ]
            left = np.array(frechet.without(parts), np.float64)
            fads.append(intervals.pseudo_values(pooled(parts), left))
        kept.append(of(names, fads[1] - fads[0]))
    truth = float(np.mean([k.value[0] for k in kept]))
    every = Estimate(
        np.array([k.value[0] for k in kept]),
        np.concatenate([k.parts for k in kept], axis=1),
        kept[0].freedom,
    )
    low, high = resampling.intervals(resampling.draws(every, 1000))
    assert 0.93 <= ((low <= truth) & (truth <= high)).mean() <= 0.97
