"""``spfem-bench check``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import click

from spfem_bench.cli import options
from spfem_bench.definitions.computing import Computing


@click.command(short_help="Check reference numbers, or your model against an earlier record.")
@click.argument("names", nargs=-1)
@click.option(
    "--against",
    metavar="RECORD",
    type=options.File(".json"),
    help="Compare the one record named with this earlier one.",
)
@options.tolerances
@click.option("--junit", type=options.File(".xml"), help="With --against: also write JUnit XML.")
@options.flag("--update", help="Put the numbers of here in the place of the reference.")
@click.option("--reason", help="With --update: why they moved; it is kept with the numbers.")
@options.flag(
    "--cached",
    help="Use generated clips and features of earlier runs: quick, but blind to changed code.",
)
@options.computing("workers")
@options.flag("--json", "as_json", help="Print every row and change as JSON.")
@options.weights_dir
@options.data_dir
@options.quiet
def check(
    names: tuple[str, ...],
    against: Path | None,
    tolerances: dict[str, float],
    junit: Path | None,
    update: bool,
    reason: str | None,
    cached: bool,
    computing: Computing,
    as_json: bool,
    weights: options.WeightsStore,
    data: options.DataFolders,
    quiet: bool,
) -> None:
    """Make reference numbers again and compare them; or check your own model for a regression.

    Without --against: clips are generated and features computed anew, then
    evaluated as always, and compared with reference_results/measured/. All sets
    are checked when none is named. A number that left its tolerance is shown
    beside its reference, with the settings that differ.

    With --against: NAMES is the record of a new evaluation, RECORD that of an
    earlier one, of one method on one protocol. An average that became worse by
    more than --tolerance fails; one that became better does not. Without
    --tolerance, numbers must be equal as printed. 'diff' compares every number.

    \b
    Examples:
      spfem-bench check
      spfem-bench check demo --workers 2
      spfem-bench check demo --update --reason "fad 2: embeddings of length 1"
      spfem-bench check results/outputs/outputs.light.json --against baseline.json \\
        --tolerance fad=0.5 --tolerance csim=0.01 --junit regression.xml

    Exit codes: 0 all numbers hold; 1 a number moved (with --against: became worse),
    a row is missing or new, or a card that makes numbers was changed; 2 wrong
    options, or records that cannot be compared.
    """  # noqa: D301
    if against:
        _check_record(names, against, tolerances, junit, as_json)
        return
    if tolerances or junit:
        raise click.UsageError("--tolerance and --junit belong to --against")
    from spfem_bench import provenance
    from spfem_bench.definitions import cards, measured
    from spfem_bench.definitions.cards import Kind
    from spfem_bench.evaluation import check as checking
    from spfem_bench.features.store import FeatureStore
    from spfem_bench.files import temporary_folder
    from spfem_bench.reporting.check import check_json, check_text

    reason = " ".join((reason or "").split())
    if update and not reason:
        raise click.UsageError('--update needs --reason "why the numbers moved"')
    if reason and not update:
        raise click.UsageError("--reason belongs to --update")
    if not reason.isprintable():
        raise click.UsageError("--reason holds characters that cannot be printed")
    sets = [measured.measured_card(n) for n in dict.fromkeys(names or cards.names(Kind.MEASURED))]
    references = {}
    for card in sets:  # every mistake is found before any work
        if update:
            checking.check_rewritable(card)
        else:
            references[card.name] = measured.read_rows(card), measured.read_settings(card)
    checks = []
    options.when_interrupted("Interrupted: nothing was rewritten.")
    workers, progress = options.workers_of(computing), options.progress(quiet)
    for card in sets:
        with temporary_folder() as fresh:
            here = checking.recompute(
                card,
                weights=weights,
                data=replace(data, renders=None if cached else fresh),
                store=FeatureStore.locate(None if cached else fresh / "features"),
                workers=workers,
                computing=computing,
                progress=progress,
            )
        if update:
            checking.rewrite(card, here, reason)
            if not quiet:
                click.echo(f"{card.values_path}: {len(here.rows)} rows", err=True)
            continue
        if not quiet:
            options.print_notes(provenance.rival_packages(here.settings.get("software", {})))
        compared = references[card.name]
        checks.append(checking.check_reference(card.name, card.tolerance, *compared, here))
        if not as_json:
            click.echo(check_text(checks[-1]))
    if as_json:
        click.echo(json.dumps([check_json(c) for c in checks], indent=1))
    if not all(c.holds for c in checks):
        sys.exit(1)


def _check_record(
    names: tuple[str, ...],
    against: Path,
    tolerances: dict[str, float],
    junit: Path | None,
    as_json: bool,
) -> None:
    """Compare a record with an earlier one, and exit."""
    from spfem_bench.analysis.regression import check_regression
    from spfem_bench.errors import SpfemBenchError
    from spfem_bench.evaluation.record import load_run
    from spfem_bench.files import write_atomically
    from spfem_bench.reporting.regression import (
        regression_json,
        regression_junit,
        regression_text,
    )

    if len(names) != 1:
        given = f"{len(names)} were given" if names else "none was given"
        raise click.UsageError(f"--against compares one record with RECORD; {given}")
    try:
        found = check_regression(load_run(against), load_run(Path(names[0])), tolerances)
    except SpfemBenchError as error:  # 1 is for numbers that became worse
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)
    if junit:
        write_atomically(junit, regression_junit(found))
    click.echo(json.dumps(regression_json(found), indent=1) if as_json else regression_text(found))
    if not found.holds:
        sys.exit(1)
