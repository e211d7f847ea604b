"""Evaluation suite for speech-preserving facial expression manipulation (SPFEM).

The rooms, from top to bottom; each imports only from those below it:

``cli`` · ``reporting`` · ``evaluation`` · ``statistics`` · ``features`` ·
``faces`` · ``networks`` · ``media`` · ``definitions``
"""

from typing import TYPE_CHECKING, Any

from spfem_bench.version import __version__

if TYPE_CHECKING:
    from spfem_bench.api import Run, compare, evaluate, load, table

__all__ = ["Run", "__version__", "compare", "evaluate", "load", "table"]


def __getattr__(name: str) -> Any:
    """Import the Python interface when it is first used: the command line starts without it."""
    if name in __all__:
        from spfem_bench import api

        return getattr(api, name)
    raise AttributeError(f"module 'spfem_bench' has no attribute '{name}'")
