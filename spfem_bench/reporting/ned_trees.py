"""The index of a tree of NED's folders as text."""

from __future__ import annotations

from tabulate import tabulate

from spfem_bench.datasets.index_report import IndexFinding
from spfem_bench.datasets.ned_report import TreeReport
from spfem_bench.definitions.protocols import in_order

LISTED = 12
"""Lines of a finding that are printed; `--json` has all."""

_LAYOUTS = {
    "actors": "SPEAKER/EMOTION/EXPERIMENT/faces_aligned",
    "sides": "SIDE/EMOTION/SPEAKER",
}


def tree_lines(report: TreeReport) -> list[str]:
    """Return a report line by line: clips by speaker and emotion, methods, findings, what next."""
    emotions = in_order({emotion for cells in report.cells.values() for emotion in cells})
    rows = [
        [speaker, *(_cell(cells[e]) if e in cells else "" for e in emotions)]
        for speaker, cells in report.cells.items()
    ]
    source = report.listed or "the source videos"
    lines = [
        f"{report.dataset} below {report.root}, {_LAYOUTS[report.layout]}; clips by {source}",
        tabulate(rows, ["Speaker", *emotions], disable_numparse=True),
        "Real clips, with '/' and how many there are where some cannot be used, and with '-' and "
        "how many have no sound.",
        *(
            f"method {name}: the pictures of {fit} of {count} folders are those of their clips"
            for name, (count, fit) in report.methods.items()
        ),
        "",
    ]
    for finding in report.findings:
        lines += _finding(finding)
    if report.as_published:
        lines.append("Generated folders are cut as published; signatures say so.")
    return lines


def _cell(counts: tuple[int, int, int]) -> str:
    usable, clips, sounds = counts
    text = str(usable) if usable == clips else f"{usable}/{clips}"
    return text if sounds >= clips else f"{text} -{clips - sounds}"


def _finding(finding: IndexFinding) -> list[str]:
    lines = [f"{finding.kind}: {finding.says} ({finding.count}):"]
    lines += [f"  {line}" for line in finding.examples[:LISTED]]
    if finding.count > LISTED:
        lines.append(f"  and {finding.count - LISTED} more")
    if finding.remedy:
        lines.append(f"  {finding.remedy}.")
    return lines
