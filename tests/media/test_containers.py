"""Picture and sound stay together in the files that people have.

The material is that of benchmarks/containers.py: every picture carries its number, and the sound
is like itself at no other moment, so that both are read off exactly, without a network.
"""

from __future__ import annotations

import random
import unicodedata
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks import containers
from benchmarks.common import lse
from benchmarks.containers import SIDE, faults, number, pictures, sound, times, verdict
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.networks import SyncChain, profile_card
from spfem_bench.definitions.protocols import Item
from spfem_bench.errors import ClipError
from spfem_bench.evaluation import outputs
from spfem_bench.evaluation.outputs import Videos
from spfem_bench.evaluation.pairing import same_names
from spfem_bench.features.extract import Extractor
from spfem_bench.features.store import FeatureStore
from spfem_bench.media import audio, chain, headers, packets, video
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets.clips import render_take
from spfem_bench.puppets.world import World

Run = Callable[..., None]

SHOWN = times("25")

# ---- composed files ------------------------------------------------------------------------

CASES = containers.cases(0)


@pytest.mark.parametrize("number_of_case", sorted(random.Random(1).sample(range(len(CASES)), 24)))
def test_a_composed_file_keeps_picture_and_sound_together(
    number_of_case: int, tmp_path: Path
) -> None:
    """`python -m benchmarks.containers` tries all of them."""
    case = CASES[number_of_case]
    outcome = verdict(case, tmp_path)
    if outcome.startswith("not made"):
        pytest.skip(f"this ffmpeg cannot write the file: {outcome}")
    if case.container == "avi" and case.picture.endswith("B-frames"):
        assert outcome.startswith("refused: pictures in another order")
    else:
        assert outcome == "right"


def test_what_is_out_of_place_is_found(tmp_path: Path, run_ffmpeg: Run) -> None:
    """The measure itself: a frame late, a frame lost, and sound 3 ms late."""
    path = master(tmp_path, run_ffmpeg)
    assert faults(Clip(path), "25", 0, 0.001, 0) == ""
    for change, expected in (
        (("-itsoffset", "0.003", "-i", path, "-map", "0:v", "-map", "1:a"), "off by up to 3.0 ms"),
        (("-map", "0", "-filter:v", "select=not(eq(n\\,7)),setpts=N/25/TB"), "frame 7 shows 8"),
        (("-map", "0", "-filter:v", "select=not(eq(n\\,7))"), "frame 7 shows 6"),
        (("-map", "0", "-filter:a", "atrim=end=1"), "of 24 tenths of a second are heard"),
    ):
        other = tmp_path / "other.mkv"
        run_ffmpeg("-i", path, *change, "-c:v", "png", "-c:a", "pcm_s16le", other)
        assert expected in faults(Clip(other), "25", 0, 0.001, 0)


# ---- single kinds --------------------------------------------------------------------------


def master(folder: Path, run_ffmpeg: Run) -> Path:
    """Write 60 numbered pictures at 25 a second and their sound, without loss."""
    raw, wav, path = folder / "p.rgb", folder / "s.wav", folder / "master.mkv"
    raw.write_bytes(pictures(len(SHOWN)).tobytes())
    with wave.open(str(wav), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(48_000)
        out.writeframes(np.round(sound(48_000) * 32_000).astype("<i2").tobytes())
    run_ffmpeg(
        f"-f rawvideo -pix_fmt rgb24 -s {SIDE}x{SIDE} -r 25 -i",
        raw,
        "-i",
        wav,
        "-c:v png -c:a pcm_s16le",
        path,
    )
    return path


def joined(folder: Path, run_ffmpeg: Run, *parts: tuple[str, ...]) -> Path:
    """Write two parts of the master, each with options of its own, into one Matroska file."""
    whole, content = master(folder, run_ffmpeg), b""
    for n, options in enumerate(parts):
        part, span = folder / f"{n}.ts", f"trim=start={1.2 * n}:end={1.2 * n + 1.2}"
        run_ffmpeg(
            "-copyts -i",
            whole,
            "-vf",
            span,
            f"-af a{span} -c:v libx264 -bf 0 -pix_fmt yuv420p -c:a ac3 -b:a 192k",
            *options,
            "-output_ts_offset 1",
            part,
        )
        content += part.read_bytes()
    (folder / "joined.ts").write_bytes(content)
    run_ffmpeg("-i", folder / "joined.ts", "-c", "copy", folder / "joined.mkv")
    return folder / "joined.mkv"


@pytest.mark.parametrize(
    "options",
    [
        ("-s", "128x128"),
        ("-s", "32x48"),
        ("-pix_fmt", "yuv444p"),
        ("-s", "96x64", "-pix_fmt", "yuv420p10le"),
    ],
    ids=["larger", "smaller", "format", "both"],
)
def test_a_picture_that_changes_in_the_stream_is_brought_to_the_first_ones_size(
    tmp_path: Path, run_ffmpeg: Run, options: tuple[str, ...]
) -> None:
    path = joined(tmp_path, run_ffmpeg, (), options)
    assert faults(Clip(path), "25", 0, 0.002, 2) == ""
    found = list(video.frames(Clip(path)))
    assert [number(f) for f in found] == list(range(60))
    assert {f.shape for f in found} == {(SIDE, SIDE, 3)}


def test_a_rotated_picture_that_changes_its_size_is_refused(
    tmp_path: Path, run_ffmpeg: Run
) -> None:
    path, turned = joined(tmp_path, run_ffmpeg, (), ("-s", "128x64")), tmp_path / "turned.mkv"
    run_ffmpeg("-display_rotation", 90, "-i", path, "-c", "copy", turned)
    if not headers.probe(turned).turned:
        pytest.skip("this ffmpeg keeps no rotation in Matroska")
    with pytest.raises(ClipError, match=r"turned\.mkv: the size of a rotated picture changes"):
        list(video.frames(Clip(turned)))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (("-ac", "2"), ("-ac", "6")),
        (("-ac", "6"), ("-ac", "1")),
        (("-c:a", "aac", "-ac", "1"), ("-c:a", "aac", "-ac", "2")),
        (("-ar", "48000"), ("-ar", "32000")),
    ],
    ids=["more", "fewer", "aac", "rate"],
)
def test_sound_that_changes_in_the_stream_stays_in_its_place(
    tmp_path: Path, run_ffmpeg: Run, first: tuple[str, ...], second: tuple[str, ...]
) -> None:
    path = joined(tmp_path, run_ffmpeg, first, second)
    assert faults(Clip(path), "25", 0, 0.002, 3) == ""
    if first[0] == "-ac":  # the field's own commands would put a second of silence there
        with (
            pytest.raises(ClipError, match="channel layout, format or rate of the sound changes"),
            chain.carried(Clip(path), SyncChain(avi="mpeg4")),
        ):
            pass


def two_tracks(folder: Path, run_ffmpeg: Run, kind: str, *defaults: int) -> Path:
    """Write a file of two tracks of one kind, of which the second is the master's."""
    path = folder / f"{kind}{''.join(map(str, defaults))}.mkv"
    other = ("-f", "lavfi", "-i", "testsrc=s=32x32:d=2.4" if kind == "v" else "anullsrc=d=2.4")
    maps = ("-map", "1", "-map", "0")
    marks = [
        a for n in (0, 1) for a in (f"-disposition:{kind}:{n}", "default" if n in defaults else "0")
    ]
    run_ffmpeg(
        "-i",
        master(folder, run_ffmpeg),
        *other,
        "-t 2.4",
        *maps,
        "-c:v png -c:a pcm_s16le",
        *marks,
        path,
    )
    return path


@pytest.mark.parametrize(("kind", "name"), [("v", "video"), ("a", "audio")])
def test_the_track_marked_default_is_taken_and_without_one_alone_it_is_said(
    tmp_path: Path, run_ffmpeg: Run, kind: str, name: str
) -> None:
    assert faults(Clip(two_tracks(tmp_path, run_ffmpeg, kind, 1)), "25", 0, 0.001, 0) == ""
    first = two_tracks(tmp_path, run_ffmpeg, kind, 0)
    assert faults(Clip(first), "25", None, 0.001, 0) != ""
    for defaults in ((), (0, 1)):
        path = two_tracks(tmp_path, run_ffmpeg, kind, *defaults)
        with pytest.raises(ClipError, match=f"2 {name} streams .* not one alone is marked") as got:
            faults(Clip(path), "25", 0, 0.001, 0)
        assert "Keep one: ffmpeg -i" in got.value.remedy
        with pytest.raises(ClipError, match="not one alone"):
            packets.stream_times(path)


def test_a_cover_picture_before_the_video_is_passed_over(tmp_path: Path, run_ffmpeg: Run) -> None:
    path, cover = tmp_path / "covered.mp4", tmp_path / "cover.png"
    run_ffmpeg("-f", "lavfi", "-i", "color=s=96x96", "-frames:v", 1, cover)
    run_ffmpeg(
        "-i",
        cover,
        "-i",
        master(tmp_path, run_ffmpeg),
        "-map 0 -map 1 -c:v:0 copy -c:v:1 libx264 -c:a aac -disposition:v:0 attached_pic",
        path,
    )
    assert faults(Clip(path), "25", 0, 0.001, 0) == ""
    assert packets.stream_times(path)["video"].packets == 60


@pytest.mark.parametrize(
    "tail",
    [
        b"This clip is from a tool.\n",
        b"APETAGEX\xd0\x07\0\0" + bytes(20),
        b"TAG" + bytes(125),
        b"\0\0\0",
        bytes(64),
        b"\xff" * 40,
    ],
    ids=["text", "APE", "ID3v1", "short", "zeros", "ones"],
)
def test_what_is_appended_to_an_mp4_is_no_damage(
    tmp_path: Path, run_ffmpeg: Run, tail: bytes
) -> None:
    path = tmp_path / "a.mp4"
    run_ffmpeg("-i", master(tmp_path, run_ffmpeg), "-c:v", "libx264", "-c:a", "aac", path)
    path.write_bytes(path.read_bytes() + tail)
    assert faults(Clip(path), "25", 0, 0.001, 1) == ""
    packets.stream_times(path)


@pytest.mark.parametrize("size", [b"\xff" * 4, bytes(4)])
@pytest.mark.parametrize("samples", [38_400, 38_401])
def test_a_wav_without_sizes_is_read_to_its_end(tmp_path: Path, size: bytes, samples: int) -> None:
    path, expected = tmp_path / "piped.wav", np.arange(samples).astype("<i2")
    with wave.open(str(path), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(expected.tobytes())
    content = bytearray(path.read_bytes())
    # A chunk of a program's name before the data, as ffmpeg writes one.
    content[36:36] = b"LIST\x05\0\0\0abcde\0"
    content[4:8] = content[36 + 14 + 4 : 36 + 14 + 8] = size
    path.write_bytes(content)
    np.testing.assert_array_equal(audio.samples(Clip(path)), expected)
    assert packets.stream_times(path)["audio"].end == pytest.approx(samples / 16_000)
    assert path.read_bytes() == content


def test_an_avi_with_b_frames_has_pictures_but_no_sound_in_its_place(
    tmp_path: Path, run_ffmpeg: Run
) -> None:
    path = tmp_path / "a.avi"
    run_ffmpeg("-i", master(tmp_path, run_ffmpeg), "-c:v", "mpeg4", "-q:v", 2, "-bf", 2, path)
    assert [number(f) for f in video.frames(Clip(path))] == list(range(60))
    with pytest.raises(ClipError, match="how early or late the sound is cannot be known") as got:
        audio.samples(Clip(path))
    assert "-bf 0" in got.value.remedy
    wav = tmp_path / "s.wav"
    assert faults(Clip(path, audio=wav), "25", 0, 0.001, 0) == ""
    assert packets.stream_times(path)["video"].end == pytest.approx(2.4, abs=0.081)


def test_blocks_of_sound_are_placed_by_what_their_time_stamps_agree_on() -> None:
    """By hand: blocks of 100 samples of the values 1, 2, 3, …"""
    loud = np.repeat(np.arange(1, 11), 100).astype(np.int16)

    def place(*starts: int) -> list[int]:
        return audio.placed_blocks(loud, np.array(starts), np.full(len(starts), 100))[::50].tolist()

    even = [100 * n for n in range(10)]
    plain = [n for n in range(1, 11) for _ in (0, 1)]
    assert place(*even) == plain
    # Stamps that differ by up to 40 samples, or one that differs alone, move nothing.
    assert place(*(s + 39 * (n % 2) for n, s in enumerate(even))) == plain
    assert place(*even[:4], 700, *even[5:]) == plain
    # 100 samples are missing before the fifth block; 50 before the first picture are left out.
    assert place(*even[:4], *(s + 100 for s in even[4:])) == [*plain[:8], 0, 0, *plain[8:]]
    assert place(*(s - 50 for s in even)) == plain[1:]
    # The first one only is stamped too early, as fragmented mp4 files have it.
    assert place(0, *(s + 50 for s in even[1:])) == [0, *plain]
    # Two blocks for one moment: of the later one, the rest.
    assert place(*even[:5], *(s - 50 for s in even[5:])) == [*plain[:10], *plain[11:]]


# ---- names ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["{}.MP4", "{}.Mkv", "{}.mp4"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_upper_case_suffixes_and_decomposed_accents_are_found(
    tmp_path: Path, name: str, form: str
) -> None:
    item = Item("1", "Zoé", "happy", {}, {}, "Zoé_1.mp4")
    file = name.format(unicodedata.normalize(form, "Zoé_1"))
    (tmp_path / file).touch()
    [placed], extra = outputs._find_expected(Videos(tmp_path), [item])
    assert isinstance(placed.clip, Clip) and placed.clip.path == tmp_path / file
    assert extra == ()
    (tmp_path / "Zoé_1.AVI").touch()
    [placed], _ = outputs._find_expected(Videos(tmp_path), [item])
    assert isinstance(placed.clip, ClipError) and "for one item" in str(placed.clip)


def test_two_folders_are_paired_whatever_the_form_of_accents(tmp_path: Path) -> None:
    for folder, form in (("a", "NFC"), ("b", "NFD")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / unicodedata.normalize(form, "Zoé.mp4")).touch()
    assert len(same_names(tmp_path / "a", tmp_path / "b")) == 1


# ---- the number itself ---------------------------------------------------------------------


def test_lse_of_a_puppet_is_the_same_from_any_file(tmp_path: Path, run_ffmpeg: Run) -> None:
    extractor = Extractor(
        profile_card("compact"), WeightsStore(), FeatureStore(tmp_path / "store"), faces="aligned"
    )
    clip = render_take(World(), tmp_path / "drawn", "P003/happy/1.00/028.mp4")
    distance, _, offset, _ = lse(extractor, Clip(clip))
    assert offset == 0
    late = (
        "-itsoffset",
        "0.019",
        "-i",
        clip,
        "-i",
        clip,
        "-map",
        "0:v",
        "-map",
        "1:a",
        "-c:v",
        "copy",
        "-af",
        "adelay=19",
        "-strict",
        "-2",
    )
    lose = ("-bsf:a", "noise=amount=0:drop=eq(n\\,3)")
    files = {
        "late.mkv": (*late, "-c:a", "flac"),
        "late.mov": (*late, "-c:a", "pcm_s16le"),
        "late.mp4": (*late, "-c:a", "flac", "-movflags", "frag_keyframe+empty_moov"),
        "aac.mkv": ("-i", clip, "-c:v", "copy", "-c:a", "aac", *lose),
        "opus.mkv": ("-i", clip, "-c:v", "copy", "-c:a", "libopus", "-b:a", "64k", *lose),
    }
    for name, options in files.items():
        run_ffmpeg(*options, tmp_path / name)
        moved, _, shift, _ = lse(extractor, Clip(tmp_path / name))
        assert (shift, moved) == (0, pytest.approx(distance, abs=0.03)), name
