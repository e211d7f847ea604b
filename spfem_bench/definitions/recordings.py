"""Recordings that a user has on disk (MEAD, RAVDESS): their list, and where each may lie."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pydantic

from spfem_bench.definitions.cards import Strict, read_toml
from spfem_bench.errors import CardError, unknown_name
from spfem_bench.files import inside

Templates = Annotated[tuple[str, ...], pydantic.Field(min_length=1)]


class UnusedFiles(Strict):
    """Files that no protocol uses: the pattern of their paths, and what they are."""

    pattern: str
    says: str


class RecordingsSettings(Strict):
    """Recordings found by templates in which ``{column}`` stands for a column of the list."""

    items: str  # a CSV of all recordings, with the columns `speaker` and `emotion`
    further: str = ""  # a CSV of others that some copies have, indexed where they are there
    # where the video of one lies below the root: the first template gives the name that protocols
    # use, the others are also looked for
    video: Templates
    sound: tuple[str, ...] = ()  # the same for its sound, when that is a file of its own
    get: str  # where a user gets them
    beside: tuple[UnusedFiles, ...] = ()  # other files among them; `*` in a `pattern` is anything
    seconds: tuple[float, float]  # the shortest and longest that is not reported as odd
    apart: float = pydantic.Field(gt=0)  # allowed seconds between the ends of sound and picture


class LayoutMapping(Strict):
    """How a user's copy is named, where it is not named as published.

    ``video`` and ``sound`` are templates in the place of the data set's. ``names`` are other words
    for cells, by column: ``{"emotion": {"angry": "ANG"}}``.
    """

    video: Templates
    sound: tuple[str, ...] = ()
    names: dict[str, dict[str, str]] = pydantic.Field(default_factory=dict)


@dataclass(frozen=True)
class Recording:
    """A clip: its cells in the list, and paths below the root; no *sound* if the video has it."""

    row: Mapping[str, str]
    video: str
    sound: str

    @property
    def speaker(self) -> str:
        """Who speaks."""
        return self.row["speaker"]

    @property
    def emotion(self) -> str:
        """Which emotion is shown."""
        return self.row["emotion"]


def read_mapping(path: Path) -> LayoutMapping:
    """Read a user's mapping file; raise CardError if absent, no TOML, or with an unknown key."""
    return read_toml(LayoutMapping, path, "Give a TOML file")


def candidates(
    settings: RecordingsSettings, row: Mapping[str, str], mapping: LayoutMapping | None
) -> tuple[list[str], list[str]]:
    """Return where a recording's video and sound may lie below the root, likely ones first.

    Raises UnknownNameError for a column that the list lacks, CardError for a name outside the root.
    """
    if mapping is None:
        videos, sounds = settings.video, settings.sound
    else:
        videos, sounds = mapping.video, mapping.sound
        for column in mapping.names:
            if column not in row:
                raise unknown_name("list column", column, row)
        row = {k: mapping.names.get(k, {}).get(v, v) for k, v in row.items()}
    found = ([fill(t, row) for t in videos], [fill(t, row) for t in sounds])
    for name in (*found[0], *found[1]):
        inside(Path(), name)
    return found


def fill(template: str, row: Mapping[str, str]) -> str:
    """Put a row's cells into a template; only plain ``{column}`` is understood."""

    def cell(match: re.Match[str]) -> str:
        if match[1] not in row:
            raise unknown_name("list column", match[1], row)
        return row[match[1]]

    size = len(template) + sum(len(row.get(m[1], "")) for m in _COLUMN.finditer(template))
    if size > LONGEST_NAME:
        problem = f"the template '{template}' makes a name of up to {size} characters"
        raise CardError(problem, f"Allowed: {LONGEST_NAME}, as many as a path may have")
    return _COLUMN.sub(cell, template)


_COLUMN = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
LONGEST_NAME = 4096
