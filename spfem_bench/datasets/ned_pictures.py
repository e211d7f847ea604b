"""What a folder of aligned faces looks like: numbers, sizes, colours, and the black around them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import ClipError
from spfem_bench.media.pictures import numbered_pictures, picture_header, read_picture

MOST_LOOKED_AT = 8
"""Pictures of a folder that are decoded, at even distances."""

CORNER = 8
"""Pixels of the side of a corner."""

BLACK = 16
"""Highest mean of a corner that counts as black: renderers and JPEG leave a little noise."""

PLAIN = ("RGB", "P")
"""Kinds of colours that are read without loss."""


@dataclass(frozen=True)
class LookedAt:
    """What was found of a folder of faces; *problem* says why it cannot be used."""

    pictures: int = 0
    bytes: int = 0
    problem: str = ""
    looked_at: int = 0
    unmasked: int = 0
    odd_colours: Mapping[str, int] = field(default_factory=dict)


def look_at_faces(folder: Path, size: int) -> LookedAt:
    """Look at a folder of faces of *size* pixels each way.

    The head and the end of every picture are read, and :data:`MOST_LOOKED_AT` of them whole.
    """
    try:
        paths = numbered_pictures(Clip(folder, frame_rate=1.0))
    except ClipError as error:
        return LookedAt(problem=error.problem.removeprefix(f"{folder}: "))
    total = sum(path.stat().st_size for path in paths)
    colours = Counter[str]()
    try:
        for path in paths:
            header = picture_header(path)
            if header.size != (size, size):
                given = f"{header.size[0]} x {header.size[1]}"
                problem = f"{path.name} has {given} pixels, aligned faces have {size} x {size}"
                return LookedAt(len(paths), total, problem)
            colours[header.colours] += 1
        step = max(1, -(-len(paths) // MOST_LOOKED_AT))
        faces = [read_picture(path) for path in paths[::step]]
    except ClipError as error:
        problem = error.problem.removeprefix(f"{folder}/")
        return LookedAt(len(paths), total, problem)
    odd = {kind: n for kind, n in sorted(colours.items()) if kind not in PLAIN}
    if all(((face == 0) | (face == 255)).all() for face in faces):
        problem = "masks, not faces: every pixel is black or white"
        return LookedAt(len(paths), total, problem, len(faces), 0, odd)
    return LookedAt(len(paths), total, "", len(faces), sum(map(_is_unmasked, faces)), odd)


def _is_unmasked(face: npt.NDArray[np.uint8]) -> bool:
    """Return whether a corner is not black, as everything outside the face should be."""
    ends = (slice(None, CORNER), slice(-CORNER, None))
    return any(face[rows, columns].mean() > BLACK for rows in ends for columns in ends)
