"""Evaluations spread over processes of one machine: the same records, and nothing done twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spfem_bench import hashes
from spfem_bench.errors import SpfemBenchError
from spfem_bench.execution.processes import Processes
from tests.conftest import STRIPS, Outcome, World

Run = Callable[..., Outcome]
EVAL = ("eval", "--protocol", "mini", "--profile", "mini", "--metrics", "fad,csim", "-q")
METHODS = ("--method", "ned", "--method", "source")


def records_of(folder: Path) -> dict[str, Any]:
    found = {}
    for path in sorted((folder / "results" / "mini").glob("*.json")):
        found[path.name] = json.loads(path.read_text())
        timings = found[path.name].pop("timings")
        found[path.name].pop("checksum")  # of the timings, too
        assert timings["features_s"] >= 0 and timings["scores_s"] > 0 and timings["started"]
    return found


def damage(store: Path) -> int:
    """Flip a bit in every third file of features."""
    damaged = sorted((store / "features").rglob("*.safetensors"))[::3]
    for path in damaged:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    return len(damaged)


def test_several_methods_in_processes_have_the_records_of_one(
    spfem_bench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spfem_bench(*EVAL, *METHODS).code == 0
    alone = records_of(tmp_path)
    assert len(alone) == 2
    monkeypatch.setenv("SPFEM_BENCH_CACHE", str(tmp_path / "cache"))

    def spread() -> dict[str, Any]:
        for record in (tmp_path / "results").rglob("*.json"):
            record.unlink()
        done = spfem_bench(*EVAL, *METHODS, "--workers", "2")
        assert done.code == 0, done.err
        return records_of(tmp_path)

    cold = spread()
    assert cold.keys() == alone.keys()
    for name, record in cold.items():
        assert len(record["scores"]) == len(alone[name]["scores"]) == 6
        for ours, score in zip(record["scores"], alone[name]["scores"], strict=True):
            for number in ("value", "low", "high"):  # one thread and two do not add in one order
                assert ours.pop(number) == pytest.approx(score.pop(number), rel=1e-5)
            assert ours == score  # counts, coverage, notes, signature
    cold = spread()
    assert damage(tmp_path / "cache") > 5
    assert spread() == cold, "what was damaged is computed again"


def test_unreadable_clips_are_refused_in_processes_too(
    spfem_bench: Run, own: Path, tmp_path: Path
) -> None:
    (own / f"{STRIPS[0]}.mkv").write_bytes((own / f"{STRIPS[0]}.mkv").read_bytes()[:20_000])
    command = (*EVAL, "--partial", "--method", "mine", "--videos", f"mine={own}", "--method", "ned")
    refused = []
    for variant in ([], ["--workers", "2"], ["--workers", "2"]):
        done = spfem_bench(*command, *variant)
        assert done.code == 0, done.err
        refused.append(records_of(tmp_path)["mine.mini.json"]["refused"])
    assert refused[0] and refused[0] == refused[1] == refused[2]


def test_one_plan_or_stored_features_start_no_process(
    spfem_bench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spfem_bench(*EVAL, "--method", "ned").code == 0
    monkeypatch.setattr(Processes, "_started", lambda _: pytest.fail("a process was started"))
    assert spfem_bench(*EVAL, "--method", "ned", "--workers", "2").code == 0


def test_a_warm_evaluation_waits_for_no_torch(
    spfem_bench: Run, world: World, common_cache: Path, tmp_path: Path
) -> None:
    assert spfem_bench(*EVAL, "--method", "ned").code == 0
    script = (
        "import sys\n"
        "from spfem_bench.cli.main import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print([m for m in ('torch', 'onnxruntime', 'matplotlib') if m in sys.modules])\n"
    )
    command = [sys.executable, "-c", script, *EVAL, "--method", "ned"]
    environment = os.environ | world.environment(common_cache)
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def features(store: Path) -> list[Path]:
    """Return the features that are stored; the preflight stores that a header was read."""
    return [p for p in store.rglob("*.safetensors") if p.stat().st_size > 1000]


def children(of: int) -> list[int]:
    """Return the processes that work for one: not what tracks their resources."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == of and b"spawn_main" in (entry / "cmdline").read_bytes():
                found.append(int(entry.name))
        except OSError:  # it has ended meanwhile
            continue
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds processes as Linux shows them")
def test_ctrl_c_or_a_killed_process_is_one_line_and_the_next_run_goes_on(
    world: World, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "spfem_bench", *EVAL, *METHODS, "--workers", "2"]
    environment = os.environ | world.environment(tmp_path / "cache")
    store = tmp_path / "cache" / "features"

    def broken_off(after: int, how: Callable[[subprocess.Popen[str]], object]) -> tuple[int, str]:
        run = subprocess.Popen(
            command,
            cwd=tmp_path,
            env=environment,
            text=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
            # What a shell runs in the background ignores Ctrl-C, and hands that down.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        while run.poll() is None and len(features(store)) < after:
            time.sleep(0.02)
        how(run)
        err = run.communicate(timeout=30)[1]  # they hold the pipe open: all have ended then
        return run.returncode, err

    # As a terminal does: to all processes.
    code, err = broken_off(1, lambda run: os.killpg(run.pid, signal.SIGINT))
    assert (code, err) == (130, "Interrupted. Run the command again: it goes on from here.\n")
    # As a batch system does.
    more = len(features(store)) + 1
    code, err = broken_off(more, lambda run: os.killpg(run.pid, signal.SIGTERM))
    assert (code, err) == (143, "Interrupted. Run the command again: it goes on from here.\n")
    kept = {p: p.stat().st_mtime_ns for p in features(store)}
    code, err = broken_off(len(kept) + 1, lambda run: os.kill(children(run.pid)[0], signal.SIGKILL))
    assert code == 1 and "was killed" in err and "it goes on from what is stored" in err
    assert len(err.splitlines()) == 1
    kept |= {p: p.stat().st_mtime_ns for p in features(store)}
    assert subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode == 0
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items()), "kept features are not redone"
    assert len(records_of(tmp_path)) == 2


def test_hashes_of_another_process_are_trusted_while_files_stay_so(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    one = hashes.known_sha256(path)
    known = hashes.hashes_known({tmp_path})
    assert known == hashes.hashes_known({path}) and list(known) == [path]
    assert hashes.hashes_known({tmp_path / "b"}) == {}
    hashes.trust({path: (known[path][0], "f" * 64)})  # as refused, while nothing has changed
    assert hashes.known_sha256(path) == "f" * 64
    path.write_bytes(b"two!")
    assert hashes.known_sha256(path) == hashes.sha256_of(path) != one


def test_the_oldest_hashes_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_hashes", {})
    monkeypatch.setattr(hashes, "MOST_HASHES", 3)
    paths = [tmp_path / str(n) for n in range(5)]
    for path in paths:
        path.write_bytes(path.name.encode())
        hashes.known_sha256(path)
    assert list(hashes._hashes) == paths[-3:]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--method", "a", "--method", "b", "--videos", "."], "type --videos NAME=."),
        (["--method", "a", "--videos", "b=."], "there is no --method b"),
        (["--method", "a", "--videos", "a=.", "--videos", "a=."], "given twice for a"),
        (["--method", "controls", "--videos", "."], "controls have none; add --method NAME"),
    ],
)
def test_the_method_of_videos_must_be_clear(spfem_bench: Run, given: list[str], said: str) -> None:
    done = spfem_bench(*EVAL, *given)
    assert done.code == 2 and said in done.err


def test_a_folder_may_have_a_sign_of_equality_in_its_name(
    spfem_bench: Run, own: Path, tmp_path: Path
) -> None:
    odd = own.rename(tmp_path / "lr=1")
    assert spfem_bench(*EVAL, "--method", "mine", "--videos", odd).code == 0
    assert spfem_bench(*EVAL, "--method", "mine", "--videos", f"mine={odd}").code == 0
    done = spfem_bench(*EVAL, "--method", "mine", "--videos", "mine=nowhere")
    assert done.code != 0 and "nowhere" in done.err


def test_an_error_in_a_process_is_raised_as_in_this_one() -> None:
    team = Processes(2)
    try:
        with pytest.raises(SpfemBenchError, match="not there") as caught:
            list(team.each(_fail, [1, 2, 3]))
        assert caught.value.remedy == "Look again"
    finally:
        team.end()


def _fail(number: int) -> int:
    raise SpfemBenchError(f"{number} is not there", "Look again")
