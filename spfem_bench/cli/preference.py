"""``spfem-bench preference``."""

from __future__ import annotations

import click


@click.command()
@click.argument("votes", metavar="VOTES.csv")
@click.option(
    "--format",
    "style",
    type=click.Choice(["text", "markdown", "csv", "csv-wide", "latex", "html"]),
    default="text",
    show_default=True,
    help="csv is tidy, one percentage a line; csv-wide has the printed table's lines.",
)
@click.option(
    "--intervals/--no-intervals",
    default=True,
    show_default=True,
    help="Print 95 % intervals beside the percentages.",
)
@click.option("--standalone", is_flag=True, help="With latex: a document that compiles by itself.")
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

    if standalone and style != "latex":
        raise click.UsageError("--standalone belongs to --format latex")
    text = render_study(read_study(votes), style, intervals=intervals, standalone=standalone)
    click.echo(text, nl=False)
