"""``spfem-bench score``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from spfem_bench.cli import options
from spfem_bench.definitions.computing import Computing

_NUMBERS = options.File(".csv", ".json")


@click.command(short_help="Score how coherent outputs are with their sources.")
@options.folder("--source", required=True, help="Folder of source videos.")
@options.folder("--generated", required=True, help="Folder of outputs, named as their sources.")
@click.option("--metric", default="", help="A learnt metric, by name or path; untrained without.")
@options.flag("--aligned", help="The videos are face crops already.")
@click.option("--profile", help="Which networks; light, or compact with --aligned, if not given.")
@options.with_default(
    "--max-lag",
    type=click.IntRange(0, 25),
    default=6,
    help="Frames by which an output may be out of step with its source.",
)
@options.computing("batch_size", "device", "precision", half_on_gpu=True)
@click.option("-o", "--output", type=_NUMBERS, help="Each clip and stage, as .csv or .json.")
@click.option("--regions", type=_NUMBERS, help="Each region of each clip, as .csv or .json.")
@options.folder("--heatmaps", help="Draw for each clip where the correlation breaks: DIR/NAME.png.")
@options.weights_dir
@options.quiet
def score(
    source: Path,
    generated: Path,
    metric: str,
    aligned: bool,
    profile: str | None,
    max_lag: int,
    computing: Computing,
    output: Path | None,
    regions: Path | None,
    heatmaps: Path | None,
    weights: options.WeightsStore,
    quiet: bool,
) -> None:
    """Score how coherent outputs are with their sources: SCC, TCC and SCT, dense.

    Videos of one name are compared: how each face region differs from its
    neighbours (SCC), how it changes from frame to frame (TCC), at all positions of four
    stages of a network, and what moves in the whole face, moment by moment (SCT; clips
    of a second or more). A learnt metric has the first two or the last. An output that
    runs some frames ahead or behind is put in step first. Comparisons are kept: the same
    command again computes no network.

    \b
    Examples:
      spfem-bench score --source sources/ --generated outputs/ --heatmaps maps/
      spfem-bench score --source a/ --generated b/ --aligned --metric puppets
      spfem-bench score --source a/ --generated b/ --device cuda --batch-size 256

    Exit codes: 0 all clips scored; 1 an error; 2 some could not be, which are
    named.
    """  # noqa: D301
    from spfem_bench.definitions.clips import Clip
    from spfem_bench.definitions.networks import profile_card
    from spfem_bench.errors import StcclError
    from spfem_bench.evaluation.pairing import same_names
    from spfem_bench.features.extract import Extractor
    from spfem_bench.features.pair_extract import PairExtractor, stored_stages
    from spfem_bench.features.requests import PairRequest
    from spfem_bench.features.store import FeatureStore
    from spfem_bench.files import check_writable, write_atomically
    from spfem_bench.reporting import heatmaps as reporting
    from spfem_bench.statistics.coherence import WINDOWS
    from spfem_bench.stccl.metric import read_checkpoint

    options.check_device(computing.device)
    for folder in filter(None, (*(p.parent for p in (output, regions) if p), heatmaps)):
        check_writable(folder)
    options.when_interrupted(options.RESUMABLE)
    forms = read_checkpoint(metric).heads.keys() if metric else {"vd", "ct"}
    if "vd" not in forms and (heatmaps or regions):
        raise click.UsageError(f"the metric '{metric}' compares no regions: no form 'vd'")
    asked = [w for form, w in (("vd", None), ("ct", WINDOWS)) if form in forms]
    if not asked:
        problem = f"the metric '{metric}' has neither form 'vd' nor 'ct': {', '.join(forms)}"
        raise StcclError(problem, "SCC and TCC need the first, SCT the second")
    pairs = [(Clip(b), Clip(a)) for a, b in same_names(source, generated)]
    requests = [(b, PairRequest(a, max_lag, metric, w)) for b, a in pairs for w in asked]
    progress = options.progress(quiet)
    progress.begin("clips", len(requests), "comparison")
    networks = profile_card(profile or ("compact" if aligned else "light"))
    of_clips = Extractor(
        networks,
        weights,
        FeatureStore.locate(),
        faces="aligned" if aligned else "detect",
        batch_size=computing.batch_size,
        device=computing.device,
        precision=computing.precision,
        progress=progress,
    )
    extractor = PairExtractor(of_clips)
    failures = extractor.ensure(requests, same_length=True)
    progress.end()
    scored = []
    for clip, other in pairs:
        every = [PairRequest(other, max_lag, metric, w) for w in asked]
        wanted = [request for request in every if (clip, request) not in failures]
        if not wanted:
            continue
        loaded = [one for request in wanted if (one := extractor.load(clip, request))]
        if len(loaded) < len(wanted):  # another process emptied the store
            raise click.ClickException(f"{clip}: its comparison vanished; run the command again")
        arrays = {name: array for one in loaded for name, array in one.items()}
        of_clip = reporting.Scored(clip.path.stem, arrays, stored_stages(arrays))
        scored.append(of_clip)
        if heatmaps is not None and "rows" in arrays:
            y_rows, x_rows = arrays["rows"].T
            x, y = extractor.crops(other).pictures, extractor.crops(clip).pictures
            reporting.save_heatmap(of_clip, x[x_rows], y[y_rows], heatmaps / f"{of_clip.name}.png")
    for path, make in ((output, reporting.clip_rows), (regions, reporting.region_rows)):
        if path is not None and path.suffix.lower() == ".json":
            write_atomically(path, json.dumps(list(make(scored)), indent=1) + "\n")
        elif path is not None:
            write_atomically(path, reporting.to_csv(make(scored)))
    click.echo(reporting.table(scored))
    options.print_notes(f"refused: {error}" for error in dict.fromkeys(failures.values()))
    if failures:
        sys.exit(2)
