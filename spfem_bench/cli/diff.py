"""``spfem-bench diff``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from spfem_bench.cli import options


@click.command(short_help="Check that two machines gave the same numbers.")
@click.argument("a", metavar="RECORD", type=click.Path(path_type=Path))
@click.argument("b", metavar="RECORD", type=click.Path(path_type=Path))
@options.tolerances
@options.flag("--json", "as_json", help="Print every number and change as JSON.")
def diff(a: Path, b: Path, tolerances: dict[str, float], as_json: bool) -> None:
    """Check that two machines gave the same numbers for one method.

    Both RECORDs are files that 'spfem-bench eval' wrote, of one method on one protocol.
    Numbers out of tolerance are printed with the settings, versions and clips that differ; the
    last line is the verdict. Tolerances are those of the reference numbers of the protocol and
    profile ('spfem-bench check'); where there are none, half of the last decimal that tables
    print (0.0005).

    \b
    Examples:
      spfem-bench diff here/demo-inter-id/source.compact.json \\
        there/demo-inter-id/source.compact.json
      spfem-bench diff a.json b.json --tolerance 0.01 --tolerance fad=0.1

    Exit codes: 0 all numbers are within tolerance, and only versions differ; 1 a number or
    another setting differs; 2 wrong options, or a file is no record.
    """  # noqa: D301
    from spfem_bench.analysis.record_diff import diff_records
    from spfem_bench.errors import SpfemBenchError
    from spfem_bench.evaluation.record import load_run
    from spfem_bench.reporting.diff import diff_json, diff_text

    try:
        difference = diff_records(load_run(a), load_run(b), tolerances)
    except SpfemBenchError as error:  # 1 is for records that differ
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    click.echo(json.dumps(diff_json(difference), indent=1) if as_json else diff_text(difference))
    if not difference.holds:
        sys.exit(1)
