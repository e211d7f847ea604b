"""The configuration of a mini-NED training, a TOML file that the model's record repeats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic

from spfem_bench.definitions.cards import Strict, builtin_folder, card_folders, read_toml, validate
from spfem_bench.errors import CardError, unknown_name
from spfem_bench.stccl.metric import Form

FOLDER = "reference_results/models"  # the folder of models and their configurations among the cards
SHARED = "face"  # name of the files that all models of a folder share
_Count = Annotated[int, pydantic.Field(ge=1)]
_Weight = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
_Where = Literal["renders", "frames"]
_Row = Annotated[str, pydantic.Field(pattern=r"^[a-z0-9-]+$")]


class DataSettings(Strict):
    """The material (see :func:`.data.unpaired_takes`)."""

    version: int = 1  # of the world
    seed: int = 8  # of the world
    choice: int = 1  # seed of the choice of takes
    speakers: int = pydantic.Field(default=240, ge=2, le=240)  # number of training puppets
    takes: int = pydantic.Field(default=6, ge=2, le=7)  # of each puppet
    frames: int = pydantic.Field(default=14, ge=10, le=30)  # consecutive ones of each take
    # Recordings that the morphable model is fitted to, one frame of each.
    faces: int = pydantic.Field(default=1500, ge=100, le=16000)


class Learning(Strict):
    """The training of one network."""

    steps: _Count  # of the optimiser (AdamW)
    batch: _Count  # samples in a step
    rate: float = pydantic.Field(gt=0, lt=1)  # the largest (training.kit.warm_cosine)


class ManipulatorLearning(Learning):
    """The training of the manipulator."""

    window: int = pydantic.Field(default=10, ge=5)  # consecutive frames in a sample; NED has 10
    adversarial: _Weight = 1.0  # weight of the critic's loss of realism in the target's emotion
    emotion: _Weight = 1.0  # weight of the cross-entropy of the target's emotion
    style: _Weight = 1.0  # weight of the L1 distance between the target's and the reference's style
    cycle: _Weight = 1.0  # weight of the L1 distance between the source and its reconstruction
    speech: _Weight = 1.0  # weight of 1 minus the correlation of the lips' opening over time


class RendererLearning(Learning):
    """The training of the renderer, by the L1 distance of pixels and these terms."""

    details: _Weight = 5.0  # added weight of pixels of mouth, eyes, brows and folds
    squares: _Weight = 30.0  # weight of the squared distance; without it small parts train slowly
    edges: _Weight = 0.5  # weight of the L1 distance of differences of neighbouring pixels
    features: _Weight = 0.5  # weight of the L1 distance of the estimator's first maps


class AnimatorLearning(RendererLearning):
    """The training of a one-stage model, which has an animator in the others' place."""

    units: _Weight = 3.0  # weight of the distance of the drawn face's expression from the asked one


class Supervision(Strict):
    """STCCL as a loss; with the form ``none`` the other settings have no effect."""

    form: Form | Literal["none"] = "none"
    metric: str = "puppets"  # a learned metric's name or path
    trained: bool = True  # whether its heads are used; otherwise features are compared directly
    adaptive: bool = True  # whether its adaptive weights are used
    # On the manipulator's renders, on the renderer's frames, or both.
    where: tuple[_Where, ...] = pydantic.Field(default=("renders", "frames"), min_length=1)
    renders: _Weight = 0.01  # its weight in the manipulator's loss
    frames: _Weight = 0.1  # its weight in the renderer's loss
    # Share of each network's steps without supervision, which needs a drawn face; a parent draws.
    begin: float = pydantic.Field(default=0.6, ge=0, lt=1)
    batch: _Count = 2  # windows in a step
    window: int = pydantic.Field(default=5, ge=5, le=30)  # frames of a window
    # From one to the next; ct needs a window of about a second: 9 frames, every third.
    stride: int = pydantic.Field(default=1, ge=1, le=5)
    # Weight in ct of identity on frames redrawn with the source's own expression, in place of the
    # metric's on manipulated frames: there a model pays for it with emotion.
    own_identity: _Weight = 0.0

    @property
    def span(self) -> int:
        """Return the frames from a window's first to its last."""
        return (self.window - 1) * self.stride + 1

    def on(self, where: _Where) -> bool:
        """Return whether it is used there."""
        return self.form != "none" and where in self.where


class MiniNedConfig(Strict):
    """A training."""

    # Of the first weights and all batches; the estimator's is 0, since all models share it.
    seed: int = pydantic.Field(default=1, ge=0, lt=2**32)
    # A finished model whose renderer goes on learning, supervised from its first step on.
    parent: str = ""
    # With a parent: train a manipulator from the start, by this seed, instead of keeping its own.
    own_manipulator: bool = False
    data: DataSettings = DataSettings()
    estimator: Learning = Learning(steps=2500, batch=64, rate=2e-3)
    manipulator: ManipulatorLearning = ManipulatorLearning(steps=3000, batch=32, rate=5e-4)
    renderer: RendererLearning = RendererLearning(steps=2400, batch=12, rate=1e-3)
    # Given: a one-stage model, as ICface; neither manipulator nor renderer is trained.
    animator: AnimatorLearning | None = None
    stccl: Supervision = Supervision()

    @pydantic.model_validator(mode="after")
    def _possible(self) -> MiniNedConfig:
        if self.stccl.own_identity and not (self.stccl.form == "ct" and self.stccl.on("frames")):
            raise ValueError("own_identity needs form = 'ct' and 'frames' in where")
        if self.parent and self.stccl.on("renders") and not self.own_manipulator:
            other = "give where = ['frames'] or own_manipulator = true"
            raise ValueError(f"a parent's manipulator is not trained: {other}")
        if self.animator and (self.parent or self.stccl.on("renders")):
            raise ValueError("an animator has neither parent nor renders: give where = ['frames']")
        return self


class _ConfigFile(MiniNedConfig):
    """A file: one configuration, or one for each row of a table, which differ in STCCL alone."""

    # What stands in the place of [stccl], by the name that follows the file's.
    rows: dict[_Row, Supervision] = pydantic.Field(default={})


def models() -> dict[str, Path]:
    """Return the records of all models among the cards, by name; CardError for two of one."""
    paths: dict[str, Path] = {}
    for folder in card_folders():
        for path in sorted((folder / FOLDER).glob("*.json")):
            if path.stem == SHARED:
                continue
            other = paths.setdefault(path.stem, path)
            if other != path:
                problem = f"two models are named '{path.stem}': {other}, {path}"
                raise CardError(problem, "Rename yours")
    return paths


def config_names() -> list[str]:
    """Return the names of the files of configurations that are shipped, sorted."""
    return sorted(p.stem for p in (builtin_folder() / FOLDER).glob("*.toml"))


def read_ned_configs(name: str | Path) -> dict[str, MiniNedConfig]:
    """Return a file's configurations by their models' names: NAME, or NAME-ROW for each row.

    *name* is a shipped file's name or a path; raises UnknownNameError or CardError.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in config_names():
            raise unknown_name("configuration", str(name), config_names())
        path = builtin_folder() / FOLDER / f"{name}.toml"
    file = read_toml(_ConfigFile, path, f"Allowed: {', '.join(config_names())}, or a .toml")
    shared = file.model_dump(exclude={"rows", "stccl"})
    rows = {f"{path.stem}-{row}": how for row, how in file.rows.items()} or {path.stem: file.stccl}
    return {
        row: validate(MiniNedConfig, {**shared, "stccl": how.model_dump()}, f"{path}, {row}")
        for row, how in rows.items()
    }
