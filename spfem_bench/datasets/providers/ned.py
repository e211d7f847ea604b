"""Aligned faces in NED's folders, real and generated, indexed where they lie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from spfem_bench.datasets.cells import SourceClip
from spfem_bench.datasets.joined import Cut, cut_as_published, cut_joined
from spfem_bench.datasets.ned_index import (
    Cell,
    FaceFolder,
    NedIndex,
    TreeSettings,
    read_index,
    save_index,
)
from spfem_bench.datasets.ned_record import prepared_tree
from spfem_bench.datasets.ned_report import TreeReport, tree_report
from spfem_bench.datasets.ned_tree import read_tree, usable_cells
from spfem_bench.datasets.provider import PROVIDERS, Holdings, Places, Provider
from spfem_bench.definitions.cards import validate
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.datasets import DatasetCard
from spfem_bench.definitions.methods import MethodCard, method_card
from spfem_bench.definitions.protocols import Item
from spfem_bench.errors import ClipError, MissingClipError, UnknownNameError
from spfem_bench.files import inside
from spfem_bench.media.pictures import numbered_pictures
from spfem_bench.progress import SILENT, Progress


@PROVIDERS.register("ned")
class NedFaces(Provider):
    """Folders of faces that ``data index`` found; methods are the generated ones among them."""

    def __init__(self, card: DatasetCard, places: Places) -> None:
        super().__init__(card, places)
        self.settings = validate(TreeSettings, card.provider_settings, f"{card.path}, [settings]")

    @cached_property
    def index(self) -> NedIndex | None:
        """The index; None when there is none. A damaged one raises CardError."""
        paths = (folder / "index.json" for folder in self.places.searched)
        path = next((p for p in paths if p.is_file()), None)
        return _read_index(path, path.stat().st_mtime_ns) if path else None

    def build_index(
        self,
        root: Path,
        *,
        clips: Path | None = None,
        as_published: bool = False,
        progress: Progress = SILENT,
    ) -> tuple[NedIndex, Path]:
        """Index the tree below *root*, see :func:`read_tree`; also return the index's path."""
        path = self.places.searched[0] / "index.json"
        index = read_tree(
            root, self.settings, clips=clips, as_published=as_published, progress=progress
        )
        save_index(path, self.card.name, index)
        self.__dict__["index"] = index
        return index, path

    def report(self, index: NedIndex) -> TreeReport:
        """Return what an index holds, lacks and has that is odd."""
        unusable = {m: why for m in index.methods if (why := _why_no_method(m))}
        return tree_report(self.card.name, index, self.settings, unusable)

    def _indexed(self) -> NedIndex:
        if self.index is None:
            remedy = f"Type 'spfem-bench data index {self.card.name} ROOT'"
            raise MissingClipError(f"{self.card.name}, which has not been indexed: missing", remedy)
        return self.index

    def verified(self, name: str) -> Path:
        """Return where a folder of faces or a sound lies.

        Raises MissingClipError when it is not here or nothing is indexed, ClipError when it is not
        of the tree, cannot be used, or has changed since it was indexed.
        """
        index, again = self._indexed(), f"Type 'spfem-bench data index {self.card.name} ROOT'"
        path = inside(index.root, name)
        folder = self._folders.get(name)
        if folder is None and name not in self._sounds:
            raise MissingClipError(f"{self.card.name}/{name}: missing", f"{again} when it is there")
        if not (path.is_file() if folder is None else path.is_dir()):
            raise MissingClipError(f"{path}: missing", f"{again} when it is there")
        if folder is not None:
            if folder.problem:
                raise ClipError(f"{path}: {folder.problem}", "Correct it, then index again")
            here = len(numbered_pictures(Clip(path, frame_rate=self.settings.frame_rate)))
            if here != folder.pictures:
                problem = f"{path}: {here} pictures, {folder.pictures} when it was indexed"
                raise ClipError(problem, again)
        return path

    @cached_property
    def _folders(self) -> Mapping[str, FaceFolder]:
        return {folder.path: folder for folder in self._indexed().folders}

    @cached_property
    def _sounds(self) -> frozenset[str]:
        return frozenset(clip.sound for clip in self._indexed().clips)

    def source_clips(self) -> list[SourceClip]:
        """Return the clips of all real folders that can be used, in the order of speakers."""
        index = self.index
        if index is None:
            return []
        found = []
        for cell, clips in usable_cells(index).items():
            folder = index.real[cell]
            for clip, cut in zip(clips, index.real_cuts(cell), strict=True):
                video = str(self._clip(folder, cut, ""))
                found.append(SourceClip(*cell, clip.clip, clip.frames, video, clip.sound))
        return sorted(found, key=lambda c: (self.settings.place(c.speaker), c.emotion, c.clip))

    def _clip(self, folder: FaceFolder, cut: Cut, sound: str) -> Clip:
        audio = Path(sound) if sound else None
        path, rate = Path(folder.path), self.settings.frame_rate
        return Clip(path, frame_rate=rate, audio=audio, pictures=cut.pictures, skip=cut.skip)

    def methods(self, item: Item) -> Mapping[str, MethodCard]:
        """Return the methods of which the tree holds faces, under the names of their folders."""
        usable = [m for m in self.index.methods if not _why_no_method(m)] if self.index else []
        return {name: _card(name, self.card) for name in usable}

    def output(self, method: str, item: Item) -> Clip:
        """Return the address of a method's clip of an item, with the sound of the source.

        Raises MissingClipError where the tree has no such faces, ClipError where their number is
        not that of the source's clips, or they cannot be used.
        """
        index, source = self._indexed(), item.clips["source"]
        origin = self._folders.get(source.path.as_posix())
        if origin is None or source.pictures is None:
            raise ClipError(
                f"{item.id}: its source {source} is none of the tree's clips",
                "Type 'spfem-bench protocol solve' again, or write the list again",
            )
        cell = (origin.speaker, origin.emotion)
        folder = self._generated(method, cell, item.emotion)
        if folder is None:
            where = f"{index.root}: faces of '{method}' for {item.speaker} as {item.emotion}"
            raise MissingClipError(f"{where}, made of {cell[1]} clips: missing", "Index again")
        lengths, lead = index.lengths(cell), self.settings.lead
        if folder.problem or (cuts := cut_joined(lengths, folder.pictures, lead)) is None:
            reason = folder.problem or index.counts_text(folder, [cell])
            raise ClipError(f"{index.root / folder.path}: {reason}", "Correct it, then index again")
        if index.as_published:
            crossed = item.emotion != cell[1] or _is_crossed(item)
            cuts = cut_as_published(lengths, folder.pictures, lead, crossed=crossed)
        number = [cut.pictures for cut in index.real_cuts(cell)].index(source.pictures)
        if number >= len(cuts):
            raise ClipError(f"{index.root / folder.path}: no picture is left for {item.id}", "")
        return self._clip(folder, cuts[number], index.cells[cell][number].sound)

    def _generated(self, method: str, cell: Cell, target: str) -> FaceFolder | None:
        """Return a method's folder: beside its source, else under the name of its target."""
        generated = self._indexed().generated
        beside = generated.get((*cell, target, method))
        return beside or generated.get((cell[0], target, target, method))

    def reading(self, method: str) -> Mapping[str, Any]:
        """Return that clips are cut as the papers' scripts do, where they are.

        Also how 'prepare ned-faces' made the tree, which only approximates NED's own faces.
        """
        index = self.index
        if index is None:
            return {}
        made = prepared_tree(index.root)
        reading: dict[str, Any] = {"prepared": made.settings} if made else {}
        if method in index.methods and index.as_published:
            reading["as_published"] = True
        return reading

    def remark(self, method: str) -> str:
        """Return what is done about first frames that a method's folders lack."""
        index = self.index
        if index is None or method not in index.methods:
            return ""
        found = (f for f in self.report(index).findings if f.kind == "first frames")
        short = [f for f in found if any(e.startswith(f"{method}: ") for e in f.examples)]
        if short:
            return f"{method}: {short[0].says}"
        if index.as_published:
            return f"{method}: cut as published, every sound {self.settings.lead} frames late"
        return ""

    def holdings(self) -> Holdings:
        """Return how many folders of faces are here, and their size."""
        index = self.index
        if index is None:
            return Holdings("not indexed", 0, "your own tree")
        real = sum(not folder.method for folder in index.folders)
        state = f"{real} real, {len(index.folders) - real} generated"
        return Holdings(state, sum(folder.bytes for folder in index.folders), str(index.root))

    def how_to_get(self) -> str:
        """Return how faces are made, and the command that finds them."""
        name = self.card.name
        return f"NED makes it of your recordings; then type 'spfem-bench data index {name} ROOT'"


def _is_crossed(item: Item) -> bool:
    reference = item.row.get("reference_speaker", item.speaker)
    return reference != item.speaker


def _why_no_method(name: str) -> str:
    """Return why a folder's name cannot be a method's; empty where it can."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        return "letters, digits, '.', '_' and '-' are allowed"
    try:
        card = method_card(name)
    except UnknownNameError:
        return "a record of validation is named so" if name == "validate" else ""
    return "a control is named so" if card.kind == "control" else ""


def _card(name: str, dataset: DatasetCard) -> MethodCard:
    try:
        card = method_card(name)
    except UnknownNameError:
        return MethodCard(name=name, title=name, label=name, path=dataset.path)
    return card.model_copy(update={"name": name})


@lru_cache(maxsize=4)
def _read_index(path: Path, changed: int) -> NedIndex:
    del changed  # part of the cache's key
    return read_index(path)
