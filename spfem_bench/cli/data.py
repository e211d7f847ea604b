"""``spfem-bench data``: the pinned clips of data sets."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spfem_bench.cli import options

if TYPE_CHECKING:
    from spfem_bench.definitions.metrics import PinnedFile
    from spfem_bench.definitions.protocols import DatasetCard
    from spfem_bench.evaluation.data import DataFolders


@click.group()
def data() -> None:
    """List, fetch and verify the clips that protocols stand on."""


@data.command("list")
@options.data_dir
def list_(data_dir: Path | None) -> None:
    """List data sets and how many of their files are here."""
    from tabulate import tabulate

    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.protocols import dataset_card, dataset_files
    from spfem_bench.evaluation.data import DataFolders

    folders, rows = DataFolders.locate(data_dir), []
    for name in names(Kind.DATASET):
        card = dataset_card(name)
        if card.world:
            rows.append([name, "rendered when needed", "", card.title, ""])
            continue
        files = dataset_files(card)
        here = sum(folders.find(card, f) is not None for f in files.values())
        size = sum(f.bytes or 0 for f in files.values()) / 1e6
        rows.append([name, f"{here}/{len(files)}", f"{size:.1f} MB", card.title, card.repository])
    heads = ["Data set", "Here", "Size", "Title", "From"]
    click.echo(tabulate(rows, heads, disable_numparse=True))


@data.command()
@click.argument("names", nargs=-1, required=True)
@options.data_dir
@options.quiet
def fetch(names: tuple[str, ...], data_dir: Path | None, quiet: bool) -> None:
    """Download the files of data sets into the cache and verify them.

    What is there and right is not fetched again, so an interrupted fetch goes
    on where it stopped.
    """
    from tqdm import tqdm

    from spfem_bench import pinned
    from spfem_bench.definitions.protocols import dataset_card, dataset_files
    from spfem_bench.evaluation.data import DataFolders

    folders = DataFolders.locate(data_dir)
    for name in names:
        card = dataset_card(name)
        if card.world:
            click.echo(f"{name}: nothing to fetch, its clips are rendered when they are needed")
            continue
        click.echo(f"{name}: licence: {card.licence}")
        files = list(dataset_files(card).values())
        for file in tqdm(files, desc=name, unit="file", disable=quiet):
            if _state(folders, card, file) != "verified":
                pinned.fetch(file, folders.cache / card.name, progress=False)
        click.echo(f"{name}: {len(files)} files verified")


@data.command()
@click.argument("names", nargs=-1, required=True)
@options.data_dir
def verify(names: tuple[str, ...], data_dir: Path | None) -> None:
    """Check the SHA-256 of every file; exit code 1 when one is missing or wrong."""
    from spfem_bench.definitions.protocols import dataset_card, dataset_files
    from spfem_bench.evaluation.data import DataFolders

    folders, failed = DataFolders.locate(data_dir), False
    for name in names:
        card = dataset_card(name)
        if card.world:
            click.echo(f"{name}: nothing to verify, rendered clips are checked at every use")
        for path, file in dataset_files(card).items():
            state = _state(folders, card, file)
            failed = failed or state != "verified"
            click.echo(f"{name}/{path}: {state}")
    if failed:
        click.echo(f"To get what is missing: spfem-bench data fetch {' '.join(names)}", err=True)
    sys.exit(1 if failed else 0)


def _state(folders: DataFolders, card: DatasetCard, file: PinnedFile) -> str:
    from spfem_bench.pinned import sha256_of

    path = folders.find(card, file)
    if path is None:
        return "missing"
    return "verified" if sha256_of(path) == file.sha256 else "wrong hash"
