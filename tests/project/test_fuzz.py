"""Files of any content are read, or refused in one line: no other exception.

benchmarks/fuzz.py spoils whole files in ten thousand ways; here a few hundred of its cases, and
texts that hypothesis makes up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz
from spfem_bench.definitions.cards import parse, read_card
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.lists import read_list
from spfem_bench.definitions.metrics import MetricCard
from spfem_bench.errors import SpfemBenchError
from spfem_bench.evaluation.record import item_values, load_run
from tests.synthetic import record

TEXT_KINDS = (
    "metric-card",
    "network-card",
    "protocol-card",
    "method-card",
    "dataset-card",
    "numbers-card",
    "item-list",
    "clip-address",
    "run-record",
    "kept-record",
    "record-table",
    "record-report",
    "record-compare",
    "index",
    "kept-index",
    "training",
    "metric-record",
    "model-record",
    "ncnn-param",
    "report-sums",
    "numbers-settings",
    "name",
    "mapping",
    "pins",
    "http-answer",
    "safetensors",
    "checkpoint",
    "store-entry",
    "clip-sheet",
    "png",
    "jpg",
    "bmp",
)
MEDIA_KINDS = ("mp4", "mkv", "avi", "wav")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, fuzz.FileKind]:
    return fuzz.kinds(tmp_path_factory.mktemp("whole"))


@pytest.mark.filterwarnings("ignore::spfem_bench.stored.UnverifiedWarning")
@pytest.mark.parametrize(
    ("name", "cases"), [*((k, 30) for k in TEXT_KINDS), *((k, 6) for k in MEDIA_KINDS)]
)
def test_spoilt_files_are_read_or_refused(
    kinds: dict[str, fuzz.FileKind], tmp_path: Path, name: str, cases: int
) -> None:
    kind = kinds[name]
    for beside, content in kind.beside.items():
        (tmp_path / beside).write_bytes(content)
    for number in range(cases):
        said = fuzz.case(kind, name, number, 1, tmp_path)
        assert said in ("read", "refused"), f"{name}:{number}: {said}"


@pytest.mark.filterwarnings("ignore::spfem_bench.stored.UnverifiedWarning")
@pytest.mark.parametrize("name", [*TEXT_KINDS, *MEDIA_KINDS])
def test_whole_files_are_read(kinds: dict[str, fuzz.FileKind], tmp_path: Path, name: str) -> None:
    """Otherwise the other test would find nothing but refusals."""
    kind = kinds[name]
    for beside, content in kind.beside.items():
        (tmp_path / beside).write_bytes(content)
    path = tmp_path / f"whole{kind.suffix}"
    path.write_bytes(kind.corpus[0])
    kind.read(path)


quick = settings(
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def read_or_refused(read: Callable[[], object]) -> None:
    try:
        read()
    except SpfemBenchError as error:
        assert len(str(error).splitlines()) == 1


@quick
@given(st.text() | st.from_regex(r"[a-z]+\.mp4#(xywh|t|fps|frames|edit)=.*"))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    def read() -> None:
        clip = Clip.parse(text)
        assert Clip.parse(str(clip)) == clip
        clip.within(Path("folder"))

    read_or_refused(read)


@quick
@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_a_card_and_a_list_or_refused(tmp_path: Path, content: bytes) -> None:
    read_or_refused(lambda: parse(content, Path("card.toml")))
    (tmp_path / "list.csv").write_bytes(content)
    read_or_refused(lambda: read_list(tmp_path / "list.csv"))


@quick
@given(st.sampled_from(sorted(record())), anything)
def test_any_value_in_a_record_is_read_or_refused(tmp_path: Path, key: str, value: Any) -> None:
    path = tmp_path / "run.json"
    path.write_text(json.dumps({**record(metrics=("csim",)), key: value}))

    def read() -> None:
        item_values(load_run(path), "csim")

    read_or_refused(read)


def test_nesting_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text('{"schema": ' + "[" * 100_000)
    with pytest.raises(SpfemBenchError, match="is not a run record"):
        load_run(path)
    card = tmp_path / "card.toml"
    card.write_text("a = " + "[" * 100_000)
    with pytest.raises(SpfemBenchError, match="is not valid TOML"):
        read_card(MetricCard, card)


def test_messages_drive_no_terminal(tmp_path: Path) -> None:
    with pytest.raises(SpfemBenchError) as caught:
        Clip.parse("a\x1b[2J\nb.mp4#t=2,1")
    assert str(caught.value).isprintable()
