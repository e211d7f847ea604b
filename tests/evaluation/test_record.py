"""The run record: its schema, records of every version so far, and where a damaged one is wrong.

``records/`` holds four clips of the demo's control ``source``, evaluated by the code of that day:
the first with controls, the first with FAD without each clip, one that names models of the demo,
and one with a checksum.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from spfem_bench.analysis.comparing import compare_runs
from spfem_bench.analysis.record_diff import diff_records
from spfem_bench.errors import CardError
from spfem_bench.evaluation.record import (
    RunRecord,
    item_values,
    load_run,
    parse_record,
    save,
    schema_text,
)
from spfem_bench.reporting.report.build import build
from spfem_bench.reporting.table_layouts import tidy_csv
from spfem_bench.reporting.tables import make_table
from spfem_bench.statistics.base import NoPartsError
from tests.conftest import ROOT
from tests.synthetic import items, record

RECORDS = sorted((Path(__file__).parent / "records").glob("*.json"))


def content(path: Path) -> dict[str, Any]:
    read = json.loads(path.read_text())
    read.pop("checksum", None)
    return dict(read)


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_records_of_every_version_are_read_and_printed(path: Path) -> None:
    run = load_run(path)
    has_checksum = "checksum" in json.loads(path.read_text())
    assert run.unverified != has_checksum
    assert run.metrics == ["fad", "csim", "lse-d"] and len(run.items) == 4
    assert len(item_values(run, "csim")) == len(item_values(run, "lse-d")) == 4
    other = content(path)
    other["method"]["name"] = "other"
    assert compare_runs([run, parse_record(other)], metrics=["csim"], resamples=10).rows
    assert diff_records(run, load_run(RECORDS[-1])).check.rows
    table = make_table([run])
    assert "source,control," in tidy_csv(table) and len(table.metrics) == 3
    assert b"Provenance" in build([run], items=1, clips=None)["index.html"]


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_a_record_is_written_as_it_was_read(path: Path, tmp_path: Path) -> None:
    assert json.dumps(parse_record(content(path)).plain()) == json.dumps(content(path))
    save(load_run(path), tmp_path / "again.json")
    again = content(tmp_path / "again.json")
    assert again.pop("unverified", False) == load_run(path).unverified
    assert again == content(path)


def test_keys_that_nobody_knows_are_kept_in_their_places() -> None:
    run = {"later": {"b": [1, {"a": None}]}, **record(of=items(1), metrics=("csim",))}
    run["settings"]["csim"] = {"first": 1, **run["settings"]["csim"]}
    assert json.dumps(parse_record(run).plain()) == json.dumps(run)


def test_fields_that_earlier_versions_lack_have_defaults() -> None:
    earliest = content(RECORDS[0])
    del earliest["method"]["control"]
    run = parse_record(earliest)
    assert run.method.control is None and run.method.model is None and not run.items[0].more_real
    with pytest.raises(NoPartsError, match="of an earlier version: it cannot say what a clip does"):
        item_values(run, "fad")


def test_the_order_of_keys_makes_no_difference() -> None:
    run = record(of=items(1), metrics=("csim",))
    assert parse_record(run) == parse_record(json.loads(json.dumps(run, sort_keys=True)))
    assert parse_record(run) != parse_record(run | {"profile": "light"})


@pytest.mark.parametrize(
    ("place", "value", "problem"),
    [
        ("method", None, "'method': Input should be a valid dictionary"),
        ("profile", 3, "'profile': Input should be an instance of str"),
        ("complete", "yes", "'complete': Input should be a valid boolean"),
        ("scores.0.value", "0.5", "'scores.0.value': Input should be a valid number"),
        ("scores.0.n_items", 1.5, "'scores.0.n_items': Input should be a valid integer"),
        ("items.0.metrics", [], "'items.0.metrics': Input should be a valid dictionary"),
        ("items.0.clips.output.content", 1, "'items.0.clips.output.content': Input should be"),
        ("settings.csim.faces.faces", "x", "'settings.csim.faces.faces': Input should be 'detect'"),
        ("settings.csim.metric.statistic", {}, "'settings.csim.metric.statistic': Value error, it"),
        ("settings.csim.network.files", "x", "'settings.csim.network.files': Input should be"),
        ("refused", {}, "'refused': Input should be a valid tuple"),
    ],
)
def test_a_damaged_record_names_the_place(
    place: str, value: Any, problem: str, tmp_path: Path
) -> None:
    run = record(of=items(1), metrics=("csim",))
    *way, last = place.split(".")
    holder: Any = run
    for step in way:
        holder = holder[int(step) if isinstance(holder, list) else step]
    holder[last] = value
    path = tmp_path / "run.json"
    path.write_text(json.dumps(run))
    with pytest.raises(CardError) as caught:
        load_run(path)
    assert str(caught.value).startswith(f"{path} is damaged: {problem}")
    assert "\n" not in str(caught.value)


def test_the_published_schema_is_that_of_the_model() -> None:
    published = (ROOT / "docs/run_record.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "type: make schema"


def test_a_record_cannot_be_changed() -> None:
    run = parse_record(record(of=items(1), metrics=("csim",)))
    with pytest.raises(ValueError, match="frozen"):
        run.profile = "other"  # type: ignore[misc]
    assert isinstance(run, RunRecord)
