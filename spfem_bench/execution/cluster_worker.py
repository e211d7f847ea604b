"""The side of a Ray worker: one process with one set of networks, on some node of the cluster."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spfem_bench.caches import cache_folder
from spfem_bench.errors import ClipError, SpfemBenchError
from spfem_bench.progress import Progress

if TYPE_CHECKING:
    from spfem_bench.execution.common import KeptNetworks
    from spfem_bench.features.extract import Extractor
    from spfem_bench.features.requests import Failures, RequestKey, RequestKeys
    from spfem_bench.features.store import Arrays

VARIABLES = ("SPFEM_BENCH_CARDS", "SPFEM_BENCH_WEIGHTS", "SPFEM_BENCH_DATA", "SPFEM_BENCH_PLUGINS")
"""Environment variables that workers take from the driver."""


@dataclass(frozen=True)
class WorkerNode:
    """Where a worker runs, its `node_versions`, and why it cannot work there."""

    name: str
    versions: Mapping[str, str]
    problem: SpfemBenchError | None


@dataclass(frozen=True)
class WorkerTask:
    """What is the same for all portions of one computation.

    Attributes:
        token: a file in the extractor's store; a worker that finds it writes there.
        cache: the driver's folder for weights and features.
    """

    extractor: Extractor
    token: str
    cache: str


@dataclass(frozen=True)
class WorkerResult:
    """The result of one portion.

    Features are in the driver's store where that is ``shared``, else ``sent``. ``counts`` are parts
    done by phase of progress. With a ``problem``, the computation cannot go on at all.
    """

    failures: Failures = field(default_factory=dict)
    shared: bool = True
    sent: Sequence[tuple[RequestKey, Arrays]] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    problem: SpfemBenchError | None = None


@dataclass(frozen=True)
class WorkerScore:
    """The result of one job, or why there is none."""

    outcome: Any = None
    shared: bool = True
    problem: SpfemBenchError | None = None


def node_versions() -> dict[str, str]:
    """Return what must be equal on all nodes, or features would differ or not be found."""
    from spfem_bench import provenance
    from spfem_bench.features.software import EVERY
    from spfem_bench.media import ffmpeg

    return {
        **provenance.versions(EVERY),
        "spfem-bench's code": provenance.code_digest("**/*.py")[:12],
        "ffmpeg": ffmpeg.version(),
    }


class _Counting(Progress):
    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def advance(self, phase: str, parts: int = 1, **figures: float) -> None:
        self.counts[phase] += parts


class RayWorker:
    """A Ray actor; its methods import torch, after the variables that libraries read are set."""

    def __init__(self, threads: int, folder: str, variables: Mapping[str, str]) -> None:
        for name in VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(variables)
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        with suppress(OSError):  # clips with relative paths are reported as missing then
            os.chdir(folder)
        self.threads, self.cache = threads, str(cache_folder())
        self.progress = _Counting()
        self.networks: KeptNetworks | None = None

    def describe(self, device: str) -> WorkerNode:
        """Return this worker's node, its versions, and whether it has the device."""
        import torch

        from spfem_bench.execution.common import check_device

        torch.set_num_threads(self.threads)
        problem = None
        try:
            check_device(device)
        except SpfemBenchError as error:
            problem = error
        return WorkerNode(socket.gethostname(), node_versions(), problem)

    def compute(self, task: WorkerTask, keys: RequestKeys) -> WorkerResult:
        """Compute requested features into the driver's store, or this node's."""
        try:
            return self._compute(task, keys)
        except SpfemBenchError as error:
            return WorkerResult(problem=error)

    def score(self, work: Callable[[Any], Any], job: Any, token: str, cache: str) -> WorkerScore:
        """Return what *work* makes of a job; ``shared`` is False on a node without its store.

        *token* is a file in the store.
        """
        if not Path(token).is_file():
            return WorkerScore(shared=False)
        os.environ["SPFEM_BENCH_CACHE"] = cache
        try:
            return WorkerScore(work(job))
        except SpfemBenchError as error:
            return WorkerScore(problem=error)

    def _compute(self, task: WorkerTask, keys: RequestKeys) -> WorkerResult:
        from spfem_bench.execution.common import KeptNetworks
        from spfem_bench.features.requests import request_key
        from spfem_bench.features.store import FeatureStore

        extractor = task.extractor
        shared = (extractor.store.folder / task.token).is_file()
        # A node that shares the driver's store shares its weights, too.
        os.environ["SPFEM_BENCH_CACHE"] = task.cache if shared else self.cache
        if not shared:
            extractor = replace(extractor, store=FeatureStore.locate())
            extractor.store.check_writable()
        self.networks = self.networks or KeptNetworks()
        extractor = self.networks.keep(replace(extractor, progress=self.progress))
        wanted = {(clip, one): key for clip, some in keys.items() for one, key in some.items()}
        for (clip, request), key in wanted.items():
            if request_key(extractor, clip, request) != key:  # the driver would not find it
                raise ClipError(
                    f"{clip} or what it is compared with has other content than where the "
                    "evaluation was started",
                    "Copy it there again",
                )
        self.progress.counts.clear()
        requests = {clip: frozenset(by_request) for clip, by_request in keys.items()}
        failures = self.networks.ensure(extractor, requests)
        sent: list[tuple[RequestKey, Arrays]] = []
        if not shared:
            stored = [key for one, key in wanted.items() if one not in failures]
            sent = [(k, arrays) for k in stored if (arrays := extractor.store.get(k)) is not None]
        return WorkerResult(failures, shared, sent, dict(self.progress.counts))
