"""Who computes features and scores plans: this process, several, or workers on a Ray cluster."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from spfem_bench import hashes
from spfem_bench.definitions.clips import Clip
from spfem_bench.evaluation.plan import Plan
from spfem_bench.evaluation.run import evaluate, wanted_features
from spfem_bench.features.extract import Extractor, Progress
from spfem_bench.features.requests import (
    Failures,
    PairRequest,
    Request,
    ensure,
    missing,
    pair_extractor,
)
from spfem_bench.processes import Pool

if TYPE_CHECKING:
    from spfem_bench.execution.cluster import RayWorkers
    from spfem_bench.features.pair_extract import PairExtractor

Workers: TypeAlias = "Processes | RayWorkers"

Anything = TypeVar("Anything")


@contextmanager
def at_work(ray: str | None, workers: int | None, device: str) -> Iterator[Workers]:
    """Give what computes features: processes, or workers on Ray.

    They begin when there is something to compute, and end with the block.

    Args:
        ray: ``local`` to start Ray here for the time of the block, ``auto`` or ``HOST:PORT`` for a
            cluster that runs; no Ray when None.
        workers: processes; one, this one, when None. On Ray, one for each GPU with a *device* of
            cuda, else for each processor.
        device: where networks run.

    Raises:
        SpfemBenchError: no Ray here, no cluster there, or an address of another kind.
    """
    if ray is None:
        team: Workers = Processes(workers or 1)
    else:
        from spfem_bench.execution.cluster import RayWorkers

        team = RayWorkers(ray, workers, device)
    try:
        if not isinstance(team, Processes) and ray != "local":
            team.connect()  # found now, not after an hour of looking at clips
        yield team
    finally:
        team.end()


def portions(wants: Mapping[Clip, Anything], workers: int) -> list[dict[Clip, Anything]]:
    """Cut what is wanted of clips into parts for workers, in order.

    A few clips at a time: enough to share batches, few enough to spread evenly, and to do again
    where a worker dies.
    """
    clips = list(wants)
    size = max(1, min(8, len(clips) // (2 * workers)))
    return [{c: wants[c] for c in clips[i : i + size]} for i in range(0, len(clips), size)]


class Networks:
    """A worker's networks, kept from one piece of work to the next while the same are asked for."""

    def __init__(self) -> None:
        self._extractor: Extractor | None = None
        self._scorer: PairExtractor | None = None

    def of(self, extractor: Extractor) -> Extractor:
        """Return the extractor that is kept, where it equals the one given, else that one."""
        if extractor != self._extractor:
            self._extractor, self._scorer = extractor, None
        return self._extractor or extractor

    def ensure(self, extractor: Extractor, wants: Mapping[Clip, frozenset[Request]]) -> Failures:
        """Fill the store with what is wanted; see :func:`~spfem_bench.features.requests.ensure`."""
        kept = self.of(extractor)
        if self._scorer is None and any(
            isinstance(w, PairRequest) for a in wants.values() for w in a
        ):
            self._scorer = pair_extractor(kept)
        return ensure(kept, wants, self._scorer)


# ---- processes of this machine -------------------------------------------------------------


class Processes:
    """Processes of this machine, with their networks kept from one evaluation to the next.

    Args:
        count: with one, all is done in this process, and none is started.
    """

    def __init__(self, count: int = 1) -> None:
        self.count = count
        self._pool: Pool | None = None

    def begin(self) -> None:
        """Start them now, while this one makes plans; else they start with the first work."""
        if self.count > 1:
            self._started().start()

    def end(self) -> None:
        """End them; what is not stored is lost."""
        if self._pool is not None:
            self._pool.end()
        self._pool = None

    def _started(self) -> Pool:
        if self._pool is None:
            self._pool = Pool(self.count, partial(_begin, self.count))
        return self._pool

    def each(self, work: Callable[[Any], Anything], jobs: Iterable[Any]) -> Iterator[Anything]:
        """Yield the results of all jobs in order, from processes that begin when first needed."""
        return self._started().in_order(work, jobs, ahead=2 * self.count)

    def compute(
        self, extractor: Extractor, wants: Mapping[Clip, frozenset[Request]], *, whole: bool = True
    ) -> Failures:
        """Fill the extractor's store with all wanted features.

        Args:
            extractor: told how it goes on.
            wants: of which clips.
            whole: whether what is stored is read and verified, and computed again where it is
                damaged; else who scores it does so.

        Returns:
            Why each clip and role, or clip beside another, that cannot be had failed.

        Raises:
            SpfemBenchError: one of several processes was killed.
        """
        if self.count == 1:
            return ensure(extractor, wants)
        lacking, failures = missing(extractor, wants, whole=whole)
        if lacking:
            extractor.store.check_writable()
        extractor.progress.finished(len(wants) - len(lacking))
        asked = {clip: frozenset(keys) for clip, keys in lacking.items()}
        if len(asked) == 1:
            return failures | ensure(extractor, asked)
        parts = portions(asked, self.count)
        jobs = ((replace(extractor, progress=SILENT), part) for part in parts)
        for part, failed in zip(parts, self.each(_compute, jobs) if parts else (), strict=True):
            failures |= failed
            extractor.progress.finished(len(part))
        return failures


SILENT = Progress()
"""One for all that is sent, so that equal extractors are known as such."""

_networks = Networks()


def _begin(count: int) -> None:
    share = max(1, (os.cpu_count() or 1) // count)
    os.environ["OMP_NUM_THREADS"] = str(share)  # torch reads it when it is needed
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(share)


def _compute(job: tuple[Extractor, Mapping[Clip, frozenset[Request]]]) -> Failures:
    extractor, wants = job
    return _networks.ensure(replace(extractor, progress=SILENT), wants)


# ---- several plans -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """A plan whose features are in the store, as far as they can be had."""

    plan: Plan
    extractor: Extractor
    failures: Failures
    hashes: hashes.Hashes
    partial: bool
    started: datetime
    seconds: float


def evaluate_all(
    plans: Sequence[Plan], sees: Callable[[Plan], Extractor], workers: Workers, *, partial: bool
) -> Iterator[dict[str, Any]]:
    """Carry out plans and yield their run records, in order.

    With several processes one reads a plan's features from the store, verifies and scores them,
    while the next plans' are looked for, and computed in the others.

    Args:
        plans: from :func:`~spfem_bench.evaluation.plan.make_plan`.
        sees: gives what sees a plan's clips, when it is its turn; its progress is closed when the
            features are there.
        workers: change no score.
        partial: give headline scores even when items are missing, marked so.

    Raises:
        StorageError: features cannot be stored; a later run goes on from there.
        SpfemBenchError: one of several processes was killed.
    """
    if isinstance(workers, Processes) and workers.count > 1 and len(plans) > 1:
        yield from workers.each(_evaluate, _prepared(plans, sees, workers, partial=partial))
        return
    for plan in plans:
        extractor = sees(plan)
        try:
            record = evaluate(plan, extractor, workers=workers, partial=partial)
        finally:
            extractor.progress.close()
        yield record


def _prepared(
    plans: Sequence[Plan], sees: Callable[[Plan], Extractor], workers: Processes, *, partial: bool
) -> Iterator[_Job]:
    for plan in plans:
        extractor = sees(plan)
        started, clock = datetime.now(timezone.utc), time.perf_counter()
        try:
            failures = workers.compute(extractor, wanted_features(plan), whole=False)
        finally:
            extractor.progress.close()
        clips = (c for item in plan.items for c in (*item.clips.values(), *item.more_real))
        files = {path for clip in clips for path in (clip.path, clip.audio)}
        yield _Job(
            plan,
            replace(extractor, progress=SILENT),
            failures,
            hashes.hashes_known(files),
            partial,
            started,
            time.perf_counter() - clock,
        )


def _evaluate(job: _Job) -> dict[str, Any]:
    hashes.trust(job.hashes)
    extractor = _networks.of(replace(job.extractor, progress=SILENT))
    record = evaluate(
        job.plan, extractor, workers=Processes(), partial=job.partial, failures=job.failures
    )
    timings = record["timings"]
    timings["started"] = job.started.isoformat(timespec="seconds")
    timings["features_s"] = round(timings["features_s"] + job.seconds, 3)
    return record
