"""The papers' recipe as a user of NED types it: from a tree of faces to a table.

On published clips with seeded weights, numbers are compared with what the papers' own scripts
printed (`authors_recipe/expected.json`); on a mini MEAD of puppets, the whole path is walked.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner

from spfem_bench.cli.main import main
from spfem_bench.definitions.cards import builtin_folder
from tests import trees
from tests.conftest import WHY_NOT, Outcome
from tests.papers_networks import PROFILE, RECIPE, write_cards, write_weights

Run = Callable[..., Outcome]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line in this process, in an empty folder with this test's own cache."""
    monkeypatch.chdir(tmp_path)

    def command(line: str, code: int = 0) -> Outcome:
        result = CliRunner().invoke(main, line.split())
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.stdout + result.stderr
        return Outcome(result.exit_code, result.stdout, result.stderr)

    return command


def scores(path: Path) -> tuple[dict[str, float], dict[str, str]]:
    """Return a record's headline numbers and signatures by metric."""
    record = json.loads(path.read_text())
    rows = [score for score in record["scores"] if score["emotion"] == "avg"]
    assert not any(row["partial"] for row in rows)
    return (
        {row["metric"]: row["value"] for row in rows},
        {row["metric"]: row["signature"] for row in rows},
    )


CLIPS = ("M003,sad,033", "W015,sad,028", "W015,sad,030")


@pytest.mark.skipif(not RECIPE.is_dir(), reason=WHY_NOT)
def test_the_scripts_numbers_from_the_command_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = json.loads((RECIPE / "expected.json").read_text())
    write_weights(tmp_path / "weights")
    write_cards(tmp_path / "cards", tmp_path / "weights")
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "cards"))
    monkeypatch.setenv("SPFEM_BENCH_WEIGHTS", str(tmp_path / "weights"))
    lines = ["speaker,emotion,clip,frames", *(f"{clip},40" for clip in CLIPS)]
    (tmp_path / "clips.csv").write_text("\n".join(lines) + "\n")

    run("networks fetch resnet-face18 efficientface")
    run(f"data index ned {RECIPE / 'faces'} --clips clips.csv")
    run("protocol new lists --from ned --name sad")
    command = f"eval --protocol lists/sad-inter-id.toml --profile {PROFILE} -q"

    run(f"{command} --method ned")
    values, _ = scores(tmp_path / f"results/sad-inter-id/ned.{PROFILE}.json")
    assert values["fad-papers"] == pytest.approx(expected["fid/ned"], rel=1e-5)
    assert values["csim-papers"] == pytest.approx(expected["csim/ned"], abs=1e-6)
    names = [clip.replace(",sad,", "_source_sad_") for clip in CLIPS]
    each = [expected[f"lse/ned/{name}/skip0"] for name in names]
    distance, confidence = (float(np.mean(some)) for some in zip(*each, strict=True))
    assert values["lse-d-papers"] == pytest.approx(distance, rel=1e-5)
    # A median less a minimum of numbers near 4000 in single precision: 2.4e-4 apart.
    assert values["lse-c-papers"] == pytest.approx(confidence, abs=1e-3)

    # As published, every sound is taken from its third frame on; here for the first clip only.
    done = run(f"data index ned {RECIPE / 'faces'} --clips clips.csv --as-published")
    assert "Generated folders are cut as published" in done.out
    run("protocol new lists --from ned --name one")
    rows = tmp_path / "lists/one-inter-id.csv"
    rows.write_text("\n".join(rows.read_text().splitlines()[:2]) + "\n")
    run(f"{command.replace('sad-', 'one-')} --method ned --metrics lse-d,lse-c")
    later, _ = scores(tmp_path / f"results/one-inter-id/ned.{PROFILE}.json")
    distance, confidence = expected[f"lse/ned/{names[0]}/skip2"]
    assert later["lse-d-papers"] == pytest.approx(distance, rel=1e-5)
    assert later["lse-c-papers"] == pytest.approx(confidence, abs=1e-3)
    table = run("table results/one-inter-id").out
    assert f"{distance:.3f}" in table and "NED" in table


# ---- a mini MEAD in NED's layout ----------------------------------------------------------------

SPEAKERS = {"M003": "P001", "M009": "P002"}
# Frames of each clip; every speaker has one set of four neutral and one of three angry clips.
FRAMES = {
    "neutral": {"001": 6, "002": 7, "003": 9, "004": 13, "005": 8},
    "angry": {"011": 6, "012": 7, "013": 9, "014": 5},
}
CELLS = {"neutral": (4, 6 + 7 + 9 + 13), "angry": (3, 6 + 7 + 9)}
CHOSEN = {"neutral": ["001", "002", "003", "004"], "angry": ["011", "012", "013"]}


def write_mini_cards(folder: Path) -> None:
    protocols, profiles = folder / "protocols", folder / "metrics/profiles"
    for path in (protocols, profiles):
        path.mkdir(parents=True)
    rows = [[s, e, *cell, ""] for s in SPEAKERS for e, cell in CELLS.items()]
    with (protocols / "mini.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["speaker", "emotion", "clips", "frames", "known"], *rows])
    trees.mini_protocols(protocols, "ned", "mini-papers", "")
    profile = (builtin_folder() / "metrics/profiles/papers.toml").read_text()
    for network, compact in (("resnet-face18", "identity"), ("efficientface", "expression")):
        profile = profile.replace(f'"{network}"', f'"compact-{compact}"')
    (profiles / "mini-papers.toml").write_text(profile)


def write_mini_tree(root: Path, ffmpeg: Callable[..., None]) -> None:
    """Write puppets' faces on black in NED's layout, with source videos and their sound."""
    mask = np.zeros((256, 256, 1), np.uint8)
    cv2.ellipse(mask, (128, 128), (80, 105), 0, 0, 360, 1, -1)
    takes = builtin_folder() / "protocols/datasets/puppets"

    def write(folder: Path, frames: list[np.ndarray], first: int = 0) -> None:
        folder.mkdir(parents=True)
        for number, frame in enumerate(frames):
            cv2.imwrite(str(folder / f"{number + first:06d}.png"), frame)

    for speaker, puppet in SPEAKERS.items():
        joined: dict[str, list[np.ndarray]] = {}
        for emotion, clips in FRAMES.items():
            videos = root / speaker / emotion / "videos"
            videos.mkdir(parents=True)
            sources = sorted((takes / puppet / emotion).rglob("*.mp4"))
            joined[emotion] = []
            for k, (clip, count) in enumerate(clips.items()):
                take = cv2.VideoCapture(str(sources[k % len(sources)]))
                frames = [cv2.resize(take.read()[1], (256, 256)) * mask for _ in range(count + k)][
                    k:
                ]
                joined[emotion] += frames
                write(temporary := root.parent / f"{speaker}{emotion}{clip}", frames)
                ffmpeg(
                    *("-framerate", "30", "-i", temporary / "%06d.png"),
                    *("-f", "lavfi", "-i", f"anoisesrc=r=16000:d={count / 30}:s={k}"),
                    *("-c:v", "libx264", "-preset", "ultrafast", videos / f"{clip}.mp4"),
                )
            write(root / speaker / emotion / "faces_aligned", joined[emotion])
        # The renderer leaves out the first two frames; its faces here are a little blurred.
        for source, experiment in (
            ("neutral", "neutral_ned"),
            ("neutral", "angry_ned"),
            ("angry", "ned"),
        ):
            blurred = [cv2.GaussianBlur(frame, (0, 0), 3) for frame in joined[source][2:]]
            write(root / speaker / source / experiment / "faces_aligned", blurred, 2)


def test_a_mini_mead_from_the_tree_to_the_table(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    run_ffmpeg: Callable[..., None],
) -> None:
    write_mini_cards(tmp_path / "cards")
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "cards"))
    write_mini_tree(tmp_path / "tree", run_ffmpeg)
    (tmp_path / "tree/M003/angry/videos/014.mp4").rename(tmp_path / "later.mp4")

    # A video is missing: its frames fit no clip, and the cell is not solved.
    done = run("data index ned tree")
    assert (
        "M003/angry/faces_aligned: 27 pictures; the 3 clips of M003 angry have 6 + 7 + 9 = 22"
        in (done.out)
    )
    done = run("protocol solve mini-inter-id", code=1)
    assert "M003 angry: 3 clips of 22 frames in all; only 0 are here" in done.out + done.err

    (tmp_path / "later.mp4").rename(tmp_path / "tree/M003/angry/videos/014.mp4")
    done = run("data index ned tree")
    assert "method ned: the pictures of 6 of 6 folders are those of their clips" in done.out
    assert "first frames: generated folders without their first 2 frames" in done.out
    for setting, count in (("inter-id", 14), ("cross-id", 16)):
        done = run(f"protocol solve mini-{setting}")
        assert "4 cells: 4 determined" in done.out
        with solved_list(setting).open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == count
        used = "angry" if setting == "inter-id" else "neutral"
        angry = [
            r["source_clip"] for r in rows if (r["speaker"], r["emotion"]) == ("M003", "angry")
        ]
        assert angry == CHOSEN[used]
        done = run(f"eval --method ned --method source --protocol mini-{setting}")
        assert "ned: generated folders without their first 2 frames" in done.err
    values = {
        (setting, method): scores(tmp_path / f"results/mini-{setting}/{method}.mini-papers.json")[0]
        for setting in ("inter-id", "cross-id")
        for method in ("ned", "source")
    }
    # Inter-ID: the source is the real clip. Blurred faces are farther away than it.
    assert values["inter-id", "source"]["fad-papers"] == pytest.approx(0, abs=1e-3)
    assert values["inter-id", "ned"]["fad-papers"] > 0.1
    assert values["cross-id", "source"]["fad-papers"] > 0.1
    for setting, printed in (("inter-id", "2.108"), ("cross-id", "4.448")):
        table = run(f"table results/mini-{setting}").out
        assert "same recipe" in table and printed in table
        assert "Test clips of mini-" in table and "determined for" in table
    # Cut as published, the same faces have another signature.
    record = tmp_path / "results/mini-inter-id/ned.mini-papers.json"
    _, before = scores(record)
    run("data index ned tree --as-published")
    done = run("eval --method ned --protocol mini-inter-id --metrics fad")
    assert "clips begin 2 frames late and end 2 frames late" in done.err
    assert scores(record)[1]["fad-papers"] != before["fad-papers"]


def solved_list(setting: str) -> Path:
    from spfem_bench.definitions.protocols import solved_folder

    return solved_folder() / f"mini-{setting}.csv"
