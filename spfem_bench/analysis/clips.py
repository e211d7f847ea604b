"""Each clip's numbers, one a line, from run records alone."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spfem_bench.evaluation.record import RunRecord, item_values
from spfem_bench.extras import extra
from spfem_bench.files import write_atomically
from spfem_bench.statistics.base import NoPartsError
from spfem_bench.texts import csv_text

if TYPE_CHECKING:
    import pandas as pd

_TYPES = {
    "protocol": "string",
    "method": "string",
    "profile": "string",
    "item": "string",
    "speaker": "string",
    "emotion": "string",
    "metric": "string",
    "value": "float64",
    "pooled": "bool",
    "n_frames": "int64",
    "n_frames_refused": "int64",
    "output": "string",
    "note": "string",
}


def clip_frame(records: Sequence[RunRecord]) -> pd.DataFrame:
    """Return one line for each record, metric and item of its protocol, also for refused ones.

    Columns: protocol, method, profile, item, speaker, emotion, metric, value, pooled, n_frames,
    n_frames_refused, output (the clip's address) and note. The mean of an emotion's values is its
    score. Where a metric pools the frames of all clips (``pooled``, FAD), a clip has no value of
    its own, and ``value`` is its pseudo-value. It is NaN without one; ``note`` says why.

    Raises:
        CardError: a record is damaged.
    """
    import pandas as pd

    rows = [row for record in records for row in _rows(record)]
    return pd.DataFrame(rows, columns=list(_TYPES)).astype(_TYPES)


def _rows(record: RunRecord) -> list[dict[str, Any]]:
    rows = []
    reasons = {(m, r.item): r.reason for r in record.refused for m in r.metrics}
    for metric in record.metrics:
        absent = "too few frames in its emotion"
        try:
            values = {i.item: i.value for i in item_values(record, metric)}
        except NoPartsError as error:
            values, absent = {}, str(error)
        emotions = {s.emotion for s in record.scores if s.metric == metric}
        pooled = record.kind_of(metric).pools_frames
        for item in record.items:
            if item.emotion not in emotions:  # not chosen
                continue
            kept = item.metrics.get(metric)
            note = reasons.get((metric, item.id), "not scored") if kept is None else absent
            output = item.clips.get("output")
            rows.append(
                {
                    "protocol": record.protocol.name,
                    "method": record.method.name,
                    "profile": record.profile,
                    "item": item.id,
                    "speaker": item.speaker,
                    "emotion": item.emotion,
                    "metric": metric,
                    "value": values.get(item.id, float("nan")),
                    "pooled": pooled,
                    "n_frames": (kept or {}).get("n_frames", 0),
                    "n_frames_refused": (kept or {}).get("n_frames_refused", 0),
                    "output": output.address if output else "",
                    "note": "" if item.id in values else note,
                }
            )
    return rows


def write_clips(frame: pd.DataFrame, file: Path) -> None:
    """Write a frame of clips as CSV, or as Parquet by the file's ending, whole or not at all.

    Raises:
        SpfemBenchError: pyarrow, which Parquet needs, is not installed.
        StorageError: it cannot be written.
    """
    if file.suffix.lower() == ".parquet":
        with extra("parquet", "Parquet"):
            import pyarrow  # noqa: F401
        content = io.BytesIO()
        frame.to_parquet(content, index=False)
        write_atomically(file, content.getvalue())
        return
    rows = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    write_atomically(file, csv_text([list(frame.columns), *rows]).encode())
