"""One evaluation from its plan to its record, as the command line and Python do it."""

from __future__ import annotations

from typing import Any

from spfem_bench.errors import SpfemBenchError
from spfem_bench.evaluation.plan import Plan
from spfem_bench.evaluation.run import evaluate
from spfem_bench.features.extract import Extractor, Progress
from spfem_bench.features.store import FeatureStore
from spfem_bench.files import check_writable
from spfem_bench.networks.weights import WeightsStore


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


def carry_out(
    plan: Plan,
    weights: WeightsStore,
    *,
    partial: bool,
    workers: int,
    batch_size: int,
    device: str,
    progress: Progress,
) -> dict[str, Any]:
    """Carry out a plan with the user's feature store and return its run record.

    Args:
        plan: from :func:`~spfem_bench.evaluation.plan.make_plan`.
        weights: where networks are looked for.
        partial: give headline scores even when items are missing, marked so.
        workers: processes; changes no score.
        batch_size: frames in a batch.
        device: where networks run.
        progress: told how it goes on, and closed in the end.

    Raises:
        StorageError: features cannot be stored; a later run goes on from there.
    """
    store = FeatureStore.locate()
    check_writable(store.folder)
    extractor = Extractor(
        plan.profile,
        weights,
        store,
        faces=plan.protocol.card.faces,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )
    try:
        return evaluate(plan, extractor, workers=workers, partial=partial)
    finally:
        progress.close()
