"""Protocols on all clips that a data set's index has, in both settings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from spfem_bench.datasets.cells import SourceClip
from spfem_bench.definitions.protocols import in_order
from spfem_bench.texts import csv_text

NEUTRAL = "neutral"

_Row = dict[str, str]


@dataclass(frozen=True)
class OwnList:
    """A protocol: the texts of its card and its list, and which real clips no item has."""

    name: str
    card: str
    items: str
    left_out: str = ""


def own_lists(name: str, dataset: str, clips: Sequence[SourceClip]) -> list[OwnList]:
    """Return the protocols that clips make possible.

    Inter-ID, ``NAME-inter-id``: the source is each clip, which is also the real one, and the
    reference is the next clip of its cell (a speaker's clips of one emotion). Cross-ID,
    ``NAME-cross-id``, where some speaker has neutral clips and there are two speakers: the sources
    of every emotion are the speaker's neutral clips, the real clips are those of the emotion, each
    in one item, and the reference is a clip of the speaker before.
    """
    cells: dict[tuple[str, str], list[SourceClip]] = {}
    for clip in clips:
        cells.setdefault((clip.speaker, clip.emotion), []).append(clip)
    made = [("inter-id", _inter_id(cells)), ("cross-id", _cross_id(cells))]
    return [
        _own_list(f"{name}-{setting}", dataset, setting, rows, cells)
        for setting, rows in made
        if rows
    ]


_Cells = Mapping[tuple[str, str], Sequence[SourceClip]]


def _inter_id(cells: _Cells) -> list[_Row]:
    rows = []
    for cell in cells.values():
        for k, clip in enumerate(cell):
            rows.append(_row(clip, clip.emotion, clip, cell[(k + 1) % len(cell)]))
    return rows


def _cross_id(cells: _Cells) -> list[_Row]:
    speakers = list(dict.fromkeys(speaker for speaker, _ in cells))
    rows = []
    for (speaker, emotion), real in cells.items():
        sources = cells.get((speaker, NEUTRAL), ())
        at = speakers.index(speaker)
        before = [*speakers[:at][::-1], *speakers[:at:-1]]
        others = next((cells[other, emotion] for other in before if (other, emotion) in cells), ())
        for k, source in enumerate(sources if others else ()):
            own = real[k] if k < len(real) else None
            rows.append(_row(source, emotion, own, others[(k + 1) % len(others)]))
    return rows


def _row(source: SourceClip, emotion: str, real: SourceClip | None, other: SourceClip) -> _Row:
    return {
        "id": f"{source.speaker}_source_{emotion}_{source.clip}",
        "speaker": source.speaker,
        "emotion": emotion,
        "source_clip": source.clip,
        "reference_speaker": other.speaker,
        "reference_clip": other.clip,
        "real_clip": real.clip if real else "",
        "source": source.address,
        "reference": other.address,
        "real": real.address if real else "",
    }


def _own_list(
    name: str, dataset: str, setting: str, rows: Sequence[_Row], cells: _Cells
) -> OwnList:
    emotions = in_order({row["emotion"] for row in rows})
    source = "that clip itself" if setting == "inter-id" else "one of the speaker's neutral clips"
    card = f"""\
title = {json.dumps(f"{name}: all clips of {dataset}")}
version = 1
setting = "{setting}"
dataset = {json.dumps(dataset)}
faces = "aligned"
profile = "papers"
items = {json.dumps(f"{name}.csv")}
emotions = {json.dumps(emotions)}
metrics = ["fad", "csim", "lse-d", "lse-c"]
on_request = ["av-offset", "id-sim"]
description = \"\"\"
All clips of a tree of faces, written by 'spfem-bench protocol new'. Real is the speaker's own
clip in the target emotion, the source is {source}.\"\"\"

[clips]
source = "{{source}}"
reference = "{{reference}}"
real = "{{real}}"
"""
    text = csv_text([[*rows[0]], *([*row.values()] for row in rows)])
    return OwnList(name, card, text, _left_out(cells, rows))


def _left_out(cells: _Cells, rows: Sequence[_Row]) -> str:
    """Return which clips no item has as its real one."""
    used = {row["real"] for row in rows}
    clips = [clip for cell in cells.values() for clip in cell if clip.address not in used]
    names = ", ".join(f"{c.speaker} {c.emotion} {c.clip}" for c in clips[:5])
    more = f" and {len(clips) - 5} more" if len(clips) > 5 else ""
    says = f"no item has these real clips, for want of a source or a reference: {names}{more}"
    return says if clips else ""
