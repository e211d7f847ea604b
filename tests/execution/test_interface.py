"""All kinds of workers satisfy one interface, and are chosen by settings."""

from __future__ import annotations

from typing import get_type_hints

import pytest

from spfem_bench.definitions.computing import Computing
from spfem_bench.errors import SpfemBenchError
from spfem_bench.execution.cluster import RayWorkers
from spfem_bench.execution.common import portions
from spfem_bench.execution.processes import Processes, ThisProcess
from spfem_bench.execution.workers import Workers, workers_for


@pytest.mark.parametrize("kind", [ThisProcess, Processes, RayWorkers])
def test_a_kind_of_workers_has_all_methods_of_the_interface(kind: type[Workers]) -> None:
    wanted = [name for name in vars(Workers) if not name.startswith("_")]
    assert {"begin", "compute", "each", "end"} <= set(wanted)
    for name in [*wanted, *get_type_hints(Workers)]:
        assert hasattr(kind, name)


def test_workers_are_chosen_by_settings() -> None:
    with workers_for(Computing()) as one, workers_for(Computing(workers=2)) as two:
        assert isinstance(one, ThisProcess) and isinstance(two, Processes)
        assert list(one.each(abs, [-1, 2])) == [1, 2]
    with pytest.raises(SpfemBenchError, match="'warp' is not available here"):
        workers_for(Computing("warp")).__enter__()


@pytest.mark.parametrize(
    ("clips", "workers", "sizes"),
    [(3, 2, [1, 1, 1]), (20, 2, [5, 5, 5, 5]), (50, 1, [8] * 6 + [2])],
)
def test_portions_are_even_and_small(clips: int, workers: int, sizes: list[int]) -> None:
    requests = dict.fromkeys(range(clips))
    parts = portions(requests, workers)  # type: ignore[arg-type]
    assert [len(part) for part in parts] == sizes
    assert [clip for part in parts for clip in part] == list(requests)
