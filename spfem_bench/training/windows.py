"""Windows of aligned frames in memory, and the regions of their feature maps on demand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spfem_bench.datasets.pairs import Pair, Puppet
from spfem_bench.errors import CardError, StcclError, StorageError
from spfem_bench.extras import extra
from spfem_bench.processes import spread
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.backbone import Backbone
from spfem_bench.stccl.contrast import ContrastSettings
from spfem_bench.stccl.metric import FormSettings

AHEAD = 8
"""Pairs drawn by each process before the backbone sees them, at most."""

Done = Callable[[], None]

Chosen = tuple[list[Tensor], list[Tensor]]
"""Centres of each stage, in space and in time."""

_PATCH = tuple(sorted(((0, 0), *rep.STEPS[8])))


class Window(NamedTuple):
    """Consecutive entries of a pair.

    Attributes:
        pair: its number.
        start: its first entry.
    """

    pair: int
    start: int


class Regions(NamedTuple):
    """The regions of one stage that a step compares, cut out of the maps.

    Attributes:
        maps: float32 ``(2, B, T, C, h, w)``, source and generated: a small map, on which the
            terms are what they are on the whole one.
        centres: ``(N, 2)`` on that map, or None for all of it.
    """

    maps: Tensor
    centres: Tensor | None


class Sample(NamedTuple):
    """What one form of the metric sees in one step: each stage in space and in time."""

    spatial: list[Regions]
    temporal: list[Regions]


def choose_windows(pairs: Sequence[Pair], frames: int, count: int) -> list[Window]:
    """Return windows of all pairs, *count* of each (or all there are), evenly over it.

    Only windows in which no frame follows itself: time must pass between any two entries.

    Raises:
        CardError: no pair has one.
    """
    found = []
    for number, pair in enumerate(pairs):
        starts = pair.windows(frames, moving=True)
        chosen = np.unique(((np.arange(count) + 0.5) * len(starts) / count).astype(np.int64))
        found += [Window(number, int(starts[k])) for k in chosen] if len(starts) else []
    if not found:
        raise CardError(
            f"no pair has {frames} consecutive entries in which both recordings go on",
            "Give longer recordings, or fewer 'frames' in a window",
        )
    return found


def pictures(pair: Pair, starts: Sequence[int], frames: int, size: int) -> npt.NDArray[np.uint8]:
    """Return windows of one pair: uint8 (windows, 2, frames, 3, size, size)."""
    drawn = np.empty((len(starts), 2, frames, 3, size, size), np.uint8)
    known: dict[int, tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]] = {}
    for k, start in enumerate(starts):
        for t in range(frames):
            if start + t not in known:
                known[start + t] = pair.pictures(start + t, size)
            for side in (0, 1):
                drawn[k, side, t] = known[start + t][side].transpose(2, 0, 1)
    return drawn


def _pictures(job: tuple[Pair, list[int], int, int]) -> npt.NDArray[np.uint8]:
    return pictures(*job)


class Windows:
    """Windows whose regions can be drawn at any step.

    Args:
        pairs: where frames come from.
        windows: which; grouped by pair.
        frames: entries in a window.
        eyes: the backbone, on the device where it is to run.
        cache: ``maps`` or ``pictures`` (see :class:`spfem_bench.training.config.TrainConfig`).
        workers: processes that draw puppets; their number changes nothing.
        done: called after each pair.

    Attributes:
        sizes: height and width of the stages' maps.

    Raises:
        ClipError: a frame is absent, unreadable or shows no face.
        StorageError: the cache is larger than the memory that is free.
        StcclError: features that half precision cannot hold.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        windows: Sequence[Window],
        frames: int,
        eyes: Backbone,
        *,
        cache: str = "maps",
        workers: int = 1,
        done: Done = lambda: None,
    ) -> None:
        self.eyes, self.frames, self.windows = eyes, frames, list(windows)
        self.sizes = map_sizes(eyes)
        self.whole: Tensor | None = None
        self.rows: list[Tensor] = []
        shape = (len(windows), 2, frames)
        stages = [(*shape, h * w, c) for (h, w), c in zip(self.sizes, eyes.channels, strict=True)]
        needed = 2 * sum(int(np.prod(s)) for s in stages)
        if cache == "pictures":
            needed = int(np.prod(shape)) * 3 * eyes.size**2
        check_memory(needed, cache)
        if cache == "pictures":
            self.whole = torch.empty((*shape, 3, eyes.size, eyes.size), dtype=torch.uint8)
        else:
            self.rows = [torch.empty(s, dtype=torch.float16) for s in stages]
        starts: dict[int, list[int]] = {}
        for window in self.windows:
            starts.setdefault(window.pair, []).append(window.start)
        self.windows = [Window(pair, start) for pair, found in starts.items() for start in found]
        jobs = [(pairs[k], found, frames, eyes.size) for k, found in starts.items()]
        # Others than puppets may hold a detector, which does not travel between processes.
        drawable = all(isinstance(pairs[k].neutral, Puppet) for k in starts)
        at = 0
        workers = workers if drawable else 1
        with spread(_pictures, jobs, workers, ahead=AHEAD * workers) as pieces:
            for drawn in pieces:
                self._keep(at, torch.from_numpy(drawn))
                at += len(drawn)
                done()

    def __len__(self) -> int:
        return len(self.windows)

    def _keep(self, at: int, drawn: Tensor) -> None:
        if self.whole is not None:
            self.whole[at : at + len(drawn)] = drawn
            return
        for kept, rows in zip(self.rows, self._seen(drawn), strict=True):
            kept[at : at + len(drawn)] = rows
            if not torch.isfinite(kept[at : at + len(drawn)]).all():
                raise StcclError(
                    "the backbone's features are too large for half precision, or not finite",
                    "Set cache = 'pictures', or look for wrong weights",
                )

    @torch.no_grad()
    def _seen(self, drawn: Tensor) -> list[Tensor]:
        """Return maps as rows ``(B, 2, T, h w, C)`` of pictures ``(B, 2, T, 3, H, W)``."""
        device = next(self.eyes.parameters()).device
        scaled = drawn.to(device).flatten(0, 2).float() / 127.5 - 1
        found = self.eyes.stages(scaled)
        return [torch.unflatten(rep.region_rows(m), 0, drawn.shape[:3]) for m in found]

    def sample(
        self, chosen: Tensor, forms: dict[str, FormSettings], centres: dict[str, Chosen]
    ) -> dict[str, Sample]:
        """Return the regions of some windows, for each form.

        Args:
            chosen: int64 ``(B,)``, numbers of windows.
            forms: how each compares.
            centres: of each form, for each stage in space and in time.
        """
        seen = self._seen(self.whole[chosen]) if self.whole is not None else None
        device = next(self.eyes.parameters()).device

        def cut(stage: int, where: Tensor, patches: bool) -> Regions:
            width = self.sizes[stage][1]
            places = where[:, None] + torch.tensor(_PATCH if patches else ((0, 0),))
            flat = (places[..., 0] * width + places[..., 1]).flatten()
            if seen is None:
                # Only what is needed leaves the cache: (B, K, 2, T, C).
                rows = self.rows[stage][chosen[:, None], :, :, flat].permute(2, 0, 3, 1, 4)
                rows = rows.to(device).float()
            else:
                rows = seen[stage].index_select(3, flat.to(device)).transpose(0, 1)
            rows = torch.unflatten(rows.movedim(-1, -2), -1, places.shape[:2])
            if not patches:
                return Regions(rows.movedim(-1, -2), None)
            # Patches of 3 x 3 beside each other: (N, 3, 3) to rows of 3 and columns of 3 N.
            side = torch.unflatten(rows, -1, (3, 3)).movedim(-3, -2).flatten(-2)
            middles = torch.stack([torch.ones(len(where)), 3 * torch.arange(len(where)) + 1], 1)
            return Regions(side, middles.long().to(device))

        samples = {}
        for form, settings in forms.items():
            patches = needs_neighbours(settings.contrast)
            spatial, temporal = centres[form]
            samples[form] = Sample(
                [cut(k, where, patches[0]) for k, where in enumerate(spatial)],
                [cut(k, where, patches[1]) for k, where in enumerate(temporal)],
            )
        return samples


def needs_neighbours(settings: ContrastSettings) -> tuple[bool, bool]:
    """Say whether regions are compared with those beside them, in space and in time."""
    beside = settings.form == "vd"
    in_time = settings.temporal_negatives == "regions" and settings.definition == "paper"
    return beside, beside and in_time


@torch.no_grad()
def map_sizes(eyes: Backbone) -> list[tuple[int, int]]:
    """Return height and width of a backbone's maps."""
    device = next(eyes.parameters()).device
    found = eyes.stages(torch.zeros(1, 3, eyes.size, eyes.size, device=device))
    return [(m.shape[-2], m.shape[-1]) for m in found]


def check_memory(needed: int, cache: str) -> None:
    """Refuse a cache that memory cannot hold.

    Raises:
        StorageError: says how much is needed and how much is free.
    """
    with extra("train", "training"):
        import psutil

    free = psutil.virtual_memory().available
    if needed > 0.8 * free:
        raise StorageError(
            f"a cache of {cache} needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free",
            "Set cache = 'pictures', or fewer windows or speakers, in the configuration",
        )
