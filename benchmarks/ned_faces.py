"""What ``prepare ned-faces`` does to faces and scores: the tables in docs/ned_faces.md.

    python -m benchmarks.ned_faces MATERIAL [steadiness|scores]

MATERIAL holds the authors' clips in ``samples/``, small networks in ``weights/``, and may hold
``authors_recipe/faces``, the masked pictures that the papers' scripts were run on.

*Steadiness*: by how many pixels nose bridge and eye corners move from one aligned picture to the
next, by optical flow. *Scores*: of each method against real, in the manner of the papers' scripts
(FAD by pooled frames, CSIM over all pairs of frames, LSE-D and LSE-C at 30 frames a second on the
inner 186 pixels), with the small networks of profile `light` and SyncNet with random weights. Only
differences between the rows of one method mean anything.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
from python_speech_features import mfcc
from tabulate import tabulate

from spfem_bench.datasets.ned_faces import NedFaces
from spfem_bench.datasets.ned_inputs import NedInput, ned_inputs
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import profile_card
from spfem_bench.faces import exact, ned
from spfem_bench.media.audio import samples as sound_of
from spfem_bench.networks.load import BatchFunction, load_network
from spfem_bench.networks.syncnet import SyncNet
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.statistics.frechet import Moments, frechet_distance
from spfem_bench.statistics.similarity import cosine

Pictures = list[np.ndarray]

STRIPS = ("M003_source_sad_033", "W015_source_sad_028", "W015_source_sad_030")
"""Clips that the masked pictures of the authors' recipe were cut from."""

COLUMNS = {"real": 0, "ned": 1024, "stccl-vd": 512}
FRAMES = 40
"""Frames of each clip: as many as the masked pictures have."""

INNER = 35
CASES = ("strip as published", "aligned", "aligned and masked", "ellipse, not aligned")


def moves(faces: Sequence[np.ndarray]) -> np.ndarray:
    """Return how far the still parts of aligned faces move from each to the next, in pixels."""
    grey = [cv2.cvtColor(np.ascontiguousarray(f), cv2.COLOR_RGB2GRAY) for f in faces]
    where = np.zeros((ned.SIZE, ned.SIZE), np.uint8)
    where[95:150, 90:166] = 255
    found = []
    for before, after in pairwise(grey):
        points = cv2.goodFeaturesToTrack(before, 60, 0.01, 3, mask=where)
        if points is None:  # strips end in black pictures where a column is shorter
            continue
        moved, state, _ = cv2.calcOpticalFlowPyrLK(before, after, points, None)
        step = (moved - points)[state[:, 0] == 1].reshape(-1, 2)
        if len(step) > 5:
            found.append(np.median(step, axis=0))
    return np.hypot(*np.transpose(found))


def holes(masks: Sequence[np.ndarray]) -> int:
    """Return in how many pictures the mask has more than one part, or a hole."""
    bad = 0
    for mask in masks:
        parts = cv2.connectedComponents(mask, connectivity=8)[0] - 1
        around = cv2.connectedComponents(np.pad(1 - mask, 1, constant_values=1), connectivity=4)[0]
        bad += parts != 1 or around - 1 != 1
    return bad


def steadiness(material: Path, faces: NedFaces) -> list[list[str]]:
    """Return a row for each published clip: aligned and as published."""
    rows = []
    paths = sorted((material / "samples").rglob("*_source_*.mp4"))
    for path in paths:
        one = ned_inputs([f"{path}#xywh=0,0,256,256"])[0]
        made = list(faces.pictures(one, faces.track(one)))
        after, before = (moves([getattr(p, k) for p in made]) for k in ("face", "picture"))
        warped = [ned.aligned_face(p.picture, p.points, p.mask)[1] for p in made]
        bad = holes([m for m in warped if m is not None])
        figures = [np.sqrt(np.mean(m**2)) for m in (after, before)]
        texts = [f"{figures[0]:.2f}", f"{after.max():.2f}", f"{figures[1]:.2f}", str(bad)]
        rows.append([path.stem, str(len(made)), *texts])
    return rows


def features(
    run: BatchFunction, output: str, pictures: Pictures, size: int, grey: bool
) -> np.ndarray:
    """Return a network's output for whole pictures."""
    crops = [exact.shrink(p, size) for p in pictures]
    columns = slice(8, 104)  # MobileFaceNet takes 96 of 112
    crops = [exact.grey(c)[:, :, None] if grey else c[:, columns] for c in crops]
    return np.asarray(run(np.stack(crops))[output])


def all_pairs(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean cosine of all pairs of rows."""
    return float(np.mean([cosine(a, np.broadcast_to(row, a.shape)).mean() for row in b]))


@torch.inference_mode()
def sync(net: SyncNet, pictures: Pictures, sound: np.ndarray) -> tuple[float, float]:
    """Return LSE-D and LSE-C as ``lse_inter_id.py`` has them, in whole-number sound."""
    cut = [cv2.resize(p[INNER:-INNER, INNER:-INNER, ::-1], (224, 224)) for p in pictures]
    steps = mfcc(sound, 16000, winstep=1 / 120).astype(np.float32)
    count = min(len(cut) - 5, len(steps) // 4 - 5)
    video = torch.from_numpy(np.stack(cut)).permute(3, 0, 1, 2)[None].float()
    visual = net.visual(video)[0, :count]
    heard = torch.from_numpy(np.stack([steps[4 * i : 4 * i + 20].T for i in range(count)]))
    audio = net.audio(heard[:, None])
    padded = torch.nn.functional.pad(audio, (0, 0, 10, 10))
    near = [torch.nn.functional.pairwise_distance(visual, padded[k : k + count]) for k in range(21)]
    means = torch.stack(near).mean(dim=1)
    return float(means.min()), float(means.median() - means.min())


def cases(material: Path, faces: NedFaces, method: str) -> dict[str, list[Pictures]]:
    """Return each clip's first pictures of one method, in each way of preparing them."""
    found: dict[str, list[Pictures]] = {case: [] for case in CASES}
    for strip in STRIPS:
        path = material / f"samples/stccl-page/video_result/{strip}.mp4"
        one: NedInput = ned_inputs([f"{path}#xywh={COLUMNS[method]},0,256,256"])[0]
        made = list(faces.pictures(one, faces.track(one)))[:FRAMES]
        bare = [ned.aligned_face(p.picture, p.points, None) for p in made]
        found[CASES[1]].append([face for face, _ in bare])
        found[CASES[2]].append([p.face for p in made])
        found[CASES[0]].append(published(one.clip))
    theirs = material / "authors_recipe/faces" / method / "sad"
    if theirs.is_dir():
        files = sorted(theirs.glob("*/*.png"))
        read = [np.ascontiguousarray(cv2.imread(str(f))[:, :, ::-1]) for f in files]
        found[CASES[3]] = [read[k : k + FRAMES] for k in range(0, len(read), FRAMES)]
    return {case: clips for case, clips in found.items() if clips}


def published(clip: Clip) -> Pictures:
    """Return a clip's first pictures as they are."""
    from spfem_bench.media.own_rate import every_picture

    frames = every_picture(clip)
    return [frame for frame, _ in zip(frames, range(FRAMES), strict=False)]


def scores(material: Path, weights: WeightsStore, faces: NedFaces) -> list[list[str]]:
    """Return a row for each method and way of preparing."""
    light = profile_card("light")
    identity: BatchFunction = load_network(light.network("identity"), weights)["crops"]
    expression: BatchFunction = load_network(light.network("expression"), weights)["crops"]
    torch.manual_seed(0)
    net = SyncNet().train()
    prepared = {method: cases(material, faces, method) for method in COLUMNS}
    clip = prepared["real"][CASES[0]][0]
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None
    sounds = [sound_of(Clip(material / f"samples/stccl-page/video_result/{s}.mp4")) for s in STRIPS]
    sync(net, clip, sounds[0])  # sets batch normalisation
    net.eval()

    def rows_of(method: str, case: str, run: Callable[[Pictures], np.ndarray]) -> np.ndarray:
        return np.concatenate([run(p) for p in prepared[method][case]])

    rows = []
    for case in prepared["real"]:
        for method in COLUMNS:
            ours, real = (
                [
                    rows_of(m, case, lambda p: features(identity, "embedding", p, 112, grey=False)),
                    rows_of(m, case, lambda p: features(expression, "features", p, 64, grey=True)),
                ]
                for m in (method, "real")
            )
            fad = frechet_distance(Moments.of(real[0]), Moments.of(ours[0]))
            pairs = zip(prepared[method][case], sounds, strict=True)
            lse = np.mean([sync(net, pictures, sound) for pictures, sound in pairs], axis=0)
            figures = [f"{fad:.3f}", f"{all_pairs(ours[1], real[1]):.3f}"]
            rows.append([case, method, *figures, f"{lse[0]:.3f}", f"{lse[1]:.3f}"])
    return rows


def main() -> None:
    """Print both tables."""
    material = Path(sys.argv[1])
    weights = WeightsStore.locate(material / "weights")
    faces = NedFaces(profile_card("light"), weights)
    part = sys.argv[2] if len(sys.argv) > 2 else ""
    if part != "scores":
        heads = ["clip", "pictures", "moves, rms", "largest", "as published, rms", "bad masks"]
        print(tabulate(steadiness(material, faces), heads, "github", disable_numparse=True), "\n")
    if part != "steadiness":
        heads = ["pictures", "method", "FAD", "CSIM", "LSE-D", "LSE-C"]
        rows = scores(material, weights, faces)
        print(tabulate(rows, heads, "github", disable_numparse=True))


if __name__ == "__main__":
    main()
