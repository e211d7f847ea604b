"""Files from a real web server on this machine that is slow, broken or hostile."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from spfem_bench import downloads, kinds, pinned
from spfem_bench.definitions import pins
from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.networks import network_card
from spfem_bench.definitions.pins import PinnedFile
from spfem_bench.errors import WeightsError
from spfem_bench.files import locked
from tests.conftest import ROOT

Send = Callable[[bytes], object]
Answer = Callable[[str, Send], None]
"""Answers one request, given its text, by sending raw bytes."""


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Answer], str]]:
    """Start web servers; each closes the connection after one answer."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    servers: list[socketserver.BaseServer] = []

    def start(answer: Answer) -> str:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                lines = []
                while (line := self.rfile.readline()) not in (b"\r\n", b""):
                    lines.append(line.decode("latin-1"))
                with suppress(OSError):  # the client has left
                    answer("".join(lines), self.wfile.write)

        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.block_on_close = False
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def shelf(contents: dict[str, bytes], *, blocks: int = 1, pause: float = 0.0) -> Answer:
    """Answer with files by name, ranges too, in blocks with pauses between them."""

    def answer(request: str, send: Send) -> None:
        content = contents[request.split()[1].strip("/")]
        wanted = re.search(r"(?im)^range: bytes=(\d+)-", request)
        first = int(wanted[1]) if wanted else 0
        if wanted and first >= len(content):
            send(b"HTTP/1.1 416 Range\r\nContent-Length: 0\r\n\r\n")
            return
        status = f"206 Part\r\nContent-Range: bytes {first}-/*" if wanted else "200 OK"
        rest = content[first:]
        send(f"HTTP/1.1 {status}\r\nContent-Length: {len(rest)}\r\n\r\n".encode())
        size = -(-len(rest) // blocks)
        for at in range(0, len(rest), size):
            send(rest[at : at + size])
            time.sleep(pause)

    return answer


def file(url: str, name: str, content: bytes | None = None, **known: object) -> PinnedFile:
    """A file of a card, pinned where its content is given; cards themselves allow https only."""
    sha256 = "unpublished" if content is None else hashlib.sha256(content).hexdigest()
    card = PinnedFile(name=name, sha256=sha256, page="https://example.org")
    return card.model_copy(update={"url": f"{url}/{name}", "page": None, **known})


def files_in(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def refused(found: PinnedFile, folder: Path) -> str:
    """Return the one line with which a file is refused."""
    with pytest.raises(WeightsError) as caught:
        pinned.fetch(found, folder, progress=False)
    message = str(caught.value)
    assert len(message.splitlines()) == 1 and len(message) < 1000
    return message


RIGHT = random.Random(1).randbytes(300_000)

# ---- several processes ---------------------------------------------------------------------

FETCH = """
import json, sys, time
from pathlib import Path
from spfem_bench import pinned
from spfem_bench.definitions.pins import PinnedFile

owner, go, folder = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
files = [PinnedFile.model_construct(**known) for known in json.loads(sys.argv[4])]
print("ready", flush=True)
while not go.exists():
    time.sleep(0.001)
for file in files:
    path = pinned.fetch(file, folder, progress=False, report=lambda said: print(said, flush=True))
    if not file.is_pinned:
        pinned.pin(owner, file, path)
"""


def fetching(owner: str, go: Path, folder: Path, files: list[PinnedFile]) -> subprocess.Popen[str]:
    known = json.dumps([f.model_dump() for f in files])
    command = [sys.executable, "-c", FETCH, owner, go, folder, known]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started = subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert started.stdout is not None and started.stdout.readline() == "ready\n"
    return started


@pytest.mark.parametrize("turn", range(int(os.environ.get("SPFEM_BENCH_TEST_ROUNDS", "3"))))
def test_three_fetches_at_once_get_the_right_files_and_keep_all_pins(
    web: Callable[[Answer], str], tmp_path: Path, turn: int
) -> None:
    contents = {f"{n}.bin": bytes([n, 0]) + RIGHT[n:] for n in range(3)}
    asked: list[str] = []
    slow = shelf(contents, blocks=20, pause=0.005)

    def answer(request: str, send: Send) -> None:
        asked.append(request.split()[1])
        slow(request, send)

    url = web(answer)
    files = [
        file(url, "0.bin"),
        file(url, "1.bin", bytes=len(contents["1.bin"])),
        file(url, "2.bin", contents["2.bin"]),
    ]
    go, weights = tmp_path / "go", tmp_path / "weights"
    owners = [f"{turn}-{n}" for n in range(3)]
    started = [fetching(o, go, weights, files) for o in owners]
    go.touch()
    said = [process.communicate(timeout=60) for process in started]
    assert [p.returncode for p in started] == [0, 0, 0], said
    assert {p.name: p.read_bytes() for p in weights.iterdir()} == contents
    digests = [hashlib.sha256(contents[f"{n}.bin"]).hexdigest() for n in range(2)]
    kept = json.loads(pins.pins_path().read_bytes())
    assert sorted(kept.values()) == sorted(3 * digests)
    for owner in owners:
        assert [pins.with_pin(owner, f).sha256 for f in files[:2]] == digests
    assert sorted(asked) == ["/0.bin", "/1.bin", "/2.bin"]  # the others have waited
    assert sum("another process is downloading" in out for out, _ in said) >= 2


def test_a_fetch_that_waits_reports_it_and_uses_the_finished_file(tmp_path: Path) -> None:
    found, reported = file("http://127.0.0.1:9", "a.bin", RIGHT), []
    fetched: list[Path] = []

    def fetch() -> None:
        fetched.append(pinned.fetch(found, tmp_path, progress=False, report=reported.append))

    with locked(tmp_path / "a.bin"):
        thread = threading.Thread(target=fetch)
        thread.start()
        while not reported:
            time.sleep(0.01)
        assert not fetched
        (tmp_path / "a.bin").write_bytes(RIGHT)
    thread.join(10)
    assert fetched == [tmp_path / "a.bin"]
    assert reported == ["a.bin: another process is downloading it; waiting"]
    assert files_in(tmp_path) == ["a.bin"]


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_killed_fetch_leaves_no_lock_and_the_next_goes_on(
    web: Callable[[Answer], str], tmp_path: Path
) -> None:
    url = web(shelf({"a.bin": RIGHT}, blocks=10, pause=0.2))
    found, go, weights = file(url, "a.bin", RIGHT), tmp_path / "go", tmp_path / "weights"
    go.touch()
    started, part = fetching("a", go, weights, [found]), weights / "a.bin.part"
    until = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size) and time.monotonic() < until:
        time.sleep(0.01)
    started.kill()
    started.communicate()
    assert started.returncode == -signal.SIGKILL
    assert 0 < part.stat().st_size < len(RIGHT)
    assert pinned.fetch(found, weights, progress=False).read_bytes() == RIGHT
    assert files_in(weights) == ["a.bin"]


def test_the_first_of_two_pins_counts(tmp_path: Path) -> None:
    found, path = file("https://example.org", "a.bin"), tmp_path / "a.bin"
    path.write_bytes(RIGHT)
    digest = pinned.pin("mine", found, path)
    path.write_bytes(RIGHT[1:])
    with pytest.raises(WeightsError, match="is not the pinned file"):
        pinned.pin("mine", found, path)
    assert pins.with_pin("mine", found).sha256 == digest


# ---- what servers do wrong -----------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
SMALL = b"\0a small file"
TO = b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: "
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
ODD = {
    "nothing": b"",
    "no HTTP": b"\x00\xff\x00\xff",
    "no status": b"HTTP/1.1 abc\r\n\r\n",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "many heads": OK + b"A: b\r\n" * 200 + b"\r\n" + SMALL,
    "a long head": OK + b"A: " + b"b" * 100_000 + b"\r\n\r\n" + SMALL,
    "length of letters": OK + b"Content-Length: abc\r\n\r\n" + SMALL[:-1],
    "length below zero": OK + b"Content-Length: -5\r\n\r\n" + SMALL[:-1],
    "huge length": OK + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n" + SMALL[:-1],
    "two lengths": OK + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n" + SMALL,
    "lengths in one": OK + b"Content-Length: 3, 4\r\n\r\n" + SMALL,
    "length not ASCII": OK + "Content-Length: \u00b2\r\n\r\n".encode("latin-1") + SMALL[:-1],
    "short body": OK + b"Content-Length: 100\r\n\r\n" + SMALL,
    "negative chunk": CHUNKED + b"-5\r\nabcde\r\n0\r\n\r\n",
    "huge chunk": CHUNKED + b"f" * 100 + b"\r\nabcde\r\n",
    "chunk of letters": CHUNKED + b"xyz\r\nabcde\r\n0\r\n\r\n",
    "cut chunk": CHUNKED + b"ff\r\nabcde",
    "no chunk": CHUNKED,
    "bad gzip": OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nabcde",
    "unknown coding": OK + b"Content-Encoding: zstd, br\r\nContent-Length: 5\r\n\r\nabcde",
    "no content": b"HTTP/1.1 204 No Content\r\n\r\n",
    "a part unasked": b"HTTP/1.1 206 Part\r\nContent-Length: 13\r\n\r\n" + SMALL,
    "redirect to nowhere": b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n",
    "redirect to http": TO + b"http://example.org/a.bin\r\n\r\n",
    "redirect to a file": TO + b"file:///etc/passwd\r\n\r\n",
    "redirect to this machine": TO + b"https://127.0.0.1/\r\n\r\n",
    "redirect to this machine, mapped": TO + b"https://[::ffff:127.0.0.1]/\r\n\r\n",
    "redirect to a number": TO + b"https://2130706433/\r\n\r\n",
    "redirect to metadata": TO + b"https://169.254.169.254/latest\r\n\r\n",
    "redirect to the net": TO + b"https://printer.local/\r\n\r\n",
    "redirect to half a host": TO + b"https://[::1\r\n\r\n",
    "redirect to a space": TO + b"https://exa mple.org/\r\n\r\n",
    "redirect to bad bytes": TO + b"https://\xff\xfe.org/\r\n\r\n",
    "redirect to dots": TO + b"https://a..b/\r\n\r\n",
    "redirect to a long name": TO + b"https://" + b"a" * 300 + b".org/\r\n\r\n",
    "redirect to a bad port": TO + b"https://example.org:99999999/\r\n\r\n",
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
@pytest.mark.parametrize("published", [True, False])
def test_an_odd_answer_is_one_line(
    web: Callable[[Answer], str], tmp_path: Path, answer: bytes, published: bool
) -> None:
    url = web(lambda _, send: send(answer))
    found = file(url, "a.bin", SMALL if published else None, bytes=len(SMALL))
    message = refused(found, tmp_path)
    assert f"{url}/a.bin" in message and str(tmp_path / "a.bin") in message
    assert "a.bin" not in files_in(tmp_path)


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("objects.example.org", True),
        ("127.0.0.1", False),
        ("[::1]", False),
        ("router", False),
        ("0x7f.1", False),
        ("files.lan", False),
        ("a.localdomain", False),
    ],
)
def test_public_addresses(host: str, public: bool) -> None:
    assert downloads.is_public(f"https://{host}/a.bin") is public
    assert not downloads.is_public(f"http://{host}/a.bin")


def test_redirects_are_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import requests

    asked: list[str] = []

    def get(url: str, **_: object) -> requests.Response:
        asked.append(url)
        answer = requests.Response()
        last = len(asked) == turns
        answer.status_code, answer.raw = (200 if last else 302), io.BytesIO(RIGHT)
        answer.headers["Location"] = f"/{len(asked)}"
        return answer

    monkeypatch.setattr(requests, "get", get)
    turns = 6
    found = file("https://example.org", "a.bin", RIGHT)
    assert pinned.fetch(found, tmp_path, progress=False).read_bytes() == RIGHT
    assert asked[-1] == "https://example.org/5"
    asked.clear()
    turns = 100
    assert "redirects more than 5 times" in refused(file("https://example.org", "b.bin"), tmp_path)
    assert len(asked) == 6


@pytest.mark.parametrize("where", ["body", "head", "chunks", "nothing"])
def test_a_dripping_server_is_ended(
    web: Callable[[Answer], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(downloads, "WINDOW", 0.5)

    def answer(_: str, send: Send) -> None:
        send({"body": OK + b"\r\n", "chunks": CHUNKED, "head": OK + b"A: ", "nothing": b""}[where])
        for _ in range(400):
            if where != "nothing":
                send(b"1\r\nx\r\n" if where == "chunks" else b"x")
            time.sleep(0.05)

    began = time.monotonic()
    message = refused(file(web(answer), "a.bin", RIGHT), tmp_path)
    assert re.search(r"only \d+ bytes came within 0\.5 s", message)
    assert time.monotonic() - began < 10  # it would drip for 20 s


def test_a_slow_server_that_is_fast_enough_is_waited_for(
    web: Callable[[Answer], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "WINDOW", 1.0)
    monkeypatch.setattr(downloads, "RATE", 10)
    url = web(shelf({"a.bin": RIGHT}, blocks=10, pause=0.2))
    path = pinned.fetch(file(url, "a.bin", RIGHT), tmp_path, progress=False)
    assert path.read_bytes() == RIGHT


# ---- what is pinned without a published hash -----------------------------------------------


def onnx() -> bytes:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Abs", ["x"], ["y"])], "g", [value], [out])
    return helper.make_model(graph).SerializeToString()


def saved(*, zipped: bool) -> bytes:
    out = io.BytesIO()
    torch.save({"a": torch.zeros(500)}, out, _use_new_zipfile_serialization=zipped)
    return out.getvalue()


def hdf5(libver: str) -> bytes:
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w", libver=libver) as made:
        made["weights"] = [1.0] * 500
    return out.getvalue()


def safetensors() -> bytes:
    return next((builtin_folder() / "metrics/networks/weights").glob("*.safetensors")).read_bytes()


WHOLE: dict[str, Callable[[], bytes]] = {
    "a.onnx": onnx,
    "a.pth": lambda: saved(zipped=True),
    "a.ckpt": lambda: saved(zipped=True),
    "a.h5": lambda: hdf5("earliest"),
    "a.hdf5": lambda: hdf5("latest"),
    "a.safetensors": safetensors,
}
PAGES = {
    "empty": b"",
    "page": b"\n<!DOCTYPE html><html>log in \xc3\xa9</html>",
    "xml": b'<?xml version="1.0"?><Error/>',
    "json": b'{"message": "not found"}',
    "pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
}


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
@pytest.mark.parametrize("name", [*WHOLE, "a.param", "a.bin", "a.model", "a"])
def test_a_page_in_the_place_of_weights_is_neither_kept_nor_pinned(
    web: Callable[[Answer], str], tmp_path: Path, name: str, page: bytes
) -> None:
    found = file(web(shelf({name: page})), name)
    assert "does not hold the file" in refused(found, tmp_path)
    assert files_in(tmp_path) == []
    (tmp_path / name).write_bytes(page)  # as a user has copied it there
    with pytest.raises(WeightsError, match="is not the published file"):
        pinned.pin("mine", found, tmp_path / name)
    assert not pins.pins_path().exists()


@pytest.mark.parametrize("name", WHOLE)
def test_a_file_that_is_cut_or_of_another_kind_is_not_pinned(name: str) -> None:
    content = WHOLE[name]()
    assert kinds.format_problem(name, content) is None
    for size in {1, 7, 20, 51, len(content) // 2, len(content) - 1}:
        assert kinds.format_problem(name, content[:size]), size
    kind = Path(name).suffix
    for other, make in WHOLE.items():
        same = {".pth", ".ckpt"} if kind in (".pth", ".ckpt") else {".h5", ".hdf5"}
        if Path(other).suffix not in {kind, *same}:
            assert kinds.format_problem(name, make()), other


def test_an_old_checkpoint_of_torch_is_of_its_kind() -> None:
    assert kinds.format_problem("a.model", saved(zipped=False)) is None


@pytest.mark.parametrize("name", ["scrfd-500m", "mobilefacenet", "mini-xception", "compact-sync"])
def test_published_weights_are_of_their_kind(weights_folder: Path, name: str) -> None:
    from spfem_bench.networks.weights import WeightsStore

    card, store = network_card(name), WeightsStore(weights_folder)
    for known, content in zip(card.files, store.read(card), strict=True):
        assert kinds.format_problem(known.name, content) is None


def test_a_size_that_the_card_states_is_checked_before_a_file_is_pinned(tmp_path: Path) -> None:
    path, found = tmp_path / "a.bin", file("https://example.org", "a.bin", bytes=len(RIGHT))
    path.write_bytes(RIGHT[:-1])
    with pytest.raises(WeightsError, match="it has 299999 bytes, expected 300000"):
        pinned.pin("mine", found, path)
    assert not pins.pins_path().exists()


def test_a_file_without_a_hash_is_never_made_of_two_downloads(
    web: Callable[[Answer], str], tmp_path: Path
) -> None:
    # What came before may be of another version, and no hash would notice.
    (tmp_path / "a.bin.part").write_bytes(b"\0" * 1000)
    path = pinned.fetch(file(web(shelf({"a.bin": RIGHT})), "a.bin"), tmp_path, progress=False)
    assert path.read_bytes() == RIGHT


def test_a_page_that_lies_there_is_fetched_again(
    web: Callable[[Answer], str], tmp_path: Path
) -> None:
    (tmp_path / "a.bin").write_bytes(PAGES["page"])
    path = pinned.fetch(file(web(shelf({"a.bin": RIGHT})), "a.bin"), tmp_path, progress=False)
    assert path.read_bytes() == RIGHT
