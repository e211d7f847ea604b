"""What each choice of the papers' recipe moves: the tables in docs/papers_recipe.md.

    SPFEM_BENCH_DATA=... SPFEM_BENCH_WEIGHTS=... python -m benchmarks.papers_choices

The published strips of STCCL's page (NED, STCCL-VD, STCCL-CM; those that are at hand), with the
networks of the profile `light` and a SyncNet of random weights, so that only differences mean
something. Real is the source clip. Each row changes one choice against the row above.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
from tabulate import tabulate

from benchmarks.common import random_syncnet
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.datasets.ned_faces import NedFaces
from spfem_bench.datasets.ned_inputs import NedInput
from spfem_bench.definitions import networks
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.metrics import MetricCard, metric_card
from spfem_bench.definitions.protocols import Item, protocol
from spfem_bench.errors import SpfemBenchError
from spfem_bench.features.extract import Extractor
from spfem_bench.features.features import Features
from spfem_bench.features.store import FeatureStore
from spfem_bench.hashes import sha256_of
from spfem_bench.media import video
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.statistics.base import kind_of

METHODS = {"ned": "NED", "stccl-vd-ned": "VD", "stccl-cm-ned": "CM"}
SIDES = ("source", "reference", *METHODS)
Clips = dict[tuple[str, str], Clip]
Get = Callable[[str, str, str], Features]


def columns(folder: Path) -> tuple[Clips, dict[str, tuple[str, str]]]:
    """Write each column of each strip as pictures; return clips, and speaker and emotion."""
    listed = protocol("stccl-page-ned")
    provider = DataFolders.locate().provider(dataset_card("stccl-page"))
    clips: Clips = {}
    items = {}
    for item in listed.items:
        for side in SIDES:
            clip = {**item.clips, **item.outputs}[side]
            try:
                path = provider.verified(clip.path.as_posix())
            except SpfemBenchError:
                break
            target = folder / "columns" / item.id / side
            target.mkdir(parents=True)
            whole = Clip(path, crop=clip.crop, span=clip.span)
            for number, frame in enumerate(video.frames(whole, own=True)):
                cv2.imwrite(str(target / f"{number:06d}.png"), frame[:, :, ::-1])
            clips[item.id, side] = Clip(target, frame_rate=30.0, audio=path)
            items[item.id] = item.speaker, item.emotion
    return clips, items


def prepared(clips: Clips, folder: Path, *, masked: bool) -> Clips:
    """Return the clips as NED's aligned faces."""
    faces = NedFaces(networks.profile_card("light"), WeightsStore.locate(), masked=masked)
    made: Clips = {}
    for (item, side), clip in clips.items():
        target = folder / ("masked" if masked else "unmasked") / item / side
        target.mkdir(parents=True)
        one = NedInput(clip, "X", "x", item, None)
        for number, picture in enumerate(faces.pictures(one, faces.track(one))):
            cv2.imwrite(str(target / f"{number:06d}.png"), picture.face[:, :, ::-1])
        made[item, side] = Clip(target, frame_rate=30.0, audio=clip.audio)
    return made


def write_profiles(folder: Path, clips: Clips) -> None:
    """Write cards of `light` with a random SyncNet, for clips as they are and for aligned faces."""
    weights = folder / "weights"
    weights.mkdir()
    for path in (WeightsStore.locate().own or weights).iterdir():
        (weights / path.name).symlink_to(path.resolve())
    few = [clip for (_, side), clip in clips.items() if side == "source"][:3]
    (weights / "syncnet_v2.model").write_bytes(random_syncnet(few, seed=0))
    digest = sha256_of(weights / "syncnet_v2.model")
    own = folder / "cards" / "metrics"
    for name in ("networks", "profiles"):
        (own / name).mkdir(parents=True)
    for name in ("syncnet-v2", "syncnet-v2-ned"):
        card = networks.network_card(name)
        text = card.path.read_text().replace(card.files[0].sha256, digest)
        text = "\n".join(li for li in text.splitlines() if not li.startswith("bytes = "))
        (own / "networks" / f"random-{name}.toml").write_text(text)
        whole = text.replace('sound = "float"', 'sound = "int16"')
        (own / "networks" / f"random-{name}-int16.toml").write_text(whole)
    light = networks.profile_card("light")
    text = light.path.read_text().replace('"syncnet-v2"', '"random-syncnet-v2"')
    (own / "profiles" / "light-random.toml").write_text(text)
    for name, sync, rate in (
        ("aligned-own", "random-syncnet-v2-ned", 'frame_rate = "own"'),
        ("aligned-own-int16", "random-syncnet-v2-ned-int16", 'frame_rate = "own"'),
        ("aligned-25", "random-syncnet-v2", ""),
    ):
        (own / "profiles" / f"{name}.toml").write_text(
            f'title = "{name}"\nidentity = "{light.identity}"\n'
            f'expression = "{light.expression}"\nsync = "{sync}"\n{rate}\n'
        )


def getter(profile: str, faces: str, clips: Clips, folder: Path, roles: tuple[str, ...]) -> Get:
    """Compute features of all clips; return the function that looks them up."""
    with tempfile.TemporaryDirectory() as store:
        x = Extractor(
            networks.profile_card(profile),
            WeightsStore(folder / "weights"),
            FeatureStore(Path(store)),
            faces=faces,  # type: ignore[arg-type]
        )
        failed = x.ensure({clip: frozenset(roles) for clip in clips.values()})  # type: ignore[arg-type]
        if failed:
            raise next(iter(failed.values()))
        found = {
            (*key, role): x.load(clip, role)  # type: ignore[arg-type]
            for key, clip in clips.items()
            for role in roles
        }
    return lambda item, side, role: found[item, side, role]  # type: ignore[return-value]


def score(
    card: MetricCard, get: Get, items: dict[str, tuple[str, str]], method: str, target: str
) -> float:
    """Return the mean over emotions of a metric's scores; *target* is the side compared with."""
    kind, values = kind_of(card), []
    for emotion in dict.fromkeys(emotion for _, emotion in items.values()):
        parts = []
        for item, (speaker, own) in items.items():
            if own != emotion:
                continue
            features = {"output": [get(item, method, card.role)]}
            if len(card.compare) > 1:
                features[card.compare[1]] = [get(item, target, card.role)]
            place = Clip(Path(item))
            part = kind.part(card, place, features)  # type: ignore[arg-type]
            placed = Item(item, speaker, emotion, {"real": place}, {})
            parts.append(kind.of_item(part, placed))
        values.append(kind.score(parts).value)
    return float(np.mean(values))


def changed(name: str, **settings: object) -> MetricCard:
    """Return a metric's card with other settings of its statistic."""
    card = metric_card(name)
    return card.model_copy(update={"statistic": card.statistic.model_copy(update=settings)})


def rows(folder: Path) -> Iterator[tuple[str, str, Callable[[str], float]]]:
    """Yield metric, choice, and the function from a method to its score."""
    clips, items = columns(folder)
    masked = prepared(clips, folder, masked=True)
    unmasked = prepared(clips, folder, masked=False)
    write_profiles(folder, clips)
    with patch.dict("os.environ", {"SPFEM_BENCH_CARDS": str(folder / "cards")}):
        faces = ("identity", "expression")
        both = (*faces, "sync")
        one = getter("aligned-own", "aligned", masked, folder, both)
        two = getter("aligned-own", "aligned", unmasked, folder, both)
        whole = getter("aligned-own-int16", "aligned", unmasked, folder, ("sync",))
        slow = getter("aligned-25", "aligned", unmasked, folder, both)
        light = getter("light-random", "detect", clips, folder, both)

    def scores(card: MetricCard, get: Get, target: str = "source") -> Callable[[str], float]:
        return lambda method: score(card, get, items, method, target)

    fad, csim = metric_card("fad-papers"), metric_card("csim-papers")
    yield "FAD", "as the papers: masked faces, 30 fps, sqrtm", scores(fad, one)
    yield "FAD", "exact root", scores(metric_card("fad"), one)
    yield "FAD", "no mask", scores(metric_card("fad"), two)
    yield "FAD", "25 fps", scores(metric_card("fad"), slow)
    yield "FAD", "five-point crops (as `official`)", scores(metric_card("fad"), light)
    yield "FAD", "embeddings of length 1", scores(changed("fad", normalise=True), light)
    yield "CSIM", "as the papers: all pairs of 100 drawn frames, real, masked", scores(csim, one)
    yield "CSIM", "all frames", scores(changed("csim-papers", most=10**9), one)
    yield "CSIM", "no mask", scores(changed("csim-papers", most=10**9), two)
    means = metric_card("csim")
    yield "CSIM", "clip means instead of pairs", scores(means, two)
    pairs = changed("csim", pooling="frames")
    yield "CSIM", "frame t with frame t instead (one row)", scores(pairs, two)
    yield "CSIM", "clip means, the reference instead of real", scores(means, two, "reference")
    yield "CSIM", "25 fps", scores(means, slow, "reference")
    yield "CSIM", "boxes of the detector (as `official`)", scores(means, light, "reference")
    for report, name in (("d", "LSE-D"), ("c", "LSE-C")):
        own, ours = metric_card(f"lse-{report}-papers"), metric_card(f"lse-{report}")
        yield name, "as the papers: 30 fps, inner face, float sound, masked", scores(own, one)
        yield name, "no mask", scores(own, two)
        yield name, "sound in whole numbers", scores(own, whole)
        yield name, "shifts up to 15", scores(ours, whole)
        yield name, "25 fps, the whole aligned face", scores(ours, slow)
        yield name, "tracked crops (as `official`)", scores(ours, light)


def main() -> None:
    """Print the tables."""
    folder = Path(tempfile.mkdtemp())
    try:
        table, before = [], {}
        for metric, choice, of in rows(folder):
            values = {label: of(method) for method, label in METHODS.items()}
            order = sorted(values, key=values.__getitem__)
            ranks = " < ".join(order) + (" (changed)" if before.get(metric, order) != order else "")
            before[metric] = order
            table.append([metric, choice, *(f"{v:.4g}" for v in values.values()), ranks])
        heads = ["", "choice", *METHODS.values(), "order"]
        print(tabulate(table, heads, "github", disable_numparse=True))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
