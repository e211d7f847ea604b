"""Clips of a test set of which only sums are published: which sets of clips fit each cell.

A *cell* is one speaker's test clips of one emotion. Its number of clips, their frames in total and
some of their names are facts; the other names follow from the lengths of a user's own clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import CardError

FRAME_RATE = 30.0
"""Pictures a second at which the frames of a cell are counted."""


@dataclass(frozen=True, order=True)
class SourceClip:
    """A clip of a user's own data set, with its length."""

    speaker: str
    emotion: str
    clip: str  # its name, such as `017`; one clip of a speaker and emotion has it
    frames: int  # at 30 pictures a second
    video: str  # its address in the data set: a path, with or without options
    sound: str = ""  # the path of its sound; empty when `video` has or names it

    @property
    def address(self) -> str:
        """The address of picture and sound together, as protocols' lists have it."""
        clip = Clip.parse(self.video)
        return str(replace(clip, audio=Path(self.sound)) if self.sound else clip)


@dataclass(frozen=True)
class Cell:
    """What is known of one speaker's test clips of one emotion."""

    speaker: str
    emotion: str
    clips: int  # how many there are
    frames: int  # of all of them, at 30 pictures a second
    known: frozenset[str] = frozenset()  # names that are published

    def __str__(self) -> str:
        return f"{self.speaker} {self.emotion}"


@dataclass(frozen=True)
class SolvedCell:
    """Which clips a cell may consist of.

    Attributes:
        chosen: the set of clips that is used, by name; empty where none fits.
        sets: how many sets of clips fit.
        here: how many clips of the speaker and emotion there are to choose from.
        off: frames of the chosen set, or of the nearest one where none fits, more than the
            cell's; None where no set can be made.
        lacking: known names that are not there.
    """

    cell: Cell
    chosen: tuple[SourceClip, ...]
    sets: int
    here: int
    off: int | None
    lacking: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """``determined``, ``1 of N``, ``nearest (+N)`` or ``none``, as lists say it."""
        if self.sets and self.chosen:
            return "determined" if self.sets == 1 else f"1 of {self.sets}"
        return f"nearest ({self.off:+d})" if self.chosen else "none"

    @property
    def why(self) -> str:
        """Why there are no clips that fit, in words; empty where there are."""
        if self.sets:
            some = f"{self.sets} sets fit" if self.sets > 1 else "1 set fits"
            unusable = f"{self.cell}: {some}, of which the data set does not have every clip"
            return "" if self.chosen else unusable
        count = self.cell.clips
        some = f"{count} clips of {self.cell.frames} frames in all"
        place = f"{self.cell}: {some if count > 1 else f'a clip of {self.cell.frames} frames'}"
        if self.lacking:
            return f"{place}; clip {self.lacking[0]}, which is one of them, is not here"
        if self.off is None:
            return f"{place}; only {self.here} are here"
        more = "more" if self.off > 0 else "fewer"
        total = self.cell.frames + self.off
        return f"{place}; the nearest sum is {total}, {abs(self.off)} {more}"


def solve(
    cell: Cell, clips: Iterable[SourceClip], *, within: int = 0, nearest: bool = False
) -> SolvedCell:
    """Find the sets of clips that hold a cell's known names and have its frames in total.

    Of several, the set whose total is nearest is chosen; of those, the one with the last clips: the
    one whose first clip by name is the latest, then the second, as most published names are late
    ones. Clips of other speakers and emotions are left out.

    Args:
        cell: the facts.
        clips: those to choose from.
        within: frames by which a total may be off.
        nearest: choose the nearest set where none fits.

    Raises:
        CardError: two clips of a speaker and emotion have one name.
    """
    own = sorted(
        (c for c in clips if (c.speaker, c.emotion) == (cell.speaker, cell.emotion)),
        key=lambda c: c.clip,
    )
    twice = next((name for name, n in Counter(c.clip for c in own).items() if n > 1), None)
    if twice is not None:
        raise CardError(f"{cell}: two clips are called {twice}", "Keep one of them")
    lacking = tuple(sorted(cell.known - {c.clip for c in own}))
    known = [c for c in own if c.clip in cell.known]
    free = [c for c in own if c.clip not in cell.known]
    count = cell.clips - len(known)
    if lacking or not 0 <= count <= len(free):
        return SolvedCell(cell, (), 0, len(own), None, lacking)
    wanted = cell.frames - sum(c.frames for c in known)
    sums = _sums(free, count)
    totals = sums[0][count]
    sets = sum(n for total, n in totals.items() if abs(total - wanted) <= within)
    off = min(abs(total - wanted) for total in totals)
    found = [
        _latest(free, sums, count, total)
        for total in sorted({wanted - off, wanted + off} & totals.keys())
    ]
    chosen = max(found, key=lambda some: [c.clip for c in some])
    off = sum(c.frames for c in chosen) - wanted
    kept = tuple(sorted([*known, *chosen], key=lambda c: c.clip)) if sets or nearest else ()
    return SolvedCell(cell, kept, sets, len(own), off)


_Sums = list[list[Counter[int]]]


def _sums(clips: Sequence[SourceClip], count: int) -> _Sums:
    """Return at [i][k] how many sets of k clips from the i-th on there are, by total frames."""
    table: _Sums = [[Counter({0: 1}), *(Counter[int]() for _ in range(count))]]
    for clip in reversed(clips):
        after = table[0]
        row = [Counter({0: 1})]
        for k in range(1, count + 1):
            with_it = {total + clip.frames: n for total, n in after[k - 1].items()}
            row.append(after[k] + Counter(with_it))
        table.insert(0, row)
    return table


def _latest(
    clips: Sequence[SourceClip], sums: _Sums, count: int, total: int
) -> tuple[SourceClip, ...]:
    """Return the set of *count* clips with *total* frames whose first one is the latest.

    Of several, the one whose second is the latest, and so on. *clips* are in order of their names.
    """
    chosen: list[SourceClip] = []
    start = 0
    for left in reversed(range(count)):
        fits = (i for i in range(start, len(clips)) if sums[i + 1][left][total - clips[i].frames])
        i = max(fits)
        chosen.append(clips[i])
        total, start = total - clips[i].frames, i + 1
    return tuple(chosen)
