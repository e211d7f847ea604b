"""What the demo must show: each metric answers to what it claims to measure.

All 42 items, the shipped networks, clips through files and ffmpeg. Features are
computed once for the whole session.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.networks import network_card, profile_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.evaluation.plan import make_plan
from spfem_bench.evaluation.session import evaluate
from spfem_bench.execution.processes import ThisProcess
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.networks.weights import WeightsStore, shipped_folder
from spfem_bench.puppets.compact.recipes import NAMES, RECIPES
from spfem_bench.puppets.compact.takes import training_takes
from spfem_bench.puppets.world import World
from spfem_bench.statistics import sync

Record = dict  # a run record
Run = Callable[..., Record]


@pytest.fixture(scope="module")
def run(demo_cache: Path) -> Run:
    """Evaluate a control of the demo; clips and features are kept for the session."""
    records: dict[tuple[object, ...], Record] = {}

    def one(
        method: str,
        level: float | None = None,
        name: str = "demo-inter-id",
        metrics: tuple[str, ...] = (),
    ) -> Record:
        key = (method, level, name, metrics)
        if key not in records:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("SPFEM_BENCH_CACHE", str(demo_cache))
                profile, found = profile_card("compact"), protocol(name)
                weights = WeightsStore.locate()
                plan = make_plan(
                    method,
                    found,
                    profile,
                    data=DataFolders.locate(),
                    weights=weights,
                    level=level,
                    metrics=metrics,
                )
                extractor = Extractor(profile, weights, FeatureStore.locate(), faces="aligned")
                records[key] = evaluate(
                    plan, extractor, workers=ThisProcess(), partial=False
                ).plain()
        return records[key]

    return one


def average(record: Record, metric: str) -> float:
    found = [s for s in record["scores"] if s["metric"] == metric and s["emotion"] == "avg"]
    assert found[0]["n_items"] == 42
    return float(found[0]["value"])


@pytest.mark.parametrize(
    ("control", "metric", "sign"),
    [
        ("blurred", "fad", 1),
        ("other-speaker", "fad", 1),
        ("other-speaker", "id-sim", -1),
        ("emotion-faded", "csim", -1),
        ("frozen-mouth", "lse-d", 1),
        ("frozen-mouth", "lse-c", -1),
        ("time-shuffled", "lse-d", 1),
        ("time-shuffled", "lse-c", -1),
    ],
)
def test_the_real_clips_beat_every_degradation_on_the_metric_it_attacks(
    run: Run, control: str, metric: str, sign: int
) -> None:
    real, spoilt = average(run("real"), metric), average(run(control), metric)
    assert sign * (spoilt - real) > 0.15 * abs(real)


def test_fad_rises_step_by_step_with_blur(run: Run) -> None:
    values = [
        average(run("blurred", level, metrics=("fad",)), "fad") for level in (0, 0.5, 1, 2, 4)
    ]
    assert np.all(np.diff(values) > 0), values


def test_csim_rises_step_by_step_with_the_emotion(run: Run) -> None:
    levels = (0, 0.5, 1)  # docs/validation.md has five
    values = [average(run("emotion-faded", v, metrics=("csim",)), "csim") for v in levels]
    assert np.all(np.diff(values) > 0), values


def test_another_speaker_moves_identity_and_hardly_the_emotion(run: Run) -> None:
    real, other, faded = run("real"), run("other-speaker"), run("emotion-faded")
    assert average(other, "id-sim") < 0.3 < 0.8 < average(real, "id-sim")
    assert average(other, "fad") > 10 * average(faded, "fad")
    # Against what a lost emotion costs, another face costs little.
    lost = average(real, "csim") - average(faded, "csim")
    assert average(real, "csim") - average(other, "csim") < 0.2 * lost


def test_lip_sync_s_minimum_is_at_the_true_offset(run: Run) -> None:
    """In at least 95 % of the clips; here the offset of every clip is read from its totals."""
    offsets = _offsets(run("real"))
    assert len(offsets) == 42
    assert np.mean(np.array(offsets) == 0) >= 0.95


@pytest.mark.parametrize("frames", [-8, -1, 1, 5, 8])
def test_a_shift_of_the_sound_is_found_within_one_frame(run: Run, frames: int) -> None:
    record = run("shifted-audio", frames, metrics=("av-offset",))
    offsets = np.array(_offsets(record))
    assert np.mean(np.abs(offsets - frames) <= 1) >= 0.95
    assert abs(average(record, "av-offset") - frames) <= 1


def _offsets(record: Record) -> list[int]:
    found = []
    for item in record["items"]:
        totals = np.array(item["metrics"]["av-offset"]["totals"])
        found.append((len(totals) - 1) // 2 - int(totals.argmin()))
    return found


def test_the_offset_is_read_as_the_statistics_read_it(run: Run) -> None:
    record = run("shifted-audio", 5, metrics=("av-offset",))
    item = record["items"][0]["metrics"]["av-offset"]
    parts = sync.SyncPart(np.array(item["totals"]), item["windows"], item["windows_refused"])
    assert parts.value("offset") == _offsets(record)[0]


def test_cross_id_asks_for_another_speaker_s_emotion(run: Run) -> None:
    """Nothing done scores worse in both settings, and copying the reference loses the face."""
    for name in ("demo-inter-id", "demo-cross-id"):
        real, source = run("real", name=name), run("source", name=name)
        assert average(source, "csim") < average(real, "csim") - 0.2
        assert average(source, "fad") > average(real, "fad") + 3
    copied = run("reference", name="demo-cross-id")
    assert average(copied, "id-sim") < 0.3
    assert average(copied, "csim") == pytest.approx(1)


def test_no_test_puppet_and_no_test_sentence_was_trained_on() -> None:
    """By the list that training uses, and by the records beside the shipped weights."""
    world = World()
    speakers = {s.name for s in world.speakers if s.split != "train"}
    sentences = {s.name for s in world.sentences if s.split == "test"}
    used = {i.speaker for n in ("demo-inter-id", "demo-cross-id") for i in protocol(n).items}
    said = {
        c.path.stem
        for n in ("demo-inter-id", "demo-cross-id")
        for i in protocol(n).items
        for c in i.clips.values()
    }
    assert used <= speakers
    assert said == sentences
    for name in NAMES:
        shots = training_takes(world, name, RECIPES[name])
        assert not {s.speaker for s in shots} & speakers
        assert not {s.sentence for s in shots} & sentences
        card = network_card(f"compact-{name}")
        path = shipped_folder(card) / Path(card.files[0].name).with_suffix(".json")
        record = json.loads(path.read_text())
        assert record["sha256"] == card.files[0].sha256
        assert set(record["speakers"]) == {s.speaker for s in shots}
        assert set(record["sentences"]) == {s.sentence for s in shots}
        assert record["takes"]["count"] == len(shots)
