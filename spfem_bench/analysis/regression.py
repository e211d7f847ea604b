"""A record of one's own model beside an earlier one: has a number become worse?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from spfem_bench.analysis.record_diff import diff_records
from spfem_bench.definitions.measured import Tolerance
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.errors import CardError, UnknownNameError
from spfem_bench.evaluation.check import SettingChange
from spfem_bench.evaluation.record import RunRecord, Score

_Verdict = Literal["within", "better", "worse", "other clips", "missing", "new"]


@dataclass(frozen=True)
class MetricChange:
    """The average of one metric beside that of the earlier record.

    ``better`` and ``worse`` lie outside the tolerance; ``other clips``: the number stands on
    another count of clips; ``missing`` and ``new``: only one side has a number.
    """

    metric: str
    was: float | None
    now: float | None
    allowed: float
    verdict: _Verdict
    note: str = ""

    @property
    def by(self) -> float | None:
        """How far the number has moved."""
        return None if self.was is None or self.now is None else self.now - self.was

    @property
    def holds(self) -> bool:
        """Whether the number is no worse, and stands on the same clips."""
        return self.verdict in ("within", "better", "new")


@dataclass(frozen=True)
class RegressionCheck:
    """All averages of a method on a protocol, and the versions that differ."""

    method: str
    protocol: str
    rows: tuple[MetricChange, ...]
    versions: tuple[SettingChange, ...]

    @property
    def holds(self) -> bool:
        """Whether no number is worse, missing, or of other clips."""
        return all(row.holds for row in self.rows)


def check_regression(
    earlier: RunRecord, record: RunRecord, tolerances: Mapping[str, float]
) -> RegressionCheck:
    """Compare the averages of two records of one method on one protocol.

    Tolerances are those of :func:`~spfem_bench.analysis.record_diff.diff_records`. A number that
    moved further fails only when it became worse.

    Raises:
        CardError: the records are of two methods or protocols, or another setting than a version
            differs; neither has a number.
        UnknownNameError: a tolerance for a metric that neither record has.
    """
    diff = diff_records(earlier, record, tolerances)
    if others := [c for c in diff.check.changes if not c.allowed]:
        named = "; ".join(f"{c.part} {c.key}".rstrip() for c in others)
        problem = f"the records cannot be compared, these settings differ: {named}"
        raise CardError(problem, "Score both with one profile, one protocol and one version")
    before, now = (
        {s.metric: s for s in r.scores if s.emotion == AVERAGE and s.signature}
        for r in (earlier, record)
    )
    rows = [
        _change(before.get(name), now.get(name), diff.tolerances[name])
        for name in dict.fromkeys([*before, *now])
    ]
    if not any(row.was is not None for row in rows):
        raise CardError("the earlier record has no average to compare with")
    name, protocol = record.method.name, record.protocol.name
    return RegressionCheck(name, protocol, tuple(rows), diff.check.changes)


def _change(old: Score | None, new: Score | None, tolerance: Tolerance) -> MetricChange:
    was, now = (None if s is None else s.value for s in (old, new))
    metric = (old or new).metric  # type: ignore[union-attr]
    allowed = tolerance.around(was or 0.0)
    if old is None or new is None or was is None or now is None:
        verdict: _Verdict = "new" if was is None else "missing"
        return MetricChange(metric, was, now, allowed, verdict, new.note if new else "")
    if old.n_items != new.n_items:
        note = f"{new.n_items} clips, were {old.n_items}"
        return MetricChange(metric, was, now, allowed, "other clips", note)
    worse = _worse(metric, was, now)
    verdict = "within" if abs(worse) <= allowed else "worse" if worse > 0 else "better"
    return MetricChange(metric, was, now, allowed, verdict)


def _worse(metric: str, was: float, now: float) -> float:
    """Return by how much a number became worse; negative when it became better."""
    try:
        direction = metric_card(metric).direction
    except UnknownNameError:  # of cards that are not here: any movement counts
        return abs(now - was)
    if direction == "zero":
        return abs(now) - abs(was)
    return now - was if direction == "lower" else was - now
