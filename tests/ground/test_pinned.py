"""Files known by their hash: found, checked at every load, never executed, fetched whole."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import pickle
import random
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
import requests
import torch

from spfem_bench import caches, downloads, hashes, pinned
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions import pins
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.networks import NetworkCard, network_card
from spfem_bench.definitions.pins import PinnedFile
from spfem_bench.errors import CardError, ClipError, StorageError, WeightsError
from spfem_bench.networks.load import load_network
from spfem_bench.networks.weights import WeightsStore

RIGHT = b"the right bytes\0"  # no text, as no weights are
WRONG = b"the wrong bytes\0"  # of the same length


def pin(content: bytes, name: str = "a.bin", *, size: bool = True) -> PinnedFile:
    return PinnedFile(
        name=name,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content) if size else None,
        url=f"https://example.org/{name}",
    )


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def one_line(error: BaseException) -> str:
    message = str(error)
    assert len(message.splitlines()) == 1, message
    return message


# --- finding --------------------------------------------------------------------------


def test_a_hash_is_the_standard_one(tmp_path):
    # FIPS 180-2, appendix B.1: SHA-256 of "abc".
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert hashes.sha256_of(write(tmp_path / "a", b"abc")) == expected
    long = b"x" * 3_000_000  # more than one block
    assert hashes.sha256_of(write(tmp_path / "b", long)) == hashlib.sha256(long).hexdigest()


def test_a_file_is_found_by_its_name(tmp_path):
    path = write(tmp_path / "a.bin", RIGHT)
    assert pinned.find(pin(RIGHT), [tmp_path]) == path
    assert pinned.find(pin(RIGHT, "b.bin"), [tmp_path]) is None


def test_folders_are_searched_first_to_last(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    write(two / "a.bin", RIGHT)
    assert pinned.find(pin(RIGHT), [one, two]) == two / "a.bin"
    write(one / "a.bin", RIGHT)
    assert pinned.find(pin(RIGHT), [one, two]) == one / "a.bin"


def test_a_right_file_in_a_later_folder_goes_before_a_wrong_one(tmp_path):
    one, two = write(tmp_path / "one/a.bin", WRONG), write(tmp_path / "two/a.bin", RIGHT)
    assert pinned.find(pin(RIGHT), [one.parent, two.parent]) == two


def test_a_wrong_file_is_found_when_there_is_no_right_one(tmp_path):
    # So that the message can say "wrong", not "missing".
    path = write(tmp_path / "a.bin", WRONG)
    assert pinned.find(pin(RIGHT), [tmp_path]) == path


@pytest.mark.parametrize("size", [True, False])
def test_a_file_is_found_by_its_bytes_under_any_name(tmp_path, size):
    write(tmp_path / "one", WRONG)
    path = write(tmp_path / "deep/er/renamed.pth", RIGHT)
    assert pinned.find(pin(RIGHT, size=size), [], [tmp_path]) == path
    assert pinned.find(pin(RIGHT, size=size), [tmp_path]) is None


def test_a_name_that_leaves_the_folder_is_refused(tmp_path):
    write(tmp_path / "a.bin", RIGHT)
    (tmp_path / "sub").mkdir()
    with pytest.raises(CardError, match="leaves its folder"):
        pinned.find(pin(RIGHT, "../a.bin"), [tmp_path / "sub"])


def test_verified_bytes_are_returned_and_others_refused(tmp_path):
    path = write(tmp_path / "a.bin", RIGHT)
    assert pinned.read_verified(path, pin(RIGHT), "remedy") == RIGHT
    write(path, WRONG)
    with pytest.raises(WeightsError, match="is not the pinned file") as caught:
        pinned.read_verified(path, pin(RIGHT), "Do this")
    message = one_line(caught.value)
    for part in (
        str(path),
        hashlib.sha256(WRONG).hexdigest()[:16],
        hashlib.sha256(RIGHT).hexdigest()[:16],
        "Do this",
    ):
        assert part in message


def test_the_cache_is_where_the_environment_says(tmp_path, monkeypatch):
    monkeypatch.setenv("SPFEM_BENCH_CACHE", str(tmp_path / "mine"))
    assert caches.cache_folder() == tmp_path / "mine"
    assert WeightsStore().cache.is_relative_to(tmp_path / "mine")
    assert DataFolders().cache.is_relative_to(tmp_path / "mine")
    monkeypatch.delenv("SPFEM_BENCH_CACHE")
    assert caches.cache_folder().name == "spfem-bench"


# --- weights of networks --------------------------------------------------------------

CARD = """
title = "Mine"
role = "{role}"
architecture = "{architecture}"
source = "these tests"
licence = "none"
citation = "none"

[input]
{input}

[[files]]
name = "mine.ckpt"
sha256 = "{sha256}"
bytes = {bytes}
url = "https://example.org/mine.ckpt"
"""
ARCHITECTURES = {
    "mobilefacenet": ("identity", 'crop = "arcface"\nwidth = 96\nmean = 127.5\nstd = 128.0'),
    "mini-xception": (
        "expression",
        'crop = "expression"\nsize = 64\nmargin = 0.1\ncolour = "grey"\nmean = 127.5\nstd = 127.5',
    ),
    "syncnet": ("sync", 'crop = "syncnet"\nsize = 224\nscale = 0.4\nsmoothing = 13\npadding = 110'),
}


@pytest.fixture
def own_network(tmp_path, monkeypatch) -> Callable[..., NetworkCard]:
    """Pin the given bytes by a user's card, and put them into the cache unless told not to."""

    def make(
        content: bytes, architecture: str = "mobilefacenet", *, put: bool = True
    ) -> NetworkCard:
        role, network_input = ARCHITECTURES[architecture]
        text = CARD.format(
            role=role,
            architecture=architecture,
            input=network_input,
            bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        write(tmp_path / "cards/metrics/networks/mine.toml", text.encode())
        monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "cards"))
        if put:
            write(WeightsStore().cache / "mine.ckpt", content)
        return network_card("mine")

    return make


def test_own_weights_are_read_from_the_cache(own_network):
    card = own_network(RIGHT)
    assert WeightsStore().check(card).state == "verified"
    assert WeightsStore().read(card) == [RIGHT]


def test_missing_weights_say_what_to_type(own_network):
    card = own_network(RIGHT, put=False)
    assert WeightsStore().check(card).state == "missing"
    with pytest.raises(WeightsError, match=r"'mine' are missing \(mine\.ckpt\)") as caught:
        WeightsStore().read(card)
    message = one_line(caught.value)
    assert "'spfem-bench networks fetch mine'" in message
    assert "--weights-dir" in message
    assert "SPFEM_BENCH_WEIGHTS" in message


def test_a_users_folder_is_searched_by_hash(own_network, tmp_path, monkeypatch):
    card = own_network(RIGHT, put=False)
    write(tmp_path / "my weights/checkpoints/epoch 3.pt", RIGHT)
    assert WeightsStore(tmp_path / "my weights").read(card) == [RIGHT]
    monkeypatch.setenv("SPFEM_BENCH_WEIGHTS", str(tmp_path / "my weights"))
    assert WeightsStore.locate().read(card) == [RIGHT]
    # A folder given by hand goes before the environment's.
    other = tmp_path / "other"
    with pytest.raises(StorageError, match="other is no folder"):
        WeightsStore.locate(other)
    other.mkdir()
    assert WeightsStore.locate(other).own == other


def test_a_users_folder_goes_before_the_cache(own_network, tmp_path):
    card = own_network(RIGHT)
    path = write(tmp_path / "own/renamed.ckpt", RIGHT)
    assert WeightsStore(path.parent).paths(card) == [path]


def test_wrong_weights_are_refused_at_the_first_load(own_network):
    card = own_network(RIGHT)
    path = write(WeightsStore().cache / "mine.ckpt", WRONG)
    assert WeightsStore().check(card).state == "wrong hash"
    with pytest.raises(WeightsError, match="is not the pinned file") as caught:
        WeightsStore().read(card)
    assert str(path) in one_line(caught.value)
    assert "networks fetch mine" in str(caught.value)


def test_weights_changed_after_a_good_load_are_refused_at_the_next(own_network):
    card, store = own_network(RIGHT), WeightsStore()
    path = store.cache / "mine.ckpt"
    before = path.stat()
    assert store.read(card) == [RIGHT]
    path.write_bytes(WRONG)
    # Neither size nor time stamp tells.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    with pytest.raises(WeightsError, match="is not the pinned file"):
        store.read(card)
    with pytest.raises(WeightsError, match="is not the pinned file"):
        store.read(card)
    assert store.check(card).state == "wrong hash"


def test_a_wrong_file_in_a_users_folder_does_not_hide_the_right_one_in_the_cache(
    own_network, tmp_path
):
    card = own_network(RIGHT)
    write(tmp_path / "own/mine.ckpt", WRONG)
    assert WeightsStore(tmp_path / "own").read(card) == [RIGHT]


def test_a_wrong_file_in_a_users_folder_is_named_when_it_is_all_there_is(own_network, tmp_path):
    card = own_network(RIGHT, put=False)
    path = write(tmp_path / "own/mine.ckpt", WRONG)
    with pytest.raises(WeightsError, match="is not the pinned file") as caught:
        WeightsStore(tmp_path / "own").read(card)
    assert str(path) in str(caught.value)


def test_a_folder_of_weights_that_is_not_there_says_missing(own_network, tmp_path):
    card = own_network(RIGHT, put=False)
    assert WeightsStore(tmp_path / "gone").check(card).state == "missing"


def test_a_network_with_one_of_two_files_is_missing(tmp_path):
    card = network_card("scrfd-500m")
    write(tmp_path / card.files[0].name, b"x")
    assert WeightsStore(tmp_path).check(card).state == "missing"


@pytest.mark.parametrize("name", ["scrfd-500m", "mobilefacenet", "mini-xception"])
def test_the_small_networks_are_verified(weights_folder, name):
    card = network_card(name)
    store = WeightsStore(weights_folder)
    assert store.check(card).state == "verified"
    for content, file in zip(store.read(card), card.files, strict=True):
        assert hashlib.sha256(content).hexdigest() == file.sha256
        assert len(content) == file.bytes


def test_the_syncnet_weights_are_missing_and_say_where_to_get_them(weights_folder):
    with pytest.raises(WeightsError, match="networks fetch syncnet-v2"):
        WeightsStore(weights_folder).read(network_card("syncnet-v2"))


# --- no pickle is executed ------------------------------------------------------------


class Evil:
    """Creates a file when it is unpickled the ordinary way."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (str(self.target),)


def poisoned(target: Path, form: str) -> bytes:
    state = {"net_state_dict": {"conv1.conv.weight": torch.zeros(1), "evil": Evil(target)}}
    out = io.BytesIO()
    if form == "pickle":
        pickle.dump(state, out, protocol=2)
    else:
        torch.save(state, out, _use_new_zipfile_serialization=form == "zip")
    return out.getvalue()


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_the_poison_of_these_tests_works(tmp_path, form):
    # Otherwise the next test would prove nothing.
    content = io.BytesIO(poisoned(tmp_path / "done", form))
    if form == "pickle":
        pickle.load(content)  # noqa: S301
    else:
        torch.load(content, weights_only=False)
    assert (tmp_path / "done").is_dir()


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_poisoned_checkpoint_is_refused_and_not_executed(
    own_network, tmp_path, form, architecture
):
    # Its hash is pinned by the user's own card: the hash alone does not protect.
    card = own_network(poisoned(tmp_path / "done", form), architecture)
    with pytest.raises(WeightsError) as caught:
        load_network(card, WeightsStore())
    assert not (tmp_path / "done").exists()
    assert "'mine'" in one_line(caught.value)


def test_weights_of_unknown_bytes_are_never_unpickled(own_network, tmp_path, monkeypatch):
    card = own_network(RIGHT)
    write(WeightsStore().cache / "mine.ckpt", poisoned(tmp_path / "done", "zip"))
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read before it was verified"))
    with pytest.raises(WeightsError, match="is not the pinned file"):
        load_network(card, WeightsStore())


def saved(value: object) -> bytes:
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


NO_CHECKPOINTS = {
    "empty": b"",
    "text": b"plain text, no weights",
    "random": random.Random(1).randbytes(3000),
    "pickle of nothing": b".",
    "pickle of an unknown memo": b"h\x01.",
    "pickle of a broken name": b"c\xea\n\xff\n.",
    "bare pickle": b"\x80\x02}q\x00.",
    "cut zip": saved({"a": torch.zeros(2)})[:-300],
    "broken zip": b"PK\x03\x04" + b"\0" * 100,
    "broken hdf5": b"\x89HDF\r\n\x1a\n" + b"\0" * 100,
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("content", NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS)
def test_what_is_no_checkpoint_is_refused(own_network, architecture, content):
    card = own_network(content, architecture)
    with pytest.raises(WeightsError, match="'mine'") as caught:
        load_network(card, WeightsStore())
    one_line(caught.value)


@pytest.mark.parametrize("architecture", ["mobilefacenet", "syncnet"])
@pytest.mark.parametrize(
    "value",
    [
        {"conv1.weight": torch.zeros(3)},
        {},
        {"net_state_dict": "none"},
        {"net_state_dict": {}},
        torch.zeros(3),
        [1, 2],
        {1: torch.zeros(1)},
    ],
    ids=["other names", "nothing", "text inside", "nothing inside", "tensor", "list", "number"],
)
def test_weights_of_another_network_are_refused(own_network, architecture, value):
    card = own_network(saved(value), architecture)
    with pytest.raises(WeightsError, match="'mine'") as caught:
        load_network(card, WeightsStore())
    one_line(caught.value)


def test_an_hdf5_file_of_another_network_is_refused(own_network, tmp_path):
    import h5py

    with h5py.File(tmp_path / "a.hdf5", "w") as out:
        out["weights"] = [1.0, 2.0]
    card = own_network((tmp_path / "a.hdf5").read_bytes(), "mini-xception")
    with pytest.raises(WeightsError, match="'mine'") as caught:
        load_network(card, WeightsStore())
    one_line(caught.value)


# --- fetching -------------------------------------------------------------------------


class Answer:
    """What a server says, in the part of requests.Response that is used."""

    def __init__(self, pieces: list[bytes | Exception], status: int = 200) -> None:
        self.pieces, self.status_code = pieces, status
        self.headers: dict[str, str] = {}

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def raise_for_status(self) -> None:
        if self.status_code >= 400:
            raise requests.HTTPError(f"{self.status_code} Client Error")

    def iter_content(self, chunk_size: int) -> Iterator[bytes]:
        del chunk_size
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


@pytest.fixture
def server(monkeypatch) -> Callable[..., list[str]]:
    """Answer every request as told; returns the addresses asked for."""

    def serve(*pieces: bytes | Exception, status: int = 200, refuse: Exception | None = None):
        asked: list[str] = []

        def get(url: str, **_: object) -> Answer:
            asked.append(url)
            if refuse:
                raise refuse
            return Answer(list(pieces), status)

        monkeypatch.setattr(requests, "get", get)
        return asked

    return serve


def files_in(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_a_file_is_fetched_whole_from_its_address(tmp_path, server):
    asked = server(RIGHT[:4], RIGHT[4:])
    path = pinned.fetch(pin(RIGHT, "deep/a.bin"), tmp_path, progress=False)
    assert path == tmp_path / "deep/a.bin"
    assert path.read_bytes() == RIGHT
    assert asked == ["https://example.org/deep/a.bin"]
    assert files_in(tmp_path) == ["deep/a.bin"]


def test_a_right_file_is_not_fetched_again(tmp_path, server):
    asked = server(RIGHT)
    write(tmp_path / "a.bin", RIGHT)
    pinned.fetch(pin(RIGHT), tmp_path, progress=False)
    assert asked == []


def test_a_wrong_file_is_replaced(tmp_path, server):
    server(RIGHT)
    path = write(tmp_path / "a.bin", WRONG)
    pinned.fetch(pin(RIGHT), tmp_path, progress=False)
    assert path.read_bytes() == RIGHT


@pytest.mark.parametrize(
    "failure",
    [
        requests.ConnectionError("no route"),
        requests.Timeout("slow"),
        requests.exceptions.SSLError("certificate"),
        requests.exceptions.TooManyRedirects("loop"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_without_a_connection_the_message_says_how_to_go_on(tmp_path, server, failure):
    server(refuse=failure)
    with pytest.raises(WeightsError, match="cannot download https://example") as caught:
        pinned.fetch(pin(RIGHT), tmp_path, progress=False)
    message = one_line(caught.value)
    assert type(failure).__name__ in message
    assert str(tmp_path / "a.bin") in message
    assert files_in(tmp_path) == []


class Shelf:
    """A server that knows ranges: its content, what it was asked for, where it breaks off."""

    def __init__(self, content: bytes, *, breaks: int | None = None, ranges: bool = True) -> None:
        self.content, self.breaks, self.ranges = content, breaks, ranges
        self.asked: list[str | None] = []

    def get(self, url: str, *, headers: dict[str, str], **_: object) -> Answer:
        del url
        assert headers["Accept-Encoding"] == "identity"
        wanted = headers.get("Range")
        self.asked.append(wanted)
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted else 0
        if wanted and self.ranges and first >= len(self.content):
            return Answer([b""], 416)
        status = 206 if wanted and self.ranges else 200
        rest = self.content[first if status == 206 else 0 :]
        if self.breaks is None:
            return Answer([rest], status)
        return Answer([rest[: self.breaks], requests.exceptions.ChunkedEncodingError("x")], status)


@pytest.fixture
def shelf(monkeypatch) -> Callable[..., Shelf]:
    def make(content: bytes, **how) -> Shelf:
        made = Shelf(content, **how)
        monkeypatch.setattr(requests, "get", made.get)
        return made

    return make


def test_a_broken_download_goes_on_where_it_ended(tmp_path, shelf):
    shelf(RIGHT, breaks=4)
    with pytest.raises(WeightsError, match="cannot download"):
        pinned.fetch(pin(RIGHT), tmp_path, progress=False)
    assert files_in(tmp_path) == ["a.bin.part"]  # never under its own name
    with pytest.raises(WeightsError, match="cannot download"):
        pinned.fetch(pin(RIGHT), tmp_path, progress=False)
    assert (tmp_path / "a.bin.part").read_bytes() == RIGHT[:8]
    rest = shelf(RIGHT)
    assert pinned.fetch(pin(RIGHT), tmp_path, progress=False).read_bytes() == RIGHT
    assert rest.asked == ["bytes=8-"]
    assert files_in(tmp_path) == ["a.bin"]


def test_a_server_without_ranges_sends_the_whole_again(tmp_path, shelf):
    write(tmp_path / "a.bin.part", RIGHT[:6])
    shelf(RIGHT, ranges=False)
    assert pinned.fetch(pin(RIGHT), tmp_path, progress=False).read_bytes() == RIGHT


def test_a_download_that_was_whole_is_only_named(tmp_path, shelf):
    write(tmp_path / "a.bin.part", RIGHT)
    asked = shelf(RIGHT).asked
    assert pinned.fetch(pin(RIGHT), tmp_path, progress=False).read_bytes() == RIGHT
    assert asked == [f"bytes={len(RIGHT)}-"]


def test_a_start_of_other_bytes_is_thrown_away(tmp_path, shelf):
    write(tmp_path / "a.bin.part", b"something")
    asked = shelf(RIGHT).asked
    assert pinned.fetch(pin(RIGHT), tmp_path, progress=False).read_bytes() == RIGHT
    assert asked == ["bytes=9-", None]


def test_more_bytes_than_the_card_says_are_not_read_on(tmp_path, server):
    server(RIGHT, *[b"more"] * 10, RuntimeError("read on"))
    with pytest.raises(WeightsError, match="no longer holds"):
        pinned.fetch(pin(RIGHT), tmp_path, progress=False)
    assert files_in(tmp_path) == []


# --- members of archives --------------------------------------------------------------


def archive(**members: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return stream.getvalue()


def member(content: bytes, name: str) -> PinnedFile:
    known = pin(content, name).model_dump() | {"url": "https://example.org/v1/all.zip"}
    return PinnedFile(**known | {"member": name})


def test_members_come_from_one_download_of_their_archive(tmp_path, shelf):
    asked = shelf(archive(a=RIGHT, b=WRONG, c=b"never looked at")).asked
    assert pinned.fetch(member(RIGHT, "a"), tmp_path, progress=False).read_bytes() == RIGHT
    assert pinned.fetch(member(WRONG, "b"), tmp_path, progress=False).read_bytes() == WRONG
    assert len(asked) == 1
    assert files_in(tmp_path) == ["a", "archives/all.zip", "b"]
    write(tmp_path / "archives/other.zip.part", b"half")
    pinned.discard_archives(tmp_path)
    assert files_in(tmp_path) == ["a", "archives/other.zip.part", "b"]


@pytest.mark.parametrize(
    "content",
    [
        archive(b=RIGHT),
        archive(a=WRONG),
        archive(a=RIGHT + b"!" * 10_000_000),
        b"<html>",
        b"",
        archive(a=RIGHT)[:-30],
    ],
    ids=["no-member", "other-bytes", "bomb", "text", "empty", "cut"],
)
def test_an_archive_without_the_right_member_is_refused_and_removed(tmp_path, shelf, content):
    shelf(content)
    with pytest.raises(WeightsError) as caught:
        pinned.fetch(member(RIGHT, "a"), tmp_path, progress=False)
    one_line(caught.value)
    assert files_in(tmp_path) == []


def test_a_member_needs_its_own_size_and_hash():
    for lacking in ({"bytes": None}, {"sha256": "unpublished"}, {"url": None}):
        with pytest.raises(ValueError, match=r"member|sha256"):
            PinnedFile(**member(RIGHT, "a").model_dump() | lacking)


# --- hashes that nobody publishes -----------------------------------------------------


def unpublished(**known: str) -> PinnedFile:
    return PinnedFile(name="a.bin", sha256="unpublished", **known)


def test_a_git_blob_is_gits(tmp_path):
    # The blob of "what is up, doc?", from the book Pro Git, section 10.2.
    path = write(tmp_path / "a", b"what is up, doc?")
    assert pinned._git_blob(path.read_bytes()) == "bd9dbf5aae1a3862dd1526723246b20206e5fc37"


def test_what_comes_first_is_pinned_and_must_stay(tmp_path, shelf):
    shelf(RIGHT)
    file = unpublished(url="https://example.org/a.bin")
    path = pinned.fetch(file, tmp_path, progress=False)
    assert pins.with_pin("mine", file) == file
    digest = pinned.pin("mine", file, path)
    assert digest == hashlib.sha256(RIGHT).hexdigest()
    known = pins.with_pin("mine", file)
    assert known.sha256 == digest
    assert known.settings() == {"sha256": digest}  # what signatures and features are made of
    assert pins.with_pin("another", file) == file
    assert pinned.read_verified(path, known, "") == RIGHT
    path.write_bytes(WRONG)
    with pytest.raises(WeightsError, match="not the pinned file"):
        pinned.read_verified(path, known, "")


def test_a_file_of_a_repository_must_have_gits_hash(tmp_path, shelf):
    blob = hashlib.sha1(b"blob %d\0" % len(RIGHT) + RIGHT, usedforsecurity=False).hexdigest()
    file = unpublished(url="https://example.org/a.bin", git_blob=blob)
    shelf(WRONG)
    with pytest.raises(WeightsError, match=f"git blob .*expected {blob[:16]}"):
        pinned.fetch(file, tmp_path, progress=False)
    with pytest.raises(WeightsError, match="not the published file"):
        pinned.pin("mine", file, write(tmp_path / "other.bin", WRONG))
    assert not pins.pins_path().exists()
    shelf(RIGHT)
    pinned.pin("mine", file, pinned.fetch(file, tmp_path, progress=False))
    assert pins.with_pin("mine", file).sha256 == hashlib.sha256(RIGHT).hexdigest()


def test_a_pin_does_not_outlive_what_the_card_names(tmp_path):
    path = write(tmp_path / "a.bin", RIGHT)
    page = unpublished(page="https://example.org/one")
    pinned.pin("mine", page, path)
    assert pins.with_pin("mine", page).is_pinned
    blob = hashlib.sha1(b"blob 0\0", usedforsecurity=False).hexdigest()
    for other in (
        unpublished(page="https://example.org/two"),
        unpublished(page="https://example.org/one", git_blob=blob),
    ):
        assert not pins.with_pin("mine", other).is_pinned


def test_a_download_without_end_is_ended(tmp_path, server, monkeypatch):
    monkeypatch.setattr(downloads, "LARGEST", len(RIGHT) - 1)
    server(RIGHT)
    file = unpublished(url="https://example.org/a.bin")
    with pytest.raises(WeightsError, match="no end is in sight") as caught:
        pinned.fetch(file, tmp_path, progress=False)
    one_line(caught.value)
    assert files_in(tmp_path) == []


def test_damaged_pins_are_no_pins_to_start_from_anew(tmp_path):
    write(pins.pins_path(), b"[")
    with pytest.raises(StorageError, match="damaged") as caught:
        pins.with_pin("mine", unpublished(page="https://example.org"))
    one_line(caught.value)


def test_a_file_to_download_by_hand_says_from_where_and_whereto(tmp_path):
    file = unpublished(page="https://example.org/folder")
    with pytest.raises(WeightsError, match="cannot be fetched") as caught:
        pinned.fetch(file, tmp_path, progress=False)
    message = one_line(caught.value)
    assert "https://example.org/folder" in message
    assert str(tmp_path / "a.bin") in message


@pytest.mark.parametrize("status", [403, 404, 500])
def test_a_server_that_refuses_is_reported(tmp_path, server, status):
    server(b"<html>not here</html>", status=status)
    with pytest.raises(WeightsError, match="cannot download") as caught:
        pinned.fetch(pin(RIGHT), tmp_path, progress=False)
    one_line(caught.value)
    assert files_in(tmp_path) == []


@pytest.mark.parametrize("content", [WRONG, RIGHT[:-1], b"", b"<html>log in</html>"])
def test_wrong_content_is_refused_and_removed(tmp_path, server, content):
    server(content)
    with pytest.raises(WeightsError, match="no longer holds the pinned file") as caught:
        pinned.fetch(pin(RIGHT), tmp_path, progress=False)
    assert str(tmp_path / "a.bin") in one_line(caught.value)
    assert files_in(tmp_path) == []


def test_wrong_content_does_not_replace_what_was_there(tmp_path, server):
    server(b"something else")
    path = write(tmp_path / "a.bin", WRONG)
    with pytest.raises(WeightsError):
        pinned.fetch(pin(RIGHT), tmp_path, progress=False)
    assert path.read_bytes() == WRONG


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_a_full_disk_is_reported_and_leaves_nothing(tmp_path, server, monkeypatch):
    server(RIGHT)
    real = Path.open

    def full(path: Path, *how: str) -> IO[bytes]:
        if path.suffix != ".part":
            return real(path, *how)
        real(path, *how).close()
        return real(Path("/dev/full"), "wb")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        pinned.fetch(pin(RIGHT), tmp_path, progress=False)
    assert str(tmp_path / "a.bin") in one_line(caught.value)
    assert files_in(tmp_path) == []


def test_a_cache_that_cannot_be_made_is_reported(tmp_path, server):
    server(RIGHT)
    # A file where a folder should be: refused to every user, also to root.
    write(tmp_path / "cache", b"")
    with pytest.raises(StorageError, match="cannot write") as caught:
        pinned.fetch(pin(RIGHT), tmp_path / "cache", progress=False)
    message = one_line(caught.value)
    assert str(tmp_path / "cache") in message
    assert "None" not in message


def test_a_cache_that_cannot_be_written_is_reported(tmp_path, server, monkeypatch):
    server(RIGHT)

    def denied(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path))

    # What a folder of another user does; root may write everywhere, so it is played.
    monkeypatch.setattr(Path, "open", denied)
    with pytest.raises(StorageError, match="cannot write") as caught:
        pinned.fetch(pin(RIGHT), tmp_path, progress=False)
    message = one_line(caught.value)
    assert "ermission denied" in message
    assert "None" not in message


def test_a_fetched_name_cannot_leave_the_cache(tmp_path, server):
    asked = server(RIGHT)
    (tmp_path / "cache").mkdir()
    for name in ("../a.bin", "/a.bin", "x/../../a.bin"):
        with pytest.raises(CardError, match="leaves its folder"):
            pinned.fetch(pin(RIGHT, name), tmp_path / "cache", progress=False)
    assert asked == []
    assert files_in(tmp_path) == []


def test_progress_goes_to_standard_error(tmp_path, server, capsys):
    server(RIGHT)
    pinned.fetch(pin(RIGHT), tmp_path, progress=True)
    pinned.fetch(pin(RIGHT, "b.bin"), tmp_path, progress=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("url", ["http://example.org/a", "ftp://example.org/a", "file:///a", "a"])
def test_only_https_can_be_pinned(url):
    with pytest.raises(ValueError, match="url"):
        PinnedFile(name="a", sha256="0" * 64, url=url)


# --- clips of data sets ---------------------------------------------------------------

ROWS = "path,sha256,bytes\nsub/a.mp4,{},{}\n"
DATASET = """
title = "Mine"
repository = "https://example.org/mine"
commit = "abc"
url = "https://example.org/mine/{commit}/{path}"
files = "mine.csv"
licence = "none"
citation = "none"
"""


@pytest.fixture
def own_dataset(tmp_path, monkeypatch):
    folder = tmp_path / "cards/protocols/datasets"
    write(folder / "mine.toml", DATASET.encode())
    file = pin(RIGHT)
    write(folder / "mine.csv", ROWS.format(file.sha256, file.bytes).encode())
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "cards"))
    return dataset_card("mine")


def test_clips_are_found_in_the_users_folder_then_in_the_cache(own_dataset, tmp_path, monkeypatch):
    cached = write(DataFolders().cache / "mine/sub/a.mp4", RIGHT)
    own = DataFolders(tmp_path / "data")
    assert own.verified(own_dataset, "sub/a.mp4") == cached
    given = write(tmp_path / "data/mine/sub/a.mp4", RIGHT)
    assert own.verified(own_dataset, "sub/a.mp4") == given
    monkeypatch.setenv("SPFEM_BENCH_DATA", str(tmp_path / "data"))
    assert DataFolders.locate().verified(own_dataset, "sub/a.mp4") == given


def test_a_missing_clip_says_what_to_type(own_dataset):
    with pytest.raises(ClipError, match=r"mine/sub/a\.mp4: missing") as caught:
        DataFolders().verified(own_dataset, "sub/a.mp4")
    assert "'spfem-bench data fetch mine'" in one_line(caught.value)
    assert "--data-dir" in str(caught.value)


def test_a_clip_with_other_bytes_is_refused(own_dataset, tmp_path):
    folders = DataFolders(tmp_path / "data")
    path = write(tmp_path / "data/mine/sub/a.mp4", RIGHT)
    assert folders.verified(own_dataset, "sub/a.mp4") == path
    path.write_bytes(WRONG + b"!")
    with pytest.raises(ClipError, match="not the published file") as caught:
        folders.verified(own_dataset, "sub/a.mp4")
    assert str(path) in one_line(caught.value)
    assert "data fetch mine" in str(caught.value)


@pytest.mark.parametrize("name", ["b.mp4", "../../cards/protocols/datasets/mine.csv", ""])
def test_a_clip_that_is_not_listed_is_refused(own_dataset, name):
    with pytest.raises(ClipError, match="not a file of the data set 'mine'"):
        DataFolders().verified(own_dataset, name)


def test_every_local_clip_is_the_published_one(samples):
    folders = DataFolders(samples)
    for name in ("stccl-page", "asccl-repo"):
        paths = sorted((samples / name).rglob("*.mp4"))
        assert paths
        for path in paths:
            found = folders.verified(
                dataset_card(name), path.relative_to(samples / name).as_posix()
            )
            assert found == path
