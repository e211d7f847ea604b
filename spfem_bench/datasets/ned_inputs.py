"""Which videos ``prepare ned-faces`` reads, and whose they are: by folders, or by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.protocols import EMOTIONS
from spfem_bench.errors import ClipError, near_names
from spfem_bench.files import inside
from spfem_bench.media.video import VIDEO_SUFFIXES

SOUND_SUFFIXES = (".wav", ".m4a", ".flac", ".mp3", ".aac", ".ogg")

_NAME = re.compile(
    rf"(?i)(?P<speaker>.+?)_(?:source_)?(?P<emotion>{'|'.join(EMOTIONS)})_(?P<clip>.+)"
)


@dataclass(frozen=True)
class NedInput:
    """A video whose faces are wanted; *sound* is a file, or None where there is none."""

    clip: Clip
    speaker: str
    emotion: str
    name: str
    sound: Path | None

    @property
    def cell(self) -> str:
        """The folder of its speaker and emotion."""
        return f"{self.speaker}/{self.emotion}"


def ned_inputs(
    addresses: Iterable[str], speaker: str | None = None, emotion: str | None = None
) -> list[NedInput]:
    """Return the videos at addresses, sorted by speaker, emotion and name.

    An address is a clip's, or a folder: then of all videos below it. Speaker and emotion are those
    given; else the folders of ``SPEAKER/EMOTION/videos/CLIP.mp4``; else in the name
    ``SPEAKER_EMOTION_CLIP.mp4``. Raises ClipError where they are unknown or two clips are alike.
    """
    found: list[NedInput] = []
    for address in addresses:
        folder = Path(address)
        if folder.is_dir():
            paths = [p for p in sorted(folder.rglob("*")) if is_video(p)]
            if not paths:
                allowed = ", ".join(VIDEO_SUFFIXES)
                raise ClipError(f"{folder}: holds no videos", f"Looked for: {allowed}")
            # A tree of NED's also holds videos that were made from the faces.
            own = [path for path in paths if path.parent.name == "videos"]
            clips = [Clip(path) for path in own or paths]
        else:
            clips = [Clip.parse(address)]
        found += [_input(clip, speaker, emotion) for clip in clips]
    found.sort(key=lambda one: (one.speaker, one.emotion, one.name))
    for one, other in pairwise(found):
        if (one.cell, one.name) == (other.cell, other.name):
            problem = f"{one.clip} and {other.clip} are both clip '{one.name}' of {one.cell}"
            raise ClipError(problem, "Give one of them with another --speaker, or rename it")
    return found


def is_video(path: Path) -> bool:
    """Return whether a path is a file with the suffix of a video; hidden ones are none."""
    return path.suffix.lower() in VIDEO_SUFFIXES and path.name[0] != "." and path.is_file()


def _input(clip: Clip, speaker: str | None, emotion: str | None) -> NedInput:
    if clip.span or clip.edit:
        raise ClipError(f"{clip}: every picture is prepared", "Leave out t= and edit=")
    if not clip.path.exists():
        raise ClipError(f"{clip.path}: no such file", "Check the name and the folder")
    path = clip.path.absolute()
    name = path.stem
    if path.parent.name == "videos":
        speaker, emotion = speaker or path.parts[-4], emotion or path.parts[-3]
    elif match := _NAME.fullmatch(name):
        speaker, emotion = speaker or match["speaker"], emotion or match["emotion"].lower()
        name = match["clip"]
    if not speaker or not emotion:
        lacking = " and ".join(w for w, v in (("speaker", speaker), ("emotion", emotion)) if not v)
        remedy = "Give --speaker NAME and --emotion NAME, or name it SPEAKER_EMOTION_CLIP.mp4"
        raise ClipError(f"{clip}: its {lacking} cannot be read from its name or folders", remedy)
    if emotion not in EMOTIONS:
        raise ClipError(f"{clip}: unknown emotion '{emotion}'", near_names(emotion, EMOTIONS))
    for part in (speaker, name):
        inside(Path(), part)
        if "/" in part or part.startswith("."):
            raise ClipError(f"{clip}: '{part}' cannot be a folder's name", "Give another --speaker")
    return NedInput(clip, speaker, emotion, name, _sound(clip))


def _sound(clip: Clip) -> Path | None:
    """Return the file that a clip's sound is in: named, beside the video, or the video itself."""
    from spfem_bench.media.headers import probe

    if clip.audio is not None:
        return clip.audio
    beside = [clip.path.with_suffix(suffix) for suffix in SOUND_SUFFIXES]
    if sound := next((path for path in beside if path.is_file()), None):
        return sound
    return clip.path if clip.path.is_file() and probe(clip.path).has_audio else None
