"""What is alike between source and generated: similarities, weights and the contrastive loss.

Where the papers are silent or a printed equation cannot be meant, the choice is said here
and, where another reading is likely, is a setting:

* Equation 4 as printed has no minus log, and the exponential of a sum in the denominator:
  minimised, it would push corresponding regions apart. InfoNCE, which the paper names as
  its model, is used: ``-log(exp(p / tau) / (exp(p / tau) + sum_k exp(n_k / tau)))``.
* The dot products in it are cosines, as in equation 1.
* Equations 5 and 7 are sums; here they are means (over images, pairs and stages), so that
  the loss does not depend on the size of maps and batches. Weights act inside the mean.
* The weight of equation 6 is a number, the disparity in it a vector: see `region_weights`.
* Contrast of correlation matrices: rows are the representations; row i of source and row i
  of generated are the positive pair, other rows of generated the negatives. See
  `matrix_rows` for what a row is.
* Spatial negatives are the other neighbours of the same region, as equations 1 and 4 have
  them (``y_i->k``, k != j). Their disparities share the region i, so before training their
  similarity is well above 0 (0.15 to 0.45 on published clips); values near 0 come of
  negatives at other regions: ``spatial_negatives="positions"``, and the released code.
* Temporal negatives are the other pairs of frames of the same region, as in STCCL's figure
  of the algorithm; STCCL's overview figure shows other regions of the same pair of frames,
  which are the settings ``temporal_negatives="regions"`` (those beside it) and
  ``"positions"`` (all).

Gradients reach the generated maps (and a mapping head, through both), never the source.
All is computed in float32 or float64, under ``torch.autocast`` too; only a head runs in
whatever precision autocast chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import pydantic
import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor

from spfem_bench.definitions.cards import Strict
from spfem_bench.errors import StcclError
from spfem_bench.stccl import representations as rep

#: A mapping ``f`` of equation 3: ``(..., C)`` to ``(..., D)``.
Head = Callable[[Tensor], Tensor]
Size = Literal["rms", "norm", "channels"]
Rows = Literal["centred", "cosine"]

#: Shorter rows of a centred matrix are rounding: its entries are good to about 1e-7.
_FLAT_ROW = 1e-5


class ContrastSettings(Strict):
    """How source and generated are compared.

    Attributes:
        form: ``vd`` for visual disparities, ``cm`` for correlation matrices.
        definition: ``paper``, or ``released-code`` for the arithmetic of the authors' code,
            which has visual disparities only; see `released_terms`.
        temperature: tau of equation 4.
        adaptive: whether weights of equation 6 act (else all are 1).
        strength: lambda of equation 6.
        power: r of equation 6.
        size: which number stands for the disparity in equation 6; see `region_weights`.
        neighbours: 8, or 4 (``vd``, wherever regions are compared with those beside them).
        pairs: pairs of frames (temporal ``vd``): ``adjacent``, or ``window`` for all inside
            a window. The released code has all, whatever is set.
        window: frames among which temporal negatives are sought (`representations.windows`).
        spatial_negatives: ``neighbours`` for the other neighbours of the same region,
            ``positions`` for every other disparity of the image, whatever its region
            (spatial ``vd``; sampled centres are meant, since all are compared with all).
        temporal_negatives: ``frames`` for other pairs of frames of the same region,
            ``regions`` for the neighbours in the same pair of frames, ``positions`` for every
            other region in it (temporal ``vd``).
        rows: what represents a region in ``cm``; see `matrix_rows`.
    """

    form: Literal["vd", "cm"] = "vd"
    definition: Literal["paper", "released-code"] = "paper"
    temperature: float = pydantic.Field(default=0.07, gt=0, allow_inf_nan=False)
    adaptive: bool = True
    strength: float = pydantic.Field(default=2.0, gt=0, allow_inf_nan=False)
    power: float = pydantic.Field(default=2.0, ge=0, allow_inf_nan=False)
    size: Size = "rms"
    neighbours: Literal[4, 8] = 8
    pairs: rep.Pairs = "adjacent"
    window: int = pydantic.Field(default=5, ge=2)
    spatial_negatives: Literal["neighbours", "positions"] = "neighbours"
    temporal_negatives: Literal["frames", "regions", "positions"] = "frames"
    rows: Rows = "centred"

    @pydantic.model_validator(mode="after")
    def _possible(self) -> ContrastSettings:
        if self.definition == "released-code" and self.form == "cm":
            raise ValueError("the released code has no correlation matrices: set form to 'vd'")
        by_regions = self.temporal_negatives != "frames" and self.form == "vd"
        cosine = self.form == "cm" and self.rows == "cosine"
        if self.window < 3 and not (by_regions or cosine or self.definition == "released-code"):
            raise ValueError("a window of 2 frames leaves no negatives: set it to 3 or more")
        return self


class Terms(NamedTuple):
    """One stage's comparison.

    Attributes:
        loss: scalar, at least 0; gradients reach the generated maps.
        positive: mean similarity of corresponding pairs, detached scalar in [-1, 1].
        negative: mean similarity of the others, detached scalar in [-1, 1].
        per_region: detached similarity of corresponding pairs, in [-1, 1]. Spatial
            ``(B, h, w)``, the mean over neighbours; temporal ``(B, P, h, w)`` in the order
            of `representations.frame_pairs`, or ``(B, T, h, w)`` for ``cm``. h and w are
            those of the map, less its border where neighbours are compared; with sampled
            centres N stands in the place of both.
    """

    loss: Tensor
    positive: Tensor
    negative: Tensor
    per_region: Tensor


def spatial_terms(
    source: Tensor,
    generated: Tensor,
    settings: ContrastSettings | None = None,
    centres: Tensor | None = None,
    *,
    head: Head | None = None,
    generator: torch.Generator | None = None,
) -> Terms:
    """Compare one stage of two batches of images (equations 1, 3, 4, 6, 7).

    Dense ``vd`` needs about ``34 C H W`` numbers per image for both, ``cm`` ``5 (H W)^2``:
    sample centres, or thin them with `representations.grid_centres`, where that is much.

    Args:
        source: feature maps ``(B, C, H, W)``; no gradient reaches them.
        generated: feature maps of the same shape.
        settings: how; without it the paper's.
        centres: regions ``(N, 2)``, the same for the whole batch; without it all.
        head: mapping f, applied to disparities (``vd``) or to regions before the product
            (``cm``).
        generator: chance for the negatives that ``released-code`` reports.

    Raises:
        StcclError: shapes differ, a value is not finite, or there are too few regions.
    """
    settings = settings or ContrastSettings()
    source, generated = _matched(source, generated)
    height, width = source.shape[-2:]
    if settings.form == "vd":
        x, y = (
            _mapped(rep.spatial_disparity(maps, centres, neighbours=settings.neighbours), head)
            for maps in (source, generated)
        )
        layout = (height - 2, width - 2) if centres is None else (len(centres),)
        x, y = x.flatten(1, 2), y.flatten(1, 2)
        if settings.definition == "released-code":
            terms = released_terms(x, y, settings, generator=generator)
        elif settings.spatial_negatives == "positions":
            terms = contrast(x, y, region_weights(x, settings), settings.temperature)
        else:
            x, y = (torch.unflatten(rows, 1, (-1, settings.neighbours)) for rows in (x, y))
            terms = contrast(x, y, region_weights(x, settings), settings.temperature)
        each = terms.per_region.reshape(len(source), -1, settings.neighbours)
        return terms._replace(per_region=torch.unflatten(each.mean(-1), 1, layout))
    x, y = (
        _mapped(rep.region_rows(rep.checked_maps(maps), centres), head)
        for maps in (source, generated)
    )
    layout = (height, width) if centres is None else (len(centres),)
    terms = _matrix_terms(rep.gram(x), rep.gram(y), settings, "regions")
    return terms._replace(per_region=torch.unflatten(terms.per_region, 1, layout))


def temporal_terms(
    source: Tensor,
    generated: Tensor,
    settings: ContrastSettings | None = None,
    centres: Tensor | None = None,
    *,
    head: Head | None = None,
    generator: torch.Generator | None = None,
) -> Terms:
    """Compare one stage of two batches of sequences (as `spatial_terms`, over time).

    Sequences longer than ``settings.window`` are taken window by window
    (`representations.windows`), so that the number of negatives does not grow with them.

    Args:
        source: sequences ``(B, T, C, H, W)``, T at least ``settings.window``; no gradient
            reaches them.
        generated: sequences of the same shape.
        settings: how; without it the paper's.
        centres: regions ``(N, 2)``, the same for the whole batch; without it all.
        head: mapping f, applied to disparities (``vd``) or to regions before the product
            (``cm``).
        generator: chance for the negatives that ``released-code`` reports.

    Raises:
        StcclError: shapes differ, a value is not finite, or there are too few frames.
    """
    settings = settings or ContrastSettings()
    source, generated = _matched(source, generated)
    source, generated = rep.checked_sequence(source), rep.checked_sequence(generated)
    frames = source.shape[1]
    by_regions = settings.form == "vd" and settings.temporal_negatives == "regions"
    layout = tuple(source.shape[-2:]) if centres is None else (len(centres),)
    if settings.form == "cm":
        groups = rep.windows(frames, settings.window).to(source.device)
        x, y = (_mapped(rep.region_rows(maps, centres), head) for maps in (source, generated))
        gram_x, gram_y = (rep.gram(_grouped(rows, groups)) for rows in (x, y))
        terms = _matrix_terms(gram_x, gram_y, settings, "frames")
        return _ungrouped(terms, groups, frames, layout)
    released = settings.definition == "released-code"
    pairs, groups = rep.grouped_pairs(
        frames, "window" if released else settings.pairs, settings.window
    )
    pairs, groups = pairs.to(source.device), groups.to(source.device)
    if by_regions and not released:
        return _beside_terms(source, generated, pairs, settings, centres, head)
    x, y = (
        _mapped(rep.disparity_of_frames(rep.region_rows(maps, centres), pairs), head)
        for maps in (source, generated)
    )
    if released:
        terms = released_terms(
            x.flatten(0, 1), y.flatten(0, 1), settings, temporal=True, generator=generator
        )
        return terms._replace(per_region=terms.per_region.reshape(-1, len(pairs), *layout))
    if settings.temporal_negatives == "positions":
        if x.shape[2] < 2:
            raise StcclError("one region has no others to differ from", "Sample at least 2")
        terms = contrast(x, y, region_weights(x, settings), settings.temperature)
        return terms._replace(per_region=torch.unflatten(terms.per_region, 2, layout))
    x, y = _grouped(x, groups), _grouped(y, groups)
    terms = contrast(x, y, region_weights(x, settings), settings.temperature)
    return _ungrouped(terms, groups, len(pairs), layout)


def parts(spatial: Sequence[Terms] = (), temporal: Sequence[Terms] = ()) -> dict[str, Tensor]:
    """Average stages, and name every part (the sum over layers of equation 7, as a mean).

    Args:
        spatial: `spatial_terms` of each stage, first to last.
        temporal: `temporal_terms` of each stage, first to last.

    Returns:
        scalars: ``loss``, the sum of ``scc`` and ``tcc`` as far as given, each the mean of
        its stages' losses; ``scc_positive``, ``scc_negative``, the mean similarities; and
        the same of each stage, ``scc_stage1``, ``scc_stage1_positive`` and so on.

    Raises:
        StcclError: no stage at all.
    """
    if not spatial and not temporal:
        raise StcclError("no stage was compared", "Give terms of at least one")
    named: dict[str, Tensor] = {}
    for name, stages in (("scc", spatial), ("tcc", temporal)):
        if not stages:
            continue
        named[name] = torch.stack([terms.loss for terms in stages]).mean()
        named[f"{name}_positive"] = torch.stack([terms.positive for terms in stages]).mean()
        named[f"{name}_negative"] = torch.stack([terms.negative for terms in stages]).mean()
        for number, terms in enumerate(stages, start=1):
            named[f"{name}_stage{number}"] = terms.loss
            named[f"{name}_stage{number}_positive"] = terms.positive
            named[f"{name}_stage{number}_negative"] = terms.negative
    loss = torch.stack([named[name] for name in ("scc", "tcc") if name in named]).sum()
    return {"loss": loss, **named}


def contrast(
    source: Tensor, generated: Tensor, weights: Tensor | None, temperature: float = 0.07
) -> Terms:
    """Contrast K representations of each region (equations 1, 4 and 7).

    ``s_jk = cos(x_j, y_k)``: positive where j = k. The loss is the mean over everything of
    ``w_j * InfoNCE_j``.

    Args:
        source: ``(..., K, D)``, the anchors x, K at least 2.
        generated: ``(..., K, D)``, y.
        weights: ``(..., K)``, of each anchor; without it 1.
        temperature: tau.

    Returns:
        terms with ``per_region`` of shape ``(..., K)``.
    """
    return _terms_of(rep.cosine_grid(source, generated), weights, temperature)


def info_nce(similarities: Tensor, temperature: float = 0.07) -> Tensor:
    """Return ``-log(exp(s_jj / tau) / sum_k exp(s_jk / tau))`` (equation 4, as InfoNCE).

    Args:
        similarities: ``(..., K, K)``, anchors by candidates, positives on the diagonal.
        temperature: tau.

    Returns:
        ``(..., K)``, at least 0; ``log K`` where all candidates are alike.
    """
    with torch.autocast(similarities.device.type, enabled=False):
        logits = rep.widened(similarities) / temperature
        return logits.logsumexp(-1) - logits.diagonal(dim1=-2, dim2=-1)


def region_weights(disparity: Tensor, settings: ContrastSettings) -> Tensor | None:
    """Return the adaptive weight of each pair, ``lambda * sigmoid(x)^r`` (equation 6).

    The equation has a vector x where a number is needed, and the text says that a larger
    disparity weighs more. ``rms``, our choice, is the root mean square over channels: never
    negative, unchanged by a rotation of channels, and on one scale for 64 channels and
    for 512. ``norm`` is the length; ``channels`` weighs by the mean over channels of the
    formula as it stands, signs included. With ``rms`` and lambda = r = 2 weights lie
    between 0.5 (no disparity) and 2.

    The weight is a constant: no gradient goes through it, or a head could lower its loss by
    calling hard regions easy.

    Args:
        disparity: ``(..., D)``, of the source, after the mapping.
        settings: ``adaptive``, ``strength``, ``power`` and ``size``.

    Returns:
        ``(...)``, detached, or nothing when not adaptive.
    """
    if not settings.adaptive:
        return None
    x = rep.widened(disparity.detach())
    if settings.size == "channels":
        return settings.strength * x.sigmoid().pow(settings.power).mean(-1)
    square = x.square().sum(-1) if settings.size == "norm" else x.square().mean(-1)
    return settings.strength * square.sqrt().sigmoid().pow(settings.power)


def matrix_weights(matrix: Tensor, settings: ContrastSettings) -> Tensor | None:
    """Return the adaptive weight of each row of a correlation matrix (equation 6, CM).

    Between two features of unit length, the squared disparity is ``2 - 2 G_ij``: so the
    matrix tells how far region i is from the others, and that distance (root mean square
    over j, or ``norm`` for the root of the sum) takes the place of x. ``channels`` puts the
    entries of the row itself in. Our reading: the public material does not say.

    Args:
        matrix: ``(..., N, N)`` of the source.
        settings: ``adaptive``, ``strength``, ``power`` and ``size``.

    Returns:
        ``(..., N)``, detached, or nothing when not adaptive.
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


def matrix_rows(matrix: Tensor, rows: Rows = "centred") -> Tensor:
    """Return what represents each region of a correlation matrix, scaled to unit length.

    ``cosine`` takes a row as it stands. Its entry on the diagonal is 1 whatever the images
    show, so regions that have nothing to do with each other make both matrices the unit
    matrix, and any two images alike: a head can learn just that. And where features share
    a common part (after a ReLU all are positive), all rows are alike. ``centred``, the
    default, therefore leaves the diagonal out and takes the mean of the others away; the
    cosine of two such rows is a Pearson correlation of how two regions relate to the rest.

    Args:
        matrix: ``(..., N, N)``, N at least 3 (2 for ``cosine``).
        rows: ``centred`` or ``cosine``.

    Returns:
        ``(..., N, N)``, each row of length 1, or 0 where it is flat.
    """
    if rows == "cosine":
        return rep.unit(matrix)
    count = matrix.shape[-1]
    itself = torch.eye(count, dtype=torch.bool, device=matrix.device)
    others = matrix.masked_fill(itself, 0.0)
    mean = others.sum(-1, keepdim=True) / (count - 1)
    return rep.unit((others - mean).masked_fill(itself, 0.0), _FLAT_ROW)


def released_terms(
    source: Tensor,
    generated: Tensor,
    settings: ContrastSettings,
    *,
    temporal: bool = False,
    generator: torch.Generator | None = None,
) -> Terms:
    """Compare as the authors' released code does.

    * The generated positions are the anchors; the source, scaled to unit length, is
      detached (after the mapping, which so learns from the generated side alone).
    * Cross-entropy over 1 positive and S - 1 negatives: all other sampled positions of the
      same image, at any centre.
    * Weight 1, or ``2 sigmoid(|x|)^2`` where ``sigmoid(|x|) > 0.8``, for every number x of
      the mapped source disparity. The loss is averaged before it is multiplied, so only the
      mean weight acts. (After scaling to unit length no sigmoid would exceed 0.8.)
    * Temporal: 0.07 stands in the place of the weight, and the loss is multiplied by 5. Each
      pair of frames counts as an image.
    * The similarity reported is the cosine over sample positions, channel by channel; the
      negative one has the positions of the generated in a random order.

    S x S similarities are made for each image: meant for sampled centres.

    Args:
        source: mapped disparities ``(B, S, D)``, S at least 2.
        generated: the same of the generated.
        settings: ``temperature``, ``adaptive``, ``strength`` and ``power``.
        temporal: whether the disparities are between frames.
        generator: chance for the random order, on the CPU.

    Returns:
        terms with ``per_region`` ``(B, S)``, cosines over channels.

    Raises:
        StcclError: fewer than two positions.
    """
    source, generated = rep.widened(source).detach(), rep.widened(generated)
    if source.shape[1] < 2:
        raise StcclError("one sampled position has no negatives", "Sample at least 2")
    with torch.autocast(source.device.type, enabled=False):
        x, y = rep.unit(source), rep.unit(generated)
        alike = y @ x.transpose(1, 2)
        loss = info_nce(alike, settings.temperature).mean()
        if temporal:
            loss = loss * 0.07 * 5.0
        elif settings.adaptive:
            gate = source.abs().sigmoid()
            weights = torch.where(gate > 0.8, settings.strength * gate.pow(settings.power), 1.0)
            loss = loss * weights.mean()
        y = y.detach()
        order = torch.randperm(y.shape[1], generator=generator).to(y.device)
        return Terms(
            loss=loss,
            positive=F.cosine_similarity(x, y, dim=1).mean(),
            negative=F.cosine_similarity(x, y[:, order], dim=1).mean(),
            per_region=alike.detach().diagonal(dim1=1, dim2=2),
        )


def _matrix_terms(x: Tensor, y: Tensor, settings: ContrastSettings, what: str) -> Terms:
    fewest = 2 if settings.rows == "cosine" else 3
    if x.shape[-1] < fewest:
        raise StcclError(
            f"a correlation matrix of {x.shape[-1]} {what}",
            f"Rows '{settings.rows}' need at least {fewest} {what}",
        )
    with torch.autocast(x.device.type, enabled=False):
        rows_x, rows_y = (matrix_rows(matrix, settings.rows) for matrix in (x, y))
        alike = rows_x @ rows_y.transpose(-2, -1)
    return _terms_of(alike, matrix_weights(x, settings), settings.temperature)


def _terms_of(alike: Tensor, weights: Tensor | None, temperature: float) -> Terms:
    loss = info_nce(alike, temperature)
    same = alike.detach().diagonal(dim1=-2, dim2=-1)
    candidates = alike.shape[-1]
    return Terms(
        loss=(loss if weights is None else weights * loss).mean(),
        positive=same.mean(),
        negative=(alike.detach().sum((-2, -1)) - same.sum(-1)).mean()
        / (candidates * (candidates - 1)),
        per_region=same,
    )


def _beside_terms(
    source: Tensor,
    generated: Tensor,
    pairs: Tensor,
    settings: ContrastSettings,
    centres: Tensor | None,
    head: Head | None,
) -> Terms:
    """Contrast each region's change with that of its neighbours, in the same pair of frames."""
    height, width = source.shape[-2:]
    if min(height, width) < 3:
        raise StcclError(
            f"a region with its neighbours is 3 x 3, larger than the map of {height} x {width}",
            "Use larger images, or temporal negatives from 'frames'",
        )
    layout = (height - 2, width - 2) if centres is None else (len(centres),)
    if centres is None:
        centres = rep.grid_centres(height, width)
    centres = rep.checked_centres(centres, height, width, border=1).to(source.device)
    x = _mapped(rep.disparity_of_frames(rep.region_rows(source, centres), pairs), head)
    y = _mapped(rep.disparity_of_frames(rep.region_rows(generated), pairs), head)
    with torch.autocast(x.device.type, enabled=False):
        anchors, candidates = rep.unit(rep.widened(x)), rep.unit(rep.widened(y))
        # One neighbour at a time: all at once would copy the sequence nine times.
        alike = []
        for down, right in ((0, 0), *rep.STEPS[settings.neighbours]):
            place = (centres[:, 0] + down) * width + centres[:, 1] + right
            alike.append(torch.einsum("bprc,bprc->bpr", anchors, candidates.index_select(2, place)))
        similarities = torch.stack(alike, dim=-1)
        logits = similarities / settings.temperature
        loss = logits.logsumexp(-1) - logits[..., 0]
    weights = region_weights(x, settings)
    similarities = similarities.detach()
    return Terms(
        loss=(loss if weights is None else weights * loss).mean(),
        positive=similarities[..., 0].mean(),
        negative=similarities[..., 1:].mean(),
        per_region=torch.unflatten(similarities[..., 0], 2, layout),
    )


def _matched(source: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Return both, the source cut off from gradients."""
    if source.shape != generated.shape:
        raise StcclError(
            f"source {tuple(source.shape)} and generated {tuple(generated.shape)} differ in shape",
            "Give the same frames of both, at one size",
        )
    if (source.device, rep.widened(source[:0]).dtype) != (
        generated.device,
        rep.widened(generated[:0]).dtype,
    ):
        raise StcclError(
            f"source is {source.dtype} on {source.device}, "
            f"generated {generated.dtype} on {generated.device}",
            "Bring both to one device and floating type",
        )
    return source.detach(), generated


def _mapped(rows: Tensor, head: Head | None) -> Tensor:
    return rows if head is None else head(rows)


def _grouped(rows: Tensor, groups: Tensor) -> Tensor:
    """Return ``(B, n, R, K, D)`` for rows ``(B, P, R, D)`` and groups ``(n, K)`` of them."""
    chosen = torch.unflatten(rows.index_select(1, groups.flatten()), 1, tuple(groups.shape))
    return chosen.transpose(2, 3)


def _ungrouped(terms: Terms, groups: Tensor, count: int, layout: tuple[int, ...]) -> Terms:
    """Lay out ``per_region`` ``(B, n, R, K)`` as ``(B, P, ...)``: the mean of all windows."""
    values = terms.per_region.transpose(2, 3).flatten(1, 2)
    total = values.new_zeros(len(values), count, values.shape[-1])
    total.index_add_(1, groups.flatten(), values)
    times = torch.bincount(groups.flatten(), minlength=count)
    return terms._replace(per_region=torch.unflatten(total / times[None, :, None], 2, layout))
