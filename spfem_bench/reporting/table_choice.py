"""The methods, metrics and emotions that a user wants in a table, in the order given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from spfem_bench.definitions.methods import method_card
from spfem_bench.definitions.metrics import known_metric
from spfem_bench.definitions.published import Printed
from spfem_bench.errors import UnknownNameError, unknown_name
from spfem_bench.evaluation.record import RunRecord


@dataclass(frozen=True)
class Choice:
    """Names in the order in which a table shows them; all, in its own order, where empty."""

    methods: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ()
    emotions: tuple[str, ...] = ()


ALL = Choice()


def choose_records(
    records: Sequence[RunRecord], choice: Choice
) -> tuple[Sequence[RunRecord], Choice]:
    """Return the records of the chosen methods, in order, with the chosen scores alone.

    Names are matched without regard to capitals, and by label (``FAD``, ``Avg.``); the choice that
    is returned has them as the records do. Raises UnknownNameError when a name is in none of the
    records.
    """
    scores = [score for record in records for score in record.scores]
    labels = {record.method.label: record.method.name for record in records}
    choice = _resolved(choice, labels, (s.metric for s in scores), (s.emotion for s in scores))
    methods = choice.methods or tuple(dict.fromkeys(r.method.name for r in records))
    chosen = []
    for name in methods:
        for record in (r for r in records if r.method.name == name):
            kept = [s for s in record.scores if _has(choice, s.metric, s.emotion)]
            order = choice.metrics or tuple(dict.fromkeys(s.metric for s in kept))
            kept.sort(key=lambda s: order.index(s.metric))
            chosen.append(record.model_copy(update={"scores": tuple(kept)}))
    return chosen if choice != ALL else records, choice


def choose_printed(tables: Sequence[Printed], choice: Choice) -> tuple[Sequence[Printed], Choice]:
    """Return printed tables with the chosen rows alone; see :func:`choose_records`."""
    if choice == ALL:
        return tables, choice
    rows = [row for table in tables for row in table.rows]
    labels = {row.method: row.method for row in rows}
    choice = _resolved(choice, labels, (r.metric for r in rows), (r.emotion for r in rows))
    chosen = []
    for table in tables:
        kept = [row for row in table.rows if _has(choice, row.metric, row.emotion)]
        if choice.methods:
            kept = [row for row in kept if row.method in choice.methods]
        addresses = {row.address for row in kept}
        doubts = {at: doubt for at, doubt in table.doubts.items() if at in addresses}
        chosen.append(replace(table, rows=tuple(kept), doubts=doubts))
    return chosen, choice


def _has(choice: Choice, metric: str, emotion: str) -> bool:
    return (not choice.metrics or metric in choice.metrics) and (
        not choice.emotions or emotion in choice.emotions
    )


def _resolved(
    choice: Choice, methods: dict[str, str], metrics: Iterable[str], emotions: Iterable[str]
) -> Choice:
    of_methods = dict(methods)
    for name in methods.values():
        of_methods |= {name: name, **dict.fromkeys(_aliases(name), name)}
    of_metrics: dict[str, str] = {}
    for name in dict.fromkeys(metrics):
        card = known_metric(name)
        of_metrics |= {name: name, card.label if card else name: name}
    of_emotions = {name: name for name in dict.fromkeys(emotions)}
    of_emotions |= {"avg.": "avg", "average": "avg"} if "avg" in of_emotions else {}
    return Choice(
        _named("method in these tables", choice.methods, of_methods),
        _named("metric in these tables", choice.metrics, of_metrics),
        _named("emotion in these tables", choice.emotions, of_emotions),
    )


def _named(kind: str, chosen: Iterable[str], known: dict[str, str]) -> tuple[str, ...]:
    folded = {text.casefold(): name for text, name in known.items()}
    names = []
    for text in chosen:
        name = known.get(text) or folded.get(text.casefold())
        if name is None:
            raise unknown_name(kind, text, set(known.values()))
        names.append(name)
    return tuple(dict.fromkeys(names))


def _aliases(method: str) -> tuple[str, ...]:
    try:
        return (*method_card(method).aliases, method_card(method).label)
    except UnknownNameError:
        return ()
