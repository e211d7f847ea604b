"""A clip's address: which file, which part of the picture and time, which sound and edit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from spfem_bench.errors import CardError, near_names
from spfem_bench.files import inside

_NUMBER = r"\d{1,6}(?:\.\d{1,20})?"
_OPTIONS = ("xywh", "t", "fps", "frames", "audio", "skip", "edit")


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


EditKind = Literal["blurred", "frozen-mouth", "shifted-audio", "time-shuffled"]


@dataclass(frozen=True)
class _Range:
    """What an edit's level may be, and the level at which nothing is changed."""

    low: float
    high: float
    whole: bool
    nothing: float
    unit: str


_RANGES: dict[EditKind, _Range] = {
    "blurred": _Range(0, 100, False, 0, "Gaussian sigma in percent of the picture's height"),
    "frozen-mouth": _Range(0, 1, False, 0, "share of the frames, from the first"),
    "shifted-audio": _Range(-250, 250, True, 0, "frames by which the sound comes early"),
    "time-shuffled": _Range(1, 250, True, 1, "frames in a block"),
}


@dataclass(frozen=True, order=True)
class Edit:
    """A known degradation, made while the clip is read (see ``spfem_bench.faces.edits``).

    Written as ``blurred:2``: the kind, and its level in the kind's own unit, of which millionths
    are rounded. Raises CardError for an unknown kind, or a level that it cannot have.
    """

    kind: EditKind
    level: float

    def __post_init__(self) -> None:
        if self.kind not in _RANGES:
            raise CardError(f"unknown edit '{self.kind}'", near_names(self.kind, _RANGES))
        allowed = _RANGES[self.kind]
        fits = allowed.low <= self.level <= allowed.high  # false for NaN
        if not fits or (allowed.whole and self.level != int(self.level)):
            raise CardError(
                f"the edit '{self.kind}' has no level {self.level:g}",
                f"Allowed: {'whole numbers' if allowed.whole else 'numbers'} from {allowed.low:g} "
                f"to {allowed.high:g} ({allowed.unit})",
            )
        # One way of writing each level, without an exponent or a minus zero.
        object.__setattr__(self, "level", round(float(self.level), 6) + 0.0)

    @classmethod
    def parse(cls, text: str) -> Edit:
        """Read an edit written as ``kind:level``; raise CardError when it is no allowed one."""
        kind, _, level = text.partition(":")
        known = next((k for k in get_args(EditKind) if k == kind), None)
        if known is None:
            raise CardError(f"unknown edit '{kind}'", near_names(kind, _RANGES))
        if not re.fullmatch(rf"-?{_NUMBER}", level):
            problem = f"the edit '{kind}' has no level '{level}'"
            raise CardError(problem, f"Write for example edit={kind}:1")
        return cls(known, float(level))

    def __str__(self) -> str:
        return f"{self.kind}:{f'{self.level:.6f}'.rstrip('0').rstrip('.')}"

    @property
    def unit(self) -> str:
        """What the level counts."""
        return _RANGES[self.kind].unit

    @property
    def changes_nothing(self) -> bool:
        """Whether the level is the one that leaves every frame and sample as it is."""
        return self.level == _RANGES[self.kind].nothing


@dataclass(frozen=True, order=True)
class Clip:
    """A talking-head video, written as ``path#key=value&key=value`` like W3C media fragments.

    >>> str(Clip.parse("strip.mp4#xywh=256,0,256,256").crop)
    'Crop(x=256, y=0, width=256, height=256)'
    """

    path: Path  # a video file, or a folder of numbered frames
    crop: Crop | None = None  # `xywh=x,y,w,h`, the part of the picture to use; all of it when None
    frame_rate: float | None = None  # `fps=30`, for a folder of frames only
    audio: Path | None = None  # `audio=sound.wav`, in the place of a video file's own sound
    span: Span | None = None  # `t=start,end`, the part of the time to use; all of it when None
    edit: Edit | None = None  # `edit=blurred:2`, a degradation made while the clip is read
    # `frames=0,90`, for a folder of frames only: from which picture up to which
    pictures: tuple[int, int] | None = None
    # `skip=2`: so many frames of the sound lie before the first picture, which the pictures lack
    skip: int = 0

    @classmethod
    def parse(cls, text: str) -> Clip:
        """Read a clip's address; raise CardError for an unknown key or a bad value."""
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
        crop, span, pictures = self.crop, self.span, self.pictures
        options = {
            "xywh": crop and f"{crop.x},{crop.y},{crop.width},{crop.height}",
            "t": span and f"{span.start!r},{span.end!r}",
            "fps": self.frame_rate,
            "frames": pictures and f"{pictures[0]},{pictures[1]}",
            "audio": self.audio and self.audio.as_posix(),
            "skip": self.skip or None,
            "edit": self.edit,
        }
        fragment = "&".join(f"{k}={v}" for k, v in options.items() if v is not None)
        return self.path.as_posix() + (f"#{fragment}" if fragment else "")

    def within(self, folder: Path) -> Clip:
        """Place relative paths inside *folder*; raise CardError when one would leave it."""
        audio = None if self.audio is None else inside(folder, self.audio.as_posix())
        return replace(self, path=inside(folder, self.path.as_posix()), audio=audio)


def _with_option(clip: Clip, text: str, key: str, value: str) -> Clip:
    if key == "xywh":
        match = re.fullmatch(r"(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9})", value)
        if not match or int(match[3]) == 0 or int(match[4]) == 0:
            remedy = "Write xywh=x,y,width,height in whole pixels, for example xywh=256,0,256,256"
            raise CardError(f"clip '{text}': bad rectangle '{value}'", remedy)
        return replace(clip, crop=Crop(*(int(g) for g in match.groups())))
    if key == "t":
        match = re.fullmatch(rf"({_NUMBER})?,({_NUMBER})", value)
        if not match or float(match[1] or 0) >= float(match[2]):
            problem = f"clip '{text}': bad time span '{value}'"
            raise CardError(problem, "Write t=start,end in seconds, for example t=0,3.6")
        return replace(clip, span=Span(float(match[1] or 0), float(match[2])))
    if key == "fps":
        if not re.fullmatch(_NUMBER, value) or float(value) == 0:
            raise CardError(f"clip '{text}': bad frame rate '{value}'", "Write for example fps=30")
        return replace(clip, frame_rate=float(value))
    if key == "frames":
        match = re.fullmatch(r"(\d{1,9}),(\d{1,9})", value)
        if not match or int(match[1]) >= int(match[2]):
            remedy = "Write frames=FROM,UPTO in whole numbers, for example frames=0,90"
            raise CardError(f"clip '{text}': bad range of frames '{value}'", remedy)
        return replace(clip, pictures=(int(match[1]), int(match[2])))
    if key == "skip":
        if not re.fullmatch(r"\d{1,6}", value):
            problem = f"clip '{text}': bad number of frames to skip '{value}'"
            raise CardError(problem, "Write for example skip=2: its sound begins two frames early")
        return replace(clip, skip=int(value))
    if key == "audio" and value:
        return replace(clip, audio=Path(value))
    if key == "edit":
        try:
            return replace(clip, edit=Edit.parse(value))
        except CardError as error:
            raise CardError(f"clip '{text}': {error.problem}", error.remedy) from None
    raise CardError(f"clip '{text}': unknown option '{key}'", f"Allowed: {', '.join(_OPTIONS)}")
