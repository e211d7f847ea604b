"""Hooks of a Lightning callback that scores each validation epoch; lightning is not imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from spfem_bench.torch_metrics.base import ClipMetric
from spfem_bench.torch_metrics.loggers import log_texts
from spfem_bench.torch_metrics.tensors import Tensors


class ScoreHooks:
    """Scores the clips of each validation epoch, and logs values, signatures and notes.

    A callback of Lightning's is made of it by ``class Scores(ScoreHooks, lightning.Callback): ...``

    Args:
        metrics: by the name to log.
        clips: from what ``validation_step`` returned and its batch to the metrics' arguments by
            name: ``generated``, ``real``, ``reference``, ``source``, ``sound``.
    """

    def __init__(
        self,
        metrics: Mapping[str, ClipMetric],
        clips: Callable[[Any, Any], Mapping[str, Tensors]],
    ) -> None:
        self.metrics, self.clips = dict(metrics), clips

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Forget the last epoch's clips."""
        for metric in self.metrics.values():
            metric.to(pl_module.device).reset()

    def on_validation_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        """Take up a batch's clips."""
        given = self.clips(outputs, batch)
        for metric in self.metrics.values():
            metric.update(**metric._filter_kwargs(**given))

    def on_validation_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        """Log the scores of all processes' clips."""
        for name, metric in self.metrics.items():
            pl_module.log(name, metric.compute().float(), rank_zero_only=True)
        if trainer.is_global_zero and not trainer.sanity_checking:
            for logger in trainer.loggers:
                log_texts(_Tagged(logger), self.metrics, trainer.global_step)


class _Tagged:
    """What signatures are written to in one of Lightning's loggers."""

    def __init__(self, logger: Any) -> None:
        experiment = logger.experiment
        if hasattr(experiment, "set_tag") and hasattr(logger, "run_id"):  # MLflow's client

            def set_tags(texts: Mapping[str, str]) -> None:
                for name, text in texts.items():
                    experiment.set_tag(logger.run_id, name, text)

            self.set_tags = set_tags
        for name in ("add_text", "summary"):
            if hasattr(experiment, name):
                setattr(self, name, getattr(experiment, name))
