"""The index of a user's own recordings: what was found of each file, kept in one JSON file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import pydantic

from spfem_bench.definitions.cards import Strict, Text, validate
from spfem_bench.definitions.datasets import DatasetCard
from spfem_bench.definitions.recordings import LayoutMapping
from spfem_bench.errors import CardError
from spfem_bench.files import check_name, inside
from spfem_bench.media.packets import Stretch
from spfem_bench.stored import read_json, write_json


@dataclass(frozen=True)
class IndexedFile:
    """What was found of one file."""

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = pydantic.ConfigDict(extra="forbid")
    file: Text  # its path below the root
    bytes: int
    changed: int  # its time stamp in nanoseconds; with the size it decides whether to read it again
    streams: Mapping[Text, tuple[float, float, int]]  # by kind: start, end (s), packets
    problem: Text  # why it cannot be read; empty when it can

    def stretch(self, kind: str) -> Stretch | None:
        """Return when a stream begins and ends; None when the file has none."""
        return Stretch(*self.streams[kind]) if kind in self.streams else None


@dataclass(frozen=True)
class RecordingsIndex:
    """Where the files of a data set lie."""

    root: Path
    files: Mapping[str, IndexedFile] = field(default_factory=dict)  # by the name that protocols use
    mapping: LayoutMapping | None = None  # how the user's copy is named; None when as published
    verified: bool = True  # whether it was read with a right checksum; earlier versions wrote none

    def stretch(self, name: str, kind: str) -> Stretch | None:
        """Return when a stream of a readable file begins and ends; None without one."""
        file = self.files.get(name)
        return file.stretch(kind) if file and not file.problem else None


@contextmanager
def damage_told(path: Path, noun: str) -> Iterator[None]:
    """Raise whatever is wrong with an index of *noun* as a CardError that says how to mend it."""
    try:
        yield
    except (OSError, ValueError, CardError) as error:
        reason = error.problem if isinstance(error, CardError) else error
        remedy = f"Type 'spfem-bench data index {path.parent.name} ROOT', which writes it anew"
        raise CardError(f"{path} is no index of {noun}: {reason}", remedy) from None


class _Stored(Strict):
    """An index as its file holds it."""

    schema_: Literal[1] = pydantic.Field(alias="schema")
    dataset: Text
    root: Text
    mapping: LayoutMapping | None
    files: dict[Text, IndexedFile]


def save_index(path: Path, card: DatasetCard, index: RecordingsIndex) -> None:
    """Write an index, whole or not at all; raise StorageError if the folder cannot be written."""
    content = {
        "schema": 1,
        "dataset": card.name,
        "root": str(index.root),
        "mapping": index.mapping and index.mapping.model_dump(),
        "files": {name: asdict(file) for name, file in index.files.items()},
    }
    write_json(path, content)


def read_index(path: Path) -> RecordingsIndex:
    """Read an index; raise CardError if the file is damaged, or of another version."""
    with damage_told(path, "recordings"):
        content, verified = read_json(path)
        stored = validate(_Stored, content, "in it")
        check_name(stored.root)
        for file in stored.files.values():
            inside(Path(), file.file)
    return RecordingsIndex(Path(stored.root), stored.files, stored.mapping, verified)
