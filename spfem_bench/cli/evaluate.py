"""``spfem-bench eval``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spfem_bench.cli import options
from spfem_bench.cli.own_clips import OwnOptions, check_options, make_protocol, own_options
from spfem_bench.definitions.computing import Computing

if TYPE_CHECKING:
    from spfem_bench.definitions.protocols import Protocol
    from spfem_bench.evaluation.outputs import Videos


@click.command("eval")
@options.several(
    "--method",
    "methods",
    type=options.Name("method", others=("controls",)),
    metavar="NAME",
    help="A published method, a control, or your own name; may be given several times. "
    "'controls' stands for all that a protocol has.",
)
@options.protocols("Which items to score: a name, or the path of a card (my-list.toml)")
@options.profile
@options.metrics
@options.several(
    "--videos",
    metavar="DIR|NAME=DIR",
    help="Your own outputs, one per item, named as the protocol expects. Beside other methods, "
    "say whose: NAME=DIR.",
)
@own_options
@click.option(
    "--layout",
    help="How the system that wrote them names outputs: ned, sserd, eat, dice-talk, icface, or a "
    "card of yours.",
)
@options.flag(
    "--dry-run",
    help="Only print which of the --videos or --generated is taken for what; nothing is written.",
)
@click.option(
    "--frame-rate", type=click.FloatRange(1, 1000), help="Of clips that are folders of frames."
)
@options.flag("--partial", help="Score what is there; headline numbers are marked as partial.")
@options.results
@options.computing()
@options.flag("--json", "as_json", help="Print the scores as a JSON list.")
@options.weights_dir
@options.data_dir
@options.quiet
@options.flag("-v", "--verbose", help="Name every file that is missing, refused or extra.")
def evaluate(
    methods: tuple[str, ...],
    protocols: tuple[str, ...],
    profile: str | None,
    metrics: list[str],
    videos: tuple[str, ...],
    own: OwnOptions,
    layout: str | None,
    dry_run: bool,
    frame_rate: float | None,
    partial: bool,
    results: Path,
    computing: Computing,
    as_json: bool,
    weights: options.WeightsStore,
    data: options.DataFolders,
    quiet: bool,
    verbose: bool,
) -> None:
    """Score methods on protocols.

    The default protocols are the embedded demo: clips of drawn puppets and
    small networks, both shipped with the package. A preflight first
    lists what is missing, extra or unreadable. Features are kept, so that a
    second run computes no network and a killed one goes on. The run record,
    from which 'spfem-bench table' draws, is written to
    RESULTS/PROTOCOL/METHOD.PROFILE.json (in half precision,
    METHOD.PROFILE.PRECISION.json).

    \b
    Examples:
      spfem-bench eval --method real --method source
      spfem-bench eval --method controls --protocol demo-inter-id
      spfem-bench eval --generated outputs/ --source sources/
      spfem-bench eval --generated outputs/ --source sources/ --reference refs/ --dry-run
      spfem-bench eval --method stccl-ned --protocol stccl-page-ned
      spfem-bench eval --method my-model --videos out/ --protocol stccl-page-ned
      spfem-bench eval --method a --videos a=out/a --method b --videos b=out/b --workers 2
      spfem-bench eval --method ned --protocol stccl-page-ned --metrics fad,csim --json -q
      spfem-bench eval --method ned --videos out/ --layout ned --protocol mead-cross-id --dry-run
      spfem-bench eval --method controls --ray local --workers 2

    Without --partial, a method with missing or refused clips gets no headline
    score and exit code 2.
    """  # noqa: D301
    options.when_interrupted(options.RESUMABLE)
    from spfem_bench.definitions.layouts import layout_card
    from spfem_bench.definitions.protocols import protocol as read_protocol
    from spfem_bench.errors import CardError
    from spfem_bench.evaluation import record as records
    from spfem_bench.evaluation import session
    from spfem_bench.evaluation.merging import save_beside
    from spfem_bench.evaluation.preflight import unavailable_lines
    from spfem_bench.files import check_writable
    from spfem_bench.reporting import evaluation as reporting

    command_line = click.get_current_context().get_parameter_source("protocols")
    chosen = command_line is click.core.ParameterSource.COMMANDLINE
    given = {"--protocol": chosen, "--videos": videos, "--layout": layout}
    check_options(own, methods, [option for option, value in given.items() if value])
    if (layout or (dry_run and not own.generated)) and not videos:
        raise click.UsageError("--layout and --dry-run are about --videos DIR: give it too")
    workers, progress = options.workers_of(computing), options.progress(quiet)
    if own.generated:
        _check_names(profile, metrics)
        with_own = make_protocol(
            own, methods, results, frame_rate, dry_run=dry_run, quiet=quiet, progress=progress
        )
        methods, protocols = tuple(with_own[0]), (with_own[1],)
    named = layout_card(layout) if layout else None
    try:
        folders = session.videos_by_method(videos, methods, frame_rate, named)
    except CardError as error:
        raise click.UsageError(error.problem) from None
    listed = [read_protocol(name) for name in dict.fromkeys(protocols)]
    if dry_run:
        _print_mappings(folders, listed, data, as_json)
        return
    if folders and not chosen:
        _check_demo(folders, listed, data)
    plans = session.make_plans(
        methods,
        listed,
        profile,
        data=data,
        weights=weights,
        metrics=metrics,
        videos=folders,
        workers=workers,
        progress=progress,
    )
    if not metrics:  # of one's own folders, what can be computed is computed
        own_plans = [plan for plan in plans if plan.protocol.dataset.folders and plan.metrics]
        options.print_notes(dict.fromkeys(line for p in own_plans for line in unavailable_lines(p)))
        plans = [p.without_unavailable() if p.protocol.dataset.folders else p for p in plans]
    options.print_notes(dict.fromkeys(p.note for p in plans if p.note and not quiet))
    several = len(methods) > 1 or methods == ("controls",)
    half = "" if computing.precision == "float32" else f".{computing.precision}"
    ready, paths = [], []
    shown = [plan for plan in plans if not quiet or not (plan.complete or partial)]
    options.print_notes(reporting.preflight_lines(shown, verbose=verbose))
    for plan in plans:
        if not plan.complete and not partial:
            click.echo("No headline score: add --partial to score what is there.", err=True)
        elif plan.metrics:
            profile_name = plan.profile.name + half
            path = records.record_path(results, plan.protocol.name, plan.method.name, profile_name)
            check_writable(path.parent)
            ready.append(plan)
            paths.append(path)
    incomplete = len(ready) < len(plans)
    options.print_notes([] if quiet else session.package_conflicts(ready))
    runs: dict[str, list[records.RunRecord]] = {}  # by protocol
    carried = session.carry_out(
        ready, weights, computing, workers=workers, partial=partial, progress=progress
    )
    for n, (plan, path, record) in enumerate(zip(ready, paths, carried, strict=True)):
        _, remark = save_beside(record, path)
        options.print_notes([remark] if remark and not quiet else [])
        incomplete = incomplete or not record.metrics or not (record.complete or partial)
        options.print_notes([] if quiet and partial else reporting.refusal_lines(plan, record))
        name = plan.protocol.name
        runs.setdefault(name, []).append(record)
        if as_json:
            continue
        if not several:
            click.echo(reporting.run_text(plan, record))
            if not quiet:
                options.print_notes(f"Note: {note}" for note in plan.protocol.card.notes)
                click.echo(f"Record: {path}   Full table: spfem-bench table {path}", err=True)
        elif all(other.protocol.name != name for other in ready[n + 1 :]):
            # A protocol's table is printed while the next one's features are computed.
            click.echo(reporting.runs_text(runs[name]))
            if not quiet:
                click.echo(f"With intervals: spfem-bench table {results / name}", err=True)
    if as_json:
        scores = [score for of_protocol in runs.values() for r in of_protocol for score in r.scores]
        click.echo(json.dumps([score.plain() for score in scores], indent=1))
    if incomplete:
        sys.exit(2)


def _check_names(profile: str | None, metrics: Sequence[str]) -> None:
    """Raise UnknownNameError for a profile or metric that is not there, before clips are read."""
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.metrics import metric_card
    from spfem_bench.definitions.networks import profile_card
    from spfem_bench.errors import listed_name

    if profile:
        profile_card(profile)
    for name in metrics:
        metric_card(listed_name(name, names(Kind.METRIC)))


def _check_demo(
    folders: Mapping[str, Videos], protocols: Sequence[Protocol], data: options.DataFolders
) -> None:
    """Raise UsageError for a folder of outputs that has none for the demo, the default."""
    from spfem_bench.evaluation.outputs import find_outputs

    for own in folders.values():
        items = [
            place
            for protocol in protocols
            for place in find_outputs(own, protocol, data.provider(protocol.dataset))[0]
        ]
        if all(place.state == "absent" for place in items):
            raise click.UsageError(
                f"nothing in {own.folder} is named after an item of the demo, which is scored "
                "without --protocol. For your own clips: spfem-bench eval --generated "
                f"{own.folder} --source DIR"
            )


def _print_mappings(
    videos: Mapping[str, Videos],
    protocols: Sequence[Protocol],
    data: options.DataFolders,
    as_json: bool,
) -> None:
    """Print which output is taken for which item; exit code 2 when some are not found."""
    from spfem_bench.evaluation.outputs import place_outputs
    from spfem_bench.reporting import evaluation as reporting

    complete = True
    for protocol in protocols:
        provider = data.provider(protocol.dataset)
        for own in videos.values():
            placed, extra = place_outputs(own, protocol, provider)
            complete = complete and all(p.state == "found" for p in placed)
            if as_json:
                content = reporting.mapping_json(protocol.name, placed, extra)
                click.echo(json.dumps(content, indent=1))
                continue
            click.echo(f"{own.folder} for {protocol.name}:")
            click.echo(reporting.mapping_text(placed, extra))
            options.print_notes(reporting.mapping_problems(placed))
    if not complete:
        sys.exit(2)
