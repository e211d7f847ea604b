"""Windows of aligned frames in memory, and the regions of their feature maps on demand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spfem_bench.datasets.pairs import EmotionPair
from spfem_bench.errors import CardError, StcclError, StorageError
from spfem_bench.extras import extra
from spfem_bench.processes import spread
from spfem_bench.progress import SILENT, Progress
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.backbone import Backbone
from spfem_bench.stccl.content import pool_map
from spfem_bench.stccl.settings import ContentSettings, ContrastSettings, FormSettings

AHEAD = 8
"""Pairs drawn by each process before the backbone processes them, at most."""

Chosen = tuple[list[Tensor], list[Tensor]]
"""Centres of each stage, in space and in time."""

_PATCH = tuple(sorted(((0, 0), *rep.STEPS[8])))


class Window(NamedTuple):
    """Consecutive entries of a pair: the pair's number, and its first entry."""

    pair: int
    start: int


class Regions(NamedTuple):
    """The regions of one stage, cut out of the maps: small maps that give the same terms.

    ``maps`` is float32 ``(2, B, T, C, h, w)``, source and generated; ``centres`` ``(N, 2)`` on it,
    or None for all.
    """

    maps: Tensor
    centres: Tensor | None


class StepRegions(NamedTuple):
    """The regions of each stage in one step, in space and in time."""

    spatial: list[Regions]
    temporal: list[Regions]


class StepMoments(NamedTuple):
    """All pooled regions of each stage in one step, float32 ``(2, B, T, R, C)``, for ``ct``."""

    stages: list[Tensor]


Sample = StepRegions | StepMoments

Forms = Mapping[Any, FormSettings | ContentSettings]


def choose_windows(pairs: Sequence[EmotionPair], frames: int, count: int) -> list[Window]:
    """Return up to *count* windows of each pair, evenly over it, in which no frame follows itself.

    Raises:
        CardError: no pair has one.
    """
    windows = []
    for number, pair in enumerate(pairs):
        starts = pair.windows(frames, moving=True)
        chosen = np.unique(((np.arange(count) + 0.5) * len(starts) / count).astype(np.int64))
        windows += [Window(number, int(starts[k])) for k in chosen] if len(starts) else []
    if not windows:
        raise CardError(
            f"no pair has {frames} consecutive entries in which both recordings go on",
            "Give longer recordings, or fewer 'frames' in a window",
        )
    return windows


def window_pictures(
    pair: EmotionPair, starts: Sequence[int], frames: int, size: int, every: int = 1
) -> npt.NDArray[np.uint8]:
    """Return windows of one pair: uint8 (windows, 2, T, 3, size, size), *every* so many frames."""
    times = range(0, frames, every)
    drawn = np.empty((len(starts), 2, len(times), 3, size, size), np.uint8)
    entries = sorted({start + t for start in starts for t in times})
    pictures = {entry: pair.pictures(entry, size) for entry in entries}
    for (k, start), side, (at, t) in product(enumerate(starts), (0, 1), enumerate(times)):
        drawn[k, side, at] = pictures[start + t][side].transpose(2, 0, 1)
    return drawn


def _draw(job: tuple[EmotionPair, list[int], int, int, int]) -> npt.NDArray[np.uint8]:
    return window_pictures(*job)


class Windows:
    """Windows of *frames* entries in memory, whose regions can be cut out at any step.

    The cache is ``maps`` or ``pictures`` (see :class:`spfem_bench.training.config.TrainConfig`).
    With *moments*, the settings of ``ct``, only its moments and pooled regions are kept.
    *workers* processes draw frames; their number changes no result.

    Raises:
        ClipError: a frame is absent, unreadable or shows no face.
        StorageError: the cache is larger than the memory that is free.
        StcclError: features that half precision cannot hold.
    """

    def __init__(
        self,
        pairs: Sequence[EmotionPair],
        windows: Sequence[Window],
        frames: int,
        backbone: Backbone,
        *,
        cache: str = "maps",
        moments: ContentSettings | None = None,
        workers: int = 1,
        progress: Progress = SILENT,
        phase: str = "draw",
    ) -> None:
        every = moments.every if moments else 1
        self.backbone, self.frames, self._moments = backbone, frames, moments
        self.sizes = map_sizes(backbone, moments)
        self._device = next(backbone.parameters()).device
        self.pictures: Tensor | None = None
        self.rows: list[Tensor] = []
        shape = (len(windows), 2, len(range(0, frames, every)))
        if cache == "pictures":
            whole = (*shape, 3, backbone.size, backbone.size)
            check_memory(int(np.prod(whole)), cache)
            self.pictures = torch.empty(whole, dtype=torch.uint8)
        else:
            stages = zip(self.sizes, backbone.channels, strict=True)
            shapes = [(*shape, h * w, c) for (h, w), c in stages]
            check_memory(2 * sum(int(np.prod(s)) for s in shapes), cache)
            self.rows = [torch.empty(s, dtype=torch.float16) for s in shapes]
        starts: dict[int, list[int]] = {}
        for window in windows:
            starts.setdefault(window.pair, []).append(window.start)
        self.windows = [Window(pair, start) for pair, own in starts.items() for start in own]
        self.emotions = [pairs[window.pair].emotion for window in self.windows]
        jobs = [(pairs[k], own, frames, backbone.size, every) for k, own in starts.items()]
        # Recordings of real clips may hold a detector, which cannot be sent to other processes.
        if not all(pairs[k].neutral.world for k in starts):
            workers = 1
        at = 0
        progress.begin(phase, len(jobs), "pair")
        with spread(_draw, jobs, workers, ahead=AHEAD * workers) as pieces:
            for drawn in pieces:
                self._keep(at, torch.from_numpy(drawn))
                at += len(drawn)
                progress.advance(phase)
        progress.end(phase)

    def __len__(self) -> int:
        return len(self.windows)

    def _keep(self, at: int, drawn: Tensor) -> None:
        place = slice(at, at + len(drawn))
        if self.pictures is not None:
            self.pictures[place] = drawn
            return
        for kept, rows in zip(self.rows, self._stage_rows(drawn), strict=True):
            kept[place] = rows
            if not torch.isfinite(kept[place]).all():
                raise StcclError(
                    "the backbone's features are too large for half precision, or not finite",
                    "Set cache = 'pictures', or look for wrong weights",
                )

    @torch.no_grad()
    def _stage_rows(self, drawn: Tensor) -> list[Tensor]:
        """Return maps as rows ``(B, 2, T, h w, C)`` of pictures ``(B, 2, T, 3, H, W)``."""
        scaled = drawn.to(self._device).flatten(0, 2).float() / 127.5 - 1
        maps = self.backbone.stages(scaled)
        if self._moments:
            maps = [pool_map(m, self._moments.grid) for m in maps]
        return [torch.unflatten(rep.feature_rows(m), 0, drawn.shape[:3]) for m in maps]

    def _pooled(self, chosen: Tensor) -> list[Tensor]:
        """Return all regions of windows, float32 ``(2, B, T, R, C)`` of each stage."""
        if self.pictures is not None:
            rows = self._stage_rows(self.pictures[chosen])
        else:
            rows = [kept[chosen].to(self._device).float() for kept in self.rows]
        return [stage.transpose(0, 1) for stage in rows]

    def sample(
        self, chosen: Tensor, forms: Forms, centres: Mapping[str, Chosen]
    ) -> dict[str, Sample]:
        """Return the regions of the windows *chosen*, int64 ``(B,)``, for each form."""
        computed = None
        if self.pictures is not None:
            computed = self._stage_rows(self.pictures[chosen])

        def cut(stage: int, where: Tensor, patches: bool) -> Regions:
            width = self.sizes[stage][1]
            places = where[:, None] + torch.tensor(_PATCH if patches else ((0, 0),))
            flat = (places[..., 0] * width + places[..., 1]).flatten()
            if computed is None:
                # Only what is needed leaves the cache: (B, K, 2, T, C).
                rows = self.rows[stage][chosen[:, None], :, :, flat].permute(2, 0, 3, 1, 4)
                rows = rows.to(self._device).float()
            else:
                rows = computed[stage].index_select(3, flat.to(self._device)).transpose(0, 1)
            rows = torch.unflatten(rows.movedim(-1, -2), -1, places.shape[:2])
            if not patches:
                return Regions(rows.movedim(-1, -2), None)
            # Patches of 3 x 3 side by side: (N, 3, 3) to 3 rows and 3 N columns.
            side = torch.unflatten(rows, -1, (3, 3)).movedim(-3, -2).flatten(-2)
            middles = torch.stack([torch.ones(len(where)), 3 * torch.arange(len(where)) + 1], 1)
            return Regions(side, middles.long().to(self._device))

        samples: dict[str, Sample] = {}
        for form, settings in forms.items():
            if isinstance(settings, ContentSettings):
                samples[form] = StepMoments(self._pooled(chosen))
                continue
            patched = needs_neighbours(settings.contrast)
            spatial, temporal = (
                [cut(stage, where, patches) for stage, where in enumerate(stages)]
                for stages, patches in zip(centres[form], patched, strict=True)
            )
            samples[form] = StepRegions(spatial, temporal)
        return samples


def needs_neighbours(settings: ContrastSettings) -> tuple[bool, bool]:
    """Return whether regions are compared with their neighbours, in space and in time."""
    spatial = settings.form == "vd"
    by_regions = settings.temporal_negatives == "regions" and settings.definition == "paper"
    return spatial, spatial and by_regions


@torch.no_grad()
def map_sizes(backbone: Backbone, moments: ContentSettings | None = None) -> list[tuple[int, int]]:
    """Return height and width of a backbone's maps, for *moments* after pooling."""
    device = next(backbone.parameters()).device
    maps = backbone.stages(torch.zeros(1, 3, backbone.size, backbone.size, device=device))
    if moments:
        maps = [pool_map(m, moments.grid) for m in maps]
    return [(m.shape[-2], m.shape[-1]) for m in maps]


def check_memory(needed: int, cache: str) -> None:
    """Raise StorageError for a cache that needs more bytes than the memory that is free."""
    with extra("train", "training"):
        import psutil

    free = psutil.virtual_memory().available
    if needed > 0.8 * free:
        raise StorageError(
            f"a cache of {cache} needs {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free",
            "Set cache = 'pictures', or fewer windows or speakers, in the configuration",
        )
