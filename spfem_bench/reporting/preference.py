"""A user study as the papers' table: emotions down, questions and methods across."""

from __future__ import annotations

from collections.abc import Iterator

from spfem_bench.analysis.preference import Share, Study
from spfem_bench.definitions.protocols import in_order
from spfem_bench.reporting.grids import Entry, Grid, Label, Style, emotion_label, print_grid
from spfem_bench.reporting.tables import method_label
from spfem_bench.texts import csv_text


def render_study(
    study: Study, style: Style | str, *, intervals: bool = True, standalone: bool = False
) -> str:
    """Return a study as text, in the layout of ASCCL.

    *style*, *intervals* and *standalone* are those of tables of scores: see ``render_table``.
    """
    if style == "csv":
        return _tidy(study)
    grid = _grid(study, intervals)
    printed: Style = "csv" if style == "csv-wide" else style  # type: ignore[assignment]
    return print_grid(grid, printed, standalone=standalone)


def _question_label(question: str) -> str:
    return question.replace("_", " ").capitalize()


def _pair_label(pair: tuple[str, str]) -> str:
    return " against ".join(map(method_label, pair))


def _notes(study: Study) -> Iterator[str]:
    if study.origin:
        yield study.origin
    for agreement in study.agreements:
        voters = f"{agreement.participants} participants, {agreement.votes} votes"
        yield f"{_pair_label(agreement.pair)}: {voters}"
        alphas = "; ".join(
            f"{_question_label(question)} {'undefined' if alpha is None else f'{alpha:.3f}'} on "
            f"{n_clips} clips"
            for question, (alpha, n_clips) in agreement.alphas.items()
        )
        yield f"Krippendorff's alpha, 1 all agree, 0 as by chance: {alphas}"
    if study.agreements:
        yield (
            "95 % intervals over participants, drawn whole (Wilson's where each cast one vote or "
            "all agree), on these clips; Avg. is the mean over emotions"
        )


def _grid(study: Study, intervals: bool) -> Grid:
    columns = list(dict.fromkeys((p, q, m) for p, q, _, m in study.shares))
    several = len({pair for pair, _, _ in columns}) > 1
    heads = []
    for pair, question, method in columns:
        head = (Label(_question_label(question), question), Label(method_label(method), method))
        heads.append((Label(_pair_label(pair), "-".join(pair)), *head) if several else head)
    rows = []
    for emotion in in_order(key[2] for key in study.shares):
        cells = (study.shares.get((p, q, emotion, m)) for p, q, m in columns)
        label = Label(emotion_label(emotion), emotion)
        rows.append(((label,), tuple(_entry(share, intervals) for share in cells)))
    stubs = (Label("Emotion", "emotion"),)
    return Grid(stubs, tuple(heads), tuple(rows), tuple(_notes(study)), (), study.title)


def _entry(share: Share | None, intervals: bool) -> Entry:
    if share is None:
        return Entry()
    # A printed percentage keeps its digits; a counted one is rounded as in the papers.
    text = share.percent if share.votes is None else f"{float(share.percent):.0f}"
    if not intervals or share.low is None or share.high is None:
        return Entry(f"{text}%", share.percent)
    interval = f"[{share.low:.0f}, {share.high:.0f}]"
    bounds = (repr(share.low), repr(share.high))
    return Entry(f"{text}%", share.percent, interval=interval, bounds=bounds)


def _tidy(study: Study) -> str:
    heads = "emotion,question,method,against,preference_percent,low,high,votes,participants"
    rows: list[list[object]] = [[*heads.split(",")]]
    for (pair, question, emotion, method), s in study.shares.items():
        other = pair[1] if method == pair[0] else pair[0]
        names = [emotion, question, method, other]
        rows.append([*names, s.percent, s.low, s.high, s.votes, s.participants])
    return csv_text(rows)
