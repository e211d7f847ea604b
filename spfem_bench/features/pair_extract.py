"""How coherent clips are with their sources: crops in step, four stages, every position.

Maps live only until their frames have been compared; means of about 30 kB a clip are kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import groupby
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spfem_bench import provenance
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import ArcFaceInput
from spfem_bench.errors import ClipError
from spfem_bench.faces import crop
from spfem_bench.faces.track import FaceTrack
from spfem_bench.features.batches import FRAMES, Batcher
from spfem_bench.features.crops import SIZE, Crops, find_lag, in_step
from spfem_bench.features.extract import Extractor
from spfem_bench.features.pair_content import ContentMaps
from spfem_bench.features.pair_maps import CHUNK, PairMaps
from spfem_bench.features.pair_request import PairRequest
from spfem_bench.features.store import Arrays
from spfem_bench.media.video import Unchanged
from spfem_bench.networks.load import autocast
from spfem_bench.stccl import dense
from spfem_bench.stccl.backbone import backbone
from spfem_bench.stccl.checkpoint import read_form
from spfem_bench.stccl.content import ContentHeads
from spfem_bench.stccl.metric import STCCL, Heads, read_checkpoint
from spfem_bench.stccl.settings import ContentSettings, Form

FORMAT = 1
"""Raised when the same comparison would have to give other arrays than before."""

KEPT = 4
"""Clips whose crops are kept for the next comparison: sources are compared with many outputs."""

CROP = ArcFaceInput(crop="arcface", width=SIZE, mean=127.5, std=127.5)

_Network = tuple[Batcher, Heads | ContentHeads | None]
_Rows = npt.NDArray[np.int64]
_Stages = Mapping[str, Any]
"""Maps of one picture by stage: a tensor each, which stays on its device."""


@dataclass(frozen=True)
class PairExtractor:
    """Compares clips with their sources, by the identity network, and stores the comparisons."""

    extractor: Extractor
    _networks: dict[tuple[str, bool], _Network] = field(
        default_factory=dict, init=False, compare=False
    )
    _crops: dict[Unchanged, Crops] = field(default_factory=dict, init=False, compare=False)

    def key(self, clip: Clip, request: PairRequest) -> dict[str, Any]:
        """Return everything that decides a comparison; the store's key."""
        network: Any = None
        if request.learned:
            record = read_checkpoint(request.learned).record
            network = {"heads": record.sha256, "software": provenance.versions({"torch"})}
            network["backbone"] = record.backbone.model_dump(mode="json")
        x = self.extractor
        settings = {"max_lag": request.max_lag, "learned": network, "precision": x.precision}
        settings |= {"size": SIZE, "window": dense.WINDOW, "format": FORMAT}
        if request.windows:
            # It is no part of what is compared here, and was no setting once.
            how = _content_settings(request.learned).model_dump(mode="json", exclude={"identity"})
            settings["content"] = {**how, "windows": request.windows}
        clips = {"generated": x.key(clip, "identity"), "source": x.key(request.other, "identity")}
        return {"coherence": settings, **clips}

    def load(self, clip: Clip, request: PairRequest) -> Arrays | None:
        """Return a stored comparison, or None."""
        return self.extractor.store.get(self.key(clip, request))

    def ensure(
        self, requests: Iterable[tuple[Clip, PairRequest]], *, same_length: bool = False
    ) -> dict[tuple[Clip, PairRequest], ClipError]:
        """Compare and store missing pairs; return the reason for each that cannot be compared.

        With *same_length*, pairs whose lengths differ by more than the largest lag are refused.
        Raises WeightsError for wrong weights, StorageError for a store that cannot be written.
        """
        failures: dict[tuple[Clip, PairRequest], ClipError] = {}
        checked = False
        # One source after the other: its crops serve all of its outputs.
        order = sorted(
            requests, key=lambda r: (r[1].learned, str(r[1].other), str(r[0]), r[1].max_lag)
        )
        # Two clips go through the network once, for regions and for moments.
        for_both = groupby(order, key=lambda r: (r[0], replace(r[1], windows=None)))
        try:
            for (clip, request), group in for_both:
                several = [one for _, one in group]
                try:
                    stored = {one: self.load(clip, one) for one in several}
                    lacking = [one for one, arrays in stored.items() if arrays is None]
                    if lacking:
                        if not checked:
                            self.extractor.store.check_writable()
                            checked = True
                        self._compare(clip, lacking, same_length=same_length)
                    elif same_length and (arrays := stored[several[0]]):
                        _check_lengths(clip, request, *(int(n) for n in arrays["counts"][::2]))
                except ClipError as error:
                    failures |= {(clip, one): error for one in several}
                for _ in several:
                    self.extractor.progress.advance("clips")
            for batcher, _ in self._networks.values():
                batcher.flush()
        finally:  # after an error nothing is left for the next call
            for batcher, _ in self._networks.values():
                batcher.drop()
        return failures

    def crops(self, clip: Clip) -> Crops:
        """Return a clip's face crops, edited if the clip is; raise ClipError where that fails."""
        unchanged = Unchanged.since(clip)
        crops = self._crops.pop(unchanged, None)
        if crops is None:
            while len(self._crops) >= KEPT:
                self._crops.pop(next(iter(self._crops)))
            crops = self._read(clip)
            unchanged.check()
        self._crops[unchanged] = crops  # the last used comes last
        return crops

    def _read(self, clip: Clip) -> Crops:
        x, track = self.extractor, FaceTrack()
        pictures, frames = [], []
        for index, (picture, face) in enumerate(x.tracked_frames(clip, track)):
            x.progress.advance("decode")
            if face is not None or x.faces == "aligned":
                pictures.append(crop.arcface(picture, face, CROP))
                frames.append(index)
        interpolated = 0
        if x.faces == "detect":
            track.check(clip, x.profile.follow())
            interpolated = sum(f is not None for f in track.faces) - sum(track.detected)
        return Crops(np.stack(pictures), np.array(frames, np.int64), len(track.faces), interpolated)

    def _compare(self, clip: Clip, requests: list[PairRequest], *, same_length: bool) -> None:
        request = requests[0]  # they differ in what is compared
        # In this order: hashed and read are the same bytes if the state is the same at the end.
        pair = [Unchanged.since(clip), Unchanged.since(request.other)]
        keys = [self.key(clip, one) for one in requests]
        generated, source = self.crops(clip), self.crops(request.other)
        for unchanged in pair:
            unchanged.check()
        if same_length:
            _check_lengths(clip, request, generated.n_frames, source.n_frames)
        alignment = find_lag(source, generated, request.max_lag)
        rows = in_step(source, generated, alignment.lag)
        if not len(rows):
            problem = f"{clip} and {request.other} have no frame with a face in common"
            raise ClipError(problem, "Give an output that is as long as its source")
        counts = [generated.n_frames, generated.n_interpolated, source.n_frames]
        described: Arrays = {"rows": rows, "frames": generated.frames[rows[:, 0]]}
        described["lag"] = np.array(alignment.lag, np.int64)
        described["curve"] = alignment.curve.astype(np.float32)
        described["counts"] = np.array(counts, np.int64)

        every = [self._maps(one) for one in requests]

        def done() -> None:
            for key, maps in zip(keys, every, strict=True):
                self.extractor.store.put(key, {**described, **maps.arrays()})

        batcher, _ = self._network(request)
        same = keys[0]["generated"] == keys[0]["source"]
        _Pair(every, done).send(batcher, source, generated, rows, same=same)

    def _maps(self, request: PairRequest) -> PairMaps | ContentMaps:
        heads: Any = self._network(request)[1]
        if request.windows is None:
            return PairMaps(heads)
        return ContentMaps(_content_settings(request.learned), *request.windows, heads)

    def _network(self, request: PairRequest) -> _Network:
        """Return the network of a learnt metric, else the profile's; it is loaded first."""
        learned = request.learned
        of = learned, bool(learned and request.windows)
        if of not in self._networks:
            x, heads = self.extractor, None
            if learned:
                form: Form = "ct" if request.windows else "vd"
                metric = STCCL.load(learned, form=form, weights=x.weights, device=x.device)
                stages, heads = metric.backbone, metric.heads
            else:
                card = x.profile.network("identity")
                stages = backbone(card.name, x.weights, device=x.device)

            def run(pictures: npt.NDArray[np.generic]) -> _Stages:
                batch = torch.from_numpy(pictures).to(x.device).permute(0, 3, 1, 2)
                with torch.inference_mode(), autocast(x.device, x.precision):
                    maps = stages.stages(batch / 127.5 - 1)
                return {str(stage): m.float() for stage, m in enumerate(maps)}

            report = partial(x.progress.advance, "networks")
            batcher = Batcher(run, x.batch_size or FRAMES, self._runner, report)
            self._networks[of] = batcher, heads
        return self._networks[of]

    @cached_property
    def _runner(self) -> Executor:
        return ThreadPoolExecutor(1, "stages")


def _content_settings(learned: str) -> ContentSettings:
    settings: Any = ContentSettings()
    if learned:
        settings = read_form(learned, "ct").record.forms["ct"]
    return cast("ContentSettings", settings)


def _check_lengths(clip: Clip, request: PairRequest, generated: int, source: int) -> None:
    if abs(generated - source) > request.max_lag:
        problem = f"{clip} has {generated} frames, {request.other} has {source}"
        missing = f"{request.max_lag} frames may be missing (--max-lag)"
        raise ClipError(problem, f"Give an output as long as its source; {missing}")


@dataclass
class _Pair:
    """Two clips on their way through the network."""

    maps: Sequence[PairMaps | ContentMaps]
    done: Callable[[], None]
    rows: int = 0
    begins: frozenset[int] = frozenset()  # rows with no frame right before them
    source: list[list[Tensor]] = field(default_factory=list)
    generated: list[list[Tensor]] = field(default_factory=list)
    taken: int = 0
    first: bool = True

    def send(
        self, batcher: Batcher, source: Crops, generated: Crops, rows: _Rows, *, same: bool
    ) -> None:
        """Send the pictures of all rows; once, where both clips are one."""
        frames = np.stack([generated.frames[rows[:, 0]], source.frames[rows[:, 1]]], axis=1)
        breaks = np.flatnonzero((np.diff(frames, axis=0) != 1).any(axis=1)) + 1
        self.rows, self.begins = len(rows), frozenset(breaks.tolist())
        take = self._take_both if same else self._take_generated
        for of_generated, of_source in rows.tolist():
            if not same:
                batcher.add(source.pictures[of_source], self._take_source)
            batcher.add(generated.pictures[of_generated], take)

    def _take_source(self, stages: _Stages) -> None:
        self.source.append(list(stages.values()))

    def _take_both(self, stages: _Stages) -> None:
        self._take_source(stages)
        self._take_generated(stages)

    def _take_generated(self, stages: _Stages) -> None:
        """Take the maps of a generated picture, which come after the source's."""
        self.generated.append(list(stages.values()))
        self.taken += 1
        ended, last = self.taken in self.begins, self.taken == self.rows
        if ended or last or len(self.generated) == CHUNK:
            sides = (self.source, self.generated)
            with torch.inference_mode():
                x, y = ([torch.stack(m) for m in zip(*side, strict=True)] for side in sides)
                for maps in self.maps:
                    maps.add(x, y, first=self.first)
            for side in sides:
                del side[: len(side) - (0 if ended else 1)]
            self.first = ended
        if last:
            self.done()


def stored_stages(arrays: Mapping[str, npt.NDArray[np.generic]]) -> tuple[int, ...]:
    """Return the numbers of a stored comparison's stages."""
    names = (name[3:].removesuffix(".frames") for name in arrays)  # less scc, tcc or sct
    return tuple(sorted({int(name) for name in names if name.isdigit()}))
