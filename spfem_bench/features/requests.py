"""Requests for features: one network's of a clip, or a comparison of two clips; without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import Role
from spfem_bench.errors import ClipError
from spfem_bench.features.extract import Extractor
from spfem_bench.features.features import Features
from spfem_bench.features.pair_request import PairRequest as PairRequest

if TYPE_CHECKING:
    from spfem_bench.features.pair_extract import PairExtractor


Request: TypeAlias = "Role | PairRequest"
"""A network's role: its features of the clip. A pair: the clip's comparison with another."""

Requests: TypeAlias = "Mapping[Clip, frozenset[Request]]"

RequestKey: TypeAlias = "dict[str, Any]"
"""Everything that decides what the features of a request are; the store's key."""

RequestKeys: TypeAlias = "dict[Clip, dict[Request, RequestKey]]"

Failures: TypeAlias = "dict[tuple[Clip, Request], ClipError]"


def pair_extractor(extractor: Extractor) -> PairExtractor:
    """Return what compares clips with others, on an extractor's networks and store."""
    from spfem_bench.features.pair_extract import PairExtractor

    return PairExtractor(extractor)


def request_key(extractor: Extractor, clip: Clip, request: Request) -> RequestKey:
    """Return all that decides a request's features; raise ClipError for an unreadable clip."""
    if isinstance(request, PairRequest):
        return pair_extractor(extractor).key(clip, request)
    return extractor.key(clip, request)


def load_features(
    extractor: Extractor, clip: Clip, request: Request, failures: Failures
) -> Features:
    """Return a request's stored features, a pair's arrays; raise ClipError for unusable ones."""
    if (clip, request) in failures:
        raise failures[clip, request]
    pair = isinstance(request, PairRequest)
    arrays = extractor.store.get(request_key(extractor, clip, request))
    if arrays is None:
        noun = "its comparison" if pair else "its features"
        raise ClipError(f"{clip}: {noun} vanished from the store", "Run the command again")
    if pair:  # a region without other moments is NaN
        frames, counts = np.asarray(arrays["frames"], np.int64), np.asarray(arrays["counts"])
        outputs: dict[str, Any] = dict(arrays)
        return Features(outputs, frames, int(counts[0]), int(counts[1]))
    features = Features.from_arrays(arrays)
    if not all(np.isfinite(a).all() for a in features.outputs.values()):
        problem = f"{clip}: the {request} network returned numbers that are not finite"
        raise ClipError(problem, "Look at the frames, and at the network's weights")
    return features


def without_failed(requests: Requests, failures: Failures) -> dict[Clip, frozenset[Request]]:
    """Return the requests that are not known to fail."""
    left = {
        clip: frozenset(one for one in wanted if (clip, one) not in failures)
        for clip, wanted in requests.items()
    }
    return {clip: wanted for clip, wanted in left.items() if wanted}


def missing(
    extractor: Extractor, requests: Requests, *, whole: bool = True
) -> tuple[RequestKeys, Failures]:
    """Return the key of each request that is not stored (read if *whole*), and keys' failures."""
    lacking: RequestKeys = {}
    failures: Failures = {}
    store = extractor.store
    for clip, wanted in requests.items():
        for request in wanted:
            try:
                key = request_key(extractor, clip, request)
                if not (store.get(key) is not None if whole else store.has(key)):
                    lacking.setdefault(clip, {})[request] = key
            except ClipError as error:
                failures[clip, request] = error
    return lacking, failures


def ensure(
    extractor: Extractor, requests: Requests, pairs: PairExtractor | None = None
) -> Failures:
    """Compute and store what is missing; return why each request that cannot be met failed.

    Raises WeightsError for wrong weights, StorageError for a store that cannot be written.
    """
    roles: dict[Clip, frozenset[Role]] = {}
    compared: list[tuple[Clip, PairRequest]] = []
    for clip, wanted in requests.items():
        if alone := frozenset(one for one in wanted if not isinstance(one, PairRequest)):
            roles[clip] = alone
        compared += [(clip, one) for one in wanted if isinstance(one, PairRequest)]
    failures: Failures = {}
    if roles:
        failures |= {(clip, role): e for (clip, role), e in extractor.ensure(roles).items()}
    if compared:
        pairs = pairs or pair_extractor(extractor)
        failures |= {(clip, pair): e for (clip, pair), e in pairs.ensure(compared).items()}
    return failures
