"""This package's own files: with a checksum inside, read within limits."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from spfem_bench.files import atomic_file, check_ends, write_atomically

CHECKSUM = "checksum"  # key of the SHA-256 of all other values of a JSON file
LARGEST = 48_000_000  # bytes of a JSON file; parsed, the worst of that size takes a gigabyte
MOST_VALUES = 24_000_000  # in a file for which more bytes are allowed
# What every number has that `check_numbers` refuses; texts may have it too.
_EXTREME = re.compile(rb"NaN|Infinity|(?<![\d.])\d{19}|\d{100}|[eE]\+?\d{3}")
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
    content = b""
    with path.open("rb") as file:
        if (size := os.fstat(file.fileno()).st_size) <= largest:
            content = file.read(largest + 1)
    if max(size, len(content)) > largest:
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
    if _EXTREME.search(content):
        check_numbers(value)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value


def read_json(path: Path, largest: int = LARGEST) -> tuple[dict[str, Any], bool]:
    """Return an object that :func:`write_json` wrote, and whether it had a checksum.

    Raises:
        OSError: see :func:`read_bounded`.
        ValueError: see :func:`parse_json`; or the checksum is another.
    """
    text = read_bounded(path, largest)
    if len(text) > LARGEST and sum(map(text.count, (b",", b"[", b"{"))) > MOST_VALUES:
        raise ValueError(f"it holds more than {MOST_VALUES} values")
    content = parse_json(text)
    del text
    expected = content.pop(CHECKSUM, None)
    if expected is not None and expected != _checksum(content):
        raise ValueError("its checksum is another; it was damaged or edited")
    return content, expected is not None


def write_json(
    path: Path, content: Mapping[str, Any], *, plain: Callable[[Any], Any] | None = None
) -> None:
    """Write an object as JSON with a checksum inside, whole or not at all.

    Each value, and each element of a list among the values, is a line: a file of any size is
    written with little memory. Keys are text at every depth. *plain* is called with what JSON does
    not know, and returns what stands for it.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
        ValueError: a NaN.
    """
    whole = {key: value for key, value in content.items() if key != CHECKSUM}
    whole[CHECKSUM] = _checksum(whole, plain)
    encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=plain)
    with atomic_file(path) as file:
        for text in _texts(whole, encoder, "\n"):
            file.write(text.encode(errors="backslashreplace"))
        file.write(b"\n")


def _texts(content: Mapping[str, Any], encoder: json.JSONEncoder, end: str) -> Iterator[str]:
    """Yield the JSON of an object in parts; *end* comes after each value and list element."""
    yield "{" + end
    for number, (key, value) in enumerate(content.items()):
        yield ("," + end) * (number > 0) + encoder.encode(key) + encoder.key_separator
        if not value or not isinstance(value, (list, tuple)):
            yield encoder.encode(value)
            continue
        yield "[" + end
        for place, one in enumerate(value):
            yield ("," + end) * (place > 0) + encoder.encode(one)
        yield end + "]"
    yield end + "}"


def _checksum(content: Mapping[str, Any], plain: Callable[[Any], Any] | None = None) -> str:
    """Return the SHA-256 of an object's JSON: keys sorted, no spaces, ASCII."""
    compact = json.JSONEncoder(
        sort_keys=True, separators=(",", ":"), allow_nan=False, default=plain
    )
    total = hashlib.sha256()
    try:
        for text in _texts(dict(sorted(content.items())), compact, ""):
            total.update(text.encode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    return total.hexdigest()


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
