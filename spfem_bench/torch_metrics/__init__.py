"""Scores in a training loop: the metrics of the command line as torchmetrics modules."""

from spfem_bench.torch_metrics.base import ClipMetric
from spfem_bench.torch_metrics.hooks import ScoreHooks
from spfem_bench.torch_metrics.loggers import log_scores
from spfem_bench.torch_metrics.metrics import (
    ExpressionSimilarity,
    FrechetArcFaceDistance,
    LipCorrelation,
    LipSyncError,
    SpatialCoherence,
)

__all__ = [
    "ClipMetric",
    "ExpressionSimilarity",
    "FrechetArcFaceDistance",
    "LipCorrelation",
    "LipSyncError",
    "ScoreHooks",
    "SpatialCoherence",
    "log_scores",
]
