"""Metrics in a training loop give the command line's numbers, in one process and in two."""

from __future__ import annotations

import copy
import math
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import spfem_bench
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import InnerInput, profile_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.errors import CardError, ClipError, SpfemBenchError, WeightsError
from spfem_bench.evaluation.plan import make_plan
from spfem_bench.media import audio, video
from spfem_bench.networks.weights import WeightsStore
from tests.conftest import ROOT, World

torchmetrics = pytest.importorskip("torchmetrics")

from spfem_bench.torch_metrics import (  # noqa: E402
    ClipMetric,
    ExpressionSimilarity,
    FrechetArcFaceDistance,
    LipCorrelation,
    LipSyncError,
    ScoreHooks,
    SpatialCoherence,
    log_scores,
)
from spfem_bench.torch_metrics.tensors import (  # noqa: E402
    MemoryStore,
    TensorClip,
    TensorExtractor,
    pictures,
)

CLASSES: dict[str, tuple[type[ClipMetric], str]] = {
    "fad": (FrechetArcFaceDistance, "real"),
    "csim": (ExpressionSimilarity, "reference"),
    "lse-d": (LipSyncError, "sound"),
    "lip-corr": (LipCorrelation, "source"),
    "scc": (SpatialCoherence, "source"),
    # other cards of the same kinds
    "id-sim": (ExpressionSimilarity, "source"),
    "lse-c": (LipSyncError, "sound"),
    "tcc": (SpatialCoherence, "source"),
    "sct": (SpatialCoherence, "source"),
}

Item = dict[str, Tensor]


@dataclass(frozen=True)
class Scored:
    """Items of one emotion as tensors, and what the command line says of them."""

    items: list[Item]
    values: dict[str, float]
    signatures: dict[str, str]


def decoded(clip: Clip) -> Tensor:
    return torch.from_numpy(np.stack(list(video.frames(clip)))).permute(0, 3, 1, 2)


def scored(method: str, name: str, profile: str, metrics: list[str], emotion: str) -> Scored:
    """Score a method as the command line does, and decode the clips of one emotion."""
    listed, weights = protocol(name), WeightsStore.locate()
    plan = make_plan(
        method,
        listed,
        profile_card(profile),
        data=DataFolders.locate(None),
        weights=weights,
        metrics=metrics,
    )
    run = spfem_bench.evaluate(method, name, profile=profile, metrics=metrics)
    items = []
    for planned in plan.items:
        if planned.item.emotion == emotion:
            item = {role: decoded(clip) for role, clip in planned.clips.items()}
            item["generated"] = item.pop("output")
            item["sound"] = torch.from_numpy(audio.samples(planned.clips["output"]).copy())
            items.append(item)
    rows = [s for s in run.record.scores if s.emotion == emotion]
    values = {s.metric: s.value for s in rows if s.value is not None}
    return Scored(items, values, {s.metric: s.signature for s in rows})


@pytest.fixture(scope="module")
def demo(demo_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """Two items of the demo, with their references in the place of outputs."""
    cards = tmp_path_factory.mktemp("cards")
    (cards / "protocols").mkdir()
    card = (builtin_folder() / "protocols/demo-inter-id.toml").read_text(encoding="utf-8")
    card = card.replace('"demo-inter-id.csv"', '"two.csv"')
    card = re.sub("(?m)^emotions = .*$", 'emotions = ["angry"]', card)
    (cards / "protocols/two.toml").write_text(card, encoding="utf-8")
    head, *lines = (builtin_folder() / "protocols/demo-inter-id.csv").read_text().splitlines()
    chosen = [line for line in lines if ",angry," in line][:2]
    (cards / "protocols/two.csv").write_text("\n".join([head, *chosen]) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPFEM_BENCH_CARDS", str(cards))
        patch.setenv("SPFEM_BENCH_CACHE", str(demo_cache))
        return scored("reference", "two", "compact", list(CLASSES), "angry")


def filled(name: str, items: list[Item], profile: str = "compact", **options: Any) -> ClipMetric:
    """Return a metric that has taken up items one by one."""
    kind, other = CLASSES[name]
    metric = kind(profile, metric=name, **options)
    for item in items:
        metric.update(item["generated"], item[other])
    return metric


def same_but_decoded(ours: str, theirs: str) -> bool:
    """Whether two signatures differ in where frames come from alone."""
    first, second = (text.split("|")[:-1] for text in (ours, theirs))
    assert first[1] == "frames:tensors"
    return first[:1] + first[2:] == [p for p in second[:1] + second[2:] if "ffmpeg" not in p]


@pytest.mark.parametrize("name", CLASSES)
def test_values_are_those_of_the_command_line(name: str, demo: Scored) -> None:
    metric = filled(name, demo.items)
    assert float(metric.compute()) == pytest.approx(demo.values[name], rel=1e-6, abs=1e-9)
    assert abs(demo.values[name]) > 0.001
    assert metric.n_clips == len(demo.items) * (2 if name == "fad" else 1)
    assert same_but_decoded(metric.signature(), demo.signatures[name])


def test_floats_lists_batches_and_order_change_nothing(demo: Scored) -> None:
    one_by_one = filled("fad", demo.items)
    length = min(len(item[role]) for item in demo.items for role in ("generated", "real"))
    cut = [{r: frames[:length] for r, frames in item.items()} for item in demo.items]
    listed = FrechetArcFaceDistance("compact", value_range=(-1, 1))
    listed.update(
        [item["generated"].float() / 127.5 - 1 for item in demo.items],
        [item["real"].double() / 127.5 - 1 for item in reversed(demo.items)],
    )
    assert float(listed.compute()) == pytest.approx(float(one_by_one.compute()), rel=1e-9)
    assert listed.signature() == one_by_one.signature()
    batch = FrechetArcFaceDistance("compact")
    batch.update(*(torch.stack([item[role] for item in cut]) for role in ("generated", "real")))
    assert float(batch.compute()) == pytest.approx(float(filled("fad", cut).compute()), rel=1e-9)
    assert batch.signature() != one_by_one.signature()  # other real frames


def test_reset_copies_and_pickles_begin_anew(demo: Scored) -> None:
    metric = filled("id-sim", demo.items[:1])
    first = float(metric.compute())
    twin = pickle.loads(pickle.dumps(copy.deepcopy(metric)))  # noqa: S301
    metric.update(demo.items[1]["generated"], demo.items[1]["source"])
    assert float(metric.compute()) != first
    metric.reset()
    with pytest.raises(SpfemBenchError, match="Call compute"):
        metric.signature()
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert math.isnan(float(metric.compute()))
    for one in (metric, twin):
        one.reset()
        one.update(demo.items[0]["generated"], demo.items[0]["source"])
        assert float(one.compute()) == first
    signed = metric.signature()
    for dtype in (torch.float16, torch.bfloat16, torch.float64):  # 56 bits of hash fit in none
        assert metric.set_dtype(dtype).compute() == first and metric.signature() == signed
    assert metric.values[0].dtype == torch.float64
    batch = metric(demo.items[1]["generated"], demo.items[1]["source"])  # forward: of this batch
    assert float(metric.compute()) == pytest.approx((first + float(batch)) / 2)


OTHER_PROCESS = """
import sys
import torch
from tests.torch_metrics.test_torch_metrics import joined
joined(1, torch.load(sys.argv[1]), sys.argv[2])
"""


def joined(rank: int, items: list[Item], meeting: str) -> dict[str, tuple[float, str]]:
    """Score the second process's share of items, or the first's, joined with the other's."""
    torch.distributed.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=2)
    try:
        scores = {}
        for name in ("fad", "csim", "lse-d"):
            share = items[1:] if rank else items[:1]
            if name == "lse-d":  # one of them has no clip
                share = [] if rank else items
            metric = filled(name, share)
            scores[name] = float(metric.compute()), metric.signature()
        return scores
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:The ``compute`` method:UserWarning")
def test_two_processes_equal_one(demo: Scored, tmp_path: Path) -> None:
    torch.save(demo.items, tmp_path / "items.pt")
    meeting = str(tmp_path / "meeting")
    command = [sys.executable, "-c", OTHER_PROCESS, str(tmp_path / "items.pt"), meeting]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as other:
        scores = joined(0, demo.items, meeting)
        assert other.wait(60) == 0, other.stderr.read() if other.stderr else ""
    for name, (value, signature) in scores.items():
        metric = filled(name, demo.items)
        assert value == pytest.approx(float(metric.compute()), rel=1e-9)
        assert signature == metric.signature()


# ---- real faces -----------------------------------------------------------------------------


def test_a_real_strip_in_the_light_profile(
    world: World, common_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole frames: faces are found in tensors as in decoded clips, once for all metrics."""
    for name, value in world.environment(common_cache).items():
        monkeypatch.setenv(name, value)
    cards = shutil.copytree(world.cards, tmp_path / "cards")
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(cards))
    head, *lines = (cards / "protocols/mini.csv").read_text().splitlines()
    [line] = [line for line in lines if "M003" in line]
    (cards / "protocols/mini.csv").write_text(f"{head}\n{line}\n")
    card = (cards / "protocols/mini.toml").read_text().replace('"happy", "sad"', '"sad"')
    (cards / "protocols/mini.toml").write_text(card)
    names = ["fad", "lse-d"]
    strip = scored("stccl-ned", "mini", "mini", names, "sad")
    metrics = {name: filled(name, strip.items, "mini") for name in names}
    for name, metric in metrics.items():
        assert float(metric.compute()) == pytest.approx(strip.values[name], rel=1e-6)
        assert same_but_decoded(metric.signature(), strip.signatures[name])
    assert len({id(metric._extractor) for metric in metrics.values()}) == 1


# ---- rates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [30, 50, 24, 12.5, 29.97])
def test_frames_of_other_rates_are_chosen_as_ffmpeg_does(rate: float, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(47):
        cv2.imwrite(str(folder / f"{i:03}.png"), np.full((16, 16, 3), 5 * i, np.uint8))
    ours = pictures(
        torch.arange(0, 235, 5, dtype=torch.uint8)[:, None, None, None].expand(47, 3, 16, 16),
        "numbered",
        None,
        rate,
    )
    theirs = np.stack(list(video.frames(Clip.parse(f"{folder}#fps={rate}"))))
    assert ours[:, 0, 0, 0].tolist() == theirs[:, 0, 0, 0].tolist()


def test_the_papers_networks_take_sound_as_their_scripts_load_it() -> None:
    """Floats, or floats rounded to 16 bits, as the card says; and 30 pictures a second."""
    clip, whole = Clip(Path("a clip")), np.array([-16384, 0, 8192] * 800, np.int16)
    x = TensorExtractor(profile_card("papers"), WeightsStore(), MemoryStore(), faces="aligned")
    contract = x.profile.network("sync").input
    assert isinstance(contract, InnerInput)
    expected = {"float": whole / 32768, "int16": whole}[contract.sound]
    for sound in (whole, (whole / 32768).astype(np.float32)):
        x.clips[clip] = TensorClip(np.zeros((5, 256, 256, 3), np.uint8), sound, 30.0)
        taken = x.sound(clip, clip)
        np.testing.assert_array_equal(taken, expected)
        assert taken.dtype == {"float": np.float32, "int16": np.int16}[contract.sound]
    x.clips[clip] = TensorClip(np.zeros((5, 256, 256, 3), np.uint8), whole, 25.0)
    with pytest.raises(ClipError, match="25 pictures a second, but lip sync takes 30"):
        x.sound(clip, clip)


# ---- bad input ------------------------------------------------------------------------------

GREY = torch.full((30, 3, 96, 96), 128, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("generated", "real", "says"),
    [
        (GREY.float(), GREY, r"no value_range is given\. Say what"),
        (GREY.int(), GREY, r"generated\[0\] has the type torch.int32"),
        (GREY[0], GREY, r"generated has the shape \(3, 96, 96\)\. Give \(T, 3, H, W\)"),
        (GREY.permute(0, 2, 3, 1), GREY, r"has the shape \(30, 96, 96, 3\)\. Give RGB"),
        (GREY, [GREY, None], "real: NoneType, Tensor, not tensors"),
        (GREY[:0], GREY, r"generated has the shape \(0, 3"),
    ],
)
def test_wrong_tensors_are_one_line(generated: Any, real: Any, says: str) -> None:
    with pytest.raises(SpfemBenchError, match=says):
        FrechetArcFaceDistance("compact").update(generated, real)


def test_wrong_ranges_numbers_and_sounds_are_one_line() -> None:
    metric = FrechetArcFaceDistance("compact", value_range=(0, 1))
    for frames, says in (
        (GREY.float(), "values from 128 to 128, value_range is"),
        (torch.full(GREY.shape, math.nan), "values from nan to nan"),
        (GREY.float() / -128, "values from -1 to -1"),
    ):
        with pytest.raises(ClipError, match=says):
            metric.update(frames, GREY)
    ramp = torch.linspace(0, 1, GREY.numel()).reshape(GREY.shape)
    with pytest.raises(ClipError, match=r"values from 0 to 1, value_range is \(0, 255\)"):
        FrechetArcFaceDistance("compact", value_range=(0, 255)).update(ramp, GREY)
    with pytest.raises(SpfemBenchError, match="2 generated clips and 1 references"):
        ExpressionSimilarity("compact").update([GREY, GREY], GREY)
    sync = LipSyncError("compact")
    for sound, says in (
        (torch.zeros(48_000 * 6 // 5), "lasts 3.60 s at 16,000"),
        (torch.zeros(19_200), "silent"),
        (torch.full((19_200,), 3e4), "values up to 3e"),
        (torch.full((19_200,), math.nan), "values up to nan"),
    ):
        with pytest.raises(ClipError, match=says):
            sync.update(GREY, sound)


def test_what_a_class_cannot_compute_is_said_when_it_is_made(
    tmp_path: Path, weights_folder: Path
) -> None:
    with pytest.raises(CardError, match=r"ExpressionSimilarity does not compute 'fad'"):
        ExpressionSimilarity("compact", metric="fad")
    with pytest.raises(CardError, match="does not compute 'csim-papers'"):
        ExpressionSimilarity("papers")
    with pytest.raises(CardError, match="has no detector"):
        FrechetArcFaceDistance("compact", faces="detect")
    for wrong, says in (
        ({"fps": 0}, r"fps=0\. Give frames"),
        ({"value_range": (1, 0)}, r"value_range=\(1, 0\)\. Give \(low"),
        ({"batch_size": 0}, r"batch_size=0\. Give 1"),
    ):
        with pytest.raises(SpfemBenchError, match=says):
            FrechetArcFaceDistance("compact", **wrong)
    with pytest.raises(SpfemBenchError, match="written and read again"):
        LipSyncError("official-compat")
    with pytest.raises(WeightsError, match=r"'arcface-r50' are missing.*networks fetch"):
        FrechetArcFaceDistance("official", weights_dir=tmp_path)


def test_clips_that_cannot_be_scored_are_refused_or_counted(demo: Scored) -> None:
    item, still = demo.items[0], GREY.expand(30, 3, 96, 96)
    whole = LipCorrelation("compact")
    with pytest.raises(ClipError, match=r"update 1, generated\[1\].*or give partial=True"):
        whole.update([item["generated"], still], [item["source"], still])
    metric = LipCorrelation("compact", partial=True)
    metric.update([item["generated"], still], [item["source"], still])
    with pytest.warns(UserWarning, match="1 of 2 clips could not be scored; the first here"):
        value = float(metric.compute())
    alone = filled("lip-corr", [item])
    assert value == float(alone.compute())
    assert metric.note == "1 of 2 clips could not be scored"
    assert "|partial:1of2|#" in metric.signature()
    assert metric.signature().replace("partial:1of2|", "") == alone.signature()


def test_a_collection_never_joins_two_of_them(demo: Scored) -> None:
    """torchmetrics takes metrics with equal states for one; here neither has a value."""
    still = GREY.expand(30, 3, 96, 96)
    both = torchmetrics.MetricCollection(
        {
            "opening": LipCorrelation("compact", partial=True),
            "width": LipCorrelation("compact", metric="lip-width-corr", partial=True),
        }
    )
    both.update(generated=still, source=still)
    item = demo.items[0]
    both.update(generated=item["generated"], source=item["source"])
    with pytest.warns(UserWarning, match="1 of 2"):
        values = both.compute()
    assert values["opening"] != values["width"]


# ---- in a loop ------------------------------------------------------------------------------


class Painter(nn.Module):
    """A model of one layer, whose clips are the sources with another brightness."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)
        nn.init.eye_(self.layer.weight.data[:, :, 0, 0])

    def forward(self, source: Tensor) -> Tensor:
        return self.layer(source)  # type: ignore[no-any-return]


def trained(items: list[Item], validate: Callable[[nn.Module], None] | None) -> Tensor:
    """Train with a little noise, validate between two steps, and return the weights."""
    torch.manual_seed(3)
    model = Painter()
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)
    for step in range(2):
        frames = items[step]["source"][:8].float() / 255
        noise = 0.01 * torch.randn(frames.shape)
        loss = (model(frames + noise) - items[step]["real"][:8].float() / 255).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if validate is not None and step == 0:
            validate(model)
    return model.layer.weight.detach()


def test_a_training_is_the_same_with_metrics_and_tensorboard_has_their_values(
    demo: Scored, tmp_path: Path
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    item, before = demo.items[0], torch.backends.cudnn.allow_tf32
    fad = FrechetArcFaceDistance("compact", value_range=(0, 1), batch_size=5)
    scores: dict[str, float] = {}
    painted: list[Tensor] = []

    def validate(model: nn.Module) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            painted.append(model(item["source"].float() / 255))
            fad.update(painted[0], item["real"].float() / 255)
        with SummaryWriter(str(tmp_path)) as writer:
            scores.update(log_scores(writer, {"fad": fad}, step=1))

    assert torch.equal(trained(demo.items, None), trained(demo.items, validate))
    alone = FrechetArcFaceDistance("compact", value_range=(0, 1))
    alone.update(painted[0], item["real"])
    assert float(alone.compute()) == pytest.approx(scores["fad"], rel=1e-6)
    assert torch.backends.cudnn.allow_tf32 is before
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [e.value for e in events.Scalars("fad")] == pytest.approx([scores["fad"]], rel=1e-6)
    texts = [tag for tag in events.Tags()["tensors"] if "signature" in tag]
    [event] = events.Tensors(texts[0])
    assert event.tensor_proto.string_val[0].decode() == fad.signature()
    with pytest.raises(SpfemBenchError, match="no logger of scores: dict"):
        log_scores({}, {"fad": fad})


def test_the_page_s_loop_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8").partition("## In a training loop")[2]
    block = next(b for b in re.findall(r"(?s)```python\n(.*?)```", page) if "for epoch" in b)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(block, names)  # noqa: S102
    assert list((tmp_path / "runs").rglob("events*"))
    assert names["metrics"]["FAD"].n_clips == 0  # reset


def test_scores_are_in_full_precision_under_autocast(demo: Scored) -> None:
    item = {role: frames[:12] for role, frames in demo.items[0].items()}
    with torch.autocast("cpu", torch.bfloat16):
        inside = filled("scc", [item])
    assert float(inside.compute()) == float(filled("scc", [item]).compute())


class FakeMlflow:
    """What an MLflow logger of Lightning's offers."""

    run_id = "run 7"

    def __init__(self) -> None:
        self.experiment = self
        self.tags: dict[str, str] = {}

    def set_tag(self, run: str, name: str, text: str) -> None:
        assert run == self.run_id
        self.tags[name] = text


def test_hooks_score_what_validation_returns_and_tag_the_run(demo: Scored) -> None:
    fad, logger, logged = FrechetArcFaceDistance("compact"), FakeMlflow(), dict[str, float]()
    module = SimpleNamespace(
        device=torch.device("cpu"),
        log=lambda name, value, **options: logged.update({name: float(value)}),
    )
    trainer = SimpleNamespace(
        is_global_zero=True, sanity_checking=False, loggers=[logger], global_step=4
    )
    hooks = ScoreHooks({"fad": fad}, lambda output, batch: {**batch, "generated": output})
    for _ in range(2):  # the second epoch begins anew
        hooks.on_validation_epoch_start(trainer, module)
        for i, item in enumerate(demo.items):
            hooks.on_validation_batch_end(trainer, module, item["generated"], item, i)
        hooks.on_validation_epoch_end(trainer, module)
    assert logged["fad"] == pytest.approx(demo.values["fad"], rel=1e-6)
    assert logger.tags["fad/signature"] == fad.signature()


def test_lightning_scores_each_validation_epoch(demo: Scored, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning.pytorch", reason="lightning is not installed")
    from lightning.pytorch.loggers import TensorBoardLogger

    items = [{**item, "source": item["generated"]} for item in demo.items[:2]]

    class Scores(ScoreHooks, lightning.Callback):  # type: ignore[misc, name-defined]
        pass

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.model = Painter()

        def training_step(self, batch: Item) -> Tensor:
            return self.model(batch["source"][0, :2].float()).mean()  # type: ignore[no-any-return]

        def validation_step(self, batch: Item) -> Tensor:
            return batch["source"]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.0)

    fad = FrechetArcFaceDistance("compact")
    scores = Scores({"fad": fad}, lambda out, batch: {**batch, "generated": out})
    logger = TensorBoardLogger(tmp_path)
    trainer = lightning.Trainer(
        max_epochs=1,
        callbacks=[scores],
        logger=logger,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_checkpointing=False,
    )
    loader = torch.utils.data.DataLoader(items, batch_size=None)  # type: ignore[arg-type]
    one = torch.utils.data.DataLoader(
        [{"source": items[0]["source"][None]}],  # type: ignore[arg-type]
        batch_size=None,
    )
    trainer.fit(Module(), one, loader)
    expected = float(filled("fad", demo.items[:2]).compute())
    assert float(trainer.callback_metrics["fad"]) == pytest.approx(expected, rel=1e-6)
    content = b"".join(
        path.read_bytes() for path in Path(logger.log_dir).iterdir() if path.is_file()
    )
    assert fad.signature().encode() in content
