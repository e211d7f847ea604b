"""What benchmarks share: clips for both sides, cards of random networks, clocks, the machine.

Scripts that use it are started from the repository's folder: ``python -m benchmarks.NAME``.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import platform
import resource
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks.official_files import Files, det_10g, enet_b0, sfd_face, w600k_r50
from spfem_bench import provenance
from spfem_bench.definitions import cards
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import SyncInput, network_card, profile_card
from spfem_bench.faces.crop import SyncCropper
from spfem_bench.faces.track import Face, FaceTrack
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import audio, ffmpeg
from spfem_bench.media.mfcc import STEPS_PER_FRAME, WINDOW, mfcc, sound_windows
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.statistics import sync

# ---- networks with random weights ------------------------------------------------------------


def random_syncnet(clips: Iterable[Clip], seed: int) -> bytes:
    """Return random weights in the official file format, batch normalisation fitted to clips."""
    import torch

    from spfem_bench.networks.syncnet import SyncNet

    torch.manual_seed(seed)
    net = SyncNet().train()
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the mean over all batches
    light = profile_card("light")
    contract = light.network("sync").input
    assert isinstance(contract, SyncInput)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        x = Extractor(light, WeightsStore.locate(), FeatureStore(Path(folder)))
        for clip in clips:
            cropper, cuts = SyncCropper(contract), []
            for index, (frame, face) in enumerate(x.tracked_frames(clip, FaceTrack())):
                cuts += [cut for _, cut in cropper.push(index, frame, face)] if face else []
            video = np.stack(cuts)[..., ::-1].transpose(3, 0, 1, 2)  # BGR
            steps = mfcc(audio.samples(clip))
            count = min(video.shape[1], len(steps) // STEPS_PER_FRAME) - WINDOW
            sounds = torch.from_numpy(sound_windows(steps, count))
            for start in range(0, count - 15, 16):
                batch = np.stack([video[:, n : n + WINDOW] for n in range(start, start + 16)])
                net.visual(torch.from_numpy(batch.astype(np.float32)))
                net.audio(sounds[start : start + 16])
    stream = io.BytesIO()
    torch.save(net.state_dict(), stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def profiles(folder: Path, weights: bytes, chains: Mapping[str, Mapping[str, str]]) -> Path:
    """Write cards into a folder: for each name the profile ``light`` with SyncNet behind a chain.

    Returns:
        the folder that ``SPFEM_BENCH_CARDS`` has to name.
    """
    contract = network_card("syncnet-v2").path.read_text(encoding="utf-8").partition("[[files]]")[0]
    light = profile_card("light").path.read_text(encoding="utf-8")
    assert "syncnet-v2" in light
    networks, made = (folder / "cards" / "metrics" / kind for kind in ("networks", "profiles"))
    (networks / "weights").mkdir(parents=True)  # files without an address lie beside their card
    made.mkdir()
    (networks / "weights" / "syncnet.model").write_bytes(weights)
    pin = f'sha256 = "{hashlib.sha256(weights).hexdigest()}"\n'
    for name, steps in chains.items():
        chain = "[input.chain]\n" * bool(steps)
        chain += "".join(f'{key} = "{value}"\n' for key, value in steps.items())
        card = f'{contract}{chain}[[files]]\nname = "syncnet.model"\n{pin}'
        (networks / f"{name}.toml").write_text(card, encoding="utf-8")
        text = light.replace("syncnet-v2", name)
        (made / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder / "cards"


LIGHT, OFFICIAL, AUTO = "light-random", "official-random", "official-auto-random"
"""Profiles that :func:`random_profiles` writes."""


def random_profiles(folder: Path, weights: bytes, face: Face, size: int, seed: int = 0) -> Files:
    """Write, and name to this process, ``light``, ``official`` and ``official-auto`` at random.

    ``light-random`` has a random SyncNet; the others have random weights throughout, in files of
    the official formats and architectures (:mod:`benchmarks.official_files`).

    Args:
        folder: empty; gets cards and weights.
        weights: of SyncNet.
        face: what the random SCRFD-10G "finds" in every picture, in pixels.
        size: side of the pictures that *face* refers to.
        seed: of the other weights.

    Returns:
        Where the official files lie.
    """
    home = profiles(folder, weights, {LIGHT: {}})
    networks = home / "metrics" / "networks"
    detector = det_10g(face, size, seed)
    made = {
        "scrfd-10g": detector,
        "scrfd-10g-auto": detector,
        "arcface-r50": w600k_r50(seed + 1),
        "hsemotion-vgaf": enet_b0(seed + 2),
    }
    for like, content in made.items():
        card = network_card(like)
        name = f"random-{like}"
        head = card.path.read_text(encoding="utf-8").partition("[[files]]")[0]
        file = card.files[0].name
        (networks / "weights" / file).write_bytes(content)
        pin = f'[[files]]\nname = "{file}"\nsha256 = "{hashlib.sha256(content).hexdigest()}"\n'
        (networks / f"{name}.toml").write_text(head + pin, encoding="utf-8")
    for like in ("official", "official-auto"):
        text = profile_card(like).path.read_text(encoding="utf-8").replace("syncnet-v2", LIGHT)
        for network in made:
            text = text.replace(f'"{network}"', f'"random-{network}"')
        (home / "metrics" / "profiles" / f"{like}-random.toml").write_text(text, encoding="utf-8")
    (networks / "weights" / "sfd_face.pth").write_bytes(sfd_face(seed + 3))
    use_cards(home)
    return Files(networks / "weights")


def use_cards(folder: Path) -> None:
    """Let this process, and those it starts, see cards of its own."""
    os.environ["SPFEM_BENCH_CARDS"] = str(folder)
    cards._paths.cache_clear()
    cards._read.cache_clear()


def lse(x: Extractor, clip: Clip) -> tuple[float, float, float, int]:
    """Return a clip's LSE-D, LSE-C, offset and number of windows.

    Raises:
        ClipError: it cannot be scored.
    """
    for error in x.ensure({clip: frozenset({"sync"})}).values():
        raise error
    found = x.load(clip, "sync")
    assert found is not None
    part = sync.sync_part(
        found.outputs["visual"], found.outputs["audio"], found.frames, max_shift=15
    )
    distance, confidence, offset = (
        part.value(report) for report in ("distance", "confidence", "offset")
    )
    return distance, confidence, offset, part.windows


def can(option: str) -> bool:
    """Say whether this version's extractor has an option, such as ``precision``."""
    return option in {f.name for f in fields(Extractor)}


# ---- clips --------------------------------------------------------------------------------------


def cut(clip: Clip, path: Path, seconds: float | None = None) -> Clip:
    """Write a clip's crop and span to a file of its own, nearly without loss, with its sound.

    At 25 frames a second, so that a package which knows no rate sees as many frames as we do.
    """
    video = []
    if clip.crop:
        c = clip.crop
        video = ["-vf", f"crop={c.width}:{c.height}:{c.x}:{c.y}:exact=1"]
    begin = ["-ss", str(clip.span.start)] if clip.span else []
    ends = [seconds] if seconds else []
    ends += [clip.span.end - clip.span.start] if clip.span else []
    length = ["-t", str(min(ends))] if ends else []
    sound = ["-i", clip.audio, "-map", "0:v", "-map", "1:a"] if clip.audio else []
    command = [
        ffmpeg.program(),
        "-v",
        "error",
        "-y",
        *begin,
        "-i",
        clip.path,
        *sound,
        *length,
        "-r",
        "25",
        *video,
        "-c:v",
        "libx264",
        "-preset",
        "veryfast",
        "-crf",
        "12",
        "-pix_fmt",
        "yuv420p",
        "-c:a",
        "aac",
        "-b:a",
        "192k",
        path,
    ]
    subprocess.run([str(part) for part in command], check=True)
    return Clip(path)


def copies(one: Path, folder: Path, count: int) -> list[Clip]:
    """Return clips of one content whose files differ: a box at the end that players skip."""
    folder.mkdir()
    made = []
    for number in range(count):
        path = folder / f"{number}.mp4"
        tail = (16).to_bytes(4, "big") + b"free" + number.to_bytes(8, "big")
        path.write_bytes(one.read_bytes() + tail)
        made.append(Clip(path))
    return made


def puppets(folder: Path, count: int, seconds: float, size: int = 256) -> list[Clip]:
    """Write short clips of the demo's puppets, which need nothing to be fetched.

    The detectors do not know puppets: these are for aligned faces, or random detectors.
    """
    from spfem_bench.datasets.folders import DataFolders
    from spfem_bench.definitions.protocols import protocol
    from spfem_bench.puppets.clips import render_all
    from spfem_bench.puppets.provider import demo_puppets

    provider = demo_puppets(DataFolders(renders=folder))
    world, home = provider.world, provider.folder
    names = list(
        dict.fromkeys(i.clips["real"].path.as_posix() for i in protocol("demo-inter-id").items)
    )
    chosen = names[:: max(1, len(names) // count)][:count]
    render_all(world, home, chosen, workers=1)
    made = []
    for k, name in enumerate(chosen):
        path = folder / f"puppet-{k}.mp4"
        command = [
            ffmpeg.program(),
            "-v",
            "error",
            "-y",
            "-stream_loop",
            "-1",
            "-i",
            home / name,
            "-t",
            str(seconds),
            "-vf",
            f"scale={size}:{size}",
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-pix_fmt",
            "yuv420p",
            "-c:a",
            "aac",
            path,
        ]
        subprocess.run([str(part) for part in command], check=True)
        made.append(Clip(path))
    return made


# ---- clocks -------------------------------------------------------------------------------------


@dataclass
class Spent:
    """Time that a block took.

    Attributes:
        wall: seconds by the clock.
        cpu: seconds of all processor cores, user and system, of this process and of the children
            that have ended meanwhile.
    """

    wall: float = math.nan
    cpu: float = math.nan


def cpu_seconds() -> float:
    """Return the processor time of this process and its ended children, user and system."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


@contextmanager
def clock() -> Iterator[Spent]:
    """Measure a block."""
    spent = Spent()
    wall, cpu = time.perf_counter(), cpu_seconds()
    try:
        yield spent
    finally:
        spent.wall, spent.cpu = time.perf_counter() - wall, cpu_seconds() - cpu


@contextmanager
def quiet() -> Iterator[None]:
    """Send what this process and its children print to nowhere: the packages talk a lot."""
    import sys

    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)


def use_threads(count: int | None) -> int:
    """Give every library the same number of threads, and this process as many cores.

    onnxruntime in other packages takes as many threads as the process may use cores.

    Returns:
        That number: all cores when None.
    """
    import cv2
    import torch

    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    count = count or len(allowed) or os.cpu_count() or 1
    if allowed:
        os.sched_setaffinity(0, allowed[:count])
    torch.set_num_threads(count)
    cv2.setNumThreads(count)
    return count


def alternate(first: Callable[[], Any], second: Callable[[], Any], turn: int) -> tuple[Any, Any]:
    """Run both, the second before the first in every other turn; return their results."""
    if turn % 2 == 0:
        return first(), second()
    later = second()
    return first(), later


# ---- figures ------------------------------------------------------------------------------------


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Write a median with the smallest and the largest.

    >>> spread([1.0, 2.0, 4.0])
    '2.00 (1.00 to 4.00)'
    """
    middle = statistics.median(values)
    return f"{middle:.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> tuple[float, float]:
    """Fit cost = a * size^b by least squares on logarithms.

    Returns:
        b and half of its 95 % interval (Student's t; infinite with two sizes).

    >>> b, half = exponent([1, 2, 4, 8], [3, 6, 12, 24])
    >>> round(b, 6), round(half, 6)
    (1.0, 0.0)
    """
    from scipy.stats import linregress, t

    fit = linregress(np.log(sizes), np.log(costs))
    freedom = len(sizes) - 2
    half = math.inf if freedom < 1 else float(t.ppf(0.975, freedom) * fit.stderr)
    return float(fit.slope), half


def print_table(rows: Sequence[Sequence[object]], headers: Sequence[str]) -> None:
    """Print a Markdown table."""
    print()
    print(tabulate(rows, headers, tablefmt="github", disable_numparse=True), flush=True)


def machine(threads: int) -> str:
    """Say on what, with which versions and when something was measured, in general words."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        model = next(
            (r.partition(":")[2].strip() for r in lines if r.startswith("model name")), model
        )
    named = (
        "torch",
        "onnxruntime",
        "ncnn",
        "cv2",
        "numpy",
        "syncnet_python",
        "insightface",
        "hsemotion_onnx",
    )
    versions = ", ".join(f"{k} {v}" for k, v in provenance.versions(named).items() if v != "absent")
    today = datetime.now(timezone.utc).date().isoformat()
    return (
        f"{model}, {os.cpu_count()} cores, {threads} threads for every library; Python "
        f"{platform.python_version()}, {versions}, ffmpeg {ffmpeg.version()}; {today}"
    )


def quotable(figures: Mapping[str, str], threads: int) -> str:
    """Return one line for a README: what was measured, how much, on what, with which versions."""
    said = "; ".join(f"{name} {value.replace('*', '')}" for name, value in figures.items())
    return f"\n{said}. Measured on {machine(threads)}."
