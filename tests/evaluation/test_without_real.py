"""Items without a real clip of their own: where there are more sources than real clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from spfem_bench import api
from spfem_bench.errors import CardError
from spfem_bench.evaluation.record import RunRecord
from tests.conftest import ROOT

CARD = """
title = "Fewer real clips than sources"
version = 1
setting = "inter-id"
dataset = "puppets"
faces = "aligned"
profile = "compact"
items = "{name}.csv"
emotions = ["angry"]
metrics = ["fad", "alike"]
[clips]
source = "P001/neutral/1.00/{{sentence}}.mp4"
reference = "P001/angry/1.00/029.mp4"
real = "{{real}}"
"""
REAL = "P001/angry/1.00/029.mp4"  # both are shipped
OTHER = "P002/angry/1.00/029.mp4"


def cards(folder: Path, name: str, real: tuple[str, str, str]) -> str:
    """Write a protocol of three items with these real clips; return its path."""
    rows = [f"i{k},P001,angry,{28 + k:03d},{clip}" for k, clip in enumerate(real)]
    path = folder / f"protocols/{name}.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(CARD.format(name=name))
    path.with_suffix(".csv").write_text("\n".join(["id,speaker,emotion,sentence,real", *rows, ""]))
    return str(path)


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of cards with a metric that compares each clip with its real one."""
    (tmp_path / "cards/metrics").mkdir(parents=True)
    text = (ROOT / "metrics/csim.toml").read_text()
    text = text.replace('["output", "reference"]', '["output", "real"]')
    (tmp_path / "cards/metrics/alike.toml").write_text(text)
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "cards"))
    return tmp_path / "cards"


def scored(method: str, protocol: str) -> RunRecord:
    return api.evaluate(method, protocol, partial=True).record


def average(record: RunRecord, metric: str) -> float:
    return next(s.value for s in record.scores if (s.metric, s.emotion) == (metric, "avg")) or 0.0


def test_real_clips_are_pooled_once_each_whichever_items_have_them(own: Path) -> None:
    first = scored("source", cards(own, "first", (REAL, OTHER, "")))
    second = scored("source", cards(own, "second", ("", REAL, OTHER)))
    frames = [item.metrics["fad"]["n_frames_real"] for item in first.items]
    assert frames[0] > 0 and frames[1] > 0 and frames[2] == 0
    assert average(first, "fad") == pytest.approx(average(second, "fad"), rel=1e-9)
    # Not what a real clip that counts twice would give.
    twice = scored("source", cards(own, "twice", (REAL, OTHER, REAL)))
    assert average(twice, "fad") != pytest.approx(average(first, "fad"), rel=1e-4)
    fad = next(s for s in first.scores if (s.metric, s.emotion) == ("fad", "avg"))
    assert (fad.n_items, fad.n_refused, fad.partial) == (3, 0, False)


def test_what_compares_with_a_clips_own_real_one_refuses_items_without(own: Path) -> None:
    record = scored("source", cards(own, "first", (REAL, OTHER, "")))
    alike = next(s for s in record.scores if (s.metric, s.emotion) == ("alike", "avg"))
    assert (alike.n_items, alike.n_refused, alike.partial) == (2, 1, True)
    assert [(r.item, r.metrics, r.reason) for r in record.refused] == [
        ("i2", ("alike",), "i2 has no real clip")
    ]


def test_controls_of_real_clips_have_each_real_clip_once(own: Path) -> None:
    protocol = cards(own, "first", (REAL, OTHER, ""))
    real = api.evaluate("real", protocol).record
    assert [item.id for item in real.items] == ["i0", "i1"]
    assert average(real, "fad") == pytest.approx(0.0, abs=1e-6)
    assert average(real, "alike") == pytest.approx(1.0)
    assert not any(s.partial for s in real.scores) and not real.refused
    assert [item.id for item in scored("blurred", protocol).items] == ["i0", "i1"]


def test_only_real_may_be_left_empty(own: Path) -> None:
    path = Path(cards(own, "first", (REAL, OTHER, "")))
    path.write_text(path.read_text().replace('"P001/angry/1.00/029.mp4"', '"{real}"'))
    with pytest.raises(CardError, match="the path is empty"):
        scored("source", str(path))
