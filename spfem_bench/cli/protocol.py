"""``spfem-bench protocol``: look at protocols, copy one to change, begin one of your own."""

from __future__ import annotations

import re
from collections import Counter
from itertools import product
from pathlib import Path

import click

from spfem_bench.cli import options

_TEMPLATES = Path(__file__).with_name("new_protocol")
"""What ``new`` writes; ``{name}`` is filled in."""


@click.group(short_help="Look at protocols, copy one, begin one of your own.")
def protocol() -> None:
    """Look at protocols, copy one to change, begin one of your own."""


@protocol.command()
@click.argument("name")
@options.data_dir
def show(name: str, data: options.DataFolders) -> None:
    """Print a protocol: its card, its items by speaker and emotion, what is missing here.

    NAME is a protocol's, or the path of a card.
    """
    from tabulate import tabulate

    from spfem_bench.definitions.datasets import dataset_card
    from spfem_bench.definitions.metrics import metric_card
    from spfem_bench.definitions.protocols import protocol as read
    from spfem_bench.errors import ClipError

    found = read(name)
    card = found.card
    dataset = dataset_card(card.dataset)
    click.echo(f"{card.name}, version {card.version}: {card.title}")
    click.echo(card.description.strip())
    for note in card.notes:
        click.echo(f"Note: {note}")
    click.echo(f"Card: {card.path}   List: {card.items}, SHA-256 {found.list_sha256[:16]}…")
    click.echo(f"Setting: {card.setting}   Faces: {card.faces}   Profile: {card.profile}")
    click.echo(f"Metrics: {', '.join(card.metrics)}   On request: {', '.join(card.on_request)}")
    for metric, reason in card.not_applicable.items():
        click.echo(f"Not applicable: {metric_card(metric).label}, {reason}")
    for role, address in card.clips.items():
        click.echo(f"{role}: {address if isinstance(address, str) else '  +  '.join(address)}")
    click.echo(f"Outputs are called {card.output_name}, for example {found.items[0].output_name}\n")
    speakers = list(dict.fromkeys(i.speaker for i in found.items))
    counts = Counter[tuple[str, str]]()
    for i in found.items:
        counts.update(product((i.speaker, "all"), (i.emotion, "all")))
    heads = [*card.emotions, "all"]
    rows = [[s, *(counts[s, e] for e in heads)] for s in (*speakers, "all")]
    click.echo(tabulate(rows, ["Items", *heads]))
    click.echo(f"\nClips: data set '{dataset.name}', {dataset.title} (licence: {dataset.licence})")
    provider = data.provider(dataset)
    if provider.makes_clips:
        shipped = "Those that its items name are shipped."
        click.echo(shipped if dataset.files else "They are drawn when they are needed.")
        return
    clips = dict.fromkeys(c for i in found.items for c in (*i.clips.values(), *i.more_real))
    files = dict.fromkeys(p.as_posix() for c in clips for p in (c.path, c.audio) if p is not None)
    remedies: dict[str, str] = {}  # by missing file
    for file in files:
        try:
            provider.verified(file)
        except ClipError as error:
            remedies[file] = error.remedy
    click.echo(f"Here: {len(files) - len(remedies)} of {len(files)} files.")
    if missing := list(remedies):
        names = ", ".join([*missing[:3], *(["…"] if missing[3:] else [])])
        click.echo(f"Missing: {names}. {remedies[missing[-1]]}")


@protocol.command()
@click.argument("name")
@click.argument("folder", type=options.FOLDER)
def export(name: str, folder: Path) -> None:
    """Copy a protocol's card and list to FOLDER as my-NAME, to be changed there.

    Score with it by its path: spfem-bench eval --protocol FOLDER/my-NAME.toml
    """
    from spfem_bench.definitions.protocols import protocol as read
    from spfem_bench.files import inside

    card = read(name).card
    text = card.path.read_text(encoding="utf-8")
    own = f"my-{card.name}"
    text = re.sub(r"(?m)^items *= *.*$", f'items = "{own}.csv"', text, count=1)
    rows = inside(card.path.parent, card.items).read_text(encoding="utf-8")
    _write({folder / f"{own}.toml": text, folder / f"{own}.csv": rows})
    click.echo(f"Score with it: spfem-bench eval --protocol {folder / f'{own}.toml'}", err=True)


@protocol.command()
@click.argument("folder", type=options.FOLDER)
@click.option("--name", default="my-list", show_default=True, help="What it is called.")
def new(folder: Path, name: str) -> None:
    """Begin a protocol of your own in FOLDER: commented cards and lists that load as they are.

    They lie as cards of your own do: name FOLDER in SPFEM_BENCH_CARDS.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", name):
        raise click.BadParameter("use small letters, digits, '.', '_' and '-'", param_hint="--name")
    files = {
        f"{name}.toml": "protocol.toml",
        f"{name}.csv": "items.csv",
        f"datasets/{name}-clips.toml": "dataset.toml",
        f"datasets/{name}-clips.csv": "clips.csv",
    }
    texts = {
        folder / "protocols" / target: (_TEMPLATES / source).read_text(encoding="utf-8")
        for target, source in files.items()
    }
    _write({path: text.format(name=name) for path, text in texts.items()})
    click.echo(
        f"export SPFEM_BENCH_CARDS={folder}\n"
        f"spfem-bench data index {name}-clips ROOT\n"
        f"spfem-bench eval --method my-model --videos DIR --protocol {name}",
        err=True,
    )


def _write(files: dict[Path, str]) -> None:
    """Write new files; none is ever replaced."""
    from spfem_bench.errors import StorageError
    from spfem_bench.files import write_atomically

    for path in files:
        if path.exists():
            raise StorageError(f"{path} exists already", "Name another folder")
    for path, text in files.items():
        write_atomically(path, text)
        click.echo(str(path))
