"""The report is a pure function of run records, and believes nothing that they say."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from spfem_bench.analysis.comparing import compare_runs
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.errors import CardError
from spfem_bench.evaluation import record as records
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import headers
from spfem_bench.media.write import write_clip
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.reporting.report.build import build
from spfem_bench.reporting.report.charts import _reversed_bits, strips, tick_text
from spfem_bench.reporting.report.clips import Clips, _fitted, peaks
from spfem_bench.reporting.report.folder import listed, replace
from spfem_bench.reporting.report.model import ReportSection, sections
from spfem_bench.statistics import sync
from tests import hostile
from tests.conftest import Outcome
from tests.synthetic import components, items, record


class Page(HTMLParser):
    """Collects what of a page could act, and its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[str] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.inside:
            while self.inside.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if self.inside and self.inside[-1] == "script":
            self.scripts[-1] += data
        elif "style" not in self.inside:
            self.text += f" {data} "

    def words(self) -> str:
        return " ".join(self.text.split())


def built(of: Sequence[dict[str, Any]], **options: Any) -> bytes:
    """Return the page of records given by their content."""
    options = {"items": 2, "clips": None} | options
    return build([records.parse_record(one) for one in of], **options)["index.html"]


def page(*of: dict[str, Any], count: int = 2) -> Page:
    return Page(built(of, items=count))


def section(*of: dict[str, Any]) -> ReportSection:
    (found,) = sections([records.parse_record(one) for one in of])
    return found


# ---- what is taken out of records -----------------------------------------------------------


def test_items_have_the_values_of_their_components() -> None:
    """By hand: 3 of 4 cosines' sum; the least mean distance; the median minus it; where it is."""
    run = record(of=items(1), metrics=("csim", "lse-d", "lse-c", "av-offset", "fad", "scc"))
    of = run["items"][0]["metrics"]
    of["csim"] |= {"total": 3.0, "count": 4}
    totals = [10.0 * 8] * 31
    totals[13] = 7.0 * 8
    for name in ("lse-d", "lse-c", "av-offset"):
        of[name] |= {"totals": totals, "windows": 8}
    of["scc"] |= {"positive": [0.1, 0.2, 0.3, 0.4]}
    values = section(run).runs[0].values
    one = {name: next(iter(v.values())) for name, v in values.items()}
    assert one.pop("scc") == pytest.approx(0.25)
    assert one == {"csim": 0.75, "lse-d": 7.0, "lse-c": 3.0, "av-offset": 2.0}  # none of a set


def with_values(method: str, metric: str, values: list[float], kind: str = "system") -> Any:
    run = record(method, of=items(len(values)), metrics=(metric,), kind=kind)
    for item, value in zip(run["items"], values, strict=True):
        item["metrics"][metric] = components(metric, value)
    return run


@pytest.mark.parametrize(
    ("metric", "values", "worst", "best"),
    [
        ("lse-d", [7.0, 9.0, 8.0, 5.0, 6.0], [9.0, 8.0], [5.0, 6.0]),
        ("csim", [0.7, 0.9, 0.8, 0.5, 0.6], [0.5, 0.6], [0.9, 0.8]),
        ("av-offset", [0.0, -3.0, 2.0, 1.0, -1.0], [-3.0, 2.0], [0.0, 1.0]),
        ("lse-d", [7.0, 9.0, 8.0], [9.0], [7.0, 8.0]),  # no clip is both
        ("lse-d", [7.0], [], [7.0]),
    ],
)
def test_worst_and_best_follow_the_metrics_direction(
    metric: str, values: list[float], worst: list[float], best: list[float]
) -> None:
    of = section(with_values("m", metric, values))
    found = of.examples(of.runs[0], metric_card(metric), 2)
    assert [[e.value for e in side] for side in found] == [
        pytest.approx(worst),
        pytest.approx(best),
    ]


def test_the_rival_is_the_best_comparable_method_and_no_control_where_there_are_others() -> None:
    mine, good = with_values("mine", "csim", [0.5, 0.5]), with_values("good", "csim", [0.6, 0.4])
    better = with_values("better", "csim", [0.7, 0.3])
    alone = with_values("real", "csim", [1.0, 1.0], kind="control")
    of = section(mine, good, better, alone)
    worst, best = of.examples(of.runs[0], metric_card("csim"), 1)
    assert {e.item: e.rival.name for e in (*worst, *best) if e.rival} == {
        items(2)[0]["id"]: "better",
        items(2)[1]["id"]: "good",
    }
    better["settings"]["csim"]["network"]["name"] = "another"
    of = section(mine, better, alone)
    assert of.examples(of.runs[0], metric_card("csim"), 1)[1][0].rival is of.runs[2]


def test_numbers_of_plots() -> None:
    assert tick_text(1.0, [0.0, 0.5, 1.0]) == "1.0"
    assert [_reversed_bits(i) for i in range(4)] == [0.0, 0.5, 0.25, 0.75]
    assert peaks(np.zeros(0, np.int16)).tolist() == []


def test_the_clouds_points_lie_where_their_values_are() -> None:
    plot = strips({0: [1.0, 2.0, 3.0]})
    places = [float(x) for x in re.findall(r"M([\d.]+) ", plot.strips[0].path)]
    wide = plot.right - plot.left
    expected = [plot.left + (v - plot.low) / (plot.high - plot.low) * wide for v in (1, 2, 3)]
    assert places == pytest.approx(expected, abs=0.06)
    assert plot.strips[0].quartiles[1] == pytest.approx(places[1], abs=0.06)


def test_of_many_clips_some_are_drawn_and_the_extremes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spfem_bench.reporting.report.model.MOST_DRAWN", 5)
    values = [0.5] * 8 + [0.9, 0.5, 0.5, 0.1, 0.5, 0.5]
    one = with_values("one", "csim", values)
    of, ids = section(one), [item["id"] for item in one["items"]]
    assert of.drawn == tuple(ids[i] for i in (0, 3, 6, 8, 9, 11, 12))
    text = built([one], items=0, clips=None).decode()
    assert "Points and the tables of clips show 7 of the 14 clips" in text
    (strip,) = of_plots(text)
    assert strip.count("h0") == 7
    assert len(re.findall(r"<bdi>S\d{3}_\w+_\d{3}</bdi><td>", text)) == 7
    assert "0.900" in text and '<td class="n">14</td>' in text


def of_plots(text: str) -> list[str]:
    """Return the clouds of a page."""
    return re.findall(r'class="cloud" d="([^"]*)"', text)


def test_points_keep_their_names_whatever_order_their_record_has() -> None:
    one, two = with_values("one", "csim", [0.1, 0.9]), with_values("two", "csim", [0.1, 0.9])
    two["items"].reverse()
    data = json.loads(page(one, two).scripts[0])
    clouds = [a["d"] for t, a in page(one, two).tags if t == "path" and a.get("class") == "cloud"]
    places = [re.findall(r"M([\d.]+) ", str(cloud)) for cloud in clouds]
    assert data[0]["plots"] == [[[0.1, 0.9], [0.1, 0.9]]] and places[0] == places[1]


# ---- the page -------------------------------------------------------------------------------


def test_the_overview_marks_controls_and_compares_equal_signatures_only() -> None:
    one, two = with_values("one", "csim", [0.5]), with_values("two", "csim", [0.6])
    control = with_values("real", "csim", [0.9], kind="control")
    for run, value in ((one, 0.5), (two, 0.6), (control, 0.9)):
        for score in run["scores"]:
            score |= {"value": value, "low": value - 0.1, "high": value + 0.1}
    found = page(one, two, control)
    words = found.words()
    assert "0.600 best 0.500 to 0.700" in words and words.count(" best 0.") == 1
    assert "real ‡ 1/1 clips 0.900" in words and "‡ control" in words
    for score in two["scores"]:
        score["signature"] += "|another"
    assert " best 0." not in page(one, two, control).words()


def test_differences_are_those_of_the_command() -> None:
    runs = [record(name, seed=seed) for name, seed in (("a", 0), ("b", 4), ("c", 1))]
    control = record("real", kind="control", seed=9)
    found = compare_runs([records.parse_record(one) for one in runs])
    words = page(*runs, control).words()
    part = words[words.index("Differences Each method less") : words.index("By emotion Each")]
    assert "less a , clip by clip" in part and "real" not in part
    for row in found.rows:
        assert (
            f"{row.b_value:.3f} {row.a_value:.3f} {row.difference:+.3f}".replace("-", "−") in part
        )
        assert row.low is not None and f"{row.low:+.3f} to".replace("-", "−") in part
        assert row.verdict in part
    assert all(note in part for note in found.notes)
    # Another baseline turns them round; a lonely method is held against the controls.
    turned = Page(built(runs, items=0, baseline="b"))
    assert "less b , clip by clip" in turned.words() and "--baseline b" in turned.words()
    assert "less a , clip by clip" in page(runs[0], control).words()
    runs[0]["scores"] = []  # nothing can be held against a run without numbers
    assert "less b , clip by clip" in page(*runs).words()
    assert "Differences" not in page(runs[0]).words()


def test_runs_that_are_not_alike_are_not_compared_and_it_is_said() -> None:
    one, other, third = (record(name, seed=n) for n, name in enumerate("abc"))
    other["settings"]["csim"]["media"]["ffmpeg"] = "6.0"
    words = page(one, other).words()
    assert "No two of these runs can be compared" in words
    said = "b is not compared: 'a' and 'b' were not made alike: media.ffmpeg 7.1 against 6.0 (csim)"
    assert said in words
    words = page(one, other, third).words()
    assert said in words and "less a , clip by clip" in words
    assert all(
        row.verdict in words
        for row in compare_runs([records.parse_record(of) for of in (one, third)]).rows
    )


def test_every_part_is_there_and_says_how_to_make_it_again() -> None:
    run = record()
    run["refused"] = [
        {
            "item": "S001",
            "clip": "x.mp4",
            "metrics": ["fad"],
            "kind": "refused",
            "reason": "no face",
            "remedy": "Look at it",
        },
    ]
    run["extra"] = ["stray.mp4"]
    words = page(run, record("real", kind="control")).words()
    for part in (
        "Overview",
        "Differences",
        "By emotion",
        "By speaker",
        "Clip by clip",
        "Worst and best clips",
        "Missing and refused",
        "Provenance",
    ):
        assert part in words
    assert "refused: no face Look at it" in words and "stray.mp4" in words
    assert "spfem-bench eval --method model --protocol demo-inter-id --profile compact" in words
    assert "ab" * 32 in words and "cd" * 32 in words and "torch 2.9" in words
    assert "FAD: none, a distance of whole sets of clips" in words


def test_protocols_have_sections_of_their_own() -> None:
    found = page(record(), record(protocol="demo-cross-id"))
    assert [dict(a)["id"] for t, a in found.tags if t == "h2" and "id" in a] == ["p1", "p2", "cite"]


def test_the_same_records_give_the_same_bytes() -> None:
    of = [record("a", seed=1), record("b", seed=2)]
    again = json.loads(json.dumps(of))
    assert built(of) == built(again)


def test_plots_have_words_and_tables_beside_them() -> None:
    found = page(record(), record("b", seed=1))
    pictures = [a for t, a in found.tags if t == "svg" and a.get("role") == "img"]
    assert len(pictures) >= 20 and all(a.get("aria-label") for a in pictures)
    hidden = [a for t, a in found.tags if t == "svg" and a.get("role") != "img"]
    assert all(a.get("aria-hidden") == "true" for a in hidden)
    tables = sum(t == "table" for t, _ in found.tags)
    assert tables >= 20 and all(a.get("scope") for t, a in found.tags if t == "th")
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    named = {a[k] for _, a in found.tags for k in ("aria-labelledby",) if k in a}
    targets = {str(a["href"])[1:] for t, a in found.tags if t == "a" and str(a["href"])[0] == "#"}
    assert (named | targets) <= set(ids)
    levels = [int(t[1]) for t, _ in found.tags if re.fullmatch("h[1-6]", t)]
    assert all(b - a <= 1 for a, b in pairwise(levels))


# ---- hostile names --------------------------------------------------------------------------


def test_hostile_names_are_text_and_nothing_else() -> None:
    found = page(*hostile.records())
    assert [t for t, _ in found.tags if t in {"img", "iframe", "object", "base", "form"}] == []
    assert [t for t, _ in found.tags if t in {"script", "style", "link"}] == [
        "style",
        "script",
        "script",
    ]
    for _, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in ("href", "src"):
            target = str(attributes.get(name, "#"))
            assert re.match(r"#|scores\.csv$|https?://", target), target
    data, script = found.scripts
    assert json.loads(data)[0]["items"][0].startswith("</script>")
    policy = next(str(a["content"]) for _, a in found.tags if "http-equiv" in a)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy and "default-src 'none'" in policy
    assert "unsafe" not in policy
    words = found.words()
    for name in hostile.SHOWN:
        assert name in words
    assert "\u202e" not in found.text.replace(data, "")  # nothing turns the text around


def test_hostile_addresses_lead_nowhere(tmp_path: Path) -> None:
    of = hostile.records()
    (tmp_path / "own").mkdir()
    clips = Clips(
        DataFolders(tmp_path),
        WeightsStore.locate(None),
        FeatureStore(tmp_path / "features"),
        {run["method"]["name"]: tmp_path / "own" for run in of[:2]},
        kept=tmp_path,
        known={},
        made=tmp_path / "made",
    )
    found = Page(built(of, clips=clips))
    assert "leaves its folder" in found.words() and "not available" in found.words()
    assert not (tmp_path / "made").exists()


# ---- bad input ------------------------------------------------------------------------------


def test_no_records_and_damaged_ones_are_told() -> None:
    with pytest.raises(CardError, match="no run record"):
        built([])
    with pytest.raises(CardError, match="two records of 'model'"):
        built([record(), record()])
    for lost in ("items", "scores", "method", "settings", "timings", "refused"):
        run = record()
        del run[lost]
        with pytest.raises(CardError, match=f"damaged: .*{lost}"):
            built([run])
    run = record()
    run["items"][3]["metrics"]["csim"]["total"] = float("nan")
    with pytest.raises(CardError, match=r"model on demo-inter-id: csim of the item 'S003_.*finite"):
        built([run])


def test_a_run_without_numbers_makes_a_page_that_says_so() -> None:
    run = record(of=[])
    run["settings"] = {}
    assert "None of these runs has a number" in page(run).words()


def test_the_command_refuses_what_is_no_run(tmp_path: Path, bench: Callable[..., Outcome]) -> None:
    (tmp_path / "empty").mkdir()
    assert "no run record" in bench("report", "empty").err
    for text, said in (
        (json.dumps({**record(), "schema": 2}), "has schema 2; this version reads 1"),
        (json.dumps(record()).replace('"value": 0.', '"value": NaN, "x": 0.', 1), "it holds NaN"),
        ("{}", "is not a run record"),
        (json.dumps({"schema": 1, "kind": "validate"}), "is the record of a validation"),
    ):
        (tmp_path / "bad.json").write_text(text)
        done = bench("report", "bad.json")
        assert done.code == 1 and said in done.err and done.err.count("\n") == 1
    assert bench("report", "empty", "--videos", "x").code == 2
    records.save(record(), tmp_path / "run.json")
    done = bench("report", "run.json", "--videos", "modle=empty")
    assert done.code == 1 and "Did you mean 'model'?" in done.err
    done = bench("report", "run.json", "--videos", "model=absent")
    assert done.code == 1 and "absent: no such folder. Give the folder" in done.err
    assert not (tmp_path / "report").exists()


def test_a_folder_with_other_things_in_it_keeps_them(
    tmp_path: Path, bench: Callable[..., Outcome]
) -> None:
    records.save(record(), tmp_path / "run.json")
    (tmp_path / "report").mkdir()
    (tmp_path / "report/mine.txt").write_text("mine")
    assert bench("report", "run.json", "--no-videos").code == 0
    assert (tmp_path / "report/mine.txt").read_text() == "mine"
    before = (tmp_path / "report/index.html").read_bytes()
    assert bench("report", "run.json", "--no-videos").code == 0
    assert (tmp_path / "report/index.html").read_bytes() == before
    (tmp_path / "site").mkdir()
    (tmp_path / "site/index.html").write_text("mine")
    done = bench("report", "run.json", "-o", "site")
    assert done.code == 1 and "holds 'index.html', which no report wrote" in done.err
    assert (tmp_path / "site/index.html").read_text() == "mine"


def test_old_copies_go_unless_someone_changed_them(tmp_path: Path) -> None:
    folder, first, second = (tmp_path / n for n in ("report", "first", "second"))
    old, changed = f"media/{'a' * 32}.mp4", f"media/{'b' * 32}.mp4"
    (first / "media").mkdir(parents=True)
    second.mkdir()
    for name in (old, changed):
        (first / name).write_bytes(b"clip")
    replace(folder, first, {"index.html": b"1"})
    (folder / changed).write_bytes(b"mine now")
    (folder / "media/other.mp4").write_bytes(b"mine")
    assert set(listed(folder)) == {"index.html", old, changed}
    replace(folder, second, {"index.html": b"2"})
    left = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert left == {"index.html", "SHA256SUMS", changed, "media/other.mp4"}
    (folder / "SHA256SUMS").write_text(f"{'0' * 64}  ../x\n")
    with pytest.raises(CardError, match="is no report's"):
        listed(folder)


def test_copies_are_of_even_size_and_may_be_silent(tmp_path: Path) -> None:
    frames = [np.full((401, 301, 3), 40 * n, np.uint8) for n in range(3)]
    fitted = list(_fitted(iter(frames)))
    assert [f.shape for f in fitted] == [(360, 270, 3)] * 3
    write_clip(tmp_path / "a.mp4", iter(fitted), np.zeros(0, np.int16), sound_codec="aac")
    info = headers.probe(tmp_path / "a.mp4")
    assert info.size == (270, 360) and not info.has_audio
    tone = (8000 * np.sin(np.arange(1920) / 5)).astype(np.int16)
    write_clip(tmp_path / "b.mp4", iter(fitted), tone, sound_codec="aac")
    assert headers.probe(tmp_path / "b.mp4").has_audio


def test_distances_over_time_sum_to_what_is_scored() -> None:
    generator = np.random.default_rng(0)
    visual, audio = (generator.normal(size=(n, 8)).astype(np.float32) for n in (20, 30))
    frames = np.arange(3, 23)
    totals = sync.sync_part(visual, audio, frames, max_shift=4).totals
    one = sync.distances(visual, audio, frames, 2)
    by_hand = [np.linalg.norm(v - audio[f + 2] + 1e-6) for v, f in zip(visual, frames, strict=True)]
    assert one == pytest.approx(by_hand, rel=1e-6) and one.sum() == pytest.approx(totals[6])


def test_its_templates_travel_with_the_package() -> None:
    folder = files("spfem_bench.reporting.report") / "templates"
    assert {f.name for f in folder.iterdir()} == {
        *("report.html", "leaderboard.html", "head.html", "plots.html", "cite.html"),
        *("report.css", "page.js", "report.js"),
    }
