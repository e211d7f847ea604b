"""Files of ours: no flipped bit shows another number, old ones load and are marked, limits hold."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from spfem_bench import stored
from spfem_bench.analysis.comparing import compare_runs
from spfem_bench.cli.main import main
from spfem_bench.datasets import recordings_index
from spfem_bench.definitions import protocols
from spfem_bench.definitions.cards import builtin_folder, read_card
from spfem_bench.definitions.datasets import DatasetCard, dataset_card, dataset_files, recordings
from spfem_bench.definitions.lists import read_list
from spfem_bench.definitions.metrics import MetricCard
from spfem_bench.definitions.networks import network_card
from spfem_bench.definitions.recordings import fill
from spfem_bench.errors import CardError, StorageError, WeightsError
from spfem_bench.evaluation.record import load_run, parse_record, save
from spfem_bench.networks.scrfd_ncnn import ncnn_network
from spfem_bench.reporting.report.build import build
from spfem_bench.reporting.table_layouts import render_table
from spfem_bench.reporting.tables import make_table
from spfem_bench.stccl.metric import read_checkpoint
from spfem_bench.stored import UnverifiedWarning
from tests.synthetic import items, record


def flipped(content: bytes, bit: int) -> bytes:
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def small() -> dict[str, Any]:
    return record(of=items(1), metrics=("csim",))


def smallest() -> dict[str, Any]:
    return {**small(), "settings": {}, "environment": {"device": "cpu"}, "timings": {}}


# ---- records ---------------------------------------------------------------------------------


def test_no_flipped_bit_of_a_record_shows_another_number(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    save(smallest(), path)
    content = path.read_bytes()
    whole = load_run(path)
    refused = 0
    for bit in range(8 * len(content)):
        path.write_bytes(flipped(content, bit))
        try:
            found = load_run(path)
        except CardError as error:
            assert len(str(error).splitlines()) == 1
            refused += 1
            continue
        # A flip in the checksum's own key leaves a record without one, which is marked.
        assert found == whole or (found.unverified and found.scores == whole.scores), bit
        assert found.items == whole.items
    assert refused > 0.99 * 8 * len(content)


def test_a_changed_digit_is_refused_by_every_command(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    save(small(), path)
    text = path.read_text()
    value = repr(small()["scores"][0]["value"])
    path.write_text(text.replace(value, value[:-1] + str((int(value[-1]) + 1) % 10)))
    for command in (["table"], ["compare"], ["report", "-o", str(tmp_path / "out"), "--no-videos"]):
        result = CliRunner().invoke(main, [*command, str(path)])
        assert result.exit_code == 1 and "its checksum is another" in result.output
        assert result.output.count("\n") == 1


def test_the_layout_of_a_record_may_change(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    save(small(), path)
    whole = load_run(path)
    path.write_text(json.dumps(json.loads(path.read_text()), sort_keys=True))
    assert load_run(path) == whole and not whole.unverified


def test_a_record_of_an_earlier_version_loads_and_is_marked(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(small()))
    old = load_run(path)
    new = parse_record(record("other", of=items(1), metrics=("csim",)))
    words = "unverified, of records without a checksum: model"
    for style in ("text", "markdown", "latex", "html", "csv-wide"):
        assert (words in render_table(make_table([old, new]), style)) == (style != "csv-wide")
    assert words in compare_runs([old, new], resamples=10).notes
    assert words.encode() in build([old, new], items=0, clips=None)["index.html"]
    result = CliRunner().invoke(main, ["table", "--format", "csv", str(path)])
    assert result.exit_code == 0 and f"Note: {words}" in result.stderr
    # Saved again, with a checksum, it stays marked.
    save(old, path)
    assert load_run(path) == old and old.unverified
    assert "unverified" not in render_table(make_table([new]), "text")


@pytest.mark.parametrize("value", ["1" + "0" * 300, "9" * 5000, "1e400", "-1e200", "NaN"])
@pytest.mark.parametrize("part", ["environment", "settings", "scores", "items"])
def test_numbers_beyond_arithmetic_are_one_line(tmp_path: Path, part: str, value: str) -> None:
    given = small()
    holder = {
        "environment": given["environment"],
        "settings": given["settings"]["csim"],
        "scores": given["scores"][0],
        "items": given["items"][0]["metrics"]["csim"],
    }[part]
    key = {"scores": "value", "items": "total"}.get(part, "x")
    path = tmp_path / "run.json"
    holder[key] = "HERE"
    path.write_text(json.dumps(given).replace('"HERE"', value))
    result = CliRunner().invoke(main, ["report", str(path), "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1 and result.output.count("\n") == 1, result.output


def test_names_that_are_no_utf8_are_printed_as_escapes(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    save(record("vid\udce9o", of=items(1), metrics=("csim",)), path)
    assert load_run(path).method.name == "vid\udce9o"
    for style in ("csv", "csv-wide", "markdown", "text", "html"):
        result = CliRunner().invoke(main, ["table", "--format", style, str(path)])
        assert result.exit_code == 0, style
        assert style not in ("csv", "csv-wide") or r"vid\udce9o" in result.output


# ---- other files of ours ---------------------------------------------------------------------


def ravdess(folder: Path) -> tuple[Path, recordings_index.RecordingsIndex]:
    path = folder / "data/ravdess/index.json"
    names = [r.video for r in recordings(dataset_card("ravdess"))[:2]]
    streams = {"video": (0.0, 3.2, 80)}
    files = {n: recordings_index.IndexedFile(n, 7, 1, streams, "") for n in names}
    found = recordings_index.RecordingsIndex(folder, files)
    recordings_index.save_index(path, dataset_card("ravdess"), found)
    return path, found


ENTRY = {"file": "a", "bytes": 1, "changed": 1, "streams": {}, "problem": ""}
WRONG_INDEX: list[tuple[str, object]] = [
    ("root", 7),
    ("root", None),
    ("files", []),
    ("files", {"a": 1}),
    ("mapping", "x"),
    ("mapping", {"video": 3}),
    ("schema", "1.x"),
    ("files", {"a": {"file": 1}}),
    ("more", 1),
    ("files", {"a": {**ENTRY, "bytes": []}}),
    ("files", {"a": {**ENTRY, "streams": {"video": 1}}}),
    ("files", {"a": {**ENTRY, "streams": {"video": ["a", 1, 1]}}}),
    ("root", "/a\0b"),
    ("files", {"a": {**ENTRY, "file": "x" * 300}}),
    ("root", "/\ud800"),
    ("root", "/a" * 5000),
]


@pytest.mark.parametrize(("key", "value"), WRONG_INDEX)
def test_an_index_with_wrong_types_is_one_line_and_its_remedy_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: object
) -> None:
    path, _ = ravdess(tmp_path)
    content = {k: v for k, v in json.loads(path.read_text()).items() if k != "checksum"}
    path.write_text(json.dumps({**content, key: value}))
    monkeypatch.setenv("SPFEM_BENCH_DATA", str(tmp_path / "data"))
    result = CliRunner().invoke(main, ["data", "list"])
    assert result.exit_code == 1 and result.output.count("\n") == 1, result.output
    assert "Type 'spfem-bench data index ravdess ROOT'" in result.output
    first = recordings(dataset_card("ravdess"))[0].video
    (tmp_path / "copy" / first).parent.mkdir(parents=True)
    (tmp_path / "copy" / first).write_bytes(b"no video")
    again = CliRunner().invoke(main, ["data", "index", "ravdess", str(tmp_path / "copy"), "-q"])
    assert again.exit_code == 0, again.output
    assert recordings_index.read_index(path).verified


def test_no_flipped_bit_of_an_index_goes_unnoticed(tmp_path: Path) -> None:
    path, whole = ravdess(tmp_path)
    content = path.read_bytes()
    for bit in range(0, 8 * len(content), 3):
        path.write_bytes(flipped(content, bit))
        with pytest.raises(CardError, match="is no index"):
            recordings_index.read_index(path)
    path.write_bytes(content)
    assert recordings_index.read_index(path) == whole


def test_an_index_of_an_earlier_version_loads_and_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = ravdess(tmp_path)
    content = {k: v for k, v in json.loads(path.read_text()).items() if k != "checksum"}
    path.write_text(json.dumps(content))
    found = recordings_index.read_index(path)
    assert found.files == whole.files and not found.verified
    monkeypatch.setenv("SPFEM_BENCH_DATA", str(tmp_path / "data"))
    assert "unverified: index it again" in CliRunner().invoke(main, ["data", "list"]).output


def test_a_metrics_record_has_a_checksum(tmp_path: Path) -> None:
    shelf = builtin_folder() / "metrics/stccl"
    for suffix in (".json", ".safetensors"):
        shutil.copy(shelf / f"puppets{suffix}", tmp_path / f"mine{suffix}")
    path = tmp_path / "mine.json"
    text = path.read_text()
    assert read_checkpoint(path).record.sha256
    window = next(line for line in text.splitlines() if '"window"' in line or '"size"' in line)
    number = next(c for c in window if c.isdigit())
    path.write_text(text.replace(window, window.replace(number, str((int(number) + 1) % 10), 1)))
    with pytest.raises(CardError, match="its checksum is another"):
        read_checkpoint(path)
    old = {k: v for k, v in json.loads(text).items() if k != "checksum"}
    path.write_text(json.dumps(old))
    with pytest.warns(UnverifiedWarning, match="has no checksum"):
        read_checkpoint(path)


def test_records_that_are_shipped_have_checksums() -> None:
    folders = ("metrics/stccl", "reference_results/models", "metrics/networks/weights")
    for folder in folders:
        files = sorted((builtin_folder() / folder).glob("*.json"))
        assert files
        for path in files:
            assert "checksum" in json.loads(path.read_text()), path


# ---- limits ----------------------------------------------------------------------------------


def test_larger_files_and_other_kinds_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    with path.open("wb") as file:
        file.truncate(10**12)  # no byte of it takes room
    with pytest.raises(CardError, match="larger than the 400000000 bytes allowed"):
        load_run(path)
    for name in ("card.toml", "list.csv"):
        path.rename(tmp_path / name)
        path = tmp_path / name
        with pytest.raises(CardError, match="larger than the"):
            read_list(path) if name == "list.csv" else read_card(MetricCard, path)
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    for endless in (pipe, Path("/dev/zero")):
        with pytest.raises(StorageError, match="a FIFO, a socket or a device"):
            load_run(endless)


def test_a_long_record_may_be_larger_than_other_files_but_not_of_any_number_of_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"
    record = small()
    save(record, path)
    lines = path.read_text().splitlines()
    assert sum(line.startswith('{"id"') for line in lines) == len(record["items"])
    monkeypatch.setattr(stored, "LARGEST", 1000)
    assert load_run(path).items  # LARGEST_RECORD holds
    with pytest.raises(OSError, match="larger than the 1000 bytes"):
        stored.read_json(path, 1000)
    monkeypatch.setattr(stored, "MOST_VALUES", 50)
    with pytest.raises(CardError, match="holds more than 50 values"):
        load_run(path)


CARD = builtin_folder() / "metrics/csim.toml"


@pytest.mark.parametrize(
    "line",
    [
        "version = 0x" + "f" * 100_000,
        "version = " + "9" * 100_000,
        "a = 0b" + "1" * 200,
        "a." * 60_000 + "b = 1",
        "[" + "a." * 60_000 + "b]",
        "a = {" + "'b c' . " * 20_000 + "d = 1}",
    ],
)
def test_a_card_with_endless_numbers_or_keys_is_one_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f"{line}\n{CARD.read_text()}")
    with pytest.raises(CardError, match="is not valid TOML") as caught:
        read_card(MetricCard, path)
    assert len(str(caught.value)) < 3000 and "\n" not in str(caught.value)


def test_no_template_makes_a_name_longer_than_a_path() -> None:
    assert fill("{a}/{b}.mp4", {"a": "x" * 2000, "b": "y" * 2000}).endswith(".mp4")
    with pytest.raises(CardError, match="makes a name of up to 1000030000 characters"):
        fill("{a}" * 10_000, {"a": "x" * 100_000})


def test_the_addresses_of_pinned_files_are_bounded(tmp_path: Path) -> None:
    (tmp_path / "files.csv").write_text(f"path,sha256,bytes\n{'a/' * 1000 + 'b'},{'0' * 64},1\n")
    path = tmp_path / "mine.toml"
    path.write_text(
        'title = "t"\nlicence = "l"\ncitation = "c"\nrepository = "r"\ncommit = "c"\n'
        f'url = "https://x/{"{path}" * 10_000}"\nfiles = "files.csv"\n'
    )
    with pytest.raises(CardError, match="Allowed: 4096"):
        dataset_files(read_card(DatasetCard, path))


def test_a_long_list_compares_no_name_with_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = 0

    class Counted(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, other)

    monkeypatch.setattr(protocols, "same_name", Counted)
    shelf, rows = builtin_folder() / "protocols", 3000
    head, *lines = (shelf / "demo-inter-id.csv").read_text().splitlines()
    at = head.split(",").index("id")

    def row(number: int) -> str:
        cells = lines[number % len(lines)].split(",")
        return ",".join([*cells[:at], f"i{number}", *cells[at + 1 :]])

    (tmp_path / "mine.csv").write_text("\n".join([head, *map(row, range(rows)), ""]))
    card = (shelf / "demo-inter-id.toml").read_text()
    (tmp_path / "mine.toml").write_text(card.replace("demo-inter-id.csv", "mine.csv"))
    assert len(protocols.protocol(str(tmp_path / "mine.toml")).items) == rows
    assert compared < 10 * rows


def test_a_list_of_too_many_rows_or_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("a\n" + "1\n" * 100_001)
    with pytest.raises(CardError, match=r"line 100002: the list is too large"):
        read_list(path)
    path.write_text(",".join(map(str, range(65))) + "\n" + "," * 64 + "\n")
    with pytest.raises(CardError, match="Allowed: 100000 rows of 64 columns"):
        read_list(path)


def test_an_ncnn_file_that_is_no_text_is_one_line() -> None:
    card = network_card("scrfd-500m")
    for content in (b"7767517\n1 1\nInput \xff 0 1 a\n", b"7767517\n1 1\nIn\x1b[2J a 0 1 a\n", b""):
        with pytest.raises(WeightsError, match="ncnn cannot read the network of 'scrfd-500m'"):
            ncnn_network(card, content, b"")


def test_a_record_that_lacks_what_the_report_prints_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    save({**small(), "environment": {}}, path)
    result = CliRunner().invoke(main, ["report", str(path), "-o", str(tmp_path / "out")])
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == 1 and result.output.count("\n") == 1, result.output
