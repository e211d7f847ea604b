"""Evaluations that are killed, crowded and given damaged stores, and what is left of their scores.

    python benchmarks/faults.py [--kills 500] [--seed 0] [--folder DIR]

Two clips of the demo are evaluated, first undisturbed. Then runs are killed (SIGKILL), half of
them at a random moment, half some milliseconds after a random file operation of theirs, for
writing takes too little of a run's time to be hit by chance. A run is killed up to ten times
and then left to end. After every kill each file of the store is read, and a record that is there
is compared; at the end of each life, record and features must be the undisturbed ones (all but
the record's timings). Every 25th life begins with nothing, so that rendering is killed, too.

Then two runs at once fill one store, entries are damaged in six ways, and time stamps are moved.

Runs are forked from a process that has imported everything: a kill costs about a second.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.numpy import load_file

from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.features.store import CHECKSUM, arrays_digest

SECONDS = 1.2
"""How much of each clip is looked at."""

PROTOCOL = "tiny"
METHOD = "source"
COMMAND = ["eval", "--protocol", PROTOCOL, "--method", METHOD, "--metrics", "fad,csim,lse-d", "-q"]


def write_protocol(cards: Path) -> None:
    """Write a protocol of two of the demo's clips, each cut short."""
    builtin = builtin_folder() / "protocols"
    (cards / "protocols").mkdir(parents=True)
    card = (builtin / "demo-inter-id.toml").read_text()
    card = card.replace('"demo-inter-id.csv"', f'"{PROTOCOL}.csv"')
    card = re.sub(r"(?m)^emotions = .*$", 'emotions = ["angry", "happy"]', card)
    card = re.sub(r'(?m)^((?:source|reference|real) = ".*\.mp4)"', rf'\1#t=0,{SECONDS}"', card)
    (cards / "protocols" / f"{PROTOCOL}.toml").write_text(card)
    head, *rows = (builtin / "demo-inter-id.csv").read_text().splitlines()
    chosen = [next(r for r in rows if f",{e}," in r) for e in ("angry", "happy")]
    (cards / "protocols" / f"{PROTOCOL}.csv").write_text("\n".join([head, *chosen]) + "\n")


@dataclass(frozen=True)
class Life:
    """A folder in which one evaluation runs, is killed, and runs again."""

    folder: Path

    @property
    def store(self) -> Path:
        """Where its features are."""
        return self.folder / "cache" / "features"

    def entries(self) -> dict[str, str]:
        """Return the checksum of each entry's arrays, by name.

        Raises:
            AssertionError: one cannot be read, or is not what was written.
        """
        found = {}
        for path in self.store.rglob("*.safetensors"):
            try:
                with safe_open(path, "np") as file:
                    checksum = file.metadata()[CHECKSUM]
                arrays = load_file(path)
            except Exception as error:  # whatever it is, it is what this looks for
                raise AssertionError(f"{path}: {error}") from error
            assert checksum == arrays_digest(arrays, path.stem), path
            found[path.name] = arrays_digest(arrays)
        return found

    def record(self) -> dict[str, Any] | None:
        """Return the record without its timings; None when there is none."""
        path = self.folder / "results" / PROTOCOL / f"{METHOD}.compact.json"
        if not path.exists():
            return None
        record = json.loads(path.read_bytes())
        assert record.pop("timings") and record.pop("checksum")
        return dict(record)

    def stage(self, whole: Undisturbed) -> str:
        """Say how far it has come, by what it has left."""
        if self.record() is not None:
            return "record there"
        stored = len(self.entries())
        if stored == len(whole.entries):
            return "all features there"
        return "some features there" if stored else "no feature yet"


@dataclass(frozen=True)
class Undisturbed:
    """What an evaluation gives when nothing happens to it."""

    record: dict[str, Any]
    entries: dict[str, str]
    seconds: float
    operations: int

    def check(self, life: Life) -> None:
        """Raise AssertionError unless a life has ended with the same record and features."""
        assert life.record() == self.record, f"{life.folder}: another record"
        assert life.entries() == self.entries, f"{life.folder}: other features"


def begin(life: Life, die_after: int | None = None, wait: float = 0) -> int:
    """Fork a process that evaluates, and return its number.

    Args:
        life: where.
        die_after: the file operation after which it kills itself; None for none.
        wait: seconds between that operation and the end.
    """
    sys.stdout.flush()
    if pid := os.fork():
        return pid
    code = 70
    try:
        os.chdir(life.folder)
        os.environ["SPFEM_BENCH_CACHE"] = str(life.folder / "cache")
        count = 0

        def operation(event: str, _: tuple[Any, ...]) -> None:
            nonlocal count
            if event in ("open", "os.rename", "os.remove", "subprocess.Popen"):
                count += 1
                if count == die_after:
                    threading.Timer(wait, os.kill, (os.getpid(), signal.SIGKILL)).start()

        sys.addaudithook(operation)
        from spfem_bench.cli.main import main

        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            try:
                main(COMMAND, standalone_mode=False)
                code = 0
            except SystemExit as end:
                code = int(end.code or 0)
            except BaseException as error:
                print(type(error).__name__, error)
        (life.folder / "said").write_text(f"{code}\n{said.getvalue()}")
        (life.folder / "counted").write_text(str(count))
        if not (life.folder / "modules").exists():
            (life.folder / "modules").write_text("\n".join(sys.modules))
    finally:
        os._exit(code)


def finish(life: Life) -> None:
    """Let a run go to its end, which must be a good one."""
    _, status = os.waitpid(begin(life), 0)
    assert status == 0, (life.folder / "said").read_text()


@contextmanager
def prepared(folder: Path) -> Iterator[tuple[Undisturbed, Callable[[str], Life]]]:
    """Evaluate undisturbed, import what that needed, and yield what makes further lives."""
    write_protocol(folder / "cards")
    os.environ["SPFEM_BENCH_CARDS"] = str(folder / "cards")
    first = Life(folder / "first")
    first.folder.mkdir()
    finish(first)
    for name in (first.folder / "modules").read_text().split():
        if name.split(".")[0] in ("spfem_bench", "torch", "cv2", "scipy", "PIL", "ffmpeg", "numpy"):
            try:
                __import__(name)
            except ImportError:
                continue

    def live(name: str) -> Life:
        """Make a life with its clips rendered."""
        life = Life(folder / name)
        (life.folder / "cache").mkdir(parents=True)
        (life.folder / "cache" / "data").symlink_to(first.folder / "cache" / "data")
        return life

    again = live("again")
    began = time.monotonic()
    finish(again)
    seconds = time.monotonic() - began
    record = again.record()
    assert record is not None
    counted = int((again.folder / "counted").read_text())
    whole = Undisturbed(record, again.entries(), seconds, counted)
    assert whole.entries
    whole.check(first)
    yield whole, live


def killed(life: Life, whole: Undisturbed, rng: random.Random, *, share: float = 1) -> str | None:
    """Begin a run and kill it; return how, or None when it ended before.

    Args:
        life: where.
        whole: for how long a run lasts, and how many file operations it has.
        rng: draws the moment.
        share: of that time and number, within which it is killed.
    """
    if rng.random() < 0.5:
        how = "at a file operation"
        at = rng.randint(1, max(1, round(whole.operations * share)))
        pid = begin(life, at, rng.uniform(0, 0.005))
        _, status = os.waitpid(pid, 0)
    else:
        how = "at a moment"
        pid = begin(life)
        time.sleep(rng.uniform(0, whole.seconds * share))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return how
    assert os.waitstatus_to_exitcode(status) == 0, (life.folder / "said").read_text()
    return None


def kill_many(
    whole: Undisturbed, live: Callable[[str], Life], kills: int, seed: int, cold: int
) -> tuple[Counter[tuple[str, str]], int]:
    """Kill runs, and compare what is left.

    Args:
        whole: the undisturbed run.
        live: makes lives.
        kills: how many in all.
        seed: of the moments.
        cold: every how many lives one begins without rendered clips; 0 for none.

    Returns:
        How many kills there were, by how and how far the run had come; and how many lives.
    """
    rng = random.Random(seed)
    counts: Counter[tuple[str, str]] = Counter()
    lives = 0
    while sum(counts.values()) < kills:
        lives += 1
        bare = bool(cold) and lives % cold == 0
        life = live(f"life-{lives}")
        if bare:
            (life.folder / "cache" / "data").unlink()
        for _ in range(rng.randint(1, 10)):
            # Rendering takes some times as long as the rest.
            how = killed(life, whole, rng, share=4 if bare else 1)
            stage = life.stage(whole)  # reads every entry
            record = life.record()
            assert record is None or record == whole.record, f"{life.folder}: another record"
            if how is None or sum(counts.values()) == kills:
                break
            counts[how, "rendering" if bare and stage == "no feature yet" else stage] += 1
        finish(life)
        whole.check(life)
        shutil.rmtree(life.folder)
    return counts, lives


def two_at_once(whole: Undisturbed, live: Callable[[str], Life], rounds: int) -> None:
    """Let two runs fill one store at the same time, and compare both records."""
    for n in range(rounds):
        one, two = live(f"one-{n}"), Life(one_folder := live(f"two-{n}").folder)
        shutil.rmtree(one_folder / "cache")
        (one_folder / "cache").symlink_to(one.folder / "cache")
        pids = begin(one), begin(two)
        for pid in pids:
            assert os.waitpid(pid, 0)[1] == 0
        whole.check(one)
        whole.check(two)
        shutil.rmtree(one.folder)
        shutil.rmtree(two.folder)


def damages(rng: random.Random) -> dict[str, Callable[[bytes, bytes], bytes]]:
    """Return ways to spoil an entry, by name: of its bytes and another entry's."""

    def flipped(content: bytes, _: bytes) -> bytes:
        spoilt = bytearray(content)
        for _ in range(rng.randint(1, 8)):
            spoilt[rng.randrange(len(spoilt))] ^= 1 << rng.randrange(8)
        return bytes(spoilt)

    return {
        "cut short": lambda content, _: content[: rng.randrange(len(content))],
        "bits flipped": flipped,
        "emptied": lambda _, __: b"",
        "zeros of its length": lambda content, _: bytes(len(content)),
        "another entry's content": lambda _, other: other,
        "grown": lambda content, _: content + content[:100],
    }


def spoil(
    whole: Undisturbed, live: Callable[[str], Life], seed: int, rounds: int
) -> dict[str, int]:
    """Damage all entries of a store, run again, and compare; return how many of each kind."""
    rng = random.Random(seed)
    life = live("spoilt")
    finish(life)
    counts: Counter[str] = Counter()
    for kind, damage in damages(rng).items():
        for _ in range(rounds):
            paths = sorted(life.store.rglob("*.safetensors"))
            contents = [p.read_bytes() for p in paths]
            for i, path in enumerate(paths):
                path.write_bytes(damage(contents[i], contents[i - 1]))
                counts[kind] += 1
            finish(life)
            assert life.record() == whole.record, f"{kind}: another record"
    shutil.rmtree(life.folder)
    return counts


def moved_clock(whole: Undisturbed, live: Callable[[str], Life]) -> list[str]:
    """Give all of a store's files time stamps of other years; nothing may be done again."""
    life = live("clock")
    finish(life)
    years = {"1971": 3.2e7, "2100": 4.1e9}
    for stamp in years.values():
        for path in life.store.rglob("*.safetensors"):
            os.utime(path, (stamp, stamp))
        finish(life)
        whole.check(life)
        assert {p.stat().st_mtime for p in life.store.rglob("*.safetensors")} == {stamp}, (
            "done again"
        )
    shutil.rmtree(life.folder)
    return list(years)


def main() -> None:
    """Do all of it, and print what was done and found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=5, help="of what comes after the kills")
    parser.add_argument("--cold", type=int, default=25, help="every how many lives render; 0: none")
    parser.add_argument("--folder", type=Path, help="on the disk to be tried; a temporary one")
    given = parser.parse_args()
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(dir=given.folder) as folder,
        prepared(Path(folder)) as (whole, live),
    ):
        print(
            f"undisturbed: {whole.seconds:.2f} s, {whole.operations} file operations, "
            f"{len(whole.entries)} entries"
        )
        counts, lives = kill_many(whole, live, given.kills, given.seed, given.cold)
        stages = [
            "rendering",
            "no feature yet",
            "some features there",
            "all features there",
            "record there",
        ]
        print(f"\n{'killed':24}" + "".join(f"{s:>21}" for s in stages))
        for how in ("at a moment", "at a file operation"):
            print(f"{how:24}" + "".join(f"{counts[how, s]:21}" for s in stages))
        print(
            f"\n{sum(counts.values())} kills in {lives} lives: 0 corrupted records or entries, "
            "0 differing scores"
        )
        two_at_once(whole, live, given.rounds)
        print(f"two runs at once on one store: {given.rounds} rounds, both records identical")
        for kind, count in spoil(whole, live, given.seed, given.rounds).items():
            print(f"entries {kind}: {count}, all computed again, record identical")
        print(f"time stamps of {', '.join(moved_clock(whole, live))}: nothing computed again")
    print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
