"""Clips that a model makes: ``MODEL/TAKE/like/TAKE.mp4``, the first take with the second's emotion.

As for takes (:mod:`spfem_bench.puppets.clips`), a mark holds what each file was made of.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import MissingClipError
from spfem_bench.files import inside
from spfem_bench.machine import processors
from spfem_bench.media.audio import samples
from spfem_bench.media.headers import file_identity
from spfem_bench.media.video import file_sha256, frames
from spfem_bench.media.write import write_clip
from spfem_bench.progress import SILENT, Progress
from spfem_bench.puppets import clips
from spfem_bench.puppets.world import World

if TYPE_CHECKING:
    from spfem_bench.puppets.mini_ned.model import MiniNed
    from spfem_bench.puppets.mini_ned.morphable import Coefficients


class MadeClip(NamedTuple):
    """What a made clip's name refers to: a model, and the file names of two takes."""

    model: str
    source: str
    reference: str


def made_clip(name: str) -> MadeClip | None:
    """Return what a clip's name refers to; None for the name of a take."""
    match = re.fullmatch(r"([^/]+)/(.+)/like/(.+\.mp4)", name)
    return MadeClip(match[1], f"{match[2]}.mp4", match[3]) if match else None


def present(world: World, folder: Path, name: str) -> Path | None:
    """Return the file of a take or of a made clip when it is there, whole and current."""
    job = made_clip(name)
    if job is None:
        return clips.present(world, folder, name)
    path = inside(folder, name)
    return path if clips.is_current(path, lambda: _made_of(world, folder, job)) else None


def lacking(world: World, folder: Path, names: Sequence[str]) -> list[str]:
    """Return what to make first: takes, the takes that made clips need, then made clips."""
    absent = [n for n in dict.fromkeys(names) if present(world, folder, n) is None]
    made = [n for n in absent if made_clip(n)]
    takes = [take for n in made for take in (made_clip(n) or ())[1:]]
    takes = [n for n in dict.fromkeys(takes) if present(world, folder, n) is None]
    return [*dict.fromkeys([*(n for n in absent if not made_clip(n)), *takes]), *made]


def make_all(world: World, folder: Path, names: Sequence[str], progress: Progress = SILENT) -> None:
    """Generate clips in threads; raises UnknownNameError, WeightsError or StorageError."""
    for name in names:
        _model(_job(name).model)  # a wrong model is refused before any work
    # Threads share what was read and estimated; torch and ffmpeg do not hold Python's lock.
    with _one_thread(), ThreadPoolExecutor(processors()) as threads:
        for _ in threads.map(partial(make, world, folder), names):
            progress.advance("render")


def make(world: World, folder: Path, name: str) -> Path:
    """Generate one clip; raise MissingClipError when a take that it is made of is not there."""
    job, path = _job(name), inside(folder, name)
    source, reference = (_take(world, folder, take) for take in job[1:])
    with _one_thread():
        model = _model(job.model)
        faces = (_face(job.model, take, file_identity(take)) for take in (source, reference))
        made = model.redraw(_frames(source, file_identity(source)), *faces)
    write_clip(path, iter(made), _sound(source, file_identity(source)))
    clips.write_mark(path, _made_of(world, folder, job))
    return path


_State = tuple[int, ...]


@lru_cache(maxsize=16)
def _frames(take: Path, state: _State) -> npt.NDArray[np.uint8]:
    del state  # part of the cache's key
    return np.stack(list(frames(Clip(take))))


@lru_cache(maxsize=16)
def _sound(take: Path, state: _State) -> npt.NDArray[np.int16]:
    del state
    return samples(Clip(take))


def _face(model: str, take: Path, state: _State) -> Coefficients:
    """Return a take's coefficients, which all models with one estimator share."""
    from spfem_bench.puppets.mini_ned.model import identity, model_path

    key = take, state, str(identity(model_path(model))["face"])
    if key not in _faces:
        _faces[key] = _model(model).estimate(_frames(take, state))
    return _faces[key]


_faces: dict[tuple[Path, _State, str], Coefficients] = {}


def _take(world: World, folder: Path, name: str) -> Path:
    path = clips.present(world, folder, name)
    if path is None:
        raise MissingClipError(f"{name}: not rendered", "Run it again")
    return path


def _model(name: str) -> MiniNed:
    from spfem_bench.puppets.mini_ned.model import identity, model_path

    path = model_path(name)
    return _loaded(path, *identity(path).values())


@cache
def _loaded(path: Path, *identity: object) -> MiniNed:
    from spfem_bench.puppets.mini_ned.model import MiniNed

    del identity  # part of the cache's key
    return MiniNed.load(path)


def _job(name: str) -> MadeClip:
    job = made_clip(name)
    if job is None:
        raise ValueError(f"{name} is a take")
    return job


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread, so that all processes round alike and do not compete for processors."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _made_of(world: World, folder: Path, job: MadeClip) -> str:
    """Return the world, the model's identity and the hashes of both takes."""
    from spfem_bench.puppets.mini_ned.model import identity, model_path

    takes = [file_sha256(_take(world, folder, take)) for take in job[1:]]
    made_by = [world.name, *identity(model_path(job.model)).values(), *takes]
    return " ".join(map(str, made_by))
