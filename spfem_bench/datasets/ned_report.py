"""What a tree of NED's folders holds, lacks and has that is odd."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from spfem_bench.datasets.index_report import IndexFinding
from spfem_bench.datasets.joined import cut_joined
from spfem_bench.datasets.ned_index import Cell, FaceFolder, NedIndex, TreeLayout, TreeSettings

NEUTRAL = "neutral"
"""The emotion of the sources in cross-ID."""


@dataclass(frozen=True)
class TreeReport:
    """What an index holds of a tree.

    Attributes:
        cells: by speaker and emotion: clips whose faces can be used, clips, and clips with sound.
        methods: by method, its folders, and those whose pictures fit the clips of a cell.
    """

    dataset: str
    root: str
    layout: TreeLayout
    as_published: bool
    listed: str
    cells: dict[str, dict[str, tuple[int, int, int]]]
    methods: dict[str, tuple[int, int]]
    folders: tuple[dict[str, Any], ...]
    findings: tuple[IndexFinding, ...]

    def plain(self) -> dict[str, Any]:
        """Return it as plain values, for JSON."""
        return asdict(self)


def source_cells(index: NedIndex, folder: FaceFolder) -> list[Cell]:
    """Return the cells whose clips a generated folder may be made of, likely ones first.

    In NED's layout it lies beside its source. What a side holds, or a folder that is named after
    its target, may also be made of the neutral clips.
    """
    cells = [(folder.speaker, folder.emotion)]
    if folder.emotion == folder.target != NEUTRAL:
        cells.append((folder.speaker, NEUTRAL))
    return [cell for cell in cells if index.lengths(cell)]


def fits(index: NedIndex, folder: FaceFolder, lead: int) -> int | None:
    """Return how many first frames a generated folder lacks; None where it fits no cell."""
    for cell in source_cells(index, folder):
        if cut_joined(index.lengths(cell), folder.pictures, lead) is not None:
            return sum(index.lengths(cell)) - folder.pictures
    return None


def tree_report(
    dataset: str, index: NedIndex, settings: TreeSettings, named: dict[str, str]
) -> TreeReport:
    """Return what is here, what is missing and what is odd.

    *named* are methods that cannot be used because of their names, each with the reason.
    """
    cells: dict[str, dict[str, tuple[int, int, int]]] = {}
    for (speaker, emotion), folder in sorted(
        index.real.items(), key=lambda one: (settings.place(one[0][0]), one[0][1])
    ):
        clips = index.cells.get((speaker, emotion), ())
        usable = 0 if folder.problem else len(clips)
        sounds = sum(bool(clip.sound) for clip in clips)
        cells.setdefault(speaker, {})[emotion] = (usable, len(clips), sounds)
    methods = {}
    for method in index.methods:
        own = [folder for folder in index.folders if folder.method == method]
        fit = sum(not f.problem and fits(index, f, settings.lead) is not None for f in own)
        methods[method] = (len(own), fit)
    folders = tuple(
        asdict(f) | {"lengths": [index.lengths(cell) for cell in source_cells(index, f)]}
        for f in index.folders
    )
    odd = tuple(finding for finding in _findings(index, settings, named) if finding)
    about = (dataset, str(index.root), index.layout, index.as_published, index.listed)
    return TreeReport(*about, cells, methods, folders, odd)


def _findings(
    index: NedIndex, settings: TreeSettings, named: dict[str, str]
) -> Iterator[IndexFinding | None]:
    yield from _refused(index, settings)
    yield from _frames(index, settings)
    yield from _sounds(index, settings)
    yield from _looks(index)
    says = "experiments that cannot be methods"
    yield _finding(
        "not used", says, [f"{name}: {why}" for name, why in named.items()], "Rename them"
    )


def _finding(kind: str, says: str, lines: Iterable[str], remedy: str = "") -> IndexFinding | None:
    listed = sorted(lines)
    return IndexFinding(kind, says, len(listed), tuple(listed), remedy) if listed else None


def _refused(index: NedIndex, settings: TreeSettings) -> Iterator[IndexFinding | None]:
    bad = [f"{f.path}: {f.problem}" for f in index.folders if f.problem]
    yield _finding("refused", "folders that cannot be used", bad, "Correct them, then index again")
    unknown = [
        f.path for cell, f in index.real.items() if cell not in index.cells and not f.problem
    ]
    yield _finding(
        "no clips",
        "folders of which nothing says where a clip ends",
        unknown,
        "Put the source videos into one of "
        + ", ".join(settings.videos)
        + ", or give a list: --clips FILE.csv with speaker, emotion, clip, frames",
    )
    others = [f for f in index.folders if f.method and not f.problem]
    wrong = [
        f"{f.path}: {index.counts_text(f, source_cells(index, f))}"
        for f in others
        if source_cells(index, f) and fits(index, f, settings.lead) is None
    ]
    remedy = (
        f"Allowed: as many pictures as the clips have frames, or {settings.lead} fewer at the begin"
    )
    yield _finding("counts", "generated faces that are not those of their clips", wrong, remedy)


def _frames(index: NedIndex, settings: TreeSettings) -> Iterator[IndexFinding | None]:
    lead = settings.lead
    short = Counter(
        f.method
        for f in index.folders
        if f.method and not f.problem and (n := fits(index, f, lead)) is not None and n
    )
    how = (
        f"cut as published: clips begin {lead} frames late and end {lead} frames late, each sound "
        f"begins {lead} frames late"
        if index.as_published
        else f"the first clip's sound begins {lead} frames before its pictures"
    )
    says = (
        f"generated folders without their first {lead} frames, as NED's renderer writes them; {how}"
    )
    lines = [f"{method}: {n} folders" for method, n in short.items()]
    yield _finding("first frames", says, lines)
    rate = settings.frame_rate
    odd = [
        f"{c.video}: {c.rate:g}" for c in index.clips if c.video and abs(c.rate / rate - 1) > 0.005
    ]
    remedy = f"Faces are read at {rate:g} a second: convert the videos before NED cuts them"
    yield _finding(
        "frame rate", f"source videos that have not {rate:g} frames a second", odd, remedy
    )


def _sounds(index: NedIndex, settings: TreeSettings) -> Iterator[IndexFinding | None]:
    silent = [
        f"{c.speaker} {c.emotion} {c.clip}" + (f" ({c.problem})" if c.problem else "")
        for c in index.clips
        if not c.sound
    ]
    says = "clips without sound"
    if index.as_published:
        says += ", which the papers' scripts leave out: so does 'eval --partial'"
    remedy = "Metrics of lip sync cannot use them. Sounds are looked for as " + ", ".join(
        settings.sounds
    )
    yield _finding("no sound", says, silent, remedy)
    apart = []
    for c in index.clips:
        difference = c.seconds - c.frames / settings.frame_rate
        if c.sound and abs(difference) > settings.apart:
            apart.append(f"{c.sound}: {difference:+.2f} s")
    says = f"sounds that are more than {settings.apart:g} s longer or shorter than the pictures"
    yield _finding("sound and picture apart", says, apart, "Look whether they belong together")


def _looks(index: NedIndex) -> Iterator[IndexFinding | None]:
    looked, bare = (sum(getattr(f, k) for f in index.folders) for k in ("looked_at", "unmasked"))
    lines = [
        f"{f.path}: {f.unmasked} of {f.looked_at} pictures" for f in index.folders if f.unmasked
    ]
    share = f"{bare / looked:.0%}" if looked else ""
    yield _finding(
        "unmasked",
        f"faces whose corners are not black: {share} of the {looked} pictures looked at",
        lines,
        "The papers' faces are black outside the face, real and generated: mask both, or neither",
    )
    odd = [
        f"{f.path}: " + ", ".join(f"{n} {kind}" for kind, n in f.odd_colours.items())
        for f in index.folders
        if f.odd_colours
    ]
    says = (
        "pictures that are not RGB; an alpha channel is dropped, grey becomes three equal colours"
    )
    yield _finding("colours", says, odd, "Write them as RGB, black outside the face")
