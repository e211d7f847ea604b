"""Reference numbers made again: compared, explained, rewritten."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, Literal

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions import measured
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.computing import Computing
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import protocol as read_protocol
from spfem_bench.errors import CardError, SpfemBenchError, StorageError, UnknownNameError
from spfem_bench.evaluation.measure import plan_requests
from spfem_bench.evaluation.plan import Plan, make_plan
from spfem_bench.evaluation.preflight import plan_summary
from spfem_bench.evaluation.record import RunRecord
from spfem_bench.evaluation.session import carry_out, make_extractor
from spfem_bench.evaluation.signature import flat
from spfem_bench.execution.workers import Workers
from spfem_bench.features.extract import Faces
from spfem_bench.features.requests import Request
from spfem_bench.features.store import FeatureStore
from spfem_bench.files import check_writable, write_atomically
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import SILENT, Progress
from spfem_bench.version import __version__

MACHINE = "environment"
"""The part of settings that names Python, platform and device; no signature has it."""

Verdict = Literal["within", "moved", "counts", "new", "missing"]


@dataclass(frozen=True)
class Recomputed:
    """Reference numbers computed here and now, and why clips were refused, one line each."""

    rows: measured.ReferenceRows
    settings: measured.SettingsByPart
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class RowChange:
    """One row beside its reference; ``column`` is the number that lies farthest out.

    ``verdict`` is ``within``; ``moved``; ``counts`` when it stands on other clips or frames;
    ``new`` or ``missing`` when only one side has the row.
    """

    protocol: str
    method: str
    metric: str
    emotion: str
    column: measured.NumberName
    reference: float | None
    here: float | None
    tolerance: float
    verdict: Verdict
    note: str = ""

    @property
    def by(self) -> float | None:
        """How far the number has moved."""
        if self.reference is None or self.here is None:
            return None
        return self.here - self.reference

    @property
    def share(self) -> float:
        """The difference in units of the tolerance; infinite when one side has no number."""
        if self.by is None:
            return 0.0 if self.reference is None and self.here is None else float("inf")
        return abs(self.by) / self.tolerance


@dataclass(frozen=True)
class SettingChange:
    """One setting that is not what made the reference; a side is None where it has no such setting.

    Attributes:
        key: the setting, with dots into tables; empty when all of the part is new or gone.
        allowed: whether it belongs to the machine, whose part the tolerance covers.
    """

    part: str
    key: str
    reference: Any
    here: Any
    allowed: bool


@dataclass(frozen=True)
class ReferenceCheck:
    """A set of reference numbers beside what they come to here.

    ``unversioned`` are metrics and protocols that changed under their old version.
    """

    name: str
    rows: tuple[RowChange, ...]
    changes: tuple[SettingChange, ...]
    unversioned: tuple[str, ...]
    refused: tuple[str, ...]

    @property
    def failing(self) -> tuple[RowChange, ...]:
        """The rows that are not within their tolerance."""
        return tuple(d for d in self.rows if d.verdict != "within")

    @property
    def holds(self) -> bool:
        """Whether every number holds, and nothing that makes numbers was changed."""
        return not self.failing and all(c.allowed for c in self.changes)


def recompute(
    card: measured.MeasuredCard,
    *,
    weights: WeightsStore,
    data: DataFolders,
    store: FeatureStore,
    workers: Workers,
    computing: Computing,
    progress: Progress = SILENT,
) -> Recomputed:
    """Evaluate all that a set names, by the path that every evaluation takes.

    Features that *store* holds are not computed again. Raises CardError when the card names a
    method that its protocol cannot have, and SpfemBenchError when a network's weights are missing
    or wrong.
    """
    make = partial(make_plan, data=data, weights=weights, progress=progress)
    plans: list[Plan] = []
    for protocol, methods in card.methods.items():
        for method in methods:
            try:
                plan = make(method, read_protocol(protocol), profile_card(card.profile))
            except (CardError, UnknownNameError) as error:
                raise CardError(f"{card.path}: {error.problem}", error.remedy) from None
            if plan.unavailable:
                raise SpfemBenchError(
                    f"'{card.name}' cannot be computed: {plan_summary(plan)[0].rstrip('.')}"
                )
            plans.append(plan)
    # All methods in one pass: clips that several share are decoded once, workers start once.
    by_faces: dict[Faces, tuple[Plan, dict[Clip, frozenset[Request]]]] = {}
    for plan in plans:
        _, requests = by_faces.setdefault(plan.protocol.card.faces, (plan, {}))
        for clip, wanted in plan_requests(plan).items():
            requests[clip] = requests.get(clip, frozenset()) | wanted
    for plan, requests in by_faces.values():
        extractor = make_extractor(plan, weights, computing, store=store, progress=progress)
        workers.compute(extractor, requests)
    rows: dict[measured.RowKey, measured.ReferenceRow] = {}
    settings: measured.SettingsByPart = {}
    refused: list[str] = []
    scored = carry_out(plans, weights, computing, workers=workers, partial=False, store=store)
    for plan, record in zip(plans, scored, strict=True):
        settings |= settings_by_part(record)
        rows |= rows_of(record)
        where = f"{plan.protocol.name}/{plan.method.name}"
        refused += [f"{where}: {r.kind}: {r.reason}" for r in record.refused]
    return Recomputed(rows, settings, tuple(refused))


def rows_of(record: RunRecord) -> dict[measured.RowKey, measured.ReferenceRow]:
    """Return a record's numbers; metrics that its protocol cannot have are left out."""
    names = [f.name for f in fields(measured.ReferenceRow)]
    scores = [score for score in record.scores if score.signature]
    numbers = [{name: getattr(score, name) for name in names} for score in scores]
    return {row.key: row for row in (measured.ReferenceRow(**number) for number in numbers)}


def settings_by_part(record: RunRecord) -> measured.SettingsByPart:
    """Return what made a record's numbers, each part once under a name for readers."""
    parts: measured.SettingsByPart = {}
    for metric, settings in record.settings.items():
        for key, value in settings.plain().items():
            if key in ("metric", "protocol", "network"):
                parts[f"{key} {value.pop('name')}"] = value
            elif key == "faces":
                parts[f"faces in {settings.protocol.name}"] = value
            elif key in ("data", "heads"):
                parts[f"{key} of {metric}"] = {"sha256": value}
            elif key == "software":  # of all metrics together: each lists what it uses
                parts[key] = {**parts.get(key, {}), **value}
            else:
                parts[key] = value if isinstance(value, dict) else {key: value}
    method = record.method
    if method.control:  # not in the signature, which all methods share; here it makes the numbers
        used = {k: v for k, v in method.control.items() if k != "levels"}  # to choose from
        parts[f"control {method.name}"] = used
    if method.model:
        parts[f"model {method.name}"] = dict(method.model)
    # Tuples become lists, as they are read back.
    plain: measured.SettingsByPart = json.loads(json.dumps(parts))
    return plain


def check_reference(
    name: str,
    tolerances: Mapping[str, measured.Tolerance],
    reference: measured.ReferenceRows,
    made_by: measured.SettingsByPart,
    here: Recomputed,
) -> ReferenceCheck:
    """Compare numbers and settings with their references; each metric of *here* has a tolerance."""
    rows = [
        _row_change(key, reference.get(key), here.rows.get(key), tolerances.get(key[2]))
        for key in dict.fromkeys([*reference, *here.rows])
    ]
    changes = _setting_changes(made_by, here.settings)
    both = [(reference[k], here.rows[k]) for k in reference if k in here.rows]
    signed = next(((a, b) for a, b in both if a.signature != b.signature), None)
    if signed and all(c.part == MACHINE for c in changes) and not here.refused:
        # The way it is written has changed, or the files are of different updates.
        a, b = signed
        changes.append(SettingChange("signature", a.metric, a.signature, b.signature, False))
    unversioned = [
        part
        for part in dict.fromkeys(c.part for c in changes if not c.allowed)
        if "version" in here.settings.get(part, {})
        and made_by.get(part, {}).get("version") == here.settings[part]["version"]
    ]
    return ReferenceCheck(name, tuple(rows), tuple(changes), tuple(unversioned), here.refused)


def _row_change(
    key: measured.RowKey,
    old: measured.ReferenceRow | None,
    new: measured.ReferenceRow | None,
    tolerance: measured.Tolerance | None,  # None for a metric that only the reference still has
) -> RowChange:
    def change(column: measured.NumberName, verdict: Verdict, note: str = "") -> RowChange:
        before, now = (None if row is None else getattr(row, column) for row in (old, new))
        allowed = tolerance.around(before or 0.0) if tolerance else 0.0
        return RowChange(*key, column, before, now, allowed, verdict, note)

    if old is None or new is None:
        return change("value", "missing" if new is None else "new")
    worst = max((change(column, "within") for column in measured.NUMBERS), key=lambda d: d.share)
    if worst.share > 1:
        return replace(worst, verdict="moved")
    for count in ("n_items", "n_frames"):
        before, now = getattr(old, count), getattr(new, count)
        if before != now:
            return change("value", "counts", f"{count} {before} -> {now}")
    return worst


def _setting_changes(
    old: measured.SettingsByPart, new: measured.SettingsByPart
) -> list[SettingChange]:
    changes = []
    for part in dict.fromkeys([*old, *new]):
        if part not in old or part not in new:
            there, here = ("here", None) if part in old else (None, "here")
            changes.append(SettingChange(part, "", there, here, False))
            continue
        before, now = dict(flat(old[part])), dict(flat(new[part]))
        for key in dict.fromkeys([*before, *now]):
            a, b = before.get(key), now.get(key)
            if a != b:
                # Versions of programs differ between machines: that is what tolerances are for.
                allowed = part in ("software", MACHINE) or (part, key) == ("media", "ffmpeg")
                changes.append(SettingChange(part, key, a, b, allowed))
    return changes


def check_rewritable(card: measured.MeasuredCard) -> None:
    """Find out now, not after minutes of work, whether a set can be rewritten.

    Raises StorageError when its folder cannot be written.
    """
    try:
        check_writable(card.path.parent)
    except StorageError as error:
        raise StorageError(
            error.problem,
            "Reference numbers are rewritten in a checkout, or in a folder of your own named by "
            "SPFEM_BENCH_CARDS",
        ) from None


def rewrite(card: measured.MeasuredCard, here: Recomputed, reason: str) -> None:
    """Put new numbers in the place of a set's old ones, with the reason in the card's history.

    The reason is written first: after an update that was killed, a check finds old numbers.

    Raises:
        SpfemBenchError: a clip was refused; numbers of a part are no reference.
        StorageError: the folder cannot be written.
        CardError: the reason cannot be appended to the card.
    """
    if here.refused:
        raise SpfemBenchError(
            f"'{card.name}' is not rewritten: clips were refused, the first is {here.refused[0]}",
            "Reference numbers stand on every clip",
        )
    today = datetime.now(timezone.utc).date().isoformat()
    update = measured.Update(date=today, version=__version__, reason=reason, machine=machine())
    write_atomically(card.path, measured.with_update(card, update))
    write_atomically(card.settings_path, measured.settings_text(here.settings))
    write_atomically(card.values_path, measured.rows_text(here.rows.values()).encode())


def machine() -> str:
    """Return the kind of this machine, without any name of it."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"{platform.system()} {platform.machine()}, {capability}, {os.cpu_count()} processors, "
        f"Python {platform.python_version()}"
    )
