"""Run records: one JSON file per evaluation. Its schema is :class:`RunRecord`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import pydantic

from spfem_bench.definitions.cards import Text
from spfem_bench.errors import CardError
from spfem_bench.statistics.base import MetricKind, NoPartsError, read_kind
from spfem_bench.stored import read_json, write_json

SCHEMA = 1

LARGEST_RECORD = 400_000_000
"""Bytes of a run record that is read: the longest list of items gives 300 million at most."""

VALIDATION = "validate"
"""The ``kind`` of a record of ``spfem-bench validate``, and its name among run records."""


class NoRunError(CardError):
    """The record of something else than an evaluation."""


_Member = TypeVar("_Member")
_Members: TypeAlias = Annotated[tuple[_Member, ...], pydantic.Strict(False)]
"""A list in JSON."""


class _Recorded(pydantic.BaseModel):
    """A part of a record; keys that this version does not know are kept."""

    model_config = pydantic.ConfigDict(
        strict=True, frozen=True, extra="allow", populate_by_name=True
    )
    _keys: tuple[str, ...] = ()

    @pydantic.model_validator(mode="wrap")
    @classmethod
    def _keep_order(cls, content: Any, validate: Callable[[Any], Any]) -> Any:
        part = validate(content)
        if isinstance(content, Mapping):
            part._keys = tuple(content)
        return part

    def plain(self) -> dict[str, Any]:
        """Return the keys that were read or given, in their order, as JSON values."""
        return {key: _plain(value) for key, value in self.parts().items()}

    def parts(self) -> dict[str, Any]:
        """Return the keys that were read or given, in their order, with their values."""
        names = _aliases(type(self))
        return {key: getattr(self, names.get(key, key)) for key in self._keys}

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and dict(self) == dict(other)


@cache
def _aliases(part: type[_Recorded]) -> dict[str, str]:
    fields = part.model_fields.items()
    return {field.alias: name for name, field in fields if field.alias is not None}


def _plain(value: Any) -> Any:
    if isinstance(value, _Recorded):
        return value.plain()
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value


class RecordedMethod(_Recorded):
    """What was evaluated.

    Attributes:
        kind: of the method's card, such as ``system`` or ``control``.
        control: what a control put in the output's place; None for other methods.
        model: hashes of the weights of a model of the demo; None for other methods.
    """

    name: Text
    label: Text
    kind: Text
    control: Mapping[Text, Any] | None = None
    model: Mapping[Text, Any] | None = None
    paper: Text
    link: Text


class RecordedTable(_Recorded):
    """Data set and setting of the papers' rows that are printed beside a run.

    Attributes:
        recipe: the profile, if any, through which numbers are made as the papers' rows were.
    """

    dataset: Text
    setting: Text
    recipe: Text | None = None


class RecordedProtocol(_Recorded):
    """What it was evaluated on.

    Attributes:
        determined: how many items' test clips are determined by what is published, where the list
            was solved from the user's own clips; else empty.
    """

    name: Text
    version: int
    setting: Text
    emotions: _Members[Text]
    n_items: int
    list_sha256: Text
    published: RecordedTable | None
    determined: Text = ""


_Finite = Annotated[float, pydantic.AllowInfNan(False)]


class Score(_Recorded):
    """One number with everything it must carry.

    Attributes:
        emotion: an emotion, or ``avg`` for the plain mean over emotions (the headline).
        value: None when there is no score; ``note`` says why.
        low: lower end of the 95 % bootstrap interval over items; ``high`` is the upper.
        n_items: clips the number stands on; ``n_refused`` are missing or were refused.
        n_frames: frames (for lip sync: windows) of the method's clips it stands on;
            ``n_frames_refused`` others of the scored clips do not count.
        partial: whether clips are missing or refused.
        kind: ``reproduced`` or ``control``.
        signature: how the number was made; equal signatures may be compared.
    """

    method: Text
    protocol: Text
    setting: Text
    profile: Text
    metric: Text
    emotion: Text
    value: _Finite | None
    low: _Finite | None
    high: _Finite | None
    n_items: int
    n_frames: int
    n_refused: int
    n_frames_refused: int
    partial: bool
    kind: Text
    note: Text
    signature: Text


class RecordedClip(_Recorded):
    """One clip of an item.

    Attributes:
        content: hash of the decoded content; None when the clip was missing.
    """

    address: Text
    content: Text | None


class RecordedItem(_Recorded):
    """One item of the protocol.

    Attributes:
        clips: by role.
        more_real: addresses of further real clips.
        metrics: by metric, the sums and counts that the metric's kind keeps of the item.
    """

    id: Text
    speaker: Text
    emotion: Text
    clips: Mapping[Text, RecordedClip]
    more_real: _Members[Text] = ()
    metrics: Mapping[Text, Mapping[Text, Any]]


class RecordedRefusal(_Recorded):
    """One clip that could not be scored, and why."""

    item: Text
    clip: Text
    metrics: _Members[Text]
    kind: Text
    reason: Text
    remedy: Text


class RecordedFile(_Recorded):
    """One file of a network."""

    sha256: Text


class RecordedNetwork(_Recorded):
    """A network's settings."""

    name: Text
    files: list[RecordedFile]


def _named_kind(statistic: Mapping[str, Any]) -> Mapping[str, Any]:
    if not isinstance(statistic.get("kind"), str):
        raise ValueError("it names no kind")
    return statistic


class RecordedMetric(_Recorded):
    """A metric's settings; all of ``statistic`` but its kind is read by that kind alone."""

    name: Text
    version: int
    statistic: Annotated[Mapping[Text, Any], pydantic.AfterValidator(_named_kind)]


class RecordedProtocolSettings(_Recorded):
    """A protocol's settings."""

    name: Text
    dataset: Text


class RecordedFaces(_Recorded):
    """How faces were found."""

    faces: Literal["detect", "aligned"]
    detector: RecordedNetwork | None = None


class RecordedSettings(_Recorded):
    """Everything that can move a metric's number; hashed into the signature."""

    metric: RecordedMetric
    protocol: RecordedProtocolSettings
    network: RecordedNetwork
    faces: RecordedFaces
    media: Mapping[Text, Any]
    software: Mapping[Text, Any]


class RecordedEnvironment(_Recorded):
    """The machine, of which nothing is in a signature."""

    device: Text


class RecordedTimings(_Recorded):
    """When the run began (ISO 8601, UTC), and what it took, in seconds."""

    started: Text = ""
    features_s: float = 0.0
    scores_s: float = 0.0


class RunRecord(_Recorded):
    """One evaluation; ``docs/run_record.md`` describes its fields.

    Attributes:
        complete: whether every item was scored in every metric.
        partial: whether headline scores were asked for even when items are missing.
        scores: one for each metric and emotion.
        extra: files among the outputs that no item expects.
        settings: by metric.
        unverified: whether it was read without a checksum.
    """

    schema_version: Literal[1] = pydantic.Field(alias="schema")
    method: RecordedMethod
    protocol: RecordedProtocol
    profile: Text
    complete: bool
    partial: bool
    scores: _Members[Score]
    items: _Members[RecordedItem]
    refused: _Members[RecordedRefusal]
    extra: _Members[Text]
    settings: Mapping[Text, RecordedSettings]
    environment: RecordedEnvironment
    timings: RecordedTimings
    unverified: bool = False

    @property
    def is_control(self) -> bool:
        """Whether the method is a control, whose answer is known."""
        return self.method.kind == "control"

    @property
    def metrics(self) -> list[str]:
        """The metrics that have a number, in the order of the scores."""
        return list(dict.fromkeys(s.metric for s in self.scores if s.value is not None))

    def settings_of(self, metric: str) -> RecordedSettings:
        """Return everything that can move a metric's number.

        Raises CardError when the record is damaged: it has scores of the metric, and no settings.
        """
        if metric not in self.settings:
            raise CardError(
                f"the run of '{self.method.name}' is damaged: no settings of {metric}",
                "Run the evaluation again",
            )
        return self.settings[metric]

    def kind_of(self, metric: str) -> MetricKind[Any]:
        """Return a metric's kind, with the settings of this run.

        Raises CardError when the record is damaged, or the kind's plugin is not installed.
        """
        statistic = self.settings_of(metric).metric.statistic
        try:
            return read_kind(statistic)
        except CardError as error:
            raise CardError(
                f"the run of '{self.method.name}': {metric}: {error.problem}", error.remedy
            ) from None


def parse_record(content: Mapping[str, Any], where: str = "a run record") -> RunRecord:
    """Return a record from the values of its JSON.

    Raises:
        CardError: a field is missing, or of a wrong kind; names it.
    """
    try:
        return RunRecord.model_validate(content)
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise CardError(
            f"{where} is damaged: '{place}': {first['msg']}", "Run the evaluation again"
        ) from None


def schema_text() -> str:
    """Return the content of ``docs/run_record.schema.json``, a JSON Schema."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps(schema | RunRecord.model_json_schema(), indent=1, ensure_ascii=False) + "\n"


def record_path(folder: Path, protocol: str, method: str, profile: str) -> Path:
    """Return where a record belongs in a results folder."""
    return folder / protocol / f"{method}.{profile}.json"


def save(record: RunRecord | Mapping[str, Any], path: Path) -> None:
    """Write a record, of a run or of a validation, with its checksum, whole or not at all.

    Raises StorageError when the folder cannot be written, or the disk is full.
    """
    if isinstance(record, RunRecord):
        write_json(path, record.parts(), plain=_Recorded.parts)
    else:
        write_json(path, record)


def load_run(path: Path) -> RunRecord:
    """Read a record; one of an earlier version, without a checksum, gets ``unverified``.

    Raises NoRunError when the file is the record of a validation, and CardError when the file is no
    run record, of a later schema, damaged, or holds a NaN.
    """
    remedy = "Give files that 'spfem-bench eval' wrote"
    try:
        content, verified = read_json(path, LARGEST_RECORD)
    except OSError as error:
        raise CardError(f"{path}: {error.strerror}", remedy) from None
    except ValueError as error:
        raise CardError(
            f"{path} is not a run record, or is damaged: {error}",
            f"{remedy}, or run the evaluation again",
        ) from None
    if "schema" not in content:
        raise CardError(f"{path} is not a run record", remedy)
    if content.get("kind") == VALIDATION:
        raise NoRunError(f"{path} is the record of a validation, no run record", remedy)
    if content["schema"] != SCHEMA:
        raise CardError(
            f"{path} has schema {content['schema']!r}; this version reads {SCHEMA}",
            "Upgrade spfem-bench",
        )
    return parse_record(content if verified else {**content, "unverified": True}, str(path))


def record_files(paths: Iterable[Path]) -> list[Path]:
    """Return files as they are given, and of folders all JSON files in them.

    Raises CardError when a folder has none.
    """
    files = []
    for path in paths:
        own = sorted(path.rglob("*.json")) if path.is_dir() else [path]
        if not own:
            raise CardError(f"no run record in {path}", "Give files that 'spfem-bench eval' wrote")
        files += own
    return files


def load_all(paths: Sequence[Path]) -> list[RunRecord]:
    """Read records; of folders, all that lie in them, but those of validations.

    Raises:
        NoRunError: there is no other record than a validation's.
        CardError: a file is no run record, or of a later schema; a folder has none.
    """
    records, others = [], []
    for file in record_files(paths):
        try:
            records.append(load_run(file))
        except NoRunError as error:
            others.append(error)
    if others and not records:
        raise others[0]
    return records


def unverified(records: Iterable[RunRecord]) -> list[str]:
    """Return a note that names the methods whose records have no checksum; none without one."""
    names = sorted({r.method.label for r in records if r.unverified})
    return [f"unverified, of records without a checksum: {', '.join(names)}"] if names else []


@dataclass(frozen=True)
class ItemValue:
    """What a clip brings to a metric: its score, or for FAD, which pools frames, a pseudo-value."""

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
    kind = record.kind_of(metric)
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
            own = kind.values(score, [item.metrics[metric] for item in items])
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
