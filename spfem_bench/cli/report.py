"""``spfem-bench report``."""

from __future__ import annotations

from pathlib import Path

import click

from spfem_bench.cli import options


@click.command(short_help="Make a page to read in a browser, from run records.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.with_default(
    "-o", "--output", type=options.FOLDER, default=Path("report"), help="Folder of the report."
)
@options.with_default(
    "--items",
    type=click.IntRange(0, 50),
    default=2,
    help="Worst, and best, clips to show of each method in each metric.",
)
@options.several(
    "--videos",
    metavar="METHOD=DIR",
    callback=options.folders_by_method,
    help="Folder of a method's outputs, as it was given to eval; may be given several times.",
)
@click.option(
    "--baseline", default="", help="The method that others are compared with; the first run's."
)
@options.flag("--no-videos", help="Only numbers: look for no clips.")
@options.weights_dir
@options.data_dir
@options.quiet
def report(
    runs: tuple[Path, ...],
    output: Path,
    items: int,
    videos: dict[str, Path],
    baseline: str,
    no_videos: bool,
    weights: options.WeightsStore,
    data: options.DataFolders,
    quiet: bool,
) -> None:
    """Make a folder of a page to read in a browser, from run records.

    Tables, plots by emotion, speaker and clip, the worst and the best clips with
    source, reference, output and the best other method playing in step, lip sync over
    time, heat-maps, what was refused, and where every number comes from. It opens
    from the disk (DIR/index.html), loads nothing from elsewhere, and
    may be sent or put on a server as it is. What is not at hand is said.

    \b
    Examples:
      spfem-bench report results/demo-inter-id
      spfem-bench report results/*/*.json -o report --items 3
      spfem-bench report results/mead-cross-id --baseline ned
      spfem-bench report results/mead-cross-id --videos my-model=outputs/
      spfem-bench report results --no-videos
    """  # noqa: D301
    from spfem_bench.errors import ClipError, unknown_name
    from spfem_bench.evaluation.record import load_all, record_files
    from spfem_bench.features.store import FeatureStore
    from spfem_bench.files import check_writable, temporary_folder
    from spfem_bench.reporting.report import folder
    from spfem_bench.reporting.report.build import build
    from spfem_bench.reporting.report.clips import Clips
    from spfem_bench.reporting.report.model import sections

    records = load_all(runs)
    sections(records)  # before a folder is made or a clip is copied: are they whole?
    methods = {record.method.name for record in records}
    for method in filter(None, [*videos, baseline]):
        if method not in methods:
            raise unknown_name("method of these runs", method, methods)
    for method, own in videos.items():
        if not own.is_dir():
            raise ClipError(f"{own}: no such folder", f"Give the folder of the outputs of {method}")
    known = folder.listed(output)
    check_writable(output)
    with temporary_folder() as made:
        clips = None
        if not no_videos and items:
            store = FeatureStore.locate()
            clips = Clips(data, weights, store, videos, kept=output, known=known, made=made)
            clips.cards = sorted({f.parent for f in record_files(runs)})  # of eval --generated
        options.when_interrupted("Interrupted. Nothing was written.")
        pages = build(
            records, items=items, clips=clips, baseline=baseline, progress=options.progress(quiet)
        )
        folder.replace(output, made, pages)
    click.echo(output / "index.html")
