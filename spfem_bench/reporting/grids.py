"""A table ready to be printed, as text, Markdown, wide CSV, LaTeX or HTML, its texts escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, takewhile
from typing import Literal

from spfem_bench.definitions.protocols import AVERAGE, EMOTIONS
from spfem_bench.reporting.templating import fill_template
from spfem_bench.texts import csv_text, text_table

Style = Literal["text", "markdown", "csv", "latex", "tabular", "html"]


@dataclass(frozen=True)
class Label:
    """A head or the name of a row: text for readers, name for programs, letters of signatures."""

    text: str
    name: str
    marks: str = ""


@dataclass(frozen=True)
class Entry:
    """One number: as printed, with the interval and the sign behind it, and at full precision.

    The rank is 1 for the best, 2 for the second best of those that may be compared, else 0.
    """

    text: str = "–"
    value: str = ""
    rank: int = 0
    interval: str = ""
    bounds: tuple[str, str] = ("", "")
    mark: str = ""
    signature: str = ""


@dataclass(frozen=True)
class Grid:
    """Rows with their names at the left (under *stubs*), under columns with their heads.

    Attributes:
        heads: for each column its heads, from the widest group down.
        signatures: the letter of each (empty where none is needed) and the signature.
        label: what LaTeX refers to the table by.
    """

    stubs: tuple[Label, ...]
    heads: tuple[tuple[Label, ...], ...]
    rows: tuple[tuple[tuple[Label, ...], tuple[Entry, ...]], ...]
    notes: tuple[str, ...] = ()
    signatures: tuple[tuple[str, str], ...] = ()
    title: str = ""
    label: str = ""


def print_grid(grid: Grid, style: Style, *, standalone: bool = False, fold: int = 0) -> str:
    """Return a grid in one of the styles (see ``docs/tables.md``); *standalone* LaTeX compiles.

    With *fold*, a grid of more columns of numbers is printed in parts below each other, but in CSV
    and HTML.
    """
    if style == "latex":
        return _latex(grid, standalone, fold)
    if style == "tabular":
        return "\n".join(map(_tabular, folded(grid, fold)))
    if style in ("text", "markdown") and len(parts := folded(grid, fold)) > 1:
        bare = [replace(part, notes=(), signatures=()) for part in parts[:-1]]
        return "\n".join(print_grid(part, style) for part in (*bare, parts[-1]))
    printers = {"text": _text, "markdown": _markdown, "csv": _csv, "html": _html}
    return printers[style](grid)


def folded(grid: Grid, most: int) -> list[Grid]:
    """Return parts of a grid with at most so many columns of numbers; one when *most* is 0.

    Columns under one head stay together where they are no more than *most*.
    """
    if not most or len(grid.heads) <= most:
        return [grid]
    parts: list[list[int]] = [[]]
    for _, group in groupby(range(len(grid.heads)), key=lambda i: grid.heads[i][:-1]):
        own = [*group]
        if parts[-1] and len(grid.heads[0]) > 1 and len(parts[-1]) + len(own) > most:
            parts.append([])
        for i in own:
            if len(parts[-1]) == most:
                parts.append([])
            parts[-1].append(i)
    return [
        replace(
            grid,
            heads=tuple(grid.heads[i] for i in part),
            rows=tuple((names, tuple(entries[i] for i in part)) for names, entries in grid.rows),
        )
        for part in parts
    ]


def emotion_label(emotion: str) -> str:
    """Return an emotion, or the average, for readers."""
    if emotion == AVERAGE:
        return "Avg."
    return emotion.capitalize() if emotion in EMOTIONS else emotion  # a user's are kept


def one_line(text: str) -> str:
    """Return text whose control characters are spaces."""
    return "".join(c if c.isprintable() else " " for c in text)


def _after(entry: Entry) -> str:
    """Return what follows a number: its mark and its interval."""
    return entry.mark + (f" {entry.interval}" if entry.interval else "")


def _rows(grid: Grid) -> Iterator[tuple[int, tuple[Label, ...], tuple[Entry, ...]]]:
    """Yield each row after the number of its leading names that repeat the row above."""
    above: tuple[Label, ...] = ()
    for labels, entries in grid.rows:
        pairs = zip(above[:-1], labels, strict=False)  # the last name is always printed
        yield len([*takewhile(lambda pair: pair[0] == pair[1], pairs)]), labels, entries
        above = labels


# ---- text, Markdown, CSV -------------------------------------------------------------------


def _tabulate(stubs: Sequence[str], heads: Sequence[str], body: list[list[str]], style: str) -> str:
    align = "l" * len(stubs) + "r" * len(heads)
    return text_table(body, [*stubs, *heads], align, style) + "\n"


def _text_label(label: Label) -> str:
    return one_line(label.text) + (f"^{label.marks}" if label.marks else "")


def _text(grid: Grid) -> str:
    heads = ["\n".join(map(_text_label, head)) for head in grid.heads]
    body = []
    for repeated, labels, entries in _rows(grid):
        names = [""] * repeated + [*map(_text_label, labels[repeated:])]
        body.append([*names, *(entry.text + _after(entry) for entry in entries)])
    table = _tabulate([stub.text for stub in grid.stubs], heads, body, "simple")
    below = [*grid.notes, *(f"{k}: {s}" if k else s for k, s in grid.signatures)]
    return table + "".join(f"\n{one_line(line)}" for line in below) + ("\n" if below else "")


def markdown_escape(text: str) -> str:
    """Return text that Markdown prints as it is, in a cell too; brackets only where links."""
    return re.sub(r"([\\`*<>|~&]|(?<!\w)_|_(?!\w)|\](?=[(\[:]))", r"\\\1", one_line(text))


def _markdown_label(label: Label) -> str:
    return markdown_escape(label.text) + (f"<sup>{label.marks}</sup>" if label.marks else "")


def _markdown_number(entry: Entry) -> str:
    # Markdown has no underlining; <ins> is kept by GitHub and by mkdocs.
    before, behind = {1: ("**", "**"), 2: ("<ins>", "</ins>")}.get(entry.rank, ("", ""))
    return before + markdown_escape(entry.text) + behind + markdown_escape(_after(entry))


def _markdown(grid: Grid) -> str:
    heads = [" ".join(map(_markdown_label, head)) for head in grid.heads]
    body = [
        [*map(_markdown_label, labels), *map(_markdown_number, entries)]
        for labels, entries in grid.rows
    ]
    table = _tabulate([*map(_markdown_label, grid.stubs)], heads, body, "github")
    below = [f"- {markdown_escape(note)}" for note in grid.notes]
    for letter, signature in grid.signatures:
        code = one_line(signature).replace("`", "'")
        below.append(f"- {letter}: `{code}`" if letter else f"- `{code}`")
    return table + ("\n" if below else "") + "".join(f"{line}\n" for line in below)


def _csv(grid: Grid) -> str:
    every = [entry for _, entries in grid.rows for entry in entries]
    intervals, signed = any(e.interval for e in every), any(e.signature for e in every)
    heads = [stub.name for stub in grid.stubs]
    for head in grid.heads:
        name = " ".join(h.name for h in head)
        heads += [name, f"{name} low", f"{name} high"] if intervals else [name]
    rows = [[*heads, *(["signatures"] if signed else [])]]
    for labels, entries in grid.rows:
        line = [label.name for label in labels]
        for entry in entries:
            line += [entry.value, *entry.bounds] if intervals else [entry.value]
        signatures = dict.fromkeys(e.signature for e in entries if e.signature)
        rows.append([*line, *([" ".join(signatures)] if signed else [])])
    return csv_text(rows)


# ---- LaTeX ---------------------------------------------------------------------------------

_LATEX = {sign: f"\\{sign}" for sign in "{}$&%#_"} | {sign: f"{{{sign}}}" for sign in "[]*"}
_LATEX |= {"–": "--", "−": "$-$", '"': "''"}
_NAMED = "backslash asciicircum asciitilde asciigrave less greater bar dagger daggerdbl section"
_LATEX |= {
    sign: rf"\text{name}{{}}" for sign, name in zip("\\^~`<>|†‡§", _NAMED.split(), strict=True)
}
_LATEX |= {"↓": r"$\downarrow$", "↑": r"$\uparrow$", "→": r"$\rightarrow$", "…": r"\dots{}"}
_LATEX |= {"±": r"$\pm$", "×": r"$\times$", "≤": r"$\leq$", "≥": r"$\geq$"}


def latex_escape(text: str) -> str:
    r"""Return text that LaTeX prints as it is; signs beyond Latin-1, often without font, by number.

    >>> latex_escape("é 中")
    'é {[}U+4E2D{]}'
    """
    return "".join(map(_latex_sign, one_line(text)))


def _latex_sign(sign: str) -> str:
    if sign in _LATEX:
        return _LATEX[sign]
    known = sign.isascii() or (sign.isalpha() and sign <= "ÿ")
    return sign if known else f"{{[}}U+{ord(sign):04X}{{]}}"


def _latex_label(label: Label) -> str:
    marks = rf"\textsuperscript{{{label.marks}}}" if label.marks else ""
    return latex_escape(label.text) + marks


def _latex_number(entry: Entry) -> str:
    around = {1: r"\textbf{%s}", 2: r"\underline{%s}"}.get(entry.rank, "%s")
    text = around.replace("%s", _latex_minus(entry.text))
    if entry.mark:  # it must not move the number out of its column
        text += rf"\rlap{{{latex_escape(entry.mark)}}}"
    if entry.interval:
        text += rf" {{\scriptsize {_latex_minus(entry.interval)}}}"
    return text


def _latex_minus(number: str) -> str:
    return re.sub(r"-(?=\d)", "$-$", latex_escape(number))


def _depth(grid: Grid) -> int:
    return len(grid.heads[0]) if grid.heads else 1


def _spans(grid: Grid, level: int) -> list[tuple[Label, int]]:
    """Return the heads of one level, each with the number of its columns."""
    above = [head[: level + 1] for head in grid.heads]
    return [(key[-1], len(list(run))) for key, run in groupby(above)]


def _columns(grid: Grid) -> str:
    spans = [n for _, n in _spans(grid, 0)] if _depth(grid) > 1 else [len(grid.heads)]
    return "l" * len(grid.stubs) + r"@{\hspace{12pt}}".join("r" * span for span in spans)


def _tabular(grid: Grid) -> str:
    """Return the bare tabular in booktabs' style, for a table of the user's own."""
    values = {"columns": _columns(grid), "heads": _latex_heads(grid), "rows": _latex_rows(grid)}
    return fill_template("tabular.tex", values)


_COMMAND = re.compile(r"spfem-bench \w|(?<![\w-])--[a-z]|\bpip install\b|\bType:")


def without_commands(note: str) -> str:
    """Return a note without what a user is to type: for a paper's readers.

    >>> without_commands("No FAD: incomplete: no headline score without --partial")
    'No FAD: incomplete: no headline score'
    """
    note = re.sub(r" (?:without|with) --[a-z-]+", "", note)
    sentences = re.split(r"(?<=[.;]) ", note)
    return " ".join(s for s in sentences if not _COMMAND.search(s)).rstrip(";")


def _latex(grid: Grid, standalone: bool, fold: int) -> str:
    """Return a table in booktabs' style, shrunk to the line where it is wider; notes below."""
    notes = [latex_escape(note) for note in map(without_commands, grid.notes) if note]
    for letter, signature in grid.signatures:
        code = latex_escape(signature).replace(r"\textbar{}", r"\textbar{}\allowbreak ")
        notes.append((rf"\textsuperscript{{{letter}}} " if letter else "") + rf"\texttt{{{code}}}")
    values = {"standalone": standalone, "title": latex_escape(grid.title), "notes": notes}
    values |= {"label": re.sub(r"[^\w:.+/-]", "-", grid.label)}
    values["tabulars"] = [
        {"columns": _columns(part), "heads": _latex_heads(part), "rows": _latex_rows(part)}
        for part in folded(grid, fold)
    ]
    return fill_template("table.tex", values)


def _latex_heads(grid: Grid) -> Iterator[str]:
    for level in range(_depth(grid) - 1):
        cells, rules, at = [""] * len(grid.stubs), [], len(grid.stubs) + 1
        for label, span in _spans(grid, level):
            cells.append(rf"\multicolumn{{{span}}}{{c}}{{{_latex_label(label)}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + span - 1}}}")
            at += span
        yield " & ".join(cells) + r" \\"
        yield " ".join(rules)
    last = [head[-1] for head in grid.heads]
    yield " & ".join(map(_latex_label, [*grid.stubs, *last])) + r" \\"


def _latex_rows(grid: Grid) -> Iterator[str]:
    side, width = len(grid.stubs), len(grid.stubs) + len(grid.heads)
    for number, (repeated, labels, entries) in enumerate(_rows(grid)):
        if number and repeated < side - 1:
            yield r"\midrule" if repeated == 0 else rf"\cmidrule(l){{{repeated + 1}-{width}}}"
        elif number and labels[-1].name == AVERAGE:
            yield r"\addlinespace"
        names = [""] * repeated + [*map(_latex_label, labels[repeated:])]
        yield " & ".join([*names, *map(_latex_number, entries)]) + r" \\"


# ---- HTML ----------------------------------------------------------------------------------


def _html_escape(text: str) -> str:
    return html.escape(one_line(text))


def _html(grid: Grid) -> str:
    """Return a table without style or script, everything in it escaped."""
    levels = [_spans(grid, level) for level in range(_depth(grid) - 1)]
    values = {"grid": grid, "levels": [*levels, [(head[-1], 1) for head in grid.heads]]}
    return fill_template("table.html", values, escaped=_html_escape)
