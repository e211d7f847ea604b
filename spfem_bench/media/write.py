"""Frames and sound into a clip: H.264 in mp4, with FLAC, or with AAC for browsers."""

from __future__ import annotations

import math
import wave
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from spfem_bench.errors import ClipError
from spfem_bench.files import temporary_folder, write_atomically
from spfem_bench.media.audio import SAMPLE_RATE
from spfem_bench.media.ffmpeg import local_input, raw_input
from spfem_bench.media.ffmpeg_process import decoding
from spfem_bench.media.headers import no_sound, probe, sized
from spfem_bench.media.video import FRAME_RATE, Frame

QUALITY = 10
"""H.264's constant rate factor: no visible loss, a tenth of the bytes."""


def write_clip(
    path: Path,
    frames: Iterable[Frame],
    samples: npt.NDArray[np.int16],
    *,
    sound_codec: Literal["flac", "aac"] = "flac",
    quality: int = QUALITY,
) -> None:
    """Write a clip, whole or not at all; the same input gives the same bytes with one ffmpeg.

    Args:
        path: an mp4 file; its folder is made.
        frames: uint8 (height, width, 3), RGB, even sides, all of one size, 25 a second.
        samples: int16 (N,), 16 kHz; sample 0 belongs to frame 0. With AAC there may be none.
        sound_codec: ``flac`` loses nothing; ``aac`` is what every browser plays.
        quality: H.264's constant rate factor; larger is smaller and worse.

    Raises:
        StorageError: the folder cannot be written, or the disk is full.
        ClipError: ffmpeg refuses the frames.
    """
    import ffmpeg as graph

    pictures = iter(frames)
    first = next(pictures, None)
    if first is None:
        raise ClipError(f"{path}: no frame to write", "Give at least one")
    height, width = first.shape[:2]

    def raw() -> Iterable[bytes]:
        yield first.tobytes()
        for picture in pictures:
            if picture.shape != first.shape:
                raise ClipError(f"{path}: frames of two sizes", "Give all frames in one size")
            yield picture.tobytes()

    with temporary_folder() as folder:
        sound, clip = folder / "sound.wav", folder / "clip.mp4"
        # strict -2: to ffmpeg 4, FLAC in mp4 is an experiment.
        coding: dict[str, Any] = {"acodec": "flac", "strict": -2}
        if sound_codec == "aac":
            coding = {"acodec": "aac", "audio_bitrate": "64k", "g": FRAME_RATE}
        with wave.open(str(sound), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLE_RATE)
            file.writeframes(np.asarray(samples, "<i2").tobytes())
        video = raw_input("rgb24", (width, height), FRAME_RATE)
        video = video.filter("scale", flags="bicubic+accurate_rnd+full_chroma_int+bitexact")
        inputs = [video, local_input(sound)] if len(samples) or sound_codec == "flac" else [video]
        coding |= {"vcodec": "libx264", "crf": quality, "preset": "veryfast", "pix_fmt": "yuv420p"}
        # One thread and no dates or versions inside: the bytes depend on the input only.
        coding |= {"threads": 1, "movflags": "faststart", "map_metadata": -1}
        coding |= dict.fromkeys(("fflags", "flags:v", "flags:a"), "+bitexact")
        node = graph.output(*inputs, str(clip), **coding)
        # No timeout: frames are made while they are written.
        with decoding(node, path, iter(raw()), patience=math.inf):
            pass
        write_atomically(path, clip.read_bytes())


def write_sound(source: Path, target: Path) -> None:
    """Write a file's sound as WAV of 16 bits, its rate and channels kept; ClipError without any.

    It begins where the file's sound begins; the file's own times are not applied.
    """
    info = probe(source)
    if not info.has_audio:
        raise no_sound(source)
    with sized(source) as file:
        stream = local_input(file, threads=1)[str(info.chosen("audio"))]
        exact = {"map_metadata": -1, "fflags": "+bitexact", "flags:a": "+bitexact"}
        node = stream.output(f"file:{target}", format="wav", acodec="pcm_s16le", **exact)
        node = node.overwrite_output()
        with decoding(node, source, pixels=0) as pipe:
            pipe.read()
