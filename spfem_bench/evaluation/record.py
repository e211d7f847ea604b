"""Run records: one JSON file per evaluation, from which any table is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pydantic

from spfem_bench.definitions.cards import Text
from spfem_bench.errors import CardError
from spfem_bench.statistics import coherence, intervals, sync
from spfem_bench.stored import read_json, write_json

SCHEMA = 1

VALIDATION = "validate"
"""In the place of a method's name: the record of ``spfem-bench validate``, which is no run
record but lies among them (its ``kind`` says so)."""


class NoPartsError(CardError):
    """A record that lacks what the error of a score is told from."""


class NoRunError(CardError):
    """The record of something else than an evaluation."""


@dataclass(frozen=True)
class Score:
    """One number with everything it must carry.

    Attributes:
        emotion: an emotion, or ``avg`` for the plain mean over emotions (the headline).
        value: None when there is no score; ``note`` says why.
        low: lower end of the 95 % bootstrap interval over items.
        high: upper end.
        n_items: clips the number stands on.
        n_frames: frames (for lip sync: windows) of the method's clips it stands on.
        n_refused: clips that are missing or were refused.
        n_frames_refused: frames of the scored clips that do not count.
        partial: whether clips are missing or refused.
        kind: ``reproduced`` or ``control``.
        signature: how the number was made; equal signatures may be compared.
    """

    method: str
    protocol: str
    setting: str
    profile: str
    metric: str
    emotion: str
    value: float | None
    low: float | None
    high: float | None
    n_items: int
    n_frames: int
    n_refused: int
    n_frames_refused: int
    partial: bool
    kind: str
    note: str
    signature: str


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


def record_path(folder: Path, protocol: str, method: str, profile: str) -> Path:
    """Return where a record belongs in a results folder."""
    return folder / protocol / f"{method}.{profile}.json"


def save(record: Mapping[str, Any], path: Path) -> None:
    """Write a record with its checksum, whole or not at all.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    write_json(path, record)


def replaced_metrics(path: Path, new: Sequence[Score]) -> list[str]:
    """Return the metrics that a record has now and a new one in its place would not have."""
    if not path.is_file():
        return []
    try:
        old = {s.metric for s in scores(load(path)) if s.value is not None}
    except CardError:
        return []
    return sorted(old - {s.metric for s in new if s.value is not None})


class _Part(pydantic.BaseModel):
    """A part of a record: what its readers rely on, and of what kind the rest is if it is there."""

    model_config = pydantic.ConfigDict(strict=True)


class _Method(_Part):
    name: Text
    label: Text
    kind: Text
    paper: Text = ""
    link: Text = ""


class _Published(_Part):
    dataset: Text
    setting: Text


class _Protocol(_Part):
    name: Text
    version: int = 0
    setting: Text
    emotions: list[Text] = []
    n_items: int = 0
    published: _Published | None


_SCORE: Any = {n: (Text if kind is str else kind, ...) for n, kind in get_type_hints(Score).items()}
_Score = pydantic.create_model("_Score", __base__=_Part, **_SCORE)


class _Item(_Part):
    id: Text
    speaker: Text
    emotion: Text
    clips: dict[Text, dict[Text, Any]]
    metrics: dict[Text, dict[Text, Any]]


class _Refused(_Part):
    item: Text
    clip: Text
    metrics: list[Text]
    kind: Text
    reason: Text
    remedy: Text


class _Record(_Part):
    """See ``docs/run_record.md``."""

    method: _Method
    protocol: _Protocol
    profile: Text
    complete: bool = False
    partial: bool = False
    unverified: bool = False
    scores: list[_Score]
    items: list[_Item] = []
    refused: list[_Refused] = []
    extra: list[Text] = []
    settings: dict[Text, dict[Text, Any]] = {}
    environment: dict[Text, Any] = {}
    timings: dict[Text, Any] = {}


def load(path: Path) -> dict[str, Any]:
    """Read a record; one of an earlier version, without a checksum, gets ``unverified``.

    Raises:
        NoRunError: the file is the record of a validation.
        CardError: the file is no run record, of a later schema, damaged, or holds a NaN.
    """
    try:
        record, verified = read_json(path)
        schema = record["schema"]
    except OSError as error:
        raise CardError(
            f"{path}: {error.strerror}", "Give files that 'spfem-bench eval' wrote"
        ) from None
    except KeyError:
        raise CardError(
            f"{path} is not a run record", "Give files that 'spfem-bench eval' wrote"
        ) from None
    except ValueError as error:
        raise CardError(
            f"{path} is not a run record, or is damaged: {error}",
            "Give files that 'spfem-bench eval' wrote, or run the evaluation again",
        ) from None
    if record.get("kind") == VALIDATION:
        raise NoRunError(
            f"{path} is the record of a validation, no run record",
            "Give files that 'spfem-bench eval' wrote",
        )
    if schema != SCHEMA:
        raise CardError(
            f"{path} has schema {schema!r}; this version reads {SCHEMA}", "Upgrade spfem-bench"
        )
    try:
        _Record.model_validate(record)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CardError(
            f"{path} is damaged: '{where}': {first['msg']}",
            "Run the evaluation again",
        ) from None
    return record if verified else {**record, "unverified": True}


def load_all(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read records, of folders all that lie in them; a validation's, beside runs, is passed over.

    Raises:
        NoRunError: there is no other record than a validation's.
        CardError: a file is no run record, or of a later schema; a folder has none.
    """
    records, others = [], []
    for path in paths:
        files = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        if not files:
            raise CardError(f"no run record in {path}", "Give files that 'spfem-bench eval' wrote")
        for file in files:
            try:
                records.append(load(file))
            except NoRunError as error:
                others.append(error)
    if others and not records:
        raise others[0]
    return records


def unverified(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a note that names the methods whose records have no checksum; none without one."""
    names = sorted({str(r["method"]["label"]) for r in records if r.get("unverified")})
    return [f"unverified, of records without a checksum: {', '.join(names)}"] if names else []


def scores(record: Mapping[str, Any]) -> list[Score]:
    """Return a record's scores.

    Raises:
        CardError: the record lacks something that a score must have, or a score is not finite.
    """
    names = {f.name for f in fields(Score)}
    try:
        found = [Score(**{k: v for k, v in s.items() if k in names}) for s in record["scores"]]
        for s in found:
            if not all(math.isfinite(v) for v in (s.value, s.low, s.high) if v is not None):
                raise ValueError(f"{s.metric} of {s.method}, {s.emotion}, is not a finite number")
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
        raise CardError(f"a run record is damaged: {error}", "Run the evaluation again") from None
    return found


def item_values(record: Mapping[str, Any], metric: str) -> list[ItemValue]:
    """Return what each scored clip brings to a metric, from the record alone.

    Raises:
        NoPartsError: FAD in a record that does not say yet what each clip does to it.
        CardError: the record is damaged: parts are missing or no numbers, or the scores do not
            follow from them.
    """
    remedy = "Run the evaluation again: features are kept"
    try:
        name = record["method"]["name"]
    except (KeyError, TypeError) as error:
        raise CardError(f"a run record is damaged: no name of a method ({error})", remedy) from None
    known = {s.emotion: s.value for s in scores(record) if s.metric == metric}
    parts: dict[str, list[tuple[Mapping[str, Any], Mapping[str, Any]]]] = {}
    found = []
    where = ""
    try:
        statistic = record["settings"][metric]["metric"]["statistic"]
        for item in record["items"]:
            if metric in item["metrics"]:
                parts.setdefault(item["emotion"], []).append((item, item["metrics"][metric]))
        for emotion, chosen in parts.items():
            score = known[emotion]
            if score is None:  # too few frames, as its note says
                continue
            where = f"{metric} of '{emotion}'"
            values = _values(statistic, score, [part for _, part in chosen])
            for (item, _), value in zip(chosen, values, strict=True):
                found.append(ItemValue(item["id"], item["speaker"], emotion, value))
            mean = math.fsum(values) / len(values)
            if not math.isclose(mean, score, rel_tol=1e-6, abs_tol=1e-9):
                raise CardError(
                    f"the run of '{name}' is damaged: {where} is {score:g}, and {mean:g} by its "
                    "clips",
                    remedy,
                )
    except NoPartsError as error:
        raise NoPartsError(
            f"the run of '{name}' {error.problem.format(metric=metric)}", remedy
        ) from None
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise CardError(
            f"the run of '{name}' is damaged: {where or metric}: {what}", remedy
        ) from None
    return found


def item_value(part: Mapping[str, Any], statistic: Mapping[str, Any]) -> float | None:
    """Return one clip's value, made of what a record keeps of it; None where only sets have one.

    >>> item_value({"total": 6.0, "count": 8}, {"kind": "similarity"})
    0.75
    """
    if statistic["kind"] == "similarity":
        return float(part["total"]) / int(part["count"])
    if statistic["kind"] == "coherence":
        return coherence.value(
            coherence.CoherenceComponents(
                tuple(part["positive"]),
                tuple(part["elsewhere"]),
                tuple(part["near"]),
                part["n_frames"],
                part["lag"],
            )
        )
    if statistic["kind"] == "sync":
        return sync.value(sync_components(part), statistic["report"])
    return None


def sync_components(part: Mapping[str, Any]) -> sync.SyncComponents:
    """Return lip sync's distances of one clip, made of what a record keeps of it."""
    totals = np.asarray(part["totals"], np.float64)
    return sync.SyncComponents(totals, int(part["windows"]), int(part["windows_refused"]))


def _values(
    statistic: Mapping[str, Any], score: float, parts: Sequence[Mapping[str, Any]]
) -> list[float]:
    """Return the values of an emotion's clips, made of what the record keeps of them."""
    if statistic["kind"] == "frechet":
        if not all("without" in part for part in parts):
            raise NoPartsError(
                "is of an earlier version: it cannot say what a clip does to {metric}"
            )
        without = [part["without"] for part in parts]
        if len(parts) == 1:
            return [score]
        if None in without:
            raise NoPartsError("cannot say what each clip does to {metric}: too few frames")
        return [float(v) for v in intervals.pseudo_values(score, without)]
    values = [item_value(part, statistic) for part in parts]
    return [v for v in values if v is not None]
