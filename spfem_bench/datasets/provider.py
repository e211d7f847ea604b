"""What a provider of clips can do; each kind of provider is one file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from spfem_bench.datasets.cells import SourceClip
from spfem_bench.datasets.pairs import EmotionPair
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.controls import FadedControl, PerfectControl
from spfem_bench.definitions.datasets import DatasetCard, dataset_files
from spfem_bench.definitions.methods import MethodCard
from spfem_bench.definitions.pins import PinnedFile
from spfem_bench.definitions.protocols import Item
from spfem_bench.errors import CardError, ClipError, MissingClipError
from spfem_bench.files import inside
from spfem_bench.hashes import sha256_of
from spfem_bench.media.video import file_sha256
from spfem_bench.plugins import Registry
from spfem_bench.progress import SILENT, Progress

FileState = Literal["missing", "verified", "wrong hash"]


@dataclass(frozen=True)
class Places:
    """The folders of one data set on this machine."""

    searched: tuple[Path, ...]  # where its files may lie, in the order of search
    cache: Path  # the one of them that downloads go to
    generated: Path  # where clips that are made on this machine go


@dataclass(frozen=True)
class Holdings:
    """How much of a data set is on this machine (such as ``12/20``), and where it comes from."""

    state: str
    bytes: int
    origin: str


class Provider:
    """The clips of one data set.

    This base class finds the files of the card's list of pinned files. A subclass overrides what
    differs, and is registered under the name that data set cards give as ``provider``. Making one
    touches no disk; it raises CardError for wrong settings (``card.provider_settings``).
    """

    makes_clips: ClassVar[bool] = False  # on this machine; then they are known to be readable
    has_exact_pairs: ClassVar[bool] = False  # exact_pair knows which frames of two correspond

    def __init__(self, card: DatasetCard, places: Places) -> None:
        self.card, self.places = card, places

    def verified(self, name: str) -> Path:
        """Return the path of a clip or sound file, named as in items, after checking it.

        Raises MissingClipError when it is not here, ClipError when it is not of the data set or
        its bytes are not the pinned ones.
        """
        files = dataset_files(self.card)
        if name not in files:
            raise ClipError(f"{name}: not a file of the data set '{self.card.name}'")
        path = self.pinned_path(files[name])
        remedy = (
            f"Type 'spfem-bench data fetch {self.card.name}', or name with --data-dir the folder "
            f"that holds {self.card.name}/"
        )
        if path is None:
            raise MissingClipError(f"{self.card.name}/{name}: missing", remedy)
        if file_sha256(path) != files[name].sha256:
            raise ClipError(f"{path}: not the published file (its SHA-256 differs)", remedy)
        return path

    def pinned_path(self, file: PinnedFile) -> Path | None:
        """Return where a pinned file lies, one with the right hash first; None if nowhere."""
        folders = [*self.places.searched]
        if file.shipped:
            folders.append(self.card.path.with_suffix(""))
        paths = [path for f in folders if (path := inside(f, file.name)).is_file()]
        right = (path for path in paths if file_sha256(path) == file.sha256)
        return next(right, paths[0] if paths else None)

    def file_state(self, file: PinnedFile) -> FileState:
        """Return whether a pinned file is here, after reading all of it."""
        path = self.pinned_path(file)
        if path is None:
            return "missing"
        return "verified" if sha256_of(path) == file.sha256 else "wrong hash"

    def lacking(self, names: Iterable[str]) -> list[str]:
        """Return the names of clips to make before these can be read, in the order of making."""
        return []

    def make(self, names: Sequence[str], progress: Progress = SILENT) -> None:
        """Make the clips that :meth:`lacking` returned; *progress* has the phase ``render``.

        Raises StorageError when the folder cannot be written, SpfemBenchError for a name that no
        clip can have, or missing weights.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no clips: {list(names)}")

    def methods(self, item: Item) -> Mapping[str, MethodCard]:
        """Return the methods whose clips it can make, by name, given any item of the protocol."""
        return {}

    def output(self, method: str, item: Item) -> Clip:
        """Return the address of what one of :meth:`methods` makes of an item.

        Raises ClipError where there is none, or it cannot be used.
        """
        raise NotImplementedError(f"{type(self).__name__} makes no clips of {method}: {item.id}")

    def identity(self, method: str) -> Mapping[str, Any]:
        """Return what decides a method's clips, such as hashes of weights, for the record."""
        return {}

    def reading(self, method: str) -> Mapping[str, Any]:
        """Return how clips are read for a method, where not as usual; it is in signatures."""
        return {}

    def remark(self, method: str) -> str:
        """Return one line for the user about how a method's clips are read, or nothing."""
        return ""

    def control_clip(self, control: PerfectControl | FadedControl, item: Item) -> Clip | None:
        """Return the address of a control's clip for an item; None where there is none."""
        return None

    def exact_pair(self, item: Item) -> EmotionPair | None:
        """Return source and real clip with corresponding frames; None if there is no difference."""
        raise NotImplementedError(f"{type(self).__name__} has no exact pairs: {item.id}")

    def source_clips(self) -> list[SourceClip]:
        """Return the clips that are here with their lengths, for ``protocol solve``.

        Empty where a data set has not been indexed. Raises CardError when the data set is none
        whose clips are indexed, or its index is damaged.
        """
        raise CardError(f"the data set '{self.card.name}' has no index of recordings")

    def holdings(self) -> Holdings:
        """Return how much of the data set is here."""
        files = dataset_files(self.card)
        n_here = sum(self.pinned_path(file) is not None for file in files.values())
        size = sum(file.bytes or 0 for file in files.values())
        return Holdings(f"{n_here}/{len(files)}", size, self.card.repository or self.card.provider)

    def how_to_get(self) -> str:
        """Return how a user gets the clips, where they cannot be fetched."""
        return "nothing to fetch"


PROVIDERS = Registry[type[Provider]]("spfem_bench.datasets.providers", "provider of clips")
