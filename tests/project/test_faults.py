"""Machines that die, disks that fill, decoders that hang, and files that lie about their size."""

from __future__ import annotations

import os
import resource
import shutil
import struct
import subprocess
import sys
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from spfem_bench.definitions.clips import Clip, Span
from spfem_bench.errors import ClipError
from spfem_bench.media import audio, ffmpeg, ffmpeg_process, headers, packets
from spfem_bench.media.video import content_id, file_sha256, frames, read_picture
from tests.conftest import ROOT

RunFfmpeg = Callable[..., None]


@pytest.mark.skipif(sys.platform == "win32", reason="runs are forked")
def test_killed_crowded_and_spoilt_runs_end_with_the_same_record() -> None:
    """A short turn of benchmarks/faults.py, which checks everything itself."""
    options = ("--kills", "6", "--rounds", "1", "--cold", "0")
    command = [sys.executable, ROOT / "benchmarks/faults.py", *options]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    environment = os.environ | threads | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "6 kills" in done.stdout and "0 corrupted" in done.stdout


FILL = """
import sys
from pathlib import Path
import numpy as np
from spfem_bench.errors import StorageError
from spfem_bench.evaluation.record import save
from spfem_bench.features.store import FeatureStore

folder = Path(sys.argv[1])
store = FeatureStore(folder)
stored = 0
try:
    while stored < 100:
        store.put({"clip": stored}, {"x": np.full(10_000, stored, np.uint8)})
        stored += 1
except StorageError as error:
    print(error)
try:
    save({"items": ["x" * 200_000]}, folder / "record.json")
except StorageError as error:
    print(error)
assert 10 < stored < 40
assert all((store.get({"clip": n})["x"] == n).all() for n in range(stored))
assert not (folder / "record.json").exists()
assert not [p for p in folder.rglob("*") if p.is_file() and p.suffix != ".safetensors"]
"""


def test_a_full_disk_is_one_line_and_leaves_no_half_file(tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare, to mount a small disk for one process")
    mount = 'mount -t tmpfs -o size=256k none "$1" && exec "$2" -c "$3" "$1"'
    command = ["unshare", "-rm", "sh", "-c", mount, "sh", tmp_path, sys.executable, FILL]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if "unshare:" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"may not mount a small disk here: {done.stderr.strip()[:80]}")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("No space left on device. Free some space" in line for line in lines)


# ---- decoders that hang --------------------------------------------------------------------


@pytest.fixture
def clip(tmp_path: Path, run_ffmpeg: RunFfmpeg) -> Path:
    """Half a second of pictures and sound."""
    path = tmp_path / "clip.mp4"
    run_ffmpeg(
        "-f lavfi -i testsrc2=s=64x64:r=25:d=0.5 -f lavfi -i sine=d=0.5 -c:v libx264",
        "-c:a aac",
        path,
    )
    return path


@pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a shell script")
@pytest.mark.parametrize("at", ["probe", "first frame", "later frame", "sound", "end"])
def test_a_decoder_that_hangs_is_ended_and_reported(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    real, stand_in = ffmpeg.program(), tmp_path / "ffmpeg"
    picture = "printf 'P6\\n1 1\\n255\\nabc'; "
    says = {"later frame": picture, "end": f"{picture} exec >&-; "}.get(at, "")
    when = {"probe": "*", "sound": "*s16le*"}.get(at, "*image2pipe*")
    hang = f'case "$*" in {when}) {says} exec sleep 60;; esac\n'
    stand_in.write_text(f'#!/bin/sh\n{hang}exec "{real}" "$@"\n')
    stand_in.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "program", lambda: str(stand_in))
    monkeypatch.setattr(ffmpeg_process, "PATIENCE", 0.4)
    began = time.monotonic()
    with pytest.raises(ClipError, match=r"hung: nothing came for 0\.4 s") as caught:
        audio.samples(Clip(clip)) if at == "sound" else list(frames(Clip(clip)))
    assert time.monotonic() - began < 10
    assert str(clip) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_reader_may_be_slower_than_any_decoder(
    tmp_path: Path, run_ffmpeg: RunFfmpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the time in which the reader waits counts: networks may take theirs."""
    path = tmp_path / "a.mkv"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=256x256:r=25:d=0.4", "-c:v", "ffv1", path)
    monkeypatch.setattr(ffmpeg_process, "PATIENCE", 2.0)
    count = 0
    for _ in frames(Clip(path)):
        count += 1
        if count == 2:
            time.sleep(3)
    assert count == 10


# ---- files that claim more than there is ---------------------------------------------------


def png(width: int, height: int) -> bytes:
    """A PNG of some hundred bytes that claims any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(3 * min(width, 1000) + 1))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(50_000, 50_000), (9000, 9000), (2**31 - 1, 1)])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_picture_that_claims_too_many_pixels_is_refused_unread(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    path = tmp_path / "000.png"
    path.write_bytes(png(*size))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ClipError, match="33,554,432, such as 8192 x 4096") as caught:
        read_picture(path)
    assert "000.png: pictures of" in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_a_large_picture_is_read(tmp_path: Path) -> None:
    path = tmp_path / "000.png"
    cv2.imwrite(str(path), np.zeros((1000, 7680, 3), np.uint8))
    assert read_picture(path).shape == (1000, 7680, 3)


def test_a_jpeg_of_a_thousand_scans_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "000.jpg"
    picture = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    assert read_picture(path).shape == (64, 64, 3)
    content = path.read_bytes()
    last = content.rindex(b"\xff\xda")
    path.write_bytes(content[:last] + content[last:-2] * 1000 + content[-2:])
    with pytest.raises(ClipError, match="not a readable picture"):
        read_picture(path)


def test_a_picture_file_of_too_many_bytes_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "000.bmp"
    cv2.imwrite(str(path), np.zeros((8, 8, 3), np.uint8))
    with path.open("r+b") as file:
        file.truncate(1 << 40)  # no block of it is on the disk
    with pytest.raises(ClipError, match="more than 269 MB for one picture"):
        read_picture(path)


@pytest.mark.parametrize("suffix", [".webp", ".tiff", ".hdr"])
def test_a_picture_of_another_format_under_a_pictures_name_is_refused(
    tmp_path: Path, suffix: str
) -> None:
    other = tmp_path / f"other{suffix}"
    assert cv2.imwrite(str(other), np.zeros((8, 8, 3), np.float32 if suffix == ".hdr" else "u1"))
    other.rename(tmp_path / "000.png")
    with pytest.raises(ClipError, match="not a readable picture"):
        read_picture(tmp_path / "000.png")


@pytest.mark.parametrize("side", [30_000, 9000])
def test_a_video_that_claims_too_many_pixels_is_refused_unread(
    tmp_path: Path, run_ffmpeg: RunFfmpeg, side: int
) -> None:
    # Both the container and the codec's own header claim the size.
    path = tmp_path / "a.avi"
    run_ffmpeg("-f", "lavfi", "-i", "color=s=64x64:r=25:d=0.2", "-c:v", "png", path)
    content = path.read_bytes()
    assert content.count(struct.pack("<II", 64, 64)) >= 1
    content = content.replace(struct.pack("<II", 64, 64), struct.pack("<II", side, side))
    at = content.index(b"IHDR")
    head = b"IHDR" + struct.pack(">II", side, side) + content[at + 12 : at + 17]
    whole = content[:at] + head + struct.pack(">I", zlib.crc32(head)) + content[at + 21 :]
    path.write_bytes(whole)
    with pytest.raises(ClipError, match=f"pictures of {side} x {side} pixels. Allowed: 33,554,432"):
        list(frames(Clip(path)))


def test_a_clip_longer_than_an_hour_is_refused_but_its_parts_are_read(
    tmp_path: Path, run_ffmpeg: RunFfmpeg
) -> None:
    path = tmp_path / "long.mkv"
    run_ffmpeg(
        "-f lavfi -i color=s=16x16:r=0.1:d=3700 -f lavfi -i anullsrc=r=8000:cl=mono:d=3700",
        "-t 3700 -c:v ffv1 -c:a aac",
        path,
    )
    for read in (lambda c: next(frames(c)), audio.samples):
        with pytest.raises(ClipError, match=r"lasts longer than 3600 s.*#t=start,end"):
            read(Clip(path))
    part = Clip(path, span=Span(20.0, 21.0))
    assert len(list(frames(part))) == 25
    assert len(audio.samples(part)) == 16_000


def test_a_late_time_stamp_does_not_make_frames_and_sound_without_end(
    tmp_path: Path, run_ffmpeg: RunFfmpeg
) -> None:
    """The file says that it lasts some seconds; its last packets come a day later.

    ffmpeg would queue two million frames in 1.4 GB before it gave one of them.
    """
    path = tmp_path / "a.flv"  # an FLV says how long it lasts in a field of its own
    run_ffmpeg(
        "-f lavfi -i testsrc2=s=64x64:r=25:d=2 -f lavfi -i sine=d=2",
        "-vf setpts='if(gt(N,45),PTS+90000/TB,PTS)'",
        "-af asetpts='if(gt(T,1.5),PTS+90000/TB,PTS)' -fps_mode vfr -c:v flv -c:a aac",
        path,
    )
    content = path.read_bytes()
    at = content.index(b"duration") + 9
    path.write_bytes(content[:at] + struct.pack(">d", 2.0) + content[at + 8 :])
    assert (headers.probe(path).seconds or 0) < 20
    began = time.monotonic()
    assert sum(1 for _ in frames(Clip(path))) <= 60
    assert len(audio.samples(Clip(path))) <= 3 * 16_000
    assert time.monotonic() - began < 10


def test_a_clip_whose_header_hides_its_length_is_refused_when_it_is_reached(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg, "LONGEST", 0.2)
    monkeypatch.setattr(audio, "LARGEST", 6400)
    monkeypatch.setattr("spfem_bench.media.video.check_length", lambda *_: None)
    monkeypatch.setattr("spfem_bench.media.audio.check_length", lambda *_: None)
    for read in (lambda c: list(frames(c)), audio.samples):
        with pytest.raises(ClipError, match=r"lasts longer than 0\.2 s"):
            read(Clip(clip))


def test_sound_that_claims_a_gigahertz_is_refused(tmp_path: Path, run_ffmpeg: RunFfmpeg) -> None:
    path = tmp_path / "a.wav"
    run_ffmpeg("-f", "lavfi", "-i", "sine=d=0.2:r=96000", path)
    assert len(audio.samples(Clip(path))) == 3200
    content = path.read_bytes()
    path.write_bytes(content[:24] + struct.pack("<I", 1_500_000_000) + content[28:])
    with pytest.raises(ClipError, match=r"sound of 1500000000 samples a second\. Allowed: 768000"):
        audio.samples(Clip(path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_named_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "000.png"
    os.mkfifo(path)
    for read in (content_id, lambda c: file_sha256(c.path), lambda c: list(frames(c))):
        with pytest.raises(ClipError):
            read(Clip(path))
    with pytest.raises(ClipError, match="not a file"):
        content_id(Clip(tmp_path, frame_rate=25.0))


def test_a_box_of_no_size_does_not_stop_the_search_for_an_mp4s_end(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(struct.pack(">I4s", 8, b"ftyp") + bytes([0, 0, 0, 3]) * 5_000_000)
    began = time.monotonic()
    with pytest.raises(ClipError):
        headers.probe(path)
    assert time.monotonic() - began < 5


# ---- what one clip may cost ------------------------------------------------------------------


def with_duration(path: Path, target: Path, units: int) -> None:
    """Copy an mp4, its first track's frames *units* long: one flipped bit makes such a file."""
    content = bytearray(path.read_bytes())
    at = content.index(b"stts") + 16
    content[at : at + 4] = struct.pack(">I", units)
    target.write_bytes(content)


def ffmpeg_peak(path: Path) -> int:
    """Return the peak of resident memory, in MB, of the ffmpeg processes that decode a clip.

    Counted in a new process: a child's peak begins with the size of the one that starts it.
    """
    script = """
import resource, sys
from pathlib import Path
from spfem_bench.definitions.clips import Clip
from spfem_bench.errors import ClipError
from spfem_bench.media.video import frames
try:
    for _ in frames(Clip(Path(sys.argv[1]))):
        pass
except ClipError:
    pass
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss >> 10)
"""
    command = [sys.executable, "-c", script, str(path)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_a_flipped_bit_in_a_frames_duration_does_not_fill_the_memory(
    tmp_path: Path, run_ffmpeg: RunFfmpeg
) -> None:
    """The movie's header has the right length; ffmpeg would queue 6 GB of frames."""
    whole, path = tmp_path / "whole.mp4", tmp_path / "a.mp4"
    run_ffmpeg(
        "-f", "lavfi", "-i", "testsrc2=s=256x256:r=25:d=1", "-c:v", "libx264", "-bf", "0", whole
    )
    with_duration(whole, path, 512 + (1 << 24))
    assert (headers.probe(path).seconds or 0) < 2

    with pytest.raises(ClipError, match=r"one picture is shown for 1,311 s\. Allowed: 30 s"):
        list(frames(Clip(path)))
    assert ffmpeg_peak(path) < 300


def test_two_frames_an_hour_apart_are_refused(tmp_path: Path, run_ffmpeg: RunFfmpeg) -> None:
    path = tmp_path / "a.mkv"
    run_ffmpeg(
        "-f lavfi -i testsrc2=s=640x360:r=25:d=0.08 -vf setpts='if(gt(N,0),3590/TB,0)'",
        "-fps_mode vfr -c:v libx264",
        path,
    )
    with pytest.raises(ClipError, match="one picture is shown for 3,590 s"):
        next(frames(Clip(path)))


def test_a_long_gap_is_filled_without_a_picture_for_each_frame(
    tmp_path: Path, run_ffmpeg: RunFfmpeg
) -> None:
    # 25 s of 1280 x 720: 625 frames of 2.8 MB, which were queued one by one.
    path = tmp_path / "a.mkv"
    run_ffmpeg(
        "-f lavfi -i testsrc2=s=1280x720:r=25:d=0.6 -vf setpts='if(gt(N,4),PTS+25/TB,PTS)'",
        "-fps_mode vfr -c:v libx264 -bf 0",
        path,
    )
    assert sum(1 for _ in frames(Clip(path))) == 25 * 25 + 15
    assert ffmpeg_peak(path) < 700


def test_converting_before_a_gap_is_filled_moves_no_pixel(
    tmp_path: Path, run_ffmpeg: RunFfmpeg, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.mkv"
    run_ffmpeg(
        "-f lavfi -i testsrc2=s=96x64:r=50:d=0.6 -vf setpts='if(gt(N,7),PTS+0.7/TB,PTS)'",
        "-fps_mode vfr -c:v libx264",
        path,
    )
    before = np.array(list(frames(Clip(path))))
    monkeypatch.setattr("spfem_bench.media.video.FEW", 10)
    np.testing.assert_array_equal(before, np.array(list(frames(Clip(path)))))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process's memory")
def test_ffmpegs_memory_is_limited_by_the_kernel(
    clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ffmpeg_process, "_memory", lambda pixels: 40_000_000)
    with pytest.raises(ClipError, match=r"want of memory: it may take 0\.0 GB") as caught:
        list(frames(Clip(clip)))
    assert str(clip) in str(caught.value) and len(str(caught.value).splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process's time")
def test_ffmpegs_processor_time_is_limited_by_the_kernel(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, stand_in = ffmpeg.program(), tmp_path / "ffmpeg"
    stand_in.write_text(
        f'#!/bin/sh\ncase "$*" in *image2pipe*) while :; do :; done;; esac\nexec "{real}" "$@"\n'
    )
    stand_in.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "program", lambda: str(stand_in))
    monkeypatch.setattr(ffmpeg_process, "DECODING", 1)
    with pytest.raises(ClipError, match="more than 1 s of processor time"):
        list(frames(Clip(clip)))


def test_a_file_of_too_many_packets_is_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packets, "MOST_PACKETS", 20)
    with pytest.raises(ClipError, match="more than 20 packets"):
        packets.stream_times(clip)


def edited(path: Path, target: Path, count: int) -> None:
    """Copy an mp4 whose index lies at its end; its edit list plays the beginning many times."""

    def boxes(content: bytes) -> bytes:
        at, made = 0, b""
        while at < len(content):
            size, kind = struct.unpack(">I4s", content[at : at + 8])
            body = content[at + 8 : at + size]
            if kind in (b"moov", b"trak", b"edts"):
                body = boxes(body)
            if kind == b"elst":
                body = struct.pack(">II", 0, count) + struct.pack(">IIHH", 40, 0, 1, 0) * count
            made += struct.pack(">I4s", len(body) + 8, kind) + body
            at += size
        return made

    target.write_bytes(boxes(path.read_bytes()))


def test_packets_are_read_without_holding_them(tmp_path: Path, run_ffmpeg: RunFfmpeg) -> None:
    whole, path = tmp_path / "whole.mp4", tmp_path / "a.mp4"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=32x32:r=25:d=1", "-c:v", "mjpeg", whole)
    edited(whole, path, 60_000)
    headers.probe(path)
    tracemalloc.start()
    try:
        assert packets.stream_times(path)["video"].packets == 60_000
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
