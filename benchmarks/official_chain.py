"""Cold evaluation of a clip: the field's packages as they document themselves, and ours.

    python -m benchmarks.official_chain CLIP [CLIP ...] [--repeats 2] [--stages lip score all]

One run, both in this process with networks loaded, the same clips, threads and random weights in
the official formats (:mod:`benchmarks.official_files`). Per clip theirs and ours take turns; cells
are medians over clips and repeats with the smallest and the largest. Loading, imports and a first
clip to warm up are not counted, on either side; files are in the system's cache on both. CPU is
processor time, user and system, ffmpeg included. ``lip``, ``score`` and ``all``:

1. ``lip``, lip sync from a video file: syncnet-python's ``SyncNetPipeline.inference`` as it is (an
   AVI, JPEGs, S3FD on each at a quarter of the size, scenes, tracks, an XVID of crops, JPEGs,
   SyncNet). S3FD's random weights find nothing: it runs in full, then boxes of our track are handed
   on. Ours finds faces itself with SCRFD-500M.
2. ``score``, without detection: its last step alone, from a video of crops (ffmpeg to JPEGs and
   sound, ``SyncNetInstance.evaluate``); ours reads the same video as aligned faces, and, as a row
   of its own, the very JPEGs and WAV that theirs has written, where LSE-D must be theirs within
   1e-3. That row's theirs is ``evaluate`` alone.
3. ``all``, FAD's, CSIM's and LSE-D's features: the three packages one after another (the pipeline;
   insightface's ``FaceAnalysis.get`` on each frame, detection and recognition; hsemotion-onnx's
   ``predict_emotions`` on each frame's face), against one pass of ours with the networks of
   ``light``, and with the same networks as theirs, also with the detector's size by the face
   (``official-auto``). The random SCRFD-10G computes all its layers, then says that there is one
   face, for both. Clips are cut to --all-seconds for this.

Where the extractor has half precision, rows in bfloat16 say how far LSE-D moves.

A clip is written as everywhere, for example ``strip.mp4#xywh=0,0,256,256``; the networks of
``light`` must be there (``spfem-bench networks fetch --profile light``).
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks import common
from benchmarks.common import AUTO, LIGHT, OFFICIAL, Spent
from benchmarks.official_files import Files
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import profile_card
from spfem_bench.faces.track import Face, FaceTrack
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import ffmpeg
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.statistics import sync

TOLERANCE = 1e-3
"""How far LSE-D may lie from the package's, on its own frames and sound."""

EVERYTHING = frozenset({"identity", "expression", "sync"})


# ---- theirs -------------------------------------------------------------------------------------


class Theirs:
    """The packages, loaded.

    Args:
        files: random weights.
        tracks: by video file, what our detector found, which S3FD of random weights cannot.
        device: for syncnet-python and insightface; hsemotion-onnx knows the processor only.
        faces: load insightface and hsemotion-onnx too.
    """

    def __init__(
        self, files: Files, tracks: dict[Path, FaceTrack], device: str = "cpu", *, faces: bool
    ) -> None:
        from syncnet_python.syncnet_pipeline import SyncNetPipeline

        self.tracks, self.device = tracks, device
        self.pipeline = SyncNetPipeline(
            s3fd_weights=str(files.s3fd),
            syncnet_weights=str(files.sync),
            min_track=20,
            min_face_size=50,
            device=device,
            ffmpeg_bin=ffmpeg.program(),
        )
        self.app: Any = None
        self.expression: Any = None
        if not faces:
            return
        from hsemotion_onnx import facial_emotions
        from insightface.app import FaceAnalysis

        cuda = device != "cpu"
        self.app = FaceAnalysis(
            str(files.models),
            allowed_modules=["detection", "recognition"],
            providers=["CUDAExecutionProvider" if cuda else "CPUExecutionProvider"],
        )
        self.app.prepare(ctx_id=0 if cuda else -1, det_size=(640, 640))
        facial_emotions.get_model_path = lambda name: str(files.expression)
        self.expression = facial_emotions.HSEmotionRecognizer("enet_b0_8_best_vgaf")

    def lip_sync(self, clip: Clip, work: Path) -> float:
        """Return LSE-D by ``SyncNetPipeline.inference``; what it writes stays in *work*."""
        boxes = [np.append(f.box, 1.0)[None] for f in self.tracks[clip.path].faces if f]
        real, left = self.pipeline.s3fd, iter(boxes)

        def detect_faces(*given: Any, **how: Any) -> Any:
            assert len(real.detect_faces(*given, **how)) == 0
            return next(left, boxes[-1])

        self.pipeline.s3fd = SimpleNamespace(detect_faces=detect_faces)
        try:
            _, _, (distance,), *_ = self.pipeline.inference(str(clip.path), cache_dir=str(work))
        finally:
            self.pipeline.s3fd = real
        return float(distance)

    def score(self, crops: Path, folder: Path) -> tuple[float, Spent]:
        """Return LSE-D of a video of crops by the pipeline's last step, and what evaluate took."""
        import ffmpeg as graph

        folder.mkdir()
        graph.input(str(crops)).output(
            str(folder / "%06d.jpg"), f="image2", threads=1
        ).overwrite_output().run(cmd=ffmpeg.program())
        graph.input(str(crops)).output(
            str(folder / "audio.wav"),
            ac=1,
            vn=None,
            acodec="pcm_s16le",
            ar=16000,
            af="aresample=async=1",
        ).overwrite_output().run(cmd=ffmpeg.program())
        cfg = self.pipeline.cfg
        how = SimpleNamespace(tmp_dir=str(folder), batch_size=cfg.batch_size, vshift=cfg.vshift)
        with common.clock() as spent:
            _, _, distance = self.pipeline.syncnet.evaluate(opt=how)
        return float(distance), spent

    def all_three(self, clip: Clip, work: Path) -> float:
        """Run the three packages one after another; return LSE-D."""
        import cv2

        distance = self.lip_sync(clip, work)
        embeddings, boxes, said = [], [], []
        for frame in frames(clip.path):
            (face,) = self.app.get(frame)
            embeddings.append(face.embedding)
            boxes.append(face.bbox.astype(int))
        for frame, (left, top, right, bottom) in zip(frames(clip.path), boxes, strict=True):
            cut = cv2.cvtColor(frame[max(top, 0) : bottom, max(left, 0) : right], cv2.COLOR_BGR2RGB)
            said.append(self.expression.predict_emotions(cut, logits=True)[1])
        assert len(embeddings) == len(said) > 0
        return distance


def frames(path: Path) -> Iterator[Any]:
    """Yield a video's frames by OpenCV, as the packages' examples do."""
    import cv2

    capture = cv2.VideoCapture(str(path))
    while True:
        ok, frame = capture.read()
        if not ok:
            return
        yield frame


@contextmanager
def reachable_ffmpeg(folder: Path) -> Iterator[None]:
    """Put our ffmpeg where the packages look for one: both sides run the same program."""
    before = os.environ["PATH"]
    (folder / "bin").mkdir()
    (folder / "bin" / "ffmpeg").symlink_to(ffmpeg.program())
    os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{before}"
    try:
        yield
    finally:
        os.environ["PATH"] = before


# ---- ours ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ours:
    """An extractor whose store is emptied before each turn."""

    x: Extractor
    roles: frozenset[Any]

    def cold(self, *clips: Clip) -> tuple[list[float], Spent]:
        """Compute everything of clips; return LSE-D of each."""
        shutil.rmtree(self.x.store.folder, ignore_errors=True)
        with common.clock() as spent:
            for error in self.x.ensure(dict.fromkeys(clips, self.roles)).values():
                raise error
            values = [self.distance(clip) for clip in clips]
        return values, spent

    def distance(self, clip: Clip) -> float:
        """Return LSE-D from what is stored."""
        found = self.x.load(clip, "sync")
        assert found is not None
        visual, sound = found.outputs["visual"], found.outputs["audio"]
        part = sync.sync_part(visual, sound, found.frames, max_shift=15)
        return part.value("distance")


def ours(profile: str, folder: Path, roles: frozenset[Any], **how: Any) -> Ours:
    """Return one with a store of its own."""
    store = FeatureStore(folder / f"store-{len(list(folder.glob('store-*')))}")
    store.folder.mkdir()
    return Ours(Extractor(profile_card(profile), WeightsStore.locate(), store, **how), roles)


# ---- the comparison -----------------------------------------------------------------------------


@dataclass
class Row:
    """One comparison, filled turn by turn."""

    name: str
    theirs: list[Spent] = field(default_factory=list)
    ours: list[Spent] = field(default_factory=list)
    apart: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        """Return the row as printed."""
        pairs = list(zip(self.theirs, self.ours, strict=True))
        apart = f"{max(self.apart):.1g}" if self.apart else ""
        return [
            self.name,
            str(len(pairs)),
            *(common.spread([s.wall for s in side]) for side in (self.theirs, self.ours)),
            f"**{common.spread([a.wall / b.wall for a, b in pairs])}**",
            *(f"{np.median([s.cpu for s in side]):.2f}" for side in (self.theirs, self.ours)),
            common.spread([a.cpu / b.cpu for a, b in pairs]),
            apart,
        ]


HEADERS = [
    "",
    "pairs",
    "theirs, s a clip",
    "ours, s a clip",
    "ratio",
    "theirs, CPU s",
    "ours, CPU s",
    "ratio of CPU",
    "LSE-D apart, at most",
]


def timed(work: Callable[[], Any]) -> tuple[Any, Spent]:
    """Run something without what it prints."""
    with common.quiet(), common.clock() as spent:
        found = work()
    return found, spent


def lip(
    theirs: Theirs, clips: Sequence[Clip], repeats: int, folder: Path, device: str
) -> list[Row]:
    """Compare lip sync from a video file."""
    sides = {"lip sync, a file to LSE-D": ours(LIGHT, folder, frozenset({"sync"}), device=device)}
    if common.can("precision"):
        half = ours(LIGHT, folder, frozenset({"sync"}), device=device, precision="bfloat16")
        sides["the same, ours in bfloat16"] = half
    rows = {name: Row(name) for name in sides}
    together = Row("the same, ours on all clips at once")
    for turn in range(-1, repeats):  # the first warms up
        costs = []
        for k, clip in enumerate(clips[:1] if turn < 0 else clips):
            full = None
            for name, side in sides.items():
                work = folder / f"lip-{turn}-{k}-{name[:8]}"

                def package(clip: Clip = clip, work: Path = work) -> tuple[float, Spent]:
                    return timed(lambda: theirs.lip_sync(clip, work))

                (_, a), ((value,), b) = common.alternate(
                    package, lambda clip=clip, side=side: side.cold(clip), turn + k
                )
                shutil.rmtree(work)
                full = value if full is None else full
                costs.append(a)
                if turn >= 0:
                    rows[name].theirs.append(a)
                    rows[name].ours.append(b)
                    rows[name].apart += (
                        [abs(value - full)] if name != "lip sync, a file to LSE-D" else []
                    )
        if turn >= 0:
            _, b = sides["lip sync, a file to LSE-D"].cold(*clips)
            n = len(clips)
            together.theirs.append(
                Spent(*(np.mean([getattr(c, k) for c in costs]) for k in ("wall", "cpu")))
            )
            together.ours.append(Spent(b.wall / n, b.cpu / n))
    return [*rows.values(), together]


def score(
    theirs: Theirs, clips: Sequence[Clip], repeats: int, folder: Path, device: str
) -> list[Row]:
    """Compare the scoring of ready crops."""
    how = {"faces": "aligned", "device": device}
    full = ours(LIGHT, folder, frozenset({"sync"}), **how)
    same = Row("the same JPEGs and WAV (theirs: evaluate alone)")
    rows = [Row("lip sync, crops to LSE-D"), same]
    sides = [full]
    if common.can("precision"):
        sides.append(ours(LIGHT, folder, frozenset({"sync"}), precision="bfloat16", **how))
        rows.append(Row("the same JPEGs and WAV, ours in bfloat16"))
    for k, clip in enumerate(clips):
        work = folder / f"crops-{k}"
        with common.quiet():
            theirs.lip_sync(clip, work)
        (crops,) = (work / "cropped").glob("*.avi")
        for turn in range(-1 if k == 0 else 0, repeats):
            place = work / f"turn-{turn}"

            def package(crops: Path = crops, place: Path = place) -> Any:
                return timed(lambda: theirs.score(crops, place))

            def mine(crops: Path = crops) -> Any:
                return full.cold(Clip(crops))

            ((distance, evaluate), a), (_, b) = common.alternate(package, mine, turn)
            pictures = Clip(place, frame_rate=25, audio=place / "audio.wav")
            found = [side.cold(pictures) for side in sides]
            if turn >= 0:
                rows[0].theirs.append(a)
                rows[0].ours.append(b)
                for row, ((value,), spent) in zip(rows[1:], found, strict=True):
                    row.theirs.append(evaluate)
                    row.ours.append(spent)
                    row.apart.append(abs(value - distance))
            shutil.rmtree(place)
        shutil.rmtree(work)
    assert max(same.apart) <= TOLERANCE, same.apart
    return rows


def everything(
    theirs: Theirs, clips: Sequence[Clip], repeats: int, folder: Path, device: str
) -> list[Row]:
    """Compare all three metrics together."""
    sides = {
        "all three, ours with the networks of light": ours(
            LIGHT, folder, EVERYTHING, device=device
        ),
        "all three, ours with the same networks": ours(OFFICIAL, folder, EVERYTHING, device=device),
        "the same, ours with the detector's size by the face": ours(
            AUTO, folder, EVERYTHING, device=device
        ),
    }
    if common.can("precision"):
        sides["all three, light in bfloat16"] = ours(
            LIGHT, folder, EVERYTHING, device=device, precision="bfloat16"
        )
    rows = {name: Row(name) for name in sides}
    for turn in range(-1, repeats):
        for k, clip in enumerate(clips[:1] if turn < 0 else clips):
            work = folder / f"all-{turn}-{k}"
            before = [side.cold(clip)[1] for side in sides.values()] if (turn + k) % 2 else []
            _, a = timed(lambda clip=clip, work=work: theirs.all_three(clip, work))
            mine = before or [side.cold(clip)[1] for side in sides.values()]
            shutil.rmtree(work)
            for name, b in zip(sides, mine, strict=True):
                if turn >= 0:
                    rows[name].theirs.append(a)
                    rows[name].ours.append(b)
    return list(rows.values())


STAGES = {"lip": lip, "score": score, "all": everything}


@dataclass(frozen=True)
class Bench:
    """What both sides need, prepared.

    Attributes:
        clips: cut to files, at 25 frames a second.
        short: the same, cut short.
        tracks: by file, where the subject's face is.
    """

    clips: list[Clip]
    short: list[Clip]
    tracks: dict[Path, FaceTrack]
    files: Files


def prepare(given: Sequence[Clip], folder: Path, short: float, seed: int) -> Bench:
    """Cut clips, find faces, write random weights and their cards."""
    clips = [common.cut(clip, folder / f"clip-{k}.mp4") for k, clip in enumerate(given)]
    few = [common.cut(clip, folder / f"short-{k}.mp4", short) for k, clip in enumerate(given)]
    light = profile_card("light")
    tracks = {}
    finder = Extractor(light, WeightsStore.locate(), FeatureStore(folder / "tracks"))
    for clip in [*clips, *few]:
        track = tracks[clip.path] = FaceTrack()
        size = {frame.shape[0] for frame, _ in finder.tracked_frames(clip, track)}
        track.check(clip, light.follow())
    faces = [f for f in tracks[clips[0].path].faces if f]
    face = Face(np.mean([f.box for f in faces], 0), np.mean([f.points for f in faces], 0), 1.0)
    weights = common.random_syncnet(clips[:1], seed)
    return Bench(clips, few, tracks, common.random_profiles(folder, weights, face, max(size), seed))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("clips", nargs="+", type=Clip.parse, metavar="CLIP")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES))
    parser.add_argument("--repeats", type=int, default=2, help="of each clip")
    parser.add_argument(
        "--all-seconds", type=float, default=1.0, help="of each clip, for all three"
    )
    parser.add_argument("--threads", type=int, help="of every library; all cores by default")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0, help="of the random weights")
    given = parser.parse_args()
    threads = common.use_threads(given.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench = prepare(given.clips, folder, given.all_seconds, given.seed)
        with reachable_ffmpeg(folder):
            with common.quiet():
                theirs = Theirs(
                    bench.files, bench.tracks, given.device, faces="all" in given.stages
                )
            rows = []
            for stage in given.stages:
                clips = bench.short if stage == "all" else bench.clips
                rows += STAGES[stage](theirs, clips, given.repeats, folder, given.device)
    if not common.can("precision"):
        print("This version's extractor has no half precision: no rows for it.")
    lengths = [len(bench.tracks[c.path].faces) for c in bench.clips]
    print(
        f"{len(lengths)} clips of {lengths} frames ({given.all_seconds:g} s of each for all three)."
    )
    print(common.machine(threads))
    cells = [row.cells() for row in rows]
    common.print_table(cells, HEADERS)
    print(common.quotable({row[0]: f"{row[4]} times the packages" for row in cells}, threads))


if __name__ == "__main__":
    main()
