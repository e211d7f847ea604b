"""Command lines in texts: found, and parsed by click without being run."""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import click

from spfem_bench.cli.main import main


@dataclass(frozen=True)
class Line:
    """One command line with the values that click made of it, by option or argument."""

    text: str
    values: dict[str, Any] = field(hash=False)

    def uses(self, name: str) -> bool:
        """Say whether a card's name is an argument, alone or in a list."""
        return any(
            name in each.split(",") for value in self.values.values() for each in flat(value)
        )


def flat(value: Any) -> Iterator[str]:
    if isinstance(value, (tuple, list)):
        for each in value:
            yield from flat(each)
    elif isinstance(value, (str, Path)):
        yield str(value)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    body: str


def blocks(markdown: str) -> list[Block]:
    """Return all fenced blocks, also those within a list."""
    fenced = re.findall(r"^( *)```([^\n`]*)\n(.*?)^ *```", markdown, re.DOTALL | re.MULTILINE)
    return [Block(language.strip(), textwrap.dedent(body)) for _, language, body in fenced]


def code_blocks(markdown: str) -> list[str]:
    """Return what is fenced as shell, or as nothing in particular."""
    shell = ("", "sh", "bash", "console")
    return [block.body for block in blocks(markdown) if block.language in shell]


def shell_lines(block: str) -> list[str]:
    """Return the commands of a block of shell, each on one line.

    Loops are written out; comments and variables set for one command are left out.
    """
    joined = re.sub(r"(?m)(^|\s)#.*$", "", re.sub(r"\s*\\\n\s*", " ", block))
    loop = re.compile(r"for (\w+) in ([^;\n]*); do\s+(((?!for ).)*?);?\s+done", re.DOTALL)
    while found := loop.search(joined):
        name, values, body = found[1], found[2].split(), found[3]
        written = "\n".join(body.replace(f"${name}", value) for value in values)
        joined = joined[: found.start()] + written + joined[found.end() :]
    parts = (part for line in joined.splitlines() for part in re.split(r";|&&|\|\|", line))
    return [
        re.sub(r"^(\w+=\S+ )+(?=spfem-bench )", "", part.strip()) for part in parts if part.strip()
    ]


def commands_of(block: str) -> list[str]:
    """Return the calls of spfem-bench in a block of shell, each on one line."""
    joined = re.sub(r"\s*\\\n\s*", " ", block)
    parts = (part for line in joined.splitlines() for part in re.split(r";|&&|\|\|", line))
    calls = (re.match(r"\s*(?:\$ |do )?\s*(spfem-bench .*)", part) for part in parts)
    return [call[1].strip() for call in calls if call]


def parse(line: str) -> Line:
    """Let click parse a command line: commands, options, types, choices, counts.

    Raises:
        click.UsageError: it cannot be typed so.
    """
    command: click.Command = main
    context = click.Context(main)
    args = shlex.split(line, comments=True)[1:]
    while isinstance(command, click.Group):
        if not args:
            raise click.UsageError(f"'{line}' names no command")
        found = command.get_command(context, args[0])
        if found is None:
            raise click.UsageError(f"'{line}': there is no command '{args[0]}'")
        command, args = found, args[1:]
    # Whether files exist is not asked: the texts' are examples.
    with mock.patch.object(
        click.Path, "convert", lambda self, value, *_: (self.type or str)(value)
    ):
        return Line(line, command.make_context(command.name, args).params)
