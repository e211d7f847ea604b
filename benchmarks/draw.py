"""Write the lists of MEAD's and RAVDESS's recordings and protocols: the draw of the test clips.

    python benchmarks/draw.py [--check]

A cell is one speaker's clips of one emotion. The clips of a cell are ordered by the SHA-256 of
``spfem-bench/DATASET/1/SPEAKER/EMOTION/CLIP`` (UTF-8, hexadecimal digits); the first tenth of
them, rounded up, are its test clips: 3 of 30 on MEAD, 1 of 4 on RAVDESS. What items are made of
them is written in the protocols' cards and in docs/mead_ravdess.md. ``--check`` writes nothing
and says whether the lists are what would be written.
"""

from __future__ import annotations

import csv
import hashlib
import io
import sys
from pathlib import Path

from spfem_bench.definitions.protocols import EMOTIONS

PROTOCOLS = Path(__file__).resolve().parent.parent / "protocols"
# Each speaker's reference is the one before, in this order: SSERD's map (ZH-Xu410/SSERD,
# scripts/test_cross.py). RAVDESS's ring over the actors is ours, as nobody publishes one.
SPEAKERS = {
    "mead": ("M003", "M009", "W029", "M012", "M030", "W015"),
    "ravdess": tuple(f"Actor_{n:02d}" for n in range(1, 7)),
}
CODES = dict(
    zip(
        ("neutral", "happy", "sad", "angry", "fear", "disgusted", "surprised"),
        ("01", "03", "04", "05", "06", "07", "08"),
        strict=True,
    )
)


def pool(dataset: str, speaker: str, emotion: str) -> list[str]:
    """Return the clips of a cell that the papers count: 30 on MEAD, 4 on RAVDESS."""
    if dataset == "mead":
        return [f"{n:03d}" for n in range(1, 31)]
    intensity = "01" if emotion == "neutral" else "02"
    start, end = f"01-01-{CODES[emotion]}-{intensity}", speaker.removeprefix("Actor_")
    return [f"{start}-{s}-{r}-{end}" for s in ("01", "02") for r in ("01", "02")]


def drawn(dataset: str, speaker: str, emotion: str) -> list[str]:
    """Return a cell's clips in the order of the draw."""

    def key(clip: str) -> str:
        text = f"spfem-bench/{dataset}/1/{speaker}/{emotion}/{clip}"
        return hashlib.sha256(text.encode()).hexdigest()

    return sorted(pool(dataset, speaker, emotion), key=key)


def recordings(dataset: str) -> list[dict[str, str]]:
    """Return the rows of a data set's list: all that the papers count, and MEAD's whole neutral."""
    rows = []
    for speaker in SPEAKERS[dataset]:
        for emotion in EMOTIONS:
            clips = pool(dataset, speaker, emotion)
            if (dataset, emotion) == ("mead", "neutral"):
                clips += [f"{n:03d}" for n in range(31, 41)]
            for clip in clips:
                row = {"speaker": speaker, "emotion": emotion}
                if dataset == "mead":
                    row["level"] = level(emotion)
                rows.append({**row, "clip": clip})
    return rows


def further(dataset: str) -> list[dict[str, str]]:
    """Return the rows of recordings that only the papers' own protocols may need.

    On MEAD, clips after the thirtieth, of which some speakers have a few: the papers show
    ``W029 disgusted 033``. On RAVDESS, normal intensity of statement 2, repetition 2: the papers
    do not say which intensity is theirs.
    """
    rows = []
    for speaker in SPEAKERS[dataset]:
        for emotion in EMOTIONS[1:]:
            row = {"speaker": speaker, "emotion": emotion}
            if dataset == "mead":
                row["level"] = level(emotion)
                rows += [{**row, "clip": f"{n:03d}"} for n in range(31, 41)]
            else:
                clip = f"01-01-{CODES[emotion]}-01-02-02-{speaker.removeprefix('Actor_')}"
                rows.append({**row, "clip": clip})
    return rows


def level(emotion: str) -> str:
    """Return MEAD's folder of an emotion: neutral has one level, the others' strongest is 3."""
    return "1" if emotion == "neutral" else "3"


def items(dataset: str, setting: str) -> list[dict[str, str]]:
    """Return the rows of a protocol's list."""
    rows, speakers = [], SPEAKERS[dataset]
    for place, speaker in enumerate(speakers):
        other = speakers[place - 1] if setting == "cross-id" else speaker
        for emotion in EMOTIONS:
            source_emotion = emotion if setting == "inter-id-self" else "neutral"
            sources = drawn(dataset, speaker, source_emotion)
            references, real = drawn(dataset, other, emotion), drawn(dataset, speaker, emotion)
            tests = -(-len(real) // 10)
            ring = max(2, tests)  # of references: never the source itself
            for k in range(tests):
                row = {
                    "id": f"{speaker}_source_{emotion}_{sources[k]}",
                    "speaker": speaker,
                    "emotion": emotion,
                }
                if dataset == "mead":
                    row["level"] = level(emotion)
                row |= {
                    "source_clip": sources[k],
                    "reference_speaker": other,
                    "reference_clip": references[(k + 1) % ring],
                    "real_clip": real[k],
                }
                rows.append(row)
    return rows


def main() -> None:
    """Write the lists, or compare them."""
    lists = {f"datasets/{d}.csv": recordings(d) for d in SPEAKERS}
    lists |= {f"datasets/{d}-further.csv": further(d) for d in SPEAKERS}
    lists |= {f"{d}-{s}.csv": items(d, s) for d in SPEAKERS for s in ("inter-id", "cross-id")}
    lists["mead-inter-id-self.csv"] = items("mead", "inter-id-self")
    for name, rows in lists.items():
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        path = PROTOCOLS / name
        if "--check" not in sys.argv:
            path.write_text(text.getvalue(), encoding="utf-8", newline="\n")
        same = path.read_text(encoding="utf-8") == text.getvalue()
        print(f"{name}: {len(rows)} rows{'' if same else ', DIFFERENT'}")
        if not same:
            sys.exit(1)


if __name__ == "__main__":
    main()
