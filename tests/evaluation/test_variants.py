"""A profile's variants take the place of a protocol's metrics, under the names that users type."""

from __future__ import annotations

from pathlib import Path

import pytest

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.networks import ProfileCard, profile_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.errors import CardError, UnknownNameError
from spfem_bench.evaluation.plan import make_plan
from spfem_bench.evaluation.signature import metric_settings, signature
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.networks.weights import WeightsStore

PAPERS = {name: f"{name}-papers" for name in ("fad", "csim", "lse-d", "lse-c", "av-offset")}


def planned(profile: str, *metrics: str) -> set[str]:
    """Return the metrics that an evaluation of the demo computes, or lacks weights for."""
    listed, card = protocol("demo-inter-id"), profile_card(profile)
    folders = {"data": DataFolders(), "weights": WeightsStore()}
    plan = make_plan("source", listed, card, metrics=metrics, **folders)  # type: ignore[arg-type]
    return {metric.name for metric in plan.metrics} | plan.unavailable.keys()


def test_variants_stand_for_the_protocols_metrics() -> None:
    listed = protocol("demo-inter-id").card.metrics
    assert planned("papers") == {PAPERS.get(name, name) for name in listed} != set(listed)
    assert planned("papers", "fad", "id-sim") == {"fad-papers", "id-sim"}
    assert planned("papers", "fad-papers", "fad") == {"fad-papers"}


def test_a_variant_is_refused_where_the_profile_does_not_compute_it() -> None:
    with pytest.raises(UnknownNameError, match="not computed with the profile 'compact'") as caught:
        planned("compact", "fad-papers")
    assert "Type fad" in caught.value.remedy and "--profile: papers" in caught.value.remedy


def test_variants_say_what_they_are_variants_of() -> None:
    assert dict(profile_card("papers").variants) == PAPERS
    assert {metric_card(v).printed_as for v in PAPERS.values()} == PAPERS.keys()
    assert "variant_of" not in metric_card("fad-papers").settings()


def test_the_signature_says_that_frames_are_the_clips_own(tmp_path: Path) -> None:
    x = Extractor(profile_card("papers"), WeightsStore(), FeatureStore(tmp_path), faces="aligned")
    frozen = metric_settings(metric_card("lse-d-papers"), protocol("demo-inter-id"), x)
    assert frozen["media"]["frame_rate"] == "own"
    assert "|own-fps|" in signature(frozen, "papers", ["a"], 1)
    assert frozen["network"]["input"] | {"audible": 0} == {
        "crop": "inner",
        "size": 224,
        "margin": 35,
        "frame_rate": 30.0,
        "mfcc_rate": 120.0,
        "sound": "float",
        "audible": 0,
    }


def test_a_sync_network_for_another_frame_rate_is_refused() -> None:
    papers = profile_card("papers")
    wrong = papers.model_copy(update={"frame_rate": "25"})
    with pytest.raises(CardError, match="'syncnet-v2-ned' takes frame_rate = \"own\""):
        wrong.network("sync")
    content = profile_card("light").model_dump() | {"path": Path("x"), "frame_rate": "own"}
    with pytest.raises(ValueError, match="for face crops only"):
        ProfileCard.model_validate(content)
