"""What the machine gives to this process: processors, units for bfloat16, threads that sleep."""

from __future__ import annotations

import ctypes
import math
import os
import sys
import threading
import warnings
from functools import cache
from pathlib import Path


def processors() -> int:
    """Return how many processors this process may use, 1 or more: its affinity and its quota."""
    return max(1, math.ceil(min(_allowed(), cgroup_quota())))


def _allowed() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


@cache
def cgroup_quota(root: Path = Path("/")) -> float:
    """Return the processors that control groups leave, such as a container's ``--cpus``.

    It is the smallest quota of this process's group and those above, infinite without one. Version
    2 has a quota and a period in ``cpu.max``, version 1 in a file each (``max``, -1: no quota).
    """
    base = root / "sys/fs/cgroup"
    found = [math.inf]
    for line in _text(root / "proc/self/cgroup").splitlines():
        _, controllers, place = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        home = base / "cpu" if controllers else base
        # In a container the place may be the host's; its own group is then the root.
        within = Path(place.lstrip("/"))
        for folder in (home / part for part in (within, *within.parents)):
            one_file = _text(folder / "cpu.max").split()
            each = [_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")]
            words = one_file or each
            if len(words) == 2 and all(w.isdigit() and int(w) for w in words):
                found.append(int(words[0]) / int(words[1]))
    return min(found)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


# ---- threads ---------------------------------------------------------------------------------


def steady_threads() -> None:
    """Let OpenMP's waiting threads sleep, and torch use no more threads than :func:`processors`.

    By default they spin, which multiplies the processor time on a machine that does other work too.
    Before torch is imported, environment variables prevent that, also in processes that are started
    later; afterwards a parked team does. ``OMP_WAIT_POLICY=active`` leaves it as it is.
    """
    torch, count = sys.modules.get("torch"), processors()
    if torch is None and count < _allowed():
        os.environ.setdefault("OMP_NUM_THREADS", str(count))
    if torch is not None and torch.get_num_threads() > count:
        torch.set_num_threads(count)
    if torch is not None and "OMP_WAIT_POLICY" not in os.environ:
        _park_team(torch._C.__file__)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


@cache
def _park_team(library: str) -> None:
    """Make the GNU OpenMP that a *library* is linked to spin for microseconds at most.

    It does so while it has more threads than there are processors (libgomp's manual,
    ``GOMP_SPINCOUNT``): a thread that never ends holds a team of that many, asleep.
    """
    try:
        linked = ctypes.CDLL(library)
        run_team, nothing = linked.GOMP_parallel, linked.omp_get_thread_num
    except (OSError, AttributeError):
        return  # another OpenMP
    if hasattr(linked, "kmp_set_blocktime"):
        return  # LLVM's, which has GNU's functions too
    parked = threading.Event()

    def park() -> None:
        run_team(nothing, None, ctypes.c_uint((os.cpu_count() or 1) + 1), ctypes.c_uint(0))
        parked.set()
        threading.Event().wait()

    threading.Thread(target=park, name="parked", daemon=True).start()
    parked.wait()


# ---- bfloat16 --------------------------------------------------------------------------------

BFLOAT16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})
"""Linux's flags of processors, x86 and ARM, that multiply in bfloat16."""


@cache
def has_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Return whether the processor has a unit for bfloat16; None where that cannot be read."""
    lines = _text(cpuinfo).splitlines()
    flags = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return not BFLOAT16_FLAGS.isdisjoint(flags.split()) if flags else None


def warn_without_bfloat16() -> None:
    """Warn where bfloat16 costs time on this processor in the place of saving it."""
    if has_bfloat16() is False:
        text = "this processor has no unit for bfloat16, which takes longer here than float32"
        warnings.warn(f"{text}. Leave the precision out", RuntimeWarning, stacklevel=2)
