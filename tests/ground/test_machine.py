"""Processors by affinity and control groups; OpenMP's threads that sleep; units for bfloat16."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from spfem_bench import machine
from tests.conftest import ROOT


def system(root: Path, cgroup: str, files: dict[str, str]) -> Path:
    """Write what Linux shows of a process's control groups."""
    (root / "proc" / "self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2, V1 = "0::/a.slice/b.scope\n", "5:memory:/docker/x\n4:cpu,cpuacct:/docker/x\n0::/\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "quota"),
    [
        (V2, {"a.slice/b.scope/cpu.max": "150000 100000\n"}, 1.5),
        (V2, {"a.slice/b.scope/cpu.max": "max 100000\n", "a.slice/cpu.max": "50000 100000\n"}, 0.5),
        (V2, {"a.slice/b.scope/cpu.max": "max 100000\n"}, float("inf")),
        ("0::/\n", {"cpu.max": "400000 100000\n"}, 4.0),  # within a container
        (V2, {"cpu.max": "400000 100000\n"}, 4.0),  # whose path is the host's
        (V1, {"cpu/cpu.cfs_quota_us": "250000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2.5),
        (V1, {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, float("inf")),
        (V2, {"a.slice/b.scope/cpu.max": "nonsense\n"}, float("inf")),
        ("", {}, float("inf")),
    ],
)
def test_a_containers_quota_is_read_from_its_control_groups(
    cgroup: str, files: dict[str, str], quota: float, tmp_path: Path
) -> None:
    assert machine.cgroup_quota(system(tmp_path, cgroup, files)) == quota


@pytest.mark.parametrize(
    ("allowed", "quota", "count"),
    [(8, float("inf"), 8), (8, 2.5, 3), (2, 4.0, 2), (8, 0.2, 1)],
)
def test_processors_are_the_smaller_of_affinity_and_quota(
    allowed: int, quota: float, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(allowed)), raising=False)
    monkeypatch.setattr(machine, "cgroup_quota", lambda: quota)
    assert machine.processors() == count


SPINNING = """
import sys, time, resource, torch
from concurrent.futures import ThreadPoolExecutor
torch.set_num_threads(2)
if sys.argv[1] == "steady":
    from spfem_bench.machine import steady_threads
    steady_threads()
a = torch.randn(64, 4096)
def spent():
    own = resource.getrusage(resource.RUSAGE_SELF)
    return own.ru_utime + own.ru_stime
def work():
    before = spent()
    for _ in range(40):
        torch.sin(a)
        time.sleep(0.01)  # the second thread waits, spinning or asleep
    return spent() - before
with ThreadPoolExecutor(1) as pool:
    pool.submit(work).result()
    print(pool.submit(work).result())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="of GNU's OpenMP")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one thread does not wait for another")
def test_threads_of_a_torch_imported_before_sleep_while_they_wait() -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "GOMP_"))}
    environment["PYTHONPATH"] = str(ROOT)

    def seconds(how: str) -> float:
        command = [sys.executable, "-c", SPINNING, how]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return float(done.stdout)

    plain, steady = seconds("plain"), seconds("steady")
    if plain < 0.1:
        pytest.skip("this torch's threads do not spin")
    assert steady < 0.6 * plain


def test_before_torch_is_imported_variables_say_so() -> None:
    code = (
        "import os, sys; from spfem_bench.machine import steady_threads; steady_threads();"
        "print('torch' in sys.modules, os.environ['OMP_WAIT_POLICY'])"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("OMP_")}
    for given, policy in (({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")):
        names = {**environment, **given, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=names, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["False", policy]


X86, ARM = "processor : 0\nflags\t\t: fpu avx2 {}\n", "processor : 0\nFeatures\t: fp asimd {}\n"


@pytest.mark.parametrize(
    ("text", "known"),
    [
        (X86.format("avx512f avx512_bf16"), True),
        (X86.format("amx_bf16"), True),
        (X86.format("avx512f"), False),
        (ARM.format("bf16 i8mm"), True),
        (ARM.format("i8mm"), False),
        ("", None),  # not Linux
    ],
)
def test_units_for_bfloat16_are_read_from_the_processors_flags(
    text: str, known: bool | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    assert machine.has_bfloat16(path) is known
    monkeypatch.setattr(machine, "has_bfloat16", lambda: known)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        machine.warn_without_bfloat16()
    assert len(caught) == (known is False)
