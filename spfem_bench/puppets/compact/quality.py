"""Held-out quality: on speakers and sentences that no network was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import combinations, product
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.faces import crop
from spfem_bench.progress import Progress
from spfem_bench.puppets.compact.learn import embed
from spfem_bench.puppets.compact.recipes import NetworkName, Recipe
from spfem_bench.puppets.compact.takes import draw_take
from spfem_bench.puppets.face import LANDMARKS
from spfem_bench.puppets.shots import Shot, draw_shots, speakers_and_sentences
from spfem_bench.puppets.world import World
from spfem_bench.statistics import frechet, sync
from spfem_bench.statistics.similarity import cosine

_Floats = npt.NDArray[np.float64]
_Crops = npt.NDArray[np.uint8]
_Vectors = npt.NDArray[np.float32]
_Pairs = list[tuple[int, int]]
SEED = 7
LEVELS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # intensities at which expressions are graded
MAX_SHIFT = 15  # frames, either way, over which the lips' shift is searched, as in the metric cards
SIGMAS = (0.5, 1.0, 2.0)  # of the blurs, in pixels of the crop


def held_out_takes(world: World, name: NetworkName) -> tuple[Shot, ...]:
    """Return the takes that measure a network: validation and test speakers, test sentences.

    For ``expression`` all levels of each emotion; for ``sync`` and ``landmarks`` two emotions of
    each speaker and sentence, by turns.
    """
    sentences = [s.name for s in world.sentences if s.split == "test"]
    speakers = [s.name for s in world.speakers if s.split in ("validation", "test")]
    if name in ("sync", "landmarks"):
        by_turns = product(enumerate(speakers), enumerate(sentences), range(2))
        return tuple(
            Shot(speaker, EMOTIONS[(3 * i + 2 * j + k) % len(EMOTIONS)], sentence, 1.0)
            for (i, speaker), (j, sentence), k in by_turns
        )
    levels = LEVELS if name == "expression" else (1.0,)
    return tuple(Shot(*names) for names in product(speakers, EMOTIONS, sentences, levels))


def held_out_quality(
    world: World,
    name: NetworkName,
    network: nn.Module,
    recipe: Recipe,
    workers: int,
    progress: Progress,
) -> dict[str, Any]:
    """Measure a trained network on :func:`held_out_takes`; the progress is ``NAME: check``."""
    shots = held_out_takes(world, name)
    frames = {"identity": 4, "expression": 2, "sync": 0, "landmarks": 0}[name]
    draw = partial(draw_take, world=world, name=name, recipe=recipe, frames=frames)
    drawn = draw_shots(draw, shots, workers, progress, f"{name}: check")
    common = {**speakers_and_sentences(shots), "takes": len(shots)}
    if name == "sync":
        return common | lip_sync(network, [d.crops for d in drawn], [d.steps[0] for d in drawn])
    if name == "landmarks":
        return common | placement(network, [d.crops for d in drawn], [d.points for d in drawn])
    crops = np.stack([d.crops for d in drawn])  # (takes, frames, side, side, 3)
    measure = verification if name == "identity" else recognition
    return common | measure(network, shots, crops)


def _scaled(pictures: Tensor) -> Tensor:
    return (pictures.permute(0, 3, 1, 2).float() - 127.5) / 127.5


def verification(network: nn.Module, shots: Sequence[Shot], crops: _Crops) -> dict[str, Any]:
    """Verify identities across emotions; crops are uint8 (takes, frames, 112, 112, 3).

    ``accuracy``: of ten folds, each at the others' best threshold, as for LFW (Huang et al., 2007);
    ``fad_after_blur``: Frechet distance between half of the frames, blurred, and the others.
    """
    takes, frames = crops.shape[:2]

    def vectors(pictures: _Crops) -> _Vectors:
        flat = pictures.reshape(-1, *pictures.shape[-3:])
        return np.asarray(embed(lambda x: network(_scaled(x)), flat)["embedding"])

    embedding = vectors(crops).reshape(takes, frames, -1)
    same, different = balanced_pairs(shots)
    pairs = [
        cosine(embedding[a, k % frames], embedding[b, (k + 1) % frames])
        for k, (a, b) in enumerate([*same, *different])
    ]
    scores = np.array(pairs).ravel()
    truth = np.arange(len(scores)) < len(same)

    def moments(vectors: _Vectors) -> frechet.Moments:
        return frechet.Moments.of(vectors.reshape(-1, vectors.shape[-1]))

    sharp, after_blur = moments(embedding[:, 1::2]), {"0": moments(embedding[:, ::2])}
    even = crops[:, ::2].reshape(-1, *crops.shape[2:])
    for sigma in SIGMAS:
        blurred = [crop.opencv().GaussianBlur(picture, (0, 0), sigma) for picture in even]
        after_blur[f"{sigma:g}"] = moments(vectors(np.stack(blurred)))
    distances = {k: float(frechet.frechet_distance(v, sharp)) for k, v in after_blur.items()}
    return {
        "pairs": len(scores),
        "accuracy": verification_accuracy(scores, truth),
        "eer": equal_error_rate(scores, truth),
        "same_mean_cosine": float(scores[truth].mean()),
        "different_mean_cosine": float(scores[~truth].mean()),
        "fad_after_blur": distances,
    }


def balanced_pairs(shots: Sequence[Shot], count: int = 3000) -> tuple[_Pairs, _Pairs]:
    """Return equally many pairs of takes of one speaker and of two, emotions always differing."""
    rng = np.random.default_rng(SEED)
    kinds: tuple[_Pairs, _Pairs] = ([], [])
    for a, b in combinations(range(len(shots)), 2):
        if shots[a].emotion != shots[b].emotion:
            kinds[shots[a].speaker != shots[b].speaker].append((a, b))
    count = min(count, *map(len, kinds))
    chosen = (rng.choice(len(kind), count, replace=False) for kind in kinds)
    same, different = ([kind[i] for i in some] for kind, some in zip(kinds, chosen, strict=True))
    return same, different


def verification_accuracy(scores: _Floats, truth: npt.NDArray[np.bool_], folds: int = 10) -> float:
    """Return the mean accuracy of folds, each at the others' best threshold."""
    fold = np.empty(len(scores), np.int64)
    for kind in (truth, ~truth):
        fold[kind] = np.arange(kind.sum()) % folds
    right = []
    for k in range(folds):
        held, rest = scores[fold == k], scores[fold != k]
        limits = np.unique(rest)
        if len(limits) > 1000:
            limits = np.quantile(limits, np.linspace(0, 1, 1001))
        limits = np.concatenate([(limits[1:] + limits[:-1]) / 2, limits[:1]])
        hits = ((rest[None] >= limits[:, None]) == truth[fold != k][None]).mean(1)
        right.append(((held >= limits[hits.argmax()]) == truth[fold == k]).mean())
    return float(np.mean(right))


def equal_error_rate(scores: _Floats, truth: npt.NDArray[np.bool_]) -> float:
    """Return the rate at which as many pairs are wrongly accepted as wrongly refused."""
    limits = np.unique(scores)
    same, different = np.sort(scores[truth]), np.sort(scores[~truth])
    refused = np.searchsorted(same, limits) / len(same)
    accepted = 1 - np.searchsorted(different, limits) / len(different)
    best = np.abs(refused - accepted).argmin()
    return float((refused[best] + accepted[best]) / 2)


def recognition(network: nn.Module, shots: Sequence[Shot], crops: _Crops) -> dict[str, Any]:
    """Recognise expressions at full intensity, and grade them.

    Takes have all of :data:`LEVELS`, crops are uint8 (takes, frames, 64, 64, 3). ``spearman_*`` are
    mean rank correlations of the intensity with the emotion's probability, and with the cosine to
    the other speakers' mean features; ``variance_of_features`` the parts that groups explain.
    """
    from scipy.stats import spearmanr

    takes, frames = crops.shape[:2]
    flat = crops.reshape(-1, *crops.shape[-3:])
    out = embed(lambda x: network(_scaled(x)), flat)
    probability = out["probabilities"].reshape(takes, frames, -1)
    features = out["features"].reshape(takes, frames, -1).mean(1).astype(np.float64)
    emotion = np.array([EMOTIONS.index(s.emotion) for s in shots])
    speaker = np.array([s.speaker for s in shots])
    full = np.array([s.intensity == 1 for s in shots])
    right = probability[full].argmax(2) == emotion[full][:, None]
    ladders: dict[tuple[str, str, str], list[int]] = {}
    for i, s in enumerate(shots):
        if s.emotion != "neutral":
            ladders.setdefault(s[:3], []).append(i)
    ranks: list[list[float]] = []
    for (person, feeling, _), steps in ladders.items():
        level, index = [shots[i].intensity for i in steps], EMOTIONS.index(feeling)
        centre = features[full & (emotion == index) & (speaker != person)].mean(0)
        both = probability[steps, :, index].mean(1), cosine(features[steps], centre)
        # spearmanr returns NaN for equal values, which grade nothing.
        ranks.append([spearmanr(level, v).statistic if np.ptp(v) else 0.0 for v in both])
    by_probability, by_cosine = (float(np.mean(rank)) for rank in zip(*ranks, strict=True))
    hits = {e: float(right[emotion[full] == k].mean()) for k, e in enumerate(EMOTIONS)}
    return {
        "accuracy": float(right.mean()),
        "accuracy_by_emotion": hits,
        "spearman_probability": by_probability,
        "spearman_cosine": by_cosine,
        "variance_of_features": {
            "emotion": explained(features[full], emotion[full]),
            "speaker": explained(features[full], speaker[full]),
        },
    }


def explained(vectors: _Floats, groups: npt.NDArray[Any]) -> float:
    """Return the part of the variance that lies between groups (eta squared).

    >>> explained(np.array([[0.0], [0.0], [1.0], [1.0]]), np.array([0, 0, 1, 1]))
    1.0
    """
    middle = vectors.mean(0)
    members = (vectors[groups == g] for g in np.unique(groups))
    between = sum(float(len(part) * ((part.mean(0) - middle) ** 2).sum()) for part in members)
    return between / float(((vectors - middle) ** 2).sum())


def placement(
    network: nn.Module, crops: Sequence[_Crops], truth: Sequence[_Vectors]
) -> dict[str, Any]:
    """Compare landmarks with their true places, in parts of the distance of the outer eye corners.

    Each take has crops, uint8 (frames, 64, 64, 3), and points, float32 (frames, 25, 2).
    ``opening_r`` is Pearson's r of the lips' opening over a take's frames: the mean of takes.
    """
    eyes, lips = (
        [LANDMARKS.index(f"{part}_{side}") for part, side in names]
        for names in (
            (("eye_right", "outer"), ("eye_left", "outer")),
            (("mouth_inner", "top"), ("mouth_inner", "bottom")),
        )
    )
    errors, openings = [], []
    for pictures, places in zip(crops, truth, strict=True):
        found = embed(lambda x: network(_scaled(x)), pictures)["points"].reshape(places.shape)
        eye = np.linalg.norm(places[:, eyes[0]] - places[:, eyes[1]], axis=1)
        errors.append(np.linalg.norm(found - places, axis=2) / eye[:, None])
        gaps = [np.linalg.norm(p[:, lips[0]] - p[:, lips[1]], axis=1) for p in (found, places)]
        openings.append(float(np.corrcoef(gaps)[0, 1]))
    every = np.concatenate(errors)
    return {
        "mean_error": float(every.mean()),
        "largest_mean_error_of_a_take": float(max(e.mean() for e in errors)),
        "mean_error_by_landmark": {
            name: float(e) for name, e in zip(LANDMARKS, every.mean(0), strict=True)
        },
        "opening_r": float(np.mean(openings)),
    }


def lip_sync(
    network: nn.Module, crops: Sequence[_Crops], steps: Sequence[_Vectors]
) -> dict[str, Any]:
    """Find the shift between mouth and sound, as they are and shifted by up to eight frames.

    Each take has crops, uint8 (frames, 64, 64, 3), and MFCCs, float32 (S, 13). Distance and
    confidence are computed as for LSE-D and LSE-C.
    """
    from spfem_bench.media.mfcc import WINDOW, sound_windows

    rng = np.random.default_rng(SEED)
    hits: dict[str, list[bool]] = {"true": [], "shifted": []}
    distances, confidences = [], []
    for pictures, spoken in zip(crops, steps, strict=True):
        count = len(pictures) - WINDOW
        bgr = torch.from_numpy(np.ascontiguousarray(pictures[..., ::-1].transpose(3, 0, 1, 2)))
        with torch.inference_mode():
            video = network.visual(bgr[None].float())[0].numpy()[:count]  # type: ignore[operator]
        audio = embed(network.audio, sound_windows(spoken, count))  # type: ignore[arg-type]
        shift = int(rng.choice([s for s in range(-8, 9) if s]))
        for kind, offset in (("true", 0), ("shifted", shift)):
            v, a = shift_audio(video, audio, offset)
            part = sync.sync_part(v, a, np.arange(len(v)), max_shift=MAX_SHIFT)
            hits[kind].append(abs(part.value("offset") - offset) <= 1)
            if kind == "true":
                distances.append(part.value("distance"))
                confidences.append(part.value("confidence"))
    return {
        "within_one_frame": {kind: float(np.mean(right)) for kind, right in hits.items()},
        "mean_distance": float(np.mean(distances)),
        "mean_confidence": float(np.mean(confidences)),
    }


def shift_audio(video: _Vectors, audio: _Vectors, offset: int) -> tuple[_Vectors, _Vectors]:
    """Return a clip's vectors as if its sound came *offset* frames early (late when negative)."""
    count = len(audio) - abs(offset)
    return video[max(0, -offset) :][:count], audio[max(0, offset) :][:count]
