"""Run records as the ``model-index`` of a Hugging Face model card.

Source: huggingface_hub, ``repocard_data.EvalResult``, whose required keys are the task's type, the
data set's type and name, and each metric's type and value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.errors import CardError
from spfem_bench.evaluation.record import RunRecord, Score
from spfem_bench.reporting.table_choice import ALL, Choice, choose_records

TASK = {"type": "video-to-video", "name": "Speech-preserving facial expression manipulation"}


def model_index(records: Sequence[RunRecord], *, choice: Choice = ALL) -> dict[str, Any]:
    """Return a model card's ``model-index``: a model for each method, a result for each record.

    Metrics are the headline scores, or those of the chosen emotions; interval, clips and signature
    are in a metric's ``args``. Raises CardError when a record has no such number, and
    UnknownNameError when a chosen method, metric or emotion is in none of them.
    """
    chosen, choice = choose_records(records, choice)
    models: dict[str, list[dict[str, Any]]] = {}
    for record in chosen:
        emotions = choice.emotions or (AVERAGE,)
        scores = [s for s in record.scores if s.value is not None and s.emotion in emotions]
        if not scores:
            problem = f"'{record.method.name}' on {record.protocol.name} has no score to export"
            raise CardError(problem, "Evaluate it whole, or choose --metrics and --emotions")
        protocol, dataset = record.protocol, record.settings_of(scores[0].metric).protocol.dataset
        result = {
            "task": TASK,
            "dataset": {
                "type": dataset,
                "name": f"{dataset}, protocol {protocol.name}",
                "config": protocol.name,
                "args": {"version": protocol.version, "list_sha256": protocol.list_sha256},
            },
            "metrics": list(map(_metric, scores)),
        }
        models.setdefault(record.method.name, []).append(result)
    return {"model-index": [{"name": n, "results": results} for n, results in models.items()]}


def _metric(score: Score) -> dict[str, Any]:
    label = metric_card(score.metric).label
    args: dict[str, Any] = {"emotion": score.emotion, "clips": score.n_items}
    if score.low is not None and score.high is not None:
        args["interval_95"] = [score.low, score.high]
    return {
        "type": score.metric,
        "name": label if score.emotion == AVERAGE else f"{label}, {score.emotion}",
        "value": score.value,
        "args": args | {"signature": score.signature},
    }


def model_index_text(records: Sequence[RunRecord], *, choice: Choice = ALL) -> str:
    """Return :func:`model_index` as YAML, to go between the lines ``---`` of a README.md."""
    return "\n".join(_lines(model_index(records, choice=choice))) + "\n"


def _lines(value: Any) -> list[str]:
    """Return a value as lines of YAML in block style; texts are quoted, and ASCII."""
    if isinstance(value, dict):
        lines = []
        for key, inner in value.items():
            own = _lines(inner)
            nested = isinstance(inner, (dict, list))
            indented = [f"  {line}" for line in own]
            lines += [f"{key}:", *indented] if nested else [f"{key}: {own[0]}"]
        return lines
    if isinstance(value, list):
        items = (_lines(inner) for inner in value)
        return [("- " if n == 0 else "  ") + line for own in items for n, line in enumerate(own)]
    # What JSON escapes, YAML does too; of other characters it reads some as the end of a line.
    quoted = json.dumps(value, ensure_ascii=False)
    return [re.sub(r"[^\x20-\x7e]", lambda match: f"\\U{ord(match[0]):08X}", quoted)]
