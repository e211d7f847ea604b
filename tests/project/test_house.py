"""The house stays as CONTRIBUTING.md describes it; the order of the rooms is in 'make lint'."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = ROOT / "spfem_bench"
MODULES = sorted(PACKAGE.rglob("*.py"))
LONGEST = 500
"""Lines of a file."""

FACES = ("cli", "api")
"""Rooms that give users' names to what other rooms compute: a command, a call from Python."""


def public_names(source: str) -> set[str]:
    """Return the classes, functions and type aliases that a module defines for others."""
    found = set()
    for node in ast.parse(source).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            found.add(node.name)
        elif isinstance(node, ast.Assign):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
    return {name for name in found if not name.startswith("_") and not name.isupper()}


def names_in_several_rooms(sources: dict[str, str]) -> dict[str, set[str]]:
    """Return the public names that two rooms define, with the rooms.

    Args:
        sources: by path relative to the package.
    """
    rooms = defaultdict(set)
    for path, source in sources.items():
        room = Path(path).with_suffix("").parts[0]
        if room not in FACES:
            for name in public_names(source):
                rooms[name].add(room)
    return {name: where for name, where in rooms.items() if len(where) > 1}


def test_one_public_name_means_one_thing() -> None:
    sources = {str(p.relative_to(PACKAGE)): p.read_text(encoding="utf-8") for p in MODULES}
    assert names_in_several_rooms(sources) == {}


def test_a_name_in_two_rooms_is_found() -> None:
    sources = {
        "media/a.py": "class Frame: ...\nLIMIT = 1",
        "faces/b.py": "Frame = int\nLIMIT = 2\ndef _own(): ...",
        "faces/c.py": "def _own(): ...\ndef crop(): ...",
        "cli/crop.py": "def crop(): ...",
    }
    assert names_in_several_rooms(sources) == {"Frame": {"media", "faces"}}


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_fits_into_a_head_and_is_formatted(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LONGEST
    assert "# fmt:" not in text, "the formatter is not overruled"
