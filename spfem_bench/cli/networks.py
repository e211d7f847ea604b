"""``spfem-bench networks``: what is pinned, fetching it, checking it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from spfem_bench.cli import options

if TYPE_CHECKING:
    from spfem_bench.definitions.networks import NetworkCard


@click.group()
def networks() -> None:
    """List networks, fetch and verify their weights, begin your own."""


@networks.command("list")
@options.weights_dir
def list_(weights: options.WeightsStore) -> None:
    """List all networks and whether their weights are here."""
    options.print_table(*network_rows(weights))


@networks.command()
@click.argument("names", nargs=-1)
@click.option("--profile", help="All networks of a profile.")
@options.weights_dir
@options.quiet
def fetch(
    names: tuple[str, ...], profile: str | None, weights: options.WeightsStore, quiet: bool
) -> None:
    """Download weights into the cache and verify them.

    What is there and right is not fetched again; networks shipped with
    spfem-bench are only verified. A broken download goes on where it ended.
    A file whose SHA-256 nobody publishes is pinned to what comes first, or
    to what lies in --weights-dir, when its size and kind are right.
    Exit code 1, with what to do by hand, when a network cannot be fetched.
    Without NAMES, the networks of the profile 'light'.
    """
    from spfem_bench.errors import WeightsError
    from spfem_bench.networks.fetching import fetch_network
    from spfem_bench.pinned import discard_archives

    failed = False
    for card in _chosen(names, profile):
        for result in fetch_network(weights, card, not quiet, options.remarks(quiet)):
            wrong = isinstance(result, WeightsError)
            click.echo(f"{card.name}: {result}", err=wrong)
            failed = failed or wrong
    if failed:
        click.echo("Any other folder will do, if SPFEM_BENCH_WEIGHTS names it.", err=True)
        sys.exit(1)
    discard_archives(weights.cache)


@networks.command(short_help="Check the SHA-256 of weights.")
@click.argument("names", nargs=-1)
@click.option("--profile", help="All networks of a profile.")
@options.weights_dir
def verify(names: tuple[str, ...], profile: str | None, weights: options.WeightsStore) -> None:
    """Check the SHA-256 of weights; exit code 1 when one is missing or wrong."""
    from spfem_bench.networks.weights import remedy

    failed = False
    for card in _chosen(names, profile):
        checked = weights.check(card)
        failed = failed or bool(checked.problem)
        problem = f"{checked.problem}. {checked.remedy or remedy(card)}"
        click.echo(f"{card.name}: {problem if checked.problem else 'verified'}")
    sys.exit(1 if failed else 0)


@networks.command(short_help="Write a commented card that loads as it is.")
@options.begun_card("network", like="scrfd-500m")
def new(folder: Path, name: str, like: str) -> None:
    r"""Begin a network of your own in FOLDER, a folder of cards: a commented card that loads.

    Change the files and their SHA-256, then name the network in a profile.

    \b
    Example:
      spfem-bench networks new my-cards --name scrfd-2.5g --like scrfd-10g
    """
    from spfem_bench.definitions.cards import Kind
    from spfem_bench.definitions.networks import network_card

    path = options.new_card(Kind.NETWORK, network_card(like), folder, name)
    click.echo(
        f"Change it, then check it:\nexport SPFEM_BENCH_CARDS={folder}\n"
        f"spfem-bench networks verify {path.stem}",
        err=True,
    )


def _chosen(names: tuple[str, ...], profile: str | None) -> list[NetworkCard]:
    from spfem_bench.definitions.networks import network_card, profile_card

    if names and profile is None:
        return [network_card(n) for n in names]
    card = profile_card(profile or "light")
    chosen = [card.network(role) for role in card.roles]
    return chosen + [network_card(n) for n in names]


def network_rows(store: options.WeightsStore) -> tuple[list[str], list[list[str]]]:
    """Return the table of all networks: heads and rows."""
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.networks import network_card
    from spfem_bench.networks.weights import is_shipped

    rows = []
    for card in map(network_card, names(Kind.NETWORK)):
        known = sum(f.bytes or 0 for f in card.files)
        size = f"{known / 1e6:.1f} MB" if known else "?"
        state: str = store.check(card).state
        if state == "verified" and is_shipped(card):
            state = "verified, shipped"
        rows.append([card.name, card.role, size, state, card.title])
    return ["Network", "Role", "Size", "Weights", "Title"], rows
