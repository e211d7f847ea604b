"""Pinned weights: where they are looked for, and how they are loaded.

Every load reads the file once, checks the SHA-256 of those bytes, and hands the
same bytes to the reader. No reader executes pickles.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from spfem_bench import pinned
from spfem_bench.definitions.metrics import NetworkCard
from spfem_bench.errors import WeightsError


@dataclass(frozen=True)
class WeightsStore:
    """The folders searched for weights, first to last.

    Attributes:
        own: the user's folder (``--weights-dir``, else ``SPFEM_BENCH_WEIGHTS``),
            searched by hash, whatever its files are called.
    """

    own: Path | None = None

    @classmethod
    def locate(cls, given: Path | None = None) -> WeightsStore:
        """Take the folder given, else the one the environment names."""
        named = os.environ.get("SPFEM_BENCH_WEIGHTS")
        return cls(given or (Path(named) if named else None))

    @property
    def cache(self) -> Path:
        """The folder that ``networks fetch`` fills."""
        return pinned.cache_folder() / "weights"

    def paths(self, card: NetworkCard) -> list[Path | None]:
        """Return where each file of a network lies; None for those not found."""
        return [pinned.find(f, [self.cache], [self.own] if self.own else []) for f in card.files]

    def state(self, card: NetworkCard) -> str:
        """Return ``verified``, ``missing`` or ``wrong hash``."""
        paths = self.paths(card)
        if any(p is None for p in paths):
            return "missing"
        right = (
            pinned.sha256_of(p) == f.sha256 for p, f in zip(paths, card.files, strict=True) if p
        )
        return "verified" if all(right) else "wrong hash"

    def read(self, card: NetworkCard) -> list[bytes]:
        """Return the verified bytes of each of a network's files, in the card's order.

        Raises:
            WeightsError: a file is missing, or is not the pinned one.
        """
        contents = []
        for path, file in zip(self.paths(card), card.files, strict=True):
            if path is None:
                raise WeightsError(
                    f"the weights of '{card.name}' are missing ({file.name})", remedy(card)
                )
            contents.append(pinned.read_verified(path, file, remedy(card)))
        return contents


def remedy(card: NetworkCard) -> str:
    """Say how to get a network's weights."""
    return (
        f"Type 'spfem-bench networks fetch {card.name}', or name a folder that holds "
        f"{card.files[0].name} with --weights-dir or SPFEM_BENCH_WEIGHTS"
    )


def torch_state(content: bytes, card: NetworkCard) -> dict[str, object]:
    """Read a PyTorch checkpoint without executing pickles (``weights_only``).

    Raises:
        WeightsError: it holds anything but tensors and plain values.
    """
    import io

    import torch

    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a file of any bytes may be here: torch raises a dozen kinds
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise WeightsError(
            f"the weights of '{card.name}' cannot be read safely: {reason[:120]}",
            "A checkpoint must hold tensors only",
        ) from error
    if not isinstance(state, dict):
        raise WeightsError(f"the weights of '{card.name}' hold no dictionary of tensors")
    return state
