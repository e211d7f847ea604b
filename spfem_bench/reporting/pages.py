"""Cards as pages of the documentation."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from spfem_bench.definitions.cards import Card, Kind, names
from spfem_bench.definitions.datasets import DatasetCard, dataset_card, dataset_files
from spfem_bench.definitions.layouts import layout_card
from spfem_bench.definitions.methods import MethodCard, method_card
from spfem_bench.definitions.networks import NetworkCard, network_card, profile_card
from spfem_bench.definitions.protocols import Protocol, ProtocolCard, protocol
from spfem_bench.definitions.published import published_cards, read_tidy
from spfem_bench.evaluation.controls import controls
from spfem_bench.networks.weights import is_shipped


def protocols() -> dict[str, str]:
    """Return a page in Markdown for each protocol, by its name."""
    return {name: protocol_page(protocol(name)) for name in names(Kind.PROTOCOL)}


def registry() -> dict[str, str]:
    """Return the pages in Markdown that list all other cards, by the page's name."""
    return {
        "networks": _networks(),
        "methods": _methods(),
        "datasets": _datasets(),
        "layouts": _layouts(),
        "published": _published(),
    }


def protocol_page(listed: Protocol) -> str:
    """Return one protocol's page in Markdown: its card, and counts of its list."""
    card = listed.card
    dataset = dataset_card(card.dataset)
    emotions = Counter(item.emotion for item in listed.items)
    speakers = Counter(item.speaker for item in listed.items)
    facts = {
        "Name, version": f"`{card.name}`, {card.version}",
        "Setting": card.setting,
        "Items": str(len(listed.items)),
        "Emotions": _counts({e: emotions[e] for e in card.emotions}),
        "Speakers": _counts(dict(sorted(speakers.items()))),
        "Data set": f"[`{dataset.name}`](../registry/datasets.md#{dataset.name}): "
        f"{_words(dataset.title)}",
        "Source clip": _clip(card, "source"),
        "Reference clip": _clip(card, "reference"),
        "Real clips, for FAD": _real(card),
        "Faces": "found and followed" if card.faces == "detect" else "crops already",
        "Profile, unless another is named": f"`{card.profile}`",
        "Metrics": _metric_links(card.metrics),
        "Metrics on request": _metric_links(card.on_request),
        "Outputs there": ", ".join(f"`{m}`" for m in card.outputs) or "none: score your own",
        "Output expected of your own": f"`{card.output_name}`",
        "Published rows beside it": _rows_beside(card),
        "Citation": _words(card.citation),
    }
    parts = [
        f"# {_words(card.title)}",
        _words(card.description),
        _facts(facts),
        "## What may be concluded",
        _words(card.shows),
        "## What may not",
        _words(card.hides),
        *_notes(card),
    ]
    if card.not_applicable:
        reasons = ([f"`{name}`", _words(why)] for name, why in card.not_applicable.items())
        parts += ["## Metrics it cannot have", _table(["metric", "why"], reasons)]
    fetch = [f"spfem-bench data fetch {dataset.name}"] if dataset.url else []
    profile = profile_card(card.profile)
    if not all(is_shipped(profile.network(role)) for role in profile.roles):
        fetch.append(f"spfem-bench networks fetch --profile {profile.name}")
    methods = " ".join(f"--method {m}" for m in (*card.outputs, "source"))
    evaluate = f"spfem-bench eval --protocol {card.name} {methods}"
    parts += ["## Example", _code(*fetch, evaluate, f"spfem-bench table results/{card.name}")]
    return _page(parts)


def _networks() -> str:
    parts = [
        "# Networks and profiles",
        "The pretrained networks that metrics look through, and the profiles that choose among "
        "them. Weights are known by their SHA-256, which is checked before each load.",
        "## Profiles",
    ]
    for profile in map(profile_card, names(Kind.PROFILE)):
        roles = {role: f"`{profile.network(role).name}`" for role in profile.roles}
        parts += [
            *_head(3, profile),
            _table(["role", "network"], roles.items()),
            _code(f"spfem-bench networks fetch --profile {profile.name}"),
        ]
    parts.append("## Networks")
    for name in names(Kind.NETWORK):
        parts += _network(network_card(name))
    return _page(parts)


def _network(card: NetworkCard) -> list[str]:
    facts = {
        "Role": card.role,
        "Architecture": f"`{card.architecture}`",
        "Outputs": ", ".join(f"{key} ({size})" for key, size in card.outputs.items()) or "faces",
        "Input": ", ".join(f"{key} {value}" for key, value in card.input.settings().items()),
        "Source": _words(card.source),
        "Licence": _words(card.licence),
        "Citation": _words(card.citation),
    }
    files = ([f"`{f.name}`", f"`{f.sha256}`"] for f in card.files)
    command = "verify" if is_shipped(card) else "fetch"
    return [
        *_head(3, card),
        _facts(facts),
        _table(["file", "SHA-256"], files),
        *_notes(card),
        _code(f"spfem-bench networks {command} {card.name}"),
    ]


def _methods() -> str:
    published = {n.method for card in published_cards() for n in read_tidy(card.values_path)[0]}
    protocols_of: dict[str, list[str]] = {}
    for listed in map(protocol, names(Kind.PROTOCOL)):
        for method in (*listed.card.outputs, *(control.name for control in controls(listed))):
            protocols_of.setdefault(method, []).append(listed.name)
    cards = [method_card(name) for name in names(Kind.METHOD)]
    parts = [
        "# Methods",
        "Who made the clips: systems of the field, and controls whose answer is known.",
        "## Systems",
    ]
    for card in (c for c in cards if c.kind == "system"):
        facts = {
            "Paper": _words(card.paper),
            "Code": f"<{card.link}>" if card.link else "none published",
            "Published rows": "yes" if {card.name, *card.aliases} & published else "none here",
        }
        parts += _method(card, facts, protocols_of.get(card.name, []))
    parts.append("## Controls")
    for card in (c for c in cards if c.control):
        control = card.control.settings() if card.control else {}
        facts = {k: _plain(v) for k, v in control.items()}
        parts += _method(card, facts, protocols_of.get(card.name, []))
    return _page(parts)


def _method(card: MethodCard, facts: Mapping[str, str], protocol_names: Sequence[str]) -> list[str]:
    rows = {
        "Printed as": _words(card.label),
        "Also": ", ".join(f"`{alias}`" for alias in card.aliases),
        **facts,
        "Clips in": _protocol_links(protocol_names),
    }
    clips = f"--protocol {protocol_names[0]}" if protocol_names else "--videos outputs/"
    command = f"spfem-bench eval --method {card.name} {clips}"
    return [*_head(3, card), _facts(rows), _code(command)]


def _datasets() -> str:
    parts = ["# Data sets", "The clips that protocols stand on."]
    for card in map(dataset_card, names(Kind.DATASET)):
        used = [n for n in names(Kind.PROTOCOL) if protocol(n).card.dataset == card.name]
        facts = {
            **_contents(card),
            "Licence": _words(card.licence),
            "Citation": _words(card.citation),
            "Protocols": _protocol_links(used),
        }
        parts += [*_head(2, card), _facts(facts), *_notes(card)]
        fetch = [f"spfem-bench data fetch {card.name}"] if card.url else []
        if card.recordings:
            fetch = [f"spfem-bench data index {card.name} ROOT"]
        evaluate = [f"spfem-bench eval --protocol {used[0]} --method controls"] if used else []
        parts.append(_code(*fetch, *evaluate))
    return _page(parts)


def _contents(card: DatasetCard) -> dict[str, str]:
    if card.world:
        shipped = dataset_files(card).values()
        size = sum(file.bytes or 0 for file in shipped) / 1e6
        return {
            "World": ", ".join(f"{k} {v}" for k, v in card.world.settings().items()),
            "Shipped": f"{len(shipped)} clips, {size:.0f} MB, each known by its SHA-256",
        }
    if card.recordings:
        return {"From": f"<{card.recordings.get}>, to be asked for there; indexed where they lie"}
    if not card.files:
        return {}
    size = sum(file.bytes or 0 for file in dataset_files(card).values()) / 1e6
    return {
        "Files": f"{len(dataset_files(card))}, {size:.0f} MB, each known by its SHA-256",
        "From": f"<{card.repository}>, commit `{card.commit[:7]}`",
    }


def _layouts() -> str:
    parts = [
        "# Layouts",
        "How systems name what they write "
        "([more](../mead_ravdess.md#outputs-as-systems-name-them)).",
    ]
    for card in map(layout_card, names(Kind.LAYOUT)):
        facts = {
            "Taken for an item": ", ".join(f"`{place}`" for place in card.places),
            "You have to": _words(card.must),
            "Read in": _words(card.source),
        }
        command = (
            "spfem-bench eval --method my-model --protocol mead-cross-id --videos outputs/ "
            f"--layout {card.name} --dry-run"
        )
        parts += [*_head(2, card), _facts(facts), *_notes(card), _code(command)]
    return _page(parts)


def _published() -> str:
    parts = [
        "# Published numbers",
        "What is read from the papers, how, and which cells contradict their own paper. "
        "[What may be compared with them](../comparing.md).",
    ]
    for card in published_cards():
        facts = {
            "Paper, table": _words(f"{card.paper}, {card.table}"),
            "Numbers": str(len(read_tidy(card.values_path)[0])),
            "Kind": card.kind,
            "Read": _words(card.read),
            "Citation": _words(card.citation),
        }
        parts += [f"## {card.name}", _words(card.title), _facts(facts), *_notes(card)]
        if card.doubts:
            doubts = ([f"`{cell}`", _words(why)] for cell, why in card.doubts.items())
            parts.append(_table(["doubted cell", "why"], doubts))
    return _page(parts)


def _clip(card: ProtocolCard, role: str) -> str:
    address = {str(key): value for key, value in card.clips.items()}.get(role)
    return f"`{address}`" if address else "none"


def _real(card: ProtocolCard) -> str:
    real = card.clips.get("real")
    if real is None:
        return "none"
    if not isinstance(real, str):
        return ", ".join(f"`{address}`" for address in real)
    same = next((role for role in ("source", "reference") if card.clips.get(role) == real), "")
    return f"the {same} clip" if same else f"`{real}`"


def _rows_beside(card: ProtocolCard) -> str:
    if card.published is None:
        return "none"
    return f"{card.published.dataset}, {card.published.setting}: other clips, never compared"


def _metric_links(metrics: Iterable[str]) -> str:
    return ", ".join(f"[{name}](../metrics/{name}.md)" for name in metrics)


def _protocol_links(protocol_names: Iterable[str]) -> str:
    return ", ".join(f"[{name}](../protocols/{name}.md)" for name in protocol_names)


def _counts(counted: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counted.items())


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _words(text: str) -> str:
    """Return a card's text on one line, without markup."""
    return re.sub(r"([\\`*_|\[\]])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def _head(level: int, card: Card) -> list[str]:
    """Return a card's name as a heading, and its title with its description."""
    return [f"{'#' * level} {card.name}", _words(f"{card.title}. {card.description}")]


def _notes(card: Card) -> list[str]:
    return ["\n".join(f"- {_words(note)}" for note in card.notes)] if card.notes else []


def _facts(facts: Mapping[str, str]) -> str:
    return _table(["", ""], facts.items())


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; rows whose last cell is empty are left out."""
    lines = [heads, ["---"] * len(heads), *(row for row in rows if row[-1])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _code(*lines: str) -> str:
    return "\n".join(["```sh", *lines, "```"])


def _page(parts: Iterable[str]) -> str:
    return "\n\n".join(part for part in parts if part.strip()) + "\n"
