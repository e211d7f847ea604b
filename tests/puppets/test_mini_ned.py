"""Mini-NED: its geometry against the puppets', its training, and the clips that it makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import Tensor

from spfem_bench.cli.main import main
from spfem_bench.datasets.folders import DataFolders
from spfem_bench.definitions.cards import builtin_folder
from spfem_bench.definitions.clips import Clip
from spfem_bench.definitions.computing import Computing
from spfem_bench.definitions.measured import measured_card, read_rows, read_settings
from spfem_bench.definitions.networks import profile_card
from spfem_bench.definitions.protocols import protocol
from spfem_bench.errors import CardError, ClipError, SpfemBenchError, UnknownNameError, WeightsError
from spfem_bench.evaluation.check import check_reference, recompute
from spfem_bench.evaluation.outputs import Videos
from spfem_bench.evaluation.plan import Plan, make_plan
from spfem_bench.execution.processes import ThisProcess
from spfem_bench.features.store import FeatureStore
from spfem_bench.media.video import frames as clip_frames
from spfem_bench.networks.weights import WeightsStore
from spfem_bench.progress import SILENT, Progress
from spfem_bench.puppets.draw import OVERSAMPLING
from spfem_bench.puppets.face import EXPRESSIONS, FaceState
from spfem_bench.puppets.mini_ned import clips, learn
from spfem_bench.puppets.mini_ned.config import (
    FOLDER,
    AnimatorLearning,
    MiniNedConfig,
    config_names,
    read_ned_configs,
)
from spfem_bench.puppets.mini_ned.data import FrameRun, draw_run, unpaired_takes
from spfem_bench.puppets.mini_ned.model import MiniNed, model_path, read_model_record, trained_as
from spfem_bench.puppets.mini_ned.morphable import (
    CONTOURS,
    PLACES,
    Coefficients,
    Morphable,
    face_vector,
    frame_pose,
    frame_vector,
    training_faces,
)
from spfem_bench.puppets.mini_ned.networks import Animator, Manipulator, Shift, relight
from spfem_bench.puppets.mini_ned.train import _Work, train_mini_ned
from spfem_bench.puppets.provider import Puppets, demo_puppets
from spfem_bench.puppets.shots import Shot
from spfem_bench.puppets.world import World
from spfem_bench.reporting.tables import make_table
from spfem_bench.stccl.checkpoint import Heads, backbone_record, write_checkpoint
from spfem_bench.stccl.settings import ContrastSettings, FormSettings
from tests.conftest import ROOT
from tests.reporting.test_tables import NED, record

WORLD = World()
STORE = WeightsStore.locate(None)
ANIMATOR = AnimatorLearning(steps=3, batch=3, rate=1e-3)


@pytest.fixture(scope="module")
def morphable() -> Morphable:
    return Morphable.fit(training_faces(WORLD, 300, 1))


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A metric whose heads were never trained: this is about where the loss goes."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("metric") / "any.safetensors"
    record = {
        "backbone": backbone_record("compact-identity").model_dump(),
        "forms": {"vd": FormSettings(contrast=ContrastSettings(form="vd")).model_dump()},
    }
    write_checkpoint(path, {"vd": Heads((24, 56, 112, 192))}, record)
    return path


def config(**stccl: Any) -> MiniNedConfig:
    """A training of seconds."""
    few = {"steps": 3, "batch": 3, "rate": 1e-3}
    return MiniNedConfig.model_validate(
        {
            "data": {"speakers": 2, "takes": 2, "frames": 10, "faces": 100},
            "estimator": few,
            "manipulator": few,
            "renderer": few,
            "stccl": {"batch": 1, **stccl},
        }
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, metric: Path) -> Path:
    """Two models, learnt in moments: without STCCL, and with it."""
    folder = tmp_path_factory.mktemp("cards") / "reference_results" / "models"
    supervised = config(form="vd", metric=str(metric))
    [*train_mini_ned({"plain": config(), "supervised": supervised}, folder, weights=STORE)]
    return folder


# ---- the morphable model --------------------------------------------------------------------


def test_it_places_unseen_puppets_points_as_their_own_geometry_does(morphable: Morphable) -> None:
    takes = [("P002", "surprised", "028"), ("P004", "disgusted", "029"), ("P009", "happy", "030")]
    points, _ = morphable.points(faces(morphable, takes))
    for found, names in zip(points, takes, strict=True):
        exact = WORLD.take(*names).geometry(20).contours
        wanted = np.concatenate([exact[name][::step] for name, step in CONTOURS.items()])
        away = found.numpy() * WORLD.size - (wanted + 0.5) / OVERSAMPLING  # pixels of the frame
        assert np.abs(away).max() < 1
        assert np.abs(away).mean() < 0.1


def test_the_estimators_truth_is_what_the_points_say(morphable: Morphable) -> None:
    drawn = draw_run((0, Shot("P010", "fear", "029", 1.0)), WORLD, 2, 7)
    take = WORLD.take("P010", "fear", "029")
    start = next(i for i in range(99) if np.array_equal(take.frame(i), drawn.frames[0]))
    points, _ = morphable.points(learn.true_coefficients(morphable, [drawn]))
    exact = take.geometry(start + 1).contours["lip_bottom_out"][::2]
    found = points[1, PLACES["lip_bottom_out"]].numpy() * WORLD.size
    assert np.abs(found - (exact + 0.5) / OVERSAMPLING).max() < 1


def faces(morphable: Morphable, takes: list[tuple[str, str, str]], index: int = 20) -> Coefficients:
    """Return the coefficients of one frame of each take."""
    found = []
    for names in takes:
        take = WORLD.take(*names)
        mean = morphable.mean.double().numpy()
        bases = [b.double().numpy() for b in (morphable.shapes, morphable.expressions)]
        both = np.concatenate(bases)
        solved = np.linalg.lstsq(both.T, frame_vector(take, index) - mean, rcond=None)[0]
        found.append((solved[: len(bases[0])], solved[len(bases[0]) :], frame_pose(take, index)))
    return Coefficients(*(torch.from_numpy(np.stack(v)).float() for v in zip(*found, strict=True)))


def test_a_render_is_a_picture_that_moves_with_its_coefficients(morphable: Morphable) -> None:
    face = faces(morphable, [("P001", "happy", "028"), ("P002", "sad", "029")])
    face = face._replace(expression=face.expression.requires_grad_())
    picture = morphable.render(face)
    assert picture.shape == (2, 3, 64, 64)
    assert picture.min() >= 0 and picture.max() <= 1
    picture.square().sum().backward()
    assert face.expression.grad is not None
    assert (face.expression.grad.abs().sum(0) > 0).all()  # no coefficient that nothing shows
    sequence = Coefficients(*(v.detach()[:, None].expand(-1, 4, -1) for v in face))
    with torch.no_grad():
        assert torch.allclose(morphable.render(sequence)[:, 3], picture)


def test_the_render_shows_a_mouth_where_the_mouth_is(morphable: Morphable) -> None:
    take = WORLD.take("P001", "surprised", "028")
    gaps = [take.geometry(i).looks["gap"] for i in range(take.n_frames)]
    open_wide, shut = int(np.argmax(gaps)), int(np.argmin(gaps))
    names = [("P001", "surprised", "028")]
    face = faces(morphable, names, open_wide)
    assert morphable.gap(face) > morphable.gap(faces(morphable, names, shut)) + 0.1
    middle = morphable.points(face)[0][
        0, np.r_[PLACES["lip_top_in"], PLACES["lip_bottom_in"]]
    ].mean(0)
    x, y = (middle * 64).long().tolist()
    skin = morphable.render(face)[0, :, y - 20, x]  # between mouth and eyes
    assert (morphable.render(face)[0, :, y, x] - skin).abs().max() > 0.1


def test_a_flow_moves_points_back_to_the_reference(morphable: Morphable) -> None:
    face = faces(morphable, [("P001", "happy", "028"), ("P001", "neutral", "029")])
    to, since = (Coefficients(*(v[k : k + 1] for v in face)) for k in (0, 1))
    still = morphable.flow(to, to, 32)[0]
    axis = (torch.arange(32) + 0.5) / 32 * 2 - 1
    assert torch.allclose(still[..., 0], axis.expand(32, 32), atol=1e-5)
    assert torch.allclose(still[..., 1], axis[:, None].expand(32, 32), atol=1e-5)
    points, origins = morphable.points(to)[0][0], morphable.points(since)[0][0]
    led = torch.nn.functional.grid_sample(
        morphable.flow(to, since, 64).permute(0, 3, 1, 2),
        points[None, None] * 2 - 1,
        align_corners=False,
    )[0, :, 0].T
    before, after = ((p - origins).norm(dim=1).mean() for p in (points, (led + 1) / 2))
    assert after < before / 3


# ---- what it learns from ---------------------------------------------------------------------


def test_test_puppets_and_sentences_are_never_trained_on(models: Path) -> None:
    shots = unpaired_takes(WORLD, 240, 7, 1)
    split = {s.name: s.split for s in WORLD.speakers}
    spoken = {s.name: s.split for s in WORLD.sentences}
    assert {split[s.speaker] for s in shots} == {"train"}
    assert {spoken[s.sentence] for s in shots} == {"train"}
    assert {split[t.speaker.name] for t, _ in training_faces(WORLD, 300, 1)} == {"train"}
    assert {spoken[t.sentence.name] for t, _ in training_faces(WORLD, 300, 1)} == {"train"}
    for name in ("face", "plain", "supervised"):
        training = read_model_record(models / name).training
        assert {split[s] for s in training["speakers"]} == {"train"}
        assert {spoken[s] for s in training["sentences"]} == {"train"}


def test_no_puppet_says_a_sentence_twice_so_that_there_are_no_pairs() -> None:
    shots = unpaired_takes(WORLD, 60, 7, 3)
    assert len({(s.speaker, s.sentence) for s in shots}) == len(shots)
    assert {s.emotion for s in shots} == set(EXPRESSIONS)
    neutral = [s.speaker for s in shots if s.emotion == "neutral"]
    assert len(neutral) == len(set(neutral)) == 60


# ---- training --------------------------------------------------------------------------------


def content(folder: Path, name: str) -> bytes:
    return (folder / f"{name}.safetensors").read_bytes()


def test_the_same_seed_gives_the_same_bytes_and_another_one_does_not(
    models: Path, tmp_path: Path
) -> None:
    other = config().model_copy(update={"seed": 2})
    [*train_mini_ned({"again": config(), "other": other}, tmp_path, weights=STORE)]
    assert content(tmp_path, "again") == content(models, "plain")
    assert content(tmp_path, "face") == content(models, "face")
    assert content(tmp_path, "other") != content(models, "plain")


def test_a_model_is_the_same_alone_and_after_another(
    models: Path, tmp_path: Path, metric: Path
) -> None:
    [*train_mini_ned({"alone": config(form="vd", metric=str(metric))}, tmp_path, weights=STORE)]
    assert content(tmp_path, "alone") == content(models, "supervised")


def test_a_renderer_goes_on_from_a_parent_whose_manipulator_stays(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of ct do not fit into the takes of ten frames: longer ones are drawn."""
    from safetensors.torch import load

    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(models.parent.parent))
    for name in ("face.safetensors", "face.json"):
        (tmp_path / name).write_bytes((models / name).read_bytes())
    how = {"form": "ct", "trained": False, "window": 6, "stride": 3, "begin": 0.0}
    one = config(**how, where=["frames"]).model_copy(update={"parent": "plain"})
    still = one.model_copy(update={"renderer": one.renderer.model_copy(update={"rate": 1e-12})})
    [trained, _] = train_mini_ned({"on": one, "still": still}, tmp_path, weights=STORE)
    assert (
        trained.record["training"]["parent"]["sha256"] == read_model_record(models / "plain").sha256
    )
    old, new, kept = (
        load(content(f, n)) for f, n in ((models, "plain"), (tmp_path, "on"), (tmp_path, "still"))
    )
    assert {k.partition(".")[0] for k in old if not torch.equal(old[k], new[k])} == {"renderer"}
    assert all(torch.allclose(old[k], kept[k], atol=1e-8) for k in old)
    with pytest.raises(ValueError, match="a parent's manipulator is not trained"):
        MiniNedConfig.model_validate({"parent": "plain", "stccl": {"form": "ct"}})


def test_beside_a_parent_a_manipulator_is_trained_from_the_start_if_asked_for(
    models: Path, tmp_path: Path, metric: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors.torch import load

    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(models.parent.parent))
    for path in models.glob("[fs]*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    learnt: list[str] = []
    learn_one = learn.learn_manipulator
    monkeypatch.setattr(
        learn, "learn_manipulator", lambda c, *a: (learnt.append(c.stccl.form), learn_one(c, *a))[1]
    )
    how: dict[str, Any] = {"form": "vd", "metric": str(metric), "renders": 1.0}
    stccl = {"none": {}, "frames": {**how, "where": ["frames"]}, "both": how}
    own = {"parent": "plain", "own_manipulator": True}
    rows = {row: config(**each).model_copy(update=own) for row, each in stccl.items()}
    [*train_mini_ned(rows, tmp_path, weights=STORE)]
    assert learnt == ["none", "vd"]  # rows with the same one share it
    made = {name: load(content(tmp_path, name)) for name in rows}

    def differing(one: Any, other: Any) -> set[str]:
        return {k.partition(".")[0] for k in one if not torch.equal(one[k], other[k])}

    assert differing(load(content(models, "plain")), made["none"]) == {"renderer"}
    assert differing(made["none"], made["frames"]) == {"renderer"}
    assert differing(made["none"], made["both"]) == {"manipulator", "renderer"}


def test_a_one_stage_model_learns_from_the_same_takes_and_is_supervised_on_its_frames(
    models: Path, tmp_path: Path
) -> None:
    from safetensors.torch import load

    for name in ("face.safetensors", "face.json"):
        (tmp_path / name).write_bytes((models / name).read_bytes())
    how = {"form": "ct", "trained": False, "window": 6, "stride": 3, "where": ["frames"]}
    both = [config(where=["frames"]), config(**how)]
    one, other = (c.model_copy(update={"animator": ANIMATOR}) for c in both)
    [*train_mini_ned({"one": one, "other": other}, tmp_path, weights=STORE)]
    old, new = (load(content(tmp_path, name)) for name in ("one", "other"))
    assert {k.partition(".")[0] for k in old} == {"renderer"}
    assert any(not torch.equal(old[k], new[k]) for k in old)
    assert [*tmp_path.glob("start-*")] == [*tmp_path.glob("start-animator-*")] != []
    take, angry = WORLD.take("P001", "neutral", "028"), WORLD.take("P006", "angry", "029")
    source, reference = (np.stack([t.frame(i) for i in range(6)]) for t in (take, angry))
    made = MiniNed.load(tmp_path / "one").manipulate(source, reference)
    assert made.shape == source.shape and made.dtype == np.uint8
    assert trained_as(tmp_path / "one", one) and not trained_as(tmp_path / "one", config())
    for wrong in ({"parent": "plain"}, {"stccl": {"form": "vd"}}):
        with pytest.raises(ValueError, match="an animator has neither parent nor renders"):
            MiniNedConfig.model_validate({"animator": ANIMATOR.model_dump(), **wrong})


def test_identity_of_the_own_expression_is_compared_on_frames_without_the_manipulation(
    models: Path,
) -> None:
    how = config(form="ct", where=["frames"], own_identity=2.0, window=5, begin=0.0)
    material = _Work(models, "cpu", 1, SILENT).prepare(how).material
    made: list[Tensor] = []

    def stccl(_: Tensor, frames: Tensor, **__: Any) -> dict[str, Tensor]:
        made.append(frames.detach())
        return {"loss": frames.mean(), "sct": frames.mean(), "identity": frames.mean()}

    for away in (0.0, 3.0):

        class Moved(Shift):
            def forward(self, expression: Tensor, style: Tensor, away: float = away) -> Tensor:
                return expression + away

        learn.learn_renderer(how, material, Moved(), stccl, None, SILENT)  # type: ignore[arg-type]
    still, own = made[:6], made[6:]  # in three steps, each the manipulated window and its own
    assert torch.equal(still[0], still[1]) and not torch.equal(own[0], own[1])
    assert torch.equal(own[1], still[1])
    with pytest.raises(ValueError, match="own_identity needs form = 'ct' and 'frames' in where"):
        config(form="ct", where=["renders"], own_identity=1.0)

    def without_identity(_: Tensor, renders: Tensor, **__: Any) -> dict[str, Tensor]:
        return {"loss": renders.sum() * torch.nan, "sct": renders.mean()}

    how = config(form="ct", where=["renders"], window=5, begin=0.0)
    _, losses = learn.learn_manipulator(how, material, without_identity, None, SILENT)  # type: ignore[arg-type]
    assert np.isfinite(losses).all()  # on renders identity is not compared


def test_a_shift_keeps_what_moves_and_takes_over_what_stays() -> None:
    source, reference = torch.randn(2, 9, 24), torch.randn(2, 5, 24)
    moved = Shift()(source, Shift().style(reference))
    assert torch.allclose(moved.mean(1), reference.mean(1), atol=1e-5)
    assert torch.allclose(moved.diff(dim=1), source.diff(dim=1), atol=1e-5)


def test_an_untrained_animator_opens_a_mouth_as_asked_and_else_draws_what_it_is_given(
    morphable: Morphable,
) -> None:
    take = WORLD.take("P001", "surprised", "028")
    gaps = [take.geometry(i).looks["gap"] for i in range(take.n_frames)]
    at = int(np.argmin(gaps)), int(np.argmax(gaps))
    frames = torch.from_numpy(np.stack([take.frame(i) for i in at])).permute(0, 3, 1, 2) / 255
    run = FrameRun(
        np.zeros((0, 0, 0, 3), np.uint8),
        face_vector(take.speaker.look, FaceState()),
        np.stack([frame_vector(take, i) for i in at]),
        np.stack([frame_pose(take, i) for i in at]),
    )
    asked = learn.true_coefficients(morphable, [run])
    known = Coefficients(*(v[:1].expand(2, -1) for v in asked))
    shut, lips = frames[:1].expand(2, -1, -1, -1), morphable.details(asked, 128)[:, None]

    def away(drawn: Tensor) -> list[float]:
        return [float(v) for v in ((drawn - frames).abs() * lips).mean((1, 2, 3))]

    unchanged, drawn = away(shut)[1], away(Animator()(morphable, asked, shut, known).detach())
    assert drawn[0] < 0.05 * unchanged and drawn[1] < 0.8 * unchanged


def test_frames_are_relit_by_a_plane_of_each_colour_and_only_where_the_weight_is() -> None:
    torch.manual_seed(0)
    frames, weight = 0.2 + 0.3 * torch.rand(2, 3, 32, 32), torch.ones(2, 1, 32, 32)
    y, x = torch.meshgrid(*[torch.linspace(-1, 1, 32)] * 2, indexing="ij")
    gains = torch.tensor([[1.2, 0.3, -0.1], [0.8, 0.0, 0.2], [1.0, -0.4, 0.0]])
    lit = frames * torch.einsum("ci,ihw->chw", gains, torch.stack([torch.ones_like(x), x, y]))
    like = lit.clone()
    like[:, :, :8], weight[:, :, :8] = 1.0, 0.0  # a mouth that another frame has not
    assert torch.allclose(relight(frames, like, weight), lit, atol=2e-3)
    assert not torch.allclose(relight(frames, like, weight + 1), lit, atol=2e-2)


def test_a_damaged_start_is_refused_by_its_name(models: Path, tmp_path: Path) -> None:
    for path in models.glob("[fs]*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    [start, _] = sorted(tmp_path.glob("start-*.checkpoint"))
    start.write_bytes(start.read_bytes()[:-9])
    with pytest.raises(CardError, match=r"start-manipulator-.*no checkpoint.*Delete it"):
        [*train_mini_ned({"again": config()}, tmp_path, weights=STORE)]


@pytest.mark.parametrize(
    ("stccl", "moved"),
    [
        ({"renders": 0, "frames": 0}, set()),
        ({"where": ["renders"]}, {"manipulator", "renderer"}),
        ({"where": ["frames"]}, {"renderer"}),
    ],
)
def test_only_the_loss_differs_and_it_moves_what_it_supervises(
    models: Path, tmp_path: Path, metric: Path, stccl: dict[str, Any], moved: set[str]
) -> None:
    from safetensors.torch import load

    for name in ("face.safetensors", "face.json"):
        (tmp_path / name).write_bytes((models / name).read_bytes())
    how = config(form="vd", metric=str(metric), **stccl)
    if moved == {"manipulator", "renderer"}:
        # The renderer looks at the manipulator only where it is supervised.
        moved = {"manipulator"}
    [*train_mini_ned({"one": how}, tmp_path, weights=STORE)]
    old, new = load(content(models, "plain")), load(content(tmp_path, "one"))
    assert {k.partition(".")[0] for k in old if not torch.equal(old[k], new[k])} == moved


def test_a_shared_file_of_other_settings_is_refused(models: Path) -> None:
    before = content(models, "face")
    other = config()
    longer = other.estimator.model_copy(update={"steps": 4})
    other = other.model_copy(update={"estimator": longer})
    with pytest.raises(SpfemBenchError, match="was trained with other data or settings"):
        [*train_mini_ned({"refused": other}, models, weights=STORE)]
    assert content(models, "face") == before and not (models / "refused.json").exists()


def test_supervision_is_what_the_configuration_says(metric: Path) -> None:
    def made(**stccl: Any) -> Any:
        return learn.supervisor(config(metric=str(metric), **stccl).stccl, STORE)

    assert made() is None
    assert made(form="vd").settings.contrast.adaptive and made(form="vd").heads is not None
    assert not made(form="vd", adaptive=False).settings.contrast.adaptive
    assert made(form="vd", trained=False).heads is None
    with pytest.raises(SpfemBenchError, match="has no form 'cm'"):
        made(form="cm")


def test_every_configuration_differs_in_stccl_alone_from_one_without() -> None:
    files = {name: read_ned_configs(name) for name in config_names()}
    every = {row: how for rows in files.values() for row, how in rows.items()}
    assert {"ned", "stccl-vd-ned", "stccl-cm-ned"} <= every.keys()
    for name, how in every.items():  # those that train on differ in stccl alone from their own
        own = "more-ned" if name.startswith("more-") else "ned"
        own = "ablations-none" if name.startswith("ablations-") else own
        first = every["icface" if name.endswith("icface") else own]
        assert how.model_dump(exclude={"stccl"}) == first.model_dump(exclude={"stccl"})
        assert how.parent == ("" if own == "ned" else "ned")
    rows = [how.model_dump_json() for how in every.values()]
    assert len(set(rows)) == len(rows)


def test_the_ablations_are_those_of_the_papers_tables_for_each_form() -> None:
    """Tables 4 to 6: heads, where, adaptive weights."""
    rows = [how.stccl for how in read_ned_configs("ablations").values()]
    assert [r.form for r in rows].count("none") == 1
    for form in ("vd", "ct"):
        mine = [r for r in rows if r.form == form]
        assert {r.where for r in mine} == {("renders", "frames"), ("renders",), ("frames",)}
        assert {r.trained for r in mine} == {True, False}
    assert {r.adaptive for r in rows if r.form == "vd"} == {True, False}


def test_a_file_of_rows_is_a_configuration_for_each(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("seed = 3\n[rows.a]\n[rows.b]\nform = 'vd'\nwhere = ['renders']\n")
    found = read_ned_configs(path)
    assert [*found] == ["mine-a", "mine-b"] and {how.seed for how in found.values()} == {3}
    assert found["mine-a"] == MiniNedConfig(seed=3)
    assert found["mine-b"].stccl.on("renders") and not found["mine-b"].stccl.on("frames")
    path.write_text("parent = 'ned'\n[rows.b]\nform = 'vd'\n")
    with pytest.raises(CardError, match=r"mine\.toml, mine-b.*own_manipulator = true"):
        read_ned_configs(path)
    path.write_text("[rows.'../b']\n")
    with pytest.raises(CardError, match=r"mine\.toml.*rows"):
        read_ned_configs(path)


def test_a_configuration_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'ned'"):
        read_ned_configs("nedd")
    (tmp_path / "mine.toml").write_text("[stccl]\nfrom = 'vd'\n")
    with pytest.raises(CardError, match=r"mine\.toml.*from"):
        read_ned_configs(tmp_path / "mine.toml")


def test_correlation_is_pearsons() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 12))
    found = learn.correlation(torch.from_numpy(a), torch.from_numpy(b))
    wanted = [np.corrcoef(x, y)[0, 1] for x, y in zip(a, b, strict=True)]
    assert found.numpy() == pytest.approx(wanted, abs=1e-6)


def test_an_untrained_manipulator_changes_nothing() -> None:
    network = Manipulator()
    given = torch.randn(2, 9, 24)
    assert torch.equal(network(given, network.style(torch.randn(2, 5, 24))), given)


# ---- what it makes ---------------------------------------------------------------------------


def test_it_makes_as_many_frames_and_leaves_all_but_the_face(models: Path) -> None:
    take, other = WORLD.take("P001", "neutral", "028"), WORLD.take("P006", "angry", "029")
    source = np.stack([take.frame(i) for i in range(18)])
    reference = np.stack([other.frame(i) for i in range(6)])
    model = MiniNed.load(models / "plain")
    made = model.manipulate(source, reference)
    assert made.dtype == np.uint8 and made.shape == source.shape
    assert np.array_equal(made, model.manipulate(source, reference))
    corners = made[:, :12, :12].astype(int) - source[:, :12, :12]
    assert np.abs(corners).max() <= 1
    with pytest.raises(ClipError, match=r"frames of shape \(18, 64, 64, 3\)"):
        model.manipulate(source[:, ::2, ::2], reference)


class Counted(Progress):
    """Counts the parts of all phases."""

    parts = 0

    def advance(self, phase: str, parts: int = 1, **figures: float) -> None:
        self.parts += parts


def test_clips_are_made_on_the_spot_and_damaged_ones_again(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(models.parent.parent))
    name = "plain/P007/neutral/1.00/030/like/P008/happy/1.00/030.mp4"  # takes that are not shipped
    provider, progress = demo_puppets(DataFolders(renders=tmp_path)), Counted()
    todo = provider.lacking([name])
    assert todo == ["P007/neutral/1.00/030.mp4", "P008/happy/1.00/030.mp4", name]
    provider.make(todo, progress)
    assert progress.parts == 3 and provider.lacking([name]) == []
    path = provider.verified(name)
    first = path.read_bytes()
    source = provider.verified(todo[0])
    assert len(list(clip_frames(Clip(path)))) == len(list(clip_frames(Clip(source))))

    path.write_bytes(first[:-100])
    with pytest.raises(ClipError, match="not rendered"):
        provider.verified(name)
    assert provider.lacking([name]) == [name]
    provider.make([name])
    assert provider.verified(name).read_bytes() == first

    # Another source, another clip.
    whole = source.read_bytes()
    source.write_bytes(whole[:-1])
    assert provider.lacking([name]) == [todo[0], name]
    source.write_bytes(whole)
    assert provider.lacking([name]) == []

    # Other weights, other clips.
    record = models / "plain.json"
    kept, weights = record.read_bytes(), content(models, "plain")
    try:
        for suffix in ("json", "safetensors"):
            (models / f"plain.{suffix}").write_bytes((models / f"supervised.{suffix}").read_bytes())
        assert provider.lacking([name]) == [name]
    finally:
        record.write_bytes(kept)
        (models / "plain.safetensors").write_bytes(weights)


def test_a_clip_of_no_model_is_refused(tmp_path: Path) -> None:
    name = "nod/P001/neutral/1.00/030/like/P002/happy/1.00/030.mp4"
    with pytest.raises(UnknownNameError, match="model of the demo 'nod'"):
        clips.make_all(WORLD, tmp_path, [name])
    with pytest.raises(CardError, match="leaves its folder"):
        clips.make(WORLD, tmp_path, "nod/../../x/like/P002/happy/1.00/030.mp4")


def test_weights_that_are_not_the_recorded_ones_are_refused(models: Path, tmp_path: Path) -> None:
    for name in ("face", "plain"):
        for suffix in ("json", "safetensors"):
            (tmp_path / f"{name}.{suffix}").write_bytes((models / f"{name}.{suffix}").read_bytes())
    MiniNed.load(tmp_path / "plain")
    weights = tmp_path / "plain.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    with pytest.raises(WeightsError, match="is not what its record says"):
        MiniNed.load(tmp_path / "plain")
    (tmp_path / "face.json").unlink()
    with pytest.raises(WeightsError, match="without their record are not used"):
        MiniNed.load(tmp_path / "plain")


def test_the_command_trains_and_goes_on(tmp_path: Path) -> None:
    text = "\n".join(
        f"[{name}]\nsteps = 2\nbatch = 2\nrate = 0.001"
        for name in ("estimator", "manipulator", "renderer")
    )
    (tmp_path / "small.toml").write_text(
        f"{text}\n[data]\nspeakers = 2\ntakes = 2\nframes = 10\nfaces = 100\n"
    )
    call = [
        "demo",
        "train-ned",
        "--config",
        str(tmp_path / "small.toml"),
        "--seed",
        "1",
        "--seed",
        "2",
        "--output",
        str(tmp_path / "out"),
        "--workers",
        "1",
        "-q",
    ]
    first = CliRunner().invoke(main, call)
    assert first.exit_code == 0, first.output
    assert sorted(p.name for p in (tmp_path / "out").glob("*.json")) == [
        "face.json",
        "small-seed1.json",
        "small-seed2.json",
    ]
    again = CliRunner().invoke(main, call)
    assert again.output.count("there already") == 2


def test_a_trained_model_is_a_method_of_the_demo(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(method: str) -> Any:
        return make_plan(
            method,
            protocol("demo-cross-id"),
            profile_card("compact"),
            data=DataFolders(renders=tmp_path),
            weights=STORE,
            metrics=["csim"],
        )

    with pytest.raises(UnknownNameError, match="unknown method 'plain'"):
        planned("plain")
    monkeypatch.setenv("SPFEM_BENCH_CARDS", str(models.parent.parent))
    rendered: list[str] = []
    monkeypatch.setattr(Puppets, "make", lambda self, names, progress: rendered.extend(names))
    plan = planned("plain")
    names = [n for n in rendered if n.startswith("plain/")]
    assert len(names) == len(plan.items) == 42
    assert "plain/P001/neutral/1.00/029/like/P006/angry/1.00/030.mp4" in names
    # Nothing was rendered, so that every clip is missing: and so says the plan.
    assert not plan.complete and {r.kind for r in plan.refusals} == {"missing"}
    assert rendered == names  # the takes that they are made of are shipped
    with pytest.raises(UnknownNameError, match=r"It has: .*, plain, supervised, perfect, real"):
        planned("icface")


@pytest.mark.parametrize(
    ("given", "name", "label"),
    [
        ("ned", "mini-ned", "mini-NED"),
        ("stccl-ned", "mini-ned-stccl-vd", "mini-NED + STCCL-VD"),
        ("stccl-vd-ned", "mini-ned-stccl-vd", "mini-NED + STCCL-VD"),
        ("stccl-cm-ned", "mini-ned-stccl-cm", "mini-NED + STCCL-CM"),
    ],
)
def test_the_name_of_a_real_system_selects_its_small_copy_under_a_name_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, name: str, label: str
) -> None:
    def planned(method: str, videos: Videos | None = None) -> Plan:
        return make_plan(
            method,
            protocol("demo-inter-id"),
            profile_card("compact"),
            data=DataFolders(renders=tmp_path),
            weights=STORE,
            metrics=["csim"],
            videos=videos,
        )

    monkeypatch.setattr(Puppets, "make", lambda self, names, progress: None)
    plan = planned(given)
    assert (plan.method.name, plan.method.label, plan.method.paper) == (name, label, "")
    assert plan.note.startswith(f"'{given}' on 'puppets' is {label}")
    assert "docs/plug_and_play.md" in plan.note and (ROOT / plan.method.link).is_file()
    assert plan.model["sha256"] and not planned(name).note
    with pytest.raises(UnknownNameError, match="already has clips"):
        planned(given, Videos(tmp_path))


def test_papers_rows_stand_beside_drawn_clips_on_request_only() -> None:
    run = record("mini-ned", "mini-NED", NED, published=True, protocol="demo-cross-id")
    labels = [column.label for column in make_table([run]).columns]
    assert labels == ["mini-NED"]
    asked = [column.label for column in make_table([run], published=True).columns]
    assert asked == ["mini-NED", "NED† (ASCCL, MEAD)"]
    elsewhere = record("ned", "NED", NED, published=True, protocol="mead-cross-id")
    assert len(make_table([elsewhere]).columns) == 2
    assert len(make_table([elsewhere], published=False).columns) == 1


# ---- what is shipped -------------------------------------------------------------------------

SHIPPED = ("ned", "stccl-vd-ned", "stccl-cm-ned")


def test_shipped_models_were_trained_as_the_configurations_say_on_training_data_alone() -> None:
    folder = builtin_folder() / FOLDER
    assert set(SHIPPED) <= {p.stem for p in folder.glob("*.json")} - {"face"}
    split = {s.name: s.split for s in WORLD.speakers}
    spoken = {s.name: s.split for s in WORLD.sentences}
    faces = set()
    for name in (*SHIPPED, "face"):
        record = read_model_record(folder / name)
        assert {split[s] for s in record.training["speakers"]} == {"train"}
        assert {spoken[s] for s in record.training["sentences"]} == {"train"}
        if name != "face":
            assert trained_as(folder / name, read_ned_configs(name)[name])
            faces.add(record.face)
    assert faces == {read_model_record(folder / "face").sha256}
    assert sum(p.stat().st_size for p in folder.iterdir()) < 8e6


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_model_gives_emotion_and_keeps_the_mouth(name: str) -> None:
    """On a test puppet: nearer to the truth than the source in points, as open as the source."""
    source = WORLD.take("P004", "neutral", "028")
    reference = WORLD.take("P004", "happy", "029")
    truth = source.with_face("happy")
    given, shown, wanted = (
        np.stack([t.frame(i) for i in range(10, 26)]) for t in (source, reference, truth)
    )
    model = MiniNed.load(model_path(name))
    made = model.manipulate(given, shown)

    def seen(frames: np.ndarray) -> tuple[Any, Any]:
        face = learn.estimate_clip(model.estimator, torch.from_numpy(frames).permute(0, 3, 1, 2))
        return model.morphable.points(face)[0], model.morphable.gap(face)

    (points, gap), (before, opened), (right, _) = map(seen, (made, given, wanted))
    mouth = torch.from_numpy(np.concatenate([PLACES["lip_top_out"], PLACES["lip_bottom_out"]]))
    away, at_first = ((x - right)[:, mouth].norm(dim=-1).mean() for x in (points, before))
    assert away < 0.6 * at_first
    assert learn.correlation(gap[None], opened[None])[0] > 0.9


def test_the_numbers_of_the_demo_s_models_hold(
    demo_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Generated anew from the shipped weights, then scored; 'check' does cross-ID too."""
    monkeypatch.setenv("SPFEM_BENCH_CACHE", str(demo_cache))
    card, half = measured_card("mini-ned"), "demo-inter-id"
    here = recompute(
        card.model_copy(update={"methods": {half: card.methods[half]}}),
        weights=WeightsStore.locate(),
        data=DataFolders.locate(),
        store=FeatureStore.locate(),
        workers=ThisProcess(),
        computing=Computing(),
    )
    reference = {key: row for key, row in read_rows(card).items() if key[0] == half}
    found = check_reference(card.name, card.tolerance, reference, read_settings(card), here)
    assert len(found.rows) == len(reference) == 144
    assert not found.failing and not here.refused
