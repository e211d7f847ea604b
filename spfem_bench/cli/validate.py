"""``spfem-bench validate``."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import click

from spfem_bench.cli import options
from spfem_bench.definitions.computing import Computing


@click.command(short_help="Test whether the metrics react as they claim.")
@options.protocols("Whose clips to spoil")
@options.profile
@click.option(
    "--controls",
    default="",
    callback=options.split_names,
    help="Comma-separated graded controls; all that the protocol has when not given.",
)
@options.metrics
@options.flag("--partial", help="Judge by the clips and networks that are there; some are missing.")
@click.option(
    "-o",
    "--output",
    type=options.FIGURE,
    help="Draw a figure: .png, .pdf or .svg. With several protocols, one for each.",
)
@options.results
@options.computing("workers", "ray", "batch_size", "device")
@options.formats
@options.flag("--json", "as_json", help="Print all cells as a JSON list.")
@options.weights_dir
@options.data_dir
@options.quiet
def validate(
    protocols: tuple[str, ...],
    profile: str | None,
    controls: list[str],
    metrics: list[str],
    partial: bool,
    output: Path | None,
    results: Path,
    computing: Computing,
    style: str,
    as_json: bool,
    weights: options.WeightsStore,
    data: options.DataFolders,
    quiet: bool,
) -> None:
    """Test the metrics: do they react to what they claim to measure, and only to that?

    Real clips are spoilt step by step in ways with a known answer (blurred, the
    sound shifted, the mouth frozen, ...). A metric's card claims what it must
    react to and what it should ignore; each claim gets a verdict.

    \b
    Must react:
      yes           worse at the strongest level, step by step
      not monotone  worse, but a step goes back beyond noise, by more than a
                    tenth of the move, or the rank correlation of level and
                    harm is below 0.8
      no answer     no change beyond noise
      wrong way     better at the strongest level
      misreads      (AV offset) not the shift that was made, within one frame
    Should ignore, by its largest move in the metric's largest claimed one:
      hardly        below 10 %
      somewhat      below 33 %
      moves         33 % or more

    Noise is the 95 % interval of the change over clips, the same clips drawn at
    both levels. All values go to RESULTS/PROTOCOL/validate.PROFILE.json.
    Features are kept, so that an interrupted run goes on.

    \b
    Examples:
      spfem-bench validate --protocol demo-inter-id -o validate.png
      spfem-bench validate --protocol stccl-page-ned --profile light --partial
      spfem-bench validate --controls blurred,shifted-audio --metrics fad --format csv

    Exit codes: 0 every claim holds; 1 a claim does not, which is said, or an
    error; 2 wrong options, or clips or weights are missing and no --partial.
    """  # noqa: D301
    from spfem_bench.definitions.networks import profile_card
    from spfem_bench.definitions.protocols import protocol as read_protocol
    from spfem_bench.errors import UnknownNameError
    from spfem_bench.evaluation import record as records
    from spfem_bench.evaluation import session
    from spfem_bench.evaluation.validate import plan_validation, run_validation
    from spfem_bench.files import check_writable
    from spfem_bench.reporting import validation as reporting
    from spfem_bench.reporting.validation_figure import save_figure

    options.when_interrupted(options.RESUMABLE)
    workers, progress = options.workers_of(computing), options.progress(quiet)
    plans = []
    try:
        for protocol in [read_protocol(name) for name in dict.fromkeys(protocols)]:
            networks = profile_card(profile or protocol.card.profile)
            plan = plan_validation(
                protocol,
                networks,
                data=data,
                weights=weights,
                controls=controls,
                metrics=metrics,
                progress=progress,
            )
            plans.append(plan)
    except UnknownNameError as error:  # exit code 1 means that a claim does not hold
        raise click.UsageError(str(error)) from None
    options.print_notes([] if quiet else session.package_conflicts(plans))
    cells, failed, incomplete = [], [], False
    for plan in plans:
        name = plan.protocol.name
        judged = bool(plan.metrics and plan.controls) and (plan.complete or partial)
        findings = plan.summary()
        if findings and (not quiet or not judged):
            click.echo("\n  ".join([f"{name}, before any network runs:", *findings]), err=True)
        if not judged:
            if not plan.complete and not partial:
                click.echo("No verdicts: add --partial to judge by what is there.", err=True)
            incomplete = True
            continue
        path = records.record_path(results, name, records.VALIDATION, plan.profile.name)
        figure = output
        if output and len(plans) > 1:
            figure = output.with_name(f"{output.stem}.{name}{output.suffix}")
        for file in filter(None, (path, figure)):
            check_writable(file.parent)
        extractor = session.make_extractor(plan, weights, computing, progress=progress)
        record = run_validation(plan, extractor, workers=workers, progress=progress)
        records.save(record, path)
        own = reporting.cells_of(record)
        cells += own
        failed += [f"{name}: {line}" if len(plans) > 1 else line for line in record["failed"]]
        incomplete = incomplete or not any(c.points for c in own)
        if figure:
            save_figure(record, figure)
        if not as_json and style != "csv":
            click.echo(reporting.printed(record, style))  # type: ignore[arg-type]
        if not quiet:
            options.print_notes(f"Note: {note}" for note in plan.protocol.card.notes)
            drawn = f"   Figure: {figure}" if figure else ""
            click.echo(f"Record: {path}{drawn}", err=True)
    if as_json:
        click.echo(json.dumps([asdict(c) for c in cells], indent=1))
    elif style == "csv":
        click.echo(reporting.table(cells, "csv"), nl=False)
    for line in failed:
        click.echo(line, err=as_json or style == "csv")
    if incomplete or failed:
        sys.exit(2 if incomplete else 1)
