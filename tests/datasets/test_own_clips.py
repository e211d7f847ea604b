"""A user's own folders of clips: which belong together, and what is wrong, said at once."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from spfem_bench.datasets.clip_folders import ClipFolder
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.datasets.name_matching import ClipNames, bare_name, name_pattern, read_name
from spfem_bench.datasets.own_clips import OwnClips, OwnList
from spfem_bench.datasets.own_matching import match_clips
from spfem_bench.datasets.own_protocol import protocol_files, write_protocol
from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.errors import CardError, ClipError, MissingClipError, StorageError

TAKES = builtin_folder() / "protocols/datasets/puppets"


def folder(top: Path, name: str, *files: str) -> Path:
    """Make a folder of empty files."""
    for file in files:
        path = top / name / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (top / name).mkdir(exist_ok=True)
    return top / name


def said(made: OwnList) -> str:
    return "\n".join("\n".join([p.what, *p.cases, p.remedy]) for p in made.problems)


@pytest.mark.parametrize(
    ("output", "source"),
    [
        ("a", "a"),
        ("A", "a"),  # small and capital letters
        ("gen_a", "a"),
        ("fake-a_result", "a"),
        ("a_generated", "a"),
        ("Pred_a.output", "a"),
        ("sub/gen_a", "sub/a"),
        ("sub/a", "a"),  # another folder
        ("a_angry_3", "a"),  # a part of the name
        ("b_a", "a"),
        ("clip10_happy", "clip10"),  # and not clip1
        ("M003_neutral_001_W015", "M003_neutral_001"),  # the longest
        ("\u0065\u0301", "\u00e9"),  # NFD and NFC
    ],
)
def test_an_output_finds_its_source(output: str, source: str) -> None:
    names = ClipNames(["a", "sub/a", "clip1", "clip10", "M003_neutral_001", "M003", "\u00e9"])
    names = names if output != "sub/a" else ClipNames(["a", "clip1"])
    assert names.find(output) == [source]


def test_names_that_do_not_fit_or_fit_twice() -> None:
    names = ClipNames(["a/1", "b/1", "clip1"])
    assert names.find("1") == ["a/1", "b/1"]
    assert names.find("clip10") == [] and names.nearest("clip10") == "clip1"
    assert names.find("zzz") == [] and names.nearest("zzz") == ""
    assert ClipNames(["anna_7_long"]).find("anna_7") == ["anna_7_long"]
    assert bare_name("gen_") == "gen_" and bare_name("result") == "result"


def test_patterns_read_names_and_wrong_ones_are_refused() -> None:
    mine = name_pattern("{speaker}_{emotion}_{clip}")
    assert read_name(mine, "x/gen_anna_happy_0_1") == {
        "speaker": "gen",  # as it stands; the pattern decides
        "emotion": "anna",
        "clip": "happy_0_1",
    }
    nested = name_pattern("{speaker}/{emotion}_*")
    assert read_name(nested, "anna/sad_3") == {"speaker": "anna", "emotion": "sad"}
    assert read_name(mine, "anna") is None
    for pattern in ("{clip}", "{speaker}_{speaker}", "x"):
        with pytest.raises(CardError, match="speaker"):
            name_pattern(pattern)


def test_a_folder_lists_videos_and_folders_of_frames(tmp_path: Path) -> None:
    files = ("a.MP4", "b/0.png", "b/1.png", "c/d.mkv", "c/d.png", "note.txt", ".x.mp4")
    clips = ClipFolder.read(folder(tmp_path, "f", *files))
    assert clips.clips == {"a": ("a.MP4",), "b": ("b",), "c/d": ("c/d.mkv",)}
    with pytest.raises(ClipError, match=r"no clips in it; it holds n\.txt"):
        ClipFolder.read(folder(tmp_path, "g", "n.txt"))
    with pytest.raises(ClipError, match="needs its frame rate"):
        clips.clip("b", "generated", None)
    assert str(clips.clip("b", "generated", 25.0)) == "generated/b#fps=25.0"
    for name in ("a#t=1,2.mp4", "a\u202e.mp4"):
        odd = ClipFolder.read(folder(tmp_path, "h", name))
        with pytest.raises(ClipError, match="Rename"):
            odd.clip(name, "generated", None)


def test_all_that_is_wrong_with_names_is_said_at_once(tmp_path: Path) -> None:
    generated = folder(tmp_path, "out", "a.mp4", "gen_a.avi", "anna_8.mp4", "b.mp4")
    source = folder(tmp_path, "src", "a.mp4", "anna_7.mp4", "b.mp4", "B.mkv")
    labels = tmp_path / "labels.csv"
    labels.write_text("generated,emotion\nnobody,sad\nb,sad\nb.mp4,sad\n")
    text = said(match_clips(OwnClips({"m": generated}, source, labels=labels)))
    for part in (
        "two outputs for one name\na.mp4 and gen_a.avi",
        "rows name no output\nnobody",
        "two rows for one output\nb.mp4",
        "3 of 4 outputs have no row",
        "outputs have no source clip in",
        "anna_8; the nearest is anna_7",
        "fit several files",
        "b: B.mkv and b.mp4",
    ):
        assert part in text


def test_folders_of_frames_need_their_rate(tmp_path: Path) -> None:
    out, src = folder(tmp_path, "out", "a/0.png"), folder(tmp_path, "src", "a.mp4")
    text = said(match_clips(OwnClips({"m": out}, src)))
    assert "rate of 1 folder of frames is not given" in text and "--frame-rate 25" in text
    text = said(match_clips(OwnClips({"m": out / "a"}, src)))
    assert f"If these are one clip's frames, give the folder above, {out}" in text


def test_folders_that_cannot_be_are_said(tmp_path: Path) -> None:
    full, empty = folder(tmp_path, "out", "a.mp4"), folder(tmp_path, "empty")
    same = said(match_clips(OwnClips({"m": full}, tmp_path / "empty/../out")))
    assert "--generated and --source are the same folder" in same
    text = said(match_clips(OwnClips({"m": empty}, tmp_path / "nowhere", real=full)))
    assert "--generated" in text and "it is empty" in text
    assert "nowhere: no such folder" in text
    text = said(match_clips(OwnClips({"m": full / "a.mp4"}, full)))
    assert f"a.mp4 is a file\nGive a folder, such as {full}" in re.sub(r"\n+", "\n", text)
    text = said(match_clips(OwnClips({"m": full, "n": full}, tmp_path / "empty")))
    assert f"two of --generated are the same folder, {full}" in text


def test_real_clips_and_mapped_references_may_be_the_sources(tmp_path: Path) -> None:
    out, src, refs = (folder(tmp_path, top, "a.mp4", "b.mp4") for top in ("out", "src", "refs"))

    def real_clips(made: OwnList) -> tuple[str, list[str]]:
        assert not made.problems
        return made.real_is, [str(item.clips["real"]) for item in made.items]

    made = match_clips(OwnClips({"m": out}, src, refs, src))
    assert real_clips(made) == ("source", ["source/a.mp4", "source/b.mp4"])
    assert len(made.unreadable) == 2 and "a.mp4" in made.unreadable[0]  # these files are empty
    made = match_clips(OwnClips({"m": out}, src, refs, refs))
    assert real_clips(made) == ("reference", ["reference/a.mp4", "reference/b.mp4"])
    text = said(match_clips(OwnClips({"m": out}, src, src)))
    assert "--source and --reference are the same folder" in text and "--mapping" in text

    sheet = tmp_path / "sheet.csv"
    sheet.write_text("generated,reference,real\na,b,\nb,a,a\n")
    made = match_clips(OwnClips({"m": out}, src, src, src, mapping=sheet))
    assert real_clips(made) == ("real", ["real/a.mp4", "real/a.mp4"])
    assert [str(i.clips["reference"]) for i in made.items] == ["reference/b.mp4", "reference/a.mp4"]
    text = said(match_clips(OwnClips({"m": out}, src, mapping=sheet)))
    for role in ("reference", "real"):
        assert f"has a column '{role}', and --{role} is not given\n" in text
    sheet.write_text("generated,reference\na,b\nb,\n")  # b would be compared with its source
    text = said(match_clips(OwnClips({"m": out}, src, src, mapping=sheet)))
    assert "--source and --reference are the same folder" in text


def test_two_spellings_of_one_emotion_are_said(tmp_path: Path) -> None:
    out, src = (folder(tmp_path, top, "a.mp4", "b.mp4", "c.mp4") for top in ("out", "src"))
    sheet = tmp_path / "sheet.csv"
    sheet.write_text("generated,speaker,emotion\na,Ann,Happy\nb,ann,happy\nc,Bo,sad\n")
    text = said(match_clips(OwnClips({"m": out}, src, labels=sheet)))
    assert "one speaker in two spellings\nAnn and ann" in text
    assert "one emotion in two spellings\nHappy and happy" in text


def test_outputs_that_only_another_method_has_are_left_out_and_said(tmp_path: Path) -> None:
    one, src = (folder(tmp_path, top, "a.mp4") for top in ("one", "src"))
    two = folder(tmp_path, "two", "a.mp4", "b.mp4")
    made = match_clips(OwnClips({"m": one, "n": two}, src))
    assert len(made.items) == 1 and not made.problems
    assert "Left out: 1 output of n that others do not have: b" in made.remarks


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        ("clip,emotion\na,sad\n", "no column names the outputs"),
        ("name,emotoin\na,sad\n", r"unknown column 'emotoin'\nDid you mean 'emotion'"),
        ("name\na\n", "says nothing"),
        ("generated;emotion\na;sad\n", "it has generated;emotion\nSeparate cells by commas"),
        ("name,emotion\na\n", "number of cells"),
        ("name,emotion\na,avg\n", "cannot be used"),
        ("name,source\na,nobody\n", "cells of the column 'source' name no clip"),
    ],
)
def test_sheets_that_cannot_be_are_said(tmp_path: Path, content: str, message: str) -> None:
    out, src = folder(tmp_path, "out", "a.mp4"), folder(tmp_path, "src", "a.mp4")
    sheet = tmp_path / "sheet.csv"
    sheet.write_text(content)
    made = match_clips(OwnClips({"m": out}, src, mapping=sheet))
    assert re.search(message, said(made))


def test_lengths_are_compared_and_silence_is_found(
    tmp_path: Path, run_ffmpeg: Callable[..., None]
) -> None:
    out, src = folder(tmp_path, "out"), folder(tmp_path, "src")
    take = next(TAKES.rglob("*.mp4"))
    run_ffmpeg("-i", take, "-c", "copy", src / "a.mp4")
    run_ffmpeg("-i", take, "-t", "0.6", out / "a.mp4")
    text = said(match_clips(OwnClips({"m": out}, src)))
    assert "much shorter or longer" in text and "a.mp4: 0.60 s, its source" in text
    assert match_clips(OwnClips({"m": out}, src, any_length=True)).silent == []
    run_ffmpeg("-i", take, "-an", "-c", "copy", out / "a.mp4")
    assert match_clips(OwnClips({"m": out}, src)).silent == [str(out / "a.mp4")]
    # A track in which nothing is to be heard is no sound either.
    mute = ("-f", "lavfi", "-i", "anullsrc=r=16000", "-shortest", "-c:v", "copy")
    run_ffmpeg("-i", take, *mute, "-map", "0:v", "-map", "1:a", out / "a.mp4")
    mute_output = match_clips(OwnClips({"m": out}, src))
    assert mute_output.silent == [str(out / "a.mp4")]
    for lent, remedy in ((False, ": add --sound source"), (True, ": nor in their sources")):
        own = OwnClips({"m": out}, src, sound_of_source=lent)
        texts = protocol_files(own, mute_output, "m", setting="inter-id", aligned=True)
        assert f"no sound in 1 of 1 outputs{remedy}" in texts["m.toml"]
    made = match_clips(OwnClips({"m": out}, src, sound_of_source=True))
    assert made.silent == []
    assert str(made.items[0].outputs["m"]) == "generated/a.mp4#audio=source/a.mp4"


def written(tmp_path: Path, name: str = "mine") -> tuple[OwnClips, OwnList, Path]:
    take = next(TAKES.rglob("*.mp4"))
    for top in ("out", "src"):
        (tmp_path / top).mkdir(parents=True, exist_ok=True)
        (tmp_path / top / "a.mp4").write_bytes(take.read_bytes())
    own = OwnClips({"mine": tmp_path / "out"}, tmp_path / "src")
    made = match_clips(own)
    files = protocol_files(own, made, name, setting="inter-id", aligned=True)
    return own, made, write_protocol(tmp_path / "results" / name, files)[0]


def test_the_protocol_is_read_again_and_its_files_stay_in_their_folders(tmp_path: Path) -> None:
    _, _, path = written(tmp_path / "here")
    listed = protocol(str(path))
    assert listed.card.not_applicable == {"csim": "no reference clips: add --reference DIR"}
    assert [i.speaker for i in listed.items] == ["a"] and listed.card.emotions == ("all",)
    provider = DataFolders().provider(listed.dataset)
    assert provider.verified("source/a.mp4") == tmp_path / "here/src/a.mp4"
    with pytest.raises(MissingClipError):
        provider.verified("source/b.mp4")
    for name in ("source/../out/a.mp4", "/etc/passwd", "source", "elsewhere/a.mp4"):
        with pytest.raises((CardError, ClipError)):
            provider.verified(name)
    # Where folders lie is no part of what is compared.
    _, _, other = written(tmp_path / "there")
    assert protocol(str(other)).list_sha256 == listed.list_sha256
    # The cards of folders are also found by name alone.
    assert dataset_card("mine-clips", path.parent) == listed.dataset


def test_a_protocol_that_the_user_wrote_is_kept(tmp_path: Path) -> None:
    own, made, path = written(tmp_path)
    files = protocol_files(own, made, "mine", setting="inter-id", aligned=True)
    assert write_protocol(path.parent, files) == (path, False)
    assert write_protocol(path.parent, files | {"mine.csv": "id\n"}) == (path, True)
    path.write_text("# mine\n")
    with pytest.raises(StorageError, match="not made by eval"):
        write_protocol(path.parent, files)
    with pytest.raises(CardError, match="no name"):
        protocol_files(own, made, "a/b", setting="inter-id", aligned=True)
