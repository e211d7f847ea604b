"""What each clip of a run brings to its scores, from the record alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from spfem_bench.errors import CardError
from spfem_bench.evaluation.record import RecordedItem, RunRecord
from spfem_bench.statistics import coherence, intervals, sync


class NoPartsError(CardError):
    """A record that lacks what the error of a score is computed from."""


@dataclass(frozen=True)
class ItemValue:
    """What one clip brings to a metric: the mean of an emotion's clips is its score.

    Attributes:
        value: a clip's own score; for FAD, which pools frames, its pseudo-value.
    """

    item: str
    speaker: str
    emotion: str
    value: float


def item_values(record: RunRecord, metric: str) -> list[ItemValue]:
    """Return what each scored clip brings to a metric, from the record alone.

    Raises:
        NoPartsError: FAD in a record that does not say what each clip does to it.
        CardError: the record is damaged: parts are missing or no numbers, or the scores do not
            follow from them.
    """
    remedy = "Run the evaluation again: features are kept"
    damaged = f"the run of '{record.method.name}' is damaged"
    statistic = record.settings_of(metric).metric.statistic
    scores = {s.emotion: s.value for s in record.scores if s.metric == metric}
    by_emotion: dict[str, list[RecordedItem]] = {}
    for item in record.items:
        if metric in item.metrics:
            by_emotion.setdefault(item.emotion, []).append(item)
    values = []
    for emotion, items in by_emotion.items():
        where = f"{metric} of '{emotion}'"
        if emotion not in scores:
            raise CardError(f"{damaged}: {where}: no score", remedy)
        score = scores[emotion]
        if score is None:  # too few frames, as its note says
            continue
        try:
            own = clip_values(statistic, score, [item.metrics[metric] for item in items])
        except NoPartsError as error:
            problem = error.problem.format(metric=metric)
            raise NoPartsError(f"the run of '{record.method.name}' {problem}", remedy) from None
        except CardError as error:
            raise CardError(f"{damaged}: {where}: {error.problem}", remedy) from None
        mean = math.fsum(own) / len(own) if own else math.nan
        if len(own) != len(items) or not math.isclose(mean, score, rel_tol=1e-6, abs_tol=1e-9):
            raise CardError(f"{damaged}: {where} is {score:g}, and {mean:g} by its clips", remedy)
        values += [
            ItemValue(item.id, item.speaker, emotion, value)
            for item, value in zip(items, own, strict=True)
        ]
    return values


# ---- TO MOVE: what only a statistic's kind can say (statistics/base.py) ---------------------
# The one place outside statistics/ that names kinds; `statistic` is the kind's settings and
# `kept` what a record keeps of one item.


def item_value(statistic: Mapping[str, Any], kept: Mapping[str, Any]) -> float | None:
    """Return one clip's value; None where only sets of clips have one.

    Raises:
        CardError: a part is missing, or is no number.
    """
    try:
        if statistic["kind"] == "similarity":
            return float(kept["total"]) / int(kept["count"])
        if statistic["kind"] == "coherence":
            return coherence.value(
                coherence.CoherenceComponents(
                    tuple(kept["positive"]),
                    tuple(kept["elsewhere"]),
                    tuple(kept["near"]),
                    kept["n_frames"],
                    kept["lag"],
                )
            )
        if statistic["kind"] == "sync":
            return sync.value(sync_components(kept), statistic["report"])
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        raise CardError(f"no {error}" if isinstance(error, KeyError) else str(error)) from None
    return None


def clip_values(
    statistic: Mapping[str, Any], score: float, kept: Sequence[Mapping[str, Any]]
) -> list[float]:
    """Return the values of one emotion's clips, whose mean is the score.

    Raises:
        NoPartsError: the record does not say what each clip does to the score.
        CardError: a part is missing, or is no number.
    """
    if not pools_frames(statistic):
        values = [item_value(statistic, part) for part in kept]
        return [v for v in values if v is not None]
    if not all("without" in part for part in kept):
        raise NoPartsError("is of an earlier version: it cannot say what a clip does to {metric}")
    without = [part["without"] for part in kept]
    if len(kept) == 1:
        return [score]
    if None in without:
        raise NoPartsError("cannot say what each clip does to {metric}: too few frames")
    try:
        return [float(v) for v in intervals.pseudo_values(score, without)]
    except (TypeError, ValueError) as error:
        raise CardError(str(error)) from None


def pools_frames(statistic: Mapping[str, Any]) -> bool:
    """Return whether the frames of all clips are pooled, so that the set of clips matters."""
    return bool(statistic["kind"] == "frechet")


def picture(statistic: Mapping[str, Any]) -> Literal["", "shifts", "heatmap"]:
    """Return which picture of one clip the report draws."""
    pictures: dict[str, Literal["shifts", "heatmap"]] = {"sync": "shifts", "coherence": "heatmap"}
    return pictures.get(statistic["kind"], "")


def sync_components(kept: Mapping[str, Any]) -> sync.SyncComponents:
    """Return lip sync's distances of one clip."""
    totals = np.asarray(kept["totals"], np.float64)
    return sync.SyncComponents(totals, int(kept["windows"]), int(kept["windows_refused"]))


def shift_distances(kept: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Return lip sync's mean distance of one clip at each shift."""
    components = sync_components(kept)
    return components.totals / components.windows
