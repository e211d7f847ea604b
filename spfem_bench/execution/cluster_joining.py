"""Joining a Ray cluster: the import of Ray, its address, and how many workers fit."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from collections.abc import Sequence
from typing import Any

from spfem_bench.errors import SpfemBenchError
from spfem_bench.extras import extra


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


def import_ray(address: str) -> Any:
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


def check_listening(address: str) -> None:
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
