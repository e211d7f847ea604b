"""A provider of clips in a user's file: its clips, methods and controls are evaluated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spfem_bench.datasets.folders import DataFolders
from spfem_bench.datasets.provider import PROVIDERS
from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.datasets import dataset_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.errors import CardError, UnknownNameError
from spfem_bench.evaluation.controls import controls
from spfem_bench.plugins import VARIABLE
from tests.conftest import Outcome

Bench = Callable[..., Outcome]

PLUGIN = '''
"""Clips in a folder that the card names; a method that copies the source."""

import shutil
from pathlib import Path

from spfem_bench.datasets.provider import PROVIDERS, Provider
from spfem_bench.definitions.cards import Strict, validate
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.controls import FadedControl
from spfem_bench.definitions.methods import MethodCard
from spfem_bench.errors import MissingClipError


class StudioSettings(Strict):
    folder: str


@PROVIDERS.register("studio")
class Studio(Provider):
    makes_clips = True

    def __init__(self, card, places):
        super().__init__(card, places)
        settings = validate(StudioSettings, card.provider_settings, f"{card.path}, settings")
        self.folder = Path(settings.folder)

    def verified(self, name):
        for folder in (self.folder, self.places.generated):
            if (folder / name).is_file():
                return folder / name
        raise MissingClipError(f"{name}: missing", "Ask the studio")

    def lacking(self, names):
        made = (name for name in names if name.startswith("copies/"))
        return [name for name in made if not (self.places.generated / name).is_file()]

    def make(self, names, progress):
        progress.begin("render", len(names), "clip")
        for name in names:
            target = self.places.generated / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.folder / name.removeprefix("copies/"), target)
            progress.advance("render")

    def methods(self, item):
        card = MethodCard(name="copycat", title="Copies", label="Copycat", path=Path("copycat"))
        return {card.name: card}

    def output(self, method, item):
        return Clip.parse(f"copies/{item.row['speaker']}/neutral/1.00/028.mp4")

    def identity(self, method):
        return {"version": 3}

    def control_clip(self, control, item):
        if isinstance(control, FadedControl):
            emotion = item.emotion if control.level > 0.5 else "neutral"
            return Clip.parse(f"{item.row['speaker']}/{emotion}/1.00/028.mp4")
        return None
'''
DATASET = """
title = "A studio"
provider = "studio"
licence = "MIT"
citation = "none"
[settings]
folder = "{folder}"
"""
PROTOCOL = """
title = "In the studio"
version = 1
setting = "inter-id"
dataset = "studio"
items = "studio.csv"
emotions = ["angry"]
metrics = ["id-sim", "csim"]
faces = "aligned"
profile = "compact"
[clips]
source = "{speaker}/neutral/1.00/028.mp4"
reference = "{speaker}/angry/1.00/028.mp4"
real = "{speaker}/angry/1.00/028.mp4"
"""


@pytest.fixture
def cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of cards; the plugin's file is named by the environment."""
    folder = tmp_path / "cards"
    (folder / "protocols/datasets").mkdir(parents=True)
    clips = builtin_folder() / "protocols/datasets/puppets"
    (folder / "protocols/datasets/studio.toml").write_text(DATASET.format(folder=clips.as_posix()))
    (folder / "protocols/studio.toml").write_text(PROTOCOL)
    (folder / "protocols/studio.csv").write_text("id,speaker,emotion\na,P001,angry\nb,P004,angry\n")
    plugin = tmp_path / "studio_clips.py"
    plugin.write_text(PLUGIN)
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(folder))
    monkeypatch.setenv(VARIABLE, str(plugin))
    return folder


def test_a_provider_in_a_users_file_is_evaluated(cards: Path, bench: Bench, tmp_path: Path) -> None:
    methods = ("--method", "copycat", "--method", "source", "--method", "emotion-faded")
    done = bench("eval", "--protocol", "studio", *methods)
    assert done.code == 0, done.err
    assert "Copycat" in done.out

    def record(method: str) -> dict[str, Any]:
        path = tmp_path / f"results/studio/{method}.compact.json"
        content: dict[str, Any] = json.loads(path.read_text())
        return content

    copied, source, faded = map(record, ("copycat", "source", "emotion-faded"))
    assert copied["method"]["label"] == "Copycat" and copied["method"]["model"] == {"version": 3}
    address = copied["items"][0]["clips"]["output"]["address"]
    assert address == "copies/P001/neutral/1.00/028.mp4"
    scores = [[s["value"] for s in r["scores"]] for r in (copied, source, faded)]
    assert scores[0] == scores[1] == scores[2]  # all three are the source's bytes
    # No list pins what its clips hold: their bytes are hashed into the signatures.
    assert all("data" in frozen for frozen in copied["settings"].values())


def test_commands_show_a_users_provider(cards: Path, bench: Bench) -> None:
    assert "studio" in PROVIDERS.kinds()
    assert "emotion-faded" in {card.name for card in controls(protocol("studio"))}
    assert "perfect" not in {card.name for card in controls(protocol("studio"))}
    assert "A studio" in bench("data", "list").out
    assert bench("data", "fetch", "studio").out == "studio: nothing to fetch\n"
    assert "In the studio" in bench("protocol", "show", "studio").out


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("folder =", "foldr =", "unknown key 'foldr'. Did you mean 'folder'?"),
        ('"studio"', '"stdio"', "unknown provider of clips 'stdio'. Did you mean 'studio'?"),
        ('provider = "studio"', "", "or 'provider' with its table 'settings'"),
    ],
)
def test_a_wrong_provider_or_setting_is_one_line(
    cards: Path, old: str, new: str, expected: str
) -> None:
    PROVIDERS.kinds()
    path = cards / "protocols/datasets/wrong.toml"
    path.write_text((cards / "protocols/datasets/studio.toml").read_text().replace(old, new))
    with pytest.raises((CardError, UnknownNameError)) as error:
        DataFolders().provider(dataset_card("wrong"))
    assert expected in str(error.value)
    assert len(str(error.value).splitlines()) == 1


@pytest.mark.parametrize("key", ["generated", "faded", "perfect"])
def test_a_key_that_left_protocols_says_what_to_do(cards: Path, key: str) -> None:
    path = cards / "protocols/studio.toml"
    path.write_text(f'{key} = "x"\n{PROTOCOL}')
    with pytest.raises(CardError) as error:
        protocol("studio")
    assert f"no longer a key: '{key}'" in str(error.value)
    assert "Delete the line" in str(error.value)
