"""What a loss costs for changes whose cause is known, in units of its cost for no change.

`probe_loss` accepts any loss and any clips: ``spfem_bench.puppets.probe`` draws puppets whose head,
mouth and emotion move separately, ``spfem_bench.analysis.real_probe`` takes real clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spfem_bench.errors import StcclError
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import SILENT, Progress
from spfem_bench.statistics.intervals import Resampled, drawn
from spfem_bench.stccl.checkpoint import backbone_record, read_checkpoint
from spfem_bench.stccl.metric import STCCL
from spfem_bench.stccl.settings import ContentSettings, Form

NOTHING = "nothing"
"""The condition whose cost is the unit: the same performance, recorded by a second camera."""

RESAMPLES = 1000

Loss = Callable[[Tensor, Tensor], Mapping[str, Tensor]]
"""Returns scalars by name, as ``STCCL(..., parts=True)``, of two sequences (1, T, 3, H, W), 0 to 1.

Names that end in ``_positive`` and ``_negative`` are similarities; all others are costs.
"""

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3), RGB


class ProbeClip(NamedTuple):
    """Source and made frames of one condition; *unit* is the puppet or clip, for intervals."""

    unit: str
    condition: str
    source: Frames
    made: Frames


@dataclass(frozen=True)
class ProbeResult:
    """Means of a loss's parts for each unit and condition.

    Attributes:
        units: names of puppets or clips.
        values: float64 (units,) by condition and part; NaN where a unit lacks the condition.
    """

    units: tuple[str, ...]
    values: Mapping[tuple[str, str], npt.NDArray[np.float64]]

    @property
    def conditions(self) -> list[str]:
        """The conditions, in the order of the clips."""
        return list(dict.fromkeys(condition for condition, _ in self.values))

    @property
    def parts(self) -> list[str]:
        """The loss's parts, in its order."""
        return list(dict.fromkeys(part for _, part in self.values))

    def count(self, condition: str, part: str = "loss") -> int:
        """Return the number of units that have a condition."""
        return int(np.isfinite(self.values[condition, part]).sum())

    def mean(self, condition: str, part: str = "loss") -> Resampled:
        """Return the mean of a part over units."""
        return self._estimate([(condition, part)], lambda value: value)

    def excess(self, condition: str, part: str = "loss") -> Resampled:
        """Return cost minus the cost of nothing, in units of the cost of nothing."""
        cells = [(condition, part), (NOTHING, part)]
        return self._estimate(cells, lambda cost, nothing: (cost - nothing) / nothing)

    def gap(self, condition: str, other: str, part: str = "loss") -> Resampled:
        """Return how much more another condition costs, in units of the loss."""
        return self._estimate([(condition, part), (other, part)], lambda a, b: b - a)

    def ratio(self, condition: str, other: str, part: str = "loss") -> Resampled:
        """Return the cost of one condition as a share of another's, both above nothing."""
        cells = [(condition, part), (other, part), (NOTHING, part)]
        return self._estimate(cells, lambda a, b, nothing: (a - nothing) / (b - nothing))

    def kept(self, both: str, emotion: str, alone: str, part: str = "loss") -> Resampled:
        """Return what a change adds on an emotional face, as a share of its cost on a neutral one.

        *both* is the change with the emotion: ``(both - emotion) / (alone - nothing)``.
        """
        cells = [(both, part), (emotion, part), (alone, part), (NOTHING, part)]
        return self._estimate(cells, lambda b, e, a, nothing: (b - e) / (a - nothing))

    def gaps(self, condition: str, other: str, part: str = "loss") -> npt.NDArray[np.float64]:
        """Return how much more another condition costs in each unit that has both."""
        less = self.values[other, part] - self.values[condition, part]
        return less[np.isfinite(less)]

    def _estimate(
        self, cells: list[tuple[str, str]], formula: Callable[..., npt.NDArray[np.float64]]
    ) -> Resampled:
        """Return a formula of means over the units that have all cells, and its bootstrap."""
        columns = np.stack([self.values[cell] for cell in cells])
        columns = columns[:, np.isfinite(columns).all(0)]
        count = columns.shape[1]
        if not count:
            return Resampled(float("nan"), np.full(RESAMPLES, np.nan), False)
        means = columns[:, drawn(count, RESAMPLES)].mean(-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            value, draws = formula(*columns.mean(-1)), formula(*means)
        return Resampled(float(value), draws, count > 1)


def probe_loss(
    loss: Loss, clips: Iterable[ProbeClip], *, total: int | None = None, progress: Progress = SILENT
) -> ProbeResult:
    """Return a loss's parts for clips; see `probe_losses`."""
    return probe_losses(lambda x, y: {"": loss(x, y)}, clips, total=total, progress=progress)[""]


@torch.no_grad()
def probe_losses(
    losses: Callable[[Tensor, Tensor], Mapping[str, Mapping[str, Tensor]]],
    clips: Iterable[ProbeClip],
    *,
    total: int | None = None,
    progress: Progress = SILENT,
) -> dict[str, ProbeResult]:
    """Return each loss's parts: the mean over the clips of each unit and condition.

    *losses* returns the parts of several at once, by name; a window's clips give it the same
    source, as one tensor. *total* is the number of clips, for the progress.

    Raises:
        StcclError: no clip has the condition `NOTHING`.
    """
    cells: dict[str, dict[tuple[str, str], dict[str, list[float]]]] = {}
    units: dict[str, None] = {}
    conditions: set[str] = set()
    window, source = None, torch.empty(0)
    progress.begin("probe", total, "clip")
    for clip in clips:
        units[clip.unit] = None
        conditions.add(clip.condition)
        if clip.source is not window:
            window, source = clip.source, _pictures(clip.source)
        for name, parts in losses(source, _pictures(clip.made)).items():
            for part, value in parts.items():
                cell = cells.setdefault(name, {}).setdefault((clip.condition, part), {})
                cell.setdefault(clip.unit, []).append(float(value))
        progress.advance("probe")
    progress.end("probe")
    if NOTHING not in conditions:
        raise StcclError(f"no clip shows '{NOTHING}'", "Give clips with that condition")

    def columns(of: dict[str, list[float]]) -> npt.NDArray[np.float64]:
        return np.array([np.mean(of.get(unit, [np.nan])) for unit in units])

    return {
        name: ProbeResult(tuple(units), {cell: columns(of) for cell, of in found.items()})
        for name, found in cells.items()
    }


class ProbedForms:
    """Forms of STCCL on one backbone, by name, with regions that are drawn alike at each call.

    Attributes:
        forms: the losses; all have the backbone of the first.
        signature: what decides the numbers: settings and hashes of each form.
    """

    def __init__(self, forms: Mapping[str, STCCL], signature: Mapping[str, Any]) -> None:
        self.forms, self.signature = forms, signature
        self._source = torch.empty(0)
        self._maps: list[Tensor] = []

    def __call__(self, source: Tensor, made: Tensor) -> dict[str, dict[str, Tensor]]:
        """Return the parts of each form; features of one source are computed once."""
        if source is not self._source:
            self._source, self._maps = source, self._stages(source)
        maps = self._stages(made)
        return {
            name: stccl.compare(self._maps, maps, torch.Generator().manual_seed(0))
            for name, stccl in self.forms.items()
        }

    def _stages(self, pictures: Tensor) -> list[Tensor]:
        first = next(iter(self.forms.values()))
        device = next(first.backbone.parameters()).device
        return first.maps(pictures.to(device), value_range=(0, 1))


def stccl_losses(
    metric: str = "puppets",
    forms: Sequence[Form] = (),
    *,
    untrained: bool = False,
    network: str = "",
    weights: WeightsStore | None = None,
    device: str = "cpu",
) -> ProbedForms:
    """Return the forms of a learnt metric as losses, by the name that tables have.

    All forms of the metric when none is named; *untrained* adds them without heads. A *network*
    in the place of the metric has every form, untrained.

    Raises:
        UnknownNameError: no such metric or network.
        WeightsError: weights are missing or wrong.
        StcclError: the metric does not have the form.
    """
    if network:
        record, learnt = backbone_record(network), None
        forms = forms or get_args(Form)
    else:
        learnt = read_checkpoint(metric).record
        record, forms = learnt.backbone, forms or tuple(learnt.forms)
    losses, signature = {}, {}
    for form, heads in product(forms, (True, False)):
        if not (learnt if heads else untrained or network):
            continue
        if learnt is None:
            stccl = STCCL.untrained(network, form=form, weights=weights, device=device)
        else:
            stccl = STCCL.load(metric, form=form, weights=weights, device=device)
        if not heads:
            stccl.heads = None
            if isinstance(stccl.settings, ContentSettings):  # the weight is in proportion to heads
                stccl.settings = stccl.settings.model_copy(update={"identity": 0.0})
        name = f"{form}, {'learnt' if heads else 'untrained'}"
        losses[name] = stccl
        signature[name] = {
            "settings": stccl.settings.model_dump(mode="json"),
            "backbone": record.model_dump(mode="json"),
            "heads": learnt.sha256 if learnt and heads else None,
        }
    return ProbedForms(losses, signature)


def _pictures(frames: Frames) -> Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)[None].float() / 255
