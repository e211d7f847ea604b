"""Any videos as NED's ``faces_aligned``: 256-pixel aligned faces on black, sound beside.

A tree is ``SPEAKER/EMOTION/faces_aligned/000000.png``, the clips of a cell one after another by
name, with ``SPEAKER/EMOTION/videos/CLIP.wav`` and ``CLIP.txt``, which states the number of frames.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from spfem_bench.datasets.ned_inputs import NedInput
from spfem_bench.datasets.ned_record import (
    CLIPS_LIST,
    FORMAT,
    PreparedClip,
    PreparedTree,
    prepared_tree,
)
from spfem_bench.definitions.networks import LandmarksInput, ProfileCard
from spfem_bench.errors import CardError, ClipError, StorageError
from spfem_bench.faces import ned, steady
from spfem_bench.faces.detect import Detector, load_detector
from spfem_bench.faces.ned import FacePoints
from spfem_bench.faces.track import FaceTrack, follow
from spfem_bench.files import check_writable, inside, temporary_folder, write_atomically
from spfem_bench.media import ffmpeg
from spfem_bench.media.video import Frame, Unchanged, content_id, frames, own_rate
from spfem_bench.media.write import write_sound
from spfem_bench.networks.load import load_network, network_libraries
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import SILENT, Progress
from spfem_bench.provenance import versions

FACES, VIDEOS = "faces_aligned", "videos"
RATE = 30.0
"""Pictures a second that the papers' metrics take each folder for."""

SMALL, TINY = 128, 32
"""Pixels of a face box's height: below the first a face is enlarged much, below the other blurred.
"""


@dataclass(frozen=True)
class Prepared:
    """One picture: as cut out, its landmarks, its mask there (None without), and as aligned."""

    picture: Frame
    points: FacePoints
    mask: npt.NDArray[np.uint8] | None
    face: Frame


class NedFaces:
    """Makes NED's aligned faces with the detector and the landmark network of a profile."""

    def __init__(self, profile: ProfileCard, weights: WeightsStore, *, masked: bool = True) -> None:
        self.masked, self._follow = masked, profile.follow()
        cards = [profile.network("detector"), profile.network("landmarks")]
        contract = cards[1].input
        if not isinstance(contract, LandmarksInput) or cards[1].outputs.get("points") != 196:
            problem = f"the landmarks of '{cards[1].name}' are not WFLW's 98 points"
            raise CardError(problem, "Use a profile whose landmarks are pfld-ghostone: light")
        self._input = contract
        self._detector: Detector = load_detector(cards[0], weights)
        crops = load_network(cards[1], weights)["crops"]
        self._find: steady.LandmarkFunction = lambda batch: crops(batch)["points"]
        libraries = {"numpy", "scipy", "cv2", "PIL"} | network_libraries(cards[0])
        libraries |= network_libraries(cards[1])
        self.settings: dict[str, Any] = {
            "faces": "approximated from NED's preprocessing",
            "format": FORMAT,
            "mask": {
                "forehead": ned.FOREHEAD,
                "arch": ned.ARCH,
                "erosion": ned.EROSION,
                "kept": ned.KEPT,
            }
            if masked
            else None,
            "margin": ned.MARGIN,
            "box_window": steady.BOX_WINDOW,
            "square_window": steady.SQUARE_WINDOW,
            "points_window": steady.POINTS_WINDOW,
            "points_order": steady.POINTS_ORDER,
            "follow": self._follow.settings(),
            "detector": cards[0].settings(),
            "landmarks": cards[1].settings(),
            "software": {**versions(libraries), "ffmpeg": ffmpeg.version()},
        }

    def track(self, one: NedInput) -> FaceTrack:
        """Return where the subject is in each picture; raise ClipError where none is followed."""
        track = FaceTrack()
        pictures = frames(one.clip, own=True)
        for _ in follow(((p, self._detector(p)) for p in pictures), self._follow, track):
            pass
        track.check(one.clip, self._follow)
        if (height := _height(track)) < TINY:
            problem = f"{one.clip}: the face is {height:.0f} pixels high"
            raise ClipError(problem, f"At least {TINY} are needed, and 186 are as NED has it")
        return track

    def pictures(self, one: NedInput, track: FaceTrack) -> Iterator[Prepared]:
        """Yield each picture of a video, prepared."""
        boxes = steady.filled_boxes(track)
        where = steady.places(boxes)
        known = [face is not None for face in track.faces]
        with temporary_folder() as folder:
            shape = (len(where), ned.SIZE, ned.SIZE, 3)
            cut = np.memmap(folder / "pictures", np.uint8, "w+", shape=shape)
            for i, (frame, place) in enumerate(zip(frames(one.clip, own=True), where, strict=True)):
                cut[i] = steady.cut_picture(frame, place)
            each = steady.all_points(iter(cut), where, boxes, known, self._input, self._find)
            for picture, points in zip(cut, each, strict=True):
                mask = ned.face_mask(points) if self.masked else None
                face, _ = ned.aligned_face(np.array(picture), points, mask)
                yield Prepared(np.array(picture), points, mask, face)
            del cut


def _height(track: FaceTrack) -> float:
    """Return the median height of a subject's box."""
    boxes = steady.filled_boxes(track)
    return float(np.median(boxes[:, 3] - boxes[:, 1]))


@dataclass
class Outcome:
    """What a run has made: clips and frames written now, and clips that were complete before."""

    clips: int = 0
    frames: int = 0
    complete: int = 0
    guessed: int = 0  # frames without a face of their own


@dataclass(frozen=True)
class _Run:
    """One call of :func:`prepare_ned_faces`."""

    root: Path
    tree: PreparedTree
    faces: NedFaces
    progress: Progress
    remark: Callable[[str], None]


def prepare_ned_faces(
    inputs: Sequence[NedInput],
    root: Path,
    faces: NedFaces,
    progress: Progress = SILENT,
    remark: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Write the aligned faces of videos into a tree; go on where an earlier run was stopped.

    A clip whose pictures are there is left alone. Where a clip cannot be prepared, the rest of its
    cell waits, since pictures of a cell are numbered one after another; other cells go on.

    Raises:
        StorageError: the tree was prepared with other settings, or holds pictures of others.
        ClipError: clips that could not be prepared, after all others were.
    """
    tree = _open_tree(root, faces.settings)
    cells = {cell: list(ones) for cell, ones in groupby(inputs, key=lambda one: one.cell)}
    for cell in cells:
        _check_own(root, cell, tree)
    tree.write(root)
    run = _Run(root, tree, faces, progress, remark)
    progress.begin("clips", len(inputs), "clip")
    outcome = Outcome()
    failed: list[tuple[str, ClipError]] = []
    for cell, ones in cells.items():
        try:
            _prepare_cell(run, cell, ones, outcome)
        except ClipError as error:
            failed.append((cell, error))
            if len(cells) > 1:
                remark(f"{cell} is not complete: {error}")
    progress.end("clips")
    if failed:
        first = failed[0][1]
        if len(cells) == 1:
            raise first
        names = ", ".join(cell for cell, _ in failed)
        problem = f"{len(failed)} of {len(cells)} cells are not complete ({names}): {first.problem}"
        raise ClipError(problem, f"{first.remedy}; then run the command again")
    return outcome


def _open_tree(root: Path, settings: dict[str, Any]) -> PreparedTree:
    check_writable(root)
    tree = prepared_tree(root)
    if tree is None:
        return PreparedTree(settings, listed=not (root / CLIPS_LIST).exists())
    if tree.settings != settings:
        differ = [k for k in settings if tree.settings.get(k) != settings[k]]
        differ += [k for k in tree.settings if k not in settings]
        problem = f"{root} was prepared with other settings ({', '.join(differ)})"
        raise StorageError(problem, "Name another folder with -o, or remove that one")
    return tree


def _check_own(root: Path, cell: str, tree: PreparedTree) -> None:
    """Raise StorageError for pictures that another program has made; claim the cell."""
    folder = inside(root, f"{cell}/{FACES}")
    if cell not in tree.cells and folder.is_dir() and any(folder.iterdir()):
        problem = f"{folder} holds files that this command has not written"
        raise StorageError(problem, "Name another folder with -o, or move them away")
    if cell not in tree.cells:
        tree.cells.append(cell)


def _prepare_cell(run: _Run, cell: str, ones: Sequence[NedInput], outcome: Outcome) -> None:
    root, tree = run.root, run.tree
    earlier = {c.clip: c for c in tree.of_cell(cell)}
    dropped = earlier.keys() - {one.name for one in ones}
    if dropped:
        problem = f"{root / cell} holds clips that are not given: {', '.join(sorted(dropped))}"
        raise ClipError(problem, "Give all videos of a speaker and emotion in one command")
    first = 0
    for one in ones:
        unchanged = Unchanged.since(one.clip)
        content = content_id(one.clip)
        before = earlier.get(one.name)
        same = before and (before.first, before.content) == (first, content)
        if before and same and _is_whole(root / cell / FACES, before):
            first += before.frames
            outcome.complete += 1
            run.progress.advance("clips")
            continue
        # What follows in the cell moves on or is made anew.
        tree.clips = [c for c in tree.clips if c.cell != cell or c.first < first]
        tree.write(root)
        done = _prepare_clip(run, one, first, content)
        unchanged.check()
        tree.clips.append(done)
        tree.write(root)
        first += done.frames
        outcome.clips += 1
        outcome.frames += done.frames
        outcome.guessed += done.guessed
        run.progress.advance("clips")
    for path in (root / cell / FACES).iterdir():
        if path.suffix == ".png" and path.stem.isdigit() and int(path.stem) >= first:
            path.unlink()  # of a longer clip in an earlier run


def _is_whole(folder: Path, clip: PreparedClip) -> bool:
    numbers = range(clip.first, clip.first + clip.frames)
    return all((folder / f"{number:06d}.png").is_file() for number in numbers)


def _prepare_clip(run: _Run, one: NedInput, first: int, content: str) -> PreparedClip:
    import cv2

    root, faces, progress = run.root, run.faces, run.progress
    track = faces.track(one)
    guessed = len(track.detected) - sum(track.detected)
    rate = round(own_rate(one.clip), 1)
    folder, videos = root / one.cell / FACES, root / one.cell / VIDEOS
    folder.mkdir(parents=True, exist_ok=True)
    videos.mkdir(parents=True, exist_ok=True)
    count = 0
    progress.begin("frames", len(track.faces), "frame")
    with temporary_folder(folder.parent) as new:
        for count, prepared in enumerate(faces.pictures(one, track), start=1):
            _, png = cv2.imencode(".png", np.ascontiguousarray(prepared.face[:, :, ::-1]))
            (new / f"{first + count - 1:06d}.png").write_bytes(png.tobytes())
            progress.advance("frames")
        if one.sound is not None:
            write_sound(one.sound, new / "sound.wav")
            if one.sound.resolve() != (sound := videos / f"{one.name}.wav").resolve():
                os.replace(new / "sound.wav", sound)  # noqa: PTH105  (replaces on every system)
        for number in range(first, first + count):
            name = f"{number:06d}.png"
            os.replace(new / name, folder / name)  # noqa: PTH105  (replaces on every system)
    progress.end("frames")
    info = videos / f"{one.name}.txt"  # NED's own --save_videos_info begins with this line
    write_atomically(info, f"{one.name} {rate:g} fps {count} frames\n")
    _say(one, rate, guessed, count, _height(track), run.remark)
    of_clip = (one.speaker, one.emotion, one.name, first, count, rate)
    return PreparedClip(*of_clip, one.sound is not None, content, guessed)


def _say(
    one: NedInput,
    rate: float,
    guessed: int,
    count: int,
    height: float,
    remark: Callable[[str], None],
) -> None:
    """Report what is odd about a clip."""
    if abs(rate - RATE) > 0.05:
        remark(f"{one.clip}: {rate:g} pictures a second; the papers take them for {RATE:g}")
    if guessed:
        remark(f"{one.clip}: {guessed} of {count} frames have no face of their own; interpolated")
    if one.sound is None:
        remark(f"{one.clip}: has no sound; LSE-D and LSE-C cannot be computed")
    if height < SMALL:
        remark(f"{one.clip}: the face is {height:.0f} pixels high, and 186 when enlarged")
