"""The round trips that the field's scripts send a clip through before SyncNet sees it.

joonson's syncnet_python (``run_pipeline.py``, ``SyncNetInstance.py``) writes a clip as an AVI of
MPEG-4 and MP3 at 25 frames a second, its frames as JPEGs, the crops as another AVI, and that
one's frames as JPEGs. Here its ffmpeg commands are run with the same options, each step only
if the card asks for it, but for one: encoders have one thread. ffmpeg's own choice, a thread
for each processor core, gives other bytes on another machine.

All files lie in a temporary folder, which is removed also after an error.
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
from spfem_bench.media import audio, ffmpeg, video
from spfem_bench.media.video import FRAME_RATE, Frame


def libraries(chain: SyncChain | None) -> frozenset[str]:
    """Return the modules beside ffmpeg in a chain: OpenCV reads JPEGs and writes crops' video."""
    plain = chain is None or (chain.frames == "decoded" and chain.crops == "as-cut")
    return frozenset() if plain else frozenset({"cv2"})


@dataclass(frozen=True)
class Carried:
    """A clip after the steps that come before faces are searched.

    Attributes:
        seen: its frames: the clip itself, an AVI, or a folder of JPEGs.
        heard: its sound: the clip itself, or the AVI.
        folder: for the files of later steps.
    """

    seen: Clip
    heard: Clip
    folder: Path


@contextmanager
def carried(clip: Clip, chain: SyncChain) -> Iterator[Carried]:
    """Send a clip through the steps that its frames and sound take before faces are searched.

    Args:
        clip: any clip, without an edit; its crop and span are cut out first.
        chain: which steps are taken.

    Yields:
        where the outcome lies, until the block is left.

    Raises:
        ClipError: unreadable, without video, or without the sound that is asked for.
    """
    seen = heard = clip
    with temporary_folder() as folder:
        if chain.avi != "none":
            avi = Clip(folder / "video.avi")
            _write_avi(clip, avi.path, lossless=chain.avi == "lossless")
            # Where the pictures begin after the sound, or the clip has fewer than 25 a second, some
            # are read twice. The scripts use as many as there are different ones, from the first:
            # their search for scenes counts these.
            count = ffmpeg.timing(avi.path)["video"].packets
            seen = replace(avi, span=Span(0, count / FRAME_RATE))
            heard = avi if chain.sound == "avi" else clip
        if chain.frames == "jpeg":
            # run_pipeline.py: ffmpeg -i video.avi -qscale:v 2 -threads 1 -f image2 %06d.jpg
            if chain.avi == "none":
                seen = _jpegs(clip, folder / "frames", {"q:v": 2}, timed=True)
            else:
                seen = _jpegs(avi, folder / "frames", {"q:v": 2})
                seen = replace(seen, pictures=(0, count))
        yield Carried(seen, heard, folder)


def _write_avi(clip: Clip, path: Path, *, lossless: bool) -> None:
    """Run ``ffmpeg -i CLIP -qscale:v 2 -async 1 -r 25 video.avi`` (``run_pipeline.py``).

    The codecs named are those that ffmpeg takes for an AVI, and the sound's filter is what
    ``-async 1`` stands for. The sound is in the file whether it is used or not: what goes before
    its first sample moves the pictures.
    """
    import ffmpeg as graph

    pictures, stdin = video.cropped(clip)
    heard = audio.source(clip)
    index = str(ffmpeg.probe(heard).chosen("audio"))
    codec = {"vcodec": "ffv1"} if lossless else {"vcodec": "mpeg4", "q:v": 2}
    with ffmpeg.sized(heard) as file:
        # A new graph for a new channel layout would begin with silence again: refused instead.
        sound = ffmpeg.local_input(file, threads=1, **{"reinit_filter:a": 0})[index]
        sound = sound.filter("aresample", **{"async": 1, "first_pts": 0})
        if clip.span:
            start, end = (n / FRAME_RATE for n in video.span_frames(clip.span))
            pictures = pictures.filter("trim", start=start, end=end)
            pictures = pictures.filter("setpts", "PTS-STARTPTS")
            sound = sound.filter("atrim", start=start, end=end).filter("asetpts", "PTS-STARTPTS")
        output = graph.output(
            pictures, sound, str(path), r=FRAME_RATE, acodec="libmp3lame", threads=1, **codec
        )
        with ffmpeg.decoding(output, clip.path, stdin, patience=ffmpeg.LONGEST):
            pass


def _jpegs(clip: Clip, folder: Path, options: dict[str, Any], *, timed: bool = False) -> Clip:
    """Write frames as JPEGs into a new folder, all or 25 a second; return it as a clip."""
    folder.mkdir()
    pictures, stdin = video.cropped(clip)
    if timed:
        pictures = video.timed(pictures, clip)
    output = pictures.output(str(folder / "%06d.jpg"), format="image2", threads=1, **options)
    with ffmpeg.decoding(output, clip.path, stdin, patience=ffmpeg.LONGEST):
        pass
    return Clip(folder, frame_rate=FRAME_RATE)


class CropVideo:
    """One run of crops, written as a video and read again.

    ``run_pipeline.py`` writes it by OpenCV's VideoWriter with the tag XVID;
    ``SyncNetInstance.py`` reads it by ``ffmpeg -i crop.avi -threads 1 -f image2 %06d.jpg``.

    Args:
        folder: where the files go, which are removed when all is read.
        crops: whether JPEGs are made of the video's frames.
        size: side of the crops in pixels.

    Raises:
        ClipError: this OpenCV cannot write such a file.
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
            raise ClipError(
                "OpenCV cannot write MPEG-4 video",
                "Type: pip install --force-reinstall opencv-python-headless",
            )

    def add(self, index: int, crop: Frame) -> None:
        """Write the next crop, uint8 (size, size, 3), RGB."""
        self.indices.append(index)
        self._writer.write(crop[:, :, ::-1].copy())

    def read(self) -> Iterator[tuple[int, Frame]]:
        """Yield what has become of the crops, with their indices."""
        self._writer.release()
        clip = Clip(self.path)
        if self.crops == "xvid-jpeg":
            clip = _jpegs(clip, self.path.with_suffix(""), {})
        yield from zip(self.indices, video.frames(clip), strict=True)
