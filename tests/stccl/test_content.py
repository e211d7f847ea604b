"""The form ct: its loss by numpy alone, its gradients, what it refuses, what its heads let pass."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from spfem_bench.errors import StcclError
from spfem_bench.puppets.probe import SEED, Performance
from spfem_bench.puppets.world import Take, World
from spfem_bench.stccl.checkpoint import backbone_record, read_checkpoint, write_checkpoint
from spfem_bench.stccl.content import ContentHeads, content_parts, content_terms
from spfem_bench.stccl.metric import STCCL
from spfem_bench.stccl.settings import ContentSettings

CHANNELS, REGIONS = (24, 56, 112, 192), (49, 49, 49, 49)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def regions_by_hand(maps: NDArray[np.float64], grid: int) -> NDArray[np.float64]:
    """Return the regions (T, R, C) of maps (T, C, H, W)."""
    moments, channels, height, _ = maps.shape
    side = min(grid, height)
    step = height // side  # whole in these tests
    pooled = np.zeros((moments, side * side, channels))
    for t in range(moments):
        for row in range(side):
            for column in range(side):
                part = maps[t, :, row * step : (row + 1) * step]
                part = part[:, :, column * step : (column + 1) * step]
                pooled[t, row * side + column] = part.mean((1, 2))
    return pooled


def by_hand(
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    settings: ContentSettings,
    weights: dict[str, NDArray[np.float64]] | None = None,
) -> tuple[float, float, float]:
    """Return loss, positive and negative of one sequence (T, C, H, W), moment by moment."""

    def vectors(maps: NDArray[np.float64]) -> list[NDArray[np.float64]]:
        pooled = regions_by_hand(maps, settings.grid)
        moving = pooled - pooled.mean(0)
        if weights is None:
            rows = [each.ravel() for each in moving]
        else:
            rows = []
            for each in moving:
                region = each @ weights["region.weight"].T + weights["region.bias"]
                joined = np.maximum(region, 0).ravel()
                hidden = weights["moment.0.weight"] @ joined + weights["moment.0.bias"]
                last = weights["moment.2.weight"] @ np.maximum(hidden, 0)
                rows.append(last + weights["moment.2.bias"])
        mean = np.mean(rows, axis=0)
        return [(row - mean) / np.linalg.norm(row - mean) for row in rows]

    a, b = vectors(x), vectors(y)
    losses, positives, negatives = [], [], []
    for t, anchor in enumerate(b):
        far = [u for u in range(len(a)) if abs(u - t) * settings.every >= settings.apart]
        positives.append(anchor @ a[t])
        negatives += [anchor @ a[u] for u in far]
        others = [anchor @ a[u] for u in far]
        if settings.negatives == "both":
            others += [anchor @ b[u] for u in far]
        scores = np.exp(np.array([positives[-1], *others]) / settings.temperature)
        losses.append(-np.log(scores[0] / scores.sum()))
    return float(np.mean(losses)), float(np.mean(positives)), float(np.mean(negatives))


def sequences(seed: int = 0) -> tuple[Tensor, Tensor]:
    chance = torch.Generator().manual_seed(seed)
    shape = (1, 9, 5, 4, 4)
    x = torch.randn(*shape, dtype=torch.float64, generator=chance)
    return x, x + torch.randn(*shape, dtype=torch.float64, generator=chance)


@pytest.mark.parametrize("negatives", ["source", "both"])
@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("grid", [2, 7])
def test_loss_is_that_of_the_formula(negatives: str, mapped: bool, grid: int) -> None:
    settings = ContentSettings.model_validate({"grid": grid, "negatives": negatives, "apart": 3})
    x, y = sequences()
    torch.manual_seed(1)
    head = ContentHeads([5], [min(grid, 4) ** 2]).double().stages[0] if mapped else None
    terms = content_terms(x, y, settings, head=head)
    weights = {k: v.numpy() for k, v in head.state_dict().items()} if head else None
    expected = by_hand(x[0].numpy(), y[0].numpy(), settings, weights)
    assert [float(v.detach()) for v in terms[:3]] == pytest.approx(expected, rel=1e-9)
    assert terms.per_region.mean().item() == pytest.approx(expected[1], rel=1e-9)


@pytest.mark.parametrize("grid", [2, 7])
def test_identity_is_what_stays_in_each_region(grid: int) -> None:
    settings = ContentSettings(grid=grid, identity=2.5)
    clips = [sequences(seed) for seed in (0, 1)]  # as two stages
    for _, y in clips:
        y.requires_grad_()
    x, y = ([one[k] for one in clips] for k in (0, 1))
    named = content_parts(x, y, settings)
    named["loss"].backward()
    assert all(clip.grad is not None for clip in y)
    for stage, (a, b) in enumerate(zip(x, y, strict=True), start=1):
        stays = []
        for maps in (a, b):
            mean = regions_by_hand(maps[0].detach().numpy(), grid).mean(0)
            stays.append((mean - mean.mean(0)).ravel())
        cosine = stays[0] @ stays[1] / (np.linalg.norm(stays[0]) * np.linalg.norm(stays[1]))
        assert named[f"identity_stage{stage}"].item() == pytest.approx(1 - cosine, rel=1e-9)
    mean = (named["identity_stage1"] + named["identity_stage2"]) / 2
    torch.testing.assert_close(named["loss"], named["sct"] + 2.5 * mean)
    without = content_parts(x, y, ContentSettings(grid=grid))
    assert without["loss"] == named["sct"] and "identity" not in without


def test_what_stays_does_not_count() -> None:
    x, y = sequences()
    settings = ContentSettings()
    stays = torch.randn(1, 1, 5, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(
        content_terms(x, y, settings)[:3], content_terms(x, y + 3 * stays, settings)[:3]
    )


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one metric of the form ct, of heads as they begin."""
    torch.manual_seed(3)
    folder = tmp_path_factory.mktemp("metric")
    record = {
        "backbone": backbone_record("compact-identity").model_dump(),
        "forms": {"ct": ContentSettings().model_dump()},
    }
    write_checkpoint(folder / "own", {"ct": ContentHeads(CHANNELS, REGIONS)}, record)
    return folder


def clip(seed: int, *shape: int) -> Tensor:
    chance = torch.Generator().manual_seed(seed)
    coarse = torch.rand(shape[0] * shape[1], 3, 6, 6, generator=chance)
    return torch.nn.functional.interpolate(coarse, shape[2:], mode="bilinear").view(
        *shape[:2], 3, *shape[2:]
    )


def test_gradient_is_that_of_finite_differences_and_reaches_the_generated_alone(kept: Path) -> None:
    loss = STCCL.load(kept, value_range=(0, 1)).double()
    x, y = clip(0, 1, 9, 40, 36).double(), (0.1 + 0.8 * clip(1, 1, 9, 40, 36)).double()
    x.requires_grad_()
    y.requires_grad_()
    loss(x, y).backward()
    assert x.grad is None and all(p.grad is None for p in loss.parameters())
    assert y.grad is not None
    used = y.grad.abs().sum((0, 2, 3, 4)) > 0
    assert used.tolist() == [True, False] * 4 + [True]  # every second frame is a moment
    way = clip(7, 1, 9, 40, 36).double() - 0.5
    with torch.no_grad():
        step = 1e-8  # so small that hardly a ReLU changes its side
        rise = (loss(x, y + step * way) - loss(x, y - step * way)) / (2 * step)
    assert (y.grad * way).sum().item() == pytest.approx(rise.item(), rel=1e-4)


def test_maps_that_were_computed_before_give_the_same_parts(kept: Path) -> None:
    loss = STCCL.load(kept, value_range=(0, 1))
    x, y = clip(0, 2, 9, 32, 32), clip(1, 2, 9, 32, 32)
    whole = loss(x, y, parts=True)
    assert whole["loss"] == whole["sct"]
    assert set(whole) >= {"sct_positive", "sct_negative", "sct_stage4_positive"}
    again = loss.compare(loss.maps(x), loss.maps(y), None)
    for name, value in whole.items():
        torch.testing.assert_close(again[name], value, msg=name)


def test_too_little_time_is_refused(kept: Path) -> None:
    loss = STCCL.load(kept, value_range=(0, 1))
    with pytest.raises(StcclError, match=r"single pictures were given.*Give sequences"):
        loss(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 32))
    with pytest.raises(StcclError, match="at least 7 consecutive frames"):
        loss(clip(0, 1, 6, 32, 32), clip(1, 1, 6, 32, 32))
    assert loss(clip(0, 1, 7, 32, 32), clip(1, 1, 7, 32, 32)) > 0
    with pytest.raises(StcclError, match=r"has no form 'vd'. Allowed: ct"):
        STCCL.load(kept, form="vd")


def a_second(spoken: Take, camera: int, emotion: str = "neutral", **changed: Any) -> Tensor:
    """Draw a second of a performance: (1, 25, 3, 128, 128)."""
    who = spoken.world, spoken.speaker, emotion, spoken.sentence
    take = Performance(*who, 1.0, spoken, camera=camera, **changed)
    # Only frames that are moments are drawn; those between are not compared.
    drawn = np.stack([take.frame(t) for t in range(9, 34, 2)])
    each = np.repeat(drawn, 2, axis=0)[:-1]
    return torch.from_numpy(each).permute(0, 3, 1, 2)[None].float() / 255


def test_shipped_heads_let_the_emotion_be_and_keep_the_words() -> None:
    loss = STCCL.load("puppets-ct", form="ct", value_range=(0, 1))
    world = World(seed=SEED)  # none of its puppets is in the training
    sentences = [s.name for s in world.sentences if s.split == "test"]
    costs: dict[str, list[float]] = {}
    for number, speaker in enumerate(world.speakers[:2]):
        spoken, other = (
            world.take(speaker.name, "neutral", sentences[(number + k) % 3]) for k in (0, 1)
        )

        frames = partial(a_second, spoken)
        emotion = ("happy", "angry")[number]
        other_look = world.speakers[2 + number].look
        made = {
            "nothing": frames(2),
            "emotion": frames(3, emotion),
            "words": frames(4, mouth_of=other),
            "frozen": frames(5, frozen=True),
            "both": frames(6, emotion, mouth_of=other),
            "face": a_second(replace(spoken, speaker=replace(speaker, look=other_look)), 7),
        }
        source = frames(1)
        for name, clip_ in made.items():
            parts = loss(source, clip_, parts=True)
            costs.setdefault(name, []).append(float(parts["loss"]))
            costs.setdefault(f"{name} identity", []).append(float(parts["identity"]))
            for sign in ("positive", "negative"):
                costs.setdefault(f"{name} {sign}", []).append(float(parts[f"sct_{sign}"]))
    mean = {name: float(np.mean(values)) for name, values in costs.items()}
    words = mean["words"] - mean["nothing"]
    assert words > 5 * mean["nothing"]
    assert (mean["emotion"] - mean["nothing"]) / words < 0.15
    assert (mean["both"] - mean["emotion"]) / words > 0.8
    assert (mean["frozen"] - mean["nothing"]) / words > 0.3
    assert mean["emotion identity"] < 0.05 * mean["face identity"]
    assert mean["face"] - mean["nothing"] > 0.5 * words
    assert mean["emotion positive"] > 0.85 and mean["emotion negative"] < 0.05


def test_the_shipped_metric_states_its_origin() -> None:
    heads, record = read_checkpoint("puppets-ct")
    assert list(heads) == ["ct"] and record.bytes < 70_000  # in half precision
    assert {p.dtype for p in heads["ct"].parameters()} == {torch.float32}
    data = record.training["data"]
    speakers = [set(data[part]["speakers"]) for part in ("train", "held_out", "checked")]
    assert not speakers[0] & speakers[1] and not (speakers[0] | speakers[1]) & speakers[2]
    trained, before = (record.held_out[key]["ct"]["sct"] for key in ("trained", "untrained"))
    assert trained["positive"] > before["positive"] + 0.3
    assert trained["negative"] < 0.05
