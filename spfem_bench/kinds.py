"""The formats of weights: a first check of files whose hash nobody publishes.

It recognises error pages, Git LFS pointers and truncated files; nothing is decoded.
"""

from __future__ import annotations

import codecs
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import PurePath

LEGACY_TORCH = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save before version 1.6


def format_problem(name: str, content: bytes) -> str | None:
    """Return why bytes are no file of the kind that a name's suffix states; None when they are."""
    if not content:
        return "it is empty (0 bytes)"
    suffix = PurePath(name).suffix.lower()
    if suffix == ".param":
        return None if content.split(b"\n", 1)[0].strip() == b"7767517" else "it is no ncnn network"
    if _is_text(content[:1024]):
        page = content[:1024].lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml"))
        return "it is an HTML page" if page else "it is text, not weights"
    known = KINDS.get(suffix)
    return None if known is None or known[1](content) else f"it is no whole {known[0]} file"


def _is_text(start: bytes) -> bool:
    """Return whether the first bytes of a file are printable UTF-8, as those of no weights are."""
    try:  # the last character may be cut
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        return False
    return "".join(text.split()).isprintable()


def _is_onnx(content: bytes) -> bool:
    """Return whether the fields of a protobuf fill a file, one of them a graph (field 7)."""
    at, numbers = 0, set()
    try:
        while at < len(content):
            tag, at = _varint(content, at)
            numbers.add(tag >> 3)
            if tag & 7 not in (0, 2):  # no field of a model has another wire type
                return False
            size, at = _varint(content, at)
            at += size if tag & 7 == 2 else 0
    except IndexError:
        return False
    return at == len(content) and 7 in numbers


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        value |= (content[at] & 127) << shift
        at += 1
        if content[at - 1] < 128:
            return value, at
    raise IndexError("a number of more than ten bytes")


def _is_hdf5(content: bytes) -> bool:
    """Return whether a file is as long as its HDF5 superblock states (versions 0 to 3)."""
    if not content.startswith(b"\x89HDF\r\n\x1a\n") or len(content) < 52:
        return False
    end = {0: 40, 1: 44, 2: 28, 3: 28}.get(content[8])
    return end is not None and int.from_bytes(content[end : end + 8], "little") <= len(content)


def _is_safetensors(content: bytes) -> bool:
    """Return whether a file is as long as its header states."""
    size = int.from_bytes(content[:8], "little")
    try:
        header = json.loads(content[8 : 8 + size])
        ends = [e["data_offsets"][1] for name, e in header.items() if name != "__metadata__"]
        return bool(8 + size + max(ends, default=0) == len(content))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        return False


def _is_zip(content: bytes) -> bool:
    return content.startswith(b"PK") and zipfile.is_zipfile(io.BytesIO(content))


def _is_torch(content: bytes) -> bool:
    """Return whether torch.save wrote a file; an old one (no zip) may be cut unnoticed."""
    return _is_zip(content) or content.startswith(LEGACY_TORCH)


KINDS: dict[str, tuple[str, Callable[[bytes], bool]]] = {
    ".onnx": ("ONNX", _is_onnx),
    **dict.fromkeys((".h5", ".hdf5"), ("HDF5", _is_hdf5)),
    ".safetensors": ("safetensors", _is_safetensors),
    ".zip": ("zip", _is_zip),
    **dict.fromkeys((".pt", ".pth", ".ckpt", ".model", ".tar"), ("torch", _is_torch)),
}
