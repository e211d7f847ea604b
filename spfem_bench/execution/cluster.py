"""Workers on a Ray cluster, of one machine or many: the side of the driver.

The driver sends workers a few clips at a time. A worker writes into the driver's store where it
can; elsewhere it sends the arrays back. Clips of a worker that died go to others, one by one,
which ``ray.util.ActorPool`` cannot do: it does not return which job was lost.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from spfem_bench.caches import cache_folder
from spfem_bench.definitions.computing import Computing
from spfem_bench.errors import SpfemBenchError, StorageError
from spfem_bench.execution.cluster_joining import check_listening, import_ray, processor_shares
from spfem_bench.execution.cluster_results import (
    Portion,
    retry_or_refuse,
    store_result,
    with_node,
)
from spfem_bench.execution.cluster_worker import (
    VARIABLES,
    RayWorker,
    WorkerNode,
    WorkerResult,
    WorkerScore,
    WorkerTask,
    node_versions,
)
from spfem_bench.execution.common import feature_phases, portions
from spfem_bench.execution.workers import Workers
from spfem_bench.features.extract import Extractor
from spfem_bench.features.requests import Failures, RequestKeys, Requests, missing
from spfem_bench.features.store import FeatureStore
from spfem_bench.files import marker, temporary_folder
from spfem_bench.machine import processors
from spfem_bench.progress import SILENT

_Job = TypeVar("_Job")
_Outcome = TypeVar("_Outcome")

PATIENCE = 180.0
"""Seconds without any worker at work after which the cluster is given up."""

OBJECT_MEMORY = 100 << 20
"""Bytes of shared memory in a Ray started here: features of a few clips pass through it."""


class RayWorkers(Workers):
    """Workers on Ray. Unless settings limit them, one for each GPU (cuda), else for each processor.

    Raises SpfemBenchError when Ray is not installed, or the address is of another kind.
    """

    spreads_jobs = True

    def __init__(self, computing: Computing) -> None:
        address, device = computing.ray or "local", computing.device
        if address not in ("local", "auto") and not re.fullmatch(r"[\w.-]+:\d{1,5}", address):
            client = "; Ray Client (ray://) is not" if address.startswith("ray://") else ""
            raise SpfemBenchError(
                f"'{address}' is no address of a Ray cluster",
                f"Allowed: local, auto, HOST:PORT (such as node01:6379){client}",
            )
        kind, _, number = device.partition(":")
        if kind == "cuda" and number not in ("", "0"):
            raise SpfemBenchError(
                f"--device {device} names one GPU, but Ray gives each worker its own", "Use cuda"
            )
        self._address, self._wanted, self._device = address, computing.workers, device
        self._gpu = kind == "cuda"
        self._ray = import_ray(address)
        self._count, self._threads = 0, 1
        self._owns_ray = False
        self._resources = ExitStack()  # the folder of a Ray that was started here
        self._idle: list[Any] = []
        self._scoring: dict[Any, Any] = {}  # workers by the reference of their result
        self._apart: set[Any] = set()  # workers that do not reach the store of the jobs
        self._starting: dict[Any, Any] = {}  # workers by the reference of their description
        self._nodes: dict[Any, str] = {}

    def begin(self) -> None:
        """Join a cluster that runs; its processors are taken with the first work."""
        if self._address != "local":
            self.connect()

    def connect(self) -> None:
        """Start Ray or join the cluster, once; with ``auto``, one that this program has joined.

        Raises SpfemBenchError when there is no cluster, or no room in it.
        """
        if self._count:
            return
        if not self._ray.is_initialized():
            self._initialize()
        elif self._address != "auto":
            raise SpfemBenchError(
                "this program has joined a Ray cluster already",
                "Give 'auto' to use that one, or call ray.shutdown() first",
            )
        nodes = self._alive()
        shares = processor_shares(nodes, self._wanted, gpu=self._gpu)
        if shares is None:
            room = processor_shares(nodes, None, gpu=self._gpu)
            raise SpfemBenchError(
                f"the Ray cluster has {sum(c for c, _ in nodes)} processors and "
                f"{sum(g for _, g in nodes)} GPUs: room for {room[0] if room else 0} workers on "
                f"{self._device}" + (f", not {self._wanted}" if self._wanted else ""),
                "Give fewer --workers, or another --device",
            )
        self._count, self._threads = shares

    def _alive(self) -> list[tuple[int, int]]:
        """Return the processors and GPUs of each node."""
        resources = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return [(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in resources]

    def _follow_cluster(self) -> None:
        """Ask for other workers where those that start need a node that is no longer there."""
        shares = processor_shares(self._alive(), self._wanted, gpu=self._gpu)
        if shares is not None and shares != (self._count, self._threads):
            self._count, self._threads = shares
            for worker in self._starting.values():
                self._end_worker(worker)
            self._starting.clear()

    def _initialize(self) -> None:
        settings: dict[str, Any] = {"address": self._address}
        if self._address == "local":
            settings |= {
                "num_cpus": max(processors(), self._wanted or 1),
                "num_gpus": None if self._gpu else 0,
                "include_dashboard": False,
                "object_store_memory": OBJECT_MEMORY,
            }
            # Ray leaves logs and sockets there after its end. A socket's name has 107 bytes at
            # most, so the user's own temporary folder may be too deep.
            if os.name == "posix":
                folder = self._resources.enter_context(temporary_folder(Path("/tmp")))  # noqa: S108
                settings["_temp_dir"] = str(folder)
        elif self._address != "auto":
            check_listening(self._address)
        handler = signal.getsignal(signal.SIGTERM)  # Ray replaces it by its own
        try:
            self._ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, RuntimeError, ValueError) as error:
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            raise SpfemBenchError(
                f"cannot join a Ray cluster ({self._address}): {reason.partition('. ')[0]}",
                "Start one with 'ray start --head', or give --ray local",
            ) from None
        finally:
            if handler is not None and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)
        self._owns_ray = True

    def start_all(self) -> None:
        """Start all workers and wait until they can work; else they start with the work."""
        self.connect()
        self._start_workers(0, self._count)
        for reference in list(self._starting):
            self._accept_worker(reference)

    def end(self) -> None:
        """End all workers, and Ray where it was started or joined for them."""
        for worker in [*self._idle, *self._starting.values(), *self._scoring.values()]:
            self._end_worker(worker)
        for kept in (self._idle, self._starting, self._scoring, self._apart):
            kept.clear()
        if self._owns_ray:
            self._ray.shutdown()
        self._resources.close()
        self._owns_ray, self._count = False, 0

    def _end_worker(self, worker: Any) -> None:
        self._nodes.pop(worker, None)
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(worker)

    def compute(self, extractor: Extractor, requests: Requests, *, whole: bool = True) -> Failures:
        """Compute what is missing; an error names the node, and what is stored is kept."""
        with feature_phases(extractor.progress, len(requests)):
            keys, failures = missing(extractor, requests, whole=whole)
            extractor.progress.advance("clips", len(requests) - len(keys))
            if keys:
                extractor.store.check_writable()
                self.connect()
                with marker(extractor.store.folder) as token:
                    sent, cache = replace(extractor, progress=SILENT), cache_folder().absolute()
                    task = WorkerTask(sent, token.name, str(cache))
                    failures |= self._compute(task, keys, extractor)
            return failures

    def _compute(self, task: WorkerTask, keys: RequestKeys, extractor: Extractor) -> Failures:
        ray = self._ray
        failures: Failures = {}
        queue = deque(Portion(part) for part in portions(keys, self._count))
        busy: dict[Any, tuple[Any, Portion]] = {}
        last_busy = time.monotonic()
        try:
            while queue or busy:
                self._start_workers(len(busy) + len(self._scoring), len(queue))
                while queue and self._idle:
                    worker, portion = self._idle.pop(), queue.popleft()
                    busy[worker.compute.remote(task, portion.keys)] = (worker, portion)
                waiting = [*busy, *self._starting, *self._scoring]
                done, _ = ray.wait(waiting, num_returns=1, timeout=1.0)
                if busy or self._scoring:
                    last_busy = time.monotonic()
                elif time.monotonic() - last_busy > PATIENCE:
                    free, whole = ray.available_resources(), ray.cluster_resources()
                    raise SpfemBenchError(
                        f"no Ray worker could be started within {PATIENCE:.0f} s: a worker takes "
                        f"{self._threads} processors; of {whole.get('CPU', 0):.0f}, "
                        f"{free.get('CPU', 0):.0f} are free now",
                        "Wait for other runs to end, or give more --workers: each takes less then",
                    )
                elif not done:
                    self._follow_cluster()
                for reference in done:
                    if reference in self._scoring:
                        self._idle.append(self._scoring.pop(reference))
                        continue
                    if reference in self._starting:
                        self._accept_worker(reference)
                        continue
                    worker, portion = busy.pop(reference)
                    try:
                        result: WorkerResult = ray.get(reference)
                    except ray.exceptions.RayTaskError:
                        self._end_worker(worker)
                        raise
                    except ray.exceptions.RayError as error:
                        node = self._nodes.get(worker, "a node")
                        self._end_worker(worker)
                        failures |= retry_or_refuse(portion, node, error, queue, extractor)
                        continue
                    self._idle.append(worker)
                    failures |= store_result(result, self._nodes[worker], portion, extractor)
        finally:
            for worker, _ in busy.values():
                self._end_worker(worker)
        return failures

    def each(
        self, work: Callable[[_Job], _Outcome], jobs: Iterable[_Job], *, store: Path | None = None
    ) -> Iterator[_Outcome]:
        """Yield the results of all jobs, in their order: by workers that have nothing to compute.

        This process does those for which no worker is idle that reaches the store.
        """
        running: deque[tuple[_Job, Any, Any]] = deque()
        token: Path | None = None  # by which workers know the store
        try:
            with ExitStack() as stack:
                with suppress(StorageError):  # a store that is only read here
                    token = stack.enter_context(marker(store or FeatureStore.locate().folder))
                for job in jobs:
                    running.append((job, *self._hand_over(work, job, token)))
                    while running and (
                        len(running) > self._count or running[0][1] not in self._scoring
                    ):
                        yield self._outcome(work, *running.popleft())
                while running:
                    yield self._outcome(work, *running.popleft())
        finally:
            for worker in self._scoring.values():
                self._end_worker(worker)
            self._scoring.clear()

    def _hand_over(
        self, work: Callable[[_Job], _Outcome], job: _Job, token: Path | None
    ) -> tuple[Any, Any]:
        """Give a job to an idle worker; return the result's reference and the worker, or Nones."""
        if token is None or not self._count:  # no Ray is started here for scores alone
            return None, None
        self._start_workers(len(self._scoring), self._count)
        known = [*self._starting, *self._scoring]
        ended = self._ray.wait(known, num_returns=len(known), timeout=0)[0] if known else ()
        for reference in ended:
            if reference in self._starting:
                self._accept_worker(reference)
            else:
                self._idle.append(self._scoring.pop(reference))
        worker = next((one for one in self._idle if one not in self._apart), None)
        if worker is None:
            return None, None
        self._idle.remove(worker)
        reference = worker.score.remote(
            work, job, str(token.absolute()), str(cache_folder().absolute())
        )
        self._scoring[reference] = worker
        return reference, worker

    def _outcome(
        self, work: Callable[[_Job], _Outcome], job: _Job, reference: Any, worker: Any
    ) -> _Outcome:
        """Return a job's result; this process does it where no worker could."""
        if reference is None:
            return work(job)
        errors = self._ray.exceptions
        try:
            result: WorkerScore = self._ray.get(reference)
        except errors.RayTaskError:
            raise
        except errors.RayError:  # it died, perhaps with its node
            self._scoring.pop(reference, None)
            self._idle = [one for one in self._idle if one != worker]
            self._end_worker(worker)
            return work(job)
        if self._scoring.pop(reference, None) is not None:
            self._idle.append(worker)
        if result.problem is not None:
            raise with_node(self._nodes.get(worker, "a node"), result.problem)
        if not result.shared:
            self._apart.add(worker)
            return work(job)
        outcome: _Outcome = result.outcome
        return outcome

    def _start_workers(self, busy: int, waiting: int) -> None:
        """Start as many workers as there are places and portions for."""
        actor = self._ray.remote(RayWorker).options(num_cpus=self._threads, num_gpus=int(self._gpu))
        variables = {name: value for name in VARIABLES if (value := os.environ.get(name))}
        needed = min(self._count, busy + waiting)
        for _ in range(needed - busy - len(self._idle) - len(self._starting)):
            worker = actor.remote(self._threads, str(Path.cwd()), variables)
            self._starting[worker.describe.remote(self._device)] = worker

    def _accept_worker(self, reference: Any) -> None:
        """Add a worker that has started; its node must have the driver's versions."""
        worker, ray = self._starting.pop(reference), self._ray
        try:
            node: WorkerNode = ray.get(reference)
        except ray.exceptions.RayError as error:
            self._end_worker(worker)
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            errors = [line for line in lines if re.match(r"\w+(Error|Exception):", line)]
            if not errors and "creation task" not in str(error):
                time.sleep(0.2)
                return  # it or its node was killed: another is started, PATIENCE limits that
            raise SpfemBenchError(
                f"a Ray worker could not begin: {errors[-1] if errors else lines[0]}",
                "Install the same spfem-bench on every node, in the environment of 'ray start'",
            ) from None
        try:
            _check_node(node)
        except SpfemBenchError:
            self._end_worker(worker)
            raise
        self._nodes[worker] = node.name
        self._idle.append(worker)


def _check_node(node: WorkerNode) -> None:
    if node.problem is not None:
        raise with_node(node.name, node.problem)
    for name, here in node_versions().items():
        there = node.versions.get(name, "absent")
        if here != there:
            raise SpfemBenchError(
                f"node {node.name} has {name} {there}, this machine {here}: features would differ",
                "Install the same versions on every node",
            )
