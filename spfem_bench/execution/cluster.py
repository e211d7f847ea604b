"""Workers on a Ray cluster, of one machine or many: the side of the driver.

The driver sends workers a few clips at a time. A worker writes into the driver's store where it
can; elsewhere it sends the arrays back. Clips of a worker that died go to others, one by one,
which ``ray.util.ActorPool`` cannot do: it does not return which job was lost.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from spfem_bench.caches import cache_folder
from spfem_bench.definitions.computing import Computing
from spfem_bench.errors import ClipError, SpfemBenchError, StorageError
from spfem_bench.execution.cluster_worker import (
    VARIABLES,
    RayWorker,
    WorkerNode,
    WorkerResult,
    WorkerTask,
    node_versions,
)
from spfem_bench.execution.common import feature_phases, portions
from spfem_bench.execution.workers import Workers
from spfem_bench.extras import extra
from spfem_bench.features.extract import Extractor
from spfem_bench.features.requests import Failures, RequestKey, RequestKeys, Requests, missing
from spfem_bench.features.store import FeatureStore
from spfem_bench.files import marker, temporary_folder
from spfem_bench.machine import processors
from spfem_bench.progress import SILENT

MAX_DEATHS = 3
"""Workers that may die while they compute one clip; then it is refused."""

PATIENCE = 180.0
"""Seconds without any worker at work after which the cluster is given up."""

VISIBLE_WITHIN = 90.0
"""Seconds in which a network file system must show what another machine has stored."""

OBJECT_MEMORY = 100 << 20
"""Bytes of shared memory in a Ray started here: features of a few clips pass through it."""


def processor_shares(
    nodes: Sequence[tuple[int, int]], workers: int | None, *, gpu: bool
) -> tuple[int, int] | None:
    """Return how many workers a cluster gets, and processors for each; None when they do not fit.

    Args:
        nodes: processors and GPUs of each.
        workers: how many are wanted; all that fit when None.
        gpu: whether each worker needs a GPU.
    """

    def room(each: int) -> int:
        return sum(min(cpus // each, gpus) if gpu else cpus // each for cpus, gpus in nodes)

    count = workers or room(1)
    most = max((cpus for cpus, _ in nodes), default=0)
    fitting = [each for each in range(1, most + 1) if room(each) >= count]
    return (count, max(fitting)) if count and fitting else None


@dataclass
class _Portion:
    """Requests that one worker gets, and how many workers have died with them."""

    keys: RequestKeys
    deaths: int = 0


class RayWorkers(Workers):
    """Workers on Ray. Unless settings limit them, one for each GPU (cuda), else for each processor.

    Raises:
        SpfemBenchError: Ray is not installed, or the address is of another kind.
    """

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
        self._ray = _import_ray(address)
        self._count, self._threads = 0, 1
        self._owns_ray = False
        self._resources = ExitStack()  # the folder of a Ray that was started here
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}  # workers by the reference of their description
        self._nodes: dict[Any, str] = {}

    def begin(self) -> None:
        """Join a cluster that runs; its processors are taken with the first work."""
        if self._address != "local":
            self.connect()

    def connect(self) -> None:
        """Start Ray or join the cluster, once; with ``auto``, one that this program has joined.

        Raises:
            SpfemBenchError: there is no cluster, or no room in it.
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
        resources = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        nodes = [(int(has.get("CPU", 0)), int(has.get("GPU", 0))) for has in resources]
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
            _check_listening(self._address)
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
        for worker in [*self._idle, *self._starting.values()]:
            self._end_worker(worker)
        self._idle.clear()
        self._starting.clear()
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
        queue = deque(_Portion(part) for part in portions(keys, self._count))
        busy: dict[Any, tuple[Any, _Portion]] = {}
        last_busy = time.monotonic()
        try:
            while queue or busy:
                self._start_workers(len(busy), len(queue))
                while queue and self._idle:
                    worker, portion = self._idle.pop(), queue.popleft()
                    busy[worker.compute.remote(task, portion.keys)] = (worker, portion)
                done, _ = ray.wait([*busy, *self._starting], num_returns=1, timeout=1.0)
                if busy:
                    last_busy = time.monotonic()
                elif time.monotonic() - last_busy > PATIENCE:
                    raise SpfemBenchError(
                        f"no Ray worker could be started within {PATIENCE:.0f} s",
                        "Is the cluster busy, or are its nodes gone? Type 'ray status'",
                    )
                for reference in done:
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
                        failures |= _retry_or_refuse(portion, node, error, queue, extractor)
                        continue
                    self._idle.append(worker)
                    failures |= _store_result(result, self._nodes[worker], portion, extractor)
        finally:
            for worker, _ in busy.values():
                self._end_worker(worker)
        return failures

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
        raise _with_node(node.name, node.problem)
    for name, here in node_versions().items():
        there = node.versions.get(name, "absent")
        if here != there:
            raise SpfemBenchError(
                f"node {node.name} has {name} {there}, this machine {here}: features would differ",
                "Install the same versions on every node",
            )


def _import_ray(address: str) -> Any:
    """Return the module, silenced; a Ray that is started here is closed to others."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray prints dead workers on standard output; what matters is reported by this module.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray listens on every interface and runs what it receives; the token restricts that. The mode
    # is read when Ray is imported.
    if address == "local" and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with extra("ray", "--ray"):
        import ray
    return ray


def _check_listening(address: str) -> None:
    """Refuse an address where no server listens; Ray itself would retry for a minute."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpfemBenchError(
            f"no Ray cluster answers at {address}: {reason}",
            "Give the address that 'ray start --head' has printed",
        ) from None


def _retry_or_refuse(
    portion: _Portion, node: str, error: Exception, queue: deque[_Portion], extractor: Extractor
) -> Failures:
    """Put a dead worker's clips back, one by one; refuse them after `MAX_DEATHS` deaths."""
    deaths = portion.deaths + 1
    if deaths < MAX_DEATHS:
        queue.extend(_Portion({clip: keys}, deaths) for clip, keys in portion.keys.items())
        return {}
    extractor.progress.advance("clips", len(portion.keys))
    full = " (out of memory)" if type(error).__name__ == "OutOfMemoryError" else ""
    return {
        (clip, request): ClipError(
            f"{clip}: {deaths} Ray workers died while they had it, the last on {node}{full}",
            "Look at that node's memory, or give the clip alone, without --ray",
        )
        for clip, keys in portion.keys.items()
        for request in keys
    }


def _store_result(
    result: WorkerResult, node: str, portion: _Portion, extractor: Extractor
) -> Failures:
    """Store what a worker has sent, and report progress."""
    if result.problem is not None:
        raise _with_node(node, result.problem)
    for key, arrays in result.sent:
        extractor.store.put(key, arrays)
    if result.shared:
        for clip, keys in portion.keys.items():
            for request, key in keys.items():
                if (clip, request) not in result.failures:
                    _wait_until_visible(extractor.store, key, node)
    for phase in ("decode", "networks"):
        extractor.progress.advance(phase, result.counts.get(phase, 0))
    extractor.progress.advance("clips", len(portion.keys))
    return result.failures


def _wait_until_visible(store: FeatureStore, key: RequestKey, node: str) -> None:
    """Wait until a network file system shows what a node has stored: it caches listings."""
    path, until = store.path(key), time.monotonic() + VISIBLE_WITHIN
    while not store.has(key):
        if time.monotonic() > until:
            raise StorageError(
                f"node {node} has stored {path}, which cannot be found from here",
                "Run the command again: it goes on from here",
            )
        for folder in (store.folder, path.parent):
            with suppress(OSError):
                os.listdir(folder)  # noqa: PTH208  (opening a folder makes NFS refresh it)
        time.sleep(0.2)


def _with_node(node: str, problem: SpfemBenchError) -> SpfemBenchError:
    return type(problem)(f"on node {node}: {problem.problem}", problem.remedy)
