"""Protocols, their items, the data sets they stand on, and the methods compared."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from spfem_bench.definitions.cards import (
    Card,
    Kind,
    Strict,
    load,
    names,
    read_card,
    validate,
)
from spfem_bench.definitions.clips import Clip, inside
from spfem_bench.definitions.controls import Control
from spfem_bench.definitions.metrics import ClipRole, PinnedFile, metric_card
from spfem_bench.definitions.recordings import (
    Recording,
    RecordingsSettings,
    candidates,
    fill,
)
from spfem_bench.errors import CardError, UnknownNameError, unknown_name
from spfem_bench.files import same_name
from spfem_bench.stored import read_bounded

EMOTIONS = ("neutral", "angry", "disgusted", "fear", "happy", "sad", "surprised")
"""The papers' seven, in the papers' order."""

AVERAGE = "avg"
"""In the place of an emotion: the plain mean over emotions."""


def in_order(emotions: Iterable[str]) -> list[str]:
    """Return emotions in the papers' order, then others by name, then the average.

    >>> in_order({"avg", "bored", "sad", "neutral"})
    ['neutral', 'sad', 'bored', 'avg']
    """
    found = set(emotions)
    own = sorted(found - {*EMOTIONS, AVERAGE})
    return [e for e in (*EMOTIONS, *own, AVERAGE) if e in found]


@dataclass(frozen=True)
class Item:
    """One thing a method must produce and be scored on.

    Attributes:
        id: unique within its protocol.
        emotion: the target emotion.
        clips: source, reference and real clips, paths relative to the data set's folder.
        row: the item's cells in the list.
        more_real: further real clips, whose frames FAD adds to those of the first.
        outputs: the clips that the methods' authors published, by method.
        output_name: the file name expected from a user's own method.
        faded: address of the real performance, its ``{intensity}`` still to be filled in;
            empty when there are no such clips.
        generated: address of what a model makes of it, its ``{model}`` still to be filled in;
            empty when none does.
        perfect: what a perfect manipulation would make of it; None when that is not known.
    """

    id: str
    speaker: str
    emotion: str
    clips: Mapping[ClipRole, Clip] = field(hash=False)
    outputs: Mapping[str, Clip] = field(hash=False)
    output_name: str = ""
    faded: str = ""
    row: Mapping[str, str] = field(default_factory=dict, hash=False)
    more_real: tuple[Clip, ...] = ()
    generated: str = ""
    perfect: Clip | None = None

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
    if not names or len(set(names)) < len(names) or AVERAGE in names:
        raise ValueError("must be different names, at least one, none of them 'avg'")
    return names


class ProtocolCard(Card):
    """A named, versioned list of items and the rule that aggregates them.

    ``clips`` and ``outputs`` are clip addresses in which ``{column}`` stands for
    a column of the list. ``real`` may be several addresses: the first is the item's
    real clip, and FAD compares with the frames of all. Averages are the plain mean
    over emotions.

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
        perfect: for worlds: the address of the source's performance with the target's emotion.
        shows: what may be concluded from scores on it.
        hides: what may not.
    """

    score_neutral: ClassVar[frozenset[str]] = Card.score_neutral | {
        "outputs", "output_name", "published", "not_applicable", "metrics", "items", "citation",
        "faded", "generated", "perfect", "profile", "on_request", "shows", "hides",
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
    clips: dict[ClipRole, str | Annotated[tuple[str, ...], pydantic.Field(min_length=1)]]
    outputs: dict[str, str] = pydantic.Field(default_factory=dict)
    output_name: str = "{id}.mp4"
    published: PublishedRows | None = None
    faded: str = ""
    generated: str = ""
    perfect: str = ""
    shows: str = ""
    hides: str = ""
    citation: str = ""

    @pydantic.field_validator("clips")
    @classmethod
    def _several_are_real(
        cls, clips: dict[ClipRole, str | tuple[str, ...]]
    ) -> dict[ClipRole, str | tuple[str, ...]]:
        for role, address in clips.items():
            if role != "real" and not isinstance(address, str):
                raise ValueError(f"only 'real' may be several clips, '{role}' is one")
        return clips

    @pydantic.field_validator("generated", "faded")
    @classmethod
    def _has_what_is_filled_in(cls, template: str, info: pydantic.ValidationInfo) -> str:
        sign, words = {
            "generated": ("{model}", "with a model's name"),
            "faded": ("{intensity}", "as 0.00 to 1.00"),
        }[str(info.field_name)]
        if template and sign not in template:
            raise ValueError(f"must hold {sign}, which is filled in {words}")
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
    """A world of puppets: clips that are not shipped are drawn when they are needed.

    Attributes:
        version: of the rules by which puppets are drawn and speak.
        seed: of everything random.
        size: side of a frame in pixels.
    """

    version: int
    seed: int
    size: int


class DatasetCard(Card):
    """The clips that protocols stand on: pinned files, a world, or a user's recordings.

    Attributes:
        files: for pinned files: a CSV of path, sha256, bytes. A world's files are shipped in a
            folder beside the card that has the card's name.
        url: where a file is fetched from; ``{commit}`` and ``{path}`` are filled in.
        world: for drawn clips: which world (see ``spfem_bench.demo``).
        recordings: for recordings that users get themselves and index where they lie.
    """

    repository: str = ""
    commit: str = ""
    url: str = ""
    files: str = ""
    world: WorldSettings | None = None
    recordings: RecordingsSettings | None = None
    licence: str
    citation: str

    @pydantic.model_validator(mode="after")
    def _files_or_world(self) -> DatasetCard:
        fetched = (self.repository, self.commit, self.url)
        kinds = [self.world, self.recordings, next(filter(None, fetched), None)]
        complete = self.files and all(fetched) if kinds[2] else not (self.files and kinds[1])
        if kinds.count(None) != 2 or not complete:
            raise ValueError(
                "give 'repository', 'commit', 'url' and 'files', or 'world' with or without "
                "'files', or 'recordings' alone"
            )
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
    """Read a protocol and its list, by name or by the path of a card (``my-list.toml``).

    Raises:
        UnknownNameError: no protocol has that name.
        CardError: the list has a bad row; the message names file and line.
    """
    card = _card_file(Path(name)) if name.endswith(".toml") else load_protocol(name)
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


def load_protocol(name: str) -> ProtocolCard:
    """Read a protocol's card by name."""
    return load(ProtocolCard, Kind.PROTOCOL, name)


def _card_file(path: Path) -> ProtocolCard:
    if not path.is_file():
        raise UnknownNameError(f"{path}: no such file", "Give the path of a protocol's card")
    known = names(Kind.PROTOCOL)
    if path.stem in known and path.resolve() != load_protocol(path.stem).path.resolve():
        raise CardError(
            f"{path}: there is a protocol '{path.stem}' already, which yours would be taken for",
            f"Name the card otherwise, for example my-{path.name}",
        )
    return read_card(ProtocolCard, path.resolve())


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
    outputs = Counter(same_name(i.output_name) for i in items.values())
    twice = next((name for name, count in outputs.items() if count > 1), None)
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
    def clip(template: str | tuple[str, ...]) -> Clip:
        if not isinstance(template, str):
            template = template[0]
        parsed = Clip.parse(fill(template, row))
        parsed.within(Path())  # refuses names that leave the data folder
        return parsed

    output_name = fill(card.output_name, row)
    inside(Path(), output_name)
    real = card.clips.get("real", "")
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
        row=row,
        more_real=() if isinstance(real, str) else tuple(map(clip, real[1:])),
        generated=generated,
        perfect=clip(card.perfect) if card.perfect else None,
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
        + [["real", str(clip), pinned(clip)] for clip in i.more_real]
        for i in items.values()
    ]
    if dataset.world:
        rows.append(dataset.world.settings())
        # All of its clips: controls take others than those of the items' roles.
        rows.append(sorted([name, file.sha256] for name, file in files.items()))
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


LARGEST_LIST = 16_000_000
"""Bytes of a list; one of forty thousand items takes a tenth of them."""

MOST_ROWS, MOST_COLUMNS = 100_000, 64


def read_list(path: Path) -> list[tuple[str, dict[str, str]]]:
    """Read a CSV list; each row comes with the words that name its place.

    Raises:
        CardError: the file is absent, or a row has too few or too many cells.
    """
    try:
        text = read_bounded(path, LARGEST_LIST).decode("utf-8-sig")
    except OSError as error:
        raise CardError(f"{path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise CardError(f"{path} is not in UTF-8: {error}") from None
    if "\0" in text:  # Python 3.10's reader stops at it, later ones let it pass
        line = text[: text.index("\0")].count("\n") + 1
        raise CardError(f"{path}, line {line}: a NUL character", "Write the list as plain text")
    rows: list[tuple[str, dict[str, str]]] = []
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        for row in reader:
            where = f"{path}, line {reader.line_num}"
            if None in row or None in row.values():
                raise CardError(f"{where}: the number of cells differs from the header's")
            if len(rows) == MOST_ROWS or len(row) > MOST_COLUMNS:
                raise CardError(
                    f"{where}: the list is too large",
                    f"Allowed: {MOST_ROWS} rows of {MOST_COLUMNS} columns",
                )
            rows.append((where, dict(row)))
    except csv.Error as error:  # a cell without end: a quotation mark that is not closed
        raise CardError(f"{path}, line {reader.line_num}: {error}") from None
    return rows


def dataset_card(name: str) -> DatasetCard:
    """Read a data set's card by name."""
    return load(DatasetCard, Kind.DATASET, name)


@cache
def dataset_files(card: DatasetCard) -> Mapping[str, PinnedFile]:
    """Return a data set's pinned files by path; a user's recordings have none."""
    if not card.files:
        return {}
    files: dict[str, PinnedFile] = {}
    for where, row in read_list(inside(card.path.parent, card.files)):
        for column in ("path", "sha256", "bytes"):
            if column not in row:
                raise CardError(f"{where}: the list lacks the column '{column}'")
        name = row["path"]
        try:
            inside(Path(), name)
            url = fill(card.url, {"commit": card.commit, "path": name})
        except (CardError, UnknownNameError) as error:
            raise CardError(f"{where}: {error.problem}", error.remedy) from None
        if name in files:
            raise CardError(f"{where}: the path '{name}' is there twice")
        pin = {"name": name, "sha256": row["sha256"], "bytes": row["bytes"], "url": url or None}
        files[name] = validate(PinnedFile, pin, where)
        if not files[name].is_pinned:
            raise CardError(f"{where}: clips need their SHA-256", "Compute it with sha256sum")
    return files


@cache
def recordings(card: DatasetCard) -> tuple[Recording, ...]:
    """Return the recordings that a data set has in full; none when it has none to index.

    Raises:
        CardError: the list has a bad row; the message names file and line.
    """
    settings = card.recordings
    if settings is None:
        return ()
    found: dict[str, Recording] = {}
    for where, row in read_list(inside(card.path.parent, settings.items)):
        try:
            for column in ("speaker", "emotion"):
                if column not in row:
                    raise unknown_name("list column", column, row)
            videos, sounds = candidates(settings, row, None)
        except (CardError, UnknownNameError) as error:
            raise CardError(f"{where}: {error.problem}", error.remedy) from None
        if videos[0] in found:
            raise CardError(f"{where}: the recording '{videos[0]}' is there twice")
        found[videos[0]] = Recording(row, videos[0], sounds[0] if sounds else "")
    return tuple(found.values())


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
