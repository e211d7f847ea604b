"""Clips of a report: found on this machine, copied so that browsers play them, and drawn."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.networks import profile_card
from spfem_bench.errors import ClipError, MissingClipError, SpfemBenchError
from spfem_bench.faces import edits
from spfem_bench.faces.crop import opencv
from spfem_bench.faces.track import FaceTrack
from spfem_bench.features.extract import Extractor
from spfem_bench.features.features import Features
from spfem_bench.features.requests import PairRequest, Request
from spfem_bench.features.store import FeatureStore
from spfem_bench.files import inside
from spfem_bench.hashes import sha256_of
from spfem_bench.media import audio, ffmpeg, headers, video
from spfem_bench.media.video import FRAME_RATE, Frame, Unchanged, content_id, own_rate
from spfem_bench.media.write import write_clip
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.reporting.report.charts import Curve, CurvesPlot, TimePlot, time_plot
from spfem_bench.reporting.report.model import ReportRun
from spfem_bench.statistics.base import Curves
from spfem_bench.version import __version__

if TYPE_CHECKING:
    from spfem_bench.features.pair_extract import PairExtractor

TALLEST = 360  # frames of copies are made no higher than this, in pixels
QUALITY = 23  # H.264's constant rate factor of copies: to look at, not to measure
PEAKS = 280  # parts into which a clip's sound is cut for its waveform
ENDS = {"video": ".mp4", "picture": ".png"}
_AGAIN = "Run the evaluation again on this machine"
_SAME = f"{_AGAIN}, with the same versions"


@dataclass
class Clips:
    """Finds, copies and draws the clips of run records.

    Copies are named after a hash of what they are made of, so that no name out of a record
    becomes the name of a file; one that is there already is not made again.

    Attributes:
        weights: of networks that features are keyed by; none is ever fetched.
        videos: folders of users' own outputs, by method.
        kept: a folder that holds copies of an earlier report, if there is one.
        known: the earlier report's files with their hashes; another is not taken over.
        made: a folder that gets the copies.
        cards: folders whose subfolder ``datasets`` may hold the cards of data sets.
    """

    data: DataFolders
    weights: WeightsStore
    store: FeatureStore
    videos: Mapping[str, Path]
    kept: Path
    known: Mapping[str, str]
    made: Path
    cards: Sequence[Path] = ()
    _scorers: dict[str, PairExtractor] = field(default_factory=dict)

    # ---- finding -------------------------------------------------------------------------

    def find(self, run: ReportRun, item: str, role: str) -> Clip:
        """Return an item's clip with its paths on this machine, the same that the run saw.

        Raises ClipError when it is not there, or is another one now, and SpfemBenchError when its
        data set is unknown here, or its address leaves its folder.
        """
        recorded = run.items[item].clips.get(role)
        if recorded is None:
            raise MissingClipError(f"the record names no {role} clip")
        if recorded.content is None:
            raise MissingClipError(f"the run had no {role} clip of this item")
        listed = Clip.parse(recorded.address)
        try:
            clip = self._own(run, listed) if role == "output" else None
            clip = clip or self._listed(run, listed, role)
            same = content_id(clip) == recorded.content
        except OSError as error:  # such as a name that no file can have
            raise ClipError(f"the {role} clip cannot be read: {error.strerror}") from None
        if not same:
            problem = f"the {role} clip has changed since the run"
            raise ClipError(problem, "Run the evaluation again")
        return clip

    def _own(self, run: ReportRun, listed: Clip) -> Clip | None:
        """Return a clip out of the folder that the user names for the method."""
        folder = self.videos.get(run.name)
        if folder is None:
            return None
        path = inside(folder, listed.path.as_posix())
        if not path.exists():
            raise MissingClipError(f"the output is not in the folder given for {run.name}")
        sound = listed.audio
        if sound is not None:  # beside the output, or the source's out of the data set
            own = inside(folder, sound.as_posix())
            sound = own if own.is_file() else self._verified(run, sound)
        return replace(listed, path=path, audio=sound)

    def _listed(self, run: ReportRun, listed: Clip, role: str) -> Clip:
        try:
            path = self._verified(run, listed.path)
            sound = listed.audio and self._verified(run, listed.audio)
            return replace(listed, path=path, audio=sound)
        except ClipError as error:
            if role == "output" and not run.is_control:
                remedy = f"Add --videos {run.name}=DIR"
                raise MissingClipError("the output is in no data set", remedy) from error
            raise

    def _verified(self, run: ReportRun, path: Path) -> Path:
        name = next(iter(run.record.settings.values())).protocol.dataset
        beside = (f for f in self.cards if inside(f, f"datasets/{name}.toml").is_file())
        card = dataset_card(name, next(beside, None))
        return self.data.verified(card, path.as_posix())

    # ---- copies --------------------------------------------------------------------------

    def copy(self, run: ReportRun, clip: Clip) -> str:
        """Copy a clip as H.264 and AAC, upright, cropped and edited; return the copy's name.

        Raises ClipError when it cannot be read, or its edit needs a face track that is not stored,
        and StorageError when the copy cannot be written.
        """
        unchanged = Unchanged.since(clip)
        recipe = [content_id(clip), TALLEST, QUALITY, ffmpeg.version(), run.faces, __version__]
        name = _name("video", recipe)
        if not self._have(name):
            frames = unchanged.frames(self._frames(run, clip))
            path, sound = inside(self.made, name), clip_sound(clip)
            write_clip(path, _fitted(frames), sound, sound_codec="aac", quality=QUALITY)
        return name

    def _have(self, name: str) -> bool:
        """Return whether a copy is there, after taking it over from an earlier report."""
        made, kept = inside(self.made, name), inside(self.kept, name)
        whole = name in self.known and kept.is_file() and sha256_of(kept) == self.known[name]
        if not made.is_file() and whole:
            made.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(kept, made)
        return made.is_file()

    def _frames(self, run: ReportRun, clip: Clip) -> Iterator[Frame]:
        if clip.edit is None:
            yield from video.frames(clip)
            return
        bare, aligned = replace(clip, edit=None), run.faces == "aligned"
        if clip.edit.kind == "frozen-mouth" and not aligned:
            extractor = self._extractor(run)
            if not extractor.store.has(extractor.key(bare, None)):
                problem = "what is done to this clip needs its face track, which is not stored here"
                raise MissingClipError(problem, _AGAIN)
            yield from (frame for frame, _ in extractor.tracked_frames(clip, FaceTrack()))
            return
        count = sum(1 for _ in video.frames(bare)) if clip.edit.kind == "frozen-mouth" else 0
        pairs = ((frame, None) for frame in video.frames(bare))
        yield from (f for f, _ in edits.edited_frames(pairs, clip.edit, count, aligned=aligned))

    # ---- drawings ------------------------------------------------------------------------

    def _extractor(self, run: ReportRun) -> Extractor:
        profile, device = profile_card(run.record.profile), run.record.environment.device
        return Extractor(profile, self.weights, self.store, faces=run.faces, device=device)

    def _requests(self, run: ReportRun, item: str, metric: str) -> list[tuple[Clip, Request]]:
        """Return an item's clips in a metric, the output first, each with its request."""
        card = metric_card(metric)
        clips = {role: (self.find(run, item, role),) for role in card.compare}
        return [of[0] for of in run.record.kind_of(metric).requests(card, clips).values()]

    def _features(self, run: ReportRun, clip: Clip, request: Request) -> Features:
        """Return a clip's stored features; raise ClipError where there are none."""
        features = None
        if not isinstance(request, PairRequest):
            features = self._extractor(run).load(clip, request)
        if features is None:
            raise ClipError("the features of this run are not stored here", _SAME)
        return features

    def curve(self, run: ReportRun, item: str, metric: str) -> Curve:
        """Return an output's distance of mouth and sound, window by window, at its best shift.

        Raises SpfemBenchError when the stored features are not here, or not those of the run.
        """
        features = self._features(run, *self._requests(run, item, metric)[0])
        kind = run.record.kind_of(metric)
        part = kind.read(run.items[item].metrics[metric])
        return Curve(features.frames, kind.over_time(part, features))

    def sync(self, run: ReportRun, rival: ReportRun | None, item: str, metric: str) -> TimePlot:
        """Return the plot of an output's distances over time, and a rival's, above the sound.

        Raises SpfemBenchError when the output's clip or features are not here.
        """
        curves = {"own": self.curve(run, item, metric)}
        if rival is not None:
            try:
                curves["rival"] = self.curve(rival, item, metric)
            except SpfemBenchError:  # drawn without it
                curves.pop("rival", None)
        return self._over_sound(run, item, curves)

    def _over_sound(self, run: ReportRun, item: str, curves: Mapping[str, Curve]) -> TimePlot:
        clip = self.find(run, item, "output")
        sound = clip_sound(clip)
        media = [frozen.media for frozen in run.record.settings.values()]
        own = any(one["frame_rate"] == "own" for one in media)  # every picture is a frame
        rate = own_rate(clip) if own else FRAME_RATE
        return time_plot(curves, peaks(sound), len(sound) / audio.SAMPLE_RATE, rate)

    def _in_step(self, run: ReportRun, item: str, metric: str) -> Mapping[str, Curves]:
        """Return what a metric compares over time in an item's output and its other clip."""
        pair = self._requests(run, item, metric)
        output, other = (self._features(run, *of) for of in pair)
        kind = run.record.kind_of(metric)
        return kind.curves(kind.read(run.items[item].metrics[metric]), output, other)

    def curves(
        self, run: ReportRun, rival: ReportRun | None, item: str, metric: str
    ) -> list[CurvesPlot]:
        """Return plots of what a metric compares over time, in the output's time.

        The other clip is shifted by the recorded lag, and a rival so that it lies in step with it.
        Raises SpfemBenchError when a clip or its features are not here, or not those of the run.
        """
        others: Mapping[str, Curves] = {}
        if rival is not None:
            with suppress(SpfemBenchError):  # drawn without it
                others = self._in_step(rival, item, metric)
        plots = []
        for name, own in self._in_step(run, item, metric).items():
            lines = {"own": Curve(own.frames, own.output, 1)}
            if of_rival := others.get(name):
                frames = of_rival.frames + of_rival.lag - own.lag
                lines["rival"] = Curve(frames[frames >= 0], of_rival.output[frames >= 0], 1)
            lines["source"] = Curve(own.frames, own.source, 1)
            plot = self._over_sound(run, item, lines)
            plots.append(CurvesPlot(name, metric_card(metric).compare[1], own.lag, plot))
        return plots

    def heatmap(self, run: ReportRun, item: str, metric: str) -> str:
        """Draw where an output's correlation with its source breaks; return the picture's name.

        Raises SpfemBenchError when a clip, or the stored comparison, is not here.
        """
        from spfem_bench.features.pair_extract import PairExtractor, stored_stages
        from spfem_bench.reporting.heatmaps import Scored, save_heatmap

        clip, request = self._requests(run, item, metric)[0]
        if not isinstance(request, PairRequest):
            raise ClipError(f"{metric} compares no clip with its source", "Draw no heat-map of it")
        key = f"{run.record.profile}/{run.faces}/{run.record.environment.device}"
        scorer = self._scorers.setdefault(key, PairExtractor(self._extractor(run)))
        arrays = scorer.load(clip, request)
        if arrays is None:
            raise ClipError("the comparison of this run is not stored here", _SAME)
        pair = [Unchanged.since(request.other), Unchanged.since(clip)]
        name = _name("picture", scorer.key(clip, request))
        if not self._have(name):
            rows = arrays["rows"]
            x, y = scorer.crops(request.other), scorer.crops(clip)
            for unchanged in pair:
                unchanged.check()
            scored, path = Scored("", arrays, stored_stages(arrays)), inside(self.made, name)
            save_heatmap(scored, x.pictures[rows[:, 1]], y.pictures[rows[:, 0]], path)
        return name


def clip_sound(clip: Clip) -> npt.NDArray[np.int16]:
    """Return a clip's sound as networks get it, edited; empty when it has none.

    Raises ClipError when the sound is damaged.
    """
    bare = replace(clip, edit=None)
    silent = np.zeros(0, np.int16)
    if bare.audio is None and (bare.path.is_dir() or not headers.probe(bare.path).has_audio):
        return silent
    return np.asarray(edits.edited_sound(audio.samples(bare), clip), np.int16)


def peaks(samples: npt.NDArray[np.int16]) -> npt.NDArray[np.float64]:
    """Return the loudest of each part of the sound, 0 to 1 of the loudest of all."""
    if not len(samples):
        return np.zeros(0)
    loud = np.abs(samples.astype(np.float64))
    parts = np.array([part.max() for part in np.array_split(loud, min(PEAKS, len(loud)))])
    return np.asarray(parts / max(parts.max(), 1.0))


def _fitted(frames: Iterator[Frame]) -> Iterator[Frame]:
    """Make frames no higher than allowed, with even sides."""
    cv2 = opencv()
    for frame in frames:
        height, width = frame.shape[:2]
        share = min(1.0, TALLEST / height)
        size = (max(2, round(width * share / 2) * 2), max(2, round(height * share / 2) * 2))
        if size != (width, height):
            frame = np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA))
        yield frame


def _name(kind: str, made_of: Any) -> str:
    text = json.dumps([kind, made_of], sort_keys=True)
    return f"media/{hashlib.sha256(text.encode()).hexdigest()[:32]}{ENDS[kind]}"
