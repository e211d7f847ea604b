"""``spfem-bench table``."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "style",
    type=click.Choice(["markdown", "csv", "latex", "text"]),
    default="markdown",
    show_default=True,
)
@click.option(
    "--published/--no-published",
    default=True,
    show_default=True,
    help="Show the papers' rows of the same methods beside them, marked.",
)
def table(runs: tuple[Path, ...], style: str, published: bool) -> None:
    """Print run records in the papers' layout: settings x emotions x metrics.

    Only numbers with one signature are compared by bold face. The signatures
    follow the table.

    \b
    Examples:
      spfem-bench table results/stccl-page-ned/*.json
      spfem-bench table --format latex results/*/*.json > table.tex
    """  # noqa: D301
    from spfem_bench.evaluation.record import NoRunError, load
    from spfem_bench.reporting.tables import make_table, render

    files = [f for p in runs for f in (sorted(p.rglob("*.json")) if p.is_dir() else [p])]
    records, others = [], []
    for path in files:
        try:
            records.append(load(path))
        except NoRunError as error:  # a validation's record lies beside the runs
            others.append(error)
    if others and not records:
        raise others[0]
    click.echo(render(make_table(records, published=published), style), nl=False)  # type: ignore[arg-type]
