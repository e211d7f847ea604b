"""Each clip's numbers: their means are the record's scores."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from spfem_bench.analysis.clips import clip_frame, write_clips
from spfem_bench.errors import SpfemBenchError
from spfem_bench.evaluation.record import parse_record
from tests.analysis.test_compare import RANDOM, run


def test_means_of_clips_are_the_scores_and_a_file_holds_them(tmp_path: Path) -> None:
    content = run("a", {"csim": RANDOM})
    frame = clip_frame([parse_record(run("a", {"csim": RANDOM}))])
    scores = {s["emotion"]: s["value"] for s in content["scores"]}
    for emotion, mean in frame.groupby("emotion")["value"].mean().items():
        assert mean == pytest.approx(scores[emotion])
    assert not frame["pooled"].any() and (frame["note"] == "").all()
    write_clips(frame, tmp_path / "clips.csv")
    read = pd.read_csv(tmp_path / "clips.csv")
    assert read["value"].tolist() == pytest.approx(frame["value"].tolist())
    try:
        write_clips(frame, tmp_path / "clips.parquet")
    except SpfemBenchError as error:
        assert 'pip install "spfem-bench[parquet]"' in str(error)
    else:
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "clips.parquet"), frame)
