"""What the keys of cards hold, in words, from the models: types, defaults, comments, docstrings."""

from __future__ import annotations

import ast
import inspect
import io
import json
import re
import textwrap
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import pydantic

_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false"}


@dataclass(frozen=True)
class Key:
    """One key of a card or of a table in it.

    Attributes:
        holds: the kind of value, such as ``text`` or ``"lower" or "higher"``.
        default: as TOML writes it; ``required`` without one, empty for an empty one.
        about: what it is for, from the comment beside the field; may be empty.
        tables: the models that describe it, where it is a table.
    """

    name: str
    holds: str
    default: str
    about: str
    tables: tuple[type[pydantic.BaseModel], ...]


def keys(model: type[pydantic.BaseModel]) -> list[Key]:
    """Return the keys of a model in the order of its source; a card's name and path are none."""
    about = _comments(model)
    return [
        Key(
            field.alias or name,
            _holds(field.annotation),
            _default(field),
            about.get(name, ""),
            tuple(_models(field.annotation)),
        )
        for name, field in model.model_fields.items()
        if name not in ("name", "path") or not hasattr(model, "score_neutral")
    ]


def commented(model: type[pydantic.BaseModel], card: str) -> str:
    """Return a card's text with a comment above each key of its top that has none.

    Keys that may be given, and are not, follow as comments.
    """
    lines, found = [], {key.name: key for key in keys(model)}
    top, rest = _top(card)
    previous = ""
    for line in top.splitlines():
        name = line.partition("=")[0].strip()
        if name in found and not previous.startswith("#"):
            lines += textwrap.wrap(
                _line(found[name]), 98, initial_indent="# ", subsequent_indent="# "
            )
        found.pop(name, None)
        lines.append(line)
        previous = line
    given = {name for name in found if f"[{name}]" in rest or f"[[{name}]]" in rest}
    for name, key in found.items():
        if name not in given:
            lines += textwrap.wrap(
                f"{name}: {_line(key)}", 98, initial_indent="# ", subsequent_indent="#   "
            )
    return "\n".join(lines) + "\n\n" + rest


def _line(key: Key) -> str:
    about = f"; {key.about}" if key.about else ""
    needed = "" if key.default == "required" else " (may be left out)"
    return f"{key.holds}{about}{needed}"


def _top(card: str) -> tuple[str, str]:
    """Split a card before its first table."""
    lines = card.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if line.startswith("[")), len(lines))
    return "".join(lines[:first]).rstrip(), "".join(lines[first:])


def _default(field: pydantic.fields.FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value in ("", (), {}):
        return ""
    if isinstance(value, pydantic.BaseModel):
        return "its own defaults"
    return json.dumps(value)


def _holds(annotation: Any) -> str:
    parts = [p for p in _flat(annotation) if p is not NoneType]
    words: list[str] = []
    for part in parts:
        origin, inner = get_origin(part), get_args(part)
        if origin is Literal:
            words.append(" or ".join(map(json.dumps, inner)))
        elif origin is tuple:
            several = inner[-1] is Ellipsis
            what = list(dict.fromkeys(_holds(p) for p in (inner[:1] if several else inner)))
            count = "" if several else f"{len(inner)} times "
            words.append(f"list of {count}{', '.join(what)}")
        elif origin in (dict, Mapping) or _is_model(part):
            words.append("table")
        else:
            words.append(_WORDS.get(part, "text"))
    return " or ".join(dict.fromkeys(words))


def _flat(annotation: Any) -> Iterator[Any]:
    """Yield what a union holds; annotations are taken off."""
    origin = get_origin(annotation)
    if hasattr(annotation, "__metadata__"):
        yield from _flat(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from _flat(part)
    else:
        yield annotation


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, pydantic.BaseModel)


def _models(annotation: Any) -> Iterator[type[pydantic.BaseModel]]:
    if _is_model(annotation):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


@cache
def _comments(model: type[pydantic.BaseModel]) -> dict[str, str]:
    """Return the comments beside or above fields, by the field's name, also of base classes."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if _is_model(base) and base is not pydantic.BaseModel and "[" not in base.__name__:
            found |= _attributes_in(inspect.getdoc(base) or "")
            found |= _comments_in(textwrap.dedent(inspect.getsource(base)))
    return found


def _attributes_in(docstring: str) -> dict[str, str]:
    """Return what a docstring says under ``Attributes:``, by name."""
    _, _, listed = docstring.partition("Attributes:\n")
    entries = re.findall(r"(?m)^    (\w+): (.*(?:\n {8,}.*)*)", listed)
    plain = ((name, re.sub(r":\w+:`|``", "`", text)) for name, text in entries)
    return {name: " ".join(text.split()).rstrip(".") for name, text in plain}


def _comments_in(source: str) -> dict[str, str]:
    comments = {
        token.start[0]: (token.string.lstrip("# "), token.line.lstrip().startswith("#"))
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            continue
        above: list[str] = []
        line = node.lineno - 1
        while line in comments and comments[line][1]:
            above.insert(0, comments[line][0])
            line -= 1
        beside = [
            comments[n][0] for n in range(node.lineno, (node.end_lineno or 0) + 1) if n in comments
        ]
        if text := " ".join([*above, *beside]):
            found[node.target.id] = text
    return found
