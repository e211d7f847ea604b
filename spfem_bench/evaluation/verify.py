"""Run records computed again from what they keep of each clip: edited numbers are found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from spfem_bench.definitions.methods import method_card
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.protocols import AVERAGE, protocol, protocol_card
from spfem_bench.errors import CardError, SpfemBenchError, UnknownNameError
from spfem_bench.evaluation.record import (
    RecordedItem,
    RecordedSettings,
    RunRecord,
    Score,
    load_run,
)
from spfem_bench.evaluation.score import headline, resampled, within_range
from spfem_bench.evaluation.signature import signature
from spfem_bench.files import inside
from spfem_bench.statistics.base import GroupScore, MetricKind, NoPartsError
from spfem_bench.statistics.intervals import Resampled

LARGEST = 20_000_000  # clips times draws of a bootstrap; a protocol of 252 clips has 252,000
TOLERANCE = 1e-6  # relative: other versions of NumPy add in another order


class Mismatch(NamedTuple):
    """One value of a record that does not follow from the rest of it."""

    place: str
    recorded: Any
    recomputed: Any


@dataclass(frozen=True)
class Verification:
    """What came of computing a record again from what it keeps of each clip.

    Attributes:
        counts: how many values of each kind were computed again.
        unchecked: what a record alone cannot say, one line each.
    """

    record: RunRecord
    mismatches: tuple[Mismatch, ...]
    counts: Mapping[str, int]
    unchecked: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether all that was computed again is as recorded."""
        return not self.mismatches


def verify_file(path: Path) -> Verification:
    """Read a record and compute it again; a protocol's card beside it is used.

    Raises CardError when it is no run record, or damaged: also by its checksum.
    """
    return verify_record(load_run(path), path.parent)


def verify_record(record: RunRecord, folder: Path | None = None) -> Verification:
    """Compute all values of a record again from what it keeps of each clip.

    Values, intervals and counts come from the items' components, signatures from the settings,
    and the items are those of the protocol's list, where that protocol is known here or its card
    lies in *folder*. Notes, times and the environment are not checked.

    Raises:
        CardError: it is damaged: components or settings are missing or no numbers; or a metric's
            kind is not installed.
    """
    check = _Check(record)
    check.frame()
    check.items(folder)
    with np.errstate(all="ignore"):  # what is not finite is a mismatch
        for metric in record.settings:
            try:
                check.metric(metric)
            except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
                where = f"the run of '{record.method.name}' is damaged: {metric}"
                raise CardError(f"{where}: {error!r}", "Run the evaluation again") from None
    check.unsigned()
    return Verification(record, tuple(check.mismatches), check.counts, tuple(check.unchecked))


class _Check:
    """One record that is being computed again."""

    def __init__(self, record: RunRecord) -> None:
        self.record = record
        self.mismatches: list[Mismatch] = []
        self.counts: Counter[str] = Counter()
        self.unchecked: list[str] = []
        self.no_interval: set[tuple[str, str]] = set()  # metrics and emotions
        if record.unverified:
            self.unchecked.append("the file's checksum: it has none")

    def same(self, counted: str, place: str, recorded: Any, recomputed: Any) -> None:
        self.need(counted, _equal(recorded, recomputed), place, recorded, recomputed)

    def need(self, counted: str, holds: bool, place: str, recorded: Any, expected: Any) -> None:
        self.counts[counted] += 1
        if not holds:
            self.mismatches.append(Mismatch(place, recorded, expected))

    @cached_property
    def rows(self) -> dict[tuple[str, str], Score]:
        """Scores by metric and emotion; a second one for the same is a mismatch."""
        rows: dict[tuple[str, str], Score] = {}
        for score in self.record.scores:
            place = score.metric, score.emotion
            if place in rows:
                self.mismatches.append(Mismatch(f"{' '.join(place)}: scores", 2, 1))
            rows[place] = score
        return rows

    # ---- the record as a whole ------------------------------------------------------

    def frame(self) -> None:
        """Check what the scores repeat, and what follows from them."""
        record = self.record
        with suppress(UnknownNameError):
            self.same("count", "method: kind", record.method.kind, self._kind_of_method())
        for place, score in self.rows.items():
            of_record = {
                "method": record.method.name,
                "protocol": record.protocol.name,
                "setting": record.protocol.setting,
                "profile": record.profile,
                "kind": "control" if record.is_control else "reproduced",
            }
            own = {key: getattr(score, key) for key in of_record}
            self.same("count", f"{' '.join(place)}: {', '.join(own)}", own, of_record)
        signed = [s for s in record.scores if s.signature]
        unavailable = any(not s.signature and s.partial for s in record.scores)
        whole = all(s.value is not None and not s.partial for s in signed) and not unavailable
        self.same("count", "complete", record.complete, whole)

    def _kind_of_method(self) -> str:
        return method_card(self.record.method.name).kind

    def items(self, folder: Path | None) -> None:
        """Check the items: each once, those of the list, and each scored or refused."""
        record = self.record
        self.same("count", "protocol: n_items", record.protocol.n_items, len(record.items))
        ids = [item.id for item in record.items]
        self.same("count", "items: different ids", len(ids), len(set(ids)))
        refused = {(r.item, metric) for r in record.refused for metric in r.metrics}
        emotions = record.protocol.emotions
        for item in record.items:
            self.need(
                "count", item.emotion in emotions, f"{item.id}: emotion", item.emotion, emotions
            )
            for metric in record.settings.keys() | item.metrics.keys():
                state = _state(metric in item.metrics, (item.id, metric) in refused)
                holds = state in ("scored", "refused") and metric in record.settings
                place = f"{item.id}: in {metric}"
                self.need("count", holds, place, state, "scored, with settings, or refused")
        name = record.protocol.name
        try:
            own = inside(folder, f"{name}.toml") if folder else None
            beside = str(own) if own and own.is_file() else name
            if protocol_card(beside).version != record.protocol.version:
                raise CardError(f"'{name}' has another version here")
            listed = protocol(beside)
        except SpfemBenchError as error:
            self.unchecked.append(f"its items by the protocol's list: {error.problem}")
            return
        self.same("list", "protocol: list_sha256", record.protocol.list_sha256, listed.list_sha256)
        of_list = {
            i.id: (i.speaker, i.emotion, {str(role): str(clip) for role, clip in i.clips.items()})
            for i in listed.items
        }
        for item in record.items:
            clips = {r: c.address for r, c in item.clips.items() if r != "output"}
            own_row = item.speaker, item.emotion, clips
            self.same("list", f"{item.id}: row of the list", own_row, of_list.get(item.id))
        if not record.is_control:  # an item of which a control cannot be made is left out
            self.same("list", "items of the list", len(ids), len(of_list))

    # ---- one metric -----------------------------------------------------------------

    def metric(self, metric: str) -> None:
        """Compute the scores of a metric again."""
        record, settings = self.record, self.record.settings[metric]
        kind = record.kind_of(metric)
        scored = [item for item in record.items if metric in item.metrics]
        sign = self._signature(metric, settings, scored)
        groups = self._groups(metric, kind, settings, scored)
        whole = record.partial or len(scored) == len(record.items)
        for emotion in record.protocol.emotions:
            own = [item for item in scored if item.emotion == emotion]
            self._row(metric, emotion, own, groups.get(emotion), sign)
        self._row(metric, AVERAGE, scored, headline(groups.values(), whole), sign)
        with suppress(UnknownNameError):
            here = metric_card(metric).version
            if here != settings.metric.version:
                self.unchecked.append(
                    f"{metric} by the code that made it: it has version {settings.metric.version}, "
                    f"and {here} here"
                )
        if (metric, AVERAGE) in self.no_interval:
            self.unchecked.append(f"the intervals of {metric}: the record is of an earlier version")
        if kind.pools_frames:
            self.unchecked.append(
                f"{metric} of each emotion: it pools all frames, which no record holds "
                "(its intervals and average are checked)"
            )

    def _signature(
        self, metric: str, settings: RecordedSettings, scored: Sequence[RecordedItem]
    ) -> str:
        record, plain = self.record, settings.plain()
        names = settings.metric.name, settings.protocol.name, plain["protocol"]["list"]
        expected = metric, record.protocol.name, record.protocol.list_sha256
        self.same("signature", f"{metric}: settings' metric, protocol and list", names, expected)
        ids = [item.id for item in scored]
        return signature(plain, record.profile, ids, len(record.items))

    def _groups(
        self,
        metric: str,
        kind: MetricKind[Any],
        settings: RecordedSettings,
        scored: Sequence[RecordedItem],
    ) -> dict[str, Resampled]:
        """Return the score of each emotion that has clips, with its draws."""
        groups = {}
        resamples = int(settings.plain()["metric"]["resamples"])
        if not 0 < resamples * max(1, len(scored)) <= LARGEST:
            raise ValueError(f"{resamples} draws of {len(scored)} clips")
        for stream, emotion in enumerate(self.record.protocol.emotions):
            kept = [item.metrics[metric] for item in scored if item.emotion == emotion]
            if not kept:
                continue
            if kind.pools_frames:
                score = self._pooled(metric, emotion, kind, kept)
            else:
                parts = [kind.read(one) for one in kept]
                score = kind.score(parts)
                frames = [one["n_frames"] for one in kept], [part.n_frames for part in parts]
                self.same("count", f"{metric} {emotion}: n_frames of the clips", *frames)
            groups[emotion] = resampled(score, resamples, stream)
        return groups

    def _pooled(
        self, metric: str, emotion: str, kind: MetricKind[Any], kept: Sequence[Mapping[str, Any]]
    ) -> GroupScore:
        """Return a score as recorded, with the clips' pseudo-values that belong to it."""
        row = self.rows.get((metric, emotion))
        value = math.nan if row is None or row.value is None else row.value
        of_clips = np.full(len(kept), math.nan)
        try:
            if not math.isnan(value):
                of_clips = np.array(kind.values(value, kept))
        except NoPartsError:
            if row is not None and row.low is not None:
                self.no_interval |= {(metric, emotion), (metric, AVERAGE)}
        return GroupScore(value, of_clips)

    def _row(
        self,
        metric: str,
        emotion: str,
        items: Sequence[RecordedItem],
        scored: Resampled | None,
        sign: str,
    ) -> None:
        """Compare one recorded score with what its items come to."""
        place, row = f"{metric} {emotion}", self.rows.get((metric, emotion))
        if row is None:
            self.mismatches.append(Mismatch(f"{place}: score", None, "one"))
            return
        value = None if scored is None or math.isnan(scored.value) else scored.value
        if emotion == AVERAGE or not self.record.kind_of(metric).pools_frames:
            self.same("value", f"{place}: value", row.value, value)
        low, high = scored.interval if scored is not None and value is not None else (None, None)
        with suppress(UnknownNameError):
            low, high = within_range(metric_card(metric), (low, high))
        if (metric, emotion) not in self.no_interval:
            self.same("interval", f"{place}: low", row.low, low)
            self.same("interval", f"{place}: high", row.high, high)
        kept = [item.metrics[metric] for item in items]
        expected = sum(emotion in (item.emotion, AVERAGE) for item in self.record.items)
        counts = {
            "n_items": len(items),
            "n_frames": sum(one["n_frames"] for one in kept),
            "n_refused": expected - len(items),
            "n_frames_refused": sum(one["n_frames_refused"] for one in kept),
            "partial": len(items) < expected,
        }
        for key, count in counts.items():
            self.same("count", f"{place}: {key}", getattr(row, key), count)
        self.same("signature", f"{place}: signature", row.signature, sign)

    def unsigned(self) -> None:
        """Check the scores of metrics without settings: they have no number."""
        record = self.record
        for (metric, emotion), row in self.rows.items():
            if metric not in record.settings:
                own = row.value, row.low, row.high, row.signature, row.n_items
                place = f"{metric} {emotion}: a number without settings"
                self.same("value", place, own, (None, None, None, "", 0))
            else:
                emotions = (*record.protocol.emotions, AVERAGE)
                holds = emotion in emotions
                self.need("count", holds, f"{metric} {emotion}: emotion", emotion, emotions)


def _state(scored: bool, refused: bool) -> str:
    if scored and refused:
        return "scored and refused"
    return "scored" if scored else "refused" if refused else "neither scored nor refused"


def _equal(recorded: Any, recomputed: Any) -> bool:
    if isinstance(recorded, (int, float)) and isinstance(recomputed, (int, float)):
        return math.isclose(recorded, recomputed, rel_tol=TOLERANCE, abs_tol=1e-9)
    return bool(recorded == recomputed)
