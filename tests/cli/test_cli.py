"""The command line's own promises: quick help, lists, fetching, drawing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from spfem_bench.cli.main import main
from tests.conftest import Outcome, World

HEAVY = ("torch", "pandas", "numpy", "cv2", "insightface", "pydantic", "matplotlib", "onnxruntime")


def test_help_imports_nothing_heavy() -> None:
    """Time is not tested; what costs it is."""
    script = (
        "import sys\n"
        "from spfem_bench.cli.main import main\n"
        "main(['--help'], standalone_mode=False)\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("[]")


def commands(group: click.Group, *before: str) -> Iterator[list[str]]:
    """All commands of a group and of the groups in it, as they are typed."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield [*before, name]


@pytest.mark.parametrize("command", list(commands(main)), ids=" ".join)
def test_every_command_teaches(command: list[str]) -> None:
    done = CliRunner().invoke(main, [*command, "--help"])
    assert done.exit_code == 0
    usage, _, taught = done.output.partition("\n\n")
    assert usage.split()[2:][: len(command)] == command
    first = taught.strip().splitlines()[0]
    assert first[0].isupper() and first != "Options:"


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("methods", ["stccl-vd-ned", "stccl-ned", "source", "control"]),
        ("protocols", ["stccl-page-ned", "asccl-repo-inter-id", "cross-id"]),
        ("metrics", ["fad", "LSE-D", "nearer 0", "identity"]),
        ("networks", ["mobilefacenet", "syncnet-v2", "missing"]),
        ("layouts", ["sserd", "gen_{setting}/{emotion}/{speaker}", "movie.mp4"]),
    ],
)
def test_list(what: str, expected: list[str]) -> None:
    done = CliRunner().invoke(main, ["list", what])
    assert done.exit_code == 0
    assert all(word in done.output for word in expected)


def test_weights_are_verified_from_a_folder(weights_folder: Path) -> None:
    command = "networks verify mobilefacenet scrfd-500m mini-xception --weights-dir"
    done = CliRunner().invoke(main, [*command.split(), str(weights_folder)])
    assert done.exit_code == 0, done.output
    assert done.output.count("verified") == 3
    missing = CliRunner().invoke(main, ["networks", "verify", "syncnet-v2"])
    assert missing.exit_code == 1 and "networks fetch syncnet-v2" in missing.output


def test_data_are_verified_from_a_folder(samples: Path) -> None:
    done = CliRunner().invoke(main, ["data", "verify", "asccl-repo", "--data-dir", str(samples)])
    assert done.output.count("verified") == 12
    assert done.output.count("missing") == 8 + 1  # and the line that says what to type
    assert done.exit_code == 1


def test_the_drawn_track_is_a_picture(
    spfem_bench: Callable[..., Outcome], world: World, tmp_path: Path
) -> None:
    import cv2

    clip = f"{world.data}/mini/M012_source_happy_037.mkv#xywh=0,0,256,256"
    done = spfem_bench("faces", clip, "-o", tmp_path / "sheet.png", "--count", "3")
    assert done.code == 0, done.err
    assert "40 frames, a face in 40" in done.out
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None and sheet.shape == (3 * 224, 5 * 224, 3)
    # Green where a detected face's box is drawn.
    assert ((sheet[:, :, 1] > 180) & (sheet[:, :, 0] < 100) & (sheet[:, :, 2] < 100)).sum() > 300


def test_a_drawing_of_no_clip_is_one_line(spfem_bench: Callable[..., Outcome]) -> None:
    done = spfem_bench("faces", "nowhere.mp4")
    assert done.code == 1
    assert done.err.strip().splitlines() == [
        "Error: nowhere.mp4: No such file or directory. Check the name and the folder"
    ]


def test_an_unknown_device_is_refused_before_any_work(
    spfem_bench: Callable[..., Outcome],
) -> None:
    done = spfem_bench("eval", "--method", "ned", "--device", "warp")
    assert done.code == 2 and "--device" in done.err


@pytest.mark.parametrize(
    ("command", "option", "allowed"),
    [
        ("score --source . --generated . --regions a.txt", "--regions", ".csv, .json"),
        ("validate -o a.gif", "--output", ".png, .pdf, .svg"),
        ("correlate --figure a", "--figure", ".png, .pdf, .svg"),
        ("demo sheet cast -o a.gif", "--output", ".png, .jpg, .webp, .svg, .pdf"),
    ],
)
def test_a_file_of_another_kind_is_refused_before_any_work(
    command: str, option: str, allowed: str
) -> None:
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 2
    file = command.split()[-1]
    assert option in done.stderr and f"'{file}' must end in {allowed}" in done.stderr


def test_the_options_of_the_puppets_have_the_world_s_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from spfem_bench.puppets.world import World

    monkeypatch.setattr(World, "seed", 77)
    done = CliRunner().invoke(main, ["demo", "sheet", "--help"])
    assert "Of everything random.  [default: 77]" in done.stdout
