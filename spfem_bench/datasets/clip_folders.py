"""The clips in a folder of a user's: videos and folders of frames, also in its subfolders."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from spfem_bench.datasets.layouts import folder_sound
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import Audible
from spfem_bench.errors import CardError, ClipError
from spfem_bench.files import Listing
from spfem_bench.media import audio, headers, packets
from spfem_bench.media.pictures import PICTURES, numbered_pictures
from spfem_bench.media.video import VIDEO_SUFFIXES

MOST_CLIPS = 100_000


@dataclass(frozen=True)
class ClipFolder:
    """A folder with the clips in it.

    ``clips`` are the paths of files and folders of frames by their names without endings; several
    for one name. ``others`` are a few of the files that are no clips.
    """

    path: Path
    clips: dict[str, tuple[str, ...]]
    others: tuple[str, ...]

    @property
    def frame_folders(self) -> list[str]:
        """The clips that are folders of frames."""
        names = (name for names in self.clips.values() for name in names)
        return [name for name in names if (self.path / name).is_dir()]

    @classmethod
    def read(cls, path: Path) -> ClipFolder:
        """List a folder and its subfolders; raise ClipError when it is none, or holds no clips."""
        if path.is_file():
            raise ClipError(f"{path} is a file", f"Give a folder, such as {path.parent}")
        if not path.is_dir():
            raise ClipError(f"{path}: no such folder", "Check the name")
        clips: dict[str, tuple[str, ...]] = {}
        others: list[str] = []
        for folder, subfolders, files in os.walk(path):
            subfolders[:] = sorted(name for name in subfolders if name[0] != ".")
            below = PurePosixPath(Path(folder).relative_to(path).as_posix())
            kinds: dict[bool, list[str]] = {True: [], False: []}
            for name in sorted(name for name in files if name[0] != "."):
                kinds[name.lower().endswith(VIDEO_SUFFIXES)].append(str(below / name))
            frames = any(name.lower().endswith(PICTURES) for name in kinds[False])
            if frames and not kinds[True] and folder != str(path):
                clips[str(below)] = (*clips.get(str(below), ()), str(below))
                subfolders.clear()
                continue
            for name in kinds[True]:
                stem = str(PurePosixPath(name).with_suffix(""))
                clips[stem] = (*clips.get(stem, ()), name)
            others += kinds[False][: 3 - len(others)]
            if len(clips) > MOST_CLIPS:
                problem = f"{path}: more than {MOST_CLIPS:,} clips"
                raise ClipError(problem, "Name the folder that holds those to score")
        if not clips:
            beside = f"; it holds {', '.join(others)}" if others else "; it is empty"
            remedy = f"Allowed: {', '.join(VIDEO_SUFFIXES)}, and folders of frames"
            if any(name.lower().endswith(PICTURES) for name in others):
                remedy += f". If these are one clip's frames, give the folder above, {path.parent}"
            raise ClipError(f"{path}: no clips in it{beside}", remedy)
        return cls(path, clips, tuple(others))

    def clip(self, name: str, key: str, frame_rate: float | None) -> Clip:
        """Return the address of a file or a folder of frames, as a data set with a *key* has it.

        Raises ClipError for a folder of frames without a frame rate or with two sounds, and for a
        name that an address cannot hold.
        """
        clip = Clip(Path(key) / name)
        if (self.path / name).is_dir():
            numbered_pictures(Clip(self.path / name, frame_rate=frame_rate))
            sound = folder_sound(Listing(self.path), name)
            clip = replace(clip, frame_rate=frame_rate, audio=Path(key) / sound if sound else None)
        if not name.isprintable() or not _can_be_written(clip):
            problem = f"{name!r} has a control character, a '#' or '&' that an address cannot hold"
            raise ClipError(problem, "Rename it")
        return clip


def _can_be_written(clip: Clip) -> bool:
    try:
        return Clip.parse(str(clip)) == clip
    except CardError:
        return False


def clip_seconds(clip: Clip) -> float:
    """Return how long a clip's pictures last; raise ClipError when it cannot be read."""
    if clip.path.is_dir():
        return len(numbered_pictures(clip)) / (clip.frame_rate or 25.0)
    stretch = packets.stream_times(clip.path).get("video")
    if stretch is None:
        raise headers.no_pictures(clip.path)
    return stretch.seconds


def is_silent(clip: Clip) -> bool:
    """Return whether a clip has no sound, or nothing in it; ClipError when it cannot be read."""
    sound = clip.audio or (None if clip.path.is_dir() else clip.path)
    if sound is None or not headers.probe(sound).has_audio:
        return True
    return audio.level(audio.samples(clip)) < Audible().silence
