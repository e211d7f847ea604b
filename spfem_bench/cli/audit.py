"""``spfem-bench audit``."""

from __future__ import annotations

import sys

import click

from spfem_bench.cli import options


@click.command(short_help="Find what contradicts itself in printed tables.")
@click.argument("tables", nargs=-1, metavar="[FILE.csv]...")
@options.formats
def audit(tables: tuple[str, ...], style: str) -> None:
    """Audit printed tables: what contradicts itself, what stands twice, what loses.

    Tables are CSV files in the tidy format (one number a line: method, emotion,
    metric, value; better with paper, table, dataset, setting and backbone), or
    names in reference_results/published/; all of those when none is given.
    Several are checked against each other. A number's printed decimals say how
    exact it can be; averages are taken for the plain mean of emotions.

    \b
    Examples:
      spfem-bench audit
      spfem-bench audit asccl-mead stccl-mead
      spfem-bench audit my-table.csv --format markdown > AUDIT.md

    Exit codes: 0 no contradiction (a proposal may lose, chance may repeat a
    number); 1 an average, a cell printed twice, a sum or a repeated row
    contradicts the rest, or an error; 2 wrong options.
    """  # noqa: D301
    from spfem_bench.analysis.auditing import audit as audit_tables
    from spfem_bench.definitions.published import printed_table, published_names
    from spfem_bench.reporting.audit import audit_csv, audit_text

    names = dict.fromkeys(tables) or published_names()
    audited = audit_tables([printed_table(name) for name in names])
    markdown = style == "markdown"
    text = audit_csv(audited) if style == "csv" else audit_text(audited, markdown=markdown)
    click.echo(text, nl=False)
    if audited.contradictions:
        sys.exit(1)
