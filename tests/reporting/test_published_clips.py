"""The authors' own clips through the shipped cards: the order the papers claim, and its control."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from spfem_bench.cli.main import main


@pytest.fixture(scope="module")
def headline(
    samples: Path, weights_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], dict[str, object]]:
    """Score three systems and the control on the strips that are here (8 of 13)."""
    top = tmp_path_factory.mktemp("published")
    environment = {
        "SPFEM_BENCH_DATA": str(samples),
        "SPFEM_BENCH_WEIGHTS": str(weights_folder),
        "SPFEM_BENCH_CACHE": str(top / "cache"),
    }
    found = {}
    for method in ("ned", "stccl-ned", "stccl-cm-ned", "source"):
        command = f"eval --method {method} --protocol stccl-page-ned --profile light --partial"
        words = [*command.split(), "--json", "-q", "--results", str(top / "results")]
        done = CliRunner().invoke(main, words, env=environment)
        assert done.exit_code == 0, done.stderr
        for score in json.loads(done.stdout):
            if score["emotion"] == "avg":
                found[score["method"], score["metric"]] = score
    return found


def test_fad_falls_and_csim_rises_from_ned_to_both_stccl_methods(headline):
    for method in ("stccl-vd-ned", "stccl-cm-ned"):
        assert headline[method, "fad"]["value"] < headline["ned", "fad"]["value"]
        assert headline[method, "csim"]["value"] > headline["ned", "csim"]["value"]


def test_counts_and_partial_marks(headline):
    for method in ("ned", "stccl-vd-ned", "stccl-cm-ned"):
        for metric in ("fad", "csim", "id-sim"):
            score = headline[method, metric]
            assert (score["n_items"], score["n_refused"], score["partial"]) == (8, 5, True)
            assert "partial:8of13" in score["signature"]
            assert score["n_frames"] > 900


def test_scores_of_the_same_clips_have_one_signature(headline):
    for metric in ("fad", "csim", "id-sim"):
        assert len({s["signature"] for (_, m), s in headline.items() if m == metric}) == 1


def test_lip_sync_says_what_is_missing_and_how_to_get_it(headline):
    for metric in ("lse-d", "lse-c", "av-offset"):
        score = headline["ned", metric]
        assert score["value"] is None
        assert "spfem-bench networks fetch syncnet-v2" in score["note"]


def test_the_control_that_does_nothing_has_the_best_fad_and_says_why(headline):
    control = headline["source", "fad"]
    assert control["value"] == pytest.approx(0, abs=1e-6)
    assert control["kind"] == "control" and "the real clip itself" in control["note"]
