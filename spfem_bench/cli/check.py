"""``spfem-bench check``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import click

from spfem_bench.cli import options
from spfem_bench.definitions.computing import Computing


@click.command(short_help="Make reference numbers again and compare them.")
@click.argument("names", nargs=-1)
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
    update: bool,
    reason: str | None,
    cached: bool,
    computing: Computing,
    as_json: bool,
    weights: options.WeightsStore,
    data: options.DataFolders,
    quiet: bool,
) -> None:
    """Make reference numbers again and compare them with reference_results/measured/.

    Clips are generated and features computed anew, then evaluated as always. All
    sets are checked when none is named. A number that left its tolerance is
    shown beside its reference, with the settings that differ.

    \b
    Examples:
      spfem-bench check
      spfem-bench check demo --workers 2
      spfem-bench check demo --update --reason "fad 2: embeddings of length 1"

    Exit codes: 0 all numbers hold; 1 a number moved, a row is missing or new, or
    a card that makes numbers was changed; 2 wrong options.
    """  # noqa: D301
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
