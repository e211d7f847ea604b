"""Cosine similarity of drawn frames, all with all, actor by actor (CSIM of the papers)."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.metrics import METRIC_KINDS, MetricCard
from spfem_bench.definitions.protocols import Item
from spfem_bench.errors import CardError, ClipError
from spfem_bench.features.store import arrays_digest
from spfem_bench.statistics.base import GroupScore, ItemFeatures, MetricKind, NoPartsError
from spfem_bench.statistics.intervals import pseudo_values

_Float64 = npt.NDArray[np.float64]

_Place = tuple[str, int]
"""Where a clip's frames stand among an actor's: its path, then its first picture."""


@dataclass(frozen=True)
class DrawnPart:
    """One item's frames, as vectors of length 1.

    Attributes:
        output: float64 (N, D), of the output.
        real: float64 (M, D) of each real clip.
        place: of the output among the actor's.
        speaker: empty until the item is known, as are the places of the real clips.
    """

    output: _Float64
    real: tuple[_Float64, ...]
    place: _Place
    speaker: str = ""
    real_places: tuple[_Place, ...] = ()

    @property
    def n_frames(self) -> int:
        """Frames of the output that may be drawn."""
        return len(self.output)


@METRIC_KINDS.register("drawn-similarity")
class DrawnSimilarityKind(MetricKind[DrawnPart]):
    """Mean cosine of each drawn output frame with each drawn real frame, then over actors.

    Attributes:
        most: frames drawn of an actor on either side, where there are more.
        seed: of Python's ``random``, set once for each emotion.
        actors: speakers in the order in which they are drawn; others follow by name.
    """

    pools_frames: ClassVar[bool] = True
    reports: ClassVar[frozenset[str]] = frozenset({"most", "seed", "actors"})

    kind: Literal["drawn-similarity"]
    most: int = pydantic.Field(gt=0)
    seed: int
    actors: tuple[str, ...] = ()

    def part(self, card: MetricCard, clip: Clip, features: ItemFeatures) -> DrawnPart:
        """Return an item's frames, of the output and of all its real clips."""
        own, real = (
            [_unit(f.outputs[card.output], clip) for f in features[r]] for r in card.compare
        )
        return DrawnPart(own[0], tuple(real), _place(clip))

    def of_item(self, part: DrawnPart, item: Item) -> DrawnPart:
        """Return a part with its speaker, and where its real clips stand."""
        own = [item.clips["real"]] if "real" in item.clips else []
        places = tuple(map(_place, [*own, *item.more_real]))
        return replace(part, speaker=item.speaker, real_places=places)

    def kept(self, part: DrawnPart) -> dict[str, Any]:
        """Return the real frames' count, and a hash of all vectors, which are too large."""
        arrays: dict[str, npt.NDArray[np.generic]] = {"output": part.output}
        arrays |= {f"real.{i}": one for i, one in enumerate(part.real)}
        return {
            "n_frames_real": sum(map(len, part.real)),
            "vectors_sha256": arrays_digest(arrays),
        }

    def score(self, parts: Sequence[DrawnPart]) -> GroupScore:
        """Return the mean over actors of the mean cosine of their drawn frames.

        Frames are drawn from an actor's clips one after the other, in the order of their paths and
        pictures; a real clip that several items share is there once. Each clip's ``without``, from
        which errors follow, is the same mean over all frames, not drawn, without its item: to draw
        anew would add the draw's own noise, many times over.

        Raises:
            ValueError: no items.
        """
        if not parts:
            raise ValueError("a similarity of no items")
        draw = random.Random(self.seed)  # noqa: S311  (the script's draw)
        values = []
        for speaker in self._in_order(parts):
            output, real = _sides([part for part in parts if part.speaker == speaker])
            drawn_real = self._drawn(np.concatenate(real), draw)  # real first, as the script
            drawn_output = self._drawn(np.concatenate(output), draw)
            values.append(float((drawn_output @ drawn_real.T).mean()))
        value = float(np.mean(values)) if values else math.nan
        if len(parts) == 1:
            return GroupScore(value, np.array([value]), ({"without": None},))
        without = [_expected([p for p in parts if p is not one]) for one in parts]
        kept = tuple({"without": one} for one in without)
        return GroupScore(value, pseudo_values(value, without), kept)

    def values(self, score: float, kept: Sequence[Mapping[str, Any]]) -> list[float]:
        """Return the clips' pseudo-values."""
        if not all("without" in one for one in kept):
            raise NoPartsError("does not say what a clip does to {metric}")
        if len(kept) == 1:
            return [score]
        try:
            return [float(v) for v in pseudo_values(score, [one["without"] for one in kept])]
        except (TypeError, ValueError) as error:
            raise CardError(str(error)) from None

    def note(self, groups: Sequence[Sequence[DrawnPart]], *, same_clips: bool) -> str:
        """Return that the output is the real clip, or that one clip is all an actor has."""
        return "the output is the real clip itself" if same_clips else ""

    def _in_order(self, parts: Iterable[DrawnPart]) -> list[str]:
        there = _speakers(parts)
        listed = [speaker for speaker in self.actors if speaker in there]
        return [*listed, *sorted(there.difference(listed))]

    def _drawn(self, vectors: _Float64, draw: random.Random) -> _Float64:
        if len(vectors) <= self.most:
            return vectors
        rows: _Float64 = vectors[draw.sample(range(len(vectors)), self.most)]
        return rows


def _unit(vectors: npt.NDArray[np.floating], clip: Clip) -> _Float64:
    wide = np.asarray(vectors, np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not lengths.all():
        raise ClipError(f"{clip}: a feature vector of zeros has no cosine")
    return np.asarray(wide / lengths)


def _place(clip: Clip) -> _Place:
    return clip.path.as_posix(), clip.pictures[0] if clip.pictures else 0


def _sides(parts: Sequence[DrawnPart]) -> tuple[list[_Float64], list[_Float64]]:
    """Return the frames of one actor's outputs and of the different real clips, in order."""
    outputs = [part.output for part in sorted(parts, key=lambda part: part.place)]
    real = {
        place: vectors
        for part in parts
        for place, vectors in zip(part.real_places, part.real, strict=True)
    }
    return outputs, [real[place] for place in sorted(real)]


def _speakers(parts: Iterable[DrawnPart]) -> set[str]:
    """Return the speakers that have frames on both sides: others have no similarity."""
    return {part.speaker for part in parts if part.real}


def _expected(parts: Sequence[DrawnPart]) -> float:
    """Return the mean over actors of the cosine of all frames with all: means of unit vectors."""
    values = []
    for speaker in sorted(_speakers(parts)):
        sides = _sides([part for part in parts if part.speaker == speaker])
        output, real = (np.concatenate(side).mean(axis=0) for side in sides)
        values.append(float(output @ real))
    return float(np.mean(values)) if values else math.nan
