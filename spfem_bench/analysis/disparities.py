"""Similarities of the local disparities of one pair of recordings, and of its controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812  (the field's name for it)
from torch import Tensor

from spfem_bench.datasets.pairs import EmotionPair
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.stccl import content, contrast, dense
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.backbone import Backbone, backbone
from spfem_bench.stccl.content import ContentHeads
from spfem_bench.stccl.contrast import Head
from spfem_bench.stccl.metric import STCCL, Form, Heads, grid_of_regions
from spfem_bench.stccl.settings import ContentSettings, ContrastSettings, FormSettings

Definition = Literal["paper", "released-code", "released-logs"]
Measure = Literal["cosine", "pearson"]
DisparitySpace = Literal["spatial", "temporal", "moments"]
_Control = Literal["other speaker", "wrong time"]
_Excess = Literal["above other speaker", "above wrong time"]
DiscoveryKind = Literal["positive", "elsewhere", "near", _Control, _Excess]

KINDS: tuple[DiscoveryKind, ...] = get_args(DiscoveryKind)
SPACES: tuple[DisparitySpace, ...] = get_args(DisparitySpace)

CONTROLS = dict(zip(get_args(_Control), get_args(_Excess), strict=True))
"""Controls, and the name of the positive less each of them."""

WINDOW = dense.WINDOW
"""Consecutive frames that are compared together."""

RELEASED_WINDOW = 9
"""The same in the released code (``temporal_coherent_loader.py``, n = 4 on each side)."""

CONTENT_WINDOW = 25
"""The same of the form ``ct``: a second."""

SIZE = 112
"""Side in pixels of the pictures; the released code's is 224."""

_Numbers = npt.NDArray[np.int64]
_Pictures = npt.NDArray[np.uint8]

ValueKey = tuple[str, DisparitySpace, int, Measure, DiscoveryKind]
"""The network, space, stage, measure and kind that a value belongs to."""

SubjectValues = dict[ValueKey, float]


def window_of(definition: Definition, form: Form = "vd") -> int:
    """Return how many consecutive frames are compared together."""
    if form == "ct":
        return CONTENT_WINDOW
    return WINDOW if definition == "paper" else RELEASED_WINDOW


class Subject(NamedTuple):
    """Windows of one pair and its controls, uint8 (n, T, size, size, 3); None where there is none.

    ``target`` has the same moments in the other emotion, ``wrong_time`` other moments of it.
    """

    source: _Pictures
    target: _Pictures
    wrong_time: _Pictures | None
    other_speaker: _Pictures | None


def starts(pair: EmotionPair, count: int, window: int = WINDOW) -> _Numbers:
    """Return the first entries of up to *count* windows in which both go on, evenly over a pair.

    In the long windows of ``ct`` a frame may follow itself: two readings differ in pace.
    """
    possible = pair.windows(window, moving=window < CONTENT_WINDOW)
    steps = np.diff(pair.numbers[:, 0]) == 1
    possible = np.array([s for s in possible if steps[s : s + window - 1].all()], np.int64)
    if len(possible) <= count:
        return possible
    return possible[((np.arange(count) + 0.5) * len(possible) / count).astype(np.int64)]


def wrong_times(pair: EmotionPair, chosen: _Numbers, window: int = WINDOW) -> _Numbers | None:
    """Return for each window the start of one half of the windows further; None without one."""
    possible = starts(pair, len(pair), window)
    if not len(possible):
        return None
    place = np.searchsorted(possible, chosen)
    shifted = possible[(place + len(possible) // 2) % len(possible)]
    far = np.abs(pair.numbers[shifted, 1] - pair.numbers[chosen, 1]) >= window
    return shifted if far.all() else None


def stand_in(pairs: Sequence[EmotionPair], index: int) -> EmotionPair | None:
    """Return the next pair, cyclically, of another speaker in the same emotion, else in any."""
    own = pairs[index]
    order = [*pairs[index + 1 :], *pairs[:index]]
    others = [p for p in order if p.speaker != own.speaker]
    return next((p for p in others if p.emotion == own.emotion), others[0] if others else None)


def draw_subject(
    pairs: Sequence[EmotionPair], index: int, windows: int, window: int = WINDOW, size: int = SIZE
) -> Subject | None:
    """Return the pictures of a pair and its controls, posed as the source; None without a window.

    Raises:
        ClipError: a frame is absent, unreadable or without a face.
    """
    pair = pairs[index]
    chosen = starts(pair, windows, window)
    if not len(chosen):
        return None

    def entries(first: _Numbers) -> _Numbers:
        return (first[:, None] + np.arange(window)).ravel()

    own = entries(chosen)
    shape = (len(chosen), window, size, size, 3)
    both = [pair.pictures(int(k), size) for k in own]
    source, target = (np.stack(side).reshape(shape) for side in zip(*both, strict=True))

    def control(other: EmotionPair, first: _Numbers) -> _Pictures:
        columns = np.stack([pair.numbers[own, 0], other.numbers[entries(first), 1]], axis=1)
        mixed = replace(pair, emotional=other.emotional, numbers=columns)
        return np.stack([mixed.pictures(k, size)[1] for k in range(len(own))]).reshape(shape)

    shifted, other = wrong_times(pair, chosen, window), stand_in(pairs, index)
    theirs = starts(other, windows, window) if other else np.array([], np.int64)
    return Subject(
        source,
        target,
        None if shifted is None else control(pair, shifted),
        control(other, np.resize(theirs, len(chosen))) if other and len(theirs) else None,
    )


class Lens(NamedTuple):
    """A way to compare feature maps.

    Attributes:
        name: ``untrained``, or the learnt metric's.
        heads: its mappings.
        form: ``vd``; ``cm`` for correlation matrices, of which only cosines of centred rows
            (which are Pearson's) are computed; ``ct`` for moments (`stccl.content`), by cosines.
        settings: for ``cm`` and ``ct``.
    """

    name: str = "untrained"
    heads: Heads | ContentHeads | None = None
    form: Form = "vd"
    settings: ContrastSettings | ContentSettings | None = None


def make_lenses(
    network: str,
    metric: str | None,
    form: Form,
    weights: WeightsStore,
    device: str = "cpu",
    size: int = SIZE,
) -> tuple[Backbone, list[Lens]]:
    """Return the backbone, and the lenses of its features and of a learnt metric (name or path).

    *size* is the side of the backbone's input in pixels; a learnt metric has its own.

    Raises:
        SpfemBenchError: an unknown name, missing files, or a form that the metric lacks.
    """
    if metric is None:
        return backbone(network, weights, size=size, device=device), [Lens(form=form)]
    learnt = STCCL.load(metric, form=form, weights=weights, device=device)
    how = learnt.settings
    settings = how.contrast if isinstance(how, FormSettings) else how
    untrained = Lens(form=form, settings=settings)
    trained = untrained._replace(name=Path(metric).stem, heads=learnt.heads)
    return learnt.backbone, [untrained, trained]


class _Similarities(NamedTuple):
    positive: float
    elsewhere: float
    near: float = np.nan


def subject_values(
    subject: Subject,
    network: Backbone,
    lenses: Sequence[Lens],
    definition: Definition,
    seed: int,
    device: str,
) -> SubjectValues:
    """Return the mean over windows and regions for each key; kinds that *subject* lacks are out."""
    shape, size = subject.source.shape[:2], subject.source.shape[2]

    def maps(pictures: _Pictures) -> list[Tensor]:
        batch = torch.from_numpy(pictures.reshape(-1, size, size, 3)).to(device)
        stages = network.stages(batch.permute(0, 3, 1, 2).float() / 127.5 - 1)
        return [torch.unflatten(m, 0, shape) for m in stages]

    values: SubjectValues = {}
    compared: dict[DiscoveryKind, _Pictures | None] = {
        "positive": subject.target,
        "other speaker": subject.other_speaker,
        "wrong time": subject.wrong_time,
    }
    with torch.inference_mode():
        source = maps(subject.source)
        for kind, pictures in compared.items():
            if pictures is None:
                continue
            other = maps(pictures)
            for lens in lenses:
                for stage, (x, y) in enumerate(zip(source, other, strict=True), start=1):
                    for space, measure, found in _compared(x, y, lens, stage, definition, seed):
                        key = lens.name, space, stage, measure
                        values[(*key, kind)] = found.positive
                        if kind == "positive":
                            values[(*key, "elsewhere")] = found.elsewhere
                        if kind == "positive" and np.isfinite(found.near):
                            values[(*key, "near")] = found.near
    for name, space, stage, measure, kind in list(values):
        if kind in CONTROLS:
            key = name, space, stage, measure
            values[(*key, CONTROLS[kind])] = values[(*key, "positive")] - values[(*key, kind)]
    return values


def _compared(
    x: Tensor, y: Tensor, lens: Lens, stage: int, definition: Definition, seed: int
) -> Iterator[tuple[DisparitySpace, Measure, _Similarities]]:
    """Yield the similarities of one stage of two sequences ``(n, T, C, H, W)``."""
    if lens.form == "ct":
        how = lens.settings if isinstance(lens.settings, ContentSettings) else ContentSettings()
        heads = cast("ContentHeads | None", lens.heads)
        own = heads.stages[stage - 1] if heads else None
        terms = content.content_terms(x[:, :: how.every], y[:, :: how.every], how, head=own)
        yield "moments", "cosine", _Similarities(float(terms.positive), float(terms.negative))
        return
    for space in SPACES[:2]:
        head: Head | None = getattr(lens.heads, space)[stage - 1] if lens.heads else None
        if lens.form == "cm":
            settings = cast("ContrastSettings", lens.settings) or ContrastSettings(form="cm")
            yield space, "pearson", _matrices(x, y, space, head, settings)
            continue
        for measure in get_args(Measure):
            if definition == "paper":
                yield space, measure, _dense(x, y, space, head, measure)
            elif definition == "released-code":
                sampled = _released(x, y, space, stage, head, seed)
                yield space, measure, _Similarities(*released(*sampled, measure))
            else:
                sampled = _released(x, y, space, stage, head, seed)
                yield space, measure, _Similarities(*released_logs(*sampled, measure))


def _dense(
    x: Tensor, y: Tensor, space: DisparitySpace, head: Head | None, measure: Measure
) -> _Similarities:
    if measure == "pearson":
        if head is None:
            x, y = (torch.unflatten(dense.centred(m.flatten(0, 1)), 0, m.shape[:2]) for m in (x, y))
        else:
            head = _centred_head(head)
    if space == "spatial":
        parts = [dense.spatial(x.flatten(0, 1), y.flatten(0, 1), head)]
    else:
        parts = [dense.temporal(a, b, head) for a, b in zip(x, y, strict=True)]
    means = (
        float(torch.cat([getattr(part, kind).flatten() for part in parts]).double().mean())
        for kind in _Similarities._fields
    )
    return _Similarities(*means)


def _centred_head(head: Head) -> Head:
    def mapped(rows: Tensor) -> Tensor:
        out = rep.widened(head(rows))
        return out - out.mean(-1, keepdim=True)

    return mapped


def _matrices(
    x: Tensor, y: Tensor, space: DisparitySpace, head: Head | None, settings: ContrastSettings
) -> _Similarities:
    centres = grid_of_regions(x.shape[-2], x.shape[-1]).to(x.device)
    if space == "spatial":
        x, y = x.flatten(0, 1), y.flatten(0, 1)
        terms = contrast.spatial_terms(x, y, settings, centres, head=head)
    else:
        terms = contrast.temporal_terms(x, y, settings, centres, head=head)
    return _Similarities(float(terms.positive), float(terms.negative))


def _released(
    x: Tensor, y: Tensor, space: DisparitySpace, stage: int, head: Head | None, seed: int
) -> tuple[Tensor, Tensor, torch.Generator]:
    """Return the disparities at the positions of a stage, and the generator that drew them."""
    # The same positions for a pair's controls: they differ from the positive by frames alone.
    generator = torch.Generator().manual_seed(seed)
    spatial = space == "spatial"
    sample = rep.sample_centres if spatial else rep.sample_positions
    count = (rep.CENTRES_PER_STAGE if spatial else rep.RELEASED_POSITIONS)[stage - 1]
    centres = sample(x.shape[-2], x.shape[-1], count, generator).to(x.device)
    if spatial:
        dx, dy = (rep.spatial_disparity(m.flatten(0, 1), centres).flatten(1, 2) for m in (x, y))
    else:
        pairs = rep.frame_pairs(x.shape[1], "window").to(x.device)
        rows = (rep.feature_rows(m, centres) for m in (x, y))
        dx, dy = (rep.disparity_of_frames(each, pairs).flatten(0, 1) for each in rows)
    return (head(dx), head(dy), generator) if head else (dx, dy, generator)


def released(
    source: Tensor, generated: Tensor, generator: torch.Generator, measure: Measure = "cosine"
) -> tuple[float, float]:
    """Return positive and negative similarity as the released code writes them to TensorBoard.

    Vectors ``(B, S, D)`` are scaled to length 1 over channels; then each channel is compared over
    the positions S, and channels are averaged. The negative has the generated positions in a
    random order. ``pearson`` subtracts the mean over positions.
    """
    x, y = rep.unit(rep.widened(source)), rep.unit(rep.widened(generated))
    if measure == "pearson":
        x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    order = torch.randperm(y.shape[1], generator=generator).to(y.device)
    return (
        float(F.cosine_similarity(x, y, dim=1).mean()),
        float(F.cosine_similarity(x, y[:, order], dim=1).mean()),
    )


def released_logs(
    source: Tensor, generated: Tensor, generator: torch.Generator, measure: Measure = "cosine"
) -> tuple[float, float]:
    """Return positive and negative similarity as in the released text files.

    ``test_spatial_coherent.txt`` and ``test_compute_time_differences.txt`` come from lines that are
    commented out: cosines over *channels* at each position of ``(B, S, D)``. The negative has the
    generated *channels* in a random order, so it is near 0 for any two pictures. ``pearson``
    subtracts the mean over channels.
    """
    x, y = rep.widened(source), rep.widened(generated)
    if measure == "pearson":
        x, y = x - x.mean(-1, keepdim=True), y - y.mean(-1, keepdim=True)
    order = torch.randperm(y.shape[-1], generator=generator).to(y.device)
    return (
        float(F.cosine_similarity(x, y, dim=-1).mean()),
        float(F.cosine_similarity(x, y[..., order], dim=-1).mean()),
    )
