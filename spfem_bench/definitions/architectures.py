"""Architectures of networks by name.

Modules in ``spfem_bench/networks`` import torch. Therefore their decorators are read as text, and
a module is imported when its network is built.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from spfem_bench import plugins
from spfem_bench.errors import CardError, near_names

_DECORATOR = re.compile(r'(?m)^@ARCHITECTURES\.register\("([\w-]+)"(?:, runtime="(\w+)")?\)$')

Builder = Callable[..., Any]
"""A class of torch modules, or a function from (card, contents of its files, device)."""


class Architectures(plugins.Registry[Builder]):
    """The registry of architectures.

    A class of torch modules is built without arguments; its state comes from its static method
    ``read_state(content, card)``, or from safetensors. Any other runtime needs a function that
    returns what :func:`spfem_bench.networks.load.load_network` or ``load_detector`` does.
    """

    def __init__(self, room: str, noun: str) -> None:
        super().__init__(room, noun)
        self._runtimes: dict[str, str] = {}

    @cached_property
    def _built_in(self) -> dict[str, tuple[str, str]]:
        """Our own architectures, each with its module and runtime."""
        folder = Path(__file__).resolve().parent.parent / self.room.rpartition(".")[2]
        return {
            name: (f"{self.room}.{file.stem}", runtime or "torch")
            for file in sorted(folder.glob("*.py"))
            for name, runtime in _DECORATOR.findall(file.read_text(encoding="utf-8"))
        }

    def register(self, kind: str, runtime: str = "torch") -> Callable[[Builder], Builder]:
        """Return a decorator that registers a class or function under the name that cards write.

        *runtime* is the module whose version is part of signatures, such as ``onnxruntime``. Raises
        CardError when another one has that name.
        """
        self._runtimes[kind] = runtime
        return super().register(kind)

    def check(self, kind: str, where: object) -> None:
        """Raise CardError for an unknown architecture, with *where* and near names."""
        if kind not in self._built_in and kind not in self.kinds():
            problem = f"{where}: unknown {self.noun} '{kind}'"
            raise CardError(problem, near_names(kind, self.kinds()))

    def get(self, kind: str) -> Builder:
        """Return what is registered under a name, or raise CardError; its module is imported now.

        Raises SpfemBenchError when the module needs a package that is not installed.
        """
        self.check(kind, "networks")
        if kind in self._built_in:
            importlib.import_module(self._built_in[kind][0])
        return self._kinds[kind]

    def kinds(self) -> list[str]:
        """Return all names, sorted."""
        plugins.import_plugins()
        return sorted({*self._built_in, *self._kinds})

    def runtime(self, kind: str) -> str:
        """Return the module that an architecture computes with."""
        return self._built_in[kind][1] if kind in self._built_in else self._runtimes[kind]

    def origin(self, kind: str) -> dict[str, str]:
        """Return the hash of a plugin's source, for signatures; nothing for our own code."""
        return {} if kind in self._built_in else plugins.origin(self.get(kind))


ARCHITECTURES = Architectures("spfem_bench.networks", "architecture")
