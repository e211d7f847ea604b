"""Pairwise votes of a user study: shares with intervals over participants, and agreement."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.protocols import AVERAGE, in_order
from spfem_bench.definitions.published import Printed, check_columns, printed_table, read_lines
from spfem_bench.errors import CardError
from spfem_bench.statistics.intervals import SEED

RESAMPLES = 10_000

_NEEDED = ("participant", "item", "question", "method_a", "method_b", "choice")
_EXAMPLE = "participant,item,emotion,question,method_a,method_b,choice"

_Methods: TypeAlias = "tuple[str, str]"
_Counts: TypeAlias = "npt.NDArray[np.int64]"
_Interval: TypeAlias = "tuple[float | None, float | None]"


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
    pair: _Methods
    chosen: str


@dataclass(frozen=True)
class Share:
    """Share of votes for a method, in percent.

    Attributes:
        percent: as printed where it was.
        low: lower end of the 95 % interval.
        votes: number of all votes; None for a printed share.
    """

    percent: str
    low: float | None = None
    high: float | None = None
    votes: int | None = None
    participants: int | None = None


@dataclass(frozen=True)
class Agreement:
    """Agreement of the participants on one pair of methods.

    Attributes:
        alphas: by question: Krippendorff's alpha (None where undefined) and the number of clips.
    """

    pair: _Methods
    participants: int
    votes: int
    alphas: Mapping[str, tuple[float | None, int]]


@dataclass(frozen=True)
class Study:
    """A user study, counted.

    Attributes:
        shares: by pair, question, emotion and method; ``avg`` is the mean over emotions.
        agreements: one for each pair; none for a printed study.
    """

    title: str
    shares: Mapping[tuple[_Methods, str, str, str], Share]
    agreements: tuple[Agreement, ...] = ()
    origin: str = ""


def read_study(source: str) -> Study:
    """Read votes, or a printed study by its card's name or from a tidy CSV file.

    Raises:
        CardError: the file cannot be read, or a line is wrong.
        UnknownNameError: there is no such card.
    """
    path = Path(source)
    if path.suffix.lower() == ".csv":
        columns = read_lines(path, _EXAMPLE)[0][1]
        if "preference_percent" not in columns:
            return count_votes(read_votes(path), path.stem)
    printed = printed_table(source)
    if not printed.percent:
        raise CardError(f"'{printed.name}' is no user study", "Print it with 'spfem-bench table'")
    return _printed_study(printed)


def read_votes(path: Path) -> list[Vote]:
    """Read votes, one a line.

    Raises:
        CardError: the file cannot be read, lacks a column, or a line is incomplete, chooses
            neither a nor b, or votes again.
    """
    lines = read_lines(path, _EXAMPLE)
    check_columns(path, lines[0][1], _NEEDED)
    votes: dict[tuple[str, ...], tuple[int, Vote]] = {}
    pairs: dict[frozenset[str], _Methods] = {}
    for number, line in lines:
        where = f"{path}, line {number}"
        for name in (*_NEEDED, *(["emotion"] if "emotion" in line else [])):
            if not line[name]:
                raise CardError(f"{where}: no {name}", "Fill it in, or leave the line out")
        a, b, choice = line["method_a"], line["method_b"], line["choice"].lower()
        if choice not in ("a", "b"):
            remedy = "Give a (method_a) or b (method_b); leave lines without a choice out"
            raise CardError(f"{where}: '{line['choice']}' chooses neither method", remedy)
        if a == b:
            raise CardError(f"{where}: '{a}' against itself", "Give two methods")
        if line.get("emotion") == AVERAGE:
            raise CardError(f"{where}: 'avg' is no emotion", "Give single votes, not averages")
        pair = pairs.setdefault(frozenset((a, b)), (a, b))
        place = (line["participant"], line["item"], line.get("emotion", AVERAGE), line["question"])
        if (*place, *pair) in votes:
            again = f"votes again (line {votes[(*place, *pair)][0]})"
            raise CardError(f"{where}: '{line['participant']}' {again}", "Keep one of them")
        votes[(*place, *pair)] = number, Vote(*place, pair, a if choice == "a" else b)
    return [vote for _, vote in votes.values()]


def _printed_study(printed: Printed) -> Study:
    methods: dict[str, dict[str, None]] = {}
    for row in printed.rows:
        methods.setdefault(row.metric, {})[row.method] = None
    for question, pair in methods.items():
        if len(pair) != 2:
            problem = f"'{printed.name}': {question} is about {len(pair)} methods, not two"
            raise CardError(problem, "Give one file for each pair")
    pairs = {question: (a, b) for question, (a, b) in methods.items()}
    shares = {
        (pairs[r.metric], r.metric, r.emotion, r.method): Share(r.value) for r in printed.rows
    }
    return Study(printed.title, shares, origin=printed.origin)


def count_votes(votes: Sequence[Vote], title: str) -> Study:
    """Count votes: shares with intervals, and agreement on each question."""
    counted: dict[tuple[_Methods, str, str, str], Share] = {}
    agreements = []
    for pair in dict.fromkeys(v.pair for v in votes):
        of_pair = [v for v in votes if v.pair == pair]
        alphas = {}
        for question in dict.fromkeys(v.question for v in votes):
            own = [v for v in of_pair if v.question == question]
            if not own:
                continue
            for method in pair:
                for emotion, share in _shares_of(own, method):
                    counted[pair, question, emotion, method] = share
            alphas[question] = _alpha(own)
        people = len({v.participant for v in of_pair})
        agreements.append(Agreement(pair, people, len(of_pair), alphas))
    return Study(title, counted, tuple(agreements))


def _alpha(votes: Sequence[Vote]) -> tuple[float | None, int]:
    """Return alpha of votes on one pair and question, and the number of clips."""
    import pandas as pd

    table = pd.DataFrame(votes).assign(choice=[float(v.chosen == v.pair[1]) for v in votes])
    choices = table.pivot(index="participant", columns=["emotion", "item"], values="choice")
    return agreement(choices.to_numpy(np.float64)), choices.shape[1]


def _shares_of(votes: Sequence[Vote], method: str) -> list[tuple[str, Share]]:
    """Return a method's share for each emotion, and for their mean."""
    import pandas as pd

    table = pd.DataFrame(votes)
    emotions = in_order(table["emotion"])
    every = pd.crosstab(table["participant"], table["emotion"])[emotions]
    own = table[table["chosen"] == method]
    won = pd.crosstab(own["participant"], own["emotion"]).reindex_like(every).fillna(0)
    values, intervals = vote_shares(won.to_numpy(np.int64), every.to_numpy(np.int64))
    counts = [*zip(every.sum(), (every > 0).sum(), strict=True), (len(votes), len(every))]
    shares = []
    for value, interval, (n, voters) in zip(values, intervals, counts, strict=True):
        low, high = (None if end is None else 100 * end for end in interval)
        shares.append(Share(repr(100 * value), low, high, int(n), int(voters)))
    return list(zip([*emotions, AVERAGE], shares, strict=True))


def wilson(won: int, votes: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share of independent votes.

    Source: Wilson (1927), Journal of the American Statistical Association 22, 209-212.
    """
    from scipy.stats import binomtest

    interval = binomtest(won, votes).proportion_ci(method="wilson")
    return max(0.0, float(interval.low)), min(1.0, float(interval.high))


def vote_shares(won: _Counts, votes: _Counts) -> tuple[list[float], list[_Interval]]:
    """Return one method's shares of votes by emotion, then their plain mean, with intervals.

    An interval is Wilson's where each participant cast one vote, or all votes are for one method
    (as if each had cast one); else the percentiles of 10,000 draws of whole participants, the same
    for all emotions, widened for few. Shares lie in 0 to 1; one participant gives no interval.

    Args:
        won: int (participants, emotions), votes for the method.
        votes: int (participants, emotions), all votes; each emotion has some.
    """
    people, emotions = won.shape
    each = won.sum(0) / votes.sum(0)
    values = [*map(float, each), float(each.mean())]
    if people < 2:
        return values, [(None, None)] * (emotions + 1)
    draws = np.random.default_rng(SEED).multinomial(people, np.full(people, 1 / people), RESAMPLES)
    with np.errstate(invalid="ignore"):  # a draw without a vote on an emotion
        drawn = (draws @ won) / (draws @ votes)
    intervals = [_interval(won[:, i], votes[:, i], drawn[:, i]) for i in range(emotions)]
    if emotions == 1:
        return values, [*intervals, intervals[0]]
    return values, [*intervals, _interval(won.sum(1), votes.sum(1), drawn.mean(1))]


def _interval(won: _Counts, votes: _Counts, drawn: npt.NDArray[np.float64]) -> _Interval:
    voters = int((votes > 0).sum())
    if voters < 2:
        return None, None
    if votes.max() == 1:
        return wilson(int(won.sum()), voters)
    if won.sum() in (0, votes.sum()):
        return wilson(voters if won.any() else 0, voters)
    return _expanded_percentiles(drawn, voters)


def _expanded_percentiles(drawn: npt.NDArray[np.float64], people: int) -> _Interval:
    """Return a 95 % percentile interval widened for few participants.

    Source: Hesterberg (2015), The American Statistician 69, 371-386, section 5.3.
    """
    from scipy.special import ndtr, stdtrit

    scored = drawn[np.isfinite(drawn)]
    if len(scored) < len(drawn) / 2:  # most draws leave an emotion without a vote
        return None, None
    tail = float(ndtr(-math.sqrt(people / (people - 1)) * stdtrit(people - 1, 0.975)))
    low, high = np.quantile(scored, [tail, 1 - tail])
    return float(low), float(high)


def agreement(choices: npt.NDArray[np.float64]) -> float | None:
    """Return Krippendorff's nominal alpha; None if no clip has two votes or all votes are alike.

    Source: Krippendorff, Content Analysis (2004), chapter 11; package ``krippendorff``.

    Args:
        choices: float (participants, clips), a number for each method, NaN without a vote.
    """
    import krippendorff

    paired = choices[:, (~np.isnan(choices)).sum(0) >= 2]
    if len(np.unique(paired[~np.isnan(paired)])) < 2:
        return None
    return float(krippendorff.alpha(reliability_data=paired, level_of_measurement="nominal"))
