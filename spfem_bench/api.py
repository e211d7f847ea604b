"""The Python interface, ``spfem_bench.evaluate`` and so on; scores are those of the commands."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from spfem_bench.definitions.computing import Computing, Precision
from spfem_bench.errors import CardError, ClipError, SpfemBenchError, WeightsError
from spfem_bench.evaluation import record as records
from spfem_bench.reporting.headlines import score_lines
from spfem_bench.reporting.table_choice import Choice
from spfem_bench.reporting.table_layouts import FOLD, TableLayout, TableStyle, render_table
from spfem_bench.reporting.tables import make_table

if TYPE_CHECKING:
    import pandas as pd

    from spfem_bench.analysis.comparing import Comparison
    from spfem_bench.evaluation.plan import Plan

INTEGERS = ("n_items", "n_frames", "n_refused", "n_frames_refused")
REALS = ("value", "low", "high")


@dataclass(frozen=True, eq=False, repr=False)
class Run:
    """One evaluation of a method on a protocol: its record, as ``docs/run_record.md`` describes it.

    ``record.plain()`` returns it as values for JSON.
    """

    record: records.RunRecord

    @property
    def scores(self) -> pd.DataFrame:
        """One line for each metric and emotion (``avg`` is the headline).

        Columns as in the run record: value, low and high as float64 (NaN where there is no
        score; ``note`` says why), counts as int64, partial as bool, the rest as strings.
        """
        import pandas as pd

        columns = list(records.Score.model_fields)
        frame = pd.DataFrame([s.plain() for s in self.record.scores], columns=columns)
        types: dict[str, str] = dict.fromkeys(columns, "string")
        types |= dict.fromkeys(REALS, "float64") | dict.fromkeys(INTEGERS, "int64")
        return frame.astype(types | {"partial": "bool"})

    @property
    def clips(self) -> pd.DataFrame:
        """One line for each metric and clip, also for refused ones.

        Columns: protocol, method, profile, item, speaker, emotion, metric, value (float64; NaN
        where there is none, ``note`` says why), pooled, n_frames, n_frames_refused, output, note.
        The mean of an emotion's values is its score; where ``pooled`` (FAD), they are
        pseudo-values.

        Raises:
            CardError: the record is damaged.
        """
        from spfem_bench.analysis.clips import clip_frame

        return clip_frame([self.record])

    def speaker_intervals(self) -> pd.DataFrame:
        """Return 95 % intervals of the scores over speakers, those of the record being over clips.

        Columns: metric, emotion, low, high. A score without one is left out: of clips of one
        speaker, or of a record of an earlier version.

        Raises:
            CardError: the record is damaged.
        """
        import pandas as pd

        from spfem_bench.analysis.comparing import speaker_intervals

        rows = [(*what, *ends) for what, ends in speaker_intervals(self.record).items()]
        return pd.DataFrame(rows, columns=["metric", "emotion", *REALS[1:]])

    def table(
        self,
        style: TableStyle = "text",
        *,
        layout: TableLayout = "asccl",
        intervals: bool = False,
        published: bool | None = None,
    ) -> str:
        """Return this run as a table; see :func:`table`."""
        return table([self], style, layout=layout, intervals=intervals, published=published)

    def to_latex(
        self,
        *,
        layout: TableLayout = "asccl",
        intervals: bool = False,
        published: bool | None = None,
        standalone: bool = False,
    ) -> str:
        """Return this run as a LaTeX table (booktabs, graphicx); see :func:`table`."""
        content = make_table([self.record], published=published)
        return render_table(
            content, "latex", layout=layout, intervals=intervals, standalone=standalone
        )

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the record, whole or not at all, and return its path.

        Args:
            path: a file, or an existing folder, which gets ``METHOD.PROFILE.json``.

        Raises:
            StorageError: it cannot be written.
        """
        file = Path(path)
        if file.is_dir():
            file /= f"{self.record.method.name}.{self.record.profile}.json"
        records.save(self.record, file)
        return file

    def __repr__(self) -> str:
        record = self.record
        head = f"{record.method.label} on {record.protocol.name}, profile {record.profile}"
        return f"{head}\n{score_lines(record)}"

    def _repr_html_(self) -> str:
        """Return the table for a notebook; everything in it is escaped."""
        try:
            return self.table("html")
        except CardError:  # no number: repr says why
            return f"<pre>{html.escape(repr(self))}</pre>\n"


def evaluate(
    method: str,
    protocol: str = "demo-inter-id",
    *,
    videos: str | PathLike[str] | None = None,
    layout: str | None = None,
    frame_rate: float | None = None,
    profile: str | None = None,
    metrics: Sequence[str] = (),
    partial: bool = False,
    workers: int | None = None,
    ray: str | None = None,
    batch_size: int | None = None,
    device: str = "cpu",
    precision: Precision = "float32",
    hwaccel: str | None = None,
    weights_dir: str | PathLike[str] | None = None,
    data_dir: str | PathLike[str] | None = None,
) -> Run:
    """Score a method on a protocol, as ``spfem-bench eval`` does.

    Args:
        method: a published method, a control, or with *videos* a name of your own.
        protocol: a name, or the path of a card.
        videos: your own outputs, one per item, named as the protocol expects.
        layout: how the system that wrote them names outputs, when not so.
        frame_rate: of outputs that are folders of frames, in Hz.
        profile: which networks to use; those that fit the protocol when not given.
        metrics: names; all that the protocol has when empty.
        partial: score what is there; headline numbers are marked as partial.
        workers: processes; one when None, on Ray as many as there are GPUs (with *device* cuda)
            or processors. They change no score.
        ray: ``local``, ``auto`` or ``HOST:PORT``: compute features on Ray, started here or joined.
        batch_size: frames in a batch; 32 on a processor and what fits on a GPU when None.
        device: where networks run: cpu, cuda, cuda:1, mps.
        precision: what networks compute in; half precision moves scores, and is in signatures.
        hwaccel: decode videos on hardware: a name that ``ffmpeg -hwaccels`` lists.
        weights_dir: searched first for weights.
        data_dir: searched first for data sets.

    Raises:
        UnknownNameError: no such method, protocol, profile, metric or layout.
        ClipError: clips are missing or unreadable, and not *partial*.
        WeightsError: no metric has its networks' weights, or some lack and not *partial*.
        SpfemBenchError: *layout* without *videos*, a device that is not here, a folder that
            cannot be written, or a Ray cluster that cannot be used.
    """
    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.definitions import layouts, networks, protocols
    from spfem_bench.evaluation.outputs import Videos
    from spfem_bench.evaluation.plan import make_plan
    from spfem_bench.evaluation.session import carry_out
    from spfem_bench.execution.workers import workers_for
    from spfem_bench.networks.weights import WeightsStore

    if videos is None and (layout or frame_rate):
        raise SpfemBenchError("layout and frame_rate are about videos", "Give videos=DIR too")
    _check_list(metrics)
    weights = WeightsStore.locate(None if weights_dir is None else Path(weights_dir))
    listed = protocols.protocol(protocol)
    own = None
    if videos is not None:
        own = Videos(Path(videos), frame_rate, layouts.layout_card(layout) if layout else None)
    computing = Computing(device, precision, batch_size, hwaccel, workers, ray)
    data = DataFolders.locate(None if data_dir is None else Path(data_dir))
    with workers_for(computing) as team:  # a wrong device is reported before the preflight
        card = networks.profile_card(profile or listed.card.profile)
        plan = make_plan(
            method, listed, card, data=data, weights=weights, metrics=metrics, videos=own
        )
        if listed.dataset.folders and not metrics:  # of one's own folders, what can be computed
            plan = plan.without_unavailable()
        _check(plan, partial=partial)
        [record] = carry_out([plan], weights, computing, workers=team, partial=partial)
    return Run(record)


def _check_list(metrics: Sequence[str]) -> None:
    if isinstance(metrics, str):
        raise SpfemBenchError(f"metrics is the text '{metrics}'", f"Give a list: ['{metrics}']")


def _check(plan: Plan, *, partial: bool) -> None:
    """Refuse a plan of which the command line would say that there is no headline score."""
    if plan.unavailable and (not plan.metrics or not partial):
        metric, reason = next(iter(plan.unavailable.items()))
        remedy = "Give partial=True to go without" if plan.metrics else ""
        raise WeightsError(f"no {metric}: {reason}", remedy)
    if plan.refusals and not partial:
        first, items = plan.refusals[0], len({r.item for r in plan.refusals})
        problem = f"{items} of {len(plan.items)} items of {plan.protocol.name} cannot be scored"
        remedies = filter(None, [first.remedy, "give partial=True to score what is there"])
        raise ClipError(f"{problem}; {first.item}: {first.reason}", "; or ".join(remedies))


def load(path: str | PathLike[str]) -> Run:
    """Read a run that :meth:`Run.save` or ``spfem-bench eval`` wrote.

    Raises:
        CardError: no run record, a damaged one, or one of a later version.
    """
    return Run(records.load_run(Path(path)))


def table(
    runs: Sequence[Run],
    style: TableStyle = "text",
    *,
    layout: TableLayout = "asccl",
    intervals: bool = False,
    published: bool | None = None,
    standalone: bool = False,
    methods: Sequence[str] = (),
    metrics: Sequence[str] = (),
    emotions: Sequence[str] = (),
    caption: str | None = None,
    label: str = "",
    digits: int | None = None,
    notes: bool = True,
    fold: int = FOLD,
) -> str:
    """Return runs as one table, in the papers' layout; the same runs give the same text.

    Only numbers with one signature are compared: the best is bold, of three or more the
    second best is underlined.

    Args:
        runs: of any methods and protocols; each protocol is a block of rows.
        style: text, markdown, csv (tidy), csv-wide, latex, tabular (LaTeX's alone) or html.
        layout: ``asccl`` has emotions down, methods and metrics across; ``stccl`` has
            metrics and methods down, emotions across.
        intervals: print 95 % intervals beside the numbers.
        published: show the papers' rows of the same methods beside them, marked; when None,
            for all protocols but those on drawn clips.
        standalone: with latex, a document that compiles by itself.
        methods: those to show, in order; all when empty. So too *metrics* and *emotions*.
        metrics: names or labels.
        emotions: names; ``avg`` is the mean over them.
        caption: in the place of the table's own; none when empty.
        label: with latex, the name that a reference in the text uses.
        digits: behind the point; 3 when None. Papers' numbers are only ever rounded.
        notes: whether notes and signatures stand below.
        fold: columns of numbers side by side; wider tables go on below; 0 for never.

    Raises:
        CardError: no runs, none with a number, or one given twice.
        UnknownNameError: a method, metric or emotion that no run has.
    """
    for names in (methods, metrics, emotions):
        _check_list(names)
    choice = Choice(tuple(methods), tuple(metrics), tuple(emotions))
    made = make_table([run.record for run in runs], published=published, choice=choice)
    return render_table(
        made,
        style,
        layout=layout,
        intervals=intervals,
        standalone=standalone,
        caption=caption,
        label=label,
        digits=digits,
        notes=notes,
        fold=fold,
    )


def compare(
    runs: Sequence[Run],
    *,
    baseline: str = "",
    metrics: Sequence[str] = (),
    by_emotion: bool = False,
    common: bool = False,
    allow_versions: bool = False,
    count_controls: bool = False,
    resamples: int = 10_000,
) -> Comparison:
    """Compare runs clip by clip, as ``spfem-bench compare`` does.

    ``.table`` of what is returned is a ``DataFrame`` of differences with intervals over speakers,
    corrected p-values, effects and verdicts; ``.notes`` says what they stand on.

    Args:
        runs: of two methods at least, on one protocol, made alike.
        baseline: the method that the others are compared with; the first run's when empty.
        metrics: names; all that the runs share when empty.
        by_emotion: each emotion too, not the mean alone.
        common: where clips are missing, compare on those that both have.
        allow_versions: compare also where versions of libraries or of ffmpeg differ; ``.notes``
            names them.
        count_controls: correct p-values of methods for controls too; otherwise controls are
            corrected for among themselves.
        resamples: draws behind intervals and p-values.

    Raises:
        CardError: fewer than two runs, or runs that were not made alike; says in which field.
    """
    from spfem_bench.analysis.comparing import compare_runs
    from spfem_bench.reporting.compare import PrintedComparison

    _check_list(metrics)
    comparison = compare_runs(
        [run.record for run in runs],
        baseline=baseline,
        metrics=metrics,
        by_emotion=by_emotion,
        common=common,
        allow_versions=allow_versions,
        count_controls=count_controls,
        resamples=resamples,
    )
    return PrintedComparison(**vars(comparison))
