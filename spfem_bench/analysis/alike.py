"""Which runs may be compared: named, scored in the same metrics, and made alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from spfem_bench.datasets.own_clips import OWN_OUTPUTS
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.errors import CardError, listed_name, near_names
from spfem_bench.evaluation.record import RunRecord
from spfem_bench.evaluation.signature import flat

SHOWN = 6
"""Settings and clips that one line names at most."""

Runs = Mapping[str, RunRecord]
"""By the name that tells them apart; the baseline first."""


def name_runs(records: Sequence[RunRecord], baseline: str) -> Runs:
    """Return the runs by their methods' names, numbered where they are alike; baseline first.

    Raises:
        CardError: fewer than two, one given twice, one without a number, no such baseline.
    """
    if len(records) < 2:
        problem = "one run has nothing to be compared with" if records else "no runs to compare"
        raise CardError(problem, "Give the records of two methods or more")
    runs: dict[str, RunRecord] = {}
    for record in records:
        name = record.method.name
        times = sum(label.partition(" (")[0] == name for label in runs)
        runs[f"{name} ({times + 1})" if times else name] = record
    if baseline:
        if baseline not in runs:
            raise CardError(f"no run of '{baseline}' among those given", near_names(baseline, runs))
        runs = {baseline: runs.pop(baseline), **runs}
    contents = []
    for label, record in runs.items():
        content = record.method, record.protocol, record.profile, record.items, record.scores
        if content in contents:
            problem = f"the run of '{record.method.name}' is given twice"
            raise CardError(problem, "Give each run once")
        contents.append(content)
        if not record.metrics:
            reason = min((s.note for s in record.scores if s.note), default="")
            problem = f"the run of '{label}' is empty{reason and f': {reason}'}"
            raise CardError(problem, "Leave it out, or evaluate it again")
    return runs


def shared_metrics(runs: Runs, requested: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the metrics that all runs have, and a note for each of the others.

    Raises:
        CardError: there is none, or one that was requested is missing.
    """
    requested = [listed_name(m, [n for r in runs.values() for n in r.metrics]) for m in requested]
    for metric in requested:
        for label, record in runs.items():
            if metric not in record.metrics:
                problem = f"no {metric} in the run of '{label}'"
                raise CardError(problem, near_names(metric, record.metrics))
    if requested:
        return list(requested), []
    owners: dict[str, list[str]] = {}
    for label, record in runs.items():
        for metric in record.metrics:
            owners.setdefault(metric, []).append(f"'{label}'")
    shared = [m for m, labels in owners.items() if len(labels) == len(runs)]
    if not shared:
        problem = f"the runs of {', '.join(map(repr, runs))} share no metric"
        raise CardError(problem, "Evaluate them again with the same --metrics")
    return shared, [
        f"No {metric_card(m).label}: only {', '.join(labels)} has it"
        for m, labels in owners.items()
        if m not in shared
    ]


def _of_own_folders(record: RunRecord) -> bool:
    """Whether a record's outputs lay in folders that ``eval --generated`` was given."""
    outputs = (item.clips.get("output") for item in record.items)
    return any(clip is not None and clip.address.startswith(OWN_OUTPUTS) for clip in outputs)


def check_alike(runs: Runs, metrics: Sequence[str], *, allow_versions: bool) -> list[str]:
    """Return a note for each run that was made with other versions, when these are allowed.

    Raises:
        CardError: protocols, profiles or settings differ; names them.
    """
    (a, first), *others = runs.items()
    protocol, notes = first.protocol.name, []
    for b, record in others:
        again = f"spfem-bench eval --method {record.method.name} --protocol {protocol}"
        if record.protocol.name != protocol:
            problem = f"'{a}' was evaluated on {protocol}, '{b}' on {record.protocol.name}"
            if all(_of_own_folders(one) for one in (first, record)):
                both = f"--generated {a}=DIR --generated {b}=DIR --source DIR --name both"
                raise CardError(problem, f"Score them together: spfem-bench eval {both}")
            raise CardError(problem, f"Compare runs on one protocol: {again}")
        unlike = _unlike_settings(first, record, metrics)
        if not unlike:
            continue
        only_versions = not _unlike_settings(first, record, metrics, versions=False)
        if only_versions and allow_versions:
            differing = f"versions of '{a}' and '{b}' differ: {'; '.join(unlike)}"
            notes.append(f"Not made alike: {differing}.")
            continue
        remedy = f"Evaluate '{b}' again as '{a}' was: {again} --profile {first.profile}"
        if alike := [m for m in metrics if not _unlike_settings(first, record, [m])]:
            remedy += f"; or compare what was made alike: --metrics {','.join(alike)}"
        if only_versions:
            remedy += "; or compare all the same, with a note: --allow-versions"
        raise CardError(f"'{a}' and '{b}' were not made alike: {first_of(unlike, '; ')}", remedy)
    return notes


def _unlike_settings(
    a: RunRecord, b: RunRecord, metrics: Sequence[str], *, versions: bool = True
) -> list[str]:
    """Name each setting that differs, with both values and the metrics it belongs to."""
    lines = [f"profile {a.profile} against {b.profile}"] if a.profile != b.profile else []
    metrics_of: dict[str, list[str]] = {}
    for metric in metrics:
        here, there = (dict(flat(r.settings_of(metric).plain())) for r in (a, b))
        for key in dict.fromkeys([*here, *there]):
            is_version = key == "media.ffmpeg" or key.startswith("software.")
            if here.get(key) != there.get(key) and (versions or not is_version):
                values = f"{_short(here.get(key))} against {_short(there.get(key))}"
                metrics_of.setdefault(f"{key} {values}", []).append(metric)
    return lines + [
        line if len(own) == len(metrics) else f"{line} ({', '.join(own)})"
        for line, own in metrics_of.items()
    ]


def _short(value: Any) -> str:
    text = "absent" if value is None else str(value)
    is_hash = len(text) == 64 and set(text) <= set("0123456789abcdef")
    return text[:8] if is_hash else text


def first_of(lines: Sequence[str], separator: str) -> str:
    """Return the first lines joined, and how many more there are."""
    rest = len(lines) - SHOWN
    return separator.join(lines[:SHOWN]) + (f"{separator}and {rest} more" if rest > 0 else "")
