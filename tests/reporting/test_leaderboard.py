"""The leaderboard: who is ranked with whom, in which order, and what is refused."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spfem_bench.definitions import references
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.evaluation.record import parse_record
from spfem_bench.reporting import leaderboard
from spfem_bench.reporting.leaderboard import make_boards, read_entries
from spfem_bench.reporting.report.build import build
from spfem_bench.stored import write_json
from spfem_bench.version import __version__
from tests.conftest import ROOT, Outcome
from tests.synthetic import by_hand, record

Run = Callable[..., Outcome]

# id-sim 0.3, 0.5, 0.5, and CSIM 0.8, 0.2, 0.6; a control with the best of both.
VALUES = {
    "a": [(0.2, 0.9), (0.4, 0.7)],
    "b": [(0.5, 0.1), (0.5, 0.3)],
    "c": [(0.4, 0.5), (0.6, 0.7)],
    "source": [(1.0, 1.0), (1.0, 1.0)],
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, values in VALUES.items():
        kind = "control" if name == "source" else "system"
        write_json(tmp_path / f"in/{name}.json", by_hand(name, values, kind=kind))
    return tmp_path / "in"


def boards(*paths: Path) -> list[leaderboard.Board]:
    entries, problems = read_entries(paths)
    assert problems == []
    return [board for of_protocol in make_boards(entries).values() for board in of_protocol]


def methods(board: leaderboard.Board) -> set[str]:
    return {entry.record.method.name for entry in board.entries}


def test_places_are_shared_and_controls_have_none(folder: Path) -> None:
    (board,) = boards(folder)
    assert [m.name for m in board.metrics] == ["id-sim", "csim"]
    assert board.places(metric_card("id-sim")) == {"a": 3, "b": 1, "c": 1}
    assert board.places(metric_card("csim")) == {"a": 1, "b": 3, "c": 2}


def test_rows_stand_in_the_order_of_the_first_metric(run: Run, folder: Path) -> None:
    assert run("leaderboard", folder, "-o", folder.parent / "out").code == 0
    page = (folder.parent / "out/index.html").read_text()
    assert re.findall(r'<th scope="row"><bdi>(\w+)</bdi>', page) == ["source", "b", "c", "a"]
    assert re.findall(r'<td class="n place">(\d*)</td>', page) == ["", "1", "1", "3"]
    assert page.count('title="‡ control: no manipulation model"') == 1
    assert "0.500" in page and "2/2" in page and "@inproceedings{chen2024asccl," in page


def test_other_signatures_never_share_a_table(folder: Path) -> None:
    other = by_hand("d", VALUES["a"], settings={"frame_rate": 30})
    partial = by_hand("e", VALUES["a"], missing=1)
    elsewhere = by_hand("f", VALUES["a"], protocol="other")
    for one in (other, partial, elsewhere):
        write_json(folder / f"{one['method']['name']}.json", one)
    found = boards(folder)
    assert list(map(methods, found)) == [{"f"}, set(VALUES), {"d"}, {"e"}]
    for board in found:
        for metric, signature in board.signatures.items():
            assert {e.headlines[metric].signature for e in board.entries} == {signature}


def test_a_record_of_fewer_metrics_shares_the_table_of_those(folder: Path) -> None:
    few = by_hand("d", VALUES["a"])
    few["scores"] = [s for s in few["scores"] if s["metric"] == "csim"]
    del few["settings"]["id-sim"]
    for item in few["items"]:
        del item["metrics"]["id-sim"]
    write_json(folder / "d.json", few)
    (board,) = boards(folder)
    assert board.places(metric_card("csim"))["d"] == 1 and "d" in methods(board)
    assert "d" not in board.places(metric_card("id-sim"))


def test_all_that_is_refused_is_named_on_one_screen(run: Run, folder: Path) -> None:
    edited = by_hand("edited", VALUES["a"])
    edited["scores"][0]["value"] = 0.99
    write_json(folder / "edited.json", edited)
    (folder / "damaged.json").write_text(json.dumps({"schema": 1}))
    (folder / "broken.json").write_text("{")
    empty = by_hand("empty", VALUES["a"])
    empty["scores"], empty["settings"] = [], {}
    for item in empty["items"]:
        item["metrics"] = {}
    write_json(folder / "empty.json", empty)
    headless = by_hand("headless", VALUES["a"], missing=1) | {"partial": False}
    for one in headless["scores"]:
        one["value"] = None if one["emotion"] == "avg" else one["value"]
    write_json(folder / "headless.json", headless)
    unknown = by_hand("unknown", VALUES["a"])
    for one in unknown["scores"]:
        one["metric"] = one["metric"].replace("csim", "my-metric")
    write_json(folder / "unknown.json", unknown)
    (folder / "again.json").write_bytes((folder / "a.json").read_bytes())
    done = run("leaderboard", folder, "-o", folder.parent / "out")
    assert done.code == 2 and not (folder.parent / "out").exists()
    assert done.err.startswith("No leaderboard, nothing was written:\n")
    for words in (
        "edited.json fails 'spfem-bench verify': id-sim angry: value",
        "damaged.json is damaged: 'method'",
        "broken.json is not a run record, or is damaged",
        "headless.json has no headline score to rank",
        "unknown.json: unknown metric 'my-metric'",
        "empty.json has no headline score to rank",
        f"again.json is the same file as {folder / 'a.json'}"[-30:],
    ):
        assert words in done.err
    for n in range(40):
        (folder / f"x{n}.json").write_text("{")
    lines = run("leaderboard", folder, "-o", folder.parent / "out").err.splitlines()
    assert len(lines) == 24 and lines[-1] == "and 25 more"


def test_two_records_of_one_method_are_not_ranked(run: Run, folder: Path) -> None:
    twin = by_hand("a", VALUES["b"])
    write_json(folder / "twin.json", twin)
    done = run("leaderboard", folder, "-o", folder.parent / "out")
    assert done.code == 2
    assert "a.json and " in done.err and "are two records of 'a' with the same sign" in done.err
    own = by_hand("a", VALUES["b"], settings={"frame_rate": 30})  # other settings: another table
    write_json(folder / "twin.json", own)
    assert run("leaderboard", folder, "-o", folder.parent / "out").code == 0


def test_links_are_safe_and_copies_are_whole(run: Run, folder: Path) -> None:
    for name, link in (("a", "https://example.org/x"), ("b", "javascript:alert(1)")):
        record = by_hand(name, VALUES[name])
        record["method"]["link"] = link
        write_json(folder / f"{name}.json", record)
    (folder / "report").mkdir()
    (folder / "report/index.html").write_text("a report")
    out = folder.parent / "out"
    assert run("leaderboard", folder, "-o", out).code == 0
    page = (out / "index.html").read_text()
    links = re.findall(r'href="([^"#]+)"', page)
    assert "https://example.org/x" in links and not any("javascript" in link for link in links)
    assert links.count("../in/report/index.html") == len(VALUES)
    copies = {(out / link).read_bytes() for link in links if link.startswith("records/")}
    assert copies == {path.read_bytes() for path in folder.glob("*.json")}
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    (folder / "c.json").unlink()  # the folder of the page is replaced, not added to
    assert run("leaderboard", folder, "-o", out).code == 0
    assert len(list((out / "records").iterdir())) == len(VALUES) - 1
    assert {p for p in before if p.exists()} < set(before)


def test_a_folder_of_others_is_left_alone(run: Run, folder: Path) -> None:
    out = folder.parent / "out"
    out.mkdir()
    (out / "index.html").write_text("mine")
    done = run("leaderboard", folder, "-o", out)
    assert done.code == 1 and "which no report wrote" in done.err
    assert (out / "index.html").read_text() == "mine"


def test_the_submitted_records_hold() -> None:
    folder = ROOT / leaderboard.SUBMITTED
    for path in folder.rglob("*.json"):
        record = json.loads(path.read_text())
        name = f"{record['method']['name']}.{record['profile']}.json"
        assert path == folder / record["protocol"]["name"] / name
    assert "index.html" in leaderboard.submitted()


# ---- citations -----------------------------------------------------------------------------


def test_every_key_on_a_card_has_an_entry_and_every_entry_is_used() -> None:
    entries = references.entries_by_key()
    used = {key for name in names(Kind.METRIC) for key in metric_card(name).references}
    assert used | {references.TOOL} == set(entries)
    assert references.bibtex(["fad", "id-sim", "unknown"]).count("@") == 1 + 3
    for entry in entries.values():  # balanced, with a title and a year
        assert entry.count("{") == entry.count("}")
        assert re.search(r"^  title +=", entry, re.M) and re.search(r"^  year +=", entry, re.M)


def test_a_report_ends_with_the_papers_of_its_metrics() -> None:
    page = build([parse_record(record(metrics=("csim", "id-sim")))], items=0, clips=None)
    keys = re.findall(r"^@\w+\{(\w+),", html.unescape(page["index.html"].decode()), re.M)
    keys += re.findall(r"<code>@\w+\{(\w+),", page["index.html"].decode())
    assert sorted(keys) == ["chen2024asccl", "deng2019arcface", "spfembench"]


def test_the_tool_is_cited_alike_everywhere() -> None:
    entry = references.entries_by_key()[references.TOOL]
    page = (ROOT / "docs/citing.md").read_text()
    assert entry in page and f"version = {{{__version__}}}" in entry
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {__version__}\n" in citation and citation.startswith("cff-version: 1.2.0\n")
    rows = dict(re.findall(r"^\| ([\w, -]+) \| (`.*`) \|$", page, re.M))
    named = {"fad": "FAD", "csim": "CSIM, SCC", "sct": "TCC, SCT", "id-sim": "id-sim"}
    for name, row in named.items():
        assert re.findall(r"`(\w+)`", rows[row]) == list(metric_card(name).references)


# ---- model cards ---------------------------------------------------------------------------


def parsed(text: str) -> dict[str, Any]:
    yaml = pytest.importorskip("yaml", reason="mkdocs brings it: pip install 'spfem-bench[dev]'")
    return dict(yaml.safe_load(text))


def test_a_model_index_has_what_the_hub_requires(run: Run, folder: Path) -> None:
    """The keys that huggingface_hub's ``model_index_to_eval_results`` reads; 2.4.0 parsed it."""
    done = run("table", folder, "--methods", "a,b", "--format", "model-index")
    assert done.code == 0, done.err
    models = parsed(done.out)["model-index"]
    assert [model["name"] for model in models] == ["a", "b"]
    for model in models:
        (result,) = model["results"]
        assert result["task"]["type"] == "video-to-video"
        assert {"type", "name"} <= result["dataset"].keys()
        assert [metric["type"] for metric in result["metrics"]] == ["id-sim", "csim"]
    metric = models[0]["results"][0]["metrics"][1]
    assert metric["value"] == pytest.approx(0.8) and metric["name"] == "CSIM"
    assert metric["args"]["clips"] == 2 and metric["args"]["signature"].startswith("csim:1|small")


def test_a_model_index_of_chosen_numbers_and_hostile_names(run: Run, folder: Path) -> None:
    strange = 'x: "y"\n- z\u2028\u202e\U0001f600 #'
    record = by_hand("a", VALUES["a"])
    for score in record["scores"]:
        score["signature"] = strange
    record["method"]["name"] = strange
    write_json(folder / "a.json", record)
    chosen = ("--metrics", "CSIM", "--emotions", "happy")
    done = run("table", folder / "a.json", *chosen, "--format", "model-index")
    assert done.code == 0, done.err
    (model,) = parsed(done.out)["model-index"]
    (metric,) = model["results"][0]["metrics"]
    assert model["name"] == strange and metric["args"]["signature"] == strange
    assert (metric["name"], metric["value"]) == ("CSIM, happy", 0.7)
    done = run("table", "stccl-mead", "--format", "model-index")
    assert done.code == 2 and "is about run records" in done.err
