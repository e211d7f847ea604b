"""``spfem-bench demo``: the puppets' own world."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spfem_bench.cli import options

if TYPE_CHECKING:
    from spfem_bench.demo.training.run import Watcher


@click.group()
def demo() -> None:
    """A world of talking puppets, the same on every machine."""


class _Train(click.Command):
    """Adds the recipes, as they are in the code, to the help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from spfem_bench.demo.training.recipes import RECIPES

        with formatter.section("Recipes"):
            for name, recipe in RECIPES.items():
                values = recipe.described()
                changes = values.pop("changes")
                for what, found in ((name, values), (f"{name}, changes", changes)):
                    words = ", ".join(f"{k} {v:g}" for k, v in found.items())
                    formatter.write_text(f"{what}: {words}")


@demo.command(cls=_Train)
@click.argument(
    "network", type=click.Choice(["identity", "expression", "sync", "all"]), default="all"
)
@click.option("--output", type=options.FOLDER, required=True, help="Folder for the files.")
@click.option("--device", default="cpu", show_default=True, help="Where it learns: cpu, cuda.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default="all processors",
    help="Processes that draw.",
)
@click.option("--steps", type=click.IntRange(1), help="Instead of the recipe's.")
@options.quiet
def train(
    network: str, output: Path, device: str, workers: int, steps: int | None, quiet: bool
) -> None:
    """Train the profile compact's networks again, from nothing.

    Pictures and sound are drawn in memory: training speakers and training
    sentences only. Weights (safetensors) and a record of all that made them
    (JSON), with the quality on other speakers and sentences, are written to
    the output folder when all is done. On one machine, the same command on the
    CPU gives the same bytes.
    """
    from spfem_bench.demo.training.recipes import NAMES, RECIPES, with_steps
    from spfem_bench.demo.training.run import Watcher
    from spfem_bench.demo.training.run import train as run
    from spfem_bench.demo.world import World

    options.check_device(device)
    for name in NAMES if network == "all" else [n for n in NAMES if n == network]:
        watcher = Watcher() if quiet else _bars()
        recipe = with_steps(RECIPES[name], steps)
        trained = run(
            name, recipe, World(), output, device=device, workers=workers, watcher=watcher
        )
        click.echo(f"{trained.weights}: {_in_short(trained.record['held_out'])}")
        click.echo(
            f"To ship them, copy both files to metrics/networks/weights and pin them in "
            f"metrics/networks/{trained.record['network']}.toml:\n{trained.card_lines()}"
        )


def _in_short(quality: dict[str, Any]) -> str:
    """Return the numbers of a record's quality, in one line."""
    words = []
    for key, value in quality.items():
        if isinstance(value, float):
            words.append(f"{key} {value:.3f}")
        elif isinstance(value, dict):
            words.append(f"{key} " + " ".join(f"{k}:{v:.3g}" for k, v in value.items()))
    return "; ".join(words)


def _bars() -> Watcher:
    """Return a bar on standard error for each phase."""
    from tqdm import tqdm

    from spfem_bench.demo.training.run import Watcher

    bars: list[tqdm[Any]] = []

    def begin(phase: str, parts: int) -> None:
        for bar in bars:
            bar.close()
        # disable=None: no bars in a file or a pipe.
        bars.append(tqdm(total=parts, desc=phase, disable=None))

    def part(loss: float | None) -> None:
        bars[-1].update(1)
        if loss is not None:
            bars[-1].set_postfix(loss=f"{loss:.3f}", refresh=False)
        if bars[-1].n == bars[-1].total:
            bars[-1].close()

    return Watcher(begin, part)
