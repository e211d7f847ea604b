"""``spfem-bench align``: lists of frames in which two recordings say the same."""

from __future__ import annotations

from pathlib import Path

import click

from spfem_bench.cli import options


@click.command(short_help="Find the frames in which two recordings say the same.")
@click.argument("neutral")
@click.argument("emotional")
@options.with_default("-o", "--output", type=options.File(), default=Path("pairs.json"))
@click.option("--speaker", required=True, help="Who speaks, such as M005.")
@click.option("--emotion", required=True, help="Of the second recording, such as angry.")
@options.several(
    "--clip",
    "clips",
    metavar="NAME",
    help="With folders: only recordings of this name, or 001=028 where names differ; "
    "may be given several times.",
)
@options.with_default(
    "--frame-rate",
    type=click.FloatRange(min=0, min_open=True),
    default=25.0,
    help="At which frames are numbered, from 0.",
)
@options.flag("--merge", help="Keep the pairs that the output file holds already.")
@options.quiet
def align(
    neutral: str,
    emotional: str,
    output: Path,
    speaker: str,
    emotion: str,
    clips: tuple[str, ...],
    frame_rate: float,
    merge: bool,
    quiet: bool,
) -> None:
    """Find the frames in which two recordings of one sentence say the same.

    NEUTRAL and EMOTIONAL are two recordings (video, sound, frames#fps=30&audio=FILE)
    of one sentence by one speaker, or two folders in which recordings of one
    sentence have one name. They are laid over each other by their sound (MFCCs,
    dynamic time warping). The list has the layout of the authors'
    aligned_path36.json; metrics are learnt from such lists.

    \b
    MEAD repeats three sentences in every emotion, as clips 001 to 003 (of some
    speakers, disgusted, as 028 to 030; write --clip 001=028 and so on):
      spfem-bench align M005/audio/neutral/level_1 M005/audio/angry/level_3 \\
        --speaker M005 --emotion angry --clip 001 --clip 002 --clip 003

    The distance printed is 0 for the same sound. It was about 0.6 for one
    sentence spoken twice and 1.1 for two sentences, on puppets: much more than
    for other pairs means that the two do not say the same.
    """  # noqa: D301  (click's mark for text that is not to be wrapped)
    from spfem_bench.datasets import pair_lists
    from spfem_bench.datasets.alignment import align_clips, matched_names
    from spfem_bench.definitions.clips import Clip

    if Path(neutral).is_dir() and Path(emotional).is_dir():
        files, left = matched_names(Path(neutral), Path(emotional), clips)
        work = [(Clip(a), Clip(b)) for a, b in files]
    else:
        if clips:
            raise click.BadParameter("goes with two folders only", param_hint="--clip")
        work, left = [(Clip.parse(neutral), Clip.parse(emotional))], 0
    names = [(a.path.stem, b.path.stem) for a, b in work]
    keys = [pair_lists.join_key(pair) for pair in names]  # before any work
    kept = pair_lists.read_pair_list(output) if merge and output.exists() else []
    pairs = []
    for key, pair, (a, b) in zip(keys, names, work, strict=True):
        aligned = align_clips(a, b, frame_rate)
        pairs.append(pair_lists.ListedPair(speaker, emotion, pair, aligned.numbers))
        if not quiet:
            click.echo(f"{key}: {len(aligned.numbers)} frames, {aligned.distance:.2f} apart")
    pair_lists.write_pair_list(output, [*kept, *pairs])
    more = f"; {left} recordings are left over" if left else ""
    click.echo(f"{output}: {len(pairs)} pairs{f' beside {len(kept)}' if kept else ''}{more}")
