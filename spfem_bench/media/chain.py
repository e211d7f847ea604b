"""The round trips between a clip and SyncNet in the field's scripts.

They are the ffmpeg commands of joonson's syncnet_python, with one thread for fixed bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from spfem_bench.definitions.clips import Clip, Span
from spfem_bench.definitions.networks import SyncChain
from spfem_bench.errors import ClipError
from spfem_bench.files import temporary_folder
from spfem_bench.media import ffmpeg, video
from spfem_bench.media.audio import sound_file
from spfem_bench.media.ffmpeg_process import decoding
from spfem_bench.media.headers import probe, sized
from spfem_bench.media.packets import stream_times
from spfem_bench.media.video import FRAME_RATE, Frame


def chain_libraries(chain: SyncChain | None) -> frozenset[str]:
    """Return the modules beside ffmpeg in a chain: OpenCV reads JPEGs and writes crops' video."""
    plain = chain is None or (chain.frames == "decoded" and chain.crops == "as-cut")
    return frozenset() if plain else frozenset({"cv2"})


@dataclass(frozen=True)
class Carried:
    """A clip, its sound, and a folder for files, after the steps before face detection."""

    frames: Clip
    sound: Clip
    folder: Path


@contextmanager
def carried(clip: Clip, chain: SyncChain) -> Iterator[Carried]:
    """Yield a clip without an edit after a chain's steps before face detection.

    Its files are removed when the block is left. Raises ClipError where a step cannot read it.
    """
    frames = sound = clip
    with temporary_folder() as folder:
        if chain.avi != "none":
            avi = Clip(folder / "video.avi")
            _write_avi(clip, avi.path, lossless=chain.avi == "lossless")
            # ffmpeg repeats pictures at the end where they begin after the sound, or are fewer
            # than 25 a second. The scripts use as many as their search for scenes counts: those
            # in the file.
            count = stream_times(avi.path)["video"].packets
            frames = replace(avi, span=Span(0, count / FRAME_RATE))
            sound = avi if chain.sound == "avi" else clip
        if chain.frames == "jpeg":
            # run_pipeline.py: ffmpeg -i video.avi -qscale:v 2 -threads 1 -f image2 %06d.jpg
            if chain.avi == "none":
                frames = _jpegs(clip, folder / "frames", {"q:v": 2}, timed=True)
            else:
                frames = _jpegs(avi, folder / "frames", {"q:v": 2})
                frames = replace(frames, pictures=(0, count))
        yield Carried(frames, sound, folder)


def _write_avi(clip: Clip, path: Path, *, lossless: bool) -> None:
    """Run ``ffmpeg -i CLIP -qscale:v 2 -async 1 -r 25 video.avi``; its sound moves the pictures."""
    import ffmpeg as graph

    pictures, stdin = video.cropped_stream(clip)
    source = sound_file(clip)
    index = str(probe(source).chosen("audio"))
    codec = {"vcodec": "ffv1"} if lossless else {"vcodec": "mpeg4", "q:v": 2}
    with sized(source) as file:
        # A new graph for a new channel layout would begin with silence again: an error instead.
        sound = ffmpeg.local_input(file, threads=1, **{"reinit_filter:a": 0})[index]
        sound = sound.filter("aresample", **{"async": 1, "first_pts": 0})
        lead = clip.skip / video.own_rate(clip) if clip.skip else 0
        if clip.span:
            start, end = (n / FRAME_RATE for n in video.span_frames(clip.span))
            pictures = pictures.filter("trim", start=start, end=end)
            pictures = pictures.filter("setpts", "PTS-STARTPTS")
            sound = sound.filter("atrim", start=start + lead, end=end + lead)
            sound = sound.filter("asetpts", "PTS-STARTPTS")
        elif lead:
            sound = sound.filter("atrim", start=lead).filter("asetpts", "PTS-STARTPTS")
        coding = {"r": FRAME_RATE, "acodec": "libmp3lame", "threads": 1, **codec}
        output = graph.output(pictures, sound, str(path), **coding)
        with decoding(output, clip.path, stdin, patience=ffmpeg.LONGEST):
            pass


def _jpegs(clip: Clip, folder: Path, options: dict[str, Any], *, timed: bool = False) -> Clip:
    """Write frames as JPEGs into a new folder, all or 25 a second; return it as a clip."""
    folder.mkdir()
    pictures, stdin = video.cropped_stream(clip)
    if timed:
        pictures = video.timed_stream(pictures, clip)
    output = pictures.output(str(folder / "%06d.jpg"), format="image2", threads=1, **options)
    with decoding(output, clip.path, stdin, patience=ffmpeg.LONGEST):
        pass
    return Clip(folder, frame_rate=FRAME_RATE)


class CropVideo:
    """One run of crops, written as a video and read again; raises ClipError where OpenCV cannot.

    It is written by OpenCV's VideoWriter with the tag XVID (``run_pipeline.py``), and read by
    ``ffmpeg -i crop.avi -threads 1 -f image2 %06d.jpg`` (``SyncNetInstance.py``).
    """

    def __init__(
        self, folder: Path, crops: Literal["xvid", "xvid-jpeg"], first: int, size: int
    ) -> None:
        import cv2

        self.path, self.crops = folder / f"{first:06d}.avi", crops
        self.indices: list[int] = []
        tag = cv2.VideoWriter.fourcc(*"XVID")
        self._writer = cv2.VideoWriter(str(self.path), cv2.CAP_FFMPEG, tag, FRAME_RATE, (size,) * 2)
        if not self._writer.isOpened():
            problem = "OpenCV cannot write MPEG-4 video"
            raise ClipError(problem, "Type: pip install --force-reinstall opencv-python-headless")

    def add(self, index: int, crop: Frame) -> None:
        """Write the next crop, uint8 (size, size, 3), RGB."""
        self.indices.append(index)
        self._writer.write(crop[:, :, ::-1].copy())

    def read(self) -> Iterator[tuple[int, Frame]]:
        """Yield the crops as decoded again, with their indices."""
        self._writer.release()
        clip = Clip(self.path)
        if self.crops == "xvid-jpeg":
            clip = _jpegs(clip, self.path.with_suffix(""), {})
        yield from zip(self.indices, video.frames(clip), strict=True)
