"""The probe of a loss: cases worked by hand, real clips' windows, STCCL's forms on one backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from spfem_bench.analysis.probe import (
    NOTHING,
    ProbeClip,
    ProbedForms,
    probe_loss,
    probe_losses,
    stccl_losses,
)
from spfem_bench.analysis.real_probe import RealClips, pair_methods, real_clips
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.datasets.pairs import EmotionPair, Held
from spfem_bench.definitions.clips import Span
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.errors import ClipError, StcclError
from spfem_bench.features.extract import Extractor
from spfem_bench.features.pair_extract import PairExtractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.reporting import probe as reporting
from spfem_bench.stccl.metric import STCCL

Mapping = dict[str, torch.Tensor]


def flat(unit: str, condition: str, level: int) -> ProbeClip:
    """A clip whose cost, as `brightness` has it, is the level."""
    made = np.full((2, 4, 4, 3), level, np.uint8)
    return ProbeClip(unit, condition, np.zeros_like(made), made)


def brightness(source: torch.Tensor, made: torch.Tensor) -> Mapping:
    cost = 255 * (made - source).mean()
    return {"loss": cost, "scc": cost / 2, "scc_positive": 1 - cost / 100, "scc_negative": cost * 0}


CLIPS = [
    flat("a", NOTHING, 10),
    flat("a", "emotion", 12),
    flat("a", "emotion", 16),  # the mean of the unit's two is 14
    flat("a", "words", 30),
    flat("a", "frozen", 20),
    flat("a", "later", 50),
    flat("a", "emotion, words", 32),
    flat("a", "emotion, frozen", 24),
    flat("b", NOTHING, 20),
    flat("b", "emotion", 26),
    flat("b", "words", 40),
]


def test_costs_and_shares_by_hand() -> None:
    result = probe_loss(brightness, CLIPS)
    assert result.units == ("a", "b")
    # Means over units: nothing 15, emotion (14 + 26) / 2 = 20, words 35.
    assert result.mean("emotion").value == pytest.approx(20)
    assert result.excess("words").value == pytest.approx((35 - 15) / 15)
    assert result.ratio("emotion", "words").value == pytest.approx((20 - 15) / (35 - 15))
    # As a share of the similarity lost the same, since it falls with the cost.
    assert result.ratio("emotion", "words", "scc_positive").value == pytest.approx(0.25)
    # Only a has these: (32 - 14) / (30 - 10), and no interval from a single unit.
    kept = result.kept("emotion, words", "emotion", "words")
    assert kept.value == pytest.approx(0.9) and kept.interval == (None, None)
    assert result.count("later") == 1 and result.count("words") == 2
    assert result.gaps("emotion", "words").tolist() == pytest.approx([16, 14])
    low, high = result.ratio("emotion", "words").interval
    # Draws are a alone, (4 / 20), b alone (6 / 20), or both.
    assert low == pytest.approx(0.2) and high == pytest.approx(0.3)


def test_tables_and_rows_say_what_the_result_says() -> None:
    result = probe_loss(brightness, CLIPS)
    rows = {
        (r.part, r.quantity, r.condition, r.other): r for r in reporting.probe_rows({"x": result})
    }
    share = rows["loss", "share", "emotion", "words"]
    assert (share.value, share.units) == (pytest.approx(0.25), 2)
    assert rows["scc", "mean", "words", ""].value == pytest.approx(17.5)
    assert rows["loss", "kept", "words", "emotion"].value == pytest.approx(0.9)
    assert "= 15.000" in reporting.condition_table(result)
    assert "0.25 [0.20, 0.30]" in reporting.share_table(result)
    ranked = reporting.rank_table(result, ["emotion", "words"])
    assert "2 of 2 by 15.00 [14.00, 16.00], least +14.00" in ranked
    text = reporting.to_csv(reporting.probe_rows({"x": result}))
    assert text.splitlines()[0] == "loss,part,quantity,condition,other,value,low,high,units"


def test_a_share_without_clips_is_said_and_nothing_is_needed() -> None:
    result = probe_loss(brightness, [flat("a", NOTHING, 10), flat("a", "words", 10)])
    assert np.isnan(result.ratio("words", "words").value)  # 0 / 0
    with pytest.raises(StcclError, match="no clip shows 'nothing'"):
        probe_loss(brightness, [flat("a", "words", 10)])


def test_forms_on_one_backbone_are_the_forms_alone() -> None:
    """Sharing features changes no number, also when the source changes."""
    forms = stccl_losses(forms=("vd", "cm"), untrained=True)
    assert list(forms.forms) == ["vd, learnt", "vd, untrained", "cm, learnt", "cm, untrained"]
    pictures = torch.rand(3, 1, 5, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    for source, made in ((pictures[0], pictures[1]), (pictures[2], pictures[1])):
        together = forms(source, made)
        for name, form in (("vd, learnt", "vd"), ("cm, learnt", "cm")):
            alone = STCCL.load("puppets", form=form, value_range=(0, 1))  # type: ignore[arg-type]
            drawn = torch.Generator().manual_seed(0)
            parts = alone(source, made, parts=True, generator=drawn)
            assert together[name].keys() == parts.keys()
            for part, value in parts.items():
                assert together[name][part] == pytest.approx(float(value), abs=1e-5)
    assert forms.signature["vd, untrained"]["heads"] is None
    assert forms.signature["vd, learnt"]["heads"]


def numbered(name: str, count: int, more: int = 0) -> Held:
    """A recording whose frame t has the brightness t + more."""
    frames = np.arange(count)
    pictures = np.broadcast_to(frames[:, None, None, None] + more, (count, 112, 112, 3))
    return Held(name, np.ascontiguousarray(pictures, np.uint8), frames)


def test_windows_of_real_clips() -> None:
    """The output runs two frames late, and lacks its last frames."""
    numbers = np.stack([np.arange(60), np.arange(60) + 2], 1)
    pair = EmotionPair("A", "sad", numbered("a", 60), numbered("o", 62, 100), numbers)
    short = EmotionPair("A", "sad", pair.neutral, pair.emotional, numbers[:30])
    other = EmotionPair("B", "sad", numbered("b", 60, 50), numbered("p", 62), numbers)
    clips = RealClips({"a": {"ned": pair, "short": short}, "b": {"ned": other}}, ())
    shown = {(c.unit, c.condition, int(c.source[0, 0, 0, 0])): c for c in real_clips(clips, 10, 2)}
    # 51 windows: of the two, the first begins with frame 12, the second with frame 38.
    first = {
        condition: c.made[:, 0, 0, 0]
        for (u, condition, s), c in shown.items()
        if (u, s) == ("a", 12)
    }
    assert first["ned"].tolist() == [*range(114, 124)]
    assert first["short"].tolist() == [*range(114, 124)]
    assert first["later"].tolist() == [*range(24, 34)]
    assert first["wrong time"].tolist() == [*range(37, 47)]
    assert first["frozen"].tolist() == [12] * 10
    assert first["other speaker"][0] >= 50
    grainy = shown["a", "nothing", 12]
    grain = grainy.made.astype(float) - grainy.source
    assert abs(grain.mean()) < 0.05 and grain.std() == pytest.approx(1.6, abs=0.1)
    second = {condition for u, condition, s in shown if (u, s) == ("a", 38)}
    assert "short" not in second and "ned" in second
    result = probe_losses(lambda x, y: {"": brightness(x, y)}, shown.values())[""]
    assert result.count("short") == 1 and result.count("ned") == 2
    with pytest.raises(ClipError, match="no source shows a face in 61 frames in a row"):
        list(real_clips(clips, 61))


def test_an_untrained_loss_has_every_form() -> None:
    assert isinstance(forms := stccl_losses(network="compact-identity"), ProbedForms)
    assert list(forms.forms) == ["vd, untrained", "cm, untrained", "ct, untrained"]


def test_content_of_published_strips(samples: Path, weights_folder: Path, tmp_path: Path) -> None:
    """Two strips in which landmarks place a different output nearer to the source.

    M-LMD of the whole clips: NED 1.5 and STCCL-VD 3.6 in the first, 3.5 and 1.9 in the second.
    """
    names = ("M003_source_sad_033", "M030_source_disgusted_030")
    methods = ("stccl-vd-ned", "ned")
    listed, begin = protocol("stccl-page-ned"), Span(0.0, 1.4)
    items = [
        replace(
            item,
            clips={role: replace(clip, span=begin) for role, clip in item.clips.items()},
            outputs={m: replace(item.outputs[m], span=begin) for m in methods},
        )
        for item in listed.items
        if item.id in names
    ]
    weights = WeightsStore(weights_folder)
    reader = Extractor(profile_card("light"), weights, FeatureStore(tmp_path))
    short = replace(listed, items=tuple(items))
    clips = pair_methods(short, PairExtractor(reader), DataFolders(samples), methods)
    assert not clips.left_out and len(clips.items) == 2
    ahead = [pair.numbers @ [1, -1] for pairs in clips.items.values() for pair in pairs.values()]
    assert {frames for one in ahead for frames in one} <= {1, 2}  # the columns are not in step
    losses = stccl_losses(network="mobilefacenet", forms=("ct",), weights=weights)
    shown = [c for c in real_clips(clips, windows=1) if c.condition not in ("compressed", "frozen")]
    result = probe_losses(losses, shown)["ct, untrained"]
    nearer = result.gaps("ned", "stccl-vd-ned", "sct_positive")
    assert nearer[0] < -0.05 and nearer[1] > 0.05
    for method in methods:
        assert (result.gaps("other speaker", method, "sct_positive") > 0.05).all()
