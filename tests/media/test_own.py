"""Every picture of a clip as one frame, and sound as librosa loads it: media of known content."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from scipy import signal

from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import InnerInput, network_card
from spfem_bench.errors import ClipError
from spfem_bench.faces import crop
from spfem_bench.features.sound import check_rate
from spfem_bench.media import ffmpeg
from spfem_bench.media.audio import samples
from spfem_bench.media.mfcc import mfcc
from spfem_bench.media.own_sound import own_sound
from spfem_bench.media.video import frames, own_rate
from tests.media.test_media import write_wav

RunFfmpeg = Callable[..., None]


def tone(rate: int, seconds: float = 1.0, hertz: float = 440.0) -> npt.NDArray[np.int16]:
    time = np.arange(round(rate * seconds)) / rate
    return np.round(9000 * np.sin(2 * np.pi * hertz * time)).astype(np.int16)


def folder_of(path: Path, count: int, size: int = 24) -> Path:
    path.mkdir()
    for n in range(count):
        cv2.imwrite(str(path / f"{n:06d}.png"), np.full((size, size, 3), 10 + 3 * n, np.uint8))
    return path


@pytest.fixture
def video_at(tmp_path: Path, run_ffmpeg: RunFfmpeg) -> Callable[..., Path]:
    """Write ten numbered pictures as a lossless video at some rate, with sound or without."""

    def write(rate: str, sound: Path | None = None) -> Path:
        pictures = folder_of(tmp_path / "pictures", 10)
        path = tmp_path / "clip.mkv"
        more = ("-i", sound, "-c:a", "copy") if sound else ()
        numbered = ("-framerate", rate, "-i", pictures / "%06d.png")
        run_ffmpeg(*numbered, *more, "-c:v", "png", path)
        return path

    return write


def numbers(clip: Clip) -> list[int]:
    return [(int(picture[0, 0, 0]) - 10) // 3 for picture in frames(clip, own=True)]


@pytest.mark.parametrize("rate", ["30", "30000/1001", "12", "50"])
def test_every_picture_of_a_file_is_one_frame(video_at: Callable[..., Path], rate: str) -> None:
    clip = Clip(video_at(rate))
    assert numbers(clip) == list(range(10))
    assert own_rate(clip) == pytest.approx(eval(rate), rel=5e-3)  # noqa: S307  (numbers above)


def test_every_picture_of_a_folder_is_one_frame_and_a_span_counts_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pictures", 12)
    assert numbers(Clip.parse(f"{folder}#fps=30")) == list(range(12))
    assert numbers(Clip.parse(f"{folder}#fps=30&frames=3,7")) == [3, 4, 5, 6]
    assert numbers(Clip.parse(f"{folder}#fps=30&t=0.1,0.2")) == [3, 4, 5]


def test_16_khz_sound_is_the_mean_of_its_channels_and_is_not_rounded(tmp_path: Path) -> None:
    left, right = tone(16_000), tone(16_000, hertz=300)
    path = write_wav(tmp_path / "a.wav", np.stack([left, right], axis=1), 16_000)
    expected = (left.astype(np.float32) + right) / 2 / 32768
    got = own_sound(Clip(path))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, expected.astype(np.float32))
    assert (got * 32768 % 1 == 0.5).any(), "half a step of 16 bits is kept"


@pytest.mark.parametrize("rate", [44_100, 48_000, 8_000])
def test_another_rate_is_resampled_without_a_shift(tmp_path: Path, rate: int) -> None:
    sound = tone(rate)
    got = own_sound(Clip(write_wav(tmp_path / "a.wav", sound, rate)))
    assert abs(len(got) - 16_000) <= 1
    exact = signal.resample(sound / 32768, 16_000)  # a whole number of periods: no edge
    np.testing.assert_allclose(got[800:-800], exact[800 : len(got) - 800], atol=2e-5)


def test_skipped_frames_are_whole_samples_and_a_span_follows_them(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "pictures", 12)
    path = write_wav(tmp_path / "a.wav", np.arange(9000, dtype=np.int16), 16_000)
    whole = own_sound(Clip(path)) * 32768

    def first(more: str) -> float:
        clip = Clip.parse(f"{folder}#fps=30&audio={path}{more}")
        return float(own_sound(clip)[0] * 32768)

    assert whole[0] == 0
    assert first("&skip=2") == 2 * 533
    assert first("&skip=2&t=0.1,0.2") == 2 * 533 + 1600


def test_a_videos_own_sound_begins_with_its_first_picture(
    video_at: Callable[..., Path], tmp_path: Path
) -> None:
    path = video_at("30", write_wav(tmp_path / "a.wav", tone(16_000), 16_000))
    whole, rounded = own_sound(Clip(path)), samples(Clip(path))
    np.testing.assert_array_equal(np.round(whole * 32768).astype(np.int16), rounded)


def test_resampling_without_soxr_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_wav(tmp_path / "a.wav", tone(44_100), 44_100)
    monkeypatch.setattr(ffmpeg, "has_soxr", lambda: False)
    with pytest.raises(ClipError, match="44100 samples a second need soxr") as caught:
        own_sound(Clip(path))
    assert "16 kHz" in caught.value.remedy


def test_mfccs_are_the_packages_also_120_times_a_second() -> None:
    from python_speech_features import mfcc as reference

    sound = np.random.default_rng(0).normal(0, 0.1, 16_000 * 60).astype(np.float32)
    expected = reference(sound, 16_000, winstep=1 / 120)
    assert len(expected) > 6000  # more than are computed at once
    np.testing.assert_allclose(mfcc(sound, steps=120), expected, rtol=1e-5, atol=1e-5)


def test_a_clip_of_another_rate_is_refused_in_one_line(tmp_path: Path) -> None:
    contract = network_card("syncnet-v2-ned").input
    assert isinstance(contract, InnerInput)
    folder = folder_of(tmp_path / "pictures", 3)
    for rate in ("30", "29.97"):
        clip = Clip.parse(f"{folder}#fps={rate}")
        check_rate(clip, own_rate(clip), contract.frame_rate)
    with pytest.raises(ClipError, match="25 pictures a second, but lip sync takes 30"):
        clip = Clip.parse(f"{folder}#fps=25")
        check_rate(clip, own_rate(clip), contract.frame_rate)


def test_the_margin_is_cut_off_and_the_rest_resized(tmp_path: Path) -> None:
    contract = network_card("syncnet-v2-ned").input
    assert isinstance(contract, InnerInput)
    face = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    np.testing.assert_array_equal(
        crop.inner(face, contract), cv2.resize(face[35:-35, 35:-35], (224, 224))
    )
    with pytest.raises(ClipError, match="70 x 96 pixels: 35 are cut off at each side"):
        crop.inner(face[:96, :70], contract)
