"""What the machine gives to this process: processors, threads that do not spin, bfloat16 units."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
from functools import cache
from pathlib import Path


def processors() -> int:
    """Return how many processors this process may use, 1 or more: by affinity and cgroup quota."""
    allowed = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
    return max(1, min(allowed, math.ceil(_quota(Path("/")))) if _quota(Path("/")) else allowed)


@cache
def _quota(root: Path) -> float | None:
    """Return the processors that control groups leave (a container's ``--cpus``); None: all.

    The smallest of this process's group and those above: ``cpu.max`` of version 2 is a quota and a
    period in microseconds, or ``max``; version 1 has a file for each, and -1.
    """
    base, folders = root / "sys/fs/cgroup", []
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, place = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):
            home = base / "cpu" if controllers else base
            # In a container the path may be the host's: its own group is the mounted root.
            within = Path(place.lstrip("/"))
            folders += [home / part for part in (within, *within.parents)]
    found = []
    for folder in folders:
        words = _text(folder / "cpu.max").split()
        words = words or [_text(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")]
        if len(words) == 2 and all(word.strip().isdigit() for word in words) and int(words[1]):
            found.append(int(words[0]) / int(words[1]))
    return min((quota for quota in found if quota > 0), default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def steady_threads() -> None:
    """Let OpenMP's waiting threads sleep, and torch use no more threads than :func:`processors`.

    By default they spin for milliseconds, which costs two to five times the processor time on a
    machine that does other work too. Before torch is imported, environment variables prevent that,
    also in processes that are started later; afterwards, a parked team does (:func:`_park`).
    """
    torch, count = sys.modules.get("torch"), processors()
    if torch is None:
        if count < len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()):
            os.environ.setdefault("OMP_NUM_THREADS", str(count))
    elif torch.get_num_threads() > count:
        torch.set_num_threads(count)
    if torch is not None and "OMP_WAIT_POLICY" not in os.environ:
        _park(torch._C.__file__)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@cache
def _park(library: str) -> None:
    """Make GNU's OpenMP, which *library* is linked to, spin a thousandth of what it would.

    It does so while it holds more threads than there are processors (libgomp's manual,
    ``GOMP_SPINCOUNT``). So a thread that never ends starts a team that large, which sleeps.
    """
    try:
        loaded = ctypes.CDLL(library)
        start, work = loaded.GOMP_parallel, loaded.omp_get_thread_num
    except (OSError, AttributeError):
        return  # another OpenMP
    if hasattr(loaded, "kmp_set_blocktime"):
        return  # LLVM's, which has GNU's functions too
    parked = threading.Event()

    def park() -> None:
        start(work, None, ctypes.c_uint((os.cpu_count() or 1) + 1), ctypes.c_uint(0))
        parked.set()
        threading.Event().wait()

    threading.Thread(target=park, name="parked", daemon=True).start()
    parked.wait()


BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "avx_ne_convert", "bf16", "svebf16"})
"""Flags of processors with units for bfloat16, x86 and ARM, as Linux writes them."""


@cache
def has_bfloat16() -> bool | None:
    """Return whether the processor has a unit for bfloat16; None where that is not known."""
    lines = _text(Path("/proc/cpuinfo")).splitlines()
    flags = next((li for li in lines if li.lower().startswith(("flags", "features"))), "")
    return bool(BFLOAT16_FLAGS & set(flags.split())) if flags else None
