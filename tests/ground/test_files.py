"""Temporary files of dead and of live processes, locks, and files that are no files."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spfem_bench import files, pinned
from spfem_bench.datasets import recordings_index
from spfem_bench.definitions import pins
from spfem_bench.definitions.cards import read_card, read_toml
from spfem_bench.definitions.lists import read_list
from spfem_bench.definitions.metrics import MetricCard
from spfem_bench.errors import SpfemBenchError, StorageError
from spfem_bench.evaluation import record
from spfem_bench.features.store import FeatureStore
from spfem_bench.files import atomic_file, locked, temporary_folder, write_atomically
from spfem_bench.reporting.report import folder as report_folder
from tests.conftest import ROOT

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and files")


@pytest.fixture(autouse=True)
def _new_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test stands for a process that has looked into no folder yet."""
    monkeypatch.setattr(files, "_cleaned", set())


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ---- dead and live processes ---------------------------------------------------------------

HOLD = """
import sys, time
import click
from pathlib import Path
from spfem_bench.cli.main import main
from spfem_bench.files import atomic_file, locked, temporary_folder

folder = Path(sys.argv[1])

@main.command()
def hold():
    with temporary_folder() as made, atomic_file(folder / "a.bin") as file, locked(folder / "b"):
        (made / "clip.mp4").write_bytes(b"half")
        file.write(b"half")
        file.flush()
        click.echo(made)
        time.sleep(60)

main(["hold"])
"""


@pytest.fixture
def hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    """Start processes in the middle of writing a file and a folder of temporary ones."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(files.tempfile, "tempdir", str(tmp_path / "tmp"))
    running = []

    def start() -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path / "tmp")}
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, tmp_path / "out"],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # What a shell runs in the background ignores Ctrl-C, and hands that down.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        running.append(process)
        assert process.stdout is not None and process.stdout.readline()
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_with_one_line_and_no_file(
    hold: Callable[[], subprocess.Popen[str]], tmp_path: Path, number: signal.Signals
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored where the tests run under nohup
    try:
        process = hold()
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(number)
    assert process.communicate(timeout=30) == ("", "Interrupted.\n")
    assert process.returncode == 128 + number
    assert names(tmp_path / "out") == names(tmp_path / "tmp") == []


@posix
def test_a_signal_that_nohup_ignores_stays_ignored(
    hold: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # inherited
    try:
        process = hold()
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM


@posix
def test_what_a_killed_process_leaves_is_removed_by_the_next(
    hold: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = hold()
    process.kill()
    process.communicate()
    left = names(tmp_path / "out")
    assert (
        len(left) == 2
        and all(n.startswith(files.NEW) for n in left)
        and len(names(tmp_path / "tmp")) == 1
    )
    write_atomically(tmp_path / "out/c", b"")
    with temporary_folder() as folder:
        assert names(tmp_path / "tmp") == [folder.name]
    assert names(tmp_path / "out") == ["c"]


@posix
def test_what_a_live_process_writes_is_left_alone_however_old(
    hold: Callable[[], subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = hold()
    paths = [*(tmp_path / "out").iterdir(), *(tmp_path / "tmp").rglob("*"), tmp_path / "tmp"]
    for path in paths:
        os.utime(path, (1, 1))
    write_atomically(tmp_path / "out/c", b"")
    with temporary_folder():
        pass
    assert process.poll() is None and all(path.exists() for path in paths)


def test_without_locks_only_age_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_lock", lambda file: None)  # some network file systems
    old, new = (tmp_path / f"{files.NEW}{age}" for age in ("old", "new"))
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (1, 1))
    write_atomically(tmp_path / "a", b"whole")
    assert names(tmp_path) == [new.name, "a"]
    with pytest.raises(StorageError, match="has no locks"), locked(tmp_path / "a"):
        pass


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp/kept").touch()
    (tmp_path / f"{files.NEW}link").symlink_to(tmp_path / "tmp/kept")
    (tmp_path / "spfem-bench-link").symlink_to(tmp_path / "tmp")
    (tmp_path / "spfem-bench-own").mkdir()  # without the file that marks ours
    for name in (".new-other", ".a.lock", "spfem-bench-file"):
        (tmp_path / name).touch()
    before = names(tmp_path)
    write_atomically(tmp_path / "a", b"")
    assert names(tmp_path) == sorted([*before, "a"])
    assert (tmp_path / "tmp/kept").exists()


def test_a_stores_temporary_files_lie_where_the_next_run_looks(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    (tmp_path / f"{files.NEW}dead").write_bytes(b"half")
    store.put({"clip": 1}, {"x": np.arange(3)})
    assert names(tmp_path) == [store.path({"clip": 1}).parent.name]
    with atomic_file(tmp_path / "sub/a", tmp_path):
        assert names(tmp_path / "sub") == []


def test_a_lock_lets_one_thread_in_at_a_time(tmp_path: Path) -> None:
    path, inside, most = tmp_path / "count", [0], [0]
    path.write_text("0")

    def add() -> None:
        for _ in range(20):
            with locked(path):
                inside[0] += 1
                most[0] = max(most[0], inside[0])
                path.write_text(str(int(path.read_text()) + 1))
                inside[0] -= 1

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (path.read_text(), most[0]) == ("60", 1)
    assert names(tmp_path) == ["count"]


# ---- stores that may only be read ----------------------------------------------------------

READ_ONLY = """
import sys
from pathlib import Path
import numpy as np
from spfem_bench.errors import StorageError
from spfem_bench.features.store import FeatureStore

store = FeatureStore(Path(sys.argv[1]))
assert store.get({"clip": 1})["x"].tolist() == [0, 1, 2]
assert store.get({"clip": "damaged"}) is None
try:
    store.check_writable()
except StorageError as error:
    print(error)
"""


def test_a_store_that_may_only_be_read_is_read(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path / "store")
    store.put({"clip": 1}, {"x": np.arange(3)})
    damaged = store.path({"clip": "damaged"})
    write_atomically(damaged, b"damaged")
    mount = 'mount --bind "$1" "$1" && mount -o remount,ro,bind "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", store.folder, sys.executable, READ_ONLY]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    except FileNotFoundError:
        pytest.skip("needs unshare, to mount a folder read-only for one process")
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"may not mount a folder here: {done.stderr.strip()[:80]}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"cannot write {store.folder}: Read-only file system.")
    assert damaged.exists()


# ---- files that never end ------------------------------------------------------------------


def key_of(path: Path) -> Any:
    store = FeatureStore(path.parent / "store")
    entry = store.path({"clip": 1})
    entry.parent.mkdir(parents=True)
    path.rename(entry)
    return store.get({"clip": 1})


def pins_of(path: Path) -> Any:
    pins.pins_path().parent.mkdir(parents=True)
    path.rename(pins.pins_path())
    return pins.read_pins()


def sums_of(path: Path) -> Any:
    path.rename(path.with_name(report_folder.SUMS))
    return report_folder.listed(path.parent)


READERS: dict[str, Callable[[Path], Any]] = {
    "store": key_of,
    "pins": pins_of,
    "report": sums_of,
    "card": lambda path: read_card(MetricCard, path),
    "settings": lambda path: read_toml(MetricCard, path, "Give another"),
    "list": read_list,
    "record": record.load_run,
    "index": recordings_index.read_index,
    "weights": lambda path: pinned.read_verified(
        path, pinned.PinnedFile(name="a", sha256="0" * 64), "Fetch it again"
    ),
}


@posix
@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_what_never_ends_is_refused_in_one_line(
    tmp_path: Path, read: Callable[[Path], Any], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's name must be short
    path = tmp_path / "a.toml"
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind("a.toml")
    else:
        path.symlink_to("/dev/zero")
    found: list[BaseException | None] = []

    def attempt() -> None:
        try:
            read(path)
            found.append(None)
        except SpfemBenchError as error:
            found.append(error)

    thread = threading.Thread(target=attempt, daemon=True)  # it may wait for ever
    thread.start()
    thread.join(20)
    assert found and isinstance(found[0], SpfemBenchError), found
    assert "a FIFO, a socket or a device" in str(found[0])
    assert len(str(found[0]).splitlines()) == 1
