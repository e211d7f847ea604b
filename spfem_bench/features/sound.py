"""A clip's sound as the network for lip sync takes it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import InnerInput, NetworkCard, SyncInput
from spfem_bench.errors import ClipError
from spfem_bench.media import audio, video
from spfem_bench.media.audio import Samples
from spfem_bench.media.own_sound import own_sound

RATES_APART = 0.002
"""Share by which a clip's frame rate may differ from the one asked for: 29.97 is taken for 30."""


def check_rate(clip: Clip, rate: float, needed: float) -> None:
    """Raise ClipError for a clip whose pictures a second, *rate*, are not those *needed*."""
    if abs(rate / needed - 1) > RATES_APART:
        raise ClipError(
            f"{clip}: {rate:.6g} pictures a second, but lip sync takes {needed:g} in this profile",
            f"Write it again: ffmpeg -i CLIP -r {needed:g} NEW.mp4; or use another --profile",
        )


def whole_numbers(floats: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """Return sound from -1 to 1 as whole numbers of 16 bits, cut off at the ends."""
    return (floats * 32768).round().clip(-32768, 32767).astype(np.int16)


def sync_sound(clip: Clip, source: Clip, card: NetworkCard) -> Samples:
    """Return the sound of *source*, a clip or its AVI; silence is judged in the clip itself.

    Raises ClipError where it has none, is silent or damaged, or has another frame rate.
    """
    contract = card.input
    if isinstance(contract, InnerInput):
        check_rate(clip, video.own_rate(clip), contract.frame_rate)
        floats = own_sound(clip)
        audio.check_audible(clip, floats, contract.audible)
        return whole_numbers(floats) if contract.sound == "int16" else floats
    sound = audio.samples(clip)
    if isinstance(contract, SyncInput):
        audio.check_audible(clip, sound, contract.audible)
    return sound if source == clip else audio.samples(source)
