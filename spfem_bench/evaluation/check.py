"""Reference numbers made again: compared, explained, rewritten."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime, timezone
from typing import Any, Literal

from spfem_bench import progress as plain_progress
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.measured import (
    COLUMNS,
    Column,
    MeasuredCard,
    Row,
    Rows,
    Settings,
    Tolerance,
    Update,
    rows_text,
    settings_text,
    with_update,
)
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import protocol as read_protocol
from spfem_bench.errors import CardError, SpfemBenchError, StorageError, UnknownNameError
from spfem_bench.evaluation import record as records
from spfem_bench.evaluation.plan import Plan, make_plan
from spfem_bench.evaluation.preflight import plan_summary
from spfem_bench.evaluation.run import Want, wanted_features
from spfem_bench.evaluation.signature import flat
from spfem_bench.execution.local import Workers, evaluate_all
from spfem_bench.features.extract import Extractor, Faces, Progress
from spfem_bench.features.store import FeatureStore
from spfem_bench.files import check_writable, write_atomically
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.version import __version__

MACHINE = "environment"
"""The part of settings that names Python, platform and device; no signature has it."""

Verdict = Literal["within", "moved", "counts", "new", "missing"]


@dataclass(frozen=True)
class Measured:
    """What one set of reference numbers comes to, here and now.

    Attributes:
        refused: why clips could not be scored, one line each.
    """

    rows: Rows
    settings: Settings
    refused: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """One row beside its reference.

    Attributes:
        column: the number of the row that lies farthest out.
        reference: that number in the reference; None when it has none.
        here: that number here; None when there is none.
        tolerance: the largest difference allowed.
        verdict: ``within``; ``moved``; ``counts`` when it stands on other clips or frames;
            ``new`` or ``missing`` when only one side has the row.
    """

    protocol: str
    method: str
    metric: str
    emotion: str
    column: Column
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
        """The difference in units of the tolerance; infinite when a side has no number."""
        if self.by is None:
            return 0.0 if self.reference is None and self.here is None else float("inf")
        return abs(self.by) / self.tolerance


@dataclass(frozen=True)
class Change:
    """One setting that is not what made the reference.

    Attributes:
        part: such as ``metric fad``.
        key: the setting, with dots into tables; empty when all of the part is new or gone.
        reference: what made the reference; None when it was not there.
        here: what it is now; None when it is no more.
        allowed: whether it belongs to the machine, whose part the tolerance covers.
    """

    part: str
    key: str
    reference: Any
    here: Any
    allowed: bool


@dataclass(frozen=True)
class Comparison:
    """A set of reference numbers beside what they come to here.

    Attributes:
        differences: one for each row of either side.
        unversioned: metrics and protocols that changed under their old version.
        refused: why clips could not be scored, one line each.
    """

    name: str
    differences: tuple[Difference, ...]
    changes: tuple[Change, ...]
    unversioned: tuple[str, ...]
    refused: tuple[str, ...]

    @property
    def failing(self) -> tuple[Difference, ...]:
        """The rows that are not within their tolerance."""
        return tuple(d for d in self.differences if d.verdict != "within")

    @property
    def holds(self) -> bool:
        """Whether every number holds, and nothing that makes numbers was changed."""
        return not self.failing and all(c.allowed for c in self.changes)


# ---- the numbers, here and now -------------------------------------------------------------


def recompute(
    card: MeasuredCard,
    *,
    weights: WeightsStore,
    data: DataFolders,
    store: FeatureStore,
    workers: Workers,
    batch_size: int | None = None,
    rendering: plain_progress.Progress = plain_progress.SILENT,
    progress: Callable[[int], Progress] = lambda clips: Progress(),
) -> Measured:
    """Evaluate all that a set names, by the path that every evaluation takes.

    Args:
        card: the set.
        weights: where weights are looked for.
        data: where data sets are looked for.
        store: for features; what it holds is not computed again.
        workers: change no number.
        batch_size: frames in a batch; found when None.
        rendering: see :func:`~spfem_bench.evaluation.plan.make_plan`.
        progress: told how many clips there are, gives what hears of them.

    Raises:
        CardError: the card names a method that its protocol cannot have.
        SpfemBenchError: a network's weights are missing or wrong.
    """
    profile = profile_card(card.profile)
    plans: list[Plan] = []
    for protocol, methods in card.methods.items():
        for method in methods:
            try:
                plan = make_plan(
                    method,
                    read_protocol(protocol),
                    profile,
                    data=data,
                    weights=weights,
                    progress=rendering,
                )
            except (CardError, UnknownNameError) as error:
                raise CardError(f"{card.path}: {error.problem}", error.remedy) from None
            if plan.unavailable:
                raise SpfemBenchError(
                    f"'{card.name}' cannot be computed: {plan_summary(plan)[0].rstrip('.')}"
                )
            plans.append(plan)
    # All methods in one pass: clips that several share are decoded once, workers start once.
    by_faces: dict[Faces, dict[Clip, frozenset[Want]]] = {}
    for plan in plans:
        wants = by_faces.setdefault(plan.protocol.card.faces, {})
        for clip, roles in wanted_features(plan).items():
            wants[clip] = wants.get(clip, frozenset()) | roles
    extractors = {}
    for faces, wants in by_faces.items():
        extractor = Extractor(
            profile,
            weights,
            store,
            faces=faces,
            batch_size=batch_size,
            progress=progress(len(wants)),
        )
        try:
            workers.compute(extractor, wants)
        finally:
            extractor.progress.close()
        extractors[faces] = replace(extractor, progress=Progress())
    rows: dict[tuple[str, str, str, str], Row] = {}
    settings: Settings = {}
    refused: list[str] = []
    scored = evaluate_all(
        plans, lambda plan: extractors[plan.protocol.card.faces], workers, partial=False
    )
    for plan, record in zip(plans, scored, strict=True):
        settings |= settings_by_part(record)
        rows |= rows_of(record)
        where = f"{plan.protocol.name}/{plan.method.name}"
        refused += [f"{where}: {r['kind']}: {r['reason']}" for r in record["refused"]]
    return Measured(rows, settings, tuple(refused))


def rows_of(record: Mapping[str, Any]) -> dict[tuple[str, str, str, str], Row]:
    """Return a record's numbers; metrics that its protocol cannot have are none.

    Raises:
        CardError: the record is damaged.
    """
    found = [s for s in records.scores(record) if s.signature]
    rows = [Row(**{f.name: getattr(score, f.name) for f in fields(Row)}) for score in found]
    return {row.key: row for row in rows}


def settings_by_part(record: Mapping[str, Any]) -> Settings:
    """Return what made a record's numbers, each part once under a name for readers."""
    parts: Settings = {}
    for metric, frozen in record["settings"].items():
        for key, value in frozen.items():
            if key in ("metric", "protocol", "network"):
                parts[f"{key} {value['name']}"] = {k: v for k, v in value.items() if k != "name"}
            elif key == "faces":
                parts[f"faces in {frozen['protocol']['name']}"] = value
            elif key in ("data", "heads"):
                parts[f"{key} of {metric}"] = {"sha256": value}
            elif key == "software":  # of all metrics together: each lists what it uses
                parts[key] = {**parts.get(key, {}), **value}
            else:
                parts[key] = value if isinstance(value, dict) else {key: value}
    control = record["method"].get("control")
    if control:  # not in the signature, which all methods share; here it makes the numbers
        used = {k: v for k, v in control.items() if k != "levels"}  # the others to choose from
        parts[f"control {record['method']['name']}"] = used
    if model := record["method"].get("model"):
        parts[f"model {record['method']['name']}"] = model
    plain: Settings = json.loads(json.dumps(parts))  # tuples as lists, as they are read back
    return plain


# ---- comparing -----------------------------------------------------------------------------


def compare(
    name: str,
    tolerances: Mapping[str, Tolerance],
    reference: Rows,
    made_by: Settings,
    here: Measured,
) -> Comparison:
    """Lay numbers beside their references.

    Args:
        name: of the set.
        tolerances: by metric; every metric of *here* has one.
        reference: the rows of the set.
        made_by: the settings that made them.
        here: the same, here and now.
    """
    differences = []
    for key in dict.fromkeys([*reference, *here.rows]):
        old, new = reference.get(key), here.rows.get(key)
        differences.append(_difference(tolerances, key, old, new))
    changes = _changes(made_by, here.settings)
    both = [(reference[k], here.rows[k]) for k in reference if k in here.rows]
    signed = next(((a, b) for a, b in both if a.signature != b.signature), None)
    if signed and all(c.part == MACHINE for c in changes) and not here.refused:
        # The way it is written has changed, or the files are of different updates.
        a, b = signed
        changes.append(Change("signature", a.metric, a.signature, b.signature, False))
    unversioned = [
        part
        for part in dict.fromkeys(c.part for c in changes if not c.allowed)
        if "version" in here.settings.get(part, {})
        and made_by.get(part, {}).get("version") == here.settings[part]["version"]
    ]
    return Comparison(name, tuple(differences), tuple(changes), tuple(unversioned), here.refused)


def _difference(
    tolerances: Mapping[str, Tolerance],
    key: tuple[str, str, str, str],
    old: Row | None,
    new: Row | None,
) -> Difference:
    tolerance = tolerances.get(key[2])  # none for a metric that only the reference still has

    def beside(column: Column, verdict: Verdict, note: str = "") -> Difference:
        before, now = (None if row is None else getattr(row, column) for row in (old, new))
        allowed = tolerance.around(before or 0.0) if tolerance else 0.0
        return Difference(*key, column, before, now, allowed, verdict, note)

    if old is None or new is None:
        return beside("value", "missing" if new is None else "new")
    worst = max((beside(c, "within") for c in COLUMNS), key=lambda d: d.share)
    if worst.share > 1:
        return replace(worst, verdict="moved")
    for count in ("n_items", "n_frames"):
        before, now = getattr(old, count), getattr(new, count)
        if before != now:
            return beside("value", "counts", f"{count} {before} -> {now}")
    return worst


def _changes(old: Settings, new: Settings) -> list[Change]:
    changes = []
    for part in dict.fromkeys([*old, *new]):
        if part not in old or part not in new:
            there, here = ("here", None) if part in old else (None, "here")
            changes.append(Change(part, "", there, here, False))
            continue
        before, now = dict(flat(old[part])), dict(flat(new[part]))
        for key in dict.fromkeys([*before, *now]):
            a, b = before.get(key), now.get(key)
            if a != b:
                # Versions of programs differ between machines: that is what tolerances are for.
                allowed = part in ("software", MACHINE) or (part, key) == ("media", "ffmpeg")
                changes.append(Change(part, key, a, b, allowed))
    return changes


# ---- rewriting -----------------------------------------------------------------------------


def check_rewritable(card: MeasuredCard) -> None:
    """Find out now, not after minutes of work, whether a set can be rewritten.

    Raises:
        StorageError: its folder cannot be written.
    """
    try:
        check_writable(card.path.parent)
    except StorageError as error:
        raise StorageError(
            error.problem,
            "Reference numbers are rewritten in a checkout, or in a folder of your own named by "
            "SPFEM_BENCH_CARDS",
        ) from None


def rewrite(card: MeasuredCard, here: Measured, reason: str) -> None:
    """Put new numbers in the place of a set's old ones, with the reason in the card's history.

    The reason is written first: an update that is killed leaves old numbers, which a
    check finds, and never new ones without a reason.

    Args:
        card: the set.
        here: its numbers, here and now.
        reason: why they are written.

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
    update = Update(
        date=datetime.now(timezone.utc).date().isoformat(),
        version=__version__,
        reason=reason,
        machine=machine(),
    )
    write_atomically(card.path, with_update(card, update))
    write_atomically(card.settings_path, settings_text(here.settings))
    write_atomically(card.values_path, rows_text(here.rows.values()).encode())


def machine() -> str:
    """Return the kind of this machine, without any name of it."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    return (
        f"{platform.system()} {platform.machine()}, {capability}, {os.cpu_count()} processors, "
        f"Python {platform.python_version()}"
    )
