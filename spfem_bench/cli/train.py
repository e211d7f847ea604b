"""``spfem-bench train``: learn the STCCL metric."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spfem_bench.cli import options

if TYPE_CHECKING:
    from spfem_bench.training.train import MixedPrecision


@click.command()
@click.option(
    "--config",
    type=options.File(),
    help="TOML; without it the one of the shipped metric NAME, else metrics/stccl/puppets.toml.",
)
@options.folder("--output", required=True, help="Folder of this training.")
@click.option("--name", default="metric", show_default=True, help="Of the metric's files.")
@click.option("--steps", type=click.IntRange(1), help="Instead of the configuration's.")
@click.option("--device", help="cpu or cuda; without it what accelerate chooses.")
@options.with_default(
    "--precision",
    type=click.Choice(["no", "bf16", "fp16"]),
    default="no",
    help="Mixed precision of the heads.",
)
@options.drawing_workers
@options.flag("--tensorboard", help="Write logs to OUTPUT/logs.")
@options.flag("--fresh", help="Begin anew, whatever the folder holds.")
@options.weights_dir
@options.quiet
def train(
    config: Path | None,
    output: Path,
    name: str,
    steps: int | None,
    device: str | None,
    precision: MixedPrecision,
    workers: int,
    tensorboard: bool,
    fresh: bool,
    weights: options.WeightsStore,
    quiet: bool,
) -> None:
    """Learn the STCCL metric: mapping heads on a frozen backbone.

    Writes OUTPUT/NAME.safetensors, its record NAME.json, without which the
    metric is not used, and its curves NAME.png. An interrupted training goes
    on when the same command is typed again, and ends with the same bytes on
    the CPU.

    \b
    The shipped metrics again, in minutes:
      spfem-bench train --name puppets --output puppets-metric
      spfem-bench train --name puppets-ct --output puppets-ct
    Several processes or devices:
      accelerate launch --num_processes 2 -m spfem_bench train --output DIR
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    from spfem_bench.puppets.pairs import drawn_pairs
    from spfem_bench.reporting.training import save_figure
    from spfem_bench.training.config import default_config, read_train_config
    from spfem_bench.training.train import train_metric

    if device is not None:
        options.check_device(device)
        if device not in ("cpu", "cuda"):
            allowed = "allowed: cpu, cuda; choose among several by CUDA_VISIBLE_DEVICES"
            raise click.BadParameter(allowed, param_hint="--device")
    path = config or default_config(name)
    settings = read_train_config(path)
    if steps is not None:
        settings = settings.model_copy(update={"steps": steps})
    to_resume = f"Type the same command again to go on from the last checkpoint in {output}"
    options.when_interrupted(f"Interrupted. {to_resume}")
    trained = train_metric(
        settings,
        output,
        name=name,
        folder=path.parent,
        drawn=drawn_pairs,
        weights=weights,
        device=device,
        precision=precision,
        workers=workers,
        tensorboard=tensorboard,
        fresh=fresh,
        progress=options.progress(quiet),
    )
    # One of several processes prints.
    if int(os.environ.get("RANK", "0")) == 0:
        click.echo(f"{trained.weights}: {trained.record['bytes'] / 1e6:.2f} MB")
        click.echo(_table(trained.record["held_out"]))
        curves = trained.weights.with_suffix(".png")
        save_figure(trained.record, curves)
        click.echo(f"{curves}: the curves of the training")


def _table(quality: dict[str, Any]) -> str:
    """Return the similarity of corresponding and of other regions as a table."""
    from tabulate import tabulate

    rows = []
    for form in quality["trained"]:
        for term in (t for t in ("scc", "tcc", "sct") if t in quality["trained"][form]):
            for state in ("untrained", "trained"):
                part = quality[state][form][term]
                means = [part[sign] for sign in ("positive", "negative")]
                last = [part["stages"][sign][-1] for sign in ("positive", "negative")]
                rows.append([f"{term}-{form}", state, *means, *last])
    headers = ("", "", "positive", "negative", "positive, last stage", "negative, last stage")
    return tabulate(rows, headers, floatfmt=".3f")
