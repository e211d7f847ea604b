"""The options of ``spfem-bench eval`` that score a user's own folders of clips."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from spfem_bench.cli import options
from spfem_bench.texts import count_text, few

if TYPE_CHECKING:
    from spfem_bench.datasets.own_clips import OwnClips, OwnList
    from spfem_bench.progress import Progress

SCREEN = 24
"""Lines of a screen, in which everything that is wrong is said."""


@dataclass(frozen=True)
class OwnOptions:
    """The values of the options; ``generated`` is empty when there are no clips of one's own."""

    generated: tuple[str, ...]
    source: Path | None
    reference: Path | None
    real: Path | None
    labels: Path | None
    mapping: Path | None
    pattern: str
    sound: Literal["output", "source"]
    setting: Literal["inter-id", "cross-id"] | None
    name: str
    aligned: bool
    any_length: bool


_FILE = click.Path(dir_okay=False, path_type=Path)
_OPTIONS = (
    options.several(
        "--generated",
        metavar="DIR|NAME=DIR",
        help="Your own outputs, matched by name with the clips of --source.",
    ),
    options.folder("--source", help="The clips that the outputs were made of."),
    options.folder("--reference", help="With --generated: clips whose expression is the target."),
    options.folder(
        "--real", help="Real clips, for FAD; those of --reference, else of --source, if not given."
    ),
    click.option("--labels", type=_FILE, help="A CSV: generated,speaker,emotion."),
    click.option(
        "--mapping",
        type=_FILE,
        help="A CSV of what belongs together: generated,source,reference,real,speaker,emotion.",
    ),
    click.option("--pattern", default="", help="How names are read: '{speaker}_{emotion}_{clip}'."),
    options.with_default(
        "--sound",
        type=click.Choice(["output", "source"]),
        default="output",
        help="Whose sound lip sync is measured with.",
    ),
    click.option(
        "--setting",
        type=click.Choice(["inter-id", "cross-id"]),
        help="What tables call it; cross-id with --reference, else inter-id, if not given.",
    ),
    click.option("--name", default="", help="Of the list that --generated makes; the method's."),
    options.flag("--aligned", help="With --generated: the clips are face crops already."),
    options.flag("--any-length", help="Also outputs much shorter or longer than their sources."),
)


def own_options(command: options.Command) -> options.Command:
    """Add the options to a command, which gets their values as one ``own``."""

    @wraps(command)
    def with_own(*arguments: Any, **values: Any) -> None:
        own = OwnOptions(**{f.name: values.pop(f.name) for f in fields(OwnOptions)})
        command(*arguments, own=own, **values)

    decorated: Callable[..., None] = with_own
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated


def check_options(own: OwnOptions, methods: Sequence[str], others: Sequence[str]) -> None:
    """Raise UsageError for options that do not go together; *others* are given ones."""
    context = click.get_current_context()
    if own.generated:
        if own.source is None:
            raise click.UsageError("--generated needs --source DIR: the clips they were made of")
        if others:
            raise click.UsageError(f"--generated does not go with {', '.join(others)}")
        return
    for field in fields(OwnOptions):
        source = context.get_parameter_source(field.name)
        if source is click.core.ParameterSource.COMMANDLINE:
            option = field.name.replace("_", "-")
            raise click.UsageError(f"--{option} goes with --generated DIR: give it too")
    if not methods:
        raise click.MissingParameter(param_type="option", param_hint="'--method'")


def make_protocol(
    own: OwnOptions,
    methods: Sequence[str],
    results: Path,
    frame_rate: float | None,
    *,
    dry_run: bool,
    quiet: bool,
    progress: Progress,
) -> tuple[list[str], str]:
    """Write a protocol of a user's clips; return the methods to score and the card's path.

    Exits with code 2 after all that is wrong with the clips, or with 0 after a dry run.
    """
    from spfem_bench.datasets import own_protocol
    from spfem_bench.datasets.own_clips import OwnClips
    from spfem_bench.datasets.own_matching import match_clips

    folders, others = _named_folders(own, methods)
    source, as_given = own.source or Path(), ("reference", "real", "labels", "mapping", "pattern")
    given = OwnClips(  # that there is a source was checked before
        folders,
        source,
        sound_of_source=own.sound == "source",
        frame_rate=frame_rate,
        any_length=own.any_length,
        **{name: getattr(own, name) for name in as_given},
    )
    made = match_clips(given, progress)
    if made.problems:
        options.print_notes(_problem_lines(made))
        sys.exit(2)
    name = own.name or next(iter(folders))
    setting = own.setting or ("cross-id" if own.reference else "inter-id")
    files = own_protocol.protocol_files(given, made, name, setting=setting, aligned=own.aligned)
    if dry_run:
        _print_items(given, made)
        options.print_notes([*_remarks(given, made), *_unreadable(made)])
        sys.exit(2 if made.unreadable else 0)
    path, replaced = own_protocol.write_protocol(results / name, files)
    if replaced:
        made.remarks.append(f"{path.with_suffix('.csv')} held another list; it is replaced")
    if not quiet:
        options.print_notes(_remarks(given, made))
        click.echo(
            f"Protocol, to be used again: --method {next(iter(folders))} --protocol {path}",
            err=True,
        )
    return [*folders, *others], str(path)


def _named_folders(own: OwnOptions, methods: Sequence[str]) -> tuple[dict[str, Path], list[str]]:
    """Return the folders of outputs by method, and the other methods: controls."""
    from spfem_bench.datasets.own_protocol import own_name
    from spfem_bench.definitions.cards import Kind, names
    from spfem_bench.definitions.methods import method_card
    from spfem_bench.evaluation.plan import check_method_name

    listed = {name: method_card(name) for name in names(Kind.METHOD)}
    controls = {"controls", *(n for n, card in listed.items() if card.control)}
    named = [method for method in methods if method not in controls]
    folders: dict[str, Path] = {}
    for text in own.generated:
        name, _, folder = text.partition("=")
        if not folder or Path(text).exists():
            name, folder = "", text
        if not name and len(own.generated) > 1:
            raise click.UsageError(f"--generated {text}: whose? Type --generated NAME={text}")
        name = name or next(iter(named), "") or own_name(Path(folder))
        if name in folders:
            raise click.UsageError(f"--generated is given twice for {name}")
        if name in controls:
            problem = f"'{name}' is the name of a control"
            raise click.UsageError(
                f"{problem}: add --method NAME, or type --generated NAME={folder}"
            )
        check_method_name(name)
        folders[name] = Path(folder)
    for name in named:
        if name not in folders:
            raise click.UsageError(f"--method {name} has no folder: type --generated {name}=DIR")
    return folders, [method for method in methods if method in controls]


def _problem_lines(made: OwnList) -> list[str]:
    """Return what is wrong, in the lines of one screen."""
    lines = ["The clips cannot be scored as they are. Nothing was computed."]
    room = max(2, (SCREEN - 2) // len(made.problems) - 2)
    for problem in made.problems:
        lines.append(f"{problem.what}{':' if problem.cases else ''}")
        lines += [f"  {case}" for case in problem.cases[:room]]
        if len(problem.cases) > room:
            lines.append(f"  and {len(problem.cases) - room} more")
        if problem.remedy:
            lines.append(f"  -> {problem.remedy}")
    return lines


def _unreadable(made: OwnList) -> list[str]:
    """Return which clips the preflight would refuse."""
    problems = [*dict.fromkeys(made.unreadable)]  # several outputs may have one source
    lines = [f"Cannot be read: {problem}" for problem in problems[: SCREEN // 2]]
    more = len(problems) - len(lines)
    lines += [f"and {more} more"] if more else []
    return [*lines, "To score the others: --partial"] if lines else []


def _remarks(given: OwnClips, made: OwnList) -> list[str]:
    """Return what the list stands on."""
    sources = len({item.clips["source"] for item in made.items})
    real = {"real": "those of --real", "reference": "the references", "source": "the sources"}
    lines = [
        f"{count_text(len(made.items), 'output')} of {' and '.join(given.generated)}, "
        f"made of {count_text(sources, 'source')}",
        *made.remarks,
        f"Real clips, for FAD: {real[made.real_is]}",
    ]
    if made.silent:
        remedy = "Add --sound source to use the sources' sound"
        if given.sound_of_source:
            remedy = "Their sources have none either"
        what = f"{count_text(len(made.silent), 'output')} ({few(made.silent)})"
        lines.append(f"No sound in {what}: no lip sync is measured. {remedy}")
    return lines


def _print_items(given: OwnClips, made: OwnList) -> None:
    roles = ["source", *(["reference"] if given.reference else []), "real"]
    several = (
        [f"Output of {m}" for m in given.generated] if len(given.generated) > 1 else ["Output"]
    )
    rows = [
        [*map(str, i.outputs.values()), *(str(i.clips[r]) for r in roles), i.speaker, i.emotion]  # type: ignore[index]
        for i in made.items
    ]
    options.print_table([*several, *map(str.capitalize, roles), "Speaker", "Emotion"], rows)
