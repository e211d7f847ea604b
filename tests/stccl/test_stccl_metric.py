"""The learnt metric as a loss: gradients, ranges, shapes, and what it refuses to load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from spfem_bench.errors import CardError, StcclError, UnknownNameError, WeightsError
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets.pairs import puppet_pairs
from spfem_bench.puppets.world import World
from spfem_bench.stccl import checkpoint
from spfem_bench.stccl.checkpoint import (
    Heads,
    backbone_record,
    load_backbone,
    read_checkpoint,
    write_checkpoint,
)
from spfem_bench.stccl.metric import STCCL
from spfem_bench.stccl.settings import ContrastSettings, Form, FormSettings
from spfem_bench.stored import write_json
from spfem_bench.training.learner import measure_heads
from spfem_bench.training.windows import Windows, choose_windows

CHANNELS = (24, 56, 112, 192)
FEW = (6, 5, 4, 4)
FORMS = {
    "vd": FormSettings(
        contrast=ContrastSettings(spatial_negatives="positions", temporal_negatives="positions"),
        spatial_centres=FEW,
        temporal_centres=FEW,
    ),
    "cm": FormSettings(
        contrast=ContrastSettings(form="cm"), spatial_centres=FEW, temporal_centres=FEW
    ),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one metric, of heads as they begin."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("metric")
    write_checkpoint(
        folder / "own",
        {form: Heads(CHANNELS) for form in FORMS},
        {
            "backbone": backbone_record("compact-identity").model_dump(),
            "forms": {form: settings.model_dump() for form, settings in FORMS.items()},
        },
    )
    return folder


@pytest.fixture
def folder(kept: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return Path(shutil.copytree(kept, tmp_path / "copy"))


def pictures(*shape: int, seed: int = 0) -> Tensor:
    """Smooth random pictures of 0 to 1."""
    chance = torch.Generator().manual_seed(seed)
    coarse = torch.rand(*shape[:-2], 6, 6, generator=chance).flatten(0, -4)
    fine = nn.functional.interpolate(coarse, shape[-2:], mode="bilinear")
    return fine.view(shape)


# ---- the loss ------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["vd", "cm"])
@pytest.mark.parametrize("in_time", [False, True])
def test_gradient_is_that_of_finite_differences(kept: Path, form: Form, in_time: bool) -> None:
    loss = STCCL.load(kept, form=form, value_range=(0, 1), centres="grid").double()
    shape = (1, 5, 3, 40, 36) if in_time else (2, 3, 40, 36)
    x, y = pictures(*shape).double(), (0.1 + 0.8 * pictures(*shape, seed=1)).double()
    y.requires_grad_()
    loss(x, y).backward()
    assert y.grad is not None
    for seed in range(2):
        way = pictures(*shape, seed=7 + seed).double() - 0.5
        with torch.no_grad():
            step = 1e-8  # so small that hardly a ReLU changes its side
            rise = (loss(x, y + step * way) - loss(x, y - step * way)) / (2 * step)
        assert (y.grad * way).sum().item() == pytest.approx(rise.item(), rel=1e-4, abs=1e-5)


def test_nothing_else_gets_a_gradient(kept: Path) -> None:
    loss = STCCL.load(kept, value_range=(0, 1))
    x, y = pictures(1, 5, 3, 30, 30), pictures(1, 5, 3, 30, 30, seed=1)
    x.requires_grad_()
    y.requires_grad_()
    before = {k: v.clone() for k, v in loss.state_dict().items()}
    loss.train()
    loss(x, y).backward()
    assert y.grad is not None and y.grad.abs().sum() > 0
    assert x.grad is None
    assert all(p.grad is None and not p.requires_grad for p in loss.parameters())
    for key, value in loss.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_the_two_ranges_agree(kept: Path) -> None:
    loss = STCCL.load(kept, centres="grid")
    x, y = pictures(2, 3, 50, 50), pictures(2, 3, 50, 50, seed=1)
    one = loss(x, y, value_range=(0, 1))
    other = loss(x * 2 - 1, y * 2 - 1, value_range=(-1, 1))
    assert one.item() == pytest.approx(other.item(), rel=1e-5)
    # Given at the call, it precedes the range given when loading.
    loss = STCCL.load(kept, centres="grid", value_range=(-1, 1))
    assert loss(x, y, value_range=(0, 1)).item() == one.item()


@pytest.mark.parametrize("form", ["vd", "cm"])
def test_parts_add_up(kept: Path, form: Form) -> None:
    loss = STCCL.load(kept, form=form, value_range=(0, 1), centres="grid")
    x, y = pictures(1, 6, 3, 32, 32), pictures(1, 6, 3, 32, 32, seed=1)
    parts = loss(x, y, parts=True)
    assert parts["loss"].item() == loss(x, y).item()
    assert parts["loss"].item() == pytest.approx((parts["scc"] + parts["tcc"]).item())
    stages = [parts[f"tcc_stage{k}"].item() for k in (1, 2, 3, 4)]
    assert parts["tcc"].item() == pytest.approx(sum(stages) / 4)
    # Pictures alone have no time; as a sequence they give the same in space.
    space = loss(x.flatten(0, 1), y.flatten(0, 1), parts=True)
    assert not any(key.startswith("tcc") for key in space)
    assert space["scc"].item() == pytest.approx(parts["scc"].item(), rel=1e-5)
    same = loss(x, x, parts=True)
    assert same["scc_positive"].item() == pytest.approx(1, abs=1e-5)
    assert same["loss"] < parts["loss"]


def test_any_size_and_sampled_regions(kept: Path) -> None:
    loss = STCCL.load(kept, value_range=(0, 1))
    x, y = pictures(1, 5, 3, 112, 112), pictures(1, 5, 3, 75, 200, seed=1)
    chance = [torch.Generator().manual_seed(seed) for seed in (1, 1, 2)]
    found = [loss(x, y, generator=g).item() for g in chance]
    assert found[0] == found[1] != found[2]
    with torch.autocast("cpu", torch.bfloat16):
        half = loss(x, y, generator=torch.Generator().manual_seed(1))
    assert half.item() == pytest.approx(found[0], rel=0.2)
    assert loss(x.half(), y.half()).isfinite()


def test_features_without_heads() -> None:
    loss = STCCL.untrained(centres="dense", value_range=(0, 1))
    x = pictures(1, 3, 40, 40)
    assert loss(x, x, parts=True)["scc_positive"].item() == pytest.approx(1, abs=1e-5)
    assert loss.heads is None and loss.record is None


BAD: list[tuple[Callable[[Tensor], Tensor], str]] = [
    (lambda y: (y * 255).to(torch.uint8), "whole numbers"),
    (lambda y: y * 255, "outside 0 to 1"),
    (lambda y: y.masked_fill(y > y.mean(), float("nan")), "not finite"),
    (lambda y: y[:, :4], "differ in length"),
    (lambda y: y[0, 0, 0], "of shape"),
    (lambda y: y[:, :, :1], "of shape"),
    (lambda y: y[:, :0], "of shape"),
]


@pytest.mark.parametrize(("spoil", "words"), BAD)
def test_pictures_that_cannot_be_meant(
    kept: Path, spoil: Callable[[Tensor], Tensor], words: str
) -> None:
    loss = STCCL.load(kept, value_range=(0, 1))
    x = pictures(1, 5, 3, 32, 32)
    with pytest.raises(StcclError, match=words):
        loss(x, spoil(x))


def test_too_few_frames_and_missing_ranges(kept: Path) -> None:
    loss = STCCL.load(kept)
    x = pictures(1, 5, 3, 32, 32)
    with pytest.raises(StcclError, match="value range is not given"):
        loss(x, x)
    with pytest.raises(StcclError, match="a value range of"):
        loss(x, x, value_range=(0, 255))
    with pytest.raises(StcclError, match="has no change in time"):
        loss(x[:, :1], x[:, :1], value_range=(0, 1))
    with pytest.raises(StcclError, match="a window of 5 frames on a sequence of 3"):
        STCCL.load(kept, form="cm")(x[:, :3], x[:, :3], value_range=(0, 1))
    with pytest.raises(StcclError, match="compare all with all"):
        STCCL.load(kept, centres="dense")
    with pytest.raises(StcclError, match="centres 'some'"):
        STCCL.load(kept, centres="some")  # type: ignore[arg-type]


# ---- loading -------------------------------------------------------------------------------


def test_by_file_folder_or_name(
    kept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [read_checkpoint(p) for p in (kept, kept / "own.json", kept / "own.safetensors")]
    assert len({c.record.sha256 for c in found}) == 1
    cards = tmp_path / "cards"
    shutil.copytree(kept, cards / checkpoint.FOLDER)
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(cards))
    assert "own" in checkpoint.metric_paths()
    assert read_checkpoint("own").record == found[0].record
    with pytest.raises(UnknownNameError, match=r"unknown STCCL metric 'owm'.*'own'"):
        read_checkpoint("owm")
    with pytest.raises(WeightsError, match="holds 0 metrics"):
        read_checkpoint(tmp_path)


def test_refused_without_its_record(folder: Path) -> None:
    (folder / "own.json").unlink()
    with pytest.raises(WeightsError, match="without its record is not used"):
        STCCL.load(folder)
    with pytest.raises(WeightsError, match="without its record is not used"):
        STCCL.load(folder / "own.safetensors")


def test_refused_when_altered(folder: Path) -> None:
    content = bytearray((folder / "own.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "own.safetensors").write_bytes(content)
    with pytest.raises(WeightsError, match="not what its record says: SHA-256"):
        STCCL.load(folder)


def change(folder: Path, **values: object) -> None:
    record = json.loads((folder / "own.json").read_text())
    write_json(folder / "own.json", {**record, **values})


def test_refused_with_another_backbone(folder: Path) -> None:
    change(folder, backbone={"network": "compact-identity", "sha256": ["0" * 64]})
    with pytest.raises(WeightsError, match="trained on 'compact-identity' with weights 00000000…"):
        STCCL.load(folder)


def test_refused_with_a_backbone_of_other_channels(folder: Path, weights_folder: Path) -> None:
    change(folder, backbone=backbone_record("mobilefacenet").model_dump(mode="json"))
    with pytest.raises(WeightsError, match="no heads for 'mobilefacenet'"):
        STCCL.load(folder, weights=WeightsStore(weights_folder))


def test_records_that_are_none(folder: Path) -> None:
    change(folder, forms={"vd": FORMS["vd"].model_dump(mode="json")})
    with pytest.raises(WeightsError, match="holds no heads"):
        STCCL.load(folder)
    change(folder, smile=1)
    with pytest.raises(CardError, match="unknown key 'smile'"):
        STCCL.load(folder)
    (folder / "own.json").write_text("{")
    with pytest.raises(CardError, match="is no record of a metric, or is damaged"):
        STCCL.load(folder)


def test_a_form_that_it_was_not_trained_for(tmp_path: Path) -> None:
    write_checkpoint(
        tmp_path / "half",
        {"vd": Heads(CHANNELS)},
        {
            "backbone": backbone_record("compact-identity").model_dump(),
            "forms": {"vd": FORMS["vd"].model_dump()},
        },
    )
    with pytest.raises(StcclError, match=r"has no form 'cm'\. Allowed: vd"):
        STCCL.load(tmp_path, form="cm")


def test_the_shipped_metric_is_small_and_records_its_training() -> None:
    heads, record = read_checkpoint("puppets")
    assert set(heads) == {"vd", "cm"}
    assert record.bytes < 3e6
    assert record.backbone == backbone_record("compact-identity")
    data, splits = record.training["data"], {s.name: s.split for s in World().speakers}
    parts = [set(data[part]["speakers"]) for part in ("train", "held_out", "checked")]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
    assert [{splits[s] for s in part} for part in parts] == [{"train"}, {"train"}, {"validation"}]
    for key in ("config", "commit", "code", "software", "best_step"):
        assert record.training[key], key


def test_the_shipped_metric_reproduces_its_record() -> None:
    """Measured again on a puppet and sentences outside the training."""
    heads, record = read_checkpoint("puppets")
    some = puppet_pairs(World(), "validation", speakers=1, second="face")[:6:2]
    backbone = load_backbone(record.backbone, WeightsStore(), torch.device("cpu"))
    windows = Windows(some, choose_windows(some, 5, 1), 5, backbone)
    trained = measure_heads(windows, record.forms, torch.nn.ModuleDict(heads))
    untrained = measure_heads(windows, record.forms, None)
    for form in ("vd", "cm"):
        # The aim of learning, reached in space: docs/stccl.md explains why not in time.
        scc, recorded = trained[form]["scc"], record.held_out["trained"][form]["scc"]
        assert scc["positive"] >= 0.9 and scc["negative"] <= 0.05, form
        assert scc["positive"] == pytest.approx(recorded["positive"], abs=0.04)
    assert trained["vd"]["scc"]["positive"] > untrained["vd"]["scc"]["positive"] + 0.05
    assert trained["vd"]["tcc"]["positive"] > untrained["vd"]["tcc"]["positive"] + 0.2
    assert trained["cm"]["scc"]["negative"] < untrained["cm"]["scc"]["negative"] - 0.02
