"""Sets of reference numbers measured here.

``NAME.toml`` is written by hand, but for its history. ``NAME.csv`` (the numbers) and
``NAME.settings.json`` (what made them) are written by ``spfem-bench check NAME --update``.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

import pydantic

from spfem_bench.definitions.cards import Card, Kind, Strict, load, parse
from spfem_bench.definitions.lists import read_list
from spfem_bench.definitions.methods import method_card
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.errors import CardError, UnknownNameError, near_names
from spfem_bench.stored import parse_json, read_bounded
from spfem_bench.texts import csv_text

NumberName = Literal["value", "low", "high"]
NUMBERS: tuple[NumberName, ...] = ("value", "low", "high")
"""The numbers of a row that are compared within the tolerance."""


class Tolerance(Strict):
    """How far a metric's numbers may lie from their references."""

    absolute: float = pydantic.Field(gt=0, allow_inf_nan=False)  # in the metric's unit
    relative: float = pydantic.Field(default=0, ge=0, lt=1)  # of the reference; the larger counts
    reason: str = pydantic.Field(min_length=1)  # the measurement behind them

    def around(self, reference: float) -> float:
        """Return the largest difference allowed from one number."""
        return max(self.absolute, self.relative * abs(reference))


class Update(Strict):
    """One time that the numbers were written: when (UTC), with what, why and on which machine."""

    date: str = pydantic.Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    version: str
    reason: str = pydantic.Field(min_length=1)
    machine: str


class MeasuredCard(Card):
    """A set of reference numbers that ``spfem-bench check`` makes again and compares."""

    score_neutral: ClassVar[frozenset[str]] = Card.score_neutral.union(
        ("command", "tolerance", "history")
    )
    profile: str
    command: str  # what writes the numbers
    methods: dict[str, tuple[str, ...]] = pydantic.Field(min_length=1)  # by protocol
    tolerance: dict[str, Tolerance]  # by metric
    history: tuple[Update, ...] = ()  # why and when the numbers were written, the last time last

    @property
    def values_path(self) -> Path:
        """Where the numbers lie."""
        return self.path.with_suffix(".csv")

    @property
    def settings_path(self) -> Path:
        """Where the settings lie that made the numbers."""
        return self.path.with_suffix(".settings.json")


RowKey = tuple[str, str, str, str]  # protocol, method, metric and emotion


@dataclass(frozen=True)
class ReferenceRow:
    """One number with its interval and counts; the fields are those of a score."""

    protocol: str
    method: str
    metric: str
    emotion: str
    value: float | None
    low: float | None
    high: float | None
    n_items: int
    n_frames: int
    signature: str

    @property
    def key(self) -> RowKey:
        """What tells it from all others."""
        return self.protocol, self.method, self.metric, self.emotion


ReferenceRows = Mapping[RowKey, ReferenceRow]

SettingsByPart = dict[str, dict[str, Any]]
"""What made the numbers, by part, such as ``metric fad`` or ``software``."""


def measured_card(name: str) -> MeasuredCard:
    """Read a set's card by name, and check the names in it; raise UnknownNameError without one.

    Raises CardError for an unknown protocol, method or metric, or a metric without tolerance.
    """
    card = load(MeasuredCard, Kind.MEASURED, name)
    metrics: dict[str, None] = {}
    try:
        for protocol_name, methods in card.methods.items():
            metrics |= dict.fromkeys(protocol(protocol_name).card.metrics)
            for method in methods:
                found = method_card(method).name
                if found != method:
                    raise CardError(f"'{method}' is another name of '{found}'", "Write that one")
        for metric in card.tolerance:
            metric_card(metric)
    except (CardError, UnknownNameError) as error:
        raise CardError(f"{card.path}: {error.problem}", error.remedy) from None
    for metric in metrics:
        if metric not in card.tolerance:
            remedy = f"Add [tolerance.{metric}]; benchmarks/stability.py measures it"
            raise CardError(f"{card.path}: no tolerance for '{metric}'", remedy)
    return card


def read_rows(card: MeasuredCard) -> dict[RowKey, ReferenceRow]:
    """Read the numbers of a set; raise CardError if there are none yet, or a row is damaged."""
    if not card.values_path.is_file():
        problem = f"{card.values_path}: no reference numbers yet"
        raise CardError(problem, f"Type 'spfem-bench check {card.name} --update --reason \"...\"'")
    names = [f.name for f in fields(ReferenceRow)]
    rows: dict[RowKey, ReferenceRow] = {}
    for where, cells in read_list(card.values_path):
        if cells.keys() != set(names):
            wrong = sorted(cells.keys() ^ set(names))[0]
            raise CardError(f"{where}: the column '{wrong}'", near_names(wrong, names))
        numbers: dict[str, Any] = {}
        for name in (*NUMBERS, "n_items", "n_frames"):
            try:
                numbers[name] = _number(cells[name], whole=name not in NUMBERS)
            except ValueError:
                raise CardError(f"{where}: {name} is '{cells[name]}', not a number") from None
        row = ReferenceRow(**{**cells, **numbers})
        if row.key in rows:
            raise CardError(f"{where}: the row '{'/'.join(row.key)}' is there twice")
        rows[row.key] = row
    return rows


def _number(text: str, *, whole: bool) -> float | int | None:
    if whole:
        return int(text)
    number = float(text) if text else None
    if number is not None and not math.isfinite(number):
        raise ValueError(text)
    return number


def rows_text(rows: Iterable[ReferenceRow]) -> str:
    """Return the content of a set's CSV, with eight digits: finer than any tolerance."""
    lines = [[f.name for f in fields(ReferenceRow)]]
    for row in rows:
        cells = asdict(row)
        for column in NUMBERS:
            cells[column] = "" if cells[column] is None else f"{cells[column]:.8g}"
        lines.append([*cells.values()])
    return csv_text(lines)


def read_settings(card: MeasuredCard) -> SettingsByPart:
    """Read what made the numbers of a set; raise CardError if the file is absent or damaged."""
    path = card.settings_path
    try:
        content = parse_json(read_bounded(path))
        return {str(part): dict(values) for part, values in content.items()}
    except OSError as error:
        problem = error.strerror or "cannot be read"
    except (ValueError, TypeError, AttributeError, RecursionError):
        problem = "is not what 'spfem-bench check --update' writes"
    raise CardError(f"{path}: {problem}", "Take the three files of the set from one commit")


def settings_text(settings: SettingsByPart) -> str:
    """Return the content of a set's settings: one line for each part."""
    lines = [
        f" {json.dumps(part)}: {json.dumps(values, ensure_ascii=False)}"
        for part, values in settings.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def with_update(card: MeasuredCard, update: Update) -> bytes:
    """Return a card's bytes with an update appended; raise CardError when that cannot be done."""
    lines = [f"{k} = {json.dumps(v, ensure_ascii=False)}" for k, v in update.settings().items()]
    before = card.path.read_text(encoding="utf-8").rstrip("\n")
    content = "\n".join([before, "", "[[history]]", *lines, ""]).encode()
    if parse(content, card.path)["history"][-1] != update.settings():
        raise CardError(f"{card.path}: the reason '{update.reason}' cannot be appended")
    return content
