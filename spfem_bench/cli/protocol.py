"""``spfem-bench protocol``: look at protocols, solve, copy or begin one."""

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
    """Look at protocols, solve one, copy one to change, begin one of your own."""


@protocol.command(short_help="Print a protocol's card, its items, and what is missing here.")
@click.argument("name")
@options.data_dir
def show(name: str, data: options.DataFolders) -> None:
    """Print a protocol: its card, its items by speaker and emotion, what is missing here.

    NAME is a protocol's, or the path of a card.
    """
    from tabulate import tabulate

    from spfem_bench.definitions.metrics import metric_card
    from spfem_bench.definitions.protocols import protocol as read
    from spfem_bench.errors import ClipError

    found = read(name)
    card = found.card
    dataset = found.dataset
    click.echo(f"{card.name}, version {card.version}: {card.title}")
    click.echo(card.description.strip())
    for note in card.notes:
        click.echo(f"Note: {note}")
    where = card.items_path if card.solve else card.items
    click.echo(f"Card: {card.path}   List: {where}, SHA-256 {found.list_sha256[:16]}…")
    if card.solve:
        click.echo(f"Test clips: {found.determined}")
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


@protocol.command(short_help="Copy a protocol's card and list, to be changed.")
@click.argument("name")
@click.argument("folder", type=options.FOLDER)
def export(name: str, folder: Path) -> None:
    """Copy a protocol's card and list to FOLDER as my-NAME, to be changed there.

    Score with it by its path: spfem-bench eval --protocol FOLDER/my-NAME.toml
    """
    from spfem_bench.definitions.protocols import protocol as read

    card = read(name).card
    text = card.path.read_text(encoding="utf-8")
    own = f"my-{card.name}"
    text = re.sub(r"(?m)^items *= *.*$", f'items = "{own}.csv"', text, count=1)
    # A copy has the list as it is, and may be changed: it is no longer the papers' own.
    text = re.sub(r"(?ms)^\[solve(\.\w+)?\]$.*?(?=^\[|\Z)", "", text).rstrip() + "\n"
    text = re.sub(r"(?m)^recipe *= *.*\n", "", text)
    rows = card.items_path.read_text(encoding="utf-8")
    options.write_new({folder / f"{own}.toml": text, folder / f"{own}.csv": rows})
    click.echo(f"Score with it: spfem-bench eval --protocol {folder / f'{own}.toml'}", err=True)


@protocol.command(short_help="Find unpublished test clips among your own recordings.")
@click.argument("name")
@options.data_dir
@options.flag("--nearest", help="Where no set of clips fits a cell, take the nearest sum.")
@click.option(
    "--clips", type=options.File(".csv"), help="Also write the chosen clips to this CSV file."
)
def solve(name: str, data: options.DataFolders, nearest: bool, clips: Path | None) -> None:
    """Find the items of a protocol whose test clips are not published, among your own clips.

    A cell is one speaker's test clips of one emotion. How many frames they have in all is known,
    and some of their names; the clips that fit are looked for in the indexes of your data sets.
    Of several sets that fit, the one with the last clips is taken; all are counted.

    \b
    Examples:
      spfem-bench data index mead /data/MEAD
      spfem-bench protocol solve mead-papers-cross-id --clips clips.csv
      # prepare the clips in clips.csv as faces, then:
      spfem-bench data index ned /data/NED
      spfem-bench protocol solve mead-papers-cross-id

    Exit codes: 0 the list is written; 1 it is not: a cell fits no set of clips,
    or the protocol's own data set is not indexed; 2 wrong options.
    """  # noqa: D301
    from spfem_bench.datasets.solving import solve_protocol
    from spfem_bench.definitions.protocols import protocol_card
    from spfem_bench.errors import CardError
    from spfem_bench.files import write_atomically
    from spfem_bench.reporting.solving import solved_text

    solved = solve_protocol(protocol_card(name), data, nearest=nearest)
    click.echo(solved_text(solved))
    if clips:
        write_atomically(clips, solved.clips_text())
        click.echo(f"Chosen clips: {clips}", err=True)
    if solved.rows:
        solved.write()
        click.echo(f"List: {solved.path}", err=True)
        click.echo(f"Score with it: spfem-bench eval --protocol {name}", err=True)
    elif unsolved := solved.unsolved:
        more = f", and {len(unsolved) - 1} more cells" if len(unsolved) > 1 else ""
        remedy = "Look whether these clips are whole and of the published release"
        if any(one.off is not None for one in unsolved):
            remedy += "; --nearest takes the nearest sums"
        raise CardError(f"no list is written: {unsolved[0].why}{more}", remedy)
    else:
        raise CardError(
            f"no list is written: the data set '{solved.card.dataset}' is not indexed",
            f"Prepare these clips, then type 'spfem-bench data index {solved.card.dataset} ROOT' "
            "and solve again",
        )


@protocol.command(short_help="Begin a protocol of your own: commented cards and lists.")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--name", default="my-list", show_default=True, help="What it is called in a folder.")
@click.option(
    "--from",
    "dataset",
    metavar="DATASET",
    help="List all clips of an indexed tree of faces (ned) in the place of examples.",
)
@options.data_dir
def new(path: Path, name: str, dataset: str | None, data: options.DataFolders) -> None:
    r"""Begin a protocol of your own at PATH: commented cards and lists that load as they are.

    PATH is a file, NAME.toml, for clips that lie in folders that you name; or a
    folder of cards for SPFEM_BENCH_CARDS, with recordings that each user indexes.
    With --from, protocols on all clips of a tree that 'data index' has found:
    inter-ID, whose sources show the target emotion already, and cross-ID, whose
    sources are neutral. Score with them by their paths.

    \b
    Examples:
      spfem-bench protocol new my-list.toml
      spfem-bench protocol new my-cards --name my-list
      spfem-bench protocol new lists --from ned --name my-tree
    """
    alone = path.suffix == ".toml"
    name = path.stem if alone else name
    options.check_name(name, "PATH" if alone else "--name")
    if dataset:
        _write_lists(path, name, dataset, data)
        return
    files = {
        f"{name}.toml": "protocol.toml",
        f"{name}.csv": "items.csv",
        f"datasets/{name}-clips.toml": "folders.toml" if alone else "dataset.toml",
    }
    files |= {} if alone else {f"datasets/{name}-clips.csv": "clips.csv"}
    folder, root = (path.parent, "clips/") if alone else (path / "protocols", "")
    texts = {
        folder / target: (_TEMPLATES / source).read_text(encoding="utf-8")
        for target, source in files.items()
    }
    options.write_new({file: text.format(name=name, root=root) for file, text in texts.items()})
    if alone:
        click.echo(
            f"Put your clips into {folder / 'clips'}, or name their folder in the last "
            f"of these files.\nspfem-bench protocol show {path}\n"
            f"spfem-bench eval --method my-model --videos DIR --protocol {path}",
            err=True,
        )
        return
    click.echo(
        f"export SPFEM_BENCH_CARDS={path}\n"
        f"spfem-bench data index {name}-clips ROOT\n"
        f"spfem-bench eval --method my-model --videos DIR --protocol {name}",
        err=True,
    )


def _write_lists(folder: Path, name: str, dataset: str, data: options.DataFolders) -> None:
    """Write the protocols on all clips of a tree of faces."""
    from spfem_bench.datasets.own_lists import own_lists
    from spfem_bench.datasets.providers.ned import NedFaces
    from spfem_bench.definitions.datasets import dataset_card
    from spfem_bench.errors import CardError

    provider = data.provider(dataset_card(dataset))
    if not isinstance(provider, NedFaces):
        raise CardError(f"the data set '{dataset}' is no tree of faces", "Allowed: ned")
    clips = provider.source_clips()
    if not clips:
        problem = f"the data set '{dataset}' has no clips that can be used"
        raise CardError(problem, f"Type 'spfem-bench data index {dataset} ROOT', which says why")
    made = own_lists(name, dataset, clips)
    texts = {folder / f"{one.name}.toml": one.card for one in made}
    texts |= {folder / f"{one.name}.csv": one.items for one in made}
    options.write_new(texts)
    for one in made:
        if one.left_out:
            click.echo(f"{one.name}: {one.left_out}", err=True)
        path = folder / f"{one.name}.toml"
        click.echo(f"spfem-bench eval --method source --protocol {path}", err=True)
