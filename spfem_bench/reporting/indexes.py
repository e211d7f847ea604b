"""The indexes of a user's own data sets as text: of recordings, and of trees of NED's folders."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from spfem_bench.datasets.index_report import IndexFinding, IndexReport
from spfem_bench.datasets.ned_report import TreeReport
from spfem_bench.definitions.protocols import in_order
from spfem_bench.texts import text_table

LISTED = 12
"""Lines of a finding on a tree that are printed; `--json` has all."""

_LAYOUTS = {
    "actors": "SPEAKER/EMOTION/EXPERIMENT/faces_aligned",
    "sides": "SIDE/EMOTION/SPEAKER",
}


def report_lines(report: IndexReport) -> list[str]:
    """Return a report line by line: a table by speaker and emotion, findings, protocols."""
    emotions = dict.fromkeys(e for cells in report.cells.values() for e in cells)
    lines = [
        f"{report.dataset} below {report.root}: {report.found} of {report.recordings} recordings",
        _table(report.cells, emotions, lambda all_, found, sounds: (found, all_, found - sounds)),
        "Recordings found, with '/' and how many there are where some are missing, and with '-' "
        "and how many of those found have no sound.",
        "",
    ]
    for number, finding in enumerate(report.findings):
        examples = ", ".join(finding.examples)
        more = ", …" if finding.count > len(finding.examples) else ""
        lines.append(f"{finding.kind}: {finding.says} ({finding.count}): {examples}{more}")
        following = report.findings[number + 1 : number + 2]
        if finding.remedy and not any(f.remedy == finding.remedy for f in following):
            lines.append(f"  {finding.remedy}.")
    for name, (items, whole) in report.whole.items():
        lines.append(f"{name}: the clips of {whole} of {items} items are here")
    return lines


def tree_lines(report: TreeReport) -> list[str]:
    """Return a report line by line: clips by speaker and emotion, methods, findings, what next."""
    emotions = in_order({emotion for cells in report.cells.values() for emotion in cells})
    source = report.listed or "the source videos"
    lines = [
        f"{report.dataset} below {report.root}, {_LAYOUTS[report.layout]}; clips by {source}",
        _table(report.cells, emotions, lambda usable, all_, sounds: (usable, all_, all_ - sounds)),
        "Real clips, with '/' and how many there are where some cannot be used, and with '-' and "
        "how many have no sound.",
        *(
            f"method {name}: the pictures of {fit} of {count} folders are those of their clips"
            for name, (count, fit) in report.methods.items()
        ),
        "",
    ]
    for finding in report.findings:
        lines += _listed(finding)
    if report.as_published:
        lines.append("Generated folders are cut as published; signatures say so.")
    return lines


def _table(
    cells: Mapping[str, Mapping[str, tuple[int, int, int]]],
    emotions: Iterable[str],
    counted: Callable[[int, int, int], tuple[int, int, int]],
) -> str:
    """Return a table of speakers; *counted* gives a cell's usable clips, all, and silent ones."""

    def cell(usable: int, clips: int, silent: int) -> str:
        text = str(usable) if usable == clips else f"{usable}/{clips}"
        return f"{text} -{silent}" if silent > 0 else text

    rows = [
        [speaker, *(cell(*counted(*of[e])) if e in of else "" for e in emotions)]
        for speaker, of in cells.items()
    ]
    return text_table(rows, ["Speaker", *emotions])


def _listed(finding: IndexFinding) -> list[str]:
    lines = [f"{finding.kind}: {finding.says} ({finding.count}):"]
    lines += [f"  {line}" for line in finding.examples[:LISTED]]
    if finding.count > LISTED:
        lines.append(f"  and {finding.count - LISTED} more")
    if finding.remedy:
        lines.append(f"  {finding.remedy}.")
    return lines
