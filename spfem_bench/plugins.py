"""Kinds that are one file each: in a room of this package, in other packages, in the user's files.

A kind registers itself when its module is imported. A name that is not registered yet is looked
for in the modules of the room, then in those that installed packages name in the entry point
group ``spfem_bench.plugins``, then in the files that ``SPFEM_BENCH_PLUGINS`` names, as in ``PATH``.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import pkgutil
import sys
from collections.abc import Callable
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from spfem_bench.errors import CardError, unknown_name
from spfem_bench.hashes import sha256_of

GROUP = "spfem_bench.plugins"
VARIABLE = "SPFEM_BENCH_PLUGINS"

Registered = TypeVar("Registered", bound=Callable[..., Any])


class Registry(Generic[Registered]):
    """Classes or functions by the name of their kind.

    The modules of the package *room* register them. A *noun* names a kind in messages.
    """

    def __init__(self, room: str, noun: str) -> None:
        self.room, self.noun = room, noun
        self._kinds: dict[str, Registered] = {}

    def register(self, kind: str) -> Callable[[Registered], Registered]:
        """Return a decorator that registers a class or function under a name.

        Raises:
            CardError: another one has that name.
        """

        def decorate(registered: Registered) -> Registered:
            other = self._kinds.setdefault(kind, registered)
            if _location(other) != _location(registered):
                raise CardError(
                    f"two of the {self.noun} '{kind}': {_location(other)}, {_location(registered)}",
                    "Rename yours",
                )
            self._kinds[kind] = registered
            return registered

        return decorate

    def get(self, kind: str) -> Registered:
        """Return what is registered under a name.

        Raises:
            UnknownNameError: nothing is; near names are suggested.
            CardError: a plugin cannot be imported.
        """
        if kind not in self._kinds:
            _import_room(self.room)
        if kind not in self._kinds:
            import_plugins()
        if kind not in self._kinds:
            raise unknown_name(self.noun, kind, self._kinds)
        return self._kinds[kind]

    def kinds(self) -> list[str]:
        """Return all names, sorted."""
        _import_room(self.room)
        import_plugins()
        return sorted(self._kinds)


def origin(registered: Callable[..., Any]) -> dict[str, str]:
    """Return the SHA-256 of a plugin's source file, for signatures; nothing for our own code."""
    module = inspect.getmodule(registered)
    if module is None or module.__name__.startswith("spfem_bench."):
        return {}
    return {"plugin": sha256_of(Path(inspect.getfile(registered)))}


def import_plugins() -> None:
    """Import the modules that installed packages and the environment name, each once.

    Raises:
        CardError: one cannot be imported; says which and why.
    """
    _import_entry_points()
    for file in filter(None, os.environ.get(VARIABLE, "").split(os.pathsep)):
        _import_file(Path(file).resolve())


@cache
def _import_room(room: str) -> None:
    for module in pkgutil.iter_modules(importlib.import_module(room).__path__):
        importlib.import_module(f"{room}.{module.name}")


@cache
def _import_entry_points() -> None:
    for name in sorted({point.value for point in entry_points(group=GROUP)}):
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise CardError(f"the plugin {name} cannot be imported: {error}") from error


@cache
def _import_file(path: Path) -> None:
    name = f"spfem_bench_plugin_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    try:
        if spec is None or spec.loader is None:
            raise ImportError("it is no Python file")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # pickle finds its classes there
        spec.loader.exec_module(module)
    except Exception as error:  # code of the user's may raise anything
        sys.modules.pop(name, None)
        raise CardError(
            f"{path}, named by {VARIABLE}, cannot be imported: {error}", "Give Python files"
        ) from error


def _location(registered: Callable[..., Any]) -> str:
    return f"{registered.__module__}.{registered.__qualname__}"
