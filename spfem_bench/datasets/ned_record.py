"""``ned_faces.json``: what made a tree of aligned faces, and which pictures are which clip's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from spfem_bench.errors import StorageError
from spfem_bench.files import write_atomically
from spfem_bench.stored import read_json, write_json
from spfem_bench.texts import csv_text

RECORD = "ned_faces.json"
"""The file's name, in the folder of the speakers."""

CLIPS_LIST = "clips.csv"
"""The list of clips and their frames beside it, by which a tree without videos is indexed."""

FORMAT = 1
"""Raised when the same settings would make other pictures."""


@dataclass(frozen=True)
class PreparedClip:
    """One clip's pictures in its cell: ``SPEAKER/EMOTION/faces_aligned``, from *first* on."""

    speaker: str
    emotion: str
    clip: str  # the video's name without its suffix
    first: int
    frames: int
    rate: float  # pictures a second of the video
    sound: bool  # whether SPEAKER/EMOTION/videos/CLIP.wav was written
    content: str  # hash of the video's bytes and of what was used of them
    guessed: int = 0  # frames without a face of their own, whose landmarks lie between others'

    @property
    def cell(self) -> str:
        """The folder of its speaker and emotion in the tree."""
        return f"{self.speaker}/{self.emotion}"


@dataclass
class PreparedTree:
    """A tree's settings, which can move a score, and its clips in the order of their pictures."""

    settings: dict[str, Any]
    clips: list[PreparedClip] = field(default_factory=list)
    cells: list[str] = field(default_factory=list)  # whose pictures this project writes
    listed: bool = True  # whether the list of clips is written; not where the user has one

    def of_cell(self, cell: str) -> list[PreparedClip]:
        """Return the clips of ``SPEAKER/EMOTION``, by their first picture."""
        return sorted((c for c in self.clips if c.cell == cell), key=lambda c: c.first)

    def write(self, root: Path) -> None:
        """Write it into a tree."""
        order = sorted(self.clips, key=lambda c: (c.cell, c.first))
        content = {"settings": self.settings, "cells": sorted(self.cells), "listed": self.listed}
        write_json(root / RECORD, {**content, "clips": [asdict(c) for c in order]})
        if self.listed:
            rows = [[c.speaker, c.emotion, c.clip, c.frames] for c in order]
            text = csv_text([["speaker", "emotion", "clip", "frames"], *rows])
            write_atomically(root / CLIPS_LIST, text)


def prepared_tree(root: Path) -> PreparedTree | None:
    """Return what ``spfem-bench prepare ned-faces`` wrote about a tree; None where it wrote none.

    A data set of such a tree has its ``settings`` in its signature. Raises StorageError for a file
    that is damaged or of a later version.
    """
    path = root / RECORD
    if not path.is_file():
        return None
    try:
        content, _ = read_json(path)
        settings = content["settings"]
        clips = [PreparedClip(**_plain(clip)) for clip in content["clips"]]
        cells = [str(cell) for cell in content["cells"]]
        if not isinstance(settings, dict):
            raise ValueError("its settings are no table")
    except (OSError, ValueError, TypeError, KeyError) as error:
        problem = f"{path}: not readable: {str(error).splitlines()[0] if str(error) else error!r}"
        raise StorageError(problem, "Prepare the faces again, into another folder") from None
    return PreparedTree(settings, clips, cells, content.get("listed") is True)


def _plain(clip: Any) -> Mapping[str, Any]:
    kinds = {"first": int, "frames": int, "guessed": int, "sound": bool, "rate": (int, float)}
    if not isinstance(clip, dict):
        raise ValueError("a clip is no table")
    for name, value in clip.items():
        if not isinstance(value, kinds.get(name, str)):  # type: ignore[arg-type]
            raise ValueError(f"a clip's {name} is {value!r}")
    return clip
