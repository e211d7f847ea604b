"""``spfem-bench correlate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from spfem_bench.cli import options

if TYPE_CHECKING:
    from spfem_bench.evaluation.pairing import Paired
    from spfem_bench.features.pair_extract import PairExtractor


@click.command()
@click.option(
    "--protocol",
    "protocol_name",
    default="demo-inter-id",
    show_default=True,
    help="Whose clips to compare.",
)
@click.option(
    "--method",
    default="real",
    show_default=True,
    help="What each source is compared with: the real clip, a method's output, a control.",
)
@click.option(
    "--videos", type=options.FOLDER, help="Your own outputs, named as the protocol expects."
)
@click.option(
    "--source", type=options.FOLDER, help="In the place of a protocol: a folder of clips."
)
@click.option("--target", type=options.FOLDER, help="Clips of the same names in another emotion.")
@click.option(
    "--timing",
    type=click.Choice(["motion", "sound"]),
    default="motion",
    show_default=True,
    help="With --source: how frames find each other, in step or by what is said.",
)
@click.option("--emotion", default="all", show_default=True, help="With --source: of --target.")
@click.option(
    "--pairs",
    "pair_list",
    type=options.File(),
    help="In the place of a protocol: a list as aligned_path36.json.",
)
@click.option("--frames", type=options.FOLDER, help="With --pairs: the folder of its frames.")
@click.option(
    "--template",
    help="With --pairs: a frame's name in it, with {speaker}, {emotion}, {clip}, "
    "{level} and {frame}.",
)
@click.option("--first", type=int, default=0, help="With --pairs: number of the first frame.")
@click.option(
    "--aligned", is_flag=True, help="With --source or --pairs: frames are face crops in one pose."
)
@click.option("--profile", help="Which networks to use; those that fit when not given.")
@click.option(
    "--network", help="Whose four stages; the metric's own, else the profile's identity network."
)
@click.option("--metric", help="Also through the heads of a learnt metric, by name or path.")
@click.option(
    "--form",
    type=click.Choice(["vd", "cm"]),
    default="vd",
    show_default=True,
    help="Visual disparities, or correlation matrices.",
)
@click.option(
    "--definition",
    type=click.Choice(["paper", "released-code"]),
    default="paper",
    show_default=True,
    help="Of similarity and of what does not correspond.",
)
@click.option(
    "--windows",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Windows of five frames for each pair.",
)
@click.option(
    "--measure",
    type=click.Choice(["cosine", "pearson"]),
    default="cosine",
    show_default=True,
    help="What the table and the figure show; the CSV has both.",
)
@click.option(
    "-o",
    "--output",
    type=options.File(),
    default=Path("discovery.csv"),
    show_default=True,
    help="CSV of all numbers.",
)
@click.option(
    "--figure",
    type=options.FIGURE,
    help="Draw the papers' figure: .png, .pdf or .svg.",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["simple", "github"]),
    default="simple",
    show_default=True,
)
@options.device
@options.weights_dir
@options.data_dir
@options.quiet
def correlate(
    protocol_name: str,
    method: str,
    videos: Path | None,
    source: Path | None,
    target: Path | None,
    timing: str,
    emotion: str,
    pair_list: Path | None,
    frames: Path | None,
    template: str | None,
    first: int,
    aligned: bool,
    profile: str | None,
    network: str | None,
    metric: str | None,
    form: str,
    definition: str,
    windows: int,
    measure: str,
    output: Path,
    figure: Path | None,
    style: str,
    device: str,
    weights_dir: Path | None,
    data_dir: Path | None,
    quiet: bool,
) -> None:
    """Test the papers' discovery: are local disparities alike across emotions?

    Two recordings of one sentence by one speaker are compared region by region:
    how each region differs from its neighbours (space), how it changes from
    frame to frame (time). Beside corresponding and non-corresponding regions
    stand two controls: another speaker's frames, and the same speaker's at a
    wrong time. What does not exceed them is plain face structure.

    \b
      Positive        corresponding disparities
      Negative        those of any other regions of the two frames
      Near            other neighbours of the same region (equation 1 to the
                      letter); in time, other moments of the same region
      Above ...       positive less the control, pair by pair, with its 95 %
                      interval over pairs

    The default: the puppets' neutral against their emotional performance,
    aligned in time by the exact truth, put in one pose by their landmarks.

    \b
    Examples:
      spfem-bench correlate --figure discovery.png
      spfem-bench correlate --protocol stccl-page-ned --method ned
      spfem-bench correlate --source neutral/ --target angry/ --timing sound
      spfem-bench correlate --pairs aligned_path36.json --frames frames/
    """  # noqa: D301
    from tqdm import tqdm

    from spfem_bench.analysis.discovery import Lens, discover
    from spfem_bench.definitions.networks import profile_card
    from spfem_bench.definitions.protocols import protocol as read_protocol
    from spfem_bench.features.extract import Extractor
    from spfem_bench.features.pair_extract import PairExtractor
    from spfem_bench.features.store import FeatureStore
    from spfem_bench.files import check_writable, write_atomically
    from spfem_bench.networks.weights import WeightsStore
    from spfem_bench.reporting import discovery as reporting

    options.check_device(device)
    _check(source, target, pair_list, frames)
    own = source is not None or pair_list is not None
    weights = WeightsStore.locate(weights_dir)
    listed = None if own else read_protocol(protocol_name)
    fits = listed.card.profile if listed else ("compact" if aligned else "light")
    faces = listed.card.faces if listed else ("aligned" if aligned else "detect")
    extractor = Extractor(
        profile_card(profile or fits),
        weights,
        FeatureStore.locate(),
        faces=faces,
        device=device,
    )
    for path in (output, figure):
        if path is not None:
            check_writable(path.parent)
    eyes, lenses = _lenses(network, metric, form, extractor.profile.identity, weights, device)
    scorer = PairExtractor(extractor)
    bar: Any = tqdm(desc="pairs", unit="pair", leave=False, disable=True if quiet else None)
    try:
        found = _pairs(
            scorer,
            listed,
            method,
            videos,
            source,
            target,
            timing,
            emotion,
            pair_list,
            frames,
            template,
            first,
            data_dir,
            quiet,
        )
        bar.reset(total=len(found.pairs))
        rows, refused = discover(
            found.pairs,
            eyes,
            [Lens(*lens) for lens in lenses],
            windows=windows,
            definition=definition,  # type: ignore[arg-type]
            device=device,
            done=lambda: bar.update(1),
        )
    except KeyboardInterrupt:
        options.interrupted("Interrupted.")
    finally:
        bar.close()
    write_atomically(output, reporting.to_csv(rows))
    shown: Any = "pearson" if form == "cm" else measure
    click.echo(reporting.table(rows, shown, style))
    click.echo()
    click.echo(reporting.by_emotion(rows, shown, style))
    if figure is not None:
        what = listed.name if listed else str(source or pair_list)
        against = method if listed else str(target or "the list's")
        caption = (
            f"{what}: source against {against}, aligned by {found.timing}; "
            f"{len(found.pairs)} pairs, definition: {definition}."
        )
        reporting.save_figure(rows, figure, measure=shown, caption=caption)
    if not quiet:
        for lag in sorted(set(found.lags)):
            click.echo(
                f"{found.lags.count(lag)} of {len(found.lags)} pairs: frame t goes with frame "
                f"t {'+' if lag >= 0 else '-'} {abs(lag)} of the source",
                err=True,
            )
        for reason in found.left_out:
            click.echo(f"left out: {reason}", err=True)
        for name, reason in refused:
            click.echo(f"left out: {name}: {reason}", err=True)
        drawn = f"   Figure: {figure}" if figure else ""
        click.echo(f"All numbers: {output}{drawn}", err=True)


def _check(
    source: Path | None, target: Path | None, pair_list: Path | None, frames: Path | None
) -> None:
    if (source is None) != (target is None):
        raise click.UsageError("--source and --target go together")
    if (pair_list is None) != (frames is None):
        raise click.UsageError("--pairs and --frames go together")
    if source is not None and pair_list is not None:
        raise click.UsageError("give --source or --pairs, not both")


def _lenses(
    network: str | None, metric: str | None, form: Any, identity: str, weights: Any, device: str
) -> tuple[Any, list[tuple[Any, ...]]]:
    """Return the backbone, and what is looked through: nothing, and a metric's heads."""
    from spfem_bench.stccl.backbone import backbone
    from spfem_bench.stccl.metric import STCCL

    if metric is None:
        return backbone(network or identity, weights, device=device), [
            ("untrained", None, form, None)
        ]
    if network is not None:
        raise click.UsageError("a metric looks through its own network: leave --network out")
    learnt = STCCL.load(metric, form=form, weights=weights, device=device)
    contrast = learnt.settings.contrast
    return learnt.backbone, [
        ("untrained", None, form, contrast),
        (Path(metric).stem, learnt.heads, form, contrast),
    ]


def _pairs(
    scorer: PairExtractor,
    listed: Any,
    method: str,
    videos: Path | None,
    source: Path | None,
    target: Path | None,
    timing: Any,
    emotion: str,
    pair_list: Path | None,
    frames: Path | None,
    template: str | None,
    first: int,
    data_dir: Path | None,
    quiet: bool,
) -> Paired:
    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.datasets.pairs import TEMPLATE, five_points, listed_pairs
    from spfem_bench.evaluation.outputs import Videos
    from spfem_bench.evaluation.pairing import Paired, folder_pairs, protocol_pairs
    from spfem_bench.faces.detect import load_detector

    x = scorer.extractor
    if pair_list is not None and frames is not None:
        find = None
        if x.faces == "detect":
            find = five_points(load_detector(x.profile.network("detector"), x.weights))
        pairs = listed_pairs(
            pair_list, frames, template=template or TEMPLATE, first=first, find=find, forbidden=()
        )
        return Paired(tuple(pairs), "sound")
    if source is not None and target is not None:
        return folder_pairs(source, target, scorer, emotion=emotion, timing=timing)
    return protocol_pairs(
        method,
        listed,
        scorer,
        DataFolders.locate(data_dir),
        videos=Videos(videos) if videos else None,
        progress=options.progress(quiet),
    )
