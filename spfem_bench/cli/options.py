"""What several commands share: options, the progress they show, and how they end."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias, get_args

import click
from click.shell_completion import CompletionItem

from spfem_bench.cli.progress import Bars, Lines
from spfem_bench.definitions.computing import Computing, Precision
from spfem_bench.machine import processors
from spfem_bench.processes import ended_by
from spfem_bench.progress import SILENT, Progress
from spfem_bench.texts import text_table

if TYPE_CHECKING:
    from spfem_bench.datasets.folders import DataFolders as DataFolders
    from spfem_bench.definitions.cards import Card, Kind
    from spfem_bench.execution.workers import Workers
    from spfem_bench.networks.weights import WeightsStore as WeightsStore

Command: TypeAlias = "Callable[..., None]"

FOLDER = click.Path(file_okay=False, path_type=Path)


class File(click.Path):
    """A file whose name has one of the given endings, if there are any."""

    def __init__(self, *endings: str) -> None:
        super().__init__(dir_okay=False, path_type=Path)
        self.endings = endings

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; raise BadParameter for another ending."""
        path: Any = super().convert(value, param, ctx)
        if self.endings and path.suffix.lower() not in self.endings:
            self.fail(f"'{path}' must end in {', '.join(self.endings)}", param, ctx)
        return path


class Name(click.types.StringParamType):
    """A name of a card, such as a method's; a shell completes it, any text is let through."""

    def __init__(self, kind: str, *, several: bool = False, others: Sequence[str] = ()) -> None:
        self.kind, self.several, self.others = kind, several, others

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Return the names that begin like the (last) name typed, whatever its capitals."""
        from spfem_bench.definitions.cards import Kind, names

        before, comma, last = incomplete.rpartition(",") if self.several else ("", "", incomplete)
        known = [*names(Kind[self.kind.upper()]), *self.others]
        alike = [name for name in known if name.casefold().startswith(last.casefold())]
        return [CompletionItem(f"{before}{comma}{name}") for name in alike]


FIGURE = File(".png", ".pdf", ".svg")


def split_names(_: click.Context, __: click.Parameter, value: str) -> list[str]:
    """Return the names in a comma-separated list."""
    return [name.strip() for name in value.split(",") if name.strip()]


def folders_by_method(
    _: click.Context, __: click.Parameter, texts: tuple[str, ...]
) -> dict[str, Path]:
    """Return the folders of texts ``METHOD=DIR`` by method; raise BadParameter for another text."""
    folders: dict[str, Path] = {}
    for text in texts:
        method, _mark, folder = text.partition("=")
        if not method or not folder:
            raise click.BadParameter(f"'{text}': write METHOD=DIR, the folder of its outputs")
        folders[method] = Path(folder)
    return folders


def _weights(_: click.Context, __: click.Parameter, folder: Path | None) -> WeightsStore:
    from spfem_bench.networks.weights import WeightsStore

    return WeightsStore.locate(folder)


def _data(_: click.Context, __: click.Parameter, folder: Path | None) -> DataFolders:
    from spfem_bench.datasets.folders import DataFolders

    return DataFolders.locate(folder)


def _tolerances(_: click.Context, __: click.Parameter, texts: tuple[str, ...]) -> dict[str, float]:
    tolerances: dict[str, float] = {}
    for text in texts:
        metric, _mark, number = text.rpartition("=")
        try:
            tolerances[metric] = float(number)
        except ValueError:
            tolerances[metric] = math.nan
        if not 0 < tolerances[metric] < math.inf:
            raise click.BadParameter(f"'{text}': write a number above 0, or METRIC=NUMBER")
    return tolerances


flag = partial(click.option, is_flag=True)
folder = partial(click.option, type=FOLDER)
several = partial(click.option, multiple=True)
with_default = partial(click.option, show_default=True)
tolerances = several(
    "--tolerance",
    "tolerances",
    metavar="[METRIC=]NUMBER",
    callback=_tolerances,
    help="Largest difference allowed, for one metric or for all; may be given several times.",
)
weights_dir = folder(
    "--weights-dir",
    "weights",
    callback=_weights,
    help="Folder searched first for weights, by hash. [env: SPFEM_BENCH_WEIGHTS]",
)
data_dir = folder(
    "--data-dir",
    "data",
    callback=_data,
    help="Folder searched first for data sets, each in a folder of its name. "
    "[env: SPFEM_BENCH_DATA]",
)
quiet = flag("-q", "--quiet", help="No progress bars, no remarks.")
profile = click.option(
    "--profile",
    type=Name("profile"),
    metavar="NAME",
    help="Which networks to use; those that fit the protocol when not given.",
)
ALL_NAMES = "Comma-separated; all that the protocol has when not given."
NAMES_OF_METRICS = Name("metric", several=True)
metrics = click.option(
    "--metrics",
    type=NAMES_OF_METRICS,
    metavar="NAMES",
    default="",
    callback=split_names,
    help=ALL_NAMES,
)
results = with_default(
    "--results", type=FOLDER, default=Path("results"), help="Folder for records."
)
learning_device = with_default("--device", default="cpu", help="Where it learns: cpu, cuda.")
standalone = flag("--standalone", help="With latex: a document that compiles by itself.")


def check_standalone(standalone: bool, style: str) -> None:
    """Raise UsageError for --standalone without --format latex."""
    if standalone and style != "latex":
        raise click.UsageError("--standalone belongs to --format latex")


drawing_workers = click.option(
    "--workers",
    type=click.IntRange(1),
    default=processors(),
    show_default="all processors",
    help="Processes that draw puppets.",
)


def computing(*offered: str, half_on_gpu: bool = False) -> Callable[[Command], Command]:
    """Return a decorator that adds options and passes their values as one ``computing``.

    Args:
        offered: fields of `Computing`; all when empty.
        half_on_gpu: compute in bfloat16 on a GPU when --precision is not given.
    """
    fields = offered or tuple(Computing.__dataclass_fields__)
    workers = "1; with --ray one for each GPU, else processor" if "ray" in fields else "1"
    by_device = " on a processor, bfloat16 on a GPU" if half_on_gpu else ""
    choices: dict[str, Callable[[Command], Command]] = {
        "workers": click.option(
            "--workers", type=click.IntRange(1), show_default=workers, help="Processes."
        ),
        "ray": click.option(
            "--ray",
            metavar="local|auto|HOST:PORT",
            help="Compute features on Ray: started here for this run, or a cluster that runs.",
        ),
        "batch_size": click.option(
            "--batch-size",
            type=click.IntRange(1),
            help="Frames per batch; 32 on a processor and what fits well on a GPU, if not given.",
        ),
        "device": with_default(
            "--device", default="cpu", help="Where networks run: cpu, cuda, cuda:1, mps."
        ),
        "precision": click.option(
            "--precision",
            type=click.Choice(get_args(Precision)),
            help=f"What networks compute in; float32{by_device}, if not given.",
        ),
        "hwaccel": click.option(
            "--hwaccel",
            metavar="NAME",
            help="Decode videos on hardware: a name that 'ffmpeg -hwaccels' lists, such as cuda.",
        ),
    }

    def decorate(command: Command) -> Command:
        @wraps(command)
        def with_computing(*arguments: Any, **values: Any) -> None:
            given = {field: values.pop(field) for field in fields}
            if half_on_gpu and given["precision"] is None and given["device"] != "cpu":
                given["precision"] = "bfloat16"
            settings = {field: value for field, value in given.items() if value is not None}
            command(*arguments, computing=Computing(**settings), **values)

        decorated: Command = with_computing
        for field in reversed([field for field in choices if field in fields]):
            decorated = choices[field](decorated)
        return decorated

    return decorate


def check_name(name: str, hint: str) -> None:
    """Raise BadParameter for a name that no card can have."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        problem = f"'{name}': use small letters, digits, '.', '_' and '-'"
        raise click.BadParameter(problem, param_hint=hint)


def write_new(files: dict[Path, str]) -> None:
    """Write new files and print their paths; none is ever replaced."""
    from spfem_bench.errors import StorageError
    from spfem_bench.files import write_atomically

    for path in files:
        if path.exists():
            raise StorageError(f"{path} exists already", "Give another name or folder")
    for path, text in files.items():
        write_atomically(path, text)
        click.echo(str(path))


def begun_card(noun: str, *, like: str) -> Callable[[Command], Command]:
    """Return a decorator that adds what :func:`new_card` asks for: FOLDER, --name and --like."""
    options = (
        click.argument("folder", type=FOLDER),
        click.option(
            "--name", default=f"my-{noun}", show_default=True, help=f"What the {noun} is called."
        ),
        click.option(
            "--like",
            type=Name(noun),
            default=like,
            show_default=True,
            metavar="NAME",
            help=f"The {noun} whose card is the beginning.",
        ),
    )

    def decorate(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def new_card(kind: Kind, like: Card, folder: Path, name: str) -> Path:
    """Write a commented copy of a card into a folder of cards; return its path."""
    from spfem_bench.definitions.described import commented

    check_name(name, "--name")
    text = like.path.read_text(encoding="utf-8").replace("\r\n", "\n")
    text = re.sub(r'(?m)^(title|label) = "', r"\g<0>My ", text)
    path = folder / kind.value / f"{name}.toml"
    write_new({path: commented(type(like), text)})
    return path


def protocols(purpose: str) -> Callable[[Command], Command]:
    """Return the option of one protocol or several; its help begins with the purpose."""
    words = f"{purpose}; may be given several times."
    default = ("demo-inter-id", "demo-cross-id")
    return with_default(
        "--protocol",
        "protocols",
        type=Name("protocol"),
        metavar="NAME",
        multiple=True,
        default=default,
        help=words,
    )


def when_interrupted(message: str) -> None:
    """Set what is printed when a signal ends the command that runs."""
    click.get_current_context().meta[__name__] = message


RESUMABLE = "Interrupted. Run the command again: it goes on from here."


def interrupted() -> NoReturn:
    """Print what becomes of a command's work that a signal ended; exit with 128 + signal."""
    with suppress(OSError):  # SIGHUP: the terminal is closed
        click.echo(click.get_current_context().meta.get(__name__, "Interrupted."), err=True)
    sys.exit(128 + ended_by())


def remarks(quiet: bool) -> Callable[[str], None]:
    """Return a function that prints a line on standard error, between progress bars."""

    def remark(message: str) -> None:
        from tqdm import tqdm

        if not quiet:
            tqdm.write(message, file=sys.stderr)

    return remark


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table of texts."""
    click.echo(text_table(rows, heads))


def print_notes(lines: Iterable[str]) -> None:
    """Print lines on standard error."""
    for line in lines:
        click.echo(line, err=True)


def progress(quiet: bool) -> Progress:
    """Return how a command's work is shown on standard error; all of it ends with the command."""
    if quiet:
        return SILENT
    shown = Bars() if sys.stderr.isatty() else Lines()
    click.get_current_context().call_on_close(shown.end)
    return shown


def check_device(device: str) -> None:
    """Raise BadParameter for a device that torch does not have here."""
    if device == "cpu":
        return  # the import below takes a second
    from spfem_bench.errors import SpfemBenchError
    from spfem_bench.execution import common

    try:
        common.check_device(device)
    except SpfemBenchError as error:
        raise click.BadParameter(error.problem, param_hint="--device") from None


def workers_of(computing: Computing) -> Workers:
    """Return the workers that a command's options ask for; they end with the command."""
    from spfem_bench.execution.workers import workers_for

    if computing.ray in (None, "local"):  # a cluster's driver may lack the GPUs of its nodes
        check_device(computing.device)
    return click.get_current_context().with_resource(workers_for(computing))


_FORMATS = click.Choice(["text", "markdown", "csv"])
formats = with_default("--format", "style", type=_FORMATS, default="text")
