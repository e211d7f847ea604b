"""Errors in one line: what is wrong, what is allowed, what to type next."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from spfem_bench.texts import visible


class SpfemBenchError(Exception):
    """A failure that a user can do something about: the problem, one line, and the remedy."""

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem, self.remedy = printable(problem), printable(remedy)
        super().__init__(self.problem, self.remedy)

    def __str__(self) -> str:
        return f"{self.problem}. {self.remedy}".rstrip() if self.remedy else self.problem


LONGEST = 2000  # characters of a sentence; a value in it may be a whole file


def printable(text: str) -> str:
    """Return text as one line: names from files may hold line feeds, or drive a terminal."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST - 200]} … {text[-200:]}"
    return visible(text).replace("\n", "\\n").replace("\t", "\\t")


class UnknownNameError(SpfemBenchError):
    """A method, protocol, metric, network, profile or key that does not exist."""


class CardError(SpfemBenchError):
    """A card or list with a wrong, unknown or missing value."""


class ClipError(SpfemBenchError):
    """A clip that cannot be read or used."""


class MissingClipError(ClipError):
    """A clip that is not where it is looked for."""


class UnsuitedClipError(ClipError):
    """An item of which a control cannot be made."""


class WeightsError(SpfemBenchError):
    """Weights or pinned files that are missing, or other than their card states."""


class StorageError(SpfemBenchError):
    """A folder that cannot be written, or a disk that is full."""


class StcclError(SpfemBenchError):
    """Feature maps, sequences, regions or settings that STCCL cannot work with."""


def near_names(name: str, allowed: Iterable[str]) -> str:
    """Return a sentence with the allowed name closest to *name*, and all that are allowed."""
    names = sorted(allowed)
    lower = {name.lower(): name for name in names}
    close = get_close_matches(name.lower(), lower, n=1)
    hint = f"Did you mean '{lower[close[0]]}'? " if close else ""
    return f"{hint}Allowed: {', '.join(names) or '(none)'}"


def listed_name(name: str, allowed: Iterable[str]) -> str:
    """Return the allowed name that equals *name* but for capitals; *name* itself without one.

    >>> listed_name("FAD", ["fad", "csim"])
    'fad'
    """
    names = list(allowed)
    alike = [own for own in names if own.casefold() == name.casefold()]
    return name if name in names or len(alike) != 1 else alike[0]


def unknown_name(kind: str, name: str, allowed: Iterable[str]) -> UnknownNameError:
    """Build the error for a name that does not exist, with near names suggested."""
    return UnknownNameError(f"unknown {kind} '{name}'", near_names(name, allowed))
