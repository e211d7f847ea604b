"""Features computed on Ray: identical records, nodes that die, nodes that differ."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from spfem_bench import files
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.clips import Span
from spfem_bench.definitions.computing import Computing
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.errors import CardError, SpfemBenchError
from spfem_bench.evaluation.measure import plan_requests
from spfem_bench.evaluation.plan import Plan, make_plan
from spfem_bench.evaluation.record import RunRecord
from spfem_bench.evaluation.session import carry_out, evaluate
from spfem_bench.evaluation.validate import Validation, plan_validation, run_validation
from spfem_bench.execution import cluster, cluster_joining, cluster_results
from spfem_bench.execution.processes import ThisProcess
from spfem_bench.execution.workers import workers_for
from spfem_bench.features.extract import Extractor
from spfem_bench.features.requests import missing
from spfem_bench.features.store import Arrays, FeatureStore
from spfem_bench.networks.weights import WeightsStore
from tests.conftest import ROOT, Outcome

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Ray's test cluster is for POSIX")

ARGUMENTS = ("eval", "--protocol", "spans", "--method", "source", "-q")
ITEMS = 12
NODE = re.escape(socket.gethostname())


# ---- errors before anything is started ------------------------------------------------------


def test_without_ray_the_message_is_what_to_type(
    bench: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = bench("eval", "--method", "source", "--ray", "local")
    assert done.code == 1
    assert done.err == (
        'Error: --ray needs ray, which is not installed. Type: pip install "spfem-bench[ray]"\n'
    )


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://node01:10001", "Allowed: local, auto, HOST:PORT (such as node01:6379); Ray Client"),
        ("node01", "'node01' is no address of a Ray cluster"),
        ("a b:1", "is no address of a Ray cluster"),
        ("127.0.0.1:1", "no Ray cluster answers at 127.0.0.1:1: Connection refused"),
    ],
)
def test_an_address_without_a_cluster_is_refused(
    address: str, message: str, bench: Callable[..., Outcome]
) -> None:
    pytest.importorskip("ray", reason="needs Ray: 'make test' installs it")
    done = bench("eval", "--method", "source", "--ray", address)
    assert (done.code, len(done.err.splitlines())) == (1, 1)
    assert message in done.err


@pytest.mark.parametrize(
    ("machines", "workers", "gpu", "expected"),
    [
        ([(2, 0)], None, False, (2, 1)),
        ([(2, 0)], 1, False, (1, 2)),
        ([(8, 0), (8, 0), (4, 0)], 5, False, (5, 4)),  # 2 + 2 + 1 of four each
        ([(8, 0)], 9, False, None),
        ([(8, 2), (64, 0)], None, True, (2, 4)),  # the node without a GPU is of no use
        ([(8, 2), (8, 1)], 2, True, (2, 8)),  # one on each
        ([(64, 0)], None, True, None),
        ([], None, False, None),
    ],
)
def test_processors_are_shared_so_that_all_workers_fit(
    machines: list[tuple[int, int]], workers: int | None, gpu: bool, expected: Any
) -> None:
    assert cluster_joining.processor_shares(machines, workers, gpu=gpu) == expected


# ---- the work: spans of a few of the demo's clips -------------------------------------------


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A protocol of 12 items, each 1.2 s of the demo's clips."""
    folder = tmp_path_factory.mktemp("cards")
    builtin = builtin_folder() / "protocols"
    (folder / "protocols").mkdir()
    card = (builtin / "demo-inter-id.toml").read_text()
    card = card.replace('"demo-inter-id.csv"', '"spans.csv"')
    card = re.sub(r"(?m)^emotions = .*$", 'emotions = ["angry", "happy"]', card)
    card = re.sub(r"(?m)^metrics = .*$", 'metrics = ["fad", "csim", "lse-d"]', card)
    span = "#t={begin},{end}"
    card = re.sub(r'(?m)^((?:source|reference|real) = ".*\.mp4)"', rf'\1{span}"', card)
    (folder / "protocols/spans.toml").write_text(card)
    head, *rows = (builtin / "demo-inter-id.csv").read_text().splitlines()
    lines = [f"{head},begin,end"]
    for emotion in ("angry", "happy"):
        row = next(r for r in rows if f",{emotion}," in r)
        name, _, rest = row.partition(",")
        for i in range(ITEMS // 2):
            lines.append(f"{name}_{i},{rest},{i / 25},{i / 25 + 1.2:.2f}")
    (folder / "protocols/spans.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def fresh(
    cards: Path, demo_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Path]:
    """Give a cache without features, in which the demo's clips are."""
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(cards))
    (demo_cache / "data").mkdir(exist_ok=True)

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "data").symlink_to(demo_cache / "data")
        monkeypatch.setenv("SPFEM_BENCH_CACHE", str(folder))
        return folder

    return make


def planned() -> Plan:
    return make_plan(
        "source",
        protocol("spans"),
        profile_card("compact"),
        data=DataFolders.locate(),
        weights=WeightsStore.locate(),
    )


def extractor_of(plan: Plan | Validation, store: FeatureStore | None = None) -> Extractor:
    return Extractor(
        plan.profile,
        WeightsStore.locate(),
        store or FeatureStore.locate(),
        faces=plan.protocol.card.faces,
    )


def timeless(content: RunRecord | dict[str, Any]) -> dict[str, Any]:
    """Return a record without its timings, as it comes back from a file."""
    plain = content.plain() if isinstance(content, RunRecord) else content
    record: dict[str, Any] = json.loads(json.dumps(plain))
    record.pop("timings")
    record.pop("checksum", None)  # of the timings, too
    return record


def entries(folder: Path) -> dict[str, tuple[int, int]]:
    """Each stored feature with its inode and time: another means that it was written again."""
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in folder.rglob("*.safetensors")}


@pytest.fixture(scope="module")
def alone(
    cards: Path, demo_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """The record of one process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPFEM_BENCH_CARDS", str(cards))
        patch.setenv("SPFEM_BENCH_CACHE", str(demo_cache))
        store = FeatureStore(tmp_path_factory.mktemp("alone"))
        plan = planned()
        return timeless(
            evaluate(plan, extractor_of(plan, store), workers=ThisProcess(), partial=False)
        )


def one_clip(plan: Plan) -> dict[Any, Any]:
    """Return the requests of one of a plan's clips."""
    return dict([*plan_requests(plan).items()][:1])


# ---- a cluster on this machine ---------------------------------------------------------------


@dataclass(frozen=True)
class Nodes:
    """Three Ray nodes that run on this machine, each with one processor and a cache of its own."""

    cluster: Any
    doomed: Any
    caches: Path

    @property
    def address(self) -> str:
        return str(self.cluster.address)


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    try:
        cluster_joining.import_ray("auto")  # silenced before it is imported
    except SpfemBenchError as error:
        pytest.skip(str(error))
    from ray.cluster_utils import Cluster

    caches, made = tmp_path_factory.mktemp("nodes"), Cluster()
    path = os.pathsep.join(
        [str(ROOT), str(Path(__file__).parent)]
    )  # workers unpickle the stores below
    try:
        *_, last = (
            made.add_node(
                num_cpus=1,
                include_dashboard=False,
                env_vars={"SPFEM_BENCH_CACHE": str(caches / name), "PYTHONPATH": path},
            )
            for name in ("head", "second", "third")
        )
        yield Nodes(made, last, caches)
    finally:
        made.shutdown()


@pytest.fixture(scope="module")
def team(nodes: Nodes) -> Iterator[cluster.RayWorkers]:
    """One worker a node, for several tests: they keep their networks."""
    with workers_for(Computing(ray=nodes.address)) as made:
        assert isinstance(made, cluster.RayWorkers)
        made.start_all()
        yield made


@dataclass(frozen=True)
class LoggingStore(FeatureStore):
    """Writes down each feature that is stored, and by which process."""

    log: Path = Path()

    def put(self, made_of: Any, arrays: Arrays) -> None:
        with self.log.open("a") as file:
            file.write(f"{self.path(made_of).name} {os.getpid()}\n")
        super().put(made_of, arrays)
        time.sleep(0.1)  # or all is done before a node can be ended

    def logged(self) -> list[tuple[str, str]]:
        return [tuple(line.split()) for line in self.log.read_text().splitlines()]  # type: ignore[misc]


@dataclass(frozen=True)
class DeadlyStore(FeatureStore):
    """Ends the process that has features of one clip to store."""

    clip: str = ""
    log: Path = Path()

    def put(self, made_of: Any, arrays: Arrays) -> None:
        if made_of["clip"] == self.clip:
            with self.log.open("a") as file:
                file.write("died\n")
            os._exit(1)
        super().put(made_of, arrays)


def test_ctrl_c_ends_the_workers_and_the_next_run_goes_on(
    nodes: Nodes,
    fresh: Callable[[str], Path],
    alone: dict[str, Any],
    tmp_path: Path,
) -> None:
    import ray

    store = fresh("spread") / "features"
    going = subprocess.Popen(
        command("--ray", nodes.address, "--workers", "2"),
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell runs in the background ignores Ctrl-C, and hands that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while going.poll() is None and len(entries(store)) < 6:
        time.sleep(0.05)
    going.send_signal(signal.SIGINT)
    out, said = going.communicate(timeout=60)
    assert (going.returncode, out) == (130, ""), said
    assert said == "Interrupted. Run the command again: it goes on from here.\n"
    kept = entries(store)
    with workers_for(Computing(ray=nodes.address)):
        until = time.monotonic() + 30
        while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
            assert time.monotonic() < until, "workers of the run before are still there"
            time.sleep(0.2)
    # Ray may end a worker while it writes: the next process to write removes what that leaves.
    files._cleaned.discard(store)
    files.remove_stale(store)
    assert not list(store.glob(".new-*"))
    plan = planned()
    record = evaluate(plan, extractor_of(plan), workers=ThisProcess(), partial=False)
    assert timeless(record) == alone
    assert 6 <= len(kept) < len(entries(store))
    assert entries(store).items() >= kept.items()


def test_a_validation_on_ray_is_that_of_one_process(
    team: cluster.RayWorkers, fresh: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh("validated")
    validation = plan_validation(
        protocol("spans"),
        profile_card("compact"),
        data=DataFolders.locate(),
        weights=WeightsStore.locate(),
        controls=["blurred"],
        metrics=["csim"],
    )
    x = extractor_of(validation)
    spread = timeless(run_validation(validation, x, workers=team))
    monkeypatch.setattr(
        "spfem_bench.features.tracking.load_network",
        lambda *_: pytest.fail("what a worker has stored is computed again"),
    )
    assert spread["cells"] and spread == timeless(
        run_validation(validation, x, workers=ThisProcess())
    )


def test_a_node_that_dies_costs_its_unfinished_clips_and_nothing_else(
    nodes: Nodes,
    team: cluster.RayWorkers,
    fresh: Callable[[str], Path],
    alone: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh("spread")
    plan = planned()
    store = LoggingStore(FeatureStore.locate().folder, tmp_path / "log")
    store.log.touch()
    kept: dict[str, tuple[int, int]] = {}
    lost: list[int] = []
    retry_or_refuse = cluster.retry_or_refuse
    monkeypatch.setattr(
        cluster,
        "retry_or_refuse",
        lambda portion, *rest: (lost.append(len(portion.keys)), retry_or_refuse(portion, *rest))[1],
    )

    def kill() -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            stored = Counter(process for _, process in store.logged())
            if len(stored) == 3 and min(stored.values()) >= 3:
                break
            time.sleep(0.02)
        # SIGKILL for the node's raylet, and its workers end with it.
        nodes.cluster.remove_node(nodes.doomed, allow_graceful=False)
        kept.update(entries(store.folder))

    killer = threading.Thread(target=kill)
    killer.start()
    # Three nodes begin; two go on.
    record = evaluate(plan, extractor_of(plan, store), workers=team, partial=False)
    killer.join()
    assert timeless(record) == alone
    assert len(lost) == 1 and 9 <= len(kept) < len(entries(store.folder))
    assert entries(store.folder).items() >= kept.items(), "stored features are not redone"
    times = Counter(name for name, _ in store.logged())
    assert times.keys() == entries(store.folder).keys()
    # One may have been computed, and its worker killed before it was stored.
    assert sum(times.values()) - len(times) <= 1
    assert len({process for _, process in store.logged()}) == 3


def scored_by(job: int) -> tuple[int, int]:
    """Return the job and the process that did it; the first takes a while."""
    time.sleep(0.5)
    return job, os.getpid()


def fail_for_good(job: int) -> int:
    raise CardError(f"no {job}")


def test_idle_workers_score_and_an_error_of_theirs_names_the_node(
    team: cluster.RayWorkers, fresh: Callable[[str], Path]
) -> None:
    store = fresh("spread") / "features"
    done = list(team.each(scored_by, range(6), store=store))
    assert [job for job, _ in done] == [*range(6)]
    others = {process for _, process in done} - {os.getpid()}
    assert len(others) >= 2 and not team._scoring
    with pytest.raises(CardError, match=rf"on node {NODE}: no 1"):
        list(team.each(fail_for_good, [1], store=store))
    # Where only this process reaches the store, it does all.
    team._apart.update(team._idle)
    assert {process for _, process in team.each(scored_by, [1], store=store)} == {os.getpid()}
    team._apart.clear()


def test_a_plan_is_scored_by_another_worker_when_its_own_dies(
    team: cluster.RayWorkers, fresh: Callable[[str], Path], alone: dict[str, Any]
) -> None:
    import ray

    fresh("spread")
    plan = planned()
    weights = WeightsStore.locate()

    hand_over = team._hand_over

    def kill(*given: Any) -> Any:
        reference, worker = hand_over(*given)
        if worker is not None and not killed:
            killed.append(worker)
            ray.kill(worker)
        return reference, worker

    killed: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(team, "_hand_over", kill)
        records = [*carry_out([plan, plan], weights, Computing(), workers=team, partial=False)]
    assert killed and [timeless(r) for r in records] == [alone, alone]


def test_nodes_without_the_store_keep_their_own_and_send_features(
    nodes: Nodes,
    team: cluster.RayWorkers,
    fresh: Callable[[str], Path],
    alone: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh("spread")

    @contextmanager
    def unseen(folder: Path) -> Iterator[Path]:
        yield folder / "no such file"

    monkeypatch.setattr(cluster, "marker", unseen)
    plan = planned()
    record = evaluate(plan, extractor_of(plan), workers=team, partial=False)
    assert timeless(record) == alone
    own = [entries(folder) for folder in nodes.caches.iterdir()]
    here = entries(FeatureStore.locate().folder)
    assert set().union(*own) == here.keys() and len(here) >= 3 * ITEMS
    assert sum(map(len, own)) == len(here), "two nodes have seen one clip"


def test_a_clip_that_kills_its_workers_is_refused_and_the_others_are_computed(
    team: cluster.RayWorkers,
    fresh: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh("spread")
    plan = planned()
    x = extractor_of(plan)
    wants = dict(list(plan_requests(plan).items())[:12])
    short = replace(next(iter(wants)), span=Span(0.0, 0.2))
    wants[short] = frozenset({"sync"})
    victim = list(wants)[2]
    monkeypatch.setattr(cluster_results, "MAX_DEATHS", 2)  # each is a new process with torch
    deadly = DeadlyStore(x.store.folder, x.key(victim, "identity")["clip"], tmp_path / "log")
    failures = team.compute(replace(x, store=deadly), wants)
    said = {(clip, want): str(error) for (clip, want), error in failures.items()}
    assert said.keys() == {(short, "sync")} | {(victim, want) for want in wants[victim]}
    # The message of one process, and once: no worker died with it.
    assert said.pop((short, "sync")) == str(x.ensure({short: wants[short]})[short, "sync"])
    for text in said.values():
        assert re.search(r"mp4.*: 2 Ray workers died while they had it, the last on", text)
    assert (tmp_path / "log").read_text() == "died\n" * 2
    others = wants.keys() - {victim, short}
    assert all(x.load(clip, role) for clip in others for role in wants[clip])  # type: ignore[arg-type]


def test_clips_that_a_node_cannot_read_are_reported_with_its_name(
    team: cluster.RayWorkers,
    fresh: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh("spread")
    plan = planned()
    x, (clip, roles) = extractor_of(plan), next(iter(plan_requests(plan).items()))
    own = replace(clip, path=tmp_path / "own.mp4")
    changes: list[tuple[Callable[[], object], str]] = [
        (lambda: own.path.write_bytes(b"x"), r"own\.mp4.* other content than where"),
        (own.path.unlink, r"own\.mp4: No such file"),
    ]
    for change, said in changes:
        own.path.write_bytes(clip.path.read_bytes())

        def missing_then_changed(
            *given: Any, change: Callable[[], object] = change, **settings: Any
        ) -> Any:
            lacking = missing(*given, **settings)
            change()
            return lacking

        monkeypatch.setattr("spfem_bench.execution.cluster.missing", missing_then_changed)
        with pytest.raises(SpfemBenchError, match=f"^on node {NODE}: .*{said}") as caught:
            team.compute(x, {own: roles})
        assert len(str(caught.value).splitlines()) == 1


def test_a_node_with_another_ffmpeg_is_refused_with_both_versions(
    nodes: Nodes,
    team: cluster.RayWorkers,
    fresh: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fresh("spread")
    plan, there = planned(), cluster.node_versions()
    x = extractor_of(plan)
    monkeypatch.setattr(cluster, "node_versions", lambda: {**there, "ffmpeg": "0.1"})
    team.end()  # workers are asked when they begin
    said = rf"^node {NODE} has ffmpeg {re.escape(there['ffmpeg'])}, this machine 0\.1: features"
    with pytest.raises(SpfemBenchError, match=said):
        team.compute(x, one_clip(plan))
    assert not entries(x.store.folder)
    team.end()


@pytest.mark.usefixtures("team")
def test_more_workers_than_there_is_room_for_are_refused() -> None:
    for device, count, said in (
        ("cpu", 50, r"has \d processors and 0 GPUs: room for \d workers on cpu, not 50"),
        ("cuda", None, r"and 0 GPUs: room for 0 workers on cuda"),
    ):
        with (
            pytest.raises(SpfemBenchError, match=said),
            workers_for(Computing(device, workers=count, ray="auto")),
        ):
            pass


@pytest.mark.usefixtures("team")
def test_the_wait_for_workers_ends(
    fresh: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh("spread")
    plan = planned()
    monkeypatch.setattr(cluster, "PATIENCE", 0.5)  # a new process takes longer to import torch
    with (
        workers_for(Computing(workers=1, ray="auto")) as late,
        pytest.raises(SpfemBenchError, match="no Ray worker could be started within"),
    ):
        assert isinstance(late, cluster.RayWorkers)
        late.compute(extractor_of(plan), one_clip(plan))


def test_a_run_that_counted_on_a_node_which_is_gone_takes_what_is_left(
    team: cluster.RayWorkers, fresh: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray lists a node for a while after its end; a worker as large as that node never starts."""
    fresh("spread")
    team.end()  # its processors are free
    plan = planned()
    x, wants = extractor_of(plan), one_clip(plan)
    with ExitStack() as stack:
        with monkeypatch.context() as patch:
            patch.setattr(cluster.RayWorkers, "_alive", lambda self: [(1, 0), (16, 0)])
            late = stack.enter_context(workers_for(Computing(workers=1, ray="auto")))
        assert isinstance(late, cluster.RayWorkers)
        assert late._threads == 16
        assert not late.compute(x, wants)
        assert late._threads == 1
    ((clip, roles),) = wants.items()
    assert all(x.load(clip, role) for role in roles)  # type: ignore[arg-type]


def test_a_program_stays_in_the_cluster_that_it_has_joined(
    nodes: Nodes, team: cluster.RayWorkers
) -> None:
    import ray

    team.connect()
    with (
        pytest.raises(SpfemBenchError, match="has joined a Ray cluster already"),
        workers_for(Computing(ray=nodes.address)),
    ):
        pass
    with workers_for(Computing(workers=1, ray="auto")):
        pass
    assert ray.is_initialized()


# ---- the command line -----------------------------------------------------------------------


def command(*more: str) -> list[str]:
    return [sys.executable, "-m", "spfem_bench", *ARGUMENTS, *more]


def test_two_local_workers_give_the_record_of_one_process(
    fresh: Callable[[str], Path], alone: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="needs Ray: 'make test' installs it")
    fresh("spread")
    done = subprocess.run(
        command("--ray", "local", "--workers", "2", "--json"),
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert json.loads(done.stdout) == alone["scores"]
    record = json.loads((tmp_path / "results/spans/source.compact.json").read_text())
    assert timeless(record) == alone


def test_a_signal_ends_a_local_ray_and_what_a_kill_leaves_is_removed(
    fresh: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray", reason="needs Ray: pip install 'spfem-bench[ray]'")
    store, top = fresh("signalled") / "features", Path("/tmp")  # noqa: S108

    def sessions() -> set[Path]:
        return {*top.glob("spfem-bench-*/session_latest")}

    def ended_by(number: signal.Signals) -> tuple[int, str, list[Path]]:
        before = sessions()
        run = subprocess.Popen(
            command("--ray", "local", "--workers", "1"),
            cwd=tmp_path,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        while run.poll() is None and not (own := sessions() - before):
            time.sleep(0.05)
        while number == signal.SIGTERM and run.poll() is None and not entries(store):
            time.sleep(0.05)
        run.send_signal(number)
        said = run.communicate(timeout=60)[1]
        return run.returncode, said, [path.parent for path in sessions() & own]

    assert ended_by(signal.SIGTERM) == (
        143,
        "Interrupted. Run the command again: it goes on from here.\n",
        [],
    )
    code, _, left = ended_by(signal.SIGKILL)
    assert code == -signal.SIGKILL and len(left) == 1
    monkeypatch.setattr(files, "_cleaned", set())
    files.remove_stale(top)
    assert not any(p.exists() for p in left)
