"""Values and signatures into TensorBoard, Weights & Biases or MLflow; none is imported."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from spfem_bench.errors import SpfemBenchError
from spfem_bench.torch_metrics.base import ClipMetric


def log_scores(
    logger: Any, metrics: Mapping[str, ClipMetric], step: int | None = None
) -> dict[str, float]:
    """Compute metrics, log their values, signatures and notes, and return the values.

    Args:
        logger: TensorBoard's ``SummaryWriter``, a W&B run, the module ``mlflow``, or None to log
            nothing. In several processes all call this; give None in all but one.
        metrics: by the name to log.
        step: such as the epoch.

    Raises:
        SpfemBenchError: another logger.
    """
    values = {name: float(metric.compute()) for name, metric in metrics.items()}
    if logger is None:
        return values
    if hasattr(logger, "add_scalar"):
        for name, value in values.items():
            logger.add_scalar(name, value, step)
    elif hasattr(logger, "log_metrics"):
        logger.log_metrics(values, step=step)
    elif hasattr(logger, "log"):
        logger.log(values, step=step)
    else:
        problem = f"no logger of scores: {type(logger).__name__}"
        raise SpfemBenchError(problem, "Give a SummaryWriter, a W&B run, or the module mlflow")
    log_texts(logger, metrics, step)
    return values


def log_texts(logger: Any, metrics: Mapping[str, ClipMetric], step: int | None = None) -> None:
    """Log signatures and notes of computed metrics; a logger of another kind gets none."""
    texts = {f"{name}/signature": metric.signature() for name, metric in metrics.items()}
    texts |= {f"{name}/note": metric.note for name, metric in metrics.items() if metric.note}
    if hasattr(logger, "add_text"):  # TensorBoard
        for name, text in texts.items():
            logger.add_text(name, text, step)
    elif hasattr(logger, "set_tags"):  # MLflow
        logger.set_tags(texts)
    elif hasattr(logger, "summary"):  # W&B
        logger.summary.update(texts)
