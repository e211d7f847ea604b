"""The recipes of docs/plug_and_play.md, run as they stand there on tensors laid out as named.

The stubs stand for systems that are not here: they have their shapes and ranges, and one
parameter, which the loss has to reach.
"""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from spfem_bench.stccl.metric import STCCL
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "plug_and_play.md"


def recipe(heading: str) -> str:
    """Return the code under a heading."""
    section = PAGE.read_text(encoding="utf-8").split(f"\n### {heading}\n")[1].split("\n### ")[0]
    [code] = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return str(code)


@pytest.fixture(scope="module")
def stccl() -> STCCL:
    return STCCL.untrained()


@pytest.fixture
def knob() -> Tensor:
    torch.manual_seed(0)
    return torch.tensor(0.3, requires_grad=True)


def pictures(*shape: int, low: float = 0.0) -> Tensor:
    """Return smooth pictures from *low* to 1: (..., 3, height, width)."""
    coarse = torch.rand(*shape[:-2], 4, 4).flatten(0, -4)
    fine = torch.nn.functional.interpolate(coarse, shape[-2:], mode="bicubic").clamp(0, 1)
    return (fine * (1 - low) + low).reshape(shape)


def ran(heading: str, **given: Any) -> dict[str, Any]:
    """Run a recipe with the variables that its system has at that place."""
    names: dict[str, Any] = {"torch": torch, **given}
    exec(recipe(heading), names)  # noqa: S102  (our own page)
    return names


def reached(loss: Tensor, knob: Tensor) -> bool:
    assert loss.ndim == 0 and loss.isfinite() and loss > 0
    loss.backward()
    return knob.grad is not None and bool(knob.grad.abs() > 0)


def test_ned_manipulator(stccl: STCCL, knob: Tensor) -> None:
    x_real = torch.rand(2, 10, 51)
    base, basis = pictures(1, 1, 3, 224, 224), pictures(51, 3, 224, 224)

    def render(coefficients: Tensor) -> Tensor:
        moved = torch.einsum("btk,kchw->btchw", coefficients, basis) / 51
        return (0.5 * base + 0.5 * moved).clamp(0, 1)

    x_fake = x_real + knob * torch.rand(2, 10, 51)
    one, opt = (
        torch.zeros(()),
        SimpleNamespace(lambda_sty=1, lambda_cyc=1, lambda_mouth=1, lambda_stccl=0.1),
    )
    names = ran(
        "NED, manipulator",
        stccl=stccl,
        render=render,
        x_real=x_real,
        x_fake=x_fake,
        opt=opt,
        loss_adv=one,
        loss_sty=one,
        loss_cyc=one,
        loss_mouth=one,
    )
    assert torch.allclose(names["loss"], 0.1 * names["loss_stccl"])
    assert reached(names["loss"], knob)


def test_ned_renderer(stccl: STCCL, knob: Tensor) -> None:
    real = pictures(1, 7, 3, 256, 256, low=-1)
    fake = torch.lerp(real[:, 2:], pictures(1, 5, 3, 256, 256, low=-1), knob)
    names = ran(
        "NED, renderer",
        stccl=stccl,
        real_B=real,
        fake_M=fake,
        loss_G=torch.zeros(()),
        opt=SimpleNamespace(lambda_stccl=2.0),
    )
    assert torch.allclose(names["loss_G"], 2 * names["loss_stccl"])
    assert reached(names["loss_G"], knob)


def test_icface(stccl: STCCL, knob: Tensor) -> None:
    class Network(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[1:] == (23, 128, 128)  # a picture and twenty action units
            return torch.tanh(x[:, :3] + knob * x[:, 3:6])

    units = torch.rand(5, 2, 20, 1, 1).expand(-1, -1, -1, 128, 128)
    real = pictures(2, 5, 3, 128, 128, low=-1)
    names = ran(
        "ICface",
        stccl=stccl,
        netG=Network(),
        netGN=Network(),
        action_units=units,
        neutral_units=units[0] * 0,
        real_frames=real,
    )
    assert reached(names["loss_stccl"], knob)


def test_eat(stccl: STCCL, knob: Tensor) -> None:
    neutral = pictures(10, 3, 256, 256)
    made = torch.lerp(neutral, pictures(10, 3, 256, 256), knob)
    names = ran(
        "EAT",
        stccl=stccl,
        generated={"prediction": made},
        x={"neutral": neutral},
        bbs=2,
        bs=5,
        loss_values={},
        loss_weights={"stccl": 1.0},
    )
    assert reached(names["loss_values"]["stccl"], knob)


def test_dice_talk(stccl: STCCL, knob: Tensor) -> None:
    source = pictures(1, 5, 3, 192, 192, low=-1)
    decoded = 1.1 * torch.lerp(source, pictures(1, 5, 3, 192, 192, low=-1), knob)  # not clamped
    names = ran(
        "DICE-Talk", stccl=stccl, frames=decoded.permute(0, 2, 1, 3, 4), source_frames=source
    )
    assert reached(names["loss_stccl"], knob)
