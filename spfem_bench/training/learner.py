"""The heads that a training learns: their loss, their first weights, and their quality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from spfem_bench.stccl import content, contrast
from spfem_bench.stccl import representations as rep
from spfem_bench.stccl.checkpoint import Heads
from spfem_bench.stccl.content import ContentHeads
from spfem_bench.stccl.metric import Centres, choose_centres
from spfem_bench.stccl.settings import ContentSettings, FormSettings
from spfem_bench.training.kit import seeded_generator
from spfem_bench.training.windows import Chosen, Forms, Sample, StepMoments, Windows

TERMS, SIGNS = ("scc", "tcc", "sct"), ("positive", "negative")


class Learner(nn.Module):
    """All heads that are trained: a set for each form, which share nothing.

    *sizes* are height and width of the maps that are compared.
    """

    def __init__(
        self, channels: Sequence[int], forms: Forms, sizes: Sequence[tuple[int, int]]
    ) -> None:
        super().__init__()
        self.forms = {form: settings.learning() for form, settings in forms.items()}
        regions = [h * w for h, w in sizes]
        self.heads = nn.ModuleDict(
            {f: ContentHeads(channels, regions) if f == "ct" else Heads(channels) for f in forms}
        )

    def forward(self, samples: dict[str, Sample]) -> dict[str, dict[str, Tensor]]:
        """Return the parts of each form's loss, as `contrast.parts`."""
        return {
            form: sample_parts(sample, self.forms[form], self.heads[form])
            for form, sample in samples.items()
        }


def sample_parts(
    sample: Sample,
    settings: FormSettings | ContentSettings,
    heads: Any = None,
) -> dict[str, Tensor]:
    """Compare source and generated of one step, as `contrast.parts`."""
    if isinstance(sample, StepMoments):
        terms = []
        for k, (x, y) in enumerate(sample.stages):
            head = heads.stages[k] if heads else None
            x, y = content.moments(x, head), content.moments(y, head)
            terms.append(content.moment_terms(x, y, cast("ContentSettings", settings)))
        return contrast.parts(content=terms)
    settings = cast("FormSettings", settings)
    how = settings.contrast
    stages = [(*maps.flatten(1, 2), centres) for maps, centres in sample.spatial]
    own = heads.spatial if heads else None
    spatial = contrast.stage_terms(contrast.spatial_terms, stages, how, own)
    stages = [(*maps, centres) for maps, centres in sample.temporal]
    own = heads.temporal if heads else None
    return contrast.parts(spatial, contrast.stage_terms(contrast.temporal_terms, stages, how, own))


def form_centres(
    sizes: Sequence[tuple[int, int]],
    forms: Forms,
    how: Centres,
    generator: torch.Generator | None = None,
) -> dict[str, Chosen]:
    """Return each form's regions at each stage, in space and in time; see `choose_centres`.

    The form ``ct`` has none, since it compares all.
    """
    maps = [torch.empty(1, 1, *size) for size in sizes]
    centres: dict[str, Chosen] = {}
    for form, settings in forms.items():
        if isinstance(settings, ContentSettings):
            centres[form] = [], []
            continue
        released = settings.contrast.definition == "released-code"
        draws = (settings.spatial_centres, False), (settings.temporal_centres, released)
        spatial, temporal = (
            [c for c in choose_centres(maps, how, n, generator, replaced=r) if c is not None]
            for n, r in draws
        )
        centres[form] = spatial, temporal
    return centres


@torch.no_grad()
def standardise(learner: Learner, windows: Windows, seed: int) -> None:
    """Scale the heads' first weights to the features of a few windows.

    Disparities of early stages are small beside a layer's first biases, and features share a large
    common part: so each channel is divided by its deviation, for ``cm`` less its mean, and the
    output gets mean 0.
    """
    few = torch.linspace(0, len(windows) - 1, min(16, len(windows))).long()
    centres = form_centres(windows.sizes, learner.forms, "grid", seeded_generator(seed, "start"))
    for form, sample in windows.sample(few, learner.forms, centres).items():
        own: Any = learner.heads[form]
        if isinstance(sample, StepMoments):
            for head, pooled in zip(own.stages, sample.stages, strict=True):
                moving = (pooled - pooled.mean(2, keepdim=True)).flatten(0, -2)
                head.region.weight /= _deviation(moving)
            continue
        settings = cast("FormSettings", learner.forms[form]).contrast
        for kind, regions in (("spatial", sample.spatial), ("temporal", sample.temporal)):
            for stage, (maps, where) in enumerate(regions):
                if settings.form == "cm":
                    rows = rep.feature_rows(maps).flatten(0, -2)
                elif kind == "spatial":
                    rows = rep.spatial_disparity(maps.flatten(0, 2), where).flatten(0, -2)
                else:
                    rows = rep.temporal_disparity(maps.flatten(0, 1), "window").flatten(0, -2)
                mean = rows.mean(0) if settings.form == "cm" else torch.zeros_like(rows[0])
                deviation = _deviation(rows - mean)
                first, _, last = getattr(own, kind)[stage]
                first.weight /= deviation
                first.bias.copy_(-(first.weight @ mean))
                last.bias.copy_(-(last.weight @ first(rows).relu().mean(0)))


def _deviation(rows: Tensor) -> Tensor:
    """Return the deviation of each channel; one that hardly varies must not be amplified."""
    deviation = rows.square().mean(0).sqrt()
    return deviation.clamp_min(0.1 * float(deviation.mean()) + 1e-8)


@torch.no_grad()
def measure_heads(
    windows: Windows, forms: Forms, heads: nn.ModuleDict | None
) -> dict[str, dict[str, Any]]:
    """Return the similarity of corresponding and of other regions, on a fixed grid of regions.

    For each form: ``loss`` without adaptive weights, which grow with the heads' output; and for
    ``scc`` and ``tcc``, or ``sct``, ``positive`` and ``negative``, the means over stages, and
    ``stages``, the same of each; rounded to five digits. Without heads features are compared as
    they are.
    """
    centres = form_centres(windows.sizes, forms, "grid")
    totals: dict[str, dict[str, float]] = {form: {} for form in forms}
    for chosen in torch.split(torch.arange(len(windows)), 4):
        share = len(chosen) / len(windows)
        for form, sample in windows.sample(chosen, forms, centres).items():
            own = heads[form] if heads is not None else None
            settings = forms[form].learning()
            if isinstance(settings, FormSettings):
                even = settings.contrast.model_copy(update={"adaptive": False})
                settings = settings.model_copy(update={"contrast": even})
            named = sample_parts(sample, settings, own)
            for key, value in named.items():
                totals[form][key] = totals[form].get(key, 0.0) + float(value) * share
    return {form: _nested(parts) for form, parts in totals.items()}


@torch.no_grad()
def probe_heads(windows: Windows, settings: ContentSettings, heads: Any) -> dict[str, float]:
    """Return what changes cost: the emotion as a share of words, and what is kept of a still mouth.

    Windows' ``emotion`` is the condition: ``nothing``, ``emotion``, ``words``, ``frozen`` or
    ``emotion, frozen``. ``frozen kept`` is what a mouth at rest adds on an emotional face, as a
    share of its cost on a neutral one.
    """
    costs = {}
    for condition in dict.fromkeys(windows.emotions):
        chosen = torch.tensor([k for k, own in enumerate(windows.emotions) if own == condition])
        sample = windows.sample(chosen, {"ct": settings}, {})["ct"]
        costs[condition] = float(sample_parts(sample, settings, heads)["loss"])
    above = {condition: cost - costs["nothing"] for condition, cost in costs.items()}
    return {
        "emotion / words": round(above["emotion"] / above["words"], 5),
        "frozen kept": round((above["emotion, frozen"] - above["emotion"]) / above["frozen"], 5),
    }


def _nested(parts: Mapping[str, float]) -> dict[str, Any]:
    nested: dict[str, Any] = {"loss": round(parts["loss"], 5)}
    for term in (term for term in TERMS if term in parts):
        nested[term] = {sign: round(parts[f"{term}_{sign}"], 5) for sign in SIGNS}
        nested[term]["stages"] = {
            sign: [round(parts[f"{term}_stage{k}_{sign}"], 5) for k in (1, 2, 3, 4)]
            for sign in SIGNS
        }
    return nested
