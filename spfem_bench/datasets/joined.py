"""Folders that hold the frames of several clips one after another: where each clip lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate


@dataclass(frozen=True)
class Cut:
    """The pictures of one clip in a folder, from one up to another, and the sound before them."""

    pictures: tuple[int, int]
    skip: int = 0  # frames of the clip that come before its first picture


def cut_joined(lengths: Sequence[int], pictures: int, lead: int = 0) -> list[Cut] | None:
    """Return where the clips of a folder lie; None where the numbers do not fit.

    Args:
        lengths: frames of each clip, in order.
        pictures: how many the folder holds.
        lead: so many frames may be missing at the begin of the folder. They are then those of the
            first clip, whose sound begins that much before its pictures.
    """
    missing = sum(lengths) - pictures
    if missing not in (0, lead) or not lengths or lengths[0] <= missing:
        return None
    ends = list(accumulate(lengths))
    starts = [0, *ends[:-1]]
    return [
        Cut((max(start - missing, 0), end - missing), max(missing - start, 0))
        for start, end in zip(starts, ends, strict=True)
    ]


def cut_as_published(
    lengths: Sequence[int], pictures: int, lead: int, *, crossed: bool
) -> list[Cut]:
    """Return where the papers' scripts take the clips of a folder from.

    They number pictures as if no frame were missing, so that every clip begins and ends *lead*
    frames late, and the last is that much shorter; the sound of every clip is taken from *lead*
    frames on. In cross-ID (*crossed*), the last *lead* frames are left out in any case. Clips
    beyond the last picture have none. Source: `lse_cross_id.py` and `lse_inter_id.py` in
    jianmanlincjx/CDRL, branch NED_CDRL, commit 68db8a14.
    """
    last = min(pictures, sum(lengths) - lead) if crossed else pictures
    ends = list(accumulate(lengths))
    starts = [0, *ends[:-1]]
    return [
        Cut((start, min(end, last)), lead)
        for start, end in zip(starts, ends, strict=True)
        if start < last
    ]


def lengths_text(lengths: Sequence[int]) -> str:
    """Return the lengths of clips as a sum, such as ``41 + 40 = 81``."""
    total = " + ".join(map(str, lengths))
    return f"{total} = {sum(lengths)}" if len(lengths) > 1 else total
