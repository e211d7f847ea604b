"""What the detector's input size does to boxes, points and scores: a table in docs/performance.md.

    SPFEM_BENCH_DATA=... SPFEM_BENCH_WEIGHTS=... python -m benchmarks.detector_size

All published clips that are at hand, through SCRFD-500M and the other networks of ``light`` with a
SyncNet of random weights, so that only differences mean something. Boxes and points are compared
with those of the first size; a score's change is the largest over protocols and methods, beside the
smallest difference of two methods on one protocol. Times are of SCRFD-10G with random weights, one
thread, milliseconds of processor time a picture in batches of eight.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.official_files import det_10g
from benchmarks.papers_choices import score
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.clips import Clip, Span
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.networks import Role, network_card, profile_card
from spfem_bench.definitions.protocols import Protocol, protocol
from spfem_bench.errors import ClipError, SpfemBenchError
from spfem_bench.faces.detect import load_detector
from spfem_bench.faces.track import Face, FaceTrack, overlap
from spfem_bench.features.extract import Extractor
from spfem_bench.features.features import Features
from spfem_bench.features.store import FeatureStore
from spfem_bench.media.video import frames
from spfem_bench.networks.scrfd_onnx import scrfd_onnx
from spfem_bench.networks.weights import WeightsStore

PROTOCOLS = (
    "stccl-page-ned",
    "stccl-page-eat",
    "stccl-page-dice-talk",
    "asccl-repo-inter-id",
    "asccl-repo-cross-id",
)
METRICS = {"fad": "real", "csim": "reference", "lse-d": "real"}
"""By name, the side that is compared with."""

HEADERS = [
    "size",
    "frames with a face, %",
    "clips refused",
    "IoU of boxes",
    "points apart, %",
    *(f"{name} moves, largest" for name in ("FAD", "CSIM", "LSE-D")),
    "order of methods",
    "SCRFD-10G, CPU ms",
]
Tracks = dict[str, FaceTrack]
Scores = dict[tuple[str, str, str], float]


@dataclass(frozen=True)
class Published:
    """The clips of a protocol that are on this machine, cut: by item and side, as addressed."""

    listed: Protocol
    clips: dict[tuple[str, str], Clip]

    @classmethod
    def at_hand(cls, name: str, seconds: float) -> Published:
        """Find them."""
        listed, clips = protocol(name), {}
        provider = DataFolders.locate().provider(dataset_card(listed.card.dataset))
        for item in listed.items:
            for side, clip in {**item.clips, **item.outputs}.items():
                with suppress(SpfemBenchError):
                    path = provider.verified(clip.path.as_posix())
                    end = min(seconds, clip.span.end if clip.span else seconds)
                    clips[item.id, side] = Clip(path, crop=clip.crop, span=Span(0, end))
        return cls(listed, clips)

    def roles(self, side: str) -> frozenset[Role]:
        """Return the networks that the metrics need of one side's clips."""
        wanted: set[Role] = {"identity"}
        wanted |= {"expression"} if "csim" in self.listed.card.metrics else set()
        if side in self.listed.card.outputs and "lse-d" in self.listed.card.metrics:
            wanted |= {"sync"}
        return frozenset(wanted)


def write_cards(home: Path, sizes: Sequence[str]) -> None:
    """Write a detector and a profile for each size; ``f112`` stands for faces of 112 pixels."""
    head, mark, rest = network_card("scrfd-500m").path.read_text().partition("long_side = 320\n")
    assert mark
    profile = (home / "metrics" / "profiles" / f"{common.LIGHT}.toml").read_text()
    for size in sizes:
        side = (
            f"long_side = 640\nface = {size[1:]}\n" if size[0] == "f" else f"long_side = {size}\n"
        )
        (home / "metrics" / "networks" / f"scrfd-{size}.toml").write_text(head + side + rest)
        text = profile.replace('"scrfd-500m"', f'"scrfd-{size}"')
        (home / "metrics" / "profiles" / f"light-{size}.toml").write_text(text)


class Measured:
    """All clips through one size of the detector; features lie in the store."""

    def __init__(self, size: str, published: Sequence[Published]) -> None:
        profile = profile_card(f"light-{size}")
        self.x = Extractor(profile, WeightsStore.locate(), FeatureStore.locate())
        wanted: dict[Clip, frozenset[Role]] = {}
        for one in published:
            for (_, side), clip in one.clips.items():
                wanted[clip] = wanted.get(clip, frozenset()) | one.roles(side)
        self.refused = {clip for clip, _ in self.x.ensure(wanted)}
        self.tracks: Tracks = {}
        for clip in wanted:
            stored = self.x.store.get(self.x.key(clip, None))
            if stored is not None:
                self.tracks[str(clip)] = FaceTrack().fill(stored)

    def scores(self, published: Sequence[Published], refused: set[Clip]) -> Scores:
        """Return the methods' scores on the items of which no clip is refused."""
        scores: Scores = {}
        for one in published:
            clips, card = one.clips, one.listed.card
            out = {item for (item, _), clip in clips.items() if clip in refused}
            here = {item for item, _ in clips} - out
            items = {i.id: (i.speaker, i.emotion) for i in one.listed.items if i.id in here}

            def get(item: str, side: str, role: str, clips: Any = clips) -> Features:
                found = self.x.load(clips[item, side], role)  # type: ignore[arg-type]
                assert found is not None, clips[item, side]
                return found

            for method, (metric, target) in itertools.product(card.outputs, METRICS.items()):
                if items and metric in card.metrics:
                    with suppress(ClipError):  # too few windows with a face
                        value = score(metric_card(metric), get, items, method, target)
                        scores[one.listed.name, method, metric] = value
        return scores


def apart(tracks: Tracks, first: Tracks) -> tuple[list[float], list[float]]:
    """Return, for each frame, the IoU of boxes, and the points' mean distance in eye distances."""
    boxes, points = [], []
    for clip in first.keys() & tracks.keys():
        for a, b in zip(first[clip].faces, tracks[clip].faces, strict=True):
            if a and b:
                boxes.append(overlap(a.box, b.box))
                eyes = np.linalg.norm(a.points[0] - a.points[1])
                points.append(float(np.linalg.norm(a.points - b.points, axis=1).mean() / eyes))
    return boxes, points


def moves(scores: Scores, first: Scores) -> list[str]:
    """Return each metric's largest change with the smallest gap of two methods; then the order."""
    cells, changed = [], 0
    for metric in METRICS:
        mine = [k for k in first if k[2] == metric and k in scores]
        gaps = [
            abs(first[a] - first[b]) for a, b in itertools.combinations(mine, 2) if a[0] == b[0]
        ]
        for a, b in itertools.combinations(mine, 2):
            if a[0] == b[0]:
                changed += (first[a] < first[b]) != (scores[a] < scores[b])
        most = max((abs(scores[k] - first[k]) for k in mine), default=float("nan"))
        cells.append(f"{most:.3f} (gap {min(gaps, default=float('nan')):.3f})")
    return [*cells, "kept" if not changed else f"{changed} pairs change"]


def sides(size: str, published: Sequence[Published]) -> list[int]:
    """Return the size that each clip is searched at."""
    detector = load_detector(network_card(f"scrfd-{size}"), WeightsStore.locate())
    clips = {clip for one in published for clip in one.clips.values()}
    return [detector.clip_side(next(iter(frames(clip)))) for clip in clips]


def detector_ms(side: int, face: Face) -> float:
    """Return the processor time of one picture at a size, in batches of eight."""
    picture = np.full((256, 256, 3), 90, np.uint8)
    card = network_card("scrfd-10g")
    network = scrfd_onnx(card, [det_10g(face, 256, 0)], "cpu")
    turns = []
    for _ in range(6):
        start = time.process_time()
        network.run([picture] * 8, side)
        turns.append((time.process_time() - start) / 8)
    return 1000 * float(np.median(turns[1:]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    sizes = ["320", "256", "f112", "640", "480"]
    parser.add_argument("--sizes", nargs="+", default=sizes, help="fFACE: by the face's size")
    parser.add_argument("--seconds", type=float, default=1.2, help="of each clip")
    given = parser.parse_args()
    threads = common.use_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SPFEM_BENCH_CACHE"] = str(folder / "cache")
        published = [Published.at_hand(each, given.seconds) for each in PROTOCOLS]
        clips = list(published[0].clips.values())[:2]
        home = common.profiles(folder, common.random_syncnet(clips, 0), {common.LIGHT: {}})
        write_cards(home, given.sizes)
        common.use_cards(home)
        rows = []
        first: Measured | None = None
        for size in given.sizes:
            one = Measured(size, published)
            first = first or one
            refused = first.refused | one.refused
            boxes, points = apart(one.tracks, first.tracks)
            seen = [d for track in one.tracks.values() for d in track.detected]
            used = sides(size, published)
            face = next(f for track in one.tracks.values() for f in track.faces if f)
            costs = [detector_ms(side, face) for side in set(used)]
            cost = sum(c * used.count(side) for c, side in zip(costs, set(used), strict=True))
            pairs = (each.scores(published, refused) for each in (one, first))
            rows.append(
                [
                    size if size[0] != "f" else f"face {size[1:]}: {min(used)} to {max(used)}",
                    f"{100 * np.mean(seen):.1f}",
                    str(len(one.refused)),
                    f"{np.median(boxes):.3f} (1 %: {np.percentile(boxes, 1):.3f})",
                    f"{100 * np.median(points):.1f} (99 %: {100 * np.percentile(points, 99):.1f})",
                    *moves(*pairs),
                    f"{cost / len(used):.0f}",
                ]
            )
            print(" | ".join(rows[-1]), flush=True)
    print(f"{len(first.tracks) if first else 0} clips, {len(seen)} frames.")
    print(common.machine(threads))
    common.print_table(rows, HEADERS)


if __name__ == "__main__":
    main()
