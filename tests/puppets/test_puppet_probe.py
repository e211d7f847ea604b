"""The probe's puppets: each condition changes what it names, and the command that uses them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from spfem_bench.cli.main import main
from spfem_bench.errors import CardError
from spfem_bench.puppets.face import LANDMARKS
from spfem_bench.puppets.pairs import STEADY
from spfem_bench.puppets.probe import CLIPS, CONDITIONS, SEED, Performance, probe_clips
from spfem_bench.puppets.world import World

LIPS = [k for k, name in enumerate(LANDMARKS) if name.startswith("mouth") or "lip" in name]
FRAMES = range(7, 32)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def moved(changed: Performance, source: Performance) -> tuple[float, float]:
    """Return how far eyes and nose, and the lips, moved: pixels, the mean over frames."""
    far = np.linalg.norm(changed.landmarks_at(FRAMES) - source.landmarks_at(FRAMES), axis=-1)
    return float(far[:, list(STEADY)].mean()), float(far[:, LIPS].mean())


def test_each_condition_changes_what_it_names() -> None:
    world = World(seed=SEED)
    spoken, other = (world.take("P003", "neutral", name) for name in ("028", "029"))

    def perform(emotion: str = "neutral", **changed: object) -> Performance:
        parts = (world, spoken.speaker, emotion, spoken.sentence, 1.0, spoken)
        return Performance(*parts, **changed)  # type: ignore[arg-type]

    source = perform()
    assert moved(source, perform(camera=5)) == (0, 0)
    head, lips = moved(perform(mouth_of=other), source)
    assert head == 0 and lips > 1
    assert (perform(mouth_of=other).mouth == other.mouth).all()
    head, lips = moved(perform(frozen=True), source)
    assert head == 0 and lips > 0.5
    assert (perform(frozen=True).mouth == spoken.mouth[0]).all()
    happy = perform("happy")
    assert (happy.mouth == spoken.mouth).all() and moved(happy, source)[0] < 0.5
    assert moved(happy, source)[1] > 1
    turned = perform(head_later=12)
    assert moved(turned, source)[0] > 0.5 and (turned.mouth == spoken.mouth).all()
    # Half a second later the head is where it was turned to.
    later = source.landmarks_at([19])[0, list(STEADY)]
    assert np.abs(turned.landmarks_at([7])[0, list(STEADY)] - later).max() < 0.5


def test_a_window_has_all_conditions_and_fresh_grain() -> None:
    clips = list(probe_clips(frames=2, puppets=1))
    assert len(clips) == CLIPS
    assert {clip.condition for clip in clips} == set(CONDITIONS)
    source = clips[0].source
    assert source.shape == (2, 128, 128, 3)
    differences = {c.condition: c.made.astype(float) - source for c in clips}
    # Two cameras with a grain of 1.6 each, rounded; and one of three times that.
    assert differences["nothing"].std() == pytest.approx(1.6 * np.sqrt(2), abs=0.2)
    assert differences["grain"].std() == pytest.approx(1.6 * np.sqrt(10), abs=0.3)
    # The background is the same around another face.
    face = differences["another face"]
    assert face[:, :12, :12].std() == pytest.approx(1.6 * np.sqrt(2), abs=0.3)
    assert face[:, 48:80, 48:80].std() > 3 * differences["nothing"].std()
    made = [clip.made for clip in clips]
    assert not any((made[0] == other).mean() > 0.3 for other in made[1:])


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(CardError, match="Give a number from 2 to"):
        next(probe_clips(frames=60))
    with pytest.raises(CardError, match="Give a number from 1 to 252"):
        next(probe_clips(puppets=300))


def test_the_command_measures_and_writes_all_numbers(tmp_path: Path) -> None:
    common = ["stccl", "probe", "--puppets", "1", "--frames", "5", "--workers", "1", "-q"]
    path = tmp_path / "probe.json"
    done = CliRunner().invoke(main, [*common, "--form", "vd", "-o", str(path)])
    assert done.exit_code == 0, done.output
    for words in ("vd, learnt", "emotion / words", "space 4", "frozen kept", "heads 84be33d9"):
        assert words in done.output
    content = json.loads(path.read_text())
    assert content["signature"]["probe"] == 1
    assert content["signature"]["losses"]["vd, learnt"]["backbone"]["network"] == "compact-identity"
    numbers = {
        (n["part"], n["quantity"], n["condition"], n["other"]): n["value"]
        for n in content["numbers"]
    }
    nothing, emotion, words, later, head = (
        numbers["loss", "mean", c, ""] for c in ("nothing", "emotion", "words", "later", "head")
    )
    share = (emotion - nothing) / (words - nothing)
    assert numbers["loss", "share", "emotion", "words"] == pytest.approx(share)
    # The finding: emotion costs much of what words cost, and the head most of "later".
    assert 0.4 < share < 1.5 and later > words and (head - nothing) > 0.5 * (later - nothing)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["puppets", "--network", "mobilefacenet"], "give one of them"),
        (["--method", "ned"], "--method belongs to --protocol"),
        (["nobody"], "unknown STCCL metric 'nobody'"),
        (["--frames", "50"], "Give a number from 2 to"),
        (["--network", "mobilefacenet"], "mobilefacenet"),
        (["--form", "xy"], "'xy' is not one of"),
    ],
)
def test_wrong_arguments_are_one_line(arguments: list[str], words: str) -> None:
    done = CliRunner().invoke(main, ["stccl", "probe", "-q", *arguments])
    assert done.exit_code in (1, 2) and words in done.output
    assert "Traceback" not in done.output
