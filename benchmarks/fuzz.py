"""Cards, lists, records, weights, media and our own files spoilt at random, and their readers.

    python benchmarks/fuzz.py [--cases 10000] [--seed 0] [--kinds clip-address png ...]

Whatever a file holds, it is read, or refused with one of the package's own errors in one line:
no other exception, no case of more than 20 seconds, and no process of more than 1.5 GB: a limit on
this one's memory makes a larger request a MemoryError; ffmpeg's peak is measured.
A file with a checksum is refused, or is read as the whole one is.
Every case has a seed of its own, so that one can be made again alone (--only KIND:NUMBER).
"""

from __future__ import annotations

import argparse
import copy
import csv
import hashlib
import io
import json
import os
import random
import resource
import shutil
import signal
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from spfem_bench.definitions.cards import Kind, builtin_folder, read_card
from spfem_bench.errors import SpfemBenchError
from spfem_bench.stored import UnverifiedWarning

SECONDS = 20
MEGABYTES = 1500

Target = Callable[[Path], object]


# ---- how content is spoilt -----------------------------------------------------------------

VALUES = [
    "0",
    "-1",
    "1e999",
    "nan",
    "inf",
    "-inf",
    "99999999999999999999999999",
    "0.0000001",
    "true",
    '""',
    '"x"',
    "[]",
    "{}",
    "[[]]",
    '"../../etc/passwd"',
    '"/etc/passwd"',
    '"C:\\\\x"',
    '"a\\u0000b"',
    '"\\ud83d\\ude00"',
    '"{speaker}"',
    '"{0.__class__}"',
    '"{"',
    '"%s"',
    "1979-05-27",
    "'''",
    '[1, "a"]',
    '"' + "x" * 5000 + '"',
    "[" * 3000,
    '{"a":' * 3000,
    '"' + "9" * 5000 + '"',
]
"""In the place of a value of a card or a record."""

WORDS = [
    "\0",
    "\r",
    "\n\n",
    '"',
    "'",
    ",",
    "=",
    "[",
    "]",
    "#",
    "\ufeff",
    "\u202e",
    "é",
    "\x1b[2J",
    "../",
    "..\\",
    "x" * 200_000,
    "9" * 5000,
    "0x" + "f" * 100_000,
    "a." * 30_000 + "b=1",
    "{id}" * 2000,
    "\udce9",
    "=1+1",
    "-",
    "NaN",
    "Infinity",
    "&",
    "{",
    "}",
    "%00",
]
"""Put anywhere into a text."""


def spoilt_bytes(content: bytes, rng: random.Random) -> bytes:
    """Flip, cut, double, swap, zero or overwrite parts; more often near the beginning."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2, 3, 8, 30])):
        if not data:
            break
        reach = rng.choice([64, 512, len(data)])
        at = rng.randrange(min(reach, len(data)))
        length = rng.choice([1, 1, 2, 4, 8, 64])
        match rng.randrange(7):
            case 0:
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + length] = rng.randbytes(length)
            case 2:
                del data[at:]
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = data[at : at + length] * rng.choice([1, 2, 100])
            case 5:
                data[at : at + 4] = struct.pack(
                    rng.choice("<>") + "I",
                    rng.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 30_000, len(data)]),
                )
            case 6:
                other = rng.randrange(len(data))
                data[at : at + length] = data[other : other + length]
    return bytes(data)


def spoilt_text(content: bytes, rng: random.Random) -> bytes:
    """Change lines, values and words of a text; sometimes its bytes."""
    if rng.random() < 0.1:
        return spoilt_bytes(content, rng)
    text = content.decode()
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        lines = text.split("\n")
        at = rng.randrange(len(lines))
        match rng.randrange(6):
            case 0:
                del lines[at]
            case 1:
                lines.insert(at, lines[rng.randrange(len(lines))])
            case 2:
                key, sign, _ = lines[at].partition("=")
                lines[at] = f"{key}= {rng.choice(VALUES)}" if sign else rng.choice(VALUES)
            case 3:
                cells = lines[at].split(",")
                cells[rng.randrange(len(cells))] = rng.choice([*WORDS, *VALUES])
                lines[at] = ",".join(cells)
            case 4:
                place = rng.randrange(len(lines[at]) + 1)
                lines[at] = lines[at][:place] + rng.choice(WORDS) + lines[at][place:]
            case 5:
                place, other = rng.randrange(len(lines[at]) + 1), rng.randrange(len(lines))
                lines[at] = lines[at][:place] + lines[other][-place:]
        text = "\n".join(lines)
    return text.encode("utf-8", "surrogatepass")


def spoilt_name(content: bytes, rng: random.Random) -> bytes:
    """Put any bytes but NUL and a slash into a name."""
    data = bytearray(content)
    for _ in range(rng.choice([1, 2, 5, 300])):
        some = bytes(b for b in rng.randbytes(rng.choice([1, 2, 4])) if b not in b"\0/")
        some = rng.choice([some, b"\x1b[2J", b"=", b"\xe9", "\u202e".encode(), b"\r", b"\n"])
        place = rng.randrange(len(data) + 1)
        data[place:place] = some
    return bytes(data)


JSON_VALUES: list[Any] = [
    None,
    True,
    0,
    -1,
    1e308,
    10**400,
    "",
    "x",
    [],
    {},
    [[]],
    [None],
    {"a": None},
    "NaN",
    "../../x",
    "x" * 5000,
    "\x00",
    "\ud800",
    float("nan"),
    float("inf"),
    [1e308] * 40,
    2**63,
]


def spoilt_json(content: bytes, rng: random.Random) -> bytes:
    """Change, remove or double values of a JSON file wherever they are; sometimes its text."""
    if rng.random() < 0.2:
        return spoilt_text(content, rng)
    tree = json.loads(content)
    for _ in range(rng.choice([1, 1, 2, 3])):
        holder, key = _place(tree, rng)
        if holder is None:
            continue
        match rng.randrange(4):
            case 0:
                del holder[key]
            case 1 if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[key]))
            case _:
                holder[key] = copy.deepcopy(rng.choice(JSON_VALUES))
    return json.dumps(tree).encode()


def _place(tree: Any, rng: random.Random) -> tuple[Any, Any]:
    """Go down a random way, and return a container and a key of it."""
    here, found = tree, (None, None)
    while isinstance(here, (dict, list)) and here:
        key = rng.choice(list(here)) if isinstance(here, dict) else rng.randrange(len(here))
        found = (here, key)
        if rng.random() < 0.15:
            break
        here = here[key]
    return found


# ---- what is spoilt, and who reads it ------------------------------------------------------


@dataclass(frozen=True)
class FileKind:
    """One kind of file: whole examples, how they are spoilt, and what reads them."""

    corpus: list[bytes]
    suffix: str
    spoil: Callable[[bytes, random.Random], bytes]
    read: Target
    share: float = 1
    beside: dict[str, bytes] = field(default_factory=dict)


def cards(kind: Kind) -> list[bytes]:
    """Return the project's own cards of a kind."""
    return [p.read_bytes() for p in sorted((builtin_folder() / kind.value).glob("*.toml"))]


def kinds(made: Path) -> dict[str, FileKind]:
    """Return all kinds by name; media files are made in a folder."""
    import cv2

    from spfem_bench import pinned
    from spfem_bench.analysis.comparing import compare_runs
    from spfem_bench.datasets import (
        cells,
        clip_sheets,
        index_report,
        name_matching,
        ned_index,
        ned_record,
        ned_tree,
        recordings_index,
        solving,
    )
    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.datasets.providers.ned import NedFaces
    from spfem_bench.definitions import (
        clips,
        datasets,
        layouts,
        measured,
        methods,
        metrics,
        networks,
        pins,
        protocols,
        published,
        recordings,
    )
    from spfem_bench.evaluation import record as records
    from spfem_bench.evaluation.record import item_values
    from spfem_bench.features.store import FeatureStore
    from spfem_bench.files import Listing
    from spfem_bench.media import packets, pictures, video
    from spfem_bench.networks import weights
    from spfem_bench.networks.scrfd_ncnn import ncnn_network
    from spfem_bench.puppets.mini_ned import model as ned
    from spfem_bench.reporting import tables
    from spfem_bench.reporting.compare import render_comparison
    from spfem_bench.reporting.report.build import build
    from spfem_bench.reporting.report.folder import listed
    from spfem_bench.reporting.table_layouts import render_table
    from spfem_bench.stccl import metric as metric_files
    from spfem_bench.stored import write_json
    from spfem_bench.texts import csv_text, visible
    from spfem_bench.training import config as stccl
    from tests.synthetic import record

    def card(model: Any) -> Target:
        return lambda path: read_card(model, path).settings()

    def address(path: Path) -> None:
        clip = clips.Clip.parse(path.read_bytes().decode("utf-8", "replace"))
        assert clips.Clip.parse(str(clip)) == clip, clip
        clip.within(path.parent)

    def facts(path: Path) -> None:
        for cell in solving.read_cells(path):
            made = [
                cells.SourceClip(cell.speaker, cell.emotion, f"{n:03d}", 80 + n, "x.mp4")
                for n in range(6)
            ]
            assert cells.solve(cell, made).sets >= 0

    def run_record(path: Path) -> None:
        found = records.load_run(path)
        for metric in ("csim", "lse-d"):
            item_values(found, metric)

    def drawn(path: Path) -> None:
        found = tables.make_table([records.load_run(path)])
        for style in ("text", "latex", "html", "csv"):
            render_table(found, style, layout="asccl")  # type: ignore[arg-type]

    def tensors(path: Path) -> None:
        weights.safetensors_state(path.read_bytes(), networks.network_card("compact-identity"))

    def checkpoint(path: Path) -> None:
        weights.torch_state(path.read_bytes(), networks.network_card("syncnet-v2"))

    def entry(path: Path) -> None:
        store = FeatureStore(path.parent / "store")
        place = store.path({"n": 0})
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
        found = store.get({"n": 0})
        assert found is None or (found["x"] == np.arange(500)).all(), "a damaged entry was used"

    def video_file(path: Path) -> None:
        from spfem_bench.media import audio

        clip = clips.Clip(path)
        packets.stream_times(path)
        for frame in video.frames(clip):
            assert frame.ndim == 3
        audio.samples(clip)

    def sound_file(path: Path) -> None:
        from spfem_bench.media import audio

        audio.samples(clips.Clip(path))

    def picture(path: Path) -> None:
        assert pictures.read_picture(path).ndim == 3

    def lists(folder: str) -> list[bytes]:
        found = [p.read_bytes() for p in sorted((builtin_folder() / folder).glob("*.csv"))]
        return [c for c in found if len(c) < 30_000]

    def demo_list(path: Path) -> None:
        card = (builtin_folder() / "protocols/demo-inter-id.toml").read_text()
        own = path.with_suffix(".toml")
        own.write_text(card.replace("demo-inter-id.csv", path.name))
        protocols.protocol(str(own))

    def report(path: Path) -> None:
        build([records.load_run(path)], items=1, clips=None)

    def compared(path: Path) -> None:
        found = compare_runs([records.load_run(path), other], common=True, resamples=100)
        render_comparison(found, "text")

    def kept_record(path: Path) -> None:
        found = records.load_run(path)
        assert found.unverified or found.plain() == run, "a damaged record was used"

    def index(path: Path) -> None:
        found = recordings_index.read_index(path)
        assert not found.verified or found == an_index, "a damaged index was used"
        index_report.index_report(datasets.dataset_card("ravdess"), found)

    def tree_index(path: Path) -> None:
        assert ned_index.read_index(path) == a_tree, "a damaged index was used"

    def tree_clips(path: Path) -> None:
        faces.report(ned_tree.read_tree(a_tree.root, faces.settings, clips=path))

    def prepared(path: Path) -> None:
        (path.parent / ned_record.RECORD).write_bytes(path.read_bytes())
        assert ned_record.prepared_tree(path.parent) is not None

    def training(path: Path) -> None:
        learner.checkpoint.path = path
        learner.descent.step = -1
        learner.resume(fresh=False)
        assert learner.descent.step == 0, "a damaged checkpoint was used"

    def metric(path: Path) -> None:
        path.with_suffix(".safetensors").write_bytes(heads)
        metric_files.read_checkpoint(path)

    def model(path: Path) -> None:
        ned.read_model_record(path)

    def param(path: Path) -> None:
        ncnn_network(networks.network_card("scrfd-500m"), path.read_bytes(), bytes(100_000))

    def sums(path: Path) -> None:
        (path.parent / "SHA256SUMS").write_bytes(path.read_bytes())
        listed(path.parent)

    def numbers(path: Path) -> None:
        card = measured.measured_card("mini-ned")
        aside = card.model_copy(update={"path": path.with_suffix(".toml")})
        aside.settings_path.write_bytes(path.read_bytes())
        measured.read_settings(aside)

    def any_name(path: Path) -> None:
        name = os.fsdecode(path.read_bytes())
        shown = visible(name)
        shown.encode()
        assert not any(
            unicodedata.category(c) in ("Cc", "Cs", "Cf") for c in shown if c not in "\n\t"
        ), shown
        printed = csv_text([[name, 1]])
        ((cell, _),) = csv.reader(io.StringIO(printed, newline=""))
        assert cell[:1] not in ("=", "+", "-", "@", "\t", "\r"), cell
        made = path.parent / "names"
        made.mkdir(exist_ok=True)
        with suppress(OSError):  # longer than a name may be
            (made / name).write_bytes(b"")
        Listing(made).find("*")
        shutil.rmtree(made)
        clips.Clip.parse(name).within(made)

    def pinned_hash(path: Path) -> None:
        with mock.patch.dict(os.environ, SPFEM_BENCH_CACHE=str(made / "cache")):
            pins.pins_path().parent.mkdir(parents=True, exist_ok=True)
            pins.pins_path().write_bytes(path.read_bytes())
            pins.read_pins()

    server = answering()

    def fetched(path: Path) -> None:
        server.answer = path.read_bytes()
        known = pins.PinnedFile(
            name="file.bin", sha256=hashlib.sha256(b"right").hexdigest(), page="https://example.org"
        )
        url = f"http://127.0.0.1:{server.server_address[1]}/file.bin"
        with (
            mock.patch.dict(os.environ, NO_PROXY="127.0.0.1"),
            tempfile.TemporaryDirectory(dir=made) as folder,
        ):
            known = known.model_copy(update={"url": url, "page": None})
            pinned.fetch(known, Path(folder), progress=False)

    def mapping(path: Path) -> None:
        given = recordings.read_mapping(path)
        card = datasets.dataset_card("mead")
        assert card.recordings is not None
        row = {"speaker": "M003", "emotion": "angry", "level": "3", "clip": "001"}
        recordings.candidates(card.recordings, row, given)

    def sheet(path: Path) -> None:
        names = name_matching.ClipNames(["clip_0001", "anna_17"])
        for written, _ in clip_sheets.ClipSheet.read(path).rows:
            names.find(clip_sheets.ClipSheet.stem(written))

    other = records.parse_record(record("other", metrics=("fad", "csim", "lse-d"), seed=1))
    run = record(metrics=("fad", "csim", "lse-d", "scc"))
    write_json(made / "run.json", run)
    run = json.loads(json.dumps(run))
    an_index = recordings_index.RecordingsIndex(
        made,
        {
            r.video: recordings_index.IndexedFile(r.video, 7, 2**60, {"video": (0.0, 3.2, 80)}, "")
            for r in datasets.recordings(datasets.dataset_card("ravdess"))[:4]
        },
    )
    recordings_index.save_index(made / "index.json", datasets.dataset_card("ravdess"), an_index)
    kept_index = (made / "index.json").read_bytes()
    faces = DataFolders.locate().provider(datasets.dataset_card("ned"))
    assert isinstance(faces, NedFaces)
    face = made / "tree/M003/sad/faces_aligned/000000.png"
    face.parent.mkdir(parents=True)
    cv2.imwrite(str(face), np.full((256, 256, 3), 90, np.uint8))
    a_tree = ned_tree.read_tree(made / "tree", faces.settings)
    ned_index.save_index(made / "tree.json", "ned", a_tree)
    a_clip = ned_record.PreparedClip("M003", "sad", "011", 0, 1, 30.0, True, "0" * 64)
    ned_record.PreparedTree({"mask": None}, [a_clip], ["M003/sad"]).write(made / "tree")
    learner = small_training(made)
    heads = (builtin_folder() / "metrics/stccl/puppets.safetensors").read_bytes()
    metric_json = (builtin_folder() / "metrics/stccl/puppets.json").read_bytes()
    models = [
        p.read_bytes() for p in (builtin_folder() / "reference_results/models").glob("*.json")
    ]
    protocol_cards = cards(Kind.PROTOCOL)
    whole_lists = {p.name: p.read_bytes() for p in (builtin_folder() / "protocols").glob("*.csv")}
    old_run = json.dumps(run).encode()
    media = media_files(made)
    return {
        "metric-card": FileKind(cards(Kind.METRIC), ".toml", spoilt_text, card(metrics.MetricCard)),
        "network-card": FileKind(
            cards(Kind.NETWORK), ".toml", spoilt_text, card(networks.NetworkCard)
        ),
        "profile-card": FileKind(
            cards(Kind.PROFILE), ".toml", spoilt_text, card(networks.ProfileCard), 0.5
        ),
        "protocol-card": FileKind(
            protocol_cards,
            ".toml",
            spoilt_text,
            lambda p: protocols.protocol(str(p)),
            1,
            whole_lists,
        ),
        "dataset-card": FileKind(
            cards(Kind.DATASET), ".toml", spoilt_text, card(datasets.DatasetCard), 0.5
        ),
        "method-card": FileKind(
            cards(Kind.METHOD), ".toml", spoilt_text, card(methods.MethodCard), 0.7
        ),
        "layout-card": FileKind(
            cards(Kind.LAYOUT), ".toml", spoilt_text, card(layouts.LayoutCard), 0.5
        ),
        "numbers-card": FileKind(
            cards(Kind.MEASURED), ".toml", spoilt_text, card(measured.MeasuredCard), 0.5
        ),
        "stccl-config": FileKind(
            [stccl.default_config().read_bytes()],
            ".toml",
            spoilt_text,
            stccl.read_train_config,
            0.5,
        ),
        "cells": FileKind([whole_lists["mead-papers.csv"]], ".csv", spoilt_text, facts),
        "item-list": FileKind([whole_lists["demo-inter-id.csv"]], ".csv", spoilt_text, demo_list),
        "clip-sheet": FileKind(
            [
                b"generated,source,reference,real,speaker,emotion\nclip_0001,anna_17,b.mp4,,a,happy\n",
                b"name,emotion\nclip_0001.mp4,sad\nsub/x.AVI,bored\n",
            ],
            ".csv",
            spoilt_text,
            sheet,
            0.5,
        ),
        "printed-table": FileKind(
            lists("reference_results/published"),
            ".csv",
            spoilt_text,
            lambda p: published.printed_table(str(p)),
            0.7,
        ),
        "clip-address": FileKind(
            [
                b"a/b.mp4#xywh=256,0,256,256&t=0,3.6",
                b"frames#fps=30&frames=0,90&audio=s.wav",
                b"001.mp4#audio=001.m4a&edit=blurred:2",
                b"a#b.mp4#t=1.5,2",
                b"x.mkv#edit=time-shuffled:5",
            ],
            "",
            spoilt_text,
            address,
            2,
        ),
        "run-record": FileKind([old_run], ".json", spoilt_json, run_record, 1.5),
        "kept-record": FileKind(
            [(made / "run.json").read_bytes()], ".json", spoilt_bytes, kept_record, 1.5
        ),
        "record-table": FileKind([old_run], ".json", spoilt_json, drawn),
        "record-report": FileKind([old_run], ".json", spoilt_json, report),
        "record-compare": FileKind([old_run], ".json", spoilt_json, compared),
        "index": FileKind([without_checksum(kept_index)], ".json", spoilt_json, index),
        "kept-index": FileKind([kept_index], ".json", spoilt_bytes, index),
        "tree-index": FileKind(
            [(made / "tree.json").read_bytes()], ".json", spoilt_bytes, tree_index
        ),
        "tree-clips": FileKind(
            [b"speaker,emotion,clip,frames\nM003,sad,011,1\n"], ".csv", spoilt_text, tree_clips
        ),
        "prepared-tree": FileKind(
            [(made / "tree" / ned_record.RECORD).read_bytes()], ".json", spoilt_json, prepared, 0.5
        ),
        "training": FileKind([learner.checkpoint.path.read_bytes()], ".pt", spoilt_bytes, training),
        "metric-record": FileKind([without_checksum(metric_json)], ".json", spoilt_json, metric),
        "model-record": FileKind([*map(without_checksum, models)], ".json", spoilt_json, model),
        "ncnn-param": FileKind([PARAM], ".param", spoilt_text, param),
        "report-sums": FileKind([b"0" * 64 + b"  index.html\n"], ".txt", spoilt_bytes, sums, 0.3),
        "numbers-settings": FileKind([b'{"a": {"b": 1}}'], ".json", spoilt_json, numbers, 0.5),
        "name": FileKind(
            [b"clip.mp4", b"a/b.mp4#t=0,1", "é#xywh=0,0,8,8".encode()], "", spoilt_name, any_name, 2
        ),
        "pins": FileKind(
            [json.dumps({"a/b of c": "0" * 64}).encode()], ".json", spoilt_json, pinned_hash, 0.5
        ),
        "http-answer": FileKind(ANSWERS, ".http", spoilt_answer, fetched),
        "mapping": FileKind([MAPPING], ".toml", spoilt_text, mapping, 0.7),
        "safetensors": FileKind([small_safetensors()], ".safetensors", spoilt_bytes, tensors),
        "checkpoint": FileKind(
            [small_checkpoint(old) for old in (False, True)], ".pth", spoilt_bytes, checkpoint, 0.7
        ),
        "store-entry": FileKind([small_entry(made)], ".safetensors", spoilt_bytes, entry),
        **{
            n: FileKind(media[n], f".{n}", spoilt_media, picture, 0.8)
            for n in ("png", "jpg", "bmp")
        },
        **{
            n: FileKind(media[n], f".{n}", spoilt_media, video_file, 0.5)
            for n in ("mp4", "mkv", "avi", "mov", "webm", "flv")
        },
        **{
            n: FileKind(media[n], f".{n}", spoilt_media, sound_file, 0.5)
            for n in ("wav", "flac", "m4a", "ogg", "mp3")
        },
    }


PARAM = b"""7767517
3 3
Input input.1 0 1 input.1
Convolution conv 1 1 input.1 c 0=4 1=3 3=2 4=1 5=1 6=108
ReLU relu 1 1 c score_8
"""

MAPPING = b"""video = ["{speaker}/{emotion}_{level}_{clip}.mp4"]
[names.emotion]
angry = "ANG"
"""


ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nrig\r\n2\r\nht\r\n0\r\n\r\n",
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\n\r\nright",
]
REFUSALS = [
    b"HTTP/1.1 302 Found\r\nLocation: https://localhost/file.bin\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n",
]
"""Answers without the file; the redirect's address is not public, so it is not requested."""


def spoilt_answer(content: bytes, rng: random.Random) -> bytes:
    """Spoil an answer, or one without the file, as bytes or as text."""
    content = rng.choice([content, content, *REFUSALS])
    return rng.choice([spoilt_bytes, spoilt_text])(content, rng)


def answering() -> Any:
    """Start a web server on this machine that sends its attribute ``answer`` and hangs up."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline() not in (b"\r\n", b""):
                pass
            with suppress(OSError):  # the client has left
                self.wfile.write(self.server.answer)  # type: ignore[attr-defined]

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def without_checksum(content: bytes) -> bytes:
    """Return a file of ours as an earlier version wrote it, so that all its values are read."""
    return json.dumps({k: v for k, v in json.loads(content).items() if k != "checksum"}).encode()


def small_training(made: Path) -> Any:
    """Return a training at its first step, whose checkpoint is written."""
    from accelerate import Accelerator

    from spfem_bench.networks.weights import WeightsStore
    from spfem_bench.stccl.checkpoint import backbone_record, load_backbone
    from spfem_bench.training import config, kit, train
    from spfem_bench.training.windows import map_sizes

    settings = config.read_train_config(config.default_config())
    backbone = load_backbone(backbone_record("compact-identity"), WeightsStore())
    checkpoint = kit.Checkpoint(made / train.CHECKPOINT, {"a": 1})
    sizes = map_sizes(backbone)
    run = train._Training(settings, backbone.channels, sizes, Accelerator(cpu=True), checkpoint)
    run.save()
    return run


def small_safetensors() -> bytes:
    """Return a file of three small tensors."""
    import torch
    from safetensors.torch import save

    return save({"a": torch.ones(3, 4), "b": torch.zeros(7), "c": torch.ones(2, dtype=torch.int64)})


def small_checkpoint(old: bool) -> bytes:
    """Return a PyTorch checkpoint in the old or the new container."""
    import torch

    content = io.BytesIO()
    state = {"a.weight": torch.ones(3, 4), "a.bias": torch.zeros(3)}
    torch.save(state, content, _use_new_zipfile_serialization=not old)
    return content.getvalue()


def small_entry(made: Path) -> bytes:
    """Return an entry of a feature store."""
    from spfem_bench.features.store import FeatureStore

    store = FeatureStore(made / "store")
    store.put({"n": 0}, {"x": np.arange(500)})
    return store.path({"n": 0}).read_bytes()


FIELDS = [
    b"stts",
    b"ctts",
    b"elst",
    b"mdhd",
    b"mvhd",
    b"tkhd",
    b"stsz",
    b"stsc",
    b"stco",
    b"trun",
    b"tfdt",
    b"IHDR",
    b"IDAT",
    b"fmt ",
    b"data",
    b"avih",
    b"strh",
    b"strf",
    b"idx1",
    b"fLaC",
    b"OggS",
    b"onMetaData",
    b"duration",
    b"\xff\xc0",
    b"\xff\xc2",
    b"\xff\xda",
    b"BM",
    b"\x44\x89",
    b"\x2a\xd7\xb1",
    b"\xb0\x82",
    b"\xa3",
]
"""What stands before fields of containers and codecs that give sizes, times and counts."""


def spoilt_media(content: bytes, rng: random.Random) -> bytes:
    """Flip a bit of a field, or repeat a part of it; as often, spoil any bytes."""
    present = [field for field in FIELDS if field in content]
    if not present or rng.random() < 0.5:
        return spoilt_bytes(content, rng)
    data = bytearray(content)
    for _ in range(rng.choice([1, 1, 1, 2])):
        name = rng.choice(present)
        places = [n for n in range(len(data)) if data.startswith(name, n)]
        at = (rng.choice(places) if places else 0) + len(name) + rng.randrange(28)
        if at >= len(data):
            continue
        if rng.random() < 0.8:
            data[at] ^= 1 << rng.randrange(8)
        else:
            data[at : at + 4] = struct.pack(">I", rng.getrandbits(rng.choice([8, 16, 24, 32])))
    return bytes(data)


def media_files(made: Path) -> dict[str, list[bytes]]:
    """Return small pictures, videos and sounds by suffix."""
    import cv2

    from spfem_bench.media import ffmpeg

    picture = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    deep, progressive = picture.astype(np.uint16) << 8, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1]
    found = {n: [cv2.imencode(f".{n}", picture)[1].tobytes()] for n in ("png", "jpg", "bmp")}
    found["png"].append(cv2.imencode(".png", deep)[1].tobytes())
    found["jpg"].append(cv2.imencode(".jpg", picture, progressive)[1].tobytes())
    seen = ["-f", "lavfi", "-i", "testsrc2=s=64x48:r=25:d=0.4"]
    heard = ["-f", "lavfi", "-i", "sine=d=0.4:r=16000"]
    both = [*seen, *heard]
    for name, arguments in {
        "mp4": [*both, "-c:v", "libx264", "-c:a", "aac"],
        "mov": [*both, "-c:v", "mjpeg", "-c:a", "pcm_s16le"],
        "mkv": [*both, "-c:v", "ffv1", "-c:a", "flac"],
        "webm": [*both, "-c:v", "libvpx", "-c:a", "libopus"],
        "avi": [*both, "-c:v", "mpeg4", "-c:a", "libmp3lame"],
        "flv": [*both, "-ar", "44100", "-c:v", "flv", "-c:a", "aac"],
        "wav": heard,
        "flac": heard,
        "m4a": [*heard, "-c:a", "aac"],
        "ogg": [*heard, "-c:a", "libvorbis"],
        "mp3": [*heard, "-c:a", "libmp3lame"],
    }.items():
        path = made / f"whole.{name}"
        command = [ffmpeg.program(), "-v", "error", "-y", "-nostdin", *arguments, str(path)]
        subprocess.run(command, check=True)
        found[name] = [path.read_bytes()]
    parts = made / "parts.mp4"
    fragments = ["-c", "copy", "-movflags", "frag_keyframe+empty_moov+default_base_moof"]
    command = [ffmpeg.program(), "-v", "error", "-y", "-i", str(made / "whole.mp4"), *fragments]
    subprocess.run([*command, str(parts)], check=True, stdin=subprocess.DEVNULL)
    found["mp4"].append(parts.read_bytes())
    return found


# ---- the cases -----------------------------------------------------------------------------


@dataclass
class Found:
    """What came of one kind's cases."""

    cases: int = 0
    read: int = 0
    refused: int = 0
    wrong: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0


class HangError(Exception):
    """A case took too long."""


def _alarm(*_: object) -> None:
    raise HangError(f"more than {SECONDS} s")


def case(kind: FileKind, name: str, number: int, seed: int, folder: Path) -> str:
    """Do one case; return ``read``, ``refused``, or what went wrong."""
    rng = random.Random(hashlib.sha256(f"{seed}/{name}/{number}".encode()).digest())
    content = kind.spoil(rng.choice(kind.corpus), rng)
    path = folder / f"{name}-{number}{kind.suffix}"
    path.write_bytes(content)
    signal.signal(signal.SIGALRM, _alarm)
    signal.alarm(SECONDS)
    try:
        kind.read(path)
        return "read"
    except SpfemBenchError as error:
        if len(str(error).splitlines()) != 1:
            return f"{type(error).__name__} in several lines: {str(error)[:120]!r}"
        return "refused"
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)
        ours = [f for f in last if "spfem_bench" in f.filename] or last
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        return f"{type(error).__name__} at {where}: {str(error)[:80]}"
    finally:
        signal.alarm(0)
        path.unlink(missing_ok=True)


def limit_memory() -> None:
    """Limit this process, and those that it starts, to what MEGABYTES leave above what it has."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    data, resident = (int(status[key].split()[0]) for key in ("VmData", "VmRSS"))
    limit = (data - resident) * 1024 + MEGABYTES * 1_000_000
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def peak(who: int) -> float:
    """Return a peak of resident memory so far, in MB."""
    return resource.getrusage(who).ru_maxrss / 1024


def main() -> None:
    """Do all cases, and print a table by kind."""
    warnings.simplefilter("ignore", UnverifiedWarning)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="*", default=[])
    parser.add_argument("--only", help="KIND:NUMBER, to make one case again with its traceback")
    given = parser.parse_args()
    bad = False
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        every = kinds(folder)
        if given.only:
            name, _, number = given.only.partition(":")
            every = {name: every[name]}
            for beside, content in every[name].beside.items():
                (folder / beside).write_bytes(content)
            rng = random.Random(hashlib.sha256(f"{given.seed}/{name}/{number}".encode()).digest())
            path = folder / f"{name}-{number}{every[name].suffix}"
            path.write_bytes(every[name].spoil(rng.choice(every[name].corpus), rng))
            print(every[name].read(path))
            return
        chosen = {n: k for n, k in every.items() if not given.kinds or n in given.kinds}
        total = sum(k.share for k in chosen.values())
        began = time.monotonic()
        all_cases = hangs = crashes = 0
        limit_memory()
        print(
            f"{'kind':16}{'cases':>7}{'read':>7}{'refused':>9}{'wrong':>7}{'slowest s':>11}"
            f"{'peak MB':>10}{'ffmpeg MB':>11}"
        )
        for name, kind in chosen.items():
            for beside, content in kind.beside.items():
                (folder / beside).write_bytes(content)
            found = Found()
            examples: dict[str, int] = {}
            for number in range(round(given.cases * kind.share / total + 0.5)):
                clock = time.monotonic()
                said = case(kind, name, number, given.seed, folder)
                found.slowest = max(found.slowest, time.monotonic() - clock)
                found.cases += 1
                if said in ("read", "refused"):
                    setattr(found, said, getattr(found, said) + 1)
                else:
                    found.wrong[said] += 1
                    examples.setdefault(said, number)
            own = peak(resource.RUSAGE_SELF)
            decoder = peak(resource.RUSAGE_CHILDREN)
            wrong = sum(found.wrong.values())
            print(
                f"{name:16}{found.cases:7}{found.read:7}{found.refused:9}{wrong:7}"
                f"{found.slowest:11.2f}{own:10.0f}{decoder:11.0f}",
                flush=True,
            )
            for said, count in found.wrong.most_common(12):
                print(f"    {count} x {said!r} ({name}:{examples[said]})", flush=True)
            hangs += sum(n for s, n in found.wrong.items() if s.startswith("HangError"))
            crashes += wrong
            all_cases += found.cases
            bad |= bool(wrong) or max(own, decoder) > MEGABYTES
    print(
        f"\n{all_cases} cases: {crashes - hangs} without a clear error, {hangs} hangs, "
        f"{time.monotonic() - began:.0f} s"
    )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
