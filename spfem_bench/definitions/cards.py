"""Where cards are found, and how one is read.

A card is a TOML file named by its stem. Cards lie in ``metrics/``, ``protocols/`` and
``reference_results/`` (in ``spfem_bench/data/`` when installed), and in the folders of that layout
that ``SPFEM_BENCH_CARDS`` names; a name may exist only once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, TypeVar, get_args, get_origin

import pydantic

from spfem_bench.errors import CardError, UnknownNameError, near_names, unknown_name
from spfem_bench.stored import check_numbers, read_bounded

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib  # type: ignore[import-not-found,unused-ignore,no-redef]


Text = pydantic.InstanceOf[str]
"""Any text: a name may hold half a character, which pydantic's own kind of text may not."""


class Kind(str, Enum):
    """The kinds of cards, each with the folder that holds them."""

    METRIC = "metrics"
    NETWORK = "metrics/networks"
    PROFILE = "metrics/profiles"
    PROTOCOL = "protocols"
    DATASET = "protocols/datasets"
    LAYOUT = "protocols/layouts"
    METHOD = "reference_results/methods"
    PUBLISHED = "reference_results/published"
    MEASURED = "reference_results/measured"

    @property
    def label(self) -> str:
        """The word for one such card in a message."""
        return _LABELS.get(self.name, self.name.lower())


_LABELS = {"PUBLISHED": "published table", "DATASET": "data set", "MEASURED": "reference numbers"}


class Strict(pydantic.BaseModel):
    """A frozen record that refuses unknown keys.

    All fields are part of signatures but ``score_neutral`` ones, which cannot change a score, and
    ``later`` ones while they are None. ``removed``: what to do about keys of earlier versions.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")
    score_neutral: ClassVar[frozenset[str]] = frozenset()
    later: ClassVar[frozenset[str]] = frozenset()
    removed: ClassVar[Mapping[str, str]] = {}

    def settings(self) -> dict[str, Any]:
        """Return all that can move a score, as plain JSON values."""
        return {
            key: _plain(getattr(self, key))
            for key in type(self).model_fields
            if key not in self.score_neutral
            and not (key in self.later and getattr(self, key) is None)
        }


def _plain(value: Any) -> Any:
    if isinstance(value, Strict):
        return value.settings()
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


class Card(Strict):
    """What every card has: a name (its file's stem), a title and free notes."""

    score_neutral: ClassVar[frozenset[str]] = frozenset({"title", "description", "notes", "path"})
    name: str
    title: str  # one line, for lists
    description: str = ""  # what a user must know, a few sentences
    notes: tuple[str, ...] = ()  # printed one by one
    path: Path = pydantic.Field(exclude=True)

    def __hash__(self) -> int:
        return hash((type(self), self.path))


CardType = TypeVar("CardType", bound=Card)


def builtin_folder() -> Path:
    """Return the folder that holds the project's own cards."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "data"
    return installed if installed.is_dir() else package.parent


def card_folders() -> list[Path]:
    """Return the folders searched for cards: the project's, then the user's."""
    own = os.environ.get("SPFEM_BENCH_CARDS", "")
    folders = [Path(p) for p in own.split(os.pathsep) if p]
    for folder in folders:
        if not folder.is_dir():
            raise CardError(f"{folder}, named by SPFEM_BENCH_CARDS, is no folder")
    # Listings are kept by folder: a relative name means another one elsewhere.
    return [builtin_folder(), *(folder.absolute() for folder in folders)]


def names(kind: Kind) -> list[str]:
    """Return the names of all cards of one kind, sorted."""
    return sorted(_paths(kind, tuple(card_folders())))


def load(model: type[CardType], kind: Kind, name: str) -> CardType:
    """Read one card; raise UnknownNameError when none has that name.

    Raises CardError when the card has an unknown key, lacks one, or has a bad value.
    """
    paths = _paths(kind, tuple(card_folders()))
    if name not in paths:
        raise unknown_name(kind.label, name, paths)
    return read_card(model, paths[name])


def read_card(model: type[CardType], path: Path) -> CardType:
    """Read the card in a file, once; raise CardError as :func:`load` does."""
    card: CardType = _read(model, path)
    return card


def forget_cards() -> None:
    """Read cards from their files again, for a process that has written one."""
    _read.cache_clear()


@cache
def _paths(kind: Kind, folders: tuple[Path, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(p for p in (folder / kind.value).glob("*.toml") if p.is_file()):
            if path.stem in found:
                both = f"{found[path.stem]}, {path}"
                problem = f"two {kind.label} cards are named '{path.stem}': {both}"
                raise CardError(problem, "Rename yours")
            found[path.stem] = path
    return found


def parse(content: bytes, path: Path) -> dict[str, Any]:
    """Parse a card's bytes; raise CardError when they are not TOML."""
    try:
        text = content.decode()
        if _DOTTED.search(text):  # read in a time that grows with its square
            raise ValueError("a key of 32 parts or more")
        found = tomllib.loads(text)
        check_numbers(found, wholes_only=True)
    # Also a number of five thousand digits, or three thousand brackets.
    except (ValueError, RecursionError) as error:
        raise CardError(f"{path} is not valid TOML: {error}") from error
    return found


_DOTTED = re.compile(
    r"""(?<![\w\-"'])(?:(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*){31}""", re.ASCII
)
LARGEST_CARD = 256_000  # bytes of a TOML file


@cache
def _read(model: type[Card], path: Path) -> Any:
    content = parse(_bytes(path, ""), path)
    for key in ("name", "path"):
        if key in content:
            raise CardError(f"{path}: unknown key '{key}'", "A card's name is its file's")
    return validate(model, {**content, "name": path.stem, "path": path}, str(path))


@contextmanager
def located(place: object) -> Iterator[None]:
    """Raise errors of cards and names with the place, such as a file and line, in front."""
    try:
        yield
    except (CardError, UnknownNameError) as error:
        raise CardError(f"{place}: {error.problem}", error.remedy) from None


ModelType = TypeVar("ModelType", bound=pydantic.BaseModel)


def read_toml(model: type[ModelType], path: Path, remedy: str) -> ModelType:
    """Read a user's TOML file that is no card; *remedy* is for an unreadable one.

    Raises CardError also when it is not TOML, or has a wrong, unknown or missing key.
    """
    return validate(model, parse(_bytes(path, remedy), path), str(path))


def _bytes(path: Path, remedy: str) -> bytes:
    try:
        return read_bounded(path, LARGEST_CARD)
    except OSError as error:
        raise CardError(f"{path}: {error.strerror}", remedy) from error


def validate(model: type[ModelType], content: Mapping[str, Any], where: str) -> ModelType:
    """Build *model* from plain values; raise CardError with *where*, key, problem and near keys."""
    try:
        return model.model_validate(dict(content))
    except pydantic.ValidationError as error:
        # A misspelt key is an unknown one and a missing one: speak of the first.
        found = error.errors()
        first = next((e for e in found if e["type"] == "extra_forbidden"), found[0])
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            removed: Mapping[str, str] = getattr(model, "removed", {})
            if key in removed:
                raise CardError(f"{where}: no longer a key: '{key}'", removed[key]) from None
            allowed = _keys_beside(model, first["loc"])
            remedy = near_names(str(first["loc"][-1]), allowed)
            raise CardError(f"{where}: unknown key '{key}'", remedy) from None
        if missing := [e["loc"] for e in found if e["type"] == "missing"]:
            named = [f"'{'.'.join(map(str, at))}'{_in_words(model, at)}" for at in missing]
            count = "a key is" if len(named) == 1 else f"{len(named)} keys are"
            raise CardError(f"{where}: {count} missing: {', '.join(named)}") from None
        problem = f"{where}: '{key}': {first['msg']}"
        raise CardError(problem, f"Given: {first['input']!r}"[:200]) from None


def _in_words(model: type[pydantic.BaseModel], location: tuple[int | str, ...]) -> str:
    """Return what a missing key holds, in brackets; empty where that is not plain."""
    last = location[-1]
    fields = [
        m.model_fields.get(last) for m in _models_at(model, location) if isinstance(last, str)
    ]
    annotation = fields[0].annotation if fields and fields[0] else None
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return f" ({' or '.join(map(json.dumps, parts))})"
    if origin in (tuple, list) and parts[0] is str:
        return " (a list of texts)"
    if origin in (dict, Mapping) or _models_in(annotation):
        return " (a table)"
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return f" ({words[annotation]})" if annotation in words else ""


def _keys_beside(model: type[pydantic.BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys allowed where an unknown one was found (nested tables too)."""
    fields = _models_at(model, location)[0].model_fields.items()
    return [field.alias or key for key, field in fields if key not in ("name", "path")]


def _models_at(model: type[pydantic.BaseModel], location: tuple[int | str, ...]) -> list[Any]:
    """Return the models that the last key of a location may belong to."""
    here: list[Any] = [model]
    for part in location[:-1]:
        tagged = [m for m in here if part in _tags(m)] if len(here) > 1 else []
        fields = [m.model_fields[part] for m in here if part in m.model_fields]
        if tagged:  # the tag that tells the kinds of one table apart
            here = tagged
        elif fields:
            here = _models_in(fields[0].annotation) or here
    return here


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [m for part in getattr(annotation, "__args__", ()) for m in _models_in(part)]


def _tags(model: Any) -> tuple[Any, ...]:
    for key in ("kind", "crop"):
        field = getattr(model, "model_fields", {}).get(key)
        if field is not None:
            return tuple(getattr(field.annotation, "__args__", ()))
    return ()
