"""Takes as files: where each lies, and rendering what is missing.

A take's file is named after it: ``P001/angry/1.00/028.mp4`` holds speaker, emotion,
intensity and sentence. Beside each file lies its SHA-256, written last: a file
without one, or with another, counts as absent and is rendered again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from spfem_bench.definitions.clips import inside
from spfem_bench.demo.world import Take, World
from spfem_bench.errors import CardError
from spfem_bench.files import write_atomically
from spfem_bench.media.write import write_clip
from spfem_bench.pinned import sha256_of


def clip_name(take: Take) -> str:
    """Return the file name of a take, such as ``P001/angry/1.00/028.mp4``."""
    level = f"{take.intensity:.2f}"
    return f"{take.speaker.name}/{take.emotion}/{level}/{take.sentence.name}.mp4"


def take_of(world: World, name: str) -> Take:
    """Return the take that a file name asks for.

    Raises:
        CardError: the name does not have the four parts, or the intensity is out of range.
        UnknownNameError: no such speaker, emotion or sentence.
    """
    match = re.fullmatch(r"([^/]+)/([^/]+)/([01]\.\d\d)/([^/]+)\.mp4", name)
    if not match:
        raise CardError(
            f"'{name}' names no take of the puppets",
            "Write speaker/emotion/intensity/sentence.mp4, for example P001/angry/1.00/028.mp4",
        )
    speaker, emotion, level, sentence = match.groups()
    return world.take(speaker, emotion, sentence, float(level))


def rendered(folder: Path, name: str) -> Path | None:
    """Return a take's file when it is there and whole, else None."""
    path = inside(folder, name)
    try:
        whole = _mark(path).read_text() == sha256_of(path)
    except OSError:
        return None
    return path if whole else None


def render(world: World, folder: Path, name: str) -> Path:
    """Render one take into its file, unless it is there.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
    """
    take = take_of(world, name)
    if path := rendered(folder, name):
        return path
    path = inside(folder, name)
    write_clip(path, take.frames(), take.sound())
    write_atomically(_mark(path), sha256_of(path).encode())
    return path


def render_all(
    world: World,
    folder: Path,
    names: Sequence[str],
    *,
    workers: int | None = None,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Render takes in several processes; those that are there are left alone.

    Args:
        world: whose takes.
        folder: where their files go.
        names: the files' names (see :func:`clip_name`).
        workers: processes; as many as there are processors when None.
        done: called after each take.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
        SpfemBenchError: a name asks for no take.
    """
    for name in names:
        take_of(world, name)  # a wrong name is known before any work
    workers = min(workers or os.cpu_count() or 1, len(names))
    if workers <= 1:
        for name in names:
            render(world, folder, name)
            done()
        return
    from multiprocessing import get_context

    # spawn: a fork of a process that has started torch's threads may hang.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        running = [pool.submit(render, world, folder, name) for name in names]
        try:
            for future in running:
                future.result()
                done()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _mark(path: Path) -> Path:
    return path.with_suffix(".sha256")
