"""``spfem-bench table``."""

from __future__ import annotations

from pathlib import Path

import click

from spfem_bench.cli import options


@click.command()
@click.argument("runs", nargs=-1, required=True)
@options.with_default(
    "--format",
    "style",
    type=click.Choice(["markdown", "csv", "csv-wide", "latex", "html", "text"]),
    default="markdown",
    help="csv is tidy, one number a line; csv-wide has the printed table's lines.",
)
@click.option(
    "--layout",
    type=click.Choice(["asccl", "stccl"]),
    help="asccl: emotions down, methods and metrics across (the default; a printed table has its "
    "paper's). stccl: metrics and methods down, emotions across.",
)
@options.flag("--intervals", help="Print 95 % intervals beside the numbers.")
@options.standalone
@click.option(
    "--published/--no-published",
    default=None,
    help="Show the papers' rows of the same methods beside them, marked; by default for all "
    "protocols but those on drawn clips.",
)
def table(
    runs: tuple[str, ...],
    style: str,
    layout: str | None,
    intervals: bool,
    standalone: bool,
    published: bool | None,
) -> None:
    """Print run records, or tables of the papers, in the papers' layouts.

    RUNS are records, folders of records, or printed tables: the name of one of
    reference_results/published/, or a CSV file in the tidy format. Only numbers
    with one signature are compared: the best is bold, of three or more the
    second best is underlined. The signatures follow the table.

    \b
    Examples:
      spfem-bench table results/stccl-page-ned/*.json
      spfem-bench table results/demo-inter-id --layout stccl --intervals
      spfem-bench table --format latex --standalone results > table.tex
      spfem-bench table stccl-mead
    """  # noqa: D301
    from spfem_bench.definitions.published import printed_table
    from spfem_bench.errors import CardError
    from spfem_bench.evaluation.record import load_all, unverified
    from spfem_bench.reporting.table_layouts import render_table
    from spfem_bench.reporting.tables import make_printed_table, make_table

    options.check_standalone(standalone, style)
    files, printed = [], []
    for name in runs:
        path = Path(name)
        if path.suffix.lower() == ".json" or path.is_dir():
            files.append(path)
        else:
            printed.append(printed_table(name))
    if printed and files:
        problem = f"run records and the printed table '{printed[0].name}' do not go into one table"
        remedy = "papers' rows of the same methods stand beside records by themselves"
        raise CardError(problem, f"Give either; {remedy}")
    records = load_all(files)
    rows = [row for table_ in printed for row in table_.rows]
    averages = bool(rows) and all(row.emotion == "avg" for row in rows)
    as_stccl = averages or {row.paper.lower() for row in rows} == {"stccl"}
    content = make_printed_table(printed) if printed else make_table(records, published=published)
    text = render_table(
        content,
        style,  # type: ignore[arg-type]
        layout=layout or ("stccl" if as_stccl else "asccl"),  # type: ignore[arg-type]
        intervals=intervals,
        standalone=standalone,
    )
    click.echo(text, nl=False)
    if style in ("csv", "csv-wide"):
        options.print_notes(f"Note: {note}" for note in unverified(records))
