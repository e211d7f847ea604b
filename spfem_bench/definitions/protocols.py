"""Protocols, their items, the data sets they stand on, and the methods compared."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from spfem_bench.definitions.cards import Card, Kind, Strict, load, names, validate
from spfem_bench.definitions.clips import Clip, inside
from spfem_bench.definitions.controls import Control
from spfem_bench.definitions.metrics import ClipRole, PinnedFile, metric_card
from spfem_bench.errors import CardError, UnknownNameError, unknown_name

EMOTIONS = ("neutral", "angry", "disgusted", "fear", "happy", "sad", "surprised")
"""The papers' seven, in the papers' order."""


@dataclass(frozen=True)
class Item:
    """One thing a method must produce and be scored on.

    Attributes:
        id: unique within its protocol.
        emotion: the target emotion.
        clips: source, reference and real clips, paths relative to the data set's folder.
        outputs: the clips that the methods' authors published, by method.
        output_name: the file name expected from a user's own method.
        faded: address of the real performance, its ``{intensity}`` still to be filled in;
            empty when there are no such clips.
        generated: address of what a model makes of it, its ``{model}`` still to be filled in;
            empty when none does.
    """

    id: str
    speaker: str
    emotion: str
    clips: Mapping[ClipRole, Clip] = field(hash=False)
    outputs: Mapping[str, Clip] = field(hash=False)
    output_name: str = ""
    faded: str = ""
    generated: str = ""

    def made_by(self, model: str) -> Clip:
        """Return what a model of the demo makes of the item."""
        return Clip.parse(self.generated.replace("{model}", model))

    def at_intensity(self, level: float) -> Clip:
        """Return the real performance with less emotion, at an intensity from 0 to 1."""
        return Clip.parse(self.faded.replace("{intensity}", f"{level:.2f}"))


class PublishedRows(Strict):
    """Which published rows are shown beside a protocol's own."""

    dataset: str
    setting: str


def _emotions(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or len(set(names)) < len(names) or "avg" in names:
        raise ValueError("must be different names, at least one, none of them 'avg'")
    return names


class ProtocolCard(Card):
    """A named, versioned list of items and the rule that aggregates them.

    ``clips`` and ``outputs`` are clip addresses in which ``{column}`` stands for
    a column of the list. Averages are the plain mean over emotions.

    Attributes:
        version: raised whenever any score can move.
        faces: ``detect``, or ``aligned`` when the clips are already face crops.
        profile: the networks that fit these clips, unless others are asked for.
        on_request: metrics that are computed only when they are named.
        not_applicable: metrics this protocol cannot have, each with the reason.
        published: the published rows to show beside the protocol's own.
        faded: for clips that exist in graded intensities: a clip address in which
            ``{intensity}`` stands for ``0.00`` to ``1.00``.
        generated: for worlds, of which models make clips on the spot (see
            ``spfem_bench.mini_ned.clips``): a clip address in which ``{model}`` stands for one.
        shows: what may be concluded from scores on it.
        hides: what may not.
    """

    score_neutral: ClassVar[frozenset[str]] = Card.score_neutral | {
        "outputs", "output_name", "published", "not_applicable", "metrics", "items", "citation",
        "faded", "generated", "profile", "on_request", "shows", "hides",
    }  # fmt: skip
    version: int = pydantic.Field(gt=0)
    setting: Literal["inter-id", "cross-id"]
    dataset: str
    items: str
    emotions: Annotated[tuple[str, ...], pydantic.AfterValidator(_emotions)]
    metrics: tuple[str, ...] = pydantic.Field(min_length=1)
    on_request: tuple[str, ...] = ()
    not_applicable: dict[str, str] = pydantic.Field(default_factory=dict)
    faces: Literal["detect", "aligned"] = "detect"
    profile: str = "light"
    clips: dict[ClipRole, str]
    outputs: dict[str, str] = pydantic.Field(default_factory=dict)
    output_name: str = "{id}.mp4"
    published: PublishedRows | None = None
    faded: str = ""
    generated: str = ""
    shows: str = ""
    hides: str = ""
    citation: str = ""

    @pydantic.field_validator("generated")
    @classmethod
    def _has_a_model(cls, template: str) -> str:
        if template and "{model}" not in template:
            raise ValueError("must hold {model}, which is filled in with a model's name")
        return template

    @pydantic.field_validator("faded")
    @classmethod
    def _has_an_intensity(cls, template: str) -> str:
        if template and "{intensity}" not in template:
            raise ValueError("must hold {intensity}, which is filled in as 0.00 to 1.00")
        return template


@dataclass(frozen=True)
class Protocol:
    """A protocol's card with its items read and checked."""

    card: ProtocolCard
    items: tuple[Item, ...]
    list_sha256: str

    @property
    def name(self) -> str:
        """The protocol's name."""
        return self.card.name


class WorldSettings(Strict):
    """A world of puppets, whose clips are rendered when they are needed.

    Attributes:
        version: of the rules by which puppets are drawn and speak.
        seed: of everything random.
        size: side of a frame in pixels.
    """

    version: int
    seed: int
    size: int


class DatasetCard(Card):
    """The clips that protocols stand on: pinned files, or a world that is rendered.

    Attributes:
        files: for pinned files: a CSV of path, sha256, bytes.
        url: where a file is fetched from; ``{commit}`` and ``{path}`` are filled in.
        world: for rendered clips: which world (see ``spfem_bench.demo``).
    """

    repository: str = ""
    commit: str = ""
    url: str = ""
    files: str = ""
    world: WorldSettings | None = None
    licence: str
    citation: str

    @pydantic.model_validator(mode="after")
    def _files_or_world(self) -> DatasetCard:
        pinned = (self.repository, self.commit, self.url, self.files)
        if any(pinned) if self.world else not all(pinned):
            raise ValueError("give 'repository', 'commit', 'url' and 'files', or 'world' alone")
        return self


class MethodCard(Card):
    """Who made the clips.

    Attributes:
        aliases: other names that mean this method.
        control: for a control with a known answer: what it puts in the output's place.
    """

    label: str
    aliases: tuple[str, ...] = ()
    control: Control | None = None
    paper: str = ""
    link: str = ""

    @property
    def kind(self) -> Literal["system", "control"]:
        """Whether it is a system of the field, or a control."""
        return "control" if self.control else "system"


def protocol(name: str) -> Protocol:
    """Read a protocol and its list.

    Raises:
        CardError: the list has a bad row; the message names file and line.
    """
    card = load(ProtocolCard, Kind.PROTOCOL, name)
    for metric in (*card.metrics, *card.on_request, *card.not_applicable):
        try:
            lacking = set(metric_card(metric).compare) - {"output", *card.clips}
        except UnknownNameError as error:
            raise CardError(f"{card.path}: {error.problem}", error.remedy) from None
        if lacking and metric not in card.not_applicable:
            raise CardError(
                f"{card.path}: '{metric}' compares with '{min(lacking)}', of which the protocol "
                "has no clips",
                f"Add it under [clips], or put {metric} under [not_applicable] with the reason",
            )
    return _read_items(card)


@cache
def _read_items(card: ProtocolCard) -> Protocol:
    path = inside(card.path.parent, card.items)
    items: dict[str, Item] = {}
    for where, row in read_list(path):
        missing = {"id", "emotion", "speaker"} - row.keys()
        if missing:
            raise CardError(f"{where}: the list lacks the column '{sorted(missing)[0]}'")
        if row["emotion"] not in card.emotions:
            raise CardError(
                f"{where}: emotion '{row['emotion']}' is not one of the protocol's",
                f"Allowed: {', '.join(card.emotions)}",
            )
        if row["id"] in items:
            raise CardError(f"{where}: the id '{row['id']}' is there twice")
        try:
            items[row["id"]] = _item(card, row)
        except (CardError, UnknownNameError) as error:
            raise CardError(f"{where}: {error.problem}", error.remedy) from None
    if not items:
        raise CardError(f"{path}: the list is empty")
    outputs = [i.output_name for i in items.values()]
    twice = next((n for n in outputs if outputs.count(n) > 1), None)
    if twice:
        raise CardError(
            f"{card.path}: two items expect one output, '{twice}'", "Put {id} into output_name"
        )
    absent = set(card.emotions) - {i.emotion for i in items.values()}
    if absent:
        raise CardError(f"{card.path}: no item has the emotion '{sorted(absent)[0]}'")
    try:
        dataset = dataset_card(card.dataset)
    except UnknownNameError as error:
        raise CardError(f"{card.path}: {error.problem}", error.remedy) from None
    return Protocol(card, tuple(items.values()), _digest(items, dataset))


def _item(card: ProtocolCard, row: Mapping[str, str]) -> Item:
    def clip(template: str) -> Clip:
        parsed = Clip.parse(fill(template, row))
        parsed.within(Path())  # refuses names that leave the data folder
        return parsed

    output_name = fill(card.output_name, row)
    inside(Path(), output_name)
    faded = fill(card.faded, {**row, "intensity": "{intensity}"})
    if faded:
        Clip.parse(faded.replace("{intensity}", "0.00")).within(Path())
    generated = fill(card.generated, {**row, "model": "{model}"})
    if generated:
        Clip.parse(generated.replace("{model}", "model")).within(Path())
    return Item(
        id=row["id"],
        speaker=row["speaker"],
        emotion=row["emotion"],
        clips={role: clip(template) for role, template in card.clips.items()},
        outputs={method: clip(template) for method, template in card.outputs.items()},
        output_name=output_name,
        faded=faded,
        generated=generated,
    )


def _digest(items: Mapping[str, Item], dataset: DatasetCard) -> str:
    """Hash what the items ask for: addresses, and the pinned bytes or the world behind them.

    Who published outputs for them cannot move a score.
    """
    files = dataset_files(dataset)

    def pinned(clip: Clip) -> str:
        file = files.get(clip.path.as_posix())
        return file.sha256 if file else ""

    rows: list[Any] = [
        [i.id, i.speaker, i.emotion]
        + [[role, str(clip), pinned(clip)] for role, clip in sorted(i.clips.items())]
        for i in items.values()
    ]
    if dataset.world:
        rows.append(dataset.world.settings())
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def read_list(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Read a CSV list; each row comes with the words that name its place.

    Raises:
        CardError: the file is absent, or a row has too few or too many cells.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CardError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CardError(f"{path} is not in UTF-8: {error}") from None
    if "\0" in text:  # Python 3.10's reader stops at it, later ones let it pass
        line = text[: text.index("\0")].count("\n") + 1
        raise CardError(f"{path}, line {line}: a NUL character", "Write the list as plain text")
    rows = []
    reader = csv.DictReader(io.StringIO(text, newline=""))
    for row in reader:
        where = f"{path}, line {reader.line_num}"
        if None in row or None in row.values():
            raise CardError(f"{where}: the number of cells differs from the header's")
        rows.append((where, dict(row)))
    return rows


def fill(template: str, row: Mapping[str, str]) -> str:
    """Put a row's cells into a template; only plain ``{column}`` is understood.

    >>> fill("{speaker}/{id}.mp4", {"id": "7", "speaker": "M003"})
    'M003/7.mp4'
    """

    def cell(match: re.Match[str]) -> str:
        if match[1] not in row:
            raise unknown_name("list column", match[1], row)
        return row[match[1]]

    return re.sub(r"\{([A-Za-z_][A-Za-z0-9_]*)\}", cell, template)


def dataset_card(name: str) -> DatasetCard:
    """Read a data set's card by name."""
    return load(DatasetCard, Kind.DATASET, name)


@cache
def dataset_files(card: DatasetCard) -> Mapping[str, PinnedFile]:
    """Return a data set's pinned files by path; a world has none."""
    if card.world:
        return {}
    files: dict[str, PinnedFile] = {}
    for where, row in read_list(inside(card.path.parent, card.files)):
        for column in ("path", "sha256", "bytes"):
            if column not in row:
                raise CardError(f"{where}: the list lacks the column '{column}'")
        name = row["path"]
        try:
            inside(Path(), name)
        except CardError as error:
            raise CardError(f"{where}: {error.problem}", error.remedy) from None
        if name in files:
            raise CardError(f"{where}: the path '{name}' is there twice")
        url = card.url.replace("{commit}", card.commit).replace("{path}", name)
        pin = {"name": name, "sha256": row["sha256"], "bytes": row["bytes"], "url": url}
        files[name] = validate(PinnedFile, pin, where)
    return files


def method_card(name: str) -> MethodCard:
    """Read a method's card by its name or one of its aliases.

    Raises:
        UnknownNameError: neither exists; near names are suggested.
    """
    cards = [load(MethodCard, Kind.METHOD, n) for n in names(Kind.METHOD)]
    known: dict[str, MethodCard] = {}
    for card in cards:
        for key in (card.name, *card.aliases):
            if key in known:
                raise CardError(f"two methods answer to '{key}': {known[key].path}, {card.path}")
            known[key] = card
    if name not in known:
        raise unknown_name("method", name, known)
    return known[name]
