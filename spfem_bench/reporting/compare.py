"""Run records to differences between methods: intervals, p-values, and verdicts in words."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from spfem_bench.analysis import resampling
from spfem_bench.analysis.resampling import LEVEL, RESAMPLES, TooFewClustersError
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import AVERAGE, in_order
from spfem_bench.errors import CardError, near_names
from spfem_bench.evaluation.record import ItemValue, NoPartsError, item_values, scores, unverified
from spfem_bench.evaluation.signature import flat
from spfem_bench.reporting.grids import emotion_label, markdown_escape, one_line
from spfem_bench.reporting.tables import heading
from spfem_bench.texts import csv_text

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 6
"""Settings and clips that one line names at most."""

FEW = 6
"""Speakers below which a comparison says so."""

TINY = 1e-9
"""Differences below this part of the values are rounding."""

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Difference:
    """One metric of two methods on the same clips.

    Attributes:
        emotion: an emotion, or ``avg`` for the mean over emotions.
        a: the baseline.
        b: the other method.
        a_value: its score over the clips that are compared, with its own 95 % interval from
            ``a_low`` to ``a_high``; ``b_value`` and the others likewise.
        difference: B less A; of a metric that is best at 0, of the distances from 0.
        low: lower end of the difference's 95 % interval, ``high`` the upper; None when there is no
            telling, and ``verdict`` says why.
        p: two-sided p-value of no difference, alone.
        p_holm: the same, corrected for all that the comparison shows.
        effect: the difference divided by the standard deviation of the speakers' differences
            (``error * sqrt(clusters)``); None when there is none.
        drawn: whether speakers are drawn, or clips where all are of one speaker.
        clusters: how many of them there are.
        clips: clips that both stand on.
        needed: clips that would tell the methods apart in 80 of 100 repetitions; None for never.
        verdict: what that says, in words.
        a_signature: how the baseline's number was made; ``b_signature`` differs from it at most in
            the clips, when those of both are compared, and in versions, when these are allowed.
    """

    metric: str
    emotion: str
    a: str
    b: str
    a_value: float
    a_low: float | None
    a_high: float | None
    b_value: float
    b_low: float | None
    b_high: float | None
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    effect: float | None
    drawn: Literal["speakers", "clips"]
    clusters: int
    clips: int
    needed: int | None
    verdict: str
    a_signature: str
    b_signature: str

    @property
    def told_apart(self) -> bool:
        """Whether the methods differ beyond chance, after correction for all that is shown."""
        return self.p_holm is not None and self.p_holm < LEVEL


@dataclass(frozen=True, repr=False)
class Comparison:
    """Everything a printed comparison needs; printed it is a table.

    Attributes:
        baseline: the method that the others are compared with.
        others: these, in their order.
        rows: the differences, by method, metric and emotion.
        notes: what they stand on, and what could not be compared.
        signatures: how the numbers were made.
    """

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

    def __repr__(self) -> str:
        return render_comparison(self, "text")


def compare_runs(
    records: Sequence[Record],
    *,
    baseline: str = "",
    metrics: Sequence[str] = (),
    by_emotion: bool = False,
    common: bool = False,
    allow_versions: bool = False,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Compare runs that were made alike, clip by clip.

    Args:
        records: run records of two methods at least.
        baseline: the method that the others are compared with; the first when empty.
        metrics: those to compare; all that the runs share when empty.
        by_emotion: each emotion too, not the mean alone; all rows count in Holm's correction.
        common: where the runs are not on the same clips, or lack some: take those of both.
        allow_versions: compare also where versions of libraries or of ffmpeg differ; a note
            names them.
        resamples: draws behind intervals and p-values.

    Raises:
        CardError: fewer than two runs, the same run twice, runs made or listed in different ways,
            runs without scores, damaged records.
    """
    if len(records) < 2:
        raise CardError(
            "one run has nothing to be compared with" if records else "no runs to compare",
            "Give the records of two methods or more",
        )
    runs = _named(records, baseline)
    _refuse_twice(runs)
    for label, record in runs.items():
        if not any(s.value is not None for s in scores(record)):
            reasons = {s.note for s in scores(record) if s.note}
            why = f": {min(reasons)}" if reasons else ""
            raise CardError(
                f"the run of '{label}' is empty{why}", "Leave it out, or evaluate it again"
            )
    label, *others = runs
    shared, alone = _shared(runs, metrics)
    versions = _refuse_unlike(runs, shared, allow_versions=allow_versions)
    rows: list[Difference] = []
    notes: dict[str, None] = {}
    for other in others:
        for metric in shared:
            try:
                a, b = item_values(runs[label], metric), item_values(runs[other], metric)
            except NoPartsError as error:
                if metrics:
                    raise
                notes[f"No {metric_card(metric).label}: {error}"] = None
                continue
            pair = _Pair(metric, label, other, runs[label], runs[other], common)
            found, said = pair.rows(a, b, by_emotion, resamples)
            rows += found
            notes |= dict.fromkeys(said)
    rows = _judged(rows)
    return Comparison(
        label,
        tuple(others),
        tuple(rows),
        (*versions, *_stands_on(rows, resamples), *notes, *alone, *unverified(records)),
        tuple(dict.fromkeys(chain(*((row.a_signature, row.b_signature) for row in rows)))),
    )


def speaker_intervals(
    record: Record, *, resamples: int = RESAMPLES
) -> dict[tuple[str, str], tuple[float, float]]:
    """Return the 95 % intervals of a run's scores over speakers, by metric and emotion.

    They stand beside the record's own, which draw clips within each emotion and hold its speakers
    fixed. A score without one is left out: of clips of one speaker, or of a record of an earlier
    version.

    Raises:
        CardError: the record is damaged.
    """
    found = {}
    for metric in dict.fromkeys(s.metric for s in scores(record) if s.value is not None):
        try:
            items = item_values(record, metric)
        except NoPartsError:
            continue
        known = [s.emotion for s in scores(record) if s.metric == metric and s.value is not None]
        for emotion in known:
            chosen = [i for i in items if emotion in (i.emotion, AVERAGE)]
            try:
                estimate = resampling.estimate(
                    [i.value for i in chosen], [i.emotion for i in chosen], _clusters(chosen)[1]
                )
            except TooFewClustersError:
                continue
            low, high = resampling.intervals(resampling.draws(estimate, resamples))
            found[metric, emotion] = float(low[0]), float(high[0])
    return found


# ---- which runs ----------------------------------------------------------------------------


def _named(records: Sequence[Record], baseline: str) -> dict[str, Record]:
    """Return the runs by their methods' names, told apart where they are alike; baseline first."""
    runs: dict[str, Record] = {}
    for record in records:
        try:
            name = str(record["method"]["name"])
        except (KeyError, TypeError):
            raise CardError(
                "a run record is damaged: it names no method", "Run the evaluation again"
            ) from None
        times = sum(label.partition(" (")[0] == name for label in runs)
        runs[f"{name} ({times + 1})" if times else name] = record
    if baseline:
        if baseline not in runs:
            raise CardError(f"no run of '{baseline}' among those given", near_names(baseline, runs))
        runs = {baseline: runs.pop(baseline), **runs}
    return runs


def _refuse_twice(runs: Mapping[str, Record]) -> None:
    """Refuse a run that is given twice.

    Raises:
        CardError: two runs of one method have the same clips, networks and scores.
    """
    seen: list[tuple[Record, list[Any]]] = []
    for label, record in runs.items():
        made = [record.get(key) for key in ("method", "protocol", "profile", "items", "scores")]
        if any(made == other for _, other in seen):
            raise CardError(
                f"the run of '{label.partition(' (')[0]}' is given twice", "Give each run once"
            )
        seen.append((record, made))


def _shared(
    runs: Mapping[str, Record], asked: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the metrics that all runs have, and what is said of the others.

    Raises:
        CardError: there is none, or one that was asked for is missing.
    """
    have = {
        label: list(dict.fromkeys(s.metric for s in scores(r) if s.value is not None))
        for label, r in runs.items()
    }
    every = list(dict.fromkeys(chain(*have.values())))
    for metric in asked:
        lacking = [label for label, own in have.items() if metric not in own]
        if lacking:
            raise CardError(
                f"no {metric} in the run of '{lacking[0]}'", near_names(metric, have[lacking[0]])
            )
    shared = tuple(asked) or tuple(m for m in every if all(m in own for own in have.values()))
    if not shared:
        raise CardError(
            f"the runs of {_listed(runs)} share no metric",
            "Evaluate them again with the same --metrics",
        )
    lines = [
        f"No {metric_card(m).label}: only {_listed(label for label in have if m in have[label])} "
        "has it"
        for m in every
        if m not in shared and not asked
    ]
    return shared, tuple(lines)


def _refuse_unlike(
    runs: Mapping[str, Record], metrics: Sequence[str], *, allow_versions: bool
) -> list[str]:
    """Refuse runs that were made in different ways, and name the settings that differ.

    Returns:
        A note for each run that was made with other versions, when these are allowed.

    Raises:
        CardError: protocols, profiles or settings differ.
    """
    (a, first), *others = runs.items()
    notes = []
    for b, record in others:
        try:
            ours, theirs = _made(first, metrics), _made(record, metrics)
        except (KeyError, TypeError):
            raise CardError(
                f"the run of '{a}' or of '{b}' is damaged: its settings are incomplete",
                "Run the evaluation again",
            ) from None
        if ours["protocol"] != theirs["protocol"]:
            raise CardError(
                f"'{a}' was evaluated on {ours['protocol']}, '{b}' on {theirs['protocol']}",
                "Compare runs on one protocol: spfem-bench eval "
                f"--method {record['method']['name']} --protocol {ours['protocol']}",
            )
        unlike = _unlike(ours, theirs, metrics)
        if not unlike:
            continue
        only_versions = not _unlike(ours, theirs, metrics, versions=False)
        if only_versions and allow_versions:
            notes.append(
                f"Not made alike: versions of '{a}' and '{b}' differ: {'; '.join(unlike)}."
            )
            continue
        alike = [m for m in metrics if not _unlike(_made(first, [m]), _made(record, [m]), [m])]
        remedy = (
            f"Evaluate '{b}' again as '{a}' was: spfem-bench eval --method "
            f"{record['method']['name']} --protocol {ours['protocol']} --profile {ours['profile']}"
        )
        if alike:
            remedy += f"; or compare what was made alike: --metrics {','.join(alike)}"
        if only_versions:
            remedy += "; or compare all the same, with a note: --allow-versions"
        raise CardError(f"'{a}' and '{b}' were not made alike: {_several(unlike, '; ')}", remedy)
    return notes


def _made(record: Record, metrics: Sequence[str]) -> dict[str, Any]:
    return {
        "protocol": record["protocol"]["name"],
        "profile": record["profile"],
        "settings": {m: dict(flat(record["settings"][m])) for m in metrics},
    }


def _is_version(key: str) -> bool:
    """Return whether a setting is the version of a program or library."""
    return key == "media.ffmpeg" or key.startswith("software.")


def _unlike(
    ours: Mapping[str, Any],
    theirs: Mapping[str, Any],
    metrics: Sequence[str],
    *,
    versions: bool = True,
) -> list[str]:
    """Name each field that differs, with both values and the metrics it belongs to.

    Args:
        ours: from :func:`_made`.
        theirs: the other run's.
        metrics: whose settings.
        versions: name those of libraries and of ffmpeg too.
    """
    lines = []
    if ours["profile"] != theirs["profile"]:
        lines.append(f"profile {ours['profile']} against {theirs['profile']}")
    fields_of: dict[str, list[str]] = {}
    for m in metrics:
        here, there = ours["settings"][m], theirs["settings"][m]
        for key in dict.fromkeys([*here, *there]):
            if here.get(key) != there.get(key) and (versions or not _is_version(key)):
                said = f"{key} {_short(here.get(key))} against {_short(there.get(key))}"
                fields_of.setdefault(said, []).append(m)
    for said, where in fields_of.items():
        lines.append(said if len(where) == len(metrics) else f"{said} ({', '.join(where)})")
    return lines


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:8] if is_hash else text


def _several(lines: Sequence[str], separator: str) -> str:
    rest = len(lines) - SHOWN
    return separator.join(lines[:SHOWN]) + (f"{separator}and {rest} more" if rest > 0 else "")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)


# ---- differences ---------------------------------------------------------------------------


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
    first: Record
    second: Record
    common: bool

    def rows(
        self, a: Sequence[ItemValue], b: Sequence[ItemValue], by_emotion: bool, resamples: int
    ) -> tuple[list[Difference], list[str]]:
        """Return the differences, not yet corrected for their number, and what to say of them."""
        label = metric_card(self.metric).label
        both = {i.item for i in a} & {i.item for i in b}
        notes = []
        whole = len(a) == len(b) == len(both)
        left_out: set[str] = set()
        if not whole:
            if not self.common:
                raise CardError(self._unlike_clips(a, b), self._remedy(len(both)))
            notes.append(f"{label} of {self.a} and {self.b}: on the {len(both)} clips of both")
            if self._pools():
                # The frames of fewer clips would have to be pooled anew.
                left_out = {i.emotion for i in (*a, *b) if i.item not in both}
                names = ", ".join(in_order(left_out))
                notes.append(
                    f"No {label} of {self.a} and {self.b} in {names}: it pools the frames of all "
                    "clips, which are not the same"
                )
        kept = {i.item for i in a if i.item in both and i.emotion not in left_out}
        ours = [i for i in a if i.item in kept]
        by_item = {i.item: i for i in b}
        theirs = [by_item[i.item] for i in ours]
        order = in_order(i.emotion for i in ours)
        listed = self.first["protocol"]["emotions"]
        headline = ours and not left_out and (self.common or self._has_headlines())
        if headline and len(order) < len(listed):
            notes.append(
                f"{label} of {self.a} and {self.b}: over {len(order)} of {len(listed)} emotions"
            )
        if not headline and ours and not left_out:
            notes.append(
                f"No mean {label} of {self.a} and {self.b}: clips are missing "
                "(--common compares what is there)"
            )
        found = []
        for emotion in [*(order if by_emotion else ()), *([AVERAGE] if headline else ())]:
            chosen = [k for k, i in enumerate(ours) if emotion in (i.emotion, AVERAGE)]
            found.append(
                self._row(
                    emotion, [ours[k] for k in chosen], [theirs[k] for k in chosen], resamples
                )
            )
        return found, notes

    def _pools(self) -> bool:
        kind: str = self.first["settings"][self.metric]["metric"]["statistic"]["kind"]
        return kind == "frechet"

    def _has_headlines(self) -> bool:
        return all(
            any(
                s.metric == self.metric and s.emotion == AVERAGE and s.value is not None
                for s in scores(r)
            )
            for r in (self.first, self.second)
        )

    def _unlike_clips(self, a: Sequence[ItemValue], b: Sequence[ItemValue]) -> str:
        one, two = {i.item for i in a}, {i.item for i in b}
        said = [
            f"only '{label}' has {_several(sorted(own), ', ')}"
            for label, own in ((self.a, one - two), (self.b, two - one))
            if own
        ]
        return f"{metric_card(self.metric).label} stands on different clips: {'; '.join(said)}"

    def _remedy(self, count: int) -> str:
        if not count:
            return "Evaluate the same clips of both"
        return f"Complete them, or compare on the {count} clips of both: --common"

    def _row(
        self,
        emotion: str,
        ours: Sequence[ItemValue],
        theirs: Sequence[ItemValue],
        resamples: int,
    ) -> Difference:
        values = _means(ours), _means(theirs)
        # Of a metric that is best at 0, distances from it are compared.
        zero = metric_card(self.metric).direction == "zero"
        signs = [math.copysign(1.0, v) if zero else 1.0 for v in values]
        by = values[1] * signs[1] - values[0] * signs[0]
        size = max(map(abs, values))
        drawn, clusters = _clusters(ours)
        row = Difference(
            metric=self.metric,
            emotion=emotion,
            a=self.a,
            b=self.b,
            a_value=values[0],
            a_low=None,
            a_high=None,
            b_value=values[1],
            b_low=None,
            b_high=None,
            difference=0.0 if abs(by) <= TINY * size else by,
            low=None,
            high=None,
            p=None,
            p_holm=None,
            effect=None,
            drawn=drawn,
            clusters=len(set(clusters)),
            clips=len(ours),
            needed=None,
            verdict="",
            a_signature=_signature(self.first, self.metric),
            b_signature=_signature(self.second, self.metric),
        )
        # A, B and their difference: three columns on the same draws.
        columns = np.array([[1.0, 0.0, -signs[0]], [0.0, 1.0, signs[1]]])
        table = np.array([[i.value for i in ours], [i.value for i in theirs]]).T @ columns
        try:
            estimate = resampling.estimate(table, [i.emotion for i in ours], clusters)
        except TooFewClustersError as alone:
            why = "it stands" if emotion != AVERAGE else f"{alone} stands"
            what = "one clip" if len(ours) == 1 else "clips of one speaker"
            return replace(row, verdict=f"cannot tell: {why} on {what}")
        draws = resampling.draws(estimate, resamples)
        ends = np.transpose(resampling.intervals(draws)).tolist()
        (a_low, a_high), (b_low, b_high), (low, high) = ends
        row = replace(row, a_low=a_low, a_high=a_high, b_low=b_low, b_high=b_high)
        error = float(estimate.error[2])
        if error <= TINY * size:  # the same in all clips
            by, least = row.difference, 2 / (resamples + 1)
            return replace(row, low=by, high=by, p=1.0 if by == 0 else least)
        return replace(
            row,
            low=low,
            high=high,
            p=float(resampling.p_values(draws)[2]),
            effect=row.difference / (error * math.sqrt(row.clusters)),
            needed=resampling.clips_needed(row.difference, error, row.clusters, row.clips),
        )


def _means(items: Sequence[ItemValue]) -> float:
    by_emotion: dict[str, list[float]] = {}
    for i in items:
        by_emotion.setdefault(i.emotion, []).append(i.value)
    return float(np.mean([np.mean(values) for values in by_emotion.values()]))


def _judged(rows: Sequence[Difference]) -> list[Difference]:
    """Correct p-values for their number, and say what each row tells."""
    tested = [row for row in rows if row.p is not None]
    corrected = iter(resampling.holm([row.p for row in tested if row.p is not None]))
    judged = []
    for row in rows:
        if row.p is not None:
            row = replace(row, p_holm=next(corrected))
            row = replace(row, verdict=_verdict(row, len(tested)))
        judged.append(row)
    return judged


def _verdict(row: Difference, tested: int) -> str:
    if row.difference == 0 and row.low == row.high:
        return "no difference"
    if row.told_apart:
        higher = metric_card(row.metric).direction == "higher"
        return f"{row.b if (row.difference > 0) == higher else row.a} better"
    if row.p is not None and row.p < LEVEL:
        return f"cannot tell among {_comparisons(tested)} (alone: p = {p_text(row.p)})"
    if row.needed is None:
        return "cannot tell: no number of clips would do"
    return f"cannot tell: about {row.needed} clips would be needed"


def _comparisons(count: int) -> str:
    return f"{count} comparison{'' if count == 1 else 's'}"


def _stands_on(rows: Sequence[Difference], resamples: int) -> Iterator[str]:
    """Say what the rows stand on, and how to read them."""
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
    tested = sum(row.p is not None for row in rows)
    yield (
        f"p: two-sided, corrected for {_comparisons(tested)} (Holm). Effect: difference divided by "
        "the standard deviation of the speakers' differences."
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


def _signature(record: Record, metric: str) -> str:
    return next((s.signature for s in scores(record) if s.metric == metric), "")


# ---- printing ------------------------------------------------------------------------------

Format = Literal["text", "markdown", "csv"]


def render_comparison(comparison: Comparison, style: Format) -> str:
    """Return a comparison as text: one table for each method beside the baseline, then notes."""
    if style == "csv":
        return csv_text([[f.name for f in fields(Difference)], *map(astuple, comparison.rows)])
    from tabulate import tabulate

    markdown = style == "markdown"
    said = markdown_escape if markdown else one_line
    blocks = []
    for other in comparison.others:
        rows = [row for row in comparison.rows if row.b == other]
        printed = tabulate(
            [
                [
                    heading(metric_card(row.metric)),
                    said(emotion_label(row.emotion)),
                    f"{row.a_value:.3f}",
                    f"{row.b_value:.3f}",
                    f"{row.difference:+.3f}",
                    "–" if row.low is None else f"[{row.low:+.3f}, {row.high:+.3f}]",
                    "–" if row.p_holm is None else p_text(row.p_holm),
                    "–" if row.effect is None else f"{row.effect:+.2f}",
                    said(row.verdict),
                ]
                for row in rows
            ],
            [
                "Metric",
                "Emotion",
                "A",
                "B",
                "B − A",
                "95 % interval",
                "p (Holm)",
                "Effect",
                "Verdict",
            ],
            tablefmt="github" if markdown else "simple",
            disable_numparse=True,
            colalign=("left", "left", *["right"] * 6, "left"),
        )
        title = said(f"A: {comparison.baseline}, B: {other}")
        blocks.append(f"{'### ' if markdown else ''}{title}\n\n{printed}\n")
    bullet, code = ("- ", "`") if markdown else ("", "")
    below = [f"{bullet}{said(note)}" for note in comparison.notes]
    below += [f"{bullet}{code}{one_line(s)}{code}" for s in comparison.signatures]
    return "\n".join([*blocks, *below]) + "\n"


def p_text(p: float) -> str:
    """Return a p-value as printed."""
    return f"{p:.2g}" if p >= 0.001 else "<0.001"
