"""Where the clips of data sets lie on this machine."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from spfem_bench import caches
from spfem_bench.datasets import indexing
from spfem_bench.definitions.datasets import DatasetCard, dataset_files, recordings
from spfem_bench.definitions.pins import PinnedFile
from spfem_bench.errors import ClipError, MissingClipError
from spfem_bench.files import inside
from spfem_bench.media.video import file_sha256

if TYPE_CHECKING:
    from spfem_bench.puppets.world import World


@dataclass(frozen=True)
class DataFolders:
    """The folders searched for data sets, each set in a folder of its name.

    Attributes:
        own: the user's folder (``--data-dir``, else ``SPFEM_BENCH_DATA``), searched first.
        renders: where clips of worlds are kept; with the fetched ones when None.
    """

    own: Path | None = None
    renders: Path | None = None

    @classmethod
    def locate(cls, given: Path | None = None, *, renders: Path | None = None) -> DataFolders:
        """Take the folder given, else the one the environment names."""
        return cls(caches.named_folder(given, "SPFEM_BENCH_DATA"), renders)

    @property
    def cache(self) -> Path:
        """The folder that ``data fetch`` fills."""
        return caches.cache_folder() / "data"

    def find(self, card: DatasetCard, file: PinnedFile) -> Path | None:
        """Return where a file lies, a right one before a wrong one; None when it is nowhere."""
        folders = [f / card.name for f in (self.own, self.cache) if f is not None]
        folders += [card.path.with_suffix("")] if file.shipped else []
        found = [p for f in folders if (p := inside(f, file.name)).is_file()]
        right = (p for p in found if file_sha256(p) == file.sha256)
        return next(right, found[0] if found else None)

    def index_file(self, card: DatasetCard, *, new: bool = False) -> Path:
        """Return where a data set's index lies, or where a *new* one belongs."""
        places = [f / card.name / "index.json" for f in (self.own, self.cache) if f is not None]
        return places[0] if new else next((p for p in places if p.is_file()), places[0])

    def index(self, card: DatasetCard) -> indexing.Index | None:
        """Return where a user's recordings lie; None when they have not been indexed.

        Raises:
            CardError: the index is damaged.
        """
        path = self.index_file(card)
        return _index(path, path.stat().st_mtime_ns) if path.is_file() else None

    def rendered(self, card: DatasetCard) -> tuple[World, Path]:
        """Return a data set's world, and the folder its rendered clips are kept in."""
        from spfem_bench.puppets.world import World

        if card.world is None:
            raise ValueError(f"{card.name} is not rendered")
        world = World(card.world.version, card.world.seed, card.world.size)
        return world, (self.renders or self.cache) / card.name / world.name

    def lacking(self, card: DatasetCard, names: Iterable[str]) -> list[str]:
        """Return what has to be rendered or generated first, of a world; of pinned files none."""
        if card.world is None:
            return []
        from spfem_bench.puppets.mini_ned.clips import lacking

        world, folder = self.rendered(card)
        return lacking(world, folder, list(names))

    def render(self, card: DatasetCard, names: list[str], done: Callable[[], None]) -> None:
        """Render takes of a world, then what models make of them; *done* is called after each.

        Raises:
            StorageError: the cache cannot be written.
            SpfemBenchError: a name asks for no take, or a model's weights are missing or wrong.
        """
        from spfem_bench.puppets.clips import render_all
        from spfem_bench.puppets.mini_ned.clips import make_all, wanted

        world, folder = self.rendered(card)
        render_all(world, folder, [n for n in names if not wanted(n)], done=done)
        if made := [n for n in names if wanted(n)]:
            make_all(world, folder, made, workers=os.cpu_count() or 1, done=done)

    def verified(self, card: DatasetCard, name: str) -> Path:
        """Return a clip's path after checking its hash.

        Raises:
            ClipError: the file is not listed, missing, or not the pinned one.
        """
        if card.world:
            from spfem_bench.puppets.mini_ned.clips import present

            whole = present(*self.rendered(card), name)
            if whole is None:
                raise MissingClipError(f"{card.name}/{name}: not rendered", "Run the command again")
            return whole
        if card.recordings:
            return self._indexed(card, name)
        files: Mapping[str, PinnedFile] = dataset_files(card)
        if name not in files:
            raise ClipError(f"{name}: not a file of the data set '{card.name}'")
        path = self.find(card, files[name])
        fetch = (
            f"Type 'spfem-bench data fetch {card.name}', or name with --data-dir the folder that "
            f"holds {card.name}/"
        )
        if path is None:
            raise MissingClipError(f"{card.name}/{name}: missing", fetch)
        if file_sha256(path) != files[name].sha256:
            raise ClipError(f"{path}: not the published file (its SHA-256 differs)", fetch)
        return path

    def _indexed(self, card: DatasetCard, name: str) -> Path:
        """Return where a recording lies; what it holds is hashed into the signature."""
        index = self.index(card)
        again = f"Type 'spfem-bench data index {card.name} ROOT'"
        if index is None:
            raise MissingClipError(f"{card.name}, which has not been indexed: missing", again)
        if name not in recorded_files(card):
            raise ClipError(f"{name}: not a file of the data set '{card.name}'")
        entry = index.files.get(name)
        path = None if entry is None else inside(index.root, entry.file)
        if path is None or not path.is_file():
            raise MissingClipError(f"{card.name}/{name}: missing", f"{again} when it is there")
        return path


@cache
def recorded_files(card: DatasetCard) -> frozenset[str]:
    """Return the names of all files that a data set of recordings has."""
    return frozenset(n for r in recordings(card) for n in (r.video, r.sound) if n)


@lru_cache(maxsize=8)
def _index(path: Path, changed: int) -> indexing.Index:
    del changed  # part of the cache's key
    return indexing.read(path)
