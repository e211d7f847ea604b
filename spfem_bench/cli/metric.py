"""``spfem-bench metric``: begin a metric of your own."""

from __future__ import annotations

from pathlib import Path

import click

from spfem_bench.cli import options


@click.group(short_help="Begin a metric of your own.")
def metric() -> None:
    """Begin a metric of your own. 'spfem-bench list metrics' lists those that there are."""


@metric.command(short_help="Write a commented card that loads as it is.")
@options.begun_card("metric", like="csim")
def new(folder: Path, name: str, like: str) -> None:
    r"""Begin a metric of your own in FOLDER, a folder of cards: a commented card that loads.

    It computes what the metric named by --like does, until you change its
    settings. A new way of computing is a kind of its own, one Python file: see
    CONTRIBUTING.md.

    \b
    Example:
      spfem-bench metric new my-cards --name csim-frames --like csim
    """
    from spfem_bench.definitions.cards import Kind
    from spfem_bench.definitions.metrics import metric_card

    path = options.new_card(Kind.METRIC, metric_card(like), folder, name)
    click.echo(
        f"Change it, then score with it:\nexport SPFEM_BENCH_CARDS={folder}\n"
        f"spfem-bench eval --method source --metrics {path.stem}",
        err=True,
    )
