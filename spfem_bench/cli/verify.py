"""``spfem-bench verify``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from spfem_bench.cli import options
from spfem_bench.definitions.computing import Computing


@click.command(short_help="Compute records' numbers again, to find edited ones.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@options.flag(
    "--clips", help="Evaluate again too, from the clips at hand: the one way to check FAD's values."
)
@options.several(
    "--videos",
    metavar="METHOD=DIR",
    callback=options.folders_by_method,
    help="With --clips: folder of a method's outputs, as it was given to eval.",
)
@options.computing("workers", "batch_size", "device", "precision")
@options.flag("--json", "as_json", help="Print every mismatch as JSON.")
@options.weights_dir
@options.data_dir
@options.quiet
def verify(
    runs: tuple[Path, ...],
    clips: bool,
    videos: dict[str, Path],
    computing: Computing,
    as_json: bool,
    weights: options.WeightsStore,
    data: options.DataFolders,
    quiet: bool,
) -> None:
    """Compute records' numbers again from what the records keep of each clip.

    RUNS are records that 'spfem-bench eval' wrote, or folders of them. Values,
    intervals and counts are computed from the clips' components, signatures from the
    settings, and items are compared with the protocol's list. A number that was edited
    does not follow from them, whatever the checksum says. What a record alone cannot
    show is named: FAD's values, and whether the components themselves are true. Then
    --clips computes everything from the clips (kept features are used).

    \b
    Examples:
      spfem-bench verify results/demo-inter-id
      spfem-bench verify results/*/*.json --json
      spfem-bench verify results/demo-inter-id/source.compact.json --clips
      spfem-bench verify results/stccl-page-ned/my-model.light.json --clips \\
        --videos my-model=outputs/

    Exit codes: 0 every record holds; 1 one does not, is damaged, or is no record; 2 wrong
    options.
    """  # noqa: D301
    from spfem_bench.analysis.record_diff import diff_with_clips
    from spfem_bench.errors import SpfemBenchError
    from spfem_bench.evaluation.record import NoRunError, record_files
    from spfem_bench.evaluation.verify import verify_file
    from spfem_bench.reporting.diff import diff_json, diff_text
    from spfem_bench.reporting.verify import verification_json, verification_text

    if videos and not clips:
        raise click.UsageError("--videos belongs to --clips")
    results, methods, holds = [], set[str](), True
    workers = options.workers_of(computing) if clips else None
    for path in record_files(runs):
        try:
            found = verify_file(path)
            methods.add(found.record.method.name)
            result = verification_json(str(path), found)
            text = verification_text(str(path), found)
            good = found.holds
            if workers:
                again = diff_with_clips(
                    found.record,
                    videos=videos.get(found.record.method.name),
                    folder=path.parent,
                    data=data,
                    weights=weights,
                    workers=workers,
                    computing=computing,
                    progress=options.progress(quiet),
                )
                good = good and again.holds
                result["clips"] = diff_json(again)
                text += f"\n{diff_text(again)}"
        except NoRunError:
            if path in runs:
                raise
            continue  # in a folder, the record of a validation
        except SpfemBenchError as error:
            result = {"record": str(path), "holds": False, "error": str(error)}
            where = "" if str(error).startswith(str(path)) else f"{path}: "
            text, good = f"{where}FAILS: {error}", False
        holds = holds and good
        results.append(result)
        if not as_json:
            click.echo(text)
    if as_json:
        click.echo(json.dumps(results, indent=1))
    if unknown := videos.keys() - methods:
        raise click.UsageError(f"--videos {min(unknown)}=…: no record here is of that method")
    if not holds:
        sys.exit(1)
