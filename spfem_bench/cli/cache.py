"""``spfem-bench cache``."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import click

from spfem_bench.cli import options

_MADE = {
    "features": "what networks computed; made again when needed",
    "data": "fetched clips; 'data fetch' gets them again",
    "weights": "fetched networks; 'networks fetch' gets them again",
}
_DAY = 86400.0


@click.group(invoke_without_command=True, short_help="Show, or prune, fetched files and features.")
@click.pass_context
def cache(ctx: click.Context) -> None:
    """Show where fetched files and features lie, and how large they are.

    \b
    Examples:
      spfem-bench cache
      spfem-bench cache prune --older-than 30
      spfem-bench cache prune data --dry-run

    The environment variable SPFEM_BENCH_CACHE names another folder.
    """  # noqa: D301
    if ctx.invoked_subcommand is not None:
        return
    from spfem_bench.caches import cache_folder

    folder = cache_folder()
    rows = [[name, *_size(folder / name), words] for name, words in _MADE.items()]
    click.echo(str(folder) + ("" if folder.is_dir() else ": not there yet"))
    options.print_table(["Part", "Files", "Size", "What it is"], rows)


@cache.command()
@click.argument("parts", nargs=-1, type=click.Choice([*_MADE]))
@click.option(
    "--older-than",
    "days",
    type=click.FloatRange(0),
    default=0.0,
    metavar="DAYS",
    help="Only files that were last written so many days ago.",
)
@options.flag("--dry-run", help="Only print how much it would be.")
def prune(parts: tuple[str, ...], days: float, dry_run: bool) -> None:
    """Delete features, or other PARTS: features, data, weights.

    Scores and records lie elsewhere, and stay. Let no evaluation run meanwhile.
    """
    from spfem_bench.caches import cache_folder
    from spfem_bench.errors import StorageError

    before = time.time() - days * _DAY
    for part in parts or ("features",):
        folder, count, size = cache_folder() / part, 0, 0
        for file in _files(folder):
            status = file.lstat()
            if days and status.st_mtime >= before:
                continue
            count, size = count + 1, size + status.st_size
            if not dry_run:
                try:
                    file.unlink()
                except OSError as error:
                    raise StorageError(f"{file}: {error.strerror}") from None
        if not dry_run and not _files(folder):
            shutil.rmtree(folder, ignore_errors=True)
        what = "would be deleted" if dry_run else "deleted"
        click.echo(f"{folder}: {count} files, {size / 1e6:.1f} MB {what}")


def _files(folder: Path) -> list[Path]:
    """Return the files below a folder; links are not followed, nor is the folder if it is one."""
    if folder.is_symlink():
        return []
    return [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]


def _size(folder: Path) -> tuple[str, str]:
    files = _files(folder)
    return str(len(files)), f"{sum(f.lstat().st_size for f in files) / 1e6:.1f} MB"
