"""Weights and, in a JSON file beside them, the record of their training; both are needed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load as read_tensors
from safetensors.torch import save as tensors_as_bytes
from torch import Tensor, nn

from spfem_bench.definitions.cards import Strict, validate
from spfem_bench.errors import CardError, WeightsError
from spfem_bench.files import write_atomically
from spfem_bench.stored import read_json, warn_unverified, write_json

_Record = TypeVar("_Record", bound=Strict)


def load_weights_record(path: Path, kind: type[_Record], what: str) -> _Record:
    """Read a record; raise OSError where it is unreadable, CardError where it is not valid."""
    try:
        content, verified = read_json(path)
    except ValueError as error:
        problem = f"{path} is no record of {what}, or is damaged: {error}"
        raise CardError(problem, "Take both files again as the training left them") from error
    record = validate(kind, content, str(path))
    if not verified:
        warn_unverified(path, "Train again, or use it if you trust it")
    return record


def read_weights(path: Path, sha256: str, again: str) -> bytes:
    """Return the bytes of the weights beside a record; raise WeightsError for other bytes."""
    file = path.with_suffix(".safetensors")
    if not file.is_file():
        raise WeightsError(f"{file} is absent", again)
    content = file.read_bytes()
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        hashes = f"SHA-256 {actual[:16]}…, expected {sha256[:16]}…"
        raise WeightsError(f"{file} is not what its record says: {hashes}", again)
    return content


def tensors(content: bytes) -> dict[str, Tensor]:
    """Return the tensors in a safetensors file's bytes, by name; others raise several kinds."""
    return dict(read_tensors(content))


def save_network(
    path: Path, network: nn.Module, kind: type[_Record], record: Mapping[str, Any]
) -> _Record:
    """Write weights, then their record; raise CardError or StorageError where that fails."""
    state = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    content = tensors_as_bytes(state)
    digest = hashlib.sha256(content).hexdigest()
    full = validate(kind, {**record, "sha256": digest, "bytes": len(content)}, str(path))
    path.with_suffix(".json").unlink(missing_ok=True)  # it describes the old weights
    write_atomically(path.with_suffix(".safetensors"), content)
    write_json(path.with_suffix(".json"), full.model_dump(mode="json"))
    return full
