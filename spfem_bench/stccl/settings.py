"""Settings of the metric: how source and generated are compared."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pydantic

from spfem_bench.definitions.cards import Strict
from spfem_bench.stccl import representations as rep

Form = Literal["vd", "cm", "ct"]


class ContrastSettings(Strict):
    """Settings of the comparison of source and generated.

    Attributes:
        form: ``vd`` for visual disparities, ``cm`` for correlation matrices.
        definition: ``paper``, or the authors' ``released-code`` (`losses.released_terms`; ``vd``).
        anchor: of ``released-code``, to which gradients flow: ``generated``, as a loss; or
            ``source``, as the released training of the metric has it (its first picture, neutral).
        temperature: tau of equation 4.
        adaptive: use the weights of equation 6 with lambda ``strength`` and r ``power`` (else 1).
        size: the number in the place of the disparity in equation 6; see `losses.region_weights`.
        neighbours: 8, or 4 (``vd``, wherever regions are compared with their neighbours).
        pairs: of frames (temporal ``vd``): ``adjacent``, or ``window`` for all inside a window, as
            the released code has always.
        window: frames among which temporal negatives are (`representations.frame_windows`).
        spatial_negatives: ``neighbours``, the others of the same region (equations 1 and 4:
            ``y_i->k``, k != j), whose similarity begins well above 0; or ``positions``, every other
            disparity of the image, as in the released code (spatial ``vd``, sampled centres).
        temporal_negatives: other pairs of ``frames`` of the region (STCCL, figure of the
            algorithm); or in the same frames (its overview figure) the neighbouring ``regions``, or
            all ``positions`` (temporal ``vd``).
        rows: the representation of a region in ``cm``; see `losses.matrix_rows`.
    """

    form: Form = "vd"
    definition: Literal["paper", "released-code"] = "paper"
    anchor: Literal["generated", "source"] = "generated"
    temperature: float = pydantic.Field(default=0.07, gt=0, allow_inf_nan=False)
    adaptive: bool = True
    strength: float = pydantic.Field(default=2.0, gt=0, allow_inf_nan=False)
    power: float = pydantic.Field(default=2.0, ge=0, allow_inf_nan=False)
    size: Literal["rms", "norm", "channels"] = "rms"
    neighbours: Literal[4, 8] = 8
    pairs: rep.Pairs = "adjacent"
    window: int = pydantic.Field(default=5, ge=2)
    spatial_negatives: Literal["neighbours", "positions"] = "neighbours"
    temporal_negatives: Literal["frames", "regions", "positions"] = "frames"
    rows: Literal["centred", "cosine"] = "centred"

    @pydantic.model_validator(mode="after")
    def _possible(self) -> ContrastSettings:
        if self.definition == "released-code" and self.form == "cm":
            raise ValueError("the released code has no correlation matrices: set form to 'vd'")
        by_regions = self.temporal_negatives != "frames" and self.form == "vd"
        cosine = self.form == "cm" and self.rows == "cosine"
        if self.window < 3 and not (by_regions or cosine or self.definition == "released-code"):
            raise ValueError("a window of 2 frames leaves no negatives: set it to 3 or more")
        return self


class ContentSettings(Strict):
    """Settings of the form ``ct``: what is said, moment by moment (see `content`).

    Attributes:
        temperature: tau of the contrast.
        apart: frames between two moments that are other than each other, at least; moments in
            between are neither alike nor other.
        every: of consecutive frames, every so many is a moment.
        grid: regions of a stage's map, so many by so many; smaller maps stay as they are.
        negatives: other moments of the ``source``, or of the generated too (``both``).
        identity: weight of what stays in the clip (`content.identity_cost`), which is not learnt.
        learning_temperature: tau while heads are learnt.
    """

    form: Literal["ct"] = "ct"
    temperature: float = pydantic.Field(default=0.1, gt=0, allow_inf_nan=False)
    apart: int = pydantic.Field(default=4, ge=1)
    every: int = pydantic.Field(default=2, ge=1)
    grid: int = pydantic.Field(default=7, ge=1)
    negatives: Literal["source", "both"] = "source"
    identity: float = pydantic.Field(default=0.0, ge=0, allow_inf_nan=False)
    learning_temperature: float | None = pydantic.Field(default=None, gt=0, allow_inf_nan=False)

    @property
    def fewest(self) -> int:
        """The fewest frames of which each moment has another one."""
        step = -(-self.apart // self.every)
        return (2 * step - 1) * self.every + 1

    def learning(self) -> ContentSettings:
        """Return the settings while heads are learnt."""
        warm = self.learning_temperature or self.temperature
        return self.model_copy(update={"temperature": warm})


class FormSettings(Strict):
    """Settings of one form: comparison, and regions sampled at each stage for SCC and for TCC.

    ``learning_temperature`` is tau while heads are learnt, where it is another than in use. The
    released code samples `representations.RELEASED_POSITIONS` in time, unless others are given.
    """

    contrast: ContrastSettings
    spatial_centres: tuple[int, int, int, int] = rep.CENTRES_PER_STAGE
    temporal_centres: tuple[int, int, int, int] = rep.CENTRES_PER_STAGE
    learning_temperature: float | None = pydantic.Field(default=None, gt=0, allow_inf_nan=False)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _released_positions(cls, content: Any) -> Any:
        contrast = content.get("contrast") if isinstance(content, dict) else None
        name = contrast.get("definition") if isinstance(contrast, dict) else None
        if (name or getattr(contrast, "definition", "")) == "released-code":
            return {"temporal_centres": rep.RELEASED_POSITIONS, **content}
        return content

    def learning(self) -> FormSettings:
        """Return the settings while heads are learnt."""
        changes: dict[str, Any] = {}
        if self.learning_temperature is not None:
            changes["temperature"] = self.learning_temperature
        if self.contrast.definition == "released-code":
            changes["anchor"] = "source"
        if not changes:
            return self
        return self.model_copy(update={"contrast": self.contrast.model_copy(update=changes)})


def _which(content: Any) -> str:
    form = content.get("form") if isinstance(content, dict) else getattr(content, "form", None)
    return "content" if form == "ct" else "contrast"


AnySettings = Annotated[
    Annotated[FormSettings, pydantic.Tag("contrast")]
    | Annotated[ContentSettings, pydantic.Tag("content")],
    pydantic.Discriminator(_which),
]
"""Settings of any form; those of ``ct`` say so by their ``form``."""


def form_of(settings: FormSettings | ContentSettings) -> Form:
    """Return the form that settings are of."""
    return settings.contrast.form if isinstance(settings, FormSettings) else settings.form
