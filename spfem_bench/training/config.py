"""The configuration of a training of the metric: a TOML file, which the metric's record repeats."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pydantic

from spfem_bench.datasets.pair_lists import TEMPLATE
from spfem_bench.definitions.cards import Strict, builtin_folder, read_toml
from spfem_bench.stccl.checkpoint import FOLDER
from spfem_bench.stccl.settings import AnySettings, ContentSettings, Form, form_of

_Count = Annotated[int, pydantic.Field(ge=1)]

Second = Literal["recording", "face", "speech"]

HELD_OUT = 6
"""The last so many training speakers of a drawn world can be held out."""


class PuppetData(Strict):
    """Pairs of the drawn world (see ``spfem_bench.puppets.pairs.puppet_pairs``).

    Attributes:
        size: side of its frames in pixels.
        held_out: training puppets held out for early validation.
        checked: validation puppets, with sentences of their own, for the final numbers.
        windows: of each pair, evenly over it.
        second: a ``recording`` of its own; the pair's first with another ``face``; or a recording
            of other words, whose mouth alone is the first's (``speech``).
    """

    kind: Literal["puppets"]
    version: int = 1
    seed: int = 8
    size: int = 128
    speakers: _Count = 24
    held_out: _Count = pydantic.Field(default=1, le=HELD_OUT)
    checked: _Count = 6
    windows: _Count = 3
    second: Second = "recording"


class ListData(Strict):
    """Pairs of a list over frames (:func:`spfem_bench.datasets.pair_lists.listed_pairs`).

    Attributes:
        list: the JSON file; like ``frames``, relative to the configuration's folder.
        first: number in the name of the file of frame 0.
        detector: card of the face detector; without it frames are square face crops.
        held_out: speakers held out for early validation.
        checked: speakers for the final numbers; those of early validation when empty.
        windows: of each pair, evenly over it.
    """

    kind: Literal["list"]
    list: Path
    frames: Path
    template: str = TEMPLATE
    first: int = pydantic.Field(default=0, ge=0)
    detector: str | None = None
    held_out: tuple[str, ...] = pydantic.Field(min_length=1)
    checked: tuple[str, ...] = ()
    windows: _Count = 3


PEOPLE = {"light": "mobilefacenet", "official": "arcface-r50-ms1mv3"}
"""The backbone for pictures of people, by profile."""


class BackboneSettings(Strict):
    """The network below the heads: side in pixels and channel order of its input.

    Attributes:
        network: a card's name; by default ``compact-identity`` for puppets, and for a list the one
            of `PEOPLE` that *profile* names.
    """

    network: str = ""
    profile: Literal["light", "official"] = "light"
    size: int = pydantic.Field(default=112, ge=32, le=1024)
    colour: Literal["rgb", "bgr"] = "rgb"


class TrainConfig(Strict):
    """A training.

    Attributes:
        seed: of first weights, of the order of windows, of sampled regions.
        batch: windows in a step, over all processes together.
        frames: consecutive entries of a pair in a window.
        rate: Adam's learning rate; ``schedule`` ``cosine`` lowers it to a hundredth.
        validate_every: steps between validations on the held-out speakers; the best heads stay.
        cache: ``maps`` keeps feature maps of all windows in memory, in half precision;
            ``pictures`` takes a sixth to a tenth of that, and runs the backbone at each step.
    """

    seed: int = pydantic.Field(default=8, ge=0, lt=2**32)
    steps: _Count = 2000
    batch: _Count = 8
    frames: int = pydantic.Field(default=5, ge=2)
    rate: float = pydantic.Field(default=1e-3, gt=0, lt=1)
    schedule: Literal["cosine", "constant"] = "cosine"
    validate_every: _Count = 200
    save_every: _Count = 200
    cache: Literal["maps", "pictures"] = "maps"
    backbone: BackboneSettings = BackboneSettings()
    data: Annotated[PuppetData | ListData, pydantic.Field(discriminator="kind")]
    forms: dict[Form, AnySettings] = pydantic.Field(min_length=1)

    @property
    def content(self) -> ContentSettings | None:
        """The settings of the form ``ct``, if it is learnt."""
        settings = next(iter(self.forms.values()))
        return settings if isinstance(settings, ContentSettings) else None

    @property
    def network(self) -> str:
        """The name of the backbone's card."""
        default = PEOPLE[self.backbone.profile] if self.data.kind == "list" else "compact-identity"
        return self.backbone.network or default

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> TrainConfig:
        for form, settings in self.forms.items():
            if form_of(settings) != form:
                raise ValueError(f"forms.{form} has the form '{form_of(settings)}'")
            if isinstance(settings, ContentSettings):
                if len(self.forms) > 1:
                    raise ValueError("forms.ct compares other windows: train it alone")
                if self.frames < settings.fewest:
                    raise ValueError(
                        f"forms.ct compares {settings.fewest} frames at least, "
                        f"windows have {self.frames}"
                    )
            elif settings.contrast.window > self.frames:
                raise ValueError(
                    f"forms.{form} compares {settings.contrast.window} frames, "
                    f"windows have {self.frames}"
                )
        return self


def default_config(name: str = "puppets") -> Path:
    """Return the configuration of a metric that is shipped, for other names that of ``puppets``."""
    folder = builtin_folder() / FOLDER
    # As a name that is listed, it stays in the folder.
    return next((p for p in folder.glob("*.toml") if p.stem == name), folder / "puppets.toml")


def read_train_config(path: Path) -> TrainConfig:
    """Read a training's configuration.

    Raises:
        CardError: unreadable, not TOML, or it has a wrong, unknown or missing key.
    """
    return read_toml(TrainConfig, path, f"Copy {default_config()} and change it")
