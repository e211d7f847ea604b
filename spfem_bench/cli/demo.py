"""``spfem-bench demo``: the puppets' own world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import click

from spfem_bench.cli import options


@click.group()
def demo() -> None:
    """A world of talking puppets, the same on every machine."""


class _OfWorld(click.Option):
    """Has the default that the world has."""

    def get_default(self, ctx: click.Context, call: bool = True) -> Any:
        """Return the default; the world is imported for this command only."""
        from spfem_bench.puppets.world import World

        return getattr(World, str(self.name))


def _world(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say which world."""
    for name, words in (
        ("--size", "Side of a frame in pixels, even, 64 to 1024."),
        ("--seed", "Of everything random."),
        ("--version", "Of the rules by which puppets are drawn and speak."),
    ):
        option = click.option(name, cls=_OfWorld, type=int, show_default=True, help=words)
        command = option(command)
    return command


@demo.command()
@click.argument("takes", nargs=-1)
@options.folder("--output", required=True, help="Folder for the clips.")
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    help="All that a split's puppets have spoken (train: 16,560 clips).",
)
@options.flag("--truth", help="Write landmarks, phones and emotion beside each clip.")
@options.drawing_workers
@_world
@options.quiet
def render(
    takes: tuple[str, ...],
    output: Path,
    split: str | None,
    truth: bool,
    workers: int,
    quiet: bool,
    **which: int,
) -> None:
    """Render clips of the puppets into a folder.

    TAKES are written SPEAKER/EMOTION/INTENSITY/SENTENCE.mp4. Clips that are
    there and whole are left alone, so an interrupted rendering goes on.

    \b
    Examples:
      spfem-bench demo render P001/happy/1.00/028.mp4 --output puppets --size 256
      spfem-bench demo render --split test --output puppets --truth
    """  # noqa: D301
    from spfem_bench.puppets.clips import clip_name, render_all, write_truth
    from spfem_bench.puppets.world import Split, World

    world = World(**which)
    names = list(takes)
    if split:
        names += [clip_name(world.take(*r)) for r in world.recordings(cast(Split, split))]
    if not names:
        raise click.UsageError("give takes, for example P001/happy/1.00/028.mp4, or --split test")
    progress = options.progress(quiet)
    progress.begin("render", len(names), "clip")
    render_all(world, output, names, workers=workers, progress=progress)
    if truth:
        for name in names:
            write_truth(world, output, name)
    click.echo(f"{output}: {len(names)} clips")


@demo.command()
@click.argument(
    "what", type=click.Choice(["cast", "intensity", "speech", "models"]), default="cast"
)
@click.option(
    "-o",
    "--output",
    type=options.File(".png", ".jpg", ".webp", ".svg", ".pdf"),
    show_default="puppets-WHAT.png, such as puppets-cast.png",
    help="Its ending says which kind: .png, .jpg, .webp, .svg, .pdf.",
)
@click.option("--speaker", default="", help="For intensity and speech; a test puppet by default.")
@click.option("--sentence", default="", help="001 to 030; the first test sentence by default.")
@options.several("--model", "models", help="For models; all of the demo's by default.")
@_world
def sheet(
    what: str,
    output: Path | None,
    speaker: str,
    sentence: str,
    models: tuple[str, ...],
    **which: int,
) -> None:
    """Draw a contact sheet of the puppets.

    cast: the test puppets in every emotion. intensity: one puppet's emotions
    from nothing to all. speech: one sentence frame by frame, with landmarks,
    mouth, sound and phones. models: what the demo's models make of a frame of
    each test puppet, between source and truth.
    """
    from spfem_bench.files import write_atomically
    from spfem_bench.puppets.sheet import model_sheet, puppet_sheet
    from spfem_bench.puppets.world import World

    output = output or Path(f"puppets-{what}.png")
    form = output.suffix.lower().lstrip(".")
    if what == "models":
        write_atomically(output, model_sheet(models, form))
    else:
        write_atomically(output, puppet_sheet(World(**which), what, speaker, sentence, form))
    click.echo(str(output))


class _Train(click.Command):
    """Adds the recipes, as they are in the code, to the help."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from dataclasses import asdict

        from spfem_bench.puppets.compact.recipes import RECIPES

        with formatter.section("Recipes"):
            for name, recipe in RECIPES.items():
                values = asdict(recipe)
                changes = values.pop("changes")
                for title, part in ((name, values), (f"{name}, changes", changes)):
                    words = ", ".join(f"{k} {v:g}" for k, v in part.items())
                    formatter.write_text(f"{title}: {words}")


@demo.command(cls=_Train)
@click.argument(
    "network",
    type=click.Choice(["identity", "expression", "sync", "landmarks", "all"]),
    default="all",
)
@options.folder("--output", required=True, help="Folder for the files.")
@options.learning_device
@options.drawing_workers
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
    from spfem_bench.puppets.compact.recipes import NAMES, RECIPES
    from spfem_bench.puppets.compact.train import card_lines, train_compact
    from spfem_bench.puppets.world import World

    options.check_device(device)
    progress = options.progress(quiet)
    for name in NAMES if network == "all" else [n for n in NAMES if n == network]:
        recipe = replace(RECIPES[name], steps=steps) if steps else RECIPES[name]
        trained = train_compact(
            name, recipe, World(), output, device=device, workers=workers, progress=progress
        )
        click.echo(f"{trained.weights}: {_in_short(trained.record['held_out'])}")
        card = f"metrics/networks/{trained.record['network']}.toml"
        to_ship = f"copy both files to metrics/networks/weights and pin them in {card}"
        click.echo(f"To ship them, {to_ship}:\n{card_lines(trained.record)}")


def _in_short(quality: dict[str, Any]) -> str:
    """Return the numbers of a record's quality, in one line."""
    words = []
    for key, value in quality.items():
        if isinstance(value, float):
            words.append(f"{key} {value:.3f}")
        elif isinstance(value, dict):
            words.append(" ".join([key, *(f"{k}:{v:.3g}" for k, v in value.items())]))
    return "; ".join(words)


@demo.command("train-ned")
@options.several(
    "--config",
    "configs",
    required=True,
    help="A shipped configuration's name, or a TOML file; may be given several times.",
)
@options.several(
    "--seed",
    "seeds",
    type=click.IntRange(0, 2**32 - 1),
    help="Instead of the configuration's; may be given several times.",
)
@options.folder("--output", required=True, help="Folder for the files.")
@options.learning_device
@options.drawing_workers
@options.weights_dir
@options.quiet
def train_ned(
    configs: tuple[str, ...],
    seeds: tuple[int, ...],
    output: Path,
    device: str,
    workers: int,
    weights: options.WeightsStore,
    quiet: bool,
) -> None:
    """Train mini-NED, the demo's own model, with or without STCCL.

    Writes for each configuration and seed OUTPUT/NAME.safetensors and its
    record NAME.json; a file with rows has a model for each, NAME-ROW, and
    with --seed, NAME ends in -seed1 and so on. All share
    OUTPUT/face.safetensors, which the first one learns. Models that are there
    are left alone, so that an interrupted series goes on. The steps before
    STCCL begins are kept in OUTPUT/start-*.checkpoint for all forms of a
    seed; delete these files at the end.

    \b
    One model as it is shipped, and the rows of a table over three seeds:
      spfem-bench demo train-ned --config ned --output models
      spfem-bench demo train-ned --config ned --config stccl-vd-ned
        --seed 1 --seed 2 --seed 3 --output models
      spfem-bench demo train-ned --config ablations --output models
    """  # noqa: D301
    from spfem_bench.puppets.mini_ned.config import read_ned_configs
    from spfem_bench.puppets.mini_ned.model import trained_as
    from spfem_bench.puppets.mini_ned.train import train_mini_ned

    options.check_device(device)
    chosen = {}
    for seed in seeds or (None,):  # one seed after the other: a start is shared
        for name, config in [row for file in configs for row in read_ned_configs(file).items()]:
            if seed is not None:
                config = config.model_copy(update={"seed": seed})
            chosen[name + (f"-seed{seed}" if seeds else "")] = config
    for name, config in [*chosen.items()]:
        path = output / f"{name}.json"
        if path.is_file() and trained_as(path, config):
            click.echo(f"{path.with_suffix('.safetensors')}: there already")
            del chosen[name]
    progress = options.progress(quiet)
    for trained in train_mini_ned(
        chosen, output, weights=weights, device=device, workers=workers, progress=progress
    ):
        click.echo(f"{trained.weights}: {trained.record['bytes'] / 1e6:.2f} MB")
