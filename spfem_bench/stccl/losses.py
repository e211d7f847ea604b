"""The contrastive loss and its weights, in float32 or float64, under ``torch.autocast`` too.

Each function and `settings` state the choices that the papers leave open. The sums of equations
5 and 7 are means over images, pairs and stages here; weights act inside them.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor

from spfem_bench.errors import StcclError
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.settings import ContrastSettings

ReleasedModel = Literal["spatial", "temporal", "joint spatial", "joint temporal"]

RELEASED_FACTORS: dict[ReleasedModel, float] = {
    "spatial": 0.3,
    "temporal": 1.0,
    "joint spatial": 1.0,
    "joint temporal": 0.07 * 5.0,
}
"""Numbers that the released models multiply their losses with.

The joint model's temporal rows are tokens of a transformer over the sampled features; its call of
``PatchNCELoss(f_q, f_k, tau)`` has the temperature in the place of the weight.
"""


class Terms(NamedTuple):
    """One stage's comparison.

    Attributes:
        loss: scalar, at least 0; gradients reach the generated maps.
        positive: mean similarity of corresponding pairs, detached in [-1, 1] like all that follow.
        negative: mean similarity of the others.
        per_region: of corresponding pairs: spatial ``(B, h, w)``, the mean over neighbours;
            temporal ``(B, P, h, w)``, P as `representations.frame_pairs`, or ``(B, T, h, w)`` for
            ``cm``. h and w are the map's, less its border where neighbours are compared; N with
            sampled centres.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor
    per_region: Tensor


def contrast_terms(
    source: Tensor, generated: Tensor, weights: Tensor | None, temperature: float = 0.07
) -> Terms:
    """Contrast K >= 2 representations ``(..., K, D)`` of each region (equations 1, 4 and 7).

    ``s_jk = cos(x_j, y_k)``, positive where j = k. The loss is the mean of ``w_j * InfoNCE_j``, for
    weights ``(..., K)`` of the source's anchors. ``per_region`` has the shape ``(..., K)``.
    """
    return _terms_of(rep.cosine_grid(source, generated), weights, temperature)


def info_nce(similarities: Tensor, temperature: float = 0.07) -> Tensor:
    """Return ``-log(exp(s_jj / tau) / sum_k exp(s_jk / tau))`` of ``(..., K, K)``: ``(..., K)``.

    Rows are anchors, positives are on the diagonal. Equation 4 as printed has no minus log, and the
    exponential of a sum in the denominator; InfoNCE is the model that it names. The result is
    ``log K`` where all candidates are equal.
    """
    with torch.autocast(similarities.device.type, enabled=False):
        logits = rep.widened(similarities) / temperature
        return logits.logsumexp(-1) - logits.diagonal(dim1=-2, dim2=-1)


def region_weights(disparity: Tensor, settings: ContrastSettings) -> Tensor | None:
    """Return the weight ``(...)`` of each pair, ``lambda * sigmoid(x)^r`` (equation 6), detached.

    None when not adaptive. The equation has a vector x where a number is needed, here of the mapped
    source disparity ``(..., D)``: ``rms``, our choice, is its root mean square over channels;
    ``norm`` its length; ``channels`` the mean over channels of the formula as printed, with signs.
    """
    if not settings.adaptive:
        return None
    x = rep.widened(disparity.detach())
    if settings.size == "channels":
        return settings.strength * x.sigmoid().pow(settings.power).mean(-1)
    square = x.square().sum(-1) if settings.size == "norm" else x.square().mean(-1)
    return settings.strength * square.sqrt().sigmoid().pow(settings.power)


def matrix_weights(matrix: Tensor, settings: ContrastSettings) -> Tensor | None:
    """Return the weight ``(..., N)`` of each row of a matrix ``(..., N, N)`` (equation 6, CM).

    Between two features of unit length the squared disparity is ``2 - 2 G_ij``. The distance of
    region i from the others (root mean square over j, or ``norm`` for the root of the sum) takes
    the place of x; with ``channels`` the row's entries do. Our reading: the papers leave it open.
    """
    if not settings.adaptive:
        return None
    matrix = matrix.detach()
    if settings.size == "channels":
        return region_weights(matrix, settings)
    square = (2.0 - 2.0 * matrix).clamp_min(0.0)
    total = square.sum(-1) - square.diagonal(dim1=-2, dim2=-1)
    if settings.size == "rms":
        total = total / (matrix.shape[-1] - 1)
    return settings.strength * total.clamp_min(0.0).sqrt().sigmoid().pow(settings.power)


def matrix_rows(matrix: Tensor, rows: Literal["centred", "cosine"] = "centred") -> Tensor:
    """Return the rows of a correlation matrix ``(..., N, N)``, scaled to length 1, or 0 where flat.

    ``cosine`` is the row as it stands (N at least 2); its 1 on the diagonal makes unrelated regions
    similar. ``centred`` (N at least 3) leaves the diagonal out and subtracts the others' mean: the
    cosine of two such rows is a Pearson correlation.
    """
    if rows == "cosine":
        return rep.unit(matrix)
    count = matrix.shape[-1]
    itself = torch.eye(count, dtype=torch.bool, device=matrix.device)
    others = matrix.masked_fill(itself, 0.0)
    mean = others.sum(-1, keepdim=True) / (count - 1)
    # Shorter rows are rounding: entries are good to about 1e-7.
    return rep.unit((others - mean).masked_fill(itself, 0.0), 1e-5)


def released_terms(
    anchor: Tensor,
    other: Tensor,
    settings: ContrastSettings,
    *,
    raw: Tensor | None = None,
    model: ReleasedModel = "spatial",
    generator: torch.Generator | None = None,
) -> Terms:
    """Compare mapped disparities ``(B, S, D)``, S at least 2, as the authors' executed code does.

    * ``other``, scaled to unit length, is detached: gradients reach the anchor.
    * Cross-entropy over 1 positive and S - 1 negatives: all other positions of the image.
    * Where settings are adaptive and ``raw`` is given, ``(B, S, C)``, the anchor's disparities
      before the mapping: weight 1, or ``2 sigmoid(|x|)^2`` where ``sigmoid(|x|) > 0.8``, for every
      number x of it, not detached. The cross-entropy is averaged first, so only the mean counts.
    * The loss is multiplied by `RELEASED_FACTORS`.
    * ``positive`` is the cosine over positions, channel by channel; ``negative`` has the other's
      positions in random order. ``per_region`` ``(B, S)`` has cosines over channels.

    Source: jianmanlincjx/STCCL at 3c8dff4, ``PatchNCELoss`` and ``forward`` of
    ``asccl/model/spatial_coherent_model.py``, ``model/temproal_coherent_model.py``,
    ``model/spatial_temproal_coherent_model.py``.
    """
    anchor, other = rep.widened(anchor), rep.widened(other).detach()
    if anchor.shape[1] < 2:
        raise StcclError("one sampled position has no negatives", "Sample at least 2")
    with torch.autocast(anchor.device.type, enabled=False):
        x, y = rep.unit(anchor), rep.unit(other)
        similarities = x @ y.transpose(1, 2)
        loss = info_nce(similarities, settings.temperature).mean() * RELEASED_FACTORS[model]
        if settings.adaptive and raw is not None:
            gate = rep.widened(raw).abs().sigmoid()
            weights = torch.where(gate > 0.8, settings.strength * gate.pow(settings.power), 1.0)
            loss = loss * weights.mean()
        x = x.detach()
        order = torch.randperm(y.shape[1], generator=generator).to(y.device)
        return Terms(
            loss=loss,
            positive=F.cosine_similarity(x, y, dim=1).mean(),
            negative=F.cosine_similarity(x, y[:, order], dim=1).mean(),
            per_region=similarities.detach().diagonal(dim1=1, dim2=2),
        )


def matrix_terms(x: Tensor, y: Tensor, settings: ContrastSettings, what: str) -> Terms:
    """Contrast the rows of two correlation matrices ``(..., N, N)``, of *what* for the error.

    Row i of both is the positive pair; the other rows of generated are the negatives.

    Raises:
        StcclError: fewer than three rows (two for ``cosine``).
    """
    fewest = 2 if settings.rows == "cosine" else 3
    if x.shape[-1] < fewest:
        raise StcclError(
            f"a correlation matrix of {x.shape[-1]} {what}",
            f"Rows '{settings.rows}' need at least {fewest} {what}",
        )
    with torch.autocast(x.device.type, enabled=False):
        rows_x, rows_y = (matrix_rows(matrix, settings.rows) for matrix in (x, y))
        similarities = rows_x @ rows_y.transpose(-2, -1)
    return _terms_of(similarities, matrix_weights(x, settings), settings.temperature)


def _terms_of(similarities: Tensor, weights: Tensor | None, temperature: float) -> Terms:
    loss = info_nce(similarities, temperature)
    similarities = similarities.detach()
    same = similarities.diagonal(dim1=-2, dim2=-1)
    candidates = similarities.shape[-1]
    others = (similarities.sum((-2, -1)) - same.sum(-1)).mean() / (candidates * (candidates - 1))
    weighted = loss if weights is None else weights * loss
    return Terms(weighted.mean(), same.mean(), others, same)
