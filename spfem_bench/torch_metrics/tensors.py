"""Clips that are tensors: checked, as frames of 8 bits, through the networks of a profile."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import Audible, InnerInput, NetworkCard, SyncInput
from spfem_bench.errors import ClipError, SpfemBenchError
from spfem_bench.features.extract import Extractor
from spfem_bench.features.requests import pair_extractor
from spfem_bench.features.sound import check_rate, whole_numbers
from spfem_bench.features.store import Arrays, FeatureStore
from spfem_bench.media import audio
from spfem_bench.media.audio import Samples
from spfem_bench.media.video import FRAME_RATE, Frame

if TYPE_CHECKING:
    from spfem_bench.definitions.networks import Role
    from spfem_bench.features.pair_extract import PairExtractor

KEPT = 1 << 28
"""Bytes of features that are kept from one call to the next; 126 clips take a third of it."""

LENGTHS_APART = 0.25
"""Share by which a clip's sound may be longer or shorter than its frames."""

Tensors = Tensor | Sequence[Tensor]
"""A batch in one tensor, or one tensor for each clip."""


@dataclass(frozen=True)
class TensorClip:
    """Frames, uint8 (T, H, W, 3), RGB; sound at 16 kHz, (N,), if any; their hashes."""

    frames: npt.NDArray[np.uint8]
    sound: Samples | None
    rate: float

    @cached_property
    def digest(self) -> str:
        """A hash of the frames."""
        return hashlib.sha256(f"{self.frames.shape}".encode() + self.frames.tobytes()).hexdigest()

    @cached_property
    def sound_digest(self) -> str:
        """A hash of the sound."""
        return "" if self.sound is None else hashlib.sha256(self.sound.tobytes()).hexdigest()


def clips_of(tensors: Tensors, name: str, dims: int, shape: str) -> list[Tensor]:
    """Return one tensor of so many dimensions for each clip, without gradients.

    Raises:
        SpfemBenchError: another number of dimensions, or no tensors; *shape* is what is allowed.
    """
    several = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not all(isinstance(one, Tensor) for one in several):
        kinds = ", ".join(sorted({type(one).__name__ for one in several}))
        raise SpfemBenchError(f"{name}: {kinds}, not tensors", f"Give {shape}, or a list of them")
    if len(several) == 1 and several[0].ndim == dims + 1:
        several = list(several[0])
    for one in several:
        if one.ndim != dims or 0 in one.shape:
            remedy = f"Give {shape}, a batch of them, or a list"
            raise SpfemBenchError(f"{name} has the shape {tuple(one.shape)}", remedy)
    return [one.detach() for one in several]


def pictures(
    clip: Tensor, name: str, value_range: tuple[float, float] | None, fps: float | None
) -> npt.NDArray[np.uint8]:
    """Return frames, uint8 (N, H, W, 3), of a clip (T, 3, H, W).

    Floats are rounded to 8 bits, as in a file, and cut off at the ends of their range. Where *fps*
    is given, 25 a second are chosen as by ffmpeg's ``fps`` filter: the last whose rounded time has
    come.

    Raises:
        SpfemBenchError: another shape or type, or floats without a range.
        ClipError: values that are not finite, far beyond the range, or from -1 to 1 in a far wider
            one.
    """
    if clip.shape[1] != 3:
        problem = f"{name} has the shape {tuple(clip.shape)}"
        raise SpfemBenchError(problem, "Give RGB frames: (T, 3, H, W), a batch of them, or a list")
    if clip.dtype != torch.uint8:
        clip = _whole(clip, name, value_range)
    if fps is not None and fps != FRAME_RATE:
        times = np.floor(np.arange(len(clip)) * FRAME_RATE / fps + 0.5)
        shown = np.arange(int(np.floor(len(clip) * FRAME_RATE / fps + 0.5)))
        clip = clip[torch.from_numpy(np.searchsorted(times, shown, "right") - 1).to(clip.device)]
    return clip.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def _whole(clip: Tensor, name: str, value_range: tuple[float, float] | None) -> Tensor:
    if not clip.is_floating_point():
        remedy = "Give uint8, or floats and value_range"
        raise SpfemBenchError(f"{name} has the type {clip.dtype}", remedy)
    if value_range is None:
        remedy = "Say what black and white are: value_range=(0, 1), or (-1, 1)"
        raise SpfemBenchError(f"{name} has floats, and no value_range is given", remedy)
    low, high = value_range
    wide = clip.float()
    least, most = float(wide.min()), float(wide.max())
    beyond = (high - low) / 2
    narrow = beyond > 2 and -1 <= least < most <= 1  # of 255 grey levels one or two
    if narrow or not (least >= low - beyond and most <= high + beyond):  # also with NaN
        raise ClipError(
            f"{name} has values from {least:.3g} to {most:.3g}, value_range is ({low:g}, {high:g})",
            "Name the range of the frames, or look at what the network returns",
        )
    return ((wide - low) * (255 / (high - low))).round().clamp(0, 255).to(torch.uint8)


def waveform(clip: Tensor, name: str, seconds: float) -> Samples:
    """Return sound at 16 kHz, (N,): int16, or float32 from -1 to 1.

    Raises:
        SpfemBenchError: another type.
        ClipError: values that are not finite or far beyond -1 to 1, or it lasts much longer or
            shorter than the frames: it may be at another rate.
    """
    if clip.dtype != torch.int16 and not clip.is_floating_point():
        remedy = "Give int16, or floats from -1 to 1"
        raise SpfemBenchError(f"{name} has the type {clip.dtype}", remedy)
    heard = len(clip) / audio.SAMPLE_RATE
    if abs(heard / seconds - 1) > LENGTHS_APART:
        raise ClipError(
            f"{name} lasts {heard:.2f} s at 16,000 samples a second, its frames {seconds:.2f} s",
            "Give sound at 16 kHz that begins with the first frame, and the frames' fps",
        )
    if clip.dtype == torch.int16:
        return clip.cpu().numpy()
    most = float(clip.abs().max())
    if not most <= 2:
        raise ClipError(f"{name} has values up to {most:.3g}", "Give floats from -1 to 1")
    return clip.float().cpu().numpy()


@dataclass(frozen=True)
class MemoryStore(FeatureStore):
    """Features in memory, the last used ones last."""

    folder: Path = Path()
    kept: dict[str, Arrays] = field(default_factory=dict, compare=False)

    def has(self, made_of: Mapping[str, Any]) -> bool:
        """Return whether there are arrays under a key."""
        return self.path(made_of).stem in self.kept

    def get(self, made_of: Mapping[str, Any]) -> Arrays | None:
        """Return the arrays under a key, or None."""
        name = self.path(made_of).stem
        if name not in self.kept:
            return None
        self.kept[name] = self.kept.pop(name)
        return dict(self.kept[name])

    def put(self, made_of: Mapping[str, Any], arrays: Arrays) -> None:
        """Keep arrays."""
        self.kept[self.path(made_of).stem] = dict(arrays)

    def check_writable(self) -> None:
        """Memory can be written."""

    def trim(self) -> None:
        """Forget what was used longest ago, beyond :data:`KEPT` bytes."""
        total = sum(array.nbytes for arrays in self.kept.values() for array in arrays.values())
        while total > KEPT:
            dropped = self.kept.pop(next(iter(self.kept)))
            total -= sum(array.nbytes for array in dropped.values())


class TensorExtractor(Extractor):
    """Computes features of tensors as of decoded clips."""

    @property
    def memory(self) -> MemoryStore:
        """The store."""
        return cast("MemoryStore", self.store)

    @cached_property
    def clips(self) -> dict[Clip, TensorClip]:
        """The clips of this call."""
        return {}

    @cached_property
    def pairs(self) -> PairExtractor:
        """What compares a clip with its source."""
        return pair_extractor(self)

    def key(self, clip: Clip, role: Role | None) -> dict[str, Any]:
        """Return the key of a clip's features, or of its face track."""
        one = self.clips[clip]
        sound = {"sound": one.sound_digest} if role == "sync" else {}
        return {"clip": one.digest, **sound, "made_by": self._made_by(role)}

    def media_settings(self) -> dict[str, Any]:
        """Return the rates: nothing is decoded here."""
        decoded = super().media_settings()
        return {name: decoded[name] for name in ("frame_rate", "sample_rate")}

    def frames(self, clip: Clip) -> Iterator[Frame]:
        """Yield a clip's frames."""
        yield from self.clips[clip].frames

    def sound(self, clip: Clip, source: Clip) -> Samples:
        """Return a clip's sound; raise ClipError for silence or another frame rate."""
        sound, contract = self.clips[clip].sound, self.profile.network("sync").input
        if sound is None:
            raise ClipError(f"{clip}: no sound is given")
        rule = contract.audible if isinstance(contract, (InnerInput, SyncInput)) else Audible()
        floats = isinstance(contract, InnerInput) and contract.sound == "float"
        if isinstance(contract, InnerInput):
            check_rate(clip, self.clips[clip].rate, contract.frame_rate)
        if floats and sound.dtype == np.int16:
            sound = (sound / 32768).astype(np.float32)
        elif not floats and sound.dtype != np.int16:
            sound = whole_numbers(np.asarray(sound, np.float32))
        if problem := audio.sound_problem(sound, rule, np.zeros(0), 0):
            raise ClipError(f"{clip}: {problem}", "Give the sound that the mouth goes with")
        return sound


def check_files(card: NetworkCard) -> None:
    """Raise SpfemBenchError for a network that takes its clips from files of its own."""
    if isinstance(card.input, SyncInput) and card.input.chain is not None:
        raise SpfemBenchError(
            f"'{card.name}' takes clips that ffmpeg has written and read again, not tensors",
            "Use a profile with another network for sync, such as official",
        )
