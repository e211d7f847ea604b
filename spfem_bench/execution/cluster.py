"""Features computed by the workers of a Ray cluster, on one machine or many.

The process that was started, here called the driver, looks into its store for what is missing and
gives it out a few clips at a time. A worker holds one set of networks. It writes into the driver's
store where it sees it; elsewhere it keeps a store of its node and sends the arrays back. What a
worker had that died is given to others, clip by clip.
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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spfem_bench.caches import cache_folder
from spfem_bench.errors import ClipError, SpfemBenchError, StorageError
from spfem_bench.extras import extra
from spfem_bench.files import marker, temporary_folder

if TYPE_CHECKING:
    from spfem_bench.definitions.clips import Clip
    from spfem_bench.execution.local import Networks
    from spfem_bench.features.extract import Extractor
    from spfem_bench.features.requests import Failures, Request, RequestKey, RequestKeys
    from spfem_bench.features.store import Arrays, FeatureStore

DEATHS = 3
"""Workers that may die while they have one clip; then it is refused."""

PATIENCE = 180.0
"""Seconds in which at least one worker must have started, or be at work."""

UNSEEN = 90.0
"""Seconds until a network file system must show what another machine has stored."""

OBJECTS = 100 << 20
"""Bytes for what travels between processes of one machine: features of a few clips."""

CARRIED = ("SPFEM_BENCH_CARDS", "SPFEM_BENCH_WEIGHTS", "SPFEM_BENCH_DATA")
"""Variables that workers take from the driver."""


def shares(
    nodes: Sequence[tuple[int, int]], workers: int | None, *, gpu: bool
) -> tuple[int, int] | None:
    """Return how many workers a cluster gets, and how many processors each.

    Args:
        nodes: processors and GPUs of each.
        workers: how many are asked for; all that fit when None.
        gpu: whether each needs a GPU.

    Returns:
        None when they do not fit.

    >>> shares([(8, 0), (8, 0), (4, 0)], None, gpu=False)
    (20, 1)
    >>> shares([(8, 0), (8, 0), (4, 0)], 4, gpu=False)
    (4, 4)
    >>> shares([(32, 4), (32, 0)], None, gpu=True)
    (4, 8)
    """

    def room(each: int) -> int:
        return sum(min(cpus // each, gpus) if gpu else cpus // each for cpus, gpus in nodes)

    count = workers or room(1)
    fitting = [n for n in range(1, 1 + max((c for c, _ in nodes), default=0)) if room(n) >= count]
    return (count, max(fitting)) if count and fitting else None


# ---- the driver ----------------------------------------------------------------------------


@dataclass
class _Part:
    """Clips that one worker gets, and how many workers have died of them."""

    asked: RequestKeys
    deaths: int = 0


class RayWorkers:
    """Workers on a Ray cluster, kept with their networks from one evaluation to the next."""

    def __init__(self, address: str, count: int | None, device: str) -> None:
        """Check what is given; nothing is started yet.

        Raises:
            SpfemBenchError: Ray is not installed, or the address is of another kind.
        """
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
        self._address, self._wanted, self._device = address, count, device
        self._ray = _import_ray(address)
        self._count, self._threads = 0, 1
        self._ours = False  # whether Ray is to be ended with us
        self._left = ExitStack()  # the folder of a Ray that was started here
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}  # what each worker's first answer will be
        self._names: dict[Any, str] = {}

    # ---- beginning and end --------------------------------------------------------------

    def connect(self) -> None:
        """Start Ray or join the cluster, once; with ``auto``, what this program itself has joined.

        Raises:
            SpfemBenchError: there is no cluster, or no room in it.
        """
        if self._count:
            return
        ray, gpu = self._ray, self._device.startswith("cuda")
        if ray.is_initialized():
            if self._address != "auto":
                raise SpfemBenchError(
                    "this program has joined a Ray cluster already",
                    "Give 'auto' to use that one, or call ray.shutdown() first",
                )
        else:
            here: dict[str, Any] = {"address": self._address}
            if self._address == "local":
                here |= {
                    "num_cpus": max(os.cpu_count() or 1, self._wanted or 1),
                    "num_gpus": None if gpu else 0,
                    "include_dashboard": False,
                    "object_store_memory": OBJECTS,
                }
                # Ray leaves logs and sockets there, also after it has ended. A socket's name has
                # 107 bytes at most, so that the user's own folder may be too deep.
                if os.name == "posix":
                    top = self._left.enter_context(temporary_folder(Path("/tmp")))  # noqa: S108
                    here["_temp_dir"] = str(top)
            elif self._address != "auto":
                _knock(self._address)
            try:
                with _handlers_kept():
                    ray.init(**here, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError) as error:
                reason = (str(error) or type(error).__name__).strip().splitlines()[0]
                raise SpfemBenchError(
                    f"cannot join a Ray cluster ({self._address}): {reason.partition('. ')[0]}",
                    "Start one with 'ray start --head', or give --ray local",
                ) from None
            self._ours = True
        nodes = [
            (int(n["Resources"].get("CPU", 0)), int(n["Resources"].get("GPU", 0)))
            for n in ray.nodes()
            if n["Alive"]
        ]
        found = shares(nodes, self._wanted, gpu=gpu)
        if found is None:
            room = shares(nodes, None, gpu=gpu)
            raise SpfemBenchError(
                f"the Ray cluster has {sum(c for c, _ in nodes)} processors and "
                f"{sum(g for _, g in nodes)} GPUs: room for {room[0] if room else 0} workers on "
                f"{self._device}" + (f", not {self._wanted}" if self._wanted else ""),
                "Give fewer --workers, or another --device",
            )
        self._count, self._threads = found

    def begin(self) -> None:
        """Start all workers now and wait until they can work; else they start with the work."""
        self.connect()
        self._hire(0, self._count)
        for answer in list(self._starting):
            self._welcome(answer)

    def end(self) -> None:
        """End all workers, and Ray where it was started or joined for them."""
        for worker in [*self._idle, *self._starting.values()]:
            self._dismiss(worker)
        self._idle.clear()
        self._starting.clear()
        if self._ours:
            self._ray.shutdown()
        self._left.close()
        self._ours, self._count = False, 0

    def _dismiss(self, worker: Any) -> None:
        self._names.pop(worker, None)
        with suppress(self._ray.exceptions.RayError):
            self._ray.kill(worker)

    # ---- work ---------------------------------------------------------------------------

    def compute(self, extractor: Extractor, wants: Mapping[Clip, frozenset[Request]]) -> Failures:
        """Fill the extractor's store with all wanted features, as ``Processes.compute`` does.

        Returns:
            Why each clip and role, or clip beside another, that cannot be had failed.

        Raises:
            SpfemBenchError: a node has other versions, cannot read a clip or weights, or no
                worker can be started; says which node. What is stored is kept.
        """
        from spfem_bench.execution.local import portions
        from spfem_bench.features.extract import Progress
        from spfem_bench.features.requests import missing

        asked, failures = missing(extractor, wants)
        extractor.progress.finished(len(wants) - len(asked))
        if not asked:
            return failures
        extractor.store.check_writable()
        self.connect()
        since = time.monotonic()
        queue = deque(_Part(part) for part in portions(asked, self._count))
        busy: dict[Any, tuple[Any, _Part]] = {}
        ray = self._ray
        try:
            with marker(extractor.store.folder) as token:
                quiet = replace(extractor, progress=Progress())
                errand = _Errand(quiet, token.name, str(cache_folder().absolute()))
                while queue or busy:
                    self._hire(len(busy), len(queue))
                    while queue and self._idle:
                        worker, part = self._idle.pop(), queue.popleft()
                        busy[worker.work.remote(errand, part.asked)] = (worker, part)
                    done, _ = ray.wait([*busy, *self._starting], num_returns=1, timeout=1.0)
                    if busy:
                        since = time.monotonic()
                    elif time.monotonic() - since > PATIENCE:
                        raise SpfemBenchError(
                            f"no Ray worker could be started within {PATIENCE:.0f} s",
                            "Is the cluster busy, or are its nodes gone? Ask 'ray status'",
                        )
                    for answer in done:
                        if answer in self._starting:
                            self._welcome(answer)
                            continue
                        worker, part = busy.pop(answer)
                        try:
                            finished: _Done = ray.get(answer)
                        except ray.exceptions.RayTaskError:
                            self._dismiss(worker)
                            raise
                        except ray.exceptions.RayError as error:
                            node = self._names.get(worker, "a node")
                            self._dismiss(worker)
                            failures |= _given_again(part, node, error, queue, extractor)
                            continue
                        self._idle.append(worker)
                        failures |= _taken(finished, self._names[worker], part, extractor)
        finally:
            for worker, _ in busy.values():
                self._dismiss(worker)
        return failures

    def _hire(self, busy: int, waiting: int) -> None:
        """Start as many workers as there are places and parts for."""
        ray = self._ray
        kind = ray.remote(_Worker).options(
            num_cpus=self._threads, num_gpus=int(self._device.startswith("cuda"))
        )
        needed = min(self._count, busy + waiting)
        for _ in range(needed - busy - len(self._idle) - len(self._starting)):
            variables = {n: v for n in CARRIED if (v := os.environ.get(n))}
            worker = kind.remote(self._threads, str(Path.cwd()), variables)
            self._starting[worker.hello.remote(self._device)] = worker

    def _welcome(self, answer: Any) -> None:
        """Take a worker whose node has the versions that the driver has.

        Raises:
            SpfemBenchError: it has others, or the worker could not begin.
        """
        worker, ray = self._starting.pop(answer), self._ray
        try:
            node: _Node = ray.get(answer)
        except ray.exceptions.RayError as error:
            self._dismiss(worker)
            said = [line.strip() for line in str(error).splitlines() if line.strip()]
            reason = next((s for s in reversed(said) if re.match(r"\w+(Error|Exception):", s)), "")
            if not reason and "creation task" not in str(error):
                time.sleep(0.2)
                return  # killed, or its node: another is started, and PATIENCE ends that
            raise SpfemBenchError(
                f"a Ray worker could not begin: {reason or said[0]}",
                "Install the same spfem-bench on every node, in the environment of 'ray start'",
            ) from None
        if node.problem is not None:
            self._dismiss(worker)
            raise _on(node.name, node.problem)
        for what, here in versions().items():
            there = node.versions.get(what, "absent")
            if here != there:
                self._dismiss(worker)
                raise SpfemBenchError(
                    f"node {node.name} has {what} {there}, this machine {here}: features would "
                    "differ",
                    "Install the same versions on every node",
                )
        self._names[worker] = node.name
        self._idle.append(worker)


def _import_ray(address: str) -> Any:
    """Return the module, told to keep quiet, and to itself where it is started here.

    Raises:
        SpfemBenchError: it is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray prints of dead workers into standard output; what matters is said here.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray listens on every interface, and runs what it is sent: by who knows this token alone. The
    # mode is read when Ray is imported.
    if address == "local" and "ray" not in sys.modules and "RAY_AUTH_MODE" not in os.environ:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with extra("ray", "--ray"):
        import ray
    return ray


@contextmanager
def _handlers_kept() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces by its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _knock(address: str) -> None:
    """Find out at once whether anybody listens; Ray would try for a minute, and complain aloud.

    Raises:
        SpfemBenchError: nobody does.
    """
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise SpfemBenchError(
            f"no Ray cluster answers at {address}: {reason}",
            "Give the address that 'ray start --head' has printed",
        ) from None


def _given_again(
    part: _Part, node: str, error: Exception, queue: deque[_Part], extractor: Extractor
) -> Failures:
    """Put a dead worker's clips back, one by one; return what three have died of."""
    deaths = part.deaths + 1
    if deaths < DEATHS:
        queue.extend(_Part({clip: wanted}, deaths) for clip, wanted in part.asked.items())
        return {}
    extractor.progress.finished(len(part.asked))
    full = " (out of memory)" if type(error).__name__ == "OutOfMemoryError" else ""
    return {
        (clip, want): ClipError(
            f"{clip}: {deaths} Ray workers died while they had it, the last on {node}{full}",
            "Look at that node's memory, or give the clip alone, without --ray",
        )
        for clip, wanted in part.asked.items()
        for want in wanted
    }


def _taken(finished: _Done, node: str, part: _Part, extractor: Extractor) -> Failures:
    """Store what a worker has sent, and tell how far the work has come.

    Raises:
        SpfemBenchError: what the worker could not go on without.
        StorageError: the store cannot be written, or does not show what was written to it.
    """
    if finished.problem is not None:
        raise _on(node, finished.problem)
    for key, arrays in finished.sent:
        extractor.store.put(key, arrays)
    if finished.shared:
        for clip, wanted in part.asked.items():
            for want, key in wanted.items():
                if (clip, want) not in finished.failures:
                    _await(extractor.store, key, node)
    extractor.progress.decoded(finished.decoded)
    extractor.progress.embedded(finished.embedded)
    extractor.progress.finished(len(part.asked))
    return finished.failures


def _await(store: FeatureStore, key: RequestKey, node: str) -> None:
    """Wait until a network file system shows what a node has stored: it keeps old listings."""
    path, until = store.path(key), time.monotonic() + UNSEEN
    while not store.has(key):
        if time.monotonic() > until:
            raise StorageError(
                f"node {node} has stored {path}, which is not seen here",
                "Run the command again: it goes on from here",
            )
        for folder in (store.folder, path.parent):
            with suppress(OSError):
                os.listdir(folder)  # noqa: PTH208  (opening a folder makes NFS look again)
        time.sleep(0.2)


def _on(node: str, problem: SpfemBenchError) -> SpfemBenchError:
    return type(problem)(f"on node {node}: {problem.problem}", problem.remedy)


def versions() -> dict[str, str]:
    """Return what must be equal on all nodes, or features would differ or not be found."""
    from spfem_bench import provenance
    from spfem_bench.features.software import EVERY
    from spfem_bench.media import ffmpeg

    code = provenance.code_digest("**/*.py")[:12]
    return {
        **provenance.versions(EVERY),
        "spfem-bench's code": code,
        "ffmpeg": ffmpeg.version(),
    }


# ---- a worker ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Node:
    """Where a worker is."""

    name: str
    versions: Mapping[str, str]
    problem: SpfemBenchError | None


@dataclass(frozen=True)
class _Errand:
    """What workers are told with each part.

    Attributes:
        extractor: with the driver's store.
        token: a file in that store, for who sees it.
        cache: the driver's folder for weights and features.
    """

    extractor: Extractor
    token: str
    cache: str


@dataclass(frozen=True)
class _Done:
    """What a worker has made of its part.

    Attributes:
        failures: why what cannot be had failed.
        shared: whether all is in the driver's store.
        sent: features for the driver to store, where it is not.
        decoded: frames.
        embedded: crops and windows that networks have seen.
        problem: why the work cannot go on at all.
    """

    failures: Failures = field(default_factory=dict)
    shared: bool = True
    sent: Sequence[tuple[RequestKey, Arrays]] = ()
    decoded: int = 0
    embedded: int = 0
    problem: SpfemBenchError | None = None


class _Worker:
    """One process with one set of networks.

    Heavy imports happen in its methods, when the variables are set that libraries read then.
    """

    def __init__(self, threads: int, folder: str, variables: Mapping[str, str]) -> None:
        for name in CARRIED:
            os.environ.pop(name, None)
        os.environ.update(variables)
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        with suppress(OSError):  # a clip with a relative path is missed by its name then
            os.chdir(folder)
        self.threads, self.cache = threads, str(cache_folder())
        self.counter: Any = None
        self.networks: Networks | None = None

    def hello(self, device: str) -> _Node:
        """Say where this worker is and what is installed there."""
        import torch

        from spfem_bench.evaluation.session import check_device

        torch.set_num_threads(self.threads)
        self.counter = _counter()
        problem = None
        try:
            check_device(device)
        except SpfemBenchError as error:
            problem = error
        return _Node(socket.gethostname(), versions(), problem)

    def work(self, errand: _Errand, asked: RequestKeys) -> _Done:
        """Compute what is asked, into the driver's store or this node's."""
        try:
            return self._work(errand, asked)
        except SpfemBenchError as error:
            return _Done(problem=error)

    def _work(self, errand: _Errand, asked: RequestKeys) -> _Done:
        from spfem_bench.execution.local import Networks
        from spfem_bench.features.requests import request_key
        from spfem_bench.features.store import FeatureStore

        given = errand.extractor
        shared = (given.store.folder / errand.token).is_file()
        # Who sees the driver's store sees the weights beside it.
        os.environ["SPFEM_BENCH_CACHE"] = errand.cache if shared else self.cache
        if not shared:
            given = replace(given, store=FeatureStore.locate())
            given.store.check_writable()
        self.networks = self.networks or Networks()
        x = self.networks.of(replace(given, progress=self.counter))
        for clip, wanted in asked.items():
            for want, key in wanted.items():
                if request_key(x, clip, want) != key:  # or the driver would never find it
                    raise ClipError(
                        f"{clip} or what it is compared with has other content than where the "
                        "evaluation was started",
                        "Copy it there again",
                    )
        self.counter.clear()
        wants = {clip: frozenset(wanted) for clip, wanted in asked.items()}
        failures = self.networks.ensure(x, wants)
        sent: list[tuple[RequestKey, Arrays]] = []
        if not shared:
            sent = [
                (key, arrays)
                for clip, wanted in asked.items()
                for want, key in wanted.items()
                if (clip, want) not in failures and (arrays := x.store.get(key)) is not None
            ]
        return _Done(failures, shared, sent, self.counter.frames, self.counter.samples)


def _counter() -> Any:
    from spfem_bench.features.extract import Progress

    class Counter(Progress):
        frames = samples = 0

        def decoded(self, frames: int) -> None:
            self.frames += frames

        def embedded(self, samples: int) -> None:
            self.samples += samples

        def clear(self) -> None:
            self.frames = self.samples = 0

    return Counter()
