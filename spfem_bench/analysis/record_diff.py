"""What differs between two records of one method on one protocol: settings and numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.computing import Computing
from spfem_bench.definitions.measured import Tolerance, measured_card
from spfem_bench.definitions.protocols import protocol as read_protocol
from spfem_bench.errors import CardError, unknown_name
from spfem_bench.evaluation.check import (
    MACHINE,
    Recomputed,
    ReferenceCheck,
    check_reference,
    rows_of,
    settings_by_part,
)
from spfem_bench.evaluation.outputs import Videos
from spfem_bench.evaluation.record import RunRecord
from spfem_bench.evaluation.session import carry_out, make_plans
from spfem_bench.execution.workers import Workers
from spfem_bench.files import inside
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import SILENT, Progress

PRINTED = Tolerance(absolute=5e-4, reason="half of the last decimal that tables print")
"""Where no reference card has measured how far a number moves between machines."""


@dataclass(frozen=True)
class RecordDiff:
    """Two records side by side.

    Attributes:
        check: settings and numbers, the first record as the reference.
        clips: of clips whose bytes differ, the item and the role, such as ``P001_sad_033 output``.
    """

    check: ReferenceCheck
    clips: tuple[str, ...]
    tolerances: Mapping[str, Tolerance]

    @property
    def holds(self) -> bool:
        """Whether all numbers are within tolerance and no setting differs but versions."""
        return bool(self.check.rows) and self.check.holds


def diff_records(
    a: RunRecord, b: RunRecord, tolerances: Mapping[str, float] | None = None
) -> RecordDiff:
    """Compare two records of one method on one protocol.

    Tolerances are those given, absolute, by metric (``""`` for all others); else those of the
    reference card for the protocol and profile; else :data:`PRINTED`.

    Raises:
        CardError: the records are of two methods or protocols.
        UnknownNameError: a tolerance for a metric that neither record has.
    """
    for part in ("method", "protocol"):
        first, second = (getattr(record, part).name for record in (a, b))
        if first != second:
            raise CardError(
                f"the records are of two {part}s, '{first}' and '{second}'",
                "Give two records of one method on one protocol; 'spfem-bench compare' compares "
                "methods",
            )
    before, now = (
        Recomputed(rows_of(r), settings_by_part(r) | {MACHINE: r.environment.plain()})
        for r in (a, b)
    )
    metrics = list(dict.fromkeys(row.metric for row in [*before.rows.values(), *now.rows.values()]))
    allowed = _tolerances(a, metrics, tolerances or {})
    name = f"{a.method.name} on {a.protocol.name}"
    check = check_reference(name, allowed, before.rows, before.settings, now)
    return RecordDiff(check, _other_clips(a, b), allowed)


def diff_with_clips(
    record: RunRecord,
    *,
    videos: Path | None,
    folder: Path,
    data: DataFolders,
    weights: WeightsStore,
    workers: Workers,
    computing: Computing,
    progress: Progress = SILENT,
) -> RecordDiff:
    """Evaluate a record's method again, from the clips at hand, and compare with the record.

    Features that the store holds are not computed again. The protocol is the one whose card lies
    in *folder*, else the one of that name. *videos* is the folder of a method's
    own outputs.

    Raises:
        CardError: the protocol has no such method, or *videos* are lacking.
        SpfemBenchError: a clip or a network's weights are missing or wrong.
    """
    beside = inside(folder, f"{record.protocol.name}.toml")
    protocol = read_protocol(str(beside) if beside.is_file() else record.protocol.name)
    name = record.method.name
    (plan,) = make_plans(
        [name],
        [protocol],
        record.profile,
        data=data,
        weights=weights,
        metrics=list(record.settings),
        videos={name: Videos(videos)} if videos else {},
        workers=workers,
        progress=progress,
    )
    scored = carry_out(
        [plan], weights, computing, workers=workers, partial=record.partial, progress=progress
    )
    return diff_records(record, next(iter(scored)))


def _tolerances(
    record: RunRecord, metrics: Sequence[str], requested: Mapping[str, float]
) -> dict[str, Tolerance]:
    for metric in requested.keys() - {"", *metrics}:
        raise unknown_name("metric of these records", metric, metrics)
    measured: dict[str, Tolerance] = {}
    for card in map(measured_card, names(Kind.MEASURED)):
        if card.profile == record.profile and record.protocol.name in card.methods:
            reason = {"reason": f"reference card '{card.name}'"}
            measured = {m: one.model_copy(update=reason) for m, one in card.tolerance.items()}
            break
    allowed = {metric: measured.get(metric, PRINTED) for metric in metrics}
    for metric in metrics:
        if (own := requested.get(metric, requested.get(""))) is not None:
            allowed[metric] = Tolerance(absolute=own, reason="as given")
    return allowed


def _other_clips(a: RunRecord, b: RunRecord) -> tuple[str, ...]:
    """Return the clips of both records that have other bytes in the second."""
    first, second = (
        {(item.id, role): clip.content for item in r.items for role, clip in item.clips.items()}
        for r in (a, b)
    )
    both = [clip for clip in first if clip in second]
    return tuple(" ".join(clip) for clip in both if first[clip] != second[clip])
