"""Finding a user's own recordings where they lie; nothing is copied."""

from __future__ import annotations

import glob
from pathlib import Path

from spfem_bench.datasets import recordings_index
from spfem_bench.datasets.index_report import relative_files, swapped_folders
from spfem_bench.datasets.recordings_index import IndexedFile, RecordingsIndex
from spfem_bench.definitions.datasets import DatasetCard, further_recordings, recordings
from spfem_bench.definitions.recordings import LayoutMapping, candidates
from spfem_bench.errors import CardError, ClipError, unknown_name
from spfem_bench.files import Listing, inside
from spfem_bench.media import packets
from spfem_bench.progress import Progress

SAVE_EVERY = 50
"""Files that are read between two writings of the index, from which a stopped run goes on."""


def build_index(
    card: DatasetCard, root: Path, mapping: LayoutMapping | None, path: Path, progress: Progress
) -> RecordingsIndex:
    """Look for a data set's recordings below *root*, and write where they lie to *path*.

    Files that an index at *path* has with the same size and time stamp are not opened again, so
    a stopped run goes on where it was. *progress* has the phase ``files``. Raises ClipError for no
    folder, none of the recordings or two files for one, StorageError for a disk that fails.
    """
    root = root.resolve()
    if not root.is_dir():
        raise ClipError(f"{root}: no such folder", f"Give the folder that holds {card.name}")
    _check_words(card, mapping)
    files_by_name = _find_files(card, root, mapping)
    known = _known_files(path, root)
    # A known file stays in the index until it is read again.
    files = {name: known[file] for name, file in files_by_name.items() if file in known}
    progress.begin("files", len(files_by_name), "file")
    try:
        for count, (name, file) in enumerate(files_by_name.items(), 1):
            files[name] = _read_streams(root, file, known.get(file))
            progress.advance("files")
            if count % SAVE_EVERY == 0:
                recordings_index.save_index(path, card, RecordingsIndex(root, files, mapping))
    finally:  # also after Ctrl-C: the next run does not read these files again
        progress.end("files")
        recordings_index.save_index(path, card, RecordingsIndex(root, files, mapping))
    return RecordingsIndex(root, files, mapping)


def _find_files(card: DatasetCard, root: Path, mapping: LayoutMapping | None) -> dict[str, str]:
    """Return the path below the root of each video and sound that exists, by its name."""
    if card.recordings is None:
        raise ValueError(f"{card.name} has no recordings")
    files: dict[str, str] = {}
    listing = Listing(root)
    for recording in (*recordings(card), *further_recordings(card)):
        videos, sounds = candidates(card.recordings, recording.row, mapping)
        for name, paths in ((recording.video, videos), (recording.sound, sounds)):
            file = next(filter(None, (_find_file(listing, path) for path in paths)), None)
            if name and file:
                files[name] = file
    if not any(recording.video in files for recording in recordings(card)):
        first = candidates(card.recordings, recordings(card)[0].row, mapping)[0][0]
        swapped = swapped_folders(card, RecordingsIndex(root, {}, mapping), [*relative_files(root)])
        hint = f"{swapped.says}, for example {swapped.examples[0]}. " if swapped else ""
        raise ClipError(
            f"{root} holds no recording of {card.name}: looked for {first} and others",
            f"{hint}Name the folder above it, or say with --mapping FILE.toml how your copy is "
            "named",
        )
    return files


def _find_file(listing: Listing, path: str) -> str | None:
    """Return the file of that name, see :func:`spfem_bench.files.same_name`; None without one."""
    inside(listing.folder, path)
    files = [f for f in listing.find(glob.escape(path)) if (listing.folder / f).is_file()]
    if len(files) > 1:
        raise ClipError(f"{listing.folder}: {' and '.join(files)} for one recording", "Keep one")
    return files[0] if files else None


def _check_words(card: DatasetCard, mapping: LayoutMapping | None) -> None:
    """Refuse a mapping that replaces a word which the lists do not have."""
    listed = (*recordings(card), *further_recordings(card))
    for column, words in mapping.names.items() if mapping else ():
        cells = {r.row[column] for r in listed if column in r.row}
        for cell in words if cells else ():  # an unknown column is refused where it is filled in
            if cell not in cells:
                raise unknown_name(f"{column} in [names.{column}]", cell, cells)


def _known_files(path: Path, root: Path) -> dict[str, IndexedFile]:
    """Return the files of an index of the same root; none when it cannot be read."""
    try:
        index = recordings_index.read_index(path)
    except CardError:  # absent, damaged, or of an older version: this run makes a new one
        return {}
    if not index.verified or index.root != root:
        return {}
    return {file.file: file for file in index.files.values()}


def _read_streams(root: Path, file: str, known: IndexedFile | None) -> IndexedFile:
    path = inside(root, file)
    status = path.stat()
    if known and (known.bytes, known.changed) == (status.st_size, status.st_mtime_ns):
        return known
    streams, problem = {}, ""
    try:
        for kind, s in packets.stream_times(path).items():
            streams[kind] = (round(s.start, 4), round(s.end, 4), s.packets)
    except ClipError as error:
        problem = error.problem.removeprefix(f"{path}: ")
    return IndexedFile(file, status.st_size, status.st_mtime_ns, streams, problem)
