"""Miniature MEAD and RAVDESS trees in the official layouts, acted by puppets."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from spfem_bench.definitions.protocols import dataset_card, protocol
from spfem_bench.demo.clips import render_all
from spfem_bench.demo.world import World
from spfem_bench.evaluation.data import DataFolders

SENTENCES = ("028", "029", "030")


def puppets(cache: Path, speakers: Iterable[str], emotions: Iterable[str]) -> Callable[..., Path]:
    """Render puppets once for the session; returns where one's clip lies."""
    world, folder = DataFolders(renders=cache / "data").rendered(dataset_card("puppets"))
    assert isinstance(world, World)
    names = [f"{p}/{e}/1.00/{s}.mp4" for p in speakers for e in emotions for s in SENTENCES]
    render_all(world, folder, names, workers=1)
    return lambda speaker, emotion, k: folder / f"{speaker}/{emotion}/1.00/{SENTENCES[k % 3]}.mp4"


def test_clips(name: str, speaker: str, emotion: str) -> list[str]:
    """Return a cell's test clips, as a protocol's list has them."""
    items = [i for i in protocol(name).items if (i.speaker, i.emotion) == (speaker, emotion)]
    return [i.row["real_clip"] for i in items]


test_clips.__test__ = False  # type: ignore[attr-defined]


def mead(
    root: Path, cast: Mapping[str, str], emotions: Iterable[str],
    clip_of: Callable[..., Path], ffmpeg: Callable[..., None],
) -> Path:  # fmt: skip
    """Write the test clips of some speakers: 30 fps video without sound, sound as .m4a."""
    for speaker, puppet in cast.items():
        for emotion in emotions:
            level = "1" if emotion == "neutral" else "3"
            for k, clip in enumerate(test_clips("mead-inter-id", speaker, emotion)):
                video = root / f"{speaker}/video/front/{emotion}/level_{level}/{clip}.mp4"
                sound = root / f"{speaker}/audio/{emotion}/level_{level}/{clip}.m4a"
                for path in (video, sound):
                    path.parent.mkdir(parents=True, exist_ok=True)
                ffmpeg("-i", clip_of(puppet, emotion, k), "-map", "0:v", "-r", "30", "-c:v",
                       "libx264", "-crf", "12", "-preset", "ultrafast", video,
                       "-map", "0:a", "-c:a", "aac", "-f", "mp4", sound)  # fmt: skip
    return root


def ravdess(
    root: Path, cast: Mapping[str, str], emotions: Iterable[str], clip_of: Callable[..., Path]
) -> Path:
    """Write the test and reference clips of some actors, with sound."""
    wanted: dict[str, Path] = {}
    for item in protocol("ravdess-inter-id").items:
        if item.speaker in cast and item.emotion in emotions:
            for k, clip in enumerate((item.clips["real"], item.clips["reference"])):
                path = clip.path.as_posix()
                wanted.setdefault(path, clip_of(cast[item.speaker], item.emotion, k))
    for path, puppet in wanted.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(puppet, root / path)
    return root
