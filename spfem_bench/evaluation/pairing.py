"""Pairs of recordings for the discovery, from protocols and from folders of clips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from spfem_bench.datasets.alignment import align_clips
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.datasets.pairs import EmotionPair, Held
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.protocols import Protocol
from spfem_bench.errors import CardError, ClipError
from spfem_bench.evaluation.outputs import Videos
from spfem_bench.evaluation.plan import make_plan
from spfem_bench.features.crops import find_lag
from spfem_bench.features.pair_extract import PairExtractor
from spfem_bench.files import files_by_stem
from spfem_bench.media.video import VIDEO_SUFFIXES, content_id
from spfem_bench.progress import SILENT, Progress
from spfem_bench.texts import few

Timing = Literal["truth", "sound", "motion"]
"""How corresponding frames are found: exactly, by what is said, or by a constant lag."""


@dataclass(frozen=True)
class Paired:
    """Pairs, and how they were found.

    Attributes:
        lags: of pairs put in step by motion: frames that the second runs behind the first.
        left_out: clips that cannot be paired, with the reason.
    """

    pairs: tuple[EmotionPair, ...]
    timing: Timing
    lags: tuple[int, ...] = ()
    left_out: tuple[str, ...] = ()


def protocol_pairs(
    method: str,
    protocol: Protocol,
    scorer: PairExtractor,
    data: DataFolders,
    *,
    videos: Videos | None = None,
    max_lag: int = 6,
    progress: Progress = SILENT,
) -> Paired:
    """Pair each item's source with a method's output, or with its real clip.

    Puppets against ``real`` are aligned by the exact truth of their speech, and drawn in one pose.
    Other real clips are aligned with the source by their sound; outputs run in step with it but for
    a constant lag of *max_lag* frames at most, which is found by motion. Items in which both are
    the same clip (an inter-ID neutral) teach nothing and are left out. *method* is one of the
    protocol's, or any name with *videos*. Raises UnknownNameError when the protocol has no such
    method, and CardError when nothing can be paired.
    """
    provider = data.provider(protocol.dataset)
    if provider.has_exact_pairs and method == "real" and videos is None:
        exact = []
        for item in protocol.items:
            exact.append(provider.exact_pair(item))
            progress.advance("pairs")
        return _paired([pair for pair in exact if pair], "truth")
    planned = partial(make_plan, data=data, weights=scorer.extractor.weights, progress=progress)
    plan = planned(method, protocol, scorer.extractor.profile, metrics=("scc",), videos=videos)
    if plan.unavailable:
        raise CardError(next(iter(plan.unavailable.values())))
    left = list(dict.fromkeys(r.reason for r in plan.refusals))
    jobs = []
    for item, clips in ((one.item, one.clips) for one in plan.items):
        if {"source", "output"} <= clips.keys():
            if content_id(clips["source"]) == content_id(clips["output"]):
                left.append(f"{item.id}: source and {method} are one clip")
            else:
                jobs.append((clips["source"], clips["output"], item.speaker, item.emotion))
    timing: Timing = "sound" if method == "real" else "motion"
    return _pair_all(jobs, scorer, timing, max_lag, progress, left)


def folder_pairs(
    source: Path,
    target: Path,
    scorer: PairExtractor,
    *,
    emotion: str = "all",
    timing: Timing = "motion",
    max_lag: int = 6,
    progress: Progress = SILENT,
) -> Paired:
    """Pair the clips of two folders by their names.

    The speaker is a name's part before the first underscore: ``M003_001.mp4``. *emotion* is that of
    the second folder. *timing* is ``motion`` for outputs that run at most *max_lag* frames out of
    step with their source, ``sound`` for recordings. Raises ClipError for no folder, two clips of
    one name, or no name in both, and CardError when nothing can be paired.
    """
    jobs = [
        (Clip(a), Clip(b), a.stem.partition("_")[0], emotion) for a, b in same_names(source, target)
    ]
    return _pair_all(jobs, scorer, timing, max_lag, progress, [])


def same_names(source: Path, generated: Path) -> list[tuple[Path, Path]]:
    """Return the videos of two folders that have one name but for the suffix.

    Raises ClipError for no folder, two videos of one name in one, or names that only one has.
    """
    remedy = "Give two folders of videos"
    a, b = (files_by_stem(folder, VIDEO_SUFFIXES, remedy) for folder in (source, generated))
    alone = [str((a | b)[stem]) for stem in [*a, *b] if (stem in a) != (stem in b)]
    if alone:
        raise ClipError(
            f"{len(alone)} videos have no counterpart of their name: {few(alone)}",
            "Name each output like its source, or move the others away",
        )
    if not a:
        raise ClipError(
            f"{source} and {generated} hold no videos", f"Allowed: {', '.join(VIDEO_SUFFIXES)}"
        )
    return [(path, b[stem]) for stem, path in a.items()]


def _pair_all(
    jobs: Sequence[tuple[Clip, Clip, str, str]],
    scorer: PairExtractor,
    timing: Timing,
    max_lag: int,
    progress: Progress,
    left: list[str],
) -> Paired:
    """Pair two clips per job; append to *left* why others cannot be paired."""
    pairs, lags = [], []
    progress.begin("pairs", len(jobs), "pair")
    for source, target, speaker, emotion in jobs:
        try:
            frames, held, lag = _align(scorer, source, target, timing, max_lag)
            pairs.append(EmotionPair(speaker, emotion, *held, frames))
            lags.append(lag)
        except ClipError as error:
            left.append(error.problem)
        progress.advance("pairs")
    progress.end("pairs")
    return _paired(pairs, timing, lags, left)


def _align(
    scorer: PairExtractor, source: Clip, target: Clip, timing: Timing, max_lag: int
) -> tuple[npt.NDArray[np.int64], tuple[Held, Held], int]:
    """Return corresponding frames (N, 2), both clips' crops, and the lag in frames."""
    x, y = scorer.crops(source), scorer.crops(target)
    lag = 0
    if timing == "sound":
        numbers = align_clips(source, target).numbers  # at 25 frames a second, as crops
    else:
        lag = find_lag(x, y, max_lag).lag
        numbers = np.stack([y.frames + lag, y.frames], axis=1)
    with_face = np.isin(numbers[:, 0], x.frames) & np.isin(numbers[:, 1], y.frames)
    if not with_face.any():
        raise ClipError(f"{source} and {target} have no frame with a face in common")
    first, second = (
        Held(clip.path.name, z.pictures, z.frames) for clip, z in ((source, x), (target, y))
    )
    return np.asarray(numbers[with_face], np.int64), (first, second), lag


def _paired(
    pairs: Sequence[EmotionPair], timing: Timing, lags: Sequence[int] = (), left: Sequence[str] = ()
) -> Paired:
    if not pairs:
        reason = f": {left[0]}" if left else ""
        raise CardError(f"no two clips to compare{reason}", "Name another method or protocol")
    return Paired(tuple(pairs), timing, tuple(lags), tuple(left))
