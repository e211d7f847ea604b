"""``spfem-bench correlate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from spfem_bench.cli import options
from spfem_bench.definitions.computing import Computing

if TYPE_CHECKING:
    from spfem_bench.analysis.disparities import Definition, Measure
    from spfem_bench.evaluation.pairing import Timing
    from spfem_bench.stccl.settings import Form


_default = options.with_default
_FORMS, _MEASURES = click.Choice(["vd", "cm", "ct"]), click.Choice(["cosine", "pearson"])


@click.command(short_help="Test the papers' discovery of alike disparities.")
@_default("--protocol", "protocol_name", default="demo-inter-id", help="Whose clips to compare.")
@_default(
    "--method",
    default="real",
    help="What each source is compared with: the real clip, a method's output, a control.",
)
@options.folder("--videos", help="Your own outputs, named as the protocol expects.")
@options.folder("--source", help="In the place of a protocol: a folder of clips.")
@options.folder("--target", help="Clips of the same names in another emotion.")
@_default(
    "--timing",
    type=click.Choice(["motion", "sound"]),
    default="motion",
    help="With --source: how frames are matched, by motion or by speech.",
)
@_default("--emotion", default="all", help="With --source: of --target.")
@click.option(
    "--pairs",
    "pair_list",
    type=options.File(),
    help="In the place of a protocol: a list as aligned_path36.json.",
)
@options.folder("--frames", help="With --pairs: the folder of its frames.")
@click.option(
    "--template",
    help="With --pairs: a frame's name, with {speaker}, {emotion}, {clip}, {level}, {frame}.",
)
@click.option("--first", type=int, default=0, help="With --pairs: number of the first frame.")
@options.flag("--aligned", help="With --source or --pairs: frames are face crops in one pose.")
@click.option("--profile", help="Which networks to use; those that fit when not given.")
@click.option(
    "--network", help="The backbone; the metric's own, else the profile's identity network."
)
@click.option("--metric", help="Also with the heads of a learnt metric, by name or path.")
@_default("--form", type=_FORMS, default="vd", help="Disparities, correlation matrices, content.")
@_default(
    "--definition",
    type=click.Choice(["paper", "released-code", "released-logs"]),
    default="paper",
    help="Of similarity and of what does not correspond: the paper's; what the authors' code "
    "writes to TensorBoard; or the arithmetic of their text files.",
)
@_default(
    "--windows",
    type=click.IntRange(1),
    default=3,
    help="For each pair, of five frames (nine in the authors' code, 25 with --form ct).",
)
@_default(
    "--size",
    type=click.IntRange(32, 1024),
    default=112,
    help="Side of the backbone's input in pixels; the authors' is 224.",
)
@_default(
    "--measure", type=_MEASURES, default="cosine", help="In table and figure; the CSV has both."
)
@_default(
    "-o", "--output", type=options.File(), default=Path("discovery.csv"), help="CSV of all numbers."
)
@click.option("--figure", type=options.FIGURE, help="Draw the papers' figure: .png, .pdf or .svg.")
@_default("--format", "style", type=click.Choice(["simple", "github"]), default="simple")
@options.computing("device")
@options.weights_dir
@options.data_dir
@options.quiet
def correlate(
    protocol_name: str,
    method: str,
    videos: Path | None,
    source: Path | None,
    target: Path | None,
    timing: Timing,
    emotion: str,
    pair_list: Path | None,
    frames: Path | None,
    template: str | None,
    first: int,
    aligned: bool,
    profile: str | None,
    network: str | None,
    metric: str | None,
    form: Form,
    definition: Definition,
    windows: int,
    size: int,
    measure: Measure,
    output: Path,
    figure: Path | None,
    style: str,
    computing: Computing,
    weights: options.WeightsStore,
    data: options.DataFolders,
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
      Moments         with --form ct: all regions of a moment together, less their
                      mean over a second; Negative has the other moments
      Above ...       positive less the control, pair by pair, with its 95 %
                      interval over pairs

    The default: the puppets' neutral against their emotional performance,
    aligned in time by the exact truth, put in one pose by their landmarks.

    \b
    Examples:
      spfem-bench correlate --figure discovery.png
      spfem-bench correlate --protocol stccl-page-ned --method ned
      spfem-bench correlate --metric puppets-ct --form ct
      spfem-bench correlate --source neutral/ --target angry/ --timing sound
      spfem-bench correlate --pairs aligned_path36.json --frames frames/
    """  # noqa: D301
    from spfem_bench.analysis import discovery, disparities
    from spfem_bench.datasets import pair_lists
    from spfem_bench.definitions import networks, protocols
    from spfem_bench.evaluation import outputs, pairing
    from spfem_bench.faces.detect import load_detector
    from spfem_bench.features.extract import Extractor
    from spfem_bench.features.pair_extract import PairExtractor
    from spfem_bench.features.store import FeatureStore
    from spfem_bench.files import check_writable, write_atomically
    from spfem_bench.reporting import discovery as reporting

    options.check_device(computing.device)
    if (source is None) != (target is None):
        raise click.UsageError("--source and --target go together")
    if (pair_list is None) != (frames is None):
        raise click.UsageError("--pairs and --frames go together")
    if source is not None and pair_list is not None:
        raise click.UsageError("give --source or --pairs, not both")
    if metric is not None and network is not None:
        raise click.UsageError("a metric has its own network: leave --network out")
    if metric is not None and size != 112:
        raise click.UsageError("a metric has its own input size: leave --size out")
    for path in filter(None, (output, figure)):
        check_writable(path.parent)
    progress = options.progress(quiet)
    protocol = None if source or pair_list else protocols.protocol(protocol_name)
    if protocol:
        default, faces = protocol.card.profile, protocol.card.faces
    else:
        default, faces = ("compact", "aligned") if aligned else ("light", "detect")
    card = networks.profile_card(profile or default)
    store, device = FeatureStore.locate(), computing.device
    backbone, lenses = disparities.make_lenses(
        network or card.identity, metric, form, weights, device, size
    )
    extractor = PairExtractor(Extractor(card, weights, store, faces=faces, device=device))
    if protocol:
        own = outputs.Videos(videos) if videos else None
        paired = pairing.protocol_pairs(
            method, protocol, extractor, data, videos=own, progress=progress
        )
    elif source and target:
        paired = pairing.folder_pairs(source, target, extractor, emotion=emotion, timing=timing)
    elif pair_list and frames:
        detector = None if aligned else load_detector(card.network("detector"), weights)
        find = pair_lists.five_points(detector) if detector else None
        name = template or pair_lists.TEMPLATE
        pairs = pair_lists.listed_pairs(
            pair_list, frames, template=name, first=first, find=find, forbidden=()
        )
        paired = pairing.Paired(tuple(pairs), "sound")
    else:
        raise click.UsageError("name clips by --protocol, --source and --target, or --pairs")
    rows, refused = discovery.discover(
        paired.pairs,
        backbone,
        lenses,
        windows=windows,
        definition=definition,
        size=size,
        device=device,
        progress=progress,
    )
    write_atomically(output, reporting.to_csv(rows))
    shown: Measure = "pearson" if form == "cm" else measure
    click.echo(f"{reporting.table(rows, shown, style)}\n")
    click.echo(reporting.by_emotion(rows, shown, style))
    if figure is not None:
        a = protocol.name if protocol else source or pair_list
        b = method if protocol else target or "the list's"
        caption = (
            f"{a}: source against {b}, aligned by {paired.timing}; "
            f"{len(paired.pairs)} pairs, definition: {definition}."
        )
        reporting.save_figure(rows, figure, measure=shown, caption=caption)
    if quiet:
        return
    for lag in sorted(set(paired.lags)):
        pairs_with = f"{paired.lags.count(lag)} of {len(paired.lags)} pairs"
        frame = f"frame t {'+' if lag >= 0 else '-'} {abs(lag)} of the source"
        click.echo(f"{pairs_with}: frame t goes with {frame}", err=True)
    left_out = [*paired.left_out, *(f"{name}: {reason}" for name, reason in refused)]
    options.print_notes(f"left out: {reason}" for reason in left_out)
    drawn = f"   Figure: {figure}" if figure else ""
    click.echo(f"All numbers: {output}{drawn}", err=True)
