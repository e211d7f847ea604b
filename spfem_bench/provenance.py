"""Versions, commit, code and device, for records and signatures."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path

from spfem_bench.version import __version__

PACKAGE = Path(__file__).resolve().parent
_OPENCV = ("", "-headless")
_ONNXRUNTIME = ("", "-gpu", "-directml", "-openvino", "-qnn", "-rocm", "-training")
PROVIDERS = {
    "cv2": [f"opencv{kind}-python{end}" for kind in ("", "-contrib") for end in _OPENCV],
    "onnxruntime": [f"onnxruntime{end}" for end in _ONNXRUNTIME],
    "PIL": ["pillow", "pillow-simd"],
}
"""Modules that several packages install into the same folder, where the last one wins."""

_LITERAL = re.compile(r"""(?m)^(?:__version__|version)\b[^=\n]*=\s*["']([^"'\n]+)["']""")


@cache
def imported_version(module: str) -> str:
    """Return a module's version, or ``absent``; package metadata may be older than the files.

    The text of ``version.py`` or ``__init__.py`` is read, so that torch need not be imported. Files
    without a version (``python_speech_features``) get ``#`` and a hash of them.
    """
    if known := getattr(sys.modules.get(module), "__version__", None):
        return str(known)
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return "absent"
    folder = Path(spec.origin).parent
    for file in (folder / "version.py", folder / "__init__.py"):
        if file.is_file() and (match := _LITERAL.search(file.read_text(encoding="utf-8"))):
            return match[1]
    if not any(file.name.endswith(tuple(EXTENSION_SUFFIXES)) for file in folder.iterdir()):
        return f"#{_digest(folder, sorted(folder.glob('*.py')))[:12]}"
    try:
        return str(importlib.import_module(module).__version__)
    except ImportError:
        return "absent"


def rival_packages(modules: Collection[str]) -> list[str]:
    """Return one line for each module that two installed packages provide, with the remedy."""
    own = [re.split(r"[^A-Za-z0-9._-]", line)[0] for line in requires("spfem-bench") or ()]
    lines = []
    for module in sorted(set(modules) & PROVIDERS.keys()):
        installed = {}
        for name in PROVIDERS[module]:
            with suppress(PackageNotFoundError):
                installed[name] = version(name)
        if len(installed) > 1:
            kept = next((name for name in own if name in installed), next(iter(installed)))
            lines.append(
                f"{len(installed)} packages install the module {module}: "
                f"{', '.join(f'{name} {v}' for name, v in installed.items())}. Imported, and in "
                f"the signature, is {imported_version(module)}. To keep one: pip uninstall -y "
                f"{' '.join(installed)} && pip install --force-reinstall --no-deps "
                f"{kept}=={installed[kept]}"
            )
    return lines


def versions(modules: Iterable[str]) -> dict[str, str]:
    """Return the versions of this package and of modules as imported, in alphabetical order."""
    return {"spfem-bench": __version__, **{m: imported_version(m) for m in sorted(modules)}}


def environment(device: str) -> dict[str, str | int | None]:
    """Return the system that an evaluation ran on, without a machine's name."""
    return {
        "python": sys.version.split()[0],
        "platform": sys.platform,
        "device": device,
        "processors": os.cpu_count(),
    }


def device_name(device: str) -> str:
    """Return the kind of a torch device, such as ``cpu: x86_64``, without a machine's name."""
    import torch

    if device.partition(":")[0] == "cuda":
        return f"cuda: {torch.cuda.get_device_name(device)}"
    return f"{device}: {platform.machine()}"


def commit() -> str | None:
    """Return this checkout's commit, with ``, changed`` if files differ; None outside of one."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(PACKAGE), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()

    try:
        known = git("rev-parse", "HEAD")
        return f"{known}, changed" if git("status", "--porcelain", "--", ".") else known
    except (OSError, subprocess.SubprocessError):
        return None


def code_digest(*patterns: str) -> str:
    """Return a hash of the package's files that match any of the patterns, by name and content."""
    return _digest(PACKAGE, sorted({f for pattern in patterns for f in PACKAGE.glob(pattern)}))


def _digest(folder: Path, files: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for file in files:
        # Line ends as in the repository, whatever this system writes.
        content = file.read_bytes().replace(b"\r\n", b"\n")
        total.update(f"{file.relative_to(folder).as_posix()} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()
