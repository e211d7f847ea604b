"""What becomes of a worker's result: stored, waited for, given to others, or refused."""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

from spfem_bench.errors import ClipError, SpfemBenchError, StorageError
from spfem_bench.execution.cluster_worker import WorkerResult
from spfem_bench.features.extract import Extractor
from spfem_bench.features.requests import Failures, RequestKey, RequestKeys
from spfem_bench.features.store import FeatureStore

MAX_DEATHS = 3
"""Workers that may die while they compute one clip; then it is refused."""

VISIBLE_WITHIN = 90.0
"""Seconds in which a network file system must show what another machine has stored."""


@dataclass
class Portion:
    """Requests that one worker gets, and how many workers have died with them."""

    keys: RequestKeys
    deaths: int = 0


def retry_or_refuse(
    portion: Portion, node: str, error: Exception, queue: deque[Portion], extractor: Extractor
) -> Failures:
    """Put a dead worker's clips back, one by one; refuse them after `MAX_DEATHS` deaths."""
    deaths = portion.deaths + 1
    if deaths < MAX_DEATHS:
        queue.extend(Portion({clip: keys}, deaths) for clip, keys in portion.keys.items())
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


def store_result(
    result: WorkerResult, node: str, portion: Portion, extractor: Extractor
) -> Failures:
    """Store what a worker has sent, and report progress."""
    if result.problem is not None:
        raise with_node(node, result.problem)
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


def with_node(node: str, problem: SpfemBenchError) -> SpfemBenchError:
    """Return an error that names the node where it was raised."""
    return type(problem)(f"on node {node}: {problem.problem}", problem.remedy)
