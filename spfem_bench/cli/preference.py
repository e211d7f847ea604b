"""``spfem-bench preference``."""

from __future__ import annotations

import click

from spfem_bench.cli import options


@click.command(short_help="Tabulate the pairwise votes of a user study.")
@click.argument("votes", metavar="VOTES.csv")
@options.with_default(
    "--format",
    "style",
    type=click.Choice(["text", "markdown", "csv", "csv-wide", "latex", "html"]),
    default="text",
    help="csv is tidy, one percentage a line; csv-wide has the printed table's lines.",
)
@options.with_default(
    "--intervals/--no-intervals", default=True, help="Print 95 % intervals beside the percentages."
)
@options.standalone
def preference(votes: str, style: str, intervals: bool, standalone: bool) -> None:
    """Turn the pairwise votes of a user study into the papers' table.

    VOTES.csv has one vote a line: participant, item, question, method_a,
    method_b, choice (a or b), and emotion if the study has emotions. Intervals
    are over participants, drawn whole: votes of one person are not independent.
    Agreement on each question is Krippendorff's alpha. A printed study is
    given by its name, and printed as it stands.

    \b
    Examples:
      spfem-bench preference votes.csv
      spfem-bench preference votes.csv --format latex --no-intervals > study.tex
      spfem-bench preference asccl-user-study
    """  # noqa: D301
    from spfem_bench.analysis.preference import read_study
    from spfem_bench.reporting.preference import render_study

    options.check_standalone(standalone, style)
    text = render_study(read_study(votes), style, intervals=intervals, standalone=standalone)
    click.echo(text, nl=False)
