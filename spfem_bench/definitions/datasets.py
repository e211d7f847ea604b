"""Data sets: pinned files, a drawn world, the user's recordings or folders, or a plugin's."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import pydantic

from spfem_bench.definitions.cards import (
    Card,
    Kind,
    Strict,
    load,
    located,
    read_card,
    validate,
)
from spfem_bench.definitions.lists import read_list
from spfem_bench.definitions.pins import PinnedFile
from spfem_bench.definitions.recordings import Recording, RecordingsSettings, candidates, fill
from spfem_bench.errors import CardError, unknown_name
from spfem_bench.files import inside


class WorldSettings(Strict):
    """A procedural world, drawn by rules of a *version*; *size*: side of a frame in pixels."""

    version: int
    seed: int
    size: int


class DatasetCard(Card):
    """The clips that protocols refer to, and where they come from."""

    repository: str = ""  # of published clips, with `commit`, `url` and `files`
    commit: str = ""
    url: str = ""  # where a file is fetched from; `{commit}` and `{path}` are filled in
    # a CSV of path, sha256, bytes: all pinned files, or those that are shipped in a folder beside
    # the card that has the card's name
    files: str = ""
    world: WorldSettings | None = None  # which world drawn clips come from
    recordings: RecordingsSettings | None = None  # those that users get themselves and then index
    # the user's own, by the first part of an address: `mine/a.mp4` is a file of the folder `mine`.
    # A relative path begins at the card. Contents are in signatures, places are not.
    folders: dict[Annotated[str, pydantic.Field(pattern=r"^\w{1,64}$")], str] = pydantic.Field(
        default_factory=dict
    )
    provider: str = ""  # the name under which a plugin registered its provider of clips
    # the card's table `[settings]`, which that plugin validates
    provider_settings: dict[str, Any] = pydantic.Field(default_factory=dict, alias="settings")
    licence: str  # who may use the clips
    citation: str  # where they come from

    @pydantic.model_validator(mode="after")
    def _has_one_origin(self) -> DatasetCard:
        fetched = (self.repository, self.commit, self.url)
        origins = [any(fetched), self.world, self.recordings, self.folders, self.provider]
        complete = not any(fetched) or (self.files and all(fetched))
        no_plugin = self.provider_settings and not self.provider
        misplaced = (self.files and (self.recordings or self.folders)) or no_plugin
        if sum(map(bool, origins)) != 1 or not complete or misplaced:
            raise ValueError(
                "give 'repository', 'commit', 'url' and 'files', or 'world' with or without "
                "'files', or 'recordings' alone, or 'folders' alone, or 'provider' with its table "
                "'settings'"
            )
        return self

    @property
    def provider_kind(self) -> str:
        """The name under which the provider of its clips is registered."""
        if self.world:
            return "puppets"
        if self.folders:
            return "folders"
        return self.provider or ("recordings" if self.recordings else "pinned-files")

    @property
    def pinned(self) -> bool:
        """Whether its list says what the clips hold; else signatures hash their bytes."""
        return bool(self.files or self.world)


def dataset_card(name: str, beside: Path | None = None) -> DatasetCard:
    """Read a data set's card by name; one in the folder ``datasets`` of *beside* comes first."""
    own = None if beside is None else inside(beside, f"datasets/{name}.toml")
    if own is not None and own.is_file():
        return read_card(DatasetCard, own)
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
        with located(where):
            inside(Path(), name)
            url = fill(card.url, {"commit": card.commit, "path": name})
        if name in files:
            raise CardError(f"{where}: the path '{name}' is there twice")
        pin = {"name": name, "sha256": row["sha256"], "bytes": row["bytes"], "url": url or None}
        files[name] = validate(PinnedFile, pin, where)
        if not files[name].is_pinned:
            raise CardError(f"{where}: clips need their SHA-256", "Compute it with sha256sum")
    return files


@cache
def recordings(card: DatasetCard) -> tuple[Recording, ...]:
    """Return a data set's recordings; raise CardError, with file and line, for a bad row."""
    return _listed(card, card.recordings.items if card.recordings else "")


@cache
def further_recordings(card: DatasetCard) -> tuple[Recording, ...]:
    """Return recordings that only some copies have, see ``further``; raise as `recordings`."""
    return _listed(card, card.recordings.further if card.recordings else "")


def _listed(card: DatasetCard, items: str) -> tuple[Recording, ...]:
    settings = card.recordings
    if settings is None or not items:
        return ()
    found: dict[str, Recording] = {}
    for where, row in read_list(inside(card.path.parent, items)):
        with located(where):
            for column in ("speaker", "emotion"):
                if column not in row:
                    raise unknown_name("list column", column, row)
            videos, sounds = candidates(settings, row, None)
        if videos[0] in found:
            raise CardError(f"{where}: the recording '{videos[0]}' is there twice")
        found[videos[0]] = Recording(row, videos[0], sounds[0] if sounds else "")
    return tuple(found.values())
