"""Outputs as the field's systems name them: what is taken for which item."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from spfem_bench.datasets.layouts import SourceOf, place
from spfem_bench.definitions.cards import Kind, names
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.layouts import layout_card
from spfem_bench.definitions.protocols import Item, Protocol, protocol
from spfem_bench.errors import ClipError, UnknownNameError
from spfem_bench.media import packets
from tests import trees
from tests.conftest import Outcome

Bench = Callable[..., Outcome]
WORDS = {"neutral": "neu", "angry": "ang"}


def card_of(bench: Bench, tree: Path, name: str) -> Path:
    """Index the small tree and cut a protocol down to it."""
    assert bench("data", "index", "mead", tree, "-q").code == 0
    assert bench("protocol", "export", name, "own").code == 0
    return trees.small(Path(f"own/my-{name}.toml"), trees.MEAD)


def local(tree: Path) -> SourceOf:
    def source_of(item: Item, heard: bool) -> Clip:
        clip = item.clips["source"]
        return Clip(tree / clip.path, audio=tree / str(clip.audio) if heard else None)

    return source_of


def evaluate(bench: Bench, card: Path, folder: Path, layout: str, *options: str) -> Outcome:
    """Score the outputs in a folder, of a method named like the layout."""
    command = ("eval", "--method", layout, "--layout", layout, "--protocol", card, *options)
    return bench(*command, "--videos", folder)


def dry(bench: Bench, card: Path, folder: Path, layout: str) -> tuple[dict[str, dict], dict, int]:
    done = evaluate(bench, card, folder, layout, "--dry-run", "--json")
    said = json.loads(done.out)
    return {i["item"]: i for i in said["items"]}, said, done.code


def test_every_layout_says_where_its_names_come_from():
    assert set(names(Kind.LAYOUT)) == {"ned", "ned-faces", "sserd", "eat", "dice-talk", "icface"}
    for name in names(Kind.LAYOUT):
        card = layout_card(name)
        assert card.source.startswith("github.com/") and card.must and card.description
        assert card.silent  # the source's sound, where an output has none
    with pytest.raises(UnknownNameError, match="Did you mean 'sserd'"):
        layout_card("serd")


def test_ned_frames_are_scored_with_the_sources_sound(
    bench: Bench, mead_tree: Path, run_ffmpeg, tmp_path: Path
):
    card = card_of(bench, mead_tree, "mead-inter-id")
    rows = card.with_suffix(".csv")  # one item of each emotion is enough here
    head, *lines = rows.read_text().splitlines()
    rows.write_text("\n".join([head, lines[0], lines[3]]) + "\n")
    found = protocol(str(card))
    out = tmp_path / "out"
    for item in found.items:
        frames = out / f"{item.speaker}_{item.row['source_clip']}/{item.emotion}/full_frames"
        frames.mkdir(parents=True)
        run_ffmpeg(
            "-i", mead_tree / item.clips["source"].path, "-start_number", "0", frames / "%06d.png"
        )
    before = sorted(p for p in tmp_path.rglob("*"))
    items, said, code = dry(bench, card, out, "ned")
    assert code == 0 and said["counts"]["found"] == 2 and said["extra"] == []
    assert sorted(p for p in tmp_path.rglob("*")) == before  # nothing is written
    first = found.items[0]
    assert items[first.id]["places"] == [f"M003_{first.row['source_clip']}/neutral/full_frames"]
    assert items[first.id]["sound"] == "source"
    done = evaluate(bench, card, out, "ned", "--metrics", "lse-d,av-offset,id-sim", "--json")
    assert done.code == 0, done.err
    average = {s["metric"]: s["value"] for s in json.loads(done.out) if s["emotion"] == "avg"}
    assert average["av-offset"] == 0 and average["lse-d"] < 2 and average["id-sim"] > 0.98
    record = json.loads(Path("results/my-mead-inter-id/ned.compact.json").read_text())
    address = record["items"][0]["clips"]["output"]["address"]
    assert address == (
        f"M003_{first.row['source_clip']}/neutral/full_frames#fps=30.0"
        f"&audio={first.clips['source'].audio}"
    )


def test_sserd_frames_are_parted_by_the_lengths_of_the_sources(
    bench: Bench, mead_tree: Path, tmp_path: Path
):
    card = card_of(bench, mead_tree, "mead-inter-id-self")
    found = protocol(str(card))
    out = tmp_path / "out"
    lengths = {}
    for item in found.items:
        streams = packets.stream_times(mead_tree / item.clips["source"].path)
        lengths[item.id] = streams["video"].packets
        folder = out / f"gen_intra/{item.emotion}/{item.speaker}"
        folder.mkdir(parents=True, exist_ok=True)
        start = len(list(folder.iterdir()))
        for n in range(start, start + lengths[item.id]):
            (folder / f"{n:06d}.png").write_bytes(b"")
    items, said, code = dry(bench, card, out, "sserd")
    assert code == 0 and said["counts"]["found"] == 12
    placed, _ = place(layout_card("sserd"), out, found, local(mead_tree))
    angry = [
        (i, p.clip)
        for i, p in zip(found.items, placed, strict=True)
        if (i.speaker, i.emotion) == ("M009", "angry")
    ]
    start = 0
    for item, clip in sorted(angry, key=lambda pair: pair[0].row["source_clip"]):
        assert isinstance(clip, Clip) and clip.frame_rate == 30
        assert clip.pictures == (start, start + lengths[item.id])
        assert clip.audio == mead_tree / str(item.clips["source"].audio)
        start += lengths[item.id]
    # A sound beside joined frames is not every part's, and a source without sound has pictures.
    (out / "gen_intra/angry/M009/audio.wav").write_bytes(b"")

    def unheard(item: Item, heard: bool) -> Clip:
        if heard:
            raise ClipError("no sound", "")
        return local(mead_tree)(item, heard)

    for source_of, sound in ((local(mead_tree), "source"), (unheard, "none")):
        placed, _ = place(layout_card("sserd"), out, found, source_of)
        assert {(p.state, p.sound) for p in placed} == {("found", sound)}
    # A folder that one item alone takes is held against its source, too.
    one = replace(found, items=found.items[:1])
    placed, _ = place(layout_card("sserd"), out, one, local(mead_tree))
    assert placed[0].state == "ambiguous" and "its 1 sources have" in str(placed[0].clip)
    # One frame too many: nothing is guessed.
    (out / f"gen_intra/angry/M009/{start:06d}.png").write_bytes(b"")
    items, said, code = dry(bench, card, out, "sserd")
    assert code == 2 and said["counts"] == {"found": 9, "absent": 0, "ambiguous": 3, "extra": 0}
    assert any(f"holds {start + 1} frames" in i.get("reason", "") for i in items.values())
    # The protocol whose sources are neutral does not take outputs made of emotional ones.
    other = card_of(bench, mead_tree, "mead-inter-id")
    _, said, code = dry(bench, other, out, "sserd")
    assert code == 2 and said["counts"]["absent"] == 12


def test_eat_names_with_absent_ambiguous_and_extra(bench: Bench, mead_tree: Path, tmp_path: Path):
    card = card_of(bench, mead_tree, "mead-inter-id")
    found = protocol(str(card))
    out = tmp_path / "out"
    out.mkdir()
    some = next(mead_tree.rglob("*.mp4"))
    files = {
        i.id: f"face_{WORDS[i.emotion]}_{i.speaker}_neu_1_{i.row['source_clip']}.mp4"
        for i in found.items
    }
    for name in files.values():
        os.link(some, out / name)
    absent, double, *_ = files
    (out / files[absent]).unlink()
    os.link(some, out / files[double].replace("face_", "other_"))
    os.link(some, out / "face_hap_M003_neu_1_024.mp4")
    os.link(some, out / "notes.mp4.txt")
    items, said, code = dry(bench, card, out, "eat")
    assert code == 2
    assert said["counts"] == {"found": 10, "absent": 1, "ambiguous": 1, "extra": 1}
    assert items[absent]["state"] == "absent" and len(items[double]["places"]) == 2
    assert "for one item" in items[double]["reason"]
    assert said["extra"] == ["face_hap_M003_neu_1_024.mp4"]
    shown = evaluate(bench, card, out, "eat", "--dry-run")
    assert "10 found, 1 absent, 1 ambiguous, 1 extra" in shown.out
    assert "driving folder" in shown.err  # what the user has to do
    scored = evaluate(bench, card, out, "eat", "--metrics", "id-sim")
    assert scored.code == 2 and "extra, expected by no item: face_hap" in scored.err


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("icface", "{id}/movie.mp4"),
        ("icface", "{id}.mp4"),
        ("dice-talk", "{id}.avi"),
        ("dice-talk", "{speaker}_{source_clip}_{emotion}.mp4"),
        ("ned", "{speaker}_{source_clip}/{emotion}.mp4"),
        ("sserd", "{id}/000000.png"),
    ],
)
def test_names_of_the_other_systems(mead_tree: Path, tmp_path: Path, layout: str, name: str):
    found = protocol("mead-cross-id")
    item = found.items[40]
    path = tmp_path / name.format(**item.row)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")

    def lost(item: Item, heard: bool) -> Clip:
        raise ClipError("no data here")

    placed, extra = place(layout_card(layout), tmp_path, found, lost)
    states = {p.item: p.state for p in placed}
    assert states.pop(item.id) == "found" and set(states.values()) == {"absent"}
    assert extra == ()


def test_names_are_literal_and_stay_in_their_folder(tmp_path: Path, monkeypatch):
    """Signs that mean something in patterns mean nothing in a list."""
    found = protocol("mead-cross-id")
    item = found.items[0]

    def renamed(name: str) -> Protocol:
        return replace(found, items=(replace(item, id=name, row={**item.row, "id": name}),))

    out = tmp_path / "out"
    out.mkdir()
    (out / "a.mp4").write_bytes(b"")
    (tmp_path / "b.mp4").write_bytes(b"")
    source_of = local(tmp_path)
    for name, state in (("[ab]", "absent"), ("?", "absent"), ("a", "found")):
        placed, _ = place(layout_card("icface"), out, renamed(name), source_of)
        assert placed[0].state == state, name
    with pytest.raises(Exception, match="leaves its folder"):
        place(layout_card("icface"), out, renamed("../b"), source_of)
    # A name that no clip can have is that item's trouble alone.
    (out / "x\\y_neu_M003_neu_1_024.mp4").write_bytes(b"")
    placed, _ = place(layout_card("eat"), out, found, source_of)
    assert [p.state for p in placed].count("ambiguous") == 1 and len(placed) == 126


def test_drawn_items_have_no_layout(bench: Bench, tmp_path: Path):
    done = bench("eval", "--method", "x", "--videos", tmp_path, "--layout", "eat")
    assert done.code == 1 and "leave out --layout" in done.err


def test_layouts_need_videos_and_a_folder(bench: Bench, tmp_path: Path):
    assert bench("eval", "--method", "x", "--dry-run").code == 2
    done = bench(
        "eval", "--method", "x", "--videos", tmp_path / "no", "--layout", "ned", "--dry-run"
    )
    assert done.code == 1 and "no such folder" in done.err
    done = bench("eval", "--method", "x", "--videos", tmp_path, "--layout", "NED")
    assert done.code == 1 and "Did you mean 'ned'" in done.err


def test_a_dry_run_without_a_layout_shows_the_expected_names(
    bench: Bench, mead_tree: Path, tmp_path: Path
):
    out = tmp_path / "out"
    out.mkdir()
    item = protocol("demo-inter-id").items[0]
    shutil.copy(next(mead_tree.rglob("*.mp4")), out / item.output_name)
    done = bench(
        "eval", "--method", "x", "--protocol", "demo-inter-id", "--videos", out, "--dry-run"
    )
    assert done.code == 2 and "1 found, 41 absent" in done.out
