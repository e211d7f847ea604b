"""One evaluation from its plan to its record, as the command line and Python do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spfem_bench import provenance
from spfem_bench.errors import SpfemBenchError
from spfem_bench.evaluation.plan import Plan
from spfem_bench.evaluation.signature import network_of
from spfem_bench.execution.local import Workers, evaluate_all
from spfem_bench.features.extract import Extractor, Progress
from spfem_bench.features.software import feature_libraries
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import ffmpeg
from spfem_bench.networks.load import Precision
from spfem_bench.networks.weights import WeightsStore

if TYPE_CHECKING:
    from spfem_bench.evaluation.validate import Validation


def check_device(device: str) -> None:
    """Refuse a device that torch does not have here.

    Raises:
        SpfemBenchError: with torch's reason.
    """
    if device == "cpu":
        return
    import torch

    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise SpfemBenchError(f"'{device}' is not available here: {reason}", "Use cpu") from None


def rival_packages(plans: Iterable[Plan | Validation]) -> list[str]:
    """Return a line for each module that plans use and that two installed packages provide."""
    used: set[str] = set()
    for plan in plans:
        found = plan.protocol.card.faces == "detect"
        for metric in plan.metrics:
            detector = plan.profile.network("detector") if found else None
            used |= feature_libraries(network_of(metric, plan.profile), detector)
    return provenance.rival_packages(used)


def make_extractor(
    plan: Plan | Validation,
    weights: WeightsStore,
    *,
    batch_size: int | None,
    device: str,
    precision: Precision = "float32",
    hwaccel: str | None = None,
) -> Extractor:
    """Return what sees a plan's clips, with the user's feature store.

    Args:
        plan: of an evaluation or of a validation.
        weights: where networks are looked for.
        batch_size: frames in a batch; found when None.
        device: where networks run.
        precision: what they compute in.
        hwaccel: a hardware decoder.

    Raises:
        ClipError: there is no such decoder here.
    """
    if hwaccel:
        ffmpeg.check_hardware(hwaccel)
    return Extractor(
        plan.profile,
        weights,
        FeatureStore.locate(),
        faces=plan.protocol.card.faces,
        batch_size=batch_size,
        device=device,
        precision=precision,
        hwaccel=hwaccel,
    )


def carry_out(
    plans: Sequence[Plan],
    weights: WeightsStore,
    *,
    partial: bool,
    workers: Workers,
    batch_size: int | None,
    device: str,
    progress: Callable[[Plan], Progress] = lambda plan: Progress(),
    precision: Precision = "float32",
    hwaccel: str | None = None,
) -> Iterator[dict[str, Any]]:
    """Carry out plans with the user's feature store and yield their run records, in order.

    Args:
        plans: from :func:`~spfem_bench.evaluation.plan.make_plan`.
        weights: where networks are looked for.
        partial: give headline scores even when items are missing, marked so.
        workers: processes, or workers on Ray; change no score.
        batch_size: frames in a batch; found when None.
        device: where networks run.
        progress: gives what is told how a plan's features go on, and closed in the end.
        precision: what networks compute in.
        hwaccel: a hardware decoder.

    Raises:
        StorageError: features cannot be stored; a later run goes on from there.
        ClipError: there is no such hardware decoder here.
    """

    def sees(plan: Plan) -> Extractor:
        extractor = make_extractor(
            plan,
            weights,
            batch_size=batch_size,
            device=device,
            precision=precision,
            hwaccel=hwaccel,
        )
        return replace(extractor, progress=progress(plan))

    return evaluate_all(plans, sees, workers, partial=partial)
