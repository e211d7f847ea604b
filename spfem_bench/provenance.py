"""What made a file or a number: versions, commit, code, device. For records."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of packages, ``absent`` for those that are not installed."""
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def environment(device: str) -> dict[str, str | int | None]:
    """Return where an evaluation ran, in general words."""
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
    """Return the commit of the checkout that this code runs from, or None outside of one.

    ``, changed`` is added when files of the package differ from it: the commit alone
    then does not say what ran (see :func:`code_digest`).
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(PACKAGE), *arguments],  # noqa: S607  (wherever git is)
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    try:
        known = git("rev-parse", "HEAD")
        return f"{known}, changed" if git("status", "--porcelain", "--", ".") else known
    except (OSError, subprocess.SubprocessError):
        return None


def code_digest(*patterns: str) -> str:
    """Return a hash of the package's files that match any of the patterns, by name and content."""
    total = hashlib.sha256()
    for file in sorted({f for pattern in patterns for f in PACKAGE.glob(pattern)}):
        # Line ends as in the repository, whatever this system writes.
        content = file.read_bytes().replace(b"\r\n", b"\n")
        total.update(f"{file.relative_to(PACKAGE).as_posix()} {len(content)}\n".encode())
        total.update(content)
    return total.hexdigest()
