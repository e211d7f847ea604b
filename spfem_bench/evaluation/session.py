"""One evaluation from its plan to its record, as the command line and Python do it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from spfem_bench.errors import SpfemBenchError
from spfem_bench.evaluation.plan import Plan
from spfem_bench.evaluation.run import evaluate
from spfem_bench.features.extract import Extractor, Progress
from spfem_bench.features.store import FeatureStore
from spfem_bench.files import check_writable
from spfem_bench.media import ffmpeg
from spfem_bench.networks.load import Precision
from spfem_bench.networks.weights import WeightsStore

if TYPE_CHECKING:
    from spfem_bench.evaluation.cluster import RayWorkers
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
        StorageError: features cannot be stored.
        ClipError: there is no such decoder here.
    """
    if hwaccel:
        ffmpeg.check_hardware(hwaccel)
    store = FeatureStore.locate()
    check_writable(store.folder)
    return Extractor(
        plan.profile, weights, store, faces=plan.protocol.card.faces, batch_size=batch_size,
        device=device, precision=precision, hwaccel=hwaccel,
    )  # fmt: skip


def carry_out(
    plan: Plan,
    weights: WeightsStore,
    *,
    partial: bool,
    workers: int | RayWorkers,
    batch_size: int | None,
    device: str,
    progress: Progress,
    precision: Precision = "float32",
    hwaccel: str | None = None,
) -> dict[str, Any]:
    """Carry out a plan with the user's feature store and return its run record.

    Args:
        plan: from :func:`~spfem_bench.evaluation.plan.make_plan`.
        weights: where networks are looked for.
        partial: give headline scores even when items are missing, marked so.
        workers: processes, or workers on Ray; changes no score.
        batch_size: frames in a batch; found when None.
        device: where networks run.
        progress: told how it goes on, and closed in the end.
        precision: what networks compute in.
        hwaccel: a hardware decoder.

    Raises:
        StorageError: features cannot be stored; a later run goes on from there.
        ClipError: there is no such hardware decoder here.
    """
    extractor = make_extractor(
        plan, weights, batch_size=batch_size, device=device, precision=precision, hwaccel=hwaccel
    )
    extractor = replace(extractor, progress=progress)
    try:
        return evaluate(plan, extractor, workers=workers, partial=partial)
    finally:
        progress.close()
