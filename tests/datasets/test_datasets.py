"""MEAD and RAVDESS: the draw, the index, and the way from a folder to a table."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.linalg import sqrtm

from spfem_bench.datasets import recordings_index
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.datasets import dataset_card, recordings
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.errors import CardError, ClipError
from spfem_bench.evaluation.measure import frozen_settings
from spfem_bench.evaluation.plan import Plan, make_plan
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import audio, packets, video
from spfem_bench.networks.weights import WeightsStore
from tests import trees
from tests.conftest import Outcome

Bench = Callable[..., Outcome]
EMOTIONS = ["neutral", "angry", "disgusted", "fear", "happy", "sad", "surprised"]

# ---- the draw, recomputed from its description in docs/mead_ravdess.md --------------------------

# SSERD, scripts/test_cross.py: who takes the reference of whom.
MAP = {
    "M003": "W015",
    "M009": "M003",
    "W029": "M009",
    "M012": "W029",
    "M030": "M012",
    "W015": "M030",
}
ACTORS = {f"Actor_{n:02d}": f"Actor_{(n - 2) % 6 + 1:02d}" for n in range(1, 7)}
RAVDESS_CODES = {
    "neutral": "01",
    "happy": "03",
    "sad": "04",
    "angry": "05",
    "fear": "06",
    "disgusted": "07",
    "surprised": "08",
}


def order(dataset: str, speaker: str, emotion: str) -> list[str]:
    if dataset == "mead":
        clips = [f"{n:03d}" for n in range(1, 31)]
    else:
        level = "01" if emotion == "neutral" else "02"
        clips = [
            f"01-01-{RAVDESS_CODES[emotion]}-{level}-0{s}-0{r}-{speaker[-2:]}"
            for s in (1, 2)
            for r in (1, 2)
        ]
    hashes = {
        hashlib.sha256(f"spfem-bench/{dataset}/1/{speaker}/{emotion}/{c}".encode()).hexdigest(): c
        for c in clips
    }
    return [hashes[h] for h in sorted(hashes)]


@pytest.mark.parametrize(
    ("name", "dataset", "count", "tests"),
    [
        ("mead-inter-id", "mead", 126, 3),
        ("mead-cross-id", "mead", 126, 3),
        ("mead-inter-id-self", "mead", 126, 3),
        ("ravdess-inter-id", "ravdess", 42, 1),
        ("ravdess-cross-id", "ravdess", 42, 1),
    ],
)
def test_the_lists_are_what_their_rule_says(name, dataset, count, tests):
    items = protocol(name).items
    assert len(items) == count == 6 * 7 * tests
    others = MAP if dataset == "mead" else ACTORS
    assert Counter((i.speaker, i.emotion) for i in items) == {
        (s, e): tests for s in others for e in EMOTIONS
    }
    expected = []
    for speaker, other in others.items():
        other = other if "cross" in name else speaker
        for emotion in EMOTIONS:
            source = order(dataset, speaker, emotion if "self" in name else "neutral")
            reference, real = order(dataset, other, emotion), order(dataset, speaker, emotion)
            for k in range(tests):
                ring = reference[: max(tests, 2)]
                expected.append(
                    (speaker, emotion, source[k], other, ring[(k + 1) % len(ring)], real[k])
                )
    found = [
        (
            i.speaker,
            i.emotion,
            i.row["source_clip"],
            i.row["reference_speaker"],
            i.row["reference_clip"],
            i.row["real_clip"],
        )
        for i in items
    ]
    assert sorted(map(str, found)) == sorted(map(str, expected))
    assert all(i.clips["reference"] != i.clips["source"] for i in items)
    assert {i.id for i in items} == {f"{f[0]}_source_{f[1]}_{f[2]}" for f in found}


def test_the_real_clips_of_an_emotion_are_its_test_clips_each_once():
    for emotion in EMOTIONS:
        items = [i for i in protocol("mead-cross-id").items if i.emotion == emotion]
        real = [i.clips["real"] for i in items]
        assert len(set(real)) == len(real) == 18
        for item, clip in zip(items, real, strict=True):
            assert clip.path.parts[:4] == (item.speaker, "video", "front", emotion)


def test_recordings_are_those_that_the_papers_count():
    mead = recordings(dataset_card("mead"))
    counts = Counter((r.speaker, r.emotion) for r in mead)
    assert {n for (_, e), n in counts.items() if e == "neutral"} == {40}
    assert {n for (_, e), n in counts.items() if e != "neutral"} == {30}
    assert set(MAP) == {r.speaker for r in mead}
    assert mead[0].video == "M003/video/front/neutral/level_1/001.mp4"
    angry = next(r for r in mead if r.emotion == "angry")
    assert angry.sound == "M003/audio/angry/level_3/001.m4a"
    ravdess = recordings(dataset_card("ravdess"))
    assert Counter(r.speaker for r in ravdess) == dict.fromkeys(ACTORS, 28)
    assert "Actor_05/01-01-06-02-02-01-05.mp4" in {r.video for r in ravdess}
    assert len({r.video for r in ravdess}) == 168


# ---- from a folder to a table, all from the command line ----------------------------------------


def scores(outcome: Outcome) -> dict[tuple[str, str], dict]:
    found = json.loads(outcome.out)
    return {(s["method"], s["metric"]): s for s in found if s["emotion"] == "avg"}


def test_from_a_mead_folder_to_a_table(bench: Bench, mead_tree: Path):
    indexed = bench("data", "index", "mead", mead_tree, "-q")
    assert indexed.code == 0, indexed.err
    assert "12 of 1320 recordings" in indexed.out
    assert "mead-inter-id: the clips of 12 of 126 items are here" in indexed.out
    assert "mead-cross-id: the clips of 6 of 126 items are here" in indexed.out
    assert not list(mead_tree.rglob("*.json"))  # the user's folder is only read
    assert "12/1320" in bench("data", "list").out

    assert bench("protocol", "export", "mead-inter-id", "own").code == 0
    card = trees.small(Path("own/my-mead-inter-id.toml"), trees.MEAD)
    done = bench("eval", "--method", "source", "--method", "real", "--protocol", card, "--json")
    assert done.code == 0, done.err
    found = scores(done)
    assert found["real", "fad"]["value"] == pytest.approx(0, abs=1e-6)
    assert found["real", "fad"]["n_items"] == 12
    assert found["source", "fad"]["value"] > 1
    assert found["real", "csim"]["value"] > found["source", "csim"]["value"] + 0.1
    assert found["source", "av-offset"]["value"] == 0  # the sound beside a video is in step
    assert found["source", "lse-d"]["value"] < 2
    drawn = bench("table", "results/my-mead-inter-id")
    assert drawn.code == 0
    assert "source" in drawn.out and "real" in drawn.out and "LSE-D" in drawn.out


def test_from_a_ravdess_folder_to_a_table(bench: Bench, ravdess_tree: Path):
    assert "8 of 168 recordings" in bench("data", "index", "ravdess", ravdess_tree, "-q").out
    assert bench("protocol", "export", "ravdess-cross-id", "own").code == 0
    # Actor 1's reference is actor 6's, who is not here: actor 2 takes actor 1's.
    card = trees.small(Path("own/my-ravdess-cross-id.toml"), ["Actor_02"])
    done = bench(
        "eval", "--method", "source", "--method", "reference", "--protocol", card, "--json"
    )
    assert done.code == 0, done.err
    found = scores(done)
    assert found["source", "id-sim"]["value"] == pytest.approx(1, abs=1e-6)
    assert found["reference", "id-sim"]["value"] < 0.9  # another actor
    assert found["reference", "csim"]["value"] == pytest.approx(1, abs=1e-6)
    assert "| " in bench("table", "results/my-ravdess-cross-id").out


def test_where_the_source_has_the_emotion_already_doing_nothing_is_perfect(
    bench: Bench, mead_tree: Path
):
    assert bench("data", "index", "mead", mead_tree, "-q").code == 0
    assert bench("protocol", "export", "mead-inter-id-self", "own").code == 0
    card = trees.small(Path("own/my-mead-inter-id-self.toml"), trees.MEAD)
    done = bench("eval", "--method", "source", "--metrics", "fad", "--protocol", card, "--json")
    assert scores(done)["source", "fad"]["value"] == pytest.approx(0, abs=1e-6)


def test_without_an_index_one_line_says_what_to_type(bench: Bench):
    done = bench("eval", "--method", "source", "--protocol", "mead-inter-id")
    assert done.code == 2
    assert "missing, for 126 of 126 items" in done.err
    assert done.err.count("spfem-bench data index mead ROOT") == 1
    assert len(done.err.splitlines()) < 12


# ---- what is bad is reported, and the rest is scored --------------------------------------------


def findings(outcome: Outcome) -> dict[str, list[dict]]:
    assert outcome.code == 0, outcome.err
    found: dict[str, list[dict]] = {}
    for finding in json.loads(outcome.out)["findings"]:
        found.setdefault(finding["kind"], []).append(finding)
    return found


def test_a_spoilt_mead_is_reported_and_the_rest_is_scored(
    bench: Bench, mead_tree: Path, tmp_path: Path
):
    root = trees.copied(mead_tree, tmp_path / "MEAD")
    angry = trees.items("mead-inter-id", "M003", "angry")
    mute = root / str(angry[0].clips["real"].audio)
    mute.unlink()
    cut = root / trees.items("mead-inter-id", "M009", "angry")[0].clips["real"].path
    content = cut.read_bytes()
    cut.unlink()
    cut.write_bytes(content[: len(content) * 2 // 3])
    (root / "M009/front/video").mkdir(parents=True)
    (root / "M009/video/front/neutral").rename(root / "M009/front/video/neutral")
    contempt = root / "M003/video/front/contempt/level_3/001.mp4"
    contempt.parent.mkdir(parents=True)
    os.link(root / angry[0].clips["real"].path, contempt)

    found = findings(bench("data", "index", "mead", root, "--json", "-q"))
    speakers = {f["says"] for f in found["missing speaker"]}
    assert speakers == {f"speaker {s} is missing" for s in ("W029", "M012", "M030", "W015")}
    assert found["no sound"][0]["examples"] == [mute.relative_to(root).as_posix()]
    assert cut.relative_to(root).as_posix() in found["unreadable"][0]["examples"][0]
    assert "moov atom not found" in found["unreadable"][0]["examples"][0]  # its end is cut off
    assert "M009/front/video/neutral/level_1" in found["swapped folders"][0]["examples"][0]
    assert any("contempt" in f["says"] for f in found["not used"])

    assert bench("protocol", "export", "mead-inter-id", "own").code == 0
    card = trees.small(Path("own/my-mead-inter-id.toml"), trees.MEAD)
    refused = bench("eval", "--method", "real", "--protocol", card, "--json")
    assert refused.code == 2 and "--partial" in refused.err
    done = bench("eval", "--method", "real", "--protocol", card, "--json", "--partial")
    found_scores = scores(done)
    # M003's six items have their pictures; one of them is mute. M009's neutral clips are not
    # where they should be, and one of its three angry clips is cut.
    assert found_scores["real", "fad"]["n_items"] == 8
    assert found_scores["real", "lse-d"]["n_items"] == 7  # 3 + 2 of M003, 2 of M009's angry
    assert found_scores["real", "fad"]["partial"]
    assert f"{mute.relative_to(root)}: missing" in done.err or mute.name in done.err


def test_a_spoilt_ravdess_is_reported(bench: Bench, ravdess_tree: Path, tmp_path: Path, run_ffmpeg):
    root = trees.copied(ravdess_tree, tmp_path / "RAVDESS")
    some = next((root / "Actor_01").glob("01-01-05*.mp4"))
    beside = {
        "01-02-05-02-01-01-01.mp4": "songs",
        "02-01-05-02-01-01-01.mp4": "videos without sound",
        "03-01-05-02-01-01-01.wav": "sound without picture",
        "01-01-02-02-01-01-01.mp4": "calm",
        "01-01-05-01-01-01-01.mp4": "normal intensity",
    }
    for name in beside:
        os.link(some, root / "Actor_01" / name)
    only_sound = root / "Actor_02" / next(p.name for p in (root / "Actor_02").glob("01-01-05*.mp4"))
    blind = tmp_path / "blind.mp4"
    run_ffmpeg("-i", some, "-vn", "-c:a", "copy", blind)
    only_sound.unlink()
    blind.rename(only_sound)
    found = findings(bench("data", "index", "ravdess", root, "--json", "-q"))
    said = {f["says"]: f["examples"] for f in found["not used"]}
    for name, word in beside.items():
        assert [f"Actor_01/{name}"] in [e for s, e in said.items() if s.startswith(word)]
    assert found["no picture"][0]["examples"] == [only_sound.relative_to(root).as_posix()]
    assert len(found["missing speaker"]) == 4


@pytest.fixture
def drawn_tree(tmp_path: Path, run_ffmpeg: Callable[..., None]) -> Path:
    """Two neutral clips of 1.2 s and two angry ones of 2 s of M003, of noise."""
    root = tmp_path / "drawn"
    for emotion, level, seconds in (("neutral", 1, 1.2), ("angry", 3, 2.0)):
        for n in (1, 2):
            video = root / f"M003/video/front/{emotion}/level_{level}/00{n}.mp4"
            sound = root / f"M003/audio/{emotion}/level_{level}/00{n}.m4a"
            for path in (video, sound):
                path.parent.mkdir(parents=True, exist_ok=True)
            length = seconds + 0.1 * n
            run_ffmpeg("-f", "lavfi", "-i", f"testsrc=s=64x64:r=30:d={length}", video)
            run_ffmpeg("-f", "lavfi", "-i", f"sine=d={length}", "-c:a", "aac", sound)
    return root


def test_swapped_sound_is_told_from_lengths(bench: Bench, drawn_tree: Path):
    assert "swapped sound" not in findings(
        bench("data", "index", "mead", drawn_tree, "--json", "-q")
    )
    audio_folder = drawn_tree / "M003/audio"
    for n in (1, 2):
        one, two = (audio_folder / f"{e}/00{n}.m4a" for e in ("neutral/level_1", "angry/level_3"))
        one.rename(audio_folder / "spare")
        two.rename(one)
        (audio_folder / "spare").rename(two)
    found = findings(bench("data", "index", "mead", drawn_tree, "--json", "-q"))
    assert "neutral and angry" in found["swapped sound"][0]["says"]
    assert found["sound and picture apart"][0]["count"] == 4


def test_copies_and_odd_lengths_are_reported(bench: Bench, drawn_tree: Path, run_ffmpeg):
    folder = drawn_tree / "M003/video/front/angry/level_3"
    (folder / "002.mp4").unlink()
    os.link(folder / "001.mp4", folder / "002.mp4")
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=s=64x64:r=30:d=0.5", folder / "003.mp4")
    found = findings(bench("data", "index", "mead", drawn_tree, "--json", "-q"))
    assert found["same bytes"][0]["examples"] == [
        "M003/video/front/angry/level_3/001.mp4 = M003/video/front/angry/level_3/002.mp4"
    ]
    assert "003.mp4: 0.50 s" in found["odd length"][0]["examples"][0]


def test_exchanged_video_and_audio_folders_are_named(bench: Bench, drawn_tree: Path):
    speaker = drawn_tree / "M003"
    (speaker / "video").rename(speaker / "spare")
    (speaker / "audio").rename(speaker / "video")
    (speaker / "spare").rename(speaker / "audio")
    wrong = bench("data", "index", "mead", drawn_tree, "-q")
    assert wrong.code == 1 and len(wrong.err.splitlines()) == 1
    assert "M003/audio/front/angry/level_3/001.mp4 for M003/video/front/angry" in wrong.err


def test_an_index_goes_on_where_it_stopped(bench: Bench, drawn_tree: Path, monkeypatch):
    looked: list[Path] = []
    timing = packets.stream_times

    def counted(path: Path) -> dict[str, packets.Stretch]:
        if len(looked) == 3:
            raise KeyboardInterrupt
        looked.append(path)
        return timing(path)

    monkeypatch.setattr(packets, "stream_times", counted)
    stopped = bench("data", "index", "mead", drawn_tree, "-q")
    assert stopped.code != 0 and len(looked) == 3
    first = set(looked)
    monkeypatch.setattr(packets, "stream_times", lambda path: looked.append(path) or timing(path))
    assert bench("data", "index", "mead", drawn_tree, "-q").code == 0
    assert len(looked) == 8 and first.isdisjoint(looked[3:])
    bench("data", "index", "mead", drawn_tree, "-q")
    assert len(looked) == 8
    changed = drawn_tree / "M003/audio/angry/level_3/001.m4a"
    os.utime(changed, ns=(1, 1))
    bench("data", "index", "mead", drawn_tree, "-q")
    assert looked[8:] == [changed]


def test_another_layout_by_a_mapping(bench: Bench, drawn_tree: Path, tmp_path: Path):
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in drawn_tree.rglob("*.m*"):
        _, _, *_, emotion, _, clip = path.relative_to(drawn_tree).parts
        word = {"neutral": "NEU", "angry": "ANG"}[emotion]
        os.link(path, flat / f"man03-{word}-{clip}")
    wrong = bench("data", "index", "mead", flat, "-q")
    assert wrong.code == 1 and "--mapping" in wrong.err and len(wrong.err.splitlines()) == 1
    mapping = tmp_path / "mine.toml"
    mapping.write_text(
        'video = ["{speaker}-{emotion}-{clip}.mp4"]\nsound = ["{speaker}-{emotion}-{clip}.m4a"]\n'
        '[names.speaker]\nM003 = "man03"\n[names.emotion]\nneutral = "NEU"\nangry = "ANG"\n'
    )
    found = findings(bench("data", "index", "mead", flat, "--mapping", mapping, "--json", "-q"))
    assert "no sound" not in found and "missing speaker" in found
    card = dataset_card("mead")
    path = DataFolders.locate().verified(card, "M003/video/front/angry/level_3/002.mp4")
    assert path == flat / "man03-ANG-002.mp4"
    mapping.write_text('video = ["{speaker}/../../{clip}.mp4"]\n')
    assert "leaves its folder" in bench("data", "index", "mead", flat, "--mapping", mapping).err
    mapping.write_text('video = ["{clip}.mp4"]\n[names.emotion]\nangr = "x"\n')
    assert "Did you mean 'angry'" in bench("data", "index", "mead", flat, "--mapping", mapping).err
    mapping.write_text('vidio = ["{clip}.mp4"]\n')
    assert "unknown key 'vidio'" in bench("data", "index", "mead", flat, "--mapping", mapping).err


def test_only_recordings_are_indexed(bench: Bench, tmp_path: Path):
    assert "Allowed: mead, ravdess" in bench("data", "index", "stccl-page", tmp_path).err
    assert "zenodo" in bench("data", "fetch", "ravdess").out
    assert bench("data", "verify", "ravdess").code == 0


def test_a_damaged_index_is_refused(bench: Bench, tmp_path: Path):
    path = tmp_path / "data/mead/index.json"
    path.parent.mkdir()
    path.write_text(
        json.dumps(
            {
                "schema": 1,
                "dataset": "mead",
                "root": "/",
                "mapping": None,
                "files": {
                    "a": {"file": "../b", "bytes": 1, "changed": 1, "streams": {}, "problem": ""}
                },
            }
        )
    )
    with pytest.raises(CardError, match="leaves its folder"):
        DataFolders.locate().provider(dataset_card("mead")).verified("x")
    with pytest.raises(CardError, match="is no index"):
        recordings_index.read_index(tmp_path)


@pytest.mark.parametrize("content", ["{", '{"schema": 0}'])
def test_what_the_error_says_to_type_mends_an_index(
    bench: Bench, drawn_tree: Path, tmp_path: Path, content: str
):
    assert bench("data", "index", "mead", drawn_tree, "-q").code == 0
    (path,) = tmp_path.rglob("mead/index.json")
    whole = path.read_text()
    path.write_text(content)
    assert "Type 'spfem-bench data index mead ROOT'" in bench("data", "list").err
    assert bench("data", "index", "mead", drawn_tree, "-q").code == 0
    assert path.read_text() == whole


# ---- several real clips -------------------------------------------------------------------------


def several_real(card: Path) -> Path:
    """Give each item all three real clips of its cell, its own first."""
    text = card.read_text()
    one = next(line for line in text.splitlines() if line.startswith("real = "))
    address = one.removeprefix("real = ")
    more = [address, *(address.replace("{real_clip}", f"{{real_clip_{n}}}") for n in (2, 3))]
    card.write_text(text.replace(one, f"real = [{', '.join(more)}]"))
    rows = list(csv.DictReader(io.StringIO(card.with_suffix(".csv").read_text())))
    for row in rows:
        cell = [r["real_clip"] for r in rows if r["id"][:-4] == row["id"][:-4]]
        at = cell.index(row["real_clip"])
        row["real_clip_2"], row["real_clip_3"] = cell[(at + 1) % 3], cell[(at + 2) % 3]
    with card.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return card


def test_fad_compares_all_outputs_with_all_real_frames(
    bench: Bench, mead_tree: Path, demo_cache: Path
):
    assert bench("data", "index", "mead", mead_tree, "-q").code == 0
    assert bench("protocol", "export", "mead-inter-id", "own").code == 0
    card = several_real(trees.small(Path("own/my-mead-inter-id.toml"), trees.MEAD))
    done = bench("eval", "--method", "source", "--metrics", "fad", "--protocol", card, "--json")
    value = next(s["value"] for s in json.loads(done.out) if s["emotion"] == "angry")

    found = protocol(str(card))
    profile = profile_card("compact")
    data, weights = DataFolders.locate(), WeightsStore.locate()
    plan = make_plan("source", found, profile, data=data, weights=weights)
    extractor = Extractor(profile, weights, FeatureStore.locate(), faces="aligned")

    def seen(clip: Clip) -> np.ndarray:
        features = extractor.load(clip, "identity")
        assert features is not None
        return np.asarray(features.outputs[metric_card("fad").output], np.float64)

    angry = [p for p in plan.items if p.item.emotion == "angry"]
    own = np.concatenate([seen(p.clips["output"]) for p in angry])
    real = np.concatenate([seen(c) for p in angry for c in p.seen_as("real")])
    assert len({c for p in angry for c in p.seen_as("real")}) == 6
    a, b = np.cov(own.T), np.cov(real.T)
    apart = own.mean(0) - real.mean(0)
    expected = apart @ apart + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert metric_card("fad").statistic.normalise is False
    assert value == pytest.approx(expected, rel=1e-4)

    # The bytes of the recordings are in the signature, as nobody publishes their hashes.
    def hashed(of: Plan, metric: str, x: Extractor = extractor) -> Any:
        return frozen_settings(of, metric_card(metric), x).get("data")

    assert hashed(plan, "fad") and hashed(plan, "fad") != hashed(plan, "csim")
    assert hashed(plan, "lse-d") is None
    light = profile_card("light")
    pinned = make_plan("source", protocol("stccl-page-ned"), light, data=data, weights=weights)
    other = Extractor(light, weights, FeatureStore.locate(), faces="detect")
    assert hashed(pinned, "fad", other) is None


def test_only_real_may_be_several(tmp_path: Path):
    card = tmp_path / "mine.toml"
    text = protocol("mead-inter-id").card.path.read_text()
    card.write_text(
        text.replace('source = "', 'source = ["a", "').replace('.m4a"\n', '.m4a"]\n', 1)
    )
    with pytest.raises(CardError, match="only 'real' may be several"):
        protocol(str(card))


# ---- sound in a file of its own, frames of a folder ---------------------------------------------


def test_a_video_is_heard_through_the_file_beside_it(drawn_tree: Path):
    picture = drawn_tree / "M003/video/front/angry/level_3/001.mp4"
    sound = drawn_tree / "M003/audio/angry/level_3/001.m4a"
    clip = Clip(picture, audio=sound)
    assert Clip.parse(str(clip)) == clip
    heard = audio.samples(clip)
    assert len(heard) == pytest.approx(2.1 * 16_000, abs=1024)
    assert np.array_equal(heard, audio.samples(Clip(sound)))
    assert len(list(video.frames(clip))) == pytest.approx(2.1 * 25, abs=1)
    with pytest.raises(ClipError, match="has no sound"):
        audio.samples(Clip(picture))
    assert video.content_id(clip) != video.content_id(Clip(picture))
    extractor = Extractor(
        profile_card("compact"), WeightsStore(), FeatureStore(drawn_tree), faces="aligned"
    )
    assert extractor.key(clip, "identity") == extractor.key(Clip(picture), "identity")
    assert extractor.key(clip, "sync") != extractor.key(Clip(picture), "sync")


def test_streams_are_timed(drawn_tree: Path):
    picture = packets.stream_times(drawn_tree / "M003/video/front/angry/level_3/001.mp4")
    assert picture.keys() == {"video"}
    assert picture["video"].packets == 63 and picture["video"].seconds == pytest.approx(2.1)
    sound = packets.stream_times(drawn_tree / "M003/audio/angry/level_3/001.m4a")["audio"]
    assert sound.end == pytest.approx(2.1, abs=0.03)


def test_a_part_of_a_folder_of_frames(tmp_path: Path, run_ffmpeg):
    folder = tmp_path / "frames"
    folder.mkdir()
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=s=32x32:r=25:d=1", folder / "%06d.png")
    clip = Clip.parse(f"{folder}#fps=25.0&frames=5,9")
    assert str(clip).endswith("fps=25.0&frames=5,9")
    whole = list(video.frames(Clip(folder, frame_rate=25)))
    assert np.array_equal(list(video.frames(clip)), whole[5:9])
    with pytest.raises(ClipError, match="holds 25 pictures"):
        list(video.frames(Clip(folder, frame_rate=25, pictures=(20, 26))))
    with pytest.raises(CardError, match="bad range of frames"):
        Clip.parse("a#fps=25&frames=9,5")


# ---- protocol show, export, new -----------------------------------------------------------------


def test_protocol_show_counts_and_says_what_is_missing(bench: Bench, mead_tree: Path):
    shown = bench("protocol", "show", "mead-cross-id")
    assert shown.code == 0
    assert "126" in shown.out and "SSERD" in shown.out and "Here: 0 of 252 files" in shown.out
    assert "spfem-bench data index mead ROOT" in shown.out
    bench("data", "index", "mead", mead_tree, "-q")
    assert "Here: 24 of 252 files" in bench("protocol", "show", "mead-cross-id").out
    assert "are shipped" in bench("protocol", "show", "demo-inter-id").out


def test_an_exported_protocol_is_another_one(bench: Bench):
    assert bench("protocol", "export", "ravdess-inter-id", "own").code == 0
    own = protocol("own/my-ravdess-inter-id.toml")
    assert own.name == "my-ravdess-inter-id"
    assert own.list_sha256 == protocol("ravdess-inter-id").list_sha256
    again = bench("protocol", "export", "ravdess-inter-id", "own")
    assert again.code == 1 and "exists already" in again.err
    Path("own/ravdess-inter-id.toml").write_text(Path("own/my-ravdess-inter-id.toml").read_text())
    with pytest.raises(CardError, match="taken for"):
        protocol("own/ravdess-inter-id.toml")
    assert "no such file" in bench("eval", "--method", "source", "--protocol", "no.toml").err


def test_a_new_protocol_loads_and_is_scored_by_its_own_recordings(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, demo_cache: Path
):
    made = bench("protocol", "new", "cards", "--name", "mine")
    assert made.code == 0 and "SPFEM_BENCH_CARDS" in made.err
    monkeypatch.setenv("SPFEM_BENCH_CARDS", "cards")
    assert "anna" in bench("protocol", "show", "mine").out
    acted = trees.puppets(demo_cache, ["P001"], ["neutral"])
    root = tmp_path / "anna"
    root.mkdir()
    for k, name in enumerate(("neutral_1", "neutral_2", "happy_1", "happy_2")):
        os.link(acted("P001", "neutral", k), root / f"{name}.mp4")
    found = findings(bench("data", "index", "mine-clips", tmp_path, "--json", "-q"))
    assert found.keys() <= {"same bytes", "not used"}
    assert "Here: 4 of 4 files" in bench("protocol", "show", "mine").out
    assert bench("protocol", "new", "cards", "--name", "No/thing").code == 2
