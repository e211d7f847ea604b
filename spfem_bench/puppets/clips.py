"""Takes as files, such as ``P001/angry/1.00/028.mp4``: speaker, emotion, intensity, sentence.

The demo's takes are shipped and known by their hash. Others are drawn; a mark beside the file,
written last, holds its SHA-256, world and libraries: without it the file counts as absent.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

from spfem_bench.definitions.datasets import WorldSettings, dataset_card, dataset_files
from spfem_bench.errors import CardError, ClipError
from spfem_bench.faces.crop import opencv
from spfem_bench.files import inside, read_file, write_atomically
from spfem_bench.machine import processors
from spfem_bench.media import ffmpeg
from spfem_bench.media.video import FRAME_RATE, file_sha256
from spfem_bench.media.write import write_clip
from spfem_bench.processes import spread
from spfem_bench.progress import SILENT, Progress
from spfem_bench.puppets.face import LANDMARKS
from spfem_bench.puppets.speech import VISEMES
from spfem_bench.puppets.world import Take, World

DATASET = "puppets"  # the data set of the demo


def clip_name(take: Take) -> str:
    """Return the file name of a take, such as ``P001/angry/1.00/028.mp4``."""
    return f"{take.speaker.name}/{take.emotion}/{take.intensity:.2f}/{take.sentence.name}.mp4"


def take_of(world: World, name: str) -> Take:
    """Return the take that a file name asks for; raises CardError or UnknownNameError."""
    level = r"([01]\.\d\d)"
    match = re.fullmatch(rf"([^/]+)/([^/]+)/{level}/([^/]+?)(?:/as/([^/]+)/{level})?\.mp4", name)
    if not match:
        remedy = "Write speaker/emotion/intensity/sentence.mp4, for example P001/angry/1.00/028.mp4"
        raise CardError(f"'{name}' names no take of the puppets", remedy)
    speaker, emotion, intensity, sentence, other, share = match.groups()
    take = world.take(speaker, emotion, sentence, float(intensity))
    return take.with_face(other, float(share)) if other else take


def shipped(world: World, name: str) -> Path | None:
    """Return a shipped take's file, or None; raise ClipError if it is absent or damaged."""
    card = dataset_card(DATASET)
    pinned = dataset_files(card).get(name)
    if pinned is None or card.world != WorldSettings(**asdict(world)):
        return None
    path = inside(card.path.with_suffix(""), name)
    if not path.is_file() or file_sha256(path) != pinned.sha256:
        remedy = "Install the package again, or check the file out again"
        raise ClipError(f"{path}: the shipped clip is absent or damaged", remedy)
    return path


def present(world: World, folder: Path, name: str) -> Path | None:
    """Return a take's file: the shipped one, else the one that was rendered, else None."""
    return shipped(world, name) or rendered(world, folder, name)


def rendered(world: World, folder: Path, name: str) -> Path | None:
    """Return a take's rendered file when it is whole and of this world; else None."""
    path = inside(folder, name)
    return path if is_current(path, lambda: _made_by(world)) else None


def render_take(world: World, folder: Path, name: str) -> Path:
    """Render or copy one take into its file, unless it is there; raises ClipError, StorageError."""
    take = take_of(world, name)
    if path := rendered(world, folder, name):
        return path
    path = inside(folder, name)
    if source := shipped(world, name):
        write_atomically(path, source.read_bytes())
    else:
        write_clip(path, take.frames(), take.sound())
    write_mark(path, _made_by(world))
    return path


def write_truth(world: World, folder: Path, name: str) -> Path:
    """Write a take's truth beside its clip, as JSON.

    ``phones`` are symbol, start and end in seconds; for each frame there are ``landmarks`` (x, y in
    pixels), ``mouth`` (by ``mouth_names``) and ``emotion`` (0 to 1).
    """
    take = take_of(world, name)
    truth = {
        "speaker": take.speaker.name,
        "emotion_name": take.emotion,
        "intensity": take.intensity,
        "sentence": take.sentence.name,
        "text": take.sentence.text,
        "frame_rate": FRAME_RATE,
        "audio_offset": 0,
        "phones": [[p.symbol, round(p.start, 4), round(p.end, 4)] for p in take.phones],
        "landmark_names": LANDMARKS,
        "landmarks": take.landmarks.round(2).tolist(),
        "mouth_names": VISEMES,
        "mouth": take.mouth.round(4).tolist(),
        "emotion": take.emotion_track.round(4).tolist(),
    }
    path = inside(folder, name).with_suffix(".json")
    write_atomically(path, json.dumps(truth) + "\n")
    return path


def render_all(
    world: World,
    folder: Path,
    names: Sequence[str],
    *,
    workers: int | None = None,
    progress: Progress = SILENT,
) -> None:
    """Render takes that are missing; *workers* is by default the number of processors.

    Raises StorageError, and before any work SpfemBenchError for a name that asks for no take.
    """
    for name in names:
        take_of(world, name)  # a wrong name is refused before any work
    workers = workers or processors()
    with spread(partial(render_take, world, folder), names, workers) as files:
        for _ in files:
            progress.advance("render")


def _made_by(world: World) -> str:
    drawn_by = f"opencv {opencv().__version__}, numpy {np.__version__}, ffmpeg {ffmpeg.version()}"
    return f"{world.name} {drawn_by}"


def write_mark(path: Path, made_of: str) -> None:
    """Write the mark beside a file, which makes it valid."""
    write_atomically(path.with_suffix(".sha256"), _mark(path, made_of))


def is_current(path: Path, made_of: Callable[[], str]) -> bool:
    """Whether a file's mark fits its bytes and what it would be made of now."""
    try:
        return read_file(path.with_suffix(".sha256")).decode() == _mark(path, made_of())
    except (OSError, ValueError, ClipError):
        return False


def _mark(path: Path, made_of: str) -> str:
    return f"{file_sha256(path)}  {made_of}\n"
