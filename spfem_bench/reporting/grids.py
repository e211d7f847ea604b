"""A table ready to be printed, as text, Markdown, wide CSV, LaTeX or HTML.

Every printer takes the same :class:`Grid` and escapes what it is given: names of methods
come from users.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Literal

from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.texts import csv_text

Style = Literal["text", "markdown", "csv", "latex", "html"]


@dataclass(frozen=True)
class Label:
    """A head or the name of a row.

    Attributes:
        text: as read.
        name: for programs.
        marks: letters of the signatures that it stands on.
    """

    text: str
    name: str
    marks: str = ""


@dataclass(frozen=True)
class Entry:
    """One printed number.

    Attributes:
        text: the number as printed; a dash where there is none.
        value: the same at full precision, for programs.
        rank: 1 the best, 2 the second best of those that may be compared, else 0.
        interval: its interval as printed.
        bounds: both ends of it at full precision.
        mark: a sign set behind it.
        signature: how it was made.
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
    """Rows with their names at the left, under columns with their heads.

    Attributes:
        stubs: heads over the rows' names.
        heads: for each column its heads, from the widest group down.
        rows: each row's names, and one entry for each column.
        notes: lines below the table.
        signatures: with the letter that stands for each, if letters are needed.
        title: one line without markup.
    """

    stubs: tuple[Label, ...]
    heads: tuple[tuple[Label, ...], ...]
    rows: tuple[tuple[tuple[Label, ...], tuple[Entry, ...]], ...]
    notes: tuple[str, ...] = ()
    signatures: tuple[tuple[str, str], ...] = ()
    title: str = ""


def print_grid(grid: Grid, style: Style, *, standalone: bool = False) -> str:
    """Return a grid in one of the styles; the same grid always gives the same text.

    Args:
        grid: what to print.
        style: ``csv`` is one line a row, at full precision; see ``docs/tables.md``.
        standalone: with LaTeX, a document that compiles by itself.
    """
    if style == "latex":
        table = _latex(grid)
        return f"{_PREAMBLE}{table}{_END}" if standalone else table
    printers: dict[Style, Callable[[Grid], str]] = {
        "text": _text,
        "markdown": _markdown,
        "csv": _csv,
        "html": _html,
    }
    return printers[style](grid)


def _number(entry: Entry) -> str:
    return f"{entry.text}{entry.mark}" + (f" {entry.interval}" if entry.interval else "")


def _seen(grid: Grid) -> list[list[str]]:
    """Return the rows' names, those left blank that repeat the row above."""
    lines: list[list[str]] = []
    above: Sequence[Label] = ()
    for labels, _ in grid.rows:
        same = True
        line = []
        for i, label in enumerate(labels):
            same = same and i < len(above) - 1 and above[i] == label
            line.append("" if same else _plain(label))
        lines.append(line)
        above = labels
    return lines


def emotion_label(emotion: str) -> str:
    """Return an emotion as read; the average too."""
    return "Avg." if emotion == AVERAGE else emotion.capitalize()


def one_line(text: str) -> str:
    """Return text whose control characters are spaces."""
    return "".join(c if c.isprintable() else " " for c in text)


def _plain(label: Label) -> str:
    return one_line(label.text) + (f"^{label.marks}" if label.marks else "")


# ---- text, Markdown, CSV -------------------------------------------------------------------


def _text(grid: Grid) -> str:
    from tabulate import tabulate

    heads = ["\n".join(map(_plain, head)) for head in grid.heads]
    body = [
        [*line, *map(_number, entries)]
        for line, (_, entries) in zip(_seen(grid), grid.rows, strict=True)
    ]
    printed = tabulate(
        body,
        [*(s.text for s in grid.stubs), *heads],
        tablefmt="simple",
        disable_numparse=True,
        colalign=[*("left" for _ in grid.stubs), *("right" for _ in grid.heads)],
    )
    below = [*grid.notes, *(f"{k}: {s}" if k else s for k, s in grid.signatures)]
    return (
        printed + "\n" + "".join(f"\n{one_line(line)}" for line in below) + ("\n" if below else "")
    )


def markdown_escape(text: str) -> str:
    """Return text that Markdown prints as it is, in a cell too; brackets only where links."""
    return re.sub(r"([\\`*<>|~&]|(?<!\w)_|_(?!\w)|\](?=[(\[:]))", r"\\\1", one_line(text))


def _markdown(grid: Grid) -> str:
    from tabulate import tabulate

    def label(given: Label) -> str:
        return markdown_escape(given.text) + (f"<sup>{given.marks}</sup>" if given.marks else "")

    def number(entry: Entry) -> str:
        # Markdown has no underlining; <ins> is kept by GitHub and by mkdocs.
        around = {1: ("**", "**"), 2: ("<ins>", "</ins>")}.get(entry.rank, ("", ""))
        rest = entry.mark + (f" {entry.interval}" if entry.interval else "")
        return around[0] + markdown_escape(entry.text) + around[1] + markdown_escape(rest)

    heads = [" ".join(map(label, head)) for head in grid.heads]
    body = [[*map(label, labels), *map(number, entries)] for labels, entries in grid.rows]
    printed = tabulate(
        body,
        [*map(label, grid.stubs), *heads],
        tablefmt="github",
        disable_numparse=True,
        colalign=[*("left" for _ in grid.stubs), *("right" for _ in grid.heads)],
    )
    below = [f"- {markdown_escape(note)}" for note in grid.notes]
    for letter, sign in grid.signatures:
        code = one_line(sign).replace("`", "'")
        below.append(f"- {letter}: `{code}`" if letter else f"- `{code}`")
    return printed + "\n" + ("\n" if below else "") + "".join(f"{line}\n" for line in below)


def _csv(grid: Grid) -> str:
    intervals = any(entry.interval for _, entries in grid.rows for entry in entries)
    signed = any(entry.signature for _, entries in grid.rows for entry in entries)
    heads = [s.name for s in grid.stubs]
    for head in grid.heads:
        name = " ".join(h.name for h in head)
        heads += [name, f"{name} low", f"{name} high"] if intervals else [name]
    rows = [[*heads, *(["signatures"] if signed else [])]]
    for labels, entries in grid.rows:
        line = [label.name for label in labels]
        for entry in entries:
            line += [entry.value, *entry.bounds] if intervals else [entry.value]
        signs = dict.fromkeys(e.signature for e in entries if e.signature)
        rows.append([*line, *([" ".join(signs)] if signed else [])])
    return csv_text(rows)


# ---- LaTeX ---------------------------------------------------------------------------------

_PREAMBLE = r"""\documentclass[10pt]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{lmodern}
\usepackage{booktabs,graphicx}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\pagestyle{empty}
\begin{document}
"""
_END = "\\end{document}\n"

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "→": r"$\rightarrow$",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "–": "--",
    "±": r"$\pm$",
    "×": r"$\times$",
    "…": r"\dots{}",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "−": r"$-$",
}


def latex_escape(text: str) -> str:
    r"""Return text that LaTeX prints as it is.

    Signs beyond Latin-1, for which a font may be absent, are printed as their code point.

    >>> print(latex_escape("a_b%{~\\}"))
    a\_b\%\{\textasciitilde{}\textbackslash{}\}
    >>> latex_escape("é 中")
    'é {[}U+4E2D{]}'
    """
    found = []
    for sign in one_line(text):
        known = _LATEX.get(sign)
        if known is None and not (sign.isascii() or (sign.isalpha() and sign <= "ÿ")):
            known = f"{{[}}U+{ord(sign):04X}{{]}}"
        found.append(sign if known is None else known)
    return "".join(found)


def _latex_label(label: Label) -> str:
    marks = rf"\textsuperscript{{{label.marks}}}" if label.marks else ""
    return latex_escape(label.text) + marks


def _latex_number(entry: Entry) -> str:
    around = {1: r"\textbf{%s}", 2: r"\underline{%s}"}.get(entry.rank, "%s")
    text = around.replace("%s", _minus(entry.text))
    if entry.mark:  # it must not move the number out of its column
        text += rf"\rlap{{{latex_escape(entry.mark)}}}"
    if entry.interval:
        text += rf" {{\scriptsize {_minus(entry.interval)}}}"
    return text


def _minus(number: str) -> str:
    return re.sub(r"-(?=\d)", "$-$", latex_escape(number))


def _spans(grid: Grid, level: int) -> list[tuple[Label, int]]:
    """Return the heads of one level, each with how many columns it stands over."""
    above = [head[: level + 1] for head in grid.heads]
    return [(key[-1], len(list(run))) for key, run in groupby(above)]


def _latex(grid: Grid) -> str:
    """Return a table in booktabs' style, shrunk to the line where it is wider; notes below."""
    side, width = len(grid.stubs), len(grid.stubs) + len(grid.heads)
    levels = len(grid.heads[0]) if grid.heads else 0
    lines = []
    for level in range(levels - 1):
        cells, rules, at = [""] * side, [], side + 1
        for label, span in _spans(grid, level):
            cells.append(rf"\multicolumn{{{span}}}{{c}}{{{_latex_label(label)}}}")
            rules.append(rf"\cmidrule(lr){{{at}-{at + span - 1}}}")
            at += span
        lines += [" & ".join(cells) + r" \\", " ".join(rules)]
    last = [_latex_label(head[-1]) for head in grid.heads]
    lines += [" & ".join([*map(_latex_label, grid.stubs), *last]) + r" \\", r"\midrule"]
    above: tuple[Label, ...] = ()
    for labels, entries in grid.rows:
        new = next((i for i, label in enumerate(labels) if above[i : i + 1] != (label,)), side)
        if above and new < side - 1:
            lines.append(r"\midrule" if new == 0 else rf"\cmidrule(l){{{new + 1}-{width}}}")
        elif above and labels[-1].name == AVERAGE:
            lines.append(r"\addlinespace")
        shown = ["" if i < new else _latex_label(label) for i, label in enumerate(labels)]
        lines.append(" & ".join([*shown, *map(_latex_number, entries)]) + r" \\")
        above = labels
    spans = [span for _, span in _spans(grid, 0)] if levels > 1 else [len(grid.heads)]
    columns = r"@{\hspace{12pt}}".join("r" * span for span in spans)
    notes = [latex_escape(note) for note in grid.notes]
    for letter, sign in grid.signatures:
        code = latex_escape(sign).replace(r"\textbar{}", r"\textbar{}\allowbreak ")
        notes.append((rf"\textsuperscript{{{letter}}} " if letter else "") + rf"\texttt{{{code}}}")
    below = [
        r"\par\smallskip",
        r"\dimen0=\wd0 \ifdim\dimen0<.6\linewidth\dimen0=.6\linewidth\fi",
        r"\ifdim\dimen0>\linewidth\dimen0=\linewidth\fi",
        r"\begin{minipage}{\dimen0}\scriptsize\raggedright",
        *(f"{note}\\par" for note in notes),
        r"\end{minipage}",
    ]
    return "\n".join(
        [
            r"% needs \usepackage{booktabs,graphicx}",
            r"\begin{table*}[t]",
            r"\centering\small",
            *([rf"\caption{{{latex_escape(grid.title)}}}"] if grid.title else []),
            r"\par\smallskip\setlength{\tabcolsep}{4pt}",
            r"\sbox0{%",
            rf"\begin{{tabular}}{{{'l' * side}{columns}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}}%",
            r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
            *(below if notes else []),
            r"\end{table*}",
            "",
        ]
    )


# ---- HTML ----------------------------------------------------------------------------------


def _safe(text: str) -> str:
    return html.escape(one_line(text))


def _html(grid: Grid) -> str:
    """Return a table without style or script, everything in it escaped."""

    def label(given: Label) -> str:
        marks = f"<sup>{_safe(given.marks)}</sup>" if given.marks else ""
        return _safe(given.text) + marks

    def number(entry: Entry) -> str:
        tag = {1: "b", 2: "u"}.get(entry.rank)
        text = _safe(entry.text)
        rest = entry.mark + (f" {entry.interval}" if entry.interval else "")
        return (f"<{tag}>{text}</{tag}>" if tag else text) + _safe(rest)

    lines = ["<table>"]
    if grid.title:
        lines.append(f"<caption>{_safe(grid.title)}</caption>")
    lines.append("<thead>")
    levels = len(grid.heads[0]) if grid.heads else 1
    for level in range(levels):
        lines.append("<tr>")
        if level == 0:
            down = f' rowspan="{levels}"' if levels > 1 else ""
            lines += [f'<th scope="col"{down}>{label(stub)}</th>' for stub in grid.stubs]
        if level < levels - 1:
            lines += [
                f'<th scope="colgroup" colspan="{span}">{label(head)}</th>'
                for head, span in _spans(grid, level)
            ]
        else:
            lines += [f'<th scope="col">{label(head[-1])}</th>' for head in grid.heads]
        lines.append("</tr>")
    lines += ["</thead>", "<tbody>"]
    for labels, entries in grid.rows:
        names = "".join(f'<th scope="row">{label(each)}</th>' for each in labels)
        lines.append(f"<tr>{names}{''.join(f'<td>{number(e)}</td>' for e in entries)}</tr>")
    lines += ["</tbody>", "</table>"]
    below = [_safe(note) for note in grid.notes]
    for letter, sign in grid.signatures:
        code = f"<code>{_safe(sign)}</code>"
        below.append(f"<sup>{_safe(letter)}</sup> {code}" if letter else code)
    if below:
        lines += ["<ul>", *(f"<li>{line}</li>" for line in below), "</ul>"]
    return "\n".join(lines) + "\n"
