"""The trainings' recipes: every number that decides the weights, apart from the world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

NetworkName = Literal["identity", "expression", "sync", "landmarks"]
NAMES: tuple[NetworkName, ...] = ("identity", "expression", "sync", "landmarks")


@dataclass(frozen=True)
class Changes:
    """Random changes of pictures, as mild as a video codec's; 0 (or minus the value) to the value.

    Quantisation is the coarse half of JPEG and H.264; it halves chroma in size.
    """

    shift: float = 0.03  # of the picture, as a part of its side, either way
    zoom: float = 0.04  # larger or smaller, as a part, either way
    turn: float = 2.0  # degrees, either way
    flip: float = 0.0  # share of pictures mirrored
    brightness: float = 10.0  # added, in grey levels of 255, either way
    contrast: float = 0.1  # as a part, either way
    colour: float = 0.04  # gain of each channel, as a part, either way
    blur: float = 0.4  # how far pictures go towards their 3 x 3 binomial blur, 0 to 1
    blurred: float = 0.3  # share of pictures blurred at all
    quantisation: float = 12.0  # step of the 8 x 8 cosine transform's coefficients, grey levels
    quantised: float = 0.7  # share of pictures quantised at all
    noise: float = 2.0  # standard deviation, grey levels


@dataclass(frozen=True)
class Recipe:
    """The settings that all trainings share."""

    takes: int  # per training speaker
    frames: int  # drawn at random from each take; 0 for all of them, in order
    steps: int  # of the optimiser (AdamW; Loshchilov and Hutter, ICLR 2019)
    batch: int  # samples per step
    rate: float  # the largest learning rate (training.kit.warm_cosine)
    decay: float = 0.01  # AdamW's weight decay
    seed: int = 1  # of takes, frames, first weights, order and changes
    changes: Changes = field(default_factory=Changes)


@dataclass(frozen=True)
class IdentityRecipe(Recipe):
    """ArcFace: additive angular margin (Deng et al., CVPR 2019)."""

    scale: float = 32.0  # of the cosines
    margin: float = 0.4  # radians; it grows from 0 over the first third of the steps


@dataclass(frozen=True)
class SyncRecipe(Recipe):
    """Contrast of mouth and sound (InfoNCE, van den Oord et al., 2018); samples are runs of frames.

    Negatives are other times of the run and all other runs (Chung, Chung and Kang, ICASSP 2019).
    """

    run: int = 36  # frames of a sample; its windows are four fewer
    temperature: float = 0.07  # that cosines are divided by
    loudness: float = 6.0  # the sound's gain, decibels either way
    quietest: float = 20.0  # smallest ratio of sound to added noise, decibels
    noises: int = 2  # versions of each take's sound with noise of their own, beside the clean one


# More than a codec does: skin, light and framing must not count as expression.
_STRONG = Changes(
    flip=0.5, colour=0.12, contrast=0.2, brightness=20.0, zoom=0.08, shift=0.05, turn=4.0
)
RECIPES: dict[NetworkName, Recipe] = {
    "identity": IdentityRecipe(takes=24, frames=4, steps=2000, batch=128, rate=3e-3),
    "expression": Recipe(
        takes=40, frames=3, steps=2500, batch=128, rate=3e-3, decay=0.05, changes=_STRONG
    ),
    "sync": SyncRecipe(takes=2, frames=0, steps=2000, batch=12, rate=2e-3),
    "landmarks": Recipe(takes=16, frames=5, steps=3000, batch=96, rate=2e-3),
}
