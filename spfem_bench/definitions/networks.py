"""Cards of networks and their inputs, and of profiles, which choose networks."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import pydantic

from spfem_bench.definitions import pins
from spfem_bench.definitions.architectures import ARCHITECTURES
from spfem_bench.definitions.cards import Card, Kind, Strict, load, names
from spfem_bench.definitions.pins import PinnedFile
from spfem_bench.errors import CardError

Role = Literal["identity", "expression", "sync", "landmarks"]

Positive = Annotated[float, pydantic.Field(gt=0)]
Pixels = Annotated[int, pydantic.Field(gt=0)]


class FrameInput(Strict):
    """The whole frame, resized so that its longer side has ``long_side`` pixels.

    With ``face``, a whole clip is searched at the smallest size, a multiple of 32, at which the
    largest face of its first frame has that longer side (:meth:`spfem_bench.faces.detect.Detector`
    ``.clip_side``); ``long_side`` is the upper limit, and the size where that frame shows no face.
    """

    later: ClassVar[frozenset[str]] = frozenset({"face"})
    crop: Literal["frame"]
    long_side: Pixels
    # pixels that a clip's largest face needs: the clip is searched no larger than that
    face: Pixels | None = None
    mean: float  # subtracted from pixels of 0 to 255; then they are divided by `std`
    std: Positive


class ArcFaceInput(Strict):
    """The 5-point aligned face, 112 high and 112 wide or less (cut evenly at the sides)."""

    crop: Literal["arcface"]
    width: int = pydantic.Field(gt=0, le=112)
    mean: float
    std: Positive


class ExpressionInput(Strict):
    """A square around the face box, its side the box's longer one plus a margin on each side."""

    crop: Literal["expression"]
    size: Pixels
    margin: float = pydantic.Field(ge=0)
    colour: Literal["rgb", "grey"]
    mean: float
    std: Positive


class FaceBoxInput(Strict):
    """The face box, cut off at the picture's edge and stretched to a square (HSEmotion).

    ``mean`` and ``std`` are of red, green and blue (0 to 255).
    """

    crop: Literal["box"]
    size: Pixels
    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]


class WholeInput(Strict):
    """The whole picture, which is an aligned face, as torchvision's transforms cut a PIL picture.

    Grey comes first (Pillow's ``convert("L")``); then the shorter side is resized to ``resize``
    pixels (``Resize``, Pillow's bilinear filter), and the middle is cut out (``CenterCrop``).
    ``mean`` and ``std`` (0 to 255) are one number, or those of red, green and blue.
    """

    crop: Literal["whole"]
    resize: Pixels
    size: Pixels
    colour: Literal["rgb", "grey"]
    mean: float | tuple[float, float, float]
    std: Positive | tuple[Positive, Positive, Positive]

    @pydantic.model_validator(mode="after")
    def _crop_lies_inside(self) -> WholeInput:
        if self.size > self.resize:
            raise ValueError("'size' is larger than 'resize': the crop would reach outside")
        if self.colour == "grey" and (isinstance(self.mean, tuple) or isinstance(self.std, tuple)):
            raise ValueError("'mean' and 'std' of a grey picture are one number each")
        return self


def _odd(number: int) -> int:
    if number % 2 == 0:
        raise ValueError("must be odd")
    return number


class SyncChain(Strict):
    """Steps between a clip and SyncNet in joonson's syncnet_python; the defaults are no steps."""

    # ffmpeg writes the clip as an AVI with `-r 25` and an MP3 track: lossless (FFV1), or as MPEG-4
    # of quality 2. `none`: 25 frames a second are chosen by time stamps.
    avi: Literal["none", "lossless", "mpeg4"] = "none"
    # faces are detected in, and crops cut from, decoded frames or JPEGs of quality 2
    frames: Literal["decoded", "jpeg"] = "decoded"
    # SyncNet's input is the crops as cut, those in the MPEG-4 video (tag XVID) that OpenCV writes,
    # or JPEGs made from that video at ffmpeg's default quality
    crops: Literal["as-cut", "xvid", "xvid-jpeg"] = "as-cut"
    sound: Literal["clip", "avi"] = "clip"  # from the clip, or from the AVI

    @pydantic.model_validator(mode="after")
    def _sound_has_its_avi(self) -> SyncChain:
        if self.sound == "avi" and self.avi == "none":
            raise ValueError("'sound' comes from the AVI, but 'avi' is 'none'")
        return self

    def frame_settings(self) -> dict[str, str]:
        """Return what decides the frames that are searched for faces; empty for the clip's own."""
        plain = self.avi == "none" and self.frames == "decoded"
        return {} if plain else {"avi": self.avi, "frames": self.frames}


class Audible(Strict):
    """Limits for silent sound (see ``docs/measuring.md``, "Silence")."""

    # a sound is silent when no 0.2 s of it reach this level, in dB of full scale
    silence: float = pydantic.Field(default=-90.0, lt=0)
    # channels cancel out when their mix is more than this many dB below their mean power. Two
    # independent channels lose 3 dB.
    cancelled: float = pydantic.Field(default=10.0, gt=3)


class SyncInput(Strict):
    """SyncNet's crop, from median-smoothed boxes (syncnet_python, ``run_pipeline.py``)."""

    later: ClassVar[frozenset[str]] = frozenset({"chain"})
    crop: Literal["syncnet"]
    size: Pixels
    scale: float = pydantic.Field(ge=0)  # margin around the box, as a part of its half side
    # frames of the median filter over box centre and size (odd)
    smoothing: Annotated[int, pydantic.AfterValidator(_odd)] = pydantic.Field(gt=0)
    padding: int = pydantic.Field(ge=0, le=255)  # grey value beyond the picture's edge
    chain: SyncChain | None = None  # the round trips of the field's scripts; none when absent
    audible: Audible = Audible()  # clips whose sound is silent are refused


class InnerInput(Strict):
    """SyncNet's input as the papers' script makes it: an aligned face less its margin, own rate.

    The clip's own pictures, all of them; the sound by ``librosa.load``'s steps (see
    :func:`spfem_bench.media.own_sound.own_sound`), four MFCC steps to a picture.
    """

    crop: Literal["inner"]
    size: Pixels
    margin: int = pydantic.Field(ge=0)  # pixels cut off at each side
    frame_rate: Positive  # of the clips; others are refused
    mfcc_rate: Positive  # MFCC steps a second: python_speech_features' `winstep` is its inverse
    sound: Literal["float", "int16"]  # samples from -1 to 1, or rounded whole numbers
    audible: Audible = Audible()  # clips whose sound is silent are refused


class LandmarksInput(Strict):
    """A square around the face box, from smoothed boxes; the network's points are in its sides."""

    crop: Literal["landmarks"]
    size: Pixels
    scale: Positive  # the square's side, as a multiple of the box's longer side
    # frames of the moving average over box centre and size (odd); 1: none
    smoothing: Annotated[int, pydantic.AfterValidator(_odd)] = pydantic.Field(gt=0)
    padding: int = pydantic.Field(ge=0, le=255)  # grey value beyond the picture's edge
    mean: float
    std: Positive


NetworkInput = Annotated[
    FrameInput
    | ArcFaceInput
    | ExpressionInput
    | FaceBoxInput
    | WholeInput
    | SyncInput
    | InnerInput
    | LandmarksInput,
    pydantic.Field(discriminator="crop"),
]

FrameRate = Literal["25", "own"]
"""Frames a second: 25, chosen by their time stamps; or every picture of the clip is one frame."""


class DetectorSettings(Strict):
    """When a detection counts: its lowest score, and the IoU above which only the best is kept."""

    threshold: float = pydantic.Field(gt=0, lt=1)  # lowest score
    overlap: float = pydantic.Field(gt=0, lt=1)  # IoU above which only the best is kept


class NetworkCard(Card):
    """A pretrained network: architecture, input contract, where its weights come from."""

    score_neutral: ClassVar[frozenset[str]] = Card.score_neutral | {"source", "licence", "citation"}

    # what metrics use it for
    role: Literal["detector", "identity", "expression", "sync", "landmarks"]
    architecture: str  # a name registered in spfem_bench/networks or by a plugin
    outputs: dict[str, int] = pydantic.Field(default_factory=dict)  # names with their dimensions
    input: NetworkInput  # what is cut from a frame; `crop` names the kind
    detector: DetectorSettings | None = None  # for the role `detector` only
    files: tuple[PinnedFile, ...] = pydantic.Field(min_length=1)  # the weights
    source: str  # where the network comes from
    licence: str  # of the weights
    citation: str  # the paper

    @pydantic.model_validator(mode="after")
    def _architecture_is_registered(self) -> NetworkCard:
        ARCHITECTURES.check(self.architecture, self.path)
        return self

    def settings(self) -> dict[str, Any]:
        """Return all that can move a score, also the hash of a plugin's source."""
        return {**super().settings(), **ARCHITECTURES.origin(self.architecture)}


class FaceSettings(Strict):
    """How one subject is chosen in a clip and followed (see ``spfem_bench.faces.track``)."""

    settle: int = pydantic.Field(gt=0)  # frames, from the first face, that choose the subject
    min_overlap: float = pydantic.Field(gt=0, lt=1)  # IoU with the last box to continue it
    max_gap: int = pydantic.Field(ge=0)  # longest run of frames that is interpolated
    min_coverage: float = pydantic.Field(gt=0, le=1)  # detected in this share of frames, or more
    # a clip is refused when, in more than half of its frames, another face has at least this share
    # of the subject's box area
    rival: Positive


class ProfileCard(Card):
    """Which network each role uses, and how faces are followed.

    Without ``detector``, and then without ``faces``, only face crops can be measured; without
    ``landmarks``, no metric that needs them.
    """

    later: ClassVar[frozenset[str]] = frozenset({"landmarks"})
    detector: str | None = None  # a network's name, as the four below
    identity: str
    expression: str
    sync: str
    landmarks: str | None = None
    faces: FaceSettings | None = None  # goes with `detector`
    frame_rate: FrameRate = "25"  # frames a second: 25 by time stamps, or the clip's own
    # metrics that take the place of a protocol's, by its names
    variants: dict[str, str] = pydantic.Field(default_factory=dict)

    @pydantic.model_validator(mode="after")
    def _detector_and_faces_go_together(self) -> ProfileCard:
        if (self.detector is None) != (self.faces is None):
            raise ValueError("'detector' and the table 'faces' go together: give both, or neither")
        if self.detector and self.frame_rate == "own":  # tracks are followed at 25 a second
            raise ValueError("'frame_rate' may be 'own' for face crops only, without 'detector'")
        return self

    def variant(self, metric: str) -> str:
        """Return the name of the metric that stands for a protocol's in this profile."""
        return self.variants.get(metric, metric)

    @property
    def roles(self) -> tuple[Literal["detector"] | Role, ...]:
        """The roles that this profile fills."""
        optional: tuple[Literal["detector", "landmarks"], ...] = ("detector", "landmarks")
        detector, landmarks = (tuple(r for r in (o,) if getattr(self, r)) for o in optional)
        return (*detector, "identity", "expression", "sync", *landmarks)

    def follow(self) -> FaceSettings:
        """Return how a subject is chosen and followed; raise CardError without a detector."""
        if self.faces is None:
            raise self._no_detector()
        return self.faces

    def _no_detector(self) -> CardError:
        able = [n for n in names(Kind.PROFILE) if profile_card(n).detector]
        return CardError(
            f"profile '{self.name}' has no detector: it takes only protocols whose clips are face "
            'crops already (faces = "aligned")',
            f"Name one that has a detector with --profile: {', '.join(able)}",
        )

    def network(self, role: Literal["detector"] | Role) -> NetworkCard:
        """Return the card of the network that fills a role.

        Raises CardError when it is a network for another role, or the profile has no detector.
        """
        name = getattr(self, role)
        if name is None and role == "landmarks":
            able = [n for n in names(Kind.PROFILE) if profile_card(n).landmarks]
            raise CardError(
                f"profile '{self.name}' has no network for landmarks",
                f"Name one that has it with --profile: {', '.join(able)}",
            )
        if name is None:
            raise self._no_detector()
        card = network_card(name)
        if card.role != role:
            raise CardError(
                f"profile '{self.name}' uses '{card.name}' as {role}, but it is a network for "
                f"{card.role}"
            )
        if role == "sync" and isinstance(card.input, InnerInput) != (self.frame_rate == "own"):
            needed = "own" if isinstance(card.input, InnerInput) else "25"
            raise CardError(
                f"profile '{self.name}' has frame_rate = \"{self.frame_rate}\", but '{card.name}' "
                f'takes frame_rate = "{needed}"'
            )
        return card


def network_card(name: str) -> NetworkCard:
    """Read a network's card by name, with the pins of files whose hash nobody publishes."""
    card = load(NetworkCard, Kind.NETWORK, name)
    if all(file.is_pinned for file in card.files):
        return card
    files = tuple(pins.with_pin(name, file) for file in card.files)
    return card.model_copy(update={"files": files})


def profile_card(name: str) -> ProfileCard:
    """Read a profile's card by name."""
    return load(ProfileCard, Kind.PROFILE, name)
