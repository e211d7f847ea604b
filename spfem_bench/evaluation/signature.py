"""The signature of a number, derived from everything that can move it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from spfem_bench import provenance
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.datasets import dataset_files
from spfem_bench.definitions.metrics import MetricCard
from spfem_bench.definitions.networks import NetworkCard, ProfileCard
from spfem_bench.definitions.protocols import Protocol
from spfem_bench.features.extract import Extractor
from spfem_bench.plugins import origin
from spfem_bench.statistics import intervals
from spfem_bench.statistics.base import kind_of


def metric_settings(
    metric: MetricCard,
    protocol: Protocol | None,
    extractor: Extractor,
    clips: Iterable[Clip] = (),
) -> dict[str, Any]:
    """Return everything that can move a number, as plain JSON values.

    *clips* are those that the metric compares, whose format may need a library. Without a
    *protocol*, they are tensors of a training loop.
    """
    kind, network = kind_of(metric), network_of(metric, extractor.profile)
    computed_with = extractor.software(network, clips) | provenance.versions(kind.libraries())
    return {
        "metric": metric.settings(),
        "protocol": _list_settings(protocol),
        "network": network.settings(),
        **extractor.precision_settings(network),
        **kind.weights_settings(),
        **origin(type(kind)),
        "faces": extractor.face_settings(),
        "media": extractor.media_settings(),
        "seed": intervals.SEED,
        "software": computed_with | (_drawn_by(protocol) if protocol else {}),
    }


def _list_settings(protocol: Protocol | None) -> dict[str, Any]:
    if protocol is None:
        return {"name": "frames", "version": "tensors"}
    return {**protocol.card.settings(), "list": protocol.list_sha256}


def network_of(metric: MetricCard, profile: ProfileCard) -> NetworkCard:
    """Return the network whose features a metric uses.

    Raises UnknownNameError when the metric names a learnt metric that does not exist, and CardError
    when a card or record is wrong.
    """
    return kind_of(metric).network(metric, profile)


def _drawn_by(protocol: Protocol) -> dict[str, str]:
    """Return the version of OpenCV where an item's clips are drawn here and not shipped."""
    dataset = protocol.dataset
    shipped = dataset_files(dataset)
    clips = (clip for item in protocol.items for clip in item.clips.values())
    if dataset.world and any(clip.path.as_posix() not in shipped for clip in clips):
        return {"cv2": provenance.imported_version("cv2")}
    return {}


def signature(frozen: Mapping[str, Any], profile: str, scored: Sequence[str], n_items: int) -> str:
    """Return the short text that is printed under a number.

    Two numbers may be compared when their signatures are equal: same settings, same networks,
    same items. All of *frozen* (:func:`metric_settings`) goes into the last part, a hash. *scored*
    are the ids of the items that the number stands on.
    """
    network, media = frozen["network"], frozen["media"]
    parts = [
        f"{frozen['metric']['name']}:{frozen['metric']['version']}",
        f"{frozen['protocol']['name']}:{frozen['protocol']['version']}",
        profile,
        f"{network['name']}@{network['files'][0]['sha256'][:8]}",
        f"faces:{frozen['faces']['faces']}",
        "own-fps" if media["frame_rate"] == "own" else f"{media['frame_rate']}fps",
        # All of its version is in the hash; tensors are not decoded.
        *([f"ffmpeg{media['ffmpeg'].split('-')[0]}"] if "ffmpeg" in media else []),
        f"v{frozen['software']['spfem-bench']}",
    ]
    if precision := frozen.get("precision"):
        parts.append(precision)
    if len(scored) < n_items:
        parts.append(f"partial:{len(scored)}of{n_items}@{_hash(sorted(scored))[:6]}")
    return "|".join([*parts, f"#{_hash(frozen)[:10]}"])


def flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every plain setting with the path to it, joined by dots."""
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            yield from flat(inner, f"{path}{key}.")
        elif isinstance(inner, list) and any(isinstance(i, Mapping) for i in inner):
            yield from flat({str(i): v for i, v in enumerate(inner)}, f"{path}{key}.")
        else:
            yield path + key, inner


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
