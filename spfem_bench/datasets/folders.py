"""Where data sets lie on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from spfem_bench import caches
from spfem_bench.datasets.provider import PROVIDERS, Places, Provider
from spfem_bench.definitions.datasets import DatasetCard


@dataclass(frozen=True)
class DataFolders:
    """The folders searched for data sets, each data set in a folder of its name."""

    own: Path | None = None  # the user's (`--data-dir`, else `SPFEM_BENCH_DATA`), searched first
    renders: Path | None = None  # where clips that are made on this machine go; the cache when None

    @classmethod
    def locate(cls, own: Path | None = None, *, renders: Path | None = None) -> DataFolders:
        """Use *own*, else the folder that the environment names."""
        return cls(caches.named_folder(own, "SPFEM_BENCH_DATA"), renders)

    @property
    def cache(self) -> Path:
        """The folder that ``data fetch`` fills."""
        return caches.cache_folder() / "data"

    def places(self, card: DatasetCard) -> Places:
        """Return the folders of one data set."""
        searched = tuple(f / card.name for f in (self.own, self.cache) if f is not None)
        generated = (self.renders or self.cache) / card.name
        return Places(searched, self.cache / card.name, generated)

    def provider(self, card: DatasetCard) -> Provider:
        """Return the provider of a data set's clips.

        Raises UnknownNameError when there is none, CardError when the card's settings are wrong.
        """
        return PROVIDERS.get(card.provider_kind)(card, self.places(card))

    def verified(self, card: DatasetCard, name: str) -> Path:
        """Return the path of one clip, see :meth:`Provider.verified`."""
        return self.provider(card).verified(name)
