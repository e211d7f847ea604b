"""Files as people have them: what they hold decides, not how they are called or cached."""

from __future__ import annotations

import json
import os
import shutil
import struct
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from spfem_bench.datasets.alignment import align_clips
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.datasets.layouts import place
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.layouts import layout_card
from spfem_bench.definitions.metrics import metric_card
from spfem_bench.definitions.networks import Audible, profile_card
from spfem_bench.definitions.protocols import protocol as read_protocol
from spfem_bench.errors import ClipError
from spfem_bench.evaluation.outputs import Videos, find_outputs
from spfem_bench.features.extract import Extractor
from spfem_bench.features.features import Features
from spfem_bench.features.store import FeatureStore
from spfem_bench.files import Listing, same_name
from spfem_bench.media import audio, video
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.puppets.clips import render_all
from spfem_bench.puppets.provider import demo_puppets
from spfem_bench.reporting.drawing import save_drawing
from spfem_bench.statistics import sync
from tests.conftest import Outcome

RunFfmpeg = Callable[..., None]
Bench = Callable[..., Outcome]

NOT_UTF8 = os.fsdecode(b"vid\xe9o")
NFC, NFD = unicodedata.normalize("NFC", "café"), unicodedata.normalize("NFD", "café")


@pytest.fixture(scope="module")
def puppet(demo_cache: Path) -> Path:
    """A clip of 58 frames with the sound that belongs to them."""
    provider = demo_puppets(DataFolders(renders=demo_cache / "data"))
    world, folder = provider.world, provider.folder
    name = "P003/happy/1.00/028.mp4"
    render_all(world, folder, [name], workers=1)
    return folder / name


@pytest.fixture
def extractor(tmp_path: Path) -> Extractor:
    store = FeatureStore(tmp_path / "features")
    return Extractor(profile_card("compact"), WeightsStore.locate(), store, faces="aligned")


def sync_of(extractor: Extractor, clip: Clip) -> Features:
    """The clip's features for lip sync, or the reason why there are none."""
    failures = extractor.ensure({clip: frozenset(["sync"])})
    if failures:
        raise failures[clip, "sync"]
    found = extractor.load(clip, "sync")
    assert found is not None
    return found


def measured(extractor: Extractor, clip: Clip) -> tuple[float, float]:
    """LSE-D and offset."""
    found = sync_of(extractor, clip)
    part = sync.sync_part(
        found.outputs["visual"], found.outputs["audio"], found.frames, max_shift=15
    )
    return part.value("distance"), part.value("offset")


# ---- pictures: by content, with any cache ---------------------------------------------------


PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)


def encoded(kind: str, *options: int) -> bytes:
    return bytes(cv2.imencode(kind, cv2.GaussianBlur(PICTURE, (0, 0), 2), list(options))[1])


@pytest.mark.parametrize("kind", [".png", ".jpg", ".bmp"])
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".jpeg", ".bmp", ".PNG", ".JPG"])
def test_a_picture_is_read_by_its_content_whatever_its_suffix(
    tmp_path: Path, kind: str, suffix: str
) -> None:
    content = encoded(kind)
    path = tmp_path / f"000000{suffix}"
    path.write_bytes(content)
    expected = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(video.read_picture(path), expected)


@pytest.mark.parametrize(
    "more", [b"a line of text\n", bytes(5000), b"\xff", b"\xff\xff\xff", encoded(".png")]
)
@pytest.mark.parametrize(
    "options", [(), (cv2.IMWRITE_JPEG_PROGRESSIVE, 1), (cv2.IMWRITE_JPEG_RST_INTERVAL, 2)]
)
def test_bytes_after_a_jpegs_end_change_nothing(
    tmp_path: Path, more: bytes, options: tuple[int, ...]
) -> None:
    whole, longer = tmp_path / "whole.jpg", tmp_path / "longer.jpg"
    whole.write_bytes(encoded(".jpg", *options))
    longer.write_bytes(encoded(".jpg", *options) + more)
    assert np.array_equal(video.read_picture(whole), video.read_picture(longer))


def with_thumbnail(content: bytes) -> bytes:
    """The JPEG with a smaller one in a segment, as cameras write it: two end markers."""
    small = bytes(cv2.imencode(".jpg", PICTURE[:16, :16])[1])
    return content[:2] + b"\xff\xe1" + struct.pack(">H", len(small) + 2) + small + content[2:]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
@pytest.mark.parametrize("after", [b"", bytes(3000), b"a line of text"])
@pytest.mark.parametrize("dress", [bytes, with_thumbnail])
def test_a_jpeg_that_was_cut_is_refused_whatever_its_suffix(
    tmp_path: Path, suffix: str, after: bytes, dress: Callable[[bytes], bytes]
) -> None:
    path, content = tmp_path / f"000000{suffix}", dress(encoded(".jpg"))
    path.write_bytes(content)
    video.read_picture(path)
    for missing in (2, 60, 200):
        path.write_bytes(content[:-missing] + after)
        with pytest.raises(ClipError, match="cut short"):
            video.read_picture(path)


@pytest.fixture
def frames(puppet: Path, tmp_path: Path, run_ffmpeg: RunFfmpeg) -> Clip:
    """The puppet as a folder of JPEGs with its sound."""
    folder = tmp_path / "frames"
    folder.mkdir()
    run_ffmpeg("-i", puppet, "-qscale:v", "2", folder / "%06d.jpg")
    run_ffmpeg("-i", puppet, tmp_path / "frames.wav")
    return Clip(folder, frame_rate=25.0, audio=tmp_path / "frames.wav")


def test_a_clip_is_scored_or_refused_alike_with_a_full_and_an_empty_cache(
    frames: Clip, puppet: Path, extractor: Extractor, tmp_path: Path
) -> None:
    """Features are kept by the bytes' hash: no check may look at a name or at what is no key."""

    def outcome(clip: Clip, store: Path) -> object:
        one = Extractor(extractor.profile, extractor.weights, FeatureStore(store), faces="aligned")
        wants: dict = {clip: frozenset(["sync", "identity"])}
        failures = one.ensure(wants)
        if failures:
            return sorted(str(e).replace(str(tmp_path), "") for e in failures.values())
        found = one.load(clip, "identity")
        assert found is not None
        return found.outputs["embedding"].tolist()

    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for picture in sorted(frames.path.iterdir()):  # of which none is a PNG
        shutil.copy(picture, renamed / f"{picture.stem}.png")
    odd = tmp_path / "odd.bin"
    shutil.copy(puppet, odd)
    full = tmp_path / "full"
    known: list = [frames, Clip(puppet)]
    assert all(isinstance(outcome(clip, full)[0], list) for clip in known)  # type: ignore[index]
    cases = {
        "another suffix of pictures": Clip(renamed, frame_rate=25.0, audio=frames.audio),
        "another suffix of a video": Clip(odd),
        "frames= with a video": Clip(puppet, pictures=(0, 30)),
        "fps= with a video": Clip(puppet, frame_rate=25.0),
        "a part of the frames": Clip(
            frames.path, frame_rate=25.0, audio=frames.audio, pictures=(0, 10)
        ),
    }
    got = {name: outcome(clip, full) for name, clip in cases.items()}
    for number, (name, clip) in enumerate(cases.items()):
        assert got[name] == outcome(clip, tmp_path / f"empty{number}"), name
    assert got["another suffix of pictures"] == outcome(frames, full)
    assert "are for folders of frames" in str(got["frames= with a video"])


# ---- silence -------------------------------------------------------------------------------


def float_wav(path: Path, samples: np.ndarray, rate: int = 16000) -> Path:
    content = samples.astype("<f4").tobytes()
    form = struct.pack("<HHIIHH", 3, 1, rate, 4 * rate, 4, 32)
    head = b"WAVEfmt " + struct.pack("<I", len(form)) + form + b"data"
    whole = head + struct.pack("<I", len(content)) + content
    path.write_bytes(b"RIFF" + struct.pack("<I", len(whole)) + whole)
    return path


def muxed(puppet: Path, target: Path, run_ffmpeg: RunFfmpeg, *sound: str) -> Clip:
    run_ffmpeg("-i", puppet, "-c:v", "copy", *sound, target)
    return Clip(target)


OPPOSITE = "pan=stereo|c0=c0|c1=-1*c0"


@pytest.mark.parametrize(
    ("sound", "words"),
    [
        (("-af", OPPOSITE, "-c:a", "pcm_s16le"), "the mix of its 2 channels cancels out"),
        (("-af", OPPOSITE, "-c:a", "aac", "-b:a", "64k"), "the mix of its 2 channels cancels out"),
        (("-af", OPPOSITE, "-c:a", "libopus", "-b:a", "24k"), "2 channels cancels out"),
        (("-af", "volume=0", "-c:a", "flac"), "nothing in it is above -90 dB"),
        (("-af", "volume=0", "-c:a", "aac"), "nothing in it is above -90 dB"),
        (("-af", "aeval=0.25:c=same", "-c:a", "pcm_s16le"), "nothing in it is above -90 dB"),
        (("-af", "volume=-100dB", "-c:a", "pcm_f32le"), "nothing in it is above -90 dB"),
    ],
)
def test_silence_is_refused_for_lip_sync_with_its_kind(
    puppet: Path,
    extractor: Extractor,
    tmp_path: Path,
    run_ffmpeg: RunFfmpeg,
    sound: tuple[str, ...],
    words: str,
) -> None:
    clip = muxed(puppet, tmp_path / "silent.mkv", run_ffmpeg, *sound)
    with pytest.raises(ClipError, match="its sound is silent") as refused:
        sync_of(extractor, clip)
    assert words in refused.value.problem
    assert "-map 1:a" in refused.value.remedy
    # What looks at the pictures alone is not concerned.
    assert not extractor.ensure({clip: frozenset(["identity"])})


def test_a_generators_silent_track_is_refused(
    puppet: Path, extractor: Extractor, tmp_path: Path, run_ffmpeg: RunFfmpeg
) -> None:
    target = tmp_path / "generated.mp4"
    run_ffmpeg(
        "-i",
        puppet,
        "-f lavfi -i anullsrc=r=44100:cl=stereo -map 0:v -map 1:a -c:v copy -shortest",
        target,
    )
    with pytest.raises(ClipError, match="its sound is silent"):
        sync_of(extractor, Clip(target))


@pytest.mark.parametrize("rate", [16000, 48000])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.0])
def test_sound_that_is_not_a_number_is_refused(
    puppet: Path, extractor: Extractor, tmp_path: Path, rate: int, share: float
) -> None:
    sound = np.random.default_rng(0).normal(0, 0.1, 2 * rate)
    sound[: max(1, int(share * len(sound)))] = np.nan
    clip = Clip(puppet, audio=float_wav(tmp_path / "nan.wav", sound, rate))
    with pytest.raises(ClipError, match="samples that are not numbers"):
        sync_of(extractor, clip)


@pytest.mark.parametrize(
    ("sound", "apart"),
    [
        # Rounded to a few steps of 16 bits; silence has 1.41.
        (("-af", "volume=-60dB", "-c:a", "pcm_s16le"), 0.65),
        (("-af", "volume=-40dB", "-c:a", "pcm_s16le"), 0.25),
        (("-af", "pan=stereo|c0=c0", "-c:a", "pcm_s16le"), 0.03),  # one side is empty
        (("-af", "pan=stereo|c0=c0|c1=-0.2*c0", "-c:a", "pcm_s16le"), 0.03),
        (("-af", "pan=5.1|FC=c0", "-c:a", "flac"), 0.03),
    ],
)
def test_quiet_and_lopsided_speech_is_scored(
    puppet: Path,
    extractor: Extractor,
    tmp_path: Path,
    run_ffmpeg: RunFfmpeg,
    sound: tuple[str, ...],
    apart: float,
) -> None:
    right, offset = measured(extractor, Clip(puppet))
    clip = muxed(puppet, tmp_path / "quiet.mkv", run_ffmpeg, *sound)
    got, at = measured(extractor, clip)
    assert (got, at) == (pytest.approx(right, abs=apart), offset)


def test_real_speech_60_db_down_is_not_silent(
    samples: Path, tmp_path: Path, run_ffmpeg: RunFfmpeg
) -> None:
    whole, quiet = samples / "stccl-page/neutral_033_1.mp4", tmp_path / "quiet.wav"
    run_ffmpeg("-i", whole, "-vn", "-af", "volume=-60dB", quiet)
    sound = audio.samples(Clip(quiet))
    audio.check_audible(Clip(quiet), sound, Audible())
    loud = audio.samples(Clip(whole))
    assert audio.level(loud) - audio.level(sound) == pytest.approx(60, abs=1)


def test_published_clips_are_far_above_silence(samples: Path) -> None:
    levels = [
        audio.level(audio.samples(Clip(path)))
        for path in sorted((samples / "stccl-page").rglob("*.mp4"))
    ]
    assert -45 < min(levels) < max(levels) < -20


def test_what_a_lossy_codec_leaves_of_opposite_channels_is_refused(
    samples: Path, tmp_path: Path, run_ffmpeg: RunFfmpeg
) -> None:
    for codec in ("aac", "libvorbis"):
        made = tmp_path / f"{codec}.mkv"
        run_ffmpeg(
            "-i",
            samples / "stccl-page/video_result/M003_source_sad_033.mp4",
            "-vn -ac 1 -ar 48000",
            tmp_path / "mono.wav",
        )
        run_ffmpeg("-i", tmp_path / "mono.wav", "-af", OPPOSITE, "-c:a", codec, "-b:a", "64k", made)
        sound = audio.samples(Clip(made))
        with pytest.raises(ClipError, match=r"cancels out \(it is \d\d dB below them\)"):
            audio.check_audible(Clip(made), sound, Audible())


def test_a_clip_of_0_9_s_has_windows_but_too_few(puppet: Path, extractor: Extractor) -> None:
    found = sync_of(extractor, Clip.parse(f"{puppet}#t=0,0.88"))  # 22 frames
    card = metric_card("lse-d").statistic
    assert isinstance(card, sync.SyncKind)
    assert len(found.frames) == 17 < card.min_windows


def test_a_clip_that_is_silent_for_a_half_is_scored(
    puppet: Path, extractor: Extractor, tmp_path: Path, run_ffmpeg: RunFfmpeg
) -> None:
    silent = ("-af", "volume=0:enable='lt(t,1.15)'", "-c:a", "flac")
    clip = muxed(puppet, tmp_path / "half.mkv", run_ffmpeg, *silent)
    assert len(sync_of(extractor, clip).frames) > 40
    with pytest.raises(ClipError, match="its sound is silent"):
        sync_of(extractor, Clip.parse(f"{clip}#t=0,1.1"))  # of this part it is the whole


def test_a_control_is_not_refused_for_the_silence_that_it_adds(
    puppet: Path, extractor: Extractor
) -> None:
    # 55 of 58 frames of sound are shifted away; what is left is a quiet end.
    early, late = (
        sync_of(extractor, Clip.parse(f"{puppet}#edit=shifted-audio:{n}")) for n in (55, -55)
    )
    assert len(early.frames) == len(late.frames) > 40


def test_silent_recordings_are_not_aligned(
    puppet: Path, tmp_path: Path, run_ffmpeg: RunFfmpeg
) -> None:
    silent = muxed(puppet, tmp_path / "silent.mkv", run_ffmpeg, "-af", OPPOSITE)
    with pytest.raises(ClipError, match="cancels out"):
        align_clips(Clip(puppet), silent)


def test_a_level_is_that_of_the_loudest_fifth_of_a_second() -> None:
    # A sine of amplitude a has the deviation a / sqrt 2: 3.01 dB below full scale for a = 32768.
    times = np.arange(3200) / 16000
    sine = (3276.8 * np.sin(2 * np.pi * 100 * times)).round().astype(np.int16)
    assert audio.level(sine) == pytest.approx(-23.01, abs=0.01)
    quiet = np.zeros(16000, np.int16)
    assert audio.level(quiet) == -np.inf
    assert audio.level(np.concatenate([quiet, sine, quiet])) == audio.level(sine)
    assert audio.level(np.full(9000, -32768, np.int16)) == -np.inf  # an offset is no sound
    assert audio.level(np.zeros(0, np.int16)) == -np.inf


# ---- names ---------------------------------------------------------------------------------


@pytest.fixture
def listed(
    puppet: Path, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Bench, Path]:
    """A list of one's own in a folder whose name is no UTF-8, with its recordings indexed."""
    top = tmp_path / NOT_UTF8
    assert bench("protocol", "new", top / "cards").code == 0
    card = top / "cards/protocols/my-list.toml"
    text = card.read_text().replace('faces = "detect"', 'faces = "aligned"')
    card.write_text(text.replace('profile = "light"', 'profile = "compact"'))
    root = top / "root/anna"
    root.mkdir(parents=True)
    for name in ("neutral_1", "neutral_2", "happy_1", "happy_2"):
        shutil.copy(puppet, root / f"{name}.mp4")
    (top / "root" / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"no video")
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(top / "cards"))
    assert bench("data", "index", "my-list-clips", top / "root").code == 0
    return bench, top


def test_recordings_are_found_in_capitals_and_two_for_one_name_are_an_error(
    listed: tuple[Bench, Path],
) -> None:
    bench, top = listed
    one = top / "root/anna/happy_1.mp4"
    shutil.copy(one, one.with_suffix(".MP4"))
    done = bench("data", "index", "my-list-clips", top / "root")
    assert (done.code, "anna/happy_1.MP4 and anna/happy_1.mp4 for one" in done.err) == (1, True)
    one.unlink()
    assert bench("data", "index", "my-list-clips", top / "root").code == 0
    method = ("eval", "--method", "real", "--protocol", "my-list", "--metrics", "csim")
    assert bench(*method).code == 0


def outputs(folder: Path, puppet: Path, *names: str) -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(puppet, folder / name)
    return folder


def test_an_evaluation_takes_folders_and_files_that_are_no_utf_8(
    listed: tuple[Bench, Path], puppet: Path
) -> None:
    bench, top = listed
    own = outputs(
        top / "out", puppet, "anna_neutral_1.mp4", "anna_happy_1.mp4", os.fsdecode(b"caf\xe9.mp4")
    )
    options = ("--protocol", "my-list", "--results", top / "results")
    done = bench("eval", "--method", "mine", "--videos", own, *options)
    assert done.code == 0
    assert r"extra, expected by no item: caf\udce9.mp4" in done.err
    record = top / "results/my-list/mine.compact.json"
    assert json.loads(record.read_text("utf-8"))["complete"]
    assert bench("table", record).code == 0
    assert bench("report", record, "-o", top / "report", "--videos", f"mine={own}").code == 0
    assert bench("faces", puppet, "-o", top / "no.txt", "--profile", NOT_UTF8).code == 1
    shown = bench("eval", "--method", "mine", "--videos", own, "--dry-run", "--json", *options)
    # JSON's own escape gives the name back, byte for byte.
    assert os.fsencode(json.loads(shown.out)["extra"][0]) == b"caf\xe9.mp4"


def test_outputs_whose_names_are_no_utf_8_are_recorded_reversibly(
    listed: tuple[Bench, Path], puppet: Path
) -> None:
    bench, top = listed
    layout = top / "cards/protocols/layouts/any.toml"
    layout.parent.mkdir()
    layout.write_text(
        'title = "Any"\ndescription = "x"\nmust = "x"\nsource = "x"\nplaces = ["{id}_*.mp4"]\n'
    )
    names = [os.fsdecode(b"anna_%b_1_\xe9.mp4" % e) for e in (b"neutral", b"happy")]
    own = outputs(top / "out", puppet, *names)
    options = ("--protocol", "my-list", "--results", top / "results", "--layout", "any")
    assert bench("eval", "--method", "mine", "--videos", own, *options).code == 0
    record = top / "results/my-list/mine.compact.json"
    items = json.loads(record.read_text("utf-8"))["items"]
    assert [i["clips"]["output"]["address"] for i in items] == names
    report = ("report", record, "-o", top / "report", "--videos", f"mine={own}")
    assert bench(*report).code == 0
    assert list((top / "report/media").iterdir())


def test_folders_of_pairs_may_be_no_utf_8(listed: tuple[Bench, Path], puppet: Path) -> None:
    bench, top = listed
    name = os.fsdecode(b"h\xe9.mp4")
    a, b = (outputs(top / side, puppet, name) for side in "ab")
    written = ("-o", top / "o.csv", "--regions", top / "r.json", "--heatmaps", top / "maps")
    scored = bench("score", "--source", a, "--generated", b, "--aligned", *written)
    assert scored.code == 0
    assert r"h\udce9" in scored.out
    assert (top / "maps" / os.fsdecode(b"h\xe9.png")).is_file()
    assert r"h\udce9" in (top / "o.csv").read_text("utf-8")
    aligned = bench(
        "align", a, b, "-o", top / "pairs.json", "--speaker", "anna", "--emotion", "happy"
    )
    assert aligned.code == 0
    (key,) = json.loads((top / "pairs.json").read_text("utf-8"))["anna"]["happy"]
    assert os.fsencode(key) == b"h\xe9_h\xe9"


def test_names_of_methods_and_options_that_are_no_utf_8_are_one_line(bench: Bench) -> None:
    for arguments in (
        ("eval", "--method", NOT_UTF8),
        ("eval", "--method", NOT_UTF8, "--videos", ".", "--protocol", "demo-inter-id"),
        ("eval", "--method", "source", "--protocol", NOT_UTF8),
        ("eval", "--method", "source", "--metrics", NOT_UTF8),
        ("eval", "--method", "source", "--profile", NOT_UTF8),
        ("eval", "--method", "m", "--videos", NOT_UTF8),
        ("faces", f"{NOT_UTF8}/clip.mp4"),
        ("align", NOT_UTF8, NOT_UTF8, "--speaker", "a", "--emotion", "happy"),
        ("score", "--source", NOT_UTF8, "--generated", NOT_UTF8),
        ("data", "index", NOT_UTF8, "."),
        ("table", NOT_UTF8),
        ("compare", NOT_UTF8, NOT_UTF8),
        ("report", NOT_UTF8),
        ("audit", NOT_UTF8),
        ("preference", NOT_UTF8),
        ("check", NOT_UTF8),
        ("train", "--config", f"{NOT_UTF8}.toml", "--output", NOT_UTF8),
    ):
        done = bench(*arguments)
        last = done.err.strip().splitlines()[-1]
        assert (done.code, last[:6]) in ((1, "Error:"), (2, "Error:")), arguments
        assert r"\udce9" in last, arguments


@pytest.mark.parametrize(
    ("expected", "lies"),
    [
        (f"{NFC}.mp4", f"{NFD}.mp4"),
        (f"{NFD}.mp4", f"{NFC}.mp4"),
        ("a.mp4", "a.MP4"),
        ("a.MP4", "a.mp4"),
        (f"{NFC}/a.b.mp4", f"{NFD}/a.b.Mp4"),
        ("*/[x].mp4", "any/[x].MP4"),
    ],
)
def test_names_match_in_any_normal_form_and_case_of_suffix(
    tmp_path: Path, expected: str, lies: str
) -> None:
    (tmp_path / lies).parent.mkdir(exist_ok=True)
    (tmp_path / lies).touch()
    pattern = "/".join(
        part if part == "*" else part.replace("[", "[[]") for part in expected.split("/")
    )
    assert Listing(tmp_path).find(pattern) == [lies]


def test_only_the_suffix_of_a_media_file_may_differ_in_case(tmp_path: Path) -> None:
    for name in ("A.mp4", "b.TXT", "c.Xmp4"):
        (tmp_path / name).touch()
    listing = Listing(tmp_path)
    assert [listing.find(n) for n in ("a.mp4", "b.txt", "c.xmp4")] == [[], [], []]
    assert same_name("v1.MP4/x") == "v1.MP4/x"


@pytest.mark.parametrize(
    "names",
    [(f"{NFC}.mp4", f"{NFD}.mp4"), (f"{NFC}.mp4", f"{NFC}.MP4"), (f"{NFD}.mkv", f"{NFC}.MP4")],
)
@pytest.mark.parametrize("kind", ["plain", "layout"])
def test_two_files_for_one_item_are_an_error_that_names_both(
    tmp_path: Path, puppet: Path, names: tuple[str, str], kind: str
) -> None:
    listed = read_protocol("demo-inter-id")
    item = replace(listed.items[0], output_name=f"{NFC}.mp4", row={"id": NFC})
    layout = layout_card("dice-talk") if kind == "layout" else None
    provider = demo_puppets(DataFolders())

    def found(folder: Path) -> Clip | ClipError:
        one = replace(listed, items=(item,))
        if layout is None:
            placed, _ = find_outputs(Videos(folder), one, provider)
        else:
            placed, _ = place(layout, folder, one, lambda *_: Clip(puppet))
        return placed[0].clip

    for number, name in enumerate(names):
        one = outputs(tmp_path / f"one{number}", puppet, name)
        assert found(one) == Clip(one / name)
    error = found(outputs(tmp_path / "both", puppet, *names))
    assert isinstance(error, ClipError)
    assert "for one item. Keep one" in str(error)
    assert all(name in error.problem for name in names)


def test_two_sounds_for_one_folder_of_frames_are_an_error_that_names_both(
    frames: Clip, tmp_path: Path
) -> None:
    listed = read_protocol("demo-inter-id")
    one = replace(listed, items=(replace(listed.items[0], output_name="frames.mp4"),))

    def found() -> Clip | ClipError:
        placed, _ = find_outputs(Videos(tmp_path, 25.0), one, demo_puppets(DataFolders()))
        return placed[0].clip

    assert found() == frames
    (tmp_path / "frames.wav").rename(tmp_path / "frames.WAV")
    clip = found()
    assert isinstance(clip, Clip) and clip.audio == tmp_path / "frames.WAV"
    shutil.copy(tmp_path / "frames.WAV", tmp_path / "frames/audio.wav")
    both = found()
    assert isinstance(both, ClipError)
    assert "frames.WAV and frames/audio.wav for one item" in both.problem


def test_figures_take_any_name(tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    def draw() -> Figure:
        figure = Figure()
        figure.text(0, 0, f"{NOT_UTF8} $\\no{{ formula$")
        return figure

    save_drawing(draw, tmp_path / "figure.png")
    assert cv2.imread(str(tmp_path / "figure.png")) is not None
