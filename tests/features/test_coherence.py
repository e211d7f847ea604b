"""SCC and TCC: dense arithmetic by hand, clips put in step, the store, heat-maps, bad input."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from spfem_bench.cli.main import main
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.clips import Clip, Edit
from spfem_bench.definitions.computing import Computing
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.networks import profile_card
from spfem_bench.errors import CardError, StcclError
from spfem_bench.execution.workers import workers_for
from spfem_bench.faces import crop
from spfem_bench.features import pair_extract
from spfem_bench.features.crops import Crops, find_lag, in_step
from spfem_bench.features.extract import Extractor
from spfem_bench.features.pair_content import ContentMaps
from spfem_bench.features.pair_extract import CROP, PairExtractor
from spfem_bench.features.pair_maps import CHUNK, PairMaps
from spfem_bench.features.requests import PairRequest, ensure, load_features
from spfem_bench.features.store import FeatureStore
from spfem_bench.media.write import write_clip
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets.clips import render_take
from spfem_bench.puppets.provider import demo_puppets
from spfem_bench.puppets.world import Take, World
from spfem_bench.reporting import heatmaps
from spfem_bench.statistics.base import kind_of
from spfem_bench.statistics.coherence import (
    WINDOWS,
    CoherenceKind,
    CoherencePart,
    CoherenceSpace,
    coherence_part,
)
from spfem_bench.stccl import dense
from spfem_bench.stccl.backbone import backbone
from spfem_bench.stccl.contrast import ContrastSettings, spatial_terms, temporal_terms
from spfem_bench.stccl.settings import ContentSettings

SPACES: tuple[CoherenceSpace, ...] = ("spatial", "temporal")


def maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# ---- dense arithmetic ---------------------------------------------------------------------


def test_spatial_by_hand() -> None:
    # One region in the middle of 3 x 3: (1, 0) in the source, (1, 1) in the output, 0 around.
    # Its eight disparities are (1, 0) and (1, 1): every cosine is 1 / sqrt(2).
    x, y = torch.zeros(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    x[0, :, 1, 1] = torch.tensor([1.0, 0.0])
    y[0, :, 1, 1] = torch.tensor([1.0, 1.0])
    found = dense.spatial(x, y)
    assert found.positive.shape == (1, 1, 1)
    for value in (found.positive, found.near, found.elsewhere):
        assert float(value) == pytest.approx(1 / math.sqrt(2))
    # Source disparities have the squares 1 and 0 in their two channels.
    assert float(found.size) == pytest.approx(math.sqrt(0.5))


def test_temporal_by_hand() -> None:
    # One region, three frames: the source goes (1, 0) then (0, 1); the output (1, 0) twice.
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])[:, :, None, None]
    y = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])[:, :, None, None]
    found = dense.temporal(x, y)
    assert found.positive.flatten().tolist() == [1.0, 0.0]
    # Other moments: source 1 with output 2 is alike (1), source 2 with output 1 is not (0).
    assert found.near.tolist() == [0.5, 0.5]
    assert found.elsewhere.isnan().all()  # there is no other region


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("size", [(3, 3), (5, 9), (7, 6)])
def test_dense_is_what_the_loss_says_of_all_positions(size: tuple[int, int], mapped: bool) -> None:
    x = maps(9, 6, *size)
    y = 0.5 * x + maps(9, 6, *size, seed=1)
    torch.manual_seed(0)
    head = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 3)) if mapped else None
    with torch.no_grad():
        found = dense.spatial(x, y, head)
        near = spatial_terms(x, y, ContrastSettings(), head=head)
        every = spatial_terms(x, y, ContrastSettings(spatial_negatives="positions"), head=head)
        assert torch.allclose(found.positive, near.per_region, atol=1e-6)
        assert float(found.near.mean()) == pytest.approx(float(near.negative), abs=1e-6)
        assert float(found.elsewhere.mean()) == pytest.approx(float(every.negative), abs=1e-6)
        in_time = dense.temporal(x, y, head)  # nine frames: two whole windows
        terms = temporal_terms(x[None], y[None], ContrastSettings(), head=head)
        assert torch.allclose(in_time.positive, terms.per_region[0], atol=1e-6)
        assert float(in_time.near.mean()) == pytest.approx(float(terms.negative), abs=1e-6)


def test_invariances() -> None:
    x, y = maps(3, 4, 6, 6), maps(3, 4, 6, 6, seed=1)
    constant = maps(1, 4, 1, 1, seed=2)
    for compare in (dense.spatial, dense.temporal):
        before, after = compare(x, y), compare(3 * x + constant, y)
        assert torch.allclose(before.positive, after.positive, atol=1e-5)
        assert torch.allclose(compare(x, x).positive, torch.ones(()), atol=1e-5)
        assert torch.allclose(compare(x, -x).positive, -torch.ones(()), atol=1e-5)
    # Every disparity is there with its reverse: elsewhere is all but 0 for any two pictures.
    assert dense.spatial(x, x).elsewhere.abs().max() < 0.02
    # Of centred channels a cosine is Pearson's correlation.
    a, b = x[0, :, 2, 2] - x[0, :, 2, 3], y[0, :, 2, 2] - y[0, :, 2, 3]
    cut = (slice(None), slice(None), slice(1, 4), slice(1, 5))
    pearson = np.corrcoef(a, b)[0, 1]
    ca, cb = (dense.centred(m)[0, :, 2, 2] - dense.centred(m)[0, :, 2, 3] for m in (x, y))
    assert float(torch.cosine_similarity(ca, cb, dim=0)) == pytest.approx(pearson, abs=1e-5)
    assert dense.spatial(x[cut], y[cut]).positive.shape == (3, 1, 2)


def test_what_does_not_change_counts_as_not_alike() -> None:
    x = maps(2, 4, 3, 3)
    still = x[:1].expand(2, -1, -1, -1)
    assert float(dense.temporal(x, still).positive.abs().max()) == 0.0


@pytest.mark.parametrize(
    ("x", "y", "words"),
    [
        (maps(2, 3, 4, 4), maps(3, 3, 4, 4), "differ in shape"),
        (maps(2, 3, 4, 4), maps(2, 3, 4, 4) * math.nan, "not finite"),
        (torch.ones(2, 3, 4, 4, dtype=torch.int64),) * 2 + ("type torch.int64",),
        (maps(2, 3, 2, 4), maps(2, 3, 2, 4), "larger than the map"),
    ],
)
def test_spatial_refuses(x: torch.Tensor, y: torch.Tensor, words: str) -> None:
    with pytest.raises(StcclError, match=words):
        dense.spatial(x, y)


def test_one_frame_has_no_change_in_time() -> None:
    with pytest.raises(StcclError, match="1 frame"):
        dense.temporal(maps(1, 3, 4, 4), maps(1, 3, 4, 4))


# ---- chunk by chunk -----------------------------------------------------------------------


class Tiny(nn.Module):
    """Two stages that are parts of the picture itself."""

    def stages(self, pictures: torch.Tensor) -> list[torch.Tensor]:
        if not pictures.is_floating_point():
            raise CardError("whole numbers")
        return [pictures[..., ::2, ::2], pictures[..., ::3, ::3]]


def compared(x: torch.Tensor, y: torch.Tensor, network: Any) -> dict[str, Any]:
    """Return the maps of two sequences of pictures, fed in chunks as clips are."""
    pair = PairMaps()
    with torch.inference_mode():
        for begin in range(0, max(1, len(x) - 1), CHUNK - 1):
            part = slice(begin, begin + CHUNK)
            pair.add(network.stages(x[part]), network.stages(y[part]), first=begin == 0)
    return pair.arrays()


def test_chunks_change_nothing() -> None:
    x, y = maps(70, 3, 12, 12), maps(70, 3, 12, 12, seed=1)
    found = compared(x, y, Tiny())
    for stage, step in ((1, 2), (2, 3)):
        a, b = x[..., ::step, ::step], y[..., ::step, ::step]
        for name, whole in (("scc", dense.spatial(a, b)), ("tcc", dense.temporal(a, b))):
            rows = torch.stack([whole.positive.mean((1, 2)), whole.elsewhere, whole.near], 1)
            assert np.allclose(found[f"{name}{stage}.frames"], rows, atol=1e-6, equal_nan=True)
            mean = whole.positive.mean(0)
            assert np.allclose(found[f"{name}{stage}.positive"], mean, atol=1e-6)


def test_pictures_that_cannot_be_compared() -> None:
    network = backbone("compact-identity", WeightsStore.locate())
    good = torch.zeros(2, 3, 112, 112)
    with pytest.raises(StcclError, match="differ in shape"):
        compared(good, good[:1], network)
    with pytest.raises(CardError, match="whole numbers"):
        compared(good.to(torch.uint8), good.to(torch.uint8), network)
    bad = good.clone()
    bad[1, 0, 50, 50] = math.nan
    with pytest.raises(StcclError, match="not finite"):
        compared(good, bad, network)
    alone = compared(good[:1], good[:1], network)
    assert "scc4.frames" in alone and "tcc4.frames" not in alone
    with pytest.raises(ValueError, match="no two adjacent frames"):
        coherence_part({**alone, "lag": np.array(0)}, "temporal", (1, 2, 3, 4))


# ---- components and aggregation -------------------------------------------------------------


def test_components_by_hand() -> None:
    nothing = math.nan
    arrays = {
        "lag": np.array(2),
        "scc1.frames": np.array([[0.5, 0.0, 0.1], [0.7, 0.2, 0.3]], np.float32),
        "scc2.frames": np.array([[0.9, 0.1, 0.2], [1.0, 0.1, 0.4]], np.float32),
        "tcc1.frames": np.array([[0.25, 0.0, nothing]], np.float32),
        "tcc2.frames": np.array([[0.75, 0.5, 0.125]], np.float32),
    }
    space = coherence_part(arrays, "spatial", (1, 2))
    assert space.positive == pytest.approx((0.6, 0.95))
    assert space.elsewhere == pytest.approx((0.1, 0.1))
    assert space.near == pytest.approx((0.2, 0.3))
    assert (space.n_frames, space.lag) == (2, 2)
    time = coherence_part(arrays, "temporal", (1, 2))
    assert (time.positive, time.near, time.n_frames) == ((0.25, 0.75), (None, 0.125), 1)
    # (0.6 + 0.95) / 2 = 0.775 and (0.25 + 0.75) / 2 = 0.5: items weigh the same.
    kind = CoherenceKind(kind="coherence", space="spatial")
    assert kind.score([space, time]).value == pytest.approx(0.6375)
    assert coherence_part(arrays, "spatial", (2,)).positive == pytest.approx((0.95,))
    with pytest.raises(ValueError, match="no stage 3"):
        coherence_part(arrays, "spatial", (3,))
    with pytest.raises(ValueError, match="no items"):
        kind.score([])
    assert CoherencePart((0.5, 1.0), (0, 0), (None, None), 1, 0).value == 0.75


def test_cards_of_coherence() -> None:
    for name, space in (("scc", "spatial"), ("tcc", "temporal")):
        card = metric_card(name)
        assert card.compare == ("output", "source")
        assert isinstance(card.statistic, CoherenceKind) and card.statistic.space == space
    card = metric_card("scc")
    content = {**card.model_dump(), "path": card.path}
    for change in ({"role": "expression"}, {"output": "embedding"}):
        with pytest.raises(ValueError, match="output 'stages' of an identity network"):
            type(card).model_validate({**content, **change})


# ---- in step ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def puppet_world() -> World:
    settings = dataset_card("puppets").world
    assert settings is not None
    return World(settings.version, settings.seed, settings.size)


def crops_of(take: Take, frames: range) -> Crops:
    pictures = [crop.arcface(take.frame(i), None, CROP) for i in frames]
    return Crops(np.stack(pictures), np.arange(len(frames)), len(frames))


def test_the_lag_of_a_shifted_clip_is_found(puppet_world: World) -> None:
    whole = crops_of(puppet_world.take("P001", "neutral", "029"), range(30))
    noise = np.random.default_rng(0)

    def part(begin: int, end: int) -> Crops:
        grain = noise.normal(0, 3, whole.pictures[begin:end].shape)
        pictures = np.clip(whole.pictures[begin:end] + grain, 0, 255).astype(np.uint8)
        return Crops(pictures, np.arange(end - begin), end - begin)

    source = part(4, 26)
    for lag in (-3, -1, 0, 2, 4):
        # Frame t of the output is frame t + lag of the source.
        step = find_lag(source, part(4 + lag, 26), 6)
        assert step.lag == lag
        assert np.nanargmax(step.curve) == lag + 6
    assert find_lag(source, part(6, 26), 0).lag == 0
    rows = in_step(source, part(6, 26), 2)
    assert rows.tolist() == [[i, i + 2] for i in range(20)]


def test_no_motion_is_no_lag() -> None:
    still = Crops(np.full((8, 112, 112, 3), 90, np.uint8), np.arange(8), 8)
    step = find_lag(still, still, 3)
    assert step.lag == 0 and np.isnan(step.curve).all()
    one = Crops(still.pictures[:1], np.arange(1), 1)
    assert find_lag(one, one, 3).lag == 0


def test_rows_keep_to_frames_that_both_have() -> None:
    pictures = np.zeros((3, 112, 112, 3), np.uint8)
    source = Crops(pictures, np.array([0, 1, 4]), 5)
    generated = Crops(pictures, np.array([1, 2, 3]), 5)
    assert in_step(source, generated, 0).tolist() == [[0, 1]]
    assert in_step(source, generated, 1).tolist() == [[2, 2]]


# ---- clips --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(puppet_world: World, tmp_path_factory: pytest.TempPathFactory) -> list[Clip]:
    """Two puppets' recordings of 36 frames, and the same with their mouth frozen."""
    folder = tmp_path_factory.mktemp("clips")
    found = []
    for name in ("P001", "P003"):
        take = puppet_world.take(name, "neutral", "029")
        path = folder / f"{name}_a.mp4"
        write_clip(path, iter([take.frame(i) for i in range(36)]), take.sound()[: 36 * 640])
        found.append(Clip(path))
    return [c for clip in found for c in (clip, replace(clip, edit=Edit("frozen-mouth", 1)))]


@pytest.fixture
def scorer(tmp_path: Path) -> Callable[..., PairExtractor]:
    def make(store: str = "store", **changes: Any) -> PairExtractor:
        extractor = Extractor(
            profile_card("compact"),
            WeightsStore.locate(),
            FeatureStore(tmp_path / store),
            faces="aligned",
            **changes,
        )
        return PairExtractor(extractor)

    return make


def wants(clips: list[Clip]) -> list[tuple[Clip, PairRequest]]:
    a, frozen_a, b, frozen_b = clips
    return [
        (a, PairRequest(a)),
        (frozen_a, PairRequest(a)),
        (frozen_b, PairRequest(b)),
        (b, PairRequest(a)),
    ]


def test_batches_workers_and_company_move_nothing(
    clips: list[Clip], scorer: Callable[..., PairExtractor]
) -> None:
    asked = wants(clips)
    first = scorer("all")
    assert first.ensure(asked) == {}
    for other in (scorer("small", batch_size=7), scorer("alone")):
        for want in asked:  # each by itself, in batches of its own
            assert other.ensure([want]) == {}
            ours, theirs = first.load(*want), other.load(*want)
            assert ours is not None and theirs is not None and ours.keys() == theirs.keys()
            for name in ours:
                assert np.allclose(ours[name], theirs[name], atol=2e-5, equal_nan=True), name
    spread = scorer("workers")
    by_clip = {clip: frozenset({request}) for clip, request in asked}
    with workers_for(Computing(workers=2)) as team:
        assert team.compute(spread.extractor, by_clip) == {}
    for want in asked[1:]:
        ours, theirs = first.load(*want), spread.load(*want)
        assert ours is not None and theirs is not None
        for name in ours:
            assert np.allclose(ours[name], theirs[name], atol=2e-5, equal_nan=True), name


def test_a_second_run_computes_no_network(
    clips: list[Clip], scorer: Callable[..., PairExtractor], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = wants(clips)[1:3]
    scorer().ensure(asked[:1])  # killed after the first

    seen: list[int] = []
    load = pair_extract.backbone

    def counted(*arguments: Any, **options: Any) -> Any:
        seen.append(1)
        return load(*arguments, **options)

    monkeypatch.setattr(pair_extract, "backbone", counted)
    scorer().ensure(asked[:1])
    assert not seen
    scorer().ensure(asked)
    assert seen == [1]
    scorer().ensure(asked)
    assert seen == [1]


def test_scores_of_known_pairs(clips: list[Clip], scorer: Callable[..., PairExtractor]) -> None:
    itself, frozen, _, other = wants(clips)
    work = scorer()
    work.ensure([itself, frozen, other])

    def score(want: tuple[Clip, PairRequest], space: CoherenceSpace) -> float:
        arrays = work.load(*want)
        assert arrays is not None
        return coherence_part(arrays, space, (1, 2, 3, 4)).value

    assert score(itself, "spatial") == pytest.approx(1, abs=1e-5)
    assert score(itself, "temporal") > 0.99  # but for regions that stand still
    assert score(other, "spatial") + 0.2 < score(frozen, "spatial") < 0.98
    assert score(other, "temporal") + 0.2 < score(frozen, "temporal") < 0.9


def test_heat_maps_peak_where_the_mouth_was_frozen(
    clips: list[Clip], scorer: Callable[..., PairExtractor], tmp_path: Path
) -> None:
    work = scorer()
    for want in wants(clips)[1:3]:
        work.ensure([want])
        arrays = work.load(*want)
        assert arrays is not None
        for space in ("spatial", "temporal"):
            heat = heatmaps.breaks(arrays, space, (1, 2, 3, 4))  # type: ignore[arg-type]
            assert heat.shape == (112, 112) and heat.min() >= 0 and heat.max() <= 2
            y, x = np.unravel_index(heat.argmax(), heat.shape)
            # The ellipse that faces.edits freezes in an aligned picture.
            assert math.hypot((x / 112 - 0.5) / 0.34, (y / 112 - 0.76) / 0.26) < 1
            away = heat[: 112 // 3]
            assert heat.max() > 2 * away.max()
        one = heatmaps.Scored("clip", arrays, (1, 2, 3, 4))
        rows = arrays["rows"]
        x_crops, y_crops = work.crops(want[1].other), work.crops(want[0])
        heatmaps.save_heatmap(
            one, x_crops.pictures[rows[:, 1]], y_crops.pictures[rows[:, 0]], tmp_path / "a.png"
        )
        assert (tmp_path / "a.png").stat().st_size > 20_000
        regions = list(heatmaps.region_rows([one]))
        # Interiors of 56, 28, 14 and 7 in space, whole maps in time.
        inner, whole = (54, 26, 12, 5), (56, 28, 14, 7)
        assert len(regions) == sum(n * n for n in (*inner, *whole))
        assert 0 < min(r["x"] for r in regions) < max(r["x"] for r in regions) < 112


def test_half_precision_is_near_and_kept_apart(
    clips: list[Clip], scorer: Callable[..., PairExtractor]
) -> None:
    want = wants(clips)[1]
    full = scorer()
    half = replace(full, extractor=replace(full.extractor, precision="bfloat16"))
    full.ensure([want])
    assert half.load(*want) is None
    half.ensure([want])
    a, b = full.load(*want), half.load(*want)
    assert a is not None and b is not None
    for space in ("spatial", "temporal"):
        one, two = (
            coherence_part(v, space, (1, 2, 3, 4)).value  # type: ignore[arg-type]
            for v in (a, b)
        )
        assert one == pytest.approx(two, abs=0.05)
    with pytest.raises(CardError, match="float16 is not for the processor"):
        replace(full.extractor, precision="float16")
    with pytest.raises(CardError, match=r"no precision 'half'\. Allowed: float32"):
        replace(full.extractor, precision="half")


# ---- the commands -------------------------------------------------------------------------


@pytest.fixture
def folders(clips: list[Clip], puppet_world: World, tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    source, generated = tmp_path / "source", tmp_path / "generated"
    for folder in (source, generated):
        folder.mkdir()
        (folder / "P001_a.mp4").write_bytes(clips[0].path.read_bytes())
    yield source, generated


def test_score_writes_all_it_promises(folders: tuple[Path, Path], tmp_path: Path) -> None:
    source, generated = folders
    done = CliRunner().invoke(
        main,
        [
            "score",
            "--source",
            str(source),
            "--generated",
            str(generated),
            "--aligned",
            "-q",
            "-o",
            str(tmp_path / "scores.csv"),
            "--regions",
            str(tmp_path / "regions.json"),
            "--heatmaps",
            str(tmp_path / "maps"),
        ],
    )
    assert done.exit_code == 0, done.output
    assert "1.000" in done.output and "+0" in done.output
    rows = list(csv.DictReader((tmp_path / "scores.csv").open()))
    assert [r["stage"] for r in rows] == ["mean", "1", "2", "3", "4"] * 3
    assert [r["metric"] for r in rows[::5]] == ["scc", "tcc", "sct"]
    assert float(rows[10]["positive"]) == pytest.approx(1, abs=1e-5)
    assert float(rows[0]["positive"]) == pytest.approx(1, abs=1e-5)
    regions = json.loads((tmp_path / "regions.json").read_text())
    assert {r["metric"] for r in regions} == {"scc", "tcc"}
    assert (tmp_path / "maps" / "P001_a.png").is_file()


def test_score_says_what_it_cannot_use(
    folders: tuple[Path, Path], puppet_world: World, tmp_path: Path
) -> None:
    source, generated = folders

    def run(*more: str) -> Any:
        command = ["score", "--source", str(source), "--generated", str(generated), "--aligned"]
        return CliRunner().invoke(main, [*command, "-q", *more])

    take = puppet_world.take("P003", "neutral", "029")
    write_clip(source / "b.mp4", iter([take.frame(i) for i in range(14)]), take.sound()[: 14 * 640])
    done = run()
    assert done.exit_code == 1 and "1 videos have no counterpart" in done.stderr
    write_clip(generated / "b.mp4", iter([take.frame(i) for i in range(4)]), take.sound()[:2560])
    done = run()  # one clip is scored, the other named
    assert done.exit_code == 2
    assert "has 4 frames" in done.stderr and "has 14" in done.stderr
    assert "P001_a" in done.stdout
    assert run().exit_code == 2  # from the store too
    assert run("-o", "scores.txt").exit_code == 2
    assert run("--precision", "float16").exit_code == 1
    assert run("--metric", "nobody").exit_code == 1
    assert run("--metric", "puppets-ct", "--heatmaps", str(tmp_path)).exit_code == 2


def test_eval_knows_both_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cards, data = tmp_path / "cards", DataFolders.locate()
    (cards / "protocols").mkdir(parents=True)
    (cards / "protocols/two.toml").write_text(
        """
title = "Two puppets"
version = 1
setting = "inter-id"
dataset = "puppets"
items = "two.csv"
emotions = ["happy"]
metrics = ["csim"]
on_request = ["scc", "tcc"]
faces = "aligned"
profile = "compact"
description = "x"
[clips]
source = "{speaker}/neutral/1.00/029.mp4"
reference = "{speaker}/happy/1.00/029.mp4"
real = "{speaker}/happy/1.00/029.mp4"
"""
    )
    (cards / "protocols/two.csv").write_text("id,speaker,emotion\na,P007,happy\nb,P009,happy\n")
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(cards))
    provider = demo_puppets(data)
    world, folder = provider.world, provider.folder
    for name in ("P007", "P009"):  # drawn: of the shipped clips, some regions stand still
        render_take(world, folder, f"{name}/neutral/1.00/029.mp4")
    command = ["eval", "--protocol", "two", "--method", "source", "-q", "--json"]
    done = CliRunner().invoke(main, [*command, "--metrics", "scc,tcc"])
    assert done.exit_code == 0, done.output
    scores = {(s["metric"], s["emotion"]): s for s in json.loads(done.stdout)}
    assert scores["scc", "avg"]["value"] == pytest.approx(1, abs=1e-5)
    assert scores["tcc", "avg"]["value"] > 0.99
    assert scores["scc", "avg"]["n_frames"] == scores["tcc", "avg"]["n_frames"] + 2
    assert "scc:1|two:1|compact|compact-identity@" in scores["scc", "avg"]["signature"]
    record = json.loads((tmp_path / "results/two/source.compact.json").read_text())
    assert record["items"][0]["metrics"]["scc"]["lag"] == 0
    assert len(record["items"][0]["metrics"]["tcc"]["positive"]) == 4
    # The protocol's card does not name it, but has the clips that it compares.
    done = CliRunner().invoke(main, [*command, "--metrics", "fad"])
    assert done.exit_code == 0 and '"metric": "fad"' in done.output


# ---- real clips ---------------------------------------------------------------------------


def test_real_strips_are_put_in_step_and_exceed_another_speaker(
    samples: Path, weights_folder: Path, tmp_path: Path
) -> None:
    work = PairExtractor(
        Extractor(
            profile_card("light"), WeightsStore.locate(weights_folder), FeatureStore(tmp_path)
        )
    )

    def column(strip: str, number: int) -> Clip:
        path = samples / f"stccl-page/video_result/{strip}.mp4"
        return Clip.parse(f"{path}#xywh={256 * number},0,256,256&t=0,1.2")

    source = column("M003_source_sad_033", 0)
    outputs = {
        "vd": column("M003_source_sad_033", 2),
        "ned": column("M003_source_sad_033", 4),
        "other speaker": column("W015_source_sad_028", 0),
    }
    assert work.ensure([(clip, PairRequest(source)) for clip in outputs.values()]) == {}
    found: dict[tuple[str, str], CoherencePart] = {}
    for name, clip in outputs.items():
        arrays = work.load(clip, PairRequest(source))
        assert arrays is not None
        for space in SPACES:
            found[name, space] = coherence_part(arrays, space, (1, 2, 3, 4))
            assert max(abs(v) for v in found[name, space].elsewhere) <= 0.03
    # Two frames at the strip's 30 a second are 1.7 at 25.
    assert {found["vd", "spatial"].lag, found["ned", "spatial"].lag} <= {1, 2}
    for space in SPACES:
        vd, ned, other = (found[name, space].value for name in outputs)
        assert min(vd, ned) > other + (0.2 if space == "spatial" else 0.03)


# ---- content ------------------------------------------------------------------------------


def moments_by_hand(maps: np.ndarray[Any, Any], grid: int) -> np.ndarray[Any, Any]:
    """Return unit vectors (T, D) of maps (T, C, H, W) whose sides *grid* divides."""
    pooled = []
    for frame in maps:
        down, right = (side // grid for side in frame.shape[1:])
        cells = [
            frame[:, i * down : (i + 1) * down, j * right : (j + 1) * right].mean((1, 2))
            for i in range(grid)
            for j in range(grid)
        ]
        pooled.append(np.concatenate(cells))
    vectors = np.array(pooled)
    vectors -= vectors.mean(0)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("chunk", [1, 7, 40])
def test_content_is_what_numpy_says_of_each_window(chunk: int) -> None:
    # 23 consecutive frames: windows of 11 begin with frames 0, 4, 8, 12; then 12: one, and a rest.
    settings = ContentSettings(every=2, apart=4, grid=2)
    x, y = maps(35, 3, 4, 6), maps(35, 3, 4, 6, seed=1)
    y = 0.7 * x + y
    found = ContentMaps(settings, 11, 4)
    for begin, end in ((0, 23), (23, 35)):
        first = begin
        while begin < end:
            new = slice(begin if begin == first else begin - 1, min(begin + chunk, end))
            found.add([x[new]], [y[new]], first=begin == first)
            begin += chunk
    expected = []
    for start in (0, 4, 8, 12, 23):
        frames = slice(start, start + 11, 2)
        a, b = (moments_by_hand(m[frames].double().numpy(), 2) for m in (x, y))
        cosines = b @ a.T
        # Moments are frames 0, 2, 4, ...: other ones are two or more away in their order.
        away = np.abs(np.subtract.outer(np.arange(6), np.arange(6))) >= 2
        expected.append([np.diag(cosines).mean(), cosines[away].mean()])
    rows = found.arrays()["sct1.frames"]
    assert rows[:, :2] == pytest.approx(np.array(expected), abs=1e-5)
    part = coherence_part({"sct1.frames": rows, "lag": np.array(0)}, "content", (1,))
    assert part.value == pytest.approx(np.mean(expected, 0)[0], abs=1e-5)
    assert part.elsewhere == pytest.approx((np.mean(expected, 0)[1],), abs=1e-5)
    assert (part.near, part.n_frames) == ((None,), 5)
    short = ContentMaps(settings, 11, 4)
    short.add([x[:10]], [y[:10]], first=True)
    with pytest.raises(ValueError, match="long enough"):
        coherence_part({**short.arrays(), "lag": np.array(0)}, "content", (1,))


@pytest.mark.parametrize("learned", ["", "puppets-ct"])
def test_content_of_known_pairs(
    clips: list[Clip], scorer: Callable[..., PairExtractor], learned: str
) -> None:
    card, work = metric_card("sct"), scorer()
    kind = kind_of(card).model_copy(update={"learned": learned})
    a, frozen, other, _ = clips

    def score(output: Clip) -> float:
        [want] = kind.requests(card, {"output": [output], "source": [a]})["output"]
        assert ensure(work.extractor, {want[0]: frozenset({want[1]})}, work) == {}
        features = load_features(work.extractor, *want, {})
        part = kind.part(card, output, {"output": [features]})
        assert max(part.elsewhere) < (0 if output == a else 0.1) and part.n_frames == 1
        return float(kind.value(part))

    shuffled = replace(a, edit=Edit("time-shuffled", 36))
    assert score(a) == pytest.approx(1, abs=1e-5)
    assert score(shuffled) < 0.1
    assert score(frozen) < (0.4 if learned else 0.97)
    # It is another puppet that says the same: heads learnt for content hear that.
    assert score(other) > 0.5 if learned else score(other) < 0.1


def test_regions_and_moments_of_two_clips_are_one_pass(
    clips: list[Clip], scorer: Callable[..., PairExtractor], monkeypatch: pytest.MonkeyPatch
) -> None:
    both, alone, frozen = scorer("both"), scorer("alone"), clips[1]
    wanted = [PairRequest(clips[0]), PairRequest(clips[0], windows=WINDOWS)]
    seen: list[int] = []
    compare = PairExtractor._compare

    def counted(self: PairExtractor, clip: Clip, requests: Any, **options: Any) -> None:
        seen.append(len(requests))
        compare(self, clip, requests, **options)

    monkeypatch.setattr(PairExtractor, "_compare", counted)
    assert both.ensure([(frozen, one) for one in wanted]) == {}
    for one in wanted:
        assert alone.ensure([(frozen, one)]) == {}
        ours, theirs = both.load(frozen, one), alone.load(frozen, one)
        assert ours is not None and theirs is not None and ours.keys() == theirs.keys()
        for name in ours:
            assert np.allclose(ours[name], theirs[name], atol=2e-5, equal_nan=True), name
    assert seen == [2, 1, 1]


@pytest.mark.parametrize(
    ("name", "learned", "form"), [("scc", "puppets-ct", "vd"), ("sct", "puppets", "ct")]
)
def test_a_learnt_metric_without_the_form_is_refused(name: str, learned: str, form: str) -> None:
    card = metric_card(name)
    kind = kind_of(card).model_copy(update={"learned": learned})
    with pytest.raises(StcclError, match=f"'{learned}' has no form '{form}'"):
        kind.network(card, profile_card("compact"))
