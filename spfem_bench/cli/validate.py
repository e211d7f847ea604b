"""``spfem-bench validate``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spfem_bench.cli import options

if TYPE_CHECKING:
    from spfem_bench.evaluation.validate import Validation
    from spfem_bench.execution.local import Workers
    from spfem_bench.features.extract import Extractor


@click.command()
@options.protocols("Whose clips to spoil")
@options.profile
@click.option(
    "--controls",
    default="",
    help="Comma-separated graded controls; all that the protocol has when not given.",
)
@options.metrics
@click.option(
    "--partial",
    is_flag=True,
    help="Judge by the clips and networks that are there; some are missing.",
)
@click.option(
    "-o",
    "--output",
    type=options.FIGURE,
    help="Draw a figure: .png, .pdf or .svg. With several protocols, one for each.",
)
@options.results
@options.workers_on_ray
@options.ray
@options.batch_size
@options.device
@options.formats
@click.option("--json", "as_json", is_flag=True, help="Print all cells as a JSON list.")
@options.weights_dir
@options.data_dir
@options.quiet
def validate(
    protocols: tuple[str, ...],
    profile: str | None,
    controls: str,
    metrics: list[str],
    partial: bool,
    output: Path | None,
    results: Path,
    workers: int | None,
    ray: str | None,
    batch_size: int | None,
    device: str,
    style: str,
    as_json: bool,
    weights_dir: Path | None,
    data_dir: Path | None,
    quiet: bool,
) -> None:
    """Test the metrics: do they feel what they claim to measure, and only that?

    Real clips are spoilt step by step in ways with a known answer (blurred, the
    sound shifted, the mouth frozen, ...). A metric's card claims what it must
    feel and what it should ignore; each claim gets a verdict.

    \b
    Must feel:
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
    import json
    from dataclasses import asdict

    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.definitions.networks import profile_card
    from spfem_bench.definitions.protocols import protocol as read_protocol
    from spfem_bench.errors import UnknownNameError
    from spfem_bench.evaluation import record as records
    from spfem_bench.evaluation.session import make_extractor, rival_packages
    from spfem_bench.evaluation.validate import plan_validation
    from spfem_bench.files import check_writable
    from spfem_bench.networks.weights import WeightsStore
    from spfem_bench.reporting import validation as reporting

    team = options.team(ray, workers, device)
    weights, data = WeightsStore.locate(weights_dir), DataFolders.locate(data_dir)
    try:
        listed = [read_protocol(name) for name in dict.fromkeys(protocols)]
        chosen = [(one, profile_card(profile or one.card.profile)) for one in listed]
        plans = [
            plan_validation(
                protocol,
                networks,
                data=data,
                weights=weights,
                controls=options.names(controls),
                metrics=metrics,
                rendering=options.progress(quiet),
            )
            for protocol, networks in chosen
        ]
    except UnknownNameError as error:  # 1 is for claims that do not hold
        raise click.UsageError(str(error)) from None
    except KeyboardInterrupt:
        options.interrupted()
    for line in [] if quiet else rival_packages(plans):
        click.echo(line, err=True)
    cells, failed, untold = [], [], False
    for plan in plans:
        name = plan.protocol.name
        judges = bool(plan.metrics and plan.trials) and (plan.complete or partial)
        found = plan.summary()
        if found and (not quiet or not judges):
            click.echo(f"{name}, before any network runs:", err=True)
            for line in found:
                click.echo(f"  {line}", err=True)
        if not judges:
            if not plan.complete and not partial:
                click.echo("No verdicts: add --partial to judge by what is there.", err=True)
            untold = True
            continue
        path = records.record_path(results, name, records.VALIDATION, plan.profile.name)
        picture = _picture(output, name, several=len(plans) > 1)
        for folder in (path.parent, *([picture.parent] if picture else [])):
            check_writable(folder)
        extractor = make_extractor(plan, weights, batch_size=batch_size, device=device)
        record = _run(plan, extractor, team, quiet)
        records.save(record, path)
        own = reporting.cells_of(record)
        cells += own
        failed += [f"{name}: {line}" if len(plans) > 1 else line for line in record["failed"]]
        untold = untold or not any(c.points for c in own)
        if picture:
            from spfem_bench.reporting.validation_figure import save_figure

            save_figure(record, picture)
        if not as_json and style != "csv":
            click.echo(reporting.printed(record, style))  # type: ignore[arg-type]
        if not quiet:
            for note in plan.protocol.card.notes:
                click.echo(f"Note: {note}", err=True)
            drawn = f"   Figure: {picture}" if picture else ""
            click.echo(f"Record: {path}{drawn}", err=True)
    if as_json:
        click.echo(json.dumps([asdict(c) for c in cells], indent=1))
    elif style == "csv":
        click.echo(reporting.table(cells, "csv"), nl=False)
    for line in failed:
        click.echo(line, err=as_json or style == "csv")
    if untold:
        sys.exit(2)
    if failed:
        sys.exit(1)


def _picture(output: Path | None, protocol: str, *, several: bool) -> Path | None:
    """Return where a protocol's figure goes: its name is put in when there are several."""
    if output is None or not several:
        return output
    return output.with_name(f"{output.stem}.{protocol}{output.suffix}")


def _run(plan: Validation, extractor: Extractor, workers: Workers, quiet: bool) -> dict[str, Any]:
    """Carry a validation out under bars for clips, frames, crops and levels."""
    from dataclasses import replace

    from tqdm import tqdm

    from spfem_bench.evaluation.validate import validate as run
    from spfem_bench.evaluation.validate import wanted

    if not quiet:
        n_clips = len(wanted(plan, extractor)[0])
        extractor = replace(extractor, progress=options.progress_bars(n_clips, quiet=False))
    total = len(plan.metrics) * sum(len(t.plans) for t in plan.trials)
    levels = tqdm(
        total=total,
        desc="levels  ",
        unit="level",
        position=3,
        leave=False,
        disable=True if quiet else None,
    )
    try:
        return run(plan, extractor, workers=workers, graded=lambda: levels.update(1))
    except KeyboardInterrupt:
        options.interrupted()
    finally:
        levels.close()
        extractor.progress.close()
