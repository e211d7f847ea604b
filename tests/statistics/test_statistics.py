"""Every statistic against an independent route: scipy, the packages' own code, arithmetic by hand.

The largest claim here: LSE-D, LSE-C and offset out of the whole path, from video file
to score, are those of the package syncnet-python on identical frames and sound.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import cv2
import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.io import wavfile
from syncnet_python.SyncNetInstance import SyncNetInstance, calc_pdist
from syncnet_python.SyncNetModel import S

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import ClipRole, metric_card
from spfem_bench.definitions.networks import SyncInput, network_card, profile_card
from spfem_bench.errors import ClipError
from spfem_bench.faces import crop
from spfem_bench.faces.track import FaceTrack
from spfem_bench.features.extract import Extractor
from spfem_bench.features.features import Features
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import audio
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.statistics import frechet, intervals
from spfem_bench.statistics.frechet import FrechetKind, FrechetPart, frechet_part
from spfem_bench.statistics.similarity import SimilarityKind, SimilarityPart
from spfem_bench.statistics.sync import SyncKind, SyncPart, SyncReport, sync_part

# ---- Frechet distance -----------------------------------------------------------------------


def by_sqrtm(a: np.ndarray, b: np.ndarray) -> float:
    """Return the textbook formula, with scipy's general matrix square root."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(cov_a @ cov_b).real
    apart = a.mean(axis=0) - b.mean(axis=0)
    return float(apart @ apart + np.trace(cov_a + cov_b - 2 * root))


def by_singular_values(a: np.ndarray, b: np.ndarray) -> float:
    """Return the distance without any covariance: tr (C_a C_b)^(1/2) is a nuclear norm.

    With centred rows A and B, C_a = A'A / (n - 1), the non-zero eigenvalues of C_a C_b
    are the squared singular values of A B' / sqrt((n - 1)(m - 1)).
    """
    apart = a.mean(axis=0) - b.mean(axis=0)
    rows_a = (a - a.mean(axis=0)) / np.sqrt(len(a) - 1)
    rows_b = (b - b.mean(axis=0)) / np.sqrt(len(b) - 1)
    shared = np.linalg.svd(rows_a @ rows_b.T, compute_uv=False).sum()
    return float(apart @ apart + (rows_a**2).sum() + (rows_b**2).sum() - 2 * shared)


def score(parts: list[FrechetPart]) -> float:
    return FrechetKind(kind="frechet").score(parts).value


def note(groups: list[list[FrechetPart]]) -> str:
    return FrechetKind(kind="frechet").note(groups, same_clips=False)


def distance(a: np.ndarray, b: np.ndarray, *, normalise: bool = False) -> float:
    return score([frechet_part(a, b, normalise=normalise)])


def embeddings(seed: int, count: int, dimensions: int) -> np.ndarray:
    """Return correlated vectors away from zero, like embeddings of one person."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(dimensions, dimensions)) / np.sqrt(dimensions)
    mixing += np.eye(dimensions)
    return generator.normal(size=(count, dimensions)) @ mixing + generator.normal(size=dimensions)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("count", "dimensions"), [(60, 4), (400, 32), (500, 96)])
def test_frechet_distance_is_the_textbook_formula(seed: int, count: int, dimensions: int) -> None:
    a = embeddings(seed, count, dimensions)
    b = embeddings(seed + 100, count + 17, dimensions)
    assert distance(a, b) == pytest.approx(by_sqrtm(a, b), rel=1e-6)


def test_frechet_distance_of_two_dimensions_by_hand() -> None:
    # Four points (+-3, 0), (0, +-3): unbiased covariance diag(2 x 9 / 3, 2 x 9 / 3) = diag(6, 6).
    a = np.array([[3.0, 0], [-3, 0], [0, 3], [0, -3]])
    # Around (1, 2), (+-6, 0), (0, +-9): covariance diag(72 / 3, 162 / 3) = diag(24, 54).
    b = np.array([[6.0, 0], [-6, 0], [0, 9], [0, -9]]) + np.array([1, 2])
    # |mean difference|^2 = 1 + 4 = 5. Covariances that commute leave the squared differences of
    # the standard deviations: (sqrt 24 - sqrt 6)^2 = (2 sqrt 6 - sqrt 6)^2 = 6, and
    # (sqrt 54 - sqrt 6)^2 = (3 sqrt 6 - sqrt 6)^2 = 24. Sum: 35.
    assert distance(a, b) == pytest.approx(35)
    assert distance(b, a) == pytest.approx(35)


def test_frechet_distance_of_covariances_that_do_not_commute_by_hand() -> None:
    # (+-6, 0), (0, +-3): covariance diag(24, 6).
    a = np.array([[6.0, 0], [-6, 0], [0, 3], [0, -3]])
    # +-(3, 3), +-(1, -1): variances (9 + 9 + 1 + 1) / 3 = 20/3, covariance (18 - 2) / 3 = 16/3.
    b = np.array([[3.0, 3], [-3, -3], [1, -1], [-1, 1]])
    # A 2 x 2 matrix M of positive eigenvalues has tr M^(1/2) = sqrt(tr M + 2 sqrt(det M)).
    # Here tr(C_a C_b) = 24 x 20/3 + 6 x 20/3 = 200, det = 144 x (400 - 256) / 9 = 2304 = 48^2,
    # so the trace of the root is sqrt(200 + 96), and the distance 30 + 40/3 - 2 sqrt(296).
    assert distance(a, b) == pytest.approx(30 + 40 / 3 - 2 * np.sqrt(296))


@pytest.mark.parametrize(("n", "m"), [(10, 12), (2, 2), (2, 200), (64, 64), (30, 200)])
def test_fewer_frames_than_dimensions(n: int, m: int) -> None:
    a, b = embeddings(1, n, 64), embeddings(2, m, 64)
    assert distance(a, b) == pytest.approx(by_singular_values(a, b), rel=1e-6)
    assert distance(b, a) == pytest.approx(by_singular_values(a, b), rel=1e-6)


def test_a_set_has_no_distance_to_itself_even_with_few_frames() -> None:
    a = embeddings(3, 9, 64)
    assert distance(a, a) == pytest.approx(0, abs=1e-5)
    assert distance(a, a) >= 0


def test_a_far_away_mean_costs_no_accuracy_that_matters() -> None:
    # Sums of outer products lose digits when the mean is large against the spread: with a
    # mean a hundred times the spread the distance must still be good to 1e-6.
    a, b = embeddings(4, 300, 16), embeddings(5, 300, 16)
    assert distance(a + 100, b + 100) == pytest.approx(by_sqrtm(a, b), rel=1e-6)


def test_single_precision_embeddings_are_summed_in_double() -> None:
    a, b = (embeddings(s, 500, 16).astype(np.float32) for s in (6, 7))
    assert distance(a, b) == pytest.approx(by_sqrtm(a.astype(float), b.astype(float)), rel=1e-9)


def test_normalising_looks_at_directions_only() -> None:
    a, b = embeddings(8, 200, 8), embeddings(9, 200, 8)
    longer = a * np.random.default_rng(0).uniform(0.5, 9, (200, 1))
    unit_a, unit_b = (v / np.linalg.norm(v, axis=1)[:, None] for v in (a, b))
    assert distance(longer, b, normalise=True) == pytest.approx(by_sqrtm(unit_a, unit_b), rel=1e-6)
    assert distance(longer, b) != pytest.approx(distance(a, b), rel=0.01)


POOLED = embeddings(10, 90, 6), embeddings(11, 70, 6)
cuts = st.lists(st.integers(0, 90), max_size=8)


@given(cuts, st.randoms(use_true_random=False))
def test_any_split_into_items_in_any_order_gives_the_same_distance(
    at: list[int], random: Any
) -> None:
    a, b = POOLED
    edges = [0, *sorted(at), 90]
    parts = [
        frechet_part(a[i:j], b[min(i, 70) : min(j, 70)], normalise=False)
        for i, j in itertools.pairwise(edges)
    ]
    random.shuffle(parts)
    assert score(parts) == pytest.approx(by_sqrtm(a, b), rel=1e-9)


@given(st.permutations(range(12)))
def test_the_order_of_frames_does_not_matter(order: list[int]) -> None:
    a, b = POOLED[0][:12], POOLED[1]
    assert distance(a[order], b) == pytest.approx(distance(a, b), rel=1e-9)


def test_a_real_clip_that_two_items_share_counts_twice() -> None:
    a, b, shared = embeddings(1, 40, 4), embeddings(2, 40, 4), embeddings(3, 50, 4)
    parts = [frechet_part(v, shared, normalise=False) for v in (a, b)]
    both = np.concatenate([shared, shared])
    assert score(parts) == pytest.approx(by_sqrtm(np.concatenate([a, b]), both), rel=1e-9)


def test_frechet_distance_needs_two_frames_on_either_side() -> None:
    two, one = embeddings(1, 2, 4), embeddings(2, 1, 4)
    for a, b in ((two, one), (one, two)):
        assert math.isnan(distance(a, b))
    with pytest.raises(ValueError, match="no items"):
        score([])


def group(n: int, m: int, dimensions: int = 16) -> list[FrechetPart]:
    """Two items whose frames are independent samples of one Gaussian."""
    half = n // 2
    a, b = embeddings(1, n, dimensions), embeddings(2, m, dimensions)
    return [
        frechet_part(a[:half], b, normalise=False),
        frechet_part(a[half:], b[:0], normalise=False),
    ]


def test_the_note_tells_of_no_more_frames_than_dimensions() -> None:
    # 16 vectors span 15 dimensions around their mean, 17 can span all 16.
    assert note([group(16, 100)]) == "16 frames for 16 dimensions: biased upwards"
    assert note([group(100, 9)]) == "9 frames for 16 dimensions: biased upwards"
    assert "by up to" in note([group(17, 17)])
    assert note([group(17, 17), group(16, 17)]) == (
        "biased upwards in 1 of 2 emotions: no more frames than dimensions"
    )


def test_the_note_tells_by_how_much_few_frames_bias_upwards() -> None:
    # (1/500 + 1/500) (1 + 17/4) = 2.1 % of the variance; 1/100,000 of it needs no note.
    for groups in ([group(500, 500)], [group(500, 500), group(500, 500)]):
        variance = float(np.trace(np.cov(embeddings(2, 500, 16).T)))
        said = note(groups)
        assert said == f"biased upwards, by up to {0.021 * variance:.2g} if frames were independent"
    assert note([group(100_000, 100_000)]) == ""
    # The mean of two emotions' distances is biased by the mean of their biases.
    both = note([group(500, 500), group(100, 100)])
    one, other = (0.021 * variance, 0.105 * float(np.trace(np.cov(embeddings(2, 100, 16).T))))
    assert f"up to {(one + other) / 2:.2g} " in both


@pytest.mark.parametrize(("n", "m"), [(500, 500), (500, 2000), (300, 1000)])
def test_the_bias_of_independent_frames_is_as_simulated(n: int, m: int) -> None:
    """Two samples of one distribution have the true distance 0; what is measured is the bias."""
    random = np.random.default_rng(3)
    dimensions = 128

    def simulated(deviations: np.ndarray) -> float:
        pairs = [
            (random.normal(size=(n, dimensions)), random.normal(size=(m, dimensions)))
            for _ in range(5)
        ]
        of_each = [distance(a * deviations, b * deviations) for a, b in pairs]
        return float(np.mean(of_each) / (deviations**2).sum())

    told = frechet.bias_share(n, m, dimensions)
    # Where all directions vary alike it is the bias, elsewhere a bound: half of it at eigenvalues
    # of 1, 1/2, 1/3, ...
    assert simulated(np.ones(dimensions)) == pytest.approx(told, rel=0.05)
    assert 0.4 * told < simulated(np.arange(1, dimensions + 1) ** -0.5) < 0.7 * told


# ---- similarity -----------------------------------------------------------------------------


def compared(
    output: Features, other: Features, pooling: Literal["mean", "frames"]
) -> SimilarityPart:
    kind = SimilarityKind(kind="similarity", pooling=pooling)
    card = metric_card("csim")
    name: ClipRole = card.compare[1]
    outputs = {"output": [renamed(output, card.output)], name: [renamed(other, card.output)]}
    return kind.part(card, Clip(Path("a.mp4")), outputs)  # type: ignore[arg-type]


def renamed(features: Features, name: str) -> Features:
    return replace(features, outputs={name: features.outputs["x"]})


def mean_of_parts(parts: list[SimilarityPart]) -> float:
    return SimilarityKind(kind="similarity", pooling="mean").score(parts).value


def features(rows: list[list[float]], frames: list[int]) -> Features:
    return Features({"x": np.array(rows, np.float32)}, np.array(frames, np.int64), 99)


def test_similarity_of_mean_features_by_hand() -> None:
    # Means (2, 1) and (1, 3): (2 + 3) / sqrt(5 x 10) = 5 / sqrt 50 = 0.70711.
    part = compared(
        features([[4, 0], [0, 2]], [0, 1]), features([[1, 1], [1, 5], [1, 3]], [5, 6, 7]), "mean"
    )
    assert mean_of_parts([part]) == pytest.approx(0.5**0.5)
    assert (part.count, part.n_frames) == (1, 2)


def test_similarity_of_frames_joins_them_by_their_index() -> None:
    # The output has a face in frames 0, 2, 3; the other clip in 2, 3, 4. Common: 2 and 3.
    # Frame 2: (3, 4) and (4, 3) give 24 / 25. Frame 3: (1, 0) and (0, 5) give 0. Mean: 0.48.
    output = features([[9, 9], [3, 4], [1, 0]], [0, 2, 3])
    other = features([[4, 3], [0, 5], [9, 9]], [2, 3, 4])
    part = compared(output, other, "frames")
    assert mean_of_parts([part]) == pytest.approx(0.48)
    assert (part.count, part.n_frames) == (2, 2)
    # By row instead of by index it would be another number:
    # cos((9, 9), (4, 3)) = 0.990, cos((3, 4), (0, 5)) = 0.8, cos((1, 0), (9, 9)) = 0.707.
    assert mean_of_parts([part]) < 0.7


def test_the_two_poolings_differ() -> None:
    # Frame by frame: 1 and -1, mean 0. Means: (1, 1) and (1, -1), at right angles as well;
    # with the first frame twice as long: (2, 1) and (2, -1), 3 / 5.
    output, other = features([[4, 0], [0, 2]], [0, 1]), features([[4, 0], [0, -2]], [0, 1])
    frames = compared(output, other, "frames")
    mean = compared(output, other, "mean")
    assert mean_of_parts([frames]) == pytest.approx(0)
    assert mean_of_parts([mean]) == pytest.approx(0.6)


def test_items_weigh_the_same_however_long_they_are() -> None:
    long = compared(
        features([[1, 0]] * 9, list(range(9))), features([[1, 0]] * 9, list(range(9))), "frames"
    )
    short = compared(features([[1, 0]], [0]), features([[0, 1]], [0]), "frames")
    assert mean_of_parts([long, short]) == pytest.approx(0.5)  # not 0.9
    assert mean_of_parts([short, long]) == pytest.approx(0.5)


def test_clips_without_a_common_frame_have_no_similarity() -> None:
    with pytest.raises(ClipError, match="no frame"):
        compared(features([[1, 0]], [0]), features([[1, 0]], [1]), "frames")
    with pytest.raises(ValueError, match="no items"):
        mean_of_parts([])


def test_long_sums_of_small_numbers_keep_their_digits() -> None:
    # A sum of 200,000 rows in float32 would be off in the fourth digit.
    rows = np.full((200_000, 2), [0.1, 0.3], np.float32)
    one = Features({"x": rows}, np.arange(200_000), 200_000)
    other = features([[3, 1]], [0])
    # (0.1 x 3 + 0.3 x 1) / (sqrt 0.1 x sqrt 10) = 0.6.
    part = compared(one, other, "mean")
    assert mean_of_parts([part]) == pytest.approx(0.6, rel=1e-6)


# ---- lip sync: components -------------------------------------------------------------------


def vectors(*numbers: float) -> np.ndarray:
    return np.array(numbers, np.float32)[:, None]


def test_sync_distances_by_hand() -> None:
    # One dimension. Mouth 3, 5; sound 3, 5; zeros on either side.
    part = sync_part(vectors(3, 5), vectors(3, 5), np.arange(2), max_shift=2)
    # Shift -2: mouth against silence: 3 + 5 = 8. -1: |3 - 0| + |5 - 3| = 5. 0: 0.
    # +1: |3 - 5| + |5 - 0| = 7. +2: 8.
    np.testing.assert_allclose(part.totals, [8, 5, 0, 7, 8], atol=1e-5)
    assert (part.windows, part.windows_refused, part.n_frames) == (2, 0, 2)
    # Means 4, 2.5, 0, 3.5, 4: smallest 0, median 3.5, at the middle.
    assert part.value("distance") == pytest.approx(0, abs=1e-5)
    assert part.value("confidence") == pytest.approx(3.5, abs=1e-5)
    assert part.value("offset") == 0


def test_sync_windows_without_a_face_are_left_out_and_counted() -> None:
    # Sound for four windows, a mouth in windows 1 and 2 only: they meet sound 1 and 2.
    part = sync_part(vectors(5, 7), vectors(3, 5, 7, 9), np.array([1, 2]), max_shift=1)
    # Shift -1: |5 - 3| + |7 - 5| = 4. 0: 0. +1: |5 - 7| + |7 - 9| = 4; no silence anywhere.
    np.testing.assert_allclose(part.totals, [4, 0, 4], atol=1e-5)
    assert (part.windows, part.windows_refused, part.n_frames) == (2, 2, 2)


def test_sync_score_is_the_mean_over_clips_of_each_clips_own_value() -> None:
    first = SyncPart(np.array([9.0, 6.0, 12.0]), windows=3, windows_refused=0)
    second = SyncPart(np.array([80.0, 90.0, 70.0]), windows=10, windows_refused=1)
    # Distances 2 and 7; medians 3 and 8, so confidences 1 and 1; offsets 0 and -1.
    expected: dict[SyncReport, float] = {"distance": 4.5, "confidence": 1, "offset": -0.5}
    for report, mean in expected.items():
        kind = SyncKind(kind="sync", report=report, max_shift=1, min_windows=1)
        assert kind.score([first, second]).value == pytest.approx(mean)
    with pytest.raises(ValueError, match="no items"):
        kind.score([])


@pytest.mark.parametrize("k", range(-8, 9))
def test_a_shift_of_the_sound_is_found_with_the_right_sign(k: int) -> None:
    # Mouth and sound agree moment by moment; then the sound comes k frames earlier
    # (an event that the mouth shows in window v is heard in window v - k).
    moments = np.random.default_rng(0).normal(size=(80, 32)).astype(np.float32)
    visual, sound = moments[10:70], moments[10 + k : 70 + k]
    part = sync_part(visual, sound, np.arange(60), max_shift=15)
    assert part.value("offset") == k
    # 60 - |k| windows meet their own sound, at distance 1e-6 x sqrt(32); |k| meet silence.
    silent = np.linalg.norm(visual[:k] if k > 0 else visual[60 + k :], axis=1).sum() if k else 0
    assert part.value("distance") == pytest.approx(silent / 60, abs=1e-4)


@pytest.mark.parametrize("count", [1, 20, 40, 1024, 1025, 2500])
def test_sync_distances_are_the_packages_calc_pdist(count: int) -> None:
    # Also beyond 1024 windows, where ours works piece by piece.
    generator = np.random.default_rng(count)
    visual, sound = generator.normal(size=(2, count, 8)).astype(np.float32)
    theirs = calc_pdist(
        torch.from_numpy(visual).double(), torch.from_numpy(sound).double(), vshift=15
    )
    part = sync_part(visual, sound, np.arange(count), max_shift=15)
    np.testing.assert_allclose(part.totals, torch.stack(theirs, 1).sum(1), rtol=1e-9)
    minimum, index = torch.stack(theirs, 1).mean(1).min(0)
    assert part.value("distance") == pytest.approx(float(minimum))
    assert part.value("offset") == 15 - int(index)


# ---- lip sync: the whole path against the package ---------------------------------------------


def seeded_syncnet() -> S:
    torch.manual_seed(0)
    net = S(num_layers_in_fc_layers=1024)
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval().requires_grad_(False)


@pytest.fixture
def random_sync(weights_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Extractor:
    """An extractor with the small networks and a SyncNet of seeded random weights."""
    stream = io.BytesIO()
    torch.save(seeded_syncnet().state_dict(), stream, _use_new_zipfile_serialization=False)
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "random.model").write_bytes(stream.getvalue())
    for path in weights_folder.iterdir():
        (tmp_path / "weights" / path.name).symlink_to(path)
    network, profile = network_card("syncnet-v2"), profile_card("light")
    text = network.path.read_text(encoding="utf-8").partition("[[files]]")[0]
    text += '[[files]]\nname = "random.model"\nurl = "https://example.org/random.model"\n'
    text += f'sha256 = "{hashlib.sha256(stream.getvalue()).hexdigest()}"\n'
    own = tmp_path / "own" / "metrics"
    (own / "networks").mkdir(parents=True)
    (own / "profiles").mkdir()
    (own / "networks" / "random-syncnet.toml").write_text(text, encoding="utf-8")
    light = profile.path.read_text(encoding="utf-8")
    assert "syncnet-v2" in light
    (own / "profiles" / "random-sync.toml").write_text(
        light.replace("syncnet-v2", "random-syncnet"), encoding="utf-8"
    )
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "own"))
    return Extractor(
        profile_card("random-sync"),
        WeightsStore(tmp_path / "weights"),
        FeatureStore(tmp_path / "store"),
        batch_size=16,
    )


def evaluate_by_the_package(extractor: Extractor, clip: Clip, folder: Path) -> tuple[float, ...]:
    """Give our crops and our sound, unchanged, to SyncNetInstance.evaluate."""
    contract = extractor.profile.network("sync").input
    assert isinstance(contract, SyncInput)
    cropper, cuts = crop.SyncCropper(contract), []
    for index, (picture, face) in enumerate(extractor.tracked_frames(clip, FaceTrack())):
        assert face is not None
        cuts += cropper.push(index, picture, face)
    cuts += cropper.finish()
    folder.mkdir()
    for index, rgb in cuts:
        # evaluate() looks for *.jpg; cv2.imread goes by content, so that PNG loses nothing.
        whole, encoded = cv2.imencode(".png", rgb[:, :, ::-1])
        assert whole
        (folder / f"{index:06d}.jpg").write_bytes(encoded.tobytes())
    wavfile.write(folder / "audio.wav", 16_000, audio.samples(clip))
    options = SimpleNamespace(tmp_dir=str(folder), batch_size=20, vshift=15)
    offset, confidence, least = SyncNetInstance(seeded_syncnet(), device="cpu").evaluate(options)
    return least, confidence, offset


CLIPS = [
    ("video_result/M003_source_sad_033.mp4", 0),  # NED strips: 30 fps; the source column
    ("video_result/M012_source_angry_029.mp4", 1024),  # the NED column
    ("neutral_036_1.mp4", 532),  # an EAT strip: 25 fps; the baseline's column
    ("video_result/neutral_040_1.mp4", 798),  # a DICE-Talk strip; the STCCL-CM column
]


@pytest.mark.parametrize(("name", "left"), CLIPS, ids=[name for name, _ in CLIPS])
def test_lse_of_a_real_clip_is_the_packages(
    name: str,
    left: int,
    samples: Path,
    random_sync: Extractor,
    run_ffmpeg: Callable[..., None],
    tmp_path: Path,
) -> None:
    # The first 1.8 s, kept without loss: quick, and the whole path is gone through all the same.
    clip = Clip(tmp_path / "clip.mkv")
    run_ffmpeg(
        "-i",
        samples / "stccl-page" / name,
        f"-t 1.8 -vf crop=256:256:{left}:0:exact=1 -c:v ffv1 -c:a pcm_s16le",
        clip.path,
    )
    assert random_sync.ensure({clip: frozenset({"sync"})}) == {}
    found = random_sync.load(clip, "sync")
    assert found is not None
    part = sync_part(found.outputs["visual"], found.outputs["audio"], found.frames, max_shift=15)
    assert part.windows_refused == 0
    assert 35 <= part.windows == found.n_frames - 5
    least, confidence, offset = evaluate_by_the_package(random_sync, clip, tmp_path / "official")
    assert part.value("distance") == pytest.approx(least, abs=1e-3)
    assert part.value("confidence") == pytest.approx(confidence, abs=1e-3)
    assert part.value("offset") == offset
    # The agreement is not one of numbers that are all alike: shifts differ by far more.
    means = part.totals / part.windows
    assert means.max() - means.min() > 0.1


# ---- intervals ------------------------------------------------------------------------------


def mean_of(values: np.ndarray) -> Callable[[Any], float]:
    return lambda drawn: float(values[list(drawn)].mean())


def bootstrap(items: int, statistic: Any, resamples: int, stream: int = 0) -> np.ndarray:
    return np.array([statistic(d) for d in intervals.drawn(items, resamples, stream).tolist()])


def interval_of(items: int, statistic: Any) -> tuple[float | None, float | None]:
    return intervals.interval(bootstrap(items, statistic, 1000))


def test_two_items_by_hand() -> None:
    # Draws of two from {0, 1}: means 0, 1/2, 1 with chances 1/4, 1/2, 1/4.
    assert interval_of(2, mean_of(np.array([0.0, 1.0]))) == (0.0, 1.0)


def test_draws_in_parts_are_the_draws_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(3).normal(size=37)
    whole = values[intervals.drawn(37, 1000, 5)].mean(axis=1)
    for size in (1, 9000, 1 << 25):
        monkeypatch.setattr(intervals, "BYTES", size)
        np.testing.assert_array_equal(intervals.drawn_means(values, 1000, 5), whole)


def test_the_interval_is_the_same_every_time() -> None:
    values = np.random.default_rng(0).normal(size=12)
    assert interval_of(12, mean_of(values)) == interval_of(12, mean_of(values))


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=12))
def test_the_interval_of_symmetric_data_contains_their_centre(spread: list[float]) -> None:
    values = 7 + np.array([*spread, *(-s for s in spread)])
    low, high = interval_of(len(values), mean_of(values))
    assert low is not None
    assert high is not None
    assert low < 7 < high


@pytest.mark.parametrize("n", [50, 400])
def test_the_interval_of_a_mean_has_the_width_that_its_variance_gives(n: int) -> None:
    # Values whose variance is exactly 4: the mean's standard error is 2 / sqrt(n), and the
    # interval reaches 1.96 of them to either side, within the noise of 1000 draws.
    values = np.random.default_rng(1).normal(size=n)
    values = (values - values.mean()) / values.std() * 2 + 10
    low, high = interval_of(n, mean_of(values))
    assert low is not None
    assert high is not None
    error = 1.96 * 2 / np.sqrt(n)
    assert low == pytest.approx(10 - error, abs=0.15 * error)
    assert high == pytest.approx(10 + error, abs=0.15 * error)


def test_items_that_are_all_the_same_have_an_interval_of_no_width() -> None:
    assert interval_of(9, mean_of(np.full(9, 2.5))) == (2.5, 2.5)


def test_draws_are_of_all_items_with_replacement() -> None:
    seen: list[tuple[int, ...]] = []

    def watch(drawn: Any) -> float:
        seen.append(tuple(drawn))
        return 0.0

    interval_of(5, watch)
    assert all(len(d) == 5 and set(d) <= set(range(5)) for d in seen)
    assert all(list(d) == sorted(d) for d in seen)
    assert any(len(set(d)) < 5 for d in seen)
    counts = np.bincount(np.ravel(seen), minlength=5) / len(seen)
    np.testing.assert_allclose(counts, 1, atol=0.15)  # each item once a draw, on average


def test_draws_that_cannot_be_scored_are_left_out() -> None:
    # As when too few frames are drawn: here draws without item 0 cannot be scored.
    def needs_first(drawn: Any) -> float:
        if 0 not in drawn:
            return math.nan
        return float(drawn.count(0))

    low, high = interval_of(3, needs_first)
    # Times that item 0 is drawn, given that it is: 1, 2 or 3, the last in 1 of 19 draws.
    assert (low, high) == (1.0, 3.0)


def test_no_interval_where_no_draw_can_be_scored() -> None:
    def never(drawn: Any) -> float:
        return math.nan

    assert interval_of(4, never) == (None, None)


def test_groups_that_are_averaged_are_drawn_independently() -> None:
    # Seven groups of two clips with values -1 and 1. A group's drawn mean is -1, 0 or 1 with
    # chances 1/4, 1/2, 1/4: variance 1/2. The mean of seven independent ones has 1/14; were
    # the draws the same in each group, it would still have 1/2.
    groups = [bootstrap(2, mean_of(np.array([-1.0, 1.0])), 4000, stream) for stream in range(7)]
    assert np.mean(groups, axis=0).var() == pytest.approx(1 / 14, rel=0.1)


@pytest.mark.parametrize(("dimensions", "frames"), [(16, 40), (128, 20)])  # full rank, and less
def test_distances_without_each_clip_are_the_same_on_any_number_of_cores(
    dimensions: int, frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    parts = [
        frechet_part(
            rng.normal(size=(frames + 3 * i, dimensions)),
            rng.normal(size=(frames, dimensions)),
            normalise=False,
        )
        for i in range(7)
    ]
    found = []
    for cores in (1, 3):
        monkeypatch.setattr("spfem_bench.statistics.frechet.processors", lambda cores=cores: cores)
        found.append(frechet.without(parts))
    assert found[0] == found[1] and None not in found[0]
