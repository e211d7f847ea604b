"""User studies: votes, or printed percentages, in the papers' table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from spfem_bench.analysis.agreement import agreement, shares
from spfem_bench.definitions.methods import method_card
from spfem_bench.definitions.protocols import AVERAGE, in_order
from spfem_bench.errors import CardError, UnknownNameError
from spfem_bench.reporting.grids import Entry, Grid, Label, Style, emotion_label, print_grid
from spfem_bench.reporting.published import Printed, check_columns, printed_table, read_lines
from spfem_bench.texts import csv_text

NEEDED = ("participant", "item", "question", "method_a", "method_b", "choice")
EXAMPLE = "participant,item,emotion,question,method_a,method_b,choice"

Pair = tuple[str, str]


@dataclass(frozen=True)
class Vote:
    """One participant's choice between two methods on one clip.

    Attributes:
        pair: the two methods, in the order of the file's first such vote.
        emotion: the clip's; ``avg`` where the study has none.
    """

    participant: str
    item: str
    emotion: str
    question: str
    pair: Pair
    chosen: str


@dataclass(frozen=True)
class Share:
    """How often a method was preferred.

    Attributes:
        percent: as printed where it was.
        low: lower end of the 95 % interval, in percent.
        high: upper end.
    """

    percent: str
    low: float | None = None
    high: float | None = None
    votes: int | None = None
    participants: int | None = None


@dataclass(frozen=True)
class Study:
    """All that the table of a user study needs.

    Attributes:
        shares: by pair, question, emotion and method; ``avg`` is the mean over emotions.
        notes: lines printed below.
    """

    title: str
    shares: Mapping[tuple[Pair, str, str, str], Share]
    notes: tuple[str, ...]


def read_study(given: str) -> Study:
    """Read votes, or a printed study by its card's name or from a tidy CSV file.

    Raises:
        CardError: the file cannot be read, or a line is wrong.
        UnknownNameError: there is no such card.
    """
    path = Path(given)
    if path.suffix.lower() == ".csv":
        columns = read_lines(path, EXAMPLE)[0][1]
        if "preference_percent" not in columns:
            return count(read_votes(path), path.stem)
    printed = printed_table(given)
    if not printed.percent:
        raise CardError(f"'{printed.name}' is no user study", "Print it with 'spfem-bench table'")
    return printed_study(printed)


def read_votes(path: Path) -> list[Vote]:
    """Read votes, one a line.

    Raises:
        CardError: the file cannot be read, lacks a column, or a line is incomplete, chooses
            neither a nor b, or votes again.
    """
    lines = read_lines(path, EXAMPLE)
    check_columns(path, lines[0][1], NEEDED)
    votes: list[Vote] = []
    seen: dict[tuple[str, ...], int] = {}
    pairs: dict[frozenset[str], Pair] = {}
    for number, line in lines:
        where = f"{path}, line {number}"
        for name in (*NEEDED, *(["emotion"] if "emotion" in line else [])):
            if not line[name]:
                raise CardError(f"{where}: no {name}", "Fill it in, or leave the line out")
        a, b, choice = line["method_a"], line["method_b"], line["choice"].lower()
        if choice not in ("a", "b"):
            raise CardError(
                f"{where}: '{line['choice']}' chooses neither method",
                "Give a (method_a) or b (method_b); leave lines without a choice out",
            )
        if a == b:
            raise CardError(f"{where}: '{a}' against itself", "Give two methods")
        emotion = line.get("emotion", AVERAGE)
        if "emotion" in line and emotion == AVERAGE:
            raise CardError(f"{where}: 'avg' is no emotion", "Give single votes, not averages")
        pair = pairs.setdefault(frozenset((a, b)), (a, b))
        vote = Vote(
            line["participant"],
            line["item"],
            emotion,
            line["question"],
            pair,
            a if choice == "a" else b,
        )
        key = (vote.participant, vote.item, emotion, vote.question, *pair)
        if key in seen:
            raise CardError(
                f"{where}: '{vote.participant}' votes again (line {seen[key]})", "Keep one of them"
            )
        seen[key] = number
        votes.append(vote)
    return votes


def count(votes: Sequence[Vote], title: str) -> Study:
    """Count votes: shares with intervals, and agreement on each question."""
    found: dict[tuple[Pair, str, str, str], Share] = {}
    notes: list[str] = []
    questions = dict.fromkeys(v.question for v in votes)
    for pair in dict.fromkeys(v.pair for v in votes):
        agreed = []
        for question in questions:
            asked = [v for v in votes if (v.pair, v.question) == (pair, question)]
            if not asked:
                continue
            found |= _shares(asked, pair, question)
            alpha, clips = _agreement(asked, pair)
            said = "undefined" if alpha is None else f"{alpha:.3f}"
            agreed.append(f"{_words(question)} {said} on {clips} clips")
        names = " against ".join(map(_method, pair))
        people = len({v.participant for v in votes if v.pair == pair})
        number = sum(v.pair == pair for v in votes)
        notes.append(f"{names}: {people} participants, {number} votes")
        notes.append(f"Krippendorff's alpha, 1 all agree, 0 as by chance: {'; '.join(agreed)}")
    notes.append(
        "95 % intervals over participants, drawn whole (Wilson's where each cast one vote or all "
        "agree), on these clips; Avg. is the mean over emotions"
    )
    return Study(title, found, tuple(notes))


def _shares(
    asked: Sequence[Vote], pair: Pair, question: str
) -> dict[tuple[Pair, str, str, str], Share]:
    people = sorted({v.participant for v in asked})
    emotions = in_order(v.emotion for v in asked)
    who = {name: i for i, name in enumerate(people)}
    what = {name: i for i, name in enumerate(emotions)}
    found = {}
    for method in pair:
        won = np.zeros((len(people), len(emotions)), np.int64)
        all_ = np.zeros_like(won)
        for v in asked:
            place = who[v.participant], what[v.emotion]
            all_[place] += 1
            won[place] += v.chosen == method
        values, bounds = shares(won, all_)
        counts = [(int(n.sum()), int((n > 0).sum())) for n in all_.T]
        counts.append((len(asked), len(people)))
        for emotion, value, (low, high), (n, voters) in zip(
            [*emotions, AVERAGE], values, bounds, counts, strict=True
        ):
            found[pair, question, emotion, method] = Share(
                repr(100 * value),
                None if low is None else 100 * low,
                None if high is None else 100 * high,
                n,
                voters,
            )
    return found


def _agreement(asked: Sequence[Vote], pair: Pair) -> tuple[float | None, int]:
    """Return alpha on one question, and of how many clips."""
    people = {name: i for i, name in enumerate(sorted({v.participant for v in asked}))}
    clips = {c: i for i, c in enumerate(sorted({(v.emotion, v.item) for v in asked}))}
    choices = np.full((len(people), len(clips)), np.nan)
    for v in asked:
        choices[people[v.participant], clips[v.emotion, v.item]] = pair.index(v.chosen)
    return agreement(choices), len(clips)


def printed_study(printed: Printed) -> Study:
    """Return a printed study as it stands.

    Raises:
        CardError: a question is not about two methods.
    """
    methods: dict[str, dict[str, None]] = {}
    for row in printed.rows:
        methods.setdefault(row.metric, {})[row.method] = None
    pairs: dict[str, Pair] = {}
    for question, names in methods.items():
        if len(names) != 2:
            raise CardError(
                f"'{printed.name}': {question} is about {len(names)} methods, not two",
                "Give one file for each pair",
            )
        a, b = names
        pairs[question] = (a, b)
    found = {
        (pairs[row.metric], row.metric, row.emotion, row.method): Share(row.value)
        for row in printed.rows
    }
    return Study(printed.title, found, (printed.origin,))


# ---- printing ------------------------------------------------------------------------------


def _method(name: str) -> str:
    try:
        return method_card(name).label
    except UnknownNameError:
        return name


def _words(question: str) -> str:
    return question.replace("_", " ").capitalize()


def render_study(
    study: Study, style: Style | str, *, intervals: bool = True, standalone: bool = False
) -> str:
    """Return a study as text: emotions down, questions and methods across, as ASCCL does.

    Args:
        study: from :func:`read_study`.
        style: as for tables of scores; ``csv`` is tidy, ``csv-wide`` has the table's lines.
        intervals: print them beside the percentages.
        standalone: with LaTeX, a document that compiles by itself.
    """
    if style == "csv":
        return _tidy(study)
    grid = _grid(study, intervals)
    printed: Style = "csv" if style == "csv-wide" else style  # type: ignore[assignment]
    return print_grid(grid, printed, standalone=standalone)


def _grid(study: Study, intervals: bool) -> Grid:
    pairs = dict.fromkeys(key[0] for key in study.shares)
    heads, keys = [], []
    for pair in pairs:
        names = Label(" against ".join(map(_method, pair)), "-".join(pair))
        for question in dict.fromkeys(k[1] for k in study.shares if k[0] == pair):
            for method in pair:
                head = (Label(_words(question), question), Label(_method(method), method))
                heads.append((names, *head) if len(pairs) > 1 else head)
                keys.append((pair, question, method))
    emotions = in_order(k[2] for k in study.shares)
    rows = []
    for emotion in emotions:
        found = [study.shares.get((p, q, emotion, m)) for p, q, m in keys]
        label = Label(emotion_label(emotion), emotion)
        rows.append(((label,), tuple(_entry(share, intervals) for share in found)))
    stubs = (Label("Emotion", "emotion"),)
    return Grid(stubs, tuple(heads), tuple(rows), study.notes, (), study.title)


def _entry(share: Share | None, intervals: bool) -> Entry:
    if share is None:
        return Entry()
    # A printed percentage stays as it is; one's own is rounded as the papers' are.
    text = share.percent if share.votes is None else f"{float(share.percent):.0f}"
    if not intervals or share.low is None or share.high is None:
        return Entry(f"{text}%", share.percent)
    return Entry(
        f"{text}%",
        share.percent,
        interval=f"[{share.low:.0f}, {share.high:.0f}]",
        bounds=(repr(share.low), repr(share.high)),
    )


def _tidy(study: Study) -> str:
    rows: list[Sequence[object]] = [
        (
            "emotion",
            "question",
            "method",
            "against",
            "preference_percent",
            "low",
            "high",
            "votes",
            "participants",
        )
    ]
    for (pair, question, emotion, method), s in study.shares.items():
        other = pair[1] if method == pair[0] else pair[0]
        rows.append(
            (emotion, question, method, other, s.percent, s.low, s.high, s.votes, s.participants)
        )
    return csv_text(rows)
