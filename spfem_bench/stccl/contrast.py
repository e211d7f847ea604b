"""Comparison of one stage of source and generated, in space and in time.

Gradients reach the generated maps and heads, never the source. Arithmetic is float32 or float64;
only a head runs in autocast's precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from spfem_bench.errors import StcclError
from spfem_bench.stccl import losses
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.losses import Terms
from spfem_bench.stccl.settings import ContrastSettings as ContrastSettings

#: A mapping ``f`` of equation 3: ``(..., C)`` to ``(..., D)``.
Head = Callable[[Tensor], Tensor]

#: Names of a comparison's numbers, by the attributes of `Terms`.
_SUFFIXES = {"loss": "", "positive": "_positive", "negative": "_negative"}


def spatial_terms(
    source: Tensor,
    generated: Tensor,
    settings: ContrastSettings | None = None,
    centres: Tensor | None = None,
    *,
    head: Head | None = None,
    generator: torch.Generator | None = None,
) -> Terms:
    """Compare one stage ``(B, C, H, W)`` of two batches of images (equations 1, 3, 4, 6, 7).

    Defaults: the paper's settings, and all regions for centres ``(N, 2)``. The head f maps
    disparities (``vd``), or regions before the product (``cm``). The generator draws negatives of
    ``released-code``. Dense ``vd`` needs about ``34 C H W`` numbers an image, ``cm`` ``5 (H W)^2``.

    Raises:
        StcclError: shapes differ, a value is not finite, or there are too few regions.
    """
    settings = settings or ContrastSettings()
    source, generated = _matched(source, generated)
    height, width = source.shape[-2:]
    if settings.form == "cm":
        x, y = rep.checked_maps(source), rep.checked_maps(generated)
        x, y = (_mapped(rep.feature_rows(maps, centres), head) for maps in (x, y))
        layout = (height, width) if centres is None else (len(centres),)
        terms = losses.matrix_terms(rep.gram(x), rep.gram(y), settings, "regions")
        return terms._replace(per_region=torch.unflatten(terms.per_region, 1, layout))
    raw_x, raw_y = (
        rep.spatial_disparity(maps, centres, neighbours=settings.neighbours).flatten(1, 2)
        for maps in (source, generated)
    )
    layout = (height - 2, width - 2) if centres is None else (len(centres),)
    x, y = _mapped(raw_x, head), _mapped(raw_y, head)
    if settings.definition == "released-code":
        raw = raw_x
        if settings.anchor == "generated":
            x, y, raw = y, x, raw_y
        terms = losses.released_terms(x, y, settings, raw=raw, generator=generator)
    else:
        if settings.spatial_negatives == "neighbours":
            x, y = (torch.unflatten(rows, 1, (-1, settings.neighbours)) for rows in (x, y))
        weights = losses.region_weights(x, settings)
        terms = losses.contrast_terms(x, y, weights, settings.temperature)
    each = terms.per_region.reshape(len(source), -1, settings.neighbours)
    return terms._replace(per_region=torch.unflatten(each.mean(-1), 1, layout))


def temporal_terms(
    source: Tensor,
    generated: Tensor,
    settings: ContrastSettings | None = None,
    centres: Tensor | None = None,
    *,
    head: Head | None = None,
    generator: torch.Generator | None = None,
) -> Terms:
    """Compare one stage of two batches of sequences ``(B, T, C, H, W)``, as `spatial_terms`.

    T is at least ``settings.window``; longer ones are divided by `representations.frame_windows`.

    Raises:
        StcclError: shapes differ, a value is not finite, or there are too few frames.
    """
    settings = settings or ContrastSettings()
    source, generated = _matched(source, generated)
    source, generated = rep.checked_sequence(source), rep.checked_sequence(generated)
    frames = source.shape[1]
    layout = tuple(source.shape[-2:]) if centres is None else (len(centres),)
    if settings.form == "cm":
        groups = rep.frame_windows(frames, settings.window).to(source.device)
        x, y = (_mapped(rep.feature_rows(maps, centres), head) for maps in (source, generated))
        gram_x, gram_y = (rep.gram(_grouped(rows, groups)) for rows in (x, y))
        terms = losses.matrix_terms(gram_x, gram_y, settings, "frames")
        return _ungrouped(terms, groups, frames, layout)
    released = settings.definition == "released-code"
    # The released code pairs all frames of a sequence.
    which: rep.Pairs = "window" if released else settings.pairs
    window = frames if released else settings.window
    pairs, groups = (
        numbers.to(source.device) for numbers in rep.grouped_pairs(frames, which, window)
    )
    if settings.temporal_negatives == "regions" and not released:
        return _neighbour_terms(source, generated, pairs, settings, centres, head)
    x, y = (rep.feature_rows(maps, centres) for maps in (source, generated))
    x, y = (_mapped(rep.disparity_of_frames(rows, pairs), head) for rows in (x, y))
    if released:
        x, y = x.flatten(0, 1), y.flatten(0, 1)
        if settings.anchor == "generated":
            x, y = y, x
        terms = losses.released_terms(x, y, settings, model="temporal", generator=generator)
        return terms._replace(per_region=terms.per_region.reshape(-1, len(pairs), *layout))
    by_positions = settings.temporal_negatives == "positions"
    if by_positions and x.shape[2] < 2:
        raise StcclError("one region has no others to differ from", "Sample at least 2")
    if not by_positions:
        x, y = _grouped(x, groups), _grouped(y, groups)
    terms = losses.contrast_terms(x, y, losses.region_weights(x, settings), settings.temperature)
    if by_positions:
        return terms._replace(per_region=torch.unflatten(terms.per_region, 2, layout))
    return _ungrouped(terms, groups, len(pairs), layout)


def stage_terms(
    compare: Callable[..., Terms],
    stages: Iterable[tuple[Tensor, Tensor, Tensor | None]],
    settings: ContrastSettings,
    heads: nn.ModuleList | None,
    generator: torch.Generator | None = None,
) -> list[Terms]:
    """Return the terms of all stages, first to last: of source, generated and centres of each.

    *compare* is `spatial_terms` or `temporal_terms`; *heads* has the mapping f of each stage.
    """
    return [
        compare(x, y, settings, where, head=heads[k] if heads else None, generator=generator)
        for k, (x, y, where) in enumerate(stages)
    ]


def parts(
    spatial: Sequence[Terms] = (),
    temporal: Sequence[Terms] = (),
    content: Sequence[Terms] = (),
) -> dict[str, Tensor]:
    """Return scalars by name: means over stages (the sum over layers of equation 7, as a mean).

    ``loss`` is the sum of ``scc``, ``tcc`` and ``sct`` where they are given, each the mean of its
    stages' losses; ``scc_positive`` and ``scc_negative`` are mean similarities; ``scc_stage1``,
    ``scc_stage1_positive`` and so on are the same of each stage.
    """
    named: dict[str, Tensor] = {}
    for name, stages in (("scc", spatial), ("tcc", temporal), ("sct", content)):
        for number in _SUFFIXES if stages else ():
            values = [getattr(terms, number) for terms in stages]
            named[name + _SUFFIXES[number]] = torch.stack(values).mean()
            for stage, value in enumerate(values, start=1):
                named[f"{name}_stage{stage}{_SUFFIXES[number]}"] = value
    if not named:
        raise StcclError("no stage was compared", "Give terms of at least one")
    loss = torch.stack([named[name] for name in ("scc", "tcc", "sct") if name in named]).sum()
    return {"loss": loss, **named}


def _neighbour_terms(
    source: Tensor,
    generated: Tensor,
    pairs: Tensor,
    settings: ContrastSettings,
    centres: Tensor | None,
    head: Head | None,
) -> Terms:
    """Contrast each region's change with that of its neighbours, in the same pair of frames."""
    rep.check_neighbours(source, "Use larger images, or temporal negatives from 'frames'")
    height, width = source.shape[-2:]
    layout = (height - 2, width - 2) if centres is None else (len(centres),)
    centres = rep.grid_centres(height, width) if centres is None else centres
    centres = rep.checked_centres(centres, height, width, border=1).to(source.device)
    x = _mapped(rep.disparity_of_frames(rep.feature_rows(source, centres), pairs), head)
    y = _mapped(rep.disparity_of_frames(rep.feature_rows(generated), pairs), head)
    with torch.autocast(x.device.type, enabled=False):
        anchors, candidates = rep.unit(rep.widened(x)), rep.unit(rep.widened(y))
        # One neighbour at a time: all at once would copy the sequence nine times.
        cosines = []
        for down, right in ((0, 0), *rep.STEPS[settings.neighbours]):
            place = (centres[:, 0] + down) * width + centres[:, 1] + right
            chosen = candidates.index_select(2, place)
            cosines.append(torch.einsum("bprc,bprc->bpr", anchors, chosen))
        similarities = torch.stack(cosines, dim=-1)
        logits = similarities / settings.temperature
        loss = logits.logsumexp(-1) - logits[..., 0]
    weights = losses.region_weights(x, settings)
    similarities = similarities.detach()
    return Terms(
        loss=(loss if weights is None else weights * loss).mean(),
        positive=similarities[..., 0].mean(),
        negative=similarities[..., 1:].mean(),
        per_region=torch.unflatten(similarities[..., 0], 2, layout),
    )


def _matched(source: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Return both, the source without gradients."""
    rep.check_same_shape(source, generated)
    kinds = [(maps.device, rep.widened(maps[:0]).dtype) for maps in (source, generated)]
    if kinds[0] != kinds[1]:
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
