"""Run records as a leaderboard: one page, in which only equal signatures share a table."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from urllib.parse import quote

from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.metrics import MetricCard, metric_card
from spfem_bench.definitions.protocols import AVERAGE
from spfem_bench.definitions.references import bibtex
from spfem_bench.errors import CardError, SpfemBenchError
from spfem_bench.evaluation.record import NoRunError, RunRecord, Score, record_files
from spfem_bench.evaluation.verify import Verification, verify_file
from spfem_bench.reporting.report.page import fill_page
from spfem_bench.reporting.report.words import clips_text, interval_text, number_text
from spfem_bench.reporting.tables import LEGEND, MARKS
from spfem_bench.stored import read_bounded

SUBMITTED = "reference_results/submitted"
REPORT = "report/index.html"  # beside a record: its clip report


@dataclass(frozen=True)
class Entry:
    """One record, verified, with the bytes of its file."""

    path: Path
    content: bytes
    verified: Verification

    @property
    def record(self) -> RunRecord:
        """The record."""
        return self.verified.record

    @property
    def copy(self) -> str:
        """The name of its copy beside the page."""
        return f"records/{hashlib.sha256(self.content).hexdigest()[:32]}.json"

    @property
    def numbers(self) -> list[Score]:
        """The headline scores that are a number."""
        return [score for score in self.headlines.values() if score.value is not None]

    @cached_property
    def headlines(self) -> dict[str, Score]:
        """Headline scores with a signature, by metric."""
        return {s.metric: s for s in self.record.scores if s.signature and s.emotion == AVERAGE}


@dataclass
class Board:
    """Records of one protocol that may be ranked: each metric has one signature."""

    signatures: dict[str, str] = field(default_factory=dict)
    entries: list[Entry] = field(default_factory=list)

    def takes(self, entry: Entry) -> bool:
        """Whether a record has metrics of this table, all with the table's signatures."""
        both = self.signatures.keys() & entry.headlines.keys()
        return bool(both) and all(
            self.signatures[metric] == entry.headlines[metric].signature for metric in both
        )

    def add(self, entry: Entry) -> None:
        """Put a record into the table."""
        self.entries.append(entry)
        for metric, score in entry.headlines.items():
            self.signatures.setdefault(metric, score.signature)

    @property
    def metrics(self) -> list[MetricCard]:
        """The columns: metrics of which a record has a number."""
        numbers = dict.fromkeys(s.metric for entry in self.entries for s in entry.numbers)
        return list(map(metric_card, numbers))

    def places(self, metric: MetricCard) -> dict[str, int]:
        """Return each method's place, from 1; equal numbers share one, controls have none."""
        badness = {
            entry.record.method.name: metric.badness(score.value)
            for entry in self.entries
            if not entry.record.is_control
            and (score := entry.headlines.get(metric.name)) is not None
            and score.value is not None
        }
        return {name: 1 + sum(b < own for b in badness.values()) for name, own in badness.items()}


def read_entries(paths: Sequence[Path]) -> tuple[list[Entry], list[str]]:
    """Read records, or all in folders, and verify each; return also what is wrong, one line each.

    Raises CardError when a folder has no file.
    """
    entries, problems = [], []
    seen: dict[str, Path] = {}
    for path in record_files(paths):
        try:
            entry = Entry(path, read_bounded(path), verify_file(path))
            for metric in entry.headlines:
                metric_card(metric)  # says what is better
        except NoRunError as error:
            problems += [str(error)] if path in paths else []
            continue
        except OSError as error:
            problems.append(f"{path}: {error.strerror}")
            continue
        except SpfemBenchError as error:
            problems.append(str(error) if str(path) in str(error) else f"{path}: {error}")
            continue
        if not entry.verified.holds:
            first, rest = entry.verified.mismatches[0], len(entry.verified.mismatches) - 1
            more = f" and {rest} more" if rest else ""
            problems.append(f"{path} fails 'spfem-bench verify': {first.place}{more}")
        elif not entry.numbers:
            problems.append(f"{path} has no headline score to rank")
        elif entry.copy in seen:
            problems.append(f"{path} is the same file as {seen[entry.copy]}")
        entries.append(entry)
        seen.setdefault(entry.copy, path)
    if not problems:
        problems = [p for boards in make_boards(entries).values() for p in _twice(boards)]
    return entries, problems


def _twice(boards: Sequence[Board]) -> list[str]:
    problems = []
    for board in boards:
        first: dict[str, Path] = {}
        for entry in board.entries:
            name = entry.record.method.name
            if name in first:
                both = f"{first[name]} and {entry.path}"
                problems.append(f"{both} are two records of '{name}' with the same signatures")
            first.setdefault(name, entry.path)
    return problems


def make_boards(entries: Sequence[Entry]) -> dict[str, list[Board]]:
    """Return tables by protocol: a record goes where all metrics in common have its signatures.

    Records with more metrics are placed first, so that the order of *entries* makes no difference.
    The table of most records comes first.
    """

    def order(entry: Entry) -> tuple[int, bool, str, str]:
        record = entry.record
        return -len(entry.headlines), record.is_control, record.method.name, entry.copy

    protocols: dict[str, list[Board]] = {}
    for entry in sorted(entries, key=order):
        boards = protocols.setdefault(entry.record.protocol.name, [])
        board = next((board for board in boards if board.takes(entry)), None)
        if board is None:
            boards.append(board := Board())
        board.add(entry)
    for boards in protocols.values():
        boards.sort(key=lambda board: -len(board.entries))  # stable
    return dict(sorted(protocols.items()))


@dataclass(frozen=True)
class _Cell:
    text: str = "–"
    interval: str = ""
    key: str = ""
    place: str = ""
    note: int | None = None


@dataclass(frozen=True)
class _Row:
    entry: Entry
    mark: str
    cells: tuple[_Cell, ...]
    place: str
    coverage: str
    share: str
    report: str


def _rows(board: Board, notes: dict[str, int], reports: Mapping[Path, str]) -> list[_Row]:
    """Return a table's rows, the best in the first metric on top; new notes get a number."""
    metrics = board.metrics
    places = {metric.name: board.places(metric) for metric in metrics}

    def cell(entry: Entry, metric: MetricCard) -> _Cell:
        score = entry.headlines.get(metric.name)
        if score is None:
            return _Cell()
        note = notes.setdefault(score.note, len(notes) + 1) if score.note else None
        if score.value is None:
            return _Cell(note=note)
        place = places[metric.name].get(entry.record.method.name)
        return _Cell(
            number_text(score.value),
            interval_text(score.low, score.high),
            repr(metric.badness(score.value)),
            "" if place is None else str(place),
            note,
        )

    def row(entry: Entry) -> _Row:
        least = min(entry.numbers, key=lambda s: s.n_items)
        mark = MARKS["control"] if entry.record.is_control else ""
        cells = tuple(cell(entry, metric) for metric in metrics)
        share = f"{least.n_items / max(1, least.n_items + least.n_refused):.4f}"
        report = reports.get(entry.path, "")
        return _Row(entry, mark, cells, cells[0].place, clips_text(least), share, report)

    def order(row: _Row) -> tuple[float, str]:
        key = row.cells[0].key
        return (float(key) if key else float("inf")), row.entry.record.method.name

    return sorted(map(row, board.entries), key=order)


def build_leaderboard(entries: Sequence[Entry], output: Path | None = None) -> dict[str, bytes]:
    """Return the page's files by name: the page, and a copy of each record.

    *output* is where the page will lie; a clip report beside a record is linked from there.
    The same records give the same bytes.
    """
    reports = {}
    for entry in entries if output else ():
        own = entry.path.parent / REPORT
        if output and own.is_file():
            reports[entry.path] = quote(Path(os.path.relpath(own, output)).as_posix())
    notes: dict[str, int] = {}
    sections = [
        (name, [(board, _rows(board, notes, reports)) for board in boards])
        for name, boards in make_boards(entries).items()
    ]
    metrics = dict.fromkeys(m for entry in entries for m in entry.headlines)
    unchecked = dict.fromkeys(line for entry in entries for line in entry.verified.unchecked)
    page = fill_page(
        "leaderboard.html",
        title="Leaderboard",
        sections=sections,
        count=len(entries),
        notes=notes,
        unchecked=unchecked,
        control=LEGEND["control"],
        bibtex=bibtex(metrics),
    )
    return {"index.html": page, **{entry.copy: entry.content for entry in entries}}


@cache
def submitted() -> dict[str, bytes]:
    """Return the page's files of the records in ``reference_results/submitted/``.

    Raises:
        CardError: a record is refused; names all.
    """
    entries, problems = read_entries([builtin_folder() / SUBMITTED])
    if problems:
        raise CardError("; ".join(problems), f"Mend or remove them in {SUBMITTED}")
    return build_leaderboard(entries)
