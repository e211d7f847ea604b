"""``spfem-bench table``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spfem_bench.cli import options

if TYPE_CHECKING:
    from spfem_bench.errors import CardError
    from spfem_bench.evaluation.record import RunRecord


_IN_ORDER = "Comma-separated, shown in this order; all when not given."


@click.command(short_help="Print run records, or tables of the papers.")
@click.argument("runs", nargs=-1, required=True)
@options.with_default(
    "--format",
    "style",
    type=click.Choice(
        ["markdown", "csv", "csv-wide", "latex", "tabular", "html", "text", "model-index"]
    ),
    default="markdown",
    help="csv is tidy, one number a line; csv-wide has the printed table's lines; tabular is "
    "LaTeX's tabular alone (booktabs); model-index is YAML for a Hugging Face model card.",
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
@click.option("--methods", default="", callback=options.split_names, help=_IN_ORDER)
@click.option("--metrics", default="", callback=options.split_names, help=_IN_ORDER)
@click.option("--emotions", default="", callback=options.split_names, help=_IN_ORDER + " avg too.")
@click.option("--caption", help="In the place of the table's own; '' for none.")
@click.option("--label", default="", help="With latex: the name that a reference in the text uses.")
@click.option(
    "--digits",
    type=click.IntRange(0, 10),
    help="Behind the point; 3 when not given. Papers' numbers are only ever rounded.",
)
@options.flag("--no-notes", help="No notes and no signatures below.")
@options.with_default(
    "--fold",
    type=click.IntRange(0),
    default=12,
    help="Columns of numbers side by side; wider tables go on below. 0: never.",
)
@click.option(
    "--clips",
    type=options.File(".csv", ".parquet"),
    help="Write each clip's numbers to this file instead, one a line.",
)
def table(
    runs: tuple[str, ...],
    style: str,
    layout: str | None,
    intervals: bool,
    standalone: bool,
    published: bool | None,
    methods: list[str],
    metrics: list[str],
    emotions: list[str],
    caption: str | None,
    label: str,
    digits: int | None,
    no_notes: bool,
    fold: int,
    clips: Path | None,
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
      spfem-bench table results --methods mine,ned --metrics FAD,CSIM --emotions avg,happy
      spfem-bench table results --format tabular --digits 2 > numbers.tex
      spfem-bench table results --clips clips.parquet
      spfem-bench table results/demo-inter-id --methods source --format model-index
      spfem-bench table stccl-mead
    """  # noqa: D301
    from spfem_bench.definitions.published import printed_table
    from spfem_bench.errors import CardError
    from spfem_bench.evaluation.record import load_all, unverified
    from spfem_bench.reporting.model_index import model_index_text
    from spfem_bench.reporting.table_choice import Choice, choose_records
    from spfem_bench.reporting.table_layouts import render_table
    from spfem_bench.reporting.tables import make_printed_table, make_table

    options.check_standalone(standalone, style)
    files, printed = [], []
    for name in runs:
        path = Path(name)
        if path.suffix.lower() == ".json" or path.is_dir():
            files.append(path)
        elif len(path.parts) > 1 and not path.exists():
            raise _no_such(path)
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
    choice = Choice(tuple(methods), tuple(metrics), tuple(emotions))
    if clips:
        if printed:
            raise click.UsageError("--clips is about run records: a printed table has no clips")
        _write_clips(choose_records(records, choice)[0], clips)
        return
    if style == "model-index":
        if printed:
            raise click.UsageError("--format model-index is about run records")
        click.echo(model_index_text(records, choice=choice), nl=False)
        return
    if printed:
        content = make_printed_table(printed, choice=choice)
    else:
        content = make_table(records, published=published, choice=choice)
    text = render_table(
        content,
        style,  # type: ignore[arg-type]
        layout=layout or ("stccl" if as_stccl else "asccl"),  # type: ignore[arg-type]
        intervals=intervals,
        standalone=standalone,
        caption=caption,
        label=label,
        digits=digits,
        notes=not no_notes,
        fold=fold,
    )
    click.echo(text, nl=False)
    if style in ("csv", "csv-wide"):
        options.print_notes(f"Note: {note}" for note in unverified(records))


def _no_such(path: Path) -> CardError:
    """Return the error for a path where nothing is, with what lies beside it."""
    from spfem_bench.errors import CardError, near_names

    folder = path.parent
    if not folder.is_dir():
        return CardError(f"there is no folder {folder}", "Check its name")
    beside = [p.name for p in folder.iterdir() if p.is_dir() or p.suffix in (".json", ".csv")]
    problem = f"{path} is no file or folder, and no printed table has such a name"
    there = near_names(path.name, beside).replace("Allowed:", f"In {folder}:")
    return CardError(problem, there)


def _write_clips(records: Sequence[RunRecord], file: Path) -> None:
    from spfem_bench.analysis.clips import clip_frame, write_clips

    frame = clip_frame(records)
    write_clips(frame, file)
    click.echo(f"{file}: {len(frame)} numbers of {frame['item'].nunique()} clips", err=True)
