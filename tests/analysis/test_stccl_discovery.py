"""The discovery: definitions by hand, choice of controls, intervals, the command."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from spfem_bench.analysis import discovery, disparities
from spfem_bench.analysis.discovery import DiscoveryRow, Lens, discover
from spfem_bench.analysis.disparities import released, released_logs, stand_in, starts, wrong_times
from spfem_bench.cli.main import main
from spfem_bench.datasets.pairs import EmotionPair, Held
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.networks import profile_card
from spfem_bench.errors import CardError, ClipError, StcclError
from spfem_bench.evaluation.pairing import folder_pairs, same_names
from spfem_bench.features.extract import Extractor
from spfem_bench.features.pair_extract import PairExtractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media.write import write_clip
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets.pairs import Puppet, true_frames
from spfem_bench.puppets.world import World
from spfem_bench.reporting import discovery as reporting
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.backbone import STAGES, backbone
from spfem_bench.stccl.checkpoint import Heads, backbone_record, write_checkpoint
from spfem_bench.stccl.losses import released_terms
from spfem_bench.stccl.settings import ContrastSettings, FormSettings


class Tiny(nn.Module):
    """Two stages that are parts of the picture itself."""

    def stages(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        return [pictures[..., ::8, ::8], pictures[..., ::16, ::16]]


TINY: Any = Tiny()


def held(name: str, count: int = 40, seed: int = 0) -> Held:
    pictures = np.random.default_rng(seed).integers(0, 255, (count, 112, 112, 3), np.uint8)
    return Held(name, pictures, np.arange(count))


def pair(
    speaker: str, emotion: str, count: int = 40, seed: int = 0, noise: bool = False
) -> EmotionPair:
    a = held(f"{speaker}/neutral", count, seed)
    b = held(f"{speaker}/{emotion}", count, seed + 100) if noise else replace(a, name="b")
    return EmotionPair(speaker, emotion, a, b, np.stack([np.arange(count)] * 2, 1))


def by_kind(rows: list[DiscoveryRow], **of: Any) -> dict[str, DiscoveryRow]:
    return {r.kind: r for r in rows if all(getattr(r, k) == v for k, v in of.items())}


# ---- windows and controls -------------------------------------------------------------------


def test_windows_are_spread_and_go_on() -> None:
    one = pair("A", "happy", 40)
    # 36 windows of five; the middles of thirds: 6, 18, 30.
    assert starts(one, 3).tolist() == [6, 18, 30]
    assert len(starts(one, 100)) == 36
    numbers = one.numbers.copy()
    numbers[20:, 0] += 3  # frames without a face
    broken = replace(one, numbers=numbers)
    assert (
        not {16, 17, 18, 19} & set(starts(broken, 100).tolist()) and len(starts(broken, 99)) == 32
    )
    numbers = one.numbers.copy()
    numbers[:, 1] = 5  # the second recording stands still
    assert len(starts(replace(one, numbers=numbers), 3)) == 0


def test_wrong_time_is_half_a_recording_away() -> None:
    one = pair("A", "happy", 40)
    found = wrong_times(one, starts(one, 3))
    assert found is not None
    assert found.tolist() == [24, 0, 12]
    short = pair("A", "happy", 8)  # four windows, two apart: they would overlap
    assert wrong_times(short, starts(short, 3)) is None


def test_another_speaker_is_another() -> None:
    a, b, c = pair("A", "happy"), pair("A", "sad"), pair("B", "sad")
    d = pair("C", "happy")
    assert stand_in([a, b, c, d], 0) is d  # the same emotion goes first
    assert stand_in([a, b, c, d], 1) is c
    assert stand_in([a, b, c, d], 2) is b
    assert stand_in([a, c], 0) is c  # none in this emotion
    assert stand_in([a, b], 0) is None


def test_a_subject_holds_the_frames_that_it_says() -> None:
    pairs = [pair("A", "happy", seed=0, noise=True), pair("B", "happy", seed=1, noise=True)]
    shown = disparities.draw_subject(pairs, 0, 3)
    assert shown is not None
    assert shown.other_speaker is not None and shown.wrong_time is not None
    a, b = pairs[0].neutral, pairs[0].emotional
    for number, (start, late) in enumerate(((6, 24), (18, 0), (30, 12))):
        for k in range(5):
            assert (shown.source[number, k] == a.frame(start + k)).all()
            assert (shown.target[number, k] == b.frame(start + k)).all()
            assert (shown.wrong_time[number, k] == b.frame(late + k)).all()
            stranger = pairs[1].emotional.frame(start + k)
            assert (shown.other_speaker[number, k] == stranger).all()


# ---- definitions --------------------------------------------------------------------------


def test_similarity_of_known_pictures() -> None:
    # The second recording of each pair is the first; nobody resembles anybody else.
    rows, refused = discover([pair("A", "happy", seed=0), pair("B", "happy", seed=1)], TINY)
    assert not refused
    for space in ("spatial", "temporal"):
        for measure in ("cosine", "pearson"):
            found = by_kind(rows, space=space, stage=1, measure=measure, emotion="avg")
            assert found["positive"].value == pytest.approx(1, abs=1e-5)
            for kind in ("elsewhere", "other speaker", "wrong time"):
                assert abs(found[kind].value) < 0.05
            # Disparities of noise that share the region at their begin have the cosine 1/2;
            # of the 12 pairs of moments in a window 6 share a frame, with -1/2: mean -1/4.
            expected = 0.5 if space == "spatial" else -0.25
            assert found["near"].value == pytest.approx(expected, abs=0.12)
            above = found["above wrong time"].value
            assert above == pytest.approx(
                found["positive"].value - found["wrong time"].value, abs=1e-6
            )


def test_pearson_by_slow_loops() -> None:
    rng = np.random.default_rng(3)
    x, y = (torch.from_numpy(rng.normal(size=(1, 5, 7, 4, 5))).float() for _ in range(2))
    wanted = []
    for t in range(5):
        for i in range(1, 3):
            for j in range(1, 4):
                for down, right in rep.STEPS[8]:
                    dx, dy = (
                        (m[0, t, :, i, j] - m[0, t, :, i + down, j + right]).numpy() for m in (x, y)
                    )
                    wanted.append(np.corrcoef(dx, dy)[0, 1])
    found = disparities._dense(x, y, "spatial", None, "pearson")
    assert found.positive == pytest.approx(np.mean(wanted), abs=1e-6)
    wanted = [
        np.corrcoef(*((m[0, t + 1, :, i, j] - m[0, t, :, i, j]).numpy() for m in (x, y)))[0, 1]
        for t in range(4)
        for i in range(4)
        for j in range(5)
    ]
    found = disparities._dense(x, y, "temporal", None, "pearson")
    assert found.positive == pytest.approx(np.mean(wanted), abs=1e-6)
    head = nn.Linear(7, 3)
    with torch.no_grad():
        found = disparities._dense(x, y, "temporal", head, "pearson")
        one = (head(m[0, 1, :, 0, 0] - m[0, 2, :, 0, 0]).numpy() for m in (x, y))
        assert -1 <= found.positive <= 1 and np.isfinite(np.corrcoef(*one)).all()


def test_released_code_is_the_arithmetic_of_the_loss() -> None:
    x, y = torch.randn(3, 16, 5), torch.randn(3, 16, 5)
    settings = ContrastSettings(definition="released-code")
    terms = released_terms(x, y, settings, generator=torch.Generator().manual_seed(4))
    positive, negative = released(x, y, torch.Generator().manual_seed(4))
    assert positive == pytest.approx(float(terms.positive), abs=1e-6)
    assert negative == pytest.approx(float(terms.negative), abs=1e-6)
    # By hand: channels of positions (1, 0) and (0, 1) against themselves in another order.
    one = torch.eye(2)[None]
    assert released(one, one, torch.Generator())[0] == pytest.approx(1)
    assert released(one, one.flip(1), torch.Generator())[0] == pytest.approx(0)
    assert released(one, one.flip(1), torch.Generator(), "pearson")[0] == pytest.approx(-1)


def test_released_code_from_pictures() -> None:
    big: Any = Big()
    rows, _ = discover(
        [pair("A", "happy"), pair("B", "happy", seed=1)], big, definition="released-code"
    )
    found = by_kind(rows, space="spatial", stage=1, measure="cosine", emotion="avg")
    assert found["positive"].value == pytest.approx(1, abs=1e-5)
    assert abs(found["elsewhere"].value) < 0.1 and "near" not in found
    assert found["positive"].disparities == 2 * 27 * 32 * 8
    with pytest.raises(StcclError, match="visual disparities only"):
        discover([pair("A", "happy")], big, [Lens(form="cm")], definition="released-code")


class Big(nn.Module):
    """Four stages of a size from which the released code can sample."""

    def stages(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        return [pictures[..., ::step, ::step] for step in (8, 10, 12, 16)]


def test_heads_and_matrices_are_looked_through() -> None:
    torch.manual_seed(0)
    heads = _heads()
    pairs = [pair("A", "happy", noise=True), pair("B", "happy", seed=1, noise=True)]
    rows, _ = discover(pairs, TINY, [Lens(), Lens("mine", heads)])
    assert {r.network for r in rows} == {"untrained", "mine"}
    rows, _ = discover(pairs, TINY, [Lens(form="cm"), Lens("mine", heads, "cm")])
    assert {(r.network, r.measure) for r in rows} == {
        ("untrained", "pearson"),
        ("mine", "pearson"),
    }
    found = by_kind(rows, space="temporal", network="untrained", stage=1, emotion="avg")
    assert abs(found["positive"].value) < 0.2 and "near" not in found


def test_moments_of_known_pictures() -> None:
    # Noise; the second recording of each pair is the first.
    pairs = [pair("A", "happy", 30), pair("B", "happy", 30, seed=1)]
    rows, _ = discover(pairs, TINY, [Lens(form="ct")], windows=1)
    assert {(r.space, r.measure, r.frames) for r in rows} == {("moments", "cosine", 50)}
    found = by_kind(rows, stage=1, emotion="avg")
    assert found["positive"].value == pytest.approx(1, abs=1e-5)
    # 13 vectors whose sum is 0: two of them have the cosine -1/12 on average.
    assert found["elsewhere"].value == pytest.approx(-1 / 12, abs=0.02)
    assert abs(found["other speaker"].value) < 0.05
    with pytest.raises(StcclError, match="has visual disparities only"):
        discover(pairs, TINY, [Lens(form="ct")], definition="released-code")


def _heads() -> Any:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for space in ("spatial", "temporal"):
                one = nn.ModuleList(nn.Linear(3, 4) for _ in range(2))
                setattr(self, space, one.requires_grad_(False))

    return Two()


# ---- over pairs ---------------------------------------------------------------------------


def test_averages_counts_and_intervals() -> None:
    values = {"happy": [0.2, 0.4, 0.9], "sad": [0.5]}
    key = ("untrained", "spatial", 1, "cosine", "positive")
    compared = [
        discovery._Compared(e, 3, {key: v})  # type: ignore[dict-item]
        for e, own in values.items()
        for v in own
    ]
    rows = list(discovery._rows(key, compared, each=10.0))  # type: ignore[arg-type]
    happy, sad, mean = rows
    assert happy.value == pytest.approx(0.5) and sad.value == 0.5
    assert mean.value == pytest.approx(0.5)  # of the two emotions, not of the four pairs
    assert (happy.pairs, sad.pairs, mean.pairs) == (3, 1, 4)
    assert (happy.frames, happy.disparities) == (45, 450)
    assert happy.low is not None and happy.high is not None
    assert 0.2 <= happy.low < 0.5 < happy.high <= 0.9
    assert sad.low is None and mean.low is not None
    # The interval is that of the house's bootstrap.
    from spfem_bench.statistics.intervals import drawn, interval

    own = values["happy"]
    rows_drawn = drawn(3, discovery.RESAMPLES).tolist()
    again = np.array([float(np.mean([own[i] for i in row])) for row in rows_drawn])
    assert (happy.low, happy.high) == pytest.approx(interval(again))
    assert discovery.per_frame("spatial", (7, 6), 1, "paper", "vd") == 8 * 5 * 4
    assert discovery.per_frame("temporal", (7, 6), 1, "paper", "vd") == 7 * 6 * 4 / 5
    assert discovery.per_frame("temporal", (7, 6), 4, "released-code", "vd") == 32 * 36 / 9


def test_two_runs_are_one() -> None:
    pairs = [pair("A", "happy", noise=True), pair("B", "sad", seed=1, noise=True)]
    first, second = (discover(pairs, TINY)[0] for _ in range(2))
    assert first == second
    alone = discover(pairs[:1], TINY)[0]
    assert not any(r.kind in ("other speaker", "above other speaker") for r in alone)
    assert list(dict.fromkeys(r.emotion for r in first)) == ["happy", "sad", "avg"]


def test_what_cannot_be_compared() -> None:
    with pytest.raises(StcclError, match="no pairs"):
        discover([], TINY)
    with pytest.raises(StcclError, match="0 windows"):
        discover([pair("A", "happy")], TINY, windows=0)
    with pytest.raises(StcclError, match="no 5 frames in a row"):
        discover([pair("A", "happy", 4)], TINY)
    rows, refused = discover([pair("A", "happy", 4), pair("B", "happy")], TINY)
    assert len(refused) == 1 and by_kind(rows, stage=1)["positive"].pairs == 1
    with pytest.raises(ClipError, match="frame 7 shows no face"):
        replace(held("a", 3), frames=np.array([5, 6, 8])).frame(7)


@pytest.fixture(scope="module")
def world() -> World:
    settings = dataset_card("puppets").world
    assert settings is not None
    return World(settings.version, settings.seed, settings.size)


def test_puppets_show_what_the_papers_say(world: World) -> None:
    pairs = []
    for speaker, emotion in (("P001", "happy"), ("P003", "happy")):
        a, b = (world.take(speaker, e, "029") for e in ("neutral", emotion))
        pairs.append(EmotionPair(speaker, emotion, Puppet(a), Puppet(b), true_frames(a, b)))
    network = backbone("compact-identity", WeightsStore.locate())
    rows, refused = discover(pairs, network, windows=2)
    assert not refused
    for stage in (1, 2, 3, 4):
        found = by_kind(rows, space="spatial", stage=stage, measure="cosine", emotion="avg")
        assert abs(found["elsewhere"].value) <= 0.03
        assert found["positive"].value > found["elsewhere"].value + 0.2
        assert found["above other speaker"].value > 0.1
        # What is hardly there: most of the similarity in space is the speaker's face.
        assert found["above wrong time"].value < 0.1
        time = by_kind(rows, space="temporal", stage=stage, measure="cosine", emotion="avg")
        assert time["positive"].value > time["wrong time"].value
        assert abs(time["elsewhere"].value) <= 0.03
    assert found["positive"].value > 0.6


# ---- the command --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folders(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two speakers: a source, and as an output the same three frames later."""
    top = tmp_path_factory.mktemp("clips")
    for speaker in ("P001", "P003"):
        take = world.take(speaker, "neutral", "029")
        frames = [take.frame(i) for i in range(33)]
        sound = take.sound()
        write_clip(top / "a" / f"{speaker}_x.mp4", iter(frames[:30]), sound[: 30 * 640])
        write_clip(top / "b" / f"{speaker}_x.mp4", iter(frames[3:]), sound[: 30 * 640])
    return top / "a", top / "b"


def test_correlate_on_folders(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source, target = map(str, folders)
    command = ["correlate", "--source", source, "--target", target, "--aligned"]
    done = CliRunner().invoke(
        main, [*command, "--windows", "2", "-o", "all.csv", "--figure", "fig.png"]
    )
    assert done.exit_code == 0, done.output
    assert "2 of 2 pairs: frame t goes with frame t + 3 of the source" in done.stderr
    rows = list(csv.DictReader(Path("all.csv").read_text().splitlines()))
    assert {r["kind"] for r in rows} == set(disparities.KINDS)
    assert {(r["space"], r["stage"], r["measure"]) for r in rows} == {
        (s, k, m) for s in ("spatial", "temporal") for k in "1234" for m in ("cosine", "pearson")
    }
    # But for the video's compression, which hides most of what changes, they are one.
    least = {"spatial": 0.6, "temporal": 0.3}
    for r in rows:
        if r["kind"] == "positive" and r["emotion"] == "avg":
            assert float(r["value"]) > least[r["space"]]
    assert cv2.imread("fig.png").shape[1] > 600
    for wrong, words in (
        (["--figure", "fig.txt"], "must end in"),
        (["--pairs", "list.json"], "--pairs and --frames go together"),
    ):
        done = CliRunner().invoke(main, [*command, *wrong])
        assert done.exit_code == 2 and words in done.output


def test_both_commands_look_through_a_learnt_metric(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    record = {
        "backbone": backbone_record("compact-identity"),
        "forms": {"vd": FormSettings(contrast=ContrastSettings())},
    }
    heads = Heads(STAGES["compact-identity"])
    write_checkpoint(Path("mine.safetensors"), {"vd": heads}, record)
    source, target = map(str, folders)
    through = ["--aligned", "--metric", "mine.safetensors", "-q"]
    done = CliRunner().invoke(
        main, ["correlate", "--source", source, "--target", target, *through, "--windows", "1"]
    )
    assert done.exit_code == 0, done.output
    rows = list(csv.DictReader(Path("discovery.csv").read_text().splitlines()))
    assert {r["network"] for r in rows} == {"untrained", "mine"}
    done = CliRunner().invoke(main, ["correlate", *through, "--network", "mobilefacenet"])
    assert done.exit_code == 2 and "leave --network out" in done.output
    done = CliRunner().invoke(main, ["correlate", *through, "--form", "cm"])
    assert done.exit_code == 1 and "no form 'cm'" in done.output
    scores = []
    for more in ([], through[1:3]):
        done = CliRunner().invoke(
            main,
            [
                "score",
                "--source",
                source,
                "--generated",
                target,
                "--aligned",
                "-q",
                "-o",
                "s.csv",
                *more,
            ],
        )
        assert done.exit_code == 0, done.output
        found = csv.DictReader(Path("s.csv").read_text().splitlines())
        learnt = [r for r in found if r["metric"].lower() in ("scc", "tcc")]  # what 'mine' has
        scores.append([float(r["positive"]) for r in learnt])
    assert len(scores[0]) == 20
    assert np.abs(np.subtract(*scores)).min() > 1e-6
    record["forms"] = {"cm": FormSettings(contrast=ContrastSettings(form="cm"))}
    write_checkpoint(Path("other.safetensors"), {"cm": heads}, record)
    done = CliRunner().invoke(
        main,
        [
            "score",
            "--source",
            source,
            "--generated",
            target,
            "--aligned",
            "-q",
            "--metric",
            "other.safetensors",
        ],
    )
    assert done.exit_code == 1 and "neither form 'vd' nor 'ct'" in done.output


def test_correlate_on_a_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    content = {"M003": {"happy": {"001_001": [list(range(14)), list(range(14))]}}}
    Path("list.json").write_text(json.dumps(content))
    rng = np.random.default_rng(0)
    for emotion in ("neutral", "happy"):
        for i in range(14):
            path = Path(f"frames/M003/{emotion}/001/{i:06d}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), rng.integers(0, 255, (112, 112, 3), np.uint8))
    command = ["correlate", "--pairs", "list.json", "--frames", "frames", "--aligned", "-q"]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    assert "untrained" in done.stdout and Path("discovery.csv").is_file()
    Path("frames/M003/happy/001/000003.png").unlink()
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1 and "1 of 28 frames are absent" in done.output


def test_folders_that_cannot_be_paired(folders: tuple[Path, Path], tmp_path: Path) -> None:
    extractor = Extractor(
        profile_card("compact"), WeightsStore.locate(), FeatureStore(tmp_path), faces="aligned"
    )
    source, target = folders
    found = folder_pairs(source, target, PairExtractor(extractor))
    assert [p.speaker for p in found.pairs] == ["P001", "P003"] and found.lags == (3, 3)
    assert found.pairs[0].numbers[0].tolist() == [3, 0]
    with pytest.raises(ClipError, match="is no folder"):
        same_names(source, tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ClipError, match="2 videos have no counterpart"):
        same_names(source, tmp_path / "empty")
    with pytest.raises(ClipError, match="hold no videos"):
        same_names(tmp_path / "empty", tmp_path / "empty")
    (tmp_path / "empty" / "a_b.mp4").write_bytes(b"no video")
    with pytest.raises(CardError, match="no two clips to compare"):
        folder_pairs(tmp_path / "empty", tmp_path / "empty", PairExtractor(extractor))
    assert Clip(source / "P001_x.mp4").path.is_file()


def test_tables_have_no_minus_zero() -> None:
    row = DiscoveryRow(
        "untrained", "spatial", 4, "cosine", "positive", "avg", 0.5, 0.4, 0.6, 2, 9, 9
    )
    rows = [row, replace(row, kind="elsewhere", value=-1e-9), replace(row, kind="above wrong time")]
    text = reporting.table(rows)
    assert "-0.000" not in text and "+0.500 [+0.400, +0.600]" in text and "–" in text
    assert "0.500 / 0.000" in reporting.by_emotion(rows)
    assert reporting.to_csv(rows).splitlines()[0].startswith("network,space,stage,measure,kind")


def test_released_logs_run_over_channels() -> None:
    # By hand: at each position (1, 0, 0) against (0.6, 0.8, 0); channels in another order.
    x = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]]])
    y = torch.tensor([[[0.6, 0.8, 0.0], [0.0, 1.0, 0.0]]])
    positive, _ = released_logs(x, y, torch.Generator().manual_seed(0))
    assert positive == pytest.approx((0.6 + 1) / 2)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(0)).tolist()
    expected = (y[0, 0].tolist()[order[0]] + y[0, 1].tolist()[order[1]]) / 2
    assert released_logs(x, y, torch.Generator().manual_seed(0))[1] == pytest.approx(expected)
    # The negative is near 0 even of a picture with itself.
    same = torch.randn(2, 50, 256, generator=torch.Generator().manual_seed(1))
    assert abs(released_logs(same, same, torch.Generator())[1]) < 0.02


def test_size_of_the_pictures() -> None:
    big: Any = Big()
    pairs = [pair("A", "happy"), pair("B", "happy", seed=1)]
    rows, _ = discover(pairs, big, definition="released-logs", size=128)
    found = by_kind(rows, space="temporal", stage=4, measure="cosine", emotion="avg")
    assert found["positive"].frames == 2 * 3 * 9
