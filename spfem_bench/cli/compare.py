"""``spfem-bench compare``."""

from __future__ import annotations

from pathlib import Path

import click

from spfem_bench.cli import options


@click.command(short_help="Compare runs clip by clip, with intervals.")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--baseline", default="", help="The method compared with; the first run's.")
@options.metrics
@options.flag("--by-emotion", help="Each emotion too, not the mean alone.")
@options.flag("--common", help="Where clips are missing, compare on those that both have.")
@options.flag(
    "--allow-versions",
    help="Compare also where versions of libraries or of ffmpeg differ; a note names them.",
)
@options.flag(
    "--count-controls",
    help="Correct p-values of methods for the controls shown too; otherwise controls are "
    "corrected for among themselves.",
)
@options.with_default(
    "--resamples",
    type=click.IntRange(1000, 1_000_000),
    default=10_000,
    help="Draws behind intervals and p-values.",
)
@options.formats
def compare(
    runs: tuple[Path, ...],
    baseline: str,
    metrics: list[str],
    by_emotion: bool,
    common: bool,
    allow_versions: bool,
    count_controls: bool,
    resamples: int,
    style: str,
) -> None:
    """Compare runs clip by clip: differences, intervals, and how many clips it would take.

    RUNS are records (or folders of them) that 'spfem-bench eval' wrote. Runs made in different
    ways are refused, with the settings that differ; a version of a library that a metric does
    not use is none of its settings. Speakers are drawn with all of their clips;
    p-values are corrected for all comparisons shown.

    \b
    Examples:
      spfem-bench compare results/demo-inter-id/source.compact.json \\
        results/demo-inter-id/blurred.compact.json
      spfem-bench compare results/mead-cross-id --baseline ned --by-emotion
      spfem-bench compare here/ned.light.json there/mine.light.json --allow-versions
    """  # noqa: D301
    from spfem_bench.analysis.comparing import compare_runs
    from spfem_bench.evaluation.record import load_all
    from spfem_bench.reporting.compare import render_comparison

    comparison = compare_runs(
        load_all(runs),
        baseline=baseline,
        metrics=metrics,
        by_emotion=by_emotion,
        common=common,
        allow_versions=allow_versions,
        count_controls=count_controls,
        resamples=resamples,
    )
    click.echo(render_comparison(comparison, style), nl=False)  # type: ignore[arg-type]
