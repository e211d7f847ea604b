"""What is installed: which package needs what, the wheel, and other versions of libraries."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import sysconfig
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, get_args

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from spfem_bench.definitions.cards import tomllib
from spfem_bench.errors import SpfemBenchError
from spfem_bench.extras import Extra, extra
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FOR_USERS = get_args(Extra)

DISTRIBUTIONS = {"cv2": "opencv-python-headless", "ffmpeg": "ffmpeg-python", "PIL": "pillow"}
"""Packages whose modules have another name."""

OTHER = Path(sys.prefix) / "other"
"""Other versions of OpenCV and NumPy, as ``make test`` installs them."""


def names(requirements: list[str]) -> set[str]:
    """Return the packages of requirements, without this project itself."""
    return {canonicalize_name(Requirement(r).name) for r in requirements} - {"spfem-bench"}


DEFAULT = names(PROJECT["dependencies"])
EXTRAS = {name: names(rows) for name, rows in PROJECT["optional-dependencies"].items()}


# ---- which package needs what -----------------------------------------------------------------


def imports(node: ast.AST, within: str | None = None) -> Iterator[tuple[str, str | None]]:
    """Yield the modules of other packages that code imports, and in which extra's block."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, ast.Import):
            yield from ((alias.name, within) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            yield child.module or "", within
        elif isinstance(child, ast.With) and ast.unparse(child.items[0]).startswith("extra("):
            call = child.items[0].context_expr
            assert isinstance(call, ast.Call)
            yield from imports(child, ast.literal_eval(call.args[0]))
        else:
            yield from imports(child, within)


@cache
def imported() -> dict[str | None, set[str]]:
    """Return the packages that spfem_bench imports, by the extra in whose block it does."""
    found = defaultdict(set)
    for file in (ROOT / "spfem_bench").rglob("*.py"):
        for module, within in imports(ast.parse(file.read_text(encoding="utf-8"))):
            top = module.partition(".")[0]
            if module == "torch.utils.tensorboard":  # only hands on what TensorBoard brings
                top = "tensorboard"
            if top not in sys.stdlib_module_names | {"spfem_bench"}:
                found[within].add(DISTRIBUTIONS.get(top, canonicalize_name(top)))
    return found


def test_default_dependencies_are_what_is_imported_outside_of_extras() -> None:
    assert imported()[None] == DEFAULT


@pytest.mark.parametrize("name", FOR_USERS)
def test_an_extra_lists_what_is_imported_in_its_blocks(name: str) -> None:
    assert imported()[name] - DEFAULT == EXTRAS[name]


def test_every_extra_has_its_blocks_and_is_tested() -> None:
    assert {*FOR_USERS, "originals", "test", "dev"} == EXTRAS.keys()
    (line,) = re.findall(r"(?m)^ORIGINALS := (.+)$", (ROOT / "Makefile").read_text("utf-8"))
    assert set(line.split()) == EXTRAS["originals"]
    (own,) = (Requirement(r) for r in PROJECT["optional-dependencies"]["test"] if "spfem" in r)
    assert own.extras == set(FOR_USERS)


def test_constraints_name_a_version_of_every_dependency_within_its_bounds() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = defaultdict(list)
    for line in lines:
        if not line.startswith("#"):
            requirement = Requirement(line)
            (version,) = requirement.specifier
            assert version.operator == "=="
            pinned[canonicalize_name(requirement.name)].append(version.version)
    for rows in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values()):
        for row in rows:
            requirement = Requirement(row)
            if requirement.name != "spfem-bench":
                versions = pinned[canonicalize_name(requirement.name)]
                assert versions and all(v in requirement.specifier for v in versions), row


def test_a_missing_package_is_one_line_with_the_command_to_type(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(SpfemBenchError) as caught, extra("train", "--tensorboard"):
        import torch.utils.tensorboard  # noqa: F401
    assert str(caught.value) == (
        "--tensorboard needs tensorboard, which is not installed. "
        'Type: pip install "spfem-bench[train]"'
    )


def test_another_import_error_is_not_a_missing_package() -> None:
    with pytest.raises(ImportError, match="cannot import name"), extra("train", "training"):
        from json import no_such_name  # type: ignore[attr-defined]  # noqa: F401


# ---- the demo's numbers in environments of their own ------------------------------------------


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; other packages are those here, the default ones only."""
    top = tmp_path_factory.mktemp("environment")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    wheel = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(top)]
    subprocess.run([*wheel, str(ROOT)], check=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", top / "venv"], check=True)
    (built,) = top.glob("spfem_bench-*.whl")
    install = [*pip, "--python", str(top / "venv"), "install", "--no-deps", "--no-index"]
    subprocess.run([*install, str(built)], check=True)
    unwanted = set().union(*EXTRAS.values()) - DEFAULT
    modules = sorted(
        module
        for module, owners in packages_distributions().items()
        if unwanted & {canonicalize_name(owner) for owner in owners}
    )
    assert {"onnxruntime", "accelerate", "ray"} <= set(modules)
    paths = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    (site,) = (top / "venv").glob("lib/python*/site-packages")
    (site / "default.pth").write_text(
        "\n".join([*paths, f"import sys; sys.modules.update(dict.fromkeys({modules}))"])
    )
    return top / "venv"


def run(environment: Path, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the environment's Python, which does not see this checkout."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    env |= options.pop("variables", {})
    python = str(environment / "bin" / "python")
    return subprocess.run([python, *arguments], env=env, capture_output=True, text=True, **options)


@pytest.mark.parametrize(
    ("extra", "package", "code"),
    [
        ("networks", "onnx", "import spfem_bench.networks.onnx_files"),
        ("networks", "h5py", "import spfem_bench.networks.mini_xception"),
        ("torchmetrics", "torchmetrics", "import spfem_bench.torch_metrics"),
        (
            "train",
            "psutil",
            "from spfem_bench.training import windows; windows.check_memory(1, 'x')",
        ),
        (
            "train",
            "dtaidistance",
            "from spfem_bench.datasets.alignment import warp_times; import numpy as np;"
            "sound = np.arange(8000, dtype=np.int16); warp_times(sound, sound, [0.1])",
        ),
    ],
)
def test_without_its_extra_a_feature_says_what_to_type(
    extra: str, package: str, code: str, environment: Path, tmp_path: Path
) -> None:
    done = run(environment, "-c", code, cwd=tmp_path)
    said = done.stderr.splitlines()[-1]
    assert (
        f'needs {package}, which is not installed. Type: pip install "spfem-bench[{extra}]"' in said
    )


def test_a_command_without_its_extra_ends_with_one_line(environment: Path, tmp_path: Path) -> None:
    done = run(environment, "-m", "spfem_bench", "train", "--output", "metric", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr == (
        "Error: training needs accelerate, which is not installed. "
        'Type: pip install "spfem-bench[train]"\n'
    )


@pytest.mark.parametrize("versions", ["other", "these"])
def test_the_wheel_gives_the_reference_numbers(
    versions: str, environment: Path, tmp_path: Path, demo_cache: Path
) -> None:
    """From an empty folder, with other libraries all anew; with these, as the tests' demo has it.

    What the other tests of this run have drawn and computed with these libraries is taken from
    their cache, and completed.
    """
    variables, expected = {"SPFEM_BENCH_CACHE": str(tmp_path / "cache")}, {}
    cached = ["--cached"] if versions == "these" and OTHER.is_dir() else []
    if cached:
        variables = {"SPFEM_BENCH_CACHE": str(demo_cache)}
    if versions == "other":
        if not OTHER.is_dir():
            pytest.skip("needs other versions of OpenCV and NumPy, which 'make test' installs")
        variables["PYTHONPATH"] = str(OTHER)
        for line in (ROOT / "tests" / "other_versions.txt").read_text("utf-8").splitlines():
            if not line.startswith("#"):
                requirement = Requirement(line)
                if not requirement.marker or requirement.marker.evaluate():
                    (version,) = requirement.specifier
                    expected[requirement.name] = version.version
    script = (
        "import cv2, numpy, spfem_bench, importlib.util as u;"
        "print(spfem_bench.__file__, cv2.__version__, numpy.__version__, u.find_spec('onnx'))"
    )
    seen = run(environment, "-c", script, cwd=tmp_path, variables=variables)
    where, opencv, numpy, onnx = seen.stdout.split()
    assert Path(where).is_relative_to(environment) and onnx == "None"
    if expected:
        assert numpy == expected["numpy"]
        assert expected["opencv-python-headless"].startswith(opencv + ".")
    check = ("-m", "spfem_bench", "check", "demo", "-q", *cached)
    done = run(environment, *check, cwd=tmp_path, variables=variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "demo-inter-id: 480 rows of 10 methods hold" in done.stdout
    assert "demo-cross-id: 192 rows of 4 methods hold" in done.stdout
