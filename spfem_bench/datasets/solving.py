"""The list of a protocol whose test clips are not published, from a user's own recordings."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from spfem_bench.datasets.cells import Cell, SolvedCell, SourceClip, solve
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.cards import located
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.lists import read_list
from spfem_bench.definitions.protocols import NEAREST, ProtocolCard
from spfem_bench.errors import CardError
from spfem_bench.files import inside, write_atomically
from spfem_bench.texts import csv_text

NEUTRAL = "neutral"


@dataclass(frozen=True)
class SolvedProtocol:
    """What was found for a protocol.

    Attributes:
        cells: each cell of the test set, solved or not.
        counted: the data sets whose recordings could be chosen from.
        rows: the list; empty while a cell has no clips, or the protocol's own data set is not
            indexed.
        path: where the list belongs.
    """

    card: ProtocolCard
    cells: tuple[SolvedCell, ...]
    counted: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    path: Path

    @property
    def unsolved(self) -> list[SolvedCell]:
        """The cells that have no clips."""
        return [one for one in self.cells if not one.chosen]

    def write(self) -> None:
        """Write the list where the protocol reads it; raise StorageError if that fails."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(
            self.path, csv_text([[*self.rows[0]], *([*row.values()] for row in self.rows)])
        )

    def clips_text(self) -> str:
        """Return the chosen clips as CSV: speaker, emotion, clip, frames, video, sound, state."""
        head = ["speaker", "emotion", "clip", "frames", "video", "sound", "determined"]
        lines = [
            [c.speaker, c.emotion, c.clip, c.frames, c.video, c.sound, one.state]
            for one in self.cells
            for c in one.chosen
        ]
        return csv_text([head, *lines])


def read_cells(path: Path) -> list[Cell]:
    """Read the facts about cells: a CSV of speaker, emotion, clips, frames and known names.

    Known names are separated by spaces. Raises CardError, with file and line, for a bad row.
    """
    cells: dict[tuple[str, str], Cell] = {}
    for where, row in read_list(path):
        with located(where):
            if missing := {"speaker", "emotion", "clips", "frames", "known"} - row.keys():
                raise CardError(f"the list lacks the column '{min(missing)}'")
            numbers = [row["clips"], row["frames"]]
            if not all(re.fullmatch(r"[1-9][0-9]{0,5}", number) for number in numbers):
                raise CardError("'clips' and 'frames' must be whole numbers from 1 to 999999")
            known = frozenset(row["known"].split())
            count, frames = map(int, numbers)
            cell = Cell(row["speaker"], row["emotion"], count, frames, known)
            if len(known) > cell.clips:
                raise CardError(f"{cell}: {len(known)} known names for {cell.clips} clips")
            if (cell.speaker, cell.emotion) in cells:
                raise CardError(f"the cell '{cell}' is there twice")
            cells[cell.speaker, cell.emotion] = cell
    return list(cells.values())


def solve_protocol(
    card: ProtocolCard, data: DataFolders, *, nearest: bool = False
) -> SolvedProtocol:
    """Find a protocol's clips among those that its data sets' indexes have.

    Sets that fit are counted over the clips of both data sets that ``[solve]`` names; clips come
    from the protocol's own, or only for their names from the other where the own is not indexed.

    Args:
        card: with a table ``[solve]``.
        data: where the indexes lie.
        nearest: take the nearest sum where none fits.

    Raises:
        CardError: the card has no such table, or no data set is indexed.
    """
    settings = card.solve
    if settings is None:
        raise CardError(
            f"the list of '{card.name}' is there already: {card.items}",
            "Only protocols whose test clips are not published are solved",
        )
    names = list(dict.fromkeys(filter(None, (card.dataset, settings.candidates))))
    clips = {
        name: [
            clip
            for clip in data.provider(dataset_card(name)).source_clips()
            if any(fnmatchcase(clip.clip, pattern) for pattern in settings.names)
        ]
        for name in names
    }
    counted = tuple(name for name in names if clips[name])
    if not counted:
        commands = " or ".join(f"'spfem-bench data index {name} ROOT'" for name in names)
        raise CardError(f"{' and '.join(names)}: not indexed", f"Type {commands}")
    own = clips[card.dataset]
    has = {(c.speaker, c.emotion, c.clip) for c in own}
    others = (c for name in counted if name != card.dataset for c in clips[name])
    pool = [*own, *(c for c in others if (c.speaker, c.emotion, c.clip) not in has)]
    cells = tuple(
        _solve(cell, own, pool, settings.within, nearest)
        for cell in read_cells(inside(card.path.parent, settings.cells))
    )
    complete = own and all(one.chosen for one in cells)
    rows = tuple(_rows(card, cells)) if complete else ()
    return SolvedProtocol(card, cells, counted, rows, card.items_path)


def _solve(
    cell: Cell, own: Sequence[SourceClip], pool: Sequence[SourceClip], within: int, nearest: bool
) -> SolvedCell:
    """Solve a cell among all clips, and choose among the protocol's own, where it has any."""
    solved = solve(cell, pool, within=within, nearest=nearest)
    if not own or set(solved.chosen) <= set(own):
        return solved
    chosen = solve(cell, own, within=within, nearest=nearest)
    if not solved.sets:
        return chosen
    return replace(solved, chosen=chosen.chosen if chosen.sets else (), off=chosen.off)


def _rows(card: ProtocolCard, solved: Iterable[SolvedCell]) -> Iterable[dict[str, str]]:
    """Yield the items: the k-th source with the k-th real clip and the next reference clip."""
    cells = {(one.cell.speaker, one.cell.emotion): one for one in solved}
    settings, crossed = card.solve, card.setting == "cross-id"
    for speaker, emotion in sorted(cells, key=lambda k: _place(cells, k, card.emotions)):
        other = settings.references.get(speaker, "") if settings and crossed else speaker
        needed = [(speaker, NEUTRAL if crossed else emotion), (speaker, emotion), (other, emotion)]
        if lacking := next((k for k in needed if k not in cells), None):
            raise CardError(f"{card.path}: there is no cell '{lacking[0]} {lacking[1]}'")
        sources, real, references = (cells[key] for key in needed)
        if len(real.chosen) > len(sources.chosen):
            raise CardError(f"{card.path}: {real.cell} has more real clips than sources")
        for k, source in enumerate(sources.chosen):
            reference = references.chosen[(k + 1) % len(references.chosen)]
            own = real.chosen[k] if k < len(real.chosen) else None
            yield {
                "id": f"{speaker}_source_{emotion}_{source.clip}",
                "speaker": speaker,
                "emotion": emotion,
                "source_clip": source.clip,
                "source_frames": str(source.frames),
                "reference_speaker": other,
                "reference_clip": reference.clip,
                "real_clip": own.clip if own else "",
                "determined": _joined([sources, real]),
                "source": source.address,
                "reference": reference.address,
                "real": own.address if own else "",
            }


def _place(
    cells: Mapping[tuple[str, str], SolvedCell], key: tuple[str, str], emotions: Sequence[str]
) -> tuple[int, int]:
    """Return where a cell's items come: speakers in the order of the facts, then emotions."""
    speakers = list(dict.fromkeys(speaker for speaker, _ in cells))
    if key[1] not in emotions:
        raise CardError(f"'{key[1]}' is not one of the protocol's emotions")
    return speakers.index(key[0]), emotions.index(key[1])


def _joined(several: Sequence[SolvedCell]) -> str:
    """Return how sure an item's clips are: NEAREST if any is, else of how many choices one."""
    different = list(dict.fromkeys(several))
    if any(not one.sets for one in different):
        return NEAREST
    choices = math.prod(one.sets for one in different)
    return "determined" if choices == 1 else f"1 of {choices}"
