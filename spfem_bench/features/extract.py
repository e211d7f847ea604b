"""Features of many clips in one pass: decode once, find the face once, crop for each network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import replace

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import Role
from spfem_bench.errors import ClipError
from spfem_bench.features.ahead import begun
from spfem_bench.features.keys import Faces as Faces
from spfem_bench.features.keys import one_of_each
from spfem_bench.features.reading import ClipFailures, ClipReader
from spfem_bench.features.search import Search
from spfem_bench.features.tracking import ClipNetworks

AHEAD = 2
"""Clips that are read while the networks compute another one."""


class Extractor(ClipNetworks):
    """Computes features with the networks of one profile and keeps them in the store."""

    def ensure(self, requests: Mapping[Clip, frozenset[Role] | set[Role]]) -> ClipFailures:
        """Compute and store missing features; return the reason for each that cannot be had.

        Raises WeightsError for wrong weights, StorageError for a store that cannot be written.
        """
        failures: ClipFailures = {}
        lacking, same = one_of_each(self._lacking(requests, failures))
        if lacking:
            self.store.check_writable()
        search = self.search(self._without_faces(lacking) if self.faces == "detect" else ())
        waiting: list[ClipReader] = []
        try:
            with closing(begun(self._readers(lacking, search, failures), AHEAD)) as readers:
                for reader in readers:
                    with closing(reader):
                        reader.read()
                    waiting = [r for r in [*waiting, reader] if not r.store()]
                    self.progress.advance("clips")
            for batcher in self._batchers.values():
                batcher.flush()
            for reader in waiting:
                reader.store()
        finally:  # after an error too: nothing goes on, and nothing is left for the next call
            search.close()
            for batcher in self._batchers.values():
                batcher.drop()
        return failures | (self.ensure(same) if same else {})

    def _lacking(
        self, requests: Mapping[Clip, frozenset[Role] | set[Role]], failures: ClipFailures
    ) -> dict[Clip, set[Role]]:
        """Return what the store lacks; note where a key cannot be made."""
        lacking: dict[Clip, set[Role]] = {}
        # In one thread: several would lose in Python's lock what they gain in hashing.
        for clip, roles in requests.items():
            for role in sorted(roles):
                try:
                    if self.store.get(self.key(clip, role)) is None:
                        lacking.setdefault(clip, set()).add(role)
                except ClipError as error:
                    failures[clip, role] = error
        self.progress.advance("clips", len(requests) - len(lacking))
        return lacking

    def _without_faces(self, lacking: Mapping[Clip, set[Role]]) -> Iterator[Clip]:
        """Yield the clips, without their edits, whose face tracks are not stored."""
        for clip, roles in lacking.items():
            if roles == {"sync"} and self.chain is not None:
                continue  # its faces are another video's
            bare = replace(clip, edit=None)
            try:
                if not self.store.has(self.key(bare, None)):
                    yield bare
            except ClipError:
                continue  # raised when the clip is read

    def _readers(
        self, lacking: Mapping[Clip, set[Role]], search: Search, failures: ClipFailures
    ) -> Iterator[ClipReader]:
        """Yield readers of the clips that lack features; reading them has begun."""
        for clip, roles in lacking.items():
            try:
                # Equal clips under two names: the other's features may be stored by now.
                missing = {r for r in roles if not self.store.has(self.key(clip, r))}
                if missing:
                    yield ClipReader(self, clip, missing, search, failures)
                    continue
            except ClipError as error:  # its file is gone since
                failures |= {(clip, role): error for role in roles}
            self.progress.advance("clips")
