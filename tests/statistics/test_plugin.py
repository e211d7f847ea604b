"""A metric kind is one file and a card: evaluated, signed, tabled, compared and reported."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import spfem_bench
from spfem_bench.definitions.metrics import METRIC_KINDS

KIND = '''
"""How steady a face is: the cosine between the embeddings of adjacent frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from spfem_bench.definitions.metrics import METRIC_KINDS
from spfem_bench.errors import ClipError
from spfem_bench.features.requests import PairRequest
from spfem_bench.statistics.base import MetricKind
from spfem_bench.statistics.similarity import cosine


@dataclass(frozen=True)
class Steadiness:
    total: float
    n_frames: int


@METRIC_KINDS.register("steadiness")
class SteadinessKind(MetricKind[Steadiness]):
    part_type: ClassVar[type] = Steadiness
    n_clips: ClassVar[int] = 1

    kind: Literal["steadiness"]
    step: int = 1

    def part(self, card, clip, features):
        vectors = features["output"][0].outputs[card.output]
        if len(vectors) <= self.step:
            raise ClipError(f"{clip}: too short", "Give a longer clip")
        cosines = cosine(vectors[: -self.step], vectors[self.step :])
        return Steadiness(float(cosines.sum()), len(cosines))

    def value(self, part):
        return part.total / part.n_frames

    def note(self, groups, *, same_clips):
        return "a toy"


@dataclass(frozen=True)
class Lag:
    lag: int
    n_frames: int


@METRIC_KINDS.register("lag")
class LagKind(MetricKind[Lag]):
    part_type: ClassVar[type] = Lag

    kind: Literal["lag"]

    def requests(self, card, clips):
        return {"output": [(clips["output"][0], PairRequest(clips[card.compare[1]][0]))]}

    def part(self, card, clip, features):
        arrays = features["output"][0].outputs
        return Lag(int(arrays["lag"]), len(arrays["rows"]))

    def value(self, part):
        return float(part.lag)
'''

CARD = """
title = "A toy"
label = "{label}"
version = 1
description = "A toy."
hides = "All else."
direction = "{direction}"
range = [-100.0, 100.0]
unit = "one"
role = "identity"
output = "{output}"
compare = {compare}
citation = "none"
[statistic]
kind = "{kind}"
"""

PROTOCOL = """
title = "Two puppets"
version = 1
setting = "inter-id"
dataset = "puppets"
items = "two.csv"
emotions = ["happy"]
metrics = ["steadiness", "lag", "id-sim"]
faces = "aligned"
profile = "compact"
description = "Two puppets."
[clips]
source = "{speaker}/neutral/1.00/029.mp4"
reference = "{speaker}/{emotion}/1.00/029.mp4"
real = "{speaker}/{emotion}/1.00/029.mp4"
"""


class Home:
    """A folder with a kind, its cards, and a protocol that uses them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kind = folder / "steadiness.py"
        self.kind.write_text(KIND)
        cards = folder / "cards"
        for name in ("metrics", "protocols"):
            (cards / name).mkdir(parents=True)
        steadiness = CARD.format(
            label="Steady",
            direction="higher",
            output="embedding",
            compare='["output"]',
            kind="steadiness",
        )
        (cards / "metrics/steadiness.toml").write_text(steadiness)
        lag = CARD.format(
            label="Lag",
            direction="zero",
            output="stages",
            compare='["output", "source"]',
            kind="lag",
        )
        (cards / "metrics/lag.toml").write_text(lag)
        (cards / "protocols/two.toml").write_text(PROTOCOL)
        rows = "id,speaker,emotion\na,P001,happy\nb,P002,happy\n"
        (cards / "protocols/two.csv").write_text(rows)
        self.environment = os.environ | {
            "SPFEM_BENCH_PLUGINS": str(self.kind),
            "SPFEM_BENCH_CARDS": str(cards),
            "SPFEM_BENCH_CACHE": str(folder / "cache"),
        }

    def run(self, *arguments: str, code: int = 0) -> str:
        """Run the command line in a process of its own, and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "spfem_bench", *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    def evaluate(self, *more: str, results: str = "results") -> dict[str, dict[str, Any]]:
        """Evaluate two controls, and return their records by method."""
        methods = ("--method", "source", "--method", "blurred")
        self.run("eval", "--protocol", "two", *methods, "--results", results, "-q", *more)
        found = (self.folder / results / "two").glob("*.json")
        return {path.name.partition(".")[0]: json.loads(path.read_text()) for path in found}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = Home(tmp_path_factory.mktemp("plugin"))
    home.records = home.evaluate()  # type: ignore[attr-defined]
    return home


def headlines(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {s["metric"]: s for s in record["scores"] if s["emotion"] == "avg"}


def test_a_kind_of_ones_own_is_evaluated(home: Home) -> None:
    records: dict[str, dict[str, Any]] = home.records  # type: ignore[attr-defined]
    steady = {name: headlines(record)["steadiness"] for name, record in records.items()}
    assert 0.9 < steady["source"]["value"] != steady["blurred"]["value"] < 1
    assert steady["source"]["low"] <= steady["source"]["value"] <= steady["source"]["high"]
    assert steady["source"]["note"].startswith("a toy")
    # A comparison of two clips, requested by another kind than our own.
    assert headlines(records["source"])["lag"]["value"] == 0
    kept = records["source"]["items"][0]["metrics"]
    assert kept["steadiness"].keys() >= {"total", "n_frames"} and kept["lag"]["lag"] == 0


def test_its_source_is_in_the_signature(home: Home) -> None:
    records: dict[str, dict[str, Any]] = home.records  # type: ignore[attr-defined]
    before = headlines(records["source"])
    settings = records["source"]["settings"]
    assert len(settings["steadiness"]["plugin"]) == 64 and "plugin" not in settings["id-sim"]
    home.kind.write_text(KIND + "\n# another version\n")
    try:
        after = headlines(home.evaluate(results="other")["source"])
    finally:
        home.kind.write_text(KIND)
    assert after["steadiness"]["value"] == before["steadiness"]["value"]
    assert after["steadiness"]["signature"] != before["steadiness"]["signature"]
    assert after["id-sim"]["signature"] == before["id-sim"]["signature"]


def test_several_processes_import_it(home: Home) -> None:
    records: dict[str, dict[str, Any]] = home.records  # type: ignore[attr-defined]
    several = home.evaluate("--workers", "2", results="several")
    for name, record in several.items():
        for metric, score in headlines(record).items():
            expected = headlines(records[name])[metric]
            assert score == expected


def test_it_is_tabled_compared_and_reported(home: Home) -> None:
    results = "results/two"
    table = home.run("table", results)
    assert "Steady" in table and "Lag" in table
    files = [f"{results}/{name}.compact.json" for name in ("source", "blurred")]
    compared = home.run("compare", *files)
    assert "Steady" in compared
    home.run("report", results, "-o", "report", "-q")
    page = (home.folder / "report/index.html").read_text()
    assert "Steady" in page


def test_a_record_says_which_kind_is_not_installed(home: Home) -> None:
    home.environment = home.environment | {"SPFEM_BENCH_PLUGINS": ""}
    message = home.run("table", "results/two", code=1)
    assert "'statistic': unknown metric kind 'steadiness'" in message


def test_no_kind_is_named_outside_its_room() -> None:
    kinds = [k for k in METRIC_KINDS.kinds() if k in ("coherence", "frechet", "similarity", "sync")]
    classes = "|".join(METRIC_KINDS.get(kind).__name__ for kind in kinds)
    named = re.compile(rf"\b({classes})\b|statistic\.kind|statistic\W+kind\W")
    folder = Path(spfem_bench.__file__).parent
    rooms = "statistics", "torch_metrics"  # the second has a class for each kind
    outside = [path for path in folder.rglob("*.py") if path.parent.name not in rooms]
    assert len(kinds) == 4
    assert [str(path) for path in outside if named.search(path.read_text())] == []
