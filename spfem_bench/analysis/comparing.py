"""Run records to differences between methods: intervals, p-values, and verdicts in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain
from typing import TYPE_CHECKING, Literal

import numpy as np

from spfem_bench.analysis import resampling
from spfem_bench.analysis.alike import check_alike, first_of, name_runs, shared_metrics
from spfem_bench.analysis.resampling import LEVEL, RESAMPLES, TooFewClustersError
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import AVERAGE, in_order
from spfem_bench.errors import CardError
from spfem_bench.evaluation.record import ItemValue, RunRecord, item_values, unverified
from spfem_bench.statistics.base import NoPartsError

if TYPE_CHECKING:
    import pandas as pd

FEW = 6
"""Speakers below which a comparison says so."""

TINY = 1e-9
"""Differences below this part of the values are rounding."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One metric of two methods on the same clips.

    Attributes:
        emotion: an emotion, or ``avg`` for the mean over emotions.
        a: the baseline; ``a_value`` is its score over the clips that are compared, ``a_low`` and
            ``a_high`` the ends of its own 95 % interval.
        difference: B less A; of a metric that is best at 0, of the distances from 0.
        low: lower end of the difference's 95 % interval; None where ``verdict`` says why.
        p: two-sided p-value of no difference, alone; ``p_holm`` corrected for all rows of methods,
            for a control (``b_is_control``) for all rows of controls.
        effect: the difference divided by the standard deviation of the speakers' differences.
        drawn: speakers, or clips where all (of an emotion) are of one speaker; there are
            ``clusters`` of them. An interval over clips says nothing about other speakers.
        clips: clips that both stand on.
        needed: clips that would tell the methods apart in 80 of 100 repetitions; None for never.
        a_signature: how A's number was made; B's differs at most in clips and versions.
    """

    metric: str
    emotion: str
    a: str
    b: str
    a_value: float
    a_low: float | None = None
    a_high: float | None = None
    b_value: float
    b_low: float | None = None
    b_high: float | None = None
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    effect: float | None = None
    drawn: Literal["speakers", "clips"]
    clusters: int
    clips: int
    needed: int | None = None
    verdict: str = ""
    a_signature: str
    b_signature: str
    b_is_control: bool = False

    @property
    def told_apart(self) -> bool:
        """Whether the methods differ beyond chance, after correction for all that is shown."""
        return self.p_holm is not None and self.p_holm < LEVEL


@dataclass(frozen=True, repr=False)
class Comparison:
    """Methods compared with a baseline; the notes say what rows stand on and what is left out."""

    baseline: str
    others: tuple[str, ...]
    rows: tuple[Difference, ...]
    notes: tuple[str, ...]
    signatures: tuple[str, ...]

    @property
    def table(self) -> pd.DataFrame:
        """The rows, each attribute of a difference a column; NaN or ``<NA>`` for None."""
        import pandas as pd

        names = [f.name for f in fields(Difference)]
        frame = pd.DataFrame([asdict(row) for row in self.rows], columns=names)
        return frame.astype({"needed": "Int64"})


def compare_runs(
    records: Sequence[RunRecord],
    *,
    baseline: str = "",
    metrics: Sequence[str] = (),
    by_emotion: bool = False,
    common: bool = False,
    allow_versions: bool = False,
    count_controls: bool = False,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare runs that were made alike, clip by clip; see ``spfem_bench.compare``.

    All rows, also those *by_emotion*, count in Holm's correction. Controls, whose answer is known,
    are corrected for among themselves, unless *count_controls* puts all into one correction.

    Raises:
        CardError: fewer than two runs, the same run twice, runs made or listed in different ways,
            runs without scores, damaged records.
    """
    runs = name_runs(records, baseline)
    first, *others = runs
    shared, notes_of_others = shared_metrics(runs, metrics)
    versions = check_alike(runs, shared, allow_versions=allow_versions)
    rows: list[Difference] = []
    notes: dict[str, None] = {}
    for other in others:
        for metric in shared:
            pair = _Pair(metric, first, other, runs[first], runs[other])
            try:
                found, remarks = pair.differences(common, by_emotion, resamples)
            except NoPartsError as error:
                if metrics:
                    raise
                notes[f"No {pair.label}: {error}"] = None
                continue
            rows += found
            notes |= dict.fromkeys(remarks)
    families = [rows]
    if not count_controls:
        families = [
            [r for r in rows if r.b_is_control == is_control] for is_control in (False, True)
        ]
    judged = {id(old): new for own in families for old, new in zip(own, _judge(own), strict=True)}
    rows = [judged[id(row)] for row in rows]
    return Comparison(
        first,
        tuple(others),
        tuple(rows),
        (
            *versions,
            *_basis(rows, resamples, count_controls),
            *notes,
            *notes_of_others,
            *unverified(records),
        ),
        tuple(dict.fromkeys(chain(*((row.a_signature, row.b_signature) for row in rows)))),
    )


def speaker_intervals(record: RunRecord) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the 95 % intervals of a run's scores over speakers, by metric and emotion.

    A score without one is left out: of clips of one speaker, or of a record of an earlier version.

    Raises:
        CardError: the record is damaged.
    """
    ends = {}
    for metric in record.metrics:
        try:
            items = item_values(record, metric)
        except NoPartsError:
            continue
        own = [s for s in record.scores if s.metric == metric and s.value is not None]
        for emotion in (s.emotion for s in own):
            chosen = [i for i in items if emotion in (i.emotion, AVERAGE)]
            values, emotions = [i.value for i in chosen], [i.emotion for i in chosen]
            try:
                estimate = resampling.estimate(values, emotions, _clusters(chosen)[1])
            except TooFewClustersError:
                continue
            low, high = resampling.intervals(resampling.draws(estimate))
            ends[metric, emotion] = float(low[0]), float(high[0])
    return ends


def _clusters(items: Sequence[ItemValue]) -> tuple[Literal["speakers", "clips"], list[str]]:
    """Return what is drawn with each clip: its speaker, or itself when all are of one speaker."""
    speakers = [i.speaker for i in items]
    if len(set(speakers)) > 1:
        return "speakers", speakers
    return "clips", [i.item for i in items]


@dataclass(frozen=True)
class _Pair:
    """Two runs in one metric."""

    metric: str
    a: str
    b: str
    first: RunRecord
    second: RunRecord

    @property
    def label(self) -> str:
        return metric_card(self.metric).label

    def differences(
        self, common: bool, by_emotion: bool, resamples: int
    ) -> tuple[list[Difference], list[str]]:
        """Return the differences, not yet corrected for their number, and notes on them."""
        a, b = item_values(self.first, self.metric), item_values(self.second, self.metric)
        both = {i.item for i in a} & {i.item for i in b}
        of_both = f"{self.label} of {self.a} and {self.b}"
        notes: list[str] = []
        left_out: set[str] = set()
        if not len(a) == len(b) == len(both):
            if not common:
                raise self._other_clips(a, b)
            notes.append(f"{of_both}: on the {len(both)} clips of both")
            if self.first.kind_of(self.metric).pools_frames:
                # The frames of fewer clips would have to be pooled anew.
                left_out = {i.emotion for i in (*a, *b) if i.item not in both}
                reason = "it pools the frames of all clips, which are not the same"
                notes.append(f"No {of_both} in {', '.join(in_order(left_out))}: {reason}")
        ours = [i for i in a if i.item in both and i.emotion not in left_out]
        of_item = {i.item: i for i in b}
        theirs = [of_item[i.item] for i in ours]
        order = in_order(i.emotion for i in ours)
        pairs = list(zip(ours, theirs, strict=True))
        of_emotion = {e: [p for p in pairs if p[0].emotion == e] for e in order if by_emotion}
        if ours and not left_out:
            listed = len(self.first.protocol.emotions)
            if not common and not all(map(self._has_headline, (self.first, self.second))):
                reason = "clips are missing (--common compares what is there)"
                notes.append(f"No mean {of_both}: {reason}")
            else:
                of_emotion[AVERAGE] = pairs
                if len(order) < listed:
                    notes.append(f"{of_both}: over {len(order)} of {listed} emotions")
        return [self._difference(e, own, resamples) for e, own in of_emotion.items()], notes

    def _has_headline(self, record: RunRecord) -> bool:
        own = (s for s in record.scores if s.metric == self.metric and s.emotion == AVERAGE)
        return any(s.value is not None for s in own)

    def _other_clips(self, a: Sequence[ItemValue], b: Sequence[ItemValue]) -> CardError:
        ours, theirs = {i.item for i in a}, {i.item for i in b}
        only = [
            f"only '{label}' has {first_of(sorted(own), ', ')}"
            for label, own in ((self.a, ours - theirs), (self.b, theirs - ours))
            if own
        ]
        remedy = "Evaluate the same clips of both"
        if count := len(ours & theirs):
            remedy = f"Complete them, or compare on the {count} clips of both: --common"
        return CardError(f"{self.label} stands on different clips: {'; '.join(only)}", remedy)

    def _difference(
        self, emotion: str, pairs: Sequence[tuple[ItemValue, ItemValue]], resamples: int
    ) -> Difference:
        ours = [p[0] for p in pairs]
        values = _mean(ours), _mean([p[1] for p in pairs])
        # Of a metric that is best at 0, distances from it are compared.
        zero = metric_card(self.metric).direction == "zero"
        signs = [math.copysign(1.0, v) if zero else 1.0 for v in values]
        by = values[1] * signs[1] - values[0] * signs[0]
        size = max(map(abs, values))
        by = 0.0 if abs(by) <= TINY * size else by
        drawn, clusters = _clusters(ours)
        row = Difference(
            metric=self.metric,
            emotion=emotion,
            a=self.a,
            b=self.b,
            a_value=values[0],
            b_value=values[1],
            difference=by,
            drawn=drawn,
            clusters=len(set(clusters)),
            clips=len(ours),
            a_signature=_signature(self.first, self.metric),
            b_signature=_signature(self.second, self.metric),
            b_is_control=self.second.is_control,
        )
        # A, B and their difference: three columns on the same draws.
        columns = np.array([[1.0, 0.0, -signs[0]], [0.0, 1.0, signs[1]]])
        table = np.array([[a.value, b.value] for a, b in pairs]) @ columns
        try:
            estimate = resampling.estimate(table, [i.emotion for i in ours], clusters)
        except TooFewClustersError as alone:
            subject = "it stands" if emotion != AVERAGE else f"{alone} stands"
            counts = Counter(i.emotion for i in ours)
            if lone := [e for e, n in counts.items() if n == 1]:
                more = f"{len(lone)} more at least (in {', '.join(lone)})"
                where = "it stands" if emotion != AVERAGE else f"{lone[0]} stands"
                verdict = f"cannot tell: {where} on one clip; {more} would be needed"
                return replace(row, verdict=verdict)
            # Clips of one speaker in an emotion: an interval over clips, and no test.
            own = resampling.estimate(table, [i.emotion for i in ours], [i.item for i in ours])
            ends = np.transpose(resampling.intervals(resampling.draws(own, resamples))).tolist()
            (a_low, a_high), (b_low, b_high), (low, high) = ends
            row = replace(row, a_low=a_low, a_high=a_high, b_low=b_low, b_high=b_high)
            row = replace(row, low=low, high=high, drawn="clips", clusters=len(ours))
            verdict = f"cannot tell: {subject} on clips of one speaker; interval over clips"
            return replace(row, verdict=verdict)
        draws = resampling.draws(estimate, resamples)
        ends = np.transpose(resampling.intervals(draws)).tolist()
        (a_low, a_high), (b_low, b_high), (low, high) = ends
        row = replace(row, a_low=a_low, a_high=a_high, b_low=b_low, b_high=b_high)
        error = float(estimate.error[2])
        if error <= TINY * size:  # the same in all clips
            least = 2 / (resamples + 1)
            return replace(row, low=by, high=by, p=1.0 if by == 0 else least)
        p, effect = float(resampling.p_values(draws)[2]), by / (error * math.sqrt(row.clusters))
        needed = resampling.clips_needed(by, error, row.clusters, row.clips)
        return replace(row, low=low, high=high, p=p, effect=effect, needed=needed)


def _mean(items: Sequence[ItemValue]) -> float:
    """Return the mean over emotions of the mean over their clips."""
    by_emotion: dict[str, list[float]] = {}
    for i in items:
        by_emotion.setdefault(i.emotion, []).append(i.value)
    return float(np.mean([np.mean(values) for values in by_emotion.values()]))


def _signature(record: RunRecord, metric: str) -> str:
    return next((s.signature for s in record.scores if s.metric == metric), "")


def _judge(rows: Sequence[Difference]) -> list[Difference]:
    """Correct p-values for their number, and give each row its verdict."""
    tested = [row.p for row in rows if row.p is not None]
    corrected = iter(resampling.holm(tested))
    rows = [row if row.p is None else replace(row, p_holm=next(corrected)) for row in rows]
    verdicts = [row.verdict if row.p is None else _verdict(row, len(tested)) for row in rows]
    return [replace(row, verdict=v) for row, v in zip(rows, verdicts, strict=True)]


def _verdict(row: Difference, tested: int) -> str:
    if row.difference == 0 and row.low == row.high:
        return "no difference"
    if row.told_apart:
        higher = metric_card(row.metric).direction == "higher"
        return f"{row.b if (row.difference > 0) == higher else row.a} better"
    if row.p is not None and row.p < LEVEL:
        alone = f"cannot tell among {_comparisons(tested)} (alone: p = {p_text(row.p)})"
        error = abs(row.difference) / (abs(row.effect or 0.0) or math.inf) / math.sqrt(row.clusters)
        size = row.clusters, row.clips
        # Bonferroni's level is the smallest that Holm's correction asks for.
        needed = resampling.clips_needed(row.difference, error, *size, level=LEVEL / tested)
        return alone if needed is None else f"{alone}: about {needed} clips would be needed"
    if row.needed is None:
        return "cannot tell: no number of clips would do"
    return f"cannot tell: about {row.needed} clips would be needed"


def _comparisons(count: int) -> str:
    return f"{count} comparison{'' if count == 1 else 's'}"


def p_text(p: float) -> str:
    """Return a p-value as printed."""
    return f"{p:.2g}" if p >= 0.001 else "<0.001"


def _basis(rows: Sequence[Difference], resamples: int, count_controls: bool) -> Iterator[str]:
    """Yield what the rows stand on, and how to read them."""
    if not rows:
        return
    shown = [row for row in rows if row.emotion == AVERAGE] or rows
    on = " or ".join(
        f"{clips} clips of {clusters} speakers" if drawn == "speakers" else f"{clips} clips"
        for clips, clusters, drawn in dict.fromkeys((r.clips, r.clusters, r.drawn) for r in shown)
    )
    alone = any(row.drawn == "clips" for row in rows)
    yield (
        f"Difference: B less A, clip by clip, on {on}; 95 % intervals from {resamples:,} draws of "
        f"speakers with all of their clips{', or of clips where all are of one' * alone}."
    )
    if any(row.drawn == "clips" and row.p is None and row.low is not None for row in rows):
        yield (
            "Intervals over clips, marked (clips), where an emotion has clips of one speaker: they "
            "say nothing about other speakers, and there is no p. Remedy: evaluate clips of two "
            "speakers or more in each emotion."
        )
    of_controls = sum(row.p is not None and row.b_is_control for row in rows)
    of_all = sum(row.p is not None for row in rows)
    apart = 0 < of_controls < of_all and not count_controls
    tested = of_all - of_controls if apart else of_all
    beside = f", controls apart for {of_controls} (--count-controls: together)" * apart
    yield (
        f"p: two-sided, corrected for {_comparisons(tested)}{beside} (Holm). "
        "Effect: difference divided by the standard deviation of the speakers' differences."
    )
    cards = (metric_card(name) for name in dict.fromkeys(row.metric for row in rows))
    if zero := [card.label for card in cards if card.direction == "zero"]:
        yield f"{', '.join(zero)}: best at 0; the difference is that of the distances from 0."
    least = 2 / (resamples + 1)
    if tested * least >= LEVEL:
        enough = 10 ** math.ceil(math.log10(2 * tested / LEVEL))
        yield (
            f"With so many comparisons, {resamples:,} draws tell nothing apart: p is {least:.1g} "
            f"at least. Take more (--resamples {enough}), or compare less."
        )
    if any("would be needed" in row.verdict for row in rows):
        yield (
            "Clips needed: to find this difference in 80 of 100 repetitions, new clips coming with "
            "new speakers."
        )
    few = [row.clusters for row in rows if row.p is not None and row.clusters < FEW]
    if few:
        yield (
            f"As few as {min(few)} are drawn: intervals hold where differences vary alike on "
            "both sides, and are wide."
        )
