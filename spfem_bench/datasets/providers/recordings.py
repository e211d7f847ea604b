"""A user's own recordings, indexed where they lie."""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

from spfem_bench.datasets.cells import FRAME_RATE, SourceClip
from spfem_bench.datasets.indexing import build_index
from spfem_bench.datasets.provider import PROVIDERS, Holdings, Provider
from spfem_bench.datasets.recordings_index import RecordingsIndex, read_index
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.datasets import (
    DatasetCard,
    dataset_card,
    further_recordings,
    recordings,
)
from spfem_bench.definitions.recordings import LayoutMapping
from spfem_bench.errors import CardError, ClipError, MissingClipError
from spfem_bench.files import inside
from spfem_bench.media.packets import Stretch
from spfem_bench.progress import SILENT, Progress


@PROVIDERS.register("recordings")
class IndexedRecordings(Provider):
    """Files that ``data index`` found; their bytes are hashed into signatures."""

    def index(self) -> RecordingsIndex | None:
        """Return the index; None when there is none. A damaged one raises CardError."""
        paths = (folder / "index.json" for folder in self.places.searched)
        path = next((p for p in paths if p.is_file()), None)
        return _read_index(path, path.stat().st_mtime_ns) if path else None

    def build_index(
        self, root: Path, mapping: LayoutMapping | None, progress: Progress = SILENT
    ) -> tuple[RecordingsIndex, Path]:
        """Index the recordings below *root*, see :func:`build_index`; also return its path."""
        path = self.places.searched[0] / "index.json"
        return build_index(self.card, root, mapping, path, progress), path

    def verified(self, name: str) -> Path:
        """Return where a recording lies; raise MissingClipError if it is not here, or not indexed.

        Raises ClipError when the data set has no such file.
        """
        index, card = self.index(), self.card
        remedy = f"Type 'spfem-bench data index {card.name} ROOT'"
        if index is None:
            raise MissingClipError(f"{card.name}, which has not been indexed: missing", remedy)
        if name not in _file_names(card):
            raise ClipError(f"{name}: not a file of the data set '{card.name}'")
        file = index.files.get(name)
        path = None if file is None else inside(index.root, file.file)
        if path is None or not path.is_file():
            raise MissingClipError(f"{card.name}/{name}: missing", f"{remedy} when it is there")
        return path

    def source_clips(self) -> list[SourceClip]:
        """Return the recordings that are here, with their pictures' count at 30 a second."""
        index = self.index()
        listed = (*recordings(self.card), *further_recordings(self.card)) if index else ()
        found = []
        for r in listed:
            if index and (pictures := index.stretch(r.video, "video")):
                names = (r.speaker, r.emotion, r.row.get("clip", Path(r.video).stem))
                found.append(SourceClip(*names, frames_of(pictures), r.video, r.sound))
        return found

    def holdings(self) -> Holdings:
        """Return how many recordings were found, and the size of all files."""
        index, expected = self.index(), recordings(self.card)
        origin = self.card.recordings.get if self.card.recordings else ""
        if index is None:
            return Holdings(f"0/{len(expected)}, not indexed", 0, origin)
        state = f"{sum(r.video in index.files for r in expected)}/{len(expected)}"
        state += "" if index.verified else ", unverified: index it again"
        return Holdings(state, sum(f.bytes for f in index.files.values()), origin)

    def how_to_get(self) -> str:
        """Return where they are to be had, and the command that finds them."""
        return (
            f"you get it from its authors, {self.holdings().origin} (licence: "
            f"{self.card.licence}); then type 'spfem-bench data index {self.card.name} ROOT'"
        )


def indexed_recordings(provider: Provider) -> IndexedRecordings:
    """Return the provider if it is one of recordings; raise CardError otherwise."""
    if not isinstance(provider, IndexedRecordings):
        allowed = ", ".join(n for n in names(Kind.DATASET) if dataset_card(n).recordings)
        problem = f"the data set '{provider.card.name}' has no recordings of yours to index"
        raise CardError(problem, f"Allowed: {allowed}")
    return provider


def frames_of(pictures: Stretch) -> int:
    """Return a video's frames at 30 a second.

    A video at 30, or within half a percent (RAVDESS has 29.97), has as many as it has pictures, as
    when each is saved; of others, the number of its seconds at that rate counts.
    """
    rate = pictures.packets / pictures.seconds if pictures.seconds > 0 else FRAME_RATE
    if abs(rate - FRAME_RATE) <= 0.005 * FRAME_RATE:
        return pictures.packets
    return round(pictures.seconds * FRAME_RATE)


@cache
def _file_names(card: DatasetCard) -> frozenset[str]:
    listed = (*recordings(card), *further_recordings(card))
    return frozenset(n for r in listed for n in (r.video, r.sound) if n)


@lru_cache(maxsize=8)
def _read_index(path: Path, changed: int) -> RecordingsIndex:
    del changed  # part of the cache's key
    return read_index(path)
