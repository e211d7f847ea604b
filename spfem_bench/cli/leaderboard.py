"""``spfem-bench leaderboard``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from spfem_bench.cli import options

SCREEN = 24
"""Lines in which all that is refused is named."""


@click.command(short_help="Rank run records on one page to publish.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.with_default(
    "-o",
    "--output",
    type=options.FOLDER,
    default=Path("leaderboard"),
    help="Folder of the page.",
)
def leaderboard(runs: tuple[Path, ...], output: Path) -> None:
    """Rank run records on one page to publish.

    RUNS are records that 'spfem-bench eval' wrote, or folders of them. Each protocol has a
    table that a click sorts, with intervals, controls marked, clips, and links to the
    records, which are copied beside the page, to the methods, and to a clip report in
    'report/' beside a record. Only numbers with one signature share a table. Every record is
    verified first; nothing is written when one is damaged, fails, or is there twice.

    \b
    Examples:
      spfem-bench leaderboard results
      spfem-bench leaderboard results/demo-inter-id/*.json --output site/leaderboard

    Exit codes: 0 done; 1 the folder cannot be written; 2 wrong options, or a record is
    refused.
    """  # noqa: D301
    from spfem_bench.files import check_writable, temporary_folder
    from spfem_bench.reporting.leaderboard import build_leaderboard, read_entries
    from spfem_bench.reporting.report import folder

    folder.listed(output)
    entries, problems = read_entries(runs)
    if problems:
        lines = ["No leaderboard, nothing was written:", *problems]
        if len(lines) > SCREEN:
            lines = [*lines[: SCREEN - 1], f"and {len(lines) - SCREEN + 1} more"]
        options.print_notes(lines)
        sys.exit(2)
    check_writable(output)
    with temporary_folder() as made:
        folder.replace(output, made, build_leaderboard(entries, output))
    click.echo(output / "index.html")
