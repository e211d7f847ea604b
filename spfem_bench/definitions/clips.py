"""A clip's address: which file, which columns of it, which frames and sound."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from spfem_bench.errors import CardError

_NUMBER = r"\d{1,6}(?:\.\d{1,20})?"
_OPTIONS = ("xywh", "t", "fps", "audio")


@dataclass(frozen=True, order=True)
class Crop:
    """A rectangle in pixels of the upright (already rotated) picture."""

    x: int
    y: int
    width: int
    height: int


@dataclass(frozen=True, order=True)
class Span:
    """A part of a clip's time, from ``start`` up to ``end``, in seconds."""

    start: float
    end: float


@dataclass(frozen=True, order=True)
class Clip:
    """One talking-head video with its audio.

    Written as ``path#xywh=x,y,w,h&t=start,end`` for a column of a strip, up to
    where it ends (the syntax of W3C media fragments), as
    ``folder#fps=30&audio=sound.wav`` for numbered frames, and as a plain path
    for a whole video file.

    Attributes:
        path: a video file, or a folder of numbered frames.
        crop: the part of the picture to use; all of it when None.
        frame_rate: frames a second, for a folder of frames only.
        audio: a sound file, for a folder of frames only.
        span: the part of the time to use; all of it when None.

    >>> str(Clip.parse("strip.mp4#xywh=256,0,256,256").crop)
    'Crop(x=256, y=0, width=256, height=256)'
    """

    path: Path
    crop: Crop | None = None
    frame_rate: float | None = None
    audio: Path | None = None
    span: Span | None = None

    @classmethod
    def parse(cls, text: str) -> Clip:
        """Read a clip's address.

        Raises:
            CardError: the fragment has an unknown key or a bad value.
        """
        path, mark, fragment = text.rpartition("#") if "#" in text else (text, "", "")
        if mark and not re.match(rf"({'|'.join(_OPTIONS)})=", fragment):
            path, fragment = text, ""  # a '#' that belongs to the file's own name
        if not path:
            raise CardError(f"clip '{text}': the path is empty", "Give the path of a video")
        clip = cls(Path(path))
        for option in filter(None, fragment.split("&")):
            key, _, value = option.partition("=")
            clip = _with_option(clip, text, key, value)
        return clip

    def __str__(self) -> str:
        options = []
        if self.crop:
            c = self.crop
            options.append(f"xywh={c.x},{c.y},{c.width},{c.height}")
        if self.span:
            options.append(f"t={self.span.start!r},{self.span.end!r}")
        if self.frame_rate is not None:
            options.append(f"fps={self.frame_rate!r}")
        if self.audio is not None:
            options.append(f"audio={self.audio.as_posix()}")
        return self.path.as_posix() + ("#" + "&".join(options) if options else "")

    def within(self, folder: Path) -> Clip:
        """Return the clip with its relative paths placed inside *folder*.

        Raises:
            CardError: a path would leave the folder.
        """
        audio = None if self.audio is None else inside(folder, self.audio.as_posix())
        return replace(self, path=inside(folder, self.path.as_posix()), audio=audio)


def _with_option(clip: Clip, text: str, key: str, value: str) -> Clip:
    if key == "xywh":
        match = re.fullmatch(r"(\d+),(\d+),(\d+),(\d+)", value)
        if not match or int(match[3]) == 0 or int(match[4]) == 0:
            raise CardError(
                f"clip '{text}': bad rectangle '{value}'",
                "Write xywh=x,y,width,height in whole pixels, for example xywh=256,0,256,256",
            )
        return replace(clip, crop=Crop(*(int(g) for g in match.groups())))
    if key == "t":
        match = re.fullmatch(rf"({_NUMBER})?,({_NUMBER})", value)
        if not match or float(match[1] or 0) >= float(match[2]):
            raise CardError(
                f"clip '{text}': bad time span '{value}'",
                "Write t=start,end in seconds, for example t=0,3.6",
            )
        return replace(clip, span=Span(float(match[1] or 0), float(match[2])))
    if key == "fps":
        if not re.fullmatch(_NUMBER, value) or float(value) == 0:
            raise CardError(f"clip '{text}': bad frame rate '{value}'", "Write for example fps=30")
        return replace(clip, frame_rate=float(value))
    if key == "audio" and value:
        return replace(clip, audio=Path(value))
    raise CardError(f"clip '{text}': unknown option '{key}'", f"Allowed: {', '.join(_OPTIONS)}")


def inside(folder: Path, name: str) -> Path:
    """Return ``folder/name``, and refuse any name that leaves the folder.

    Only names are judged. A link that lies in the folder is followed: whoever
    owns the folder put it there, and pinned files are checked by hash anyway.

    >>> inside(Path("data"), "a/b.mp4").as_posix()
    'data/a/b.mp4'

    Raises:
        CardError: the name is empty, absolute, or has a ``..``, a backslash, a
            drive or a control character.
    """
    pure = PurePosixPath(name)
    bad = not name or pure.is_absolute() or ".." in pure.parts or "\\" in name
    if bad or any(ord(c) < 32 for c in name) or re.match(r"[A-Za-z]:", name):
        raise CardError(f"the name {name!r} leaves its folder", "Use a relative path without '..'")
    return folder / pure
