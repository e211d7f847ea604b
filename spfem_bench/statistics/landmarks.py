"""Landmarks of clips as metrics take them: which frames are usable, and which show one moment.

A landmark network places its points in any picture. Frames in which they cannot be right are left
out and counted, and a clip with too few others is refused: it must not pass for a still mouth.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import pydantic

from spfem_bench.definitions.cards import Strict
from spfem_bench.definitions.metrics import MetricCard
from spfem_bench.errors import ClipError
from spfem_bench.faces import landmarks
from spfem_bench.features.crops import best_lag
from spfem_bench.features.features import Features
from spfem_bench.statistics.base import Curves, MetricKind, PartType

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]

Part = Literal["opening", "width", "roundness", "pose"]

CURVES: dict[Part, Callable[[_Floats], _Floats]] = {
    "opening": landmarks.opening,
    "width": landmarks.width,
    "roundness": landmarks.roundness,
    "pose": landmarks.pose,
}
"""From points (N, K, 2) to what is followed over time: (N,), or (N, D) for several at once."""

_DRAWN: dict[Part, tuple[str, ...]] = {
    "opening": ("Opening of the lips, in eye distances",),
    "width": ("Width of the mouth, in eye distances",),
    "roundness": ("Opening of the lips by their width",),
    "pose": ("Turn, in eye distances", "Nod, in eye distances", "Tilt, in radians"),
}


class UsableFrames(Strict):
    """Which frames count, and how many a clip needs."""

    # a frame counts with its landmarks inside the picture, the nose's tip at most so far beside its
    # root (eye distances; a profile has more), and grey varying around the mouth at least so much
    # as around the eyes (less: something uniform covers it)
    turn: float = pydantic.Field(default=0.4, gt=0)
    contrast: float = pydantic.Field(default=0.2, ge=0)
    # a clip needs so many frames that count, and such a share of those with a face
    frames: int = pydantic.Field(default=25, ge=2)
    share: float = pydantic.Field(default=0.5, gt=0, le=1)


@dataclass(frozen=True)
class ClipLandmarks:
    """Landmarks of a clip's usable frames.

    Attributes:
        points: float64 (N, K, 2), in pixels of the frame.
        frames: int64 (N,), increasing.
        height: of a frame, in pixels.
        n_outside: frames left out since landmarks lie beyond the picture; *n_turned* since the head
            is turned away; *n_covered* since the mouth is covered.
    """

    points: _Floats
    frames: _Ints
    height: float
    n_outside: int = 0
    n_turned: int = 0
    n_covered: int = 0

    def curve(self, part: Part) -> _Floats:
        """Return what a part of the face does in each usable frame: (N,) or (N, D)."""
        return CURVES[part](self.points)


def clip_landmarks(features: Features, rule: UsableFrames, clip: object) -> ClipLandmarks:
    """Return the landmarks of a clip's usable frames, from its stored features.

    Raises:
        ClipError: too few of its frames are usable; says why.
    """
    flat = np.asarray(features.outputs["points"], np.float64)
    points = flat.reshape(len(flat), -1, 2)
    size = np.asarray(features.outputs["frame"], np.float64)
    try:
        turned = np.abs(landmarks.pose(points)[:, 0]) > rule.turn
    except ValueError as error:
        raise ClipError(f"{clip}: {error}", "Take another network for landmarks") from error
    outside = ((points < -0.5) | (points > size[:, None] - 0.5)).any(axis=(1, 2))
    mouth, eyes = np.asarray(features.outputs["contrast"], np.float64).T
    covered = mouth < rule.contrast * eyes
    reasons = (outside, turned & ~outside, covered & ~turned & ~outside)
    counts = [int(reason.sum()) for reason in reasons]
    usable = ~np.logical_or.reduce(reasons)
    if usable.sum() < max(rule.frames, rule.share * len(flat)):
        words = ("landmarks beyond the picture", "a head turned away", "a covered mouth")
        why = ", ".join(f"{n} with {word}" for n, word in zip(counts, words, strict=True) if n)
        raise ClipError(
            f"{clip}: landmarks are usable in {usable.sum()} of {features.n_frames} frames"
            f" ({len(flat)} with a face{', ' if why else ''}{why})",
            f"{rule.frames} and {rule.share:.0%} of those with a face are needed: give a clip of "
            "the whole face, look with 'spfem-bench faces CLIP'",
        )
    height = float(size[0, 1])
    return ClipLandmarks(points[usable], features.frames[usable], height, *counts)


@dataclass(frozen=True)
class InStep:
    """Usable frames of an output and its source that show the same moments.

    Frame t of the output goes with frame ``t + lag`` of the source; *motion* is the correlation of
    their landmarks' motion at that lag, NaN where nothing moves.
    """

    output: ClipLandmarks
    source: ClipLandmarks
    lag: int
    motion: float

    @property
    def n_frames(self) -> int:
        """Frames that are compared."""
        return len(self.output.frames)


def landmarks_in_step(
    output: ClipLandmarks, source: ClipLandmarks, max_lag: int, rule: UsableFrames, clip: object
) -> InStep:
    """Return the frames of both clips that show one moment, at the lag of the best motion.

    As ``correlate`` finds lags, with the landmarks' motion in the place of the pixels': the head's
    and the mouth's together, so that a metric's own curve does not choose its lag.

    Raises:
        ClipError: too few frames in common, or networks with other landmarks.
    """
    if output.points.shape[1] != source.points.shape[1]:
        raise ClipError(f"{clip}: its landmarks are not those of the other clip")
    moved = [_motion(one) for one in (source, output)]
    lag, curve = best_lag(*moved[0], *moved[1], max_lag)
    return _at_lag(output, source, lag, float(curve[lag + max_lag]), rule, clip)


def _at_lag(
    output: ClipLandmarks,
    source: ClipLandmarks,
    lag: int,
    motion: float,
    rule: UsableFrames,
    clip: object,
) -> InStep:
    """Return the frames of both clips that show one moment at a lag; raise ClipError for few."""
    _, in_output, in_source = np.intersect1d(
        output.frames + lag, source.frames, return_indices=True
    )
    if len(in_output) < rule.frames:
        raise ClipError(
            f"{clip}: {len(in_output)} usable frames in common with the other clip",
            f"{rule.frames} are needed: give an output that is as long as its source",
        )
    rows = (_rows(output, in_output), _rows(source, in_source))
    return InStep(*rows, lag, motion)


def curves_in_step(
    output: Features,
    source: Features,
    part: Part = "opening",
    *,
    max_lag: int = 6,
    rule: UsableFrames | None = None,
    clip: object = "the output",
) -> Curves:
    """Return what a part of the face does in both clips, from their stored landmark features.

    Raises:
        ClipError: too few of their frames are usable, or show the same moments.
    """
    rule = rule or UsableFrames()
    ours, theirs = (clip_landmarks(one, rule, clip) for one in (output, source))
    pair = landmarks_in_step(ours, theirs, max_lag, rule, clip)
    return Curves(pair.output.frames, pair.output.curve(part), pair.source.curve(part), pair.lag)


def _rows(clip: ClipLandmarks, rows: npt.NDArray[np.intp]) -> ClipLandmarks:
    counts = (clip.n_outside, clip.n_turned, clip.n_covered)
    return ClipLandmarks(clip.points[rows], clip.frames[rows], clip.height, *counts)


def _motion(clip: ClipLandmarks) -> tuple[_Floats, _Ints]:
    """Return the change of all landmarks between adjacent frames, (N, 2 K), and the first frames.

    In mean eye distances, so that clips of different sizes are alike.
    """
    follows = np.flatnonzero(np.diff(clip.frames) == 1)
    moved = clip.points[follows + 1] - clip.points[follows]
    size = landmarks.eye_distance(clip.points).mean()
    return moved.reshape(len(follows), -1) / size, clip.frames[follows]


def pearson(a: _Floats, b: _Floats) -> float:
    """Return Pearson's r of two curves (N,); 0 where one of them is constant."""
    x, y = a - a.mean(), b - b.mean()
    power = float((x * x).sum()) * float((y * y).sum())
    return float((x * y).sum()) / power**0.5 if power > 0 else 0.0


class LandmarksKind(MetricKind[PartType]):
    """What kinds on landmarks share.

    Attributes:
        usable: which frames count.
    """

    usable: UsableFrames = UsableFrames()

    def check(self, card: MetricCard) -> None:
        """Refuse other clips, or another output than landmarks."""
        super().check(card)
        if (card.role, card.output) != ("landmarks", "points"):
            raise ValueError(f"'{self.kind}' takes the output 'points' of a landmark network")


class PairedLandmarksKind(LandmarksKind[PartType]):
    """What kinds share that compare an output with its source, frame by frame.

    Attributes:
        max_lag: frames by which an output may be out of step with its source.
    """

    n_clips: ClassVar[int] = 2

    max_lag: int = pydantic.Field(default=6, ge=0, le=25)

    def pair(self, card: MetricCard, clip: object, features: Any) -> InStep:
        """Return the frames of an item's two clips that show one moment; raise ClipError."""
        output, other = (
            clip_landmarks(features[role][0], self.usable, f"{clip} ({role})")
            for role in card.compare
        )
        return landmarks_in_step(output, other, self.max_lag, self.usable, clip)

    def drawn(
        self, part_of_face: Part, lag: int, n_frames: int, output: Features, other: Features
    ) -> dict[str, Curves]:
        """Return a part of the face over time at a recorded lag, by names to print.

        Raises:
            ClipError: *n_frames* were compared, and these features have other frames.
        """
        ours, theirs = (clip_landmarks(one, self.usable, "the clip") for one in (output, other))
        pair = _at_lag(ours, theirs, lag, float("nan"), self.usable, "the output")
        if pair.n_frames != n_frames:
            raise ClipError("the stored landmarks are not those of the run", "Run it again")
        y, x = (
            np.asarray(one.curve(part_of_face)).reshape(n_frames, -1)
            for one in (pair.output, pair.source)
        )
        return {
            name: Curves(pair.output.frames, y[:, i], x[:, i], lag)
            for i, name in enumerate(_DRAWN[part_of_face])
        }


def moving(source: _Floats, least: float, clip: object, word: str) -> float:
    """Return a curve's standard deviation; raise ClipError where it is below *least*."""
    spread = float(source.std())
    if spread < least:
        raise ClipError(
            f"{clip}: the {word} of the other clip hardly changes (standard deviation "
            f"{spread:.4f}, {least:g} is needed)",
            "There is nothing to be preserved: take a clip of speech",
        )
    return spread


def lags_note(lags: Sequence[int]) -> str:
    """Return the lags of clips in words; empty where all are in step."""
    if not any(lags):
        return ""
    low, high = min(lags), max(lags)
    middle = sorted(lags)[len(lags) // 2]
    several = f"lags from {low:+d} to {high:+d} frames, in the middle {middle:+d}"
    return f"lag {low:+d} frames" if low == high else several
