"""Clips that a model makes of others, generated on the spot into the folder of rendered clips.

``ned/P001/neutral/1.00/028/like/P006/angry/1.00/029.mp4`` is what the model ``ned`` makes of
one take with the emotion of another. As beside takes (:mod:`spfem_bench.puppets.clips`), a mark
beside each file holds its hash and what it was made of: a file with another one is made again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import ClipError, MissingClipError
from spfem_bench.files import inside, read_file, write_atomically
from spfem_bench.media.audio import samples
from spfem_bench.media.video import file_sha256, frames
from spfem_bench.media.write import write_clip
from spfem_bench.processes import spread
from spfem_bench.puppets import clips
from spfem_bench.puppets.world import World

if TYPE_CHECKING:
    from spfem_bench.puppets.mini_ned.model import MiniNed


class Wanted(NamedTuple):
    """What a made clip's name asks for: a model, and two takes' file names."""

    model: str
    source: str
    reference: str


def wanted(name: str) -> Wanted | None:
    """Return what a clip's name asks for; None for the name of a take.

    >>> wanted("ned/P001/neutral/1.00/028/like/P006/angry/1.00/029.mp4").reference
    'P006/angry/1.00/029.mp4'
    """
    match = re.fullmatch(r"([^/]+)/(.+)/like/(.+\.mp4)", name)
    return Wanted(match[1], f"{match[2]}.mp4", match[3]) if match else None


def present(world: World, folder: Path, name: str) -> Path | None:
    """Return the file of a take or of a made clip when it is there, whole and current."""
    job = wanted(name)
    if job is None:
        return clips.present(world, folder, name)
    path = inside(folder, name)
    try:
        whole = read_file(_mark(path)).decode() == _marked(world, folder, path, job)
    except (OSError, ValueError, ClipError):
        return None
    return path if whole else None


def lacking(world: World, folder: Path, names: Sequence[str]) -> list[str]:
    """Return what has to be made first: takes, also those that others are made of, then those."""
    absent = [n for n in dict.fromkeys(names) if present(world, folder, n) is None]
    made = [n for n in absent if wanted(n)]
    takes = [take for n in made for take in (wanted(n) or ())[1:]]
    takes = [n for n in dict.fromkeys(takes) if present(world, folder, n) is None]
    return [*dict.fromkeys([*(n for n in absent if not wanted(n)), *takes]), *made]


def make_all(
    world: World,
    folder: Path,
    names: Sequence[str],
    *,
    workers: int,
    done: Callable[[], None] = lambda: None,
) -> None:
    """Generate clips in several processes; their number changes no pixel.

    Args:
        world: whose takes they are made of.
        folder: holds those takes; gets the clips.
        names: of the clips.
        workers: processes.
        done: called after each.

    Raises:
        UnknownNameError: no such model.
        WeightsError: its weights are missing or wrong.
        StorageError: the folder cannot be written, or the disk is full.
    """
    for name in names:
        _model(_job(name).model)  # what is wrong with it is said before any work
    with spread(partial(make, world, folder), names, workers) as files:
        for _ in files:
            done()


def make(world: World, folder: Path, name: str) -> Path:
    """Generate one clip.

    Raises:
        MissingClipError: a take that it is made of is not there.
    """
    job, path = _job(name), inside(folder, name)
    source, reference = (_take(world, folder, take) for take in job[1:])
    with _one_thread():
        made = _model(job.model).manipulate(_frames(source), _frames(reference))
    write_clip(path, iter(made), samples(Clip(source)))
    write_atomically(_mark(path), _marked(world, folder, path, job))
    return path


def _take(world: World, folder: Path, name: str) -> Path:
    path = clips.present(world, folder, name)
    if path is None:
        raise MissingClipError(f"{name}: not rendered", "Run it again")
    return path


def _frames(path: Path) -> npt.NDArray[np.uint8]:
    return np.stack(list(frames(Clip(path))))


def _model(name: str) -> MiniNed:
    from spfem_bench.puppets.mini_ned.model import identity, model_path

    path = model_path(name)
    return _loaded(path, *identity(path).values())


@cache
def _loaded(path: Path, *identity: object) -> MiniNed:
    from spfem_bench.puppets.mini_ned.model import MiniNed

    del identity  # part of the cache's key
    return MiniNed.load(path)


def _job(name: str) -> Wanted:
    job = wanted(name)
    if job is None:
        raise ValueError(f"{name} is a take")
    return job


@contextmanager
def _one_thread() -> Iterator[None]:
    """Round alike in every process; and several threads in each would only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _mark(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _marked(world: World, folder: Path, path: Path, job: Wanted) -> str:
    """Return what a clip's mark must hold: its hash, its model's and those of its two takes."""
    from spfem_bench.puppets.mini_ned.model import identity, model_path

    takes = [file_sha256(_take(world, folder, take)) for take in job[1:]]
    made_by = " ".join(map(str, [*identity(model_path(job.model)).values(), *takes]))
    return f"{file_sha256(path)}  {world.name} {made_by}\n"
