"""Two folders in, a table out: ``eval --generated`` from the command line."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from spfem_bench import evaluate
from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.evaluation.record import load_run
from tests.command_lines import code_blocks, commands_of
from tests.conftest import ROOT, STRIPS, Outcome, World

Bench = Callable[..., Outcome]
TAKES = builtin_folder() / "protocols/datasets/puppets"
COMPACT = ("--profile", "compact", "--aligned")


@pytest.fixture
def puppets(tmp_path: Path) -> Path:
    """Folders ``out``, ``src`` and ``refs`` of three takes: outputs are copies of the sources."""
    takes = sorted(TAKES.glob("*/neutral/0.00/*.mp4"))[:3]  # three speakers
    assert len(takes) == 3
    for top, name in (
        ("src", "clip{}.mp4"),
        ("out", "gen_clip{}_result.mp4"),
        ("refs", "CLIP{}.MP4"),
    ):
        (tmp_path / top).mkdir()
        for n, take in enumerate(takes):
            shutil.copy(take, tmp_path / top / name.format(n))
    return tmp_path


def test_copies_of_the_sources_score_what_they_must(bench: Bench, puppets: Path) -> None:
    run = bench("eval", "--generated", "out", "--source", "src", "--reference", "refs", *COMPACT)
    assert run.code == 0, run.err
    assert "Real clips, for FAD: the references" in run.err
    assert "each source is taken for another one" in run.err
    record = load_run(Path("results/out/out.compact.json"))
    values = {s.metric: s.value for s in record.scores if s.emotion == "all"}
    assert values["fad"] == pytest.approx(0, abs=1e-6)
    assert values["csim"] == pytest.approx(1, abs=1e-6)
    assert values["id-sim"] == pytest.approx(1, abs=1e-6)
    assert values["lse-d"] is not None and values["lse-c"] is not None
    table = bench("table", "results/out", "--format", "latex", "--standalone")
    assert "the reference clips are taken for real" in table.out

    # Again by its path; with a control; and as a report that plays its clips.
    again = bench("eval", "--method", "out", "--protocol", "results/out/out.toml", *COMPACT[:2])
    assert again.code == 0
    assert load_run(Path("results/out/out.compact.json")).scores == record.scores
    control = ("eval", "--method", "source", "--protocol", "results/out/out.toml", *COMPACT[:2])
    assert bench(*control).code == 0
    page = bench("report", "results/out", "--items", "1", "-q")
    assert page.code == 0 and list(Path("report").rglob("*.mp4"))
    assert "in no data set" not in Path("report/index.html").read_text()


def test_an_own_metric_is_named_without_a_protocol_of_ones_own(
    bench: Bench, puppets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("cards/metrics").mkdir(parents=True)
    card = (builtin_folder() / "metrics/csim.toml").read_text().replace('"CSIM"', '"Mine"')
    Path("cards/metrics/mine.toml").write_text(card)
    monkeypatch.setenv("SPFEM_BENCH_CARDS", "cards")
    line = ("--generated", "out", "--source", "src", *COMPACT, "--metrics", "mine")
    run = bench("eval", *line, "--reference", "refs")
    assert run.code == 0 and re.search(r"Mine↑ +1\.000", run.out)
    without = bench("eval", *line, "--name", "without")
    assert without.code == 1
    assert "'mine' compares with 'reference', of which 'without' has no clips" in without.err


def test_silent_outputs_are_noticed_and_take_the_sources_sound(
    bench: Bench, puppets: Path, run_ffmpeg: Callable[..., None]
) -> None:
    for clip in sorted((puppets / "out").iterdir()):
        run_ffmpeg("-i", clip, "-an", "-c", "copy", puppets / "mute.mp4")
        (puppets / "mute.mp4").replace(clip)
    mute = bench("eval", "--generated", "mine=out", "--source", "src", *COMPACT)
    assert mute.code == 0 and "No sound in 3 outputs" in mute.err
    assert "Add --sound source" in mute.err and "LSE-D↓" in mute.out
    record = load_run(Path("results/mine/mine.compact.json"))
    lse = next(s for s in record.scores if s.metric == "lse-d")
    assert lse.value is None and "3 of 3 outputs" in lse.note
    wanted = bench(
        "eval", "--generated", "mine=out", "--source", "src", "--metrics", "lse-d", *COMPACT
    )
    assert wanted.code == 1 and "add --sound source" in wanted.err
    lent = bench(
        "eval", "--generated", "lent=out", "--source", "src", "--sound", "source", *COMPACT
    )
    assert lent.code == 0
    own = bench("eval", "--generated", "own=src", "--source", "refs", *COMPACT)
    assert own.code == 0
    scores = [load_run(Path(f"results/{n}/{n}.compact.json")).scores for n in ("lent", "own")]
    sync = [[s.value for s in some if s.metric == "lse-d"] for some in scores]
    assert sync[0] == sync[1]  # the same pictures with the same sound


def test_bad_input_is_one_screen_and_exit_code_2(bench: Bench, puppets: Path) -> None:
    for n in range(40):
        (puppets / "out" / f"strange{n}.mp4").touch()
    bad = bench("eval", "--generated", "out", "--source", "src", *COMPACT)
    assert bad.code == 2 and len(bad.err.splitlines()) <= 25
    assert "40 of 43 outputs have no source clip" in bad.err and "and 2" in bad.err
    assert "--mapping" in bad.err and not Path("results").exists()
    for option, typo, right in (("--profile", "lihgt", "light"), ("--metrics", "FAD,cism", "csim")):
        early = bench("eval", "--generated", "out", "--source", "src", "--dry-run", option, typo)
        assert early.code == 1 and f"Did you mean '{right}'" in early.err
    for line, words in (
        ("eval --generated out", "--generated needs --source"),
        ("eval --source src", "goes with --generated"),
        ("eval", "Missing option '--method'"),
        (
            "eval --generated out --source src --protocol demo-inter-id",
            "does not go with --protocol",
        ),
        ("eval --generated out --generated src --source refs", "whose?"),
        ("eval --generated source=out --source src", "name of a control"),
        ("eval --generated a=out --source src --method b", "has no folder"),
        ("eval --method mine --videos out", "spfem-bench eval --generated out --source DIR"),
    ):
        outcome = bench(*shlex.split(line))
        assert outcome.code == 2 and words in outcome.err, line


def test_names_of_methods_stay_in_the_folder_of_results(bench: Bench, puppets: Path) -> None:
    for name in ("../out", "a b", "validate"):
        line = ("--generated", f"{name}=out", "--source", "src", "--name", "mine", *COMPACT)
        done = bench("eval", *line)
        assert done.code == 1 and f"'{name}' is" in done.err and not Path("results").exists()
    line = ("--source", "src", "--metrics", "id-sim", *COMPACT)
    assert bench("eval", "--generated", "mine=out", *line).code == 0
    text = Path("results/mine/mine.toml").read_text().replace('"mine" =', '"../out" =')
    card = Path("results/mine/another.toml")
    card.write_text(text)
    done = bench("eval", "--method", "../out", "--protocol", str(card), *COMPACT[:2])
    assert done.code == 1 and "'../out' is no name for a method" in done.err


def test_a_mapping_says_what_names_do_not(bench: Bench, puppets: Path) -> None:
    Path("map.csv").write_text(
        "generated,source,reference,speaker,emotion\n"
        "gen_clip0_result,clip1,clip2.mp4,anna,bored\n"
        "gen_clip1_result.mp4,clip0.mp4,,ben,sad\n"
    )
    line = ("--generated", "out", "--source", "src", "--reference", "refs", "--mapping", "map.csv")
    shown = bench("eval", *line, "--dry-run", "--any-length", *COMPACT)
    assert shown.code == 0 and not Path("results").exists()
    rows = [re.split(r"  +", row.strip()) for row in shown.out.splitlines()[2:]]
    assert rows == [
        [
            "generated/gen_clip0_result.mp4",
            "source/clip1.mp4",
            *["reference/CLIP2.MP4"] * 2,
            "anna",
            "bored",
        ],
        [
            "generated/gen_clip1_result.mp4",
            "source/clip0.mp4",
            *["reference/CLIP1.MP4"] * 2,
            "ben",
            "sad",
        ],
    ]
    assert "Left out: 1 output not in map.csv" in shown.err


def test_a_new_protocol_beside_its_clips_is_scored(bench: Bench, puppets: Path) -> None:
    assert bench("protocol", "new", "my-list.toml").code == 0
    assert "Here: 0 of 4 files" in bench("protocol", "show", "my-list.toml").out
    Path("clips/anna").mkdir(parents=True)
    for name in ("neutral_1", "neutral_2", "happy_1", "happy_2"):
        shutil.copy("src/clip0.mp4", f"clips/anna/{name}.mp4")
    assert "Here: 4 of 4 files" in bench("protocol", "show", "my-list.toml").out
    text = Path("my-list.toml").read_text().replace('faces = "detect"', 'faces = "aligned"')
    Path("mine-aligned.toml").write_text(text)
    line = ("--protocol", "mine-aligned.toml", "--profile", "compact", "--metrics", "id-sim")
    run = bench("eval", "--method", "source", *line)
    assert run.code == 0 and "1.000" in run.out
    assert bench("protocol", "new", "my-list.toml").code == 1
    Path("bad.toml").write_text('title = "x"\nversion = 1\n')
    bad = bench("protocol", "show", "bad.toml")
    for key in ("setting", "dataset", "items", "emotions", "metrics", "clips"):
        assert f"'{key}'" in bad.err
    assert "6 keys are missing" in bad.err and '"inter-id" or "cross-id"' in bad.err


@pytest.fixture
def columns(world: World, run_ffmpeg: Callable[..., None], tmp_path: Path) -> list[str]:
    """Sources, references, outputs and a baseline, cut out of the strips losslessly."""
    folders = {"sources": 0, "references": 1, "outputs": 2, "baseline": 4}
    for folder, column in folders.items():
        (tmp_path / folder).mkdir()
        for name in STRIPS if folder != "baseline" else STRIPS[1:3]:
            strip, crop = world.data / "mini" / f"{name}.mkv", f"crop=256:256:{256 * column}:0"
            options = ("-vf", crop, "-c:v", "ffv1", "-c:a", "copy")
            run_ffmpeg("-i", strip, *options, tmp_path / folder / f"{name}.mkv")
    return list(folders)


def test_real_clips_score_as_in_a_protocol_and_the_page_s_commands_run(
    spfem_bench: Bench, columns: list[str]
) -> None:
    """The columns of the strips, as files and as parts of the strips, have the same scores."""
    line = ("--generated", "outputs", "--source", "sources", "--reference", "references")
    # Without --real the references would be real; the protocol has the sources.
    own = spfem_bench("eval", *line, "--real", "sources", "--json", "-q")
    strips = ("--method", "stccl-vd-ned", "--protocol", "mini", "--profile", "light")
    listed = spfem_bench("eval", *strips, "--metrics", "fad,csim,id-sim,lip-corr", "--json", "-q")
    assert own.code == listed.code == 0, own.err + listed.err
    assert "lse-d, lse-c: not available: the weights of 'syncnet-v2' are missing" in own.err
    values = [
        {
            f"{s['metric']} {s['emotion']} {end}": s[end]
            for s in json.loads(outcome.out)
            for end in ("value", "low", "high")
        }
        for outcome in (own, listed)
    ]
    assert len(values[0]) == 36 and None not in values[0].values()
    assert values[0] == pytest.approx(values[1], rel=1e-6)

    # Every command of the pages but the downloads, on two of the clips.
    for folder in columns:
        for name in {*STRIPS} - {*STRIPS[1:3]}:
            Path(folder, f"{name}.mkv").unlink(missing_ok=True)
    rows = [f"{n},{n.split('_')[0]},{n.split('_')[2]}" for n in STRIPS[1:3]]
    Path("labels.csv").write_text("\n".join(["generated,speaker,emotion", *rows]) + "\n")
    row = f"{STRIPS[1]},{STRIPS[1]},{STRIPS[2]},{STRIPS[1]},sad"
    Path("mapping.csv").write_text(f"generated,source,reference,real,emotion\n{row}\n")
    pages = ["docs/your_model.md", "docs/index.md", "README.md"]
    blocks = [block for page in pages for block in code_blocks((ROOT / page).read_text())]
    commands = dict.fromkeys(c.partition(" #")[0].rstrip() for b in blocks for c in commands_of(b))
    own = [c for c in commands if "--generated" in c or re.search("results/(outputs|both|my-m)", c)]
    assert len(own) > 10
    for command in own:
        if "--against" not in command:  # needs the record of another day
            done = spfem_bench(*shlex.split(command)[1:])
            assert done.code == 0, f"{command}: {done.err}"
    assert Path("report/index.html").is_file()
    # Without references the table says why there is no CSIM, where SyncNet is not here either.
    bare = spfem_bench("eval", "--generated", "bare=outputs", "--source", "sources")
    assert bare.code == 0 and "CSIM↑" in bare.out and "LSE" not in bare.out
    table = spfem_bench("table", "results/bare")
    assert "No CSIM: not applicable: no reference clips: add --reference DIR" in table.out
    # Python scores a list of one's own as the command does.
    again = evaluate("bare", protocol="results/bare/bare.toml")
    assert again.record.scores == load_run(Path("results/bare/bare.light.json")).scores
