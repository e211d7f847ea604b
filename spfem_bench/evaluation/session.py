"""Plans carried out: their features first, then their scores."""

from __future__ import annotations

import functools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path

from spfem_bench import hashes, provenance
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.computing import Computing
from spfem_bench.definitions.layouts import LayoutCard
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import Protocol
from spfem_bench.errors import CardError
from spfem_bench.evaluation.controls import controls
from spfem_bench.evaluation.measure import plan_requests
from spfem_bench.evaluation.outputs import Videos
from spfem_bench.evaluation.plan import Plan, make_plan
from spfem_bench.evaluation.record import RunRecord
from spfem_bench.evaluation.score import score_plan
from spfem_bench.evaluation.signature import network_of
from spfem_bench.evaluation.validate import Validation
from spfem_bench.execution.processes import ThisProcess, kept_networks
from spfem_bench.execution.workers import Workers
from spfem_bench.features.extract import Extractor
from spfem_bench.features.requests import Failures, without_failed
from spfem_bench.features.software import feature_libraries
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import ffmpeg
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import SILENT, Progress
from spfem_bench.statistics.base import kind_of


def package_conflicts(plans: Iterable[Plan | Validation]) -> list[str]:
    """Return a line for each module that plans use and that two installed packages provide."""
    used: set[str] = set()
    for plan in plans:
        detects = plan.protocol.card.faces == "detect"
        detector = plan.profile.network("detector") if detects and plan.metrics else None
        for metric in plan.metrics:
            used |= feature_libraries(network_of(metric, plan.profile), detector)
            used |= kind_of(metric).libraries()
    return provenance.rival_packages(used)


def make_extractor(
    plan: Plan | Validation,
    weights: WeightsStore,
    computing: Computing,
    *,
    store: FeatureStore | None = None,
    progress: Progress = SILENT,
) -> Extractor:
    """Return an extractor for a plan's clips; without a *store*, features are in the user's.

    Raises ClipError when there is no such hardware decoder here, and CardError for a precision that
    does not exist, or not on this device.
    """
    if computing.hwaccel:
        ffmpeg.check_hardware(computing.hwaccel)
    return Extractor(
        plan.profile,
        weights,
        store or FeatureStore.locate(),
        faces=plan.protocol.card.faces,
        batch_size=computing.batch_size,
        device=computing.device,
        precision=computing.precision,
        hwaccel=computing.hwaccel,
        progress=progress,
    )


def videos_by_method(
    texts: Sequence[str],
    methods: Sequence[str],
    frame_rate: float | None,
    layout: LayoutCard | None,
) -> dict[str, Videos]:
    """Return folders of outputs by method, from texts ``NAME=DIR``, or ``DIR`` for a single method.

    Raises CardError when a folder's method is not clear, is not evaluated, or has two folders.
    """
    videos: dict[str, Videos] = {}
    for text in texts:
        name, _, folder = text.partition("=")
        if not folder or Path(text).exists():
            name, folder = methods[0], text
            if len(methods) > 1:
                raise CardError(
                    f"--videos {text}: whose? With several methods type --videos NAME={text}"
                )
        if name not in methods:
            raise CardError(f"--videos {text}: there is no --method {name}")
        if name == "controls":
            raise CardError(f"--videos {text}: controls have none; add --method NAME for it")
        if name in videos:
            raise CardError(f"--videos is given twice for {name}")
        videos[name] = Videos(Path(folder), frame_rate, layout)
    return videos


def make_plans(
    methods: Sequence[str],
    protocols: Sequence[Protocol],
    profile: str | None,
    *,
    data: DataFolders,
    weights: WeightsStore,
    metrics: Sequence[str] = (),
    videos: Mapping[str, Videos],
    workers: Workers,
    progress: Progress = SILENT,
) -> list[Plan]:
    """Return the plans of methods on protocols, protocol by protocol.

    The method ``controls`` stands for all controls that a protocol has. Without a *profile*, a
    protocol's own is used; without *metrics*, all of the protocol's. Raises UnknownNameError for no
    such method, profile or metric.
    """
    chosen: list[tuple[Protocol, str]] = []
    for protocol in protocols:
        own = [c.name for c in controls(protocol)] if "controls" in methods else []
        names = [own if method == "controls" else [method] for method in methods]
        chosen += [(protocol, name) for name in dict.fromkeys(chain.from_iterable(names))]
    if len(chosen) > 1:
        workers.begin()
    plan = functools.partial(
        make_plan, data=data, weights=weights, metrics=metrics, progress=progress
    )
    profiles = [profile_card(profile or protocol.card.profile) for protocol, _ in chosen]
    return [
        plan(method, protocol, networks, videos=videos.get(method))
        for (protocol, method), networks in zip(chosen, profiles, strict=True)
    ]


@dataclass(frozen=True)
class _Job:
    """A plan to score. ``known_hashes`` are of its files, where another process scores it."""

    plan: Plan
    extractor: Extractor
    failures: Failures
    known_hashes: hashes.Hashes | None
    partial: bool
    started: datetime
    features_s: float


def carry_out(
    plans: Sequence[Plan],
    weights: WeightsStore,
    computing: Computing,
    *,
    workers: Workers,
    partial: bool,
    store: FeatureStore | None = None,
    progress: Progress = SILENT,
) -> Iterator[RunRecord]:
    """Carry out plans and yield their run records, in order.

    Where workers spread jobs over processes, one of them verifies and scores a plan's features
    while those of the next plans are computed in the others. With *partial*, headline scores are
    given even when items are missing, marked so. Without a *store*, features are in the user's.

    Raises:
        StorageError: features cannot be stored; a later run goes on from there.
        ClipError: there is no such hardware decoder here.
        SpfemBenchError: a worker was killed.
    """
    spread = workers.spreads_jobs and len(plans) > 1

    def job(plan: Plan) -> _Job:
        extractor = make_extractor(plan, weights, computing, store=store, progress=progress)
        return _with_features(plan, extractor, workers, partial=partial, spread=spread)

    jobs = map(job, plans)
    if not spread:
        return map(_score, jobs)
    return workers.each(_score, jobs, store=(store or FeatureStore.locate()).folder)


def evaluate(plan: Plan, extractor: Extractor, *, workers: Workers, partial: bool) -> RunRecord:
    """Carry out one plan with an extractor, and return its run record; see `carry_out`."""
    return _score(_with_features(plan, extractor, workers, partial=partial, spread=False))


def _with_features(
    plan: Plan, extractor: Extractor, workers: Workers, *, partial: bool, spread: bool
) -> _Job:
    started, clock = datetime.now(timezone.utc), time.perf_counter()
    failures = workers.compute(extractor, plan_requests(plan), whole=not spread)
    known = None
    if spread:
        clips = [c for item in plan.items for c in (*item.clips.values(), *item.more_real)]
        known = hashes.hashes_known({path for clip in clips for path in (clip.path, clip.audio)})
    extractor = replace(extractor, progress=SILENT)
    features_s = time.perf_counter() - clock
    return _Job(plan, extractor, failures, known, partial, started, features_s)


def _score(job: _Job) -> RunRecord:
    """Return a plan's run record; in another process, damaged features are computed again."""
    clock, extractor, failures = time.perf_counter(), job.extractor, job.failures
    if job.known_hashes is not None:
        hashes.trust(job.known_hashes)
        extractor = kept_networks.keep(extractor)
        requests = without_failed(plan_requests(job.plan), failures)
        failures = failures | ThisProcess().compute(extractor, requests)
    features_s = job.features_s + time.perf_counter() - clock
    return score_plan(job.plan, extractor, failures, job.partial, job.started, features_s)
