"""Jobs spread over processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from spfem_bench.processes import spread


def _slow_at_first(job: int, folder: Path) -> tuple[int, int]:
    (folder / str(job)).touch()
    if job == 0:
        time.sleep(0.5)
    return job, os.getpid()


def _picky(job: int, folder: Path) -> None:
    (folder / str(job)).touch()
    if job == 1:
        raise ValueError("not this one")
    time.sleep(0.05)


def test_results_are_in_order_and_few_jobs_begin_before_they_are_taken(tmp_path: Path) -> None:
    jobs = list(range(12))
    with spread(partial(_slow_at_first, folder=tmp_path), jobs, 2, ahead=4) as found:
        first = next(found)
        time.sleep(0.3)
        begun = len(list(tmp_path.iterdir()))
        rest = list(found)
    assert [job for job, _ in (first, *rest)] == jobs
    assert 1 < begun <= 4  # those that began before the first was taken
    processes = {process for _, process in (first, *rest)}
    assert len(processes) == 2 and os.getpid() not in processes


def test_one_worker_or_one_job_starts_no_process(tmp_path: Path) -> None:
    for jobs, workers in ([0, 1], 1), ([0], 2):
        with spread(partial(_slow_at_first, folder=tmp_path), jobs, workers) as found:
            assert list(found) == [(job, os.getpid()) for job in jobs]


def test_an_error_drops_what_is_queued(tmp_path: Path) -> None:
    with (
        pytest.raises(ValueError, match="not this one"),
        spread(partial(_picky, folder=tmp_path), list(range(100)), 2) as found,
    ):
        list(found)
    assert len(list(tmp_path.iterdir())) < 20


def test_leaving_the_block_early_drops_what_is_queued(tmp_path: Path) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        spread(partial(_picky, folder=tmp_path), list(range(2, 102)), 2) as found,
    ):
        next(found)
        raise KeyboardInterrupt
    assert len(list(tmp_path.iterdir())) < 20


def test_processes_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "go.py"
    script.write_text(
        "import os, sys, time\n"
        "from spfem_bench.processes import spread\n"
        "def work(seconds):\n"
        "    os.write(1, b'%d\\n' % os.getpid())\n"
        "    time.sleep(seconds)\n"
        "if __name__ == '__main__':\n"
        "    with spread(work, [0.1, 60, 60], 2) as found:\n"
        "        list(found)\n"
    )
    with subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert len({parent.stdout.readline() for _ in range(3)}) == 2
        parent.kill()
        parent.communicate(timeout=30)  # a process that is left holds the pipe open
