"""Frames and sound, read back from videos whose every pixel is known beforehand.

Most videos here are lossless RGB (PNG pictures in Matroska), so that what comes
out can be compared exactly with the arrays that went in.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import wave
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from spfem_bench.definitions.clips import Clip, Crop
from spfem_bench.errors import ClipError
from spfem_bench.media import audio, ffmpeg, headers, video
from spfem_bench.media.pictures import numbered_pictures
from spfem_bench.media.video import content_id, frames

Pictures = npt.NDArray[np.uint8]
Sound = npt.NDArray[np.int16]
RunFfmpeg = Callable[..., None]

LOSSLESS = ("-c:v", "png", "-pix_fmt", "rgb24")


# --- material -------------------------------------------------------------------------


def numbered(count: int, width: int = 32, height: int = 24) -> Pictures:
    """Pictures of one flat grey each: picture n has the value 3 n + 10."""
    values = (10 + 3 * np.arange(count)).astype(np.uint8)
    return np.broadcast_to(values[:, None, None, None], (count, height, width, 3)).copy()


def numbers_of(pictures: list[Pictures]) -> list[int]:
    """Which of :func:`numbered` each picture is."""
    return [round((float(p.mean()) - 10) / 3) for p in pictures]


def noise(count: int, width: int, height: int, seed: int = 0) -> Pictures:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.fixture
def make_video(tmp_path: Path, run_ffmpeg: RunFfmpeg) -> Callable[..., Path]:
    """Write pictures as a video file, by default without loss."""

    def make(
        name: str,
        pictures: Pictures,
        rate: str = "25",
        codec: tuple[str, ...] = LOSSLESS,
        before: tuple[str | Path, ...] = (),
    ) -> Path:
        raw = tmp_path / "pictures.rgb"
        raw.write_bytes(pictures.tobytes())
        _, height, width, _ = pictures.shape
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        run_ffmpeg(
            f"-f rawvideo -pix_fmt rgb24 -s {width}x{height} -r",
            *(rate, "-i", raw, *before, *codec),
            Path(f"file:{path}"),
        )
        return path

    return make


def write_wav(path: Path, sound: Sound, rate: int) -> Path:
    """Write int16 (samples,) or (samples, channels); the standard library's writer."""
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1 if sound.ndim == 1 else sound.shape[1])
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(sound.astype("<i2").tobytes())
    return path


def tone(seconds: float, rate: int, hertz: float = 440.0, peak: float = 10_000.0) -> Sound:
    time = np.arange(round(seconds * rate)) / rate
    return np.round(peak * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def first_loud(sound: Sound) -> int:
    return int(np.argmax(np.abs(sound.astype(int)) > 2000))


def read(path: Path, **parts: object) -> list[Pictures]:
    return list(frames(replace(Clip(path), **parts)))


# --- frame rates ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.mkv", "a.avi", "a.mov"])
def test_25_fps_comes_out_as_it_went_in(make_video, name):
    pictures = noise(12, 32, 24)
    np.testing.assert_array_equal(read(make_video(name, pictures)), pictures)


def test_frames_are_rgb_bytes_of_height_width_3(make_video):
    red = np.zeros((2, 24, 32, 3), np.uint8)
    red[..., 0] = 255
    frame = read(make_video("a.mkv", red))[0]
    assert frame.shape == (24, 32, 3)
    assert frame.dtype == np.uint8
    assert frame[0, 0].tolist() == [255, 0, 0]


def test_30_fps_keeps_the_nearest_frame_and_drops_every_sixth(make_video):
    # Frame n is shown at n / 25 s, where the source stands at 1.2 n: 0, 1.2, 2.4, 3.6,
    # 4.8, then 6 again. To the nearest: 0 1 2 4 5, so of each six frames the fourth goes.
    got = numbers_of(read(make_video("a.mkv", numbered(60), "30")))
    assert got == [6 * group + n for group in range(10) for n in (0, 1, 2, 4, 5)]


def test_24_fps_repeats_one_frame_a_second(make_video):
    # Source frame n falls on output frame 25 n / 24, to the nearest, halves upwards: n up to
    # 11, n + 1 from 12 (12.5) on. Output 12, on which none falls, shows the last one, 11.
    got = numbers_of(read(make_video("a.mkv", numbered(48), "24")))
    second = [*range(12), *range(11, 24)]
    assert got == second + [n + 24 for n in second]


@pytest.mark.parametrize(
    ("rate", "frames_in", "frames_out"),
    [("50", 50, 25), ("60", 60, 25), ("30000/1001", 60, 50), ("12.5", 10, 20), ("25", 1, 1)],
)
def test_the_number_of_frames_is_25_a_second(make_video, rate, frames_in, frames_out):
    # 60 frames at 30000/1001 last 2.002 s: 50.05 frames, to the nearest 50.
    exact = frames_in / Fraction(rate) * 25
    assert abs(exact - frames_out) <= Fraction(1, 2)
    assert len(read(make_video("a.mkv", numbered(frames_in), rate))) == frames_out


def test_a_variable_frame_rate_is_followed_by_its_time_stamps(make_video, tmp_path, run_ffmpeg):
    even = make_video("even.mkv", numbered(20))
    # Ten frames of 1/25 s, then ten that each stay for 3/25 s.
    stamps = "setpts='if(lt(N,10),N,10+3*(N-10))/(25*TB)'"
    path = tmp_path / "uneven.mkv"
    run_ffmpeg("-i", even, "-vf", stamps, "-fps_mode", "vfr", *LOSSLESS, path)
    got = numbers_of(read(path))
    # How long the last frame stays is not in the file.
    assert got[:37] == [*range(10), *(n for n in range(10, 19) for _ in range(3))]
    assert set(got[37:]) == {19}
    assert len(got) <= 40


# --- rotation, sizes, colour depth ----------------------------------------------------


def corners(frame: Pictures) -> list[list[int]]:
    return [frame[y, x].tolist() for y in (0, -1) for x in (0, -1)]


@pytest.mark.parametrize("degrees", [90, 180, 270, -90])
def test_rotation_metadata_is_applied(make_video, tmp_path, run_ffmpeg, degrees):
    picture = np.zeros((24, 40, 3), np.uint8)
    # red, green above blue, white
    picture[:12, :20, 0] = picture[:12, 20:, 1] = picture[12:, :20, 2] = 255
    picture[12:, 20:] = 255
    stored = make_video("stored.mov", np.stack([picture] * 3))
    path = tmp_path / "turned.mov"
    run_ffmpeg("-display_rotation", degrees, "-i", stored, "-c", "copy", path)
    # ffmpeg's option turns counter-clockwise, as np.rot90 does.
    upright = np.rot90(picture, degrees // 90 % 4)
    got = read(path)
    assert len(got) == 3
    assert corners(got[0]) == corners(upright)
    np.testing.assert_array_equal(got[0], upright)
    assert headers.probe(path).size == (upright.shape[1], upright.shape[0])


def test_a_crop_is_taken_from_the_upright_picture(make_video, tmp_path, run_ffmpeg):
    pictures = noise(2, 40, 24)
    stored = make_video("stored.mov", pictures)
    path = tmp_path / "turned.mov"
    run_ffmpeg("-display_rotation", 90, "-i", stored, "-c", "copy", path)
    # Upright it is 24 wide and 40 high: this rectangle would not fit the stored one.
    got = read(path, crop=Crop(2, 30, 20, 10))
    np.testing.assert_array_equal(got[0], np.rot90(pictures[0])[30:40, 2:22])


@pytest.mark.parametrize(("width", "height"), [(33, 47), (1, 1), (2, 3)])
def test_odd_sizes_are_kept(make_video, width, height):
    pictures = noise(2, width, height)
    np.testing.assert_array_equal(read(make_video("a.mkv", pictures)), pictures)


def test_odd_sizes_with_halved_colour_are_kept(make_video):
    codec = ("-c:v", "ffv1", "-pix_fmt", "yuv420p")
    got = read(make_video("a.mkv", numbered(3, 33, 47), codec=codec))
    assert got[0].shape == (47, 33, 3)
    assert numbers_of(got) == [0, 1, 2]


@pytest.mark.parametrize("depth", ["gbrp10le", "yuv444p10le", "yuv420p10le"])
def test_10_bits_become_the_nearest_8(make_video, depth):
    codec = ("-c:v", "ffv1", "-pix_fmt", depth)
    pictures = numbered(5)
    got = read(make_video("a.mkv", pictures, codec=codec))
    assert got[0].dtype == np.uint8
    np.testing.assert_allclose(np.stack(got).astype(int), pictures, atol=1)


# --- crops ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "crop",
    [
        Crop(0, 0, 16, 16),
        Crop(16, 8, 24, 12),
        Crop(7, 4, 10, 10),
        Crop(8, 5, 10, 10),
        Crop(7, 5, 11, 13),
        Crop(6, 4, 9, 7),
        Crop(51, 39, 1, 1),
        Crop(0, 0, 52, 40),
    ],
)
@pytest.mark.parametrize("rate", ["25", "30"])
def test_a_crop_of_rgb_is_exactly_its_rectangle(make_video, crop, rate):
    pictures = noise(3, 52, 40)
    got = read(make_video("a.mkv", pictures, rate), crop=crop)
    rows, columns = slice(crop.y, crop.y + crop.height), slice(crop.x, crop.x + crop.width)
    # The first two frames are the source's at both rates (1.2 is nearest to 1).
    np.testing.assert_array_equal(got[:2], pictures[:2, rows, columns])


@pytest.mark.parametrize("crop", [Crop(8, 4, 20, 16), Crop(7, 5, 21, 15)])
@pytest.mark.parametrize("layout", ["yuv444p", "yuv420p"])
def test_a_crop_shows_what_the_whole_frame_shows_there(make_video, crop, layout):
    # Smooth pictures: at a crop's edge, halved colour is interpolated without the outside.
    ramp = np.linspace(20, 230, 52)[None, :, None] + np.linspace(-20, 20, 40)[:, None, None]
    picture = np.repeat(ramp, 3, axis=2)
    picture[..., 1] = 255 - picture[..., 1]
    video = make_video(
        "a.mkv",
        np.stack([picture.astype(np.uint8)] * 2),
        codec=("-c:v", "ffv1", "-pix_fmt", layout),
    )
    whole = read(video)[0].astype(int)
    rows, columns = slice(crop.y, crop.y + crop.height), slice(crop.x, crop.x + crop.width)
    np.testing.assert_allclose(read(video, crop=crop)[0], whole[rows, columns], atol=3)


@pytest.mark.parametrize(
    "crop", [Crop(33, 0, 20, 10), Crop(0, 31, 10, 10), Crop(52, 40, 1, 1), Crop(0, 0, 53, 40)]
)
def test_a_crop_that_leaves_the_picture_is_refused(make_video, crop):
    video = make_video("a.mkv", numbered(2, 52, 40))
    with pytest.raises(ClipError, match="leaves the picture of 52 x 40 pixels") as caught:
        read(video, crop=crop)
    assert "a.mkv" in caught.value.problem
    assert "xywh" in caught.value.remedy


# --- sound ----------------------------------------------------------------------------


def test_16_khz_mono_sound_comes_out_as_it_went_in(tmp_path):
    sound = tone(0.5, 16_000)
    got = audio.samples(Clip(write_wav(tmp_path / "a.wav", sound, 16_000)))
    assert got.dtype == np.int16
    np.testing.assert_array_equal(got, sound)


def test_stereo_is_mixed_to_the_mean_of_both_sides(tmp_path):
    left, right = tone(0.5, 16_000, 440), tone(0.5, 16_000, 1000)
    path = write_wav(tmp_path / "a.wav", np.stack([left, right], axis=1), 16_000)
    expected = (left.astype(float) + right) / 2
    np.testing.assert_allclose(audio.samples(Clip(path)), expected, atol=2)


@pytest.mark.parametrize("rate", [44_100, 48_000, 8_000])
def test_other_rates_become_16_khz(tmp_path, rate):
    got = audio.samples(Clip(write_wav(tmp_path / "a.wav", tone(2.0, rate, 440), rate)))
    assert abs(len(got) - 32_000) <= 1
    # 2 s of sound: the bins of its spectrum are half a hertz apart.
    spectrum = np.abs(np.fft.rfft(got[:32_000]))
    assert np.argmax(spectrum) / 2 == 440
    # A sine of peak 10,000 has a root mean square of 7,071.
    assert np.sqrt(np.mean(got[1000:31_000].astype(float) ** 2)) == pytest.approx(7071, rel=0.005)


def test_a_video_without_sound_is_read_and_says_that_it_has_none(make_video):
    clip = Clip(make_video("silent film.mkv", numbered(5)))
    assert len(list(frames(clip))) == 5
    assert not headers.probe(clip.path).has_audio
    with pytest.raises(ClipError, match=r"silent film\.mkv: has no sound") as caught:
        audio.samples(clip)
    assert "ffmpeg -i" in caught.value.remedy


def test_a_sound_file_is_no_video(tmp_path):
    path = write_wav(tmp_path / "a.wav", tone(0.5, 16_000), 16_000)
    assert headers.probe(path).has_audio
    assert headers.probe(path).size is None
    with pytest.raises(ClipError, match=r"a\.wav: has no video stream"):
        read(path)


def test_a_cover_picture_is_no_video(tmp_path, run_ffmpeg):
    sound = write_wav(tmp_path / "a.wav", tone(0.5, 16_000), 16_000)
    cover = tmp_path / "cover.png"
    cv2.imwrite(str(cover), np.zeros((30, 30, 3), np.uint8))
    song = tmp_path / "song.mp3"
    run_ffmpeg(
        "-i", sound, "-i", cover, "-map 0 -map 1 -c:v copy -disposition:v:0 attached_pic", song
    )
    with pytest.raises(ClipError, match="has no video stream"):
        read(song)


# What two seconds of pictures and a tone are written as, by container. MPEG-TS counts
# from 1.4 s, and MP4 with AAC has an edit list: neither may move sound against picture.
CONTAINERS = {
    "mkv": ("-c:v", "ffv1", "-c:a", "pcm_s16le"),
    "mov": ("-c:v", "png", "-c:a", "pcm_s16le"),
    "mp4": ("-c:v", "libx264", "-pix_fmt", "yuv444p", "-c:a", "aac"),
}


@pytest.mark.parametrize("container", CONTAINERS)
def test_sound_that_begins_later_is_padded_in_front(make_video, tmp_path, container):
    # The tone's first 0.5 s are cut off, and the rest put where it was.
    sound = write_wav(tmp_path / "s.wav", tone(1.5, 16_000, 1000), 16_000)
    video = make_video(
        f"a.{container}",
        numbered(50, 64, 64),
        before=("-itsoffset", "0.5", "-i", sound),
        codec=("-map", "0:v", "-map", "1:a", *CONTAINERS[container]),
    )
    assert numbers_of(read(video)) == list(range(50))
    # 0.5 s are 8,000 samples; encoders smear an attack over some milliseconds.
    assert first_loud(audio.samples(Clip(video))) == pytest.approx(8_000, abs=160)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_picture_that_begins_later_stays_beside_its_sound(make_video, tmp_path, container):
    # Sound from 0 s, one burst at 1.0 s; pictures from 0.4 s: that at 1.0 s is number 15.
    burst = np.zeros(38_400, np.int16)
    burst[16_000:17_600] = tone(0.1, 16_000, 1000)
    sound = write_wav(tmp_path / "s.wav", burst, 16_000)
    video = make_video(
        f"a.{container}",
        numbered(50, 64, 64),
        before=("-itsoffset", "-0.4", "-i", sound),
        codec=("-map", "0:v", "-map", "1:a", *CONTAINERS[container]),
    )
    shown = numbers_of(read(video))
    moment = first_loud(audio.samples(Clip(video))) / 16_000
    assert shown[round(25 * moment)] == pytest.approx(15, abs=1)


@pytest.mark.parametrize("seconds", [1.0, 3.0])
def test_picture_and_sound_each_keep_their_own_length(make_video, tmp_path, seconds):
    sound = write_wav(tmp_path / "s.wav", tone(seconds, 16_000), 16_000)
    video = make_video(
        "a.mkv", numbered(50), before=("-i", sound), codec=(*LOSSLESS, "-c:a", "pcm_s16le")
    )
    assert len(read(video)) == 50
    assert len(audio.samples(Clip(video))) == seconds * 16_000


# --- folders of frames ----------------------------------------------------------------


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Write pictures as numbered files; OpenCV's writer."""

    def make(name: str, pictures: Pictures, pattern: str = "{:06d}.png", first: int = 0) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for number, picture in enumerate(pictures, start=first):
            cv2.imwrite(str(folder / pattern.format(number)), picture[..., ::-1])
        return folder

    return make


def test_numbered_pictures_are_read_at_their_frame_rate(make_folder):
    folder = make_folder("clip", numbered(60))
    got = numbers_of(read(folder, frame_rate=30.0))
    assert got == [6 * group + n for group in range(10) for n in (0, 1, 2, 4, 5)]


@pytest.mark.parametrize(
    ("pattern", "first"),
    [("{:06d}.png", 17), ("frame_{:d}.png", 1), ("frame_{:d}.png", 98), ("{:03d}.bmp", 5)],
)
def test_numbers_need_not_begin_at_zero_nor_have_the_same_width(make_folder, pattern, first):
    pictures = noise(6, 31, 23)
    folder = make_folder("clip", pictures, pattern, first)
    np.testing.assert_array_equal(read(folder, frame_rate=25.0), pictures)


@pytest.mark.parametrize("size", [48, 200])  # files of 1 kB and of 10 kB
def test_jpeg_pictures_look_as_opencv_sees_them(make_folder, size):
    blurred = [cv2.GaussianBlur(p, (0, 0), 5) for p in noise(6, size, size)]
    folder = make_folder("clip", np.stack(blurred), "{:05d}.jpg", 3)
    got = read(folder, frame_rate=25.0)
    assert len(got) == 6
    for n, frame in enumerate(got):
        seen = cv2.imread(str(folder / f"{n + 3:05d}.jpg"))[..., ::-1].astype(int)
        assert np.abs(frame.astype(int) - seen).mean() < 1.5


def test_a_folder_can_be_cropped(make_folder):
    pictures = noise(3, 31, 23)
    folder = make_folder("clip", pictures)
    got = read(folder, frame_rate=25.0, crop=Crop(3, 5, 11, 7))
    np.testing.assert_array_equal(got, pictures[:, 5:12, 3:14])
    with pytest.raises(ClipError, match="leaves the picture of 31 x 23"):
        read(folder, frame_rate=25.0, crop=Crop(25, 0, 11, 7))


def test_transparent_grey_and_16_bit_pictures_are_read(tmp_path):
    for name, picture in {
        "alpha": np.full((24, 32, 4), 90, np.uint8),
        "grey": np.full((24, 32), 90, np.uint8),
        "deep": np.full((24, 32, 3), 90 * 257, np.uint16),
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        cv2.imwrite(str(folder / "0.png"), picture)
        got = read(folder, frame_rate=25.0)
        assert [f.shape for f in got] == [(24, 32, 3)]
        np.testing.assert_allclose(got[0].astype(int), 90, atol=1)


def test_a_folder_takes_its_sound_from_the_file_named(make_folder, tmp_path):
    folder = make_folder("clip", numbered(10))
    sound = tone(0.4, 16_000)
    path = write_wav(tmp_path / "clip.wav", sound, 16_000)
    np.testing.assert_array_equal(audio.samples(Clip(folder, None, 25.0, path)), sound)
    with pytest.raises(ClipError, match="without a sound file"):
        audio.samples(Clip(folder, None, 25.0))
    with pytest.raises(ClipError, match="no such file"):
        audio.samples(Clip(folder, None, 25.0, tmp_path / "other.wav"))


@pytest.mark.parametrize("span", ["", "&t=0.04,0.2"])
def test_sound_that_begins_before_the_pictures_is_skipped(make_folder, tmp_path, span):
    """skip=3 at 30 pictures a second is 0.1 s, at any rate that frames are read at."""
    folder = make_folder("clip", numbered(10))
    sound = np.arange(8000, dtype=np.int16)
    path = write_wav(tmp_path / "clip.wav", sound, 16_000)
    got = audio.samples(Clip.parse(f"{folder}#fps=30&audio={path}&skip=3{span}"))
    first, last = (640, 3200) if span else (0, None)
    np.testing.assert_array_equal(got, sound[1600:][first:last])


def test_a_files_own_rate_decides_how_much_sound_is_skipped(make_video, tmp_path):
    sound = write_wav(tmp_path / "s.wav", np.arange(16_000, dtype=np.int16), 16_000)
    path = make_video("a.mkv", numbered(10), "50")
    assert video.own_rate(Clip(path)) == pytest.approx(50, rel=1e-3)
    got = audio.samples(Clip.parse(f"{path}#audio={sound}&skip=5"))
    assert abs(int(got[0]) - 1600) <= 2  # Matroska's time stamps are whole milliseconds


def test_a_folder_without_a_frame_rate_is_refused(make_folder):
    with pytest.raises(ClipError, match="needs its frame rate") as caught:
        read(make_folder("clip", numbered(3)))
    assert "#fps=30" in caught.value.remedy


def test_a_gap_in_the_numbers_is_refused(make_folder):
    folder = make_folder("clip", numbered(6), first=10)
    (folder / "000013.png").unlink()
    with pytest.raises(ClipError, match="frame 13 is missing"):
        read(folder, frame_rate=25.0)


@pytest.mark.parametrize("extra", ["0003.png", "000003.jpg", "cover.png"])
def test_two_pictures_of_one_number_or_without_any_are_refused(make_folder, extra):
    folder = make_folder("clip", numbered(6))
    cv2.imwrite(str(folder / extra), numbered(1)[0])
    with pytest.raises(ClipError, match="not a frame number of its own"):
        read(folder, frame_rate=25.0)


def test_a_folder_without_pictures_is_refused(tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "notes.txt").write_text("none yet")
    with pytest.raises(ClipError, match="holds no pictures"):
        read(tmp_path / "clip", frame_rate=25.0)


def test_other_files_beside_the_pictures_are_left_alone(make_folder):
    folder = make_folder("clip", numbered(4))
    (folder / "audio.wav").write_bytes(b"x")
    (folder / ".000001.png").write_bytes(b"what some file servers leave")
    assert numbers_of(read(folder, frame_rate=25.0)) == [0, 1, 2, 3]


@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("damage", ["text", "cut", "empty"])
@pytest.mark.parametrize("number", [0, 4, 9])
def test_an_unreadable_picture_is_refused(make_folder, kind, damage, number):
    folder = make_folder("clip", noise(10, 96, 96), "{:04d}." + kind)
    assert len(read(folder, frame_rate=25.0)) == 10  # before the damage
    path = folder / f"{number:04d}.{kind}"
    content = path.read_bytes()
    path.write_bytes({"text": b"not a picture", "cut": content[:200], "empty": b""}[damage])
    with pytest.raises(ClipError, match="clip") as caught:
        read(folder, frame_rate=25.0)
    assert len(str(caught.value).splitlines()) == 1


def test_pictures_of_two_kinds_are_read_or_refused_but_not_lost(make_folder):
    folder = make_folder("clip", numbered(3))
    make_folder("clip", numbered(6)[3:], "{:06d}.jpg", 3)
    try:
        got = numbers_of(read(folder, frame_rate=25.0))
    except ClipError:
        return
    assert got == list(range(6))


@pytest.mark.parametrize("at", [1, 3])
def test_pictures_of_two_sizes_are_refused_or_keep_their_places(make_folder, at):
    folder = make_folder("clip", numbered(6))
    cv2.imwrite(str(folder / f"{at:06d}.png"), numbered(6, 40, 30)[at])
    try:
        got = numbers_of(read(folder, frame_rate=25.0))
    except ClipError:
        return
    assert got == list(range(6))


# --- what is no clip ------------------------------------------------------------------


def one_line(error: ClipError) -> str:
    message = str(error)
    assert len(message.splitlines()) == 1, message
    return message


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "0 bytes"),
        (b"these are the lines\nof a text\n", "not a readable video"),
        (bytes(np.random.default_rng(5).integers(0, 256, 5000, np.uint8)), "a.mp4"),
        (b"\0" * 4096, "not a readable video"),
    ],
    ids=["nothing", "text", "random bytes", "zeros"],
)
def test_what_is_no_video_is_refused(tmp_path, content, reason):
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    for reader in (lambda c: list(frames(c)), audio.samples):
        with pytest.raises(ClipError) as caught:
            reader(Clip(path))
        assert str(path) in one_line(caught.value)
        assert reason in str(caught.value)
        assert caught.value.remedy


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(ClipError, match=r"gone\.mp4: no such file"):
        read(tmp_path / "gone.mp4")


MP4 = ("-c:v", "libx264", "-pix_fmt", "yuv444p", "-qp", "8")
JPEGS = ("-c:v", "mjpeg", "-q:v", "2", "-pix_fmt", "yuvj444p")


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("index-last.mp4", MP4),
        ("index-first.mp4", (*MP4, "-movflags", "+faststart")),
        ("a.mkv", MP4),
        ("a.webm", ("-f", "matroska", *JPEGS)),
        ("a.avi", JPEGS),
    ],
)
def test_a_truncated_file_is_refused(make_video, name, codec, kept):
    path = make_video(name, noise(50, 48, 48), codec=codec)
    assert len(read(path)) == 50  # the whole file is good
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ClipError) as caught:
        read(path)
    assert name in one_line(caught.value)
    assert "truncated" in caught.value.remedy


def test_a_file_cut_exactly_between_two_frames_is_refused(make_video):
    path = make_video("a.mp4", noise(50, 48, 48), codec=(*JPEGS, "-movflags", "+faststart"))
    content = path.read_bytes()
    starts = [match.start() for match in re.finditer(rb"\xff\xd8\xff", content)]
    assert len(starts) == 50
    # The index still promises 50 frames; the file ends after 20.
    path.write_bytes(content[: starts[20]])
    with pytest.raises(ClipError, match=r"a\.mp4"):
        read(path)


def test_damage_in_the_middle_is_refused(make_video):
    path = make_video("a.mp4", noise(50, 48, 48), codec=(*MP4, "-movflags", "+faststart"))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4000] = os.urandom(4000)
    path.write_bytes(content)
    with pytest.raises(ClipError, match="damaged"):
        read(path)


def test_a_truncated_sound_stream_is_refused(make_video, tmp_path):
    sound = write_wav(tmp_path / "s.wav", tone(2.0, 16_000), 16_000)
    path = make_video(
        "a.mp4",
        noise(50, 48, 48),
        before=("-i", sound),
        codec=(*MP4, "-c:a", "aac", "-movflags", "+faststart"),
    )
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ClipError, match=r"a\.mp4"):
        audio.samples(Clip(path))


@pytest.fixture
def playlists(make_video) -> dict[str, str]:
    """Texts in formats that make ffmpeg open another file, here secret.mp4 beside them."""
    secret = make_video("secret.mp4", noise(25, 48, 48), codec=MP4)
    return {
        "concat": f"ffconcat version 1.0\nfile '{secret.name}'\n",
        "absolute": f"ffconcat version 1.0\nfile '{secret}'\n",
        "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n"
        f"#EXTINF:1.0,\n{secret.name}\n#EXT-X-ENDLIST\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet>'
        f"<Representation><BaseURL>{secret.name}</BaseURL></Representation>"
        "</AdaptationSet></Period></MPD>",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    }


def test_the_playlist_of_these_tests_is_one(playlists, tmp_path, run_ffmpeg):
    # Otherwise the next test would prove nothing.
    (tmp_path / "list.mp4").write_text(playlists["concat"])
    run_ffmpeg("-f", "concat", "-i", tmp_path / "list.mp4", "-f", "null", "-")


@pytest.mark.parametrize("kind", ["concat", "absolute", "hls", "dash", "sdp"])
@pytest.mark.parametrize("suffix", [".mp4", ".ffconcat", ".m3u8"])
def test_a_playlist_cannot_name_another_file(playlists, tmp_path, kind, suffix):
    path = tmp_path / f"list{suffix}"
    path.write_text(playlists[kind])
    for reader in (lambda c: list(frames(c)), audio.samples):
        with pytest.raises(ClipError, match="not a readable video") as caught:
            reader(Clip(path))
        one_line(caught.value)


def test_only_files_on_this_machine_are_opened(tmp_path):
    for address in ("http://127.0.0.1/a.mp4", "concat:a.mp4|b.mp4", "data:video/mp4;base64,AAAA"):
        with pytest.raises(ClipError, match="no such file"):
            read(Path(address))


# --- names and metadata ---------------------------------------------------------------

NAMES = [
    "with spaces.mkv",
    "50% off.mkv",
    "%03d.mkv",
    "a#b.mkv",
    "it's.mkv",
    'say "a".mkv',
    "-i.mkv",
    "naïve 口型.mkv",
    "a:b.mkv",
    "a,b;c=[0:v].mkv",
    "back\\slash.mkv",
    "star*?.mkv",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_file_name_can_be_read(make_video, tmp_path, monkeypatch, name):
    sound = write_wav(tmp_path / "s.wav", tone(0.4, 16_000), 16_000)
    pictures = noise(10, 16, 16)
    path = make_video(
        "plain.mkv", pictures, before=("-i", sound), codec=(*LOSSLESS, "-c:a", "pcm_s16le")
    )
    (tmp_path / "odd").mkdir()
    path.rename(tmp_path / "odd" / name)
    # A relative path, so that a leading dash really leads.
    monkeypatch.chdir(tmp_path / "odd")
    np.testing.assert_array_equal(read(Path(name)), pictures)
    assert len(audio.samples(Clip(Path(name)))) == 6_400


@pytest.mark.parametrize("name", ["100%", "-r", "a b#c", "口型", "[1]"])
def test_any_folder_name_can_be_read(make_folder, tmp_path, monkeypatch, name):
    pictures = noise(3, 16, 16)
    make_folder(name, pictures)
    sound = write_wav(tmp_path / f"{name}.wav", tone(0.1, 16_000), 16_000)
    monkeypatch.chdir(tmp_path)
    clip = Clip(Path(name), None, 25.0, Path(sound.name))
    np.testing.assert_array_equal(list(frames(clip)), pictures)
    assert len(audio.samples(clip)) == 1_600


@pytest.mark.parametrize(
    "title",
    [
        "Stream #0:1: Audio: aac, 44100 Hz",
        "displaymatrix: rotation of -90.00 degrees",
        "Display Matrix: rotation of 90.00 degrees",
        "Stream #0:0: Video: h264, yuv420p, 999x777",
        "line one\nStream #0:7: Audio: pcm",
    ],
    ids=["audio", "rotation", "new rotation", "size", "lines"],
)
def test_a_title_cannot_pass_for_a_stream(make_video, tmp_path, title):
    # The header is read from the text that ffmpeg prints, in which titles stand too.
    whole = Path(f"title={title}")  # texts are split at spaces, paths are not
    path = make_video("a.mkv", numbered(25, 40, 24), codec=(*LOSSLESS, "-metadata", whole))
    info = headers.probe(path)
    assert (info.size, info.has_audio) == ((40, 24), False)
    assert read(path)[0].shape == (24, 40, 3)


def test_the_header_says_size_and_sound(make_video, tmp_path):
    sound = write_wav(tmp_path / "s.wav", tone(1.5, 16_000), 16_000)
    path = make_video(
        "a.mp4", numbered(50, 64, 48), before=("-i", sound), codec=(*MP4, "-c:a", "aac")
    )
    info = headers.probe(path)
    assert (info.size, info.has_audio) == ((64, 48), True)


# --- identity -------------------------------------------------------------------------


def test_a_files_identity_is_its_bytes_not_its_name(make_video, tmp_path):
    first = make_video("a.mkv", noise(3, 16, 16, seed=1))
    renamed = Path(shutil.copy(first, tmp_path / "another name.mov"))
    other = make_video("b.mkv", noise(3, 16, 16, seed=2))
    assert content_id(Clip(renamed)) == content_id(Clip(first))
    assert content_id(Clip(other)) != content_id(Clip(first))
    before = content_id(Clip(first))
    first.write_bytes(first.read_bytes() + b"\0")
    assert content_id(Clip(first)) != before


def test_an_identity_changes_with_crop_frame_rate_and_sound(make_folder, tmp_path):
    folder = make_folder("clip", noise(3, 16, 16))
    sounds = [
        write_wav(tmp_path / f"{hertz}.wav", tone(0.1, 16_000, hertz), 16_000) for hertz in (1, 2)
    ]
    clips = [
        Clip(folder, None, 25.0),
        Clip(folder, None, 30.0),
        Clip(folder, Crop(0, 0, 8, 8), 25.0),
        Clip(folder, Crop(0, 0, 8, 9), 25.0),
        Clip(folder, None, 25.0, sounds[0]),
        Clip(folder, None, 25.0, sounds[1]),
        Clip(folder, None, 25.0, sounds[1], skip=2),
    ]
    assert len({content_id(clip) for clip in clips}) == len(clips)


def test_a_folders_identity_is_its_pictures_in_order(make_folder):
    pictures = noise(3, 16, 16)
    first = content_id(Clip(make_folder("a", pictures), None, 25.0))
    assert content_id(Clip(make_folder("b", pictures, "f{:d}.png", 7), None, 25.0)) == first
    assert content_id(Clip(make_folder("c", pictures[::-1]), None, 25.0)) != first
    assert content_id(Clip(make_folder("d", pictures[:2]), None, 25.0)) != first


def test_an_identity_of_nothing_is_refused(tmp_path):
    with pytest.raises(ClipError, match="No such file"):
        content_id(Clip(tmp_path / "gone.mp4"))


# --- the authors' own clips -----------------------------------------------------------


def test_a_published_strip_agrees_with_opencv(samples):
    strip = samples / "stccl-page/video_result/M003_source_sad_033.mp4"
    capture = cv2.VideoCapture(str(strip))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(30, abs=0.01)
    seen = []
    while len(seen) < 12:
        seen.append(capture.read()[1][:, :, ::-1].astype(int))
    # Output 0 1 2 3 4 is source 0 1 2 4 5 (see the test of 30 fps above).
    for (n, source), frame in zip(enumerate((0, 1, 2, 4, 5)), frames(Clip(strip)), strict=False):
        assert frame.shape == (256, 1280, 3), n
        distances = [np.abs(frame.astype(int) - other).mean() for other in seen]
        assert distances[source] == min(distances)
        assert distances[source] < 2


def test_columns_of_a_published_strip_lie_side_by_side(samples):
    strip = sorted((samples / "asccl-repo/NED-MEAD/Inter-ID").glob("*.mp4"))[0]
    whole = next(frames(Clip(strip))).astype(int)
    for column in range(4):
        x = 256 * column
        part = next(frames(Clip(strip, Crop(x, 0, 256, 256))))
        # Away from the edges, where halved colour is interpolated without the neighbour.
        np.testing.assert_allclose(part[:, 4:-4], whole[:, x + 4 : x + 252], atol=1)


def test_a_reader_that_stops_early_leaves_no_process(make_video):
    reading = frames(Clip(make_video("a.mkv", noise(50, 64, 48))))
    next(reading)
    reading.close()
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("this system does not list processes")
    commands = [Path(f"/proc/{c}/cmdline").read_bytes() for c in children.read_text().split()]
    assert not any(b"ffmpeg" in c for c in commands), json.dumps([c.decode() for c in commands])


def test_pictures_are_listed_by_number_not_by_name(make_folder):
    folder = make_folder("clip", numbered(12), "{:d}.png")
    names = [p.name for p in numbered_pictures(Clip(folder, None, 25.0))]
    assert names == [f"{n}.png" for n in range(12)]


def test_a_span_of_time_cuts_frames_and_sound(
    tmp_path: Path, run_ffmpeg: Callable[..., None]
) -> None:
    """At 25 fps the span from 0.2 s up to 0.6 s is frames 5 to 14, samples 3,200 to 9,600."""
    path = tmp_path / "a.mkv"
    run_ffmpeg(
        "-f lavfi -i testsrc2=s=64x48:r=25:d=2 -f lavfi -i sine=r=16000:d=2 -c:v ffv1",
        "-pix_fmt bgr0 -c:a pcm_s16le",
        path,
    )
    whole, cut = Clip(path), Clip.parse(f"{path}#t=0.2,0.6")
    pictures = list(frames(whole))
    np.testing.assert_array_equal(np.stack(pictures[5:15]), np.stack(list(frames(cut))))
    np.testing.assert_array_equal(audio.samples(whole)[3200:9600], audio.samples(cut))
    assert content_id(whole) != content_id(cut)
    with pytest.raises(ClipError, match="holds no frame"):
        list(frames(Clip.parse(f"{path}#t=5,6")))


# ---- hardware decoding --------------------------------------------------------------------


def test_a_hardware_decoder_is_asked_for_before_the_file_and_kept_apart(samples: Path) -> None:
    """No such hardware is here: ffmpeg's word for the software decoder takes its place."""
    clip = Clip.parse(f"{samples / 'stccl-page/video_result/M003_source_sad_033.mp4'}#t=0,0.4")
    node = video.upright_stream(clip.path, "none").output("pipe:")
    command = node.compile()
    assert command.index("-hwaccel") < command.index("-i")
    plain = list(frames(clip))
    assert np.array_equal(list(frames(clip, "none")), plain) and len(plain) == 10


@pytest.mark.parametrize(
    ("name", "expected"),
    [("tpu", "ffmpeg has no hardware decoder 'tpu'. Allowed: "), ("", "has no hardware decoder")],
)
def test_hardware_that_ffmpeg_does_not_know_is_refused(name: str, expected: str) -> None:
    with pytest.raises(ClipError, match=expected):
        ffmpeg.check_hardware(name)


@pytest.mark.parametrize(("status", "refused"), [(0, False), (255, True)])
def test_hardware_that_does_not_start_is_refused_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, refused: bool
) -> None:
    program = tmp_path / "ffmpeg"
    program.write_text(
        "#!/bin/sh\n"
        'case "$*" in *-hwaccels) printf "Methods:\\ncuda\\n\\n"; exit;; esac\n'
        f'echo "[CUDA @ 0x1] Cannot load libcuda.so.1" >&2; exit {status}\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "program", lambda: str(program))
    if not refused:
        ffmpeg.check_hardware("cuda")
        return
    with pytest.raises(ClipError, match=r"cannot start 'cuda' here: Cannot load libcuda\.so\.1"):
        ffmpeg.check_hardware("cuda")
