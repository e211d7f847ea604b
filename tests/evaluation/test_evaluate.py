"""``spfem-bench eval`` on real strips, from the command line to the record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import cv2
import numpy as np
import pytest
from scipy.io import wavfile

from spfem_bench import files
from spfem_bench.definitions.clips import Clip, Edit
from spfem_bench.definitions.networks import profile_card
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media.ffmpeg import SCALER
from spfem_bench.media.mfcc import mfcc
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.statistics import sync
from tests.conftest import STRIPS, Outcome, World

Run = Callable[..., Outcome]
EVAL = ("eval", "--protocol", "mini", "--profile", "mini", "-q")


def record_of(folder: Path, method: str = "stccl-vd-ned") -> dict[str, Any]:
    record = json.loads((folder / "results" / "mini" / f"{method}.mini.json").read_text())
    record.pop("timings")
    record.pop("checksum")  # of the timings, too
    return dict(record)


def values(record: dict[str, Any]) -> dict[tuple[str, str], float]:
    return {(s["metric"], s["emotion"]): s["value"] for s in record["scores"]}


def test_json_carries_every_promised_field(spfem_bench: Run, tmp_path: Path) -> None:
    done = spfem_bench(*EVAL, "--method", "stccl-ned", "--json")
    assert done.code == 0, done.err
    scores = json.loads(done.out)
    for score in scores:
        assert {
            "method",
            "protocol",
            "setting",
            "metric",
            "emotion",
            "value",
            "low",
            "high",
            "n_items",
            "n_frames",
            "n_refused",
            "signature",
        } <= score.keys()
        assert score["method"] == "stccl-vd-ned"  # the alias is resolved
    assert {s["metric"] for s in scores} == {
        "fad",
        "csim",
        "lse-d",
        "lse-c",
        "av-offset",
        "id-sim",
    }
    assert {s["emotion"] for s in scores} == {"happy", "sad", "avg"}
    headline = {s["metric"]: s for s in scores if s["emotion"] == "avg"}
    for metric, score in headline.items():
        emotions = [s["value"] for s in scores if s["metric"] == metric and s["emotion"] != "avg"]
        assert score["value"] == pytest.approx(sum(emotions) / 2, rel=1e-12)
        assert score["low"] <= score["value"] <= score["high"] or metric == "fad"
        assert (score["n_items"], score["n_refused"]) == (4, 0)
    assert headline["csim"]["n_frames"] == 4 * 40
    # LSE's windows: min(40 frames, sound) - 5 of each clip.
    assert 4 * 30 <= headline["lse-d"]["n_frames"] <= 4 * 35
    assert record_of(tmp_path)["complete"] is True


def test_second_run_computes_no_network_and_is_identical(
    spfem_bench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert spfem_bench(*EVAL, "--method", "ned").code == 0
    first = record_of(tmp_path, "ned")

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a network was loaded")

    monkeypatch.setattr("spfem_bench.features.tracking.load_network", forbidden)
    monkeypatch.setattr("spfem_bench.features.tracking.load_detector", forbidden)
    assert spfem_bench(*EVAL, "--method", "ned").code == 0
    assert record_of(tmp_path, "ned") == first


def test_processes_and_batch_sizes_move_no_score(
    spfem_bench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for variant in ([], ["--batch-size", "7"], ["--workers", "3"]):
        if variant:  # with none, the common cache serves: batches of 32, one process
            monkeypatch.setenv("SPFEM_BENCH_CACHE", str(tmp_path / "-".join(variant)))
        assert spfem_bench(*EVAL, "--method", "stccl-ned", *variant).code == 0
        seen.append(values(record_of(tmp_path)))
    for other in seen[1:]:
        assert other == pytest.approx(seen[0], rel=1e-5)


def test_half_precision_is_another_number_in_another_record(
    spfem_bench: Run, tmp_path: Path
) -> None:
    arguments = (*EVAL, "--method", "ned", "--metrics", "csim,lse-d")
    assert spfem_bench(*arguments).code == 0
    assert spfem_bench(*arguments, "--precision", "bfloat16").code == 0
    whole, half = (
        json.loads((tmp_path / "results" / "mini" / f"ned.{name}.json").read_text())
        for name in ("mini", "mini.bfloat16")
    )
    for a, b in zip(whole["scores"], half["scores"], strict=True):
        assert a["value"] != b["value"]
        assert b["value"] == pytest.approx(a["value"], rel=0.02)
        assert a["signature"] != b["signature"] and "|bfloat16|" in b["signature"]
    assert spfem_bench(*arguments, "--precision", "float16").code == 1


def test_killed_run_goes_on_and_ends_identical(world: World, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "spfem_bench", *EVAL, "--method", "stccl-ned"]

    def start(folder: Path) -> subprocess.Popen[bytes]:
        folder.mkdir(exist_ok=True)
        environment = os.environ | world.environment(folder / "cache")
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL)

    assert start(tmp_path / "whole").wait() == 0
    killed = start(tmp_path / "killed")
    store = tmp_path / "killed" / "cache" / "features"
    while killed.poll() is None and len(list(store.rglob("*.safetensors"))) < 4:
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    kept = {p: p.stat().st_mtime_ns for p in store.rglob("*.safetensors")}
    assert start(tmp_path / "killed").wait() == 0
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items()), "kept features are not redone"
    assert record_of(tmp_path / "killed") == record_of(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["flipped byte", "cut short", "emptied"])
def test_damaged_features_are_found_and_computed_again(
    spfem_bench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setenv("SPFEM_BENCH_CACHE", str(tmp_path / "cache"))
    arguments = (*EVAL, "--method", "ned", "--metrics", "csim")
    assert spfem_bench(*arguments).code == 0
    first = record_of(tmp_path, "ned")
    for path in (tmp_path / "cache" / "features").rglob("*.safetensors"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1  # in the arrays, not in the container's own fields
        path.write_bytes(
            {"flipped byte": content, "cut short": content[:-9], "emptied": b""}[damage]
        )
    assert spfem_bench(*arguments).code == 0
    assert record_of(tmp_path, "ned") == first


def test_a_narrower_run_keeps_the_metrics_of_a_fuller_record(
    spfem_bench: Run, tmp_path: Path
) -> None:
    arguments = (*EVAL[:-1], "--method", "ned", "--metrics")
    assert "keeps" not in spfem_bench(*arguments, "csim,id-sim").err
    whole = record_of(tmp_path, "ned")
    assert "keeps id-sim from before, of the same clips." in spfem_bench(*arguments, "CSIM").err
    merged = record_of(tmp_path, "ned")
    assert sorted(s["metric"] for s in merged["scores"]) == sorted(
        s["metric"] for s in whole["scores"]
    )
    for key in ("items", "settings", "refused", "complete"):
        assert merged[key] == whole[key]


def test_control_source_does_nothing_and_the_table_says_so(
    spfem_bench: Run, tmp_path: Path
) -> None:
    done = spfem_bench(*EVAL, "--method", "source", "--metrics", "fad,id-sim", "--json")
    assert done.code == 0
    headline = {s["metric"]: s for s in json.loads(done.out) if s["emotion"] == "avg"}
    assert headline["fad"]["value"] == pytest.approx(0, abs=1e-6)
    assert "the real clip itself" in headline["fad"]["note"]
    assert headline["id-sim"]["value"] == pytest.approx(1)
    assert headline["fad"]["kind"] == "control"


def test_sound_shifted_by_known_frames_is_found_through_the_whole_path(
    tmp_path: Path, run_ffmpeg: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network for which the offset is provable: both towers see one number per frame.

    The picture's brightness and the sound's loudness follow one random sequence.
    The visual vector of a window is its five brightnesses; the vector of sound is
    five loudnesses read off MFCC 0 (the log energy). They are equal where picture
    and sound belong together, and nowhere else.
    """
    rng = np.random.default_rng(5)
    levels = rng.integers(0, 6, 90)  # six steps of brightness and of loudness

    def visual(batch: np.ndarray) -> dict[str, np.ndarray]:
        steps = batch.mean(axis=(2, 3, 4)) / 40.0  # (B, T): brightness 0 to 200
        windows = [steps[:, i : i + 5] for i in range(steps.shape[1] - 4)]
        return {"visual": np.stack(windows, 1).astype("f4")}

    def sound(batch: np.ndarray) -> dict[str, np.ndarray]:
        energy = batch[:, 0, 0].reshape(-1, 5, 4).mean(axis=2)  # (B, 5): four steps a frame
        return {"audio": ((energy - quiet) / step).astype("f4")}

    monkeypatch.setattr(
        "spfem_bench.features.tracking.load_network", lambda *_: {"frames": visual, "sound": sound}
    )
    # Loudness rises by a factor of two a level, so the log energy by 2 log 2.
    tone = np.sin(2 * np.pi * 1000 * np.arange(640) / 16_000)
    amplitude = 200.0 * 2.0**levels
    whole = np.concatenate([a * tone for a in amplitude]).astype(np.int16)
    step = 2 * np.log(2)
    flat = mfcc((200.0 * np.tile(tone, 30)).astype(np.int16))
    quiet = float(flat[10:-10, 0].mean())
    frames = tmp_path / "frames"
    frames.mkdir()
    for i, level in enumerate(levels):
        cv2.imwrite(str(frames / f"{i:04d}.png"), np.full((64, 64, 3), 40 * level, np.uint8))
    extractor = Extractor(
        profile_card("light"), WeightsStore(), FeatureStore(tmp_path / "store"), faces="aligned"
    )
    clips = {}
    for early in (-8, -3, 0, 1, 8):  # frames by which the sound comes too early
        moved = np.roll(whole, -early * 640)
        wavfile.write(tmp_path / "sound.wav", 16_000, moved)
        clip_path = tmp_path / f"clip{early}.mkv"
        run_ffmpeg(
            "-framerate 25 -i",
            frames / "%04d.png",
            "-i",
            tmp_path / "sound.wav",
            "-c:v ffv1 -pix_fmt bgr0 -c:a pcm_s16le",
            clip_path,
        )
        clips[Clip(clip_path)] = early
        clips[Clip(tmp_path / "clip0.mkv", edit=Edit("shifted-audio", early))] = early
    for clip, early in clips.items():
        assert extractor.ensure({clip: frozenset({"sync"})}) == {}
        found = extractor.load(clip, "sync")
        assert found is not None
        parts = sync.sync_part(
            found.outputs["visual"], found.outputs["audio"], found.frames, max_shift=15
        )
        assert parts.value("offset") == early
        assert parts.value("confidence") > 1


# ---- a user's own method -----------------------------------------------------------------


def test_own_videos_score_as_the_published_columns_do(
    spfem_bench: Run, own: Path, tmp_path: Path
) -> None:
    arguments = ("--metrics", "fad,csim,lse-d")
    assert spfem_bench(*EVAL, "--method", "stccl-ned", *arguments).code == 0
    done = spfem_bench(*EVAL, "--method", "my-model", "--videos", own, *arguments)
    assert done.code == 0, done.err
    assert values(record_of(tmp_path, "my-model")) == pytest.approx(
        values(record_of(tmp_path)), rel=1e-6
    )


def test_folders_of_frames_with_sound_score_too(
    spfem_bench: Run, own: Path, tmp_path: Path, run_ffmpeg: Callable[..., None]
) -> None:
    frames = tmp_path / "frames"
    for name in STRIPS:
        (frames / name).mkdir(parents=True)
        # By our scaler: another way from YUV to RGB moves CSIM by half a percent.
        run_ffmpeg(
            "-i", own / f"{name}.mkv", "-vf", f"scale=flags={SCALER}", frames / name / "%06d.png"
        )
        run_ffmpeg("-i", own / f"{name}.mkv", frames / f"{name}.wav")
    arguments = (*EVAL, "--method", "mine", "--metrics", "csim,lse-d", "--videos")
    assert spfem_bench(*arguments, own).code == 0
    video = values(record_of(tmp_path, "mine"))
    done = spfem_bench(*arguments, frames, "--frame-rate", "30")
    assert done.code == 0, done.err
    assert values(record_of(tmp_path, "mine")) == pytest.approx(video, rel=1e-6)
    refused = spfem_bench(*arguments, frames)
    assert refused.code == 2
    assert "needs its frame rate" in refused.err and "--frame-rate" in refused.err


@pytest.mark.parametrize("method", ["source", "ned", "stccl-ned"])
def test_own_videos_need_a_name_of_their_own(spfem_bench: Run, own: Path, method: str) -> None:
    done = spfem_bench(*EVAL, "--method", method, "--videos", own)
    assert done.code == 1 and "Give yours another name" in done.err


def test_preflight_names_what_is_missing_extra_and_unreadable_before_any_network(
    spfem_bench: Run, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "spfem_bench.features.extract.Extractor.ensure",
        lambda *_: pytest.fail("features were computed"),
    )
    (own / f"{STRIPS[0]}.mkv").unlink()
    (own / f"{STRIPS[1]}.mkv").write_bytes(b"")
    (own / "M003_source_sad_33.mp4").write_bytes(b"a name that nothing expects")
    done = spfem_bench(*EVAL, "--method", "my-model", "--videos", own)
    assert done.code == 2
    assert f"{STRIPS[0]}.mp4" in done.err
    assert "the file is empty" in done.err
    assert "extra, expected by no item: M003_source_sad_33.mp4" in done.err
    assert "--partial" in done.err


def test_bad_videos_are_refused_one_by_one_and_the_rest_is_scored(
    spfem_bench: Run, own: Path, tmp_path: Path, run_ffmpeg: Callable[..., None]
) -> None:
    # No face at all; two faces of one size; the fourth stays good.
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=256x256:r=25:d=1.6", own / "none.mkv")
    (own / "none.mkv").replace(own / f"{STRIPS[0]}.mkv")
    run_ffmpeg(
        "-i",
        own / f"{STRIPS[1]}.mkv",
        "-filter_complex [0:v]split[a][b];[a][b]hstack -c:v ffv1 -c:a copy",
        own / "two.mkv",
    )
    (own / "two.mkv").replace(own / f"{STRIPS[1]}.mkv")
    # A face in every third frame only: what lies between is short enough to interpolate, but
    # interpolated faces are no evidence of a face.
    run_ffmpeg(
        "-i",
        own / f"{STRIPS[2]}.mkv",
        "-vf drawbox=t=fill:enable='mod(n,3)' -c:v ffv1 -c:a copy",
        own / "third.mkv",
    )
    (own / "third.mkv").replace(own / f"{STRIPS[2]}.mkv")
    arguments = (*EVAL[:-1], "--method", "mine", "--metrics", "csim", "--videos", own)
    done = spfem_bench(*arguments)
    assert done.code == 2
    assert "no face in any of its 40 frames" in done.err
    assert "two faces of similar size" in done.err
    assert "a face in only" in done.err
    scores = {s["emotion"]: s for s in record_of(tmp_path, "mine")["scores"]}
    assert scores["avg"]["value"] is None
    assert scores["happy"]["value"] is not None and scores["happy"]["n_refused"] == 1
    partial = spfem_bench(*arguments, "--partial")
    assert partial.code == 0
    scores = {s["emotion"]: s for s in record_of(tmp_path, "mine")["scores"]}
    assert scores["avg"]["partial"] is True and scores["avg"]["n_refused"] == 3
    assert "partial:1of4" in scores["avg"]["signature"]


def test_sound_missing_or_clip_too_short_refuses_lip_sync_only(
    spfem_bench: Run, own: Path, tmp_path: Path, run_ffmpeg: Callable[..., None]
) -> None:
    run_ffmpeg("-i", own / f"{STRIPS[0]}.mkv", "-an", "-c:v", "copy", own / "silent.mkv")
    (own / "silent.mkv").replace(own / f"{STRIPS[0]}.mkv")
    run_ffmpeg("-i", own / f"{STRIPS[1]}.mkv", "-t 0.2 -c:v ffv1 -c:a pcm_s16le", own / "short.mkv")
    (own / "short.mkv").replace(own / f"{STRIPS[1]}.mkv")
    done = spfem_bench(
        *EVAL[:-1], "--method", "mine", "--metrics", "fad,lse-d", "--videos", own, "--partial"
    )
    assert "has no sound" in done.err and "ffmpeg -i" in done.err
    assert "too short for lip sync: 5 frames" in done.err
    scores = {
        s["metric"]: s for s in record_of(tmp_path, "mine")["scores"] if s["emotion"] == "avg"
    }
    assert scores["fad"]["n_items"] == 4 and not scores["fad"]["partial"]
    assert scores["lse-d"]["n_items"] == 2 and scores["lse-d"]["n_refused"] == 2


# ---- names, weights, folders -------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--method", "stcl-ned"], "Did you mean 'stccl-ned'?"),
        (["--method", "eat"], "has no clips of 'eat'"),
        (["--method", "ned", "--protocol", "minni"], "Did you mean 'mini'?"),
        (["--method", "ned", "--metrics", "lsed"], "Did you mean 'lse-d'?"),
        (["--method", "ned", "--profile", "lite"], "Did you mean 'light'?"),
        (["--method", "mine", "--videos", "nowhere"], "nowhere: no such folder"),
        (["--method", "../../x", "--videos", "."], "is no name for a method"),
    ],
)
def test_unknown_names_suggest_near_ones(
    spfem_bench: Run, arguments: list[str], expected: str
) -> None:
    done = spfem_bench(*EVAL, *arguments)
    assert done.code == 1
    assert expected in done.err
    assert len(done.err.strip().splitlines()) == 1


def test_missing_weights_say_what_to_type_and_leave_the_rest(
    spfem_bench: Run, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    for file in world.weights.iterdir():
        if file.name != "random.model":
            (folder / file.name).symlink_to(file.resolve())
    refused = spfem_bench(*EVAL, "--method", "ned", "--weights-dir", folder)
    assert refused.code == 2
    assert "spfem-bench networks fetch syncnet-random" in refused.err
    done = spfem_bench(*EVAL, "--method", "ned", "--weights-dir", folder, "--partial", "--json")
    assert done.code == 0
    scores = {s["metric"]: s for s in json.loads(done.out) if s["emotion"] == "avg"}
    assert scores["csim"]["value"] is not None
    assert scores["lse-d"]["value"] is None and "networks fetch" in scores["lse-d"]["note"]


def test_wrong_weights_are_never_loaded(spfem_bench: Run, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "068.ckpt").write_bytes(b"not MobileFaceNet")
    done = spfem_bench(*EVAL, "--method", "ned", "--metrics", "id-sim", "--weights-dir", folder)
    assert done.code == 2
    assert (
        "068.ckpt is not the pinned file" in done.err and "17 bytes, expected 4130855" in done.err
    )


def test_results_folder_that_cannot_be_written(spfem_bench: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    done = spfem_bench(
        *EVAL, "--method", "ned", "--metrics", "csim", "--results", tmp_path / "file" / "below"
    )
    assert done.code == 1
    assert "cannot write" in done.err and "Name a folder you may write to" in done.err


def test_a_complete_store_may_be_read_only(
    spfem_bench: Run, common_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    evaluation = (*EVAL, "--method", "ned", "--metrics", "csim")
    first = spfem_bench(*evaluation)
    real, empty = files._create, tmp_path / "cache"

    def create(name: Callable[[], Path]) -> tuple[Path, IO[bytes]]:
        def refused() -> Path:  # the root user may write everywhere, so it is simulated
            path = name()
            if path.is_relative_to(common_cache) or path.is_relative_to(empty):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            return path

        return real(refused)

    monkeypatch.setattr(files, "_create", create)
    again = spfem_bench(*evaluation)
    assert (first.code, again.code) == (0, 0) and again.out == first.out
    monkeypatch.setenv("SPFEM_BENCH_CACHE", str(empty))
    lacking = spfem_bench(*evaluation, "-q")
    assert lacking.code == 1
    assert lacking.err == (
        f"Error: cannot write {empty / 'features'}: Read-only file system. "
        "Name a folder you may write to\n"
    )


def test_full_disk_is_one_line_and_leaves_no_half_file(
    spfem_bench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setenv("SPFEM_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("spfem_bench.files.os.replace", full)
    done = spfem_bench(*EVAL, "--method", "ned", "--metrics", "csim")
    assert done.code == 1
    assert "No space left on device" in done.err and "Free some space" in done.err
    assert not list(tmp_path.rglob(".new-*"))
