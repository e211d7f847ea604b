"""Fetching and pinning the weights of one network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from spfem_bench import pinned
from spfem_bench.definitions.networks import NetworkCard
from spfem_bench.definitions.pins import PinnedFile
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
                check = partial(_check, card, file, fetched)
                digest = pinned.pin(card.name, file, fetched, check)
                yield f"{fetched} pinned: SHA-256 {digest}"
        except WeightsError as error:
            yield error


def _check(card: NetworkCard, file: PinnedFile, path: Path, content: bytes) -> None:
    """Raise WeightsError for a file, the only one of its network, that holds another network.

    A git hash says more than that: files that have one are not opened here.
    """
    if file.git_blob or len(card.files) > 1:
        return
    from spfem_bench.networks.load import check_contents

    try:
        check_contents(card, [content])
    except WeightsError as error:
        # What else is wrong with it has its own remedy: an object that only code can restore.
        circular = error.remedy == remedy(card)
        advice = f"Remove it. {pinned.by_hand(file, path)}" if circular else error.remedy
        raise WeightsError(f"{path}: {error.problem}", advice) from error
