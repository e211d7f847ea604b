"""The feature store: nothing wrong is ever given back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from spfem_bench.errors import StorageError
from spfem_bench.features.store import FeatureStore, digest
from spfem_bench.files import atomic_file

KEY = {"clip": "a", "network": None}


def arrays() -> dict[str, np.ndarray]:
    return {"x": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array([7], np.int64)}


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    assert store.get(KEY) is None
    store.put(KEY, arrays())
    back = store.get(KEY)
    assert back is not None and back.keys() == {"x", "n"}
    np.testing.assert_array_equal(back["x"], arrays()["x"])
    assert back["x"].dtype == np.float32
    assert store.get({**KEY, "clip": "b"}) is None


def test_other_arrays_under_an_old_checksum_are_refused(tmp_path: Path) -> None:
    """The container is whole and its own checksums agree: only ours can tell."""
    store = FeatureStore(tmp_path)
    store.put(KEY, arrays())
    path = store.path(KEY)
    with np.load(path) as file:
        content = dict(file)
    content["x"] = content["x"] + 1
    np.savez(path, **content)
    assert store.get(KEY) is None
    assert not path.exists(), "a damaged file is removed, to be computed again"


def test_a_whole_file_under_anothers_name_is_refused(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    other = {**KEY, "clip": "b"}
    store.put(KEY, arrays())
    store.put(other, {"x": np.zeros((2, 3), np.float32), "n": np.array([1], np.int64)})
    store.path(KEY).write_bytes(store.path(other).read_bytes())
    assert store.get(KEY) is None and not store.path(KEY).exists()
    assert store.get(other) is not None


def test_files_of_earlier_versions_are_read(tmp_path: Path) -> None:
    """Their checksum is that of the arrays alone."""
    store = FeatureStore(tmp_path)
    path = store.path(KEY)
    path.parent.mkdir(parents=True)
    np.savez(path, **arrays(), checksum=np.frombuffer(bytes.fromhex(digest(arrays())), np.uint8))
    back = store.get(KEY)
    assert back is not None
    np.testing.assert_array_equal(back["x"], arrays()["x"])


@pytest.mark.parametrize("content", [b"", b"PK", b"words", bytes(300)])
def test_any_other_bytes_count_as_absent(tmp_path: Path, content: bytes) -> None:
    store = FeatureStore(tmp_path)
    store.put(KEY, arrays())
    store.path(KEY).write_bytes(content)
    assert store.get(KEY) is None


def test_any_flipped_byte_counts_as_absent_or_changes_nothing(tmp_path: Path) -> None:
    """The container's own fields, too: versions, methods, sizes and places out of bounds."""
    store = FeatureStore(tmp_path)
    store.put(KEY, arrays())
    path = store.path(KEY)
    whole = path.read_bytes()
    for at in range(len(whole)):
        for value in (0xFF, 0x01):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ value]) + whole[at + 1 :])
            back = store.get(KEY)  # some fields, such as dates, matter to nobody
            if back is not None:
                assert digest(back) == digest(arrays())


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    path = store.path(KEY)
    path.parent.mkdir(parents=True)
    np.savez(path, x=np.array([{"any": "object"}], dtype=object))
    assert store.get(KEY) is None


def test_a_checksum_tells_names_shapes_types_and_bytes_apart() -> None:
    x = np.arange(6, dtype=np.float32)
    seen = [{"x": x}, {"y": x}, {"x": x.reshape(2, 3)}, {"x": x.view(np.int32)}, {"x": x + 1}]
    assert len({digest(a) for a in seen}) == len(seen)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_files_have_the_permissions_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        FeatureStore(tmp_path).put(KEY, arrays())
    finally:
        os.umask(before)
    assert FeatureStore(tmp_path).path(KEY).stat().st_mode & 0o777 == 0o644


def test_a_write_that_fails_is_one_error_and_leaves_nothing(tmp_path: Path) -> None:
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(StorageError, match="cannot write"):
            FeatureStore(tmp_path).put(KEY, {"x": np.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]
