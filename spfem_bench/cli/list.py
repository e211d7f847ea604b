"""``spfem-bench list``."""

from __future__ import annotations

from textwrap import fill

import click


@click.command("list")
@click.argument(
    "what", type=click.Choice(["methods", "protocols", "metrics", "networks", "layouts"])
)
def list_(what: str) -> None:
    """List methods, protocols and so on, with what a user must know of each."""
    from tabulate import tabulate

    heads, rows = {
        "methods": _methods,
        "protocols": _protocols,
        "metrics": _metrics,
        "networks": _networks,
        "layouts": _layouts,
    }[what]()
    click.echo(tabulate(rows, heads, disable_numparse=True))


def _methods() -> tuple[list[str], list[list[str]]]:
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.methods import method_card
    from spfem_bench.definitions.protocols import protocol
    from spfem_bench.definitions.published import published_counts
    from spfem_bench.evaluation.controls import controls

    where: dict[str, list[str]] = {}
    protocols = names(Kind.PROTOCOL)
    for name in protocols:
        one = protocol(name)
        for method in (*one.card.outputs, *(c.name for c in controls(one))):
            where.setdefault(method, []).append(name)
    published = published_counts()
    rows = []
    for name in names(Kind.METHOD):
        card = method_card(name)
        found = where.get(name, [])
        if found == protocols:
            found = ["every protocol"]
        printed = str(published[name]) if published[name] else ""
        rows.append(
            [
                name,
                ", ".join(card.aliases),
                card.kind,
                card.paper,
                card.link,
                printed,
                "\n".join(found) or "–",
            ]
        )
    return ["Method", "Also", "Kind", "Paper", "Code or paper", "Numbers", "Clips in"], rows


def _protocols() -> tuple[list[str], list[list[str]]]:
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.protocols import protocol

    rows = []
    for name in names(Kind.PROTOCOL):
        found = protocol(name)
        card = found.card
        metrics = [*card.metrics, *(f"({name})" for name in card.on_request)]
        rows.append(
            [
                name,
                str(card.version),
                card.setting,
                str(len(found.items)),
                str(len(card.emotions)),
                ", ".join(metrics),
                ", ".join(card.outputs),
            ]
        )
    return ["Protocol", "Version", "Setting", "Clips", "Emotions", "Metrics", "Methods"], rows


def _metrics() -> tuple[list[str], list[list[str]]]:
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.metrics import metric_card

    better = {"lower": "lower", "higher": "higher", "zero": "nearer 0"}
    rows = []
    for name in names(Kind.METRIC):
        card = metric_card(name)
        rows.append(
            [
                name,
                card.label,
                better[card.direction],
                card.unit,
                card.role,
                " to ".join(card.compare),
                card.title,
            ]
        )
    return ["Metric", "Printed as", "Better", "Unit", "Network", "Compares", "Title"], rows


def _layouts() -> tuple[list[str], list[list[str]]]:
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.layouts import layout_card

    cards = [layout_card(name) for name in names(Kind.LAYOUT)]
    return ["Layout", "Outputs", "What you have to do"], [
        [card.name, "\n".join(card.places), fill(card.must, 60)] for card in cards
    ]


def _networks() -> tuple[list[str], list[list[str]]]:
    from spfem_bench.cli.networks import network_rows
    from spfem_bench.networks.weights import WeightsStore

    return network_rows(WeightsStore.locate())
