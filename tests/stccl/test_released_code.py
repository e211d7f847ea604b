"""The mode ``released-code`` against numbers that the authors' own code computed.

jianmanlincjx/STCCL at 3c8dff4 was run once on the tensors below (float64, CPU, positions as drawn
here): ``asccl/model/spatial_coherent_model.py``, ``model/temproal_coherent_model.py`` and
``model/spatial_temproal_coherent_model.py``, the last with tanh in the place of its transformer.
The numbers are those of its ``PatchNCELoss`` at the four stages, and the sums of the absolute
gradients at the first argument's feature maps of what ``forward`` returned.
"""

import zlib

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.contrast import spatial_terms, temporal_terms
from spfem_bench.stccl.losses import released_terms
from spfem_bench.stccl.settings import ContrastSettings, FormSettings

CHANNELS, SIZES, COUNTS = (64, 128, 256, 512), (24, 16, 12, 9), (6, 5, 4, 3)

SPATIAL = [11.615764115026373, 7.569781862367923, 7.15598720265414, 5.6058681038170235]
SPATIAL_LOSS = 9.584220385159638  # the stages' sum, times 0.3
SPATIAL_GRADIENTS = [3.4415871634403734, 3.157212667726478, 3.6856025158741126, 2.5449849257324546]
SPATIAL_SIMILARITY = 0.2596074346469144
TEMPORAL = [6.621481258802773, 5.081776990265586, 4.6675807140608905, 3.587383554119324]
TEMPORAL_GRADIENTS = [6.972769091356113, 6.569398806904452, 7.287220441806025, 6.647334125206744]
TEMPORAL_SIMILARITY = 0.2767131237543039
JOINT_SPATIAL = [10.500971119814492, 7.81437816348272, 7.126098472020217, 5.544693202176195]
# These are multiplied by 5 where the stages are summed.
JOINT_TEMPORAL = [0.3669672968546547, 0.30230642531374974, 0.26902072035596525, 0.23015578029292671]
JOINT_GRADIENTS = [12.986422597278338, 12.573119592275567, 13.78511120674587, 9.917997551159806]

SETTINGS = ContrastSettings(definition="released-code", anchor="source")
EXACT = {"rel": 1e-5}


def drawn(name: str, shape: tuple[int, ...], scale: float) -> Tensor:
    z = np.random.default_rng(zlib.crc32(name.encode())).standard_normal(shape)
    return torch.tensor(z * scale)


def maps(side: str, stage: int, frames: int) -> Tensor:
    size = SIZES[stage]
    shape = (2 * frames, CHANNELS[stage], size, size)
    found = drawn(f"{side}{stage}", shape, 3.0)
    return found.unflatten(0, (2, frames)) if frames > 1 else found


def head(stage: int) -> nn.Sequential:
    width = CHANNELS[stage]
    built = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width // 4)).double()
    with torch.no_grad():
        for number, layer in zip((3 * stage, 3 * stage + 2), (built[0], built[2]), strict=True):
            layer.weight.copy_(drawn(f"w{number}", tuple(layer.weight.shape), width**-0.5))
            layer.bias.copy_(drawn(f"b{number}", tuple(layer.bias.shape), 0.1))
    return built.requires_grad_(False)


def positions() -> tuple[list[Tensor], list[Tensor]]:
    """Return the centres in space, and the positions in time, of the run."""
    random = np.random.default_rng(7)
    centres = [
        torch.from_numpy(np.stack([random.integers(1, s - 1, n), random.integers(1, s - 1, n)], 1))
        for s, n in zip(SIZES, COUNTS, strict=True)
    ]
    flat = [
        torch.from_numpy(random.integers(0, s * s, 8 * n))
        for s, n in zip(SIZES, COUNTS, strict=True)
    ]
    return centres, [torch.stack([f // s, f % s], 1) for f, s in zip(flat, SIZES, strict=True)]


@pytest.mark.parametrize("stage", range(4))
def test_spatial_stages(stage: int) -> None:
    # The loss flows to generated maps alone: theirs to the anchor. So the anchor is generated here.
    where = positions()[0][stage]
    anchor, other = maps("q", stage, 1).requires_grad_(), maps("k", stage, 1)
    settings = SETTINGS.model_copy(update={"anchor": "generated"})
    found = spatial_terms(other, anchor, settings, where, head=head(stage))
    assert float(found.loss) == pytest.approx(0.3 * SPATIAL[stage], **EXACT)
    found.loss.backward()
    assert float(anchor.grad.abs().sum()) == pytest.approx(SPATIAL_GRADIENTS[stage], **EXACT)  # type: ignore[union-attr]
    # While the metric is learnt, the anchor is the source.
    found = spatial_terms(anchor, other, SETTINGS, where, head=head(stage))
    assert float(found.loss) == pytest.approx(0.3 * SPATIAL[stage], **EXACT)


@pytest.mark.parametrize("stage", range(4))
def test_temporal_stages(stage: int) -> None:
    where = positions()[1][stage]
    anchor, other = maps("q", stage, 4).requires_grad_(), maps("k", stage, 4)
    settings = SETTINGS.model_copy(update={"anchor": "generated"})
    found = temporal_terms(other, anchor, settings, where, head=head(stage))
    assert float(found.loss) == pytest.approx(TEMPORAL[stage], **EXACT)
    found.loss.backward()
    assert float(anchor.grad.abs().sum()) == pytest.approx(TEMPORAL_GRADIENTS[stage], **EXACT)  # type: ignore[union-attr]


def test_similarities_over_positions() -> None:
    centres, places = positions()
    space = [
        spatial_terms(maps("q", k, 1), maps("k", k, 1), SETTINGS, centres[k], head=head(k))
        for k in range(4)
    ]
    time = [
        temporal_terms(maps("q", k, 4), maps("k", k, 4), SETTINGS, places[k], head=head(k))
        for k in range(4)
    ]
    means = [float(torch.stack([t.positive for t in terms]).mean()) for terms in (space, time)]
    assert means == pytest.approx([SPATIAL_SIMILARITY, TEMPORAL_SIMILARITY], **EXACT)
    total = float(torch.stack([terms.loss for terms in space]).sum())
    assert total == pytest.approx(SPATIAL_LOSS, **EXACT)


@pytest.mark.parametrize("stage", range(4))
def test_joint_stages(stage: int) -> None:
    centres, places = (chosen[stage] for chosen in positions())
    anchor, other = maps("q", stage, 4).requires_grad_(), maps("k", stage, 4)
    x, y = (rep.spatial_disparity(m.flatten(0, 1), centres).flatten(1, 2) for m in (anchor, other))
    mapped = head(stage)
    space = released_terms(mapped(x), mapped(y), SETTINGS, raw=x, model="joint spatial")
    assert float(space.loss) == pytest.approx(JOINT_SPATIAL[stage], **EXACT)
    tokens = (rep.feature_rows(m, places).flatten(0, 1).tanh() for m in (anchor, other))
    time = released_terms(*tokens, SETTINGS, model="joint temporal")
    assert float(time.loss) == pytest.approx(5 * JOINT_TEMPORAL[stage], **EXACT)
    (space.loss + time.loss).backward()
    assert float(anchor.grad.abs().sum()) == pytest.approx(JOINT_GRADIENTS[stage], **EXACT)  # type: ignore[union-attr]


def test_positions_in_time_are_drawn_with_replacement() -> None:
    settings = FormSettings(contrast=SETTINGS)
    assert settings.temporal_centres == (256, 128, 64, 32)
    assert FormSettings(contrast=ContrastSettings()).temporal_centres == (32, 16, 8, 4)
    assert settings.learning().contrast.anchor == "source"
    drawn_positions = rep.sample_positions(3, 4, 256, torch.Generator().manual_seed(0))
    counts = torch.bincount(drawn_positions[:, 0] * 4 + drawn_positions[:, 1], minlength=12)
    assert counts.sum() == 256 and counts.min() > 5
