"""``spfem-bench stccl``: what the learnt loss does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from spfem_bench.cli import options


@click.group()
def stccl() -> None:
    """What the STCCL loss does with a manipulation."""


@stccl.command(short_help="Measure what a loss costs a perfect manipulation.")
@click.argument("metric", default="puppets")
@options.with_default(
    "--form",
    type=click.Choice(["vd", "cm", "ct", "all"]),
    default="all",
    help="All that METRIC has.",
)
@options.flag("--untrained", help="Beside METRIC also without its heads.")
@click.option(
    "--network",
    help="In the place of METRIC: an identity network, untrained, such as mobilefacenet.",
)
@options.with_default(
    "--frames", type=click.IntRange(5), default=25, help="Of a window, at 25 a second."
)
@options.with_default("--puppets", type=click.IntRange(1), default=12, help="How many of them.")
@options.with_default(
    "--windows", type=click.IntRange(1), default=1, help="Of each puppet or clip."
)
@click.option(
    "--protocol",
    "protocol_name",
    type=options.Name("protocol"),
    help="In the place of puppets: the sources and outputs of a protocol.",
)
@options.several("--method", "methods", help="Of the protocol; all when not given.")
@click.option(
    "--profile", help="With --protocol: which networks find faces; those that fit it if not given."
)
@click.option(
    "-o", "--output", type=options.File(".csv", ".json"), help="All numbers, as .csv or .json."
)
@options.with_default(
    "--format", "style", type=click.Choice(["simple", "github"]), default="simple"
)
@options.with_default("--device", default="cpu", help="Where networks run: cpu, cuda.")
@options.drawing_workers
@options.weights_dir
@options.data_dir
@options.quiet
def probe(
    metric: str,
    form: Any,
    untrained: bool,
    network: str | None,
    frames: int,
    puppets: int,
    windows: int,
    protocol_name: str | None,
    methods: tuple[str, ...],
    profile: str | None,
    output: Path | None,
    style: str,
    device: str,
    workers: int,
    weights: options.WeightsStore,
    data: options.DataFolders,
    quiet: bool,
) -> None:
    """Measure what a loss costs for changes whose cause is known.

    A loss that keeps the words and leaves the emotion free costs a perfect
    manipulation (emotion) little beside wrong words. Drawn puppets move head, mouth
    and emotion separately; none of them is in any training. METRIC is a learnt
    metric, by name or path.

    \b
      nothing           the same performance; only the camera's grain is new
      grain             three times as much grain
      emotion           an emotion on the same face and mouth (0.25: a quarter of it)
      words             another sentence's mouth on the same head
      frozen            the mouth at rest
      head              the head half a second later, the same mouth
      later             head and mouth half a second later
      emotion, words    both; "kept" is what the words add to the emotion, as a
                        share of their cost on a neutral face
      another face      the next puppet's, with all around it unchanged

    Costs are above that of nothing, in units of it, with 95 % intervals over puppets.
    With --protocol, sources are compared with what methods made of them, and with
    wrong moments and other speakers.

    \b
    Examples:
      spfem-bench stccl probe puppets
      spfem-bench stccl probe my-metric/ --form vd -o probe.json
      spfem-bench stccl probe --untrained --frames 5 --windows 4
      spfem-bench stccl probe --network mobilefacenet --protocol stccl-page-ned
    """  # noqa: D301
    from spfem_bench.analysis import probe as analysis
    from spfem_bench.files import check_writable, write_atomically
    from spfem_bench.puppets import probe as drawn
    from spfem_bench.puppets.world import World
    from spfem_bench.reporting import probe as reporting

    given = click.get_current_context().get_parameter_source
    if network and (untrained or given("metric") is click.core.ParameterSource.COMMANDLINE):
        raise click.UsageError("a network is untrained and has no metric: give one of them")
    if methods and not protocol_name:
        raise click.UsageError("--method belongs to --protocol")
    options.check_device(device)
    if output is not None:
        check_writable(output.parent)
    losses = analysis.stccl_losses(
        metric,
        () if form == "all" else (form,),
        untrained=untrained,
        network=network or "",
        weights=weights,
        device=device,
    )
    progress = options.progress(quiet)
    signature: dict[str, Any] = {"probe": drawn.VERSION, "frames": frames, "windows": windows}
    signature["losses"] = losses.signature
    shown: list[str] = []
    if protocol_name:
        from spfem_bench.analysis import real_probe
        from spfem_bench.definitions.networks import profile_card
        from spfem_bench.definitions.protocols import protocol
        from spfem_bench.features.extract import Extractor
        from spfem_bench.features.pair_extract import PairExtractor
        from spfem_bench.features.store import FeatureStore

        items = protocol(protocol_name)
        networks = profile_card(profile or items.card.profile)
        reader = Extractor(networks, weights, FeatureStore.locate(), faces=items.card.faces)
        pairs = real_probe.pair_methods(items, PairExtractor(reader), data, methods, progress)
        clips = list(real_probe.real_clips(pairs, frames, windows))
        shown = [
            m for m in (methods or items.card.outputs) if any(m in p for p in pairs.items.values())
        ]
        signature |= {"protocol": protocol_name, "profile": networks.name}
        results = analysis.probe_losses(losses, clips, total=len(clips), progress=progress)
    else:
        world = World(seed=drawn.SEED)
        signature |= {"world": world.name, "puppets": puppets}
        results = analysis.probe_losses(
            losses,
            drawn.probe_clips(frames, puppets, windows, world, workers=workers),
            total=drawn.CLIPS * puppets * windows,
            progress=progress,
        )
    rows = reporting.probe_rows(results, shown)
    if output is not None:
        as_json = output.suffix.lower() == ".json"
        text = reporting.to_json(rows, signature) if as_json else reporting.to_csv(rows)
        write_atomically(output, text)
    for name, result in results.items():
        if protocol_name:
            below = reporting.rank_table(result, shown, style)
        else:
            below = reporting.share_table(result, style)
        above = reporting.condition_table(result, style, relative=not protocol_name)
        click.echo(f"{name}\n{above}\n\n{below}\n")
    click.echo(f"{reporting.signature_line(signature)}")
    if protocol_name and not quiet:
        options.print_notes(f"left out: {reason}" for reason in pairs.left_out)
