"""Pinned weights: where they are, and how they are read. No reader executes pickles."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from spfem_bench import caches, pinned
from spfem_bench.definitions.networks import NetworkCard
from spfem_bench.errors import WeightsError


class Check(NamedTuple):
    """The state of a network's weights; a remedy is named where it is not to fetch them."""

    state: Literal["verified", "missing", "not pinned", "wrong hash"]
    problem: str
    remedy: str = ""


@dataclass(frozen=True)
class WeightsStore:
    """The folders searched for weights; the user's, *own*, is searched by hash, not by names."""

    own: Path | None = None

    @classmethod
    def locate(cls, folder: Path | None = None) -> WeightsStore:
        """Return the store of a folder, else of the one that the environment names."""
        return cls(caches.named_folder(folder, "SPFEM_BENCH_WEIGHTS"))

    @property
    def cache(self) -> Path:
        """The folder that ``networks fetch`` fills."""
        return caches.cache_folder() / "weights"

    def paths(self, card: NetworkCard) -> list[Path | None]:
        """Return where each file of a network lies; None for those not found."""
        own = [self.own] if self.own else []
        folders = (shipped_folder(card) if f.shipped else self.cache for f in card.files)
        return [pinned.find(f, [at], own) for f, at in zip(card.files, folders, strict=True)]

    def check(self, card: NetworkCard) -> Check:
        """Return whether a network's files are there and have the right hashes."""
        pairs = list(zip(self.paths(card), card.files, strict=True))
        if absent := [file.name for path, file in pairs if path is None]:
            names = ", ".join(absent)
            return Check("missing", f"the weights of '{card.name}' are missing ({names})")
        for path, file in pairs:
            if path and (reason := pinned.file_problem(path, file)):
                return Check("wrong hash", pinned.is_not(path, file, reason))
            if path and not file.is_pinned:
                return Check("not pinned", *_unpinned(card, path))
        return Check("verified", "")

    def read(self, card: NetworkCard) -> list[bytes]:
        """Return the verified bytes of a network's files; raise WeightsError for others."""
        contents = []
        for path, file in zip(self.paths(card), card.files, strict=True):
            if path is None:
                problem = f"the weights of '{card.name}' are missing ({file.name})"
                raise WeightsError(problem, remedy(card))
            if not file.is_pinned:
                raise WeightsError(*_unpinned(card, path))
            contents.append(pinned.read_verified(path, file, remedy(card)))
        return contents


def shipped_folder(card: NetworkCard) -> Path:
    """Return the folder of a network's files that travel with its card: those without a url."""
    return card.path.parent / "weights"


def is_shipped(card: NetworkCard) -> bool:
    """Return whether all of a network's files travel with its card."""
    return all(file.shipped for file in card.files)


def _unpinned(card: NetworkCard, path: Path) -> tuple[str, str]:
    """Return the problem of a file that is not pinned, and its remedy."""
    command = f"spfem-bench networks fetch {card.name}"
    advice = "(with --weights-dir where it lies in a folder of yours)"
    problem = f"the weights of '{card.name}' ({path}) are not pinned yet"
    return problem, f"Type '{command}' to pin it {advice}"


def remedy(card: NetworkCard) -> str:
    """Return the sentence on how to get a network's weights."""
    own = f"{card.files[0].name} with --weights-dir or SPFEM_BENCH_WEIGHTS"
    if is_shipped(card):
        action = f"install spfem-bench again, or name a folder that holds {own}"
        return f"It is shipped in {shipped_folder(card)}: {action}"
    return f"Type 'spfem-bench networks fetch {card.name}', or name a folder that holds {own}"


def wrong_weights(
    card: NetworkCard, error: Exception, problem: str = "", advice: str = ""
) -> WeightsError:
    """Return the error for weights that are not what their card says."""
    reason = (str(error) or type(error).__name__).splitlines()[0][:120]
    problem = problem or f"are not a {card.architecture}'s"
    return WeightsError(f"the weights of '{card.name}' {problem}: {reason}", advice or remedy(card))


def safetensors_state(content: bytes, card: NetworkCard) -> dict[str, object]:
    """Return the tensors of a safetensors file; raise WeightsError for another format."""
    from safetensors.torch import load

    try:
        return dict(load(content))
    except Exception as error:  # a file of any bytes may be here: several kinds are raised
        raise wrong_weights(card, error, "cannot be read as safetensors") from error


TENSORS_ONLY = (
    "No code in a file is run here. If you trust the file, save its tensors alone where the script "
    "that wrote it runs: state = torch.load(FILE, map_location='cpu', weights_only=False)"
    "['state_dict']; torch.save({'state_dict': state}, NEW_FILE)"
)


def torch_state(content: bytes, card: NetworkCard) -> dict[str, object]:
    """Return a checkpoint's tensors and plain values; raise WeightsError for anything else."""
    import torch

    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a file of any bytes may be here: torch raises a dozen kinds
        if stored := re.search(r"\bGLOBAL ([\w.]+)", str(error)):
            problem = f"the weights of '{card.name}' hold more than tensors: {stored[1]}"
            raise WeightsError(f"{problem}, which only code can restore", TENSORS_ONLY) from error
        advice = "A checkpoint must hold tensors only"
        raise wrong_weights(card, error, "cannot be read safely", advice) from error
    if not isinstance(state, dict):
        raise WeightsError(f"the weights of '{card.name}' hold no dictionary of tensors")
    return state


def checkpoint_state(content: bytes, card: NetworkCard) -> dict[str, object]:
    """Return the tensors of a training script's checkpoint by the network's own names.

    They may lie under the key ``state_dict``, beside an epoch or an optimizer's state, and their
    names may begin with ``module.`` (torch's ``DataParallel``). Raises WeightsError.
    """
    state = torch_state(content, card)
    inner = state.get("state_dict", state)
    if not isinstance(inner, dict) or not all(isinstance(name, str) for name in inner):
        raise WeightsError(f"the weights of '{card.name}' hold no dictionary of tensors")
    return {name.removeprefix("module."): value for name, value in inner.items()}
