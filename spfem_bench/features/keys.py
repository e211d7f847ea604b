"""Keys of features: everything that decides what a network's features of a clip are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeVar, get_args

from spfem_bench import provenance
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.computing import Precision
from spfem_bench.definitions.networks import NetworkCard, ProfileCard, Role, SyncChain, SyncInput
from spfem_bench.errors import CardError, ClipError
from spfem_bench.features.features import Features
from spfem_bench.features.software import feature_libraries
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import audio, ffmpeg, video
from spfem_bench.media.pictures import picture_libraries
from spfem_bench.networks.load import precision_of
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import SILENT, Progress

Faces = Literal["detect", "aligned"]


_Wanted = TypeVar("_Wanted", bound="set[Any] | frozenset[Any] | dict[Any, Any]")


def one_of_each(
    requests: Mapping[Clip, _Wanted],
) -> tuple[dict[Clip, _Wanted], dict[Clip, _Wanted]]:
    """Split requests into one clip of each content, and others of the same bytes (links, copies).

    The first is asked for all that any of them is: then the others find their features stored.
    """
    first: dict[str | Clip, Clip] = {}
    each: dict[Clip, _Wanted] = {}
    others: dict[Clip, _Wanted] = {}
    for clip, wanted in requests.items():
        content: str | Clip = clip
        with suppress(ClipError):  # raised where the clip is read
            content = video.content_id(clip)
        one = first.setdefault(content, clip)
        each[one] = each[one] | wanted if one in each else wanted  # type: ignore[operator,assignment]
        if one is not clip:
            others[clip] = wanted
    return each, others


@dataclass(frozen=True)
class FeatureKeys:
    """The settings of features and the keys of the store; raises CardError for a wrong precision.

    Attributes:
        faces: ``detect``, or ``aligned`` for clips that are face crops already.
        batch_size: frames in a batch; when None, 32 on a processor, and on a GPU what fits well.
        progress: receives the phases ``clips``, ``decode`` and ``networks``.
    """

    profile: ProfileCard
    weights: WeightsStore
    store: FeatureStore
    faces: Faces = "detect"
    batch_size: int | None = None
    device: str = "cpu"
    precision: Precision = "float32"
    hwaccel: str | None = None
    progress: Progress = field(default=SILENT, compare=False)
    _made: dict[Role | None, str] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        if self.precision not in get_args(Precision):
            allowed = ", ".join(get_args(Precision))
            raise CardError(f"no precision '{self.precision}'", f"Allowed: {allowed}")
        if self.precision == "float16" and self.device == "cpu":
            raise CardError("float16 is not for the processor", "Allowed there: float32, bfloat16")

    def face_settings(self) -> dict[str, Any]:
        """Return all that decides where the subject is."""
        if self.faces == "aligned":
            return {"faces": "aligned"}
        detector = self.profile.network("detector").settings()
        return {"faces": "detect", "detector": detector, "follow": self.profile.follow().settings()}

    def precision_settings(self, network: NetworkCard) -> dict[str, Any]:
        """Return a network's precision; nothing for float32."""
        precision = precision_of(network, self.precision)
        return {"precision": precision} if precision != "float32" else {}

    def media_settings(self) -> dict[str, Any]:
        """Return all that decides what frames and sound come out of a file."""
        own = self.profile.frame_rate == "own"
        frame_rate: int | str = "own" if own else video.FRAME_RATE
        rates = {"frame_rate": frame_rate, "sample_rate": audio.SAMPLE_RATE}
        decoder = {"hwaccel": self.hwaccel} if self.hwaccel else {}
        return {**rates, "scaler": ffmpeg.SCALER, "ffmpeg": ffmpeg.version(), **decoder}

    def software(self, network: NetworkCard | None, clips: Iterable[Clip] = ()) -> dict[str, str]:
        """Return the versions of what a network's features are computed with, beside ffmpeg."""
        detector = self.profile.network("detector") if self.faces == "detect" else None
        modules = feature_libraries(network, detector)
        return provenance.versions(modules.union(*map(picture_libraries, clips)))

    def key(self, clip: Clip, role: Role | None) -> dict[str, Any]:
        """Return the key of a clip's features, or of its face track; it may raise ClipError."""
        silent_edit = clip.edit is not None and clip.edit.kind == "shifted-audio" and role != "sync"
        if role is None or silent_edit:  # made without the edit
            clip = replace(clip, edit=None)
        if role != "sync":  # pictures are the same wherever the sound begins
            clip = replace(clip, skip=0)
        if role != "sync" and clip.audio is not None and not clip.path.is_dir():
            # A video's pictures are the same without its sound file, which may be absent.
            clip = replace(clip, audio=None)
        key: dict[str, Any] = {"clip": video.content_id(clip), "made_by": self._made_by(role)}
        if modules := picture_libraries(clip):
            key["read_by"] = provenance.versions(modules)
        return key

    def _made_by(self, role: Role | None) -> str:
        """Return a hash of everything but the clip that decides its features."""
        if role not in self._made:
            network = self.profile.network(role) if role else None
            everything: dict[str, Any] = self.precision_settings(network) if network else {}
            everything |= {"media": self.media_settings(), "faces": self.face_settings()}
            everything["network"] = network and network.settings()
            everything["software"] = self.software(network)
            everything["device"] = self.device.partition(":")[0]
            text = json.dumps(everything, sort_keys=True)
            self._made[role] = hashlib.sha256(text.encode()).hexdigest()
        return self._made[role]

    @cached_property
    def chain(self) -> SyncChain | None:
        """The round trips between a clip and the sync network; None when there are none."""
        contract = self.profile.network("sync").input
        return contract.chain if isinstance(contract, SyncInput) else None

    def load(self, clip: Clip, role: Role) -> Features | None:
        """Return stored features, or None."""
        arrays = self.store.get(self.key(clip, role))
        return None if arrays is None else Features.from_arrays(arrays)
