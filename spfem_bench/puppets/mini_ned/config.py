"""What a training of mini-NED is told, as a TOML file: every value is in the model's record.

``reference_results/models/*.toml`` are one for each row of the papers' ablations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic

from spfem_bench.definitions.cards import Strict, builtin_folder, card_folders, read_toml
from spfem_bench.errors import CardError, unknown_name
from spfem_bench.stccl.metric import Form

FOLDER = "reference_results/models"
"""Where models and their configurations lie among the cards."""

SHARED = "face"
"""Name of the files that all models of a folder share."""

Count = Annotated[int, pydantic.Field(ge=1)]
Weight = Annotated[float, pydantic.Field(ge=0, allow_inf_nan=False)]
Where = Literal["renders", "frames"]


class DataSettings(Strict):
    """What is learnt from (see :func:`.data.training_takes`).

    Attributes:
        version: of the world.
        seed: of the world.
        choice: seed of the choice of takes.
        speakers: training puppets.
        takes: of each.
        frames: consecutive ones of each take.
        faces: recordings that the morphable model is fitted to, one frame of each.
    """

    version: int = 1
    seed: int = 8
    choice: int = 1
    speakers: int = pydantic.Field(default=240, ge=2, le=240)
    takes: int = pydantic.Field(default=6, ge=2, le=7)
    frames: int = pydantic.Field(default=14, ge=10, le=30)
    faces: int = pydantic.Field(default=1500, ge=100, le=16000)


class Learning(Strict):
    """How one network is learnt.

    Attributes:
        steps: of the optimiser (AdamW).
        batch: samples in a step.
        rate: the largest learning rate (see `demo.training.learn.pace`).
    """

    steps: Count
    batch: Count
    rate: float = pydantic.Field(gt=0, lt=1)


class ManipulatorLearning(Learning):
    """How the manipulator is learnt.

    Attributes:
        window: consecutive frames in a sample; NED has 10.
        adversarial: weight of the critic's word on how real the target looks as its emotion.
        emotion: weight of the cross-entropy of the target's emotion.
        style: weight of the L1 distance between the target's style and the one asked for.
        cycle: weight of the L1 distance between the source and what comes back.
        speech: weight of 1 minus the correlation of the lips' opening over time.
    """

    window: int = pydantic.Field(default=10, ge=5)
    adversarial: Weight = 1.0
    emotion: Weight = 1.0
    style: Weight = 1.0
    cycle: Weight = 1.0
    speech: Weight = 1.0


class RendererLearning(Learning):
    """How the renderer is learnt: by the L1 distance of pixels, and what is weighed here.

    Attributes:
        details: added weight of pixels of mouth, eyes, brows and folds.
        squares: weight of the squared distance, without which small parts are learnt slowly.
        edges: weight of the L1 distance of differences of neighbouring pixels.
        features: weight of the L1 distance of the estimator's first maps.
    """

    details: Weight = 5.0
    squares: Weight = 30.0
    edges: Weight = 0.5
    features: Weight = 0.5


class Supervision(Strict):
    """STCCL as a loss; with the form ``none`` nothing else here matters.

    Attributes:
        form: ``none``, ``vd`` or ``cm``.
        metric: a learnt metric's name or path.
        trained: whether its heads act; else features are compared as they are.
        adaptive: whether its adaptive weights act.
        where: on the manipulator's ``renders``, on the renderer's ``frames``, or both.
        renders: its weight in the manipulator's loss.
        frames: its weight in the renderer's loss.
        begin: share of the steps of either network that pass before it supervises them: there
            is little to compare before a face is drawn.
        batch: windows of five frames in a step.
    """

    form: Form | Literal["none"] = "none"
    metric: str = "puppets"
    trained: bool = True
    adaptive: bool = True
    where: tuple[Where, ...] = pydantic.Field(default=("renders", "frames"), min_length=1)
    renders: Weight = 0.01
    frames: Weight = 0.1
    begin: float = pydantic.Field(default=0.6, ge=0, lt=1)
    batch: Count = 2

    def on(self, where: Where) -> bool:
        """Whether it supervises there."""
        return self.form != "none" and where in self.where


class MiniNedConfig(Strict):
    """A training.

    Attributes:
        seed: of first weights, of batches, of everything that is drawn in a training; the
            estimator has seed 0 always, since all models share it.
        data: what is learnt from.
        estimator: how the estimator is learnt.
        manipulator: how the manipulator is learnt.
        renderer: how the renderer is learnt.
        stccl: how both are supervised.
    """

    seed: int = pydantic.Field(default=1, ge=0, lt=2**32)
    data: DataSettings = DataSettings()
    estimator: Learning = Learning(steps=2500, batch=64, rate=2e-3)
    manipulator: ManipulatorLearning = ManipulatorLearning(steps=3000, batch=32, rate=5e-4)
    renderer: RendererLearning = RendererLearning(steps=2400, batch=12, rate=1e-3)
    stccl: Supervision = Supervision()


def models() -> dict[str, Path]:
    """Return the records of all trained models in the folders of cards, by name.

    Raises:
        CardError: two have one name.
    """
    found: dict[str, Path] = {}
    for folder in card_folders():
        for path in sorted((folder / FOLDER).glob("*.json")):
            if path.stem == SHARED:
                continue
            if path.stem in found:
                raise CardError(
                    f"two models are named '{path.stem}': {found[path.stem]}, {path}",
                    "Rename yours",
                )
            found[path.stem] = path
    return found


def config_names() -> list[str]:
    """Return the names of the configurations that are shipped, sorted."""
    return sorted(p.stem for p in (builtin_folder() / FOLDER).glob("*.toml"))


def read_config(name: str | Path) -> MiniNedConfig:
    """Read a configuration by the name of a shipped one, or by its path.

    Raises:
        UnknownNameError: no shipped one has that name.
        CardError: unreadable, not TOML, or it has a wrong, unknown or missing key.
    """
    path = Path(name)
    if path.suffix != ".toml":
        if str(name) not in config_names():
            raise unknown_name("configuration", str(name), config_names())
        path = builtin_folder() / FOLDER / f"{name}.toml"
    return read_toml(MiniNedConfig, path, f"Allowed: {', '.join(config_names())}, or a .toml")
