"""``spfem-bench faces``: see what the networks see."""

from __future__ import annotations

from pathlib import Path

import click

from spfem_bench.cli import options


@click.command()
@click.argument("clip")
@click.option(
    "-o",
    "--output",
    type=options.File(),
    default=Path("faces.png"),
    show_default=True,
)
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
    import cv2

    from spfem_bench.definitions.clips import Clip
    from spfem_bench.definitions.networks import profile_card
    from spfem_bench.faces.draw import contact_sheet
    from spfem_bench.faces.track import FaceTrack
    from spfem_bench.features.extract import Extractor
    from spfem_bench.features.store import FeatureStore
    from spfem_bench.files import write_atomically
    from spfem_bench.networks.weights import WeightsStore

    card = profile_card(profile)
    extractor = Extractor(
        card,
        WeightsStore.locate(weights_dir),
        FeatureStore.locate(),
    )
    address, track, found = Clip.parse(clip), FaceTrack(), 0
    for _, face in extractor.tracked_frames(address, track):
        found += face is not None
    n = len(track.faces)
    shown = {round((i + 0.5) * n / count - 0.5) for i in range(min(count, n))}
    rows = [
        (index, picture, face, track.detected[index])
        for index, (picture, face) in enumerate(extractor.tracked_frames(address, FaceTrack()))
        if index in shown
    ]
    inputs = [card.network(role).input for role in ("identity", "expression", "sync")]
    sheet = contact_sheet(rows, [i for i in inputs if i.crop != "frame"])
    _, content = cv2.imencode(".png", sheet[:, :, ::-1])
    write_atomically(output, content.tobytes())
    click.echo(
        f"{address}: {n} frames, a face in {found} ({sum(track.detected)} detected, "
        f"{found - sum(track.detected)} interpolated), another of similar size in {track.rivals}"
    )
    click.echo(f"{output}: frame, ArcFace crop, expression crop, SyncNet crop")
