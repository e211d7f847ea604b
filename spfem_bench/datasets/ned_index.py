"""The index of a tree of NED's folders: its faces, its clips, and what each folder lacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import pydantic

from spfem_bench.datasets.joined import Cut, cut_joined, lengths_text
from spfem_bench.datasets.recordings_index import damage_told
from spfem_bench.definitions.cards import Strict, Text, validate
from spfem_bench.errors import CardError
from spfem_bench.files import check_name, inside
from spfem_bench.stored import read_json, write_json

_Whole = Annotated[int, pydantic.Field(ge=0)]
TreeLayout = Literal["actors", "sides"]
Cell = tuple[str, str]
"""A speaker and an emotion."""


class TreeSettings(Strict):
    """How faces are stored in a tree; the table ``[settings]`` of its data set's card."""

    frame_rate: float = pydantic.Field(gt=0)
    size: int = pydantic.Field(gt=0)  # width and height in pixels
    lead: int = pydantic.Field(ge=0)  # first frames of a folder that a renderer leaves out
    speakers: tuple[str, ...] = ()  # their order; others follow by name
    videos: tuple[str, ...]  # folders of a cell's source videos
    sounds: tuple[str, ...]  # sounds of clips, without their suffix
    apart: float = pydantic.Field(gt=0)  # allowed seconds between lengths of sound and picture

    def place(self, speaker: str) -> tuple[int, str]:
        """Return a key that sorts speakers."""
        known = self.speakers
        return (known.index(speaker) if speaker in known else len(known), speaker)


@dataclass(frozen=True)
class FaceFolder:
    """A folder of faces.

    Attributes:
        path: below the root.
        emotion: of the folder that it lies in; in NED's layout, that of its source.
        target: the emotion that the faces show.
        method: what made them; empty for real ones.
        problem: why it cannot be used; empty when it can.
        looked_at: pictures that were decoded; in *unmasked* of them a corner is not black.
        odd_colours: pictures that are not plain RGB, by their kind, such as ``RGBA``.
    """

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")
    path: Text
    speaker: Text
    emotion: Text
    target: Text
    method: Text
    pictures: _Whole
    bytes: _Whole
    problem: Text
    looked_at: _Whole
    unmasked: _Whole
    odd_colours: Mapping[Text, _Whole]


@dataclass(frozen=True)
class FaceClip:
    """A clip whose frames lie in a real folder.

    Attributes:
        frames: how many it has.
        video: below the root, of the video that says so; empty where a list does.
        rate: the video's pictures a second; 0 without a video.
        sound: below the root; empty where there is none.
        seconds: of the sound; 0 without one.
        problem: why its sound cannot be used.
    """

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")
    speaker: Text
    emotion: Text
    clip: Text
    frames: _Whole
    video: Text
    rate: float
    sound: Text
    seconds: float
    problem: Text


@dataclass(frozen=True)
class NedIndex:
    """What a tree holds.

    Attributes:
        listed: the file that says how long the clips are; empty where source videos do.
        as_published: whether generated folders are cut as the papers' scripts do.
    """

    root: Path
    layout: TreeLayout
    as_published: bool
    listed: str
    folders: tuple[FaceFolder, ...]
    clips: tuple[FaceClip, ...]

    @cached_property
    def cells(self) -> Mapping[Cell, tuple[FaceClip, ...]]:
        """The clips of each cell, in the order of their names."""
        cells: dict[Cell, list[FaceClip]] = {}
        for clip in sorted(self.clips, key=lambda c: c.clip):
            cells.setdefault((clip.speaker, clip.emotion), []).append(clip)
        return {key: tuple(clips) for key, clips in cells.items()}

    @cached_property
    def real(self) -> Mapping[Cell, FaceFolder]:
        """The real folder of each cell."""
        return {(f.speaker, f.emotion): f for f in self.folders if not f.method}

    @cached_property
    def generated(self) -> Mapping[tuple[str, str, str, str], FaceFolder]:
        """Generated folders by speaker, folder's emotion, target and method."""
        return {(f.speaker, f.emotion, f.target, f.method): f for f in self.folders if f.method}

    @property
    def methods(self) -> list[str]:
        """The names of methods, sorted."""
        return sorted({folder.method for folder in self.folders} - {""})

    def lengths(self, cell: Cell) -> list[int]:
        """Return the frames of a cell's clips, in order; none where they are not known."""
        return [clip.frames for clip in self.cells.get(cell, ())]

    def real_cuts(self, cell: Cell) -> list[Cut]:
        """Return where a cell's clips lie in its real folder.

        Raises CardError where the folder is absent or cannot be used.
        """
        folder = self.real.get(cell)
        if folder is None:
            raise CardError(f"{self.root}: no real faces of {' '.join(cell)}")
        if folder.problem:
            raise CardError(f"{self.root / folder.path}: {folder.problem}")
        cuts = cut_joined(self.lengths(cell), folder.pictures)
        if cuts is None:
            raise CardError(f"{self.root / folder.path}: {self.counts_text(folder, [cell])}")
        return cuts

    def counts_text(self, folder: FaceFolder, cells: list[Cell]) -> str:
        """Return how a folder's pictures differ from the clips of cells, in words."""
        lengths = {cell: self.lengths(cell) for cell in cells}
        if not any(lengths.values()):
            return f"{folder.pictures} pictures, and nothing says which clips they are of"
        texts = [
            f"the {len(some)} clips of {' '.join(cell)} have {lengths_text(some)} frames ("
            + ", ".join(f"{c.clip}: {c.frames}" for c in self.cells[cell])
            + ")"
            for cell, some in lengths.items()
            if some
        ]
        return f"{folder.pictures} pictures; {'; '.join(texts)}"


class _Stored(Strict):
    """An index as its file holds it."""

    schema_: Literal[1] = pydantic.Field(alias="schema")
    dataset: Text
    root: Text
    layout: TreeLayout
    as_published: bool
    listed: Text
    folders: tuple[FaceFolder, ...]
    clips: tuple[FaceClip, ...]


def save_index(path: Path, dataset: str, index: NedIndex) -> None:
    """Write an index, whole or not at all; raise StorageError if the folder cannot be written."""
    content = {
        "schema": 1,
        "dataset": dataset,
        "root": str(index.root),
        "layout": index.layout,
        "as_published": index.as_published,
        "listed": index.listed,
        "folders": [asdict(folder) for folder in index.folders],
        "clips": [asdict(clip) for clip in index.clips],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, content)


def read_index(path: Path) -> NedIndex:
    """Read an index; raise CardError if the file is damaged, or of another version."""
    with damage_told(path, "a tree of faces"):
        content, verified = read_json(path)
        if not verified:
            raise ValueError("it has no checksum")
        stored = validate(_Stored, content, "in it")
        check_name(stored.root)
        for folder in stored.folders:
            inside(Path(), folder.path)
        for name in (n for clip in stored.clips for n in (clip.video, clip.sound) if n):
            inside(Path(), name)
    root, more = Path(stored.root), (stored.as_published, stored.listed)
    return NedIndex(root, stored.layout, *more, stored.folders, stored.clips)
