"""Miniature MEAD and RAVDESS trees in the official layouts, acted by puppets."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.protocols import protocol
from spfem_bench.puppets.clips import render_all
from spfem_bench.puppets.provider import demo_puppets

MEAD = {"M003": "P001", "M009": "P002"}
RAVDESS = {"Actor_01": "P001", "Actor_02": "P002"}
EMOTIONS = ("neutral", "angry")
SENTENCES = ("028", "029", "030")

MINI_CARD = """
title = "Mini"
version = 1
setting = "{setting}"
dataset = "{dataset}"
faces = "aligned"
profile = "{profile}"
items = "mini-{setting}.csv"
emotions = ["neutral", "angry"]
metrics = ["fad", "csim"]
[clips]
source = "{{source}}"
reference = "{{reference}}"
real = "{{real}}"
[published]
dataset = "mead"
setting = "{setting}"
recipe = "{profile}"
[solve]
cells = "mini.csv"
candidates = "{candidates}"
"""
"""A protocol whose test clips are solved; cross-ID, ``REFERENCES`` follow."""

REFERENCES = """[solve.references]
M003 = "M009"
M009 = "M003"
"""

Acted = Callable[[str, str, int], Path]


def puppets(cache: Path, speakers: Iterable[str], emotions: Iterable[str]) -> Acted:
    """Render puppets once for the session; returns where one's clip lies."""
    provider = demo_puppets(DataFolders(renders=cache / "data"))
    world, folder = provider.world, provider.folder
    names = [f"{p}/{e}/1.00/{s}.mp4" for p in speakers for e in emotions for s in SENTENCES]
    render_all(world, folder, names, workers=1)
    return lambda speaker, emotion, k: folder / f"{speaker}/{emotion}/1.00/{SENTENCES[k % 3]}.mp4"


def mead(root: Path, acted: Acted, ffmpeg: Callable[..., None]) -> Path:
    """Write the test clips of some speakers: 30 fps video without sound, sound as .m4a."""
    for speaker, puppet in MEAD.items():
        for emotion in EMOTIONS:
            for k, item in enumerate(items("mead-inter-id", speaker, emotion)):
                video = root / item.clips["real"].path
                sound = root / str(item.clips["real"].audio)
                for path in (video, sound):
                    path.parent.mkdir(parents=True, exist_ok=True)
                ffmpeg(
                    "-i",
                    acted(puppet, emotion, k),
                    "-map 0:v -r 30 -c:v libx264 -crf 12 -preset ultrafast",
                    video,
                    "-map 0:a -c:a aac -f mp4",
                    sound,
                )
    return root


def ravdess(root: Path, acted: Acted) -> Path:
    """Write the test and reference clips of some actors, with sound."""
    for speaker, puppet in RAVDESS.items():
        for emotion in EMOTIONS:
            for item in items("ravdess-inter-id", speaker, emotion):
                for k, clip in enumerate((item.clips["real"], item.clips["reference"])):
                    (root / clip.path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(acted(puppet, emotion, k), root / clip.path)
    return root


def mini_protocols(folder: Path, dataset: str, profile: str, candidates: str) -> None:
    """Write the cards of the mini MEAD's protocols in both settings."""
    names = {"dataset": dataset, "profile": profile, "candidates": candidates}
    for setting, references in (("inter-id", ""), ("cross-id", REFERENCES)):
        text = MINI_CARD.format(setting=setting, **names) + references
        (folder / f"mini-{setting}.toml").write_text(text)


def items(name: str, speaker: str, emotion: str) -> list:
    """Return a protocol's items of one cell."""
    return [i for i in protocol(name).items if (i.speaker, i.emotion) == (speaker, emotion)]


def copied(tree: Path, to: Path) -> Path:
    """Copy a tree to be spoilt; files are linked, so replace them rather than write to them."""
    return Path(shutil.copytree(tree, to, copy_function=os.link))


def small(exported: Path, speakers: Iterable[str]) -> Path:
    """Cut an exported protocol down to the puppets' part: aligned faces, two emotions."""
    card = exported.read_text()
    card = re.sub(
        r"(?m)^emotions = .*$",
        'emotions = ["neutral", "angry"]\nfaces = "aligned"',
        card,
    )
    card = re.sub(r"(?m)^profile = .*$", 'profile = "compact"', card)
    exported.write_text(card)
    rows = exported.with_suffix(".csv")
    head, *lines = rows.read_text().splitlines()
    kept = [r for r in lines if r.split(",")[1] in set(speakers) and r.split(",")[2] in EMOTIONS]
    rows.write_text("\n".join([head, *kept]) + "\n")
    return exported
