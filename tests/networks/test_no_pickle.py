"""Nothing that is read can run: no pickle, no eval, no shell, in our text and while it works."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import spfem_bench
from benchmarks.faults import COMMAND, write_protocol
from tests.conftest import ROOT

PACKAGE = Path(spfem_bench.__file__).parent

MODULES = {
    "pickle",
    "cPickle",
    "_pickle",
    "dill",
    "cloudpickle",
    "joblib",
    "shelve",
    "marshal",
    "yaml",
    "runpy",
    "code",
    "imp",
    "ctypes",
}
NAMES = {"eval", "exec", "compile", "__import__", "execfile"}
ATTRIBUTES = {
    "read_pickle",
    "to_pickle",
    "system",
    "popen",
    "FileStorage",
    "load_module",
    "Unpickler",
    "mktemp",
    "getoutput",
    "getstatusoutput",
    "extractall",
    "unpack_archive",
}


def offences(text: str) -> list[str]:
    """Find what must not be in the package; ``network.eval()`` and ``re.compile`` are others."""
    found = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [f"import {a.name}" for a in node.names if a.name.split(".")[0] in MODULES]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in MODULES:
            found.append(f"from {node.module}")
        elif isinstance(node, ast.Call):
            given = {k.arg: ast.unparse(k.value) for k in node.keywords}
            if given.get("shell", "False") != "False":
                found.append("shell=")
            if given.get("allow_pickle", "False") != "False":
                found.append("allow_pickle=")
            called = node.func
            if isinstance(called, ast.Name) and called.id in NAMES:
                found.append(called.id)
            if not isinstance(called, ast.Attribute):
                continue
            owner = ast.unparse(called.value)
            if called.attr in ATTRIBUTES and (called.attr != "system" or owner != "platform"):
                found.append(f"{owner}.{called.attr}")
            if called.attr == "load":
                if owner == "torch" and given.get("weights_only") != "True":
                    found.append("torch.load without weights_only=True")
                if owner in ("np", "numpy") and given.get("allow_pickle") != "False":
                    found.append("np.load without allow_pickle=False")
                if owner == "torch.jit":
                    found.append("torch.jit.load")
            if called.attr == "from_pretrained" and given.get("trust_remote_code"):
                found.append("trust_remote_code")
    return found


@pytest.mark.parametrize(
    "path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.relative_to(PACKAGE).as_posix()
)
def test_no_file_of_the_package_runs_what_it_reads(path: Path) -> None:
    # OpenMP's own functions, in the library that torch has loaded already.
    allowed = ["import ctypes"] if path == PACKAGE / "machine.py" else []
    assert offences(path.read_text(encoding="utf-8")) == allowed


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(f)",
        "torch.load(f, weights_only=x)",
        "np.load(f)",
        "np.load(f, allow_pickle=True)",
        "eval('1')",
        "run(c, shell=True)",
        "yaml_ = __import__('yaml')",
        "pd.read_pickle(f)",
        "os.system(c)",
        "torch.jit.load(f)",
    ],
)
def test_what_must_not_be_there_would_be_found(text: str) -> None:
    assert offences(text)


@pytest.mark.parametrize(
    "text",
    [
        "network.eval()",
        "re.compile('a')",
        "json.load(f)",
        "torch.load(f, weights_only=True)",
        "platform.system()",
    ],
)
def test_what_may_be_there_is_not_found(text: str) -> None:
    assert not offences(text)


WATCHED = """
import sys

found, own = [], 0

def hook(event, given):
    global own
    if event != "pickle.find_class":
        return
    frame, files = sys._getframe(), []
    while frame:
        files.append(frame.f_code.co_filename.replace("\\\\\\\\", "/"))
        frame = frame.f_back
    # Results of the processes that render clips come through multiprocessing's own pipes, from
    # programs that this one has started: unpickled in these files and nowhere else.
    if any("/multiprocessing/" in f or "/concurrent/futures/" in f for f in files):
        own += 1
    else:
        found.append((given, files[:6]))

sys.addaudithook(hook)
if __name__ == "__main__":  # and not in the processes that it starts
    from spfem_bench.cli.main import main
    main(sys.argv[1:], standalone_mode=False)
    assert not found, found
    import pathlib, pickle
    pickle.loads(pickle.dumps(pathlib.Path))
    assert len(found) == 1, "the hook hears nothing"
    print("heard", own, "of multiprocessing")
"""


def test_an_evaluation_unpickles_nothing(tmp_path: Path, demo_cache: Path) -> None:
    write_protocol(tmp_path / "cards")
    (demo_cache / "data").mkdir(exist_ok=True)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "data").symlink_to(demo_cache / "data")
    script = tmp_path / "watched.py"
    script.write_text(WATCHED)
    environment = os.environ | {
        "SPFEM_BENCH_CARDS": str(tmp_path / "cards"),
        "SPFEM_BENCH_CACHE": str(tmp_path / "cache"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, script, *COMMAND],
        cwd=tmp_path,
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "heard" in done.stdout
    assert list((tmp_path / "cache" / "features").rglob("*.safetensors")), "nothing was computed"
