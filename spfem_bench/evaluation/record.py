"""Run records: one JSON file per evaluation, from which any table is drawn."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from spfem_bench.errors import CardError
from spfem_bench.files import write_atomically

SCHEMA = 1

VALIDATION = "validate"
"""In the place of a method's name: the record of ``spfem-bench validate``, which is no run
record but lies among them (its ``kind`` says so)."""


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


def record_path(folder: Path, protocol: str, method: str, profile: str) -> Path:
    """Return where a record belongs in a results folder."""
    return folder / protocol / f"{method}.{profile}.json"


def save(record: Mapping[str, Any], path: Path) -> None:
    """Write a record, whole or not at all.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())


def replaced_metrics(path: Path, new: Sequence[Score]) -> list[str]:
    """Return the metrics that a record has now and a new one in its place would not have."""
    if not path.is_file():
        return []
    try:
        old = {s.metric for s in scores(load(path)) if s.value is not None}
    except CardError:
        return []
    return sorted(old - {s.metric for s in new if s.value is not None})


def load(path: Path) -> dict[str, Any]:
    """Read a record.

    Raises:
        NoRunError: the file is the record of a validation.
        CardError: the file is no run record, of a later schema, or holds a NaN.
    """

    def refuse(constant: str) -> float:
        raise CardError(f"{path} holds '{constant}', no number", "Run the evaluation again")

    try:
        record = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
        schema = record["schema"]
    except OSError as error:
        raise CardError(
            f"{path}: {error.strerror}", "Give files that 'spfem-bench eval' wrote"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise CardError(
            f"{path} is not a run record", "Give files that 'spfem-bench eval' wrote"
        ) from None
    if record.get("kind") == VALIDATION:
        raise NoRunError(
            f"{path} is the record of a validation, no run record",
            "Give files that 'spfem-bench eval' wrote",
        )
    if schema != SCHEMA:
        raise CardError(
            f"{path} has schema {schema}; this version reads {SCHEMA}", "Upgrade spfem-bench"
        )
    return dict(record)


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
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise CardError(f"a run record is damaged: {error}", "Run the evaluation again") from None
    return found
