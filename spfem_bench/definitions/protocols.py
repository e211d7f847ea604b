"""Protocols, their items, the data sets they stand on, and the methods compared."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import pydantic

from spfem_bench.caches import cache_folder
from spfem_bench.definitions.cards import (
    Card,
    Kind,
    Strict,
    forget_cards,
    load,
    located,
    names,
    read_card,
)
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.datasets import DatasetCard, dataset_card, dataset_files
from spfem_bench.definitions.lists import read_list
from spfem_bench.definitions.metrics import ClipRole, metric_card
from spfem_bench.definitions.recordings import fill
from spfem_bench.errors import CardError, UnknownNameError
from spfem_bench.files import inside, same_name

EMOTIONS = ("neutral", "angry", "disgusted", "fear", "happy", "sad", "surprised")
"""The papers' seven, in the papers' order."""

AVERAGE = "avg"  # in the place of an emotion: the plain mean over emotions


NEAREST = "the nearest sum"  # in a solved list: of an item for which no set of clips fits


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
    """One thing a method must produce and be scored on."""

    id: str
    speaker: str
    emotion: str
    # source, reference and real clips, paths relative to the data set's folder; `real` is absent
    # where the item has none of its own
    clips: Mapping[ClipRole, Clip] = field(hash=False)
    outputs: Mapping[str, Clip] = field(hash=False)  # the methods' published clips, by method
    output_name: str = ""  # the file name expected from a user's own method
    row: Mapping[str, str] = field(default_factory=dict, hash=False)  # the item's cells in the list
    more_real: tuple[Clip, ...] = ()  # further real clips, whose frames FAD also takes


_Addresses = dict[ClipRole, str | tuple[str, ...]]


class PublishedRows(Strict):
    """Which published rows are shown beside a protocol's own.

    ``recipe`` names the profile, if any, through which this protocol's numbers are made as the
    published ones are: same networks, statistics, clips and input.
    """

    later: ClassVar[frozenset[str]] = frozenset({"recipe"})
    dataset: str  # as the printed tables name it
    setting: str
    recipe: str | None = None


class SolveSettings(Strict):
    """How ``protocol solve`` finds the items of a protocol whose test clips are not published.

    Inter-ID, an item's source is a test clip of its emotion; cross-ID, a neutral one.
    """

    # a CSV beside the card: speaker, emotion, clips, frames and known names of each cell
    cells: str
    candidates: str = ""  # a data set, beside the card's, whose index tells how many sets fit
    names: tuple[str, ...] = ("*",)  # what a test clip may be called; `*` is anything, `?` one
    within: int = pydantic.Field(0, ge=0)  # frames by which a cell's total may be off
    references: dict[str, str] = pydantic.Field(default_factory=dict)  # cross-ID: by speaker


def _emotions(names: tuple[str, ...]) -> tuple[str, ...]:
    if not names or len(set(names)) < len(names) or AVERAGE in names:
        raise ValueError("must be different names, at least one, none of them 'avg'")
    return names


class ProtocolCard(Card):
    """A named, versioned list of items and the rule that aggregates them.

    ``clips`` and ``outputs`` are clip addresses in which ``{column}`` stands for a column of the
    list. ``real`` may be several addresses: the first is the item's real clip, and FAD compares
    with the frames of all. An item whose address of ``real`` is empty has no real clip of its own:
    it brings none to metrics that pool frames. Averages are the plain mean over emotions.

    Where ``solve`` is given, ``items`` lies in the cache, where ``protocol solve`` writes it.
    """

    score_neutral: ClassVar[frozenset[str]] = Card.score_neutral.union(
        ("items", "outputs", "output_name", "metrics", "on_request", "not_applicable"),
        ("profile", "published", "shows", "hides", "citation", "solve"),
    )
    removed: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("faded", "generated", "perfect"),
        "Delete the line: the provider of the data set makes these clips, see docs/protocols.md",
    )
    version: int = pydantic.Field(gt=0)  # raised whenever any score can move
    setting: Literal["inter-id", "cross-id"]  # whether source and reference show one person
    dataset: str  # the name of the data set's card
    items: str  # the CSV beside the card: id, speaker, emotion and any columns
    # those of the list; scores are averaged over them
    emotions: Annotated[tuple[str, ...], pydantic.AfterValidator(_emotions)]
    metrics: tuple[str, ...] = pydantic.Field(min_length=1)  # computed when none is named
    on_request: tuple[str, ...] = ()  # metrics that are computed only when they are named
    # metrics this protocol cannot have, each with the reason
    not_applicable: dict[str, str] = pydantic.Field(default_factory=dict)
    faces: Literal["detect", "aligned"] = "detect"  # `aligned` when clips are face crops already
    profile: str = "light"  # the networks that fit these clips, unless others are asked for
    # addresses of source, reference and real; `{column}` is a column of the list
    clips: dict[ClipRole, str | Annotated[tuple[str, ...], pydantic.Field(min_length=1)]]
    outputs: dict[str, str] = pydantic.Field(default_factory=dict)  # published clips, by method
    output_name: str = "{id}.mp4"  # what a method's output for an item is called
    published: PublishedRows | None = None  # the published rows to show beside the protocol's own
    solve: SolveSettings | None = None
    shows: str = ""  # what may be concluded from scores on it
    hides: str = ""  # what may not
    citation: str = ""

    @pydantic.field_validator("clips")
    @classmethod
    def _several_are_real(cls, clips: _Addresses) -> _Addresses:
        for role, address in clips.items():
            if role != "real" and not isinstance(address, str):
                raise ValueError(f"only 'real' may be several clips, '{role}' is one")
        return clips

    @property
    def items_path(self) -> Path:
        """Path of the list: beside the card, or in the cache where it has to be solved."""
        return inside(solved_folder() if self.solve else self.path.parent, self.items)

    @property
    def is_ready(self) -> bool:
        """Whether there is a list: of others, ``protocol solve`` has to find it first."""
        return self.solve is None or self.items_path.is_file()


@dataclass(frozen=True)
class Protocol:
    """A protocol's card with its data set's, and its items read and checked."""

    card: ProtocolCard
    items: tuple[Item, ...]
    list_sha256: str
    dataset: DatasetCard

    @property
    def name(self) -> str:
        """The protocol's name."""
        return self.card.name

    @property
    def determined(self) -> str:
        """How many items' test clips are determined by what is published; empty for a fixed list.

        Lists that ``protocol solve`` wrote say it in their column ``determined``.
        """
        if self.card.solve is None:
            return ""
        states = Counter(item.row.get("determined", "") for item in self.items)
        sure, near = states["determined"], states[NEAREST]
        several = len(self.items) - sure - near
        parts = [f"determined for {sure} of {len(self.items)} items"]
        parts += [f"one of several sets that fit for {several}"] if several else []
        parts += [f"{NEAREST} for {near}"] if near else []
        return ", ".join(parts)


def protocol(name: str) -> Protocol:
    """Read a protocol and its list, by name or by the path of a card (``my-list.toml``).

    The data set's card may lie in a folder ``datasets`` beside the protocol's.

    Raises UnknownNameError when there is none, CardError, with file and line, for a bad row, and
    for a list that has to be solved first.
    """
    card = protocol_card(name)
    for metric in (*card.metrics, *card.on_request, *card.not_applicable):
        with located(card.path):
            lacking = set(metric_card(metric).compare) - {"output", *card.clips}
        if lacking and metric not in card.not_applicable:
            raise CardError(
                f"{card.path}: '{metric}' compares with '{min(lacking)}', of which the protocol "
                "has no clips",
                f"Add it under [clips], or put {metric} under [not_applicable] with the reason",
            )
    if not card.is_ready:
        problem = f"the items of '{card.name}' follow from your own recordings: not solved yet"
        raise CardError(problem, f"Type 'spfem-bench protocol solve {card.name}'")
    path = card.items_path
    if card.solve is None:
        return _read_items(card, path, 0)
    try:
        return _read_items(card, path, path.stat().st_mtime_ns)
    except (CardError, OSError) as error:  # a list that this program wrote, and something changed
        problem = error.problem if isinstance(error, CardError) else f"{path}: {error.strerror}"
        again = f"Type 'spfem-bench protocol solve {card.name}', which writes it anew"
        raise CardError(problem, again) from None


def ready_protocols() -> list[Protocol]:
    """Read all protocols by name, but those whose list has to be solved first."""
    return [protocol(name) for name in names(Kind.PROTOCOL) if load_protocol(name).is_ready]


def load_protocol(name: str) -> ProtocolCard:
    """Read a protocol's card by name."""
    return load(ProtocolCard, Kind.PROTOCOL, name)


def protocol_card(name: str) -> ProtocolCard:
    """Read a protocol's card by name or path, without its list; raise as :func:`protocol`."""
    return _card_file(Path(name)) if name.endswith(".toml") else load_protocol(name)


def solved_folder() -> Path:
    """Return the folder for lists that ``protocol solve`` writes."""
    return cache_folder() / "protocols"


def _card_file(path: Path) -> ProtocolCard:
    if not path.is_file():
        raise UnknownNameError(f"{path}: no such file", "Give the path of a protocol's card")
    known = names(Kind.PROTOCOL)
    if path.stem in known and path.resolve() != load_protocol(path.stem).path.resolve():
        problem = f"there is a protocol '{path.stem}' already, which yours would be taken for"
        remedy = f"Name the card otherwise, for example my-{path.name}"
        raise CardError(f"{path}: {problem}", remedy)
    return read_card(ProtocolCard, path.resolve())


def forget_protocols() -> None:
    """Read protocols with their cards and lists again, for a process that has written one."""
    forget_cards()
    _read_items.cache_clear()


@cache
def _read_items(card: ProtocolCard, path: Path, changed: int) -> Protocol:
    del changed  # part of the cache's key
    items: dict[str, Item] = {}
    for where, row in read_list(path):
        missing = {"id", "emotion", "speaker"} - row.keys()
        if missing:
            raise CardError(f"{where}: the list lacks the column '{sorted(missing)[0]}'")
        if row["emotion"] not in card.emotions:
            problem = f"{where}: emotion '{row['emotion']}' is not one of the protocol's"
            raise CardError(problem, f"Allowed: {', '.join(card.emotions)}")
        if row["id"] in items:
            raise CardError(f"{where}: the id '{row['id']}' is there twice")
        with located(where):
            items[row["id"]] = _item(card, row)
    if not items:
        raise CardError(f"{path}: the list is empty")
    outputs = Counter(same_name(i.output_name) for i in items.values())
    twice = next((name for name, count in outputs.items() if count > 1), None)
    if twice:
        problem = f"{card.path}: two items expect one output, '{twice}'"
        raise CardError(problem, "Put {id} into output_name")
    absent = set(card.emotions) - {i.emotion for i in items.values()}
    if absent:
        raise CardError(f"{card.path}: no item has the emotion '{sorted(absent)[0]}'")
    with located(card.path):
        dataset = dataset_card(card.dataset, card.path.parent)
    return Protocol(card, tuple(items.values()), _digest(items, dataset), dataset)


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
    more_real = () if isinstance(real, str) else tuple(map(clip, real[1:]))
    clips = {
        role: clip(template)
        for role, template in card.clips.items()
        if role != "real" or not isinstance(template, str) or fill(template, row)
    }
    outputs = {method: clip(template) for method, template in card.outputs.items()}
    emotion = row["emotion"]
    return Item(row["id"], row["speaker"], emotion, clips, outputs, output_name, row, more_real)


def _digest(items: Mapping[str, Item], dataset: DatasetCard) -> str:
    """Return the SHA-256 of addresses, pinned bytes and settings; outputs cannot move a score."""
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
    if dataset.provider:
        rows.append([dataset.provider, dataset.provider_settings])
    if dataset.world or dataset.provider:
        # All of its clips: controls take others than those of the items' roles.
        rows.append(sorted([name, file.sha256] for name, file in files.items()))
    return hashlib.sha256(json.dumps(rows, default=str).encode()).hexdigest()
