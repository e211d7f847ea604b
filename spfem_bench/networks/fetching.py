"""Fetching and pinning the weights of one network."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from spfem_bench import pinned
from spfem_bench.definitions.networks import NetworkCard
from spfem_bench.errors import WeightsError
from spfem_bench.networks.weights import WeightsStore, is_shipped, remedy


def fetch_network(
    store: WeightsStore, card: NetworkCard, progress: bool, report: Callable[[str], object]
) -> Iterator[str | WeightsError]:
    """Download and verify a network's files; yield a line, or the reason of a failure, for each.

    Raises WeightsError where it is shipped and damaged; *report* gets lines about waiting.
    """
    if store.check(card).state == "verified":
        yield "there and verified"
        return
    if is_shipped(card):
        raise WeightsError(store.check(card).problem, remedy(card))
    yield f"licence: {card.licence}"
    for file, path in zip(card.files, store.paths(card), strict=True):
        try:
            fetched = None if file.is_pinned else path
            if fetched is None or (file.url and pinned.file_problem(fetched, file)):
                fetched = pinned.fetch(file, store.cache, progress=progress, report=report)
            if file.is_pinned:
                yield f"{fetched} verified"
            else:
                yield f"{fetched} pinned: SHA-256 {pinned.pin(card.name, file, fetched)}"
        except WeightsError as error:
            yield error
