"""What was found of a user's own recordings, as text."""

from __future__ import annotations

from tabulate import tabulate

from spfem_bench.datasets.index_report import IndexFinding, IndexReport


def report_lines(report: IndexReport) -> list[str]:
    """Return a report line by line: a table by speaker and emotion, findings, protocols."""
    emotions = list(dict.fromkeys(e for cells in report.cells.values() for e in cells))
    rows = [
        [speaker, *(_cell(cells[e]) if e in cells else "" for e in emotions)]
        for speaker, cells in report.cells.items()
    ]
    lines = [
        f"{report.dataset} below {report.root}: {report.found} of {report.recordings} recordings",
        tabulate(rows, ["Speaker", *emotions], disable_numparse=True),
        "Recordings found, with '/' and how many there are where some are missing, and with '-' "
        "and how many of those found have no sound.",
    ]
    lines.append("")
    for number, finding in enumerate(report.findings):
        lines.append(_finding(finding))
        following = report.findings[number + 1 : number + 2]
        if finding.remedy and not any(f.remedy == finding.remedy for f in following):
            lines.append(f"  {finding.remedy}.")
    for name, (items, whole) in report.whole.items():
        lines.append(f"{name}: the clips of {whole} of {items} items are here")
    return lines


def _cell(counts: tuple[int, int, int]) -> str:
    wanted, found, sounding = counts
    said = str(found) if found == wanted else f"{found}/{wanted}"
    return said if sounding >= found else f"{said} -{found - sounding}"


def _finding(finding: IndexFinding) -> str:
    examples = ", ".join(finding.examples)
    more = ", …" if finding.count > len(finding.examples) else ""
    return f"{finding.kind}: {finding.says} ({finding.count}): {examples}{more}"
