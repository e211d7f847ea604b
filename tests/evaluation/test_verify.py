"""``spfem-bench verify``: an edited record is found, whatever its checksum says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spfem_bench.definitions.protocols import protocol
from spfem_bench.errors import CardError
from spfem_bench.evaluation.record import parse_record
from spfem_bench.evaluation.verify import verify_record
from spfem_bench.stored import write_json
from tests.conftest import Outcome
from tests.synthetic import by_hand

RECORD = Path(__file__).parent / "records/2026-11-29.json"
"""Four clips of the demo's control ``source`` in FAD, CSIM and LSE-D, by the code of that day."""


def content() -> dict[str, Any]:
    read = json.loads(RECORD.read_text())
    del read["checksum"]
    return dict(read)


def score(record: dict[str, Any], metric: str, emotion: str) -> dict[str, Any]:
    return next(s for s in record["scores"] if (s["metric"], s["emotion"]) == (metric, emotion))


def edited(metric: str, emotion: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda record: score(record, metric, emotion).update(values)


def clip(metric: str, **values: Any) -> Callable[[dict[str, Any]], None]:
    return lambda record: record["items"][0]["metrics"][metric].update(values)


def drop_worst(record: dict[str, Any]) -> None:
    record["items"].pop()
    record["protocol"]["n_items"] -= 1


def hide_clip(record: dict[str, Any]) -> None:
    del record["items"][0]["metrics"]["csim"]


def other_network(record: dict[str, Any]) -> None:
    record["settings"]["csim"]["network"]["files"][0]["sha256"] = "ab" * 32


def all_of_one(record: dict[str, Any]) -> None:
    record["scores"] = [s for s in record["scores"] if s["emotion"] != "happy"]


def add_metric(record: dict[str, Any]) -> None:
    record["scores"].append({**score(record, "csim", "avg"), "metric": "id-sim"})


EDITS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "headline": (edited("csim", "avg", value=0.99), "csim avg: value"),
    "headline of FAD": (edited("fad", "avg", value=1.5), "fad avg: value"),
    "an emotion's score": (edited("lse-d", "angry", value=0.3), "lse-d angry: value"),
    "an emotion's FAD": (edited("fad", "angry", value=1.5), "fad angry: low"),
    "lower end": (edited("csim", "avg", low=0.0), "csim avg: low"),
    "upper end": (edited("fad", "happy", high=99.0), "fad happy: high"),
    "no interval": (edited("csim", "avg", low=None, high=None), "csim avg: low"),
    "clips": (edited("csim", "avg", n_items=40), "csim avg: n_items"),
    "frames": (edited("lse-d", "avg", n_frames=9999), "lse-d avg: n_frames"),
    "refused frames": (edited("csim", "happy", n_frames_refused=3), "csim happy: n_frames_ref"),
    "signature": (edited("csim", "avg", signature="csim:1|better|#0"), "csim avg: signature"),
    "kind of number": (edited("csim", "avg", kind="reproduced"), "csim avg: method, protocol"),
    "a clip's value": (clip("csim", total=0.99), "csim angry: value"),
    "a clip's frames": (clip("csim", n_frames=1), "csim angry: n_frames"),
    "a clip's FAD": (clip("fad", without=0.1), "fad angry: low"),
    "a clip's windows": (clip("lse-d", windows=7), "lse-d angry: n_frames of the clips"),
    "a network's hash": (other_network, "csim angry: signature"),
    "a clip taken away": (drop_worst, "csim happy: n_items"),
    "a clip hidden": (hide_clip, "in csim: neither scored nor refused"),
    "an emotion left out": (all_of_one, "happy: score"),
    "a number of no metric": (add_metric, "id-sim avg: a number without settings"),
    "a control as a system": (lambda r: r["method"].update(kind="system"), "method: kind"),
    "completeness": (lambda r: r.update(complete=False), "complete"),
    "the list's hash": (lambda r: r["protocol"].update(list_sha256="0"), "settings' metric, pro"),
    "number of items": (lambda r: r["protocol"].update(n_items=2), "protocol: n_items"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_found_though_the_checksum_is_made_anew(
    name: str, run: Callable[..., Outcome], tmp_path: Path
) -> None:
    edit, place = EDITS[name]
    record = content()
    edit(record)
    write_json(tmp_path / "run.json", record)
    done = run("verify", tmp_path / "run.json", "--json")
    (result,) = json.loads(done.out)
    found = result["mismatches"]
    assert done.code == 1 and not result["holds"]
    assert any(place in f"{m['place']}: {m['recorded']}" for m in found), found


def test_a_whole_record_holds_and_what_it_cannot_show_is_said(run: Callable[..., Outcome]) -> None:
    done = run("verify", RECORD)
    assert done.code == 0, done.out
    assert "2026-11-29.json: holds. Computed again: 7 values, 18 ends of intervals" in done.out
    assert "Not checked: fad of each emotion: it pools all frames, which no record" in done.out
    assert "Not checked: its items by the protocol's list: unknown protocol 'small'" in done.out


def test_a_failure_says_what_is_recorded_and_what_comes_out(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    record = by_hand("mine", [(0.2, 0.9), (0.4, 0.7)])
    score(record, "csim", "avg")["value"] = 0.95
    write_json(tmp_path / "run.json", record)
    done = run("verify", tmp_path / "run.json")
    assert done.code == 1
    assert "run.json: FAILS: 1 of " in done.out
    assert "\n  csim avg: value: 0.95 is recorded, computed: 0.8\n" in done.out


def test_an_edit_without_a_new_checksum_is_found(
    run: Callable[..., Outcome], tmp_path: Path
) -> None:
    text = RECORD.read_text()
    (tmp_path / "a.json").write_text(text.replace('"partial": false', '"partial": true', 1))
    checksum = json.loads(text)["checksum"]
    (tmp_path / "b.json").write_text(text.replace(checksum, checksum[::-1]))
    done = run("verify", tmp_path)
    assert done.code == 1 and done.out.count("its checksum is another; it was damaged or") == 2
    (tmp_path / "c.json").write_text("[]")
    assert "FAILS: " in run("verify", tmp_path / "c.json").out


def test_values_worked_by_hand_hold() -> None:
    """Means of 0.2 and 0.4; intervals cannot be had of one clip; the signature is written out."""
    run = by_hand("mine", [(0.2, 0.9), (0.4, 0.7)])
    assert score(run, "id-sim", "avg")["value"] == pytest.approx(0.3)
    found = verify_record(parse_record(run))
    assert found.holds, found.mismatches
    assert found.counts["value"] == 6 and found.counts["signature"] == 2 + 6
    partial = by_hand("mine", [(0.2, 0.9), (0.4, 0.7)], missing=1)
    assert verify_record(parse_record(partial)).holds
    partial["partial"] = False  # then there is no headline score
    assert [m.place for m in verify_record(parse_record(partial)).mismatches] == [
        "id-sim avg: value",
        "csim avg: value",
    ]


def test_items_are_those_of_the_list() -> None:
    listed = protocol("demo-inter-id")
    run = by_hand("mine", [(0.2, 0.9), (0.4, 0.7)], protocol="demo-inter-id")
    run["protocol"] |= {"version": listed.card.version, "list_sha256": listed.list_sha256}
    for settings in run["settings"].values():
        settings["protocol"]["list"] = listed.list_sha256
    first, last = listed.items[0], listed.items[-1]
    for own, item in zip(run["items"], (first, last), strict=True):
        addresses = {role: {"address": str(c), "content": None} for role, c in item.clips.items()}
        own |= {"id": item.id, "speaker": item.speaker, "clips": addresses}

    def places() -> list[str]:
        found = verify_record(parse_record(run)).mismatches
        return [m.place for m in found if "list" in m.place]

    run["items"][0]["emotion"], run["items"][1]["emotion"] = first.emotion, last.emotion
    assert places() == ["items of the list"]  # two of forty-two
    run["items"][0]["clips"]["source"]["address"] = "easier.mp4"
    assert places() == [f"{first.id}: row of the list", "items of the list"]
    run["protocol"]["list_sha256"] = "0" * 64
    assert "protocol: list_sha256" in places()


def test_a_damaged_record_is_one_line() -> None:
    run = by_hand("mine", [(0.2, 0.9), (0.4, 0.7)])
    run["items"][0]["metrics"]["csim"] = {"total": "x"}
    with pytest.raises(CardError, match="the run of 'mine' is damaged: csim"):
        verify_record(parse_record(run))
    run["items"][0]["metrics"]["csim"] = {"total": 1.0, "count": 0, "n_frames": 1}
    with pytest.raises(CardError, match="is damaged: csim: ZeroDivisionError"):
        verify_record(parse_record(run))
    run["settings"]["csim"]["metric"]["resamples"] = 10**15  # would fill the memory
    with pytest.raises(CardError, match=r"is damaged: csim: .*1000000000000000 draws of 2 clips"):
        verify_record(parse_record(run))


def test_options_that_do_not_belong_together(run: Callable[..., Outcome]) -> None:
    done = run("verify", RECORD, "--videos", "mine=own")
    assert done.code == 2 and "--videos belongs to --clips" in done.err
    done = run("verify", RECORD, "--clips", "--videos", "own")
    assert done.code == 2 and "write METHOD=DIR" in done.err
    done = run("verify", RECORD, "--clips", "--videos", "min=own")
    assert done.code == 2 and "--videos min=…: no record here is of that method" in done.err
