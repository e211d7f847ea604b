"""``spfem-bench list``."""

from __future__ import annotations

from textwrap import fill

import click

from spfem_bench.cli import options


@click.command("list", short_help="List methods, protocols, metrics and so on.")
@click.argument(
    "what",
    type=click.Choice(["methods", "protocols", "metrics", "networks", "profiles", "layouts"]),
)
def list_(what: str) -> None:
    """List methods, protocols and so on, with what a user must know of each."""
    tables = {
        "methods": _methods,
        "protocols": _protocols,
        "metrics": _metrics,
        "networks": _networks,
        "profiles": _profiles,
        "layouts": _layouts,
    }
    options.print_table(*tables[what]())


def _methods() -> tuple[list[str], list[list[str]]]:
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.methods import method_card
    from spfem_bench.definitions.protocols import ready_protocols
    from spfem_bench.definitions.published import published_counts
    from spfem_bench.evaluation.controls import methods_with_clips

    with_clips = {one.name: methods_with_clips(one) for one in ready_protocols()}
    published, rows = published_counts(), []
    for card in map(method_card, names(Kind.METHOD)):
        where = [name for name, methods in with_clips.items() if card.name in methods]
        if len(where) == len(with_clips):
            where = ["every protocol"]
        facts = [card.name, ", ".join(card.aliases), card.kind, card.paper, card.link]
        rows.append([*facts, str(published[card.name] or ""), "\n".join(where) or "–"])
    return ["Method", "Also", "Kind", "Paper", "Code or paper", "Numbers", "Clips in"], rows


def _protocols() -> tuple[list[str], list[list[str]]]:
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.protocols import load_protocol, protocol

    rows = []
    for card in map(load_protocol, names(Kind.PROTOCOL)):
        count = str(len(protocol(card.name).items)) if card.is_ready else "not solved"
        metrics = [*card.metrics, *(f"({name})" for name in card.on_request)]
        facts = [card.setting, count, str(len(card.emotions))]
        lists = (
            fill(", ".join(names_), 36, break_on_hyphens=False)
            for names_ in (metrics, card.outputs)
        )
        rows.append([card.name, str(card.version), *facts, *lists])
    return ["Protocol", "Version", "Setting", "Clips", "Emotions", "Metrics", "Methods"], rows


def _metrics() -> tuple[list[str], list[list[str]]]:
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.metrics import metric_card

    better = {"lower": "lower", "higher": "higher", "zero": "nearer 0"}
    rows = []
    for card in map(metric_card, names(Kind.METRIC)):
        facts = [card.name, card.label, better[card.direction], card.unit, card.role]
        rows.append([*facts, " to ".join(card.compare), card.title])
    return ["Metric", "Printed as", "Better", "Unit", "Network", "Compares", "Title"], rows


def _layouts() -> tuple[list[str], list[list[str]]]:
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.layouts import layout_card

    cards = [layout_card(name) for name in names(Kind.LAYOUT)]
    return ["Layout", "Outputs", "What you have to do"], [
        [card.name, "\n".join(card.places), fill(card.must, 60)] for card in cards
    ]


def _profiles() -> tuple[list[str], list[list[str]]]:
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.networks import profile_card
    from spfem_bench.definitions.protocols import load_protocol

    of_profile: dict[str, list[str]] = {}
    for name in names(Kind.PROTOCOL):
        of_profile.setdefault(load_protocol(name).profile, []).append(name)
    rows = []
    for card in map(profile_card, names(Kind.PROFILE)):
        networks = "\n".join(f"{role}: {getattr(card, role)}" for role in card.roles)
        used = "\n".join(of_profile.get(card.name, ["–"]))
        rows.append([card.name, fill(card.title, 40), networks, used])
    return ["Profile", "Title", "Networks", "Used by default in"], rows


def _networks() -> tuple[list[str], list[list[str]]]:
    from spfem_bench.cli.networks import network_rows
    from spfem_bench.networks.weights import WeightsStore

    return network_rows(WeightsStore.locate())
