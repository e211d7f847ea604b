"""The feature store: nothing wrong is ever given back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from spfem_bench.errors import StorageError
from spfem_bench.features.store import FeatureStore, _Recent, arrays_digest
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
    """The file is a whole one: only our checksum can tell."""
    store = FeatureStore(tmp_path)
    store.put(KEY, arrays())
    path = store.path(KEY)
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    content = load_file(path)
    np.testing.assert_array_equal(content["x"], arrays()["x"])
    save_file({**content, "x": content["x"] + 1}, path, metadata)
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


def test_what_was_read_is_kept_while_its_file_is_the_same(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    store.put(KEY, arrays())
    first, again = store.get(KEY), store.get(KEY)
    assert first is not None and again is not None and again["x"] is first["x"]
    with pytest.raises(ValueError, match="read-only"):
        first["x"][0] = 1
    store.put(KEY, {"x": np.ones((2, 3), np.float32)})
    other = store.get(KEY)
    assert other is not None and other.keys() == {"x"}
    store.path(KEY).unlink()
    assert store.get(KEY) is None


def test_what_is_kept_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recent = _Recent()
    monkeypatch.setattr("spfem_bench.features.store.RECENT", 100)
    for n in range(9):
        recent.put(n, {"x": np.zeros(40, np.uint8)})
        assert recent.get(0) is not None  # what is used stays
    assert [n for n in range(9) if recent.get(n) is not None] == [0, 8]
    recent.put("large", {"x": np.zeros(400, np.uint8)})
    assert not any(recent.get(n) is not None for n in (*range(9), "large"))


def test_shapes_and_types_come_back(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    given = {
        "none": np.zeros((0, 4), np.float32),
        "scalar": np.array(5),
        "turned": np.arange(6.0).reshape(2, 3).T,
        "bytes": np.arange(3, dtype=np.uint8),
        "yes": np.array([True, False]),
    }
    store.put(KEY, given)
    back = store.get(KEY)
    assert back is not None and back.keys() == given.keys()
    for name, array in given.items():
        assert (back[name].shape, back[name].dtype) == (array.shape, array.dtype)
        np.testing.assert_array_equal(back[name], array)
    store.put(KEY, {})
    assert store.get(KEY) == {}


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
                assert arrays_digest(back) == arrays_digest(arrays())


def test_pickled_objects_are_never_loaded(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path)
    path = store.path(KEY)
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        np.savez(file, x=np.array([{"any": "object"}], dtype=object))
    assert store.get(KEY) is None


def test_a_checksum_tells_names_shapes_types_and_bytes_apart() -> None:
    x = np.arange(6, dtype=np.float32)
    seen = [{"x": x}, {"y": x}, {"x": x.reshape(2, 3)}, {"x": x.view(np.int32)}, {"x": x + 1}]
    assert len({arrays_digest(a) for a in seen}) == len(seen)


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
