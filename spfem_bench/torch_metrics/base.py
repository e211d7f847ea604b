"""What all metrics in a training loop share: networks, states, signature."""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.computing import Precision
from spfem_bench.definitions.metrics import ClipRole, metric_card
from spfem_bench.definitions.networks import profile_card
from spfem_bench.errors import CardError, ClipError, SpfemBenchError, WeightsError
from spfem_bench.evaluation.plan import metric_networks
from spfem_bench.evaluation.signature import metric_settings, signature
from spfem_bench.extras import extra
from spfem_bench.features.extract import Faces
from spfem_bench.features.features import Features
from spfem_bench.features.requests import Request, ensure, load_features
from spfem_bench.networks.weights import WeightsStore, remedy
from spfem_bench.statistics.base import MetricKind, kind_of
from spfem_bench.statistics.coherence import SourceKind
from spfem_bench.torch_metrics.tensors import (
    MemoryStore,
    TensorClip,
    TensorExtractor,
    check_files,
    pictures,
    waveform,
)

with extra("torchmetrics", "a metric in a training loop"):
    from torchmetrics import Metric
    from torchmetrics.utilities import dim_zero_cat

ItemRequests = Mapping[ClipRole, Sequence[tuple[Clip, Request]]]


class Given(NamedTuple):
    """A clip as it was given."""

    name: str
    frames: Tensor
    sound: Tensor | None = None


class _Item(NamedTuple):
    clips: Mapping[ClipRole, Clip]
    wanted: ItemRequests


_shared: WeakValueDictionary[str, TensorExtractor] = WeakValueDictionary()
"""Networks and features by settings: metrics with the same ones detect each face once."""


class ClipMetric(Metric):
    """A metric card's score of clips given as tensors; the mean over clips.

    ``compute()`` returns float64 (): what the command line prints for one emotion of the same
    frames; NaN where no clip was scored. Processes join their clips there.

    Args:
        profile: which networks are used; see ``spfem-bench list profiles``.
        metric: the card; another of the same kind may be named. The profile's variant of it.
        faces: ``detect``, or ``aligned`` for face crops; what the profile can when None.
        value_range: what black and white are in floats; uint8 needs none.
        fps: frames a second; at another rate than the profile's, frames are chosen as the
            command line does.
        partial: leave out clips that cannot be scored, count them and mark the signature, instead
            of raising ClipError.
        precision: what networks compute in.
        batch_size: frames in a batch; chosen by device when None.
        weights_dir: searched first for weights.
        kwargs: torchmetrics' own.

    Raises:
        UnknownNameError: no such profile or metric.
        CardError: a metric of another kind, or a profile that cannot compute it.
        SpfemBenchError: a rate, range or batch size that cannot be.
        WeightsError: the networks' weights are not here.

    Attributes:
        note: what a reader of the last value must know; empty for nothing.
        n_clips: scored in the last value; *n_refused* were left out.
    """

    default: ClassVar[str] = ""
    takes: ClassVar[type[MetricKind[Any]]] = MetricKind

    full_state_update = False
    is_differentiable = False

    values: list[Tensor]
    counts: Tensor
    data: Tensor

    def __init__(
        self,
        profile: str,
        *,
        metric: str = "",
        faces: Faces | None = None,
        value_range: tuple[float, float] | None = None,
        fps: float = 25.0,
        partial: bool = False,
        precision: Precision = "float32",
        batch_size: int | None = None,
        weights_dir: str | Path | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self._profile = profile_card(profile)
        self.card = metric_card(self._profile.variant(metric or self.default))
        self._kind = kind_of(self.card)
        if not isinstance(self._kind, self.takes):
            name, kind = type(self).__name__, self._kind.kind
            raise CardError(f"{name} does not compute '{self.card.name}' (kind '{kind}')")
        self._faces: Faces = faces or ("detect" if self._profile.detector else "aligned")
        for wrong, given, advice in (
            (not fps > 0, f"fps={fps}", "Give frames a second, such as 25"),
            (
                value_range and not value_range[0] < value_range[1],
                f"{value_range=}",
                "Give (low, high)",
            ),
            (batch_size is not None and batch_size < 1, f"{batch_size=}", "Give 1 or more"),
        ):
            if wrong:
                raise SpfemBenchError(given, advice)
        self._value_range, self._fps, self._partial = value_range, float(fps), partial
        self._precision, self._batch_size = precision, batch_size
        self._weights = WeightsStore.locate(None if weights_dir is None else Path(weights_dir))
        self._network, *detector = metric_networks(self.card, self._profile, self._faces)
        if self.card.role == "sync":
            check_files(self._network)
        for network in (self._network, *detector):
            if problem := self._weights.check(network).problem:
                raise WeightsError(problem, remedy(network))
        better = {"higher": True, "lower": False}.get(self.card.direction)
        object.__setattr__(self, "higher_is_better", better)  # torchmetrics': of the class alone
        self._calls, self._extractor = 0, self._make_extractor("cpu")
        # Equal states make torchmetrics' collections join two metrics: this one differs.
        own = [self._settings(), self._fps, value_range, partial]
        code = int.from_bytes(hashlib.sha256(json.dumps(own).encode()).digest()[:7], "big")
        self.add_state("settings", torch.tensor(code), dist_reduce_fx="max")
        self.add_state("counts", torch.zeros(2, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("data", torch.tensor(0), dist_reduce_fx="sum")
        self._empty: dict[str, Tensor] = {}
        self._add_lists()
        self._forget()

    def _add_lists(self) -> None:
        self._add_list("values", torch.zeros(0, dtype=torch.float64))

    def _add_list(self, name: str, empty: Tensor) -> None:
        self.add_state(name, [], dist_reduce_fx="cat")
        self._empty[name] = empty

    def _forget(self) -> None:
        self.n_clips, self.n_refused, self.note = 0, 0, ""
        self._data: int | None = None
        self._first = ""  # why the first clip was left out in this process

    def reset(self) -> None:
        """Forget all clips."""
        super().reset()
        self._forget()

    def set_dtype(self, dst_type: str | torch.dtype) -> ClipMetric:
        """Return the metric as it is: scores stay in float64, counts and hashes in int64."""
        return self

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Join the clips of all processes; one of them may have none."""
        for name, empty in self._empty.items():
            if isinstance(getattr(self, name), list) and not getattr(self, name):
                setattr(self, name, [empty.to(self.device)])
        super().sync(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {**state, "_extractor": None}

    # ---- features -------------------------------------------------------------------

    def _make_extractor(self, device: str) -> TensorExtractor:
        """Return the networks for a device, shared by metrics with the same settings."""
        settings = (self._weights.own, self._batch_size, self._precision)
        key = repr((self._profile.name, self._faces, device, *settings))
        made = _shared.get(key)
        if made is None:
            made = _shared[key] = TensorExtractor(
                self._profile,
                self._weights,
                MemoryStore(),
                faces=self._faces,
                batch_size=self._batch_size,
                device=device,
                precision=self._precision,
            )
        return made

    def _measure(self, items: Sequence[Mapping[ClipRole, Given]]) -> None:
        """Take up the clips of items."""
        self._calls += 1
        device = str(self.device)
        if self._extractor is None or self._extractor.device != device:
            self._extractor = self._make_extractor(device)
        x = self._extractor
        try:
            with _undisturbed(device):
                self._take_all(x, [self._item(x, item) for item in items])
        finally:
            x.clips.clear()
            x.memory.trim()

    def _item(self, x: TensorExtractor, given: Mapping[ClipRole, Given]) -> _Item | ClipError:
        """Return an item whose clips the extractor has, or why they cannot be read."""
        clips: dict[ClipRole, Clip] = {}
        fps = None if self._profile.frame_rate == "own" else self._fps
        for role, (name, frames, sound) in given.items():
            clip = clips[role] = Clip(Path(f"update {self._calls}, {name}"))  # a name of its own
            try:
                shown, heard = pictures(frames, str(clip), self._value_range, fps), None
                if sound is not None:
                    heard = waveform(sound, f"{clip}: its sound", len(frames) / self._fps)
            except ClipError as error:
                return error
            x.clips[clip] = TensorClip(shown, heard, self._fps)
        return _Item(clips, self._requests(clips))

    def _requests(self, clips: Mapping[ClipRole, Clip]) -> ItemRequests:
        return self._kind.requests(self.card, {role: (clip,) for role, clip in clips.items()})

    def _take_all(self, x: TensorExtractor, items: Sequence[_Item | ClipError]) -> None:
        requests: dict[Clip, frozenset[Request]] = {}
        for item in items:
            if isinstance(item, ClipError) and not self._partial:
                raise item
            wanted = {} if isinstance(item, ClipError) else item.wanted
            for clip, request in (pair for pairs in wanted.values() for pair in pairs):
                requests[clip] = requests.get(clip, frozenset()) | {request}
        failures = ensure(x, requests, x.pairs if isinstance(self._kind, SourceKind) else None)
        for item in items:
            try:
                if isinstance(item, ClipError):
                    raise item
                features = {
                    role: [load_features(x, clip, request, failures) for clip, request in pairs]
                    for role, pairs in item.wanted.items()
                }
                self._take(x, item.clips, features)
            except ClipError as error:
                if not self._partial:
                    remedies = filter(None, [error.remedy, "or give partial=True to go without"])
                    raise ClipError(error.problem, "; ".join(remedies)) from None
                self.counts[1] += 1
                self._first = self._first or error.problem
                continue
            self.counts[0] += 1
            compared = (x.clips[clip] for role, clip in item.clips.items() if role != "output")
            self.data += sum(int(clip.digest[:14], 16) for clip in compared)

    def _take(
        self,
        x: TensorExtractor,
        clips: Mapping[ClipRole, Clip],
        features: Mapping[ClipRole, list[Features]],
    ) -> None:
        """Take up one item's features; raise ClipError where they cannot be compared."""
        value = self._kind.value(self._kind.part(self.card, clips["output"], features))
        self.values.append(torch.tensor([value], dtype=torch.float64, device=self.device))

    # ---- the score ------------------------------------------------------------------

    def compute(self) -> Tensor:
        """Return the score of all processes' clips, float64 ()."""
        self.n_clips, self.n_refused = (int(n) for n in self.counts)
        self._data = int(self.data) % (1 << 64)
        value, notes = self._score()
        if self.n_refused:
            total = self.n_clips + self.n_refused
            notes.append(f"{self.n_refused} of {total} clips could not be scored")
            first = f"; the first here: {self._first}" if self._first else ""
            warnings.warn(f"{self.card.label}: {notes[-1]}{first}", UserWarning, stacklevel=2)
        self.note = "; ".join(filter(None, notes))
        return torch.tensor(value, dtype=torch.float64, device=self.device)

    def _score(self) -> tuple[float, list[str]]:
        values = self._joined("values")
        return (float(values.mean()) if len(values) else math.nan), []

    def _joined(self, name: str) -> npt.NDArray[Any]:
        state = getattr(self, name)
        joined = self._empty[name] if isinstance(state, list) and not state else dim_zero_cat(state)
        return np.asarray(joined.cpu().numpy())

    def _settings(self) -> dict[str, Any]:
        x = self._extractor or self._make_extractor(str(self.device))
        return metric_settings(self.card, None, x)

    def signature(self) -> str:
        """Return the text that is printed under the last value.

        As the command line's, with ``frames:tensors`` in the place of the protocol. Its hash is
        also of the clips that the generated ones are compared with, in any order.

        Raises:
            SpfemBenchError: ``compute()`` was not called since the last ``reset()``.
        """
        if self._data is None:
            raise SpfemBenchError(f"{self.card.label} has no value yet", "Call compute() first")
        frozen = self._settings()
        if len(self.card.compare) > 1:
            frozen["data"] = f"{self._data:016x}"
        head, _, digest = signature(frozen, self._profile.name, (), 0).rpartition("|")
        total = self.n_clips + self.n_refused
        mark = f"partial:{self.n_clips}of{total}|" if self.n_refused else ""
        return f"{head}|{mark}{digest}"


@contextmanager
def _undisturbed(device: str) -> Iterator[None]:
    """Compute in full float32, and leave a training's settings and random numbers as they are."""
    places: list[Any] = [torch.backends.cuda.matmul, torch.backends.cudnn]
    kept = []
    for place in places:
        try:
            kept.append((place, "allow_tf32", place.allow_tf32))
        except RuntimeError:  # set through PyTorch's newer name
            kept.append((place, "fp32_precision", place.fp32_precision))
        place.allow_tf32 = False
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[]))
            stack.enter_context(torch.autocast(device.partition(":")[0], enabled=False))
            yield
    finally:
        for place, name, value in kept:
            setattr(place, name, value)
