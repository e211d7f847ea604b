"""Options that several commands share, their progress bars, and how they end when interrupted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from spfem_bench import progress as progress_interface
from spfem_bench.cli.progress import Bars, Lines
from spfem_bench.processes import ended_by

if TYPE_CHECKING:
    from tqdm import tqdm

    from spfem_bench.execution.local import Workers
    from spfem_bench.features.extract import Progress

FOLDER = click.Path(file_okay=False, path_type=Path)


class File(click.Path):
    """A file, whose name must have one of the given endings where there are any."""

    def __init__(self, *endings: str) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self.endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path.

        Raises:
            BadParameter: it has another ending.
        """
        path: Any = super().convert(value, param, ctx)
        if self.endings and path.suffix.lower() not in self.endings:
            self.fail(f"'{path}' must end in {', '.join(self.endings)}", param, ctx)
        return path


FIGURE = File(".png", ".pdf", ".svg")


def names(given: str) -> list[str]:
    """Return the names in a comma-separated list.

    >>> names("fad, csim,")
    ['fad', 'csim']
    """
    return [name.strip() for name in given.split(",") if name.strip()]


def _split(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    return names(value)


weights_dir = click.option(
    "--weights-dir",
    type=FOLDER,
    help="Folder searched first for weights, by hash. [env: SPFEM_BENCH_WEIGHTS]",
)
data_dir = click.option(
    "--data-dir",
    type=FOLDER,
    help="Folder searched first for data sets, each in a folder of its name. "
    "[env: SPFEM_BENCH_DATA]",
)
quiet = click.option("-q", "--quiet", is_flag=True, help="No progress bars, no remarks.")
profile = click.option(
    "--profile", help="Which networks to use; those that fit the protocol when not given."
)
metrics = click.option(
    "--metrics",
    default="",
    callback=_split,
    help="Comma-separated; all that the protocol has when not given.",
)
results = click.option(
    "--results",
    type=FOLDER,
    default=Path("results"),
    show_default=True,
    help="Folder for records.",
)
workers = click.option(
    "--workers", type=click.IntRange(1), default=1, show_default=True, help="Processes."
)
workers_on_ray = click.option(
    "--workers",
    type=click.IntRange(1),
    show_default="1; with --ray one for each GPU, else processor",
    help="Processes.",
)
ray = click.option(
    "--ray",
    metavar="local|auto|HOST:PORT",
    help="Compute features on Ray: started here for this run, or a cluster that runs.",
)
drawing_workers = click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count() or 1,
    show_default="all processors",
    help="Processes that draw puppets.",
)
batch_size = click.option(
    "--batch-size",
    type=click.IntRange(1),
    help="Frames per batch; 32 on a processor and what fits well on a GPU, if not given.",
)
device = click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="Where networks run: cpu, cuda, cuda:1, mps.",
)

hwaccel = click.option(
    "--hwaccel",
    metavar="NAME",
    help="Decode videos on hardware: a name that 'ffmpeg -hwaccels' lists, such as cuda.",
)


def precision(default: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option for what networks compute in; *default* says what when not given."""
    return click.option(
        "--precision",
        type=click.Choice(["float32", "bfloat16", "float16"]),
        help=f"What networks compute in; {default}, if not given.",
    )


def protocols(words: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option for one protocol or several; *words* say what is done with them."""
    return click.option(
        "--protocol",
        "protocols",
        multiple=True,
        default=("demo-inter-id", "demo-cross-id"),
        show_default=True,
        help=f"{words}; may be given several times.",
    )


def interrupted(
    words: str = "Interrupted. Run the command again: it goes on from here.",
) -> NoReturn:
    """Print that a signal ended a command, and what becomes of its work; end with 128 + signal."""
    with suppress(OSError):  # SIGHUP: the terminal is closed
        click.echo(words, err=True)
    sys.exit(128 + ended_by())


def remarks(quiet: bool) -> Callable[[str], None]:
    """Return what prints a line on standard error, between progress bars."""

    def remark(message: str) -> None:
        from tqdm import tqdm

        if not quiet:
            tqdm.write(message, file=sys.stderr)

    return remark


def progress_bars(clips: int, *, quiet: bool) -> Progress:
    """Return bars on standard error for clips, decoded frames and crops seen by networks."""
    from tqdm import tqdm

    from spfem_bench.features.extract import Progress

    if quiet:
        return Progress()

    class Bars(Progress):
        def __init__(self) -> None:
            def bar(position: int, **options: Any) -> tqdm[Any]:
                # disable=None: no bars in a file or a pipe.
                return tqdm(position=position, leave=False, disable=None, **options)

            self.clips = bar(0, total=clips, desc="clips   ", unit="clip")
            self.frames = bar(1, desc="decode  ", unit="frame")
            self.crops = bar(2, desc="networks", unit="crop")

        def decoded(self, frames: int) -> None:
            self.frames.update(frames)

        def embedded(self, samples: int) -> None:
            self.crops.update(samples)

        def finished(self, clips: int) -> None:
            self.clips.update(clips)

        def close(self) -> None:
            for bar in (self.crops, self.frames, self.clips):
                bar.close()

    return Bars()


class Phases:
    """A bar on standard error for each phase of a training, one after the other."""

    def __init__(self) -> None:
        self.bars: list[tqdm[Any]] = []

    def begin(self, phase: str, parts: int, done: int = 0) -> None:
        """Show a new phase, some of whose parts may be done already."""
        from tqdm import tqdm

        for bar in self.bars:
            bar.close()
        # disable=None: no bars in a file or a pipe.
        self.bars.append(tqdm(total=parts, initial=done, desc=phase, disable=None))

    def part(self, loss: float | None) -> None:
        """Show that one more part is done, with the loss where there is one."""
        bar = self.bars[-1]
        bar.update(1)
        if loss is not None:
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
        if bar.n == bar.total:
            bar.close()


def progress(quiet: bool) -> progress_interface.Progress:
    """Return how a command's work is shown on standard error; all of it ends with the command."""
    if quiet:
        return progress_interface.SILENT
    shown = Bars() if sys.stderr.isatty() else Lines()
    click.get_current_context().call_on_close(shown.end)
    return shown


def counting(what: str, unit: str, quiet: bool) -> Callable[[int], Callable[[], None]]:
    """Return what shows, on standard error, how many of a known number are done."""
    from tqdm import tqdm

    def start(count: int) -> Callable[[], None]:
        bar = tqdm(total=count, desc=what, unit=unit, leave=False, disable=True if quiet else None)

        def done() -> None:
            bar.update(1)
            if bar.n == count:
                bar.close()

        return done

    return start


def check_device(device: str) -> None:
    """Refuse a device that torch does not have here."""
    if device == "cpu":
        return  # session imports what is slow
    from spfem_bench.errors import SpfemBenchError
    from spfem_bench.evaluation import session

    try:
        session.check_device(device)
    except SpfemBenchError as error:
        raise click.BadParameter(error.problem, param_hint="--device") from None


def team(ray: str | None, workers: int | None, device: str) -> Workers:
    """Return what computes features; it is ended with the command, however that ends."""
    from spfem_bench.execution.local import at_work

    if ray in (None, "local"):  # a cluster's driver may be without its nodes' GPUs
        check_device(device)
    return click.get_current_context().with_resource(at_work(ray, workers, device))


formats = click.option(
    "--format",
    "style",
    type=click.Choice(["text", "markdown", "csv"]),
    default="text",
    show_default=True,
)
