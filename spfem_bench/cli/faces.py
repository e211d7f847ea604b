"""``spfem-bench faces``: draw what the networks get."""

from __future__ import annotations

from pathlib import Path

import click

from spfem_bench.cli import options


@click.command()
@click.argument("clip")
@click.option("-o", "--output", type=options.File(), default=Path("faces.png"), show_default=True)
@click.option("--profile", default="light", show_default=True)
@click.option(
    "--count", type=click.IntRange(1, 50), default=8, show_default=True, help="Frames to show."
)
@options.weights_dir
def faces(clip: str, output: Path, profile: str, count: int, weights_dir: Path | None) -> None:
    """Draw a clip's face track: box, five points, and the three crops.

    CLIP is a video file, one column of a strip (strip.mp4#xywh=256,0,256,256),
    or a folder of frames (frames#fps=30).
    """
    from spfem_bench.definitions.clips import Clip
    from spfem_bench.definitions.networks import profile_card
    from spfem_bench.features.extract import Extractor
    from spfem_bench.features.store import FeatureStore
    from spfem_bench.files import write_atomically
    from spfem_bench.networks.weights import WeightsStore
    from spfem_bench.reporting.face_sheet import face_sheet

    weights = WeightsStore.locate(weights_dir)
    extractor = Extractor(profile_card(profile), weights, FeatureStore.locate())
    png, line = face_sheet(extractor, Clip.parse(clip), count)
    write_atomically(output, png)
    click.echo(line)
    click.echo(f"{output}: frame, ArcFace crop, expression crop, SyncNet crop")
