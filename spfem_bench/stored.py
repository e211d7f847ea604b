"""This package's own files: with a checksum inside, read within limits."""

from __future__ import annotations

import errno
import hashlib
import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from spfem_bench.files import check_ends, write_atomically

CHECKSUM = "checksum"  # key of the SHA-256 of all other values of a JSON file
LARGEST = 48_000_000  # bytes of a JSON file; parsed, the worst of that size takes a gigabyte
_HEAD = b"spfem-bench sha256 "


class UnverifiedWarning(Warning):
    """A file of an earlier version, which has no checksum, was used."""


def read_bounded(path: Path, largest: int = LARGEST) -> bytes:
    """Return the bytes of a regular file.

    Raises:
        StorageError: it is a FIFO, a socket or a device.
        OSError: it cannot be read, is a folder, or is larger than *largest* bytes.
    """
    check_ends(path)
    with path.open("rb") as file:
        content = file.read(largest + 1)
    if len(content) > largest:
        raise OSError(errno.EFBIG, f"it is larger than the {largest} bytes allowed", str(path))
    return content


def check_numbers(value: Any, *, wholes_only: bool = False) -> None:
    """Check the numbers in dictionaries, lists and scalars; with *wholes_only*, no floats.

    Raises:
        ValueError: a whole number beyond 64 bits, or another that is beyond 1e100 or a NaN.
    """
    rest = [value]
    while rest:
        one = rest.pop()
        if isinstance(one, dict):
            rest.extend(one.values())
        elif isinstance(one, list):
            rest.extend(one)
        elif isinstance(one, int) and not -(2**63) <= one < 2**63:
            raise ValueError("a whole number beyond 64 bits")
        elif isinstance(one, float) and not (wholes_only or abs(one) <= 1e100):
            raise ValueError(f"it holds {json.dumps(one)}")


def parse_json(content: bytes) -> dict[str, Any]:
    """Return the object that JSON bytes hold.

    Raises:
        ValueError: no JSON object, nested too deeply, or numbers refused by :func:`check_numbers`.
    """
    try:
        value = json.loads(content.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    check_numbers(value)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def read_json(path: Path) -> tuple[dict[str, Any], bool]:
    """Return an object that :func:`write_json` wrote, and whether it had a checksum.

    Raises:
        OSError: see :func:`read_bounded`.
        ValueError: see :func:`parse_json`; or the checksum is another.
    """
    content = parse_json(read_bounded(path))
    expected = content.pop(CHECKSUM, None)
    if expected is not None and expected != _checksum(content):
        raise ValueError("its checksum is another; it was damaged or edited")
    return content, expected is not None


def write_json(path: Path, content: Mapping[str, Any], *, indent: int = 1) -> None:
    """Write an object as JSON with a checksum inside, whole or not at all; no NaN: ValueError."""
    plain = json.loads(json.dumps(content, allow_nan=False))  # as it will be read
    plain[CHECKSUM] = _checksum({k: v for k, v in plain.items() if k != CHECKSUM})
    write_atomically(path, json.dumps(plain, indent=indent, ensure_ascii=False) + "\n")


def _checksum(content: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return hashlib.sha256(text.encode()).hexdigest()


def read_checked(path: Path, largest: int) -> tuple[bytes, bool]:
    """Return the bytes that :func:`write_checked` wrote, and whether they had a checksum.

    Raises:
        OSError: see :func:`read_bounded`.
        ValueError: the checksum is another.
    """
    content = read_bounded(path, largest)
    head = re.match(re.escape(_HEAD) + rb"([0-9a-f]{64})\n", content)
    if head is None:
        return content, False
    content = content[head.end() :]
    if hashlib.sha256(content).hexdigest().encode() != head[1]:
        raise ValueError("its checksum is another; it was damaged")
    return content, True


def write_checked(path: Path, content: bytes) -> None:
    """Write bytes behind a line with their checksum, whole or not at all."""
    digest = hashlib.sha256(content).hexdigest().encode()
    write_atomically(path, _HEAD + digest + b"\n" + content)


def warn_unverified(path: Path, remedy: str) -> None:
    """Warn that a file without a checksum is used."""
    text = f"{path} is unverified: it is of an earlier version and has no checksum. {remedy}"
    warnings.warn(text, UnverifiedWarning, stacklevel=2)
