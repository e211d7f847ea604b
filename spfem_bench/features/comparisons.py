"""How coherent a clip is with its source: crops in step, four stages, every position.

Clips are read once and kept as face crops (37 kB a frame); frames of many clips share the
batches of the network; maps live only until their frames have been compared. What is kept,
about 30 kB a clip, is the mean over time for each region and the mean over regions for each
frame, from which scores, tables and heat-maps are made without a network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spfem_bench import provenance
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import ArcFaceInput
from spfem_bench.errors import ClipError, StcclError
from spfem_bench.faces import crop, exact
from spfem_bench.faces.track import FaceTrack
from spfem_bench.features.batches import FRAMES
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import Arrays
from spfem_bench.media.video import Unchanged
from spfem_bench.networks.load import Precision, autocast
from spfem_bench.stccl import dense
from spfem_bench.stccl.backbone import Backbone, backbone
from spfem_bench.stccl.contrast import Head
from spfem_bench.stccl.metric import STCCL, Heads, read_checkpoint

SIZE = 112
"""Side in pixels of the crops that are kept."""

FORMAT = 1
"""Raised when the same comparison would have to give other arrays than before."""

CHUNK = 8 * (dense.WINDOW - 1) + 1
"""Frames compared at once: whole windows, each chunk beginning with the last frame of the other."""

KEPT = 4
"""Clips whose crops are kept for the next comparison: sources are compared with many outputs."""

MOTION = 28
"""Side in pixels of the small grey pictures in which motion is compared."""

Frames = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]

_INPUT = ArcFaceInput(crop="arcface", width=SIZE, mean=127.5, std=127.5)


@dataclass(frozen=True)
class Beside:
    """The clip that another is compared with, and how.

    Attributes:
        other: the source.
        max_lag: frames by which the two may be out of step.
        learned: a learnt metric whose backbone and heads are used; the extractor's identity
            network and no heads when empty.
    """

    other: Clip
    max_lag: int = 6
    learned: str = ""


class Crops(NamedTuple):
    """A clip's face crops.

    Attributes:
        pictures: uint8 (N, 112, 112, 3), RGB.
        frames: int64 (N,), which frame each shows, increasing.
        n_frames: frames of the clip, with or without a face.
        n_interpolated: frames whose face was not seen but interpolated.
    """

    pictures: Frames
    frames: npt.NDArray[np.int64]
    n_frames: int
    n_interpolated: int = 0


# ---- in step ------------------------------------------------------------------------------


class Step(NamedTuple):
    """How two clips are in step.

    Attributes:
        lag: frame t of the generated clip goes with frame ``t + lag`` of the source.
        curve: float64 (2 max_lag + 1,), correlation of motion at each lag from -max_lag on;
            NaN where the two have no motion in common.
    """

    lag: int
    curve: Floats


def find_lag(source: Crops, generated: Crops, max_lag: int) -> Step:
    """Find by how many frames a clip runs behind its source, from pixels alone.

    Published strips are not frame-synchronous: outputs of NED run two frames ahead of their
    source, those of STCCL-CM three behind. Motion, the difference of adjacent frames in small
    grey pictures, is correlated at each lag; identity, light and labels cancel out.

    Args:
        source: the source's crops.
        generated: the output's.
        max_lag: lags from minus to plus this are tried; 0 takes frames as they are.

    Returns:
        The lag with the highest correlation; of equals, the one nearest to 0.
    """
    moved_x, at_x = _motion(source)
    moved_y, at_y = _motion(generated)
    lags = range(-max_lag, max_lag + 1)
    curve = np.full(len(lags), np.nan)
    for i, lag in enumerate(lags):
        _, in_x, in_y = np.intersect1d(at_x, at_y + lag, return_indices=True)
        u, v = moved_x[in_x], moved_y[in_y]
        energy = float((u * u).sum()) * float((v * v).sum())
        if energy > 0:
            curve[i] = float((u * v).sum()) / np.sqrt(energy)
    if np.isnan(curve).all():
        return Step(0, curve)
    # Rounded: what differs by less does not differ.
    best = [lag for lag, v in zip(lags, curve, strict=True) if v >= np.nanmax(curve) - 1e-9]
    return Step(min(best, key=abs), curve)


def _motion(crops: Crops) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return the change between adjacent frames, (N, 28 * 28), and the first of each two."""
    if len(crops.pictures) < 2:
        return np.zeros((0, MOTION * MOTION)), np.zeros(0, np.int64)
    small = np.stack([exact.shrink(exact.grey(p), MOTION) for p in crops.pictures])
    grey = small.astype(np.float64)
    follows = np.flatnonzero(np.diff(crops.frames) == 1)
    moved = (grey[follows + 1] - grey[follows]).reshape(len(follows), -1)
    return moved, crops.frames[follows]


def in_step(source: Crops, generated: Crops, lag: int) -> npt.NDArray[np.int64]:
    """Return rows of both clips that show the same moment: int64 (N, 2), generated first.

    Rows count crops, not frames of the clip: frames without a face have none.
    """
    _, of_source, of_generated = np.intersect1d(
        source.frames, generated.frames + lag, return_indices=True
    )
    return np.stack([of_generated, of_source], axis=1).astype(np.int64)


# ---- comparison of maps, chunk by chunk -----------------------------------------------------


@dataclass
class _Sums:
    """Sums of one stage in space or in time."""

    positive: Any = 0.0
    size: Any = 0.0
    rows: list[Tensor] = field(default_factory=list)

    def add(self, found: dense.Coherence) -> None:
        self.positive = self.positive + found.positive.double().sum(0)
        self.size = self.size + found.size.double().sum(0)
        self.rows.append(
            torch.stack([found.positive.mean((1, 2)), found.elsewhere, found.near], dim=1)
        )

    def arrays(self, name: str) -> Arrays:
        if not self.rows:
            return {}
        rows = torch.cat(self.rows)
        return {
            f"{name}.positive": (self.positive / len(rows)).float().cpu().numpy(),
            f"{name}.size": (self.size / len(rows)).float().cpu().numpy(),
            f"{name}.frames": rows.float().cpu().numpy(),
        }


@dataclass
class Comparison:
    """Compares two clips' maps as they come, in bounded memory.

    Args:
        heads: mappings of a learnt metric.
    """

    heads: Heads | None = None
    _spatial: dict[int, _Sums] = field(default_factory=dict)
    _temporal: dict[int, _Sums] = field(default_factory=dict)

    def add(self, source: Sequence[Tensor], generated: Sequence[Tensor], *, first: bool) -> None:
        """Add consecutive frames.

        Args:
            source: maps of each stage, ``(T, C, H, W)``.
            generated: of the same shapes.
            first: whether frame 0 is new; else it is the last of what was added before.

        Raises:
            StcclError: shapes differ, or a value is not finite.
        """
        for stage, (x, y) in enumerate(zip(source, generated, strict=True), start=1):
            new = 0 if first else 1
            if len(x) > new:
                head = self.head("spatial", stage)
                self._spatial.setdefault(stage, _Sums()).add(dense.spatial(x[new:], y[new:], head))
            if len(x) > 1:
                head = self.head("temporal", stage)
                self._temporal.setdefault(stage, _Sums()).add(dense.temporal(x, y, head))

    def head(self, space: str, stage: int) -> Head | None:
        """Return the mapping of a stage, if there is one."""
        return None if self.heads is None else getattr(self.heads, space)[stage - 1]

    def arrays(self) -> Arrays:
        """Return what was found, by name.

        For each stage S from 1 and each of ``scc`` and ``tcc``: ``sccS.positive`` and
        ``sccS.size``, float32 (h, w), means over time (see `dense.Coherence`);
        ``sccS.frames``, float32 (N, 3), for each frame (``tcc``: for each two adjacent
        frames) the mean over regions of positive, elsewhere and near.
        """
        found: Arrays = {}
        for name, stages in (("scc", self._spatial), ("tcc", self._temporal)):
            for stage, sums in stages.items():
                found |= sums.arrays(f"{name}{stage}")
        return found


def compare(
    source: Tensor, generated: Tensor, network: Backbone, heads: Heads | None = None
) -> Arrays:
    """Compare two sequences of pictures, frame t with frame t.

    Args:
        source: floating point (T, 3, H, W), RGB, -1 to 1.
        generated: of the same shape.
        network: whose stages are compared.
        heads: mappings of a learnt metric.

    Returns:
        As `Comparison.arrays`; without ``tcc`` when there is one frame.

    Raises:
        CardError: not floating point, or no pictures.
        StcclError: lengths or sizes differ, or a pixel is not finite.
    """
    if source.shape != generated.shape:
        raise StcclError(
            f"source {tuple(source.shape)} and generated {tuple(generated.shape)} differ in shape",
            "Give the same frames of both, at one size",
        )
    comparison = Comparison(heads)
    with torch.inference_mode():
        for begin in range(0, max(1, len(source) - 1), CHUNK - 1):
            part = slice(begin, begin + CHUNK)
            comparison.add(
                network.stages(source[part]), network.stages(generated[part]), first=begin == 0
            )
    return comparison.arrays()


# ---- many clips ---------------------------------------------------------------------------


Taker = Callable[[list[Tensor]], None]


@dataclass(frozen=True)
class Scorer:
    """Compares many clips with their sources, and keeps what it finds in the store.

    Attributes:
        extractor: profile (whose identity network is used), store, device, batch size, and
            precision: of the network; everything after it is float32.
    """

    extractor: Extractor

    def key(self, clip: Clip, beside: Beside) -> dict[str, Any]:
        """Return all that a comparison is made of."""
        network: Any = None
        if beside.learned:
            record = read_checkpoint(beside.learned).record
            network = {
                "backbone": record.backbone.model_dump(mode="json"),
                "heads": record.sha256,
                "software": provenance.versions({"torch"}),
            }
        return {
            "coherence": {
                "max_lag": beside.max_lag,
                "learned": network,
                "size": SIZE,
                "window": dense.WINDOW,
                "format": FORMAT,
                "precision": self.extractor.precision,
            },
            "generated": self.extractor.key(clip, "identity"),
            "source": self.extractor.key(beside.other, "identity"),
        }

    def load(self, clip: Clip, beside: Beside) -> Arrays | None:
        """Return a stored comparison, or None."""
        return self.extractor.store.get(self.key(clip, beside))

    def ensure(
        self, wants: Iterable[tuple[Clip, Beside]], *, same_length: bool = False
    ) -> dict[tuple[Clip, Beside], ClipError]:
        """Compare and store all wanted pairs that are not in the store yet.

        Args:
            wants: clips, each beside its source.
            same_length: refuse pairs whose lengths differ by more than the largest lag.

        Returns:
            The reason for each pair that cannot be had.

        Raises:
            WeightsError: a network's weights are missing or wrong.
            StorageError: the store cannot be written.
        """
        failures: dict[tuple[Clip, Beside], ClipError] = {}
        checked = False
        # One source after the other: its crops serve all of its outputs.
        for clip, beside in sorted(wants, key=lambda w: (w[1].learned, str(w[1].other), str(w[0]))):
            try:
                arrays = self.load(clip, beside)
                if arrays is None:
                    if not checked:
                        self.extractor.store.check_writable()
                        checked = True
                    self._compare(clip, beside, same_length=same_length)
                elif same_length:
                    _check_lengths(clip, beside, *(int(n) for n in arrays["counts"][::2]))
            except ClipError as error:
                failures[clip, beside] = error
            self.extractor.progress.advance("clips")
        for batches in self._batches.values():
            batches.flush()
        return failures

    def crops(self, clip: Clip) -> Crops:
        """Return a clip's face crops, edited if the clip is.

        Raises:
            ClipError: unreadable, or no face that could be followed.
        """
        unchanged = Unchanged.since(clip)
        if unchanged not in self._crops:
            while len(self._crops) >= KEPT:
                self._crops.pop(next(iter(self._crops)))
            crops = self._read(clip)
            unchanged.check()
            self._crops[unchanged] = crops
        self._crops[unchanged] = self._crops.pop(unchanged)  # the last used
        return self._crops[unchanged]

    def _read(self, clip: Clip) -> Crops:
        x, track = self.extractor, FaceTrack()
        pictures, frames = [], []
        pairs = x.tracked_frames(clip, track)
        for index, (picture, face) in enumerate(pairs):
            x.progress.advance("decode")
            if face is not None or x.faces == "aligned":
                pictures.append(crop.arcface(picture, face, _INPUT))
                frames.append(index)
        if x.faces == "detect":
            track.check(clip, x.profile.follow())
        seen = sum(f is not None for f in track.faces)
        return Crops(
            np.stack(pictures),
            np.array(frames, np.int64),
            len(track.faces),
            seen - sum(track.detected) if x.faces == "detect" else 0,
        )

    def _compare(self, clip: Clip, beside: Beside, *, same_length: bool) -> None:
        # In this order: hashed and read are the same bytes if the state is the same at the end.
        pair = [Unchanged.since(clip), Unchanged.since(beside.other)]
        key = self.key(clip, beside)
        generated, source = self.crops(clip), self.crops(beside.other)
        for unchanged in pair:
            unchanged.check()
        if same_length:
            _check_lengths(clip, beside, generated.n_frames, source.n_frames)
        step = find_lag(source, generated, beside.max_lag)
        rows = in_step(source, generated, step.lag)
        if not len(rows):
            raise ClipError(
                f"{clip} and {beside.other} have no frame with a face in common",
                "Give an output that is as long as its source",
            )
        described: Arrays = {
            "rows": rows,
            "lag": np.array(step.lag, np.int64),
            "curve": step.curve.astype(np.float32),
            "frames": generated.frames[rows[:, 0]],
            "counts": np.array(
                [generated.n_frames, generated.n_interpolated, source.n_frames], np.int64
            ),
        }

        def done(found: Arrays) -> None:
            self.extractor.store.put(key, {**described, **found})

        batches = self.batches(beside.learned)
        same = self.extractor.key(clip, "identity") == self.extractor.key(beside.other, "identity")
        _Pair(Comparison(batches.heads), done).send(batches, source, generated, rows, same=same)

    def batches(self, learned: str = "") -> _Batches:
        """Return the batches of a network, which is loaded first."""
        if learned not in self._batches:
            x = self.extractor
            if learned:
                found = STCCL.load(learned, form="vd", weights=x.weights, device=x.device)
                network, heads = found.backbone, found.heads
            else:
                card = x.profile.network("identity")
                network, heads = backbone(card.name, x.weights, device=x.device), None
            self._batches[learned] = _Batches(
                network,
                heads,
                x.batch_size or FRAMES,
                x.device,
                x.precision,
                partial(x.progress.advance, "networks"),
            )
        return self._batches[learned]

    @cached_property
    def _batches(self) -> dict[str, _Batches]:
        return {}

    @cached_property
    def _crops(self) -> dict[Unchanged, Crops]:
        return {}


def _check_lengths(clip: Clip, beside: Beside, generated: int, source: int) -> None:
    if abs(generated - source) > beside.max_lag:
        raise ClipError(
            f"{clip} has {generated} frames, {beside.other} has {source}",
            f"Give an output as long as its source; {beside.max_lag} frames may be missing "
            "(--max-lag)",
        )


@dataclass
class _Batches:
    """Pictures of many clips in batches of one size, so that none depends on its neighbours."""

    network: Backbone
    heads: Heads | None
    size: int
    device: str
    precision: Precision
    embedded: Callable[[int], None]
    _waiting: list[tuple[Frames, Taker]] = field(default_factory=list)

    def add(self, picture: Frames, taker: Taker) -> None:
        """Add a picture; *taker* gets its maps once the batch has run."""
        self._waiting.append((picture, taker))
        if len(self._waiting) == self.size:
            self.flush()

    def flush(self) -> None:
        """Run what is waiting, filled up to the batch size with its last picture."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        pictures = [picture for picture, _ in waiting]
        pictures += pictures[-1:] * (self.size - len(pictures))
        batch = torch.from_numpy(np.stack(pictures)).to(self.device).permute(0, 3, 1, 2)
        with torch.inference_mode(), autocast(self.device, self.precision):
            maps = [m.float() for m in self.network.stages(batch / 127.5 - 1)]
        for i, (_, taker) in enumerate(waiting):
            taker([m[i] for m in maps])
        self.embedded(len(waiting))


@dataclass
class _Pair:
    """Two clips on their way through the network."""

    comparison: Comparison
    done: Callable[[Arrays], None]
    rows: int = 0
    begins: frozenset[int] = frozenset()  # rows with no frame right before them
    maps: tuple[list[list[Tensor]], list[list[Tensor]]] = field(default_factory=lambda: ([], []))
    taken: int = 0
    first: bool = True

    def send(
        self,
        batches: _Batches,
        source: Crops,
        generated: Crops,
        rows: npt.NDArray[np.int64],
        *,
        same: bool,
    ) -> None:
        """Send the pictures of all rows; once, where both clips are one."""
        frames = np.stack([generated.frames[rows[:, 0]], source.frames[rows[:, 1]]], axis=1)
        breaks = np.flatnonzero((np.diff(frames, axis=0) != 1).any(axis=1)) + 1
        self.rows, self.begins = len(rows), frozenset(breaks.tolist())
        take = self._take_both if same else self._take
        for of_generated, of_source in rows.tolist():
            if not same:
                batches.add(source.pictures[of_source], self.maps[0].append)
            batches.add(generated.pictures[of_generated], take)

    def _take_both(self, maps: list[Tensor]) -> None:
        self.maps[0].append(maps)
        self._take(maps)

    def _take(self, maps: list[Tensor]) -> None:
        """Take the maps of a generated picture, which come after the source's."""
        self.maps[1].append(maps)
        self.taken += 1
        ended, last = self.taken in self.begins, self.taken == self.rows
        if ended or last or len(self.maps[1]) == CHUNK:
            with torch.inference_mode():
                x, y = ([torch.stack(m) for m in zip(*side, strict=True)] for side in self.maps)
                self.comparison.add(x, y, first=self.first)
            for side in self.maps:
                del side[: len(side) - (0 if ended else 1)]
            self.first = ended
        if last:
            self.done(self.comparison.arrays())


def described(arrays: Mapping[str, npt.NDArray[np.generic]]) -> tuple[int, list[int]]:
    """Return a comparison's lag and the numbers of its stages."""
    stages = sorted(
        int(name[3:].partition(".")[0])
        for name in arrays
        if name.startswith("scc") and name.endswith(".frames")
    )
    return int(np.asarray(arrays["lag"])), stages
