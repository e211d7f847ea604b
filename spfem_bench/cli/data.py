"""``spfem-bench data``: the clips of data sets, pinned or a user's own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spfem_bench.cli import options

if TYPE_CHECKING:
    from spfem_bench.datasets.provider import Provider
    from spfem_bench.datasets.providers.ned import NedFaces


@click.group(short_help="List, fetch, index and verify the protocols' clips.")
def data() -> None:
    """List, fetch, index and verify the clips that protocols stand on."""


@data.command("list")
@options.data_dir
def list_(data: options.DataFolders) -> None:
    """List data sets and how many of their files are here."""
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.datasets import dataset_card

    rows = []
    for card in map(dataset_card, names(Kind.DATASET)):
        here = data.provider(card).holdings()
        rows.append([card.name, here.state, f"{here.bytes / 1e6:.1f} MB", card.title, here.origin])
    options.print_table(["Data set", "Here", "Size", "Title", "From"], rows)


@data.command()
@click.argument("names", nargs=-1, required=True)
@options.data_dir
@options.quiet
def fetch(names: tuple[str, ...], data: options.DataFolders, quiet: bool) -> None:
    """Download the files of data sets into the cache and verify them.

    What is there and right is not fetched again, so an interrupted fetch goes
    on where it stopped.
    """
    from spfem_bench.datasets.providers.pinned_files import PinnedFiles
    from spfem_bench.definitions.datasets import dataset_card

    for name in names:
        provider = data.provider(dataset_card(name))
        if not isinstance(provider, PinnedFiles):
            click.echo(f"{name}: {provider.how_to_get()}")
            continue
        click.echo(f"{name}: licence: {provider.card.licence}")
        count = provider.fetch(options.progress(quiet), options.remarks(quiet))
        click.echo(f"{name}: {count} files verified")


@data.command(short_help="Check the SHA-256 of every file.")
@click.argument("names", nargs=-1, required=True)
@options.data_dir
def verify(names: tuple[str, ...], data: options.DataFolders) -> None:
    """Check the SHA-256 of every file; exit code 1 when one is missing or wrong."""
    from spfem_bench.definitions.datasets import dataset_card, dataset_files

    failed = False
    for name in names:
        provider = data.provider(dataset_card(name))
        if provider.card.recordings:
            click.echo(f"{name}: nobody publishes hashes; 'data index {name} ROOT' reads it")
        for path, file in dataset_files(provider.card).items():
            state = provider.file_state(file)
            failed = failed or state != "verified"
            click.echo(f"{name}/{path}: {state}")
    if failed:
        click.echo(f"To get what is missing: spfem-bench data fetch {' '.join(names)}", err=True)
    sys.exit(1 if failed else 0)


@data.command(short_help="Look at your own copy of a data set, and note its clips.")
@click.argument("name")
@click.argument("root", type=options.FOLDER)
@click.option(
    "--mapping",
    type=options.File(),
    help="A TOML file that says how your copy is named, when it is not as published.",
)
@click.option(
    "--clips",
    type=options.File(".csv"),
    help="For ned: a CSV of speaker, emotion, clip and frames, which says where a clip ends.",
)
@options.flag(
    "--as-published",
    help="For ned: cut generated folders as the papers' scripts do, with their slips.",
)
@options.flag("--json", "as_json", help="Print the report as JSON.")
@options.data_dir
@options.quiet
def index(
    name: str,
    root: Path,
    mapping: Path | None,
    clips: Path | None,
    as_published: bool,
    as_json: bool,
    data: options.DataFolders,
    quiet: bool,
) -> None:
    """Look at your own copy of a data set (mead, ravdess, ned) and note where it lies.

    Nothing is copied. Every recording that the papers count is looked for below
    ROOT and its streams are read through; what is missing, cannot be read or is
    odd is reported, and protocols use the rest. A run that was stopped goes on
    where it was; after a change, run it again.

    ned is a tree of aligned faces: SPEAKER/EMOTION/faces_aligned/*.png as NED
    leaves it, or SIDE/EMOTION/SPEAKER/*.png with a side 'real'.

    
    Examples:
      spfem-bench data index mead /data/MEAD
      spfem-bench data index ravdess /data/RAVDESS --json > ravdess.json
      spfem-bench data index mead /data/mine --mapping mine.toml
      spfem-bench data index ned /data/render_test
      spfem-bench data index ned /data/exp/cmp_inter --clips clips.csv
    """
    from spfem_bench.datasets.providers.ned import NedFaces
    from spfem_bench.definitions.datasets import dataset_card

    provider = data.provider(dataset_card(name))
    if isinstance(provider, NedFaces):
        if mapping:
            raise click.UsageError(f"--mapping is for recordings; '{name}' is a tree of faces")
        content, lines, path = _index_faces(provider, root, clips, as_published, quiet)
    elif clips or as_published:
        raise click.UsageError(f"--clips and --as-published are for ned, not for '{name}'")
    else:
        content, lines, path = _index_recordings(provider, root, mapping, quiet)
    if as_json:
        click.echo(json.dumps(content | {"index": str(path)}, indent=1, ensure_ascii=False))
        return
    click.echo("\n".join(lines))
    if not quiet:
        click.echo(f"Index: {path}", err=True)


_Indexed = tuple[dict[str, Any], list[str], Path]  # the report as values and as text; the index


def _index_faces(
    provider: NedFaces, root: Path, clips: Path | None, as_published: bool, quiet: bool
) -> _Indexed:
    from spfem_bench.reporting.indexes import tree_lines

    progress = options.progress(quiet)
    found, path = provider.build_index(
        root, clips=clips, as_published=as_published, progress=progress
    )
    report = provider.report(found)
    return report.plain(), tree_lines(report), path


def _index_recordings(
    provider: Provider, root: Path, mapping: Path | None, quiet: bool
) -> _Indexed:
    from spfem_bench.datasets.index_report import index_report
    from spfem_bench.datasets.providers.recordings import indexed_recordings
    from spfem_bench.definitions.recordings import read_mapping
    from spfem_bench.reporting.indexes import report_lines

    recorded = indexed_recordings(provider)
    found, path = recorded.build_index(
        root, read_mapping(mapping) if mapping else None, options.progress(quiet)
    )
    report = index_report(recorded.card, found)
    return report.plain(), report_lines(report), path
