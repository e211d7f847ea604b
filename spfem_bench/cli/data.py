"""``spfem-bench data``: the clips of data sets, pinned or a user's own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spfem_bench.cli import options

if TYPE_CHECKING:
    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.definitions.datasets import DatasetCard
    from spfem_bench.definitions.pins import PinnedFile


@click.group()
def data() -> None:
    """List, fetch, index and verify the clips that protocols stand on."""


@data.command("list")
@options.data_dir
def list_(data_dir: Path | None) -> None:
    """List data sets and how many of their files are here."""
    from tabulate import tabulate

    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.datasets import dataset_card, dataset_files, recordings

    folders, rows = DataFolders.locate(data_dir), []
    for name in names(Kind.DATASET):
        card = dataset_card(name)
        if card.recordings:
            index, total = folders.index(card), len(recordings(card))
            here = sum(r.video in index.files for r in recordings(card)) if index else 0
            state = f"{here}/{total}" if index else f"0/{total}, not indexed"
            state += ", unverified: index it again" if index and not index.verified else ""
            size = sum(e.bytes for e in index.files.values()) / 1e6 if index else 0.0
            rows.append([name, state, f"{size:.1f} MB", card.title, card.recordings.get])
            continue
        files = dataset_files(card)
        here = sum(folders.find(card, f) is not None for f in files.values())
        size = sum(f.bytes or 0 for f in files.values()) / 1e6
        where = card.repository or ("shipped" if files else "drawn when needed")
        rows.append([name, f"{here}/{len(files)}", f"{size:.1f} MB", card.title, where])
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
    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.definitions.datasets import dataset_card, dataset_files

    folders = DataFolders.locate(data_dir)
    for name in names:
        card = dataset_card(name)
        if card.world:
            click.echo(f"{name}: nothing to fetch, its clips are shipped or drawn")
            continue
        if card.recordings:
            click.echo(
                f"{name}: you get it from its authors, {card.recordings.get} (licence: "
                f"{card.licence}); then type 'spfem-bench data index {name} ROOT'"
            )
            continue
        click.echo(f"{name}: licence: {card.licence}")
        files = list(dataset_files(card).values())
        for file in tqdm(files, desc=name, unit="file", disable=quiet):
            if _state(folders, card, file) != "verified":
                pinned.fetch(
                    file, folders.cache / card.name, progress=False, report=options.remarks(quiet)
                )
        click.echo(f"{name}: {len(files)} files verified")


@data.command()
@click.argument("names", nargs=-1, required=True)
@options.data_dir
def verify(names: tuple[str, ...], data_dir: Path | None) -> None:
    """Check the SHA-256 of every file; exit code 1 when one is missing or wrong."""
    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.definitions.datasets import dataset_card, dataset_files

    folders, failed = DataFolders.locate(data_dir), False
    for name in names:
        card = dataset_card(name)
        if card.recordings:
            click.echo(f"{name}: nobody publishes hashes; 'data index {name} ROOT' looks at it")
        for path, file in dataset_files(card).items():
            state = _state(folders, card, file)
            failed = failed or state != "verified"
            click.echo(f"{name}/{path}: {state}")
    if failed:
        click.echo(f"To get what is missing: spfem-bench data fetch {' '.join(names)}", err=True)
    sys.exit(1 if failed else 0)


@data.command()
@click.argument("name")
@click.argument("root", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--mapping",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A TOML file that says how your copy is named, when it is not as published.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@options.data_dir
@options.quiet
def index(
    name: str, root: Path, mapping: Path | None, as_json: bool, data_dir: Path | None, quiet: bool
) -> None:
    """Look at your own copy of a data set (mead, ravdess) and note where it lies.

    Nothing is copied. Every recording that the papers count is looked for below
    ROOT and its streams are read through; what is missing, cannot be read or is
    odd is reported, and protocols use the rest. A run that was stopped goes on
    where it was; after a change, run it again.

    
    Examples:
      spfem-bench data index mead /data/MEAD
      spfem-bench data index ravdess /data/RAVDESS --json > ravdess.json
      spfem-bench data index mead /data/mine --mapping mine.toml
    """
    import json

    from spfem_bench.datasets import indexing
    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.definitions.datasets import dataset_card
    from spfem_bench.definitions.recordings import read_mapping

    card, folders = dataset_card(name), DataFolders.locate(data_dir)
    path = folders.index_file(card, new=True)
    found = indexing.build(
        card,
        root,
        read_mapping(mapping) if mapping else None,
        path,
        progress=options.progress(quiet),
    )
    report = indexing.report(card, found)
    if as_json:
        click.echo(json.dumps(report.plain() | {"index": str(path)}, indent=1, ensure_ascii=False))
        return
    from spfem_bench.reporting.recordings import report_lines

    click.echo("\n".join(report_lines(report)))
    if not quiet:
        click.echo(f"Index: {path}", err=True)


def _state(folders: DataFolders, card: DatasetCard, file: PinnedFile) -> str:
    from spfem_bench.hashes import sha256_of

    path = folders.find(card, file)
    if path is None:
        return "missing"
    return "verified" if sha256_of(path) == file.sha256 else "wrong hash"
