"""``spfem-bench prepare``: clips made into what a recipe takes."""

from __future__ import annotations

from pathlib import Path

import click

from spfem_bench.cli import options


@click.group()
def prepare() -> None:
    """Make videos into what a paper's recipe takes."""


@prepare.command(
    "ned-faces", short_help="Make aligned faces on black, as NED's preprocessing does."
)
@click.argument("videos", nargs=-1, required=True)
@options.folder("-o", "--output", required=True, help="Folder of the tree.")
@click.option("--speaker", help="Whose videos they are, where names and folders do not say.")
@click.option("--emotion", help="Their emotion, likewise.")
@options.with_default("--profile", default="light", help="Whose detector and landmarks to use.")
@options.flag("--no-mask", "no_mask", help="Align only; what is around the face stays.")
@click.option("--sheet", type=options.File(".png"), help="Draw frames with landmarks and mask.")
@options.weights_dir
@options.quiet
def ned_faces(
    videos: tuple[str, ...],
    output: Path,
    speaker: str | None,
    emotion: str | None,
    profile: str,
    no_mask: bool,
    sheet: Path | None,
    weights: options.WeightsStore,
    quiet: bool,
) -> None:
    """Make 256-pixel aligned faces on black, as NED's preprocessing does, nearly.

    VIDEOS are files, addresses such as strip.mp4#xywh=0,0,256,256, or folders.
    Speaker and emotion are read from SPEAKER/EMOTION/videos/CLIP.mp4 or from
    SPEAKER_EMOTION_CLIP.mp4. Written are SPEAKER/EMOTION/faces_aligned/*.png and
    SPEAKER/EMOTION/videos/CLIP.wav; ned_faces.json says how they were made. An
    interrupted run goes on where it was.

    \b
    Examples:
      spfem-bench prepare ned-faces M003_angry_017.mp4 -o faces --sheet sheet.png
      spfem-bench prepare ned-faces render_test -o render_test
      spfem-bench prepare ned-faces mine.mp4 -o faces --speaker me --emotion happy
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    from spfem_bench.datasets.ned_faces import NedFaces, prepare_ned_faces
    from spfem_bench.datasets.ned_inputs import ned_inputs
    from spfem_bench.datasets.ned_sheet import prepared_sheet
    from spfem_bench.definitions.networks import profile_card
    from spfem_bench.files import write_atomically

    inputs = ned_inputs(videos, speaker, emotion)
    faces = NedFaces(profile_card(profile), weights, masked=not no_mask)
    options.when_interrupted(options.RESUMABLE)
    progress = options.progress(quiet)
    outcome = prepare_ned_faces(inputs, output, faces, progress, options.remarks(quiet))
    before = f" ({outcome.complete} clips were complete)" if outcome.complete else ""
    click.echo(f"{output}: {outcome.clips} clips, {outcome.frames} faces{before}")
    if sheet:
        write_atomically(sheet, prepared_sheet(faces, inputs, progress))
        click.echo(f"{sheet}: picture, landmarks and mask, aligned face")
