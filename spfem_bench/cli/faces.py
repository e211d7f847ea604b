"""``spfem-bench faces``: draw what the networks get."""

from __future__ import annotations

from pathlib import Path

import click

from spfem_bench.cli import options


@click.command(short_help="Draw a clip's face track.")
@click.argument("clip")
@options.with_default("-o", "--output", type=options.File(), default=Path("faces.png"))
@options.with_default("--profile", default="light")
@options.with_default("--count", type=click.IntRange(1, 50), default=8, help="Frames to show.")
@options.weights_dir
def faces(clip: str, output: Path, profile: str, count: int, weights: options.WeightsStore) -> None:
    """Draw a clip's face track: box, five points, landmarks, and the three crops.

    CLIP is a video file, one column of a strip (strip.mp4#xywh=256,0,256,256),
    or a folder of frames (frames#fps=30).
    """
    from spfem_bench.definitions.clips import Clip
    from spfem_bench.definitions.networks import profile_card
    from spfem_bench.features.extract import Extractor
    from spfem_bench.features.store import FeatureStore
    from spfem_bench.files import write_atomically
    from spfem_bench.reporting.face_sheet import face_sheet

    extractor = Extractor(profile_card(profile), weights, FeatureStore.locate())
    png, line = face_sheet(extractor, Clip.parse(clip), count)
    write_atomically(output, png)
    click.echo(line)
    landmarks = (
        "landmarks (where their network is at hand), " if extractor.profile.landmarks else ""
    )
    click.echo(f"{output}: frame, {landmarks}ArcFace crop, expression crop, SyncNet crop")
