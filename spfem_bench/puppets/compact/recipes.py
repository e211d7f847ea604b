"""The trainings' recipes: every number that decides the weights, apart from the world."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

NetworkName = Literal["identity", "expression", "sync"]
NAMES: tuple[NetworkName, ...] = ("identity", "expression", "sync")


@dataclass(frozen=True)
class Changes:
    """Random changes of pictures, as mild as a video codec's and a slightly other crop's.

    Values are drawn evenly from 0 (or minus the value) to the value.

    Attributes:
        shift: of the picture, as a part of its side, either way.
        zoom: larger or smaller, as a part, either way.
        turn: degrees, either way.
        flip: share of pictures mirrored.
        brightness: added, in grey levels of 255, either way.
        contrast: as a part, either way.
        colour: gain of each channel, as a part, either way.
        blur: how far pictures go towards their 3 x 3 binomial blur, 0 to 1.
        blurred: share of pictures blurred at all.
        quantisation: step of the 8 x 8 cosine transform's coefficients, grey levels, the
            coarse half of what JPEG and H.264 do; chroma is halved in size with it.
        quantised: share of pictures quantised at all.
        noise: standard deviation, grey levels.
    """

    shift: float = 0.03
    zoom: float = 0.04
    turn: float = 2.0
    flip: float = 0.0
    brightness: float = 10.0
    contrast: float = 0.1
    colour: float = 0.04
    blur: float = 0.4
    blurred: float = 0.3
    quantisation: float = 12.0
    quantised: float = 0.7
    noise: float = 2.0


@dataclass(frozen=True)
class Recipe:
    """The settings that all three trainings share.

    Attributes:
        takes: per training speaker.
        frames: drawn at random from each take; 0 for all of them, in order.
        steps: of the optimiser (AdamW; Loshchilov and Hutter, ICLR 2019).
        batch: samples per step.
        rate: the largest learning rate; it rises over the first twentieth of the steps and
            falls to a hundredth along a cosine.
        decay: AdamW's weight decay.
        seed: of takes, frames, first weights, order and changes.
    """

    takes: int
    frames: int
    steps: int
    batch: int
    rate: float
    decay: float = 0.01
    seed: int = 1
    changes: Changes = field(default_factory=Changes)


@dataclass(frozen=True)
class IdentityRecipe(Recipe):
    """ArcFace: additive angular margin (Deng et al., CVPR 2019).

    Attributes:
        scale: of the cosines.
        margin: radians; it grows from 0 over the first third of the steps.
    """

    scale: float = 32.0
    margin: float = 0.4


@dataclass(frozen=True)
class SyncRecipe(Recipe):
    """Contrast of mouth and sound; a sample is a run of frames.

    Negatives are all other times of the same run and all windows of the other runs
    (Chung, Chung and Kang, ICASSP 2019; the loss is InfoNCE, van den Oord et al., 2018).

    Attributes:
        run: frames of a sample; its windows are four fewer.
        temperature: that cosines are divided by.
        loudness: the sound's gain, decibels either way.
        quietest: smallest ratio of sound to added noise, decibels.
        noises: versions of each take's sound with noise of their own, beside the clean one.
    """

    run: int = 36
    temperature: float = 0.07
    loudness: float = 6.0
    quietest: float = 20.0
    noises: int = 2


RECIPES: dict[NetworkName, Recipe] = {
    "identity": IdentityRecipe(takes=24, frames=4, steps=2000, batch=128, rate=3e-3),
    "expression": Recipe(
        takes=40,
        frames=3,
        steps=2500,
        batch=128,
        rate=3e-3,
        decay=0.05,
        # More than a codec does: skin, light and framing must not count as expression.
        changes=Changes(
            flip=0.5, colour=0.12, contrast=0.2, brightness=20.0, zoom=0.08, shift=0.05, turn=4.0
        ),
    ),
    "sync": SyncRecipe(takes=2, frames=0, steps=2000, batch=12, rate=2e-3),
}
