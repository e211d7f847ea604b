"""Files as people have them, composed from a list, and whether picture and sound stay together.

    python -m benchmarks.containers [--seed 0] [--count 0] [--only NUMBER]

Each picture carries its number as blocks of black and white, and the sound is a noise that is
like itself at no other moment: what is shown and heard when is read off what comes out, without a
network. A case is *right* when every frame shows the picture of its moment, and every tenth of a
second of sound stands within 2 ms of where it belongs (in an AVI within 10 ms: it does not
keep an encoder's delay). It may be *refused*, with one of the package's errors. Anything else is
*wrong*, and then the exit status is 1. ``--count`` draws that many cases, 0 takes all.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import wave
from collections import Counter
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import ClipError
from spfem_bench.media import audio, ffmpeg, video

SECONDS, SIDE, BITS = 2.4, 64, 8

RATES = ("25", "30", "24", "30000/1001", "50", "60", "12.5", "variable")
"""Pictures a second; *variable*: 25 a second, after the twentieth one every 0.12 s."""

PICTURES = {
    "h264": ("-c:v", "libx264", "-bf", "0"),
    "h264 with B-frames": ("-c:v", "libx264", "-bf", "2"),
    "mpeg4": ("-c:v", "mpeg4", "-q:v", "2"),
    "mpeg4 with B-frames": ("-c:v", "mpeg4", "-q:v", "2", "-bf", "2"),
    "vp8": ("-c:v", "libvpx", "-b:v", "1M", "-deadline", "realtime"),
    "mjpeg": ("-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj420p"),
}

SOUNDS = {
    "aac": ("-c:a", "aac", "-b:a", "128k"),
    "mp3": ("-c:a", "libmp3lame", "-b:a", "128k"),
    "opus": ("-c:a", "libopus", "-b:a", "96k"),
    "vorbis": ("-c:a", "libvorbis", "-b:a", "96k"),
    "flac": ("-c:a", "flac", "-strict", "-2"),
    "ac3": ("-c:a", "ac3", "-b:a", "192k"),
    "pcm": ("-c:a", "pcm_s16le"),
}

CONTAINERS = {
    "mp4": ("mp4", (), ("h264", "h264 with B-frames", "mpeg4"), ("aac", "mp3", "flac", "ac3")),
    "mp4 in fragments": (
        "mp4",
        ("-movflags", "frag_keyframe+delay_moov+default_base_moof"),
        ("h264", "h264 with B-frames"),
        ("aac", "opus", "flac"),
    ),
    "mp4 as a stream": (
        "mp4",
        ("-movflags", "frag_keyframe+empty_moov+default_base_moof"),
        ("h264", "h264 with B-frames"),
        ("aac", "flac"),
    ),
    "mp4 without edit list": ("mp4", ("-use_editlist", "0"), ("h264",), ("flac", "ac3")),
    "mov": ("mov", (), ("h264", "h264 with B-frames", "mjpeg"), ("aac", "pcm", "ac3")),
    "mkv": (
        "mkv",
        (),
        ("h264", "h264 with B-frames", "mpeg4 with B-frames", "mjpeg"),
        ("aac", "opus", "vorbis", "flac", "ac3", "pcm"),
    ),
    "webm": ("webm", (), ("vp8",), ("opus", "vorbis")),
    "flv": ("flv", (), ("h264", "h264 with B-frames"), ("aac", "mp3")),
    "avi": ("avi", (), ("h264", "h264 with B-frames", "mpeg4", "mjpeg"), ("ac3", "pcm")),
}
"""By name: the suffix, options of the muxer, and the codecs to try."""

STARTS = ((0.0, 0.0), (0.019, 0.0), (0.032, 0.0), (0.4, 0.0), (0.0, 0.027), (0.0, 0.5), (1.0, 1.0))
"""Seconds by which the picture and the sound begin late, the rest of each in its place."""

GAPS = ("", "one packet", "five packets")

HISTORIES = ("direct", "cut", "through MPEG-TS", "through Matroska")
"""What happens to the file before: *cut*: its first half second is cut off without decoding."""

CHANNELS = ((1, 16_000), (2, 44_100), (6, 48_000), (2, 48_000), (1, 22_050))


@dataclass(frozen=True)
class Case:
    """One composition."""

    container: str
    picture: str
    sound: str
    rate: str
    start: tuple[float, float]
    gap: str
    history: str
    channels: tuple[int, int]

    def __str__(self) -> str:
        return (
            f"{self.container}, {self.picture} at {self.rate}, {self.sound} of {self.channels[0]} "
            f"channels at {self.channels[1]} Hz, starts {self.start}, gap '{self.gap}', "
            f"{self.history}"
        )


def cases(seed: int, each: int = 6) -> list[Case]:
    """Return compositions: each triple of container and codecs with *each* draws of the rest."""
    rng = random.Random(seed)
    found: list[Case] = []
    for name, (_, _, pictures, sounds) in CONTAINERS.items():
        for picture, sound in product(pictures, sounds):
            for _ in range(each):
                channels = (rng.choice([1, 2]), 48_000) if sound == "opus" else rng.choice(CHANNELS)
                if channels[0] == 6 and sound in ("mp3", "vorbis"):
                    channels = (2, 44_100)
                if channels[1] < 44_100 and (sound in ("ac3", "vorbis") or name == "flv"):
                    channels = (channels[0], 44_100)
                rate, start = rng.choice(RATES), rng.choice(STARTS)
                gap, history = rng.choice(GAPS), rng.choice(HISTORIES)
                if picture.startswith("mpeg4") and rate == "variable":
                    rate = "25"  # MPEG-4 in TS loses them
                if name == "mp4 without edit list":  # all begin at 0
                    start, history = (0.0, 0.0), "direct"
                if name == "avi":  # counts frames and samples: no place for any of these
                    channels = (channels[0], max(44_100, channels[1]))
                    rate = "25" if rate == "variable" else rate
                    start, gap, history = (0.0, 0.0), "", "direct"
                if sound == "pcm":  # no packets to lose
                    gap = ""
                if history == "through MPEG-TS" and (
                    sound not in ("aac", "mp3", "ac3", "opus") or picture in ("vp8", "mjpeg")
                ):
                    history = "through Matroska"
                found.append(Case(name, picture, sound, rate, start, gap, history, channels))
    return found


# ---- material ------------------------------------------------------------------------------


def times(rate: str) -> list[float]:
    """Return when each picture is shown, in seconds."""
    if rate == "variable":
        return [n / 25 if n < 20 else 0.8 + (n - 20) * 0.12 for n in range(33)]
    above, _, below = rate.partition("/")
    exact = float(above) / float(below or 1)
    return [n / exact for n in range(int(SECONDS * exact))]


def pictures(count: int) -> npt.NDArray[np.uint8]:
    """Return uint8 (count, SIDE, SIDE, 3): number n as 8 blocks, the lowest bit first."""
    bits = (np.arange(count)[:, None] >> np.arange(BITS)) & 1
    blocks = np.where(bits, 216, 40).astype(np.uint8).reshape(count, 2, BITS // 2)
    grey = blocks.repeat(SIDE // 2, axis=1).repeat(2 * SIDE // BITS, axis=2)
    return grey[..., None].repeat(3, axis=3)


def number(picture: npt.NDArray[np.uint8]) -> int:
    """Return the number that a picture shows, whatever its size."""
    rows, columns = np.array_split(picture.mean(axis=2), 2), range(BITS // 2)
    bits = []
    for row in rows:
        inner = row[len(row) // 4 : -len(row) // 4]
        for column in columns:
            block = np.array_split(inner, BITS // 2, axis=1)[column]
            edge = block.shape[1] // 4
            bits.append(int(block[:, edge:-edge].mean() > 128))
    return sum(bit << n for n, bit in enumerate(bits))


def sound(rate: int) -> npt.NDArray[np.float64]:
    """Return (SECONDS * rate,): noise between 300 and 3,400 Hz, the same at each rate, +-0.5."""
    rng = np.random.default_rng(0)
    spectrum = np.zeros(int(SECONDS * rate) // 2 + 1, complex)
    low, high = int(300 * SECONDS), int(3_400 * SECONDS)
    spectrum[low:high] = np.exp(2j * np.pi * rng.random(high - low))
    wave_form = np.fft.irfft(spectrum, int(SECONDS * rate))
    return np.asarray(0.5 * wave_form / np.abs(wave_form).max())


def write(case: Case, folder: Path) -> Path:
    """Write a case as a file."""
    suffix, muxing, _, _ = CONTAINERS[case.container]
    shown = times(case.rate)
    (folder / "pictures.rgb").write_bytes(pictures(len(shown)).tobytes())
    channels, rate = case.channels
    with wave.open(str(folder / "sound.wav"), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        samples = np.round(sound(rate) * 32_000 / max(1, channels / 2)).astype("<i2")
        out.writeframes(samples[:, None].repeat(channels, axis=1).tobytes())
    late, later = case.start
    steady = "25" if case.rate == "variable" else case.rate
    vary = "setpts='if(lt(N,20),N/25,0.8+(N-20)*0.12)/TB'" if case.rate == "variable" else "null"
    skip = ["-vf", f"{vary},select='gte(t,{late - 1e-4})'", "-fps_mode", "vfr"]
    hear = ["-af", f"atrim=start={later}"]
    # -copyts and vfr keep the time stamps of what is left, so that both stay in their places.
    kind = {"through MPEG-TS": "ts", "through Matroska": "mkv"}.get(case.history, suffix)
    first = folder / f"first.{kind}"
    lost = {"one packet": "eq(n\\,9)", "five packets": "between(n\\,9\\,13)"}.get(case.gap)
    lose = ["-bsf:a", f"noise=amount=0:drop={lost}"] if lost else []
    direct = case.history == "direct"
    run(
        "-copyts",
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-s",
        f"{SIDE}x{SIDE}",
        "-r",
        steady,
        "-i",
        folder / "pictures.rgb",
        "-i",
        folder / "sound.wav",
        "-map",
        "0:v",
        "-map",
        "1:a",
        *skip,
        *hear,
        "-pix_fmt",
        "yuv420p",
        "-g",
        "10",
        *PICTURES[case.picture],
        *SOUNDS[case.sound],
        *(lose if direct else []),
        *(muxing if kind == suffix else []),
        first,
    )
    if direct:
        return first
    path = folder / f"second.{suffix}"
    if kind == "ts" and case.sound == "aac":
        lose = ["-bsf:a", f"{lose[1]},aac_adtstoasc" if lose else "aac_adtstoasc"]
    run(
        *(["-ss", "0.53"] if case.history == "cut" else []),
        "-i",
        first,
        "-map",
        "0",
        "-c",
        "copy",
        *lose,
        *muxing,
        "-strict",
        "-2",
        path,
    )
    return path


def run(*arguments: object) -> None:
    """Run ffmpeg."""
    command = [ffmpeg.program(), "-v", "error", "-y", "-nostdin", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


# ---- what comes out ------------------------------------------------------------------------


def due(shown: list[float], moment: float) -> set[int]:
    """Return the pictures that may stand in a frame: the last up to half a frame later.

    Time stamps in milliseconds leave it open where that is within one of them.
    """
    return {
        max(0, sum(t < moment + 0.02 + slack for t in shown) - 1) for slack in (-0.0011, 0, 0.0011)
    }


def faults(
    clip: Clip, rate: str, first: float | None, allowed: float, gaps: int, *, held: bool = False
) -> str:
    """Return what is wrong with a clip's frames and sound; nothing when all is right.

    Args:
        clip: made of :func:`pictures` and :func:`sound`.
        rate: of :data:`RATES`.
        first: the moment at which its first picture is shown, in seconds; None where a cut decides.
        allowed: seconds by which sound may be early or late.
        gaps: tenths of a second that may be without the sound that belongs there.
        held: whether the file itself may show its first picture from an earlier moment on.

    Raises:
        ClipError: it is refused.
    """
    shown, found = times(rate), [number(f) for f in video.frames(clip)]
    heard = audio.samples(clip) / 32_768
    if max(found) >= len(shown):
        return f"shows picture {max(found)} of {len(shown)}"
    same = next((k for k, n in enumerate(found) if n != found[0]), len(found))
    problem = ""
    for early, (n, zero) in product(range(same if held else 1), enumerate(shown)):
        if found[0] - 2 <= n <= found[0] and (first is None or abs(zero - first) < 1e-6):
            problem = _misplaced(shown[n:], [f - n for f in found[early:]])
            problem = problem or _unheard(heard[early * 640 :], zero, allowed, gaps)
            if not problem:
                return ""
    return problem or f"begins with picture {found[0]}"


def _misplaced(shown: list[float], found: list[int]) -> str:
    shown = [t - shown[0] for t in shown]
    for k, n in enumerate(found):
        if n not in due(shown, k / 25):
            return f"frame {k} shows {n} in the place of {due(shown, k / 25)}"
    # The last one's own duration is not in every file.
    left = len(shown) - 1 - found[-1]
    return f"the last {left} pictures are not shown" if left > 2 else ""


def _unheard(heard: npt.NDArray[np.float64], zero: float, allowed: float, gaps: int) -> str:
    whole, reach, step = np.pad(sound(16_000), 8_000), 800, 1_600
    begin = 8_000 + round(zero * 16_000)
    power = np.sqrt(np.mean(heard**2))
    good, off = 0, 0.0
    expected = (len(whole) - 8_000 - begin) // step
    for place in range(0, min(len(heard) - step + 1, expected * step), step):
        piece = heard[place : place + step]
        around = whole[begin + place - reach : begin + place + step + reach]
        likeness = np.abs(np.correlate(around, piece, "valid"))
        best = int(likeness.argmax())
        energy = np.linalg.norm(piece) * np.linalg.norm(around[best : best + step])
        # Of a tenth with a gap in it, most must be there to be compared.
        if np.sqrt(np.mean(piece**2)) < 0.3 * power or likeness[best] < 0.7 * energy:
            continue
        good += 1
        off = max(off, abs(best - reach) / 16_000, key=abs)
    if off > allowed:
        return f"sound is off by up to {1000 * off:.1f} ms"
    return (
        f"only {good} of {expected} tenths of a second are heard" if good < expected - gaps else ""
    )


def verdict(case: Case, folder: Path) -> str:
    """Return ``right``, ``refused: …``, ``wrong: …``, or ``not made: …`` where ffmpeg cannot."""
    try:
        path = write(case, folder)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").splitlines() or [f"exit {error.returncode}"]
        return f"not made: {lines[-1][:90]}"
    # Sound that begins late or breaks off by the case, and a tenth at each edge of it.
    gaps = 2 + round(10 * case.start[1]) + (case.gap != "") * 2 + (case.gap == "five packets") * 4
    first = min(t for t in times(case.rate) if t >= case.start[0] - 1e-4)
    try:
        problem = faults(
            Clip(path),
            case.rate,
            None if case.history == "cut" else first,
            0.01 if case.container == "avi" else 0.002,
            gaps,
            held=case.container == "mp4 as a stream",  # its first picture is moved to 0
        )
    except ClipError as error:
        return f"refused: {error.problem.removeprefix(f'{path}: ')}"
    return f"wrong: {problem}" if problem else "right"


def main() -> None:
    """Try the cases and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--only", type=int, help="one case, by its number")
    given = parser.parse_args()
    chosen = list(enumerate(cases(given.seed)))
    if given.only is not None:
        chosen = [chosen[given.only]]
    elif given.count:
        chosen = random.Random(given.seed).sample(chosen, given.count)
    said: Counter[str] = Counter()
    rows: dict[str, Counter[str]] = {}
    for n, case in chosen:
        with tempfile.TemporaryDirectory() as folder:
            outcome = verdict(case, Path(folder))
        kind = outcome.split(":")[0]
        rows.setdefault(case.container, Counter())[kind] += 1
        said[kind] += 1
        if kind != "right":
            print(f"{n}: {case}: {outcome}", flush=True)
    kinds = ("right", "refused", "wrong", "not made")
    print(f"\n{'container':24}" + "".join(f"{k:>10}" for k in kinds))
    for name, row in [*rows.items(), ("all", said)]:
        print(f"{name:24}" + "".join(f"{row[k]:10}" for k in kinds))
    sys.exit(1 if said["wrong"] else 0)


if __name__ == "__main__":
    main()
