"""Test clips known by sums: the solver, and ``protocol solve`` on indexes of a mini MEAD."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest

from spfem_bench.caches import cache_folder
from spfem_bench.datasets.cells import Cell, SourceClip, solve
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.datasets.providers.recordings import frames_of
from spfem_bench.datasets.recordings_index import IndexedFile, RecordingsIndex, save_index
from spfem_bench.datasets.solving import read_cells
from spfem_bench.definitions.datasets import dataset_card, further_recordings, recordings
from spfem_bench.definitions.protocols import load_protocol, protocol, ready_protocols
from spfem_bench.errors import CardError
from spfem_bench.media.packets import Stretch
from tests import trees
from tests.conftest import ROOT, Outcome

Bench = Callable[..., Outcome]
PAPERS = ["mead-papers", "ravdess-papers"]


def clips(lengths: dict[str, int], speaker: str = "M003", emotion: str = "sad") -> list[SourceClip]:
    return [SourceClip(speaker, emotion, name, n, f"{name}.mp4") for name, n in lengths.items()]


# ---- the solver, by hand and against a count of all sets -----------------------------------------


def test_a_cell_with_one_set_is_determined() -> None:
    found = solve(Cell("M003", "sad", 2, 30), clips({"001": 10, "002": 20, "003": 25}))
    assert (found.state, [c.clip for c in found.chosen], found.off) == (
        "determined",
        ["001", "002"],
        0,
    )


def test_of_two_sets_the_one_with_the_last_clips_is_taken() -> None:
    # 001 + 004 and 002 + 003 both have 30 frames; 002 is later than 001.
    some = clips({"001": 10, "002": 14, "003": 16, "004": 20})
    found = solve(Cell("M003", "sad", 2, 30), some)
    assert (found.state, [c.clip for c in found.chosen]) == ("1 of 2", ["002", "003"])
    # A known name decides.
    found = solve(Cell("M003", "sad", 2, 30, frozenset({"004"})), some)
    assert (found.state, [c.clip for c in found.chosen]) == ("determined", ["001", "004"])


def test_a_cell_that_fits_none_says_by_how_much() -> None:
    some = clips({"001": 10, "002": 14, "003": 17})
    found = solve(Cell("M003", "sad", 2, 30), some)
    assert (found.state, found.chosen, found.off) == ("none", (), 1)  # 14 + 17
    assert found.why == "M003 sad: 2 clips of 30 frames in all; the nearest sum is 31, 1 more"
    found = solve(Cell("M003", "sad", 2, 30), some, nearest=True)
    assert (found.state, [c.clip for c in found.chosen]) == ("nearest (+1)", ["002", "003"])
    found = solve(Cell("M003", "sad", 2, 30), some, within=1)
    assert (found.state, found.off) == ("determined", 1)


def test_clips_that_are_not_there_are_named() -> None:
    some = clips({"001": 10, "002": 14})
    found = solve(Cell("M003", "sad", 2, 24, frozenset({"030"})), some, nearest=True)
    assert (found.state, found.lacking) == ("none", ("030",))
    assert "clip 030, which is one of them, is not here" in found.why
    assert "only 2 are here" in solve(Cell("M003", "sad", 3, 30), some).why
    assert "only 0 are here" in solve(Cell("M003", "happy", 3, 30), some).why
    with pytest.raises(CardError, match="M003 sad: two clips are called 001"):
        solve(Cell("M003", "sad", 2, 24), [*some, *clips({"001": 11})])


@pytest.mark.parametrize("seed", range(40))
def test_a_planted_set_is_among_all_sets_that_a_count_of_combinations_finds(seed: int) -> None:
    draw = random.Random(seed)
    size, count = draw.randint(4, 12), draw.randint(1, 4)
    some = clips({f"{n:03d}": draw.randint(80, 95) for n in range(size)})
    planted = draw.sample(some, count)
    known = frozenset(c.clip for c in draw.sample(planted, draw.randint(0, count)))
    within = draw.choice([0, 0, 2])
    cell = Cell("M003", "sad", count, sum(c.frames for c in planted), known)
    found = solve(cell, [*draw.sample(some, size), *clips({"001": 80}, "M009")], within=within)
    every = [s for s in combinations(some, count) if known <= {c.clip for c in s}]
    off = {s: sum(c.frames for c in s) - cell.frames for s in every}
    fits = [s for s in every if abs(off[s]) <= within]
    assert tuple(sorted(planted)) in fits
    assert found.sets == len(fits)
    exact = [s for s in fits if not off[s]]
    assert found.chosen in exact
    free = {s: [c.clip for c in s if c.clip not in known] for s in exact}
    assert free[found.chosen] == max(free.values())


def test_frames_are_pictures_near_thirty_a_second_and_seconds_elsewhere() -> None:
    assert frames_of(Stretch(0.0, 4.004, 120)) == 120  # 29.97, as RAVDESS has it
    assert frames_of(Stretch(0.5, 4.5, 120)) == 120
    assert frames_of(Stretch(0.0, 4.0, 100)) == 120  # 25 a second
    assert frames_of(Stretch(0.0, 0.0, 1)) == 1


# ---- the facts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "total"), [("mead-papers", 132), ("ravdess-papers", 42)])
def test_cells_are_the_papers(name: str, total: int) -> None:
    cells = read_cells(ROOT / f"protocols/{name}.csv")
    assert len(cells) == 42 and sum(c.clips for c in cells) == total
    setting = load_protocol(f"{name}-cross-id")
    assert list(dict.fromkeys(c.emotion for c in cells)) == list(setting.emotions)
    assert setting.solve is not None
    assert list(dict.fromkeys(c.speaker for c in cells)) == list(setting.solve.references)
    listed = dataset_card(name.removesuffix("-papers"))
    there = {
        (r.speaker, r.emotion, r.row["clip"])
        for r in (*recordings(listed), *further_recordings(listed))
    }
    assert {(c.speaker, c.emotion, known) for c in cells for known in c.known} <= there


def test_known_names_are_those_of_the_published_strips() -> None:
    # A strip whose reference is the speaker's own is inter-ID: its source shows the emotion.
    known = set()
    for name in ("stccl-page-ned", "asccl-repo-inter-id", "asccl-repo-cross-id"):
        for item in protocol(name).items:
            own = item.row["reference_speaker"] == item.speaker
            emotion = item.emotion if own else "neutral"
            known.add((item.speaker, emotion, item.id.rpartition("_")[2]))
    cells = read_cells(ROOT / "protocols/mead-papers.csv")
    assert {(c.speaker, c.emotion, name) for c in cells for name in c.known} == known


def test_the_one_cell_whose_names_are_all_published_has_its_total() -> None:
    # The strips show whole sources, whose ends in seconds the lists have: within a frame each.
    ends = {
        item.id.rpartition("_")[2]: float(item.row["source_s"])
        for name in ("stccl-page-ned", "asccl-repo-inter-id", "asccl-repo-cross-id")
        for item in protocol(name).items
        if item.speaker == "W015"
        and (item.emotion == "neutral" or item.row["reference_speaker"] != "W015")
    }
    cells = read_cells(ROOT / "protocols/mead-papers.csv")
    cell = next(c for c in cells if (c.speaker, c.emotion) == ("W015", "neutral"))
    assert cell.known == set(ends) and cell.clips == 4
    assert abs(sum(seconds * 30 for seconds in ends.values()) - cell.frames) <= 4


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ("M003,sad,3,0,", "line 2: 'clips' and 'frames' must be whole numbers"),
        ("M003,sad,x,90,", "whole numbers"),
        ("M003,sad,1,90,001 002", "2 known names for 1 clips"),
        ("M003,sad,1,90,\nM003,sad,1,91,", "line 3: the cell 'M003 sad' is there twice"),
    ],
)
def test_wrong_facts_are_refused(tmp_path: Path, rows: str, words: str) -> None:
    path = tmp_path / "cells.csv"
    path.write_text(f"speaker,emotion,clips,frames,known\n{rows}\n")
    with pytest.raises(CardError, match=words):
        read_cells(path)


# ---- protocol solve on a mini MEAD ---------------------------------------------------------------

SPEAKERS = ("M003", "M009")
EMOTIONS = ("neutral", "angry")
DATASET = """
title = "Mini"
licence = "l"
citation = "c"
[recordings]
items = "{name}.csv"
video = ["{name}/{{speaker}}/{{emotion}}/{{clip}}.mp4"]
sound = ["{name}/{{speaker}}/{{emotion}}/{{clip}}.wav"]
get = "https://example.org"
seconds = [1.0, 20.0]
apart = 0.3
"""


class MiniMead:
    """Two speakers with two emotions of six clips, as indexes without files."""

    def __init__(self, cards: Path) -> None:
        self.cards = cards
        (cards / "protocols/datasets").mkdir(parents=True)
        # M003's neutral clips have one set of four, its angry clips two sets of three.
        angry = {"001": 60, "002": 70, "003": 80, "004": 90, "005": 100, "006": 250}
        apart = {"001": 60, "002": 71, "003": 83, "004": 99, "005": 131, "006": 187}
        self.frames = {
            ("M003", "neutral"): apart,
            ("M003", "angry"): angry,
            ("M009", "neutral"): apart,
            ("M009", "angry"): apart,
        }
        self.cells = {
            ("M003", "neutral"): (4, 60 + 71 + 99 + 187, ""),
            ("M003", "angry"): (3, 240, "003"),  # 003 with 001 + 005, or 002 + 004
            ("M009", "neutral"): (4, 60 + 83 + 99 + 131, "001 005"),
            ("M009", "angry"): (3, 71 + 99 + 131, ""),
        }
        for name in ("faces", "videos"):
            (cards / f"protocols/datasets/{name}.toml").write_text(DATASET.format(name=name))
            rows = [[*key, clip] for key, lengths in self.frames.items() for clip in lengths]
            self.write(f"datasets/{name}.csv", [["speaker", "emotion", "clip"], *rows])
        trees.mini_protocols(cards / "protocols", "faces", "compact", "videos")
        self.state()

    def write(self, name: str, rows: list[list[object]]) -> None:
        with (self.cards / "protocols" / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)

    def state(self) -> None:
        """Write the facts."""
        head = ["speaker", "emotion", "clips", "frames", "known"]
        self.write("mini.csv", [head, *([*key, *cell] for key, cell in self.cells.items())])

    def index(self, name: str, without: tuple[str, ...] = ()) -> None:
        """Write the index of a data set."""
        files = {}
        card = dataset_card(name)
        for r in recordings(card):
            if r.row["clip"] not in without:
                n = self.frames[r.speaker, r.emotion][r.row["clip"]]
                files[r.video] = IndexedFile(r.video, 1, 1, {"video": (0.0, n / 30, n)}, "")
        folder = DataFolders.locate().places(card).searched[0]
        folder.mkdir(parents=True, exist_ok=True)
        save_index(folder / "index.json", card, RecordingsIndex(self.cards, files))


@pytest.fixture
def mini(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MiniMead:
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "cards"))
    (tmp_path / "cards").mkdir()
    return MiniMead(tmp_path / "cards")


def rows_of(text: str) -> dict[tuple[str, str], list[str]]:
    """Return the printed table's cells: clips here, frames, state, chosen."""
    lines = [line.split() for line in text.splitlines()]
    return {(w[0], w[1]): w[2:] for w in lines if w and w[0] in SPEAKERS}


def test_a_mini_mead_is_solved_and_can_be_evaluated(
    run: Bench, mini: MiniMead, tmp_path: Path
) -> None:
    unsolved = "the items of 'mini-cross-id' follow from your own recordings: not solved yet"
    done = run("eval", "--method", "source", "--protocol", "mini-cross-id")
    assert done.code != 0
    assert f"{unsolved}. Type 'spfem-bench protocol solve mini-cross-id'" in done.err
    assert "not solved" in run("list", "protocols").out
    assert run("list", "methods").code == 0
    assert "mini-cross-id" not in [one.name for one in ready_protocols()]
    done = run("protocol", "solve", "mini-cross-id")
    assert "faces and videos: not indexed. Type 'spfem-bench data index faces ROOT' or" in done.err

    mini.index("videos")
    chosen = tmp_path / "clips.csv"
    done = run("protocol", "solve", "mini-cross-id", "--clips", chosen)
    assert done.code != 0 and "the data set 'faces' is not indexed" in done.err
    assert rows_of(done.out) == {
        ("M003", "neutral"): ["6", "417", "determined", "001", "002", "004", "006"],
        ("M003", "angry"): ["6", "240", "1", "of", "2", "002", "003", "004"],
        ("M009", "neutral"): ["6", "373", "determined", "001", "003", "004", "005"],
        ("M009", "angry"): ["6", "301", "determined", "002", "004", "005"],
    }
    assert "4 cells: 3 determined, 1 with several sets that fit, 0 with none" in done.out
    listed = list(csv.DictReader(chosen.open()))
    assert len(listed) == 14
    assert listed[0]["video"] == "videos/M003/neutral/001.mp4"

    mini.index("faces")
    done = run("protocol", "solve", "mini-cross-id")
    assert done.code == 0
    solved = protocol("mini-cross-id")
    assert solved.determined == "determined for 12 of 16 items, one of several sets that fit for 4"
    by_id = {item.id: item for item in solved.items}
    first, last = by_id["M003_source_angry_001"], by_id["M003_source_angry_006"]
    assert str(first.clips["source"]) == (
        "faces/M003/neutral/001.mp4#audio=faces/M003/neutral/001.wav"
    )
    assert first.clips["real"].path == Path("faces/M003/angry/002.mp4")
    assert first.clips["reference"].path == Path("faces/M009/angry/004.mp4")
    assert set(last.clips) == {"source", "reference"}  # four sources, three real clips
    for speaker in SPEAKERS:
        for emotion, real in (("neutral", 4), ("angry", 3)):
            cell = [i for i in solved.items if (i.speaker, i.emotion) == (speaker, emotion)]
            assert len(cell) == 4
            assert len({i.clips["real"] for i in cell if "real" in i.clips}) == real
    shown = run("protocol", "show", "mini-cross-id").out
    assert f"Test clips: {solved.determined}" in shown

    assert run("protocol", "solve", "mini-inter-id").code == 0
    inter = protocol("mini-inter-id")
    assert len(inter.items) == 14
    assert all(item.clips["source"] == item.clips["real"] for item in inter.items)
    assert all(item.row["reference_speaker"] == item.speaker for item in inter.items)


def test_a_cell_that_fits_none_is_named_and_no_list_is_written(run: Bench, mini: MiniMead) -> None:
    mini.index("faces")
    mini.cells["M009", "angry"] = (3, 303, "")  # 71 + 99 + 131 = 301, 83 + 99 + 131 = 313
    mini.state()
    done = run("protocol", "solve", "mini-inter-id")
    assert done.code != 0
    why = "M009 angry: 3 clips of 303 frames in all; the nearest sum is 301, 2 fewer"
    assert f"no list is written: {why}" in done.err
    assert not (cache_folder() / "protocols/mini-inter-id.csv").exists()
    assert run("protocol", "solve", "mini-inter-id", "--nearest").code == 0
    solved = protocol("mini-inter-id")
    assert solved.determined.endswith("the nearest sum for 3")


def test_sets_are_counted_over_all_recordings_and_clips_taken_from_the_faces(
    run: Bench, mini: MiniMead
) -> None:
    # The faces lack 002: of two sets the other is taken, and both are counted.
    mini.index("videos")
    mini.index("faces", without=("002",))
    mini.cells["M003", "neutral"] = (4, 60 + 83 + 99 + 131, "")
    mini.cells["M009", "angry"] = (3, 60 + 83 + 99, "")
    mini.state()
    done = run("protocol", "solve", "mini-cross-id")
    assert done.code == 0, done.err
    assert rows_of(done.out)["M003", "angry"] == ["6", "240", "1", "of", "2", "001", "003", "005"]
    # The faces lack what the only set needs.
    mini.index("faces", without=("003",))
    done = run("protocol", "solve", "mini-cross-id")
    assert done.code != 0
    assert "M003 neutral: 1 set fits, of which the data set does not have every clip" in done.err


def test_other_protocols_are_not_solved(run: Bench) -> None:
    done = run("protocol", "solve", "mead-cross-id")
    assert "the list of 'mead-cross-id' is there already: mead-cross-id.csv" in done.err


def test_a_damaged_list_says_how_to_write_it_anew(run: Bench, mini: MiniMead) -> None:
    mini.index("faces")
    assert run("protocol", "solve", "mini-cross-id").code == 0
    (cache_folder() / "protocols/mini-cross-id.csv").write_text("id,speaker,emotion\nx,y\n")
    done = run("list", "protocols")
    assert "mini-cross-id.csv, line 2" in done.err
    assert "Type 'spfem-bench protocol solve mini-cross-id', which writes it anew" in done.err
    assert run("protocol", "solve", "mini-cross-id").code == 0
    assert run("protocol", "show", "mini-cross-id").code == 0


def test_an_exported_list_is_fixed_and_claims_no_recipe(
    run: Bench, mini: MiniMead, tmp_path: Path
) -> None:
    mini.index("faces")
    assert run("protocol", "solve", "mini-cross-id").code == 0
    assert run("protocol", "export", "mini-cross-id", tmp_path / "own").code == 0
    own = protocol(str(tmp_path / "own/my-mini-cross-id.toml"))
    assert own.card.solve is None and own.card.published is not None
    assert own.card.published.recipe is None
    assert [i.clips for i in own.items] == [i.clips for i in protocol("mini-cross-id").items]


def test_on_ravdess_the_intensity_follows_from_the_frames(
    run: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The project's card on RAVDESS itself: statement 2, repetition 2, normal or strong.
    cards = tmp_path / "cards/protocols"
    cards.mkdir(parents=True)
    own = ROOT / "protocols/ravdess-papers-cross-id.toml"
    text = own.read_text().replace('dataset = "ned"', 'dataset = "ravdess"', 1)
    text = text.replace('profile = "papers"', 'profile = "compact"')
    text = text.replace('items = "ravdess-papers', 'items = "my-ravdess')
    (cards / "my-ravdess.toml").write_text(text)
    facts = ROOT / "protocols/ravdess-papers.csv"
    (cards / "ravdess-papers.csv").write_text(facts.read_text())
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(tmp_path / "cards"))

    card = dataset_card("ravdess")
    totals = {(c.speaker, c.emotion): c.frames for c in read_cells(facts)}
    files = {}
    for r in (*recordings(card), *further_recordings(card)):
        clip, total = r.row["clip"], totals[r.speaker, r.emotion]
        strong = clip[9:11] == "02" or r.emotion == "neutral"
        # Strong ones fit, by one frame; normal ones do so in one cell, and exactly.
        n = total + 1 if strong else total + 9
        if not strong and (r.speaker, r.emotion) == ("Actor_02", "sad"):
            n = total
        if not clip[12:].startswith("02-02"):
            n = total  # another statement or repetition: never taken
        files[r.video] = IndexedFile(r.video, 1, 1, {"video": (0.0, n / 29.97, n)}, "")
    folder = DataFolders.locate().places(card).searched[0]
    folder.mkdir(parents=True)
    save_index(folder / "index.json", card, RecordingsIndex(tmp_path, files))
    done = run("protocol", "solve", "my-ravdess")
    assert done.code == 0, done.err
    assert "42 cells: 41 determined, 1 with several sets that fit" in done.out
    solved = protocol("my-ravdess")
    assert len(solved.items) == 42
    real = {(i.speaker, i.emotion): i.row["real_clip"] for i in solved.items}
    assert real["Actor_02", "sad"] == "01-01-04-01-02-02-02"
    assert real["Actor_01", "sad"] == "01-01-04-02-02-02-01"
    assert real["Actor_01", "neutral"] == "01-01-01-01-02-02-01"
    assert {i.row["source_clip"][6:8] for i in solved.items} == {"01"}  # neutral
